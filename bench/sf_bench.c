/* sf-bench: measures our kernels against other libraries, in one process, on one matrix. See bench/README.md. */
#include "bench.h"

#include <getopt.h>
#include <stdlib.h>

static const char help[] =
    "usage: sf-bench spmm  (--matrix FILE | --rows M --cols K) [--columns LIST] [OPTION]...\n"
    "       sf-bench gemm  (--matrix FILE | --rows M --cols K) [--columns LIST] [OPTION]...\n"
    "       sf-bench conv  (--matrix FILE | --rows O --channels C --kernel K) --image HxW [--stride S] [--pad P] [OPTION]...\n"
    "       sf-bench model --model FILE [--symbol N] [OPTION]...\n"
    "       sf-bench --list | --machine\n"
    "Time Y = W X with W known beforehand, turn by turn with other libraries, and check every result against sums in fp64.\n"
    "\n"
    "  -m, --matrix FILE     W: .smtx, .mtx, .npy, or FILE.safetensors:TENSOR; outputs are rows\n"
    "  -r, --rows M          without --matrix: random normal weights of this size,\n"
    "  -k, --cols K          scaled by rows and columns as trained layers are\n"
    "  -z, --zeros PERCENT   prune by magnitude to so many zeros\n"
    "  -p, --pattern NAME    within a pattern: unstructured (default), coin (rows and columns alike), N:M, N:MxR (shared by R "
    "rows),\n"
    "                        N:Mv (down the columns), RxC (blocks), dead (rows and columns)\n"
    "  -n, --columns LIST    columns of X: 1,16,128; a line of output each; default 128\n"
    "  -t, --threads T       default 1; pinned\n"
    "  -l, --layout NAME     row: X[K][N] in and out, conversions counted (default); tokens: X[N][K]; panel: every engine's X and "
    "Y\n"
    "                        in its own layout, as between the layers of a network\n"
    "  -P, --peers LIST      names of --list, emitters too, \"all\" (default) or \"none\"\n"
    "  -e, --emitter NAME    ours by this emitter, instead of the one that the library chooses\n"
    "  -R, --runs R          rounds after the warm-up; default 30\n"
    "  -f, --format NAME     json (default), md, csv; --json: the same as --format json\n"
    "  -s, --seed S          of everything random; default 1\n"
    "      --batch B         conv: images; default 1\n"
    "      --list            emitters and peers\n"
    "      --machine         the machine and its measured peaks, as JSON\n"
    "\n"
    "Exit status: 0 done; 1 a file could not be read, or our result is wrong or missing; 2 the command line is wrong.\n";

typedef struct options {
  const char *kind, *matrix, *pattern, *peers, *emitter, *columns;
  int64_t rows, cols, channels, kernel, height, width, stride, pad, batch, threads, runs, seed;
  double zeros; /* share; < 0: not given */
  bench_layout layout;
  bench_format format;
  bench_model_options model;
} options;

static int usage(const char *format, const char *what) {
  fputs("sf-bench: ", stderr);
  fprintf(stderr, format, what);
  fputs("\nTry 'sf-bench --help'.\n", stderr);
  return TOOL_USAGE;
}

/* ---- lists -------------------------------------------------------------------------------------------------------- */

static void print_peer(void *user, const bench_peer *peer) {
  char text[256];
  peer->describe(text, sizeof text);
  fprintf(user, "%-14s %s\n", peer->name, text);
}

static int list(void) {
  puts("emitters:");
  for (size_t i = 0; bench_emitter(i); i++) puts(bench_emitter(i));
  puts("peers:");
  bench_peers_each(print_peer, stdout);
  return TOOL_OK;
}

/* ---- one problem -------------------------------------------------------------------------------------------------- */

enum { ENGINES_MAX = 32 };

typedef struct contest {
  const bench_problem *problem;
  bench_engine engines[ENGINES_MAX];
  int32_t n;
  bool unknown;
} contest;

static bool add_engine(void *user, const char *name) {
  contest *c = user;
  if (c->n == ENGINES_MAX) return false;
  c->unknown = !bench_engine_open(name, c->problem, &c->engines[c->n]);
  if (c->unknown)
    fprintf(stderr, "sf-bench: no peer \"%s\"; see --list\n", name);
  else
    c->n++;
  return !c->unknown;
}

static void add_peer(void *user, const bench_peer *peer) {
  add_engine(user, peer->name);
}

static int contest_run(const options *o, const bench_matrix *matrix, const bench_problem *problem, const bench_machine *machine,
                       bool first) {
  contest *c = calloc(1, sizeof *c);
  bench_data data = {0};
  sf_error error = {0};
  int code = TOOL_FAILED;
  if (!c) return code;
  c->problem = problem;
  add_engine(c, o->emitter ? o->emitter : "ours");
  if (strcmp(o->peers, "all") == 0)
    bench_peers_each(add_peer, c);
  else if (strcmp(o->peers, "none") != 0 && !tool_each_word(o->peers, add_engine, c)) {
    code = c->unknown ? TOOL_USAGE : usage("--peers %s: not a list of names", o->peers);
    goto done;
  }
  if (bench_data_make(problem, (uint64_t)o->seed + 100, &data, &error) != SF_OK ||
      bench_measure(problem, &data, c->engines, c->n, (int32_t)o->runs, &error) != SF_OK) {
    tool_print_error("sf-bench", &error);
    goto done;
  }
  const bench_row row = {o->kind, matrix, problem, machine, c->engines, c->n, (int32_t)o->runs};
  bench_report(stdout, &row, o->format, first);
  if (!c->engines[0].peer)
    fprintf(stderr, "sf-bench: %s: %s\n", c->engines[0].name, c->engines[0].why);
  else if (!(c->engines[0].max_error <= BENCH_MAX_ERROR))
    fprintf(stderr, "sf-bench: %s: wrong results, error %g\n", c->engines[0].name, c->engines[0].max_error);
  else
    code = TOOL_OK;
done:
  for (int32_t i = 0; i < c->n; i++) bench_engine_close(&c->engines[i]);
  bench_data_free(&data);
  free(c);
  return code;
}

/* ---- the command -------------------------------------------------------------------------------------------------- */

static int fill_conv(const options *o, const bench_matrix *m, bench_problem *p) {
  bench_conv c = {.batch = o->batch, .height = o->height, .width = o->width, .stride = o->stride, .pad = o->pad};
  c.kernel[0] = m->kernel[0] > 1 || !o->kernel ? m->kernel[0] : o->kernel;
  c.kernel[1] = m->kernel[1] > 1 || !o->kernel ? m->kernel[1] : o->kernel;
  c.channels = m->cols / (c.kernel[0] * c.kernel[1]);
  if (!o->height) return usage("conv needs --image%s", " HxW");
  if (c.channels * c.kernel[0] * c.kernel[1] != m->cols) return usage("--kernel does not divide the columns of %s", m->name);
  c.out_height = (c.height + 2 * c.pad - c.kernel[0]) / c.stride + 1;
  c.out_width = (c.width + 2 * c.pad - c.kernel[1]) / c.stride + 1;
  if (c.height + 2 * c.pad < c.kernel[0] || c.width + 2 * c.pad < c.kernel[1])
    return usage("the image is smaller than the kernel of %s", m->name);
  p->conv = c;
  p->columns = c.batch * c.out_height * c.out_width;
  return TOOL_OK;
}

typedef struct columns {
  const options *o;
  const bench_matrix *matrix;
  const bench_machine *machine;
  bool first;
  int code;
} columns;

static int run_problem(columns *c, int64_t count) {
  const options *o = c->o;
  bench_problem p = {c->matrix->rows, c->matrix->cols, count, c->matrix->nnz, c->matrix->w, (int)o->threads, o->layout, {0}};
  if (strcmp(o->kind, "conv") == 0) {
    int code = fill_conv(o, c->matrix, &p);
    if (code != TOOL_OK) return code;
    if (o->layout == BENCH_TOKENS) return usage("conv: no layout %s", "tokens");
  }
  const int code = contest_run(o, c->matrix, &p, c->machine, c->first);
  c->first = false;
  return code;
}

static bool each_column(void *user, const char *word) {
  columns *c = user;
  int64_t count;
  if (!tool_parse_integer(word, 1, 1 << 24, &count)) return false;
  const int code = run_problem(c, count);
  if (code > c->code) c->code = code;
  return code != TOOL_USAGE;
}

static int run(const options *o) {
  sf_error error = {0};
  bench_matrix matrix;
  const bool gemm = strcmp(o->kind, "gemm") == 0, conv = strcmp(o->kind, "conv") == 0;
  int64_t cols = o->cols ? o->cols : o->channels * (o->kernel ? o->kernel * o->kernel : 1);
  if (!o->matrix && (o->rows < 1 || cols < 1)) return usage("%s needs --matrix, or a size", o->kind);
  if (gemm && (o->pattern || o->zeros >= 0)) return usage("%s is dense: no --zeros, no --pattern", o->kind);
  const char *pattern = o->pattern ? o->pattern : "unstructured";
  sf_status status = o->matrix ? bench_matrix_read(o->matrix, (uint64_t)o->seed, &matrix, &error)
                               : bench_matrix_make(o->rows, cols, gemm ? "coin" : pattern, (uint64_t)o->seed, &matrix, &error);
  if (status == SF_OK && !gemm && (o->pattern || o->zeros >= 0)) status = bench_matrix_prune(&matrix, pattern, o->zeros, &error);
  if (status != SF_OK) {
    tool_print_error("sf-bench", &error);
    free(matrix.w);
    return status == SF_STATUS_INVALID_ARGUMENT ? TOOL_USAGE : TOOL_FAILED;
  }
  bench_machine machine;
  bench_machine_look(&machine);
  bench_machine_measure(&machine, (int)o->threads);
  columns c = {o, &matrix, &machine, true, TOOL_OK};
  if (conv)
    c.code = run_problem(&c, 0);
  else if (!tool_each_word(o->columns, each_column, &c) && c.code == TOOL_OK)
    c.code = usage("--columns %s: not a list of numbers above 0", o->columns);
  free(matrix.w);
  return c.code;
}

static bool parse_image(const char *text, options *o) {
  int height, width, end = 0;
  if (sscanf(text, "%dx%d%n", &height, &width, &end) != 2 || text[end] || height < 1 || width < 1 || height > 65536 ||
      width > 65536)
    return false;
  o->height = height;
  o->width = width;
  return true;
}

static bool word_of(const char *text, const char *const *words, int *out) {
  for (int i = 0; words[i]; i++)
    if (strcmp(text, words[i]) == 0) {
      *out = i;
      return true;
    }
  return false;
}

/* -1: go on; else the exit code. */
static int read_options(int argc, char **argv, options *o) {
  enum { BATCH = 256, LIST, JSON, MACHINE, IMAGE, STRIDE, PAD, KERNEL, CHANNELS, MODEL, SYMBOL };
  static const struct option names[] = {{"matrix", 1, NULL, 'm'},        {"rows", 1, NULL, 'r'},
                                        {"cols", 1, NULL, 'k'},          {"zeros", 1, NULL, 'z'},
                                        {"pattern", 1, NULL, 'p'},       {"columns", 1, NULL, 'n'},
                                        {"threads", 1, NULL, 't'},       {"layout", 1, NULL, 'l'},
                                        {"peers", 1, NULL, 'P'},         {"emitter", 1, NULL, 'e'},
                                        {"runs", 1, NULL, 'R'},          {"format", 1, NULL, 'f'},
                                        {"seed", 1, NULL, 's'},          {"help", 0, NULL, 'h'},
                                        {"batch", 1, NULL, BATCH},       {"list", 0, NULL, LIST},
                                        {"json", 0, NULL, JSON},         {"machine", 0, NULL, MACHINE},
                                        {"image", 1, NULL, IMAGE},       {"stride", 1, NULL, STRIDE},
                                        {"pad", 1, NULL, PAD},           {"kernel", 1, NULL, KERNEL},
                                        {"channels", 1, NULL, CHANNELS}, {"model", 1, NULL, MODEL},
                                        {"symbol", 1, NULL, SYMBOL},     {NULL, 0, NULL, 0}};
  static const char *const layouts[] = {"row", "panel", "tokens", NULL}, *const formats[] = {"json", "csv", "md", NULL};
  static const struct {
    int option;
    size_t at;
    int64_t min, max;
  } numbers[] = {{'r', offsetof(options, rows), 1, 1 << 20},           {'k', offsetof(options, cols), 1, 1 << 20},
                 {'t', offsetof(options, threads), 1, 1024},           {'R', offsetof(options, runs), 1, 100000},
                 {'s', offsetof(options, seed), 0, INT64_MAX / 2},     {BATCH, offsetof(options, batch), 1, 4096},
                 {STRIDE, offsetof(options, stride), 1, 64},           {PAD, offsetof(options, pad), 0, 64},
                 {KERNEL, offsetof(options, kernel), 1, 64},           {CHANNELS, offsetof(options, channels), 1, 1 << 20},
                 {SYMBOL, offsetof(options, model.symbol), 1, 1 << 24}};
  static const struct {
    int option;
    size_t at;
  } texts[] = {{'m', offsetof(options, matrix)}, {'p', offsetof(options, pattern)}, {'n', offsetof(options, columns)},
               {'P', offsetof(options, peers)},  {'e', offsetof(options, emitter)}, {MODEL, offsetof(options, model.file)}};
  int c, word, index;
  while (index = -1, (c = getopt_long(argc, argv, "m:r:k:z:p:n:t:l:P:e:R:f:s:h", names, &index)) != -1) {
    bool known = false;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
      if (numbers[i].option != c) continue;
      known = true;
      if (!tool_parse_integer(optarg, numbers[i].min, numbers[i].max, (int64_t *)(void *)((char *)o + numbers[i].at)))
        return usage("\"%s\" is not a number in range", optarg);
    }
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
      if (texts[i].option != c) continue;
      known = true;
      *(const char **)(void *)((char *)o + texts[i].at) = optarg;
    }
    if (known) continue;
    switch (c) {
    case 'z': {
      char *end;
      o->zeros = strtod(optarg, &end) / 100;
      if (end == optarg || *end || !(o->zeros >= 0 && o->zeros <= 1)) return usage("--zeros %s: not a percentage", optarg);
      break;
    }
    case 'l':
      if (!word_of(optarg, layouts, &word)) return usage("--layout %s: not row, panel or tokens", optarg);
      o->layout = (bench_layout)word;
      break;
    case JSON:
      o->format = BENCH_JSON;
      break;
    case 'f':
      if (!word_of(optarg, formats, &word)) return usage("--format %s: not json, csv or md", optarg);
      o->format = (bench_format)word;
      break;
    case IMAGE:
      if (!parse_image(optarg, o)) return usage("--image %s: not HxW", optarg);
      break;
    case LIST:
      o->kind = "list";
      break;
    case MACHINE:
      o->kind = "machine";
      break;
    case 'h':
      fputs(help, stdout);
      return TOOL_OK;
    default:
      return usage("see the usage%s", "");
    }
  }
  if (optind + 1 == argc && !o->kind) o->kind = argv[optind++];
  if (optind < argc) return usage("unexpected argument \"%s\"", argv[optind]);
  return o->kind ? -1 : usage("which of spmm, gemm, conv, model%s?", "");
}

int main(int argc, char **argv) {
  options o = {.peers = "all", .columns = "128", .batch = 1, .stride = 1, .threads = 1, .runs = 30, .seed = 1, .zeros = -1};
  o.model.symbol = 1;
  const int code = read_options(argc, argv, &o);
  if (code >= 0) return code;
  bench_environment(argv, (int)o.threads);
  if (strcmp(o.kind, "list") == 0) return list();
  if (strcmp(o.kind, "machine") == 0) {
    bench_machine machine;
    bench_machine_look(&machine);
    bench_machine_measure(&machine, (int)o.threads);
    bench_report_machine(stdout, &machine);
    return TOOL_OK;
  }
  if (o.emitter && !bench_is_emitter(o.emitter)) return usage("--emitter %s: see --list", o.emitter);
  if (strcmp(o.kind, "model") == 0) {
    if (!o.model.file) return usage("model needs --model%s", " FILE");
    o.model.threads = (int)o.threads;
    o.model.rounds = (int32_t)o.runs;
    o.model.format = o.format;
    o.model.seed = (uint64_t)o.seed;
    return bench_model(&o.model);
  }
  if (strcmp(o.kind, "spmm") == 0 || strcmp(o.kind, "gemm") == 0 || strcmp(o.kind, "conv") == 0) return run(&o);
  return usage("\"%s\": not spmm, gemm, conv or model", o.kind);
}
