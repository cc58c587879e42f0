/* The cache through sf_compile: a warm start neither scans nor packs nor compiles; damaged entries are made again; FREEZE, CACHE_ONLY,
 * NO_CACHE and probe keep their word. Without a back end there is nothing to compile, and the counts are all zero. */
#include "run_fixture.h"

#include <dirent.h>
#include <sys/wait.h>

static sf_context *context_on(const char *folder) {
  sf_context_options options;
  sf_context *context;
  SF_INIT(&options);
  options.cache_dir = folder;
  options.threads = 2;
  ck_assert_int_eq(sf_context_create(&options, &context), SF_OK);
  return context;
}

static bool compiles(const sf_context *context) {
  return sfi_backend_of(&context->target) != NULL;
}

typedef struct outcome {
  sf_status status;
  sf_compile_stats stats;
  sf_error error;
} outcome;

/* Compiles a network in a fresh context and checks its answer at 5. */
static outcome start(const char *folder, int network, uint32_t flags, sf_isa isa) {
  outcome o;
  sf_context *context = context_on(folder);
  sf_graph *graph = build_network(context, network, 1);
  sf_program *program;
  sf_compile_options options;
  SF_INIT(&options);
  SF_INIT(&o.stats);
  options.flags = flags;
  options.isa = isa;
  options.error = &o.error;
  o.status = sf_compile(context, graph, &options, &program, &o.stats);
  if (program) {
    check_answer(program, graph, program->symbolic ? 5 : 1, 1);
  }
  sf_program_release(program);
  sf_graph_release(graph);
  sf_context_release(context);
  return o;
}

static bool builds_code(void) {
  sf_context *context = plain_context(1);
  bool result = compiles(context);
  sf_context_release(context);
  return result;
}

START_TEST(second_start) {
  char folder[64];
  make_folder(folder);
  outcome cold = start(folder, _i, 0, SF_ISA_NATIVE), warm = start(folder, _i, 0, SF_ISA_NATIVE);
  ck_assert_int_eq(cold.status, SF_OK);
  ck_assert_int_eq(warm.status, SF_OK);
  ck_assert_int_eq(cold.stats.compiled > 0, builds_code());
  ck_assert_int_eq(cold.stats.compiled + cold.stats.memory_hits + cold.stats.disk_hits, builds_code() ? cold.stats.kernels : 0);
  ck_assert_int_eq(warm.stats.compiled, 0);
  ck_assert_int_eq(warm.stats.weights_scanned, 0);
  ck_assert_int_eq(warm.stats.weights_packed, 0);
  ck_assert_int_eq(warm.stats.disk_hits, cold.stats.compiled);
  ck_assert_int_eq(warm.stats.kernels, cold.stats.kernels);
  ck_assert_uint_eq(warm.stats.code_bytes, cold.stats.code_bytes);
  ck_assert_uint_eq(warm.stats.packed_bytes, cold.stats.packed_bytes);
  remove_tree(folder);
}
END_TEST

/* Two programs of one context share what they have in common. */
START_TEST(shared_in_a_context) {
  sf_context *context = plain_context(1);
  sf_graph *graph = build_network(context, 0, 1), *again = build_network(context, 0, 1);
  sf_program *first = compile(context, graph), *second;
  sf_compile_stats stats;
  SF_INIT(&stats);
  ck_assert_int_eq(sf_compile(context, again, NULL, &second, &stats), SF_OK);
  ck_assert_int_eq(stats.compiled + stats.disk_hits + stats.weights_packed + stats.weights_scanned, 0);
  for (int32_t c = 0; c < first->n_classes; c++) {
    for (size_t k = 0; k < first->classes[c].plan.n_kernels; k++) {
      ck_assert_ptr_eq(first->classes[c].loaded[k].code, second->classes[c].loaded[k].code);
      ck_assert_ptr_eq(first->classes[c].loaded[k].packed, second->classes[c].loaded[k].packed);
    }
  }
  sf_program_release(first); /* the second keeps what they share */
  check_answer(second, graph, 5, 1);
  sf_program_release(second);
  ck_assert_uint_eq(context->jit->table.n, 0);
  sf_graph_release(graph);
  sf_graph_release(again);
  sf_context_release(context);
}
END_TEST

/* Weights of the same shape share code whatever their zeros: each emitter's code must serve them all. */
START_TEST(other_weights) {
  sf_context *context = plain_context(2);
  const sfi_backend *backend = sfi_backend_of(&context->target);
  for (size_t i = 0; backend && i < backend->n_emitters; i++) {
    if (backend->emitters[i]->anchor != SFI_ANCHOR_CONTRACT) continue;
    for (uint32_t zeros = 0; zeros <= 100; zeros += 25) {
      sf_graph *graph;
      sf_program *program;
      sf_compile_options options;
      uint64_t state = zeros;
      SF_INIT(&options);
      options.emitter = backend->emitters[i]->name;
      ck_assert_int_eq(sf_graph_create(context, "layer", &graph), SF_OK);
      sf_value x = sf_graph_input(graph, "x", SF_F32, 2, DIMS(_i, 70)); /* fixed: some emitters take one column only */
      sf_graph_output(graph, "y", sf_matmul(graph, x, weight(graph, &state, zeros, 2, DIMS(70, 45)), false, false));
      ck_assert_int_eq(sf_compile(context, graph, &options, &program, NULL), SF_OK);
      check_answer(program, graph, 1, zeros);
      for (size_t k = 0; k < program->classes[0].plan.n_kernels; k++) {
        const sfi_kernel *kernel = &program->classes[0].plan.kernels[k];
        if (kernel->anchor != SFI_ANCHOR_CONTRACT) continue;
        char refused[96]; /* else it is the one asked for */
        snprintf(refused, sizeof refused, "; %s refused: ", options.emitter);
        ck_assert(strcmp(kernel->emitter->name, options.emitter) == 0 || strstr(kernel->choice, refused));
      }
      sf_program_release(program);
      sf_graph_release(graph);
    }
  }
  sf_context_release(context);
}
END_TEST

/* y = x W by the emitter with the pattern in its code. W[70, 45] has a nonzero where (row + column) % 7 == at, or next to it. */
static sf_program *compile_baked(sf_context *context, int at, float scale) {
  static float w[70 * 45];
  sf_graph *graph;
  sf_program *program;
  sf_compile_options options;
  SF_INIT(&options);
  options.emitter = "spmm-baked";
  options.isa = SF_ISA_AVX512;
  for (int i = 0; i < 70 * 45; i++) w[i] = (i / 45 + i % 45) % 7 == at || i % 11 == 0 ? scale * (float)(1 + i % 13) : 0;
  ck_assert_int_eq(sf_graph_create(context, "layer", &graph), SF_OK);
  sf_value x = sf_graph_input(graph, "x", SF_F32, 2, DIMS(20, 70));
  sf_value y = sf_graph_weight(graph, NULL, SF_F32, 2, DIMS(70, 45), w, SF_COPY);
  sf_graph_output(graph, "y", sf_matmul(graph, x, y, false, false));
  ck_assert_int_eq(sf_compile(context, graph, &options, &program, NULL), SF_OK);
  check_answer(program, graph, 1, 3);
  sf_graph_release(graph);
  return program;
}
static const sfi_loaded *baked_kernel(const sf_program *program) {
  const sfi_class *class = &program->classes[0];
  for (size_t k = 0; k < class->plan.n_kernels; k++)
    if (strcmp(class->plan.kernels[k].emitter->name, "spmm-baked") == 0) return &class->loaded[k];
  return NULL;
}

/* Weights of one pattern share its code, whatever their values; another pattern of the same shape has its own. */
START_TEST(baked_patterns) {
  sf_context *context = plain_context(1);
  if (sfi_target_runs(SF_ISA_AVX512) && compiles(context)) {
    sf_program *program[] = {compile_baked(context, 2, 1), compile_baked(context, 2, -0.25f), compile_baked(context, 3, 1)};
    const sfi_loaded *kernel[SFI_COUNT(program)];
    for (size_t i = 0; i < SFI_COUNT(program); i++) ck_assert_ptr_nonnull(kernel[i] = baked_kernel(program[i]));
    ck_assert_ptr_eq(kernel[0]->code, kernel[1]->code);
    ck_assert_ptr_ne(kernel[0]->packed, kernel[1]->packed);
    ck_assert_ptr_ne(kernel[0]->code, kernel[2]->code);
    for (size_t i = 0; i < SFI_COUNT(program); i++) sf_program_release(program[i]);
  }
  sf_context_release(context);
}
END_TEST

/* A weight of a file is in memory only while something reads it: emitters pack it, and may compile it, then. */
START_TEST(weights_of_files) {
  enum { ROWS = 150, COLUMNS = 130 }; /* 78 KB */
  char folder[64], path[96];
  make_folder(folder);
  snprintf(path, sizeof path, "%s/layer.sft", folder);
  sf_context *context = plain_context(1);
  sf_graph *graph;
  float *w = calloc(ROWS * COLUMNS, sizeof *w);
  for (int i = 0; i < ROWS * COLUMNS; i++) w[i] = i % 7 == 0 || i % 11 == 0 ? (float)(1 + i % 13) : 0;
  ck_assert_int_eq(sf_graph_create(context, "layer", &graph), SF_OK);
  sf_value x = sf_graph_input(graph, "x", SF_F32, 2, DIMS(_i == 0 ? 1 : 20, ROWS));
  sf_value weight = sf_graph_weight(graph, "w", SF_F32, 2, DIMS(ROWS, COLUMNS), w, SF_COPY);
  free(w);
  sf_graph_output(graph, "y", sf_matmul(graph, x, weight, false, false));
  ck_assert_int_eq(sf_graph_save(graph, path), SF_OK);
  sf_graph_release(graph);
  ck_assert_int_eq(sf_graph_parse_file(context, path, &graph), SF_OK);
  check_every_emitter(context, graph);
  sf_graph_release(graph);
  sf_context_release(context);
  remove_tree(folder);
}
END_TEST

/* Where an entry has the digest of the sources: docs/cache.md. */
enum { AT_SOURCES = 8, MIDDLE = -1 };

/* Changes a byte of every entry. */
static int change_entries(const char *folder, long at) {
  DIR *stream = opendir(folder);
  int n = 0;
  ck_assert_ptr_nonnull(stream);
  for (struct dirent *e; (e = readdir(stream));) {
    char path[PATH_MAX];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size == 0) continue;
    FILE *file = fopen(path, "r+b");
    ck_assert_ptr_nonnull(file);
    const long place = at == MIDDLE ? (long)st.st_size / 2 : at;
    fseek(file, place, SEEK_SET);
    int byte = fgetc(file);
    fseek(file, place, SEEK_SET);
    fputc(byte ^ 0x10, file);
    fclose(file);
    n++;
  }
  closedir(stream);
  return n;
}

/* What is damaged, or says that it is by other sources of the library than its name does, is made anew. */
static void made_anew(int network, long at) {
  char folder[64];
  make_folder(folder);
  outcome cold = start(folder, network, 0, SF_ISA_NATIVE);
  int entries = change_entries(folder, at);
  ck_assert_int_eq(entries > 0, builds_code() || cold.stats.weights_scanned > 0); /* facts are kept too */
  outcome again = start(folder, network, 0, SF_ISA_NATIVE);                       /* which checks the answer */
  ck_assert_int_eq(again.status, SF_OK);
  ck_assert_int_eq(again.stats.compiled, cold.stats.compiled);
  ck_assert_int_eq(again.stats.weights_packed, cold.stats.weights_packed);
  ck_assert_int_eq(again.stats.weights_scanned, cold.stats.weights_scanned);
  ck_assert_int_eq(start(folder, network, 0, SF_ISA_NATIVE).stats.compiled, 0);
  remove_tree(folder);
}

START_TEST(damaged_entries) {
  made_anew(_i, MIDDLE);
}
END_TEST

START_TEST(entries_of_other_sources) {
  made_anew(_i, AT_SOURCES);
}
END_TEST

START_TEST(freeze) {
  char folder[64];
  make_folder(folder);
  outcome frozen = start(folder, 0, SF_COMPILE_FREEZE, SF_ISA_NATIVE);
  if (builds_code()) {
    ck_assert_int_eq(frozen.status, SF_STATUS_WOULD_COMPILE);
    ck_assert_ptr_nonnull(strstr(frozen.error.message, "kernel k"));
    ck_assert_ptr_nonnull(strstr(frozen.error.message, "'dense'"));
  } else {
    ck_assert_int_eq(frozen.status, SF_OK);
  }
  ck_assert_int_eq(start(folder, 0, 0, SF_ISA_NATIVE).status, SF_OK);
  ck_assert_int_eq(start(folder, 0, SF_COMPILE_FREEZE, SF_ISA_NATIVE).status, SF_OK);
  remove_tree(folder);
}
END_TEST

START_TEST(no_cache) {
  char folder[64];
  make_folder(folder);
  outcome first = start(folder, 0, SF_COMPILE_NO_CACHE, SF_ISA_NATIVE);
  ck_assert_int_eq(first.status, SF_OK);
  ck_assert_int_eq(change_entries(folder, MIDDLE), 0); /* nothing was written */
  start(folder, 0, 0, SF_ISA_NATIVE);
  outcome third = start(folder, 0, SF_COMPILE_NO_CACHE, SF_ISA_NATIVE);
  ck_assert_int_eq(third.stats.compiled, first.stats.compiled);
  ck_assert_int_eq(third.stats.disk_hits, 0);
  remove_tree(folder);
}
END_TEST

#if defined(SFI_HAVE_LLVM)
/* Warming, for this machine and for another. */
START_TEST(cache_only) {
  static const sf_isa targets[] = {SF_ISA_AVX2, SF_ISA_AVX512, SF_ISA_NEON, SF_ISA_NATIVE};
  char folder[64];
  make_folder(folder);
  for (size_t i = 0; i < SFI_COUNT(targets); i++) {
    outcome cold = start(folder, 1, SF_COMPILE_CACHE_ONLY, targets[i]);
    ck_assert_msg(cold.status == SF_OK, "%s", cold.error.message);
    outcome warm = start(folder, 1, SF_COMPILE_CACHE_ONLY | SF_COMPILE_FREEZE, targets[i]);
    ck_assert_msg(warm.status == SF_OK, "%s", warm.error.message);
    ck_assert_int_eq(warm.stats.compiled + warm.stats.weights_packed + warm.stats.weights_scanned, 0);
    ck_assert_int_eq(warm.stats.kernels, cold.stats.kernels);
  }
  outcome run = start(folder, 1, SF_COMPILE_FREEZE, SF_ISA_NATIVE);
  ck_assert_int_eq(run.status, SF_OK);
  ck_assert_int_eq(run.stats.compiled + run.stats.weights_packed, 0);
  remove_tree(folder);
}
END_TEST

typedef struct probed {
  int states[4], reasons;
} probed;

static void count_probe(void *user, const char *entry, sf_probe_state state, const char *reason) {
  probed *p = user;
  ck_assert(strncmp(entry, "code k", 6) == 0 || strncmp(entry, "weight k", 8) == 0);
  if (state == SF_PROBE_HIT) ck_assert_str_eq(reason, "");
  p->states[state]++;
  p->reasons += reason[0] != 0;
}

static probed probe(const char *folder) {
  probed p = {0};
  sf_context *context = context_on(folder);
  sf_graph *graph = build_network(context, 0, 1);
  ck_assert_int_eq(sf_probe(context, graph, NULL, count_probe, &p), SF_OK);
  sf_graph_release(graph);
  sf_context_release(context);
  return p;
}

START_TEST(probing) {
  char folder[64];
  make_folder(folder);
  probed cold = probe(folder);
  ck_assert_int_gt(cold.states[SF_PROBE_MISSING], 0);
  ck_assert_int_eq(cold.states[SF_PROBE_HIT], 0);
  start(folder, 0, 0, SF_ISA_NATIVE);
  probed warm = probe(folder);
  ck_assert_int_eq(warm.states[SF_PROBE_HIT], cold.states[SF_PROBE_MISSING]);
  ck_assert_int_eq(warm.states[SF_PROBE_MISSING], 0);
  change_entries(folder, MIDDLE);
  probed damaged = probe(folder);
  ck_assert_int_eq(damaged.states[SF_PROBE_HIT], 0);
  ck_assert_int_gt(damaged.reasons, 0);
  remove_tree(folder);
}
END_TEST
#endif

int main(void) {
  Suite *suite = suite_create("warm");
  TCase *cases = tcase_create("warm");
  tcase_set_timeout(cases, 300);
  tcase_add_loop_test(cases, second_start, 0, NETWORKS);
  tcase_add_test(cases, shared_in_a_context);
  tcase_add_loop_test(cases, other_weights, 1, 3);
  tcase_add_test(cases, baked_patterns);
  tcase_add_loop_test(cases, weights_of_files, 0, 2);
  tcase_add_loop_test(cases, damaged_entries, 0, 3);
  tcase_add_loop_test(cases, entries_of_other_sources, 0, 3);
  tcase_add_test(cases, freeze);
  tcase_add_test(cases, no_cache);
#if defined(SFI_HAVE_LLVM)
  tcase_add_test(cases, cache_only);
  tcase_add_test(cases, probing);
#endif
  suite_add_tcase(suite, cases);
  return run_suite(suite);
}
