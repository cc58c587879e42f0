/* Shape inference: one function for each name in the infer column of ops.def, and what they share. Each reads the node's
 * operation, operands and attributes (all already of the right number and kind), and sets its shape and dtype. Their rules
 * are those of ONNX unless said otherwise in the file. */
#ifndef SFI_INFER_H
#define SFI_INFER_H

#include "graph.h"

#define SF_OP(id, value, text, min, max, attrs, infer, flags, doc)                                                                 \
  sf_status sfi_infer_##infer(const sf_graph *graph, sfi_node *node, sfi_diag *diag);
#include <sparseflow/ops.def>
#undef SF_OP

/* Most elements of any value, a symbolic extent counted as 1: far above what fits a machine, far below what overflows. */
#define SFI_ELEMENTS_MAX (INT64_C(1) << 40)
/* Largest number in a window's attributes. */
#define SFI_WINDOW_MAX INT32_MAX
enum { SFI_PORTS_MAX = 4096 }; /* inputs of a graph, and outputs */

/* "matmul: the message (operands [2,3], [4,5])", at the node's place. */
sf_status sfi_infer_fail(const sf_graph *graph, const sfi_node *node, sfi_diag *diag, sf_status status, const char *format, ...)
    SFI_PRINTF(5, 6);
static inline const sfi_shape *sfi_operand_shape(const sf_graph *graph, const sfi_node *node, int32_t i) {
  return &graph->nodes[node->inputs[i]].shape;
}
/* The dimension that `axis` names, negative counted from the last. */
sf_status sfi_infer_axis(const sf_graph *graph, const sfi_node *node, sfi_diag *diag, int64_t axis, int32_t rank, int32_t *out);
/* An attribute that is 0 or 1. */
sf_status sfi_infer_flag(const sf_graph *graph, const sfi_node *node, sfi_diag *diag, sf_attr_id id, bool *out);
/* The shape that two broadcast to. NumPy's rule; a symbolic extent goes with 1 or an equal one only. False: they do not. */
bool sfi_broadcast(const sfi_shape *a, const sfi_shape *b, sfi_shape *out);
/* Are the shape's extents within what a value may have? A 0 counts as 1, so that strides are bounded too. */
bool sfi_shape_fits(const sfi_shape *shape);

/* All rules of one node that would be number `index` of the graph; sets its shape and dtype, except for leaves, whose own are
 * checked. Does not look at names. */
sf_status sfi_check_node(const sf_graph *graph, sfi_node *node, sf_value index, sfi_diag *diag);

#endif
