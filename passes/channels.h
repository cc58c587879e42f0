/* Which indices of which dimensions belong together: if one is taken out, all must be.
 * A SLOT is one index of one dimension of one tensor. A tensor is a run-time value, or one use of a static operand, because each use may
 * have its own shrunk copy. Slots that must leave together form a CLASS; pinned classes never leave. */
#ifndef SFI_CHANNELS_H
#define SFI_CHANNELS_H

#include "graph.h"

/* Flags of a slot. */
enum {
  SFI_SLOT_ZERO = 1,    /* every element at this index is 0 */
  SFI_SLOT_FINITE = 2,  /* static tensors: none is Inf or NaN */
  SFI_SLOT_DIVIDES = 4, /* static tensors: none is 0 or NaN */
  SFI_SLOT_LIVE = 8,    /* inner dimension of a weight: a row that stays needs this index */
  /* On the representative of a class: */
  SFI_CLASS_PINNED = 16,
  SFI_CLASS_NEEDED = 32,
  SFI_CLASS_REMOVED = 64
};

typedef struct sfi_channel_tensor {
  int32_t first[SF_MAX_RANK]; /* slot of index 0; -1: not tracked, never shrunk (symbolic, below 2, or beyond the budget) */
  uint8_t flags;              /* static tensors: SFI_SLOT_* of all elements together */
} sfi_channel_tensor;

typedef struct sfi_channels {
  const sf_graph *graph;
  const sf_allocator *allocator;
  sfi_channel_tensor *tensors; /* one a value, then one an operand of each node */
  size_t n_tensors;
  int32_t *uses;   /* of each node: the tensor of its operand 0, were that static */
  int32_t *parent; /* of each slot the representative of its class, never above it; union-find while classes are made */
  uint8_t *flags;  /* of each slot */
  size_t n_slots;
} sfi_channels;

/* Slots and classes of a verified graph without dead values. Deinitialise whatever the result. False: out of memory. */
bool sfi_channels_init(sfi_channels *channels, const sf_graph *graph, const sf_allocator *allocator);
void sfi_channels_deinit(sfi_channels *channels);
/* Sets the flags of the static operands of `node`, as far as they stay. False: one cannot be read. */
bool sfi_channels_describe(sfi_channels *channels, sf_value node, sfi_diag *diag);

/* The tensor that operand `k` of `node` reads; k -1: its result. */
sfi_channel_tensor *sfi_channel_tensor_of(const sfi_channels *channels, sf_value node, int32_t k);
static inline int32_t sfi_channel_class(const sfi_channels *channels, int32_t slot) {
  return channels->parent[slot];
}
static inline bool sfi_channel_removed(const sfi_channels *channels, int32_t slot) {
  return channels->flags[sfi_channel_class(channels, slot)] & SFI_CLASS_REMOVED;
}

/* Indices of two dimensions that belong together: for 0 <= i < count, index at + i / div of either side. `k`: an operand; -1: the
 * result. */
typedef struct sfi_channel_side {
  int32_t k, d;
  int64_t at, div;
} sfi_channel_side;
typedef struct sfi_channel_link {
  sfi_channel_side a, b;
  int64_t count;
} sfi_channel_link;
typedef void (*sfi_channel_link_fn)(void *user, sf_value node, const sfi_channel_link *link);
/* Calls `fn` for every link of `node`. Dimensions that no link names are tied to something that links cannot say: they are pinned. */
void sfi_channel_links(const sf_graph *graph, sf_value node, sfi_channel_link_fn fn, void *user);
/* The link between the inner dimensions of a contraction with a static weight: `a` the weight's, `b` the run-time operand's. */
bool sfi_channel_inner_link(const sf_graph *graph, sf_value node, sfi_channel_link *out_link);

#endif
