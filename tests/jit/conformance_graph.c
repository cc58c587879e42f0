/* See conformance_graph.h. */
#include "conformance_graph.h"
#include "graph_rows.h"
#include "random_graph.h"

const sf_case sf_cases[] = {
#define SF_CASE(op, operands, attributes, also) {op, operands, attributes, also},
#include "conformance.def"
#undef SF_CASE
};
const size_t sf_case_count = SFI_COUNT(sf_cases);

bool sf_case_is_of(const sf_case *c, sf_op op) {
  const sfi_op_info *info = sfi_op_of(op);
  bool elementwise = info->flags & SF_OPF_ELEMENTWISE;
  if (strcmp(c->op, "unary") == 0) return elementwise && info->max_inputs == 1;
  if (strcmp(c->op, "binary") == 0) return elementwise && info->max_inputs == 2;
  if (strcmp(c->op, "reduce") == 0) return strncmp(info->text, "reduce_", 7) == 0;
  return strcmp(c->op, info->text) == 0;
}

bool sf_case_has_weight(const sf_case *c) {
  return strchr(c->operands, 'w') != NULL;
}

typedef struct builder {
  sf_graph *graph;
  sf_random random;
  const sf_zeros *zeros;
  bool fits;
} builder;

/* ---- leaves -------------------------------------------------------------------------------------------------------- */

static sf_value input(const builder *b, int32_t rank, const int64_t *dims) {
  return sf_graph_input(b->graph, NULL, SF_F32, rank, dims);
}

static sf_value scalar(const builder *b, float value) {
  return sf_graph_constant(b->graph, SF_F32, 0, NULL, &value);
}

/* Multiples of 1/8 in [-2, 2], or from 1/4 on. */
static sf_value constant(builder *b, int32_t rank, const int64_t *dims, bool positive) {
  float data[4096];
  int64_t count = 1;
  for (int32_t d = 0; d < rank; d++) count *= dims[d];
  assert(count <= (int64_t)SFI_COUNT(data));
  for (int64_t i = 0; i < count; i++) {
    float value = (float)(sf_random_below(&b->random, 33) - 16) / 8;
    data[i] = positive ? (value < 0 ? -value : value) + 0.25f : value;
  }
  return sf_graph_constant(b->graph, SF_F32, rank, dims, data);
}

/* Scaled so that sums stay about 1, where activations are steep. */
static sf_value weight(builder *b, const sf_zeros *zeros, int32_t rank, const int64_t *dims) {
  int64_t columns = 1;
  uint64_t state = sf_random_next(&b->random);
  float scale = 1;
  for (int32_t d = 1; d < rank; d++) columns *= dims[d];
  while (scale * scale * (float)columns > 2) scale /= 2;
  float *data = malloc((size_t)(dims[0] * columns) * sizeof *data + 1);
  if (!data) abort(); /* of the test's own memory */
  sf_fill_weight(&state, zeros, dims[0], columns, data);
  for (int64_t i = 0; i < dims[0] * columns; i++) data[i] *= scale;
  sf_value v = sf_graph_weight(b->graph, NULL, SF_F32, rank, dims, data, SF_COPY);
  free(data);
  return v;
}

static sf_value dense(builder *b, int32_t rank, const int64_t *dims) {
  return weight(b, &(sf_zeros){.pattern = SF_PATTERN_DENSE}, rank, dims);
}

/* ---- heads --------------------------------------------------------------------------------------------------------- */

/* Each makes a run-time value of the extents given, or says that it does not fit. */

static sf_value no_fit(builder *b) {
  b->fits = false;
  return SF_NO_VALUE;
}

static sf_value head_none(builder *b, int32_t rank, const int64_t *dims) {
  return input(b, rank, dims);
}

static sf_value head_large(builder *b, int32_t rank, const int64_t *dims) {
  return sf_binary(b->graph, SF_OP_MUL, input(b, rank, dims), scalar(b, 29));
}

/* All elements alike: the rounding errors of a long sum do not cancel. */
static sf_value head_level(builder *b, int32_t rank, const int64_t *dims) {
  sf_value x = input(b, rank, dims);
  return sf_binary(b->graph, SF_OP_ADD, sf_binary(b->graph, SF_OP_SUB, x, x), scalar(b, 3.3f));
}

static sf_value head_relu(builder *b, int32_t rank, const int64_t *dims) {
  return sf_unary(b->graph, SF_OP_RELU, input(b, rank, dims));
}

static sf_value permuted(builder *b, int32_t rank, const int64_t *dims, int32_t i, int32_t j) {
  int64_t from[SF_MAX_RANK], perm[] = {0, 1, 2, 3, 4, 5};
  if (i < 0 || j >= rank) return no_fit(b);
  memcpy(from, dims, (size_t)rank * sizeof *dims);
  from[i] = dims[j], from[j] = dims[i];
  perm[i] = j, perm[j] = i;
  return sf_transpose(b->graph, input(b, rank, from), rank, perm);
}
static sf_value head_transposed(builder *b, int32_t rank, const int64_t *dims) {
  return permuted(b, rank, dims, rank - 2, rank - 1);
}
static sf_value head_outer_transposed(builder *b, int32_t rank, const int64_t *dims) {
  return rank < 3 ? no_fit(b) : permuted(b, rank, dims, 0, 1);
}

/* Extents times `step`, with a margin of 2 before and 1 behind. */
static sf_value box(builder *b, int32_t rank, const int64_t *dims, int64_t step) {
  int64_t from[SF_MAX_RANK], starts[SF_MAX_RANK] = {0}, ends[SF_MAX_RANK], steps[SF_MAX_RANK];
  if (rank == 0) return no_fit(b);
  for (int32_t d = 0; d < rank; d++) {
    bool symbolic = dims[d] < 0;
    from[d] = symbolic ? dims[d] : dims[d] * step + 3;
    starts[d] = symbolic ? 0 : 2;
    ends[d] = symbolic ? INT64_MAX : dims[d] * step + 2;
    steps[d] = symbolic ? 1 : step;
  }
  const sf_attr attrs[] = {{.id = SF_ATTR_STARTS, .count = rank, .ints = starts},
                           {.id = SF_ATTR_ENDS, .count = rank, .ints = ends},
                           {.id = SF_ATTR_STEPS, .count = rank, .ints = steps}};
  sf_value x = input(b, rank, from);
  return sf_graph_op(b->graph, SF_OP_SLICE, 1, &x, 3, attrs);
}
static sf_value head_slice(builder *b, int32_t rank, const int64_t *dims) {
  return box(b, rank, dims, 1);
}
static sf_value head_steps(builder *b, int32_t rank, const int64_t *dims) {
  return box(b, rank, dims, 2);
}

/* Along the last dimension that can be cut in two. */
static sf_value head_concat(builder *b, int32_t rank, const int64_t *dims) {
  int64_t part[SF_MAX_RANK];
  int32_t axis = rank - 1;
  while (axis >= 0 && dims[axis] < 2) axis--;
  if (axis < 0) return no_fit(b);
  memcpy(part, dims, (size_t)rank * sizeof *dims);
  part[axis] = dims[axis] / 2;
  sf_value parts[2] = {input(b, rank, part)};
  part[axis] = dims[axis] - part[axis];
  parts[1] = input(b, rank, part);
  return sf_graph_op(b->graph, SF_OP_CONCAT, 2, parts, 1, &(sf_attr){.id = SF_ATTR_AXIS, .i = axis});
}

/* From a matrix product, whose result stands in panels. */
static sf_value head_panels(builder *b, int32_t rank, const int64_t *dims) {
  int64_t from[SF_MAX_RANK];
  if (rank < 2 || dims[rank - 1] < 0) return no_fit(b);
  memcpy(from, dims, (size_t)rank * sizeof *dims);
  from[rank - 1] = 9;
  sf_value x = input(b, rank, from), w = dense(b, 2, (const int64_t[]){dims[rank - 1], 9});
  return sf_matmul(b->graph, x, w, false, true);
}

/* From a convolution, whose result stands in a buffer of the program's own. */
static sf_value head_image(builder *b, int32_t rank, const int64_t *dims) {
  if (rank != 4 || dims[1] < 0 || dims[2] < 0 || dims[3] < 0) return no_fit(b);
  sf_value x = input(b, 4, (const int64_t[]){dims[0], 2, dims[2], dims[3]});
  return sf_conv2d(b->graph, x, dense(b, 4, (const int64_t[]){dims[1], 2, 1, 1}), SF_NO_VALUE, NULL);
}

static const struct {
  const char *name;
  sf_value (*make)(builder *b, int32_t rank, const int64_t *dims);
} heads[] = {{"", head_none},
             {"large", head_large},
             {"level", head_level},
             {"relu", head_relu},
             {"transposed", head_transposed},
             {"outer transposed", head_outer_transposed},
             {"slice", head_slice},
             {"steps", head_steps},
             {"concat", head_concat},
             {"panels", head_panels},
             {"image", head_image}};

const char *sf_head_name(int head) {
  return head < (int)SFI_COUNT(heads) ? heads[head].name : NULL;
}

/* ---- tails --------------------------------------------------------------------------------------------------------- */

/* Operations one after the other: "operation operands attributes; ..". Operands: b one constant a channel, h 0.5; run-time values: r of the
 * same shape, t transposed to it, n with the channels of an image last, e every second element of a larger one, l and f broadcast along the
 * last and the first dimension; v the case's own value, m a dense weight, c and p a batch norm's parameters. "output": marks one there as well. */
static const char *const tails[] = {
    "",
    "add b",
    "add b; relu",
    "add t; relu",
    "sub n; tanh",
    "mul e; add l; relu",
    "add f; sigmoid",
    "mul b; add b; gelu",
    "add r; relu",
    "add b; add r; tanh",
    "sigmoid; mul v",
    "mul h; gelu_tanh; sub r; silu",
    "output; relu",
    "exp; add h; sqrt; div b",
    "softmax axis=-1",
    "relu; layer_norm axis=-1; add r",
    "reduce_sum axes=[-1]; tanh",
    "reduce_max axes=[-1] keepdims=1; relu",
    "add b; reduce_mean axes=[0]",
    "concat r axis=-1; relu",
    "matmul m transpose_b=1; add b; relu",
    "batch_norm c c c p; relu",
};

const char *sf_tail_name(int tail) {
  return tail < (int)SFI_COUNT(tails) ? tails[tail] : NULL;
}

static sf_value tail_operand(builder *b, char letter, sf_value v, sf_value own) {
  const sfi_shape *shape = &b->graph->nodes[v].shape;
  int64_t dims[SF_MAX_RANK] = {0}, last = -1;
  bool plain = true; /* extents are numbers or the symbol itself */
  for (int32_t d = 0; d < shape->rank; d++) {
    dims[d] = sfi_is_const(shape->dims[d]) ? shape->dims[d].c[0] : SF_DIM_SYMBOLIC;
    plain = plain && (dims[d] >= 0 || sfi_poly_equal(shape->dims[d], (sfi_poly){{0, 1, 0}}));
  }
  int64_t channels = shape->rank == 0 ? -1 : dims[shape->rank == 4 ? 1 : shape->rank - 1];
  if (shape->rank) last = dims[shape->rank - 1];
  switch (letter) {
  case 'b':
    if (channels < 1) return no_fit(b);
    return constant(b, shape->rank == 4 ? 3 : 1, (const int64_t[]){channels, 1, 1}, false);
  case 'c':
  case 'p':
    return shape->rank < 2 || dims[1] < 1 ? no_fit(b) : constant(b, 1, &dims[1], letter == 'p');
  case 'h':
    return scalar(b, 0.5f);
  case 'r':
    return plain ? input(b, shape->rank, dims) : no_fit(b);
  case 't':
    return plain ? head_transposed(b, shape->rank, dims) : no_fit(b);
  case 'n':
    if (!plain || shape->rank != 4) return no_fit(b);
    return sf_transpose(b->graph, input(b, 4, (const int64_t[]){dims[0], dims[2], dims[3], dims[1]}), 4,
                        (const int64_t[]){0, 3, 1, 2});
  case 'e':
    return plain ? head_steps(b, shape->rank, dims) : no_fit(b);
  case 'l':
  case 'f':
    if (!plain || shape->rank == 0) return no_fit(b);
    dims[letter == 'l' ? shape->rank - 1 : 0] = 1;
    return input(b, shape->rank, dims);
  case 'm':
    return shape->rank < 2 || last < 1 ? no_fit(b) : dense(b, 2, (const int64_t[]){9, last});
  default:
    assert(letter == 'v');
    return sfi_shape_equal(shape, &b->graph->nodes[own].shape) ? own : no_fit(b);
  }
}

static sf_value apply_tail(builder *b, const char *text, sf_value v) {
  sf_value own = v;
  while (*text && b->fits) {
    sf_op op;
    sf_value operands[5] = {v};
    sf_attr attrs[ROW_ATTRS];
    int64_t ints[ROW_ATTRS][ROW_INTS];
    char attributes[64] = "";
    size_t name = strcspn(text, " ;"), length = strcspn(text, ";");
    const char *rest = text + name;
    int32_t n_operands = 1;
    for (; *rest == ' ' && strchr(" ;", rest[2]); rest += 2) operands[n_operands++] = tail_operand(b, rest[1], v, own);
    if (*rest == ' ') rest++;
    if (rest < text + length) memcpy(attributes, rest, (size_t)(text + length - rest));
    if (*attributes && b->graph->nodes[v].shape.rank == 0) return no_fit(b);
    if (sfi_op_named(text, name, &op)) {
      v = sf_graph_op(b->graph, op, n_operands, operands, row_attrs(attributes, attrs, ints), attrs);
    } else {
      assert(strncmp(text, "output", name) == 0);
      sf_graph_output(b->graph, NULL, v);
    }
    text += length + strspn(text + length, "; ");
    if (v == SF_NO_VALUE) return v;
  }
  return v;
}

/* ---- cases --------------------------------------------------------------------------------------------------------- */

static int32_t read_operands(builder *b, const char *text, int head, sf_value *out) {
  int32_t count = 0;
  bool headed = false;
  while (*text) {
    char kind = *text++;
    int64_t dims[SF_MAX_RANK];
    int32_t rank = row_list(&text, dims, SF_MAX_RANK);
    bool is_x = kind == 'x';
    sf_value v = is_x && !headed                      ? heads[head].make(b, rank, dims)
                 : kind == 'i'                        ? sf_graph_input(b->graph, NULL, SF_I64, rank, dims)
                 : kind == 'j'                        ? sf_graph_input(b->graph, NULL, SF_I32, rank, dims)
                 : kind == 'u'                        ? sf_graph_input(b->graph, NULL, SF_U8, rank, dims)
                 : is_x || kind == 'y' || kind == 's' ? input(b, rank, dims)
                 : kind == 'w'                        ? weight(b, b->zeros, rank, dims)
                                                      : constant(b, rank, dims, kind == 'v');
    if (kind != 's') out[count++] = v;
    headed = headed || is_x;
    while (*text == ' ') text++;
  }
  if (head && !headed) b->fits = false;
  return count;
}

sf_graph *sf_case_graph(sf_context *context, const sf_case *c, sf_op op, int head, int tail, const sf_zeros *zeros,
                        bool *out_fits) {
  builder b = {.random = {(uint64_t)(c - sf_cases) * 1000 + (uint64_t)(head * 100 + tail) + 1}, .zeros = zeros, .fits = true};
  sf_value operands[16], v;
  sf_attr attrs[ROW_ATTRS];
  int64_t ints[ROW_ATTRS][ROW_INTS];
  *out_fits = true;
  if (sf_graph_create(context, "conformance", &b.graph) != SF_OK) return NULL;
  int32_t n = read_operands(&b, c->operands, head, operands);
  if (sfi_op_of(op)->flags & SF_OPF_LEAF)
    v = operands[0];
  else
    v = sf_graph_op(b.graph, op, n, operands, row_attrs(c->attributes, attrs, ints), attrs);
  if (b.fits && v != SF_NO_VALUE) v = apply_tail(&b, tails[tail], v);
  *out_fits = b.fits;
  if (b.fits && v != SF_NO_VALUE && sf_graph_output(b.graph, NULL, v) == SF_OK) return b.graph;
  sf_graph_release(b.graph);
  return NULL;
}
