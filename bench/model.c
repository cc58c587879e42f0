/* sf-bench model: a whole graph by sf_run against itself with every weight filled up, so that the dense kernels are the baseline, and
 * checked against the reference back end. Also the time of a compile with an empty cache and with a full one. */
#include "bench.h"
#include "jit.h"

#include <ftw.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

enum { TENSORS_MAX = 16 };

typedef struct version {
  sf_context *context;
  sf_graph *graph;
  sf_program *program;
  sf_tensor inputs[TENSORS_MAX], outputs[TENSORS_MAX];
  double compile_ms, median_us, spread;
  int32_t kernels;
} version;

typedef struct model {
  const bench_model_options *options;
  version sparse, dense, reference;
  int32_t n_inputs, n_outputs;
  char cache[64]; /* a folder of its own */
  double warm_ms, error;
} model;

/* ---- versions ----------------------------------------------------------------------------------------------------- */

/* Every zero of the weights becomes a small number. */
static sf_status fill_up(version *v, uint64_t seed, sf_error *error) {
  sf_graph *graph = v->graph;
  for (size_t i = 0; i < graph->n_nodes; i++) {
    const sfi_node *node = &graph->nodes[i];
    if (node->op != SF_OP_WEIGHT || node->dtype != SF_F32 || node->shape.rank < 2) continue;
    size_t bytes;
    const float *from = sf_graph_value_data(graph, (sf_value)i, &bytes);
    float *to = malloc(bytes + 1);
    const int64_t n = (int64_t)(bytes / sizeof(float));
    if (from && to) {
      bench_normal(seed + i, to, n);
      for (int64_t e = 0; e < n; e++) to[e] = from[e] != 0 ? from[e] : to[e] * 1e-4f + 1e-6f;
    }
    const bool done = from && to && sf_graph_set_weight(graph, (sf_value)i, to, bytes, SF_COPY) == SF_OK;
    free(to);
    if (!done) return tool_fail(error, SF_STATUS_OUT_OF_MEMORY, NULL, 0, 0, "dense weights cannot be made");
  }
  return SF_OK;
}

static sf_status open_version(model *m, version *v, sf_isa isa, const char *cache, bool dense, sf_error *error) {
  sf_context_options context;
  sf_compile_options options;
  sf_compile_stats stats;
  SF_INIT(&context);
  SF_INIT(&options);
  SF_INIT(&stats);
  context.threads = m->options->threads;
  context.isa = isa;
  context.cache_dir = cache;
  options.error = error;
  sf_status status = sf_context_create(&context, &v->context);
  if (status != SF_OK) return tool_fail(error, status, NULL, 0, 0, "no context: %s", sf_status_text(status));
  status = sf_graph_parse_file(v->context, m->options->file, &v->graph);
  if (status != SF_OK) {
    sf_context_take_error(v->context, error);
    return status;
  }
  if (dense && (status = fill_up(v, m->options->seed, error)) != SF_OK) return status;
  status = sf_compile(v->context, v->graph, &options, &v->program, &stats);
  v->compile_ms = stats.milliseconds;
  v->kernels = stats.kernels;
  return status;
}

static void close_version(version *v) {
  sf_program_release(v->program);
  sf_graph_release(v->graph);
  sf_context_release(v->context);
  for (int i = 0; i < TENSORS_MAX; i++) free(v->outputs[i].data);
  *v = (version){0};
}

/* ---- tensors ------------------------------------------------------------------------------------------------------ */

static sf_status make_tensor(const model *m, const sf_tensor_info *info, uint64_t seed, sf_tensor *out, sf_error *error) {
  *out = (sf_tensor){.dtype = info->dtype, .rank = info->rank};
  int64_t n = 1;
  for (int32_t d = 0; d < info->rank; d++)
    n *= out->dims[d] = info->dims[d] == SF_DIM_SYMBOLIC ? m->options->symbol : info->dims[d];
  if (info->dtype != SF_F32) return tool_fail(error, SF_STATUS_UNSUPPORTED, NULL, 0, 0, "tensor %s is not f32", info->name);
  out->data = malloc((size_t)n * sizeof(float) + 1);
  if (!out->data) return tool_fail(error, SF_STATUS_OUT_OF_MEMORY, NULL, 0, 0, "no memory for tensor %s", info->name);
  bench_normal(seed, out->data, n);
  return SF_OK;
}

static sf_status make_tensors(model *m, version *v, sf_error *error) {
  sf_status status = SF_OK;
  sf_tensor_info info;
  m->n_inputs = sf_program_input_count(v->program);
  m->n_outputs = sf_program_output_count(v->program);
  if (m->n_inputs > TENSORS_MAX || m->n_outputs > TENSORS_MAX)
    return tool_fail(error, SF_STATUS_UNSUPPORTED, NULL, 0, 0, "more than %d inputs or outputs", TENSORS_MAX);
  for (int32_t i = 0; i < m->n_inputs && status == SF_OK; i++) { /* all versions read the same */
    if (v == &m->sparse) {
      sf_program_input_info(v->program, i, &info);
      status = make_tensor(m, &info, m->options->seed + (uint64_t)i, &v->inputs[i], error);
    } else {
      v->inputs[i] = m->sparse.inputs[i];
    }
  }
  for (int32_t i = 0; i < m->n_outputs && status == SF_OK; i++) {
    status = sf_program_output_shape(v->program, i, m->options->symbol, &info);
    if (status == SF_OK) status = make_tensor(m, &info, 0, &v->outputs[i], error);
  }
  return status;
}

static int64_t elements(const sf_tensor *tensor) {
  int64_t n = 1;
  for (int32_t d = 0; d < tensor->rank; d++) n *= tensor->dims[d];
  return n;
}

static sf_status run_once(const model *m, version *v, sf_error *error) {
  const sf_status status = sf_run(v->program, m->n_inputs, v->inputs, m->n_outputs, v->outputs);
  if (status != SF_OK) sf_context_take_error(v->context, error);
  return status;
}

/* Largest difference from the reference, over the largest element of that output. */
static double compare(const model *m) {
  double worst = 0;
  for (int32_t i = 0; i < m->n_outputs; i++) {
    const float *y = m->sparse.outputs[i].data, *r = m->reference.outputs[i].data;
    double difference = 0, largest = 1e-30;
    for (int64_t e = 0; e < elements(&m->reference.outputs[i]); e++) {
      const double d = fabs((double)y[e] - (double)r[e]);
      if (!(d <= difference)) difference = isnan(d) ? INFINITY : d;
      if (fabs((double)r[e]) > largest) largest = fabs((double)r[e]);
    }
    if (difference / largest > worst) worst = difference / largest;
  }
  return worst;
}

/* ---- measuring ---------------------------------------------------------------------------------------------------- */

static sf_status time_versions(model *m, sf_error *error) {
  enum { WARM_UP = 3, AT_LEAST_US = 500 };
  const int32_t rounds = m->options->rounds;
  version *versions[] = {&m->sparse, &m->dense};
  double *samples = malloc((size_t)rounds * 2 * sizeof *samples);
  sf_status status =
      samples ? SF_OK : tool_fail(error, SF_STATUS_OUT_OF_MEMORY, NULL, 0, 0, "no memory for %d rounds", (int)rounds);
  int repeats[2] = {1, 1};
  for (int32_t i = -WARM_UP; i < rounds && status == SF_OK; i++) {
    for (int v = 0; v < 2 && status == SF_OK; v++) {
      const double begin = bench_now_us();
      for (int r = 0; r < repeats[v] && status == SF_OK; r++) status = run_once(m, versions[v], error);
      const double us = (bench_now_us() - begin) / repeats[v];
      if (i == -1) repeats[v] = us < AT_LEAST_US ? (int)(AT_LEAST_US / us) + 1 : 1;
      if (i >= 0) samples[v * rounds + i] = us;
    }
  }
  for (int v = 0; v < 2 && status == SF_OK; v++)
    bench_statistics(samples + v * rounds, rounds, &versions[v]->median_us, &versions[v]->spread);
  free(samples);
  return status;
}

static void report(const model *m) {
  const bench_model_options *o = m->options;
  const double speedup = m->dense.median_us / m->sparse.median_us;
  if (o->format == BENCH_JSON) {
    fputs("{\"kind\": \"model\", \"model\": ", stdout);
    tool_json_string(stdout, o->file);
    printf(", \"symbol\": %lld, \"threads\": %d, \"kernels\": %d, \"median_us\": %.5g, \"spread\": %.4f", (long long)o->symbol,
           o->threads, (int)m->sparse.kernels, m->sparse.median_us, m->sparse.spread);
    printf(", \"peers\": {\"own-dense\": %.5g}, \"peer_spread\": {\"own-dense\": %.4f}, \"speedup_over_dense\": %.4f",
           m->dense.median_us, m->dense.spread, speedup);
    printf(", \"max_rel_error\": %.3g, \"cold_compile_ms\": %.4g, \"warm_compile_ms\": %.4g, \"rounds\": %d}\n",
           isfinite(m->error) ? m->error : -1.0, m->sparse.compile_ms, m->warm_ms, (int)o->rounds);
    return;
  }
  const bool csv = o->format == BENCH_CSV;
  puts(csv ? "model,symbol,threads,us,own dense us,over own dense,error,cold ms,warm ms"
           : "| model | symbol | threads | us | own dense us | over own dense | error | cold ms | warm ms "
             "|\n|---|---|---|---|---|---|---|---|---|");
  printf(csv ? "\"%s\",%lld,%d,%.1f,%.1f,%.2f,%.1e,%.1f,%.1f\n" : "| %s | %lld | %d | %.1f | %.1f | %.2f | %.1e | %.1f | %.1f |\n",
         o->file, (long long)o->symbol, o->threads, m->sparse.median_us, m->dense.median_us, speedup, m->error,
         m->sparse.compile_ms, m->warm_ms);
}

static sf_status measure(model *m, sf_error *error) {
  version warm = {0};
  sf_status status = open_version(m, &m->sparse, SF_ISA_NATIVE, m->cache, false, error);
  if (status == SF_OK) status = open_version(m, &warm, SF_ISA_NATIVE, m->cache, false, error);
  m->warm_ms = warm.compile_ms;
  close_version(&warm);
  if (status == SF_OK) status = open_version(m, &m->dense, SF_ISA_NATIVE, "", true, error);
  if (status == SF_OK) status = open_version(m, &m->reference, SF_ISA_REFERENCE, "", false, error);
  if (status == SF_OK) status = make_tensors(m, &m->sparse, error);
  if (status == SF_OK) status = make_tensors(m, &m->dense, error);
  if (status == SF_OK) status = make_tensors(m, &m->reference, error);
  if (status == SF_OK) status = run_once(m, &m->reference, error);
  if (status == SF_OK) status = time_versions(m, error);
  if (status == SF_OK) m->error = compare(m);
  return status;
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *walk) {
  (void)status, (void)type, (void)walk;
  return remove(path);
}

int bench_model(const bench_model_options *options) {
  model m = {.options = options, .cache = "/tmp/sf-bench-XXXXXX"};
  sf_error error = {0};
  if (!mkdtemp(m.cache)) {
    tool_fail(&error, SF_STATUS_IO_ERROR, m.cache, 0, 0, "cannot make a folder for the cache");
    tool_print_error("sf-bench", &error);
    return TOOL_FAILED;
  }
  const sf_status status = measure(&m, &error);
  if (status == SF_OK)
    report(&m);
  else
    tool_print_error("sf-bench", &error);
  for (int32_t i = 0; i < TENSORS_MAX; i++) free(m.sparse.inputs[i].data);
  close_version(&m.sparse);
  close_version(&m.dense);
  close_version(&m.reference);
  nftw(m.cache, remove_one, 8, FTW_DEPTH | FTW_PHYS);
  if (status == SF_OK && !(m.error <= BENCH_MAX_ERROR))
    fprintf(stderr, "sf-bench: %s: wrong results, error %g\n", options->file, m.error);
  return status == SF_OK && m.error <= BENCH_MAX_ERROR ? TOOL_OK : TOOL_FAILED;
}
