/* See ref_vectors.h. */
#include "ref_vectors.h"
#include "context.h"
#include "weights_file.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#define FOLDER SFI_SOURCE_DIR "/tests/ref/vectors"

static sf_tensor tensor_named(const sfi_mapping *file, const sf_graph *graph, const char *name) {
  const sfi_tensor_entry *entry = sfi_mapping_find(file, name);
  ck_assert_msg(entry != NULL, "%s has no tensor %s", graph->name, name);
  sf_tensor t = {.dtype = entry->dtype, .rank = entry->rank};
  memcpy(t.dims, entry->dims, sizeof t.dims);
  t.data = malloc(entry->bytes + 1);
  ck_assert_ptr_nonnull(t.data);
  memcpy(t.data, entry->data, entry->bytes); /* the file aligns nothing */
  return t;
}

bool sf_vectors_open(const char *op, sf_isa isa, sf_vectors *out) {
  char name[64], path[512];
  sf_vectors v = {.symbol = 1};
  sfi_diag diag = {0};
  sfi_mapping *file;
  sf_error error;
  sf_context_options options;
  SF_INIT(&options);
  options.isa = isa;
  options.cache_dir = "";
  sf_status created = sf_context_create(&options, &v.context);
  if (created == SF_STATUS_UNSUPPORTED) return false;
  ck_assert_int_eq(created, SF_OK);
  snprintf(path, sizeof path, FOLDER "/%s.sft", op);
  sf_status st = sf_graph_parse_file(v.context, path, &v.graph);
  sf_context_take_error(v.context, &error);
  ck_assert_msg(st == SF_OK, "%s:%d: %s", error.file, error.line, error.message);
  snprintf(name, sizeof name, "%s.safetensors", op);
  ck_assert_msg(sfi_mapping_open(&v.context->allocator, FOLDER, name, &diag, &file) == SF_OK, "%s: %s", name, diag.error.message);
  v.inputs = calloc(v.graph->n_inputs + 1, sizeof *v.inputs);
  v.outputs = calloc(v.graph->n_outputs + 1, sizeof *v.outputs);
  ck_assert(v.inputs && v.outputs);
  for (size_t i = 0; i < v.graph->n_inputs; i++) {
    const sfi_node *node = &v.graph->nodes[v.graph->inputs[i]];
    v.inputs[i] = tensor_named(file, v.graph, node->name);
    for (int32_t d = 0; d < node->shape.rank; d++)
      if (!sfi_is_const(node->shape.dims[d])) v.symbol = v.inputs[i].dims[d];
  }
  for (size_t i = 0; i < v.graph->n_outputs; i++) v.outputs[i] = tensor_named(file, v.graph, v.graph->outputs[i].name);
  sfi_mapping_release(file);
  *out = v;
  return true;
}

void sf_vectors_close(sf_vectors *v) {
  for (size_t i = 0; i < v->graph->n_inputs; i++) free(v->inputs[i].data);
  for (size_t i = 0; i < v->graph->n_outputs; i++) free(v->outputs[i].data);
  free(v->inputs);
  free(v->outputs);
  sf_graph_release(v->graph);
  sf_context_release(v->context);
}
