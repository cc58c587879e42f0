/* Foundations of every directory: allocation, arenas, growing text, diagnostics, digests.
 * Nothing here is global or mutable. A failed allocation is returned, never fatal. */
#ifndef SFI_BASE_H
#define SFI_BASE_H

#include <assert.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <sparseflow/sparseflow.h>

#if defined(__GNUC__)
#define SFI_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define SFI_PRINTF(f, a)
#endif
#define SFI_COUNT(a) (sizeof(a) / sizeof(a)[0])

/* ---- allocation --------------------------------------------------------------------------------------------------- */

extern const sf_allocator sfi_default_allocator;
/* 64-byte aligned; NULL when out of memory. bytes 0 gives a pointer that may be freed. */
void *sfi_alloc(const sf_allocator *a, size_t bytes);
/* The same for room of which little may ever be touched: of our own allocator's, what is not touched takes no memory. */
void *sfi_alloc_room(const sf_allocator *a, size_t bytes);
void *sfi_calloc(const sf_allocator *a, size_t count, size_t size); /* zeroed; NULL on overflow */
void sfi_free(const sf_allocator *a, void *memory, size_t bytes);   /* NULL does nothing; bytes as asked for */
/* Grows *items (count in use, *capacity allocated, elements of `size` bytes) to hold at least `need`. False: out of memory,
 * nothing changed. */
bool sfi_grow(const sf_allocator *a, void **items, size_t *capacity, size_t size, size_t need);

/* Bump allocator; everything is freed at once. The zero value with `allocator` set is ready. */
typedef struct sfi_arena {
  const sf_allocator *allocator;
  struct sfi_arena_block *blocks;
} sfi_arena;
void *sfi_arena_alloc(sfi_arena *arena, size_t bytes); /* 16-byte aligned, zeroed; NULL when out of memory */
void *sfi_arena_copy(sfi_arena *arena, const void *data, size_t bytes);
char *sfi_arena_strndup(sfi_arena *arena, const char *text, size_t length);
char *sfi_arena_printf(sfi_arena *arena, const char *format, ...) SFI_PRINTF(2, 3);
void sfi_arena_deinit(sfi_arena *arena);

/* ---- text --------------------------------------------------------------------------------------------------------- */

/* Growing text, always terminated. `failed` is sticky after an allocation fails; check it once at the end. */
typedef struct sfi_text {
  const sf_allocator *allocator;
  char *data; /* NULL while empty */
  size_t length, capacity;
  bool failed;
} sfi_text;
void sfi_text_add(sfi_text *text, const char *data, size_t length);
void sfi_text_printf(sfi_text *text, const char *format, ...) SFI_PRINTF(2, 3);
void sfi_text_vprintf(sfi_text *text, const char *format, va_list arguments) SFI_PRINTF(2, 0);
/* Shortest decimal that reads back as the same double ("0.1", "1e-05", "nan", "-inf"). */
void sfi_text_number(sfi_text *text, double value);
void sfi_text_float(sfi_text *text, float value); /* the same float */
void sfi_text_deinit(sfi_text *text);

/* Bytes owned by their allocator. The zero value is empty. */
typedef struct sfi_blob {
  const sf_allocator *allocator;
  uint8_t *data;
  size_t size;
} sfi_blob;
bool sfi_blob_init(sfi_blob *blob, const sf_allocator *a, size_t size);  /* 64-byte aligned, zeroed */
bool sfi_blob_alloc(sfi_blob *blob, const sf_allocator *a, size_t size); /* the same without zeroing */
void sfi_blob_deinit(sfi_blob *blob);

/* ---- diagnostics -------------------------------------------------------------------------------------------------- */

typedef struct sfi_place {
  const char *file; /* NULL: not from a file */
  int32_t line, column;
} sfi_place;

/* Keeps the first error of one activity (building a graph, one compile). Thread-compatible. The zero value is ready. */
typedef struct sfi_diag {
  sf_error error;
} sfi_diag;
/* Records unless an error is kept already; returns `status` either way. place and op may be NULL. */
sf_status sfi_fail(sfi_diag *diag, sf_status status, const sfi_place *place, const char *op, const char *format, ...)
    SFI_PRINTF(5, 6);
sf_status sfi_fail_memory(sfi_diag *diag); /* SF_STATUS_OUT_OF_MEMORY */

/* ---- digests ------------------------------------------------------------------------------------------------------ */

/* XXH3-128, canonical (big-endian) bytes. */
typedef struct sfi_digest {
  uint8_t bytes[16];
} sfi_digest;
sfi_digest sfi_digest_of(const void *data, size_t size);
/* The same of bytes that come in pieces. */
typedef struct sfi_digesting {
  _Alignas(64) unsigned char state[576]; /* of xxhash */
} sfi_digesting;
void sfi_digest_begin(sfi_digesting *digesting);
void sfi_digest_add(sfi_digesting *digesting, const void *data, size_t size);
sfi_digest sfi_digest_end(const sfi_digesting *digesting);
/* Digest of a pair, for keys made of parts. */
sfi_digest sfi_digest_join(sfi_digest a, sfi_digest b);
void sfi_digest_hex(sfi_digest digest, char out[33]);

/* ---- checked arithmetic ------------------------------------------------------------------------------------------- */

static inline bool sfi_mul(int64_t a, int64_t b, int64_t *out) {
  return !__builtin_mul_overflow(a, b, out);
}
static inline bool sfi_add(int64_t a, int64_t b, int64_t *out) {
  return !__builtin_add_overflow(a, b, out);
}
static inline int64_t sfi_ceil_div(int64_t a, int64_t b) {
  return a / b + (a % b > 0);
}
static inline int64_t sfi_round_up(int64_t a, int64_t b) {
  return sfi_ceil_div(a, b) * b;
}
static inline int64_t sfi_min(int64_t a, int64_t b) {
  return a < b ? a : b;
}
static inline int64_t sfi_max(int64_t a, int64_t b) {
  return a > b ? a : b;
}

#endif
