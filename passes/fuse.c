/* Fusion: elementwise kernels merged into the epilogue of their producer, or into the expression of their consumer; copies of whole
 * buffers dropped. A merged kernel stands where its consumer stood, so everything it reads is there. Keeps every value bit for bit:
 * the same operations in the same order. Needs a lowered plan; run before choice. */
#include "fuse.h"

/* Kernels that touch one buffer. */
typedef struct usage {
  int32_t readers, writers;
  int32_t writer; /* the last one */
} usage;

typedef struct fusion {
  sfi_plan *plan;
  usage *usage; /* of each buffer */
  bool *gone;   /* of each kernel */
} fusion;

static bool reads(const sfi_kernel *kernel, int32_t buffer) {
  for (int32_t i = 1; i < kernel->n_operands; i++) {
    if (kernel->operand[i].buffer == buffer) return true;
  }
  return false;
}

static void count(fusion *f, int32_t k) {
  const sfi_kernel *kernel = &f->plan->kernels[k];
  usage *written = &f->usage[kernel->operand[0].buffer];
  written->writers++;
  written->writer = k;
  for (int32_t i = 1; i < kernel->n_operands; i++) {
    bool again = false;
    for (int32_t j = 1; j < i; j++) again = again || kernel->operand[j].buffer == kernel->operand[i].buffer;
    f->usage[kernel->operand[i].buffer].readers += !again;
  }
}

/* The kernel that alone writes the temporary behind an operand; -1: none. */
static int32_t sole_writer(const fusion *f, int32_t buffer) {
  const bool temporary = f->plan->buffers[buffer].kind == SFI_BUFFER_TEMP;
  return temporary && f->usage[buffer].writers == 1 ? f->usage[buffer].writer : -1;
}

/* Does the kernel read the buffer through one operand only? */
static bool one_operand(const sfi_kernel *kernel, int32_t buffer) {
  int32_t n = 0;
  for (int32_t i = 1; i < kernel->n_operands; i++) n += kernel->operand[i].buffer == buffer;
  return n == 1;
}

/* Merges the kernel with the producer of one of its operands. */
static bool merge_once(fusion *f, int32_t k) {
  sfi_kernel *consumer = &f->plan->kernels[k];
  for (int32_t i = 1; i < consumer->n_operands; i++) {
    const int32_t buffer = consumer->operand[i].buffer, p = sole_writer(f, buffer);
    if (p < 0 || f->usage[buffer].readers != 1 || !one_operand(consumer, buffer)) continue;
    const sfi_kernel *producer = &f->plan->kernels[p];
    sfi_kernel merged;
    if (!sfi_merge_epilogue(producer, consumer, i, &merged) && !sfi_merge_prologue(f->plan, producer, consumer, i, &merged))
      continue;
    for (int32_t j = 1; j < producer->n_operands; j++) {
      const int32_t read = producer->operand[j].buffer;
      bool again = false;
      for (int32_t h = 1; h < j; h++) again = again || producer->operand[h].buffer == read;
      if (!again && reads(consumer, read)) f->usage[read].readers--;
    }
    f->usage[buffer] = (usage){0};
    f->gone[p] = true;
    *consumer = merged;
    return true;
  }
  return false;
}

static bool is_copy(const sfi_kernel *kernel) {
  return kernel->anchor == SFI_ANCHOR_MAP && kernel->epilogue.n == 1 && kernel->epilogue.steps[0].kind == SFI_STEP_LOAD &&
         kernel->n_bounds == 0;
}

/* A copy of a whole temporary into a whole buffer, element by element in the same places: the temporary becomes that buffer. Not where it
 * makes numbers of integers. */
static void drop_copy(fusion *f, int32_t k) {
  sfi_kernel *copy = &f->plan->kernels[k];
  if (!is_copy(copy) || !sfi_same_access(copy, &copy->operand[0], &copy->operand[1]) || !sfi_is(copy->operand[0].offset, 0)) return;
  const int32_t from = copy->operand[1].buffer, to = copy->operand[0].buffer;
  const sfi_buffer *a = &f->plan->buffers[from], *b = &f->plan->buffers[to];
  sfi_poly have, want;
  if (a->kind != SFI_BUFFER_TEMP || a->dtype != b->dtype || f->usage[to].writers != 1 || a->panel || b->panel ||
      a->slack > b->slack)
    return;
  if (!sfi_poly_mul(a->columns, a->features, &have) || !sfi_poly_mul(b->columns, b->features, &want)) return;
  if (!sfi_poly_equal(have, want)) return;
  f->gone[k] = true;
  const int32_t readers = f->usage[to].readers + f->usage[from].readers - 1;
  f->usage[to] = f->usage[from];
  f->usage[to].readers = readers;
  f->usage[from] = (usage){0};
  for (size_t i = 0; i < f->plan->n_kernels; i++) {
    sfi_kernel *kernel = &f->plan->kernels[i];
    for (int32_t j = 0; !f->gone[i] && j < kernel->n_operands; j++) {
      if (kernel->operand[j].buffer == from) kernel->operand[j].buffer = to;
    }
  }
}

sf_status sfi_fuse(sfi_pass_env *env, sfi_plan *plan) {
  fusion f = {.plan = plan};
  f.usage = sfi_arena_alloc(&plan->arena, plan->n_buffers * sizeof *f.usage);
  f.gone = sfi_arena_alloc(&plan->arena, plan->n_kernels * sizeof *f.gone);
  if (!f.usage || !f.gone) return sfi_fail_memory(env->diag);
  for (size_t k = 0; k < plan->n_kernels; k++) count(&f, (int32_t)k);
  /* In order: a producer has absorbed its own before its consumer looks at it. */
  for (size_t k = 0; k < plan->n_kernels; k++) {
    while (merge_once(&f, (int32_t)k)) {
    }
  }
  for (size_t k = 0; k < plan->n_kernels; k++) {
    if (!f.gone[k]) drop_copy(&f, (int32_t)k);
  }
  size_t kept = 0;
  for (size_t k = 0; k < plan->n_kernels; k++) {
    if (!f.gone[k] && kept++ != k) plan->kernels[kept - 1] = plan->kernels[k];
  }
  plan->n_kernels = kept;
  return sfi_name_kernels(plan) ? SF_OK : sfi_fail_memory(env->diag);
}
