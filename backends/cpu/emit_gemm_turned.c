/* "gemm-turned": dense products whose columns fill vectors badly, in panels or in rows, the number of columns known or not. The product is
 * computed turned round, LANES ALONG ROWS OF W and the columns of X broadcast, so that no lane is lost: for each k two vectors of packed W
 * meet a PIECE of up to 14 columns, 16 loads for 28 multiply-adds. A block of columns is cut into pieces of two sizes that differ by one;
 * where the number of columns is not known there is code for each size, and the kernel picks.
 *
 * The sums of a block are put down, column by column, in memory of the kernel's own, which stays in L1. From there they are turned back by
 * squares of lanes x lanes and go through the epilogue with full vectors of columns, whatever the pieces were.
 *
 * K goes by blocks of up to 512. While such a block of a panel of W meets the pieces, the next one is prefetched: in a network W comes from
 * afar.
 *
 * Zeros of W are multiplied too: a panel that shows a NaN is computed once more without them, as in emit_gemm.c.
 *
 * Packed W: [positions of X rows] [panel of two vectors of rows][k][row], rows past the last are zeros. */
#include "emitters.h"

enum { VECTORS = 2, BLOCK = 64, DEPTH = 512, LINE = 64 };

/* A block's columns in pieces, of which the first `large` have `across` columns, the others one less. */
typedef struct cut {
  int64_t pieces, across, large;
} cut;

static int64_t panel_rows(const sfi_target *target) {
  return (int64_t)VECTORS * target->lanes;
}

/* Columns of a piece at most: what the registers hold beside the vectors of W and a broadcast. */
static int64_t piece_most(const sfi_target *target) {
  return (target->registers - VECTORS - 2) / VECTORS;
}

/* Rows of X in a block of K: as many as L2 keeps beside W, however deep the product is. */
static int64_t k_block(const sfi_kernel *k) {
  const int64_t depth = sfi_max(1, k->contract.depth.c[0]);
  return sfi_ceil_div(depth, sfi_ceil_div(depth, DEPTH));
}

static cut cut_block(int64_t columns, const sfi_target *target) {
  const int64_t pieces = sfi_ceil_div(columns, piece_most(target)), across = pieces ? sfi_ceil_div(columns, pieces) : 0;
  return (cut){.pieces = pieces, .across = across, .large = columns - pieces * (across - 1)};
}

/* Columns of each t, or of all panels; -1: symbolic. */
static int64_t known_columns(const sfi_kernel *k) {
  if (!k->ragged.width) return sfi_flat_columns(k);
  return sfi_is_const(k->ragged.columns) ? k->ragged.columns.c[0] : -1;
}

/* Sizes that pieces may have, a bit each. */
static uint32_t piece_sizes(const sfi_kernel *k, const sfi_target *target) {
  const int64_t all = known_columns(k), width = k->tile.column_block;
  uint32_t sizes = 0;
  if (all < 0) return (UINT32_C(2) << sfi_min(width, piece_most(target))) - 2;
  for (int part = 0; part < 2; part++) { /* whole blocks, and the last one */
    const cut c = cut_block(part ? all % width : sfi_min(all, width), target);
    if (c.pieces && c.large) sizes |= UINT32_C(1) << c.across;
    if (c.pieces > c.large) sizes |= UINT32_C(1) << (c.across - 1);
  }
  return sizes;
}

sfi_refusal sfi_gemm_turned_accept(sfi_kernel *k, const sfi_plan *plan) {
  const sfi_target *target = plan->target;
  if (sfi_is(k->extent[2].of, 1)) return SFI_REFUSE_ONE_COLUMN;
  if (k->contract.groups > 1) return SFI_REFUSE_GROUPS;
  if (k->contract.pitch || !sfi_is(k->operand[1].stride[2], 1)) return SFI_REFUSE_STRIDED_COLUMNS;
  if (!sfi_positions_fit(k)) return SFI_REFUSE_OFFSETS_TOO_LARGE;
  k->tile.vectors = VECTORS;
  /* W from L3 is read fast enough by one piece, and 5 % faster without the hints; by several pieces it is not. */
  const int64_t columns = known_columns(k);
  k->tile.ahead = columns < 0 || columns > piece_most(target) || sfi_weights_from_memory(plan);
  k->tile.column_block = k->ragged.width ? k->ragged.width : BLOCK;
  sfi_choose_rows(k, target, (int32_t)panel_rows(target), (double)k->contract.depth.c[0] * 4);
  return SFI_REFUSE_NONE;
}

/* Of a panel of W and so many columns. */
static double block_cycles(const sfi_kernel *k, const sfi_target *target, int64_t columns) {
  const cut c = cut_block(columns, target);
  double steps = 0; /* multiply-adds, or their latency where they are few */
  for (int64_t p = 0; p < c.pieces; p++) steps += (double)sfi_max(4, (c.across - (p >= c.large)) * VECTORS / 2);
  const double squares = (double)sfi_ceil_div(columns, target->lanes) * VECTORS;
  return steps * 1.01 * (double)k->contract.depth.c[0] + squares * target->lanes * (4 + 0.5 * k->epilogue.n);
}

double sfi_gemm_turned_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  int64_t columns = 0, t = 1;
  if (k->ragged.width)
    sfi_poly_eval(k->ragged.columns, symbol, &columns);
  else if (sfi_extent_eval(k->extent[2], symbol, &columns))
    sfi_extent_eval(k->extent[0], symbol, &t);
  const int64_t width = k->tile.column_block, panels = sfi_ceil_div(k->contract.rows, k->tile.rows);
  const double whole = (double)(columns / width) * block_cycles(k, plan->target, width);
  const double panel = whole + block_cycles(k, plan->target, columns % width);
  /* That none prefetches, at best from L3. */
  const double first = (double)k->tile.rows * (double)k->contract.depth.c[0] * 4 / (plan->target->l3_gbps * 1e3);
  return first + sfi_cycles_us(plan->target, (double)t * (double)panels * panel);
}

sf_status sfi_gemm_turned_pack(const sfi_kernel *k, const sfi_plan *plan, const sf_allocator *allocator, sfi_diag *diag,
                               sfi_blob *out) {
  (void)plan;
  return sfi_pack_panels(k, k->tile.rows, allocator, diag, out);
}

/* ---- code ---------------------------------------------------------------------------------------------------------- */

/* A block of columns and the panel of W that it meets. */
typedef struct block {
  LLVMValueRef t, first;              /* of the space: index, and of the first column */
  LLVMValueRef columns;               /* how many there are */
  LLVMValueRef pieces, across, large; /* as in cut */
  LLVMValueRef x;                     /* address of X at the first column and position 0 */
  LLVMValueRef sums;                  /* [column][row of the panel] */
  LLVMValueRef w;                     /* the panel */
  LLVMValueRef k, k_end;              /* of a block of K */
  LLVMValueRef ahead_k;               /* bytes of W that are prefetched in a k */
} block;

static LLVMValueRef ceil_div(sfi_emission *e, LLVMValueRef a, LLVMValueRef b) {
  return LLVMBuildUDiv(e->builder, sfi_addi(e, a, sfi_addi(e, b, sfi_i64(e, -1))), b, "");
}

/* `size` columns from the one at `begin` on: their sums over k in [b->k, b->k_end), added to those that are there where `more` holds (NULL: it
 * does not). ahead: what to prefetch at k 0, NULL: nothing. exact: zeros of W are skipped. */
static void piece_code(sfi_emission *e, const block *b, LLVMValueRef begin, int32_t size, LLVMValueRef more, LLVMValueRef ahead,
                       bool exact) {
  const int64_t rows = panel_rows(e->target);
  const int32_t count = size * VECTORS;
  LLVMValueRef sum[SFI_CARRIED_MAX], before[SFI_CARRIED_MAX], x = sfi_at(e, e->f32, b->x, begin);
  LLVMValueRef to = sfi_at(e, e->f32, b->sums, sfi_muli(e, begin, sfi_i64(e, rows)));
  for (int32_t i = 0; i < count; i++) sum[i] = LLVMConstNull(e->vec);
  if (more) {
    sfi_if resumed;
    sfi_if_begin(e, &resumed, more);
    for (int32_t i = 0; i < count; i++)
      before[i] = sfi_load_vector(e, sfi_at(e, e->f32, to, sfi_i64(e, (int64_t)i * e->lanes)), NULL);
    sfi_if_end(e, &resumed, before, sum, sum, (unsigned)count);
  }
  sfi_loop loop;
  sfi_loop_begin(e, &loop, b->k, b->k_end, sfi_i64(e, 1), sum, (unsigned)count);
  LLVMValueRef x_row = sfi_x_row(e, x, loop.index), w_row = sfi_at(e, e->f32, b->w, sfi_muli(e, loop.index, sfi_i64(e, rows)));
  LLVMValueRef w[VECTORS], present[VECTORS];
  for (int32_t v = 0; v < VECTORS; v++) {
    w[v] = sfi_load_vector(e, sfi_at(e, e->f32, w_row, sfi_i64(e, (int64_t)v * e->lanes)), NULL);
    present[v] = exact ? LLVMBuildFCmp(e->builder, LLVMRealUNE, w[v], LLVMConstNull(e->vec), "") : NULL;
  }
  for (int64_t line = 0; ahead && line < rows * 4; line += LINE)
    sfi_prefetch(e, sfi_at(e, e->i8, ahead, sfi_muli(e, LLVMBuildNSWSub(e->builder, loop.index, b->k, ""), b->ahead_k)), line);
  for (int32_t i = 0; i < size; i++) {
    LLVMValueRef value = sfi_splat(e, sfi_load_scalar(e, e->f32, x_row, sfi_i64(e, i)));
    for (int32_t v = 0; v < VECTORS; v++) {
      LLVMValueRef old = loop.carried[i * VECTORS + v], next = sfi_fma(e, w[v], value, old);
      sum[i * VECTORS + v] = exact ? LLVMBuildSelect(e->builder, present[v], next, old, "") : next;
    }
  }
  sfi_loop_end(e, &loop, sum);
  for (int32_t i = 0; i < count; i++)
    sfi_store_vector(e, loop.carried[i], sfi_at(e, e->f32, to, sfi_i64(e, (int64_t)i * e->lanes)), NULL);
}

/* All pieces of the block, k block by k block. */
static void pieces_code(sfi_emission *e, block *b) {
  const uint32_t sizes = piece_sizes(e->kernel, e->target);
  const int64_t depth = e->kernel->contract.depth.c[0], step = k_block(e->kernel), bytes = panel_rows(e->target) * 4;
  sfi_loop k, piece;
  sfi_loop_begin(e, &k, sfi_i64(e, 0), sfi_i64(e, sfi_max(1, depth)), sfi_i64(e, step), NULL, 0); /* no k: sums of 0 */
  b->k = k.index;
  b->k_end = sfi_mini(e, sfi_addi(e, k.index, sfi_i64(e, step)), sfi_i64(e, depth));
  LLVMValueRef more = step < depth ? LLVMBuildICmp(e->builder, LLVMIntNE, k.index, sfi_i64(e, 0), "") : NULL;
  LLVMValueRef next = sfi_at(e, e->i8, b->w, sfi_muli(e, b->k_end, sfi_i64(e, bytes)));
  sfi_loop_begin(e, &piece, sfi_i64(e, 0), b->pieces, sfi_i64(e, 1), NULL, 0);
  LLVMValueRef small = LLVMBuildICmp(e->builder, LLVMIntSGE, piece.index, b->large, "");
  LLVMValueRef size = LLVMBuildNSWSub(e->builder, b->across, LLVMBuildZExt(e->builder, small, e->i64, ""), "");
  LLVMValueRef less = LLVMBuildNSWSub(e->builder, piece.index, sfi_mini(e, piece.index, b->large), "");
  LLVMValueRef begin = LLVMBuildNSWSub(e->builder, sfi_muli(e, piece.index, b->across), less, "");
  LLVMValueRef ahead = sfi_at(e, e->i8, next, sfi_muli(e, piece.index, sfi_muli(e, b->ahead_k, sfi_i64(e, step))));
  for (int32_t s = 1; sizes >> s; s++) {
    if (!(sizes >> s & 1)) continue;
    sfi_if branch;
    const bool only = sizes == UINT32_C(1) << s;
    if (!only) sfi_if_begin(e, &branch, LLVMBuildICmp(e->builder, LLVMIntEQ, size, sfi_i64(e, s), ""));
    piece_code(e, b, begin, s, more, e->kernel->tile.ahead ? ahead : NULL, false);
    if (!only) sfi_if_end(e, &branch, NULL, NULL, NULL, 0);
  }
  sfi_loop_end(e, &piece, NULL);
  sfi_loop_end(e, &k, NULL);
}

/* A square of the sums, at the address of its first: lanes along rows of W. */
static void load_square(sfi_emission *e, LLVMValueRef from, LLVMValueRef *square) {
  const int64_t rows = panel_rows(e->target);
  for (int32_t i = 0; i < e->lanes; i++) square[i] = sfi_load_vector(e, sfi_at(e, e->f32, from, sfi_i64(e, i * rows)), NULL);
}

/* The sums, turned back, into rows [row, end) of the output, vector by vector of columns. */
static void store_code(sfi_emission *e, const block *b, LLVMValueRef row, LLVMValueRef end) {
  LLVMValueRef lanes = sfi_i64(e, e->lanes), one = sfi_i64(e, 1);
  block all = *b;
  all.k = sfi_i64(e, 0);
  all.k_end = sfi_poly_value(e, e->kernel->contract.depth);
  sfi_loop column, part, again;
  sfi_loop_begin(e, &column, sfi_i64(e, 0), b->columns, lanes, NULL, 0);
  const sfi_point point = {.rank = 3,
                           .vector_dim = 2,
                           .vector = true,
                           .index = {b->t, NULL, sfi_addi(e, b->first, column.index)},
                           .mask = sfi_mask_below(e, column.index, b->columns)};
  const sfi_columns columns = {.vectors = 1, .point = {point}};
  const sfi_columns whole = {.vectors = 1}; /* sums of columns that do not exist are 0 */
  LLVMValueRef sums = sfi_at(e, e->f32, b->sums, sfi_muli(e, column.index, sfi_i64(e, panel_rows(e->target))));
  sfi_loop_begin(e, &part, row, end, lanes, NULL, 0);
  LLVMValueRef from = sfi_at(e, e->f32, sums, LLVMBuildNSWSub(e->builder, part.index, row, "")), square[64], exact[64];
  load_square(e, from, square);
  sfi_if suspect;
  sfi_if_begin(e, &suspect, sfi_any_nan(e, &whole, square, e->lanes));
  LLVMValueRef behind = sfi_mini(e, sfi_addi(e, column.index, lanes), b->columns);
  sfi_loop_begin(e, &again, column.index, behind, one, NULL, 0);
  piece_code(e, &all, again.index, 1, NULL, NULL, true);
  sfi_loop_end(e, &again, NULL);
  load_square(e, from, exact);
  sfi_if_end(e, &suspect, exact, square, square, (unsigned)e->lanes);
  sfi_transpose(e, square);
  sfi_store_rows(e, &columns, part.index, e->lanes, square);
  sfi_loop_end(e, &part, NULL);
  sfi_loop_end(e, &column, NULL);
}

/* Columns of the last vector that do not exist are 0: what panels hold there depends on no other block. */
static void clear_rest(sfi_emission *e, const block *b) {
  const int64_t rows = panel_rows(e->target);
  LLVMValueRef lanes = sfi_i64(e, e->lanes);
  sfi_loop column;
  sfi_loop_begin(e, &column, b->columns, sfi_muli(e, ceil_div(e, b->columns, lanes), lanes), sfi_i64(e, 1), NULL, 0);
  LLVMValueRef sums = sfi_at(e, e->f32, b->sums, sfi_muli(e, column.index, sfi_i64(e, rows)));
  for (int32_t v = 0; v < VECTORS; v++)
    sfi_store_vector(e, LLVMConstNull(e->vec), sfi_at(e, e->f32, sums, sfi_i64(e, (int64_t)v * e->lanes)), NULL);
  sfi_loop_end(e, &column, NULL);
}

/* The block with the panels of rows [row_begin, row_end). */
static void block_code(sfi_emission *e, block *b, LLVMValueRef row_begin, LLVMValueRef row_end) {
  const int64_t rows = panel_rows(e->target), depth = e->kernel->contract.depth.c[0];
  sfi_loop panel;
  clear_rest(e, b);
  sfi_loop_begin(e, &panel, row_begin, row_end, sfi_i64(e, rows), NULL, 0);
  LLVMValueRef first = sfi_addi(e, sfi_muli(e, panel.index, sfi_i64(e, depth)), sfi_i64(e, sfi_position_bytes(e->kernel) / 4));
  b->w = sfi_at(e, e->f32, e->base[2], first);
  pieces_code(e, b);
  store_code(e, b, panel.index, sfi_mini(e, sfi_addi(e, panel.index, sfi_i64(e, rows)), row_end));
  sfi_loop_end(e, &panel, NULL);
}

sf_status sfi_gemm_turned_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  const int64_t rows = panel_rows(plan->target);
  const int64_t row_blocks = sfi_ceil_div(k->contract.rows, k->tile.row_block);
  const bool panels = k->ragged.width != 0;
  if (row_blocks == 0) return SF_OK;
  LLVMBuilderRef builder = e->builder;
  LLVMValueRef width = sfi_i64(e, k->tile.column_block), one = sfi_i64(e, 1);
  LLVMValueRef all = panels ? sfi_poly_value(e, k->ragged.columns) : sfi_extent_value(e, k->extent[2]);
  block b = {.sums = sfi_stack(e, sfi_round_up(k->tile.column_block, e->lanes) * rows)};
  LLVMValueRef blocks = panels ? one : ceil_div(e, all, width);
  sfi_loop tile;
  sfi_loop_begin(e, &tile, e->tile_begin, e->tile_end, one, NULL, 0);
  LLVMValueRef number = LLVMBuildUDiv(builder, tile.index, sfi_i64(e, row_blocks), "");
  LLVMValueRef row = sfi_muli(e, LLVMBuildURem(builder, tile.index, sfi_i64(e, row_blocks), ""), sfi_i64(e, k->tile.row_block));
  LLVMValueRef row_end = sfi_mini(e, sfi_addi(e, row, sfi_i64(e, k->tile.row_block)), sfi_i64(e, k->contract.rows));
  b.t = LLVMBuildUDiv(builder, number, blocks, "");
  b.first = sfi_muli(e, LLVMBuildURem(builder, number, blocks, ""), width);
  LLVMValueRef before = panels ? sfi_muli(e, b.t, width) : b.first;
  b.columns = sfi_mini(e, LLVMBuildNSWSub(builder, all, before, ""), width);
  b.pieces = ceil_div(e, b.columns, sfi_i64(e, piece_most(plan->target)));
  b.across = ceil_div(e, b.columns, b.pieces);
  b.large = LLVMBuildNSWSub(builder, b.columns, sfi_muli(e, b.pieces, sfi_addi(e, b.across, sfi_i64(e, -1))), "");
  b.ahead_k = ceil_div(e, sfi_i64(e, rows * 4), b.pieces);
  LLVMValueRef index =
      sfi_addi(e, sfi_poly_value(e, k->operand[1].offset), sfi_muli(e, b.t, sfi_poly_value(e, k->operand[1].stride[0])));
  b.x = sfi_at(e, e->f32, e->base[1], sfi_addi(e, index, b.first));
  block_code(e, &b, row, row_end);
  sfi_loop_end(e, &tile, NULL);
  return SF_OK;
}
