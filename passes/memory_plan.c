/* Offsets of TEMP buffers in one arena for one value of the symbol: largest first, each at the lowest offset where it meets no buffer
 * that lives at the same time. Quadratic in the number of buffers, of which a plan has tens; needs no memory beside its result. */
#include "passes.h"

enum { ALIGNMENT = 64, SLACK = 64 };

/* Room that a buffer takes, its slack included. */
static bool room(const sfi_buffer *buffer, int64_t symbol, int64_t *out) {
  size_t bytes;
  if (!sfi_buffer_bytes(buffer, symbol, &bytes) || bytes > INT64_MAX / 4) return false;
  *out = sfi_round_up((int64_t)bytes, ALIGNMENT) + SLACK;
  return true;
}

static bool meet(const sfi_buffer *a, const sfi_buffer *b) {
  return a->first_use <= b->last_use && b->first_use <= a->last_use;
}

/* Largest TEMP buffer without an offset; -1: none. */
static int64_t next_buffer(const sfi_plan *plan, int64_t symbol, const size_t *offsets, int64_t *out_room) {
  int64_t best = -1, bytes;
  for (size_t b = 0; b < plan->n_buffers; b++) {
    const sfi_buffer *buffer = &plan->buffers[b];
    if (buffer->kind != SFI_BUFFER_TEMP || buffer->first_use < 0 || offsets[b] != SIZE_MAX) continue;
    if (!room(buffer, symbol, &bytes) || (best >= 0 && bytes <= *out_room)) continue;
    best = (int64_t)b;
    *out_room = bytes;
  }
  return best;
}

bool sfi_plan_memory(const sfi_plan *plan, int64_t symbol, size_t *offsets, size_t *out_bytes) {
  size_t top = 0;
  int64_t bytes = 0, other;
  for (size_t b = 0; b < plan->n_buffers; b++) {
    offsets[b] = SIZE_MAX;
    if (plan->buffers[b].kind == SFI_BUFFER_TEMP && !room(&plan->buffers[b], symbol, &bytes)) return false;
  }
  for (int64_t b; (b = next_buffer(plan, symbol, offsets, &bytes)) >= 0;) {
    size_t offset = 0;
    for (size_t i = 0; i < plan->n_buffers; i++) {
      if (offsets[i] == SIZE_MAX || !meet(&plan->buffers[i], &plan->buffers[b]) || !room(&plan->buffers[i], symbol, &other))
        continue;
      if (offsets[i] >= offset + (size_t)bytes || offset >= offsets[i] + (size_t)other) continue;
      offset = offsets[i] + (size_t)other; /* moved up: look at all again */
      i = SIZE_MAX;
    }
    if (offset > SIZE_MAX / 2 - (size_t)bytes) return false;
    offsets[b] = offset;
    if (offset + (size_t)bytes > top) top = offset + (size_t)bytes;
  }
  *out_bytes = top;
  return true;
}
