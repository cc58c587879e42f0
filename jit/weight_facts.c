/* Facts about the zeros of weights for one compilation: each matrix is digested once, and scanned only where neither this compilation
 * nor the cache knows its facts. Thread-compatible. */
#include "jit.h"

#include <stdio.h>

struct sfi_known_digest {
  struct sfi_known_digest *next;
  sfi_matrix matrix;
  sfi_digest digest;
};

struct sfi_known_facts {
  struct sfi_known_facts *next;
  sfi_digest digest; /* of the matrix */
  sfi_facts facts;
};

/* Facts are stored as they lie in memory, their list of live rows and columns behind them; the key names the order of bytes. */
enum { STORED = offsetof(sfi_facts, live) };
_Static_assert(STORED == 12 * sizeof(int64_t) + 6 * sizeof(int32_t) + sizeof(sfi_digest), "facts have no padding");
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define FACTS "facts little"
#else
#define FACTS "facts big"
#endif

static bool same_matrix(const sfi_matrix *a, const sfi_matrix *b) {
  return a->data == b->data && a->source == b->source && a->rows == b->rows && a->columns == b->columns &&
         a->row_stride == b->row_stride && a->column_stride == b->column_stride;
}

sfi_digest sfi_weight_facts_digest(void *user, const sfi_matrix *matrix) {
  sfi_weight_facts *known = user;
  for (const struct sfi_known_digest *k = known->digests; k; k = k->next) {
    if (same_matrix(&k->matrix, matrix)) return k->digest;
  }
  sfi_digest digest = {0};
  if (!matrix->source)
    digest = sfi_matrix_digest(matrix);
  else if (!sfi_matrix_source_digest(matrix, known->diag, &digest))
    return digest;
  struct sfi_known_digest *fresh = sfi_arena_alloc(&known->arena, sizeof *fresh);
  if (fresh) { /* else it is only computed again */
    *fresh = (struct sfi_known_digest){known->digests, *matrix, digest};
    known->digests = fresh;
  }
  return digest;
}

/* Bytes of the list; 0: there is none. */
static size_t live_bytes(const sfi_facts *facts) {
  return facts->dead_rows + facts->dead_columns ? (size_t)(facts->rows + facts->columns) : 0;
}

/* Facts of `matrix`, of which only the extents are looked at, from what an entry holds. */
static bool read_facts(sfi_weight_facts *known, const sfi_blob *blob, const sfi_matrix *matrix, sfi_facts *out_facts) {
  if (blob->size < STORED) return false;
  memcpy(out_facts, blob->data, STORED);
  const size_t bytes = live_bytes(out_facts);
  if (out_facts->rows != matrix->rows || out_facts->columns != matrix->columns || blob->size != STORED + bytes) return false;
  return bytes == 0 || (out_facts->live = sfi_arena_copy(&known->arena, blob->data + STORED, bytes));
}

static bool from_cache(sfi_weight_facts *known, const sfi_cache_key *key, const sfi_matrix *matrix, sfi_facts *out_facts) {
  sfi_blob blob;
  int level;
  if (!sfi_cache_get(known->context->jit->cache, key, known->disk, &blob, &level, NULL, 0)) return false;
  const bool read = read_facts(known, &blob, matrix, out_facts);
  sfi_blob_deinit(&blob);
  return read;
}

static sf_status scan(sfi_weight_facts *known, const sfi_cache_key *key, const sfi_matrix *matrix, sfi_facts *out_facts) {
  sfi_blob entry;
  sf_status status = sfi_scan_zeros(matrix, &known->context->allocator, known->diag, out_facts);
  if (status != SF_OK) return status;
  known->scanned++;
  const size_t bytes = live_bytes(out_facts);
  if (!sfi_blob_init(&entry, &known->context->allocator, STORED + bytes)) return sfi_fail_memory(known->diag);
  memcpy(entry.data, out_facts, STORED);
  if (bytes) sfi_scan_live(matrix, entry.data + STORED);
  if (bytes && !(out_facts->live = sfi_arena_copy(&known->arena, entry.data + STORED, bytes)))
    status = sfi_fail_memory(known->diag);
  sfi_cache_put(known->context->jit->cache, key, known->disk, entry.data, entry.size);
  sfi_blob_deinit(&entry);
  return status;
}

const sfi_facts *sfi_weight_facts_get(void *user, const sfi_matrix *matrix, sfi_digest digest) {
  sfi_weight_facts *known = user;
  if (known->diag->error.status != SF_OK) return NULL; /* the digest is none */
  for (const struct sfi_known_facts *k = known->facts; k; k = k->next) {
    if (memcmp(&k->digest, &digest, sizeof digest) == 0) return &k->facts;
  }
  struct sfi_known_facts *fresh = sfi_arena_alloc(&known->arena, sizeof *fresh);
  if (!fresh) {
    sfi_fail_memory(known->diag);
    return NULL;
  }
  fresh->digest = digest;
  char hex[33], text[64];
  sfi_digest_hex(digest, hex);
  int length = snprintf(text, sizeof text, FACTS " %s", hex);
  sfi_cache_key key = {SFI_ENTRY_PROFILE, text, (size_t)length, "", "", ""};
  if (!from_cache(known, &key, matrix, &fresh->facts)) {
    sfi_matrix read = *matrix;
    if (!sfi_matrix_open(&read, known->diag)) return NULL;
    const sf_status status = scan(known, &key, &read, &fresh->facts);
    sfi_matrix_close(&read);
    if (status != SF_OK) return NULL;
  }
  fresh->next = known->facts;
  known->facts = fresh;
  return &fresh->facts;
}
