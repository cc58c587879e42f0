/* A host program: a small pruned network, relu(x W1' + b1) W2' + b2, built through the API, compiled once, run by two threads at once. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <sparseflow/sparseflow.h>

enum { INPUTS = 64, HIDDEN = 48, OUTPUTS = 10, BATCH = 5 };

static int fail(sf_context *context) {
  sf_error error;
  sf_context_take_error(context, &error);
  fprintf(stderr, "%s: %s: %s\n", sf_status_text(error.status), error.op, error.message);
  sf_context_release(context);
  return EXIT_FAILURE;
}

/* One weight in `keep` is not zero. */
static void prune(float *w, int n, int keep) {
  for (int i = 0; i < n; i++) w[i] = i * 37 % keep == 0 ? (float)(i % 13 - 6) / 8 : 0;
}

static sf_value layer(sf_graph *graph, sf_value x, const char *name, int64_t rows, int64_t columns, const float *w,
                      const float *b) {
  char bias_name[32];
  snprintf(bias_name, sizeof bias_name, "%s.bias", name);
  sf_value weight = sf_graph_weight(graph, name, SF_F32, 2, (const int64_t[]){rows, columns}, w, SF_BORROW);
  sf_value bias = sf_graph_weight(graph, bias_name, SF_F32, 1, &rows, b, SF_BORROW);
  return sf_binary(graph, SF_OP_ADD, sf_matmul(graph, x, weight, false, true), bias);
}

typedef struct job {
  sf_program *program;
  int64_t batch;
  sf_status status;
  float x[BATCH * INPUTS], y[BATCH * OUTPUTS];
} job;

static void *run(void *argument) {
  job *j = argument;
  const sf_tensor input = {j->x, SF_F32, 2, {j->batch, INPUTS}}, output = {j->y, SF_F32, 2, {j->batch, OUTPUTS}};
  j->status = sf_run(j->program, 1, &input, 1, &output);
  return NULL;
}

int main(void) {
  static float w1[HIDDEN * INPUTS], b1[HIDDEN], w2[OUTPUTS * HIDDEN], b2[OUTPUTS];
  prune(w1, HIDDEN * INPUTS, 8), prune(w2, OUTPUTS * HIDDEN, 3), prune(b1, HIDDEN, 1), prune(b2, OUTPUTS, 1);

  sf_context *context; /* with all defaults: compiled kernels stay in ~/.cache/sparseflow */
  if (sf_context_create(NULL, &context) != SF_OK) return EXIT_FAILURE;
  sf_graph *graph;
  if (sf_graph_create(context, "mlp", &graph) != SF_OK) return fail(context);
  /* Errors are sticky: build on, and look once, at what compiling says. */
  sf_value x = sf_graph_input(graph, "x", SF_F32, 2, (const int64_t[]){SF_DIM_SYMBOLIC, INPUTS});
  sf_value hidden = sf_unary(graph, SF_OP_RELU, layer(graph, x, "w1", HIDDEN, INPUTS, w1, b1));
  sf_graph_output(graph, "y", layer(graph, hidden, "w2", OUTPUTS, HIDDEN, w2, b2));
  sf_program *program;
  sf_status status = sf_compile(context, graph, NULL, &program, NULL);
  sf_graph_release(graph);
  if (status != SF_OK) return fail(context);

  static job jobs[2] = {{.batch = 1}, {.batch = BATCH}};
  pthread_t threads[2];
  for (int t = 0; t < 2; t++) {
    jobs[t].program = program;
    for (int i = 0; i < BATCH * INPUTS; i++) jobs[t].x[i] = (float)((i + t) % 7) / 4;
    if (pthread_create(&threads[t], NULL, run, &jobs[t]) != 0) return EXIT_FAILURE;
  }
  for (int t = 0; t < 2; t++) pthread_join(threads[t], NULL);
  sf_program_release(program);
  if (jobs[0].status != SF_OK || jobs[1].status != SF_OK) return fail(context);
  for (int t = 0; t < 2; t++)
    printf("batch %d: y[0] = %g %g %g ...\n", (int)jobs[t].batch, jobs[t].y[0], jobs[t].y[1], jobs[t].y[2]);
  sf_context_release(context);
  return EXIT_SUCCESS;
}
