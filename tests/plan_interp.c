/* See plan_interp.h. One kernel at a time, one point at a time; anchors along an axis walk it anew at every point. */
#include "plan_interp.h"

#include "passes.h"
#include "ref.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct interp {
  const sfi_plan *plan;
  const sfi_kernel *kernel;
  int64_t symbol;
  float **base;   /* of each buffer; NULL: packed */
  size_t *counts; /* elements of each buffer, slack included */
  char *message;
  size_t size;
  bool failed;
} interp;

static void fail(interp *in, const char *what, int64_t a, int64_t b) {
  if (!in->failed) {
    snprintf(in->message, in->size, "%s: %s (%lld, %lld)", in->kernel ? in->kernel->name : "plan", what, (long long)a,
             (long long)b);
  }
  in->failed = true;
}

static int64_t poly(interp *in, sfi_poly p) {
  int64_t out = 0;
  if (!sfi_poly_eval(p, in->symbol, &out)) fail(in, "overflow", 0, 0);
  return out;
}

static int64_t extent(interp *in, sfi_extent e) {
  int64_t out = 0;
  if (!sfi_extent_eval(e, in->symbol, &out)) fail(in, "bad extent", 0, 0);
  return out;
}

/* Element `i` of a buffer as a number. */
static double number(const interp *in, int32_t buffer, int64_t i) {
  const float *base = in->base[buffer];
  switch (in->plan->buffers[buffer].dtype) {
  case SF_I64:
    return (double)((const int64_t *)(const void *)base)[i];
  case SF_I32:
    return (double)((const int32_t *)(const void *)base)[i];
  case SF_I8:
    return (double)((const int8_t *)(const void *)base)[i];
  case SF_U8:
    return (double)((const uint8_t *)(const void *)base)[i];
  default:
    return (double)base[i];
  }
}

/* Index of operand i's element, or -1 where it lies outside. */
static int64_t place(interp *in, int32_t i, const int64_t *index, int32_t rank) {
  const sfi_access *access = &in->kernel->operand[i];
  int64_t address = poly(in, access->offset);
  for (int32_t d = 0; d < rank; d++) address += index[d] * poly(in, access->stride[d]);
  if (access->index) {
    const int64_t from = place(in, access->index, index, rank);
    int64_t id = from < 0 ? 0 : (int64_t)number(in, in->kernel->operand[access->index].buffer, from);
    if (id < -access->index_extent || id >= access->index_extent) fail(in, "an index outside its extent", i, id);
    address += (id < 0 ? id + access->index_extent : id) * poly(in, access->index_stride);
  }
  if (address >= 0 && (size_t)address < in->counts[access->buffer] && in->base[access->buffer]) return address;
  fail(in, "operand reaches outside its buffer", i, address);
  return -1;
}

/* Address of operand i at an index of `rank` dimensions, and its element. */
static float *at(interp *in, int32_t i, const int64_t *index, int32_t rank) {
  static float nowhere;
  const int64_t address = place(in, i, index, rank);
  if (address >= 0) return in->base[in->kernel->operand[i].buffer] + address;
  nowhere = NAN;
  return &nowhere;
}

static float load(interp *in, int32_t i, const int64_t *index, int32_t rank) {
  const int64_t address = place(in, i, index, rank);
  return address < 0 ? NAN : (float)number(in, in->kernel->operand[i].buffer, address);
}

static bool bounded(interp *in, int32_t operand, const int64_t *index) {
  for (int32_t b = 0; b < in->kernel->n_bounds; b++) {
    const sfi_bound *bound = &in->kernel->bound[b];
    int64_t value = bound->add;
    if (bound->operand != operand) continue;
    for (int32_t d = 0; d < in->kernel->rank; d++) value += bound->mul[d] * index[d];
    if (value < 0 || value >= bound->limit) return false;
  }
  return true;
}

static double apply(sf_op op, double x, double y, double z) {
  switch (op) {
  case SF_OP_ADD:
    return x + y;
  case SF_OP_SUB:
    return x - y;
  case SF_OP_MUL:
    return x * y;
  case SF_OP_DIV:
    return x / y;
  case SF_OP_RELU:
    return x < 0 ? 0 : x;
  case SF_OP_GELU:
    return x / 2 * (1 + erf(x / sqrt(2)));
  case SF_OP_GELU_TANH:
    return x / 2 * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
  case SF_OP_SILU:
    return x / (1 + exp(-x));
  case SF_OP_SIGMOID:
    return 1 / (1 + exp(-x));
  case SF_OP_TANH:
    return tanh(x);
  case SF_OP_EXP:
    return exp(x);
  case SF_OP_SQRT:
    return sqrt(x);
  case SF_OP_NEG:
    return -x;
  case SF_OP_ABS:
    return fabs(x);
  case SF_OP_LOG:
    return log(x);
  case SF_OP_ERF:
    return erf(x);
  case SF_OP_SIN:
    return sin(x);
  case SF_OP_COS:
    return cos(x);
  case SF_OP_POW:
    return pow(x, y);
  case SF_OP_MIN:
    return isnan(x) || isnan(y) ? NAN : fmin(x, y);
  case SF_OP_MAX:
    return isnan(x) || isnan(y) ? NAN : fmax(x, y);
  case SF_OP_LESS:
    return x < y;
  case SF_OP_EQUAL:
    return x == y;
  case SF_OP_PRELU:
    return x < 0 ? x * y : x;
  case SF_OP_WHERE:
    return x != 0 ? y : z;
  default:
    return NAN;
  }
}

static float evaluate(interp *in, const sfi_expr *expr, const int64_t *index, int32_t rank, float arg) {
  float value[SFI_STEPS_MAX];
  for (int32_t i = 0; i < expr->n; i++) {
    const sfi_step *step = &expr->steps[i];
    switch (step->kind) {
    case SFI_STEP_ARG:
      value[i] = arg;
      break;
    case SFI_STEP_LOAD:
      value[i] = bounded(in, step->operand, index) ? load(in, step->operand, index, rank) : 0;
      break;
    case SFI_STEP_CONST:
      value[i] = step->value;
      break;
    case SFI_STEP_OP:
      value[i] = (float)apply(step->op, (double)value[step->a], (double)value[step->b], (double)value[step->c]);
      break;
    }
  }
  return value[expr->n - 1];
}

/* ---- anchors ------------------------------------------------------------------------------------------------------ */

static float reduced(interp *in, const int64_t *index) {
  const sfi_kernel *k = in->kernel;
  int64_t at_index[2 * SFI_SPACE_MAX] = {0}, count = 1, n[SFI_SPACE_MAX];
  double value = k->reduce == SF_OP_REDUCE_MAX ? (double)-INFINITY : 0;
  for (int32_t d = 0; d < k->rank; d++) at_index[d] = index[d];
  for (int32_t d = 0; d < k->reduce_rank; d++) count *= n[d] = extent(in, k->reduce_extent[d]);
  for (int64_t i = 0; i < count; i++) {
    int64_t rest = i;
    for (int32_t d = k->reduce_rank - 1; d >= 0; d--) {
      at_index[k->rank + d] = rest % n[d];
      rest /= n[d];
    }
    const double v = (double)evaluate(in, &k->pre, at_index, k->rank + k->reduce_rank, 0);
    if (k->reduce != SF_OP_REDUCE_MAX)
      value += v;
    else if (!isnan(value) && (v > value || isnan(v)))
      value = v;
  }
  return (float)(k->reduce == SF_OP_REDUCE_MEAN ? value / (double)count : value);
}

static float along_axis(interp *in, const int64_t *index) {
  const sfi_kernel *k = in->kernel;
  const int64_t n = extent(in, k->extent[k->axis]);
  int64_t walk[SFI_SPACE_MAX];
  double max = (double)-INFINITY, sum = 0, squares = 0;
  memcpy(walk, index, sizeof walk);
  const double own = (double)evaluate(in, &k->pre, index, k->rank, 0);
#define WALK for (int64_t *i = (walk[k->axis] = 0, &walk[k->axis]); *i < n; ++*i)
#define HERE (double)evaluate(in, &k->pre, walk, k->rank, 0)
  if (k->anchor == SFI_ANCHOR_SOFTMAX) {
    WALK max = fmax(max, HERE);
    WALK sum += exp(HERE - max);
    return (float)(exp(own - max) / sum);
  }
  if (k->centred) WALK sum += HERE;
  const double mean = sum / (double)n;
  WALK squares += (HERE - mean) * (HERE - mean);
  return (float)((own - mean) / sqrt(squares / (double)n + k->eps));
#undef WALK
#undef HERE
}

static float pooled(interp *in, const int64_t *index) {
  const sfi_pool *p = &in->kernel->pool;
  const bool is_max = p->op == SF_OP_MAX_POOL;
  double value = is_max ? (double)-INFINITY : 0;
  int64_t count = 0;
  for (int64_t kh = 0; kh < p->kernel[0]; kh++) {
    for (int64_t kw = 0; kw < p->kernel[1]; kw++) {
      const int64_t ih = index[2] * p->stride[0] + kh * p->dilation[0] - p->pad[0];
      const int64_t iw = index[3] * p->stride[1] + kw * p->dilation[1] - p->pad[1];
      const bool inside = ih >= 0 && ih < p->in_height && iw >= 0 && iw < p->in_width;
      count += inside || p->count_include_pad;
      if (!inside) continue;
      const double v = (double)*at(in, 1, (const int64_t[]){index[0], index[1], ih, iw}, 4);
      if (!is_max)
        value += v;
      else if (!isnan(value) && (v > value || isnan(v)))
        value = v;
    }
  }
  return (float)(is_max ? value : value / (double)count);
}

static float contracted(interp *in, const int64_t *index) {
  const sfi_kernel *k = in->kernel;
  const sfi_contract *c = &k->contract;
  const int64_t depth = poly(in, c->depth), t = index[0], m = index[1], j = index[2];
  const int64_t granule = c->pitch / c->fold, image_row = c->valid ? j / c->valid : 0, in_row = c->valid ? j % c->valid : j;
  const int64_t fold_rows = c->valid ? ((extent(in, k->extent[2]) + c->valid - 1) / c->valid + c->fold - 1) / c->fold : 1;
  const int64_t column = image_row % fold_rows * c->pitch + image_row / fold_rows * granule + in_row;
  double sum = 0;
  const bool is_static = k->anchor == SFI_ANCHOR_CONTRACT;
  const int64_t group_depth = is_static ? depth / c->groups : depth,
                first = is_static ? m / (c->rows / c->groups) * group_depth : 0;
  if (is_static && (group_depth != c->matrix.columns || m >= c->matrix.rows)) fail(in, "W has another shape", group_depth, m);
  for (int64_t i = 0; i < group_depth && !in->failed; i++) {
    const int64_t row = first + i;
    double w;
    if (is_static)
      w = (double)c->matrix.data[m * c->matrix.row_stride + i * c->matrix.column_stride];
    else
      w = (double)*at(in, 2, (const int64_t[]){t, m, row}, 3);
    if (is_static && w == 0) continue;
    const float *x;
    if (c->in_place) {
      const sfi_window *h = &c->window[0], *v = &c->window[1];
      const int64_t tap = row % (h->taps * v->taps), channel = row / (h->taps * v->taps);
      const int64_t ih = j / v->out * h->stride + tap / v->taps * h->dilation - h->before;
      const int64_t iw = j % v->out * v->stride + tap % v->taps * v->dilation - v->before;
      if (ih < 0 || ih >= h->in || iw < 0 || iw >= v->in) continue;
      x = at(in, 1, (const int64_t[]){t, channel, 0}, 3) + ih * h->step + iw * v->step;
    } else if (c->k_offset) {
      if (c->fold > 1 && in_row + c->k_offset[row] % c->pitch >= granule) continue;
      x = at(in, 1, (const int64_t[]){t, 0, 0}, 3) + column;
      const int64_t place = x - in->base[k->operand[1].buffer] + c->k_offset[row];
      if ((size_t)place >= in->counts[k->operand[1].buffer])
        fail(in, "a tap reaches outside its image", row, place);
      else
        x += c->k_offset[row];
    } else {
      x = at(in, 1, (const int64_t[]){t, row, column}, 3);
    }
    if (!in->failed) sum += w * (double)*x;
  }
  return (float)sum;
}

/* Vectors may be read as far as this. */
static void check_reach(interp *in) {
  const sfi_contract *c = &in->kernel->contract;
  const int64_t t = extent(in, in->kernel->extent[0]), j = extent(in, in->kernel->extent[2]), depth = poly(in, c->depth);
  if (!c->valid || t == 0) return;
  int64_t furthest = 0;
  for (int64_t i = 0; i < depth; i++) furthest = sfi_max(furthest, c->k_offset[i]);
  const int64_t end = (t - 1) * poly(in, in->kernel->operand[1].stride[0]) + furthest + j / c->valid / c->fold * c->pitch + 64;
  if ((size_t)end > in->counts[in->kernel->operand[1].buffer]) fail(in, "an image without slack", furthest, end);
}

/* Space (b, h, t, f, l), then the block of keys and the key in it. */
static float attended(interp *in, const int64_t *index) {
  const sfi_kernel *k = in->kernel;
  const sfi_attend *a = &k->attend;
  const int64_t i = index[2] * k->ragged.width + index[4], queries = poly(in, k->ragged.columns);
  int64_t walk[SFI_SPACE_MAX], seen = poly(in, a->keys), before = 0;
  memcpy(walk, index, sizeof walk);
  if (a->position) {
    before = (int64_t)number(in, k->operand[a->position].buffer, poly(in, k->operand[a->position].offset));
    seen = sfi_min(seen, before + queries);
  }
  if (a->causal) seen = sfi_min(seen, before + i + 1);
  double *scores = malloc((size_t)seen * sizeof *scores + 1), max = (double)-INFINITY, sum = 0, value = 0;
  for (int64_t j = 0; j < seen; j++) {
    walk[5] = j / a->key_block, walk[6] = j % a->key_block;
    scores[j] = 0;
    for (int64_t e = 0; e < a->depth; e++) {
      walk[1] = index[1], walk[3] = e;
      const double x = (double)load(in, 1, walk, 5);
      walk[1] = index[1] / a->group;
      scores[j] += x * (double)load(in, 2, walk, 7);
    }
    walk[1] = index[1], walk[3] = index[3];
    scores[j] = scores[j] * (double)a->scale + (a->mask ? (double)load(in, a->mask, walk, 7) : 0);
    max = isnan(max) || isnan(scores[j]) ? NAN : fmax(max, scores[j]);
  }
  for (int64_t j = 0; j < seen; j++) {
    walk[1] = index[1] / a->group, walk[5] = j / a->key_block, walk[6] = j % a->key_block;
    const double p = exp(scores[j] - max);
    sum += p;
    value += p * (double)load(in, 3, walk, 7);
  }
  free(scores);
  return (float)(value / sum);
}

static float anchored(interp *in, const int64_t *index) {
  switch (in->kernel->anchor) {
  case SFI_ANCHOR_REDUCE:
    return reduced(in, index);
  case SFI_ANCHOR_SOFTMAX:
  case SFI_ANCHOR_NORMALIZE:
    return along_axis(in, index);
  case SFI_ANCHOR_POOL:
    return pooled(in, index);
  case SFI_ANCHOR_CONTRACT:
  case SFI_ANCHOR_PRODUCT:
    return contracted(in, index);
  case SFI_ANCHOR_ATTEND:
    return attended(in, index);
  default:
    return NAN;
  }
}

/* ---- kernels ------------------------------------------------------------------------------------------------------ */

static void run_points(interp *in) {
  const sfi_kernel *k = in->kernel;
  int64_t n[SFI_SPACE_MAX], index[SFI_SPACE_MAX] = {0}, count = 1;
  for (int32_t d = 0; d < k->rank; d++) count *= n[d] = extent(in, k->extent[d]);
  if (k->anchor == SFI_ANCHOR_CONTRACT) check_reach(in);
  for (int64_t i = 0; i < count && !in->failed; i++) {
    int64_t rest = i;
    for (int32_t d = k->rank - 1; d >= 0; d--) {
      index[d] = rest % n[d];
      rest /= n[d];
    }
    const sfi_ragged *r = &k->ragged;
    if (r->width && index[r->panel] * r->width + index[r->lane] >= poly(in, r->columns)) continue;
    const float value = evaluate(in, &k->epilogue, index, k->rank, anchored(in, index));
    *at(in, 0, index, k->rank) = value;
  }
}

static void run_node(interp *in) {
  const sfi_kernel *k = in->kernel;
  const sf_graph *graph = in->plan->graph;
  sf_tensor tensors[SFI_OPERANDS_MAX] = {{0}};
  if (k->node == SF_NO_VALUE) {
    memcpy(in->base[k->operand[0].buffer], in->base[k->operand[1].buffer],
           in->counts[k->operand[0].buffer] * sizeof(float)); /* an output, f32 */
    return;
  }
  for (int32_t i = 0; i < k->n_operands; i++) {
    const sfi_node *node = &graph->nodes[i == 0 ? k->node : graph->nodes[k->node].inputs[i - 1]];
    size_t count = 1;
    tensors[i] = (sf_tensor){.data = in->base[k->operand[i].buffer], .dtype = node->dtype, .rank = node->shape.rank};
    for (int32_t d = 0; d < node->shape.rank; d++) count *= (size_t)(tensors[i].dims[d] = poly(in, node->shape.dims[d]));
    if (count > in->counts[k->operand[i].buffer]) fail(in, "a node's buffer is too small", i, (int64_t)count);
  }
  if (!in->failed) sfi_ref_node(graph, k->node, tensors + 1, tensors);
}

static float *buffer_base(interp *in, size_t b, float *arena, const size_t *offsets, const sf_tensor *inputs,
                          const sf_tensor *outputs) {
  const sfi_buffer *buffer = &in->plan->buffers[b];
  switch (buffer->kind) {
  case SFI_BUFFER_INPUT:
    return inputs[buffer->index].data;
  case SFI_BUFFER_OUTPUT:
    return outputs[buffer->index].data;
  case SFI_BUFFER_STATIC:
    return (float *)(uintptr_t)in->plan->graph->nodes[buffer->value].data;
  case SFI_BUFFER_TEMP:
    if (offsets[b] == SIZE_MAX) fail(in, "a temporary has no place", (int64_t)b, 0);
    return arena + offsets[b] / sizeof *arena;
  default:
    return NULL;
  }
}

bool sf_interpret(const sfi_plan *plan, int64_t symbol, const sf_tensor *inputs, const sf_tensor *outputs, char *message,
                  size_t size) {
  interp in = {.plan = plan, .symbol = symbol, .message = message, .size = size};
  size_t *offsets = calloc(plan->n_buffers + 1, sizeof *offsets), bytes = 0;
  in.base = calloc(plan->n_buffers + 1, sizeof *in.base);
  in.counts = calloc(plan->n_buffers + 1, sizeof *in.counts);
  if (!sfi_plan_memory(plan, symbol, offsets, &bytes)) fail(&in, "no memory plan", symbol, 0);
  float *arena = malloc(bytes + 64);
  memset(arena, 0xff, bytes + 64); /* NaN */
  for (size_t b = 0; b < plan->n_buffers && !in.failed; b++) {
    if (!sfi_buffer_bytes(&plan->buffers[b], symbol, &bytes)) fail(&in, "a buffer has no size", (int64_t)b, 0);
    in.counts[b] = bytes / sfi_dtype_of(plan->buffers[b].dtype)->bytes;
    in.base[b] = buffer_base(&in, b, arena, offsets, inputs, outputs);
  }
  for (size_t k = 0; k < plan->n_kernels && !in.failed; k++) {
    in.kernel = &plan->kernels[k];
    if (in.kernel->anchor == SFI_ANCHOR_NODE)
      run_node(&in);
    else
      run_points(&in);
  }
  free(arena);
  free(in.counts);
  free(in.base);
  free(offsets);
  return !in.failed;
}
