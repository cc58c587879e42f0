/* What pruning changes. One program does it all: a copy of the graph in which whatever takes a pruned layer stands twice, with the dense
 * weight and with the pruned one, a number among the inputs says which of the two goes on, and the layers' results are outputs. So weights
 * are constants, as they are in use: products and convolutions with them have fast kernels, which those with weights among the inputs
 * mostly have not. */
#include "prune.h"

#include <math.h>
#include <stdlib.h>

/* The two ways of a layer. */
enum { DENSE, PRUNED, WAYS };

/* A pruned layer in the copy. */
typedef struct audit_layer {
  const prune_layer *layer;
  sf_value weight[WAYS], way; /* way: the input that is 0 for the dense weight and 1 for the pruned one */
} audit_layer;

typedef struct audit {
  sf_context *context;
  audit_layer *layers;
  int32_t n_layers, n_inputs, n_outputs; /* outputs: those of the layers, then the graph's */
  sf_program *program;
  sf_tensor *inputs;              /* the layers' ways, then the graph's inputs */
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

static const audit_layer *find_layer(const audit *a, sf_value weight) {
  for (int32_t i = 0; i < a->n_layers; i++) {
    if (a->layers[i].layer->weight == weight) return &a->layers[i];
  }
  return NULL;
}

static sf_value choose(const audit_layer *layer, const sf_value of[WAYS], sf_graph *copy) {
  return sf_graph_op(copy, SF_OP_WHERE, 3, (const sf_value[]){layer->way, of[PRUNED], of[DENSE]}, 0, NULL);
}

/* An operation of the graph with what it needs in the copy. */
typedef struct operation {
  sf_value value;
  int32_t n_operands, n_attrs;
  sf_value operands[64];
  sf_attr attrs[32];
} operation;

/* The operation in the copy, in both ways of each layer among its operands from the i-th on. */
static sf_value both_ways(const audit *a, const sf_graph *graph, operation *o, int32_t i, sf_graph *copy) {
  const audit_layer *layer = NULL;
  while (i < o->n_operands && !(layer = find_layer(a, sf_graph_operand(graph, o->value, i)))) i++;
  if (!layer) return sf_graph_op(copy, sf_graph_value_op(graph, o->value), o->n_operands, o->operands, o->n_attrs, o->attrs);
  sf_value of[WAYS];
  for (int way = 0; way < WAYS; way++) {
    o->operands[i] = layer->weight[way];
    of[way] = both_ways(a, graph, o, i + 1, copy);
  }
  return choose(layer, of, copy);
}

static sf_value copy_operation(const audit *a, const sf_graph *graph, sf_value v, const sf_value *copies, sf_graph *copy) {
  operation o = {.value = v, .n_operands = sf_graph_operand_count(graph, v)};
  if (o.n_operands > 64) return SF_NO_VALUE;
  for (int32_t i = 0; i < o.n_operands; i++) o.operands[i] = copies[sf_graph_operand(graph, v, i)];
#define SF_ATTR(id, value, text, type, def, doc)                                                                                   \
  if (o.n_attrs < 32 && sf_graph_value_attr(graph, v, SF_ATTR_##id, &o.attrs[o.n_attrs]) == SF_OK &&                               \
      o.attrs[o.n_attrs].count >= 0)                                                                                               \
    o.n_attrs++;
#include <sparseflow/attrs.def>
#undef SF_ATTR
  return both_ways(a, graph, &o, 0, copy);
}

static sf_value copy_value(audit *a, const sf_graph *graph, sf_value v, const sf_value *copies, sf_graph *copy) {
  sf_tensor_info info;
  sf_graph_value_info(graph, v, &info);
  const void *data = sf_graph_value_data(graph, v, NULL);
  const audit_layer *layer = find_layer(a, v);
  switch (sf_graph_value_op(graph, v)) {
  case SF_OP_INPUT:
    return sf_graph_input(copy, info.name, info.dtype, info.rank, info.dims);
  case SF_OP_WEIGHT: /* a layer's is made already; the choice between its two is for outputs, what takes it does so in both ways */
    if (layer) return choose(layer, layer->weight, copy);
    return sf_graph_weight(copy, info.name, info.dtype, info.rank, info.dims, data, SF_BORROW);
  case SF_OP_CONSTANT:
    return sf_graph_constant(copy, info.dtype, info.rank, info.dims, data);
  default:
    return copy_operation(a, graph, v, copies, copy);
  }
}

/* The k-th layer's two weights and the input that chooses. */
static sf_status add_layer(audit *a, const sf_graph *graph, int32_t k, sf_graph *copy) {
  audit_layer *l = &a->layers[k];
  sf_tensor_info info;
  sf_graph_value_info(graph, l->layer->weight, &info);
  const float *data[WAYS] = {l->layer->dense, l->layer->pruned};
  char name[48];
  for (int way = 0; way < WAYS; way++) {
    snprintf(name, sizeof name, "layer %d, %s", (int)k, way == PRUNED ? "pruned" : "dense");
    l->weight[way] = sf_graph_weight(copy, name, info.dtype, info.rank, info.dims, data[way], SF_BORROW);
  }
  snprintf(name, sizeof name, "way of layer %d", (int)k);
  l->way = sf_graph_input(copy, name, SF_F32, 0, NULL);
  a->inputs[a->n_inputs++] = (sf_tensor){.dtype = SF_F32};
  return sf_graph_status(copy);
}

static sf_status make_program(audit *a, const sf_graph *graph, const sf_tensor *inputs) {
  int32_t count = sf_graph_value_count(graph), n_outputs = sf_graph_output_count(graph);
  sf_value *copies = malloc((size_t)count * sizeof *copies + 1);
  sf_graph *copy = NULL;
  if (!copies) return out_of_memory(a);
  sf_status status = sf_graph_create(a->context, "audit", &copy);
  for (int32_t i = 0; i < a->n_layers && status == SF_OK; i++) status = add_layer(a, graph, i, copy);
  for (int32_t i = 0; i < sf_graph_input_count(graph); i++) a->inputs[a->n_inputs++] = inputs[i];
  for (sf_value v = 0; v < count && status == SF_OK; v++) {
    copies[v] = copy_value(a, graph, v, copies, copy);
    if (copies[v] == SF_NO_VALUE) status = sf_graph_status(copy) == SF_OK ? SF_STATUS_UNSUPPORTED : sf_graph_status(copy);
  }
  for (int32_t i = 0; i < a->n_layers && status == SF_OK; i++)
    status = sf_graph_output(copy, NULL, copies[a->layers[i].layer->user]);
  for (int32_t i = 0; i < n_outputs && status == SF_OK; i++)
    status = sf_graph_output(copy, NULL, copies[sf_graph_output_value(graph, i)]);
  a->n_outputs = a->n_layers + n_outputs;
  sf_compile_options options;
  SF_INIT(&options);
  options.classes = (const int64_t[]){0}; /* n_classes is 0: one for all extents */
  if (status == SF_OK) status = sf_compile(a->context, copy, &options, &a->program, NULL);
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
  static const float ways[WAYS] = {[DENSE] = 0, [PRUNED] = 1};
  for (int32_t i = 0; i < a->n_layers; i++) a->inputs[i].data = (float *)&ways[i >= first && i < end ? PRUNED : DENSE];
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
  int32_t n = a->n_layers, ends = a->n_outputs - n;
  fprintf(out,
          "\n| layer | its result, it alone pruned: max | relative | cosine | the end, it alone pruned: max | relative | cosine "
          "| the end, with all above: max | relative | cosine |\n|---|---|---|---|---|---|---|---|---|---|\n");
  sf_status status = run(a, 0, 0, a->reference);
  for (int32_t i = 0; i < n && status == SF_OK; i++) {
    if ((status = run(a, i, i + 1, a->outputs)) != SF_OK) break;
    fprintf(out, "| %s |", a->layers[i].layer->name);
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
  audit a = {.context = context, .error = error};
  size_t most = (size_t)plan->count + (size_t)sf_graph_input_count(graph) + (size_t)sf_graph_output_count(graph);
  a.layers = calloc(most, sizeof *a.layers);
  a.inputs = calloc(most, sizeof *a.inputs);
  a.outputs = calloc(most, sizeof *a.outputs);
  a.reference = calloc(most, sizeof *a.reference);
  sf_status status = SF_OK;
  if (!a.layers || !a.inputs || !a.outputs || !a.reference) status = out_of_memory(&a);
  for (int32_t i = 0; i < plan->count && status == SF_OK; i++) {
    if (plan->layers[i].pruned) a.layers[a.n_layers++].layer = &plan->layers[i];
  }
  if (status == SF_OK) status = make_program(&a, graph, inputs);
  int64_t symbol = symbol_of(graph, inputs);
  if (status == SF_OK) status = make_outputs(&a, symbol, a.outputs);
  if (status == SF_OK) status = make_outputs(&a, symbol, a.reference);
  if (status == SF_OK) status = report(&a, out);
  sf_program_release(a.program);
  free_outputs(a.outputs, a.n_outputs);
  free_outputs(a.reference, a.n_outputs);
  free(a.layers);
  free(a.inputs);
  return status;
}
