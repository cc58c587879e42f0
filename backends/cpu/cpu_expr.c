/* Operands and fused expressions at a point of the iteration space. */
#include "emission.h"

LLVMValueRef sfi_access_index(sfi_emission *e, const sfi_access *access, const sfi_point *point) {
  LLVMValueRef v = sfi_poly_value(e, access->offset);
  for (int32_t d = 0; d < point->rank; d++)
    if (!sfi_is(access->stride[d], 0)) v = sfi_addi(e, v, sfi_muli(e, point->index[d], sfi_poly_value(e, access->stride[d])));
  return v;
}

/* Addresses of the lanes of a strided access. */
static LLVMValueRef lane_pointers(sfi_emission *e, const sfi_point *point, LLVMValueRef base, LLVMValueRef first, sfi_poly stride) {
  LLVMValueRef lane = point->lane_index ? point->lane_index : sfi_iota(e);
  LLVMValueRef offsets = LLVMBuildMul(e->builder, lane, sfi_splat(e, sfi_poly_value(e, stride)), "");
  LLVMValueRef index = LLVMBuildAdd(e->builder, offsets, sfi_splat(e, first), "");
  return LLVMBuildGEP2(e->builder, e->f32, base, &index, 1, "");
}

static LLVMTypeRef lanes_of(sfi_emission *e, LLVMTypeRef scalar) {
  return LLVMVectorType(scalar, (unsigned)e->lanes);
}
static LLVMValueRef all_lanes(sfi_emission *e) {
  return LLVMConstAllOnes(lanes_of(e, e->i1));
}

/* A panel operand of a ragged space holds whole panels: its lanes past the last column may be read. */
static bool readable_whole(const sfi_emission *e, const sfi_access *access) {
  return e->kernel->ragged.width && e->plan->buffers[access->buffer].panel == e->kernel->ragged.width;
}

/* Lanes for which every bound of `operand` holds; NULL where it has none. One unsigned compare does both sides. */
static LLVMValueRef bound_mask(sfi_emission *e, int32_t operand, const sfi_point *point) {
  const sfi_kernel *k = e->kernel;
  LLVMValueRef mask = NULL;
  for (int32_t b = 0; b < k->n_bounds; b++) {
    const sfi_bound *bound = &k->bound[b];
    if (bound->operand != operand) continue;
    LLVMValueRef v = sfi_i64(e, bound->add);
    for (int32_t d = 0; d < point->rank; d++)
      if (bound->mul[d]) v = sfi_addi(e, v, sfi_muli(e, point->index[d], sfi_i64(e, bound->mul[d])));
    v = sfi_splat(e, v);
    int64_t step = bound->mul[point->vector_dim];
    if (step) v = LLVMBuildAdd(e->builder, v, LLVMBuildMul(e->builder, sfi_iota(e), sfi_splat(e, sfi_i64(e, step)), ""), "");
    LLVMTypeRef narrow = lanes_of(e, e->i32);
    LLVMValueRef inside = LLVMBuildICmp(e->builder, LLVMIntULT, LLVMBuildTrunc(e->builder, v, narrow, ""),
                                        LLVMBuildTrunc(e->builder, sfi_splat(e, sfi_i64(e, bound->limit)), narrow, ""), "");
    mask = mask ? LLVMBuildAnd(e->builder, mask, inside, "") : inside;
  }
  return mask;
}

LLVMValueRef sfi_operand_load(sfi_emission *e, int32_t operand, const sfi_point *point) {
  const sfi_access *access = &e->kernel->operand[operand];
  if (operand && operand == point->given_operand) return point->given;
  LLVMValueRef base = e->base[operand], first = sfi_access_index(e, access, point);
  if (!point->vector) return sfi_load_scalar(e, e->f32, base, first);
  sfi_poly stride = access->stride[point->vector_dim];
  LLVMValueRef bounds = bound_mask(e, operand, point);
  if (sfi_is(stride, 0) && !bounds) return sfi_splat(e, sfi_load_scalar(e, e->f32, base, first));
  if (point->compressed && sfi_is(stride, 1) && !bounds) {
    LLVMTypeRef type = e->vec;
    return sfi_intrinsic(e, "llvm.masked.expandload", &type, 1,
                         (LLVMValueRef[]){sfi_at(e, e->f32, base, first), point->mask, LLVMConstNull(e->vec)}, 3);
  }
  LLVMValueRef mask = readable_whole(e, access) ? NULL : point->mask;
  if (bounds) mask = mask ? LLVMBuildAnd(e->builder, mask, bounds, "") : bounds;
  if (sfi_is(stride, 1) && !point->lane_index) return sfi_load_vector(e, sfi_at(e, e->f32, base, first), mask);
  LLVMTypeRef types[] = {e->vec, lanes_of(e, e->ptr)};
  return sfi_intrinsic(e, "llvm.masked.gather", types, 2,
                       (LLVMValueRef[]){lane_pointers(e, point, base, first, stride), LLVMConstInt(e->i32, 4, false),
                                        mask ? mask : all_lanes(e), LLVMConstNull(e->vec)},
                       4);
}

LLVMValueRef sfi_expr_value(sfi_emission *e, const sfi_expr *expr, const sfi_point *point, LLVMValueRef arg) {
  LLVMValueRef value[SFI_STEPS_MAX];
  assert(expr->n >= 0 && expr->n <= SFI_STEPS_MAX);
  for (int32_t i = 0; i < expr->n; i++) {
    const sfi_step *s = &expr->steps[i];
    switch (s->kind) {
    case SFI_STEP_ARG:
      value[i] = arg;
      break;
    case SFI_STEP_LOAD:
      value[i] = sfi_operand_load(e, s->operand, point);
      break;
    case SFI_STEP_CONST:
      value[i] = point->vector ? sfi_vconst(e, s->value) : sfi_f32(e, s->value);
      break;
    case SFI_STEP_OP:
      value[i] = s->op == SF_OP_WHERE ? sfi_where(e, value[s->a], value[s->b], value[s->c])
                                      : sfi_elementwise(e, s->op, value[s->a], value[s->b]);
      break;
    }
  }
  return expr->n ? value[expr->n - 1] : arg;
}

/* Stores the mask's lanes, packed together. AVX-512 compresses in a register: compressing into memory is microcoded on AMD. */
static void store_compressed(sfi_emission *e, LLVMValueRef value, LLVMValueRef pointer, LLVMValueRef mask) {
  LLVMTypeRef type = e->vec;
  if (e->target->masks && e->lanes == 16) {
    LLVMValueRef packed =
        sfi_intrinsic(e, "llvm.x86.avx512.mask.compress", &type, 1, (LLVMValueRef[]){value, LLVMConstNull(e->vec), mask}, 3);
    LLVMValueRef bits = LLVMBuildBitCast(e->builder, mask, e->i16, "");
    LLVMTypeRef i16 = e->i16;
    LLVMValueRef count = sfi_intrinsic(e, "llvm.ctpop", &i16, 1, &bits, 1);
    LLVMValueRef kept = sfi_mask_below(e, sfi_i64(e, 0), LLVMBuildZExt(e->builder, count, e->i64, ""));
    sfi_store_vector(e, packed, pointer, kept);
    return;
  }
  sfi_intrinsic(e, "llvm.masked.compressstore", &type, 1, (LLVMValueRef[]){value, pointer, mask}, 3);
}

void sfi_point_store(sfi_emission *e, const sfi_point *point, LLVMValueRef value) {
  const sfi_access *access = &e->kernel->operand[0];
  LLVMValueRef base = e->base[0], first = sfi_access_index(e, access, point);
  if (!point->vector) {
    LLVMBuildStore(e->builder, value, sfi_at(e, e->f32, base, first));
    return;
  }
  sfi_poly stride = access->stride[point->vector_dim];
  if (point->compressed && sfi_is(stride, 1)) {
    store_compressed(e, value, sfi_at(e, e->f32, base, first), point->mask);
    return;
  }
  LLVMValueRef mask = readable_whole(e, access) ? NULL : point->mask;
  if (sfi_is(stride, 1) && !point->lane_index) {
    sfi_store_vector(e, value, sfi_at(e, e->f32, base, first), mask);
    return;
  }
  LLVMTypeRef types[] = {e->vec, lanes_of(e, e->ptr)};
  sfi_intrinsic(e, "llvm.masked.scatter", types, 2,
                (LLVMValueRef[]){value, lane_pointers(e, point, base, first, stride), LLVMConstInt(e->i32, 4, false),
                                 mask ? mask : all_lanes(e)},
                4);
}
