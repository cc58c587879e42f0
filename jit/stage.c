/* A stage for one kernel alone: memory for its operands, and calls that are timed as they would run in the midst of its network. */
#include "jit.h"

enum { LINE = 64 };
static const double sample_us = 20; /* shorter calls are repeated: a reading of the clock is some 30 ns */

/* Around the weight of one kernel stand those of all: where they do not fit a cache together, a run finds none of them there. */
static size_t sweep_of(const sfi_plan *plan) {
  const sfi_target *target = plan->target;
  if (plan->weight_bytes > (double)target->l3_bytes * 0.8) return (size_t)target->l3_bytes * 2;
  return plan->weight_bytes > (double)target->l2_bytes * 0.5 ? (size_t)target->l2_bytes * 2 : 0;
}

static void touch(const void *memory, size_t bytes) {
  const volatile uint8_t *at = memory;
  for (size_t i = 0; i < bytes; i += LINE) (void)at[i];
}

/* Ordinary numbers for floats, zeros for everything else: an index of 0 is always one. */
static void fill(void *memory, size_t bytes, sf_dtype dtype) {
  uint32_t state = 12345;
  memset(memory, 0, bytes);
  for (size_t i = 0; dtype == SF_F32 && i < bytes / sizeof(float); i++) {
    state = state * 1664525 + 1013904223;
    ((float *)memory)[i] = (float)(int32_t)state * 0x1p-31f;
  }
}

static sf_status furnish(sfi_stage *stage, const sfi_kernel *kernel, int32_t o, const int64_t *symbols, int32_t n, sfi_diag *diag) {
  const sfi_buffer *buffer = &stage->plan->buffers[kernel->operand[o].buffer];
  if (buffer->kind == SFI_BUFFER_PACKED) return SF_OK;
  for (int32_t p = 0; p < o; p++) {
    if (kernel->operand[p].buffer != kernel->operand[o].buffer) continue;
    stage->operand[o] = stage->operand[p];
    return SF_OK;
  }
  size_t most = 0;
  for (int32_t s = 0; s < n; s++) {
    size_t bytes;
    if (!sfi_buffer_bytes(buffer, symbols[s], &bytes)) return sfi_fail_memory(diag);
    if (bytes > most) most = bytes;
  }
  if (!(stage->operand[o] = sfi_alloc(&stage->context->allocator, most + LINE))) return sfi_fail_memory(diag);
  stage->bytes[o] = most + LINE;
  fill(stage->operand[o], most + LINE, buffer->dtype);
  return SF_OK;
}

sf_status sfi_stage_init(sfi_stage *stage, sf_context *context, const sfi_plan *plan, const sfi_kernel *kernel,
                         const int64_t *symbols, int32_t n, sfi_diag *diag) {
  *stage = (sfi_stage){.context = context, .plan = plan};
  for (int32_t o = 0; o < kernel->n_operands; o++) {
    const sf_status status = furnish(stage, kernel, o, symbols, n, diag);
    if (status != SF_OK) return status;
  }
  stage->sweep_bytes = sweep_of(plan);
  if (stage->sweep_bytes) {
    if (!(stage->sweep = sfi_alloc(&context->allocator, stage->sweep_bytes))) return sfi_fail_memory(diag);
    memset(stage->sweep, 1, stage->sweep_bytes); /* pages of its own */
  }
  return SF_OK;
}

void sfi_stage_deinit(sfi_stage *stage) {
  if (!stage->context) return;
  const sf_allocator *allocator = &stage->context->allocator;
  for (int32_t o = 0; o < SFI_OPERANDS_MAX; o++)
    if (stage->bytes[o]) sfi_free(allocator, stage->operand[o], stage->bytes[o]);
  sfi_free(allocator, stage->sweep, stage->sweep_bytes);
}

double sfi_stage_run(const sfi_stage *stage, const sfi_kernel *kernel, sf_kernel_fn fn, void *packed, int64_t symbol) {
  void *operands[SFI_OPERANDS_MAX];
  for (int32_t o = 0; o < kernel->n_operands; o++) operands[o] = stage->operand[o] ? stage->operand[o] : packed;
  const sf_kernel_args args = {operands, symbol};
  const int64_t tiles = sfi_kernel_tiles(kernel, symbol);
  if (stage->sweep) {
    touch(stage->sweep, stage->sweep_bytes);
    for (int32_t o = 0; o < kernel->n_operands; o++) touch(stage->operand[o], stage->bytes[o]); /* left by the kernel before it */
  }
  const int64_t begin = sfi_now_ns();
  int64_t now, calls = 0;
  do {
    fn(&args, 0, tiles);
    calls++;
    now = sfi_now_ns();
  } while (!stage->sweep && (double)(now - begin) < sample_us * 1e3);
  return (double)(now - begin) * 1e-3 / (double)calls;
}

sf_status sfi_stage_measure(sf_context *context, const sfi_plan *plan, const sfi_kernel *kernel, sf_kernel_fn fn, void *packed,
                            int64_t symbol, sfi_diag *diag, double *out_us) {
  enum { RUNS = 7 };
  sfi_stage stage;
  const sf_status status = sfi_stage_init(&stage, context, plan, kernel, &symbol, 1, diag);
  for (int i = -1; i < RUNS && status == SF_OK; i++) { /* the first warms up */
    const double us = sfi_stage_run(&stage, kernel, fn, packed, symbol);
    if (i <= 0 || us < *out_us) *out_us = us;
  }
  sfi_stage_deinit(&stage);
  return status;
}
