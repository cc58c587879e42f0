/* The public builder: what a host hands over becomes checked arguments of ir/graph.c, or answers about a graph. Places are the
 * graph's name and line 0. A NULL graph is refused quietly, so that a host may check once at the end. */
#include "context.h"
#include "graph.h"

/* ---- values ------------------------------------------------------------------------------------------------------- */

/* Extents as given; a shape that cannot be read has rank -1, which the builder refuses with the operation's name. */
static sfi_shape read_shape(int32_t rank, const int64_t *dims) {
  sfi_shape shape = {.rank = rank > 0 && !dims ? -1 : rank};
  for (int32_t i = 0; i < shape.rank && i < SF_MAX_RANK; i++) {
    shape.dims[i] = dims[i] == SF_DIM_SYMBOLIC ? (sfi_poly){{0, 1, 0}} : sfi_const(dims[i]);
  }
  return shape;
}

sf_value sf_graph_input(sf_graph *graph, const char *name, sf_dtype dtype, int32_t rank, const int64_t *dims) {
  if (!graph) return SF_NO_VALUE;
  sfi_shape shape = read_shape(rank, dims);
  return sfi_graph_add_leaf(graph, SF_OP_INPUT, name, dtype, &shape, NULL, false, NULL);
}

sf_value sf_graph_weight(sf_graph *graph, const char *name, sf_dtype dtype, int32_t rank, const int64_t *dims, const void *data,
                         sf_ownership ownership) {
  if (!graph) return SF_NO_VALUE;
  sfi_shape shape = read_shape(rank, dims);
  return sfi_graph_add_leaf(graph, SF_OP_WEIGHT, name, dtype, &shape, data, ownership == SF_BORROW, NULL);
}

sf_value sf_graph_constant(sf_graph *graph, sf_dtype dtype, int32_t rank, const int64_t *dims, const void *data) {
  if (!graph) return SF_NO_VALUE;
  sfi_shape shape = read_shape(rank, dims);
  return sfi_graph_add_leaf(graph, SF_OP_CONSTANT, NULL, dtype, &shape, data, false, NULL);
}

sf_value sf_graph_op(sf_graph *graph, sf_op op, int32_t n_inputs, const sf_value *inputs, int32_t n_attrs, const sf_attr *attrs) {
  if (!graph) return SF_NO_VALUE;
  return sfi_graph_add(graph, op, NULL, n_inputs, inputs, n_attrs, attrs, NULL);
}

sf_status sf_graph_output(sf_graph *graph, const char *name, sf_value value) {
  if (!graph) return SF_STATUS_INVALID_ARGUMENT;
  return sfi_graph_add_output(graph, name, value, NULL);
}

/* ---- shorthands --------------------------------------------------------------------------------------------------- */

sf_value sf_unary(sf_graph *graph, sf_op op, sf_value x) {
  return sf_graph_op(graph, op, 1, &x, 0, NULL);
}

sf_value sf_binary(sf_graph *graph, sf_op op, sf_value x, sf_value y) {
  return sf_graph_op(graph, op, 2, (const sf_value[]){x, y}, 0, NULL);
}

sf_value sf_matmul(sf_graph *graph, sf_value a, sf_value b, bool transpose_a, bool transpose_b) {
  const sf_attr attrs[] = {{.id = SF_ATTR_TRANSPOSE_A, .i = transpose_a}, {.id = SF_ATTR_TRANSPOSE_B, .i = transpose_b}};
  return sf_graph_op(graph, SF_OP_MATMUL, 2, (const sf_value[]){a, b}, 2, attrs);
}

sf_value sf_conv2d(sf_graph *graph, sf_value x, sf_value w, sf_value bias, const sf_conv2d_options *options) {
  if (!graph || graph->diag.error.status != SF_OK) return SF_NO_VALUE;
  sf_conv2d_options o = {0};
  if (options && (options->struct_size < sizeof o.struct_size || options->struct_size > sizeof o)) {
    const sfi_place place = {graph->name, 0, 0};
    sfi_fail(&graph->diag, SF_STATUS_INVALID_ARGUMENT, &place, "conv2d", "conv2d: struct_size is %zu, at most %zu is known",
             options->struct_size, sizeof o);
    sfi_context_keep_error(graph->context, &graph->diag.error);
    return SF_NO_VALUE;
  }
  if (options) memcpy(&o, options, options->struct_size);
  for (int i = 0; i < 2; i++) {
    if (o.stride[i] == 0) o.stride[i] = 1;
    if (o.dilation[i] == 0) o.dilation[i] = 1;
  }
  const sf_attr attrs[] = {
      {.id = SF_ATTR_STRIDE, .count = 2, .ints = o.stride},
      {.id = SF_ATTR_PAD, .count = 4, .ints = o.pad},
      {.id = SF_ATTR_DILATION, .count = 2, .ints = o.dilation},
      {.id = SF_ATTR_GROUPS, .i = o.groups ? o.groups : 1},
  };
  return sf_graph_op(graph, SF_OP_CONV2D, bias == SF_NO_VALUE ? 2 : 3, (const sf_value[]){x, w, bias}, SFI_COUNT(attrs), attrs);
}

sf_value sf_softmax(sf_graph *graph, sf_value x, int64_t axis) {
  return sf_graph_op(graph, SF_OP_SOFTMAX, 1, &x, 1, &(const sf_attr){.id = SF_ATTR_AXIS, .i = axis});
}

sf_value sf_reshape(sf_graph *graph, sf_value x, int32_t rank, const int64_t *shape) {
  return sf_graph_op(graph, SF_OP_RESHAPE, 1, &x, 1, &(const sf_attr){.id = SF_ATTR_SHAPE, .count = rank, .ints = shape});
}

sf_value sf_transpose(sf_graph *graph, sf_value x, int32_t rank, const int64_t *perm) {
  return sf_graph_op(graph, SF_OP_TRANSPOSE, 1, &x, 1, &(const sf_attr){.id = SF_ATTR_PERM, .count = rank, .ints = perm});
}

/* ---- answers ------------------------------------------------------------------------------------------------------ */

sf_status sf_graph_status(const sf_graph *graph) {
  return graph ? graph->diag.error.status : SF_STATUS_INVALID_ARGUMENT;
}

void sf_graph_error(const sf_graph *graph, sf_error *out_error) {
  if (!out_error) return;
  sfi_diag diag = {0};
  if (!graph) sfi_fail(&diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "the graph is NULL");
  *out_error = graph ? graph->diag.error : diag.error;
}

sf_status sf_graph_value_info(const sf_graph *graph, sf_value value, sf_tensor_info *out_info) {
  if (!graph || !out_info || value < 0 || (size_t)value >= graph->n_nodes) return SF_STATUS_INVALID_ARGUMENT;
  const sfi_node *node = &graph->nodes[value];
  *out_info = (sf_tensor_info){.name = node->name, .dtype = node->dtype, .rank = node->shape.rank};
  for (int32_t i = 0; i < node->shape.rank; i++) {
    out_info->dims[i] = sfi_is_const(node->shape.dims[i]) ? node->shape.dims[i].c[0] : SF_DIM_SYMBOLIC;
  }
  return SF_OK;
}

int32_t sf_graph_value_count(const sf_graph *graph) {
  return graph ? (int32_t)graph->n_nodes : 0;
}

sf_op sf_graph_value_op(const sf_graph *graph, sf_value value) {
  return value >= 0 && value < sf_graph_value_count(graph) ? graph->nodes[value].op : SF_OP_INPUT;
}

static const sfi_node *node_of(const sf_graph *graph, sf_value value) {
  return graph && value >= 0 && (size_t)value < graph->n_nodes ? &graph->nodes[value] : NULL;
}

int32_t sf_graph_operand_count(const sf_graph *graph, sf_value value) {
  const sfi_node *node = node_of(graph, value);
  return node ? node->n_inputs : 0;
}

sf_value sf_graph_operand(const sf_graph *graph, sf_value value, int32_t i) {
  return i >= 0 && i < sf_graph_operand_count(graph, value) ? graph->nodes[value].inputs[i] : SF_NO_VALUE;
}

sf_status sf_graph_value_attr(const sf_graph *graph, sf_value value, sf_attr_id id, sf_attr *out_attr) {
  const sfi_node *node = node_of(graph, value);
  if (!node || !out_attr) return SF_STATUS_INVALID_ARGUMENT;
  *out_attr = (sf_attr){.id = id};
  if (!sfi_attr_info_of(id) || !(sfi_op_of(node->op)->attrs & UINT32_C(1) << id)) return SF_STATUS_NOT_FOUND;
  const sfi_attr_value *attr = sfi_attr_of(node, id);
  *out_attr = (sf_attr){.id = id, .count = attr->count, .i = attr->i, .f = attr->f, .ints = attr->ints};
  return SF_OK;
}

const void *sf_graph_value_data(const sf_graph *graph, sf_value value, size_t *out_bytes) {
  const sfi_node *node = node_of(graph, value);
  if (out_bytes) *out_bytes = node ? node->bytes : 0;
  if (!node || !node->source) return node ? node->data : NULL;
  sfi_diag diag = {0};
  const void *data = sfi_source_open(node->source, &diag); /* and never closed: it is the host's while the graph lives */
  if (!data) sfi_context_keep_error(graph->context, &diag.error);
  return data;
}

sf_status sf_graph_set_weight(sf_graph *graph, sf_value weight, const void *data, size_t bytes, sf_ownership ownership) {
  const sfi_node *node = node_of(graph, weight);
  if (!node || node->op != SF_OP_WEIGHT || (!data && bytes) || bytes != node->bytes) return SF_STATUS_INVALID_ARGUMENT;
  bool borrow = ownership == SF_BORROW && (uintptr_t)data % sfi_dtype_of(node->dtype)->bytes == 0;
  const void *own = borrow ? data : sfi_arena_copy(&graph->arena, data, bytes);
  if (own) {
    graph->nodes[weight].data = own;
    graph->nodes[weight].source = NULL;
    return SF_OK;
  }
  sfi_diag diag = {0};
  sf_status st = sfi_fail_memory(&diag);
  sfi_context_keep_error(graph->context, &diag.error);
  return st;
}

sf_value sf_graph_find(const sf_graph *graph, const char *name) {
  sf_value tensor = SF_NO_VALUE;
  for (sf_value v = sf_graph_value_count(graph) - 1; name && v >= 0; v--) {
    const sfi_node *node = &graph->nodes[v];
    const char *label = node->label ? node->label : node->name;
    if (label && strcmp(label, name) == 0) return v;
    if (node->op == SF_OP_WEIGHT && strcmp(node->name, name) == 0) tensor = v;
  }
  return tensor;
}

int32_t sf_graph_input_count(const sf_graph *graph) {
  return graph ? (int32_t)graph->n_inputs : 0;
}

int32_t sf_graph_output_count(const sf_graph *graph) {
  return graph ? (int32_t)graph->n_outputs : 0;
}

sf_value sf_graph_input_value(const sf_graph *graph, int32_t i) {
  return i >= 0 && i < sf_graph_input_count(graph) ? graph->inputs[i] : SF_NO_VALUE;
}

sf_value sf_graph_output_value(const sf_graph *graph, int32_t i) {
  return i >= 0 && i < sf_graph_output_count(graph) ? graph->outputs[i].value : SF_NO_VALUE;
}
