/* What the command-line tools share: options of the library's context, numbers on the command line, files, errors, exit codes.
 * Tools are clients of the public API; memory is malloc's and ends with free(). Errors travel as sf_error, as in the library. */
#ifndef TOOL_COMMON_H
#define TOOL_COMMON_H

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <sparseflow/sparseflow.h>

/* Exit codes, the same for every tool. */
enum {
  TOOL_OK = 0,
  TOOL_FAILED = 1,        /* a model, a file or the cache failed; the message says what */
  TOOL_USAGE = 2,         /* the command line or the manifest is wrong */
  TOOL_WOULD_COMPILE = 3, /* sf-warm --check: something is not in the cache */
};

/* ---- errors ------------------------------------------------------------------------------------------------------- */

/* Fills *error and returns `status`. file NULL: none; line and column 0: none. */
sf_status tool_fail(sf_error *error, sf_status status, const char *file, int line, int column, const char *format, ...)
    __attribute__((format(printf, 6, 7)));
/* "PROGRAM: FILE:LINE:COLUMN: OP: MESSAGE" on stderr, without the parts that are not known, and without OP where the message names
 * it. */
void tool_print_error(const char *program, const sf_error *error);

/* ---- context ------------------------------------------------------------------------------------------------------ */

/* Extents of an ONNX model's named dimensions. */
enum { TOOL_DIMS_MAX = 16 };
typedef struct tool_dims {
  int32_t count;
  char names[TOOL_DIMS_MAX][128];
  int64_t extents[TOOL_DIMS_MAX];
} tool_dims;

/* Options that every tool takes. The zero value is all defaults. */
typedef struct tool_options {
  const char *program;   /* for messages */
  const char *cache_dir; /* NULL: the library's default */
  uint64_t cache_max_bytes;
  int32_t threads;
  sf_isa isa;
  sf_tune tune;
  bool calibrate; /* predict by rates measured on this machine */
  bool verbose;   /* show the library's log down to information */
  tool_dims dims;
} tool_options;
/* The library's warnings go to stderr; `options` must outlive the context. */
sf_status tool_context_create(const tool_options *options, sf_context **out_context, sf_error *error);

/* ---- models ------------------------------------------------------------------------------------------------------- */

/* "sequence=128"; false where it is nothing like that, or there is no more room. */
bool tool_dims_add(tool_dims *dims, const char *text);
/* Opens a model: ONNX where the name ends in .onnx, else the text form. report NULL: none; else as in sf_onnx_options. */
sf_status tool_graph_open(sf_context *context, const char *path, const tool_dims *dims, sf_onnx_report_fn report, void *user,
                          sf_graph **out_graph);
/* Does the name end like that? */
bool tool_has_ending(const char *path, const char *ending);

/* ---- words -------------------------------------------------------------------------------------------------------- */

/* "native", "avx512", ... */
bool tool_isa_named(const char *name, sf_isa *out_isa);
const char *tool_isa_name(sf_isa isa);
/* The names, for messages: "native, reference, avx2, avx512, neon". */
extern const char tool_isa_names[];

/* "off", "fast" or "full". */
bool tool_tune_named(const char *name, sf_tune *out_tune);

/* The k-th smallest, from 0, of `count` numbers that are not NaN, which it reorders. */
float tool_select_kth(float *x, int64_t count, int64_t k);

/* A whole decimal number in [min, max] and nothing else. */
bool tool_parse_integer(const char *text, int64_t min, int64_t max, int64_t *out);
/* Bytes: a number with an optional K, M, G or T (powers of 1024): "256M". */
bool tool_parse_size(const char *text, uint64_t *out);

/* Upper bounds of the classes of the symbolic dimension. count 0: the library's default. */
enum { TOOL_CLASSES_MAX = 16 };
typedef struct tool_classes {
  int32_t count;
  int64_t bounds[TOOL_CLASSES_MAX];
} tool_classes;
/* Adds one bound; false unless it is 1 or more, larger than the last, and there is room. */
bool tool_classes_add(tool_classes *classes, const char *text);
/* "1,16,64" */
bool tool_classes_parse(const char *text, tool_classes *out);

/* Calls each(user, word) for the comma-separated words of `text`, which may not be empty. False: a word is empty or longer than 63
 * bytes, or `each` returned false. */
bool tool_each_word(const char *text, bool (*each)(void *user, const char *word), void *user);

/* ---- files -------------------------------------------------------------------------------------------------------- */

/* Reads a file, pipe or, for "-", standard input, whole, and appends a zero byte that is not counted. More than `max_bytes` is
 * refused. *out_data ends with free(). */
sf_status tool_read_file(const char *path, size_t max_bytes, char **out_data, size_t *out_size, sf_error *error);
/* `text` as a JSON string with its quotes; bytes that are not ASCII pass as they are. */
void tool_json_string(FILE *out, const char *text);

#endif
