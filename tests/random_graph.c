/* Random graphs: a list of values grows by one random operation at a time, on operands that fit by construction. */
#include "random_graph.h"
#include "run_limits.h"
#include "random_weight.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

uint32_t sf_random_next(sf_random *random) {
  random->state ^= random->state << 13;
  random->state ^= random->state >> 7;
  random->state ^= random->state << 17;
  return (uint32_t)(random->state * UINT64_C(0x9E3779B97F4A7C15) >> 32);
}

int32_t sf_random_below(sf_random *random, int32_t bound) {
  return (int32_t)(sf_random_next(random) % (uint32_t)bound);
}

static bool chance(sf_random *random, int32_t percent) {
  return sf_random_below(random, 100) < percent;
}

/* Mostly multiples of 1/8 in [-2, 2]. */
static float number(sf_random *random, bool special) {
  static const float specials[] = {NAN, INFINITY, -INFINITY, -0.0f, FLT_MAX, FLT_MIN, 0};
  if (special && chance(random, 3)) return specials[sf_random_below(random, SFI_COUNT(specials))];
  return (float)(sf_random_below(random, 33) - 16) / 8;
}

/* ---- static tensors ----------------------------------------------------------------------------------------------- */

typedef struct maker {
  sf_graph *graph;
  sf_random random;
  const sf_random_graph_options *options;
  sf_value values[128]; /* run-time values so far */
  int32_t n_values;
  int32_t n_weights;
} maker;

/* An extent from 1 to `most`, or one of those about multiples of vectors and tiles. */
static int64_t size(maker *m, int32_t most) {
  static const int64_t sizes[] = {1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 67, 100, 129};
  return m->options->large ? sizes[sf_random_below(&m->random, SFI_COUNT(sizes))] : 1 + sf_random_below(&m->random, most);
}

/* Zeros by a random pattern of the matrix [first extent, the others] or of its transpose. The magnitude of sums over the others
 * stays about 1. */
static void fill_by_pattern(maker *m, int32_t rank, const int64_t *dims, float *data) {
  uint64_t state = sf_random_next(&m->random);
  int64_t columns = 1;
  float scale = 1;
  for (int32_t d = 1; d < rank; d++) columns *= dims[d];
  while (scale * scale * (float)columns > 2) scale /= 2;
  sf_random_weight(&state, (sf_pattern)sf_random_below(&m->random, SF_PATTERNS), dims[0], columns, data);
  for (int64_t i = 0; i < dims[0] * columns; i++) data[i] *= scale;
}

/* A weight or constant. Zeros: none, scattered, or whole slices along the dimensions. */
static sf_value static_tensor(maker *m, int32_t rank, const int64_t *dims, bool sparse, bool positive) {
  int64_t count = 1, inner = 1;
  for (int32_t d = 0; d < rank; d++) count *= dims[d];
  float *data = malloc((size_t)(count ? count : 1) * sizeof *data);
  bool by_pattern = m->options->large && sparse && rank > 1;
  if (by_pattern) fill_by_pattern(m, rank, dims, data);
  int32_t density = sparse ? 20 + sf_random_below(&m->random, 80) : 100;
  for (int64_t i = 0; i < count && !by_pattern; i++) {
    float value = number(&m->random, m->options->special && !positive);
    if (positive) value = fabsf(value) + 0.25f;
    data[i] = chance(&m->random, density) ? value : chance(&m->random, 50) ? 0 : -0.0f;
  }
  for (int32_t d = rank - 1; sparse && !by_pattern && d >= 0; d--) {
    for (int64_t k = 0; k < dims[d]; k++) {
      if (!chance(&m->random, 25)) continue;
      for (int64_t i = 0; i < count; i++)
        if (i / inner % dims[d] == k) data[i] = 0;
    }
    inner *= dims[d];
  }
  sf_value value;
  if (chance(&m->random, 70)) {
    char name[32];
    snprintf(name, sizeof name, "w%d", m->n_weights++);
    value = sf_graph_weight(m->graph, name, SF_F32, rank, dims, data, SF_COPY);
  } else {
    value = sf_graph_constant(m->graph, SF_F32, rank, dims, data);
  }
  free(data);
  return value;
}

/* A whole static tensor of one number, to meet the rules of algebra. */
static sf_value filled(maker *m, float value) {
  return sf_graph_constant(m->graph, SF_F32, 0, NULL, &value);
}

/* ---- operations --------------------------------------------------------------------------------------------------- */

static const sfi_shape *shape_of(const maker *m, sf_value v) {
  return &m->graph->nodes[v].shape;
}

static sf_value pick(maker *m) {
  int32_t recent = m->n_values < 4 ? m->n_values : 4;
  return m->values[chance(&m->random, 70) ? m->n_values - 1 - sf_random_below(&m->random, recent)
                                          : sf_random_below(&m->random, m->n_values)];
}

static int64_t extent(const maker *m, sf_value v, int32_t d) {
  sfi_poly p = shape_of(m, v)->dims[d];
  return sfi_is_const(p) ? p.c[0] : SF_DIM_SYMBOLIC;
}

static sf_value op(maker *m, sf_op code, int32_t n_inputs, const sf_value *inputs, int32_t n_attrs, const sf_attr *attrs) {
  return sf_graph_op(m->graph, code, n_inputs, inputs, n_attrs, attrs);
}

static sf_attr ints_attr(sf_attr_id id, int32_t count, const int64_t *ints) {
  return (sf_attr){.id = id, .count = count, .ints = ints};
}

/* A static tensor that differs along some trailing dimensions of v only. */
static sf_value operand_for(maker *m, sf_value v, bool positive) {
  int32_t rank = shape_of(m, v)->rank, own = sf_random_below(&m->random, rank + 1);
  int64_t dims[SF_MAX_RANK];
  for (int32_t d = 0; d < own; d++) {
    int64_t e = extent(m, v, d + rank - own);
    dims[d] = e > 0 && chance(&m->random, 60) ? e : 1;
  }
  return static_tensor(m, own, dims, !positive, positive);
}

/* One factor or term a channel, as behind a contraction: the usual case must be met often. */
static sf_value channel_operand(maker *m, sf_value v, bool sparse, bool positive) {
  int32_t rank = shape_of(m, v)->rank;
  int64_t dims[3] = {1, 1, 1};
  int32_t axis = rank == 4 ? 1 : rank - 1;
  if (rank < 1 || extent(m, v, axis) < 1) return operand_for(m, v, positive);
  dims[0] = extent(m, v, axis);
  return static_tensor(m, rank == 4 ? 3 : 1, dims, sparse, positive);
}

static sf_value matmul(maker *m, sf_value x) {
  int32_t rank = shape_of(m, x)->rank;
  if (rank < 2 || extent(m, x, rank - 1) < 1) return SF_NO_VALUE;
  int64_t k = extent(m, x, rank - 1), n = size(m, 6);
  bool transposed = chance(&m->random, 50), explicit_transpose = chance(&m->random, 20);
  int64_t dims[2] = {transposed != explicit_transpose ? n : k, transposed != explicit_transpose ? k : n};
  sf_value w = static_tensor(m, 2, dims, true, false);
  if (explicit_transpose) w = sf_transpose(m->graph, w, 2, (const int64_t[]){1, 0});
  sf_value y = sf_matmul(m->graph, x, w, false, transposed);
  return chance(&m->random, 60) ? sf_binary(m->graph, SF_OP_ADD, y, channel_operand(m, y, true, false)) : y;
}

static sf_value matmul_weight_first(maker *m, sf_value x) {
  int32_t rank = shape_of(m, x)->rank;
  if (rank < 2 || extent(m, x, rank - 2) < 1) return SF_NO_VALUE;
  int64_t dims[2] = {size(m, 6), extent(m, x, rank - 2)};
  return sf_matmul(m->graph, static_tensor(m, 2, dims, true, false), x, false, false);
}

/* x x', x' x, or x times an explicit transpose of x. */
static sf_value matmul_run_time(maker *m, sf_value x) {
  int32_t rank = shape_of(m, x)->rank;
  int64_t perm[SF_MAX_RANK] = {0, 1, 2, 3, 4, 5};
  if (rank < 2 || extent(m, x, rank - 2) < 1) return SF_NO_VALUE;
  perm[rank - 1] = rank - 2;
  perm[rank - 2] = rank - 1;
  if (chance(&m->random, 50)) return sf_matmul(m->graph, x, sf_transpose(m->graph, x, rank, perm), false, false);
  bool first = chance(&m->random, 50);
  return sf_matmul(m->graph, x, x, first, !first);
}

/* Two projections of one value, each with its bias and function or without, times each other. */
static sf_value siblings(maker *m, sf_value x) {
  int32_t rank = shape_of(m, x)->rank;
  if (rank < 2 || extent(m, x, rank - 1) < 1) return SF_NO_VALUE;
  int64_t k = extent(m, x, rank - 1), n = size(m, 6);
  bool transposed = chance(&m->random, 50), biased = chance(&m->random, 60), with_function = chance(&m->random, 30);
  int64_t dims[2] = {transposed ? n : k, transposed ? k : n};
  sf_value y[2];
  for (int i = 0; i < 2; i++) {
    y[i] = sf_matmul(m->graph, x, static_tensor(m, 2, dims, true, false), false, transposed);
    if (biased) y[i] = sf_binary(m->graph, SF_OP_ADD, y[i], static_tensor(m, 1, &n, true, false));
    if (with_function) y[i] = sf_unary(m->graph, SF_OP_RELU, y[i]);
  }
  return sf_matmul(m->graph, y[0], y[1], false, true);
}

/* A value's attention to itself, written out. */
static sf_value attention(maker *m, sf_value x) {
  if (shape_of(m, x)->rank != 4 || extent(m, x, 3) < 1 || m->options->gentle) return SF_NO_VALUE;
  sf_value scores = sf_matmul(m->graph, x, x, false, true);
  if (chance(&m->random, 50)) scores = sf_binary(m->graph, SF_OP_MUL, scores, filled(m, 0.25f));
  return sf_matmul(m->graph, sf_softmax(m->graph, scores, -1), x, false, false);
}

static sf_value conv2d(maker *m, sf_value x) {
  if (shape_of(m, x)->rank != 4 || extent(m, x, 1) < 1 || extent(m, x, 2) < 1 || extent(m, x, 3) < 1) return SF_NO_VALUE;
  int64_t channels = extent(m, x, 1), rows = size(m, 5);
  sf_conv2d_options o;
  SF_INIT(&o);
  o.groups = chance(&m->random, 20) ? channels : 1;
  if (o.groups > 1) rows = channels;
  int64_t dims[4] = {rows, channels / o.groups, 0, 0};
  for (int i = 0; i < 2; i++) {
    o.pad[i] = o.pad[i + 2] = sf_random_below(&m->random, 2);
    o.stride[i] = 1 + sf_random_below(&m->random, 2);
    dims[2 + i] = 1 + sf_random_below(&m->random, (int32_t)sfi_min(3, extent(m, x, 2 + i)));
  }
  sf_value bias = chance(&m->random, 50)   ? static_tensor(m, 1, dims, true, false)
                  : chance(&m->random, 15) ? sf_graph_input(m->graph, NULL, SF_F32, 1, dims)
                                           : SF_NO_VALUE;
  sf_value y = sf_conv2d(m->graph, x, static_tensor(m, 4, dims, true, false), bias, &o);
  if (chance(&m->random, 20)) y = sf_binary(m->graph, SF_OP_ADD, y, channel_operand(m, y, true, false));
  return y;
}

static sf_value pool(maker *m, sf_value x) {
  if (shape_of(m, x)->rank != 4 || extent(m, x, 2) < 1 || extent(m, x, 3) < 1) return SF_NO_VALUE;
  if (chance(&m->random, 20)) return sf_unary(m->graph, SF_OP_GLOBAL_AVG_POOL, x);
  int64_t kernel[2], stride[2], pad[4] = {0};
  for (int i = 0; i < 2; i++) {
    kernel[i] = 1 + sf_random_below(&m->random, (int32_t)sfi_min(2, extent(m, x, 2 + i)));
    stride[i] = 1 + sf_random_below(&m->random, 2);
    pad[i] = pad[i + 2] = sf_random_below(&m->random, (int32_t)kernel[i]);
  }
  sf_attr attrs[3] = {ints_attr(SF_ATTR_KERNEL, 2, kernel), ints_attr(SF_ATTR_STRIDE, 2, stride), ints_attr(SF_ATTR_PAD, 4, pad)};
  return op(m, chance(&m->random, 50) ? SF_OP_MAX_POOL : SF_OP_AVG_POOL, 1, &x, 3, attrs);
}

static sf_value unary(maker *m, sf_value x) {
  static const sf_op gentle[] = {SF_OP_RELU, SF_OP_TANH, SF_OP_SIGMOID, SF_OP_RELU};
  static const sf_op any[] = {SF_OP_RELU, SF_OP_TANH, SF_OP_SIGMOID, SF_OP_EXP, SF_OP_SQRT, SF_OP_GELU, SF_OP_GELU_TANH,
                              SF_OP_SILU, SF_OP_NEG,  SF_OP_ABS,     SF_OP_ERF, SF_OP_LOG,  SF_OP_SIN,  SF_OP_COS};
  return sf_unary(
      m->graph,
      m->options->gentle ? gentle[sf_random_below(&m->random, 4)] : any[sf_random_below(&m->random, (int32_t)SFI_COUNT(any))], x);
}

/* An operation as exporters write it out in smaller ones. */
static sf_value written_out(maker *m, sf_value x) {
  sf_graph *g = m->graph;
  sf_value one = filled(m, 1), half = filled(m, 0.5f), f;
  int32_t which = sf_random_below(&m->random, m->options->gentle ? 3 : 4);
  if (which == 0) return sf_binary(g, SF_OP_MUL, x, sf_unary(g, SF_OP_SIGMOID, x));
  if (which == 3) {
    int32_t rank = shape_of(m, x)->rank;
    if (rank == 0) return SF_NO_VALUE;
    int64_t axes[2] = {rank - 1, rank - 2};
    sf_attr over[2] = {ints_attr(SF_ATTR_AXES, rank > 1 && chance(&m->random, 30) ? 2 : 1, axes), {.id = SF_ATTR_KEEPDIMS, .i = 1}};
    sf_value d = sf_binary(g, SF_OP_SUB, x, op(m, SF_OP_REDUCE_MEAN, 1, &x, 2, over)), square = sf_binary(g, SF_OP_MUL, d, d);
    sf_value sum = sf_binary(g, SF_OP_ADD, op(m, SF_OP_REDUCE_MEAN, 1, &square, 2, over), filled(m, 0.01f));
    return sf_binary(g, SF_OP_DIV, d, sf_unary(g, SF_OP_SQRT, sum));
  }
  if (which == 1) {
    f = sf_unary(g, SF_OP_ERF, sf_binary(g, SF_OP_DIV, x, filled(m, 1.41421354f)));
  } else {
    sf_value cube = sf_binary(g, SF_OP_MUL, sf_binary(g, SF_OP_MUL, x, x), x);
    sf_value sum = sf_binary(g, SF_OP_ADD, x, sf_binary(g, SF_OP_MUL, filled(m, 0.044715f), cube));
    f = sf_unary(g, SF_OP_TANH, sf_binary(g, SF_OP_MUL, sum, filled(m, 0.797884583f)));
  }
  sf_value factor = sf_binary(g, SF_OP_ADD, f, one);
  switch (sf_random_below(&m->random, 3)) {
  case 0:
    return sf_binary(g, SF_OP_MUL, sf_binary(g, SF_OP_MUL, x, factor), half);
  case 1:
    return sf_binary(g, SF_OP_MUL, sf_binary(g, SF_OP_MUL, half, x), factor);
  default:
    return sf_binary(g, SF_OP_MUL, x, sf_binary(g, SF_OP_MUL, factor, half));
  }
}

static sf_value binary_static(maker *m, sf_value x) {
  static const sf_op ops[] = {SF_OP_ADD, SF_OP_MUL, SF_OP_SUB, SF_OP_DIV};
  sf_op code = ops[sf_random_below(&m->random, 4)];
  bool positive = code == SF_OP_DIV && (m->options->gentle || chance(&m->random, 80));
  sf_value y =
      chance(&m->random, 60) ? channel_operand(m, x, !positive, positive)
      : chance(&m->random, 30)
          ? filled(m, (float[]){0, -0.0f, 1, 2}[positive ? 2 + sf_random_below(&m->random, 2) : sf_random_below(&m->random, 4)])
          : operand_for(m, x, positive);
  bool swapped = (code != SF_OP_DIV || !m->options->gentle) && chance(&m->random, 30);
  return sf_binary(m->graph, code, swapped ? y : x, swapped ? x : y);
}

static sf_value binary_run_time(maker *m, sf_value x) {
  sf_value y = x;
  for (int32_t i = 0; i < m->n_values; i++)
    if (sfi_shape_equal(shape_of(m, m->values[i]), shape_of(m, x)) && chance(&m->random, 50)) y = m->values[i];
  sf_op code = chance(&m->random, 60) ? SF_OP_ADD : chance(&m->random, 50) || m->options->gentle ? SF_OP_SUB : SF_OP_MUL;
  return sf_binary(m->graph, code, x, y);
}

static sf_value batch_norm(maker *m, sf_value x) {
  if (m->options->no_batch_norm || shape_of(m, x)->rank < 2 || extent(m, x, 1) < 1) return SF_NO_VALUE;
  int64_t channels = extent(m, x, 1);
  sf_value inputs[5] = {x};
  for (int k = 1; k < 5; k++) inputs[k] = static_tensor(m, 1, &channels, k < 4 && chance(&m->random, 20), k == 4);
  return op(m, SF_OP_BATCH_NORM, 5, inputs, 0, NULL);
}

static sf_value reshape(maker *m, sf_value x) {
  const sfi_shape *shape = shape_of(m, x);
  int64_t to[SF_MAX_RANK] = {0};
  int32_t rank = shape->rank, d;
  if (rank == 0) return sf_reshape(m->graph, x, 2, (const int64_t[]){1, 1});
  for (d = 0; d < rank; d++)
    if (extent(m, x, d) == 0) return SF_NO_VALUE; /* what remains beside it is not defined */
  switch (sf_random_below(&m->random, 4)) {
  case 0: /* all but the first flattened */
    to[1] = -1;
    return rank < 2 ? SF_NO_VALUE : sf_reshape(m->graph, x, 2, to);
  case 1: /* the last split in two */
    if (rank == SF_MAX_RANK || extent(m, x, rank - 1) < 2 || extent(m, x, rank - 1) % 2) return SF_NO_VALUE;
    to[rank - 1] = extent(m, x, rank - 1) / 2;
    to[rank] = 2;
    return sf_reshape(m->graph, x, rank + 1, to);
  case 2: /* two neighbours merged; 0 cannot name what stands elsewhere */
    if (rank < 2) return SF_NO_VALUE;
    to[rank - 2] = -1;
    return sf_reshape(m->graph, x, rank - 1, to);
  default: /* an extent of 1 more */
    if (rank == SF_MAX_RANK) return SF_NO_VALUE;
    for (d = 0; d < rank; d++)
      if (d > 0 && extent(m, x, d) < 1) return SF_NO_VALUE;
    for (d = 1; d < rank; d++) to[d + 1] = extent(m, x, d);
    to[1] = 1;
    return sf_reshape(m->graph, x, rank + 1, to);
  }
}

static sf_value transpose(maker *m, sf_value x) {
  int32_t rank = shape_of(m, x)->rank;
  int64_t perm[SF_MAX_RANK] = {0, 1, 2, 3, 4, 5};
  for (int32_t d = rank - 1; d > 0; d--) {
    int32_t other = sf_random_below(&m->random, d + 1);
    int64_t kept = perm[d];
    perm[d] = perm[other];
    perm[other] = kept;
  }
  return sf_transpose(m->graph, x, rank, perm);
}

static sf_value concat(maker *m, sf_value x) {
  int32_t rank = shape_of(m, x)->rank, n = 1 + sf_random_below(&m->random, 3);
  sf_value inputs[3] = {x, x, x};
  if (rank == 0) return SF_NO_VALUE;
  sf_attr axis = {.id = SF_ATTR_AXIS, .i = sf_random_below(&m->random, rank) - (chance(&m->random, 50) ? rank : 0)};
  int32_t along = (int32_t)(axis.i < 0 ? axis.i + rank : axis.i);
  for (int32_t k = 1; k < n; k++)
    for (int32_t i = 0; i < m->n_values; i++) {
      sfi_shape shape = *shape_of(m, m->values[i]);
      if (shape.rank != rank) continue;
      shape.dims[along] = shape_of(m, x)->dims[along];
      if (sfi_shape_equal(&shape, shape_of(m, x)) && chance(&m->random, 30)) inputs[k] = m->values[i];
    }
  return op(m, SF_OP_CONCAT, n, inputs, 1, &axis);
}

static sf_value slice(maker *m, sf_value x) {
  int32_t rank = shape_of(m, x)->rank;
  int64_t starts[SF_MAX_RANK] = {0}, ends[SF_MAX_RANK], steps[SF_MAX_RANK];
  for (int32_t d = 0; d < rank; d++) {
    int64_t e = extent(m, x, d);
    ends[d] = INT64_MAX;
    steps[d] = 1;
    if (e < 2 || chance(&m->random, 50)) continue;
    starts[d] = sf_random_below(&m->random, (int32_t)e);
    ends[d] = starts[d] + 1 + sf_random_below(&m->random, (int32_t)(e - starts[d]));
    if (chance(&m->random, 20)) steps[d] = 2;
    if (chance(&m->random, 20)) starts[d] -= e;
  }
  sf_attr attrs[3] = {ints_attr(SF_ATTR_STARTS, rank, starts), ints_attr(SF_ATTR_ENDS, rank, ends),
                      ints_attr(SF_ATTR_STEPS, rank, steps)};
  return op(m, SF_OP_SLICE, 1, &x, 3, attrs);
}

static sf_value along_axis(maker *m, sf_value x) {
  int32_t rank = shape_of(m, x)->rank;
  if (rank == 0 || m->options->gentle) return SF_NO_VALUE;
  int32_t at = sf_random_below(&m->random, rank);
  sf_attr axis = {.id = SF_ATTR_AXIS, .i = chance(&m->random, 50) ? at : at - rank};
  if (chance(&m->random, 50)) return sf_softmax(m->graph, x, axis.i);
  sf_value inputs[3] = {x};
  int64_t dims[SF_MAX_RANK];
  bool affine = chance(&m->random, 60);
  for (int32_t d = at; d < rank; d++) {
    dims[d - at] = extent(m, x, d);
    affine = affine && dims[d - at] >= 1;
  }
  const bool centred = chance(&m->random, 50);
  const int n = affine ? (centred ? 3 : 2) : 1;
  for (int k = 1; k < n; k++) inputs[k] = static_tensor(m, rank - at, dims, true, false);
  return op(m, centred ? SF_OP_LAYER_NORM : SF_OP_RMS_NORM, n, inputs, 1, &axis);
}

static sf_value reduce(maker *m, sf_value x) {
  int32_t rank = shape_of(m, x)->rank;
  int64_t axes[SF_MAX_RANK];
  int32_t n = 0;
  for (int32_t d = 0; d < rank; d++)
    if (chance(&m->random, 30)) axes[n++] = chance(&m->random, 50) ? d : d - rank;
  if (n == 0) return SF_NO_VALUE;
  sf_attr attrs[2] = {ints_attr(SF_ATTR_AXES, n, axes), {.id = SF_ATTR_KEEPDIMS, .i = sf_random_below(&m->random, 2)}};
  sf_op code = chance(&m->random, 40) ? SF_OP_REDUCE_MEAN : chance(&m->random, 50) ? SF_OP_REDUCE_SUM : SF_OP_REDUCE_MAX;
  return op(m, code, 1, &x, 2, attrs);
}

/* A value once more. */
static sf_value again(maker *m, sf_value x) {
  sfi_node node = m->graph->nodes[x];
  sf_attr attrs[8];
  int32_t n = 0;
  if (node.n_inputs == 0) return SF_NO_VALUE;
  for (int32_t id = 0; id < sfi_attr_count(); id++) {
    if (!(sfi_op_of(node.op)->attrs >> id & 1)) continue;
    const sfi_attr_value *value = sfi_attr_of(&node, (sf_attr_id)id);
    attrs[n++] = (sf_attr){.id = (sf_attr_id)id, .count = value->count, .i = value->i, .f = value->f, .ints = value->ints};
  }
  return op(m, node.op, node.n_inputs, node.inputs, n, attrs);
}

static const struct {
  int32_t weight;
  sf_value (*make)(maker *m, sf_value x);
} choices[] = {
    {20, matmul},        {4, matmul_weight_first}, {3, matmul_run_time}, {20, conv2d},  {8, pool},      {15, unary},
    {15, binary_static}, {6, binary_run_time},     {9, batch_norm},      {10, reshape}, {6, transpose}, {6, concat},
    {6, slice},          {6, along_axis},          {5, reduce},          {8, again},    {3, attention}, {5, written_out}};

static sf_value any_operation(maker *m) {
  int32_t total = 0, at;
  if (m->options->siblings && chance(&m->random, 20)) return siblings(m, pick(m));
  for (size_t i = 0; i < SFI_COUNT(choices); i++) total += choices[i].weight;
  at = sf_random_below(&m->random, total);
  for (size_t i = 0;; i++)
    if ((at -= choices[i].weight) < 0) return choices[i].make(m, pick(m));
}

/* Values of at most 10,000 elements at an extent of 3: tests are many. */
static bool small(const sf_graph *graph, sf_value v) {
  sfi_poly numel;
  int64_t count;
  return sfi_shape_numel(&graph->nodes[v].shape, &numel) && sfi_poly_eval(numel, 3, &count) && count <= 10000;
}

sf_graph *sf_random_graph(sf_context *context, uint64_t seed, const sf_random_graph_options *options) {
  maker m = {.options = options, .random = {seed * UINT64_C(0x9E3779B97F4A7C15) + 1}};
  if (sf_graph_create(context, "random", &m.graph) != SF_OK) return NULL;
  int64_t rows = chance(&m.random, 50) ? SF_DIM_SYMBOLIC : chance(&m.random, 5) ? 0 : 1 + sf_random_below(&m.random, 3);
  int64_t dims[4] = {rows, size(&m, 6), 1 + sf_random_below(&m.random, 4), 1 + sf_random_below(&m.random, 4)};
  int32_t rank = chance(&m.random, 60) ? 4 : 2;
  for (int32_t d = 2; options->large && d < 4; d++) dims[d] += sf_random_below(&m.random, 16);
  m.values[m.n_values++] = sf_graph_input(m.graph, "x", SF_F32, rank, dims);
  if (chance(&m.random, 30)) m.values[m.n_values++] = sf_graph_input(m.graph, "y", SF_F32, rank, dims);
  for (int32_t i = 0; i < options->operations && m.n_values < (int32_t)SFI_COUNT(m.values); i++) {
    sf_value v = any_operation(&m);
    if (sf_graph_status(m.graph) != SF_OK) {
      sf_graph_release(m.graph);
      return NULL;
    }
    if (v != SF_NO_VALUE && small(m.graph, v)) m.values[m.n_values++] = v;
  }
  sf_graph_output(m.graph, NULL, m.values[m.n_values - 1]);
  for (int32_t i = sf_random_below(&m.random, 3); i > 0; i--) sf_graph_output(m.graph, NULL, pick(&m));
  return m.graph;
}

/* ---- tensors ------------------------------------------------------------------------------------------------------ */

int64_t sf_tensor_count(const sf_tensor *tensor) {
  int64_t count = 1;
  for (int32_t d = 0; d < tensor->rank; d++) count *= tensor->dims[d];
  return count;
}

static void make_tensor(const sf_graph *graph, sf_value v, sf_dtype dtype, int64_t symbol, sf_tensor *out) {
  const sfi_shape *shape = &graph->nodes[v].shape;
  const sf_dtype own = graph->nodes[v].dtype;
  *out = (sf_tensor){.dtype = own == SF_F32 ? dtype : own, .rank = shape->rank};
  for (int32_t d = 0; d < shape->rank; d++) sfi_poly_eval(shape->dims[d], symbol, &out->dims[d]);
  out->data = calloc((size_t)sf_tensor_count(out) + 1, sfi_dtype_of(out->dtype)->bytes);
}

/* Integers that every operation takes which uses them as indices, else of a byte without sign. */
static void fill_integers(const sf_graph *graph, sf_value v, int64_t symbol, sf_random *random, sf_tensor *t) {
  int64_t least = 0, most = 127;
  for (size_t i = 0; i < graph->n_nodes; i++)
    for (int32_t k = 0; k < graph->nodes[i].n_inputs; k++) {
      sfi_index_limits limits;
      if (!sfi_index_limits_of(graph, &graph->nodes[i], k, symbol, &limits) || limits.leaf != v) continue;
      least = t->dtype == SF_U8 ? 0 : limits.least;
      most = sfi_min(most, limits.most);
    }
  const size_t bytes = sfi_dtype_of(t->dtype)->bytes;
  for (int64_t k = 0; k < sf_tensor_count(t); k++) {
    int64_t value = least + sf_random_below(random, (int32_t)(most - least + 1));
    memcpy((char *)t->data + (size_t)k * bytes, &value, bytes); /* little-endian: the low bytes come first */
  }
}

void sf_random_tensors_make(const sf_graph *graph, uint64_t seed, bool special, sf_dtype dtype, int64_t symbol,
                            sf_random_tensors *out) {
  sf_random random = {seed * UINT64_C(0xD1B54A32D192ED03) + 1};
  out->n_inputs = sf_graph_input_count(graph);
  out->n_outputs = sf_graph_output_count(graph);
  out->inputs = calloc((size_t)out->n_inputs + 1, sizeof *out->inputs);
  out->outputs = calloc((size_t)out->n_outputs + 1, sizeof *out->outputs);
  for (int32_t i = 0; i < out->n_inputs; i++) {
    sf_tensor *t = &out->inputs[i];
    make_tensor(graph, sf_graph_input_value(graph, i), dtype, symbol, t);
    if (t->dtype != dtype) fill_integers(graph, sf_graph_input_value(graph, i), symbol, &random, t);
    for (int64_t k = 0; t->dtype == dtype && k < sf_tensor_count(t); k++) {
      float value = number(&random, special);
      if (dtype == SF_F64)
        ((double *)t->data)[k] = value;
      else
        ((float *)t->data)[k] = value;
    }
  }
  for (int32_t i = 0; i < out->n_outputs; i++) make_tensor(graph, sf_graph_output_value(graph, i), dtype, symbol, &out->outputs[i]);
}

void sf_random_tensors_free(sf_random_tensors *tensors) {
  for (int32_t i = 0; i < tensors->n_inputs; i++) free(tensors->inputs[i].data);
  for (int32_t i = 0; i < tensors->n_outputs; i++) free(tensors->outputs[i].data);
  free(tensors->inputs);
  free(tensors->outputs);
}
