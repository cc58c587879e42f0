/* Addresses of a plan: the lowest and the highest element that each operand of a kernel can touch, against the size of its buffer. Tried
 * at several values of the symbol, as addresses are polynomials in it. */
#include "plan_reach.h"

/* Lowest and highest sum of index * stride over some indices. */
typedef struct range {
  int64_t low, high;
  bool good, empty; /* good: nothing overflowed */
} range;

static void add_index(range *r, int64_t extent, int64_t stride) {
  int64_t reach;
  if (extent <= 0)
    r->empty = true;
  else if (!sfi_mul(extent - 1, stride, &reach))
    r->good = false;
  else if (!sfi_add(reach < 0 ? r->low : r->high, reach, reach < 0 ? &r->low : &r->high))
    r->good = false;
}

static void add_dimension(range *r, sfi_extent e, sfi_poly stride, int64_t symbol) {
  int64_t extent, step;
  if (!sfi_extent_eval(e, symbol, &extent) || !sfi_poly_eval(stride, symbol, &step))
    r->good = false;
  else
    add_index(r, extent, step);
}

static range start(sfi_poly offset, int64_t symbol) {
  range r = {.good = true};
  r.good = sfi_poly_eval(offset, symbol, &r.low);
  r.high = r.low;
  return r;
}

/* An operand addressed by the space's indices. In a ragged space the columns that exist count; panels are touched whole. */
static range of_space(const sfi_plan *plan, const sfi_kernel *kernel, const sfi_access *access, int64_t symbol) {
  range r = start(access->offset, symbol);
  const sfi_ragged *ragged = &kernel->ragged;
  const bool columns = ragged->width && plan->buffers[access->buffer].panel == 0;
  for (int32_t d = 0; d < kernel->rank; d++) {
    if (columns && d == ragged->panel) continue;
    if (columns && d == ragged->lane)
      add_dimension(&r, (sfi_extent){ragged->columns, 1}, access->stride[d], symbol);
    else
      add_dimension(&r, kernel->extent[d], access->stride[d], symbol);
  }
  for (int32_t d = 0; d < kernel->reduce_rank; d++) {
    add_dimension(&r, kernel->reduce_extent[d], access->stride[kernel->rank + d], symbol);
  }
  /* A position at which is written is checked by each run. */
  if (access->index && access != &kernel->operand[0])
    add_dimension(&r, (sfi_extent){sfi_const(access->index_extent), 1}, access->index_stride, symbol);
  return r;
}

static range of_pool(const sfi_kernel *kernel, int64_t symbol) {
  const sfi_access *access = &kernel->operand[1];
  range r = start(access->offset, symbol);
  for (int32_t d = 0; d < 2; d++) add_dimension(&r, kernel->extent[d], access->stride[d], symbol);
  add_dimension(&r, (sfi_extent){sfi_const(kernel->pool.in_height), 1}, access->stride[2], symbol);
  add_dimension(&r, (sfi_extent){sfi_const(kernel->pool.in_width), 1}, access->stride[3], symbol);
  return r;
}

static range of_x(const sfi_kernel *kernel, int64_t symbol) {
  const sfi_access *access = &kernel->operand[1];
  const sfi_contract *c = &kernel->contract;
  range r = start(access->offset, symbol);
  int64_t columns = 0;
  add_dimension(&r, kernel->extent[0], access->stride[0], symbol);
  if (c->in_place) {
    add_dimension(&r, (sfi_extent){sfi_const(c->depth.c[0] / (c->window[0].taps * c->window[1].taps)), 1}, access->stride[1],
                  symbol);
    for (int i = 0; i < 2; i++)
      add_dimension(&r, (sfi_extent){sfi_const(c->window[i].in), 1}, sfi_const(c->window[i].step), symbol);
    return r;
  }
  if (c->k_offset) {
    int64_t furthest = -1; /* no k reads nothing */
    for (int64_t k = 0; k < c->depth.c[0]; k++) {
      furthest = sfi_max(furthest, c->k_offset[k]);
      if (c->k_offset[k] < 0) r.good = false;
    }
    add_index(&r, furthest + 1, 1);
  } else {
    add_dimension(&r, (sfi_extent){c->depth, 1}, access->stride[1], symbol);
  }
  if (!sfi_extent_eval(kernel->extent[2], symbol, &columns)) r.good = false;
  if (c->valid && columns > 0) columns = sfi_ceil_div(sfi_ceil_div(columns, c->valid), c->fold) * c->pitch + SFI_IMAGE_SLACK;
  add_index(&r, columns, 1);
  return r;
}

static range of_a(const sfi_kernel *kernel, int64_t symbol) {
  const sfi_access *access = &kernel->operand[2];
  range r = start(access->offset, symbol);
  for (int32_t d = 0; d < 2; d++) add_dimension(&r, kernel->extent[d], access->stride[d], symbol);
  add_dimension(&r, (sfi_extent){kernel->contract.depth, 1}, access->stride[2], symbol);
  return r;
}

/* Queries and keys that exist count, panels are touched whole; q and k have features of their own, k and v heads of their own. */
static range of_attention(const sfi_plan *plan, const sfi_kernel *kernel, int32_t operand, int64_t symbol) {
  const sfi_access *access = &kernel->operand[operand];
  const sfi_attend *a = &kernel->attend;
  range r = start(access->offset, symbol);
  const bool panels = plan->buffers[access->buffer].panel != 0, of_keys = operand == 2 || operand == 3;
  int64_t heads = 0;
  if (operand && operand == a->position) return r;
  add_dimension(&r, kernel->extent[0], access->stride[0], symbol);
  if (!sfi_extent_eval(kernel->extent[1], symbol, &heads)) r.good = false;
  add_dimension(&r, (sfi_extent){sfi_const(of_keys ? heads / a->group : heads), 1}, access->stride[1], symbol);
  add_dimension(&r, operand == 1 || operand == 2 ? (sfi_extent){sfi_const(a->depth), 1} : kernel->extent[3], access->stride[3],
                symbol);
  if (panels && !of_keys) add_dimension(&r, kernel->extent[2], access->stride[2], symbol);
  if (!of_keys) add_dimension(&r, panels ? kernel->extent[4] : (sfi_extent){kernel->ragged.columns, 1}, access->stride[4], symbol);
  if (panels && of_keys) add_dimension(&r, kernel->reduce_extent[0], access->stride[5], symbol);
  if (of_keys || operand == a->mask)
    add_dimension(&r, panels ? kernel->reduce_extent[1] : (sfi_extent){a->keys, 1}, access->stride[6], symbol);
  return r;
}

static bool is_bounded(const sfi_kernel *kernel, int32_t operand) {
  for (int32_t b = 0; b < kernel->n_bounds; b++) {
    if (kernel->bound[b].operand == operand) return true;
  }
  return false;
}

static sf_status check_at(const sfi_plan *plan, const sfi_kernel *kernel, int64_t symbol, sfi_diag *diag) {
  const bool product = kernel->anchor == SFI_ANCHOR_PRODUCT, contraction = product || kernel->anchor == SFI_ANCHOR_CONTRACT;
  for (int32_t i = 0; i < kernel->n_operands; i++) {
    const sfi_buffer *buffer = &plan->buffers[kernel->operand[i].buffer];
    size_t bytes = 0;
    if (buffer->kind == SFI_BUFFER_PACKED || is_bounded(kernel, i)) continue;
    const range r = i == 1 && contraction                         ? of_x(kernel, symbol)
                    : i == 2 && product                           ? of_a(kernel, symbol)
                    : kernel->anchor == SFI_ANCHOR_ATTEND         ? of_attention(plan, kernel, i, symbol)
                    : i == 1 && kernel->anchor == SFI_ANCHOR_POOL ? of_pool(kernel, symbol)
                                                                  : of_space(plan, kernel, &kernel->operand[i], symbol);
    const bool sized = r.good && sfi_buffer_bytes(buffer, symbol, &bytes);
    if (sized && (r.empty || (r.low >= 0 && (uint64_t)r.high < bytes / sfi_dtype_of(buffer->dtype)->bytes))) continue;
    return sfi_fail(diag, SF_STATUS_INTERNAL, NULL, NULL,
                    "plan: %s: operand %d reaches from %lld to %lld of b%d, which has %zu bytes, at symbol %lld", kernel->name, i,
                    (long long)r.low, (long long)r.high, kernel->operand[i].buffer, bytes, (long long)symbol);
  }
  return SF_OK;
}

sf_status sfi_check_reach(const sfi_plan *plan, const sfi_kernel *kernel, const sfi_symbol_limits *limits, sfi_diag *diag) {
  const int64_t tried[] = {0, 1, 2, 17, 64, 100};
  if (kernel->anchor == SFI_ANCHOR_NODE) return SF_OK;
  for (size_t i = 0; i < SFI_COUNT(tried); i++) {
    if (plan->symbol_min > plan->symbol_max - tried[i]) break;
    const int64_t symbol = plan->symbol_min + tried[i];
    if (symbol < limits->least || symbol > limits->most) continue; /* no run */
    const sf_status st = check_at(plan, kernel, symbol, diag);
    if (st != SF_OK) return st;
  }
  return SF_OK;
}
