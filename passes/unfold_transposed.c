/* A transposed convolution with a static weight as a convolution, so that its zeros are skipped as any other's. Of a stride s, the output
 * pixels of one remainder r = (o + pad) mod s see the taps k with k * dilation = r mod s, and each of these one input pixel,
 * (o + pad) / s - (k * dilation - r) / s: an ordinary convolution of stride 1. All remainders together are one convolution with
 * s[0] * s[1] times the channels, whose missing taps are zeros, and a shuffle of its channels into pixels.
 * Keeps values up to the order of sums. */
#include "unfold_transposed.h"

#include <math.h>

/* One dimension. */
typedef struct side {
  int64_t in, out, taps, stride, dilation, pad;
  int64_t window; /* taps of the convolution */
  int64_t rows;   /* its output */
} side;

static side make_side(const sf_graph *graph, const sfi_node *node, int32_t d) {
  side s = {.in = graph->nodes[node->inputs[0]].shape.dims[2 + d].c[0],
            .out = node->shape.dims[2 + d].c[0],
            .taps = graph->nodes[node->inputs[1]].shape.dims[2 + d].c[0],
            .stride = sfi_attr_of(node, SF_ATTR_STRIDE)->ints[d],
            .dilation = sfi_attr_of(node, SF_ATTR_DILATION)->ints[d],
            .pad = sfi_attr_of(node, SF_ATTR_PAD)->ints[d]};
  s.window = (s.taps - 1) * s.dilation / s.stride + 1;
  s.rows = sfi_max(s.in, (s.pad + s.out - 1) / s.stride + 1);
  return s;
}

/* w[c, m / groups, kh, kw] as [m * s0 * s1, c / groups, window, window], the windows turned round. */
static void fill(const float *w, int64_t channels, int64_t per_group, int64_t groups, const side s[2], float *out) {
  const int64_t in_group = channels / groups, area = s[0].window * s[1].window;
  for (int64_t c = 0; c < channels; c++) {
    for (int64_t m = 0; m < per_group; m++) {
      for (int64_t i = 0; i < s[0].taps * s[1].taps; i++) {
        const int64_t at[2] = {i / s[1].taps * s[0].dilation, i % s[1].taps * s[1].dilation};
        const int64_t phase = at[0] % s[0].stride * s[1].stride + at[1] % s[1].stride;
        const int64_t row = (c / in_group * per_group + m) * s[0].stride * s[1].stride + phase;
        const int64_t u = s[0].window - 1 - at[0] / s[0].stride, v = s[1].window - 1 - at[1] / s[1].stride;
        out[(row * in_group + c % in_group) * area + u * s[1].window + v] = w[(c * per_group + m) * s[0].taps * s[1].taps + i];
      }
    }
  }
}

static sf_value add(sfi_rewrite *rewrite, const sfi_node *like, sf_op op, sf_value x, int32_t n_attrs, const sf_attr *attrs) {
  return sfi_rewrite_add(rewrite, like, op, 1, &x, n_attrs, attrs);
}

/* Channels [m, s0, s1] to pixels, and the part of them that is the output. */
static sf_value shuffle(sfi_rewrite *rewrite, const sfi_node *node, sf_value x, int64_t m, const side s[2]) {
  const int64_t cut[] = {0, m, s[0].stride, s[1].stride, s[0].rows, s[1].rows}, order[] = {0, 1, 4, 2, 5, 3};
  const int64_t joined[] = {0, m, s[0].rows * s[0].stride, s[1].rows * s[1].stride}, starts[] = {0, 0, s[0].pad, s[1].pad};
  const int64_t ends[] = {INT64_MAX, INT64_MAX, s[0].pad + s[0].out, s[1].pad + s[1].out};
  x = add(rewrite, node, SF_OP_RESHAPE, x, 1, &(const sf_attr){.id = SF_ATTR_SHAPE, .count = 6, .ints = cut});
  x = add(rewrite, node, SF_OP_TRANSPOSE, x, 1, &(const sf_attr){.id = SF_ATTR_PERM, .count = 6, .ints = order});
  x = add(rewrite, node, SF_OP_RESHAPE, x, 1, &(const sf_attr){.id = SF_ATTR_SHAPE, .count = 4, .ints = joined});
  const sf_attr box[] = {{.id = SF_ATTR_STARTS, .count = 4, .ints = starts}, {.id = SF_ATTR_ENDS, .count = 4, .ints = ends}};
  return add(rewrite, node, SF_OP_SLICE, x, 2, box);
}

static bool all_finite(const float *elements, int64_t count) {
  for (int64_t i = 0; i < count; i++)
    if (!isfinite(elements[i])) return false;
  return true;
}

sf_value sfi_unfold_transposed(sfi_rewrite *rewrite, const sfi_node *node) {
  const sf_graph *graph = rewrite->to;
  const sfi_node w = graph->nodes[node->inputs[1]], x = graph->nodes[node->inputs[0]];
  if (!sfi_node_is_static(&w) || w.dtype != SF_F32 || sfi_node_is_static(&x) || w.bytes == 0) return SF_NO_VALUE;
  const side s[] = {make_side(graph, node, 0), make_side(graph, node, 1)};
  const int64_t channels = w.shape.dims[0].c[0], per_group = w.shape.dims[1].c[0], groups = sfi_attr_int(node, SF_ATTR_GROUPS);
  const int64_t m = per_group * groups, phases = s[0].stride * s[1].stride;
  sfi_shape shape = {4, {sfi_const(m * phases), sfi_const(channels / groups), sfi_const(s[0].window), sfi_const(s[1].window)}};
  /* More than four times the weight would be zeros that only dilation makes. */
  int64_t count, area;
  if (!sfi_mul(m * phases, channels / groups, &count) || !sfi_mul(s[0].window, s[1].window, &area) ||
      !sfi_mul(count, area, &count) || count > 16 * sfi_static_count(&w))
    return SF_NO_VALUE;
  float *data = sfi_rewrite_data(rewrite, count);
  const float *elements = data ? sfi_node_open(&w, &rewrite->to->diag) : NULL;
  if (!elements) return SF_NO_VALUE;
  const bool finite = all_finite(elements, sfi_static_count(&w)); /* else times the zeros of padding */
  if (finite) fill(elements, channels, per_group, groups, s, data);
  sfi_node_close(&w);
  if (!finite) return SF_NO_VALUE;
  sfi_node unnamed = *node;
  unnamed.name = NULL;
  const sf_value inputs[] = {node->inputs[0], sfi_rewrite_add_static(rewrite, &w, NULL, "unfolded", &shape, data)};
  const int64_t pad[] = {s[0].window - 1, s[1].window - 1, s[0].rows - s[0].in, s[1].rows - s[1].in};
  const sf_attr attrs[] = {{.id = SF_ATTR_PAD, .count = 4, .ints = pad}, {.id = SF_ATTR_GROUPS, .i = groups}};
  sf_value y = sfi_rewrite_add(rewrite, &unnamed, SF_OP_CONV2D, 2, inputs, 2, attrs);
  y = shuffle(rewrite, node->n_inputs == 3 ? &unnamed : node, y, m, s);
  if (node->n_inputs < 3 || y == SF_NO_VALUE) return y;
  const int64_t per_channel[] = {m, 1, 1};
  const sf_value bias = add(rewrite, &unnamed, SF_OP_RESHAPE, node->inputs[2], 1,
                            &(const sf_attr){.id = SF_ATTR_SHAPE, .count = 3, .ints = per_channel});
  return sfi_rewrite_add(rewrite, node, SF_OP_ADD, 2, (sf_value[]){y, bias}, 0, NULL);
}
