/* Facts about the zeros of one weight, seen as a matrix W[rows, columns]: rows are outputs, columns are inputs (for a convolution
 * input channel, tap row, tap column, in this order). A zero of either sign is absent; NaN is not a zero. */
#ifndef SFI_FACTS_H
#define SFI_FACTS_H

#include "source.h"

/* How a weight tensor is read as W: element W[r, c] stands at data[r * row_stride + c * column_stride]. */
typedef struct sfi_matrix {
  const float *data;
  int64_t rows, columns;
  int64_t row_stride, column_stride; /* in elements */
  sfi_source *source;                /* of the elements where `data` is NULL: sfi_matrix_open gives it */
} sfi_matrix;

/* Sets `data`, where a source has it, until the matrix is closed. False: it cannot be read. */
static inline bool sfi_matrix_open(sfi_matrix *matrix, sfi_diag *diag) {
  if (matrix->source) matrix->data = sfi_source_open(matrix->source, diag);
  return matrix->data != NULL;
}
static inline void sfi_matrix_close(sfi_matrix *matrix) {
  if (!matrix->source) return;
  sfi_source_close(matrix->source);
  matrix->data = NULL;
}

/* Tightest n:m kept by W: every aligned group of m has at most n nonzeros, the last one, cut short, too; m is 2, 4, .. 32 and at most
 * the extent. n == m: nothing tighter than dense. */
typedef struct sfi_nm {
  int32_t n, m;
} sfi_nm;

/* Sizes of panels, in rows, that facts are known of. */
enum { SFI_PANEL4, SFI_PANEL8, SFI_PANELS };

typedef struct sfi_facts {
  int64_t rows, columns, nonzeros;
  int64_t nonfinite;                    /* NaN and Inf: what they meet in padding matters */
  int64_t dead_rows, dead_columns;      /* wholly zero */
  int64_t row_min, row_median, row_max; /* nonzeros a row */
  int64_t column_least;                 /* nonzeros of a column that has any; 0: none has */
  int64_t panel_columns[SFI_PANELS]; /* columns that panels of 4 and of 8 rows touch, over all panels; rows as sfi_order_rows puts
                                           them */
  sfi_nm along_columns;              /* groups of consecutive columns in a row; best density */
  sfi_nm along_rows;                 /* groups of consecutive rows in a column */
  int32_t block_rows, block_columns; /* the largest block (by area; powers of two up to 64) of which some aligned tiles are
                                           empty and the others together at least 95 % full; 1 1: none */
  sfi_digest pattern;                /* of rows, columns and the bitmap of nonzeros, row-major */
  const uint8_t *live; /* for each row, then each column: does it hold a nonzero? NULL where none is dead; scans leave it to
                          whoever keeps facts */
} sfi_facts;

/* An order of rows with equal digests of their patterns next to each other: classes by their first rows, rows of a class as they come.
 * out_order[i]: the row that comes i-th. False: out of memory. */
bool sfi_order_rows(const sfi_digest *digest, int64_t rows, const sf_allocator *allocator, uint32_t *out_order);

static inline double sfi_density(const sfi_facts *f) {
  return f->rows && f->columns ? (double)f->nonzeros / ((double)f->rows * (double)f->columns) : 0;
}

/* About what the weight takes packed: four bytes an element, or six a nonzero. */
static inline double sfi_weight_bytes(const sfi_facts *f) {
  const double dense = (double)f->rows * (double)f->columns * 4, sparse = (double)f->nonzeros * 6;
  return sparse < dense ? sparse : dense;
}

#endif
