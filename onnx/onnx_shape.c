/* Operators that look at shapes, make values of them, and give new extents to the same elements. Static operands give static results, so
 * that what an exporter computes about shapes never reaches the graph. */
#include "onnx_import.h"

#include <math.h>

/* ---- shapes as values --------------------------------------------------------------------------------------------- */

static bool put_list(importer *im, int32_t rank, int64_t count, const sfi_poly *list) {
  onnx_value *out = sfi_onnx_output(im, 0);
  sfi_poly *own = sfi_arena_copy(&im->arena, list, (size_t)count * sizeof *list);
  if (!own) return sfi_onnx_fail_memory(im);
  return !out || sfi_onnx_set_polys(im, out, ONNX_INT64, rank, &count, count, own);
}

static int64_t clip_axis(int64_t axis, int32_t rank) {
  return sfi_max(0, sfi_min(axis < 0 ? axis + rank : axis, rank));
}

bool sfi_import_shape(importer *im) {
  const sfi_shape *shape = &im->in[0]->shape;
  int64_t start, end;
  if (!sfi_onnx_int(im, "start", 0, &start) || !sfi_onnx_int(im, "end", shape->rank, &end)) return false;
  start = clip_axis(start, shape->rank);
  end = sfi_max(start, clip_axis(end, shape->rank));
  return put_list(im, 1, end - start, shape->dims + start);
}

bool sfi_import_size(importer *im) {
  sfi_poly count;
  if (!sfi_shape_numel(&im->in[0]->shape, &count)) return UNSUPPORTED(im, "a number of elements beyond the square of the symbol");
  return put_list(im, 0, 1, &count);
}

bool sfi_import_constant(importer *im) {
  onnx_value *out = sfi_onnx_output(im, 0);
  if (im->node->attributes.count != 1) return INVALID(im, "%zu values, not one", im->node->attributes.count);
  const onnx_attribute *a = &ONNX_AT(im->node->attributes, onnx_attribute, 0);
  bool scalar = a->type == ONNX_ATTRIBUTE_FLOAT || a->type == ONNX_ATTRIBUTE_INT;
  bool real = a->type == ONNX_ATTRIBUTE_FLOAT || a->type == ONNX_ATTRIBUTE_FLOATS;
  const onnx_list *list = real ? &a->floats : &a->ints;
  if (!out) return true;
  if (a->type == ONNX_ATTRIBUTE_TENSOR && a->t) return sfi_onnx_tensor(im, a->t, out);
  if (!scalar && a->type != ONNX_ATTRIBUTE_FLOATS && a->type != ONNX_ATTRIBUTE_INTS)
    return UNSUPPORTED(im, "attribute '%.40s'", a->name);
  const void *from = scalar ? real ? (const void *)&a->f : &a->i : list->items;
  int64_t count = scalar ? 1 : (int64_t)list->count;
  void *data = sfi_arena_copy(&im->graph->arena, from, (size_t)count * (real ? sizeof(float) : sizeof(int64_t)));
  if (!data) return sfi_onnx_fail_memory(im);
  if (real)
    sfi_onnx_set_floats(out, !scalar, &count, count, data);
  else
    sfi_onnx_set_ints(out, ONNX_INT64, !scalar, &count, count, data);
  return true;
}

/* `v`, of one element, has the shape of the list in the model. */
static bool spread(importer *im, onnx_value *v, const sfi_poly *list, int32_t rank) {
  v->shape.rank = rank;
  for (int32_t i = 0; i < rank; i++) {
    v->shape.dims[i] = list[i];
    v->dims[i] = 1;
    if (sfi_is(list[i], 0)) return UNSUPPORTED(im, "extent 0");
    if (list[i].c[0] < 0 || list[i].c[1] < 0 || list[i].c[2] < 0) return INVALID(im, "an extent below 0");
  }
  return true;
}

bool sfi_import_constant_of_shape(importer *im) {
  sfi_poly list[SF_MAX_RANK];
  int32_t rank;
  const onnx_attribute *value = sfi_onnx_attribute(im, "value");
  onnx_value *out = sfi_onnx_output(im, 0), made = {.name = ""};
  float zero = 0;
  if (!sfi_onnx_list(im, 0, SF_MAX_RANK, list, &rank)) return false;
  if (value) {
    if (value->type != ONNX_ATTRIBUTE_TENSOR || !value->t) return INVALID(im, "attribute 'value' is no tensor");
    if (!sfi_onnx_tensor(im, value->t, &made)) return false;
  } else {
    const float *own = sfi_arena_copy(&im->graph->arena, &zero, sizeof zero);
    if (!own) return sfi_onnx_fail_memory(im);
    sfi_onnx_set_floats(&made, 0, NULL, 1, own);
  }
  if (made.count != 1) return INVALID(im, "attribute 'value' has %lld elements", (long long)made.count);
  if (!spread(im, &made, list, rank)) return false;
  return !out || sfi_onnx_same(im, 0, &made);
}

/* start, start + delta, ... before limit. One that counts up to the symbolic dimension is a table of which the first so many count. */
bool sfi_import_range(importer *im) {
  const sfi_poly symbol = {{0, 1, 0}};
  onnx_value *out = sfi_onnx_output(im, 0);
  double numbers[3];
  bool real = im->in[0]->floats != NULL, table = false;
  for (int32_t i = 0; i < 3; i++) {
    const onnx_value *v = im->in[i];
    sfi_poly length;
    if (v->kind == VALUE_STATIC && (v->floats != NULL) != real) return INVALID(im, "operands of different types");
    if (i == 1 && v->polys && v->count == 1 && !im->in[0]->polys && im->in[0]->count == 1 && !real) {
      table = sfi_poly_add(v->polys[0], sfi_const(-im->in[0]->ints[0]), &length) && sfi_poly_equal(length, symbol);
    }
    if (i == 1 && table) continue;
    if (!sfi_onnx_number(im, i, &numbers[i])) return false;
    if (!(fabs(numbers[i]) < 1e15)) return UNSUPPORTED(im, "from, to or by %g", numbers[i]);
  }
  if (table && numbers[2] != 1) return UNSUPPORTED(im, "up to the symbolic dimension in steps of %g", numbers[2]);
  if (table) numbers[1] = numbers[0] + ONNX_SYMBOL_MAX;
  double start = numbers[0], delta = numbers[2], steps = (numbers[1] - start) / delta;
  if (!(steps <= ONNX_FOLD_MAX)) return UNSUPPORTED(im, "more than %d elements would be made at import", ONNX_FOLD_MAX);
  int64_t count = steps > 0 ? (int64_t)ceil(steps) : 0;
  void *data = sfi_arena_alloc(&im->graph->arena, (size_t)count * (real ? sizeof(float) : sizeof(int64_t)));
  if (!data) return sfi_onnx_fail_memory(im);
  for (int64_t i = 0; i < count; i++) {
    if (real)
      ((float *)data)[i] = (float)(start + (double)i * delta);
    else
      ((int64_t *)data)[i] = (int64_t)start + i * (int64_t)delta;
  }
  if (!out) return true;
  if (real)
    sfi_onnx_set_floats(out, 1, &count, count, data);
  else
    sfi_onnx_set_ints(out, im->in[0]->type, 1, &count, count, data);
  if (table) out->shape.dims[0] = symbol;
  return true;
}

/* ---- new extents -------------------------------------------------------------------------------------------------- */

bool sfi_import_identity(importer *im) {
  return sfi_onnx_same(im, 0, im->in[0]);
}

bool sfi_import_dropout(importer *im) {
  if (sfi_onnx_output(im, 1)) return UNSUPPORTED(im, "its mask");
  if (sfi_onnx_given(im, 2)) {
    double training;
    if (!sfi_onnx_number(im, 2, &training)) return false;
    if (training != 0) return UNSUPPORTED(im, "training");
  }
  return sfi_onnx_same(im, 0, im->in[0]);
}

/* Does `shape` differ from that of the static `v` by extents of 1 alone? *out: those of the elements that are here. */
static bool only_ones_differ(const onnx_value *v, const sfi_shape *shape, int64_t *out) {
  int32_t from = 0;
  for (int32_t i = 0; i < shape->rank; i++) {
    out[i] = 1;
    if (sfi_is(shape->dims[i], 1)) continue;
    while (from < v->shape.rank && sfi_is(v->shape.dims[from], 1)) from++;
    if (from == v->shape.rank || !sfi_poly_equal(v->shape.dims[from], shape->dims[i])) return false;
    out[i] = v->dims[from++];
  }
  while (from < v->shape.rank && sfi_is(v->shape.dims[from], 1)) from++;
  return from == v->shape.rank;
}

/* Operand 0 under `shape`, of as many elements. */
static bool reshape_to(importer *im, const sfi_shape *shape) {
  const onnx_value *v = im->in[0];
  sfi_poly have, want;
  sf_value x;
  bool counted = sfi_shape_numel(&v->shape, &have) && sfi_shape_numel(shape, &want);
  if (!counted || !sfi_poly_equal(have, want)) return INVALID(im, "the new extents have another number of elements");
  if (sfi_shape_equal(shape, &v->shape)) return sfi_onnx_same(im, 0, v);
  if (v->kind == VALUE_STATIC && sfi_onnx_whole(v)) {
    onnx_value made = *v;
    made.value = SF_NO_VALUE;
    made.shape = *shape;
    for (int32_t i = 0; i < shape->rank; i++) made.dims[i] = shape->dims[i].c[0];
    return sfi_onnx_same(im, 0, &made);
  }
  if (v->kind == VALUE_STATIC && v->count == 1) {
    onnx_value made = *v;
    made.value = SF_NO_VALUE;
    return spread(im, &made, shape->dims, shape->rank) && sfi_onnx_same(im, 0, &made);
  }
  int64_t dims[SF_MAX_RANK];
  if (v->kind == VALUE_STATIC && only_ones_differ(v, shape, dims)) {
    onnx_value made = *v;
    made.value = SF_NO_VALUE;
    made.shape = *shape;
    memcpy(made.dims, dims, (size_t)shape->rank * sizeof *dims);
    return sfi_onnx_same(im, 0, &made);
  }
  if (!sfi_onnx_operand(im, 0, true, &x)) return false;
  onnx_type type = v->type;
  sf_value y = sfi_onnx_reshaped(im, x, shape);
  if (y != SF_NO_VALUE && !sfi_shape_equal(sfi_onnx_shape_of(im, y), shape))
    return UNSUPPORTED(im, "extents that the graph cannot say");
  if (!sfi_onnx_result(im, 0, y)) return false;
  if (sfi_onnx_output(im, 0)) sfi_onnx_output(im, 0)->type = type;
  return true;
}

bool sfi_import_reshape(importer *im) {
  const sfi_shape *from = &im->in[0]->shape;
  sfi_shape shape = {0};
  sfi_poly have, want = sfi_const(1);
  int64_t allow_zero;
  int32_t rest = -1;
  if (!sfi_onnx_int(im, "allowzero", 0, &allow_zero)) return false;
  if (!sfi_onnx_list(im, 1, SF_MAX_RANK, shape.dims, &shape.rank)) return false;
  for (int32_t i = 0; i < shape.rank; i++) {
    if (sfi_is(shape.dims[i], 0) && !allow_zero) {
      if (i >= from->rank) return INVALID(im, "extent 0 at dimension %d, which the operand has not", i);
      shape.dims[i] = from->dims[i];
    }
    if (sfi_is(shape.dims[i], -1)) {
      if (rest >= 0) return INVALID(im, "a second extent of -1");
      rest = i;
    } else if (shape.dims[i].c[0] < 0 || !sfi_poly_mul(want, shape.dims[i], &want)) {
      return INVALID(im, "an extent below 0, or too many elements");
    }
  }
  if (rest >= 0 && (!sfi_shape_numel(from, &have) || !sfi_poly_div(have, want, &shape.dims[rest]))) {
    return INVALID(im, "no whole extent remains for -1");
  }
  return reshape_to(im, &shape);
}

bool sfi_import_flatten(importer *im) {
  const sfi_shape *from = &im->in[0]->shape;
  sfi_shape shape = {.rank = 2, .dims = {sfi_const(1), sfi_const(1)}};
  int64_t axis;
  if (!sfi_onnx_int(im, "axis", 1, &axis)) return false;
  if (axis < -from->rank || axis > from->rank) return INVALID(im, "axis %lld is outside of rank %d", (long long)axis, from->rank);
  if (axis < 0) axis += from->rank;
  for (int32_t i = 0; i < from->rank; i++) {
    if (!sfi_poly_mul(shape.dims[i >= axis], from->dims[i], &shape.dims[i >= axis])) return UNSUPPORTED(im, "too many elements");
  }
  return reshape_to(im, &shape);
}

/* New extents by axes: *new* ones of extent 1, or such ones left out. The elements stay, so that a promise to expand may stay too. */
static bool change_axes(importer *im, const sfi_shape *shape, const sfi_shape *here, const int64_t *dims) {
  const onnx_value *v = im->in[0];
  onnx_value *out = sfi_onnx_output(im, 0);
  if (v->kind == VALUE_STATIC) {
    onnx_value made = *v;
    made.value = SF_NO_VALUE;
    made.shape = *shape;
    memcpy(made.dims, dims, sizeof made.dims);
    return sfi_onnx_same(im, 0, &made);
  }
  sf_value x;
  if (!sfi_onnx_operand(im, 0, false, &x) || !sfi_onnx_result_as(im, 0, sfi_onnx_reshaped(im, x, here), shape)) return false;
  if (out) out->type = v->type;
  return true;
}

/* The extents that operand 0 has here, not in the model. */
static void shape_here(importer *im, sfi_shape *out) {
  const onnx_value *v = im->in[0];
  *out = v->shape;
  for (int32_t i = 0; i < out->rank; i++)
    out->dims[i] = v->kind == VALUE_STATIC ? sfi_const(v->dims[i]) : sfi_onnx_shape_of(im, v->value)->dims[i];
}

bool sfi_import_unsqueeze(importer *im) {
  sfi_shape from = im->in[0]->shape, here, shape = {0}, shape_then = {0};
  int64_t axes[SF_MAX_RANK], dims[SF_MAX_RANK] = {0};
  int32_t count, axis, at = 0;
  bool added[SF_MAX_RANK] = {false};
  if (!sfi_onnx_numbers(im, 1, SF_MAX_RANK, axes, &count)) return false;
  if (from.rank + count > SF_MAX_RANK) return UNSUPPORTED(im, "more than %d dimensions", SF_MAX_RANK);
  shape.rank = shape_then.rank = from.rank + count;
  for (int32_t i = 0; i < count; i++) {
    if (!sfi_onnx_axis(im, axes[i], shape.rank, &axis)) return false;
    if (added[axis]) return INVALID(im, "axis %d twice", axis);
    added[axis] = true;
  }
  shape_here(im, &here);
  for (int32_t i = 0; i < shape.rank; i++) {
    shape.dims[i] = added[i] ? sfi_const(1) : from.dims[at];
    shape_then.dims[i] = added[i] ? sfi_const(1) : here.dims[at];
    dims[i] = shape_then.dims[i].c[0];
    at += !added[i];
  }
  return change_axes(im, &shape, &shape_then, dims);
}

bool sfi_import_squeeze(importer *im) {
  sfi_shape from = im->in[0]->shape, here, shape = {0}, shape_then = {0};
  int64_t axes[SF_MAX_RANK], dims[SF_MAX_RANK] = {0};
  int32_t count = -1, axis;
  bool dropped[SF_MAX_RANK] = {false};
  if (sfi_onnx_given(im, 1) && !sfi_onnx_numbers(im, 1, SF_MAX_RANK, axes, &count)) return false;
  for (int32_t i = 0; i < count; i++) {
    if (!sfi_onnx_axis(im, axes[i], from.rank, &axis)) return false;
    if (!sfi_is(from.dims[axis], 1)) return INVALID(im, "the extent of axis %d is not 1", axis);
    dropped[axis] = true;
  }
  shape_here(im, &here);
  for (int32_t i = 0; i < from.rank; i++) {
    if (count < 0 ? sfi_is(from.dims[i], 1) : dropped[i]) continue;
    shape.dims[shape.rank] = from.dims[i];
    shape_then.dims[shape.rank] = here.dims[i];
    dims[shape.rank++] = here.dims[i].c[0];
  }
  shape_then.rank = shape.rank;
  return change_axes(im, &shape, &shape_then, dims);
}

/* A promise: what the operand has here stays, with leading dimensions of 1. */
bool sfi_import_expand(importer *im) {
  sfi_shape wanted = {0}, shape, here, shape_then = {0};
  int64_t dims[SF_MAX_RANK] = {0};
  if (!sfi_onnx_list(im, 1, SF_MAX_RANK, wanted.dims, &wanted.rank)) return false;
  for (int32_t i = 0; i < wanted.rank; i++) {
    if (wanted.dims[i].c[0] < 0) return INVALID(im, "an extent below 0");
  }
  if (!sfi_broadcast(&im->in[0]->shape, &wanted, &shape)) return INVALID(im, "the shapes do not broadcast");
  shape_here(im, &here);
  shape_then.rank = shape.rank;
  for (int32_t i = 0; i < shape.rank; i++) {
    int32_t at = i - (shape.rank - here.rank);
    shape_then.dims[i] = at < 0 ? sfi_const(1) : here.dims[at];
    dims[i] = shape_then.dims[i].c[0];
  }
  return change_axes(im, &shape, &shape_then, dims);
}
