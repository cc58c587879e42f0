/* Arithmetic on plans: extents, sizes, tiles and work at one value of the symbol. Requires nothing but well-formed records; never
 * allocates. */
#include "plan.h"

bool sfi_extent_eval(sfi_extent e, int64_t symbol, int64_t *out) {
  int64_t of;
  if (e.div < 1 || !sfi_poly_eval(e.of, symbol, &of) || of < 0) return false;
  *out = sfi_ceil_div(of, e.div);
  return true;
}

bool sfi_buffer_bytes(const sfi_buffer *buffer, int64_t symbol, size_t *out) {
  const sfi_dtype_info *dtype = sfi_dtype_of(buffer->dtype);
  int64_t columns, features, count;
  if (!dtype || !sfi_poly_eval(buffer->columns, symbol, &columns) || !sfi_poly_eval(buffer->features, symbol, &features))
    return false;
  if (columns < 0 || features < 0) return false;
  if (buffer->panel > 0 && !sfi_mul(sfi_ceil_div(columns, buffer->panel), buffer->panel, &columns)) return false;
  if (!sfi_mul(columns, features, &count) || !sfi_add(count, buffer->slack, &count)) return false;
  if (!sfi_mul(count, (int64_t)dtype->bytes, &count) || (uint64_t)count > SIZE_MAX) return false;
  *out = (size_t)count;
  return true;
}

/* Product of the extents of dimensions [from, to); saturates, and an extent that overflows counts as none. */
static int64_t points(const sfi_kernel *kernel, int32_t from, int32_t to, int64_t symbol) {
  int64_t product = 1, extent;
  for (int32_t d = from; d < to; d++) {
    if (!sfi_extent_eval(kernel->extent[d], symbol, &extent) || extent == 0) return 0;
    if (!sfi_mul(product, extent, &product)) return INT64_MAX;
  }
  return product;
}

static int64_t blocks(int64_t extent, int64_t block) {
  return block > 0 ? sfi_ceil_div(extent, block) : extent > 0;
}

int64_t sfi_kernel_tiles(const sfi_kernel *kernel, int64_t symbol) {
  int64_t rows;
  switch (kernel->anchor) {
  case SFI_ANCHOR_NODE:
    return 1;
  case SFI_ANCHOR_CONTRACT:
  case SFI_ANCHOR_PRODUCT:
    if (!sfi_poly_eval(kernel->contract.row_count, symbol, &rows)) return 0;
    const int64_t all = points(kernel, 0, 1, symbol), t = kernel->tile.all_t ? all > 0 : all;
    const int64_t columns = points(kernel, 2, 3, symbol);
    return t * (kernel->ragged.width ? 1 : blocks(columns, kernel->tile.column_block)) * blocks(rows, kernel->tile.row_block);
  default:
    if (points(kernel, 0, kernel->rank, symbol) == 0) return 0;
    return points(kernel, 0, kernel->tile_dims, symbol);
  }
}
