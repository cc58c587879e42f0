/* Rows of one weight put together by pattern: what shares columns of X can then share a panel. */
#include "facts.h"

/* Digests in a table of heads, rows of a class chained behind their first. */
bool sfi_order_rows(const sfi_digest *digest, int64_t rows, const sf_allocator *allocator, uint32_t *out_order) {
  size_t slots = 1;
  while (slots < (size_t)rows * 2) slots *= 2;
  size_t bytes = (slots + 2 * (size_t)rows) * sizeof(uint32_t);
  uint32_t *head = sfi_alloc(allocator, bytes), n = 0;
  if (!head) return false;
  uint32_t *next = head + slots, *last = next + rows;
  memset(head, 0, slots * sizeof *head); /* row + 1; 0: free */
  for (uint32_t r = 0; r < rows; r++) {
    size_t slot;
    memcpy(&slot, digest[r].bytes, sizeof slot);
    slot &= slots - 1;
    while (head[slot] && memcmp(&digest[head[slot] - 1], &digest[r], sizeof *digest) != 0) slot = (slot + 1) & (slots - 1);
    next[r] = 0;
    if (head[slot]) {
      uint32_t first = head[slot] - 1;
      next[last[first]] = r;
      last[first] = r;
      last[r] = UINT32_MAX; /* not a first row */
    } else {
      head[slot] = r + 1;
      last[r] = r;
    }
  }
  for (uint32_t first = 0; first < rows; first++) {
    if (last[first] == UINT32_MAX) continue;
    for (uint32_t r = first;; r = next[r]) {
      out_order[n++] = r;
      if (next[r] == 0) break; /* row 0 is never a later row of its class */
    }
  }
  sfi_free(allocator, head, bytes);
  return true;
}
