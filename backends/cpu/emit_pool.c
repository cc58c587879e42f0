/* "pool": maximum or mean of windows of an image; lanes run along the output's columns. Taps outside the image are masked off. */
#include "emitters.h"
#include "space.h"

sfi_refusal sfi_pool_accept(sfi_kernel *k, const sfi_plan *plan) {
  (void)plan;
  return k->pool.in_width > SFI_LANES_MOST ? SFI_REFUSE_OFFSETS_TOO_LARGE : SFI_REFUSE_NONE;
}
double sfi_pool_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  return sfi_space_cost(k, plan, symbol, 6 * (double)(k->pool.kernel[0] * k->pool.kernel[1]));
}

static LLVMTypeRef lanes_of(sfi_emission *e, LLVMTypeRef scalar) {
  return LLVMVectorType(scalar, (unsigned)e->lanes);
}

/* Columns column, column + 2, ... of the image row at `row`: two loads of what lies in the row, and a shuffle; a gather takes several
 * times as long. */
static LLVMValueRef every_second(sfi_emission *e, LLVMValueRef row, LLVMValueRef column, int64_t width, LLVMValueRef row_inside) {
  LLVMBuilderRef b = e->builder;
  LLVMValueRef half[2], even[64];
  LLVMTypeRef narrow = lanes_of(e, e->i32);
  for (int i = 0; i < 2; i++) {
    LLVMValueRef at = sfi_addi(e, column, sfi_i64(e, (int64_t)i * e->lanes));
    LLVMValueRef index = LLVMBuildAdd(b, sfi_iota(e), sfi_splat(e, at), "");
    LLVMValueRef mask = LLVMBuildICmp(b, LLVMIntULT, LLVMBuildTrunc(b, index, narrow, ""),
                                      LLVMBuildTrunc(b, sfi_splat(e, sfi_i64(e, width)), narrow, ""), "");
    mask = LLVMBuildAnd(b, mask, sfi_splat(e, row_inside), "");
    half[i] = sfi_load_vector(e, sfi_at(e, e->f32, e->base[1], sfi_addi(e, row, at)), mask);
  }
  for (int32_t i = 0; i < e->lanes; i++) even[i] = LLVMConstInt(e->i32, (unsigned long long)(2 * i), false);
  return LLVMBuildShuffleVector(b, half[0], half[1], LLVMConstVector(even, (unsigned)e->lanes), "");
}

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
  LLVMValueRef v, zero = LLVMConstNull(e->vec);
  if (pool->stride[1] == 1 && sfi_is(x->stride[3], 1)) {
    v = sfi_load_vector(e, sfi_at(e, e->f32, e->base[1], sfi_addi(e, first, at[1])), mask);
  } else if (pool->stride[1] == 2 && sfi_is(x->stride[3], 1)) {
    v = every_second(e, first, at[1], pool->in_width, row_inside);
  } else {
    LLVMValueRef index = LLVMBuildMul(b, column, sfi_splat(e, sfi_poly_value(e, x->stride[3])), "");
    index = LLVMBuildAdd(b, index, sfi_splat(e, first), "");
    LLVMTypeRef types[] = {e->vec, lanes_of(e, e->ptr)};
    LLVMValueRef pointers = LLVMBuildGEP2(b, e->f32, e->base[1], &index, 1, "");
    v = sfi_intrinsic(e, "llvm.masked.gather", types, 2, (LLVMValueRef[]){pointers, LLVMConstInt(e->i32, 4, false), mask, zero}, 4);
  }
  LLVMTypeRef type = e->vec;
  LLVMValueRef next = pool->op == SF_OP_MAX_POOL ? sfi_intrinsic(e, "llvm.maximum", &type, 1, (LLVMValueRef[]){carried[0], v}, 2)
                                                 : LLVMBuildFAdd(b, carried[0], v, "");
  carried[0] = LLVMBuildSelect(b, mask, next, carried[0], "");
  carried[1] = LLVMBuildFAdd(b, carried[1], LLVMBuildSelect(b, mask, sfi_vconst(e, 1), zero, ""), "");
}

static void body(sfi_emission *e, const sfi_point *point) {
  const sfi_kernel *k = e->kernel;
  sfi_pool pool = k->pool;
  sfi_extent taps[] = {{sfi_const(pool.kernel[0]), 1}, {sfi_const(pool.kernel[1]), 1}};
  bool max = pool.op == SF_OP_MAX_POOL;
  LLVMValueRef carried[] = {sfi_vconst(e, max ? -__builtin_inf() : 0), LLVMConstNull(e->vec)};
  sfi_inner_walk(e, point, 4, 2, taps, false, carried, 2, tap, &pool);
  LLVMValueRef v = carried[0];
  if (!max) {
    LLVMValueRef area = sfi_vconst(e, (double)(pool.kernel[0] * pool.kernel[1]));
    v = LLVMBuildFDiv(e->builder, v, pool.count_include_pad ? area : carried[1], "");
  }
  sfi_point_store(e, point, sfi_expr_value(e, &k->epilogue, point, v));
}

sf_status sfi_pool_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)k, (void)plan;
  sfi_space_walk(e, true, -1, body);
  return SF_OK;
}
