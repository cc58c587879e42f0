/* The floor: plain loops over the nonzeros of W by rows, 64 columns at a time, k in blocks of 128, so that the part of X that a block
 * reads stays in L1. A sparse kernel that does not beat this has added nothing. Built into sf-bench; needs no library.
 *
 *   plain         X read in rows where it is; a convolution: from a padded image, made in every run but for PANEL
 *   plain-packed  X in panels of 64 columns, packed in every run but for PANEL
 *
 * Nonzeros hold the offset of their row of X, so that one loop serves rows, panels and images. An image is laid out in
 * stride x stride phases: each tap then reads with unit stride. */
#include "plain.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(_OPENMP)
#include <omp.h>
#endif

enum { WIDTH = 64, DEPTH = 128 };

typedef struct entry {
  int32_t offset; /* of X[k], elements */
  float value;
} entry;

typedef struct plain {
  bench_problem p;
  bool packed;
  int64_t blocks, depth; /* of k, and of a block */
  int64_t *begin;        /* [block * rows + row]: its entries; one more at the end */
  entry *entries;
  int64_t *cut; /* threads + 1 rows: pieces with as many nonzeros each */
  float *x, *y; /* own layout: panels, or a padded image; NULL: none */
  int64_t x_size, y_size;
  int64_t pitch, image; /* convolution: columns of a row of a phase, elements of all channels of an image */
} plain;

static int64_t min64(int64_t a, int64_t b) {
  return a < b ? a : b;
}

static int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

/* ---- the loop ----------------------------------------------------------------------------------------------------- */

/* y[r * ld + j] = (first ? 0 : y) + sum of value * x[offset + j] for rows [r0, r1) and W columns, W = 64, 32, 16, 8, 4 or 1. */
#define LOOP(W, V)                                                                                                                 \
  typedef float vec##W __attribute__((vector_size(sizeof(float) * (W) / (V)), aligned(4)));                                        \
  static void loop##W(const int64_t *begin, const entry *e, const float *x, float *y, int64_t ld, int64_t r0, int64_t r1,          \
                      bool first) {                                                                                                \
    for (int64_t r = r0; r < r1; r++) {                                                                                            \
      vec##W acc[V];                                                                                                               \
      float *out = y + r * ld;                                                                                                     \
      for (int v = 0; v < (V); v++) acc[v] = first ? (vec##W){0} : *(const vec##W *)(const void *)(out + v * ((W) / (V)));         \
      for (int64_t i = begin[r]; i < begin[r + 1]; i++) {                                                                          \
        const float *row = x + e[i].offset;                                                                                        \
        for (int v = 0; v < (V); v++) acc[v] += e[i].value * *(const vec##W *)(const void *)(row + v * ((W) / (V)));               \
      }                                                                                                                            \
      for (int v = 0; v < (V); v++) *(vec##W *)(void *)(out + v * ((W) / (V))) = acc[v];                                           \
    }                                                                                                                              \
  }
LOOP(64, 4)
LOOP(32, 2)
LOOP(16, 1)
LOOP(8, 1)
LOOP(4, 1)

static void loop1(const int64_t *begin, const entry *e, const float *x, float *y, int64_t ld, int64_t r0, int64_t r1, bool first) {
  for (int64_t r = r0; r < r1; r++) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = begin[r]; i < begin[r + 1]; i++) sum += e[i].value * x[e[i].offset];
    y[r * ld] = first ? sum : y[r * ld] + sum;
  }
}

/* Any number of columns up to WIDTH, in pieces. */
static void tile(const plain *s, const float *x, float *y, int64_t ld, int64_t width, int64_t r0, int64_t r1) {
  for (int64_t b = 0; b < s->blocks; b++) {
    const int64_t *begin = s->begin + b * s->p.rows;
    for (int64_t j = 0; j < width;) {
      const int64_t left = width - j;
      const bool first = b == 0;
#define PIECE(W)                                                                                                                   \
  if (left >= (W)) {                                                                                                               \
    loop##W(begin, s->entries, x + j, y + j, ld, r0, r1, first);                                                                   \
    j += (W);                                                                                                                      \
    continue;                                                                                                                      \
  }
      PIECE(64) PIECE(32) PIECE(16) PIECE(8) PIECE(4) PIECE(1)
#undef PIECE
    }
  }
}

/* ---- layouts ------------------------------------------------------------------------------------------------------ */

/* X into panels, columns past the last 0; `piece` of `pieces` of the panels. */
static void pack(plain *s, const float *x, bench_layout from, int64_t piece, int64_t pieces) {
  const int64_t n = s->p.columns, k = s->p.cols, panels = ceil_div(n, WIDTH);
  for (int64_t t = panels * piece / pieces; t < panels * (piece + 1) / pieces; t++) {
    const int64_t width = min64(WIDTH, n - t * WIDTH);
    float *to = s->x + t * k * WIDTH;
    for (int64_t i = 0; i < k; i++) {
      for (int64_t j = 0; j < width; j++)
        to[i * WIDTH + j] = from == BENCH_TOKENS ? x[(t * WIDTH + j) * k + i] : x[i * n + t * WIDTH + j];
      for (int64_t j = width; j < WIDTH; j++) to[i * WIDTH + j] = 0;
    }
  }
}

static void unpack(const plain *s, float *y, bench_layout to, int64_t piece, int64_t pieces) {
  const int64_t n = s->p.columns, m = s->p.rows;
  for (int64_t r = m * piece / pieces; r < m * (piece + 1) / pieces; r++) {
    for (int64_t j = 0; j < n; j++) y[to == BENCH_TOKENS ? j * m + r : r * n + j] = s->y[(j / WIDTH * m + r) * WIDTH + j % WIDTH];
  }
}

/* The padded image in phases; `piece` of `pieces` of the channels of all images. */
static void pad(plain *s, const float *x, int64_t piece, int64_t pieces) {
  const bench_conv *c = &s->p.conv;
  const int64_t n = c->batch * c->channels, channel = s->image / c->channels, phases = c->stride * c->stride;
  const int64_t height = channel / phases / s->pitch;
  for (int64_t i = n * piece / pieces; i < n * (piece + 1) / pieces; i++) {
    for (int64_t q = 0; q < phases; q++) {
      for (int64_t h = 0; h < height; h++) {
        float *to = s->x + i * channel + (q * height + h) * s->pitch;
        const int64_t ih = h * c->stride + q / c->stride - c->pad, shift = q % c->stride - c->pad;
        for (int64_t w = 0; w < s->pitch; w++) {
          const int64_t iw = w * c->stride + shift;
          to[w] = ih >= 0 && ih < c->height && iw >= 0 && iw < c->width ? x[(i * c->height + ih) * c->width + iw] : 0;
        }
      }
    }
  }
}

/* ---- running ------------------------------------------------------------------------------------------------------ */

/* Rows [r0, r1) of one image: tiles run over whole pitched rows, of which the valid pixels are kept. */
static void image_rows(const plain *s, const float *x, float *y, int64_t r0, int64_t r1) {
  const bench_conv *c = &s->p.conv;
  const int64_t pixels = c->out_height * c->out_width, flat = (c->out_height - 1) * s->pitch + c->out_width;
  for (int64_t j = 0; j < flat; j += WIDTH) {
    const int64_t width = min64(WIDTH, flat - j);
    if (s->pitch == c->out_width) {
      tile(s, x + j, y + j, pixels, width, r0, r1);
      continue;
    }
    tile(s, x + j, s->y, WIDTH, width, r0, r1); /* s->y: a tile of each row */
    for (int64_t r = r0; r < r1; r++) {
      for (int64_t i = 0; i < width;) {
        const int64_t h = (j + i) / s->pitch, w = (j + i) % s->pitch, run = min64(s->pitch - w, width - i);
        const int64_t valid = min64(run, c->out_width - w);
        if (valid > 0) memcpy(y + r * pixels + h * c->out_width + w, s->y + r * WIDTH + i, (size_t)valid * sizeof *y);
        i += run;
      }
    }
  }
}

static void barrier(void) {
#if defined(_OPENMP)
#pragma omp barrier
#endif
}

static void run_piece(plain *s, const float *x, float *y, int64_t piece, int64_t pieces) {
  const bench_problem *p = &s->p;
  const int64_t r0 = s->cut[piece], r1 = s->cut[piece + 1];
  const bool own = p->layout == BENCH_PANEL;
  if (p->conv.batch) {
    /* A 1x1 window without padding reads the image as it is. */
    const bench_conv *c = &p->conv;
    const bool in_place = !own && c->kernel[0] == 1 && c->kernel[1] == 1 && c->stride == 1 && c->pad == 0;
    if (!own && !in_place) pad(s, x, piece, pieces);
    barrier();
    const int64_t out = p->rows * c->out_height * c->out_width;
    for (int64_t i = 0; i < c->batch; i++) image_rows(s, (in_place ? x : s->x) + i * s->image, y + i * out, r0, r1);
  } else if (s->packed) {
    if (!own) pack(s, x, p->layout, piece, pieces);
    barrier();
    for (int64_t t = 0; t < ceil_div(p->columns, WIDTH); t++) {
      const float *panel = s->x + t * p->cols * WIDTH;
      if (p->layout == BENCH_ROW)
        tile(s, panel, y + t * WIDTH, p->columns, min64(WIDTH, p->columns - t * WIDTH), r0, r1);
      else
        tile(s, panel, s->y + t * p->rows * WIDTH, WIDTH, min64(WIDTH, p->columns - t * WIDTH), r0, r1);
    }
    if (p->layout != BENCH_TOKENS) return;
    barrier();
    unpack(s, y, BENCH_TOKENS, piece, pieces);
  } else {
    for (int64_t j = 0; j < p->columns; j += WIDTH) tile(s, x + j, y + j, p->columns, min64(WIDTH, p->columns - j), r0, r1);
  }
}

static void run(void *state, const float *x, float *y) {
  plain *s = state;
#if defined(_OPENMP)
  if (s->p.threads > 1) {
#pragma omp parallel num_threads(s->p.threads)
    run_piece(s, x, y, omp_get_thread_num(), s->p.threads);
    return;
  }
#endif
  run_piece(s, x, y, 0, s->p.threads);
}

/* Convolutions leave Y in NCHW in every layout. */
static void load(void *state, const float *x) {
  plain *s = state;
  if (s->p.conv.batch)
    pad(s, x, 0, 1);
  else if (s->packed)
    pack(s, x, BENCH_ROW, 0, 1);
  for (int64_t i = 0; i < s->y_size; i++) s->y[i] = NAN;
}

static void store(void *state, float *y) {
  unpack(state, y, BENCH_ROW, 0, 1);
}

/* ---- making ------------------------------------------------------------------------------------------------------- */

static void destroy(void *state) {
  plain *s = state;
  if (!s) return;
  free(s->begin);
  free(s->entries);
  free(s->cut);
  free(s->x);
  free(s->y);
  free(s);
}

static float *aligned(int64_t elements) {
  return aligned_alloc(64, (size_t)ceil_div(elements * (int64_t)sizeof(float), 64) * 64 + 256);
}

static int64_t offset_of(const plain *s, int64_t k) {
  const bench_conv *c = &s->p.conv;
  if (s->packed) return k * WIDTH;
  if (!c->batch) return k * s->p.columns;
  const int64_t taps = c->kernel[0] * c->kernel[1], kh = k % taps / c->kernel[1], kw = k % c->kernel[1];
  const int64_t channel = s->image / c->channels, phase = channel / (c->stride * c->stride);
  return k / taps * channel + (kh % c->stride * c->stride + kw % c->stride) * phase + kh / c->stride * s->pitch + kw / c->stride;
}

/* Own X and Y, and the geometry of a padded image. */
static bool make_buffers(plain *s) {
  const bench_problem *p = &s->p;
  const bench_conv *c = &p->conv;
  if (c->batch) {
    s->pitch = c->out_width + (c->kernel[1] - 1) / c->stride;
    s->image = c->channels * c->stride * c->stride * s->pitch * (c->out_height + (c->kernel[0] - 1) / c->stride);
    s->x_size = c->batch * s->image + WIDTH;
    s->y_size = p->rows * WIDTH;
  } else if (s->packed) {
    s->x_size = ceil_div(p->columns, WIDTH) * WIDTH * p->cols;
    s->y_size = p->layout == BENCH_ROW ? 0 : ceil_div(p->columns, WIDTH) * WIDTH * p->rows;
  }
  s->x = aligned(s->x_size);
  s->y = aligned(s->y_size);
  if (s->x && s->y) memset(s->x, 0, (size_t)s->x_size * sizeof *s->x);
  return s->x && s->y;
}

static void fill(plain *s) {
  const bench_problem *p = &s->p;
  int64_t n = 0;
  for (int64_t b = 0; b < s->blocks; b++) {
    for (int64_t r = 0; r < p->rows; r++) {
      s->begin[b * p->rows + r] = n;
      for (int64_t k = b * s->depth; k < min64((b + 1) * s->depth, p->cols); k++) {
        const float value = p->w[r * p->cols + k];
        if (value != 0) s->entries[n++] = (entry){(int32_t)offset_of(s, k), value};
      }
    }
  }
  s->begin[s->blocks * p->rows] = n;
  /* Pieces end where their share of the nonzeros is reached; a row costs a little too. */
  int64_t seen = 0, r = 0;
  const int64_t total = n + 4 * p->rows;
  for (int t = 0; t < p->threads; t++) {
    s->cut[t] = r;
    while (r < p->rows && seen < total * (t + 1) / p->threads) {
      seen += 4;
      for (int64_t k = 0; k < p->cols; k++) seen += p->w[r * p->cols + k] != 0;
      r++;
    }
  }
  s->cut[p->threads] = p->rows;
}

static const char *layout_of(const bench_problem *p, bool packed) {
  const bool own = p->layout == BENCH_PANEL;
  if (p->conv.batch) return own ? "padded NCHW" : "NCHW";
  return own && packed ? "panel64" : p->layout == BENCH_TOKENS ? "tokens" : "row";
}

static void *create(const bench_problem *problem, bool packed, const char **out_layout, char why[BENCH_WHY]) {
  plain *s = calloc(1, sizeof *s);
  if (!s) return NULL;
  s->p = *problem;
  s->packed = packed;
#if !defined(_OPENMP)
  s->p.threads = 1;
#endif
  /* One column: no part of X to keep near, and a loop a row. */
  s->depth = problem->columns == 1 ? problem->cols : DEPTH;
  s->blocks = ceil_div(problem->cols, s->depth);
  s->begin = malloc((size_t)(s->blocks * problem->rows + 1) * sizeof *s->begin);
  s->entries = malloc((size_t)(problem->nnz + 1) * sizeof *s->entries);
  s->cut = malloc((size_t)(s->p.threads + 1) * sizeof *s->cut);
  if (!s->begin || !s->entries || !s->cut || !make_buffers(s)) {
    snprintf(why, BENCH_WHY, "out of memory");
  } else if (offset_of(s, problem->cols) > INT32_MAX) {
    snprintf(why, BENCH_WHY, "X is too large for 32-bit offsets");
  } else {
    fill(s);
    *out_layout = layout_of(problem, packed);
    return s;
  }
  destroy(s);
  return NULL;
}

static void *create_plain(const bench_problem *problem, const char **out_layout, char why[BENCH_WHY]) {
  if (problem->conv.batch || problem->layout != BENCH_TOKENS) return create(problem, false, out_layout, why);
  snprintf(why, BENCH_WHY, "reads rows only: see plain-packed");
  return NULL;
}

static void *create_packed(const bench_problem *problem, const char **out_layout, char why[BENCH_WHY]) {
  if (!problem->conv.batch) return create(problem, true, out_layout, why);
  snprintf(why, BENCH_WHY, "convolutions: see plain");
  return NULL;
}

static void describe(char *text, size_t size) {
  snprintf(text, size, "sparse; plain C over nonzeros by rows, 64 columns at a time, k in blocks of 128");
}
static void describe_packed(char *text, size_t size) {
  snprintf(text, size, "sparse; the same with X packed in panels of 64 columns");
}

const bench_peer bench_plain = {"plain", false, describe, create_plain, run, load, NULL, destroy};
const bench_peer bench_plain_packed = {"plain-packed", false, describe_packed, create_packed, run, load, store, destroy};
