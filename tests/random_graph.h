/* Random well-formed graphs with sparse static tensors, and random tensors to run them on. The same seed gives the same graph. */
#ifndef SF_TESTS_RANDOM_GRAPH_H
#define SF_TESTS_RANDOM_GRAPH_H

#include "graph.h"

typedef struct sf_random {
  uint64_t state; /* not 0 */
} sf_random;
uint32_t sf_random_next(sf_random *random);
/* From 0 to bound - 1. */
int32_t sf_random_below(sf_random *random, int32_t bound);

typedef struct sf_random_graph_options {
  int32_t operations; /* about so many */
  /* Static tensors and inputs hold Inf, NaN, -0 and huge numbers at times. */
  bool special;
  /* Only operations that a small relative change of a weight changes little. */
  bool gentle;
  bool no_batch_norm;
  /* Extents up to 129 with odd tails, and weights with every pattern of random_weight.h: to meet kernels rather than passes. */
  bool large;
  /* Projections of one value beside each other. */
  bool siblings;
} sf_random_graph_options;

/* A graph that the caller releases; it has inputs, often with the symbolic dimension, and one to three outputs. NULL: the
 * builder refused, which it never should. */
sf_graph *sf_random_graph(sf_context *context, uint64_t seed, const sf_random_graph_options *options);

/* Inputs (random) and outputs (zero), all F32 or all F64, for `symbol`. Freed by sf_random_tensors_free. */
typedef struct sf_random_tensors {
  sf_tensor *inputs, *outputs;
  int32_t n_inputs, n_outputs;
} sf_random_tensors;
void sf_random_tensors_make(const sf_graph *graph, uint64_t seed, bool special, sf_dtype dtype, int64_t symbol,
                            sf_random_tensors *out_tensors);
void sf_random_tensors_free(sf_random_tensors *tensors);
int64_t sf_tensor_count(const sf_tensor *tensor);

#endif
