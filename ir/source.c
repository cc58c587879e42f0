/* Reads static bytes from their file, whole or in pieces, and puts them together from parts. */
#include "source.h"

#include "input_file.h"

enum { PIECE = 256 << 10 }; /* stays in the second cache between reading and digesting */

bool sfi_source_init(sfi_source *source, const sf_allocator *allocator, const char *file, const char *name, int fd, uint64_t offset,
                     size_t bytes) {
  *source = (sfi_source){.allocator = allocator, .file = file, .name = name, .fd = fd, .offset = offset, .bytes = bytes};
  return pthread_mutex_init(&source->lock, NULL) == 0;
}

bool sfi_source_join(sfi_source *source, const sf_allocator *allocator, sfi_source *const *parts, int32_t n_parts, size_t turns) {
  *source = (sfi_source){.allocator = allocator, .parts = parts, .n_parts = n_parts, .turns = turns};
  for (int32_t i = 0; i < n_parts; i++) source->bytes += parts[i]->bytes;
  return pthread_mutex_init(&source->lock, NULL) == 0;
}

void sfi_source_deinit(sfi_source *source) {
  sfi_free(source->allocator, source->data, source->bytes);
  pthread_mutex_destroy(&source->lock);
}

/* All bytes to `to`, or, where that is NULL, piece after piece to `piece`. */
static bool read_pieces(sfi_source *source, uint8_t *to, uint8_t *piece, bool digest, sfi_diag *diag) {
  sfi_digesting digesting;
  sfi_digest_begin(&digesting);
  for (size_t at = 0; at < source->bytes; at += PIECE) {
    const size_t bytes = source->bytes - at < PIECE ? source->bytes - at : PIECE;
    uint8_t *here = to ? to + at : piece;
    if (sfi_input_read_at(source->fd, source->offset + at, here, bytes, source->file, diag) != SF_OK) return false;
    if (digest) sfi_digest_add(&digesting, here, bytes);
  }
  if (!digest) return true;
  const sfi_digest found = sfi_digest_end(&digesting);
  if (source->digested && memcmp(&found, &source->digest, sizeof found) != 0) {
    sfi_place place = {.file = source->file};
    sfi_fail(diag, SF_STATUS_MALFORMED_FILE, &place, source->name, "has changed since it was opened");
    return false;
  }
  source->digested = true;
  source->digest = found;
  return true;
}

/* One part after the other is in memory. */
static bool read_parts(const sfi_source *source, uint8_t *to, sfi_diag *diag) {
  size_t before = 0; /* of a piece, what the parts before take */
  for (int32_t i = 0; i < source->n_parts; i++) {
    const size_t share = source->parts[i]->bytes / source->turns;
    const uint8_t *from = sfi_source_open(source->parts[i], diag);
    if (!from) return false;
    for (size_t t = 0; t < source->turns; t++) memcpy(to + t * (source->bytes / source->turns) + before, from + t * share, share);
    sfi_source_close(source->parts[i]);
    before += share;
  }
  return true;
}

static bool digest_parts(sfi_source *source, sfi_diag *diag) {
  sfi_digest digest = sfi_digest_of(&source->turns, sizeof source->turns), part;
  for (int32_t i = 0; i < source->n_parts; i++) {
    if (!sfi_source_digest(source->parts[i], diag, &part)) return false;
    digest = sfi_digest_join(digest, part);
  }
  source->digest = digest;
  return source->digested = true;
}

static bool digest_range(sfi_source *source, sfi_diag *diag) {
  if (source->data) {
    source->digest = sfi_digest_of(source->data, source->bytes);
    return source->digested = true;
  }
  uint8_t *piece = sfi_alloc(source->allocator, PIECE);
  if (!piece) sfi_fail_memory(diag);
  const bool read = piece && read_pieces(source, NULL, piece, true, diag);
  sfi_free(source->allocator, piece, PIECE);
  return read;
}

const void *sfi_source_open(sfi_source *source, sfi_diag *diag) {
  pthread_mutex_lock(&source->lock);
  if (!source->data) {
    void *data = sfi_alloc(source->allocator, source->bytes);
    if (!data) sfi_fail_memory(diag);
    if (data && (source->parts ? read_parts(source, data, diag) : read_pieces(source, data, NULL, source->digested, diag)))
      source->data = data;
    else
      sfi_free(source->allocator, data, source->bytes);
  }
  const void *data = source->data;
  source->users += data != NULL;
  pthread_mutex_unlock(&source->lock);
  return data;
}

void sfi_source_close(sfi_source *source) {
  pthread_mutex_lock(&source->lock);
  assert(source->users > 0);
  if (--source->users == 0) {
    sfi_free(source->allocator, source->data, source->bytes);
    source->data = NULL;
  }
  pthread_mutex_unlock(&source->lock);
}

bool sfi_source_copy(sfi_source *source, size_t at, size_t bytes, void *to, sfi_diag *diag) {
  if (!source->parts) return sfi_input_read_at(source->fd, source->offset + at, to, bytes, source->file, diag) == SF_OK;
  const uint8_t *data = sfi_source_open(source, diag);
  if (!data) return false;
  memcpy(to, data + at, bytes);
  sfi_source_close(source);
  return true;
}

bool sfi_source_digest(sfi_source *source, sfi_diag *diag, sfi_digest *out_digest) {
  pthread_mutex_lock(&source->lock);
  const bool digested = source->digested || (source->parts ? digest_parts(source, diag) : digest_range(source, diag));
  *out_digest = source->digest;
  pthread_mutex_unlock(&source->lock);
  return digested;
}
