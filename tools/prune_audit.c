/* What pruning changes. One program does it all: a copy of the graph in which the pruned layers are inputs, so that any of them may be dense
 * or pruned in a run, and in which their results are outputs. */
#include "prune.h"

#include <math.h>
#include <stdlib.h>

typedef struct audit {
  sf_context *context;
  const prune_plan *plan;
  int32_t *pruned;                       /* the layers that are pruned, by number */
  int32_t n_pruned, n_inputs, n_outputs; /* outputs: those of the layers, then the graph's */
  sf_program *program;
  sf_tensor *inputs;              /* the graph's and the layers', in the order of the copy's inputs */
  int32_t *input_of;              /* of a pruned layer, by its number among them: its place among the inputs */
  sf_tensor *outputs, *reference; /* reference: of the dense graph */
  sf_error *error;
} audit;

static sf_status out_of_memory(audit *a) {
  return tool_fail(a->error, SF_STATUS_OUT_OF_MEMORY, NULL, 0, 0, "out of memory");
}

static sf_status library_error(audit *a, sf_status status) {
  if (sf_context_take_error(a->context, a->error) == SF_OK) a->error->status = status;
  return status;
}

/* ---- the copy ----------------------------------------------------------------------------------------------------- */

static int32_t find_pruned(const audit *a, sf_value value, bool user) {
  for (int32_t i = 0; i < a->n_pruned; i++) {
    const prune_layer *layer = &a->plan->layers[a->pruned[i]];
    if ((user ? layer->user : layer->weight) == value) return i;
  }
  return -1;
}

/* An operation with all of its attributes. */
static sf_value copy_operation(const sf_graph *graph, sf_value v, const sf_value *copies, sf_graph *copy) {
  sf_attr attrs[32];
  sf_value operands[64];
  int32_t n_attrs = 0, n = sf_graph_operand_count(graph, v);
  if (n > 64) return SF_NO_VALUE;
  for (int32_t i = 0; i < n; i++) operands[i] = copies[sf_graph_operand(graph, v, i)];
#define SF_ATTR(id, value, text, type, def, doc)                                                                                   \
  if (n_attrs < 32 && sf_graph_value_attr(graph, v, SF_ATTR_##id, &attrs[n_attrs]) == SF_OK && attrs[n_attrs].count >= 0) n_attrs++;
#include <sparseflow/attrs.def>
#undef SF_ATTR
  return sf_graph_op(copy, sf_graph_value_op(graph, v), n, operands, n_attrs, attrs);
}

static sf_value copy_value(audit *a, const sf_graph *graph, sf_value v, const sf_value *copies, const sf_tensor *inputs,
                           sf_graph *copy) {
  sf_tensor_info info;
  sf_graph_value_info(graph, v, &info);
  const void *data = sf_graph_value_data(graph, v, NULL);
  int32_t layer = find_pruned(a, v, false);
  sf_tensor tensor = {.dtype = info.dtype, .rank = info.rank};
  memcpy(tensor.dims, info.dims, sizeof tensor.dims);
  char name[32];
  switch (sf_graph_value_op(graph, v)) {
  case SF_OP_INPUT:
    for (int32_t i = 0; i < sf_graph_input_count(graph); i++) {
      if (sf_graph_input_value(graph, i) == v) tensor = inputs[i];
    }
    a->inputs[a->n_inputs++] = tensor;
    return sf_graph_input(copy, info.name, info.dtype, info.rank, info.dims);
  case SF_OP_WEIGHT:
    if (layer < 0) return sf_graph_weight(copy, info.name, info.dtype, info.rank, info.dims, data, SF_BORROW);
    a->input_of[layer] = a->n_inputs;
    a->inputs[a->n_inputs++] = tensor;
    snprintf(name, sizeof name, "pruned layer %d", (int)layer);
    return sf_graph_input(copy, name, info.dtype, info.rank, info.dims);
  case SF_OP_CONSTANT:
    return sf_graph_constant(copy, info.dtype, info.rank, info.dims, data);
  default:
    return copy_operation(graph, v, copies, copy);
  }
}

static sf_status make_program(audit *a, const sf_graph *graph, const sf_tensor *inputs) {
  int32_t count = sf_graph_value_count(graph), n_outputs = sf_graph_output_count(graph);
  sf_value *copies = malloc((size_t)count * sizeof *copies + 1);
  sf_graph *copy = NULL;
  if (!copies) return out_of_memory(a);
  sf_status status = sf_graph_create(a->context, "audit", &copy);
  for (sf_value v = 0; v < count && status == SF_OK; v++) {
    copies[v] = copy_value(a, graph, v, copies, inputs, copy);
    if (copies[v] == SF_NO_VALUE) status = sf_graph_status(copy) == SF_OK ? SF_STATUS_UNSUPPORTED : sf_graph_status(copy);
  }
  for (int32_t i = 0; i < a->n_pruned && status == SF_OK; i++)
    status = sf_graph_output(copy, NULL, copies[a->plan->layers[a->pruned[i]].user]);
  for (int32_t i = 0; i < n_outputs && status == SF_OK; i++)
    status = sf_graph_output(copy, NULL, copies[sf_graph_output_value(graph, i)]);
  a->n_outputs = a->n_pruned + n_outputs;
  if (status == SF_OK) status = sf_compile(a->context, copy, NULL, &a->program, NULL);
  sf_graph_release(copy);
  free(copies);
  return status == SF_OK ? SF_OK : library_error(a, status);
}

/* ---- runs --------------------------------------------------------------------------------------------------------- */

static int64_t count_of(const sf_tensor *tensor) {
  int64_t count = 1;
  for (int32_t i = 0; i < tensor->rank; i++) count *= tensor->dims[i];
  return count;
}

static sf_status make_outputs(audit *a, int64_t symbol, sf_tensor *out) {
  for (int32_t i = 0; i < a->n_outputs; i++) {
    sf_tensor_info info;
    sf_status status = sf_program_output_shape(a->program, i, symbol, &info);
    if (status != SF_OK) return library_error(a, status);
    out[i] = (sf_tensor){.dtype = info.dtype, .rank = info.rank};
    memcpy(out[i].dims, info.dims, sizeof out[i].dims);
    if (!(out[i].data = malloc((size_t)count_of(&out[i]) * sizeof(float) + 1))) return out_of_memory(a);
  }
  return SF_OK;
}

/* Layers first <= i < end are pruned, the others dense. */
static sf_status run(audit *a, int32_t first, int32_t end, sf_tensor *outputs) {
  for (int32_t i = 0; i < a->n_pruned; i++) {
    const prune_layer *layer = &a->plan->layers[a->pruned[i]];
    a->inputs[a->input_of[i]].data = i >= first && i < end ? layer->pruned : (float *)layer->dense;
  }
  sf_status status = sf_run(a->program, a->n_inputs, a->inputs, a->n_outputs, outputs);
  return status == SF_OK ? SF_OK : library_error(a, status);
}

/* Largest difference, length of the difference over the length of what is right, cosine of the two. */
typedef struct difference {
  double most, relative, cosine;
} difference;

static difference compare(const sf_tensor *got, const sf_tensor *want, int32_t count) {
  double most = 0, error = 0, a2 = 0, b2 = 0, ab = 0;
  for (int32_t k = 0; k < count; k++) {
    const float *a = got[k].data, *b = want[k].data;
    for (int64_t i = 0; i < count_of(&want[k]); i++) {
      double x = (double)a[i], y = (double)b[i], d = fabs(x - y);
      if (!(d <= most)) most = d; /* a NaN shows */
      error += d * d;
      a2 += x * x;
      b2 += y * y;
      ab += x * y;
    }
  }
  return (difference){most, error == 0 ? 0 : sqrt(error / b2), a2 == 0 && b2 == 0 ? 1 : ab / sqrt(a2 * b2)};
}

static void print_difference(FILE *out, difference d) {
  fprintf(out, " %.3g | %.3g | %.6f |", d.most, d.relative, d.cosine);
}

static sf_status report(audit *a, FILE *out) {
  int32_t n = a->n_pruned, ends = a->n_outputs - n;
  fprintf(out,
          "\n| layer | its result, it alone pruned: max | relative | cosine | the end, it alone pruned: max | relative | cosine "
          "| the end, with all above: max | relative | cosine |\n|---|---|---|---|---|---|---|---|---|---|\n");
  sf_status status = run(a, 0, 0, a->reference);
  for (int32_t i = 0; i < n && status == SF_OK; i++) {
    if ((status = run(a, i, i + 1, a->outputs)) != SF_OK) break;
    fprintf(out, "| %s |", a->plan->layers[a->pruned[i]].name);
    print_difference(out, compare(&a->outputs[i], &a->reference[i], 1));
    print_difference(out, compare(a->outputs + n, a->reference + n, ends));
    if ((status = run(a, 0, i + 1, a->outputs)) != SF_OK) break;
    print_difference(out, compare(a->outputs + n, a->reference + n, ends));
    fputc('\n', out);
  }
  return status;
}

/* The extent that the inputs give to the symbolic dimension. */
static int64_t symbol_of(const sf_graph *graph, const sf_tensor *inputs) {
  for (int32_t i = 0; i < sf_graph_input_count(graph); i++) {
    sf_tensor_info info;
    sf_graph_value_info(graph, sf_graph_input_value(graph, i), &info);
    for (int32_t d = 0; d < info.rank && info.rank == inputs[i].rank; d++) {
      if (info.dims[d] == SF_DIM_SYMBOLIC) return inputs[i].dims[d];
    }
  }
  return 1;
}

static void free_outputs(sf_tensor *outputs, int32_t count) {
  for (int32_t i = 0; outputs && i < count; i++) free(outputs[i].data);
  free(outputs);
}

sf_status prune_audit(sf_context *context, const sf_graph *graph, const prune_plan *plan, const sf_tensor *inputs, FILE *out,
                      sf_error *error) {
  audit a = {.context = context, .plan = plan, .error = error};
  size_t most = (size_t)plan->count + (size_t)sf_graph_input_count(graph) + (size_t)sf_graph_output_count(graph);
  a.pruned = calloc(most, sizeof *a.pruned);
  a.input_of = calloc(most, sizeof *a.input_of);
  a.inputs = calloc(most, sizeof *a.inputs);
  a.outputs = calloc(most, sizeof *a.outputs);
  a.reference = calloc(most, sizeof *a.reference);
  sf_status status = SF_OK;
  if (!a.pruned || !a.input_of || !a.inputs || !a.outputs || !a.reference) status = out_of_memory(&a);
  for (int32_t i = 0; i < plan->count && status == SF_OK; i++) {
    if (plan->layers[i].pruned) a.pruned[a.n_pruned++] = i;
  }
  if (status == SF_OK) status = make_program(&a, graph, inputs);
  int64_t symbol = symbol_of(graph, inputs);
  if (status == SF_OK) status = make_outputs(&a, symbol, a.outputs);
  if (status == SF_OK) status = make_outputs(&a, symbol, a.reference);
  if (status == SF_OK) status = report(&a, out);
  sf_program_release(a.program);
  free_outputs(a.outputs, a.n_outputs);
  free_outputs(a.reference, a.n_outputs);
  free(a.pruned);
  free(a.input_of);
  free(a.inputs);
  return status;
}
