/* Fuzz target: the ONNX reader on any bytes. What is refused has a message; what is accepted is a graph that verifies and prints. */
#include <stdlib.h>

#include "context.h"
#include "graph.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void count(void *user, const sf_error *error) {
  if (!error->message[0] || error->status == SF_OK) abort();
  ++*(int *)user;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static sf_context *context; /* one for all inputs: starting one takes far longer than reading */
  sf_graph *graph;
  sf_error error;
  int refused = 0;
  if (!context) {
    sf_context_options options;
    SF_INIT(&options);
    options.cache_dir = "";
    options.isa = SF_ISA_REFERENCE;
    if (sf_context_create(&options, &context) != SF_OK) abort();
  }
  sf_onnx_options options;
  SF_INIT(&options);
  options.report = count;
  options.report_user = &refused;
  sf_status status = sf_graph_from_onnx(context, data, size, "input", NULL, &options, &graph);
  if (sf_context_take_error(context, &error) != status || (status == SF_OK) != (graph != NULL)) abort();
  if (status != SF_OK) {
    if (!refused || !error.message[0]) abort();
    return 0;
  }
  sfi_diag diag = {0};
  sfi_text text = {.allocator = &sfi_default_allocator};
  /* A model whose outputs are all missing is one without outputs, which only compiling refuses. */
  if (graph->n_outputs && sfi_graph_verify(graph, &diag) != SF_OK) abort();
  sfi_graph_print(graph, &text);
  if (text.failed) abort();
  sfi_text_deinit(&text);
  sf_graph_release(graph);
  return 0;
}
