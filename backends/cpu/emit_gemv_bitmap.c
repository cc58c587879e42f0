/* "gemv-bitmap": sparse matrix times few columns, for weights that come from memory: 4 bytes a nonzero and one bit a weight.
 *
 * Lanes run along 16 rows of W, two such halves to a panel. For each k a half has a mask of 16 bits, and its nonzeros lie packed; an expand
 * puts them into their lanes, and the multiply-add is masked, so that a zero of W stays absent whatever x holds. What binds is loads: a
 * vector of packed values mostly lies across two cache lines, which takes two slots. So the masks of two k and both halves are one load,
 * from whose counts all four addresses follow at once, and both halves share an x: 2.7 loads a half and k.
 *
 * Packed W: positions | uint32 [panel] first value | uint32 [panel][k] masks | values, with a vector of slack. */
#include "emitters.h"
#include "few.h"

#include <math.h>

enum { L = 16, HALVES = 2, ROWS = L * HALVES, PAIR = 2, LINE = 64 };

typedef struct bitmap_layout {
  int64_t starts, masks, values;
} bitmap_layout;
static bitmap_layout layout_of(const sfi_kernel *k) {
  bitmap_layout b = {.starts = sfi_position_bytes(k)};
  b.masks = b.starts + sfi_round_up(sfi_few_panels(k) * 4, 64);
  b.values = b.masks + sfi_round_up(sfi_few_panels(k) * k->contract.depth.c[0] * 4, 64);
  return b;
}

sfi_refusal sfi_gemv_bitmap_accept(sfi_kernel *k, const sfi_plan *plan) {
  if (!plan->target->masks || plan->target->lanes != L) return SFI_REFUSE_NO_EXPAND;
  if (k->contract.groups > 1) return SFI_REFUSE_GROUPS;
  return sfi_few_accept(k, plan, SFI_FEW_MAX, ROWS, (double)k->contract.depth.c[0] * (sfi_density(k->contract.facts) * 4 + 0.125));
}

/* Measured on Zen 5: where reading and executing take about as long they overlap in part, which third powers fit within 5 %. */
double sfi_gemv_bitmap_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  double steps = (double)sfi_few_panels(k) * (double)k->contract.depth.c[0] * HALVES, n = sfi_few_columns(k, symbol);
  double execute = sfi_cycles_us(plan->target, steps * (n > 1 ? 0.9 + 0.4 * n : 1.6) + 20);
  double read = 1.08 * sfi_read_us(plan, steps * 2 + (double)k->contract.facts->nonzeros * 4);
  return cbrt(execute * execute * execute + read * read * read);
}

sf_status sfi_gemv_bitmap_pack(const sfi_kernel *k, const sfi_plan *plan, const sf_allocator *allocator, sfi_diag *diag,
                               sfi_blob *out) {
  (void)plan;
  bitmap_layout b = layout_of(k);
  int64_t depth = k->contract.depth.c[0];
  if (!sfi_blob_init(out, allocator, (size_t)(b.values + k->contract.facts->nonzeros * 4 + 64))) return sfi_fail_memory(diag);
  sfi_write_positions(k, out->data);
  uint32_t *starts = (uint32_t *)(void *)(out->data + b.starts), *masks = (uint32_t *)(void *)(out->data + b.masks), n = 0;
  float *values = (float *)(void *)(out->data + b.values);
  for (int64_t p = 0; p < sfi_few_panels(k); p++) {
    starts[p] = n;
    for (int64_t i = 0; i < depth; i++)
      for (int64_t r = 0; r < ROWS && p * ROWS + r < k->contract.rows; r++) {
        float w = sfi_weight_at(&k->contract, p * ROWS + r, i);
        if (w != 0) masks[p * depth + i] |= (uint32_t)1 << r, values[n++] = w;
      }
  }
  return SF_OK;
}

/* sum[half * columns + n] += the half's nonzeros, packed at `at`, times x[n]. */
static void half_step(sfi_emission *e, LLVMValueRef mask, LLVMValueRef at, const LLVMValueRef *x, int32_t n, LLVMValueRef *sum) {
  LLVMTypeRef type = e->vec;
  /* A whole load, then the expansion in the register: expanding from memory is microcoded on AMD. */
  LLVMValueRef packed = sfi_opaque(e, sfi_load_vector(e, at, NULL));
  LLVMValueRef w =
      sfi_intrinsic(e, "llvm.x86.avx512.mask.expand", &type, 1, (LLVMValueRef[]){packed, LLVMConstNull(e->vec), mask}, 3);
  for (int32_t i = 0; i < n; i++) sum[i] = LLVMBuildSelect(e->builder, mask, sfi_fma(e, w, x[i], sum[i]), sum[i], "");
}

/* `ks` k from `k` on, whose masks are `bits`; moves *value. sum: [ks][half][column]. */
static void step(sfi_emission *e, const sfi_few *few, LLVMValueRef bits, LLVMValueRef k, int32_t ks, int32_t sets,
                 LLVMValueRef *value, LLVMValueRef *sum) {
  LLVMBuilderRef b = e->builder;
  unsigned width = (unsigned)(ks * ROWS);
  LLVMTypeRef type = LLVMTypeOf(bits);
  LLVMValueRef masks = LLVMBuildBitCast(b, bits, LLVMVectorType(e->i1, width), ""), x[SFI_FEW_MAX], lanes[L];
  for (int32_t i = 0; i < ks * HALVES; i++) {
    for (int32_t n = 0; n < few->n && i % HALVES == 0; n++) x[n] = sfi_few_x(e, few, n, sfi_addi(e, k, sfi_i64(e, i / HALVES)));
    for (int32_t j = 0; j < L; j++) lanes[j] = LLVMConstInt(e->i32, (unsigned)(i * L + j), false);
    LLVMValueRef mask = LLVMBuildShuffleVector(b, masks, LLVMGetUndef(LLVMTypeOf(masks)), LLVMConstVector(lanes, L), "");
    LLVMValueRef at = *value;
    if (i) {
      LLVMValueRef before = LLVMBuildShl(b, bits, LLVMConstInt(type, width - (unsigned)(i * L), false), "");
      at = sfi_at(e, e->f32, at, LLVMBuildZExt(b, sfi_intrinsic(e, "llvm.ctpop", &type, 1, &before, 1), e->i64, ""));
    }
    half_step(e, mask, at, x, few->n, sum + (i / HALVES % sets * HALVES + i % HALVES) * few->n);
  }
  *value = sfi_at(e, e->f32, *value, LLVMBuildZExt(b, sfi_intrinsic(e, "llvm.ctpop", &type, 1, &bits, 1), e->i64, ""));
}

/* The two lines that a pair takes at most, of the values that come later: the machine's own prefetch reaches 0.6 of the memory's rate on one
 * core, this 0.85. */
static void prefetch(sfi_emission *e, LLVMValueRef value) {
  for (int64_t line = 0; line < 2; line++) sfi_prefetch(e, value, SFI_AHEAD + line * LINE);
}

static void bitmap_panel(sfi_emission *e, const sfi_few *few, LLVMValueRef panel) {
  const sfi_kernel *k = e->kernel;
  bitmap_layout layout = layout_of(k);
  int64_t depth = k->contract.depth.c[0], pairs = depth / PAIR * PAIR;
  LLVMValueRef starts = sfi_at(e, e->i8, e->base[2], sfi_i64(e, layout.starts)),
               masks = sfi_at(e, e->i8, e->base[2], sfi_i64(e, layout.masks)),
               values = sfi_at(e, e->i8, e->base[2], sfi_i64(e, layout.values));
  masks = sfi_at(e, e->i32, masks, sfi_muli(e, panel, sfi_i64(e, depth)));
  LLVMValueRef start = LLVMBuildZExt(e->builder, sfi_load_scalar(e, e->i32, starts, panel), e->i64, "");
  /* Sums of their own for both k of a pair where there are few, to cover the latency of the multiply-add. */
  int32_t sets = few->n > 2 ? 1 : PAIR, count = HALVES * few->n, all = count * sets;
  LLVMValueRef carried[SFI_FEW_MAX * HALVES * PAIR + 1];
  for (int32_t i = 0; i < all; i++) carried[i] = LLVMConstNull(e->vec);
  carried[all] = sfi_at(e, e->f32, values, start);
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), sfi_i64(e, pairs), sfi_i64(e, PAIR), carried, (unsigned)all + 1);
  memcpy(carried, loop.carried, (size_t)(all + 1) * sizeof *carried);
  LLVMValueRef bits = LLVMBuildLoad2(e->builder, e->i64, sfi_at(e, e->i32, masks, loop.index), "");
  LLVMSetAlignment(bits, 4);
  prefetch(e, carried[all]);
  step(e, few, bits, loop.index, PAIR, sets, &carried[all], carried);
  sfi_loop_end(e, &loop, carried);
  memcpy(carried, loop.carried, (size_t)(all + 1) * sizeof *carried);
  if (pairs < depth) {
    bits = sfi_load_scalar(e, e->i32, masks, sfi_i64(e, pairs));
    step(e, few, bits, sfi_i64(e, pairs), 1, sets, &carried[all], carried);
  }
  for (int32_t i = 0; i < count && sets > 1; i++) carried[i] = LLVMBuildFAdd(e->builder, carried[i], carried[count + i], "");
  LLVMValueRef row = sfi_muli(e, panel, sfi_i64(e, ROWS));
  for (int32_t h = 0; h < HALVES; h++) sfi_few_store(e, few, sfi_addi(e, row, sfi_i64(e, h * L)), carried + h * few->n);
}

sf_status sfi_gemv_bitmap_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)k, (void)plan;
  sfi_few_walk(e, bitmap_panel);
  return SF_OK;
}
