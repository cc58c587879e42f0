/* Operations that scale and shift each channel by static numbers: batch_norm, and add, sub, mul, div by a per-channel tensor. */
#ifndef SFI_CHANNEL_AFFINE_H
#define SFI_CHANNEL_AFFINE_H

#include "graph.h"

/* Makes y = scale[c] * y + shift[c] of what `node` does to its operand `x` along dimension `axis` (counted from the front, of x
 * and the result alike): updates both arrays, of `channels` entries. False, with the arrays unspecified, where `node` is no such
 * operation, or is not finite, or takes all by 0 (which would hide Inf and NaN). */
bool sfi_channel_affine(const sf_graph *graph, const sfi_node *node, sf_value x, int32_t axis, int64_t channels, double *scale,
                        double *shift);

#endif
