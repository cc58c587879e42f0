/* Fuzz target: sf-warm's manifest from any bytes. */
#include <stdlib.h>

#include "manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  manifest m = {0};
  sf_error error = {0};
  sf_status status = manifest_parse(&m, (const char *)data, size, "folder/manifest.yaml", &error);
  if (status != SF_OK && (error.status != status || !error.message[0] || error.line < 1)) abort();
  for (size_t i = 0; status == SF_OK && i < m.n_models; i++)
    if (!m.models[i].path || !m.models[i].path[0]) abort();
  manifest_deinit(&m);
  return 0;
}
