/* What NumPy's vectors do not carry: precision of intermediates and sums, types mixed in one call, what counts as static, outputs that
 * are leaves, extents of the symbol, and running out of memory. */
#include "failing_allocator.h"
#include "ref.h"
#include "suite.h"

#include <math.h>

static sf_context *context;
static sf_graph *graph;
static sfi_diag diag;

static void begin(void) {
  sf_context_options options;
  SF_INIT(&options);
  options.isa = SF_ISA_REFERENCE;
  options.cache_dir = "";
  ck_assert_int_eq(sf_context_create(&options, &context), SF_OK);
  ck_assert_int_eq(sf_graph_create(context, "g", &graph), SF_OK);
  diag = (sfi_diag){0};
}

static void end(void) {
  sf_graph_release(graph);
  sf_context_release(context);
}

static sf_value input(const char *name, int64_t rows, int64_t columns) {
  return sf_graph_input(graph, name, SF_F32, 2, (int64_t[]){rows, columns});
}

static sf_tensor matrix(void *data, sf_dtype dtype, int64_t rows, int64_t columns) {
  return (sf_tensor){data, dtype, 2, {rows, columns}};
}

static void run(sf_dtype precision, int64_t symbol, const sf_tensor *inputs, const sf_tensor *outputs) {
  ck_assert_int_eq(sf_graph_status(graph), SF_OK);
  ck_assert_int_eq(sfi_graph_verify(graph, &diag), SF_OK);
  ck_assert_int_eq(sfi_ref_run(graph, &sfi_default_allocator, precision, symbol, inputs, outputs, &diag), SF_OK);
}

START_TEST(intermediates_have_the_precision_asked_for) {
  double x = 1e-30, y = NAN;
  sf_value v = input("x", 1, 1);
  sf_graph_output(graph, "y", sf_unary(graph, SF_OP_SQRT, sf_binary(graph, SF_OP_MUL, v, v)));
  run(SF_F32, 1, &(sf_tensor){&x, SF_F64, 2, {1, 1}}, &(sf_tensor){&y, SF_F64, 2, {1, 1}});
  ck_assert_double_eq(y, 0); /* 1e-60 is no float */
  run(SF_F64, 1, &(sf_tensor){&x, SF_F64, 2, {1, 1}}, &(sf_tensor){&y, SF_F64, 2, {1, 1}});
  ck_assert_double_eq_tol(y, 1e-30, 1e-44);
}
END_TEST

START_TEST(sums_are_fp64_in_fp32_runs) {
  enum { K = 1002 };
  float x[K], ones[K], y = 0;
  for (int i = 0; i < K; i++) x[i] = 0.25f, ones[i] = 1;
  x[0] = 1e9f;
  x[K - 1] = -1e9f;
  const sf_tensor inputs[] = {matrix(x, SF_F32, 1, K), matrix(ones, SF_F32, K, 1)};
  sf_value a = input("a", 1, K), b = input("b", K, 1);
  sf_graph_output(graph, "y", sf_matmul(graph, a, b, false, false));
  run(SF_F32, 1, inputs, &(sf_tensor){&y, SF_F32, 2, {1, 1}});
  ck_assert_float_eq(y, 250);
}
END_TEST

START_TEST(one_node_mixes_types) {
  float a[] = {1, 2, 3}, out[3];
  double b[] = {0.5, 1e300, -3}, wide[3];
  sf_value sum = sf_binary(graph, SF_OP_ADD, input("a", 1, 3), input("b", 1, 3));
  const sf_tensor inputs[] = {matrix(a, SF_F32, 1, 3), matrix(b, SF_F64, 1, 3)};
  sfi_ref_node(graph, sum, inputs, &(sf_tensor){out, SF_F32, 2, {1, 3}});
  ck_assert(out[0] == 1.5f && isinf(out[1]) && out[2] == 0);
  sfi_ref_node(graph, sum, inputs, &(sf_tensor){wide, SF_F64, 2, {1, 3}});
  ck_assert(wide[0] == 1.5 && wide[1] == 1e300 && wide[2] == 0);
}
END_TEST

/* x [1,2] holds Inf where every weight below has its zero. */
static float product_with(sf_value weight, bool transpose_b) {
  float x[] = {3, INFINITY}, y = 0;
  sf_value v = input(NULL, 1, 2);
  sf_graph_output(graph, NULL, sf_matmul(graph, v, weight, false, transpose_b));
  run(SF_F64, 1, &(sf_tensor){x, SF_F32, 2, {1, 2}}, &(sf_tensor){&y, SF_F32, 2, {1, 1}});
  return y;
}

START_TEST(zeros_of_a_weight_are_absent) {
  ck_assert_float_eq(product_with(sf_graph_weight(graph, "w", SF_F32, 2, (int64_t[]){2, 1}, (float[]){2, -0.0f}, SF_COPY), false),
                     6);
}
END_TEST

START_TEST(zeros_of_a_constant_are_absent) {
  ck_assert_float_eq(product_with(sf_graph_constant(graph, SF_F32, 2, (int64_t[]){2, 1}, (float[]){2, 0}), false), 6);
}
END_TEST

/* Constant folding would make leaves of these: results must not depend on whether it ran. */
START_TEST(zeros_of_what_folds_are_absent) {
  sf_value w = sf_graph_weight(graph, "w", SF_F32, 2, (int64_t[]){1, 2}, (float[]){2, -1}, SF_COPY);
  ck_assert_float_eq(product_with(sf_unary(graph, SF_OP_RELU, w), true), 6);
}
END_TEST

START_TEST(zeros_of_run_time_operands_are_numbers) {
  float x[] = {3, INFINITY}, w[] = {2, 0}, y = 0;
  sf_value a = input("a", 1, 2), b = input("b", 2, 1);
  sf_graph_output(graph, NULL, sf_matmul(graph, a, b, false, false));
  const sf_tensor inputs[] = {matrix(x, SF_F32, 1, 2), matrix(w, SF_F32, 2, 1)};
  run(SF_F64, 1, inputs, &(sf_tensor){&y, SF_F32, 2, {1, 1}});
  ck_assert_float_nan(y);
}
END_TEST

START_TEST(leaves_and_repeats_are_outputs) {
  float x[] = {1, NAN}, a[2], b[2], d[2];
  double c[2];
  sf_value v = input("x", 1, 2), w = sf_graph_weight(graph, "w", SF_F32, 2, (int64_t[]){1, 2}, (float[]){7, -0.0f}, SF_COPY);
  sf_value r = sf_unary(graph, SF_OP_RELU, v);
  sf_graph_output(graph, "a", v);
  sf_graph_output(graph, "b", w);
  sf_graph_output(graph, "c", r);
  sf_graph_output(graph, "d", r);
  const sf_tensor outputs[] = {matrix(a, SF_F32, 1, 2), matrix(b, SF_F32, 1, 2), matrix(c, SF_F64, 1, 2), matrix(d, SF_F32, 1, 2)};
  run(SF_F32, 1, &(sf_tensor){x, SF_F32, 2, {1, 2}}, outputs);
  ck_assert(a[0] == 1 && isnan(a[1]));
  ck_assert(b[0] == 7 && b[1] == 0 && signbit(b[1]));
  ck_assert(c[0] == 1 && isnan(c[1]) && d[0] == 1 && isnan(d[1]));
  float copy[2] = {0};
  sfi_ref_node(graph, w, NULL, &(sf_tensor){copy, SF_F32, 2, {1, 2}});
  ck_assert_float_eq(copy[0], 7);
}
END_TEST

START_TEST(symbol_takes_any_extent) {
  float x[7 * 3], y[7];
  for (int i = 0; i < 21; i++) x[i] = (float)i;
  sf_value v = sf_graph_input(graph, "x", SF_F32, 2, (int64_t[]){SF_DIM_SYMBOLIC, 3});
  const sf_attr axes = {.id = SF_ATTR_AXES, .count = 1, .ints = (int64_t[]){1}};
  sf_graph_output(graph, "y", sf_graph_op(graph, SF_OP_REDUCE_SUM, 1, &v, 1, &axes));
  for (int64_t s = 0; s <= 7; s++) {
    for (int i = 0; i < 7; i++) y[i] = -1;
    run(SF_F64, s, &(sf_tensor){x, SF_F32, 2, {s, 3}}, &(sf_tensor){y, SF_F32, 1, {s}});
    for (int i = 0; i < 7; i++) ck_assert_float_eq(y[i], i < s ? 9 * (float)i + 3 : -1);
  }
  sf_status st = sfi_ref_run(graph, &sfi_default_allocator, SF_F64, INT64_MAX / 2, &(sf_tensor){x, SF_F32, 2, {INT64_MAX / 2, 3}},
                             &(sf_tensor){y, SF_F32, 1, {INT64_MAX / 2}}, &diag);
  ck_assert_int_eq(st, SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(diag.error.status, st);
}
END_TEST

START_TEST(survives_lack_of_memory) {
  float x[] = {1, 2}, y[2] = {-5, -5};
  sf_value v = input("x", 1, 2);
  for (int i = 0; i < 5; i++) v = sf_unary(graph, SF_OP_TANH, v);
  sf_value empty = sf_graph_input(graph, "empty", SF_F32, 2, (int64_t[]){0, 2});
  sf_graph_output(graph, "y", v);
  sf_graph_output(graph, "none", sf_unary(graph, SF_OP_EXP, empty));
  const sf_tensor inputs[] = {matrix(x, SF_F32, 1, 2), matrix(NULL, SF_F32, 0, 2)};
  const sf_tensor outputs[] = {matrix(y, SF_F32, 1, 2), matrix(NULL, SF_F32, 0, 2)};
  for (long k = 1;; k++) {
    failing_allocator f = {.fail_at = k};
    sf_allocator allocator = failing_allocator_of(&f);
    sfi_diag own = {0};
    sf_status st = sfi_ref_run(graph, &allocator, SF_F64, 1, inputs, outputs, &own);
    ck_assert_int_eq(atomic_load(&f.live), 0);
    if (st == SF_OK) {
      ck_assert_int_eq(k, 8); /* the table of values and six intermediates */
      break;
    }
    ck_assert_int_eq(st, SF_STATUS_OUT_OF_MEMORY);
    ck_assert_float_eq(y[0], -5); /* untouched */
  }
  ck_assert_float_eq_tol(y[0], tanhf(tanhf(tanhf(tanhf(tanhf(1))))), 1e-6f);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("ref");
  TCase *tests = tcase_create("ref");
  tcase_add_checked_fixture(tests, begin, end);
  tcase_add_test(tests, intermediates_have_the_precision_asked_for);
  tcase_add_test(tests, sums_are_fp64_in_fp32_runs);
  tcase_add_test(tests, one_node_mixes_types);
  tcase_add_test(tests, zeros_of_a_weight_are_absent);
  tcase_add_test(tests, zeros_of_a_constant_are_absent);
  tcase_add_test(tests, zeros_of_what_folds_are_absent);
  tcase_add_test(tests, zeros_of_run_time_operands_are_numbers);
  tcase_add_test(tests, leaves_and_repeats_are_outputs);
  tcase_add_test(tests, symbol_takes_any_extent);
  tcase_add_test(tests, survives_lack_of_memory);
  suite_add_tcase(suite, tests);
  return run_suite(suite);
}
