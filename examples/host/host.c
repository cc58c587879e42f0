/* A host program: one sparse layer, y = relu(x W' + b), built through the API, compiled, and run on two batch sizes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sparseflow/sparseflow.h>

enum { INPUTS = 64, OUTPUTS = 48, BATCH = 5 };

static int fail(sf_context *context) {
  sf_error error;
  sf_context_take_error(context, &error);
  fprintf(stderr, "%s: %s\n", error.op, error.message);
  sf_context_release(context);
  return EXIT_FAILURE;
}

int main(void) {
  /* One weight in eight is not zero. */
  static float w[OUTPUTS * INPUTS], b[OUTPUTS], x[BATCH * INPUTS], y[BATCH * OUTPUTS];
  for (int i = 0; i < OUTPUTS * INPUTS; i++) w[i] = i * 37 % 8 == 0 ? (float)(i % 13 - 6) / 8 : 0;
  for (int i = 0; i < OUTPUTS; i++) b[i] = (float)(i % 3 - 1);
  for (int i = 0; i < BATCH * INPUTS; i++) x[i] = (float)(i % 7) / 4;

  sf_context_options options;
  SF_INIT(&options);
  options.cache_dir = ""; /* nothing on disk; by default kernels stay in ~/.cache/sparseflow */
  sf_context *context;
  if (sf_context_create(&options, &context) != SF_OK) return EXIT_FAILURE;

  /* Errors are sticky: build on, and look once. */
  sf_graph *graph;
  sf_program *program;
  if (sf_graph_create(context, "layer", &graph) != SF_OK) return fail(context);
  sf_value in = sf_graph_input(graph, "x", SF_F32, 2, (const int64_t[]){SF_DIM_SYMBOLIC, INPUTS});
  sf_value weight = sf_graph_weight(graph, "w", SF_F32, 2, (const int64_t[]){OUTPUTS, INPUTS}, w, SF_BORROW);
  sf_value bias = sf_graph_weight(graph, "b", SF_F32, 1, (const int64_t[]){OUTPUTS}, b, SF_BORROW);
  sf_value sum = sf_binary(graph, SF_OP_ADD, sf_matmul(graph, in, weight, false, true), bias);
  sf_graph_output(graph, "y", sf_unary(graph, SF_OP_RELU, sum));
  sf_status status = sf_compile(context, graph, NULL, &program, NULL);
  sf_graph_release(graph);
  if (status != SF_OK) return fail(context);

  /* The program is immutable: any number of threads may run it at once. */
  for (int batch = 1; batch <= BATCH; batch += BATCH - 1) {
    const sf_tensor input = {x, SF_F32, 2, {batch, INPUTS}}, output = {y, SF_F32, 2, {batch, OUTPUTS}};
    if (sf_run(program, 1, &input, 1, &output) != SF_OK) {
      sf_program_release(program);
      return fail(context);
    }
    double total = 0;
    for (int i = 0; i < batch * OUTPUTS; i++) total += (double)y[i];
    printf("batch %d: sum of y = %.4f\n", batch, total);
  }
  sf_program_release(program);
  sf_context_release(context);
  return EXIT_SUCCESS;
}
