/* Random graphs lowered and fused, run by the plan interpreter: within the bound of fp32 of the fp64 reference, and fused plans give the
 * bits of unfused ones. Special values too. SF_RANDOM_GRAPHS: how many; SF_RANDOM_SEED: the first. */
#include "bound.h"
#include "compare.h"
#include "plan_fixture.h"
#include "random_graph.h"
#include "ref.h"

enum { GRAPHS = 400 };

static long from_environment(const char *name, long otherwise) {
  const char *text = getenv(name);
  return text ? atol(text) : otherwise;
}

static bool same_bits(const sf_tensor *a, const sf_tensor *b) {
  const float *x = a->data, *y = b->data;
  for (int64_t i = 0; i < sf_tensor_count(a); i++) {
    if (memcmp(&x[i], &y[i], sizeof x[i]) != 0 && !(isnan(x[i]) && isnan(y[i]))) return false;
  }
  return true;
}

static void run_case(const sf_graph *g, const plan_case *c, int64_t symbol, const sf_random_tensors *t, uint64_t seed) {
  sfi_diag diag = {0};
  sfi_plan plan;
  char message[256] = "";
  const sf_status st = make_plan(g, &sfi_default_allocator, c, &plan, &diag);
  const bool good = st == SF_OK && sf_interpret(&plan, symbol, t->inputs, t->outputs, message, sizeof message);
  if (!good) print_plan(&plan);
  ck_assert_msg(good, "seed %llu at %lld: %s%s", (unsigned long long)seed, (long long)symbol, diag.error.message, message);
  sfi_arena_deinit(&plan.arena);
}

static void check(const sf_graph *g, int64_t symbol, const sf_random_tensors *got, const sf_random_tensors *want,
                  const sf_random_tensors *bound, uint64_t seed) {
  for (int32_t i = 0; i < got->n_outputs; i++) {
    sf_comparison comparison;
    char text[256];
    if (sf_compare_bounded(&got->outputs[i], &want->outputs[i], &bound->outputs[i], &comparison)) continue;
    sf_comparison_print(&comparison, text, sizeof text);
    sfi_text graph = {.allocator = &sfi_default_allocator};
    sfi_graph_print(g, &graph);
    ck_abort_msg("seed %llu at %lld, output %d: %s\n%s", (unsigned long long)seed, (long long)symbol, i, text, graph.data);
  }
}

static void try_graph(sf_context *context, uint64_t seed, bool special) {
  const sf_random_graph_options options = {.operations = 4 + (int32_t)(seed % 28), .special = special, .siblings = seed % 3 == 0};
  const int64_t symbol = (int64_t)(seed * 7 % 23);
  const plan_case classes[] = {
      {SF_ISA_AVX512, 0, INT64_MAX, false}, {SF_ISA_AVX2, symbol, symbol, false}, {SF_ISA_AVX512, 0, 40, false}};
  sf_graph *built = sf_random_graph(context, seed, &options), *g;
  ck_assert_ptr_nonnull(built);
  sfi_diag diag = {0};
  sfi_pass_env env = {.context = context, .diag = &diag, .evaluate = sfi_ref_node};
  ck_assert_int_eq(sfi_fold_constants(&env, built, &g), SF_OK);
  sf_random_tensors plain, fused, want, bound;
  sf_random_tensors_make(g, seed, special, SF_F32, symbol, &plain);
  sf_random_tensors_make(g, seed, special, SF_F32, symbol, &fused);
  sf_random_tensors_make(g, seed, special, SF_F64, symbol, &want);
  sf_random_tensors_make(g, seed, special, SF_F64, symbol, &bound);
  ck_assert(sf_bounded_run(built, symbol, plain.inputs, want.outputs, bound.outputs));
  plan_case c = classes[seed % SFI_COUNT(classes)];
  run_case(g, &c, symbol, &plain, seed);
  check(g, symbol, &plain, &want, &bound, seed);
  c.fuse = true;
  run_case(g, &c, symbol, &fused, seed);
  for (int32_t i = 0; i < plain.n_outputs; i++) {
    ck_assert_msg(same_bits(&plain.outputs[i], &fused.outputs[i]), "seed %llu at %lld: fusion changed output %d",
                  (unsigned long long)seed, (long long)symbol, i);
  }
  sf_random_tensors_free(&plain);
  sf_random_tensors_free(&fused);
  sf_random_tensors_free(&want);
  sf_random_tensors_free(&bound);
  sf_graph_release(g);
  sf_graph_release(built);
}

static void try_many(bool special) {
  sf_context *context = plain_context(1);
  const long first = from_environment("SF_RANDOM_SEED", 1), count = from_environment("SF_RANDOM_GRAPHS", GRAPHS);
  for (long seed = first; seed < first + count; seed++) try_graph(context, (uint64_t)seed, special);
  sf_context_release(context);
}

START_TEST(ordinary_values) {
  try_many(false);
}
END_TEST

START_TEST(special_values) {
  try_many(true);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("lowering of random graphs");
  TCase *tests = tcase_create("random");
  tcase_set_timeout(tests, 600);
  tcase_add_test(tests, ordinary_values);
  tcase_add_test(tests, special_values);
  suite_add_tcase(suite, tests);
  return run_suite(suite);
}
