/* Random graphs, compiled and run, against the reference within error bounds:
 *   soak [--graphs N] [--seed S] [--isa native|reference|avx2|avx512|neon] [--operations N]
 * Graph i has the seed S + i and is run at several extents of the symbolic dimension, in one piece a kernel and in several, which must
 * agree bit for bit (trial.h). A third of the graphs is compiled without fusion too, a third with one emitter for all contractions. A
 * failure prints the seed and the shortest graph of that seed that still fails.
 * Exit: 0 all agree, 1 not, 77 the machine lacks the instruction set. */
#include "jit.h"
#include "trial.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { TEXT = 1024, NOT_HERE = 77, OPERATIONS = 14 };

typedef struct soak {
  sf_context *whole, *pieces; /* of programs run in one piece a kernel, and in several */
  sf_trial trial;
  int32_t operations;
  int64_t graphs, kernels, compiled;
  char failure[TEXT];
} soak;

static bool failed(soak *s, const char *format, ...) SFI_PRINTF(2, 3);
static bool failed(soak *s, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(s->failure, sizeof s->failure, format, arguments);
  va_end(arguments);
  return false;
}

/* ---- one graph ----------------------------------------------------------------------------------------------------- */

/* emitter: NULL, or the one to use for contractions that it accepts. */
static bool compile(soak *s, sf_context *context, const sf_graph *graph, int32_t level, const char *emitter, const char *how,
                    sf_program **out_program) {
  sf_compile_options options;
  SF_INIT(&options);
  options.opt_level = level + 1;
  options.emitter = emitter;
  sf_compile_stats stats;
  SF_INIT(&stats);
  sf_status st = sf_compile(context, graph, &options, out_program, &stats);
  s->kernels += stats.kernels;
  s->compiled += stats.compiled;
  if (st == SF_OK) return true;
  sf_error error;
  sf_context_take_error(context, &error);
  return failed(s, "%s: %s: %s: %s", how, sf_status_text(st), error.op, error.message);
}

/* One of the emitters of contractions; NULL on the reference. */
static const char *some_emitter(const soak *s, uint64_t seed) {
  const sfi_backend *backend = sfi_backend_of(&s->whole->target);
  for (size_t i = 0; backend && i < backend->n_emitters; i++) {
    const sfi_emitter *emitter = backend->emitters[(seed + i) % backend->n_emitters];
    if (emitter->anchor == SFI_ANCHOR_CONTRACT) return emitter->name;
  }
  return NULL;
}

static bool check_extent(soak *s, const sf_graph *graph, sf_program *const programs[3], uint64_t seed, int64_t symbol) {
  sf_trial *t = &s->trial;
  bool good = sf_trial_begin(t, graph, seed + (uint64_t)symbol, seed % 7 == 0, symbol) && sf_trial_run(t, programs[0], "whole") &&
              sf_trial_run_in_pieces(t, programs[1], "in pieces") && (!programs[2] || sf_trial_run(t, programs[2], "otherwise"));
  return good || failed(s, "%s", t->failure);
}

static bool is_symbolic(const sf_graph *graph) {
  for (size_t i = 0; i < graph->n_inputs; i++)
    for (int32_t d = 0; d < graph->nodes[graph->inputs[i]].shape.rank; d++)
      if (!sfi_is_const(graph->nodes[graph->inputs[i]].shape.dims[d])) return true;
  return false;
}

static sf_graph *graph_of(const soak *s, uint64_t seed, int32_t operations) {
  const sf_random_graph_options options = {
      .operations = operations, .special = seed % 7 == 0, .large = seed % 2 == 0, .siblings = seed % 3 == 0};
  return sf_random_graph(s->whole, seed, &options);
}

static bool check_built(soak *s, const sf_graph *graph, uint64_t seed) {
  static const int64_t extents[] = {1, 2, 3, 4, 5, 15, 16, 17, 33};
  sf_program *programs[3] = {NULL};
  bool good = compile(s, s->whole, graph, 2, NULL, "compile", &programs[0]) &&
              compile(s, s->pieces, graph, 2, NULL, "compile in pieces", &programs[1]);
  if (seed % 3 == 0) good = good && compile(s, s->whole, graph, (int32_t)(seed / 3 % 2), NULL, "compile otherwise", &programs[2]);
  const char *emitter = some_emitter(s, seed / 3);
  if (seed % 3 == 1 && emitter) good = good && compile(s, s->whole, graph, 2, emitter, "compile otherwise", &programs[2]);
  if (is_symbolic(graph)) {
    /* 1 and 17 meet two of the classes always; the others take turns. */
    good = good && check_extent(s, graph, programs, seed, 1) && check_extent(s, graph, programs, seed, 17);
    good = good && check_extent(s, graph, programs, seed, extents[seed % SFI_COUNT(extents)]);
    if (seed % 5 == 0) good = good && check_extent(s, graph, programs, seed, 0);
  } else {
    good = good && check_extent(s, graph, programs, seed, 1);
  }
  for (size_t i = 0; i < SFI_COUNT(programs); i++) sf_program_release(programs[i]);
  return good;
}

static bool check_graph(soak *s, uint64_t seed, int32_t operations) {
  sf_graph *graph = graph_of(s, seed, operations);
  bool good = graph ? check_built(s, graph, seed) : failed(s, "no graph: the builder refused");
  sf_graph_release(graph);
  return good;
}

static bool write_stderr(void *user, const char *text, size_t length) {
  (void)user;
  return fwrite(text, 1, length, stderr) == length;
}

/* Leaves `graph` one output and what it needs, in a graph that shares its data. NULL: out of memory. */
static sf_graph *with_one_output(const soak *s, sf_graph *graph, size_t output) {
  sfi_diag diag = {0};
  sfi_pass_env env = {.context = s->whole, .diag = &diag};
  sf_graph *small = NULL;
  graph->outputs[0] = graph->outputs[output];
  graph->n_outputs = 1;
  sfi_eliminate_dead(&env, graph, &small);
  return small;
}

/* A graph of fewer operations is the beginning of a graph of more, so the first length that fails is the shortest; then its outputs
 * one by one. */
static void report(soak *s, uint64_t seed) {
  fprintf(stderr, "soak: seed %" PRIu64 ": %s\n", seed, s->failure);
  int32_t operations = 1;
  while (operations < s->operations && check_graph(s, seed, operations)) operations++;
  check_graph(s, seed, operations);
  fprintf(stderr, "soak: shortest: --seed %" PRIu64 " --graphs 1 --operations %d: %s\n", seed, operations, s->failure);
  bool shown = false;
  for (size_t i = 0, n = 1; i < n && !shown; i++) {
    sf_graph *graph = graph_of(s, seed, operations);
    n = graph ? graph->n_outputs : 0;
    sf_graph *small = graph ? with_one_output(s, graph, i) : NULL;
    if (small && !check_built(s, small, seed)) {
      fprintf(stderr, "soak: one output of it: %s\n", s->failure);
      shown = sf_graph_print(small, write_stderr, NULL) == SF_OK;
    }
    sf_graph_release(small);
    sf_graph_release(graph);
  }
}

/* ---- program ------------------------------------------------------------------------------------------------------- */

static sf_isa isa_named(const char *name) {
  if (strcmp(name, "native") == 0) return SF_ISA_NATIVE;
  const sfi_target *target = sfi_target_named(name, strlen(name));
  if (!target) {
    fprintf(stderr, "soak: unknown instruction set '%s'\n", name);
    exit(2);
  }
  return target->isa;
}

/* The second context finds on disk what the first compiled. */
static int create_contexts(soak *s, sf_isa isa, const char *cache_dir) {
  sf_status st = sf_trial_context(isa, cache_dir, &s->whole);
  if (st == SF_OK) st = sf_trial_context(isa, cache_dir, &s->pieces);
  if (st == SF_OK) return 0;
  fprintf(stderr, "soak: %s\n", sf_status_text(st));
  return st == SF_STATUS_UNSUPPORTED ? NOT_HERE : 1;
}

int main(int argc, char **argv) {
  soak s = {.operations = OPERATIONS};
  int64_t graphs = 300, failures = 0;
  uint64_t seed = 1;
  sf_isa isa = SF_ISA_NATIVE;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (strcmp(argv[i], "--graphs") == 0) graphs = strtoll(argv[i + 1], NULL, 10);
    if (strcmp(argv[i], "--seed") == 0) seed = strtoull(argv[i + 1], NULL, 10);
    if (strcmp(argv[i], "--operations") == 0) s.operations = (int32_t)strtol(argv[i + 1], NULL, 10);
    if (strcmp(argv[i], "--isa") == 0) isa = isa_named(argv[i + 1]);
  }
  char folder[] = "/tmp/sparseflow-soak-XXXXXX";
  if (!mkdtemp(folder)) {
    perror("soak: a folder for the cache");
    return 1;
  }
  sf_trial_watch();
  int result = create_contexts(&s, isa, folder);
  for (int64_t i = 0; i < graphs && result == 0 && failures < 10; i++) {
    if (!check_graph(&s, seed + (uint64_t)i, s.operations)) {
      failures++;
      report(&s, seed + (uint64_t)i);
    }
    s.graphs++;
  }
  if (s.pieces) {
    sf_cache_stats stats;
    SF_INIT(&stats);
    sf_cache_prune(s.pieces, 0, &stats);
  }
  sf_context_release(s.pieces);
  sf_context_release(s.whole);
  sf_trial_end(&s.trial);
  rmdir(folder);
  if (result != 0) return result;
  printf("soak: graphs=%" PRId64 " kernels=%" PRId64 " compiled=%" PRId64 " runs=%" PRId64 " elements=%" PRId64 " unknown=%" PRId64
         " worst=%.3f failures=%" PRId64 "\n",
         s.graphs, s.kernels, s.compiled, s.trial.runs, s.trial.compared, s.trial.skipped, s.trial.worst, failures);
  return failures != 0;
}
