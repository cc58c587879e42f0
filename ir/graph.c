/* Building a graph: nodes are checked, then appended whole. After the first error a graph takes nothing more; that error is
 * kept in graph->diag and in the context. */
#include "context.h"
#include "infer.h"
#include "weights_file.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- life --------------------------------------------------------------------------------------------------------- */

static sf_graph *graph_new(sf_context *context, const char *name, const char *symbol, const char *weights_file) {
  sf_graph *graph = sfi_calloc(&context->allocator, 1, sizeof *graph);
  if (!graph) return NULL;
  sfi_context_retain(context);
  graph->context = context;
  graph->arena.allocator = &context->allocator;
  graph->name = sfi_arena_strndup(&graph->arena, name, strlen(name));
  graph->symbol = sfi_arena_strndup(&graph->arena, symbol, strlen(symbol));
  if (weights_file) graph->weights_file = sfi_arena_strndup(&graph->arena, weights_file, strlen(weights_file));
  if (graph->name && graph->symbol && (graph->weights_file || !weights_file)) return graph;
  sf_graph_release(graph);
  return NULL;
}

sf_status sf_graph_create(sf_context *context, const char *name, sf_graph **out_graph) {
  if (!out_graph) return SF_STATUS_INVALID_ARGUMENT;
  *out_graph = NULL;
  if (!context) return SF_STATUS_INVALID_ARGUMENT;
  *out_graph = graph_new(context, name ? name : "graph", "batch", NULL);
  if (*out_graph) return SF_OK;
  sfi_diag diag = {0};
  sf_status st = sfi_fail_memory(&diag);
  sfi_context_keep_error(context, &diag.error);
  return st;
}

sf_graph *sfi_graph_new_like(const sf_graph *like) {
  return graph_new(like->context, like->name, like->symbol, like->weights_file);
}

void sf_graph_release(sf_graph *graph) {
  if (!graph) return;
  sf_context *context = graph->context;
  const sf_allocator *a = &context->allocator;
  for (sfi_source *s = graph->made, *next; s; s = next) {
    next = s->next;
    sfi_source_destroy(s);
  }
  if (graph->mapping) sfi_mapping_release(graph->mapping);
  sfi_free(a, graph->nodes, graph->nodes_capacity * sizeof *graph->nodes);
  sfi_free(a, graph->inputs, graph->inputs_capacity * sizeof *graph->inputs);
  sfi_free(a, graph->outputs, graph->outputs_capacity * sizeof *graph->outputs);
  sfi_arena_deinit(&graph->arena);
  sfi_free(a, graph, sizeof *graph);
  sf_context_release(context);
}

/* ---- errors ------------------------------------------------------------------------------------------------------- */

/* Ends a builder call that failed: what is in graph->diag goes to the context too. */
static sf_value failed(sf_graph *graph) {
  if (!graph->quiet) sfi_context_keep_error(graph->context, &graph->diag.error);
  return SF_NO_VALUE;
}

static sf_value failed_memory(sf_graph *graph) {
  sfi_fail_memory(&graph->diag);
  return failed(graph);
}

/* ---- nodes -------------------------------------------------------------------------------------------------------- */

/* A place that lives as long as the graph. Neighbours come from one file: its name is shared. */
static bool own_place(sf_graph *graph, const sfi_place *place, sfi_place *out) {
  if (!place || !place->file) {
    *out = (sfi_place){graph->name, place ? place->line : 0, place ? place->column : 0};
    return true;
  }
  const char *last = graph->n_nodes ? graph->nodes[graph->n_nodes - 1].place.file : graph->name;
  *out = *place;
  if (strcmp(place->file, graph->name) == 0)
    out->file = graph->name;
  else if (strcmp(place->file, last) == 0)
    out->file = last;
  else
    out->file = sfi_arena_strndup(&graph->arena, place->file, strlen(place->file));
  return out->file != NULL;
}

static sf_value append(sf_graph *graph, const sfi_node *node) {
  void *nodes = graph->nodes, *inputs = graph->inputs;
  bool grown = sfi_grow(&graph->context->allocator, &nodes, &graph->nodes_capacity, sizeof *node, graph->n_nodes + 1);
  graph->nodes = nodes;
  if (grown && node->op == SF_OP_INPUT) {
    grown = sfi_grow(&graph->context->allocator, &inputs, &graph->inputs_capacity, sizeof *graph->inputs, graph->n_inputs + 1);
    graph->inputs = inputs;
  }
  if (!grown) return failed_memory(graph);
  sf_value value = (sf_value)graph->n_nodes++;
  graph->nodes[value] = *node;
  if (node->op == SF_OP_INPUT) graph->inputs[graph->n_inputs++] = value;
  return value;
}

/* Is there room for one more value? */
static bool has_room(sf_graph *graph, const sfi_node *node) {
  if (graph->n_nodes < INT32_MAX && (node->op != SF_OP_INPUT || graph->n_inputs < SFI_PORTS_MAX)) return true;
  sfi_fail(&graph->diag, SF_STATUS_UNSUPPORTED, &node->place, node->name, "%s: the graph has too many already",
           sfi_op_of(node->op)->text);
  return false;
}

static bool is_input_named(const sf_graph *graph, const char *name) {
  for (size_t i = 0; i < graph->n_inputs; i++) {
    if (strcmp(graph->nodes[graph->inputs[i]].name, name) == 0) return true;
  }
  return false;
}

static bool is_output_named(const sf_graph *graph, const char *name) {
  for (size_t i = 0; i < graph->n_outputs; i++) {
    if (strcmp(graph->outputs[i].name, name) == 0) return true;
  }
  return false;
}

/* "input3": the first from the present count on that is free; unnamed weights share no namespace, so the count will do. */
static const char *make_name(sf_graph *graph, const char *prefix, size_t count,
                             bool (*taken)(const sf_graph *graph, const char *name)) {
  char name[32];
  for (size_t i = count;; i++) {
    int length = snprintf(name, sizeof name, "%s%zu", prefix, i);
    if (!taken || !taken(graph, name)) return sfi_arena_strndup(&graph->arena, name, (size_t)length);
  }
}

/* Data aligned less than its elements is copied even where it might be borrowed: kernels load whole elements. */
static bool own_data(sf_graph *graph, sfi_node *node, const void *data, bool borrow) {
  size_t align = sfi_dtype_of(node->dtype)->bytes;
  if (borrow && data && (uintptr_t)data % align == 0)
    node->data = data;
  else
    node->data = sfi_arena_copy(&graph->arena, data, node->bytes);
  return node->data != NULL;
}

sfi_source *sfi_graph_own(sf_graph *graph, sfi_source *made) {
  if (!made) {
    failed_memory(graph);
    return NULL;
  }
  made->next = graph->made;
  return graph->made = made;
}

void sfi_graph_take_made(sf_graph *graph, sf_graph *from) {
  for (sfi_source *s = from->made, *next; s; s = next) {
    next = s->next;
    sfi_graph_own(graph, s);
  }
  from->made = NULL;
}

static sf_value add_leaf(sf_graph *graph, sf_op op, const char *name, sf_dtype dtype, const sfi_shape *shape, const void *data,
                         bool borrow, sfi_source *source, const sfi_place *place) {
  if (graph->diag.error.status != SF_OK) return SF_NO_VALUE;
  assert(op == SF_OP_INPUT || op == SF_OP_WEIGHT || op == SF_OP_CONSTANT);
  sfi_node node = {.op = op, .dtype = dtype, .shape = *shape, .source = source};
  if (!own_place(graph, place, &node.place)) return failed_memory(graph);
  if (name)
    node.name = sfi_arena_strndup(&graph->arena, name, strlen(name));
  else if (op == SF_OP_INPUT)
    node.name = make_name(graph, "input", graph->n_inputs, is_input_named);
  else if (op == SF_OP_WEIGHT)
    node.name = make_name(graph, "weight", graph->n_nodes, NULL);
  if (!node.name && (name || op != SF_OP_CONSTANT)) return failed_memory(graph);
  if (!has_room(graph, &node)) return failed(graph);
  if (op == SF_OP_INPUT && is_input_named(graph, node.name)) {
    sfi_fail(&graph->diag, SF_STATUS_INVALID_GRAPH, &node.place, name, "input: a second one named \"%s\"", name);
    return failed(graph);
  }
  /* The shape is checked before its elements are counted, with data that passes; then with the real one. */
  sfi_poly elements;
  bool counted = sfi_dtype_of(dtype) && sfi_shape_fits(shape) && sfi_shape_numel(shape, &elements) && sfi_is_const(elements);
  if (counted && op != SF_OP_INPUT) {
    node.bytes = (size_t)elements.c[0] * sfi_dtype_of(dtype)->bytes;
    if ((data || (node.bytes == 0 && !source)) && !own_data(graph, &node, data, borrow)) return failed_memory(graph);
  }
  if (sfi_check_node(graph, &node, (sf_value)graph->n_nodes, &graph->diag) != SF_OK) return failed(graph);
  return append(graph, &node);
}

sf_value sfi_graph_add_leaf(sf_graph *graph, sf_op op, const char *name, sf_dtype dtype, const sfi_shape *shape, const void *data,
                            bool borrow, const sfi_place *place) {
  return add_leaf(graph, op, name, dtype, shape, data, borrow, NULL, place);
}

sf_value sfi_graph_add_source(sf_graph *graph, const char *name, sf_dtype dtype, const sfi_shape *shape, sfi_source *source,
                              const sfi_place *place) {
  return add_leaf(graph, SF_OP_WEIGHT, name, dtype, shape, NULL, true, source, place);
}

/* ---- attributes --------------------------------------------------------------------------------------------------- */

/* "[1,1]" as integers, in the arena. */
static bool read_default_ints(sf_graph *graph, const char *text, sfi_attr_value *out) {
  int64_t ints[SF_MAX_RANK];
  for (const char *c = text + 1; *c != ']' && out->count < SF_MAX_RANK;) {
    char *end;
    ints[out->count++] = strtoll(c, &end, 10);
    c = *end == ',' ? end + 1 : end;
  }
  out->ints = sfi_arena_copy(&graph->arena, ints, (size_t)out->count * sizeof *ints);
  return out->ints != NULL;
}

static bool set_default(sf_graph *graph, const sfi_attr_info *info, sfi_attr_value *out) {
  if (!info->def[0]) {
    out->count = -1; /* required: the check that follows says so */
    return true;
  }
  if (info->type == SFI_ATTR_INT) out->i = strtoll(info->def, NULL, 10);
  if (info->type == SFI_ATTR_FLOAT) out->f = strtod(info->def, NULL);
  return info->type != SFI_ATTR_INTS || read_default_ints(graph, info->def, out);
}

/* One given attribute. `given` is the operation's bits met so far. */
static bool set_attr(sf_graph *graph, const sfi_node *node, const sf_attr *attr, uint32_t *given, sfi_attr_value *values) {
  const sfi_op_info *op = sfi_op_of(node->op);
  const sfi_attr_info *info = sfi_attr_info_of(attr->id);
  if (!info) {
    sfi_fail(&graph->diag, SF_STATUS_INVALID_ARGUMENT, &node->place, op->text, "%s: unknown attribute %d", op->text, (int)attr->id);
    return false;
  }
  uint32_t bit = UINT32_C(1) << attr->id;
  bool list = attr->count != 0 || attr->ints, well_typed = true;
  const char *problem = NULL, *kind = "";
  switch (info->type) {
  case SFI_ATTR_INT:
    kind = "one integer";
    well_typed = !list && attr->f == 0;
    break;
  case SFI_ATTR_FLOAT:
    kind = "one real number";
    well_typed = !list && attr->i == 0;
    break;
  case SFI_ATTR_INTS:
    kind = "a list of at most 6 integers";
    well_typed = attr->i == 0 && attr->f == 0 && attr->count >= 0 && attr->count <= SF_MAX_RANK && (attr->ints || attr->count == 0);
    break;
  }
  if (!(op->attrs & bit))
    problem = "has no attribute";
  else if (*given & bit)
    problem = "is given twice the attribute";
  if (problem) {
    sfi_fail(&graph->diag, SF_STATUS_INVALID_GRAPH, &node->place, op->text, "%s: the operation %s '%s'", op->text, problem,
             info->text);
  } else if (!well_typed) {
    sfi_fail(&graph->diag, SF_STATUS_INVALID_GRAPH, &node->place, op->text, "%s: attribute '%s' takes %s", op->text, info->text,
             kind);
  } else {
    sfi_attr_value *value = &values[__builtin_popcount(op->attrs & (bit - 1))];
    *given |= bit;
    *value = (sfi_attr_value){.i = attr->i, .f = attr->f, .count = attr->count};
    if (info->type == SFI_ATTR_INTS) {
      value->ints = sfi_arena_copy(&graph->arena, attr->ints, (size_t)attr->count * sizeof *attr->ints);
      if (!value->ints) sfi_fail_memory(&graph->diag);
    }
  }
  return graph->diag.error.status == SF_OK;
}

static bool set_attrs(sf_graph *graph, sfi_node *node, int32_t n_attrs, const sf_attr *attrs) {
  const sfi_op_info *op = sfi_op_of(node->op);
  sfi_attr_value *values = sfi_arena_alloc(&graph->arena, (size_t)__builtin_popcount(op->attrs) * sizeof *values);
  uint32_t given = 0;
  if (!values) {
    sfi_fail_memory(&graph->diag);
    return false;
  }
  node->attrs = values;
  for (int32_t i = 0; i < n_attrs; i++) {
    if (!set_attr(graph, node, &attrs[i], &given, values)) return false;
  }
  for (int32_t id = 0; id < sfi_attr_count(); id++) {
    uint32_t bit = UINT32_C(1) << id;
    if (!(op->attrs & bit)) continue;
    if (!(given & bit) && !set_default(graph, sfi_attr_info_of((sf_attr_id)id), values)) {
      sfi_fail_memory(&graph->diag);
      return false;
    }
    values++;
  }
  return true;
}

sf_value sfi_graph_add(sf_graph *graph, sf_op op, const char *name, int32_t n_inputs, const sf_value *inputs, int32_t n_attrs,
                       const sf_attr *attrs, const sfi_place *place) {
  if (graph->diag.error.status != SF_OK) return SF_NO_VALUE;
  sfi_node node = {.op = op, .n_inputs = n_inputs};
  if (!own_place(graph, place, &node.place)) return failed_memory(graph);
  const sfi_op_info *info = sfi_op_of(op);
  if (!info)
    sfi_fail(&graph->diag, SF_STATUS_INVALID_ARGUMENT, &node.place, NULL, "unknown operation %d", (int)op);
  else if (info->flags & SF_OPF_LEAF)
    sfi_fail(&graph->diag, SF_STATUS_INVALID_ARGUMENT, &node.place, info->text, "%s: a leaf has its own builder call", info->text);
  if (graph->diag.error.status != SF_OK) return failed(graph);
  if (n_inputs < 0 || (n_inputs > 0 && !inputs) || n_attrs < 0 || (n_attrs > 0 && !attrs)) {
    sfi_fail(&graph->diag, SF_STATUS_INVALID_ARGUMENT, &node.place, info->text, "%s: %d operands, %d attributes, or a list is NULL",
             info->text, n_inputs, n_attrs);
    return failed(graph);
  }
  if (!has_room(graph, &node)) return failed(graph);
  /* More operands than any operation takes are not copied: the check refuses by their number. */
  if (n_inputs <= info->max_inputs) {
    node.inputs = sfi_arena_copy(&graph->arena, inputs, (size_t)n_inputs * sizeof *inputs);
    if (!node.inputs) return failed_memory(graph);
  }
  if (name && !(node.name = sfi_arena_strndup(&graph->arena, name, strlen(name)))) return failed_memory(graph);
  if (!set_attrs(graph, &node, n_attrs, attrs)) return failed(graph);
  if (sfi_check_node(graph, &node, (sf_value)graph->n_nodes, &graph->diag) != SF_OK) return failed(graph);
  return append(graph, &node);
}

sf_status sfi_graph_add_output(sf_graph *graph, const char *name, sf_value value, const sfi_place *place) {
  if (graph->diag.error.status != SF_OK) return graph->diag.error.status;
  sfi_place here;
  const char *own =
      name ? sfi_arena_strndup(&graph->arena, name, strlen(name)) : make_name(graph, "output", graph->n_outputs, is_output_named);
  void *outputs = graph->outputs;
  if (!own || !own_place(graph, place, &here)) {
    failed_memory(graph);
    return SF_STATUS_OUT_OF_MEMORY;
  }
  if (value < 0 || (size_t)value >= graph->n_nodes) {
    sfi_fail(&graph->diag, SF_STATUS_INVALID_ARGUMENT, &here, own, "output: \"%s\" is no value of the graph", own);
  } else if (!(sfi_dtype_of(graph->nodes[value].dtype)->flags & SF_DTYPEF_COMPUTE)) {
    sfi_fail(&graph->diag, SF_STATUS_UNSUPPORTED, &here, own, "output: \"%s\" is %s, with which nothing computes yet", own,
             sfi_dtype_of(graph->nodes[value].dtype)->text);
  } else if (is_output_named(graph, own)) {
    sfi_fail(&graph->diag, SF_STATUS_INVALID_GRAPH, &here, own, "output: a second one named \"%s\"", own);
  } else if (graph->n_outputs == SFI_PORTS_MAX) {
    sfi_fail(&graph->diag, SF_STATUS_UNSUPPORTED, &here, own, "output: the graph has too many already");
  } else if (!sfi_grow(&graph->context->allocator, &outputs, &graph->outputs_capacity, sizeof *graph->outputs,
                       graph->n_outputs + 1)) {
    sfi_fail_memory(&graph->diag);
  }
  graph->outputs = outputs;
  if (graph->diag.error.status != SF_OK)
    failed(graph);
  else
    graph->outputs[graph->n_outputs++] = (sfi_output){own, value};
  return graph->diag.error.status;
}
