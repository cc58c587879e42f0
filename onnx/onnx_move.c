/* Operators that move elements: transpose, concat, slice, split, gather, tile, pad, and rearrangements of images. Of known values the
 * results are known. */
#include "onnx_import.h"

/* ---- moved elements ----------------------------------------------------------------------------------------------- */

bool sfi_import_transpose(importer *im) {
  const onnx_value *v = im->in[0];
  int32_t rank = v->shape.rank, count;
  int64_t perm[SF_MAX_RANK], strides[SF_MAX_RANK], dims[SF_MAX_RANK], steps[SF_MAX_RANK];
  bool seen[SF_MAX_RANK] = {false};
  sfi_shape shape = {.rank = rank};
  if (!sfi_onnx_ints(im, "perm", SF_MAX_RANK, perm, &count)) return false;
  if (count < 0) {
    for (int32_t i = 0; i < rank; i++) perm[i] = rank - 1 - i;
    count = rank;
  }
  for (int32_t i = 0; i < count; i++) {
    if (count != rank || perm[i] < 0 || perm[i] >= rank || seen[perm[i]]) return INVALID(im, "attribute 'perm' is no permutation");
    seen[perm[i]] = true;
    shape.dims[i] = v->shape.dims[perm[i]];
  }
  if (count != rank) return INVALID(im, "attribute 'perm' is no permutation");
  if (v->kind == VALUE_STATIC) {
    onnx_value *out = sfi_onnx_output(im, 0);
    sfi_onnx_strides(v, strides);
    for (int32_t i = 0; i < rank; i++) {
      dims[i] = v->dims[perm[i]];
      steps[i] = strides[perm[i]];
    }
    if (!out) return true;
    if (!sfi_onnx_view(im, v, rank, dims, 0, steps, out)) return false;
    out->shape = shape;
    return true;
  }
  sf_value x;
  onnx_type type = v->type;
  if (!sfi_onnx_operand(im, 0, false, &x) || !sfi_onnx_result_as(im, 0, sfi_onnx_transposed(im, x, rank, perm), &shape))
    return false;
  if (sfi_onnx_output(im, 0)) sfi_onnx_output(im, 0)->type = type;
  return true;
}

/* Known integers one after the other: pieces of a shape. */
static bool concat_static(importer *im, int32_t axis, bool *out_done) {
  int64_t along = 0, dims[SF_MAX_RANK], total, outer = 1, inner = 1;
  const onnx_value *first = im->in[0];
  bool real = first->floats != NULL;
  *out_done = false;
  memcpy(dims, first->dims, sizeof dims);
  for (int32_t k = 0; k < im->n_in; k++) {
    const onnx_value *v = im->in[k];
    bool whole = v->kind == VALUE_STATIC && v->shape.rank == first->shape.rank && (v->floats != NULL) == real;
    for (int32_t i = 0; whole && i < v->shape.rank; i++) /* tables beside the axis are as good */
      whole = sfi_is(v->shape.dims[i], v->dims[i]) ||
              (i != axis && v->dims[i] > 1 && sfi_poly_equal(v->shape.dims[i], first->shape.dims[i]));
    if (!whole) return true;
    if (v->shape.rank != first->shape.rank) return INVALID(im, "operands of different ranks");
    for (int32_t i = 0; i < v->shape.rank; i++) {
      if (i != axis && v->dims[i] != first->dims[i]) return INVALID(im, "operands differ beside axis %d", axis);
    }
    if (!sfi_add(along, v->dims[axis], &along)) return INVALID(im, "the extent overflows");
  }
  dims[axis] = along;
  int32_t rank = first->shape.rank;
  if (!sfi_onnx_count(im, rank, dims, &total)) return false;
  for (int32_t i = 0; i < rank; i++) {
    if (i < axis) outer *= dims[i];
    if (i > axis) inner *= dims[i];
  }
  float *floats = real ? sfi_arena_alloc(&im->graph->arena, (size_t)total * sizeof *floats) : NULL;
  sfi_poly *polys = real ? NULL : sfi_arena_alloc(&im->arena, (size_t)total * sizeof *polys);
  if (!floats && !polys) return sfi_onnx_fail_memory(im);
  int64_t n = 0;
  for (int64_t o = 0; o < outer; o++) {
    for (int32_t k = 0; k < im->n_in; k++) {
      const onnx_value *v = im->in[k];
      int64_t run = v->dims[axis] * inner;
      for (int64_t i = 0; i < run; i++, n++) {
        if (real)
          floats[n] = v->floats[o * run + i];
        else
          polys[n] = sfi_onnx_integer(v, o * run + i);
      }
    }
  }
  *out_done = true;
  onnx_value *out = sfi_onnx_output(im, 0);
  sfi_shape shape = first->shape;
  shape.dims[axis] = sfi_const(along);
  if (!out) return true;
  if (real)
    sfi_onnx_set_floats(out, rank, dims, total, floats);
  else if (!sfi_onnx_set_polys(im, out, first->type, rank, dims, total, polys))
    return false;
  out->shape = shape;
  return true;
}

/* Values of the graph one after the other, as many at a time as the operation takes. */
static sf_value concat_values(importer *im, int32_t n, const sf_value *values, int64_t axis) {
  sf_value done = values[0], group[16];
  sf_attr attr = {.id = SF_ATTR_AXIS, .i = axis};
  for (int32_t i = 1; i < n;) {
    int32_t count = 1;
    group[0] = done;
    while (count < (int32_t)SFI_COUNT(group) && i < n) group[count++] = values[i++];
    done = sfi_onnx_build(im, SF_OP_CONCAT, count, group, 1, &attr);
  }
  return done;
}

bool sfi_import_concat(importer *im) {
  int64_t given;
  int32_t axis;
  bool done;
  sf_value values[ONNX_INPUTS_MAX];
  if (!sfi_onnx_int(im, "axis", 0, &given)) return false;
  for (int32_t i = 0; i < im->n_in; i++) {
    if (!im->in[i]) return INVALID(im, "operand %d is left out", i);
  }
  if (!sfi_onnx_axis(im, given, im->in[0]->shape.rank, &axis)) return false;
  if (!concat_static(im, axis, &done) || done) return im->diag.error.status == SF_OK;
  for (int32_t i = 0; i < im->n_in; i++) {
    if (!sfi_onnx_operand(im, i, true, &values[i])) return false;
  }
  onnx_type type = im->in[0]->type;
  if (!sfi_onnx_result(im, 0, concat_values(im, im->n_in, values, axis))) return false;
  if (sfi_onnx_output(im, 0)) sfi_onnx_output(im, 0)->type = type;
  return true;
}

/* x[start : end] along one dimension of a value of the graph. */
static sf_value sliced(importer *im, sf_value x, int32_t axis, int64_t start, int64_t end, int64_t step) {
  int64_t starts[SF_MAX_RANK] = {0}, ends[SF_MAX_RANK], steps[SF_MAX_RANK];
  if (x == SF_NO_VALUE) return x;
  int32_t rank = sfi_onnx_shape_of(im, x)->rank;
  for (int32_t i = 0; i < rank; i++) {
    ends[i] = INT64_MAX;
    steps[i] = 1;
  }
  starts[axis] = start;
  ends[axis] = end;
  steps[axis] = step;
  return sfi_onnx_build(im, SF_OP_SLICE, 1, &x, 3,
                        (sf_attr[]){{.id = SF_ATTR_STARTS, .count = rank, .ints = starts},
                                    {.id = SF_ATTR_ENDS, .count = rank, .ints = ends},
                                    {.id = SF_ATTR_STEPS, .count = rank, .ints = steps}});
}

/* One dimension of a slice, as ONNX clips it. `extent`: that of the result. */
typedef struct box {
  int64_t start, end, step, count; /* count: elements here, where the extent is symbolic all of a table */
  sfi_poly extent;
  bool whole, table; /* table: of a known extent the first so many as the symbolic dimension says */
} box;

/* Of a symbolic extent all, or so many from one of its sides; a run checks that they are there. */
static bool clip_symbolic(importer *im, sfi_poly extent, int64_t start, sfi_poly end, int64_t step, bool to_end, box *out) {
  *out = (box){.start = start, .end = to_end ? INT64_MAX : end.c[0], .step = 1, .count = -1, .extent = extent};
  out->whole = start == 0 && to_end;
  if (step == 1 && (out->whole || (sfi_is_const(end) && start > INT32_MIN && start < INT32_MAX))) return true;
  return UNSUPPORTED(im, "this part of a symbolic extent");
}

static bool clip_box(importer *im, sfi_poly extent, sfi_poly start, sfi_poly end, int64_t step, box *out) {
  sfi_poly length;
  if (step == 0) return INVALID(im, "a step of 0");
  bool to_end = sfi_poly_equal(end, extent) || (sfi_is_const(end) && end.c[0] > INT32_MAX);
  if (!sfi_is_const(start)) return UNSUPPORTED(im, "a start that depends on the symbolic dimension");
  int64_t from = start.c[0], n = extent.c[0], to = n;
  if (!sfi_is_const(extent)) return clip_symbolic(im, extent, from, end, step, to_end, out);
  if (!sfi_is_const(end)) {
    bool as_many = from >= 0 && from <= n && step == 1 && sfi_poly_add(end, sfi_const(-from), &length);
    if (!as_many || !sfi_poly_equal(length, (sfi_poly){{0, 1, 0}}))
      return UNSUPPORTED(im, "bounds that depend on the symbolic dimension");
    *out = (box){.start = from, .end = INT64_MAX, .step = 1, .count = n - from, .extent = length, .table = true};
    return true;
  }
  if (!to_end) to = end.c[0];
  step = sfi_max(-sfi_max(n, 1),
                 sfi_min(step, sfi_max(n, 1))); /* longer ones take one element too, and their product with a stride overflows */
  if (from < 0) from = from < -n ? -1 : from + n;
  if (to < 0) to = to < -n ? -1 : to + n;
  from = step > 0 ? sfi_max(0, sfi_min(from, n)) : sfi_max(-1, sfi_min(from, n - 1));
  to = step > 0 ? sfi_max(0, sfi_min(to, n)) : sfi_max(-1, sfi_min(to, n - 1));
  int64_t span = step > 0 ? to - from : from - to, pace = step > 0 ? step : -step;
  *out = (box){.start = from, .end = to, .step = step, .count = span > 0 ? sfi_ceil_div(span, pace) : 0};
  out->extent = sfi_const(out->count);
  out->whole = step == 1 && out->count == n;
  return true;
}

static bool slice_static(importer *im, const box *boxes) {
  const onnx_value *v = im->in[0];
  onnx_value *out = sfi_onnx_output(im, 0);
  int64_t strides[SF_MAX_RANK], dims[SF_MAX_RANK], steps[SF_MAX_RANK], offset = 0;
  sfi_shape shape = v->shape;
  sfi_onnx_strides(v, strides);
  for (int32_t i = 0; i < shape.rank; i++) {
    bool spread_out = v->dims[i] == 1 && !sfi_is(v->shape.dims[i], 1); /* each element is the same one */
    bool all = spread_out || boxes[i].whole;
    if (!all && !sfi_is_const(v->shape.dims[i])) return UNSUPPORTED(im, "a part of a symbolic extent");
    dims[i] = all ? v->dims[i] : boxes[i].count;
    steps[i] = spread_out ? 0 : strides[i] * (all ? 1 : boxes[i].step);
    if (!all && boxes[i].count) offset += strides[i] * boxes[i].start;
    shape.dims[i] = boxes[i].extent;
    if (spread_out && boxes[i].count == 0) return UNSUPPORTED(im, "extent 0");
  }
  if (!out) return true;
  if (!sfi_onnx_view(im, v, shape.rank, dims, offset, steps, out)) return false;
  out->shape = shape;
  return true;
}

bool sfi_import_slice(importer *im) {
  const onnx_value *v = im->in[0];
  int32_t rank = v->shape.rank, n_starts, n_ends, n_axes = -1, n_steps = -1;
  sfi_poly starts[SF_MAX_RANK], ends[SF_MAX_RANK];
  int64_t axes[SF_MAX_RANK], steps[SF_MAX_RANK];
  box boxes[SF_MAX_RANK];
  bool seen[SF_MAX_RANK] = {false};
  if (!sfi_onnx_list(im, 1, SF_MAX_RANK, starts, &n_starts) || !sfi_onnx_list(im, 2, SF_MAX_RANK, ends, &n_ends)) return false;
  if (sfi_onnx_given(im, 3) && !sfi_onnx_numbers(im, 3, SF_MAX_RANK, axes, &n_axes)) return false;
  if (sfi_onnx_given(im, 4) && !sfi_onnx_numbers(im, 4, SF_MAX_RANK, steps, &n_steps)) return false;
  if (n_ends != n_starts || (n_axes >= 0 && n_axes != n_starts) || (n_steps >= 0 && n_steps != n_starts) || n_starts > rank) {
    return INVALID(im, "starts, ends, axes and steps of different lengths");
  }
  for (int32_t i = 0; i < rank; i++) {
    if (!clip_box(im, v->shape.dims[i], sfi_const(0), v->shape.dims[i], 1, &boxes[i])) return false;
  }
  for (int32_t i = 0; i < n_starts; i++) {
    int32_t axis;
    if (!sfi_onnx_axis(im, n_axes >= 0 ? axes[i] : i, rank, &axis)) return false;
    if (seen[axis]) return INVALID(im, "axis %d twice", axis);
    seen[axis] = true;
    if (!clip_box(im, v->shape.dims[axis], starts[i], ends[i], n_steps >= 0 ? steps[i] : 1, &boxes[axis])) return false;
  }
  if (v->kind == VALUE_STATIC) return slice_static(im, boxes);
  sf_value x;
  if (!sfi_onnx_operand(im, 0, true, &x)) return false;
  onnx_type type = v->type;
  sfi_shape shape = v->shape;
  for (int32_t i = 0; i < rank; i++) {
    if (boxes[i].whole) continue;
    if (boxes[i].step < 0) return UNSUPPORTED(im, "a step below 0 at run time");
    if (!boxes[i].table || boxes[i].start) x = sliced(im, x, i, boxes[i].start, boxes[i].end, boxes[i].step);
    shape.dims[i] = boxes[i].table || x == SF_NO_VALUE ? boxes[i].extent : sfi_onnx_shape_of(im, x)->dims[i];
  }
  if (!sfi_onnx_result(im, 0, sfi_onnx_first(im, x, &shape))) return false;
  if (sfi_onnx_output(im, 0)) sfi_onnx_output(im, 0)->type = type;
  return true;
}

bool sfi_import_split(importer *im) {
  const onnx_value *v = im->in[0];
  int64_t given, pieces, lengths[64], extent, start = 0;
  int32_t axis, count = im->n_out;
  if (!sfi_onnx_int(im, "axis", 0, &given) || !sfi_onnx_axis(im, given, v->shape.rank, &axis)) return false;
  if (!sfi_is_const(v->shape.dims[axis])) return UNSUPPORTED(im, "of a symbolic extent");
  extent = v->shape.dims[axis].c[0];
  if (!sfi_onnx_int(im, "num_outputs", count, &pieces)) return false;
  if (pieces != count || count < 1 || count > 64) return INVALID(im, "%d results", count);
  if (sfi_onnx_given(im, 1)) {
    int32_t n;
    if (!sfi_onnx_numbers(im, 1, 64, lengths, &n)) return false;
    if (n != count) return INVALID(im, "%d lengths for %d results", n, count);
  } else {
    int64_t each = sfi_ceil_div(extent, count);
    for (int32_t i = 0; i < count; i++) lengths[i] = sfi_max(0, sfi_min(each, extent - i * each));
  }
  for (int32_t i = 0; i < count; start += lengths[i++]) {
    if (lengths[i] < 0 || lengths[i] > extent - start)
      return INVALID(im, "the lengths are not those of the extent %lld", (long long)extent);
    onnx_value *out = sfi_onnx_output(im, i);
    if (v->kind == VALUE_STATIC && sfi_onnx_whole(v)) {
      int64_t strides[SF_MAX_RANK], dims[SF_MAX_RANK];
      sfi_onnx_strides(v, strides);
      memcpy(dims, v->dims, sizeof dims);
      dims[axis] = lengths[i];
      if (out && !sfi_onnx_view(im, v, v->shape.rank, dims, lengths[i] ? start * strides[axis] : 0, strides, out)) return false;
      continue;
    }
    sf_value x;
    onnx_type type = v->type;
    if (!sfi_onnx_operand(im, 0, true, &x) || !sfi_onnx_result(im, i, sliced(im, x, axis, start, start + lengths[i], 1)))
      return false;
    if (out) out->type = type;
  }
  return start == extent || INVALID(im, "the lengths are not those of the extent %lld", (long long)extent);
}

/* ---- gather ------------------------------------------------------------------------------------------------------- */

/* Of known values by known indices. */
static bool gather_static(importer *im, int32_t axis, const int64_t *picks) {
  const onnx_value *v = im->in[0], *index = im->in[1];
  onnx_value *out = sfi_onnx_output(im, 0);
  int64_t strides[SF_MAX_RANK], dims[SF_MAX_RANK], total, inner = 1, outer = 1;
  int32_t rank = v->shape.rank - 1 + index->shape.rank, at = 0;
  if (rank > SF_MAX_RANK) return UNSUPPORTED(im, "more than %d dimensions", SF_MAX_RANK);
  sfi_onnx_strides(v, strides);
  for (int32_t i = 0; i < v->shape.rank; i++) {
    if (i == axis) {
      for (int32_t k = 0; k < index->shape.rank; k++) dims[at++] = index->dims[k];
      continue;
    }
    dims[at++] = v->dims[i];
    if (i < axis) outer *= v->dims[i];
    if (i > axis) inner *= v->dims[i];
  }
  if (!sfi_onnx_count(im, rank, dims, &total)) return false;
  /* The view's steps cannot pick; one pick at a time can, into a list of polynomials or floats. */
  float *floats = v->floats ? sfi_arena_alloc(&im->graph->arena, (size_t)total * sizeof *floats) : NULL;
  sfi_poly *polys = v->floats ? NULL : sfi_arena_alloc(&im->arena, (size_t)total * sizeof *polys);
  if (!floats && !polys) return sfi_onnx_fail_memory(im);
  int64_t n = 0;
  for (int64_t o = 0; o < outer; o++) {
    for (int64_t k = 0; k < index->count; k++) {
      for (int64_t i = 0; i < inner; i++, n++) {
        int64_t from = (o * v->dims[axis] + picks[k]) * inner + i;
        if (floats)
          floats[n] = v->floats[from];
        else
          polys[n] = sfi_onnx_integer(v, from);
      }
    }
  }
  if (!out) return true;
  if (!floats) return sfi_onnx_set_polys(im, out, v->type, rank, dims, total, polys);
  sfi_onnx_set_floats(out, rank, dims, total, floats);
  return true;
}

/* The shape of a result in the model. */
static bool gathered_shape(importer *im, int32_t axis, sfi_shape *out) {
  const sfi_shape *v = &im->in[0]->shape, *index = &im->in[1]->shape;
  *out = (sfi_shape){.rank = v->rank - 1 + index->rank};
  if (out->rank > SF_MAX_RANK) return UNSUPPORTED(im, "more than %d dimensions", SF_MAX_RANK);
  memcpy(out->dims, v->dims, (size_t)axis * sizeof *v->dims);
  memcpy(out->dims + axis, index->dims, (size_t)index->rank * sizeof *index->dims);
  memcpy(out->dims + axis + index->rank, v->dims + axis + 1, (size_t)(v->rank - axis - 1) * sizeof *v->dims);
  return true;
}

static sf_value gathered(importer *im, sf_value x, sf_value ids, int32_t axis) {
  return sfi_onnx_build(im, SF_OP_GATHER, 2, (sf_value[]){x, ids}, 1, &(sf_attr){.id = SF_ATTR_AXIS, .i = axis});
}

/* Of a value of the graph by known indices: a slice where they are neighbours, else a gather. */
static bool gather_known(importer *im, int32_t axis, const int64_t *picks, int64_t count) {
  const onnx_value *v = im->in[0], *index = im->in[1];
  sf_value x, y;
  sfi_shape shape, here;
  bool neighbours = count > 0;
  for (int64_t k = 1; k < count; k++) neighbours &= picks[k] == picks[0] + k;
  if (!neighbours && !sfi_is_const(v->shape.dims[axis]))
    return UNSUPPORTED(im, "indices along a symbolic extent that are no neighbours");
  if (!gathered_shape(im, axis, &shape) || !sfi_onnx_operand(im, 0, true, &x)) return false;
  here = shape;
  for (int32_t i = 0; i < index->shape.rank; i++) here.dims[axis + i] = sfi_const(index->dims[i]);
  if (neighbours) {
    int64_t end = picks[0] + count;
    y = sliced(im, x, axis, picks[0], picks[0] < 0 && end == 0 ? INT64_MAX : end, 1);
    if (index->shape.rank != 1) y = sfi_onnx_reshaped(im, y, &here);
  } else {
    sfi_shape ids = {.rank = index->shape.rank};
    for (int32_t i = 0; i < ids.rank; i++) ids.dims[i] = sfi_const(index->dims[i]);
    int64_t *own = sfi_arena_copy(&im->graph->arena, picks, (size_t)count * sizeof *own);
    if (!own) return sfi_onnx_fail_memory(im);
    bool constant = count <= 16;
    y = gathered(im, x,
                 sfi_graph_add_leaf(im->graph, constant ? SF_OP_CONSTANT : SF_OP_WEIGHT, constant ? NULL : index->name, SF_I64,
                                    &ids, own, true, NULL),
                 axis);
  }
  onnx_type type = v->type;
  if (!sfi_onnx_result_as(im, 0, sfi_onnx_first(im, y, &shape), &shape)) return false;
  if (sfi_onnx_output(im, 0)) sfi_onnx_output(im, 0)->type = type;
  return true;
}

static bool gather_by_run(importer *im, int32_t axis) {
  sf_value x, ids;
  sfi_shape shape;
  onnx_type type = im->in[0]->type;
  if (sfi_onnx_is_float(im->in[1]->type) || im->in[1]->type == ONNX_BOOL) return INVALID(im, "by indices that are no integers");
  if (!gathered_shape(im, axis, &shape) || !sfi_onnx_operand(im, 0, true, &x) || !sfi_onnx_operand(im, 1, false, &ids))
    return false;
  if (!sfi_onnx_result_as(im, 0, gathered(im, x, ids, axis), &shape)) return false;
  if (sfi_onnx_output(im, 0)) sfi_onnx_output(im, 0)->type = type;
  return true;
}

/* Of a list that is as long as the symbolic dimension, whatever extents of 1 stand around it, the dimension in which it is; else -1. */
static int32_t cut_dimension(const onnx_value *index) {
  for (int32_t i = 0; i < index->shape.rank && index->count > 1; i++)
    if (index->dims[i] == index->count) return sfi_is_const(index->shape.dims[i]) ? -1 : i;
  return -1;
}

/* The known indices, counted from the first element where its number is known. A list that is as long as the symbolic dimension ends
 * where the first leaves the extent: a run as long as that is refused. */
static bool read_picks(importer *im, sfi_poly along, int64_t *picks, int64_t *out_count) {
  onnx_value *index = im->in[1];
  bool known = sfi_is_const(along), list = cut_dimension(index) >= 0;
  int64_t extent = along.c[0];
  for (*out_count = 0; *out_count < index->count; ++*out_count) {
    int64_t pick = index->ints[*out_count];
    bool inside = known ? pick >= -extent && pick < extent : pick > INT32_MIN && pick < INT32_MAX;
    if (!inside && list && *out_count > 1) break;
    if (!inside) return INVALID(im, "index %lld is outside of extent %lld", (long long)pick, (long long)extent);
    picks[*out_count] = pick < 0 && known ? pick + extent : pick;
  }
  return true;
}

static bool gather_along(importer *im, int32_t axis) {
  const onnx_value *v = im->in[0];
  onnx_value *index = im->in[1], cut;
  int64_t count;
  if (index->kind != VALUE_STATIC) return gather_by_run(im, axis);
  if (index->floats || index->polys) return UNSUPPORTED(im, "by indices that depend on the symbolic dimension");
  int64_t *picks = sfi_arena_alloc(&im->arena, (size_t)index->count * sizeof *picks);
  if (!picks) return sfi_onnx_fail_memory(im);
  if (!read_picks(im, v->shape.dims[axis], picks, &count)) return false;
  if (count != index->count) {
    cut = *index;
    cut.dims[cut_dimension(index)] = cut.count = count;
    im->in[1] = &cut;
  }
  bool small = v->kind == VALUE_STATIC && sfi_onnx_whole(v) && sfi_onnx_whole(index) && (!v->floats || v->count <= 4096);
  return small ? gather_static(im, axis, picks) : gather_known(im, axis, picks, count);
}

bool sfi_import_gather(importer *im) {
  int64_t given;
  int32_t axis;
  return sfi_onnx_int(im, "axis", 0, &given) && sfi_onnx_axis(im, given, im->in[0]->shape.rank, &axis) && gather_along(im, axis);
}

/* Tuples of one index are a list of indices with a dimension of 1 behind. */
bool sfi_import_gather_nd(importer *im) {
  onnx_value index = *im->in[1];
  int64_t batch;
  if (!sfi_onnx_int(im, "batch_dims", 0, &batch)) return false;
  if (batch != 0) return UNSUPPORTED(im, "attribute 'batch_dims' is %lld", (long long)batch);
  if (im->in[0]->shape.rank < 1 || index.shape.rank < 1) return INVALID(im, "a scalar");
  const int32_t last = --index.shape.rank;
  if (!sfi_is(index.shape.dims[last], 1)) return UNSUPPORTED(im, "tuples of more than one index");
  if (index.kind == VALUE_GRAPH) {
    sfi_shape here = *sfi_onnx_shape_of(im, index.value);
    here.rank = last;
    index.value = sfi_onnx_reshaped(im, index.value, &here);
    if (index.value == SF_NO_VALUE) return sfi_onnx_result(im, 0, index.value);
  }
  im->in[1] = &index;
  return gather_along(im, 0);
}

/* ---- repeated and rearranged -------------------------------------------------------------------------------------- */

bool sfi_import_tile(importer *im) {
  int64_t repeats[SF_MAX_RANK];
  int32_t count;
  sf_value x, copies[ONNX_INPUTS_MAX];
  if (!sfi_onnx_numbers(im, 1, SF_MAX_RANK, repeats, &count)) return false;
  if (count != im->in[0]->shape.rank) return INVALID(im, "%d repeats for rank %d", count, im->in[0]->shape.rank);
  bool same = true;
  for (int32_t i = 0; i < count; i++) same &= repeats[i] == 1;
  if (same) return sfi_onnx_same(im, 0, im->in[0]);
  if (!sfi_onnx_operand(im, 0, true, &x)) return false;
  for (int32_t i = 0; i < count; i++) {
    if (repeats[i] < 1 || repeats[i] > ONNX_INPUTS_MAX) return UNSUPPORTED(im, "%lld repeats", (long long)repeats[i]);
    for (int64_t k = 0; k < repeats[i]; k++) copies[k] = x;
    x = concat_values(im, (int32_t)repeats[i], copies, i);
  }
  return sfi_onnx_result(im, 0, x);
}

/* A constant border; below 0 a border is cut off. */
bool sfi_import_pad(importer *im) {
  const char *mode;
  const sfi_shape *from = &im->in[0]->shape;
  int64_t pads[2 * SF_MAX_RANK], axes[SF_MAX_RANK], before[SF_MAX_RANK] = {0}, after[SF_MAX_RANK] = {0};
  int32_t count, n_axes = from->rank;
  double value = 0;
  sf_value x;
  if (!sfi_onnx_text(im, "mode", "constant", &mode)) return false;
  if (strcmp(mode, "constant") != 0) return UNSUPPORTED(im, "attribute 'mode' is \"%.40s\"", mode);
  if (!sfi_onnx_given(im, 1)) return INVALID(im, "operand 1 is left out");
  if (!sfi_onnx_numbers(im, 1, 2 * SF_MAX_RANK, pads, &count)) return false;
  if (sfi_onnx_given(im, 2) && !sfi_onnx_number(im, 2, &value)) return false;
  for (int32_t i = 0; i < from->rank; i++) axes[i] = i;
  if (sfi_onnx_given(im, 3) && !sfi_onnx_numbers(im, 3, SF_MAX_RANK, axes, &n_axes)) return false;
  if (count != 2 * n_axes) return INVALID(im, "%d pads for %d dimensions", count, n_axes);
  if (!sfi_onnx_operand(im, 0, true, &x)) return false;
  for (int32_t i = 0; i < n_axes; i++) {
    int32_t axis;
    if (!sfi_onnx_axis(im, axes[i], from->rank, &axis)) return false;
    if (pads[i] < -INT32_MAX || pads[n_axes + i] < -INT32_MAX) return INVALID(im, "a pad of %lld", (long long)pads[i]);
    int64_t skip = sfi_max(0, -pads[i]), drop = sfi_max(0, -pads[n_axes + i]);
    if (skip || drop) x = sliced(im, x, axis, skip, drop ? -drop : INT64_MAX, 1);
    before[axis] = sfi_max(0, pads[i]);
    after[axis] = sfi_max(0, pads[n_axes + i]);
  }
  sf_attr attrs[] = {{.id = SF_ATTR_BEFORE, .count = from->rank, .ints = before},
                     {.id = SF_ATTR_AFTER, .count = from->rank, .ints = after},
                     {.id = SF_ATTR_VALUE, .f = value}};
  return sfi_onnx_result(im, 0, sfi_onnx_build(im, SF_OP_PAD, 1, &x, 3, attrs));
}

/* x[n, c, h, w] cut into `six` and put together again as `four`. */
static bool rearrange(importer *im, const sfi_poly *six, const int64_t *perm, const sfi_poly *four) {
  sfi_shape wide = {.rank = 6}, shape = {.rank = 4};
  sf_value x;
  memcpy(wide.dims, six, sizeof wide.dims);
  memcpy(shape.dims, four, 4 * sizeof *four);
  if (!sfi_onnx_operand(im, 0, true, &x)) return false;
  x = sfi_onnx_transposed(im, sfi_onnx_reshaped(im, x, &wide), 6, perm);
  return sfi_onnx_result(im, 0, sfi_onnx_reshaped(im, x, &shape));
}

static bool block_size(importer *im, int64_t *out, int64_t dims[4]) {
  const sfi_shape *shape = &im->in[0]->shape;
  if (!sfi_onnx_int(im, "blocksize", 0, out)) return false;
  if (*out < 1 || *out > INT32_MAX) return INVALID(im, "attribute 'blocksize' is %lld", (long long)*out);
  if (shape->rank != 4) return INVALID(im, "rank %d, not 4", shape->rank);
  for (int32_t i = 1; i < 4; i++) {
    if (!sfi_is_const(shape->dims[i])) return UNSUPPORTED(im, "a symbolic extent beside the first");
    dims[i] = shape->dims[i].c[0];
  }
  return true;
}

bool sfi_import_depth_to_space(importer *im) {
  int64_t b, d[4];
  const char *mode;
  if (!block_size(im, &b, d) || !sfi_onnx_text(im, "mode", "DCR", &mode)) return false;
  if (d[1] % (b * b)) return INVALID(im, "%lld channels are not whole blocks", (long long)d[1]);
  bool crd = strcmp(mode, "CRD") == 0;
  if (!crd && strcmp(mode, "DCR") != 0) return INVALID(im, "attribute 'mode' is \"%.40s\"", mode);
  sfi_poly n = im->in[0]->shape.dims[0], B = sfi_const(b), C = sfi_const(d[1] / (b * b)), H = sfi_const(d[2]), W = sfi_const(d[3]);
  return rearrange(im, crd ? (sfi_poly[]){n, C, B, B, H, W} : (sfi_poly[]){n, B, B, C, H, W},
                   crd ? (int64_t[]){0, 1, 4, 2, 5, 3} : (int64_t[]){0, 3, 4, 1, 5, 2},
                   (sfi_poly[]){n, C, sfi_const(d[2] * b), sfi_const(d[3] * b)});
}

bool sfi_import_space_to_depth(importer *im) {
  int64_t b, d[4];
  if (!block_size(im, &b, d)) return false;
  if (d[2] % b || d[3] % b) return INVALID(im, "the image is not whole blocks");
  sfi_poly n = im->in[0]->shape.dims[0], B = sfi_const(b), C = sfi_const(d[1]), H = sfi_const(d[2] / b), W = sfi_const(d[3] / b);
  return rearrange(im, (sfi_poly[]){n, C, H, B, W, B}, (int64_t[]){0, 3, 5, 1, 2, 4},
                   (sfi_poly[]){n, sfi_const(d[1] * b * b), H, W});
}

bool sfi_import_trilu(importer *im) {
  const onnx_value *v = im->in[0];
  onnx_value *out = sfi_onnx_output(im, 0);
  int64_t upper, shift = 0, dims[SF_MAX_RANK], steps[SF_MAX_RANK], strides[SF_MAX_RANK], count;
  if (!sfi_onnx_int(im, "upper", 1, &upper)) return false;
  if (sfi_onnx_given(im, 1)) {
    int32_t one;
    if (!sfi_onnx_numbers(im, 1, 1, &shift, &one)) return false;
    if (one != 1 || shift < -ONNX_FOLD_MAX || shift > ONNX_FOLD_MAX) return INVALID(im, "operand \"%s\"", im->in[1]->name);
  }
  int32_t rank = v->shape.rank;
  if (rank < 2) return INVALID(im, "rank %d", rank);
  if (v->kind != VALUE_STATIC) return UNSUPPORTED(im, "of a value that is not known at import");
  sfi_onnx_strides(v, strides);
  for (int32_t i = 0; i < rank; i++) {
    /* What is the same along the symbolic dimension becomes a table. */
    bool known = sfi_is_const(v->shape.dims[i]);
    dims[i] = known ? v->shape.dims[i].c[0] : v->dims[i] != 1 ? v->dims[i] : ONNX_SQUARE_MAX;
    if (!known && i < rank - 2 && v->dims[i] == 1) dims[i] = 1;
    if (!known && !sfi_poly_equal(v->shape.dims[i], (sfi_poly){{0, 1, 0}})) return UNSUPPORTED(im, "of such a symbolic extent");
    steps[i] = v->dims[i] == 1 ? 0 : strides[i];
  }
  onnx_value made = {.name = ""};
  if (!sfi_onnx_count(im, rank, dims, &count) || !sfi_onnx_view(im, v, rank, dims, 0, steps, &made)) return false;
  for (int64_t i = 0; i < count; i++) {
    int64_t column = i % dims[rank - 1], row = i / dims[rank - 1] % dims[rank - 2], over = column - row - shift;
    if (upper ? over >= 0 : over <= 0) continue;
    if (made.floats)
      ((float *)made.floats)[i] = 0; /* the view's own list */
    else if (made.ints)
      ((int64_t *)made.ints)[i] = 0;
    else
      return UNSUPPORTED(im, "of the symbolic dimension as a number");
  }
  made.shape = v->shape;
  return !out || sfi_onnx_same(im, 0, &made);
}
