/* Cases of conformance.def as graphs: one operation, what stands before it (a head), and what is fused behind it (a tail). */
#ifndef SFI_CONFORMANCE_GRAPH_H
#define SFI_CONFORMANCE_GRAPH_H

#include "graph.h"
#include "random_weight.h"

enum { HEADS = 1, TAILS = 2 }; /* sf_case.also */

typedef struct sf_case {
  const char *op, *operands, *attributes;
  int also;
} sf_case;
extern const sf_case sf_cases[];
extern const size_t sf_case_count;
/* Is `op` the case's operation, or one of its family? */
bool sf_case_is_of(const sf_case *c, sf_op op);
bool sf_case_has_weight(const sf_case *c);

/* 0: none. Names are NULL behind the last. */
const char *sf_head_name(int head);
const char *sf_tail_name(int tail);

/* The graph; `zeros` are those of operand w. Where the head or the tail does not fit the case's shapes, *out_fits is false and there is
 * none. NULL with *out_fits: the builder refused, with its error in the context. */
sf_graph *sf_case_graph(sf_context *context, const sf_case *c, sf_op op, int head, int tail, const sf_zeros *zeros, bool *out_fits);

#endif
