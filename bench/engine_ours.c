/* Ours as an engine. ROW and TOKENS go through sf_run, conversions included. For PANEL the plan's kernels before the contraction
 * bring X into its layout, those behind it bring Y out, and the contraction alone is timed, on the executor of sf_run: that is its
 * share of a network whose activations stay in panels. */
#include "bench.h"
#include "cpu.h"
#include "jit.h"
#include "passes.h"

#include <math.h>
#include <stdlib.h>

static const char tuned[] = "tuned"; /* among the emitters: the one that was the fastest when timed, sf_tune full */

typedef struct ours {
  bench_problem p;
  sf_context *context;
  sf_graph *graph;
  sf_program *program;
  sf_tensor input, output;
  bool tokens; /* the graph's X is [columns][cols] */
  bench_ours facts;
  /* PANEL: buffers of its own for everything, so that X is still there after the first run */
  void **bases;
  void **operands;
  sfi_launch *launches;
  size_t contraction; /* index of the kernel; n_kernels: none */
} ours;

/* ---- the program -------------------------------------------------------------------------------------------------- */

static sf_tensor tensor_of(int32_t rank, int64_t a, int64_t b, int64_t c, int64_t d) {
  return (sf_tensor){.dtype = SF_F32, .rank = rank, .dims = {a, b, c, d}};
}

static sf_status build(ours *s) {
  const bench_problem *p = &s->p;
  const bench_conv *c = &p->conv;
  sf_status status = sf_graph_create(s->context, "bench", &s->graph);
  if (status != SF_OK) return status;
  sf_value y;
  if (c->batch) {
    s->input = tensor_of(4, c->batch, c->channels, c->height, c->width);
    s->output = tensor_of(4, c->batch, p->rows, c->out_height, c->out_width);
    const int64_t dims[] = {p->rows, p->cols / (c->kernel[0] * c->kernel[1]), c->kernel[0], c->kernel[1]};
    sf_conv2d_options o;
    SF_INIT(&o);
    for (int i = 0; i < 4; i++) o.pad[i] = c->pad;
    o.stride[0] = o.stride[1] = c->stride;
    const sf_value x = sf_graph_input(s->graph, "x", SF_F32, 4, s->input.dims);
    y = sf_conv2d(s->graph, x, sf_graph_weight(s->graph, "w", SF_F32, 4, dims, p->w, SF_BORROW), SF_NO_VALUE, &o);
  } else {
    const int64_t dims[] = {p->rows, p->cols};
    s->tokens = p->layout != BENCH_ROW;
    s->input = s->tokens ? tensor_of(2, p->columns, p->cols, 0, 0) : tensor_of(2, p->cols, p->columns, 0, 0);
    s->output = s->tokens ? tensor_of(2, p->columns, p->rows, 0, 0) : tensor_of(2, p->rows, p->columns, 0, 0);
    const sf_value x = sf_graph_input(s->graph, "x", SF_F32, 2, s->input.dims);
    const sf_value w = sf_graph_weight(s->graph, "w", SF_F32, 2, dims, p->w, SF_BORROW);
    y = s->tokens ? sf_matmul(s->graph, x, w, false, true) : sf_matmul(s->graph, w, x, false, false);
  }
  sf_graph_output(s->graph, "y", y);
  /* A second user of Y keeps it in its own layout: the way out to rows cannot become part of the contraction. */
  if (p->layout == BENCH_PANEL) sf_graph_output(s->graph, "relu", sf_unary(s->graph, SF_OP_RELU, y));
  return sf_graph_status(s->graph);
}

static sf_status compile(ours *s, const char *emitter, sf_error *error) {
  sf_context_options context;
  sf_compile_options options;
  sf_compile_stats stats;
  SF_INIT(&context);
  SF_INIT(&options);
  SF_INIT(&stats);
  context.threads = s->p.threads;
  context.cache_dir = "";
  if (emitter && strcmp(emitter, tuned) == 0)
    options.tune = SF_TUNE_FULL;
  else
    options.emitter = emitter;
  options.error = error;
  sf_status status = sf_context_create(&context, &s->context);
  if (status != SF_OK) return tool_fail(error, status, NULL, 0, 0, "no context: %s", sf_status_text(status));
  status = build(s);
  if (status != SF_OK) {
    sf_context_take_error(s->context, error);
    return status;
  }
  status = sf_compile(s->context, s->graph, &options, &s->program, &stats);
  s->facts = (bench_ours){.compile_ms = stats.milliseconds, .code_bytes = stats.code_bytes, .packed_bytes = stats.packed_bytes};
  return status;
}

static void find_contraction(ours *s) {
  const sfi_plan *plan = &s->program->classes[0].plan;
  s->contraction = plan->n_kernels;
  for (size_t k = 0; k < plan->n_kernels; k++)
    if (plan->kernels[k].anchor == SFI_ANCHOR_CONTRACT) s->contraction = k;
  s->facts.kernel = "reference";
  s->facts.choice = "";
  if (s->contraction == plan->n_kernels) return;
  const sfi_kernel *kernel = &plan->kernels[s->contraction];
  s->facts.kernel = kernel->emitter->name;
  s->facts.choice = kernel->choice;
  s->facts.predicted_us = kernel->predicted_us;
}

/* ---- one kernel --------------------------------------------------------------------------------------------------- */

static bool prepare_kernels(ours *s) {
  const sfi_class *class = &s->program->classes[0];
  const sfi_plan *plan = &class->plan;
  s->bases = calloc(plan->n_buffers + 1, sizeof *s->bases);
  s->operands = calloc(class->n_operands + 1, sizeof *s->operands);
  s->launches = calloc(plan->n_kernels + 1, sizeof *s->launches);
  if (!s->bases || !s->operands || !s->launches) return false;
  for (size_t b = 0; b < plan->n_buffers; b++) {
    size_t bytes;
    s->bases[b] = class->fixed[b];
    if (s->bases[b]) continue;
    if (!sfi_buffer_bytes(&plan->buffers[b], 1, &bytes)) return false;
    if (!(s->bases[b] = aligned_alloc(64, (size_t)sfi_round_up((int64_t)bytes + 64, 64)))) return false;
    memset(s->bases[b], 0, bytes + 64); /* pages are there before the first run */
  }
  void **operands = s->operands;
  for (size_t k = 0; k < plan->n_kernels; k++) {
    const sfi_kernel *kernel = &plan->kernels[k];
    s->launches[k] = sfi_launch_of(s->context, plan, kernel, class->loaded[k].fn, 1);
    s->launches[k].operands = operands;
    for (int32_t o = 0; o < kernel->n_operands; o++) *operands++ = s->bases[kernel->operand[o].buffer];
  }
  return true;
}

/* The first input or output. */
static float *buffer_of(const ours *s, sfi_buffer_kind kind) {
  const sfi_plan *plan = &s->program->classes[0].plan;
  for (size_t b = 0; b < plan->n_buffers; b++)
    if (plan->buffers[b].kind == kind && plan->buffers[b].index == 0) return s->bases[b];
  return NULL;
}

static size_t tensor_bytes(const sf_tensor *tensor) {
  size_t bytes = sizeof(float);
  for (int32_t d = 0; d < tensor->rank; d++) bytes *= (size_t)tensor->dims[d];
  return bytes;
}

static void transpose(const float *from, float *to, int64_t rows, int64_t cols) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < cols; c++) to[c * rows + r] = from[r * cols + c];
}

static void load(void *state, const float *x) {
  ours *s = state;
  const sfi_kernel *kernel = s->launches[s->contraction].kernel;
  size_t bytes;
  float *input = buffer_of(s, SFI_BUFFER_INPUT);
  if (s->tokens)
    transpose(x, input, s->p.cols, s->p.columns);
  else
    memcpy(input, x, tensor_bytes(&s->input));
  sfi_execute(s->context, s->program->graph, s->launches, s->contraction, 1, NULL);
  const int32_t out = kernel->operand[0].buffer;
  sfi_buffer_bytes(&s->program->classes[0].plan.buffers[out], 1, &bytes);
  for (size_t i = 0; i < bytes / sizeof(float); i++) ((float *)s->bases[out])[i] = NAN;
}

static void store(void *state, float *y) {
  ours *s = state;
  const size_t behind = s->contraction + 1;
  sfi_execute(s->context, s->program->graph, s->launches + behind, s->program->classes[0].plan.n_kernels - behind, 1, NULL);
  const float *output = buffer_of(s, SFI_BUFFER_OUTPUT);
  if (s->tokens)
    transpose(output, y, s->p.columns, s->p.rows);
  else
    memcpy(y, output, tensor_bytes(&s->output));
}

/* ---- the engine --------------------------------------------------------------------------------------------------- */

static void run(void *state, const float *x, float *y) {
  ours *s = state;
  if (s->launches) {
    sfi_execute(s->context, s->program->graph, &s->launches[s->contraction], 1, 1, NULL);
    return;
  }
  s->input.data = (void *)(uintptr_t)x;
  s->output.data = y;
  sf_run(s->program, 1, &s->input, 1, &s->output);
}

static void destroy(void *state) {
  ours *s = state;
  if (s->bases) {
    const sfi_class *class = &s->program->classes[0];
    for (size_t b = 0; b < class->plan.n_buffers; b++)
      if (!class->fixed[b]) free(s->bases[b]);
  }
  free(s->bases);
  free(s->operands);
  free(s->launches);
  sf_program_release(s->program);
  sf_graph_release(s->graph);
  sf_context_release(s->context);
  free(s);
}

static void describe(char *text, size_t size) {
  snprintf(text, size, "SparseFlow %s, %s", sf_version(), bench_compiler());
}

static const bench_peer natural = {"ours", false, describe, NULL, run, NULL, NULL, destroy};
static const bench_peer single_kernel = {"ours", false, describe, NULL, run, load, store, destroy};

/* Layout of the contraction's X and Y: "panel64", "row", "panel64 to row". */
static void name_layout(const ours *s, char *text, size_t size) {
  static const char *const natural_names[] = {"row", "panel", "tokens"};
  if (s->p.layout != BENCH_PANEL) {
    snprintf(text, size, "%s", s->p.conv.batch ? "NCHW" : natural_names[s->p.layout]);
    return;
  }
  const sfi_plan *plan = &s->program->classes[0].plan;
  const sfi_kernel *kernel = &plan->kernels[s->contraction];
  char side[2][24];
  for (int i = 0; i < 2; i++) {
    const int64_t panel = plan->buffers[kernel->operand[1 - i].buffer].panel;
    if (panel)
      snprintf(side[i], sizeof side[i], "panel%lld", (long long)panel);
    else
      snprintf(side[i], sizeof side[i], "%s", s->p.conv.batch && i == 0 ? "padded" : "row");
  }
  snprintf(text, size, strcmp(side[0], side[1]) == 0 ? "%s" : "%s to %s", side[0], side[1]);
}

void bench_ours_open(const bench_problem *problem, const char *emitter, bench_engine *out) {
  ours *s = calloc(1, sizeof *s);
  sf_error error = {0};
  *out = (bench_engine){0};
  snprintf(out->name, sizeof out->name, "%s", emitter ? emitter : "ours");
  if (!s) {
    snprintf(out->why, sizeof out->why, "out of memory");
    return;
  }
  s->p = *problem;
  if (compile(s, emitter, &error) != SF_OK) {
    snprintf(out->why, sizeof out->why, "%.255s", error.message);
  } else {
    find_contraction(s);
    const bool single = problem->layout == BENCH_PANEL;
    if (emitter && strcmp(emitter, tuned) != 0 && strcmp(emitter, s->facts.kernel) != 0) { /* asked for, and it refused */
      snprintf(out->why, sizeof out->why, "%.255s", s->facts.choice);
      destroy(s);
      return;
    }
    if (single && s->contraction == s->program->classes[0].plan.n_kernels) {
      snprintf(out->why, sizeof out->why, "no kernel to time: the reference back end");
    } else if (single && !prepare_kernels(s)) {
      snprintf(out->why, sizeof out->why, "out of memory");
    } else {
      name_layout(s, out->layout, sizeof out->layout);
      out->peer = single ? &single_kernel : &natural;
      out->state = s;
      return;
    }
  }
  destroy(s);
}

bench_ours bench_ours_of(const bench_engine *engine) {
  return ((const ours *)engine->state)->facts;
}

const char *bench_emitter(size_t i) {
#if defined(SFI_HAVE_LLVM)
  for (size_t e = 0; e < sfi_cpu_backend.n_emitters; e++) {
    if (sfi_cpu_backend.emitters[e]->anchor == SFI_ANCHOR_CONTRACT && i-- == 0) return sfi_cpu_backend.emitters[e]->name;
  }
  if (i == 0) return tuned;
#else
  (void)i;
#endif
  return NULL;
}

bool bench_is_emitter(const char *name) {
  for (size_t i = 0; bench_emitter(i); i++)
    if (strcmp(name, bench_emitter(i)) == 0) return true;
  return false;
}

const char *bench_compiler(void) {
#if defined(SFI_HAVE_LLVM)
  return sfi_cpu_backend.compiler;
#else
  return "no LLVM";
#endif
}
