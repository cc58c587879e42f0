/* Canonical text of one kernel: the key under which its code is cached. Everything that the code may depend on is in it and nothing
 * else: no names, no positions, no buffer numbers (operands that share a buffer are told by equal letters), no weight values. What an
 * emitter derives from the facts about zeros and bakes in must be in `tile`, the whole pattern by its digest. Changing what is written
 * here means new keys for all. */
#include "emitter.h"

static void put_poly(sfi_text *out, sfi_poly p) {
  sfi_text_printf(out, "%lld", (long long)p.c[0]);
  if (!sfi_is_const(p)) sfi_text_printf(out, ":%lld:%lld", (long long)p.c[1], (long long)p.c[2]);
}

static void put_extents(sfi_text *out, const char *name, const sfi_extent *extent, int32_t n) {
  sfi_text_printf(out, "%s", name);
  for (int32_t d = 0; d < n; d++) {
    sfi_text_printf(out, " ");
    put_poly(out, extent[d].of);
    if (extent[d].div != 1) sfi_text_printf(out, "/%lld", (long long)extent[d].div);
  }
  sfi_text_printf(out, "\n");
}

/* Floats by their bits: every NaN and both zeros differ. */
static void put_expr(sfi_text *out, const char *name, const sfi_expr *expr) {
  sfi_text_printf(out, "%s", name);
  for (int32_t i = 0; i < expr->n; i++) {
    const sfi_step *step = &expr->steps[i];
    uint32_t bits;
    memcpy(&bits, &step->value, sizeof bits);
    switch (step->kind) {
    case SFI_STEP_ARG:
      sfi_text_printf(out, " arg");
      break;
    case SFI_STEP_LOAD:
      sfi_text_printf(out, " load %d", step->operand);
      break;
    case SFI_STEP_CONST:
      sfi_text_printf(out, " const %08x", bits);
      break;
    case SFI_STEP_OP:
      sfi_text_printf(out, " %s %d %d", sfi_op_of(step->op)->text, step->a, step->b);
      if (sfi_op_of(step->op)->min_inputs == 3) sfi_text_printf(out, " %d", step->c);
      break;
    }
  }
  sfi_text_printf(out, "\n");
}

/* Whose memory it is decides what may be assumed about alignment and slack. */
static char owner(const sfi_buffer *buffer) {
  return buffer->kind == SFI_BUFFER_TEMP || buffer->kind == SFI_BUFFER_PACKED ? 'a' : 'h';
}

static void put_operands(const sfi_plan *plan, const sfi_kernel *kernel, sfi_text *out) {
  for (int32_t i = 0; i < kernel->n_operands; i++) {
    const sfi_access *access = &kernel->operand[i];
    const sfi_buffer *buffer = &plan->buffers[access->buffer];
    int32_t first = 0;
    while (kernel->operand[first].buffer != access->buffer) first++;
    sfi_text_printf(out, "operand %d %c %s panel %lld", first, owner(buffer), sfi_dtype_of(buffer->dtype)->text,
                    (long long)buffer->panel);
    if (buffer->kind != SFI_BUFFER_PACKED) {
      sfi_text_printf(out, " at ");
      put_poly(out, access->offset);
      for (int32_t d = 0; d < kernel->rank + kernel->reduce_rank; d++) {
        sfi_text_printf(out, " ");
        put_poly(out, access->stride[d]);
      }
      if (access->index) {
        sfi_text_printf(out, " indexed %d below %lld by ", access->index, (long long)access->index_extent);
        put_poly(out, access->index_stride);
      }
    }
    sfi_text_printf(out, "\n");
  }
  for (int32_t b = 0; b < kernel->n_bounds; b++) {
    const sfi_bound *bound = &kernel->bound[b];
    sfi_text_printf(out, "bound %d %lld", bound->operand, (long long)bound->add);
    for (int32_t d = 0; d < kernel->rank; d++) sfi_text_printf(out, " %lld", (long long)bound->mul[d]);
    sfi_text_printf(out, " below %lld\n", (long long)bound->limit);
  }
}

static void put_contract(const sfi_contract *c, sfi_text *out) {
  char hex[33] = "strided";
  sfi_text_printf(out, "contract %lld ", (long long)c->rows);
  put_poly(out, c->row_count);
  sfi_text_printf(out, " ");
  put_poly(out, c->depth);
  /* Positions go into the packed weight, but whether and how far they reach shapes the code. */
  if (c->k_offset) sfi_digest_hex(sfi_digest_of(c->k_offset, (size_t)c->depth.c[0] * sizeof *c->k_offset), hex);
  sfi_text_printf(out, " groups %lld pitch %lld valid %lld fold %lld positions %s\n", (long long)c->groups, (long long)c->pitch,
                  (long long)c->valid, (long long)c->fold, hex);
  for (int i = 0; i < 2 && c->window[0].taps; i++) {
    const sfi_window *w = &c->window[i];
    sfi_text_printf(out, "window %lld %lld %lld %lld in %lld out %lld step %lld in place %d\n", (long long)w->taps,
                    (long long)w->stride, (long long)w->dilation, (long long)w->before, (long long)w->in, (long long)w->out,
                    (long long)w->step, c->in_place);
  }
}

static void put_pool(const sfi_pool *p, sfi_text *out) {
  sfi_text_printf(out, "pool %s", sfi_op_of(p->op)->text);
  for (int i = 0; i < 2; i++) {
    sfi_text_printf(out, " %lld %lld %lld", (long long)p->kernel[i], (long long)p->stride[i], (long long)p->dilation[i]);
  }
  for (int i = 0; i < 4; i++) sfi_text_printf(out, " %lld", (long long)p->pad[i]);
  sfi_text_printf(out, " in %lld %lld count %d\n", (long long)p->in_height, (long long)p->in_width, p->count_include_pad);
}

static void put_attend(const sfi_attend *a, sfi_text *out) {
  uint32_t bits;
  memcpy(&bits, &a->scale, sizeof bits);
  sfi_text_printf(out, "attend group %lld depth %lld block %lld scale %08x causal %d mask %d position %d keys ",
                  (long long)a->group, (long long)a->depth, (long long)a->key_block, bits, a->causal, a->mask, a->position);
  put_poly(out, a->keys);
  sfi_text_printf(out, "\n");
}

void sfi_kernel_key(const sfi_plan *plan, const sfi_kernel *kernel, sfi_text *out) {
  const bool contraction = kernel->anchor == SFI_ANCHOR_CONTRACT || kernel->anchor == SFI_ANCHOR_PRODUCT;
  sfi_text_printf(out, "kernel %d emitter %s\n", (int)kernel->anchor, kernel->emitter ? kernel->emitter->name : "none");
  if (kernel->anchor == SFI_ANCHOR_NODE) sfi_text_printf(out, "node %d\n", kernel->node);
  put_extents(out, "space", kernel->extent, kernel->rank);
  sfi_text_printf(out, "ragged %lld", (long long)kernel->ragged.width);
  if (kernel->ragged.width) {
    sfi_text_printf(out, " %d %d ", kernel->ragged.panel, kernel->ragged.lane);
    put_poly(out, kernel->ragged.columns);
  }
  sfi_text_printf(out, "\ntile %d %d %d %lld %lld %d %d\n", kernel->tile_dims, kernel->tile.rows, kernel->tile.vectors,
                  (long long)kernel->tile.row_block, (long long)kernel->tile.column_block, kernel->tile.all_t, kernel->tile.ahead);
  static const sfi_digest none = {0};
  if (memcmp(&kernel->tile.pattern, &none, sizeof none) != 0) {
    char hex[33];
    sfi_digest_hex(kernel->tile.pattern, hex);
    sfi_text_printf(out, "pattern %s\n", hex);
  }
  put_operands(plan, kernel, out);
  put_expr(out, "pre", &kernel->pre);
  put_expr(out, "epilogue", &kernel->epilogue);
  if (kernel->anchor == SFI_ANCHOR_REDUCE) {
    sfi_text_printf(out, "%s", sfi_op_of(kernel->reduce)->text);
    put_extents(out, "", kernel->reduce_extent, kernel->reduce_rank);
  }
  if (kernel->anchor == SFI_ANCHOR_SOFTMAX || kernel->anchor == SFI_ANCHOR_NORMALIZE) {
    uint64_t eps;
    memcpy(&eps, &kernel->eps, sizeof eps);
    sfi_text_printf(out, "axis %d eps %016llx centred %d\n", kernel->axis, (unsigned long long)eps, kernel->centred);
  }
  if (kernel->anchor == SFI_ANCHOR_ATTEND) put_attend(&kernel->attend, out);
  if (kernel->anchor == SFI_ANCHOR_POOL) put_pool(&kernel->pool, out);
  if (contraction) put_contract(&kernel->contract, out);
}
