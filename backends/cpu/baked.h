/* What the parts of "spmm-baked" share: the geometry and the walk over the nonzeros of W, from which both the packed values
 * (pack_baked.c) and the machine code (baked_code.c) are made. See emit_baked.c. */
#ifndef SFI_BAKED_H
#define SFI_BAKED_H

#include "contraction.h"

/* One column of W in a group of rows, with at least one nonzero. */
typedef struct sfi_baked_column {
  int64_t piece, k;
  int32_t n, row[SFI_ROWS_MAX]; /* rows that have one, counted from the group's first */
} sfi_baked_column;
typedef void (*sfi_baked_fn)(void *user, const sfi_baked_column *column);

/* A piece is a group of tile.rows rows in one block of K; pieces stand block by block. */
int64_t sfi_baked_groups(const sfi_kernel *kernel);
int32_t sfi_baked_group_rows(const sfi_kernel *kernel, int64_t group);        /* the last one may have fewer */
int64_t sfi_baked_blocks(const sfi_kernel *kernel, const sfi_target *target); /* of K */
int64_t sfi_baked_depth(const sfi_kernel *kernel, const sfi_target *target);  /* of a block; the last may be shorter */
int64_t sfi_baked_pieces(const sfi_kernel *kernel, const sfi_target *target);
void sfi_baked_walk(const sfi_kernel *kernel, const sfi_target *target, sfi_baked_fn visit, void *user);

/* Cycles, measured on Zen 5: of a row's sums, loaded or stored, for each vector; and of a nonzero whose row of X is not in L1, where K is
 * cut into so many blocks. */
#define SFI_BAKED_VISIT 0.8
double sfi_baked_far(const sfi_kernel *kernel, const sfi_target *target, int64_t blocks);

/* Machine code of all pieces, each with a return at its end. It takes the address of X in rcx and of the values in rdx, masks of the
 * vectors of X in k1, k2, .. where `masked`, and adds to the sums in vector registers, row by row V of them; pieces of the first block
 * of K set them. It destroys rax, rsi and the other vector registers. */
typedef struct sfi_baked_code {
  uint8_t *bytes; /* NULL: only the size is wanted */
  size_t size;
  uint32_t *start; /* of each piece; NULL with `bytes` */
} sfi_baked_code;
void sfi_baked_assemble(const sfi_kernel *kernel, const sfi_target *target, bool masked, sfi_baked_code *code);

#endif
