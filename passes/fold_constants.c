/* Evaluates operations whose operands are all static, by the reference back end.
 * Needs a verified graph. Preserves values: what an operation gives in fp32 is what is stored. A result made from constants alone is
 * a constant; one made from a weight is a weight named after it ("fc1.weight:transpose"), so that text stays small. Being static
 * then, its zeros are absent in a contraction as those of any weight.
 * Bounded: neither large growth of memory nor long evaluation is worth a fold; such operations stay, and kernels take what they give
 * for a run-time value. */
#include "rewrite.h"

enum {
  GROWTH = 4,            /* a result may be this many times its operands, */
  SMALL_BYTES = 1 << 20, /* or this large */
  WORK_MAX = 1 << 28     /* products in a contraction: about a second of the reference back end */
};

/* Multiplications behind one element of the result. */
static int64_t depth_of(const sf_graph *graph, const sfi_node *node) {
  const sfi_node *w = node->n_inputs > 1 ? &graph->nodes[node->inputs[1]] : NULL;
  if (node->op == SF_OP_ATTENTION || node->op == SF_OP_CONV_TRANSPOSE) return sfi_static_count(w); /* at most */
  if (node->op != SF_OP_MATMUL && node->op != SF_OP_CONV2D) return 1;
  if (node->op == SF_OP_MATMUL) return w->shape.dims[w->shape.rank - (sfi_attr_int(node, SF_ATTR_TRANSPOSE_B) ? 1 : 2)].c[0];
  return w->shape.dims[0].c[0] ? sfi_static_count(w) / w->shape.dims[0].c[0] : 0;
}

static bool worth_folding(const sf_graph *graph, const sfi_node *node, int64_t *out_count) {
  sfi_poly numel;
  int64_t operands = 0, work, bytes;
  if (node->n_inputs == 0 || node->dtype != SF_F32) return false;
  for (int32_t k = 0; k < node->n_inputs; k++) {
    if (!sfi_is_static(graph, node->inputs[k])) return false;
    operands += (int64_t)graph->nodes[node->inputs[k]].bytes;
  }
  if (!sfi_shape_numel(&node->shape, &numel) || !sfi_is_const(numel)) return false;
  *out_count = numel.c[0];
  return sfi_mul(*out_count, sizeof(float), &bytes) && (bytes <= SMALL_BYTES || bytes / GROWTH <= operands) &&
         sfi_mul(*out_count, depth_of(graph, node), &work) && work <= WORK_MAX;
}

static void describe(const sfi_node *node, const void *data, sf_tensor *out_tensor) {
  *out_tensor = (sf_tensor){.data = (void *)data, .dtype = node->dtype, .rank = node->shape.rank};
  for (int32_t d = 0; d < node->shape.rank; d++) out_tensor->dims[d] = node->shape.dims[d].c[0];
}

/* Has the result the elements of its operand, in their order? */
static bool only_reshapes(const sf_graph *graph, const sfi_node *node, int64_t count) {
  if (node->op == SF_OP_RESHAPE) return true;
  if (node->op != SF_OP_SLICE || sfi_static_count(&graph->nodes[node->inputs[0]]) != count) return false;
  const sfi_attr_value *steps = sfi_attr_of(node, SF_ATTR_STEPS);
  for (int32_t d = 0; d < steps->count; d++)
    if (steps->ints[d] != 1) return false;
  return true;
}

/* What another has, under another shape. */
static sf_value share(sfi_rewrite *rewrite, sf_value value) {
  const sfi_node node = rewrite->to->nodes[value];
  sfi_node model = rewrite->to->nodes[node.inputs[0]];
  const char *suffix = sfi_op_of(node.op)->text;
  model.place = node.place;
  return model.source ? sfi_rewrite_add_source(rewrite, &model, node.name, suffix, &node.shape, model.source)
                      : sfi_rewrite_add_static(rewrite, &model, node.name, suffix, &node.shape, model.data);
}

static sf_value fold(sfi_rewrite *rewrite, sf_value value, int64_t count) {
  const sf_graph *to = rewrite->to;
  const sfi_node node = to->nodes[value];
  sfi_node model = to->nodes[node.inputs[0]];
  sf_tensor inputs[SFI_INPUTS_MAX], output;
  float *data = sfi_rewrite_data(rewrite, count);
  if (!data) return SF_NO_VALUE;
  int32_t opened = 0;
  for (; opened < node.n_inputs; opened++) {
    const sfi_node *operand = &to->nodes[node.inputs[opened]];
    const void *elements = sfi_node_open(operand, &rewrite->to->diag);
    if (!elements) break;
    describe(operand, elements, &inputs[opened]);
    if (model.op != SF_OP_WEIGHT && operand->op == SF_OP_WEIGHT) model = *operand;
  }
  describe(&node, data, &output);
  const bool all = opened == node.n_inputs;
  if (all) rewrite->env->evaluate(to, value, inputs, &output);
  while (opened > 0) sfi_node_close(&to->nodes[node.inputs[--opened]]);
  if (!all) return SF_NO_VALUE;
  model.place = node.place;
  return sfi_rewrite_add_static(rewrite, &model, node.name, sfi_op_of(node.op)->text, &node.shape, data);
}

sf_status sfi_fold_constants(sfi_pass_env *env, const sf_graph *graph, sf_graph **out_graph) {
  sfi_rewrite rewrite;
  *out_graph = NULL;
  if (!sfi_rewrite_begin(&rewrite, env, graph)) return SF_STATUS_OUT_OF_MEMORY;
  for (size_t i = 0; i < graph->n_nodes && !sfi_rewrite_failed(&rewrite); i++) {
    sf_value copy = sfi_rewrite_copy(&rewrite, (sf_value)i);
    int64_t count;
    if (copy == SF_NO_VALUE || !worth_folding(rewrite.to, &rewrite.to->nodes[copy], &count)) continue;
    rewrite.map[i] =
        only_reshapes(rewrite.to, &rewrite.to->nodes[copy], count) ? share(&rewrite, copy) : fold(&rewrite, copy, count);
  }
  return sfi_rewrite_end(&rewrite, SF_OK, out_graph);
}
