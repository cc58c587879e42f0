/* One model at hand: what sf-jit's subcommands and its REPL do with it. Text goes to stdout, errors to stderr. Every function
 * returns false after it has reported its error. */
#ifndef TOOL_SESSION_H
#define TOOL_SESSION_H

#include "common.h"

typedef struct session {
  const tool_options *options;
  sf_context *context;
  sf_graph *graph;     /* never NULL once open */
  sf_program *program; /* NULL until asked for, and again after the graph changes */
  sf_compile_stats stats;
  sf_compile_options compile;
  char folder[4096];  /* of weight files: the model's, or the working directory */
  const char *script; /* the file whose line is at work, for errors; NULL: none */
  int32_t line;       /* first of the statement */
  bool joined;        /* the statement stands on several lines: columns say nothing */
} session;

/* options must outlive the session. */
bool session_open(session *s, const tool_options *options);
void session_close(session *s);
/* Both report, with the script's line, and return false: a message; the context's error. */
bool session_fail(session *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool session_error(session *s, sf_status status);

bool session_reset(session *s);
bool session_load(session *s, const char *path);
/* Lines of the text form. */
bool session_lines(session *s, const char *text, size_t length);
bool session_save(session *s, const char *path); /* NULL: stdout */
bool session_compile(session *s);

/* words: NAME=FILE.npy reads an input or writes an output; symbol=N binds the symbolic dimension (else from the inputs, else 1). Inputs
 * not named are random normal, the same each time. */
bool session_run(session *s, int n, char *const *words);
/* The same, then `runs` timed runs (runs=N among the words; 50). */
bool session_time(session *s, int n, char *const *words);
/* With the time of each kernel alone. format: md (text) or json. */
bool session_explain(session *s, const char *format);
/* stage: graph, canonical, facts, kernels, llvm, asm, or the name of a pass (before and after it). kernel NULL: all. */
bool session_emit(session *s, const char *stage, const char *kernel);
/* Picture and figures of one weight, or a line for each where name is NULL. */
bool session_zeros(session *s, const char *name);
/* Words as for session_time, and trace=FILE, page=FILE: times of each kernel as a table in `format` (md, csv, json), a Chrome trace, a
 * page. */
bool session_profile(session *s, int n, char *const *words, const char *model, const char *format);

/* The tensors of one run; all memory is malloc's. */
enum { SESSION_TENSORS_MAX = 64 };
typedef struct session_tensors {
  int32_t n_inputs, n_outputs;
  sf_tensor inputs[SESSION_TENSORS_MAX], outputs[SESSION_TENSORS_MAX];
  const char *write[SESSION_TENSORS_MAX]; /* file of each output; NULL: none */
  int64_t symbol;
} session_tensors;

typedef struct session_timing {
  double median_us, mean_us, deviation_us, min_us;
  int runs;
} session_timing;
/* Times the program at one value of the symbol on random inputs. */
bool session_measure(session *s, int64_t symbol, int runs, session_timing *out);

/* picture.c: the zeros of a weight as characters. */
bool picture_print(session *s, sf_value weight, const char *name);

/* repl.c: reads lines from a terminal, a script or a pipe until its end. False: a line of a script failed. path NULL: stdin. */
bool repl_run(session *s, const char *path);

#endif
