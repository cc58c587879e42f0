/* Shapes of operations that move elements: reshape, transpose, concat, slice, gather, expand, pad.
 * Symbolic extents: reshape divides polynomials exactly or refuses; concat and pad add to them; of a symbolic dimension a slice takes all
 * (start 0, end INT64_MAX/2 or more), or a number of indices counted from either side, which a run must then have: run_limits.h. */
#include "infer.h"
#include "run_limits.h"

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

static bool is_listed(const sfi_attr_value *list, int32_t d) {
  for (int32_t i = 0; i < list->count; i++) {
    if (list->ints[i] == d) return true;
  }
  return false;
}

/* Extent of a slice of a symbolic dimension. */
static bool symbolic_part(int64_t start, int64_t end, sfi_poly extent, sfi_poly *out) {
  *out = extent;
  if (start == 0 && end >= INT64_MAX / 2) return true;
  if (start < 0 && end >= INT64_MAX / 2) end = 0;
  if (start < -SFI_ELEMENTS_MAX || end > SFI_ELEMENTS_MAX || end < -SFI_ELEMENTS_MAX || start > end) return false;
  *out = sfi_const(end - start); /* both counted from the same side */
  return (start >= 0) == (end > 0 || (end == 0 && start == 0));
}

sf_status sfi_infer_slice(const sf_graph *graph, sfi_node *node, sfi_diag *diag) {
  const sfi_shape *x = sfi_operand_shape(graph, node, 0);
  const sfi_attr_value *starts = sfi_attr_of(node, SF_ATTR_STARTS), *ends = sfi_attr_of(node, SF_ATTR_ENDS);
  const sfi_attr_value *steps = sfi_attr_of(node, SF_ATTR_STEPS), *symbolic = sfi_attr_of(node, SF_ATTR_SYMBOLIC);
  if (starts->count != x->rank || ends->count != x->rank || (steps->count != 0 && steps->count != x->rank)) {
    return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH,
                          "attributes 'starts', 'ends', 'steps' need one entry a dimension");
  }
  for (int32_t i = 0; i < symbolic->count; i++) {
    const int64_t d = symbolic->ints[i];
    if (d < 0 || d >= x->rank || !sfi_is_const(x->dims[d])) {
      return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH,
                            "attribute 'symbolic' names %lld, no dimension of a constant extent", (long long)d);
    }
  }
  node->shape.rank = x->rank;
  for (int32_t i = 0; i < x->rank; i++) {
    int64_t start = starts->ints[i], end = ends->ints[i], step = steps->count ? steps->ints[i] : 1;
    if (step < 1) return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "a step of %lld", (long long)step);
    if (is_listed(symbolic, i)) {
      if (step != 1)
        return sfi_infer_fail(graph, node, diag, SF_STATUS_UNSUPPORTED, "a step of %lld in a symbolic slice", (long long)step);
      node->shape.dims[i] = (sfi_poly){{0, 1, 0}};
    } else if (sfi_is_const(x->dims[i])) {
      int64_t extent = x->dims[i].c[0];
      int64_t length = sfi_max(0, clip(end, extent) - clip(start, extent));
      node->shape.dims[i] = sfi_const(sfi_ceil_div(length, step));
    } else if (step != 1 || !symbolic_part(start, end, x->dims[i], &node->shape.dims[i])) {
      return sfi_infer_fail(graph, node, diag, SF_STATUS_UNSUPPORTED,
                            "this part of dimension %d, which is symbolic: all of it, or a number of indices from one side", i);
    }
  }
  return SF_OK;
}

sf_status sfi_infer_gather(const sf_graph *graph, sfi_node *node, sfi_diag *diag) {
  const sfi_shape *x = sfi_operand_shape(graph, node, 0), *ids = sfi_operand_shape(graph, node, 1);
  int32_t axis;
  sfi_index_limits limits;
  sf_status st = sfi_infer_axis(graph, node, diag, sfi_attr_int(node, SF_ATTR_AXIS), x->rank, &axis);
  if (st != SF_OK) return st;
  if (!sfi_is_const(x->dims[axis])) {
    return sfi_infer_fail(graph, node, diag, SF_STATUS_UNSUPPORTED, "along dimension %d, which is symbolic", axis);
  }
  if (x->rank - 1 + ids->rank > SF_MAX_RANK) {
    return sfi_infer_fail(graph, node, diag, SF_STATUS_UNSUPPORTED, "a result of more than %d dimensions", SF_MAX_RANK);
  }
  node->shape = (sfi_shape){.rank = x->rank - 1 + ids->rank};
  memcpy(node->shape.dims, x->dims, (size_t)axis * sizeof *x->dims);
  memcpy(node->shape.dims + axis, ids->dims, (size_t)ids->rank * sizeof *ids->dims);
  memcpy(node->shape.dims + axis + ids->rank, x->dims + axis + 1, (size_t)(x->rank - axis - 1) * sizeof *x->dims);
  sfi_index_limits_of(graph, node, 1, 1, &limits);
  int64_t wrong;
  const sfi_node *leaf = &graph->nodes[limits.leaf];
  if (!sfi_node_is_static(leaf)) return SF_OK;
  const void *data = sfi_node_open(leaf, diag);
  if (!data) return diag->error.status;
  const bool within = sfi_within(leaf, data, &limits, &wrong);
  sfi_node_close(leaf);
  if (within) return SF_OK;
  return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "index %lld is outside %lld to %lld", (long long)wrong,
                        (long long)limits.least, (long long)limits.most);
}

sf_status sfi_infer_expand(const sf_graph *graph, sfi_node *node, sfi_diag *diag) {
  const sfi_shape *x = sfi_operand_shape(graph, node, 0);
  const sfi_attr_value *shape = sfi_attr_of(node, SF_ATTR_SHAPE);
  bool good = shape->count == x->rank;
  node->shape = *x;
  for (int32_t d = 0; good && d < x->rank; d++) {
    const int64_t extent = shape->ints[d];
    if (extent == 0 || sfi_is(x->dims[d], extent)) continue;
    good = extent > 0 && sfi_is(x->dims[d], 1);
    node->shape.dims[d] = sfi_const(extent);
  }
  if (good) return SF_OK;
  return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "attribute 'shape' does not expand extents of 1");
}

sf_status sfi_infer_pad(const sf_graph *graph, sfi_node *node, sfi_diag *diag) {
  const sfi_shape *x = sfi_operand_shape(graph, node, 0);
  const sfi_attr_value *before = sfi_attr_of(node, SF_ATTR_BEFORE), *after = sfi_attr_of(node, SF_ATTR_AFTER);
  if (before->count != x->rank || after->count != x->rank) {
    return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "attributes 'before' and 'after' need one entry a dimension");
  }
  node->shape = *x;
  for (int32_t d = 0; d < x->rank; d++) {
    const int64_t a = before->ints[d], b = after->ints[d];
    if (a < 0 || b < 0 || a > SFI_WINDOW_MAX || b > SFI_WINDOW_MAX) {
      return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "padding outside 0 to %lld", (long long)SFI_WINDOW_MAX);
    }
    if (!sfi_poly_add(x->dims[d], sfi_const(a + b), &node->shape.dims[d])) {
      return sfi_infer_fail(graph, node, diag, SF_STATUS_INVALID_GRAPH, "too many elements");
    }
  }
  return SF_OK;
}
