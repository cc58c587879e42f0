/* The table of back ends. A build without LLVM has none: everything then runs on the reference back end. */
#include "jit.h"

#if defined(SFI_HAVE_LLVM)
#include "cpu.h"
#endif

static const sfi_backend *const backends[] = {
#if defined(SFI_HAVE_LLVM)
    &sfi_cpu_backend,
#endif
    NULL /* ends the list */
};

const sfi_backend *sfi_backend_of(const sfi_target *target) {
  return target->isa == SF_ISA_REFERENCE ? NULL : backends[0];
}
