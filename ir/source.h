/* Static bytes that are read from their file, or made from what is, when they are needed: a large weight takes memory only while it is packed,
 * or as what a kernel reads itself, and where the cache knows what was packed it is digested in pieces and never held. */
#ifndef SFI_SOURCE_H
#define SFI_SOURCE_H

#include "input_file.h"

#include <pthread.h>

/* The indices that stay of each dimension of a dense tensor of fp32. */
typedef struct sfi_selection {
  int32_t rank;
  int64_t extent[SF_MAX_RANK];       /* of the whole */
  int64_t count[SF_MAX_RANK];        /* of what stays */
  const int32_t *index[SF_MAX_RANK]; /* what stays, ascending; NULL: all */
} sfi_selection;
/* Copies what stays. */
void sfi_select(const sfi_selection *selection, const float *from, float *to);

/* Thread-safe. The file may be unlinked or replaced meanwhile. It may not be written to: what is read after it was digested is compared
 * with its digest before anything is made from it, so that nothing is kept under the digest of other bytes; a difference is an error. */
typedef struct sfi_source {
  const sf_allocator *allocator;
  size_t bytes;
  /* Either a range of a file, */
  const char *file, *name; /* for messages */
  int fd;                  /* its owner's */
  uint64_t offset;
  sfi_stamp opened; /* the file, when it was */
  /* or parts. NULL: a range. */
  struct sfi_source *const *parts;
  int32_t n_parts;
  size_t
      turns; /* of each part its share of the first of `turns` pieces, then of the second; 0: there is one part, and a selection */
  sfi_selection selection;
  sfi_arena arena;         /* of what it is made with */
  struct sfi_source *next; /* of the same owner */
  pthread_mutex_t lock;    /* of what follows; held while it is read */
  int32_t users;
  void *data; /* 64-byte aligned; NULL without users */
  bool digested;
  sfi_digest digest; /* of the bytes, or of the parts' and their order */
} sfi_source;

bool sfi_source_init(sfi_source *source, const sf_allocator *allocator, const char *file, const char *name, int fd,
                     const sfi_stamp *opened, uint64_t offset, size_t bytes); /* false: out of memory */
void sfi_source_deinit(sfi_source *source);
/* Made of parts, which outlive it; `turns` divides the bytes of each. NULL: out of memory. */
sfi_source *sfi_source_join(const sf_allocator *allocator, sfi_source *const *parts, int32_t n_parts, size_t turns);
/* What stays of `whole`, a tensor of fp32 that outlives it. */
sfi_source *sfi_source_select(const sf_allocator *allocator, sfi_source *whole, const sfi_selection *selection);
void sfi_source_destroy(sfi_source *source); /* of these two */
/* The bytes, in memory until as many calls of close as of open. NULL: failed. */
const void *sfi_source_open(sfi_source *source, sfi_diag *diag);
void sfi_source_close(sfi_source *source);
/* A range of the bytes, into memory of the caller's, which a failure leaves with anything. Not compared with a digest, but a file that has been
 * written to since it was opened is an error. */
bool sfi_source_copy(sfi_source *source, size_t at, size_t bytes, void *to, sfi_diag *diag);
/* May ranges of it be copied at any later time, and be of the bytes that were there when it was opened, or fail? */
static inline bool sfi_source_keeps(const sfi_source *source) {
  return !source->parts && source->opened.settled;
}
/* Of a range what sfi_digest_of says of its bytes; read once. Equal bytes in other parts have another digest. */
bool sfi_source_digest(sfi_source *source, sfi_diag *diag, sfi_digest *out_digest);

#endif
