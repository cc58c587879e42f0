/* "map": elementwise chains, copies, changes of layout and padding. One load an operand, the chain, one store. */
#include "emitters.h"
#include "space.h"

sfi_refusal sfi_map_accept(sfi_kernel *k, const sfi_plan *plan) {
  (void)k, (void)plan;
  return SFI_REFUSE_NONE;
}
double sfi_map_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  return sfi_space_cost(k, plan, symbol, 2);
}

static void body(sfi_emission *e, const sfi_point *point) {
  sfi_point_store(e, point, sfi_expr_value(e, &e->kernel->epilogue, point, NULL));
}
sf_status sfi_map_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)k, (void)plan;
  sfi_space_walk(e, true, -1, body);
  return SF_OK;
}
