/* Shapes of operations with windows: convolution and pooling of x[n, c, h, w].
 * out = floor((in + pads - dilation * (kernel - 1) - 1) / stride) + 1, at least 1. Height and width are constants of 1 or more;
 * n may be symbolic, and for pooling c too. Strides, dilations and kernels are positive. A pool's pads are smaller than its
 * dilated kernel; a window that still holds padding alone (dilation over a small image) gives -inf. */
#include "infer.h"

typedef struct window {
  int64_t kernel[2], stride[2], dilation[2], pad[4];
} window;

static sf_status read_list(const sf_graph *graph, const sfi_node *node, sfi_diag *diag, sf_attr_id id, int32_t count, int64_t least,
                           int64_t *out) {
  const sfi_attr_value *value = sfi_attr_of(node, id);
  const char *name = sfi_attr_info_of(id)->text;
  if (value->count != count) {
    return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "attribute '%s' has %d entries, not %d", name, value->count,
                          count);
  }
  for (int32_t i = 0; i < count; i++) {
    if (value->ints[i] < least || value->ints[i] > SFI_WINDOW_MAX) {
      return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "attribute '%s' has the entry %lld, outside %lld to %lld",
                            name, (long long)value->ints[i], (long long)least, (long long)SFI_WINDOW_MAX);
    }
    out[i] = value->ints[i];
  }
  return SF_OK;
}

/* Checks x and sets its shape's last two extents to the output's. */
static sf_status slide(const sf_graph *graph, const sfi_node *node, sfi_diag *diag, const window *w, sfi_shape *shape) {
  sfi_shape padded = *shape;
  for (int i = 0; i < 2; i++) {
    const char *side = i ? "width" : "height";
    sfi_poly in = shape->dims[2 + i];
    if (!sfi_is_const(in)) return sfi_infer_fail(graph, node, diag, SF_STATUS_UNSUPPORTED, "a symbolic %s", side);
    if (in.c[0] < 1) return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "the %s is 0", side);
    /* None of this overflows: every term is below 2^31, extents are below 2^40, and the product below 2^62. */
    int64_t reach = w->dilation[i] * (w->kernel[i] - 1) + 1;
    int64_t room = in.c[0] + w->pad[i] + w->pad[i + 2];
    if (room < reach) {
      return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "a window of %lld does not fit the padded %s of %lld",
                            (long long)reach, side, (long long)room);
    }
    shape->dims[2 + i] = sfi_const((room - reach) / w->stride[i] + 1);
    padded.dims[2 + i] = sfi_const(room);
  }
  if (!sfi_shape_fits(&padded)) return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "the padded image is too large");
  return SF_OK;
}

static sf_status need_rank_4(const sf_graph *graph, const sfi_node *node, sfi_diag *diag, int32_t i) {
  int32_t rank = sfi_operand_shape(graph, node, i)->rank;
  if (rank == 4) return SF_OK;
  return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "operand %d has %d dimensions, not 4", i + 1, rank);
}

sf_status sfi_infer_conv2d(const sf_graph *graph, sfi_node *node, sfi_diag *diag) {
  sf_status st;
  if ((st = need_rank_4(graph, node, diag, 0)) != SF_OK || (st = need_rank_4(graph, node, diag, 1)) != SF_OK) return st;
  const sfi_shape *x = sfi_operand_shape(graph, node, 0), *w = sfi_operand_shape(graph, node, 1);
  int64_t groups = sfi_attr_int(node, SF_ATTR_GROUPS);
  window win;
  if ((st = read_list(graph, node, diag, SF_ATTR_STRIDE, 2, 1, win.stride)) != SF_OK) return st;
  if ((st = read_list(graph, node, diag, SF_ATTR_DILATION, 2, 1, win.dilation)) != SF_OK) return st;
  if ((st = read_list(graph, node, diag, SF_ATTR_PAD, 4, 0, win.pad)) != SF_OK) return st;
  if (!sfi_is_const(x->dims[1])) return sfi_infer_fail(graph, node, diag, SF_STATUS_UNSUPPORTED, "symbolic channels");
  for (int i = 0; i < 4; i++) {
    if (!sfi_is_const(w->dims[i])) return sfi_infer_fail(graph, node, diag, SF_STATUS_UNSUPPORTED, "a symbolic extent of w");
  }
  int64_t channels = x->dims[1].c[0], rows = w->dims[0].c[0], per_group = w->dims[1].c[0];
  if (groups < 1 || rows % groups != 0 || channels % groups != 0) {
    return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "%lld groups do not divide %lld channels into %lld",
                          (long long)groups, (long long)channels, (long long)rows);
  }
  if (channels / groups != per_group) {
    return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "x has %lld channels a group, w has %lld",
                          (long long)(channels / groups), (long long)per_group);
  }
  for (int i = 0; i < 2; i++) {
    win.kernel[i] = w->dims[2 + i].c[0];
    if (win.kernel[i] < 1 || win.kernel[i] > SFI_WINDOW_MAX) {
      return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "a kernel of %lld taps", (long long)win.kernel[i]);
    }
  }
  if (node->n_inputs == 3) {
    const sfi_shape *bias = sfi_operand_shape(graph, node, 2);
    if (bias->rank != 1 || !sfi_is(bias->dims[0], rows)) {
      return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "the bias is not [%lld]", (long long)rows);
    }
  }
  node->shape = *x;
  node->shape.dims[1] = sfi_const(rows);
  sfi_shape image = *x;
  if ((st = slide(graph, node, diag, &win, &image)) != SF_OK) return st;
  node->shape.dims[2] = image.dims[2];
  node->shape.dims[3] = image.dims[3];
  return SF_OK;
}

/* out = (in - 1) * stride + dilation * (kernel - 1) + 1 - pads + output_pad. */
sf_status sfi_infer_conv_transpose(const sf_graph *graph, sfi_node *node, sfi_diag *diag) {
  sf_status st;
  window win;
  int64_t more[2];
  if ((st = need_rank_4(graph, node, diag, 0)) != SF_OK || (st = need_rank_4(graph, node, diag, 1)) != SF_OK) return st;
  const sfi_shape *x = sfi_operand_shape(graph, node, 0), *w = sfi_operand_shape(graph, node, 1);
  const int64_t groups = sfi_attr_int(node, SF_ATTR_GROUPS);
  if ((st = read_list(graph, node, diag, SF_ATTR_STRIDE, 2, 1, win.stride)) != SF_OK) return st;
  if ((st = read_list(graph, node, diag, SF_ATTR_DILATION, 2, 1, win.dilation)) != SF_OK) return st;
  if ((st = read_list(graph, node, diag, SF_ATTR_PAD, 4, 0, win.pad)) != SF_OK) return st;
  if ((st = read_list(graph, node, diag, SF_ATTR_OUTPUT_PAD, 2, 0, more)) != SF_OK) return st;
  if (!sfi_is_const(x->dims[1])) return sfi_infer_fail(graph, node, diag, SF_STATUS_UNSUPPORTED, "symbolic channels");
  for (int i = 0; i < 4; i++) {
    if (!sfi_is_const(w->dims[i])) return sfi_infer_fail(graph, node, diag, SF_STATUS_UNSUPPORTED, "a symbolic extent of w");
  }
  const int64_t channels = x->dims[1].c[0], rows = w->dims[1].c[0];
  if (channels != w->dims[0].c[0] || groups < 1 || channels % groups != 0) {
    return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "%lld groups of %lld channels, w has %lld", (long long)groups,
                          (long long)channels, (long long)w->dims[0].c[0]);
  }
  if (!sfi_poly_mul(sfi_const(rows), sfi_const(groups), &node->shape.dims[1])) {
    return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "too many channels");
  }
  if (node->n_inputs == 3) {
    const sfi_shape *bias = sfi_operand_shape(graph, node, 2);
    if (bias->rank != 1 || !sfi_is(bias->dims[0], rows * groups)) {
      return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "the bias is not [%lld]", (long long)(rows * groups));
    }
  }
  node->shape.rank = 4;
  node->shape.dims[0] = x->dims[0];
  for (int i = 0; i < 2; i++) {
    const char *side = i ? "width" : "height";
    const sfi_poly in = x->dims[2 + i];
    const int64_t taps = w->dims[2 + i].c[0];
    if (!sfi_is_const(in)) return sfi_infer_fail(graph, node, diag, SF_STATUS_UNSUPPORTED, "a symbolic %s", side);
    if (in.c[0] < 1 || taps < 1 || taps > SFI_WINDOW_MAX) {
      return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "a %s of %lld under %lld taps", side, (long long)in.c[0],
                            (long long)taps);
    }
    if (more[i] >= win.stride[i]) {
      return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "an output padding of %lld is not smaller than the stride",
                            (long long)more[i]);
    }
    /* Extents are below 2^40, the others below 2^31: only the first product can overflow. */
    int64_t out;
    const int64_t reach = win.dilation[i] * (taps - 1) + 1 - win.pad[i] - win.pad[i + 2] + more[i];
    if (!sfi_mul(in.c[0] - 1, win.stride[i], &out) || !sfi_add(out, reach, &out)) {
      return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "too many elements in the result");
    }
    if (out < 1) return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "nothing is left of the %s", side);
    node->shape.dims[2 + i] = sfi_const(out);
  }
  return SF_OK;
}

sf_status sfi_infer_pool(const sf_graph *graph, sfi_node *node, sfi_diag *diag) {
  sf_status st;
  bool count_include_pad;
  window win = {.dilation = {1, 1}};
  if ((st = need_rank_4(graph, node, diag, 0)) != SF_OK) return st;
  if ((st = read_list(graph, node, diag, SF_ATTR_KERNEL, 2, 1, win.kernel)) != SF_OK) return st;
  if ((st = read_list(graph, node, diag, SF_ATTR_STRIDE, 2, 1, win.stride)) != SF_OK) return st;
  if ((st = read_list(graph, node, diag, SF_ATTR_PAD, 4, 0, win.pad)) != SF_OK) return st;
  if (node->op == SF_OP_MAX_POOL)
    st = read_list(graph, node, diag, SF_ATTR_DILATION, 2, 1, win.dilation);
  else
    st = sfi_infer_flag(graph, node, diag, SF_ATTR_COUNT_INCLUDE_PAD, &count_include_pad);
  if (st != SF_OK) return st;
  for (int i = 0; i < 4; i++) {
    if (win.pad[i] > win.dilation[i % 2] * (win.kernel[i % 2] - 1)) {
      return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "a padding of %lld is not smaller than the window",
                            (long long)win.pad[i]);
    }
  }
  node->shape = *sfi_operand_shape(graph, node, 0);
  return slide(graph, node, diag, &win, &node->shape);
}

/* Height and width may be symbolic; the mean of no element is NaN. */
sf_status sfi_infer_global_pool(const sf_graph *graph, sfi_node *node, sfi_diag *diag) {
  sf_status st = need_rank_4(graph, node, diag, 0);
  if (st != SF_OK) return st;
  node->shape = *sfi_operand_shape(graph, node, 0);
  node->shape.dims[2] = node->shape.dims[3] = sfi_const(1);
  return SF_OK;
}
