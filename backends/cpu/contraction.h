/* What the emitters of matrix products share: the walk over tiles and columns, the position of a row of X, and the store of finished
 * rows through the epilogue. */
#ifndef SFI_CONTRACTION_H
#define SFI_CONTRACTION_H

#include "emission.h"

enum { SFI_VECTORS_MAX = 8, SFI_ROWS_MAX = 32, SFI_ACCUMULATORS_MAX = 48 };

/* V vectors of consecutive columns of X and the points of the output that they make. */
typedef struct sfi_columns {
  int32_t vectors;
  LLVMValueRef x;                          /* address of X[t, k at position 0, first column] */
  LLVMValueRef load_mask[SFI_VECTORS_MAX]; /* NULL: the whole vector may be read */
  sfi_point point[SFI_VECTORS_MAX];        /* index[1], the row, is filled in by sfi_store_rows */
} sfi_columns;

/* Emits code for rows [row_begin, row_end) of W, i64 values, row_begin a multiple of tile.rows. */
typedef void (*sfi_rows_fn)(sfi_emission *e, const sfi_columns *columns, LLVMValueRef row_begin, LLVMValueRef row_end);

/* The loop over tiles [tile_begin, tile_end) and the columns of each; `rows` is called once for each number of vectors: the register
 * tile's, and those of what can be left behind the last whole tile. */
void sfi_contraction_tiles(sfi_emission *e, sfi_rows_fn rows);
/* The same, but block of rows by block of rows, each over all columns of the tiles before the next. */
void sfi_contraction_row_blocks(sfi_emission *e, sfi_rows_fn rows);
/* Cuts the tiles into chunks, each of `columns` blocks of columns with all their rows, and calls `walk` with tile_begin and tile_end
 * those of a chunk. */
void sfi_contraction_chunks(sfi_emission *e, int64_t columns, void (*walk)(sfi_emission *e));

/* Columns in flattened order that all tiles of one t walk: J, or for a convolution the image rows with their dead columns. */
int64_t sfi_flat_columns(const sfi_kernel *kernel); /* -1: symbolic */
/* Number of vectors of columns in the register tile, at most `most`, such that few lanes are wasted; sets tile.vectors and
 * tile.column_block. */
void sfi_choose_columns(sfi_kernel *kernel, const sfi_target *target, int32_t most);
/* tile.rows = rows, and row_block such that a block of W with `bytes_per_row` fits half of L2 and eight tiles come out. */
void sfi_choose_rows(sfi_kernel *kernel, const sfi_target *target, int32_t rows, double bytes_per_row);

/* Bytes of the table of positions in front of a packed W: 0 where position(k) = k * stride. */
int64_t sfi_position_bytes(const sfi_kernel *kernel);
/* Position of row k of X at pack time: what kernels multiply or add; see sfi_x_row. */
uint32_t sfi_position(const sfi_kernel *kernel, int64_t k);
/* Largest position fits 32 bits? */
bool sfi_positions_fit(const sfi_kernel *kernel);
void sfi_write_positions(const sfi_kernel *kernel, uint8_t *blob);
/* Address of row k of X (columns->x based): for a stored position, and for a counter k with the table at operand 2's start. */
LLVMValueRef sfi_x_row_at(sfi_emission *e, LLVMValueRef x, LLVMValueRef stored_position);
LLVMValueRef sfi_x_row(sfi_emission *e, LLVMValueRef x, LLVMValueRef k);

/* Entry `index` of the int64 header of the packed W; the section that begins at that many bytes. */
LLVMValueRef sfi_packed_header(sfi_emission *e, int index);
LLVMValueRef sfi_packed_section(sfi_emission *e, int index);
/* Four floats, over and over in all lanes; and one of the four, 0 to 3, in all lanes: one load and shuffles, where four loads would
 * take the slots of those of X. */
LLVMValueRef sfi_load_quarters(sfi_emission *e, LLVMValueRef address);
LLVMValueRef sfi_pick_quarters(sfi_emission *e, LLVMValueRef quarters, int slot);
/* base[index], uint32, as i64. */
LLVMValueRef sfi_load_u32(sfi_emission *e, LLVMValueRef base, LLVMValueRef index);

/* One k of a dense tile of `rows` rows: next = sums + weights[offset[r]] * the row of X at `x_row`. exact: zeros of W are skipped. */
void sfi_dense_step(sfi_emission *e, const sfi_columns *columns, LLVMValueRef x_row, LLVMValueRef weights,
                    const LLVMValueRef *offset, int32_t rows, bool exact, const LLVMValueRef *sums, LLVMValueRef *next);

/* acc[r * vectors + v] of rows row + r, r < count, through the epilogue into the output; rows at or past row_count are skipped. */
void sfi_store_rows(sfi_emission *e, const sfi_columns *columns, LLVMValueRef row, int32_t count, const LLVMValueRef *acc);

/* The same for rows row[r] anywhere; panels of `count` of them, of which those at or past row_count do not exist. */
void sfi_store_rows_at(sfi_emission *e, const sfi_columns *columns, const LLVMValueRef *row, int32_t count,
                       const LLVMValueRef *acc);

/* Sums that are not finished yet, kept in the output as they are. */
void sfi_keep_rows_at(sfi_emission *e, const sfi_columns *columns, const LLVMValueRef *row, int32_t count, const LLVMValueRef *acc);

/* Is any valid lane of acc[rows * vectors] NaN? i1. For kernels that multiply by the zeros of W: see emit_gemm.c. */
LLVMValueRef sfi_any_nan(sfi_emission *e, const sfi_columns *columns, const LLVMValueRef *acc, int32_t rows);

/* Element W[r, k] of a contraction's weight, with the groups of a convolution spread over all k. */
float sfi_weight_at(const sfi_contract *c, int64_t r, int64_t k);
/* Which of the columns [begin, end) of row r of W have nonzeros: bits of as many whole words. Returns how many (pack_rows.c). */
int64_t sfi_row_bits(const sfi_contract *c, int64_t r, int64_t begin, int64_t end, uint64_t *bits);
/* How many bits two sets share. */
int64_t sfi_common_bits(const uint64_t *a, const uint64_t *b, int64_t words);
void sfi_sort_falling(int64_t *key, int64_t n);
/* All of W, in panels of `rows` rows behind the table of positions (pack_panels.c). */
sf_status sfi_pack_panels(const sfi_kernel *kernel, int64_t rows, const sf_allocator *allocator, sfi_diag *diag,
                          sfi_blob *out_blob);

/* Load slots that a vector of X takes: more than one where the taps of a window place it across two lines. For costs. */
double sfi_slots_a_load(const sfi_kernel *kernel);
/* The part of `bytes` of X that L1, where `near` of them find room, does not hold when it is needed, times what the distance adds. For costs. */
double sfi_far(const sfi_target *target, double bytes, double near);
/* Microseconds of `cycles` on one core of the target. */
double sfi_cycles_us(const sfi_target *target, double cycles);
/* Microseconds to read `bytes` of a weight once on one core, from the smallest cache that can hold all of the program's; from memory, while
 * another core reads as well. */
double sfi_read_us(const sfi_plan *plan, double bytes);
/* Do the program's weights come from memory in each run? Then loops that loads bind prefetch them; others always do, it costs them nothing. */
bool sfi_weights_from_memory(const sfi_plan *plan);
/* Columns of all t at `symbol`, each t rounded up to whole vectors. For costs. */
double sfi_total_columns(const sfi_kernel *kernel, const sfi_target *target, int64_t symbol);

#endif
