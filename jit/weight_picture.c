/* Zeros of one weight of a graph, for people: its profile, and the density of each cell of a grid. */
#include "jit.h"

/* Opened. */
static sf_status find_matrix(const sf_graph *graph, sf_value weight, sfi_diag *diag, sfi_matrix *out_matrix) {
  if (!graph) return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "the graph is NULL");
  if (weight < 0 || (size_t)weight >= graph->n_nodes || !sfi_is_static(graph, weight)) {
    return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "value %d of '%s' is not a weight", weight, graph->name);
  }
  const sfi_node *node = &graph->nodes[weight];
  if (node->dtype != SF_F32) {
    return sfi_fail(diag, SF_STATUS_UNSUPPORTED, &node->place, node->name, "the zeros of %s weights are not looked at yet",
                    sfi_dtype_of(node->dtype)->text);
  }
  if (!sfi_weight_as_matrix(graph, weight, out_matrix)) {
    return sfi_fail(diag, SF_STATUS_UNSUPPORTED, &node->place, node->name, "the weight cannot be read as a matrix");
  }
  return sfi_matrix_open(out_matrix, diag) ? SF_OK : diag->error.status;
}

sf_status sf_graph_weight_profile(sf_context *context, const sf_graph *graph, sf_value weight, sf_profile *out_profile) {
  if (!context) return SF_STATUS_INVALID_ARGUMENT;
  sfi_diag diag = {0};
  sfi_matrix matrix;
  sfi_facts facts;
  if (!out_profile || out_profile->struct_size < sizeof out_profile->struct_size) {
    sfi_fail(&diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "the profile is NULL or lacks its struct_size; set it with SF_INIT");
  } else if (find_matrix(graph, weight, &diag, &matrix) == SF_OK) {
    const sf_status status = sfi_scan_zeros(&matrix, &context->allocator, &diag, &facts);
    sfi_matrix_close(&matrix);
    if (status != SF_OK) return sfi_publish(context, NULL, &diag);
    bool tighter = facts.along_columns.n < facts.along_columns.m;
    sf_profile profile = {.rows = facts.rows,
                          .columns = facts.columns,
                          .nonzeros = facts.nonzeros,
                          .dead_rows = facts.dead_rows,
                          .dead_columns = facts.dead_columns,
                          .row_min = facts.row_min,
                          .row_median = facts.row_median,
                          .row_max = facts.row_max,
                          .nm_n = tighter ? facts.along_columns.n : 0,
                          .nm_m = tighter ? facts.along_columns.m : 0,
                          .block_rows = facts.block_rows,
                          .block_columns = facts.block_columns};
    memcpy(profile.digest, facts.pattern.bytes, sizeof profile.digest);
    sfi_options_write(out_profile, &profile, sizeof profile);
  }
  return sfi_publish(context, NULL, &diag);
}

/* Cell i of n over `extent` indices: at least one of them, so that a grid finer than the matrix repeats its elements. */
static void cell_range(int64_t extent, int32_t i, int32_t n, int64_t *out_begin, int64_t *out_end) {
  *out_begin = (int64_t)((__int128)extent * i / n);
  *out_end = sfi_max((int64_t)((__int128)extent * (i + 1) / n), *out_begin + 1);
}

static float cell_density(const sfi_matrix *m, int64_t row_begin, int64_t row_end, int64_t column_begin, int64_t column_end) {
  int64_t nonzeros = 0;
  for (int64_t r = row_begin; r < row_end; r++) {
    for (int64_t c = column_begin; c < column_end; c++) {
      nonzeros += m->data[r * m->row_stride + c * m->column_stride] != 0;
    }
  }
  return (float)((double)nonzeros / ((double)(row_end - row_begin) * (double)(column_end - column_begin)));
}

sf_status sf_graph_weight_density(sf_context *context, const sf_graph *graph, sf_value weight, int32_t height, int32_t width,
                                  float *out_cells) {
  if (!context) return SF_STATUS_INVALID_ARGUMENT;
  sfi_diag diag = {0};
  sfi_matrix m;
  if (height < 1 || width < 1 || !out_cells) {
    sfi_fail(&diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "a grid of %d x %d cells%s", height, width,
             out_cells ? "" : ", at NULL");
  } else if (find_matrix(graph, weight, &diag, &m) == SF_OK) {
    for (int32_t i = 0; i < height; i++) {
      for (int32_t j = 0; j < width; j++) {
        int64_t row_begin, row_end, column_begin, column_end;
        cell_range(m.rows, i, height, &row_begin, &row_end);
        cell_range(m.columns, j, width, &column_begin, &column_end);
        float *cell = &out_cells[(int64_t)i * width + j];
        *cell = m.rows && m.columns ? cell_density(&m, row_begin, row_end, column_begin, column_end) : 0;
      }
    }
    sfi_matrix_close(&m);
  }
  return sfi_publish(context, NULL, &diag);
}
