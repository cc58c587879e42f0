/* How an attention node's operands are read: each of q, k, v and the result as [batch, head, row, feature], whatever its own rank. */
#ifndef SFI_ATTENTION_H
#define SFI_ATTENTION_H

#include "graph.h"

typedef struct sfi_attention {
  int64_t heads, kv_heads; /* of q; of k and v */
  int64_t depth, width;    /* features of a head of q and k; of v and the result */
  sfi_poly batch, rows, keys;
  double scale;
  bool causal;
  int32_t mask, position; /* operands; 0: none */
} sfi_attention;

/* NULL, or what is wrong with the node's operands. */
const char *sfi_attention_read(const sf_graph *graph, const sfi_node *node, sfi_attention *out);
/* From strides of the operand's own dimensions to those of [batch, head, row, feature], `features` to a head. */
static inline void sfi_attention_strides(int32_t rank, int64_t features, const int64_t *own, int64_t out[4]) {
  out[0] = own[0];
  out[1] = rank == 4 ? own[1] : own[2] * features;
  out[2] = rank == 4 ? own[2] : own[1];
  out[3] = own[rank - 1];
}

#endif
