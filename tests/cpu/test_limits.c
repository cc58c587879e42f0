/* Extents beyond what generated code counts in 32 bits: refused with a reason, never compiled wrong. Nothing here is run: such images take
 * gigabytes. */
#include "graph_rows.h"
#include "target.h"
#include "suite.h"

typedef struct row {
  sf_op op;
  const char *operand, *attributes;
  bool fits;
} row;
static const row rows[] = {
    {SF_OP_MAX_POOL, "[1,1,2,1073741824]", "kernel=[1,2] stride=[1,2]", true},
    {SF_OP_MAX_POOL, "[1,1,2,1073741825]", "kernel=[1,2] stride=[1,2]", false},
    {SF_OP_AVG_POOL, "[1,1,1,4294967304]", "kernel=[1,4] pad=[0,1,0,1]", false},
    {SF_OP_MAX_POOL, "[1,1,4294967304,1]", "kernel=[2,1]", true}, /* rows of pixels are counted in 64 bits */
};

static sf_status compile(sf_context *context, const sf_graph *graph, sf_error *error) {
  sf_compile_options options;
  SF_INIT(&options);
  options.isa = SF_ISA_AVX2;
  options.flags = SF_COMPILE_CACHE_ONLY;
  options.error = error;
  return sf_compile(context, graph, &options, NULL, NULL);
}

static sf_context *plain_context(void) {
  sf_context_options options;
  sf_context *context;
  SF_INIT(&options);
  options.cache_dir = "";
  ck_assert_int_eq(sf_context_create(&options, &context), SF_OK);
  return context;
}

static void check(sf_context *context, sf_graph *graph, sf_value y, bool fits) {
  sf_error error = {0};
  ck_assert_int_eq(sf_graph_output(graph, NULL, y), SF_OK);
  sf_status st = compile(context, graph, &error);
  ck_assert_msg(st == (fits ? SF_OK : SF_STATUS_UNSUPPORTED), "%s: %s", sf_status_text(st), error.message);
  if (!fits) ck_assert_msg(strstr(error.message, "offsets") != NULL, "%s", error.message);
}

START_TEST(pools) {
  const row *r = &rows[_i];
  sf_context *context = plain_context();
  sf_graph *graph;
  ck_assert_int_eq(sf_graph_create(context, "wide", &graph), SF_OK);
  check(context, graph, row_node(graph, r->op, r->operand, r->attributes), r->fits);
  sf_graph_release(graph);
  sf_context_release(context);
}
END_TEST

/* The padded copy of the image has bounds. */
START_TEST(padded_images) {
  static const float w[4] = {1, 2, 3, 4};
  const int64_t width = _i ? INT64_C(1073741825) : INT64_C(1073741824);
  sf_context *context = plain_context();
  sf_graph *graph;
  sf_conv2d_options options;
  SF_INIT(&options);
  options.pad[1] = options.pad[3] = 1;
  ck_assert_int_eq(sf_graph_create(context, "wide", &graph), SF_OK);
  sf_value x = sf_graph_input(graph, "x", SF_F32, 4, (const int64_t[]){1, 1, 1, width});
  sf_value weight = sf_graph_weight(graph, "w", SF_F32, 4, (const int64_t[]){1, 1, 1, 4}, w, SF_COPY);
  check(context, graph, sf_conv2d(graph, x, weight, SF_NO_VALUE, &options), _i == 0);
  sf_graph_release(graph);
  sf_context_release(context);
}
END_TEST

int main(void) {
  Suite *s = suite_create("limits");
  TCase *c = tcase_create("all");
  tcase_add_loop_test(c, pools, 0, (int)SFI_COUNT(rows));
  tcase_add_loop_test(c, padded_images, 0, 2);
  suite_add_tcase(s, c);
  return run_suite(s);
}
