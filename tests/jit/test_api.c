/* The public calls of jit/: options of every size, wrong arguments, errors kept and taken, stages printed, weights pictured. */
#include "run_fixture.h"

typedef struct log_lines {
  int n;
  char last[512];
} log_lines;

static void keep_line(void *user, sf_log_level level, const char *line) {
  log_lines *lines = user;
  (void)level;
  lines->n++;
  snprintf(lines->last, sizeof lines->last, "%s", line);
}

static bool to_text(void *user, const char *text, size_t length) {
  sfi_text_add(user, text, length);
  return true;
}

static bool stop_at_once(void *user, const char *text, size_t length) {
  (void)text, (void)length;
  return ++*(int *)user < 1;
}

/* ---- context ------------------------------------------------------------------------------------------------------ */

START_TEST(context_options) {
  sf_context *context;
  ck_assert_int_eq(sf_context_create(NULL, NULL), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_context_create(NULL, &context), SF_OK);
  ck_assert_int_ge(context->threads, 1);
  ck_assert_int_eq(context->log_level, SF_LOG_WARNING);
  sf_context_release(context);
  sf_context_release(NULL);

  log_lines lines = {0};
  sf_context_options options;
  SF_INIT(&options);
  options.log = keep_line;
  options.log_user = &lines;
  options.cache_dir = "";
  options.threads = -1;
  ck_assert_int_eq(sf_context_create(&options, &context), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_ptr_null(context);
  ck_assert_ptr_nonnull(strstr(lines.last, "threads"));
  options.threads = 3;
  options.isa = (sf_isa)77;
  ck_assert_int_eq(sf_context_create(&options, &context), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_ptr_nonnull(strstr(lines.last, "isa 77"));
  sf_isa absent = sfi_target_runs(SF_ISA_NEON) ? SF_ISA_AVX2 : SF_ISA_NEON;
  options.isa = absent;
  ck_assert_int_eq(sf_context_create(&options, &context), SF_STATUS_UNSUPPORTED);
  ck_assert_ptr_nonnull(strstr(lines.last, sfi_target_of(absent)->name));
  ck_assert_int_eq(lines.n, 3);
  options.isa = SF_ISA_NATIVE;
  sf_allocator half = {0};
  half.allocate = sfi_default_allocator.allocate;
  options.allocator = &half;
  ck_assert_int_eq(sf_context_create(&options, &context), SF_STATUS_INVALID_ARGUMENT);
  options.allocator = NULL;
  ck_assert_int_eq(sf_context_create(&options, &context), SF_OK);
  ck_assert_int_eq(context->threads, 3);
  sf_context_release(context);
}
END_TEST

START_TEST(struct_sizes) {
  struct {
    sf_context_options options;
    char tail[32]; /* of a later version of the library */
  } later;
  sf_context *context;
  memset(&later, 0, sizeof later);
  later.options.struct_size = sizeof later;
  later.options.cache_dir = "";
  later.options.threads = 2;
  ck_assert_int_eq(sf_context_create(&later.options, &context), SF_OK);
  sf_context_release(context);
  later.tail[20] = 1;
  ck_assert_int_eq(sf_context_create(&later.options, &context), SF_STATUS_INVALID_ARGUMENT);
  later.options.struct_size = offsetof(sf_context_options, threads); /* what follows is not looked at */
  ck_assert_int_eq(sf_context_create(&later.options, &context), SF_OK);
  sf_context_release(context);
  later.options.struct_size = 3;
  ck_assert_int_eq(sf_context_create(&later.options, &context), SF_STATUS_INVALID_ARGUMENT);

  context = plain_context(1);
  sf_graph *graph = build_network(context, 3, 1);
  sf_program *program;
  struct {
    sf_compile_stats stats;
    int64_t tail;
  } stats = {.tail = 42};
  stats.stats.struct_size = sizeof stats;
  ck_assert_int_eq(sf_compile(context, graph, NULL, &program, &stats.stats), SF_OK);
  ck_assert_int_eq(stats.tail, 42);
  ck_assert_uint_eq(stats.stats.struct_size, sizeof stats);
  ck_assert_int_gt(stats.stats.kernels, 0);
  sf_program_release(program);
  stats.stats = (sf_compile_stats){.struct_size = offsetof(sf_compile_stats, compiled), .compiled = -5};
  ck_assert_int_eq(sf_compile(context, graph, NULL, &program, &stats.stats), SF_OK);
  ck_assert_int_gt(stats.stats.kernels, 0);
  ck_assert_int_eq(stats.stats.compiled, -5);
  sf_program_release(program);
  stats.stats.struct_size = 0;
  ck_assert_int_eq(sf_compile(context, graph, NULL, &program, &stats.stats), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_ptr_null(program);
  sf_graph_release(graph);
  sf_context_release(context);
}
END_TEST

START_TEST(first_error_is_kept) {
  sf_context *context = plain_context(1);
  sf_error error;
  ck_assert_int_eq(sf_context_take_error(context, &error), SF_OK);
  ck_assert_int_eq(error.status, SF_OK);
  ck_assert_int_eq(sf_context_take_error(NULL, &error), SF_STATUS_INVALID_ARGUMENT);
  sf_program *program = (sf_program *)1;
  ck_assert_int_eq(sf_compile(context, NULL, NULL, &program, NULL), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_ptr_null(program);
  sf_graph *graph = build_network(context, 3, 1);
  ck_assert_int_eq(sf_compile(context, graph, NULL, NULL, NULL), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_context_take_error(context, &error), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_ptr_nonnull(strstr(error.message, "graph"));
  ck_assert_int_eq(sf_context_take_error(context, NULL), SF_OK);
  sf_graph_release(graph);
  sf_context_release(context);
}
END_TEST

/* ---- compile ------------------------------------------------------------------------------------------------------ */

static void refuse(const sf_graph *graph, const sf_compile_options *given, sf_status want, const char *word) {
  sf_compile_options options = *given;
  sf_error error = {0}, kept;
  sf_program *program = (sf_program *)1;
  options.error = &error;
  ck_assert_int_eq(sf_compile(graph->context, graph, &options, &program, NULL), want);
  ck_assert_ptr_null(program);
  ck_assert_int_eq(error.status, want);
  ck_assert_msg(strstr(error.message, word) != NULL, "'%s' does not say '%s'", error.message, word);
  ck_assert_int_eq(sf_context_take_error(graph->context, &kept), want);
  ck_assert_str_eq(kept.message, error.message);
}

START_TEST(compile_options) {
  sf_context *context = plain_context(1);
  sf_graph *graph = build_network(context, 0, 1);
  sf_compile_options options;
#define REFUSE(status, word, ...)                                                                                                  \
  SF_INIT(&options);                                                                                                               \
  __VA_ARGS__;                                                                                                                     \
  refuse(graph, &options, status, word)
  REFUSE(SF_STATUS_INVALID_ARGUMENT, "flags", options.flags = 64);
  REFUSE(SF_STATUS_INVALID_ARGUMENT, "excludes", options.flags = SF_COMPILE_NO_CACHE | SF_COMPILE_CACHE_ONLY);
  REFUSE(SF_STATUS_INVALID_ARGUMENT, "opt_level", options.opt_level = 4);
  REFUSE(SF_STATUS_INVALID_ARGUMENT, "opt_level", options.opt_level = -1);
  REFUSE(SF_STATUS_INVALID_ARGUMENT, "isa", options.isa = (sf_isa)9);
  sf_isa absent = sfi_target_runs(SF_ISA_NEON) ? SF_ISA_AVX2 : SF_ISA_NEON;
  REFUSE(SF_STATUS_UNSUPPORTED, "CACHE_ONLY", options.isa = absent);
  REFUSE(SF_STATUS_INVALID_ARGUMENT, "n_classes", options.n_classes = -1);
  REFUSE(SF_STATUS_INVALID_ARGUMENT, "n_classes", options.n_classes = 3);
  REFUSE(SF_STATUS_INVALID_ARGUMENT, "n_classes", options.n_classes = 1000, options.classes = DIMS(1));
  REFUSE(SF_STATUS_INVALID_ARGUMENT, "classes[0]", options.n_classes = 1, options.classes = DIMS(0));
  REFUSE(SF_STATUS_INVALID_ARGUMENT, "classes[1]", options.n_classes = 2, options.classes = DIMS(4, 4));
  REFUSE(SF_STATUS_INVALID_ARGUMENT, "classes[0]", options.n_classes = 1, options.classes = DIMS(INT64_MAX));
  REFUSE(SF_STATUS_INVALID_ARGUMENT, "no emitter 'fast'", options.emitter = "fast");
#undef REFUSE
  const sfi_backend *backend = sfi_backend_of(&context->target);
  for (size_t i = 0; backend && i < backend->n_emitters; i++) { /* the list in the message names them all */
    sf_error error;
    if (backend->emitters[i]->anchor != SFI_ANCHOR_CONTRACT) continue;
    SF_INIT(&options);
    options.emitter = "";
    options.error = &error;
    sf_program *program;
    ck_assert_int_eq(sf_compile(context, graph, &options, &program, NULL), SF_STATUS_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(error.message, backend->emitters[i]->name));
  }
  sf_program *program;
  ck_assert_int_eq(sf_compile(NULL, graph, NULL, &program, NULL), SF_STATUS_INVALID_ARGUMENT);
  sf_error error = {.status = SF_STATUS_INTERNAL};
  SF_INIT(&options);
  options.error = &error;
  ck_assert_int_eq(sf_compile(context, graph, &options, &program, NULL), SF_OK);
  ck_assert_int_eq(error.status, SF_OK);
  sf_program_release(program);
  sf_graph_release(graph);
  sf_context_release(context);
}
END_TEST

START_TEST(broken_graphs) {
  sf_context *context = plain_context(1);
  sf_graph *graph;
  sf_compile_options options;
  SF_INIT(&options);
  ck_assert_int_eq(sf_graph_create(context, "empty", &graph), SF_OK);
  refuse(graph, &options, SF_STATUS_INVALID_GRAPH, "no output");
  sf_value x = sf_graph_input(graph, "x", SF_F32, 1, DIMS(4));
  sf_binary(graph, SF_OP_ADD, x, sf_graph_input(graph, "y", SF_F32, 1, DIMS(3)));
  sf_context_take_error(context, NULL);
  refuse(graph, &options, sf_graph_status(graph), graph->diag.error.message);
  sf_graph_release(graph);
  sf_context_release(context);
}
END_TEST

START_TEST(program_info) {
  sf_context *context = plain_context(1);
  sf_graph *graph = build_network(context, 2, 1);
  sf_program *program = compile(context, graph);
  sf_tensor_info info;
  ck_assert_int_eq(sf_program_input_count(program), 2);
  ck_assert_int_eq(sf_program_output_count(program), 4);
  ck_assert_int_eq(sf_program_input_count(NULL) + sf_program_output_count(NULL), 0);
  ck_assert_int_eq(sf_program_input_info(program, 1, &info), SF_OK);
  ck_assert_str_eq(info.name, "z");
  ck_assert_int_eq(info.dims[0], SF_DIM_SYMBOLIC);
  ck_assert_int_eq(sf_program_output_info(program, 2, &info), SF_OK);
  ck_assert_str_eq(info.name, "x_again");
  ck_assert_int_eq(sf_program_input_info(program, 2, &info), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_program_output_info(program, -1, &info), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_program_output_info(NULL, 0, &info), SF_STATUS_INVALID_ARGUMENT);
  sf_program_retain(program);
  sf_program_release(program);
  sf_program_retain(NULL);
  sf_program_release(NULL);
  sf_program_release(program);
  sf_graph_release(graph);
  sf_context_release(context);
}
END_TEST

/* ---- text --------------------------------------------------------------------------------------------------------- */

/* Braces and brackets outside of strings close what they should. */
static void check_braces(const char *json) {
  char open[64];
  size_t depth = 0;
  bool quoted = false;
  for (const char *c = json; *c; c++) {
    if (quoted) {
      quoted = *c != '"';
      c += *c == '\\';
    } else if (*c == '"') {
      quoted = true;
    } else if (*c == '{' || *c == '[') {
      ck_assert_uint_lt(depth, sizeof open);
      open[depth++] = *c;
    } else if (*c == '}' || *c == ']') {
      ck_assert(depth > 0 && open[--depth] == (*c == '}' ? '{' : '['));
    }
  }
  ck_assert(depth == 0 && !quoted);
}

START_TEST(explain) {
  sf_context *context = plain_context(1);
  sf_graph *graph = build_network(context, _i, 1);
  sf_program *program = compile(context, graph);
  sfi_text text = {.allocator = &sfi_default_allocator};
  ck_assert_int_eq(sf_program_explain(NULL, 0, to_text, &text), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_program_explain(program, 0, NULL, &text), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_program_explain(program, 4, to_text, &text), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_program_explain(program, SF_EXPLAIN_JSON | SF_EXPLAIN_MEASURE, to_text, &text), SF_OK);
  check_braces(text.data);
  ck_assert((sfi_backend_of(&context->target) != NULL) == (strstr(text.data, "\"reached\":") != NULL));
  ck_assert_ptr_null(strstr(text.data, "\"measured_us\":null"));
  sfi_text_deinit(&text);
  ck_assert_int_eq(sf_program_explain(program, 0, to_text, &text), SF_OK);
  for (int32_t c = 0; c < program->n_classes; c++) {
    for (size_t k = 0; k < program->classes[c].plan.n_kernels; k++) {
      ck_assert_ptr_nonnull(strstr(text.data, program->classes[c].plan.kernels[k].name));
    }
  }
  for (const char *line = text.data; *line; line = strchr(line, '\n') + 1) {
    ck_assert_msg(strcspn(line, "\n") <= 110, "too wide: %.*s", (int)strcspn(line, "\n"), line);
  }
  sfi_text_deinit(&text);
  sf_program_release(program);
  sf_graph_release(graph);
  sf_context_release(context);
}
END_TEST

START_TEST(emit_stages) {
  sf_context *context = plain_context(1);
  sf_graph *graph = build_network(context, 0, 1);
  const sfi_backend *backend = sfi_backend_of(&context->target);
  static const char *const words[] = {"matmul", "matmul", "nonzero", "matmul", "define", "sf_kernel"};
  for (int stage = SF_STAGE_GRAPH; stage <= SF_STAGE_ASM; stage++) {
    sfi_text text = {.allocator = &sfi_default_allocator};
    sf_status status = sf_emit(context, graph, NULL, (sf_stage)stage, NULL, NULL, to_text, &text);
    if (stage >= SF_STAGE_LLVM && !backend) {
      ck_assert_int_eq(status, SF_STATUS_UNSUPPORTED);
    } else {
      ck_assert_int_eq(status, SF_OK);
      ck_assert_ptr_nonnull(strstr(text.data, words[stage]));
    }
    sfi_text_deinit(&text);
  }
  static const char *const passes[] = {
      "fold-constants",          "simplify",      "fold-batch-norm",  "fuse-attention", "eliminate-common", "eliminate-dead",
      "propagate-dead-channels", "join-products", "lower-to-kernels", "fuse",           "choose",           "lifetimes"};
  for (size_t i = 0; i < SFI_COUNT(passes); i++) {
    sfi_text text = {.allocator = &sfi_default_allocator};
    char before[64], after[64];
    snprintf(before, sizeof before, "; before %s", passes[i]);
    snprintf(after, sizeof after, "; after %s", passes[i]);
    ck_assert_int_eq(sf_emit(context, graph, NULL, SF_STAGE_GRAPH, NULL, passes[i], to_text, &text), SF_OK);
    if (backend || (strcmp(passes[i], "fuse") != 0 && strcmp(passes[i], "choose") != 0)) {
      ck_assert_ptr_nonnull(strstr(text.data, before));
      ck_assert_ptr_nonnull(strstr(text.data, after));
    }
    sfi_text_deinit(&text);
  }
  sf_program *program = compile(context, graph);
  const char *name = program->classes[1].plan.kernels[0].name;
  for (int stage = SF_STAGE_KERNELS; stage <= (backend ? SF_STAGE_ASM : SF_STAGE_KERNELS); stage++) {
    sfi_text text = {.allocator = &sfi_default_allocator};
    ck_assert_int_eq(sf_emit(context, graph, NULL, (sf_stage)stage, name, NULL, to_text, &text), SF_OK);
    ck_assert_ptr_nonnull(strstr(text.data, name));
    sfi_text_deinit(&text);
  }
  sf_program_release(program);
  sf_error error;
  int calls = 0;
  sf_context_take_error(context, NULL);
  ck_assert_int_eq(sf_emit(context, graph, NULL, SF_STAGE_KERNELS, "k99", NULL, stop_at_once, &calls), SF_STATUS_NOT_FOUND);
  sf_context_take_error(context, &error);
  ck_assert_ptr_nonnull(strstr(error.message, "k99"));
  ck_assert_int_eq(sf_emit(context, graph, NULL, SF_STAGE_GRAPH, NULL, "magic", stop_at_once, &calls), SF_STATUS_INVALID_ARGUMENT);
  sf_context_take_error(context, &error);
  ck_assert_ptr_nonnull(strstr(error.message, "lifetimes"));
  ck_assert_int_eq(sf_emit(context, graph, NULL, SF_STAGE_FACTS, "k0", NULL, stop_at_once, &calls), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_emit(context, graph, NULL, (sf_stage)9, NULL, NULL, stop_at_once, &calls), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_emit(context, NULL, NULL, SF_STAGE_GRAPH, NULL, NULL, stop_at_once, &calls), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_emit(context, graph, NULL, SF_STAGE_GRAPH, NULL, NULL, NULL, NULL), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_emit(NULL, graph, NULL, SF_STAGE_GRAPH, NULL, NULL, stop_at_once, &calls), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(calls, 0);
  if (backend) {
    ck_assert_int_eq(sf_emit(context, graph, NULL, SF_STAGE_ASM, NULL, NULL, stop_at_once, &calls), SF_OK);
    ck_assert_int_eq(calls, 1);
  }
  sf_graph_release(graph);
  sf_context_release(context);
}
END_TEST

/* ---- weights and cache -------------------------------------------------------------------------------------------- */

START_TEST(weight_pictures) {
  sf_context *context = plain_context(1);
  sf_graph *graph;
  float w[6 * 8] = {0}, cells[4 * 4];
  for (int c = 0; c < 8; c++) w[2 * 8 + c] = 1; /* one full row */
  w[5 * 8 + 1] = -1;
  w[0] = -0.0f;
  ck_assert_int_eq(sf_graph_create(context, NULL, &graph), SF_OK);
  sf_value x = sf_graph_input(graph, "x", SF_F32, 2, DIMS(SF_DIM_SYMBOLIC, 8));
  sf_value v = sf_graph_weight(graph, "w", SF_F32, 2, DIMS(6, 8), w, SF_COPY);
  sf_graph_output(graph, "y", sf_matmul(graph, x, v, false, true));
  sf_profile profile;
  SF_INIT(&profile);
  ck_assert_int_eq(sf_graph_weight_profile(context, graph, v, &profile), SF_OK);
  ck_assert_int_eq(profile.rows, 6);
  ck_assert_int_eq(profile.columns, 8);
  ck_assert_int_eq(profile.nonzeros, 9);
  ck_assert_int_eq(profile.dead_rows, 4);
  ck_assert_int_eq(profile.dead_columns, 0);
  ck_assert_int_eq(profile.row_max, 8);
  ck_assert_int_eq(profile.row_min, 0);
  ck_assert_int_eq(sf_graph_weight_density(context, graph, v, 3, 4, cells), SF_OK);
  for (int c = 0; c < 4; c++) {
    ck_assert_float_eq(cells[c], 0);
    ck_assert_float_eq(cells[4 + c], 0.5f);
    ck_assert_float_eq(cells[8 + c], c == 0 ? 0.25f : 0);
  }
  float fine[12 * 16];
  ck_assert_int_eq(sf_graph_weight_density(context, graph, v, 12, 16, fine), SF_OK);
  for (int r = 0; r < 12; r++) {
    for (int c = 0; c < 16; c++) ck_assert_float_eq(fine[r * 16 + c], w[r / 2 * 8 + c / 2] != 0);
  }
  ck_assert_int_eq(sf_graph_weight_profile(context, graph, x, &profile), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_graph_weight_profile(context, graph, 99, &profile), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_graph_weight_profile(context, graph, SF_NO_VALUE, &profile), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_graph_weight_profile(context, NULL, v, &profile), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_graph_weight_profile(context, graph, v, NULL), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_graph_weight_profile(NULL, graph, v, &profile), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_graph_weight_density(context, graph, v, 0, 4, cells), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_graph_weight_density(context, graph, v, 3, 4, NULL), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_graph_weight_density(NULL, graph, v, 3, 4, cells), SF_STATUS_INVALID_ARGUMENT);
  sf_graph_release(graph);
  sf_context_release(context);
}
END_TEST

static void ignore_probe(void *user, const char *entry, sf_probe_state state, const char *reason) {
  (void)user, (void)entry, (void)state, (void)reason;
}

START_TEST(cache_calls) {
  sf_context *context = plain_context(1);
  sf_graph *graph = build_network(context, 3, 1);
  sf_cache_stats stats;
  SF_INIT(&stats);
  ck_assert_int_eq(sf_cache_measure(context, &stats), SF_OK);
  ck_assert_int_eq(stats.entries, 0);
  ck_assert_int_eq(sf_cache_prune(context, 0, &stats), SF_OK);
  ck_assert_int_eq(sf_cache_measure(context, NULL), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_cache_measure(NULL, &stats), SF_STATUS_INVALID_ARGUMENT);
  stats.struct_size = 0;
  ck_assert_int_eq(sf_cache_prune(context, 0, &stats), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_probe(context, graph, NULL, NULL, NULL), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_probe(context, NULL, NULL, ignore_probe, NULL), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_probe(NULL, graph, NULL, ignore_probe, NULL), SF_STATUS_INVALID_ARGUMENT);
  sf_graph_release(graph);
  sf_context_release(context);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("api");
  TCase *cases = tcase_create("api");
  tcase_set_timeout(cases, 120);
  tcase_add_test(cases, context_options);
  tcase_add_test(cases, struct_sizes);
  tcase_add_test(cases, first_error_is_kept);
  tcase_add_test(cases, compile_options);
  tcase_add_test(cases, broken_graphs);
  tcase_add_test(cases, program_info);
  tcase_add_loop_test(cases, explain, 0, NETWORKS);
  tcase_add_test(cases, emit_stages);
  tcase_add_test(cases, weight_pictures);
  tcase_add_test(cases, cache_calls);
  suite_add_tcase(suite, cases);
  return run_suite(suite);
}
