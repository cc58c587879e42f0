/* Shapes of operations that move elements: reshape, transpose, concat, slice.
 * Symbolic extents: reshape divides polynomials exactly or refuses; concat adds them along its axis; a slice takes a symbolic
 * dimension whole (start 0, end INT64_MAX/2 or more, step 1) or refuses. */
#include "infer.h"

/* shape: -1 once, what remains of the elements; 0, the operand's extent at the same place. */
sf_status sfi_infer_reshape(const sf_graph *graph, sfi_node *node, sfi_diag *diag) {
  const sfi_shape *x = sfi_operand_shape(graph, node, 0);
  const sfi_attr_value *shape = sfi_attr_of(node, SF_ATTR_SHAPE);
  sfi_poly have, want = sfi_const(1);
  int32_t rest = -1;
  sfi_shape out = {.rank = shape->count};
  for (int32_t i = 0; i < out.rank; i++) {
    int64_t extent = shape->ints[i];
    if (extent < -1) return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "extent %lld", (long long)extent);
    if (extent == -1 && rest >= 0) return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "a second extent of -1");
    if (extent == 0 && i >= x->rank) {
      return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "extent 0 at dimension %d, which the operand has not", i);
    }
    if (extent == -1)
      rest = i;
    else
      out.dims[i] = extent == 0 ? x->dims[i] : sfi_const(extent);
    if (extent != -1 && !sfi_poly_mul(want, out.dims[i], &want)) {
      return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "the new extents have too many elements");
    }
  }
  bool counted = sfi_shape_numel(x, &have);
  assert(counted); /* an operand is within SFI_ELEMENTS_MAX */
  if (rest >= 0 ? !sfi_poly_div(have, want, &out.dims[rest]) : !counted || !sfi_poly_equal(have, want)) {
    return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH,
                          rest >= 0 ? "no whole extent remains for -1" : "the new extents have another number of elements");
  }
  node->shape = out;
  return SF_OK;
}

sf_status sfi_infer_transpose(const sf_graph *graph, sfi_node *node, sfi_diag *diag) {
  const sfi_shape *x = sfi_operand_shape(graph, node, 0);
  const sfi_attr_value *perm = sfi_attr_of(node, SF_ATTR_PERM);
  bool seen[SF_MAX_RANK] = {false}, good = perm->count == x->rank;
  for (int32_t i = 0; good && i < x->rank; i++) {
    int64_t from = perm->ints[i];
    good = from >= 0 && from < x->rank && !seen[from];
    if (good) seen[from] = true;
  }
  if (!good) {
    return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "attribute 'perm' is no permutation of %d dimensions",
                          x->rank);
  }
  node->shape.rank = x->rank;
  for (int32_t i = 0; i < x->rank; i++) node->shape.dims[i] = x->dims[perm->ints[i]];
  return SF_OK;
}

sf_status sfi_infer_concat(const sf_graph *graph, sfi_node *node, sfi_diag *diag) {
  int32_t axis;
  sfi_shape out = *sfi_operand_shape(graph, node, 0);
  sf_status st = sfi_infer_axis(graph, node, diag, sfi_attr_int(node, SF_ATTR_AXIS), out.rank, &axis);
  if (st != SF_OK) return st;
  for (int32_t i = 1; i < node->n_inputs; i++) {
    sfi_shape x = *sfi_operand_shape(graph, node, i);
    sfi_poly along = x.rank == out.rank ? x.dims[axis] : sfi_const(0);
    x.dims[axis] = out.dims[axis];
    if (!sfi_shape_equal(&x, &out)) {
      return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "operand %d differs from the first beside dimension %d",
                            i + 1, axis);
    }
    if (!sfi_poly_add(out.dims[axis], along, &out.dims[axis])) {
      return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "too many elements");
    }
  }
  node->shape = out;
  return SF_OK;
}

static int64_t clip(int64_t index, int64_t extent) {
  if (index < 0) index += extent;
  return sfi_max(0, sfi_min(index, extent));
}

sf_status sfi_infer_slice(const sf_graph *graph, sfi_node *node, sfi_diag *diag) {
  const sfi_shape *x = sfi_operand_shape(graph, node, 0);
  const sfi_attr_value *starts = sfi_attr_of(node, SF_ATTR_STARTS), *ends = sfi_attr_of(node, SF_ATTR_ENDS);
  const sfi_attr_value *steps = sfi_attr_of(node, SF_ATTR_STEPS);
  if (starts->count != x->rank || ends->count != x->rank || (steps->count != 0 && steps->count != x->rank)) {
    return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH,
                          "attributes 'starts', 'ends', 'steps' need one entry a dimension");
  }
  node->shape.rank = x->rank;
  for (int32_t i = 0; i < x->rank; i++) {
    int64_t start = starts->ints[i], end = ends->ints[i], step = steps->count ? steps->ints[i] : 1;
    if (step < 1) return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "a step of %lld", (long long)step);
    node->shape.dims[i] = x->dims[i];
    if (sfi_is_const(x->dims[i])) {
      int64_t extent = x->dims[i].c[0];
      int64_t length = sfi_max(0, clip(end, extent) - clip(start, extent));
      node->shape.dims[i] = sfi_const(sfi_ceil_div(length, step));
    } else if (start != 0 || end < INT64_MAX / 2 || step != 1) {
      return sfi_infer_fail(graph, node, diag, SF_STATUS_UNSUPPORTED, "a part of dimension %d, which is symbolic", i);
    }
  }
  return SF_OK;
}
