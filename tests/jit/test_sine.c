/* sin and cos over the whole range that they promise, against libm in fp64: arguments of every magnitude up to 2^50, some that a reduction by one
 * rounded quotient gets wrong, signed zeros, NaN and infinity. */
#include "run_fixture.h"

enum { A_BINADE = 2000, N = 80 * A_BINADE };

/* Every sign and magnitude from 2^-29 to 2^50, the same number of each. */
static void fill(float *x) {
  static const float known[] = {136525736050688.0f, 892318110449664.0f, 0.0f, -0.0f, NAN, INFINITY, -INFINITY, 0x1p49f};
  uint64_t state = 7;
  for (int64_t i = 0; i < N; i++) {
    const float mantissa = 1 + (float)(random_u32(&state) >> 8) * 0x1p-24f;
    x[i] = ldexpf(random_u32(&state) & 1 ? mantissa : -mantissa, (int)(i / A_BINADE) - 30);
  }
  memcpy(x, known, sizeof known);
}

static void check(const float *x, const float *y, double (*function)(double)) {
  for (int64_t i = 0; i < N; i++) {
    const double expected = function((double)x[i]), difference = fabs((double)y[i] - expected);
    if (isnan(expected))
      ck_assert(isnan(y[i]));
    else
      ck_assert_msg(difference <= 0x1p-23, "at %.9g: %.9g, %.9g expected", (double)x[i], (double)y[i], expected);
  }
}

START_TEST(every_magnitude) {
  sf_context_options options;
  sf_context *context;
  sf_graph *graph;
  sf_program *program;
  SF_INIT(&options);
  options.cache_dir = "";
  options.isa = _i ? SF_ISA_REFERENCE : SF_ISA_NATIVE;
  ck_assert_int_eq(sf_context_create(&options, &context), SF_OK);
  ck_assert_int_eq(sf_graph_create(context, "angles", &graph), SF_OK);
  const sf_value v = sf_graph_input(graph, "x", SF_F32, 1, DIMS(N));
  sf_graph_output(graph, "sin", sf_unary(graph, SF_OP_SIN, v));
  sf_graph_output(graph, "cos", sf_unary(graph, SF_OP_COS, v));
  ck_assert_int_eq(sf_compile(context, graph, NULL, &program, NULL), SF_OK);
  float *x = malloc(3 * N * sizeof *x);
  ck_assert_ptr_nonnull(x);
  fill(x);
  const sf_tensor in = {x, SF_F32, 1, {N}}, out[] = {{x + N, SF_F32, 1, {N}}, {x + 2 * N, SF_F32, 1, {N}}};
  ck_assert_int_eq(sf_run(program, 1, &in, 2, out), SF_OK);
  check(x, x + N, sin);
  check(x, x + 2 * N, cos);
  ck_assert(!signbit(x[N + 2]) && signbit(x[N + 3])); /* of 0 and -0 */
  free(x);
  sf_program_release(program);
  sf_graph_release(graph);
  sf_context_release(context);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("sine");
  TCase *cases = tcase_create("sine");
  tcase_set_timeout(cases, 60);
  tcase_add_loop_test(cases, every_magnitude, 0, 2);
  suite_add_tcase(suite, cases);
  return run_suite(suite);
}
