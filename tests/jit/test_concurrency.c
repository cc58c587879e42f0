/* Eight threads run one program and compile others: every answer has the bits of a serial run. Clean under the thread sanitizer with
 * OpenMP off, which it cannot see through. */
#include "run_fixture.h"

enum { THREADS = 8, ROUNDS = 12 };

static const int64_t extents[] = {1, 5, 16, 23, 64};

typedef struct expected {
  tensors t[NETWORKS][SFI_COUNT(extents)];
} expected;

static int64_t extent_of(int network, size_t e) {
  return network == 3 ? 1 : extents[e];
}

static void expect(sf_context *context, expected *out) {
  for (int n = 0; n < NETWORKS; n++) {
    sf_graph *graph = build_network(context, n, 1);
    sf_program *program = compile(context, graph);
    for (size_t e = 0; e < SFI_COUNT(extents); e++) {
      tensors_make(graph, extent_of(n, e), e, &out->t[n][e]);
      ck_assert_int_eq(run_tensors(program, &out->t[n][e]), SF_OK);
    }
    sf_program_release(program);
    sf_graph_release(graph);
  }
}

static void forget(expected *e) {
  for (int n = 0; n < NETWORKS; n++) {
    for (size_t i = 0; i < SFI_COUNT(extents); i++) tensors_free(&e->t[n][i]);
  }
}

typedef struct worker {
  int index;
  sf_context *context;
  const sf_graph *graphs[NETWORKS]; /* shared: built, only read */
  sf_program *program;              /* shared, of network `shared` */
  int shared;
  const expected *want;
  int wrong; /* counted, since Check's assertions are not for threads */
} worker;

static void run_and_compare(worker *w, sf_program *program, int network, size_t e) {
  const tensors *want = &w->want->t[network][e];
  tensors got = *want;
  for (int32_t i = 0; i < got.n_out; i++) {
    got.out[i].data = aligned_alloc(64, (got.out_bytes[i] + 64) / 64 * 64);
    w->wrong += !got.out[i].data;
  }
  w->wrong += run_tensors(program, &got) != SF_OK || !tensors_equal(&got, want);
  for (int32_t i = 0; i < got.n_out; i++) free(got.out[i].data);
}

static void *work(void *argument) {
  worker *w = argument;
  for (int r = 0; r < ROUNDS; r++) {
    for (size_t e = 0; e < SFI_COUNT(extents); e++) run_and_compare(w, w->program, w->shared, e);
    int network = (w->index + r) % NETWORKS;
    if (w->index % 2 == 0) continue; /* half of them compile as well */
    sf_program *own;
    if (sf_compile(w->context, w->graphs[network], NULL, &own, NULL) != SF_OK) {
      w->wrong++;
      continue;
    }
    run_and_compare(w, own, network, (size_t)r % SFI_COUNT(extents));
    sf_program_release(own);
  }
  return NULL;
}

static void run_workers(const char *cache_dir, sf_parallel_for_fn parallel_for) {
  sf_context *serial = plain_context(1);
  expected want;
  expect(serial, &want);
  sf_context_options options;
  sf_context *context;
  SF_INIT(&options);
  options.cache_dir = cache_dir;
  options.threads = 2;
  options.parallel_for = parallel_for;
  ck_assert_int_eq(sf_context_create(&options, &context), SF_OK);
  worker workers[THREADS];
  sf_graph *graphs[NETWORKS];
  for (int n = 0; n < NETWORKS; n++) graphs[n] = build_network(context, n, 1);
  sf_program *program = compile(context, graphs[4]);
  for (int i = 0; i < THREADS; i++) {
    workers[i] = (worker){.index = i, .context = context, .program = program, .shared = 4, .want = &want};
    memcpy(workers[i].graphs, graphs, sizeof graphs);
  }
  work_at_once(work, workers, THREADS, sizeof *workers);
  for (int i = 0; i < THREADS; i++) ck_assert_msg(workers[i].wrong == 0, "thread %d: %d wrong", i, workers[i].wrong);
  sf_program_release(program);
  for (int n = 0; n < NETWORKS; n++) sf_graph_release(graphs[n]);
  sf_context_release(context);
  forget(&want);
  sf_context_release(serial);
}

START_TEST(own_threads) {
  run_workers("", NULL);
}
END_TEST

START_TEST(host_threads_and_disk) {
  char folder[64];
  make_folder(folder);
  run_workers(folder, host_parallel_for);
  remove_tree(folder);
}
END_TEST

/* More runs at once than the pool has slots. */
static void *run_once(void *argument) {
  worker *w = argument;
  run_and_compare(w, w->program, w->shared, 4);
  return NULL;
}

START_TEST(more_runs_than_slots) {
  enum { MANY = 150 };
  sf_context *context = plain_context(1);
  expected want;
  expect(context, &want);
  sf_graph *graph = build_network(context, 4, 1);
  sf_program *program = compile(context, graph);
  static worker workers[MANY];
  for (int i = 0; i < MANY; i++) workers[i] = (worker){.index = i, .program = program, .shared = 4, .want = &want};
  work_at_once(run_once, workers, MANY, sizeof *workers);
  for (int i = 0; i < MANY; i++) ck_assert_int_eq(workers[i].wrong, 0);
  sf_program_release(program);
  sf_graph_release(graph);
  forget(&want);
  sf_context_release(context);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("concurrency");
  TCase *cases = tcase_create("concurrency");
  tcase_set_timeout(cases, 300);
  tcase_add_test(cases, own_threads);
  tcase_add_test(cases, host_threads_and_disk);
  tcase_add_test(cases, more_runs_than_slots);
  suite_add_tcase(suite, cases);
  return run_suite(suite);
}
