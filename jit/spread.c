/* Independent jobs of a compile on several threads: the host's, or some of ours that end with the call. Not OpenMP's, whose threads
 * would stay and make a later fork() of the host unsafe, and whose stacks are too small for some compilers. */
#include "jit.h"

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

void sfi_spread(sf_context *context, int64_t count, void (*body)(void *argument, int64_t i), void *argument) {
  if (count > 1 && context->parallel_for) {
    context->parallel_for(context->parallel_for_user, count, body, argument);
    return;
  }
  jobs j = {.count = count, .body = body, .argument = argument};
  pthread_t helpers[HELPERS_MAX];
  int64_t wanted = sfi_min(sfi_min(count, context->threads) - 1, HELPERS_MAX), started = 0;
  while (started < wanted && pthread_create(&helpers[started], NULL, work, &j) == 0) started++;
  work(&j); /* this thread does whatever the others do not */
  while (started > 0) pthread_join(helpers[--started], NULL);
}
