/* A graph as an ONNX model of operator set 20. Each operation becomes one node, or the few that mean the same; weights become dense
 * initialisers, their zeros among them. Booleans are 0 and 1 in fp32 here, so tests are cast on their way. */
#include "context.h"
#include "onnx.h"
#include "onnx_model.h"
#include "text_names.h"

#include <stdio.h>

enum { OPSET = 20, IR_VERSION = 9, OPERANDS_MAX = 16 };

typedef struct exporter {
  const sf_graph *graph;
  sfi_diag *diag;
  sfi_arena arena;
  sfi_names tensors;
  onnx_model model;
  const char **names; /* of each value in the model */
  const char *prefix; /* of names made here; no given one begins with it */
  size_t made;
  bool failed; /* out of memory */
} exporter;

/* ---- pieces of the model ------------------------------------------------------------------------------------------ */

static void append(exporter *x, onnx_list *list, const void *item, size_t size) {
  if (list->count == list->capacity) {
    size_t capacity = list->capacity ? list->capacity * 2 : 4;
    void *items = sfi_arena_alloc(&x->arena, capacity * size);
    if (!items) {
      x->failed = true;
      return;
    }
    if (list->count) memcpy(items, list->items, list->count * size);
    list->items = items;
    list->capacity = capacity;
  }
  memcpy((char *)list->items + list->count++ * size, item, size);
}
#define APPEND(x, list, type, ...) append(x, list, &(type)__VA_ARGS__, sizeof(type))

static const char *new_name(exporter *x) {
  const char *name = sfi_arena_printf(&x->arena, "%s%zu", x->prefix, x->made++);
  x->failed |= !name;
  return name ? name : "";
}

static onnx_attribute int_attr(const char *name, int64_t value) {
  return (onnx_attribute){.name = name, .s = "", .type = ONNX_ATTRIBUTE_INT, .i = value};
}
static onnx_attribute float_attr(const char *name, double value) {
  return (onnx_attribute){.name = name, .s = "", .type = ONNX_ATTRIBUTE_FLOAT, .f = (float)value};
}
static onnx_attribute text_attr(const char *name, const char *value) {
  return (onnx_attribute){.name = name, .s = value, .type = ONNX_ATTRIBUTE_STRING};
}
/* The list is borrowed until the model is written. */
static onnx_attribute ints_attr(const char *name, const sfi_attr_value *list) {
  return (onnx_attribute){
      .name = name, .s = "", .type = ONNX_ATTRIBUTE_INTS, .ints = {(void *)list->ints, (size_t)list->count, (size_t)list->count}};
}

/* A node with one result, which gets the name `out`, or a new one for NULL. Operands are given up to the first NULL. */
static const char *put(exporter *x, const char *op, const char *const *operands, size_t n, const onnx_attribute *attributes,
                       size_t n_attributes, const char *out) {
  onnx_node node = {.op_type = op, .domain = ""};
  if (!out) out = new_name(x);
  node.name = out;
  for (size_t i = 0; i < n; i++) append(x, &node.inputs, &operands[i], sizeof *operands);
  append(x, &node.outputs, &out, sizeof out);
  for (size_t i = 0; i < n_attributes; i++) append(x, &node.attributes, &attributes[i], sizeof *attributes);
  append(x, &x->model.nodes, &node, sizeof node);
  return out;
}
#define NAMES(...) (const char *const[]){__VA_ARGS__}, sizeof(const char *const[]){__VA_ARGS__} / sizeof(const char *)
#define ATTRS(...) (const onnx_attribute[]){__VA_ARGS__}, sizeof(const onnx_attribute[]){__VA_ARGS__} / sizeof(onnx_attribute)
#define NO_ATTRS NULL, 0

static onnx_type type_of(sf_dtype dtype) {
  static const onnx_type types[] = {
      [SF_F32] = ONNX_FLOAT, [SF_F64] = ONNX_DOUBLE, [SF_F16] = ONNX_FLOAT16, [SF_BF16] = ONNX_BFLOAT16,
      [SF_I8] = ONNX_INT8,   [SF_U8] = ONNX_UINT8,   [SF_I32] = ONNX_INT32,   [SF_I64] = ONNX_INT64};
  return types[dtype];
}

/* An initialiser of elements that the graph or the arena owns. */
static const char *put_tensor(exporter *x, const char *name, sf_dtype dtype, int32_t rank, const int64_t *dims, const void *data,
                              size_t bytes) {
  onnx_tensor tensor = {.name = name ? name : new_name(x), .type = type_of(dtype), .raw = {data, bytes}};
  if (!data || !bytes) tensor.raw.data = (const uint8_t *)"";
  for (int32_t i = 0; i < rank; i++) append(x, &tensor.dims, &dims[i], sizeof *dims);
  append(x, &x->model.initializers, &tensor, sizeof tensor);
  return tensor.name;
}

static const char *put_ints(exporter *x, int64_t count, const int64_t *list) {
  void *own = sfi_arena_copy(&x->arena, list, (size_t)count * sizeof *list);
  x->failed |= !own;
  return put_tensor(x, NULL, SF_I64, 1, &count, own, (size_t)count * sizeof *list);
}

static const char *put_float(exporter *x, double value) {
  float number = (float)value;
  void *own = sfi_arena_copy(&x->arena, &number, sizeof number);
  x->failed |= !own;
  return put_tensor(x, NULL, SF_F32, 0, NULL, own, sizeof number);
}

/* ---- operations --------------------------------------------------------------------------------------------------- */

static sf_status refuse(exporter *x, const sfi_node *node, const char *why) {
  const char *op = sfi_op_of(node->op)->text;
  return sfi_fail(x->diag, SF_STATUS_UNSUPPORTED, &node->place, op, "%s: %s", op, why);
}

static const char *operand(const exporter *x, const sfi_node *node, int32_t i) {
  return x->names[node->inputs[i]];
}
static const sfi_shape *shape_of(const exporter *x, const sfi_node *node, int32_t i) {
  return &x->graph->nodes[node->inputs[i]].shape;
}

/* A value with its last two dimensions exchanged. */
static const char *put_transposed(exporter *x, const char *name, int32_t rank) {
  int64_t perm[SF_MAX_RANK];
  for (int32_t i = 0; i < rank; i++) perm[i] = i < rank - 2 ? i : 2 * rank - 3 - i;
  sfi_attr_value list = {.count = rank, .ints = sfi_arena_copy(&x->arena, perm, sizeof perm)};
  x->failed |= !list.ints;
  return put(x, "Transpose", NAMES(name), ATTRS(ints_attr("perm", &list)), NULL);
}

static void put_matmul(exporter *x, const sfi_node *node, const char *out) {
  bool ta = sfi_attr_int(node, SF_ATTR_TRANSPOSE_A) != 0, tb = sfi_attr_int(node, SF_ATTR_TRANSPOSE_B) != 0;
  const char *a = operand(x, node, 0), *b = operand(x, node, 1);
  int32_t a_rank = shape_of(x, node, 0)->rank, b_rank = shape_of(x, node, 1)->rank;
  if (a_rank == 2 && b_rank == 2 && (ta || tb)) {
    put(x, "Gemm", NAMES(a, b), ATTRS(int_attr("transA", ta), int_attr("transB", tb)), out);
    return;
  }
  if (ta) a = put_transposed(x, a, a_rank);
  if (tb) b = put_transposed(x, b, b_rank);
  put(x, "MatMul", NAMES(a, b), NO_ATTRS, out);
}

/* Without a scale ONNX has no such node: ones, then. */
static sf_status put_layer_norm(exporter *x, const sfi_node *node, const char *out) {
  const sfi_shape *shape = shape_of(x, node, 0);
  int64_t axis = sfi_attr_int(node, SF_ATTR_AXIS), dims[SF_MAX_RANK], count = 1;
  int32_t first = (int32_t)(axis < 0 ? axis + shape->rank : axis);
  const char *scale;
  if (node->n_inputs > 1) {
    scale = operand(x, node, 1);
  } else {
    for (int32_t i = first; i < shape->rank; i++) {
      if (!sfi_is_const(shape->dims[i])) return refuse(x, node, "ONNX needs a scale, which a symbolic extent cannot have");
      dims[i - first] = shape->dims[i].c[0];
      count *= dims[i - first];
    }
    float *ones = sfi_arena_alloc(&x->arena, (size_t)count * sizeof *ones);
    x->failed |= !ones;
    for (int64_t i = 0; i < count && ones; i++) ones[i] = 1;
    scale = put_tensor(x, NULL, SF_F32, shape->rank - first, dims, ones, (size_t)count * sizeof *ones);
  }
  const char *operands[] = {operand(x, node, 0), scale, node->n_inputs > 2 ? operand(x, node, 2) : ""};
  put(x, "LayerNormalization", operands, node->n_inputs > 2 ? 3 : 2,
      ATTRS(int_attr("axis", axis), float_attr("epsilon", sfi_attr_of(node, SF_ATTR_EPS)->f)), out);
  return SF_OK;
}

/* RMSNormalization came with operator set 23. */
static void put_rms_norm(exporter *x, const sfi_node *node, const char *out) {
  const char *first = operand(x, node, 0);
  const int32_t rank = shape_of(x, node, 0)->rank;
  const int64_t axis = sfi_attr_int(node, SF_ATTR_AXIS);
  int64_t axes[SF_MAX_RANK], count = 0;
  for (int64_t d = axis < 0 ? axis + rank : axis; d < rank; d++) axes[count++] = d;
  const char *mean = put(x, "ReduceMean", NAMES(put(x, "Mul", NAMES(first, first), NO_ATTRS, NULL), put_ints(x, count, axes)),
                         ATTRS(int_attr("keepdims", 1)), NULL);
  const char *sum = put(x, "Add", NAMES(mean, put_float(x, sfi_attr_of(node, SF_ATTR_EPS)->f)), NO_ATTRS, NULL);
  const char *normal =
      put(x, "Div", NAMES(first, put(x, "Sqrt", NAMES(sum), NO_ATTRS, NULL)), NO_ATTRS, node->n_inputs > 1 ? NULL : out);
  if (node->n_inputs > 1) put(x, "Mul", NAMES(normal, operand(x, node, 1)), NO_ATTRS, out);
}

/* The extent of the symbolic dimension in a run, as a list of one. */
static const char *put_symbol(exporter *x) {
  const sf_graph *graph = x->graph;
  for (size_t i = 0; i < graph->n_inputs; i++) {
    const sfi_node *input = &graph->nodes[graph->inputs[i]];
    for (int32_t d = 0; d < input->shape.rank; d++) {
      if (!sfi_is_const(input->shape.dims[d]))
        return put(x, "Shape", NAMES(input->name), ATTRS(int_attr("start", d), int_attr("end", d + 1)), NULL);
    }
  }
  return ""; /* verify has found an input with it */
}

static void put_slice(exporter *x, const sfi_node *node, const char *out) {
  const sfi_attr_value *starts = sfi_attr_of(node, SF_ATTR_STARTS), *ends = sfi_attr_of(node, SF_ATTR_ENDS);
  const sfi_attr_value *steps = sfi_attr_of(node, SF_ATTR_STEPS), *symbolic = sfi_attr_of(node, SF_ATTR_SYMBOLIC);
  int64_t from[SF_MAX_RANK], to[SF_MAX_RANK], axes[SF_MAX_RANK], pace[SF_MAX_RANK];
  for (int32_t i = 0; i < starts->count; i++) {
    bool whole = false;
    for (int32_t k = 0; k < symbolic->count; k++) whole |= symbolic->ints[k] == i;
    from[i] = whole ? 0 : starts->ints[i];
    to[i] = whole ? INT64_MAX : ends->ints[i];
    axes[i] = i;
    pace[i] = steps->count ? steps->ints[i] : 1;
  }
  int64_t n = starts->count;
  const char *y = put(
      x, "Slice", NAMES(operand(x, node, 0), put_ints(x, n, from), put_ints(x, n, to), put_ints(x, n, axes), put_ints(x, n, pace)),
      NO_ATTRS, symbolic->count ? NULL : out);
  for (int32_t k = 0; k < symbolic->count; k++) {
    int64_t zero = 0;
    y = put(x, "Slice", NAMES(y, put_ints(x, 1, &zero), put_symbol(x), put_ints(x, 1, &symbolic->ints[k])), NO_ATTRS,
            k + 1 < symbolic->count ? NULL : out);
  }
}

static void put_pad(exporter *x, const sfi_node *node, const char *out) {
  const sfi_attr_value *before = sfi_attr_of(node, SF_ATTR_BEFORE), *after = sfi_attr_of(node, SF_ATTR_AFTER);
  int64_t pads[2 * SF_MAX_RANK];
  for (int32_t i = 0; i < before->count; i++) {
    pads[i] = before->ints[i];
    pads[before->count + i] = after->ints[i];
  }
  put(x, "Pad", NAMES(operand(x, node, 0), put_ints(x, 2 * before->count, pads), put_float(x, sfi_attr_of(node, SF_ATTR_VALUE)->f)),
      NO_ATTRS, out);
}

/* x < 0 ? x * y : x; ONNX's own takes a slope that broadcasts to x only. */
static void put_prelu(exporter *x, const sfi_node *node, const char *out) {
  const char *a = operand(x, node, 0), *b = operand(x, node, 1);
  if (sfi_shape_equal(shape_of(x, node, 0), &node->shape)) {
    put(x, "PRelu", NAMES(a, b), NO_ATTRS, out);
    return;
  }
  const char *below = put(x, "Less", NAMES(a, put_float(x, 0)), NO_ATTRS, NULL);
  put(x, "Where", NAMES(below, put(x, "Mul", NAMES(a, b), NO_ATTRS, NULL), a), NO_ATTRS, out);
}

static void put_window(exporter *x, const sfi_node *node, const char *op, const char *const *operands, size_t n, const char *out) {
  onnx_attribute attributes[6];
  size_t count = 0;
  uint32_t has = sfi_op_of(node->op)->attrs;
#define HAS(id) (has & UINT32_C(1) << SF_ATTR_##id)
  if (HAS(KERNEL)) attributes[count++] = ints_attr("kernel_shape", sfi_attr_of(node, SF_ATTR_KERNEL));
  if (HAS(STRIDE)) attributes[count++] = ints_attr("strides", sfi_attr_of(node, SF_ATTR_STRIDE));
  if (HAS(PAD)) attributes[count++] = ints_attr("pads", sfi_attr_of(node, SF_ATTR_PAD));
  if (HAS(DILATION)) attributes[count++] = ints_attr("dilations", sfi_attr_of(node, SF_ATTR_DILATION));
  if (HAS(GROUPS)) attributes[count++] = int_attr("group", sfi_attr_int(node, SF_ATTR_GROUPS));
  if (HAS(COUNT_INCLUDE_PAD)) attributes[count++] = int_attr("count_include_pad", sfi_attr_int(node, SF_ATTR_COUNT_INCLUDE_PAD));
  if (HAS(OUTPUT_PAD)) attributes[count++] = ints_attr("output_padding", sfi_attr_of(node, SF_ATTR_OUTPUT_PAD));
#undef HAS
  put(x, op, operands, n, attributes, count, out);
}

static bool is_known_scalar(const exporter *x, sf_value v) {
  const sfi_node *node = &x->graph->nodes[v];
  return sfi_node_is_static(node) && node->shape.rank == 0;
}

/* Which operand of min(max(x, scalar), scalar) is the max, where nothing else uses that: both are one Clip, as engines know it. -1: none. */
static int32_t clipped_operand(const exporter *x, const sfi_node *node) {
  const sf_graph *graph = x->graph;
  if (node->op != SF_OP_MIN) return -1;
  for (int32_t i = 0; i < 2; i++) {
    const sf_value inner = node->inputs[i];
    const sfi_node *max = &graph->nodes[inner];
    int32_t uses = 0;
    if (max->op != SF_OP_MAX || !is_known_scalar(x, node->inputs[1 - i])) continue;
    for (size_t k = 0; k < graph->n_nodes; k++)
      for (int32_t j = 0; j < graph->nodes[k].n_inputs; j++) uses += graph->nodes[k].inputs[j] == inner;
    for (size_t k = 0; k < graph->n_outputs; k++) uses += graph->outputs[k].value == inner;
    if (uses == 1 && (is_known_scalar(x, max->inputs[0]) || is_known_scalar(x, max->inputs[1]))) return i;
  }
  return -1;
}

/* Is the value, a max, written with the min behind it? */
static bool is_within_clip(const exporter *x, sf_value v) {
  const sf_graph *graph = x->graph;
  for (size_t k = (size_t)v + 1; k < graph->n_nodes && graph->nodes[v].op == SF_OP_MAX; k++) {
    const int32_t of = clipped_operand(x, &graph->nodes[k]);
    if (of >= 0 && graph->nodes[k].inputs[of] == v) return true;
  }
  return false;
}

static void put_clip(exporter *x, const sfi_node *node, int32_t of, const char *out) {
  const sfi_node *max = &x->graph->nodes[node->inputs[of]];
  const int32_t bound = is_known_scalar(x, max->inputs[1]) ? 1 : 0;
  put(x, "Clip", NAMES(operand(x, max, 1 - bound), operand(x, max, bound), operand(x, node, 1 - of)), NO_ATTRS, out);
}

/* The node of an operation that is one of ONNX's and has no attributes; NULL: it is more than that. */
static const char *plain_operator(sf_op op) {
  switch ((int)op) {
  case SF_OP_ADD:
    return "Add";
  case SF_OP_SUB:
    return "Sub";
  case SF_OP_MUL:
    return "Mul";
  case SF_OP_DIV:
    return "Div";
  case SF_OP_RELU:
    return "Relu";
  case SF_OP_SIGMOID:
    return "Sigmoid";
  case SF_OP_TANH:
    return "Tanh";
  case SF_OP_EXP:
    return "Exp";
  case SF_OP_SQRT:
    return "Sqrt";
  case SF_OP_NEG:
    return "Neg";
  case SF_OP_ABS:
    return "Abs";
  case SF_OP_LOG:
    return "Log";
  case SF_OP_ERF:
    return "Erf";
  case SF_OP_SIN:
    return "Sin";
  case SF_OP_COS:
    return "Cos";
  case SF_OP_POW:
    return "Pow";
  case SF_OP_MIN:
    return "Min";
  case SF_OP_MAX:
    return "Max";
  case SF_OP_GLOBAL_AVG_POOL:
    return "GlobalAveragePool";
  default:
    return NULL;
  }
}

static sf_status put_operation(exporter *x, const sfi_node *node, const char *out) {
  const char *operands[OPERANDS_MAX], *plain = plain_operator(node->op);
  size_t n = (size_t)node->n_inputs;
  if (n > OPERANDS_MAX) return refuse(x, node, "too many operands");
  for (int32_t i = 0; i < node->n_inputs; i++) operands[i] = operand(x, node, i);
  const char *first = operands[0];
  const int32_t clipped = clipped_operand(x, node);
  if (clipped >= 0) {
    put_clip(x, node, clipped, out);
    return SF_OK;
  }
  if (plain) {
    put(x, plain, operands, n, NO_ATTRS, out);
    return SF_OK;
  }
  switch ((int)node->op) {
  case SF_OP_MATMUL:
    put_matmul(x, node, out);
    break;
  case SF_OP_CONV2D:
    put_window(x, node, "Conv", operands, n, out);
    break;
  case SF_OP_CONV_TRANSPOSE:
    put_window(x, node, "ConvTranspose", operands, n, out);
    break;
  case SF_OP_MAX_POOL:
    put_window(x, node, "MaxPool", operands, n, out);
    break;
  case SF_OP_AVG_POOL:
    put_window(x, node, "AveragePool", operands, n, out);
    break;
  case SF_OP_GELU:
  case SF_OP_GELU_TANH:
    put(x, "Gelu", NAMES(first), ATTRS(text_attr("approximate", node->op == SF_OP_GELU ? "none" : "tanh")), out);
    break;
  case SF_OP_SILU:
    put(x, "Mul", NAMES(first, put(x, "Sigmoid", NAMES(first), NO_ATTRS, NULL)), NO_ATTRS, out);
    break;
  case SF_OP_LESS:
  case SF_OP_EQUAL:
    put(x, "Cast", NAMES(put(x, node->op == SF_OP_LESS ? "Less" : "Equal", operands, n, NO_ATTRS, NULL)),
        ATTRS(int_attr("to", ONNX_FLOAT)), out);
    break;
  case SF_OP_WHERE:
    put(x, "Where", NAMES(put(x, "Cast", NAMES(first), ATTRS(int_attr("to", ONNX_BOOL)), NULL), operands[1], operands[2]), NO_ATTRS,
        out);
    break;
  case SF_OP_PRELU:
    put_prelu(x, node, out);
    break;
  case SF_OP_SOFTMAX:
    put(x, "Softmax", NAMES(first), ATTRS(int_attr("axis", sfi_attr_int(node, SF_ATTR_AXIS))), out);
    break;
  case SF_OP_LAYER_NORM:
    return put_layer_norm(x, node, out);
  case SF_OP_RMS_NORM:
    put_rms_norm(x, node, out);
    break;
  case SF_OP_BATCH_NORM:
    put(x, "BatchNormalization", operands, n, ATTRS(float_attr("epsilon", sfi_attr_of(node, SF_ATTR_EPS)->f)), out);
    break;
  case SF_OP_RESHAPE: {
    const sfi_attr_value *shape = sfi_attr_of(node, SF_ATTR_SHAPE);
    put(x, "Reshape", NAMES(first, put_ints(x, shape->count, shape->ints)), NO_ATTRS, out);
    break;
  }
  case SF_OP_EXPAND: { /* an extent that stays is 1 in ONNX's list */
    const sfi_attr_value *shape = sfi_attr_of(node, SF_ATTR_SHAPE);
    int64_t extents[SF_MAX_RANK];
    for (int32_t i = 0; i < shape->count; i++) extents[i] = shape->ints[i] ? shape->ints[i] : 1;
    put(x, "Expand", NAMES(first, put_ints(x, shape->count, extents)), NO_ATTRS, out);
    break;
  }
  case SF_OP_TRANSPOSE:
    put(x, "Transpose", NAMES(first), ATTRS(ints_attr("perm", sfi_attr_of(node, SF_ATTR_PERM))), out);
    break;
  case SF_OP_CONCAT:
    put(x, "Concat", operands, n, ATTRS(int_attr("axis", sfi_attr_int(node, SF_ATTR_AXIS))), out);
    break;
  case SF_OP_GATHER:
    put(x, "Gather", operands, n, ATTRS(int_attr("axis", sfi_attr_int(node, SF_ATTR_AXIS))), out);
    break;
  case SF_OP_CAST:
    put(x, "Cast", NAMES(first), ATTRS(int_attr("to", ONNX_FLOAT)), out);
    break;
  case SF_OP_SLICE:
    put_slice(x, node, out);
    break;
  case SF_OP_PAD:
    put_pad(x, node, out);
    break;
  case SF_OP_REDUCE_SUM:
  case SF_OP_REDUCE_MEAN:
  case SF_OP_REDUCE_MAX: {
    const sfi_attr_value *axes = sfi_attr_of(node, SF_ATTR_AXES);
    const char *op = node->op == SF_OP_REDUCE_SUM ? "ReduceSum" : node->op == SF_OP_REDUCE_MEAN ? "ReduceMean" : "ReduceMax";
    put(x, op, NAMES(first, put_ints(x, axes->count, axes->ints)),
        ATTRS(int_attr("keepdims", sfi_attr_int(node, SF_ATTR_KEEPDIMS))), out);
    break;
  }
  default:
    return refuse(x, node, "no operators of ONNX say the same");
  }
  return SF_OK;
}

/* ---- the whole ---------------------------------------------------------------------------------------------------- */

static void put_info(exporter *x, onnx_list *list, const char *name, const sfi_node *node) {
  onnx_value_info info = {.name = name, .type = type_of(node->dtype), .has_shape = true};
  for (int32_t i = 0; i < node->shape.rank; i++) {
    sfi_poly extent = node->shape.dims[i];
    onnx_dimension dimension = {.has_value = sfi_is_const(extent), .value = extent.c[0], .param = ""};
    if (!dimension.has_value) {
      sfi_text text = {.allocator = x->arena.allocator};
      sfi_poly_print(&text, extent, x->graph->symbol);
      const char *own = text.failed ? NULL : sfi_arena_strndup(&x->arena, text.data, text.length);
      sfi_text_deinit(&text);
      x->failed |= !own;
      dimension.param = own ? own : "";
    }
    append(x, &info.dims, &dimension, sizeof dimension);
  }
  append(x, list, &info, sizeof info);
}

/* The graph's names of inputs, weights and outputs; nothing made here begins as one of them does. */
static const char *given_name(const exporter *x, size_t i) {
  const sf_graph *graph = x->graph;
  if (i < graph->n_nodes) return graph->nodes[i].op == SF_OP_INPUT ? graph->nodes[i].name : x->tensors.names[i];
  return graph->outputs[i - graph->n_nodes].name;
}

static void choose_prefix(exporter *x) {
  x->prefix = "v";
  for (size_t i = 0; i < x->graph->n_nodes + x->graph->n_outputs && !x->failed; i++) {
    const char *name = given_name(x, i);
    if (!name || strncmp(name, x->prefix, strlen(x->prefix)) != 0) continue;
    const char *longer = sfi_arena_printf(&x->arena, "%s_", x->prefix);
    x->failed |= !longer;
    if (longer) x->prefix = longer;
    i = (size_t)-1; /* all of them again */
  }
}

/* Outputs may not have the name of an input, nor weights that of either. */
static sf_status name_values(exporter *x) {
  const sf_graph *graph = x->graph;
  for (size_t i = 0; i < graph->n_nodes; i++) {
    const sfi_node *node = &graph->nodes[i];
    x->names[i] = node->op == SF_OP_INPUT ? node->name : x->tensors.names[i];
    for (size_t k = 0; k < graph->n_outputs; k++) {
      const sfi_output *output = &graph->outputs[k];
      bool same = x->names[i] && strcmp(x->names[i], output->name) == 0;
      if (same && node->op == SF_OP_INPUT) {
        return sfi_fail(x->diag, SF_STATUS_UNSUPPORTED, &node->place, node->name,
                        "an input and an output are both named \"%s\", which ONNX does not allow", node->name);
      }
      if (same) x->names[i] = NULL;
      if (output->value == (sf_value)i && !(sfi_op_of(node->op)->flags & SF_OPF_LEAF) && !x->names[i]) x->names[i] = output->name;
    }
    for (size_t k = 0; k < graph->n_inputs && node->op == SF_OP_WEIGHT && x->names[i]; k++) {
      if (strcmp(graph->nodes[graph->inputs[k]].name, x->names[i]) == 0) x->names[i] = NULL;
    }
    if (!x->names[i]) x->names[i] = new_name(x);
  }
  return SF_OK;
}

static sf_status put_value(exporter *x, sf_value v) {
  const sf_graph *graph = x->graph;
  const sfi_node *node = &graph->nodes[v];
  const char *name = x->names[v];
  if (node->op == SF_OP_INPUT) {
    put_info(x, &x->model.inputs, name, node);
    return SF_OK;
  }
  if (is_within_clip(x, v)) return SF_OK;
  if (!(sfi_op_of(node->op)->flags & SF_OPF_LEAF)) return put_operation(x, node, name);
  /* Weights that share a tensor are one initialiser. */
  const char *tensor = x->tensors.names[v];
  if (tensor && tensor == name) {
    sf_value first = sfi_names_find(&x->tensors, tensor, strlen(tensor));
    if (first != v && first != SF_NO_VALUE) return SF_OK;
  }
  int64_t dims[SF_MAX_RANK];
  for (int32_t i = 0; i < node->shape.rank; i++) dims[i] = node->shape.dims[i].c[0];
  const void *data = sfi_node_open(node, x->diag); /* until the graph's end: the bytes are written last */
  if (!data) return x->diag->error.status;
  put_tensor(x, name, node->dtype, node->shape.rank, dims, data, node->bytes);
  return SF_OK;
}

static sf_status export_graph(exporter *x) {
  const sf_graph *graph = x->graph;
  sf_status st;
  int64_t bytes = 0;
  for (size_t i = 0; i < graph->n_nodes; i++) {
    if (!sfi_add(bytes, (int64_t)graph->nodes[i].bytes, &bytes) || bytes > INT32_MAX - (16 << 20)) {
      return sfi_fail(x->diag, SF_STATUS_UNSUPPORTED, NULL, graph->name, "an ONNX file holds less than 2 GB of weights");
    }
  }
  x->names = sfi_arena_alloc(&x->arena, graph->n_nodes * sizeof *x->names);
  if (!x->names || !sfi_names_of_tensors(&x->tensors, graph)) return sfi_fail_memory(x->diag);
  choose_prefix(x);
  if ((st = name_values(x)) != SF_OK) return st;
  for (size_t i = 0; i < graph->n_nodes; i++) {
    if ((st = put_value(x, (sf_value)i)) != SF_OK) return st;
  }
  for (size_t i = 0; i < graph->n_outputs; i++) {
    const sfi_output *output = &graph->outputs[i];
    const char *name = x->names[output->value];
    if (strcmp(name, output->name) != 0) put(x, "Identity", NAMES(name), NO_ATTRS, output->name);
    put_info(x, &x->model.outputs, output->name, &graph->nodes[output->value]);
  }
  APPEND(x, &x->model.operator_sets, onnx_operator_set, {.domain = "", .version = OPSET});
  return x->failed ? sfi_fail_memory(x->diag) : SF_OK;
}

sf_status sfi_onnx_export(const sf_graph *graph, sf_write_fn write, void *user, sfi_diag *diag) {
  const sf_allocator *a = &graph->context->allocator;
  exporter x = {.graph = graph, .diag = diag, .arena.allocator = a, .tensors.arena.allocator = a};
  x.model = (onnx_model){.ir_version = IR_VERSION, .producer = "sparseflow", .graph_name = graph->name};
  sf_status st = sfi_graph_verify(graph, diag);
  if (st == SF_OK) st = export_graph(&x);
  if (st == SF_OK) sfi_onnx_write(&x.model, write, user);
  sfi_names_deinit(&x.tensors);
  sfi_arena_deinit(&x.arena);
  return st;
}
