/* A slow interpreter of plans, straight from the words of ir/plan.h: the oracle of lowering and fusion, independent of any back end.
 * Each step and each anchor's value is rounded to fp32, sums are taken in fp64: a fused plan gives the bits of the unfused one. */
#ifndef SF_TESTS_PLAN_INTERP_H
#define SF_TESTS_PLAN_INTERP_H

#include "plan.h"

/* Runs the plan at one value of the symbol; tensors as for sf_run. Lifetimes must be known. Temporaries live in one arena as
 * sfi_plan_memory lays it out, filled with NaN, and every access is checked against its buffer: false where one leaves it, where
 * memory is short or a rule is broken; `message` (of `size` bytes) then says what. */
bool sf_interpret(const sfi_plan *plan, int64_t symbol, const sf_tensor *inputs, const sf_tensor *outputs, char *message,
                  size_t size);

#endif
