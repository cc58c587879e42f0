/* sf-warm: compiles models ahead of time into the kernel cache, for any targets and batch classes, and reports. Runs any number of
 * times, beside running programs and beside itself: the cache takes care of both. A client of the public API. */
#include "manifest.h"
#include "options.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static const char help[] =
    "usage: sf-warm [OPTION]... [MODEL]...\n"
    "Compile the kernels and pack the weights of models ahead of time, into the cache that programs read.\n"
    "\n"
    "  -m, --manifest FILE    also warm the models that FILE names (YAML: models, targets, batch; see below)\n"
    "  -t, --target LIST      comma-separated targets instead of the manifest's: native, avx2, avx512, neon\n"
    "  -b, --batch LIST       upper bounds of the batch classes instead of the manifest's, ascending: 1,16\n"
    "      --tune LEVEL       time the emitters that may be best and keep the verdicts: off (default), fast, full\n"
    "      --calibrate        predict times by rates measured on this machine, once; they stay in the cache\n"
    "      --check            compile nothing; name what would compile, and end with 3 if there is something\n"
    "      --json             report as JSON\n"
    "      --dim NAME=N       extent of an ONNX model's dimension; may be given again\n"
    "      --cache-dir DIR    cache directory; default $XDG_CACHE_HOME/sparseflow or ~/.cache/sparseflow\n"
    "      --max-size SIZE    size the cache may have: 256M, 2G\n"
    "      --prune            afterwards remove what was least recently used until the cache fits --max-size\n"
    "  -j, --threads N        threads to compile on; default: all cores\n"
    "  -q, --quiet            no progress on standard error\n"
    "  -v, --verbose          the library's log on standard error\n"
    "  -h, --help             this text\n"
    "  -V, --version          the library's version\n"
    "\n"
    "The report goes to standard output: for each model and target the kernels, those found in the cache (hits), those compiled,\n"
    "weights packed, kernels timed, time and bytes. A terminal gets a progress bar on standard error, anything else plain lines.\n"
    "\n"
    "Manifest:\n"
    "  targets: [avx512, avx2]\n"
    "  batch: [1, 16]\n"
    "  models:\n"
    "    - digits/dense.sft            # beside the manifest\n"
    "    - path: digits/pruned.sft\n"
    "      targets: [native]           # instead of those above\n"
    "      batch: [1, 64]\n"
    "\n"
    "Exit status: 0 all is warm; 1 a model, a file or the cache failed, the other models were still done; 2 the command line or "
    "the\n"
    "manifest is wrong, nothing was done; 3 --check found something that would compile.\n";

typedef struct options {
  tool_options tool;
  manifest manifest;
  manifest_targets targets; /* count 0: not given */
  tool_classes classes;     /* count 0: not given */
  bool check, json, prune, quiet;
} options;

/* One model for one target. */
typedef struct job {
  const char *model;
  sf_isa target;
  sf_status status;
  int32_t kernels, hits, compiled, packed, timed; /* --check: entries, found, missing, 0, 0 */
  double milliseconds;
  uint64_t code_bytes, packed_bytes;
  char *missing; /* lines, or JSON objects with commas between, of what is not in the cache; NULL: nothing was probed */
  size_t missing_size;
} job;

typedef struct run {
  const options *options;
  sf_context *context;
  job *jobs;
  size_t n_jobs, n_done;
  bool bar; /* progress on a terminal */
} run;

/* ---- options ------------------------------------------------------------------------------------------------------ */

#define WRONG(...) tool_wrong("sf-warm", __VA_ARGS__)

static bool add_target(void *user, const char *word) {
  return manifest_add_target(user, word);
}

static bool read_manifest(manifest *m, const char *path) {
  sf_error error = {0};
  char *text;
  size_t size;
  sf_status status = tool_read_file(path, 1 << 20, &text, &size, &error);
  if (status == SF_OK) {
    status = manifest_parse(m, text, size, path, &error);
    free(text);
  }
  if (status != SF_OK) tool_print_error("sf-warm", &error);
  return status == SF_OK;
}

/* TOOL_GO_ON, or the exit code. */
static int read_options(int argc, char **argv, options *o) {
  enum { CHECK = 256, JSON, MAX_SIZE, PRUNE };
  static const struct option names[] = {TOOL_OPTIONS,
                                        TOOL_OPTIONS_COMPILING,
                                        {"manifest", required_argument, NULL, 'm'},
                                        {"target", required_argument, NULL, 't'},
                                        {"batch", required_argument, NULL, 'b'},
                                        {"check", no_argument, NULL, CHECK},
                                        {"json", no_argument, NULL, JSON},
                                        {"max-size", required_argument, NULL, MAX_SIZE},
                                        {"prune", no_argument, NULL, PRUNE},
                                        {"threads", required_argument, NULL, 'j'},
                                        {"quiet", no_argument, NULL, 'q'},
                                        {NULL, 0, NULL, 0}};
  bool manifest_given = false;
  int64_t threads;
  int code;
  for (int c; (c = getopt_long(argc, argv, "m:t:b:j:qvhV", names, NULL)) != -1;) switch (c) {
    case 'm':
      if (manifest_given) return WRONG("--manifest %s: only one manifest", optarg);
      manifest_given = true;
      if (!read_manifest(&o->manifest, optarg)) return TOOL_USAGE;
      break;
    case 't':
      o->targets.count = 0;
      if (!tool_each_word(optarg, add_target, &o->targets))
        return WRONG("--target %s: not a list of native, avx2, avx512, neon", optarg);
      break;
    case 'b':
      if (!tool_classes_parse(optarg, &o->classes)) return WRONG("--batch %s: not ascending whole numbers above 0", optarg);
      break;
    case CHECK:
      o->check = true;
      break;
    case JSON:
      o->json = true;
      break;
    case MAX_SIZE:
      if (!tool_parse_size(optarg, &o->tool.cache_max_bytes) || !o->tool.cache_max_bytes)
        return WRONG("--max-size %s: not a size such as 256M", optarg);
      break;
    case PRUNE:
      o->prune = true;
      break;
    case 'j':
      if (!tool_parse_integer(optarg, 1, 1024, &threads)) return WRONG("--threads %s: not a number from 1 to 1024", optarg);
      o->tool.threads = (int32_t)threads;
      break;
    case 'q':
      o->quiet = true;
      break;
    default:
      if ((code = tool_option(&o->tool, c, optarg, help)) != TOOL_GO_ON) return code;
    }
  for (int i = optind; i < argc; i++)
    if (manifest_add_model(&o->manifest, argv[i]) != SF_OK) return WRONG("out of memory");
  if (o->tool.cache_dir && !*o->tool.cache_dir) return WRONG("--cache-dir \"\": it warms a cache");
  if (o->check && o->prune) return WRONG("--check only looks: it does not go with --prune");
  if (o->manifest.n_models == 0 && !o->prune) return WRONG("no model is named");
  return TOOL_GO_ON;
}

/* ---- jobs --------------------------------------------------------------------------------------------------------- */

static const manifest_targets *targets_of(const options *o, const manifest_model *model) {
  static const manifest_targets native = {1, {SF_ISA_NATIVE}};
  return o->targets.count            ? &o->targets
         : model->targets.count      ? &model->targets
         : o->manifest.targets.count ? &o->manifest.targets
                                     : &native;
}

static const tool_classes *classes_of(const options *o, const manifest_model *model) {
  return o->classes.count ? &o->classes : model->classes.count ? &model->classes : &o->manifest.classes;
}

static void show_progress(const run *r, const job *j) {
  if (r->options->quiet) return;
  const char *target = tool_isa_name(j->target);
  if (!r->bar) {
    fprintf(stderr, "[%zu/%zu] %s %s\n", r->n_done + 1, r->n_jobs, j->model, target);
    return;
  }
  enum { WIDTH = 24 };
  char bar[WIDTH + 1];
  size_t full = r->n_done * WIDTH / r->n_jobs;
  for (size_t i = 0; i < WIDTH; i++) bar[i] = i < full ? '#' : '.';
  bar[WIDTH] = 0;
  size_t length = strlen(j->model);
  fprintf(stderr, "\r\033[K[%s] %zu/%zu %s %s", bar, r->n_done + 1, r->n_jobs, length > 30 ? j->model + length - 30 : j->model,
          target);
}

/* Takes the bar away, so that other lines stand alone; the next show_progress draws it again. */
static void clear_progress(const run *r) {
  if (r->bar) fputs("\r\033[K", stderr);
}

static void fail_job(const run *r, job *j, const sf_error *error) {
  j->status = error->status;
  clear_progress(r);
  tool_print_error("sf-warm", error);
}

typedef struct probe {
  const run *run;
  job *job;
  FILE *out;
} probe;

static void note_entry(void *user, const char *entry, sf_probe_state state, const char *reason) {
  static const char *const states[] = {"hit", "missing", "stale", "foreign"};
  const probe *p = user;
  p->job->kernels++;
  if (state == SF_PROBE_HIT) {
    p->job->hits++;
    return;
  }
  p->job->compiled++;
  if (!p->run->options->json) {
    fprintf(p->out, "would compile: %s %s: %s: %s%s%s\n", p->job->model, tool_isa_name(p->job->target), entry, states[state],
            *reason ? ": " : "", reason);
    return;
  }
  fputs(p->job->compiled > 1 ? ", {\"entry\": " : "{\"entry\": ", p->out);
  tool_json_string(p->out, entry);
  fprintf(p->out, ", \"state\": \"%s\", \"reason\": ", states[state]);
  tool_json_string(p->out, reason);
  fputc('}', p->out);
}

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* The error of the library's last failing call. */
static sf_error take_error(const run *r, sf_status status, const char *file) {
  sf_error error;
  if (sf_context_take_error(r->context, &error) == SF_OK) tool_fail(&error, status, file, 0, 0, "%s", sf_status_text(status));
  return error;
}

static sf_status check_job(const run *r, job *j, const sf_graph *graph, const sf_compile_options *o) {
  FILE *out = open_memstream(&j->missing, &j->missing_size);
  if (!out) return SF_STATUS_OUT_OF_MEMORY;
  probe p = {r, j, out};
  double begin = now_ms();
  sf_status status = sf_probe(r->context, graph, o, note_entry, &p);
  j->milliseconds = now_ms() - begin;
  if (fclose(out) != 0 && status == SF_OK) status = SF_STATUS_OUT_OF_MEMORY;
  return status;
}

static void count_missing(void *user, const char *entry, sf_probe_state state, const char *reason) {
  (void)entry, (void)reason;
  *(int *)user += state != SF_PROBE_HIT;
}

static void warm_job(const run *r, job *j, const sf_graph *graph, const sf_compile_options *o) {
  sf_compile_stats stats;
  SF_INIT(&stats);
  sf_error error = {0};
  sf_status status = sf_compile(r->context, graph, o, NULL, &stats);
  if (status != SF_OK) {
    error = take_error(r, status, j->model);
    fail_job(r, j, &error);
    return;
  }
  j->kernels = stats.kernels;
  j->hits = stats.disk_hits + stats.memory_hits;
  j->compiled = stats.compiled;
  j->packed = stats.weights_packed;
  j->timed = stats.timed;
  j->milliseconds = stats.milliseconds;
  j->code_bytes = stats.code_bytes;
  j->packed_bytes = stats.packed_bytes;
  if (stats.compiled + stats.weights_packed + stats.timed == 0) return;
  /* To the library a disk that takes nothing is no error; here it is the whole purpose. */
  int missing = 0;
  if ((status = sf_probe(r->context, graph, o, count_missing, &missing)) != SF_OK)
    error = take_error(r, status, j->model);
  else if (missing)
    tool_fail(&error, SF_STATUS_IO_ERROR, j->model, 0, 0, "%d entries could not be kept in the cache", missing);
  if (error.status != SF_OK) fail_job(r, j, &error);
}

static void do_model(run *r, const manifest_model *model, job *jobs, int32_t n_jobs) {
  sf_graph *graph = NULL;
  sf_status status = tool_graph_open(r->context, model->path, &r->options->tool.dims, NULL, NULL, &graph);
  sf_error error;
  if (status != SF_OK) error = take_error(r, status, model->path);
  const tool_classes *classes = classes_of(r->options, model);
  for (int32_t i = 0; i < n_jobs; i++, r->n_done++) {
    job *j = &jobs[i];
    show_progress(r, j);
    if (!graph) {
      if (i == 0)
        fail_job(r, j, &error);
      else
        j->status = error.status;
      continue;
    }
    sf_compile_options o;
    SF_INIT(&o);
    o.flags = SF_COMPILE_CACHE_ONLY;
    o.isa = j->target;
    o.n_classes = classes->count;
    o.classes = classes->count ? classes->bounds : NULL;
    if (!r->options->check) {
      warm_job(r, j, graph, &o);
    } else if ((status = check_job(r, j, graph, &o)) != SF_OK) {
      error = take_error(r, status, j->model);
      fail_job(r, j, &error);
    }
  }
  sf_graph_release(graph);
}

/* ---- report ------------------------------------------------------------------------------------------------------- */

static job total_of(const run *r) {
  job t = {.model = "total"};
  for (size_t i = 0; i < r->n_jobs; i++) {
    const job *j = &r->jobs[i];
    if (j->status != SF_OK) t.status = j->status;
    t.kernels += j->kernels;
    t.hits += j->hits;
    t.compiled += j->compiled;
    t.packed += j->packed;
    t.timed += j->timed;
    t.milliseconds += j->milliseconds;
    t.code_bytes += j->code_bytes;
    t.packed_bytes += j->packed_bytes;
  }
  return t;
}

static void text_job(const job *j, const char *target, int width, bool check) {
  printf("%-*s %-9s ", width, j->model, target);
  if (j->status != SF_OK && j->kernels == 0)
    printf("%s\n", sf_status_text(j->status));
  else if (check)
    printf("%8d %8d %8d %10.1f\n", (int)j->kernels, (int)j->hits, (int)j->compiled, j->milliseconds);
  else
    printf("%8d %8d %8d %8d %8d %10.1f %10.1f %10.1f\n", (int)j->kernels, (int)j->hits, (int)j->compiled, (int)j->packed,
           (int)j->timed, j->milliseconds, (double)j->code_bytes / 1024, (double)j->packed_bytes / 1024);
}

static void report_text(const run *r, const sf_cache_stats *cache) {
  int width = 5;
  for (size_t i = 0; i < r->n_jobs; i++) {
    if (r->jobs[i].missing) fputs(r->jobs[i].missing, stdout);
    int length = (int)strlen(r->jobs[i].model);
    if (length > width) width = length;
  }
  bool check = r->options->check;
  if (r->n_jobs) {
    printf("%-*s %-9s ", width, "model", "target");
    if (check)
      printf("%8s %8s %8s %10s\n", "entries", "hits", "missing", "ms");
    else
      printf("%8s %8s %8s %8s %8s %10s %10s %10s\n", "kernels", "hits", "compiled", "packed", "timed", "ms", "code KiB",
             "packed KiB");
    for (size_t i = 0; i < r->n_jobs; i++) text_job(&r->jobs[i], tool_isa_name(r->jobs[i].target), width, check);
    job total = total_of(r);
    text_job(&total, "", width, check);
  }
  printf("cache %s: %lld entries, %.1f of %.1f MiB, %lld removed\n", cache->directory, (long long)cache->entries,
         (double)cache->bytes / (1 << 20), (double)cache->max_bytes / (1 << 20), (long long)cache->removed);
}

static void json_counts(const job *j) {
  printf(
      "\"kernels\": %d, \"hits\": %d, \"misses\": %d, \"packed\": %d, \"timed\": %d, \"milliseconds\": %.3f, \"code_bytes\": %llu, "
      "\"packed_bytes\": %llu",
      (int)j->kernels, (int)j->hits, (int)j->compiled, (int)j->packed, (int)j->timed, j->milliseconds,
      (unsigned long long)j->code_bytes, (unsigned long long)j->packed_bytes);
}

static void report_json(const run *r, const sf_cache_stats *cache) {
  printf("{\"version\": \"%s\", \"check\": %s,\n \"jobs\": [", sf_version(), r->options->check ? "true" : "false");
  for (size_t i = 0; i < r->n_jobs; i++) {
    const job *j = &r->jobs[i];
    fputs(i ? ",\n  {\"model\": " : "\n  {\"model\": ", stdout);
    tool_json_string(stdout, j->model);
    printf(", \"target\": \"%s\", \"status\": \"%s\", ", tool_isa_name(j->target), sf_status_text(j->status));
    json_counts(j);
    if (j->missing) printf(", \"missing\": [%s]", j->missing);
    putchar('}');
  }
  job total = total_of(r);
  printf("],\n \"total\": {");
  json_counts(&total);
  printf("},\n \"cache\": {\"directory\": ");
  tool_json_string(stdout, cache->directory);
  printf(", \"entries\": %lld, \"bytes\": %llu, \"max_bytes\": %llu, \"removed\": %lld}}\n", (long long)cache->entries,
         (unsigned long long)cache->bytes, (unsigned long long)cache->max_bytes, (long long)cache->removed);
}

/* ---- main --------------------------------------------------------------------------------------------------------- */

static bool make_jobs(run *r) {
  const manifest *m = &r->options->manifest;
  for (size_t i = 0; i < m->n_models; i++) r->n_jobs += (size_t)targets_of(r->options, &m->models[i])->count;
  r->jobs = calloc(r->n_jobs ? r->n_jobs : 1, sizeof *r->jobs);
  if (!r->jobs) return false;
  job *j = r->jobs;
  for (size_t i = 0; i < m->n_models; i++) {
    const manifest_targets *targets = targets_of(r->options, &m->models[i]);
    for (int32_t k = 0; k < targets->count; k++) *j++ = (job){.model = m->models[i].path, .target = targets->isa[k]};
  }
  return true;
}

static int warm(const options *o) {
  run r = {.options = o, .bar = !o->quiet && isatty(STDERR_FILENO)};
  sf_error error = {0};
  int result = TOOL_FAILED;
  sf_cache_stats cache;
  SF_INIT(&cache);
  if (tool_context_create(&o->tool, &r.context, &error) != SF_OK) goto failed;
  sf_status status = sf_cache_measure(r.context, &cache);
  if (status != SF_OK) {
    error = take_error(&r, status, o->tool.cache_dir);
    goto failed;
  }
  if (!cache.directory[0]) {
    tool_fail(&error, SF_STATUS_IO_ERROR, o->tool.cache_dir, 0, 0, "no usable cache directory");
    goto failed;
  }
  if (!make_jobs(&r)) {
    tool_fail(&error, SF_STATUS_OUT_OF_MEMORY, NULL, 0, 0, "out of memory");
    goto failed;
  }
  job *j = r.jobs;
  for (size_t i = 0; i < o->manifest.n_models; i++) {
    int32_t count = targets_of(o, &o->manifest.models[i])->count;
    do_model(&r, &o->manifest.models[i], j, count);
    j += count;
  }
  clear_progress(&r);
  status = o->prune ? sf_cache_prune(r.context, cache.max_bytes, &cache) : sf_cache_measure(r.context, &cache);
  if (status != SF_OK) {
    error = take_error(&r, status, o->tool.cache_dir);
    goto failed;
  }
  (o->json ? report_json : report_text)(&r, &cache);
  job total = total_of(&r);
  result = total.status != SF_OK ? TOOL_FAILED : o->check && total.compiled ? TOOL_WOULD_COMPILE : TOOL_OK;
  if (fflush(stdout) != 0) {
    perror("sf-warm: report");
    result = TOOL_FAILED;
  }
  goto done;
failed:
  clear_progress(&r);
  tool_print_error("sf-warm", &error);
done:
  for (size_t i = 0; r.jobs && i < r.n_jobs; i++) free(r.jobs[i].missing);
  free(r.jobs);
  sf_context_release(r.context);
  return result;
}

int main(int argc, char **argv) {
  options o = {.tool.program = "sf-warm"};
  int result = read_options(argc, argv, &o);
  if (result == TOOL_GO_ON) result = warm(&o);
  manifest_deinit(&o.manifest);
  return result;
}
