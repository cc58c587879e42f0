/* Fuzz target: the decoder of cache entries on any bytes. The first byte chooses: odd, both checksums and the digest of the sources are set right
 * beforehand, so that what stands behind them is reached too. A hit must be, byte for byte, the entry that encoding its payload gives. */
#include <stdlib.h>

#include "cache_levels.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct bytes {
  uint8_t *data;
  size_t size;
} bytes;

static bool read_bytes(void *user, uint64_t offset, void *out, size_t size) {
  const bytes *b = user;
  if (offset > b->size || size > b->size - offset) return false;
  if (size) memcpy(out, b->data + offset, size);
  return true;
}

static size_t number_at(const bytes *b, size_t at) {
  return b->data[at] | (size_t)b->data[at + 1] << 8 | (size_t)b->data[at + 2] << 16 | (size_t)b->data[at + 3] << 24;
}

/* docs/cache.md gives the places. */
static void sign(bytes *b) {
  if (b->size < SFI_ENTRY_HEADER_SIZE) return;
  const size_t prefix = SFI_ENTRY_HEADER_SIZE + number_at(b, 68) + number_at(b, 72) + number_at(b, 76) + number_at(b, 80);
  if (prefix > b->size) return;
  sfi_digest digest = sfi_digest_of(b->data + prefix, b->size - prefix);
  memcpy(b->data + 40, digest.bytes, sizeof digest.bytes);
  digest = sfi_digest_of(b->data + 40, prefix - 40);
  memcpy(b->data + 24, digest.bytes, sizeof digest.bytes);
  memcpy(b->data + 8, sfi_sources_digest.bytes, sizeof sfi_sources_digest.bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const sfi_cache_key key = {SFI_ENTRY_OBJECT, "kernel", 6, "avx2", "+avx2", "LLVM 19"};
  if (size < 1) return 0;
  bytes entry = {malloc(size), size - 1}; /* one byte more: malloc(0) may be NULL */
  if (!entry.data) return 0;
  memcpy(entry.data, data + 1, entry.size);
  if (data[0] & 1) sign(&entry);

  sfi_entry_source source = {read_bytes, &entry, entry.size};
  sfi_blob payload = {0};
  char reason[SFI_REASON_SIZE];
  sf_probe_state state = sfi_entry_decode(&source, &key, &sfi_default_allocator, &payload, reason);
  if (state == SF_PROBE_HIT) {
    sfi_blob prefix = {0};
    if (reason[0] || !sfi_entry_encode(&sfi_default_allocator, &key, payload.data, payload.size, &prefix)) abort();
    if (prefix.size + payload.size != entry.size || memcmp(prefix.data, entry.data, prefix.size) != 0) abort();
    if (payload.size && memcmp(payload.data, entry.data + prefix.size, payload.size) != 0) abort();
    sfi_blob_deinit(&prefix);
  } else if (payload.data || !reason[0] || !memchr(reason, 0, sizeof reason)) {
    abort();
  }
  sfi_blob_deinit(&payload);
  free(entry.data);
  return 0;
}
