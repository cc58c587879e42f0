/* Shapes of operations along axes: softmax, normalisations, reductions. Any extent may be symbolic where polynomials are equal.
 * Over no element a sum is 0, a mean NaN, a maximum -inf. */
#include "infer.h"

static sf_status check_eps(const sf_graph *graph, const sfi_node *node, sfi_diag *diag) {
  if (sfi_attr_of(node, SF_ATTR_EPS)->f >= 0) return SF_OK;
  return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "attribute 'eps' is below 0");
}

sf_status sfi_infer_softmax(const sf_graph *graph, sfi_node *node, sfi_diag *diag) {
  int32_t axis;
  node->shape = *sfi_operand_shape(graph, node, 0);
  return sfi_infer_axis(graph, node, diag, sfi_attr_int(node, SF_ATTR_AXIS), node->shape.rank, &axis);
}

/* Scale and bias have exactly the extents that are normalised: those from axis on. */
sf_status sfi_infer_normalize(const sf_graph *graph, sfi_node *node, sfi_diag *diag) {
  int32_t axis;
  sf_status st;
  const sfi_shape *x = sfi_operand_shape(graph, node, 0);
  if ((st = sfi_infer_axis(graph, node, diag, sfi_attr_int(node, SF_ATTR_AXIS), x->rank, &axis)) != SF_OK) return st;
  if ((st = check_eps(graph, node, diag)) != SF_OK) return st;
  sfi_shape normalized = {.rank = x->rank - axis};
  for (int32_t i = 0; i < normalized.rank; i++) normalized.dims[i] = x->dims[axis + i];
  for (int32_t i = 1; i < node->n_inputs; i++) {
    if (!sfi_shape_equal(sfi_operand_shape(graph, node, i), &normalized)) {
      return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "the %s has not the normalised extents",
                            i == 1 ? "scale" : "bias");
    }
  }
  node->shape = *x;
  return SF_OK;
}

sf_status sfi_infer_batch_norm(const sf_graph *graph, sfi_node *node, sfi_diag *diag) {
  static const char *const names[] = {"x", "scale", "bias", "mean", "variance"};
  const sfi_shape *x = sfi_operand_shape(graph, node, 0);
  if (x->rank < 2) return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "x needs two dimensions or more");
  sfi_shape channels = {.rank = 1, .dims = {x->dims[1]}};
  for (int32_t i = 1; i < node->n_inputs; i++) {
    if (!sfi_shape_equal(sfi_operand_shape(graph, node, i), &channels)) {
      return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "the %s has not one entry a channel", names[i]);
    }
  }
  node->shape = *x;
  return check_eps(graph, node, diag);
}

sf_status sfi_infer_reduce(const sf_graph *graph, sfi_node *node, sfi_diag *diag) {
  const sfi_shape *x = sfi_operand_shape(graph, node, 0);
  const sfi_attr_value *axes = sfi_attr_of(node, SF_ATTR_AXES);
  bool keepdims, reduced[SF_MAX_RANK] = {false};
  sf_status st;
  if ((st = sfi_infer_flag(graph, node, diag, SF_ATTR_KEEPDIMS, &keepdims)) != SF_OK) return st;
  if (axes->count == 0) return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "attribute 'axes' is empty");
  for (int32_t i = 0; i < axes->count; i++) {
    int32_t axis;
    if ((st = sfi_infer_axis(graph, node, diag, axes->ints[i], x->rank, &axis)) != SF_OK) return st;
    if (reduced[axis])
      return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "attribute 'axes' names dimension %d twice", axis);
    reduced[axis] = true;
  }
  node->shape = (sfi_shape){0};
  for (int32_t i = 0; i < x->rank; i++) {
    if (!reduced[i])
      node->shape.dims[node->shape.rank++] = x->dims[i];
    else if (keepdims)
      node->shape.dims[node->shape.rank++] = sfi_const(1);
  }
  return SF_OK;
}
