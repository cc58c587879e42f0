/* Profiled runs: the spans they write, what the kernels are said to do, and that a run's results and memory do not change by it. */
#include "run_fixture.h"

enum { THREADS = 2, SPANS = 4096 };

static sf_run_profile profile_with(sf_span *spans, int32_t capacity) {
  sf_run_profile p;
  SF_INIT(&p);
  p.spans = spans;
  p.capacity = capacity;
  return p;
}

static sf_status run_profiled(sf_program *program, const tensors *t, sf_run_profile *p) {
  return sf_run_profiled(program, t->n_in, t->in, t->n_out, t->out, p);
}

/* Every chunk of every kernel once, inside the run, no kernel before those ahead of it have ended, on no more threads than there are. */
static void check_spans(const sf_program *program, int64_t symbol, const sf_run_profile *p, int32_t most_threads) {
  uint64_t threads[THREADS];
  int32_t n_threads = 0, at = 0;
  int64_t done = p->begin_ns;
  ck_assert_int_eq(p->count, sf_program_span_count(program, symbol));
  for (int32_t k = 0; k < sf_program_kernel_count(program, symbol); k++) {
    sf_kernel_info info;
    SF_INIT(&info);
    ck_assert_int_eq(sf_program_kernel_info(program, symbol, k, &info), SF_OK);
    int64_t last = done;
    for (int32_t c = 0; c < info.chunks; c++, at++) {
      const sf_span *s = &p->spans[at];
      int32_t t = 0;
      ck_assert_int_lt(at, p->count);
      ck_assert_int_eq(s->kernel, k);
      ck_assert(done <= s->begin_ns && s->begin_ns <= s->end_ns && s->end_ns <= p->end_ns);
      if (s->end_ns > last) last = s->end_ns;
      while (t < n_threads && threads[t] != s->thread) t++;
      ck_assert_int_lt(t, most_threads);
      if (t == n_threads) threads[n_threads++] = s->thread;
    }
    done = last;
  }
  ck_assert_int_eq(at, p->count);
}

/* host: 0 OpenMP or this thread alone, 1 the host's threads. */
static void profile_network(int network, sf_isa isa, bool host) {
  static const int64_t extents[] = {1, 16, 100, 0};
  static sf_span spans[SPANS];
  sf_context_options options;
  sf_context *context;
  SF_INIT(&options);
  options.cache_dir = "";
  options.threads = THREADS;
  options.isa = isa;
  options.parallel_for = host ? host_parallel_for : NULL;
  ck_assert_int_eq(sf_context_create(&options, &context), SF_OK);
  sf_graph *graph = build_network(context, network, 3);
  sf_program *program = compile(context, graph);
  for (size_t i = 0; i < SFI_COUNT(extents); i++) {
    const int64_t symbol = program->symbolic ? extents[i] : 1;
    tensors plain, profiled;
    tensors_make(graph, symbol, i, &plain);
    tensors_make(graph, symbol, i, &profiled);
    sf_run_profile p = profile_with(spans, SPANS);
    ck_assert_int_eq(run_tensors(program, &plain), SF_OK);
    ck_assert_int_eq(run_profiled(program, &profiled, &p), SF_OK);
    ck_assert(tensors_equal(&plain, &profiled));
    /* A host's loop here starts its threads anew for each kernel. */
    if (!host) check_spans(program, symbol, &p, THREADS);
    ck_assert_int_eq(p.count, sf_program_span_count(program, symbol));
    tensors_free(&plain);
    tensors_free(&profiled);
  }
  sf_program_release(program);
  sf_graph_release(graph);
  sf_context_release(context);
}

START_TEST(spans_of_networks) {
  profile_network(_i, SF_ISA_NATIVE, false);
  profile_network(_i, SF_ISA_NATIVE, true);
  profile_network(_i, SF_ISA_REFERENCE, false);
}
END_TEST

START_TEST(room_is_checked) {
  sf_context *context = plain_context(THREADS);
  sf_graph *graph = build_network(context, 4, 1);
  sf_program *program = compile(context, graph);
  const int32_t need = sf_program_span_count(program, 100);
  sf_span *spans = calloc((size_t)need, sizeof *spans);
  ck_assert(need > 0 && spans);
  tensors t;
  tensors_make(graph, 100, 1, &t);
  sf_error error;
  sf_run_profile p = profile_with(spans, need - 1);
  ck_assert_int_eq(run_profiled(program, &t, &p), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(p.count, 0);
  ck_assert_int_eq(sf_context_take_error(context, &error), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_ptr_nonnull(strstr(error.message, "room for"));
  p = profile_with(NULL, need);
  ck_assert_int_eq(run_profiled(program, &t, &p), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(run_profiled(program, &t, NULL), SF_STATUS_INVALID_ARGUMENT);
  p = profile_with(spans, need);
  p.struct_size = 0;
  ck_assert_int_eq(run_profiled(program, &t, &p), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_run_profiled(NULL, t.n_in, t.in, t.n_out, t.out, &p), SF_STATUS_INVALID_ARGUMENT);
  ck_assert(tensors_untouched(&t));
  p = profile_with(spans, need);
  ck_assert_int_eq(run_profiled(program, &t, &p), SF_OK);
  ck_assert_int_eq(p.count, need);
  tensors_free(&t);
  free(spans);
  sf_program_release(program);
  sf_graph_release(graph);
  sf_context_release(context);
}
END_TEST

/* y = relu(x W^T + b) with the last `dead` of 64 weights in each row zero, at 10 rows of x. */
START_TEST(counts_of_a_product) {
  enum { M = 32, K = 64, N = 10 };
  const int dead = _i * 16;
  sf_context *context = plain_context(1);
  sf_graph *graph;
  float w[M * K], b[M];
  for (int i = 0; i < M * K; i++) w[i] = i % K < K - dead ? 1 + (float)i : 0;
  for (int i = 0; i < M; i++) b[i] = (float)i - 7;
  ck_assert_int_eq(sf_graph_create(context, "one", &graph), SF_OK);
  sf_value x = sf_graph_input(graph, "x", SF_F32, 2, DIMS(SF_DIM_SYMBOLIC, K));
  sf_value y = sf_matmul(graph, x, sf_graph_weight(graph, "w.of.it", SF_F32, 2, DIMS(M, K), w, SF_COPY), false, true);
  y = sf_binary(graph, SF_OP_ADD, y, sf_graph_weight(graph, "b", SF_F32, 1, DIMS(M), b, SF_COPY));
  sf_graph_output(graph, "y", sf_unary(graph, SF_OP_RELU, y));
  sf_compile_options options;
  sf_program *program;
  SF_INIT(&options);
  options.opt_level = 2; /* fused; dead columns are not cut out */
  ck_assert_int_eq(sf_compile(context, graph, &options, &program, NULL), SF_OK);
  double flops = 0, dense = 0, bytes = 0;
  int weights = 0;
  for (int32_t k = 0; k < sf_program_kernel_count(program, N); k++) {
    sf_kernel_info info;
    SF_INIT(&info);
    ck_assert_int_eq(sf_program_kernel_info(program, N, k, &info), SF_OK);
    ck_assert(info.bound_us > 0 && info.bytes > 0 && info.chunks == 1);
    flops += info.flops;
    dense += info.dense_flops;
    bytes += info.bytes;
    if (!info.weight) continue;
    weights++;
    ck_assert_str_eq(info.weight, "w.of.it");
    ck_assert(info.density == (double)(K - dead) / K);
    /* Anything that computes it: its flops at the peak cannot take less. */
    sf_machine_info machine;
    SF_INIT(&machine);
    ck_assert_int_eq(sf_program_machine(program, &machine), SF_OK);
    ck_assert_int_eq(machine.threads, 1);
    ck_assert(info.bound_us * machine.peak_gflops * 1e3 >= info.flops * 0.999);
  }
#if defined(SFI_HAVE_LLVM)
  ck_assert_int_eq(weights, 1);
  ck_assert(flops == 2.0 * N * M * (K - dead) + 2.0 * N * M);
  ck_assert(dense == 2.0 * N * M * K + 2.0 * N * M);
#else
  ck_assert(weights == 0 && flops == 0 && dense == 0);
#endif
  ck_assert(bytes >= 4.0 * N * (M + K - dead)); /* x and y at least */
  sf_kernel_info none;
  SF_INIT(&none);
  ck_assert_int_eq(sf_program_kernel_info(program, N, sf_program_kernel_count(program, N), &none), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_program_kernel_info(program, -1, 0, &none), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_program_kernel_info(program, N, 0, NULL), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_program_machine(program, NULL), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_program_kernel_count(program, -1), 0);
  ck_assert_int_eq(sf_program_kernel_count(NULL, 1), 0);
  sf_program_release(program);
  sf_graph_release(graph);
  sf_context_release(context);
}
END_TEST

START_TEST(nothing_is_allocated) {
  failing_allocator counter = {0};
  sf_allocator allocator = failing_allocator_of(&counter);
  static sf_span spans[SPANS];
  sf_context_options options;
  sf_context *context;
  SF_INIT(&options);
  options.cache_dir = "";
  options.threads = THREADS;
  options.allocator = &allocator;
  ck_assert_int_eq(sf_context_create(&options, &context), SF_OK);
  sf_graph *graph = build_network(context, 4, 1);
  sf_program *program = compile(context, graph);
  tensors t;
  tensors_make(graph, 100, 1, &t);
  ck_assert_int_eq(run_tensors(program, &t), SF_OK);
  const long calls = atomic_load(&counter.calls);
  for (int i = 0; i < 20; i++) {
    sf_run_profile p = profile_with(spans, SPANS);
    ck_assert_int_eq(run_profiled(program, &t, &p), SF_OK);
  }
  ck_assert_int_eq(atomic_load(&counter.calls) - calls, 0);
  tensors_free(&t);
  sf_program_release(program);
  sf_graph_release(graph);
  sf_context_release(context);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("profile");
  TCase *cases = tcase_create("profile");
  tcase_set_timeout(cases, 120);
  tcase_add_loop_test(cases, spans_of_networks, 0, NETWORKS);
  tcase_add_test(cases, room_is_checked);
  tcase_add_loop_test(cases, counts_of_a_product, 0, 4);
  tcase_add_test(cases, nothing_is_allocated);
  suite_add_tcase(suite, cases);
  return run_suite(suite);
}
