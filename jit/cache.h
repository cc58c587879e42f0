/* The kernel cache: entries in memory, then on disk, by key. Thread-safe. Safe beside other processes on the same directory.
 * Disk rules and entry format: docs/cache.md. Any fault of the disk is a miss or an uncached put with one warning, never an error
 * of the caller. */
#ifndef SFI_CACHE_H
#define SFI_CACHE_H

#include "context.h"

typedef enum sfi_entry_kind {
  SFI_ENTRY_OBJECT = 1,  /* machine code of one kernel */
  SFI_ENTRY_PACKED = 2,  /* a packed weight */
  SFI_ENTRY_PROFILE = 3, /* facts about zeros */
  SFI_ENTRY_RATES = 4,   /* rates of a machine */
  SFI_ENTRY_VERDICT = 5  /* which emitter was the fastest for a kernel, as text */
} sfi_entry_kind;

typedef struct sfi_cache_key {
  sfi_entry_kind kind;
  const void *bytes; /* full key; compared whole */
  size_t size;
  const char *target;   /* "avx512"; "" where the payload holds no code */
  const char *features; /* instruction-set bits that the payload needs, LLVM's syntax; "" where none */
  const char *compiler; /* "LLVM 19.1.7"; "" where none. Differs: stale */
} sfi_cache_key;

typedef struct sfi_cache sfi_cache;

/* $XDG_CACHE_HOME/sparseflow, else $HOME/.cache/sparseflow. False, and "": neither is set, or it does not fit. */
bool sfi_cache_default_directory(char *out, size_t size);

/* directory NULL or "": memory only. An unusable directory is one warning and memory only. */
sf_status sfi_cache_create(sf_context *context, const char *directory, uint64_t max_bytes, sfi_cache **out_cache);
void sfi_cache_destroy(sfi_cache *cache);
/* Fills out_blob on a hit (*out_level 1: memory, 2: disk) and returns true. On a miss `reason` (of reason_size bytes) says why:
 * empty for plainly missing. A key whose `features` this machine lacks always misses: whether such an entry, compiled for another
 * machine, is there already is a question for sfi_cache_probe. */
bool sfi_cache_get(sfi_cache *cache, const sfi_cache_key *key, bool disk, sfi_blob *out_blob, int *out_level, char *reason,
                   size_t reason_size);
/* Is it on disk, with as many bytes as its head says? The sfi_cache_get that follows reads and verifies them. */
bool sfi_cache_has(sfi_cache *cache, const sfi_cache_key *key, uint64_t *out_bytes);
/* Keeps a copy. Failing to is not an error. */
void sfi_cache_put(sfi_cache *cache, const sfi_cache_key *key, bool disk, const void *payload, size_t size);
/* Looks on disk, verifies the whole entry and keeps nothing: HIT (it is what `key` asks for, be it for this machine or another),
 * MISSING (with a reason where it is there but damaged), STALE (same kernel, other compiler or features), FOREIGN (unsafe owner or mode, or not the
 * asked features but some that this machine lacks). */
sf_probe_state sfi_cache_probe(sfi_cache *cache, const sfi_cache_key *key, char *reason, size_t reason_size);
/* Of the disk level. IO_ERROR, logged, where the directory cannot be read; all zero where there is none. */
sf_status sfi_cache_measure(sfi_cache *cache, sf_cache_stats *out_stats);
sf_status sfi_cache_prune(sfi_cache *cache, uint64_t max_bytes, sf_cache_stats *out_stats);

#endif
