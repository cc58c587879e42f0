/* What sf-jit does with a model. See session.h. */
#include "session.h"
#include "npy.h"
#include "profile.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <time.h>

enum { MOST_WORDS = 256, MOST_RUNS = 1000000, MOST_PROFILED = 10000 };
static const size_t npy_max_bytes = (size_t)4 << 30;

static bool report(session *s, const sf_error *error) {
  char program[4200];
  if (s->script)
    snprintf(program, sizeof program, "%s: %s:%d", s->options->program, s->script, (int)s->line);
  else
    snprintf(program, sizeof program, "%s", s->options->program);
  tool_print_error(program, error);
  return false;
}

bool session_fail(session *s, const char *format, ...) {
  sf_error error = {.status = SF_STATUS_INVALID_ARGUMENT};
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(error.message, sizeof error.message, format, arguments);
  va_end(arguments);
  return report(s, &error);
}

bool session_error(session *s, sf_status status) {
  sf_error error = {0};
  if (sf_context_take_error(s->context, &error) == SF_OK) error.status = status;
  return report(s, &error);
}

bool session_open(session *s, const tool_options *options) {
  *s = (session){.options = options, .folder = "."};
  SF_INIT(&s->compile);
  sf_error error;
  if (tool_context_create(options, &s->context, &error) != SF_OK) return report(s, &error);
  return session_reset(s);
}

void session_close(session *s) {
  sf_program_release(s->program);
  sf_graph_release(s->graph);
  sf_context_release(s->context);
  *s = (session){0};
}

static void changed(session *s) {
  sf_program_release(s->program);
  s->program = NULL;
}

static bool replace(session *s, sf_graph *graph) {
  changed(s);
  sf_graph_release(s->graph);
  s->graph = graph;
  return true;
}

bool session_reset(session *s) {
  sf_graph *graph;
  sf_status status = sf_graph_create(s->context, NULL, &graph);
  return status == SF_OK ? replace(s, graph) : session_error(s, status);
}

bool session_load(session *s, const char *path) {
  sf_graph *graph;
  sf_status status = tool_graph_open(s->context, path, &s->options->dims, NULL, NULL, &graph);
  if (status != SF_OK) return session_error(s, status);
  const char *slash = strrchr(path, '/');
  snprintf(s->folder, sizeof s->folder, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
  if (slash == path) strcpy(s->folder, "/");
  return replace(s, graph);
}

bool session_lines(session *s, const char *text, size_t length) {
  sf_status status = sf_graph_parse_lines(s->graph, text, length, s->folder);
  if (status == SF_OK) {
    changed(s);
    return true;
  }
  sf_error error;
  sf_context_take_error(s->context, &error);
  if (error.line == 0) return report(s, &error);
  /* A place in the text: it is the script's. */
  snprintf(error.file, sizeof error.file, "%s", s->script ? s->script : "");
  error.line = s->line;
  if (s->joined) error.column = 0;
  tool_print_error(s->options->program, &error);
  return false;
}

static bool write_file(void *user, const char *text, size_t length) {
  return fwrite(text, 1, length, user) == length;
}

bool session_save(session *s, const char *path) {
  FILE *file = path ? fopen(path, "w") : stdout;
  if (!file) return session_fail(s, "%s: %s", path, strerror(errno));
  sf_status status = sf_graph_print(s->graph, write_file, file);
  bool bad = path ? fclose(file) != 0 : fflush(file) != 0;
  if (status != SF_OK) return session_error(s, status);
  return bad ? session_fail(s, "%s: %s", path ? path : "output", strerror(errno)) : true;
}

bool session_compile(session *s) {
  if (s->program) return true;
  SF_INIT(&s->stats);
  sf_status status = sf_compile(s->context, s->graph, &s->compile, &s->program, &s->stats);
  return status == SF_OK ? true : session_error(s, status);
}

/* ---- running ------------------------------------------------------------------------------------------------------- */

static void tensors_free(session_tensors *t) {
  for (int32_t i = 0; i < t->n_inputs; i++) free(t->inputs[i].data);
  for (int32_t i = 0; i < t->n_outputs; i++) free(t->outputs[i].data);
}

/* A tensor of the shape of `info` with the symbolic extents bound; zeroed. */
static bool allocate(session *s, const sf_tensor_info *info, int64_t symbol, sf_tensor *out) {
  *out = (sf_tensor){.dtype = info->dtype, .rank = info->rank};
  for (int32_t d = 0; d < info->rank; d++) out->dims[d] = info->dims[d] == SF_DIM_SYMBOLIC ? symbol : info->dims[d];
  size_t bytes;
  if (!npy_bytes(out, &bytes) || !(out->data = calloc(bytes ? bytes : 1, 1)))
    return session_fail(s, "%s: no memory for this shape", info->name);
  return true;
}

/* Normal numbers by the Box-Muller transform on a 64-bit linear congruential generator (Knuth's constants). */
static void fill_normal(sf_tensor *t, uint64_t seed) {
  size_t bytes;
  if (t->dtype != SF_F32 || !npy_bytes(t, &bytes)) return;
  float *x = t->data;
  for (size_t i = 0; i < bytes / sizeof *x; i++) {
    double u[2];
    for (int k = 0; k < 2; k++) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      u[k] = ((double)(seed >> 11) + 0.5) / 9007199254740992.0;
    }
    x[i] = (float)(sqrt(-2 * log(u[0])) * cos(6.283185307179586 * u[1]));
  }
}

/* Reads the inputs that `words` name, makes the others, and room for the outputs. symbol < 0: from the inputs read, else 1. The
 * tensors are to be freed even where it fails. */
static bool prepare(session *s, int n, char *const *words, int64_t symbol, session_tensors *t) {
  *t = (session_tensors){.n_inputs = 0};
  if (!session_compile(s)) return false;
  int32_t inputs = sf_program_input_count(s->program), outputs = sf_program_output_count(s->program);
  if (inputs > SESSION_TENSORS_MAX || outputs > SESSION_TENSORS_MAX)
    return session_fail(s, "more than %d inputs or outputs", SESSION_TENSORS_MAX);
  if (n > MOST_WORDS) return session_fail(s, "more than %d words", MOST_WORDS);
  sf_tensor_info info;
  bool used[MOST_WORDS] = {false};
  const char *file[SESSION_TENSORS_MAX] = {NULL};
  for (int32_t i = 0; i < inputs + outputs; i++) {
    bool in = i < inputs;
    if (in)
      sf_program_input_info(s->program, i, &info);
    else
      sf_program_output_info(s->program, i - inputs, &info);
    size_t length = strlen(info.name);
    for (int w = 0; w < n; w++)
      if (!used[w] && strncmp(words[w], info.name, length) == 0 && words[w][length] == '=') {
        used[w] = true;
        if (in)
          file[i] = words[w] + length + 1;
        else
          t->write[i - inputs] = words[w] + length + 1;
      }
  }
  for (int w = 0; w < n; w++)
    if (!used[w] && strncmp(words[w], "symbol=", 7) != 0 && strncmp(words[w], "runs=", 5) != 0)
      return session_fail(s, "\"%s\" names no input or output of the model (NAME=FILE.npy, symbol=N)", words[w]);
  t->n_inputs = inputs;
  for (int32_t i = 0; i < inputs; i++) {
    sf_error error;
    sf_program_input_info(s->program, i, &info);
    if (!file[i]) continue;
    if (npy_read(file[i], npy_max_bytes, &t->inputs[i], &error) != SF_OK) return report(s, &error);
    for (int32_t d = 0; d < info.rank && d < t->inputs[i].rank; d++) {
      int64_t extent = t->inputs[i].dims[d];
      if (info.dims[d] != SF_DIM_SYMBOLIC) continue;
      if (symbol < 0) symbol = extent;
      if (symbol == extent) continue;
      return session_fail(s, "%s: extent %d is %lld, but the symbolic dimension is %lld", info.name, (int)d, (long long)extent,
                          (long long)symbol);
    }
  }
  if (symbol < 0) symbol = 1;
  t->symbol = symbol;
  for (int32_t i = 0; i < inputs; i++) {
    sf_program_input_info(s->program, i, &info);
    if (file[i]) continue;
    if (!allocate(s, &info, symbol, &t->inputs[i])) return false;
    fill_normal(&t->inputs[i], 1 + (uint64_t)i);
  }
  t->n_outputs = outputs;
  for (int32_t i = 0; i < outputs; i++) {
    if (sf_program_output_shape(s->program, i, symbol, &info) != SF_OK) return session_error(s, SF_STATUS_INVALID_ARGUMENT);
    if (!allocate(s, &info, symbol, &t->outputs[i])) return false;
  }
  return true;
}

static bool execute(session *s, const session_tensors *t) {
  sf_status status = sf_run(s->program, t->n_inputs, t->inputs, t->n_outputs, t->outputs);
  return status == SF_OK ? true : session_error(s, status);
}

/* Shape and the first elements: at most 4 rows of 8. */
static void print_tensor(const char *name, const sf_tensor *t) {
  printf("%s: [", name);
  int64_t count = 1;
  for (int32_t d = 0; d < t->rank; d++) printf("%s%lld", d ? ", " : "", (long long)t->dims[d]), count *= t->dims[d];
  printf("]\n");
  if (t->dtype != SF_F32) return;
  int64_t columns = t->rank ? t->dims[t->rank - 1] : 1, rows = columns ? count / columns : 0;
  const float *x = t->data;
  for (int64_t r = 0; r < rows && r < 4; r++) {
    for (int64_t c = 0; c < columns && c < 8; c++) printf("  %11.5g", (double)x[r * columns + c]);
    printf(columns > 8 ? "  ...\n" : "\n");
  }
  if (rows > 4) printf("  ... %lld rows\n", (long long)rows);
}

static bool number_among(session *s, int n, char *const *words, const char *name, int64_t min, int64_t max, int64_t *value) {
  size_t length = strlen(name);
  for (int w = 0; w < n; w++)
    if (strncmp(words[w], name, length) == 0 && !tool_parse_integer(words[w] + length, min, max, value))
      return session_fail(s, "\"%s\": a whole number from %lld to %lld", words[w], (long long)min, (long long)max);
  return true;
}

bool session_run(session *s, int n, char *const *words) {
  int64_t symbol = -1;
  session_tensors t = {0};
  bool ok = number_among(s, n, words, "symbol=", 0, INT32_MAX, &symbol) && prepare(s, n, words, symbol, &t) && execute(s, &t);
  for (int32_t i = 0; ok && i < t.n_outputs; i++) {
    sf_tensor_info info;
    sf_error error;
    sf_program_output_info(s->program, i, &info);
    print_tensor(info.name, &t.outputs[i]);
    if (t.write[i] && npy_write(t.write[i], &t.outputs[i], &error) != SF_OK) ok = report(s, &error);
  }
  tensors_free(&t);
  return ok;
}

/* ---- timing -------------------------------------------------------------------------------------------------------- */

static double now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static bool timed_runs(session *s, const session_tensors *t, int runs, session_timing *out) {
  double *us = malloc((size_t)runs * sizeof *us);
  if (!us) return session_fail(s, "out of memory");
  bool ok = true;
  for (int i = 0; ok && i < 3; i++) ok = execute(s, t);
  for (int i = 0; ok && i < runs; i++) {
    double start = now_us();
    ok = execute(s, t);
    us[i] = now_us() - start;
  }
  if (ok) {
    double sum = 0, square = 0;
    for (int i = 0; i < runs; i++) sum += us[i];
    for (int i = 0; i < runs; i++) square += (us[i] - sum / runs) * (us[i] - sum / runs);
    qsort(us, (size_t)runs, sizeof *us, by_value);
    *out = (session_timing){
        .median_us = us[runs / 2], .mean_us = sum / runs, .deviation_us = sqrt(square / runs), .min_us = us[0], .runs = runs};
  }
  free(us);
  return ok;
}

bool session_time(session *s, int n, char *const *words) {
  int64_t symbol = -1, runs = 50;
  session_tensors t = {0};
  session_timing timing = {0};
  bool ok = number_among(s, n, words, "symbol=", 0, INT32_MAX, &symbol) &&
            number_among(s, n, words, "runs=", 1, MOST_RUNS, &runs) && prepare(s, n, words, symbol, &t) &&
            timed_runs(s, &t, (int)runs, &timing);
  if (ok)
    printf("median %.1f us, mean %.1f +- %.1f us, best %.1f us, %d runs\n", timing.median_us, timing.mean_us, timing.deviation_us,
           timing.min_us, timing.runs);
  tensors_free(&t);
  return ok;
}

bool session_measure(session *s, int64_t symbol, int runs, session_timing *out) {
  session_tensors t = {0};
  bool ok = prepare(s, 0, NULL, symbol, &t) && timed_runs(s, &t, runs, out);
  tensors_free(&t);
  return ok;
}

/* Times into *p, and into the trace as they come. */
static bool profiled_runs(session *s, const session_tensors *t, const char *trace, profile *p) {
  FILE *file = NULL;
  bool ok = true;
  for (int i = 0; ok && i < 3; i++) ok = execute(s, t);
  ok = ok && (!trace || profile_trace_begin(s, trace, &file));
  for (int32_t i = 0; ok && i < p->runs; i++) ok = profile_run(s, t, p, i) && (!file || profile_trace_run(s, file, p, i));
  if (file && ok) return profile_trace_end(s, file) && profile_close(s, p);
  if (file) fclose(file);
  return ok && profile_close(s, p);
}

bool session_profile(session *s, int n, char *const *words, const char *model, const char *format) {
  int64_t symbol = -1, runs = 50;
  const char *trace = NULL, *page = NULL;
  char *others[MOST_WORDS];
  int n_others = 0;
  session_tensors t = {0};
  profile p = {0};
  if (n > MOST_WORDS) return session_fail(s, "more than %d words", MOST_WORDS);
  for (int w = 0; w < n; w++) {
    if (strncmp(words[w], "trace=", 6) == 0)
      trace = words[w] + 6;
    else if (strncmp(words[w], "page=", 5) == 0)
      page = words[w] + 5;
    else
      others[n_others++] = words[w];
  }
  bool ok = number_among(s, n, words, "symbol=", 0, INT32_MAX, &symbol) &&
            number_among(s, n, words, "runs=", 1, MOST_PROFILED, &runs) && prepare(s, n_others, others, symbol, &t) &&
            profile_open(s, model, t.symbol, (int32_t)runs, &p) && profiled_runs(s, &t, trace, &p);
  if (ok) profile_print(stdout, &p, format);
  ok = ok && (!page || profile_page_write(s, page, &p));
  profile_free(&p);
  tensors_free(&t);
  return ok;
}

/* ---- looking ------------------------------------------------------------------------------------------------------- */

bool session_explain(session *s, const char *format) {
  if (!session_compile(s)) return false;
  const bool json = strcmp(format, "json") == 0;
  if (!json && strcmp(format, "md") != 0) return session_fail(s, "an explanation is md (text) or json, not %s", format);
  sf_status status = sf_program_explain(s->program, SF_EXPLAIN_MEASURE | (json ? SF_EXPLAIN_JSON : 0), write_file, stdout);
  return status == SF_OK ? true : session_error(s, status);
}

bool session_emit(session *s, const char *stage, const char *kernel) {
  static const char *const names[] = {"graph", "canonical", "facts", "kernels", "llvm", "asm"};
  sf_stage at = SF_STAGE_GRAPH;
  const char *pass = stage;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strcmp(names[i], stage) == 0) at = (sf_stage)i, pass = NULL;
  sf_status status = sf_emit(s->context, s->graph, &s->compile, at, kernel, pass, write_file, stdout);
  return status == SF_OK ? true : session_error(s, status);
}

bool session_zeros(session *s, const char *name) {
  if (name) {
    sf_value v = sf_graph_find(s->graph, name[0] == '%' ? name + 1 : name);
    if (v == SF_NO_VALUE) return session_fail(s, "no value or weight is named \"%s\"", name);
    return picture_print(s, v, name);
  }
  printf("%-32s %14s %8s %8s %6s %8s %6s\n", "weight", "rows x columns", "zeros", "n:m", "block", "dead r/c", "row");
  for (sf_value v = 0; v < sf_graph_value_count(s->graph); v++) {
    sf_tensor_info info;
    sf_profile p;
    SF_INIT(&p);
    if (sf_graph_value_op(s->graph, v) != SF_OP_WEIGHT) continue;
    sf_graph_value_info(s->graph, v, &info);
    sf_status status = sf_graph_weight_profile(s->context, s->graph, v, &p);
    if (status != SF_OK) return session_error(s, status);
    double total = (double)p.rows * (double)p.columns;
    char shape[32], nm[16] = "-", block[16] = "-", dead[24];
    snprintf(shape, sizeof shape, "%lld x %lld", (long long)p.rows, (long long)p.columns);
    if (p.nm_m) snprintf(nm, sizeof nm, "%d:%d", (int)p.nm_n, (int)p.nm_m);
    if (p.block_rows * p.block_columns > 1) snprintf(block, sizeof block, "%dx%d", (int)p.block_rows, (int)p.block_columns);
    snprintf(dead, sizeof dead, "%lld/%lld", (long long)p.dead_rows, (long long)p.dead_columns);
    printf("%-32.32s %14s %7.1f%% %8s %6s %8s %6lld\n", info.name, shape, total > 0 ? 100 - 100 * (double)p.nonzeros / total : 0.0,
           nm, block, dead, (long long)p.row_median);
  }
  return true;
}
