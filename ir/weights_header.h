/* The JSON header of a safetensors file:
 *   {"__metadata__": {"any": "text", ...}, "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...} */
#ifndef SFI_WEIGHTS_HEADER_H
#define SFI_WEIGHTS_HEADER_H

#include "weights_file.h"

/* A tensor as the header describes it; entry.data is not set yet. */
typedef struct sfi_tensor_record {
  sfi_tensor_entry entry;
  int64_t begin, end; /* in bytes from the start of the data; begin <= end, and end - begin is what dtype and shape say */
} sfi_tensor_record;

/* Reads the header's `length` bytes. Names go into the arena; *out_records is allocated with its allocator, for sfi_free with
 * *out_capacity records, also on errors. `file` is for messages. Names may repeat, ranges may overlap or leave the file. */
sf_status sfi_weights_header_read(sfi_arena *arena, const char *json, size_t length, const char *file, sfi_diag *diag,
                                  sfi_tensor_record **out_records, size_t *out_count, size_t *out_capacity);

#endif
