/* A MAP merged into the epilogue of the kernel before it, and what both kinds of merging share. */
#include "fuse.h"

bool sfi_same_extent(sfi_extent a, sfi_extent b) {
  return sfi_poly_equal(a.of, b.of) && a.div == b.div;
}

bool sfi_same_space(const sfi_kernel *a, const sfi_kernel *b) {
  if (a->rank != b->rank || a->ragged.width != b->ragged.width) return false;
  for (int32_t d = 0; d < a->rank; d++) {
    if (!sfi_same_extent(a->extent[d], b->extent[d])) return false;
  }
  return a->ragged.width == 0 || (a->ragged.panel == b->ragged.panel && a->ragged.lane == b->ragged.lane &&
                                  sfi_poly_equal(a->ragged.columns, b->ragged.columns));
}

bool sfi_same_access(const sfi_kernel *space, const sfi_access *a, const sfi_access *b) {
  if (!sfi_poly_equal(a->offset, b->offset) || a->index || b->index) return false;
  for (int32_t d = 0; d < space->rank; d++) {
    const bool still = space->extent[d].div == 1 && sfi_is(space->extent[d].of, 1);
    if (!still && !sfi_poly_equal(a->stride[d], b->stride[d])) return false;
  }
  return true;
}

bool sfi_expr_loads(const sfi_expr *expr, int32_t operand) {
  for (int32_t i = 0; i < expr->n; i++) {
    if (expr->steps[i].kind == SFI_STEP_LOAD && expr->steps[i].operand == operand) return true;
  }
  return false;
}

bool sfi_append_expr(sfi_expr *to, const sfi_expr *from, int32_t operand, int32_t value, const int32_t *map) {
  int32_t at[SFI_STEPS_MAX];
  for (int32_t i = 0; i < from->n; i++) {
    sfi_step step = from->steps[i];
    if (step.kind == SFI_STEP_LOAD && step.operand == operand) {
      at[i] = value;
      continue;
    }
    if (to->n == SFI_STEPS_MAX) return false;
    if (step.kind == SFI_STEP_LOAD) step.operand = map[step.operand];
    if (step.kind == SFI_STEP_OP) {
      step.a = at[step.a];
      step.b = at[step.b];
      step.c = at[step.c];
    }
    at[i] = to->n;
    to->steps[to->n++] = step;
  }
  return true;
}

/* Would the producer's contiguous stores become strided ones? A map transposes them in registers; other kernels would scatter. */
static bool scatters(const sfi_kernel *producer, const sfi_kernel *consumer) {
  const int32_t last = producer->rank - 1;
  if (producer->anchor == SFI_ANCHOR_MAP || last < 0 || sfi_is(producer->extent[last].of, 1)) return false;
  return sfi_is(producer->operand[0].stride[last], 1) && !sfi_is(consumer->operand[0].stride[last], 1);
}

bool sfi_merge_epilogue(const sfi_kernel *producer, const sfi_kernel *consumer, int32_t operand, sfi_kernel *out) {
  if (consumer->anchor != SFI_ANCHOR_MAP || producer->anchor == SFI_ANCHOR_NODE || consumer->n_bounds) return false;
  if (consumer->operand[0].index) return false; /* only maps store so */
  if (!sfi_same_space(producer, consumer)) return false;
  if (!sfi_same_access(producer, &producer->operand[0], &consumer->operand[operand])) return false;
  if (scatters(producer, consumer)) return false;
  int32_t map[SFI_OPERANDS_MAX] = {0};
  sfi_kernel merged = *producer;
  merged.operand[0] = consumer->operand[0];
  for (int32_t i = 1; i < consumer->n_operands; i++) {
    if (i == operand) continue;
    for (int32_t j = 1; j < producer->n_operands && map[i] == 0; j++) {
      const bool same = producer->operand[j].buffer == consumer->operand[i].buffer &&
                        sfi_same_access(producer, &producer->operand[j], &consumer->operand[i]);
      if (same && sfi_expr_loads(&producer->epilogue, j)) map[i] = j;
    }
    if (map[i]) continue;
    if (merged.n_operands == SFI_OPERANDS_MAX) return false;
    map[i] = merged.n_operands;
    merged.operand[merged.n_operands++] = consumer->operand[i];
    if (consumer->operand[i].index) merged.operand[map[i]].index = map[consumer->operand[i].index];
  }
  if (!sfi_append_expr(&merged.epilogue, &consumer->epilogue, operand, producer->epilogue.n - 1, map)) return false;
  *out = merged;
  return true;
}
