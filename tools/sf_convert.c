/* sf-convert: models between ONNX and the text form with safetensors. */
#include "common.h"

#include <getopt.h>
#include <stdlib.h>

static const char help_text[] =
    "usage: sf-convert [OPTIONS] FROM TO\n"
    "       sf-convert [OPTIONS] --list-unsupported FROM     all that keeps an ONNX model from being read\n"
    "       sf-convert --list-operators                      operators of ONNX that are read\n"
    "FROM and TO are ONNX models where their name ends in .onnx, else graphs in the text form, with weights beside them.\n"
    "options:\n"
    "  --dim NAME=N        extent of a named dimension of an ONNX model; may be given again. One may stay free.\n"
    "  -v, --verbose       the library's log\n"
    "  --help, --version\n"
    "Exit: 0 done, 1 failed, 2 wrong usage.\n";

typedef struct arguments {
  tool_options options;
  bool list_unsupported, list_operators;
} arguments;

static int wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int wrong(const char *format, ...) {
  va_list list;
  va_start(list, format);
  fputs("sf-convert: ", stderr);
  vfprintf(stderr, format, list);
  fputs("; see sf-convert --help\n", stderr);
  va_end(list);
  return TOOL_USAGE;
}

/* TOOL_OK, or the exit code with *done set. */
static int read_options(int argc, char **argv, arguments *a, bool *done) {
  enum { DIM = 256, UNSUPPORTED, OPERATORS, HELP, VERSION };
  static const struct option longs[] = {{"dim", 1, NULL, DIM},
                                        {"list-unsupported", 0, NULL, UNSUPPORTED},
                                        {"list-operators", 0, NULL, OPERATORS},
                                        {"verbose", 0, NULL, 'v'},
                                        {"help", 0, NULL, HELP},
                                        {"version", 0, NULL, VERSION},
                                        {NULL, 0, NULL, 0}};
  *a = (arguments){.options = {.program = "sf-convert", .cache_dir = ""}};
  *done = true;
  for (int c; (c = getopt_long(argc, argv, "v", longs, NULL)) != -1;) switch (c) {
    case DIM:
      if (!tool_dims_add(&a->options.dims, optarg)) return wrong("--dim \"%s\": NAME=N, at most %d of them", optarg, TOOL_DIMS_MAX);
      break;
    case UNSUPPORTED:
      a->list_unsupported = true;
      break;
    case OPERATORS:
      a->list_operators = true;
      break;
    case 'v':
      a->options.verbose = true;
      break;
    case HELP:
      fputs(help_text, stdout);
      return TOOL_OK;
    case VERSION:
      printf("sf-convert %s\n", sf_version());
      return TOOL_OK;
    default:
      return wrong("the command line is wrong");
    }
  *done = false;
  return TOOL_OK;
}

static int failed(const arguments *a, sf_context *context, sf_status status) {
  sf_error error = {0};
  if (sf_context_take_error(context, &error) == SF_OK) error.status = status;
  tool_print_error(a->options.program, &error);
  return TOOL_FAILED;
}

/* Everything refused, one a line. */
static void print_refused(void *user, const sf_error *error) {
  ++*(int *)user;
  printf("%s\n", error->message);
}

static int list_unsupported(const arguments *a, sf_context *context, const char *path) {
  sf_graph *graph;
  int count = 0;
  sf_status status = tool_graph_open(context, path, &a->options.dims, print_refused, &count, &graph);
  sf_graph_release(graph);
  if (status != SF_OK && count == 0) return failed(a, context, status);
  printf("%d refused\n", count);
  return status == SF_OK ? TOOL_OK : TOOL_FAILED;
}

static bool write_file(void *user, const char *text, size_t length) {
  return fwrite(text, 1, length, user) == length;
}

static int convert(const arguments *a, sf_context *context, const char *from, const char *to) {
  sf_graph *graph;
  sf_status status = tool_graph_open(context, from, &a->options.dims, NULL, NULL, &graph);
  if (status == SF_OK) status = sf_graph_save(graph, to);
  sf_graph_release(graph);
  return status == SF_OK ? TOOL_OK : failed(a, context, status);
}

int main(int argc, char **argv) {
  arguments a;
  sf_context *context;
  sf_error error;
  bool done;
  int code = read_options(argc, argv, &a, &done);
  if (done) return code;
  int left = argc - optind;
  if (left != (a.list_operators ? 0 : a.list_unsupported ? 1 : 2)) return wrong("%d names are not what it takes", left);
  if (tool_context_create(&a.options, &context, &error) != SF_OK) {
    tool_print_error(a.options.program, &error);
    return TOOL_FAILED;
  }
  if (a.list_operators)
    code = sf_onnx_operators(write_file, stdout) == SF_OK ? TOOL_OK : TOOL_FAILED;
  else
    code = a.list_unsupported ? list_unsupported(&a, context, argv[optind]) : convert(&a, context, argv[optind], argv[optind + 1]);
  sf_context_release(context);
  return code;
}
