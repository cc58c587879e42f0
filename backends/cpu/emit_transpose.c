/* "map-transpose": a map in which one access is contiguous along another dimension ("across") than all others: rows into panels and
 * back, transposes. Blocks of lanes x lanes elements are transposed in registers: an operand's after loading it across, or the result
 * before storing it across. The rest of the expression runs on vectors along the last dimension. */
#include "emitters.h"
#include "space.h"

/* What is transposed: operand (0: the result) and the dimension along which it is contiguous. */
typedef struct crossing {
  int32_t operand, across;
} crossing;

static bool runs_along(const sfi_access *access, int32_t last) {
  return sfi_is(access->stride[last], 0) || sfi_is(access->stride[last], 1);
}

/* False where no access crosses, or more than one. */
static bool find(const sfi_kernel *k, crossing *out) {
  int32_t last = k->rank - 1, crossings = !sfi_is(k->operand[0].stride[last], 1);
  *out = (crossing){.across = -1};
  for (int32_t i = 0; i < k->epilogue.n; i++) {
    int32_t operand = k->epilogue.steps[i].operand;
    if (k->epilogue.steps[i].kind != SFI_STEP_LOAD || runs_along(&k->operand[operand], last) ||
        (out->operand && operand == out->operand))
      continue;
    crossings++;
    out->operand = operand;
  }
  for (int32_t d = 0; d < last; d++)
    if (sfi_is(k->operand[out->operand].stride[d], 1)) out->across = d;
  return crossings == 1 && out->across >= 0;
}

sfi_refusal sfi_map_transpose_accept(sfi_kernel *k, const sfi_plan *plan) {
  crossing c;
  for (int32_t i = 0; i < k->n_operands; i++)
    if (k->operand[i].index || plan->buffers[k->operand[i].buffer].dtype != SF_F32) return SFI_REFUSE_NOT_TRANSPOSED;
  if (k->rank < 2 || k->n_bounds || !find(k, &c) || (k->ragged.width && k->ragged.panel == c.across))
    return SFI_REFUSE_NOT_TRANSPOSED;
  if (k->tile_dims > c.across) k->tile_dims = c.across;
  return SFI_REFUSE_NONE;
}
double sfi_map_transpose_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  return sfi_space_cost(k, plan, symbol, 6);
}

/* The point of vector r of a block: index r of dimension `rows` from at on, lanes along dimension `lanes`. */
static sfi_point row_point(sfi_emission *e, const sfi_point *at, int32_t rows, int32_t lanes, int32_t r) {
  sfi_point p = *at;
  p.vector_dim = lanes;
  p.index[rows] = sfi_addi(e, at->index[rows], sfi_i64(e, r));
  return p;
}
static LLVMValueRef exists(sfi_emission *e, const sfi_point *p, int32_t d, LLVMValueRef end) {
  return LLVMBuildICmp(e->builder, LLVMIntSLT, p->index[d], end, "");
}

/* A block whose operand is loaded across. The ends, first indices that do not exist, are NULL where the block is whole. */
static void load_block(sfi_emission *e, const sfi_point *at, crossing x, LLVMValueRef across_end, LLVMValueRef load_end,
                       LLVMValueRef store_end) {
  const sfi_kernel *k = e->kernel;
  int32_t last = k->rank - 1;
  LLVMValueRef row[64], across_mask = across_end ? sfi_mask_below(e, at->index[x.across], across_end) : NULL;
  for (int32_t r = 0; r < e->lanes; r++) {
    sfi_point p = row_point(e, at, last, x.across, r);
    if (across_end) p.mask = LLVMBuildAnd(e->builder, across_mask, sfi_splat(e, exists(e, &p, last, load_end)), "");
    LLVMValueRef address = sfi_at(e, e->f32, e->base[x.operand], sfi_access_index(e, &k->operand[x.operand], &p));
    row[r] = sfi_load_vector(e, address, p.mask);
  }
  sfi_transpose(e, row);
  for (int32_t r = 0; r < e->lanes; r++) {
    sfi_point p = row_point(e, at, x.across, last, r);
    p.given_operand = x.operand;
    p.given = row[r];
    if (store_end) p.mask = sfi_mask_below(e, at->index[last], store_end);
    sfi_if inside;
    if (across_end) sfi_if_begin(e, &inside, exists(e, &p, x.across, across_end));
    sfi_point_store(e, &p, sfi_expr_value(e, &k->epilogue, &p, NULL));
    if (across_end) sfi_if_end(e, &inside, NULL, NULL, NULL, 0);
  }
}

/* A block whose result is stored across. */
static void store_block(sfi_emission *e, const sfi_point *at, crossing x, LLVMValueRef across_end, LLVMValueRef last_end) {
  const sfi_kernel *k = e->kernel;
  int32_t last = k->rank - 1;
  LLVMValueRef row[64], across_mask = across_end ? sfi_mask_below(e, at->index[x.across], across_end) : NULL;
  for (int32_t r = 0; r < e->lanes; r++) {
    sfi_point p = row_point(e, at, x.across, last, r);
    if (across_end) { /* past the end the last row is computed again, and not stored */
      p.mask = sfi_mask_below(e, at->index[last], last_end);
      p.index[x.across] = sfi_mini(e, p.index[x.across], LLVMBuildNSWSub(e->builder, across_end, sfi_i64(e, 1), ""));
    }
    row[r] = sfi_expr_value(e, &k->epilogue, &p, NULL);
  }
  sfi_transpose(e, row);
  for (int32_t r = 0; r < e->lanes; r++) {
    sfi_point p = row_point(e, at, last, x.across, r);
    LLVMValueRef address = sfi_at(e, e->f32, e->base[0], sfi_access_index(e, &k->operand[0], &p));
    sfi_if inside;
    if (across_end) sfi_if_begin(e, &inside, exists(e, &p, last, last_end));
    sfi_store_vector(e, row[r], address, across_mask);
    if (across_end) sfi_if_end(e, &inside, NULL, NULL, NULL, 0);
  }
}

static void blocks(sfi_emission *e, sfi_point *p, crossing x) {
  const sfi_kernel *k = e->kernel;
  int32_t last = k->rank - 1;
  LLVMValueRef zero = sfi_i64(e, 0), lanes = sfi_i64(e, e->lanes);
  LLVMValueRef across_end = sfi_dimension_end(e, p, x.across), load_end = sfi_dimension_end(e, p, last);
  LLVMValueRef store_end = sfi_writes_panels(e) ? sfi_i64(e, k->ragged.width) : load_end;
  sfi_loop outer, inner;
  sfi_loop_begin(e, &outer, zero, across_end, lanes, NULL, 0);
  p->index[x.across] = outer.index;
  sfi_loop_begin(e, &inner, zero, store_end, lanes, NULL, 0);
  p->index[last] = inner.index;
  LLVMValueRef whole =
      LLVMBuildAnd(e->builder, LLVMBuildICmp(e->builder, LLVMIntSLE, sfi_addi(e, outer.index, lanes), across_end, ""),
                   LLVMBuildICmp(e->builder, LLVMIntSLE, sfi_addi(e, inner.index, lanes), load_end, ""), "");
  sfi_if yes, no;
  sfi_if_begin(e, &yes, whole);
  if (x.operand)
    load_block(e, p, x, NULL, NULL, NULL);
  else
    store_block(e, p, x, NULL, NULL);
  sfi_if_end(e, &yes, NULL, NULL, NULL, 0);
  sfi_if_begin(e, &no, LLVMBuildNot(e->builder, whole, ""));
  if (x.operand)
    load_block(e, p, x, across_end, load_end, store_end);
  else
    store_block(e, p, x, across_end, load_end);
  sfi_if_end(e, &no, NULL, NULL, NULL, 0);
  sfi_loop_end(e, &inner, NULL);
  sfi_loop_end(e, &outer, NULL);
}

static void dimensions(sfi_emission *e, sfi_point *p, int32_t d, crossing x) {
  const sfi_kernel *k = e->kernel;
  if (d == k->rank) {
    blocks(e, p, x);
    return;
  }
  if (d == x.across || d == k->rank - 1) {
    dimensions(e, p, d + 1, x);
    return;
  }
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), sfi_dimension_end(e, p, d), sfi_i64(e, 1), NULL, 0);
  p->index[d] = loop.index;
  dimensions(e, p, d + 1, x);
  sfi_loop_end(e, &loop, NULL);
}

sf_status sfi_map_transpose_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)plan;
  crossing x;
  bool found = find(k, &x);
  assert(found);
  (void)found;
  sfi_point p = {.rank = k->rank, .vector = true};
  sfi_loop tile;
  sfi_loop_begin(e, &tile, e->tile_begin, e->tile_end, sfi_i64(e, 1), NULL, 0);
  sfi_tile_indices(e, &p, tile.index);
  dimensions(e, &p, k->tile_dims, x);
  sfi_loop_end(e, &tile, NULL);
  return SF_OK;
}
