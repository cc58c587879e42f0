/* Plans as text, for people: every kernel with its space, operands, expressions and choice, then the buffers. */
#include "emitter.h"

static const char *const anchor_text[] = {[SFI_ANCHOR_MAP] = "map",         [SFI_ANCHOR_REDUCE] = "reduce",
                                          [SFI_ANCHOR_SOFTMAX] = "softmax", [SFI_ANCHOR_NORMALIZE] = "normalize",
                                          [SFI_ANCHOR_POOL] = "pool",       [SFI_ANCHOR_CONTRACT] = "contract",
                                          [SFI_ANCHOR_PRODUCT] = "product", [SFI_ANCHOR_ATTEND] = "attend",
                                          [SFI_ANCHOR_NODE] = "node"};
static const char *const kind_text[] = {[SFI_BUFFER_INPUT] = "input",
                                        [SFI_BUFFER_OUTPUT] = "output",
                                        [SFI_BUFFER_STATIC] = "static",
                                        [SFI_BUFFER_PACKED] = "packed",
                                        [SFI_BUFFER_TEMP] = "temp"};

static void print_extent(sfi_text *out, sfi_extent e, const char *symbol) {
  if (e.div != 1) sfi_text_printf(out, "ceil(");
  sfi_poly_print(out, e.of, symbol);
  if (e.div != 1) sfi_text_printf(out, "/%lld)", (long long)e.div);
}

static void print_space(const sfi_plan *plan, const sfi_kernel *kernel, sfi_text *out) {
  const char *symbol = plan->graph->symbol;
  sfi_text_printf(out, "  space [");
  for (int32_t d = 0; d < kernel->rank; d++) {
    sfi_text_printf(out, "%s", d ? ", " : "");
    print_extent(out, kernel->extent[d], symbol);
  }
  sfi_text_printf(out, "]");
  if (kernel->ragged.width) {
    sfi_text_printf(out, ", %d and %d one index below ", kernel->ragged.panel, kernel->ragged.lane);
    sfi_poly_print(out, kernel->ragged.columns, symbol);
  }
  if (kernel->anchor == SFI_ANCHOR_REDUCE) {
    sfi_text_printf(out, ", %s over [", sfi_op_of(kernel->reduce)->text);
    for (int32_t d = 0; d < kernel->reduce_rank; d++) {
      sfi_text_printf(out, "%s", d ? ", " : "");
      print_extent(out, kernel->reduce_extent[d], symbol);
    }
    sfi_text_printf(out, "]");
  }
  if (kernel->anchor == SFI_ANCHOR_SOFTMAX || kernel->anchor == SFI_ANCHOR_NORMALIZE) {
    sfi_text_printf(out, ", along %d", kernel->axis);
    if (kernel->anchor == SFI_ANCHOR_NORMALIZE && !kernel->centred) sfi_text_printf(out, " about 0");
  }
  if (kernel->anchor != SFI_ANCHOR_CONTRACT && kernel->anchor != SFI_ANCHOR_PRODUCT) {
    sfi_text_printf(out, ", tiles of %d", kernel->tile_dims);
  }
  sfi_text_printf(out, "\n");
}

static void print_contract(const sfi_plan *plan, const sfi_kernel *kernel, sfi_text *out) {
  const sfi_contract *c = &kernel->contract;
  sfi_text_printf(out, "  W [");
  sfi_poly_print(out, c->row_count, plan->graph->symbol);
  sfi_text_printf(out, ", ");
  sfi_poly_print(out, c->depth, plan->graph->symbol);
  sfi_text_printf(out, "]");
  if (c->facts) {
    sfi_text_printf(out, ", %lld nonzeros (density ", (long long)c->facts->nonzeros);
    sfi_text_printf(out, "%.3g)", sfi_density(c->facts));
  }
  if (c->groups > 1) sfi_text_printf(out, ", %lld groups", (long long)c->groups);
  if (c->valid) sfi_text_printf(out, ", image rows of %lld in %lld", (long long)c->valid, (long long)c->pitch);
  if (c->in_place) sfi_text_printf(out, ", image in place");
  if (c->fold > 1) sfi_text_printf(out, ", folded %lld times", (long long)c->fold);
  sfi_text_printf(out, "\n");
}

static void print_attend(const sfi_plan *plan, const sfi_kernel *kernel, sfi_text *out) {
  const sfi_attend *a = &kernel->attend;
  sfi_text_printf(out, "  keys ");
  sfi_poly_print(out, a->keys, plan->graph->symbol);
  sfi_text_printf(out, " in blocks of %lld, of %lld features, scale ", (long long)a->key_block, (long long)a->depth);
  sfi_text_number(out, (double)a->scale);
  if (a->group > 1) sfi_text_printf(out, ", %lld heads share one", (long long)a->group);
  if (a->mask) sfi_text_printf(out, ", plus %%%d", a->mask);
  if (a->position) sfi_text_printf(out, ", behind %%%d", a->position);
  sfi_text_printf(out, "%s\n", a->causal ? ", causal" : "");
}

static void print_pool(const sfi_pool *p, sfi_text *out) {
  sfi_text_printf(out, "  window %lldx%lld, stride %lldx%lld, pad %lld %lld %lld %lld, dilation %lldx%lld%s\n",
                  (long long)p->kernel[0], (long long)p->kernel[1], (long long)p->stride[0], (long long)p->stride[1],
                  (long long)p->pad[0], (long long)p->pad[1], (long long)p->pad[2], (long long)p->pad[3], (long long)p->dilation[0],
                  (long long)p->dilation[1], p->count_include_pad ? ", padding counts" : "");
}

static void print_operand(const sfi_plan *plan, const sfi_kernel *kernel, int32_t i, sfi_text *out) {
  const sfi_access *access = &kernel->operand[i];
  const char *symbol = plan->graph->symbol;
  sfi_text_printf(out, "  %%%d = b%d", i, access->buffer);
  const bool packed = plan->buffers[access->buffer].kind == SFI_BUFFER_PACKED;
  if (kernel->anchor != SFI_ANCHOR_NODE && !packed) {
    if (!sfi_is(access->offset, 0)) {
      sfi_text_printf(out, " + ");
      sfi_poly_print(out, access->offset, symbol);
    }
    sfi_text_printf(out, " by (");
    for (int32_t d = 0; d < kernel->rank + kernel->reduce_rank; d++) {
      sfi_text_printf(out, "%s", d == 0 ? "" : d == kernel->rank ? "; " : ", ");
      sfi_poly_print(out, access->stride[d], symbol);
    }
    sfi_text_printf(out, ")");
    if (access->index) {
      sfi_text_printf(out, " + %%%d by ", access->index);
      sfi_poly_print(out, access->index_stride, symbol);
    }
  }
  for (int32_t b = 0; b < kernel->n_bounds; b++) {
    const sfi_bound *bound = &kernel->bound[b];
    if (bound->operand != i) continue;
    sfi_text_printf(out, ", where 0 <= %lld", (long long)bound->add);
    for (int32_t d = 0; d < kernel->rank; d++) {
      if (bound->mul[d]) sfi_text_printf(out, " + %lld i%d", (long long)bound->mul[d], d);
    }
    sfi_text_printf(out, " < %lld", (long long)bound->limit);
  }
  sfi_text_printf(out, "\n");
}

/* "add(relu(%3), 0.5)". */
static void print_step(const sfi_expr *expr, int32_t i, sfi_text *out) {
  const sfi_step *step = &expr->steps[i];
  switch (step->kind) {
  case SFI_STEP_ARG:
    sfi_text_printf(out, "value");
    return;
  case SFI_STEP_LOAD:
    sfi_text_printf(out, "%%%d", step->operand);
    return;
  case SFI_STEP_CONST:
    sfi_text_number(out, (double)step->value);
    return;
  case SFI_STEP_OP:
    sfi_text_printf(out, "%s(t%d", sfi_op_of(step->op)->text, step->a);
    if (sfi_op_of(step->op)->min_inputs >= 2) sfi_text_printf(out, ", t%d", step->b);
    if (sfi_op_of(step->op)->min_inputs == 3) sfi_text_printf(out, ", t%d", step->c);
    sfi_text_printf(out, ")");
    return;
  }
}

static void print_expr(const char *name, const sfi_expr *expr, sfi_text *out) {
  if (expr->n == 0) return;
  sfi_text_printf(out, "  %s ", name);
  for (int32_t i = 0; i < expr->n; i++) {
    sfi_text_printf(out, "%st%d = ", i ? "; " : "", i);
    print_step(expr, i, out);
  }
  sfi_text_printf(out, "\n");
}

static void print_kernel(const sfi_plan *plan, const sfi_kernel *kernel, sfi_text *out) {
  sfi_text_printf(out, "%s: %s\n", kernel->name, anchor_text[kernel->anchor]);
  if (kernel->anchor != SFI_ANCHOR_NODE) print_space(plan, kernel, out);
  if (kernel->anchor == SFI_ANCHOR_CONTRACT || kernel->anchor == SFI_ANCHOR_PRODUCT) print_contract(plan, kernel, out);
  if (kernel->anchor == SFI_ANCHOR_ATTEND) print_attend(plan, kernel, out);
  if (kernel->anchor == SFI_ANCHOR_POOL) print_pool(&kernel->pool, out);
  for (int32_t i = 0; i < kernel->n_operands; i++) print_operand(plan, kernel, i, out);
  print_expr("of", &kernel->pre, out);
  print_expr("gives", &kernel->epilogue, out);
  if (kernel->choice) sfi_text_printf(out, "  by %s\n", kernel->choice);
}

static void print_buffer(const sfi_plan *plan, size_t i, sfi_text *out) {
  const sfi_buffer *buffer = &plan->buffers[i];
  const char *symbol = plan->graph->symbol;
  sfi_text_printf(out, "b%zu: %s %s [", i, kind_text[buffer->kind], sfi_dtype_of(buffer->dtype)->text);
  sfi_poly_print(out, buffer->columns, symbol);
  sfi_text_printf(out, ", ");
  sfi_poly_print(out, buffer->features, symbol);
  sfi_text_printf(out, "]");
  if (buffer->panel) sfi_text_printf(out, " in panels of %lld", (long long)buffer->panel);
  if (buffer->slack) sfi_text_printf(out, ", %lld behind", (long long)buffer->slack);
  if (buffer->first_use >= 0) sfi_text_printf(out, ", k%d to k%d", buffer->first_use, buffer->last_use);
  if (buffer->value != SF_NO_VALUE && plan->graph->nodes[buffer->value].name) {
    sfi_text_printf(out, ", %s", plan->graph->nodes[buffer->value].name);
  }
  sfi_text_printf(out, "\n");
}

void sfi_plan_print(const sfi_plan *plan, sfi_text *out) {
  sfi_text_printf(out, "; %s", plan->graph->symbol ? plan->graph->symbol : "symbol");
  if (plan->symbol_max == INT64_MAX)
    sfi_text_printf(out, " from %lld\n", (long long)plan->symbol_min);
  else
    sfi_text_printf(out, " from %lld to %lld\n", (long long)plan->symbol_min, (long long)plan->symbol_max);
  for (size_t k = 0; k < plan->n_kernels; k++) print_kernel(plan, &plan->kernels[k], out);
  for (size_t b = 0; b < plan->n_buffers; b++) print_buffer(plan, b, out);
}
