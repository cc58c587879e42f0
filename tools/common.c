/* What the command-line tools share. Keeps no state. */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- errors ------------------------------------------------------------------------------------------------------- */

sf_status tool_fail(sf_error *error, sf_status status, const char *file, int line, int column, const char *format, ...) {
  *error = (sf_error){.status = status, .line = line, .column = column};
  if (file) snprintf(error->file, sizeof error->file, "%s", file);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(error->message, sizeof error->message, format, arguments);
  va_end(arguments);
  return status;
}

/* Does the message begin with the operation, or quote it? */
static bool names_itself(const sf_error *error) {
  size_t length = strlen(error->op);
  if (strncmp(error->message, error->op, length) == 0 && strchr(": ", error->message[length])) return true;
  for (const char *at = error->message; (at = strstr(at, error->op)); at++)
    if (at > error->message && strchr("'\"", at[-1]) && at[length] == at[-1]) return true;
  return false;
}

void tool_print_error(const char *program, const sf_error *error) {
  fprintf(stderr, "%s: ", program);
  if (error->file[0]) {
    fputs(error->file, stderr);
    if (error->line > 0) fprintf(stderr, ":%d", (int)error->line);
    if (error->line > 0 && error->column > 0) fprintf(stderr, ":%d", (int)error->column);
    fputs(": ", stderr);
  }
  if (error->op[0] && !names_itself(error)) fprintf(stderr, "%s: ", error->op);
  fprintf(stderr, "%s\n", error->message[0] ? error->message : sf_status_text(error->status));
}

/* ---- context ------------------------------------------------------------------------------------------------------ */

static void print_log(void *user, sf_log_level level, const char *line) {
  static const char *const names[] = {"error: ", "warning: ", "", ""};
  fprintf(stderr, "%s: %s%s\n", ((const tool_options *)user)->program, names[level], line);
}

sf_status tool_context_create(const tool_options *options, sf_context **out_context, sf_error *error) {
  sf_context_options o;
  SF_INIT(&o);
  o.log = print_log;
  o.log_user = (void *)options;
  o.log_level = options->verbose ? SF_LOG_INFO : SF_LOG_WARNING;
  o.threads = options->threads;
  o.isa = options->isa;
  o.cache_dir = options->cache_dir;
  o.cache_max_bytes = options->cache_max_bytes;
  o.tune = options->tune;
  o.calibrate = options->calibrate;
  sf_status status = sf_context_create(&o, out_context);
  if (status == SF_STATUS_UNSUPPORTED)
    return tool_fail(error, status, NULL, 0, 0, "this machine or this build cannot run target \"%s\"", tool_isa_name(options->isa));
  if (status != SF_OK) return tool_fail(error, status, NULL, 0, 0, "no context: %s", sf_status_text(status));
  return SF_OK;
}

/* ---- models ------------------------------------------------------------------------------------------------------- */

bool tool_has_ending(const char *path, const char *ending) {
  size_t length = strlen(path), tail = strlen(ending);
  return length >= tail && strcmp(path + length - tail, ending) == 0;
}

bool tool_dims_add(tool_dims *dims, const char *text) {
  const char *equals = strrchr(text, '=');
  if (!equals || equals == text || dims->count == TOOL_DIMS_MAX || equals - text >= (ptrdiff_t)sizeof *dims->names) return false;
  memcpy(dims->names[dims->count], text, (size_t)(equals - text));
  dims->names[dims->count][equals - text] = 0;
  return tool_parse_integer(equals + 1, 0, INT32_MAX, &dims->extents[dims->count]) && ++dims->count;
}

sf_status tool_graph_open(sf_context *context, const char *path, const tool_dims *dims, sf_onnx_report_fn report, void *user,
                          sf_graph **out_graph) {
  if (!tool_has_ending(path, ".onnx")) return sf_graph_parse_file(context, path, out_graph);
  sf_onnx_options options;
  sf_onnx_dim list[TOOL_DIMS_MAX];
  SF_INIT(&options);
  for (int32_t i = 0; i < dims->count; i++) list[i] = (sf_onnx_dim){dims->names[i], dims->extents[i]};
  options.dims = list;
  options.n_dims = dims->count;
  options.report = report;
  options.report_user = user;
  return sf_graph_from_onnx_file(context, path, &options, out_graph);
}

/* ---- words -------------------------------------------------------------------------------------------------------- */

static const struct {
  const char *name;
  sf_isa isa;
} isas[] = {{"native", SF_ISA_NATIVE},
            {"reference", SF_ISA_REFERENCE},
            {"avx2", SF_ISA_AVX2},
            {"avx512", SF_ISA_AVX512},
            {"neon", SF_ISA_NEON}};
const char tool_isa_names[] = "native, reference, avx2, avx512, neon";

bool tool_isa_named(const char *name, sf_isa *out_isa) {
  for (size_t i = 0; i < sizeof isas / sizeof *isas; i++)
    if (strcmp(isas[i].name, name) == 0) {
      *out_isa = isas[i].isa;
      return true;
    }
  return false;
}

const char *tool_isa_name(sf_isa isa) {
  for (size_t i = 0; i < sizeof isas / sizeof *isas; i++)
    if (isas[i].isa == isa) return isas[i].name;
  return "unknown";
}

bool tool_tune_named(const char *name, sf_tune *out_tune) {
  static const char *const names[] = {[SF_TUNE_OFF] = "off", [SF_TUNE_FAST] = "fast", [SF_TUNE_FULL] = "full"};
  for (int i = SF_TUNE_OFF; i <= SF_TUNE_FULL; i++)
    if (strcmp(names[i], name) == 0) {
      *out_tune = (sf_tune)i;
      return true;
    }
  return false;
}

bool tool_parse_integer(const char *text, int64_t min, int64_t max, int64_t *out) {
  /* strtoll alone would take leading blanks and a plus sign. */
  if (!(*text == '-' || (*text >= '0' && *text <= '9'))) return false;
  char *end;
  errno = 0;
  long long value = strtoll(text, &end, 10);
  if (errno || end == text || *end || value < min || value > max) return false;
  *out = value;
  return true;
}

float tool_select_kth(float *x, int64_t count, int64_t k) {
  for (int64_t low = 0, high = count - 1; low < high;) {
    float pivot = x[low + (high - low) / 2];
    int64_t i = low, j = high;
    while (i <= j) {
      while (x[i] < pivot) i++;
      while (x[j] > pivot) j--;
      if (i > j) break;
      float other = x[i];
      x[i++] = x[j];
      x[j--] = other;
    }
    if (k <= j)
      high = j;
    else if (k >= i)
      low = i;
    else
      break;
  }
  return x[k];
}

bool tool_parse_size(const char *text, uint64_t *out) {
  static const char units[] = "KMGT";
  size_t length = strlen(text);
  char digits[24];
  const char *unit = length && text[length - 1] ? strchr(units, text[length - 1]) : NULL;
  if (unit) length--;
  if (length >= sizeof digits) return false;
  memcpy(digits, text, length);
  digits[length] = 0;
  int64_t value;
  int shift = unit ? 10 * (int)(unit - units + 1) : 0;
  if (!tool_parse_integer(digits, 0, INT64_MAX >> shift, &value)) return false;
  *out = (uint64_t)value << shift;
  return true;
}

bool tool_classes_add(tool_classes *classes, const char *text) {
  int64_t above = classes->count ? classes->bounds[classes->count - 1] + 1 : 1, bound;
  if (classes->count == TOOL_CLASSES_MAX || !tool_parse_integer(text, above, INT32_MAX, &bound)) return false;
  classes->bounds[classes->count++] = bound;
  return true;
}

static bool add_class(void *user, const char *word) {
  return tool_classes_add(user, word);
}

bool tool_classes_parse(const char *text, tool_classes *out) {
  out->count = 0;
  return tool_each_word(text, add_class, out);
}

bool tool_each_word(const char *text, bool (*each)(void *user, const char *word), void *user) {
  for (;;) {
    size_t length = strcspn(text, ",");
    char word[64];
    if (length == 0 || length >= sizeof word) return false;
    memcpy(word, text, length);
    word[length] = 0;
    if (!each(user, word)) return false;
    if (!text[length]) return true;
    text += length + 1;
  }
}

/* ---- files -------------------------------------------------------------------------------------------------------- */

sf_status tool_read_file(const char *path, size_t max_bytes, char **out_data, size_t *out_size, sf_error *error) {
  *out_data = NULL;
  *out_size = 0;
  sf_status status = SF_OK;
  char *data = NULL;
  size_t size = 0, capacity = 0;
  int fd = strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    status = errno == ENOENT ? SF_STATUS_NOT_FOUND : SF_STATUS_IO_ERROR;
    return tool_fail(error, status, path, 0, 0, "cannot open: %s", strerror(errno));
  }
  /* The size of a regular file saves growing; it is a hint only, the loop trusts what it reads. */
  struct stat info;
  if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_size > 0 && (uint64_t)info.st_size <= max_bytes)
    capacity = (size_t)info.st_size + 2;
  else
    capacity = 65536;
  for (;;) {
    if (!data || size + 1 >= capacity) {
      if (data) capacity *= 2;
      char *grown = realloc(data, capacity);
      if (!grown) {
        status = tool_fail(error, SF_STATUS_OUT_OF_MEMORY, path, 0, 0, "out of memory");
        break;
      }
      data = grown;
    }
    ssize_t n = read(fd, data + size, capacity - size - 1);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      status = tool_fail(error, SF_STATUS_IO_ERROR, path, 0, 0, "cannot read: %s", strerror(errno));
      break;
    }
    if (n == 0) break;
    size += (size_t)n;
    if (size > max_bytes) {
      status = tool_fail(error, SF_STATUS_MALFORMED_FILE, path, 0, 0, "longer than %zu bytes", max_bytes);
      break;
    }
  }
  if (fd != STDIN_FILENO) close(fd);
  if (status != SF_OK) {
    free(data);
    return status;
  }
  data[size] = 0;
  *out_data = data;
  *out_size = size;
  return SF_OK;
}

void tool_json_string(FILE *out, const char *text) {
  putc('"', out);
  for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
    if (*c == '"' || *c == '\\')
      fprintf(out, "\\%c", *c);
    else if (*c < 0x20 || *c == '<') /* so that it may stand in a page */
      fprintf(out, "\\u%04x", *c);
    else
      putc(*c, out);
  }
  putc('"', out);
}
