/* Loops over iteration spaces. See space.h; panels and masks: plan.h. */
#include "space.h"
#include "contraction.h"

LLVMValueRef sfi_dimension_end(sfi_emission *e, const sfi_point *p, int32_t d) {
  const sfi_ragged *r = &e->kernel->ragged;
  LLVMValueRef end = sfi_extent_value(e, e->kernel->extent[d]);
  if (!r->width || d != r->lane) return end;
  LLVMValueRef before = sfi_muli(e, p->index[r->panel], sfi_i64(e, r->width));
  return sfi_mini(e, end, LLVMBuildNSWSub(e->builder, sfi_poly_value(e, r->columns), before, ""));
}

bool sfi_writes_panels(const sfi_emission *e) {
  const sfi_kernel *k = e->kernel;
  return k->ragged.width && k->ragged.lane == k->rank - 1 && e->plan->buffers[k->operand[0].buffer].panel == k->ragged.width &&
         k->ragged.width % e->lanes == 0;
}

static void dimensions(sfi_emission *e, sfi_point *p, int32_t d, bool vector, int32_t skip, sfi_point_fn body) {
  const sfi_kernel *k = e->kernel;
  if (d == k->rank) {
    body(e, p);
    return;
  }
  if (d == skip) {
    p->index[d] = sfi_i64(e, 0);
    dimensions(e, p, d + 1, vector, skip, body);
    return;
  }
  bool last = vector && d == k->rank - 1, whole = last && sfi_writes_panels(e);
  LLVMValueRef end = whole ? sfi_i64(e, k->ragged.width) : sfi_dimension_end(e, p, d), zero = sfi_i64(e, 0);
  sfi_loop loop;
  if (!last) {
    sfi_loop_begin(e, &loop, zero, end, sfi_i64(e, 1), NULL, 0);
    p->index[d] = loop.index;
    dimensions(e, p, d + 1, vector, skip, body);
    sfi_loop_end(e, &loop, NULL);
    return;
  }
  p->vector = true;
  p->vector_dim = d;
  p->mask = NULL;
  sfi_loop_begin(e, &loop, zero, LLVMBuildNSWSub(e->builder, end, sfi_i64(e, e->lanes - 1), ""), sfi_i64(e, e->lanes), NULL, 0);
  p->index[d] = loop.index;
  if (whole) {
    LLVMValueRef column = sfi_addi(e, sfi_muli(e, p->index[k->ragged.panel], sfi_i64(e, k->ragged.width)), loop.index);
    p->mask = sfi_mask_below(e, column, sfi_poly_value(e, k->ragged.columns));
  }
  dimensions(e, p, d + 1, vector, skip, body);
  sfi_loop_end(e, &loop, NULL);
  bool ragged = k->ragged.width && d == k->ragged.lane, constant = sfi_is_const(k->extent[d].of) && !ragged;
  if (whole || (constant && sfi_ceil_div(k->extent[d].of.c[0], k->extent[d].div) % e->lanes == 0)) return;
  sfi_if tail;
  sfi_if_begin(e, &tail, LLVMBuildICmp(e->builder, LLVMIntSLT, loop.index, end, ""));
  p->index[d] = loop.index;
  p->mask = sfi_mask_below(e, loop.index, end);
  dimensions(e, p, d + 1, vector, skip, body);
  sfi_if_end(e, &tail, NULL, NULL, NULL, 0);
}

void sfi_tile_indices(sfi_emission *e, sfi_point *p, LLVMValueRef tile) {
  const sfi_kernel *k = e->kernel;
  LLVMValueRef rest = tile;
  for (int32_t d = k->tile_dims - 1; d >= 0; d--) {
    LLVMValueRef extent = sfi_extent_value(e, k->extent[d]);
    p->index[d] = d ? LLVMBuildURem(e->builder, rest, extent, "") : rest;
    rest = d ? LLVMBuildUDiv(e->builder, rest, extent, "") : rest;
  }
}

void sfi_space_walk(sfi_emission *e, bool vector, int32_t skip, sfi_point_fn body) {
  const sfi_kernel *k = e->kernel;
  sfi_point p = {.rank = k->rank, .vector = vector && k->rank > 0, .vector_dim = k->rank - 1};
  sfi_loop tile;
  sfi_loop_begin(e, &tile, e->tile_begin, e->tile_end, sfi_i64(e, 1), NULL, 0);
  sfi_tile_indices(e, &p, tile.index);
  sfi_if inside;
  bool guarded = k->ragged.width && k->ragged.lane < k->tile_dims;
  if (guarded)
    sfi_if_begin(e, &inside,
                 LLVMBuildICmp(e->builder, LLVMIntSLT, p.index[k->ragged.lane], sfi_dimension_end(e, &p, k->ragged.lane), ""));
  dimensions(e, &p, k->tile_dims, vector && k->rank > 0, skip, body);
  if (guarded) sfi_if_end(e, &inside, NULL, NULL, NULL, 0);
  sfi_loop_end(e, &tile, NULL);
}

/* Not memcpy: it is undefined for NULL, which both are where nothing is carried. */
static void copy(LLVMValueRef *to, const LLVMValueRef *from, size_t n) {
  for (size_t i = 0; i < n; i++) to[i] = from[i];
}

static void inner(sfi_emission *e, sfi_point *p, int32_t d, int32_t last, const sfi_extent *extent, bool vector_last,
                  LLVMValueRef *carried, unsigned n, sfi_step_fn step, void *user) {
  if (d > last) {
    step(e, p, carried, user);
    return;
  }
  bool vector = vector_last && d == last;
  LLVMValueRef end = sfi_extent_value(e, *extent), next[SFI_CARRIED_MAX];
  LLVMValueRef full = vector ? LLVMBuildNSWSub(e->builder, end, sfi_i64(e, e->lanes - 1), "") : end;
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), full, sfi_i64(e, vector ? e->lanes : 1), carried, n);
  copy(next, loop.carried, n);
  p->index[d] = loop.index;
  if (vector) p->vector = true, p->vector_dim = d, p->mask = NULL;
  inner(e, p, d + 1, last, extent + 1, vector_last, next, n, step, user);
  sfi_loop_end(e, &loop, next);
  copy(carried, loop.carried, n);
  if (!vector || (sfi_is_const(extent->of) && sfi_ceil_div(extent->of.c[0], extent->div) % e->lanes == 0)) return;
  sfi_if tail;
  sfi_if_begin(e, &tail, LLVMBuildICmp(e->builder, LLVMIntSLT, loop.index, end, ""));
  copy(next, carried, n);
  p->index[d] = loop.index;
  p->mask = sfi_mask_below(e, loop.index, end);
  inner(e, p, d + 1, last, extent + 1, vector_last, next, n, step, user);
  sfi_if_end(e, &tail, next, loop.carried, carried, n);
}

void sfi_inner_walk(sfi_emission *e, const sfi_point *at, int32_t first, int32_t dims, const sfi_extent *extent, bool vector_last,
                    LLVMValueRef *carried, unsigned n_carried, sfi_step_fn step, void *user) {
  sfi_point p = *at;
  if (p.rank < first + dims) p.rank = first + dims;
  inner(e, &p, first, first + dims - 1, extent, vector_last, carried, n_carried, step, user);
}

double sfi_space_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol, double cycles) {
  double points = 1;
  for (int32_t d = 0; d < k->rank; d++) {
    int64_t n = 0;
    sfi_extent_eval(k->extent[d], symbol, &n);
    points *= (double)n;
  }
  for (int32_t d = 0; k->anchor == SFI_ANCHOR_REDUCE && d < k->reduce_rank; d++) {
    int64_t n = 0;
    sfi_extent_eval(k->reduce_extent[d], symbol, &n);
    points *= (double)n;
  }
  return sfi_cycles_us(plan->target, points / plan->target->lanes * (cycles + 2 * k->epilogue.n));
}
