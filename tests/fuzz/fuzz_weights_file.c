/* Fuzz target: the safetensors reader on any bytes. What it accepts lies inside the file, and is as long as dtype and shape say. */
#include <stdlib.h>

#include "graph.h"
#include "weights_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  sfi_diag diag = {0};
  sfi_mapping *mapping;
  sf_status status = sfi_mapping_from_memory(&sfi_default_allocator, data, size, "input", &diag, &mapping);
  if (status != diag.error.status || (status == SF_OK) != (mapping != NULL)) abort();
  if (status != SF_OK) {
    if (!diag.error.message[0]) abort();
    return 0;
  }
  for (size_t i = 0; i < sfi_mapping_count(mapping); i++) {
    const sfi_tensor_entry *entry = sfi_mapping_at(mapping, i);
    const uint8_t *bytes = entry->data;
    if (bytes < data || entry->bytes > size || bytes + entry->bytes > data + size) abort();
    if (sfi_mapping_find(mapping, entry->name) != entry) abort();
    if (entry->unusable) continue;
    size_t elements = 1;
    for (int32_t d = 0; d < entry->rank; d++) elements *= (size_t)entry->dims[d];
    if (entry->bytes != elements * sfi_dtype_of(entry->dtype)->bytes) abort();
  }
  sfi_mapping_release(mapping);
  return 0;
}
