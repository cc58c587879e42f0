/* "pool": maximum or mean of windows of an image; lanes run along the output's columns. Taps outside the image are masked off. */
#include "emitters.h"
#include "space.h"

enum { VECTORS_MOST = 4 }; /* of a row of the image that stand in registers */

sfi_refusal sfi_pool_accept(sfi_kernel *k, const sfi_plan *plan) {
  (void)plan;
  return k->pool.in_width > SFI_LANES_MOST ? SFI_REFUSE_OFFSETS_TOO_LARGE : SFI_REFUSE_NONE;
}

/* Vectors of input columns that a vector of outputs meets. */
static int64_t vectors_met(const sfi_pool *pool, int32_t lanes) {
  return sfi_ceil_div((lanes - 1) * pool->stride[1] + (pool->kernel[1] - 1) * pool->dilation[1] + 1, lanes);
}

static bool rows_first(const sfi_kernel *k, int32_t lanes) {
  return sfi_is(k->operand[1].stride[3], 1) && k->pool.stride[1] < lanes && k->pool.kernel[0] <= lanes &&
         k->pool.kernel[1] <= lanes && k->pool.dilation[1] < lanes && vectors_met(&k->pool, lanes) <= VECTORS_MOST;
}

double sfi_pool_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  const double rows = (double)k->pool.kernel[0], columns = (double)k->pool.kernel[1];
  const bool together = rows_first(k, plan->target->lanes);
  const double cycles =
      together ? 3 * rows * (double)vectors_met(&k->pool, plan->target->lanes) + 4 * columns : 30 * rows * columns;
  return sfi_space_cost(k, plan, symbol, cycles);
}

static LLVMTypeRef lanes_of(sfi_emission *e, LLVMTypeRef scalar) {
  return LLVMVectorType(scalar, (unsigned)e->lanes);
}

/* The lane's value of `v` where that is larger or NaN, and `most` where that is: NaN never leaves. Of zeros, either. */
static LLVMValueRef larger(sfi_emission *e, LLVMValueRef most, LLVMValueRef v) {
  LLVMBuilderRef b = e->builder;
  LLVMValueRef ordered = LLVMBuildSelect(b, LLVMBuildFCmp(b, LLVMRealOGT, most, v, ""), most, v, "");
  return LLVMBuildSelect(b, LLVMBuildFCmp(b, LLVMRealUNO, most, most, ""), most, ordered, "");
}

static LLVMValueRef combine(sfi_emission *e, const sfi_pool *pool, LLVMValueRef a, LLVMValueRef b) {
  return pool->op == SF_OP_MAX_POOL ? larger(e, a, b) : LLVMBuildFAdd(e->builder, a, b, "");
}

/* ---- rows first ---------------------------------------------------------------------------------------------------- */

/* Lanes of columns from `first` on that lie in the image. */
static LLVMValueRef inside(sfi_emission *e, const sfi_pool *pool, LLVMValueRef first, int64_t step) {
  LLVMTypeRef narrow = lanes_of(e, e->i32);
  LLVMValueRef lane[64], by = sfi_splat(e, LLVMBuildTrunc(e->builder, first, e->i32, ""));
  for (int32_t i = 0; i < e->lanes; i++) lane[i] = LLVMConstInt(e->i32, (unsigned long long)(i * step), false);
  LLVMValueRef columns = LLVMBuildAdd(e->builder, by, LLVMConstVector(lane, (unsigned)e->lanes), "");
  LLVMValueRef width = LLVMBuildTrunc(e->builder, sfi_splat(e, sfi_i64(e, pool->in_width)), narrow, "");
  return LLVMBuildICmp(e->builder, LLVMIntULT, columns, width, "");
}

/* Of `count` vectors side by side, every `step`th float from `first` on. */
static LLVMValueRef pick(sfi_emission *e, const LLVMValueRef *v, int64_t count, int64_t first, int64_t step) {
  const int32_t n = e->lanes;
  LLVMValueRef out = LLVMGetPoison(e->vec), lane[64];
  for (int64_t from = 0; from < count; from++) {
    bool any = false;
    for (int32_t i = 0; i < n; i++) {
      const int64_t at = first + i * step;
      const bool here = at / n == from;
      any = any || here;
      lane[i] = LLVMConstInt(e->i32, (unsigned long long)(here ? n + at % n : i), false);
    }
    if (any) out = LLVMBuildShuffleVector(e->builder, out, v[from], LLVMConstVector(lane, (unsigned)n), "");
  }
  return out;
}

/* Rows of the window are combined as they lie in memory, then their columns by shuffles: a load serves all taps of its row. */
static LLVMValueRef pooled_rows(sfi_emission *e, const sfi_point *point) {
  const sfi_pool *pool = &e->kernel->pool;
  const sfi_access *x = &e->kernel->operand[1];
  LLVMBuilderRef b = e->builder;
  const bool max = pool->op == SF_OP_MAX_POOL;
  const int64_t met = vectors_met(pool, e->lanes);
  LLVMValueRef nothing = sfi_vconst(e, max ? -__builtin_inf() : 0), mask[VECTORS_MOST], column[VECTORS_MOST], rows = sfi_f32(e, 0);
  LLVMValueRef top = sfi_addi(e, sfi_muli(e, point->index[2], sfi_i64(e, pool->stride[0])), sfi_i64(e, -pool->pad[0]));
  LLVMValueRef left = sfi_addi(e, sfi_muli(e, point->index[3], sfi_i64(e, pool->stride[1])), sfi_i64(e, -pool->pad[1]));
  LLVMValueRef channel = sfi_poly_value(e, x->offset);
  for (int d = 0; d < 2; d++) channel = sfi_addi(e, channel, sfi_muli(e, point->index[d], sfi_poly_value(e, x->stride[d])));
  for (int64_t i = 0; i < met; i++) mask[i] = inside(e, pool, sfi_addi(e, left, sfi_i64(e, i * e->lanes)), 1);
  for (int64_t tap = 0; tap < pool->kernel[0]; tap++) {
    LLVMValueRef row = sfi_addi(e, top, sfi_i64(e, tap * pool->dilation[0]));
    LLVMValueRef exists = LLVMBuildICmp(b, LLVMIntULT, row, sfi_i64(e, pool->in_height), "");
    LLVMValueRef at = sfi_addi(e, sfi_addi(e, channel, sfi_muli(e, row, sfi_poly_value(e, x->stride[2]))), left);
    rows = LLVMBuildFAdd(b, rows, LLVMBuildSelect(b, exists, sfi_f32(e, 1), sfi_f32(e, 0), ""), "");
    for (int64_t i = 0; i < met; i++) {
      LLVMTypeRef types[] = {e->vec, e->ptr};
      LLVMValueRef pointer = sfi_at(e, e->f32, e->base[1], sfi_addi(e, at, sfi_i64(e, i * e->lanes)));
      LLVMValueRef both = LLVMBuildAnd(b, mask[i], sfi_splat(e, exists), "");
      LLVMValueRef v = sfi_intrinsic(e, "llvm.masked.load", types, 2,
                                     (LLVMValueRef[]){pointer, LLVMConstInt(e->i32, 4, false), both, nothing}, 4);
      column[i] = tap ? combine(e, pool, column[i], v) : v;
    }
  }
  LLVMValueRef result = NULL, count = LLVMConstNull(e->vec), one = sfi_vconst(e, 1);
  for (int64_t i = 0; i < pool->kernel[1]; i++) {
    const int64_t shift = i * pool->dilation[1];
    LLVMValueRef v = pick(e, column, met, shift, pool->stride[1]);
    result = result ? combine(e, pool, result, v) : v;
    LLVMValueRef exists = inside(e, pool, sfi_addi(e, left, sfi_i64(e, shift)), pool->stride[1]);
    if (!max) count = LLVMBuildFAdd(b, count, LLVMBuildSelect(b, exists, one, LLVMConstNull(e->vec), ""), "");
  }
  if (max) return result;
  LLVMValueRef area = sfi_vconst(e, (double)(pool->kernel[0] * pool->kernel[1]));
  return LLVMBuildFDiv(b, result, pool->count_include_pad ? area : LLVMBuildFMul(b, count, sfi_splat(e, rows), ""), "");
}

/* ---- tap by tap ---------------------------------------------------------------------------------------------------- */

/* One tap: point's dimensions 4 and 5 are the tap's row and column. carried: the result, and for a mean without padding the count. */
static void tap(sfi_emission *e, const sfi_point *point, LLVMValueRef *carried, void *user) {
  const sfi_pool *pool = user;
  const sfi_access *x = &e->kernel->operand[1];
  LLVMBuilderRef b = e->builder;
  LLVMValueRef at[2]; /* input row, and input column of lane 0 */
  for (int i = 0; i < 2; i++)
    at[i] = sfi_addi(e, sfi_muli(e, point->index[2 + i], sfi_i64(e, pool->stride[i])),
                     sfi_addi(e, sfi_muli(e, point->index[4 + i], sfi_i64(e, pool->dilation[i])), sfi_i64(e, -pool->pad[i])));
  LLVMValueRef columns = LLVMBuildMul(b, sfi_iota(e), sfi_splat(e, sfi_i64(e, pool->stride[1])), "");
  LLVMValueRef column = LLVMBuildAdd(b, columns, sfi_splat(e, at[1]), "");
  LLVMTypeRef narrow = lanes_of(e, e->i32);
  LLVMValueRef mask = LLVMBuildICmp(b, LLVMIntULT, LLVMBuildTrunc(b, column, narrow, ""),
                                    LLVMBuildTrunc(b, sfi_splat(e, sfi_i64(e, pool->in_width)), narrow, ""), "");
  LLVMValueRef row_inside = LLVMBuildICmp(b, LLVMIntULT, at[0], sfi_i64(e, pool->in_height), "");
  mask = LLVMBuildAnd(b, mask, sfi_splat(e, row_inside), "");
  if (point->mask) mask = LLVMBuildAnd(b, mask, point->mask, "");
  LLVMValueRef first = sfi_poly_value(e, x->offset);
  for (int d = 0; d < 2; d++) first = sfi_addi(e, first, sfi_muli(e, point->index[d], sfi_poly_value(e, x->stride[d])));
  first = sfi_addi(e, first, sfi_muli(e, at[0], sfi_poly_value(e, x->stride[2])));
  LLVMValueRef zero = LLVMConstNull(e->vec);
  LLVMValueRef index = LLVMBuildMul(b, column, sfi_splat(e, sfi_poly_value(e, x->stride[3])), "");
  index = LLVMBuildAdd(b, index, sfi_splat(e, first), "");
  LLVMTypeRef types[] = {e->vec, lanes_of(e, e->ptr)};
  LLVMValueRef pointers = LLVMBuildGEP2(b, e->f32, e->base[1], &index, 1, "");
  LLVMValueRef v =
      sfi_intrinsic(e, "llvm.masked.gather", types, 2, (LLVMValueRef[]){pointers, LLVMConstInt(e->i32, 4, false), mask, zero}, 4);
  LLVMValueRef next = combine(e, pool, carried[0], v);
  carried[0] = LLVMBuildSelect(b, mask, next, carried[0], "");
  carried[1] = LLVMBuildFAdd(b, carried[1], LLVMBuildSelect(b, mask, sfi_vconst(e, 1), zero, ""), "");
}

static LLVMValueRef pooled_taps(sfi_emission *e, const sfi_point *point) {
  sfi_pool pool = e->kernel->pool;
  sfi_extent taps[] = {{sfi_const(pool.kernel[0]), 1}, {sfi_const(pool.kernel[1]), 1}};
  bool max = pool.op == SF_OP_MAX_POOL;
  LLVMValueRef carried[] = {sfi_vconst(e, max ? -__builtin_inf() : 0), LLVMConstNull(e->vec)};
  sfi_inner_walk(e, point, 4, 2, taps, false, carried, 2, tap, &pool);
  LLVMValueRef area = sfi_vconst(e, (double)(pool.kernel[0] * pool.kernel[1]));
  return max ? carried[0] : LLVMBuildFDiv(e->builder, carried[0], pool.count_include_pad ? area : carried[1], "");
}

static void body(sfi_emission *e, const sfi_point *point) {
  LLVMValueRef v = rows_first(e->kernel, e->lanes) ? pooled_rows(e, point) : pooled_taps(e, point);
  sfi_point_store(e, point, sfi_expr_value(e, &e->kernel->epilogue, point, v));
}

sf_status sfi_pool_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)k, (void)plan;
  sfi_space_walk(e, true, -1, body);
  return SF_OK;
}
