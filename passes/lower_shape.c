/* Operations that move elements. Transpose, slice, expand and reshape are views where strides can say them; concat copies its operands
 * side by side, pad into what it has filled, which fusion turns into their producers' stores where it can; gather is a copy through
 * indices, which fusion turns into its consumers' loads. */
#include "lower.h"

void sfi_low_transpose(sfi_lowering *l, sf_value v) {
  const sfi_node *node = &l->graph->nodes[v];
  const int64_t *perm = sfi_attr_of(node, SF_ATTR_PERM)->ints;
  const sfi_view from = sfi_low_row(l, node->inputs[0]);
  sfi_view *to = &l->values[v].row;
  *to = (sfi_view){.buffer = from.buffer, .offset = from.offset};
  for (int32_t d = 0; d < node->shape.rank; d++) to->stride[d] = from.stride[perm[d]];
}

/* First index of dimension d of a slice. Starts beyond the end leave no element; the offset is then unused. */
static sfi_poly first_index(sfi_lowering *l, const sfi_node *node, int32_t d, sfi_poly extent) {
  const sfi_attr_value *symbolic = sfi_attr_of(node, SF_ATTR_SYMBOLIC);
  sfi_poly start = sfi_const(sfi_attr_of(node, SF_ATTR_STARTS)->ints[d]);
  for (int32_t i = 0; i < symbolic->count; i++) {
    if (symbolic->ints[i] == d) start = sfi_const(0);
  }
  if (start.c[0] < 0) start = sfi_low_add(l, start, extent);
  if (sfi_is_const(start) && sfi_is_const(extent)) start.c[0] = sfi_max(0, sfi_min(start.c[0], extent.c[0]));
  return start;
}

/* Neighbouring features, of all columns, of a value that lives in panels? */
static bool slices_features(const sfi_lowering *l, sf_value v) {
  const sfi_node *node = &l->graph->nodes[v];
  const sfi_located *from = &l->values[node->inputs[0]];
  const sfi_attr_value *steps = sfi_attr_of(node, SF_ATTR_STEPS);
  const int32_t last = from->shape.rank - 1;
  if (!sfi_low_in_panels_only(from) || last < 0 || (steps->count && steps->ints[last] != 1)) return false;
  for (int32_t d = 0; d < last; d++) {
    if (!sfi_poly_equal(from->shape.dims[d], l->values[v].shape.dims[d])) return false;
  }
  return !sfi_is(l->values[v].shape.dims[last], 0);
}

void sfi_low_slice(sfi_lowering *l, sf_value v) {
  const sfi_node *node = &l->graph->nodes[v];
  const sfi_attr_value *steps = sfi_attr_of(node, SF_ATTR_STEPS);
  const sfi_located *from = &l->values[node->inputs[0]];
  const sfi_shape *shape = &from->shape;
  if (slices_features(l, v)) {
    const int32_t last = shape->rank - 1;
    l->values[v].panel = from->panel;
    l->values[v].feature = sfi_low_add(l, from->feature, first_index(l, node, last, shape->dims[last]));
    return;
  }
  sfi_view view = sfi_low_row(l, node->inputs[0]);
  for (int32_t d = 0; d < shape->rank; d++) {
    const sfi_poly start = first_index(l, node, d, shape->dims[d]);
    view.offset = sfi_low_add(l, view.offset, sfi_low_mul(l, view.stride[d], start));
    if (steps->count && steps->ints[d] != 1) view.stride[d] = sfi_low_mul(l, view.stride[d], sfi_const(steps->ints[d]));
  }
  l->values[v].row = view;
}

/* Is `a` the smaller product, to be extended first? Polynomials have no order: divisibility decides, then size at 1. */
static bool extend_first(sfi_poly a, sfi_poly b) {
  sfi_poly quotient;
  int64_t x, y;
  if (sfi_poly_div(b, a, &quotient)) return true;
  if (sfi_poly_div(a, b, &quotient)) return false;
  return sfi_poly_eval(a, 1, &x) && sfi_poly_eval(b, 1, &y) && x < y;
}

/* Strides of `to` over the elements of `view`, whose shape is `from`: both shapes are cut into runs of equal products, and each run of
 * `from` must be one index. False where it is not. */
static bool restride(sfi_lowering *l, const sfi_shape *from, const sfi_view *view, const sfi_shape *to, sfi_poly *stride) {
  int32_t a = 0, b = 0;
  while (a < from->rank || b < to->rank) {
    int32_t a_end = a, b_end = b;
    sfi_poly have = sfi_const(1), want = sfi_const(1), step;
    do {
      bool extend_a = b_end == to->rank || (a_end < from->rank && extend_first(have, want));
      if (extend_a && a_end == from->rank) return false;
      if (extend_a)
        have = sfi_low_mul(l, have, from->dims[a_end++]);
      else
        want = sfi_low_mul(l, want, to->dims[b_end++]);
    } while (!sfi_poly_equal(have, want) || (a_end == a && a < from->rank) || (b_end == b && b < to->rank));
    if (!sfi_low_merge(l, from, view->stride, a, a_end, &step)) return false;
    for (int32_t d = b_end - 1; d >= b; d--) {
      stride[d] = step;
      step = sfi_low_mul(l, step, to->dims[d]);
    }
    a = a_end;
    b = b_end;
  }
  return true;
}

void sfi_low_reshape(sfi_lowering *l, sf_value v) {
  const sf_value input = l->graph->nodes[v].inputs[0];
  sfi_located *from = &l->values[input], *to = &l->values[v];
  const sfi_shape *a = &from->shape, *b = &to->shape;
  /* Panels see the last dimension and all before it: the rest of the shape is free. */
  if (a->rank && b->rank && sfi_poly_equal(a->dims[a->rank - 1], b->dims[b->rank - 1]) && !sfi_is(a->dims[a->rank - 1], 0)) {
    to->panel = from->panel;
    to->feature = from->feature;
    if (from->row.buffer == SFI_NO_BUFFER) return;
  }
  to->row = sfi_low_row(l, input);
  if (sfi_low_is_dense(l, a, &to->row))
    sfi_low_dense_strides(l, b, to->row.stride);
  else if (!restride(l, a, &from->row, b, to->row.stride)) {
    to->row = sfi_low_dense(l, input);
    sfi_low_dense_strides(l, b, to->row.stride);
  }
}

void sfi_low_concat(sfi_lowering *l, sf_value v) {
  const sfi_node *node = &l->graph->nodes[v];
  const sfi_shape *shape = &l->values[v].shape;
  const int64_t given = sfi_attr_int(node, SF_ATTR_AXIS), axis = given < 0 ? given + shape->rank : given;
  sfi_low_set_row(l, v, sfi_low_temp(l, v, shape, false), NULL);
  sfi_view part = l->values[v].row;
  for (int32_t i = 0; i < node->n_inputs; i++) {
    sfi_low_store(l, node->inputs[i], &part);
    part.offset = sfi_low_add(l, part.offset, sfi_low_mul(l, part.stride[axis], l->values[node->inputs[i]].shape.dims[axis]));
  }
}

void sfi_low_expand(sfi_lowering *l, sf_value v) {
  const sf_value x = l->graph->nodes[v].inputs[0];
  const sfi_view row = sfi_low_row(l, x);
  l->values[v].row = sfi_low_stretch(&l->values[x].shape, &row, 0);
}

void sfi_low_pad(sfi_lowering *l, sf_value v) {
  const sfi_node *node = &l->graph->nodes[v];
  const sfi_attr_value *before = sfi_attr_of(node, SF_ATTR_BEFORE);
  const sfi_shape *shape = &l->values[v].shape;
  sfi_kernel fill = sfi_low_kernel(l, SFI_ANCHOR_MAP);
  sfi_grouping grouping = {0};
  sfi_low_set_row(l, v, sfi_low_temp(l, v, shape, false), NULL);
  sfi_view inside = l->values[v].row;
  const sfi_view *const views[] = {&inside};
  sfi_low_group(l, shape, views, 1, 0, shape->rank, &grouping);
  sfi_low_space(l, &fill, shape, &grouping);
  sfi_low_step(&fill.epilogue, (sfi_step){.kind = SFI_STEP_CONST, .value = (float)sfi_attr_of(node, SF_ATTR_VALUE)->f});
  fill.operand[0] = sfi_low_access(l, &fill, shape, &inside, &grouping);
  sfi_low_tile(l, &fill, fill.rank);
  sfi_low_push(l, &fill);
  for (int32_t d = 0; d < shape->rank; d++) {
    inside.offset = sfi_low_add(l, inside.offset, sfi_low_mul(l, inside.stride[d], sfi_const(before->ints[d])));
  }
  sfi_low_store(l, node->inputs[0], &inside);
}

void sfi_low_gather(sfi_lowering *l, sf_value v) {
  const sfi_node *node = &l->graph->nodes[v];
  const sfi_shape *shape = &l->values[v].shape, *x = &l->values[node->inputs[0]].shape;
  const int32_t ids = l->values[node->inputs[1]].shape.rank;
  const int64_t given = sfi_attr_int(node, SF_ATTR_AXIS);
  const int32_t axis = (int32_t)(given < 0 ? given + x->rank : given);
  const sfi_view data = sfi_low_row(l, node->inputs[0]), index = sfi_low_row(l, node->inputs[1]);
  sfi_view at = {.buffer = index.buffer, .offset = index.offset}, from = {.buffer = data.buffer, .offset = data.offset}, to = {0};
  for (int32_t d = 0; d < shape->rank; d++) {
    const bool of_ids = d >= axis && d < axis + ids;
    if (of_ids)
      at.stride[d] = index.stride[d - axis];
    else
      from.stride[d] = data.stride[d < axis ? d : d - ids + 1];
  }
  sfi_low_dense_strides(l, shape, to.stride);
  const sfi_view *const views[] = {&at, &from, &to};
  sfi_kernel kernel = sfi_low_kernel(l, SFI_ANCHOR_MAP);
  sfi_grouping grouping = {0};
  sfi_low_group(l, shape, views, 3, 0, shape->rank, &grouping);
  sfi_low_space(l, &kernel, shape, &grouping);
  sfi_low_set_row(l, v, sfi_low_temp(l, v, shape, false), &grouping);
  kernel.operand[0] = sfi_low_access(l, &kernel, shape, &l->values[v].row, &grouping);
  kernel.operand[1] = sfi_low_access(l, &kernel, shape, &at, &grouping);
  kernel.operand[2] = sfi_low_access(l, &kernel, shape, &from, &grouping);
  kernel.operand[2].index = 1;
  kernel.operand[2].index_extent = x->dims[axis].c[0];
  kernel.operand[2].index_stride = data.stride[axis];
  kernel.n_operands = 3;
  sfi_low_load(&kernel.epilogue, 2);
  sfi_low_tile(l, &kernel, kernel.rank);
  sfi_low_push(l, &kernel);
}

/* The cache as it was, which a run leaves out where it is written in place, and then what is new, behind the position. */
void sfi_low_append(sfi_lowering *l, sf_value v) {
  const sfi_node *node = &l->graph->nodes[v];
  const sfi_shape *shape = &l->values[v].shape, *more = &l->values[node->inputs[1]].shape;
  const int64_t given = sfi_attr_int(node, SF_ATTR_AXIS), axis = given < 0 ? given + shape->rank : given;
  sfi_low_set_row(l, v, sfi_low_temp(l, v, shape, false), NULL);
  const sfi_view whole = l->values[v].row;
  sfi_low_store(l, node->inputs[0], &whole);
  const sfi_view from = sfi_low_row(l, node->inputs[1]), at = sfi_low_row(l, node->inputs[2]);
  const sfi_view *const views[] = {&from, &whole};
  sfi_kernel kernel = sfi_low_kernel(l, SFI_ANCHOR_MAP);
  sfi_grouping grouping = {0};
  sfi_low_group(l, more, views, 2, 0, more->rank, &grouping);
  sfi_low_space(l, &kernel, more, &grouping);
  kernel.operand[0] = sfi_low_access(l, &kernel, more, &whole, &grouping);
  kernel.operand[0].index = 1;
  kernel.operand[0].index_stride = whole.stride[axis];
  kernel.operand[1] = (sfi_access){.buffer = at.buffer, .offset = at.offset};
  kernel.operand[2] = sfi_low_access(l, &kernel, more, &from, &grouping);
  kernel.n_operands = 3;
  sfi_low_load(&kernel.epilogue, 2);
  sfi_low_tile(l, &kernel, kernel.rank);
  sfi_low_push(l, &kernel);
}
