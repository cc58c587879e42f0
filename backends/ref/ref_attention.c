/* Attention, a row of a head at a time: the largest score, then sums of features in blocks, so that no scores are kept. Keys that a row
 * does not see are absent. */
#include "attention.h"
#include "ref_kernel.h"

enum { BLOCK = 64 };

typedef struct attention {
  const sf_tensor *q, *k, *v, *mask; /* mask NULL: none */
  int64_t heads, group, rows, keys, depth, width, before;
  int64_t q_stride[4], k_stride[4], v_stride[4], out_stride[4], mask_stride[SF_MAX_RANK];
  double scale;
  bool causal, bounded;
} attention;

/* Strides as [batch, head, row, feature]. */
static void strides_of(const sf_tensor *t, int64_t features, int64_t out[4]) {
  int64_t own[SF_MAX_RANK] = {0};
  sfi_ref_strides(t, own);
  sfi_attention_strides(t->rank, features, own, out);
}

static int64_t at(const int64_t stride[4], int64_t b, int64_t h, int64_t i, int64_t f) {
  return b * stride[0] + h * stride[1] + i * stride[2] + f * stride[3];
}

static attention read_call(const sfi_ref_call *call) {
  const sfi_node *node = call->node;
  attention a = {.q = &call->inputs[0], .k = &call->inputs[1], .v = &call->inputs[2]};
  const int64_t given = sfi_attr_int(node, SF_ATTR_HEADS), kv_given = sfi_attr_int(node, SF_ATTR_KV_HEADS);
  const double scale = sfi_attr_of(node, SF_ATTR_SCALE)->f;
  const int64_t k_heads = a.k->rank == 4 ? a.k->dims[1] : kv_given ? kv_given : given;
  const int64_t v_heads = a.v->rank == 4 ? a.v->dims[1] : k_heads;
  a.heads = a.q->rank == 4 ? a.q->dims[1] : given;
  a.group = a.heads / k_heads;
  a.rows = a.q->dims[a.q->rank - 2];
  a.keys = a.k->dims[a.k->rank - 2];
  a.depth = a.q->dims[a.q->rank - 1] / (a.q->rank == 4 ? 1 : a.heads);
  a.width = a.v->dims[a.v->rank - 1] / (a.v->rank == 4 ? 1 : v_heads);
  a.scale = scale == 0 ? 1 / sqrt((double)a.depth) : scale;
  a.causal = sfi_attr_int(node, SF_ATTR_CAUSAL) == 1;
  for (int32_t i = 3; i < node->n_inputs; i++) {
    a.bounded = call->integer_mask >> i & 1;
    if (a.bounded)
      a.before = (int64_t)sfi_ref_load(&call->inputs[i], 0);
    else
      a.mask = &call->inputs[i];
  }
  strides_of(a.q, a.depth, a.q_stride);
  strides_of(a.k, a.depth, a.k_stride);
  strides_of(a.v, a.width, a.v_stride);
  strides_of(call->output, a.width, a.out_stride);
  if (a.mask) sfi_ref_broadcast_strides(a.mask, 4, a.mask_stride);
  return a;
}

static double score(const attention *a, int64_t b, int64_t h, int64_t i, int64_t j) {
  double s = 0;
  const int64_t q = at(a->q_stride, b, h, i, 0), k = at(a->k_stride, b, h / a->group, j, 0);
  for (int64_t f = 0; f < a->depth; f++)
    s += sfi_ref_load(a->q, q + f * a->q_stride[3]) * sfi_ref_load(a->k, k + f * a->k_stride[3]);
  return s * a->scale + (a->mask ? sfi_ref_load(a->mask, at(a->mask_stride, b, h, i, j)) : 0);
}

static void attend_row(const attention *a, const sf_tensor *out, int64_t b, int64_t h, int64_t i) {
  int64_t seen = a->bounded ? sfi_min(a->keys, a->before + a->rows) : a->keys;
  if (a->causal) seen = sfi_min(seen, a->before + i + 1);
  double max = -INFINITY;
  for (int64_t j = 0; j < seen && !isnan(max); j++) {
    const double s = score(a, b, h, i, j);
    if (isnan(s) || s > max) max = s;
  }
  for (int64_t first = 0; first < a->width; first += BLOCK) {
    double sum = 0, value[BLOCK] = {0};
    const int64_t count = sfi_min(BLOCK, a->width - first);
    for (int64_t j = 0; j < seen; j++) {
      const double p = exp(score(a, b, h, i, j) - max);
      sum += p;
      for (int64_t f = 0; f < count; f++) value[f] += p * sfi_ref_load(a->v, at(a->v_stride, b, h / a->group, j, first + f));
    }
    for (int64_t f = 0; f < count; f++) sfi_ref_store(out, at(a->out_stride, b, h, i, first + f), value[f] / sum);
  }
}

void sfi_ref_attention(const sfi_ref_call *call) {
  const attention a = read_call(call);
  for (int64_t b = 0; b < call->output->dims[0]; b++)
    for (int64_t h = 0; h < a.heads; h++)
      for (int64_t i = 0; i < a.rows; i++) attend_row(&a, call->output, b, h, i);
}
