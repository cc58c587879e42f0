/* Attention: its operands read as heads, and its shape; and what keeps keys and values from one run to the next. Heads and features are
 * constants; batch, rows and keys may be symbolic. */
#include "attention.h"
#include "infer.h"
#include "run_limits.h"

#include <math.h>

/* One of q, k, v: false where it has not `heads` (0: any) of one number of features. */
static bool read_operand(const sfi_shape *x, int64_t heads, sfi_poly *batch, int64_t *out_heads, sfi_poly *rows,
                         int64_t *features) {
  if (x->rank != 3 && x->rank != 4) return false;
  const sfi_poly last = x->dims[x->rank - 1];
  *batch = x->dims[0];
  *rows = x->dims[x->rank - 2];
  if (!sfi_is_const(last)) return false;
  if (x->rank == 4) {
    if (!sfi_is_const(x->dims[1])) return false;
    *out_heads = x->dims[1].c[0];
    *features = last.c[0];
  } else {
    if (heads < 1 || last.c[0] % heads != 0) return false;
    *out_heads = heads;
    *features = last.c[0] / heads;
  }
  return *out_heads >= 1 && *features >= 1;
}

const char *sfi_attention_read(const sf_graph *graph, const sfi_node *node, sfi_attention *out) {
  const int64_t heads = sfi_attr_int(node, SF_ATTR_HEADS), given = sfi_attr_int(node, SF_ATTR_KV_HEADS),
                kv_heads = given ? given : heads;
  const sfi_shape *v_shape = &graph->nodes[node->inputs[2]].shape;
  sfi_poly batch[2], keys;
  int64_t v_heads;
  *out = (sfi_attention){.causal = sfi_attr_int(node, SF_ATTR_CAUSAL) == 1};
  if (!read_operand(&graph->nodes[node->inputs[0]].shape, heads, &out->batch, &out->heads, &out->rows, &out->depth))
    return "q is not [batch, head, row, feature] or, with 'heads', [batch, row, head * feature]";
  int64_t depth = 0;
  if (!read_operand(&graph->nodes[node->inputs[1]].shape, kv_heads, &batch[0], &out->kv_heads, &out->keys, &depth))
    return "k is not [batch, head, key, feature] or, with heads, [batch, key, head * feature]";
  if (!read_operand(v_shape, kv_heads, &batch[1], &v_heads, &keys, &out->width))
    return "v is not [batch, head, key, feature] or, with heads, [batch, key, head * feature]";
  if (depth != out->depth) return "q and k differ in their features";
  if (v_heads != out->kv_heads || !sfi_poly_equal(keys, out->keys)) return "k and v differ in heads or keys";
  if (out->heads % out->kv_heads != 0) return "the heads of k do not divide those of q";
  for (int32_t i = 0; i < 2; i++)
    if (!sfi_poly_equal(batch[i], out->batch)) return "q, k and v differ in their batch";
  for (int32_t i = 3; i < node->n_inputs; i++) {
    const sfi_node *operand = &graph->nodes[node->inputs[i]];
    const bool integer = operand->dtype != SF_F32;
    if (!integer && out->mask) return "a second mask";
    if (integer)
      out->position = i;
    else
      out->mask = i;
  }
  const double scale = sfi_attr_of(node, SF_ATTR_SCALE)->f;
  out->scale = scale == 0 ? 1 / sqrt((double)out->depth) : scale;
  return NULL;
}

/* A run must know it before it begins. */
static sf_status check_position(const sf_graph *graph, const sfi_node *node, sfi_diag *diag, int32_t operand) {
  sfi_poly count;
  if (sfi_shape_numel(sfi_operand_shape(graph, node, operand), &count) && sfi_is(count, 1) &&
      graph->nodes[node->inputs[operand]].op == SF_OP_INPUT)
    return SF_OK;
  return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "the position is no input of one integer");
}

sf_status sfi_infer_attention(const sf_graph *graph, sfi_node *node, sfi_diag *diag) {
  sfi_attention a;
  bool causal;
  sf_status st = sfi_infer_flag(graph, node, diag, SF_ATTR_CAUSAL, &causal);
  if (st != SF_OK) return st;
  const char *wrong = sfi_attention_read(graph, node, &a);
  if (wrong) return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "%s", wrong);
  if (a.mask) {
    const sfi_shape scores = {4, {a.batch, sfi_const(a.heads), a.rows, a.keys}};
    sfi_shape both;
    if (!sfi_broadcast(&scores, sfi_operand_shape(graph, node, a.mask), &both) || !sfi_shape_equal(&both, &scores))
      return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "the mask does not broadcast to the scores");
  }
  if (a.position && (st = check_position(graph, node, diag, a.position)) != SF_OK) return st;
  node->shape = *sfi_operand_shape(graph, node, 0);
  node->shape.dims[node->shape.rank - 1] = sfi_const(node->shape.rank == 4 ? a.width : a.heads * a.width);
  return SF_OK;
}

sf_status sfi_infer_append(const sf_graph *graph, sfi_node *node, sfi_diag *diag) {
  const sfi_shape *cache = sfi_operand_shape(graph, node, 0);
  sfi_shape x = *sfi_operand_shape(graph, node, 1);
  int32_t axis;
  sf_status st = sfi_infer_axis(graph, node, diag, sfi_attr_int(node, SF_ATTR_AXIS), cache->rank, &axis);
  if (st != SF_OK || (st = check_position(graph, node, diag, 2)) != SF_OK) return st;
  if (x.rank == cache->rank) x.dims[axis] = cache->dims[axis];
  if (!sfi_shape_equal(&x, cache))
    return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "the operands differ beside dimension %d", axis);
  node->shape = *cache;
  return SF_OK;
}
