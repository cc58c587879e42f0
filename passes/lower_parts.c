/* The parts that lowering builds kernels from: checked polynomials, buffers, kernels, iteration spaces and accesses.
 * Spaces merge neighbouring dimensions wherever every operand allows, so that loops are few and long. */
#include "lower.h"

enum {
  FLAT = 4096,       /* elements of one tile of a flat space */
  TILE_POINTS = 2048 /* least worth a tile of its own */
};

/* ---- errors and polynomials --------------------------------------------------------------------------------------- */

sf_status sfi_low_fail_memory(sfi_lowering *l) {
  if (l->status == SF_OK) l->status = sfi_fail_memory(l->env->diag);
  return l->status;
}

static sfi_poly too_large(sfi_lowering *l) {
  const sfi_node *node = &l->graph->nodes[l->node];
  if (l->status == SF_OK) {
    l->status = sfi_fail(l->env->diag, SF_STATUS_UNSUPPORTED, &node->place, sfi_op_of(node->op)->text,
                         "an address is not a polynomial of degree 2 in the symbolic dimension, or too large");
  }
  return sfi_const(1);
}

sfi_poly sfi_low_mul(sfi_lowering *l, sfi_poly a, sfi_poly b) {
  sfi_poly out;
  return sfi_poly_mul(a, b, &out) ? out : too_large(l);
}

sfi_poly sfi_low_add(sfi_lowering *l, sfi_poly a, sfi_poly b) {
  sfi_poly out;
  return sfi_poly_add(a, b, &out) ? out : too_large(l);
}

sfi_poly sfi_low_product(sfi_lowering *l, const sfi_poly *dims, int32_t n) {
  sfi_poly product = sfi_const(1);
  for (int32_t i = 0; i < n; i++) product = sfi_low_mul(l, product, dims[i]);
  return product;
}

int64_t sfi_low_bound(const sfi_lowering *l, sfi_poly p) {
  int64_t value;
  if (sfi_is_const(p)) return p.c[0];
  if (l->plan->symbol_max == INT64_MAX || !sfi_poly_eval(p, l->plan->symbol_max, &value)) return INT64_MAX;
  return value;
}

/* ---- buffers and kernels ------------------------------------------------------------------------------------------ */

/* Room for one more element of an array in the plan's arena. */
static void *grow(sfi_lowering *l, void *items, size_t n, size_t *capacity, size_t size) {
  if (n < *capacity) return items;
  size_t wanted = *capacity ? 2 * *capacity : 16;
  void *grown = sfi_arena_alloc(&l->plan->arena, wanted * size);
  if (!grown) {
    sfi_low_fail_memory(l);
    return NULL;
  }
  if (n) memcpy(grown, items, n * size);
  *capacity = wanted;
  return grown;
}

int32_t sfi_low_buffer(sfi_lowering *l, const sfi_buffer *buffer) {
  sfi_plan *plan = l->plan;
  sfi_buffer *grown = grow(l, plan->buffers, plan->n_buffers, &plan->buffers_capacity, sizeof *grown);
  if (!grown) return 0;
  plan->buffers = grown;
  plan->buffers[plan->n_buffers] = *buffer;
  return (int32_t)plan->n_buffers++;
}

int32_t sfi_low_temp(sfi_lowering *l, sf_value value, const sfi_shape *shape, bool panels) {
  const int32_t lead = shape->rank ? shape->rank - 1 : 0;
  sfi_buffer buffer = {.kind = SFI_BUFFER_TEMP,
                       .value = value,
                       .dtype = value == SF_NO_VALUE ? SF_F32 : l->graph->nodes[value].dtype,
                       .panel = panels ? l->panel : 0,
                       .columns = sfi_low_product(l, shape->dims, lead),
                       .features = shape->rank ? shape->dims[lead] : sfi_const(1)};
  return sfi_low_buffer(l, &buffer);
}

sfi_kernel sfi_low_kernel(const sfi_lowering *l, sfi_anchor anchor) {
  sfi_kernel kernel = {.anchor = anchor, .node = l->node, .n_operands = 1};
  kernel.contract.weight = SF_NO_VALUE;
  kernel.contract.fold = 1;
  if (anchor != SFI_ANCHOR_MAP) {
    kernel.epilogue.n = 1;
    kernel.epilogue.steps[0] = (sfi_step){.kind = SFI_STEP_ARG};
  }
  return kernel;
}

int32_t sfi_low_operand(sfi_kernel *kernel, const sfi_access *access) {
  for (int32_t i = 1; i < kernel->n_operands; i++) {
    if (memcmp(&kernel->operand[i], access, sizeof *access) == 0) return i;
  }
  assert(kernel->n_operands < SFI_OPERANDS_MAX); /* lowering makes one operation a kernel; only fusion nears the limit */
  kernel->operand[kernel->n_operands] = *access;
  return kernel->n_operands++;
}

int32_t sfi_low_step(sfi_expr *expr, sfi_step step) {
  assert(expr->n < SFI_STEPS_MAX);
  expr->steps[expr->n] = step;
  return expr->n++;
}

int32_t sfi_low_load(sfi_expr *expr, int32_t operand) {
  for (int32_t i = 0; i < expr->n; i++) {
    if (expr->steps[i].kind == SFI_STEP_LOAD && expr->steps[i].operand == operand) return i;
  }
  return sfi_low_step(expr, (sfi_step){.kind = SFI_STEP_LOAD, .operand = operand});
}

void sfi_low_push(sfi_lowering *l, sfi_kernel *kernel) {
  sfi_plan *plan = l->plan;
  if (l->status != SF_OK) return;
  sfi_kernel *grown = grow(l, plan->kernels, plan->n_kernels, &plan->kernels_capacity, sizeof *grown);
  if (!grown) return;
  plan->kernels = grown;
  plan->kernels[plan->n_kernels++] = *kernel;
}

/* ---- spaces ------------------------------------------------------------------------------------------------------- */

bool sfi_low_merge(sfi_lowering *l, const sfi_shape *shape, const sfi_poly *stride, int32_t from, int32_t to, sfi_poly *out) {
  sfi_poly expected = sfi_const(0);
  bool first = true;
  *out = sfi_const(0);
  for (int32_t d = to - 1; d >= from; d--) {
    if (sfi_is(shape->dims[d], 1)) continue;
    if (first)
      *out = stride[d];
    else if (!sfi_poly_equal(stride[d], expected))
      return false;
    expected = sfi_low_mul(l, stride[d], shape->dims[d]);
    first = false;
  }
  return true;
}

void sfi_low_group(sfi_lowering *l, const sfi_shape *shape, const sfi_view *const *views, int32_t n_views, int32_t from, int32_t to,
                   sfi_grouping *out) {
  out->start[out->n] = from;
  for (int32_t d = from; d < to; d++) {
    bool merges = true;
    for (int32_t i = 0; merges && i < n_views; i++) {
      sfi_poly stride;
      merges = sfi_low_merge(l, shape, views[i]->stride, out->start[out->n], d + 1, &stride);
    }
    if (!merges) out->start[++out->n] = d;
  }
  out->start[++out->n] = to;
}

bool sfi_low_suits(sfi_lowering *l, const sfi_shape *shape, const sfi_view *view, const sfi_grouping *grouping) {
  sfi_poly stride;
  for (int32_t g = 0; g < grouping->n; g++) {
    if (!sfi_low_merge(l, shape, view->stride, grouping->start[g], grouping->start[g + 1], &stride)) return false;
  }
  return true;
}

void sfi_low_space(sfi_lowering *l, sfi_kernel *kernel, const sfi_shape *shape, const sfi_grouping *grouping) {
  kernel->rank = grouping->n;
  for (int32_t g = 0; g < grouping->n; g++) {
    const int32_t from = grouping->start[g];
    kernel->extent[g] = (sfi_extent){sfi_low_product(l, shape->dims + from, grouping->start[g + 1] - from), 1};
  }
  const sfi_poly columns = kernel->extent[0].of;
  if (grouping->n != 1 || (sfi_is_const(columns) && columns.c[0] <= FLAT)) return;
  kernel->rank = 2;
  kernel->extent[0].div = FLAT;
  kernel->extent[1] = (sfi_extent){sfi_const(FLAT), 1};
  kernel->ragged = (sfi_ragged){.width = FLAT, .panel = 0, .lane = 1, .columns = columns};
}

sfi_access sfi_low_access(sfi_lowering *l, const sfi_kernel *kernel, const sfi_shape *shape, const sfi_view *view,
                          const sfi_grouping *grouping) {
  sfi_access access = {.buffer = view->buffer, .offset = view->offset};
  for (int32_t g = 0; g < grouping->n; g++) {
    bool merges = sfi_low_merge(l, shape, view->stride, grouping->start[g], grouping->start[g + 1], &access.stride[g]);
    assert(merges);
    (void)merges;
  }
  if (grouping->n == 1 && kernel->ragged.width) {
    access.stride[1] = access.stride[0];
    access.stride[0] = sfi_low_mul(l, access.stride[0], sfi_const(kernel->ragged.width));
  }
  return access;
}

void sfi_low_panel_space(sfi_lowering *l, sfi_kernel *kernel, const sfi_shape *shape) {
  const int32_t lead = shape->rank ? shape->rank - 1 : 0;
  const sfi_poly columns = sfi_low_product(l, shape->dims, lead);
  kernel->rank = 3;
  kernel->extent[0] = (sfi_extent){columns, l->panel};
  kernel->extent[1] = (sfi_extent){shape->rank ? shape->dims[lead] : sfi_const(1), 1};
  kernel->extent[2] = (sfi_extent){sfi_const(l->panel), 1};
  kernel->ragged = (sfi_ragged){.width = l->panel, .panel = 0, .lane = 2, .columns = columns};
}

sfi_access sfi_low_panel_access(sfi_lowering *l, int32_t buffer, sfi_poly first) {
  const sfi_poly panel = sfi_const(l->panel), features = l->plan->buffers[buffer].features;
  return (sfi_access){
      .buffer = buffer, .offset = sfi_low_mul(l, first, panel), .stride = {sfi_low_mul(l, features, panel), panel, sfi_const(1)}};
}

bool sfi_low_panel_row_access(sfi_lowering *l, const sfi_shape *shape, const sfi_view *view, sfi_access *out) {
  const int32_t lead = shape->rank ? shape->rank - 1 : 0;
  sfi_poly column;
  if (!sfi_low_merge(l, shape, view->stride, 0, lead, &column)) return false;
  *out = (sfi_access){.buffer = view->buffer, .offset = view->offset};
  out->stride[0] = sfi_low_mul(l, column, sfi_const(l->panel));
  out->stride[1] = shape->rank ? view->stride[lead] : sfi_const(0);
  out->stride[2] = column;
  return true;
}

void sfi_low_tile(const sfi_lowering *l, sfi_kernel *kernel, int32_t limit) {
  const int64_t symbol = sfi_max(l->plan->symbol_min, sfi_min(l->plan->symbol_max, 64));
  int64_t inner = 1, extent;
  if (limit > kernel->rank - 1) limit = kernel->rank - 1;
  kernel->tile_dims = 0;
  for (int32_t d = kernel->rank - 1; d >= 0; d--) {
    if (d < limit && (inner >= TILE_POINTS || d == 0)) {
      kernel->tile_dims = d + 1;
      return;
    }
    if (!sfi_extent_eval(kernel->extent[d], symbol, &extent)) extent = 1;
    if (!sfi_mul(inner, extent, &inner)) inner = INT64_MAX;
  }
}
