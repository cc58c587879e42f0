/* What fusion makes of common patterns, by the names of the kernels; and the memory plan of what comes out. */
#include "plan_fixture.h"

typedef struct pattern {
  const char *text; /* a graph without weights; %w.. are constants */
  int64_t symbol_min, symbol_max;
  const char *kernels; /* names without positions */
} pattern;

#define W43 "constant f32[4, 3] [1,2,3,4,5,6,7,8,9,10,11,12]\n"
#define B4 "constant f32[4] [1,2,3,4]\n"
#define C1 "constant f32[2, 2, 1, 1] [1,2,3,4]\n"
#define C3 "constant f32[1, 2, 2, 2] [1,2,3,4,5,6,7,8]\n"

static const pattern patterns[] = {
    /* Bias, activation and the store to the output are the product's; the conversion to panels absorbs what comes before. */
    {"%x = input f32[batch, 3]\n%t = tanh %x\n%w = " W43 "%b = " B4
     "%m = matmul %t, %w transpose_b=1\n%a = add %m, %b\n%y = relu %a\noutput %y\n",
     1, INT64_MAX, "tanh matmul+add+relu copy"},
    {"%x = input f32[batch, 3]\n%w = " W43 "%m = matmul %x, %w transpose_b=1\n%y = sigmoid %m\noutput %y\n", 1, 1,
     "matmul+sigmoid"},
    /* A value with two uses is stored, unless both are in one kernel. */
    {"%x = input f32[batch, 3]\n%y = exp %x\n%z = tanh %y\n%a = silu %y\noutput %z\noutput %a\n", 0, INT64_MAX, "exp tanh silu"},
    {"%x = input f32[batch, 3]\n%y = exp %x\n%z = tanh %y\n%a = mul %z, %y\noutput %a\n", 0, INT64_MAX, "exp+tanh+mul"},
    /* A residual joins the convolution that it is added to. */
    {"%x = input f32[batch, 2, 3, 3]\n%w = " C1 "%c = conv2d %x, %w\n%a = add %x, %c\n%y = relu %a\noutput %y\n", 0, INT64_MAX,
     "conv2d+add+relu"},
    /* Padding stays zero whatever comes before it. */
    {"%x = input f32[batch, 2, 3, 3]\n%e = exp %x\n%w = " C3 "%y = conv2d %e, %w pad=[1,1,1,1]\noutput %y\n", 0, INT64_MAX,
     "exp pad conv2d"},
    /* Reductions take cheap and dear operations, softmax only cheap ones. */
    {"%x = input f32[batch, 5]\n%e = exp %x\n%y = reduce_sum %e axes=[1]\noutput %y\n", 0, INT64_MAX, "reduce_sum"},
    {"%x = input f32[batch, 5]\n%c = constant f32[] 2\n%e = mul %x, %c\n%y = softmax %e\noutput %y\n", 0, INT64_MAX, "softmax"},
    {"%x = input f32[batch, 5]\n%e = exp %x\n%y = softmax %e\noutput %y\n", 0, INT64_MAX, "exp softmax"},
    /* Views cost nothing; what they feed reads through them. */
    {"%x = input f32[batch, 3, 4]\n%t = transpose %x perm=[0,2,1]\n%y = relu %t\noutput %y\n", 0, INT64_MAX, "relu"},
    {"%x = input f32[batch, 3, 4]\n%e = exp %x\n%t = transpose %e perm=[0,2,1]\n%y = relu %t\noutput %y\n", 0, INT64_MAX,
     "exp+relu"},
    /* One index of the producer may be two of the consumer, which count through it. */
    {"%x = input f32[4, batch, 16]\n%s = input f32[batch, 16]\n%t = input f32[4, 1, 16]\n%m = mul %x, %s\n%y = add %m, %t\noutput "
     "%y\n",
     0, INT64_MAX, "mul+add"},
    /* Both halves of a concatenation are stored where they belong. */
    {"%x = input f32[batch, 3]\n%a = exp %x\n%b = tanh %x\n%y = concat %a, %b axis=1\noutput %y\n", 0, INT64_MAX, "exp tanh"},
    /* A broadcast that is computed would be computed again for every copy. */
    {"%x = input f32[3, 1]\n%z = input f32[3, 64]\n%e = exp %x\n%y = add %e, %z\noutput %y\n", 0, INT64_MAX, "exp add"},
    {"%x = input f32[batch, 3]\noutput %x \"a\"\noutput %x \"b\"\n", 0, INT64_MAX, "copy copy"},
};

static sf_graph *parse(sf_context *context, const char *text) {
  sf_graph *g;
  sf_error error;
  const sf_status st = sf_graph_parse(context, text, strlen(text), "pattern", NULL, &g);
  sf_context_take_error(context, &error);
  ck_assert_msg(st == SF_OK, "%s in line %d of\n%s", error.message, error.line, text);
  return g;
}

START_TEST(patterns_fuse) {
  const pattern *p = &patterns[_i];
  const plan_case c = {SF_ISA_AVX512, p->symbol_min, p->symbol_max, true};
  sf_context *context = plain_context(1);
  sf_graph *g = parse(context, p->text);
  sfi_diag diag = {0};
  sfi_plan plan;
  ck_assert_msg(make_plan(g, &sfi_default_allocator, &c, &plan, &diag) == SF_OK, "%s", diag.error.message);
  char names[512] = "";
  for (size_t k = 0; k < plan.n_kernels; k++) {
    const char *name = strchr(plan.kernels[k].name, '.');
    ck_assert_ptr_nonnull(name);
    ck_assert_int_eq(atoi(plan.kernels[k].name + 1), (int)k);
    if (k) strcat(names, " ");
    strcat(names, name + 1);
  }
  ck_assert_msg(strcmp(names, p->kernels) == 0, "'%s', not '%s', of\n%s", names, p->kernels, p->text);
  for (int64_t symbol = p->symbol_min; symbol <= sfi_min(p->symbol_max, 70); symbol += 23) {
    tensors t;
    tensors_make(g, symbol, 9, &t);
    interpret_case(g, &c, symbol, &t);
    check_against_reference(g, symbol, &t);
    tensors_free(&t);
  }
  sfi_arena_deinit(&plan.arena);
  sf_graph_release(g);
  sf_context_release(context);
}
END_TEST

/* Chains longer than an expression, and sums of more operands than a kernel, are cut. */
START_TEST(limits_hold) {
  sf_context *context = plain_context(1);
  sf_graph *g;
  ck_assert_int_eq(sf_graph_create(context, "long", &g), SF_OK);
  sf_value x = sf_graph_input(g, "x", SF_F32, 1, DIMS(SF_DIM_SYMBOLIC)), y = x;
  for (int i = 0; i < 100; i++) y = sf_unary(g, SF_OP_TANH, y);
  uint64_t state = 3;
  for (int i = 0; i < 40; i++) y = sf_binary(g, SF_OP_ADD, y, sf_binary(g, SF_OP_MUL, x, weight(g, &state, 0, 1, DIMS(1))));
  for (int i = 0; i < 40; i++) {
    char name[8];
    snprintf(name, sizeof name, "w%d", i);
    sf_value row = sf_reshape(g, y, 2, DIMS(-1, 1));
    y = sf_reshape(g, sf_matmul(g, row, weight(g, &state, 0, 2, DIMS(1, 1)), false, false), 1, DIMS(-1));
    y = sf_binary(g, SF_OP_SUB, x, y);
  }
  ck_assert_int_eq(sf_graph_output(g, "y", y), SF_OK);
  const plan_case c = {SF_ISA_AVX512, 0, INT64_MAX, true};
  tensors t;
  tensors_make(g, 5, 9, &t);
  interpret_case(g, &c, 5, &t);
  check_against_reference(g, 5, &t);
  tensors_free(&t);
  sf_graph_release(g);
  sf_context_release(context);
}
END_TEST

/* No two buffers that live at once share a byte; the arena is no larger than all of them together. */
START_TEST(memory_does_not_overlap) {
  sf_context *context = plain_context(1);
  sf_graph *g = build_network(context, _i, 5);
  const plan_case c = {SF_ISA_AVX512, 0, INT64_MAX, true};
  sfi_diag diag = {0};
  sfi_plan plan;
  ck_assert_int_eq(make_plan(g, &sfi_default_allocator, &c, &plan, &diag), SF_OK);
  size_t *offsets = calloc(plan.n_buffers + 1, sizeof *offsets), *bytes = calloc(plan.n_buffers + 1, sizeof *bytes);
  for (int64_t symbol = 0; symbol < 3000; symbol = symbol * 3 / 2 + 1) {
    size_t total = SIZE_MAX, sum = 0, highest = 0;
    ck_assert(sfi_plan_memory(&plan, symbol, offsets, &total));
    for (size_t a = 0; a < plan.n_buffers; a++) {
      const sfi_buffer *x = &plan.buffers[a];
      ck_assert(sfi_buffer_bytes(x, symbol, &bytes[a]));
      ck_assert((x->kind == SFI_BUFFER_TEMP) == (offsets[a] != SIZE_MAX));
      if (x->kind != SFI_BUFFER_TEMP) continue;
      ck_assert_uint_eq(offsets[a] % 64, 0);
      sum += bytes[a] + 128;
      highest = (size_t)sfi_max((int64_t)highest, (int64_t)(offsets[a] + bytes[a] + 64));
      for (size_t b = 0; b < a; b++) {
        const sfi_buffer *y = &plan.buffers[b];
        if (y->kind != SFI_BUFFER_TEMP || x->first_use > y->last_use || y->first_use > x->last_use) continue;
        ck_assert(offsets[a] >= offsets[b] + bytes[b] + 64 || offsets[b] >= offsets[a] + bytes[a] + 64);
      }
    }
    ck_assert_uint_ge(total, highest);
    ck_assert_uint_le(total, sum);
  }
  size_t total;
  bool symbolic = false;
  for (size_t b = 0; b < plan.n_buffers; b++) symbolic = symbolic || !sfi_is_const(plan.buffers[b].columns);
  if (symbolic) ck_assert(!sfi_plan_memory(&plan, INT64_MAX / 4, offsets, &total));
  free(offsets);
  free(bytes);
  sfi_arena_deinit(&plan.arena);
  sf_graph_release(g);
  sf_context_release(context);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("fusion");
  TCase *tests = tcase_create("patterns");
  tcase_set_timeout(tests, 60);
  tcase_add_loop_test(tests, patterns_fuse, 0, (int)SFI_COUNT(patterns));
  tcase_add_test(tests, limits_hold);
  tcase_add_loop_test(tests, memory_does_not_overlap, 0, NETWORKS);
  suite_add_tcase(suite, tests);
  return run_suite(suite);
}
