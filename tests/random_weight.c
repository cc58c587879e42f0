/* See random_weight.h. */
#include "random_weight.h"

#include <stdbool.h>
#include <stddef.h>

const char *sf_pattern_name(sf_pattern pattern) {
  static const char *const names[] = {
      [SF_PATTERN_DENSE] = "dense",
      [SF_PATTERN_UNSTRUCTURED] = "unstructured",
      [SF_PATTERN_NM_COLUMNS] = "n:m along columns",
      [SF_PATTERN_NM_ROWS] = "n:m along rows",
      [SF_PATTERN_BLOCKS] = "blocks",
      [SF_PATTERN_NEARLY_FULL_BLOCKS] = "nearly full blocks",
      [SF_PATTERN_DEAD] = "dead",
      [SF_PATTERN_ALL_ZERO] = "all zero",
      [SF_PATTERN_ONE_ELEMENT] = "one element",
  };
  return names[pattern];
}

static uint64_t bits(uint64_t *state) {
  *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return *state >> 33;
}
static int64_t below(uint64_t *state, int64_t bound) {
  return (int64_t)(bits(state) % (uint64_t)bound);
}
static double share(uint64_t *state) {
  return (double)(bits(state) % 1000000) / 1e6;
}

/* Zeroes elements of each group of m until n are left. */
static void keep_nm(uint64_t *state, float *data, int64_t stride, int64_t extent, int64_t n, int64_t m) {
  for (int64_t g = 0; g < extent; g += m) {
    int64_t width = m < extent - g ? m : extent - g;
    for (int64_t zeros = width > n ? width - n : 0; zeros > 0;) {
      float *v = &data[(g + below(state, width)) * stride];
      zeros -= *v != 0;
      *v = 0;
    }
  }
}

void sf_fill_weight(uint64_t *state, const sf_zeros *zeros, int64_t rows, int64_t columns, float *data) {
  sf_pattern pattern = zeros->pattern;
  int64_t count = rows * columns, lone = count > 0 ? below(state, count) : 0;
  uint64_t seed = bits(state);
  for (int64_t i = 0; i < count; i++) data[i] = (float)(share(state) + 0.5) * (bits(state) % 2 ? 1 : -1);
  if (pattern == SF_PATTERN_NM_COLUMNS)
    for (int64_t r = 0; r < rows; r++) keep_nm(state, data + r * columns, 1, columns, zeros->n, zeros->m);
  if (pattern == SF_PATTERN_NM_ROWS)
    for (int64_t c = 0; c < columns; c++) keep_nm(state, data + c, columns, rows, zeros->n, zeros->m);
  for (int64_t i = 0; i < count; i++) {
    int64_t r = i / columns, c = i % columns;
    bool zero = data[i] == 0;
    if (pattern == SF_PATTERN_UNSTRUCTURED) zero = share(state) < zeros->share;
    if (pattern == SF_PATTERN_BLOCKS || pattern == SF_PATTERN_NEARLY_FULL_BLOCKS) {
      uint64_t block = (uint64_t)(r / zeros->height * 131 + c / zeros->width) * UINT64_C(0x9e3779b97f4a7c15) + seed;
      zero = block * UINT64_C(0xbf58476d1ce4e5b9) >> 62 == 0;
    }
    if (pattern == SF_PATTERN_NEARLY_FULL_BLOCKS) zero = zero || share(state) < 0.05;
    if (pattern == SF_PATTERN_DEAD) zero = (uint64_t)r % 5 == seed % 5 || (uint64_t)c % 7 == seed % 7;
    if (pattern == SF_PATTERN_ALL_ZERO) zero = true;
    if (pattern == SF_PATTERN_ONE_ELEMENT) zero = i != lone;
    if (zero) data[i] = bits(state) % 2 ? 0.0f : -0.0f;
  }
}

void sf_random_weight(uint64_t *state, sf_pattern pattern, int64_t rows, int64_t columns, float *data) {
  static const double shares[] = {0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999};
  sf_zeros zeros = {.pattern = pattern, .height = INT64_C(1) << below(state, 7), .width = INT64_C(1) << below(state, 7)};
  zeros.m = INT64_C(2) << below(state, 5);
  zeros.n = below(state, zeros.m);
  zeros.share = shares[below(state, sizeof shares / sizeof *shares)];
  sf_fill_weight(state, &zeros, rows, columns, data);
}
