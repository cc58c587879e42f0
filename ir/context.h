/* What every stage may ask of the host: memory, log, parallel loops. The rest of the context (cache, compiler) is jit's. */
#ifndef SFI_CONTEXT_H
#define SFI_CONTEXT_H

#include "base.h"
#include "target.h"

#include <pthread.h>
#include <stdatomic.h>

struct sf_context {
  atomic_int references;
  sf_allocator allocator;
  sf_log_fn log;
  void *log_user;
  sf_log_level log_level;
  sf_parallel_for_fn parallel_for; /* NULL: the library's own */
  void *parallel_for_user;
  int32_t threads; /* >= 1 */
  /* A kernel whose predicted time on one thread is below this runs on one: joining threads costs microseconds when they are awake,
   * and a time slice where they compete with others. */
  double worth_spreading_us;
  sfi_target target; /* what compiled code may use */
  sf_tune tune;      /* where a compile does not say; DEFAULT: off */
  pthread_mutex_t error_lock;
  sf_error error;      /* first since sf_context_take_error */
  struct sfi_jit *jit; /* jit/: kernel cache, code loader */
};

void sfi_context_retain(sf_context *context);
void sfi_log(sf_context *context, sf_log_level level, const char *format, ...) SFI_PRINTF(3, 4);
/* Keeps `error` where none is kept. */
void sfi_context_keep_error(sf_context *context, const sf_error *error);

#endif
