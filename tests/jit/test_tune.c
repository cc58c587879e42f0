/* Choice by timing and measured rates: a verdict is reached once and then read; what is missing, stale or damaged is reached again; the
 * answers are those of any other choice; no sparse kernel wins over a dense one that was faster. No test looks at the length of a time. */
#include "run_fixture.h"
#include "suite.h"

#include <dirent.h>

typedef struct setting {
  sf_tune tune;
  int32_t calibrate;
  uint32_t flags;
  sf_isa isa;
} setting;

typedef struct outcome {
  sf_status status;
  sf_compile_stats stats;
  sf_error error;
  sfi_target target; /* of the context */
  int measurements;  /* of the machine, by the log */
  int missing, verdicts;
  char *explained;
} outcome;

static void count_measurements(void *user, sf_log_level level, const char *line) {
  (void)level;
  *(int *)user += strncmp(line, "machine measured", 16) == 0;
}

static bool keep_text(void *user, const char *text, size_t length) {
  *(char **)user = strndup(text, length);
  return true;
}

static void count_entry(void *user, const char *entry, sf_probe_state state, const char *reason) {
  outcome *o = user;
  (void)reason;
  o->verdicts += strncmp(entry, "verdict k", 9) == 0;
  o->missing += state != SF_PROBE_HIT;
}

/* Winner and dense kernels in the choice lines of an explanation: "spmm 3 us, measured 2 us (..; gemm-dense 4 us, measured 5 us". */
static void check_choices(const sf_program *program) {
  for (int32_t c = 0; c < program->n_classes; c++)
    for (size_t k = 0; k < program->classes[c].plan.n_kernels; k++) {
      const sfi_kernel *kernel = &program->classes[c].plan.kernels[k];
      if (kernel->measured_us <= 0) continue;
      for (const char *at = kernel->choice; (at = strstr(at, "; gemm-dense ")); at++) {
        const char *measured = strstr(at, "measured "), *end = strchr(at + 1, ';');
        if (!measured || (end && measured > end)) continue;
        if (program->classes[c].plan.symbol_min != program->classes[c].plan.symbol_max)
          continue; /* `full` weighs several extents */
        ck_assert_msg(kernel->measured_us <= strtod(measured + 9, NULL) * 1.01, "%s", kernel->choice);
      }
    }
}

static outcome start(const char *folder, int network, setting s) {
  outcome o = {0};
  sf_context_options options;
  sf_compile_options compile_options;
  sf_context *context;
  sf_program *program;
  SF_INIT(&options);
  SF_INIT(&compile_options);
  SF_INIT(&o.stats);
  options.cache_dir = folder;
  options.threads = 2;
  options.calibrate = s.calibrate;
  options.tune = s.tune;
  options.log = count_measurements;
  options.log_user = &o.measurements;
  options.log_level = SF_LOG_INFO;
  compile_options.flags = s.flags;
  compile_options.isa = s.isa;
  compile_options.error = &o.error;
  ck_assert_int_eq(sf_context_create(&options, &context), SF_OK);
  o.target = context->target;
  sf_graph *graph = build_network(context, network, 1);
  ck_assert_int_eq(sf_probe(context, graph, &compile_options, count_entry, &o), SF_OK);
  o.status = sf_compile(context, graph, &compile_options, &program, &o.stats);
  if (program) {
    const int64_t extents[] = {1, 5, 40};
    for (size_t i = 0; i < (program->symbolic ? SFI_COUNT(extents) : 1); i++) {
      check_answer(program, graph, extents[i], 1);
    }
    check_choices(program);
    ck_assert_int_eq(sf_program_explain(program, 0, keep_text, &o.explained), SF_OK);
  }
  sf_program_release(program);
  sf_graph_release(graph);
  sf_context_release(context);
  return o;
}

static void forget(outcome *o) {
  free(o->explained);
}

static bool compiles(void) {
  return sfi_backend_of(sfi_target_of(sfi_target_native())) != NULL;
}

/* Which emitter each kernel has, as explained: lines of two blanks. */
static void check_same_choice(const char *a, const char *b) {
  while ((a = strstr(a, "\n  k")) && (b = strstr(b, "\n  k"))) {
    const size_t length = strcspn(a + 1, "\n,");
    ck_assert(strncmp(a, b, length) == 0);
    a++, b++;
  }
}

START_TEST(a_verdict_is_reached_once) {
  static const sf_tune levels[] = {SF_TUNE_FAST, SF_TUNE_FULL};
  const setting s = {.tune = levels[_i % 2]};
  char folder[64];
  make_folder(folder);
  outcome cold = start(folder, _i / 2, s), warm = start(folder, _i / 2, s);
  ck_assert_int_eq(cold.status, SF_OK);
  ck_assert_int_eq(warm.status, SF_OK);
  ck_assert_int_eq(cold.stats.timed > 0, compiles());
  ck_assert_int_eq(cold.stats.compiled > 0, compiles());
  ck_assert_int_eq(warm.stats.timed + warm.stats.compiled + warm.stats.weights_packed + warm.stats.weights_scanned, 0);
  ck_assert_int_eq(warm.missing, 0);
  ck_assert_int_eq(warm.verdicts > 0, compiles());
  ck_assert_int_eq(compiles(), strstr(warm.explained, ", measured ") != NULL);
  check_same_choice(cold.explained, warm.explained);
  outcome untuned = start(folder, _i / 2, (setting){.tune = SF_TUNE_OFF});
  ck_assert_int_eq(untuned.stats.timed + untuned.verdicts, 0);
  ck_assert_ptr_null(strstr(untuned.explained, ", measured "));
  forget(&cold);
  forget(&warm);
  forget(&untuned);
  remove_tree(folder);
}
END_TEST

START_TEST(frozen) {
  char folder[64];
  make_folder(folder);
  const setting off = {.tune = SF_TUNE_OFF}, on = {.tune = SF_TUNE_FAST};
  const setting ice = {.tune = SF_TUNE_FAST, .flags = SF_COMPILE_FREEZE};
  outcome o = start(folder, 0, off);
  forget(&o);
  o = start(folder, 0, ice); /* all kernels are there, but not which to take */
  ck_assert_int_eq(o.status, compiles() ? SF_STATUS_WOULD_COMPILE : SF_OK);
  if (compiles()) ck_assert_ptr_nonnull(strstr(o.error.message, "would be timed"));
  forget(&o);
  o = start(folder, 0, on);
  forget(&o);
  o = start(folder, 0, ice);
  ck_assert_msg(o.status == SF_OK, "%s", o.error.message);
  ck_assert_int_eq(o.stats.timed, 0);
  forget(&o);
  remove_tree(folder);
}
END_TEST

/* Warming times as well, though it makes no program; for a target that does not run here it cannot. */
START_TEST(warming) {
  char folder[64];
  make_folder(folder);
  outcome o = start(folder, 0, (setting){.tune = SF_TUNE_FAST, .flags = SF_COMPILE_CACHE_ONLY});
  ck_assert_msg(o.status == SF_OK, "%s", o.error.message);
  ck_assert_int_eq(o.stats.timed > 0, compiles());
  o = start(folder, 0, (setting){.tune = SF_TUNE_FAST, .flags = SF_COMPILE_FREEZE});
  ck_assert_msg(o.status == SF_OK, "%s", o.error.message);
  forget(&o);
  const sf_isa absent = sfi_target_runs(SF_ISA_NEON) ? SF_ISA_AVX512 : SF_ISA_NEON;
  if (compiles()) {
    o = start(folder, 0, (setting){.tune = SF_TUNE_FAST, .flags = SF_COMPILE_CACHE_ONLY, .isa = absent});
    ck_assert_msg(o.status == SF_OK, "%s", o.error.message);
    ck_assert_int_eq(o.stats.timed, 0);
  }
  remove_tree(folder);
}
END_TEST

/* Replaces `from` by `to`, of the same length, in the payloads of all entries of a kind, and gives them the right checksums. */
static int rewrite_entries(const char *folder, sfi_entry_kind kind, const char *from, const char *to) {
  DIR *stream = opendir(folder);
  int changed = 0;
  for (struct dirent *entry; (entry = readdir(stream));) {
    char path[512];
    static char bytes[1 << 16];
    snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
    FILE *file = fopen(path, "rb");
    const size_t size = file ? fread(bytes, 1, sizeof bytes, file) : 0;
    if (file) fclose(file);
    if (size < 84 || bytes[64] != (char)kind) continue; /* docs/cache.md gives the places */
    uint64_t payload;
    memcpy(&payload, bytes + 56, sizeof payload);
    char *at = memmem(bytes + size - payload, payload, from, strlen(from));
    if (!at) continue;
    memcpy(at, to, strlen(to));
    sfi_digest digest = sfi_digest_of(bytes + size - payload, payload);
    memcpy(bytes + 40, digest.bytes, sizeof digest.bytes);
    digest = sfi_digest_of(bytes + 40, size - payload - 40);
    memcpy(bytes + 24, digest.bytes, sizeof digest.bytes);
    file = fopen(path, "wb");
    ck_assert(file && fwrite(bytes, 1, size, file) == size && fclose(file) == 0);
    changed++;
  }
  closedir(stream);
  return changed;
}

/* An entry that is whole and says something that cannot be is no verdict. */
START_TEST(verdicts_are_not_believed_blindly) {
  static const char *const wrong[][2] = {{"gemm-dense ", "gemm-tense "}, {"spmm-", "spmn-"}, {"\n", " "}};
  const setting s = {.tune = SF_TUNE_FAST};
  char folder[64];
  make_folder(folder);
  outcome cold = start(folder, 0, s);
  for (size_t i = 0; i < SFI_COUNT(wrong); i++) {
    const int changed = rewrite_entries(folder, SFI_ENTRY_VERDICT, wrong[i][0], wrong[i][1]);
    ck_assert_int_eq(changed > 0, i == 1 ? changed > 0 : compiles());
    outcome again = start(folder, 0, s);
    ck_assert_int_eq(again.status, SF_OK);
    ck_assert_int_le(again.stats.timed, cold.stats.timed);
    if (i == 2) ck_assert_int_eq(again.stats.timed, cold.stats.timed);
    forget(&again);
  }
  forget(&cold);
  remove_tree(folder);
}
END_TEST

static bool same_rates(const sfi_target *a, const sfi_target *b) {
#define SF_RATE(member, unit, what)                                                                                                \
  if (a->member != b->member) return false;
#include "rates.def"
#undef SF_RATE
  return true;
}

START_TEST(rates_are_measured_once) {
  const setting on = {.calibrate = 1};
  const sfi_target *table = sfi_target_of(sfi_target_native());
  char folder[64];
  make_folder(folder);
  outcome off = start(folder, 3, (setting){0});
  ck_assert(same_rates(&off.target, sfi_target_of(off.target.isa)));
  ck_assert_int_eq(off.measurements, 0);
  outcome cold = start(folder, 3, on), warm = start(folder, 3, on);
  ck_assert_int_eq(cold.measurements, compiles());
  ck_assert_int_eq(warm.measurements, 0);
  ck_assert(same_rates(&cold.target, &warm.target));
  if (compiles()) {
    ck_assert(!same_rates(&cold.target, table));
    ck_assert(cold.target.l1_bytes == table->l1_bytes && cold.target.l2_bytes == table->l2_bytes);
    ck_assert_int_eq(rewrite_entries(folder, SFI_ENTRY_RATES, "peak_gflops ", "peak_gflops-"), 1);
    outcome again = start(folder, 3, on);
    ck_assert_int_eq(again.measurements, 1);
    forget(&again);
  }
  forget(&off);
  forget(&cold);
  forget(&warm);
  remove_tree(folder);
}
END_TEST

START_TEST(unknown_levels_are_refused) {
  sf_context_options options;
  sf_context *context = NULL;
  SF_INIT(&options);
  options.cache_dir = "";
  options.tune = (sf_tune)9;
  ck_assert_int_eq(sf_context_create(&options, &context), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_ptr_null(context);
  options.tune = SF_TUNE_OFF;
  ck_assert_int_eq(sf_context_create(&options, &context), SF_OK);
  sf_graph *graph = build_network(context, 3, 1);
  sf_compile_options compile_options;
  sf_program *program;
  SF_INIT(&compile_options);
  compile_options.tune = (sf_tune)-1;
  ck_assert_int_eq(sf_compile(context, graph, &compile_options, &program, NULL), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_ptr_null(program);
  sf_graph_release(graph);
  sf_context_release(context);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("tune");
  TCase *tests = tcase_create("all");
  tcase_set_timeout(tests, 300);
  tcase_add_loop_test(tests, a_verdict_is_reached_once, 0, 4);
  tcase_add_test(tests, frozen);
  tcase_add_test(tests, warming);
  tcase_add_test(tests, verdicts_are_not_believed_blindly);
  tcase_add_test(tests, rates_are_measured_once);
  tcase_add_test(tests, unknown_levels_are_refused);
  suite_add_tcase(suite, tests);
  return run_suite(suite);
}
