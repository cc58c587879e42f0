/* "gemv-window": sparse matrix times few columns, for weights that stay in a cache. Lanes run along 16 rows of W; a SLOT gives each of them
 * its next nonzero inside one window of 32 consecutive x, which two loads and one two-table permute fetch for all lanes at once: no
 * gather, no branch. A VISIT of a window takes two slots, four for three and more columns, with the same two loads. Lanes without a nonzero
 * in the window idle, with a value of 0.
 *
 * Rows are sorted by their number of nonzeros, so that the rows of a panel run out together, and panels are dealt from both ends, so that
 * any run of panels is a fair share. As idle lanes multiply 0 by x, a panel whose sums hold a NaN is computed again with those lanes
 * masked off (emit_gemm.c explains).
 *
 * Packed W: header | visits of panels | rows | windows | lanes | values
 *   header: int64 byte offset of each section;  panels: uint32 [panels + 1], first visit
 *   rows: int32 [panel][16], row of each lane, -1 for none;  windows: uint16 [visit], first x
 *   lanes: uint8 [visit][slot][16], index in the window;  values: float [visit][slot][16] */
#include "emitters.h"
#include "few.h"

#include <stdlib.h>

enum { PANELS, ROWS, WINDOWS, LANES, VALUES, SECTIONS };
enum { L = 16, WINDOW = 32, SLOTS_MAX = 4 };

/* Of a visit. More share the loads of x, and idle more. */
static int32_t slots_of(const sfi_kernel *k) {
  return k->tile.vectors > 2 ? SLOTS_MAX : 2;
}

sfi_refusal sfi_gemv_window_accept(sfi_kernel *k, const sfi_plan *plan) {
  if (!plan->target->masks || plan->target->lanes != L) return SFI_REFUSE_NO_EXPAND;
  if (k->contract.k_offset || !sfi_is(k->operand[1].stride[1], 1)) return SFI_REFUSE_STRIDED_COLUMNS;
  if (k->contract.groups > 1) return SFI_REFUSE_GROUPS;
  if (k->contract.depth.c[0] < WINDOW) return SFI_REFUSE_FEW_COLUMNS;
  if (k->contract.depth.c[0] - WINDOW > UINT16_MAX || k->contract.facts->nonzeros > INT32_MAX) return SFI_REFUSE_OFFSETS_TOO_LARGE;
  return sfi_few_accept(k, plan, SFI_FEW_MAX, L, 0);
}

/* Lanes of all slots, at work or idle: idle ones are about as many a window, whatever the density. Fitted to magnitude-pruned layers of
 * 50 to 98 % zeros. */
static double lanes_of(const sfi_kernel *k, int32_t slots) {
  return (double)k->contract.facts->nonzeros +
         (double)k->contract.rows * (double)k->contract.depth.c[0] / WINDOW * (0.9 + 0.45 * slots);
}

/* Measured on Zen 5: a permute and a multiply-add a column and slot, beside the loads; a panel pays its exit and a scatter a column. */
double sfi_gemv_window_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  int32_t visit = slots_of(k);
  double n = sfi_few_columns(k, symbol), slots = lanes_of(k, visit) / L, panels = (double)sfi_few_panels(k);
  return sfi_few_us(plan, 1.05 * slots * (L * 5 + 2.0 / visit), slots * (n > 2 ? 0.2 + n : 1.2 + n) + panels * (10 + 12 * n));
}

/* ---- packing ------------------------------------------------------------------------------------------------------- */

typedef struct packer {
  const sfi_kernel *k;
  const int64_t *start;  /* [rows + 1]: of each row's columns */
  const int32_t *column; /* of all nonzeros */
} packer;

/* The visits of one panel of rows; out NULL only counts. visit: the first one. Returns their number. */
static int64_t pack_panel(const packer *p, const int32_t rows[L], uint8_t *out, const int64_t *offset, int64_t visit) {
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
    if (out) memcpy(out + offset[WINDOWS] + (visit + count) * 2, &window, 2);
    for (int64_t slot = (visit + count) * slots_of(p->k), end = slot + slots_of(p->k); slot < end; slot++) {
      uint8_t lane[L] = {0};
      float value[L] = {0};
      for (int i = 0; i < L; i++) {
        if (rows[i] < 0 || at[i] == p->start[rows[i] + 1] || p->column[at[i]] >= first + WINDOW) continue;
        lane[i] = (uint8_t)(p->column[at[i]] - first);
        if (out) value[i] = sfi_weight_at(&p->k->contract, rows[i], p->column[at[i]]);
        at[i]++;
      }
      if (!out) continue;
      memcpy(out + offset[LANES] + slot * L, lane, sizeof lane);
      memcpy(out + offset[VALUES] + slot * L * 4, value, sizeof value);
    }
  }
  return count;
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
  int64_t rows = k->contract.rows, panels = sfi_ceil_div(rows, L), nonzeros = k->contract.facts->nonzeros, n = 0, visits = 0;
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
  for (int64_t i = 0; i < panels; i++) visits += pack_panel(&p, row + i * L, NULL, NULL, 0);
  int64_t slots = visits * slots_of(k);
  int64_t offset[SECTIONS + 1] = {64};
  offset[ROWS] = offset[PANELS] + sfi_round_up((panels + 1) * 4, 64);
  offset[WINDOWS] = offset[ROWS] + sfi_round_up(panels * L * 4, 64);
  offset[LANES] = offset[WINDOWS] + sfi_round_up(visits * 2, 64);
  offset[VALUES] = offset[LANES] + sfi_round_up(slots * L, 64);
  offset[SECTIONS] = offset[VALUES] + slots * L * 4;
  if (!sfi_blob_init(out, allocator, (size_t)offset[SECTIONS])) {
    st = sfi_fail_memory(diag);
    goto done;
  }
  memcpy(out->data, offset, SECTIONS * sizeof *offset);
  memcpy(out->data + offset[ROWS], row, (size_t)(panels * L) * sizeof *row);
  uint32_t *first = (uint32_t *)(void *)(out->data + offset[PANELS]);
  visits = 0;
  for (int64_t i = 0; i < panels; i++) {
    first[i] = (uint32_t)visits;
    visits += pack_panel(&p, row + i * L, out->data, offset, visits);
  }
  first[panels] = (uint32_t)visits;
done:
  sfi_free(allocator, start, start_bytes);
  sfi_free(allocator, key, key_bytes);
  sfi_free(allocator, column, column_bytes);
  sfi_free(allocator, row, row_bytes);
  return st;
}

/* ---- code ---------------------------------------------------------------------------------------------------------- */

typedef struct sections {
  LLVMValueRef windows, lanes, values;
} sections;

/* sum += one visit. sum: [2][column]; slots alternate between the two, to cover the latency of the multiply-add. */
static void visit(sfi_emission *e, const sfi_few *few, const sections *s, LLVMValueRef index, bool exact, LLVMValueRef *sum) {
  LLVMBuilderRef b = e->builder;
  int32_t slots = slots_of(e->kernel);
  LLVMValueRef first = LLVMBuildZExt(b, sfi_load_scalar(e, e->i16, s->windows, index), e->i64, ""), lane[SLOTS_MAX], w[SLOTS_MAX];
  for (int32_t i = 0; i < slots; i++) {
    LLVMValueRef element = sfi_muli(e, sfi_addi(e, sfi_muli(e, index, sfi_i64(e, slots)), sfi_i64(e, i)), sfi_i64(e, L));
    LLVMValueRef bytes = LLVMBuildLoad2(b, LLVMVectorType(e->i8, L), sfi_at(e, e->i8, s->lanes, element), "");
    LLVMSetAlignment(bytes, 16);
    lane[i] = LLVMBuildZExt(b, bytes, LLVMVectorType(e->i32, L), "");
    w[i] = sfi_load_vector(e, sfi_at(e, e->f32, s->values, element), NULL);
  }
  for (int32_t n = 0; n < few->n; n++) {
    LLVMValueRef window = sfi_at(e, e->f32, few->x[n], first);
    LLVMValueRef low = sfi_load_vector(e, window, NULL), high = sfi_load_vector(e, sfi_at(e, e->f32, window, sfi_i64(e, L)), NULL);
    for (int32_t i = 0; i < slots; i++) {
      LLVMValueRef x = sfi_intrinsic(e, "llvm.x86.avx512.vpermi2var.ps.512", NULL, 0, (LLVMValueRef[]){low, lane[i], high}, 3);
      LLVMValueRef *to = &sum[i % 2 * few->n + n], next = sfi_fma(e, w[i], x, *to);
      if (exact) next = LLVMBuildSelect(b, LLVMBuildFCmp(b, LLVMRealUNE, w[i], LLVMConstNull(e->vec), ""), next, *to, "");
      *to = next;
    }
  }
}

static void panel_sums(sfi_emission *e, const sfi_few *few, const sections *s, LLVMValueRef begin, LLVMValueRef end, bool exact,
                       LLVMValueRef *out) {
  int32_t n = few->n;
  LLVMValueRef sum[2 * SFI_FEW_MAX];
  for (int32_t i = 0; i < 2 * n; i++) sum[i] = LLVMConstNull(e->vec);
  sfi_loop loop;
  sfi_loop_begin(e, &loop, begin, end, sfi_i64(e, 1), sum, (unsigned)(2 * n));
  memcpy(sum, loop.carried, (size_t)(2 * n) * sizeof *sum);
  visit(e, few, s, loop.index, exact, sum);
  sfi_loop_end(e, &loop, sum);
  for (int32_t i = 0; i < n; i++) out[i] = LLVMBuildFAdd(e->builder, loop.carried[i], loop.carried[n + i], "");
}

static void window_panel(sfi_emission *e, const sfi_few *few, LLVMValueRef panel) {
  sections s = {sfi_packed_section(e, WINDOWS), sfi_packed_section(e, LANES), sfi_packed_section(e, VALUES)};
  LLVMValueRef panels = sfi_packed_section(e, PANELS), rows = sfi_packed_section(e, ROWS), sum[SFI_FEW_MAX], exact[SFI_FEW_MAX];
  LLVMValueRef first = sfi_load_u32(e, panels, panel), last = sfi_load_u32(e, panels, sfi_addi(e, panel, sfi_i64(e, 1)));
  panel_sums(e, few, &s, first, last, false, sum);
  sfi_if again;
  sfi_if_begin(e, &again, sfi_few_suspect(e, sum, few->n));
  panel_sums(e, few, &s, first, last, true, exact);
  sfi_if_end(e, &again, exact, sum, sum, (unsigned)few->n);
  LLVMValueRef row =
      LLVMBuildLoad2(e->builder, LLVMVectorType(e->i32, L), sfi_at(e, e->i32, rows, sfi_muli(e, panel, sfi_i64(e, L))), "");
  sfi_few_store(e, few, sfi_i64(e, 0), row, sum);
}

sf_status sfi_gemv_window_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)k, (void)plan;
  sfi_few_walk(e, window_panel);
  return SF_OK;
}
