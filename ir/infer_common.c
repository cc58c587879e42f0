/* What the inference functions share: messages, axes, flags, broadcasting, the bound on shapes. */
#include "context.h"
#include "infer.h"

sf_status sfi_infer_fail(const sf_graph *graph, const sfi_node *node, sfi_diag *diag, sf_status status, const char *format, ...) {
  const char *op = sfi_op_of(node->op)->text;
  bool leaf = node->n_inputs == 0;
  sfi_text text = {.allocator = &graph->context->allocator};
  va_list arguments;
  va_start(arguments, format);
  sfi_text_vprintf(&text, format, arguments);
  va_end(arguments);
  sfi_text_add(&text, leaf ? " (shape " : " (operands ", leaf ? 8 : 11);
  if (leaf) sfi_shape_print(&text, &node->shape, graph->symbol);
  for (int32_t i = 0; i < node->n_inputs; i++) {
    if (i > 0) sfi_text_add(&text, ", ", 2);
    sfi_shape_print(&text, sfi_operand_shape(graph, node, i), graph->symbol);
  }
  sfi_text_add(&text, ")", 1);
  if (text.failed)
    sfi_fail_memory(diag);
  else
    sfi_fail(diag, status, &node->place, leaf && node->name ? node->name : op, "%s: %s", op, text.data);
  sfi_text_deinit(&text);
  return diag->error.status;
}

sf_status sfi_infer_axis(const sf_graph *graph, const sfi_node *node, sfi_diag *diag, int64_t axis, int32_t rank, int32_t *out) {
  if (axis < -rank || axis >= rank) {
    return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "axis %lld is outside rank %d", (long long)axis, rank);
  }
  *out = (int32_t)(axis < 0 ? axis + rank : axis);
  return SF_OK;
}

sf_status sfi_infer_flag(const sf_graph *graph, const sfi_node *node, sfi_diag *diag, sf_attr_id id, bool *out) {
  int64_t value = sfi_attr_int(node, id);
  if (value != 0 && value != 1) {
    return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "attribute '%s' is %lld, not 0 or 1",
                          sfi_attr_info_of(id)->text, (long long)value);
  }
  *out = value == 1;
  return SF_OK;
}

bool sfi_broadcast(const sfi_shape *a, const sfi_shape *b, sfi_shape *out) {
  sfi_shape shape = {.rank = a->rank > b->rank ? a->rank : b->rank};
  for (int32_t i = 1; i <= shape.rank; i++) {
    sfi_poly x = i <= a->rank ? a->dims[a->rank - i] : sfi_const(1);
    sfi_poly y = i <= b->rank ? b->dims[b->rank - i] : sfi_const(1);
    if (!sfi_poly_equal(x, y) && !sfi_is(x, 1) && !sfi_is(y, 1)) return false;
    shape.dims[shape.rank - i] = sfi_is(x, 1) ? y : x;
  }
  *out = shape;
  return true;
}

bool sfi_shape_fits(const sfi_shape *shape) {
  if (shape->rank < 0 || shape->rank > SF_MAX_RANK) return false;
  sfi_poly product = sfi_const(1);
  for (int32_t i = 0; i < shape->rank; i++) {
    sfi_poly extent = shape->dims[i];
    int64_t at_one;
    if (extent.c[0] < 0 || extent.c[1] < 0 || extent.c[2] < 0) return false;
    if (!sfi_is(extent, 0) && !sfi_poly_mul(product, extent, &product)) return false;
    if (!sfi_poly_eval(product, 1, &at_one) || at_one > SFI_ELEMENTS_MAX) return false;
  }
  return true;
}
