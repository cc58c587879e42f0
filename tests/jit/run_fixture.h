/* What the tests of programs share: contexts, small networks that between them use every anchor, tensors for a program at an extent of
 * the symbol, a parallel_for on threads of its own. */
#ifndef SFI_RUN_FIXTURE_H
#define SFI_RUN_FIXTURE_H

#include "bound.h"
#include "compare.h"
#include "failing_allocator.h"
#include "jit.h"
#include "suite.h"

#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NETWORKS = 6, PORTS_MAX = 4 };

/* ---- numbers ------------------------------------------------------------------------------------------------------ */

static inline uint32_t random_u32(uint64_t *state) {
  *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (uint32_t)(*state >> 33);
}

static inline float random_float(uint64_t *state) {
  return (float)random_u32(state) / 1073741824.0f - 1;
}

/* Elements of which `zeros` of 100 are zero. The graph copies them. */
static inline const float *random_weights(uint64_t *state, size_t n, uint32_t zeros, float *scratch) {
  for (size_t i = 0; i < n; i++) scratch[i] = random_u32(state) % 100 < zeros ? 0 : random_float(state);
  return scratch;
}

/* ---- networks ----------------------------------------------------------------------------------------------------- */

static inline sf_value weight(sf_graph *g, uint64_t *state, uint32_t zeros, int32_t rank, const int64_t *dims) {
  static const size_t most = 1 << 16;
  size_t n = 1;
  for (int32_t d = 0; d < rank; d++) n *= (size_t)dims[d];
  float *scratch = malloc(most * sizeof *scratch);
  ck_assert(n <= most && scratch);
  sf_value v = sf_graph_weight(g, NULL, SF_F32, rank, dims, random_weights(state, n, zeros, scratch), SF_COPY);
  free(scratch);
  return v;
}

#define DIMS(...)                                                                                                                  \
  (const int64_t[]) {                                                                                                              \
    __VA_ARGS__                                                                                                                    \
  }

static inline void build_dense(sf_graph *g, uint64_t *state) {
  sf_value x = sf_graph_input(g, "x", SF_F32, 2, DIMS(SF_DIM_SYMBOLIC, 37));
  sf_value h = sf_matmul(g, x, weight(g, state, 80, 2, DIMS(53, 37)), false, true);
  h = sf_unary(g, SF_OP_RELU, sf_binary(g, SF_OP_ADD, h, weight(g, state, 0, 1, DIMS(53))));
  sf_value y = sf_matmul(g, h, weight(g, state, 50, 2, DIMS(53, 10)), false, false);
  sf_graph_output(g, "y", sf_softmax(g, y, -1));
}

static inline void build_image(sf_graph *g, uint64_t *state) {
  sf_value x = sf_graph_input(g, "image", SF_F32, 4, DIMS(SF_DIM_SYMBOLIC, 3, 9, 11));
  sf_conv2d_options conv;
  SF_INIT(&conv);
  conv.pad[0] = conv.pad[1] = conv.pad[2] = conv.pad[3] = 1;
  sf_value h = sf_conv2d(g, x, weight(g, state, 60, 4, DIMS(8, 3, 3, 3)), weight(g, state, 0, 1, DIMS(8)), &conv);
  h = sf_unary(g, SF_OP_RELU, h);
  const sf_attr pool[] = {{.id = SF_ATTR_KERNEL, .count = 2, .ints = DIMS(2, 2)},
                          {.id = SF_ATTR_STRIDE, .count = 2, .ints = DIMS(2, 2)}};
  h = sf_graph_op(g, SF_OP_MAX_POOL, 1, &h, 2, pool);
  SF_INIT(&conv);
  conv.groups = 2;
  h = sf_conv2d(g, h, weight(g, state, 30, 4, DIMS(6, 4, 2, 2)), SF_NO_VALUE, &conv);
  h = sf_unary(g, SF_OP_GLOBAL_AVG_POOL, h);
  h = sf_reshape(g, h, 2, DIMS(-1, 6));
  sf_graph_output(g, "scores", sf_matmul(g, h, weight(g, state, 0, 2, DIMS(6, 5)), false, false));
}

/* Outputs that alias, an output that is an input, one that is a constant, one of a size that does not depend on the symbol. */
static inline void build_mixed(sf_graph *g, uint64_t *state) {
  sf_value x = sf_graph_input(g, "x", SF_F32, 2, DIMS(SF_DIM_SYMBOLIC, 12));
  sf_value z = sf_graph_input(g, "z", SF_F32, 2, DIMS(SF_DIM_SYMBOLIC, 12));
  sf_value both = sf_graph_op(g, SF_OP_CONCAT, 2, (const sf_value[]){x, z}, 1, (const sf_attr[]){{.id = SF_ATTR_AXIS, .i = 1}});
  sf_value n = sf_graph_op(g, SF_OP_LAYER_NORM, 1, &both, 0, NULL);
  sf_value t = sf_unary(g, SF_OP_TANH, sf_binary(g, SF_OP_MUL, n, weight(g, state, 10, 1, DIMS(24))));
  const sf_attr axis = {.id = SF_ATTR_AXES, .count = 1, .ints = DIMS(0)};
  sf_graph_output(g, "sum", sf_graph_op(g, SF_OP_REDUCE_SUM, 1, &t, 1, &axis));
  sf_graph_output(g, "t", sf_transpose(g, t, 2, DIMS(1, 0)));
  sf_graph_output(g, "x_again", x);
  sf_graph_output(g, "products", sf_matmul(g, x, z, false, true));
}

static inline void build_fixed(sf_graph *g, uint64_t *state) {
  sf_value x = sf_graph_input(g, "x", SF_F32, 2, DIMS(5, 19));
  sf_value y = sf_unary(g, SF_OP_GELU, sf_matmul(g, x, weight(g, state, 90, 2, DIMS(19, 64)), false, false));
  sf_graph_output(g, "y", y);
  sf_graph_output(g, "again", y);
  sf_graph_output(g, "table", weight(g, state, 0, 1, DIMS(7)));
}

/* Wide enough for its kernels to be worth spreading over threads at a hundred columns. */
static inline void build_wide(sf_graph *g, uint64_t *state) {
  sf_value x = sf_graph_input(g, "x", SF_F32, 2, DIMS(SF_DIM_SYMBOLIC, 256));
  sf_value w = weight(g, state, 20, 2, DIMS(256, 256));
  sf_value h = x;
  for (int i = 0; i < 3; i++) h = sf_unary(g, SF_OP_SILU, sf_matmul(g, h, w, false, i % 2));
  sf_graph_output(g, "h", h);
}

/* An encoder's layer as exporters write it: heads cut out and put together, a mask of 0 and 1 for the rows that count. */
static inline void build_encoder(sf_graph *g, uint64_t *state) {
  sf_value x = sf_graph_input(g, "x", SF_F32, 3, DIMS(1, SF_DIM_SYMBOLIC, 24));
  sf_value counts = sf_graph_input(g, "counts", SF_F32, 2, DIMS(1, SF_DIM_SYMBOLIC)), heads[3];
  const float values[] = {1, -30, 2.8284271f};
  sf_value number[3];
  for (int i = 0; i < 3; i++) number[i] = sf_graph_constant(g, SF_F32, 0, NULL, &values[i]);
  for (int i = 0; i < 3; i++) {
    sf_value p = sf_matmul(g, x, weight(g, state, 40, 2, DIMS(24, 24)), false, false);
    p = sf_reshape(g, sf_binary(g, SF_OP_ADD, weight(g, state, 0, 1, DIMS(24)), p), 4, DIMS(0, 0, 3, 8));
    heads[i] = sf_transpose(g, p, 4, i == 1 ? DIMS(0, 2, 3, 1) : DIMS(0, 2, 1, 3));
  }
  sf_value mask = sf_reshape(g, sf_binary(g, SF_OP_SUB, number[0], counts), 4, DIMS(1, 1, 1, -1));
  mask = sf_binary(g, SF_OP_MUL, mask, number[1]);
  sf_value scores = sf_binary(g, SF_OP_DIV, sf_matmul(g, heads[0], heads[1], false, false), number[2]);
  sf_value y = sf_matmul(g, sf_softmax(g, sf_binary(g, SF_OP_ADD, scores, mask), -1), heads[2], false, false);
  y = sf_reshape(g, sf_transpose(g, y, 4, DIMS(0, 2, 1, 3)), 3, DIMS(0, 0, 24));
  y = sf_binary(g, SF_OP_ADD, sf_matmul(g, y, weight(g, state, 40, 2, DIMS(24, 24)), false, false), x);
  sf_graph_output(g, "y", sf_graph_op(g, SF_OP_LAYER_NORM, 1, &y, 0, NULL));
}

static inline sf_graph *build_network(sf_context *context, int network, uint64_t seed) {
  static void (*const builders[NETWORKS])(sf_graph *, uint64_t *) = {build_dense, build_image, build_mixed,
                                                                     build_fixed, build_wide,  build_encoder};
  static const char *const names[NETWORKS] = {"dense", "image", "mixed", "fixed", "wide", "attention"};
  sf_graph *g;
  uint64_t state = seed * 77 + 1;
  if (sf_graph_create(context, names[network], &g) != SF_OK) return NULL;
  builders[network](g, &state);
  return g;
}

/* ---- tensors ------------------------------------------------------------------------------------------------------ */

typedef struct tensors {
  int32_t n_in, n_out;
  sf_tensor in[PORTS_MAX], out[PORTS_MAX];
  size_t out_bytes[PORTS_MAX];
} tensors;

static inline sf_tensor tensor_at(const sf_graph *graph, sf_value value, int64_t symbol, size_t *out_elements) {
  const sfi_node *node = &graph->nodes[value];
  sf_tensor t = {.dtype = SF_F32, .rank = node->shape.rank};
  size_t n = 1;
  for (int32_t d = 0; d < t.rank; d++) {
    ck_assert(sfi_poly_eval(node->shape.dims[d], symbol, &t.dims[d]));
    n *= (size_t)t.dims[d];
  }
  *out_elements = n;
  t.data = aligned_alloc(64, (n * sizeof(double) + 64) / 64 * 64);
  ck_assert_ptr_nonnull(t.data);
  return t;
}

/* Inputs random by `seed`, outputs filled with a pattern that no result has. */
static inline void tensors_make(const sf_graph *graph, int64_t symbol, uint64_t seed, tensors *out) {
  *out = (tensors){.n_in = (int32_t)graph->n_inputs, .n_out = (int32_t)graph->n_outputs};
  ck_assert(out->n_in <= PORTS_MAX && out->n_out <= PORTS_MAX);
  uint64_t state = seed;
  for (int32_t i = 0; i < out->n_in; i++) {
    size_t n;
    out->in[i] = tensor_at(graph, graph->inputs[i], symbol, &n);
    for (size_t e = 0; e < n; e++) ((float *)out->in[i].data)[e] = random_float(&state);
  }
  for (int32_t i = 0; i < out->n_out; i++) {
    size_t n;
    out->out[i] = tensor_at(graph, graph->outputs[i].value, symbol, &n);
    out->out_bytes[i] = n * sizeof(float);
    memset(out->out[i].data, 0xa5, n * sizeof(float));
  }
}

static inline void tensors_free(tensors *t) {
  for (int32_t i = 0; i < t->n_in; i++) free(t->in[i].data);
  for (int32_t i = 0; i < t->n_out; i++) free(t->out[i].data);
}

static inline bool tensors_untouched(const tensors *t) {
  for (int32_t i = 0; i < t->n_out; i++) {
    const unsigned char *bytes = t->out[i].data;
    for (size_t b = 0; b < t->out_bytes[i]; b++) {
      if (bytes[b] != 0xa5) return false;
    }
  }
  return true;
}

static inline bool tensors_equal(const tensors *a, const tensors *b) {
  for (int32_t i = 0; i < a->n_out; i++) {
    if (memcmp(a->out[i].data, b->out[i].data, a->out_bytes[i]) != 0) return false;
  }
  return true;
}

static inline sf_status run_tensors(sf_program *program, const tensors *t) {
  return sf_run(program, t->n_in, t->in, t->n_out, t->out);
}

/* Are the outputs those of the reference back end in fp64, up to the bound of each element that the graph's sums have in fp32? */
static inline void check_against_reference(const sf_graph *graph, int64_t symbol, const tensors *got) {
  sf_tensor want[PORTS_MAX], bound[PORTS_MAX];
  for (int32_t i = 0; i < got->n_out; i++) {
    size_t n;
    want[i] = tensor_at(graph, graph->outputs[i].value, symbol, &n);
    bound[i] = tensor_at(graph, graph->outputs[i].value, symbol, &n);
    want[i].dtype = bound[i].dtype = SF_F64;
  }
  ck_assert(sf_bounded_run(graph, symbol, got->in, want, bound));
  for (int32_t i = 0; i < got->n_out; i++) {
    sf_comparison found;
    char text[256];
    if (!sf_compare_bounded(&got->out[i], &want[i], &bound[i], &found) || found.skipped) {
      sf_comparison_print(&found, text, sizeof text);
      ck_abort_msg("%s at %lld: output %d: %s", graph->name, (long long)symbol, i, text);
    }
    free(want[i].data);
    free(bound[i].data);
  }
}

/* Runs the program at an extent on tensors of their own, made from a seed, and checks the answer. */
static inline void check_answer(sf_program *program, const sf_graph *graph, int64_t symbol, uint64_t seed) {
  tensors t;
  tensors_make(graph, symbol, seed, &t);
  ck_assert_int_eq(run_tensors(program, &t), SF_OK);
  check_against_reference(graph, symbol, &t);
  tensors_free(&t);
}

/* Compiles a graph without a symbol as it is chosen, then with each emitter of contractions, and checks each answer. */
static inline void check_every_emitter(sf_context *context, const sf_graph *graph) {
  const sfi_backend *backend = sfi_backend_of(&context->target);
  for (size_t i = 0; i <= (backend ? backend->n_emitters : 0); i++) {
    const sfi_emitter *only = i ? backend->emitters[i - 1] : NULL;
    if (only && only->anchor != SFI_ANCHOR_CONTRACT) continue;
    sf_program *program;
    sf_compile_options options;
    SF_INIT(&options);
    options.emitter = only ? only->name : NULL;
    ck_assert_int_eq(sf_compile(context, graph, &options, &program, NULL), SF_OK);
    check_answer(program, graph, 1, 3);
    sf_program_release(program);
  }
}

/* ---- contexts ----------------------------------------------------------------------------------------------------- */

/* No disk cache, the given threads. */
static inline sf_context *plain_context(int32_t threads) {
  sf_context_options options;
  sf_context *context;
  SF_INIT(&options);
  options.cache_dir = "";
  options.threads = threads;
  ck_assert_int_eq(sf_context_create(&options, &context), SF_OK);
  return context;
}

static inline sf_program *compile(sf_context *context, const sf_graph *graph) {
  sf_program *program;
  sf_error error = {0};
  sf_compile_options options;
  SF_INIT(&options);
  options.error = &error;
  sf_status status = sf_compile(context, graph, &options, &program, NULL);
  ck_assert_msg(status == SF_OK, "%s: %s", graph->name, error.message);
  return program;
}

/* ---- a host's parallel_for ---------------------------------------------------------------------------------------- */

typedef struct host_loop {
  void (*body)(void *argument, int64_t i);
  void *argument;
  int64_t begin, end;
} host_loop;

static void *host_thread(void *argument) {
  const host_loop *loop = argument;
  for (int64_t i = loop->begin; i < loop->end; i++) loop->body(loop->argument, i);
  return NULL;
}

/* Two threads, the second half first. `user`, where given, counts the calls. */
static inline void host_parallel_for(void *user, int64_t count, void (*body)(void *argument, int64_t i), void *argument) {
  if (user) atomic_fetch_add((atomic_int *)user, 1);
  host_loop halves[2] = {{body, argument, count / 2, count}, {body, argument, 0, count / 2}};
  pthread_t thread;
  ck_assert_int_eq(pthread_create(&thread, NULL, host_thread, &halves[0]), 0);
  host_thread(&halves[1]);
  pthread_join(thread, NULL);
}

/* ---- threads at once ---------------------------------------------------------------------------------------------- */

/* A thread for each of n workers of so many bytes; back when all have ended. */
static inline void work_at_once(void *(*body)(void *worker), void *workers, size_t n, size_t bytes) {
  enum { MOST = 256 };
  pthread_t threads[MOST];
  ck_assert_uint_le(n, MOST);
  for (size_t i = 0; i < n; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, body, (char *)workers + i * bytes), 0);
  for (size_t i = 0; i < n; i++) pthread_join(threads[i], NULL);
}

/* ---- folders ------------------------------------------------------------------------------------------------------ */

#endif
