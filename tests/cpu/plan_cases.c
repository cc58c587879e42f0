/* See plan_cases.h. */
#include "plan_cases.h"
#include "bound.h"
#include "jit.h"
#include "random_graph.h"
#include "ref_vectors.h"

#include <check.h>
#include <stdlib.h>

/* Passes over one graph for the store's target. */
typedef struct passes {
  sfi_settings settings;
  sfi_pipeline pipeline;
  sfi_diag diag;
} passes;

static void run_passes(passes *p, const kernel_store *store, const sf_graph *graph, int32_t level) {
  sf_compile_options options;
  SF_INIT(&options);
  options.flags = SF_COMPILE_NO_CACHE;
  options.opt_level = level + 1;
  options.isa = store->target->isa;
  *p = (passes){.diag = {{0}}};
  sf_status st = sfi_settings_read(graph->context, graph, &options, true, &p->diag, &p->settings);
  sfi_pipeline_init(&p->pipeline, graph->context, &p->settings, &p->diag);
  if (st == SF_OK) st = sfi_pipeline_run(&p->pipeline, graph, false);
  ck_assert_msg(st == SF_OK, "%s on %s: %s", graph->name, store->target->name, p->diag.error.message);
}

/* The class that sf_run would take. */
static const sfi_plan *plan_at(const passes *p, int64_t symbol) {
  int32_t c = 0;
  while (c + 1 < p->pipeline.n_plans && (symbol == 0 || symbol > p->settings.bounds[c])) c++;
  return &p->pipeline.plans[c];
}

/* ---- one case ----------------------------------------------------------------------------------------------------- */

typedef struct plan_case {
  kernel_case data;
  const sfi_plan *plan;
  sfi_blob *own; /* one a buffer: packed and static data */
  const sf_tensor *inputs, *want, *allowed;
} plan_case;

static void fill_buffer(plan_case *c, size_t b) {
  const sfi_buffer *from = &c->plan->buffers[b];
  case_buffer *to = &c->data.buffers[b];
  size_t bytes = 0;
  to->role = CASE_GIVEN;
  if (from->kind != SFI_BUFFER_PACKED) ck_assert(sfi_buffer_bytes(from, c->data.symbol, &bytes));
  to->bytes = bytes;
  switch (from->kind) {
  case SFI_BUFFER_INPUT:
    to->exact = 1;
    to->given = c->inputs[from->index].data;
    break;
  case SFI_BUFFER_OUTPUT:
    to->exact = 1;
    to->role = CASE_RESULT;
    to->want = c->want[from->index].data;
    to->allowed = c->allowed[from->index].data;
    break;
  case SFI_BUFFER_STATIC: {
    const sfi_node *node = &c->plan->graph->nodes[from->value];
    sfi_diag diag = {0};
    const void *data = sfi_node_open(node, &diag);
    ck_assert(data && sfi_blob_init(&c->own[b], &sfi_default_allocator, bytes));
    memcpy(c->own[b].data, data, node->bytes);
    sfi_node_close(node);
    to->given = c->own[b].data;
    break;
  }
  case SFI_BUFFER_TEMP:
    to->role = CASE_SCRATCH;
    break;
  case SFI_BUFFER_PACKED: /* with its kernel */
    break;
  }
}

static void fill_launch(plan_case *c, kernel_store *store, size_t k) {
  const sfi_kernel *kernel = &c->plan->kernels[k];
  case_launch *launch = &c->data.launches[k];
  sfi_diag diag = {0};
  launch->n_operands = kernel->n_operands;
  for (int32_t i = 0; i < kernel->n_operands; i++) launch->operand[i] = kernel->operand[i].buffer;
  launch->kernel = kernel->emitter ? kernel_store_add(store, c->plan, kernel) : CASE_COPY;
  launch->tiles = sfi_kernel_tiles(kernel, c->data.symbol);
  if (!kernel->emitter || kernel->anchor != SFI_ANCHOR_CONTRACT) return;
  const int32_t b = kernel->operand[2].buffer;
  sfi_kernel opened = *kernel;
  const bool packed = sfi_matrix_open(&opened.contract.matrix, &diag) &&
                      opened.emitter->pack(&opened, c->plan, &sfi_default_allocator, &diag, &c->own[b]) == SF_OK;
  ck_assert_msg(packed, "%s: %s", kernel->name, diag.error.message);
  sfi_matrix_close(&opened.contract.matrix);
  c->data.buffers[b].given = c->own[b].data;
  c->data.buffers[b].bytes = c->own[b].size;
}

static int run_plan(kernel_store *store, const passes *p, int64_t symbol, const sf_tensor *inputs, const sf_tensor *want,
                    const sf_tensor *allowed, const char *name, plan_case_fn use, void *user) {
  plan_case c = {.plan = plan_at(p, symbol), .inputs = inputs, .want = want, .allowed = allowed};
  for (size_t k = 0; k < c.plan->n_kernels; k++)
    if (!c.plan->kernels[k].emitter && c.plan->kernels[k].node != SF_NO_VALUE) return 0;
  snprintf(c.data.name, sizeof c.data.name, "%s on %s, level %d, symbol %lld", name, store->target->name, p->settings.level,
           (long long)symbol);
  c.data.symbol = symbol;
  c.data.n_buffers = (int32_t)c.plan->n_buffers;
  c.data.n_launches = (int32_t)c.plan->n_kernels;
  c.data.buffers = calloc(c.plan->n_buffers + 1, sizeof *c.data.buffers);
  c.data.launches = calloc(c.plan->n_kernels + 1, sizeof *c.data.launches);
  c.own = calloc(c.plan->n_buffers + 1, sizeof *c.own);
  ck_assert(c.data.buffers && c.data.launches && c.own);
  for (size_t b = 0; b < c.plan->n_buffers; b++) fill_buffer(&c, b);
  for (size_t k = 0; k < c.plan->n_kernels; k++) fill_launch(&c, store, k);
  use(user, &c.data);
  for (size_t b = 0; b < c.plan->n_buffers; b++) sfi_blob_deinit(&c.own[b]);
  free(c.data.buffers);
  free(c.data.launches);
  free(c.own);
  return 1;
}

/* ---- graphs ------------------------------------------------------------------------------------------------------- */

/* Tensors of the outputs' shapes. */
static sf_tensor *outputs_at(const sf_graph *graph, int64_t symbol) {
  sf_tensor *out = calloc(graph->n_outputs + 1, sizeof *out);
  ck_assert_ptr_nonnull(out);
  for (size_t i = 0; i < graph->n_outputs; i++) {
    const sfi_shape *shape = &graph->nodes[graph->outputs[i].value].shape;
    out[i] = (sf_tensor){.dtype = SF_F64, .rank = shape->rank};
    for (int32_t d = 0; d < shape->rank; d++) ck_assert(sfi_poly_eval(shape->dims[d], symbol, &out[i].dims[d]));
    out[i].data = calloc((size_t)sf_tensor_count(&out[i]) + 1, sizeof(double));
    ck_assert_ptr_nonnull(out[i].data);
  }
  return out;
}

static void free_tensors(sf_tensor *tensors, size_t n) {
  for (size_t i = 0; i < n; i++) free(tensors[i].data);
  free(tensors);
}

static int run_graph(kernel_store *store, const passes *p, const sf_graph *graph, int64_t symbol, const sf_tensor *inputs,
                     const char *name, plan_case_fn use, void *user) {
  sf_tensor *want = outputs_at(graph, symbol), *allowed = outputs_at(graph, symbol);
  ck_assert(sf_bounded_run(graph, symbol, inputs, want, allowed));
  int calls = run_plan(store, p, symbol, inputs, want, allowed, name, use, user);
  free_tensors(want, graph->n_outputs);
  free_tensors(allowed, graph->n_outputs);
  return calls;
}

static int run_vectors(kernel_store *store, const sf_graph *graph, const sf_vectors *v, const char *name, plan_case_fn use,
                       void *user) {
  passes p;
  run_passes(&p, store, graph, 2);
  int calls = run_graph(store, &p, graph, v->symbol, v->inputs, name, use, user);
  sfi_pipeline_deinit(&p.pipeline);
  return calls;
}

int plan_cases_operation(kernel_store *store, sf_op op, plan_case_fn use, void *user) {
  const char *name = sfi_op_of(op)->text;
  sf_vectors v;
  ck_assert(sf_vectors_open(name, SF_ISA_NATIVE, &v)); /* compiled for the store's target */
  int whole = run_vectors(store, v.graph, &v, name, use, user), calls = whole;
  for (size_t i = 0; whole == 0 && i < v.graph->n_outputs; i++) {
    sf_graph seen = *v.graph, *one = NULL; /* with one output, and what that needs */
    sfi_pass_env env = {.context = v.context, .diag = &(sfi_diag){{0}}};
    char output[128];
    seen.outputs = &v.graph->outputs[i];
    seen.n_outputs = 1;
    ck_assert_int_eq(sfi_eliminate_dead(&env, &seen, &one), SF_OK);
    snprintf(output, sizeof output, "%s %s", name, seen.outputs[0].name);
    calls += run_vectors(store, one, &v, output, use, user);
    sf_graph_release(one);
  }
  sf_vectors_close(&v);
  return calls;
}

static bool is_symbolic(const sf_graph *graph) {
  for (size_t i = 0; i < graph->n_inputs; i++)
    for (int32_t d = 0; d < graph->nodes[graph->inputs[i]].shape.rank; d++)
      if (!sfi_is_const(graph->nodes[graph->inputs[i]].shape.dims[d])) return true;
  return false;
}

/* The graph at several values of its symbol, on random inputs. */
static int run_at_extents(kernel_store *store, const sf_graph *graph, int32_t level, uint64_t seed, bool special, const char *name,
                          plan_case_fn use, void *user) {
  static const int64_t extents[] = {1, 0, 5, 17};
  passes p;
  int calls = 0;
  run_passes(&p, store, graph, level);
  for (size_t i = 0; i < (is_symbolic(graph) ? SFI_COUNT(extents) : 1); i++) {
    sf_random_tensors given;
    sf_random_tensors_make(graph, seed + i, special, SF_F32, extents[i], &given);
    calls += run_graph(store, &p, graph, extents[i], given.inputs, name, use, user);
    sf_random_tensors_free(&given);
  }
  sfi_pipeline_deinit(&p.pipeline);
  return calls;
}

static sf_context *plain_context(void) {
  sf_context_options options;
  sf_context *context;
  SF_INIT(&options);
  options.cache_dir = "";
  ck_assert_int_eq(sf_context_create(&options, &context), SF_OK);
  return context;
}

int plan_cases_random(kernel_store *store, uint64_t seed, plan_case_fn use, void *user) {
  sf_context *context = plain_context();
  const sf_random_graph_options options = {
      .operations = 10, .special = seed % 5 == 0, .large = seed % 2 == 0, .siblings = seed % 3 == 0};
  sf_graph *graph = sf_random_graph(context, seed, &options);
  char name[64];
  ck_assert_ptr_nonnull(graph);
  snprintf(name, sizeof name, "random graph %llu", (unsigned long long)seed);
  int calls = run_at_extents(store, graph, seed % 3 ? 2 : 0, seed, options.special, name, use, user);
  sf_graph_release(graph);
  sf_context_release(context);
  return calls;
}

static int run_file(kernel_store *store, const char *path, plan_case_fn use, void *user) {
  sf_context *context = plain_context();
  char whole[512];
  sf_graph *graph;
  snprintf(whole, sizeof whole, SFI_SOURCE_DIR "/%s", path);
  ck_assert_int_eq(sf_graph_parse_file(context, whole, &graph), SF_OK);
  int calls = run_at_extents(store, graph, 2, 1, false, path, use, user);
  sf_graph_release(graph);
  sf_context_release(context);
  return calls;
}

int plan_cases_files(kernel_store *store, plan_case_fn use, void *user) {
  static const char *const paths[] = {"examples/digits/dense.sft", "examples/digits/pruned.sft",
                                      "tests/cpu/graphs/strided-residual.sft"};
  int calls = 0;
  for (size_t i = 0; i < SFI_COUNT(paths); i++) calls += run_file(store, paths[i], use, user);
  return calls;
}
