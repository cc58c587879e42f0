/* Kernels of one target, each compiled once: kernels of equal keys share code, as they do in the cache. Every object that is made is
 * checked: an ELF file of the target's machine that defines the kernel's symbol and needs no other. */
#ifndef SF_TESTS_KERNEL_STORE_H
#define SF_TESTS_KERNEL_STORE_H

#include "backend.h"

typedef struct stored_kernel {
  sfi_text key;
  sfi_blob object;
  sfi_code *code;
} stored_kernel;

typedef struct kernel_store {
  const sfi_target *target;
  sfi_loader *loader; /* NULL where this machine does not run the target */
  stored_kernel *kernels;
  sf_kernel_fn *fns; /* linked kernels, where there is a loader */
  int32_t n, capacity;
} kernel_store;

/* All of these end the test where something fails. */
void kernel_store_init(kernel_store *store, const sfi_target *target);
void kernel_store_deinit(kernel_store *store);
/* Number of the kernel, compiled where no other has its key. */
int32_t kernel_store_add(kernel_store *store, const sfi_plan *plan, const sfi_kernel *kernel);

/* Is this an object for the target that defines SFI_KERNEL_SYMBOL, a function, and nothing that is undefined? Else *message says what is
 * wrong. Reads nothing outside of it. */
bool kernel_object_check(const sfi_target *target, const void *object, size_t bytes, char *message, size_t size);
/* Writes the object with its symbol as "k" and eight digits of `number`, which is as long. */
bool kernel_object_write(const sfi_blob *object, int32_t number, const char *path);

#endif
