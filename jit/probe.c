/* sf_probe: would compiling a graph hit the cache? And the public calls that measure and prune it. */
#include "jit.h"

#include <stdio.h>

static sf_status probe(sf_context *context, const sf_graph *graph, const sf_compile_options *options, sfi_diag *diag,
                       sf_probe_fn fn, void *user) {
  sfi_settings settings;
  sfi_pipeline pipeline;
  sfi_units units = {0};
  sf_status status = sfi_settings_read(context, graph, options, true, diag, &settings);
  if (status != SF_OK) return status;
  sfi_pipeline_init(&pipeline, context, &settings, diag);
  pipeline.tuning.look_only = true;
  pipeline.tuning.report = fn;
  pipeline.tuning.report_user = user;
  if ((status = sfi_pipeline_run(&pipeline, graph, false)) != SF_OK) goto done;
  if ((status = sfi_units_list(&units, context, &settings, pipeline.plans, pipeline.n_plans, diag)) != SF_OK) goto done;
  for (size_t i = 0; i < units.n; i++) {
    const sfi_unit *unit = &units.units[i];
    char entry[160], reason[160];
    sf_probe_state state = sfi_unit_probe(&units, unit, reason, sizeof reason);
    snprintf(entry, sizeof entry, "%s %s", unit->kind == SFI_ENTRY_OBJECT ? "code" : "weight", unit->kernel->name);
    fn(user, entry, state, state == SF_PROBE_HIT ? "" : reason);
  }
done:
  sfi_units_deinit(&units);
  sfi_pipeline_deinit(&pipeline);
  return status;
}

sf_status sf_probe(sf_context *context, const sf_graph *graph, const sf_compile_options *options, sf_probe_fn fn, void *user) {
  if (!context) return SF_STATUS_INVALID_ARGUMENT;
  sfi_diag diag = {0};
  if (!graph || !fn) {
    sfi_fail(&diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "%s is NULL", graph ? "fn" : "the graph");
  } else {
    probe(context, graph, options, &diag, fn, user);
  }
  return sfi_publish(context, options, &diag);
}

/* max_bytes NULL: measure only. */
static sf_status survey(sf_context *context, const uint64_t *max_bytes, sf_cache_stats *out_stats) {
  if (!context) return SF_STATUS_INVALID_ARGUMENT;
  sfi_diag diag = {0};
  sf_cache_stats stats = {0};
  if (!out_stats || out_stats->struct_size < sizeof out_stats->struct_size) {
    sfi_fail(&diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL,
             "the statistics are NULL or lack their struct_size; set it with SF_INIT");
  } else {
    sfi_cache *cache = context->jit->cache;
    sf_status status = max_bytes ? sfi_cache_prune(cache, *max_bytes, &stats) : sfi_cache_measure(cache, &stats);
    sfi_options_write(out_stats, &stats, sizeof stats);
    if (status != SF_OK) sfi_fail(&diag, status, NULL, NULL, "the cache directory '%s' cannot be surveyed", stats.directory);
  }
  return sfi_publish(context, NULL, &diag);
}

sf_status sf_cache_measure(sf_context *context, sf_cache_stats *out_stats) {
  return survey(context, NULL, out_stats);
}

sf_status sf_cache_prune(sf_context *context, uint64_t max_bytes, sf_cache_stats *out_stats) {
  return survey(context, &max_bytes, out_stats);
}
