/* Finds the slots and classes of a graph: a table of links for each kind of operation, and union-find over them.
 * Needs a verified graph. What an operation's links do not name is pinned, so that an operation that is new here is safe. */
#include "channels.h"

#include "infer.h"
#include "passes.h"

#include <math.h>

/* Slots are one word and one byte each; dimensions beyond are not tracked. */
enum { SLOTS_MAX = 1 << 24 };

/* ---- links -------------------------------------------------------------------------------------------------------- */

typedef struct linker {
  const sf_graph *graph;
  sf_value value;
  const sfi_node *node;
  sfi_channel_link_fn fn;
  void *user;
} linker;

static const sfi_shape *shape_of(const linker *l, int32_t k) {
  return k < 0 ? &l->node->shape : &l->graph->nodes[l->node->inputs[k]].shape;
}

/* Dimension d of operand k is dimension e of operand or result j, index by index. */
static void same(const linker *l, int32_t k, int32_t d, int32_t j, int32_t e) {
  sfi_poly extent = shape_of(l, k)->dims[d];
  if (!sfi_is_const(extent) || !sfi_poly_equal(extent, shape_of(l, j)->dims[e])) return; /* broadcast */
  l->fn(l->user, l->value, &(sfi_channel_link){{k, d, 0, 1}, {j, e, 0, 1}, extent.c[0]});
}

/* The first `to` dimensions of operand k, the last of them being dimension out_to - 1 of the result. */
static void aligned(const linker *l, int32_t k, int32_t to, int32_t out_to) {
  for (int32_t d = to - 1, e = out_to - 1; d >= 0; d--, e--) same(l, k, d, -1, e);
}

static void link_elementwise(const linker *l) {
  for (int32_t k = 0; k < l->node->n_inputs; k++) aligned(l, k, shape_of(l, k)->rank, l->node->shape.rank);
}

static void link_matmul(const linker *l) {
  int32_t rank = l->node->shape.rank;
  sfi_channel_link inner;
  for (int32_t k = 0; k < 2; k++) {
    int32_t r = shape_of(l, k)->rank;
    bool exchanged = sfi_attr_int(l->node, k == 0 ? SF_ATTR_TRANSPOSE_A : SF_ATTR_TRANSPOSE_B);
    aligned(l, k, r - 2, rank - 2);
    same(l, k, (k == 0) != exchanged ? r - 2 : r - 1, -1, k == 0 ? rank - 2 : rank - 1);
  }
  if (sfi_channel_inner_link(l->graph, l->value, &inner)) l->fn(l->user, l->value, &inner);
}

static void link_conv2d(const linker *l) {
  sfi_channel_link inner;
  same(l, 0, 0, -1, 0);
  if (!sfi_channel_inner_link(l->graph, l->value, &inner)) return;
  l->fn(l->user, l->value, &inner);
  same(l, 1, 0, -1, 1);
  if (l->node->n_inputs == 3) same(l, 2, 0, -1, 1);
}

static void link_batch_norm(const linker *l) {
  for (int32_t d = 0; d < l->node->shape.rank; d++) same(l, 0, d, -1, d);
  for (int32_t k = 1; k < 5; k++) same(l, k, 0, -1, 1);
}

/* All dimensions but those of `mask` keep their place; the others keep none. */
static void link_beside(const linker *l, uint32_t mask) {
  for (int32_t d = 0; d < l->node->shape.rank; d++)
    if (!(mask >> d & 1)) same(l, 0, d, -1, d);
}

static int32_t axis_of(const linker *l, int64_t axis) {
  return (int32_t)(axis < 0 ? axis + shape_of(l, 0)->rank : axis);
}

static void link_reduce(const linker *l) {
  const sfi_attr_value *axes = sfi_attr_of(l->node, SF_ATTR_AXES);
  bool keepdims = sfi_attr_int(l->node, SF_ATTR_KEEPDIMS);
  uint32_t reduced = 0;
  for (int32_t i = 0; i < axes->count; i++) reduced |= UINT32_C(1) << axis_of(l, axes->ints[i]);
  for (int32_t d = 0, e = 0; d < shape_of(l, 0)->rank; d++) {
    bool gone = reduced >> d & 1;
    if (!gone) same(l, 0, d, -1, e);
    e += !gone || keepdims;
  }
}

static void link_transpose(const linker *l) {
  for (int32_t d = 0; d < l->node->shape.rank; d++) same(l, 0, (int32_t)sfi_attr_of(l->node, SF_ATTR_PERM)->ints[d], -1, d);
}

static void link_concat(const linker *l) {
  int32_t axis = axis_of(l, sfi_attr_int(l->node, SF_ATTR_AXIS));
  int64_t at = 0;
  for (int32_t k = 0; k < l->node->n_inputs; k++) {
    sfi_poly extent = shape_of(l, k)->dims[axis];
    for (int32_t d = 0; d < l->node->shape.rank; d++)
      if (d != axis) same(l, k, d, -1, d);
    if (!sfi_is_const(l->node->shape.dims[axis])) continue;
    l->fn(l->user, l->value, &(sfi_channel_link){{k, axis, 0, 1}, {-1, axis, at, 1}, extent.c[0]});
    at += extent.c[0];
  }
}

/* Indices that a slice leaves out are tied to nothing: nobody needs them here. */
static void link_slice(const linker *l) {
  const sfi_attr_value *steps = sfi_attr_of(l->node, SF_ATTR_STEPS);
  for (int32_t d = 0; d < l->node->shape.rank; d++) {
    sfi_poly extent = shape_of(l, 0)->dims[d];
    if (!sfi_is_const(extent) || !sfi_is_const(l->node->shape.dims[d]) || (steps->count && steps->ints[d] != 1)) continue;
    int64_t start = sfi_attr_of(l->node, SF_ATTR_STARTS)->ints[d];
    if (start < 0) start = sfi_max(0, start + extent.c[0]);
    l->fn(l->user, l->value, &(sfi_channel_link){{0, d, start, 1}, {-1, d, 0, 1}, l->node->shape.dims[d].c[0]});
  }
}

static int64_t at_one(sfi_poly p) {
  return p.c[0] + p.c[1] + p.c[2];
}

/* Runs of dimensions with equal products belong together. Where either side of a run is one dimension, the leading one of the other
 * side goes along in blocks; the others of that side are not linked. Extents of 1 do not count. */
static void link_reshape(const linker *l) {
  const sfi_shape *x = shape_of(l, 0), *y = &l->node->shape;
  for (int32_t d = 0, e = 0; d < x->rank || e < y->rank;) {
    sfi_poly left = sfi_const(1), right = left;
    int32_t lead = -1, out_lead = -1, n = 0, out_n = 0;
    do {
      if (e == y->rank || (d < x->rank && (n == 0 || (out_n > 0 && at_one(left) < at_one(right))))) {
        if (!sfi_poly_mul(left, x->dims[d], &left)) return;
        if (!sfi_is(x->dims[d], 1) && n++ == 0) lead = d;
        d++;
      } else {
        if (!sfi_poly_mul(right, y->dims[e], &right)) return;
        if (!sfi_is(y->dims[e], 1) && out_n++ == 0) out_lead = e;
        e++;
      }
    } while ((d < x->rank || e < y->rank) && (n == 0 || out_n == 0 || !sfi_poly_equal(left, right)));
    if (!sfi_is_const(left) || left.c[0] == 0 || n == 0 || out_n == 0 || (n > 1 && out_n > 1)) continue;
    int64_t from = x->dims[lead].c[0], to = y->dims[out_lead].c[0], count = sfi_max(from, to);
    l->fn(l->user, l->value, &(sfi_channel_link){{0, lead, 0, count / from}, {-1, out_lead, 0, count / to}, count});
  }
}

bool sfi_channel_inner_link(const sf_graph *graph, sf_value value, sfi_channel_link *out_link) {
  const sfi_node *node = &graph->nodes[value];
  int32_t weight;
  sfi_matrix matrix;
  if (!sfi_weight_matrix(graph, value, &weight, &matrix)) return false;
  if (node->op == SF_OP_CONV2D) {
    if (sfi_attr_int(node, SF_ATTR_GROUPS) != 1) return false;
    *out_link = (sfi_channel_link){{weight, 1, 0, 1}, {0, 1, 0, 1}, graph->nodes[node->inputs[weight]].shape.dims[1].c[0]};
    return true;
  }
  int32_t dims[2];
  for (int32_t k = 0; k < 2; k++) {
    int32_t rank = graph->nodes[node->inputs[k]].shape.rank;
    bool exchanged = sfi_attr_int(node, k == 0 ? SF_ATTR_TRANSPOSE_A : SF_ATTR_TRANSPOSE_B);
    dims[k] = (k == 0) != exchanged ? rank - 1 : rank - 2;
  }
  *out_link = (sfi_channel_link){{weight, dims[weight], 0, 1}, {1 - weight, dims[1 - weight], 0, 1}, matrix.columns};
  return true;
}

void sfi_channel_links(const sf_graph *graph, sf_value value, sfi_channel_link_fn fn, void *user) {
  const linker l = {graph, value, &graph->nodes[value], fn, user};
  switch (l.node->op) {
  case SF_OP_MATMUL:
    link_matmul(&l);
    break;
  case SF_OP_CONV2D:
    link_conv2d(&l);
    break;
  case SF_OP_BATCH_NORM:
    link_batch_norm(&l);
    break;
  case SF_OP_SOFTMAX:
    link_beside(&l, UINT32_C(1) << axis_of(&l, sfi_attr_int(l.node, SF_ATTR_AXIS)));
    break;
  case SF_OP_LAYER_NORM:
  case SF_OP_RMS_NORM:
    link_beside(&l, ~UINT32_C(0) << axis_of(&l, sfi_attr_int(l.node, SF_ATTR_AXIS)));
    break;
  case SF_OP_MAX_POOL:
  case SF_OP_AVG_POOL:
  case SF_OP_GLOBAL_AVG_POOL:
    link_beside(&l, ~UINT32_C(3));
    break;
  case SF_OP_RESHAPE:
    link_reshape(&l);
    break;
  case SF_OP_TRANSPOSE:
    link_transpose(&l);
    break;
  case SF_OP_CONCAT:
    link_concat(&l);
    break;
  case SF_OP_SLICE:
    link_slice(&l);
    break;
  case SF_OP_REDUCE_SUM:
  case SF_OP_REDUCE_MEAN:
  case SF_OP_REDUCE_MAX:
    link_reduce(&l);
    break;
  default:
    if (sfi_op_of(l.node->op)->flags & SF_OPF_ELEMENTWISE) link_elementwise(&l);
    break;
  }
}

/* ---- slots and classes -------------------------------------------------------------------------------------------- */

sfi_channel_tensor *sfi_channel_tensor_of(const sfi_channels *channels, sf_value node, int32_t k) {
  if (k < 0) return &channels->tensors[node];
  sf_value operand = channels->graph->nodes[node].inputs[k];
  return &channels->tensors[sfi_is_static(channels->graph, operand) ? channels->uses[node] + k : operand];
}

static int32_t root_of(int32_t *parent, int32_t slot) {
  while (parent[slot] != slot) slot = parent[slot] = parent[parent[slot]];
  return slot;
}

static void unite(sfi_channels *channels, int32_t a, int32_t b) {
  a = root_of(channels->parent, a);
  b = root_of(channels->parent, b);
  channels->parent[a > b ? a : b] = a < b ? a : b;
}

/* Gives slots to the dimensions of one tensor. */
static void number(sfi_channel_tensor *tensor, const sfi_shape *shape, size_t *n_slots) {
  for (int32_t d = 0; d < SF_MAX_RANK; d++) {
    int64_t extent = d < shape->rank && sfi_is_const(shape->dims[d]) ? shape->dims[d].c[0] : 0;
    bool tracked = extent >= 2 && extent <= (int64_t)(SLOTS_MAX - *n_slots);
    tensor->first[d] = tracked ? (int32_t)*n_slots : -1;
    if (tracked) *n_slots += (size_t)extent;
  }
}

typedef struct pinner {
  sfi_channels *channels;
  uint32_t linked[SF_MAX_RANK]; /* bit k + 1 of entry d: dimension d of operand k has a link */
} pinner;

static void pin(sfi_channels *channels, int32_t slot) {
  channels->flags[slot] |= SFI_CLASS_PINNED;
}

static void unite_link(void *user, sf_value node, const sfi_channel_link *link) {
  pinner *p = user;
  int32_t a = sfi_channel_tensor_of(p->channels, node, link->a.k)->first[link->a.d];
  int32_t b = sfi_channel_tensor_of(p->channels, node, link->b.k)->first[link->b.d];
  p->linked[link->a.d] |= UINT32_C(1) << (link->a.k + 1);
  p->linked[link->b.d] |= UINT32_C(1) << (link->b.k + 1);
  if (a >= 0 && b >= 0) {
    for (int64_t i = 0; i < link->count; i++)
      unite(p->channels, a + (int32_t)(link->a.at + i / link->a.div), b + (int32_t)(link->b.at + i / link->b.div));
  } else if (a >= 0 || b >= 0) {
    const sfi_channel_side *side = a >= 0 ? &link->a : &link->b;
    for (int64_t i = 0; i < link->count / side->div; i++) pin(p->channels, (a >= 0 ? a : b) + (int32_t)(side->at + i));
  }
}

static void pin_all(sfi_channels *channels, const sfi_channel_tensor *tensor, const sfi_shape *shape, int32_t d) {
  for (int64_t i = 0; tensor->first[d] >= 0 && i < shape->dims[d].c[0]; i++) pin(channels, tensor->first[d] + (int32_t)i);
}

static void unite_and_pin(sfi_channels *channels, sf_value value) {
  const sfi_node *node = &channels->graph->nodes[value];
  pinner p = {.channels = channels};
  if (sfi_node_is_static(node)) return;
  sfi_channel_links(channels->graph, value, unite_link, &p);
  for (int32_t k = -1; k < node->n_inputs; k++) {
    const sfi_shape *shape = k < 0 ? &node->shape : &channels->graph->nodes[node->inputs[k]].shape;
    for (int32_t d = 0; d < shape->rank; d++)
      if (!(p.linked[d] >> (k + 1) & 1)) pin_all(channels, sfi_channel_tensor_of(channels, value, k), shape, d);
  }
}

/* ---- static operands ---------------------------------------------------------------------------------------------- */

enum { STATIC_FLAGS = SFI_SLOT_ZERO | SFI_SLOT_FINITE | SFI_SLOT_DIVIDES };

static uint8_t describe(float value) {
  return (uint8_t)((value == 0 ? SFI_SLOT_ZERO : 0) | (isfinite(value) ? SFI_SLOT_FINITE : 0) |
                   (value != 0 && !isnan(value) ? SFI_SLOT_DIVIDES : 0));
}

/* Meets the elements of dimensions d and after that stay. `slots`: those of the indices in the dimensions before. */
static const float *describe_from(sfi_channels *channels, sfi_channel_tensor *tensor, const sfi_shape *shape, int32_t d,
                                  const float *data, bool stays, int32_t slots[SF_MAX_RANK]) {
  if (d == shape->rank || d == SF_MAX_RANK) { /* the second is for gcc, which unrolls the recursion without end */
    uint8_t lost = stays ? (uint8_t)(STATIC_FLAGS & ~describe(*data)) : 0;
    tensor->flags &= (uint8_t)~lost;
    for (int32_t e = 0; e < d; e++)
      if (slots[e] >= 0) channels->flags[slots[e]] &= (uint8_t)~lost;
    return data + 1;
  }
  for (int64_t i = 0; i < shape->dims[d].c[0]; i++) {
    slots[d] = tensor->first[d] < 0 ? -1 : tensor->first[d] + (int32_t)i;
    bool stays_here = stays && (slots[d] < 0 || !sfi_channel_removed(channels, slots[d]));
    data = describe_from(channels, tensor, shape, d + 1, data, stays_here, slots);
  }
  return data;
}

static bool describe_static(sfi_channels *channels, sfi_channel_tensor *tensor, const sfi_node *leaf, sfi_diag *diag) {
  const sfi_shape *shape = &leaf->shape;
  int32_t slots[SF_MAX_RANK];
  const float *data = sfi_node_open(leaf, diag);
  if (!data) return false;
  tensor->flags = STATIC_FLAGS;
  for (int32_t d = 0; d < shape->rank; d++)
    for (int64_t i = 0; tensor->first[d] >= 0 && i < shape->dims[d].c[0]; i++)
      channels->flags[tensor->first[d] + i] |= STATIC_FLAGS;
  describe_from(channels, tensor, shape, 0, data, true, slots);
  sfi_node_close(leaf);
  return true;
}

/* Weights of contractions are looked at by their matrix instead. */
bool sfi_channels_describe(sfi_channels *channels, sf_value value, sfi_diag *diag) {
  const sfi_node *node = &channels->graph->nodes[value];
  sfi_channel_link inner;
  bool contraction = sfi_channel_inner_link(channels->graph, value, &inner);
  for (int32_t k = 0; k < node->n_inputs; k++) {
    const sfi_node *leaf = &channels->graph->nodes[node->inputs[k]];
    if (sfi_node_is_static(leaf) && leaf->dtype == SF_F32 && !(contraction && k == inner.a.k) &&
        !describe_static(channels, sfi_channel_tensor_of(channels, value, k), leaf, diag))
      return false;
  }
  return true;
}

bool sfi_channels_init(sfi_channels *channels, const sf_graph *graph, const sf_allocator *allocator) {
  size_t n = graph->n_nodes, n_tensors = n;
  *channels = (sfi_channels){.graph = graph, .allocator = allocator};
  for (size_t v = 0; v < n; v++) n_tensors += (size_t)graph->nodes[v].n_inputs;
  if (n_tensors > INT32_MAX) return false;
  channels->n_tensors = n_tensors;
  channels->uses = sfi_alloc(allocator, n * sizeof *channels->uses);
  channels->tensors = sfi_calloc(allocator, n_tensors, sizeof *channels->tensors);
  if (!channels->uses || !channels->tensors) return false;
  for (size_t v = 0, use = n; v < n; v++) {
    const sfi_node *node = &graph->nodes[v];
    channels->uses[v] = (int32_t)use;
    /* A static value as itself is not tracked; as an operand it is one tensor a use. */
    number(&channels->tensors[v], sfi_node_is_static(node) ? &(sfi_shape){0} : &node->shape, &channels->n_slots);
    for (int32_t k = 0; k < node->n_inputs; k++, use++) {
      const sfi_node *operand = &graph->nodes[node->inputs[k]];
      number(&channels->tensors[use], sfi_node_is_static(operand) ? &operand->shape : &(sfi_shape){0}, &channels->n_slots);
    }
  }
  channels->parent = sfi_alloc(allocator, channels->n_slots * sizeof *channels->parent);
  channels->flags = sfi_calloc(allocator, channels->n_slots, 1);
  if (!channels->parent || !channels->flags) return false;
  for (size_t i = 0; i < channels->n_slots; i++) channels->parent[i] = (int32_t)i;
  for (size_t v = 0; v < n; v++) unite_and_pin(channels, (sf_value)v);
  for (size_t i = 0; i < graph->n_outputs; i++) {
    sf_value v = graph->outputs[i].value;
    for (int32_t d = 0; d < graph->nodes[v].shape.rank; d++) pin_all(channels, &channels->tensors[v], &graph->nodes[v].shape, d);
  }
  for (size_t i = 0; i < channels->n_slots; i++) {
    channels->parent[i] = root_of(channels->parent, (int32_t)i);
    if (channels->flags[i] & SFI_CLASS_PINNED) pin(channels, channels->parent[i]);
  }
  return true;
}

void sfi_channels_deinit(sfi_channels *channels) {
  const sf_allocator *a = channels->allocator;
  sfi_free(a, channels->uses, channels->graph->n_nodes * sizeof *channels->uses);
  sfi_free(a, channels->tensors, channels->n_tensors * sizeof *channels->tensors);
  sfi_free(a, channels->parent, channels->n_slots * sizeof *channels->parent);
  sfi_free(a, channels->flags, channels->n_slots);
}
