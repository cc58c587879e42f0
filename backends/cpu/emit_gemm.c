/* Dense matrix product: every element of W is multiplied. "gemm-dense" for a weight, packed in panels of Mr rows; "gemm-product" for
 * two run-time operands, read where they are.
 *
 * Zeros of a weight are absent by definition, yet this kernel multiplies by them, which differs where X is Inf or NaN: 0 x Inf is
 * NaN. Such a tile shows it, for NaN never leaves a sum. So a tile whose sums hold a NaN is computed once more, by a loop that
 * skips the zeros; ordinary tiles pay one compare an accumulator. */
#include "emitters.h"

/* Packed W: [positions of X rows] [panel][k][Mr]. */
static int64_t panel_count(const sfi_kernel *k) {
  return sfi_ceil_div(k->contract.rows, k->tile.rows);
}

/* Rows of the register tile: what the registers hold beside V of X and one broadcast. */
static int32_t tile_rows(const sfi_target *target, int32_t vectors) {
  int32_t rows = (target->registers - vectors - 1) / vectors;
  if (vectors > 1 && rows > 6) rows = 6;
  return rows > 12 ? 12 : rows;
}

sfi_refusal sfi_gemm_dense_accept(sfi_kernel *k, const sfi_plan *plan) {
  if (sfi_is(k->extent[2].of, 1) && sfi_is(k->extent[0].of, 1)) return SFI_REFUSE_ONE_COLUMN;
  if (k->contract.groups > 1) return SFI_REFUSE_GROUPS;
  if (!sfi_is(k->operand[1].stride[2], 1) && !sfi_is(k->extent[2].of, 1)) return SFI_REFUSE_STRIDED_COLUMNS;
  if (!sfi_positions_fit(k)) return SFI_REFUSE_OFFSETS_TOO_LARGE;
  sfi_choose_columns(k, plan->target, plan->target->registers > 16 ? 4 : 2);
  sfi_choose_rows(k, plan->target, tile_rows(plan->target, k->tile.vectors), (double)k->contract.depth.c[0] * 4);
  return SFI_REFUSE_NONE;
}

double sfi_gemm_dense_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  const sfi_target *target = plan->target;
  double columns = sfi_total_columns(k, plan->target, symbol), depth = (double)k->contract.depth.c[0];
  double rows = (double)(panel_count(k) * k->tile.rows);
  double step = columns / target->lanes * rows;                     /* vectors of output */
  double slots = k->tile.vectors == 1 ? 1 + 1.0 / k->tile.rows : 1; /* one vector of X: a load for each multiply-add, and its own */
  return sfi_cycles_us(target, step * depth / 2 * 1.01 * slots + step * 0.25 * k->epilogue.n);
}

sf_status sfi_gemm_dense_pack(const sfi_kernel *k, const sfi_plan *plan, const sf_allocator *allocator, sfi_diag *diag,
                              sfi_blob *out) {
  (void)plan;
  return sfi_pack_panels(k, k->tile.rows, allocator, diag, out);
}

/* acc += W[rows of the panel, k] * X[k, columns] for all k. w: address of the panel's first row; W element (k, r) at k_stride * k +
 * r_index[r]. exact: zeros of W are skipped. */
static void accumulate(sfi_emission *e, const sfi_columns *columns, LLVMValueRef w, LLVMValueRef k_stride,
                       const LLVMValueRef *r_index, int32_t rows, bool exact, LLVMValueRef *acc) {
  int32_t count = rows * columns->vectors;
  LLVMValueRef next[SFI_ACCUMULATORS_MAX];
  for (int32_t i = 0; i < count; i++) acc[i] = LLVMConstNull(e->vec);
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), sfi_poly_value(e, e->kernel->contract.depth), sfi_i64(e, 1), acc, (unsigned)count);
  bool packed = e->kernel->anchor == SFI_ANCHOR_CONTRACT;
  LLVMValueRef row =
      packed ? sfi_x_row(e, columns->x, loop.index)
             : sfi_at(e, e->f32, columns->x, sfi_muli(e, loop.index, sfi_poly_value(e, e->kernel->operand[1].stride[1])));
  LLVMValueRef wk = sfi_at(e, e->f32, w, sfi_muli(e, loop.index, k_stride));
  for (int32_t r = 0; r < rows && packed; r += e->kernel->tile.rows) sfi_prefetch(e, sfi_at(e, e->f32, wk, r_index[r]), SFI_AHEAD);
  sfi_dense_step(e, columns, row, wk, r_index, rows, exact, loop.carried, next);
  sfi_loop_end(e, &loop, next);
  memcpy(acc, loop.carried, (size_t)count * sizeof *acc);
}

/* Panels of W from row `begin` on, `panels` side by side in one tile, while the first rows of all of them are below `end`. Returns the row
 * behind them. */
static LLVMValueRef dense_panels(sfi_emission *e, const sfi_columns *columns, LLVMValueRef begin, LLVMValueRef end,
                                 int32_t panels) {
  const sfi_kernel *k = e->kernel;
  int32_t height = k->tile.rows, rows = panels * height;
  int64_t depth = k->contract.depth.c[0];
  LLVMValueRef acc[SFI_ACCUMULATORS_MAX], exact[SFI_ACCUMULATORS_MAX], r_index[SFI_ROWS_MAX];
  for (int32_t r = 0; r < rows; r++) r_index[r] = sfi_i64(e, r / height * height * depth + r % height);
  sfi_loop tile;
  sfi_loop_begin(e, &tile, begin, LLVMBuildNSWSub(e->builder, end, sfi_i64(e, (int64_t)(panels - 1) * height), ""),
                 sfi_i64(e, rows), NULL, 0);
  LLVMValueRef first = sfi_addi(e, sfi_muli(e, tile.index, sfi_i64(e, depth)), sfi_i64(e, sfi_position_bytes(k) / 4));
  LLVMValueRef w = sfi_at(e, e->f32, e->base[2], first), k_stride = sfi_i64(e, height);
  accumulate(e, columns, w, k_stride, r_index, rows, false, acc);
  sfi_if again;
  sfi_if_begin(e, &again, sfi_any_nan(e, columns, acc, rows));
  accumulate(e, columns, w, k_stride, r_index, rows, true, exact);
  sfi_if_end(e, &again, exact, acc, acc, (unsigned)(rows * columns->vectors));
  sfi_store_rows(e, columns, tile.index, rows, acc);
  sfi_loop_end(e, &tile, NULL);
  return tile.index;
}

/* Two panels at a time where one has fewer sums than the multiply-adds in flight, 8. */
static void dense_rows(sfi_emission *e, const sfi_columns *columns, LLVMValueRef row_begin, LLVMValueRef row_end) {
  int32_t rows = e->kernel->tile.rows;
  if (rows * columns->vectors < 8 && 2 * rows <= SFI_ROWS_MAX) row_begin = dense_panels(e, columns, row_begin, row_end, 2);
  dense_panels(e, columns, row_begin, row_end, 1);
}

sf_status sfi_gemm_dense_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)k, (void)plan;
  sfi_contraction_tiles(e, dense_rows);
  return SF_OK;
}

/* ---- two run-time operands ----------------------------------------------------------------------------------------- */

sfi_refusal sfi_gemm_product_accept(sfi_kernel *k, const sfi_plan *plan) {
  if (!sfi_is(k->operand[1].stride[2], 1) && !sfi_is(k->extent[2].of, 1)) return SFI_REFUSE_STRIDED_COLUMNS;
  sfi_choose_columns(k, plan->target, plan->target->registers > 16 ? 4 : 2);
  sfi_choose_rows(k, plan->target, tile_rows(plan->target, k->tile.vectors), 0);
  return SFI_REFUSE_NONE;
}

double sfi_gemm_product_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  int64_t depth = 0, rows = 0;
  sfi_poly_eval(k->contract.depth, symbol, &depth);
  sfi_poly_eval(k->contract.row_count, symbol, &rows);
  double step = sfi_total_columns(k, plan->target, symbol) / plan->target->lanes * (double)sfi_round_up(rows, k->tile.rows);
  return sfi_cycles_us(plan->target, step * (double)depth / 2 * 1.1 + step * 4);
}

static void product_rows(sfi_emission *e, const sfi_columns *columns, LLVMValueRef row_begin, LLVMValueRef row_end) {
  const sfi_kernel *k = e->kernel;
  const sfi_access *a = &k->operand[2];
  int32_t rows = k->tile.rows;
  LLVMValueRef acc[SFI_ACCUMULATORS_MAX], r_index[SFI_ROWS_MAX];
  LLVMValueRef last = LLVMBuildNSWSub(e->builder, sfi_poly_value(e, k->contract.row_count), sfi_i64(e, 1), "");
  sfi_loop panel;
  sfi_loop_begin(e, &panel, row_begin, row_end, sfi_i64(e, rows), NULL, 0);
  LLVMValueRef t = columns->point[0].index[0];
  LLVMValueRef first = sfi_addi(e, sfi_poly_value(e, a->offset), sfi_muli(e, t, sfi_poly_value(e, a->stride[0])));
  LLVMValueRef w = sfi_at(e, e->f32, e->base[2], first);
  for (int32_t r = 0; r < rows; r++) /* rows past the last read the last one again; their sums are not stored */
    r_index[r] = sfi_muli(e, sfi_mini(e, sfi_addi(e, panel.index, sfi_i64(e, r)), last), sfi_poly_value(e, a->stride[1]));
  accumulate(e, columns, w, sfi_poly_value(e, a->stride[2]), r_index, rows, false, acc);
  sfi_store_rows(e, columns, panel.index, rows, acc);
  sfi_loop_end(e, &panel, NULL);
}

sf_status sfi_gemm_product_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)k, (void)plan;
  sfi_contraction_tiles(e, product_rows);
  return SF_OK;
}
