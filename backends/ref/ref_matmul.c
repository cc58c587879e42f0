/* Matrix product over the last two dimensions, leading dimensions broadcast. A zero of a static operand is absent: it contributes
 * nothing, whatever stands opposite. */
#include "ref_kernel.h"

enum { TILE_ROWS = 4, TILE_COLUMNS = 64 };

typedef struct factor {
  const sf_tensor *tensor;
  int64_t columns;     /* of the matrix as it takes part in the product */
  int64_t row, column; /* its strides */
  bool absent;         /* its zeros are */
} factor;

static factor factor_of(const sfi_ref_call *call, int32_t i, sf_attr_id transpose) {
  const sf_tensor *t = &call->inputs[i];
  int64_t rows = t->dims[t->rank - 2], columns = t->dims[t->rank - 1];
  bool absent = call->static_mask >> i & 1;
  if (sfi_attr_int(call->node, transpose)) return (factor){t, rows, 1, columns, absent};
  return (factor){t, columns, columns, 1, absent};
}

/* One output matrix at `o`, from the matrices at `a` and `b`. */
static void product(const factor *fa, const factor *fb, int64_t a, int64_t b, const sf_tensor *out, int64_t o, int64_t m, int64_t n,
                    int64_t k) {
  double sum[TILE_ROWS][TILE_COLUMNS], run[TILE_COLUMNS];
  for (int64_t i0 = 0; i0 < m; i0 += TILE_ROWS) {
    int64_t rows = sfi_min(TILE_ROWS, m - i0);
    for (int64_t j0 = 0; j0 < n; j0 += TILE_COLUMNS) {
      int64_t columns = sfi_min(TILE_COLUMNS, n - j0);
      memset(sum, 0, sizeof sum);
      for (int64_t p = 0; p < k; p++) {
        sfi_ref_load_run(fb->tensor, b + p * fb->row + j0 * fb->column, fb->column, columns, run);
        for (int64_t i = 0; i < rows; i++) {
          double x = sfi_ref_load(fa->tensor, a + (i0 + i) * fa->row + p * fa->column);
          if (fa->absent && x == 0) continue;
          if (isfinite(x) || !fb->absent) /* a finite number times zero adds nothing: no need to look */
            for (int64_t j = 0; j < columns; j++) sum[i][j] += x * run[j];
          else
            for (int64_t j = 0; j < columns; j++) sum[i][j] += run[j] == 0 ? 0 : x * run[j];
        }
      }
      for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) sfi_ref_store(out, o + (i0 + i) * n + j0 + j, sum[i][j]);
    }
  }
}

void sfi_ref_matmul(const sfi_ref_call *call) {
  const sf_tensor *out = call->output;
  factor a = factor_of(call, 0, SF_ATTR_TRANSPOSE_A), b = factor_of(call, 1, SF_ATTR_TRANSPOSE_B);
  int64_t m = out->dims[out->rank - 2], n = out->dims[out->rank - 1];
  int64_t index[SF_MAX_RANK] = {0}, at[3] = {0}, strides[3][SF_MAX_RANK];
  if (sfi_ref_numel(out) == 0) return;
  sfi_ref_broadcast_strides(a.tensor, out->rank, strides[0]);
  sfi_ref_broadcast_strides(b.tensor, out->rank, strides[1]);
  sfi_ref_strides(out, strides[2]);
  do product(&a, &b, at[0], at[1], out, at[2], m, n, a.columns);
  while (sfi_ref_next(out->rank - 2, out->dims, index, 3, strides, at));
}
