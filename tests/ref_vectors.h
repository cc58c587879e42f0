/* The vectors that NumPy computed, one graph for each operation: tests/ref/vectors, written by make_vectors.py. Read by the library's own
 * reader. What is missing or malformed ends the test. */
#ifndef SF_TESTS_REF_VECTORS_H
#define SF_TESTS_REF_VECTORS_H

#include "graph.h"

typedef struct sf_vectors {
  sf_context *context;
  sf_graph *graph;
  int64_t symbol;
  sf_tensor *inputs;  /* F32 */
  sf_tensor *outputs; /* F64: what NumPy computed */
} sf_vectors;

/* `op`: the operation's text. The context has no disk cache. False: this machine lacks the instruction set. */
bool sf_vectors_open(const char *op, sf_isa isa, sf_vectors *out_vectors);
void sf_vectors_close(sf_vectors *vectors);

#endif
