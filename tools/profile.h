/* Profiled runs of a program, and how they are shown: a table, JSON, a Chrome trace, a page. */
#ifndef TOOL_PROFILE_H
#define TOOL_PROFILE_H

#include "session.h"

enum { PROFILE_THREADS_MAX = 256 };

typedef struct profile_kernel {
  sf_kernel_info info;
  double us;      /* median over runs: first chunk's begin to last chunk's end */
  double busy_us; /* median over runs: chunks' times, all threads together */
} profile_kernel;

/* Times of `runs` runs with the same tensors. */
typedef struct profile {
  const char *model; /* borrowed */
  int64_t symbol;
  sf_machine_info machine;
  int32_t n_kernels, n_spans, runs;
  profile_kernel *kernels;
  sf_run_profile *run;                   /* each with its own n_spans */
  sf_span *spans;                        /* of all runs */
  double run_us;                         /* median */
  int32_t typical;                       /* the run that took it */
  uint64_t threads[PROFILE_THREADS_MAX]; /* in order of appearance */
  int32_t n_threads;
} profile;

/* The kernels of the program at `symbol` and room for the runs. To be freed even where it fails. */
bool profile_open(session *s, const char *model, int64_t symbol, int32_t runs, profile *out);
/* Runs once and keeps the times as those of run i. */
bool profile_run(session *s, const session_tensors *t, profile *p, int32_t i);
/* Medians, after all runs. */
bool profile_close(session *s, profile *p);
void profile_free(profile *p);
/* Position of a span's thread in `threads`. */
int32_t profile_thread(const profile *p, uint64_t thread);
/* Share of the bound that a kernel reaches, 0 to about 1. */
double profile_fraction(const profile_kernel *k);
const char *profile_bound_name(sf_bound bound);

/* profile_text.c. format: md, csv, json. */
void profile_print(FILE *out, const profile *p, const char *format);

/* profile_trace.c: an array of Chrome's trace events, complete up to the last run however the process ends: the format lets the closing
 * bracket be missing. */
bool profile_trace_begin(session *s, const char *path, FILE **out);
bool profile_trace_run(session *s, FILE *file, const profile *p, int32_t run);
bool profile_trace_end(session *s, FILE *file);

/* profile_page.c: one HTML file that needs no other. */
bool profile_page_write(session *s, const char *path, const profile *p);

#endif
