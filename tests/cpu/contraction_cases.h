/* Matrix products with a static weight, as every emitter must compute them: layouts x patterns of zeros x odd shapes, with plain fp64
 * loops as the expectation and Inf and NaN in X. */
#ifndef SF_TESTS_CONTRACTION_CASES_H
#define SF_TESTS_CONTRACTION_CASES_H

#include "kernel_case.h"
#include "kernel_store.h"

extern const int contraction_problems;

/* Calls `use` with each problem `problem` x pattern x emitter that accepts it on the store's target; c->launches name kernels of the
 * store. Returns the number of calls. */
int contraction_cases(kernel_store *store, int problem, void (*use)(void *user, const kernel_case *c), void *user);

#endif
