/* What "spmm-quads" packs (pack_quads.c) and its code reads (emit_spmm_quads.c).
 *
 * K is cut into blocks whose rows of X fit L1. In each block, the rows of a row block are put together by four: a QUAD. Its nonzeros are
 * spent in steps of four, one of each row. A step of a pairing takes two columns that two rows each have in common; a single step takes a
 * column of its own for each row. A quad runs rounds of one step of each of the three pairings and a single one, so that steps with
 * few loads hide those with many; then what is left, single steps; then ragged ones, in which a row that has nothing left has the
 * value 0.
 *
 * Packed W: header | starts | quads | positions | values
 *   header: int64 byte offset of each section
 *   starts: uint32 [row block][K block][2]: offset of the first positions / 4 bytes, offset of the first values / 16 bytes
 *   quads: sfi_quad [K block][quads of all row blocks]
 *   positions: those of a step together, two or four; 16 bits each, in bytes from the block's first row of X, or 32 bits (sfi_position)
 *   values: four of a step together */
#ifndef SFI_SPMM_QUADS_H
#define SFI_SPMM_QUADS_H

#include "contraction.h"

enum { SFI_QUAD = 4, SFI_PAIRINGS = 3, SFI_ROUND = SFI_PAIRINGS + 1, SFI_QUAD_UNROLL = 2 };
enum { SFI_QUADS_STARTS, SFI_QUADS_RECORDS, SFI_QUADS_POSITIONS, SFI_QUADS_VALUES, SFI_QUADS_SECTIONS };

typedef struct sfi_quad {
  uint32_t row[SFI_QUAD];           /* at or past the row count: does not exist */
  uint32_t rounds, singles, ragged; /* singles: a multiple of SFI_QUAD_UNROLL */
} sfi_quad;

/* Rows of a quad in the order of the values of each step of a round. Of a pairing's, the first column is of the first two. */
extern const int sfi_quad_rows[SFI_ROUND][SFI_QUAD];

/* K blocks, columns in one, and whether positions have 16 bits. */
int64_t sfi_quads_blocks(const sfi_kernel *k, const sfi_target *target);
int64_t sfi_quads_depth(const sfi_kernel *k, const sfi_target *target);
bool sfi_quads_narrow(const sfi_kernel *k, const sfi_target *target);

sf_status sfi_quads_pack(const sfi_kernel *k, const sfi_plan *plan, const sf_allocator *allocator, sfi_diag *diag, sfi_blob *out);

#endif
