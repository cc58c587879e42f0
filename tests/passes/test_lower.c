/* Lowering and fusion against the reference back end, through the plan interpreter: networks, layouts, classes of the symbol, and
 * fused against unfused plans bit for bit. */
#include "plan_fixture.h"

static const int64_t symbols[] = {0, 1, 2, 5, 16, 17, 70};

/* ---- networks ----------------------------------------------------------------------------------------------------- */

static sf_value binary(sf_graph *g, sf_op op, sf_value x, sf_value y) {
  return sf_binary(g, op, x, y);
}

static sf_value reduce(sf_graph *g, sf_op op, sf_value x, int64_t axis, bool keepdims) {
  const sf_attr attrs[] = {{.id = SF_ATTR_AXES, .count = 1, .ints = &axis}, {.id = SF_ATTR_KEEPDIMS, .i = keepdims}};
  return sf_graph_op(g, op, 1, &x, 2, attrs);
}

static sf_value slice(sf_graph *g, sf_value x, int32_t rank, const int64_t *starts, const int64_t *ends, const int64_t *steps) {
  const sf_attr attrs[] = {{.id = SF_ATTR_STARTS, .count = rank, .ints = starts},
                           {.id = SF_ATTR_ENDS, .count = rank, .ints = ends},
                           {.id = SF_ATTR_STEPS, .count = rank, .ints = steps}};
  return sf_graph_op(g, SF_OP_SLICE, 1, &x, 3, attrs);
}

static sf_value concat(sf_graph *g, int64_t axis, sf_value x, sf_value y) {
  const sf_attr attr = {.id = SF_ATTR_AXIS, .i = axis};
  return sf_graph_op(g, SF_OP_CONCAT, 2, (const sf_value[]){x, y}, 1, &attr);
}

static sf_value normalize(sf_graph *g, sf_value x, sf_value scale, sf_value bias) {
  return sf_graph_op(g, SF_OP_LAYER_NORM, 3, (const sf_value[]){x, scale, bias}, 0, NULL);
}

/* A transformer layer: tokens of 24 features, 3 heads, residuals, two norms. */
static void build_attention(sf_graph *g, uint64_t *state) {
  enum { F = 24, HEADS = 3 };
  sf_value x = sf_graph_input(g, "x", SF_F32, 3, DIMS(2, SF_DIM_SYMBOLIC, F)), head[3];
  for (int i = 0; i < 3; i++) {
    head[i] = sf_matmul(g, x, weight(g, state, 50, 2, DIMS(F, F)), false, i == 1);
    head[i] = sf_reshape(g, head[i], 4, DIMS(2, -1, HEADS, F / HEADS));
    head[i] = sf_transpose(g, head[i], 4, DIMS(0, 2, 1, 3));
  }
  const float scale = 0.353553f;
  sf_value scores = sf_matmul(g, head[0], head[1], false, true);
  scores = binary(g, SF_OP_MUL, scores, sf_graph_constant(g, SF_F32, 0, NULL, &scale));
  sf_value mixed = sf_matmul(g, sf_softmax(g, scores, -1), head[2], false, false);
  mixed = sf_reshape(g, sf_transpose(g, mixed, 4, DIMS(0, 2, 1, 3)), 3, DIMS(2, -1, F));
  mixed = sf_matmul(g, mixed, weight(g, state, 70, 2, DIMS(F, F)), false, false);
  sf_value h = normalize(g, binary(g, SF_OP_ADD, x, mixed), weight(g, state, 0, 1, DIMS(F)), weight(g, state, 0, 1, DIMS(F)));
  sf_value up =
      binary(g, SF_OP_ADD, sf_matmul(g, h, weight(g, state, 80, 2, DIMS(F, 50)), false, false), weight(g, state, 0, 1, DIMS(50)));
  sf_value down = sf_matmul(g, sf_unary(g, SF_OP_GELU, up), weight(g, state, 80, 2, DIMS(50, F)), false, false);
  sf_graph_output(g, "y",
                  normalize(g, binary(g, SF_OP_ADD, h, down), weight(g, state, 0, 1, DIMS(F)), weight(g, state, 0, 1, DIMS(F))));
}

/* Convolutions of every kind of window, a residual, a concatenation along channels, pools with padding. */
static void build_windows(sf_graph *g, uint64_t *state) {
  sf_value x = sf_graph_input(g, "x", SF_F32, 4, DIMS(SF_DIM_SYMBOLIC, 4, 10, 9));
  sf_conv2d_options conv;
  SF_INIT(&conv);
  sf_value one = sf_conv2d(g, x, weight(g, state, 40, 4, DIMS(6, 4, 1, 1)), weight(g, state, 0, 1, DIMS(6)), &conv);
  conv.pad[0] = conv.pad[2] = 1, conv.pad[1] = conv.pad[3] = 1;
  sf_value three = sf_unary(g, SF_OP_SILU, sf_conv2d(g, one, weight(g, state, 60, 4, DIMS(6, 6, 3, 3)), SF_NO_VALUE, &conv));
  sf_value sum = sf_unary(g, SF_OP_RELU, binary(g, SF_OP_ADD, three, one));
  SF_INIT(&conv);
  conv.stride[0] = 2, conv.stride[1] = 3, conv.pad[0] = 2, conv.pad[3] = 1, conv.dilation[0] = 2, conv.groups = 2;
  sf_value strided = sf_conv2d(g, sum, weight(g, state, 30, 4, DIMS(8, 3, 3, 4)), SF_NO_VALUE, &conv);
  SF_INIT(&conv);
  conv.stride[0] = conv.stride[1] = 2;
  sf_value skip = sf_conv2d(g, sum, weight(g, state, 30, 4, DIMS(5, 6, 1, 1)), SF_NO_VALUE, &conv);
  sf_value pooled = sf_graph_op(g, SF_OP_MAX_POOL, 1, &sum, 3,
                                (const sf_attr[]){{.id = SF_ATTR_KERNEL, .count = 2, .ints = DIMS(3, 3)},
                                                  {.id = SF_ATTR_STRIDE, .count = 2, .ints = DIMS(2, 2)},
                                                  {.id = SF_ATTR_PAD, .count = 4, .ints = DIMS(1, 1, 1, 1)}});
  sf_value plain = sf_conv2d(g, concat(g, 1, skip, pooled), weight(g, state, 30, 4, DIMS(7, 11, 3, 2)), SF_NO_VALUE, NULL);
  sf_graph_output(g, "strided", strided);
  sf_graph_output(g, "plain", sf_unary(g, SF_OP_SIGMOID, plain));
  sf_graph_output(g, "means", sf_unary(g, SF_OP_GLOBAL_AVG_POOL, plain));
}

/* Views of views, broadcasts against each other, weights on the left, scalars, reductions of every axis. */
static void build_views(sf_graph *g, uint64_t *state) {
  sf_value x = sf_graph_input(g, "x", SF_F32, 3, DIMS(SF_DIM_SYMBOLIC, 6, 8));
  sf_value y = sf_graph_input(g, "y", SF_F32, 3, DIMS(SF_DIM_SYMBOLIC, 1, 8));
  const float half = 0.5f;
  sf_value t = sf_transpose(g, x, 3, DIMS(2, 0, 1));
  sf_value part = slice(g, t, 3, DIMS(1, 0, 1), DIMS(7, INT64_MAX, 6), DIMS(2, 1, 1)); /* [3, s, 5] */
  part = binary(g, SF_OP_MUL, sf_unary(g, SF_OP_EXP, part), sf_graph_constant(g, SF_F32, 0, NULL, &half));
  sf_value left = sf_matmul(g, weight(g, state, 50, 2, DIMS(7, 6)), x, false, false); /* [s, 7, 8] */
  sf_value wide = binary(g, SF_OP_SUB, left, y);
  sf_value sums = reduce(g, SF_OP_REDUCE_SUM, wide, 1, true);                               /* [s, 1, 8] */
  sf_value most = reduce(g, SF_OP_REDUCE_MAX, binary(g, SF_OP_ADD, wide, sums), -1, false); /* [s, 7] */
  sf_value panels = sf_matmul(g, wide, weight(g, state, 50, 2, DIMS(9, 8)), false, true);   /* [s, 7, 9] */
  sf_value mean = reduce(g, SF_OP_REDUCE_MEAN, panels, -1, true);                           /* [s, 7, 1] */
  sf_value centred = binary(g, SF_OP_SUB, panels, mean);
  sf_value spread = sf_unary(g, SF_OP_SQRT, reduce(g, SF_OP_REDUCE_MEAN, binary(g, SF_OP_MUL, centred, centred), -1, true));
  sf_graph_output(g, "normal",
                  binary(g, SF_OP_DIV, centred, binary(g, SF_OP_ADD, spread, sf_graph_constant(g, SF_F32, 0, NULL, &half))));
  sf_graph_output(g, "most", most);
  sf_graph_output(g, "part", part);
  sf_graph_output(g, "flat", sf_softmax(g, sf_reshape(g, sf_transpose(g, left, 3, DIMS(1, 0, 2)), 2, DIMS(7, -1)), 0));
}

/* Batched products with broadcast, a product of one column, static operands that are no matrix. */
static void build_products(sf_graph *g, uint64_t *state) {
  sf_value a = sf_graph_input(g, "a", SF_F32, 4, DIMS(2, 1, SF_DIM_SYMBOLIC, 5));
  sf_value b = sf_graph_input(g, "b", SF_F32, 3, DIMS(3, 5, 4));
  sf_value ab = sf_matmul(g, a, b, false, false); /* [2, 3, s, 4] */
  sf_value gram = sf_matmul(g, ab, ab, true, false);
  sf_value full = sf_matmul(g, ab, weight(g, state, 0, 3, DIMS(3, 4, 6)), false, false);
  sf_value holes = sf_matmul(g, ab, weight(g, state, 50, 3, DIMS(3, 4, 6)), false, false);
  sf_value one = sf_matmul(g, reduce(g, SF_OP_REDUCE_SUM, gram, 2, true), weight(g, state, 50, 2, DIMS(4, 3)), false, false);
  sf_graph_output(g, "gram", sf_unary(g, SF_OP_TANH, gram));
  sf_graph_output(g, "both", binary(g, SF_OP_ADD, full, holes));
  sf_graph_output(g, "one", one);
}

typedef void (*builder)(sf_graph *g, uint64_t *state);
static const builder builders[] = {build_dense,     build_image,   build_mixed, build_fixed,
                                   build_attention, build_windows, build_views, build_products};

static sf_graph *build(sf_context *context, int network) {
  char name[32];
  sf_graph *g;
  sf_error error;
  uint64_t state = 7;
  snprintf(name, sizeof name, "network %d", network);
  ck_assert_int_eq(sf_graph_create(context, name, &g), SF_OK);
  builders[network](g, &state);
  sf_graph_error(g, &error);
  ck_assert_msg(sf_graph_status(g) == SF_OK, "%s: %s", name, error.message);
  return g;
}

/* ---- tests -------------------------------------------------------------------------------------------------------- */

START_TEST(agrees_with_the_reference) {
  sf_context *context = plain_context(1);
  sf_graph *g = build(context, _i);
  for (size_t s = 0; s < SFI_COUNT(symbols); s++) {
    const int64_t symbol = symbols[s];
    const plan_case cases[] = {{SF_ISA_AVX512, 0, INT64_MAX, false},   {SF_ISA_AVX512, 0, INT64_MAX, true},
                               {SF_ISA_AVX512, symbol, symbol, false}, {SF_ISA_AVX512, symbol, symbol, true},
                               {SF_ISA_AVX2, 0, 100, false},           {SF_ISA_AVX2, 0, 100, true}};
    for (size_t c = 0; c < SFI_COUNT(cases); c++) {
      tensors t;
      tensors_make(g, symbol, (uint64_t)symbol + 3, &t);
      interpret_case(g, &cases[c], symbol, &t);
      check_against_reference(g, symbol, &t);
      tensors_free(&t);
    }
  }
  sf_graph_release(g);
  sf_context_release(context);
}
END_TEST

START_TEST(fusion_keeps_every_bit) {
  sf_context *context = plain_context(1);
  sf_graph *g = build(context, _i);
  for (size_t s = 0; s < SFI_COUNT(symbols); s++) {
    plan_case c = {SF_ISA_AVX512, 0, INT64_MAX, false};
    tensors plain, fused;
    tensors_make(g, symbols[s], 5, &plain);
    tensors_make(g, symbols[s], 5, &fused);
    interpret_case(g, &c, symbols[s], &plain);
    c.fuse = true;
    interpret_case(g, &c, symbols[s], &fused);
    ck_assert_msg(tensors_equal(&plain, &fused), "%s at %lld", g->name, (long long)symbols[s]);
    tensors_free(&plain);
    tensors_free(&fused);
  }
  sf_graph_release(g);
  sf_context_release(context);
}
END_TEST

/* Every allocation in turn: out of memory, nothing leaked. */
START_TEST(runs_out_of_memory) {
  sf_context *context = plain_context(1);
  sf_graph *g = build(context, _i);
  const plan_case c = {SF_ISA_AVX512, 1, 16, true};
  sf_status st = SF_STATUS_OUT_OF_MEMORY;
  for (long k = 1; st != SF_OK; k++) {
    failing_allocator counting = {.fail_at = k};
    const sf_allocator allocator = failing_allocator_of(&counting);
    sfi_diag diag = {0};
    sfi_plan plan;
    st = make_plan(g, &allocator, &c, &plan, &diag);
    ck_assert_msg(st == (counting.calls >= k ? SF_STATUS_OUT_OF_MEMORY : SF_OK), "allocation %ld: %s", k, diag.error.message);
    ck_assert_int_eq(diag.error.status, st);
    sfi_arena_deinit(&plan.arena);
    ck_assert_int_eq(counting.live, 0);
  }
  sf_graph_release(g);
  sf_context_release(context);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("lowering");
  TCase *tests = tcase_create("networks");
  tcase_set_timeout(tests, 300);
  tcase_add_loop_test(tests, agrees_with_the_reference, 0, (int)SFI_COUNT(builders));
  tcase_add_loop_test(tests, fusion_keeps_every_bit, 0, (int)SFI_COUNT(builders));
  tcase_add_loop_test(tests, runs_out_of_memory, 0, (int)SFI_COUNT(builders));
  suite_add_tcase(suite, tests);
  return run_suite(suite);
}
