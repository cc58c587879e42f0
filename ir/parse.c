/* Reads the text form, docs/text-form.md, line by line into a graph through its builder, which checks shapes. Nothing recurses;
 * memory stays within a small multiple of the text. After an error the graph holds nothing of the text, only the error. */
#include "context.h"
#include "element.h"
#include "text_names.h"
#include "weights_file.h"

#include <stdio.h>

enum { OPERANDS_MAX = 16 };
#define SF_OP(id, value, text, min, max, attrs, infer, flags, doc) _Static_assert((max) <= OPERANDS_MAX, text);
#include <sparseflow/ops.def>
#undef SF_OP

typedef struct parser {
  sf_graph *graph;
  const char *folder; /* of weight files, or NULL */
  sfi_cursor cursor;
  sfi_names names; /* of the graph's values; its arena also holds what lives until the end of the call */
  bool has_graph, has_symbol;
} parser;

/* Fails with another status than a parse error, at the word that starts at `at`. */
#define FAIL_AT(p, status, at, op, ...)                                                                                            \
  sfi_fail((p)->cursor.diag, status, &(sfi_place){(p)->cursor.file, (p)->cursor.line, sfi_cursor_place(&(p)->cursor, at).column},  \
           op, __VA_ARGS__)

static sf_status expect(parser *p, char character, const char *op) {
  const char wanted[] = {'\'', character, '\'', 0};
  return sfi_cursor_take(&p->cursor, character) ? SF_OK : sfi_cursor_wanted(&p->cursor, op, wanted);
}

/* Is the next word a string? */
static bool at_string(parser *p) {
  return !sfi_cursor_at_end(&p->cursor) && *p->cursor.at == '"';
}

/* ---- leaves ------------------------------------------------------------------------------------------------------- */

static sf_status parse_dtype(parser *p, const char *op, sf_dtype *out) {
  sfi_token token = sfi_cursor_name(&p->cursor);
  if (!token.length) return sfi_cursor_wanted(&p->cursor, op, "an element type");
  if (sfi_dtype_named(token.text, token.length, out)) return SF_OK;
  sfi_near near = {token};
#define SF_DTYPE(id, value, text, bytes, st, flags) sfi_near_offer(&near, text);
#include <sparseflow/dtypes.def>
#undef SF_DTYPE
  return sfi_cursor_fail(&p->cursor, token.text, op, "unknown element type '%.*s'%s%s%s", (int)token.length, token.text,
                         SFI_NEAR_ARGS(near));
}

static sf_status parse_extent(parser *p, const char *op, sfi_poly *out) {
  sfi_cursor_at_end(&p->cursor); /* skips blanks */
  sfi_cursor before = p->cursor;
  sfi_token token = sfi_cursor_number(&p->cursor);
  int64_t extent;
  if (sfi_token_is(token, p->graph->symbol)) {
    *out = (sfi_poly){{0, 1, 0}};
  } else if (sfi_token_integer(token, &extent) && extent >= 0) {
    *out = sfi_const(extent);
  } else {
    p->cursor = before;
    char wanted[128];
    snprintf(wanted, sizeof wanted, "an extent, a number or '%s'", p->graph->symbol);
    return sfi_cursor_wanted(&p->cursor, op, wanted);
  }
  return SF_OK;
}

static sf_status parse_type(parser *p, const char *op, sf_dtype *out_dtype, sfi_shape *out_shape) {
  *out_shape = (sfi_shape){0};
  sf_status st;
  if ((st = parse_dtype(p, op, out_dtype)) != SF_OK || (st = expect(p, '[', op)) != SF_OK) return st;
  if (sfi_cursor_take(&p->cursor, ']')) return SF_OK;
  do {
    if (out_shape->rank == SF_MAX_RANK) return sfi_cursor_fail(&p->cursor, p->cursor.at, op, "more than %d extents", SF_MAX_RANK);
    if ((st = parse_extent(p, op, &out_shape->dims[out_shape->rank++])) != SF_OK) return st;
  } while (sfi_cursor_take(&p->cursor, ','));
  return sfi_cursor_take(&p->cursor, ']') ? SF_OK : sfi_cursor_wanted(&p->cursor, op, "',' or ']' after the extent");
}

/* name: the value's. */
static sf_value parse_input(parser *p, const char *name, const sfi_place *place) {
  const char *own_name = name;
  sf_dtype dtype;
  sfi_shape shape;
  if (at_string(p) && sfi_cursor_string(&p->cursor, &p->names.arena, name, "a name", &own_name) != SF_OK) return SF_NO_VALUE;
  if (parse_type(p, name, &dtype, &shape) != SF_OK) return SF_NO_VALUE;
  return sfi_graph_add_leaf(p->graph, SF_OP_INPUT, own_name, dtype, &shape, NULL, false, place);
}

static sf_status find_tensor(parser *p, const char *at, const char *name, const sfi_tensor_entry **out_entry) {
  const sfi_mapping *mapping = p->graph->mapping;
  if (!mapping) return FAIL_AT(p, SF_STATUS_NOT_FOUND, at, name, "weight: no weight file is named before this line");
  *out_entry = sfi_mapping_find(mapping, name);
  if (!*out_entry) {
    sfi_near near = {{name, strlen(name)}};
    for (size_t i = 0; i < sfi_mapping_count(mapping); i++) sfi_near_offer(&near, sfi_mapping_at(mapping, i)->name);
    return FAIL_AT(p, SF_STATUS_NOT_FOUND, at, name, "weight: \"%s\" has no tensor \"%s\"%s%s%s", p->graph->weights_file, name,
                   SFI_NEAR_ARGS(near));
  }
  if (!(*out_entry)->unusable) return SF_OK;
  return FAIL_AT(p, SF_STATUS_UNSUPPORTED, at, name, "weight: \"%s\" in \"%s\": %s", name, p->graph->weights_file,
                 (*out_entry)->unusable);
}

static sf_value parse_weight(parser *p, const sfi_place *place) {
  const char *tensor;
  const sfi_tensor_entry *entry = NULL;
  sf_dtype dtype;
  sfi_shape shape;
  sfi_cursor_at_end(&p->cursor);
  const char *at = p->cursor.at;
  if (sfi_cursor_string(&p->cursor, &p->names.arena, "weight", "the tensor's name in quotes", &tensor) != SF_OK) return SF_NO_VALUE;
  if (find_tensor(p, at, tensor, &entry) != SF_OK) return SF_NO_VALUE;
  sfi_cursor_at_end(&p->cursor);
  at = p->cursor.at;
  if (parse_type(p, tensor, &dtype, &shape) != SF_OK) return SF_NO_VALUE;
  sfi_shape stored = {.rank = entry->rank};
  for (int32_t i = 0; i < entry->rank; i++) stored.dims[i] = sfi_const(entry->dims[i]);
  if (dtype != entry->dtype || !sfi_shape_equal(&shape, &stored)) {
    sfi_text found = {.allocator = p->names.arena.allocator};
    sfi_shape_print(&found, &stored, NULL);
    if (found.failed)
      sfi_fail_memory(p->cursor.diag);
    else
      FAIL_AT(p, SF_STATUS_INVALID_GRAPH, at, tensor, "weight: \"%s\" is %s%s in \"%s\"", tensor, sfi_dtype_of(entry->dtype)->text,
              found.data, p->graph->weights_file);
    sfi_text_deinit(&found);
    return SF_NO_VALUE;
  }
  if (entry->source) return sfi_graph_add_source(p->graph, tensor, dtype, &shape, entry->source, place);
  return sfi_graph_add_leaf(p->graph, SF_OP_WEIGHT, tensor, dtype, &shape, entry->data, true, place);
}

/* The elements collected so far; never more than `count`. */
typedef struct elements {
  void *data;
  size_t capacity, used, bytes; /* capacity and used in elements of `bytes` */
} elements;

static sf_status parse_element(parser *p, const char *name, sf_dtype dtype, elements *e) {
  sfi_cursor_at_end(&p->cursor);
  sfi_cursor before = p->cursor;
  sfi_token token = sfi_cursor_number(&p->cursor);
  if (!sfi_grow(p->names.arena.allocator, &e->data, &e->capacity, e->bytes, e->used + 1)) return sfi_fail_memory(p->cursor.diag);
  if (sfi_token_element(token, dtype, (char *)e->data + e->used * e->bytes)) return e->used++, SF_OK;
  char wanted[64];
  snprintf(wanted, sizeof wanted, "a number of type %s", sfi_dtype_of(dtype)->text);
  p->cursor = before;
  return sfi_cursor_wanted(&p->cursor, name, wanted);
}

/* One number where the rank is 0, else a flat list. The list's length, not the shape's claim, decides what is allocated. */
static sf_status parse_elements(parser *p, const char *name, sf_dtype dtype, const sfi_shape *shape, elements *e) {
  sfi_poly count;
  if (shape->rank == 0) return parse_element(p, name, dtype, e);
  sfi_cursor_at_end(&p->cursor);
  const char *at = p->cursor.at;
  sf_status st = expect(p, '[', name);
  if (st != SF_OK) return st;
  if (!sfi_cursor_take(&p->cursor, ']')) {
    do {
      if ((st = parse_element(p, name, dtype, e)) != SF_OK) return st;
    } while (sfi_cursor_take(&p->cursor, ','));
    if (!sfi_cursor_take(&p->cursor, ']')) return sfi_cursor_wanted(&p->cursor, name, "',' or ']' after the element");
  }
  if (sfi_shape_numel(shape, &count) && sfi_is(count, (int64_t)e->used)) return SF_OK;
  return sfi_cursor_fail(&p->cursor, at, name, "constant: %zu elements are not as many as the shape has", e->used);
}

static sf_value parse_constant(parser *p, const char *name, const sfi_place *place) {
  sf_dtype dtype;
  sfi_shape shape;
  sf_value value = SF_NO_VALUE;
  if (parse_type(p, name, &dtype, &shape) != SF_OK) return SF_NO_VALUE;
  elements e = {.bytes = sfi_dtype_of(dtype)->bytes};
  if (parse_elements(p, name, dtype, &shape, &e) == SF_OK) {
    value = sfi_graph_add_leaf(p->graph, SF_OP_CONSTANT, name, dtype, &shape, e.data, false, place);
  }
  sfi_free(p->names.arena.allocator, e.data, e.capacity * e.bytes);
  return value;
}

/* ---- operations --------------------------------------------------------------------------------------------------- */

/* "%name" of an earlier value. */
static sf_status parse_reference(parser *p, const char *op, sf_value *out) {
  if (!sfi_cursor_take(&p->cursor, '%')) return sfi_cursor_wanted(&p->cursor, op, "a value, '%' and its name");
  sfi_token token = sfi_cursor_name(&p->cursor);
  if (!token.length) return sfi_cursor_wanted(&p->cursor, op, "the name of a value after '%'");
  *out = sfi_names_find(&p->names, token.text, token.length);
  if (*out != SF_NO_VALUE) return SF_OK;
  return sfi_cursor_fail(&p->cursor, token.text - 1, op, "unknown value '%%%.*s'", (int)token.length, token.text);
}

static sf_status parse_operands(parser *p, const sfi_op_info *op, sf_value *operands, int32_t *out_count) {
  *out_count = 0;
  if (sfi_cursor_at_end(&p->cursor) || *p->cursor.at != '%') return SF_OK;
  do {
    sf_status st;
    sf_value operand;
    sfi_cursor_at_end(&p->cursor);
    const char *at = p->cursor.at;
    if ((st = parse_reference(p, op->text, &operand)) != SF_OK) return st;
    if (*out_count == op->max_inputs) {
      return FAIL_AT(p, SF_STATUS_INVALID_GRAPH, at, op->text, "%s: more operands than the %d that it takes", op->text,
                     op->max_inputs);
    }
    operands[(*out_count)++] = operand;
  } while (sfi_cursor_take(&p->cursor, ','));
  return SF_OK;
}

/* `ints` has room for SF_MAX_RANK entries. */
static sf_status parse_attr_value(parser *p, const char *op, const sfi_attr_info *info, int64_t *ints, sf_attr *attr) {
  sfi_cursor_at_end(&p->cursor);
  sfi_cursor before = p->cursor;
  sf_status st;
  switch (info->type) {
  case SFI_ATTR_INT:
    if (sfi_token_integer(sfi_cursor_number(&p->cursor), &attr->i)) return SF_OK;
    p->cursor = before;
    return sfi_cursor_wanted(&p->cursor, op, "an integer");
  case SFI_ATTR_FLOAT:
    if (sfi_token_real(sfi_cursor_number(&p->cursor), false, &attr->f)) return SF_OK;
    p->cursor = before;
    return sfi_cursor_wanted(&p->cursor, op, "a number");
  case SFI_ATTR_INTS:
    break;
  }
  attr->ints = ints;
  if ((st = expect(p, '[', op)) != SF_OK || sfi_cursor_take(&p->cursor, ']')) return st;
  do {
    sfi_cursor_at_end(&p->cursor);
    before = p->cursor;
    sfi_token token = sfi_cursor_number(&p->cursor);
    if (attr->count == SF_MAX_RANK) return sfi_cursor_fail(&p->cursor, token.text, op, "more than %d entries", SF_MAX_RANK);
    if (!sfi_token_integer(token, &ints[attr->count++])) {
      p->cursor = before;
      return sfi_cursor_wanted(&p->cursor, op, "an integer");
    }
  } while (sfi_cursor_take(&p->cursor, ','));
  return sfi_cursor_take(&p->cursor, ']') ? SF_OK : sfi_cursor_wanted(&p->cursor, op, "',' or ']' after the integer");
}

/* One `name=value`; `given` is the bits of those met so far. */
static sf_status parse_attr(parser *p, const sfi_op_info *op, uint32_t *given, int64_t *ints, sf_attr *attr) {
  sfi_token token = sfi_cursor_name(&p->cursor);
  if (!token.length) return sfi_cursor_wanted(&p->cursor, op->text, "',' and an operand, an attribute or the end of the line");
  if (!sfi_attr_named(token.text, token.length, &attr->id) || !(op->attrs & UINT32_C(1) << attr->id)) {
    sfi_near near = {token};
    for (int32_t id = 0; id < sfi_attr_count(); id++) {
      if (op->attrs & UINT32_C(1) << id) sfi_near_offer(&near, sfi_attr_info_of((sf_attr_id)id)->text);
    }
    return sfi_cursor_fail(&p->cursor, token.text, op->text, "%s has no attribute '%.*s'%s%s%s", op->text, (int)token.length,
                           token.text, SFI_NEAR_ARGS(near));
  }
  if (*given & UINT32_C(1) << attr->id) {
    return sfi_cursor_fail(&p->cursor, token.text, op->text, "attribute '%.*s' is given twice", (int)token.length, token.text);
  }
  *given |= UINT32_C(1) << attr->id;
  sf_status st = expect(p, '=', op->text);
  return st != SF_OK ? st : parse_attr_value(p, op->text, sfi_attr_info_of(attr->id), ints, attr);
}

static sf_value parse_operation(parser *p, sf_op op, const char *name, const sfi_place *place) {
  const sfi_op_info *info = sfi_op_of(op);
  sf_value operands[OPERANDS_MAX];
  sf_attr attrs[32] = {0}; /* each at most once, and there are 32 bits for them */
  int64_t ints[32][SF_MAX_RANK];
  int32_t n_operands, n_attrs = 0;
  uint32_t given = 0;
  if (parse_operands(p, info, operands, &n_operands) != SF_OK) return SF_NO_VALUE;
  while (!sfi_cursor_at_end(&p->cursor)) {
    if (parse_attr(p, info, &given, ints[n_attrs], &attrs[n_attrs]) != SF_OK) return SF_NO_VALUE;
    n_attrs++;
  }
  return sfi_graph_add(p->graph, op, name, n_operands, operands, n_attrs, attrs, place);
}

/* ---- lines -------------------------------------------------------------------------------------------------------- */

static sf_status parse_op_name(parser *p, sf_op *out_op, sfi_place *out_place) {
  sfi_token token = sfi_cursor_name(&p->cursor);
  if (!token.length) return sfi_cursor_wanted(&p->cursor, NULL, "an operation");
  *out_place = sfi_cursor_place(&p->cursor, token.text);
  if (sfi_op_named(token.text, token.length, out_op)) return SF_OK;
  sfi_near near = {token};
#define SF_OP(id, value, text, min, max, attrs, infer, flags, doc) sfi_near_offer(&near, text);
#include <sparseflow/ops.def>
#undef SF_OP
  return sfi_cursor_fail(&p->cursor, token.text, NULL, "unknown operation '%.*s'%s%s%s", (int)token.length, token.text,
                         SFI_NEAR_ARGS(near));
}

/* "%name = operation ..." */
static sf_status parse_value(parser *p) {
  sfi_cursor *cursor = &p->cursor;
  sfi_place place = {0};
  sf_op op;
  sf_status st;
  sfi_cursor_take(cursor, '%');
  sfi_token token = sfi_cursor_name(cursor);
  if (!token.length) return sfi_cursor_wanted(cursor, NULL, "the name of a value after '%'");
  const char *name = sfi_arena_strndup(&p->graph->arena, token.text, token.length);
  if (!name) return sfi_fail_memory(cursor->diag);
  sf_value earlier = sfi_names_find(&p->names, token.text, token.length);
  if (earlier != SF_NO_VALUE) {
    int32_t line = p->graph->nodes[earlier].place.line;
    return sfi_cursor_fail(cursor, token.text - 1, name,
                           line ? "'%%%s' is defined already, in line %d" : "'%%%s' is defined already", name, line);
  }
  if ((st = expect(p, '=', name)) != SF_OK || (st = parse_op_name(p, &op, &place)) != SF_OK) return st;
  sf_value value;
  if (op == SF_OP_INPUT)
    value = parse_input(p, name, &place);
  else if (op == SF_OP_WEIGHT)
    value = parse_weight(p, &place);
  else if (op == SF_OP_CONSTANT)
    value = parse_constant(p, name, &place);
  else
    value = parse_operation(p, op, name, &place);
  if (value == SF_NO_VALUE) return p->graph->diag.error.status;
  sfi_node *node = &p->graph->nodes[value];
  if (strcmp(node->name, name) != 0) node->label = name;
  return sfi_names_add(&p->names, name) ? SF_OK : sfi_fail_memory(cursor->diag);
}

/* A header line belongs before the first value: what it names is in use from there on. */
static sf_status check_header(parser *p, sfi_token line, bool *seen) {
  if (*seen) return sfi_cursor_fail(&p->cursor, line.text, NULL, "a second '%.*s' line", (int)line.length, line.text);
  *seen = true;
  if (p->graph->n_nodes == 0) return SF_OK;
  return sfi_cursor_fail(&p->cursor, line.text, NULL, "'%.*s' stands before the first value", (int)line.length, line.text);
}

static sf_status parse_graph_line(parser *p, sfi_token line) {
  sf_status st = check_header(p, line, &p->has_graph);
  if (st != SF_OK) return st;
  const char *name;
  if (at_string(p)) {
    if ((st = sfi_cursor_string(&p->cursor, &p->graph->arena, NULL, "a name", &name)) != SF_OK) return st;
  } else {
    sfi_token token = sfi_cursor_name(&p->cursor);
    if (!token.length) return sfi_cursor_wanted(&p->cursor, NULL, "the graph's name");
    if (!(name = sfi_arena_strndup(&p->graph->arena, token.text, token.length))) return sfi_fail_memory(p->cursor.diag);
  }
  p->graph->name = name;
  return SF_OK;
}

static sf_status parse_symbol_line(parser *p, sfi_token line) {
  sf_status st = check_header(p, line, &p->has_symbol);
  if (st != SF_OK) return st;
  sfi_token token = sfi_cursor_name(&p->cursor);
  if (!token.length || (token.text[0] >= '0' && token.text[0] <= '9')) {
    if (token.length) p->cursor.at = token.text;
    return sfi_cursor_wanted(&p->cursor, NULL, "a name that does not begin with a digit");
  }
  const char *name = sfi_arena_strndup(&p->graph->arena, token.text, token.length);
  if (!name) return sfi_fail_memory(p->cursor.diag);
  p->graph->symbol = name;
  return SF_OK;
}

static sf_status parse_weights_line(parser *p, sfi_token line) {
  sf_graph *graph = p->graph;
  const char *name;
  if (graph->weights_file) {
    return sfi_cursor_fail(&p->cursor, line.text, NULL, "a second weight file; the first is \"%s\"", graph->weights_file);
  }
  sfi_cursor_at_end(&p->cursor);
  const char *at = p->cursor.at;
  sf_status st = sfi_cursor_string(&p->cursor, &graph->arena, NULL, "the file's name in quotes", &name);
  if (st != SF_OK) return st;
  if (!p->folder) return FAIL_AT(p, SF_STATUS_NOT_FOUND, at, name, "weights: this text has no folder to look for \"%s\" in", name);
  sfi_diag diag = {0};
  st = sfi_mapping_open(&graph->context->allocator, p->folder, name, &diag, &graph->mapping);
  if (st == SF_STATUS_OUT_OF_MEMORY) return sfi_fail_memory(p->cursor.diag);
  if (st != SF_OK) {
    const char *tensor = diag.error.op;
    return FAIL_AT(p, st, at, tensor[0] ? tensor : name, "\"%s\": %s%s%s%s", diag.error.file, tensor[0] ? "tensor \"" : "", tensor,
                   tensor[0] ? "\": " : "", diag.error.message);
  }
  graph->weights_file = name;
  return SF_OK;
}

static sf_status parse_output_line(parser *p) {
  sfi_cursor_at_end(&p->cursor);
  sfi_place place = sfi_cursor_place(&p->cursor, p->cursor.at);
  sf_value value;
  sf_status st = parse_reference(p, "output", &value);
  if (st != SF_OK) return st;
  const char *name = p->names.names[value];
  if (at_string(p) && (st = sfi_cursor_string(&p->cursor, &p->names.arena, "output", "a name", &name)) != SF_OK) return st;
  return sfi_graph_add_output(p->graph, name, value, &place);
}

static sf_status parse_line(parser *p) {
  if (sfi_cursor_at_end(&p->cursor)) return SF_OK;
  sf_status st;
  if (*p->cursor.at == '%') {
    st = parse_value(p);
  } else {
    static const char *const lines[] = {"graph", "symbol", "weights", "output"};
    sfi_token line = sfi_cursor_name(&p->cursor);
    if (!line.length) return sfi_cursor_wanted(&p->cursor, NULL, "'%', 'graph', 'symbol', 'weights' or 'output'");
    if (sfi_token_is(line, "graph"))
      st = parse_graph_line(p, line);
    else if (sfi_token_is(line, "symbol"))
      st = parse_symbol_line(p, line);
    else if (sfi_token_is(line, "weights"))
      st = parse_weights_line(p, line);
    else if (sfi_token_is(line, "output"))
      st = parse_output_line(p);
    else {
      sfi_near near = {line};
      for (size_t i = 0; i < SFI_COUNT(lines); i++) sfi_near_offer(&near, lines[i]);
      return sfi_cursor_fail(&p->cursor, line.text, NULL, "unknown line '%.*s'%s%s%s", (int)line.length, line.text,
                             SFI_NEAR_ARGS(near));
    }
  }
  if (st != SF_OK || sfi_cursor_at_end(&p->cursor)) return st;
  return sfi_cursor_wanted(&p->cursor, NULL, "the end of the line");
}

sf_status sfi_graph_parse_into(sf_graph *graph, const char *text, size_t length, const char *file, const char *folder) {
  sfi_diag *diag = &graph->diag;
  if (diag->error.status != SF_OK) return diag->error.status;
  const sf_graph before = *graph;
  if (!file) file = graph->name;
  parser p = {.graph = graph, .folder = folder, .names.arena.allocator = &graph->context->allocator};
  sf_status st = SF_OK;
  if (length > INT32_MAX) {
    sfi_place place = {.file = file};
    st = sfi_fail(diag, SF_STATUS_UNSUPPORTED, &place, NULL, "a text of more than 2 GiB");
  } else if (!sfi_names_of_graph(&p.names, graph)) {
    st = sfi_fail_memory(diag);
  }
  p.cursor = sfi_cursor_of(text, st == SF_OK ? length : 0, file, diag);
  while (st == SF_OK && sfi_cursor_line(&p.cursor)) st = parse_line(&p);
  sfi_names_deinit(&p.names);
  if (st == SF_OK) return SF_OK;
  if (graph->mapping != before.mapping) sfi_mapping_release(graph->mapping);
  graph->name = before.name;
  graph->symbol = before.symbol;
  graph->weights_file = before.weights_file;
  graph->mapping = before.mapping;
  graph->n_nodes = before.n_nodes;
  graph->n_inputs = before.n_inputs;
  graph->n_outputs = before.n_outputs;
  sfi_context_keep_error(graph->context, &diag->error);
  return st;
}
