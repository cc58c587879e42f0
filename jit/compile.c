/* sf_compile: passes, units, program. */
#include "jit.h"

#include <time.h>

typedef struct compilation {
  sfi_settings settings;
  sfi_pipeline pipeline;
  sfi_units units;
} compilation;

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* A kernel whose unit another kernel asked for first is a hit in memory, wherever that one had it from. */
static void count_kernel(const sfi_units *units, sfi_needs needs, sf_compile_stats *stats) {
  stats->kernels++;
  if (needs.code >= 0) {
    const sfi_unit *code = &units->units[needs.code];
    sfi_origin origin = needs.first_code ? code->origin : SFI_FROM_MEMORY;
    stats->compiled += origin == SFI_MADE;
    stats->disk_hits += origin == SFI_FROM_DISK;
    stats->memory_hits += origin == SFI_FROM_MEMORY;
    if (needs.first_code) stats->code_bytes += code->bytes;
  }
  if (needs.packed >= 0 && needs.first_packed) {
    const sfi_unit *packed = &units->units[needs.packed];
    stats->weights_packed += packed->origin == SFI_MADE;
    stats->packed_bytes += packed->bytes;
  }
}

/* An arena that would be too large to count is told at the run that asks for it. */
static uint64_t arena_bytes(const sf_context *context, const sfi_plan *plan) {
  size_t bytes = 0, size = plan->n_buffers * sizeof(size_t);
  size_t *offsets = sfi_alloc(&context->allocator, size);
  if (offsets && !sfi_plan_memory(plan, 1, offsets, &bytes)) bytes = 0;
  sfi_free(&context->allocator, offsets, size);
  return bytes;
}

static void fill_stats(const sf_context *context, const compilation *c, sf_compile_stats *stats) {
  const sfi_pipeline *pipeline = &c->pipeline;
  for (int32_t p = 0; p < pipeline->n_plans; p++) {
    for (size_t k = 0; k < pipeline->plans[p].n_kernels; k++) count_kernel(&c->units, c->units.needs[p][k], stats);
  }
  stats->timed = pipeline->tuning.timed;
  stats->compiled += pipeline->tuning.compiled;
  stats->weights_packed += pipeline->tuning.packed;
  stats->weights_scanned = pipeline->facts.scanned;
  stats->arena_bytes = arena_bytes(context, &pipeline->plans[pipeline->n_plans - 1]);
}

static sf_status compile(sf_context *context, const sf_graph *graph, const sf_compile_options *options, sfi_diag *diag,
                         sf_program **out_program, sf_compile_stats *stats) {
  compilation c = {0};
  sf_status status = sfi_settings_read(context, graph, options, false, diag, &c.settings);
  if (status != SF_OK) return status;
  bool cache_only = c.settings.flags & SF_COMPILE_CACHE_ONLY;
  if (!cache_only && !out_program) return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "out_program is NULL");
  if (graph->n_outputs == 0) return sfi_fail(diag, SF_STATUS_INVALID_GRAPH, NULL, NULL, "graph '%s' has no output", graph->name);
  sfi_pipeline_init(&c.pipeline, context, &c.settings, diag);
  if ((status = sfi_pipeline_run(&c.pipeline, graph, false)) != SF_OK) goto done;
  status = sfi_units_list(&c.units, context, &c.settings, c.pipeline.plans, c.pipeline.n_plans, diag);
  if (status != SF_OK) goto done;
  const bool may_wait = !(c.settings.flags & (SF_COMPILE_NO_CACHE | SF_COMPILE_CACHE_ONLY | SF_COMPILE_PRELOAD));
  if ((status = sfi_units_obtain(&c.units, may_wait, diag)) != SF_OK) goto done;
  fill_stats(context, &c, stats); /* before the program takes the plans */
  if (!cache_only) status = sfi_program_build(graph, &c.pipeline, &c.units, diag, out_program);
done:
  sfi_units_deinit(&c.units);
  sfi_pipeline_deinit(&c.pipeline);
  return status;
}

sf_status sf_compile(sf_context *context, const sf_graph *graph, const sf_compile_options *options, sf_program **out_program,
                     sf_compile_stats *stats) {
  if (out_program) *out_program = NULL;
  if (!context) return SF_STATUS_INVALID_ARGUMENT;
  sfi_diag diag = {0};
  sf_compile_stats filled = {0};
  double start = now_ms();
  if (!graph) {
    sfi_fail(&diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "the graph is NULL");
  } else if (stats && stats->struct_size < sizeof stats->struct_size) {
    sfi_fail(&diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "struct_size of the statistics is %zu; set it with SF_INIT",
             stats->struct_size);
  } else {
    compile(context, graph, options, &diag, out_program, &filled);
    filled.milliseconds = now_ms() - start;
    if (stats) sfi_options_write(stats, &filled, sizeof filled);
    if (diag.error.status == SF_OK) {
      sfi_log(context, SF_LOG_INFO, "%s: %d kernels, %d compiled, %d from disk, %d from memory, %.1f ms", graph->name,
              filled.kernels, filled.compiled, filled.disk_hits, filled.memory_hits, filled.milliseconds);
    }
  }
  return sfi_publish(context, options, &diag);
}
