/* sf-convert: models between ONNX and the text form with safetensors, and pruned on the way. */
#include "npy.h"
#include "options.h"
#include "prune.h"

#include <stdlib.h>

static const char help_text[] =
    "usage: sf-convert [OPTIONS] FROM TO\n"
    "       sf-convert [OPTIONS] --list-unsupported FROM     all that keeps an ONNX model from being read\n"
    "       sf-convert --list-operators                      operators of ONNX that are read\n"
    "FROM and TO are ONNX models where their name ends in .onnx, else graphs in the text form, with weights beside them.\n"
    "options:\n"
    "  --dim NAME=N        extent of a named dimension of an ONNX model; may be given again. One may stay free.\n"
    "pruning:\n"
    "  --prune PATTERN     for every layer: a weight of a product or a convolution\n"
    "  --layer GLOB=PATTERN  for those of such names; the last that fits counts\n"
    "  PATTERN             dense; 0.9: the smallest nine tenths of the layer; global:0.9: of all such layers together;\n"
    "                      2:4: two of each four inputs stay, 2:4:out: of each four outputs;\n"
    "                      4x1:0.9: nine tenths of the blocks of 4 outputs by 1 input\n"
    "  --input NAME=FILE.npy  calibration: one for each input; reports the error that each layer adds\n"
    "  A report of every layer's zeros goes to standard output.\n"
    "  -v, --verbose       the library's log\n"
    "  -h, --help; -V, --version\n"
    "Exit: 0 done, 1 failed, 2 wrong usage.\n";

enum { INPUTS_MAX = 64 };
static const size_t npy_max_bytes = (size_t)4 << 30;

typedef struct arguments {
  tool_options options;
  bool list_unsupported, list_operators;
  prune_rules rules;
  int32_t n_inputs;
  char *inputs[INPUTS_MAX]; /* "NAME=FILE.npy" */
} arguments;

#define WRONG(...) tool_wrong("sf-convert", __VA_ARGS__)

/* TOOL_GO_ON, or the exit code. */
static int read_options(int argc, char **argv, arguments *a) {
  enum { UNSUPPORTED = 256, OPERATORS, PRUNE, LAYER, INPUT };
  static const struct option longs[] = {TOOL_OPTIONS,
                                        {"list-unsupported", 0, NULL, UNSUPPORTED},
                                        {"list-operators", 0, NULL, OPERATORS},
                                        {"prune", 1, NULL, PRUNE},
                                        {"layer", 1, NULL, LAYER},
                                        {"input", 1, NULL, INPUT},
                                        {NULL, 0, NULL, 0}};
  *a = (arguments){.options = {.program = "sf-convert", .cache_dir = ""}};
  char *equals;
  int code;
  for (int c; (c = getopt_long(argc, argv, "vhV", longs, NULL)) != -1;) switch (c) {
    case UNSUPPORTED:
      a->list_unsupported = true;
      break;
    case OPERATORS:
      a->list_operators = true;
      break;
    case PRUNE:
      if (!prune_rules_add(&a->rules, "*", optarg))
        return WRONG("--prune \"%s\": no pattern such as 0.9, global:0.9, 2:4, 2:4:out, 4x1:0.9, dense", optarg);
      break;
    case LAYER:
      equals = strrchr(optarg, '=');
      if (equals) *equals = 0;
      if (!equals || !prune_rules_add(&a->rules, optarg, equals + 1)) return WRONG("--layer \"%s\": GLOB=PATTERN", optarg);
      break;
    case INPUT:
      if (a->n_inputs == INPUTS_MAX || !strchr(optarg, '=')) return WRONG("--input \"%s\": NAME=FILE.npy", optarg);
      a->inputs[a->n_inputs++] = optarg;
      break;
    default:
      if ((code = tool_option(&a->options, c, optarg, help_text)) != TOOL_GO_ON) return code;
    }
  return TOOL_GO_ON;
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

/* The file of an input, read. */
static sf_status read_input(const arguments *a, const char *name, sf_tensor *out, sf_error *error) {
  size_t length = strlen(name);
  for (int32_t i = 0; i < a->n_inputs; i++) {
    if (strncmp(a->inputs[i], name, length) == 0 && a->inputs[i][length] == '=')
      return npy_read(a->inputs[i] + length + 1, npy_max_bytes, out, error);
  }
  return tool_fail(error, SF_STATUS_NOT_FOUND, NULL, 0, 0, "no --input for \"%s\"", name);
}

static sf_status audit(const arguments *a, sf_context *context, const sf_graph *graph, const prune_plan *plan, sf_error *error) {
  int32_t n = sf_graph_input_count(graph);
  sf_tensor *inputs = calloc((size_t)n + 1, sizeof *inputs);
  sf_status status = inputs ? SF_OK : tool_fail(error, SF_STATUS_OUT_OF_MEMORY, NULL, 0, 0, "out of memory");
  for (int32_t i = 0; i < n && status == SF_OK; i++) {
    sf_tensor_info info;
    sf_graph_value_info(graph, sf_graph_input_value(graph, i), &info);
    status = read_input(a, info.name, &inputs[i], error);
  }
  if (status == SF_OK) status = prune_audit(context, graph, plan, inputs, stdout, error);
  for (int32_t i = 0; i < n && inputs; i++) free(inputs[i].data);
  free(inputs);
  return status;
}

static sf_status save(const sf_graph *graph, const char *path, sf_error *error) {
  if (!tool_has_ending(path, ".onnx")) return sf_graph_save(graph, path);
  FILE *file = fopen(path, "wb");
  if (!file) return tool_fail(error, SF_STATUS_IO_ERROR, path, 0, 0, "cannot be written: %m");
  sf_status status = sf_graph_to_onnx(graph, write_file, file);
  bool bad = ferror(file) != 0;
  if (fclose(file) != 0 || bad) return tool_fail(error, SF_STATUS_IO_ERROR, path, 0, 0, "cannot be written whole");
  return status;
}

static int convert(const arguments *a, sf_context *context, const char *from, const char *to) {
  sf_graph *graph;
  sf_error error = {0};
  prune_plan plan = {0};
  sf_status status = tool_graph_open(context, from, &a->options.dims, NULL, NULL, &graph);
  if (status == SF_OK && a->rules.count) {
    status = prune_plan_make(graph, &a->rules, &plan, &error);
    if (status == SF_OK) prune_plan_print(&plan, stdout);
    if (status == SF_OK && a->n_inputs) status = audit(a, context, graph, &plan, &error);
    if (status == SF_OK) status = prune_plan_apply(&plan, graph);
  }
  if (status == SF_OK) status = save(graph, to, &error);
  sf_graph_release(graph);
  prune_plan_end(&plan);
  if (status == SF_OK && error.status == SF_OK) return TOOL_OK;
  if (error.status == SF_OK) return failed(a, context, status);
  tool_print_error(a->options.program, &error);
  return TOOL_FAILED;
}

int main(int argc, char **argv) {
  arguments a;
  sf_context *context;
  sf_error error;
  int code = read_options(argc, argv, &a);
  if (code != TOOL_GO_ON) return code;
  int left = argc - optind;
  if (a.n_inputs && !a.rules.count) return WRONG("--input without --prune or --layer");
  if (left != (a.list_operators ? 0 : a.list_unsupported ? 1 : 2))
    return WRONG("it takes %s", a.list_operators ? "no file" : a.list_unsupported ? "one file" : "two files, FROM and TO");
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
