/* Recognises attention in a graph of matrix products and makes it one operation:
 *   matmul(softmax(scale * matmul(q, k^T) + mask), v)
 * with the scale as one factor or divisor of the scores, or as factors of q and k, and the mask, if any, added to the scores. Heads that
 * were cut out of the last dimension, transpose(reshape(x)), are read where they are: then the operation takes x, and what puts its
 * result together again is simplified away behind this pass.
 * Needs a verified graph. Keeps values up to the order of sums. Products with static operands stay: a zero of theirs is absent. */
#include "rewrite.h"

#include <math.h>

enum { FEATURES_MOST = 256 }; /* of a head of k and v together: beyond, a tile of the kernel would not stay in the cache */

typedef struct pattern {
  const sf_graph *graph;
  sf_value q, k, v, mask; /* of rank 4; mask SF_NO_VALUE: none */
  bool k_exchanged;       /* k stands as [batch, head, feature, key] */
  double scale;
} pattern;

static const sfi_node *node_of(const pattern *p, sf_value v) {
  return &p->graph->nodes[v];
}

static int32_t uses_of(const sf_graph *graph, sf_value v) {
  int32_t uses = 0;
  for (size_t i = (size_t)v + 1; i < graph->n_nodes; i++)
    for (int32_t k = 0; k < graph->nodes[i].n_inputs; k++) uses += graph->nodes[i].inputs[k] == v;
  for (size_t i = 0; i < graph->n_outputs; i++) uses += graph->outputs[i].value == v;
  return uses;
}

static bool scalar_of(const pattern *p, sf_value v, double *out) {
  const sfi_node *node = node_of(p, v);
  float value;
  if (!node->data || node->dtype != SF_F32 || node->bytes != sizeof value) return false;
  memcpy(&value, node->data, sizeof value);
  *out = (double)value;
  return isfinite(value) && value != 0;
}

/* Takes a factor or divisor off a value of one use; SF_NO_VALUE where it has none. */
static sf_value without_factor(pattern *p, sf_value v) {
  const sfi_node *node = node_of(p, v);
  double factor;
  if ((node->op != SF_OP_MUL && node->op != SF_OP_DIV) || uses_of(p->graph, v) != 1) return SF_NO_VALUE;
  const int32_t of = node->op == SF_OP_MUL && sfi_node_is_static(node_of(p, node->inputs[0])) ? 0 : 1;
  const sf_value rest = node->inputs[1 - of];
  if (!scalar_of(p, node->inputs[of], &factor) || !sfi_shape_equal(&node_of(p, rest)->shape, &node->shape)) return SF_NO_VALUE;
  p->scale *= node->op == SF_OP_MUL ? factor : 1 / factor;
  return rest;
}

static sf_value bare(pattern *p, sf_value v) {
  for (sf_value rest; (rest = without_factor(p, v)) != SF_NO_VALUE;) v = rest;
  return v;
}

/* The scores behind a softmax: factors, one mask, the product. */
static sf_value product_of(pattern *p, sf_value scores) {
  const sfi_shape *shape = &node_of(p, scores)->shape;
  for (;;) {
    const sfi_node *node = node_of(p, scores);
    if (node->op == SF_OP_MATMUL) return scores;
    if (uses_of(p->graph, scores) != 1) return SF_NO_VALUE;
    if (node->op == SF_OP_ADD && p->mask == SF_NO_VALUE) {
      const int32_t of = sfi_shape_equal(&node_of(p, node->inputs[0])->shape, shape) ? 0 : 1;
      const sfi_node *rest = node_of(p, node->inputs[of]);
      if (!sfi_shape_equal(&rest->shape, shape)) return SF_NO_VALUE;
      /* Of two operands of the same shape, the scores are what is a product. */
      const bool product = rest->op == SF_OP_MATMUL || rest->op == SF_OP_MUL || rest->op == SF_OP_DIV;
      const int32_t scored = product || !sfi_shape_equal(&node_of(p, node->inputs[1 - of])->shape, shape) ? of : 1 - of;
      p->mask = node->inputs[1 - scored];
      scores = node->inputs[scored];
      continue;
    }
    const sf_value rest = p->scale == 1 ? without_factor(p, scores) : SF_NO_VALUE;
    if (rest == SF_NO_VALUE) return SF_NO_VALUE;
    /* A factor outside of the mask is the mask's too. */
    if (p->mask == SF_NO_VALUE) {
      const sfi_node *inner = node_of(p, rest);
      if (inner->op == SF_OP_ADD) return SF_NO_VALUE;
    }
    scores = rest;
  }
}

static bool matches(pattern *p, sf_value v) {
  const sfi_node *outer = node_of(p, v);
  if (outer->op != SF_OP_MATMUL || outer->shape.rank != 4 || sfi_attr_int(outer, SF_ATTR_TRANSPOSE_A) ||
      sfi_attr_int(outer, SF_ATTR_TRANSPOSE_B))
    return false;
  const sfi_node *softmax = node_of(p, outer->inputs[0]);
  if (softmax->op != SF_OP_SOFTMAX || uses_of(p->graph, outer->inputs[0]) != 1) return false;
  const int64_t axis = sfi_attr_int(softmax, SF_ATTR_AXIS);
  if (axis != -1 && axis != 3) return false;
  const sf_value product = product_of(p, softmax->inputs[0]);
  if (product == SF_NO_VALUE || uses_of(p->graph, product) != 1) return false;
  const sfi_node *inner = node_of(p, product);
  if (sfi_attr_int(inner, SF_ATTR_TRANSPOSE_A)) return false;
  p->q = bare(p, inner->inputs[0]);
  p->k = bare(p, inner->inputs[1]);
  p->v = outer->inputs[1];
  p->k_exchanged = !sfi_attr_int(inner, SF_ATTR_TRANSPOSE_B);
  const sfi_node *q = node_of(p, p->q), *k = node_of(p, p->k), *values = node_of(p, p->v);
  if (sfi_node_is_static(q) || sfi_node_is_static(k) || sfi_node_is_static(values) || q->shape.rank != 4 || k->shape.rank != 4 ||
      values->shape.rank != 4)
    return false;
  const sfi_poly width = values->shape.dims[3], depth = q->shape.dims[3], heads = q->shape.dims[1], shared = k->shape.dims[1];
  if (!sfi_is_const(width) || !sfi_is_const(depth) || !sfi_is_const(heads) || !sfi_is_const(shared)) return false;
  if (width.c[0] < 1 || depth.c[0] < 1 || width.c[0] + depth.c[0] > FEATURES_MOST) return false;
  if (shared.c[0] < 1 || heads.c[0] % shared.c[0] || !sfi_poly_equal(values->shape.dims[1], shared)) return false;
  return sfi_poly_equal(q->shape.dims[0], k->shape.dims[0]) && sfi_poly_equal(q->shape.dims[0], values->shape.dims[0]) &&
         isfinite((float)p->scale) && (float)p->scale != 0;
}

static bool permutes(const sfi_node *node, const int64_t perm[4]) {
  return node->op == SF_OP_TRANSPOSE && node->shape.rank == 4 &&
         memcmp(sfi_attr_of(node, SF_ATTR_PERM)->ints, perm, 4 * sizeof *perm) == 0;
}

/* [batch, row, head * feature] behind transpose(reshape(x)), or SF_NO_VALUE. perm: from [batch, row, head, feature]. */
static sf_value packed_of(const pattern *p, sf_value v, const int64_t perm[4]) {
  const sfi_node *transpose = node_of(p, v);
  if (!permutes(transpose, perm)) return SF_NO_VALUE;
  const sfi_node *reshape = node_of(p, transpose->inputs[0]);
  if (reshape->op != SF_OP_RESHAPE) return SF_NO_VALUE;
  const sfi_shape *from = &node_of(p, reshape->inputs[0])->shape, *to = &reshape->shape;
  const bool splits = from->rank == 3 && sfi_poly_equal(from->dims[0], to->dims[0]) && sfi_poly_equal(from->dims[1], to->dims[1]);
  return splits ? reshape->inputs[0] : SF_NO_VALUE;
}

/* The operand in the new graph, packed where it can be. */
static sf_value operand(sfi_rewrite *rewrite, const pattern *p, sf_value v, bool exchanged) {
  static const int64_t to_heads[] = {0, 2, 1, 3}, to_columns[] = {0, 2, 3, 1}, exchange[] = {0, 1, 3, 2};
  const sf_value packed = packed_of(p, v, exchanged ? to_columns : to_heads);
  if (packed != SF_NO_VALUE) return rewrite->map[packed];
  if (!exchanged) return rewrite->map[v];
  const sfi_node *node = node_of(p, v);
  if (permutes(node, exchange)) return rewrite->map[node->inputs[0]];
  const sf_attr perm = {.id = SF_ATTR_PERM, .count = 4, .ints = exchange};
  sfi_node unnamed = *node;
  unnamed.name = NULL;
  return sfi_rewrite_add(rewrite, &unnamed, SF_OP_TRANSPOSE, 1, &rewrite->map[v], 1, &perm);
}

static sf_value make(sfi_rewrite *rewrite, const pattern *p, const sfi_node *node) {
  static const int64_t to_heads[] = {0, 2, 1, 3};
  const int64_t heads = node_of(p, p->q)->shape.dims[1].c[0], kv_heads = node_of(p, p->v)->shape.dims[1].c[0];
  const sf_value inputs[] = {operand(rewrite, p, p->q, false), operand(rewrite, p, p->k, p->k_exchanged),
                             operand(rewrite, p, p->v, false), p->mask == SF_NO_VALUE ? SF_NO_VALUE : rewrite->map[p->mask]};
  if (sfi_rewrite_failed(rewrite)) return SF_NO_VALUE;
  const sf_attr attrs[] = {
      {.id = SF_ATTR_HEADS, .i = heads}, {.id = SF_ATTR_KV_HEADS, .i = kv_heads}, {.id = SF_ATTR_SCALE, .f = p->scale}};
  const bool packed = rewrite->to->nodes[inputs[0]].shape.rank == 3;
  sfi_node unnamed = *node;
  unnamed.name = NULL;
  const sf_value attention =
      sfi_rewrite_add(rewrite, packed ? &unnamed : node, SF_OP_ATTENTION, p->mask == SF_NO_VALUE ? 3 : 4, inputs, 3, attrs);
  if (!packed || attention == SF_NO_VALUE) return attention;
  const sf_attr shape = {.id = SF_ATTR_SHAPE, .count = 4, .ints = (const int64_t[]){0, 0, heads, node->shape.dims[3].c[0]}};
  const sf_attr perm = {.id = SF_ATTR_PERM, .count = 4, .ints = to_heads};
  const sf_value cut = sfi_rewrite_add(rewrite, &unnamed, SF_OP_RESHAPE, 1, &attention, 1, &shape);
  return sfi_rewrite_add(rewrite, node, SF_OP_TRANSPOSE, 1, &cut, 1, &perm);
}

sf_status sfi_fuse_attention(sfi_pass_env *env, const sf_graph *graph, sf_graph **out_graph) {
  sfi_rewrite rewrite;
  *out_graph = NULL;
  if (!sfi_rewrite_begin(&rewrite, env, graph)) return SF_STATUS_OUT_OF_MEMORY;
  for (size_t i = 0; i < graph->n_nodes && !sfi_rewrite_failed(&rewrite); i++) {
    pattern p = {.graph = graph, .mask = SF_NO_VALUE, .scale = 1};
    if (matches(&p, (sf_value)i))
      rewrite.map[i] = make(&rewrite, &p, &graph->nodes[i]);
    else
      sfi_rewrite_copy(&rewrite, (sf_value)i);
  }
  return sfi_rewrite_end(&rewrite, SF_OK, out_graph);
}
