// Eigen: compressed rows times a dense matrix, row-major, or column-major for tokens. OpenMP over rows of W where Eigen thinks it pays.
#include "peer.h"

#include <Eigen/Sparse>
#include <cstdio>
#include <vector>

namespace {

using sparse = Eigen::SparseMatrix<float, Eigen::RowMajor, int>;
using row_major = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using column_major = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor>;

struct state {
  bench_problem p;
  sparse w;
};

void describe(char *text, size_t size) {
  std::snprintf(text, size, "sparse; Eigen %d.%d.%d; SparseMatrix<RowMajor> x Matrix, -O3 -march=native, OpenMP",
                EIGEN_WORLD_VERSION, EIGEN_MAJOR_VERSION, EIGEN_MINOR_VERSION);
}

void *create(const bench_problem *p, const char **out_layout, char why[BENCH_WHY]) {
  if (p->conv.batch) {
    std::snprintf(why, BENCH_WHY, "no convolutions");
    return nullptr;
  }
  auto *s = new state{*p, sparse(p->rows, p->cols)};
  Eigen::setNbThreads(p->threads);
  std::vector<Eigen::Triplet<float>> entries;
  entries.reserve(static_cast<size_t>(p->nnz));
  for (int64_t r = 0; r < p->rows; r++)
    for (int64_t k = 0; k < p->cols; k++)
      if (p->w[r * p->cols + k] != 0) entries.emplace_back(static_cast<int>(r), static_cast<int>(k), p->w[r * p->cols + k]);
  s->w.setFromTriplets(entries.begin(), entries.end());
  *out_layout = p->layout == BENCH_TOKENS ? "tokens" : "row";
  return s;
}

void run(void *opaque, const float *x, float *y) {
  auto *s = static_cast<state *>(opaque);
  const bench_problem &p = s->p;
  if (p.columns == 1) {
    Eigen::Map<Eigen::VectorXf>(y, p.rows).noalias() = s->w * Eigen::Map<const Eigen::VectorXf>(x, p.cols);
  } else if (p.layout == BENCH_TOKENS) {
    Eigen::Map<column_major>(y, p.rows, p.columns).noalias() = s->w * Eigen::Map<const column_major>(x, p.cols, p.columns);
  } else {
    Eigen::Map<row_major>(y, p.rows, p.columns).noalias() = s->w * Eigen::Map<const row_major>(x, p.cols, p.columns);
  }
}

void destroy(void *opaque) {
  delete static_cast<state *>(opaque);
}

const bench_peer eigen = {"eigen", false, describe, create, run, nullptr, nullptr, destroy};
const bench_peer *const peers[] = {&eigen, nullptr};

} // namespace

const bench_peers sf_bench_peers = {BENCH_PEER_ABI, peers};
