/* How a back end offers kernels to the choice pass. A back end's emitters are rows of its emitters.def; the table reaches passes
 * as data, so that passes and back ends never see each other. */
#ifndef SFI_EMITTER_H
#define SFI_EMITTER_H

#include "plan.h"

/* Why an emitter cannot take a kernel: rows of refusals.def. */
typedef enum sfi_refusal {
#define SFI_REFUSAL(id, text) SFI_REFUSE_##id,
#include "refusals.def"
#undef SFI_REFUSAL
} sfi_refusal;
const char *sfi_refusal_text(sfi_refusal refusal);

struct sfi_emission; /* a back end's own: the module that it writes to */

typedef struct sfi_emitter {
  const char *name; /* "spmm-counted" */
  sfi_anchor anchor;
  bool dense; /* computes with every weight: the baseline that must never win over us */
  /* Fills kernel->tile where it accepts. */
  sfi_refusal (*accept)(sfi_kernel *kernel, const sfi_plan *plan);
  /* Predicted microseconds on one thread at `symbol`, from the target's figures and the facts. */
  double (*cost)(const sfi_kernel *kernel, const sfi_plan *plan, int64_t symbol);
  /* CONTRACT only: W in the emitter's format, to be given as operand 2. NULL for others. */
  sf_status (*pack)(const sfi_kernel *kernel, const sfi_plan *plan, const sf_allocator *allocator, sfi_diag *diag,
                    sfi_blob *out_blob);
  /* Emits `sf_kernel_fn` named `symbol_name` into the back end's module. `emission` is the back end's own type. */
  sf_status (*emit)(struct sfi_emission *emission, const sfi_kernel *kernel, const sfi_plan *plan);
} sfi_emitter;

#endif
