/* NumPy's .npy files: a bounded reader and a writer.
 * Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
 * Read: versions 1.0 to 3.0; little-endian f4, f8, i8 and u1; C order; rank 0 to SF_MAX_RANK. Anything else is refused with a
 * message that says what it is. Tensors hold malloc's memory in `data`; end them with free(). */
#ifndef TOOL_NPY_H
#define TOOL_NPY_H

#include "common.h"

/* Reads the head of the `size` bytes of a whole file. *out_tensor gets dtype and shape, data NULL; the elements are the bytes from
 * *out_offset to the end. Refuses a file that is shorter or longer than its shape asks for. `name` is for messages. */
sf_status npy_parse(const void *bytes, size_t size, const char *name, sf_tensor *out_tensor, size_t *out_offset, sf_error *error);
/* Files above `max_bytes` are refused. */
sf_status npy_read(const char *path, size_t max_bytes, sf_tensor *out_tensor, sf_error *error);
/* Version 1.0, elements as they are. */
sf_status npy_write(const char *path, const sf_tensor *tensor, sf_error *error);
/* Bytes of the elements of `tensor`; false on overflow or a dtype that .npy files here do not have. */
bool npy_bytes(const sf_tensor *tensor, size_t *out_bytes);

#endif
