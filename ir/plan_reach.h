/* Private to plan_verify.c. */
#ifndef SFI_PLAN_REACH_H
#define SFI_PLAN_REACH_H

#include "plan.h"

/* Does every access of the kernel stay within its buffer, at the ends of the class and a few extents between? */
sf_status sfi_check_reach(const sfi_plan *plan, const sfi_kernel *kernel, sfi_diag *diag);

#endif
