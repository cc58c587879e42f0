/* The kernel cache's interface: memory level first, then disk. Owns the order of the levels, what is logged, and the rule that code
 * for another machine is never handed out. */
#include "cache_levels.h"

#include <stdio.h>
#include <stdlib.h>

/* Programs keep their own code and weights, so this level only serves graphs that are compiled again. */
#define MEMORY_MAX_BYTES (UINT64_C(64) << 20)

struct sfi_cache {
  sf_context *context; /* borrowed: the context owns the cache */
  sfi_memory memory;
  sfi_disk disk;
};

bool sfi_cache_default_directory(char *out, size_t size) {
  /* secure_getenv: a set-user-id host must not take its machine code from where its caller says. */
  const char *xdg = secure_getenv("XDG_CACHE_HOME"), *home = secure_getenv("HOME");
  int length = -1;
  if (xdg && xdg[0] == '/') /* the XDG base directory specification: relative paths are to be ignored */
    length = snprintf(out, size, "%s/sparseflow", xdg);
  else if (home && home[0] == '/')
    length = snprintf(out, size, "%s/.cache/sparseflow", home);
  if (length >= 0 && (size_t)length < size) return true;
  if (size) out[0] = 0;
  return false;
}

sf_status sfi_cache_create(sf_context *context, const char *directory, uint64_t max_bytes, sfi_cache **out_cache) {
  *out_cache = NULL;
  sfi_cache *cache = sfi_calloc(&context->allocator, 1, sizeof *cache);
  if (!cache) return SF_STATUS_OUT_OF_MEMORY;
  cache->context = context;
  if (!sfi_memory_init(&cache->memory, &context->allocator, max_bytes < MEMORY_MAX_BYTES ? max_bytes : MEMORY_MAX_BYTES)) {
    sfi_free(&context->allocator, cache, sizeof *cache);
    return SF_STATUS_OUT_OF_MEMORY;
  }
  if (!sfi_disk_init(&cache->disk, context, directory, max_bytes)) {
    sfi_cache_destroy(cache);
    return SF_STATUS_OUT_OF_MEMORY;
  }
  *out_cache = cache;
  return SF_OK;
}

void sfi_cache_destroy(sfi_cache *cache) {
  if (!cache) return;
  sfi_disk_deinit(&cache->disk);
  sfi_memory_deinit(&cache->memory);
  sfi_free(&cache->context->allocator, cache, sizeof *cache);
}

static bool runs_here(const sfi_cache_key *key) {
  return sfi_features_run_here(key->features, strlen(key->features));
}

/* Of a packed weight on disk no copy is kept: who compiles a graph again has one mostly, and reading costs as much as copying. */
static bool is_small(const sfi_cache_key *key) {
  return key->kind != SFI_ENTRY_PACKED;
}

bool sfi_cache_get(sfi_cache *cache, const sfi_cache_key *key, bool disk, sfi_blob *out_blob, int *out_level, char *reason,
                   size_t reason_size) {
  char why[SFI_REASON_SIZE] = "";
  const sfi_digest id = sfi_entry_id(key);
  *out_blob = (sfi_blob){0};
  *out_level = 0;
  if (!runs_here(key)) {
    snprintf(why, sizeof why, "needs %.180s, not all of which this machine has", key->features);
  } else if (sfi_memory_get(&cache->memory, id, key, out_blob)) {
    *out_level = 1;
  } else if (disk && sfi_disk_get(&cache->disk, id, key, out_blob, NULL, why) == SF_PROBE_HIT) {
    *out_level = 2;
    if (is_small(key)) sfi_memory_put(&cache->memory, id, key, out_blob->data, out_blob->size);
  }
  if (reason_size) snprintf(reason, reason_size, "%s", why);
  return *out_level != 0;
}

void sfi_cache_put(sfi_cache *cache, const sfi_cache_key *key, bool disk, const void *payload, size_t size) {
  const sfi_digest id = sfi_entry_id(key);
  const bool on_disk = disk && sfi_disk_put(&cache->disk, id, key, payload, size);
  if (runs_here(key) && (is_small(key) || !on_disk)) sfi_memory_put(&cache->memory, id, key, payload, size);
}

sf_probe_state sfi_cache_probe(sfi_cache *cache, const sfi_cache_key *key, char *reason, size_t reason_size) {
  /* The whole entry is read and verified: a probe that answers HIT for a damaged payload would promise a start without compiling
   * that then compiles. */
  char why[SFI_REASON_SIZE] = "";
  sfi_blob blob = {0};
  sf_probe_state state = sfi_disk_get(&cache->disk, sfi_entry_id(key), key, &blob, NULL, why);
  sfi_blob_deinit(&blob);
  if (reason_size) snprintf(reason, reason_size, "%s", why);
  return state;
}

bool sfi_cache_has(sfi_cache *cache, const sfi_cache_key *key, uint64_t *out_bytes) {
  char why[SFI_REASON_SIZE];
  return sfi_disk_get(&cache->disk, sfi_entry_id(key), key, NULL, out_bytes, why) == SF_PROBE_HIT;
}

static void report(const sfi_cache *cache, const sfi_usage *usage, sf_cache_stats *out_stats) {
  out_stats->entries = usage->entries;
  out_stats->bytes = usage->bytes;
  out_stats->removed = usage->removed;
  out_stats->max_bytes = cache->disk.max_bytes;
  snprintf(out_stats->directory, sizeof out_stats->directory, "%s", cache->disk.folder >= 0 ? cache->disk.path : "");
}

sf_status sfi_cache_measure(sfi_cache *cache, sf_cache_stats *out_stats) {
  sfi_usage usage = {0};
  sf_status status = sfi_disk_measure(&cache->disk, &usage);
  report(cache, &usage, out_stats);
  return status;
}

sf_status sfi_cache_prune(sfi_cache *cache, uint64_t max_bytes, sf_cache_stats *out_stats) {
  sfi_usage usage = {0};
  sf_status status = sfi_disk_prune(&cache->disk, max_bytes, &usage);
  report(cache, &usage, out_stats);
  return status;
}
