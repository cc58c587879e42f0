/* The measuring program of tools/demo: the digits network, dense and pruned, end to end through the public API.
 *
 *   digits_demo FOLDER                   the whole demonstration on the model files in FOLDER, one screen
 *   digits_demo --start MODEL CACHE-DIR  one start: compiles MODEL and prints "ms kernels compiled hits scanned packed"
 *
 * Starts are measured in processes of their own, so that nothing but the cache directory can be warm. */
#include "npy.h"

#include <ftw.h>
#include <math.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
  N_MODELS = 2,
  IMAGE = 64,
  CLASSES = 10,
  BATCH = 64,
  WARM_STARTS = 5,
  BLOCK = 16,
  ROUNDS = 96,
  EXPLAIN_LINES = 20,
  COLUMNS = 98
};
static const char *const names[N_MODELS] = {"dense", "pruned"};

typedef struct start {
  double ms;
  int kernels, compiled, hits, scanned, packed;
} start;

typedef struct model {
  char path[1024], cache[64];
  sf_graph *graph;
  sf_program *program;
  double accuracy, zeros, latency_1, latency_batch, spread; /* latencies in microseconds */
  start cold, warm;
} model;

static int fail(const char *what, const sf_error *error) {
  if (error && error->status != SF_OK)
    tool_print_error("digits_demo", error);
  else
    fprintf(stderr, "digits_demo: %s\n", what);
  return 1;
}

static int fail_context(sf_context *context, const char *what) {
  sf_error error = {0};
  sf_context_take_error(context, &error);
  return fail(what, &error);
}

static double now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values, size_t count) {
  qsort(values, count, sizeof *values, by_value);
  return values[count / 2];
}

/* ---- starts ------------------------------------------------------------------------------------------------------- */

static int start_here(const char *path, const char *cache_dir) {
  sf_error error = {0};
  sf_context *context;
  sf_graph *graph = NULL;
  sf_program *program = NULL;
  sf_compile_stats stats;
  SF_INIT(&stats);
  const tool_options options = {.program = "digits_demo", .cache_dir = cache_dir};
  if (tool_context_create(&options, &context, &error) != SF_OK) return fail("context", &error);
  int result = 0;
  double begin = 0, end = 0;
  if (sf_graph_parse_file(context, path, &graph) == SF_OK) {
    begin = now_us();
    sf_compile(context, graph, NULL, &program, &stats);
    end = now_us();
  }
  if (!program)
    result = fail_context(context, path);
  else
    printf("%.3f %d %d %d %d %d\n", (end - begin) / 1e3, (int)stats.kernels, (int)stats.compiled,
           (int)(stats.disk_hits + stats.memory_hits), (int)stats.weights_scanned, (int)stats.weights_packed);
  sf_program_release(program);
  sf_graph_release(graph);
  sf_context_release(context);
  return result;
}

/* The same in a new process. */
static bool start_process(const model *m, start *out) {
  int ends[2];
  if (pipe(ends) != 0) return false;
  fflush(NULL);
  pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDOUT_FILENO);
    close(ends[0]);
    close(ends[1]);
    execl("/proc/self/exe", "digits_demo", "--start", m->path, m->cache, (char *)NULL);
    _exit(127);
  }
  close(ends[1]);
  FILE *in = fdopen(ends[0], "r");
  int fields = 0, code = 1;
  if (in) {
    fields = fscanf(in, "%lf %d %d %d %d %d", &out->ms, &out->kernels, &out->compiled, &out->hits, &out->scanned, &out->packed);
    fclose(in);
  }
  return child > 0 && waitpid(child, &code, 0) == child && code == 0 && fields == 6;
}

/* Cold once; warm several times: the median time, the worst of everything else. */
static bool measure_starts(model *m) {
  if (!start_process(m, &m->cold)) return false;
  double ms[WARM_STARTS];
  for (int i = 0; i < WARM_STARTS; i++) {
    start s;
    if (!start_process(m, &s)) return false;
    ms[i] = s.ms;
    if (i == 0 || s.compiled > m->warm.compiled) m->warm = s;
  }
  m->warm.ms = median(ms, WARM_STARTS);
  return true;
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *walk) {
  (void)info, (void)kind, (void)walk;
  return remove(path);
}

/* ---- answers and latency ------------------------------------------------------------------------------------------ */

static sf_status run(const model *m, const float *images, int64_t n, float *out) {
  const sf_tensor input = {(void *)images, SF_F32, 4, {n, 1, 8, 8}}, output = {out, SF_F32, 2, {n, CLASSES}};
  return sf_run(m->program, 1, &input, 1, &output);
}

static int argmax(const float *p) {
  int best = 0;
  for (int i = 1; i < CLASSES; i++)
    if (p[i] > p[best]) best = i;
  return best;
}

/* Accuracy on all images at once, and one by one; both must give the same answers. */
static bool measure_accuracy(model *m, const float *images, const int64_t *labels, int64_t n) {
  float *all = malloc((size_t)n * CLASSES * sizeof *all), one[CLASSES];
  bool good = all && run(m, images, n, all) == SF_OK;
  int right = 0;
  for (int64_t i = 0; good && i < n; i++) {
    const float *p = all + i * CLASSES;
    good = run(m, images + i * IMAGE, 1, one) == SF_OK && argmax(one) == argmax(p);
    for (int k = 0; k < CLASSES; k++) m->spread = fmax(m->spread, fabs((double)one[k] - (double)p[k]));
    right += argmax(p) == labels[i];
  }
  m->accuracy = (double)right / (double)n;
  free(all);
  return good && m->spread < 1e-5;
}

/* Medians over runs in blocks that alternate between the models, so that both see the same machine. */
static bool measure_latency(model *models, const float *images, int64_t n, int64_t batch, double out[N_MODELS]) {
  static double times[N_MODELS][ROUNDS * BLOCK];
  float results[BATCH * CLASSES];
  for (int round = -2; round < ROUNDS; round++) /* the first two warm up */
    for (int k = 0; k < N_MODELS; k++)
      for (int i = 0; i < BLOCK; i++) {
        const float *image = images + ((int64_t)i * 29 % (n - batch + 1)) * IMAGE;
        double begin = now_us();
        if (run(&models[k], image, batch, results) != SF_OK) return false;
        if (round >= 0) times[k][round * BLOCK + i] = now_us() - begin;
      }
  for (int k = 0; k < N_MODELS; k++) out[k] = median(times[k], ROUNDS * BLOCK);
  return true;
}

/* Share of zeros over the weights of matrices and convolutions. */
static double share_of_zeros(sf_context *context, const sf_graph *graph) {
  double total = 0, nonzeros = 0;
  for (sf_value v = 0; v < sf_graph_value_count(graph); v++) {
    sf_tensor_info info;
    sf_profile profile;
    SF_INIT(&profile);
    if (sf_graph_value_op(graph, v) != SF_OP_WEIGHT || sf_graph_value_info(graph, v, &info) != SF_OK || info.rank < 2 ||
        sf_graph_weight_profile(context, graph, v, &profile) != SF_OK)
      continue;
    total += (double)profile.rows * (double)profile.columns;
    nonzeros += (double)profile.nonzeros;
  }
  return total > 0 ? 1 - nonzeros / total : 0;
}

/* ---- report ------------------------------------------------------------------------------------------------------- */

static bool write_stream(void *user, const char *text, size_t length) {
  return fwrite(text, 1, length, user) == length;
}

/* The explanation of the first batch class: each kernel with its emitter, and for those with a weight its zeros and the choice. At
 * most EXPLAIN_LINES lines of at most COLUMNS bytes. */
static void explain(const sf_program *program) {
  char *text = NULL;
  size_t size;
  FILE *out = open_memstream(&text, &size);
  if (!out) return;
  sf_program_explain(program, 0, write_stream, out);
  fclose(out);
  int lines = 0, classes = 0;
  bool weighted = false;
  char *rest = text;
  for (char *line; lines < EXPLAIN_LINES && (line = strsep(&rest, "\n"));) {
    int indent = (int)strspn(line, " ");
    classes += strncmp(line, "batch ", 6) == 0;
    if (classes > 1) break;
    if (indent <= 2) weighted = false;
    if (strncmp(line + indent, "weight:", 7) == 0) weighted = true;
    if (!*line ||
        (indent > 2 && !(weighted && (strncmp(line + indent, "weight:", 7) == 0 || strncmp(line + indent, "choice:", 7) == 0))))
      continue;
    printf("%.*s%s\n", COLUMNS - 3, line, strlen(line) > COLUMNS - 3 ? "..." : "");
    lines++;
  }
  free(text);
}

static void report(const model *models) {
  const model *d = &models[0], *p = &models[1];
  printf("SparseFlow %s, handwritten digits, 500 held-out images\n", sf_version());
  printf("%-34s %12s %12s\n", "", names[0], names[1]);
  printf("%-34s %12.4f %12.4f\n", "accuracy", d->accuracy, p->accuracy);
  printf("%-34s %11.1f%% %11.1f%%\n", "zeros in the weights", 100 * d->zeros, 100 * p->zeros);
  printf("%-34s %12.1g %12.1g\n", "batch of 500 against one by one", d->spread, p->spread);
  printf("%-34s %9.1f us %9.1f us\n", "latency, 1 image (median)", d->latency_1, p->latency_1);
  printf("%-34s %9.1f us %9.1f us\n", "latency, 64 images (median)", d->latency_batch, p->latency_batch);
  printf("%-34s %9.1f ms %9.1f ms\n", "cold start, empty cache", d->cold.ms, p->cold.ms);
  printf("%-34s %12d %12d\n", "  kernels compiled", d->cold.compiled, p->cold.compiled);
  printf("%-34s %9.1f ms %9.1f ms\n", "warm start, new process", d->warm.ms, p->warm.ms);
  printf("%-34s %12d %12d\n", "  kernels compiled", d->warm.compiled, p->warm.compiled);
  printf("%-34s %6d of %2d %6d of %2d\n", "  kernels found in the cache", d->warm.hits, d->warm.kernels, p->warm.hits,
         p->warm.kernels);
  printf("%-34s %12d %12d\n", "  weights scanned or packed", d->warm.scanned + d->warm.packed, p->warm.scanned + p->warm.packed);
  printf("\nWhy the pruned program is what it is (abbreviated; all of it: sf-jit explain MODEL):\n");
  explain(p->program);
  printf("\naccuracy_dense=%.4f accuracy_pruned=%.4f zeros=%.4f latency_dense_us=%.1f latency_pruned_us=%.1f "
         "cold_ms=%.1f warm_ms=%.1f compiled=%d\n",
         d->accuracy, p->accuracy, p->zeros, d->latency_1, p->latency_1, p->cold.ms, p->warm.ms,
         d->warm.compiled + p->warm.compiled);
}

/* ---- main --------------------------------------------------------------------------------------------------------- */

static int demonstrate(sf_context *context, model *models, const sf_tensor *images, const sf_tensor *labels) {
  int64_t n = images->dims[0];
  if (images->dtype != SF_F32 || images->rank != 4 || n < BATCH || images->dims[1] * images->dims[2] * images->dims[3] != IMAGE ||
      labels->dtype != SF_I64 || labels->rank != 1 || labels->dims[0] != n)
    return fail("images.npy or labels.npy is not what train.py writes", NULL);
  for (int k = 0; k < N_MODELS; k++) {
    model *m = &models[k];
    if (!measure_starts(m)) return fail("a start in a new process failed", NULL);
    if (sf_graph_parse_file(context, m->path, &m->graph) != SF_OK) return fail_context(context, m->path);
    m->zeros = share_of_zeros(context, m->graph);
    if (sf_compile(context, m->graph, NULL, &m->program, NULL) != SF_OK) return fail_context(context, m->path);
    if (!measure_accuracy(m, images->data, labels->data, n))
      return fail_context(context, "one by one the answers differ from those at once");
  }
  double one[N_MODELS], batch[N_MODELS];
  if (!measure_latency(models, images->data, n, 1, one) || !measure_latency(models, images->data, n, BATCH, batch))
    return fail_context(context, "run");
  for (int k = 0; k < N_MODELS; k++) {
    models[k].latency_1 = one[k];
    models[k].latency_batch = batch[k];
  }
  report(models);
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 4 && strcmp(argv[1], "--start") == 0) return start_here(argv[2], argv[3]);
  if (argc != 2) return fail("usage: digits_demo FOLDER", NULL);
  char path[1024];
  model models[N_MODELS] = {0};
  sf_tensor images, labels = {0};
  sf_error error = {0};
  sf_context *context = NULL;
  int result = 1;
  snprintf(path, sizeof path, "%s/images.npy", argv[1]);
  if (npy_read(path, 1 << 24, &images, &error) != SF_OK) return fail(path, &error);
  snprintf(path, sizeof path, "%s/labels.npy", argv[1]);
  if (npy_read(path, 1 << 24, &labels, &error) != SF_OK) {
    fail(path, &error);
    goto done;
  }
  for (int k = 0; k < N_MODELS; k++) {
    snprintf(models[k].path, sizeof models[k].path, "%s/%s.sft", argv[1], names[k]);
    strcpy(models[k].cache, "/tmp/digits_demo.XXXXXX");
    if (!mkdtemp(models[k].cache)) {
      fail("no temporary directory", NULL);
      models[k].cache[0] = 0;
      goto done;
    }
  }
  const tool_options options = {.program = "digits_demo", .cache_dir = models[N_MODELS - 1].cache};
  if (tool_context_create(&options, &context, &error) != SF_OK)
    fail("context", &error);
  else
    result = demonstrate(context, models, &images, &labels);
done:
  for (int k = 0; k < N_MODELS; k++) {
    sf_program_release(models[k].program);
    sf_graph_release(models[k].graph);
    if (models[k].cache[0]) nftw(models[k].cache, remove_one, 8, FTW_DEPTH | FTW_PHYS);
  }
  sf_context_release(context);
  free(images.data);
  free(labels.data);
  return result;
}
