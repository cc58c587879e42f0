/* The walk over tiles and columns, and the store, shared by the emitters of products with few columns. See few.h. */
#include "few.h"

enum { GROUP = 4 }; /* columns computed together where their number is not known */

sfi_refusal sfi_few_accept(sfi_kernel *k, const sfi_plan *plan, int32_t most, int32_t rows, double bytes_per_row) {
  int64_t t = 0;
  bool constant = sfi_is_const(k->extent[0].of);
  if (!constant && plan->symbol_max == INT64_MAX) return SFI_REFUSE_MANY_COLUMNS;
  if (!sfi_is(k->extent[2].of, 1) || !sfi_extent_eval(k->extent[0], plan->symbol_max, &t) || t > most)
    return SFI_REFUSE_MANY_COLUMNS;
  if (!sfi_positions_fit(k) || k->contract.facts->nonzeros > UINT32_MAX) return SFI_REFUSE_OFFSETS_TOO_LARGE;
  if (!k->contract.k_offset && !sfi_is_const(k->operand[1].stride[1])) return SFI_REFUSE_SYMBOLIC;
  k->tile.vectors = (int32_t)sfi_max(1, constant ? t : sfi_min(t, GROUP));
  k->tile.column_block = 1;
  k->tile.all_t = true;
  sfi_choose_rows(k, plan->target, rows, bytes_per_row);
  return SFI_REFUSE_NONE;
}

double sfi_few_columns(const sfi_kernel *k, int64_t symbol) {
  int64_t t = 0;
  sfi_extent_eval(k->extent[0], symbol, &t);
  return (double)sfi_round_up(t, k->tile.vectors);
}

int64_t sfi_few_panels(const sfi_kernel *k) {
  return sfi_ceil_div(k->contract.rows, k->tile.rows);
}

void sfi_few_walk(sfi_emission *e, sfi_panel_fn panel) {
  const sfi_kernel *k = e->kernel;
  LLVMValueRef zero = sfi_i64(e, 0), one = sfi_i64(e, 1), count = sfi_extent_value(e, k->extent[0]);
  LLVMValueRef per_tile = sfi_i64(e, k->tile.row_block / k->tile.rows), begin = sfi_muli(e, e->tile_begin, per_tile);
  LLVMValueRef end = sfi_mini(e, sfi_muli(e, e->tile_end, per_tile), sfi_i64(e, sfi_few_panels(k)));
  LLVMValueRef x = sfi_at(e, e->f32, e->base[1], sfi_poly_value(e, k->operand[1].offset));
  sfi_few few = {.n = k->tile.vectors, .scratch = sfi_stack(e, (int64_t)k->tile.vectors * k->tile.rows)};
  sfi_loop columns, panels;
  sfi_loop_begin(e, &columns, zero, count, sfi_i64(e, few.n), NULL, 0);
  for (int32_t n = 0; n < few.n; n++) {
    /* Columns past the last one are the last one again, computed and stored twice. */
    few.t[n] = sfi_is_const(k->extent[0].of)
                   ? sfi_i64(e, n)
                   : sfi_mini(e, sfi_addi(e, columns.index, sfi_i64(e, n)), sfi_addi(e, count, sfi_i64(e, -1)));
    few.x[n] = sfi_at(e, e->f32, x, sfi_muli(e, few.t[n], sfi_poly_value(e, k->operand[1].stride[0])));
  }
  sfi_loop_begin(e, &panels, begin, end, one, NULL, 0);
  panel(e, &few, panels.index);
  sfi_loop_end(e, &panels, NULL);
  sfi_loop_end(e, &columns, NULL);
}

LLVMValueRef sfi_few_x(sfi_emission *e, const sfi_few *few, int32_t n, LLVMValueRef k) {
  return sfi_splat(e, sfi_load_scalar(e, e->f32, sfi_x_row(e, few->x[n], k), sfi_i64(e, 0)));
}

LLVMValueRef sfi_few_suspect(sfi_emission *e, const LLVMValueRef *sum, int32_t n) {
  LLVMValueRef all = sum[0];
  for (int32_t i = 1; i < n; i++) all = LLVMBuildFAdd(e->builder, all, sum[i], "");
  LLVMValueRef nan = LLVMBuildFCmp(e->builder, LLVMRealUNO, all, all, "");
  LLVMTypeRef type = LLVMTypeOf(nan);
  return sfi_intrinsic(e, "llvm.vector.reduce.or", &type, 1, &nan, 1);
}

void sfi_few_store(sfi_emission *e, const sfi_few *few, LLVMValueRef row, const LLVMValueRef *sum) {
  const sfi_kernel *k = e->kernel;
  for (int32_t n = 0; n < few->n; n++) {
    sfi_point p = {.rank = 3, .vector_dim = 1, .vector = true, .index = {few->t[n], row, sfi_i64(e, 0)}};
    if (k->contract.rows % k->tile.rows) p.mask = sfi_mask_below(e, row, sfi_i64(e, k->contract.rows));
    sfi_point_store(e, &p, sfi_expr_value(e, &k->epilogue, &p, sum[n]));
  }
}

double sfi_few_us(const sfi_plan *plan, double bytes, double cycles) {
  double us = sfi_cycles_us(plan->target, cycles), read = sfi_read_us(plan, bytes);
  return us > read ? us : read;
}
