/* sf-jit: a REPL for models, and its commands as subcommands. */
#include "options.h"
#include "session.h"

#include <locale.h>
#include <stdlib.h>

static const char help_text[] =
    "usage: sf-jit [OPTIONS] [SCRIPT]                       a REPL; or reads SCRIPT, or standard input\n"
    "       sf-jit [OPTIONS] run MODEL [NAME=FILE.npy]... [symbol=N]\n"
    "       sf-jit [OPTIONS] time MODEL [NAME=FILE.npy]... [symbol=N] [runs=N]\n"
    "       sf-jit [OPTIONS] bench MODEL...                  time over symbols and threads\n"
    "       sf-jit [OPTIONS] explain MODEL                   why the program is what it is\n"
    "       sf-jit [OPTIONS] emit STAGE MODEL [KERNEL]       graph, canonical, facts, kernels, llvm, asm, or a pass's name\n"
    "       sf-jit [OPTIONS] profile MODEL [NAME=FILE.npy]... [symbol=N] [runs=N] [trace=FILE] [page=FILE]\n"
    "                                                        time of each kernel; as a Chrome trace, as an HTML page\n"
    "       sf-jit [OPTIONS] zeros MODEL [WEIGHT]            zeros of the weights; a picture of one\n"
    "options:\n"
    "  --isa NAME          native, reference, avx2, avx512, neon (emit only)\n"
    "  --threads N         pieces a kernel is cut into; bench: a list, 1,2\n"
    "  --symbol LIST       bench: values of the symbolic dimension (default 1)\n"
    "  --runs N            bench: timed runs (default 50)\n"
    "  --format NAME       bench, profile: md, csv or json (default md); explain: md or json\n"
    "  --emitter NAME      the emitter of contractions to use where it accepts\n"
    "  --tune LEVEL        time the emitters that may be best: off (default), fast, full; verdicts stay in the cache\n"
    "  --calibrate         predict times by rates measured on this machine, once; they stay in the cache\n"
    "  --classes LIST      upper bounds of the classes of the symbolic dimension\n"
    "  -O LEVEL            0: nothing fused, 1: canonical form, 2: everything (default)\n"
    "  --dim NAME=N        extent of an ONNX model's dimension; may be given again\n"
    "  --cache-dir DIR     \"\": no disk cache\n"
    "  -v, --verbose       the library's log\n"
    "  -h, --help; -V, --version\n"
    "MODEL is a graph in the text form with its weights beside it, or an ONNX model. Exit: 0 done, 1 failed, 2 wrong usage.\n";

typedef struct arguments {
  tool_options options;
  tool_classes classes, symbols, threads;
  int64_t runs;
  const char *format, *emitter;
  int32_t opt_level; /* as in sf_compile_options */
} arguments;

#define WRONG(...) tool_wrong("sf-jit", __VA_ARGS__)

static bool add_number(tool_classes *list, const char *word, int64_t least) {
  return list->count < TOOL_CLASSES_MAX && tool_parse_integer(word, least, INT32_MAX, &list->bounds[list->count]) && ++list->count;
}
static bool add_threads(void *user, const char *word) {
  return add_number(user, word, 1);
}
static bool add_symbol(void *user, const char *word) {
  return add_number(user, word, 0);
}

/* TOOL_GO_ON, or the exit code. */
static int read_options(int argc, char **argv, arguments *a) {
  enum { ISA = 256, THREADS, SYMBOL, RUNS, FORMAT, EMITTER, CLASSES };
  static const struct option longs[] = {TOOL_OPTIONS,
                                        TOOL_OPTIONS_COMPILING,
                                        {"isa", 1, NULL, ISA},
                                        {"threads", 1, NULL, THREADS},
                                        {"symbol", 1, NULL, SYMBOL},
                                        {"runs", 1, NULL, RUNS},
                                        {"format", 1, NULL, FORMAT},
                                        {"emitter", 1, NULL, EMITTER},
                                        {"classes", 1, NULL, CLASSES},
                                        {NULL, 0, NULL, 0}};
  *a = (arguments){.options = {.program = "sf-jit"}, .runs = 50, .format = "md"};
  int64_t level;
  int code;
  for (int c; (c = getopt_long(argc, argv, "vhVO:", longs, NULL)) != -1;) switch (c) {
    case ISA:
      if (!tool_isa_named(optarg, &a->options.isa)) return WRONG("--isa \"%s\": one of %s", optarg, tool_isa_names);
      break;
    case THREADS:
      if (!tool_each_word(optarg, add_threads, &a->threads)) return WRONG("--threads \"%s\": whole numbers", optarg);
      a->options.threads = (int32_t)a->threads.bounds[0];
      break;
    case SYMBOL:
      if (!tool_each_word(optarg, add_symbol, &a->symbols)) return WRONG("--symbol \"%s\": whole numbers", optarg);
      break;
    case RUNS:
      if (!tool_parse_integer(optarg, 1, 1000000, &a->runs)) return WRONG("--runs \"%s\": a whole number", optarg);
      break;
    case FORMAT:
      a->format = optarg;
      if (strcmp(optarg, "md") && strcmp(optarg, "csv") && strcmp(optarg, "json"))
        return WRONG("--format \"%s\": md, csv or json", optarg);
      break;
    case EMITTER:
      a->emitter = optarg;
      break;
    case CLASSES:
      if (!tool_classes_parse(optarg, &a->classes)) return WRONG("--classes \"%s\": ascending whole numbers", optarg);
      break;
    case 'O':
      if (!tool_parse_integer(optarg, 0, 2, &level)) return WRONG("-O \"%s\": 0, 1 or 2", optarg);
      a->opt_level = (int32_t)level + 1;
      break;
    default:
      if ((code = tool_option(&a->options, c, optarg, help_text)) != TOOL_GO_ON) return code;
    }
  return TOOL_GO_ON;
}

static bool open_session(session *s, const arguments *a, const tool_options *options) {
  if (!session_open(s, options)) return false;
  s->compile.opt_level = a->opt_level;
  s->compile.emitter = a->emitter;
  s->compile.n_classes = a->classes.count;
  s->compile.classes = a->classes.count ? a->classes.bounds : NULL;
  return true;
}

/* ---- bench ----------------------------------------------------------------------------------------------------------- */

static void print_row(const arguments *a, const char *model, int64_t symbol, const session *s, const session_timing *t) {
  if (strcmp(a->format, "json") == 0) {
    fputs("{\"model\":", stdout);
    tool_json_string(stdout, model);
    printf(",\"symbol\":%lld,\"threads\":%d,\"median_us\":%.3f,\"mean_us\":%.3f,\"deviation_us\":%.3f,\"min_us\":%.3f,\"runs\":%d,"
           "\"kernels\":%d,"
           "\"compile_ms\":%.3f}\n",
           (long long)symbol, (int)s->options->threads, t->median_us, t->mean_us, t->deviation_us, t->min_us, t->runs,
           (int)s->stats.kernels, s->stats.milliseconds);
    return;
  }
  bool csv = strcmp(a->format, "csv") == 0;
  const char *bar = csv ? "," : " | ";
  printf("%s%s%s%lld%s%d", csv ? "" : "| ", model, bar, (long long)symbol, bar, (int)s->options->threads);
  printf("%s%.2f%s%.2f%s%.2f%s%.2f%s%d%s\n", bar, t->median_us, bar, t->mean_us, bar, t->deviation_us, bar, t->min_us, bar, t->runs,
         csv ? "" : " |");
}

static bool bench(const arguments *a, int n, char **models) {
  if (strcmp(a->format, "csv") == 0) puts("model,symbol,threads,median_us,mean_us,deviation_us,min_us,runs");
  if (strcmp(a->format, "md") == 0)
    puts("| model | symbol | threads | median us | mean us | deviation us | best us | runs |\n|---|---|---|---|---|---|---|---|");
  const tool_classes one = {.count = 1, .bounds = {1}}, all = {.count = 1, .bounds = {0}};
  const tool_classes *threads = a->threads.count ? &a->threads : &all, *symbols = a->symbols.count ? &a->symbols : &one;
  bool ok = true;
  for (int m = 0; m < n; m++)
    for (int32_t i = 0; i < threads->count; i++) {
      tool_options options = a->options;
      options.threads = (int32_t)threads->bounds[i];
      session s;
      bool open = open_session(&s, a, &options);
      ok = ok && open;
      open = open && session_load(&s, models[m]);
      ok = ok && open;
      for (int32_t k = 0; open && k < symbols->count; k++) {
        session_timing timing;
        if ((open = session_measure(&s, symbols->bounds[k], (int)a->runs, &timing)))
          print_row(a, models[m], symbols->bounds[k], &s, &timing);
        ok = ok && open;
      }
      session_close(&s);
    }
  return ok;
}

/* ---- subcommands ------------------------------------------------------------------------------------------------------ */

/* w[0] is the model; n counts the words behind it. */
static bool run(session *s, const arguments *a, int n, char **w) {
  (void)a;
  return session_run(s, n, w + 1);
}
static bool timing(session *s, const arguments *a, int n, char **w) {
  (void)a;
  return session_time(s, n, w + 1);
}
static bool explain(session *s, const arguments *a, int n, char **w) {
  (void)n, (void)w;
  return session_explain(s, a->format);
}
static bool profile(session *s, const arguments *a, int n, char **w) {
  return session_profile(s, n, w + 1, w[0], a->format);
}
static bool zeros(session *s, const arguments *a, int n, char **w) {
  (void)a;
  return session_zeros(s, n ? w[1] : NULL);
}

static const struct {
  const char *name;
  int most_words; /* behind the model */
  bool (*run)(session *s, const arguments *a, int n, char **words);
} subcommands[] = {
    {"run", 256, run}, {"time", 256, timing}, {"explain", 0, explain}, {"profile", 256, profile}, {"zeros", 1, zeros}};

static int on_model(const arguments *a, bool (*command)(session *, const arguments *, int, char **), int n, char **words) {
  session s;
  bool ok = open_session(&s, a, &a->options) && session_load(&s, words[0]) && command(&s, a, n, words);
  session_close(&s);
  return ok && fflush(stdout) == 0 ? TOOL_OK : TOOL_FAILED;
}

/* emit takes its stage in front of the model, and any target. */
static int emit(const arguments *a, int n, char **words) {
  if (n < 2 || n > 3) return WRONG("emit STAGE MODEL [KERNEL]");
  tool_options options = a->options;
  options.isa = SF_ISA_NATIVE;
  session s;
  bool ok = open_session(&s, a, &options);
  if (ok) s.compile.isa = a->options.isa;
  ok = ok && session_load(&s, words[1]) && session_emit(&s, words[0], n > 2 ? words[2] : NULL);
  session_close(&s);
  return ok && fflush(stdout) == 0 ? TOOL_OK : TOOL_FAILED;
}

int main(int argc, char **argv) {
  setlocale(LC_CTYPE, "");
  arguments a;
  int code = read_options(argc, argv, &a);
  if (code != TOOL_GO_ON) return code;
  int n = argc - optind;
  char **words = argv + optind;
  if (n && strcmp(words[0], "bench") == 0)
    return n < 2 ? WRONG("bench MODEL...") : bench(&a, n - 1, words + 1) ? TOOL_OK : TOOL_FAILED;
  if (a.threads.count > 1) return WRONG("--threads: a list is for bench");
  if (n && strcmp(words[0], "emit") == 0) return emit(&a, n - 1, words + 1);
  for (size_t i = 0; n && i < sizeof subcommands / sizeof *subcommands; i++) {
    if (strcmp(words[0], subcommands[i].name) != 0) continue;
    if (n < 2 || n - 2 > subcommands[i].most_words)
      return WRONG("%s: a MODEL and at most %d words", words[0], subcommands[i].most_words);
    return on_model(&a, subcommands[i].run, n - 2, words + 1);
  }
  if (n > 1) return WRONG("\"%s\" is no subcommand", words[0]);
  session s;
  bool ok = open_session(&s, &a, &a.options) && repl_run(&s, n ? words[0] : NULL);
  session_close(&s);
  return ok ? TOOL_OK : TOOL_FAILED;
}
