/* The program's copies of static tensors that some kernel reads as they are, with the slack that their buffers promise. They may be large, and
 * are copied in pieces, by all threads; of tables (tables.c) there is only the room. */
#include "jit.h"

enum { PIECE = 4 << 20 };

typedef struct piece {
  const sfi_node *node;
  uint8_t *to;
  size_t at, bytes;
  sfi_diag diag;
} piece;

static void copy_piece(void *argument, int64_t i) {
  piece *p = &((piece *)argument)[i];
  if (p->node->source)
    sfi_source_copy(p->node->source, p->at, p->bytes, p->to, &p->diag);
  else
    memcpy(p->to, (const uint8_t *)p->node->data + p->at, p->bytes);
}

/* Room for one, its slack zeroed; where another class promised less, anew. */
static sf_status make_room(sf_program *program, const sfi_buffer *buffer, sfi_diag *diag) {
  sfi_blob *copy = &program->statics[buffer->value];
  const size_t own = program->graph->nodes[buffer->value].bytes;
  size_t bytes;
  if (!sfi_buffer_bytes(buffer, 1, &bytes)) return sfi_fail_memory(diag);
  if (copy->data && copy->size >= bytes) return SF_OK;
  sfi_blob_deinit(copy);
  const sf_allocator *a = &program->context->allocator;
  uint8_t *data = sfi_tables_have(program, buffer->value) ? sfi_alloc_room(a, bytes) : sfi_alloc(a, bytes);
  if (!data) return sfi_fail_memory(diag);
  *copy = (sfi_blob){a, data, bytes};
  memset(copy->data + own, 0, bytes - own);
  return SF_OK;
}

static int64_t list_pieces(const sf_program *program, piece *pieces) {
  int64_t n = 0;
  for (size_t v = 0; v < program->n_statics; v++) {
    const sfi_node *node = &program->graph->nodes[v];
    uint8_t *to = program->statics[v].data;
    if (sfi_tables_have(program, (sf_value)v)) continue;
    for (size_t at = 0; to && at < node->bytes; at += PIECE, n++) {
      const size_t bytes = node->bytes - at < PIECE ? node->bytes - at : PIECE;
      if (pieces) pieces[n] = (piece){.node = node, .to = to + at, .at = at, .bytes = bytes};
    }
  }
  return n;
}

sf_status sfi_statics_create(sf_program *program, const sf_graph *graph, const sfi_pipeline *pipeline, sfi_diag *diag) {
  const sf_allocator *allocator = &program->context->allocator;
  program->statics = sfi_calloc(allocator, program->graph->n_nodes, sizeof *program->statics);
  if (!program->statics) return sfi_fail_memory(diag);
  program->n_statics = program->graph->n_nodes;
  if (sfi_tables_create(program, graph, pipeline, diag) != SF_OK) return diag->error.status;
  for (int32_t p = 0; p < pipeline->n_plans; p++) {
    const sfi_plan *plan = &pipeline->plans[p];
    for (size_t b = 0; b < plan->n_buffers; b++) {
      if (plan->buffers[b].kind != SFI_BUFFER_STATIC) continue;
      const sf_status status = make_room(program, &plan->buffers[b], diag);
      if (status != SF_OK) return status;
    }
  }
  const int64_t n = list_pieces(program, NULL);
  piece *pieces = sfi_alloc(allocator, (size_t)n * sizeof *pieces);
  if (!pieces) return sfi_fail_memory(diag);
  list_pieces(program, pieces);
  sfi_spread(program->context, n, copy_piece, pieces);
  for (int64_t i = 0; i < n && diag->error.status == SF_OK; i++) *diag = pieces[i].diag;
  sfi_free(allocator, pieces, (size_t)n * sizeof *pieces);
  return diag->error.status;
}
