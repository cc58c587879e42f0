/* The options that tools take alike, rows of getopt_long's table and what reads them. */
#ifndef TOOL_OPTIONS_H
#define TOOL_OPTIONS_H

#include "common.h"

#include <getopt.h>

enum { TOOL_OPTION_DIM = 512, TOOL_OPTION_TUNE, TOOL_OPTION_CALIBRATE, TOOL_OPTION_CACHE_DIR };
/* Every tool's; short ones: "vhV". */
#define TOOL_OPTIONS                                                                                                               \
  {"dim", required_argument, NULL, TOOL_OPTION_DIM}, {"verbose", no_argument, NULL, 'v'}, {"help", no_argument, NULL, 'h'},        \
      {"version", no_argument, NULL, 'V'}
/* Those of tools that compile. */
#define TOOL_OPTIONS_COMPILING                                                                                                     \
  {"tune", required_argument, NULL, TOOL_OPTION_TUNE}, {"calibrate", no_argument, NULL, TOOL_OPTION_CALIBRATE}, {                  \
    "cache-dir", required_argument, NULL, TOOL_OPTION_CACHE_DIR                                                                    \
  }

/* What reading options says beside the exit codes. */
enum { TOOL_GO_ON = -1 };
/* Takes what getopt_long returned where a tool has no own case for it: TOOL_GO_ON, or the exit code. */
int tool_option(tool_options *options, int c, const char *word, const char *help);
/* "PROGRAM: MESSAGE; see PROGRAM --help" on stderr; returns TOOL_USAGE. */
int tool_wrong(const char *program, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
