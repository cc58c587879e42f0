/* Lowering without a back end: one kernel an operation, run by the reference back end on dense row-major buffers.
 * Needs a verified graph. An output that is a leaf, or that is named twice, becomes a copy. */
#include "passes.h"

typedef struct lowering {
  sfi_pass_env *env;
  sfi_plan *plan;
  int32_t *buffer_of; /* of each value; SFI_NO_BUFFER until it has one */
} lowering;

static bool matrix_extents(const sfi_shape *shape, sfi_buffer *buffer) {
  buffer->columns = buffer->features = sfi_const(1);
  for (int32_t d = 0; d + 1 < shape->rank; d++) {
    if (!sfi_poly_mul(buffer->columns, shape->dims[d], &buffer->columns)) return false;
  }
  if (shape->rank > 0) buffer->features = shape->dims[shape->rank - 1];
  return true;
}

/* A new dense buffer for `value`. */
static sf_status add_buffer(lowering *l, sfi_buffer_kind kind, int32_t index, sf_value value, int32_t *out_buffer) {
  sfi_plan *plan = l->plan;
  const sfi_node *node = &plan->graph->nodes[value];
  sfi_buffer buffer = {.kind = kind, .index = index, .value = value, .dtype = node->dtype};
  if (!matrix_extents(&node->shape, &buffer)) {
    return sfi_fail(l->env->diag, SF_STATUS_UNSUPPORTED, &node->place, node->name,
                    "the extents multiply to more than 64 bits hold");
  }
  if (plan->n_buffers == plan->buffers_capacity) {
    size_t capacity = plan->buffers_capacity ? plan->buffers_capacity * 2 : 16;
    sfi_buffer *grown = sfi_arena_alloc(&plan->arena, capacity * sizeof *grown);
    if (!grown) return sfi_fail_memory(l->env->diag);
    if (plan->n_buffers) memcpy(grown, plan->buffers, plan->n_buffers * sizeof *grown);
    plan->buffers = grown;
    plan->buffers_capacity = capacity;
  }
  *out_buffer = (int32_t)plan->n_buffers;
  plan->buffers[plan->n_buffers++] = buffer;
  return SF_OK;
}

static sf_status add_kernel(lowering *l, sf_value node, const char *what, int32_t output, int32_t n_inputs, const int32_t *inputs) {
  sfi_plan *plan = l->plan;
  sfi_kernel *kernel = &plan->kernels[plan->n_kernels];
  *kernel = (sfi_kernel){.anchor = SFI_ANCHOR_NODE, .node = node, .n_operands = 1 + n_inputs};
  kernel->name = sfi_arena_printf(&plan->arena, "k%zu.%s", plan->n_kernels, what);
  if (!kernel->name) return sfi_fail_memory(l->env->diag);
  kernel->operand[0].buffer = output;
  for (int32_t i = 0; i < n_inputs; i++) kernel->operand[1 + i].buffer = inputs[i];
  kernel->choice = "the reference back end";
  plan->n_kernels++;
  return SF_OK;
}

/* The first output that is `value`, or -1. */
static int32_t output_of(const sf_graph *graph, sf_value value) {
  for (size_t i = 0; i < graph->n_outputs; i++) {
    if (graph->outputs[i].value == value) return (int32_t)i;
  }
  return -1;
}

static int32_t input_index(const sf_graph *graph, sf_value value) {
  int32_t i = 0;
  while (sf_graph_input_value(graph, i) != value) i++;
  return i;
}

static sf_status lower_value(lowering *l, sf_value value) {
  const sf_graph *graph = l->plan->graph;
  const sfi_node *node = &graph->nodes[value];
  int32_t *buffer = &l->buffer_of[value];
  if (node->op == SF_OP_INPUT) return add_buffer(l, SFI_BUFFER_INPUT, input_index(graph, value), value, buffer);
  if (sfi_node_is_static(node)) return add_buffer(l, SFI_BUFFER_STATIC, 0, value, buffer);
  int32_t output = output_of(graph, value);
  sf_status status =
      output >= 0 ? add_buffer(l, SFI_BUFFER_OUTPUT, output, value, buffer) : add_buffer(l, SFI_BUFFER_TEMP, 0, value, buffer);
  if (status != SF_OK) return status;
  int32_t inputs[SFI_OPERANDS_MAX - 1];
  for (int32_t i = 0; i < node->n_inputs; i++) inputs[i] = l->buffer_of[node->inputs[i]];
  return add_kernel(l, value, sfi_op_of(node->op)->text, *buffer, node->n_inputs, inputs);
}

/* Outputs that no kernel writes: a leaf, or a value that an earlier output has. */
static sf_status lower_outputs(lowering *l) {
  const sf_graph *graph = l->plan->graph;
  for (size_t i = 0; i < graph->n_outputs; i++) {
    sf_value value = graph->outputs[i].value;
    const sfi_buffer *holds = &l->plan->buffers[l->buffer_of[value]];
    if (holds->kind == SFI_BUFFER_OUTPUT && holds->index == (int32_t)i) continue;
    int32_t copy;
    sf_status status = add_buffer(l, SFI_BUFFER_OUTPUT, (int32_t)i, value, &copy);
    if (status == SF_OK) status = add_kernel(l, SF_NO_VALUE, "copy", copy, 1, &l->buffer_of[value]);
    if (status != SF_OK) return status;
  }
  return SF_OK;
}

sf_status sfi_lower_to_nodes(sfi_pass_env *env, sfi_plan *plan) {
  const sf_graph *graph = plan->graph;
  lowering l = {.env = env, .plan = plan};
  l.buffer_of = sfi_arena_alloc(&plan->arena, graph->n_nodes * sizeof *l.buffer_of);
  plan->kernels_capacity = graph->n_nodes + graph->n_outputs;
  plan->kernels = sfi_arena_alloc(&plan->arena, plan->kernels_capacity * sizeof *plan->kernels);
  if (!l.buffer_of || !plan->kernels) return sfi_fail_memory(env->diag);
  sf_status status = SF_OK;
  for (size_t i = 0; i < graph->n_nodes && status == SF_OK; i++) status = lower_value(&l, (sf_value)i);
  return status == SF_OK ? lower_outputs(&l) : status;
}
