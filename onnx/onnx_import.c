/* From a model's bytes to a graph: operator sets, dimensions, inputs and initialisers, then the nodes in their order, then the outputs. A
 * node that is refused leaves its results unknown; what needs them is passed over, so that one run reports everything that is refused. */
#include "onnx_import.h"

#include "text_names.h"

#include <stdio.h>

enum { OPSET_FIRST = 13, OPSET_LAST = 21, NODES_MAX = 1 << 20 };

/* An error goes to the caller's report, the first one is kept, and the import goes on. False: it cannot, memory is out. */
static bool recover(importer *im) {
  sf_error *error = &im->diag.error;
  if (im->first.status == SF_OK) im->first = *error;
  if (im->options->report) im->options->report(im->options->report_user, error);
  bool memory = error->status == SF_STATUS_OUT_OF_MEMORY;
  im->diag = (sfi_diag){0};
  im->graph->diag = (sfi_diag){0}; /* a node that was refused is not in it */
  return !memory;
}

/* ---- what the model says of itself -------------------------------------------------------------------------------- */

static bool find_opset(importer *im) {
  const onnx_model *model = &im->model;
  for (size_t i = 0; i < model->operator_sets.count; i++) {
    const onnx_operator_set *set = &ONNX_AT(model->operator_sets, onnx_operator_set, i);
    if (!set->domain[0] || strcmp(set->domain, "ai.onnx") == 0) im->opset = set->version;
  }
  if (!im->opset) return sfi_onnx_fail(im, SF_STATUS_MALFORMED_FILE, "the model names no version of ONNX's operators");
  if (im->opset < OPSET_FIRST || im->opset > OPSET_LAST) {
    return UNSUPPORTED(im, "operator set %lld: %d to %d are read", (long long)im->opset, OPSET_FIRST, OPSET_LAST);
  }
  if (model->sparse_initializers) return UNSUPPORTED(im, "sparse initialisers");
  return true;
}

/* Room for every name, half empty. */
static bool make_table(importer *im) {
  const onnx_model *model = &im->model;
  size_t names = model->initializers.count + model->inputs.count;
  if (model->nodes.count > NODES_MAX) return UNSUPPORTED(im, "%zu nodes are more than %d", model->nodes.count, NODES_MAX);
  for (size_t i = 0; i < model->nodes.count; i++) names += ONNX_AT(model->nodes, onnx_node, i).outputs.count;
  for (im->slots = 16; im->slots < 2 * names; im->slots *= 2) continue;
  im->values = sfi_calloc(im->arena.allocator, im->slots, sizeof *im->values);
  return im->values || sfi_onnx_fail_memory(im);
}

/* ---- inputs ------------------------------------------------------------------------------------------------------- */

/* The extent of a dimension: a number, one that the caller gives to its name, or the symbolic dimension. */
static bool read_extent(importer *im, const onnx_value_info *info, size_t i, int64_t *out) {
  const onnx_dimension *dimension = &ONNX_AT(info->dims, onnx_dimension, i);
  char unnamed[300];
  const char *name = dimension->param;
  if (dimension->has_value && !name[0]) {
    *out = dimension->value;
    if (dimension->value >= 0) return true;
    return INVALID(im, "input \"%s\": extent %lld", info->name, (long long)dimension->value);
  }
  if (!name[0]) {
    snprintf(unnamed, sizeof unnamed, "%.250s:%zu", info->name, i);
    name = unnamed;
  }
  for (int32_t k = 0; k < im->options->n_dims; k++) {
    const sf_onnx_dim *given = &im->options->dims[k];
    if (strcmp(given->name, name) == 0) {
      *out = given->extent;
      return true;
    }
  }
  if (!im->symbol) {
    im->symbol = name == unnamed ? sfi_arena_strndup(&im->arena, name, strlen(name)) : name;
    if (!im->symbol) return sfi_onnx_fail_memory(im);
  }
  *out = SF_DIM_SYMBOLIC;
  if (strcmp(im->symbol, name) == 0) return true;
  return UNSUPPORTED(im, "input \"%s\": dimension \"%s\" is free beside \"%s\", and a graph has one: give the extent of all others",
                     info->name, name, im->symbol);
}

static bool dtype_of(importer *im, const char *name, int32_t type, sf_dtype *out) {
  switch (type) {
  case ONNX_FLOAT:
    *out = SF_F32;
    return true;
  case ONNX_INT64:
    *out = SF_I64;
    return true;
  case ONNX_INT32:
    *out = SF_I32;
    return true;
  default:
    return UNSUPPORTED(im, "input \"%s\": elements of ONNX type %d", name, type);
  }
}

static bool read_input(importer *im, const onnx_value_info *info) {
  if (sfi_onnx_find(im, info->name)) return true; /* an initialiser that the caller might replace: it stays as it is */
  onnx_value *value = sfi_onnx_define(im, info->name);
  sfi_shape shape = {.rank = (int32_t)info->dims.count};
  sf_dtype dtype = SF_F32;
  if (!value || !dtype_of(im, info->name, info->type, &dtype)) return false;
  if (!info->has_shape) return UNSUPPORTED(im, "input \"%s\" has no shape", info->name);
  if (info->dims.count > SF_MAX_RANK) {
    return UNSUPPORTED(im, "input \"%s\": %zu dimensions are more than %d", info->name, info->dims.count, SF_MAX_RANK);
  }
  for (int32_t i = 0; i < shape.rank; i++) {
    int64_t extent = 0;
    if (!read_extent(im, info, (size_t)i, &extent)) return false;
    shape.dims[i] = extent == SF_DIM_SYMBOLIC ? (sfi_poly){{0, 1, 0}} : sfi_const(extent);
  }
  sfi_place place = {.file = im->file};
  value->value = sfi_graph_add_leaf(im->graph, SF_OP_INPUT, info->name, dtype, &shape, NULL, false, &place);
  if (value->value == SF_NO_VALUE) {
    return sfi_onnx_fail(im, im->graph->diag.error.status, "input \"%.100s\": %s", info->name, im->graph->diag.error.message);
  }
  value->kind = VALUE_GRAPH;
  value->type = (onnx_type)info->type;
  value->shape = shape;
  return true;
}

static bool read_initializer(importer *im, const onnx_tensor *tensor) {
  onnx_value *value = sfi_onnx_define(im, tensor->name);
  return value && sfi_onnx_tensor(im, tensor, value);
}

static bool name_symbol(importer *im) {
  if (!im->symbol) return true;
  char *name = sfi_arena_strndup(&im->graph->arena, im->symbol, strlen(im->symbol));
  if (!name) return sfi_onnx_fail_memory(im);
  for (char *c = name; *c; c++) {
    if (!sfi_is_name(c, 1)) *c = '_';
  }
  if (name[0] && !(name[0] >= '0' && name[0] <= '9')) im->graph->symbol = name;
  return true;
}

/* ---- nodes -------------------------------------------------------------------------------------------------------- */

static const onnx_operator operators[] = {
#define ONNX_OP(name, import, arg, min, max, attributes, doc) {#name, sfi_import_##import, arg, min, max, " " attributes " ", doc},
#include "onnx_operators.def"
#undef ONNX_OP
};

const onnx_operator *sfi_onnx_operator_named(const char *name) {
  for (size_t i = 0; i < SFI_COUNT(operators); i++) {
    if (strcmp(operators[i].name, name) == 0) return &operators[i];
  }
  return NULL;
}

void sfi_onnx_list_operators(sfi_text *out) {
  for (size_t i = 0; i < SFI_COUNT(operators); i++) sfi_text_printf(out, "| %s | %s |\n", operators[i].name, operators[i].doc);
}

/* An attribute that is not understood might change what the node means. */
static bool check_attributes(importer *im) {
  for (size_t i = 0; i < im->node->attributes.count; i++) {
    const char *name = ONNX_AT(im->node->attributes, onnx_attribute, i).name;
    char word[72];
    if (snprintf(word, sizeof word, " %s ", name) < (int)sizeof word && strstr(im->operator->attributes, word)) continue;
    return UNSUPPORTED(im, "attribute '%.60s'", name);
  }
  return true;
}

/* Binds the operands. False: an error; *out_known false: one of them is unknown. */
static bool bind(importer *im, bool *out_known) {
  const onnx_node *node = im->node;
  *out_known = true;
  im->n_in = 0;
  for (size_t i = 0; i < node->inputs.count; i++) {
    const char *name = ONNX_AT(node->inputs, const char *, i);
    if (i == ONNX_INPUTS_MAX) return UNSUPPORTED(im, "%zu operands", node->inputs.count);
    im->in[i] = NULL;
    if (name[0] && !(im->in[i] = sfi_onnx_find(im, name))) {
      return INVALID(im, "operand \"%s\" is made by nothing before it: a cycle, or nodes out of order", name);
    }
    if (im->in[i] && im->in[i]->kind == VALUE_UNKNOWN) *out_known = false;
    im->n_in = (int32_t)i + 1;
  }
  while (im->n_in > 0 && !im->in[im->n_in - 1]) im->n_in--;
  return true;
}

static bool import_node(importer *im) {
  const onnx_node *node = im->node;
  bool known, good;
  im->n_out = (int32_t)node->outputs.count;
  good = bind(im, &known);
  /* The results are named after the operands are found, so that no node is its own operand. */
  for (int32_t i = 0; i < im->n_out; i++) {
    const char *name = ONNX_AT(node->outputs, const char *, i);
    if (name[0] && !sfi_onnx_define(im, name)) return false;
  }
  im->operator= sfi_onnx_operator_named(node->op_type);
  if (node->domain[0] && strcmp(node->domain, "ai.onnx") != 0) {
    return UNSUPPORTED(im, "no operator of domain \"%.60s\" is known", node->domain);
  }
  if (!im->operator) return UNSUPPORTED(im, "the operator is not known");
  if (!good || !known) return good;
  if (!check_attributes(im)) return false;
  if (im->n_in < im->operator->min_in || im->n_in> im->operator->max_in) {
    return INVALID(im, "%d operands, not %d to %d", im->n_in, im->operator->min_in, im->operator->max_in);
  }
  for (int32_t i = 0; i < im->operator->min_in; i++) {
    if (!im->in[i]) return INVALID(im, "operand %d is left out", i);
  }
  im->arg = im->operator->arg;
  return im->operator->import(im);
}

static bool import_nodes(importer *im) {
  for (size_t i = 0; i < im->model.nodes.count; i++) {
    im->node = &ONNX_AT(im->model.nodes, onnx_node, i);
    im->number = i + 1;
    if (!import_node(im) && !recover(im)) return false;
  }
  im->node = NULL;
  im->number = 0;
  return true;
}

/* ---- outputs ------------------------------------------------------------------------------------------------------ */

static bool import_output(importer *im, const onnx_value_info *info) {
  onnx_value *value = sfi_onnx_find(im, info->name);
  sf_value result;
  if (!value) return INVALID(im, "output \"%s\" is made by no node", info->name);
  if (value->kind == VALUE_UNKNOWN) return true;
  im->in[0] = value;
  im->n_in = 1;
  if (!sfi_onnx_operand(im, 0, true, &result)) return false;
  sfi_place place = {.file = im->file};
  if (sfi_graph_add_output(im->graph, info->name, result, &place) == SF_OK) return true;
  return sfi_onnx_fail(im, im->graph->diag.error.status, "output \"%.100s\": %s", info->name, im->graph->diag.error.message);
}

#define EACH(im, list, type, function)                                                                                             \
  for (size_t i = 0; i < (im)->model.list.count; i++) {                                                                            \
    if (!function(im, &ONNX_AT((im)->model.list, type, i)) && !recover(im)) return;                                                \
  }

static void import_model(importer *im) {
  if (!find_opset(im) || !make_table(im)) return;
  EACH(im, initializers, onnx_tensor, read_initializer);
  EACH(im, inputs, onnx_value_info, read_input);
  if (!name_symbol(im) || !import_nodes(im)) return;
  EACH(im, outputs, onnx_value_info, import_output);
}

sf_status sfi_onnx_import(sf_graph *graph, const void *data, size_t size, const char *file, const char *folder,
                          const sfi_onnx_options *options, sfi_diag *diag) {
  const sf_allocator *a = &graph->context->allocator;
  importer *im = sfi_calloc(a, 1, sizeof *im);
  if (!im) return sfi_fail_memory(diag);
  *im = (importer){.context = graph->context, .options = options, .graph = graph, .file = file, .folder = folder};
  im->arena.allocator = a;
  graph->quiet = true;
  if (sfi_onnx_read(&im->arena, data, size, file, &im->diag, &im->model) == SF_OK) import_model(im);
  if (im->diag.error.status != SF_OK) recover(im);
  diag->error = im->first;
  graph->quiet = false;
  sfi_free(a, im->values, im->slots * sizeof *im->values);
  sfi_arena_deinit(&im->arena);
  sfi_free(a, im, sizeof *im);
  return diag->error.status;
}
