/* The entry format: encodes what stands before a payload, and decodes an entry byte by byte verified.
 *
 * Requires nothing of the bytes that it decodes: they may be torn, damaged or hostile. Nothing is handed out before the whole
 * entry was read into memory of ours and verified there. Integers are little-endian.
 *
 *    0  magic
 *    8  digest of the sources of the library that wrote it
 *   24  XXH3-128 of all from 40 to the payload
 *   40  XXH3-128 of the payload
 *   56  payload size    64  kind   68  key size   72  target size   76  features size   80  compiler size
 *   84  target, features, compiler, key, payload
 *
 * Magic and sources stand outside of the first digest because each is compared with its one right value. Other sources give their entries
 * other names; what they wrote under one of ours, a renamed file, is not looked at: even this format may be another. */
#include "cache_levels.h"

#include <stdio.h>

static const uint8_t magic[8] = {0x89, 's', 'f', 'c', 'a', 'c', 'h', '\n'};

enum {
  AT_SOURCES = 8,
  AT_PREFIX_DIGEST = 24,
  AT_PAYLOAD_DIGEST = 40,
  AT_PAYLOAD_SIZE = 56,
  AT_KIND = 64,
  AT_KEY_SIZE = 68,
  AT_TARGET_SIZE = 72,
  AT_FEATURES_SIZE = 76,
  AT_COMPILER_SIZE = 80
};

static void store(uint8_t *out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; i++) out[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t load(const uint8_t *in, int bytes) {
  uint64_t value = 0;
  for (int i = 0; i < bytes; i++) value |= (uint64_t)in[i] << (8 * i);
  return value;
}

/* Bytes of an entry, not terminated. */
typedef struct slice {
  const uint8_t *data;
  size_t size;
} slice;

static slice take(const uint8_t **cursor, size_t size) {
  slice s = {*cursor, size};
  *cursor += size;
  return s;
}

static bool slice_is(slice s, const void *data, size_t size) {
  return s.size == size && (size == 0 || memcmp(s.data, data, size) == 0);
}

sfi_digest sfi_entry_id(const sfi_cache_key *key) {
  sfi_digest target = sfi_digest_of(key->target, strlen(key->target));
  uint8_t kind[4];
  store(kind, key->kind, sizeof kind);
  const sfi_digest what = sfi_digest_join(sfi_digest_of(kind, sizeof kind), target);
  return sfi_digest_join(sfi_sources_digest, sfi_digest_join(what, sfi_digest_of(key->bytes, key->size)));
}

bool sfi_entry_encode(const sf_allocator *allocator, const sfi_cache_key *key, const void *payload, size_t size,
                      sfi_blob *out_prefix) {
  const size_t target = strlen(key->target), features = strlen(key->features), compiler = strlen(key->compiler);
  if (key->size > SFI_ENTRY_PREFIX_MAX || target > SFI_ENTRY_PREFIX_MAX || features > SFI_ENTRY_PREFIX_MAX ||
      compiler > SFI_ENTRY_PREFIX_MAX)
    return false;
  const size_t total = SFI_ENTRY_HEADER_SIZE + target + features + compiler + key->size;
  if (total > SFI_ENTRY_PREFIX_MAX || !sfi_blob_init(out_prefix, allocator, total)) return false;
  uint8_t *p = out_prefix->data;
  memcpy(p, magic, sizeof magic);
  memcpy(p + AT_SOURCES, sfi_sources_digest.bytes, sizeof sfi_sources_digest.bytes);
  store(p + AT_KIND, key->kind, 4);
  sfi_digest payload_digest = sfi_digest_of(payload, size);
  memcpy(p + AT_PAYLOAD_DIGEST, payload_digest.bytes, sizeof payload_digest.bytes);
  store(p + AT_PAYLOAD_SIZE, size, 8);
  store(p + AT_KEY_SIZE, key->size, 4);
  store(p + AT_TARGET_SIZE, target, 4);
  store(p + AT_FEATURES_SIZE, features, 4);
  store(p + AT_COMPILER_SIZE, compiler, 4);
  uint8_t *end = p + SFI_ENTRY_HEADER_SIZE;
  memcpy(end, key->target, target);
  memcpy(end += target, key->features, features);
  memcpy(end += features, key->compiler, compiler);
  if (key->size) memcpy(end + compiler, key->bytes, key->size);
  sfi_digest prefix_digest = sfi_digest_of(p + AT_PAYLOAD_DIGEST, total - AT_PAYLOAD_DIGEST);
  memcpy(p + AT_PREFIX_DIGEST, prefix_digest.bytes, sizeof prefix_digest.bytes);
  return true;
}

bool sfi_features_run_here(const char *features, size_t size) {
  /* The best target that the machine runs lists what was asked of the processor itself. Flags with a minus only tune. */
  const char *offered = sfi_target_of(sfi_target_native())->features;
  for (const char *flag = features, *end = features + size; flag < end;) {
    const char *comma = memchr(flag, ',', (size_t)(end - flag));
    const size_t length = (size_t)((comma ? comma : end) - flag);
    bool found = length == 0 || flag[0] != '+';
    for (const char *have = offered; !found && *have;) {
      const size_t n = strcspn(have, ",");
      found = n == length && memcmp(have, flag, n) == 0;
      have += n + (have[n] == ',');
    }
    if (!found) return false;
    flag += length + 1;
  }
  return true;
}

/* For a log line: whatever an entry holds, a line stays a line. */
static const char *printable(slice s, char out[80]) {
  size_t n = s.size < 79 ? s.size : 79;
  for (size_t i = 0; i < n; i++) out[i] = (char)(s.data[i] >= 32 && s.data[i] < 127 ? s.data[i] : '?');
  out[n] = 0;
  return out;
}

static sf_probe_state damaged(char reason[SFI_REASON_SIZE], const char *why) {
  snprintf(reason, SFI_REASON_SIZE, "damaged: %s", why);
  return SF_PROBE_MISSING;
}

/* Is the verified prefix that of `key`? */
static sf_probe_state match(const uint8_t *prefix, const sfi_cache_key *key, char reason[SFI_REASON_SIZE]) {
  const uint8_t *cursor = prefix + SFI_ENTRY_HEADER_SIZE;
  slice target = take(&cursor, load(prefix + AT_TARGET_SIZE, 4));
  slice features = take(&cursor, load(prefix + AT_FEATURES_SIZE, 4));
  slice compiler = take(&cursor, load(prefix + AT_COMPILER_SIZE, 4));
  slice bytes = take(&cursor, load(prefix + AT_KEY_SIZE, 4));
  char text[80];
  if (load(prefix + AT_KIND, 4) != (uint64_t)key->kind || !slice_is(bytes, key->bytes, key->size) ||
      !slice_is(target, key->target, strlen(key->target))) {
    snprintf(reason, SFI_REASON_SIZE, "holds another key");
    return SF_PROBE_MISSING;
  }
  if (!slice_is(features, key->features, strlen(key->features))) {
    bool runs = sfi_features_run_here((const char *)features.data, features.size);
    snprintf(reason, SFI_REASON_SIZE, "made for %s, %s", printable(features, text),
             runs ? "this asks for others" : "which this machine does not have");
    return runs ? SF_PROBE_STALE : SF_PROBE_FOREIGN;
  }
  if (!slice_is(compiler, key->compiler, strlen(key->compiler))) {
    snprintf(reason, SFI_REASON_SIZE, "made by %s, this is %.79s", printable(compiler, text), key->compiler);
    return SF_PROBE_STALE;
  }
  return SF_PROBE_HIT;
}

/* In pieces, which are digested before they leave the second cache. */
static bool read_payload(const sfi_entry_source *source, uint64_t offset, const sfi_blob *payload, sfi_digest *out_digest) {
  enum { PIECE = 256 << 10 };
  sfi_digesting digesting;
  sfi_digest_begin(&digesting);
  for (size_t at = 0; at < payload->size; at += PIECE) {
    const size_t bytes = payload->size - at < PIECE ? payload->size - at : PIECE;
    if (!source->read(source->user, offset + at, payload->data + at, bytes)) return false;
    sfi_digest_add(&digesting, payload->data + at, bytes);
  }
  *out_digest = sfi_digest_end(&digesting);
  return true;
}

sf_probe_state sfi_entry_look(const sfi_entry_source *source, const sfi_cache_key *key, const sf_allocator *allocator,
                              sfi_entry_payload *out_payload, char reason[SFI_REASON_SIZE]) {
  uint8_t head[SFI_ENTRY_HEADER_SIZE];
  reason[0] = 0;
  if (source->size > SFI_ENTRY_MAX_BYTES) return damaged(reason, "too large");
  if (source->size < sizeof head) return damaged(reason, source->size ? "shorter than a header" : "empty");
  if (!source->read(source->user, 0, head, sizeof head)) return damaged(reason, "cannot be read");
  if (memcmp(head, magic, sizeof magic) != 0) return damaged(reason, "not an entry");
  if (memcmp(head + AT_SOURCES, sfi_sources_digest.bytes, sizeof sfi_sources_digest.bytes) != 0)
    return damaged(reason, "made by other sources of the library than its name says");
  const uint64_t prefix_size = SFI_ENTRY_HEADER_SIZE + load(head + AT_KEY_SIZE, 4) + load(head + AT_TARGET_SIZE, 4) +
                               load(head + AT_FEATURES_SIZE, 4) + load(head + AT_COMPILER_SIZE, 4);
  if (prefix_size > SFI_ENTRY_PREFIX_MAX || prefix_size > source->size ||
      load(head + AT_PAYLOAD_SIZE, 8) != source->size - prefix_size)
    return damaged(reason, "its sizes do not add up");

  sfi_blob prefix = {0};
  sf_probe_state state = SF_PROBE_MISSING;
  if (!sfi_blob_init(&prefix, allocator, prefix_size)) {
    snprintf(reason, SFI_REASON_SIZE, "out of memory");
    goto done;
  }
  memcpy(prefix.data, head, sizeof head);
  if (!source->read(source->user, sizeof head, prefix.data + sizeof head, prefix_size - sizeof head)) {
    damaged(reason, "cannot be read");
    goto done;
  }
  sfi_digest digest = sfi_digest_of(prefix.data + AT_PAYLOAD_DIGEST, prefix_size - AT_PAYLOAD_DIGEST);
  if (memcmp(digest.bytes, head + AT_PREFIX_DIGEST, sizeof digest.bytes) != 0) {
    damaged(reason, "checksum of the key");
    goto done;
  }
  *out_payload = (sfi_entry_payload){.offset = prefix_size, .size = source->size - prefix_size};
  memcpy(out_payload->digest.bytes, head + AT_PAYLOAD_DIGEST, sizeof out_payload->digest.bytes);
  state = match(prefix.data, key, reason);
done:
  sfi_blob_deinit(&prefix);
  return state;
}

sf_probe_state sfi_entry_decode(const sfi_entry_source *source, const sfi_cache_key *key, const sf_allocator *allocator,
                                sfi_blob *out_payload, char reason[SFI_REASON_SIZE]) {
  sfi_entry_payload said;
  const sf_probe_state state = sfi_entry_look(source, key, allocator, &said, reason);
  if (state != SF_PROBE_HIT) return state;
  sfi_blob payload;
  sfi_digest digest;
  if (!sfi_blob_alloc(&payload, allocator, said.size)) {
    snprintf(reason, SFI_REASON_SIZE, "out of memory");
  } else if (!read_payload(source, said.offset, &payload, &digest)) {
    damaged(reason, "cannot be read");
  } else if (memcmp(&digest, &said.digest, sizeof digest) != 0) {
    damaged(reason, "checksum of the payload");
  } else {
    *out_payload = payload;
    return SF_PROBE_HIT;
  }
  sfi_blob_deinit(&payload);
  return SF_PROBE_MISSING;
}
