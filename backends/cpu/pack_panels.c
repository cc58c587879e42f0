/* Packing of dense weights, for every emitter that reads each element of W: [positions of X rows] [panel][k][rows of the panel], rows past
 * the last are zeros. 64 bytes follow that a last vector may touch. */
#include "contraction.h"

sf_status sfi_pack_panels(const sfi_kernel *k, int64_t rows, const sf_allocator *allocator, sfi_diag *diag, sfi_blob *out) {
  const int64_t depth = k->contract.depth.c[0], prefix = sfi_position_bytes(k), panels = sfi_ceil_div(k->contract.rows, rows);
  if (!sfi_blob_init(out, allocator, (size_t)(prefix + panels * rows * depth * 4 + 64))) return sfi_fail_memory(diag);
  sfi_write_positions(k, out->data);
  float *w = (float *)(void *)(out->data + prefix);
  for (int64_t r = 0; r < k->contract.rows; r++)
    for (int64_t i = 0; i < depth; i++) w[(r / rows * depth + i) * rows + r % rows] = sfi_weight_at(&k->contract, r, i);
  return SF_OK;
}
