/* LIBXSMM: code with the pattern of W baked in, values read from memory. Its kernels for CSR take dense operands whose innermost
 * dimension is one vector: [row][block of columns][16 columns]; a row-major X is just that, with all of its columns as blocks. So
 * columns come in multiples of 16, and kernels over 16 to 128 columns run along them.
 *
 * Version 1.17 generates into 128 KB on the stack and runs over its end where that is too small, so W is cut into pieces of rows, a
 * kernel each; and it writes no rows without nonzeros, which are cleared here. The fastest of four widths is taken, and of two
 * orders: all columns by one piece before the next, or all pieces for some columns before the next. */
#include "fastest.h"
#include "peer.h"

#include <libxsmm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(_OPENMP)
#include <omp.h>
#endif

enum { VECTOR = 16, WIDTHS = 4, WAYS = 2 * WIDTHS, CODE_MAX = 120000 };

/* Kernels of one width: rows [first, next's first) each. */
typedef struct kernels {
  int64_t n;
  int64_t *first;
  libxsmm_smmfunction *code;
} kernels;

typedef struct state {
  bench_problem p;
  unsigned int *begin, *column;
  float *value;
  kernels width[WIDTHS]; /* VECTOR << i columns */
  int way;
} state;

static void describe(char *text, size_t size) {
  libxsmm_init();
  snprintf(text, size, "sparse; LIBXSMM %s; xcsr_soa over 16 to 128 columns, the fastest; target %s", LIBXSMM_VERSION,
           libxsmm_get_target_arch());
}

static void destroy(void *opaque) {
  state *s = opaque;
  for (int i = 0; i < WIDTHS; i++) {
    for (int64_t k = 0; s->width[i].code && k < s->width[i].n; k++) libxsmm_release_kernel((const void *)s->width[i].code[k]);
    free(s->width[i].code);
    free(s->width[i].first);
  }
  free(s->begin);
  free(s->column);
  free(s->value);
  free(s);
}

static void run_one(const state *s, const kernels *k, int64_t i, const float *x, float *y) {
  const int64_t row = k->first[i];
  k->code[i](s->value + s->begin[row], x, y + row * s->p.columns);
}

static void run_way(const state *s, int way, const float *x, float *y) {
  const int64_t width = (int64_t)VECTOR << way % WIDTHS, columns = s->p.columns;
  const kernels *k = &s->width[way % WIDTHS];
  for (int64_t r = 0; r < s->p.rows; r++)
    if (s->begin[r] == s->begin[r + 1]) memset(y + r * columns, 0, (size_t)columns * sizeof *y);
#if defined(_OPENMP)
#pragma omp parallel num_threads(s->p.threads) if (s -> p.threads > 1)
#endif
  if (way < WIDTHS) {
#if defined(_OPENMP)
#pragma omp for schedule(static)
#endif
    for (int64_t j = 0; j < columns; j += width)
      for (int64_t i = 0; i < k->n; i++) run_one(s, k, i, x + j, y + j);
  } else {
    for (int64_t i = 0; i < k->n; i++) {
#if defined(_OPENMP)
#pragma omp for schedule(static) nowait
#endif
      for (int64_t j = 0; j < columns; j += width) run_one(s, k, i, x + j, y + j);
    }
  }
}

#define WAY(i)                                                                                                                     \
  static void run##i(void *s, const float *x, float *y) {                                                                          \
    run_way(s, i, x, y);                                                                                                           \
  }
WAY(0)
WAY(1)
WAY(2)
WAY(3)
WAY(4)
WAY(5)
WAY(6)
WAY(7)
static const bench_way runs[WAYS] = {run0, run1, run2, run3, run4, run5, run6, run7};

static bool fill(state *s) {
  const bench_problem *p = &s->p;
  s->begin = malloc((size_t)(p->rows + 1) * sizeof *s->begin);
  s->column = malloc((size_t)(p->nnz + 1) * sizeof *s->column);
  s->value = malloc((size_t)(p->nnz + 1) * sizeof *s->value);
  if (!s->begin || !s->column || !s->value) return false;
  unsigned int n = 0;
  for (int64_t r = 0; r < p->rows; r++) {
    s->begin[r] = n;
    for (int64_t k = 0; k < p->cols; k++) {
      if (p->w[r * p->cols + k] == 0) continue;
      s->column[n] = (unsigned int)k;
      s->value[n++] = p->w[r * p->cols + k];
    }
  }
  s->begin[p->rows] = n;
  return true;
}

/* Bytes of code of a row, from above. */
static int64_t code_bytes(const state *s, int64_t row, int blocks) {
  return (int64_t)(s->begin[row + 1] - s->begin[row]) * (24 + 11 * blocks) + 24 + 22 * blocks;
}

static libxsmm_smmfunction generate_rows(const state *s, int blocks, int64_t first, int64_t last) {
  libxsmm_descriptor_blob blob;
  const float one = 1, zero = 0;
  const libxsmm_blasint all = (libxsmm_blasint)(s->p.columns / VECTOR);
  unsigned int *begin = malloc((size_t)(last - first + 1) * sizeof *begin);
  for (int64_t r = first; begin && r <= last; r++) begin[r - first] = s->begin[r] - s->begin[first];
  const libxsmm_gemm_descriptor *d = libxsmm_gemm_descriptor_init(
      &blob, LIBXSMM_GEMM_PRECISION_F32, (libxsmm_blasint)(last - first), blocks, (libxsmm_blasint)s->p.cols, 0, all, all, &one,
      &zero, LIBXSMM_GEMM_FLAG_NONE, LIBXSMM_GEMM_PREFETCH_NONE);
  const libxsmm_smmfunction code =
      d && begin ? libxsmm_create_xcsr_soa(d, begin, s->column + s->begin[first], s->value + s->begin[first], VECTOR).smm : NULL;
  free(begin);
  return code;
}

static bool generate(const state *s, int blocks, kernels *out) {
  out->first = malloc((size_t)(s->p.rows + 1) * sizeof *out->first);
  out->code = malloc((size_t)s->p.rows * sizeof *out->code);
  if (!out->first || !out->code) return false;
  for (int64_t row = 0, last; row < s->p.rows; row = last) {
    int64_t bytes = 0;
    for (last = row; last < s->p.rows && (last == row || bytes + code_bytes(s, last, blocks) < CODE_MAX); last++)
      bytes += code_bytes(s, last, blocks);
    if (bytes > CODE_MAX) return false; /* one row alone */
    out->first[out->n] = row;
    if (s->begin[row] == s->begin[last]) continue;
    if (!(out->code[out->n] = generate_rows(s, blocks, row, last))) return false;
    out->n++;
  }
  return out->n > 0;
}

static void *create(const bench_problem *p, const char **out_layout, char why[BENCH_WHY]) {
  enum { NONZEROS_MAX = 2000000 }; /* code of up to 100 bytes a nonzero for each width */
  if (p->conv.batch || p->layout == BENCH_TOKENS || p->columns % VECTOR || p->nnz > NONZEROS_MAX) {
    snprintf(why, BENCH_WHY, "products on rows only, columns in multiples of 16, at most %d nonzeros", NONZEROS_MAX);
    return NULL;
  }
  state *s = calloc(1, sizeof *s);
  if (!s) return NULL;
  libxsmm_init();
  s->p = *p;
  bench_way ways[WAYS] = {NULL};
  for (int i = 0; i < WIDTHS && (s->begin || fill(s)); i++) {
    if (p->columns % ((int64_t)VECTOR << i) != 0 || !generate(s, 1 << i, &s->width[i])) continue;
    ways[i] = runs[i];
    if (s->width[i].n > 1) ways[WIDTHS + i] = runs[WIDTHS + i];
  }
  s->way = bench_fastest(s, ways, WAYS, p->cols * p->columns, p->rows * p->columns);
  *out_layout = "row";
  if (s->way >= 0) return s;
  snprintf(why, BENCH_WHY, "no code for this matrix");
  destroy(s);
  return NULL;
}

static void run(void *opaque, const float *x, float *y) {
  const state *s = opaque;
  run_way(s, s->way, x, y);
}

static const bench_peer libxsmm = {"libxsmm", false, describe, create, run, NULL, NULL, destroy};
static const bench_peer *const peers[] = {&libxsmm, NULL};
const bench_peers sf_bench_peers = {BENCH_PEER_ABI, peers};
