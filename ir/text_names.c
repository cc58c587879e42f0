/* Assigns and finds the names of values in the text form. A hash table, because a generated graph may have 100,000 values. */
#include "text_names.h"

bool sfi_is_name(const char *text, size_t length) {
  for (size_t i = 0; i < length; i++) {
    char c = text[i];
    if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.')) return false;
  }
  return length > 0;
}

static size_t slot_of(const char *text, size_t length, size_t n_slots) {
  sfi_digest digest = sfi_digest_of(text, length);
  uint64_t hash;
  memcpy(&hash, digest.bytes, sizeof hash);
  return (size_t)hash & (n_slots - 1);
}

static void fill_slot(sfi_names *names, sf_value value) {
  const char *name = names->names[value];
  size_t at = slot_of(name, strlen(name), names->slots_capacity);
  while (names->slots[at] != SF_NO_VALUE) at = (at + 1) & (names->slots_capacity - 1);
  names->slots[at] = value;
}

/* Room for `count` names with at most half of the slots filled. */
static bool reserve(sfi_names *names, size_t count) {
  const sf_allocator *a = names->arena.allocator;
  if (!sfi_grow(a, (void **)&names->names, &names->capacity, sizeof *names->names, count)) return false;
  if (count * 2 <= names->slots_capacity) return true;
  size_t n_slots = 64;
  while (n_slots < count * 2) n_slots *= 2;
  sf_value *slots = sfi_alloc(a, n_slots * sizeof *slots);
  if (!slots) return false;
  for (size_t i = 0; i < n_slots; i++) slots[i] = SF_NO_VALUE;
  sfi_free(a, names->slots, names->slots_capacity * sizeof *slots);
  names->slots = slots;
  names->slots_capacity = n_slots;
  for (size_t i = 0; i < names->count; i++) {
    if (names->names[i]) fill_slot(names, (sf_value)i);
  }
  return true;
}

sf_value sfi_names_find(const sfi_names *names, const char *text, size_t length) {
  if (!names->slots_capacity) return SF_NO_VALUE;
  size_t at = slot_of(text, length, names->slots_capacity);
  for (; names->slots[at] != SF_NO_VALUE; at = (at + 1) & (names->slots_capacity - 1)) {
    const char *name = names->names[names->slots[at]];
    if (strncmp(name, text, length) == 0 && name[length] == 0) return names->slots[at];
  }
  return SF_NO_VALUE;
}

bool sfi_names_add(sfi_names *names, const char *name) {
  if (!reserve(names, names->count + 1)) return false;
  names->names[names->count++] = name;
  fill_slot(names, (sf_value)names->count - 1);
  return true;
}

/* Gives a value the first free name of prefix and number, and moves the number on. */
static bool name_by_number(sfi_names *names, sf_value value, const char *prefix, size_t *number) {
  const char *name;
  do {
    name = sfi_arena_printf(&names->arena, "%s%zu", prefix, (*number)++);
    if (!name) return false;
  } while (sfi_names_find(names, name, strlen(name)) != SF_NO_VALUE);
  names->names[value] = name;
  fill_slot(names, value);
  return true;
}

bool sfi_names_of_graph(sfi_names *names, const sf_graph *graph) {
  if (!reserve(names, graph->n_nodes)) return false;
  names->count = graph->n_nodes;
  for (size_t i = 0; i < graph->n_nodes; i++) {
    const char *given = graph->nodes[i].label ? graph->nodes[i].label : graph->nodes[i].name;
    names->names[i] = NULL;
    if (!given || !sfi_is_name(given, strlen(given)) || sfi_names_find(names, given, strlen(given)) != SF_NO_VALUE) continue;
    names->names[i] = given;
    fill_slot(names, (sf_value)i);
  }
  /* Numbers only after every given name is known: a value may be called "0". */
  size_t number = 0;
  for (size_t i = 0; i < graph->n_nodes; i++) {
    if (!names->names[i] && !name_by_number(names, (sf_value)i, "", &number)) return false;
  }
  return true;
}

/* One that cannot be read is like no other: whoever wants it will say so. */
static bool same_bytes(const sfi_node *a, const sfi_node *b) {
  sfi_diag diag = {0};
  if (a->data == b->data && a->source == b->source) return true;
  const void *x = sfi_node_open(a, &diag);
  if (!x) return false;
  const void *y = sfi_node_open(b, &diag);
  const bool same = y && memcmp(x, y, a->bytes) == 0;
  sfi_node_close(a);
  if (y) sfi_node_close(b);
  return same;
}

static bool is_same_tensor(const sfi_node *a, const sfi_node *b) {
  return a->dtype == b->dtype && sfi_shape_equal(&a->shape, &b->shape) && same_bytes(a, b);
}

bool sfi_names_of_tensors(sfi_names *names, const sf_graph *graph) {
  if (!reserve(names, graph->n_nodes)) return false;
  names->count = graph->n_nodes;
  for (size_t i = 0; i < graph->n_nodes; i++) {
    names->names[i] = graph->nodes[i].op == SF_OP_WEIGHT ? graph->nodes[i].name : NULL;
    if (!names->names[i] || sfi_names_find(names, names->names[i], strlen(names->names[i])) != SF_NO_VALUE) continue;
    fill_slot(names, (sf_value)i);
  }
  size_t number = 2;
  for (size_t i = 0; i < graph->n_nodes; i++) {
    const char *name = names->names[i];
    if (!name) continue;
    sf_value first = sfi_names_find(names, name, strlen(name));
    if (first == (sf_value)i || is_same_tensor(&graph->nodes[first], &graph->nodes[i])) continue;
    const char *prefix = sfi_arena_printf(&names->arena, "%s.", name);
    if (!prefix || !name_by_number(names, (sf_value)i, prefix, &number)) return false;
  }
  return true;
}

void sfi_names_deinit(sfi_names *names) {
  const sf_allocator *a = names->arena.allocator;
  sfi_free(a, names->names, names->capacity * sizeof *names->names);
  sfi_free(a, names->slots, names->slots_capacity * sizeof *names->slots);
  sfi_arena_deinit(&names->arena);
}
