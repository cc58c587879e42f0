/* Shapes of leaves and of elementwise operations.
 * Leaf: an input's extents are constants or the symbolic dimension itself, a weight's and a constant's are constants.
 * Broadcast: NumPy's rule; a symbolic extent goes with 1 or an equal extent, never with another constant. */
#include "infer.h"

sf_status sfi_infer_leaf(const sf_graph *graph, sfi_node *node, sfi_diag *diag) {
  for (int32_t i = 0; i < node->shape.rank; i++) {
    sfi_poly extent = node->shape.dims[i];
    bool symbolic = node->op == SF_OP_INPUT && extent.c[0] == 0 && extent.c[1] == 1 && extent.c[2] == 0;
    if (symbolic || (sfi_is_const(extent) && extent.c[0] >= 0)) continue;
    return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH,
                          node->op == SF_OP_INPUT ? "extent %d is neither a number >= 0 nor the symbolic dimension"
                                                  : "extent %d is not a number >= 0",
                          i);
  }
  return SF_OK;
}

sf_status sfi_infer_same(const sf_graph *graph, sfi_node *node, sfi_diag *diag) {
  (void)diag;
  node->shape = *sfi_operand_shape(graph, node, 0);
  return SF_OK;
}

sf_status sfi_infer_broadcast(const sf_graph *graph, sfi_node *node, sfi_diag *diag) {
  node->shape = *sfi_operand_shape(graph, node, 0);
  for (int32_t i = 1; i < node->n_inputs; i++) {
    if (!sfi_broadcast(&node->shape, sfi_operand_shape(graph, node, i), &node->shape)) {
      return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "the shapes do not broadcast");
    }
  }
  return SF_OK;
}

sf_status sfi_infer_cast(const sf_graph *graph, sfi_node *node, sfi_diag *diag) {
  (void)diag;
  node->shape = *sfi_operand_shape(graph, node, 0);
  node->dtype = SF_F32;
  return SF_OK;
}
