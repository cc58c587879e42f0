/* Operands and fused expressions at a point of the iteration space. */
#include "emission.h"

LLVMValueRef sfi_access_index(sfi_emission *e, const sfi_access *access, const sfi_point *point) {
  LLVMValueRef v = sfi_poly_value(e, access->offset);
  for (int32_t d = 0; d < point->rank; d++)
    if (!sfi_is(access->stride[d], 0)) v = sfi_addi(e, v, sfi_muli(e, point->index[d], sfi_poly_value(e, access->stride[d])));
  return v;
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

/* Addresses of elements of `type` at first + i * stride, i the point's lanes, and `more` for each lane where it is not NULL. */
static LLVMValueRef lane_pointers(sfi_emission *e, const sfi_point *point, LLVMTypeRef type, LLVMValueRef base, LLVMValueRef first,
                                  sfi_poly stride, LLVMValueRef more) {
  LLVMValueRef lane = point->lane_index ? point->lane_index : sfi_iota(e);
  LLVMValueRef offsets = LLVMBuildMul(e->builder, lane, sfi_splat(e, sfi_poly_value(e, stride)), "");
  LLVMValueRef index = LLVMBuildAdd(e->builder, offsets, sfi_splat(e, first), "");
  if (more) index = LLVMBuildAdd(e->builder, index, more, "");
  return LLVMBuildGEP2(e->builder, type, base, &index, 1, "");
}

/* Every other float from `pointer` on: two loads and a shuffle, where a gather takes a cycle a lane. mask NULL: all lanes. */
static LLVMValueRef load_even(sfi_emission *e, LLVMValueRef pointer, LLVMValueRef mask) {
  const int32_t n = e->lanes;
  LLVMValueRef half[2], none = LLVMConstNull(lanes_of(e, e->i1)), lane[64];
  for (int32_t h = 0; h < 2; h++) {
    for (int32_t i = 0; i < n; i++) lane[i] = LLVMConstInt(e->i32, (unsigned long long)(i % 2 ? n : h * n / 2 + i / 2), false);
    LLVMValueRef wide =
        LLVMBuildShuffleVector(e->builder, mask ? mask : all_lanes(e), none, LLVMConstVector(lane, (unsigned)n), "");
    half[h] = sfi_load_vector(e, sfi_at(e, e->f32, pointer, sfi_i64(e, (int64_t)h * n)), wide);
  }
  for (int32_t i = 0; i < n; i++) lane[i] = LLVMConstInt(e->i32, (unsigned long long)i * 2, false);
  return LLVMBuildShuffleVector(e->builder, half[0], half[1], LLVMConstVector(lane, (unsigned)n), "");
}

/* Elements of an operand as they are in memory: a vector of them, or one where the point is one or all lanes read the same (and
 * `splat` is false). `more`: i64 added to each lane's address, or NULL. */
static LLVMValueRef load_elements(sfi_emission *e, int32_t operand, const sfi_point *point, LLVMTypeRef type, LLVMValueRef first,
                                  LLVMValueRef more, bool splat) {
  const sfi_access *access = &e->kernel->operand[operand];
  const unsigned bytes = (unsigned)sfi_dtype_of(e->plan->buffers[access->buffer].dtype)->bytes;
  LLVMValueRef base = e->base[operand], alignment = LLVMConstInt(e->i32, bytes, false);
  if (!point->vector) return sfi_load_scalar(e, type, base, first);
  LLVMTypeRef vector = lanes_of(e, type);
  sfi_poly stride = access->stride[point->vector_dim];
  LLVMValueRef bounds = bound_mask(e, operand, point);
  if (sfi_is(stride, 0) && !bounds && !more) {
    LLVMValueRef one = sfi_load_scalar(e, type, base, first);
    return splat ? sfi_splat(e, one) : one;
  }
  if (point->compressed && sfi_is(stride, 1) && !bounds && !more) {
    return sfi_intrinsic(e, "llvm.masked.expandload", &vector, 1,
                         (LLVMValueRef[]){sfi_at(e, type, base, first), point->mask, LLVMConstNull(vector)}, 3);
  }
  LLVMValueRef mask = readable_whole(e, access) ? NULL : point->mask;
  if (bounds) mask = mask ? LLVMBuildAnd(e->builder, mask, bounds, "") : bounds;
  if (sfi_is(stride, 1) && !point->lane_index && !more) {
    LLVMValueRef pointer = sfi_at(e, type, base, first);
    LLVMTypeRef types[] = {vector, e->ptr};
    if (type == e->f32) return sfi_load_vector(e, pointer, mask);
    return sfi_intrinsic(e, "llvm.masked.load", types, 2,
                         (LLVMValueRef[]){pointer, alignment, mask ? mask : all_lanes(e), LLVMConstNull(vector)}, 4);
  }
  if (sfi_is(stride, 2) && !point->lane_index && !more && type == e->f32 && e->target->masks)
    return load_even(e, sfi_at(e, type, base, first), mask);
  LLVMTypeRef types[] = {vector, lanes_of(e, e->ptr)};
  return sfi_intrinsic(e, "llvm.masked.gather", types, 2,
                       (LLVMValueRef[]){lane_pointers(e, point, type, base, first, stride, more), alignment,
                                        mask ? mask : all_lanes(e), LLVMConstNull(vector)},
                       4);
}

static LLVMTypeRef element_type(sfi_emission *e, sf_dtype dtype) {
  switch (dtype) {
  case SF_I8:
  case SF_U8:
    return e->i8;
  case SF_I32:
    return e->i32;
  case SF_I64:
    return e->i64;
  default:
    return e->f32;
  }
}

/* What an index adds to the address: i64, or a vector where its lanes differ. */
static LLVMValueRef indexed(sfi_emission *e, const sfi_access *access, const sfi_point *point) {
  const sfi_access *from = &e->kernel->operand[access->index];
  const sf_dtype dtype = e->plan->buffers[from->buffer].dtype;
  LLVMValueRef v = load_elements(e, access->index, point, element_type(e, dtype), sfi_access_index(e, from, point), NULL, false);
  bool vector = LLVMGetTypeKind(LLVMTypeOf(v)) == LLVMVectorTypeKind;
  LLVMTypeRef wide = vector ? lanes_of(e, e->i64) : e->i64;
  v = dtype == SF_U8 ? LLVMBuildZExt(e->builder, v, wide, "") : LLVMBuildSExt(e->builder, v, wide, "");
  LLVMValueRef extent = sfi_i64(e, access->index_extent), step = sfi_poly_value(e, access->index_stride);
  if (vector) extent = sfi_splat(e, extent), step = sfi_splat(e, step);
  LLVMValueRef below = LLVMBuildICmp(e->builder, LLVMIntSLT, v, LLVMConstNull(wide), "");
  v = LLVMBuildSelect(e->builder, below, LLVMBuildAdd(e->builder, v, extent, ""), v, "");
  return LLVMBuildMul(e->builder, v, step, "");
}

LLVMValueRef sfi_operand_load(sfi_emission *e, int32_t operand, const sfi_point *point) {
  const sfi_access *access = &e->kernel->operand[operand];
  if (operand && operand == point->given_operand) return point->given;
  const sf_dtype dtype = e->plan->buffers[access->buffer].dtype;
  LLVMValueRef first = sfi_access_index(e, access, point), more = NULL;
  if (access->index) {
    LLVMValueRef by = indexed(e, access, point);
    if (LLVMGetTypeKind(LLVMTypeOf(by)) == LLVMVectorTypeKind)
      more = by;
    else
      first = sfi_addi(e, first, by);
  }
  LLVMValueRef v = load_elements(e, operand, point, element_type(e, dtype), first, more, true);
  if (dtype == SF_F32) return v;
  LLVMTypeRef type = point->vector ? e->vec : e->f32;
  return dtype == SF_U8 ? LLVMBuildUIToFP(e->builder, v, type, "") : LLVMBuildSIToFP(e->builder, v, type, "");
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
  if (access->index) first = sfi_addi(e, first, indexed(e, access, point));
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
                (LLVMValueRef[]){value, lane_pointers(e, point, e->f32, base, first, stride, NULL), LLVMConstInt(e->i32, 4, false),
                                 mask ? mask : all_lanes(e)},
                4);
}
