/* Building the graph that a pass returns: copies under a map of values, new static tensors, and the sweep that drops what became
 * unused. Needs a verified graph; keeps the order of nodes, all inputs and all outputs. */
#include "rewrite.h"

bool sfi_rewrite_begin(sfi_rewrite *rewrite, sfi_pass_env *env, const sf_graph *graph) {
  const sf_allocator *a = &env->context->allocator;
  *rewrite = (sfi_rewrite){.env = env, .from = graph, .weights.arena.allocator = a, .number = 2};
  rewrite->map = sfi_alloc(a, graph->n_nodes * sizeof *rewrite->map);
  rewrite->to = rewrite->map ? sfi_graph_new_like(graph) : NULL;
  if (!rewrite->to) {
    sfi_free(a, rewrite->map, graph->n_nodes * sizeof *rewrite->map);
    sfi_fail_memory(env->diag);
    return false;
  }
  for (size_t i = 0; i < graph->n_nodes; i++) rewrite->map[i] = SF_NO_VALUE;
  return true;
}

/* Drops nodes that no output needs, inputs excepted, and renumbers the others. `to` is not published yet, so its nodes may change. */
static bool sweep(sf_graph *to, const sf_allocator *a) {
  sf_value *moved = sfi_alloc(a, to->n_nodes * sizeof *moved);
  if (!moved) return false;
  for (size_t i = 0; i < to->n_nodes; i++) moved[i] = to->nodes[i].op == SF_OP_INPUT ? 0 : SF_NO_VALUE;
  for (size_t i = 0; i < to->n_outputs; i++) moved[to->outputs[i].value] = 0;
  for (size_t i = to->n_nodes; i-- > 0;) {
    if (moved[i] == SF_NO_VALUE) continue;
    for (int32_t k = 0; k < to->nodes[i].n_inputs; k++) moved[to->nodes[i].inputs[k]] = 0;
  }
  size_t n = 0;
  for (size_t i = 0; i < to->n_nodes; i++) {
    if (moved[i] == SF_NO_VALUE) continue;
    sf_value *inputs = (sf_value *)to->nodes[i].inputs; /* in the arena of `to` */
    for (int32_t k = 0; k < to->nodes[i].n_inputs; k++) inputs[k] = moved[inputs[k]];
    moved[i] = (sf_value)n;
    to->nodes[n++] = to->nodes[i];
  }
  for (size_t i = 0; i < to->n_inputs; i++) to->inputs[i] = moved[to->inputs[i]];
  for (size_t i = 0; i < to->n_outputs; i++) to->outputs[i].value = moved[to->outputs[i].value];
  sfi_free(a, moved, to->n_nodes * sizeof *moved);
  to->n_nodes = n;
  return true;
}

sf_status sfi_rewrite_end(sfi_rewrite *rewrite, sf_status status, sf_graph **out_graph) {
  const sf_allocator *a = &rewrite->env->context->allocator;
  const sf_graph *from = rewrite->from;
  sf_graph *to = rewrite->to;
  *out_graph = NULL;
  for (size_t i = 0; status == SF_OK && !sfi_rewrite_failed(rewrite) && i < from->n_outputs; i++)
    sf_graph_output(to, from->outputs[i].name, rewrite->map[from->outputs[i].value]);
  if (status == SF_OK && sfi_rewrite_failed(rewrite)) {
    status = to->diag.error.status;
    if (rewrite->env->diag->error.status == SF_OK) rewrite->env->diag->error = to->diag.error;
  }
  if (status == SF_OK && !sweep(to, a)) status = sfi_fail_memory(rewrite->env->diag);
  sfi_free(a, rewrite->map, from->n_nodes * sizeof *rewrite->map);
  sfi_names_deinit(&rewrite->weights);
  if (status == SF_OK)
    *out_graph = to;
  else
    sf_graph_release(to);
  return status;
}

int32_t sfi_rewrite_attrs(const sfi_node *node, sf_attr out_attrs[SFI_ATTRS_MAX]) {
  uint32_t bits = sfi_op_of(node->op)->attrs;
  int32_t n = 0, k = 0;
  for (int32_t id = 0; bits >> id; id++) {
    if (!(bits >> id & 1)) continue;
    const sfi_attr_value *v = &node->attrs[k++];
    if (v->count < 0) continue;
    out_attrs[n++] = (sf_attr){.id = (sf_attr_id)id, .count = v->count, .i = v->i, .f = v->f, .ints = v->ints};
  }
  return n;
}

sf_value sfi_rewrite_add(sfi_rewrite *rewrite, const sfi_node *like, sf_op op, int32_t n_inputs, const sf_value *inputs,
                         int32_t n_attrs, const sf_attr *attrs) {
  sfi_place place = like->place; /* `like` may move as the graph grows */
  return sfi_graph_add(rewrite->to, op, like->name, n_inputs, inputs, n_attrs, attrs, &place);
}

sf_value sfi_rewrite_add_like(sfi_rewrite *rewrite, const sfi_node *like, const sf_value *inputs) {
  sf_attr attrs[SFI_ATTRS_MAX];
  int32_t n = sfi_rewrite_attrs(like, attrs);
  return sfi_rewrite_add(rewrite, like, like->op, like->n_inputs, inputs, n, attrs);
}

static sf_value labelled(sf_graph *to, sf_value leaf, const char *label) {
  if (leaf == SF_NO_VALUE || !label) return leaf;
  to->nodes[leaf].label = sfi_arena_strndup(&to->arena, label, strlen(label));
  if (!to->nodes[leaf].label) sfi_fail_memory(&to->diag);
  return leaf;
}

/* A leaf that shares `data`. */
static sf_value add_leaf(sf_graph *to, sf_op op, const char *name, const char *label, sf_dtype dtype, const sfi_shape *shape,
                         const void *data, const sfi_place *place) {
  return labelled(to, sfi_graph_add_leaf(to, op, name, dtype, shape, data, true, place), label);
}

static sf_value add_source(sf_graph *to, const sfi_node *node) {
  return labelled(to, sfi_graph_add_source(to, node->name, node->dtype, &node->shape, node->source, &node->place), node->label);
}

sf_value sfi_rewrite_copy(sfi_rewrite *rewrite, sf_value value) {
  const sfi_node *node = &rewrite->from->nodes[value];
  sf_value inputs[SFI_INPUTS_MAX], copy;
  assert(node->n_inputs <= SFI_INPUTS_MAX);
  for (int32_t k = 0; k < node->n_inputs; k++) inputs[k] = rewrite->map[node->inputs[k]];
  if (node->source)
    copy = add_source(rewrite->to, node);
  else if (node->n_inputs == 0)
    copy = add_leaf(rewrite->to, node->op, node->name, node->label, node->dtype, &node->shape, node->data, &node->place);
  else
    copy = sfi_rewrite_add_like(rewrite, node, inputs);
  rewrite->map[value] = copy;
  return copy;
}

float *sfi_rewrite_data(sfi_rewrite *rewrite, int64_t count) {
  int64_t bytes;
  float *data = sfi_mul(count, sizeof(float), &bytes) ? sfi_arena_alloc(&rewrite->to->arena, (size_t)bytes) : NULL;
  if (!data) sfi_fail_memory(&rewrite->to->diag);
  return data;
}

static bool is_taken(const sfi_rewrite *rewrite, const char *name) {
  return sfi_names_find(&rewrite->weights, name, strlen(name)) != SF_NO_VALUE;
}

/* A name for a new weight that no other has. NULL: out of memory. */
static const char *new_name(sfi_rewrite *rewrite, const char *base, const char *suffix) {
  const sf_graph *from = rewrite->from;
  bool known = rewrite->weights.count > 0;
  for (size_t i = 0; !known && i < from->n_nodes; i++) {
    const sfi_node *node = &from->nodes[i];
    if (node->op == SF_OP_WEIGHT && !is_taken(rewrite, node->name) && !sfi_names_add(&rewrite->weights, node->name)) return NULL;
  }
  char *name = sfi_arena_printf(&rewrite->to->arena, "%s:%s", base, suffix);
  while (name && is_taken(rewrite, name)) name = sfi_arena_printf(&rewrite->to->arena, "%s:%s%d", base, suffix, rewrite->number++);
  return name && sfi_names_add(&rewrite->weights, name) ? name : NULL;
}

sf_value sfi_rewrite_add_static(sfi_rewrite *rewrite, const sfi_node *model, const char *label, const char *suffix,
                                const sfi_shape *shape, const float *data) {
  sf_graph *to = rewrite->to;
  sfi_place place = model->place; /* `model` and `shape` may move as the graph grows */
  sfi_shape extents = *shape;
  if (model->op == SF_OP_CONSTANT) return add_leaf(to, SF_OP_CONSTANT, label, NULL, SF_F32, &extents, data, &place);
  const char *name = new_name(rewrite, model->name, suffix);
  if (!name) {
    sfi_fail_memory(&to->diag);
    return SF_NO_VALUE;
  }
  return add_leaf(to, SF_OP_WEIGHT, name, label, SF_F32, &extents, data, &place);
}

sf_value sfi_rewrite_add_source(sfi_rewrite *rewrite, const sfi_node *model, const char *label, const char *suffix,
                                const sfi_shape *shape, sfi_source *source) {
  const sfi_place place = model->place;
  const sfi_shape extents = *shape;
  const char *name = new_name(rewrite, model->name, suffix);
  if (!name) {
    sfi_fail_memory(&rewrite->to->diag);
    return SF_NO_VALUE;
  }
  return labelled(rewrite->to, sfi_graph_add_source(rewrite->to, name, SF_F32, &extents, source, &place), label);
}

bool sfi_reshape_attr(const sfi_shape *from, const sfi_shape *to, int64_t *out_ints) {
  bool inferred = false, empty = false; /* empty: an extent of 0 beside the inferred one */
  for (int32_t d = 0; d < to->rank; d++) {
    if (sfi_is_const(to->dims[d]) && to->dims[d].c[0] != 0) {
      out_ints[d] = to->dims[d].c[0];
    } else if (d < from->rank && sfi_poly_equal(from->dims[d], to->dims[d])) {
      out_ints[d] = 0;
      empty = empty || sfi_is(to->dims[d], 0);
    } else if (!inferred) {
      out_ints[d] = -1;
      inferred = true;
    } else {
      return false;
    }
  }
  return !(inferred && empty); /* what remains beside an extent of 0 is undefined */
}
