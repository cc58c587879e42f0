/* Reads the scale and shift of one per-channel operation, in fp64. Needs a verified graph. */
#include "channel_affine.h"

#include <math.h>

/* Does a static tensor broadcast onto `rank` dimensions so that it differs along `axis` only? Then *out_step is 1, or 0 where it
 * is one number. */
static bool per_channel(const sf_graph *graph, sf_value v, int32_t rank, int32_t axis, int64_t channels, int64_t *out_step) {
  const sfi_node *node = &graph->nodes[v];
  if (!node->data || node->dtype != SF_F32 || node->shape.rank > rank) return false;
  *out_step = 0;
  for (int32_t d = 0; d < node->shape.rank; d++) {
    if (sfi_is(node->shape.dims[d], 1)) continue;
    if (d + rank - node->shape.rank != axis || !sfi_is(node->shape.dims[d], channels)) return false;
    *out_step = 1;
  }
  return true;
}

static bool compose(double a, double b, double *scale, double *shift) {
  *scale *= a;
  *shift = *shift * a + b;
  return a != 0 && isfinite(*scale) && isfinite(*shift) && *scale != 0;
}

static bool batch_norm(const sf_graph *graph, const sfi_node *node, sf_value x, int32_t axis, int64_t channels, double *scale,
                       double *shift) {
  const float *p[5];
  double eps = sfi_attr_of(node, SF_ATTR_EPS)->f;
  if (node->inputs[0] != x || axis != 1) return false;
  for (int k = 1; k < 5; k++) {
    const sfi_node *operand = &graph->nodes[node->inputs[k]];
    if (!operand->data || operand->dtype != SF_F32) return false;
    p[k] = operand->data;
  }
  for (int64_t c = 0; c < channels; c++) {
    double a = (double)p[1][c] / sqrt((double)p[4][c] + eps);
    if (!compose(a, (double)p[2][c] - (double)p[3][c] * a, &scale[c], &shift[c])) return false;
  }
  return true;
}

bool sfi_channel_affine(const sf_graph *graph, const sfi_node *node, sf_value x, int32_t axis, int64_t channels, double *scale,
                        double *shift) {
  const sfi_shape *shape = &graph->nodes[x].shape;
  int64_t step;
  if (node->op == SF_OP_BATCH_NORM) return batch_norm(graph, node, x, axis, channels, scale, shift);
  if (node->op != SF_OP_ADD && node->op != SF_OP_SUB && node->op != SF_OP_MUL && node->op != SF_OP_DIV) return false;
  bool commutes = node->op == SF_OP_ADD || node->op == SF_OP_MUL;
  sf_value other = node->inputs[0] == x ? node->inputs[1] : commutes && node->inputs[1] == x ? node->inputs[0] : SF_NO_VALUE;
  if (other == SF_NO_VALUE || node->shape.rank != shape->rank || !per_channel(graph, other, shape->rank, axis, channels, &step))
    return false;
  const float *data = graph->nodes[other].data;
  for (int64_t c = 0; c < channels; c++) {
    double k = data[c * step];
    bool ok = node->op == SF_OP_ADD   ? compose(1, k, &scale[c], &shift[c])
              : node->op == SF_OP_SUB ? compose(1, -k, &scale[c], &shift[c])
              : node->op == SF_OP_MUL ? compose(k, 0, &scale[c], &shift[c])
                                      : compose(1 / k, 0, &scale[c], &shift[c]);
    if (!ok) return false;
  }
  return true;
}
