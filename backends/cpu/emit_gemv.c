/* Matrix times one column: y[m] = sum over k of W[m, k] x[k]. Bound by the bytes of W. Three forms, panels of L rows (L lanes) where
 * the lanes run along rows, so that no sum crosses lanes:
 *   gemv-dense:  [panel][k][L] floats.
 *   gemv-bitmap: for each panel and k a mask of L bits, and the nonzeros packed; expand-loads put them into their lanes. The
 *                multiply-add is masked, so that a zero of W stays absent whatever x holds.
 *   gemv-csr:    compressed rows; x is gathered, lanes run along the nonzeros of one row. */
#include "emitters.h"

enum { CHAINS = 4 }; /* independent sums, to cover the latency of the multiply-add */

static bool one_column(const sfi_kernel *k) {
  return sfi_is(k->extent[2].of, 1) && sfi_is(k->extent[0].of, 1);
}
static int64_t panel_count(const sfi_kernel *k, int64_t lanes) {
  return sfi_ceil_div(k->contract.rows, lanes);
}

static sfi_refusal accept(sfi_kernel *k, const sfi_plan *plan, double bytes_per_row) {
  if (!one_column(k)) return SFI_REFUSE_MANY_COLUMNS;
  if (!sfi_positions_fit(k) || k->contract.facts->nonzeros > UINT32_MAX) return SFI_REFUSE_OFFSETS_TOO_LARGE;
  if (!k->contract.k_offset && !sfi_is_const(k->operand[1].stride[1])) return SFI_REFUSE_SYMBOLIC;
  k->tile.vectors = 1;
  k->tile.column_block = 1;
  sfi_choose_rows(k, plan->target, plan->target->lanes, bytes_per_row);
  return SFI_REFUSE_NONE;
}

sfi_refusal sfi_gemv_dense_accept(sfi_kernel *k, const sfi_plan *plan) {
  if (k->contract.groups > 1) return SFI_REFUSE_GROUPS;
  return accept(k, plan, (double)k->contract.depth.c[0] * 4);
}
sfi_refusal sfi_gemv_bitmap_accept(sfi_kernel *k, const sfi_plan *plan) {
  if (!plan->target->masks || plan->target->lanes != 16) return SFI_REFUSE_NO_EXPAND;
  if (k->contract.groups > 1) return SFI_REFUSE_GROUPS;
  return accept(k, plan, (double)k->contract.depth.c[0] * (sfi_density(k->contract.facts) * 4 + 0.125));
}
sfi_refusal sfi_gemv_csr_accept(sfi_kernel *k, const sfi_plan *plan) {
  return accept(k, plan, sfi_density(k->contract.facts) * (double)k->contract.matrix.columns * 8);
}

/* The slower of reading `bytes` and of executing. */
static double cost(const sfi_plan *plan, double bytes, double cycles) {
  double us = sfi_cycles_us(plan->target, cycles), read = sfi_read_us(plan->target, bytes);
  return us > read ? us : read;
}
double sfi_gemv_dense_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  (void)symbol;
  double steps = (double)panel_count(k, plan->target->lanes) * (double)k->contract.depth.c[0];
  return cost(plan, steps * plan->target->lanes * 4, steps * 1.1 + 20);
}
double sfi_gemv_bitmap_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  (void)symbol;
  double steps = (double)panel_count(k, plan->target->lanes) * (double)k->contract.depth.c[0];
  return cost(plan, steps * 2 + (double)k->contract.facts->nonzeros * 4, steps * 2.2 + 20);
}
/* A gather costs about a cycle a lane; each row pays its tail and a sum across lanes. */
double sfi_gemv_csr_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  (void)symbol;
  double nonzeros = (double)k->contract.facts->nonzeros, rows = (double)k->contract.rows;
  return cost(plan, nonzeros * 8, nonzeros * 1.1 + rows * (plan->target->lanes * 0.5 + 14));
}

/* ---- walk shared by the three -------------------------------------------------------------------------------------- */

typedef void (*panel_fn)(sfi_emission *e, LLVMValueRef x, LLVMValueRef row);

/* Calls `panel` for each panel of L rows of the tiles asked for. */
static void panels(sfi_emission *e, panel_fn panel) {
  const sfi_kernel *k = e->kernel;
  LLVMValueRef block = sfi_i64(e, k->tile.row_block), m = sfi_i64(e, k->contract.rows);
  LLVMValueRef x = sfi_at(e, e->f32, e->base[1], sfi_poly_value(e, k->operand[1].offset));
  LLVMValueRef begin = sfi_muli(e, e->tile_begin, block), end = sfi_mini(e, sfi_muli(e, e->tile_end, block), m);
  sfi_loop loop;
  sfi_loop_begin(e, &loop, begin, end, sfi_i64(e, e->lanes), NULL, 0);
  panel(e, x, loop.index);
  sfi_loop_end(e, &loop, NULL);
}

/* Stores lanes of rows row, row + 1, ... */
static void store_panel(sfi_emission *e, LLVMValueRef row, LLVMValueRef sum) {
  const sfi_kernel *k = e->kernel;
  sfi_point p = {.rank = 3, .vector_dim = 1, .vector = true, .index = {sfi_i64(e, 0), row, sfi_i64(e, 0)}};
  if (k->contract.rows % e->lanes) p.mask = sfi_mask_below(e, row, sfi_i64(e, k->contract.rows));
  sfi_point_store(e, &p, sfi_expr_value(e, &k->epilogue, &p, sum));
}

static LLVMValueRef sum_of(sfi_emission *e, const LLVMValueRef *chain) {
  LLVMValueRef low = LLVMBuildFAdd(e->builder, chain[0], chain[1], ""), high = LLVMBuildFAdd(e->builder, chain[2], chain[3], "");
  return LLVMBuildFAdd(e->builder, low, high, "");
}

/* for k in [0, K): step(k, chain, carried) with k unrolled over the chains; the rest goes to chain 0. cursor: a value carried along, or
 * NULL. Returns the sum of the chains. */
typedef LLVMValueRef (*step_fn)(sfi_emission *e, LLVMValueRef x, LLVMValueRef base, LLVMValueRef k, LLVMValueRef sum,
                                LLVMValueRef *cursor);
static LLVMValueRef over_depth(sfi_emission *e, LLVMValueRef x, LLVMValueRef base, LLVMValueRef cursor, step_fn step) {
  int64_t depth = e->kernel->contract.depth.c[0], unrolled = depth / CHAINS * CHAINS;
  LLVMValueRef chain[CHAINS + 1];
  unsigned n = cursor ? CHAINS + 1 : CHAINS;
  for (int i = 0; i < CHAINS; i++) chain[i] = LLVMConstNull(e->vec);
  chain[CHAINS] = cursor;
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), sfi_i64(e, unrolled), sfi_i64(e, CHAINS), chain, n);
  memcpy(chain, loop.carried, n * sizeof *chain);
  for (int i = 0; i < CHAINS; i++) chain[i] = step(e, x, base, sfi_addi(e, loop.index, sfi_i64(e, i)), chain[i], &chain[CHAINS]);
  sfi_loop_end(e, &loop, chain);
  memcpy(chain, loop.carried, n * sizeof *chain);
  for (int64_t k = unrolled; k < depth; k++) chain[0] = step(e, x, base, sfi_i64(e, k), chain[0], &chain[CHAINS]);
  return sum_of(e, chain);
}

static LLVMValueRef x_at(sfi_emission *e, LLVMValueRef x, LLVMValueRef k) {
  return sfi_splat(e, sfi_load_scalar(e, e->f32, sfi_x_row(e, x, k), sfi_i64(e, 0)));
}

/* ---- dense --------------------------------------------------------------------------------------------------------- */

sf_status sfi_gemv_dense_pack(const sfi_kernel *k, const sfi_plan *plan, const sf_allocator *allocator, sfi_diag *diag,
                              sfi_blob *out) {
  int64_t lanes = plan->target->lanes, depth = k->contract.depth.c[0], prefix = sfi_position_bytes(k);
  if (!sfi_blob_init(out, allocator, (size_t)(prefix + panel_count(k, lanes) * lanes * depth * 4))) return sfi_fail_memory(diag);
  sfi_write_positions(k, out->data);
  float *w = (float *)(void *)(out->data + prefix);
  for (int64_t r = 0; r < k->contract.rows; r++)
    for (int64_t i = 0; i < depth; i++) w[(r / lanes * depth + i) * lanes + r % lanes] = sfi_weight_at(&k->contract, r, i);
  return SF_OK;
}

static LLVMValueRef dense_vector(sfi_emission *e, LLVMValueRef base, LLVMValueRef k) {
  return sfi_load_vector(e, sfi_at(e, e->f32, base, sfi_muli(e, k, sfi_i64(e, e->lanes))), NULL);
}
static LLVMValueRef dense_step(sfi_emission *e, LLVMValueRef x, LLVMValueRef base, LLVMValueRef k, LLVMValueRef sum,
                               LLVMValueRef *cursor) {
  (void)cursor;
  return sfi_fma(e, dense_vector(e, base, k), x_at(e, x, k), sum);
}
static LLVMValueRef exact_step(sfi_emission *e, LLVMValueRef x, LLVMValueRef base, LLVMValueRef k, LLVMValueRef sum,
                               LLVMValueRef *cursor) {
  (void)cursor;
  LLVMValueRef w = dense_vector(e, base, k), present = LLVMBuildFCmp(e->builder, LLVMRealUNE, w, LLVMConstNull(e->vec), "");
  return LLVMBuildSelect(e->builder, present, sfi_fma(e, w, x_at(e, x, k), sum), sum, "");
}

static void dense_panel(sfi_emission *e, LLVMValueRef x, LLVMValueRef row) {
  const sfi_kernel *k = e->kernel;
  LLVMValueRef first = sfi_addi(e, sfi_muli(e, row, sfi_i64(e, k->contract.depth.c[0])), sfi_i64(e, sfi_position_bytes(k) / 4));
  LLVMValueRef base = sfi_at(e, e->f32, e->base[2], first), sum = over_depth(e, x, base, NULL, dense_step);
  /* Zeros of W are absent: where they met Inf or NaN, sum again without them (emit_gemm.c explains). */
  LLVMValueRef nan = LLVMBuildFCmp(e->builder, LLVMRealUNO, sum, sum, "");
  LLVMTypeRef type = LLVMTypeOf(nan);
  sfi_if again;
  sfi_if_begin(e, &again, sfi_intrinsic(e, "llvm.vector.reduce.or", &type, 1, &nan, 1));
  LLVMValueRef exact = over_depth(e, x, base, NULL, exact_step);
  sfi_if_end(e, &again, &exact, &sum, &sum, 1);
  store_panel(e, row, sum);
}
sf_status sfi_gemv_dense_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)k, (void)plan;
  panels(e, dense_panel);
  return SF_OK;
}

/* ---- bitmap -------------------------------------------------------------------------------------------------------- */

/* Packed: positions | int64 byte offsets of values | uint32 [panel] first value | uint16 [panel][k] masks | values, with a vector of
 * slack. Section offsets but for the values' follow from the shape. */
typedef struct bitmap_layout {
  int64_t header, starts, masks, values;
} bitmap_layout;
static bitmap_layout bitmap_of(const sfi_kernel *k) {
  bitmap_layout b = {.header = sfi_position_bytes(k)};
  b.starts = b.header + 64;
  b.masks = b.starts + sfi_round_up(panel_count(k, 16) * 4, 64);
  b.values = b.masks + sfi_round_up(panel_count(k, 16) * k->contract.depth.c[0] * 2, 64);
  return b;
}

sf_status sfi_gemv_bitmap_pack(const sfi_kernel *k, const sfi_plan *plan, const sf_allocator *allocator, sfi_diag *diag,
                               sfi_blob *out) {
  (void)plan;
  bitmap_layout b = bitmap_of(k);
  int64_t depth = k->contract.depth.c[0];
  if (!sfi_blob_init(out, allocator, (size_t)(b.values + k->contract.facts->nonzeros * 4 + 64))) return sfi_fail_memory(diag);
  sfi_write_positions(k, out->data);
  uint32_t *starts = (uint32_t *)(void *)(out->data + b.starts), n = 0;
  uint16_t *masks = (uint16_t *)(void *)(out->data + b.masks);
  float *values = (float *)(void *)(out->data + b.values);
  for (int64_t p = 0; p < panel_count(k, 16); p++) {
    starts[p] = n;
    for (int64_t i = 0; i < depth; i++)
      for (int64_t r = 0; r < 16 && p * 16 + r < k->contract.rows; r++) {
        float w = sfi_weight_at(&k->contract, p * 16 + r, i);
        if (w != 0) masks[p * depth + i] |= (uint16_t)(1u << r), values[n++] = w;
      }
  }
  return SF_OK;
}

static LLVMValueRef bitmap_step(sfi_emission *e, LLVMValueRef x, LLVMValueRef base, LLVMValueRef k, LLVMValueRef sum,
                                LLVMValueRef *cursor) {
  LLVMValueRef bits = sfi_load_scalar(e, e->i16, base, k), mask = LLVMBuildBitCast(e->builder, bits, LLVMVectorType(e->i1, 16), "");
  LLVMTypeRef type = e->vec, i16 = e->i16;
  /* A whole load, then the expansion in the register: expanding from memory is microcoded on AMD. */
  LLVMValueRef packed = sfi_opaque(e, sfi_load_vector(e, *cursor, NULL));
  LLVMValueRef w =
      sfi_intrinsic(e, "llvm.x86.avx512.mask.expand", &type, 1, (LLVMValueRef[]){packed, LLVMConstNull(e->vec), mask}, 3);
  LLVMValueRef count = LLVMBuildZExt(e->builder, sfi_intrinsic(e, "llvm.ctpop", &i16, 1, &bits, 1), e->i64, "");
  *cursor = sfi_at(e, e->f32, *cursor, count);
  return LLVMBuildSelect(e->builder, mask, sfi_fma(e, w, x_at(e, x, k), sum), sum, "");
}

static void bitmap_panel(sfi_emission *e, LLVMValueRef x, LLVMValueRef row) {
  const sfi_kernel *k = e->kernel;
  bitmap_layout b = bitmap_of(k);
  LLVMValueRef panel = LLVMBuildUDiv(e->builder, row, sfi_i64(e, 16), "");
  LLVMValueRef starts = sfi_at(e, e->i8, e->base[2], sfi_i64(e, b.starts)),
               masks = sfi_at(e, e->i8, e->base[2], sfi_i64(e, b.masks));
  LLVMValueRef values = sfi_at(e, e->i8, e->base[2], sfi_i64(e, b.values));
  LLVMValueRef start = LLVMBuildZExt(e->builder, sfi_load_scalar(e, e->i32, starts, panel), e->i64, "");
  LLVMValueRef base = sfi_at(e, e->i16, masks, sfi_muli(e, panel, sfi_i64(e, k->contract.depth.c[0])));
  store_panel(e, row, over_depth(e, x, base, sfi_at(e, e->f32, values, start), bitmap_step));
}
sf_status sfi_gemv_bitmap_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)k, (void)plan;
  panels(e, bitmap_panel);
  return SF_OK;
}

/* ---- compressed rows ----------------------------------------------------------------------------------------------- */

/* Packed: uint32 row_start[rows + 1] | uint32 positions | values; both padded by a vector. */
static int64_t csr_positions(const sfi_kernel *k) {
  return sfi_round_up((k->contract.rows + 1) * 4, 64);
}
static int64_t csr_values(const sfi_kernel *k, int64_t nonzeros) {
  return csr_positions(k) + sfi_round_up(nonzeros * 4, 64) + 64;
}

sf_status sfi_gemv_csr_pack(const sfi_kernel *k, const sfi_plan *plan, const sf_allocator *allocator, sfi_diag *diag,
                            sfi_blob *out) {
  (void)plan;
  int64_t nonzeros = k->contract.facts->nonzeros, n = 0;
  if (!sfi_blob_init(out, allocator, (size_t)(csr_values(k, nonzeros) + nonzeros * 4 + 64))) return sfi_fail_memory(diag);
  uint32_t *starts = (uint32_t *)(void *)out->data, *positions = (uint32_t *)(void *)(out->data + csr_positions(k));
  float *values = (float *)(void *)(out->data + csr_values(k, nonzeros));
  int64_t group_rows = k->contract.rows / k->contract.groups;
  for (int64_t r = 0; r < k->contract.rows; r++) {
    starts[r] = (uint32_t)n;
    int64_t first = group_rows ? r / group_rows * k->contract.matrix.columns : 0;
    for (int64_t c = first; c < first + k->contract.matrix.columns; c++) {
      float w = sfi_weight_at(&k->contract, r, c);
      if (w != 0) positions[n] = sfi_position(k, c), values[n++] = w;
    }
  }
  starts[k->contract.rows] = (uint32_t)n;
  return SF_OK;
}

/* Sum of one row: lanes along its nonzeros. */
static LLVMValueRef csr_row(sfi_emission *e, LLVMValueRef x, LLVMValueRef positions, LLVMValueRef values, LLVMValueRef begin,
                            LLVMValueRef end) {
  LLVMValueRef zero = LLVMConstNull(e->vec);
  sfi_loop loop;
  sfi_loop_begin(e, &loop, begin, end, sfi_i64(e, e->lanes), &zero, 1);
  LLVMValueRef mask = sfi_mask_below(e, loop.index, end);
  LLVMTypeRef index_type = LLVMVectorType(e->i32, (unsigned)e->lanes);
  LLVMValueRef index = LLVMBuildLoad2(e->builder, index_type, sfi_at(e, e->i32, positions, loop.index), "");
  LLVMSetAlignment(index, 4);
  index = LLVMBuildZExt(e->builder, index, LLVMVectorType(e->i64, (unsigned)e->lanes), "");
  LLVMTypeRef types[] = {e->vec, LLVMVectorType(e->ptr, (unsigned)e->lanes)};
  LLVMValueRef lanes = sfi_intrinsic(
      e, "llvm.masked.gather", types, 2,
      (LLVMValueRef[]){LLVMBuildGEP2(e->builder, e->f32, x, &index, 1, ""), LLVMConstInt(e->i32, 4, false), mask, zero}, 4);
  LLVMValueRef w = sfi_load_vector(e, sfi_at(e, e->f32, values, loop.index), NULL);
  LLVMValueRef next = LLVMBuildSelect(e->builder, mask, sfi_fma(e, w, lanes, loop.carried[0]), loop.carried[0], "");
  sfi_loop_end(e, &loop, &next);
  LLVMTypeRef type = e->vec;
  LLVMValueRef sum = sfi_intrinsic(e, "llvm.vector.reduce.fadd", &type, 1, (LLVMValueRef[]){sfi_f32(e, -0.0), loop.carried[0]}, 2);
  LLVMSetFastMathFlags(sum, LLVMFastMathAllowReassoc); /* a tree; the same one on every thread */
  return sum;
}

static void csr_panel(sfi_emission *e, LLVMValueRef x, LLVMValueRef first) {
  const sfi_kernel *k = e->kernel;
  LLVMValueRef m = sfi_i64(e, k->contract.rows),
               total = LLVMBuildZExt(e->builder, sfi_load_scalar(e, e->i32, e->base[2], m), e->i64, "");
  LLVMValueRef positions = sfi_at(e, e->i8, e->base[2], sfi_i64(e, csr_positions(k)));
  LLVMValueRef bytes =
      LLVMBuildAnd(e->builder, sfi_addi(e, sfi_muli(e, total, sfi_i64(e, 4)), sfi_i64(e, 63)), sfi_i64(e, -64), "");
  LLVMValueRef values = sfi_at(e, e->i8, positions, sfi_addi(e, bytes, sfi_i64(e, 64)));
  sfi_loop row;
  sfi_loop_begin(e, &row, first, sfi_mini(e, sfi_addi(e, first, sfi_i64(e, e->lanes)), m), sfi_i64(e, 1), NULL, 0);
  LLVMValueRef begin = LLVMBuildZExt(e->builder, sfi_load_scalar(e, e->i32, e->base[2], row.index), e->i64, "");
  LLVMValueRef end =
      LLVMBuildZExt(e->builder, sfi_load_scalar(e, e->i32, e->base[2], sfi_addi(e, row.index, sfi_i64(e, 1))), e->i64, "");
  sfi_point p = {.rank = 3, .vector_dim = 2, .vector = false, .index = {sfi_i64(e, 0), row.index, sfi_i64(e, 0)}};
  LLVMValueRef sum = csr_row(e, x, positions, values, begin, end);
  sfi_point_store(e, &p, sfi_expr_value(e, &k->epilogue, &p, sum));
  sfi_loop_end(e, &row, NULL);
}
sf_status sfi_gemv_csr_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)k, (void)plan;
  panels(e, csr_panel);
  return SF_OK;
}
