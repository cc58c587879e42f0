/* Reads static bytes from their file, whole or in pieces, and makes them from others: parts put together, or what stays of one. */
#include "source.h"

enum { PIECE = 64 << 10 }; /* stays in the second cache between reading and digesting; below what malloc maps anew each time */

bool sfi_source_init(sfi_source *source, const sf_allocator *allocator, const char *file, const char *name, int fd,
                     const sfi_stamp *opened, uint64_t offset, size_t bytes) {
  *source = (sfi_source){
      .allocator = allocator, .file = file, .name = name, .fd = fd, .opened = *opened, .offset = offset, .bytes = bytes};
  return pthread_mutex_init(&source->lock, NULL) == 0;
}

static sfi_source *made_of(const sf_allocator *allocator, sfi_source *const *parts, int32_t n_parts) {
  sfi_source *source = sfi_calloc(allocator, 1, sizeof *source);
  if (!source) return NULL;
  source->allocator = source->arena.allocator = allocator;
  source->parts = sfi_arena_copy(&source->arena, parts, (size_t)n_parts * sizeof *parts);
  source->n_parts = n_parts;
  if (source->parts && pthread_mutex_init(&source->lock, NULL) == 0) return source;
  sfi_arena_deinit(&source->arena);
  sfi_free(allocator, source, sizeof *source);
  return NULL;
}

sfi_source *sfi_source_join(const sf_allocator *allocator, sfi_source *const *parts, int32_t n_parts, size_t turns) {
  sfi_source *source = made_of(allocator, parts, n_parts);
  if (!source) return NULL;
  source->turns = turns;
  for (int32_t i = 0; i < n_parts; i++) source->bytes += parts[i]->bytes;
  return source;
}

sfi_source *sfi_source_select(const sf_allocator *allocator, sfi_source *whole, const sfi_selection *selection) {
  sfi_source *source = made_of(allocator, &whole, 1);
  if (!source) return NULL;
  sfi_selection *own = &source->selection;
  *own = *selection;
  source->bytes = sizeof(float);
  for (int32_t d = 0; d < own->rank; d++) {
    source->bytes *= (size_t)own->count[d];
    if (!own->index[d]) continue;
    own->index[d] = sfi_arena_copy(&source->arena, own->index[d], (size_t)own->count[d] * sizeof *own->index[d]);
    if (own->index[d]) continue;
    sfi_source_destroy(source);
    return NULL;
  }
  return source;
}

void sfi_source_deinit(sfi_source *source) {
  sfi_free(source->allocator, source->data, source->bytes);
  pthread_mutex_destroy(&source->lock);
}

void sfi_source_destroy(sfi_source *source) {
  const sf_allocator *allocator = source->allocator;
  sfi_source_deinit(source);
  sfi_arena_deinit(&source->arena);
  sfi_free(allocator, source, sizeof *source);
}

/* Of dimensions d and after, `last` being the last that loses something; returns behind the last element written. */
static float *select_from(const sfi_selection *s, int32_t last, int32_t d, const float *from, float *to) {
  int64_t step = 1;
  for (int32_t e = d + 1; e < s->rank; e++) step *= s->extent[e];
  for (int64_t i = 0, n; i < s->count[d]; i += n) {
    const int64_t at = s->index[d] ? s->index[d][i] : i;
    n = 1;
    if (d < last) {
      to = select_from(s, last, d + 1, from + at * step, to);
      continue;
    }
    while (i + n < s->count[d] && (!s->index[d] || s->index[d][i + n] == at + n)) n++;
    memcpy(to, from + at * step, (size_t)(n * step) * sizeof *to);
    to += n * step;
  }
  return to;
}

void sfi_select(const sfi_selection *selection, const float *from, float *to) {
  int32_t last = 0;
  for (int32_t d = 0; d < selection->rank; d++)
    if (selection->index[d]) last = d;
  if (selection->rank == 0)
    *to = *from;
  else
    select_from(selection, last, 0, from, to);
}

/* Bytes of a range as they stand in the file now. */
static bool read_at(const sfi_source *source, size_t at, size_t bytes, void *to, sfi_diag *diag) {
  sfi_diag why = {0};
  const sfi_place place = {.file = source->file};
  if (sfi_input_read_at(source->fd, source->offset + at, to, bytes, source->file, &why) == SF_OK) return true;
  sfi_fail(diag, why.error.status, &place, source->name, "%s", why.error.message);
  return false;
}

static bool fail_changed(const sfi_source *source, sfi_diag *diag) {
  const sfi_place place = {.file = source->file};
  sfi_fail(diag, SF_STATUS_MALFORMED_FILE, &place, source->name, "has changed since it was opened");
  return false;
}

/* All bytes to `to`, or, where that is NULL, piece after piece to `piece`. */
static bool read_pieces(sfi_source *source, uint8_t *to, uint8_t *piece, bool digest, sfi_diag *diag) {
  sfi_digesting digesting;
  sfi_digest_begin(&digesting);
  for (size_t at = 0; at < source->bytes; at += PIECE) {
    const size_t bytes = source->bytes - at < PIECE ? source->bytes - at : PIECE;
    uint8_t *here = to ? to + at : piece;
    if (!read_at(source, at, bytes, here, diag)) return false;
    if (digest) sfi_digest_add(&digesting, here, bytes);
  }
  if (!digest) return true;
  const sfi_digest found = sfi_digest_end(&digesting);
  if (source->digested && memcmp(&found, &source->digest, sizeof found) != 0) return fail_changed(source, diag);
  source->digested = true;
  source->digest = found;
  return true;
}

static bool read_selection(const sfi_source *source, void *to, sfi_diag *diag) {
  const float *from = sfi_source_open(source->parts[0], diag);
  if (!from) return false;
  sfi_select(&source->selection, from, to);
  sfi_source_close(source->parts[0]);
  return true;
}

/* One part after the other is in memory. */
static bool read_parts(const sfi_source *source, uint8_t *to, sfi_diag *diag) {
  if (!source->turns) return read_selection(source, to, diag);
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

static sfi_digest selection_digest(const sfi_selection *s) {
  sfi_digest digest = sfi_digest_of(&s->rank, sizeof s->rank);
  for (int32_t d = 0; d < s->rank; d++) {
    digest = sfi_digest_join(digest, sfi_digest_of(&s->extent[d], sizeof s->extent[d]));
    digest = sfi_digest_join(digest, sfi_digest_of(s->index[d], s->index[d] ? (size_t)s->count[d] * sizeof *s->index[d] : 0));
  }
  return digest;
}

static bool digest_parts(sfi_source *source, sfi_diag *diag) {
  sfi_digest digest = source->turns ? sfi_digest_of(&source->turns, sizeof source->turns) : selection_digest(&source->selection),
             part;
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

/* The file is looked at last: a write changes its time before its bytes. */
static bool copy_range(const sfi_source *source, size_t at, size_t bytes, void *to, sfi_diag *diag) {
  sfi_stamp now;
  if (!read_at(source, at, bytes, to, diag) || sfi_input_stamp(source->fd, source->file, diag, &now) != SF_OK) return false;
  return sfi_stamp_equal(&now, &source->opened) || fail_changed(source, diag);
}

bool sfi_source_copy(sfi_source *source, size_t at, size_t bytes, void *to, sfi_diag *diag) {
  if (!source->parts) return copy_range(source, at, bytes, to, diag);
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
