/* "map-transpose": a map one of whose operands is contiguous along another dimension ("across") than the output's last: rows into panels
 * and back, transposes. Blocks of lanes x lanes elements are loaded along the operand, transposed in registers, and stored along the
 * output; the rest of the expression runs on the transposed vectors. */
#include "emitters.h"
#include "space.h"

/* The one operand that must be transposed and the dimension it is contiguous along; false where there is none or more than one. */
static bool find(const sfi_kernel *k, int32_t *out_operand, int32_t *out_across) {
  int32_t operand = 0, across = -1, last = k->rank - 1;
  for (int32_t i = 0; i < k->epilogue.n; i++) {
    if (k->epilogue.steps[i].kind != SFI_STEP_LOAD || k->epilogue.steps[i].operand == operand) continue;
    const sfi_poly *stride = k->operand[k->epilogue.steps[i].operand].stride;
    if (sfi_is(stride[last], 0) || sfi_is(stride[last], 1)) continue;
    if (operand) return false;
    operand = k->epilogue.steps[i].operand;
    for (int32_t d = 0; d < last; d++)
      if (sfi_is(stride[d], 1)) across = d;
  }
  *out_operand = operand;
  *out_across = across;
  return operand && across >= 0;
}

sfi_refusal sfi_map_transpose_accept(sfi_kernel *k, const sfi_plan *plan) {
  (void)plan;
  int32_t operand, across;
  if (k->rank < 2 || k->n_bounds || !sfi_is(k->operand[0].stride[k->rank - 1], 1) || !find(k, &operand, &across))
    return SFI_REFUSE_NOT_TRANSPOSED;
  if (k->ragged.width && k->ragged.panel == across) return SFI_REFUSE_NOT_TRANSPOSED;
  if (k->tile_dims > across) k->tile_dims = across;
  return SFI_REFUSE_NONE;
}
double sfi_map_transpose_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  return sfi_space_cost(k, plan, symbol, 6);
}

/* Row r of the result is lane r of every row: log2(lanes) rounds of perfect shuffles. */
static void transpose(sfi_emission *e, LLVMValueRef *row) {
  int32_t n = e->lanes;
  LLVMValueRef next[64], low[64], high[64];
  for (int32_t i = 0; i < n; i++) {
    low[i] = LLVMConstInt(e->i32, (unsigned long long)(i / 2 + (i % 2 ? n : 0)), false);
    high[i] = LLVMConstInt(e->i32, (unsigned long long)(i / 2 + n / 2 + (i % 2 ? n : 0)), false);
  }
  LLVMValueRef low_mask = LLVMConstVector(low, (unsigned)n), high_mask = LLVMConstVector(high, (unsigned)n);
  for (int32_t round = 1; round < n; round *= 2) {
    for (int32_t i = 0; i < n / 2; i++) {
      next[2 * i] = LLVMBuildShuffleVector(e->builder, row[i], row[i + n / 2], low_mask, "");
      next[2 * i + 1] = LLVMBuildShuffleVector(e->builder, row[i], row[i + n / 2], high_mask, "");
    }
    memcpy(row, next, (size_t)n * sizeof *row);
  }
}

/* One block from (at.index[across], at.index[last]). Ends NULL: the block is whole. */
static void emit_block(sfi_emission *e, const sfi_point *at, int32_t operand, int32_t across, LLVMValueRef across_end,
                       LLVMValueRef load_end, LLVMValueRef store_end) {
  const sfi_kernel *k = e->kernel;
  int32_t last = k->rank - 1;
  LLVMValueRef row[64], across_mask = across_end ? sfi_mask_below(e, at->index[across], across_end) : NULL;
  for (int32_t r = 0; r < e->lanes; r++) {
    sfi_point p = *at;
    p.vector_dim = across;
    p.index[last] = sfi_addi(e, at->index[last], sfi_i64(e, r));
    if (across_end) {
      LLVMValueRef exists = LLVMBuildICmp(e->builder, LLVMIntSLT, p.index[last], load_end, "");
      p.mask = LLVMBuildAnd(e->builder, across_mask, sfi_splat(e, exists), "");
    }
    LLVMValueRef address = sfi_at(e, e->f32, e->base[operand], sfi_access_index(e, &k->operand[operand], &p));
    row[r] = sfi_load_vector(e, address, p.mask);
  }
  transpose(e, row);
  for (int32_t c = 0; c < e->lanes; c++) {
    sfi_point p = *at;
    p.vector_dim = last;
    p.index[across] = sfi_addi(e, at->index[across], sfi_i64(e, c));
    p.given_operand = operand;
    p.given = row[c];
    if (store_end) p.mask = sfi_mask_below(e, at->index[last], store_end);
    sfi_if inside;
    if (across_end) sfi_if_begin(e, &inside, LLVMBuildICmp(e->builder, LLVMIntSLT, p.index[across], across_end, ""));
    sfi_point_store(e, &p, sfi_expr_value(e, &k->epilogue, &p, NULL));
    if (across_end) sfi_if_end(e, &inside, NULL, NULL, NULL, 0);
  }
}

static void blocks(sfi_emission *e, sfi_point *p, int32_t operand, int32_t across) {
  const sfi_kernel *k = e->kernel;
  int32_t last = k->rank - 1;
  LLVMValueRef zero = sfi_i64(e, 0), lanes = sfi_i64(e, e->lanes);
  LLVMValueRef across_end = sfi_dimension_end(e, p, across), load_end = sfi_dimension_end(e, p, last);
  LLVMValueRef store_end = sfi_writes_panels(e) ? sfi_i64(e, k->ragged.width) : load_end;
  sfi_loop outer, inner;
  sfi_loop_begin(e, &outer, zero, across_end, lanes, NULL, 0);
  p->index[across] = outer.index;
  sfi_loop_begin(e, &inner, zero, store_end, lanes, NULL, 0);
  p->index[last] = inner.index;
  LLVMValueRef whole =
      LLVMBuildAnd(e->builder, LLVMBuildICmp(e->builder, LLVMIntSLE, sfi_addi(e, outer.index, lanes), across_end, ""),
                   LLVMBuildICmp(e->builder, LLVMIntSLE, sfi_addi(e, inner.index, lanes), load_end, ""), "");
  sfi_if yes, no;
  sfi_if_begin(e, &yes, whole);
  emit_block(e, p, operand, across, NULL, NULL, NULL);
  sfi_if_end(e, &yes, NULL, NULL, NULL, 0);
  sfi_if_begin(e, &no, LLVMBuildNot(e->builder, whole, ""));
  emit_block(e, p, operand, across, across_end, load_end, store_end);
  sfi_if_end(e, &no, NULL, NULL, NULL, 0);
  sfi_loop_end(e, &inner, NULL);
  sfi_loop_end(e, &outer, NULL);
}

static void dimensions(sfi_emission *e, sfi_point *p, int32_t d, int32_t operand, int32_t across) {
  const sfi_kernel *k = e->kernel;
  if (d == k->rank) {
    blocks(e, p, operand, across);
    return;
  }
  if (d == across || d == k->rank - 1) {
    dimensions(e, p, d + 1, operand, across);
    return;
  }
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), sfi_dimension_end(e, p, d), sfi_i64(e, 1), NULL, 0);
  p->index[d] = loop.index;
  dimensions(e, p, d + 1, operand, across);
  sfi_loop_end(e, &loop, NULL);
}

sf_status sfi_map_transpose_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)plan;
  int32_t operand, across;
  bool found = find(k, &operand, &across);
  assert(found);
  (void)found;
  sfi_point p = {.rank = k->rank, .vector = true};
  sfi_loop tile;
  sfi_loop_begin(e, &tile, e->tile_begin, e->tile_end, sfi_i64(e, 1), NULL, 0);
  sfi_tile_indices(e, &p, tile.index);
  dimensions(e, &p, k->tile_dims, operand, across);
  sfi_loop_end(e, &tile, NULL);
  return SF_OK;
}
