/* Merges values that are certain to be equal: the same operation with the same attributes on the same operands, and static tensors with
 * the same bytes. The first of them stays, under its name.
 * Needs a verified graph. Preserves every value, bit for bit. */
#include "rewrite.h"

/* Digest of all that makes a node of the new graph what it is, operands by their number. */
static sfi_digest digest_node(const sfi_node *node) {
  struct {
    int32_t op, dtype, rank, n_inputs;
  } head = {(int32_t)node->op, (int32_t)node->dtype, node->shape.rank, node->n_inputs};
  sfi_digest d = sfi_digest_of(&head, sizeof head);
  if (sfi_node_is_static(node)) {
    d = sfi_digest_join(d, sfi_digest_of(node->shape.dims, (size_t)node->shape.rank * sizeof *node->shape.dims));
    if (node->source) return d; /* its bytes are read where another has its shape */
    return sfi_digest_join(d, sfi_digest_of(node->data, node->bytes));
  }
  d = sfi_digest_join(d, sfi_digest_of(node->inputs, (size_t)node->n_inputs * sizeof *node->inputs));
  sf_attr attrs[SFI_ATTRS_MAX];
  int32_t n = sfi_rewrite_attrs(node, attrs);
  for (int32_t i = 0; i < n; i++) {
    d = sfi_digest_join(d, sfi_digest_of(&attrs[i].i, sizeof attrs[i].i));
    d = sfi_digest_join(d, sfi_digest_of(&attrs[i].f, sizeof attrs[i].f));
    d = sfi_digest_join(d, sfi_digest_of(attrs[i].ints, (size_t)attrs[i].count * sizeof *attrs[i].ints));
  }
  return d;
}

static bool same_bytes(const void *a, const void *b, size_t bytes) {
  return bytes == 0 || memcmp(a, b, bytes) == 0;
}

/* One that cannot be read is like no other. */
static bool same_source(const sfi_node *a, const sfi_node *b) {
  sfi_diag diag = {0};
  sfi_digest x, y;
  if (a->source == b->source) return true;
  return a->source && b->source && a->bytes == b->bytes && sfi_source_digest(a->source, &diag, &x) &&
         sfi_source_digest(b->source, &diag, &y) && memcmp(&x, &y, sizeof x) == 0;
}

static bool same_node(const sfi_node *a, const sfi_node *b) {
  if (a->op != b->op || a->dtype != b->dtype || a->n_inputs != b->n_inputs || !sfi_shape_equal(&a->shape, &b->shape)) return false;
  if (a->source || b->source) return same_source(a, b);
  if (a->data) return a->bytes == b->bytes && same_bytes(a->data, b->data, a->bytes);
  if (!same_bytes(a->inputs, b->inputs, (size_t)a->n_inputs * sizeof *a->inputs)) return false;
  sf_attr x[SFI_ATTRS_MAX], y[SFI_ATTRS_MAX];
  int32_t n = sfi_rewrite_attrs(a, x);
  if (n != sfi_rewrite_attrs(b, y)) return false;
  for (int32_t i = 0; i < n; i++) {
    if (x[i].id != y[i].id || x[i].i != y[i].i || memcmp(&x[i].f, &y[i].f, sizeof x[i].f) != 0 || x[i].count != y[i].count ||
        !same_bytes(x[i].ints, y[i].ints, (size_t)x[i].count * sizeof *x[i].ints))
      return false;
  }
  return true;
}

/* Open addressing, at most half full; entries are values of the new graph. */
typedef struct table {
  sf_value *slots;
  size_t mask;
} table;

/* The value that equals `value`: an earlier one, else itself, entered. */
static sf_value find_or_enter(table *t, const sf_graph *to, sf_value value) {
  const sfi_node *node = &to->nodes[value];
  sfi_digest digest = digest_node(node);
  size_t at;
  memcpy(&at, digest.bytes, sizeof at);
  for (at &= t->mask; t->slots[at] != SF_NO_VALUE; at = (at + 1) & t->mask)
    if (same_node(&to->nodes[t->slots[at]], node)) return t->slots[at];
  t->slots[at] = value;
  return value;
}

sf_status sfi_eliminate_common(sfi_pass_env *env, const sf_graph *graph, sf_graph **out_graph) {
  const sf_allocator *a = &env->context->allocator;
  sfi_rewrite rewrite;
  size_t size = 4;
  *out_graph = NULL;
  while (size < 2 * graph->n_nodes) size *= 2;
  if (!sfi_rewrite_begin(&rewrite, env, graph)) return SF_STATUS_OUT_OF_MEMORY;
  table t = {.slots = sfi_alloc(a, size * sizeof *t.slots), .mask = size - 1};
  if (!t.slots) return sfi_rewrite_end(&rewrite, sfi_fail_memory(env->diag), out_graph);
  for (size_t i = 0; i < size; i++) t.slots[i] = SF_NO_VALUE;
  for (size_t i = 0; i < graph->n_nodes && !sfi_rewrite_failed(&rewrite); i++) {
    sf_value copy = sfi_rewrite_copy(&rewrite, (sf_value)i);
    if (copy != SF_NO_VALUE && graph->nodes[i].op != SF_OP_INPUT) rewrite.map[i] = find_or_enter(&t, rewrite.to, copy);
  }
  sfi_free(a, t.slots, size * sizeof *t.slots);
  return sfi_rewrite_end(&rewrite, SF_OK, out_graph);
}
