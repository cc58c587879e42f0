/* The size cap of the disk level: surveys the directory, removes dead temporaries and the least recently used entries.
 *
 * Any number of processes may do this at once: they read the same stamps, so they choose the same entries, and removing what
 * is gone is no error. Touches nothing whose name is not one that the cache gives.
 *
 * A survey costs a stat an entry, too much for every put: a writer surveys when it has put 1/64 of the cap, and then cuts down to
 * 3/4. So up to 16 writers, which do not see each other's puts in between, stay within the cap plus the entry that each is at. */
#include "cache_levels.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LOCKLESS_ORPHAN_SECONDS = 3600 };

typedef struct item {
  struct timespec stamp;
  uint64_t bytes;
  char name[SFI_NAME_SIZE];
} item;

typedef struct survey {
  item *items;
  size_t count, capacity;
  uint64_t bytes;
} survey;

static bool is_hex(const char *text, size_t digits) {
  for (size_t i = 0; i < digits; i++)
    if (!isdigit((unsigned char)text[i]) && !(text[i] >= 'a' && text[i] <= 'f')) return false;
  return text[digits] == 0;
}

static bool is_entry_name(const char *name) {
  return is_hex(name, SFI_NAME_SIZE - 1);
}

static bool is_temporary_name(const char *name) {
  const size_t n = sizeof SFI_TEMPORARY_PREFIX - 1;
  return strncmp(name, SFI_TEMPORARY_PREFIX, n) == 0 && is_hex(name + n, 16);
}

/* Removes a temporary whose writer is dead. A living one holds a flock on it; where locks do not work, only age tells. Removed
 * while this lock is held, so that a writer which is about to take its own finds out. */
static void reap(int folder, const char *name) {
  struct stat st;
  int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return;
  bool dead = flock(fd, LOCK_EX | LOCK_NB) == 0;
  if (!dead && errno != EWOULDBLOCK) dead = fstat(fd, &st) == 0 && time(NULL) - st.st_mtim.tv_sec > LOCKLESS_ORPHAN_SECONDS;
  if (dead) unlinkat(folder, name, 0);
  close(fd);
}

/* Lists entries. With `clean`, removes orphans and what can never be an entry. */
static sf_status take_survey(sfi_disk *disk, bool clean, survey *out) {
  const sf_allocator *allocator = &disk->context->allocator;
  sf_status status = SF_OK;
  /* A descriptor of its own, for its own position in the directory. */
  int fd = openat(disk->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *stream = fd >= 0 ? fdopendir(fd) : NULL;
  if (!stream) {
    sfi_disk_fault(disk, "the directory cannot be read", errno);
    if (fd >= 0) close(fd);
    return SF_STATUS_IO_ERROR;
  }
  const struct dirent *found;
  while (errno = 0, (found = readdir(stream))) {
    if (clean && is_temporary_name(found->d_name)) reap(disk->folder, found->d_name);
    struct stat st;
    if (!is_entry_name(found->d_name) || fstatat(disk->folder, found->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > SFI_ENTRY_MAX_BYTES) {
      if (clean) unlinkat(disk->folder, found->d_name, 0);
      continue;
    }
    if (!sfi_grow(allocator, (void **)&out->items, &out->capacity, sizeof *out->items, out->count + 1)) {
      status = SF_STATUS_OUT_OF_MEMORY;
      break;
    }
    item *i = &out->items[out->count++];
    i->stamp = st.st_mtim;
    i->bytes = sfi_disk_charge((uint64_t)st.st_size);
    memcpy(i->name, found->d_name, sizeof i->name);
    out->bytes += i->bytes;
  }
  if (status == SF_OK && errno) {
    sfi_disk_fault(disk, "the directory cannot be read", errno);
    status = SF_STATUS_IO_ERROR;
  }
  closedir(stream);
  return status;
}

static void survey_deinit(const sfi_disk *disk, survey *s) {
  sfi_free(&disk->context->allocator, s->items, s->capacity * sizeof *s->items);
}

sf_status sfi_disk_measure(sfi_disk *disk, sfi_usage *out_usage) {
  survey s = {0};
  *out_usage = (sfi_usage){0};
  if (disk->folder < 0) return SF_OK;
  sf_status status = take_survey(disk, false, &s);
  out_usage->entries = (int64_t)s.count;
  out_usage->bytes = s.bytes;
  survey_deinit(disk, &s);
  return status;
}

static int oldest_first(const void *a, const void *b) {
  const item *x = a, *y = b;
  if (x->stamp.tv_sec != y->stamp.tv_sec) return x->stamp.tv_sec < y->stamp.tv_sec ? -1 : 1;
  if (x->stamp.tv_nsec != y->stamp.tv_nsec) return x->stamp.tv_nsec < y->stamp.tv_nsec ? -1 : 1;
  return strcmp(x->name, y->name); /* every process in the same order */
}

sf_status sfi_disk_prune(sfi_disk *disk, uint64_t max_bytes, sfi_usage *out_usage) {
  survey s = {0};
  *out_usage = (sfi_usage){0};
  if (disk->folder < 0) return SF_OK;
  sf_status status = take_survey(disk, true, &s);
  out_usage->entries = (int64_t)s.count;
  out_usage->bytes = s.bytes;
  if (s.bytes > max_bytes) qsort(s.items, s.count, sizeof *s.items, oldest_first);
  for (size_t i = 0; i < s.count && out_usage->bytes > max_bytes; i++) {
    bool removed = unlinkat(disk->folder, s.items[i].name, 0) == 0;
    if (!removed && errno != ENOENT) continue;
    out_usage->removed += removed;
    out_usage->entries--;
    out_usage->bytes -= s.items[i].bytes;
  }
  survey_deinit(disk, &s);
  return status;
}

void sfi_disk_make_room(sfi_disk *disk, uint64_t written) {
  sfi_usage usage;
  if (atomic_fetch_add(&disk->unseen, written) + written < disk->max_bytes / 64) return;
  atomic_store(&disk->unseen, 0);
  (void)sfi_disk_prune(disk, disk->max_bytes / 4 * 3, &usage);
}
