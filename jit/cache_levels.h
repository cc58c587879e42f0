/* The parts of the kernel cache that its files share: entry format, memory level, disk level. Only jit/cache*.c and their tests
 * include this. docs/cache.md says why each rule is there. */
#ifndef SFI_CACHE_LEVELS_H
#define SFI_CACHE_LEVELS_H

#include "cache.h"

enum { SFI_REASON_SIZE = 256 };

/* ---- entry format (cache_entry.c) ---------------------------------------------------------------------------------- */

enum { SFI_ENTRY_HEADER_SIZE = 84, SFI_ENTRY_PREFIX_MAX = 1 << 20 };
/* Of the library's sources that decide what stands in entries: cmake/sources_digest.cmake makes it in each build. */
extern const sfi_digest sfi_sources_digest;
#define SFI_ENTRY_MAX_BYTES (UINT64_C(1) << 30) /* of a whole file */

/* Where the bytes of an entry come from. */
typedef struct sfi_entry_source {
  bool (*read)(void *user, uint64_t offset, void *out, size_t size); /* the whole range, or false */
  void *user;
  uint64_t size;
} sfi_entry_source;

/* Name of the key's file: the library's sources, kind, target and key bytes. What may differ under one name (features, compiler) is told by
 * decoding. */
sfi_digest sfi_entry_id(const sfi_cache_key *key);
/* Everything before the payload. False: out of memory, or a key too long to be stored. */
bool sfi_entry_encode(const sf_allocator *allocator, const sfi_cache_key *key, const void *payload, size_t size,
                      sfi_blob *out_prefix);
/* Where the payload of an entry is, as the entry says. */
typedef struct sfi_entry_payload {
  uint64_t offset, size;
  sfi_digest digest;
} sfi_entry_payload;
/* Verifies every byte before the payload; fills out_payload for SF_PROBE_HIT only. Else `reason` says why, and MISSING means damaged. */
sf_probe_state sfi_entry_look(const sfi_entry_source *source, const sfi_cache_key *key, const sf_allocator *allocator,
                              sfi_entry_payload *out_payload, char reason[SFI_REASON_SIZE]);
/* Verifies every byte; fills out_payload for SF_PROBE_HIT only. Else `reason` says why, and MISSING means damaged. */
sf_probe_state sfi_entry_decode(const sfi_entry_source *source, const sfi_cache_key *key, const sf_allocator *allocator,
                                sfi_blob *out_payload, char reason[SFI_REASON_SIZE]);
/* Does this machine offer every instruction set that `features` asks for? */
bool sfi_features_run_here(const char *features, size_t size);

/* ---- memory level (cache_memory.c) --------------------------------------------------------------------------------- */

enum { SFI_MEMORY_BUCKETS = 1024 };

/* Least recently used entries are dropped above max_bytes. Thread-safe. */
typedef struct sfi_memory {
  const sf_allocator *allocator;
  pthread_mutex_t lock;
  uint64_t bytes, max_bytes;
  struct sfi_memory_node *newest, *oldest;
  struct sfi_memory_node *buckets[SFI_MEMORY_BUCKETS]; /* by id */
} sfi_memory;

bool sfi_memory_init(sfi_memory *memory, const sf_allocator *allocator, uint64_t max_bytes);
void sfi_memory_deinit(sfi_memory *memory);
bool sfi_memory_get(sfi_memory *memory, sfi_digest id, const sfi_cache_key *key, sfi_blob *out_blob);
void sfi_memory_put(sfi_memory *memory, sfi_digest id, const sfi_cache_key *key, const void *payload, size_t size);

/* ---- disk level (cache_disk.c, cache_evict.c) ---------------------------------------------------------------------- */

/* Thread-safe without a lock: every operation is a short series of system calls that other processes may interleave with. */
typedef struct sfi_disk {
  sf_context *context;
  char *path;
  size_t path_size;
  int folder; /* the open directory; -1: no disk level */
  uint64_t max_bytes;
  atomic_ullong unseen; /* bytes written since the directory was last surveyed */
  atomic_bool warned;   /* of a fault of the disk */
} sfi_disk;

enum { SFI_NAME_SIZE = 33 };        /* of an entry's file: 32 hexadecimal digits */
#define SFI_TEMPORARY_PREFIX "tmp-" /* then 16 hexadecimal digits */

/* directory NULL or "": no disk level. False: out of memory. */
bool sfi_disk_init(sfi_disk *disk, sf_context *context, const char *directory, uint64_t max_bytes);
void sfi_disk_deinit(sfi_disk *disk);
/* Exactly one of out_blob and out_size: the payload, or its size alone, as what stands before it says. */
sf_probe_state sfi_disk_get(sfi_disk *disk, sfi_digest id, const sfi_cache_key *key, sfi_blob *out_blob, uint64_t *out_size,
                            char reason[SFI_REASON_SIZE]);
/* Is it there now? */
bool sfi_disk_put(sfi_disk *disk, sfi_digest id, const sfi_cache_key *key, const void *payload, size_t size);
/* Says that the disk failed, with errno `error`: the first time as a warning. */
void sfi_disk_fault(sfi_disk *disk, const char *what, int error);

typedef struct sfi_usage {
  int64_t entries, removed;
  uint64_t bytes;
} sfi_usage;

/* What an entry of `size` bytes takes of the cap. */
static inline uint64_t sfi_disk_charge(uint64_t size) {
  return (size + 4095) / 4096 * 4096;
}
/* Counts entries. OUT_OF_MEMORY or IO_ERROR, which is logged. */
sf_status sfi_disk_measure(sfi_disk *disk, sfi_usage *out_usage);
/* Removes dead temporaries, what can never be an entry, and the least recently used entries beyond max_bytes. */
sf_status sfi_disk_prune(sfi_disk *disk, uint64_t max_bytes, sfi_usage *out_usage);
/* After `written` bytes were put: keeps the cap, at an amortised cost. */
void sfi_disk_make_room(sfi_disk *disk, uint64_t written);

#endif
