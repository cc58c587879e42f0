/* What the tests of the kernel cache share: a context of their own, a temporary directory, keys and payloads made from numbers. */
#ifndef SFI_CACHE_FIXTURE_H
#define SFI_CACHE_FIXTURE_H

#include "cache_levels.h"
#include "suite.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- a context that counts ------------------------------------------------------------------------------------------ */

/* The k-th allocation fails (fail_at counts down; 0: none does), with `for_good` all later ones too. */
typedef struct counted {
  sf_context context;
  atomic_long fail_at, live;
  bool for_good;
  atomic_int lines[SF_LOG_DEBUG + 1]; /* logged, by level */
  char last[256];
} counted;

static inline void *counted_allocate(void *user, size_t bytes, size_t alignment) {
  counted *c = user;
  long left = atomic_load(&c->fail_at);
  if (left && (left == 1 || atomic_fetch_sub(&c->fail_at, 1) == 1)) {
    if (!c->for_good) atomic_store(&c->fail_at, 0);
    return NULL;
  }
  void *memory = sfi_default_allocator.allocate(sfi_default_allocator.user, bytes, alignment);
  if (memory) atomic_fetch_add(&c->live, (long)bytes);
  return memory;
}

static inline void counted_release(void *user, void *memory, size_t bytes) {
  atomic_fetch_sub(&((counted *)user)->live, (long)bytes);
  sfi_default_allocator.release(sfi_default_allocator.user, memory, bytes);
}

static inline void counted_log(void *user, sf_log_level level, const char *line) {
  counted *c = user;
  atomic_fetch_add(&c->lines[level], 1);
  if (level == SF_LOG_WARNING) snprintf(c->last, sizeof c->last, "%s", line); /* read by tests of one thread */
}

static inline void counted_init(counted *c) {
  memset(c, 0, sizeof *c);
  c->context.allocator = (sf_allocator){c, counted_allocate, counted_release};
  c->context.log = counted_log;
  c->context.log_user = c;
  c->context.log_level = SF_LOG_DEBUG;
}

/* ---- files ------------------------------------------------------------------------------------------------------------ */

/* Names in the folder that start with `prefix`. */
static inline int count_names(const char *folder, const char *prefix) {
  int count = 0;
  DIR *stream = opendir(folder);
  ck_assert_ptr_nonnull(stream);
  for (struct dirent *e; (e = readdir(stream));) count += e->d_name[0] != '.' && strncmp(e->d_name, prefix, strlen(prefix)) == 0;
  closedir(stream);
  return count;
}

static inline void entry_path(const char *folder, const sfi_cache_key *key, char out[PATH_MAX]) {
  char name[SFI_NAME_SIZE];
  sfi_digest_hex(sfi_entry_id(key), name);
  snprintf(out, PATH_MAX, "%s/%s", folder, name);
}

/* ---- keys and payloads ------------------------------------------------------------------------------------------------- */

typedef struct made_key {
  char bytes[48];
  sfi_cache_key key;
} made_key;

/* The k-th key. Valid while `out` stays where it is. */
static inline const sfi_cache_key *make_key(made_key *out, int k) {
  snprintf(out->bytes, sizeof out->bytes, "kernel %d of the tests", k);
  out->key = (sfi_cache_key){.kind = SFI_ENTRY_OBJECT,
                             .bytes = out->bytes,
                             .size = strlen(out->bytes),
                             .target = "reference",
                             .features = "",
                             .compiler = "test compiler 1"};
  return &out->key;
}

/* Byte i of the payload of key k: any mix of two payloads is none. */
static inline uint8_t payload_byte(int k, size_t i) {
  return (uint8_t)((uint32_t)(k * 7919 + 13) * (uint32_t)(i + 1) * 2654435761u >> 13);
}

static inline void fill_payload(uint8_t *out, int k, size_t size) {
  for (size_t i = 0; i < size; i++) out[i] = payload_byte(k, i);
}

static inline void put(sfi_cache *cache, int k, size_t size) {
  made_key key;
  uint8_t *payload = malloc(size + 1);
  ck_assert_ptr_nonnull(payload);
  fill_payload(payload, k, size);
  sfi_cache_put(cache, make_key(&key, k), true, payload, size);
  free(payload);
}

/* Level of the hit (0: none). A hit with any other payload than put() gave it fails the test. */
static inline int get(sfi_cache *cache, int k, size_t size, char reason[SFI_REASON_SIZE]) {
  made_key key;
  sfi_blob blob;
  int level;
  if (!sfi_cache_get(cache, make_key(&key, k), true, &blob, &level, reason, SFI_REASON_SIZE)) {
    ck_assert_ptr_null(blob.data);
    return 0;
  }
  ck_assert_uint_eq(blob.size, size);
  ck_assert_uint_eq((uintptr_t)blob.data % 64, 0);
  for (size_t i = 0; i < size; i++)
    if (blob.data[i] != payload_byte(k, i)) ck_abort_msg("key %d: wrong byte at %zu", k, i);
  sfi_blob_deinit(&blob);
  return level;
}

/* The same without the memory level of an open cache. */
static inline int get_from_disk(counted *c, const char *folder, int k, size_t size, char reason[SFI_REASON_SIZE]) {
  sfi_cache *cache;
  ck_assert_int_eq(sfi_cache_create(&c->context, folder, UINT64_C(1) << 30, &cache), SF_OK);
  int level = get(cache, k, size, reason);
  sfi_cache_destroy(cache);
  return level;
}

/* ---- processes ----------------------------------------------------------------------------------------------------------- */

/* As fork(). The child's assertions leave no mark in the file by which Check hears of its tests: that file and what was not flushed to
 * it yet are shared, so marks of several processes would run into each other. A failed assertion still ends the child with a status. */
static inline pid_t fork_child(void) {
  pid_t child = fork();
  ck_assert_int_ge(child, 0);
  if (child != 0) return child;
  int nowhere = open("/dev/null", O_RDWR);
  if (nowhere < 0) _exit(9);
  for (int fd = STDERR_FILENO + 1; fd < 256; fd++)
    if (fd != nowhere && fcntl(fd, F_GETFD) >= 0 && dup2(nowhere, fd) < 0) _exit(9);
  close(nowhere);
  return 0;
}

/* Waits for a child that must end by itself with status 0. */
static inline void join_child(pid_t child) {
  int status;
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child ended with status %#x", (unsigned)status);
}

#endif
