/* Small pieces of LLVM IR: constants, arithmetic, memory, loops, branches. See emission.h. */
#include "emission.h"

#include <stdio.h>

LLVMValueRef sfi_i64(sfi_emission *e, int64_t v) {
  return LLVMConstInt(e->i64, (unsigned long long)v, true);
}
LLVMValueRef sfi_f32(sfi_emission *e, double v) {
  return LLVMConstReal(e->f32, v);
}

LLVMValueRef sfi_splat(sfi_emission *e, LLVMValueRef scalar) {
  LLVMTypeRef type = LLVMVectorType(LLVMTypeOf(scalar), (unsigned)e->lanes);
  LLVMTypeRef index = LLVMVectorType(e->i32, (unsigned)e->lanes);
  LLVMValueRef one = LLVMBuildInsertElement(e->builder, LLVMGetPoison(type), scalar, LLVMConstInt(e->i32, 0, false), "");
  return LLVMBuildShuffleVector(e->builder, one, LLVMGetPoison(type), LLVMConstNull(index), "");
}

LLVMValueRef sfi_vconst(sfi_emission *e, double v) {
  LLVMValueRef lane[64];
  assert(e->lanes <= (int32_t)SFI_COUNT(lane));
  for (int32_t i = 0; i < e->lanes; i++) lane[i] = sfi_f32(e, v);
  return LLVMConstVector(lane, (unsigned)e->lanes);
}

LLVMValueRef sfi_addi(sfi_emission *e, LLVMValueRef a, LLVMValueRef b) {
  return LLVMBuildNSWAdd(e->builder, a, b, "");
}
LLVMValueRef sfi_muli(sfi_emission *e, LLVMValueRef a, LLVMValueRef b) {
  return LLVMBuildNSWMul(e->builder, a, b, "");
}

LLVMValueRef sfi_mini(sfi_emission *e, LLVMValueRef a, LLVMValueRef b) {
  return LLVMBuildSelect(e->builder, LLVMBuildICmp(e->builder, LLVMIntSLT, a, b, ""), a, b, "");
}

LLVMValueRef sfi_poly_value(sfi_emission *e, sfi_poly p) {
  LLVMValueRef v = sfi_i64(e, p.c[0]);
  if (p.c[1]) v = sfi_addi(e, v, sfi_muli(e, e->symbol, sfi_i64(e, p.c[1])));
  if (p.c[2]) v = sfi_addi(e, v, sfi_muli(e, sfi_muli(e, e->symbol, e->symbol), sfi_i64(e, p.c[2])));
  return v;
}

LLVMValueRef sfi_extent_value(sfi_emission *e, sfi_extent x) {
  LLVMValueRef v = sfi_poly_value(e, x.of);
  if (x.div == 1) return v;
  return LLVMBuildUDiv(e->builder, sfi_addi(e, v, sfi_i64(e, x.div - 1)), sfi_i64(e, x.div), "");
}

LLVMValueRef sfi_intrinsic(sfi_emission *e, const char *name, LLVMTypeRef *types, unsigned n_types, LLVMValueRef *args,
                           unsigned n_args) {
  unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
  assert(id);
  LLVMValueRef f = LLVMGetIntrinsicDeclaration(e->module, id, types, n_types);
  return LLVMBuildCall2(e->builder, LLVMIntrinsicGetType(e->context, id, types, n_types), f, args, n_args, "");
}

LLVMValueRef sfi_fma(sfi_emission *e, LLVMValueRef a, LLVMValueRef b, LLVMValueRef c) {
  LLVMTypeRef type = LLVMTypeOf(a);
  return sfi_intrinsic(e, "llvm.fma", &type, 1, (LLVMValueRef[]){a, b, c}, 3);
}

LLVMValueRef sfi_iota(sfi_emission *e) {
  LLVMValueRef lane[64];
  for (int32_t i = 0; i < e->lanes; i++) lane[i] = sfi_i64(e, i);
  return LLVMConstVector(lane, (unsigned)e->lanes);
}

LLVMValueRef sfi_mask_below(sfi_emission *e, LLVMValueRef first, LLVMValueRef limit) {
  /* Lanes left, capped to fit 32 bits: compares of i32 lanes are one instruction on every target. */
  LLVMValueRef left = sfi_mini(e, LLVMBuildNSWSub(e->builder, limit, first, ""), sfi_i64(e, e->lanes));
  LLVMValueRef lane[64];
  for (int32_t i = 0; i < e->lanes; i++) lane[i] = LLVMConstInt(e->i32, (unsigned long long)i, false);
  LLVMValueRef iota = LLVMConstVector(lane, (unsigned)e->lanes);
  return LLVMBuildICmp(e->builder, LLVMIntSLT, iota, sfi_splat(e, LLVMBuildTrunc(e->builder, left, e->i32, "")), "");
}

/* An empty piece of assembly that gives `value` back. */
static LLVMValueRef through(sfi_emission *e, LLVMValueRef value, bool in_place) {
  LLVMTypeRef type = LLVMTypeOf(value), function = LLVMFunctionType(type, &type, 1, false);
  bool vector = LLVMGetTypeKind(type) == LLVMVectorTypeKind;
  char constraint[32];
  snprintf(constraint, sizeof constraint, "=%s,0%s",
           !vector                         ? "r"
           : e->target->isa == SF_ISA_NEON ? "w"
                                           : "v",
           in_place ? ",~{memory}" : "");
  LLVMValueRef nothing =
      LLVMGetInlineAsm(function, "", 0, constraint, strlen(constraint), in_place, false, LLVMInlineAsmDialectATT, false);
  return LLVMBuildCall2(e->builder, function, nothing, &value, 1, "");
}

LLVMValueRef sfi_opaque(sfi_emission *e, LLVMValueRef value) {
  return through(e, value, false);
}

LLVMValueRef sfi_pin(sfi_emission *e, LLVMValueRef value) {
  return through(e, value, true);
}

LLVMValueRef sfi_at(sfi_emission *e, LLVMTypeRef type, LLVMValueRef base, LLVMValueRef index) {
  /* Not "inbounds": masked accesses may form addresses outside their buffer. */
  return LLVMBuildGEP2(e->builder, type, base, &index, 1, "");
}

LLVMValueRef sfi_load_scalar(sfi_emission *e, LLVMTypeRef type, LLVMValueRef base, LLVMValueRef index) {
  return LLVMBuildLoad2(e->builder, type, sfi_at(e, type, base, index), "");
}

LLVMValueRef sfi_load_vector(sfi_emission *e, LLVMValueRef pointer, LLVMValueRef mask) {
  if (!mask) {
    LLVMValueRef v = LLVMBuildLoad2(e->builder, e->vec, pointer, "");
    LLVMSetAlignment(v, 4);
    return v;
  }
  LLVMTypeRef types[] = {e->vec, e->ptr};
  return sfi_intrinsic(e, "llvm.masked.load", types, 2,
                       (LLVMValueRef[]){pointer, LLVMConstInt(e->i32, 4, false), mask, LLVMConstNull(e->vec)}, 4);
}

void sfi_store_vector(sfi_emission *e, LLVMValueRef value, LLVMValueRef pointer, LLVMValueRef mask) {
  if (!mask) {
    LLVMSetAlignment(LLVMBuildStore(e->builder, value, pointer), 4);
    return;
  }
  LLVMTypeRef types[] = {e->vec, e->ptr};
  sfi_intrinsic(e, "llvm.masked.store", types, 2, (LLVMValueRef[]){value, pointer, LLVMConstInt(e->i32, 4, false), mask}, 4);
}

void sfi_prefetch(sfi_emission *e, LLVMValueRef address, int64_t bytes) {
  enum { READ = 0, TO_L2 = 2, DATA = 1 };
  LLVMTypeRef type = e->ptr;
  sfi_intrinsic(e, "llvm.prefetch", &type, 1,
                (LLVMValueRef[]){sfi_at(e, e->i8, address, sfi_i64(e, bytes)), LLVMConstInt(e->i32, READ, false),
                                 LLVMConstInt(e->i32, TO_L2, false), LLVMConstInt(e->i32, DATA, false)},
                4);
}

/* row[i] and row[i + apart], for every i that is not such a partner itself, become their shuffles by low and by high. */
static void shuffle_pairs(sfi_emission *e, LLVMValueRef *row, int32_t apart, const int32_t *low, const int32_t *high) {
  LLVMValueRef mask[2], lane[64];
  for (int m = 0; m < 2; m++) {
    for (int32_t i = 0; i < e->lanes; i++) lane[i] = LLVMConstInt(e->i32, (unsigned long long)(m ? high : low)[i], false);
    mask[m] = LLVMConstVector(lane, (unsigned)e->lanes);
  }
  for (int32_t i = 0; i < e->lanes; i++) {
    if (i & apart) continue;
    LLVMValueRef a = row[i], b = row[i + apart];
    row[i] = LLVMBuildShuffleVector(e->builder, a, b, mask[0], "");
    row[i + apart] = LLVMBuildShuffleVector(e->builder, a, b, mask[1], "");
  }
}

/* Within blocks of four lanes, where that is cheap everywhere, halves are interleaved by one and by two lanes; then even and odd blocks
 * come together, which is one instruction too. */
void sfi_transpose(sfi_emission *e, LLVMValueRef *row) {
  enum { BLOCK = 4 };
  const int32_t n = e->lanes, blocks = n / BLOCK;
  LLVMValueRef out[64];
  int32_t low[64], high[64], to[64] = {0};
  for (int32_t unit = 1; unit < n; unit *= 2) {
    const bool within = unit < BLOCK;
    const int32_t step = within ? BLOCK / 2 / unit : unit; /* from the column that `low` makes to that of `high` */
    for (int32_t i = 0; i < n; i++) {
      const int32_t block = i / BLOCK, lane = i % BLOCK;
      const bool second = within ? lane / unit % 2 : block >= blocks / 2;
      const int32_t from = within ? block * BLOCK + lane / (2 * unit) * unit + lane % unit : block * 2 % blocks * BLOCK + lane;
      low[i] = from + (second ? n : 0);
      high[i] = low[i] + (within ? BLOCK / 2 : BLOCK);
      if (i & unit) to[i] += step;
    }
    shuffle_pairs(e, row, unit, low, high);
  }
  for (int32_t i = 0; i < n; i++) out[to[i]] = row[i];
  memcpy(row, out, (size_t)n * sizeof *row);
}

LLVMValueRef sfi_stack(sfi_emission *e, int64_t floats) {
  LLVMValueRef memory = LLVMBuildArrayAlloca(e->builder, e->f32, sfi_i64(e, floats), "");
  LLVMSetAlignment(memory, 64);
  return memory;
}

static LLVMBasicBlockRef block(sfi_emission *e) {
  return LLVMAppendBasicBlockInContext(e->context, e->function, "");
}

void sfi_loop_begin(sfi_emission *e, sfi_loop *loop, LLVMValueRef begin, LLVMValueRef end, LLVMValueRef step,
                    const LLVMValueRef *carried, unsigned n_carried) {
  assert(n_carried <= SFI_CARRIED_MAX);
  LLVMBasicBlockRef before = LLVMGetInsertBlock(e->builder), body = block(e);
  loop->head = block(e);
  loop->exit = block(e);
  loop->step = step;
  loop->n_carried = n_carried;
  LLVMMoveBasicBlockBefore(loop->head, body);
  LLVMBuildBr(e->builder, loop->head);
  LLVMPositionBuilderAtEnd(e->builder, loop->head);
  loop->index = LLVMBuildPhi(e->builder, e->i64, "");
  LLVMAddIncoming(loop->index, &begin, &before, 1);
  for (unsigned i = 0; i < n_carried; i++) {
    loop->carried[i] = LLVMBuildPhi(e->builder, LLVMTypeOf(carried[i]), "");
    LLVMAddIncoming(loop->carried[i], (LLVMValueRef *)&carried[i], &before, 1);
  }
  LLVMBuildCondBr(e->builder, LLVMBuildICmp(e->builder, LLVMIntSLT, loop->index, end, ""), body, loop->exit);
  LLVMPositionBuilderAtEnd(e->builder, body);
}

void sfi_loop_end(sfi_emission *e, sfi_loop *loop, const LLVMValueRef *next) {
  LLVMValueRef index = sfi_addi(e, loop->index, loop->step);
  LLVMBasicBlockRef latch = LLVMGetInsertBlock(e->builder);
  LLVMAddIncoming(loop->index, &index, &latch, 1);
  for (unsigned i = 0; i < loop->n_carried; i++) LLVMAddIncoming(loop->carried[i], (LLVMValueRef *)&next[i], &latch, 1);
  LLVMBuildBr(e->builder, loop->head);
  LLVMMoveBasicBlockAfter(loop->exit, latch);
  LLVMPositionBuilderAtEnd(e->builder, loop->exit);
}

void sfi_if_begin(sfi_emission *e, sfi_if *branch, LLVMValueRef condition) {
  branch->from = LLVMGetInsertBlock(e->builder);
  branch->then = block(e);
  branch->join = block(e);
  LLVMBuildCondBr(e->builder, condition, branch->then, branch->join);
  LLVMPositionBuilderAtEnd(e->builder, branch->then);
}

void sfi_if_end(sfi_emission *e, sfi_if *branch, const LLVMValueRef *in_then, const LLVMValueRef *otherwise, LLVMValueRef *out,
                unsigned n) {
  LLVMBasicBlockRef end = LLVMGetInsertBlock(e->builder);
  LLVMBuildBr(e->builder, branch->join);
  LLVMMoveBasicBlockAfter(branch->join, end);
  LLVMPositionBuilderAtEnd(e->builder, branch->join);
  for (unsigned i = 0; i < n; i++) {
    LLVMValueRef phi = LLVMBuildPhi(e->builder, LLVMTypeOf(in_then[i]), "");
    LLVMAddIncoming(phi, (LLVMValueRef[]){in_then[i], otherwise[i]}, (LLVMBasicBlockRef[]){end, branch->from}, 2);
    out[i] = phi;
  }
}
