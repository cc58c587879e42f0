/* "spmm-shared": sparse matrix product for weights whose rows share their columns: blocks of some rows, N:M with one choice for several
 * rows, dead rows and columns.
 *
 * Rows of equal pattern are put next to each other, and panels of Mr rows are cut from that order. A panel holds the columns that any of
 * its rows touches, and all Mr values of each: a dense register tile over gathered rows of X, at the dense kernel's rate. Finished rows are
 * stored through a map. Bound: the multiply-adds; a column of X costs V + Mr + 1 loads for Mr V of them.
 *
 * Where rows of a panel differ, zeros are multiplied. As in emit_gemm.c, a tile whose sums hold a NaN is computed again without them.
 *
 * Packed W: header | starts | rows | positions | values
 *   header: int64 byte offset of each section
 *   starts: uint32 [panel + 1], first column of each panel
 *   rows: uint32 [panel][Mr], where in the output; the row count for those that do not exist
 *   positions: uint32, of X rows (see sfi_position); values: float [column][Mr] */
#include "emitters.h"

enum { STARTS, ROWS, POSITIONS, VALUES, SECTIONS };

static int64_t panel_count(const sfi_kernel *k) {
  return sfi_ceil_div(k->contract.rows, k->tile.rows);
}
static int64_t panel_columns(const sfi_kernel *k) {
  return k->contract.facts->panel_columns[k->tile.rows == 8 ? SFI_PANEL8 : SFI_PANEL4];
}

static void choose_tile(sfi_kernel *k, const sfi_target *target, int32_t rows) {
  sfi_choose_columns(k, target, target->registers > 16 ? (rows == 8 ? 3 : 5) : 2);
  k->tile.rows = rows;
  sfi_choose_rows(k, target, rows, (double)panel_columns(k) / (double)sfi_max(1, panel_count(k)) * (rows + 1) * 4 / rows);
}

sfi_refusal sfi_shared_columns_accept(sfi_kernel *k, const sfi_plan *plan) {
  if (sfi_is(k->extent[2].of, 1) && sfi_is(k->extent[0].of, 1)) return SFI_REFUSE_ONE_COLUMN;
  if (k->contract.groups > 1) return SFI_REFUSE_GROUPS;
  if (sfi_density(k->contract.facts) >= 1) return SFI_REFUSE_NO_ZEROS;
  if (!sfi_is(k->operand[1].stride[2], 1) && !sfi_is(k->extent[2].of, 1)) return SFI_REFUSE_STRIDED_COLUMNS;
  if (!sfi_positions_fit(k) || k->contract.rows > INT32_MAX / 8 || k->contract.facts->panel_columns[SFI_PANEL4] > INT32_MAX)
    return SFI_REFUSE_OFFSETS_TOO_LARGE;
  choose_tile(k, plan->target, 4);
  if (plan->target->registers > 16) {
    double four = sfi_shared_columns_cost(k, plan, 1);
    choose_tile(k, plan->target, 8);
    if (sfi_shared_columns_cost(k, plan, 1) > four) choose_tile(k, plan->target, 4);
  }
  return SFI_REFUSE_NONE;
}

/* The slower of two, a cycle: two multiply-adds; 1.8 loads. Each panel costs its stores and the mispredicted end of its loop. */
double sfi_shared_columns_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  double v = k->tile.vectors, rows = k->tile.rows, fmas = rows * v / 2 * 1.03, loads = (v + rows + 1) / 1.8;
  double passes = sfi_total_columns(k, plan->target, symbol) / (plan->target->lanes * v);
  double cycles = (double)panel_columns(k) * (fmas > loads ? fmas : loads) + (double)panel_count(k) * (rows * v * 1.5 + 20);
  return sfi_cycles_us(plan->target, passes * cycles);
}

/* ---- packing ------------------------------------------------------------------------------------------------------- */

static sf_status order_rows(const sfi_kernel *k, const sf_allocator *allocator, sfi_diag *diag, uint32_t *order) {
  int64_t rows = k->contract.rows, depth = k->contract.depth.c[0];
  size_t bitmap_bytes = (size_t)sfi_ceil_div(depth, 64) * 8 + 8, digest_bytes = (size_t)rows * sizeof(sfi_digest);
  uint64_t *bitmap = sfi_alloc(allocator, bitmap_bytes);
  sfi_digest *digest = sfi_alloc(allocator, digest_bytes);
  bool done = bitmap && digest;
  if (done) memset(bitmap, 0, bitmap_bytes);
  for (int64_t r = 0; done && r < rows; r++) {
    sfi_row_bits(&k->contract, r, 0, depth, bitmap);
    digest[r] = sfi_digest_of(bitmap, bitmap_bytes);
  }
  done = done && sfi_order_rows(digest, rows, allocator, order);
  sfi_free(allocator, bitmap, bitmap_bytes);
  sfi_free(allocator, digest, digest_bytes);
  return done ? SF_OK : sfi_fail_memory(diag);
}

static bool touched(const sfi_kernel *k, const uint32_t *rows, int64_t column) {
  for (int32_t i = 0; i < k->tile.rows; i++)
    if (rows[i] < k->contract.rows && sfi_weight_at(&k->contract, rows[i], column) != 0) return true;
  return false;
}

sf_status sfi_shared_columns_pack(const sfi_kernel *k, const sfi_plan *plan, const sf_allocator *allocator, sfi_diag *diag,
                                  sfi_blob *out) {
  (void)plan;
  int64_t panels = panel_count(k), mr = k->tile.rows, columns = panel_columns(k), offset[SECTIONS + 1] = {64}, n = 0;
  offset[ROWS] = offset[STARTS] + sfi_round_up((panels + 1) * 4, 64);
  offset[POSITIONS] = offset[ROWS] + sfi_round_up(panels * mr * 4, 64);
  offset[VALUES] = offset[POSITIONS] + sfi_round_up(columns * 4, 64);
  offset[SECTIONS] = offset[VALUES] + sfi_round_up(columns * mr * 4, 64);
  if (!sfi_blob_init(out, allocator, (size_t)offset[SECTIONS])) return sfi_fail_memory(diag);
  memcpy(out->data, offset, SECTIONS * sizeof *offset);
  uint32_t *starts = (uint32_t *)(void *)(out->data + offset[STARTS]), *rows = (uint32_t *)(void *)(out->data + offset[ROWS]);
  uint32_t *positions = (uint32_t *)(void *)(out->data + offset[POSITIONS]);
  float *values = (float *)(void *)(out->data + offset[VALUES]);
  sf_status st = order_rows(k, allocator, diag, rows);
  if (st != SF_OK) {
    sfi_blob_deinit(out);
    return st;
  }
  for (int64_t i = k->contract.rows; i < panels * mr; i++) rows[i] = (uint32_t)k->contract.rows;
  for (int64_t p = 0; p < panels; p++, rows += mr) {
    starts[p] = (uint32_t)n;
    for (int64_t c = 0; c < k->contract.depth.c[0]; c++) {
      if (!touched(k, rows, c)) continue;
      positions[n] = sfi_position(k, c);
      for (int64_t i = 0; i < mr; i++)
        values[n * mr + i] = rows[i] < k->contract.rows ? sfi_weight_at(&k->contract, rows[i], c) : 0;
      n++;
    }
  }
  starts[panels] = (uint32_t)n;
  assert(n == columns);
  return SF_OK;
}

/* ---- code ---------------------------------------------------------------------------------------------------------- */

/* acc = sums over columns [begin, end) of the panel. exact: zeros of W are skipped. */
static void accumulate(sfi_emission *e, const sfi_columns *columns, LLVMValueRef begin, LLVMValueRef end, bool exact,
                       LLVMValueRef *acc) {
  int32_t rows = e->kernel->tile.rows, count = rows * columns->vectors;
  LLVMValueRef positions = sfi_packed_section(e, POSITIONS), values = sfi_packed_section(e, VALUES);
  LLVMValueRef next[SFI_ACCUMULATORS_MAX], offset[SFI_ROWS_MAX];
  for (int32_t r = 0; r < rows; r++) offset[r] = sfi_i64(e, r);
  for (int32_t i = 0; i < count; i++) acc[i] = LLVMConstNull(e->vec);
  sfi_loop loop;
  sfi_loop_begin(e, &loop, begin, end, sfi_i64(e, 1), acc, (unsigned)count);
  LLVMValueRef row = sfi_opaque(e, sfi_x_row_at(e, columns->x, sfi_load_u32(e, positions, loop.index)));
  LLVMValueRef first = sfi_at(e, e->f32, values, sfi_muli(e, loop.index, sfi_i64(e, rows)));
  sfi_prefetch(e, first, SFI_AHEAD);
  sfi_dense_step(e, columns, row, first, offset, rows, exact, loop.carried, next);
  sfi_loop_end(e, &loop, next);
  memcpy(acc, loop.carried, (size_t)count * sizeof *acc);
}

static void shared_rows(sfi_emission *e, const sfi_columns *columns, LLVMValueRef row_begin, LLVMValueRef row_end) {
  int32_t rows = e->kernel->tile.rows;
  LLVMValueRef acc[SFI_ACCUMULATORS_MAX], exact[SFI_ACCUMULATORS_MAX], row[SFI_ROWS_MAX];
  LLVMValueRef starts = sfi_packed_section(e, STARTS), map = sfi_packed_section(e, ROWS);
  sfi_loop loop;
  sfi_loop_begin(e, &loop, row_begin, row_end, sfi_i64(e, rows), NULL, 0);
  LLVMValueRef panel = LLVMBuildUDiv(e->builder, loop.index, sfi_i64(e, rows), "");
  LLVMValueRef begin = sfi_load_u32(e, starts, panel), end = sfi_load_u32(e, starts, sfi_addi(e, panel, sfi_i64(e, 1)));
  accumulate(e, columns, begin, end, false, acc);
  sfi_if again;
  sfi_if_begin(e, &again, sfi_any_nan(e, columns, acc, rows));
  accumulate(e, columns, begin, end, true, exact);
  sfi_if_end(e, &again, exact, acc, acc, (unsigned)(rows * columns->vectors));
  for (int32_t r = 0; r < rows; r++) row[r] = sfi_load_u32(e, map, sfi_addi(e, loop.index, sfi_i64(e, r)));
  sfi_store_rows_at(e, columns, row, rows, acc);
  sfi_loop_end(e, &loop, NULL);
}

sf_status sfi_shared_columns_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)k, (void)plan;
  sfi_contraction_tiles(e, shared_rows);
  return SF_OK;
}
