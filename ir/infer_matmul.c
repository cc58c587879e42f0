/* Shape of a matrix product: a[.., m, k] b[.., k, n] -> [.., m, n], ranks of 2 and more, leading dimensions broadcast. Any
 * extent may be symbolic; the two k must be the same polynomial. */
#include "infer.h"

sf_status sfi_infer_matmul(const sf_graph *graph, sfi_node *node, sfi_diag *diag) {
  sfi_shape a = *sfi_operand_shape(graph, node, 0), b = *sfi_operand_shape(graph, node, 1);
  bool transpose_a, transpose_b;
  sf_status st;
  if ((st = sfi_infer_flag(graph, node, diag, SF_ATTR_TRANSPOSE_A, &transpose_a)) != SF_OK) return st;
  if ((st = sfi_infer_flag(graph, node, diag, SF_ATTR_TRANSPOSE_B, &transpose_b)) != SF_OK) return st;
  if (a.rank < 2 || b.rank < 2) {
    return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "operands need two dimensions or more");
  }
  sfi_poly m = a.dims[a.rank - (transpose_a ? 1 : 2)], k = a.dims[a.rank - (transpose_a ? 2 : 1)];
  sfi_poly depth = b.dims[b.rank - (transpose_b ? 1 : 2)], n = b.dims[b.rank - (transpose_b ? 2 : 1)];
  if (!sfi_poly_equal(k, depth)) {
    return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "the inner extents differ%s",
                          transpose_a || transpose_b ? " after transposition" : "");
  }
  a.rank -= 2;
  b.rank -= 2;
  if (!sfi_broadcast(&a, &b, &node->shape)) {
    return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "the leading dimensions do not broadcast");
  }
  node->shape.dims[node->shape.rank++] = m;
  node->shape.dims[node->shape.rank++] = n;
  return SF_OK;
}
