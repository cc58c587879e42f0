/* Measuring: all engines of a problem in one process, turn by turn, on the same X, checked against sums in fp64 before and after. */
#include "bench.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

double bench_now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

/* ---- what Y must be ----------------------------------------------------------------------------------------------- */

/* X of a convolution as X[cols][columns]. */
static void unfold(const bench_problem *p, const float *x, float *out) {
  const bench_conv *c = &p->conv;
  const int64_t taps = c->kernel[0] * c->kernel[1], pixels = c->out_height * c->out_width;
  for (int64_t k = 0; k < p->cols; k++) {
    const int64_t channel = k / taps, kh = k % taps / c->kernel[1], kw = k % c->kernel[1];
    for (int64_t j = 0; j < p->columns; j++) {
      const int64_t h = j % pixels / c->out_width * c->stride + kh - c->pad, w = j % c->out_width * c->stride + kw - c->pad;
      const bool inside = h >= 0 && h < c->height && w >= 0 && w < c->width;
      out[k * p->columns + j] = inside ? x[((j / pixels * c->channels + channel) * c->height + h) * c->width + w] : 0;
    }
  }
}

static void refer(const bench_problem *p, const float *x, bench_data *data) {
  const int64_t n = p->columns;
#if defined(_OPENMP)
#pragma omp parallel for schedule(dynamic)
#endif
  for (int64_t r = 0; r < p->rows; r++) {
    double *y = data->reference + r * n, norm = 0;
    memset(y, 0, (size_t)n * sizeof *y);
    for (int64_t k = 0; k < p->cols; k++) {
      const double w = (double)p->w[r * p->cols + k];
      if (w == 0) continue;
      norm += w * w;
      const float *row = x + k * n;
      for (int64_t j = 0; j < n; j++) y[j] += w * (double)row[j];
    }
    data->norm[r] = sqrt(norm);
  }
}

sf_status bench_data_make(const bench_problem *p, uint64_t seed, bench_data *out, sf_error *error) {
  const bench_conv *c = &p->conv;
  const int64_t inputs = c->batch ? c->batch * c->channels * c->height * c->width : p->cols * p->columns;
  *out = (bench_data){0};
  out->x = aligned_alloc(64, (size_t)(inputs * 4 + 127) / 64 * 64);
  out->y = aligned_alloc(64, (size_t)(p->rows * p->columns * 4 + 127) / 64 * 64);
  out->reference = malloc((size_t)(p->rows * p->columns + 1) * sizeof *out->reference);
  out->norm = malloc((size_t)p->rows * sizeof *out->norm);
  float *rows = c->batch || p->layout == BENCH_TOKENS ? malloc((size_t)(p->cols * p->columns + 1) * sizeof *rows) : out->x;
  sf_status status = SF_OK;
  if (!out->x || !out->y || !out->reference || !out->norm || !rows) {
    status = tool_fail(error, SF_STATUS_OUT_OF_MEMORY, NULL, 0, 0, "no memory for %lld columns", (long long)p->columns);
  } else {
    bench_normal(seed, out->x, inputs);
    if (c->batch) {
      unfold(p, out->x, rows);
    } else if (rows != out->x) {
      for (int64_t k = 0; k < p->cols; k++)
        for (int64_t j = 0; j < p->columns; j++) rows[k * p->columns + j] = out->x[j * p->cols + k];
    }
    refer(p, rows, out);
  }
  if (rows != out->x) free(rows);
  if (status != SF_OK) bench_data_free(out);
  return status;
}

void bench_data_free(bench_data *data) {
  free(data->x);
  free(data->y);
  free(data->reference);
  free(data->norm);
  *data = (bench_data){0};
}

double bench_error(const bench_problem *p, const bench_data *data, const bench_engine *engine) {
  const bench_peer *peer = engine->peer;
  const bool panel = p->layout == BENCH_PANEL;
  const int64_t pixels = p->conv.batch ? p->conv.out_height * p->conv.out_width : p->columns;
  double worst = 0;
  for (int64_t i = 0; i < p->rows * p->columns; i++) data->y[i] = NAN;
  if (panel && peer->load) peer->load(engine->state, data->x);
  peer->run(engine->state, data->x, data->y);
  if (panel && peer->store) peer->store(engine->state, data->y);
  for (int64_t r = 0; r < p->rows; r++) {
    for (int64_t j = 0; j < p->columns; j++) {
      const int64_t at = p->layout == BENCH_TOKENS ? j * p->rows + r : (j / pixels * p->rows + r) * pixels + j % pixels;
      const double difference = fabs((double)data->y[at] - data->reference[r * p->columns + j]);
      const double error = difference == 0 ? 0 : difference / data->norm[r];
      if (!(error <= worst)) worst = isnan(error) ? INFINITY : error;
    }
  }
  return worst;
}

/* ---- time --------------------------------------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

void bench_statistics(double *samples, int32_t n, double *out_median, double *out_spread) {
  qsort(samples, (size_t)n, sizeof *samples, ascending);
  *out_median = (samples[(n - 1) / 2] + samples[n / 2]) / 2;
  *out_spread = (samples[(n - 1) * 9 / 10] - samples[(n - 1) / 10]) / *out_median;
}

/* A sample is long enough for the clock; a short problem runs untimed before it, since the other engines have been at the caches meanwhile and
 * a long one does that for itself. More than once: what comes from memory stays in the last cache only when it comes again. */
enum { SAMPLE_US = 200, SHORT_US = 5000, UNTIMED = 3 };

static double sample(const bench_data *data, const bench_engine *e, double estimate_us) {
  const int repeats = estimate_us >= SAMPLE_US ? 1 : (int)(SAMPLE_US / (estimate_us + 0.1)) + 1;
  for (int i = 0; i < UNTIMED && estimate_us < SHORT_US; i++) e->peer->run(e->state, data->x, data->y);
  const double begin = bench_now_us();
  for (int i = 0; i < repeats; i++) e->peer->run(e->state, data->x, data->y);
  return (bench_now_us() - begin) / repeats;
}

static void check(const bench_problem *p, const bench_data *data, bench_engine *engines, int32_t n) {
  for (int32_t e = 0; e < n; e++) {
    if (!engines[e].peer) continue;
    const double error = bench_error(p, data, &engines[e]);
    if (error > engines[e].max_error) engines[e].max_error = error;
  }
}

sf_status bench_measure(const bench_problem *p, const bench_data *data, bench_engine *engines, int32_t n, int32_t rounds,
                        sf_error *error) {
  enum { WARM_UP = 3 };
  double *samples = malloc((size_t)(n * rounds) * sizeof *samples), *estimate = malloc((size_t)n * sizeof *estimate);
  if (!samples || !estimate) {
    free(samples);
    free(estimate);
    return tool_fail(error, SF_STATUS_OUT_OF_MEMORY, NULL, 0, 0, "no memory for %d rounds", (int)rounds);
  }
  for (int32_t e = 0; e < n; e++) estimate[e] = SHORT_US; /* the first sample is one run */
  check(p, data, engines, n);
  for (int32_t i = -WARM_UP; i < rounds; i++) {
    for (int32_t e = 0; e < n; e++) {
      if (!engines[e].peer) continue;
      const double us = sample(data, &engines[e], estimate[e]);
      if (i < 0)
        estimate[e] = us;
      else
        samples[e * rounds + i] = us;
    }
  }
  for (int32_t e = 0; e < n; e++)
    if (engines[e].peer) bench_statistics(samples + e * rounds, rounds, &engines[e].median_us, &engines[e].spread);
  check(p, data, engines, n);
  free(samples);
  free(estimate);
  return SF_OK;
}
