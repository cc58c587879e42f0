/* Matrix times few columns: y[m] = sum over k of W[m, k] x[k] for each. Bound by the bytes of W for one column, by the multiply-adds for
 * eight. Two forms:
 *   gemv-dense: panels of R vectors of rows, [panel][k][R x L] floats; an x, broadcast, serves R vectors, a vector of W all columns.
 *   gemv-csr:   one column; compressed rows; x is gathered, lanes run along the nonzeros of one row. */
#include "emitters.h"
#include "few.h"

/* ---- dense --------------------------------------------------------------------------------------------------------- */

/* W is prefetched twice as far ahead as elsewhere, since it is read the fastest here: 4096 x 4096 floats from memory took 12 % more time
 * with half of that at 4 columns, and 17 % at 8. */
enum { LINE = 64, AHEAD = 2 * SFI_AHEAD };

/* Vectors of rows in a panel: each broadcast of x serves as many. */
static int32_t row_vectors(const sfi_target *target, int64_t columns) {
  return columns > 1 && columns <= (target->registers - 4) / 2 ? 2 : 1;
}

/* Sums of one element of the tile, over k in turn, to cover the latency of the multiply-add. */
static int32_t chains(const sfi_emission *e, const sfi_few *few) {
  int32_t tile = e->kernel->tile.rows / e->lanes * few->n, most = e->target->registers > 16 ? 16 : 8;
  return tile * 4 <= most ? 4 : tile * 2 <= most ? 2 : 1;
}

sfi_refusal sfi_gemv_dense_accept(sfi_kernel *k, const sfi_plan *plan) {
  int64_t t = 1;
  if (k->contract.groups > 1) return SFI_REFUSE_GROUPS;
  sfi_extent_eval(k->extent[0], plan->symbol_max, &t);
  int32_t rows = plan->target->lanes * row_vectors(plan->target, t);
  k->tile.ahead = sfi_weights_from_memory(plan);
  return sfi_few_accept(k, plan, SFI_FEW_MAX, rows, (double)k->contract.depth.c[0] * 4);
}

double sfi_gemv_dense_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  double n = sfi_few_columns(k, symbol), depth = (double)k->contract.depth.c[0], panels = (double)sfi_few_panels(k);
  double r = (double)k->tile.rows / plan->target->lanes, fmas = r * n / 2, loads = (r + n) / 2;
  double step = n == 1 ? 1.1 : fmas > loads ? fmas : loads;
  return sfi_few_us(plan, panels * depth * k->tile.rows * 4, panels * (depth * step + 10 + 2 * r * n));
}

sf_status sfi_gemv_dense_pack(const sfi_kernel *k, const sfi_plan *plan, const sf_allocator *allocator, sfi_diag *diag,
                              sfi_blob *out) {
  (void)plan;
  return sfi_pack_panels(k, k->tile.rows, allocator, diag, out);
}

/* sum[r * columns + n] += W[vector r of the panel, k] x[n][k]. exact: zeros of W are skipped. */
static void dense_step(sfi_emission *e, const sfi_few *few, LLVMValueRef w, LLVMValueRef k, bool exact, LLVMValueRef *sum) {
  LLVMValueRef x[SFI_FEW_MAX], at = sfi_at(e, e->f32, w, sfi_muli(e, k, sfi_i64(e, e->kernel->tile.rows)));
  for (int64_t line = 0; e->kernel->tile.ahead && line < (int64_t)e->kernel->tile.rows * 4; line += LINE)
    sfi_prefetch(e, at, AHEAD + line);
  for (int32_t n = 0; n < few->n; n++) x[n] = sfi_few_x(e, few, n, k);
  for (int32_t r = 0; r < e->kernel->tile.rows / e->lanes; r++) {
    LLVMValueRef wv = sfi_load_vector(e, sfi_at(e, e->f32, at, sfi_i64(e, (int64_t)r * e->lanes)), NULL);
    LLVMValueRef present = exact ? LLVMBuildFCmp(e->builder, LLVMRealUNE, wv, LLVMConstNull(e->vec), "") : NULL;
    for (int32_t n = 0; n < few->n; n++) {
      LLVMValueRef *s = &sum[r * few->n + n], next = sfi_fma(e, wv, x[n], *s);
      *s = exact ? LLVMBuildSelect(e->builder, present, next, *s, "") : next;
    }
  }
}

/* The sums of a panel over all k. w: address of its first weight. */
static void dense_sums(sfi_emission *e, const sfi_few *few, LLVMValueRef w, bool exact, LLVMValueRef *out) {
  int32_t count = e->kernel->tile.rows / e->lanes * few->n, unroll = chains(e, few);
  int64_t depth = e->kernel->contract.depth.c[0], unrolled = depth / unroll * unroll;
  LLVMValueRef sum[SFI_ACCUMULATORS_MAX];
  for (int32_t i = 0; i < count * unroll; i++) sum[i] = LLVMConstNull(e->vec);
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), sfi_i64(e, unrolled), sfi_i64(e, unroll), sum, (unsigned)(count * unroll));
  memcpy(sum, loop.carried, (size_t)(count * unroll) * sizeof *sum);
  for (int32_t u = 0; u < unroll; u++) dense_step(e, few, w, sfi_addi(e, loop.index, sfi_i64(e, u)), exact, sum + u * count);
  sfi_loop_end(e, &loop, sum);
  memcpy(sum, loop.carried, (size_t)(count * unroll) * sizeof *sum);
  for (int64_t k = unrolled; k < depth; k++) dense_step(e, few, w, sfi_i64(e, k), exact, sum);
  for (int32_t half = unroll / 2; half > 0; half /= 2)
    for (int32_t i = 0; i < count * half; i++) sum[i] = LLVMBuildFAdd(e->builder, sum[i], sum[i + count * half], "");
  memcpy(out, sum, (size_t)count * sizeof *sum);
}

static void dense_panel(sfi_emission *e, const sfi_few *few, LLVMValueRef panel) {
  const sfi_kernel *k = e->kernel;
  int32_t vectors = k->tile.rows / e->lanes, count = vectors * few->n;
  LLVMValueRef sum[SFI_ACCUMULATORS_MAX], exact[SFI_ACCUMULATORS_MAX];
  LLVMValueRef row = sfi_muli(e, panel, sfi_i64(e, k->tile.rows));
  LLVMValueRef first = sfi_addi(e, sfi_muli(e, row, sfi_i64(e, k->contract.depth.c[0])), sfi_i64(e, sfi_position_bytes(k) / 4));
  LLVMValueRef w = sfi_at(e, e->f32, e->base[2], first);
  dense_sums(e, few, w, false, sum);
  /* Zeros of W are absent: where they met Inf or NaN, sum again without them (emit_gemm.c explains). */
  sfi_if again;
  sfi_if_begin(e, &again, sfi_few_suspect(e, sum, count));
  dense_sums(e, few, w, true, exact);
  sfi_if_end(e, &again, exact, sum, sum, (unsigned)count);
  for (int32_t r = 0; r < vectors; r++)
    sfi_few_store(e, few, sfi_addi(e, row, sfi_i64(e, (int64_t)r * e->lanes)), sum + r * few->n);
}
sf_status sfi_gemv_dense_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)k, (void)plan;
  sfi_few_walk(e, dense_panel);
  return SF_OK;
}

/* ---- compressed rows ----------------------------------------------------------------------------------------------- */

sfi_refusal sfi_gemv_csr_accept(sfi_kernel *k, const sfi_plan *plan) {
  return sfi_few_accept(k, plan, 1, plan->target->lanes, sfi_density(k->contract.facts) * (double)k->contract.matrix.columns * 8);
}
/* A gather costs about a cycle a lane; each row pays its tail and a sum across lanes. */
double sfi_gemv_csr_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  (void)symbol;
  double nonzeros = (double)k->contract.facts->nonzeros, rows = (double)k->contract.rows;
  return sfi_few_us(plan, nonzeros * 8, nonzeros * 1.1 + rows * (plan->target->lanes * 0.5 + 14));
}

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

static void csr_panel(sfi_emission *e, const sfi_few *few, LLVMValueRef panel) {
  const sfi_kernel *k = e->kernel;
  LLVMValueRef first = sfi_muli(e, panel, sfi_i64(e, k->tile.rows));
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
  sfi_point p = {.rank = 3, .vector_dim = 2, .vector = false, .index = {few->t[0], row.index, sfi_i64(e, 0)}};
  LLVMValueRef sum = csr_row(e, few->x[0], positions, values, begin, end);
  sfi_point_store(e, &p, sfi_expr_value(e, &k->epilogue, &p, sum));
  sfi_loop_end(e, &row, NULL);
}
sf_status sfi_gemv_csr_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)k, (void)plan;
  sfi_few_walk(e, csr_panel);
  return SF_OK;
}
