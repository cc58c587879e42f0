/* The order of the passes, in one list, and the driver that runs them: it alone verifies after each, prints around one, and times.
 * A pass contains none of that. */
#include "facts_text.h"
#include "ref.h"

#include <stdio.h>
#include <time.h>

typedef struct pass_row {
  const char *name;
  int32_t level; /* lowest optimisation level that runs it */
  bool emitters; /* only where a back end offers emitters */
  /* Exactly one: over the graph, before there are plans; or over the plan of each class. */
  sfi_graph_pass graph;
  sf_status (*plan)(sfi_pass_env *env, const sfi_settings *settings, sfi_plan *plan);
} pass_row;

static sf_status lower(sfi_pass_env *env, const sfi_settings *settings, sfi_plan *plan) {
  return settings->backend ? sfi_lower_to_kernels(env, plan) : sfi_lower_to_nodes(env, plan);
}

static sf_status fuse(sfi_pass_env *env, const sfi_settings *settings, sfi_plan *plan) {
  (void)settings;
  return sfi_fuse(env, plan);
}

static sf_status choose(sfi_pass_env *env, const sfi_settings *settings, sfi_plan *plan) {
  return sfi_choose(env, plan, settings->backend->emitters, settings->backend->n_emitters, settings->only);
}

static sf_status lifetimes(sfi_pass_env *env, const sfi_settings *settings, sfi_plan *plan) {
  (void)settings;
  return sfi_plan_lifetimes(env, plan);
}

static const pass_row pipeline[] = {
    /* A use that nobody needs would hold other passes back. At every level: the program keeps a graph of its own. */
    {"eliminate-dead", 0, false, .graph = sfi_eliminate_dead},
    /* What they fold to is what the others look at. At every level: a zero of an operand that depends on no input is absent, and
     * lowering knows such operands by their data. */
    {"fold-constants", 0, false, .graph = sfi_fold_constants},
    /* Before simplify, which rounds the batch norms that are left on their own. */
    {"fold-batch-norm", 1, false, .graph = sfi_fold_batch_norm},
    /* Before simplify, which clears away what put heads together again. */
    {"fuse-attention", 2, false, .graph = sfi_fuse_attention},
    {"simplify", 1, false, .graph = sfi_simplify},
    /* Behind simplify, which puts numbers behind. */
    {"compose", 2, false, .graph = sfi_compose},
    {"eliminate-common", 1, false, .graph = sfi_eliminate_common},
    /* On what is final otherwise: it cuts a copy of a weight for every use. */
    {"propagate-dead-channels", 2, false, .graph = sfi_propagate_dead_channels},
    /* Last: others need not look through the slices that it leaves. */
    {"join-products", 2, false, .graph = sfi_join_products},
    {"lower-to-kernels", 0, false, .plan = lower},
    /* Before the choice: an emitter accepts a kernel with its epilogue or not at all. */
    {"fuse", 2, true, .plan = fuse},
    {"choose", 0, true, .plan = choose},
    {"lifetimes", 0, false, .plan = lifetimes},
};
_Static_assert(SFI_COUNT(pipeline) <= SFI_GRAPHS_MAX + 4, "room for the graph of every pass");

sf_status sfi_pass_check(const char *name, sfi_diag *diag) {
  char names[512] = "";
  size_t length = 0;
  for (size_t i = 0; i < SFI_COUNT(pipeline); i++) {
    if (strcmp(pipeline[i].name, name) == 0) return SF_OK;
    length += (size_t)snprintf(names + length, sizeof names - length, "%s%s", i ? ", " : "", pipeline[i].name);
  }
  return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "no pass '%.100s'; there are: %s", name, names);
}

static double now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static bool is_traced(const sfi_pipeline *p, const pass_row *pass) {
  return p->traced && strcmp(p->traced, pass->name) == 0;
}

static void trace_graph(sfi_pipeline *p, const pass_row *pass, const char *when, const sf_graph *graph) {
  if (!is_traced(p, pass)) return;
  sfi_text_printf(p->trace, "; %s %s\n", when, pass->name);
  sfi_graph_print(graph, p->trace);
}

static void trace_plan(sfi_pipeline *p, const pass_row *pass, const char *when, const sfi_plan *plan) {
  if (!is_traced(p, pass)) return;
  sfi_text_printf(p->trace, "; %s %s, %s ", when, pass->name, plan->graph->symbol);
  sfi_class_print(p->trace, plan);
  sfi_text_printf(p->trace, "\n");
  if (plan->n_kernels == 0 && plan->n_buffers == 0) {
    sfi_graph_print(plan->graph, p->trace); /* nothing is lowered yet */
  } else {
    sfi_plan_print(plan, p->trace);
  }
}

static bool runs(const sfi_pipeline *p, const pass_row *pass) {
  return p->settings->level >= pass->level && (p->settings->backend || !pass->emitters);
}

static sf_status run_graph_pass(sfi_pipeline *p, sfi_pass_env *env, const pass_row *pass, const sf_graph *graph) {
  assert(p->n_graphs < SFI_GRAPHS_MAX);
  trace_graph(p, pass, "before", graph);
  double start = now_us();
  sf_status status = pass->graph(env, graph, &p->graphs[p->n_graphs]);
  if (status != SF_OK) return status;
  const sf_graph *made = p->graphs[p->n_graphs++];
  if ((status = sfi_graph_verify(made, p->diag)) != SF_OK) return status;
  sfi_log(p->context, SF_LOG_DEBUG, "%s: %s: %zu nodes to %zu, %.0f us", graph->name, pass->name, graph->n_nodes, made->n_nodes,
          now_us() - start);
  trace_graph(p, pass, "after", made);
  return SF_OK;
}

static sf_status run_plan_pass(sfi_pipeline *p, sfi_pass_env *env, const pass_row *pass, sfi_plan *plan) {
  trace_plan(p, pass, "before", plan);
  double start = now_us();
  sf_status status = pass->plan(env, p->settings, plan);
  if (status != SF_OK) return status;
  if ((status = sfi_plan_verify(plan, env->diag)) != SF_OK) return status;
  sfi_log(p->context, SF_LOG_DEBUG, "%s: %s: %zu kernels, %.0f us", plan->graph->name, pass->name, plan->n_kernels,
          now_us() - start);
  trace_plan(p, pass, "after", plan);
  return SF_OK;
}

/* The passes over the plan of one class. Classes share nothing but facts and the graph. */
typedef struct class_job {
  sfi_pipeline *pipeline;
  sfi_plan *plan;
  sfi_pass_env env;      /* whose diag is the job's */
  pthread_mutex_t *lock; /* of the facts */
  sfi_diag diag;
  sf_status status;
} class_job;

/* What went wrong with a weight is known to the pipeline. */
static void take_error(class_job *job) {
  if (job->diag.error.status == SF_OK) job->diag = *job->pipeline->diag;
}

static const sfi_facts *class_facts(void *user, const sfi_matrix *matrix, sfi_digest digest) {
  class_job *job = user;
  pthread_mutex_lock(job->lock);
  const sfi_facts *facts = sfi_weight_facts_get(&job->pipeline->facts, matrix, digest);
  if (!facts) take_error(job);
  pthread_mutex_unlock(job->lock);
  return facts;
}

static sfi_digest class_digest(void *user, const sfi_matrix *matrix) {
  class_job *job = user;
  pthread_mutex_lock(job->lock);
  const sfi_digest digest = sfi_weight_facts_digest(&job->pipeline->facts, matrix);
  take_error(job);
  pthread_mutex_unlock(job->lock);
  return digest;
}

static void plan_class(void *argument, int64_t c) {
  class_job *job = &((class_job *)argument)[c];
  for (size_t i = 0; i < SFI_COUNT(pipeline) && job->status == SF_OK; i++)
    if (pipeline[i].plan && runs(job->pipeline, &pipeline[i]))
      job->status = run_plan_pass(job->pipeline, &job->env, &pipeline[i], job->plan);
}

/* In parallel, but where kernels are timed, or passes printed. The first class that failed is told of. */
static sf_status run_classes(sfi_pipeline *p, class_job *jobs) {
  if (!p->traced && p->settings->tune == SF_TUNE_OFF) {
    sfi_spread(p->context, p->n_plans, plan_class, jobs);
  } else {
    for (int32_t c = 0; c < p->n_plans && (c == 0 || jobs[c - 1].status == SF_OK); c++) plan_class(jobs, c);
  }
  for (int32_t c = 0; c < p->n_plans; c++) {
    if (jobs[c].status == SF_OK) continue;
    if (p->diag->error.status == SF_OK) *p->diag = jobs[c].diag;
    return p->diag->error.status;
  }
  return SF_OK;
}

static sf_status run_plan_passes(sfi_pipeline *p, const sfi_pass_env *env) {
  const sfi_settings *settings = p->settings;
  p->plans = sfi_calloc(&p->context->allocator, (size_t)settings->n_classes, sizeof *p->plans);
  if (!p->plans) return sfi_fail_memory(p->diag);
  p->n_plans = settings->n_classes;
  const size_t bytes = (size_t)p->n_plans * sizeof(class_job);
  class_job *jobs = sfi_calloc(&p->context->allocator, 1, bytes);
  if (!jobs) return sfi_fail_memory(p->diag);
  pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  for (int32_t c = 0; c < p->n_plans; c++) {
    sfi_plan *plan = &p->plans[c];
    plan->graph = sfi_pipeline_graph(p);
    plan->target = settings->target;
    plan->symbol_min = c ? settings->bounds[c - 1] + 1 : 1;
    plan->symbol_max = settings->bounds[c];
    plan->arena.allocator = &p->context->allocator;
    jobs[c] = (class_job){.pipeline = p, .plan = plan, .env = *env, .lock = &lock};
    jobs[c].env.diag = &jobs[c].diag;
    jobs[c].env.facts = class_facts;
    jobs[c].env.digest = class_digest;
    jobs[c].env.facts_user = &jobs[c];
  }
  const sf_status status = run_classes(p, jobs);
  pthread_mutex_destroy(&lock);
  sfi_free(&p->context->allocator, jobs, bytes);
  return status;
}

void sfi_pipeline_init(sfi_pipeline *p, sf_context *context, const sfi_settings *settings, sfi_diag *diag) {
  *p = (sfi_pipeline){.context = context, .settings = settings, .diag = diag};
  p->facts = (sfi_weight_facts){.context = context, .diag = diag, .disk = !(settings->flags & SF_COMPILE_NO_CACHE)};
  p->facts.arena.allocator = &context->allocator;
  sfi_tuning_init(&p->tuning, context, settings, diag);
}

typedef struct digesting {
  const sf_graph *graph;
  const sf_value *products; /* whose weights have sources */
} digesting;

static void digest_weight(void *argument, int64_t i) {
  const digesting *d = argument;
  sfi_diag diag = {0}; /* who needs the digest asks again, and fails */
  sfi_digest digest;
  sfi_matrix matrix;
  int32_t operand;
  sfi_weight_matrix(d->graph, d->products[i], &operand, &matrix);
  sfi_source_digest(matrix.source, &diag, &digest);
}

/* Weights that are to be read for their digests are read in parallel, before the passes want them one by one. */
static sf_status digest_weights(const sfi_pipeline *p, const sf_graph *graph) {
  const sf_allocator *a = &p->context->allocator;
  const size_t bytes = graph->n_nodes * sizeof(sf_value);
  sf_value *products = sfi_alloc(a, bytes);
  if (!products) return sfi_fail_memory(p->diag);
  int64_t n = 0;
  sfi_matrix matrix;
  int32_t operand;
  for (size_t v = 0; v < graph->n_nodes; v++)
    if (sfi_weight_matrix(graph, (sf_value)v, &operand, &matrix) && matrix.source) products[n++] = (sf_value)v;
  sfi_spread(p->context, n, digest_weight, &(digesting){graph, products});
  sfi_free(a, products, bytes);
  return SF_OK;
}

sf_status sfi_pipeline_run(sfi_pipeline *p, const sf_graph *graph, bool graph_only) {
  sfi_pass_env env = {.context = p->context,
                      .diag = p->diag,
                      .facts = sfi_weight_facts_get,
                      .digest = sfi_weight_facts_digest,
                      .facts_user = &p->facts,
                      .evaluate = sfi_ref_node,
                      .judge = p->settings->tune == SF_TUNE_OFF ? NULL : sfi_tuning_judge,
                      .judge_user = &p->tuning};
  sf_status status = sfi_graph_verify(graph, p->diag);
  if (status == SF_OK && p->settings->backend) status = digest_weights(p, graph);
  for (size_t i = 0; i < SFI_COUNT(pipeline) && status == SF_OK; i++) {
    if (!pipeline[i].graph || !runs(p, &pipeline[i])) continue;
    status = run_graph_pass(p, &env, &pipeline[i], p->n_graphs ? sfi_pipeline_graph(p) : graph);
  }
  return status == SF_OK && !graph_only ? run_plan_passes(p, &env) : status;
}

void sfi_pipeline_deinit(sfi_pipeline *p) {
  for (int32_t c = 0; c < p->n_plans; c++) sfi_arena_deinit(&p->plans[c].arena);
  sfi_free(&p->context->allocator, p->plans, (size_t)p->n_plans * sizeof *p->plans);
  while (p->n_graphs > 0) sf_graph_release(p->graphs[--p->n_graphs]);
  sfi_arena_deinit(&p->facts.arena);
}
