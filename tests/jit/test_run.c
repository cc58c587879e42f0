/* sf_run: answers of every class and extent against the reference, equal bits whatever the threads, wrong tensors refused. */
#include "run_fixture.h"

static const int64_t extents[] = {0, 1, 2, 16, 17, 100};

static int64_t extent_of(const sf_program *program, size_t i) {
  return program->symbolic ? extents[i] : 1;
}

static sf_context *context_like(int32_t threads, sf_parallel_for_fn parallel_for, void *user, sf_isa isa) {
  sf_context_options options;
  sf_context *context;
  SF_INIT(&options);
  options.cache_dir = "";
  options.threads = threads;
  options.parallel_for = parallel_for;
  options.parallel_for_user = user;
  options.isa = isa;
  ck_assert_int_eq(sf_context_create(&options, &context), SF_OK);
  return context;
}

/* At every kind of extent. */
static void check_answers(const sf_graph *graph, sf_program *program) {
  for (size_t i = 0; i < SFI_COUNT(extents); i++) {
    check_answer(program, graph, extent_of(program, i), i);
  }
}

START_TEST(answers) {
  sf_context *context = plain_context(2);
  sf_graph *graph = build_network(context, _i, 3);
  ck_assert_msg(sf_graph_status(graph) == SF_OK, "%s", graph->diag.error.message);
  for (int32_t level = 1; level <= 3; level++) {
    sf_compile_options options;
    sf_program *program;
    sf_error error = {0};
    SF_INIT(&options);
    options.opt_level = level;
    options.error = &error;
    sf_status status = sf_compile(context, graph, &options, &program, NULL);
    ck_assert_msg(status == SF_OK, "%s", error.message);
    check_answers(graph, program);
    sf_program_release(program);
  }
  sf_graph_release(graph);
  sf_context_release(context);
}
END_TEST

START_TEST(reference_target) {
  sf_context *context = context_like(2, NULL, NULL, SF_ISA_REFERENCE);
  sf_graph *graph = build_network(context, _i, 4);
  sf_program *program = compile(context, graph);
  check_answers(graph, program);
  sf_program_release(program);
  sf_graph_release(graph);
  sf_context_release(context);
}
END_TEST

START_TEST(equal_bits) {
  atomic_int calls = 0;
  sf_context *contexts[4] = {context_like(1, NULL, NULL, SF_ISA_NATIVE), context_like(2, NULL, NULL, SF_ISA_NATIVE),
                             context_like(7, NULL, NULL, SF_ISA_NATIVE), context_like(3, host_parallel_for, &calls, SF_ISA_NATIVE)};
  sf_program *programs[4];
  sf_graph *graphs[4];
  for (int c = 0; c < 4; c++) {
    graphs[c] = build_network(contexts[c], _i, 5);
    programs[c] = compile(contexts[c], graphs[c]);
  }
  int compile_calls = atomic_load(&calls);
  for (size_t i = 0; i < SFI_COUNT(extents); i++) {
    tensors t[4];
    for (int c = 0; c < 4; c++) {
      tensors_make(graphs[c], extent_of(programs[c], i), 9 + i, &t[c]);
      ck_assert_int_eq(run_tensors(programs[c], &t[c]), SF_OK);
      ck_assert_msg(tensors_equal(&t[0], &t[c]), "%s at %lld differs with threads", graphs[c]->name, (long long)extents[i]);
    }
    for (int c = 0; c < 4; c++) tensors_free(&t[c]);
  }
  /* The test means something only where kernels were spread. */
  if (_i == 4 && contexts[3]->target.isa != SF_ISA_REFERENCE) ck_assert_int_gt(atomic_load(&calls), compile_calls);
  for (int c = 0; c < 4; c++) {
    sf_program_release(programs[c]);
    sf_graph_release(graphs[c]);
    sf_context_release(contexts[c]);
  }
}
END_TEST

/* Layers of random extents, zeros and classes, at extents on both sides of every bound. */
START_TEST(random_layers) {
  uint64_t state = (uint64_t)_i + 100;
  sf_context *context = plain_context(2);
  sf_graph *graph;
  sf_program *program;
  const int64_t depth = 1 + random_u32(&state) % 90, rows = 1 + random_u32(&state) % 90, bound = 1 + random_u32(&state) % 40;
  const bool transposed = random_u32(&state) % 2;
  const uint32_t zeros = random_u32(&state) % 101;
  ck_assert_int_eq(sf_graph_create(context, "layer", &graph), SF_OK);
  sf_value x = sf_graph_input(graph, "x", SF_F32, 2, DIMS(SF_DIM_SYMBOLIC, depth));
  sf_value w = weight(graph, &state, zeros, 2, transposed ? DIMS(rows, depth) : DIMS(depth, rows));
  sf_value y = sf_matmul(graph, x, w, false, transposed);
  if (random_u32(&state) % 2) y = sf_binary(graph, SF_OP_ADD, y, weight(graph, &state, 0, 1, DIMS(rows)));
  if (random_u32(&state) % 2) y = sf_unary(graph, SF_OP_RELU, y);
  sf_graph_output(graph, "y", y);
  sf_compile_options options;
  SF_INIT(&options);
  options.n_classes = 1;
  options.classes = &bound;
  ck_assert_int_eq(sf_compile(context, graph, &options, &program, NULL), SF_OK);
  const int64_t extents_here[] = {0, 1, bound, bound + 1, 1 + random_u32(&state) % 200};
  for (size_t i = 0; i < SFI_COUNT(extents_here); i++) {
    check_answer(program, graph, extents_here[i], i);
  }
  sf_program_release(program);
  sf_graph_release(graph);
  sf_context_release(context);
}
END_TEST

/* The zeros of padding count where a weight is not finite: 0 Inf is NaN. */
START_TEST(padding_meets_infinity) {
  enum { CHANNELS = 16, COUNT = CHANNELS * 2 * 9 };
  sf_context *context = plain_context(1);
  sf_graph *graph;
  uint64_t state = 5;
  float w[COUNT];
  for (int i = 0; i < COUNT; i++) w[i] = (float)(random_u32(&state) % 64) / 32 - 1.01f;
  w[0] = INFINITY;              /* the corner above, of channel 0 */
  w[9 * 2 * 5 + 8] = -INFINITY; /* the corner below, of channel 5 */
  ck_assert_int_eq(sf_graph_create(context, "layer", &graph), SF_OK);
  sf_value x = sf_graph_input(graph, "x", SF_F32, 4, DIMS(1, 2, 9, 7));
  sf_value inputs[] = {x, sf_graph_weight(graph, NULL, SF_F32, 4, DIMS(CHANNELS, 2, 3, 3), w, SF_COPY)};
  sf_attr pad = {.id = SF_ATTR_PAD, .count = 4, .ints = DIMS(1, 1, 1, 1)};
  sf_graph_output(graph, "y", sf_graph_op(graph, SF_OP_CONV2D, 2, inputs, 1, &pad));
  check_every_emitter(context, graph);
  sf_graph_release(graph);
  sf_context_release(context);
}
END_TEST

/* A program needs nothing that the host gave to build it. */
START_TEST(graph_is_released) {
  sf_context *context = plain_context(1);
  const size_t n = 37 * 8;
  float *data = malloc(n * sizeof *data), expected[5 * 8] = {0}, x[5 * 37], y[5 * 8];
  uint64_t state = 1;
  random_weights(&state, n, 50, data);
  for (size_t i = 0; i < SFI_COUNT(x); i++) x[i] = 1;
  for (int r = 0; r < 5; r++) {
    for (size_t e = 0; e < n; e++) expected[r * 8 + (int)(e % 8)] += data[e];
  }
  sf_graph *graph;
  ck_assert_int_eq(sf_graph_create(context, NULL, &graph), SF_OK);
  sf_value in = sf_graph_input(graph, "x", SF_F32, 2, DIMS(SF_DIM_SYMBOLIC, 37));
  sf_value w = sf_graph_weight(graph, "w", SF_F32, 2, DIMS(37, 8), data, SF_BORROW);
  sf_graph_output(graph, "y", sf_matmul(graph, in, w, false, false));
  sf_program *program = compile(context, graph);
  sf_graph_release(graph);
  memset(data, 0xff, n * sizeof *data);
  free(data);
  sf_context_release(context); /* the program keeps it */
  sf_tensor input = {x, SF_F32, 2, {5, 37}}, output = {y, SF_F32, 2, {5, 8}};
  ck_assert_int_eq(sf_run(program, 1, &input, 1, &output), SF_OK);
  for (size_t i = 0; i < SFI_COUNT(y); i++) ck_assert_float_eq_tol(y[i], expected[i], 1e-4);
  sf_tensor_info info;
  ck_assert_int_eq(sf_program_output_info(program, 0, &info), SF_OK);
  ck_assert_str_eq(info.name, "y");
  ck_assert_int_eq(info.dims[0], SF_DIM_SYMBOLIC);
  ck_assert_int_eq(info.dims[1], 8);
  sf_program_release(program);
}
END_TEST

/* Runs `t` with one thing wrong: refused, nothing written, and the program still works. */
static void refuse(sf_program *program, const tensors *t, const char *word) {
  sf_context *context = program->context;
  sf_error error;
  sf_context_take_error(context, &error);
  ck_assert_int_eq(run_tensors(program, t), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_context_take_error(context, &error), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_msg(strstr(error.message, word) != NULL, "'%s' does not say '%s'", error.message, word);
}

START_TEST(wrong_tensors) {
  sf_context *context = plain_context(1);
  sf_graph *graph = build_network(context, 2, 6); /* two inputs with the symbol */
  sf_program *program = compile(context, graph);
  tensors good, t;
  tensors_make(graph, 4, 1, &good);
#define REFUSE(word, ...)                                                                                                          \
  t = good;                                                                                                                        \
  __VA_ARGS__;                                                                                                                     \
  refuse(program, &t, word);                                                                                                       \
  ck_assert(tensors_untouched(&good))
  REFUSE("inputs", t.n_in--);
  REFUSE("inputs", t.n_in = -1);
  REFUSE("outputs", t.n_out--);
  REFUSE("outputs", t.n_out++);
  REFUSE("f32", t.in[0].dtype = SF_F64);
  REFUSE("f32", t.out[1].dtype = SF_I8);
  REFUSE("rank", t.in[1].rank = 3);
  REFUSE("rank", t.out[0].rank = -1);
  REFUSE("extent 1", t.in[0].dims[1] = 13);
  REFUSE("extent 0", t.in[1].dims[0] = 5); /* the symbol is 4 by the first input */
  REFUSE("negative", t.in[0].dims[0] = -4);
  REFUSE("overflows", t.in[0].dims[0] = INT64_MAX);
  REFUSE("extent", t.out[1].dims[1] = 3);
  REFUSE("NULL", t.in[0].data = NULL);
  REFUSE("NULL", t.out[3].data = NULL);
  REFUSE("aligned", t.in[1].data = (char *)t.in[1].data + 2);
  REFUSE("aligned", t.out[0].data = (char *)t.out[0].data + 1);
  REFUSE("input", t.out[1].data = t.in[0].data);
  REFUSE("another output", t.out[1].data = t.out[0].data);
#undef REFUSE
  ck_assert_int_eq(sf_run(program, good.n_in, NULL, good.n_out, good.out), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_run(program, good.n_in, good.in, good.n_out, NULL), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_run(NULL, good.n_in, good.in, good.n_out, good.out), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(run_tensors(program, &good), SF_OK);
  check_against_reference(graph, 4, &good);
  tensors_free(&good);
  sf_program_release(program);
  sf_graph_release(graph);
  sf_context_release(context);
}
END_TEST

/* What shapes do not say is checked before anything runs: indices, and extents that parts of tensors ask for. */
START_TEST(limits) {
  static const char text[] = "symbol tokens\n"
                             "%ids = input i64[2, tokens]\n"
                             "%table = constant f32[4, 2] [0, 1, 2, 3, 4, 5, 6, 7]\n"
                             "%places = constant f32[5, 2] [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]\n"
                             "%flat = reshape %ids shape=[-1]\n"
                             "%rows = gather %table, %flat axis=0\n"
                             "%x = reshape %rows shape=[2, -1, 2]\n"
                             "%p = slice %places starts=[0, 0] ends=[0, 2] symbolic=[0]\n"
                             "%y = add %x, %p\n"
                             "%last = slice %y starts=[0, -2, 0] ends=[2, 9223372036854775807, 2]\n"
                             "output %last\n";
  static const struct {
    int64_t tokens, ids[12];
    const char *message;
  } rows[] = {
      {2, {0, 1, 2, 3}, NULL},
      {3, {-4, -1, 0, 3, 3, 3}, NULL},
      {5, {0}, NULL},
      {6, {0}, "'tokens' is 6; this operation needs 5 at most"},
      {1, {0}, "'tokens' is 1; this operation needs 2 at least"},
      {2, {0, 1, 2, 4}, "input 0 'ids': index 4 is outside -4 to 3, which gather takes"},
      {2, {-5, 1, 2, 3}, "input 0 'ids': index -5 is outside -4 to 3, which gather takes"},
      {2, {INT64_MAX, 1, 2, 3}, "input 0 'ids': index 9223372036854775807 is outside -4 to 3, which gather takes"},
  };
  static const sf_isa isas[] = {SF_ISA_NATIVE, SF_ISA_REFERENCE};
  for (size_t i = 0; i < SFI_COUNT(isas); i++) {
    sf_context *context = context_like(1, NULL, NULL, isas[i]);
    sf_graph *graph;
    ck_assert_int_eq(sf_graph_parse(context, text, sizeof text - 1, "limits.sft", NULL, &graph), SF_OK);
    sf_program *program = compile(context, graph);
    for (size_t r = 0; r < SFI_COUNT(rows); r++) {
      float y[8] = {-1};
      const sf_tensor in = {(void *)rows[r].ids, SF_I64, 2, {2, rows[r].tokens}}, out = {y, SF_F32, 3, {2, 2, 2}};
      sf_error error;
      const sf_status status = sf_run(program, 1, &in, 1, &out);
      sf_context_take_error(context, &error);
      ck_assert_str_eq(error.message, rows[r].message ? rows[r].message : "");
      ck_assert_int_eq(status, rows[r].message ? SF_STATUS_INVALID_ARGUMENT : SF_OK);
      for (int k = 0; k < 8 && !rows[r].message; k++) {
        const int64_t place = rows[r].tokens - 2 + k / 2 % 2, id = (rows[r].ids[k / 4 * rows[r].tokens + place] + 4) % 4;
        ck_assert_float_eq(y[k], (float)(2 * id + k % 2 + 20 * place + 10 * (k % 2)));
      }
      if (rows[r].message) ck_assert_float_eq(y[0], -1);
    }
    sf_program_release(program);
    sf_graph_release(graph);
    sf_context_release(context);
  }
}
END_TEST

/* A decoder's layer keeps its keys and values in memory of the host: a prompt of three rows, then one row a run, give what one run
 * over all rows gives, and what is behind them is never read. */
START_TEST(cache_of_the_host) {
  enum { ROWS = 11, CAPACITY = 13, WIDTH = 8 };
  static const struct {
    int64_t first, rows;
    const char *message;
  } too_long[] = {{13, 1, "input 2 'p': index 13 is outside 0 to 12, which append takes"},
                  {11, 3, "input 2 'p': index 11 is outside 0 to 10, which append takes"},
                  {INT64_MAX, 1, "input 2 'p': index 9223372036854775807 is outside 0 to 12, which append takes"},
                  {-1, 1, "input 2 'p': index -1 is outside 0 to 12, which append takes"},
                  {0, 14, "'rows' is 14; this operation needs 13 at most"}};
  static const char text[] = "symbol rows\n"
                             "%x = input f32[1, rows, 8]\n"
                             "%cache = input f32[1, 13, 8]\n"
                             "%p = input i64[1]\n"
                             "%two = constant f32[] 2\n"
                             "%k = mul %x, %two\n"
                             "%all = append %cache, %k, %p axis=1\n"
                             "%y = attention %x, %all, %all, %p heads=2 causal=1\n"
                             "output %all\n"
                             "output %y\n";
  static const sf_isa isas[] = {SF_ISA_NATIVE, SF_ISA_REFERENCE};
  for (size_t i = 0; i < 2 * SFI_COUNT(isas); i++) {
    const bool in_place = i % 2;
    sf_context *context = context_like(1, NULL, NULL, isas[i / 2]);
    sf_graph *graph;
    ck_assert_int_eq(sf_graph_parse(context, text, sizeof text - 1, "decoder.sft", NULL, &graph), SF_OK);
    sf_program *program = compile(context, graph);
    float x[ROWS * WIDTH], whole[ROWS * WIDTH], y[ROWS * WIDTH], cache[CAPACITY * WIDTH], other[CAPACITY * WIDTH];
    float *from = cache, *to = in_place ? cache : other;
    for (int k = 0; k < ROWS * WIDTH; k++) x[k] = (float)((k * 37 + k / 5) % 19 - 9) / 8;
    for (int64_t first = 0, rows = 0, turn = 0; turn < 2; turn++) {
      for (int k = 0; k < CAPACITY * WIDTH; k++) cache[k] = other[k] = NAN;
      for (first = 0; first < ROWS; first += rows) {
        rows = turn == 0 ? ROWS : first == 0 ? 3 : 1;
        const sf_tensor in[] = {
            {x + first * WIDTH, SF_F32, 3, {1, rows, WIDTH}}, {from, SF_F32, 3, {1, CAPACITY, WIDTH}}, {&first, SF_I64, 1, {1}}};
        const sf_tensor out[] = {{to, SF_F32, 3, {1, CAPACITY, WIDTH}},
                                 {(turn == 0 ? whole : y) + first * WIDTH, SF_F32, 3, {1, rows, WIDTH}}};
        ck_assert_int_eq(sf_run(program, 3, in, 2, out), SF_OK);
        for (int k = 0; k < CAPACITY * WIDTH; k++)
          ck_assert_msg(k < (first + rows) * WIDTH ? to[k] == 2 * x[k] : isnan(to[k]), "element %d at %d", k, (int)first);
        if (!in_place) memcpy(from, to, sizeof cache);
      }
    }
    for (int k = 0; k < ROWS * WIDTH; k++) ck_assert_float_eq_tol(y[k], whole[k], 1e-5f);
    /* What the memory has no room for is refused, and what is in it stays. */
    for (size_t k = 0; k < SFI_COUNT(too_long); k++) {
      float long_x[14 * WIDTH] = {0}, long_y[14 * WIDTH], kept[CAPACITY * WIDTH];
      int64_t first = too_long[k].first, rows = too_long[k].rows;
      const sf_tensor in[] = {
          {long_x, SF_F32, 3, {1, rows, WIDTH}}, {from, SF_F32, 3, {1, CAPACITY, WIDTH}}, {&first, SF_I64, 1, {1}}};
      const sf_tensor out[] = {{to, SF_F32, 3, {1, CAPACITY, WIDTH}}, {long_y, SF_F32, 3, {1, rows, WIDTH}}};
      sf_error error;
      memcpy(kept, to, sizeof kept);
      ck_assert_int_eq(sf_run(program, 3, in, 2, out), SF_STATUS_INVALID_ARGUMENT);
      sf_context_take_error(context, &error);
      ck_assert_str_eq(error.message, too_long[k].message);
      ck_assert_mem_eq(kept, to, sizeof kept);
    }
    sf_program_release(program);
    sf_graph_release(graph);
    sf_context_release(context);
  }
}
END_TEST

/* An input used twice is no overlap, and elements need no more than their own alignment. */
START_TEST(odd_addresses) {
  sf_context *context = plain_context(2);
  sf_graph *graph = build_network(context, 2, 6);
  sf_program *program = compile(context, graph);
  tensors aligned, shifted;
  tensors_make(graph, 19, 1, &aligned);
  tensors_make(graph, 19, 1, &shifted);
  for (int32_t i = 0; i < shifted.n_in; i++) {
    char *moved = (char *)shifted.in[i].data + 4;
    memmove(moved, shifted.in[i].data, 19 * 12 * sizeof(float));
    shifted.in[i].data = moved;
  }
  for (int32_t i = 0; i < shifted.n_out; i++) shifted.out[i].data = (char *)shifted.out[i].data + 4;
  ck_assert_int_eq(run_tensors(program, &aligned), SF_OK);
  ck_assert_int_eq(run_tensors(program, &shifted), SF_OK);
  ck_assert(tensors_equal(&aligned, &shifted));
  for (int32_t i = 0; i < shifted.n_in; i++) shifted.in[i].data = (char *)shifted.in[i].data - 4;
  for (int32_t i = 0; i < shifted.n_out; i++) shifted.out[i].data = (char *)shifted.out[i].data - 4;
  sf_tensor second = shifted.in[1];
  shifted.in[1] = shifted.in[0];
  ck_assert_int_eq(run_tensors(program, &shifted), SF_OK);
  shifted.in[1] = second;
  tensors_free(&aligned);
  tensors_free(&shifted);
  sf_program_release(program);
  sf_graph_release(graph);
  sf_context_release(context);
}
END_TEST

START_TEST(own_classes) {
  sf_context *context = plain_context(1);
  sf_graph *graph = build_network(context, 0, 8);
  static const int64_t lists[][2] = {{5, 0}, {3, 40}};
  for (int32_t n = 0; n <= 2; n++) {
    sf_compile_options options;
    sf_program *program;
    SF_INIT(&options);
    options.n_classes = n;
    options.classes = n ? lists[n - 1] : lists[0];
    ck_assert_int_eq(sf_compile(context, graph, &options, &program, NULL), SF_OK);
    ck_assert_int_eq(program->n_classes, n + 1);
    for (int64_t s = 0; s < 64; s += 3) {
      check_answer(program, graph, s, (uint64_t)s);
    }
    sf_program_release(program);
  }
  sf_graph_release(graph);
  sf_context_release(context);
}
END_TEST

#if defined(_OPENMP)
/* Inside a host's own region a run is still right. */
START_TEST(inside_a_region) {
  sf_context *context = plain_context(2);
  sf_graph *graph = build_network(context, 4, 6);
  sf_program *program = compile(context, graph);
  tensors want, got[4];
  tensors_make(graph, 100, 1, &want);
  ck_assert_int_eq(run_tensors(program, &want), SF_OK);
  for (int i = 0; i < 4; i++) tensors_make(graph, 100, 1, &got[i]);
  int failures = 0;
#pragma omp parallel for num_threads(4) reduction(+ : failures)
  for (int i = 0; i < 4; i++) failures += run_tensors(program, &got[i]) != SF_OK;
  ck_assert_int_eq(failures, 0);
  for (int i = 0; i < 4; i++) {
    ck_assert(tensors_equal(&want, &got[i]));
    tensors_free(&got[i]);
  }
  tensors_free(&want);
  sf_program_release(program);
  sf_graph_release(graph);
  sf_context_release(context);
}
END_TEST
#endif

int main(void) {
  Suite *suite = suite_create("run");
  TCase *cases = tcase_create("run");
  tcase_set_timeout(cases, 300);
  tcase_add_loop_test(cases, answers, 0, NETWORKS);
  tcase_add_loop_test(cases, reference_target, 0, NETWORKS);
  tcase_add_loop_test(cases, equal_bits, 0, NETWORKS);
  tcase_add_loop_test(cases, random_layers, 0, 24);
  tcase_add_test(cases, padding_meets_infinity);
  tcase_add_test(cases, graph_is_released);
  tcase_add_test(cases, wrong_tensors);
  tcase_add_test(cases, limits);
  tcase_add_test(cases, cache_of_the_host);
  tcase_add_test(cases, odd_addresses);
  tcase_add_test(cases, own_classes);
#if defined(_OPENMP)
  tcase_add_test(cases, inside_a_region);
#endif
  suite_add_tcase(suite, cases);
  return run_suite(suite);
}
