/* See kernel_case.h. A touch of a forbidden page raises a signal, which is caught and told as a failure. */
#include "kernel_case.h"

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* All bits set: a NaN where floats are read, and no index that is harmless. */
enum { POISON = 0xff };

typedef struct guarded {
  unsigned char *map, *pages, *data; /* map: forbidden page, pages, forbidden page */
  size_t map_bytes, page_bytes;
} guarded;

typedef struct running {
  const kernel_case *c;
  const sf_kernel_fn *kernels;
  guarded *memory;
  bool first; /* the run before forbidden pages */
  int32_t launch;
  int64_t tile; /* -1: all */
  char *message;
  size_t size;
} running;

static bool failed(running *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool failed(running *r, const char *format, ...) {
  int n = snprintf(r->message, r->size, "%s: ", r->c->name);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(r->message + n, r->size - (size_t)n, format, arguments);
  va_end(arguments);
  return false;
}

/* ---- memory ------------------------------------------------------------------------------------------------------- */

static size_t round_up(size_t n, size_t to) {
  return (n + to - 1) / to * to;
}

static bool map_buffer(const case_buffer *b, bool before_guard, guarded *out) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  out->page_bytes = round_up((size_t)b->bytes, page);
  out->map_bytes = out->page_bytes + 2 * page;
  out->map = mmap(NULL, out->map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (out->map == MAP_FAILED) {
    out->map = NULL;
    return false;
  }
  out->pages = out->map + page;
  if (out->page_bytes && mprotect(out->pages, out->page_bytes, PROT_READ | PROT_WRITE) != 0) return false;
  memset(out->pages, POISON, out->page_bytes);
  size_t end = b->exact ? (size_t)b->bytes : round_up((size_t)b->bytes, 64);
  out->data = before_guard ? out->pages + out->page_bytes - end : out->pages;
  if (b->role == CASE_GIVEN && b->bytes) memcpy(out->data, b->given, (size_t)b->bytes);
  return true;
}

static bool is_poison(const unsigned char *from, const unsigned char *to) {
  while (from < to)
    if (*from++ != POISON) return false;
  return true;
}

/* ---- running ------------------------------------------------------------------------------------------------------ */

static sigjmp_buf caught;
static void *touched;
static void on_signal(int signal, siginfo_t *info, void *context) {
  (void)context;
  touched = info->si_addr;
  siglongjmp(caught, signal);
}

static bool run_launches(running *r) {
  for (r->launch = 0; r->launch < r->c->n_launches; r->launch++) {
    const case_launch *l = &r->c->launches[r->launch];
    void *operand[CASE_OPERANDS];
    for (int32_t i = 0; i < l->n_operands; i++) operand[i] = r->memory[l->operand[i]].data;
    if (l->kernel == CASE_COPY) {
      memcpy(operand[0], operand[1], (size_t)r->c->buffers[l->operand[0]].bytes);
      continue;
    }
    const sf_kernel_args args = {operand, r->c->symbol};
    for (r->tile = l->tiles - 1; r->first && r->tile >= 0; r->tile--) r->kernels[l->kernel](&args, r->tile, r->tile + 1);
    r->tile = -1;
    if (!r->first) r->kernels[l->kernel](&args, 0, l->tiles);
  }
  return true;
}

/* Which buffer's surroundings the kernel touched. */
static bool failed_touch(running *r, int signal) {
  for (int32_t b = 0; b < r->c->n_buffers; b++) {
    const guarded *g = &r->memory[b];
    const unsigned char *at = touched;
    if (at < g->map || at >= g->map + g->map_bytes) continue;
    return failed(r, "launch %d, tile %lld touches byte %lld of buffer %d, which has %llu", r->launch, (long long)r->tile,
                  (long long)(at - g->data), b, (unsigned long long)r->c->buffers[b].bytes);
  }
  return failed(r, "launch %d, tile %lld: signal %d at %p", r->launch, (long long)r->tile, signal, touched);
}

static bool run_caught(running *r) {
  struct sigaction action = {.sa_flags = SA_SIGINFO | SA_NODEFER}, before[3];
  static const int signals[3] = {SIGSEGV, SIGBUS, SIGILL};
  action.sa_sigaction = on_signal;
  for (int i = 0; i < 3; i++) sigaction(signals[i], &action, &before[i]);
  int signal = sigsetjmp(caught, 1);
  bool good = signal ? failed_touch(r, signal) : run_launches(r);
  for (int i = 0; i < 3; i++) sigaction(signals[i], &before[i], NULL);
  return good;
}

/* ---- checking ----------------------------------------------------------------------------------------------------- */

static bool close_enough(double got, double want, double allowed) {
  if (allowed == INFINITY) return true;
  if (!isfinite(want) || !isfinite(got)) return isnan(want) ? isnan(got) : got == want;
  return fabs(got - want) <= allowed;
}

static bool check_buffer(running *r, int32_t b) {
  const case_buffer *buffer = &r->c->buffers[b];
  const guarded *g = &r->memory[b];
  const unsigned char *end = g->data + buffer->bytes;
  if (!is_poison(g->pages, g->data) || !is_poison(end, g->pages + g->page_bytes))
    return failed(r, "buffer %d is written outside its %llu bytes", b, (unsigned long long)buffer->bytes);
  if (buffer->role == CASE_GIVEN && buffer->bytes && memcmp(g->data, buffer->given, (size_t)buffer->bytes) != 0)
    return failed(r, "buffer %d, an input, has changed", b);
  if (buffer->role != CASE_RESULT) return true;
  for (uint64_t i = 0; i < buffer->bytes / sizeof(float); i++) {
    float got;
    memcpy(&got, g->data + i * sizeof got, sizeof got);
    if (close_enough((double)got, buffer->want[i], buffer->allowed[i])) continue;
    return failed(r, "buffer %d, element %llu is %.9g, not %.9g (allowed %.3g)", b, (unsigned long long)i, (double)got,
                  buffer->want[i], buffer->allowed[i]);
  }
  return true;
}

/* Results of the first run, to compare the second's with; NULL before. */
static bool compare_runs(running *r, unsigned char **results) {
  for (int32_t b = 0; b < r->c->n_buffers; b++) {
    size_t bytes = (size_t)r->c->buffers[b].bytes;
    if (r->c->buffers[b].role != CASE_RESULT || bytes == 0) continue;
    if (r->first) {
      results[b] = malloc(bytes);
      if (!results[b]) return failed(r, "out of memory");
      memcpy(results[b], r->memory[b].data, bytes);
    } else if (memcmp(results[b], r->memory[b].data, bytes) != 0) {
      return failed(r, "buffer %d differs between one call and a call for each tile", b);
    }
  }
  return true;
}

static bool run_placed(running *r, unsigned char **results) {
  bool good = true;
  for (int32_t b = 0; b < r->c->n_buffers && good; b++)
    if (!map_buffer(&r->c->buffers[b], r->first, &r->memory[b])) good = failed(r, "out of memory");
  good = good && run_caught(r);
  for (int32_t b = 0; b < r->c->n_buffers && good; b++) good = check_buffer(r, b);
  good = good && compare_runs(r, results);
  for (int32_t b = 0; b < r->c->n_buffers; b++)
    if (r->memory[b].map) munmap(r->memory[b].map, r->memory[b].map_bytes);
  return good;
}

bool kernel_case_run(const kernel_case *c, const sf_kernel_fn *kernels, char *message, size_t size) {
  guarded *memory = calloc(2 * (size_t)c->n_buffers + 1, sizeof *memory); /* of both runs */
  unsigned char **results = calloc((size_t)c->n_buffers + 1, sizeof *results);
  running r = {.c = c, .kernels = kernels, .memory = memory, .first = true, .message = message, .size = size};
  bool good = memory && results ? run_placed(&r, results) : failed(&r, "out of memory");
  r.memory = memory + c->n_buffers;
  r.first = false;
  good = good && run_placed(&r, results);
  for (int32_t b = 0; results && b < c->n_buffers; b++) free(results[b]);
  free(results);
  free(memory);
  return good;
}

/* ---- files -------------------------------------------------------------------------------------------------------- */

/* Files are read where they are written, on machines of equal layout: the structs go as they are, what they point to behind them. */

static size_t doubles_of(const case_buffer *b) {
  return b->role == CASE_RESULT ? (size_t)b->bytes / sizeof(float) : 0;
}

bool kernel_case_write(const kernel_case *c, FILE *file) {
  bool good = fwrite(c, sizeof *c, 1, file) == 1;
  good = good && fwrite(c->buffers, sizeof *c->buffers, (size_t)c->n_buffers, file) == (size_t)c->n_buffers;
  good = good && fwrite(c->launches, sizeof *c->launches, (size_t)c->n_launches, file) == (size_t)c->n_launches;
  for (int32_t b = 0; b < c->n_buffers && good; b++) {
    const case_buffer *buffer = &c->buffers[b];
    size_t given = buffer->role == CASE_GIVEN ? (size_t)buffer->bytes : 0, n = doubles_of(buffer);
    good = (!given || fwrite(buffer->given, 1, given, file) == given) && fwrite(buffer->want, sizeof(double), n, file) == n &&
           fwrite(buffer->allowed, sizeof(double), n, file) == n;
  }
  return good;
}

static void *read_array(FILE *file, size_t n, size_t size, bool *good) {
  void *data = calloc(n + 1, size);
  if (!data || fread(data, size, n, file) != n) *good = false;
  return data;
}

bool kernel_case_read(FILE *file, kernel_case *out) {
  bool good = true;
  if (fread(out, sizeof *out, 1, file) != 1) return false;
  out->buffers = read_array(file, (size_t)out->n_buffers, sizeof *out->buffers, &good);
  out->launches = read_array(file, (size_t)out->n_launches, sizeof *out->launches, &good);
  for (int32_t b = 0; b < out->n_buffers && good; b++) {
    case_buffer *buffer = &out->buffers[b];
    buffer->given = read_array(file, buffer->role == CASE_GIVEN ? (size_t)buffer->bytes : 0, 1, &good);
    buffer->want = read_array(file, doubles_of(buffer), sizeof(double), &good);
    buffer->allowed = read_array(file, doubles_of(buffer), sizeof(double), &good);
  }
  if (!good) kernel_case_free(out);
  return good;
}

void kernel_case_free(kernel_case *c) {
  for (int32_t b = 0; c->buffers && b < c->n_buffers; b++) {
    free((void *)c->buffers[b].given);
    free((void *)c->buffers[b].want);
    free((void *)c->buffers[b].allowed);
  }
  free(c->buffers);
  free(c->launches);
  *c = (kernel_case){0};
}
