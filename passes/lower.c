/* Graph to kernels: one kernel an operation where it needs one, layouts chosen, conversions inserted.
 * Requires a verified graph with its constants folded: a zero of a static operand is absent, and static is what has data. Operations
 * that no output needs make nothing. Keeps every value up to the order of sums.
 *
 * A matrix product with a static matrix on the right wants its activations in panels, and everything behind it stays in panels as long
 * as it can: elementwise operations, softmax, layer norm and reductions over the last dimension. Images stay in rows. */
#include "lower.h"

typedef void (*lower_fn)(sfi_lowering *l, sf_value v);

void sfi_low_leaf(sfi_lowering *l, sf_value v) {
  const sfi_node *node = &l->graph->nodes[v];
  const sfi_shape *shape = &l->values[v].shape;
  sfi_buffer buffer = {.kind = sfi_node_is_static(node) ? SFI_BUFFER_STATIC : SFI_BUFFER_INPUT, .value = v, .dtype = node->dtype};
  buffer.columns = sfi_low_product(l, shape->dims, shape->rank);
  buffer.features = sfi_const(1);
  if (!sfi_node_is_static(node)) {
    while (l->graph->inputs[buffer.index] != v) buffer.index++;
  }
  sfi_low_set_row(l, v, sfi_low_buffer(l, &buffer), NULL);
}

void sfi_low_node(sfi_lowering *l, sf_value v) {
  const sfi_node *node = &l->graph->nodes[v];
  sfi_kernel kernel = sfi_low_kernel(l, SFI_ANCHOR_NODE);
  kernel.n_operands = 1 + node->n_inputs;
  for (int32_t i = 0; i < node->n_inputs; i++) kernel.operand[1 + i].buffer = sfi_low_dense(l, node->inputs[i]).buffer;
  kernel.operand[0].buffer = sfi_low_temp(l, v, &l->values[v].shape, false);
  sfi_low_set_row(l, v, kernel.operand[0].buffer, NULL);
  sfi_low_push(l, &kernel);
}

static const lower_fn lower_of[] = {
#define SF_OP(id, value, text, min, max, attrs, infer, flags, doc) [SF_OP_##id] = sfi_low_##infer,
#include <sparseflow/ops.def>
#undef SF_OP
};

/* Extents in this class: a symbol with one possible value is that value. */
static bool locate(sfi_lowering *l) {
  const sfi_plan *plan = l->plan;
  l->values = sfi_arena_alloc(&l->plan->arena, l->graph->n_nodes * sizeof *l->values);
  if (!l->values) return false;
  for (size_t v = 0; v < l->graph->n_nodes; v++) {
    sfi_located *value = &l->values[v];
    value->shape = l->graph->nodes[v].shape;
    value->row.buffer = value->panel = SFI_NO_BUFFER;
    if (plan->symbol_min != plan->symbol_max) continue;
    for (int32_t d = 0; d < value->shape.rank; d++) {
      int64_t extent;
      if (sfi_poly_eval(value->shape.dims[d], plan->symbol_min, &extent)) value->shape.dims[d] = sfi_const(extent);
    }
  }
  return true;
}

/* Integers that are moved stay dense rows, which the reference back end writes: kernels move fp32 only. Dense rows under other extents
 * are a view. */
static lower_fn lower_of_node(const sfi_node *node) {
  const bool moved = node->n_inputs > 0 && node->dtype != SF_F32 && node->op != SF_OP_RESHAPE;
  return moved ? sfi_low_node : lower_of[node->op];
}

static void mark_live(sfi_lowering *l) {
  const sf_graph *graph = l->graph;
  for (size_t i = 0; i < graph->n_outputs; i++) {
    l->values[graph->outputs[i].value].live = true;
    l->values[graph->outputs[i].value].result = true;
    l->values[graph->outputs[i].value].uses++;
  }
  for (size_t v = graph->n_nodes; v-- > 0;) {
    const sfi_node *node = &graph->nodes[v];
    if (!l->values[v].live) continue;
    if (node->op == SF_OP_RESHAPE && l->values[v].result) l->values[node->inputs[0]].result = true;
    for (int32_t i = 0; i < node->n_inputs; i++) {
      l->values[node->inputs[i]].live = true;
      l->values[node->inputs[i]].uses++;
      l->values[node->inputs[i]].maps += (sfi_op_of(node->op)->flags & SF_OPF_ELEMENTWISE) != 0;
    }
  }
}

/* One panel width for the plan: four vectors of columns where there may be many, so that each weight loaded serves four; a single
 * vector where the class is small and most of a wide panel would be empty. */
static int64_t choose_panel(sfi_lowering *l) {
  int64_t columns = 0;
  int32_t operand;
  sfi_matrix matrix;
  for (size_t v = 0; v < l->graph->n_nodes; v++) {
    const sfi_shape *shape = &l->values[v].shape;
    if (!l->values[v].live || !sfi_weight_matrix(l->graph, (sf_value)v, &operand, &matrix)) continue;
    if (l->graph->nodes[v].op != SF_OP_MATMUL || operand != 1) continue;
    l->node = (sf_value)v;
    columns = sfi_max(columns, sfi_low_bound(l, sfi_low_product(l, shape->dims, shape->rank - 1)));
  }
  return l->plan->target->lanes == 16 && columns > 16 ? 64 : 16;
}

static void store_output(sfi_lowering *l, int32_t index) {
  const sf_value v = l->graph->outputs[index].value;
  const sfi_shape *shape = &l->values[v].shape;
  sfi_buffer buffer = {.kind = SFI_BUFFER_OUTPUT, .index = index, .value = v, .dtype = l->graph->nodes[v].dtype};
  buffer.columns = sfi_low_product(l, shape->dims, shape->rank);
  buffer.features = sfi_const(1);
  sfi_view to = {.buffer = sfi_low_buffer(l, &buffer)};
  sfi_low_dense_strides(l, shape, to.stride);
  l->node = v;
  sfi_low_store(l, v, &to);
}

/* Room for a kernel an operation, which most need: kernels are large, and the arena keeps what is outgrown. */
static bool reserve(sfi_lowering *l) {
  sfi_plan *plan = l->plan;
  for (size_t v = 0; v < l->graph->n_nodes; v++) plan->kernels_capacity += l->values[v].live && l->graph->nodes[v].n_inputs > 0;
  plan->kernels = sfi_arena_alloc(&plan->arena, plan->kernels_capacity * sizeof *plan->kernels);
  return plan->kernels;
}

sf_status sfi_lower_to_kernels(sfi_pass_env *env, sfi_plan *plan) {
  sfi_lowering l = {.env = env, .plan = plan, .graph = plan->graph};
  if (!locate(&l)) return sfi_fail_memory(env->diag);
  mark_live(&l);
  if (!reserve(&l)) return sfi_fail_memory(env->diag);
  l.panel = choose_panel(&l);
  for (size_t v = 0; v < l.graph->n_nodes && l.status == SF_OK; v++) {
    l.node = (sf_value)v;
    if (l.values[v].live) lower_of_node (&l.graph->nodes[v])(&l, (sf_value)v);
  }
  for (size_t i = 0; i < l.graph->n_outputs && l.status == SF_OK; i++) store_output(&l, (int32_t)i);
  if (l.status == SF_OK && !sfi_name_kernels(plan)) return sfi_fail_memory(env->diag);
  return l.status;
}
