/* Once warm, sf_run allocates nothing: neither through the context's allocator nor, by interposition, through malloc. */
#include "run_fixture.h"

#include <dlfcn.h>
#include <malloc.h>

/* Sanitizers bring an allocator of their own: then only the context's is counted. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define INTERPOSE 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define INTERPOSE 0
#endif
#endif
#ifndef INTERPOSE
#define INTERPOSE 1
#endif

static atomic_long malloc_calls;

#if INTERPOSE
/* glibc's own names of what is interposed. */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t n, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

void *malloc(size_t bytes) {
  atomic_fetch_add(&malloc_calls, 1);
  return __libc_malloc(bytes);
}

void *calloc(size_t n, size_t bytes) {
  atomic_fetch_add(&malloc_calls, 1);
  return __libc_calloc(n, bytes);
}

void *realloc(void *memory, size_t bytes) {
  atomic_fetch_add(&malloc_calls, 1);
  return __libc_realloc(memory, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes) {
  atomic_fetch_add(&malloc_calls, 1);
  return __libc_memalign(alignment, bytes);
}

int posix_memalign(void **out, size_t alignment, size_t bytes) {
  atomic_fetch_add(&malloc_calls, 1);
  *out = __libc_memalign(alignment, bytes);
  return *out ? 0 : 12;
}
#endif

enum { WARM_UP = 3, RUNS = 50 };

/* At one extent, then at extents that fit the arena that is there. */
START_TEST(nothing_once_warm) {
  failing_allocator counter = {0};
  sf_allocator allocator = failing_allocator_of(&counter);
  sf_context_options options;
  sf_context *context;
  SF_INIT(&options);
  options.cache_dir = "";
  options.threads = 2;
  options.allocator = &allocator;
  ck_assert_int_eq(sf_context_create(&options, &context), SF_OK);
  sf_graph *graph = build_network(context, _i, 1);
  sf_program *program = compile(context, graph);
  static const int64_t extents[] = {100, 1, 16, 0, 17};
  tensors t[SFI_COUNT(extents)];
  for (size_t i = 0; i < SFI_COUNT(extents); i++) tensors_make(graph, program->symbolic ? extents[i] : 1, i, &t[i]);
  for (int r = 0; r < WARM_UP; r++) {
    for (size_t i = 0; i < SFI_COUNT(extents); i++) ck_assert_int_eq(run_tensors(program, &t[i]), SF_OK);
  }
  int failures = 0;
  long calls = atomic_load(&counter.calls), mallocs = atomic_load(&malloc_calls);
  for (int r = 0; r < RUNS; r++) {
    for (size_t i = 0; i < SFI_COUNT(extents); i++) failures += run_tensors(program, &t[i]) != SF_OK;
  }
  long more_calls = atomic_load(&counter.calls) - calls, more_mallocs = atomic_load(&malloc_calls) - mallocs;
  ck_assert_int_eq(failures, 0);
  ck_assert_int_eq(more_calls, 0);
  ck_assert_int_eq(more_mallocs, 0);
  for (size_t i = 0; i < SFI_COUNT(extents); i++) tensors_free(&t[i]);
  sf_program_release(program);
  sf_graph_release(graph);
  sf_context_release(context);
  ck_assert_int_eq(atomic_load(&counter.live), 0);
}
END_TEST

/* The interposition counts, or the test above would pass whatever happened. */
START_TEST(counter_counts) {
  long before = atomic_load(&malloc_calls);
  void *volatile memory = malloc(10);
  free(memory);
  ck_assert_int_eq(atomic_load(&malloc_calls) - before, INTERPOSE);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("no_alloc");
  TCase *cases = tcase_create("no_alloc");
  tcase_set_timeout(cases, 120);
  tcase_add_test(cases, counter_counts);
  tcase_add_loop_test(cases, nothing_once_warm, 0, NETWORKS);
  suite_add_tcase(suite, cases);
  return run_suite(suite);
}
