/* "gemv-window": sparse matrix times few columns, for weights that stay in a cache. Lanes run along 16 rows of W; a SLOT gives each of them
 * its next nonzero inside one window of 32 consecutive x, which two loads and one two-table permute fetch for all lanes at once: no
 * gather, no branch. A VISIT of a window takes two slots with the same two loads: one would be bound by loads, with four more lanes are
 * without a nonzero in the window and idle, with a value of 0.
 *
 * The rows of a BLOCK are sorted by their number of nonzeros, so that the 16 rows of a panel run out together, and their sums are
 * brought back into the order of the rows by permutes: a scatter costs 25 cycles a vector. As idle lanes multiply 0 by x, a panel whose
 * sums hold a NaN is computed again with those lanes masked off (emit_gemm.c explains).
 *
 * Packed W: header | visits of panels | places | windows | lanes | values
 *   header: int64 byte offset of each section;  panels: uint32 [panels + 1], first visit
 *   places: uint8 [row], of panels * 16, where among its block's sorted rows each is;  windows: uint16 [visit], first x
 *   lanes: uint8 [visit][slot][16], index in the window;  values: float [visit][slot][16] */
#include "emitters.h"
#include "few.h"

enum { PANELS, PLACES, WINDOWS, LANES, VALUES, SECTIONS };
enum { L = 16, WINDOW = 32, SLOTS = 2, PANELS_MAX = 8 };

/* Of a block, a power of two. More sort better, and take more permutes. Few rows are better cut into more tiles. */
static int32_t panels_of(const sfi_kernel *k) {
  return k->contract.rows >= 1024 ? PANELS_MAX : 4;
}
static int64_t panel_count(const sfi_kernel *k) {
  return sfi_few_panels(k) * panels_of(k);
}

sfi_refusal sfi_gemv_window_accept(sfi_kernel *k, const sfi_plan *plan) {
  if (!plan->target->masks || plan->target->lanes != L) return SFI_REFUSE_NO_EXPAND;
  if (k->contract.k_offset || !sfi_is(k->operand[1].stride[1], 1)) return SFI_REFUSE_STRIDED_COLUMNS;
  if (k->contract.groups > 1) return SFI_REFUSE_GROUPS;
  if (k->contract.depth.c[0] < WINDOW) return SFI_REFUSE_FEW_COLUMNS;
  if (k->contract.depth.c[0] - WINDOW > UINT16_MAX || k->contract.facts->nonzeros > INT32_MAX) return SFI_REFUSE_OFFSETS_TOO_LARGE;
  k->tile.ahead = sfi_weights_from_memory(plan);
  return sfi_few_accept(k, plan, SFI_FEW_MAX, L * panels_of(k), 0);
}

/* Lanes of all slots, at work or idle: idle ones are about as many a window, whatever the density. Fitted to magnitude-pruned layers of
 * 50 to 98 % zeros. */
static double lanes_of(const sfi_kernel *k) {
  return (double)k->contract.facts->nonzeros + (double)k->contract.rows * (double)k->contract.depth.c[0] / WINDOW * 1.8;
}

/* Measured on Zen 5: a permute and a multiply-add a column and slot, beside the loads; a panel pays its exit and the permutes. */
double sfi_gemv_window_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  double n = sfi_few_columns(k, symbol), slots = lanes_of(k) / L, panels = (double)panel_count(k);
  return sfi_few_us(plan, 1.05 * slots * (L * 5 + 2.0 / SLOTS), slots * (n > 2 ? 0.2 + n : 1.2 + n) + panels * (10 + 6 * n));
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
    for (int64_t slot = (visit + count) * SLOTS, end = slot + SLOTS; slot < end; slot++) {
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

/* The rows of each block by falling number of nonzeros, equal ones in order; rows past the last one are -1. place: of each row. */
static void order_rows(const packer *p, int32_t *row, uint8_t *place) {
  int64_t rows = p->k->contract.rows, block = p->k->tile.rows, key[L * PANELS_MAX];
  for (int64_t begin = 0; begin < rows; begin += block) {
    for (int64_t i = 0; i < block; i++) {
      int64_t r = begin + i, count = r < rows ? p->start[r + 1] - p->start[r] : -1;
      key[i] = count * 256 + block - 1 - i;
    }
    sfi_sort_falling(key, block);
    for (int64_t i = 0; i < block; i++) {
      int64_t from = block - 1 - (key[i] & 0xff);
      row[begin + i] = begin + from < rows ? (int32_t)(begin + from) : -1;
      place[begin + from] = (uint8_t)i;
    }
  }
}

sf_status sfi_gemv_window_pack(const sfi_kernel *k, const sfi_plan *plan, const sf_allocator *allocator, sfi_diag *diag,
                               sfi_blob *out) {
  (void)plan;
  int64_t rows = k->contract.rows, panels = panel_count(k), nonzeros = k->contract.facts->nonzeros, n = 0, visits = 0;
  size_t start_bytes = (size_t)(rows + 1) * sizeof(int64_t), column_bytes = (size_t)(nonzeros + 1) * sizeof(int32_t);
  size_t row_bytes = (size_t)(panels * L) * sizeof(int32_t), place_bytes = (size_t)(panels * L);
  int64_t *start = sfi_alloc(allocator, start_bytes);
  int32_t *column = sfi_alloc(allocator, column_bytes), *row = sfi_alloc(allocator, row_bytes);
  uint8_t *place = sfi_alloc(allocator, place_bytes);
  sf_status st = SF_OK;
  if (!start || !place || !column || !row) {
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
  order_rows(&p, row, place);
  for (int64_t i = 0; i < panels; i++) visits += pack_panel(&p, row + i * L, NULL, NULL, 0);
  int64_t slots = visits * SLOTS;
  int64_t offset[SECTIONS + 1] = {64};
  offset[PLACES] = offset[PANELS] + sfi_round_up((panels + 1) * 4, 64);
  offset[WINDOWS] = offset[PLACES] + sfi_round_up(panels * L, 64);
  offset[LANES] = offset[WINDOWS] + sfi_round_up(visits * 2, 64);
  offset[VALUES] = offset[LANES] + sfi_round_up(slots * L, 64);
  offset[SECTIONS] = offset[VALUES] + slots * L * 4;
  if (!sfi_blob_init(out, allocator, (size_t)offset[SECTIONS])) {
    st = sfi_fail_memory(diag);
    goto done;
  }
  memcpy(out->data, offset, SECTIONS * sizeof *offset);
  memcpy(out->data + offset[PLACES], place, place_bytes);
  uint32_t *first = (uint32_t *)(void *)(out->data + offset[PANELS]);
  visits = 0;
  for (int64_t i = 0; i < panels; i++) {
    first[i] = (uint32_t)visits;
    visits += pack_panel(&p, row + i * L, out->data, offset, visits);
  }
  first[panels] = (uint32_t)visits;
done:
  sfi_free(allocator, start, start_bytes);
  sfi_free(allocator, place, place_bytes);
  sfi_free(allocator, column, column_bytes);
  sfi_free(allocator, row, row_bytes);
  return st;
}

/* ---- code ---------------------------------------------------------------------------------------------------------- */

typedef struct sections {
  LLVMValueRef windows, lanes, values;
} sections;

static LLVMValueRef permute(sfi_emission *e, LLVMValueRef low, LLVMValueRef lane, LLVMValueRef high) {
  return sfi_intrinsic(e, "llvm.x86.avx512.vpermi2var.ps.512", NULL, 0, (LLVMValueRef[]){low, lane, high}, 3);
}

/* Elements `place` (lanes of i32) of as many vectors as a block has panels. */
static LLVMValueRef pick(sfi_emission *e, LLVMValueRef vectors, LLVMValueRef place) {
  LLVMValueRef from[PANELS_MAX];
  int32_t n = panels_of(e->kernel);
  for (int32_t i = 0; i < n; i++) from[i] = sfi_load_vector(e, sfi_at(e, e->f32, vectors, sfi_i64(e, (int64_t)i * L)), NULL);
  for (int32_t i = 0; i < n / 2; i++) from[i] = permute(e, from[2 * i], place, from[2 * i + 1]);
  for (int32_t bit = WINDOW; n > 2; n /= 2, bit *= 2) {
    LLVMTypeRef type = LLVMTypeOf(place);
    LLVMValueRef each[L];
    for (int32_t i = 0; i < L; i++) each[i] = LLVMConstInt(e->i32, (unsigned)bit, false);
    LLVMValueRef set = LLVMBuildAnd(e->builder, place, LLVMConstVector(each, L), "");
    LLVMValueRef second = LLVMBuildICmp(e->builder, LLVMIntNE, set, LLVMConstNull(type), "");
    for (int32_t i = 0; i < n / 4; i++) from[i] = LLVMBuildSelect(e->builder, second, from[2 * i + 1], from[2 * i], "");
  }
  return from[0];
}

/* 16 bytes as lanes of i32. */
static LLVMValueRef load_lanes(sfi_emission *e, LLVMValueRef base, LLVMValueRef element) {
  LLVMValueRef bytes = LLVMBuildLoad2(e->builder, LLVMVectorType(e->i8, L), sfi_at(e, e->i8, base, element), "");
  LLVMSetAlignment(bytes, 16);
  return LLVMBuildZExt(e->builder, bytes, LLVMVectorType(e->i32, L), "");
}

/* sum += one visit. sum: [2][column]; slots alternate between the two, to cover the latency of the multiply-add. */
static void visit(sfi_emission *e, const sfi_few *few, const sections *s, LLVMValueRef index, bool exact, LLVMValueRef *sum) {
  LLVMBuilderRef b = e->builder;
  LLVMValueRef first = LLVMBuildZExt(b, sfi_load_scalar(e, e->i16, s->windows, index), e->i64, ""), lane[SLOTS], w[SLOTS];
  for (int32_t i = 0; i < SLOTS; i++) {
    LLVMValueRef element = sfi_muli(e, sfi_addi(e, sfi_muli(e, index, sfi_i64(e, SLOTS)), sfi_i64(e, i)), sfi_i64(e, L));
    lane[i] = load_lanes(e, s->lanes, element);
    w[i] = sfi_load_vector(e, sfi_at(e, e->f32, s->values, element), NULL);
    if (e->kernel->tile.ahead) sfi_prefetch(e, sfi_at(e, e->f32, s->values, element), SFI_AHEAD);
  }
  for (int32_t n = 0; n < few->n; n++) {
    LLVMValueRef window = sfi_at(e, e->f32, few->x[n], first);
    LLVMValueRef low = sfi_load_vector(e, window, NULL), high = sfi_load_vector(e, sfi_at(e, e->f32, window, sfi_i64(e, L)), NULL);
    for (int32_t i = 0; i < SLOTS; i++) {
      LLVMValueRef x = permute(e, low, lane[i], high);
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

static void window_block(sfi_emission *e, const sfi_few *few, LLVMValueRef block) {
  sections s = {sfi_packed_section(e, WINDOWS), sfi_packed_section(e, LANES), sfi_packed_section(e, VALUES)};
  LLVMValueRef visits = sfi_packed_section(e, PANELS), places = sfi_packed_section(e, PLACES);
  LLVMValueRef sum[SFI_FEW_MAX], exact[SFI_FEW_MAX], column[SFI_FEW_MAX], one = sfi_i64(e, 1), width = sfi_i64(e, L);
  LLVMValueRef panels = sfi_i64(e, panels_of(e->kernel)), first_panel = sfi_muli(e, block, panels);
  for (int32_t n = 0; n < few->n; n++) column[n] = sfi_at(e, e->f32, few->scratch, sfi_i64(e, (int64_t)n * e->kernel->tile.rows));
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), panels, one, NULL, 0);
  LLVMValueRef panel = sfi_addi(e, first_panel, loop.index);
  LLVMValueRef first = sfi_load_u32(e, visits, panel), last = sfi_load_u32(e, visits, sfi_addi(e, panel, one));
  panel_sums(e, few, &s, first, last, false, sum);
  sfi_if again;
  sfi_if_begin(e, &again, sfi_few_suspect(e, sum, few->n));
  panel_sums(e, few, &s, first, last, true, exact);
  sfi_if_end(e, &again, exact, sum, sum, (unsigned)few->n);
  for (int32_t n = 0; n < few->n; n++)
    sfi_store_vector(e, sum[n], sfi_at(e, e->f32, column[n], sfi_muli(e, loop.index, width)), NULL);
  sfi_loop_end(e, &loop, NULL);

  sfi_loop_begin(e, &loop, sfi_i64(e, 0), panels, one, NULL, 0);
  LLVMValueRef row = sfi_muli(e, sfi_addi(e, first_panel, loop.index), width), place = load_lanes(e, places, row);
  for (int32_t n = 0; n < few->n; n++) sum[n] = pick(e, column[n], place);
  sfi_few_store(e, few, row, sum);
  sfi_loop_end(e, &loop, NULL);
}

sf_status sfi_gemv_window_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)k, (void)plan;
  sfi_few_walk(e, window_block);
  return SF_OK;
}
