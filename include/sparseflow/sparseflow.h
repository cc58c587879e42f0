/* SparseFlow: a compiler and runtime for sparse tensor graphs. The public API; C11, libc only.
 *
 * Ownership: `*_create`, `sf_graph_parse*`, `sf_compile` give the caller a handle that it ends with the matching `*_release`;
 *   release(NULL) does nothing. A context outlives by reference count whatever was made from it. Other pointers are borrowed.
 * Errors: every output handle is set to NULL first and published on success only. The first error is kept, with its place,
 *   until sf_context_take_error; a call never prints, exits or aborts on what a user gave it.
 * Threads: sf_context and sf_program are thread-safe. sf_graph is thread-compatible: one thread builds it, then any number
 *   may compile it.
 * Options structs begin with `struct_size`: set it with SF_INIT; NULL means all defaults.
 * Layout: dense, row-major, last dimension contiguous, elements in the host's byte order. */
#ifndef SPARSEFLOW_H
#define SPARSEFLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h> /* SF_INIT */

#ifdef __cplusplus
extern "C" {
#endif

#define SF_VERSION_MAJOR 0
#define SF_VERSION_MINOR 1
#define SF_VERSION_PATCH 0

#if defined(_WIN32)
#define SF_API __declspec(dllexport)
#else
#define SF_API __attribute__((visibility("default")))
#endif

/* "major.minor.patch" of the library that is loaded, static storage. */
SF_API const char *sf_version(void);

/* ---- tables ------------------------------------------------------------------------------------------------------- */

typedef enum sf_status {
#define SF_STATUS(id, value, text, advice) SF_STATUS_##id = value,
#include <sparseflow/status.def>
#undef SF_STATUS
  SF_OK = SF_STATUS_OK
} sf_status;

typedef enum sf_dtype {
#define SF_DTYPE(id, value, text, bytes, st, flags) SF_##id = value,
#include <sparseflow/dtypes.def>
#undef SF_DTYPE
} sf_dtype;

typedef enum sf_op {
#define SF_OP(id, value, text, min, max, attrs, infer, flags, doc) SF_OP_##id = value,
#include <sparseflow/ops.def>
#undef SF_OP
} sf_op;

typedef enum sf_attr_id {
#define SF_ATTR(id, value, text, type, def, doc) SF_ATTR_##id = value,
#include <sparseflow/attrs.def>
#undef SF_ATTR
} sf_attr_id;

#define SF_MAX_RANK 6

/* "out of memory", and what to do next. Static storage; an unknown status gives "unknown status". */
SF_API const char *sf_status_text(sf_status status);
SF_API const char *sf_status_advice(sf_status status);

/* Where and what went wrong. Strings are cut to fit, never unterminated; empty or 0 where not known. */
typedef struct sf_error {
  sf_status status;
  int32_t line;   /* 1-based, in `file` */
  int32_t column; /* 1-based */
  char file[256]; /* the file, or the graph's name for one built through the API */
  char op[64];    /* the operation or tensor at fault */
  char message[512];
} sf_error;

/* ---- context ------------------------------------------------------------------------------------------------------ */

typedef struct sf_context sf_context;

/* All memory of the library's own goes through these three, LLVM's own excepted. `alignment` is a power of two; `allocate`
 * returns NULL when out of memory. Called from any thread. */
typedef struct sf_allocator {
  void *user;
  void *(*allocate)(void *user, size_t bytes, size_t alignment);
  void (*release)(void *user, void *memory, size_t bytes);
} sf_allocator;

typedef enum sf_log_level { SF_LOG_ERROR = 0, SF_LOG_WARNING = 1, SF_LOG_INFO = 2, SF_LOG_DEBUG = 3 } sf_log_level;
/* One line without a newline. Called from any thread; must not call back into the library. */
typedef void (*sf_log_fn)(void *user, sf_log_level level, const char *line);

/* Runs body(argument, i) for every i in [0, count), in any order, on any threads, and returns when all are done. */
typedef void (*sf_parallel_for_fn)(void *user, int64_t count, void (*body)(void *argument, int64_t i), void *argument);

/* Highest instruction set that generated code may use. */
typedef enum sf_isa {
  SF_ISA_NATIVE = 0,    /* whatever the machine has */
  SF_ISA_REFERENCE = 1, /* no generated code: the reference back end */
  SF_ISA_AVX2 = 2,      /* x86-64 with AVX2 and FMA */
  SF_ISA_AVX512 = 3,    /* x86-64 with AVX-512 F, BW, DQ, VL */
  SF_ISA_NEON = 4       /* AArch64 */
} sf_isa;

/* How emitters are chosen for kernels that several accept. */
typedef enum sf_tune {
  SF_TUNE_DEFAULT = 0, /* of a compile: as its context says; of a context: off */
  SF_TUNE_OFF = 1,     /* by predicted time */
  SF_TUNE_FAST = 2,    /* the best by prediction are timed on the real weights, each kernel for milliseconds */
  SF_TUNE_FULL = 3     /* more of them, longer, and at several extents of the symbolic dimension */
} sf_tune;

typedef struct sf_context_options {
  size_t struct_size;
  const sf_allocator *allocator; /* copied; NULL: aligned_alloc and free */
  sf_log_fn log;                 /* NULL: silent */
  void *log_user;
  sf_log_level log_level;          /* highest level passed to `log`; default SF_LOG_WARNING */
  sf_parallel_for_fn parallel_for; /* NULL: OpenMP where built with it, else one thread */
  void *parallel_for_user;
  int32_t threads;          /* number of pieces a kernel is cut into; 0: the machine's cores */
  sf_isa isa;               /* default SF_ISA_NATIVE; a higher one than the machine has is SF_STATUS_UNSUPPORTED */
  const char *cache_dir;    /* NULL: $XDG_CACHE_HOME/sparseflow, else $HOME/.cache/sparseflow; "": no disk cache */
  uint64_t cache_max_bytes; /* 0: 1 GiB */
  sf_tune tune;             /* verdicts are kept in the cache: where it has them, nothing is timed */
  int32_t calibrate; /* not 0: predictions use rates measured on this machine, from the cache or, for about a quarter of a second,
                               anew. 0: fixed rates, so that choices are the same everywhere */
} sf_context_options;

/* Sets `struct_size` and zeroes the rest: `sf_context_options o; SF_INIT(&o);` */
#define SF_INIT(p) (memset((p), 0, sizeof *(p)), (p)->struct_size = sizeof *(p))

SF_API sf_status sf_context_create(const sf_context_options *options, sf_context **out_context);
SF_API void sf_context_release(sf_context *context);
/* Copies the first error since the last call and forgets it. Returns its status, SF_OK when there was none. */
SF_API sf_status sf_context_take_error(sf_context *context, sf_error *out_error);

/* ---- graph -------------------------------------------------------------------------------------------------------- */

typedef struct sf_graph sf_graph;
/* A value of one graph. A builder call that fails returns SF_NO_VALUE, accepts it silently as an operand, and leaves the
 * graph in error: build on, then read the first error once. */
typedef int32_t sf_value;
#define SF_NO_VALUE (-1)
/* In the dims of an input: the graph's one symbolic dimension, bound at each run to any extent >= 0. */
#define SF_DIM_SYMBOLIC (-1)

/* Members that the attribute's type does not use are 0. */
typedef struct sf_attr {
  sf_attr_id id;
  int32_t count;       /* of ints; 0 for INT and FLOAT attributes */
  int64_t i;           /* INT */
  double f;            /* FLOAT */
  const int64_t *ints; /* INTS, copied */
} sf_attr;

typedef enum sf_ownership { SF_COPY = 0, SF_BORROW = 1 /* the host keeps it until the graph is released */ } sf_ownership;

/* `name` is used in messages; copied; NULL: "graph". */
SF_API sf_status sf_graph_create(sf_context *context, const char *name, sf_graph **out_graph);
SF_API void sf_graph_release(sf_graph *graph);

/* `name`s of inputs are unique; NULL makes one. Rank 0 to SF_MAX_RANK. */
SF_API sf_value sf_graph_input(sf_graph *graph, const char *name, sf_dtype dtype, int32_t rank, const int64_t *dims);
SF_API sf_value sf_graph_weight(sf_graph *graph, const char *name, sf_dtype dtype, int32_t rank, const int64_t *dims,
                                const void *data, sf_ownership ownership);
SF_API sf_value sf_graph_constant(sf_graph *graph, sf_dtype dtype, int32_t rank, const int64_t *dims, const void *data);
/* Any operation of ops.def. Attributes left out take their defaults. Shapes are inferred and checked here. */
SF_API sf_value sf_graph_op(sf_graph *graph, sf_op op, int32_t n_inputs, const sf_value *inputs, int32_t n_attrs,
                            const sf_attr *attrs);
/* Marks an output; outputs are numbered in the order of these calls. `name` NULL makes one. */
SF_API sf_status sf_graph_output(sf_graph *graph, const char *name, sf_value value);

/* Shorthands for sf_graph_op. */
SF_API sf_value sf_unary(sf_graph *graph, sf_op op, sf_value x);
SF_API sf_value sf_binary(sf_graph *graph, sf_op op, sf_value x, sf_value y);
/* a[.., m, k] b[.., k, n], each exchanged in its last two dimensions where asked. */
SF_API sf_value sf_matmul(sf_graph *graph, sf_value a, sf_value b, bool transpose_a, bool transpose_b);
typedef struct sf_conv2d_options {
  size_t struct_size;
  int64_t stride[2], pad[4], dilation[2]; /* [h, w], [top, left, bottom, right], [h, w]; 0 strides and dilations mean 1 */
  int64_t groups;                         /* 0 means 1 */
} sf_conv2d_options;
/* bias may be SF_NO_VALUE. options may be NULL. */
SF_API sf_value sf_conv2d(sf_graph *graph, sf_value x, sf_value w, sf_value bias, const sf_conv2d_options *options);
SF_API sf_value sf_softmax(sf_graph *graph, sf_value x, int64_t axis);
SF_API sf_value sf_reshape(sf_graph *graph, sf_value x, int32_t rank, const int64_t *shape);
SF_API sf_value sf_transpose(sf_graph *graph, sf_value x, int32_t rank, const int64_t *perm);

/* SF_OK, or the status of the graph's first error, which stays and is also in the context. */
SF_API sf_status sf_graph_status(const sf_graph *graph);
/* The first error, whole; status SF_OK when there is none. */
SF_API void sf_graph_error(const sf_graph *graph, sf_error *out_error);

/* Shape of a value. Any extent that depends on the symbolic dimension is given as SF_DIM_SYMBOLIC. */
typedef struct sf_tensor_info {
  const char *name; /* borrowed from the graph or program */
  sf_dtype dtype;
  int32_t rank;
  int64_t dims[SF_MAX_RANK];
} sf_tensor_info;
SF_API sf_status sf_graph_value_info(const sf_graph *graph, sf_value value, sf_tensor_info *out_info);
/* Values are numbered from 0 in the order of their definition. */
SF_API int32_t sf_graph_value_count(const sf_graph *graph);
/* SF_OP_INPUT for what is not a value. */
SF_API sf_op sf_graph_value_op(const sf_graph *graph, sf_value value);
/* What made a value: its operands and its attributes, defaults filled in. 0 and SF_NO_VALUE for what is not there; an attribute that the
 * operation has not is SF_STATUS_NOT_FOUND. out_attr->ints is borrowed from the graph. Since 0.1. */
SF_API int32_t sf_graph_operand_count(const sf_graph *graph, sf_value value);
SF_API sf_value sf_graph_operand(const sf_graph *graph, sf_value value, int32_t i);
SF_API sf_status sf_graph_value_attr(const sf_graph *graph, sf_value value, sf_attr_id id, sf_attr *out_attr);
/* Elements of a weight or constant, borrowed; NULL for other values, and where they cannot be read (sf_context_take_error). Since 0.1. */
SF_API const void *sf_graph_value_data(const sf_graph *graph, sf_value value, size_t *out_bytes);
/* Gives a weight other elements of the same type and number; programs that are compiled already keep theirs. Since 0.1. */
SF_API sf_status sf_graph_set_weight(sf_graph *graph, sf_value weight, const void *data, size_t bytes, sf_ownership ownership);
/* The value of that name in the text form, or the weight of that tensor name; SF_NO_VALUE where there is none. */
SF_API sf_value sf_graph_find(const sf_graph *graph, const char *name);
SF_API int32_t sf_graph_input_count(const sf_graph *graph);
SF_API int32_t sf_graph_output_count(const sf_graph *graph);
SF_API sf_value sf_graph_input_value(const sf_graph *graph, int32_t i);
SF_API sf_value sf_graph_output_value(const sf_graph *graph, int32_t i);

/* Sink of text. Returns false to stop. */
typedef bool (*sf_write_fn)(void *user, const char *text, size_t length);

/* Text form (docs/text-form.md). Weight files are looked for beside `path`, never outside its folder. Large weights are read when they are
 * needed, while the graph lives: the file may be removed or replaced meanwhile, but not written to; a weight that changed under a compile
 * is SF_STATUS_MALFORMED_FILE. A program asks for it again only where what was packed of it is in the cache no more when a run loads it. */
SF_API sf_status sf_graph_parse_file(sf_context *context, const char *path, sf_graph **out_graph);
/* `name` stands for the file in messages; `folder` holds the weight files, NULL: none may be named. */
SF_API sf_status sf_graph_parse(sf_context *context, const char *text, size_t length, const char *name, const char *folder,
                                sf_graph **out_graph);
/* More lines of the text form for a graph that is not in error, all of them or none: on an error the graph is what it was before
 * the call and stays usable; the error goes to the context. Names of earlier values are known. `folder` as for
 * sf_graph_parse. */
SF_API sf_status sf_graph_parse_lines(sf_graph *graph, const char *text, size_t length, const char *folder);
/* Writes the text form; sf_graph_parse reads it back and prints the same. Weights are written by name, constants whole.
 * SF_STATUS_OUT_OF_MEMORY is its only error; a `write` that returns false ends the text. */
SF_API sf_status sf_graph_print(const sf_graph *graph, sf_write_fn write, void *user);
/* Writes the text form to `path` and the weights to a safetensors file beside it, named after it: model.sft, model.safetensors. Where
 * the second cannot be written the first is left as it was. Since 0.1. */
SF_API sf_status sf_graph_save(const sf_graph *graph, const char *path);

/* ---- ONNX --------------------------------------------------------------------------------------------------------- */

/* A named dimension of the model's inputs gets an extent. An unnamed one is named by its place, "input_ids:0". */
typedef struct sf_onnx_dim {
  const char *name;
  int64_t extent;
} sf_onnx_dim;
/* Called for everything in the model that is refused, in its order. The line in the error's place is the node's number, from 1. */
typedef void (*sf_onnx_report_fn)(void *user, const sf_error *error);
typedef struct sf_onnx_options {
  size_t struct_size;
  int32_t n_dims; /* of the free dimensions all but one must be given; the one left is the graph's symbolic dimension */
  const sf_onnx_dim *dims;
  sf_onnx_report_fn report; /* NULL, or gets all that is refused; the first of it is also the call's error */
  void *report_user;
} sf_onnx_options;
/* A graph from an ONNX model of operator set 13 to 21 (docs/onnx.md). External data is read from the model's folder and never from
 * outside. options NULL: all defaults. SF_STATUS_UNSUPPORTED in a build without nanopb. Since 0.1. */
SF_API sf_status sf_graph_from_onnx_file(sf_context *context, const char *path, const sf_onnx_options *options,
                                         sf_graph **out_graph);
/* `name` stands for the file in messages; `folder` holds external data, NULL: there may be none. */
SF_API sf_status sf_graph_from_onnx(sf_context *context, const void *data, size_t size, const char *name, const char *folder,
                                    const sf_onnx_options *options, sf_graph **out_graph);
/* Writes the graph as an ONNX model of operator set 20, weights as dense initialisers. `write` is called with pieces; one that returns false
 * ends the file, of which the caller knows. SF_STATUS_UNSUPPORTED where an operation has no like in ONNX: nothing is written then.
 * Since 0.1. */
SF_API sf_status sf_graph_to_onnx(const sf_graph *graph, sf_write_fn write, void *user);
/* Writes a line of a Markdown table for each operator of ONNX that is read: its name, and what of it is refused. Since 0.1. */
SF_API sf_status sf_onnx_operators(sf_write_fn write, void *user);

/* ---- compile ------------------------------------------------------------------------------------------------------ */

typedef struct sf_program sf_program;

enum {
  SF_COMPILE_FREEZE = 1,     /* a kernel that is not in the cache is SF_STATUS_WOULD_COMPILE */
  SF_COMPILE_NO_CACHE = 2,   /* neither read nor write the disk cache */
  SF_COMPILE_CACHE_ONLY = 4, /* fill the cache, make no program: any target, not only this machine's */
  /* Read all weights now. Else packed ones of a weight file that the cache has are read, in milliseconds, by the first run of a class that
   * needs them; and of tables that are only looked up in, a run reads the rows that it wants and none before it did. Since 0.1 */
  SF_COMPILE_PRELOAD = 8
};

typedef struct sf_compile_options {
  size_t struct_size;
  uint32_t flags;
  int32_t opt_level; /* 0: no fusion, no propagation; 1: canonical form; 2, the default: all. Given as level + 1; 0: default */
  sf_isa isa;        /* SF_ISA_NATIVE: the context's. Another one needs SF_COMPILE_CACHE_ONLY unless the machine has it */
  /* Classes of the symbolic dimension, ascending upper bounds; a program holds one specialisation for each, and one for
   * all above. NULL with 0: {1, 4, 16}. Ignored for a graph without a symbolic dimension. */
  int32_t n_classes;
  const int64_t *classes;
  const char *emitter; /* NULL: choose; else the emitter for all contractions that it accepts ("spmm-counted", ...) */
  sf_error *error;     /* NULL, or where this call's error goes as well */
  sf_tune tune; /* nothing is timed for another machine's target. With SF_COMPILE_FREEZE a verdict that is not in the cache is
                          SF_STATUS_WOULD_COMPILE */
} sf_compile_options;

typedef struct sf_compile_stats {
  size_t struct_size;
  int32_t kernels;  /* in all specialisations */
  int32_t compiled; /* through the compiler */
  int32_t disk_hits, memory_hits;
  int32_t weights_scanned, weights_packed;        /* the others came from the cache */
  uint64_t code_bytes, packed_bytes, arena_bytes; /* arena: of the last specialisation at extent 1 */
  double milliseconds;
  int32_t timed; /* kernels whose emitters were timed; what was compiled and packed for that counts above */
} sf_compile_stats;

/* out_program may be NULL with SF_COMPILE_CACHE_ONLY. stats may be NULL; set struct_size. */
SF_API sf_status sf_compile(sf_context *context, const sf_graph *graph, const sf_compile_options *options, sf_program **out_program,
                            sf_compile_stats *stats);
SF_API void sf_program_retain(sf_program *program);
SF_API void sf_program_release(sf_program *program);

SF_API int32_t sf_program_input_count(const sf_program *program);
SF_API int32_t sf_program_output_count(const sf_program *program);
SF_API sf_status sf_program_input_info(const sf_program *program, int32_t i, sf_tensor_info *out_info);
SF_API sf_status sf_program_output_info(const sf_program *program, int32_t i, sf_tensor_info *out_info);
/* The output's extents where the symbolic dimension is `symbol`: what sf_run will ask for. */
SF_API sf_status sf_program_output_shape(const sf_program *program, int32_t i, int64_t symbol, sf_tensor_info *out_info);

typedef enum sf_stage {
  SF_STAGE_GRAPH = 0,     /* as built */
  SF_STAGE_CANONICAL = 1, /* after the passes over graphs */
  SF_STAGE_FACTS = 2,     /* zeros of each weight */
  SF_STAGE_KERNELS = 3,   /* fused kernels with their choice and the memory plan */
  SF_STAGE_LLVM = 4,
  SF_STAGE_ASM = 5
} sf_stage;
/* Prints one stage of compiling `graph`. `kernel`: NULL for all, else only the kernel of that name. Nothing is cached.
 * `pass`: NULL, else "name" of a pass: the graph or plan before and after that pass instead of `stage`. */
SF_API sf_status sf_emit(sf_context *context, const sf_graph *graph, const sf_compile_options *options, sf_stage stage,
                         const char *kernel, const char *pass, sf_write_fn write, void *user);
enum {
  SF_EXPLAIN_JSON = 1,   /* one JSON object instead of text; docs/tuning.md says what is in it */
  SF_EXPLAIN_MEASURE = 2 /* each kernel is timed, alone, on this thread */
};
/* Why the program is what it is: each kernel's emitter with its predicted and, if known, measured time, the candidates that lost and why,
 * what bounds it and how near it is to that, cache hit or miss with the reason. */
SF_API sf_status sf_program_explain(const sf_program *program, uint32_t flags, sf_write_fn write, void *user);

/* ---- run ---------------------------------------------------------------------------------------------------------- */

typedef struct sf_tensor {
  void *data; /* aligned to its element */
  sf_dtype dtype;
  int32_t rank;
  int64_t dims[SF_MAX_RANK];
} sf_tensor;

/* Runs once. Tensors in the order of the graph's inputs and outputs; extents must match, with one common extent for the
 * symbolic dimension. Outputs must not overlap inputs or each other, but for an output that `append` makes of an input which nothing else
 * reads: it may be that input's memory, and then only what is appended is written. Integers are checked before anything runs: an index or
 * position outside of its range, a symbolic dimension beyond a table or cache, is SF_STATUS_INVALID_ARGUMENT. On an error outputs
 * are untouched.
 * Any number of threads may run one program; no allocation and no contended lock once as many runs as threads have ended. The first run
 * of a class loads its packed weights where they still wait in the cache (SF_COMPILE_PRELOAD), and others that want them wait for that. Rows
 * of a table that no run has looked up yet are read from the weight file; one that was cut or written to since it was opened is
 * SF_STATUS_MALFORMED_FILE then. */
SF_API sf_status sf_run(sf_program *program, int32_t n_inputs, const sf_tensor *inputs, int32_t n_outputs,
                        const sf_tensor *outputs);

/* ---- profile ------------------------------------------------------------------------------------------------------ */

/* What the least time of a kernel is limited by: arithmetic, load slots (reading L1), or reading from where its operands lie. */
typedef enum sf_bound { SF_BOUND_COMPUTE = 0, SF_BOUND_L1 = 1, SF_BOUND_L2 = 2, SF_BOUND_L3 = 3, SF_BOUND_MEMORY = 4 } sf_bound;

/* The machine as the program sees it: rates of all its threads together, measured or assumed. */
typedef struct sf_machine_info {
  size_t struct_size;
  const char *target; /* "avx512"; static storage */
  int32_t threads;
  double peak_gflops;                            /* fp32 multiplications and additions */
  double l1_gbps, l2_gbps, l3_gbps, memory_gbps; /* reading */
} sf_machine_info;
SF_API sf_status sf_program_machine(const sf_program *program, sf_machine_info *out_info);

/* One kernel at one extent of the symbolic dimension: what it has to do, and the least time for it. */
typedef struct sf_kernel_info {
  size_t struct_size;
  const char *name, *emitter; /* borrowed from the program */
  const char *weight;         /* the same; NULL: it has none */
  double density;             /* share of nonzeros in the weight; 1 without one */
  int32_t chunks;             /* pieces that threads draw */
  double flops;               /* additions, multiplications, and functions as one each; zeros of the weight do not count */
  double dense_flops;         /* with its zeros */
  double bytes;               /* operands, each element once, the weight as it is packed */
  sf_bound bound;
  double bound_us;     /* of the chunks on the machine's threads */
  double predicted_us; /* what the emitter was chosen for: one thread, at the extent of its class; 0: reference back end */
  double measured_us;  /* the same by sf_tune; 0: it was not timed */
  double floors_us[SF_BOUND_MEMORY + 1]; /* least time by each sf_bound alone; bound_us is the largest */
} sf_kernel_info;
/* Kernels in order of execution where the symbolic dimension is `symbol`; 0 for a negative one. */
SF_API int32_t sf_program_kernel_count(const sf_program *program, int64_t symbol);
SF_API sf_status sf_program_kernel_info(const sf_program *program, int64_t symbol, int32_t kernel, sf_kernel_info *out_info);

/* One chunk of a kernel in one run. Times are those of CLOCK_MONOTONIC. */
typedef struct sf_span {
  int32_t kernel;
  uint64_t thread; /* equal for chunks that one thread computed, and says nothing else */
  int64_t begin_ns, end_ns;
} sf_span;
typedef struct sf_run_profile {
  size_t struct_size;
  sf_span *spans;           /* the host's, of `capacity` */
  int32_t capacity;         /* at least the chunks of all kernels: sf_program_span_count */
  int32_t count;            /* written: spans in order of kernels */
  int64_t begin_ns, end_ns; /* written: the run, with the checks of its tensors */
} sf_run_profile;
SF_API int32_t sf_program_span_count(const sf_program *program, int64_t symbol);
/* sf_run that also says when each chunk ran: two readings of the clock a chunk, and no allocation either. Where `capacity` is too
 * small: SF_STATUS_INVALID_ARGUMENT, nothing is run. */
SF_API sf_status sf_run_profiled(sf_program *program, int32_t n_inputs, const sf_tensor *inputs, int32_t n_outputs,
                                 const sf_tensor *outputs, sf_run_profile *profile);

/* ---- weights ------------------------------------------------------------------------------------------------------ */

typedef struct sf_profile {
  size_t struct_size;
  int64_t rows, columns; /* of the weight as a matrix [output, input * taps] */
  int64_t nonzeros;
  int64_t dead_rows, dead_columns;
  int64_t row_min, row_median, row_max; /* nonzeros a row */
  int32_t nm_n, nm_m;                   /* best n of m along columns, 0 0: none tighter than dense */
  int32_t block_rows, block_columns;    /* largest block that its zeros fill whole, 1 1: none */
  uint8_t digest[16];                   /* XXH3-128 of the pattern */
} sf_profile;
/* Zeros of a weight value of a graph. rank 0 and 1 count as one row. */
SF_API sf_status sf_graph_weight_profile(sf_context *context, const sf_graph *graph, sf_value weight, sf_profile *out_profile);
/* Share of nonzeros in each cell of a `height` x `width` grid laid over the matrix, row-major, 0 to 1. */
SF_API sf_status sf_graph_weight_density(sf_context *context, const sf_graph *graph, sf_value weight, int32_t height, int32_t width,
                                         float *out_cells);

/* ---- cache -------------------------------------------------------------------------------------------------------- */

typedef enum sf_probe_state { SF_PROBE_HIT = 0, SF_PROBE_MISSING = 1, SF_PROBE_STALE = 2, SF_PROBE_FOREIGN = 3 } sf_probe_state;
/* Called for each kernel, packed weight and, with sf_tune, verdict that compiling `graph` would look up. `reason` is empty for a hit. */
typedef void (*sf_probe_fn)(void *user, const char *entry, sf_probe_state state, const char *reason);
SF_API sf_status sf_probe(sf_context *context, const sf_graph *graph, const sf_compile_options *options, sf_probe_fn fn,
                          void *user);

typedef struct sf_cache_stats {
  size_t struct_size;
  int64_t entries;
  uint64_t bytes, max_bytes;
  int64_t removed; /* by this call */
  char directory[256];
} sf_cache_stats;
/* Measures the disk cache. */
SF_API sf_status sf_cache_measure(sf_context *context, sf_cache_stats *out_stats);
/* Removes least recently used entries until at most max_bytes remain, and temporaries left by dead writers. */
SF_API sf_status sf_cache_prune(sf_context *context, uint64_t max_bytes, sf_cache_stats *out_stats);

#ifdef __cplusplus
}
#endif
#endif
