/* Shrinks static tensors by channels that cannot matter, through whole networks:
 *   forward, a row of a weight whose entries are all 0 makes a channel that is exactly 0; operations that keep 0 pass it on; the next
 *   weight's column for it is not needed;
 *   backward, a channel that only meets columns of zeros is not needed by anybody; the row that makes it goes, and with it possibly the
 *   last use of a channel further up.
 * Both are repeated until nothing changes. Weights, biases and per-channel constants are then cut to the channels that stay.
 * (Not seen: where a reshape ties dimensions together and one of them shrinks to 1, the others come free. A second run would see it.)
 *
 * Needs a verified graph without dead values. Preserves results exactly but for the order of sums: a zero of a weight is absent, so a
 * column of zeros takes nothing from Inf or NaN, and a zero channel is passed on only where nothing that is not known could make it
 * NaN: a product with a run-time value does not. Inputs and outputs keep their shapes; at least one channel stays in every dimension.
 * Tensors that are cut are named "<name>:live". channels.h says which channels go together. */
#include "channels.h"
#include "rewrite.h"

#include <math.h>

typedef struct propagation {
  sfi_pass_env *env;
  sfi_channels channels;
  int64_t *removed_rows; /* of each contraction, when its weight was last read */
  bool failed;           /* with the error in the env's diag */
} propagation;

static uint8_t flags_of(const propagation *p, int32_t first, int64_t i) {
  return first >= 0 ? p->channels.flags[first + i] : 0;
}

/* ---- zeros forward ------------------------------------------------------------------------------------------------ */

/* First slots of the two sides of a link from operand to result; false where the result's is not tracked. */
static bool sides(const propagation *p, sf_value node, const sfi_channel_link *link, int32_t *out_from, int32_t *out_to) {
  int32_t from = sfi_channel_tensor_of(&p->channels, node, link->a.k)->first[link->a.d];
  int32_t to = sfi_channel_tensor_of(&p->channels, node, link->b.k)->first[link->b.d];
  *out_from = from < 0 ? -1 : from + (int32_t)link->a.at;
  *out_to = to < 0 ? -1 : to + (int32_t)link->b.at;
  return to >= 0;
}

static void raise_link(void *user, sf_value node, const sfi_channel_link *link) {
  propagation *p = user;
  int32_t from, to;
  if (!sides(p, node, link, &from, &to)) return;
  for (int64_t i = 0; i < link->count / link->b.div; i++) p->channels.flags[to + i] |= SFI_SLOT_ZERO;
}

static void meet_link(void *user, sf_value node, const sfi_channel_link *link) {
  propagation *p = user;
  int32_t from, to;
  if (!sides(p, node, link, &from, &to)) return;
  if (from < 0) {
    for (int64_t i = 0; i < link->count / link->b.div; i++) p->channels.flags[to + i] &= (uint8_t)~SFI_SLOT_ZERO;
    return;
  }
  for (int64_t i = 0; i < link->count; i++)
    if (!(p->channels.flags[from + i / link->a.div] & SFI_SLOT_ZERO))
      p->channels.flags[to + i / link->b.div] &= (uint8_t)~SFI_SLOT_ZERO;
}

/* For operations that give 0 where all that they read is 0. */
static void zero_by_links(propagation *p, sf_value value) {
  sfi_channel_links(p->channels.graph, value, raise_link, p);
  sfi_channel_links(p->channels.graph, value, meet_link, p);
}

/* Flags of what operand k brings to index i of dimension d of an elementwise result. */
static uint8_t operand_flags(const propagation *p, sf_value value, int32_t k, int32_t d, int64_t i) {
  const sfi_node *node = &p->channels.graph->nodes[value];
  const sfi_channel_tensor *tensor = sfi_channel_tensor_of(&p->channels, value, k);
  int32_t own = d - node->shape.rank + p->channels.graph->nodes[node->inputs[k]].shape.rank;
  uint8_t flags = own >= 0 && tensor->first[own] >= 0 ? p->channels.flags[tensor->first[own] + i] : tensor->flags;
  return flags & SFI_SLOT_ZERO ? flags | SFI_SLOT_FINITE : flags;
}

static void zero_binary(propagation *p, sf_value value) {
  const sfi_node *node = &p->channels.graph->nodes[value];
  const sfi_channel_tensor *result = sfi_channel_tensor_of(&p->channels, value, -1);
  for (int32_t d = 0; d < node->shape.rank; d++)
    for (int64_t i = 0; result->first[d] >= 0 && i < node->shape.dims[d].c[0]; i++) {
      uint8_t x = operand_flags(p, value, 0, d, i), y = operand_flags(p, value, 1, d, i);
      bool zero = node->op == SF_OP_MUL   ? (x & SFI_SLOT_ZERO && y & SFI_SLOT_FINITE) || (y & SFI_SLOT_ZERO && x & SFI_SLOT_FINITE)
                  : node->op == SF_OP_DIV ? x & SFI_SLOT_ZERO && y & SFI_SLOT_DIVIDES
                                          : x & y & SFI_SLOT_ZERO;
      if (zero) p->channels.flags[result->first[d] + i] |= SFI_SLOT_ZERO;
    }
}

/* The weight of a contraction as rows over inner indices of `taps` columns each. */
typedef struct contraction {
  sfi_channel_link inner;
  sfi_matrix matrix;
  int64_t taps;
  int32_t columns, operand, rows; /* first slots: the weight's inner dimension, the operand's, the result's channels */
  const sfi_channel_tensor *bias; /* NULL: none */
} contraction;

static bool contraction_of(const propagation *p, sf_value value, contraction *out) {
  const sf_graph *graph = p->channels.graph;
  const sfi_node *node = &graph->nodes[value];
  int32_t weight;
  if (!sfi_channel_inner_link(graph, value, &out->inner) || !sfi_weight_matrix(graph, value, &weight, &out->matrix)) return false;
  int32_t axis = node->op == SF_OP_CONV2D ? 1 : weight == 1 ? node->shape.rank - 1 : node->shape.rank - 2;
  out->taps = out->inner.count ? out->matrix.columns / out->inner.count : 1;
  out->columns = sfi_channel_tensor_of(&p->channels, value, out->inner.a.k)->first[out->inner.a.d];
  out->operand = sfi_channel_tensor_of(&p->channels, value, out->inner.b.k)->first[out->inner.b.d];
  out->rows = sfi_channel_tensor_of(&p->channels, value, -1)->first[axis];
  out->bias = node->n_inputs == 3 ? sfi_channel_tensor_of(&p->channels, value, 2) : NULL;
  return true;
}

static bool row_removed(const propagation *p, const contraction *c, int64_t r) {
  return c->rows >= 0 && sfi_channel_removed(&p->channels, c->rows + (int32_t)r);
}

/* Is the row or column of W alive? Facts without a list of them say that all are. */
static bool is_live(const sfi_facts *facts, int64_t i) {
  return !facts->live || facts->live[i];
}

/* Do the facts, which a warm start has without a look at the weight, say all that read_weight wants to know? Not where as many rows were
 * removed that are not dead as some column has nonzeros, or an operand is 0 where the column is not. */
static const sfi_facts *facts_that_do(propagation *p, const contraction *c) {
  sfi_pass_env *env = p->env;
  const sfi_facts *facts = env->facts(env->facts_user, &c->matrix, env->digest(env->facts_user, &c->matrix));
  p->failed = p->failed || !facts;
  if (!facts || (!facts->live && facts->dead_rows + facts->dead_columns > 0)) return NULL;
  int64_t removed = 0;
  for (int64_t r = 0; r < c->matrix.rows; r++) removed += is_live(facts, r) && row_removed(p, c, r);
  if (removed > 0 && removed >= facts->column_least) return NULL;
  for (int64_t k = 0; c->operand >= 0 && k < c->matrix.columns; k++)
    if (is_live(facts, c->matrix.rows + k) && flags_of(p, c->operand, k / c->taps) & SFI_SLOT_ZERO) return NULL;
  return facts;
}

/* Is row r of W nothing but zeros where the operand is not 0? Marks the inner indices that it needs. */
static bool read_row(const propagation *p, const contraction *c, int64_t r) {
  const float *row = c->matrix.data + r * c->matrix.row_stride;
  bool zero = true;
  for (int64_t k = 0; k < c->matrix.columns; k++) {
    float w = row[k * c->matrix.column_stride];
    if (w == 0 || (isfinite(w) && flags_of(p, c->operand, k / c->taps) & SFI_SLOT_ZERO)) continue;
    zero = false;
    if (c->columns >= 0) p->channels.flags[c->columns + k / c->taps] |= SFI_SLOT_LIVE;
  }
  return zero;
}

/* Which inner indices do the rows that stay need, and, where asked, which of them give 0? */
static void read_weight(propagation *p, const contraction *c, bool zeros) {
  uint8_t *flags = p->channels.flags;
  const sfi_facts *facts = facts_that_do(p, c);
  for (int64_t k = 0; c->columns >= 0 && k < c->inner.count; k++) flags[c->columns + k] &= (uint8_t)~SFI_SLOT_LIVE;
  for (int64_t k = 0; facts && c->columns >= 0 && k < c->matrix.columns; k++)
    if (is_live(facts, c->matrix.rows + k)) flags[c->columns + k / c->taps] |= SFI_SLOT_LIVE;
  contraction whole = *c; /* with its elements, where these are looked at */
  if (!facts && !sfi_matrix_open(&whole.matrix, p->env->diag)) {
    p->failed = true;
    return;
  }
  for (int64_t r = 0; r < c->matrix.rows; r++) {
    if (row_removed(p, c, r)) continue;
    bool zero = facts ? !is_live(facts, r) : read_row(p, &whole, r);
    bool no_bias = !c->bias || (c->bias->first[0] >= 0 ? flags[c->bias->first[0] + r] : c->bias->flags) & SFI_SLOT_ZERO;
    if (zeros && zero && no_bias && c->rows >= 0) flags[c->rows + r] |= SFI_SLOT_ZERO;
  }
  if (!facts) sfi_matrix_close(&whole.matrix);
}

/* Does the operation average or compare something at every element? Over nothing it gives NaN or -Inf. */
static bool reduces_something(const sf_graph *graph, const sfi_node *node) {
  const sfi_shape *shape = &graph->nodes[node->inputs[0]].shape;
  sfi_poly numel;
  sfi_shape empty_free = *shape;
  for (int32_t d = 0; d < shape->rank; d++)
    if (!sfi_is_const(shape->dims[d]) && d < node->shape.rank && sfi_poly_equal(shape->dims[d], node->shape.dims[d]))
      empty_free.dims[d] = sfi_const(1); /* not reduced: it may be symbolic */
  return sfi_shape_numel(&empty_free, &numel) && sfi_is_const(numel) && numel.c[0] > 0;
}

static void find_zeros(propagation *p, sf_value value) {
  const sfi_node *node = &p->channels.graph->nodes[value];
  contraction c;
  const bool contracts = node->op == SF_OP_MATMUL || node->op == SF_OP_CONV2D;
  /* Not the tables of other operations, which may be the largest tensor of all. */
  const bool describes = contracts || sfi_op_of(node->op)->flags & SF_OPF_ELEMENTWISE || node->op == SF_OP_CONCAT;
  if (describes && !sfi_channels_describe(&p->channels, value, p->env->diag)) p->failed = true;
  switch (node->op) {
  case SF_OP_MATMUL:
  case SF_OP_CONV2D:
    if (contraction_of(p, value, &c)) read_weight(p, &c, true);
    break;
  case SF_OP_ADD:
  case SF_OP_SUB:
  case SF_OP_MUL:
  case SF_OP_DIV:
  case SF_OP_MIN:
  case SF_OP_MAX:
    zero_binary(p, value);
    break;
  case SF_OP_MAX_POOL: {
    /* With dilation a window may miss the image: -Inf. */
    const int64_t *dilation = sfi_attr_of(node, SF_ATTR_DILATION)->ints;
    if (dilation[0] == 1 && dilation[1] == 1) zero_by_links(p, value);
    break;
  }
  case SF_OP_GLOBAL_AVG_POOL:
  case SF_OP_REDUCE_MEAN:
  case SF_OP_REDUCE_MAX:
    if (reduces_something(p->channels.graph, node)) zero_by_links(p, value);
    break;
  case SF_OP_RELU:
  case SF_OP_GELU:
  case SF_OP_GELU_TANH:
  case SF_OP_SILU:
  case SF_OP_TANH:
  case SF_OP_SQRT:
  case SF_OP_NEG:
  case SF_OP_ABS:
  case SF_OP_ERF:
  case SF_OP_SIN:
  case SF_OP_AVG_POOL:
  case SF_OP_REDUCE_SUM:
  case SF_OP_RESHAPE:
  case SF_OP_TRANSPOSE:
  case SF_OP_CONCAT:
  case SF_OP_SLICE:
    zero_by_links(p, value);
    break;
  default:
    break;
  }
}

/* ---- needs backward ----------------------------------------------------------------------------------------------- */

static void mark_needed(propagation *p, sf_value value) {
  contraction c;
  int64_t removed = 0;
  if (!contraction_of(p, value, &c)) return;
  for (int64_t r = 0; r < c.matrix.rows; r++) removed += row_removed(p, &c, r);
  if (removed != p->removed_rows[value]) read_weight(p, &c, false);
  p->removed_rows[value] = removed;
  for (int64_t k = 0; c.operand >= 0 && k < c.inner.count; k++)
    if (c.columns < 0 || p->channels.flags[c.columns + k] & SFI_SLOT_LIVE)
      p->channels.flags[sfi_channel_class(&p->channels, c.operand + (int32_t)k)] |= SFI_CLASS_NEEDED;
}

/* Where a dimension would lose every index, the first that is left is pinned. */
static void keep_one(propagation *p, const sfi_channel_tensor *tensor, const sfi_shape *shape) {
  for (int32_t d = 0; d < shape->rank; d++) {
    int32_t spare = -1, first = tensor->first[d];
    bool stays = first < 0;
    for (int64_t i = 0; !stays && i < shape->dims[d].c[0]; i++) {
      int32_t root = sfi_channel_class(&p->channels, first + (int32_t)i);
      stays = p->channels.flags[root] & (SFI_CLASS_PINNED | SFI_CLASS_NEEDED);
      if (spare < 0 && !(p->channels.flags[root] & SFI_CLASS_REMOVED)) spare = root;
    }
    if (!stays) p->channels.flags[spare] |= SFI_CLASS_PINNED;
  }
}

/* Removes the classes that nothing needs; false where there is none any more. */
static bool remove_channels(propagation *p) {
  sfi_channels *channels = &p->channels;
  const sf_graph *graph = channels->graph;
  bool any = false;
  for (size_t i = 0; i < channels->n_slots; i++) channels->flags[i] &= (uint8_t)~SFI_CLASS_NEEDED;
  for (size_t v = 0; v < graph->n_nodes; v++) mark_needed(p, (sf_value)v);
  /* Consumers first: what a slice keeps is kept of its operand, which then needs no index of its own. */
  for (size_t v = graph->n_nodes; v-- > 0;)
    for (int32_t k = -1; k < graph->nodes[v].n_inputs; k++)
      keep_one(p, sfi_channel_tensor_of(channels, (sf_value)v, k),
               &graph->nodes[k < 0 ? (sf_value)v : graph->nodes[v].inputs[k]].shape);
  for (size_t i = 0; i < channels->n_slots; i++) {
    if (sfi_channel_class(channels, (int32_t)i) != (int32_t)i) continue;
    if (channels->flags[i] & (SFI_CLASS_PINNED | SFI_CLASS_NEEDED | SFI_CLASS_REMOVED)) continue;
    channels->flags[i] |= SFI_CLASS_REMOVED;
    any = true;
  }
  return any;
}

/* The same until nothing changes; false where nothing did. */
static bool remove_all(propagation *p) {
  bool any = false;
  while (remove_channels(p)) any = true;
  return any;
}

/* ---- the smaller graph -------------------------------------------------------------------------------------------- */

/* How many of the first `end` indices of dimension d stay? */
static int64_t count_live(const propagation *p, const sfi_channel_tensor *tensor, int32_t d, int64_t end) {
  int64_t n = end;
  for (int64_t i = 0; tensor->first[d] >= 0 && i < end; i++) n -= sfi_channel_removed(&p->channels, tensor->first[d] + (int32_t)i);
  return n;
}

static sfi_shape live_shape(const propagation *p, const sfi_channel_tensor *tensor, const sfi_shape *shape) {
  sfi_shape live = *shape;
  for (int32_t d = 0; d < shape->rank; d++)
    if (tensor->first[d] >= 0) live.dims[d] = sfi_const(count_live(p, tensor, d, shape->dims[d].c[0]));
  return live;
}

/* What stays of a static tensor; in the new graph's arena. False: out of memory. */
static bool select_live(sfi_rewrite *rewrite, const propagation *p, const sfi_channel_tensor *tensor, const sfi_shape *shape,
                        const sfi_shape *live, sfi_selection *out) {
  *out = (sfi_selection){.rank = shape->rank};
  for (int32_t d = 0; d < shape->rank; d++) {
    out->extent[d] = shape->dims[d].c[0];
    out->count[d] = live->dims[d].c[0];
    if (out->count[d] == out->extent[d]) continue;
    int32_t *index = sfi_arena_alloc(&rewrite->to->arena, (size_t)out->count[d] * sizeof *index), n = 0;
    if (!(out->index[d] = index)) return false;
    for (int32_t i = 0; i < out->extent[d]; i++)
      if (!sfi_channel_removed(&p->channels, tensor->first[d] + i)) index[n++] = i;
  }
  return true;
}

/* Operand k of `value` in the new graph: a static one is cut to what stays. */
static sf_value live_operand(sfi_rewrite *rewrite, const propagation *p, sf_value value, int32_t k) {
  sf_value operand = rewrite->from->nodes[value].inputs[k];
  const sfi_node *leaf = &rewrite->from->nodes[operand];
  if (!sfi_node_is_static(leaf)) return rewrite->map[operand];
  const sfi_channel_tensor *tensor = sfi_channel_tensor_of(&p->channels, value, k);
  sfi_shape shape = live_shape(p, tensor, &leaf->shape);
  if (sfi_shape_equal(&shape, &leaf->shape)) return rewrite->map[operand];
  sfi_selection selection;
  if (!select_live(rewrite, p, tensor, &leaf->shape, &shape, &selection)) {
    sfi_fail_memory(&rewrite->to->diag);
    return SF_NO_VALUE;
  }
  if (leaf->source) {
    const sf_allocator *allocator = &rewrite->to->context->allocator;
    sfi_source *source = sfi_graph_own(rewrite->to, sfi_source_select(allocator, leaf->source, &selection));
    return source ? sfi_rewrite_add_source(rewrite, leaf, sfi_label(leaf), "live", &shape, source) : SF_NO_VALUE;
  }
  int64_t count = 1;
  for (int32_t d = 0; d < shape.rank; d++) count *= shape.dims[d].c[0];
  float *data = sfi_rewrite_data(rewrite, count);
  if (!data) return SF_NO_VALUE;
  sfi_select(&selection, leaf->data, data);
  return sfi_rewrite_add_static(rewrite, leaf, sfi_label(leaf), "live", &shape, data);
}

static void copy_reshape(sfi_rewrite *rewrite, const propagation *p, sf_value value, sf_value operand) {
  const sfi_node *node = &rewrite->from->nodes[value];
  sfi_shape shape = live_shape(p, sfi_channel_tensor_of(&p->channels, value, -1), &node->shape);
  int64_t ints[SF_MAX_RANK];
  bool written = sfi_reshape_attr(&rewrite->to->nodes[operand].shape, &shape, ints);
  assert(written); /* only constant extents differ from those of a reshape that was written */
  (void)written;
  sf_attr attr = {.id = SF_ATTR_SHAPE, .count = shape.rank, .ints = ints};
  rewrite->map[value] = sfi_rewrite_add(rewrite, node, SF_OP_RESHAPE, 1, &operand, 1, &attr);
}

static void copy_slice(sfi_rewrite *rewrite, const propagation *p, sf_value value, sf_value operand) {
  const sfi_node *node = &rewrite->from->nodes[value];
  const sfi_shape *shape = &rewrite->from->nodes[node->inputs[0]].shape;
  const sfi_channel_tensor *from = sfi_channel_tensor_of(&p->channels, value, 0),
                           *to = sfi_channel_tensor_of(&p->channels, value, -1);
  int64_t starts[SF_MAX_RANK], ends[SF_MAX_RANK];
  sf_attr attrs[SFI_ATTRS_MAX];
  int32_t n = sfi_rewrite_attrs(node, attrs);
  for (int32_t d = 0; d < shape->rank; d++) {
    starts[d] = sfi_attr_of(node, SF_ATTR_STARTS)->ints[d];
    ends[d] = sfi_attr_of(node, SF_ATTR_ENDS)->ints[d];
    if (from->first[d] < 0 || count_live(p, from, d, shape->dims[d].c[0]) == shape->dims[d].c[0]) continue;
    int64_t start = sfi_min(starts[d] < 0 ? sfi_max(0, starts[d] + shape->dims[d].c[0]) : starts[d], shape->dims[d].c[0]);
    starts[d] = count_live(p, from, d, start);
    ends[d] = starts[d] + count_live(p, to, d, node->shape.dims[d].c[0]);
  }
  for (int32_t i = 0; i < n; i++) {
    if (attrs[i].id == SF_ATTR_STARTS) attrs[i].ints = starts;
    if (attrs[i].id == SF_ATTR_ENDS) attrs[i].ints = ends;
  }
  rewrite->map[value] = sfi_rewrite_add(rewrite, node, SF_OP_SLICE, 1, &operand, n, attrs);
}

static void copy_live(sfi_rewrite *rewrite, const propagation *p, sf_value value) {
  const sfi_node *node = &rewrite->from->nodes[value];
  sf_value inputs[SFI_INPUTS_MAX];
  if (node->n_inputs == 0) {
    sfi_rewrite_copy(rewrite, value);
    return;
  }
  for (int32_t k = 0; k < node->n_inputs; k++) inputs[k] = live_operand(rewrite, p, value, k);
  if (sfi_rewrite_failed(rewrite)) return;
  if (node->op == SF_OP_RESHAPE)
    copy_reshape(rewrite, p, value, inputs[0]);
  else if (node->op == SF_OP_SLICE)
    copy_slice(rewrite, p, value, inputs[0]);
  else
    rewrite->map[value] = sfi_rewrite_add_like(rewrite, node, inputs);
}

sf_status sfi_propagate_dead_channels(sfi_pass_env *env, const sf_graph *graph, sf_graph **out_graph) {
  const sf_allocator *a = &env->context->allocator;
  size_t rows_bytes = graph->n_nodes * sizeof(int64_t);
  propagation p = {.env = env, .removed_rows = sfi_alloc(a, rows_bytes)};
  sfi_rewrite rewrite;
  sf_status status;
  *out_graph = NULL;
  if (!sfi_channels_init(&p.channels, graph, a) || !p.removed_rows) {
    status = sfi_fail_memory(env->diag);
    goto done;
  }
  memset(p.removed_rows, 0, rows_bytes);
  /* What is left of a static tensor may be all zeros where the whole was not, so the zeros are found again. */
  do {
    for (size_t v = 0; v < graph->n_nodes; v++) find_zeros(&p, (sf_value)v);
  } while (remove_all(&p));
  if (p.failed) {
    status = env->diag->error.status;
    goto done;
  }
  if (!sfi_rewrite_begin(&rewrite, env, graph)) {
    status = SF_STATUS_OUT_OF_MEMORY;
    goto done;
  }
  for (size_t v = 0; v < graph->n_nodes && !sfi_rewrite_failed(&rewrite); v++) copy_live(&rewrite, &p, (sf_value)v);
  status = sfi_rewrite_end(&rewrite, SF_OK, out_graph);
done:
  sfi_channels_deinit(&p.channels);
  sfi_free(a, p.removed_rows, rows_bytes);
  return status;
}
