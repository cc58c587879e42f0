/* The kernel cache as its one user sees it: round trips, the memory level, probes, the cap, lack of memory, threads. Damage and
 * hostile directories: test_cache_hostile.c; processes that die: test_cache_processes.c; failing system calls: test_cache_faults.c. */
#include "cache_fixture.h"

#include <pthread.h>
#include <sys/file.h>

static counted host;
static char folder[64];
static char reason[SFI_REASON_SIZE];

static void setup(void) {
  counted_init(&host);
  make_folder(folder);
}

static void teardown(void) {
  remove_tree(folder);
  ck_assert_int_eq(atomic_load(&host.live), 0);
}

static sfi_cache *open_cache(const char *directory, uint64_t max_bytes) {
  sfi_cache *cache;
  ck_assert_int_eq(sfi_cache_create(&host.context, directory, max_bytes, &cache), SF_OK);
  return cache;
}

static sf_cache_stats measure(sfi_cache *cache) {
  sf_cache_stats stats = {0};
  ck_assert_int_eq(sfi_cache_measure(cache, &stats), SF_OK);
  return stats;
}

static void set_age(const char *path, long seconds) {
  struct timespec times[2];
  clock_gettime(CLOCK_REALTIME, &times[0]);
  times[0].tv_sec -= seconds;
  times[1] = times[0];
  ck_assert_int_eq(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW), 0);
}

/* ---- round trips ------------------------------------------------------------------------------------------------------- */

/* About the sizes at which reading takes another path. */
static const size_t sizes[] = {0, 1, 63, 64, 65, 4096, 16384 - 130, 16384 - 129, 16384 - 128, 16384, 20000, 300000};

START_TEST(round_trip) {
  sfi_cache *cache = open_cache(folder, 1 << 28);
  for (int i = 0; i < (int)SFI_COUNT(sizes); i++) {
    ck_assert_int_eq(get(cache, i, sizes[i], reason), 0);
    ck_assert_str_eq(reason, "");
    put(cache, i, sizes[i]);
    ck_assert_int_eq(get(cache, i, sizes[i], reason), 1);
    ck_assert_int_eq(get_from_disk(&host, folder, i, sizes[i], reason), 2);
    ck_assert_str_eq(reason, "");
  }
  sfi_cache_destroy(cache);
  cache = open_cache(folder, 1 << 28);
  for (int level = 2; level >= 1; level--) /* a disk hit is kept in memory */
    for (int i = 0; i < (int)SFI_COUNT(sizes); i++) ck_assert_int_eq(get(cache, i, sizes[i], reason), level);
  ck_assert_int_eq(measure(cache).entries, SFI_COUNT(sizes));
  sfi_cache_destroy(cache);
  ck_assert_int_eq(count_names(folder, SFI_TEMPORARY_PREFIX), 0);
  ck_assert_int_eq(atomic_load(&host.lines[SF_LOG_WARNING]), 0);
}
END_TEST

START_TEST(put_replaces) {
  made_key key;
  for (size_t size = 1; size < 100; size += 49) {
    sfi_cache *cache = open_cache(folder, 1 << 20);
    uint8_t payload[100];
    memset(payload, (int)size, size);
    sfi_cache_put(cache, make_key(&key, 0), true, payload, size);
    for (int level = 1; level <= 2; level++) {
      sfi_blob blob;
      int got;
      ck_assert(sfi_cache_get(cache, &key.key, true, &blob, &got, reason, sizeof reason));
      ck_assert_int_eq(got, level);
      ck_assert_uint_eq(blob.size, size);
      ck_assert_mem_eq(blob.data, payload, size);
      sfi_blob_deinit(&blob);
      sfi_cache_destroy(cache);
      cache = open_cache(folder, 1 << 20);
    }
    ck_assert_int_eq(measure(cache).entries, 1);
    sfi_cache_destroy(cache);
  }
}
END_TEST

START_TEST(without_disk) {
  made_key key;
  sfi_blob blob;
  int level;
  sfi_cache *cache = open_cache(folder, 1 << 20);
  sfi_cache_put(cache, make_key(&key, 1), false, "x", 1);
  ck_assert_int_eq(measure(cache).entries, 0);
  sfi_cache_destroy(cache);
  cache = open_cache(folder, 1 << 20);
  put(cache, 2, 10);
  sfi_cache_destroy(cache);
  cache = open_cache(folder, 1 << 20);
  ck_assert(!sfi_cache_get(cache, make_key(&key, 2), false, &blob, &level, reason, sizeof reason));
  ck_assert(!sfi_cache_get(cache, make_key(&key, 1), true, &blob, &level, NULL, 0));
  sfi_cache_destroy(cache);
}
END_TEST

/* Two keys that differ in any one part never answer for each other, at either level. */
START_TEST(keys_are_compared_whole) {
  made_key a, b;
  for (int part = 0; part < 6; part++) {
    make_key(&a, 0), make_key(&b, 0);
    if (part == 0) b.key.kind = SFI_ENTRY_PACKED;
    if (part == 1) b.bytes[b.key.size - 1] ^= 1;
    if (part == 2) b.key.size--;
    if (part == 3) b.key.target = "avx2";
    if (part == 4) b.key.features = "-sse4a"; /* a flag with a minus asks for nothing: runs anywhere */
    if (part == 5) b.key.compiler = "test compiler 2";
    for (int on_disk = 0; on_disk < 2; on_disk++) {
      sfi_cache *cache = open_cache(on_disk ? folder : NULL, 1 << 20);
      sfi_cache_put(cache, &a.key, true, "a", 1);
      if (on_disk) {
        sfi_cache_destroy(cache);
        cache = open_cache(folder, 1 << 20);
      }
      sfi_blob blob;
      int level;
      ck_assert_msg(!sfi_cache_get(cache, &b.key, true, &blob, &level, reason, sizeof reason), "part %d", part);
      ck_assert_int_eq(level, 0);
      if (on_disk && part >= 4) ck_assert_str_ne(reason, "");
      sfi_cache_put(cache, &b.key, true, "b", 1);
      ck_assert(sfi_cache_get(cache, &b.key, true, &blob, &level, reason, sizeof reason));
      ck_assert_int_eq(blob.data[0], 'b');
      sfi_blob_deinit(&blob);
      sfi_cache_destroy(cache);
    }
  }
}
END_TEST

/* ---- the memory level --------------------------------------------------------------------------------------------------- */

START_TEST(memory_is_bounded) {
  sfi_cache *cache = open_cache("", 1 << 20);
  const long empty = atomic_load(&host.live);
  for (int i = 0; i < 1000; i++) {
    put(cache, i, 10000);
    ck_assert_int_eq(get(cache, 0, 10000, reason), 1); /* in use: stays */
    ck_assert_int_le(atomic_load(&host.live) - empty, 1 << 20);
  }
  ck_assert_int_eq(get(cache, 999, 10000, reason), 1);
  ck_assert_int_eq(get(cache, 1, 10000, reason), 0);
  put(cache, 1000, 2 << 20); /* larger than all of it: not kept, and pushes nothing out */
  ck_assert_int_eq(get(cache, 1000, 2 << 20, reason), 0);
  ck_assert_int_eq(get(cache, 999, 10000, reason), 1);
  sf_cache_stats stats = measure(cache);
  ck_assert_str_eq(stats.directory, "");
  ck_assert_int_eq(stats.entries, 0);
  ck_assert_int_eq(sfi_cache_prune(cache, 0, &stats), SF_OK);
  sfi_cache_destroy(cache);
  ck_assert_int_eq(atomic_load(&host.lines[SF_LOG_WARNING]), 0);
}
END_TEST

/* ---- two libraries on one directory -------------------------------------------------------------------------------------------- */

/* The library reads this one in place of its own, so that it can be a library of other sources: this definition comes first, so the linker
 * does not look for the one in the archive. */
static sfi_digest sources = {{1, 2, 3}};
extern const sfi_digest sfi_sources_digest __attribute__((alias("sources")));

/* A cache of the library whose sources end in `last`. */
static sfi_cache *open_cache_of(uint8_t last) {
  sources.bytes[15] = last;
  return open_cache(folder, 1 << 20);
}

START_TEST(other_sources_live_side_by_side) {
  made_key key;
  char path[2][PATH_MAX];
  sfi_blob blob;
  int level;
  for (int round = 0; round < 2; round++) { /* in the second nothing is put */
    for (uint8_t last = 0; last < 2; last++) {
      sfi_cache *cache = open_cache_of(last);
      entry_path(folder, make_key(&key, 0), path[last]);
      if (round == 0) {
        ck_assert_int_eq(get(cache, 0, 1, reason), 0);
        ck_assert_str_eq(reason, "");
        ck_assert_int_eq(sfi_cache_probe(cache, &key.key, reason, sizeof reason), SF_PROBE_MISSING);
        ck_assert_str_eq(reason, "");
        sfi_cache_put(cache, &key.key, true, &last, 1);
      }
      sfi_cache_destroy(cache);
      cache = open_cache_of(last);
      ck_assert(sfi_cache_get(cache, &key.key, true, &blob, &level, reason, sizeof reason));
      ck_assert_int_eq(level, 2);
      ck_assert_uint_eq(blob.data[0], last);
      sfi_blob_deinit(&blob);
      ck_assert_int_eq(measure(cache).entries, round == 0 ? 1 + last : 2);
      sfi_cache_destroy(cache);
    }
  }
  /* Either counts and evicts what the other wrote, by age alone. */
  sf_cache_stats stats = {0};
  set_age(path[1], 1000);
  sfi_cache *cache = open_cache_of(1);
  ck_assert_int_eq(sfi_cache_prune(cache, 4096, &stats), SF_OK);
  ck_assert_int_eq(stats.removed, 1);
  ck_assert_int_eq(access(path[0], F_OK), 0);
  /* The other's, renamed, is not taken. */
  ck_assert_int_eq(atomic_load(&host.lines[SF_LOG_WARNING]), 0);
  ck_assert_int_eq(rename(path[0], path[1]), 0);
  ck_assert(!sfi_cache_get(cache, &key.key, true, &blob, &level, reason, sizeof reason));
  ck_assert_ptr_nonnull(strstr(reason, "other sources of the library"));
  ck_assert_int_eq(atomic_load(&host.lines[SF_LOG_WARNING]), 1);
  sfi_cache_destroy(cache);
}
END_TEST

/* ---- probes -------------------------------------------------------------------------------------------------------------- */

static void probes_as(sfi_cache *cache, const sfi_cache_key *key, sf_probe_state state, const char *part) {
  ck_assert_int_eq(sfi_cache_probe(cache, key, reason, sizeof reason), state);
  if (part[0])
    ck_assert_msg(strstr(reason, part) != NULL, "reason: %s", reason);
  else
    ck_assert_str_eq(reason, "");
}

START_TEST(probe_tells_why) {
  made_key key;
  sfi_cache *cache = open_cache(folder, 1 << 20);
  probes_as(cache, make_key(&key, 0), SF_PROBE_MISSING, "");
  sfi_cache_put(cache, &key.key, true, "x", 1);
  probes_as(cache, &key.key, SF_PROBE_HIT, "");
  key.key.compiler = "test compiler 2";
  probes_as(cache, &key.key, SF_PROBE_STALE, "test compiler 1");
  ck_assert_ptr_nonnull(strstr(reason, "test compiler 2"));
  make_key(&key, 0);
  key.key.features = "-sse4a";
  probes_as(cache, &key.key, SF_PROBE_STALE, "asks for others");
  ck_assert_int_eq(atomic_load(&host.lines[SF_LOG_WARNING]), 0); /* what an upgrade leaves is no fault */
  ck_assert_int_eq(atomic_load(&host.lines[SF_LOG_INFO]), 2);

  /* Compiled for another machine: there, but never handed out here. */
  make_key(&key, 1);
  key.key.features = "+sse2,+nosuch";
  sfi_cache_put(cache, &key.key, true, "x", 1);
  probes_as(cache, &key.key, SF_PROBE_HIT, "");
  sfi_blob blob;
  int level;
  ck_assert(!sfi_cache_get(cache, &key.key, true, &blob, &level, reason, sizeof reason));
  ck_assert_ptr_nonnull(strstr(reason, "+nosuch"));
  key.key.features = "";
  probes_as(cache, &key.key, SF_PROBE_FOREIGN, "does not have");
  sfi_cache_destroy(cache);
}
END_TEST

START_TEST(own_targets_run) {
  const sfi_target *native = sfi_target_of(sfi_target_native());
  ck_assert(sfi_features_run_here(native->features, strlen(native->features)));
  for (int isa = SF_ISA_REFERENCE; isa <= SF_ISA_NEON; isa++) {
    const sfi_target *target = sfi_target_of((sf_isa)isa);
    ck_assert_int_eq(sfi_features_run_here(target->features, strlen(target->features)), sfi_target_runs((sf_isa)isa));
  }
  static const char *const lacking[] = {"+nosuch", "+avx5", "+avx512fx", "-avx,+nosuch", "+nosuch,-avx", ",+nosuch"};
  for (size_t i = 0; i < SFI_COUNT(lacking); i++) ck_assert(!sfi_features_run_here(lacking[i], strlen(lacking[i])));
}
END_TEST

/* ---- the cap --------------------------------------------------------------------------------------------------------------- */

START_TEST(least_recently_used_goes_first) {
  made_key key;
  char path[PATH_MAX];
  sf_cache_stats stats = {0};
  sfi_cache *cache = open_cache(folder, 1 << 28);
  for (int i = 0; i < 10; i++) {
    put(cache, i, 3900);
    entry_path(folder, make_key(&key, i), path);
    set_age(path, 1000 - 10 * i);
  }
  ck_assert_uint_eq(measure(cache).bytes, 10 * 4096);
  ck_assert_int_eq(get_from_disk(&host, folder, 0, 3900, reason), 2); /* stamps the oldest as just used */
  ck_assert_int_eq(sfi_cache_prune(cache, 4 * 4096, &stats), SF_OK);
  ck_assert_int_eq(stats.removed, 6);
  ck_assert_int_eq(stats.entries, 4);
  ck_assert_uint_eq(stats.bytes, 4 * 4096);
  ck_assert_uint_eq(stats.max_bytes, 1 << 28);
  ck_assert_str_eq(stats.directory, folder);
  for (int i = 0; i < 10; i++) ck_assert_int_eq(get_from_disk(&host, folder, i, 3900, reason), i == 0 || i >= 7 ? 2 : 0);
  ck_assert_int_eq(sfi_cache_prune(cache, 0, &stats), SF_OK);
  ck_assert_int_eq(stats.removed, 4);
  ck_assert_int_eq(measure(cache).entries, 0);
  sfi_cache_destroy(cache);
}
END_TEST

START_TEST(a_stamp_of_the_future_is_mended) {
  made_key key;
  char path[PATH_MAX];
  struct stat st;
  struct timespec now;
  sfi_cache *cache = open_cache(folder, 1 << 28);
  put(cache, 0, 10);
  entry_path(folder, make_key(&key, 0), path);
  set_age(path, -100000);
  ck_assert_int_eq(get_from_disk(&host, folder, 0, 10, reason), 2);
  ck_assert_int_eq(stat(path, &st), 0);
  clock_gettime(CLOCK_REALTIME, &now); /* time() may lag behind the clock that stamps files */
  ck_assert_int_le(st.st_mtim.tv_sec, now.tv_sec);
  sfi_cache_destroy(cache);
}
END_TEST

START_TEST(puts_keep_the_cap) {
  const uint64_t cap = 1 << 20;
  sfi_cache *cache = open_cache(folder, cap);
  for (int i = 0; i < 300; i++) {
    put(cache, i, 10000);
    ck_assert_uint_le(measure(cache).bytes, cap);
    ck_assert_int_eq(get_from_disk(&host, folder, i, 10000, reason), 2);
  }
  ck_assert_uint_ge(measure(cache).bytes, cap / 2);
  put(cache, 1000, cap / 2); /* with its key more than half of the cap: not kept, nothing pushed out */
  ck_assert_int_eq(get_from_disk(&host, folder, 1000, cap / 2, reason), 0);
  ck_assert_int_eq(get_from_disk(&host, folder, 299, 10000, reason), 2);
  sfi_cache_destroy(cache);
}
END_TEST

/* Prune removes what dead writers left and nothing that is not the cache's. */
START_TEST(orphans_are_reaped) {
  static const char *const orphans[] = {"tmp-0123456789abcdef", "tmp-ffffffffffffffff"};
  static const char *const others[] = {"README",
                                       "tmp-0123",
                                       "tmp-0123456789abcdeg",
                                       "tmp-0123456789abcdef0",
                                       "0123456789abcdef0123456789abcde",
                                       "0123456789abcdef0123456789abcdef.bak"};
  sf_cache_stats stats = {0};
  char path[PATH_MAX];
  sfi_cache *cache = open_cache(folder, 1 << 20);
  put(cache, 0, 100);
  for (size_t i = 0; i < SFI_COUNT(orphans) + SFI_COUNT(others); i++) {
    snprintf(path, sizeof path, "%s/%s", folder, i < SFI_COUNT(orphans) ? orphans[i] : others[i - SFI_COUNT(orphans)]);
    close(open(path, O_CREAT | O_WRONLY, 0600));
  }
  snprintf(path, sizeof path, "%s/tmp-aaaaaaaaaaaaaaaa", folder); /* its writer lives */
  int living = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  ck_assert_int_eq(flock(living, LOCK_EX), 0);
  snprintf(path, sizeof path, "%s/tmp-bbbbbbbbbbbbbbbb", folder);
  ck_assert_int_eq(symlink("README", path), 0);

  ck_assert_int_eq(measure(cache).entries, 1);
  ck_assert_int_eq(sfi_cache_prune(cache, UINT64_MAX, &stats), SF_OK);
  ck_assert_int_eq(stats.entries, 1);
  ck_assert_int_eq(stats.removed, 0);
  for (size_t i = 0; i < SFI_COUNT(orphans); i++)
    ck_assert_int_eq(count_names(folder, orphans[i]), i == 0 ? 1 : 0); /* its namesake */
  for (size_t i = 0; i < SFI_COUNT(others); i++) ck_assert_int_ge(count_names(folder, others[i]), 1);
  ck_assert_int_eq(count_names(folder, "tmp-aaaaaaaaaaaaaaaa"), 1);
  close(living);
  ck_assert_int_eq(sfi_cache_prune(cache, 0, &stats), SF_OK);
  ck_assert_int_eq(count_names(folder, "tmp-aaaaaaaaaaaaaaaa"), 0);
  for (size_t i = 0; i < SFI_COUNT(others); i++) ck_assert_int_ge(count_names(folder, others[i]), 1);
  sfi_cache_destroy(cache);
}
END_TEST

/* ---- lack of memory ---------------------------------------------------------------------------------------------------------- */

/* Everything once. Calls that may fail for lack of memory say so; no hit is wrong. */
static void everything(sf_status out[4]) {
  sf_cache_stats stats = {0};
  made_key key;
  for (int i = 0; i < 4; i++) out[i] = SF_OK;
  for (int round = 0; round < 2; round++) {
    sfi_cache *cache;
    if ((out[round] = sfi_cache_create(&host.context, folder, 1 << 20, &cache)) != SF_OK) {
      ck_assert_ptr_null(cache);
      continue;
    }
    for (int i = 0; i < 3; i++) {
      if (round == 0) put(cache, i, 30000);
      get(cache, i, 30000, reason);
      sfi_cache_probe(cache, make_key(&key, i), reason, sizeof reason);
    }
    out[2] = sfi_cache_measure(cache, &stats);
    if (round == 1) out[3] = sfi_cache_prune(cache, 40000, &stats);
    sfi_cache_destroy(cache);
  }
}

START_TEST(every_allocation_may_fail) {
  int failures = 0;
  for (int for_good = 0; for_good < 2; for_good++) {
    host.for_good = for_good;
    bool passed = false;
    for (long k = 1; !passed; k++) {
      ck_assert_int_lt(k, 1000);
      sf_status status[4];
      atomic_store(&host.fail_at, k);
      everything(status);
      passed = atomic_exchange(&host.fail_at, 0) > (for_good ? 1 : 0);
      for (size_t i = 0; i < SFI_COUNT(status); i++) {
        ck_assert(status[i] == SF_OK || status[i] == SF_STATUS_OUT_OF_MEMORY);
        ck_assert(!passed || status[i] == SF_OK);
        failures += status[i] != SF_OK;
      }
      ck_assert_int_eq(atomic_load(&host.live), 0);
    }
  }
  ck_assert_int_gt(failures, 5);
  sfi_cache *cache = open_cache(folder, 1 << 20);
  put(cache, 0, 30000);
  ck_assert_int_eq(get_from_disk(&host, folder, 0, 30000, reason), 2);
  sfi_cache_destroy(cache);
}
END_TEST

/* ---- threads ------------------------------------------------------------------------------------------------------------------ */

enum { THREADS = 8, ROUNDS = 150, KEYS = 24 };

typedef struct worker {
  sfi_cache *cache;
  unsigned seed;
  int hits;
} worker;

static void *hammer(void *argument) {
  worker *w = argument;
  char why[SFI_REASON_SIZE];
  made_key key;
  for (int i = 0; i < ROUNDS; i++) {
    int k = rand_r(&w->seed) % KEYS;
    size_t size = 1000u * (unsigned)(k + 1);
    if (get(w->cache, k, size, why))
      w->hits++;
    else
      put(w->cache, k, size);
    if (i % 10 == 3) sfi_cache_probe(w->cache, make_key(&key, k), why, sizeof why);
    sf_cache_stats stats = {0};
    if (i % 50 == 7 && sfi_cache_prune(w->cache, 100000, &stats) != SF_OK) return NULL;
  }
  return w;
}

START_TEST(threads_share_a_cache) {
  /* Two caches on one directory stand for two contexts; small enough that both levels drop entries all the time. */
  sfi_cache *caches[2] = {open_cache(folder, 200000), open_cache(folder, 200000)};
  worker workers[THREADS];
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) {
    workers[i] = (worker){caches[i % 2], (unsigned)i + 1, 0};
    ck_assert_int_eq(pthread_create(&threads[i], NULL, hammer, &workers[i]), 0);
  }
  int hits = 0;
  for (int i = 0; i < THREADS; i++) {
    void *result;
    pthread_join(threads[i], &result);
    ck_assert_ptr_nonnull(result);
    hits += workers[i].hits;
  }
  ck_assert_int_gt(hits, THREADS * ROUNDS / 20);
  for (int i = 0; i < 2; i++) sfi_cache_destroy(caches[i]);
  ck_assert_int_eq(count_names(folder, SFI_TEMPORARY_PREFIX), 0);
  ck_assert_int_eq(atomic_load(&host.lines[SF_LOG_WARNING]), 0);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("cache");
  TCase *tests = tcase_create("cache");
  tcase_add_checked_fixture(tests, setup, teardown);
  tcase_set_timeout(tests, 120);
  tcase_add_test(tests, round_trip);
  tcase_add_test(tests, put_replaces);
  tcase_add_test(tests, without_disk);
  tcase_add_test(tests, keys_are_compared_whole);
  tcase_add_test(tests, memory_is_bounded);
  tcase_add_test(tests, other_sources_live_side_by_side);
  tcase_add_test(tests, probe_tells_why);
  tcase_add_test(tests, own_targets_run);
  tcase_add_test(tests, least_recently_used_goes_first);
  tcase_add_test(tests, a_stamp_of_the_future_is_mended);
  tcase_add_test(tests, puts_keep_the_cap);
  tcase_add_test(tests, orphans_are_reaped);
  tcase_add_test(tests, every_allocation_may_fail);
  tcase_add_test(tests, threads_share_a_cache);
  suite_add_tcase(suite, tests);
  return run_suite(suite);
}
