/* Products with few columns, each a t of the space (J = 1): lanes run along rows of W, every weight that is read serves all columns, and
 * no sum crosses lanes. One column is a matrix-vector product. */
#ifndef SFI_FEW_H
#define SFI_FEW_H

#include "contraction.h"

enum { SFI_FEW_MAX = 8 };

/* Columns that are computed together. */
typedef struct sfi_few {
  int32_t n;
  LLVMValueRef t[SFI_FEW_MAX];
  LLVMValueRef x[SFI_FEW_MAX]; /* address of X[t, k at position 0] */
  LLVMValueRef scratch;        /* room for tile.rows floats a column */
} sfi_few;

/* Refuses more than `most` columns. Sets the tile: all t in one, panels of `rows` rows of W, vectors: columns computed together. */
sfi_refusal sfi_few_accept(sfi_kernel *kernel, const sfi_plan *plan, int32_t most, int32_t rows, double bytes_per_row);
/* Columns at `symbol`, for costs: a last group that is not full costs as much as a full one. */
double sfi_few_columns(const sfi_kernel *kernel, int64_t symbol);
/* Number of panels of tile.rows rows. */
int64_t sfi_few_panels(const sfi_kernel *kernel);

/* Emits one panel, `panel` its number: sums, and their store by sfi_few_store. */
typedef void (*sfi_panel_fn)(sfi_emission *e, const sfi_few *few, LLVMValueRef panel);
/* Loops over groups of columns and over the panels of the tiles asked for. */
void sfi_few_walk(sfi_emission *e, sfi_panel_fn panel);

/* X[t, k] of column n in all lanes. */
LLVMValueRef sfi_few_x(sfi_emission *e, const sfi_few *few, int32_t n, LLVMValueRef k);
/* Is any lane of the sums NaN, or do they hold Inf of both signs? i1. See emit_gemm.c. */
LLVMValueRef sfi_few_suspect(sfi_emission *e, const LLVMValueRef *sum, int32_t n);
/* sum[n], lanes are rows row, row + 1, .. */
void sfi_few_store(sfi_emission *e, const sfi_few *few, LLVMValueRef row, const LLVMValueRef *sum);

/* The slower of reading `bytes` and of executing, in microseconds. */
double sfi_few_us(const sfi_plan *plan, double bytes, double cycles);

#endif
