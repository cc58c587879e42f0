/* The interface between sf-bench and what it compares: other libraries, each a module that is opened at run time so that two of them may
 * define the same names, and the loops and emitters that sf-bench holds itself.
 *
 * Every problem is Y[rows, columns] = W[rows, cols] X[cols, columns] in fp32 with W known beforehand; for a convolution cols is input
 * channel, tap row, tap column, and columns are output pixels. Natural layouts of X and Y:
 *   ROW     X[cols][columns], Y[rows][columns]; a convolution: NCHW
 *   TOKENS  X[columns][cols], Y[columns][rows]; not for convolutions
 *   PANEL   whatever the peer likes best, as between the layers of a network: `load` and `store` convert from and to ROW, untimed */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { BENCH_PEER_ABI = 1, BENCH_WHY = 256 };

typedef enum bench_layout { BENCH_ROW, BENCH_PANEL, BENCH_TOKENS } bench_layout;

/* One square stride and padding; kernel [h, w]. batch 0: not a convolution. */
typedef struct bench_conv {
  int64_t batch, channels, height, width, kernel[2], stride, pad, out_height, out_width;
} bench_conv;

typedef struct bench_problem {
  int64_t rows, cols, columns, nnz;
  const float *w; /* row-major, zeros in place */
  int threads;
  bench_layout layout;
  bench_conv conv;
} bench_problem;

typedef struct bench_peer {
  const char *name;
  bool dense; /* multiplies by zeros: a candidate for the baseline */
  /* What is measured, with the library's version and settings, in a line. */
  void (*describe)(char *text, size_t size);
  /* Packs W. *out_layout: where X and Y stand while it is timed, for the report, static storage. NULL: the reason is in `why`. */
  void *(*create)(const bench_problem *problem, const char **out_layout, char why[BENCH_WHY]);
  void (*run)(void *state, const float *x, float *y);
  /* PANEL only: `load` brings X into the peer's own layout and fills its own Y with NaN, `store` brings Y out of it. `run` then need not
   * look at x and y, which are in ROW all the same: a peer that likes them so has neither. */
  void (*load)(void *state, const float *x);
  void (*store)(void *state, float *y);
  void (*destroy)(void *state);
} bench_peer;

typedef struct bench_peers {
  int abi;
  const bench_peer *const *peers; /* NULL behind the last */
} bench_peers;

/* The one symbol of a module. */
#define BENCH_PEERS_SYMBOL "sf_bench_peers"
#define BENCH_EXPORT __attribute__((visibility("default")))
extern BENCH_EXPORT const bench_peers sf_bench_peers;

#ifdef __cplusplus
}
#endif
#endif
