/* "map": elementwise chains, copies, changes of layout and padding. One load an operand, the chain, one store. */
#include "emitters.h"
#include "space.h"

sfi_refusal sfi_map_accept(sfi_kernel *k, const sfi_plan *plan) {
  (void)plan;
  for (int32_t b = 0; b < k->n_bounds; b++)
    if (k->bound[b].limit > SFI_LANES_MOST) return SFI_REFUSE_OFFSETS_TOO_LARGE;
  return SFI_REFUSE_NONE;
}
/* A gather or scatter costs about a cycle a lane; every other element is loaded in two halves. */
double sfi_map_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  double cycles = 2;
  for (int32_t i = 0; i < k->n_operands && k->rank; i++) {
    sfi_poly stride = k->operand[i].stride[k->rank - 1];
    if (i && sfi_is(stride, 2) && plan->target->masks)
      cycles += 4;
    else if (!sfi_is(stride, 0) && !sfi_is(stride, 1))
      cycles += plan->target->lanes;
  }
  return sfi_space_cost(k, plan, symbol, cycles);
}

static void body(sfi_emission *e, const sfi_point *point) {
  sfi_point_store(e, point, sfi_expr_value(e, &e->kernel->epilogue, point, NULL));
}
sf_status sfi_map_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)k, (void)plan;
  sfi_space_walk(e, true, -1, body);
  return SF_OK;
}
