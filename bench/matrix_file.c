/* Matrices from files: .smtx, .mtx, .npy and tensors of .safetensors. Refuses what it cannot read with the place and the reason. */
#include "bench.h"
#include "npy.h"
#include "weights_file.h"

#include <math.h>
#include <stdlib.h>

enum { MAX_BYTES = INT32_MAX };

/* ---- text --------------------------------------------------------------------------------------------------------- */

typedef struct reader {
  const char *file, *at;
  int line;
  sf_error *error;
} reader;

static sf_status bad(const reader *r, const char *problem) {
  return tool_fail(r->error, SF_STATUS_PARSE_ERROR, r->file, r->line, 0, "%s", problem);
}

/* Blanks, commas and lines up to the next word. */
static void skip(reader *r) {
  for (; *r->at == ' ' || *r->at == '\t' || *r->at == ',' || *r->at == '\r' || *r->at == '\n'; r->at++) r->line += *r->at == '\n';
}

static bool integer(reader *r, int64_t max, int64_t *out) {
  skip(r);
  if (*r->at < '0' || *r->at > '9') return false;
  for (*out = 0; *r->at >= '0' && *r->at <= '9'; r->at++) {
    *out = *out * 10 + (*r->at - '0');
    if (*out > max) return false;
  }
  return true;
}

static bool number(reader *r, float *out) {
  skip(r);
  char *end;
  *out = strtof(r->at, &end);
  if (end == r->at) return false;
  r->at = end;
  return true;
}

static sf_status allocate(bench_matrix *m, int64_t rows, int64_t cols, sf_error *error) {
  m->rows = rows;
  m->cols = cols;
  m->kernel[0] = m->kernel[1] = 1;
  if (rows < 1 || cols < 1 || rows > MAX_BYTES / cols)
    return tool_fail(error, SF_STATUS_MALFORMED_FILE, m->name, 0, 0, "%lld x %lld: no matrix, or too large", (long long)rows,
                     (long long)cols);
  m->w = calloc((size_t)(rows * cols), sizeof *m->w);
  if (!m->w)
    return tool_fail(error, SF_STATUS_OUT_OF_MEMORY, m->name, 0, 0, "no memory for %lld x %lld", (long long)rows, (long long)cols);
  return SF_OK;
}

/* "rows, cols, nonzeros", row starts, column indices. */
static sf_status read_smtx(reader *r, const float *values, bench_matrix *m) {
  int64_t rows, cols, n, start = 0, k;
  if (!integer(r, MAX_BYTES, &rows) || !integer(r, MAX_BYTES, &cols) || !integer(r, MAX_BYTES, &n))
    return bad(r, "expected rows, columns and nonzeros");
  sf_status status = allocate(m, rows, cols, r->error);
  if (status != SF_OK) return status;
  int64_t *begin = malloc((size_t)(rows + 1) * sizeof *begin);
  if (!begin) return tool_fail(r->error, SF_STATUS_OUT_OF_MEMORY, r->file, 0, 0, "no memory for %lld rows", (long long)rows);
  for (int64_t i = 0; i <= rows && status == SF_OK; i++) {
    if (!integer(r, n, &begin[i]) || begin[i] < start || (i == rows && begin[i] != n) || (i == 0 && begin[i] != 0))
      status = bad(r, "expected the next start of a row");
    else
      start = begin[i];
  }
  for (int64_t i = 0; i < rows && status == SF_OK; i++) {
    for (int64_t e = begin[i]; e < begin[i + 1] && status == SF_OK; e++) {
      if (!integer(r, cols - 1, &k))
        status = bad(r, "expected the index of a column");
      else
        m->w[i * cols + k] = values[e % 4096];
    }
  }
  free(begin);
  return status;
}

static bool line_of(reader *r, char *line, size_t size) {
  const size_t length = strcspn(r->at, "\n");
  if (length >= size || !*r->at) return false;
  memcpy(line, r->at, length);
  line[length] = 0;
  r->at += length + (r->at[length] == '\n');
  r->line++;
  return true;
}

/* Matrix Market: coordinate or array, real, integer or pattern, general or symmetric. */
static sf_status read_mtx(reader *r, const float *values, bench_matrix *m) {
  char line[1024], form[32], field[32], symmetry[32];
  if (!line_of(r, line, sizeof line) || sscanf(line, "%%%%MatrixMarket matrix %31s %31s %31s", form, field, symmetry) != 3)
    return bad(r, "expected \"%%MatrixMarket matrix ...\"");
  const bool coordinate = strcmp(form, "coordinate") == 0, pattern = strcmp(field, "pattern") == 0;
  const bool symmetric = strcmp(symmetry, "symmetric") == 0;
  if ((!coordinate && strcmp(form, "array") != 0) || (!pattern && strcmp(field, "real") != 0 && strcmp(field, "integer") != 0) ||
      (!symmetric && strcmp(symmetry, "general") != 0) || (!coordinate && (symmetric || pattern)))
    return bad(r, "only coordinate real, integer or pattern, general or symmetric, and array real or integer general are read");
  while (*r->at == '%')
    if (!line_of(r, line, sizeof line)) return bad(r, "a comment of more than 1023 bytes");
  int64_t rows, cols, n = 0, i, j;
  if (!integer(r, MAX_BYTES, &rows) || !integer(r, MAX_BYTES, &cols) || (coordinate && !integer(r, MAX_BYTES, &n)))
    return bad(r, "expected rows, columns and, for coordinates, entries");
  sf_status status = allocate(m, rows, cols, r->error);
  if (status != SF_OK) return status;
  if (!coordinate) {
    for (int64_t e = 0; e < rows * cols; e++)
      if (!number(r, &m->w[e % rows * cols + e / rows])) return bad(r, "expected the next value");
    return SF_OK;
  }
  for (int64_t e = 0; e < n; e++) {
    float value = values[e % 4096];
    if (!integer(r, rows, &i) || !integer(r, cols, &j) || i < 1 || j < 1 || (!pattern && !number(r, &value)))
      return bad(r, "expected row, column and value");
    m->w[(i - 1) * cols + j - 1] = value;
    if (symmetric) {
      if (i > cols || j > rows) return bad(r, "a symmetric matrix is square");
      m->w[(j - 1) * cols + i - 1] = value;
    }
  }
  return SF_OK;
}

static sf_status read_text(const char *file, uint64_t seed, bool smtx, bench_matrix *m, sf_error *error) {
  char *text;
  size_t size;
  float values[4096]; /* of patterns */
  bench_normal(seed, values, 4096);
  sf_status status = tool_read_file(file, MAX_BYTES, &text, &size, error);
  if (status != SF_OK) return status;
  reader r = {file, text, 1, error};
  status = smtx ? read_smtx(&r, values, m) : read_mtx(&r, values, m);
  free(text);
  return status;
}

/* ---- tensors ------------------------------------------------------------------------------------------------------ */

/* [o, i] or [o, i, h, w] in fp32 or fp64. */
static sf_status take(const char *file, sf_dtype dtype, int32_t rank, const int64_t *dims, const void *data, bench_matrix *m,
                      sf_error *error) {
  if ((rank != 2 && rank != 4) || (dtype != SF_F32 && dtype != SF_F64))
    return tool_fail(error, SF_STATUS_UNSUPPORTED, file, 0, 0, "a matrix or 4-dimensional kernel of f32 or f64 is needed");
  const int64_t cols = rank == 2 ? dims[1] : dims[1] * dims[2] * dims[3];
  sf_status status = allocate(m, dims[0], cols, error);
  if (status != SF_OK) return status;
  if (rank == 4) memcpy(m->kernel, dims + 2, sizeof m->kernel);
  for (int64_t i = 0; i < m->rows * cols; i++) {
    double wide;
    if (dtype == SF_F32) {
      memcpy(&m->w[i], (const char *)data + i * 4, 4);
    } else {
      memcpy(&wide, (const char *)data + i * 8, 8);
      m->w[i] = (float)wide;
    }
  }
  return SF_OK;
}

static sf_status read_npy(const char *file, bench_matrix *m, sf_error *error) {
  sf_tensor tensor;
  sf_status status = npy_read(file, MAX_BYTES, &tensor, error);
  if (status != SF_OK) return status;
  status = take(file, tensor.dtype, tensor.rank, tensor.dims, tensor.data, m, error);
  free(tensor.data);
  return status;
}

static sf_status read_safetensors(const char *file, const char *tensor, bench_matrix *m, sf_error *error) {
  char *data;
  size_t size;
  sfi_diag diag = {0};
  sfi_mapping *mapping = NULL;
  sf_status status = tool_read_file(file, MAX_BYTES, &data, &size, error);
  if (status != SF_OK) return status;
  status = sfi_mapping_from_memory(&sfi_default_allocator, data, size, file, &diag, &mapping);
  if (status != SF_OK) {
    *error = diag.error;
  } else {
    const sfi_tensor_entry *entry = sfi_mapping_find(mapping, tensor);
    if (!entry || entry->unusable)
      status = tool_fail(error, SF_STATUS_INVALID_ARGUMENT, file, 0, 0, "tensor \"%s\": %s", tensor,
                         entry ? entry->unusable : "none such");
    else
      status = take(file, entry->dtype, entry->rank, entry->dims, entry->data, m, error);
  }
  sfi_mapping_release(mapping);
  free(data);
  return status;
}

static bool ends(const char *text, const char *tail) {
  const size_t n = strlen(text), t = strlen(tail);
  return n >= t && strcmp(text + n - t, tail) == 0;
}

sf_status bench_matrix_read(const char *file, uint64_t seed, bench_matrix *out, sf_error *error) {
  *out = (bench_matrix){0};
  const char *slash = strrchr(file, '/'), *colon = strstr(file, ".safetensors:");
  snprintf(out->name, sizeof out->name, "%s", slash ? slash + 1 : file);
  sf_status status;
  if (colon) {
    char path[4096];
    const size_t length = (size_t)(colon - file) + strlen(".safetensors");
    if (length >= sizeof path) return tool_fail(error, SF_STATUS_INVALID_ARGUMENT, NULL, 0, 0, "the path is too long");
    memcpy(path, file, length);
    path[length] = 0;
    status = read_safetensors(path, file + length + 1, out, error);
  } else if (ends(file, ".smtx") || ends(file, ".mtx")) {
    status = read_text(file, seed, ends(file, ".smtx"), out, error);
  } else if (ends(file, ".npy")) {
    status = read_npy(file, out, error);
  } else {
    status = tool_fail(error, SF_STATUS_INVALID_ARGUMENT, file, 0, 0, "neither .smtx, .mtx, .npy nor .safetensors:TENSOR");
  }
  if (status != SF_OK) {
    free(out->w);
    out->w = NULL;
    return status;
  }
  for (int64_t i = 0; i < out->rows * out->cols; i++) out->nnz += out->w[i] != 0;
  return SF_OK;
}
