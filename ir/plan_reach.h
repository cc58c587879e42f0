/* Private to plan_verify.c. */
#ifndef SFI_PLAN_REACH_H
#define SFI_PLAN_REACH_H

#include "plan.h"
#include "run_limits.h"

/* Does every access of the kernel stay within its buffer, at the ends of the class and a few extents between? `limits`: the graph's. */
sf_status sfi_check_reach(const sfi_plan *plan, const sfi_kernel *kernel, const sfi_symbol_limits *limits, sfi_diag *diag);

#endif
