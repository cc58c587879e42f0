/* .npy reader and writer. The head of a file is a Python literal, {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }: read
 * by a cursor that never passes its end, keys in any order, either quote, any spacing, as NumPy itself accepts. */
#include "npy.h"

#include <errno.h>
#include <stdlib.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "elements are copied as they stand in the file");

static const struct {
  const char *descr; /* without the byte order */
  sf_dtype dtype;
  size_t bytes;
} types[] = {{"f4", SF_F32, 4}, {"f8", SF_F64, 8}, {"i8", SF_I64, 8}, {"u1", SF_U8, 1}};
enum { N_TYPES = sizeof types / sizeof *types, NO_TYPE = N_TYPES };

static size_t type_of(sf_dtype dtype) {
  size_t i = 0;
  while (i < N_TYPES && types[i].dtype != dtype) i++;
  return i;
}

bool npy_bytes(const sf_tensor *tensor, size_t *out_bytes) {
  size_t type = type_of(tensor->dtype);
  if (type == NO_TYPE) return false;
  size_t bytes = types[type].bytes;
  bool empty = false;
  for (int32_t i = 0; i < tensor->rank; i++) {
    if (tensor->dims[i] < 0) return false;
    if (tensor->dims[i] == 0) empty = true;
    /* An overflow is refused even where another extent is zero: no later product of these extents can then surprise. */
    else if (__builtin_mul_overflow(bytes, (size_t)tensor->dims[i], &bytes))
      return false;
  }
  *out_bytes = empty ? 0 : bytes;
  return true;
}

/* ---- reading ------------------------------------------------------------------------------------------------------ */

typedef struct cursor {
  const char *at, *end;
} cursor;

static bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void skip_spaces(cursor *c) {
  while (c->at < c->end && is_space(*c->at)) c->at++;
}

/* Eats `token` after spaces. */
static bool eat(cursor *c, const char *token) {
  skip_spaces(c);
  size_t length = strlen(token);
  if ((size_t)(c->end - c->at) < length || memcmp(c->at, token, length) != 0) return false;
  c->at += length;
  return true;
}

/* A string without escapes of at most 31 bytes. */
static bool eat_string(cursor *c, char out[32]) {
  skip_spaces(c);
  if (c->at == c->end || (*c->at != '\'' && *c->at != '"')) return false;
  char quote = *c->at++;
  size_t length = 0;
  while (c->at < c->end && *c->at != quote) {
    if (length == 31 || *c->at == '\\' || *c->at == '\0') return false;
    out[length++] = *c->at++;
  }
  if (c->at == c->end) return false;
  c->at++;
  out[length] = 0;
  return true;
}

static bool eat_extent(cursor *c, int64_t *out) {
  skip_spaces(c);
  int64_t value = 0;
  const char *first = c->at;
  for (; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++)
    if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, *c->at - '0', &value)) return false;
  if (c->at == first) return false;
  eat(c, "L"); /* written by Python 2 */
  *out = value;
  return true;
}

/* (), (3,), (3, 4), (3, 4,). Sets *out_too_many instead of writing past SF_MAX_RANK. */
static bool eat_shape(cursor *c, sf_tensor *tensor, bool *out_too_many) {
  if (!eat(c, "(")) return false;
  while (!eat(c, ")")) {
    int64_t extent;
    if (!eat_extent(c, &extent)) return false;
    bool comma = eat(c, ",");
    if (!comma && (tensor->rank == 0 || c->at == c->end || *c->at != ')')) return false; /* (3) is no tuple */
    if (tensor->rank == SF_MAX_RANK) {
      *out_too_many = true;
      return false;
    }
    tensor->dims[tensor->rank++] = extent;
  }
  return true;
}

static sf_status read_descr(const char *descr, const char *name, sf_tensor *tensor, sf_error *error) {
  size_t type = 0;
  while (type < N_TYPES && (descr[0] == 0 || strcmp(types[type].descr, descr + 1) != 0)) type++;
  if (type == NO_TYPE || !strchr("<>|=", descr[0]))
    return tool_fail(error, SF_STATUS_UNSUPPORTED, name, 0, 0, "element type \"%s\" is not one of <f4, <f8, <i8, |u1", descr);
  if (descr[0] == '>' && types[type].bytes > 1)
    return tool_fail(error, SF_STATUS_UNSUPPORTED, name, 0, 0, "big-endian elements (\"%s\")", descr);
  tensor->dtype = types[type].dtype;
  return SF_OK;
}

/* The literal between `c->at` and `c->end`. */
static sf_status read_head(cursor *c, const char *name, sf_tensor *tensor, sf_error *error) {
  enum { DESCR = 1, ORDER = 2, SHAPE = 4, ALL = 7 };
  int seen = 0;
  if (!eat(c, "{")) goto malformed;
  while (!eat(c, "}")) {
    char key[32], descr[32];
    if (!eat_string(c, key) || !eat(c, ":")) goto malformed;
    int field = strcmp(key, "descr") == 0           ? DESCR
                : strcmp(key, "fortran_order") == 0 ? ORDER
                : strcmp(key, "shape") == 0         ? SHAPE
                                                    : 0;
    if (field == 0) return tool_fail(error, SF_STATUS_MALFORMED_FILE, name, 0, 0, "unknown key \"%s\" in the header", key);
    if (seen & field) return tool_fail(error, SF_STATUS_MALFORMED_FILE, name, 0, 0, "key \"%s\" twice in the header", key);
    seen |= field;
    if (field == DESCR) {
      if (eat(c, "[")) return tool_fail(error, SF_STATUS_UNSUPPORTED, name, 0, 0, "structured elements");
      if (!eat_string(c, descr)) goto malformed;
      sf_status status = read_descr(descr, name, tensor, error);
      if (status != SF_OK) return status;
    } else if (field == ORDER) {
      if (eat(c, "True"))
        return tool_fail(error, SF_STATUS_UNSUPPORTED, name, 0, 0, "Fortran order: save it with np.ascontiguousarray");
      if (!eat(c, "False")) goto malformed;
    } else {
      bool too_many = false;
      if (!eat_shape(c, tensor, &too_many)) {
        if (too_many) return tool_fail(error, SF_STATUS_UNSUPPORTED, name, 0, 0, "more than %d dimensions", SF_MAX_RANK);
        goto malformed;
      }
    }
    if (!eat(c, ",") && !(c->at < c->end && *c->at == '}')) goto malformed;
  }
  skip_spaces(c);
  if (c->at != c->end || seen != ALL) goto malformed;
  return SF_OK;
malformed:
  return tool_fail(error, SF_STATUS_MALFORMED_FILE, name, 0, 0, "malformed .npy header");
}

sf_status npy_parse(const void *bytes, size_t size, const char *name, sf_tensor *out_tensor, size_t *out_offset, sf_error *error) {
  *out_tensor = (sf_tensor){0};
  *out_offset = 0;
  const uint8_t *b = bytes;
  if (size < 10 || memcmp(b, "\x93NUMPY", 6) != 0)
    return tool_fail(error, SF_STATUS_MALFORMED_FILE, name, 0, 0, "not a .npy file, or truncated");
  if (b[6] < 1 || b[6] > 3 || b[7] != 0)
    return tool_fail(error, SF_STATUS_UNSUPPORTED, name, 0, 0, ".npy version %d.%d; 1.0 to 3.0 are known", b[6], b[7]);
  size_t start = b[6] == 1 ? 10 : 12;
  if (size < start) return tool_fail(error, SF_STATUS_MALFORMED_FILE, name, 0, 0, "truncated header");
  size_t length = (size_t)b[8] | (size_t)b[9] << 8;
  if (b[6] > 1) length |= (size_t)b[10] << 16 | (size_t)b[11] << 24;
  if (length > size - start) return tool_fail(error, SF_STATUS_MALFORMED_FILE, name, 0, 0, "truncated header");
  cursor c = {(const char *)b + start, (const char *)b + start + length};
  sf_tensor tensor = {0};
  sf_status status = read_head(&c, name, &tensor, error);
  if (status != SF_OK) return status;
  size_t need, have = size - start - length;
  if (!npy_bytes(&tensor, &need)) return tool_fail(error, SF_STATUS_MALFORMED_FILE, name, 0, 0, "the shape overflows");
  if (have != need)
    return tool_fail(error, SF_STATUS_MALFORMED_FILE, name, 0, 0, "the shape asks for %zu bytes of elements, the file has %zu",
                     need, have);
  *out_tensor = tensor;
  *out_offset = start + length;
  return SF_OK;
}

sf_status npy_read(const char *path, size_t max_bytes, sf_tensor *out_tensor, sf_error *error) {
  *out_tensor = (sf_tensor){0};
  char *data;
  size_t size, offset;
  sf_status status = tool_read_file(path, max_bytes, &data, &size, error);
  if (status != SF_OK) return status;
  sf_tensor tensor;
  if ((status = npy_parse(data, size, path, &tensor, &offset, error)) != SF_OK) {
    free(data);
    return status;
  }
  /* To the front, where malloc aligned it. */
  memmove(data, data + offset, size - offset);
  tensor.data = data;
  *out_tensor = tensor;
  return SF_OK;
}

/* ---- writing ------------------------------------------------------------------------------------------------------ */

sf_status npy_write(const char *path, const sf_tensor *tensor, sf_error *error) {
  size_t type = type_of(tensor->dtype), bytes;
  if (tensor->rank < 0 || tensor->rank > SF_MAX_RANK || !npy_bytes(tensor, &bytes))
    return tool_fail(error, SF_STATUS_UNSUPPORTED, path, 0, 0, "no .npy file can hold this tensor: f32, f64, i64 and u8 only");
  /* Six extents of at most 19 digits: 256 bytes always suffice. The whole head is a multiple of 64. */
  char head[256] = "\x93NUMPY\x01";
  int used = 10 + snprintf(head + 10, sizeof head - 10, "{'descr': '%c%s', 'fortran_order': False, 'shape': (",
                           types[type].bytes == 1 ? '|' : '<', types[type].descr);
  for (int32_t i = 0; i < tensor->rank; i++)
    used += snprintf(head + used, sizeof head - (size_t)used, "%s%lld%s", i ? ", " : "", (long long)tensor->dims[i],
                     tensor->rank == 1 ? "," : "");
  used += snprintf(head + used, sizeof head - (size_t)used, "), }");
  int length = (used + 1 + 63) / 64 * 64;
  memset(head + used, ' ', (size_t)(length - used));
  head[length - 1] = '\n';
  head[8] = (char)((length - 10) & 0xff);
  head[9] = (char)((length - 10) >> 8);

  FILE *file = fopen(path, "wb");
  if (!file) return tool_fail(error, SF_STATUS_IO_ERROR, path, 0, 0, "cannot create: %s", strerror(errno));
  bool good =
      fwrite(head, 1, (size_t)length, file) == (size_t)length && (bytes == 0 || fwrite(tensor->data, 1, bytes, file) == bytes);
  if (fclose(file) != 0 || !good) return tool_fail(error, SF_STATUS_IO_ERROR, path, 0, 0, "cannot write: %s", strerror(errno));
  return SF_OK;
}
