/* The kernel cache against what may stand in its directory: every damage of an entry, files that are no entries, directories that
 * cannot be trusted or used. Never a wrong payload, a crash or a wait; a reason and one line for each; and writes go on. */
#include "cache_fixture.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { NOBODY = 65534 };

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

static sfi_cache *open_cache(const char *directory) {
  sfi_cache *cache;
  ck_assert_int_eq(sfi_cache_create(&host.context, directory, 1 << 30, &cache), SF_OK);
  return cache;
}

static int warnings(void) {
  return atomic_exchange(&host.lines[SF_LOG_WARNING], 0);
}

static void write_file(const char *path, const uint8_t *data, size_t size) {
  unlink(path);
  int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0600);
  ck_assert_int_ge(fd, 0);
  ck_assert_int_eq(write(fd, data, size), (ssize_t)size);
  close(fd);
}

static size_t read_file(const char *path, uint8_t *out, size_t capacity) {
  int fd = open(path, O_RDONLY);
  ck_assert_int_ge(fd, 0);
  ssize_t size = read(fd, out, capacity);
  ck_assert_int_gt(size, 0);
  close(fd);
  return (size_t)size;
}

/* ---- damage ---------------------------------------------------------------------------------------------------------------- */

static const sfi_entry_kind kinds[] = {SFI_ENTRY_OBJECT, SFI_ENTRY_PACKED, SFI_ENTRY_PROFILE};

/* One entry of each kind with all texts present. Returns the entry's size; leaves it in `out` and on disk. */
static size_t make_entry(sfi_cache *cache, sfi_entry_kind kind, size_t payload_size, made_key *key, char path[PATH_MAX],
                         uint8_t *out, size_t capacity) {
  uint8_t *payload = malloc(payload_size + 1);
  fill_payload(payload, kind, payload_size);
  make_key(key, kind);
  key->key.kind = kind;
  key->key.features = "-sse4a";
  sfi_cache_put(cache, &key->key, true, payload, payload_size);
  free(payload);
  entry_path(folder, &key->key, path);
  return read_file(path, out, capacity);
}

static void refused(sfi_cache *reader, const sfi_cache_key *key, const char *what, size_t at) {
  sfi_blob blob;
  int level;
  bool hit = sfi_cache_get(reader, key, true, &blob, &level, reason, sizeof reason);
  ck_assert_msg(!hit && level == 0 && !blob.data, "%s at %zu was handed out", what, at);
  ck_assert_msg(reason[0] != 0, "%s at %zu: no reason", what, at);
  ck_assert_int_ne(sfi_cache_probe(reader, key, reason, sizeof reason), SF_PROBE_HIT);
}

/* Every byte with each bit flipped, all zero and all one. */
static void flip_bytes(sfi_cache *reader, const sfi_cache_key *key, const char *path, const uint8_t *entry, size_t size,
                       size_t step) {
  int fd = open(path, O_WRONLY);
  ck_assert_int_ge(fd, 0);
  for (size_t i = 0; i < size; i += step) {
    for (int way = 0; way < 10; way++) {
      const uint8_t byte = way < 8 ? (uint8_t)(entry[i] ^ 1 << way) : way == 8 ? 0 : 0xff;
      if (byte == entry[i]) continue;
      ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)i), 1);
      refused(reader, key, "a changed byte", i);
    }
    ck_assert_int_eq(pwrite(fd, &entry[i], 1, (off_t)i), 1);
  }
  close(fd);
}

START_TEST(every_damage_is_refused) {
  uint8_t entry[512];
  char path[PATH_MAX];
  made_key key;
  for (size_t i = 0; i < SFI_COUNT(kinds); i++) {
    sfi_cache *writer = open_cache(folder), *reader = open_cache(folder); /* the reader's memory level stays empty */
    const size_t size = make_entry(writer, kinds[i], 60, &key, path, entry, sizeof entry);
    flip_bytes(reader, &key.key, path, entry, size, 1);
    for (size_t length = 0; length < size; length++) {
      write_file(path, entry, length);
      refused(reader, &key.key, "a truncation", length);
    }
    for (size_t more = 1; more < 70; more++) { /* appended: zeros, and its own beginning */
      uint8_t longer[sizeof entry + 70] = {0};
      memcpy(longer, entry, size);
      if (more % 2) memcpy(longer + size, entry, more);
      write_file(path, longer, size + more);
      refused(reader, &key.key, "appended bytes", more);
    }
    for (size_t hole = 0; hole + 8 <= size; hole++) { /* torn: a block that was never written */
      uint8_t torn[sizeof entry];
      memcpy(torn, entry, size);
      memset(torn + hole, 0, size - hole < 64 ? size - hole : 64);
      if (memcmp(torn, entry, size) == 0) continue;
      write_file(path, torn, size);
      refused(reader, &key.key, "a hole", hole);
    }
    write_file(path, entry, size);
    ck_assert_int_eq(sfi_cache_probe(reader, &key.key, reason, sizeof reason), SF_PROBE_HIT);
    sfi_cache_destroy(writer);
    sfi_cache_destroy(reader);
  }
  ck_assert_int_gt(warnings(), 10000);
}
END_TEST

/* Beyond what is read at once. */
START_TEST(damage_of_a_large_entry_is_refused) {
  static uint8_t entry[100000];
  char path[PATH_MAX];
  made_key key;
  sfi_cache *writer = open_cache(folder), *reader = open_cache(folder);
  const size_t size = make_entry(writer, SFI_ENTRY_PACKED, 70000, &key, path, entry, sizeof entry);
  flip_bytes(reader, &key.key, path, entry, size, 499);
  for (size_t length = 0; length < size; length += 1013) {
    write_file(path, entry, length);
    refused(reader, &key.key, "a truncation", length);
  }
  write_file(path, entry, size);
  ck_assert_int_eq(sfi_cache_probe(reader, &key.key, reason, sizeof reason), SF_PROBE_HIT);
  sfi_cache_destroy(writer);
  sfi_cache_destroy(reader);
}
END_TEST

/* ---- files that are no entries ------------------------------------------------------------------------------------------------ */

typedef enum planted {
  SYMLINK,
  DANGLING_LINK,
  HARD_LINK,
  GROUP_WRITABLE,
  WORLD_WRITABLE,
  FIFO,
  SOCKET,
  EMPTY,
  SPARSE,
  FOLDER,
  FULL_FOLDER,
  OTHER_KEY,
  OTHER_INSTRUCTIONS,
  FOREIGN_OWNER,
  OTHER_SOURCES,
  PLANTED_COUNT
} planted;

/* What each is refused as, and a part of the reason. */
static const struct {
  sf_probe_state state;
  const char *reason;
} verdicts[PLANTED_COUNT] = {
    [SYMLINK] = {SF_PROBE_FOREIGN, "symbolic link"},
    [DANGLING_LINK] = {SF_PROBE_FOREIGN, "symbolic link"},
    [HARD_LINK] = {SF_PROBE_FOREIGN, "hard link"},
    [GROUP_WRITABLE] = {SF_PROBE_FOREIGN, "others may write"},
    [WORLD_WRITABLE] = {SF_PROBE_FOREIGN, "others may"},
    [FIFO] = {SF_PROBE_FOREIGN, "not a regular file"},
    [SOCKET] = {SF_PROBE_MISSING, "cannot be read"},
    [EMPTY] = {SF_PROBE_MISSING, "empty"},
    [SPARSE] = {SF_PROBE_MISSING, "too large"},
    [FOLDER] = {SF_PROBE_FOREIGN, "not a regular file"},
    [FULL_FOLDER] = {SF_PROBE_FOREIGN, "not a regular"},
    [OTHER_KEY] = {SF_PROBE_MISSING, "another key"},
    [OTHER_INSTRUCTIONS] = {SF_PROBE_FOREIGN, "+nosuch"},
    [FOREIGN_OWNER] = {SF_PROBE_FOREIGN, "another user"},
    [OTHER_SOURCES] = {SF_PROBE_MISSING, "other sources of the library"},
};

/* Puts one of them in the place of key 0's good entry. False: this file system or user cannot make it. */
static bool plant(planted what, sfi_cache *writer, const char *path) {
  char other[PATH_MAX], inside[PATH_MAX + 8];
  made_key key;
  entry_path(folder, make_key(&key, 1), other);
  switch (what) {
  case SYMLINK:
    return rename(path, other) == 0 && symlink(other, path) == 0;
  case DANGLING_LINK:
    return unlink(path) == 0 && symlink("/nonexistent/file", path) == 0;
  case HARD_LINK:
    return link(path, other) == 0;
  case GROUP_WRITABLE:
    return chmod(path, 0620) == 0;
  case WORLD_WRITABLE:
    return chmod(path, 0602) == 0;
  case FIFO:
    return unlink(path) == 0 && mkfifo(path, 0600) == 0;
  case SOCKET: {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%.100s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    bool made = fd >= 0 && unlink(path) == 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    if (fd >= 0) close(fd);
    return made;
  }
  case EMPTY:
    return truncate(path, 0) == 0;
  case SPARSE:
    return truncate(path, (off_t)1 << 40) == 0;
  case FOLDER:
    return unlink(path) == 0 && mkdir(path, 0700) == 0;
  case FULL_FOLDER:
    snprintf(inside, sizeof inside, "%s/x", path);
    return unlink(path) == 0 && mkdir(path, 0700) == 0 && mkdir(inside, 0700) == 0;
  case OTHER_KEY:
    put(writer, 1, 100);
    return rename(other, path) == 0;
  case OTHER_INSTRUCTIONS: /* whole and well signed */
    make_key(&key, 0);
    key.key.features = "+sse2,+nosuch";
    sfi_cache_put(writer, &key.key, true, "code", 4);
    return true;
  case FOREIGN_OWNER:
    return geteuid() == 0 && chown(path, NOBODY, NOBODY) == 0;
  case OTHER_SOURCES: {
    int fd = open(path, O_WRONLY);
    const uint8_t byte = sfi_sources_digest.bytes[0] ^ 1;
    bool written = fd >= 0 && pwrite(fd, &byte, 1, 8) == 1;
    if (fd >= 0) close(fd);
    return written;
  }
  default:
    return false;
  }
}

START_TEST(planted_files_are_refused) {
  made_key key;
  char path[PATH_MAX];
  sf_cache_stats stats = {0};
  for (int what = 0; what < PLANTED_COUNT; what++) {
    remove_tree(folder);
    sfi_cache *writer = open_cache(folder);
    put(writer, 0, 100);
    entry_path(folder, make_key(&key, 0), path);
    ck_assert_int_eq(get_from_disk(&host, folder, 0, 100, reason), 2);
    if (!plant((planted)what, writer, path)) {
      fprintf(stderr, "note: planted file %d cannot be made here: not tested\n", what);
      sfi_cache_destroy(writer);
      continue;
    }
    warnings();
    ck_assert_int_eq(get_from_disk(&host, folder, 0, 100, reason), 0);
    ck_assert_msg(strstr(reason, verdicts[what].reason) != NULL, "planted %d: %s", what, reason);
    ck_assert_int_eq(warnings(), 1);
    ck_assert_int_eq(sfi_cache_probe(writer, &key.key, reason, sizeof reason), verdicts[what].state);
    /* Counting it does no harm, its key is served again unless a directory stands there, and other keys are served anyway. */
    ck_assert_int_eq(sfi_cache_measure(writer, &stats), SF_OK);
    ck_assert_uint_lt(stats.bytes, 1 << 20);
    put(writer, 0, 100);
    put(writer, 2, 100);
    const bool blocked = what == FOLDER || what == FULL_FOLDER;
    ck_assert_int_eq(get_from_disk(&host, folder, 0, 100, reason), blocked ? 0 : 2);
    ck_assert_int_eq(get_from_disk(&host, folder, 2, 100, reason), 2);
    ck_assert_int_eq(count_names(folder, SFI_TEMPORARY_PREFIX), 0);
    ck_assert_int_eq(sfi_cache_prune(writer, UINT64_MAX, &stats), SF_OK);
    sfi_cache_destroy(writer);
  }
}
END_TEST

/* A file that claims a terabyte does not make pruning throw the rest away: it goes first. */
START_TEST(prune_removes_what_cannot_be_an_entry) {
  made_key key;
  char path[PATH_MAX];
  sf_cache_stats stats = {0};
  sfi_cache *cache = open_cache(folder);
  put(cache, 0, 100);
  entry_path(folder, make_key(&key, 1), path);
  int fd = open(path, O_CREAT | O_WRONLY, 0600);
  if (ftruncate(fd, (off_t)1 << 40) != 0) ck_assert_int_eq(ftruncate(fd, (off_t)2 << 30), 0);
  close(fd);
  entry_path(folder, make_key(&key, 2), path);
  ck_assert_int_eq(mkfifo(path, 0600), 0);
  ck_assert_int_eq(sfi_cache_prune(cache, 1 << 20, &stats), SF_OK);
  ck_assert_int_eq(stats.entries, 1);
  ck_assert_int_eq(count_names(folder, ""), 1);
  ck_assert_int_eq(get_from_disk(&host, folder, 0, 100, reason), 2);
  sfi_cache_destroy(cache);
}
END_TEST

/* ---- directories ----------------------------------------------------------------------------------------------------------------- */

/* The cache works in memory alone, said in one warning. */
static void only_memory(const char *directory) {
  warnings();
  sfi_cache *cache = open_cache(directory);
  for (int i = 0; i < 3; i++) {
    ck_assert_int_eq(get(cache, i, 100, reason), 0);
    put(cache, i, 100);
    ck_assert_int_eq(get(cache, i, 100, reason), 1);
  }
  sf_cache_stats stats = {0};
  ck_assert_int_eq(sfi_cache_measure(cache, &stats), SF_OK);
  ck_assert_int_eq(sfi_cache_prune(cache, 0, &stats), SF_OK);
  ck_assert_int_eq(stats.entries, 0);
  ck_assert_int_eq(warnings(), 1);
  sfi_cache_destroy(cache);
}

START_TEST(unusable_directories) {
  char path[PATH_MAX + 16], long_path[3 * PATH_MAX];
  static const mode_t open_modes[] = {0777, 0720, 0702, 01777};
  for (size_t i = 0; i < SFI_COUNT(open_modes); i++) {
    ck_assert_int_eq(chmod(folder, open_modes[i]), 0);
    only_memory(folder);
    ck_assert_int_eq(count_names(folder, ""), 0);
  }
  ck_assert_int_eq(chmod(folder, 0700), 0);
  if (geteuid() == 0) {
    ck_assert_int_eq(chown(folder, NOBODY, NOBODY), 0);
    only_memory(folder);
    ck_assert_int_eq(chown(folder, 0, 0), 0);
  }
  snprintf(path, sizeof path, "%s/file", folder);
  write_file(path, (const uint8_t *)"x", 1);
  only_memory(path);
  snprintf(path, sizeof path, "%s/file/below", folder);
  only_memory(path);
  snprintf(path, sizeof path, "%s/loop", folder);
  ck_assert_int_eq(symlink(path, path), 0);
  only_memory(path);
  only_memory("/proc/sparseflow-test/cache");
  memset(long_path, 'a', sizeof long_path - 1);
  long_path[0] = '/';
  long_path[sizeof long_path - 1] = 0;
  only_memory(long_path);
}
END_TEST

START_TEST(directories_are_made_private) {
  char path[256], entry[PATH_MAX];
  struct stat st;
  mode_t mask = umask(0);
  snprintf(path, sizeof path, "%s/a//b/c/", folder);
  sfi_cache *cache = open_cache(path);
  put(cache, 0, 10);
  ck_assert_int_eq(get_from_disk(&host, path, 0, 10, reason), 2);
  sfi_cache_destroy(cache);
  umask(mask);
  static const char *const made[] = {"a", "a/b", "a/b/c"};
  for (size_t i = 0; i < SFI_COUNT(made); i++) {
    snprintf(path, sizeof path, "%s/%s", folder, made[i]);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_mode & 07777, 0700);
  }
  made_key key;
  entry_path(path, make_key(&key, 0), entry);
  ck_assert_int_eq(stat(entry, &st), 0);
  ck_assert_int_eq(st.st_mode & 07777, 0600);
  ck_assert_int_eq(warnings(), 0);
}
END_TEST

START_TEST(directory_removed_while_open) {
  sfi_cache *cache = open_cache(folder);
  put(cache, 0, 10);
  remove_tree(folder);
  ck_assert_int_eq(sfi_cache_probe(cache, &(sfi_cache_key){SFI_ENTRY_OBJECT, "k", 1, "", "", ""}, reason, sizeof reason),
                   SF_PROBE_MISSING);
  put(cache, 1, 10);
  ck_assert_int_eq(get_from_disk(&host, folder, 1, 10, reason), 2);
  ck_assert_int_eq(warnings(), 0);
  sfi_cache_destroy(cache);
}
END_TEST

START_TEST(a_linked_directory_is_the_owners_choice) {
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/target", folder);
  ck_assert_int_eq(mkdir(path, 0700), 0);
  snprintf(path, sizeof path, "%s/link", folder);
  ck_assert_int_eq(symlink("target", path), 0);
  sfi_cache *cache = open_cache(path);
  put(cache, 0, 10);
  ck_assert_int_eq(get_from_disk(&host, path, 0, 10, reason), 2);
  sfi_cache_destroy(cache);
  ck_assert_int_eq(warnings(), 0);
}
END_TEST

START_TEST(default_directory) {
  char out[64], *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  xdg = xdg ? strdup(xdg) : NULL, home = home ? strdup(home) : NULL;
  static const struct {
    const char *xdg, *home, *expected;
  } cases[] = {
      {"/x", "/h", "/x/sparseflow"},
      {NULL, "/h", "/h/.cache/sparseflow"},
      {"", "/h", "/h/.cache/sparseflow"},
      {"relative", "/h", "/h/.cache/sparseflow"},
      {NULL, NULL, NULL},
      {NULL, "", NULL},
      {NULL, "relative", NULL},
      {"relative", NULL, NULL},
      {"/a-path-of-more-than-sixty-four-bytes-with-what-is-appended-to-it", "/h", NULL},
  };
  for (size_t i = 0; i < SFI_COUNT(cases); i++) {
    cases[i].xdg ? setenv("XDG_CACHE_HOME", cases[i].xdg, 1) : unsetenv("XDG_CACHE_HOME");
    cases[i].home ? setenv("HOME", cases[i].home, 1) : unsetenv("HOME");
    ck_assert_int_eq(sfi_cache_default_directory(out, sizeof out), cases[i].expected != NULL);
    ck_assert_str_eq(out, cases[i].expected ? cases[i].expected : "");
  }
  xdg ? setenv("XDG_CACHE_HOME", xdg, 1) : unsetenv("XDG_CACHE_HOME");
  home ? setenv("HOME", home, 1) : unsetenv("HOME");
  free(xdg), free(home);
}
END_TEST

/* ---- limits of the process: in a child, for they cannot be taken back ------------------------------------------------------------- */

/* In a child without root's rights, who owns `folder`. */
static pid_t fork_unprivileged(void) {
  if (geteuid() == 0) ck_assert_int_eq(chown(folder, NOBODY, NOBODY), 0);
  pid_t child = fork_child();
  if (child == 0 && geteuid() == 0 && (setgid(NOBODY) != 0 || setuid(NOBODY) != 0)) _exit(9);
  return child;
}

START_TEST(read_only_directory) {
  pid_t child = fork_unprivileged();
  if (child == 0) {
    sfi_cache *cache = open_cache(folder);
    put(cache, 0, 100);
    sfi_cache_destroy(cache);
    ck_assert_int_eq(chmod(folder, 0500), 0);
    cache = open_cache(folder);
    ck_assert_int_eq(get(cache, 0, 100, reason), 2);
    for (int i = 1; i < 4; i++) {
      put(cache, i, 100);
      ck_assert_int_eq(get(cache, i, 100, reason), 1);
    }
    ck_assert_int_eq(warnings(), 1);
    sf_cache_stats stats = {0};
    ck_assert_int_eq(sfi_cache_prune(cache, 0, &stats), SF_OK); /* nothing can be removed, and nothing else is said */
    ck_assert_int_eq(stats.removed, 0);
    ck_assert_int_eq(stats.entries, 1);
    sfi_cache_destroy(cache);
    char below[PATH_MAX];
    snprintf(below, sizeof below, "%s/below", folder);
    only_memory(below);
    ck_assert_int_eq(chmod(folder, 0), 0);
    only_memory(folder);
    ck_assert_int_eq(chmod(folder, 0700), 0);
    _exit(0);
  }
  join_child(child);
}
END_TEST

START_TEST(file_size_limit_does_not_kill) {
  pid_t child = fork_child();
  if (child == 0) {
    struct rlimit limit = {5000, 5000};
    sfi_cache *cache = open_cache(folder);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    for (int i = 0; i < 3; i++) put(cache, i, 10000);
    put(cache, 3, 1000);
    for (int i = 0; i < 4; i++) ck_assert_int_eq(get_from_disk(&host, folder, i, i < 3 ? 10000 : 1000, reason), i < 3 ? 0 : 2);
    ck_assert_int_eq(warnings(), 1);
    sfi_cache_destroy(cache);
    _exit(0);
  }
  join_child(child);
  ck_assert_int_eq(count_names(folder, SFI_TEMPORARY_PREFIX), 0);
}
END_TEST

START_TEST(no_descriptors_left) {
  pid_t child = fork_child();
  if (child == 0) {
    sfi_cache *cache = open_cache(folder);
    put(cache, 0, 100);
    sfi_cache *later = open_cache(folder);
    struct rlimit limit = {3, 3};
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    ck_assert_int_eq(get(later, 0, 100, reason), 0);
    ck_assert_ptr_nonnull(strstr(reason, "Too many open files"));
    put(later, 1, 100);
    ck_assert_int_eq(get(later, 1, 100, reason), 1);
    ck_assert_int_eq(warnings(), 1);
    sf_cache_stats stats = {0};
    ck_assert_int_eq(sfi_cache_measure(later, &stats), SF_STATUS_IO_ERROR);
    only_memory(folder);
    sfi_cache_destroy(cache);
    sfi_cache_destroy(later);
    _exit(0);
  }
  join_child(child);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("cache, hostile");
  TCase *tests = tcase_create("hostile");
  tcase_add_checked_fixture(tests, setup, teardown);
  tcase_set_timeout(tests, 120);
  tcase_add_test(tests, every_damage_is_refused);
  tcase_add_test(tests, damage_of_a_large_entry_is_refused);
  tcase_add_test(tests, planted_files_are_refused);
  tcase_add_test(tests, prune_removes_what_cannot_be_an_entry);
  tcase_add_test(tests, unusable_directories);
  tcase_add_test(tests, directories_are_made_private);
  tcase_add_test(tests, directory_removed_while_open);
  tcase_add_test(tests, a_linked_directory_is_the_owners_choice);
  tcase_add_test(tests, default_directory);
  tcase_add_test(tests, read_only_directory);
  tcase_add_test(tests, file_size_limit_does_not_kill);
  tcase_add_test(tests, no_descriptors_left);
  suite_add_tcase(suite, tests);
  return run_suite(suite);
}
