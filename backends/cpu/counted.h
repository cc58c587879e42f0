/* What the two halves of "spmm-counted" share, packing (pack_counted.c) and code (emit_counted.c): the geometry. */
#ifndef SFI_COUNTED_H
#define SFI_COUNTED_H

#include "contraction.h"

/* The header of the packed W: sections, then numbers; and the words of a start. See emit_counted.c. */
enum {
  SFI_COUNTED_STARTS,
  SFI_COUNTED_RECORDS,
  SFI_COUNTED_POSITIONS,
  SFI_COUNTED_VALUES,
  SFI_COUNTED_SECTIONS,
  SFI_COUNTED_BLOCKS = SFI_COUNTED_SECTIONS,
  SFI_COUNTED_DEPTH
};
enum { SFI_COUNTED_START_WORDS = 4 };
/* Words of positions that are loaded before their turn: behind the last ones there are as many more. */
enum { SFI_COUNTED_AHEAD = 4 };

int64_t sfi_counted_blocks(const sfi_kernel *kernel, const sfi_target *target); /* of K, at least 1 */
int64_t sfi_counted_depth(const sfi_kernel *kernel, const sfi_target *target);  /* of a block; the last may be shorter */

/* How positions are written: four to a word in units of 1 << shift bytes, or two to a word in elements. */
typedef struct sfi_counted_unit {
  int32_t words; /* of 64 bits for four positions: 1 or 2 */
  int32_t shift;
} sfi_counted_unit;
sfi_counted_unit sfi_counted_positions(const sfi_kernel *kernel);

#endif
