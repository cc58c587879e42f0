/* Files that the library reads whole: graphs and weights. Regular files only, so that no read can block. */
#ifndef SFI_INPUT_FILE_H
#define SFI_INPUT_FILE_H

#include "base.h"

typedef enum sfi_links { SFI_LINKS_REFUSED, SFI_LINKS_LAST } sfi_links;
/* Opens a file. folder NULL: `name` is any path. Else `name` must stay inside the folder: no absolute path, no empty, "." or ".." part,
 * and no part of it is a symbolic link; with SFI_LINKS_LAST the last may be one to a regular file anywhere. *out_fd is for close(). */
sf_status sfi_input_open(const char *folder, const char *name, sfi_links links, sfi_diag *diag, int *out_fd, size_t *out_bytes);
/* Exactly the next `bytes`; a shorter file is SF_STATUS_MALFORMED_FILE. */
sf_status sfi_input_read(int fd, void *data, size_t bytes, const char *name, sfi_diag *diag);
/* The same from `offset` on, for any number of threads at once. */
sf_status sfi_input_read_at(int fd, uint64_t offset, void *data, size_t bytes, const char *name, sfi_diag *diag);

/* Which state of a file this is: size and time of the last write. Renaming, linking and chmod leave it, so it has nothing of the inode's own time. */
typedef struct sfi_stamp {
  int64_t bytes, seconds, nanoseconds;
  bool settled; /* two states since then have two stamps: the last write was longer ago than file systems and clocks are coarse */
} sfi_stamp;
sf_status sfi_input_stamp(int fd, const char *name, sfi_diag *diag, sfi_stamp *out_stamp);
static inline bool sfi_stamp_equal(const sfi_stamp *a, const sfi_stamp *b) {
  return a->bytes == b->bytes && a->seconds == b->seconds && a->nanoseconds == b->nanoseconds;
}

#endif
