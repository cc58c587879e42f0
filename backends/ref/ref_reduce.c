/* Operations that look along dimensions: reductions, softmax, layer and RMS norm; and batch norm, whose statistics are given. */
#include "ref_kernel.h"

void sfi_ref_reduce(const sfi_ref_call *call) {
  const sf_tensor *x = &call->inputs[0];
  const sfi_attr_value *axes = sfi_attr_of(call->node, SF_ATTR_AXES);
  sf_op op = call->node->op;
  /* Two spaces over the operand: kept extents with reduced ones as 1, and the other way round. */
  int64_t outer[SF_MAX_RANK], inner[SF_MAX_RANK], strides[1][SF_MAX_RANK], index[SF_MAX_RANK] = {0}, base = 0, count = 1;
  for (int32_t d = 0; d < x->rank; d++) outer[d] = x->dims[d], inner[d] = 1;
  for (int32_t i = 0; i < axes->count; i++) {
    int32_t d = sfi_ref_axis(axes->ints[i], x->rank);
    outer[d] = 1, inner[d] = x->dims[d];
  }
  for (int32_t d = 0; d < x->rank; d++) count *= inner[d];
  sfi_ref_strides(x, strides[0]);
  int64_t n = sfi_ref_numel(call->output);
  for (int64_t o = 0; o < n; o++) {
    double value = op == SF_OP_REDUCE_MAX ? -INFINITY : 0;
    int64_t at = base, walk[SF_MAX_RANK] = {0};
    for (int64_t i = 0; i < count; i++) {
      double v = sfi_ref_load(x, at);
      if (op != SF_OP_REDUCE_MAX)
        value += v;
      else if (!isnan(value) && (v > value || isnan(v)))
        value = v;
      sfi_ref_next(x->rank, inner, walk, 1, strides, &at);
    }
    sfi_ref_store(call->output, o, op == SF_OP_REDUCE_MEAN ? value / (double)count : value);
    sfi_ref_next(x->rank, outer, index, 1, strides, &base);
  }
}

void sfi_ref_softmax(const sfi_ref_call *call) {
  const sf_tensor *x = &call->inputs[0];
  int32_t axis = sfi_ref_axis(sfi_attr_int(call->node, SF_ATTR_AXIS), x->rank);
  int64_t before = sfi_ref_span(x, 0, axis), count = x->dims[axis], after = sfi_ref_span(x, axis + 1, x->rank);
  for (int64_t row = 0; row < before * after; row++) {
    int64_t base = row / after * count * after + row % after;
    double max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < count; i++) max = fmax(max, sfi_ref_load(x, base + i * after));
    /* NaN, +Inf and a row of -Inf alone make a NaN here, and so the sum and the whole row. */
    for (int64_t i = 0; i < count; i++) sum += exp(sfi_ref_load(x, base + i * after) - max);
    for (int64_t i = 0; i < count; i++)
      sfi_ref_store(call->output, base + i * after, exp(sfi_ref_load(x, base + i * after) - max) / sum);
  }
}

/* RMS norm is layer norm about 0. */
void sfi_ref_normalize(const sfi_ref_call *call) {
  const sf_tensor *x = &call->inputs[0];
  int32_t axis = sfi_ref_axis(sfi_attr_int(call->node, SF_ATTR_AXIS), x->rank), n_inputs = call->node->n_inputs;
  int64_t rows = sfi_ref_span(x, 0, axis), count = sfi_ref_span(x, axis, x->rank);
  double eps = sfi_attr_of(call->node, SF_ATTR_EPS)->f;
  bool centred = call->node->op == SF_OP_LAYER_NORM;
  for (int64_t row = 0; row < rows; row++) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; centred && i < count; i++) sum += sfi_ref_load(x, row * count + i);
    double mean = sum / (double)count;
    for (int64_t i = 0; i < count; i++) {
      double d = sfi_ref_load(x, row * count + i) - mean;
      squares += d * d;
    }
    double deviation = sqrt(squares / (double)count + eps);
    for (int64_t i = 0; i < count; i++) {
      double y = (sfi_ref_load(x, row * count + i) - mean) / deviation;
      if (n_inputs > 1) y *= sfi_ref_load(&call->inputs[1], i);
      if (n_inputs > 2) y += sfi_ref_load(&call->inputs[2], i);
      sfi_ref_store(call->output, row * count + i, y);
    }
  }
}

void sfi_ref_batch_norm(const sfi_ref_call *call) {
  const sf_tensor *x = &call->inputs[0], *in = call->inputs;
  int64_t n = sfi_ref_numel(x), channels = x->dims[1], pixels = sfi_ref_span(x, 2, x->rank);
  double eps = sfi_attr_of(call->node, SF_ATTR_EPS)->f;
  for (int64_t i = 0; i < n; i++) {
    int64_t c = i / pixels % channels;
    double deviation = sqrt(sfi_ref_load(&in[4], c) + eps);
    double y = (sfi_ref_load(x, i) - sfi_ref_load(&in[3], c)) / deviation * sfi_ref_load(&in[1], c) + sfi_ref_load(&in[2], c);
    sfi_ref_store(call->output, i, y);
  }
}
