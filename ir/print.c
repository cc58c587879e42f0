/* Writes a graph in its canonical text form: header lines, one line a value in order of definition, then the outputs. Attributes
 * are left out where they have their default. Comments are never written, so that the text is a fixpoint of parse and print. */
#include "context.h"
#include "element.h"
#include "text_names.h"

typedef struct printer {
  const sf_graph *graph;
  sfi_text *out;
  sfi_names names;   /* of values */
  sfi_names tensors; /* of weights in their file */
} printer;

static void put(printer *p, const char *text) {
  sfi_text_add(p->out, text, strlen(text));
}

static void put_shape(printer *p, const sfi_node *node) {
  sfi_text_printf(p->out, " %s[", sfi_dtype_of(node->dtype)->text);
  for (int32_t i = 0; i < node->shape.rank; i++) {
    if (i) put(p, ", ");
    sfi_poly_print(p->out, node->shape.dims[i], p->graph->symbol);
  }
  put(p, "]");
}

static void put_data(printer *p, const sfi_node *node) {
  size_t bytes = sfi_dtype_of(node->dtype)->bytes;
  put(p, node->shape.rank ? " [" : " ");
  for (size_t i = 0; i < node->bytes / bytes && !p->out->failed; i++) {
    if (i) put(p, ", ");
    sfi_text_element(p->out, node->dtype, (const char *)node->data + i * bytes);
  }
  if (node->shape.rank) put(p, "]");
}

static void put_attr(printer *p, const sfi_attr_info *info, const sfi_attr_value *value) {
  size_t start = p->out->length;
  sfi_text_printf(p->out, " %s=", info->text);
  size_t value_start = p->out->length;
  switch (info->type) {
  case SFI_ATTR_INT:
    sfi_text_printf(p->out, "%lld", (long long)value->i);
    break;
  case SFI_ATTR_FLOAT:
    sfi_text_number(p->out, value->f);
    break;
  case SFI_ATTR_INTS:
    put(p, "[");
    for (int32_t i = 0; i < value->count; i++) sfi_text_printf(p->out, "%s%lld", i ? "," : "", (long long)value->ints[i]);
    put(p, "]");
    break;
  }
  if (p->out->failed || strcmp(p->out->data + value_start, info->def) != 0) return;
  p->out->length = start; /* the default: taken back */
  p->out->data[start] = 0;
}

static void put_operation(printer *p, const sfi_node *node, const sfi_op_info *op) {
  for (int32_t i = 0; i < node->n_inputs; i++) sfi_text_printf(p->out, "%s%%%s", i ? ", " : " ", p->names.names[node->inputs[i]]);
  const sfi_attr_value *value = node->attrs;
  for (int32_t id = 0; id < sfi_attr_count(); id++) {
    if (op->attrs & UINT32_C(1) << id) put_attr(p, sfi_attr_info_of((sf_attr_id)id), value++);
  }
}

static void put_value(printer *p, sf_value value) {
  const sfi_node *node = &p->graph->nodes[value];
  const sfi_op_info *op = sfi_op_of(node->op);
  sfi_text_printf(p->out, "%%%s = %s", p->names.names[value], op->text);
  const char *own_name = NULL; /* where it is not the value's */
  if (node->op == SF_OP_WEIGHT)
    own_name = p->tensors.names[value];
  else if (node->op == SF_OP_INPUT && strcmp(node->name, p->names.names[value]) != 0)
    own_name = node->name;
  if (own_name) {
    put(p, " ");
    sfi_text_quoted(p->out, own_name);
  }
  if (op->flags & SF_OPF_LEAF)
    put_shape(p, node);
  else
    put_operation(p, node, op);
  if (node->op == SF_OP_CONSTANT) put_data(p, node);
  put(p, "\n");
}

static void put_header(printer *p) {
  const sf_graph *graph = p->graph;
  if (strcmp(graph->name, "graph") != 0) {
    put(p, "graph ");
    if (sfi_is_name(graph->name, strlen(graph->name)))
      put(p, graph->name);
    else
      sfi_text_quoted(p->out, graph->name);
    put(p, "\n");
  }
  if (strcmp(graph->symbol, "batch") != 0) sfi_text_printf(p->out, "symbol %s\n", graph->symbol);
  if (graph->weights_file) {
    put(p, "weights ");
    sfi_text_quoted(p->out, graph->weights_file);
    put(p, "\n");
  }
}

void sfi_graph_print(const sf_graph *graph, sfi_text *out) {
  const sf_allocator *a = graph->arena.allocator;
  printer p = {.graph = graph, .out = out, .names.arena.allocator = a, .tensors.arena.allocator = a};
  if (!sfi_names_of_graph(&p.names, graph) || !sfi_names_of_tensors(&p.tensors, graph)) {
    out->failed = true;
  } else {
    put_header(&p);
    for (size_t i = 0; i < graph->n_nodes; i++) put_value(&p, (sf_value)i);
    for (size_t i = 0; i < graph->n_outputs; i++) {
      const sfi_output *output = &graph->outputs[i];
      const char *value = p.names.names[output->value];
      sfi_text_printf(out, "output %%%s", value);
      if (strcmp(output->name, value) != 0) {
        put(&p, " ");
        sfi_text_quoted(out, output->name);
      }
      put(&p, "\n");
    }
  }
  sfi_names_deinit(&p.tensors);
  sfi_names_deinit(&p.names);
}

sf_status sf_graph_print(const sf_graph *graph, sf_write_fn write, void *user) {
  if (!graph || !write) return SF_STATUS_INVALID_ARGUMENT;
  sfi_text text = {.allocator = graph->arena.allocator};
  sfi_graph_print(graph, &text);
  sfi_diag diag = {0};
  sf_status st = text.failed ? sfi_fail_memory(&diag) : SF_OK;
  if (st != SF_OK)
    sfi_context_keep_error(graph->context, &diag.error);
  else if (text.length)
    write(user, text.data, text.length);
  sfi_text_deinit(&text);
  return st;
}
