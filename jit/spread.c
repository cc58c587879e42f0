/* Independent jobs of a compile on several threads: the host's, or some of ours that end with the call. Not OpenMP's, whose threads
 * would stay and make a later fork() of the host unsafe, and whose stacks are too small for some compilers. */
#include "jit.h"

#if defined(_OPENMP)
#include <omp.h>
#include <sched.h>
#endif

enum { HELPERS_MAX = 63 };

typedef struct jobs {
  atomic_llong next;
  int64_t count;
  void (*body)(void *argument, int64_t i);
  void *argument;
} jobs;

static void *work(void *argument) {
  jobs *j = argument;
  for (int64_t i; (i = atomic_fetch_add(&j->next, 1)) < j->count;) j->body(j->argument, i);
  return NULL;
}

/* Where OpenMP binds threads (OMP_PROC_BIND), it has bound the host's first thread to one place as it was loaded, and what this one starts would
 * inherit that: all would take turns on one core. They start wherever OpenMP's own may be; a thread that moves there only later mostly
 * comes when the work is done. */
static void leave_place(pthread_attr_t *attributes) {
#if defined(_OPENMP)
  cpu_set_t processors;
  int ids[CPU_SETSIZE];
  CPU_ZERO(&processors);
  for (int p = 0; omp_get_proc_bind() != omp_proc_bind_false && p < omp_get_num_places(); p++) {
    const int n = omp_get_place_num_procs(p);
    if (n > CPU_SETSIZE) return;
    omp_get_place_proc_ids(p, ids);
    for (int i = 0; i < n; i++)
      if (ids[i] >= 0 && ids[i] < CPU_SETSIZE) CPU_SET(ids[i], &processors);
  }
  if (CPU_COUNT(&processors)) (void)pthread_attr_setaffinity_np(attributes, sizeof processors, &processors);
#else
  (void)attributes;
#endif
}

void sfi_spread(sf_context *context, int64_t count, void (*body)(void *argument, int64_t i), void *argument) {
  if (count > 1 && context->parallel_for) {
    context->parallel_for(context->parallel_for_user, count, body, argument);
    return;
  }
  jobs j = {.count = count, .body = body, .argument = argument};
  pthread_attr_t attributes;
  pthread_t helpers[HELPERS_MAX];
  int64_t wanted = sfi_min(sfi_min(count, context->threads) - 1, HELPERS_MAX), started = 0;
  if (wanted > 0 && pthread_attr_init(&attributes) == 0) {
    leave_place(&attributes);
    /* The places may be forbidden since they were told. */
    while (started < wanted && (pthread_create(&helpers[started], &attributes, work, &j) == 0 ||
                                pthread_create(&helpers[started], NULL, work, &j) == 0))
      started++;
    pthread_attr_destroy(&attributes);
  }
  work(&j); /* this thread does whatever the others do not */
  while (started > 0) pthread_join(helpers[--started], NULL);
}
