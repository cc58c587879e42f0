/* "gemv-window": sparse matrix times one column, for weights that stay in a cache. Lanes run along 16 rows of W; a SLOT gives each of them
 * its next nonzero inside one window of 32 consecutive x, which two loads and one two-table permute fetch for all lanes at once: no
 * gather, no branch. Lanes without a nonzero in the window idle, with a value of 0.
 *
 * Rows are sorted by their number of nonzeros, so that the rows of a panel run out together, and panels are dealt from both ends, so that
 * any run of panels is a fair share. As idle lanes multiply 0 by x, a panel whose sums hold a NaN is computed again with those lanes
 * masked off (emit_gemm.c explains).
 *
 * Packed W: header | slots of panels | rows | windows | lanes | values
 *   header: int64 byte offset of each section;  panels: uint32 [panels + 1], first slot, a multiple of UNROLL
 *   rows: int32 [panel][16], row of each lane, -1 for none;  windows: uint16 [slot], first x; those of one round of the loop are one load
 *   lanes: uint8 [slot][16], index in the window;  values: float [slot][16] */
#include "emitters.h"

#include <stdlib.h>

enum { PANELS, ROWS, WINDOWS, LANES, VALUES, SECTIONS };
enum { L = 16, WINDOW = 32, UNROLL = 4 };

sfi_refusal sfi_gemv_window_accept(sfi_kernel *k, const sfi_plan *plan) {
  if (!sfi_is(k->extent[2].of, 1) || !sfi_is(k->extent[0].of, 1)) return SFI_REFUSE_MANY_COLUMNS;
  if (!plan->target->masks || plan->target->lanes != L) return SFI_REFUSE_NO_EXPAND;
  if (k->contract.k_offset || !sfi_is(k->operand[1].stride[1], 1)) return SFI_REFUSE_STRIDED_COLUMNS;
  if (k->contract.groups > 1) return SFI_REFUSE_GROUPS;
  if (k->contract.depth.c[0] < WINDOW) return SFI_REFUSE_FEW_COLUMNS;
  if (k->contract.depth.c[0] - WINDOW > UINT16_MAX) return SFI_REFUSE_OFFSETS_TOO_LARGE;
  if (k->contract.facts->nonzeros > INT32_MAX || !sfi_positions_fit(k)) return SFI_REFUSE_OFFSETS_TOO_LARGE;
  k->tile.vectors = 1;
  k->tile.column_block = 1;
  sfi_choose_rows(k, plan->target, L, 0);
  return SFI_REFUSE_NONE;
}

/* Share of lanes at work: close to 1 where a window holds many nonzeros of a row. Fitted to random patterns of 30 to 98 % zeros. */
static double occupancy(double density) {
  double in_window = density * WINDOW;
  return in_window / (in_window + 0.9) * 0.9 + 0.04;
}

double sfi_gemv_window_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  (void)symbol;
  double density = sfi_density(k->contract.facts), nonzeros = (double)k->contract.facts->nonzeros;
  double slots = nonzeros / L / occupancy(density), bytes = slots * (L * 5 + 2);
  double panels = (double)sfi_ceil_div(k->contract.rows, L);
  double us = sfi_cycles_us(plan->target, slots * 2.6 + panels * 30), read = sfi_read_us(plan->target, bytes);
  return us > read ? us : read;
}

/* ---- packing ------------------------------------------------------------------------------------------------------- */

typedef struct packer {
  const sfi_kernel *k;
  const int64_t *start;  /* [rows + 1]: of each row's columns */
  const int32_t *column; /* of all nonzeros */
} packer;

/* The slots of one panel of rows; out NULL only counts. slot: first slot. Returns the number, padded to UNROLL. */
static int64_t pack_panel(const packer *p, const int32_t rows[L], uint8_t *out, const int64_t *offset, int64_t slot) {
  int64_t at[L], depth = p->k->contract.depth.c[0], count = 0;
  for (int i = 0; i < L; i++) at[i] = rows[i] < 0 ? 0 : p->start[rows[i]];
  for (;; count++) {
    int64_t first = INT64_MAX;
    for (int i = 0; i < L; i++)
      if (rows[i] >= 0 && at[i] < p->start[rows[i] + 1]) first = sfi_min(first, p->column[at[i]]);
    if (first == INT64_MAX) break;
    /* On a multiple of a cache line: a load across two lines takes two slots, which costs more than the lanes lost by rounding. */
    first = sfi_min(first / L * L, depth - WINDOW);
    uint16_t window = (uint16_t)first;
    uint8_t lane[L] = {0};
    float value[L] = {0};
    for (int i = 0; i < L; i++) {
      if (rows[i] < 0 || at[i] == p->start[rows[i] + 1] || p->column[at[i]] >= first + WINDOW) continue;
      lane[i] = (uint8_t)(p->column[at[i]] - first);
      if (out) value[i] = sfi_weight_at(&p->k->contract, rows[i], p->column[at[i]]);
      at[i]++;
    }
    if (!out) continue;
    memcpy(out + offset[WINDOWS] + (slot + count) * 2, &window, 2);
    memcpy(out + offset[LANES] + (slot + count) * L, lane, sizeof lane);
    memcpy(out + offset[VALUES] + (slot + count) * L * 4, value, sizeof value);
  }
  return sfi_round_up(count, UNROLL); /* padding slots are zero: window 0, values 0 */
}

static int falling(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x < y) - (x > y);
}

/* Rows by falling number of nonzeros, equal ones in order, then panels from both ends in turn. key: panels * L entries of scratch. */
static void order_rows(const packer *p, int32_t *row, int64_t *key) {
  int64_t rows = p->k->contract.rows, panels = sfi_ceil_div(rows, L);
  for (int64_t r = 0; r < panels * L; r++) key[r] = r < rows ? ((p->start[r + 1] - p->start[r] + 1) << 32) - r : 0;
  qsort(key, (size_t)(panels * L), sizeof *key, falling);
  for (int64_t i = 0; i < panels; i++)
    for (int64_t lane = 0; lane < L; lane++) {
      int64_t from = key[(i % 2 ? panels - 1 - i / 2 : i / 2) * L + lane];
      row[i * L + lane] = from ? (int32_t)(-from & 0xffffffff) : -1;
    }
}

sf_status sfi_gemv_window_pack(const sfi_kernel *k, const sfi_plan *plan, const sf_allocator *allocator, sfi_diag *diag,
                               sfi_blob *out) {
  (void)plan;
  int64_t rows = k->contract.rows, panels = sfi_ceil_div(rows, L), nonzeros = k->contract.facts->nonzeros, n = 0, slots = 0;
  size_t start_bytes = (size_t)(rows + 1) * sizeof(int64_t), column_bytes = (size_t)(nonzeros + 1) * sizeof(int32_t);
  size_t row_bytes = (size_t)(panels * L) * sizeof(int32_t), key_bytes = (size_t)(panels * L) * sizeof(int64_t);
  int64_t *start = sfi_alloc(allocator, start_bytes), *key = sfi_alloc(allocator, key_bytes);
  int32_t *column = sfi_alloc(allocator, column_bytes), *row = sfi_alloc(allocator, row_bytes);
  sf_status st = SF_OK;
  if (!start || !key || !column || !row) {
    st = sfi_fail_memory(diag);
    goto done;
  }
  for (int64_t r = 0; r < rows; r++) {
    start[r] = n;
    for (int64_t c = 0; c < k->contract.depth.c[0]; c++)
      if (sfi_weight_at(&k->contract, r, c) != 0) column[n++] = (int32_t)c;
  }
  start[rows] = n;
  packer p = {k, start, column};
  order_rows(&p, row, key);
  for (int64_t i = 0; i < panels; i++) slots += pack_panel(&p, row + i * L, NULL, NULL, 0);
  int64_t offset[SECTIONS + 1] = {64};
  offset[ROWS] = offset[PANELS] + sfi_round_up((panels + 1) * 4, 64);
  offset[WINDOWS] = offset[ROWS] + sfi_round_up(panels * L * 4, 64);
  offset[LANES] = offset[WINDOWS] + sfi_round_up(slots * 2, 64);
  offset[VALUES] = offset[LANES] + sfi_round_up(slots * L, 64);
  offset[SECTIONS] = offset[VALUES] + slots * L * 4;
  if (!sfi_blob_init(out, allocator, (size_t)offset[SECTIONS])) {
    st = sfi_fail_memory(diag);
    goto done;
  }
  memcpy(out->data, offset, SECTIONS * sizeof *offset);
  memcpy(out->data + offset[ROWS], row, (size_t)(panels * L) * sizeof *row);
  uint32_t *first = (uint32_t *)(void *)(out->data + offset[PANELS]);
  slots = 0;
  for (int64_t i = 0; i < panels; i++) {
    first[i] = (uint32_t)slots;
    slots += pack_panel(&p, row + i * L, out->data, offset, slots);
  }
  first[panels] = (uint32_t)slots;
done:
  sfi_free(allocator, start, start_bytes);
  sfi_free(allocator, key, key_bytes);
  sfi_free(allocator, column, column_bytes);
  sfi_free(allocator, row, row_bytes);
  return st;
}

/* ---- code ---------------------------------------------------------------------------------------------------------- */

static LLVMValueRef section(sfi_emission *e, int index) {
  return sfi_at(e, e->i8, e->base[2], sfi_load_scalar(e, e->i64, e->base[2], sfi_i64(e, index)));
}
static LLVMValueRef load_u32(sfi_emission *e, LLVMValueRef base, LLVMValueRef index) {
  return LLVMBuildZExt(e->builder, sfi_load_scalar(e, e->i32, base, index), e->i64, "");
}

typedef struct sections {
  LLVMValueRef x, windows, lanes, values;
} sections;

/* first: of the slot's window. */
static LLVMValueRef slot_step(sfi_emission *e, const sections *s, LLVMValueRef slot, LLVMValueRef first, LLVMValueRef sum,
                              bool exact) {
  LLVMBuilderRef b = e->builder;
  LLVMValueRef window = sfi_at(e, e->f32, s->x, first), element = sfi_muli(e, slot, sfi_i64(e, L));
  LLVMValueRef low = sfi_load_vector(e, window, NULL), high = sfi_load_vector(e, sfi_at(e, e->f32, window, sfi_i64(e, L)), NULL);
  LLVMValueRef bytes = LLVMBuildLoad2(b, LLVMVectorType(e->i8, L), sfi_at(e, e->i8, s->lanes, element), "");
  LLVMSetAlignment(bytes, 16);
  LLVMValueRef index = LLVMBuildZExt(b, bytes, LLVMVectorType(e->i32, L), "");
  LLVMValueRef x = sfi_intrinsic(e, "llvm.x86.avx512.vpermi2var.ps.512", NULL, 0, (LLVMValueRef[]){low, index, high}, 3);
  LLVMValueRef w = sfi_load_vector(e, sfi_at(e, e->f32, s->values, element), NULL), next = sfi_fma(e, w, x, sum);
  if (!exact) return next;
  return LLVMBuildSelect(b, LLVMBuildFCmp(b, LLVMRealUNE, w, LLVMConstNull(e->vec), ""), next, sum, "");
}

static LLVMValueRef panel_sum(sfi_emission *e, const sections *s, LLVMValueRef begin, LLVMValueRef end, bool exact) {
  LLVMValueRef chain[UNROLL];
  for (int i = 0; i < UNROLL; i++) chain[i] = LLVMConstNull(e->vec);
  sfi_loop loop;
  sfi_loop_begin(e, &loop, begin, end, sfi_i64(e, UNROLL), chain, UNROLL);
  LLVMValueRef windows = sfi_at(e, e->i16, s->windows, loop.index);
  windows = LLVMBuildLoad2(e->builder, e->i64, windows, "");
  for (int i = 0; i < UNROLL; i++) {
    LLVMValueRef window =
        LLVMBuildAnd(e->builder, LLVMBuildLShr(e->builder, windows, sfi_i64(e, 16 * i), ""), sfi_i64(e, 0xffff), "");
    chain[i] = slot_step(e, s, sfi_addi(e, loop.index, sfi_i64(e, i)), window, loop.carried[i], exact);
  }
  sfi_loop_end(e, &loop, chain);
  LLVMValueRef low = LLVMBuildFAdd(e->builder, loop.carried[0], loop.carried[1], "");
  return LLVMBuildFAdd(e->builder, low, LLVMBuildFAdd(e->builder, loop.carried[2], loop.carried[3], ""), "");
}

sf_status sfi_gemv_window_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)plan;
  LLVMBuilderRef b = e->builder;
  sections s = {.x = sfi_at(e, e->f32, e->base[1], sfi_poly_value(e, k->operand[1].offset)),
                .windows = section(e, WINDOWS),
                .lanes = section(e, LANES),
                .values = section(e, VALUES)};
  LLVMValueRef panels = section(e, PANELS), rows = section(e, ROWS), per_tile = sfi_i64(e, k->tile.row_block / L);
  LLVMValueRef begin = sfi_muli(e, e->tile_begin, per_tile);
  LLVMValueRef end = sfi_mini(e, sfi_muli(e, e->tile_end, per_tile), sfi_i64(e, sfi_ceil_div(k->contract.rows, L)));
  sfi_loop panel;
  sfi_loop_begin(e, &panel, begin, end, sfi_i64(e, 1), NULL, 0);
  LLVMValueRef first = load_u32(e, panels, panel.index), last = load_u32(e, panels, sfi_addi(e, panel.index, sfi_i64(e, 1)));
  LLVMValueRef sum = panel_sum(e, &s, first, last, false), nan = LLVMBuildFCmp(b, LLVMRealUNO, sum, sum, "");
  LLVMTypeRef type = LLVMTypeOf(nan);
  sfi_if again;
  sfi_if_begin(e, &again, sfi_intrinsic(e, "llvm.vector.reduce.or", &type, 1, &nan, 1));
  LLVMValueRef exact = panel_sum(e, &s, first, last, true);
  sfi_if_end(e, &again, &exact, &sum, &sum, 1);
  /* Lane i is row rows[i]: the point's lanes are not consecutive, so the epilogue gathers and scatters by row. */
  LLVMValueRef row =
      LLVMBuildLoad2(b, LLVMVectorType(e->i32, L), sfi_at(e, e->i32, rows, sfi_muli(e, panel.index, sfi_i64(e, L))), "");
  sfi_point p = {.rank = 3, .vector_dim = 1, .vector = true, .index = {sfi_i64(e, 0), sfi_i64(e, 0), sfi_i64(e, 0)}};
  p.mask = LLVMBuildICmp(b, LLVMIntSGE, row, LLVMConstNull(LLVMTypeOf(row)), "");
  p.lane_index = LLVMBuildSExt(b, row, LLVMVectorType(e->i64, L), "");
  sfi_point_store(e, &p, sfi_expr_value(e, &k->epilogue, &p, sum));
  sfi_loop_end(e, &panel, NULL);
  return SF_OK;
}
