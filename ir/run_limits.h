/* What a graph asks of a run beyond shapes: a range of the symbolic dimension, where operations take a part of a constant or symbolic
 * extent, and ranges of the integers that are used as indices. A run checks them before any kernel runs; kernels do not look. */
#ifndef SFI_RUN_LIMITS_H
#define SFI_RUN_LIMITS_H

#include "graph.h"

typedef struct sfi_symbol_limits {
  int64_t least, most;
  sf_value at_least, at_most; /* the node that asks for it; SF_NO_VALUE: none does */
} sfi_symbol_limits;
sfi_symbol_limits sfi_symbol_limits_of(const sf_graph *graph);

/* Integers of `leaf`, an input or a static tensor, are indices in [least, most]. */
typedef struct sfi_index_limits {
  sf_value leaf;
  int64_t least, most;
} sfi_index_limits;
static inline int64_t sfi_index_at(sf_dtype dtype, const void *data, int64_t i) {
  return dtype == SF_I64   ? ((const int64_t *)data)[i]
         : dtype == SF_I32 ? ((const int32_t *)data)[i]
         : dtype == SF_I8  ? ((const int8_t *)data)[i]
                           : ((const uint8_t *)data)[i];
}
/* At one value of the symbol. False where operand k of the node holds no indices. */
bool sfi_index_limits_of(const sf_graph *graph, const sfi_node *node, int32_t k, int64_t symbol, sfi_index_limits *out);
/* Are all of `count` integers of the leaf within? Else *out_wrong is the first that is not. */
bool sfi_within_count(sf_dtype dtype, const void *data, int64_t count, const sfi_index_limits *limits, int64_t *out_wrong);
bool sfi_within(const sfi_node *leaf, const void *data, const sfi_index_limits *limits, int64_t *out_wrong);

#endif
