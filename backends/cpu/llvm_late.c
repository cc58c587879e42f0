/* LLVM, loaded when it is first needed. Its library costs ten milliseconds and fifty megabytes of a process that only loads, and one that
 * finds all its kernels in the cache needs nothing of it: so nothing is linked against it. Each function that is called is a jump through
 * an address that is filled in when the library is loaded, by the name that the call has, so callers see LLVM's own headers. */
#include "cpu_backend.h"

#include <dlfcn.h>
#include <stdio.h>

#if defined(__x86_64__)
#define JUMP(name) "jmp *sfi_at_" #name "(%rip)\n"
#elif defined(__aarch64__)
#define JUMP(name) "adrp x16, sfi_at_" #name "\nldr x16, [x16, :lo12:sfi_at_" #name "]\nbr x16\n"
#else
#error "a jump through an address, for this processor"
#endif

#define SFI_LLVM(name)                                                                                                             \
  extern void *sfi_at_##name;                                                                                                      \
  void *sfi_at_##name;                                                                                                             \
  __asm__(".pushsection .text\n.globl " #name "\n.hidden " #name "\n.type " #name ", %function\n" #name                            \
          ":\n" JUMP(name) ".size " #name ", . - " #name "\n.popsection\n");
#include "llvm_late.def"
#undef SFI_LLVM

static const struct {
  const char *name;
  void **at;
} functions[] = {
#define SFI_LLVM(name) {#name, &sfi_at_##name},
#include "llvm_late.def"
#undef SFI_LLVM
};

static const char *failed(void) {
  static char why[256];
  const char *text = dlerror();
  snprintf(why, sizeof why, "%s", text ? text : "no reason given");
  return why;
}

/* As the system finds it, else where it was when this was built. LOCAL: a host may have another LLVM. It stays for good: it cannot be
 * unloaded. */
const char *sfi_llvm_load(void) {
  void *library = dlopen(SFI_LLVM_NAME, RTLD_NOW | RTLD_LOCAL);
  if (!library) library = dlopen(SFI_LLVM_FILE, RTLD_NOW | RTLD_LOCAL);
  if (!library) return failed();
  for (size_t i = 0; i < SFI_COUNT(functions); i++) {
    if (!(*functions[i].at = dlsym(library, functions[i].name))) return failed();
  }
  return NULL;
}
