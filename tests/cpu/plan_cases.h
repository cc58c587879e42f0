/* Whole graphs as kernel cases: the plans that sf_compile makes, every buffer on its own, with the fp64 reference and its error bounds as
 * the expectation. */
#ifndef SF_TESTS_PLAN_CASES_H
#define SF_TESTS_PLAN_CASES_H

#include "kernel_case.h"
#include "kernel_store.h"

/* Each calls `use` for every case, whose launches name kernels of the store, and returns the number of calls. A plan with a node that
 * the reference back end would run is no case. */
typedef void (*plan_case_fn)(void *user, const kernel_case *c);
/* The vectors of ops.def's operation `op` (tests/ref/vectors); output by output where some are no case. */
int plan_cases_operation(kernel_store *store, sf_op op, plan_case_fn use, void *user);
/* A random graph, fused or not, at a few values of its symbol. */
int plan_cases_random(kernel_store *store, uint64_t seed, plan_case_fn use, void *user);
/* The digits models, and tests/cpu/graphs: what kernels once computed wrong. */
int plan_cases_files(kernel_store *store, plan_case_fn use, void *user);

#endif
