/* Shared by the reference kernels: typed element access, odometers over index spaces, and the one call shape. */
#ifndef SFI_REF_KERNEL_H
#define SFI_REF_KERNEL_H

#include "ref.h"

#include <math.h>

/* One operation on concrete tensors. Shapes are those of the tensors: the node's own may be symbolic. */
typedef struct sfi_ref_call {
  const sfi_node *node;
  const sf_tensor *inputs;
  const sf_tensor *output;
  uint32_t static_mask;  /* bit i: operand i does not depend on any input of the graph, so its zeros are absent */
  uint32_t integer_mask; /* bit i: operand i is of an integer type in the graph; here it may have been widened */
} sfi_ref_call;

/* One kernel for each rule of shape inference: operations that share a rule share their loops. */
#define SF_OP(id, value, text, min, max, attrs, infer, flags, doc) void sfi_ref_##infer(const sfi_ref_call *call);
#include <sparseflow/ops.def>
#undef SF_OP

/* integer_mask of a node. */
uint32_t sfi_ref_integers(const sf_graph *graph, const sfi_node *node);

/* The kernel of the call's operation. */
void sfi_ref_kernel(const sfi_ref_call *call);

/* Operands of the operation that takes most. */
enum {
  SFI_REF_OPERANDS_MAX = sizeof(union {
#define SF_OP(id, value, text, min, max, attrs, infer, flags, doc) char id[(max) + 1];
#include <sparseflow/ops.def>
#undef SF_OP
  })
};

/* ---- elements ----------------------------------------------------------------------------------------------------- */

/* Element types the kernels can read and write, in one line each: X(id, storage, to double, from double). */
#define SFI_REF_DTYPES(X)                                                                                                          \
  X(F32, float, (double), (float))                                                                                                 \
  X(F64, double, (double), (double))                                                                                               \
  X(I8, int8_t, (double), (int8_t))                                                                                                \
  X(U8, uint8_t, (double), (uint8_t))                                                                                              \
  X(I32, int32_t, (double), (int32_t))                                                                                             \
  X(I64, int64_t, (double), (int64_t))

static inline double sfi_ref_load(const sf_tensor *t, int64_t i) {
  switch (t->dtype) {
#define LOAD(id, type, to, from)                                                                                                   \
  case SF_##id:                                                                                                                    \
    return to((const type *)t->data)[i];
    SFI_REF_DTYPES(LOAD)
#undef LOAD
  default:
    assert(!"element type of a verified graph");
    return 0;
  }
}

static inline void sfi_ref_store(const sf_tensor *t, int64_t i, double v) {
  switch (t->dtype) {
#define STORE(id, type, to, from)                                                                                                  \
  case SF_##id:                                                                                                                    \
    ((type *)t->data)[i] = from(v);                                                                                                \
    return;
    SFI_REF_DTYPES(STORE)
#undef STORE
  default:
    assert(!"element type of a verified graph");
  }
}

/* out[j] = t[i + j * step] for j < count: one look at the type for a whole run. */
static inline void sfi_ref_load_run(const sf_tensor *t, int64_t i, int64_t step, int64_t count, double *out) {
  switch (t->dtype) {
#define LOAD(id, type, to, from)                                                                                                   \
  case SF_##id: {                                                                                                                  \
    const type *p = (const type *)t->data + i;                                                                                     \
    for (int64_t j = 0; j < count; j++) out[j] = to p[j * step];                                                                   \
    return;                                                                                                                        \
  }
    SFI_REF_DTYPES(LOAD)
#undef LOAD
  default:
    assert(!"element type of a verified graph");
  }
}

/* ---- index spaces ------------------------------------------------------------------------------------------------- */

static inline int64_t sfi_ref_numel(const sf_tensor *t) {
  int64_t n = 1;
  for (int32_t d = 0; d < t->rank; d++) n *= t->dims[d];
  return n;
}

/* Elements in dimensions [begin, end). */
static inline int64_t sfi_ref_span(const sf_tensor *t, int32_t begin, int32_t end) {
  int64_t n = 1;
  for (int32_t d = begin; d < end; d++) n *= t->dims[d];
  return n;
}

static inline int32_t sfi_ref_axis(int64_t axis, int32_t rank) {
  return (int32_t)(axis < 0 ? axis + rank : axis);
}

/* Strides in elements of a dense row-major tensor. */
static inline void sfi_ref_strides(const sf_tensor *t, int64_t *out_strides) {
  int64_t stride = 1;
  for (int32_t d = t->rank - 1; d >= 0; d--) {
    out_strides[d] = stride;
    stride *= t->dims[d];
  }
}

/* Strides of `t` seen under `rank` dimensions, aligned at the last one: 0 where t repeats. */
static inline void sfi_ref_broadcast_strides(const sf_tensor *t, int32_t rank, int64_t *out_strides) {
  int64_t own[SF_MAX_RANK];
  sfi_ref_strides(t, own);
  for (int32_t d = 0; d < rank; d++) {
    int32_t mine = d - (rank - t->rank);
    out_strides[d] = mine < 0 || t->dims[mine] == 1 ? 0 : own[mine];
  }
}

/* Walks `rank` nested loops over a space that is not empty, adding up `n` offsets by the strides given for each: start with
 * index and offsets zero. False once the space is exhausted; index and offsets are then as at the start. */
static inline bool sfi_ref_next(int32_t rank, const int64_t *dims, int64_t *index, int32_t n, int64_t (*strides)[SF_MAX_RANK],
                                int64_t *offsets) {
  for (int32_t d = rank - 1; d >= 0; d--) {
    index[d]++;
    for (int32_t k = 0; k < n; k++) offsets[k] += strides[k][d];
    if (index[d] < dims[d]) return true;
    for (int32_t k = 0; k < n; k++) offsets[k] -= strides[k][d] * dims[d];
    index[d] = 0;
  }
  return false;
}

#endif
