/* The kernel cache among processes: many writers of one key, many that evict, writers killed at random moments, a disk that fills up.
 * Whatever happens to them, every entry is right or missing, nothing waits, and no temporary outlives a prune. */
#include "cache_fixture.h"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <time.h>

enum { WRITERS = 16 };

static counted host;
static char folder[64];
static char reason[SFI_REASON_SIZE];

static void setup(void) {
  counted_init(&host);
  make_folder(folder);
}

static void teardown(void) {
  remove_tree(folder);
}

static sfi_cache *open_cache(uint64_t max_bytes) {
  sfi_cache *cache;
  ck_assert_int_eq(sfi_cache_create(&host.context, folder, max_bytes, &cache), SF_OK);
  return cache;
}

/* Runs body(i) in `count` processes at once; each must end with 0. */
static void in_processes(int count, int (*body)(int i)) {
  pid_t children[WRITERS];
  for (int i = 0; i < count; i++) {
    children[i] = fork_child();
    if (children[i] == 0) _exit(body(i));
  }
  for (int i = 0; i < count; i++) join_child(children[i]);
}

/* ---- one key ---------------------------------------------------------------------------------------------------------------- */

static int write_one_key(int i) {
  (void)i;
  for (int round = 0; round < 40; round++) {
    sfi_cache *cache = open_cache(1 << 30);
    put(cache, 0, 20000);
    sfi_cache_destroy(cache);
    /* Written at least once and never removed: there at any moment from here on. */
    if (get_from_disk(&host, folder, 0, 20000, reason) != 2) return fprintf(stderr, "missing: %s\n", reason), 1;
  }
  return atomic_load(&host.lines[SF_LOG_WARNING]) ? fprintf(stderr, "%s\n", host.last), 2 : 0;
}

START_TEST(writers_of_one_key) {
  in_processes(WRITERS, write_one_key);
  ck_assert_int_eq(count_names(folder, ""), 1);
}
END_TEST

/* ---- eviction ------------------------------------------------------------------------------------------------------------------ */

enum { CAP = 4 << 20, EVICTED_SIZE = 20000, EVICTED_CHARGE = 20480 };

static int fill_beyond_the_cap(int i) {
  sfi_cache *cache = open_cache(CAP);
  sf_cache_stats stats = {0};
  for (int k = 0; k < 100; k++) {
    put(cache, i * 1000 + k, EVICTED_SIZE);
    get_from_disk(&host, folder, (i * 37 + k * 11) % 16000, EVICTED_SIZE, reason); /* right, if there */
    if (reason[0]) return fprintf(stderr, "%s\n", reason), 1;
    if (k % 5 == 0 && (sfi_cache_measure(cache, &stats) != SF_OK || stats.bytes > CAP + WRITERS * EVICTED_CHARGE))
      return fprintf(stderr, "%llu bytes\n", (unsigned long long)stats.bytes), 2;
  }
  sfi_cache_destroy(cache);
  return atomic_load(&host.lines[SF_LOG_WARNING]) ? fprintf(stderr, "%s\n", host.last), 3 : 0;
}

START_TEST(processes_evict_at_once) {
  char path[PATH_MAX];
  for (int i = 0; i < 50; i++) {
    snprintf(path, sizeof path, "%s/" SFI_TEMPORARY_PREFIX "%016x", folder, i);
    close(open(path, O_CREAT | O_WRONLY, 0600));
  }
  in_processes(WRITERS, fill_beyond_the_cap);
  sfi_cache *cache = open_cache(CAP);
  sf_cache_stats stats = {0};
  ck_assert_int_eq(sfi_cache_measure(cache, &stats), SF_OK);
  ck_assert_uint_le(stats.bytes, CAP);
  ck_assert_uint_ge(stats.bytes, CAP / 2);
  ck_assert_int_eq(count_names(folder, SFI_TEMPORARY_PREFIX), 0); /* the planted orphans went with the first eviction */
  sfi_cache_destroy(cache);
}
END_TEST

/* ---- kill -9 --------------------------------------------------------------------------------------------------------------------- */

enum { KILLS = 500, KILLED_KEYS = 64 };
static const size_t killed_size = 120000;

static void write_until_killed(unsigned seed) {
  sfi_cache *cache = open_cache(2 << 20); /* evicts too */
  for (;;) put(cache, rand_r(&seed) % KILLED_KEYS, killed_size);
}

START_TEST(writers_killed_at_any_moment) {
  sf_cache_stats stats = {0};
  unsigned seed = 1;
  int orphans = 0;
  for (int i = 0; i < KILLS; i++) {
    pid_t child = fork_child();
    if (child == 0) write_until_killed((unsigned)i);
    struct timespec delay = {0, rand_r(&seed) % 3000 * 1000L};
    nanosleep(&delay, NULL);
    kill(child, SIGKILL);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    if (i % 10 != 9) continue;
    orphans += count_names(folder, SFI_TEMPORARY_PREFIX);
    for (int k = 0; k < KILLED_KEYS; k++) {
      int level = get_from_disk(&host, folder, k, killed_size, reason);
      ck_assert_msg(level == 2 || !reason[0], "key %d: %s", k, reason); /* right, or plainly missing */
    }
    sfi_cache *cache = open_cache(1 << 30);
    ck_assert_int_eq(sfi_cache_prune(cache, 1 << 30, &stats), SF_OK);
    ck_assert_int_eq(count_names(folder, SFI_TEMPORARY_PREFIX), 0);
    put(cache, i, killed_size);
    sfi_cache_destroy(cache);
    ck_assert_int_eq(get_from_disk(&host, folder, i, killed_size, reason), 2);
  }
  ck_assert_int_eq(atomic_load(&host.lines[SF_LOG_WARNING]), 0);
  ck_assert_int_gt(orphans, 0); /* else no kill came in the middle of a write, and nothing was tested */
}
END_TEST

/* ---- a full disk -------------------------------------------------------------------------------------------------------------------- */

/* In a child with mounts of its own. 77: not permitted here. */
static int fill_a_small_disk(void) {
  if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
      mount("none", folder, "tmpfs", 0, "size=1m,mode=0700") != 0)
    return 77;
  sfi_cache *cache = open_cache(1 << 30);
  int kept = 0, lost = 0;
  for (int k = 0; k < 40; k++) put(cache, k, 60000);
  for (int k = 0; k < 40; k++) {
    if (get(cache, k, 60000, reason) != 1) return 1; /* compiled code goes on from memory */
    if (get_from_disk(&host, folder, k, 60000, reason) == 2)
      kept++;
    else
      lost++;
    if (reason[0]) return fprintf(stderr, "%s\n", reason), 2;
  }
  if (!kept || !lost || atomic_load(&host.lines[SF_LOG_WARNING]) != 1 || !strstr(host.last, "No space left")) return 3;
  if (count_names(folder, SFI_TEMPORARY_PREFIX) != 0) return 4;
  sf_cache_stats stats = {0};
  if (sfi_cache_prune(cache, 300000, &stats) != SF_OK) return 5; /* room again: writes go on */
  put(cache, 100, 60000);
  sfi_cache_destroy(cache);
  return get_from_disk(&host, folder, 100, 60000, reason) == 2 ? 0 : 6;
}

START_TEST(full_disk) {
  pid_t child = fork_child();
  if (child == 0) _exit(fill_a_small_disk());
  int status;
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  ck_assert(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77)
    fprintf(stderr, "note: a small file system cannot be mounted here: the full disk is not tested\n");
  else
    ck_assert_int_eq(WEXITSTATUS(status), 0);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("cache, processes");
  TCase *tests = tcase_create("processes");
  tcase_add_checked_fixture(tests, setup, teardown);
  tcase_set_timeout(tests, 300);
  tcase_add_test(tests, writers_of_one_key);
  tcase_add_test(tests, processes_evict_at_once);
  tcase_add_test(tests, writers_killed_at_any_moment);
  tcase_add_test(tests, full_disk);
  suite_add_tcase(suite, tests);
  return run_suite(suite);
}
