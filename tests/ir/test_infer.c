/* Shape inference: for every operation its shapes, and every refusal with its whole message. */
#include "graph_rows.h"
#include "suite.h"

#include <stdio.h>

#define END "9223372036854775807"
#define LARGE "1048577" /* 2^20 + 1: squared, above the most elements of a value */

static sf_context *context;

static void setup(void) {
  sf_context_options options;
  SF_INIT(&options);
  options.cache_dir = "";
  ck_assert_int_eq(sf_context_create(&options, &context), SF_OK);
}
static void teardown(void) {
  sf_context_release(context);
}

typedef struct shape_row {
  sf_op op;
  const char *operands, *attrs, *shape;
} shape_row;

static const shape_row shapes[] = {
    {SF_OP_MATMUL, "[2,3] [3,4]", "", "[2,4]"},
    {SF_OP_MATMUL, "[3,2] [3,4]", "transpose_a=1", "[2,4]"},
    {SF_OP_MATMUL, "[2,3] [4,3]", "transpose_b=1", "[2,4]"},
    {SF_OP_MATMUL, "[3,2] [4,3]", "transpose_a=1 transpose_b=1", "[2,4]"},
    {SF_OP_MATMUL, "[batch,784] [784,10]", "", "[batch,10]"},
    {SF_OP_MATMUL, "[7,1,2,3] [5,3,4]", "", "[7,5,2,4]"},
    {SF_OP_MATMUL, "[batch,2,3] [1,3,4]", "", "[batch,2,4]"},
    {SF_OP_MATMUL, "[8,batch,16] [8,batch,16]", "transpose_b=1", "[8,batch,batch]"},
    {SF_OP_MATMUL, "[8,batch,batch] [8,batch,16]", "", "[8,batch,16]"},
    {SF_OP_MATMUL, "[0,3] [3,0]", "", "[0,0]"},
    {SF_OP_MATMUL, "[2,0] [0,3]", "", "[2,3]"},
    {SF_OP_CONV2D, "[1,3,8,8] [16,3,3,3]", "", "[1,16,6,6]"},
    {SF_OP_CONV2D, "[batch,3,8,9] [16,3,3,3] [16]", "pad=[1,1,1,1]", "[batch,16,8,9]"},
    {SF_OP_CONV2D, "[1,3,8,9] [16,3,3,2]", "stride=[2,3] pad=[1,0,2,4] dilation=[2,1]", "[1,16,4,4]"},
    {SF_OP_CONV2D, "[1,4,5,5] [8,1,5,5]", "groups=4", "[1,8,1,1]"},
    {SF_OP_CONV2D, "[0,4,5,5] [8,4,1,1]", "", "[0,8,5,5]"},
    {SF_OP_CONV_TRANSPOSE, "[batch,6,5,4] [6,8,2,2]", "stride=[2,2]", "[batch,8,10,8]"},
    {SF_OP_CONV_TRANSPOSE, "[1,6,5,4] [6,4,3,3] [8]", "stride=[2,3] pad=[1,0,1,1] dilation=[1,2] groups=2 output_pad=[1,2]",
     "[1,8,10,15]"},
    {SF_OP_ADD, "[2,3] [3]", "", "[2,3]"},
    {SF_OP_SUB, "[2,1] [1,3]", "", "[2,3]"},
    {SF_OP_MUL, "[batch,10] [10]", "", "[batch,10]"},
    {SF_OP_DIV, "[] [batch,10]", "", "[batch,10]"},
    {SF_OP_ADD, "[batch,1] [batch,4]", "", "[batch,4]"},
    {SF_OP_ADD, "[1,4] [batch,4]", "", "[batch,4]"},
    {SF_OP_ADD, "[0,4] [1,4]", "", "[0,4]"},
    {SF_OP_RELU, "[batch,3]", "", "[batch,3]"},
    {SF_OP_GELU, "[]", "", "[]"},
    {SF_OP_GELU_TANH, "[0]", "", "[0]"},
    {SF_OP_SILU, "[1,2,3,4,5,6]", "", "[1,2,3,4,5,6]"},
    {SF_OP_SIGMOID, "[3]", "", "[3]"},
    {SF_OP_TANH, "[3]", "", "[3]"},
    {SF_OP_EXP, "[3]", "", "[3]"},
    {SF_OP_SQRT, "[3]", "", "[3]"},
    {SF_OP_NEG, "[3]", "", "[3]"},
    {SF_OP_ABS, "[3]", "", "[3]"},
    {SF_OP_LOG, "[3]", "", "[3]"},
    {SF_OP_ERF, "[3]", "", "[3]"},
    {SF_OP_SIN, "[batch,3]", "", "[batch,3]"},
    {SF_OP_COS, "[]", "", "[]"},
    {SF_OP_POW, "[batch,10] []", "", "[batch,10]"},
    {SF_OP_MIN, "[2,3] [3]", "", "[2,3]"},
    {SF_OP_MAX, "[2,3] [3]", "", "[2,3]"},
    {SF_OP_LESS, "[2,3] [3]", "", "[2,3]"},
    {SF_OP_EQUAL, "[2,3] [3]", "", "[2,3]"},
    {SF_OP_PRELU, "[2,3] [3]", "", "[2,3]"},
    {SF_OP_WHERE, "[batch,1] [3] []", "", "[batch,3]"},
    {SF_OP_SOFTMAX, "[batch,10]", "", "[batch,10]"},
    {SF_OP_SOFTMAX, "[batch,10]", "axis=-2", "[batch,10]"},
    {SF_OP_LAYER_NORM, "[batch,4,8]", "", "[batch,4,8]"},
    {SF_OP_LAYER_NORM, "[batch,4,8] [8]", "", "[batch,4,8]"},
    {SF_OP_LAYER_NORM, "[batch,4,8] [4,8] [4,8]", "axis=1 eps=0.001", "[batch,4,8]"},
    {SF_OP_RMS_NORM, "[batch,4,8]", "", "[batch,4,8]"},
    {SF_OP_RMS_NORM, "[batch,4,8] [4,8]", "axis=-2 eps=0", "[batch,4,8]"},
    {SF_OP_BATCH_NORM, "[batch,4,8,8] [4] [4] [4] [4]", "", "[batch,4,8,8]"},
    {SF_OP_BATCH_NORM, "[2,4] [4] [4] [4] [4]", "eps=0", "[2,4]"},
    {SF_OP_MAX_POOL, "[batch,8,7,7]", "kernel=[2,2] stride=[2,2]", "[batch,8,3,3]"},
    {SF_OP_MAX_POOL, "[1,8,7,7]", "kernel=[3,3] pad=[1,1,1,1] dilation=[2,2]", "[1,8,5,5]"},
    {SF_OP_AVG_POOL, "[1,batch,7,8]", "kernel=[3,2] stride=[2,1] pad=[1,1,0,0] count_include_pad=1", "[1,batch,3,8]"},
    {SF_OP_GLOBAL_AVG_POOL, "[batch,8,7,7]", "", "[batch,8,1,1]"},
    {SF_OP_GLOBAL_AVG_POOL, "[1,8,batch,7]", "", "[1,8,1,1]"},
    {SF_OP_RESHAPE, "[batch,1,28,28]", "shape=[-1,784]", "[batch,784]"},
    {SF_OP_RESHAPE, "[batch,1,28,28]", "shape=[0,784]", "[batch,784]"},
    {SF_OP_RESHAPE, "[batch,12]", "shape=[-1,4]", "[3*batch,4]"},
    {SF_OP_RESHAPE, "[batch,12]", "shape=[0,3,-1]", "[batch,3,4]"},
    {SF_OP_RESHAPE, "[batch,batch,4]", "shape=[-1]", "[4*batch*batch]"},
    {SF_OP_RESHAPE, "[batch,batch,4]", "shape=[0,-1]", "[batch,4*batch]"},
    {SF_OP_RESHAPE, "[6]", "shape=[1,2,3]", "[1,2,3]"},
    {SF_OP_RESHAPE, "[1,1]", "shape=[]", "[]"},
    {SF_OP_RESHAPE, "[0,4]", "shape=[-1,2]", "[0,2]"},
    {SF_OP_TRANSPOSE, "[batch,3,4]", "perm=[2,0,1]", "[4,batch,3]"},
    {SF_OP_TRANSPOSE, "[]", "perm=[]", "[]"},
    {SF_OP_CONCAT, "[2,3]", "", "[2,3]"},
    {SF_OP_CONCAT, "[2,3] [2,4] [2,0]", "", "[2,7]"},
    {SF_OP_CONCAT, "[batch,3] [1,3] [batch,3]", "axis=0", "[2*batch+1,3]"},
    {SF_OP_SLICE, "[10,10]", "starts=[2,0] ends=[5," END "]", "[3,10]"},
    {SF_OP_SLICE, "[10,10]", "starts=[-3,1] ends=[-1,10] steps=[1,4]", "[2,3]"},
    {SF_OP_SLICE, "[10,10]", "starts=[7,-9223372036854775808] ends=[3,100]", "[0,10]"},
    {SF_OP_SLICE, "[10]", "starts=[0] ends=[10] steps=[" END "]", "[1]"},
    {SF_OP_SLICE, "[batch,10]", "starts=[0,1] ends=[" END ",3]", "[batch,2]"},
    {SF_OP_SLICE, "[]", "starts=[] ends=[]", "[]"},
    {SF_OP_SLICE, "[batch,10]", "starts=[0,0] ends=[1,10]", "[1,10]"},
    {SF_OP_SLICE, "[batch,10]", "starts=[-1,0] ends=[" END ",10]", "[1,10]"},
    {SF_OP_SLICE, "[512,10]", "starts=[0,0] ends=[0,3] symbolic=[0]", "[batch,3]"},
    {SF_OP_CAST, "i[batch,3]", "", "[batch,3]"},
    {SF_OP_GATHER, "[30,8] i[batch]", "axis=0", "[batch,8]"},
    {SF_OP_GATHER, "[2,30,8] i[5,batch]", "axis=1", "[2,5,batch,8]"},
    {SF_OP_GATHER, "[batch,30] i[]", "axis=-1", "[batch]"},
    {SF_OP_EXPAND, "[batch,1,3]", "shape=[0,4,3]", "[batch,4,3]"},
    {SF_OP_PAD, "[batch,3]", "before=[0,1] after=[2,0]", "[batch+2,4]"},
    {SF_OP_APPEND, "[2,64,8] [2,batch,8] i[1]", "axis=1", "[2,64,8]"},
    {SF_OP_ATTENTION, "[1,4,batch,8] [1,4,batch,8] [1,4,batch,6]", "", "[1,4,batch,6]"},
    {SF_OP_ATTENTION, "[2,batch,24] [2,batch,8] [2,batch,6]", "heads=6 kv_heads=2 causal=1", "[2,batch,18]"},
    {SF_OP_ATTENTION, "[2,batch,8] [2,2,9,4] [2,2,9,4] [batch,9] i[1]", "heads=2 scale=0.5", "[2,batch,8]"},
    {SF_OP_ATTENTION, "[2,2,batch,4] [2,9,8] [2,9,8] i[]", "heads=2", "[2,2,batch,4]"},
    {SF_OP_REDUCE_SUM, "[2,3,4]", "axes=[1]", "[2,4]"},
    {SF_OP_REDUCE_SUM, "[2,3,4]", "axes=[-1,0] keepdims=1", "[1,3,1]"},
    {SF_OP_REDUCE_MEAN, "[batch,3]", "axes=[0]", "[3]"},
    {SF_OP_REDUCE_MAX, "[2,3]", "axes=[0,1]", "[]"},
};

START_TEST(test_shapes) {
  const shape_row *row = &shapes[_i];
  sf_graph *graph;
  ck_assert_int_eq(sf_graph_create(context, "net", &graph), SF_OK);
  sf_value value = row_node(graph, row->op, row->operands, row->attrs);
  sf_error error;
  sf_graph_error(graph, &error);
  ck_assert_str_eq(error.message, "");
  sfi_text text = {.allocator = &sfi_default_allocator};
  sfi_shape_print(&text, &graph->nodes[value].shape, graph->symbol);
  ck_assert_str_eq(text.data, row->shape);
  sfi_text_deinit(&text);
  ck_assert_int_eq(graph->nodes[value].dtype, SF_F32);
  sf_graph_output(graph, NULL, value);
  if (strstr(row->attrs, "symbolic=")) sf_graph_input(graph, NULL, SF_F32, 1, (const int64_t[]){SF_DIM_SYMBOLIC});
  sfi_diag diag = {0};
  sfi_graph_verify(graph, &diag);
  ck_assert_str_eq(diag.error.message, "");
  sf_graph_release(graph);
}
END_TEST

/* A shape with the symbolic dimension is the shape for each number in its place. */
START_TEST(test_symbolic_shapes_hold_at_points) {
  const shape_row *row = &shapes[_i];
  if (strstr(row->attrs, "symbolic=")) return; /* no symbol without a symbolic input */
  for (int64_t s = 1; s <= 7; s += 3) {
    char operands[128] = "";
    for (const char *c = row->operands; *c;) {
      bool symbol = strncmp(c, "batch", 5) == 0;
      size_t length = strlen(operands);
      if (symbol)
        snprintf(operands + length, sizeof operands - length, "%d", (int)s);
      else
        snprintf(operands + length, sizeof operands - length, "%c", *c);
      c += symbol ? 5 : 1;
    }
    sf_graph *graph;
    ck_assert_int_eq(sf_graph_create(context, "net", &graph), SF_OK);
    sf_value symbolic = row_node(graph, row->op, row->operands, row->attrs);
    sf_value plain = row_node(graph, row->op, operands, row->attrs);
    ck_assert_int_eq(sf_graph_status(graph), SF_OK);
    const sfi_shape *a = &graph->nodes[symbolic].shape, *b = &graph->nodes[plain].shape;
    ck_assert_int_eq(a->rank, b->rank);
    for (int32_t i = 0; i < a->rank; i++) {
      int64_t extent;
      ck_assert(sfi_poly_eval(a->dims[i], s, &extent));
      ck_assert(sfi_is(b->dims[i], extent));
    }
    sf_graph_release(graph);
  }
}
END_TEST

START_TEST(test_every_operation_has_a_row) {
  for (int32_t op = 0; op < sfi_op_count(); op++) {
    bool found = !sfi_op_of((sf_op)op) || (sfi_op_of((sf_op)op)->flags & SF_OPF_LEAF);
    for (size_t i = 0; i < SFI_COUNT(shapes); i++) found |= shapes[i].op == (sf_op)op;
    ck_assert_msg(found, "operation %d", op);
  }
}
END_TEST

typedef struct refusal_row {
  sf_op op;
  const char *operands, *attrs;
  sf_status status;
  const char *message;
} refusal_row;

#define BAD SF_STATUS_INVALID_GRAPH
#define UNSUPPORTED SF_STATUS_UNSUPPORTED

static const refusal_row refusals[] = {
    /* number of operands */
    {SF_OP_ADD, "[2]", "", BAD, "add: 1 operands, not 2"},
    {SF_OP_RELU, "[2] [2]", "", BAD, "relu: 2 operands, not 1"},
    {SF_OP_CONCAT, "", "", BAD, "concat: 0 operands, not 1 to 16"},
    {SF_OP_CONV2D, "[1] [1] [1] [1]", "", BAD, "conv2d: 4 operands, not 2 to 3"},
    {SF_OP_CONCAT, "[1] [1] [1] [1] [1] [1] [1] [1] [1] [1] [1] [1] [1] [1] [1] [1] [1]", "", BAD,
     "concat: 17 operands, not 1 to 16"},
    /* attributes as such */
    {SF_OP_RELU, "[2]", "axis=1", BAD, "relu: the operation has no attribute 'axis'"},
    {SF_OP_SOFTMAX, "[2]", "axis=0 axis=0", BAD, "softmax: the operation is given twice the attribute 'axis'"},
    {SF_OP_SOFTMAX, "[2]", "axis=[0]", BAD, "softmax: attribute 'axis' takes one integer"},
    {SF_OP_LAYER_NORM, "[2]", "eps=[1]", BAD, "layer_norm: attribute 'eps' takes one real number"},
    {SF_OP_TRANSPOSE, "[2]", "perm=0", BAD, "transpose: attribute 'perm' is no permutation of 1 dimensions (operands [2])"},
    {SF_OP_TRANSPOSE, "[2]", "perm=7", BAD, "transpose: attribute 'perm' takes a list of at most 6 integers"},
    {SF_OP_RESHAPE, "[1]", "shape=[1,1,1,1,1,1,1]", BAD, "reshape: attribute 'shape' takes a list of at most 6 integers"},
    {SF_OP_RESHAPE, "[1]", "", BAD, "reshape: attribute 'shape' is missing (operands [1])"},
    {SF_OP_LAYER_NORM, "[2]", "eps=inf", BAD, "layer_norm: attribute 'eps' is not finite (operands [2])"},
    /* elementwise */
    {SF_OP_ADD, "[2,3] [2]", "", BAD, "add: the shapes do not broadcast (operands [2,3], [2])"},
    {SF_OP_SUB, "[batch] [3]", "", BAD, "sub: the shapes do not broadcast (operands [batch], [3])"},
    {SF_OP_MUL, "[0] [2]", "", BAD, "mul: the shapes do not broadcast (operands [0], [2])"},
    {SF_OP_WHERE, "[2,3] [3] [2]", "", BAD, "where: the shapes do not broadcast (operands [2,3], [3], [2])"},
    {SF_OP_ADD, "[" LARGE ",1] [1," LARGE "]", "", BAD,
     "add: too many elements in the result (operands [" LARGE ",1], [1," LARGE "])"},
    /* matmul */
    {SF_OP_MATMUL, "[2,3] [4,5]", "", BAD, "matmul: the inner extents differ (operands [2,3], [4,5])"},
    {SF_OP_MATMUL, "[2,3] [3,5]", "transpose_b=1", BAD,
     "matmul: the inner extents differ after transposition (operands [2,3], [3,5])"},
    {SF_OP_MATMUL, "[2,batch] [3,5]", "", BAD, "matmul: the inner extents differ (operands [2,batch], [3,5])"},
    {SF_OP_MATMUL, "[3] [3,5]", "", BAD, "matmul: operands need two dimensions or more (operands [3], [3,5])"},
    {SF_OP_MATMUL, "[2,3] [3]", "", BAD, "matmul: operands need two dimensions or more (operands [2,3], [3])"},
    {SF_OP_MATMUL, "[2,2,3] [3,3,5]", "", BAD, "matmul: the leading dimensions do not broadcast (operands [2,2,3], [3,3,5])"},
    {SF_OP_MATMUL, "[2,3] [3,5]", "transpose_a=2", BAD, "matmul: attribute 'transpose_a' is 2, not 0 or 1 (operands [2,3], [3,5])"},
    {SF_OP_MATMUL, "[2,3] [3,5]", "transpose_b=-1", BAD,
     "matmul: attribute 'transpose_b' is -1, not 0 or 1 (operands [2,3], [3,5])"},
    {SF_OP_MATMUL, "[batch,batch,3] [batch,1,3,batch]", "", BAD,
     "matmul: too many elements in the result (operands [batch,batch,3], [batch,1,3,batch])"},
    /* conv2d */
    {SF_OP_CONV2D, "[3,8,8] [16,3,3,3]", "", BAD, "conv2d: operand 1 has 3 dimensions, not 4 (operands [3,8,8], [16,3,3,3])"},
    {SF_OP_CONV2D, "[1,3,8,8] [16,3,3]", "", BAD, "conv2d: operand 2 has 3 dimensions, not 4 (operands [1,3,8,8], [16,3,3])"},
    {SF_OP_CONV2D, "[1,3,8,8] [16,4,3,3]", "", BAD, "conv2d: x has 3 channels a group, w has 4 (operands [1,3,8,8], [16,4,3,3])"},
    {SF_OP_CONV2D, "[1,3,8,8] [16,3,3,3]", "groups=2", BAD,
     "conv2d: 2 groups do not divide 3 channels into 16 (operands [1,3,8,8], [16,3,3,3])"},
    {SF_OP_CONV2D, "[1,4,8,8] [15,2,3,3]", "groups=2", BAD,
     "conv2d: 2 groups do not divide 4 channels into 15 (operands [1,4,8,8], [15,2,3,3])"},
    {SF_OP_CONV2D, "[1,3,8,8] [16,3,3,3]", "groups=0", BAD,
     "conv2d: 0 groups do not divide 3 channels into 16 (operands [1,3,8,8], [16,3,3,3])"},
    {SF_OP_CONV2D, "[1,3,8,8] [16,3,3,3] [15]", "", BAD, "conv2d: the bias is not [16] (operands [1,3,8,8], [16,3,3,3], [15])"},
    {SF_OP_CONV2D, "[1,3,8,8] [16,3,3,3] [1,16]", "", BAD, "conv2d: the bias is not [16] (operands [1,3,8,8], [16,3,3,3], [1,16])"},
    {SF_OP_CONV2D, "[1,3,8,8] [16,3,3,3]", "stride=[1]", BAD,
     "conv2d: attribute 'stride' has 1 entries, not 2 (operands [1,3,8,8], [16,3,3,3])"},
    {SF_OP_CONV2D, "[1,3,8,8] [16,3,3,3]", "stride=[1,0]", BAD,
     "conv2d: attribute 'stride' has the entry 0, outside 1 to 2147483647 (operands [1,3,8,8], [16,3,3,3])"},
    {SF_OP_CONV2D, "[1,3,8,8] [16,3,3,3]", "pad=[1,1]", BAD,
     "conv2d: attribute 'pad' has 2 entries, not 4 (operands [1,3,8,8], [16,3,3,3])"},
    {SF_OP_CONV2D, "[1,3,8,8] [16,3,3,3]", "pad=[0,0,0,-1]", BAD,
     "conv2d: attribute 'pad' has the entry -1, outside 0 to 2147483647 (operands [1,3,8,8], [16,3,3,3])"},
    {SF_OP_CONV2D, "[1,3,8,8] [16,3,3,3]", "dilation=[0,1]", BAD,
     "conv2d: attribute 'dilation' has the entry 0, outside 1 to 2147483647 (operands [1,3,8,8], [16,3,3,3])"},
    {SF_OP_CONV2D, "[1,3,8,8] [16,3,3,3]", "dilation=[4,1]", BAD,
     "conv2d: a window of 9 does not fit the padded height of 8 (operands [1,3,8,8], [16,3,3,3])"},
    {SF_OP_CONV2D, "[1,3,8,2] [16,3,3,3]", "", BAD,
     "conv2d: a window of 3 does not fit the padded width of 2 (operands [1,3,8,2], [16,3,3,3])"},
    {SF_OP_CONV2D, "[1,3,8,8] [16,3,0,3]", "", BAD, "conv2d: a kernel of 0 taps (operands [1,3,8,8], [16,3,0,3])"},
    {SF_OP_CONV2D, "[1,3,0,8] [16,3,3,3]", "pad=[9,9,9,9]", BAD, "conv2d: the height is 0 (operands [1,3,0,8], [16,3,3,3])"},
    {SF_OP_CONV2D, "[1,3,8,8] [16,3,3,3]", "pad=[2000000,2000000,0,0] stride=[9999999,9999999]", BAD,
     "conv2d: the padded image is too large (operands [1,3,8,8], [16,3,3,3])"},
    {SF_OP_CONV2D, "[1,3,batch,8] [16,3,3,3]", "", UNSUPPORTED, "conv2d: a symbolic height (operands [1,3,batch,8], [16,3,3,3])"},
    {SF_OP_CONV2D, "[1,3,8,batch] [16,3,3,3]", "", UNSUPPORTED, "conv2d: a symbolic width (operands [1,3,8,batch], [16,3,3,3])"},
    {SF_OP_CONV2D, "[1,batch,8,8] [16,3,3,3]", "", UNSUPPORTED, "conv2d: symbolic channels (operands [1,batch,8,8], [16,3,3,3])"},
    {SF_OP_CONV2D, "[1,3,8,8] [batch,3,3,3]", "", UNSUPPORTED,
     "conv2d: a symbolic extent of w (operands [1,3,8,8], [batch,3,3,3])"},
    {SF_OP_CONV_TRANSPOSE, "[1,6,5,4] [5,8,2,2]", "", BAD,
     "conv_transpose: 1 groups of 6 channels, w has 5 (operands [1,6,5,4], [5,8,2,2])"},
    {SF_OP_CONV_TRANSPOSE, "[1,6,5,4] [6,8,2,2]", "output_pad=[0,1]", BAD,
     "conv_transpose: an output padding of 1 is not smaller than the stride (operands [1,6,5,4], [6,8,2,2])"},
    {SF_OP_CONV_TRANSPOSE, "[1,6,1,4] [6,8,2,2]", "pad=[1,0,1,0]", BAD,
     "conv_transpose: nothing is left of the height (operands [1,6,1,4], [6,8,2,2])"},
    {SF_OP_CONV_TRANSPOSE, "[1,6,5,4] [6,8,2,2] [9]", "", BAD,
     "conv_transpose: the bias is not [8] (operands [1,6,5,4], [6,8,2,2], [9])"},
    {SF_OP_CONV_TRANSPOSE, "[1,6,5,0] [6,8,2,2]", "", BAD,
     "conv_transpose: a width of 0 under 2 taps (operands [1,6,5,0], [6,8,2,2])"},
    {SF_OP_CONV_TRANSPOSE, "[1,6,5,batch] [6,8,2,2]", "", UNSUPPORTED,
     "conv_transpose: a symbolic width (operands [1,6,5,batch], [6,8,2,2])"},
    /* softmax, normalisations */
    {SF_OP_SOFTMAX, "[2,3]", "axis=2", BAD, "softmax: axis 2 is outside rank 2 (operands [2,3])"},
    {SF_OP_SOFTMAX, "[2,3]", "axis=-3", BAD, "softmax: axis -3 is outside rank 2 (operands [2,3])"},
    {SF_OP_SOFTMAX, "[]", "", BAD, "softmax: axis -1 is outside rank 0 (operands [])"},
    {SF_OP_LAYER_NORM, "[2,3]", "axis=2", BAD, "layer_norm: axis 2 is outside rank 2 (operands [2,3])"},
    {SF_OP_LAYER_NORM, "[2,3] [2]", "", BAD, "layer_norm: the scale has not the normalised extents (operands [2,3], [2])"},
    {SF_OP_LAYER_NORM, "[2,3] [1]", "", BAD, "layer_norm: the scale has not the normalised extents (operands [2,3], [1])"},
    {SF_OP_LAYER_NORM, "[2,3] [2,3] [3]", "axis=0", BAD,
     "layer_norm: the bias has not the normalised extents (operands [2,3], [2,3], [3])"},
    {SF_OP_LAYER_NORM, "[2,3]", "eps=-0.5", BAD, "layer_norm: attribute 'eps' is below 0 (operands [2,3])"},
    {SF_OP_RMS_NORM, "[2,3]", "axis=-3", BAD, "rms_norm: axis -3 is outside rank 2 (operands [2,3])"},
    {SF_OP_RMS_NORM, "[2,3] [2]", "", BAD, "rms_norm: the scale has not the normalised extents (operands [2,3], [2])"},
    {SF_OP_RMS_NORM, "[2,3]", "eps=-0.5", BAD, "rms_norm: attribute 'eps' is below 0 (operands [2,3])"},
    {SF_OP_BATCH_NORM, "[4] [4] [4] [4] [4]", "", BAD,
     "batch_norm: x needs two dimensions or more (operands [4], [4], [4], [4], [4])"},
    {SF_OP_BATCH_NORM, "[2,4] [2] [4] [4] [4]", "", BAD,
     "batch_norm: the scale has not one entry a channel (operands [2,4], [2], [4], [4], [4])"},
    {SF_OP_BATCH_NORM, "[2,4] [4] [4,1] [4] [4]", "", BAD,
     "batch_norm: the bias has not one entry a channel (operands [2,4], [4], [4,1], [4], [4])"},
    {SF_OP_BATCH_NORM, "[2,4] [4] [4] [1] [4]", "", BAD,
     "batch_norm: the mean has not one entry a channel (operands [2,4], [4], [4], [1], [4])"},
    {SF_OP_BATCH_NORM, "[2,4] [4] [4] [4] [5]", "", BAD,
     "batch_norm: the variance has not one entry a channel (operands [2,4], [4], [4], [4], [5])"},
    {SF_OP_BATCH_NORM, "[2,4] [4] [4] [4] [4]", "eps=-1", BAD,
     "batch_norm: attribute 'eps' is below 0 (operands [2,4], [4], [4], [4], [4])"},
    /* pools */
    {SF_OP_MAX_POOL, "[8,7,7]", "kernel=[2,2]", BAD, "max_pool: operand 1 has 3 dimensions, not 4 (operands [8,7,7])"},
    {SF_OP_MAX_POOL, "[1,8,7,7]", "", BAD, "max_pool: attribute 'kernel' is missing (operands [1,8,7,7])"},
    {SF_OP_MAX_POOL, "[1,8,7,7]", "kernel=[2]", BAD, "max_pool: attribute 'kernel' has 1 entries, not 2 (operands [1,8,7,7])"},
    {SF_OP_MAX_POOL, "[1,8,7,7]", "kernel=[2,0]", BAD,
     "max_pool: attribute 'kernel' has the entry 0, outside 1 to 2147483647 (operands [1,8,7,7])"},
    {SF_OP_MAX_POOL, "[1,8,7,7]", "kernel=[2,2] stride=[0,1]", BAD,
     "max_pool: attribute 'stride' has the entry 0, outside 1 to 2147483647 (operands [1,8,7,7])"},
    {SF_OP_AVG_POOL, "[1,8,7,7]", "kernel=[2,2] pad=[0,0,2,0]", BAD,
     "avg_pool: a padding of 2 is not smaller than the window (operands [1,8,7,7])"},
    {SF_OP_MAX_POOL, "[1,8,7,7]", "kernel=[2,2] pad=[0,4,0,0] dilation=[1,3]", BAD,
     "max_pool: a padding of 4 is not smaller than the window (operands [1,8,7,7])"},
    {SF_OP_AVG_POOL, "[1,8,7,7]", "kernel=[2,2] pad=[-1,0,0,0]", BAD,
     "avg_pool: attribute 'pad' has the entry -1, outside 0 to 2147483647 (operands [1,8,7,7])"},
    {SF_OP_AVG_POOL, "[1,8,7,7]", "kernel=[2,2] dilation=[1,1]", BAD, "avg_pool: the operation has no attribute 'dilation'"},
    {SF_OP_AVG_POOL, "[1,8,7,7]", "kernel=[2,2] count_include_pad=3", BAD,
     "avg_pool: attribute 'count_include_pad' is 3, not 0 or 1 (operands [1,8,7,7])"},
    {SF_OP_MAX_POOL, "[1,8,7,7]", "kernel=[8,1]", BAD,
     "max_pool: a window of 8 does not fit the padded height of 7 (operands [1,8,7,7])"},
    {SF_OP_MAX_POOL, "[1,8,7,0]", "kernel=[2,2] pad=[1,1,1,1]", BAD, "max_pool: the width is 0 (operands [1,8,7,0])"},
    {SF_OP_AVG_POOL, "[1,8,batch,7]", "kernel=[2,2]", UNSUPPORTED, "avg_pool: a symbolic height (operands [1,8,batch,7])"},
    {SF_OP_GLOBAL_AVG_POOL, "[8,7,7]", "", BAD, "global_avg_pool: operand 1 has 3 dimensions, not 4 (operands [8,7,7])"},
    /* reshape */
    {SF_OP_RESHAPE, "[6]", "shape=[4]", BAD, "reshape: the new extents have another number of elements (operands [6])"},
    {SF_OP_RESHAPE, "[batch]", "shape=[4]", BAD, "reshape: the new extents have another number of elements (operands [batch])"},
    {SF_OP_RESHAPE, "[6]", "shape=[4,-1]", BAD, "reshape: no whole extent remains for -1 (operands [6])"},
    {SF_OP_RESHAPE, "[batch,6]", "shape=[4,-1]", BAD, "reshape: no whole extent remains for -1 (operands [batch,6])"},
    {SF_OP_RESHAPE, "[0,6]", "shape=[0,-1]", BAD, "reshape: no whole extent remains for -1 (operands [0,6])"},
    {SF_OP_RESHAPE, "[6]", "shape=[-1,-1]", BAD, "reshape: a second extent of -1 (operands [6])"},
    {SF_OP_RESHAPE, "[6]", "shape=[-2]", BAD, "reshape: extent -2 (operands [6])"},
    {SF_OP_RESHAPE, "[6]", "shape=[6,0]", BAD, "reshape: extent 0 at dimension 1, which the operand has not (operands [6])"},
    {SF_OP_RESHAPE, "[6]", "shape=[" END "," END "]", BAD, "reshape: the new extents have too many elements (operands [6])"},
    {SF_OP_RESHAPE, "[0]", "shape=[-1," END "]", BAD, "reshape: too many elements in the result (operands [0])"},
    /* transpose, concat, slice */
    {SF_OP_TRANSPOSE, "[2,3]", "perm=[0]", BAD, "transpose: attribute 'perm' is no permutation of 2 dimensions (operands [2,3])"},
    {SF_OP_TRANSPOSE, "[2,3]", "perm=[0,0]", BAD, "transpose: attribute 'perm' is no permutation of 2 dimensions (operands [2,3])"},
    {SF_OP_TRANSPOSE, "[2,3]", "perm=[0,2]", BAD, "transpose: attribute 'perm' is no permutation of 2 dimensions (operands [2,3])"},
    {SF_OP_TRANSPOSE, "[2,3]", "perm=[-1,0]", BAD,
     "transpose: attribute 'perm' is no permutation of 2 dimensions (operands [2,3])"},
    {SF_OP_CONCAT, "[2,3] [3,3]", "", BAD, "concat: operand 2 differs from the first beside dimension 1 (operands [2,3], [3,3])"},
    {SF_OP_CONCAT, "[2,3] [2,3] [2,3,1]", "axis=0", BAD,
     "concat: operand 3 differs from the first beside dimension 0 (operands [2,3], [2,3], [2,3,1])"},
    {SF_OP_CONCAT, "[2,3] [2,3]", "axis=2", BAD, "concat: axis 2 is outside rank 2 (operands [2,3], [2,3])"},
    {SF_OP_CONCAT, "[]", "axis=0", BAD, "concat: axis 0 is outside rank 0 (operands [])"},
    {SF_OP_CONCAT, "[1099511627776] [1]", "", BAD, "concat: too many elements in the result (operands [1099511627776], [1])"},
    {SF_OP_SLICE, "[4,4]", "starts=[0] ends=[4,4]", BAD,
     "slice: attributes 'starts', 'ends', 'steps' need one entry a dimension (operands [4,4])"},
    {SF_OP_SLICE, "[4,4]", "starts=[0,0] ends=[4]", BAD,
     "slice: attributes 'starts', 'ends', 'steps' need one entry a dimension (operands [4,4])"},
    {SF_OP_SLICE, "[4,4]", "starts=[0,0] ends=[4,4] steps=[1]", BAD,
     "slice: attributes 'starts', 'ends', 'steps' need one entry a dimension (operands [4,4])"},
    {SF_OP_SLICE, "[4]", "starts=[0] ends=[4] steps=[0]", BAD, "slice: a step of 0 (operands [4])"},
    {SF_OP_SLICE, "[4]", "starts=[0] ends=[4] steps=[-1]", BAD, "slice: a step of -1 (operands [4])"},
    {SF_OP_SLICE, "[batch]", "starts=[1] ends=[" END "]", UNSUPPORTED,
     "slice: this part of dimension 0, which is symbolic: all of it, or a number of indices from one side (operands [batch])"},
    {SF_OP_SLICE, "[batch]", "starts=[0] ends=[-1]", UNSUPPORTED,
     "slice: this part of dimension 0, which is symbolic: all of it, or a number of indices from one side (operands [batch])"},
    {SF_OP_SLICE, "[batch]", "starts=[0] ends=[" END "] steps=[2]", UNSUPPORTED,
     "slice: this part of dimension 0, which is symbolic: all of it, or a number of indices from one side (operands [batch])"},
    {SF_OP_SLICE, "[4,batch]", "starts=[0,0] ends=[4,4] symbolic=[1]", BAD,
     "slice: attribute 'symbolic' names 1, no dimension of a constant extent (operands [4,batch])"},
    {SF_OP_SLICE, "[4]", "starts=[0] ends=[4] symbolic=[1]", BAD,
     "slice: attribute 'symbolic' names 1, no dimension of a constant extent (operands [4])"},
    {SF_OP_SLICE, "[4]", "starts=[0] ends=[4] steps=[2] symbolic=[0]", UNSUPPORTED,
     "slice: a step of 2 in a symbolic slice (operands [4])"},
    /* gather, cast, expand, pad */
    {SF_OP_GATHER, "[4,5] i[2]", "axis=2", BAD, "gather: axis 2 is outside rank 2 (operands [4,5], [2])"},
    {SF_OP_GATHER, "[4,5] [2]", "axis=0", BAD, "gather: operand 2 is f32, not of an integer type (operands [4,5], [2])"},
    {SF_OP_GATHER, "i[4,5] i[2]", "axis=0", UNSUPPORTED, "gather: operand 1 is i64: integers are cast first (operands [4,5], [2])"},
    {SF_OP_GATHER, "[batch,5] i[2]", "axis=0", UNSUPPORTED,
     "gather: along dimension 0, which is symbolic (operands [batch,5], [2])"},
    {SF_OP_GATHER, "[4,5,6,7] i[2,3,4,5]", "axis=0", UNSUPPORTED,
     "gather: a result of more than 6 dimensions (operands [4,5,6,7], [2,3,4,5])"},
    {SF_OP_CAST, "[4]", "", BAD, "cast: operand 1 is f32, not of an integer type (operands [4])"},
    {SF_OP_RELU, "i[4]", "", UNSUPPORTED, "relu: operand 1 is i64: integers are cast first (operands [4])"},
    {SF_OP_EXPAND, "[4,1]", "shape=[3,2]", BAD, "expand: attribute 'shape' does not expand extents of 1 (operands [4,1])"},
    {SF_OP_EXPAND, "[4,1]", "shape=[4]", BAD, "expand: attribute 'shape' does not expand extents of 1 (operands [4,1])"},
    {SF_OP_EXPAND, "[batch]", "shape=[3]", BAD, "expand: attribute 'shape' does not expand extents of 1 (operands [batch])"},
    {SF_OP_PAD, "[4]", "before=[1,2] after=[1]", BAD,
     "pad: attributes 'before' and 'after' need one entry a dimension (operands [4])"},
    {SF_OP_PAD, "[4]", "before=[1] after=[-1]", BAD, "pad: padding outside 0 to 2147483647 (operands [4])"},
    /* append, attention */
    {SF_OP_APPEND, "[2,64,8] [2,3,7] i[1]", "axis=1", BAD,
     "append: the operands differ beside dimension 1 (operands [2,64,8], [2,3,7], [1])"},
    {SF_OP_APPEND, "[64] [3] i[2]", "", BAD, "append: the position is no input of one integer (operands [64], [3], [2])"},
    {SF_OP_APPEND, "[64] [3] [1]", "", BAD, "append: operand 3 is f32, not of an integer type (operands [64], [3], [1])"},
    {SF_OP_APPEND, "[64] [3] i[1]", "axis=1", BAD, "append: axis 1 is outside rank 1 (operands [64], [3], [1])"},
    {SF_OP_ATTENTION, "[2,4] [2,4] [2,4]", "", BAD,
     "attention: q is not [batch, head, row, feature] or, with 'heads', [batch, row, head * feature] (operands [2,4], [2,4], "
     "[2,4])"},
    {SF_OP_ATTENTION, "[1,2,4] [1,2,5] [1,2,4]", "heads=4", BAD,
     "attention: k is not [batch, head, key, feature] or, with heads, [batch, key, head * feature] (operands [1,2,4], [1,2,5], "
     "[1,2,4])"},
    {SF_OP_ATTENTION, "[1,2,4] [1,2,4] [1,2,4,batch]", "heads=4", BAD,
     "attention: v is not [batch, head, key, feature] or, with heads, [batch, key, head * feature] (operands [1,2,4], [1,2,4], "
     "[1,2,4,batch])"},
    {SF_OP_ATTENTION, "[1,2,4] [1,2,8] [1,2,4]", "heads=4", BAD,
     "attention: q and k differ in their features (operands [1,2,4], [1,2,8], [1,2,4])"},
    {SF_OP_ATTENTION, "[1,2,4] [1,2,4] [1,3,4]", "heads=4", BAD,
     "attention: k and v differ in heads or keys (operands [1,2,4], [1,2,4], [1,3,4])"},
    {SF_OP_ATTENTION, "[1,4,2,4] [1,3,2,4] [1,3,2,4]", "", BAD,
     "attention: the heads of k do not divide those of q (operands [1,4,2,4], [1,3,2,4], [1,3,2,4])"},
    {SF_OP_ATTENTION, "[1,2,4] [2,2,4] [2,2,4]", "heads=4", BAD,
     "attention: q, k and v differ in their batch (operands [1,2,4], [2,2,4], [2,2,4])"},
    {SF_OP_ATTENTION, "[1,2,4] [1,3,4] [1,3,4] [3,2]", "heads=4", BAD,
     "attention: the mask does not broadcast to the scores (operands [1,2,4], [1,3,4], [1,3,4], [3,2])"},
    {SF_OP_ATTENTION, "[1,2,4] [1,3,4] [1,3,4] [3] [3]", "heads=4", BAD,
     "attention: a second mask (operands [1,2,4], [1,3,4], [1,3,4], [3], [3])"},
    {SF_OP_ATTENTION, "[1,2,4] [1,3,4] [1,3,4] i[2]", "heads=4", BAD,
     "attention: the position is no input of one integer (operands [1,2,4], [1,3,4], [1,3,4], [2])"},
    {SF_OP_ATTENTION, "[1,2,4] [1,3,4] [1,3,4]", "heads=4 causal=2", BAD,
     "attention: attribute 'causal' is 2, not 0 or 1 (operands [1,2,4], [1,3,4], [1,3,4])"},
    /* reductions */
    {SF_OP_REDUCE_SUM, "[2,3]", "axes=[2]", BAD, "reduce_sum: axis 2 is outside rank 2 (operands [2,3])"},
    {SF_OP_REDUCE_MEAN, "[2,3]", "axes=[]", BAD, "reduce_mean: attribute 'axes' is empty (operands [2,3])"},
    {SF_OP_REDUCE_MAX, "[2,3]", "axes=[1,-1]", BAD, "reduce_max: attribute 'axes' names dimension 1 twice (operands [2,3])"},
    {SF_OP_REDUCE_SUM, "[2,3]", "axes=[0] keepdims=2", BAD, "reduce_sum: attribute 'keepdims' is 2, not 0 or 1 (operands [2,3])"},
    {SF_OP_REDUCE_SUM, "[2,3]", "", BAD, "reduce_sum: attribute 'axes' is missing (operands [2,3])"},
};

START_TEST(test_refusals) {
  const refusal_row *row = &refusals[_i];
  sf_graph *graph;
  ck_assert_int_eq(sf_graph_create(context, "net", &graph), SF_OK);
  ck_assert_int_eq(row_node(graph, row->op, row->operands, row->attrs), SF_NO_VALUE);
  sf_error error, kept;
  sf_graph_error(graph, &error);
  ck_assert_str_eq(error.message, row->message);
  ck_assert_int_eq(error.status, row->status);
  ck_assert_int_eq(sf_graph_status(graph), row->status);
  ck_assert_str_eq(error.op, sfi_op_of(row->op)->text);
  ck_assert_str_eq(error.file, "net");
  ck_assert_int_eq(error.line, 0);
  ck_assert_int_eq(sf_context_take_error(context, &kept), row->status);
  ck_assert_str_eq(kept.message, row->message);
  sf_graph_release(graph);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("infer");
  TCase *all = tcase_create("infer");
  tcase_add_checked_fixture(all, setup, teardown);
  tcase_add_loop_test(all, test_shapes, 0, SFI_COUNT(shapes));
  tcase_add_loop_test(all, test_symbolic_shapes_hold_at_points, 0, SFI_COUNT(shapes));
  tcase_add_test(all, test_every_operation_has_a_row);
  tcase_add_loop_test(all, test_refusals, 0, SFI_COUNT(refusals));
  suite_add_tcase(suite, all);
  return run_suite(suite);
}
