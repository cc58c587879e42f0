/* "conv-depthwise": convolutions with one channel a group. Each output is a sum over its window alone, so there is no product of matrices
 * to make: lanes run along a row of the image, and a few output rows of one channel are summed at once, so that a vector of the image, once
 * loaded, serves every row whose window holds it; the weights of the window stay in registers where there are enough. Images of any
 * stride and dilation are read in the phases that lowering lays them out in, where two taps of two rows meet at one address alike.
 *
 * A zero of a weight is absent, yet is multiplied by here: tiles with a NaN are computed once more without, as in emit_gemm.c.
 * Packed W: float [channel][tap]. */
#include "emitters.h"

#include <stdlib.h>

enum { TAPS_MOST = 49, ROWS = 4 };

typedef struct depthwise {
  sfi_emission *e;
  int32_t taps;
  int64_t width, height, pitch; /* of the output; of the image's rows */
  LLVMValueRef x;               /* the channel's image */
  LLVMValueRef weight[TAPS_MOST];
  sfi_point at; /* t and the channel */
} depthwise;

sfi_refusal sfi_conv_depthwise_accept(sfi_kernel *k, const sfi_plan *plan) {
  const sfi_contract *c = &k->contract;
  const sfi_poly channel = k->operand[1].stride[1];
  (void)plan;
  if (c->groups < 2 || c->groups != c->rows) return SFI_REFUSE_GROUPS;
  if (!sfi_is_const(k->extent[2].of) || !sfi_is_const(channel)) return SFI_REFUSE_SYMBOLIC;
  if (!c->k_offset || c->fold != 1 || c->in_place) return SFI_REFUSE_STRIDED_COLUMNS;
  if (c->matrix.columns > TAPS_MOST) return SFI_REFUSE_TOO_MANY_STEPS;
  for (int64_t i = 0; i < c->depth.c[0]; i++) { /* every channel is read alike */
    const int64_t of = i / c->matrix.columns, first = c->k_offset[i % c->matrix.columns];
    if (c->k_offset[i] - first != of * channel.c[0] || first > INT32_MAX) return SFI_REFUSE_OFFSETS_TOO_LARGE;
  }
  k->tile.rows = k->tile.vectors = 1;
  k->tile.row_block = sfi_max(1, c->rows / 16);
  k->tile.column_block = sfi_max(1, k->extent[2].of.c[0]);
  return SFI_REFUSE_NONE;
}

double sfi_conv_depthwise_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  const sfi_contract *c = &k->contract;
  int64_t images = 0;
  sfi_extent_eval(k->extent[0], symbol, &images);
  const double vectors = (double)sfi_ceil_div(c->valid, plan->target->lanes) * (double)(k->extent[2].of.c[0] / c->valid);
  const double cycles = (double)c->matrix.columns * 0.6 + 3 + 0.5 * k->epilogue.n;
  return sfi_cycles_us(plan->target, (double)(images * c->rows) * vectors * cycles);
}

sf_status sfi_conv_depthwise_pack(const sfi_kernel *k, const sfi_plan *plan, const sf_allocator *allocator, sfi_diag *diag,
                                  sfi_blob *out) {
  const sfi_matrix *w = &k->contract.matrix;
  (void)plan;
  if (!sfi_blob_init(out, allocator, (size_t)(w->rows * w->columns * 4 + 64))) return sfi_fail_memory(diag);
  float *to = (float *)(void *)out->data;
  for (int64_t r = 0; r < w->rows; r++)
    for (int64_t i = 0; i < w->columns; i++) to[r * w->columns + i] = w->data[r * w->row_stride + i * w->column_stride];
  return SF_OK;
}

static int by_value(const void *a, const void *b) {
  const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

/* Sums of `rows` rows of the vector of columns whose first window begins at `x`. exact: zeros of weights are skipped. */
static void windows(const depthwise *d, LLVMValueRef x, int32_t rows, bool exact, LLVMValueRef *acc) {
  sfi_emission *e = d->e;
  const int64_t *tap = e->kernel->contract.k_offset;
  int64_t offset[ROWS * TAPS_MOST];
  const int32_t count = rows * d->taps;
  for (int32_t i = 0; i < count; i++) offset[i] = i / d->taps * d->pitch + tap[i % d->taps];
  qsort(offset, (size_t)count, sizeof *offset, by_value);
  for (int32_t r = 0; r < rows; r++) acc[r] = LLVMConstNull(e->vec);
  for (int32_t i = 0; i < count; i++) {
    if (i > 0 && offset[i] == offset[i - 1]) continue;
    LLVMValueRef value = sfi_load_vector(e, sfi_at(e, e->f32, x, sfi_i64(e, offset[i])), NULL);
    for (int32_t r = 0; r < rows; r++) {
      for (int32_t t = 0; t < d->taps; t++) {
        if (r * d->pitch + tap[t] != offset[i]) continue;
        LLVMValueRef sum = sfi_fma(e, d->weight[t], value, acc[r]);
        if (exact) {
          LLVMValueRef present = LLVMBuildFCmp(e->builder, LLVMRealUNE, d->weight[t], LLVMConstNull(e->vec), "");
          sum = LLVMBuildSelect(e->builder, present, sum, acc[r], "");
        }
        acc[r] = sum;
      }
    }
  }
}

/* Rows [row, row + rows) of the columns from `column` on, of which those below `left` exist; NULL: all. */
static void tile(const depthwise *d, LLVMValueRef row, int32_t rows, LLVMValueRef column, LLVMValueRef left) {
  sfi_emission *e = d->e;
  LLVMValueRef acc[ROWS], again[ROWS];
  sfi_columns columns = {.vectors = 1};
  LLVMValueRef x = sfi_at(e, e->f32, d->x, sfi_addi(e, sfi_muli(e, row, sfi_i64(e, d->pitch)), column));
  windows(d, x, rows, false, acc);
  columns.point[0] = d->at;
  columns.point[0].mask = left ? sfi_mask_below(e, sfi_i64(e, 0), left) : NULL;
  sfi_if nan;
  sfi_if_begin(e, &nan, sfi_any_nan(e, &columns, acc, rows));
  windows(d, x, rows, true, again);
  sfi_if_end(e, &nan, again, acc, acc, (unsigned)rows);
  for (int32_t r = 0; r < rows; r++) {
    sfi_point p = columns.point[0];
    p.index[2] = sfi_addi(e, sfi_muli(e, sfi_addi(e, row, sfi_i64(e, r)), sfi_i64(e, d->width)), column);
    sfi_point_store(e, &p, sfi_expr_value(e, &e->kernel->epilogue, &p, acc[r]));
  }
}

static void row_group(const depthwise *d, LLVMValueRef row, int32_t rows) {
  sfi_emission *e = d->e;
  const int64_t whole = d->width / e->lanes * e->lanes;
  sfi_loop columns;
  sfi_loop_begin(e, &columns, sfi_i64(e, 0), sfi_i64(e, whole), sfi_i64(e, e->lanes), NULL, 0);
  tile(d, row, rows, columns.index, NULL);
  sfi_loop_end(e, &columns, NULL);
  if (whole < d->width) tile(d, row, rows, sfi_i64(e, whole), sfi_i64(e, d->width - whole));
}

static void channel(depthwise *d, LLVMValueRef t, LLVMValueRef m) {
  sfi_emission *e = d->e;
  const sfi_access *x = &e->kernel->operand[1];
  LLVMValueRef at = sfi_addi(e, sfi_poly_value(e, x->offset), sfi_muli(e, t, sfi_poly_value(e, x->stride[0])));
  d->x = sfi_at(e, e->f32, e->base[1], sfi_addi(e, at, sfi_muli(e, m, sfi_poly_value(e, x->stride[1]))));
  d->at = (sfi_point){.rank = 3, .vector_dim = 2, .vector = true, .index = {t, m, NULL}};
  LLVMValueRef first = sfi_muli(e, m, sfi_i64(e, d->taps));
  for (int32_t i = 0; i < d->taps; i++)
    d->weight[i] = sfi_splat(e, sfi_load_scalar(e, e->f32, e->base[2], sfi_addi(e, first, sfi_i64(e, i))));
  const int64_t whole = d->height / ROWS * ROWS;
  sfi_loop rows;
  sfi_loop_begin(e, &rows, sfi_i64(e, 0), sfi_i64(e, whole), sfi_i64(e, ROWS), NULL, 0);
  row_group(d, rows.index, ROWS);
  sfi_loop_end(e, &rows, NULL);
  if (whole < d->height) row_group(d, sfi_i64(e, whole), (int32_t)(d->height - whole));
}

sf_status sfi_conv_depthwise_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  const sfi_contract *c = &k->contract;
  depthwise d = {.e = e, .taps = (int32_t)c->matrix.columns, .width = c->valid, .pitch = c->pitch};
  (void)plan;
  d.height = k->extent[2].of.c[0] / c->valid;
  LLVMValueRef blocks = sfi_i64(e, sfi_ceil_div(c->rows, k->tile.row_block)), block = sfi_i64(e, k->tile.row_block);
  sfi_loop tiles, channels;
  sfi_loop_begin(e, &tiles, e->tile_begin, e->tile_end, sfi_i64(e, 1), NULL, 0);
  LLVMValueRef t = LLVMBuildUDiv(e->builder, tiles.index, blocks, "");
  LLVMValueRef begin = sfi_muli(e, LLVMBuildURem(e->builder, tiles.index, blocks, ""), block);
  sfi_loop_begin(e, &channels, begin, sfi_mini(e, sfi_addi(e, begin, block), sfi_i64(e, c->rows)), sfi_i64(e, 1), NULL, 0);
  channel(&d, t, channels.index);
  sfi_loop_end(e, &channels, NULL);
  sfi_loop_end(e, &tiles, NULL);
  return SF_OK;
}
