/* Recognises attention in a graph of matrix products and makes it one operation:
 *   matmul(softmax(scale * matmul(q, k^T) + mask), v)
 * with the scale as one factor or divisor of the scores, or as factors of q and k. Up to two masks are added to the scores, or stand in
 * their place where a condition says so: where(seen, scores, -inf). One that hides what stands behind its query, and no more, and is made
 * of known numbers, is the operation's `causal`: such keys are absent then. Heads that were cut out of the last dimension, transpose(reshape(x)), are read where they are: then the operation takes x, and what puts its
 * result together again is simplified away behind this pass. Keys and values that were repeated for the queries which share them are read once.
 * Needs a verified graph. Keeps values up to the order of sums, where scores are numbers of less than 1e9. Products with static operands stay: a zero of theirs is absent. */
#include "rewrite.h"
#include "triangle.h"

#include <math.h>

enum {
  FEATURES_MOST = 256, /* of a head of k and v together: beyond, a tile of the kernel would not stay in the cache */
  MASKS_MOST = 2
};
/* A mask of this and less leaves nothing of a score's exponential. */
static const float hiding = -1e9F;
/* To this and less a score can be added and changes nothing: it may be masked by a sum in place of a choice. */
static const float absorbing = -1e30F;

typedef struct mask {
  sf_value value;   /* what is added; or a condition */
  sf_value instead; /* SF_NO_VALUE, or, with a condition, the number that stands in place of scores */
  bool where_true;  /* it stands there where the condition holds */
} mask;

typedef struct pattern {
  const sf_graph *graph;
  const sfi_pass_env *env;
  sfi_diag *diag;
  sf_value q, k, v; /* of rank 4 */
  bool k_exchanged; /* k stands as [batch, head, feature, key] */
  double scale;
  mask masks[MASKS_MOST]; /* that on the outside first */
  int32_t n_masks;
  bool causal; /* besides the masks */
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

/* Of a static scalar; NaN: it is none. */
static float number_of(const pattern *p, sf_value v) {
  const sfi_node *node = node_of(p, v);
  float value = NAN;
  if (node->data && node->dtype == SF_F32 && node->bytes == sizeof value) memcpy(&value, node->data, sizeof value);
  return value;
}

/* Takes a factor or divisor off a value of one use; SF_NO_VALUE where it has none. */
static sf_value without_factor(pattern *p, sf_value v) {
  const sfi_node *node = node_of(p, v);
  if ((node->op != SF_OP_MUL && node->op != SF_OP_DIV) || uses_of(p->graph, v) != 1) return SF_NO_VALUE;
  const int32_t of = node->op == SF_OP_MUL && sfi_node_is_static(node_of(p, node->inputs[0])) ? 0 : 1;
  const sf_value rest = node->inputs[1 - of];
  const double factor = (double)number_of(p, node->inputs[of]);
  if (!isfinite(factor) || factor == 0 || !sfi_shape_equal(&node_of(p, rest)->shape, &node->shape)) return SF_NO_VALUE;
  p->scale *= node->op == SF_OP_MUL ? factor : 1 / factor;
  return rest;
}

static sf_value bare(pattern *p, sf_value v) {
  for (sf_value rest; (rest = without_factor(p, v)) != SF_NO_VALUE;) v = rest;
  return v;
}

static bool is_scaled_product(const pattern *p, sf_value v, const sfi_shape *shape) {
  const sfi_node *node = node_of(p, v);
  return sfi_shape_equal(&node->shape, shape) && (node->op == SF_OP_MATMUL || node->op == SF_OP_MUL || node->op == SF_OP_DIV);
}

/* Of two operands the scores: a product rather than something else of their shape. -1: neither. */
static int32_t scores_of(const pattern *p, const sfi_node *node, int32_t first, const sfi_shape *shape) {
  for (int32_t i = first; i < first + 2; i++)
    if (is_scaled_product(p, node->inputs[i], shape)) return i;
  for (int32_t i = first; i < first + 2; i++)
    if (sfi_shape_equal(&node_of(p, node->inputs[i])->shape, shape) && !sfi_node_is_static(node_of(p, node->inputs[i]))) return i;
  return -1;
}

/* Takes a mask off scores; SF_NO_VALUE where they have none. */
static sf_value without_mask(pattern *p, const sfi_node *node) {
  const bool chosen = node->op == SF_OP_WHERE;
  if (p->n_masks == MASKS_MOST || (node->op != SF_OP_ADD && !chosen)) return SF_NO_VALUE;
  const int32_t first = chosen ? 1 : 0, of = scores_of(p, node, first, &node->shape);
  if (of < 0) return SF_NO_VALUE;
  const sf_value other = node->inputs[2 * first + 1 - of];
  if (chosen && !(number_of(p, other) <= absorbing)) return SF_NO_VALUE;
  p->masks[p->n_masks++] = chosen ? (mask){node->inputs[0], other, of == 2} : (mask){other, SF_NO_VALUE, false};
  return node->inputs[of];
}

/* The scores behind a softmax: masks, a factor, the product. A factor outside of a mask would be the mask's too. */
static sf_value product_of(pattern *p, sf_value scores) {
  bool scaled = false;
  for (;;) {
    const sfi_node *node = node_of(p, scores);
    if (node->op == SF_OP_MATMUL) return scores;
    if (uses_of(p->graph, scores) != 1 || scaled) return SF_NO_VALUE;
    sf_value rest = without_mask(p, node);
    if (rest == SF_NO_VALUE) {
      rest = without_factor(p, scores);
      scaled = true;
    }
    if (rest == SF_NO_VALUE) return SF_NO_VALUE;
    scores = rest;
  }
}

/* What a causal mask adds to keys behind their query; 0: it is none. */
static float causal_number(const pattern *p, const mask *m, sfi_poly rows, sfi_poly keys) {
  const sfi_shape *shape = &node_of(p, m->value)->shape;
  if (shape->rank < 2 || !sfi_poly_equal(rows, keys) || !sfi_poly_equal(shape->dims[shape->rank - 2], rows) ||
      !sfi_poly_equal(shape->dims[shape->rank - 1], keys))
    return 0;
  const sfi_triangle t = sfi_triangle_of(p->env, p->graph, m->value, p->diag);
  if (!t.known[0] || !t.known[1]) return 0;
  if (m->instead == SF_NO_VALUE) return t.value[0] == 0 && t.value[1] <= hiding ? t.value[1] : 0;
  return (t.value[0] != 0) != m->where_true && (t.value[1] != 0) == m->where_true ? number_of(p, m->instead) : 0;
}

/* A causal mask becomes a property where nothing but it says what a row without any key gives: alone, or where it is infinite, so that
 * no other mask outweighs it. */
static void find_causal(pattern *p, sfi_poly rows, sfi_poly keys) {
  for (int32_t i = 0; i < p->n_masks && !p->causal; i++) {
    const float number = causal_number(p, &p->masks[i], rows, keys);
    if (number == 0 || (p->n_masks > 1 && !isinf(number))) continue;
    p->causal = true;
    p->masks[i] = p->masks[--p->n_masks];
  }
}

/* The softmax that a product's first operand is. Exporters put 0 in place of what is not a number where a condition masks: rows that see
 * nothing. */
static sf_value softmax_of(const pattern *p, sf_value v, bool *out_guarded) {
  const sfi_node *choice = node_of(p, v);
  *out_guarded = choice->op == SF_OP_WHERE;
  if (uses_of(p->graph, v) != 1) return SF_NO_VALUE;
  if (!*out_guarded) return choice->op == SF_OP_SOFTMAX ? v : SF_NO_VALUE;
  const sf_value softmax = choice->inputs[2];
  const sfi_node *is_nan = node_of(p, choice->inputs[0]);
  if (is_nan->op != SF_OP_SUB || number_of(p, is_nan->inputs[0]) != 1 || number_of(p, choice->inputs[1]) != 0) return SF_NO_VALUE;
  const sfi_node *is_number = node_of(p, is_nan->inputs[1]);
  if (is_number->op != SF_OP_EQUAL || is_number->inputs[0] != softmax || is_number->inputs[1] != softmax) return SF_NO_VALUE;
  const bool ours = uses_of(p->graph, softmax) == 3 && uses_of(p->graph, choice->inputs[0]) == 1 &&
                    uses_of(p->graph, is_nan->inputs[1]) == 1 && sfi_shape_equal(&node_of(p, softmax)->shape, &choice->shape);
  return ours && node_of(p, softmax)->op == SF_OP_SOFTMAX ? softmax : SF_NO_VALUE;
}

static bool permutes(const sfi_node *node, const int64_t perm[4]) {
  return node->op == SF_OP_TRANSPOSE && node->shape.rank == 4 &&
         memcmp(sfi_attr_of(node, SF_ATTR_PERM)->ints, perm, 4 * sizeof *perm) == 0;
}

/* What `v` has rows and columns exchanged of, or SF_NO_VALUE. torch.export makes batch and heads one dimension meanwhile. */
static sf_value exchanged_of(const pattern *p, sf_value v) {
  static const int64_t exchange[] = {0, 1, 3, 2}, of_three[] = {0, 2, 1};
  const sfi_node *node = node_of(p, v);
  if (permutes(node, exchange)) return node->inputs[0];
  if (node->op != SF_OP_RESHAPE || node->shape.rank != 4) return SF_NO_VALUE;
  const sfi_node *transpose = node_of(p, node->inputs[0]);
  if (transpose->op != SF_OP_TRANSPOSE || transpose->shape.rank != 3 ||
      memcmp(sfi_attr_of(transpose, SF_ATTR_PERM)->ints, of_three, sizeof of_three) != 0)
    return SF_NO_VALUE;
  const sfi_node *joined = node_of(p, transpose->inputs[0]);
  if (joined->op != SF_OP_RESHAPE) return SF_NO_VALUE;
  const sfi_shape *from = &node_of(p, joined->inputs[0])->shape, *to = &node->shape;
  const bool exchanges = from->rank == 4 && sfi_poly_equal(from->dims[0], to->dims[0]) &&
                         sfi_poly_equal(from->dims[1], to->dims[1]) && sfi_poly_equal(from->dims[2], to->dims[3]) &&
                         sfi_poly_equal(from->dims[3], to->dims[2]) && sfi_poly_equal(joined->shape.dims[1], from->dims[2]) &&
                         sfi_poly_equal(joined->shape.dims[2], from->dims[3]);
  return exchanges ? joined->inputs[0] : SF_NO_VALUE;
}

/* The heads that `v` repeats, each as often as the others one behind the other: reshape(expand(reshape(x))), or SF_NO_VALUE. */
static sf_value shared_of(const pattern *p, sf_value v) {
  const sfi_node *node = node_of(p, v);
  if (node->op != SF_OP_RESHAPE || node->shape.rank != 4) return SF_NO_VALUE;
  const sfi_node *expand = node_of(p, node->inputs[0]);
  if (expand->op != SF_OP_EXPAND || expand->shape.rank != 5) return SF_NO_VALUE;
  const sfi_node *single = node_of(p, expand->inputs[0]);
  if (single->op != SF_OP_RESHAPE || single->shape.rank != 5 || !sfi_is(single->shape.dims[2], 1)) return SF_NO_VALUE;
  const sfi_shape *from = &node_of(p, single->inputs[0])->shape, *to = &node->shape;
  static const int32_t at[] = {0, 1, 3, 4}; /* dimensions of x among those of expand */
  bool same = from->rank == 4 && sfi_poly_equal(to->dims[0], from->dims[0]);
  for (int32_t d = 0; d < 4 && same; d++)
    same = sfi_poly_equal(from->dims[d], expand->shape.dims[at[d]]) && sfi_poly_equal(from->dims[d], single->shape.dims[at[d]]) &&
           (d < 2 || sfi_poly_equal(from->dims[d], to->dims[d]));
  return same ? single->inputs[0] : SF_NO_VALUE;
}

/* q, k and v of both products, as they were before they were exchanged or repeated. */
static void find_operands(pattern *p, const sfi_node *inner, const sfi_node *outer) {
  p->q = bare(p, inner->inputs[0]);
  p->k = bare(p, inner->inputs[1]);
  p->v = outer->inputs[1];
  p->k_exchanged = !sfi_attr_int(inner, SF_ATTR_TRANSPOSE_B);
  const sf_value straight = p->k_exchanged ? exchanged_of(p, p->k) : SF_NO_VALUE;
  if (straight != SF_NO_VALUE) {
    p->k = straight;
    p->k_exchanged = false;
  }
  const sf_value k = p->k_exchanged ? SF_NO_VALUE : shared_of(p, p->k), v = shared_of(p, p->v);
  if (k == SF_NO_VALUE || v == SF_NO_VALUE || !sfi_poly_equal(node_of(p, k)->shape.dims[1], node_of(p, v)->shape.dims[1])) return;
  p->k = k;
  p->v = v;
}

static bool matches(pattern *p, sf_value v) {
  const sfi_node *outer = node_of(p, v);
  if (outer->op != SF_OP_MATMUL || outer->shape.rank != 4 || sfi_attr_int(outer, SF_ATTR_TRANSPOSE_A) ||
      sfi_attr_int(outer, SF_ATTR_TRANSPOSE_B))
    return false;
  bool guarded;
  const sf_value weights = softmax_of(p, outer->inputs[0], &guarded);
  if (weights == SF_NO_VALUE) return false;
  const sfi_node *softmax = node_of(p, weights);
  const int64_t axis = sfi_attr_int(softmax, SF_ATTR_AXIS);
  if (axis != -1 && axis != 3) return false;
  const sf_value product = product_of(p, softmax->inputs[0]);
  if (product == SF_NO_VALUE || uses_of(p->graph, product) != 1) return false;
  const sfi_node *inner = node_of(p, product);
  if (sfi_attr_int(inner, SF_ATTR_TRANSPOSE_A)) return false;
  find_operands(p, inner, outer);
  const sfi_node *q = node_of(p, p->q), *k = node_of(p, p->k), *values = node_of(p, p->v);
  if (sfi_node_is_static(q) || sfi_node_is_static(k) || sfi_node_is_static(values) || q->shape.rank != 4 || k->shape.rank != 4 ||
      values->shape.rank != 4)
    return false;
  const sfi_poly width = values->shape.dims[3], depth = q->shape.dims[3], heads = q->shape.dims[1], shared = k->shape.dims[1];
  if (!sfi_is_const(width) || !sfi_is_const(depth) || !sfi_is_const(heads) || !sfi_is_const(shared)) return false;
  if (width.c[0] < 1 || depth.c[0] < 1 || width.c[0] + depth.c[0] > FEATURES_MOST) return false;
  if (shared.c[0] < 1 || heads.c[0] % shared.c[0] || !sfi_poly_equal(values->shape.dims[1], shared)) return false;
  if (!sfi_poly_equal(outer->shape.dims[1], heads)) return false; /* q's one head may stand for all of the others' */
  if (!sfi_poly_equal(q->shape.dims[0], k->shape.dims[0]) || !sfi_poly_equal(q->shape.dims[0], values->shape.dims[0])) return false;
  if (!isfinite((float)p->scale) || (float)p->scale == 0) return false;
  find_causal(p, inner->shape.dims[2], inner->shape.dims[3]);
  return !guarded || (p->causal && p->n_masks == 0); /* behind which every query sees its own key at least */
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
  const sf_attr perm = {.id = SF_ATTR_PERM, .count = 4, .ints = exchange};
  sfi_node unnamed = *node_of(p, v);
  unnamed.name = NULL;
  return sfi_rewrite_add(rewrite, &unnamed, SF_OP_TRANSPOSE, 1, &rewrite->map[v], 1, &perm);
}

/* The mask as a sum's operand. */
static sf_value make_mask(sfi_rewrite *rewrite, const pattern *p, const mask *m, const sfi_node *unnamed) {
  if (m->instead == SF_NO_VALUE) return rewrite->map[m->value];
  const sfi_node *instead = node_of(p, m->instead);
  const float *zero = sfi_rewrite_data(rewrite, 1);
  if (!zero) return SF_NO_VALUE;
  const sf_value nothing = sfi_rewrite_add_static(rewrite, instead, NULL, "zero", &instead->shape, zero),
                 number = rewrite->map[m->instead];
  const sf_value inputs[] = {rewrite->map[m->value], m->where_true ? number : nothing, m->where_true ? nothing : number};
  return sfi_rewrite_failed(rewrite) ? SF_NO_VALUE : sfi_rewrite_add(rewrite, unnamed, SF_OP_WHERE, 3, inputs, 0, NULL);
}

static sf_value make(sfi_rewrite *rewrite, const pattern *p, const sfi_node *node) {
  static const int64_t to_heads[] = {0, 2, 1, 3};
  const int64_t heads = node_of(p, p->q)->shape.dims[1].c[0], kv_heads = node_of(p, p->v)->shape.dims[1].c[0];
  sfi_node unnamed = *node;
  unnamed.name = NULL;
  sf_value inputs[4] = {operand(rewrite, p, p->q, false), operand(rewrite, p, p->k, p->k_exchanged),
                        operand(rewrite, p, p->v, false)};
  for (int32_t i = 0; i < p->n_masks && !sfi_rewrite_failed(rewrite); i++) {
    const sf_value sum[] = {inputs[3], make_mask(rewrite, p, &p->masks[i], &unnamed)};
    if (!sfi_rewrite_failed(rewrite)) inputs[3] = i ? sfi_rewrite_add(rewrite, &unnamed, SF_OP_ADD, 2, sum, 0, NULL) : sum[1];
  }
  if (sfi_rewrite_failed(rewrite)) return SF_NO_VALUE;
  const sf_attr attrs[] = {{.id = SF_ATTR_HEADS, .i = heads},
                           {.id = SF_ATTR_KV_HEADS, .i = kv_heads},
                           {.id = SF_ATTR_SCALE, .f = p->scale},
                           {.id = SF_ATTR_CAUSAL, .i = p->causal}};
  const bool packed = rewrite->to->nodes[inputs[0]].shape.rank == 3;
  const sf_value attention =
      sfi_rewrite_add(rewrite, packed ? &unnamed : node, SF_OP_ATTENTION, p->n_masks ? 4 : 3, inputs, 4, attrs);
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
    pattern p = {.graph = graph, .env = env, .diag = &rewrite.to->diag, .scale = 1};
    if (matches(&p, (sf_value)i))
      rewrite.map[i] = make(&rewrite, &p, &graph->nodes[i]);
    else
      sfi_rewrite_copy(&rewrite, (sf_value)i);
  }
  return sfi_rewrite_end(&rewrite, SF_OK, out_graph);
}
