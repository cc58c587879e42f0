/* The options that tools take alike. */
#include "options.h"

int tool_wrong(const char *program, const char *format, ...) {
  va_list list;
  va_start(list, format);
  fprintf(stderr, "%s: ", program);
  vfprintf(stderr, format, list);
  fprintf(stderr, "; see %s --help\n", program);
  va_end(list);
  return TOOL_USAGE;
}

int tool_option(tool_options *options, int c, const char *word, const char *help) {
  switch (c) {
  case TOOL_OPTION_DIM:
    if (tool_dims_add(&options->dims, word)) return TOOL_GO_ON;
    return tool_wrong(options->program, "--dim \"%s\": NAME=N, at most %d of them", word, TOOL_DIMS_MAX);
  case TOOL_OPTION_TUNE:
    if (tool_tune_named(word, &options->tune)) return TOOL_GO_ON;
    return tool_wrong(options->program, "--tune \"%s\": off, fast or full", word);
  case TOOL_OPTION_CALIBRATE:
    options->calibrate = true;
    return TOOL_GO_ON;
  case TOOL_OPTION_CACHE_DIR:
    options->cache_dir = word;
    return TOOL_GO_ON;
  case 'v':
    options->verbose = true;
    return TOOL_GO_ON;
  case 'h':
    fputs(help, stdout);
    return TOOL_OK;
  case 'V':
    printf("%s %s\n", options->program, sf_version());
    return TOOL_OK;
  default:
    return tool_wrong(options->program, "the command line is wrong");
  }
}
