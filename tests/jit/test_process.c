/* What compiling does to the process: no mapping is ever writable and executable at once, a child of fork() works, and making and
 * destroying programs leaves no mapping behind; threads of a compile use the processors that the process may. */
#include "run_fixture.h"
#include "sanitized.h"

#include <sched.h>
#include <sys/wait.h>

typedef struct mappings {
  int all, executable;
} mappings;

/* Fails where one is both writable and executable. */
static mappings read_mappings(void) {
  mappings m = {0};
  char line[4096], mode[8];
  FILE *maps = fopen("/proc/self/maps", "r");
  ck_assert_ptr_nonnull(maps);
  while (fgets(line, sizeof line, maps)) {
    ck_assert_int_eq(sscanf(line, "%*s %7s", mode), 1);
    ck_assert_msg(mode[1] != 'w' || mode[2] != 'x', "writable and executable: %s", line);
    m.all++;
    m.executable += mode[2] == 'x';
  }
  fclose(maps);
  return m;
}

START_TEST(never_writable_and_executable) {
  sf_context *context = plain_context(2);
  mappings before = read_mappings();
  sf_program *programs[NETWORKS];
  sf_graph *graphs[NETWORKS];
  for (int n = 0; n < NETWORKS; n++) {
    graphs[n] = build_network(context, n, 1);
    programs[n] = compile(context, graphs[n]);
    read_mappings();
    check_answer(programs[n], graphs[n], programs[n]->symbolic ? 20 : 1, 1);
  }
  mappings after = read_mappings();
  if (sfi_backend_of(&context->target)) ck_assert_int_gt(after.executable, before.executable);
  for (int n = 0; n < NETWORKS; n++) {
    sf_program_release(programs[n]);
    sf_graph_release(graphs[n]);
  }
  sf_context_release(context);
}
END_TEST

/* The child runs what the parent compiled, and compiles for itself. The parent has run with all its threads before. */
START_TEST(child_of_fork) {
  sf_context *context = plain_context(2);
  sf_graph *graph = build_network(context, 4, 1), *other = build_network(context, 0, 1);
  sf_program *program = compile(context, graph);
  tensors want, got;
  tensors_make(graph, 100, 1, &want);
  tensors_make(graph, 100, 1, &got);
  ck_assert_int_eq(run_tensors(program, &want), SF_OK);
  pid_t child = fork();
  ck_assert_int_ge(child, 0);
  if (child == 0) {
    alarm(60); /* a child that hangs must fail the test */
    bool good = run_tensors(program, &got) == SF_OK && tensors_equal(&want, &got);
    sf_program *own;
    good = good && sf_compile(context, other, NULL, &own, NULL) == SF_OK;
    if (good) sf_program_release(own);
    _exit(good ? 0 : 1);
  }
  int status;
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with %#x", (unsigned)status);
  tensors_free(&want);
  tensors_free(&got);
  sf_program_release(program);
  sf_graph_release(graph);
  sf_graph_release(other);
  sf_context_release(context);
}
END_TEST

START_TEST(churn) {
  /* A mapping lost in each cycle would be 200; a sanitizer's own come and go by tens. */
  enum { CYCLES = 300, SETTLED = 100 };
  const int allowed = sf_sanitized() ? 100 : 10;
  char folder[64];
  make_folder(folder);
  sf_context_options options;
  sf_context *context;
  SF_INIT(&options);
  options.cache_dir = folder;
  options.threads = 1;
  ck_assert_int_eq(sf_context_create(&options, &context), SF_OK);
  mappings settled = {0};
  for (int i = 0; i < CYCLES; i++) {
    if (i == SETTLED) settled = read_mappings();
    sf_graph *graph = build_network(context, i % NETWORKS, 1);
    sf_program *program = compile(context, graph);
    check_answer(program, graph, program->symbolic ? 3 : 1, 1);
    sf_program_release(program);
    sf_graph_release(graph);
  }
  mappings end = read_mappings();
  ck_assert_msg(end.all <= settled.all + allowed, "%d mappings became %d", settled.all, end.all);
  ck_assert_uint_eq(context->jit->table.n, 0);
  sf_context_release(context);
  remove_tree(folder);
}
END_TEST

typedef struct meeting {
  atomic_int here;
  cpu_set_t allowed[2];
} meeting;

static void meet(void *argument, int64_t i) {
  meeting *m = argument;
  sched_getaffinity(0, sizeof m->allowed[i], &m->allowed[i]);
  atomic_fetch_add(&m->here, 1);
  for (int waited = 0; atomic_load(&m->here) < 2 && waited < 10000; waited++) usleep(1000);
}

/* In a process that OpenMP may have bound: do two threads have `wanted` processors between them? */
static int bound_main(int wanted) {
  meeting m = {.here = 0};
  sf_context *context;
  sf_context_options options;
  SF_INIT(&options);
  options.threads = 2;
  if (sf_context_create(&options, &context) != SF_OK) return 1;
  sfi_spread(context, 2, meet, &m);
  sf_context_release(context);
  CPU_OR(&m.allowed[0], &m.allowed[0], &m.allowed[1]);
  return m.here != 2 || CPU_COUNT(&m.allowed[0]) != wanted;
}

START_TEST(threads_leave_a_bound_thread) {
  cpu_set_t all;
  char wanted[16];
  int status;
  ck_assert_int_eq(sched_getaffinity(0, sizeof all, &all), 0);
  snprintf(wanted, sizeof wanted, "%d", CPU_COUNT(&all));
  const pid_t child = fork();
  ck_assert_int_ge(child, 0);
  if (child == 0) {
    setenv("OMP_PROC_BIND", "true", 1);
    execl("/proc/self/exe", "bound", wanted, NULL);
    _exit(127);
  }
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%d", status);
}
END_TEST

int main(int argc, char **argv) {
  if (argc == 2) return bound_main(atoi(argv[1]));
  Suite *suite = suite_create("process");
  TCase *cases = tcase_create("process");
  tcase_set_timeout(cases, 300);
  tcase_add_test(cases, never_writable_and_executable);
  tcase_add_test(cases, child_of_fork);
  tcase_add_test(cases, churn);
  tcase_add_test(cases, threads_leave_a_bound_thread);
  suite_add_tcase(suite, cases);
  return run_suite(suite);
}
