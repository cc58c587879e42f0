/* The kernel cache with failing system calls: for every k the k-th one fails, once or for good, with each errno; or moves half of
 * the bytes; or the process is killed there. Linked with --wrap (tests/CMakeLists.txt), so only calls of the library are counted. */
#include "cache_fixture.h"

#include <signal.h>
#include <sys/file.h>
#include <sys/random.h>

static counted host;
static char folder[64];
static char reason[SFI_REASON_SIZE];

/* ---- the calls ----------------------------------------------------------------------------------------------------------------- */

/* HALF and INTERRUPT count only calls that move bytes. */
typedef enum fault_kind { FAIL_ONCE, FAIL_FOR_GOOD, HALF, INTERRUPT, KILL } fault_kind;

static struct {
  bool armed;
  long left; /* calls until the fault; below 0: it has been */
  fault_kind kind;
  int error;
} fault;

static void arm(long k, fault_kind kind, int error) {
  fault.left = k;
  fault.kind = kind;
  fault.error = error;
  fault.armed = true;
}

/* Did the fault come? */
static bool disarm(void) {
  fault.armed = false;
  return fault.left <= 0;
}

/* Before a call: does it fail? `size`: of the bytes that it moves, if any; may be cut. */
static bool faulty(size_t *size) {
  if (!size && (fault.kind == HALF || fault.kind == INTERRUPT)) return false;
  if (!fault.armed || fault.left < 0 || (fault.left > 0 && --fault.left > 0)) return false;
  if (fault.kind != FAIL_FOR_GOOD) fault.left = -1;
  if (fault.kind == KILL && !size) raise(SIGKILL);
  if (fault.kind == HALF || fault.kind == KILL) {
    if (size && *size > 1) *size /= 2;
    return false;
  }
  errno = fault.error;
  return true;
}

/* After a call that moved bytes: killed in the middle of a write. */
static void torn(const size_t *size) {
  if (size && fault.armed && fault.kind == KILL && fault.left < 0) raise(SIGKILL);
}

/* tests/CMakeLists.txt reads the names from the lines that begin with WRAP. */
#define WRAP(type, failed, name, parameters, arguments, size)                                                                      \
  type __real_##name parameters;                                                                                                   \
  type __wrap_##name parameters;                                                                                                   \
  type __wrap_##name parameters {                                                                                                  \
    if (faulty(size)) return failed;                                                                                               \
    type result = __real_##name arguments;                                                                                         \
    torn(size);                                                                                                                    \
    return result;                                                                                                                 \
  }
#define NO_SIZE ((size_t *)NULL)

WRAP(int, -1, open, (const char *path, int flags, mode_t mode), (path, flags, mode), NO_SIZE)
WRAP(int, -1, openat, (int at, const char *path, int flags, mode_t mode), (at, path, flags, mode), NO_SIZE)
WRAP(int, -1, fstat, (int fd, struct stat *st), (fd, st), NO_SIZE)
WRAP(int, -1, fstatat, (int at, const char *path, struct stat *st, int flags), (at, path, st, flags), NO_SIZE)
WRAP(ssize_t, -1, pread, (int fd, void *out, size_t size, off_t offset), (fd, out, size, offset), &size)
WRAP(ssize_t, -1, write, (int fd, const void *data, size_t size), (fd, data, size), &size)
WRAP(int, -1, renameat, (int at, const char *from, int to_at, const char *to), (at, from, to_at, to), NO_SIZE)
WRAP(int, -1, unlinkat, (int at, const char *path, int flags), (at, path, flags), NO_SIZE)
WRAP(int, -1, mkdir, (const char *path, mode_t mode), (path, mode), NO_SIZE)
WRAP(int, -1, flock, (int fd, int operation), (fd, operation), NO_SIZE)
WRAP(int, -1, futimens, (int fd, const struct timespec *times), (fd, times), NO_SIZE)
WRAP(int, -1, dup3, (int from, int to, int flags), (from, to, flags), NO_SIZE)
WRAP(ssize_t, -1, getrandom, (void *out, size_t size, unsigned flags), (out, size, flags), NO_SIZE)
WRAP(DIR *, NULL, fdopendir, (int fd), (fd), NO_SIZE)
WRAP(struct dirent *, NULL, readdir, (DIR * stream), (stream), NO_SIZE)

/* ---- the scenario ----------------------------------------------------------------------------------------------------------------- */

static const size_t sizes[] = {100, 40000}; /* read at once, and not */

static void setup(void) {
  counted_init(&host);
  make_folder(folder);
}

static void teardown(void) {
  remove_tree(folder);
}

/* Everything that touches the disk, with a stamp to set and something to evict. */
static void scenario(void) {
  char below[80];
  made_key key;
  sf_cache_stats stats = {0};
  snprintf(below, sizeof below, "%s/a/b", folder);
  for (int round = 0; round < 2; round++) {
    sfi_cache *cache;
    ck_assert_int_eq(sfi_cache_create(&host.context, below, 1 << 20, &cache), SF_OK);
    for (int k = 0; k < 2; k++) {
      if (round == 0) put(cache, k, sizes[k]);
      get(cache, k, sizes[k], reason);
      sfi_cache_probe(cache, make_key(&key, k), reason, sizeof reason);
    }
    sfi_cache_measure(cache, &stats);
    sfi_cache_prune(cache, round ? 0 : 44000, &stats);
    sfi_cache_destroy(cache);
    /* What is asked for by name (entries, the directory) is at most one warning of a cache object. */
    ck_assert_int_le(atomic_exchange(&host.lines[SF_LOG_WARNING], 0), 1);
  }
}

static void remove_below(void) {
  char path[80];
  snprintf(path, sizeof path, "%s/a", folder);
  remove_tree(path);
}

/* Without faults everything works again on what was left behind. */
static void check_recovery(const char *what, long k) {
  char below[80];
  sf_cache_stats stats = {0};
  sfi_cache *cache;
  snprintf(below, sizeof below, "%s/a/b", folder);
  ck_assert_int_eq(sfi_cache_create(&host.context, below, 1 << 20, &cache), SF_OK);
  for (int i = 0; i < 2; i++) {
    int level = get(cache, i, sizes[i], reason);
    ck_assert_msg(level == 2 || !reason[0], "%s at call %ld left: %s", what, k, reason);
    put(cache, i, sizes[i]);
    ck_assert_int_eq(get_from_disk(&host, below, i, sizes[i], reason), 2);
  }
  ck_assert_int_eq(sfi_cache_prune(cache, 1 << 20, &stats), SF_OK);
  ck_assert_int_eq(stats.entries, 2);
  ck_assert_int_eq(count_names(below, SFI_TEMPORARY_PREFIX), 0);
  sfi_cache_destroy(cache);
  ck_assert_int_eq(atomic_load(&host.lines[SF_LOG_WARNING]), 0);
}

static int descriptors(void) {
  return count_names("/proc/self/fd", "");
}

/* For each k until a scenario has fewer calls. Returns how many that are. */
static long every_call(const char *what, fault_kind kind, int error) {
  const int open_before = descriptors();
  for (long k = 1;; k++) {
    ck_assert_int_lt(k, 2000);
    remove_below();
    arm(k, kind, error);
    scenario();
    bool came = disarm();
    ck_assert_int_eq(atomic_load(&host.live), 0);
    ck_assert_msg(descriptors() == open_before, "%s at call %ld: a descriptor was lost", what, k);
    check_recovery(what, k);
    if (!came) return k - 1;
  }
}

START_TEST(failing_calls) {
  static const int errors[] = {EIO, ENOSPC, EMFILE, EDQUOT, EROFS, EACCES, ENOENT, ENOMEM};
  for (size_t i = 0; i < SFI_COUNT(errors); i++) {
    ck_assert_int_gt(every_call(strerror(errors[i]), FAIL_ONCE, errors[i]), 50);
    every_call(strerror(errors[i]), FAIL_FOR_GOOD, errors[i]);
  }
}
END_TEST

/* These are no faults: every byte arrives. */
START_TEST(interrupted_and_partial_calls) {
  for (int i = 0; i < 2; i++) {
    bool came = true;
    for (long k = 1; came; k++) {
      ck_assert_int_lt(k, 100);
      sfi_cache *cache;
      ck_assert_int_eq(sfi_cache_create(&host.context, folder, 1 << 20, &cache), SF_OK);
      arm(k, i ? HALF : INTERRUPT, EINTR);
      put(cache, 1, sizes[1]);
      ck_assert_int_eq(get_from_disk(&host, folder, 1, sizes[1], reason), 2);
      came = disarm();
      sfi_cache_destroy(cache);
      remove_tree(folder);
    }
  }
  ck_assert_int_eq(atomic_load(&host.lines[SF_LOG_WARNING]), 0);
}
END_TEST

START_TEST(killed_at_every_call) {
  bool survived = false;
  long k = 1;
  for (; !survived; k++) {
    ck_assert_int_lt(k, 2000);
    remove_below();
    pid_t child = fork_child();
    if (child == 0) {
      arm(k, KILL, 0);
      scenario();
      _exit(0);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    survived = WIFEXITED(status);
    ck_assert(survived ? WEXITSTATUS(status) == 0 : WTERMSIG(status) == SIGKILL);
    check_recovery("a kill", k);
  }
  ck_assert_int_gt(k, 50);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("cache, faults");
  TCase *tests = tcase_create("faults");
  tcase_add_checked_fixture(tests, setup, teardown);
  tcase_set_timeout(tests, 300);
  tcase_add_test(tests, failing_calls);
  tcase_add_test(tests, interrupted_and_partial_calls);
  tcase_add_test(tests, killed_at_every_call);
  suite_add_tcase(suite, tests);
  return run_suite(suite);
}
