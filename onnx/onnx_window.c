/* Convolutions and pools. What has one dimension in space is computed with two, the first of extent 1. */
#include "onnx_import.h"

/* The attributes of a window over the last two dimensions; [height, width], pads [top, left, bottom, right]. */
typedef struct window {
  int32_t space; /* 1 or 2 in the model */
  int64_t kernel[2], stride[2], dilation[2], pad[4];
} window;

/* A list of one number a dimension, or none: all `otherwise`. A missing first dimension gets `unit`. */
static bool read_pair(importer *im, const char *name, int32_t space, int64_t otherwise, int64_t unit, int64_t out[2]) {
  int64_t list[2];
  int32_t count;
  if (!sfi_onnx_ints(im, name, 2, list, &count)) return false;
  if (count >= 0 && count != space) return INVALID(im, "attribute '%s' has %d entries for %d dimensions", name, count, space);
  out[0] = unit;
  for (int32_t i = 0; i < space; i++) out[2 - space + i] = count < 0 ? otherwise : list[i];
  for (int32_t i = 0; i < 2; i++) {
    if (out[i] < 1 || out[i] > INT32_MAX) return INVALID(im, "attribute '%s' has the entry %lld", name, (long long)out[i]);
  }
  return true;
}

/* Pads so that the result is as large as the operand divided by the stride, rounded up. */
static bool same_pads(importer *im, const sfi_shape *x, bool upper, window *w) {
  for (int32_t i = 2 - w->space; i < 2; i++) {
    sfi_poly extent = x->dims[x->rank - 2 + i];
    if (!sfi_is_const(extent)) return UNSUPPORTED(im, "attribute 'auto_pad' with a symbolic extent");
    int64_t out = sfi_ceil_div(extent.c[0], w->stride[i]);
    int64_t total = sfi_max(0, (out - 1) * w->stride[i] + (w->kernel[i] - 1) * w->dilation[i] + 1 - extent.c[0]);
    w->pad[i] = upper ? total / 2 : total - total / 2;
    w->pad[2 + i] = total - w->pad[i];
  }
  return true;
}

static bool read_window(importer *im, const sfi_shape *x, window *w) {
  const char *auto_pad;
  int64_t pads[4];
  int32_t count;
  if (x->rank != 3 && x->rank != 4) return UNSUPPORTED(im, "operand of rank %d: 1 and 2 dimensions in space are computed", x->rank);
  w->space = x->rank - 2;
  if (!read_pair(im, "strides", w->space, 1, 1, w->stride) || !read_pair(im, "dilations", w->space, 1, 1, w->dilation))
    return false;
  if (!sfi_onnx_text(im, "auto_pad", "NOTSET", &auto_pad) || !sfi_onnx_ints(im, "pads", 4, pads, &count)) return false;
  if (count >= 0 && count != 2 * w->space) return INVALID(im, "attribute 'pads' has %d entries", count);
  memset(w->pad, 0, sizeof w->pad);
  if (strcmp(auto_pad, "SAME_UPPER") == 0 || strcmp(auto_pad, "SAME_LOWER") == 0)
    return same_pads(im, x, strcmp(auto_pad, "SAME_UPPER") == 0, w);
  if (strcmp(auto_pad, "VALID") == 0) return true;
  if (strcmp(auto_pad, "NOTSET") != 0) return INVALID(im, "attribute 'auto_pad' is \"%.40s\"", auto_pad);
  for (int32_t i = 0; i < count; i++) {
    if (pads[i] < 0 || pads[i] > INT32_MAX) return UNSUPPORTED(im, "attribute 'pads' has the entry %lld", (long long)pads[i]);
    w->pad[i < w->space ? 2 - w->space + i : 4 - 2 * w->space + i] = pads[i];
  }
  return true;
}

/* x[n, c, l] as [n, c, 1, l]. */
static sf_value with_height(importer *im, sf_value x) {
  if (x == SF_NO_VALUE || sfi_onnx_shape_of(im, x)->rank == 4) return x;
  const sfi_shape *s = sfi_onnx_shape_of(im, x);
  sfi_shape shape = {.rank = 4, .dims = {s->dims[0], s->dims[1], sfi_const(1), s->dims[2]}};
  return sfi_onnx_reshaped(im, x, &shape);
}

/* And back. */
static sf_value without_height(importer *im, sf_value x, int32_t space) {
  if (x == SF_NO_VALUE || space == 2) return x;
  const sfi_shape *s = sfi_onnx_shape_of(im, x);
  sfi_shape shape = {.rank = 3, .dims = {s->dims[0], s->dims[1], s->dims[3]}};
  return sfi_onnx_reshaped(im, x, &shape);
}

/* Operand 1, the filter. One that is known gets its height here, so that it stays a weight. */
static bool filter(importer *im, sf_value *out) {
  onnx_value *v = im->in[1];
  if (v->kind == VALUE_STATIC && v->shape.rank == 3 && v->value == SF_NO_VALUE && sfi_onnx_whole(v)) {
    v->dims[3] = v->dims[2];
    v->dims[2] = 1;
    v->shape = (sfi_shape){.rank = 4, .dims = {v->shape.dims[0], v->shape.dims[1], sfi_const(1), v->shape.dims[2]}};
  }
  if (!sfi_onnx_operand(im, 1, true, out)) return false;
  *out = with_height(im, *out);
  return true;
}

static sf_attr list(sf_attr_id id, int32_t count, const int64_t *ints) {
  return (sf_attr){.id = id, .count = count, .ints = ints};
}

/* Convolutions of either direction: filter, window and operands. */
static bool read_convolution(importer *im, window *w, int64_t *out_groups, sf_value operands[3]) {
  const sfi_shape *x = &im->in[0]->shape, *f = &im->in[1]->shape;
  int64_t kernel[2];
  int32_t count;
  if (x->rank != f->rank && !(x->rank == 3 && f->rank == 4)) return INVALID(im, "operands of ranks %d and %d", x->rank, f->rank);
  for (int32_t i = 0; i < 2 && f->rank >= 3; i++) {
    sfi_poly extent = f->dims[f->rank - 2 + i];
    bool there = i == 1 || x->rank == 4;
    if (there && !sfi_is_const(extent)) return UNSUPPORTED(im, "a filter of symbolic extents");
    w->kernel[i] = there ? extent.c[0] : 1;
  }
  if (!read_window(im, x, w) || !sfi_onnx_int(im, "group", 1, out_groups)) return false;
  if (!sfi_onnx_ints(im, "kernel_shape", 2, kernel, &count)) return false;
  for (int32_t i = 0; i < count; i++) {
    if (count != w->space || kernel[i] != w->kernel[2 - count + i])
      return INVALID(im, "attribute 'kernel_shape' is not the filter's");
  }
  if (!sfi_onnx_operand(im, 0, true, &operands[0]) || !filter(im, &operands[1])) return false;
  if (sfi_onnx_given(im, 2) && !sfi_onnx_operand(im, 2, true, &operands[2])) return false;
  operands[0] = with_height(im, operands[0]);
  return true;
}

static bool convolution(importer *im, sf_op op, const window *w, int64_t groups, const sf_value operands[3],
                        const int64_t output_pad[2]) {
  sf_attr attrs[] = {list(SF_ATTR_STRIDE, 2, w->stride),
                     list(SF_ATTR_PAD, 4, w->pad),
                     list(SF_ATTR_DILATION, 2, w->dilation),
                     {.id = SF_ATTR_GROUPS, .i = groups},
                     list(SF_ATTR_OUTPUT_PAD, 2, output_pad)};
  sf_value y = sfi_onnx_build(im, op, sfi_onnx_given(im, 2) ? 3 : 2, operands, output_pad ? 5 : 4, attrs);
  return sfi_onnx_result(im, 0, without_height(im, y, w->space));
}

bool sfi_import_conv(importer *im) {
  window w;
  int64_t groups;
  sf_value operands[3];
  return read_convolution(im, &w, &groups, operands) && convolution(im, SF_OP_CONV2D, &w, groups, operands, NULL);
}

bool sfi_import_conv_transpose(importer *im) {
  window w;
  int64_t groups, more[2], output_pad[2] = {0, 0};
  int32_t count;
  const char *auto_pad;
  sf_value operands[3];
  if (!sfi_onnx_text(im, "auto_pad", "NOTSET", &auto_pad)) return false;
  if (strcmp(auto_pad, "NOTSET") != 0 && strcmp(auto_pad, "VALID") != 0)
    return UNSUPPORTED(im, "attribute 'auto_pad' is \"%.40s\"", auto_pad);
  if (!read_convolution(im, &w, &groups, operands)) return false;
  if (!sfi_onnx_ints(im, "output_padding", 2, more, &count)) return false;
  if (count >= 0 && count != w.space) return INVALID(im, "attribute 'output_padding' has %d entries", count);
  for (int32_t i = 0; i < count; i++) output_pad[2 - count + i] = more[i];
  return convolution(im, SF_OP_CONV_TRANSPOSE, &w, groups, operands, output_pad);
}

/* Rounded up, the last window may begin inside of the image and end outside: as if there were more padding. */
static bool round_up(importer *im, const sfi_shape *x, window *w, bool *out_changed) {
  *out_changed = false;
  for (int32_t i = 2 - w->space; i < 2; i++) {
    sfi_poly extent = x->dims[x->rank - 2 + i];
    if (!sfi_is_const(extent)) return UNSUPPORTED(im, "attribute 'ceil_mode' with a symbolic extent");
    int64_t reach = (w->kernel[i] - 1) * w->dilation[i] + 1, room = extent.c[0] + w->pad[i] + w->pad[2 + i] - reach;
    if (room < 0) return INVALID(im, "the window is larger than the image");
    int64_t last = sfi_ceil_div(room, w->stride[i]) * w->stride[i];
    if (last >= extent.c[0] + w->pad[i]) last -= w->stride[i]; /* it would begin behind the image */
    if (last > room) {
      w->pad[2 + i] += last - room;
      *out_changed = true;
    }
  }
  return true;
}

bool sfi_import_pool(importer *im) {
  window w;
  sf_value x;
  int64_t ceil_mode, order, include;
  bool average = im->arg == SF_OP_AVG_POOL, changed = false;
  const sfi_shape *shape = &im->in[0]->shape;
  if (sfi_onnx_output(im, 1)) return UNSUPPORTED(im, "its second result, the indices");
  if (shape->rank < 3 || !sfi_onnx_attribute(im, "kernel_shape"))
    return INVALID(im, "rank %d, or no attribute 'kernel_shape'", shape->rank);
  if (!read_pair(im, "kernel_shape", shape->rank - 2, 1, 1, w.kernel) || !read_window(im, shape, &w)) return false;
  if (!sfi_onnx_int(im, "ceil_mode", 0, &ceil_mode) || !sfi_onnx_int(im, "storage_order", 0, &order)) return false;
  if (!sfi_onnx_int(im, "count_include_pad", 0, &include)) return false;
  if (ceil_mode && !round_up(im, shape, &w, &changed)) return false;
  if (changed && average && include) return UNSUPPORTED(im, "attributes 'ceil_mode' and 'count_include_pad' together");
  if (average && (w.dilation[0] != 1 || w.dilation[1] != 1)) return UNSUPPORTED(im, "attribute 'dilations'");
  if (!sfi_onnx_operand(im, 0, true, &x)) return false;
  x = with_height(im, x);
  sf_attr attrs[] = {list(SF_ATTR_KERNEL, 2, w.kernel), list(SF_ATTR_STRIDE, 2, w.stride), list(SF_ATTR_PAD, 4, w.pad),
                     average ? (sf_attr){.id = SF_ATTR_COUNT_INCLUDE_PAD, .i = include} : list(SF_ATTR_DILATION, 2, w.dilation)};
  sf_value y = sfi_onnx_build(im, (sf_op)im->arg, 1, &x, 4, attrs);
  return sfi_onnx_result(im, 0, without_height(im, y, w.space));
}

bool sfi_import_global_pool(importer *im) {
  sf_value x;
  int32_t rank = im->in[0]->shape.rank;
  int64_t axes[SF_MAX_RANK];
  if (rank < 3) return INVALID(im, "rank %d", rank);
  if (!sfi_onnx_operand(im, 0, true, &x)) return false;
  if (rank == 4 && im->arg == SF_OP_REDUCE_MEAN) return sfi_onnx_result(im, 0, sfi_onnx_unary(im, SF_OP_GLOBAL_AVG_POOL, x));
  for (int32_t i = 2; i < rank; i++) axes[i - 2] = i;
  sf_attr attrs[] = {list(SF_ATTR_AXES, rank - 2, axes), {.id = SF_ATTR_KEEPDIMS, .i = 1}};
  return sfi_onnx_result(im, 0, sfi_onnx_build(im, (sf_op)im->arg, 1, &x, 2, attrs));
}

/* ---- images of another size --------------------------------------------------------------------------------------- */

/* Where element i of a result of `to` comes from along a dimension of `from`, as the modes of ONNX say. */
static double source_of(const char *mode, int64_t i, int64_t from, int64_t to, double scale) {
  if (strcmp(mode, "asymmetric") == 0) return (double)i / scale;
  if (strcmp(mode, "align_corners") == 0) return to == 1 ? 0 : (double)i * (double)(from - 1) / (double)(to - 1);
  if (strcmp(mode, "pytorch_half_pixel") == 0 && to == 1) return 0;
  return ((double)i + 0.5) / scale - 0.5;
}

static double rounded(const char *mode, double at) {
  double low = (double)(int64_t)at;
  if (low > at) low--;
  double rest = at - low;
  if (strcmp(mode, "floor") == 0) return low;
  if (strcmp(mode, "ceil") == 0) return rest > 0 ? low + 1 : low;
  if (strcmp(mode, "round_prefer_ceil") == 0) return rest >= 0.5 ? low + 1 : low;
  return rest > 0.5 ? low + 1 : low;
}

/* The matrix [to, from] that resizes along one dimension: it picks one element, or weighs two neighbours. */
static bool resizing(importer *im, int64_t from, int64_t to, double scale, bool linear, const char *coordinates,
                     const char *nearest, sf_value *out) {
  int64_t dims[2] = {to, from}, count;
  if (!sfi_onnx_count(im, 2, dims, &count)) return false;
  float *data = sfi_arena_alloc(&im->graph->arena, (size_t)count * sizeof *data);
  if (!data) return sfi_onnx_fail_memory(im);
  for (int64_t i = 0; i < to; i++) {
    double at = source_of(coordinates, i, from, to, scale);
    if (!linear) at = rounded(nearest, at);
    at = at<0 ? 0 : at>(double)(from - 1) ? (double)(from - 1) : at;
    int64_t low = (int64_t)at;
    float rest = (float)(at - (double)low);
    data[i * from + low] += 1 - rest;
    if (rest > 0) data[i * from + low + 1] += rest;
  }
  sfi_shape shape = {.rank = 2, .dims = {sfi_const(to), sfi_const(from)}};
  *out = sfi_graph_add_leaf(im->graph, SF_OP_WEIGHT, "resize", SF_F32, &shape, data, true, NULL);
  return true;
}

/* A product from each side with a sparse matrix: the rows of x[.., h, w], and its columns. */
bool sfi_import_resize(importer *im) {
  const char *mode, *coordinates, *nearest, *policy;
  const sfi_shape *shape = &im->in[0]->shape;
  int64_t exclude, antialias, sizes[SF_MAX_RANK], axes[SF_MAX_RANK];
  int32_t rank = shape->rank, n = 0, n_axes;
  sf_value x;
  if (!sfi_onnx_text(im, "mode", "nearest", &mode) || !sfi_onnx_text(im, "nearest_mode", "round_prefer_floor", &nearest))
    return false;
  if (!sfi_onnx_text(im, "coordinate_transformation_mode", "half_pixel", &coordinates)) return false;
  if (!sfi_onnx_int(im, "exclude_outside", 0, &exclude) || !sfi_onnx_int(im, "antialias", 0, &antialias)) return false;
  if (!sfi_onnx_text(im, "keep_aspect_ratio_policy", "stretch", &policy)) return false;
  bool linear = strcmp(mode, "linear") == 0;
  static const char *const known[] = {"half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"};
  bool coordinates_known = false;
  for (size_t i = 0; i < SFI_COUNT(known); i++) coordinates_known |= strcmp(coordinates, known[i]) == 0;
  if ((!linear && strcmp(mode, "nearest") != 0) || !coordinates_known || antialias || exclude || strcmp(policy, "stretch") != 0)
    return UNSUPPORTED(im, "mode \"%.20s\" with coordinates \"%.30s\", or an attribute that it does not know", mode, coordinates);
  if (!sfi_onnx_ints(im, "axes", SF_MAX_RANK, axes, &n_axes)) return false;
  if (n_axes < 0) {
    n_axes = rank;
    for (int32_t i = 0; i < rank; i++) axes[i] = i;
  }
  bool by_size = sfi_onnx_given(im, 3) && im->in[3]->count > 0;
  const onnx_value *scales = !by_size && sfi_onnx_given(im, 2) ? im->in[2] : NULL;
  if (by_size && !sfi_onnx_numbers(im, 3, SF_MAX_RANK, sizes, &n)) return false;
  if (scales && (scales->kind != VALUE_STATIC || !scales->floats)) return UNSUPPORTED(im, "scales that are not known at import");
  if (scales) n = (int32_t)sfi_min(scales->count, SF_MAX_RANK + 1);
  if (n != n_axes) return INVALID(im, "%d sizes for %d dimensions", n, n_axes);
  if (!sfi_onnx_operand(im, 0, true, &x)) return false;
  for (int32_t i = 0; i < n; i++) {
    int32_t axis;
    sf_value matrix = SF_NO_VALUE;
    if (!sfi_onnx_axis(im, axes[i], rank, &axis)) return false;
    sfi_poly extent = shape->dims[axis];
    double scale = scales ? (double)scales->floats[i] : 1;
    if (scales ? scale == 1 : sfi_is(extent, sizes[i])) continue;
    if (!sfi_is_const(extent) || extent.c[0] < 1) return UNSUPPORTED(im, "of a symbolic extent");
    if (axis < rank - 2) return UNSUPPORTED(im, "of dimension %d; the last two are resized", axis);
    if (scales && !(scale > 0 && scale < 1e6)) return INVALID(im, "a scale of %g", scale);
    int64_t to = scales ? (int64_t)((double)extent.c[0] * scale) : sizes[i];
    if (to < 1) return INVALID(im, "an extent of %lld", (long long)to);
    if (!scales) scale = (double)to / (double)extent.c[0];
    if (!resizing(im, extent.c[0], to, scale, linear, coordinates, nearest, &matrix)) return false;
    sf_attr transposed = {.id = SF_ATTR_TRANSPOSE_B, .i = 1};
    x = axis == rank - 1 ? sfi_onnx_build(im, SF_OP_MATMUL, 2, (sf_value[]){x, matrix}, 1, &transposed)
                         : sfi_onnx_binary(im, SF_OP_MATMUL, matrix, x);
  }
  return sfi_onnx_result(im, 0, x);
}
