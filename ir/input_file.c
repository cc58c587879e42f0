/* Opens and reads files for the parsers. A name from inside a graph is walked part by part, each folder opened relative to the one before
 * and never through a symbolic link, so that no graph can name a file outside its folder, whatever changes meanwhile. Where the caller lets it,
 * the file itself may be a link to a regular file anywhere, for model hubs keep their files so: it was the folder's owner who put it there,
 * not the graph. */
#include "input_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { NAME_LONGEST = 1024, COARSEST_SECONDS = 2 };

static sf_status fail_errno(sfi_diag *diag, const char *name) {
  int reason = errno;
  sfi_place place = {.file = name};
  sf_status st = reason == ENOENT ? SF_STATUS_NOT_FOUND : SF_STATUS_IO_ERROR;
  errno = reason; /* for %m */
  return sfi_fail(diag, st, &place, NULL, reason == ENOENT ? "there is no such file" : "cannot be read: %m");
}

static sf_status fail_outside(sfi_diag *diag, const char *name, const char *why) {
  sfi_place place = {.file = name};
  return sfi_fail(diag, SF_STATUS_INVALID_GRAPH, &place, NULL, "a file beside the graph is wanted, inside its folder: %s", why);
}

/* Is `part` of the folder `fd` a symbolic link? */
static bool is_link(int fd, const char *part) {
  struct stat info;
  return fstatat(fd, part, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(info.st_mode);
}

/* Opens the regular file that a link leads to; -1: it leads to none. Looked at before it is opened: opening a device may do something. */
static int open_linked(int folder, const char *part) {
  struct stat info;
  if (fstatat(folder, part, &info, 0) != 0 || !S_ISREG(info.st_mode)) return -1;
  return openat(folder, part, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
}

static sf_status open_inside(const char *folder, const char *name, sfi_links links, sfi_diag *diag, int *out_fd) {
  char part[NAME_LONGEST];
  int fd = open(folder[0] ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return fail_errno(diag, folder);
  for (const char *at = name;; at++) {
    const char *end = strchrnul(at, '/');
    size_t length = (size_t)(end - at);
    const char *why = NULL;
    if (length == 0)
      why = "the name is empty, absolute or has an empty part";
    else if (at[0] == '.' && (length == 1 || (length == 2 && at[1] == '.')))
      why = "\".\" and \"..\" are refused";
    else if (length >= sizeof part)
      why = "the name is too long";
    if (!why) {
      memcpy(part, at, length);
      part[length] = 0;
      int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | (*end ? O_DIRECTORY : O_NONBLOCK | O_NOCTTY);
      int next = openat(fd, part, flags);
      if (next < 0 && !*end && links == SFI_LINKS_LAST && is_link(fd, part)) next = open_linked(fd, part);
      if (next >= 0) {
        close(fd);
        fd = next;
        if (!*end) break;
        at = end;
        continue;
      }
      int reason = errno;
      if (is_link(fd, part))
        why = links == SFI_LINKS_LAST ? "symbolic links are refused, but for one to a regular file at the end"
                                      : "symbolic links are refused";
      errno = reason;
    }
    sf_status st = why ? fail_outside(diag, name, why) : fail_errno(diag, name);
    close(fd);
    return st;
  }
  *out_fd = fd;
  return SF_OK;
}

sf_status sfi_input_open(const char *folder, const char *name, sfi_links links, sfi_diag *diag, int *out_fd, size_t *out_bytes) {
  int fd = -1;
  if (folder) {
    sf_status st = open_inside(folder, name, links, diag, &fd);
    if (st != SF_OK) return st;
  } else if ((fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)) < 0) {
    return fail_errno(diag, name);
  }
  struct stat info;
  sfi_place place = {.file = name};
  sf_status st = SF_OK;
  if (fstat(fd, &info) != 0)
    st = fail_errno(diag, name);
  else if (!S_ISREG(info.st_mode))
    st = sfi_fail(diag, SF_STATUS_IO_ERROR, &place, NULL, "is not a regular file");
  if (st != SF_OK) {
    close(fd);
    return st;
  }
  *out_fd = fd;
  *out_bytes = (size_t)info.st_size;
  return SF_OK;
}

sf_status sfi_input_read(int fd, void *data, size_t bytes, const char *name, sfi_diag *diag) {
  const off_t at = lseek(fd, 0, SEEK_CUR);
  const sf_status st = at < 0 ? fail_errno(diag, name) : sfi_input_read_at(fd, (uint64_t)at, data, bytes, name, diag);
  if (st == SF_OK && lseek(fd, at + (off_t)bytes, SEEK_SET) < 0) return fail_errno(diag, name);
  return st;
}

sf_status sfi_input_read_at(int fd, uint64_t offset, void *data, size_t bytes, const char *name, sfi_diag *diag) {
  for (size_t done = 0; done < bytes;) {
    ssize_t got = pread(fd, (char *)data + done, bytes - done, (off_t)(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno(diag, name);
    if (got == 0) {
      sfi_place place = {.file = name};
      return sfi_fail(diag, SF_STATUS_MALFORMED_FILE, &place, NULL, "has become shorter while it was read");
    }
    done += (size_t)got;
  }
  return SF_OK;
}

sf_status sfi_input_stamp(int fd, const char *name, sfi_diag *diag, sfi_stamp *out_stamp) {
  struct stat info;
  struct timespec now;
  if (fstat(fd, &info) != 0 || clock_gettime(CLOCK_REALTIME, &now) != 0) return fail_errno(diag, name);
  *out_stamp =
      (sfi_stamp){info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec, now.tv_sec - info.st_mtim.tv_sec > COARSEST_SECONDS};
  return SF_OK;
}
