/* MKL: sgemm, with W packed where that is faster, and the inspector-executor SpMM and SpMV with hints. Linked to GNU OpenMP like
 * everything else here, so that no other library's threads spin beside ours. */
#include "fastest.h"
#include "peer.h"

#include <mkl.h>
#include <stdio.h>
#include <stdlib.h>

static void version(char *text, size_t size, const char *what) {
  MKLVersion v;
  mkl_get_version(&v);
  snprintf(text, size, "%s; MKL %d.%d.%d for %.80s", what, v.MajorVersion, v.MinorVersion, v.UpdateVersion, v.Processor);
}

/* ---- dense -------------------------------------------------------------------------------------------------------- */

typedef struct dense {
  bench_problem p;
  float *packed;
  bench_way way;
} dense;

static void describe_dense(char *text, size_t size) {
  version(text, size, "dense; sgemm or packed sgemm, the faster; sgemv for one column");
}

static void run_vector(void *state, const float *x, float *y) {
  const bench_problem *p = &((const dense *)state)->p;
  cblas_sgemv(CblasRowMajor, CblasNoTrans, (MKL_INT)p->rows, (MKL_INT)p->cols, 1, p->w, (MKL_INT)p->cols, x, 1, 0, y, 1);
}

static void run_plain(void *state, const float *x, float *y) {
  const bench_problem *p = &((const dense *)state)->p;
  const MKL_INT m = (MKL_INT)p->rows, n = (MKL_INT)p->columns, k = (MKL_INT)p->cols;
  if (p->layout == BENCH_TOKENS)
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, m, k, 1, x, k, p->w, k, 0, y, m);
  else
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, n, k, 1, p->w, k, x, n, 0, y, n);
}

static void run_packed(void *state, const float *x, float *y) {
  const dense *s = state;
  const MKL_INT m = (MKL_INT)s->p.rows, n = (MKL_INT)s->p.columns, k = (MKL_INT)s->p.cols;
  if (s->p.layout == BENCH_TOKENS)
    cblas_sgemm_compute(CblasRowMajor, CblasNoTrans, CblasPacked, n, m, k, x, k, s->packed, k, 0, y, m);
  else
    cblas_sgemm_compute(CblasRowMajor, CblasPacked, CblasNoTrans, m, n, k, s->packed, k, x, n, 0, y, n);
}

static void destroy_dense(void *state) {
  dense *s = state;
  if (s->packed) mkl_free(s->packed);
  free(s);
}

static void *create_dense(const bench_problem *p, const char **out_layout, char why[BENCH_WHY]) {
  if (p->conv.batch) {
    snprintf(why, BENCH_WHY, "no convolutions");
    return NULL;
  }
  dense *s = calloc(1, sizeof *s);
  if (!s) return NULL;
  s->p = *p;
  mkl_set_num_threads(p->threads);
  *out_layout = p->layout == BENCH_TOKENS ? "tokens" : "row";
  s->way = run_vector;
  if (p->columns == 1) return s;
  const MKL_INT m = (MKL_INT)p->rows, n = (MKL_INT)p->columns, k = (MKL_INT)p->cols;
  const bool tokens = p->layout == BENCH_TOKENS;
  const CBLAS_IDENTIFIER which = tokens ? CblasBMatrix : CblasAMatrix;
  s->packed = mkl_malloc(cblas_sgemm_pack_get_size(which, tokens ? n : m, tokens ? m : n, k), 64);
  if (s->packed)
    cblas_sgemm_pack(CblasRowMajor, which, tokens ? CblasTrans : CblasNoTrans, tokens ? n : m, tokens ? m : n, k, 1, p->w, k,
                     s->packed);
  const bench_way ways[] = {run_plain, s->packed ? run_packed : NULL};
  const int fastest = bench_fastest(s, ways, 2, p->cols * p->columns, p->rows * p->columns);
  s->way = ways[fastest > 0];
  return s;
}

static void run_dense(void *state, const float *x, float *y) {
  ((dense *)state)->way(state, x, y);
}

/* ---- sparse ------------------------------------------------------------------------------------------------------- */

typedef struct sparse {
  bench_problem p;
  MKL_INT *begin, *column;
  float *value;
  sparse_matrix_t w;
} sparse;

static const struct matrix_descr general = {SPARSE_MATRIX_TYPE_GENERAL, SPARSE_FILL_MODE_FULL, SPARSE_DIAG_NON_UNIT};

static void describe_sparse(char *text, size_t size) {
  version(text, size, "sparse; CSR, mkl_sparse_s_mm with hints and mkl_sparse_optimize");
}

static void destroy_sparse(void *state) {
  sparse *s = state;
  if (s->w) mkl_sparse_destroy(s->w);
  free(s->begin);
  free(s->column);
  free(s->value);
  free(s);
}

static bool make(sparse *s) {
  const bench_problem *p = &s->p;
  const bool tokens = p->layout == BENCH_TOKENS;
  s->begin = malloc((size_t)(p->rows + 1) * sizeof *s->begin);
  s->column = malloc((size_t)(p->nnz + 1) * sizeof *s->column);
  s->value = malloc((size_t)(p->nnz + 1) * sizeof *s->value);
  if (!s->begin || !s->column || !s->value) return false;
  MKL_INT n = 0;
  for (int64_t r = 0; r < p->rows; r++) {
    s->begin[r] = n;
    for (int64_t k = 0; k < p->cols; k++) {
      if (p->w[r * p->cols + k] == 0) continue;
      s->column[n] = (MKL_INT)k;
      s->value[n++] = p->w[r * p->cols + k];
    }
  }
  s->begin[p->rows] = n;
  if (mkl_sparse_s_create_csr(&s->w, SPARSE_INDEX_BASE_ZERO, (MKL_INT)p->rows, (MKL_INT)p->cols, s->begin, s->begin + 1, s->column,
                              s->value) != SPARSE_STATUS_SUCCESS)
    return false;
  /* A hint that it does not support changes nothing. */
  if (p->columns == 1)
    mkl_sparse_set_mv_hint(s->w, SPARSE_OPERATION_NON_TRANSPOSE, general, 100000);
  else
    mkl_sparse_set_mm_hint(s->w, SPARSE_OPERATION_NON_TRANSPOSE, general,
                           tokens ? SPARSE_LAYOUT_COLUMN_MAJOR : SPARSE_LAYOUT_ROW_MAJOR, (MKL_INT)p->columns, 100000);
  mkl_sparse_set_memory_hint(s->w, SPARSE_MEMORY_AGGRESSIVE);
  return mkl_sparse_optimize(s->w) == SPARSE_STATUS_SUCCESS;
}

static void *create_sparse(const bench_problem *p, const char **out_layout, char why[BENCH_WHY]) {
  if (p->conv.batch) {
    snprintf(why, BENCH_WHY, "no convolutions");
    return NULL;
  }
  sparse *s = calloc(1, sizeof *s);
  if (!s) return NULL;
  s->p = *p;
  mkl_set_num_threads(p->threads);
  *out_layout = p->layout == BENCH_TOKENS ? "tokens" : "row";
  if (make(s)) return s;
  snprintf(why, BENCH_WHY, "MKL refuses the matrix");
  destroy_sparse(s);
  return NULL;
}

static void run_sparse(void *state, const float *x, float *y) {
  const sparse *s = state;
  const bench_problem *p = &s->p;
  const MKL_INT n = (MKL_INT)p->columns;
  if (n == 1)
    mkl_sparse_s_mv(SPARSE_OPERATION_NON_TRANSPOSE, 1, s->w, general, x, 0, y);
  else if (p->layout == BENCH_TOKENS)
    mkl_sparse_s_mm(SPARSE_OPERATION_NON_TRANSPOSE, 1, s->w, general, SPARSE_LAYOUT_COLUMN_MAJOR, x, n, (MKL_INT)p->cols, 0, y,
                    (MKL_INT)p->rows);
  else
    mkl_sparse_s_mm(SPARSE_OPERATION_NON_TRANSPOSE, 1, s->w, general, SPARSE_LAYOUT_ROW_MAJOR, x, n, n, 0, y, n);
}

static const bench_peer mkl = {"mkl", true, describe_dense, create_dense, run_dense, NULL, NULL, destroy_dense};
static const bench_peer mkl_sparse = {"mkl-sparse", false, describe_sparse, create_sparse, run_sparse, NULL, NULL, destroy_sparse};
static const bench_peer *const peers[] = {&mkl, &mkl_sparse, NULL};
const bench_peers sf_bench_peers = {BENCH_PEER_ABI, peers};
