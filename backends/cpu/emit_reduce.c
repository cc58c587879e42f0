/* Kernels that read a line of elements for each result: "reduce" (sum, mean, max), "softmax", "normalize".
 * Lanes run along the last dimension of the space where the operand is contiguous there, or along the line where that is contiguous.
 * Sums across lanes are trees of a fixed shape, the same whatever the threads. */
#include "emitters.h"
#include "space.h"

#define ACCEPT(fn)                                                                                                                 \
  sfi_refusal sfi_##fn##_accept(sfi_kernel *k, const sfi_plan *plan) {                                                             \
    (void)k, (void)plan;                                                                                                           \
    return SFI_REFUSE_NONE;                                                                                                        \
  }
ACCEPT(reduce)
ACCEPT(softmax)
ACCEPT(normalize)
double sfi_reduce_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  return sfi_space_cost(k, plan, symbol, 4);
}
double sfi_softmax_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  return sfi_space_cost(k, plan, symbol, 26);
}
double sfi_normalize_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  return sfi_space_cost(k, plan, symbol, 10);
}

/* ---- one line ------------------------------------------------------------------------------------------------------ */

typedef enum line_op { LINE_SUM, LINE_MAX, LINE_SUM_EXP, LINE_SUM_SQUARE } line_op;

/* A pass over the line at a point: f(pre) summed or its maximum taken. */
typedef struct line {
  line_op op;
  LLVMValueRef minus; /* SUM_EXP, SUM_SQUARE: subtracted first; vector or scalar as the point */
  bool along;         /* lanes run along the line */
} line;

static LLVMValueRef largest(sfi_emission *e, LLVMValueRef a, LLVMValueRef b) {
  LLVMTypeRef type = LLVMTypeOf(a);
  return sfi_intrinsic(e, "llvm.maximum", &type, 1, (LLVMValueRef[]){a, b}, 2);
}

static void line_step(sfi_emission *e, const sfi_point *point, LLVMValueRef *carried, void *user) {
  const line *l = user;
  LLVMValueRef v = sfi_expr_value(e, &e->kernel->pre, point, NULL), next;
  if (l->minus) v = LLVMBuildFSub(e->builder, v, l->minus, "");
  if (l->op == LINE_SUM_EXP) {
    v = sfi_exp(e, v);
    sfi_point_store(e, point, v); /* kept for the last pass */
  }
  if (l->op == LINE_MAX) {
    next = largest(e, carried[0], v);
  } else {
    v = LLVMBuildFPExt(e->builder, v, LLVMTypeOf(carried[0]), "");
    if (l->op == LINE_SUM_SQUARE) v = LLVMBuildFMul(e->builder, v, v, "");
    next = LLVMBuildFAdd(e->builder, carried[0], v, "");
  }
  carried[0] = l->along && point->mask ? LLVMBuildSelect(e->builder, point->mask, next, carried[0], "") : next;
}

/* The pass's result at `point`: a scalar where lanes run along the line or points are single, else one result a lane. Sums are in fp64:
 * thousands of like terms would drift in fp32, and the conversions hide behind the latency of the addition. */
static LLVMValueRef line_value(sfi_emission *e, const sfi_point *point, int32_t first, int32_t dims, const sfi_extent *extent,
                               line l) {
  bool vector = l.along || point->vector;
  LLVMTypeRef f64 = LLVMDoubleTypeInContext(e->context), wide = vector ? LLVMVectorType(f64, (unsigned)e->lanes) : f64;
  LLVMValueRef none = vector ? sfi_vconst(e, -__builtin_inf()) : sfi_f32(e, -__builtin_inf());
  LLVMValueRef carried = l.op == LINE_MAX ? none : LLVMConstNull(wide);
  if (l.along && l.minus) l.minus = sfi_splat(e, l.minus);
  sfi_inner_walk(e, point, first, dims, extent, l.along, &carried, 1, line_step, &l);
  LLVMTypeRef type = LLVMTypeOf(carried);
  if (l.op == LINE_MAX) return l.along ? sfi_intrinsic(e, "llvm.vector.reduce.fmaximum", &type, 1, &carried, 1) : carried;
  if (l.along) {
    carried = sfi_intrinsic(e, "llvm.vector.reduce.fadd", &type, 1, (LLVMValueRef[]){LLVMConstReal(f64, -0.0), carried}, 2);
    LLVMSetFastMathFlags(carried, LLVMFastMathAllowReassoc);
  }
  return LLVMBuildFPTrunc(e->builder, carried, point->vector && !l.along ? e->vec : e->f32, "");
}

/* Do the loads of `pre` run contiguously along dimension d? Decided by the first that moves with it. */
static bool contiguous(const sfi_kernel *k, int32_t d) {
  for (int32_t i = 0; i < k->pre.n; i++)
    if (k->pre.steps[i].kind == SFI_STEP_LOAD && !sfi_is(k->operand[k->pre.steps[i].operand].stride[d], 0))
      return sfi_is(k->operand[k->pre.steps[i].operand].stride[d], 1);
  return false;
}

/* ---- reduce -------------------------------------------------------------------------------------------------------- */

static bool reduce_along(const sfi_kernel *k) {
  bool lane_last = k->ragged.width && k->rank > 0 && k->ragged.lane == k->rank - 1;
  return !lane_last && k->reduce_rank > 0 && contiguous(k, k->rank + k->reduce_rank - 1) &&
         (k->rank == 0 || !contiguous(k, k->rank - 1));
}

static void reduce_body(sfi_emission *e, const sfi_point *point) {
  const sfi_kernel *k = e->kernel;
  line l = {.op = k->reduce == SF_OP_REDUCE_MAX ? LINE_MAX : LINE_SUM, .along = reduce_along(k)};
  LLVMValueRef v = line_value(e, point, k->rank, k->reduce_rank, k->reduce_extent, l);
  if (k->reduce == SF_OP_REDUCE_MEAN) {
    LLVMValueRef count = sfi_i64(e, 1);
    for (int32_t d = 0; d < k->reduce_rank; d++) count = sfi_muli(e, count, sfi_extent_value(e, k->reduce_extent[d]));
    count = LLVMBuildSIToFP(e->builder, count, e->f32, "");
    v = LLVMBuildFDiv(e->builder, v, point->vector ? sfi_splat(e, count) : count, "");
  }
  sfi_point_store(e, point, sfi_expr_value(e, &k->epilogue, point, v));
}

sf_status sfi_reduce_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)plan;
  sfi_space_walk(e, !reduce_along(k), -1, reduce_body);
  return SF_OK;
}

/* ---- softmax, normalize -------------------------------------------------------------------------------------------- */

/* Values that the last pass applies to each element of the line. */
typedef struct finish {
  LLVMValueRef minus, times;
  bool reload; /* softmax: the element is what the pass before stored */
} finish;

static void finish_step(sfi_emission *e, const sfi_point *point, LLVMValueRef *carried, void *user) {
  (void)carried;
  const finish *f = user;
  LLVMValueRef v = f->reload ? sfi_operand_load(e, 0, point) : sfi_expr_value(e, &e->kernel->pre, point, NULL);
  if (f->minus) v = LLVMBuildFSub(e->builder, v, f->minus, "");
  v = LLVMBuildFMul(e->builder, v, f->times, "");
  sfi_point_store(e, point, sfi_expr_value(e, &e->kernel->epilogue, point, v));
}

static bool axis_along(const sfi_kernel *k) {
  return k->axis == k->rank - 1;
}

static LLVMValueRef like(sfi_emission *e, const sfi_point *point, double v) {
  return point->vector ? sfi_vconst(e, v) : sfi_f32(e, v);
}

static void softmax_body(sfi_emission *e, const sfi_point *point) {
  const sfi_kernel *k = e->kernel;
  const sfi_extent *extent = &k->extent[k->axis];
  bool along = axis_along(k);
  LLVMValueRef max = line_value(e, point, k->axis, 1, extent, (line){.op = LINE_MAX, .along = along});
  LLVMValueRef sum = line_value(e, point, k->axis, 1, extent, (line){.op = LINE_SUM_EXP, .minus = max, .along = along});
  finish f = {.times = LLVMBuildFDiv(e->builder, like(e, point, 1), sum, ""), .reload = true};
  if (along) f.times = sfi_splat(e, f.times);
  sfi_inner_walk(e, point, k->axis, 1, extent, along, NULL, 0, finish_step, &f);
}

static void normalize_body(sfi_emission *e, const sfi_point *point) {
  const sfi_kernel *k = e->kernel;
  const sfi_extent *extent = &k->extent[k->axis];
  bool along = axis_along(k);
  LLVMValueRef n = LLVMBuildSIToFP(e->builder, sfi_extent_value(e, *extent), e->f32, "");
  if (point->vector) n = sfi_splat(e, n);
  LLVMValueRef mean = line_value(e, point, k->axis, 1, extent, (line){.op = LINE_SUM, .along = along});
  mean = LLVMBuildFDiv(e->builder, mean, n, "");
  LLVMValueRef variance = line_value(e, point, k->axis, 1, extent, (line){.op = LINE_SUM_SQUARE, .minus = mean, .along = along});
  variance = LLVMBuildFAdd(e->builder, LLVMBuildFDiv(e->builder, variance, n, ""), like(e, point, k->eps), "");
  finish f = {.minus = mean,
              .times = LLVMBuildFDiv(e->builder, like(e, point, 1), sfi_elementwise(e, SF_OP_SQRT, variance, NULL), "")};
  if (along) f.minus = sfi_splat(e, f.minus), f.times = sfi_splat(e, f.times);
  sfi_inner_walk(e, point, k->axis, 1, extent, along, NULL, 0, finish_step, &f);
}

sf_status sfi_softmax_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)plan;
  sfi_space_walk(e, !axis_along(k), k->axis, softmax_body);
  return SF_OK;
}
sf_status sfi_normalize_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)plan;
  sfi_space_walk(e, !axis_along(k), k->axis, normalize_body);
  return SF_OK;
}
