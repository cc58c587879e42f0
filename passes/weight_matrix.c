/* How the weights of a graph are read as matrices W[output, input], and the digest of such a matrix. Reads the graph only. */
#include "passes.h"

/* A [rows, columns] tensor, or its transpose. */
static sfi_matrix matrix_of(const sfi_node *leaf, int64_t rows, int64_t columns, bool transposed) {
  if (transposed) return (sfi_matrix){leaf->data, columns, rows, 1, columns, leaf->source};
  return (sfi_matrix){leaf->data, rows, columns, columns, 1, leaf->source};
}

static int64_t extent(const sfi_node *leaf, int32_t d) {
  return leaf->shape.dims[d].c[0];
}

static sfi_matrix first_extent_by_rest(const sfi_node *leaf) {
  int64_t rows = leaf->shape.rank > 1 ? extent(leaf, 0) : 1, columns = 1;
  for (int32_t d = leaf->shape.rank > 1; d < leaf->shape.rank; d++) columns *= extent(leaf, d);
  return matrix_of(leaf, rows, columns, false);
}

static bool is_matrix(const sf_graph *graph, sf_value v, int32_t rank) {
  const sfi_node *node = &graph->nodes[v];
  return sfi_node_is_static(node) && node->dtype == SF_F32 && node->shape.rank == rank;
}

bool sfi_weight_matrix(const sf_graph *graph, sf_value node, int32_t *out_operand, sfi_matrix *out_matrix) {
  const sfi_node *n = &graph->nodes[node];
  if (n->op == SF_OP_CONV2D && is_matrix(graph, n->inputs[1], 4)) {
    *out_operand = 1;
    *out_matrix = first_extent_by_rest(&graph->nodes[n->inputs[1]]);
    return true;
  }
  if (n->op != SF_OP_MATMUL) return false;
  /* x B = (B^T x^T)^T: the outputs are B's columns. A x: they are A's rows. */
  for (int32_t i = 1; i >= 0; i--) {
    const sfi_node *leaf = &graph->nodes[n->inputs[i]];
    if (!is_matrix(graph, n->inputs[i], 2)) continue;
    bool transposed = i == 1 ? !sfi_attr_int(n, SF_ATTR_TRANSPOSE_B) : sfi_attr_int(n, SF_ATTR_TRANSPOSE_A);
    *out_operand = i;
    *out_matrix = matrix_of(leaf, extent(leaf, 0), extent(leaf, 1), transposed);
    return true;
  }
  return false;
}

bool sfi_weight_as_matrix(const sf_graph *graph, sf_value weight, sfi_matrix *out_matrix) {
  const sfi_node *leaf = &graph->nodes[weight];
  int32_t operand;
  if (!sfi_node_is_static(leaf) || leaf->dtype != SF_F32) return false;
  for (size_t v = (size_t)weight + 1; v < graph->n_nodes; v++)
    if (sfi_weight_matrix(graph, (sf_value)v, &operand, out_matrix) && graph->nodes[v].inputs[operand] == weight) return true;
  *out_matrix = first_extent_by_rest(leaf);
  return true;
}

static sfi_digest extents_digest(const sfi_matrix *matrix) {
  const int64_t header[] = {matrix->rows, matrix->columns, matrix->row_stride, matrix->column_stride};
  return sfi_digest_of(header, sizeof header);
}

/* Elements are taken in the order of memory where the matrix lies there without gaps: gathering a transposed one costs a cache miss
 * an element. The strides are part of the digest, so two orders are never taken for each other. */
sfi_digest sfi_matrix_digest(const sfi_matrix *matrix) {
  enum { CHUNK = 2048 };
  sfi_digest digest = extents_digest(matrix);
  int64_t count = matrix->rows * matrix->columns;
  bool by_rows = matrix->column_stride == 1 && matrix->row_stride == matrix->columns;
  bool by_columns = matrix->row_stride == 1 && matrix->column_stride == matrix->rows;
  if (by_rows || by_columns) return sfi_digest_join(digest, sfi_digest_of(matrix->data, (size_t)count * sizeof(float)));
  float chunk[CHUNK];
  for (int64_t begin = 0; begin < count; begin += CHUNK) {
    int64_t n = sfi_min(CHUNK, count - begin);
    for (int64_t i = 0; i < n; i++)
      chunk[i] =
          matrix->data[(begin + i) / matrix->columns * matrix->row_stride + (begin + i) % matrix->columns * matrix->column_stride];
    digest = sfi_digest_join(digest, sfi_digest_of(chunk, (size_t)n * sizeof(float)));
  }
  return digest;
}

/* A source holds a whole tensor, which as a matrix has no gaps. */
bool sfi_matrix_source_digest(const sfi_matrix *matrix, sfi_diag *diag, sfi_digest *out_digest) {
  sfi_digest elements;
  assert(matrix->source->bytes == (size_t)(matrix->rows * matrix->columns) * sizeof(float));
  if (!sfi_source_digest(matrix->source, diag, &elements)) return false;
  *out_digest = sfi_digest_join(extents_digest(matrix), elements);
  return true;
}
