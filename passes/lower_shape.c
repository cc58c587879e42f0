/* Operations that move elements. Transpose, slice and reshape are views where strides can say them; concat copies its operands
 * side by side, which fusion turns into their producers' stores where it can. */
#include "lower.h"

void sfi_low_transpose(sfi_lowering *l, sf_value v) {
  const sfi_node *node = &l->graph->nodes[v];
  const int64_t *perm = sfi_attr_of(node, SF_ATTR_PERM)->ints;
  const sfi_view from = sfi_low_row(l, node->inputs[0]);
  sfi_view *to = &l->values[v].row;
  *to = (sfi_view){.buffer = from.buffer, .offset = from.offset};
  for (int32_t d = 0; d < node->shape.rank; d++) to->stride[d] = from.stride[perm[d]];
}

void sfi_low_slice(sfi_lowering *l, sf_value v) {
  const sfi_node *node = &l->graph->nodes[v];
  const sfi_attr_value *starts = sfi_attr_of(node, SF_ATTR_STARTS), *steps = sfi_attr_of(node, SF_ATTR_STEPS);
  const sfi_shape *shape = &l->values[node->inputs[0]].shape;
  sfi_view view = sfi_low_row(l, node->inputs[0]);
  for (int32_t d = 0; d < shape->rank; d++) {
    /* A symbolic dimension is taken whole: its start is 0. Starts beyond the end leave no element; the offset is then unused. */
    int64_t start = starts->ints[d];
    if (start < 0 && sfi_is_const(shape->dims[d])) start = sfi_max(0, start + shape->dims[d].c[0]);
    if (sfi_is_const(shape->dims[d])) start = sfi_min(start, shape->dims[d].c[0]);
    view.offset = sfi_low_add(l, view.offset, sfi_low_mul(l, view.stride[d], sfi_const(start)));
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
