/* An allocator that counts what is live and fails when told: for leak tests and for tests of running out of memory. */
#ifndef FAILING_ALLOCATOR_H
#define FAILING_ALLOCATOR_H

#include <sparseflow/sparseflow.h>

#include <stdatomic.h>
#include <stdlib.h>

typedef struct failing_allocator {
  atomic_long calls;     /* of allocate */
  atomic_long fail_at;   /* the call with this number fails, counted from 1; 0: none does */
  atomic_long fail_from; /* that call and every later one fails; 0: none does */
  atomic_long live, live_bytes;
  atomic_long peak_bytes; /* most of live_bytes since it was last set to 0; exact with one thread */
} failing_allocator;

static void *failing_allocate(void *user, size_t bytes, size_t alignment) {
  failing_allocator *f = user;
  long call = atomic_fetch_add(&f->calls, 1) + 1;
  long fail_at = atomic_load(&f->fail_at), fail_from = atomic_load(&f->fail_from);
  if (call == fail_at || (fail_from && call >= fail_from)) return NULL;
  void *memory = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (!memory) return NULL;
  atomic_fetch_add(&f->live, 1);
  long live_bytes = atomic_fetch_add(&f->live_bytes, (long)bytes) + (long)bytes;
  if (live_bytes > atomic_load(&f->peak_bytes)) atomic_store(&f->peak_bytes, live_bytes);
  return memory;
}

static void failing_release(void *user, void *memory, size_t bytes) {
  failing_allocator *f = user;
  atomic_fetch_sub(&f->live, 1);
  atomic_fetch_sub(&f->live_bytes, (long)bytes);
  free(memory);
}

static inline sf_allocator failing_allocator_of(failing_allocator *f) {
  return (sf_allocator){f, failing_allocate, failing_release};
}

#endif
