/* Static values: tensors of the file, and views and lists made of them. Their elements are in the graph's arena, so that they may become
 * weights without another copy. */
#include "onnx_import.h"

#include "element.h"
#include "input_file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { EXTERNAL_TIMES = 4 }; /* how often the bytes of another file may be read */

/* ---- elements ----------------------------------------------------------------------------------------------------- */

double sfi_onnx_real(const onnx_value *v, int64_t i) {
  return v->floats ? (double)v->floats[i] : v->ints ? (double)v->ints[i] : (double)v->polys[i].c[0];
}

sfi_poly sfi_onnx_integer(const onnx_value *v, int64_t i) {
  return v->polys ? v->polys[i] : sfi_const(v->ints[i]);
}

bool sfi_onnx_whole(const onnx_value *v) {
  for (int32_t i = 0; i < v->shape.rank; i++) {
    if (!sfi_is(v->shape.dims[i], v->dims[i])) return false;
  }
  return true;
}

int64_t sfi_onnx_strides(const onnx_value *v, int64_t *out) {
  int64_t stride = 1;
  for (int32_t i = v->shape.rank; i-- > 0;) {
    out[i] = stride;
    stride *= v->dims[i];
  }
  return stride;
}

bool sfi_onnx_count(importer *im, int32_t rank, const int64_t *dims, int64_t *out) {
  *out = 1;
  for (int32_t i = 0; i < rank; i++) {
    if (dims[i] < 0) return INVALID(im, "extent %lld", (long long)dims[i]);
    if (!sfi_mul(*out, dims[i], out) || *out > ONNX_FOLD_MAX) {
      return UNSUPPORTED(im, "more than %d elements would be made at import", ONNX_FOLD_MAX);
    }
  }
  return true;
}

static void set_dims(onnx_value *out, onnx_type type, int32_t rank, const int64_t *dims, int64_t count) {
  const char *name = out->name;
  *out = (onnx_value){.name = name, .kind = VALUE_STATIC, .type = type, .value = SF_NO_VALUE, .count = count, .shape.rank = rank};
  for (int32_t i = 0; i < rank; i++) {
    out->dims[i] = dims[i];
    out->shape.dims[i] = sfi_const(dims[i]);
  }
}

void sfi_onnx_set_floats(onnx_value *out, int32_t rank, const int64_t *dims, int64_t count, const float *floats) {
  set_dims(out, ONNX_FLOAT, rank, dims, count);
  out->floats = floats;
}

void sfi_onnx_set_ints(onnx_value *out, onnx_type type, int32_t rank, const int64_t *dims, int64_t count, const int64_t *ints) {
  set_dims(out, type, rank, dims, count);
  out->ints = ints;
}

bool sfi_onnx_set_polys(importer *im, onnx_value *out, onnx_type type, int32_t rank, const int64_t *dims, int64_t count,
                        const sfi_poly *polys) {
  bool plain = true;
  for (int64_t i = 0; i < count; i++) plain &= sfi_is_const(polys[i]);
  if (!plain) {
    set_dims(out, type, rank, dims, count);
    out->polys = polys;
    return true;
  }
  int64_t *ints = sfi_arena_alloc(&im->graph->arena, (size_t)count * sizeof *ints);
  if (!ints) return sfi_onnx_fail_memory(im);
  for (int64_t i = 0; i < count; i++) ints[i] = polys[i].c[0];
  sfi_onnx_set_ints(out, type, rank, dims, count, ints);
  return true;
}

bool sfi_onnx_view(importer *im, const onnx_value *v, int32_t rank, const int64_t *dims, int64_t offset, const int64_t *steps,
                   onnx_value *out) {
  size_t size = v->floats ? sizeof *v->floats : v->ints ? sizeof *v->ints : sizeof *v->polys;
  const char *from = v->floats ? (const char *)v->floats : v->ints ? (const char *)v->ints : (const char *)v->polys;
  int64_t count = 1, index[SF_MAX_RANK] = {0}, at = offset;
  for (int32_t i = 0; i < rank; i++) {
    if (!sfi_mul(count, dims[i], &count)) count = INT64_MAX;
  }
  if (count > ONNX_FOLD_MAX && count > v->count) { /* a weight may be turned round, whatever its size; making more needs a bound */
    return UNSUPPORTED(im, "more than %d elements would be made at import", ONNX_FOLD_MAX);
  }
  char *to = sfi_arena_alloc(&im->graph->arena, (size_t)count * size);
  if (!to) return sfi_onnx_fail_memory(im);
  for (int64_t n = 0; n < count; n++) {
    memcpy(to + (size_t)n * size, from + at * (int64_t)size, size);
    for (int32_t i = rank; i-- > 0;) {
      at += steps[i];
      if (++index[i] < dims[i]) break;
      at -= steps[i] * dims[i];
      index[i] = 0;
    }
  }
  if (v->polys) return sfi_onnx_set_polys(im, out, v->type, rank, dims, count, (const sfi_poly *)(void *)to);
  if (v->floats)
    sfi_onnx_set_floats(out, rank, dims, count, (const float *)(void *)to);
  else
    sfi_onnx_set_ints(out, v->type, rank, dims, count, (const int64_t *)(void *)to);
  return true;
}

/* ---- tensors ------------------------------------------------------------------------------------------------------ */

static size_t size_of(int32_t type) {
  switch (type) {
  case ONNX_UINT8:
  case ONNX_INT8:
  case ONNX_BOOL:
    return 1;
  case ONNX_UINT16:
  case ONNX_INT16:
  case ONNX_FLOAT16:
  case ONNX_BFLOAT16:
    return 2;
  case ONNX_FLOAT:
  case ONNX_INT32:
  case ONNX_UINT32:
    return 4;
  case ONNX_INT64:
  case ONNX_UINT64:
  case ONNX_DOUBLE:
    return 8;
  default:
    return 0;
  }
}

static bool read_number(const char *text, int64_t *out) {
  char *end;
  *out = strtoll(text, &end, 10);
  return text[0] >= '0' && text[0] <= '9' && !*end && *out < INT64_MAX;
}

/* Tensors may share bytes of other files, but not so many of them that small files fill the memory: each file's size counts once. */
static bool count_external(importer *im, const char *location, size_t size) {
  onnx_list *files = &im->external_files;
  for (size_t i = 0; i < files->count; i++) {
    if (strcmp(ONNX_AT(*files, const char *, i), location) == 0) return true;
  }
  if (files->count == files->capacity) {
    size_t capacity = files->capacity * 2 + 4;
    const char **items = sfi_arena_alloc(&im->arena, capacity * sizeof *items);
    if (!items) return false;
    if (files->count) memcpy(items, files->items, files->count * sizeof *items);
    *files = (onnx_list){items, files->count, capacity};
  }
  ONNX_AT(*files, const char *, files->count++) = location;
  im->external_size += size;
  return true;
}

/* The elements in another file, inside the model's folder: read into the importer's arena. */
static bool read_external(importer *im, const onnx_tensor *tensor, int64_t bytes, onnx_bytes *out) {
  const char *location = NULL;
  int64_t offset = 0, length = bytes;
  for (size_t i = 0; i < tensor->entries.count; i++) {
    const onnx_entry *entry = &ONNX_AT(tensor->entries, onnx_entry, i);
    bool good = true;
    if (strcmp(entry->key, "location") == 0)
      location = entry->value;
    else if (strcmp(entry->key, "offset") == 0)
      good = read_number(entry->value, &offset);
    else if (strcmp(entry->key, "length") == 0)
      good = read_number(entry->value, &length);
    if (!good)
      return sfi_onnx_fail(im, SF_STATUS_MALFORMED_FILE, "tensor \"%s\": its external %s is no number", tensor->name, entry->key);
  }
  if (!location) return sfi_onnx_fail(im, SF_STATUS_MALFORMED_FILE, "tensor \"%s\": its external file has no name", tensor->name);
  if (!im->folder) {
    return sfi_onnx_fail(im, SF_STATUS_NOT_FOUND, "tensor \"%s\": a model in memory has no external data", tensor->name);
  }
  if (length != bytes) {
    return sfi_onnx_fail(im, SF_STATUS_MALFORMED_FILE, "tensor \"%s\": %lld external bytes, but type and shape ask for %lld",
                         tensor->name, (long long)length, (long long)bytes);
  }
  if (strncmp(location, "./", 2) == 0) location += 2;
  int fd;
  size_t size;
  sfi_diag why = {0};
  if (sfi_input_open(im->folder, location, SFI_LINKS_REFUSED, &why, &fd, &size) != SF_OK)
    return sfi_onnx_fail(im, why.error.status, "tensor \"%.100s\": external \"%.100s\": %s", tensor->name, location,
                         why.error.message);
  uint8_t *data = NULL;
  if (!count_external(im, location, size)) {
    sfi_onnx_fail_memory(im);
  } else if ((uint64_t)offset > size || (uint64_t)bytes > size - (uint64_t)offset) {
    sfi_onnx_fail(im, SF_STATUS_MALFORMED_FILE, "tensor \"%s\": its bytes leave the %zu of \"%s\"", tensor->name, size, location);
  } else if ((im->external_bytes += (uint64_t)bytes) / EXTERNAL_TIMES > im->external_size) {
    sfi_onnx_fail(im, SF_STATUS_MALFORMED_FILE, "tensor \"%s\": more than %d times what the external files hold would be read",
                  tensor->name, EXTERNAL_TIMES);
  } else if (!(data = sfi_arena_alloc(&im->arena, (size_t)bytes))) {
    sfi_onnx_fail_memory(im);
  } else if (lseek(fd, (off_t)offset, SEEK_SET) != (off_t)offset) {
    sfi_onnx_fail(im, SF_STATUS_IO_ERROR, "tensor \"%s\": cannot seek in \"%s\"", tensor->name, location);
  } else {
    if (sfi_input_read(fd, data, (size_t)bytes, location, &why) != SF_OK)
      sfi_onnx_fail(im, why.error.status, "tensor \"%.100s\": external \"%.100s\": %s", tensor->name, location, why.error.message);
  }
  close(fd);
  *out = (onnx_bytes){data, (size_t)bytes};
  return im->diag.error.status == SF_OK;
}

static float float_of(int32_t type, const uint8_t *bytes) {
  double number;
  float single;
  uint16_t half;
  if (type == ONNX_FLOAT16 || type == ONNX_BFLOAT16) {
    memcpy(&half, bytes, sizeof half);
    return (float)sfi_half_value(type == ONNX_FLOAT16 ? SF_F16 : SF_BF16, half);
  }
  if (type == ONNX_DOUBLE) {
    memcpy(&number, bytes, sizeof number);
    return (float)number;
  }
  memcpy(&single, bytes, sizeof single);
  return single;
}

static int64_t int_of(int32_t type, const uint8_t *bytes) {
  size_t size = size_of(type);
  uint64_t bits = 0;
  memcpy(&bits, bytes, size);
  bool is_signed = type == ONNX_INT8 || type == ONNX_INT16 || type == ONNX_INT32;
  if (is_signed && size < 8 && bits >> (size * 8 - 1)) bits |= ~UINT64_C(0) << (size * 8);
  return type == ONNX_BOOL ? bits != 0 : (int64_t)bits;
}

/* Element i of the typed lists, which hold small types one to an entry; as the bytes that raw data would have. */
static void bytes_of_list(const onnx_tensor *tensor, size_t i, uint8_t out[8]) {
  if (tensor->type == ONNX_FLOAT)
    memcpy(out, &ONNX_AT(tensor->floats, float, i), sizeof(float));
  else if (tensor->type == ONNX_DOUBLE)
    memcpy(out, &ONNX_AT(tensor->doubles, double, i), sizeof(double));
  else
    memcpy(out, &ONNX_AT(tensor->ints, int64_t, i), sizeof(int64_t));
}

bool sfi_onnx_tensor(importer *im, const onnx_tensor *tensor, onnx_value *out) {
  int64_t dims[SF_MAX_RANK], count = 1, bytes;
  size_t size = size_of(tensor->type);
  int32_t rank = (int32_t)tensor->dims.count;
  if (!size) return UNSUPPORTED(im, "tensor \"%s\": elements of ONNX type %d", tensor->name, tensor->type);
  if (tensor->dims.count > SF_MAX_RANK) {
    return UNSUPPORTED(im, "tensor \"%s\": %zu dimensions are more than %d", tensor->name, tensor->dims.count, SF_MAX_RANK);
  }
  for (int32_t i = 0; i < rank; i++) {
    dims[i] = ONNX_AT(tensor->dims, int64_t, i);
    if (dims[i] < 0 || !sfi_mul(count, dims[i], &count)) {
      return sfi_onnx_fail(im, SF_STATUS_MALFORMED_FILE, "tensor \"%s\": its shape overflows", tensor->name);
    }
  }
  onnx_bytes raw = tensor->raw;
  if (!sfi_mul(count, (int64_t)size, &bytes) || bytes > INT64_MAX / 16) {
    return sfi_onnx_fail(im, SF_STATUS_MALFORMED_FILE, "tensor \"%s\": its shape overflows", tensor->name);
  }
  if (tensor->external && !read_external(im, tensor, bytes, &raw)) return false;
  bool floats = sfi_onnx_is_float((onnx_type)tensor->type);
  size_t listed = tensor->type == ONNX_FLOAT    ? tensor->floats.count
                  : tensor->type == ONNX_DOUBLE ? tensor->doubles.count
                                                : tensor->ints.count;
  bool in_list = !raw.data && !tensor->external;
  if (in_list ? listed != (size_t)count : raw.size != (size_t)bytes) {
    return sfi_onnx_fail(im, SF_STATUS_MALFORMED_FILE, "tensor \"%s\": %zu %s, but type and shape ask for %lld", tensor->name,
                         in_list ? listed : raw.size, in_list ? "elements" : "bytes", (long long)(in_list ? count : bytes));
  }
  void *data = sfi_arena_alloc(&im->graph->arena, (size_t)count * (floats ? sizeof(float) : sizeof(int64_t)));
  if (!data) return sfi_onnx_fail_memory(im);
  if (tensor->type == ONNX_FLOAT && !in_list) {
    memcpy(data, raw.data, raw.size);
  } else {
    for (int64_t i = 0; i < count; i++) {
      uint8_t element[8] = {0};
      if (in_list)
        bytes_of_list(tensor, (size_t)i, element);
      else
        memcpy(element, raw.data + (size_t)i * size, size);
      if (floats)
        ((float *)data)[i] = float_of(tensor->type, element);
      else
        ((int64_t *)data)[i] = int_of(tensor->type, element);
    }
  }
  if (floats)
    sfi_onnx_set_floats(out, rank, dims, count, data);
  else
    sfi_onnx_set_ints(out, (onnx_type)tensor->type, rank, dims, count, data);
  return true;
}
