/* The rules of a well-formed graph, for one node as it is built and for a whole graph between passes. Shapes are inferred again
 * and compared, so a pass that edits nodes by hand is caught. Changes nothing. */
#include "context.h"
#include "infer.h"

#include <math.h>

static sf_status check_arity(const sfi_node *node, const sfi_op_info *op, sfi_diag *diag) {
  if (node->n_inputs >= op->min_inputs && node->n_inputs <= op->max_inputs) return SF_OK;
  if (op->min_inputs == op->max_inputs) {
    return sfi_fail(diag, SF_STATUS_INVALID_GRAPH, &node->place, op->text, "%s: %d operands, not %d", op->text, node->n_inputs,
                    op->min_inputs);
  }
  return sfi_fail(diag, SF_STATUS_INVALID_GRAPH, &node->place, op->text, "%s: %d operands, not %d to %d", op->text, node->n_inputs,
                  op->min_inputs, op->max_inputs);
}

/* The element type that operand i must have: a flag of its row. */
static uint32_t wanted_flag(const sfi_node *node, const sfi_op_info *op, int32_t i, const sfi_dtype_info *is) {
  if ((op->flags & SF_OPF_INDEXED) && i == node->n_inputs - 1) return SF_DTYPEF_INTEGER;
  if (op->flags & SF_OPF_INDEXABLE && i == node->n_inputs - 1 && i >= op->min_inputs && is->flags & SF_DTYPEF_INTEGER) {
    return SF_DTYPEF_INTEGER;
  }
  const bool any = (op->flags & SF_OPF_SHAPE_ANY) == SF_OPF_SHAPE_ANY;
  return any && is->flags & SF_DTYPEF_INTEGER ? SF_DTYPEF_INTEGER : SF_DTYPEF_COMPUTE;
}

/* Also gives the node its dtype, that of its operands but for indices. */
static sf_status check_operands(const sf_graph *graph, sfi_node *node, sf_value index, sfi_diag *diag) {
  const sfi_op_info *row = sfi_op_of(node->op);
  const char *op = row->text;
  for (int32_t i = 0; i < node->n_inputs; i++) {
    if (node->inputs[i] < 0 || node->inputs[i] >= index) {
      return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, &node->place, op, "%s: operand %d is no earlier value of the graph", op,
                      i + 1);
    }
  }
  for (int32_t i = 0; i < node->n_inputs; i++) {
    sf_dtype dtype = graph->nodes[node->inputs[i]].dtype;
    const sfi_dtype_info *info = sfi_dtype_of(dtype);
    const uint32_t wanted = wanted_flag(node, row, i, info);
    if (!(info->flags & wanted)) {
      if (wanted == SF_DTYPEF_INTEGER) {
        return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "operand %d is %s, not of an integer type", i + 1,
                              info->text);
      }
      if (info->flags & SF_DTYPEF_INTEGER) {
        return sfi_infer_fail(graph, node, diag, SF_STATUS_UNSUPPORTED, "operand %d is %s: integers are cast first", i + 1,
                              info->text);
      }
      return sfi_infer_fail(graph, node, diag, SF_STATUS_UNSUPPORTED, "operand %d is %s, with which nothing computes yet", i + 1,
                            info->text);
    }
    if (wanted == SF_DTYPEF_INTEGER && row->flags & (SF_OPF_INDEXED | SF_OPF_INDEXABLE)) continue;
    if (i > 0 && dtype != node->dtype) {
      return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "operand %d is %s, operand 1 %s", i + 1, info->text,
                            sfi_dtype_of(node->dtype)->text);
    }
    node->dtype = dtype;
  }
  return SF_OK;
}

static sf_status check_attrs(const sf_graph *graph, const sfi_node *node, const sfi_op_info *op, sfi_diag *diag) {
  for (int32_t id = 0; id < sfi_attr_count(); id++) {
    if (!(op->attrs & UINT32_C(1) << id)) continue;
    const sfi_attr_info *info = sfi_attr_info_of((sf_attr_id)id);
    const sfi_attr_value *value = sfi_attr_of(node, (sf_attr_id)id);
    if (info->type == SFI_ATTR_FLOAT && !isfinite(value->f)) {
      return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "attribute '%s' is not finite", info->text);
    }
    if (value->count < 0) {
      return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "attribute '%s' is missing", info->text);
    }
    if (info->type == SFI_ATTR_INTS && value->count > SF_MAX_RANK) {
      return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "attribute '%s' has %d entries, more than %d", info->text,
                            value->count, SF_MAX_RANK);
    }
  }
  return SF_OK;
}

static sf_status check_data(const sf_graph *graph, const sfi_node *node, sfi_diag *diag) {
  if (node->op != SF_OP_WEIGHT && node->op != SF_OP_CONSTANT) {
    if (!node->data && !node->source && node->bytes == 0) return SF_OK;
    return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "data is given, but is not known before a run");
  }
  sfi_poly elements = sfi_const(0);
  bool counted = sfi_shape_numel(&node->shape, &elements);
  assert(counted && sfi_is_const(elements)); /* the shape fits, and leaves of this kind are constant */
  const bool given = node->data || node->source;
  if (given && counted && (uint64_t)elements.c[0] * sfi_dtype_of(node->dtype)->bytes == node->bytes) return SF_OK;
  return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "%s",
                        given ? "the data is not as long as the shape" : "no data");
}

sf_status sfi_check_node(const sf_graph *graph, sfi_node *node, sf_value index, sfi_diag *diag) {
  const sfi_op_info *op = sfi_op_of(node->op);
  if (!op) return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, &node->place, NULL, "unknown operation %d", (int)node->op);
  sf_status st;
  if ((st = check_arity(node, op, diag)) != SF_OK) return st;
  if ((st = check_operands(graph, node, index, diag)) != SF_OK) return st;
  if (!sfi_dtype_of(node->dtype)) {
    return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, &node->place, op->text, "%s: unknown dtype %d", op->text, (int)node->dtype);
  }
  if ((op->flags & SF_OPF_LEAF) && (node->shape.rank < 0 || node->shape.rank > SF_MAX_RANK)) {
    return sfi_fail(diag, SF_STATUS_INVALID_GRAPH, &node->place, op->text, "%s: %d dimensions, outside 0 to %d", op->text,
                    node->shape.rank, SF_MAX_RANK);
  }
  if ((st = check_attrs(graph, node, op, diag)) != SF_OK) return st;
  if ((st = op->infer(graph, node, diag)) != SF_OK) return st;
  if (!sfi_shape_fits(&node->shape)) {
    return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "too many elements in the result");
  }
  return check_data(graph, node, diag);
}

/* A symbolic extent needs an input that says how much it is in a run. */
static bool binds_symbol(const sf_graph *graph) {
  bool asks = false;
  for (size_t i = 0; i < graph->n_nodes; i++) {
    const sfi_node *node = &graph->nodes[i];
    for (int32_t d = 0; d < node->shape.rank; d++) {
      if (sfi_is_const(node->shape.dims[d])) continue;
      if (node->op == SF_OP_INPUT) return true;
      asks = true;
    }
  }
  return !asks;
}

static sf_status check_ports(const sf_graph *graph, sfi_diag *diag) {
  const sfi_place place = {graph->name, 0, 0};
  size_t seen = 0;
  for (size_t i = 0; i < graph->n_nodes; i++) {
    const sfi_node *node = &graph->nodes[i];
    if (node->op != SF_OP_INPUT) continue;
    if (seen == graph->n_inputs || graph->inputs[seen] != (sf_value)i || !node->name) {
      return sfi_fail(diag, SF_STATUS_INTERNAL, &node->place, node->name, "input: value %zu is not registered or has no name", i);
    }
    for (size_t j = 0; j < seen; j++) {
      if (strcmp(graph->nodes[graph->inputs[j]].name, node->name) != 0) continue;
      return sfi_fail(diag, SF_STATUS_INVALID_GRAPH, &node->place, node->name, "input: a second one named \"%s\"", node->name);
    }
    seen++;
  }
  if (seen != graph->n_inputs) return sfi_fail(diag, SF_STATUS_INTERNAL, &place, NULL, "input: one is registered that is no node");
  if (!binds_symbol(graph)) return sfi_fail(diag, SF_STATUS_INVALID_GRAPH, &place, NULL, "no input has the symbolic dimension");
  if (graph->n_outputs == 0) return sfi_fail(diag, SF_STATUS_INVALID_GRAPH, &place, NULL, "the graph has no output");
  for (size_t i = 0; i < graph->n_outputs; i++) {
    const sfi_output *output = &graph->outputs[i];
    if (output->value < 0 || (size_t)output->value >= graph->n_nodes) {
      return sfi_fail(diag, SF_STATUS_INVALID_GRAPH, &place, output->name, "output: \"%s\" is no value of the graph", output->name);
    }
    const sfi_dtype_info *dtype = sfi_dtype_of(graph->nodes[output->value].dtype);
    if (!(dtype->flags & SF_DTYPEF_COMPUTE)) {
      return sfi_fail(diag, SF_STATUS_UNSUPPORTED, &place, output->name, "output: \"%s\" is %s, with which nothing computes yet",
                      output->name, dtype->text);
    }
    for (size_t j = 0; j < i; j++) {
      if (strcmp(graph->outputs[j].name, output->name) != 0) continue;
      return sfi_fail(diag, SF_STATUS_INVALID_GRAPH, &place, output->name, "output: a second one named \"%s\"", output->name);
    }
  }
  return SF_OK;
}

sf_status sfi_graph_verify(const sf_graph *graph, sfi_diag *diag) {
  for (size_t i = 0; i < graph->n_nodes; i++) {
    sfi_node again = graph->nodes[i];
    sf_status st = sfi_check_node(graph, &again, (sf_value)i, diag);
    if (st != SF_OK) return st;
    if (!sfi_shape_equal(&again.shape, &graph->nodes[i].shape) || again.dtype != graph->nodes[i].dtype) {
      return sfi_infer_fail(graph, &graph->nodes[i], diag, SF_STATUS_INTERNAL,
                            "value %zu has not the shape that follows from its operands", i);
    }
  }
  return check_ports(graph, diag);
}
