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

typedef enum line_op { LINE_SUM, LINE_MAX, LINE_TOP, LINE_SUM_EXP } line_op;

/* A pass over the line at a point: f(pre) summed or its maximum taken. A TOP is a maximum that may overlook a NaN. */
typedef struct line {
  line_op op;
  LLVMValueRef minus; /* SUM_EXP: subtracted first; vector or scalar as the point */
  bool along;         /* lanes run along the line */
} line;

static LLVMValueRef largest(sfi_emission *e, line_op op, LLVMValueRef a, LLVMValueRef b) {
  LLVMTypeRef type = LLVMTypeOf(a);
  if (op == LINE_TOP) return LLVMBuildSelect(e->builder, LLVMBuildFCmp(e->builder, LLVMRealOGT, a, b, ""), a, b, "");
  return sfi_intrinsic(e, "llvm.maximum", &type, 1, (LLVMValueRef[]){a, b}, 2);
}

static LLVMValueRef like(sfi_emission *e, const sfi_point *point, double v) {
  return point->vector ? sfi_vconst(e, v) : sfi_f32(e, v);
}

static void line_step(sfi_emission *e, const sfi_point *point, LLVMValueRef *carried, void *user) {
  const line *l = user;
  LLVMValueRef v = sfi_expr_value(e, &e->kernel->pre, point, NULL), next;
  if (l->minus) v = LLVMBuildFSub(e->builder, v, l->minus, "");
  if (l->op == LINE_SUM_EXP) {
    v = sfi_exp2(e, LLVMBuildFMul(e->builder, v, like(e, point, 1.44269504088896341), ""));
    sfi_point_store(e, point, v); /* kept for the last pass */
  }
  if (l->op == LINE_MAX || l->op == LINE_TOP) {
    next = largest(e, l->op, carried[0], v);
  } else {
    v = LLVMBuildFPExt(e->builder, v, LLVMTypeOf(carried[0]), "");
    next = LLVMBuildFAdd(e->builder, carried[0], v, "");
  }
  carried[0] = l->along && point->mask ? LLVMBuildSelect(e->builder, point->mask, next, carried[0], "") : next;
}

static LLVMValueRef sum_of_lanes(sfi_emission *e, LLVMValueRef v) {
  LLVMTypeRef type = LLVMTypeOf(v);
  LLVMValueRef none = LLVMConstReal(LLVMDoubleTypeInContext(e->context), -0.0);
  v = sfi_intrinsic(e, "llvm.vector.reduce.fadd", &type, 1, (LLVMValueRef[]){none, v}, 2);
  LLVMSetFastMathFlags(v, LLVMFastMathAllowReassoc);
  return v;
}

/* The pass's result at `point`: a scalar where lanes run along the line or points are single, else one result a lane. Sums are in fp64:
 * thousands of like terms would drift in fp32, and the conversions hide behind the latency of the addition. */
static LLVMValueRef line_value(sfi_emission *e, const sfi_point *point, int32_t first, int32_t dims, const sfi_extent *extent,
                               line l) {
  bool vector = l.along || point->vector, sum = l.op == LINE_SUM || l.op == LINE_SUM_EXP;
  LLVMTypeRef f64 = LLVMDoubleTypeInContext(e->context), wide = vector ? LLVMVectorType(f64, (unsigned)e->lanes) : f64;
  LLVMValueRef none = vector ? sfi_vconst(e, -__builtin_inf()) : sfi_f32(e, -__builtin_inf());
  LLVMValueRef carried = sum ? LLVMConstNull(wide) : none;
  if (l.along && l.minus) l.minus = sfi_splat(e, l.minus);
  sfi_inner_walk(e, point, first, dims, extent, l.along, &carried, 1, line_step, &l);
  LLVMTypeRef type = LLVMTypeOf(carried);
  if (!sum) {
    if (!l.along) return carried;
    const char *reduction = l.op == LINE_TOP ? "llvm.vector.reduce.fmax" : "llvm.vector.reduce.fmaximum";
    return sfi_intrinsic(e, reduction, &type, 1, &carried, 1);
  }
  if (l.along) carried = sum_of_lanes(e, carried);
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

/* A NaN of the line reaches all results by the sum, so that the maximum need not find it. */
static void softmax_body(sfi_emission *e, const sfi_point *point) {
  const sfi_kernel *k = e->kernel;
  const sfi_extent *extent = &k->extent[k->axis];
  bool along = axis_along(k);
  LLVMValueRef max = line_value(e, point, k->axis, 1, extent, (line){.op = LINE_TOP, .along = along});
  LLVMValueRef sum = line_value(e, point, k->axis, 1, extent, (line){.op = LINE_SUM_EXP, .minus = max, .along = along});
  finish f = {.times = LLVMBuildFDiv(e->builder, like(e, point, 1), sum, ""), .reload = true};
  if (along) f.times = sfi_splat(e, f.times);
  sfi_inner_walk(e, point, k->axis, 1, extent, along, NULL, 0, finish_step, &f);
}

/* Sum of squares of a line and, where it is centred, its sum, carried in fp64: the square of an fp32 number is exact there, and what cancels
 * when the square of the mean is taken off is far below fp32's own error of the mean. One pass instead of two. Moments stand `stride` apart. */
static int32_t moments_of(const sfi_kernel *k) {
  return k->centred ? 2 : 1;
}

static void add_moments(sfi_emission *e, LLVMValueRef v, LLVMValueRef *moments, int32_t stride) {
  v = LLVMBuildFPExt(e->builder, v, LLVMTypeOf(moments[0]), "");
  if (e->kernel->centred) moments[stride] = LLVMBuildFAdd(e->builder, moments[stride], v, "");
  moments[0] = sfi_fma(e, v, v, moments[0]);
}

static void moments_step(sfi_emission *e, const sfi_point *point, LLVMValueRef *carried, void *user) {
  const bool *along = user;
  const int32_t n = moments_of(e->kernel);
  LLVMValueRef next[2];
  for (int32_t i = 0; i < n; i++) next[i] = carried[i];
  add_moments(e, sfi_expr_value(e, &e->kernel->pre, point, NULL), next, 1);
  for (int32_t i = 0; i < n; i++)
    carried[i] = *along && point->mask ? LLVMBuildSelect(e->builder, point->mask, next[i], carried[i], "") : next[i];
}

/* What the last pass needs of a line of n elements, by its moments `stride` apart: the mean, where it is centred, and
 * 1 / sqrt(variance + eps). In fp64, as variances of fp32 numbers may be beyond fp32. */
static finish normal_of(sfi_emission *e, const LLVMValueRef *moments, int32_t stride, LLVMTypeRef narrow) {
  const sfi_kernel *k = e->kernel;
  LLVMTypeRef type = LLVMTypeOf(moments[0]), f64 = LLVMDoubleTypeInContext(e->context);
  LLVMValueRef count = LLVMBuildSIToFP(e->builder, sfi_extent_value(e, k->extent[k->axis]), f64, ""),
               eps = LLVMConstReal(f64, k->eps), one = LLVMConstReal(f64, 1);
  if (LLVMGetTypeKind(type) == LLVMVectorTypeKind) count = sfi_splat(e, count), eps = sfi_splat(e, eps), one = sfi_splat(e, one);
  finish f = {0};
  LLVMValueRef squares = moments[0];
  if (k->centred) {
    LLVMValueRef sum = moments[stride], mean = LLVMBuildFDiv(e->builder, sum, count, ""), zero = LLVMConstNull(type);
    squares = sfi_fma(e, LLVMBuildFNeg(e->builder, mean, ""), sum, squares);
    LLVMValueRef below = LLVMBuildFCmp(e->builder, LLVMRealOLT, squares, zero, ""); /* by rounding */
    squares = LLVMBuildSelect(e->builder, below, zero, squares, "");
    f.minus = LLVMBuildFPTrunc(e->builder, mean, narrow, "");
  }
  LLVMValueRef raised = LLVMBuildFAdd(e->builder, LLVMBuildFDiv(e->builder, squares, count, ""), eps, "");
  LLVMValueRef deviation = sfi_intrinsic(e, "llvm.sqrt", &type, 1, &raised, 1);
  f.times = LLVMBuildFPTrunc(e->builder, LLVMBuildFDiv(e->builder, one, deviation, ""), narrow, "");
  return f;
}

static void normalize_body(sfi_emission *e, const sfi_point *point) {
  const sfi_kernel *k = e->kernel;
  const sfi_extent *extent = &k->extent[k->axis];
  bool along = axis_along(k), vector = along || point->vector;
  LLVMTypeRef f64 = LLVMDoubleTypeInContext(e->context), wide = vector ? LLVMVectorType(f64, (unsigned)e->lanes) : f64;
  LLVMValueRef moments[2] = {LLVMConstNull(wide), LLVMConstNull(wide)};
  sfi_inner_walk(e, point, k->axis, 1, extent, along, moments, (unsigned)moments_of(k), moments_step, &along);
  for (int32_t i = 0; along && i < moments_of(k); i++) moments[i] = sum_of_lanes(e, moments[i]);
  finish f = normal_of(e, moments, 1, point->vector && !along ? e->vec : e->f32);
  if (along && f.minus) f.minus = sfi_splat(e, f.minus);
  if (along) f.times = sfi_splat(e, f.times);
  sfi_inner_walk(e, point, k->axis, 1, extent, along, NULL, 0, finish_step, &f);
}

/* ---- normalize in panels ------------------------------------------------------------------------------------------- */

enum {
  SETS = 4
}; /* of sums in flight, which hide the latency of additions: of vectors of columns, or of features where these are few */

/* A panel [feature][column] at once: features in the order of memory, its columns in so many vectors. */
typedef struct panel {
  int32_t vectors;
  sfi_point at[SETS];
} panel;

static void panel_feature(sfi_emission *e, panel *p, LLVMValueRef feature) {
  for (int32_t v = 0; v < p->vectors; v++) p->at[v].index[e->kernel->axis] = feature;
}

/* Moments of all columns: those of feature f go to set f % sets. moments: the sums of squares of each vector, then the sums. */
static void panel_moments(sfi_emission *e, panel *p, int64_t features, LLVMValueRef *moments) {
  const int32_t each = moments_of(e->kernel) * p->vectors, sets = SETS / p->vectors, count = each * sets;
  const int64_t whole = features / sets * sets;
  LLVMValueRef next[4 * SETS];
  for (int32_t i = 0; i < count; i++)
    next[i] = LLVMConstNull(LLVMVectorType(LLVMDoubleTypeInContext(e->context), (unsigned)e->lanes));
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), sfi_i64(e, whole), sfi_i64(e, sets), next, (unsigned)count);
  for (int32_t i = 0; i < count; i++) next[i] = loop.carried[i];
  for (int32_t s = 0; s < sets; s++) {
    panel_feature(e, p, sfi_addi(e, loop.index, sfi_i64(e, s)));
    for (int32_t v = 0; v < p->vectors; v++)
      add_moments(e, sfi_expr_value(e, &e->kernel->pre, &p->at[v], NULL), &next[s * each + v], p->vectors);
  }
  sfi_loop_end(e, &loop, next);
  for (int64_t f = whole; f < features; f++) {
    LLVMValueRef *set = loop.carried + (f - whole) * each;
    panel_feature(e, p, sfi_i64(e, f));
    for (int32_t v = 0; v < p->vectors; v++)
      add_moments(e, sfi_expr_value(e, &e->kernel->pre, &p->at[v], NULL), &set[v], p->vectors);
  }
  for (int32_t i = 0; i < each; i++) {
    moments[i] = loop.carried[i];
    for (int32_t s = 1; s < sets; s++) moments[i] = LLVMBuildFAdd(e->builder, moments[i], loop.carried[s * each + i], "");
  }
}

static void normalize_panel(sfi_emission *e, LLVMValueRef t) {
  const sfi_kernel *k = e->kernel;
  const int64_t features = k->extent[k->axis].of.c[0];
  panel p = {.vectors = (int32_t)(k->ragged.width / e->lanes)};
  LLVMValueRef moments[2 * SETS];
  finish f[SETS];
  for (int32_t v = 0; v < p.vectors; v++) {
    LLVMValueRef lane = sfi_i64(e, (int64_t)v * e->lanes), column = sfi_addi(e, sfi_muli(e, t, sfi_i64(e, k->ragged.width)), lane);
    p.at[v] = (sfi_point){.index = {t, NULL, lane}, .rank = 3, .vector = true, .vector_dim = 2};
    p.at[v].mask = sfi_mask_below(e, column, sfi_poly_value(e, k->ragged.columns));
  }
  panel_moments(e, &p, features, moments);
  for (int32_t v = 0; v < p.vectors; v++) f[v] = normal_of(e, &moments[v], p.vectors, e->vec);
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), sfi_i64(e, features), sfi_i64(e, 1), NULL, 0);
  panel_feature(e, &p, loop.index);
  for (int32_t v = 0; v < p.vectors; v++) finish_step(e, &p.at[v], NULL, &f[v]);
  sfi_loop_end(e, &loop, NULL);
}

/* Space (panel, feature, lane) with the panel as the tile. */
static bool by_panels(const sfi_emission *e) {
  const sfi_kernel *k = e->kernel;
  return sfi_writes_panels(e) && k->rank == 3 && k->axis == 1 && k->tile_dims == 1 && k->ragged.panel == 0 &&
         sfi_is_const(k->extent[1].of) && k->ragged.width / e->lanes <= SETS;
}

sf_status sfi_softmax_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)plan;
  sfi_space_walk(e, !axis_along(k), k->axis, softmax_body);
  return SF_OK;
}
sf_status sfi_normalize_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)plan;
  if (!by_panels(e)) {
    sfi_space_walk(e, !axis_along(k), k->axis, normalize_body);
    return SF_OK;
  }
  sfi_loop tiles;
  sfi_loop_begin(e, &tiles, e->tile_begin, e->tile_end, sfi_i64(e, 1), NULL, 0);
  normalize_panel(e, tiles.index);
  sfi_loop_end(e, &tiles, NULL);
  return SF_OK;
}
