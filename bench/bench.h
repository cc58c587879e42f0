/* What the files of sf-bench share: problems, the engines compared on them, measurements and the report. A developer's tool: it
 * reaches the library's internals to time one kernel without its conversions. Errors travel as sf_error, memory is malloc's. */
#ifndef BENCH_H
#define BENCH_H

#include "common.h"
#include "peer.h"

/* ---- matrices ----------------------------------------------------------------------------------------------------- */

typedef struct bench_matrix {
  char name[256];
  char pattern[32]; /* "" for a matrix as it was found */
  int64_t rows, cols, nnz;
  int64_t kernel[2]; /* of a 4-dimensional tensor, else 1 1 */
  float *w;          /* row-major; free() */
} bench_matrix;

/* .smtx (pattern of DLMC; values are made), .mtx, .npy, or FILE.safetensors:TENSOR. Two dimensions, or four: [o, i, h, w]. */
sf_status bench_matrix_read(const char *file, uint64_t seed, bench_matrix *out_matrix, sf_error *error);
/* Random normal weights whose rows and columns differ in scale, log-normally, as those of trained layers do; "coin": alike. */
sf_status bench_matrix_make(int64_t rows, int64_t cols, const char *pattern, uint64_t seed, bench_matrix *out_matrix,
                            sf_error *error);
/* Prunes by magnitude to a share of zeros within a pattern:
 *   unstructured, coin  the largest weights stay
 *   N:M                 the N largest of every M in a row; N:MxR: the same choice in R consecutive rows; N:Mv: down the columns
 *   RxC                 blocks by their sum of magnitudes
 *   dead                rows and columns, sqrt(1 - zeros) of each kept
 * zeros < 0: not given; N:M needs none. */
sf_status bench_matrix_prune(bench_matrix *matrix, const char *pattern, double zeros, sf_error *error);
/* n elements of mean 0 and variance 1. */
void bench_normal(uint64_t seed, float *out, int64_t n);

/* ---- engines ------------------------------------------------------------------------------------------------------ */

/* One contestant on one problem. */
typedef struct bench_engine {
  char name[64];
  const bench_peer *peer; /* NULL: refused */
  void *state;
  char layout[64], why[BENCH_WHY];
  double median_us, spread; /* spread: (90th - 10th percentile) / median */
  double max_error; /* largest |y - reference| over the row's norm of W; INFINITY: left unwritten, or not 0 in an empty row */
} bench_engine;

/* What is known of ours beside its time. Strings live as long as the engine. */
typedef struct bench_ours {
  const char *kernel, *choice;
  double predicted_us, compile_ms;
  uint64_t code_bytes, packed_bytes;
} bench_ours;

/* emitter NULL: the library's choice. On failure engine->why says why, and engine->peer is NULL. */
void bench_ours_open(const bench_problem *problem, const char *emitter, bench_engine *out_engine);
bench_ours bench_ours_of(const bench_engine *engine);
/* i-th emitter of contractions; NULL behind the last. */
const char *bench_emitter(size_t i);
const char *bench_compiler(void); /* "LLVM 19.1.7" */
bool bench_is_emitter(const char *name);

/* "plain", a peer of a module in the folder `peers` beside this program, "ours" or an emitter. False: there is no such name. */
bool bench_engine_open(const char *name, const bench_problem *problem, bench_engine *out_engine);
void bench_engine_close(bench_engine *engine);
/* Calls each(user, peer) for every peer that can be opened; opens all modules. */
void bench_peers_each(void (*each)(void *user, const bench_peer *peer), void *user);

/* ---- measuring ---------------------------------------------------------------------------------------------------- */

/* X and the outputs of one problem, and what they must be. */
typedef struct bench_data {
  float *x, *y;
  double *reference, *norm; /* [rows][columns]; [rows] */
} bench_data;
sf_status bench_data_make(const bench_problem *problem, uint64_t seed, bench_data *out_data, sf_error *error);
void bench_data_free(bench_data *data);
/* Runs once on a poisoned Y and compares. */
double bench_error(const bench_problem *problem, const bench_data *data, const bench_engine *engine);
/* Interleaved rounds of all engines that were not refused; checks them before and after. */
sf_status bench_measure(const bench_problem *problem, const bench_data *data, bench_engine *engines, int32_t n, int32_t rounds,
                        sf_error *error);
double bench_now_us(void);
/* Sorts; sets median and spread. */
void bench_statistics(double *samples, int32_t n, double *out_median, double *out_spread);

/* ---- the machine -------------------------------------------------------------------------------------------------- */

/* Rates of `threads` cores together. */
typedef struct bench_machine {
  char cpu[128], features[256], compiler[64];
  int32_t cores, lanes;
  int64_t l1_bytes, l2_bytes, l3_bytes;
  double gflops, gbps; /* 0: not measured */
  double handover_ns;  /* a line that one core has written, to another that reads it; 0: not measured, or one core */
} bench_machine;
void bench_machine_look(bench_machine *out_machine);
/* A tenth of a second. */
void bench_machine_measure(bench_machine *machine, int threads);
/* Starts this program again, once, with `threads` pinned to as many cores and every library told so and given its best setting. */
void bench_environment(char **argv, int threads);

/* The least time that a kernel over these nonzeros can take, in microseconds; 0: does not apply. */
typedef struct bench_floor {
  double fma, load, memory;
  const char *bound; /* name of the largest */
  double us;
} bench_floor;
bench_floor bench_floor_of(const bench_machine *machine, const bench_problem *problem);

/* ---- reports ------------------------------------------------------------------------------------------------------ */

typedef enum bench_format { BENCH_JSON, BENCH_CSV, BENCH_MD } bench_format;

/* engines[0] is ours. */
typedef struct bench_row {
  const char *kind; /* "spmm", "gemm", "conv" */
  const bench_matrix *matrix;
  const bench_problem *problem;
  const bench_machine *machine;
  const bench_engine *engines;
  int32_t n_engines, rounds;
} bench_row;
/* One JSON object on a line, or a row of a table; `first` has the table's head before it. */
void bench_report(FILE *out, const bench_row *row, bench_format format, bool first);
void bench_report_machine(FILE *out, const bench_machine *machine);
/* Above this error a result is wrong and its time does not count. */
#define BENCH_MAX_ERROR 1e-3

/* sf-bench model: its own arguments. Returns the exit code. */
typedef struct bench_model_options {
  const char *file;
  int64_t symbol;
  int threads;
  int32_t rounds;
  bench_format format;
  uint64_t seed;
} bench_model_options;
int bench_model(const bench_model_options *options);

#endif
