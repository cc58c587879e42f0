/* A mask's two numbers, found by computing with pairs of them what the graph computes with matrices: comparisons, choices and sums of
 * tables that exporters write, cut to the sequence. See triangle.h. */
#include "triangle.h"

enum {
  DEPTH_MOST = 8, /* of operations: what a mask needs, and few enough where operands are shared */
  OPERANDS_MOST = 3
};

/* Of a square table, or many: the numbers on and below its diagonal are one, those above it one. */
static sfi_triangle of_table(const sfi_node *node, sfi_diag *diag) {
  sfi_triangle t = {{false, false}, {0, 0}};
  const int32_t rank = node->shape.rank;
  const int64_t n = rank < 2 ? 0 : node->shape.dims[rank - 1].c[0];
  const bool single = node->bytes == sizeof(float);
  if (node->dtype != SF_F32 || !(single || (n > 1 && n == node->shape.dims[rank - 2].c[0]))) return t;
  const float *data = sfi_node_open(node, diag);
  if (!data) return t;
  t = (sfi_triangle){{true, true}, {data[0], data[single ? 0 : 1]}};
  const int64_t rows = single ? 0 : (int64_t)(node->bytes / sizeof(float)) / n;
  for (int64_t r = 0; r < rows && t.known[0]; r++) {
    const float *row = data + r * n;
    const int64_t own = r % n + 1;
    bool same = true;
    for (int64_t c = 0; c < own; c++) same &= row[c] == t.value[0];
    for (int64_t c = own; c < n; c++) same &= row[c] == t.value[1];
    t.known[0] = t.known[1] = same;
  }
  sfi_node_close(node);
  return t;
}

/* Do the last two dimensions stand as they did, in their upper left corner at least? */
static bool keeps_corner(const sf_graph *graph, const sfi_node *node) {
  const sfi_shape *from = &graph->nodes[node->inputs[0]].shape, *to = &node->shape;
  if (from->rank < 2 || to->rank < 2) return false;
  if (node->op != SF_OP_SLICE) {
    return sfi_poly_equal(from->dims[from->rank - 1], to->dims[to->rank - 1]) &&
           sfi_poly_equal(from->dims[from->rank - 2], to->dims[to->rank - 2]);
  }
  const sfi_attr_value *starts = sfi_attr_of(node, SF_ATTR_STARTS), *steps = sfi_attr_of(node, SF_ATTR_STEPS);
  for (int32_t d = to->rank - 2; d < to->rank; d++)
    if (starts->ints[d] != 0 || (steps->count && steps->ints[d] != 1)) return false;
  return true;
}

static sfi_triangle at_depth(const sfi_pass_env *env, const sf_graph *graph, sf_value value, int32_t depth, sfi_diag *diag) {
  const sfi_node *node = &graph->nodes[value];
  sfi_triangle t = {{false, false}, {0, 0}}, x[OPERANDS_MOST];
  if (sfi_node_is_static(node)) return of_table(node, diag);
  if (depth == DEPTH_MOST || node->n_inputs < 1 || node->n_inputs > OPERANDS_MOST) return t;
  if (node->op == SF_OP_SLICE || node->op == SF_OP_RESHAPE || node->op == SF_OP_EXPAND)
    return keeps_corner(graph, node) ? at_depth(env, graph, node->inputs[0], depth + 1, diag) : t;
  if (!(sfi_op_of(node->op)->flags & SF_OPF_ELEMENTWISE)) return t;
  const sf_tensor pair = {.dtype = SF_F32, .rank = 1, .dims = {2}};
  sf_tensor operands[OPERANDS_MOST], result = pair;
  for (int32_t i = 0; i < node->n_inputs; i++) {
    x[i] = at_depth(env, graph, node->inputs[i], depth + 1, diag);
    operands[i] = pair;
    operands[i].data = x[i].value;
  }
  result.data = t.value;
  env->evaluate(graph, value, operands, &result);
  for (int side = 0; side < 2; side++) {
    const int32_t unread = node->op != SF_OP_WHERE || !x[0].known[side] ? -1 : x[0].value[side] != 0 ? 2 : 1;
    t.known[side] = true;
    for (int32_t i = 0; i < node->n_inputs; i++) t.known[side] &= i == unread || x[i].known[side];
  }
  return t;
}

sfi_triangle sfi_triangle_of(const sfi_pass_env *env, const sf_graph *graph, sf_value value, sfi_diag *diag) {
  return at_depth(env, graph, value, 0, diag);
}
