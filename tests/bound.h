/* How far an fp32 execution of a graph may stand from the fp64 one, element by element. */
#ifndef SF_TESTS_BOUND_H
#define SF_TESTS_BOUND_H

#include "graph.h"

/* Runs `graph` in fp64 and carries beside every value a bound on the error of an fp32 execution, however it fuses, folds and orders its
 * sums: the rounding of each operation by its row of ir/tolerances.def, and what it makes of its operands' errors. `outputs` and
 * `bounds`: F64 tensors of the outputs' shapes. inputs: F32 or F64, taken as exact.
 * A bound of INFINITY: nothing is known, because fp32 overflows on the way, or an error decides between two sides (the root
 * of a number that may be negative, a division by what may be zero). False: out of memory or too large. */
bool sf_bounded_run(const sf_graph *graph, int64_t symbol, const sf_tensor *inputs, const sf_tensor *outputs,
                    const sf_tensor *bounds);

#endif
