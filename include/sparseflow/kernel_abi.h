/* The ABI between the runtime and a compiled kernel.
 *
 * A kernel is cut into tiles that are independent of each other and may run in any order on any thread:
 *   kernel(args, begin, end) computes tiles begin <= t < end.
 * Every result is the same whichever thread computes a tile and however the tiles are grouped. A kernel never fails, never
 * allocates, never calls out of itself. */
#ifndef SPARSEFLOW_KERNEL_ABI_H
#define SPARSEFLOW_KERNEL_ABI_H

#include <assert.h> /* static_assert, in C and C++ */
#include <stddef.h>
#include <stdint.h>

typedef struct sf_kernel_args {
  void *const *buffers; /* one base address for each operand of the kernel, in the order of its plan; 64-byte aligned unless
                           given by the host */
  int64_t symbol;       /* the symbolic dimension; 1 where the graph has none */
} sf_kernel_args;

typedef void (*sf_kernel_fn)(const sf_kernel_args *args, int64_t tile_begin, int64_t tile_end);

#if UINTPTR_MAX > 0xffffffffu
static_assert(offsetof(sf_kernel_args, buffers) == 0, "kernel ABI");
static_assert(offsetof(sf_kernel_args, symbol) == 8, "kernel ABI");
static_assert(sizeof(sf_kernel_args) == 16, "kernel ABI");
#endif
#endif
