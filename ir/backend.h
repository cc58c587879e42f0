/* A back end that makes code: one constant struct. jit/backends.c lists them. */
#ifndef SFI_BACKEND_H
#define SFI_BACKEND_H

#include "emitter.h"

#include <sparseflow/kernel_abi.h>

typedef enum sfi_format { SFI_FORMAT_OBJECT, SFI_FORMAT_IR, SFI_FORMAT_ASM } sfi_format;

typedef struct sfi_loader sfi_loader; /* back end's own: the linker and everything it mapped */
typedef struct sfi_code sfi_code;     /* back end's own: one linked kernel */

#define SFI_KERNEL_SYMBOL "sf_kernel"

typedef struct sfi_backend {
  const char *name;
  const char *compiler; /* "LLVM 19.1.7": stands in cache entries */
  const sfi_emitter *const *emitters;
  size_t n_emitters;
  /* Code of one kernel as an object, the compiler's IR or assembly. Symbol: SFI_KERNEL_SYMBOL. Thread-safe. */
  sf_status (*compile)(const sfi_plan *plan, const sfi_kernel *kernel, sfi_format format, const sf_allocator *allocator,
                       sfi_diag *diag, sfi_blob *out_blob);
  sf_status (*loader_create)(const sf_allocator *allocator, sfi_diag *diag, sfi_loader **out_loader);
  void (*loader_destroy)(sfi_loader *loader); /* after every unload */
  /* Links an object (its checksum already verified). Thread-safe. */
  sf_status (*load)(sfi_loader *loader, const void *object, size_t size, sfi_diag *diag, sf_kernel_fn *out_fn, sfi_code **out_code);
  void (*unload)(sfi_loader *loader, sfi_code *code);
  /* Replaces the rates of a target that this machine runs (rates.def) by what it measures on one core, but for spread_us. */
  sf_status (*measure)(sfi_target *target, const sf_allocator *allocator, sfi_diag *diag);
} sfi_backend;

#endif
