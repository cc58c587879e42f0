/* One node, or a whole graph, on the reference kernels. Requires a verified graph and tensors of its shapes at one symbol. */
#include "ref_kernel.h"

void sfi_ref_kernel(const sfi_ref_call *call) {
  static void (*const kernels[])(const sfi_ref_call *call) = {
#define SF_OP(id, value, text, min, max, attrs, infer, flags, doc) [SF_OP_##id] = sfi_ref_##infer,
#include <sparseflow/ops.def>
#undef SF_OP
  };
  kernels[call->node->op](call);
}

uint32_t sfi_ref_integers(const sf_graph *graph, const sfi_node *node) {
  uint32_t mask = 0;
  for (int32_t i = 0; i < node->n_inputs; i++)
    if (sfi_dtype_of(graph->nodes[node->inputs[i]].dtype)->flags & SF_DTYPEF_INTEGER) mask |= UINT32_C(1) << i;
  return mask;
}

void sfi_ref_node(const sf_graph *graph, sf_value node, const sf_tensor *inputs, const sf_tensor *output) {
  sfi_ref_call call = {.node = &graph->nodes[node], .inputs = inputs, .output = output};
  call.integer_mask = sfi_ref_integers(graph, call.node);
  for (int32_t i = 0; i < call.node->n_inputs; i++)
    if (sfi_is_static(graph, call.node->inputs[i])) call.static_mask |= UINT32_C(1) << i;
  sfi_ref_kernel(&call);
}

/* What a run knows of one value. */
typedef struct run_value {
  sf_tensor tensor;
  size_t bytes;
  bool owned;     /* else the tensor is the host's or the graph's */
  bool is_static; /* depends on no input: what constant folding would make of it */
} run_value;

static sf_status shape_of(const sf_graph *graph, sf_value v, int64_t symbol, sf_tensor *out, int64_t *out_count, sfi_diag *diag) {
  const sfi_node *node = &graph->nodes[v];
  int64_t count = 1;
  out->rank = node->shape.rank;
  for (int32_t d = 0; d < out->rank; d++)
    if (!sfi_poly_eval(node->shape.dims[d], symbol, &out->dims[d]) || !sfi_mul(count, out->dims[d], &count) ||
        count > INT64_MAX / 16)
      return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, &node->place, node->name, "too many elements at %s = %lld", graph->symbol,
                      (long long)symbol);
  *out_count = count;
  return SF_OK;
}

static sf_status run_node(const sf_graph *graph, const sf_allocator *allocator, sf_dtype precision, int64_t symbol, sf_value v,
                          run_value *values, sfi_diag *diag) {
  const sfi_node *node = &graph->nodes[v];
  run_value *out = &values[v];
  sf_tensor operands[SFI_REF_OPERANDS_MAX];
  sfi_ref_call call = {.node = node, .inputs = operands, .output = &out->tensor, .integer_mask = sfi_ref_integers(graph, node)};
  int64_t count = 0;
  sf_status st;
  if ((st = shape_of(graph, v, symbol, &out->tensor, &count, diag)) != SF_OK) return st;
  if (node->op == SF_OP_INPUT) return SF_OK; /* the host's tensor */
  out->is_static = true;
  if (sfi_node_is_static(node)) {
    out->tensor.data = (void *)(uintptr_t)sfi_node_open(node, diag);
    out->tensor.dtype = node->dtype;
    return out->tensor.data ? SF_OK : diag->error.status;
  }
  for (int32_t i = 0; i < node->n_inputs; i++) {
    const run_value *operand = &values[node->inputs[i]];
    operands[i] = operand->tensor;
    if (operand->is_static) call.static_mask |= UINT32_C(1) << i;
    out->is_static = out->is_static && operand->is_static;
  }
  out->tensor.dtype = node->dtype == SF_F32 ? precision : node->dtype;
  size_t bytes = (size_t)count * sfi_dtype_of(out->tensor.dtype)->bytes;
  if (!(out->tensor.data = sfi_alloc(allocator, bytes))) return sfi_fail_memory(diag);
  out->bytes = bytes;
  out->owned = true;
  sfi_ref_kernel(&call);
  return SF_OK;
}

sf_status sfi_ref_run(const sf_graph *graph, const sf_allocator *allocator, sf_dtype precision, int64_t symbol,
                      const sf_tensor *inputs, const sf_tensor *outputs, sfi_diag *diag) {
  run_value *values = sfi_calloc(allocator, graph->n_nodes, sizeof *values);
  sf_status st = SF_OK;
  if (!values) return sfi_fail_memory(diag);
  size_t n_inputs = 0;
  for (size_t v = 0; v < graph->n_nodes && st == SF_OK; v++) {
    if (graph->nodes[v].op == SF_OP_INPUT) values[v].tensor = inputs[n_inputs++];
    st = run_node(graph, allocator, precision, symbol, (sf_value)v, values, diag);
  }
  for (size_t i = 0; i < graph->n_outputs && st == SF_OK; i++)
    sfi_ref_reshape(&(sfi_ref_call){.inputs = &values[graph->outputs[i].value].tensor, .output = &outputs[i]});
  for (size_t v = 0; v < graph->n_nodes; v++)
    if (values[v].owned) sfi_free(allocator, values[v].tensor.data, values[v].bytes);
  sfi_free(allocator, values, graph->n_nodes * sizeof *values);
  return st;
}
