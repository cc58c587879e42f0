/* The context: options read and checked, the cache opened, everything taken down when the last handle that needs it is released. */
#include "jit.h"

#include <sched.h>
#include <unistd.h>

enum { THREADS_MAX = 1024 };
static const uint64_t default_cache_bytes = UINT64_C(1) << 30;

/* Cores that this process may use. */
static int32_t allowed_cores(void) {
  cpu_set_t set;
  long cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : sysconf(_SC_NPROCESSORS_ONLN);
  return (int32_t)(cores < 1 ? 1 : cores > THREADS_MAX ? THREADS_MAX : cores);
}

static sf_status create_jit(sf_context *context, const sf_context_options *options, sfi_diag *diag) {
  struct sfi_jit *jit = sfi_calloc(&context->allocator, 1, sizeof *jit);
  if (!jit) return sfi_fail_memory(diag);
  char directory[4096];
  const char *where = options->cache_dir;
  if (!where) {
    if (!sfi_cache_default_directory(directory, sizeof directory)) {
      sfi_log(context, SF_LOG_WARNING, "neither XDG_CACHE_HOME nor HOME is set: kernels stay in memory only");
    }
    where = directory; /* empty where there is none */
  }
  sf_status status =
      sfi_cache_create(context, where, options->cache_max_bytes ? options->cache_max_bytes : default_cache_bytes, &jit->cache);
  if (status == SF_OK && pthread_mutex_init(&jit->lock, NULL) != 0) {
    sfi_cache_destroy(jit->cache);
    status = SF_STATUS_OUT_OF_MEMORY;
  }
  if (status != SF_OK) {
    sfi_free(&context->allocator, jit, sizeof *jit);
    return sfi_fail(diag, status, NULL, NULL, "the kernel cache cannot be set up");
  }
  jit->process = getpid();
  context->jit = jit;
  return SF_OK;
}

static sf_status check_options(const sf_context_options *options, sfi_diag *diag, const sfi_target **out_target) {
  const sf_allocator *a = options->allocator;
  if (a && (!a->allocate || !a->release)) {
    return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "the allocator lacks a function");
  }
  if (options->threads < 0 || options->threads > THREADS_MAX) {
    return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "threads %d: must be 0 to %d", options->threads, THREADS_MAX);
  }
  if (!sfi_tune_is_known(options->tune)) {
    return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "tune %d is unknown", (int)options->tune);
  }
  sf_isa isa = options->isa;
  const sfi_target *target = sfi_target_of(isa == SF_ISA_NATIVE ? sfi_target_native() : isa);
  if (!target) return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "isa %d is unknown", (int)isa);
  if (!sfi_target_runs(target->isa)) {
    return sfi_fail(diag, SF_STATUS_UNSUPPORTED, NULL, NULL, "this machine lacks %s", target->name);
  }
  if (!sfi_backend_of(target)) {
    if (isa != SF_ISA_NATIVE && isa != SF_ISA_REFERENCE) {
      return sfi_fail(diag, SF_STATUS_UNSUPPORTED, NULL, NULL, "this build makes no code for %s: it was built without LLVM",
                      target->name);
    }
    target = sfi_target_of(SF_ISA_REFERENCE);
  }
  *out_target = target;
  return SF_OK;
}

static sf_status create(const sf_context_options *options, sfi_diag *diag, sf_context **out_context) {
  const sfi_target *target = NULL;
  sf_status status = check_options(options, diag, &target);
  if (status != SF_OK) return status;
  const sf_allocator *allocator = options->allocator ? options->allocator : &sfi_default_allocator;
  sf_context *context = sfi_calloc(allocator, 1, sizeof *context);
  if (!context) return sfi_fail_memory(diag);
  atomic_init(&context->references, 1);
  context->allocator = *allocator;
  context->log = options->log;
  context->log_user = options->log_user;
  context->log_level = options->log_level ? options->log_level : SF_LOG_WARNING;
  context->parallel_for = options->parallel_for;
  context->parallel_for_user = options->parallel_for_user;
  context->threads = options->threads ? options->threads : allowed_cores();
  context->tune = options->tune;
  context->target = *target;
  if (pthread_mutex_init(&context->error_lock, NULL) != 0) {
    status = sfi_fail_memory(diag);
  } else if ((status = create_jit(context, options, diag)) != SF_OK) {
    pthread_mutex_destroy(&context->error_lock);
  }
  if (status == SF_OK && options->calibrate) sfi_calibrate(context);
  /* Even where two threads only break even: what one of them would read alone mostly lies with both. What the host's own threads cost is not
   * known. */
  context->worth_spreading_us = options->parallel_for ? 20 : context->target.spread_us;
  if (status != SF_OK) {
    sfi_free(allocator, context, sizeof *context);
    return status;
  }
  *out_context = context;
  return SF_OK;
}

sf_status sf_context_create(const sf_context_options *options, sf_context **out_context) {
  if (!out_context) return SF_STATUS_INVALID_ARGUMENT;
  *out_context = NULL;
  sfi_diag diag = {0};
  sf_context_options read;
  if (!sfi_options_read(&read, sizeof read, options)) {
    return SF_STATUS_INVALID_ARGUMENT; /* nothing in it can be trusted, its log neither */
  }
  sf_status status = create(&read, &diag, out_context);
  /* There is no context to keep the message: the log is its only way out. */
  if (status != SF_OK && read.log) read.log(read.log_user, SF_LOG_ERROR, diag.error.message);
  return status;
}

void sfi_context_retain(sf_context *context) {
  atomic_fetch_add_explicit(&context->references, 1, memory_order_relaxed);
}

void sf_context_release(sf_context *context) {
  if (!context || atomic_fetch_sub_explicit(&context->references, 1, memory_order_acq_rel) != 1) return;
  sf_allocator allocator = context->allocator;
  sfi_shared_deinit(context);
  sfi_cache_destroy(context->jit->cache);
  pthread_mutex_destroy(&context->jit->lock);
  sfi_free(&allocator, context->jit, sizeof *context->jit);
  pthread_mutex_destroy(&context->error_lock);
  sfi_free(&allocator, context, sizeof *context);
}

sf_status sf_context_take_error(sf_context *context, sf_error *out_error) {
  if (out_error) *out_error = (sf_error){0};
  if (!context) return SF_STATUS_INVALID_ARGUMENT;
  pthread_mutex_lock(&context->error_lock);
  sf_error error = context->error;
  context->error = (sf_error){0};
  pthread_mutex_unlock(&context->error_lock);
  if (out_error) *out_error = error;
  return error.status;
}
