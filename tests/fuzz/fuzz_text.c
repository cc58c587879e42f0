/* Fuzz target: the parser of the text form on any bytes. What parses must reach a fixpoint under print and parse. */
#include <stdlib.h>

#include "context.h"
#include "graph.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static sfi_text print(const sf_graph *graph) {
  sfi_text text = {.allocator = &sfi_default_allocator};
  sfi_graph_print(graph, &text);
  sfi_text_add(&text, "", 0); /* an empty graph has text too */
  if (text.failed) abort();
  return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static sf_context *context; /* one for all inputs: starting one takes far longer than parsing */
  sf_graph *graph, *again;
  sf_error error;
  if (!context) {
    sf_context_options options;
    SF_INIT(&options);
    options.cache_dir = "";
    options.isa = SF_ISA_REFERENCE;
    if (sf_context_create(&options, &context) != SF_OK) abort();
  }
  sf_status status = sf_graph_parse(context, (const char *)data, size, "input", NULL, &graph);
  if (sf_context_take_error(context, &error) != status) abort();
  if (status != SF_OK) {
    if (graph || !error.message[0] || error.line < 1 || error.column < 1 || (size_t)error.column > size + 1) abort();
    return 0;
  }
  sfi_text first = print(graph);
  if (sf_graph_parse(context, first.data, first.length, "printed", NULL, &again) != SF_OK) abort();
  sfi_text second = print(again);
  if (first.length != second.length || memcmp(first.data, second.data, first.length) != 0) abort();
  sfi_text_deinit(&first);
  sfi_text_deinit(&second);
  sf_graph_release(graph);
  sf_graph_release(again);
  return 0;
}
