/* The scan of zeros against a naive recomputation on random patterns, how weights are read as matrices, and running out of memory. */
#include "failing_allocator.h"
#include "passes.h"
#include "random_weight.h"
#include "suite.h"

#include <math.h>

/* ---- naive facts --------------------------------------------------------------------------------------------------- */

static bool present(const sfi_matrix *w, int64_t r, int64_t c) {
  float v = w->data[r * w->row_stride + c * w->column_stride];
  return v != 0 || isnan(v);
}

static int64_t count_box(const sfi_matrix *w, int64_t r0, int64_t r1, int64_t c0, int64_t c1) {
  int64_t count = 0;
  for (int64_t r = r0; r < sfi_min(r1, w->rows); r++)
    for (int64_t c = c0; c < sfi_min(c1, w->columns); c++) count += present(w, r, c);
  return count;
}

static int ascending(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static bool fits(const sfi_matrix *w, bool along_rows, int n, int m) {
  for (int64_t r = 0; r < w->rows; r += along_rows ? m : 1)
    for (int64_t c = 0; c < w->columns; c += along_rows ? 1 : m)
      if (count_box(w, r, r + (along_rows ? m : 1), c, c + (along_rows ? 1 : m)) > n) return false;
  return true;
}

static sfi_nm naive_nm(const sfi_matrix *w, bool along_rows) {
  sfi_nm best = {1, 1};
  int64_t extent = along_rows ? w->rows : w->columns;
  for (int m = 2; m <= 32 && m <= extent; m *= 2)
    for (int n = 0; n < m; n++)
      if ((double)n / m < (double)best.n / best.m && fits(w, along_rows, n, m)) best = (sfi_nm){n, m};
  return best;
}

static bool is_block(const sfi_matrix *w, int64_t height, int64_t width) {
  int64_t nonzeros = 0, covered = 0, empty = 0;
  for (int64_t r = 0; r < w->rows; r += height)
    for (int64_t c = 0; c < w->columns; c += width) {
      int64_t count = count_box(w, r, r + height, c, c + width);
      nonzeros += count;
      empty += count == 0;
      if (count > 0) covered += (sfi_min(r + height, w->rows) - r) * (sfi_min(c + width, w->columns) - c);
    }
  return empty > 0 && (double)nonzeros >= 0.95 * (double)covered;
}

static bool same_pattern(const sfi_matrix *w, int64_t a, int64_t b) {
  for (int64_t c = 0; c < w->columns; c++)
    if (count_box(w, a, a + 1, c, c + 1) != count_box(w, b, b + 1, c, c + 1)) return false;
  return true;
}

/* Columns touched by panels of `height` rows, equal rows behind the first of their kind. */
static int64_t naive_panel_columns(const sfi_matrix *w, int64_t height) {
  bool *taken = calloc((size_t)w->rows + 1, sizeof *taken), *touched = calloc((size_t)w->columns + 1, sizeof *touched);
  ck_assert(taken && touched);
  int64_t n = 0, columns = 0;
  for (int64_t first = 0; first < w->rows; first++)
    for (int64_t r = first; r < w->rows && !taken[first]; r++) {
      if (taken[r] || !same_pattern(w, first, r)) continue;
      if (r != first) taken[r] = true;
      for (int64_t c = 0; c < w->columns; c++) {
        bool fresh = count_box(w, r, r + 1, c, c + 1) > 0 && !touched[c];
        touched[c] = touched[c] || fresh;
        columns += fresh;
      }
      if (++n % height == 0) memset(touched, 0, (size_t)w->columns);
    }
  free(taken);
  free(touched);
  return columns;
}

static sfi_facts naive_facts(const sfi_matrix *w) {
  sfi_facts f = {.rows = w->rows, .columns = w->columns, .block_rows = 1, .block_columns = 1};
  int64_t *counts = calloc((size_t)w->rows + 1, sizeof *counts);
  ck_assert_ptr_nonnull(counts);
  for (int64_t r = 0; r < w->rows; r++) {
    counts[r] = count_box(w, r, r + 1, 0, w->columns);
    f.nonzeros += counts[r];
    f.dead_rows += counts[r] == 0;
  }
  for (int64_t r = 0; r < w->rows; r++)
    for (int64_t c = 0; c < w->columns; c++) f.nonfinite += !isfinite(w->data[r * w->row_stride + c * w->column_stride]);
  for (int64_t c = 0; c < w->columns; c++) {
    const int64_t count = count_box(w, 0, w->rows, c, c + 1);
    f.dead_columns += count == 0;
    if (count > 0) f.column_least = f.column_least ? sfi_min(f.column_least, count) : count;
  }
  qsort(counts, (size_t)w->rows, sizeof *counts, ascending);
  if (w->rows > 0) {
    f.row_min = counts[0];
    f.row_median = counts[(w->rows - 1) / 2];
    f.row_max = counts[w->rows - 1];
  }
  free(counts);
  f.panel_columns[SFI_PANEL4] = naive_panel_columns(w, 4);
  f.panel_columns[SFI_PANEL8] = naive_panel_columns(w, 8);
  f.along_columns = naive_nm(w, false);
  f.along_rows = naive_nm(w, true);
  for (int64_t height = 1; height <= 64 && height <= w->rows; height *= 2)
    for (int64_t width = 1; width <= 64 && width <= w->columns; width *= 2) {
      int64_t best = (int64_t)f.block_rows * f.block_columns;
      bool larger = height * width > best || (height * width == best && width > f.block_columns);
      if (larger && is_block(w, height, width)) f.block_rows = (int32_t)height, f.block_columns = (int32_t)width;
    }
  return f;
}

static void check_facts(const sfi_matrix *w, const char *what) {
  sfi_diag diag = {0};
  sfi_facts got, want = naive_facts(w);
  ck_assert_int_eq(sfi_scan_zeros(w, &sfi_default_allocator, &diag, &got), SF_OK);
#define SAME(field)                                                                                                                \
  ck_assert_msg(got.field == want.field, "%s [%lld, %lld]: " #field " is %lld, not %lld", what, (long long)w->rows,                \
                (long long)w->columns, (long long)got.field, (long long)want.field)
  SAME(rows);
  SAME(columns);
  SAME(nonzeros);
  SAME(nonfinite);
  SAME(dead_rows);
  SAME(dead_columns);
  SAME(row_min);
  SAME(row_median);
  SAME(row_max);
  SAME(column_least);
  SAME(panel_columns[SFI_PANEL4]);
  SAME(panel_columns[SFI_PANEL8]);
  SAME(along_columns.n);
  SAME(along_columns.m);
  SAME(along_rows.n);
  SAME(along_rows.m);
  SAME(block_rows);
  SAME(block_columns);
#undef SAME
}

/* ---- weights ------------------------------------------------------------------------------------------------------- */

/* Row-major [rows, columns]; what is left of one element is denormal, and one of an unstructured weight is NaN: neither is a zero. */
static float *make(sf_pattern pattern, uint64_t seed, int64_t rows, int64_t columns) {
  float *data = malloc((size_t)(rows * columns + 1) * sizeof *data);
  ck_assert_ptr_nonnull(data);
  sf_random_weight(&seed, pattern, rows, columns, data);
  for (int64_t i = 0; i < rows * columns; i++)
    if (pattern == SF_PATTERN_ONE_ELEMENT && data[i] != 0) data[i] = 1e-45f;
  if (pattern == SF_PATTERN_UNSTRUCTURED && rows * columns > 0) data[seed % (uint64_t)(rows * columns)] = NAN;
  return data;
}

static float *transposed(const float *data, int64_t rows, int64_t columns) {
  float *out = malloc((size_t)(rows * columns + 1) * sizeof *out);
  ck_assert_ptr_nonnull(out);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < columns; c++) out[c * rows + r] = data[r * columns + c];
  return out;
}

static const int64_t shapes[][2] = {{1, 1},    {1, 7},    {7, 1},    {2, 2},   {3, 5},   {16, 16}, {10, 64},
                                    {64, 10},  {63, 65},  {64, 64},  {65, 63}, {1, 200}, {200, 1}, {33, 129},
                                    {128, 96}, {130, 67}, {100, 31}, {0, 5},   {5, 0},   {0, 0},   {64, 128}};

START_TEST(equals_naive) {
  int64_t rows = shapes[_i][0], columns = shapes[_i][1];
  for (int p = 0; p < SF_PATTERNS; p++)
    for (int round = 0; round < 4; round++) {
      float *data = make((sf_pattern)p, (uint64_t)(_i * 1000 + p * 10 + round), rows, columns),
            *turned = transposed(data, rows, columns);
      sfi_matrix by_rows = {data, rows, columns, columns, 1}, by_columns = {turned, rows, columns, 1, rows};
      check_facts(&by_rows, sf_pattern_name((sf_pattern)p));
      check_facts(&by_columns, sf_pattern_name((sf_pattern)p));
      sfi_facts a, b;
      sfi_diag diag = {0};
      ck_assert_int_eq(sfi_scan_zeros(&by_rows, &sfi_default_allocator, &diag, &a), SF_OK);
      ck_assert_int_eq(sfi_scan_zeros(&by_columns, &sfi_default_allocator, &diag, &b), SF_OK);
      ck_assert_mem_eq(&a.pattern, &b.pattern, sizeof a.pattern);
      free(data);
      free(turned);
    }
}
END_TEST

/* A window into a larger matrix, every second column of it. */
START_TEST(reads_strides) {
  float *data = make(SF_PATTERN_UNSTRUCTURED, 7, 40, 90);
  check_facts(&(sfi_matrix){data + 3, 38, 41, 90, 2}, "strided");
  check_facts(&(sfi_matrix){data + 3, 41, 38, 2, 90}, "strided, turned");
  free(data);
}
END_TEST

START_TEST(pattern_tells_patterns_apart) {
  sfi_diag diag = {0};
  float a[] = {1, 0, 2, 0, 0, 3}, b[] = {5, -0.0f, -7, 0, 0, NAN}, c[] = {1, 0, 2, 0, 3, 0};
  sfi_facts fa, fb, fc, turned;
  ck_assert_int_eq(sfi_scan_zeros(&(sfi_matrix){a, 2, 3, 3, 1}, &sfi_default_allocator, &diag, &fa), SF_OK);
  ck_assert_int_eq(sfi_scan_zeros(&(sfi_matrix){b, 2, 3, 3, 1}, &sfi_default_allocator, &diag, &fb), SF_OK);
  ck_assert_int_eq(sfi_scan_zeros(&(sfi_matrix){c, 2, 3, 3, 1}, &sfi_default_allocator, &diag, &fc), SF_OK);
  ck_assert_int_eq(sfi_scan_zeros(&(sfi_matrix){a, 3, 2, 2, 1}, &sfi_default_allocator, &diag, &turned), SF_OK);
  ck_assert_mem_eq(&fa.pattern, &fb.pattern, sizeof fa.pattern); /* values do not count */
  ck_assert_mem_ne(&fa.pattern, &fc.pattern, sizeof fa.pattern);
  ck_assert_mem_ne(&fa.pattern, &turned.pattern, sizeof fa.pattern); /* shape does */
}
END_TEST

START_TEST(survives_lack_of_memory) {
  float *data = make(SF_PATTERN_UNSTRUCTURED, 3, 65, 70);
  for (long k = 1;; k++) {
    failing_allocator f = {.fail_at = k};
    sf_allocator allocator = failing_allocator_of(&f);
    sfi_diag diag = {0};
    sfi_facts facts;
    sf_status st = sfi_scan_zeros(&(sfi_matrix){data, 65, 70, 70, 1}, &allocator, &diag, &facts);
    ck_assert_int_eq(atomic_load(&f.live), 0);
    ck_assert_int_eq(st, atomic_load(&f.calls) >= k ? SF_STATUS_OUT_OF_MEMORY : SF_OK);
    ck_assert_int_eq(diag.error.status, st);
    if (st == SF_OK) {
      ck_assert_int_gt(k, 1);
      break;
    }
  }
  free(data);
}
END_TEST

/* ---- digests and weights of graphs --------------------------------------------------------------------------------- */

START_TEST(digest_of_shape_strides_and_elements) {
  float *data = malloc(100 * 100 * sizeof *data);
  ck_assert_ptr_nonnull(data);
  for (int i = 0; i < 10000; i++) data[i] = (float)i;
  const sfi_matrix matrices[] = {{data, 100, 100, 100, 1}, {data, 100, 100, 1, 100}, {data, 50, 200, 200, 1},
                                 {data, 50, 50, 200, 2},   {data, 50, 50, 2, 200},   {data, 10, 10, 10, 1}};
  sfi_digest digests[SFI_COUNT(matrices)];
  for (size_t i = 0; i < SFI_COUNT(matrices); i++) {
    digests[i] = sfi_matrix_digest(&matrices[i]);
    for (size_t j = 0; j < i; j++) ck_assert_mem_ne(&digests[i], &digests[j], sizeof *digests);
  }
  /* The last element counts, and one that strides skip does not. */
  data[9] += 1;
  for (size_t i = 0; i < SFI_COUNT(matrices); i++) {
    sfi_digest again = sfi_matrix_digest(&matrices[i]);
    ck_assert_int_eq(memcmp(&again, &digests[i], sizeof again) == 0, i == 3 || i == 4);
  }
  data[9] -= 1;
  data[49 * 200 + 49 * 2] += 1;
  sfi_digest again = sfi_matrix_digest(&matrices[3]);
  ck_assert_mem_ne(&again, &digests[3], sizeof again);
  free(data);
}
END_TEST

static void check_matrix(const sfi_matrix *m, const float *data, int64_t rows, int64_t columns, int64_t row_stride,
                         int64_t column_stride) {
  ck_assert_ptr_eq(m->data, data);
  ck_assert_int_eq(m->rows, rows);
  ck_assert_int_eq(m->columns, columns);
  ck_assert_int_eq(m->row_stride, row_stride);
  ck_assert_int_eq(m->column_stride, column_stride);
}

START_TEST(weights_as_matrices) {
  sf_context *context;
  sf_graph *graph;
  static const float data[4 * 3 * 3 * 2] = {1};
  sf_context_options options;
  SF_INIT(&options);
  options.isa = SF_ISA_REFERENCE;
  options.cache_dir = "";
  ck_assert_int_eq(sf_context_create(&options, &context), SF_OK);
  ck_assert_int_eq(sf_graph_create(context, "g", &graph), SF_OK);
  sf_value x = sf_graph_input(graph, "x", SF_F32, 3, (int64_t[]){2, 8, 6});
  sf_value image = sf_graph_input(graph, "image", SF_F32, 4, (int64_t[]){1, 6, 9, 9});
  sf_value b = sf_graph_weight(graph, "b", SF_F32, 2, (int64_t[]){6, 4}, data, SF_BORROW);
  sf_value bt = sf_graph_weight(graph, "bt", SF_F32, 2, (int64_t[]){4, 6}, data, SF_BORROW);
  sf_value a = sf_graph_weight(graph, "a", SF_F32, 2, (int64_t[]){5, 8}, data, SF_BORROW);
  sf_value at = sf_graph_weight(graph, "at", SF_F32, 2, (int64_t[]){8, 5}, data, SF_BORROW);
  sf_value batched = sf_graph_weight(graph, "batched", SF_F32, 3, (int64_t[]){2, 6, 4}, data, SF_BORROW);
  sf_value filter = sf_graph_weight(graph, "filter", SF_F32, 4, (int64_t[]){4, 3, 3, 2}, data, SF_BORROW);
  sf_value vector = sf_graph_weight(graph, "vector", SF_F32, 1, (int64_t[]){6}, data, SF_BORROW);
  sf_value scalar = sf_graph_constant(graph, SF_F32, 0, NULL, data);
  sf_value xb = sf_matmul(graph, x, b, false, false), xbt = sf_matmul(graph, x, bt, false, true);
  sf_value ax = sf_matmul(graph, a, x, false, false), atx = sf_matmul(graph, at, x, true, false);
  sf_value xx = sf_matmul(graph, x, x, false, true), xbatched = sf_matmul(graph, x, batched, false, false);
  sf_conv2d_options conv;
  SF_INIT(&conv);
  conv.groups = 2;
  sf_value convolved = sf_conv2d(graph, image, filter, SF_NO_VALUE, &conv);
  sf_value sum = sf_binary(graph, SF_OP_ADD, x, vector);
  ck_assert_int_eq(sf_graph_status(graph), SF_OK);
  sfi_matrix m;
  int32_t operand;
  const float *own = graph->nodes[b].data;
  ck_assert(sfi_weight_matrix(graph, xb, &operand, &m));
  ck_assert_int_eq(operand, 1);
  check_matrix(&m, own, 4, 6, 1, 4);
  ck_assert(sfi_weight_matrix(graph, xbt, &operand, &m));
  ck_assert_int_eq(operand, 1);
  check_matrix(&m, own, 4, 6, 6, 1);
  ck_assert(sfi_weight_matrix(graph, ax, &operand, &m));
  ck_assert_int_eq(operand, 0);
  check_matrix(&m, own, 5, 8, 8, 1);
  ck_assert(sfi_weight_matrix(graph, atx, &operand, &m));
  ck_assert_int_eq(operand, 0);
  check_matrix(&m, own, 5, 8, 1, 5);
  ck_assert(sfi_weight_matrix(graph, convolved, &operand, &m));
  ck_assert_int_eq(operand, 1);
  check_matrix(&m, own, 4, 18, 18, 1);
  ck_assert(!sfi_weight_matrix(graph, xx, &operand, &m));
  ck_assert(!sfi_weight_matrix(graph, xbatched, &operand, &m));
  ck_assert(!sfi_weight_matrix(graph, sum, &operand, &m));
  ck_assert(!sfi_weight_matrix(graph, x, &operand, &m));
  /* On their own: by the first consumer, else by the first extent. */
  ck_assert(sfi_weight_as_matrix(graph, b, &m));
  check_matrix(&m, own, 4, 6, 1, 4);
  ck_assert(sfi_weight_as_matrix(graph, at, &m));
  check_matrix(&m, own, 5, 8, 1, 5);
  ck_assert(sfi_weight_as_matrix(graph, batched, &m));
  check_matrix(&m, own, 2, 24, 24, 1);
  ck_assert(sfi_weight_as_matrix(graph, vector, &m));
  check_matrix(&m, own, 1, 6, 6, 1);
  ck_assert(sfi_weight_as_matrix(graph, scalar, &m));
  check_matrix(&m, graph->nodes[scalar].data, 1, 1, 1, 1);
  ck_assert(!sfi_weight_as_matrix(graph, x, &m));
  sf_graph_release(graph);
  sf_context_release(context);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("scan of zeros");
  TCase *tests = tcase_create("scan");
  tcase_set_timeout(tests, 120);
  tcase_add_loop_test(tests, equals_naive, 0, (int)SFI_COUNT(shapes));
  tcase_add_test(tests, reads_strides);
  tcase_add_test(tests, pattern_tells_patterns_apart);
  tcase_add_test(tests, survives_lack_of_memory);
  tcase_add_test(tests, digest_of_shape_strides_and_elements);
  tcase_add_test(tests, weights_as_matrices);
  suite_add_tcase(suite, tests);
  return run_suite(suite);
}
