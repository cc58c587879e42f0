/* Fuzz target: the .npy reader on any bytes. */
#include <stdlib.h>

#include "npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  sf_tensor tensor;
  sf_error error = {0};
  size_t offset, bytes;
  sf_status status = npy_parse(data, size, "input", &tensor, &offset, &error);
  if (status == SF_OK && (!npy_bytes(&tensor, &bytes) || offset > size || bytes != size - offset)) abort();
  if (status != SF_OK && (error.status != status || !error.message[0])) abort();
  return 0;
}
