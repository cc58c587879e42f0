/* Every rule of ir/plan.h, as far as it can be read off the records; plan_reach.c adds the addresses. Changes nothing, never allocates.
 * Broken rules are defects of a pass: SF_STATUS_INTERNAL, naming the kernel or buffer. */
#include "plan_reach.h"

#define CHECK(condition, ...)                                                                                                      \
  do {                                                                                                                             \
    if (!(condition)) return sfi_fail(diag, SF_STATUS_INTERNAL, NULL, NULL, __VA_ARGS__);                                          \
  } while (0)
#define CHECK_KERNEL(condition, what) CHECK(condition, "plan: %s: %s", kernel->name, what)

static sf_status check_buffer(const sfi_plan *plan, size_t b, sfi_diag *diag) {
  const sfi_buffer *buffer = &plan->buffers[b];
  const sf_graph *graph = plan->graph;
  size_t ports = buffer->kind == SFI_BUFFER_INPUT ? graph->n_inputs : graph->n_outputs;
  CHECK(sfi_dtype_of(buffer->dtype), "plan: b%zu has no type", b);
  CHECK(buffer->panel >= 0 && buffer->slack >= 0, "plan: b%zu has a negative extent", b);
  CHECK(buffer->kind != SFI_BUFFER_STATIC || (buffer->value >= 0 && sfi_is_static(graph, buffer->value)), "plan: b%zu has no data",
        b);
  if (buffer->kind == SFI_BUFFER_INPUT || buffer->kind == SFI_BUFFER_OUTPUT) {
    CHECK(buffer->index >= 0 && (size_t)buffer->index < ports, "plan: b%zu is no port of the graph", b);
    CHECK(buffer->panel == 0 && buffer->slack == 0, "plan: b%zu is the host's, but not dense", b);
  }
  return SF_OK;
}

static sf_status check_expr(const sfi_plan *plan, const sfi_kernel *kernel, const sfi_expr *expr, bool arg, sfi_diag *diag) {
  CHECK_KERNEL(expr->n >= 1 && expr->n <= SFI_STEPS_MAX, "an expression of no step, or of too many");
  for (int32_t i = 0; i < expr->n; i++) {
    const sfi_step *step = &expr->steps[i];
    if (step->kind == SFI_STEP_ARG) CHECK_KERNEL(arg, "a value where the anchor has none");
    if (step->kind == SFI_STEP_LOAD) {
      CHECK_KERNEL(step->operand >= 1 && step->operand < kernel->n_operands, "a load of no operand");
      CHECK_KERNEL(plan->buffers[kernel->operand[step->operand].buffer].kind != SFI_BUFFER_PACKED, "a load of packed weights");
    }
    if (step->kind == SFI_STEP_OP) {
      const sfi_op_info *op = sfi_op_of(step->op);
      CHECK_KERNEL(op && op->flags & SF_OPF_ELEMENTWISE, "a step that is not elementwise");
      CHECK_KERNEL(step->a >= 0 && step->a < i && step->b >= 0 && step->b < i && step->c >= 0 && step->c < i,
                   "a step of a later one");
    }
  }
  return SF_OK;
}

static sf_status check_space(const sfi_kernel *kernel, sfi_diag *diag) {
  const sfi_ragged *r = &kernel->ragged;
  CHECK_KERNEL(kernel->rank >= 1 && kernel->reduce_rank >= 0 && kernel->rank + kernel->reduce_rank <= SFI_SPACE_MAX, "rank");
  for (int32_t d = 0; d < kernel->rank; d++) CHECK_KERNEL(kernel->extent[d].div >= 1, "an extent divided by nothing");
  for (int32_t d = 0; d < kernel->reduce_rank && kernel->anchor != SFI_ANCHOR_ATTEND; d++) {
    CHECK_KERNEL(kernel->reduce_extent[d].div == 1, "a divided reduction");
  }
  CHECK_KERNEL(kernel->tile_dims >= 0 && kernel->tile_dims < kernel->rank, "tiles over the last dimension");
  if (kernel->anchor == SFI_ANCHOR_SOFTMAX || kernel->anchor == SFI_ANCHOR_NORMALIZE) {
    CHECK_KERNEL(kernel->axis >= 0 && kernel->axis < kernel->rank && kernel->tile_dims <= kernel->axis, "axis");
  }
  if (r->width == 0) return SF_OK;
  CHECK_KERNEL(r->width > 0 && r->panel >= 0 && r->panel < kernel->rank && r->lane >= 0 && r->lane < kernel->rank, "ragged");
  CHECK_KERNEL(r->panel != r->lane, "panel and lane are one");
  CHECK_KERNEL(kernel->extent[r->panel].div == r->width && sfi_poly_equal(kernel->extent[r->panel].of, r->columns), "panels");
  CHECK_KERNEL(kernel->extent[r->lane].div == 1 && sfi_is(kernel->extent[r->lane].of, r->width), "lanes");
  return SF_OK;
}

/* Integers are loaded as numbers or are indices; everything else is f32. */
static sf_status check_types(const sfi_plan *plan, const sfi_kernel *kernel, sfi_diag *diag) {
  const bool main = kernel->anchor >= SFI_ANCHOR_POOL; /* operands that are not read by LOADs */
  for (int32_t i = 0; i < kernel->n_operands; i++) {
    const sfi_access *access = &kernel->operand[i];
    const bool is_f32 = plan->buffers[access->buffer].dtype == SF_F32;
    CHECK_KERNEL(is_f32 || (i > 0 && !(main && i <= 2)), "integers where numbers are wanted");
    if (kernel->anchor == SFI_ANCHOR_ATTEND)
      CHECK_KERNEL(is_f32 == (i == 0 || i != kernel->attend.position), "types of an attention");
    if (access->index == 0) continue;
    if (i == 0) CHECK_KERNEL(kernel->anchor == SFI_ANCHOR_MAP, "an indexed result");
    CHECK_KERNEL(access->index > 0 && (i == 0 ? access->index < kernel->n_operands : access->index < i),
                 "an index that does not stand before its operand");
    const uint32_t flags = sfi_dtype_of(plan->buffers[kernel->operand[access->index].buffer].dtype)->flags;
    CHECK_KERNEL(flags & SF_DTYPEF_INTEGER && !kernel->operand[access->index].index, "an index that is no integer");
    CHECK_KERNEL(is_f32 && !(main && i <= 2), "an indexed operand of an anchor");
  }
  return SF_OK;
}

static bool is_depthwise(const sfi_contract *c) {
  const sfi_window *h = &c->window[0], *w = &c->window[1];
  return c->groups == c->rows && c->matrix.columns == h->taps * w->taps && c->matrix.columns <= SFI_DEPTHWISE_TAPS &&
         w->step == 1 && w->stride <= 2;
}

static sf_status check_contract(const sfi_plan *plan, const sfi_kernel *kernel, sfi_diag *diag) {
  const sfi_contract *c = &kernel->contract;
  const bool is_static = kernel->anchor == SFI_ANCHOR_CONTRACT;
  const sfi_access *x = &kernel->operand[1];
  CHECK_KERNEL(kernel->rank == 3 && kernel->n_operands >= 3, "a contraction without three dimensions and operands");
  CHECK_KERNEL(sfi_poly_equal(c->row_count, kernel->extent[1].of) && kernel->extent[1].div == 1, "rows differ from the space");
  CHECK_KERNEL(c->fold >= 1 && c->pitch % c->fold == 0, "image folds");
  CHECK_KERNEL(sfi_is(x->stride[2], c->fold > 1 || c->in_place ? 0 : 1) || sfi_is(kernel->extent[2].of, 1),
               "columns of X are not contiguous");
  CHECK_KERNEL((plan->buffers[kernel->operand[2].buffer].kind == SFI_BUFFER_PACKED) == is_static, "W is packed where it is static");
  CHECK_KERNEL(c->valid == 0 ? c->pitch == 0 && !c->k_offset : is_static && c->k_offset && c->pitch / c->fold >= c->valid,
               "image rows");
  if (c->window[0].taps) {
    CHECK_KERNEL(is_static && c->depth.c[0] % (c->window[0].taps * c->window[1].taps) == 0, "taps");
    CHECK_KERNEL(sfi_is(kernel->extent[2].of, c->window[0].out * c->window[1].out) && kernel->extent[2].div == 1, "pixels");
  }
  CHECK_KERNEL(!c->in_place || (c->window[0].taps && c->valid == 0 && (c->groups == 1 || is_depthwise(c))), "an image in place");
  CHECK_KERNEL(!c->in_place || !sfi_is(kernel->extent[2].of, 1), "one pixel of an image in place");
  if (!is_static) return SF_OK;
  CHECK_KERNEL(c->facts && c->weight >= 0 && sfi_is_static(plan->graph, c->weight), "a weight that is not static");
  CHECK_KERNEL(c->groups >= 1 && sfi_is(c->row_count, c->rows) && c->rows == c->matrix.rows && c->rows % c->groups == 0, "rows");
  CHECK_KERNEL(sfi_is(c->depth, c->matrix.columns * c->groups), "depth");
  return SF_OK;
}

static sf_status check_attend(const sfi_kernel *kernel, sfi_diag *diag) {
  const sfi_attend *a = &kernel->attend;
  CHECK_KERNEL(kernel->rank == 5 && kernel->n_operands >= 4 && kernel->reduce_rank == 2,
               "an attention without its dimensions and operands");
  CHECK_KERNEL(kernel->ragged.width && kernel->ragged.panel == 2 && kernel->ragged.lane == 4 && kernel->tile_dims <= 3, "queries");
  CHECK_KERNEL(a->group >= 1 && a->depth >= 1 && a->key_block >= 1, "heads, features or blocks of none");
  CHECK_KERNEL(sfi_poly_equal(kernel->reduce_extent[0].of, a->keys) && kernel->reduce_extent[0].div == a->key_block &&
                   sfi_is(kernel->reduce_extent[1].of, a->key_block) && kernel->reduce_extent[1].div == 1,
               "blocks of keys");
  CHECK_KERNEL(a->mask == 0 || (a->mask >= 4 && a->mask < kernel->n_operands), "a mask that is no operand");
  CHECK_KERNEL(a->position == 0 || (a->position >= 4 && a->position < kernel->n_operands), "a position that is no operand");
  return SF_OK;
}

static sf_status check_node(const sfi_plan *plan, const sfi_kernel *kernel, sfi_diag *diag) {
  if (kernel->node != SF_NO_VALUE) {
    CHECK_KERNEL(kernel->node >= 0 && (size_t)kernel->node < plan->graph->n_nodes, "no such node");
    CHECK_KERNEL(kernel->n_operands == 1 + plan->graph->nodes[kernel->node].n_inputs, "operands of the node");
  } else {
    CHECK_KERNEL(kernel->n_operands == 2, "a copy of other than one operand");
  }
  for (int32_t i = 0; i < kernel->n_operands; i++) {
    CHECK_KERNEL(plan->buffers[kernel->operand[i].buffer].panel == 0, "a node that reads or writes panels");
  }
  return SF_OK;
}

/* Are `rows` the columns of a panel buffer? Those of attention may be one of a batch's, where they fill panels. */
static bool are_columns(const sfi_kernel *kernel, sfi_poly rows, const sfi_buffer *buffer) {
  sfi_poly all;
  if (sfi_poly_equal(rows, buffer->columns)) return true;
  return kernel->anchor == SFI_ANCHOR_ATTEND && sfi_is_const(rows) && rows.c[0] % buffer->panel == 0 &&
         sfi_poly_mul(rows, kernel->extent[0].of, &all) && sfi_poly_equal(all, buffer->columns);
}

/* Panels are reached as panels: whole, in their own space. */
static sf_status check_panels(const sfi_plan *plan, const sfi_kernel *kernel, sfi_diag *diag) {
  const sfi_ragged *r = &kernel->ragged;
  for (int32_t i = 0; i < kernel->n_operands; i++) {
    const sfi_buffer *buffer = &plan->buffers[kernel->operand[i].buffer];
    if (buffer->panel == 0) continue;
    if (kernel->anchor == SFI_ANCHOR_ATTEND && (i == 2 || i == 3)) { /* keys in panels */
      CHECK_KERNEL(kernel->attend.key_block == buffer->panel && are_columns(kernel, kernel->attend.keys, buffer),
                   "blocks of keys that are no panels");
      CHECK_KERNEL(sfi_is(kernel->operand[i].stride[6], 1), "keys of a panel are not contiguous");
      continue;
    }
    CHECK_KERNEL(r->width == buffer->panel && are_columns(kernel, r->columns, buffer), "panels in another space");
    CHECK_KERNEL(sfi_is(kernel->operand[i].stride[r->lane], 1), "lanes of a panel are not contiguous");
  }
  return SF_OK;
}

static sf_status check_kernel(const sfi_plan *plan, const sfi_kernel *kernel, sfi_diag *diag) {
  const sfi_anchor anchor = kernel->anchor;
  const bool has_pre = anchor == SFI_ANCHOR_REDUCE || anchor == SFI_ANCHOR_SOFTMAX || anchor == SFI_ANCHOR_NORMALIZE;
  sf_status st;
  CHECK(kernel->name, "plan: a kernel without a name");
  CHECK_KERNEL(kernel->n_operands >= 1 && kernel->n_operands <= SFI_OPERANDS_MAX, "number of operands");
  for (int32_t i = 0; i < kernel->n_operands; i++) {
    const int32_t b = kernel->operand[i].buffer;
    CHECK_KERNEL(b >= 0 && (size_t)b < plan->n_buffers, "no such buffer");
    CHECK_KERNEL(plan->buffers[b].kind != SFI_BUFFER_PACKED || (i == 2 && anchor == SFI_ANCHOR_CONTRACT),
                 "packed weights elsewhere");
  }
  const sfi_buffer_kind written = plan->buffers[kernel->operand[0].buffer].kind;
  CHECK_KERNEL(written == SFI_BUFFER_TEMP || written == SFI_BUFFER_OUTPUT, "writes what is not its to write");
  if (anchor == SFI_ANCHOR_NODE) return check_node(plan, kernel, diag);
  if ((st = check_space(kernel, diag)) != SF_OK || (st = check_types(plan, kernel, diag)) != SF_OK) return st;
  if ((st = check_expr(plan, kernel, &kernel->epilogue, anchor != SFI_ANCHOR_MAP, diag)) != SF_OK) return st;
  CHECK_KERNEL(has_pre == (kernel->pre.n > 0), "an expression before an anchor that has none, or none before one that has");
  if (has_pre && (st = check_expr(plan, kernel, &kernel->pre, false, diag)) != SF_OK) return st;
  CHECK_KERNEL((anchor == SFI_ANCHOR_REDUCE || anchor == SFI_ANCHOR_ATTEND) == (kernel->reduce_rank > 0), "reduction dimensions");
  if (anchor == SFI_ANCHOR_ATTEND && (st = check_attend(kernel, diag)) != SF_OK) return st;
  CHECK_KERNEL(kernel->n_bounds >= 0 && kernel->n_bounds <= (anchor == SFI_ANCHOR_MAP ? SFI_BOUNDS_MAX : 0), "bounds");
  for (int32_t b = 0; b < kernel->n_bounds; b++) {
    CHECK_KERNEL(kernel->bound[b].operand >= 1 && kernel->bound[b].operand < kernel->n_operands, "a bound of no operand");
  }
  if (anchor == SFI_ANCHOR_POOL) CHECK_KERNEL(kernel->rank == 4 && kernel->n_operands >= 2, "a pool that is not over images");
  if (anchor == SFI_ANCHOR_CONTRACT || anchor == SFI_ANCHOR_PRODUCT) {
    if ((st = check_contract(plan, kernel, diag)) != SF_OK) return st;
  }
  return check_panels(plan, kernel, diag);
}

/* What a kernel reads, one before it has written. */
static sf_status check_order(const sfi_plan *plan, size_t k, sfi_diag *diag) {
  const sfi_kernel *kernel = &plan->kernels[k];
  for (int32_t i = 1; i < kernel->n_operands; i++) {
    const int32_t b = kernel->operand[i].buffer;
    bool written = plan->buffers[b].kind != SFI_BUFFER_TEMP && plan->buffers[b].kind != SFI_BUFFER_OUTPUT;
    for (size_t before = 0; before < k && !written; before++) written = plan->kernels[before].operand[0].buffer == b;
    CHECK_KERNEL(written, "reads what nothing has written");
    CHECK_KERNEL(b != kernel->operand[0].buffer || kernel->anchor == SFI_ANCHOR_MAP, "reads what it writes");
  }
  return SF_OK;
}

static sf_status check_outputs(const sfi_plan *plan, sfi_diag *diag) {
  for (size_t o = 0; o < plan->graph->n_outputs; o++) {
    bool written = false;
    for (size_t k = 0; k < plan->n_kernels && !written; k++) {
      const sfi_buffer *buffer = &plan->buffers[plan->kernels[k].operand[0].buffer];
      written = buffer->kind == SFI_BUFFER_OUTPUT && (size_t)buffer->index == o;
    }
    CHECK(written, "plan: nothing writes output %s", plan->graph->outputs[o].name);
  }
  return SF_OK;
}

sf_status sfi_plan_verify(const sfi_plan *plan, sfi_diag *diag) {
  sf_status st;
  CHECK(plan->graph && plan->target && plan->symbol_min >= 0 && plan->symbol_min <= plan->symbol_max, "plan: an empty class");
  const sfi_symbol_limits limits = sfi_symbol_limits_of(plan->graph);
  for (size_t b = 0; b < plan->n_buffers; b++) {
    if ((st = check_buffer(plan, b, diag)) != SF_OK) return st;
  }
  for (size_t k = 0; k < plan->n_kernels; k++) {
    if ((st = check_kernel(plan, &plan->kernels[k], diag)) != SF_OK) return st;
    if ((st = check_order(plan, k, diag)) != SF_OK) return st;
    if ((st = sfi_check_reach(plan, &plan->kernels[k], &limits, diag)) != SF_OK) return st;
  }
  return check_outputs(plan, diag);
}
