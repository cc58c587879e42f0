/* Private to fuse*.c: the two ways of merging a pair of kernels. Each leaves *out alone and returns false where it does not apply. */
#ifndef SFI_FUSE_H
#define SFI_FUSE_H

#include "passes.h"

/* `consumer`, a MAP that walks as `producer` does and loads its output through `operand`, as the end of the producer's epilogue. */
bool sfi_merge_epilogue(const sfi_kernel *producer, const sfi_kernel *consumer, int32_t operand, sfi_kernel *out);
/* `producer`, a MAP, computed where `consumer` loads its output through `operand`. */
bool sfi_merge_prologue(const sfi_plan *plan, const sfi_kernel *producer, const sfi_kernel *consumer, int32_t operand,
                        sfi_kernel *out);

/* Parts of both. */
bool sfi_same_extent(sfi_extent a, sfi_extent b);
bool sfi_same_space(const sfi_kernel *a, const sfi_kernel *b);
/* Same elements at every point of the first `rank` dimensions of `space`? Buffers are not compared. */
bool sfi_same_access(const sfi_kernel *space, const sfi_access *a, const sfi_access *b);
/* Appends `from` to `to`, with its LOADs of `operand` replaced by the step `value` and operand i read as operand map[i].
 * False where there are too many steps. */
bool sfi_append_expr(sfi_expr *to, const sfi_expr *from, int32_t operand, int32_t value, const int32_t *map);
bool sfi_expr_loads(const sfi_expr *expr, int32_t operand);

#endif
