/* Operations along dimensions: softmax, norms, reductions, pools. Along the last dimension of a value in panels they stay in
 * panels, where vectors run across columns. */
#include "lower.h"

static int32_t axis_of(const sfi_node *node, int32_t rank) {
  const int64_t axis = sfi_attr_int(node, SF_ATTR_AXIS);
  return (int32_t)(axis < 0 ? axis + rank : axis);
}

/* A run's results are rows: the copy from panels may as well come before softmax or norm where a row is long enough to be read along, as
 * rows make more tiles. */
static bool is_long(const sfi_lowering *l, sfi_poly line) {
  enum { VECTORS = 16 };
  return sfi_is_const(line) && line.c[0] >= (int64_t)VECTORS * l->plan->target->lanes;
}

/* SOFTMAX or NORMALIZE of input 0 along its dimensions [axis, end): the space, operands 0 and 1, `pre`, and where the output is. */
static void along_axis(sfi_lowering *l, sf_value v, int32_t axis, int32_t end, sfi_kernel *kernel, sfi_grouping *grouping,
                       bool *panels) {
  const sf_value x = l->graph->nodes[v].inputs[0];
  sfi_located *from = &l->values[x], *to = &l->values[v];
  const sfi_shape *shape = &from->shape;
  kernel->n_operands = 2;
  sfi_low_load(&kernel->pre, 1);
  *panels = sfi_low_in_panels_only(from) && axis == shape->rank - 1 && !(to->result && is_long(l, shape->dims[axis]));
  if (*panels) {
    sfi_low_panel_space(l, kernel, shape);
    kernel->operand[0] = sfi_low_set_panel(l, v);
    kernel->operand[1] = sfi_low_panel(l, x);
    kernel->axis = 1;
    sfi_low_tile(l, kernel, 1);
    return;
  }
  sfi_view view = sfi_low_row(l, x);
  sfi_poly step;
  if (!sfi_low_merge(l, shape, view.stride, axis, end, &step)) view = sfi_low_densify(l, shape, &view);
  const sfi_view *const views[] = {&view};
  sfi_low_group(l, shape, views, 1, 0, axis, grouping);
  kernel->axis = grouping->n;
  grouping->start[grouping->n++] = axis;
  grouping->start[grouping->n] = end;
  if (end < shape->rank) sfi_low_group(l, shape, views, 1, end, shape->rank, grouping);
  sfi_low_space(l, kernel, shape, grouping);
  sfi_low_set_row(l, v, sfi_low_temp(l, v, shape, false), grouping);
  kernel->operand[0] = sfi_low_access(l, kernel, shape, &to->row, grouping);
  kernel->operand[1] = sfi_low_access(l, kernel, shape, &view, grouping);
  sfi_low_tile(l, kernel, kernel->axis);
}

void sfi_low_softmax(sfi_lowering *l, sf_value v) {
  const sfi_node *node = &l->graph->nodes[v];
  const int32_t axis = axis_of(node, node->shape.rank);
  sfi_kernel kernel = sfi_low_kernel(l, SFI_ANCHOR_SOFTMAX);
  sfi_grouping grouping = {0};
  bool panels;
  along_axis(l, v, axis, axis + 1, &kernel, &grouping, &panels);
  sfi_low_push(l, &kernel);
}

void sfi_low_normalize(sfi_lowering *l, sf_value v) {
  const sfi_node *node = &l->graph->nodes[v];
  const sfi_shape *shape = &l->values[v].shape;
  const int32_t axis = axis_of(node, shape->rank);
  sfi_kernel kernel = sfi_low_kernel(l, SFI_ANCHOR_NORMALIZE);
  sfi_grouping grouping = {0};
  bool panels;
  kernel.eps = sfi_attr_of(node, SF_ATTR_EPS)->f;
  kernel.centred = node->op == SF_OP_LAYER_NORM;
  along_axis(l, v, axis, shape->rank, &kernel, &grouping, &panels);
  int32_t value = 0;
  for (int32_t i = 1; i < node->n_inputs; i++) {
    const int32_t operand =
        sfi_low_epilogue_operand(l, &kernel, &kernel.epilogue, node->inputs[i], axis, shape, panels ? NULL : &grouping);
    const sf_op op = i == 1 ? SF_OP_MUL : SF_OP_ADD;
    value = sfi_low_step(&kernel.epilogue, (sfi_step){.kind = SFI_STEP_OP, .op = op, .a = value, .b = operand});
  }
  sfi_low_push(l, &kernel);
}

/* Along the last dimension of panels: space (panel, lane), the output one row of columns. */
static void reduce_panels(sfi_lowering *l, sf_value v, sfi_kernel *kernel) {
  const sf_value from = l->graph->nodes[v].inputs[0];
  sfi_low_panel_space(l, kernel, &l->values[from].shape);
  const sfi_access x = sfi_low_panel(l, from);
  kernel->reduce_rank = 1;
  kernel->reduce_extent[0] = kernel->extent[1];
  kernel->extent[1] = kernel->extent[2];
  kernel->rank = 2;
  kernel->ragged.lane = 1;
  kernel->operand[1] = (sfi_access){.buffer = x.buffer, .offset = x.offset, .stride = {x.stride[0], x.stride[2], x.stride[1]}};
  sfi_low_set_row(l, v, sfi_low_temp(l, v, &l->values[v].shape, false), NULL);
  kernel->operand[0] = (sfi_access){.buffer = l->values[v].row.buffer, .stride = {sfi_const(l->panel), sfi_const(1)}};
  sfi_low_tile(l, kernel, 1);
}

static void reduce_rows(sfi_lowering *l, sf_value v, const bool *reduced, bool keepdims, sfi_kernel *kernel) {
  const sf_value x = l->graph->nodes[v].inputs[0];
  const sfi_shape *shape = &l->values[x].shape;
  const sfi_view view = sfi_low_row(l, x);
  sfi_shape kept = {0}, gone = {0};
  sfi_view kept_view = {.buffer = view.buffer, .offset = view.offset}, gone_view = {0}, out = {0};
  int32_t kept_at[SF_MAX_RANK + 1];
  for (int32_t d = 0; d < shape->rank; d++) {
    sfi_shape *side = reduced[d] ? &gone : &kept;
    (reduced[d] ? &gone_view : &kept_view)->stride[side->rank] = view.stride[d];
    if (!reduced[d]) kept_at[kept.rank] = d;
    side->dims[side->rank++] = shape->dims[d];
  }
  const sfi_view *const kept_views[] = {&kept_view}, *const gone_views[] = {&gone_view};
  sfi_grouping grouping = {0}, inner = {0};
  sfi_low_group(l, &kept, kept_views, 1, 0, kept.rank, &grouping);
  sfi_low_group(l, &gone, gone_views, 1, 0, gone.rank, &inner);
  /* Where the reduction is contiguous and the output's points are not, the last dimension is a single index, so that every tile may be
   * one sum along memory. */
  const sfi_poly *last_kept = kept.rank ? &kept_view.stride[kept.rank - 1] : NULL;
  if (sfi_is(gone_view.stride[gone.rank - 1], 1) && !(last_kept && sfi_is(*last_kept, 1))) {
    grouping.start[++grouping.n] = kept.rank;
  }
  sfi_low_space(l, kernel, &kept, &grouping);
  kernel->operand[1] = sfi_low_access(l, kernel, &kept, &kept_view, &grouping);
  kernel->reduce_rank = inner.n;
  for (int32_t g = 0; g < inner.n; g++) {
    kernel->reduce_extent[g] = (sfi_extent){sfi_low_product(l, gone.dims + inner.start[g], inner.start[g + 1] - inner.start[g]), 1};
    sfi_low_merge(l, &gone, gone_view.stride, inner.start[g], inner.start[g + 1], &kernel->operand[1].stride[kernel->rank + g]);
  }
  sfi_low_dense_strides(l, &kept, out.stride);
  out.buffer = sfi_low_temp(l, v, &l->values[v].shape, false);
  kernel->operand[0] = sfi_low_access(l, kernel, &kept, &out, &grouping);
  for (int32_t g = 1; keepdims && g <= grouping.n; g++) {
    const int32_t at = grouping.start[g];
    grouping.start[g] = at == kept.rank ? shape->rank : kept_at[at];
  }
  sfi_low_set_row(l, v, out.buffer, &grouping);
  sfi_low_tile(l, kernel, kernel->rank);
}

static void reduce(sfi_lowering *l, sf_value v, sf_op op, const bool *reduced, int32_t n_reduced, bool keepdims) {
  const sfi_located *from = &l->values[l->graph->nodes[v].inputs[0]];
  sfi_kernel kernel = sfi_low_kernel(l, SFI_ANCHOR_REDUCE);
  kernel.reduce = op;
  kernel.n_operands = 2;
  sfi_low_load(&kernel.pre, 1);
  if (sfi_low_in_panels_only(from) && n_reduced == 1 && reduced[from->shape.rank - 1])
    reduce_panels(l, v, &kernel);
  else
    reduce_rows(l, v, reduced, keepdims, &kernel);
  sfi_low_push(l, &kernel);
}

void sfi_low_reduce(sfi_lowering *l, sf_value v) {
  const sfi_node *node = &l->graph->nodes[v];
  const int32_t rank = l->values[node->inputs[0]].shape.rank;
  const sfi_attr_value *axes = sfi_attr_of(node, SF_ATTR_AXES);
  bool reduced[SF_MAX_RANK] = {false};
  for (int32_t i = 0; i < axes->count; i++) reduced[axes->ints[i] < 0 ? axes->ints[i] + rank : axes->ints[i]] = true;
  reduce(l, v, node->op, reduced, axes->count, sfi_attr_int(node, SF_ATTR_KEEPDIMS));
}

void sfi_low_pool(sfi_lowering *l, sf_value v) {
  static const sfi_grouping grouping = {.n = 4, .start = {0, 1, 2, 3, 4}};
  const sfi_node *node = &l->graph->nodes[v];
  const sf_value x = node->inputs[0];
  const sfi_shape *shape = &l->values[v].shape, *image = &l->values[x].shape;
  const sfi_view view = sfi_low_row(l, x);
  const bool is_max = node->op == SF_OP_MAX_POOL;
  sfi_kernel kernel = sfi_low_kernel(l, SFI_ANCHOR_POOL);
  kernel.pool = (sfi_pool){.op = node->op, .dilation = {1, 1}, .in_height = image->dims[2].c[0], .in_width = image->dims[3].c[0]};
  memcpy(kernel.pool.kernel, sfi_attr_of(node, SF_ATTR_KERNEL)->ints, sizeof kernel.pool.kernel);
  memcpy(kernel.pool.stride, sfi_attr_of(node, SF_ATTR_STRIDE)->ints, sizeof kernel.pool.stride);
  memcpy(kernel.pool.pad, sfi_attr_of(node, SF_ATTR_PAD)->ints, sizeof kernel.pool.pad);
  if (is_max)
    memcpy(kernel.pool.dilation, sfi_attr_of(node, SF_ATTR_DILATION)->ints, sizeof kernel.pool.dilation);
  else
    kernel.pool.count_include_pad = sfi_attr_int(node, SF_ATTR_COUNT_INCLUDE_PAD);
  sfi_low_set_row(l, v, sfi_low_temp(l, v, shape, false), &grouping);
  sfi_low_space(l, &kernel, shape, &grouping);
  kernel.n_operands = 2;
  kernel.operand[0] = sfi_low_access(l, &kernel, shape, &l->values[v].row, &grouping);
  /* Strides of the image: those of extent-1 output dimensions are needed too, so the access is not made from the output's shape. */
  kernel.operand[1] = (sfi_access){.buffer = view.buffer, .offset = view.offset};
  memcpy(kernel.operand[1].stride, view.stride, 4 * sizeof view.stride[0]);
  sfi_low_tile(l, &kernel, 2);
  sfi_low_push(l, &kernel);
}

void sfi_low_global_pool(sfi_lowering *l, sf_value v) {
  static const bool pixels[SF_MAX_RANK] = {false, false, true, true};
  reduce(l, v, SF_OP_REDUCE_MEAN, pixels, 2, true);
}
