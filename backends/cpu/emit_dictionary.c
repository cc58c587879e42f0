/* "spmm-dictionary": sparse matrix product on a dictionary of column patterns (Sparse Register Tiling, Wilkinson, Cheshmi, Dehnavi,
 * PLDI 2023). W is cut in panels of Mr = 4 rows. Which of the 4 rows a column touches is its pattern, one of 15; a panel's columns
 * are sorted by pattern, and each pattern has its own loop: load V vectors of X once, then one broadcast and V multiply-adds for each row
 * of the pattern. No branch depends on data, nothing is padded, and no zero is ever multiplied.
 *
 * Packed W: header | positions and values of all panels.
 *   header:   int64 byte offset of: counts, starts, positions, values
 *   counts:   uint32 [panel][15], columns of each pattern
 *   starts:   uint32 [panel][2], first position and first value of the panel
 *   positions: uint32, of X rows (see sfi_position); values: float, those of one column together, by row */
#include "emitters.h"

enum { MR = 4, PATTERNS = (1 << MR) - 1 };
enum { COUNTS, STARTS, POSITIONS, VALUES, SECTIONS };

sfi_refusal sfi_dictionary_accept(sfi_kernel *k, const sfi_plan *plan) {
  if (sfi_is(k->extent[2].of, 1) && sfi_is(k->extent[0].of, 1)) return SFI_REFUSE_ONE_COLUMN;
  if (!sfi_is(k->operand[1].stride[2], 1) && !sfi_is(k->extent[2].of, 1)) return SFI_REFUSE_STRIDED_COLUMNS;
  if (!sfi_positions_fit(k) || k->contract.facts->nonzeros > UINT32_MAX) return SFI_REFUSE_OFFSETS_TOO_LARGE;
  sfi_choose_columns(k, plan->target, plan->target->registers > 16 ? 5 : 2);
  sfi_choose_rows(k, plan->target, MR, sfi_density(k->contract.facts) * (double)k->contract.matrix.columns * 8);
  return SFI_REFUSE_NONE;
}

/* The slowest of three, a cycle: two multiply-adds; 1.8 loads (V of X and half an index a column, one broadcast a nonzero); two thirds of
 * a line of X from L2, where a tile of X is larger than L1. Measured on Zen 5. Columns that a panel touches are estimated as if nonzeros
 * were independent. */
double sfi_dictionary_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  const sfi_facts *f = k->contract.facts;
  double density = sfi_density(f), empty = 1;
  const int64_t together = sfi_min(MR, k->contract.rows / k->contract.groups); /* rows of a panel that read the same columns */
  for (int64_t i = 0; i < together; i++) empty *= 1 - density;
  double panels = (double)sfi_ceil_div(k->contract.rows, MR), v = k->tile.vectors;
  double columns = panels * (double)(k->contract.matrix.columns * MR) / (double)together * (1 - empty),
         nonzeros = (double)f->nonzeros;
  double tile_bytes = (double)k->contract.depth.c[0] * v * plan->target->lanes * 4;
  double fmas = nonzeros * v / 2 * 1.06, loads = (columns * (v * sfi_slots_a_load(k) + 0.5) + nonzeros) / 1.8;
  double lines =
      tile_bytes > (double)plan->target->l1_bytes * 0.85 ? columns * v * plan->target->lanes / 16 * 1.5 * sfi_slots_a_load(k) : 0;
  double cycles = fmas > loads ? fmas : loads;
  if (lines > cycles) cycles = lines;
  double passes = sfi_total_columns(k, plan->target, symbol) / (plan->target->lanes * v);
  return sfi_cycles_us(plan->target, passes * (cycles + panels * (PATTERNS * 1.5 + MR * v)));
}

static int pattern_of(const sfi_kernel *k, int64_t panel, int64_t column, float values[MR]) {
  int pattern = 0;
  for (int64_t r = 0; r < MR && panel * MR + r < k->contract.rows; r++) {
    float w = sfi_weight_at(&k->contract, panel * MR + r, column);
    if (w != 0) values[__builtin_popcount((unsigned)pattern)] = w, pattern |= 1 << r;
  }
  return pattern;
}

/* Columns of X that the rows of a panel may touch: all, or those of the groups that the panel meets. */
static void column_range(const sfi_kernel *k, int64_t panel, int64_t *begin, int64_t *end) {
  int64_t rows = k->contract.rows / k->contract.groups, last = sfi_min(panel * MR + MR, k->contract.rows) - 1;
  *begin = panel * MR / rows * k->contract.matrix.columns;
  *end = (last / rows + 1) * k->contract.matrix.columns;
}

sf_status sfi_dictionary_pack(const sfi_kernel *k, const sfi_plan *plan, const sf_allocator *allocator, sfi_diag *diag,
                              sfi_blob *out) {
  (void)plan;
  int64_t panels = sfi_ceil_div(k->contract.rows, MR), nonzeros = k->contract.facts->nonzeros, columns = 0, begin, end;
  float values[MR];
  for (int64_t p = 0; p < panels; p++) {
    column_range(k, p, &begin, &end);
    for (int64_t c = begin; c < end; c++) columns += pattern_of(k, p, c, values) != 0;
  }
  int64_t offset[SECTIONS + 1] = {64};
  offset[STARTS] = offset[COUNTS] + sfi_round_up(panels * PATTERNS * 4, 64);
  offset[POSITIONS] = offset[STARTS] + sfi_round_up(panels * 8, 64);
  offset[VALUES] = offset[POSITIONS] + sfi_round_up(columns * 4, 64);
  offset[SECTIONS] = offset[VALUES] + sfi_round_up(nonzeros * 4, 64);
  if (!sfi_blob_init(out, allocator, (size_t)offset[SECTIONS])) return sfi_fail_memory(diag);
  memcpy(out->data, offset, SECTIONS * sizeof *offset);
  uint32_t *counts = (uint32_t *)(void *)(out->data + offset[COUNTS]), *starts = (uint32_t *)(void *)(out->data + offset[STARTS]);
  uint32_t *positions = (uint32_t *)(void *)(out->data + offset[POSITIONS]);
  float *packed = (float *)(void *)(out->data + offset[VALUES]);
  uint32_t next_position = 0, next_value = 0;
  for (int64_t p = 0; p < panels; p++) {
    uint32_t *count = counts + p * PATTERNS, position_at[PATTERNS + 1], value_at[PATTERNS + 1];
    column_range(k, p, &begin, &end);
    for (int64_t c = begin; c < end; c++) {
      int pattern = pattern_of(k, p, c, values);
      if (pattern) count[pattern - 1]++;
    }
    starts[p * 2] = next_position, starts[p * 2 + 1] = next_value;
    for (int i = 1; i <= PATTERNS; i++) {
      position_at[i] = next_position, value_at[i] = next_value;
      next_position += count[i - 1];
      next_value += count[i - 1] * (uint32_t)__builtin_popcount((unsigned)i);
    }
    for (int64_t c = begin; c < end; c++) {
      int pattern = pattern_of(k, p, c, values);
      if (!pattern) continue;
      size_t n = (size_t)__builtin_popcount((unsigned)pattern);
      positions[position_at[pattern]++] = sfi_position(k, c);
      memcpy(packed + value_at[pattern], values, n * sizeof *values);
      value_at[pattern] += (uint32_t)n;
    }
  }
  return SF_OK;
}

/* The loop of one pattern: position and value are carried addresses; acc of the pattern's rows is carried too. */
static void pattern_loop(sfi_emission *e, const sfi_columns *columns, int pattern, LLVMValueRef count, LLVMValueRef *position,
                         LLVMValueRef *value, LLVMValueRef *acc) {
  int32_t vectors = columns->vectors, n = 0;
  LLVMValueRef carried[SFI_CARRIED_MAX], next[SFI_CARRIED_MAX], x[SFI_VECTORS_MAX];
  carried[n++] = *position, carried[n++] = *value;
  for (int r = 0; r < MR; r++)
    for (int32_t v = 0; pattern >> r & 1 && v < vectors; v++) carried[n++] = acc[r * vectors + v];
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), count, sfi_i64(e, 1), carried, (unsigned)n);
  LLVMValueRef row = sfi_x_row_at(e, columns->x, sfi_load_u32(e, loop.carried[0], sfi_i64(e, 0)));
  for (int32_t v = 0; v < vectors; v++)
    x[v] = sfi_load_vector(e, sfi_at(e, e->f32, row, sfi_i64(e, (int64_t)v * e->lanes)), columns->load_mask[v]);
  int32_t i = 2, loaded = 0;
  for (int r = 0; r < MR; r++) {
    if (!(pattern >> r & 1)) continue;
    LLVMValueRef w = sfi_splat(e, sfi_load_scalar(e, e->f32, loop.carried[1], sfi_i64(e, loaded++)));
    for (int32_t v = 0; v < vectors; v++, i++) next[i] = sfi_fma(e, w, x[v], loop.carried[i]);
  }
  next[0] = sfi_at(e, e->i32, loop.carried[0], sfi_i64(e, 1));
  next[1] = sfi_at(e, e->f32, loop.carried[1], sfi_i64(e, loaded));
  sfi_loop_end(e, &loop, next);
  *position = loop.carried[0], *value = loop.carried[1];
  i = 2;
  for (int r = 0; r < MR; r++)
    for (int32_t v = 0; pattern >> r & 1 && v < vectors; v++) acc[r * vectors + v] = loop.carried[i++];
}

static void dictionary_rows(sfi_emission *e, const sfi_columns *columns, LLVMValueRef row_begin, LLVMValueRef row_end) {
  LLVMValueRef acc[MR * SFI_VECTORS_MAX], counts = sfi_packed_section(e, COUNTS), starts = sfi_packed_section(e, STARTS);
  LLVMValueRef positions = sfi_packed_section(e, POSITIONS), values = sfi_packed_section(e, VALUES);
  sfi_loop loop;
  sfi_loop_begin(e, &loop, row_begin, row_end, sfi_i64(e, MR), NULL, 0);
  LLVMValueRef panel = LLVMBuildUDiv(e->builder, loop.index, sfi_i64(e, MR), ""), start = sfi_muli(e, panel, sfi_i64(e, 2));
  LLVMValueRef position = sfi_at(e, e->i32, positions, sfi_load_u32(e, starts, start));
  LLVMValueRef value = sfi_at(e, e->f32, values, sfi_load_u32(e, starts, sfi_addi(e, start, sfi_i64(e, 1))));
  LLVMValueRef count = sfi_at(e, e->i32, counts, sfi_muli(e, panel, sfi_i64(e, PATTERNS)));
  for (int32_t i = 0; i < MR * columns->vectors; i++) acc[i] = LLVMConstNull(e->vec);
  for (int pattern = 1; pattern <= PATTERNS; pattern++)
    pattern_loop(e, columns, pattern, sfi_load_u32(e, count, sfi_i64(e, pattern - 1)), &position, &value, acc);
  sfi_store_rows(e, columns, loop.index, MR, acc);
  sfi_loop_end(e, &loop, NULL);
}

sf_status sfi_dictionary_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)k, (void)plan;
  sfi_contraction_tiles(e, dictionary_rows);
  return SF_OK;
}
