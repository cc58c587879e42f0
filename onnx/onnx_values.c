/* Names, errors, attributes, operands and results of the node at work. */
#include "onnx_import.h"

#include "text_names.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- errors ------------------------------------------------------------------------------------------------------- */

/* "node 12 "/layer/Conv" (Conv): message", at the node's number as the line. */
bool sfi_onnx_fail(importer *im, sf_status status, const char *format, ...) {
  char message[400], where[200] = "";
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  if (im->node) {
    const char *label = im->node->name;
    if (!label[0] && im->node->outputs.count) label = ONNX_AT(im->node->outputs, const char *, 0);
    snprintf(where, sizeof where, "node %zu \"%.100s\" (%.60s): ", im->number, label, im->node->op_type);
  }
  sfi_place place = {.file = im->file, .line = (int32_t)sfi_min((int64_t)im->number, INT32_MAX)};
  sfi_fail(&im->diag, status, &place, im->node ? im->node->op_type : NULL, "%s%s", where, message);
  return false;
}

bool sfi_onnx_fail_memory(importer *im) {
  sfi_fail_memory(&im->diag);
  return false;
}

/* ---- names -------------------------------------------------------------------------------------------------------- */

/* The slot of a name: where it stands or may be put. */
static onnx_value *slot_of(importer *im, const char *name) {
  sfi_digest digest = sfi_digest_of(name, strlen(name));
  uint64_t hash;
  memcpy(&hash, digest.bytes, sizeof hash);
  for (size_t i = hash & (im->slots - 1);; i = (i + 1) & (im->slots - 1)) {
    if (!im->values[i].name || strcmp(im->values[i].name, name) == 0) return &im->values[i];
  }
}

onnx_value *sfi_onnx_find(importer *im, const char *name) {
  onnx_value *slot = slot_of(im, name);
  return slot->name ? slot : NULL;
}

onnx_value *sfi_onnx_define(importer *im, const char *name) {
  onnx_value *slot = slot_of(im, name);
  if (slot->name) {
    INVALID(im, "a second value named \"%s\"", name);
    return NULL;
  }
  *slot = (onnx_value){.name = name, .value = SF_NO_VALUE};
  return slot;
}

/* ---- attributes --------------------------------------------------------------------------------------------------- */

const onnx_attribute *sfi_onnx_attribute(importer *im, const char *name) {
  for (size_t i = 0; i < im->node->attributes.count; i++) {
    const onnx_attribute *attribute = &ONNX_AT(im->node->attributes, onnx_attribute, i);
    if (strcmp(attribute->name, name) == 0) return attribute;
  }
  return NULL;
}

static bool wrong_type(importer *im, const char *name, const char *wanted) {
  return INVALID(im, "attribute '%s' is not %s", name, wanted);
}

bool sfi_onnx_int(importer *im, const char *name, int64_t otherwise, int64_t *out) {
  const onnx_attribute *a = sfi_onnx_attribute(im, name);
  if (a && a->type != ONNX_ATTRIBUTE_INT) return wrong_type(im, name, "an integer");
  *out = a ? a->i : otherwise;
  return true;
}

bool sfi_onnx_float(importer *im, const char *name, double otherwise, double *out) {
  const onnx_attribute *a = sfi_onnx_attribute(im, name);
  if (a && a->type != ONNX_ATTRIBUTE_FLOAT) return wrong_type(im, name, "a real number");
  *out = a ? (double)a->f : otherwise;
  return true;
}

bool sfi_onnx_text(importer *im, const char *name, const char *otherwise, const char **out) {
  const onnx_attribute *a = sfi_onnx_attribute(im, name);
  if (a && a->type != ONNX_ATTRIBUTE_STRING) return wrong_type(im, name, "a string");
  *out = a ? a->s : otherwise;
  return true;
}

bool sfi_onnx_ints(importer *im, const char *name, int32_t room, int64_t *out, int32_t *out_count) {
  const onnx_attribute *a = sfi_onnx_attribute(im, name);
  *out_count = -1;
  if (!a) return true;
  if (a->type != ONNX_ATTRIBUTE_INTS) return wrong_type(im, name, "a list of integers");
  if (a->ints.count > (size_t)room) return UNSUPPORTED(im, "attribute '%s' has %zu entries", name, a->ints.count);
  *out_count = (int32_t)a->ints.count;
  for (int32_t i = 0; i < *out_count; i++) out[i] = ONNX_AT(a->ints, int64_t, i);
  return true;
}

bool sfi_onnx_axis(importer *im, int64_t axis, int32_t rank, int32_t *out) {
  if (axis < -rank || axis >= rank) return INVALID(im, "axis %lld is outside of rank %d", (long long)axis, rank);
  *out = (int32_t)(axis < 0 ? axis + rank : axis);
  return true;
}

/* ---- operands ----------------------------------------------------------------------------------------------------- */

bool sfi_onnx_all_static(const importer *im) {
  for (int32_t i = 0; i < im->n_in; i++) {
    if (im->in[i] && im->in[i]->kind != VALUE_STATIC) return false;
  }
  return true;
}

/* Puts a static value into the graph: a few elements as a constant, more as a weight under its name. */
static bool put_static(importer *im, onnx_value *v) {
  if (v->value != SF_NO_VALUE) return true;
  if (v->polys) return UNSUPPORTED(im, "operand \"%s\" computes with the symbolic dimension as a number", v->name);
  sfi_place place = {.file = im->file, .line = (int32_t)sfi_min((int64_t)im->number, INT32_MAX)};
  sfi_shape shape = {.rank = v->shape.rank};
  for (int32_t i = 0; i < shape.rank; i++) shape.dims[i] = sfi_const(v->dims[i]);
  const void *data = v->floats ? (const void *)v->floats : v->ints;
  sf_dtype dtype = v->floats ? SF_F32 : SF_I64;
  if (v->type == ONNX_BOOL) {
    float *floats = sfi_arena_alloc(&im->graph->arena, (size_t)v->count * sizeof *floats);
    if (!floats) return sfi_onnx_fail_memory(im);
    for (int64_t i = 0; i < v->count; i++) floats[i] = (float)v->ints[i];
    data = floats;
    dtype = SF_F32;
  }
  bool constant = v->count <= 16;
  /* The data is the graph's own. */
  v->value = sfi_graph_add_leaf(im->graph, constant ? SF_OP_CONSTANT : SF_OP_WEIGHT, constant ? NULL : v->name, dtype, &shape, data,
                                true, &place);
  v->value = sfi_onnx_first(im, v->value, &v->shape);
  if (v->value != SF_NO_VALUE) return true;
  return sfi_onnx_fail(im, im->graph->diag.error.status, "operand \"%s\": %s", v->name, im->graph->diag.error.message);
}

/* `x`, whose extents in the graph lag behind those of `v`, with all of them. */
static bool expand(importer *im, const onnx_value *v, sf_value *x) {
  const sfi_shape *here = sfi_onnx_shape_of(im, *x);
  int64_t dims[SF_MAX_RANK];
  for (int32_t i = 0; i < v->shape.rank; i++) {
    bool same = sfi_poly_equal(here->dims[i], v->shape.dims[i]);
    if (!same && !sfi_is_const(v->shape.dims[i])) {
      return UNSUPPORTED(im, "operand \"%s\" is expanded along the symbolic dimension, which this operator would have to see",
                         v->name);
    }
    dims[i] = same ? 0 : v->shape.dims[i].c[0];
  }
  *x = sfi_onnx_build(im, SF_OP_EXPAND, 1, x, 1, &(sf_attr){.id = SF_ATTR_SHAPE, .count = v->shape.rank, .ints = dims});
  return *x != SF_NO_VALUE || sfi_onnx_fail(im, im->graph->diag.error.status, "%s", im->graph->diag.error.message);
}

bool sfi_onnx_operand(importer *im, int32_t i, bool whole, sf_value *out) {
  onnx_value *v = im->in[i];
  if (v->kind == VALUE_STATIC && !put_static(im, v)) return false;
  *out = v->value;
  if (whole && !sfi_shape_equal(&v->shape, sfi_onnx_shape_of(im, v->value))) return expand(im, v, out);
  return true;
}

bool sfi_onnx_list(importer *im, int32_t i, int32_t room, sfi_poly *out, int32_t *out_count) {
  const onnx_value *v = im->in[i];
  if (v->kind != VALUE_STATIC) return UNSUPPORTED(im, "operand \"%s\" is not known at import", v->name);
  if (sfi_onnx_is_float(v->type)) return INVALID(im, "operand \"%s\" holds no integers", v->name);
  if (v->shape.rank > 1 || !sfi_onnx_whole(v)) return INVALID(im, "operand \"%s\" is no list of integers", v->name);
  if (v->count > room) return UNSUPPORTED(im, "operand \"%s\" has %lld entries", v->name, (long long)v->count);
  *out_count = (int32_t)v->count;
  for (int32_t k = 0; k < *out_count; k++) out[k] = sfi_onnx_integer(v, k);
  return true;
}

bool sfi_onnx_numbers(importer *im, int32_t i, int32_t room, int64_t *out, int32_t *out_count) {
  sfi_poly list[64];
  if (!sfi_onnx_list(im, i, room < 64 ? room : 64, list, out_count)) return false;
  for (int32_t k = 0; k < *out_count; k++) {
    if (!sfi_is_const(list[k])) return UNSUPPORTED(im, "operand \"%s\" depends on the symbolic dimension", im->in[i]->name);
    out[k] = list[k].c[0];
  }
  return true;
}

bool sfi_onnx_number(importer *im, int32_t i, double *out) {
  const onnx_value *v = im->in[i];
  if (v->kind != VALUE_STATIC || v->count != 1 || v->polys) {
    return UNSUPPORTED(im, "operand \"%s\" is not one number known at import", v->name);
  }
  *out = sfi_onnx_real(v, 0);
  return true;
}

bool sfi_onnx_axes(importer *im, int32_t i, const char *name, int32_t room, int64_t *out, int32_t *out_count) {
  if (sfi_onnx_given(im, i)) return sfi_onnx_numbers(im, i, room, out, out_count);
  return sfi_onnx_ints(im, name, room, out, out_count);
}

/* ---- results ------------------------------------------------------------------------------------------------------ */

onnx_value *sfi_onnx_output(importer *im, int32_t i) {
  const char *name = i < im->n_out ? ONNX_AT(im->node->outputs, const char *, i) : "";
  return name[0] ? sfi_onnx_find(im, name) : NULL;
}

bool sfi_onnx_same(importer *im, int32_t i, const onnx_value *source) {
  onnx_value *out = sfi_onnx_output(im, i);
  if (!out) return true;
  const char *name = out->name;
  *out = *source;
  out->name = name;
  return true;
}

/* The text form's names have letters, digits, '_' and '.': the rest becomes '_', as far as that helps to find a node again. */
static void name_value(importer *im, sf_value value, const char *name) {
  sfi_node *node = &im->graph->nodes[value];
  if (node->name || value + 1 != (sf_value)im->graph->n_nodes) return;
  while (*name && !sfi_is_name(name, 1)) name++;
  char *own = sfi_arena_strndup(&im->graph->arena, name, strlen(name));
  if (!own || !own[0] || (own[0] >= '0' && own[0] <= '9')) return; /* a name is no must */
  for (char *c = own; *c; c++) {
    if (!sfi_is_name(c, 1)) *c = '_';
  }
  node->name = own;
}

bool sfi_onnx_result_as(importer *im, int32_t i, sf_value value, const sfi_shape *shape) {
  if (value == SF_NO_VALUE) { /* this node's error, or the graph's */
    const sf_error *error = &im->graph->diag.error;
    return im->diag.error.status == SF_OK ? sfi_onnx_fail(im, error->status, "%s", error->message) : false;
  }
  onnx_value *out = sfi_onnx_output(im, i);
  if (!out) return true;
  out->kind = VALUE_GRAPH;
  out->type = ONNX_FLOAT;
  out->value = value;
  out->shape = *shape;
  name_value(im, value, out->name);
  return true;
}

bool sfi_onnx_result(importer *im, int32_t i, sf_value value) {
  sfi_shape shape = {0};
  if (value != SF_NO_VALUE) shape = *sfi_onnx_shape_of(im, value);
  return sfi_onnx_result_as(im, i, value, &shape);
}

/* ---- building ----------------------------------------------------------------------------------------------------- */

sf_value sfi_onnx_build(importer *im, sf_op op, int32_t n, const sf_value *operands, int32_t n_attrs, const sf_attr *attrs) {
  for (int32_t i = 0; i < n; i++) {
    if (operands[i] == SF_NO_VALUE) return SF_NO_VALUE; /* its error is kept */
  }
  sfi_place place = {.file = im->file, .line = (int32_t)sfi_min((int64_t)im->number, INT32_MAX)};
  return sfi_graph_add(im->graph, op, NULL, n, operands, n_attrs, attrs, &place);
}

sf_value sfi_onnx_unary(importer *im, sf_op op, sf_value x) {
  return sfi_onnx_build(im, op, 1, &x, 0, NULL);
}

sf_value sfi_onnx_binary(importer *im, sf_op op, sf_value x, sf_value y) {
  return sfi_onnx_build(im, op, 2, (sf_value[]){x, y}, 0, NULL);
}

sf_value sfi_onnx_scalar(importer *im, double value) {
  float number = (float)value;
  return sfi_graph_add_leaf(im->graph, SF_OP_CONSTANT, NULL, SF_F32, &(sfi_shape){0}, &number, false, NULL);
}

sf_value sfi_onnx_transposed(importer *im, sf_value x, int32_t rank, const int64_t *perm) {
  if (x == SF_NO_VALUE) return x;
  return sfi_onnx_build(im, SF_OP_TRANSPOSE, 1, &x, 1, &(sf_attr){.id = SF_ATTR_PERM, .count = rank, .ints = perm});
}

sf_value sfi_onnx_first(importer *im, sf_value x, const sfi_shape *shape) {
  if (x == SF_NO_VALUE) return x;
  const sfi_shape *here = sfi_onnx_shape_of(im, x);
  int64_t starts[SF_MAX_RANK] = {0}, ends[SF_MAX_RANK], symbolic[SF_MAX_RANK];
  int32_t rank = here->rank, count = 0;
  for (int32_t i = 0; i < rank; i++) {
    ends[i] = INT64_MAX;
    if (!sfi_is_const(shape->dims[i]) && sfi_is_const(here->dims[i]) && !sfi_is(here->dims[i], 1)) symbolic[count++] = i;
  }
  if (count == 0) return x;
  return sfi_onnx_build(im, SF_OP_SLICE, 1, &x, 3,
                        (sf_attr[]){{.id = SF_ATTR_STARTS, .count = rank, .ints = starts},
                                    {.id = SF_ATTR_ENDS, .count = rank, .ints = ends},
                                    {.id = SF_ATTR_SYMBOLIC, .count = count, .ints = symbolic}});
}

/* Is dimension i of the new shape dimension i of x, with all before it equal too? Then 0 names it, whatever it depends on. */
sf_value sfi_onnx_reshaped(importer *im, sf_value x, const sfi_shape *shape) {
  if (x == SF_NO_VALUE) return x;
  const sfi_shape *from = sfi_onnx_shape_of(im, x);
  int64_t dims[SF_MAX_RANK];
  int32_t rest = -1;
  if (sfi_shape_equal(from, shape)) return x;
  for (int32_t i = 0; i < shape->rank; i++) {
    if (i < from->rank && sfi_poly_equal(shape->dims[i], from->dims[i])) {
      dims[i] = 0;
    } else if (sfi_is_const(shape->dims[i]) && shape->dims[i].c[0] > 0) {
      dims[i] = shape->dims[i].c[0];
    } else if (rest < 0) {
      dims[i] = -1;
      rest = i;
    } else {
      UNSUPPORTED(im, "two new extents depend on the symbolic dimension");
      return SF_NO_VALUE;
    }
  }
  return sfi_onnx_build(im, SF_OP_RESHAPE, 1, &x, 1, &(sf_attr){.id = SF_ATTR_SHAPE, .count = shape->rank, .ints = dims});
}
