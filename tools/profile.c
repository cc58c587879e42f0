/* Profiled runs and their medians. See profile.h. */
#include "profile.h"

#include <stdlib.h>

bool profile_open(session *s, const char *model, int64_t symbol, int32_t runs, profile *out) {
  const int32_t n = sf_program_kernel_count(s->program, symbol), n_spans = sf_program_span_count(s->program, symbol);
  *out = (profile){.model = model, .symbol = symbol, .n_kernels = n, .n_spans = n_spans, .runs = runs};
  SF_INIT(&out->machine);
  out->kernels = calloc((size_t)n + 1, sizeof *out->kernels);
  out->run = calloc((size_t)runs, sizeof *out->run);
  out->spans = calloc((size_t)runs * (size_t)n_spans + 1, sizeof *out->spans);
  if (!out->kernels || !out->run || !out->spans) return session_fail(s, "out of memory");
  sf_status status = sf_program_machine(s->program, &out->machine);
  for (int32_t k = 0; k < n && status == SF_OK; k++) {
    SF_INIT(&out->kernels[k].info);
    status = sf_program_kernel_info(s->program, symbol, k, &out->kernels[k].info);
  }
  return status == SF_OK ? true : session_error(s, status);
}

void profile_free(profile *p) {
  free(p->kernels);
  free(p->run);
  free(p->spans);
}

int32_t profile_thread(const profile *p, uint64_t thread) {
  int32_t t = 0;
  while (t < p->n_threads && p->threads[t] != thread) t++;
  return t;
}

bool profile_run(session *s, const session_tensors *t, profile *p, int32_t i) {
  sf_run_profile *run = &p->run[i];
  SF_INIT(run);
  run->spans = p->spans + (size_t)i * (size_t)p->n_spans;
  run->capacity = p->n_spans;
  sf_status status = sf_run_profiled(s->program, t->n_inputs, t->inputs, t->n_outputs, t->outputs, run);
  if (status != SF_OK) return session_error(s, status);
  for (int32_t k = 0; k < run->count; k++) {
    if (profile_thread(p, run->spans[k].thread) < p->n_threads) continue;
    if (p->n_threads == PROFILE_THREADS_MAX) return session_fail(s, "runs on more than %d threads", PROFILE_THREADS_MAX);
    p->threads[p->n_threads++] = run->spans[k].thread;
  }
  return true;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values, int32_t n) {
  qsort(values, (size_t)n, sizeof *values, by_value);
  return values[n / 2];
}

static double run_us(const sf_run_profile *run) {
  return (double)(run->end_ns - run->begin_ns) * 1e-3;
}

bool profile_close(session *s, profile *p) {
  double *wall = malloc((size_t)p->runs * sizeof *wall), *busy = malloc((size_t)p->runs * sizeof *busy);
  bool ok = (wall && busy) || session_fail(s, "out of memory");
  int32_t at = 0; /* first span of the kernel, in every run */
  for (int32_t k = 0; ok && k < p->n_kernels; k++) {
    const int32_t chunks = p->kernels[k].info.chunks;
    for (int32_t i = 0; i < p->runs; i++) {
      const sf_span *span = p->run[i].spans + at;
      int64_t begin = span->begin_ns, end = span->end_ns, sum = 0;
      for (int32_t c = 0; c < chunks; c++) {
        if (span[c].begin_ns < begin) begin = span[c].begin_ns;
        if (span[c].end_ns > end) end = span[c].end_ns;
        sum += span[c].end_ns - span[c].begin_ns;
      }
      wall[i] = (double)(end - begin) * 1e-3;
      busy[i] = (double)sum * 1e-3;
    }
    p->kernels[k].us = median(wall, p->runs);
    p->kernels[k].busy_us = median(busy, p->runs);
    at += chunks;
  }
  if (ok) {
    for (int32_t i = 0; i < p->runs; i++) wall[i] = run_us(&p->run[i]);
    p->run_us = median(wall, p->runs);
    while (run_us(&p->run[p->typical]) != p->run_us) p->typical++;
  }
  free(wall);
  free(busy);
  return ok;
}

double profile_fraction(const profile_kernel *k) {
  return k->us > 0 ? k->info.bound_us / k->us : 0;
}

const char *profile_bound_name(sf_bound bound) {
  static const char *const names[] = {"compute", "L1", "L2", "L3", "memory"};
  return names[bound];
}
