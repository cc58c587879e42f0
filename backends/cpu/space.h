/* The walk over an iteration space shared by the emitters that are not matrix products. */
#ifndef SFI_SPACE_H
#define SFI_SPACE_H

#include "emission.h"

/* Extents up to which lanes count in 32 bits whether they lie inside an image: pads and strides, below 2^31 each, may go around it and must
 * not come back to it. */
enum { SFI_LANES_MOST = 1 << 30 };

typedef void (*sfi_point_fn)(sfi_emission *e, const sfi_point *point);

/* Loops over the tiles asked for and the dimensions behind them, and calls `body` at each point; along the last dimension for vectors
 * of points where `vector`. Dimension `skip` (-1: none) is left to the body; its index is 0 in the point. body is called once for
 * each way of masking. */
void sfi_space_walk(sfi_emission *e, bool vector, int32_t skip, sfi_point_fn body);

/* The parts of it, for kernels that walk in an order of their own. Indices of the tile dimensions from a tile's number: */
void sfi_tile_indices(sfi_emission *e, sfi_point *point, LLVMValueRef tile);
/* First index of dimension d that does not exist: its extent, or in a panel what the last panel leaves. */
LLVMValueRef sfi_dimension_end(sfi_emission *e, const sfi_point *point, int32_t d);
/* Does the kernel write PANEL along its last dimension? Panels are written whole: lanes past the last column are computed from zeros. */
bool sfi_writes_panels(const sfi_emission *e);

/* Loops over `dims` dimensions [first, first + dims) of extents `extent` inside a body, carrying values: `next` is written from
 * `carried` by step at each point. The last of them runs in vectors where `vector_last`: then lanes past its end are masked in
 * point->mask. Carried values end in `carried`. */
typedef void (*sfi_step_fn)(sfi_emission *e, const sfi_point *point, LLVMValueRef *carried, void *user);
void sfi_inner_walk(sfi_emission *e, const sfi_point *at, int32_t first, int32_t dims, const sfi_extent *extent, bool vector_last,
                    LLVMValueRef *carried, unsigned n_carried, sfi_step_fn step, void *user);

/* Keys before the first query of an ATTEND kernel. */
LLVMValueRef sfi_attend_position(sfi_emission *e);

/* Cost shared by kernels bound by moving elements: `passes` over the space's points, `cycles` a vector. */
double sfi_space_cost(const sfi_kernel *kernel, const sfi_plan *plan, int64_t symbol, double cycles);

#endif
