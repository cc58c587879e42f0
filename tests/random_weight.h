/* Random weights with the patterns of zeros that pruning makes. */
#ifndef SF_TESTS_RANDOM_WEIGHT_H
#define SF_TESTS_RANDOM_WEIGHT_H

#include <stdint.h>

typedef enum sf_pattern {
  SF_PATTERN_DENSE,
  SF_PATTERN_UNSTRUCTURED, /* 10 to 99.9 % zeros */
  SF_PATTERN_NM_COLUMNS,   /* at most n of m consecutive columns, any n < m, m up to 32 */
  SF_PATTERN_NM_ROWS,
  SF_PATTERN_BLOCKS,             /* empty or full blocks of up to 64 x 64 */
  SF_PATTERN_NEARLY_FULL_BLOCKS, /* the same, the full ones with a few holes */
  SF_PATTERN_DEAD,               /* some rows and columns */
  SF_PATTERN_ALL_ZERO,
  SF_PATTERN_ONE_ELEMENT,
  SF_PATTERNS
} sf_pattern;
/* "unstructured" */
const char *sf_pattern_name(sf_pattern pattern);

/* A pattern with what it leaves open. */
typedef struct sf_zeros {
  sf_pattern pattern;
  double share;          /* UNSTRUCTURED: of zeros */
  int64_t n, m;          /* NM_COLUMNS, NM_ROWS */
  int64_t height, width; /* of BLOCKS */
} sf_zeros;

/* Fills row-major data[rows, columns]: magnitudes of 0.5 to 1.5, zeros of either sign. The same state gives the same weight. */
void sf_fill_weight(uint64_t *state, const sf_zeros *zeros, int64_t rows, int64_t columns, float *data);
/* The same with what the pattern leaves open at random. */
void sf_random_weight(uint64_t *state, sf_pattern pattern, int64_t rows, int64_t columns, float *data);

#endif
