/* Products of one input made one: matrix products x W1, x W2, .. with static weights become slices of x [W1 W2 ..], as the projections of
 * an attention are, and convolutions of one image and one kind of window slices of one convolution. A bias added to each, and one
 * elementwise function of all, come along. One kernel then reads x once, and starts, ends and is cut into tiles once.
 *
 * Only what costs nothing is joined. Results that an elementwise operation reads stay apart, as it becomes part of the product that
 * makes its operand, and not of the joined one (so do the gate of a gated MLP and what it multiplies); so do results that would be
 * copied, because they are outputs or parts of a concat, which products write in place; and weights of which one is much sparser than
 * another, for which no one kernel is best.
 * Needs a verified graph; better after everything that changes or shares weights. Preserves every sum as it was, up to its order.
 * Joined tensors are named "<first>:joined". */
#include "rewrite.h"

enum { SIBLINGS_MAX = 16 };

/* A product and what follows it: its bias and a function, where they are, each the only use of what stands before. */
typedef struct chain {
  sf_value product, bias, function;
  sf_value weight, terms; /* static: of the product; of the bias, SF_NO_VALUE: none */
  sfi_matrix matrix;      /* the weight */
} chain;

typedef struct joining {
  sfi_pass_env *env;
  const sf_graph *graph;
  int32_t *uses;  /* of each value, outputs included */
  sf_value *user; /* the last node that reads it; SF_NO_VALUE: an output does, or none */
  bool *gone;     /* nodes of chains that were joined */
} joining;

static const sfi_node *node_of(const joining *j, sf_value v) {
  return &j->graph->nodes[v];
}

static bool elementwise(const sfi_node *node) {
  return sfi_op_of(node->op)->flags & SF_OPF_ELEMENTWISE;
}

static sf_value end_of(const chain *c) {
  return c->function != SF_NO_VALUE ? c->function : c->bias != SF_NO_VALUE ? c->bias : c->product;
}

static int32_t channel_axis(const sfi_node *product) {
  return product->op == SF_OP_CONV2D ? 1 : product->shape.rank - 1;
}

static int64_t channels_of(const sfi_node *product) {
  return product->shape.dims[channel_axis(product)].c[0];
}

/* The node that alone reads `v`, where it makes elements of `v` one by one; else SF_NO_VALUE. */
static sf_value follower(const joining *j, sf_value v) {
  const sf_value user = j->uses[v] == 1 ? j->user[v] : SF_NO_VALUE;
  const bool maps = user != SF_NO_VALUE && elementwise(node_of(j, user));
  return maps && sfi_shape_equal(&node_of(j, user)->shape, &node_of(j, v)->shape) ? user : SF_NO_VALUE;
}

/* One static number for each index of the last dimension? */
static bool is_bias(const joining *j, sf_value v, int64_t channels) {
  const sfi_node *node = node_of(j, v);
  const int32_t rank = node->shape.rank;
  return node->data && node->dtype == SF_F32 && rank > 0 && sfi_is(node->shape.dims[rank - 1], channels) &&
         sfi_static_count(node) == channels;
}

/* Does a node read a slice of something as well as the whole? What is read in slices already has been joined. */
static bool reads_slices(const joining *j, sf_value user) {
  const sf_op op = user == SF_NO_VALUE ? SF_OP_SLICE : node_of(j, user)->op;
  return op != SF_OP_SLICE && op != SF_OP_CONCAT && op != SF_OP_PAD;
}

static bool read_chain(const joining *j, sf_value v, chain *out) {
  const sfi_node *node = node_of(j, v);
  int32_t operand;
  *out = (chain){.product = v, .bias = SF_NO_VALUE, .function = SF_NO_VALUE, .terms = SF_NO_VALUE};
  if (node->op != SF_OP_MATMUL && node->op != SF_OP_CONV2D) return false;
  if (sfi_is_static(j->graph, node->inputs[0]) || !sfi_weight_matrix(j->graph, v, &operand, &out->matrix) || operand != 1)
    return false;
  if (out->matrix.rows == 0 || out->matrix.columns == 0) return false;
  out->weight = node->inputs[1];
  if (node->op == SF_OP_CONV2D) {
    if (sfi_attr_int(node, SF_ATTR_GROUPS) != 1) return false;
    if (node->n_inputs == 3) out->terms = node->inputs[2];
    if (node->n_inputs == 3 && !is_bias(j, out->terms, out->matrix.rows)) return false;
  }
  sf_value next = follower(j, v);
  if (node->op == SF_OP_MATMUL && next != SF_NO_VALUE && node_of(j, next)->op == SF_OP_ADD) {
    const sf_value terms = node_of(j, next)->inputs[node_of(j, next)->inputs[0] == v];
    if (is_bias(j, terms, out->matrix.rows)) {
      out->bias = next;
      out->terms = terms;
      next = follower(j, next);
    }
  }
  if (next != SF_NO_VALUE && node_of(j, next)->n_inputs == 1) {
    out->function = next;
    next = follower(j, next);
  }
  return next == SF_NO_VALUE && reads_slices(j, j->user[end_of(out)]);
}

static bool same_attrs(const sfi_node *a, const sfi_node *b) {
  sf_attr x[SFI_ATTRS_MAX], y[SFI_ATTRS_MAX];
  const int32_t n = sfi_rewrite_attrs(a, x);
  sfi_rewrite_attrs(b, y);
  for (int32_t i = 0; i < n; i++) {
    if (x[i].i != y[i].i || x[i].count != y[i].count) return false;
    if (x[i].count > 0 && memcmp(x[i].ints, y[i].ints, (size_t)x[i].count * sizeof *x[i].ints) != 0) return false;
  }
  return true;
}

/* By the facts, which a second start has without a look at the weight. Negative: they failed, with the error in env->diag. */
static double density(const joining *j, const sfi_matrix *matrix) {
  const sfi_facts *facts = j->env->facts(j->env->facts_user, matrix, j->env->digest(j->env->facts_user, matrix));
  return facts ? sfi_density(facts) : -1;
}

/* May the two be one product? Of weights that both have zeros, the denser has less than twice the nonzeros of the other. */
static bool alike(const joining *j, const chain *a, const chain *b) {
  const sfi_node *p = node_of(j, a->product), *q = node_of(j, b->product);
  if (p->op != q->op || p->inputs[0] != q->inputs[0] || !same_attrs(p, q)) return false;
  if ((a->terms == SF_NO_VALUE) != (b->terms == SF_NO_VALUE) || (a->function == SF_NO_VALUE) != (b->function == SF_NO_VALUE))
    return false;
  if (a->function != SF_NO_VALUE && node_of(j, a->function)->op != node_of(j, b->function)->op) return false;
  const sfi_node *w = node_of(j, a->weight), *u = node_of(j, b->weight);
  for (int32_t d = 1; p->op == SF_OP_CONV2D && d < 4; d++)
    if (!sfi_poly_equal(w->shape.dims[d], u->shape.dims[d])) return false;
  const double x = density(j, &a->matrix), y = density(j, &b->matrix);
  return x >= 0 && y >= 0 && x <= 2 * y && y <= 2 * x;
}

/* The same of weights that are read when they are needed, and so is what they make. */
static sf_value join_sources(sfi_rewrite *rewrite, const sfi_node *const *parts, int32_t n, int64_t outer, const sfi_shape *shape) {
  sfi_source *sources[SIBLINGS_MAX];
  for (int32_t i = 0; i < n; i++) sources[i] = parts[i]->source;
  const sf_allocator *allocator = &rewrite->to->context->allocator;
  sfi_source *source = sfi_graph_own(rewrite->to, sfi_source_join(allocator, sources, n, (size_t)outer));
  return source ? sfi_rewrite_add_source(rewrite, parts[0], NULL, "joined", shape, source) : SF_NO_VALUE;
}

/* The tensors of all chains one behind the other along dimension `axis` of `shape`, in a new tensor of that shape. */
static sf_value join_tensors(sfi_rewrite *rewrite, const sfi_node *const *parts, int32_t n, int32_t axis, sfi_shape shape) {
  int64_t outer = 1, total = 0;
  for (int32_t d = 0; d < axis; d++) outer *= shape.dims[d].c[0];
  for (int32_t i = 0; i < n; i++) total += sfi_static_count(parts[i]);
  bool read_later = true;
  for (int32_t i = 0; i < n; i++) read_later = read_later && parts[i]->source;
  if (read_later) return join_sources(rewrite, parts, n, outer, &shape);
  float *data = sfi_rewrite_data(rewrite, total);
  if (!data) return SF_NO_VALUE;
  for (int64_t i = 0, before = 0; i < n; i++) {
    const int64_t piece = sfi_static_count(parts[i]) / outer;
    const float *from = sfi_node_open(parts[i], &rewrite->to->diag);
    if (!from) return SF_NO_VALUE;
    for (int64_t o = 0; o < outer; o++) memcpy(data + o * (total / outer) + before, from + o * piece, (size_t)piece * sizeof *data);
    sfi_node_close(parts[i]);
    before += piece;
  }
  const sfi_node model = *parts[0];
  return sfi_rewrite_add_static(rewrite, &model, NULL, "joined", &shape, data);
}

/* Channels [begin, end) of `whole`, in the place of the node `like`. */
static sf_value slice(sfi_rewrite *rewrite, const sfi_node *like, sf_value whole, int32_t axis, int64_t begin, int64_t end) {
  int64_t starts[SF_MAX_RANK] = {0}, ends[SF_MAX_RANK];
  for (int32_t d = 0; d < like->shape.rank; d++) ends[d] = INT64_MAX;
  starts[axis] = begin;
  ends[axis] = end;
  const sf_attr attrs[] = {{.id = SF_ATTR_STARTS, .count = like->shape.rank, .ints = starts},
                           {.id = SF_ATTR_ENDS, .count = like->shape.rank, .ints = ends}};
  return sfi_rewrite_add(rewrite, like, SF_OP_SLICE, 1, &whole, 2, attrs);
}

static void join(sfi_rewrite *rewrite, joining *j, const chain *chains, int32_t n) {
  const sfi_node *parts[SIBLINGS_MAX], *product = node_of(j, chains[0].product);
  const int32_t axis = channel_axis(product);
  int64_t rows = 0, begin = 0;
  for (int32_t i = 0; i < n; i++) {
    rows += channels_of(node_of(j, chains[i].product));
    parts[i] = node_of(j, chains[i].weight);
  }
  const bool rows_first = product->op == SF_OP_CONV2D || sfi_attr_int(product, SF_ATTR_TRANSPOSE_B);
  sfi_shape shape = parts[0]->shape;
  shape.dims[!rows_first] = sfi_const(rows);
  sf_value inputs[3] = {rewrite->map[product->inputs[0]], join_tensors(rewrite, parts, n, !rows_first, shape), SF_NO_VALUE};
  if (chains[0].terms != SF_NO_VALUE) {
    for (int32_t i = 0; i < n; i++) parts[i] = node_of(j, chains[i].terms);
    inputs[2] = join_tensors(rewrite, parts, n, 0, (sfi_shape){.rank = 1, .dims = {sfi_const(rows)}});
  }
  sf_attr attrs[SFI_ATTRS_MAX];
  const int32_t n_attrs = sfi_rewrite_attrs(product, attrs);
  sfi_node unnamed = *product;
  unnamed.name = NULL;
  sf_value whole = sfi_rewrite_add(rewrite, &unnamed, product->op, product->n_inputs, inputs, n_attrs, attrs);
  if (chains[0].bias != SF_NO_VALUE)
    whole = sfi_rewrite_add(rewrite, &unnamed, SF_OP_ADD, 2, (sf_value[]){whole, inputs[2]}, 0, NULL);
  if (chains[0].function != SF_NO_VALUE)
    whole = sfi_rewrite_add(rewrite, &unnamed, node_of(j, chains[0].function)->op, 1, &whole, 0, NULL);
  for (int32_t i = 0; i < n && !sfi_rewrite_failed(rewrite); i++) {
    const sf_value end = end_of(&chains[i]);
    const int64_t count = channels_of(node_of(j, chains[i].product));
    rewrite->map[end] = slice(rewrite, node_of(j, end), whole, axis, begin, begin + count);
    begin += count;
    j->gone[chains[i].product] = true;
    if (chains[i].bias != SF_NO_VALUE) j->gone[chains[i].bias] = true;
    if (chains[i].function != SF_NO_VALUE) j->gone[chains[i].function] = true;
  }
}

/* Joins the product `v` with those behind it that are like it, if there are any. */
static bool join_siblings(sfi_rewrite *rewrite, joining *j, sf_value v) {
  chain chains[SIBLINGS_MAX];
  int32_t n = 1;
  if (!read_chain(j, v, &chains[0])) return false;
  const sf_value x = node_of(j, v)->inputs[0];
  int32_t left = j->uses[x] - 1;
  for (size_t i = (size_t)v + 1; i < j->graph->n_nodes && left > 0 && n < SIBLINGS_MAX; i++) {
    const sfi_node *node = node_of(j, (sf_value)i);
    for (int32_t k = 0; k < node->n_inputs; k++) left -= node->inputs[k] == x;
    if (j->gone[i] || node->n_inputs == 0 || node->inputs[0] != x) continue;
    if (read_chain(j, (sf_value)i, &chains[n]) && alike(j, &chains[0], &chains[n])) n++;
  }
  if (n > 1) join(rewrite, j, chains, n);
  return n > 1;
}

static void count_uses(joining *j) {
  for (size_t v = 0; v < j->graph->n_nodes; v++) {
    const sfi_node *node = node_of(j, (sf_value)v);
    j->user[v] = SF_NO_VALUE;
    for (int32_t k = 0; k < node->n_inputs; k++) {
      j->uses[node->inputs[k]]++;
      j->user[node->inputs[k]] = (sf_value)v;
    }
  }
  for (size_t i = 0; i < j->graph->n_outputs; i++) {
    j->uses[j->graph->outputs[i].value]++;
    j->user[j->graph->outputs[i].value] = SF_NO_VALUE;
  }
}

sf_status sfi_join_products(sfi_pass_env *env, const sf_graph *graph, sf_graph **out_graph) {
  sfi_rewrite rewrite;
  *out_graph = NULL;
  if (!sfi_rewrite_begin(&rewrite, env, graph)) return SF_STATUS_OUT_OF_MEMORY;
  sfi_arena *arena = &rewrite.to->arena;
  const size_t n = graph->n_nodes;
  joining j = {.env = env,
               .graph = graph,
               .uses = sfi_arena_alloc(arena, n * sizeof *j.uses),
               .user = sfi_arena_alloc(arena, n * sizeof *j.user),
               .gone = sfi_arena_alloc(arena, n * sizeof *j.gone)};
  if (!j.uses || !j.user || !j.gone) return sfi_rewrite_end(&rewrite, sfi_fail_memory(env->diag), out_graph);
  count_uses(&j);
  for (size_t i = 0; i < n && !sfi_rewrite_failed(&rewrite); i++)
    if (!j.gone[i] && !join_siblings(&rewrite, &j, (sf_value)i)) sfi_rewrite_copy(&rewrite, (sf_value)i);
  return sfi_rewrite_end(&rewrite, env->diag->error.status, out_graph);
}
