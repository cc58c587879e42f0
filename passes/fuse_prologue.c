/* A MAP computed inside its consumer: every index of the producer's space is found from the consumer's, by comparing how both walk
 * over the buffer between them. The producer's output is a buffer addressed by strides; an address that the consumer reads is taken apart
 * into the producer's indices where that is provably the same element. */
#include "fuse.h"

/* One index of the producer. The two ragged dimensions count as one where no operand is in panels, which stay panels. */
typedef struct dimension {
  sfi_extent extent;
  int32_t at; /* dimension of the producer whose strides are the index's */
} dimension;

/* The consumer's dimension d moves the producer's index `to` by `by`; to < 0: none. */
typedef struct movement {
  int32_t to;
  int64_t by;
} movement;

static bool is_one(sfi_extent e) {
  return e.div == 1 && sfi_is(e.of, 1);
}

/* stride of panel == width * stride of lane: the two are one index of this access. */
static bool ragged_is_one_index(const sfi_kernel *kernel, const sfi_access *access) {
  sfi_poly whole;
  return sfi_poly_mul(access->stride[kernel->ragged.lane], sfi_const(kernel->ragged.width), &whole) &&
         sfi_poly_equal(whole, access->stride[kernel->ragged.panel]);
}

static int32_t dimensions(const sfi_plan *plan, const sfi_kernel *producer, dimension *out) {
  bool joined = producer->ragged.width != 0;
  int32_t n = 0;
  for (int32_t i = 0; joined && i < producer->n_operands; i++) {
    joined = plan->buffers[producer->operand[i].buffer].panel == 0 && ragged_is_one_index(producer, &producer->operand[i]);
  }
  for (int32_t d = 0; d < producer->rank; d++) {
    if (joined && d == producer->ragged.panel) continue;
    const bool whole = joined && d == producer->ragged.lane;
    const dimension dim = {whole ? (sfi_extent){producer->ragged.columns, 1} : producer->extent[d], d};
    if (!is_one(dim.extent)) out[n++] = dim;
  }
  return n;
}

static sfi_extent consumer_extent(const sfi_kernel *consumer, int32_t d) {
  return d < consumer->rank ? consumer->extent[d] : consumer->reduce_extent[d - consumer->rank];
}

/* The producer's dimension whose stride divides `stride`: one with an equal stride if there is one. */
static movement find(const sfi_kernel *producer, const dimension *dims, int32_t n, sfi_poly stride) {
  movement found = {-1, 0};
  for (int32_t e = 0; e < n; e++) {
    sfi_poly by;
    if (!sfi_poly_div(stride, producer->operand[0].stride[dims[e].at], &by) || !sfi_is_const(by) || by.c[0] < 1) continue;
    if (found.to < 0 || by.c[0] < found.by) found = (movement){e, by.c[0]};
  }
  return found;
}

/* Do the consumer's dimensions count through index e as digits of a number do, each by what those below it have together? */
static bool counts_through(const sfi_kernel *consumer, const dimension *dim, int32_t e, const movement *moved, int32_t rank) {
  sfi_poly reach = sfi_const(1);
  for (uint32_t left = (UINT32_C(1) << rank) - 1; left;) {
    int32_t next = -1;
    for (int32_t d = 0; d < rank; d++) {
      if (moved[d].to != e) left &= ~(UINT32_C(1) << d);
      if (left & UINT32_C(1) << d && sfi_is(reach, moved[d].by)) next = d;
    }
    if (left == 0) break;
    if (next < 0 || consumer_extent(consumer, next).div != 1) return false;
    if (!sfi_poly_mul(reach, consumer_extent(consumer, next).of, &reach)) return false;
    left &= ~(UINT32_C(1) << next);
  }
  return dim->extent.div == 1 && sfi_poly_equal(reach, dim->extent.of);
}

/* Does index e, moved by all of the consumer's dimensions, stay within its extent? */
static bool stays_within(const sfi_kernel *consumer, const dimension *dim, int32_t e, const movement *moved, int32_t rank) {
  int32_t n = 0, only = -1;
  int64_t reach = 0, step;
  bool constant = dim->extent.div == 1 && sfi_is_const(dim->extent.of);
  for (int32_t d = 0; d < rank; d++) {
    if (moved[d].to != e) continue;
    const sfi_extent extent = consumer_extent(consumer, d);
    n++;
    only = d;
    constant = constant && extent.div == 1 && sfi_is_const(extent.of) && sfi_mul(extent.of.c[0] - 1, moved[d].by, &step) &&
               sfi_add(reach, step, &reach);
  }
  if (n == 0) return true;
  if (constant) return reach < dim->extent.of.c[0];
  if (n == 1) return moved[only].by == 1 && sfi_same_extent(consumer_extent(consumer, only), dim->extent);
  if (counts_through(consumer, dim, e, moved, rank)) return true;
  const sfi_ragged *r = &consumer->ragged;
  return n == 2 && r->width && moved[r->lane].to == e && moved[r->panel].to == e && moved[r->lane].by == 1 &&
         moved[r->panel].by == r->width && dim->extent.div == 1 && sfi_poly_equal(r->columns, dim->extent.of);
}

/* A ragged producer whose panels stay panels must meet the same panels, so that no lane is computed that it left out. */
static bool panels_agree(const sfi_kernel *producer, const sfi_kernel *consumer, const dimension *dims, int32_t n,
                         const movement *moved) {
  const sfi_ragged *p = &producer->ragged, *c = &consumer->ragged;
  bool split = false;
  for (int32_t e = 0; e < n; e++) split = split || (p->width && dims[e].at == p->panel);
  if (!split) return true;
  if (c->width != p->width || !sfi_poly_equal(c->columns, p->columns)) return false;
  return moved[c->panel].to >= 0 && dims[moved[c->panel].to].at == p->panel && moved[c->lane].to >= 0 &&
         dims[moved[c->lane].to].at == p->lane;
}

static bool computes(const sfi_expr *expr) {
  for (int32_t i = 0; i < expr->n; i++) {
    if (expr->steps[i].kind == SFI_STEP_OP) return true;
  }
  return false;
}

/* Softmax and normalisation go over their input up to three times: only what costs less than a load may be repeated. */
static bool cheap(const sfi_expr *expr) {
  for (int32_t i = 0; i < expr->n; i++) {
    const sf_op op = expr->steps[i].op;
    if (expr->steps[i].kind != SFI_STEP_OP) continue;
    if (op != SF_OP_ADD && op != SF_OP_SUB && op != SF_OP_MUL && op != SF_OP_RELU && op != SF_OP_NEG && op != SF_OP_ABS &&
        op != SF_OP_MIN && op != SF_OP_MAX)
      return false;
  }
  return true;
}

/* The access of a producer's operand at the consumer's indices. */
static bool move_access(const sfi_access *from, const dimension *dims, const movement *moved, int32_t rank, sfi_poly shift,
                        sfi_access *out) {
  sfi_poly offset = sfi_const(0);
  if (!sfi_is(shift, 0) && !sfi_poly_mul(from->stride[dims[0].at], shift, &offset)) return false;
  *out = (sfi_access){
      .buffer = from->buffer, .index = from->index, .index_extent = from->index_extent, .index_stride = from->index_stride};
  if (!sfi_poly_add(from->offset, offset, &out->offset)) return false;
  for (int32_t d = 0; d < rank; d++) {
    if (moved[d].to < 0) continue;
    if (!sfi_poly_mul(from->stride[dims[moved[d].to].at], sfi_const(moved[d].by), &out->stride[d])) return false;
  }
  return true;
}

/* How the consumer's dimensions move the producer's indices. False where that cannot be said. */
static bool relate(const sfi_plan *plan, const sfi_kernel *producer, const sfi_kernel *consumer, int32_t operand, dimension *dims,
                   movement *moved, sfi_poly *shift) {
  const sfi_access *read = &consumer->operand[operand], *written = &producer->operand[0];
  const int32_t n = dimensions(plan, producer, dims), rank = consumer->rank + consumer->reduce_rank;
  sfi_poly back;
  if (read->index) return false;
  if (!sfi_poly_mul(written->offset, sfi_const(-1), &back) || !sfi_poly_add(read->offset, back, shift)) return false;
  if (!sfi_is(*shift, 0) && (n != 1 || !sfi_poly_div(*shift, written->stride[dims[0].at], shift))) return false;
  for (int32_t d = 0; d < rank; d++) {
    moved[d] = (movement){-1, 0};
    if (is_one(consumer_extent(consumer, d))) continue;
    if (sfi_is(read->stride[d], 0)) {
      if (computes(&producer->epilogue)) return false; /* would be computed over and over */
      continue;
    }
    moved[d] = find(producer, dims, n, read->stride[d]);
    if (moved[d].to < 0) return false;
  }
  /* A single index needs no check: the address lies in the buffer. */
  for (int32_t e = 0; n > 1 && e < n; e++) {
    if (!stays_within(consumer, &dims[e], e, moved, rank)) return false;
  }
  return panels_agree(producer, consumer, dims, n, moved);
}

bool sfi_merge_prologue(const sfi_plan *plan, const sfi_kernel *producer, const sfi_kernel *consumer, int32_t operand,
                        sfi_kernel *out) {
  const bool repeats = consumer->anchor == SFI_ANCHOR_SOFTMAX || consumer->anchor == SFI_ANCHOR_NORMALIZE;
  const bool before = repeats || consumer->anchor == SFI_ANCHOR_REDUCE; /* the expression is `pre` */
  if (producer->anchor != SFI_ANCHOR_MAP || producer->n_bounds || consumer->n_bounds) return false;
  if (!before && consumer->anchor != SFI_ANCHOR_MAP) return false;
  if (before && sfi_expr_loads(&consumer->epilogue, operand)) return false;
  if (repeats && !cheap(&producer->epilogue)) return false;
  dimension dims[SFI_SPACE_MAX];
  movement moved[SFI_SPACE_MAX];
  sfi_poly shift;
  if (!relate(plan, producer, consumer, operand, dims, moved, &shift)) return false;
  /* Operands: the consumer's without the one that goes, then the producer's. */
  sfi_kernel merged = *consumer;
  int32_t of_consumer[SFI_OPERANDS_MAX], of_producer[SFI_OPERANDS_MAX];
  merged.n_operands = 1;
  for (int32_t i = 1; i < consumer->n_operands; i++) {
    if (i == operand) continue;
    of_consumer[i] = merged.n_operands;
    merged.operand[merged.n_operands++] = consumer->operand[i];
    if (consumer->operand[i].index) merged.operand[of_consumer[i]].index = of_consumer[consumer->operand[i].index];
  }
  if (consumer->operand[0].index) merged.operand[0].index = of_consumer[consumer->operand[0].index];
  for (int32_t i = 1; i < producer->n_operands; i++) {
    sfi_access access;
    if (!move_access(&producer->operand[i], dims, moved, consumer->rank + consumer->reduce_rank, shift, &access)) return false;
    if (access.index) access.index = of_producer[access.index];
    of_producer[i] = 0;
    for (int32_t j = 1; j < merged.n_operands && of_producer[i] == 0; j++) {
      if (memcmp(&merged.operand[j], &access, sizeof access) == 0) of_producer[i] = j;
    }
    if (of_producer[i]) continue;
    if (merged.n_operands == SFI_OPERANDS_MAX) return false;
    of_producer[i] = merged.n_operands;
    merged.operand[merged.n_operands++] = access;
  }
  sfi_expr *expr = before ? &merged.pre : &merged.epilogue;
  const sfi_expr *own = before ? &consumer->pre : &consumer->epilogue;
  *expr = (sfi_expr){0};
  if (!sfi_append_expr(expr, &producer->epilogue, -1, 0, of_producer)) return false;
  if (!sfi_append_expr(expr, own, operand, expr->n - 1, of_consumer)) return false;
  if (before) { /* the epilogue's operands have moved too */
    merged.epilogue = (sfi_expr){0};
    if (!sfi_append_expr(&merged.epilogue, &consumer->epilogue, -1, 0, of_consumer)) return false;
  }
  *out = merged;
  return true;
}
