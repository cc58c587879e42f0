/* See run_limits.h. */
#include "run_limits.h"

#include "attention.h"

/* Least symbol at which the extent is `wanted` or more. Extents do not fall with it. */
static int64_t least_symbol(sfi_poly extent, int64_t wanted) {
  int64_t low = 0, high = INT64_C(1) << 40, value;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (sfi_poly_eval(extent, middle, &value) && value < wanted)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static void raise(sfi_symbol_limits *limits, int64_t least, sf_value node) {
  if (least <= limits->least) return;
  limits->least = least;
  limits->at_least = node;
}

static void lower(sfi_symbol_limits *limits, int64_t most, sf_value node) {
  if (most >= limits->most) return;
  limits->most = most;
  limits->at_most = node;
}

static void slice_limits(const sf_graph *graph, sf_value v, sfi_symbol_limits *limits) {
  const sfi_node *node = &graph->nodes[v];
  const sfi_shape *x = &graph->nodes[node->inputs[0]].shape;
  for (int32_t d = 0; d < x->rank; d++) {
    const int64_t start = sfi_attr_of(node, SF_ATTR_STARTS)->ints[d], end = sfi_attr_of(node, SF_ATTR_ENDS)->ints[d];
    const bool is_const = sfi_is_const(x->dims[d]);
    if (is_const && !sfi_is_const(node->shape.dims[d])) lower(limits, x->dims[d].c[0], v);
    if (is_const || !sfi_is_const(node->shape.dims[d])) continue;
    raise(limits, least_symbol(x->dims[d], start < 0 ? -start : end), v);
  }
}

/* As many as `own` must have room in `all`; where both are symbolic, only the position says. */
static void room_limits(sfi_poly own, sfi_poly all, sf_value v, sfi_symbol_limits *limits) {
  if (sfi_is_const(own) && !sfi_is_const(all)) raise(limits, least_symbol(all, own.c[0]), v);
  if (!sfi_is_const(own) && sfi_is_const(all)) lower(limits, least_symbol(own, all.c[0] + 1) - 1, v);
}

static int32_t axis_of(const sfi_node *node, const sfi_shape *shape) {
  const int64_t axis = sfi_attr_int(node, SF_ATTR_AXIS);
  return (int32_t)(axis < 0 ? axis + shape->rank : axis);
}

sfi_symbol_limits sfi_symbol_limits_of(const sf_graph *graph) {
  sfi_symbol_limits limits = {0, INT64_MAX, SF_NO_VALUE, SF_NO_VALUE};
  for (size_t v = 0; v < graph->n_nodes; v++) {
    const sfi_node *node = &graph->nodes[v];
    sfi_attention attention;
    if (node->op == SF_OP_SLICE) slice_limits(graph, (sf_value)v, &limits);
    if (node->op == SF_OP_APPEND) {
      const int32_t axis = axis_of(node, &node->shape);
      room_limits(graph->nodes[node->inputs[1]].shape.dims[axis], node->shape.dims[axis], (sf_value)v, &limits);
    }
    if (node->op == SF_OP_ATTENTION && !sfi_attention_read(graph, node, &attention) && attention.position)
      room_limits(attention.rows, attention.keys, (sf_value)v, &limits);
  }
  return limits;
}

/* So many of `most` stand behind the position. */
static bool position_limits(sf_value leaf, sfi_poly most, sfi_poly behind, int64_t symbol, sfi_index_limits *out) {
  int64_t all = 0, own = 0;
  *out = (sfi_index_limits){leaf, 0, -1}; /* extents that are too large are refused elsewhere */
  if (sfi_poly_eval(most, symbol, &all) && sfi_poly_eval(behind, symbol, &own)) out->most = all - own;
  return true;
}

bool sfi_index_limits_of(const sf_graph *graph, const sfi_node *node, int32_t k, int64_t symbol, sfi_index_limits *out) {
  sfi_attention attention;
  if (node->op == SF_OP_ATTENTION && k >= 3 && !sfi_attention_read(graph, node, &attention) && attention.position == k)
    return position_limits(node->inputs[k], attention.keys, attention.rows, symbol, out);
  if (node->op == SF_OP_APPEND && k == 2) {
    const sfi_shape *cache = &graph->nodes[node->inputs[0]].shape, *more = &graph->nodes[node->inputs[1]].shape;
    const int32_t axis = axis_of(node, cache);
    return position_limits(node->inputs[k], cache->dims[axis], more->dims[axis], symbol, out);
  }
  if (node->op != SF_OP_GATHER || k != 1) return false;
  const sfi_shape *x = &graph->nodes[node->inputs[0]].shape;
  const int64_t extent = x->dims[axis_of(node, x)].c[0];
  *out = (sfi_index_limits){node->inputs[k], -extent, extent - 1};
  while (graph->nodes[out->leaf].n_inputs > 0) out->leaf = graph->nodes[out->leaf].inputs[0]; /* only moved on the way */
  return true;
}

bool sfi_within_count(sf_dtype dtype, const void *data, int64_t count, const sfi_index_limits *limits, int64_t *out_wrong) {
  for (int64_t i = 0; i < count; i++) {
    const int64_t v = sfi_index_at(dtype, data, i);
    if (v >= limits->least && v <= limits->most) continue;
    *out_wrong = v;
    return false;
  }
  return true;
}

bool sfi_within(const sfi_node *leaf, const void *data, const sfi_index_limits *limits, int64_t *out_wrong) {
  return sfi_within_count(leaf->dtype, data, (int64_t)(leaf->bytes / sfi_dtype_of(leaf->dtype)->bytes), limits, out_wrong);
}
