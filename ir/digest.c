/* XXH3-128 digests in canonical bytes: equal on every machine. Not a defence against a forger. */
#include "base.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

static sfi_digest canonical_of(XXH128_hash_t hash) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, hash);
  sfi_digest digest;
  _Static_assert(sizeof digest.bytes == sizeof canonical.digest, "128 bits");
  memcpy(digest.bytes, canonical.digest, sizeof digest.bytes);
  return digest;
}

sfi_digest sfi_digest_of(const void *data, size_t size) {
  return canonical_of(XXH3_128bits(data, size));
}

_Static_assert(sizeof(XXH3_state_t) <= sizeof(sfi_digesting) && _Alignof(XXH3_state_t) <= _Alignof(sfi_digesting),
               "room for a state");

void sfi_digest_begin(sfi_digesting *digesting) {
  XXH3_state_t *state = (XXH3_state_t *)digesting->state;
  XXH3_INITSTATE(state);
  XXH3_128bits_reset(state);
}

void sfi_digest_add(sfi_digesting *digesting, const void *data, size_t size) {
  XXH3_128bits_update((XXH3_state_t *)digesting->state, data, size);
}

sfi_digest sfi_digest_end(const sfi_digesting *digesting) {
  return canonical_of(XXH3_128bits_digest((const XXH3_state_t *)digesting->state));
}

sfi_digest sfi_digest_join(sfi_digest a, sfi_digest b) {
  sfi_digest pair[2] = {a, b};
  return sfi_digest_of(pair, sizeof pair);
}

void sfi_digest_hex(sfi_digest digest, char out[33]) {
  for (size_t i = 0; i < sizeof digest.bytes; i++) {
    out[2 * i] = "0123456789abcdef"[digest.bytes[i] >> 4];
    out[2 * i + 1] = "0123456789abcdef"[digest.bytes[i] & 15];
  }
  out[32] = 0;
}
