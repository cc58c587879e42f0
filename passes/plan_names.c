/* Names of kernels, for people: "k2.matmul+add+relu" is the kernel in position 2, its anchor's operation and its epilogue. */
#include "passes.h"

#include <stdio.h>

static const char *anchor_name(const sfi_plan *plan, const sfi_kernel *kernel) {
  if (kernel->anchor == SFI_ANCHOR_MAP || kernel->node == SF_NO_VALUE) return NULL;
  return sfi_op_of(plan->graph->nodes[kernel->node].op)->text;
}

static bool name(sfi_plan *plan, size_t i) {
  enum { SHOWN = 6 }; /* operations of an epilogue; a name stays readable */
  sfi_kernel *kernel = &plan->kernels[i];
  char text[160];
  size_t length = 0;
  int32_t shown = 0;
  const char *anchor = anchor_name(plan, kernel);
  if (anchor) length += (size_t)snprintf(text, sizeof text, "%s", anchor);
  for (int32_t s = 0; s < kernel->epilogue.n && shown <= SHOWN; s++) {
    const sfi_step *step = &kernel->epilogue.steps[s];
    if (step->kind != SFI_STEP_OP) continue;
    const char *op = shown < SHOWN ? sfi_op_of(step->op)->text : "..";
    length += (size_t)snprintf(text + length, sizeof text - length, "%s%s", length ? "+" : "", op);
    shown++;
  }
  if (length == 0) snprintf(text, sizeof text, "%s", kernel->n_bounds ? "pad" : "copy");
  kernel->name = sfi_arena_printf(&plan->arena, "k%zu.%s", i, text);
  return kernel->name != NULL;
}

bool sfi_name_kernels(sfi_plan *plan) {
  for (size_t i = 0; i < plan->n_kernels; i++) {
    if (!name(plan, i)) return false;
  }
  return true;
}
