/* Operators that work element by element: those that are one operation of the graph, and those that are written out in several.
 * Booleans at run time are 0 and 1 in fp32. */
#include "onnx_import.h"

#include <math.h>

/* ---- operands and results ----------------------------------------------------------------------------------------- */

bool sfi_onnx_broadcast(importer *im, sfi_shape *out) {
  *out = (sfi_shape){0};
  for (int32_t i = 0; i < im->n_in; i++) {
    if (im->in[i] && !sfi_broadcast(out, &im->in[i]->shape, out)) return INVALID(im, "the shapes do not broadcast");
  }
  return true;
}

/* Operand i for fp32 arithmetic. Its extents may lag behind the model's. */
static bool real(importer *im, int32_t i, sf_value *out) {
  const onnx_value *v = im->in[i];
  if (!sfi_onnx_is_float(v->type) && v->type != ONNX_BOOL) {
    return UNSUPPORTED(im, "operand \"%s\" is computed with as integers at run time", v->name);
  }
  return sfi_onnx_operand(im, i, false, out);
}

static bool typed_result(importer *im, sf_value value, onnx_type type) {
  sfi_shape shape;
  if (!sfi_onnx_broadcast(im, &shape) || !sfi_onnx_result_as(im, 0, value, &shape)) return false;
  onnx_value *out = sfi_onnx_output(im, 0);
  if (out) out->type = type;
  return true;
}

static bool result(importer *im, sf_value value) {
  return typed_result(im, value, ONNX_FLOAT);
}

#define B(op, x, y) sfi_onnx_binary(im, SF_OP_##op, x, y)
#define U(op, x) sfi_onnx_unary(im, SF_OP_##op, x)
#define C(number) sfi_onnx_scalar(im, number)

/* Folded, or an error: nothing more to do. */
static bool settled(importer *im, int64_t kind) {
  bool done;
  return !sfi_onnx_fold(im, kind, &done) || done;
}
#define FOLD(kind)                                                                                                                 \
  if (settled(im, kind)) return im->diag.error.status == SF_OK

/* ---- one operation ------------------------------------------------------------------------------------------------ */

bool sfi_import_unary(importer *im) {
  sf_value x;
  FOLD(im->arg);
  return real(im, 0, &x) && result(im, sfi_onnx_unary(im, (sf_op)im->arg, x));
}

bool sfi_import_binary(importer *im) {
  sf_value x, y;
  FOLD(im->arg);
  return real(im, 0, &x) && real(im, 1, &y) && result(im, sfi_onnx_binary(im, (sf_op)im->arg, x, y));
}

bool sfi_import_prelu(importer *im) {
  sf_value x, y;
  return real(im, 0, &x) && real(im, 1, &y) && result(im, B(PRELU, x, y));
}

static bool fold_only(importer *im) {
  FOLD(im->arg);
  return UNSUPPORTED(im, "of a value that is not known at import");
}
bool sfi_import_fold_unary(importer *im) {
  return fold_only(im);
}
bool sfi_import_fold_binary(importer *im) {
  int64_t fmod_too;
  if (!sfi_onnx_int(im, "fmod", 0, &fmod_too)) return false;
  if (fmod_too && sfi_onnx_is_static(im, 0) && !im->in[0]->floats) return UNSUPPORTED(im, "attribute 'fmod' with integers");
  return fold_only(im);
}

/* Any number of operands, two at a time. A mean is a sum divided. */
bool sfi_import_variadic(importer *im) {
  sf_op op = im->arg == SF_OP_DIV ? SF_OP_ADD : (sf_op)im->arg;
  sf_value sum = SF_NO_VALUE, x;
  if (im->n_in == 2 && op == (sf_op)im->arg) FOLD(im->arg);
  for (int32_t i = 0; i < im->n_in; i++) {
    if (!im->in[i]) return INVALID(im, "operand %d is left out", i);
    if (!real(im, i, &x)) return false;
    sum = i == 0 ? x : sfi_onnx_binary(im, op, sum, x);
  }
  return result(im, im->arg == SF_OP_DIV ? B(DIV, sum, C(im->n_in)) : sum);
}

/* ---- tests and logic ---------------------------------------------------------------------------------------------- */

/* Greater is less with the operands exchanged; "or equal" is either, so that a NaN gives 0. */
bool sfi_import_compare(importer *im) {
  sf_value x, y;
  int64_t compare = im->arg;
  bool swapped = compare == COMPARE_GREATER || compare == COMPARE_GREATER_EQUAL;
  if (sfi_onnx_all_static(im)) {
    if (swapped) {
      onnx_value *other = im->in[0];
      im->in[0] = im->in[1];
      im->in[1] = other;
      compare = compare == COMPARE_GREATER ? COMPARE_LESS : COMPARE_LESS_EQUAL;
      swapped = false;
    }
    if (compare != COMPARE_LESS_EQUAL) FOLD(compare == COMPARE_EQUAL ? SF_OP_EQUAL : SF_OP_LESS);
  }
  if (!real(im, swapped, &x) || !real(im, !swapped, &y)) return false;
  sf_value less = compare == COMPARE_EQUAL ? SF_NO_VALUE : B(LESS, x, y);
  bool or_equal = compare == COMPARE_LESS_EQUAL || compare == COMPARE_GREATER_EQUAL;
  sf_value equal = compare == COMPARE_EQUAL || or_equal ? B(EQUAL, x, y) : SF_NO_VALUE;
  return typed_result(im, or_equal ? B(MAX, less, equal) : equal == SF_NO_VALUE ? less : equal, ONNX_BOOL);
}

/* On 0 and 1: and is a product, or the larger, exclusive or the difference from equality. */
bool sfi_import_logic(importer *im) {
  sf_value x, y;
  for (int32_t i = 0; i < im->n_in; i++) {
    if (im->in[i]->type != ONNX_BOOL) return INVALID(im, "operand \"%s\" is not boolean", im->in[i]->name);
  }
  if (im->n_in == 2 && im->arg != SF_OP_EQUAL) FOLD(im->arg);
  if (!real(im, 0, &x)) return false;
  if (im->arg == SF_OP_SUB) return typed_result(im, B(SUB, C(1), x), ONNX_BOOL);
  if (!real(im, 1, &y)) return false;
  sf_value test = sfi_onnx_binary(im, (sf_op)im->arg, x, y);
  return typed_result(im, im->arg == SF_OP_EQUAL ? B(SUB, C(1), test) : test, ONNX_BOOL);
}

bool sfi_import_is_nan(importer *im) {
  sf_value x;
  return real(im, 0, &x) && typed_result(im, B(SUB, C(1), B(EQUAL, x, x)), ONNX_BOOL);
}

bool sfi_import_where(importer *im) {
  sf_value test, x, y;
  FOLD(SF_OP_WHERE);
  if (im->in[0]->type != ONNX_BOOL) return INVALID(im, "operand \"%s\" is not boolean", im->in[0]->name);
  if (!real(im, 0, &test) || !real(im, 1, &x) || !real(im, 2, &y)) return false;
  return typed_result(im, sfi_onnx_build(im, SF_OP_WHERE, 3, (sf_value[]){test, x, y}, 0, NULL), im->in[1]->type);
}

/* ---- activations -------------------------------------------------------------------------------------------------- */

/* Operand 0 and up to two attributes with their defaults. */
static bool activation(importer *im, sf_value *x, const char *a_name, double *a, const char *b_name, double *b) {
  return real(im, 0, x) && (!a_name || sfi_onnx_float(im, a_name, *a, a)) && (!b_name || sfi_onnx_float(im, b_name, *b, b));
}

/* min(max(x, low), high), each where given. */
bool sfi_import_clip(importer *im) {
  sf_value x, bound;
  if (!real(im, 0, &x)) return false;
  for (int32_t i = 1; i < im->n_in; i++) {
    if (!im->in[i]) continue;
    if (!real(im, i, &bound)) return false;
    x = sfi_onnx_binary(im, i == 1 ? SF_OP_MAX : SF_OP_MIN, x, bound);
  }
  return result(im, x);
}

bool sfi_import_leaky_relu(importer *im) {
  sf_value x;
  double alpha = 0.01;
  return activation(im, &x, "alpha", &alpha, NULL, NULL) && result(im, B(PRELU, x, C(alpha)));
}

bool sfi_import_thresholded_relu(importer *im) {
  sf_value x;
  double alpha = 1;
  if (!activation(im, &x, "alpha", &alpha, NULL, NULL)) return false;
  return result(im, sfi_onnx_build(im, SF_OP_WHERE, 3, (sf_value[]){B(LESS, C(alpha), x), x, C(0)}, 0, NULL));
}

/* scale (x > 0 ? x : alpha (e^x - 1)), where the exponential never sees what is above 0. */
static sf_value elu(importer *im, sf_value x, double scale, double alpha, double divisor) {
  sf_value below = B(MIN, x, C(0)), at = divisor == 1 ? below : B(DIV, below, C(divisor));
  sf_value y = B(ADD, B(MAX, x, C(0)), B(MUL, B(SUB, U(EXP, at), C(1)), C(alpha)));
  return scale == 1 ? y : B(MUL, y, C(scale));
}

bool sfi_import_elu(importer *im) {
  sf_value x;
  double alpha = 1;
  return activation(im, &x, "alpha", &alpha, NULL, NULL) && result(im, elu(im, x, 1, alpha, 1));
}

bool sfi_import_celu(importer *im) {
  sf_value x;
  double alpha = 1;
  return activation(im, &x, "alpha", &alpha, NULL, NULL) && result(im, elu(im, x, 1, alpha, alpha));
}

bool sfi_import_selu(importer *im) {
  sf_value x;
  double alpha = 1.67326319217681884765625, gamma = 1.05070102214813232421875;
  return activation(im, &x, "alpha", &alpha, "gamma", &gamma) && result(im, elu(im, x, gamma, alpha, 1));
}

static sf_value hard_sigmoid(importer *im, sf_value x, double alpha, double beta) {
  return B(MAX, C(0), B(MIN, C(1), B(ADD, B(MUL, x, C(alpha)), C(beta))));
}

bool sfi_import_hard_sigmoid(importer *im) {
  sf_value x;
  double alpha = 0.2f, beta = 0.5;
  return activation(im, &x, "alpha", &alpha, "beta", &beta) && result(im, hard_sigmoid(im, x, alpha, beta));
}

bool sfi_import_hard_swish(importer *im) {
  sf_value x;
  return real(im, 0, &x) && result(im, B(MUL, x, hard_sigmoid(im, x, 1.0 / 6, 0.5)));
}

/* max(x, 0) + log(1 + e^-|x|): nothing overflows. */
static sf_value softplus(importer *im, sf_value x) {
  return B(ADD, B(MAX, x, C(0)), U(LOG, B(ADD, C(1), U(EXP, U(NEG, U(ABS, x))))));
}

bool sfi_import_softplus(importer *im) {
  sf_value x;
  return real(im, 0, &x) && result(im, softplus(im, x));
}

bool sfi_import_mish(importer *im) {
  sf_value x;
  return real(im, 0, &x) && result(im, B(MUL, x, U(TANH, softplus(im, x))));
}

bool sfi_import_softsign(importer *im) {
  sf_value x;
  return real(im, 0, &x) && result(im, B(DIV, x, B(ADD, C(1), U(ABS, x))));
}

bool sfi_import_reciprocal(importer *im) {
  sf_value x;
  FOLD(FOLD_RECIPROCAL);
  return real(im, 0, &x) && result(im, B(DIV, C(1), x));
}

bool sfi_import_sign(importer *im) {
  sf_value x;
  FOLD(FOLD_SIGN);
  return real(im, 0, &x) && result(im, B(SUB, B(LESS, C(0), x), B(LESS, x, C(0))));
}

bool sfi_import_gelu(importer *im) {
  sf_value x;
  const char *approximate;
  if (!real(im, 0, &x) || !sfi_onnx_text(im, "approximate", "none", &approximate)) return false;
  if (strcmp(approximate, "none") == 0) return result(im, U(GELU, x));
  if (strcmp(approximate, "tanh") == 0) return result(im, U(GELU_TANH, x));
  return UNSUPPORTED(im, "attribute 'approximate' is \"%.40s\"", approximate);
}

/* The powers that models have are products and roots. */
bool sfi_import_pow(importer *im) {
  sf_value x, y;
  if (sfi_onnx_all_static(im) && sfi_onnx_is_float(im->in[0]->type) == sfi_onnx_is_float(im->in[1]->type)) FOLD(SF_OP_POW);
  if (!real(im, 0, &x)) return false;
  const onnx_value *power = im->in[1];
  if (power->kind == VALUE_STATIC && power->count == 1 && !power->polys) {
    double number = sfi_onnx_real(power, 0);
    if (number == 1) return result(im, x);
    if (number == 2) return result(im, B(MUL, x, x));
    if (number == 3) return result(im, B(MUL, B(MUL, x, x), x));
    return result(im, B(POW, x, C(number)));
  }
  return real(im, 1, &y) && result(im, B(POW, x, y));
}

/* ---- types -------------------------------------------------------------------------------------------------------- */

static bool is_integer(onnx_type type) {
  return !sfi_onnx_is_float(type) && type != ONNX_BOOL;
}

/* A known value of another type. Reals are cut towards 0. */
static bool cast_static(importer *im, const onnx_value *v, onnx_type to) {
  onnx_value *out = sfi_onnx_output(im, 0);
  bool from_real = v->floats != NULL, to_real = sfi_onnx_is_float(to);
  sfi_shape shape = v->shape;
  if (!out) return true;
  if (from_real == to_real && (to != ONNX_BOOL || v->type == ONNX_BOOL)) {
    if (!sfi_onnx_same(im, 0, v)) return false;
    out->type = to_real ? ONNX_FLOAT : to;
    out->value = SF_NO_VALUE; /* in the graph it may have another type */
    return true;
  }
  if (v->polys) return UNSUPPORTED(im, "the symbolic dimension as a number of another type");
  void *data = sfi_arena_alloc(&im->graph->arena, (size_t)v->count * (to_real ? sizeof(float) : sizeof(int64_t)));
  if (!data) return sfi_onnx_fail_memory(im);
  for (int64_t i = 0; i < v->count; i++) {
    double x = sfi_onnx_real(v, i);
    if (to_real)
      ((float *)data)[i] = (float)x;
    else if (to == ONNX_BOOL)
      ((int64_t *)data)[i] = x != 0;
    else if (!(fabs(x) < 9e18))
      return UNSUPPORTED(im, "an element that no integer holds");
    else
      ((int64_t *)data)[i] = (int64_t)x;
  }
  int64_t dims[SF_MAX_RANK];
  memcpy(dims, v->dims, sizeof dims);
  if (to_real)
    sfi_onnx_set_floats(out, shape.rank, dims, v->count, data);
  else
    sfi_onnx_set_ints(out, to, shape.rank, dims, v->count, data);
  out->shape = shape;
  return true;
}

bool sfi_import_cast(importer *im) {
  const onnx_value *v = im->in[0];
  int64_t to;
  sf_value x;
  if (im->arg)
    to = im->in[1]->type;
  else if (!sfi_onnx_int(im, "to", ONNX_UNDEFINED, &to))
    return false;
  bool known = to == ONNX_FLOAT || to == ONNX_FLOAT16 || to == ONNX_DOUBLE || to == ONNX_BFLOAT16 || to == ONNX_BOOL ||
               (to >= ONNX_UINT8 && to <= ONNX_INT64) || to == ONNX_UINT32 || to == ONNX_UINT64;
  if (!known) return UNSUPPORTED(im, "to elements of ONNX type %lld", (long long)to);
  if (v->kind == VALUE_STATIC) return cast_static(im, v, (onnx_type)to);
  bool wider = v->type == ONNX_INT32 && to == ONNX_INT64;
  if (to == (int64_t)v->type || wider) { /* indices of either type are taken as they are */
    if (!sfi_onnx_same(im, 0, v)) return false;
    if (sfi_onnx_output(im, 0)) sfi_onnx_output(im, 0)->type = (onnx_type)to;
    return true;
  }
  if (is_integer((onnx_type)to)) return UNSUPPORTED(im, "to integers at run time");
  if (!sfi_onnx_operand(im, 0, false, &x)) return false;
  if (is_integer(v->type)) x = U(CAST, x);
  /* Of 0 and 1 the number is the boolean; a NaN is not 0. fp64 and 16-bit types are computed in fp32. */
  if (to == ONNX_BOOL) x = B(SUB, C(1), B(EQUAL, x, C(0)));
  if (!sfi_onnx_result_as(im, 0, x, &v->shape)) return false;
  if (sfi_onnx_output(im, 0)) sfi_onnx_output(im, 0)->type = to == ONNX_BOOL ? ONNX_BOOL : ONNX_FLOAT;
  return true;
}
