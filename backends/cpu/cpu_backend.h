/* Parts of the CPU back end that its own files share. */
#ifndef SFI_CPU_BACKEND_H
#define SFI_CPU_BACKEND_H

#include "cpu.h"

/* Loads LLVM and registers its targets; any thread, any number of times, before anything else of LLVM is called. UNSUPPORTED where its
 * library is not there. */
sf_status sfi_cpu_initialize(sfi_diag *diag);
/* The first half. NULL: done; else why not. Once a process. */
const char *sfi_llvm_load(void);
sf_status sfi_cpu_compile(const sfi_plan *plan, const sfi_kernel *kernel, sfi_format format, const sf_allocator *allocator,
                          sfi_diag *diag, sfi_blob *out_blob);
sf_status sfi_cpu_loader_create(const sf_allocator *allocator, sfi_diag *diag, sfi_loader **out_loader);
void sfi_cpu_loader_destroy(sfi_loader *loader);
sf_status sfi_cpu_load(sfi_loader *loader, const void *object, size_t size, sfi_diag *diag, sf_kernel_fn *out_fn,
                       sfi_code **out_code);
void sfi_cpu_unload(sfi_loader *loader, sfi_code *code);
sf_status sfi_cpu_measure(sfi_target *target, const sf_allocator *allocator, sfi_diag *diag);

#endif
