/* The CPU back end: kernels through LLVM, by its C API. Nothing else in the project sees LLVM. */
#ifndef SFI_CPU_H
#define SFI_CPU_H

#include "backend.h"

extern const sfi_backend sfi_cpu_backend;

#endif
