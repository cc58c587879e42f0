/* Products, normalisations, reductions, softmax: what mixes elements of a dimension. */
#include "onnx_import.h"

#define B(op, x, y) sfi_onnx_binary(im, SF_OP_##op, x, y)
#define U(op, x) sfi_onnx_unary(im, SF_OP_##op, x)
#define C(number) sfi_onnx_scalar(im, number)

/* Operand i in fp32, whole. */
static bool real(importer *im, int32_t i, sf_value *out) {
  const onnx_value *v = im->in[i];
  if (!sfi_onnx_is_float(v->type)) return UNSUPPORTED(im, "operand \"%s\" holds no real numbers", v->name);
  return sfi_onnx_operand(im, i, true, out);
}

/* ---- products ----------------------------------------------------------------------------------------------------- */

static sf_value product(importer *im, sf_value a, sf_value b, bool transpose_a, bool transpose_b) {
  sf_attr attrs[] = {{.id = SF_ATTR_TRANSPOSE_A, .i = transpose_a}, {.id = SF_ATTR_TRANSPOSE_B, .i = transpose_b}};
  return sfi_onnx_build(im, SF_OP_MATMUL, 2, (sf_value[]){a, b}, 2, attrs);
}

/* A vector is a row on the left and a column on the right; its dimension is not in the result. */
bool sfi_import_matmul(importer *im) {
  sf_value a, b;
  if (!real(im, 0, &a) || !real(im, 1, &b)) return false;
  sfi_shape left = im->in[0]->shape, right = im->in[1]->shape;
  bool row = left.rank == 1, column = right.rank == 1;
  if (left.rank < 1 || right.rank < 1) return INVALID(im, "a scalar");
  if (row) a = sfi_onnx_reshaped(im, a, &(sfi_shape){.rank = 2, .dims = {sfi_const(1), left.dims[0]}});
  if (column) b = sfi_onnx_reshaped(im, b, &(sfi_shape){.rank = 2, .dims = {right.dims[0], sfi_const(1)}});
  sf_value y = product(im, a, b, false, false);
  if (y != SF_NO_VALUE && (row || column)) {
    sfi_shape shape = *sfi_onnx_shape_of(im, y);
    if (row) {
      shape.dims[shape.rank - 2] = shape.dims[shape.rank - 1];
      shape.rank--;
    }
    if (column) shape.rank--;
    y = sfi_onnx_reshaped(im, y, &shape);
  }
  return sfi_onnx_result(im, 0, y);
}

bool sfi_import_gemm(importer *im) {
  double alpha, beta;
  int64_t transpose_a, transpose_b;
  sf_value a, b, c;
  if (!sfi_onnx_float(im, "alpha", 1, &alpha) || !sfi_onnx_float(im, "beta", 1, &beta)) return false;
  if (!sfi_onnx_int(im, "transA", 0, &transpose_a) || !sfi_onnx_int(im, "transB", 0, &transpose_b)) return false;
  if (im->in[0]->shape.rank != 2 || im->in[1]->shape.rank != 2) return INVALID(im, "operands that are no matrices");
  if (!real(im, 0, &a) || !real(im, 1, &b)) return false;
  sf_value y = product(im, a, b, transpose_a != 0, transpose_b != 0);
  if (alpha != 1) y = B(MUL, y, C(alpha));
  if (sfi_onnx_given(im, 2) && beta != 0) {
    if (!real(im, 2, &c)) return false;
    y = B(ADD, y, beta == 1 ? c : B(MUL, c, C(beta)));
  }
  return sfi_onnx_result(im, 0, y);
}

/* ---- normalisations ----------------------------------------------------------------------------------------------- */

bool sfi_import_batch_norm(importer *im) {
  sf_value operands[5];
  double eps;
  int64_t training;
  if (!sfi_onnx_float(im, "epsilon", 1e-5f, &eps) || !sfi_onnx_int(im, "training_mode", 0, &training)) return false;
  if (training || sfi_onnx_output(im, 1)) return UNSUPPORTED(im, "training");
  for (int32_t i = 0; i < 5; i++) {
    if (!real(im, i, &operands[i])) return false;
  }
  return sfi_onnx_result(im, 0, sfi_onnx_build(im, SF_OP_BATCH_NORM, 5, operands, 1, &(sf_attr){.id = SF_ATTR_EPS, .f = eps}));
}

/* Scale and bias that have not the normalised extents, but broadcast, are applied behind. */
bool sfi_import_layer_norm(importer *im) {
  sf_value operands[3];
  double eps;
  int64_t given, stash;
  int32_t axis;
  const sfi_shape *x = &im->in[0]->shape;
  bool exact = true;
  if (!sfi_onnx_float(im, "epsilon", 1e-5f, &eps) || !sfi_onnx_int(im, "axis", -1, &given)) return false;
  if (!sfi_onnx_int(im, "stash_type", ONNX_FLOAT, &stash) || !sfi_onnx_axis(im, given, x->rank, &axis)) return false;
  if (stash != ONNX_FLOAT) return UNSUPPORTED(im, "attribute 'stash_type' is %lld", (long long)stash);
  if (sfi_onnx_output(im, 1) || sfi_onnx_output(im, 2)) return UNSUPPORTED(im, "its second and third result");
  sfi_shape normal = {.rank = x->rank - axis};
  memcpy(normal.dims, x->dims + axis, (size_t)normal.rank * sizeof *normal.dims);
  for (int32_t i = 0; i < im->n_in; i++) {
    if (!real(im, i, &operands[i])) return false;
    if (i) exact &= sfi_shape_equal(&normal, &im->in[i]->shape);
  }
  sf_attr attrs[] = {{.id = SF_ATTR_AXIS, .i = axis}, {.id = SF_ATTR_EPS, .f = eps}};
  sf_value y = sfi_onnx_build(im, SF_OP_LAYER_NORM, exact ? im->n_in : 1, operands, 2, attrs);
  if (!exact) y = B(MUL, y, operands[1]);
  if (!exact && im->n_in == 3) y = B(ADD, y, operands[2]);
  return sfi_onnx_result(im, 0, y);
}

/* Each group of channels of x[n, c, ..] on its own, then scale and bias of each channel. An instance is a group of one. */
bool sfi_import_group_norm(importer *im) {
  sf_value x, scale, bias;
  double eps;
  int64_t groups, stash;
  const sfi_shape *from = &im->in[0]->shape;
  sfi_poly rest, channels = from->rank > 1 ? from->dims[1] : sfi_const(0);
  if (!sfi_onnx_float(im, "epsilon", 1e-5f, &eps) || !sfi_onnx_int(im, "stash_type", ONNX_FLOAT, &stash)) return false;
  if (im->arg && im->opset < 21) return UNSUPPORTED(im, "before operator set 21");
  if (from->rank < 3 || !sfi_is_const(channels)) return UNSUPPORTED(im, "rank %d, or channels that are symbolic", from->rank);
  if (!sfi_onnx_int(im, "num_groups", channels.c[0], &groups)) return false;
  if (groups < 1 || channels.c[0] % groups)
    return INVALID(im, "%lld groups of %lld channels", (long long)groups, (long long)channels.c[0]);
  if (stash != ONNX_FLOAT) return UNSUPPORTED(im, "attribute 'stash_type' is %lld", (long long)stash);
  if (!real(im, 0, &x) || !real(im, 1, &scale) || !real(im, 2, &bias)) return false;
  sfi_shape shape = *from, grouped = {.rank = 3, .dims = {from->dims[0], sfi_const(groups)}}, column = {.rank = from->rank - 1};
  rest = sfi_const(channels.c[0] / groups);
  for (int32_t i = 2; i < from->rank; i++) {
    if (!sfi_poly_mul(rest, from->dims[i], &rest)) return UNSUPPORTED(im, "too many elements");
  }
  grouped.dims[2] = rest;
  for (int32_t i = 0; i < column.rank; i++) column.dims[i] = i ? sfi_const(1) : channels;
  sf_attr attrs[] = {{.id = SF_ATTR_AXIS, .i = 2}, {.id = SF_ATTR_EPS, .f = eps}};
  sf_value y = sfi_onnx_reshaped(im, x, &grouped);
  y = sfi_onnx_reshaped(im, sfi_onnx_build(im, SF_OP_LAYER_NORM, 1, &y, 2, attrs), &shape);
  y = B(ADD, B(MUL, y, sfi_onnx_reshaped(im, scale, &column)), sfi_onnx_reshaped(im, bias, &column));
  return sfi_onnx_result(im, 0, y);
}

/* ---- along an axis ------------------------------------------------------------------------------------------------ */

static bool read_axis(importer *im, int32_t *out) {
  int64_t axis;
  return sfi_onnx_int(im, "axis", -1, &axis) && sfi_onnx_axis(im, axis, im->in[0]->shape.rank, out);
}

bool sfi_import_softmax(importer *im) {
  sf_value x;
  int32_t axis;
  if (!real(im, 0, &x) || !read_axis(im, &axis)) return false;
  return sfi_onnx_result(im, 0, sfi_onnx_build(im, SF_OP_SOFTMAX, 1, &x, 1, &(sf_attr){.id = SF_ATTR_AXIS, .i = axis}));
}

static sf_value reduced(importer *im, sf_op op, sf_value x, int32_t count, const int64_t *axes, bool keepdims) {
  if (x == SF_NO_VALUE) return x;
  sf_attr attrs[] = {{.id = SF_ATTR_AXES, .count = count, .ints = axes}, {.id = SF_ATTR_KEEPDIMS, .i = keepdims}};
  return sfi_onnx_build(im, op, 1, &x, 2, attrs);
}

/* x - max - log(sum(exp(x - max))) */
bool sfi_import_log_softmax(importer *im) {
  sf_value x;
  int32_t axis;
  if (!real(im, 0, &x) || !read_axis(im, &axis)) return false;
  int64_t axes[] = {axis};
  sf_value below = B(SUB, x, reduced(im, SF_OP_REDUCE_MAX, x, 1, axes, true));
  sf_value sum = reduced(im, SF_OP_REDUCE_SUM, U(EXP, below), 1, axes, true);
  return sfi_onnx_result(im, 0, B(SUB, below, U(LOG, sum)));
}

/* A product, sum, largest or smallest of known integers: pieces of a shape. */
static bool reduce_static(importer *im, bool *out_done) {
  const onnx_value *v = im->in[0];
  int64_t keepdims, one = 1;
  *out_done = false;
  if (v->kind != VALUE_STATIC || v->floats || v->shape.rank > 1 || !sfi_onnx_whole(v) || v->count == 0) return true;
  if (im->arg != REDUCE_PROD && im->arg != REDUCE_SUM && im->arg != REDUCE_MAX && im->arg != REDUCE_MIN) return true;
  if (!sfi_onnx_int(im, "keepdims", 1, &keepdims)) return false;
  sfi_poly *result = sfi_arena_alloc(&im->arena, sizeof *result);
  if (!result) return sfi_onnx_fail_memory(im);
  *result = sfi_onnx_integer(v, 0);
  for (int64_t i = 1; i < v->count; i++) {
    sfi_poly x = sfi_onnx_integer(v, i);
    bool good = true;
    if (im->arg == REDUCE_PROD)
      good = sfi_poly_mul(*result, x, result);
    else if (im->arg == REDUCE_SUM)
      good = sfi_poly_add(*result, x, result);
    else if (!sfi_is_const(x) || !sfi_is_const(*result))
      good = false;
    else if ((x.c[0] > result->c[0]) == (im->arg == REDUCE_MAX))
      *result = x;
    if (!good) return UNSUPPORTED(im, "its result overflows, or is not one polynomial of the symbolic dimension");
  }
  *out_done = true;
  onnx_value *out = sfi_onnx_output(im, 0);
  return !out || sfi_onnx_set_polys(im, out, v->type, keepdims && v->shape.rank == 1, &one, 1, result);
}

bool sfi_import_reduce(importer *im) {
  int64_t keep, noop, axes[SF_MAX_RANK];
  int32_t count, rank = im->in[0]->shape.rank;
  bool done;
  sf_value x, y;
  if (!reduce_static(im, &done) || done) return im->diag.error.status == SF_OK;
  if (im->arg == REDUCE_PROD) return UNSUPPORTED(im, "of a value that is not known at import");
  if (!sfi_onnx_int(im, "keepdims", 1, &keep) || !sfi_onnx_int(im, "noop_with_empty_axes", 0, &noop)) return false;
  if (!sfi_onnx_axes(im, 1, "axes", SF_MAX_RANK, axes, &count) || !real(im, 0, &x)) return false;
  if (count <= 0 && noop)
    return im->arg == REDUCE_SUM || im->arg == REDUCE_MEAN || im->arg == REDUCE_MAX || im->arg == REDUCE_MIN
               ? sfi_onnx_same(im, 0, im->in[0])
               : UNSUPPORTED(im, "attribute 'noop_with_empty_axes'");
  if (count <= 0) {
    count = rank;
    for (int32_t i = 0; i < rank; i++) axes[i] = i;
  }
  if (rank == 0) return UNSUPPORTED(im, "of a scalar");
#define R(op, value) reduced(im, SF_OP_REDUCE_##op, value, count, axes, keep != 0)
  switch (im->arg) {
  case REDUCE_SUM:
    y = R(SUM, x);
    break;
  case REDUCE_MEAN:
    y = R(MEAN, x);
    break;
  case REDUCE_MAX:
    y = R(MAX, x);
    break;
  case REDUCE_MIN:
    y = U(NEG, R(MAX, U(NEG, x)));
    break;
  case REDUCE_L1:
    y = R(SUM, U(ABS, x));
    break;
  case REDUCE_L2:
    y = U(SQRT, R(SUM, B(MUL, x, x)));
    break;
  case REDUCE_SUM_SQUARE:
    y = R(SUM, B(MUL, x, x));
    break;
  default: { /* log of a sum of exponentials, shifted by the largest so that none overflows */
    sf_value most = reduced(im, SF_OP_REDUCE_MAX, x, count, axes, true);
    sf_value sum = reduced(im, SF_OP_REDUCE_SUM, U(EXP, B(SUB, x, most)), count, axes, true);
    y = B(ADD, U(LOG, sum), most);
    if (!keep && y != SF_NO_VALUE) y = reduced(im, SF_OP_REDUCE_MAX, y, count, axes, false);
    break;
  }
  }
#undef R
  return sfi_onnx_result(im, 0, y);
}

/* ---- quantised weights -------------------------------------------------------------------------------------------- */

/* (x - zero) scale, each of one element or one a slice of `axis`: known values become fp32. */
bool sfi_import_dequantize(importer *im) {
  const onnx_value *v = im->in[0], *scale = im->in[1], *zero = sfi_onnx_given(im, 2) ? im->in[2] : NULL;
  int64_t given, inner = 1, dims[SF_MAX_RANK];
  int32_t axis = 0;
  onnx_value *out = sfi_onnx_output(im, 0);
  if (!sfi_onnx_all_static(im)) return UNSUPPORTED(im, "of a value that is not known at import");
  if (v->floats || v->polys || !scale->floats || (zero && (zero->floats || zero->polys)))
    return INVALID(im, "operands of other types");
  if (!sfi_onnx_int(im, "axis", 1, &given)) return false;
  if (scale->count != 1 && !sfi_onnx_axis(im, given, v->shape.rank, &axis)) return false;
  if (scale->shape.rank > 1 || (scale->count != 1 && scale->count != v->dims[axis]) || (zero && zero->count != scale->count) ||
      !sfi_onnx_whole(v))
    return UNSUPPORTED(im, "scales of that shape");
  for (int32_t i = axis + 1; i < v->shape.rank; i++) inner *= v->dims[i];
  float *floats = sfi_arena_alloc(&im->graph->arena, (size_t)v->count * sizeof *floats);
  if (!floats) return sfi_onnx_fail_memory(im);
  for (int64_t i = 0; i < v->count; i++) {
    int64_t k = scale->count == 1 ? 0 : i / inner % scale->count;
    floats[i] = (float)(v->ints[i] - (zero ? zero->ints[k] : 0)) * scale->floats[k];
  }
  memcpy(dims, v->dims, sizeof dims);
  if (out) sfi_onnx_set_floats(out, v->shape.rank, dims, v->count, floats);
  return true;
}
