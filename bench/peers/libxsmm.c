/* LIBXSMM: code with the pattern of W baked in (fsspmdm, a fixed sparse matrix times a dense one). It wants columns in multiples of 16;
 * each thread has its share of them, with code of its own. */
#include "peer.h"

#include <libxsmm.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(_OPENMP)
#include <omp.h>
#endif

enum { VECTOR = 16 };

typedef struct state {
  bench_problem p;
  int pieces;
  int64_t *first; /* pieces + 1: columns */
  libxsmm_sfsspmdm **code;
} state;

static void describe(char *text, size_t size) {
  libxsmm_init();
  snprintf(text, size, "sparse; LIBXSMM %s; sfsspmdm, target %s", LIBXSMM_VERSION, libxsmm_get_target_arch());
}

static void destroy(void *opaque) {
  state *s = opaque;
  for (int i = 0; s->code && i < s->pieces; i++)
    if (s->code[i]) libxsmm_sfsspmdm_destroy(s->code[i]);
  free(s->code);
  free(s->first);
  free(s);
}

static void *create(const bench_problem *p, const char **out_layout, char why[BENCH_WHY]) {
  if (p->conv.batch || p->layout == BENCH_TOKENS || p->columns % VECTOR) {
    snprintf(why, BENCH_WHY, "products on rows only, columns in multiples of 16");
    return NULL;
  }
  state *s = calloc(1, sizeof *s);
  if (!s) return NULL;
  libxsmm_init();
  const int64_t vectors = p->columns / VECTOR;
  s->p = *p;
  s->pieces = vectors < p->threads ? (int)vectors : p->threads;
  s->first = calloc((size_t)s->pieces + 1, sizeof *s->first);
  s->code = calloc((size_t)s->pieces, sizeof(libxsmm_sfsspmdm *));
  bool made = s->first && s->code;
  for (int i = 0; made && i < s->pieces; i++) {
    s->first[i + 1] = vectors * (i + 1) / s->pieces * VECTOR;
    s->code[i] = libxsmm_sfsspmdm_create((int)p->rows, (int)(s->first[i + 1] - s->first[i]), (int)p->cols, (int)p->cols,
                                         (int)p->columns, (int)p->columns, 1, 0, 0, p->w);
    made = s->code[i] != NULL;
  }
  if (made) {
    *out_layout = "row";
    return s;
  }
  snprintf(why, BENCH_WHY, "no code for this matrix");
  destroy(s);
  return NULL;
}

static void run(void *opaque, const float *x, float *y) {
  const state *s = opaque;
#if defined(_OPENMP)
#pragma omp parallel for num_threads(s->pieces) schedule(static, 1) if (s->pieces > 1)
#endif
  for (int i = 0; i < s->pieces; i++) libxsmm_sfsspmdm_execute(s->code[i], x + s->first[i], y + s->first[i]);
}

static const bench_peer libxsmm = {"libxsmm", false, describe, create, run, NULL, NULL, destroy};
static const bench_peer *const peers[] = {&libxsmm, NULL};
const bench_peers sf_bench_peers = {BENCH_PEER_ABI, peers};
