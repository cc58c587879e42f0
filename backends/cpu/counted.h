/* What the two halves of "spmm-counted" share, packing (pack_counted.c) and code (emit_counted.c): the geometry. */
#ifndef SFI_COUNTED_H
#define SFI_COUNTED_H

#include "contraction.h"

/* Sections of the packed W, and the words of a start. See emit_counted.c. */
enum { SFI_COUNTED_STARTS, SFI_COUNTED_RECORDS, SFI_COUNTED_POSITIONS, SFI_COUNTED_VALUES, SFI_COUNTED_SECTIONS };
enum { SFI_COUNTED_START_WORDS = 4 };

int64_t sfi_counted_blocks(const sfi_kernel *kernel, const sfi_target *target); /* of K, at least 1 */
int64_t sfi_counted_depth(const sfi_kernel *kernel, const sfi_target *target);  /* of a block; the last may be shorter */
/* 64-bit words that hold four positions: 1 or 2. */
int32_t sfi_counted_words(const sfi_kernel *kernel, const sfi_target *target);

#endif
