/* Lifetimes of buffers: first_use and last_use by kernel index, the kernel that each PACKED buffer belongs to, and buffers that no
 * kernel uses dropped. Run after the last pass that moves kernels. Keeps what the plan computes. */
#include "passes.h"

static void find_uses(sfi_plan *plan) {
  for (size_t b = 0; b < plan->n_buffers; b++) plan->buffers[b].first_use = plan->buffers[b].last_use = -1;
  for (size_t k = 0; k < plan->n_kernels; k++) {
    const sfi_kernel *kernel = &plan->kernels[k];
    for (int32_t i = 0; i < kernel->n_operands; i++) {
      sfi_buffer *buffer = &plan->buffers[kernel->operand[i].buffer];
      if (buffer->first_use < 0) buffer->first_use = (int32_t)k;
      buffer->last_use = (int32_t)k;
      if (buffer->kind == SFI_BUFFER_PACKED) buffer->index = (int32_t)k;
    }
  }
}

sf_status sfi_plan_lifetimes(sfi_pass_env *env, sfi_plan *plan) {
  int32_t *renamed = sfi_arena_alloc(&plan->arena, plan->n_buffers * sizeof *renamed);
  if (!renamed) return sfi_fail_memory(env->diag);
  find_uses(plan);
  size_t kept = 0;
  for (size_t b = 0; b < plan->n_buffers; b++) {
    if (plan->buffers[b].first_use < 0) continue;
    renamed[b] = (int32_t)kept;
    plan->buffers[kept++] = plan->buffers[b];
  }
  plan->n_buffers = kept;
  for (size_t k = 0; k < plan->n_kernels; k++) {
    sfi_kernel *kernel = &plan->kernels[k];
    for (int32_t i = 0; i < kernel->n_operands; i++) kernel->operand[i].buffer = renamed[kernel->operand[i].buffer];
  }
  return SF_OK;
}
