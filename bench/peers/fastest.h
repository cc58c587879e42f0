/* A library that offers several ways to the same product takes the fastest of them for a problem, found once when it is made. */
#ifndef BENCH_FASTEST_H
#define BENCH_FASTEST_H

#include "peer.h"

#include <stdlib.h>
#include <time.h>

typedef void (*bench_way)(void *state, const float *x, float *y);

static inline double bench_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Index of the way with the least of several times; NULL entries are not there; -1: none, or out of memory. */
static inline int bench_fastest(void *state, const bench_way *ways, int n, int64_t x_elements, int64_t y_elements) {
  int best = -1, there = 0;
  double least = 1e30;
  for (int i = 0; i < n; i++)
    if (ways[i]) there++, best = i;
  if (there < 2) return best;
  float *x = aligned_alloc(64, ((size_t)x_elements * 4 + 127) / 64 * 64);
  float *y = aligned_alloc(64, ((size_t)y_elements * 4 + 127) / 64 * 64);
  for (int64_t i = 0; x && i < x_elements; i++) x[i] = (float)(i % 7) - 3;
  for (int i = 0; i < n && x && y; i++) {
    if (!ways[i]) continue;
    const double end = bench_seconds() + 0.1;
    for (int r = 0; r < 3 || (r < 200 && bench_seconds() < end); r++) {
      const double begin = bench_seconds();
      ways[i](state, x, y);
      const double took = bench_seconds() - begin;
      if (took < least) {
        least = took;
        best = i;
      }
    }
  }
  if (!x || !y) best = -1;
  free(x);
  free(y);
  return best;
}

#endif
