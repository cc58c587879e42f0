/* See bound.h. First-order running error analysis, with second-order terms kept where they are cheap. Elements that are not finite carry
 * the error 0 while their kind is certain. */
#include "bound.h"
#include "attention.h"
#include "compare.h"
#include "ref_kernel.h"

#include <float.h>

/* Stands for "at least this wrong" where an infinity times zero would give NaN. */
#define HUGE_ERROR 1e300

typedef struct bounded {
  sf_tensor value, error; /* F64 */
  bool is_static;
} bounded;

/* One node under analysis. */
typedef struct analysis {
  sfi_arena *arena;
  sfi_ref_call call;
  const sf_tensor *x, *e; /* operands and their errors */
  sf_tensor value, error;
  int64_t count;   /* elements of the result */
  int64_t depth;   /* terms of one */
  double rounding; /* of one result element, over its magnitude */
  double absolute;
} analysis;

static const double *of(const sf_tensor *t) {
  return t->data;
}
static double finite_abs(double v) {
  return isfinite(v) ? fabs(v) : 0;
}

static bool tensor_like(sfi_arena *arena, const sf_tensor *shape, sf_tensor *out) {
  *out = *shape;
  out->dtype = SF_F64;
  out->data = sfi_arena_alloc(arena, (size_t)sfi_ref_numel(shape) * sizeof(double) + 1);
  return out->data != NULL;
}

/* The operation itself on other operands: what is linear and monotone maps errors as it maps values. */
static bool apply(const analysis *a, const sf_tensor *inputs, int32_t n_inputs, sf_tensor *out) {
  if (!tensor_like(a->arena, &a->value, out)) return false;
  sfi_node node = *a->call.node;
  sfi_attr_value attrs[3];
  node.n_inputs = n_inputs;
  if (node.op == SF_OP_PAD) { /* what is added has no error */
    memcpy(attrs, node.attrs, sizeof attrs);
    attrs[2].f = 0;
    node.attrs = attrs;
  }
  sfi_ref_kernel(&(sfi_ref_call){&node, inputs, out, a->call.static_mask, a->call.integer_mask});
  return true;
}

static bool map(const analysis *a, const sf_tensor *from, double (*f)(double v, double e), const sf_tensor *errors,
                sf_tensor *out) {
  int64_t n = sfi_ref_numel(from);
  if (!tensor_like(a->arena, from, out)) return false;
  for (int64_t i = 0; i < n; i++) ((double *)out->data)[i] = f(of(from)[i], of(errors)[i]);
  return true;
}

static double map_finite_abs(double v, double e) {
  return (void)e, finite_abs(v);
}
static double map_is_inf(double v, double e) {
  return (void)e, isinf(v) ? 1 : 0;
}
/* An infinity times what has no certain sign is not certain either. */
static bool sign_unknown(double v, double e) {
  return e > 0 && fabs(v) <= e;
}
static double map_sign_unknown(double v, double e) {
  return sign_unknown(v, e) ? HUGE_ERROR : 0;
}

/* ---- families ----------------------------------------------------------------------------------------------------- */

/* |x| e_y + e_x |y| + e_x e_y + rounding (|x| |y|), and infinities that meet doubtful signs. */
static bool contraction(analysis *a) {
  sf_tensor magnitude[2], infinite[2], doubtful[2], part;
  double *error = a->error.data;
  for (int i = 0; i < 2; i++)
    if (!map(a, &a->x[i], map_finite_abs, &a->e[i], &magnitude[i]) || !map(a, &a->x[i], map_is_inf, &a->e[i], &infinite[i]) ||
        !map(a, &a->x[i], map_sign_unknown, &a->e[i], &doubtful[i]))
      return false;
  const sf_tensor pairs[][2] = {{magnitude[0], a->e[1]},    {a->e[0], magnitude[1]},    {a->e[0], a->e[1]},
                                {infinite[0], doubtful[1]}, {doubtful[0], infinite[1]}, {magnitude[0], magnitude[1]}};
  for (size_t p = 0; p < SFI_COUNT(pairs); p++) {
    bool last = p + 1 == SFI_COUNT(pairs);
    if (!apply(a, pairs[p], 2, &part)) return false;
    for (int64_t i = 0; i < a->count; i++) {
      double term = of(&part)[i];
      /* A partial sum may overflow, and every product fall below the smallest number. */
      if (last) term = term > FLT_MAX / 4 ? INFINITY : term * a->rounding + a->absolute * (double)a->depth;
      error[i] += term;
    }
  }
  if (a->call.node->n_inputs < 3) return true;
  int64_t pixels = a->value.dims[2] * a->value.dims[3];
  for (int64_t i = 0; i < a->count; i++) {
    int64_t m = i / pixels % a->value.dims[1];
    error[i] += of(&a->e[2])[m] + a->rounding * finite_abs(of(&a->x[2])[m]);
  }
  return true;
}

static bool linear(analysis *a, bool rounds) {
  sf_tensor magnitudes[SFI_REF_OPERANDS_MAX], errors, sums;
  bool max = a->call.node->op == SF_OP_MAX_POOL || a->call.node->op == SF_OP_REDUCE_MAX;
  sf_tensor inputs[SFI_REF_OPERANDS_MAX];
  memcpy(inputs, a->e, (size_t)a->call.node->n_inputs * sizeof *inputs);
  if (a->call.node->op == SF_OP_GATHER) inputs[1] = a->x[1]; /* the same places */
  if (a->call.node->op == SF_OP_APPEND) inputs[2] = a->x[2];
  if (!apply(a, inputs, a->call.node->n_inputs, &errors)) return false;
  if (rounds && (!map(a, &a->x[0], map_finite_abs, &a->e[0], &magnitudes[0]) || !apply(a, magnitudes, 1, &sums))) return false;
  for (int64_t i = 0; i < a->count; i++) {
    double e = of(&errors)[i];
    if (max) e = fmax(e, 0); /* the maximum of none is -inf */
    /* A mean is a sum first. */
    if (rounds) e += of(&sums)[i] * (double)a->depth > FLT_MAX / 4 ? INFINITY : a->rounding * of(&sums)[i] + a->absolute;
    bool of_none = sfi_ref_numel(&a->x[0]) == 0 && a->call.node->op != SF_OP_CONCAT && a->call.node->op != SF_OP_APPEND;
    ((double *)a->error.data)[i] = of_none ? 0 : e;
  }
  return true;
}

static double unary_error(sf_op op, double x, double e, double y, const analysis *a) {
  double rounding = a->rounding * finite_abs(y) + a->absolute;
  switch (op) {
  case SF_OP_RELU:
  case SF_OP_NEG:
  case SF_OP_ABS:
    return e;
  case SF_OP_ERF:
    return 1.13 * e + rounding;
  case SF_OP_LOG:
    if (e == 0 || x + e < 0) return rounding;
    return x <= e ? INFINITY : -log1p(-e / x) + rounding;
  case SF_OP_GELU:
  case SF_OP_GELU_TANH:
  case SF_OP_SILU:
    return 1.13 * e + a->rounding * finite_abs(x) + a->absolute; /* the steepest slope of all three */
  case SF_OP_SIGMOID:
    return e / 4 + rounding;
  case SF_OP_SIN:
  case SF_OP_COS:
    if (isfinite(x) && fabs(x) + e >= 0x1p50) return INFINITY;
    return e + rounding;
  case SF_OP_TANH:
    return e + rounding;
  case SF_OP_EXP:
    return e > 0 ? finite_abs(y) * expm1(e) + rounding : rounding;
  default:
    break;
  }
  assert(op == SF_OP_SQRT);
  if (e == 0) return rounding;
  if (x + e < 0) return 0;
  return x - e < 0 ? INFINITY : y - sqrt(x - e) + rounding;
}

static void unary(analysis *a) {
  for (int64_t i = 0; i < a->count; i++)
    ((double *)a->error.data)[i] = unary_error(a->call.node->op, of(&a->x[0])[i], of(&a->e[0])[i], of(&a->value)[i], a);
}

static double binary_error(sf_op op, double x, double ex, double y, double ey, double v, const analysis *a) {
  double rounding = a->rounding * finite_abs(v) + a->absolute;
  switch (op) {
  case SF_OP_ADD:
  case SF_OP_SUB:
    return ex + ey + rounding;
  case SF_OP_MUL:
    if ((isinf(x) && sign_unknown(y, ey)) || (isinf(y) && sign_unknown(x, ex))) return INFINITY;
    return (ey > 0 ? finite_abs(x) * ey : 0) + (ex > 0 ? finite_abs(y) * ex : 0) + ex * ey + rounding;
  case SF_OP_MIN:
  case SF_OP_MAX:
    return fmax(ex, ey);
  case SF_OP_LESS:
  case SF_OP_EQUAL: /* an error may decide */
    return ex + ey > 0 && !(fabs(x - y) > ex + ey) && !isnan(x) && !isnan(y) ? INFINITY : 0;
  case SF_OP_PRELU:
    if (ex > 0 && fabs(x) <= ex) return isinf(y) ? INFINITY : 3 * ex * (1 + finite_abs(y) + ey) + rounding;
    return x < 0 ? binary_error(SF_OP_MUL, x, ex, y, ey, v, a) : ex;
  case SF_OP_POW:
    if (ex == 0 && ey == 0) return rounding;
    if (!(x > ex) || !(ex < FLT_MAX) || !(ey < FLT_MAX) || isinf(x) || isinf(y)) return INFINITY;
    return finite_abs(v) * expm1((finite_abs(y) + ey) * -log1p(-ex / x) + ey * fabs(log(x))) + rounding;
  default:
    break;
  }
  assert(op == SF_OP_DIV);
  if (!(ex < FLT_MAX) || !(ey < FLT_MAX)) return INFINITY;
  if (isnan(x) || isnan(y)) return 0;
  /* A zero's sign depends on how it came about; a reciprocal of less overflows. */
  if (fabs(y) <= ey || fabs(y) < 4 * (double)FLT_MIN) return INFINITY;
  if (isinf(y)) return a->absolute;
  return (ex + (ey > 0 ? finite_abs(v) * ey : 0)) / (fabs(y) - ey) + rounding;
}

static void binary(analysis *a) {
  int64_t index[SF_MAX_RANK] = {0}, at[2] = {0}, strides[2][SF_MAX_RANK];
  for (int k = 0; k < 2; k++) sfi_ref_broadcast_strides(&a->x[k], a->value.rank, strides[k]);
  for (int64_t i = 0; i < a->count; i++) {
    ((double *)a->error.data)[i] = binary_error(a->call.node->op, of(&a->x[0])[at[0]], of(&a->e[0])[at[0]], of(&a->x[1])[at[1]],
                                                of(&a->e[1])[at[1]], of(&a->value)[i], a);
    sfi_ref_next(a->value.rank, a->value.dims, index, 2, strides, at);
  }
}

static void where(analysis *a) {
  int64_t index[SF_MAX_RANK] = {0}, at[3] = {0}, strides[3][SF_MAX_RANK];
  for (int k = 0; k < 3; k++) sfi_ref_broadcast_strides(&a->x[k], a->value.rank, strides[k]);
  for (int64_t i = 0; i < a->count; i++) {
    double c = of(&a->x[0])[at[0]], e = of(&a->e[0])[at[0]];
    ((double *)a->error.data)[i] = e > 0 && !(fabs(c) > e) ? INFINITY : c == 0 ? of(&a->e[2])[at[2]] : of(&a->e[1])[at[1]];
    sfi_ref_next(a->value.rank, a->value.dims, index, 3, strides, at);
  }
}

static void softmax(analysis *a) {
  const sf_tensor *x = &a->x[0];
  int32_t axis = sfi_ref_axis(sfi_attr_int(a->call.node, SF_ATTR_AXIS), x->rank);
  int64_t count = x->dims[axis], after = sfi_ref_span(x, axis + 1, x->rank);
  for (int64_t i = 0; i < a->count; i++) {
    int64_t base = i / (count * after) * count * after + i % after;
    double most = 0, max = -INFINITY;
    for (int64_t k = 0; k < count; k++) {
      most = fmax(most, of(&a->e[0])[base + k * after]);
      max = fmax(max, of(x)[base + k * after]);
    }
    double y = of(&a->value)[i], distance = finite_abs(max - of(x)[i]);
    double relative = (most > 0 ? expm1(2 * most) : 0) + a->rounding * (1 + distance);
    ((double *)a->error.data)[i] = isnan(y) ? (most < HUGE_ERROR ? 0 : INFINITY) : (y > 0 ? y * relative : 0) + a->absolute;
    if (most >= HUGE_ERROR) ((double *)a->error.data)[i] = INFINITY;
  }
}

/* ---- attention: by rows, as a product, a softmax and a product ----------------------------------------------------- */

typedef struct attended {
  const double *x[3], *e[3]; /* q, k, v as [batch, head, row, feature] by stride */
  int64_t stride[3][4], out[4], mask_stride[SF_MAX_RANK];
  int64_t heads, group, rows, keys, depth, width, seen;
  double scale, factor; /* of scores; rounding of a sum over the features of one */
  const double *mask, *mask_error;
} attended;

static double score_of(const attended *t, int64_t b, int64_t h, int64_t i, int64_t j, double *out_error) {
  const int64_t q = b * t->stride[0][0] + h * t->stride[0][1] + i * t->stride[0][2];
  const int64_t k = b * t->stride[1][0] + h / t->group * t->stride[1][1] + j * t->stride[1][2];
  double s = 0, magnitude = 0, error = 0;
  for (int64_t f = 0; f < t->depth; f++) {
    const int64_t m = q + f * t->stride[0][3], n = k + f * t->stride[1][3];
    const double x = t->x[0][m], y = t->x[1][n], ex = t->e[0][m], ey = t->e[1][n];
    s += x * y;
    magnitude += finite_abs(x) * finite_abs(y);
    error += (ey > 0 ? finite_abs(x) * ey : 0) + (ex > 0 ? finite_abs(y) * ex : 0) + ex * ey;
    if ((isinf(x) && sign_unknown(y, ey)) || (isinf(y) && sign_unknown(x, ex))) error = INFINITY;
  }
  error = fabs(t->scale) * (error + t->factor * magnitude);
  if (magnitude * fmax(fabs(t->scale), 1) > FLT_MAX / 4) error = INFINITY;
  s *= t->scale;
  if (t->mask) {
    const int64_t m = b * t->mask_stride[0] + h * t->mask_stride[1] + i * t->mask_stride[2] + j * t->mask_stride[3];
    error += t->mask_error[m] + t->factor * (finite_abs(s) + finite_abs(t->mask[m]));
    s += t->mask[m];
  }
  *out_error = isnan(error) ? INFINITY : error; /* what may have overflowed, times 0 */
  return s;
}

static void attention_row(const analysis *a, const attended *t, int64_t b, int64_t h, int64_t i, double *scores, double *errors) {
  double max = -INFINITY, most = 0, sum = 0;
  for (int64_t j = 0; j < t->seen; j++) {
    scores[j] = score_of(t, b, h, i, j, &errors[j]);
    most = fmax(most, errors[j]);
    max = isnan(scores[j]) || scores[j] > max ? scores[j] : isnan(max) ? max : max;
  }
  for (int64_t j = 0; j < t->seen; j++) sum += exp(scores[j] - max);
  for (int64_t f = 0; f < t->width; f++) {
    const int64_t o = b * t->out[0] + h * t->out[1] + i * t->out[2] + f * t->out[3];
    double error = a->absolute, *out = &((double *)a->error.data)[o];
    bool known = most < HUGE_ERROR;
    for (int64_t j = 0; j < t->seen; j++) {
      const int64_t n = b * t->stride[2][0] + h / t->group * t->stride[2][1] + j * t->stride[2][2] + f * t->stride[2][3];
      const double p = exp(scores[j] - max) / sum, v = t->x[2][n], ev = t->e[2][n];
      const double relative = (most > 0 ? expm1(2 * most) : 0) + a->rounding * (1 + finite_abs(max - scores[j]));
      /* What is weighed so little may be nothing in fp32, and nothing times infinity is NaN. */
      if (isinf(v) && p < 1e-20 && scores[j] > -INFINITY) known = false;
      if (!(ev < HUGE_ERROR)) known = false;
      error += (p + FLT_MIN) * (ev + (relative + a->rounding) * finite_abs(v));
      if (finite_abs(v) > FLT_MAX / 1e6) known = false;
    }
    *out = known && !isnan(error) ? error : INFINITY;
    if (known && isnan(of(&a->value)[o])) *out = 0;
  }
}

static bool attention(analysis *a) {
  const sfi_node *node = a->call.node;
  const sf_tensor *x = a->x;
  const int64_t given = sfi_attr_int(node, SF_ATTR_HEADS), kv = sfi_attr_int(node, SF_ATTR_KV_HEADS);
  const double scale = sfi_attr_of(node, SF_ATTR_SCALE)->f;
  int64_t own[SF_MAX_RANK] = {0}, before = -1;
  attended t = {.rows = x[0].dims[x[0].rank - 2], .keys = x[1].dims[x[1].rank - 2]};
  const int64_t kv_heads = x[1].rank == 4 ? x[1].dims[1] : kv ? kv : given;
  t.heads = x[0].rank == 4 ? x[0].dims[1] : given;
  t.group = t.heads / kv_heads;
  t.depth = x[0].dims[x[0].rank - 1] / (x[0].rank == 4 ? 1 : t.heads);
  t.width = x[2].dims[x[2].rank - 1] / (x[2].rank == 4 ? 1 : kv_heads);
  t.scale = scale == 0 ? 1 / sqrt((double)t.depth) : scale;
  const sf_tolerance product = sf_tolerance_of(SF_OP_MATMUL);
  t.factor = product.relative + product.growth * sqrt((double)t.depth);
  for (int k = 0; k < 3; k++) {
    t.x[k] = of(&x[k]);
    t.e[k] = of(&a->e[k]);
    sfi_ref_strides(&x[k], own);
    sfi_attention_strides(x[k].rank, k == 2 ? t.width : t.depth, own, t.stride[k]);
  }
  sfi_ref_strides(&a->value, own);
  sfi_attention_strides(a->value.rank, t.width, own, t.out);
  for (int32_t k = 3; k < node->n_inputs; k++) {
    if (a->call.integer_mask >> k & 1) {
      before = (int64_t)of(&x[k])[0];
      continue;
    }
    t.mask = of(&x[k]);
    t.mask_error = of(&a->e[k]);
    sfi_ref_broadcast_strides(&x[k], 4, t.mask_stride);
  }
  double *scores = sfi_arena_alloc(a->arena, 2 * (size_t)t.keys * sizeof *scores + 1);
  if (!scores) return false;
  for (int64_t r = 0; r < a->value.dims[0] * t.heads * t.rows; r++) {
    const int64_t i = r % t.rows;
    t.seen = before >= 0 ? sfi_min(t.keys, before + t.rows) : t.keys;
    if (sfi_attr_int(node, SF_ATTR_CAUSAL)) t.seen = sfi_min(t.seen, sfi_max(before, 0) + i + 1);
    attention_row(a, &t, r / t.rows / t.heads, r / t.rows % t.heads, i, scores, scores + t.keys);
  }
  return true;
}

/* (x - mean) / deviation of one row, before scale and bias; of RMS norm the mean is 0. */
static void normalize_row(const analysis *a, int64_t begin, int64_t count, double *y, double *e) {
  const double *x = of(&a->x[0]) + begin, *ex = of(&a->e[0]) + begin;
  double n = (double)count, sum = 0, sum_abs = 0, sum_errors = 0, squares = 0, error_squares = 0, largest = 0;
  bool finite = true, centred = a->call.node->op == SF_OP_LAYER_NORM;
  for (int64_t i = 0; i < count; i++) {
    finite = finite && isfinite(x[i]);
    sum += centred ? x[i] : 0;
    sum_abs += centred ? finite_abs(x[i]) : 0;
    sum_errors += ex[i];
    largest = fmax(largest, finite_abs(x[i]));
  }
  double mean = sum / n, mean_error = centred ? sum_errors / n + a->rounding * sum_abs / n : 0;
  for (int64_t i = 0; i < count; i++) {
    squares += (x[i] - mean) * (x[i] - mean);
    error_squares += (ex[i] + mean_error) * (ex[i] + mean_error);
  }
  double deviation = sqrt(squares / n + sfi_attr_of(a->call.node, SF_ATTR_EPS)->f), shift = sqrt(error_squares / n);
  bool known = sum_errors < HUGE_ERROR && largest < 1e18; /* squares stay floats */
  for (int64_t i = 0; i < count; i++) {
    y[i] = (x[i] - mean) / deviation;
    e[i] = (ex[i] + mean_error + fabs(y[i]) * shift) / (deviation - shift) + a->rounding * fabs(y[i]) + a->absolute;
    if (!finite) e[i] = 0;
    if (!known || (finite && shift > deviation / 2)) e[i] = INFINITY;
  }
}

static bool normalize(analysis *a) {
  const sf_tensor *x = &a->x[0];
  int32_t axis = sfi_ref_axis(sfi_attr_int(a->call.node, SF_ATTR_AXIS), x->rank), n_inputs = a->call.node->n_inputs;
  int64_t rows = sfi_ref_span(x, 0, axis), count = sfi_ref_span(x, axis, x->rank);
  double *y = sfi_arena_alloc(a->arena, (size_t)count * sizeof *y + 1), *error = a->error.data;
  if (!y) return false;
  for (int64_t row = 0; row < rows; row++) {
    normalize_row(a, row * count, count, y, error + row * count);
    for (int64_t i = 0; i < count; i++) {
      double *e = &error[row * count + i];
      if (n_inputs > 1) *e = binary_error(SF_OP_MUL, y[i], *e, of(&a->x[1])[i], of(&a->e[1])[i], y[i] * of(&a->x[1])[i], a);
      if (n_inputs > 2) *e += of(&a->e[2])[i] + a->rounding * finite_abs(of(&a->x[2])[i]);
    }
  }
  return true;
}

/* Folded or not: x * (scale / deviation) + (bias - mean * scale / deviation). */
static void batch_norm(analysis *a) {
  const sf_tensor *x = a->x, *e = a->e;
  int64_t channels = x->dims[1], pixels = sfi_ref_span(x, 2, x->rank);
  double eps = sfi_attr_of(a->call.node, SF_ATTR_EPS)->f;
  for (int64_t i = 0; i < a->count; i++) {
    int64_t c = i / pixels % channels;
    double v = of(&x[0])[i], scale = of(&x[1])[c], mean = of(&x[3])[c], variance = of(&x[4])[c] + eps, e_variance = of(&e[4])[c];
    double deviation = sqrt(variance), factor = finite_abs(scale) / deviation, range = finite_abs(v) + finite_abs(mean);
    double *error = &((double *)a->error.data)[i];
    *error = (of(&e[0])[i] + of(&e[3])[c]) * factor + range / deviation * of(&e[1])[c] + of(&e[2])[c] + a->absolute;
    *error += range * factor * e_variance / (variance - e_variance);
    *error += a->rounding * (range * factor + finite_abs(of(&x[2])[c]));
    bool doubtful = fabs(variance) <= e_variance + a->rounding * (fabs(of(&x[4])[c]) + eps) || fabs(variance) < 1e-30;
    bool overflows = range >= FLT_MAX || range / deviation >= FLT_MAX; /* on the way, whatever the scale is */
    if (variance < 0) *error = 0;
    if (doubtful || overflows || (isinf(v) && sign_unknown(scale, of(&e[1])[c]))) *error = INFINITY;
  }
}

/* ---- graph -------------------------------------------------------------------------------------------------------- */

static bool analyse(analysis *a) {
  const sfi_node *node = a->call.node;
  switch (node->op) {
  case SF_OP_MATMUL:
  case SF_OP_CONV2D:
  case SF_OP_CONV_TRANSPOSE:
    return contraction(a);
  case SF_OP_ATTENTION:
    return attention(a);
  case SF_OP_SOFTMAX:
    return softmax(a), true;
  case SF_OP_LAYER_NORM:
  case SF_OP_RMS_NORM:
    return normalize(a);
  case SF_OP_BATCH_NORM:
    return batch_norm(a), true;
  case SF_OP_AVG_POOL:
  case SF_OP_GLOBAL_AVG_POOL:
  case SF_OP_REDUCE_SUM:
  case SF_OP_REDUCE_MEAN:
    return linear(a, true);
  case SF_OP_MAX_POOL:
  case SF_OP_REDUCE_MAX:
  case SF_OP_APPEND:
    return linear(a, false);
  default:
    break;
  }
  if (node->op == SF_OP_CAST) {
    for (int64_t i = 0; i < a->count; i++) ((double *)a->error.data)[i] = a->rounding * fabs(of(&a->value)[i]);
    return true;
  }
  uint32_t flags = sfi_op_of(node->op)->flags;
  if (flags & SF_OPF_SHAPE) return linear(a, false);
  assert(flags & SF_OPF_ELEMENTWISE);
  if (node->n_inputs == 1)
    unary(a);
  else if (node->n_inputs == 2)
    binary(a);
  else
    where(a);
  return true;
}

/* Settles each element: what may overflow in fp32 is unknown, and so is what came out as no number. */
static void settle(analysis *a) {
  for (int64_t i = 0; i < a->count; i++) {
    double *e = &((double *)a->error.data)[i], v = of(&a->value)[i];
    if (!(*e < FLT_MAX) || (isfinite(v) && fabs(v) + *e >= FLT_MAX)) *e = INFINITY;
    if (!isfinite(v) && *e < INFINITY) *e = 0;
  }
}

static bool shape_at(const sfi_shape *shape, int64_t symbol, sf_tensor *out) {
  int64_t count = 1;
  *out = (sf_tensor){.rank = shape->rank, .dtype = SF_F64};
  for (int32_t d = 0; d < shape->rank; d++)
    if (!sfi_poly_eval(shape->dims[d], symbol, &out->dims[d]) || !sfi_mul(count, out->dims[d], &count)) return false;
  return count < INT64_MAX / 64;
}

static bool run_node(sfi_arena *arena, const sf_graph *graph, sf_value v, bounded *values) {
  const sfi_node *node = &graph->nodes[v];
  bounded *out = &values[v];
  sf_tensor x[SFI_REF_OPERANDS_MAX], e[SFI_REF_OPERANDS_MAX];
  analysis a = {.arena = arena, .call = {.node = node, .inputs = x, .output = &out->value}, .x = x, .e = e};
  a.call.integer_mask = sfi_ref_integers(graph, node);
  out->is_static = node->op != SF_OP_INPUT;
  for (int32_t i = 0; i < node->n_inputs; i++) {
    const bounded *operand = &values[node->inputs[i]];
    x[i] = operand->value;
    e[i] = operand->error;
    if (operand->is_static) a.call.static_mask |= UINT32_C(1) << i;
    out->is_static = out->is_static && operand->is_static;
  }
  if (sfi_node_is_static(node)) {
    sfi_diag diag = {0};
    sfi_node opened = *node; /* its elements may be in a file */
    if (!(opened.data = sfi_node_open(node, &diag))) return false;
    a.call.node = &opened;
    sfi_ref_kernel(&a.call);
    sfi_node_close(node);
    return true;
  }
  if (node->op != SF_OP_INPUT) sfi_ref_kernel(&a.call);
  if (sfi_op_of(node->op)->flags & SF_OPF_LEAF) return true;
  sf_tolerance t = sf_tolerance_of(node->op);
  a.value = out->value;
  a.error = out->error;
  a.count = sfi_ref_numel(&a.value);
  a.depth = sf_depth_of(node, x, &a.value);
  a.rounding = t.relative + t.growth * sqrt((double)a.depth);
  /* Results below the smallest normal float may be flushed, or lose digits. */
  a.absolute = t.absolute + (t.relative > 0 ? (double)FLT_MIN : 0);
  if (!analyse(&a)) return false;
  settle(&a);
  return true;
}

bool sf_bounded_run(const sf_graph *graph, int64_t symbol, const sf_tensor *inputs, const sf_tensor *outputs,
                    const sf_tensor *bounds) {
  sfi_arena arena = {.allocator = &sfi_default_allocator};
  bounded *values = sfi_arena_alloc(&arena, graph->n_nodes * sizeof *values + 1);
  bool done = values != NULL;
  size_t n_inputs = 0;
  for (size_t v = 0; v < graph->n_nodes && done; v++) {
    sf_tensor shape;
    done = shape_at(&graph->nodes[v].shape, symbol, &shape) && tensor_like(&arena, &shape, &values[v].value) &&
           tensor_like(&arena, &shape, &values[v].error);
    if (done && graph->nodes[v].op == SF_OP_INPUT)
      sfi_ref_load_run(&inputs[n_inputs++], 0, 1, sfi_ref_numel(&shape), values[v].value.data);
    done = done && run_node(&arena, graph, (sf_value)v, values);
  }
  for (size_t i = 0; i < graph->n_outputs && done; i++) {
    const bounded *v = &values[graph->outputs[i].value];
    size_t bytes = (size_t)sfi_ref_numel(&v->value) * sizeof(double);
    memcpy(outputs[i].data, v->value.data, bytes);
    memcpy(bounds[i].data, v->error.data, bytes);
  }
  sfi_arena_deinit(&arena);
  return done;
}
