/* What the files of jit/ share: the context's part that owns code, the settings of one compile, the pipeline, the units of code
 * and packed weights, and the program. */
#ifndef SFI_JIT_H
#define SFI_JIT_H

#include "backend.h"
#include "cache.h"
#include "passes.h"
#include "run_limits.h"

#include <sys/types.h>

/* ---- shared: what is linked or packed once in a context ----------------------------------------------------------- */

/* One linked kernel or one packed weight. Immutable but for `references`, which the context's lock guards. */
typedef struct sfi_shared {
  struct sfi_shared *next; /* in its bucket */
  int64_t references;
  sfi_entry_kind kind; /* OBJECT or PACKED */
  sfi_digest digest;   /* of the key */
  char *key;
  size_t key_size;
  /* OBJECT */
  const sfi_backend *backend;
  sf_kernel_fn fn;
  sfi_code *code;
  size_t code_bytes;
  sfi_blob packed; /* PACKED */
} sfi_shared;

typedef struct sfi_shared_table {
  sfi_shared **buckets;
  size_t n_buckets, n;
} sfi_shared_table;

/* jit's part of a context. */
struct sfi_jit {
  sfi_cache *cache;
  pid_t process;              /* that made the context: see execute.c */
  pthread_mutex_t lock;       /* guards what follows */
  const sfi_backend *backend; /* of the loader */
  sfi_loader *loader;         /* NULL until the first kernel is linked */
  sfi_shared_table table;
};

/* The shared thing of that key with a reference of the caller's; NULL where there is none. */
sfi_shared *sfi_shared_find(sf_context *context, sfi_entry_kind kind, sfi_digest digest, const char *key, size_t key_size);
/* Links `object` (moves nothing) or takes `packed` over (empties it), and publishes the result under its key. Where another thread
 * was first, the result is that thread's. */
sf_status sfi_shared_link(sf_context *context, const sfi_backend *backend, sfi_digest digest, const char *key, size_t key_size,
                          const sfi_blob *object, sfi_diag *diag, sfi_shared **out_shared);
sf_status sfi_shared_pack(sf_context *context, sfi_digest digest, const char *key, size_t key_size, sfi_blob *packed,
                          sfi_diag *diag, sfi_shared **out_shared);
void sfi_shared_release(sf_context *context, sfi_shared *shared); /* NULL does nothing */
/* After the last reference; the loader too. */
void sfi_shared_deinit(sf_context *context);

/* ---- back ends ---------------------------------------------------------------------------------------------------- */

/* The back end that makes code for a target; NULL: none in this build, or the reference target. */
const sfi_backend *sfi_backend_of(const sfi_target *target);

/* ---- settings ----------------------------------------------------------------------------------------------------- */

enum { SFI_CLASSES_MAX = 64 };

/* Options of sf_compile, sf_emit and sf_probe, read and checked. */
typedef struct sfi_settings {
  uint32_t flags;
  int32_t level;
  const sfi_target *target;
  const sfi_backend *backend;          /* NULL: everything runs on the reference back end */
  const char *only;                    /* the emitter to take for contractions that it accepts, or NULL */
  sf_tune tune;                        /* OFF, FAST or FULL */
  int32_t n_classes;                   /* >= 1 */
  int64_t bounds[SFI_CLASSES_MAX + 1]; /* upper; the last is INT64_MAX, or 1 for a graph without a symbol */
} sfi_settings;

/* Copies an options struct of the host's, whose first member is its size, to `out` of `size` bytes: what the host's lacks is 0.
 * False where the host's is too small to hold its size, or has a part that is unknown here and not 0. NULL gives zeros. */
bool sfi_options_read(void *out, size_t size, const void *options);
/* The same the other way, for structs that are filled: at most the host's size, which is left as it was. */
void sfi_options_write(void *options, const void *filled, size_t size);
bool sfi_tune_is_known(sf_tune tune);
/* `any_target`: the code will not be run. */
sf_status sfi_settings_read(sf_context *context, const sf_graph *graph, const sf_compile_options *options, bool any_target,
                            sfi_diag *diag, sfi_settings *out_settings);
/* Ends a public call: keeps the error of `diag` in the context and where the options ask for it. Returns its status. */
sf_status sfi_publish(sf_context *context, const sf_compile_options *options, const sfi_diag *diag);

/* ---- pipeline ----------------------------------------------------------------------------------------------------- */

/* Digests and facts of the matrices of one compilation, each computed once. */
typedef struct sfi_weight_facts {
  sf_context *context;
  sfi_diag *diag;
  bool disk;       /* may the disk cache be read and written? */
  sfi_arena arena; /* owns the facts */
  struct sfi_known_digest *digests;
  struct sfi_known_facts *facts;
  int32_t scanned;
} sfi_weight_facts;
/* For sfi_pass_env; `user` is a sfi_weight_facts. */
const sfi_facts *sfi_weight_facts_get(void *user, const sfi_matrix *matrix, sfi_digest digest);
sfi_digest sfi_weight_facts_digest(void *user, const sfi_matrix *matrix);

/* One kernel alone, for timing: operands of ordinary numbers, and something to read between calls, so that weights lie where they do in the
 * whole network. The zero value is empty. */
typedef struct sfi_stage {
  sf_context *context;
  const sfi_plan *plan;
  void *operand[SFI_OPERANDS_MAX]; /* NULL: packed */
  size_t bytes[SFI_OPERANDS_MAX];  /* of those that are not another operand's as well */
  uint8_t *sweep;                  /* NULL: all weights stay in the second cache */
  size_t sweep_bytes;
} sfi_stage;
/* For runs at `symbols`. */
sf_status sfi_stage_init(sfi_stage *stage, sf_context *context, const sfi_plan *plan, const sfi_kernel *kernel,
                         const int64_t *symbols, int32_t n, sfi_diag *diag);
void sfi_stage_deinit(sfi_stage *stage); /* after a failed init, too */
/* Microseconds of one call on one thread: a mean over a few where they are short. */
double sfi_stage_run(const sfi_stage *stage, const sfi_kernel *kernel, sf_kernel_fn fn, void *packed, int64_t symbol);

/* The least of a few runs on a stage of its own. */
sf_status sfi_stage_measure(sf_context *context, const sfi_plan *plan, const sfi_kernel *kernel, sf_kernel_fn fn, void *packed,
                            int64_t symbol, sfi_diag *diag, double *out_us);

/* Choice by timing: the judge of the choice pass, and what it did. */
enum { SFI_MACHINE_SIZE = 384 };
typedef struct sfi_tuning {
  sf_context *context;
  const sfi_settings *settings;
  sfi_diag *diag;
  bool look_only;     /* time nothing: where no verdict is known, prices decide */
  sf_probe_fn report; /* NULL, or told of each verdict that is looked up */
  void *report_user;
  char machine[SFI_MACHINE_SIZE];
  int32_t timed, compiled, packed; /* kernels timed; code and weights made for that */
} sfi_tuning;
void sfi_tuning_init(sfi_tuning *tuning, sf_context *context, const sfi_settings *settings, sfi_diag *diag);
/* For sfi_pass_env; `user` is a sfi_tuning. */
sf_status sfi_tuning_judge(void *user, const sfi_plan *plan, sfi_kernel *candidates, int32_t n, int32_t *out_winner);

/* Model and numbers of the processor, one line; "unknown" where the system does not say. */
void sfi_machine_name(char out[SFI_MACHINE_SIZE]);
/* Replaces the rates of the context's target by those of this machine, from the cache or measured. */
void sfi_calibrate(sf_context *context);

enum { SFI_GRAPHS_MAX = 9 };

/* One run of the passes: a graph and a plan for each class. */
typedef struct sfi_pipeline {
  sf_context *context;
  const sfi_settings *settings;
  sfi_diag *diag;
  const char *traced; /* the pass to print before and after, or NULL */
  sfi_text *trace;
  sfi_weight_facts facts;
  sfi_tuning tuning;
  sf_graph *graphs[SFI_GRAPHS_MAX]; /* made by the graph passes, oldest first; each may borrow data of those before it */
  int32_t n_graphs;
  sfi_plan *plans; /* one a class; NULL before the plan passes */
  int32_t n_plans;
} sfi_pipeline;

void sfi_pipeline_init(sfi_pipeline *pipeline, sf_context *context, const sfi_settings *settings, sfi_diag *diag);
/* Graph passes alone where `graph_only`. `graph` must outlive the pipeline. */
sf_status sfi_pipeline_run(sfi_pipeline *pipeline, const sf_graph *graph, bool graph_only);
static inline sf_graph *sfi_pipeline_graph(const sfi_pipeline *pipeline) {
  return pipeline->graphs[pipeline->n_graphs - 1];
}
void sfi_pipeline_deinit(sfi_pipeline *pipeline);
/* Is there a pass of that name? Else fails with the list of names. */
sf_status sfi_pass_check(const char *name, sfi_diag *diag);

/* ---- units -------------------------------------------------------------------------------------------------------- */

typedef enum sfi_origin { SFI_FROM_MEMORY, SFI_FROM_DISK, SFI_MADE } sfi_origin;

/* One thing that compiling looks up: a kernel's code or a packed weight. Kernels with the same key share one. */
typedef struct sfi_unit {
  sfi_entry_kind kind;
  const sfi_plan *plan; /* the first kernel that asks for it */
  const sfi_kernel *kernel;
  const char *key;
  size_t key_size;
  sfi_digest digest;
  sfi_origin origin;
  char reason[128];   /* why it was not in the cache; "": plainly missing */
  sfi_shared *shared; /* NULL with SF_COMPILE_CACHE_ONLY, and while it waits in the cache */
  size_t bytes;
  sfi_diag diag;
} sfi_unit;

/* Units of one kernel; -1: none. */
typedef struct sfi_needs {
  int32_t code, packed;
  bool first_code, first_packed; /* is it the first that asks for the unit? */
} sfi_needs;

typedef struct sfi_units {
  sf_context *context;
  const sfi_settings *settings;
  sfi_arena arena; /* keys */
  sfi_unit *units;
  size_t n, capacity;
  sfi_needs **needs; /* [class][kernel] */
} sfi_units;

void sfi_units_init(sfi_units *units, sf_context *context, const sfi_settings *settings);
/* Adds the units of one kernel, unless they are listed already. */
sf_status sfi_units_add(sfi_units *units, const sfi_plan *plan, const sfi_kernel *kernel, sfi_diag *diag, sfi_needs *out_needs);
/* Lists the units of all plans with their keys. */
sf_status sfi_units_list(sfi_units *units, sf_context *context, const sfi_settings *settings, const sfi_plan *plans,
                         int32_t n_plans, sfi_diag *diag);
/* From the context's memory, the disk, or made; missing ones in parallel. `may_wait`: packed weights that are in the cache, and whose
 * elements a file has, are left there, and have no `shared`. */
sf_status sfi_units_obtain(sfi_units *units, bool may_wait, sfi_diag *diag);
/* Gets what waits of the packed weights of n kernels. After an error it may be tried again. */
sf_status sfi_units_load(sfi_units *units, const sfi_needs *needs, size_t n, sfi_diag *diag);
sf_probe_state sfi_unit_probe(const sfi_units *units, const sfi_unit *unit, char *reason, size_t reason_size);
void sfi_units_deinit(sfi_units *units); /* gives the references of `shared` back */

/* body(argument, i) for i in [0, count), on the host's threads or on ours, which end with the call. */
void sfi_spread(sf_context *context, int64_t count, void (*body)(void *argument, int64_t i), void *argument);

/* ---- program ------------------------------------------------------------------------------------------------------ */

/* Of one kernel; `packed` and its origin are there once the class is loaded. */
typedef struct sfi_loaded {
  sf_kernel_fn fn;                 /* NULL: a node, run by the reference back end */
  const sfi_shared *code, *packed; /* the units' */
  sfi_origin code_origin, packed_origin;
  const char *reason; /* why the code was made; "": it was not, or was plainly missing */
} sfi_loaded;

typedef struct sfi_class {
  int64_t symbol_max;
  sfi_plan plan;
  sfi_loaded *loaded;    /* one a kernel */
  void **fixed;          /* one a buffer: address of STATIC and PACKED ones, NULL for the others */
  size_t n_operands;     /* of all kernels together */
  atomic_bool is_loaded; /* are the packed weights there? */
} sfi_class;

/* What the kernels of a program run and read beside its statics, and what loading needs of that which still waits in the cache. */
typedef struct sfi_stock {
  pthread_mutex_t lock; /* of what loading changes: the units, and classes that are not loaded */
  sfi_settings settings;
  sfi_units units;
  struct sfi_mapping
      *weights; /* the host graph's file: from there is packed anew what the cache has no more. NULL: nothing waits */
} sfi_stock;

typedef struct sfi_slot sfi_slot;
typedef struct sfi_tables sfi_tables; /* statics of which runs load the rows that they want; see tables.c */

/* Immutable but for the references, the slots and what waits. */
struct sf_program {
  atomic_int references;
  sf_context *context;
  sfi_arena arena;   /* owns classes and what they point to, and the facts */
  sf_graph *graph;   /* canonical; its leaves have no data but where a kernel reads it, and that is the program's */
  sfi_blob *statics; /* one a graph value, empty where no kernel reads it */
  size_t n_statics;
  sfi_tables *tables; /* NULL: there are none */
  bool symbolic;
  sfi_symbol_limits limits; /* of the symbolic dimension */
  bool indexed;             /* does some operation use an input's numbers as indices? */
  int32_t n_classes;
  sfi_class *classes;
  sfi_stock *stock;
  sfi_slot *slots; /* instances; see run.c */
  int32_t n_slots;
};

/* Takes plans, facts, graph and units over; what it takes is emptied. `graph`: the host's. */
sf_status sfi_program_build(const sf_graph *graph, sfi_pipeline *pipeline, sfi_units *units, sfi_diag *diag,
                            sf_program **out_program);
/* Takes the units of the plans of `program`, which has its classes, over. */
sf_status sfi_stock_create(sf_program *program, const sf_graph *graph, const sfi_plan *plans, sfi_units *units, sfi_diag *diag);
void sfi_stock_destroy(sf_program *program);
/* Sees to it that the packed weights of a class are in memory: where they wait in the cache, they are read, or, where they are there no
 * more, made. Thread-safe; after an error it may be tried again. */
sf_status sfi_class_load(const sf_program *program, sfi_class *class, sfi_diag *diag);
/* Room for all statics, and what stands in them but for tables. `graph`: the host's. */
sf_status sfi_statics_create(sf_program *program, const sf_graph *graph, const sfi_pipeline *pipeline, sfi_diag *diag);
/* Finds out which statics are tables. */
sf_status sfi_tables_create(sf_program *program, const sf_graph *graph, const sfi_pipeline *pipeline, sfi_diag *diag);
bool sfi_tables_have(const sf_program *program, sf_value value);
/* Sees to it that the rows are in memory that the inputs ask for; these are within their limits. Thread-safe. */
sf_status sfi_tables_read(const sf_program *program, const sf_tensor *inputs, sfi_diag *diag);
void sfi_tables_destroy(sf_program *program);
sf_status sfi_slots_create(sf_program *program, sfi_diag *diag);
void sfi_slots_destroy(sf_program *program);

/* The least time of a linked kernel at `symbol` on `threads`, by each limit of the target alone, and what its operands take. */
void sfi_kernel_floors(const sfi_class *class, const sfi_kernel *kernel, int64_t symbol, int32_t threads,
                       double out_us[SF_BOUND_MEMORY + 1], double *out_bytes);
sf_bound sfi_largest_floor(const double us[SF_BOUND_MEMORY + 1]);

/* ---- explanation -------------------------------------------------------------------------------------------------- */

/* What explanations say of one kernel's time: on one thread, where the class is priced. */
typedef struct sfi_kernel_times {
  int64_t symbol;
  double predicted_us, measured_us; /* 0: not known */
  double floors_us[SF_BOUND_MEMORY + 1];
  sf_bound bound;
} sfi_kernel_times;
/* measure: time the kernel now. */
sf_status sfi_kernel_times_of(const sf_program *program, const sfi_class *class, size_t kernel, bool measure, sfi_diag *diag,
                              sfi_kernel_times *out_times);
/* "compiled", "packed now", "from disk", "from memory". */
const char *sfi_origin_text(sfi_origin origin, bool code);
/* sf_program_explain as JSON. */
sf_status sfi_explain_json(const sf_program *program, bool measure, sfi_diag *diag, sfi_text *out);
extern const char *const sfi_bound_names[SF_BOUND_MEMORY + 1];

/* One kernel ready to run: addresses resolved, cut into chunks. */
typedef struct sfi_launch {
  const sfi_kernel *kernel;
  sf_kernel_fn fn;
  void **operands;
  int64_t tiles;
  int32_t chunks;    /* 1: not worth spreading */
  size_t copy_bytes; /* of a node kernel without a node: a copy */
} sfi_launch;
/* Of a kernel at `symbol`, in as many chunks as pay; `operands` is left to the caller. */
sfi_launch sfi_launch_of(const sf_context *context, const sfi_plan *plan, const sfi_kernel *kernel, sf_kernel_fn fn,
                         int64_t symbol);
/* Runs them in order. `spans`: NULL, or room for one a chunk. */
void sfi_execute(sf_context *context, const sf_graph *graph, const sfi_launch *launches, size_t n, int64_t symbol, sf_span *spans);
int64_t sfi_now_ns(void);
/* The class whose kernels run at `symbol`. */
sfi_class *sfi_class_of(const sf_program *program, int64_t symbol);

#endif
