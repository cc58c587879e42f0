/* Folds what scales and shifts the output channels of a contraction (batch_norm, or mul, div, add, sub by a static per-channel
 * tensor) into its static weight and bias.
 * Needs a verified graph without dead values, so that a single use is seen as one. Preserves values up to rounding: the whole chain is
 * composed in fp64 and rounded once. Zeros of the weight stay zeros and no other weight becomes one. Left alone: a chain whose scale
 * is 0 or not finite anywhere, and a weight that would overflow or vanish, because these change which results are NaN or Inf.
 * Afterwards a conv2d has its bias as third operand; a matmul has one `add` of a static tensor behind it. */
#include "channel_affine.h"
#include "rewrite.h"

#include <math.h>
#include <stdlib.h>

/* A contraction with a static weight and the chain behind it. */
typedef struct chain {
  sf_value head, last; /* the contraction, the last value of the chain */
  int32_t weight;      /* operand of head */
  int32_t axis;        /* of channels in head's result */
  int32_t length;      /* operations behind head */
  sfi_matrix matrix;
} chain;

/* Is the bias that `head` has known? It becomes the shift at the start of the chain. */
static bool start(const sf_graph *graph, const sfi_node *head, int64_t channels, double *scale, double *shift) {
  const float *bias = NULL;
  if (head->n_inputs == 3 && !(bias = graph->nodes[head->inputs[2]].data)) return false;
  for (int64_t c = 0; c < channels; c++) {
    scale[c] = 1;
    shift[c] = bias ? (double)bias[c] : 0;
    if (!isfinite(shift[c])) return false;
  }
  return true;
}

/* Follows single uses from c->head, up to c->length of them where that is not negative; composes into scale and shift. */
static bool follow(const sf_graph *graph, const sf_value *only_user, chain *c, double *scale, double *shift) {
  const sfi_node *head = &graph->nodes[c->head];
  int32_t limit = c->length;
  if (!start(graph, head, c->matrix.rows, scale, shift)) return false;
  c->last = c->head;
  for (c->length = 0; c->length != limit; c->length++) {
    sf_value next = only_user[c->last];
    if (next == SF_NO_VALUE || !sfi_channel_affine(graph, &graph->nodes[next], c->last, c->axis, c->matrix.rows, scale, shift))
      break;
    c->last = next;
  }
  return true;
}

static bool all_representable(const sfi_matrix *w, const double *scale, const double *shift) {
  for (int64_t r = 0; r < w->rows; r++) {
    if (!isfinite((float)shift[r])) return false;
    if (scale[r] == 1) continue;
    for (int64_t k = 0; k < w->columns; k++) {
      float before = w->data[r * w->row_stride + k * w->column_stride], after = (float)(before * scale[r]);
      if (before != 0 && isfinite(before) && (after == 0 || !isfinite(after))) return false;
    }
  }
  return true;
}

/* Fits every scaled weight and every shift into fp32 with finite and nonzero kept so? A weight that cannot be read does not. */
static bool representable(const sfi_matrix *weight, const double *scale, const double *shift) {
  sfi_diag diag = {0};
  sfi_matrix w = *weight;
  if (!sfi_matrix_open(&w, &diag)) return false;
  const bool all = all_representable(&w, scale, shift);
  sfi_matrix_close(&w);
  return all;
}

static bool all_equal(const double *values, int64_t count, double value) {
  for (int64_t i = 0; i < count; i++)
    if (values[i] != value) return false;
  return true;
}

/* The chain as one contraction with a bias, in the new graph. */
static sf_value build(sfi_rewrite *rewrite, const chain *c, const double *scale, const double *shift) {
  const sf_graph *from = rewrite->from;
  const sfi_node *head = &from->nodes[c->head], *weight = &from->nodes[head->inputs[c->weight]];
  sfi_node like = *head;
  int64_t channels = c->matrix.rows;
  sf_value inputs[3], bias = SF_NO_VALUE;
  bool shifted = !all_equal(shift, channels, 0), conv = head->op == SF_OP_CONV2D;
  like.name = from->nodes[c->last].name;
  for (int32_t k = 0; k < head->n_inputs; k++) inputs[k] = rewrite->map[head->inputs[k]];
  if (!all_equal(scale, channels, 1)) {
    float *data = sfi_rewrite_data(rewrite, sfi_static_count(weight));
    sfi_matrix w = c->matrix;
    if (!data || !sfi_matrix_open(&w, &rewrite->to->diag)) return SF_NO_VALUE;
    for (int64_t r = 0; r < channels; r++)
      for (int64_t k = 0; k < w.columns; k++) {
        int64_t at = r * w.row_stride + k * w.column_stride;
        data[at] = (float)(w.data[at] * scale[r]);
      }
    sfi_matrix_close(&w);
    inputs[c->weight] = sfi_rewrite_add_static(rewrite, weight, sfi_label(weight), "scaled", &weight->shape, data);
  }
  if (shifted) {
    /* A bias for matmul(W, X) runs along rows. */
    sfi_shape shape = {.rank = 1, .dims = {sfi_const(channels)}};
    if (!conv && c->axis != head->shape.rank - 1) shape = (sfi_shape){.rank = 2, .dims = {sfi_const(channels), sfi_const(1)}};
    float *data = sfi_rewrite_data(rewrite, channels);
    if (!data) return SF_NO_VALUE;
    for (int64_t i = 0; i < channels; i++) data[i] = (float)shift[i];
    bias = sfi_rewrite_add_static(rewrite, weight, NULL, "shift", &shape, data);
  }
  sf_attr attrs[SFI_ATTRS_MAX];
  int32_t n_attrs = sfi_rewrite_attrs(head, attrs);
  if (conv) {
    inputs[2] = bias;
    return sfi_rewrite_add(rewrite, &like, head->op, shifted ? 3 : 2, inputs, n_attrs, attrs);
  }
  if (!shifted) return sfi_rewrite_add(rewrite, &like, head->op, 2, inputs, n_attrs, attrs);
  sf_value product = sfi_rewrite_add(rewrite, head, head->op, 2, inputs, n_attrs, attrs);
  return sfi_rewrite_add(rewrite, &like, SF_OP_ADD, 2, (sf_value[]){product, bias}, 0, NULL);
}

/* only_user[v]: the one node that uses v, once; SF_NO_VALUE where there is none or v is an output. */
static void find_users(const sf_graph *graph, sf_value *only_user) {
  enum { NONE = -2 };
  for (size_t i = 0; i < graph->n_nodes; i++) only_user[i] = NONE;
  for (size_t i = 0; i < graph->n_nodes; i++)
    for (int32_t k = 0; k < graph->nodes[i].n_inputs; k++) {
      sf_value *user = &only_user[graph->nodes[i].inputs[k]];
      *user = *user == NONE ? (sf_value)i : SF_NO_VALUE;
    }
  for (size_t i = 0; i < graph->n_outputs; i++) only_user[graph->outputs[i].value] = SF_NO_VALUE;
  for (size_t i = 0; i < graph->n_nodes; i++)
    if (only_user[i] == NONE) only_user[i] = SF_NO_VALUE;
}

/* Finds the chain behind `head`; its length is 0 where there is nothing to fold. */
static void find_chain(const sf_graph *graph, const sf_value *only_user, sf_value head, double *scale, double *shift, chain *c) {
  const sfi_node *node = &graph->nodes[head];
  bool conv = node->op == SF_OP_CONV2D;
  c->head = head;
  c->axis = conv ? 1 : c->weight == 1 ? node->shape.rank - 1 : node->shape.rank - 2;
  /* A failed step leaves the arrays spoilt, so the chain is walked once to find its length and once more to compose it. */
  c->length = -1;
  if (!follow(graph, only_user, c, scale, shift)) c->length = 0;
  if (c->length == 0) return;
  follow(graph, only_user, c, scale, shift);
  bool canonical = !conv && c->length == 1 && all_equal(scale, c->matrix.rows, 1) && graph->nodes[c->last].op == SF_OP_ADD;
  if (canonical || !representable(&c->matrix, scale, shift)) c->length = 0;
}

sf_status sfi_fold_batch_norm(sfi_pass_env *env, const sf_graph *graph, sf_graph **out_graph) {
  const sf_allocator *a = &env->context->allocator;
  sfi_rewrite rewrite;
  sf_status status = SF_OK;
  size_t users_bytes = graph->n_nodes * sizeof(sf_value);
  *out_graph = NULL;
  if (!sfi_rewrite_begin(&rewrite, env, graph)) return SF_STATUS_OUT_OF_MEMORY;
  sf_value *only_user = sfi_alloc(a, users_bytes);
  if (!only_user) {
    status = sfi_fail_memory(env->diag);
    goto done;
  }
  find_users(graph, only_user);
  for (size_t i = 0; i < graph->n_nodes && !sfi_rewrite_failed(&rewrite); i++) {
    chain c = {0};
    if (rewrite.map[i] != SF_NO_VALUE) continue; /* inside a chain that was folded */
    if (!sfi_weight_matrix(graph, (sf_value)i, &c.weight, &c.matrix)) {
      sfi_rewrite_copy(&rewrite, (sf_value)i);
      continue;
    }
    size_t bytes = 2 * (size_t)c.matrix.rows * sizeof(double);
    double *scale = sfi_alloc(a, bytes);
    if (!scale) {
      status = sfi_fail_memory(env->diag);
      goto done;
    }
    find_chain(graph, only_user, (sf_value)i, scale, scale + c.matrix.rows, &c);
    sf_value made = c.length ? build(&rewrite, &c, scale, scale + c.matrix.rows) : sfi_rewrite_copy(&rewrite, (sf_value)i);
    /* Operands of the chain's later operations are static, so its result may stand where its head stood. */
    for (sf_value v = (sf_value)i; c.length && made != SF_NO_VALUE; v = only_user[v]) {
      rewrite.map[v] = made;
      if (v == c.last) break;
    }
    sfi_free(a, scale, bytes);
  }
done:
  sfi_free(a, only_user, users_bytes);
  return sfi_rewrite_end(&rewrite, status, out_graph);
}
