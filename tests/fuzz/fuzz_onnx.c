/* Fuzz target: the ONNX reader on any bytes, with a folder of external data. What is refused has a message; what is accepted is a graph that
 * verifies and prints, and what export makes of it is accepted again. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "context.h"
#include "graph.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static sf_context *context;                                /* one for all inputs: starting one takes far longer than reading */
static char folder[] = "/tmp/sparseflow-XXXXXX", path[96]; /* of "w.bin", 64 bytes */

static void remove_folder(void) {
  unlink(path);
  rmdir(folder);
}

static void set_up(void) {
  static const char bytes[64] = "\0\0\x80?\0\0\0@";
  sf_context_options options;
  SF_INIT(&options);
  options.cache_dir = "";
  options.isa = SF_ISA_REFERENCE;
  if (sf_context_create(&options, &context) != SF_OK) abort();
  if (!mkdtemp(folder)) abort();
  atexit(remove_folder);
  snprintf(path, sizeof path, "%s/w.bin", folder);
  int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0 || write(fd, bytes, sizeof bytes) != sizeof bytes) abort();
  close(fd);
}

static void count(void *user, const sf_error *error) {
  if (!error->message[0] || error->status == SF_OK) abort();
  ++*(int *)user;
}

static sf_graph *import(const void *data, size_t size) {
  sf_onnx_options options;
  sf_graph *graph;
  sf_error error;
  int refused = 0;
  SF_INIT(&options);
  options.report = count;
  options.report_user = &refused;
  sf_status status = sf_graph_from_onnx(context, data, size, "input", folder, &options, &graph);
  if (sf_context_take_error(context, &error) != status || (status == SF_OK) != (graph != NULL)) abort();
  if (status != SF_OK && (!refused || !error.message[0])) abort();
  return graph;
}

static bool keep(void *user, const char *data, size_t size) {
  return sfi_text_add(user, data, size), true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!context) set_up();
  sf_graph *graph = import(data, size);
  if (!graph) return 0;
  sfi_diag diag = {0};
  sfi_text text = {.allocator = &sfi_default_allocator}, model = text;
  /* A model whose outputs are all missing is one without outputs, which only compiling refuses. */
  if (graph->n_outputs && sfi_graph_verify(graph, &diag) != SF_OK) abort();
  sfi_graph_print(graph, &text);
  if (text.failed) abort();
  sfi_text_deinit(&text);
  if (sf_graph_to_onnx(graph, keep, &model) == SF_OK) {
    sf_graph *again = import(model.data, model.length);
    if (!again) abort();
    sf_graph_release(again);
  } else {
    sf_error error;
    sf_context_take_error(context, &error);
    if (!error.message[0]) abort();
  }
  sfi_text_deinit(&model);
  sf_graph_release(graph);
  return 0;
}
