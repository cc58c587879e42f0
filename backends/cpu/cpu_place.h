/* Objects of the plainest kind, which is what emitters make for x86-64, put into memory without a linker. */
#ifndef SFI_CPU_PLACE_H
#define SFI_CPU_PLACE_H

#include "cpu.h"

/* Memory that holds one kernel; NULL: none. */
typedef struct sfi_placed {
  void *memory;
  size_t bytes;
  sf_kernel_fn fn;
} sfi_placed;

/* False where the object is not of that kind, or memory lacks: nothing is held then, and a linker may try. */
bool sfi_cpu_place(const void *object, size_t size, sfi_placed *out_placed);
void sfi_cpu_displace(sfi_placed *placed);

#endif
