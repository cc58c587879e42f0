/* safetensors: a bounded reader. Format: 8 bytes little-endian header length, JSON header, data
 * (https://github.com/huggingface/safetensors, format section). */
#ifndef SFI_WEIGHTS_FILE_H
#define SFI_WEIGHTS_FILE_H

#include "base.h"

typedef struct sfi_tensor_entry {
  const char *name;
  const char
      *unusable; /* NULL, or why it cannot be a weight: an unknown dtype, too many dimensions; dtype, rank, dims are 0 then */
  sf_dtype dtype;
  int32_t rank;
  int64_t dims[SF_MAX_RANK];
  size_t bytes;
  /* One of the two: the bytes, or, where they are many, what reads them when they are needed. */
  const void *data;
  struct sfi_source *source;
} sfi_tensor_entry;

/* From this size on, bytes of a file are read when they are needed. */
enum { SFI_SOURCE_LEAST = 64 << 10 };

/* An open weight file: the table of its tensors, and the file as long as bytes may be read from it. Reference counted by the graphs that use it. */
typedef struct sfi_mapping sfi_mapping;

/* Opens `folder`/`name`. The name must stay inside the folder, as sfi_input_open says; the file itself may be a link. Refuses a header that is
 * truncated, overlaps, leaves the file, overflows, repeats a name, nests, or is not the JSON that the format asks for; a tensor
 * of an unknown dtype or of too many dimensions is listed as unusable. `allocator` outlives the mapping. */
sf_status sfi_mapping_open(const sf_allocator *allocator, const char *folder, const char *name, sfi_diag *diag,
                           sfi_mapping **out_mapping);
/* The same on bytes in memory, borrowed. `name` for messages. */
sf_status sfi_mapping_from_memory(const sf_allocator *allocator, const void *data, size_t size, const char *name, sfi_diag *diag,
                                  sfi_mapping **out_mapping);
void sfi_mapping_retain(sfi_mapping *mapping);
void sfi_mapping_release(sfi_mapping *mapping);
size_t sfi_mapping_count(const sfi_mapping *mapping);
const sfi_tensor_entry *sfi_mapping_at(const sfi_mapping *mapping, size_t i);
/* NULL where there is no such tensor. */
const sfi_tensor_entry *sfi_mapping_find(const sfi_mapping *mapping, const char *name);

#endif
