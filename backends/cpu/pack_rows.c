/* What packers of sparse weights ask of rows of W: which columns have nonzeros, as bits, and an order of rows. */
#include "contraction.h"

#include <stdlib.h>

int64_t sfi_row_bits(const sfi_contract *c, int64_t r, int64_t begin, int64_t end, uint64_t *bits) {
  int64_t n = 0;
  memset(bits, 0, (size_t)sfi_ceil_div(end - begin, 64) * sizeof *bits);
  for (int64_t k = begin; k < end; k++) {
    const bool nonzero = sfi_weight_at(c, r, k) != 0;
    bits[(k - begin) / 64] |= (uint64_t)nonzero << (k - begin) % 64;
    n += nonzero;
  }
  return n;
}

int64_t sfi_common_bits(const uint64_t *a, const uint64_t *b, int64_t words) {
  int64_t n = 0;
  for (int64_t i = 0; i < words; i++) n += __builtin_popcountll(a[i] & b[i]);
  return n;
}

static int falling(const void *a, const void *b) {
  const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x < y) - (x > y);
}

void sfi_sort_falling(int64_t *key, int64_t n) {
  qsort(key, (size_t)n, sizeof *key, falling);
}
