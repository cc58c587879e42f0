/* sf_run: tensors checked, the symbol bound, an instance taken from the program's pool, addresses resolved, kernels executed.
 * An instance belongs to one run at a time and keeps its arena and its last memory plan: once as many exist as runs overlap, a run
 * neither allocates nor waits. */
#include "jit.h"

enum { SLOTS_MIN = 64, LINE = 64 };
/* Chunks a thread: some, so that a thread that comes late leaves its share to the others, and more of a long kernel, at whose end all wait for
 * the last one; but none that is shorter than handing it over. A host's own threads may take each for a job. */
enum { CHUNKS_A_THREAD = 4, CHUNKS_A_THREAD_MOST = 16 };

typedef struct instance {
  const sfi_class *class; /* of the launches; NULL: none are prepared */
  int64_t symbol;
  uint8_t *arena;
  size_t arena_bytes;
  size_t *offsets; /* one a buffer of the largest class; SIZE_MAX: not in the arena */
  void **bases;    /* the same: addresses in this run */
  void **operands; /* of all kernels, one after the other */
  sfi_launch *launches;
} instance;

struct sfi_slot {
  _Alignas(LINE) atomic_int taken; /* a line for each, so that runs on different slots share nothing */
  instance *instance;              /* NULL until the slot is first used */
};

/* ---- instances ---------------------------------------------------------------------------------------------------- */

typedef struct sizes {
  size_t buffers, operands, kernels;
} sizes;

static sizes sizes_of(const sf_program *program) {
  sizes s = {0};
  for (int32_t c = 0; c < program->n_classes; c++) {
    const sfi_class *class = &program->classes[c];
    if (class->plan.n_buffers > s.buffers) s.buffers = class->plan.n_buffers;
    if (class->n_operands > s.operands) s.operands = class->n_operands;
    if (class->plan.n_kernels > s.kernels) s.kernels = class->plan.n_kernels;
  }
  return s;
}

static void destroy_instance(const sf_program *program, instance *in) {
  if (!in) return;
  const sf_allocator *allocator = &program->context->allocator;
  sizes s = sizes_of(program);
  sfi_free(allocator, in->arena, in->arena_bytes);
  sfi_free(allocator, in->offsets, s.buffers * sizeof *in->offsets);
  sfi_free(allocator, in->bases, s.buffers * sizeof *in->bases);
  sfi_free(allocator, in->operands, s.operands * sizeof *in->operands);
  sfi_free(allocator, in->launches, s.kernels * sizeof *in->launches);
  sfi_free(allocator, in, sizeof *in);
}

static instance *create_instance(const sf_program *program) {
  const sf_allocator *allocator = &program->context->allocator;
  sizes s = sizes_of(program);
  instance *in = sfi_calloc(allocator, 1, sizeof *in);
  if (!in) return NULL;
  in->offsets = sfi_calloc(allocator, s.buffers, sizeof *in->offsets);
  in->bases = sfi_calloc(allocator, s.buffers, sizeof *in->bases);
  in->operands = sfi_calloc(allocator, s.operands, sizeof *in->operands);
  in->launches = sfi_calloc(allocator, s.kernels, sizeof *in->launches);
  if (in->offsets && in->bases && in->operands && in->launches) return in;
  destroy_instance(program, in);
  return NULL;
}

sf_status sfi_slots_create(sf_program *program, sfi_diag *diag) {
  int32_t n = program->context->threads * 2 > SLOTS_MIN ? program->context->threads * 2 : SLOTS_MIN;
  program->slots = sfi_calloc(&program->context->allocator, (size_t)n, sizeof *program->slots);
  if (!program->slots) return sfi_fail_memory(diag);
  program->n_slots = n;
  for (int32_t i = 0; i < n; i++) atomic_init(&program->slots[i].taken, 0);
  return SF_OK;
}

void sfi_slots_destroy(sf_program *program) {
  for (int32_t i = 0; i < program->n_slots; i++) destroy_instance(program, program->slots[i].instance);
  sfi_free(&program->context->allocator, program->slots, (size_t)program->n_slots * sizeof *program->slots);
}

/* A free slot, or NULL where more runs overlap than there are slots. A thread finds the slot of its last run first, so that its
 * arena is warm and slots are not created beyond need. */
static sfi_slot *take_slot(sf_program *program) {
  uint64_t self = (uint64_t)(uintptr_t)pthread_self() * UINT64_C(0x9e3779b97f4a7c15);
  uint32_t start = (uint32_t)(self >> 32) % (uint32_t)program->n_slots;
  for (int32_t i = 0; i < program->n_slots; i++) {
    sfi_slot *slot = &program->slots[(start + (uint32_t)i) % (uint32_t)program->n_slots];
    int free = 0;
    if (atomic_compare_exchange_strong_explicit(&slot->taken, &free, 1, memory_order_acquire, memory_order_relaxed)) return slot;
  }
  return NULL;
}

static void give_slot(sfi_slot *slot) {
  atomic_store_explicit(&slot->taken, 0, memory_order_release);
}

/* ---- tensors ------------------------------------------------------------------------------------------------------ */

typedef struct signature {
  const sf_program *program;
  const char *kind; /* "input" or "output" */
  int32_t n;        /* expected */
} signature;

static sf_status fail_tensor(sfi_diag *diag, const signature *s, int32_t i, const char *name, const char *problem) {
  return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, NULL, name, "%s %d '%s': %s", s->kind, i, name ? name : "", problem);
}

/* Binds the symbol where `*symbol` is negative and the extent is symbolic. */
static sf_status check_dims(sfi_diag *diag, const signature *s, int32_t i, const char *name, const sfi_shape *shape,
                            const sf_tensor *tensor, int64_t *symbol) {
  for (int32_t d = 0; d < shape->rank; d++) {
    sfi_poly dim = shape->dims[d];
    if (!sfi_is_const(dim) && *symbol < 0) {
      if (tensor->dims[d] < 0) return fail_tensor(diag, s, i, name, "an extent is negative");
      *symbol = tensor->dims[d]; /* an input's extent is a number or the symbol itself */
    }
    int64_t extent;
    if (!sfi_poly_eval(dim, *symbol < 0 ? 1 : *symbol, &extent)) return fail_tensor(diag, s, i, name, "an extent is too large");
    if (tensor->dims[d] != extent) {
      return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, NULL, name, "%s %d '%s': extent %d is %lld, must be %lld%s", s->kind, i,
                      name ? name : "", d, (long long)tensor->dims[d], (long long)extent,
                      sfi_is_const(dim) ? "" : " with the symbolic dimension of the first input that has it");
    }
  }
  return SF_OK;
}

/* *out_empty: it has no elements, so its address does not matter. */
static sf_status check_tensor(sfi_diag *diag, const signature *s, int32_t i, const char *name, sf_value value,
                              const sf_tensor *tensor, int64_t *symbol, bool *out_empty) {
  const sfi_node *node = &s->program->graph->nodes[value];
  const sfi_dtype_info *dtype = sfi_dtype_of(node->dtype);
  if (tensor->dtype != node->dtype) {
    return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, NULL, name, "%s %d '%s': the element type must be %s", s->kind, i,
                    name ? name : "", dtype->text);
  }
  if (tensor->rank != node->shape.rank) {
    return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, NULL, name, "%s %d '%s': rank %d, must be %d", s->kind, i, name ? name : "",
                    tensor->rank, node->shape.rank);
  }
  sf_status status = check_dims(diag, s, i, name, &node->shape, tensor, symbol);
  if (status != SF_OK) return status;
  int64_t bytes = (int64_t)dtype->bytes;
  *out_empty = false;
  for (int32_t d = 0; d < tensor->rank; d++) {
    *out_empty = *out_empty || tensor->dims[d] == 0;
    if (!sfi_mul(bytes, tensor->dims[d], &bytes)) bytes = 0;
  }
  if (*out_empty) return SF_OK;
  if (bytes == 0) return fail_tensor(diag, s, i, name, "the size overflows");
  if (!tensor->data) return fail_tensor(diag, s, i, name, "data is NULL");
  if ((uintptr_t)tensor->data % dtype->bytes) return fail_tensor(diag, s, i, name, "data is not aligned to its elements");
  return SF_OK;
}

static sf_status check_count(sfi_diag *diag, const signature *s, int32_t n, const sf_tensor *tensors) {
  if (n == s->n && (tensors || n == 0)) return SF_OK;
  return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "%d %ss given, '%s' has %d", tensors ? n : 0, s->kind,
                  s->program->graph->name, s->n);
}

static sf_status check_symbol(const sf_program *program, int64_t symbol, sfi_diag *diag) {
  const sfi_symbol_limits *limits = &program->limits;
  const sf_value v = symbol < limits->least ? limits->at_least : symbol > limits->most ? limits->at_most : SF_NO_VALUE;
  if (v == SF_NO_VALUE) return SF_OK;
  const sfi_node *node = &program->graph->nodes[v];
  return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, &node->place, sfi_op_of(node->op)->text,
                  "'%s' is %lld; this operation needs %lld at %s", program->graph->symbol, (long long)symbol,
                  (long long)(symbol < limits->least ? limits->least : limits->most), symbol < limits->least ? "least" : "most");
}

/* Kernels trust their indices. */
static sf_status check_indices(const sf_program *program, const sf_tensor *inputs, int64_t symbol, sfi_diag *diag) {
  const sf_graph *graph = program->graph;
  for (size_t v = 0; program->indexed && v < graph->n_nodes; v++) {
    const sfi_node *node = &graph->nodes[v];
    sfi_index_limits limits;
    for (int32_t k = 0; k < node->n_inputs; k++) {
      if (!sfi_index_limits_of(graph, node, k, symbol, &limits) || sfi_is_static(graph, limits.leaf)) continue;
      int32_t i = 0;
      int64_t count = 1, wrong;
      while (graph->inputs[i] != limits.leaf) i++;
      for (int32_t d = 0; d < inputs[i].rank; d++) count *= inputs[i].dims[d];
      if (sfi_within_count(inputs[i].dtype, inputs[i].data, count, &limits, &wrong)) continue;
      return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, &node->place, graph->nodes[limits.leaf].name,
                      "input %d '%s': index %lld is outside %lld to %lld, which %s takes", i, graph->nodes[limits.leaf].name,
                      (long long)wrong, (long long)limits.least, (long long)limits.most, sfi_op_of(node->op)->text);
    }
  }
  return SF_OK;
}

/* May the value stand where the input does? An append to it, where nothing else reads it. */
static bool in_place(const sf_graph *graph, sf_value value, sf_value input) {
  const sfi_node *node = &graph->nodes[value];
  int32_t uses = 0;
  for (size_t v = 0; v < graph->n_nodes; v++) {
    for (int32_t k = 0; k < graph->nodes[v].n_inputs; k++) uses += graph->nodes[v].inputs[k] == input;
  }
  for (size_t i = 0; i < graph->n_outputs; i++) uses += graph->outputs[i].value == input;
  return node->op == SF_OP_APPEND && node->inputs[0] == input && uses == 1;
}

static sf_status check_tensors(const sf_program *program, int32_t n_inputs, const sf_tensor *inputs, int32_t n_outputs,
                               const sf_tensor *outputs, sfi_diag *diag, int64_t *out_symbol) {
  const sf_graph *graph = program->graph;
  signature in = {program, "input", (int32_t)graph->n_inputs}, out = {program, "output", (int32_t)graph->n_outputs};
  int64_t symbol = program->symbolic ? -1 : 1;
  bool empty;
  sf_status status;
  if ((status = check_count(diag, &in, n_inputs, inputs)) != SF_OK) return status;
  if ((status = check_count(diag, &out, n_outputs, outputs)) != SF_OK) return status;
  for (int32_t i = 0; i < n_inputs; i++) {
    sf_value value = graph->inputs[i];
    status = check_tensor(diag, &in, i, graph->nodes[value].name, value, &inputs[i], &symbol, &empty);
    if (status != SF_OK) return status;
  }
  if ((status = check_symbol(program, symbol, diag)) != SF_OK || (status = check_indices(program, inputs, symbol, diag)) != SF_OK)
    return status;
  for (int32_t i = 0; i < n_outputs; i++) {
    const char *name = graph->outputs[i].name;
    status = check_tensor(diag, &out, i, name, graph->outputs[i].value, &outputs[i], &symbol, &empty);
    if (status != SF_OK) return status;
    if (empty) continue;
    for (int32_t j = 0; j < n_inputs; j++) {
      if (inputs[j].data == outputs[i].data && !in_place(graph, graph->outputs[i].value, graph->inputs[j]))
        return fail_tensor(diag, &out, i, name, "data is that of an input");
    }
    for (int32_t j = 0; j < i; j++) {
      if (outputs[j].data == outputs[i].data) return fail_tensor(diag, &out, i, name, "data is that of another output");
    }
  }
  *out_symbol = symbol;
  return SF_OK;
}

/* ---- binding ------------------------------------------------------------------------------------------------------ */

/* The class of 0 is the unbounded one: only it must expect extents of 0. */
sfi_class *sfi_class_of(const sf_program *program, int64_t symbol) {
  sfi_class *class = program->classes;
  if (symbol == 0) return &program->classes[program->n_classes - 1];
  while (symbol > class->symbol_max) class ++;
  return class;
}

static int64_t chunks_of(const sf_context *context, int64_t tiles, double cost_us) {
  if (cost_us <= context->worth_spreading_us) return 1;
  const int64_t least = (int64_t)context->threads * CHUNKS_A_THREAD, most = (int64_t)context->threads * CHUNKS_A_THREAD_MOST;
  const double worth = context->parallel_for ? 0 : cost_us / context->target.spread_us;
  return sfi_max(1, sfi_min(tiles, worth > (double)most ? most : sfi_max(least, (int64_t)worth)));
}

sfi_launch sfi_launch_of(const sf_context *context, const sfi_plan *plan, const sfi_kernel *kernel, sf_kernel_fn fn,
                         int64_t symbol) {
  sfi_launch launch = {.kernel = kernel, .fn = fn, .tiles = sfi_kernel_tiles(kernel, symbol), .chunks = 1};
  if (fn && context->threads > 1)
    launch.chunks = (int32_t)chunks_of(context, launch.tiles, kernel->emitter->cost(kernel, plan, symbol));
  if (!fn && kernel->node == SF_NO_VALUE) {
    sfi_buffer_bytes(&plan->buffers[kernel->operand[0].buffer], symbol, &launch.copy_bytes);
  }
  return launch;
}

/* Tiles and chunks of every kernel at `symbol`, and where TEMP buffers lie. Grows the arena. */
static sf_status prepare(const sf_program *program, instance *in, const sfi_class *class, int64_t symbol, sfi_diag *diag) {
  const sf_context *context = program->context;
  const sfi_plan *plan = &class->plan;
  in->class = NULL; /* until all is prepared */
  size_t bytes;
  if (!sfi_plan_memory(plan, symbol, in->offsets, &bytes)) {
    return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL,
                    "the symbolic dimension %lld needs more memory than can be counted", (long long)symbol);
  }
  if (bytes > in->arena_bytes) {
    uint8_t *arena = sfi_alloc(&context->allocator, bytes);
    if (!arena) return sfi_fail(diag, SF_STATUS_OUT_OF_MEMORY, NULL, NULL, "no memory for an arena of %zu bytes", bytes);
    sfi_free(&context->allocator, in->arena, in->arena_bytes);
    in->arena = arena;
    in->arena_bytes = bytes;
  }
  void **operands = in->operands;
  for (size_t k = 0; k < plan->n_kernels; k++) {
    in->launches[k] = sfi_launch_of(context, plan, &plan->kernels[k], class->loaded[k].fn, symbol);
    in->launches[k].operands = operands;
    operands += plan->kernels[k].n_operands;
  }
  in->class = class;
  in->symbol = symbol;
  return SF_OK;
}

static void resolve(instance *in, const sf_tensor *inputs, const sf_tensor *outputs) {
  const sfi_class *class = in->class;
  const sfi_plan *plan = &class->plan;
  for (size_t b = 0; b < plan->n_buffers; b++) {
    const sfi_buffer *buffer = &plan->buffers[b];
    switch (buffer->kind) {
    case SFI_BUFFER_INPUT:
      in->bases[b] = inputs[buffer->index].data;
      break;
    case SFI_BUFFER_OUTPUT:
      in->bases[b] = outputs[buffer->index].data;
      break;
    case SFI_BUFFER_TEMP:
      in->bases[b] = in->arena + in->offsets[b];
      break;
    default:
      in->bases[b] = class->fixed[b];
    }
  }
  for (size_t k = 0; k < plan->n_kernels; k++) {
    const sfi_kernel *kernel = &plan->kernels[k];
    for (int32_t o = 0; o < kernel->n_operands; o++) in->launches[k].operands[o] = in->bases[kernel->operand[o].buffer];
  }
}

/* ---- the call ----------------------------------------------------------------------------------------------------- */

static sf_status check_room(const sfi_launch *launches, size_t n, sf_run_profile *profile, sfi_diag *diag) {
  int64_t chunks = 0;
  for (size_t k = 0; k < n; k++) chunks += launches[k].chunks;
  if (chunks <= profile->capacity && (profile->spans || chunks == 0)) {
    profile->count = (int32_t)chunks;
    return SF_OK;
  }
  return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "the profile has room for %d spans, this run has %lld",
                  profile->spans ? (int)profile->capacity : 0, (long long)chunks);
}

/* `profile`: NULL, or where times go. */
static sf_status run(sf_program *program, const sf_tensor *inputs, const sf_tensor *outputs, int64_t symbol,
                     sf_run_profile *profile, sfi_diag *diag) {
  sfi_class *class = sfi_class_of(program, symbol);
  sf_status status = sfi_class_load(program, class, diag);
  if (status != SF_OK) return status;
  sfi_slot *slot = take_slot(program);
  instance *in = slot ? slot->instance : NULL;
  if (!in && !(in = create_instance(program))) {
    status = sfi_fail_memory(diag);
    goto done;
  }
  if (slot) slot->instance = in;
  if (in->class != class || in->symbol != symbol) status = prepare(program, in, class, symbol, diag);
  if (status == SF_OK && profile) status = check_room(in->launches, class->plan.n_kernels, profile, diag);
  if (status == SF_OK) {
    resolve(in, inputs, outputs);
    sfi_execute(program->context, program->graph, in->launches, class->plan.n_kernels, symbol, profile ? profile->spans : NULL);
  }
  if (!slot) destroy_instance(program, in);
done:
  if (slot) give_slot(slot);
  return status;
}

static sf_status check_and_run(sf_program *program, int32_t n_inputs, const sf_tensor *inputs, int32_t n_outputs,
                               const sf_tensor *outputs, sf_run_profile *profile, sfi_diag *diag) {
  int64_t symbol = 1;
  sf_status status = check_tensors(program, n_inputs, inputs, n_outputs, outputs, diag, &symbol);
  if (status == SF_OK) status = sfi_tables_read(program, inputs, diag);
  if (status == SF_OK) status = run(program, inputs, outputs, symbol, profile, diag);
  if (status != SF_OK) sfi_context_keep_error(program->context, &diag->error);
  return status;
}

sf_status sf_run(sf_program *program, int32_t n_inputs, const sf_tensor *inputs, int32_t n_outputs, const sf_tensor *outputs) {
  if (!program) return SF_STATUS_INVALID_ARGUMENT;
  sfi_diag diag = {0};
  return check_and_run(program, n_inputs, inputs, n_outputs, outputs, NULL, &diag);
}

sf_status sf_run_profiled(sf_program *program, int32_t n_inputs, const sf_tensor *inputs, int32_t n_outputs,
                          const sf_tensor *outputs, sf_run_profile *profile) {
  if (!program) return SF_STATUS_INVALID_ARGUMENT;
  sfi_diag diag = {0};
  sf_run_profile times;
  if (!profile || !sfi_options_read(&times, sizeof times, profile) || times.struct_size < sizeof times) {
    sfi_fail(&diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "the profile is NULL or lacks its struct_size; set it with SF_INIT");
    return sfi_publish(program->context, NULL, &diag);
  }
  times.begin_ns = sfi_now_ns();
  times.count = 0;
  sf_status status = check_and_run(program, n_inputs, inputs, n_outputs, outputs, &times, &diag);
  times.end_ns = sfi_now_ns();
  sfi_options_write(profile, &times, sizeof times);
  return status;
}
