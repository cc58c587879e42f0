/* The functions behind the rows of emitters.def. */
#ifndef SFI_EMITTERS_H
#define SFI_EMITTERS_H

#include "contraction.h"

#define SFI_EMITTER(fn, name, anchor, dense, packs)                                                                                \
  sfi_refusal sfi_##fn##_accept(sfi_kernel *kernel, const sfi_plan *plan);                                                         \
  double sfi_##fn##_cost(const sfi_kernel *kernel, const sfi_plan *plan, int64_t symbol);                                          \
  sf_status sfi_##fn##_pack(const sfi_kernel *kernel, const sfi_plan *plan, const sf_allocator *allocator, sfi_diag *diag,         \
                            sfi_blob *out_blob);                                                                                   \
  sf_status sfi_##fn##_emit(sfi_emission *emission, const sfi_kernel *kernel, const sfi_plan *plan);
#include "emitters.def"
#undef SFI_EMITTER

#endif
