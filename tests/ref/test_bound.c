/* The tests' own judges: the comparison must see what is wrong, and the error bounds must hold without being so wide that anything
 * would pass. */
#include "bound.h"
#include "compare.h"
#include "random_graph.h"
#include "ref.h"
#include "suite.h"

#include <float.h>
#include <math.h>

static sf_context *context;

static void begin(void) {
  sf_context_options options;
  SF_INIT(&options);
  options.isa = SF_ISA_REFERENCE;
  options.cache_dir = "";
  ck_assert_int_eq(sf_context_create(&options, &context), SF_OK);
}

static void end(void) {
  sf_context_release(context);
}

static sf_tensor vector(void *data, sf_dtype dtype, int64_t n) {
  return (sf_tensor){data, dtype, 1, {n}};
}

START_TEST(comparison_sees_what_is_wrong) {
  enum { N = 4 };
  double want[N] = {1, -2, 3, 1e-3};
  static const struct {
    float got[N];
    int64_t wrong;
  } rows[] = {
      {{1, -2, 3, 1e-3f}, 0},
      {{1.0000001f, -2, 3, 1e-3f}, 0},
      {{1.00001f, -2, 3, 1e-3f}, 1},
      {{1, 2, 3, 1e-3f}, 1},
      {{1, -2, NAN, 1e-3f}, 1},
      {{1, -2, INFINITY, 1e-3f}, 1},
      {{1, -2, 3, 0}, 1},
      {{0, 0, 0, 0}, 4},
  };
  for (size_t i = 0; i < SFI_COUNT(rows); i++) {
    sf_comparison c;
    float got[N];
    memcpy(got, rows[i].got, sizeof got);
    sf_tensor g = vector(got, SF_F32, N), w = vector(want, SF_F64, N);
    ck_assert_int_eq(sf_compare(&g, &w, SF_OP_ADD, 1, &c), rows[i].wrong == 0);
    ck_assert_msg(c.wrong == rows[i].wrong && c.compared == N, "row %zu: %lld wrong", i, (long long)c.wrong);
  }
}
END_TEST

START_TEST(comparison_wants_nan_and_infinities_in_place) {
  double want[] = {NAN, INFINITY, -INFINITY, 1e300};
  float good[] = {NAN, INFINITY, -INFINITY, INFINITY}, bad[] = {1, -INFINITY, NAN, 0};
  sf_tensor w = vector(want, SF_F64, 4), g = vector(good, SF_F32, 4), b = vector(bad, SF_F32, 4);
  sf_comparison c;
  ck_assert(sf_compare(&g, &w, SF_OP_MATMUL, 100, &c));
  ck_assert_int_eq(c.skipped, 1); /* no float */
  ck_assert(!sf_compare(&b, &w, SF_OP_MATMUL, 100, &c));
  ck_assert_int_eq(c.wrong, 3);
  ck_assert(isinf(c.worst_ratio));
}
END_TEST

/* One operation on exact operands: the bound is its row of the table. */
START_TEST(bound_of_one_operation) {
  float x[] = {3, 1e30f, 0}, w[] = {0.5f, 1e30f, 7};
  double y[3], bound[3];
  sf_graph *graph;
  ck_assert_int_eq(sf_graph_create(context, "g", &graph), SF_OK);
  sf_value a = sf_graph_input(graph, "a", SF_F32, 1, (int64_t[]){3});
  sf_graph_output(graph, "y", sf_binary(graph, SF_OP_MUL, a, sf_graph_weight(graph, "w", SF_F32, 1, (int64_t[]){3}, w, SF_COPY)));
  sf_tensor in = vector(x, SF_F32, 3), out = vector(y, SF_F64, 3), b = vector(bound, SF_F64, 3);
  ck_assert(sf_bounded_run(graph, 1, &in, &out, &b));
  double relative = sf_tolerance_of(SF_OP_MUL).relative;
  ck_assert_double_eq_tol(bound[0], 1.5 * relative, 1e-12);
  ck_assert(isinf(bound[1])); /* overflows in fp32 */
  ck_assert_double_le(bound[2], 2 * (double)FLT_MIN);
  sf_graph_release(graph);
}
END_TEST

/* Where an error decides, nothing is promised; where it does not, something is. */
START_TEST(bound_at_edges) {
  static const struct {
    sf_op op;
    float x;
    bool known;
  } rows[] = {{SF_OP_SQRT, 1, true},   {SF_OP_SQRT, -1, true}, {SF_OP_SQRT, 0, false}, {SF_OP_EXP, 200, false},
              {SF_OP_EXP, -200, true}, {SF_OP_RELU, 0, true},  {SF_OP_EXP, NAN, true}, {SF_OP_EXP, INFINITY, true}};
  for (size_t i = 0; i < SFI_COUNT(rows); i++) {
    float x = rows[i].x, three = 3;
    double y, bound;
    sf_graph *graph;
    ck_assert_int_eq(sf_graph_create(context, "g", &graph), SF_OK);
    sf_value a = sf_graph_input(graph, "a", SF_F32, 1, (int64_t[]){1});
    sf_value c = sf_graph_constant(graph, SF_F32, 0, NULL, &three);
    sf_value inexact = sf_binary(graph, SF_OP_DIV, sf_binary(graph, SF_OP_MUL, a, c), c);
    sf_graph_output(graph, "y", sf_unary(graph, rows[i].op, inexact));
    sf_tensor in = vector(&x, SF_F32, 1), out = vector(&y, SF_F64, 1), b = vector(&bound, SF_F64, 1);
    ck_assert(sf_bounded_run(graph, 1, &in, &out, &b));
    ck_assert_msg(isfinite(bound) == rows[i].known, "row %zu: bound %g", i, bound);
    if (rows[i].known && isfinite(y)) ck_assert_double_le(bound, 1e-5);
    sf_graph_release(graph);
  }
}
END_TEST

/* 29 x / y: a quotient of what overflowed, or is no number by an overflow, is not known, whatever the divisor. */
START_TEST(bound_of_quotients) {
  static const struct {
    float x, y;
    bool known;
  } rows[] = {{3, 2, true},      {3, INFINITY, true},      {3, NAN, true},
              {3e38f, 2, false}, {3e38f, INFINITY, false}, {-3e38f, -INFINITY, false}};
  for (size_t i = 0; i < SFI_COUNT(rows); i++) {
    float x = rows[i].x, y = rows[i].y, factor = 29;
    double quotient, bound;
    sf_graph *graph;
    ck_assert_int_eq(sf_graph_create(context, "g", &graph), SF_OK);
    sf_value a = sf_graph_input(graph, "a", SF_F32, 1, (int64_t[]){1}), b = sf_graph_input(graph, "b", SF_F32, 1, (int64_t[]){1});
    sf_value large = sf_binary(graph, SF_OP_MUL, a, sf_graph_constant(graph, SF_F32, 0, NULL, &factor));
    sf_graph_output(graph, "y", sf_binary(graph, SF_OP_DIV, large, b));
    sf_tensor in[] = {vector(&x, SF_F32, 1), vector(&y, SF_F32, 1)}, out = vector(&quotient, SF_F64, 1);
    sf_tensor e = vector(&bound, SF_F64, 1);
    ck_assert(sf_bounded_run(graph, 1, in, &out, &e));
    ck_assert_msg(isfinite(bound) == rows[i].known, "row %zu: bound %g", i, bound);
    sf_graph_release(graph);
  }
}
END_TEST

/* On random graphs an fp32 run stays within the bounds, a run with one weight a little wrong does not, and most elements have a bound
 * that says something. */
START_TEST(bounds_hold_and_tell) {
  int64_t compared = 0, skipped = 0, loose = 0, caught = 0, changed = 0;
  for (uint64_t seed = 1; seed <= 150; seed++) {
    const sf_random_graph_options options = {.operations = 10, .special = seed % 5 == 0, .large = seed % 3 == 0};
    sf_graph *graph = sf_random_graph(context, seed, &options);
    ck_assert_ptr_nonnull(graph);
    sf_random_tensors narrow, wide, bounds;
    sf_random_tensors_make(graph, seed, options.special, SF_F32, 3, &narrow);
    sf_random_tensors_make(graph, seed, options.special, SF_F64, 3, &wide);
    sf_random_tensors_make(graph, seed, options.special, SF_F64, 3, &bounds);
    sfi_diag diag = {0};
    ck_assert(sf_bounded_run(graph, 3, narrow.inputs, wide.outputs, bounds.outputs));
    ck_assert_int_eq(sfi_ref_run(graph, &sfi_default_allocator, SF_F32, 3, narrow.inputs, narrow.outputs, &diag), SF_OK);
    for (int32_t i = 0; i < narrow.n_outputs; i++) {
      sf_comparison c;
      char text[256];
      bool same = sf_compare_bounded(&narrow.outputs[i], &wide.outputs[i], &bounds.outputs[i], &c);
      sf_comparison_print(&c, text, sizeof text);
      ck_assert_msg(same, "seed %d output %d: %s", (int)seed, i, text);
      compared += c.compared;
      skipped += c.skipped;
      float *got = narrow.outputs[i].data;
      const double *want = wide.outputs[i].data, *bound = bounds.outputs[i].data;
      int64_t n = sf_tensor_count(&wide.outputs[i]);
      for (int64_t k = 0; k < n; k++) loose += isfinite(bound[k]) && isfinite(want[k]) && bound[k] > 1e-3 * fmax(1, fabs(want[k]));
      for (int64_t k = 0; k < n; k++) {
        if (!isfinite(want[k]) || fabs(want[k]) < 1e-3 || fabs(want[k]) > 1e3) continue;
        got[k] += 1e-3f * fabsf(got[k]);
        changed++;
        caught += !sf_compare_bounded(&narrow.outputs[i], &wide.outputs[i], &bounds.outputs[i], &c);
        break;
      }
    }
    sf_random_tensors_free(&narrow);
    sf_random_tensors_free(&wide);
    sf_random_tensors_free(&bounds);
    sf_graph_release(graph);
  }
  ck_assert_msg(skipped * 10 < compared, "%lld of %lld elements have no bound", (long long)skipped, (long long)compared);
  ck_assert_msg(loose * 20 < compared, "%lld of %lld bounds are loose", (long long)loose, (long long)compared);
  ck_assert_int_gt(changed, 100);
  ck_assert_msg(caught * 10 > changed * 9, "%lld of %lld wrong elements were seen", (long long)caught, (long long)changed);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("bound");
  TCase *tests = tcase_create("bound");
  tcase_set_timeout(tests, 120);
  tcase_add_checked_fixture(tests, begin, end);
  tcase_add_test(tests, comparison_sees_what_is_wrong);
  tcase_add_test(tests, comparison_wants_nan_and_infinities_in_place);
  tcase_add_test(tests, bound_of_one_operation);
  tcase_add_test(tests, bound_at_edges);
  tcase_add_test(tests, bound_of_quotients);
  tcase_add_test(tests, bounds_hold_and_tell);
  suite_add_tcase(suite, tests);
  return run_suite(suite);
}
