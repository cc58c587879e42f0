/* Weights made and pruned. Everything is decided by magnitude, so that a made matrix and a trained one go the same way; ties cannot
 * matter, for weights are continuous. */
#include "bench.h"

#include <math.h>
#include <stdlib.h>

/* ---- random numbers ----------------------------------------------------------------------------------------------- */

/* splitmix64 */
static uint64_t next(uint64_t *state) {
  uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}

void bench_normal(uint64_t seed, float *out, int64_t n) {
  uint64_t state = seed;
  for (int64_t i = 0; i < n; i += 2) { /* Box-Muller, in pairs */
    const double u = ((double)(next(&state) >> 11) + 1) * 0x1p-53, v = (double)(next(&state) >> 11) * 0x1p-53;
    const float radius = sqrtf(-2 * logf((float)u)), angle = 6.2831853f * (float)v;
    out[i] = radius * cosf(angle);
    if (i + 1 < n) out[i + 1] = radius * sinf(angle);
  }
}

/* ---- making ------------------------------------------------------------------------------------------------------- */

/* Spread of the logarithm of the scale of rows and of columns. A made 384x384 layer at 95 % zeros has 0 to 90 nonzeros a row, 15 in the
 * median; trained ones of that size 0 to 48 .. 120, 12 .. 20 in the median. */
static const float log_scale_deviation = 0.25f;

sf_status bench_matrix_make(int64_t rows, int64_t cols, const char *pattern, uint64_t seed, bench_matrix *out, sf_error *error) {
  *out = (bench_matrix){.rows = rows, .cols = cols, .nnz = rows * cols, .kernel = {1, 1}};
  snprintf(out->name, sizeof out->name, "made %lldx%lld seed %llu", (long long)rows, (long long)cols, (unsigned long long)seed);
  out->w = malloc((size_t)(rows * cols + 1) * sizeof *out->w);
  float *scale = malloc((size_t)(rows + cols) * sizeof *scale);
  if (!out->w || !scale) {
    free(out->w);
    free(scale);
    out->w = NULL;
    return tool_fail(error, SF_STATUS_OUT_OF_MEMORY, NULL, 0, 0, "no memory for a matrix of %lld x %lld", (long long)rows,
                     (long long)cols);
  }
  bench_normal(seed, out->w, rows * cols);
  if (strcmp(pattern, "coin") != 0) {
    bench_normal(seed + 1, scale, rows + cols);
    for (int64_t i = 0; i < rows + cols; i++) scale[i] = expf(log_scale_deviation * scale[i]);
    for (int64_t r = 0; r < rows; r++)
      for (int64_t c = 0; c < cols; c++) out->w[r * cols + c] *= scale[r] * scale[rows + c];
  }
  free(scale);
  return SF_OK;
}

/* ---- pruning ------------------------------------------------------------------------------------------------------ */

/* The rectangles that stay or go as one. */
typedef struct tiling {
  int64_t height, width;
} tiling;

static double magnitude(const bench_matrix *m, int64_t r, int64_t c, tiling t) {
  double sum = 0;
  for (int64_t i = r; i < r + t.height && i < m->rows; i++)
    for (int64_t j = c; j < c + t.width && j < m->cols; j++) sum += fabs((double)m->w[i * m->cols + j]);
  return sum;
}

static void clear(bench_matrix *m, int64_t r, int64_t c, tiling t) {
  for (int64_t i = r; i < r + t.height && i < m->rows; i++)
    for (int64_t j = c; j < c + t.width && j < m->cols; j++) m->w[i * m->cols + j] = 0;
}

/* Clears the tiles of least magnitude, `zeros` of their number. False: out of memory. */
static bool prune_tiles(bench_matrix *m, tiling t, double zeros) {
  const int64_t down = (m->rows + t.height - 1) / t.height, across = (m->cols + t.width - 1) / t.width, n = down * across;
  const int64_t gone = llround(zeros * (double)n);
  if (gone <= 0) return true;
  float *score = malloc((size_t)n * sizeof *score);
  if (!score) return false;
  for (int64_t i = 0; i < n; i++) score[i] = (float)magnitude(m, i / across * t.height, i % across * t.width, t);
  const float threshold = tool_select_kth(score, n, gone - 1);
  free(score);
  for (int64_t i = 0; i < n; i++) {
    const int64_t r = i / across * t.height, c = i % across * t.width;
    if ((float)magnitude(m, r, c, t) <= threshold) clear(m, r, c, t);
  }
  return true;
}

/* Keeps n of every m consecutive tiles along one direction. */
static void prune_groups(bench_matrix *m, int n, int group, tiling t, bool down) {
  const int64_t step_r = down ? t.height * group : t.height, step_c = down ? t.width : t.width * group;
  for (int64_t r = 0; r < m->rows; r += step_r) {
    for (int64_t c = 0; c < m->cols; c += step_c) {
      double score[64];
      for (int i = 0; i < group; i++) score[i] = magnitude(m, down ? r + i * t.height : r, down ? c : c + i * t.width, t);
      for (int i = 0; i < group; i++) {
        int larger = 0;
        for (int j = 0; j < group; j++) larger += score[j] > score[i] || (score[j] == score[i] && j < i);
        if (larger >= n) clear(m, down ? r + i * t.height : r, down ? c : c + i * t.width, t);
      }
    }
  }
}

static sf_status bad_pattern(sf_error *error, const char *pattern, const char *problem) {
  return tool_fail(error, SF_STATUS_INVALID_ARGUMENT, NULL, 0, 0,
                   "pattern \"%s\": %s; patterns are unstructured, coin, N:M, N:MxR, N:Mv, RxC, dead", pattern, problem);
}

sf_status bench_matrix_prune(bench_matrix *m, const char *pattern, double zeros, sf_error *error) {
  int n, group, down, across, end = 0;
  bool done = true;
  const bool grouped = sscanf(pattern, "%d:%d%n", &n, &group, &end) == 2;
  if (!grouped && zeros < 0) zeros = 0;
  if (strcmp(pattern, "unstructured") == 0 || strcmp(pattern, "coin") == 0) {
    done = prune_tiles(m, (tiling){1, 1}, zeros);
  } else if (strcmp(pattern, "dead") == 0) {
    const double gone = 1 - sqrt(1 - zeros);
    done = prune_tiles(m, (tiling){m->rows, 1}, gone) && prune_tiles(m, (tiling){1, m->cols}, gone);
  } else if (grouped) {
    const char *rest = pattern + end;
    int shared = 1, tail = 0;
    const bool vertical = strcmp(rest, "v") == 0;
    if (n < 1 || group > 64 || n > group) return bad_pattern(error, pattern, "N is from 1 to M, M at most 64");
    if (*rest && !vertical && (sscanf(rest, "x%d%n", &shared, &tail) != 1 || rest[tail] || shared < 1))
      return bad_pattern(error, pattern, "not a pattern");
    prune_groups(m, n, group, (tiling){shared, 1}, vertical);
    if (zeros > 1 - (double)n / group) done = prune_tiles(m, (tiling){shared, 1}, zeros);
  } else if (sscanf(pattern, "%dx%d%n", &down, &across, &end) == 2 && !pattern[end] && down > 0 && across > 0) {
    done = prune_tiles(m, (tiling){down, across}, zeros);
  } else {
    return bad_pattern(error, pattern, "not a pattern");
  }
  if (!done) return tool_fail(error, SF_STATUS_OUT_OF_MEMORY, NULL, 0, 0, "no memory to prune %s", m->name);
  m->nnz = 0;
  for (int64_t i = 0; i < m->rows * m->cols; i++) m->nnz += m->w[i] != 0;
  snprintf(m->pattern, sizeof m->pattern, "%s", pattern);
  return SF_OK;
}
