/* Where values are and how they move. Transposes, slices and most reshapes only change the view of the same buffer; what cannot
 * be seen so is copied by a MAP kernel. Conversions between rows and panels are made once and remembered. */
#include "lower.h"

void sfi_low_dense_strides(sfi_lowering *l, const sfi_shape *shape, sfi_poly *stride) {
  sfi_poly product = sfi_const(1);
  for (int32_t d = shape->rank - 1; d >= 0; d--) {
    stride[d] = product;
    product = sfi_low_mul(l, product, shape->dims[d]);
  }
}

void sfi_low_image_strides(sfi_lowering *l, const sfi_shape *shape, int64_t channel, sfi_poly *stride) {
  sfi_low_dense_strides(l, shape, stride);
  if (channel == 0) return;
  stride[1] = sfi_const(channel);
  stride[0] = sfi_low_mul(l, shape->dims[1], stride[1]);
}

bool sfi_low_is_dense(sfi_lowering *l, const sfi_shape *shape, const sfi_view *view) {
  sfi_poly dense[SF_MAX_RANK];
  if (!sfi_is(view->offset, 0)) return false;
  sfi_low_dense_strides(l, shape, dense);
  for (int32_t d = 0; d < shape->rank; d++) {
    if (!sfi_is(shape->dims[d], 1) && !sfi_poly_equal(dense[d], view->stride[d])) return false;
  }
  return true;
}

/* One LOAD, stored as it is. */
static sfi_kernel copy_kernel(sfi_lowering *l) {
  sfi_kernel kernel = sfi_low_kernel(l, SFI_ANCHOR_MAP);
  kernel.node = SF_NO_VALUE;
  sfi_low_load(&kernel.epilogue, 1);
  return kernel;
}

void sfi_low_copy(sfi_lowering *l, const sfi_shape *shape, const sfi_view *from, const sfi_grouping *walk, const sfi_view *to) {
  sfi_kernel kernel = copy_kernel(l);
  const sfi_view *const views[] = {from, to};
  sfi_grouping grouping = {0};
  if (walk && walk->n && sfi_low_suits(l, shape, from, walk) && sfi_low_suits(l, shape, to, walk))
    grouping = *walk;
  else
    sfi_low_group(l, shape, views, 2, 0, shape->rank, &grouping);
  sfi_low_space(l, &kernel, shape, &grouping);
  kernel.operand[0] = sfi_low_access(l, &kernel, shape, to, &grouping);
  kernel.operand[1] = sfi_low_access(l, &kernel, shape, from, &grouping);
  kernel.n_operands = 2;
  sfi_low_tile(l, &kernel, kernel.rank);
  sfi_low_push(l, &kernel);
}

/* Multiples of 2 KB leave at most two places in an L1 of 4 KB a way, of 1 KB four, of 512 bytes eight. Measured on Zen 5 with 128 to 1024
 * columns. */
enum { ALIASED_MOST = 512, ALIASED_LEAST = 128, READERS_AT_MOST = 4 };

bool sfi_low_is_aliased(int64_t elements, double readers) {
  if (elements <= 0 || elements % ALIASED_LEAST) return false;
  const int64_t places = ALIASED_MOST / sfi_min(ALIASED_MOST, elements & -elements);
  return readers >= (double)(READERS_AT_MOST * places * places);
}

int64_t sfi_low_pitch(const sfi_lowering *l, int64_t n) {
  const int64_t lanes = l->plan->target->lanes, pitch = sfi_round_up(n, lanes);
  return pitch % ALIASED_LEAST ? pitch : pitch + lanes;
}

sfi_view sfi_low_densify(sfi_lowering *l, const sfi_shape *shape, const sfi_view *view) {
  sfi_view out = {.buffer = sfi_low_temp(l, SF_NO_VALUE, shape, false)};
  sfi_low_dense_strides(l, shape, out.stride);
  sfi_low_copy(l, shape, view, NULL, &out);
  return out;
}

/* Panels to rows. False where the columns of `to` are not one index. */
static bool unpack(sfi_lowering *l, const sfi_located *value, const sfi_view *to) {
  const sfi_shape *shape = &value->shape;
  sfi_kernel kernel = copy_kernel(l);
  if (!sfi_low_panel_row_access(l, shape, to, &kernel.operand[0])) return false;
  sfi_low_panel_space(l, &kernel, shape);
  kernel.operand[1] = sfi_low_panel_access(l, value->panel, value->feature);
  kernel.n_operands = 2;
  sfi_low_tile(l, &kernel, 2);
  sfi_low_push(l, &kernel);
  return true;
}

sfi_view sfi_low_row(sfi_lowering *l, sf_value v) {
  sfi_located *value = &l->values[v];
  if (value->row.buffer != SFI_NO_BUFFER) return value->row;
  sfi_view row = {.buffer = sfi_low_temp(l, v, &value->shape, false)};
  sfi_low_dense_strides(l, &value->shape, row.stride);
  const bool unpacked = unpack(l, value, &row);
  assert(unpacked); /* dense columns are one index */
  (void)unpacked;
  value->row = row;
  return row;
}

sfi_view sfi_low_dense(sfi_lowering *l, sf_value v) {
  sfi_located *value = &l->values[v];
  sfi_view row = sfi_low_row(l, v);
  if (sfi_low_is_dense(l, &value->shape, &row)) return row;
  value->row = sfi_low_densify(l, &value->shape, &row);
  value->channel = 0;
  value->walk.n = 0;
  return value->row;
}

int32_t sfi_low_panel_of(sfi_lowering *l, const sfi_shape *shape, const sfi_view *view) {
  sfi_kernel kernel = copy_kernel(l);
  sfi_view dense;
  if (!sfi_low_panel_row_access(l, shape, view, &kernel.operand[1])) {
    dense = sfi_low_densify(l, shape, view);
    bool merges = sfi_low_panel_row_access(l, shape, &dense, &kernel.operand[1]);
    assert(merges);
    (void)merges;
  }
  const int32_t buffer = sfi_low_temp(l, SF_NO_VALUE, shape, true);
  sfi_low_panel_space(l, &kernel, shape);
  kernel.operand[0] = sfi_low_panel_access(l, buffer, sfi_const(0));
  kernel.n_operands = 2;
  sfi_low_tile(l, &kernel, 2);
  sfi_low_push(l, &kernel);
  return buffer;
}

sfi_access sfi_low_panel(sfi_lowering *l, sf_value v) {
  sfi_located *value = &l->values[v];
  if (value->panel == SFI_NO_BUFFER) value->panel = sfi_low_panel_of(l, &value->shape, &value->row);
  return sfi_low_panel_access(l, value->panel, value->feature);
}

sfi_view sfi_low_stretch(const sfi_shape *from, const sfi_view *view, int32_t first) {
  sfi_view out = {.buffer = view->buffer, .offset = view->offset};
  for (int32_t i = 0; i < from->rank; i++) {
    if (!sfi_is(from->dims[i], 1)) out.stride[first + i] = view->stride[i];
  }
  return out;
}

void sfi_low_store(sfi_lowering *l, sf_value v, const sfi_view *to) {
  sfi_located *value = &l->values[v];
  if (value->row.buffer == SFI_NO_BUFFER && unpack(l, value, to)) return;
  const sfi_view from = sfi_low_row(l, v);
  sfi_low_copy(l, &value->shape, &from, &value->walk, to);
}

void sfi_low_set_row(sfi_lowering *l, sf_value v, int32_t buffer, const sfi_grouping *walk) {
  sfi_located *value = &l->values[v];
  value->row = (sfi_view){.buffer = buffer};
  value->channel = 0;
  sfi_low_dense_strides(l, &value->shape, value->row.stride);
  if (walk) value->walk = *walk;
}

sfi_access sfi_low_set_panel(sfi_lowering *l, sf_value v) {
  sfi_located *value = &l->values[v];
  value->panel = sfi_low_temp(l, v, &value->shape, true);
  return sfi_low_panel_access(l, value->panel, value->feature);
}

void sfi_low_set_image(sfi_lowering *l, sf_value v, int64_t channel, const sfi_grouping *walk) {
  sfi_located *value = &l->values[v];
  if (channel == 0) {
    sfi_low_set_row(l, v, sfi_low_temp(l, v, &value->shape, false), walk);
    return;
  }
  const sfi_buffer buffer = {.kind = SFI_BUFFER_TEMP,
                             .value = v,
                             .dtype = SF_F32,
                             .columns = sfi_low_product(l, value->shape.dims, 2),
                             .features = sfi_const(channel)};
  sfi_low_set_row(l, v, sfi_low_buffer(l, &buffer), walk);
  sfi_low_image_strides(l, &value->shape, channel, value->row.stride);
  value->channel = channel;
}
