/* Operations that slide a window over images x[n, c, h, w]: convolution, pooling, global pooling. */
#include "ref_kernel.h"

enum { TILE_COLUMNS = 64 };

/* Where tap `t` of output index `o` falls in the input. */
static int64_t tap(const sfi_node *node, int dimension, int64_t o, int64_t t, int64_t dilation) {
  const int64_t *stride = sfi_attr_of(node, SF_ATTR_STRIDE)->ints, *pad = sfi_attr_of(node, SF_ATTR_PAD)->ints;
  return o * stride[dimension] + t * dilation - pad[dimension];
}

/* sum[j] += w * x over `columns` output pixels of one row, for one tap. Padding is ordinary zeros; a zero of a static operand is
 * absent. */
static void add_tap(const sfi_ref_call *call, double w, int64_t row, int64_t ih, int64_t kw, int64_t ow, int64_t columns,
                    double *sum) {
  const sf_tensor *x = &call->inputs[0];
  const int64_t *dilation = sfi_attr_of(call->node, SF_ATTR_DILATION)->ints;
  int64_t step = sfi_attr_of(call->node, SF_ATTR_STRIDE)->ints[1], iw = tap(call->node, 1, ow, kw, dilation[1]);
  bool row_inside = ih >= 0 && ih < x->dims[2], absent = call->static_mask & 1;
  for (int64_t j = 0; j < columns; j++, iw += step) {
    bool inside = row_inside && iw >= 0 && iw < x->dims[3];
    double v = inside ? sfi_ref_load(x, row + iw) : 0;
    if (!(inside && absent && v == 0)) sum[j] += w * v;
  }
}

void sfi_ref_conv2d(const sfi_ref_call *call) {
  const sf_tensor *x = &call->inputs[0], *w = &call->inputs[1], *out = call->output;
  const int64_t *dilation = sfi_attr_of(call->node, SF_ATTR_DILATION)->ints;
  int64_t m_per_group = out->dims[1] / sfi_attr_int(call->node, SF_ATTR_GROUPS);
  int64_t channels = w->dims[1], kh_count = w->dims[2], kw_count = w->dims[3], width = out->dims[3];
  bool absent = call->static_mask >> 1 & 1;
  double sum[TILE_COLUMNS];
  for (int64_t n = 0; n < out->dims[0]; n++)
    for (int64_t m = 0; m < out->dims[1]; m++) {
      double bias = call->node->n_inputs > 2 ? sfi_ref_load(&call->inputs[2], m) : 0;
      for (int64_t oh = 0; oh < out->dims[2]; oh++)
        for (int64_t ow = 0; ow < width; ow += TILE_COLUMNS) {
          int64_t columns = sfi_min(TILE_COLUMNS, width - ow);
          memset(sum, 0, sizeof sum);
          for (int64_t k = 0; k < channels * kh_count * kw_count; k++) {
            int64_t c = k / (kh_count * kw_count), kh = k / kw_count % kh_count, kw = k % kw_count;
            double weight = sfi_ref_load(w, m * channels * kh_count * kw_count + k);
            if (absent && weight == 0) continue;
            int64_t channel = n * x->dims[1] + m / m_per_group * channels + c, ih = tap(call->node, 0, oh, kh, dilation[0]);
            add_tap(call, weight, (channel * x->dims[2] + ih) * x->dims[3], ih, kw, ow, columns, sum);
          }
          int64_t o = ((n * out->dims[1] + m) * out->dims[2] + oh) * width + ow;
          for (int64_t j = 0; j < columns; j++) sfi_ref_store(out, o + j, sum[j] + bias);
        }
    }
}

/* One output pixel: every tap that an element of x reaches it with. A zero of a static operand is absent. */
static double transposed_pixel(const sfi_ref_call *call, int64_t n, int64_t m, int64_t oh, int64_t ow) {
  const sf_tensor *x = &call->inputs[0], *w = &call->inputs[1];
  const sfi_node *node = call->node;
  const int64_t *stride = sfi_attr_of(node, SF_ATTR_STRIDE)->ints, *pad = sfi_attr_of(node, SF_ATTR_PAD)->ints;
  const int64_t *dilation = sfi_attr_of(node, SF_ATTR_DILATION)->ints;
  const int64_t groups = sfi_attr_int(node, SF_ATTR_GROUPS), per_group = w->dims[1], in_group = x->dims[1] / groups;
  double sum = 0;
  for (int64_t kh = 0; kh < w->dims[2]; kh++) {
    const int64_t h = oh + pad[0] - kh * dilation[0];
    if (h < 0 || h % stride[0] || h / stride[0] >= x->dims[2]) continue;
    for (int64_t kw = 0; kw < w->dims[3]; kw++) {
      const int64_t v = ow + pad[1] - kw * dilation[1];
      if (v < 0 || v % stride[1] || v / stride[1] >= x->dims[3]) continue;
      for (int64_t i = 0; i < in_group; i++) {
        const int64_t c = m / per_group * in_group + i;
        const double a = sfi_ref_load(x, ((n * x->dims[1] + c) * x->dims[2] + h / stride[0]) * x->dims[3] + v / stride[1]);
        const double b = sfi_ref_load(w, ((c * per_group + m % per_group) * w->dims[2] + kh) * w->dims[3] + kw);
        const bool absent = (call->static_mask & 1 && a == 0) || (call->static_mask & 2 && b == 0);
        if (!absent) sum += a * b;
      }
    }
  }
  return sum;
}

void sfi_ref_conv_transpose(const sfi_ref_call *call) {
  const sf_tensor *out = call->output;
  int64_t n = sfi_ref_numel(out);
  for (int64_t i = 0; i < n; i++) {
    const int64_t ow = i % out->dims[3], oh = i / out->dims[3] % out->dims[2], m = i / out->dims[3] / out->dims[2] % out->dims[1];
    const double bias = call->node->n_inputs > 2 ? sfi_ref_load(&call->inputs[2], m) : 0;
    sfi_ref_store(out, i, transposed_pixel(call, i / out->dims[3] / out->dims[2] / out->dims[1], m, oh, ow) + bias);
  }
}

/* One window: the largest element (padding never wins, NaN does) or the mean. */
static double pool_window(const sfi_ref_call *call, int64_t image, int64_t oh, int64_t ow) {
  const sf_tensor *x = &call->inputs[0];
  const int64_t *kernel = sfi_attr_of(call->node, SF_ATTR_KERNEL)->ints;
  bool max = call->node->op == SF_OP_MAX_POOL;
  const int64_t *dilation = max ? sfi_attr_of(call->node, SF_ATTR_DILATION)->ints : (const int64_t[]){1, 1};
  double value = max ? -INFINITY : 0;
  int64_t inside = 0;
  for (int64_t kh = 0; kh < kernel[0]; kh++) {
    int64_t ih = tap(call->node, 0, oh, kh, dilation[0]);
    if (ih < 0 || ih >= x->dims[2]) continue;
    for (int64_t kw = 0; kw < kernel[1]; kw++) {
      int64_t iw = tap(call->node, 1, ow, kw, dilation[1]);
      if (iw < 0 || iw >= x->dims[3]) continue;
      double v = sfi_ref_load(x, (image * x->dims[2] + ih) * x->dims[3] + iw);
      inside++;
      if (!max)
        value += v;
      else if (v > value || isnan(v))
        value = v;
      if (max && isnan(value)) return value;
    }
  }
  if (max) return value;
  return value / (double)(sfi_attr_int(call->node, SF_ATTR_COUNT_INCLUDE_PAD) ? kernel[0] * kernel[1] : inside);
}

void sfi_ref_pool(const sfi_ref_call *call) {
  const sf_tensor *out = call->output;
  int64_t o = 0;
  for (int64_t image = 0; image < out->dims[0] * out->dims[1]; image++)
    for (int64_t oh = 0; oh < out->dims[2]; oh++)
      for (int64_t ow = 0; ow < out->dims[3]; ow++) sfi_ref_store(out, o++, pool_window(call, image, oh, ow));
}

void sfi_ref_global_pool(const sfi_ref_call *call) {
  const sf_tensor *x = &call->inputs[0];
  int64_t images = sfi_ref_numel(call->output), pixels = x->dims[2] * x->dims[3];
  for (int64_t i = 0; i < images; i++) {
    double sum = 0;
    for (int64_t p = 0; p < pixels; p++) sum += sfi_ref_load(x, i * pixels + p);
    sfi_ref_store(call->output, i, sum / (double)pixels);
  }
}
