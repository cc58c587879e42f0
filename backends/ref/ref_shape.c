/* Operations that move elements and compute nothing. */
#include "ref_kernel.h"

#include <math.h>

/* The data of a WEIGHT or CONSTANT; NaN where it cannot be read. An INPUT has none: its tensor is the host's. */
void sfi_ref_leaf(const sfi_ref_call *call) {
  sf_tensor data = *call->output;
  sfi_diag diag = {0};
  if (!sfi_node_is_static(call->node)) return;
  data.data = (void *)(uintptr_t)sfi_node_open(call->node, &diag);
  data.dtype = call->node->dtype;
  if (data.data) {
    sfi_ref_reshape(&(sfi_ref_call){.node = call->node, .inputs = &data, .output = call->output});
    sfi_node_close(call->node);
  } else {
    for (int64_t i = 0, n = sfi_ref_numel(call->output); i < n; i++) sfi_ref_store(call->output, i, NAN);
  }
}

void sfi_ref_reshape(const sfi_ref_call *call) {
  int64_t n = sfi_ref_numel(call->output);
  for (int64_t i = 0; i < n; i++) sfi_ref_store(call->output, i, sfi_ref_load(&call->inputs[0], i));
}

/* Elements of `x` from `at` on, by one stride for each dimension of the output. */
static void walk(const sfi_ref_call *call, int64_t at, int64_t (*strides)[SF_MAX_RANK]) {
  const sf_tensor *out = call->output;
  int64_t n = sfi_ref_numel(out), index[SF_MAX_RANK] = {0};
  for (int64_t i = 0; i < n; i++) {
    sfi_ref_store(out, i, sfi_ref_load(&call->inputs[0], at));
    sfi_ref_next(out->rank, out->dims, index, 1, strides, &at);
  }
}

void sfi_ref_transpose(const sfi_ref_call *call) {
  const int64_t *perm = sfi_attr_of(call->node, SF_ATTR_PERM)->ints;
  int64_t own[SF_MAX_RANK], strides[1][SF_MAX_RANK];
  sfi_ref_strides(&call->inputs[0], own);
  for (int32_t d = 0; d < call->output->rank; d++) strides[0][d] = own[perm[d]];
  walk(call, 0, strides);
}

void sfi_ref_slice(const sfi_ref_call *call) {
  const sf_tensor *x = &call->inputs[0];
  const sfi_attr_value *starts = sfi_attr_of(call->node, SF_ATTR_STARTS), *steps = sfi_attr_of(call->node, SF_ATTR_STEPS);
  const sfi_attr_value *symbolic = sfi_attr_of(call->node, SF_ATTR_SYMBOLIC);
  int64_t own[SF_MAX_RANK], strides[1][SF_MAX_RANK], at = 0;
  sfi_ref_strides(x, own);
  for (int32_t d = 0; d < x->rank; d++) {
    int64_t start = starts->ints[d] < 0 ? starts->ints[d] + x->dims[d] : starts->ints[d];
    for (int32_t i = 0; i < symbolic->count; i++)
      if (symbolic->ints[i] == d) start = 0;
    at += sfi_max(start, 0) * own[d];
    strides[0][d] = own[d] * (steps->count > 0 ? steps->ints[d] : 1);
  }
  walk(call, at, strides);
}

void sfi_ref_concat(const sfi_ref_call *call) {
  const sf_tensor *out = call->output;
  int32_t axis = sfi_ref_axis(sfi_attr_int(call->node, SF_ATTR_AXIS), out->rank);
  int64_t before = sfi_ref_span(out, 0, axis), pitch = sfi_ref_span(out, axis, out->rank), at = 0;
  for (int32_t k = 0; k < call->node->n_inputs; k++) {
    int64_t width = sfi_ref_span(&call->inputs[k], axis, out->rank);
    for (int64_t i = 0; i < before; i++)
      for (int64_t j = 0; j < width; j++) sfi_ref_store(out, i * pitch + at + j, sfi_ref_load(&call->inputs[k], i * width + j));
    at += width;
  }
}

void sfi_ref_expand(const sfi_ref_call *call) {
  int64_t strides[1][SF_MAX_RANK];
  sfi_ref_broadcast_strides(&call->inputs[0], call->output->rank, strides[0]);
  walk(call, 0, strides);
}

void sfi_ref_pad(const sfi_ref_call *call) {
  const sf_tensor *x = &call->inputs[0], *out = call->output;
  const int64_t *before = sfi_attr_of(call->node, SF_ATTR_BEFORE)->ints;
  int64_t n = sfi_ref_numel(out), count = sfi_ref_numel(x), index[SF_MAX_RANK] = {0}, strides[1][SF_MAX_RANK], at = 0;
  for (int64_t i = 0; i < n; i++) sfi_ref_store(out, i, sfi_attr_of(call->node, SF_ATTR_VALUE)->f);
  sfi_ref_strides(out, strides[0]);
  for (int32_t d = 0; d < out->rank; d++) at += before[d] * strides[0][d];
  for (int64_t i = 0; i < count; i++) {
    sfi_ref_store(out, at, sfi_ref_load(x, i));
    sfi_ref_next(x->rank, x->dims, index, 1, strides, &at);
  }
}

void sfi_ref_gather(const sfi_ref_call *call) {
  const sf_tensor *x = &call->inputs[0], *ids = &call->inputs[1];
  const int32_t axis = sfi_ref_axis(sfi_attr_int(call->node, SF_ATTR_AXIS), x->rank);
  const int64_t before = sfi_ref_span(x, 0, axis), after = sfi_ref_span(x, axis + 1, x->rank), n = sfi_ref_numel(ids);
  for (int64_t i = 0; i < before * n; i++) {
    int64_t id = (int64_t)sfi_ref_load(ids, i % n);
    if (id < 0) id += x->dims[axis];
    const int64_t from = (i / n * x->dims[axis] + id) * after;
    for (int64_t j = 0; j < after; j++) sfi_ref_store(call->output, i * after + j, sfi_ref_load(x, from + j));
  }
}

void sfi_ref_append(const sfi_ref_call *call) {
  const sf_tensor *cache = &call->inputs[0], *x = &call->inputs[1], *out = call->output;
  const int32_t axis = sfi_ref_axis(sfi_attr_int(call->node, SF_ATTR_AXIS), out->rank);
  const int64_t before = sfi_ref_span(out, 0, axis), after = sfi_ref_span(out, axis + 1, out->rank), n = sfi_ref_numel(out);
  const int64_t width = x->dims[axis] * after, pitch = out->dims[axis] * after,
                at = (int64_t)sfi_ref_load(&call->inputs[2], 0) * after;
  for (int64_t i = 0; i < n; i++) sfi_ref_store(out, i, sfi_ref_load(cache, i));
  for (int64_t i = 0; i < before; i++)
    for (int64_t j = 0; j < width; j++) sfi_ref_store(out, i * pitch + at + j, sfi_ref_load(x, i * width + j));
}
