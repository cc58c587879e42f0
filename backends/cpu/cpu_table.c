/* The CPU back end as data: its emitters, from emitters.def, and its functions. */
#include "cpu_backend.h"
#include "emitters.h"

#include <llvm/Config/llvm-config.h>

#define PACKS_true(fn) sfi_##fn##_pack
#define PACKS_false(fn) NULL
#define SFI_EMITTER(fn, text, of, is_dense, packs)                                                                                 \
  static const sfi_emitter fn##_emitter = {.name = text,                                                                           \
                                           .anchor = SFI_ANCHOR_##of,                                                              \
                                           .dense = is_dense,                                                                      \
                                           .accept = sfi_##fn##_accept,                                                            \
                                           .cost = sfi_##fn##_cost,                                                                \
                                           .pack = PACKS_##packs(fn),                                                              \
                                           .emit = sfi_##fn##_emit};
#include "emitters.def"
#undef SFI_EMITTER

static const sfi_emitter *const emitters[] = {
#define SFI_EMITTER(fn, text, of, is_dense, packs) &fn##_emitter,
#include "emitters.def"
#undef SFI_EMITTER
};

const sfi_backend sfi_cpu_backend = {.name = "cpu",
                                     .compiler = "LLVM " LLVM_VERSION_STRING,
                                     .emitters = emitters,
                                     .n_emitters = SFI_COUNT(emitters),
                                     .compile = sfi_cpu_compile,
                                     .loader_create = sfi_cpu_loader_create,
                                     .loader_destroy = sfi_cpu_loader_destroy,
                                     .load = sfi_cpu_load,
                                     .unload = sfi_cpu_unload,
                                     .measure = sfi_cpu_measure};
