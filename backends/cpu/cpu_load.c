/* Objects to running code: placed directly where they are of the plainest kind, else through ORC, by AddObjectFile with a JITDylib and a
 * resource tracker a kernel. IR never enters ORC, which is made when the first object needs it.
 *
 * Every object defines the same symbol, so each live kernel needs a JITDylib of its own. The C API cannot remove one, so those of
 * unloaded kernels are used again: there are as many as kernels ever lived at once. */
#include "cpu_backend.h"
#include "cpu_place.h"

#include <llvm-c/Core.h>
#include <llvm-c/LLJIT.h>
#include <llvm-c/Orc.h>

#include <pthread.h>
#include <stdio.h>

struct sfi_code {
  sfi_placed placed; /* directly; else what follows is used */
  LLVMOrcJITDylibRef dylib;
  LLVMOrcResourceTrackerRef tracker; /* NULL: free for the next kernel */
  sfi_code *next;                    /* in the loader's list of all, or of free ones */
};
struct sfi_loader {
  const sf_allocator *allocator;
  pthread_mutex_t lock; /* of all below, and of the linker */
  LLVMOrcLLJITRef jit;  /* NULL until it is needed */
  uint64_t made;
  sfi_code *unused;
};

static sf_status orc_failed(sfi_diag *diag, const char *what, LLVMErrorRef error) {
  char *text = LLVMGetErrorMessage(error);
  sf_status st = sfi_fail(diag, SF_STATUS_COMPILE_ERROR, NULL, NULL, "%s: %s", what, text);
  LLVMDisposeErrorMessage(text);
  return st;
}

/* ORC prints errors of its own accord unless told otherwise; those that matter come back from the calls. */
static void quiet(void *user, LLVMErrorRef error) {
  (void)user;
  LLVMConsumeError(error);
}

sf_status sfi_cpu_loader_create(const sf_allocator *allocator, sfi_diag *diag, sfi_loader **out) {
  *out = NULL;
  sfi_loader *loader = sfi_calloc(allocator, 1, sizeof *loader);
  if (!loader) return sfi_fail_memory(diag);
  loader->allocator = allocator;
  if (pthread_mutex_init(&loader->lock, NULL) != 0) {
    sfi_free(allocator, loader, sizeof *loader);
    return sfi_fail_memory(diag);
  }
  *out = loader;
  return SF_OK;
}

/* Under the lock. */
static sf_status make_linker(sfi_loader *loader, sfi_diag *diag) {
  if (loader->jit) return SF_OK;
  sf_status st = sfi_cpu_initialize(diag);
  if (st != SF_OK) return st;
  LLVMErrorRef error = LLVMOrcCreateLLJIT(&loader->jit, NULL);
  if (error) {
    loader->jit = NULL;
    return orc_failed(diag, "creating the linker", error);
  }
  LLVMOrcExecutionSessionSetErrorReporter(LLVMOrcLLJITGetExecutionSession(loader->jit), quiet, NULL);
  return SF_OK;
}

void sfi_cpu_loader_destroy(sfi_loader *loader) {
  if (!loader) return;
  LLVMErrorRef error = loader->jit ? LLVMOrcDisposeLLJIT(loader->jit) : NULL;
  if (error) LLVMConsumeError(error);
  while (loader->unused) {
    sfi_code *code = loader->unused;
    loader->unused = code->next;
    sfi_free(loader->allocator, code, sizeof *code);
  }
  pthread_mutex_destroy(&loader->lock);
  sfi_free(loader->allocator, loader, sizeof *loader);
}

/* A record with a JITDylib and a fresh tracker. Under the lock. */
static sf_status take_code(sfi_loader *loader, sfi_diag *diag, sfi_code **out) {
  sfi_code *code = loader->unused;
  if (code) {
    loader->unused = code->next;
  } else {
    if (!(code = sfi_calloc(loader->allocator, 1, sizeof *code))) return sfi_fail_memory(diag);
    char name[32];
    snprintf(name, sizeof name, "kernel%llu", (unsigned long long)loader->made++);
    LLVMErrorRef error = LLVMOrcExecutionSessionCreateJITDylib(LLVMOrcLLJITGetExecutionSession(loader->jit), &code->dylib, name);
    if (error) {
      sfi_free(loader->allocator, code, sizeof *code);
      return orc_failed(diag, "creating a library", error);
    }
  }
  code->tracker = LLVMOrcJITDylibCreateResourceTracker(code->dylib);
  *out = code;
  return SF_OK;
}

static void return_code(sfi_loader *loader, sfi_code *code) {
  LLVMErrorRef error = LLVMOrcResourceTrackerRemove(code->tracker);
  if (error) LLVMConsumeError(error);
  LLVMOrcReleaseResourceTracker(code->tracker);
  code->tracker = NULL;
  code->next = loader->unused;
  loader->unused = code;
}

typedef struct lookup {
  LLVMErrorRef error;
  LLVMOrcExecutorAddress address;
} lookup;
static void on_lookup(LLVMErrorRef error, LLVMOrcCSymbolMapPairs result, size_t n, void *user) {
  lookup *l = user;
  l->error = error;
  if (!error && n == 1) l->address = result[0].Sym.Address;
}

/* False: it is for the linker. */
static bool place(sfi_loader *loader, const void *object, size_t size, sf_kernel_fn *out_fn, sfi_code **out_code) {
  sfi_placed placed;
  if (!sfi_cpu_place(object, size, &placed)) return false;
  sfi_code *code = sfi_calloc(loader->allocator, 1, sizeof *code);
  if (!code) {
    sfi_cpu_displace(&placed);
    return false;
  }
  code->placed = placed;
  *out_fn = placed.fn;
  *out_code = code;
  return true;
}

sf_status sfi_cpu_load(sfi_loader *loader, const void *object, size_t size, sfi_diag *diag, sf_kernel_fn *out_fn,
                       sfi_code **out_code) {
  *out_fn = NULL;
  *out_code = NULL;
  if (place(loader, object, size, out_fn, out_code)) return SF_OK;
  sfi_code *code = NULL;
  lookup found = {0};
  pthread_mutex_lock(&loader->lock);
  sf_status st = make_linker(loader, diag);
  if (st == SF_OK) st = take_code(loader, diag, &code);
  if (st != SF_OK) goto done;
  LLVMMemoryBufferRef buffer = LLVMCreateMemoryBufferWithMemoryRangeCopy(object, size, SFI_KERNEL_SYMBOL);
  LLVMErrorRef error = LLVMOrcLLJITAddObjectFileWithRT(loader->jit, code->tracker, buffer); /* takes the buffer */
  if (error) {
    st = orc_failed(diag, "adding an object", error);
    goto done;
  }
  /* ORC runs its work in place here, so the result is there when the call returns. */
  LLVMOrcCJITDylibSearchOrderElement order = {code->dylib, LLVMOrcJITDylibLookupFlagsMatchExportedSymbolsOnly};
  LLVMOrcCLookupSetElement name = {LLVMOrcLLJITMangleAndIntern(loader->jit, SFI_KERNEL_SYMBOL),
                                   LLVMOrcSymbolLookupFlagsRequiredSymbol};
  LLVMOrcExecutionSessionLookup(LLVMOrcLLJITGetExecutionSession(loader->jit), LLVMOrcLookupKindStatic, &order, 1, &name, 1,
                                on_lookup, &found);
  if (found.error)
    st = orc_failed(diag, "linking", found.error);
  else if (!found.address)
    st = sfi_fail(diag, SF_STATUS_COMPILE_ERROR, NULL, NULL, "linking: the object defines no kernel");
done:
  if (st != SF_OK && code) return_code(loader, code);
  pthread_mutex_unlock(&loader->lock);
  if (st != SF_OK) return st;
  *out_fn = (sf_kernel_fn)(uintptr_t)found.address;
  *out_code = code;
  return SF_OK;
}

void sfi_cpu_unload(sfi_loader *loader, sfi_code *code) {
  if (!code) return;
  if (code->placed.memory) {
    sfi_cpu_displace(&code->placed);
    sfi_free(loader->allocator, code, sizeof *code);
    return;
  }
  pthread_mutex_lock(&loader->lock);
  return_code(loader, code);
  pthread_mutex_unlock(&loader->lock);
}
