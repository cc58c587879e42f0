/* Arithmetic on what is known at import: shapes that PyTorch's exporter computes in the graph, scales, masks. Integers may depend on the
 * symbolic dimension; where a result would not be the same polynomial for all of its values, the node is refused. */
#include "onnx_import.h"

#include <math.h>

/* More floats than these are the compiler's to fold; integers are folded always, since nothing else takes them. */
enum { FLOATS_MOST = 1 << 19 };

typedef struct number {
  double real;
  sfi_poly whole;
} number;

static sfi_poly negated(sfi_poly p) {
  return (sfi_poly){{-p.c[0], -p.c[1], -p.c[2]}};
}

/* Sign of p for every value of the symbolic dimension, 0 and up. */
static bool sign_of(sfi_poly p, int *out) {
  bool up = p.c[0] >= 0 && p.c[1] >= 0 && p.c[2] >= 0, down = p.c[0] <= 0 && p.c[1] <= 0 && p.c[2] <= 0;
  *out = up && down ? 0 : up ? 1 : -1;
  return (up && down) || ((up || down) && p.c[0] != 0);
}

static bool fold_wholes(int64_t kind, sfi_poly a, sfi_poly b, sfi_poly *out) {
  sfi_poly difference;
  int sign = 0;
  bool plain = sfi_is_const(a) && sfi_is_const(b);
  int64_t x = a.c[0], y = b.c[0];
  switch (kind) {
  case SF_OP_ADD:
    return sfi_poly_add(a, b, out);
  case SF_OP_SUB:
    return y != INT64_MIN && sfi_poly_add(a, negated(b), out);
  case SF_OP_MUL:
    return sfi_poly_mul(a, b, out);
  case SF_OP_DIV:
    if (!plain) return sfi_poly_div(a, b, out);
    if (y == 0 || (x == INT64_MIN && y == -1)) return false;
    *out = sfi_const(x / y);
    return true;
  case FOLD_MOD:
    if (!plain || y == 0 || y == -1) return plain && y == -1 && (*out = sfi_const(0), true);
    *out = sfi_const(x % y + (x % y != 0 && (x < 0) != (y < 0) ? y : 0));
    return true;
  case SF_OP_NEG:
    *out = negated(a);
    return x != INT64_MIN;
  case SF_OP_MIN:
  case SF_OP_MAX:
  case SF_OP_LESS:
  case SF_OP_EQUAL:
    if (y == INT64_MIN || !sfi_poly_add(a, negated(b), &difference)) {
      if (!plain) return false;
      sign = x < y ? -1 : x > y;
    } else if (!sign_of(difference, &sign)) {
      return false;
    }
    *out = kind == SF_OP_LESS    ? sfi_const(sign < 0)
           : kind == SF_OP_EQUAL ? sfi_const(sign == 0)
                                 : ((sign < 0) == (kind == SF_OP_MIN) ? a : b);
    return true;
  case FOLD_SIGN:
    if (!sign_of(a, &sign)) return false;
    *out = sfi_const(sign);
    return true;
  case SF_OP_ABS:
    if (!sign_of(a, &sign) || x == INT64_MIN) return false;
    *out = sign < 0 ? negated(a) : a;
    return true;
  case SF_OP_POW: {
    if (!plain || y < 0) return false;
    int64_t power = 1;
    for (int64_t i = 0; i < y && power != 0 && (x != 1); i++) {
      if (i > 64 && x != -1 && x != 0) return false;
      if (x == -1) {
        power = y % 2 ? -1 : 1;
        break;
      }
      if (!sfi_mul(power, x, &power)) return false;
    }
    *out = sfi_const(power);
    return true;
  }
  default:
    return false;
  }
}

static bool fold_reals(int64_t kind, double a, double b, double *out) {
  switch (kind) {
  case SF_OP_ADD:
    return *out = a + b, true;
  case SF_OP_SUB:
    return *out = a - b, true;
  case SF_OP_MUL:
    return *out = a * b, true;
  case SF_OP_DIV:
    return *out = a / b, true;
  case SF_OP_POW:
    return *out = pow(a, b), true;
  case SF_OP_MIN:
    return *out = isnan(a) || a < b ? a : b, true;
  case SF_OP_MAX:
    return *out = isnan(a) || a > b ? a : b, true;
  case SF_OP_LESS:
    return *out = a < b, true;
  case SF_OP_EQUAL:
    return *out = a == b, true;
  case FOLD_MOD:
    return *out = fmod(a, b), true;
  case FOLD_FLOOR:
    return *out = floor(a), true;
  case FOLD_CEIL:
    return *out = ceil(a), true;
  case FOLD_ROUND:
    return *out = nearbyint(a), true;
  case SF_OP_SIN:
    return *out = sin(a), true;
  case SF_OP_COS:
    return *out = cos(a), true;
  case FOLD_SIGN:
    return *out = isnan(a) ? a : (a > 0) - (a < 0), true;
  case FOLD_RECIPROCAL:
    return *out = 1 / a, true;
  case SF_OP_NEG:
    return *out = -a, true;
  case SF_OP_ABS:
    return *out = fabs(a), true;
  case SF_OP_SQRT:
    return *out = sqrt(a), true;
  case SF_OP_EXP:
    return *out = exp(a), true;
  case SF_OP_LOG:
    return *out = log(a), true;
  case SF_OP_ERF:
    return *out = erf(a), true;
  case SF_OP_TANH:
    return *out = tanh(a), true;
  case SF_OP_RELU:
    return *out = a < 0 ? 0 : a, true;
  default:
    return false; /* the graph computes it */
  }
}

/* Steps through each operand's elements for those of the result: 0 where the operand has one. */
static void broadcast_steps(const onnx_value *v, int32_t rank, int64_t *steps) {
  int64_t strides[SF_MAX_RANK];
  int32_t lead = rank - v->shape.rank;
  sfi_onnx_strides(v, strides);
  for (int32_t i = 0; i < rank; i++) steps[i] = i < lead || v->dims[i - lead] == 1 ? 0 : strides[i - lead];
}

/* The extents of the elements that operands have here, broadcast. Of those that are symbolic in the model the first so many count: the
 * least is what all have, and more than one of them shall not make too many elements. */
static bool broadcast_dims(importer *im, const sfi_shape *shape, int32_t *rank, int64_t *dims) {
  int32_t symbolic = 0;
  *rank = 0;
  for (int32_t k = 0; k < im->n_in; k++) *rank = im->in[k]->shape.rank > *rank ? im->in[k]->shape.rank : *rank;
  for (int32_t i = 0; i < *rank; i++) {
    dims[i] = 1;
    for (int32_t k = 0; k < im->n_in; k++) {
      int32_t at = i - (*rank - im->in[k]->shape.rank);
      int64_t extent = at < 0 ? 1 : im->in[k]->dims[at];
      bool differ = extent != 1 && dims[i] != 1 && extent != dims[i];
      if (differ && sfi_is_const(shape->dims[i])) return INVALID(im, "the shapes do not broadcast");
      if (extent != 1) dims[i] = differ ? sfi_min(extent, dims[i]) : extent;
    }
    symbolic += dims[i] != 1 && !sfi_is_const(shape->dims[i]);
  }
  for (int32_t i = 0; i < *rank && symbolic > 1; i++)
    if (!sfi_is_const(shape->dims[i])) dims[i] = sfi_min(dims[i], ONNX_SQUARE_MAX);
  return true;
}

static number element(const onnx_value *v, int64_t i) {
  return v->floats ? (number){.real = (double)v->floats[i]} : (number){.whole = sfi_onnx_integer(v, i)};
}

static bool is_real(const onnx_value *v) {
  return v->floats != NULL;
}

/* One element of the result; `where` has three operands, all others at most two. */
static bool fold_element(importer *im, int64_t kind, const int64_t *at, bool reals, number *out) {
  number x[3] = {{0}};
  for (int32_t k = 0; k < im->n_in && k < 3; k++) x[k] = element(im->in[k], at[k]);
  if (kind == SF_OP_WHERE) {
    if (!sfi_is_const(x[0].whole)) return false;
    *out = x[0].whole.c[0] ? x[1] : x[2];
    return true;
  }
  return reals ? fold_reals(kind, x[0].real, x[1].real, &out->real) : fold_wholes(kind, x[0].whole, x[1].whole, &out->whole);
}

bool sfi_onnx_fold(importer *im, int64_t kind, bool *out_done) {
  int32_t rank;
  int64_t dims[SF_MAX_RANK], count, steps[3][SF_MAX_RANK], at[3] = {0}, index[SF_MAX_RANK] = {0};
  number first;
  *out_done = false;
  if (!sfi_onnx_all_static(im)) return true;
  const onnx_value *last = im->in[im->n_in - 1];
  bool reals = is_real(last);
  if (kind == SF_OP_WHERE ? is_real(im->in[0]) || is_real(im->in[1]) != reals : is_real(im->in[0]) != reals) {
    return INVALID(im, "operands of different types");
  }
  sfi_shape shape;
  if (!sfi_onnx_broadcast(im, &shape) || !broadcast_dims(im, &shape, &rank, dims)) return false;
  if (reals && kind != SF_OP_WHERE && !fold_reals(kind, 1, 1, &first.real)) return true;
  if (!sfi_onnx_count(im, rank, dims, &count)) {
    if (!reals) return false;
    im->diag = (sfi_diag){0};
    return true;
  }
  sfi_poly numel;
  bool cut = !sfi_shape_numel(&shape, &numel) || !sfi_is_const(numel); /* a table that is cut to the sequence folds only here */
  if (reals && count > FLOATS_MOST && !cut) return true;
  for (int32_t k = 0; k < im->n_in; k++) broadcast_steps(im->in[k], rank, steps[k]);
  float *floats = reals ? sfi_arena_alloc(&im->graph->arena, (size_t)count * sizeof *floats) : NULL;
  sfi_poly *polys = reals ? NULL : sfi_arena_alloc(&im->arena, (size_t)count * sizeof *polys);
  if (!floats && !polys) return sfi_onnx_fail_memory(im);
  for (int64_t n = 0; n < count; n++) {
    number result = {0};
    if (!fold_element(im, kind, at, reals, &result)) {
      return UNSUPPORTED(im, "its result overflows, divides by zero, or is not one polynomial of the symbolic dimension");
    }
    if (reals)
      floats[n] = (float)result.real;
    else
      polys[n] = result.whole;
    for (int32_t i = rank; i-- > 0;) {
      bool more = ++index[i] < dims[i];
      for (int32_t k = 0; k < im->n_in; k++) at[k] += more ? steps[k][i] : -steps[k][i] * (dims[i] - 1);
      if (more) break;
      index[i] = 0;
    }
  }
  *out_done = true;
  onnx_value *out = sfi_onnx_output(im, 0);
  if (!out) return true;
  bool test = kind == SF_OP_LESS || kind == SF_OP_EQUAL;
  if (reals && test) {
    int64_t *ints = sfi_arena_alloc(&im->graph->arena, (size_t)count * sizeof *ints);
    if (!ints) return sfi_onnx_fail_memory(im);
    for (int64_t i = 0; i < count; i++) ints[i] = floats[i] != 0;
    sfi_onnx_set_ints(out, ONNX_BOOL, rank, dims, count, ints);
  } else if (reals) {
    sfi_onnx_set_floats(out, rank, dims, count, floats);
  } else if (!sfi_onnx_set_polys(im, out, test ? ONNX_BOOL : last->type, rank, dims, count, polys)) {
    return false;
  }
  out->shape = shape;
  return true;
}
