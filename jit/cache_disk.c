/* The disk level of the kernel cache: the directory, reading and writing one entry.
 *
 * An entry is one file, never changed once it has its name: written to a temporary in the same directory, then renamed. So a
 * reader sees a whole entry or none, whoever dies when, and the loser of a race replaces an entry by its equal. Nobody waits for
 * anybody; the only lock is a writer's own flock on its temporary, which dies with it and tells it from an orphan's.
 * Nothing is synced to the medium: after a power cut a torn entry fails its checksum. Any fault is a miss or an uncached put. */
#include "cache_levels.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
  HEAD_BYTES = 16384,      /* read at once: most entries whole */
  STAMP_SECONDS = 60,      /* a use is stamped at most this often */
  TEMPORARY_NAME_SIZE = 21 /* "tmp-" and 16 digits */
};

void sfi_disk_fault(sfi_disk *disk, const char *what, int error) {
  char buffer[128];
  sf_log_level level = atomic_exchange(&disk->warned, true) ? SF_LOG_DEBUG : SF_LOG_WARNING;
  sfi_log(disk->context, level, "cache %s: %s: %s; going on uncached", disk->path, what, strerror_r(error, buffer, sizeof buffer));
}

/* ---- the directory ------------------------------------------------------------------------------------------------- */

/* Makes `path` and its parents, mode 0700. What exists is left as it is. */
static void make_directories(const char *path) {
  char folder[PATH_MAX];
  for (size_t i = 0; path[i] && i + 1 < sizeof folder; i++) {
    folder[i] = path[i];
    folder[i + 1] = 0;
    if (i && (path[i + 1] == '/' || !path[i + 1])) mkdir(folder, 0700);
  }
}

/* The directory's descriptor, or -1 and a warning where it is unusable. */
static int open_directory(sfi_disk *disk) {
  make_directories(disk->path);
  /* The directory itself may be a link that its owner made to a larger disk: what counts is whose directory it leads to. */
  int fd = open(disk->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  struct stat st;
  if (fd < 0 || fstat(fd, &st) != 0)
    sfi_disk_fault(disk, "the directory cannot be opened", errno);
  else if (st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)))
    sfi_disk_fault(disk, "the directory belongs to another user or others may write to it", EPERM);
  else
    return fd;
  if (fd >= 0) close(fd);
  return -1;
}

bool sfi_disk_init(sfi_disk *disk, sf_context *context, const char *directory, uint64_t max_bytes) {
  memset(disk, 0, sizeof *disk);
  disk->context = context;
  disk->folder = -1;
  disk->max_bytes = max_bytes;
  atomic_init(&disk->unseen, max_bytes); /* the first put surveys what others left */
  if (!directory || !directory[0]) return true;
  disk->path_size = strlen(directory) + 1;
  if (!(disk->path = sfi_alloc(&context->allocator, disk->path_size))) return false;
  memcpy(disk->path, directory, disk->path_size);
  disk->folder = open_directory(disk);
  return true;
}

void sfi_disk_deinit(sfi_disk *disk) {
  if (disk->folder >= 0) close(disk->folder);
  sfi_free(&disk->context->allocator, disk->path, disk->path_size);
}

/* ---- reading ------------------------------------------------------------------------------------------------------- */

typedef struct entry_file {
  int fd, error;
  size_t have;
  uint8_t head[HEAD_BYTES];
} entry_file;

static bool read_at(entry_file *file, uint64_t offset, uint8_t *out, size_t size) {
  while (size) {
    ssize_t n = pread(file->fd, out, size, (off_t)offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) file->error = errno;
    if (n <= 0) return false; /* 0: cut since fstat */
    out += n;
    offset += (uint64_t)n;
    size -= (size_t)n;
  }
  return true;
}

static bool read_entry(void *user, uint64_t offset, void *out, size_t size) {
  entry_file *file = user;
  uint8_t *to = out;
  if (offset < file->have) {
    size_t n = size < file->have - offset ? size : (size_t)(file->have - offset);
    memcpy(to, file->head + offset, n);
    to += n;
    offset += n;
    size -= n;
  }
  return read_at(file, offset, to, size);
}

/* Why the file may not be trusted, or NULL. */
static const char *distrust(const struct stat *st) {
  if (!S_ISREG(st->st_mode)) return "not a regular file";
  if (st->st_uid != geteuid()) return "belongs to another user";
  if (st->st_mode & (S_IWGRP | S_IWOTH)) return "others may write to it";
  if (st->st_nlink > 1) return "has another name, a hard link"; /* 0 is well: replaced since it was opened */
  return NULL;
}

/* Eviction goes by these stamps: file systems need not keep access times. */
static void stamp_use(int fd, const struct stat *st) {
  struct timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now) == 0 &&
      (now.tv_sec < st->st_mtim.tv_sec || now.tv_sec - st->st_mtim.tv_sec >= STAMP_SECONDS))
    (void)futimens(fd, NULL); /* fails on a read-only file system, which nobody evicts from */
}

static sf_probe_state read_open(sfi_disk *disk, entry_file *file, const sfi_cache_key *key, sfi_blob *out_blob, uint64_t *out_size,
                                char reason[SFI_REASON_SIZE]) {
  struct stat st;
  if (fstat(file->fd, &st) != 0) {
    file->error = errno;
    return SF_PROBE_MISSING;
  }
  const char *why = distrust(&st);
  if (why) {
    snprintf(reason, SFI_REASON_SIZE, "refused: %s", why);
    return SF_PROBE_FOREIGN;
  }
  const uint64_t size = (uint64_t)st.st_size;
  const size_t head = size < sizeof file->head ? (size_t)size : sizeof file->head;
  if (read_at(file, 0, file->head, head)) file->have = head;
  sfi_entry_source source = {read_entry, file, size};
  const sf_allocator *allocator = &disk->context->allocator;
  sfi_entry_payload payload = {0};
  sf_probe_state state = out_blob ? sfi_entry_decode(&source, key, allocator, out_blob, reason)
                                  : sfi_entry_look(&source, key, allocator, &payload, reason);
  if (out_size) *out_size = payload.size;
  if (state == SF_PROBE_HIT) stamp_use(file->fd, &st);
  return state;
}

sf_probe_state sfi_disk_get(sfi_disk *disk, sfi_digest id, const sfi_cache_key *key, sfi_blob *out_blob, uint64_t *out_size,
                            char reason[SFI_REASON_SIZE]) {
  reason[0] = 0;
  if (disk->folder < 0) return SF_PROBE_MISSING;
  char name[SFI_NAME_SIZE];
  sfi_digest_hex(id, name);
  entry_file file;
  file.have = 0;
  file.error = 0;
  sf_probe_state state = SF_PROBE_MISSING;
  /* O_NONBLOCK: opening a pipe that somebody left here must not wait for its writer. */
  file.fd = openat(disk->folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (file.fd >= 0) {
    state = read_open(disk, &file, key, out_blob, out_size, reason);
    close(file.fd);
  } else if (errno == ENOENT) {
    return SF_PROBE_MISSING;
  } else if (errno == ELOOP) {
    snprintf(reason, SFI_REASON_SIZE, "refused: a symbolic link");
    state = SF_PROBE_FOREIGN;
  } else {
    file.error = errno;
  }
  if (state == SF_PROBE_HIT) return state;
  if (file.error) {
    char buffer[128];
    snprintf(reason, SFI_REASON_SIZE, "cannot be read: %s", strerror_r(file.error, buffer, sizeof buffer));
    sfi_disk_fault(disk, name, file.error);
  } else {
    sfi_log(disk->context, state == SF_PROBE_STALE ? SF_LOG_INFO : SF_LOG_WARNING, "cache entry %s: %s", name, reason);
  }
  return state;
}

/* ---- writing ------------------------------------------------------------------------------------------------------- */

static bool write_all(int fd, const void *data, size_t size) {
  for (const uint8_t *p = data; size;) {
    ssize_t n = write(fd, p, size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    p += n;
    size -= (size_t)n;
  }
  return true;
}

/* A write beyond RLIMIT_FSIZE would kill the host by SIGXFSZ. */
static bool size_allowed(uint64_t size) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || size <= limit.rlim_cur) return true;
  errno = EFBIG;
  return false;
}

/* A new temporary under the caller's flock, which tells pruners that its writer lives. -1 with errno. */
static int create_temporary(int folder, char name[TEMPORARY_NAME_SIZE]) {
  for (int attempt = 0; attempt < 8; attempt++) {
    uint64_t number;
    if (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number) return -1;
    snprintf(name, TEMPORARY_NAME_SIZE, SFI_TEMPORARY_PREFIX "%016llx", (unsigned long long)number);
    int fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) return -1;
    /* A pruner may have taken it for an orphan before it was locked. A file system without locks tells orphans by age. */
    struct stat st;
    bool taken = flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (!taken && fstat(fd, &st) == 0 && st.st_nlink > 0) return fd;
    close(fd);
  }
  errno = EAGAIN;
  return -1;
}

/* The directory was removed under a running host: a new one takes the old descriptor's place, for every thread at once. */
static bool reopen_directory(sfi_disk *disk) {
  int fd = open_directory(disk);
  if (fd < 0) return false;
  bool replaced = dup3(fd, disk->folder, O_CLOEXEC) >= 0;
  close(fd);
  return replaced;
}

bool sfi_disk_put(sfi_disk *disk, sfi_digest id, const sfi_cache_key *key, const void *payload, size_t size) {
  sfi_blob prefix = {0};
  if (disk->folder < 0 || !sfi_entry_encode(&disk->context->allocator, key, payload, size, &prefix)) return false;
  bool put = false;
  const uint64_t total = (uint64_t)prefix.size + size;
  /* A larger one would push out most others. */
  if (total > SFI_ENTRY_MAX_BYTES || sfi_disk_charge(total) > disk->max_bytes / 2) goto done;

  char name[SFI_NAME_SIZE], temporary[TEMPORARY_NAME_SIZE];
  sfi_digest_hex(id, name);
  int fd = create_temporary(disk->folder, temporary);
  if (fd < 0 && errno == ENOENT && reopen_directory(disk)) fd = create_temporary(disk->folder, temporary);
  if (fd < 0) {
    sfi_disk_fault(disk, "an entry cannot be made", errno);
    goto done;
  }
  if (!size_allowed(total) || !write_all(fd, prefix.data, prefix.size) || !write_all(fd, payload, size) ||
      renameat(disk->folder, temporary, disk->folder, name) != 0) {
    sfi_disk_fault(disk, "an entry cannot be written", errno);
    unlinkat(disk->folder, temporary, 0);
    close(fd);
    goto done;
  }
  close(fd); /* after the rename: the lock goes with it */
  put = true;
  sfi_disk_make_room(disk, sfi_disk_charge(total));
done:
  sfi_blob_deinit(&prefix);
  return put;
}
