/* OpenBLAS: sgemm, and sgemv for one column. sf-bench tells it the core type before it is loaded, and the number of threads. */
#include "peer.h"

#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>

static void describe(char *text, size_t size) {
  snprintf(text, size, "dense; %s; core %s; sgemm, sgemv for one column", openblas_get_config(), openblas_get_corename());
}

static void *create(const bench_problem *problem, const char **out_layout, char why[BENCH_WHY]) {
  if (problem->conv.batch) {
    snprintf(why, BENCH_WHY, "no convolutions");
    return NULL;
  }
  bench_problem *p = malloc(sizeof *p);
  if (!p) return NULL;
  *p = *problem;
  openblas_set_num_threads(p->threads);
  *out_layout = p->layout == BENCH_TOKENS ? "tokens" : "row";
  return p;
}

static void run(void *state, const float *x, float *y) {
  const bench_problem *p = state;
  const int m = (int)p->rows, n = (int)p->columns, k = (int)p->cols;
  if (n == 1)
    cblas_sgemv(CblasRowMajor, CblasNoTrans, m, k, 1, p->w, k, x, 1, 0, y, 1);
  else if (p->layout == BENCH_TOKENS)
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, m, k, 1, x, k, p->w, k, 0, y, m);
  else
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, n, k, 1, p->w, k, x, n, 0, y, n);
}

static const bench_peer openblas = {"openblas", true, describe, create, run, NULL, NULL, free};
static const bench_peer *const peers[] = {&openblas, NULL};
const bench_peers sf_bench_peers = {BENCH_PEER_ABI, peers};
