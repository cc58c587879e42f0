/* Comparison of results with the fp64 reference, by ir/tolerances.def: what every test of numbers uses. NaN must stand where NaN is
 * wanted, and an infinity of the same sign where one is. */
#ifndef SF_TESTS_COMPARE_H
#define SF_TESTS_COMPARE_H

#include "graph.h"

typedef struct sf_tolerance {
  double absolute, relative, growth; /* see ir/tolerances.def */
} sf_tolerance;
sf_tolerance sf_tolerance_of(sf_op op);
/* Terms that one element of the value's operation sums or looks at, from concrete operands; 1 where it is elementwise. */
int64_t sf_depth_of(const sfi_node *node, const sf_tensor *inputs, const sf_tensor *output);
/* Half the distance of neighbours at 1, over that of F32: scales the table to the type of a result. */
double sf_precision_of(sf_dtype dtype);

typedef struct sf_comparison {
  int64_t compared, skipped; /* elements; skipped: the bound knows nothing of them */
  int64_t wrong;
  /* The worst element, wrong or not: error over allowance, NaN and infinities out of place first. */
  int64_t worst_index;
  double worst_ratio, worst_got, worst_want, worst_allowed;
} sf_comparison;

/* Is every element of `got` (F32 or F64) within the table's row for `op` at `depth` of `want` (F64)? For results of one operation, or of
 * a few of which `op` at `depth` is the worst. Elements beyond FLT_MAX are skipped for F32. */
bool sf_compare(const sf_tensor *got, const sf_tensor *want, sf_op op, int64_t depth, sf_comparison *out_comparison);
/* The same by an allowance for each element (F64), as sf_bounded_run makes; INFINITY: the element is skipped. */
bool sf_compare_bounded(const sf_tensor *got, const sf_tensor *want, const sf_tensor *bound, sf_comparison *out_comparison);
/* "element 7 is 1.5, not 1.25 (allowed 1e-06); 3 of 40 wrong, 0 skipped", at most `size` bytes. */
void sf_comparison_print(const sf_comparison *comparison, char *out_text, size_t size);

#endif
