/* One graph at one extent of the symbol: inputs, the reference's results with their error bounds, and compiled programs held to them.
 *
 * Tensors given to a program end where a page begins that nobody may touch, so reading or writing behind one ends the test program;
 * bytes before an output are guarded by a pattern. Outputs start as a NaN that no operation makes. */
#ifndef SF_TESTS_TRIAL_H
#define SF_TESTS_TRIAL_H

#include "random_graph.h"

enum { SF_TRIAL_PORTS = 20, SF_TRIAL_PIECES = 3 };

typedef struct sf_room {
  unsigned char *base; /* of the mapping; NULL: none yet */
  size_t bytes;        /* that may be touched */
} sf_room;

/* The zero value is ready. */
typedef struct sf_trial {
  int64_t symbol;
  sf_random_tensors given; /* inputs as they were made, outputs' shapes */
  sf_tensor inputs[SF_TRIAL_PORTS], got[SF_TRIAL_PORTS], again[SF_TRIAL_PORTS];
  sf_tensor want[SF_TRIAL_PORTS], bound[SF_TRIAL_PORTS]; /* F64 */
  sf_room rooms[3][SF_TRIAL_PORTS];
  char failure[1024]; /* of the last call that returned false */
  int64_t runs, compared, skipped;
  double worst; /* error over bound */
} sf_trial;

/* Makes random inputs from `seed`, with NaN, infinities and huge numbers among them where `special`, and runs the reference. False:
 * out of memory. */
bool sf_trial_begin(sf_trial *trial, const sf_graph *graph, uint64_t seed, bool special, int64_t symbol);
/* Runs `program` in one piece a kernel: within the bounds, inputs unchanged, nothing written outside, every element written. */
bool sf_trial_run(sf_trial *trial, sf_program *program, const char *how);
/* The same with every kernel cut in as many pieces as its context has threads, or tiles: the bits of the last sf_trial_run. */
bool sf_trial_run_in_pieces(sf_trial *trial, sf_program *program, const char *how);
void sf_trial_end(sf_trial *trial);

/* From now on a run that touches a guard page prints its name and ends the program. */
void sf_trial_watch(void);

/* A context whose kernels may be cut in SF_TRIAL_PIECES pieces, taken in reverse. cache_dir as in sf_context_options. */
sf_status sf_trial_context(sf_isa isa, const char *cache_dir, sf_context **out_context);

#endif
