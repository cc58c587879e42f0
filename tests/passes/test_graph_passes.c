/* Graph passes on random graphs: the reference back end gives the same before and after, a second run changes nothing, and running
 * out of memory at any allocation leaks nothing. What the passes make of chosen graphs is in tests/golden. */
#include "context.h"
#include "failing_allocator.h"
#include "passes.h"
#include "random_graph.h"
#include "ref.h"
#include "suite.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { GRAPHS = 600 };

typedef enum agreement {
  SAME_BITS,  /* but for the bits of NaN */
  SAME_VALUES /* 0 equals -0 */
} agreement;

static const struct pass {
  const char *name;
  sfi_graph_pass run;
  agreement exact;
  bool rounds; /* where batch_norm, a chain behind a contraction or written-out operations are composed anew */
  bool siblings;
} passes[] = {
    {"eliminate-dead", sfi_eliminate_dead, SAME_BITS, false},
    {"eliminate-common", sfi_eliminate_common, SAME_BITS, false},
    {"fold-constants", sfi_fold_constants, SAME_BITS, false},
    {"propagate-dead-channels", sfi_propagate_dead_channels, SAME_VALUES, false},
    {"join-products", sfi_join_products, SAME_BITS, false, true},
    {"simplify", sfi_simplify, SAME_VALUES, true},
    {"compose", sfi_compose, SAME_VALUES, true},
    {"fold-batch-norm", sfi_fold_batch_norm, SAME_VALUES, true},
};

static failing_allocator memory;
static sf_context *context;
static sfi_diag diag;
static sfi_pass_env env;
static sfi_arena found; /* facts, of the context's memory */

/* Lists live rows and columns of every other weight, by its digest: passes take both. */
static const sfi_facts *find_facts(void *user, const sfi_matrix *matrix, sfi_digest digest) {
  (void)user;
  sfi_facts *facts = sfi_arena_alloc(&found, sizeof *facts);
  uint8_t *live = sfi_arena_alloc(&found, (size_t)(matrix->rows + matrix->columns));
  if (!facts || !live) sfi_fail_memory(&diag);
  if (!facts || !live || sfi_scan_zeros(matrix, found.allocator, &diag, facts) != SF_OK) return NULL;
  sfi_scan_live(matrix, live);
  if (facts->dead_rows + facts->dead_columns && digest.bytes[0] & 1) facts->live = live;
  return facts;
}

static sfi_digest find_digest(void *user, const sfi_matrix *matrix) {
  (void)user;
  return sfi_matrix_digest(matrix);
}

static void set_up(void) {
  sf_context_options options;
  sf_allocator allocator = failing_allocator_of(&memory);
  memory = (failing_allocator){0};
  SF_INIT(&options);
  options.isa = SF_ISA_REFERENCE;
  options.cache_dir = "";
  options.threads = 1;
  options.allocator = &allocator;
  ck_assert_int_eq(sf_context_create(&options, &context), SF_OK);
  diag = (sfi_diag){0};
  found = (sfi_arena){.allocator = &context->allocator};
  env = (sfi_pass_env){.context = context, .diag = &diag, .facts = find_facts, .digest = find_digest, .evaluate = sfi_ref_node};
}

static void tear_down(void) {
  sfi_arena_deinit(&found);
  sf_context_release(context);
  ck_assert_int_eq(memory.live, 0);
}

static void print(const sf_graph *graph, sfi_text *out) {
  *out = (sfi_text){.allocator = &sfi_default_allocator};
  sfi_graph_print(graph, out);
  ck_assert(!out->failed);
}

/* ---- the same values ---------------------------------------------------------------------------------------------- */

static bool agree(double got, double want, agreement exact, double allowed) {
  if (isnan(want) || isnan(got)) return isnan(want) && isnan(got);
  if (exact == SAME_BITS && signbit(got) != signbit(want)) return false;
  return got == want || fabs(got - want) <= allowed;
}

static double element(const sf_tensor *tensor, int64_t i) {
  return tensor->dtype == SF_F64 ? ((const double *)tensor->data)[i] : (double)((const float *)tensor->data)[i];
}

static void compare(const struct pass *pass, uint64_t seed, const sf_tensor *got, const sf_tensor *want, bool rounds) {
  double largest = 0;
  int64_t count = sf_tensor_count(want);
  for (int64_t i = 0; rounds && i < count; i++) largest = fmax(largest, fabs(element(want, i)));
  for (int64_t i = 0; i < count; i++)
    ck_assert_msg(agree(element(got, i), element(want, i), pass->exact, rounds ? 1e-4 * (1 + largest) : 0),
                  "%s, seed %llu: element %lld is %.9g, not %.9g", pass->name, (unsigned long long)seed, (long long)i,
                  element(got, i), element(want, i));
}

static void run_both(const struct pass *pass, uint64_t seed, const sf_graph *before, const sf_graph *after, bool special,
                     bool rounds) {
  static const int64_t symbols[] = {1, 3, 0};
  for (size_t s = 0; s < SFI_COUNT(symbols); s++) {
    sf_random_tensors want, got;
    sf_dtype precision = rounds ? SF_F64 : SF_F32;
    sf_random_tensors_make(before, seed + s, special, precision, symbols[s], &want);
    sf_random_tensors_make(after, seed + s, special, precision, symbols[s], &got);
    ck_assert_int_eq(sfi_ref_run(before, &sfi_default_allocator, precision, symbols[s], want.inputs, want.outputs, &diag), SF_OK);
    ck_assert_int_eq(sfi_ref_run(after, &sfi_default_allocator, precision, symbols[s], got.inputs, got.outputs, &diag), SF_OK);
    for (int32_t i = 0; i < want.n_outputs; i++) compare(pass, seed, &got.outputs[i], &want.outputs[i], rounds);
    sf_random_tensors_free(&want);
    sf_random_tensors_free(&got);
  }
}

/* Inputs and outputs keep their names, order and shapes. */
static void same_signature(const sf_graph *before, const sf_graph *after) {
  ck_assert_int_eq(before->n_inputs, after->n_inputs);
  ck_assert_int_eq(before->n_outputs, after->n_outputs);
  for (size_t i = 0; i < before->n_inputs; i++) {
    const sfi_node *a = &before->nodes[before->inputs[i]], *b = &after->nodes[after->inputs[i]];
    ck_assert_str_eq(a->name, b->name);
    ck_assert(sfi_shape_equal(&a->shape, &b->shape));
  }
  for (size_t i = 0; i < before->n_outputs; i++) {
    ck_assert_str_eq(before->outputs[i].name, after->outputs[i].name);
    ck_assert(sfi_shape_equal(&before->nodes[before->outputs[i].value].shape, &after->nodes[after->outputs[i].value].shape));
  }
}

static sf_graph *apply(const struct pass *pass, uint64_t seed, const sf_graph *graph) {
  sf_graph *made;
  sf_status status = pass->run(&env, graph, &made);
  ck_assert_msg(status == SF_OK, "%s, seed %llu: %s", pass->name, (unsigned long long)seed, diag.error.message);
  ck_assert_msg(sfi_graph_verify(made, &diag) == SF_OK, "%s, seed %llu: %s", pass->name, (unsigned long long)seed,
                diag.error.message);
  return made;
}

/* Random graphs of one kind through one pass, its idempotence included. */
static void try_graphs(const struct pass *pass, const sf_random_graph_options *options, bool rounds) {
  int32_t changed = 0;
  for (uint64_t seed = 1; seed <= GRAPHS; seed++) {
    sf_graph *built = sf_random_graph(context, seed, options), *graph;
    ck_assert_msg(built != NULL, "seed %llu", (unsigned long long)seed);
    ck_assert_int_eq(sfi_eliminate_dead(&env, built, &graph), SF_OK); /* what the other passes ask for */
    const sf_graph *before = pass->run == sfi_eliminate_dead ? built : graph;
    sf_graph *once = apply(pass, seed, before), *twice = apply(pass, seed, once);
    sfi_text text[3];
    print(before, &text[0]);
    print(once, &text[1]);
    print(twice, &text[2]);
    changed += strcmp(text[0].data, text[1].data) != 0;
    ck_assert_msg(strcmp(text[1].data, text[2].data) == 0, "%s, seed %llu: once\n%s\ntwice\n%s", pass->name,
                  (unsigned long long)seed, text[1].data, text[2].data);
    same_signature(before, once);
    run_both(pass, seed, before, once, options->special, rounds);
    for (int i = 0; i < 3; i++) sfi_text_deinit(&text[i]);
    sf_graph_release(twice);
    sf_graph_release(once);
    sf_graph_release(graph);
    sf_graph_release(built);
  }
  ck_assert_msg(changed > GRAPHS / 20, "%s changed %d graphs of %d: the graphs do not try it", pass->name, changed, GRAPHS);
}

/* Without batch norms simplify rounds nothing; these always do. */
static bool rounds_all(const struct pass *pass) {
  return pass->run == sfi_fold_batch_norm || pass->run == sfi_compose;
}

START_TEST(values_stay) {
  const struct pass *pass = &passes[_i];
  if (!rounds_all(pass))
    try_graphs(pass, &(sf_random_graph_options){.operations = 14, .no_batch_norm = pass->rounds, .siblings = pass->siblings},
               false);
  if (pass->rounds) try_graphs(pass, &(sf_random_graph_options){.operations = 6, .gentle = true}, true);
}
END_TEST

START_TEST(special_values_stay) {
  const struct pass *pass = &passes[_i];
  if (rounds_all(pass)) return;
  try_graphs(
      pass,
      &(sf_random_graph_options){.operations = 10, .special = true, .no_batch_norm = pass->rounds, .siblings = pass->siblings},
      false);
}
END_TEST

/* ---- bounds ------------------------------------------------------------------------------------------------------- */

static sf_graph *parse(const char *text) {
  sf_graph *graph;
  sf_status status = sf_graph_parse(context, text, strlen(text), "test", NULL, &graph);
  sf_error error;
  if (status != SF_OK) {
    sf_context_take_error(context, &error);
    ck_abort_msg("%s", error.message);
  }
  return graph;
}

static sf_graph *outer_product(int64_t rows, int64_t depth, int64_t columns) {
  sf_graph *graph;
  ck_assert_int_eq(sf_graph_create(context, NULL, &graph), SF_OK);
  float *data = calloc((size_t)(rows * depth + depth * columns), sizeof *data);
  sf_value a = sf_graph_weight(graph, "a", SF_F32, 2, (const int64_t[]){rows, depth}, data, SF_COPY);
  sf_value b = sf_graph_weight(graph, "b", SF_F32, 2, (const int64_t[]){depth, columns}, data, SF_COPY);
  free(data);
  ck_assert_int_eq(sf_graph_output(graph, "y", sf_matmul(graph, a, b, false, false)), SF_OK);
  return graph;
}

/* Neither a result much larger than its operands nor a long evaluation. */
START_TEST(folding_is_bounded) {
  static const struct {
    int64_t rows, depth, columns;
    size_t n_nodes;
  } cases[] = {{500, 1, 500, 1}, {600, 1, 600, 3}, {1024, 512, 1024, 3}};
  for (size_t i = 0; i < SFI_COUNT(cases); i++) {
    sf_graph *graph = outer_product(cases[i].rows, cases[i].depth, cases[i].columns), *folded;
    ck_assert_int_eq(sfi_fold_constants(&env, graph, &folded), SF_OK);
    ck_assert_uint_eq(folded->n_nodes, cases[i].n_nodes);
    sf_graph_release(folded);
    sf_graph_release(graph);
  }
}
END_TEST

/* Extents far beyond memory are no reason to fail: such dimensions are not looked at. */
START_TEST(large_extents) {
  sf_graph *graph = parse("%x = input f32[2, 549755813888]\n"
                          "%w = constant f32[2, 2] [1, 2, 0, 0]\n"
                          "%v = constant f32[1, 2] [3, 4]\n"
                          "%a = reshape %x shape=[2, 524288, 1048576]\n"
                          "%b = reshape %a shape=[2, -1]\n"
                          "%c = slice %b starts=[0, 5] ends=[2, 500000000000]\n"
                          "%d = matmul %w, %c\n"
                          "%e = relu %d\n"
                          "%y = matmul %v, %e\n"
                          "output %y\n"),
           *made;
  ck_assert_int_eq(sfi_propagate_dead_channels(&env, graph, &made), SF_OK);
  sfi_text text;
  print(made, &text);
  ck_assert_msg(strstr(text.data, "%w = constant f32[1, 2] [1, 2]") != NULL, "%s", text.data);
  sfi_text_deinit(&text);
  sf_graph_release(made);
  sf_graph_release(graph);
}
END_TEST

/* ---- out of memory ------------------------------------------------------------------------------------------------ */

static const char everything[] =
    "%x = input f32[batch, 2, 4, 4]\n"
    "%unused = input f32[3]\n"
    "%w1 = constant f32[3, 2, 1, 1] [1, 2, 0, 0, 3, 4]\n"
    "%b1 = constant f32[3] [1, 0, 2]\n"
    "%s1 = constant f32[3, 1, 1] [2, 3, 4]\n"
    "%s2 = constant f32[3, 1, 1] [2, 3, 4]\n"
    "%half = constant f32[] 0.5\n"
    "%wh = mul %w1, %half\n"
    "%c = conv2d %x, %wh, %b1\n"
    "%m1 = mul %c, %s1\n"
    "%r = relu %m1\n"
    "%m2 = mul %s2, %r\n"
    "%dead = exp %m2\n"
    "%k = constant f32[3] [1, 2, 3]\n"
    "%n = batch_norm %m2, %k, %k, %k, %k\n"
    "%t = slice %m2 starts=[0, 0, 0, 1] ends=[9223372036854775807, 3, 4, 3]\n"
    "%g = global_avg_pool %n\n"
    "%f = reshape %t shape=[0, 24]\n"
    "%w2 = constant f32[2, 24] [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, "
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6]\n"
    "%p = matmul %f, %w2 transpose_b=1\n"
    "%eight = constant f32[] 8\n"
    "%y = div %p, %eight\n"
    "%z = relu %y\n"
    "output %y\n"
    "output %z\n"
    "output %g\n";

START_TEST(out_of_memory) {
  const struct pass *pass = &passes[_i];
  for (int for_good = 0; for_good < 2; for_good++) {
    sf_graph *graph = parse(everything), *made;
    long live = memory.live, failures = 0;
    for (long k = 1;; k++) {
      atomic_long *when = for_good ? &memory.fail_from : &memory.fail_at;
      *when = memory.calls + k;
      sf_status status = pass->run(&env, graph, &made);
      memory.fail_at = memory.fail_from = 0;
      sfi_arena_deinit(&found);
      if (status == SF_OK) break;
      ck_assert_int_eq(status, SF_STATUS_OUT_OF_MEMORY);
      ck_assert_int_eq(diag.error.status, SF_STATUS_OUT_OF_MEMORY);
      ck_assert_ptr_null(made);
      ck_assert_int_eq(memory.live, live);
      diag = (sfi_diag){0};
      failures++;
    }
    ck_assert_int_gt(failures, 4);
    ck_assert_int_eq(sfi_graph_verify(made, &diag), SF_OK);
    sf_graph_release(made);
    sf_graph_release(graph);
  }
}
END_TEST

/* ---- documentation that is checked -------------------------------------------------------------------------------- */

START_TEST(rules_have_golden_files) {
  static const char *const names[] = {
#define SFI_RULE(op, name, function) name,
#include "simplify_rules.def"
#undef SFI_RULE
  };
  for (size_t i = 0; i < SFI_COUNT(names); i++) {
    char path[1024];
    snprintf(path, sizeof path, "%s/tests/golden/simplify/%s.sft", SFI_SOURCE_DIR, names[i]);
    ck_assert_msg(access(path, R_OK) == 0, "%s is missing", path);
  }
}
END_TEST

int main(void) {
  Suite *suite = suite_create("graph passes");
  TCase *all = tcase_create("all");
  tcase_add_checked_fixture(all, set_up, tear_down);
  tcase_set_timeout(all, 300);
  tcase_add_loop_test(all, values_stay, 0, SFI_COUNT(passes));
  tcase_add_loop_test(all, special_values_stay, 0, SFI_COUNT(passes));
  tcase_add_loop_test(all, out_of_memory, 0, SFI_COUNT(passes));
  tcase_add_test(all, folding_is_bounded);
  tcase_add_test(all, large_extents);
  tcase_add_test(all, rules_have_golden_files);
  suite_add_tcase(suite, all);
  return run_suite(suite);
}
