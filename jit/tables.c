/* Tables: static tensors of a weight file of which runs read rows alone, those that their indices ask for. A program has room for a table, and
 * a run loads the blocks of it that hold its rows and that no run before it has loaded. So a word embedding costs what is looked up in it.
 *
 * What is loaded is never written again, and a block counts as loaded when all of it is there: runs read without a lock. The file is read
 * and never mapped, for a file that is cut while it is mapped kills the host. One that was written to since it was opened is an error of the
 * run that wants more of it; what was loaded before is good. */
#include "jit.h"
#include "weights_file.h"

/* A page. Words that follow each other in a vocabulary seldom do so in a text: larger blocks are mostly read for nothing. */
enum { BLOCK = 4 << 10, WORD = 64 };

typedef struct table {
  sf_value value;
  sfi_source *source; /* the mapping's */
  size_t row_bytes;
  int64_t rows;
  atomic_ullong *loaded; /* a bit a block */
} table;

/* The numbers of an input are rows of a table. */
typedef struct lookup {
  const table *table;
  int32_t input;
} lookup;

struct sfi_tables {
  pthread_mutex_t lock; /* held while a block is loaded */
  struct sfi_mapping *weights;
  table *tables;
  lookup *lookups;
  size_t n_tables, n_lookups;
};

/* ---- which ------------------------------------------------------------------------------------------------------- */

/* The input whose numbers are rows of operand 0; -1: the node is no such gather. */
static int32_t rows_input(const sf_graph *graph, const sfi_node *node) {
  sfi_index_limits limits;
  int32_t i = 0;
  if (node->op != SF_OP_GATHER || !sfi_index_limits_of(graph, node, 1, 1, &limits) || sfi_is_static(graph, limits.leaf)) return -1;
  const int64_t axis = sfi_attr_int(node, SF_ATTR_AXIS);
  if (axis != 0 && axis != -graph->nodes[node->inputs[0]].shape.rank) return -1;
  while (graph->inputs[i] != limits.leaf) i++;
  return i;
}

/* Do operations read nothing of `v` but rows by an input's numbers, products aside, which read it packed? */
static bool gathered(const sf_graph *graph, sf_value v) {
  for (size_t i = 0; i < graph->n_nodes; i++) {
    const sfi_node *node = &graph->nodes[i];
    for (int32_t k = 0; k < node->n_inputs; k++) {
      if (node->inputs[k] != v || node->op == SF_OP_MATMUL || node->op == SF_OP_CONV2D) continue;
      if (k != 0 || rows_input(graph, node) < 0) return false;
    }
  }
  return true;
}

static bool reads_whole(const sfi_plan *plan, const sfi_kernel *kernel, sf_value v) {
  for (int32_t o = 0; o < kernel->n_operands; o++) {
    const sfi_buffer *buffer = &plan->buffers[kernel->operand[o].buffer];
    const bool by_rows = kernel->anchor == SFI_ANCHOR_NODE
                             ? o == 1 && kernel->node != SF_NO_VALUE && plan->graph->nodes[kernel->node].op == SF_OP_GATHER
                             : kernel->operand[o].index != 0;
    if (buffer->kind == SFI_BUFFER_STATIC && buffer->value == v && !by_rows) return true;
  }
  return false;
}

/* Nor kernels, which may have been made of several operations? */
static bool only_rows(const sf_graph *graph, const sfi_pipeline *pipeline, sf_value v) {
  if (!gathered(graph, v)) return false;
  for (int32_t p = 0; p < pipeline->n_plans; p++) {
    for (size_t k = 0; k < pipeline->plans[p].n_kernels; k++)
      if (reads_whole(&pipeline->plans[p], &pipeline->plans[p].kernels[k], v)) return false;
  }
  return true;
}

static table *find(const sfi_tables *tables, sf_value v) {
  for (size_t i = 0; tables && i < tables->n_tables; i++)
    if (tables->tables[i].value == v) return &tables->tables[i];
  return NULL;
}

bool sfi_tables_have(const sf_program *program, sf_value v) {
  return find(program->tables, v);
}

static bool add_table(sf_program *program, sfi_tables *tables, sf_value v) {
  const sfi_node *node = &program->graph->nodes[v];
  table *t = &tables->tables[tables->n_tables++];
  *t = (table){.value = v, .source = node->source, .rows = node->shape.dims[0].c[0]};
  t->row_bytes = node->bytes / (size_t)t->rows;
  t->loaded = sfi_arena_alloc(&program->arena, (node->bytes / BLOCK / WORD + 1) * sizeof *t->loaded);
  return t->loaded;
}

static bool fill(sf_program *program, const sfi_pipeline *pipeline, sfi_tables *tables) {
  const sf_graph *graph = program->graph;
  tables->tables = sfi_arena_alloc(&program->arena, graph->n_nodes * sizeof *tables->tables);
  tables->lookups = sfi_arena_alloc(&program->arena, graph->n_nodes * sizeof *tables->lookups);
  if (!tables->tables || !tables->lookups) return false;
  for (size_t i = 0; i < graph->n_nodes; i++) {
    const sfi_node *node = &graph->nodes[i];
    const int32_t input = rows_input(graph, node);
    if (input < 0) continue;
    const sf_value v = node->inputs[0];
    const sfi_source *source = graph->nodes[v].source;
    if (!source || !sfi_source_keeps(source) || !only_rows(graph, pipeline, v)) continue;
    if (!find(tables, v) && !add_table(program, tables, v)) return false;
    tables->lookups[tables->n_lookups++] = (lookup){find(tables, v), input};
  }
  return true;
}

sf_status sfi_tables_create(sf_program *program, const sf_graph *graph, const sfi_pipeline *pipeline, sfi_diag *diag) {
  if (pipeline->settings->flags & SF_COMPILE_PRELOAD || !graph->mapping) return SF_OK;
  sfi_tables *tables = sfi_arena_alloc(&program->arena, sizeof *tables);
  if (!tables || !fill(program, pipeline, tables)) return sfi_fail_memory(diag);
  if (tables->n_tables == 0) return SF_OK;
  if (pthread_mutex_init(&tables->lock, NULL) != 0) return sfi_fail_memory(diag);
  sfi_mapping_retain(tables->weights = graph->mapping);
  program->tables = tables;
  return SF_OK;
}

void sfi_tables_destroy(sf_program *program) {
  if (!program->tables) return;
  sfi_mapping_release(program->tables->weights);
  pthread_mutex_destroy(&program->tables->lock);
}

/* ---- reading ------------------------------------------------------------------------------------------------------ */

static bool is_loaded(const table *t, size_t block) {
  return atomic_load_explicit(&t->loaded[block / WORD], memory_order_acquire) >> block % WORD & 1;
}

static bool load(const sf_program *program, const table *t, size_t block, sfi_diag *diag) {
  const size_t at = block * BLOCK, rest = t->source->bytes - at;
  pthread_mutex_lock(&program->tables->lock);
  const bool loaded = is_loaded(t, block) ||
                      sfi_source_copy(t->source, at, rest < BLOCK ? rest : BLOCK, program->statics[t->value].data + at, diag);
  if (loaded) atomic_fetch_or_explicit(&t->loaded[block / WORD], 1ull << block % WORD, memory_order_release);
  pthread_mutex_unlock(&program->tables->lock);
  return loaded;
}

sf_status sfi_tables_read(const sf_program *program, const sf_tensor *inputs, sfi_diag *diag) {
  for (size_t l = 0; program->tables && l < program->tables->n_lookups; l++) {
    const table *t = program->tables->lookups[l].table;
    const sf_tensor *indices = &inputs[program->tables->lookups[l].input];
    int64_t count = 1;
    for (int32_t d = 0; d < indices->rank; d++) count *= indices->dims[d];
    for (int64_t i = 0; i < count; i++) {
      const int64_t index = sfi_index_at(indices->dtype, indices->data, i), row = index < 0 ? index + t->rows : index;
      const size_t first = (size_t)row * t->row_bytes, last = first + t->row_bytes - 1;
      for (size_t block = first / BLOCK; block <= last / BLOCK; block++)
        if (!is_loaded(t, block) && !load(program, t, block, diag)) return diag->error.status;
    }
  }
  return SF_OK;
}
