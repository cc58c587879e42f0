/* The program: for each class a plan with its kernels linked, and every byte that they read beside the host's tensors, but for packed
 * weights that wait in the cache. It needs the host's graph no more once it is built. Immutable but for those; shared by threads. */
#include "jit.h"

/* The graph's leaves point to the program's copies; weights that were packed are not kept. */
static void detach_leaves(sf_program *program) {
  for (size_t i = 0; i < program->graph->n_nodes; i++) {
    if (sfi_is_static(program->graph, (sf_value)i)) program->graph->nodes[i].data = program->statics[i].data;
    program->graph->nodes[i].source = NULL;
  }
}

static sf_status build_class(sf_program *program, int32_t index, sfi_diag *diag) {
  const sfi_units *units = &program->stock->units;
  sfi_class *class = &program->classes[index];
  sfi_plan *plan = &class->plan;
  const sfi_needs *needs = units->needs[index];
  class->loaded = sfi_arena_alloc(&program->arena, plan->n_kernels * sizeof *class->loaded);
  class->fixed = sfi_arena_alloc(&program->arena, plan->n_buffers * sizeof *class->fixed);
  if (!class->loaded || !class->fixed) return sfi_fail_memory(diag);
  bool any_waits = false;
  for (size_t k = 0; k < plan->n_kernels; k++) {
    sfi_loaded *loaded = &class->loaded[k];
    sfi_kernel *kernel = &plan->kernels[k];
    loaded->reason = "";
    class->n_operands += (size_t)kernel->n_operands;
    if (needs[k].code >= 0) {
      const sfi_unit *code = &units->units[needs[k].code];
      loaded->code = code->shared;
      loaded->fn = loaded->code->fn;
      loaded->code_origin = needs[k].first_code ? code->origin : SFI_FROM_MEMORY;
      if (loaded->code_origin == SFI_MADE) {
        loaded->reason = sfi_arena_strndup(&program->arena, code->reason, strlen(code->reason));
        if (!loaded->reason) return sfi_fail_memory(diag);
      }
    }
    const bool waits = needs[k].packed >= 0 && !units->units[needs[k].packed].shared;
    any_waits = any_waits || waits;
    if (!waits)
      kernel->contract.matrix =
          (sfi_matrix){.rows = kernel->contract.matrix.rows,
                       .columns = kernel->contract.matrix.columns}; /* the host may take its weights back now */
  }
  for (size_t b = 0; b < plan->n_buffers; b++) {
    const sfi_buffer *buffer = &plan->buffers[b];
    if (buffer->kind == SFI_BUFFER_STATIC) class->fixed[b] = program->statics[buffer->value].data;
  }
  return any_waits ? SF_OK : sfi_class_load(program, class, diag);
}

static void take_plans(sf_program *program, sfi_pipeline *pipeline) {
  for (int32_t c = 0; c < pipeline->n_plans; c++) {
    program->classes[c].symbol_max = pipeline->plans[c].symbol_max;
    program->classes[c].plan = pipeline->plans[c];
    pipeline->plans[c].arena.blocks = NULL;
  }
  program->n_classes = pipeline->n_plans;
}

static bool has_symbol(const sf_graph *graph) {
  for (size_t i = 0; i < graph->n_nodes; i++) {
    const sfi_node *node = &graph->nodes[i];
    for (int32_t d = 0; node->op == SF_OP_INPUT && d < node->shape.rank; d++) {
      if (!sfi_is_const(node->shape.dims[d])) return true;
    }
  }
  return false;
}

static bool has_indices(const sf_graph *graph) {
  sfi_index_limits limits;
  for (size_t i = 0; i < graph->n_nodes; i++) {
    for (int32_t k = 0; k < graph->nodes[i].n_inputs; k++) {
      if (sfi_index_limits_of(graph, &graph->nodes[i], k, 1, &limits)) return true;
    }
  }
  return false;
}

static void destroy(sf_program *program) {
  sf_context *context = program->context;
  const sf_allocator *allocator = &context->allocator;
  sfi_slots_destroy(program);
  sfi_stock_destroy(program);
  sfi_tables_destroy(program);
  for (int32_t c = 0; c < program->n_classes; c++) {
    sfi_arena_deinit(&program->classes[c].plan.arena);
  }
  for (size_t i = 0; i < program->n_statics; i++) sfi_blob_deinit(&program->statics[i]);
  sfi_free(allocator, program->statics, program->n_statics * sizeof *program->statics);
  sf_graph_release(program->graph);
  sfi_arena_deinit(&program->arena);
  sfi_free(allocator, program, sizeof *program);
  sf_context_release(context);
}

sf_status sfi_program_build(const sf_graph *graph, sfi_pipeline *pipeline, sfi_units *units, sfi_diag *diag,
                            sf_program **out_program) {
  sf_context *context = pipeline->context;
  sf_program *program = sfi_calloc(&context->allocator, 1, sizeof *program);
  if (!program) return sfi_fail_memory(diag);
  atomic_init(&program->references, 1);
  program->context = context;
  sfi_context_retain(context);
  program->arena = pipeline->facts.arena; /* plans point to facts */
  pipeline->facts.arena.blocks = NULL;
  program->graph = pipeline->graphs[--pipeline->n_graphs];
  for (int32_t i = 0; i < pipeline->n_graphs; i++)
    sfi_graph_take_made(program->graph, pipeline->graphs[i]); /* weights wait for them */
  program->symbolic = has_symbol(program->graph);
  program->limits = sfi_symbol_limits_of(program->graph);
  program->indexed = has_indices(program->graph);
  program->classes = sfi_arena_alloc(&program->arena, (size_t)pipeline->n_plans * sizeof *program->classes);
  sf_status status = program->classes ? sfi_statics_create(program, graph, pipeline, diag) : sfi_fail_memory(diag);
  if (status != SF_OK) goto done;
  take_plans(program, pipeline);
  status = sfi_stock_create(program, graph, pipeline->plans, units, diag);
  for (int32_t c = 0; c < program->n_classes && status == SF_OK; c++) status = build_class(program, c, diag);
  if (status == SF_OK) status = sfi_slots_create(program, diag);
done:
  if (status != SF_OK) {
    destroy(program);
    return status;
  }
  detach_leaves(program);
  *out_program = program;
  return SF_OK;
}

void sf_program_retain(sf_program *program) {
  if (program) atomic_fetch_add_explicit(&program->references, 1, memory_order_relaxed);
}

void sf_program_release(sf_program *program) {
  if (program && atomic_fetch_sub_explicit(&program->references, 1, memory_order_acq_rel) == 1) destroy(program);
}

int32_t sf_program_input_count(const sf_program *program) {
  return program ? sf_graph_input_count(program->graph) : 0;
}

int32_t sf_program_output_count(const sf_program *program) {
  return program ? sf_graph_output_count(program->graph) : 0;
}

sf_status sf_program_input_info(const sf_program *program, int32_t i, sf_tensor_info *out_info) {
  if (!program || i < 0 || i >= sf_graph_input_count(program->graph)) return SF_STATUS_INVALID_ARGUMENT;
  return sf_graph_value_info(program->graph, sf_graph_input_value(program->graph, i), out_info);
}

sf_status sf_program_output_info(const sf_program *program, int32_t i, sf_tensor_info *out_info) {
  if (!program || i < 0 || i >= sf_graph_output_count(program->graph)) return SF_STATUS_INVALID_ARGUMENT;
  sf_status status = sf_graph_value_info(program->graph, sf_graph_output_value(program->graph, i), out_info);
  if (status == SF_OK) out_info->name = program->graph->outputs[i].name;
  return status;
}

sf_status sf_program_output_shape(const sf_program *program, int32_t i, int64_t symbol, sf_tensor_info *out_info) {
  sf_status status = sf_program_output_info(program, i, out_info);
  if (status != SF_OK || symbol < 0) return status != SF_OK ? status : SF_STATUS_INVALID_ARGUMENT;
  const sfi_shape *shape = &program->graph->nodes[program->graph->outputs[i].value].shape;
  for (int32_t d = 0; d < shape->rank; d++)
    if (!sfi_poly_eval(shape->dims[d], symbol, &out_info->dims[d])) return SF_STATUS_INVALID_ARGUMENT;
  return SF_OK;
}
