/* The builder: leaves, names, outputs, sticky errors, answers, running out of memory at every allocation; and the verifier
 * on graphs that no builder would make. */
#include "context.h"
#include "failing_allocator.h"
#include "graph_rows.h"
#include "suite.h"

static failing_allocator memory;
static sf_context *context;
static sf_graph *graph;

static void setup(void) {
  memset(&memory, 0, sizeof memory);
  sf_allocator allocator = failing_allocator_of(&memory);
  sf_context_options options;
  SF_INIT(&options);
  options.allocator = &allocator;
  options.cache_dir = "";
  ck_assert_int_eq(sf_context_create(&options, &context), SF_OK);
  ck_assert_int_eq(sf_graph_create(context, "net", &graph), SF_OK);
}

static void teardown(void) {
  sf_graph_release(graph);
  sf_context_release(context);
  ck_assert_int_eq(memory.live, 0);
  ck_assert_int_eq(memory.live_bytes, 0);
}

static const int64_t two_three[] = {2, 3};
static const float six[6] = {1, 2, 3, 4, 5, 6};

static sf_value input_2_3(const char *name) {
  return sf_graph_input(graph, name, SF_F32, 2, two_three);
}

/* The graph is in error with this message, once in the context. */
static void expect_error(sf_status status, const char *op, const char *message) {
  sf_error error, kept;
  sf_graph_error(graph, &error);
  ck_assert_str_eq(error.message, message);
  ck_assert_str_eq(error.op, op);
  ck_assert_int_eq(error.status, status);
  ck_assert_int_eq(sf_graph_status(graph), status);
  ck_assert_int_eq(sf_context_take_error(context, &kept), status);
  ck_assert_str_eq(kept.message, message);
}

/* ---- leaves ------------------------------------------------------------------------------------------------------- */

START_TEST(test_leaves) {
  int64_t dims[] = {SF_DIM_SYMBOLIC, 3};
  sf_value x = sf_graph_input(graph, "x", SF_F32, 2, dims);
  sf_value unnamed = sf_graph_input(graph, NULL, SF_F16, 0, NULL);
  sf_value w = sf_graph_weight(graph, "layer.w", SF_F32, 2, two_three, six, SF_COPY);
  sf_value b = sf_graph_weight(graph, NULL, SF_F32, 2, two_three, six, SF_BORROW);
  sf_value c = sf_graph_constant(graph, SF_F32, 2, two_three, six);
  sf_value empty = sf_graph_constant(graph, SF_F32, 2, (const int64_t[]){0, 3}, NULL);
  ck_assert_int_eq(sf_graph_status(graph), SF_OK);
  ck_assert_int_eq(x, 0);
  ck_assert_int_eq(empty, 5);
  sf_tensor_info info;
  ck_assert_int_eq(sf_graph_value_info(graph, x, &info), SF_OK);
  ck_assert_str_eq(info.name, "x");
  ck_assert_int_eq(info.rank, 2);
  ck_assert_int_eq(info.dims[0], SF_DIM_SYMBOLIC);
  ck_assert_int_eq(info.dims[1], 3);
  ck_assert_int_eq(sf_graph_value_info(graph, unnamed, &info), SF_OK);
  ck_assert_str_eq(info.name, "input1");
  ck_assert_int_eq(info.dtype, SF_F16);
  ck_assert_int_eq(info.rank, 0);
  ck_assert_int_eq(sf_graph_value_info(graph, w, &info), SF_OK);
  ck_assert_str_eq(info.name, "layer.w");
  ck_assert_ptr_nonnull(graph->nodes[b].name);
  ck_assert_ptr_null(graph->nodes[c].name);
  ck_assert_ptr_ne(graph->nodes[w].data, six);
  ck_assert_mem_eq(graph->nodes[w].data, six, sizeof six);
  ck_assert_uint_eq(graph->nodes[w].bytes, sizeof six);
  ck_assert_ptr_eq(graph->nodes[b].data, six);
  ck_assert(sfi_is_static(graph, empty) && sfi_is_static(graph, w) && !sfi_is_static(graph, x));
  ck_assert_int_eq(sf_graph_value_info(graph, 6, &info), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_graph_value_info(graph, SF_NO_VALUE, &info), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_graph_value_info(graph, 0, NULL), SF_STATUS_INVALID_ARGUMENT);
}
END_TEST

START_TEST(test_made_names_are_free) {
  input_2_3("input1");
  sf_value made = input_2_3(NULL);
  ck_assert_str_eq(graph->nodes[made].name, "input2");
  sf_graph_output(graph, "output1", made);
  sf_graph_output(graph, NULL, made);
  ck_assert_str_eq(graph->outputs[1].name, "output2");
}
END_TEST

START_TEST(test_values_by_name) {
  sf_value x = input_2_3("x");
  sf_value w = sf_graph_weight(graph, "layer.w", SF_F32, 2, two_three, six, SF_COPY);
  sf_value y = sf_binary(graph, SF_OP_ADD, x, w);
  graph->nodes[w].label = "w"; /* as the parser does */
  ck_assert_int_eq(sf_graph_find(graph, "x"), x);
  ck_assert_int_eq(sf_graph_find(graph, "w"), w);
  ck_assert_int_eq(sf_graph_find(graph, "layer.w"), w);
  ck_assert_int_eq(sf_graph_find(graph, "y"), SF_NO_VALUE);
  ck_assert_int_eq(sf_graph_find(graph, NULL), SF_NO_VALUE);
  ck_assert_int_eq(sf_graph_value_count(graph), 3);
  ck_assert_int_eq(sf_graph_value_op(graph, y), SF_OP_ADD);
  ck_assert_int_eq(sf_graph_value_op(graph, 3), SF_OP_INPUT);
  ck_assert_int_eq(sf_graph_value_count(NULL), 0);
}
END_TEST

/* What the host lends is copied where kernels could not load it. */
START_TEST(test_misaligned_data_is_copied) {
  char bytes[sizeof six + 1];
  memcpy(bytes + 1, six, sizeof six);
  const char *odd = (uintptr_t)bytes % 4 == 3 ? bytes : bytes + 1;
  memmove(bytes + (odd - bytes), bytes + 1, sizeof six);
  sf_value w = sf_graph_weight(graph, "w", SF_F32, 2, two_three, odd, SF_BORROW);
  ck_assert_ptr_ne(graph->nodes[w].data, odd);
  ck_assert_mem_eq(graph->nodes[w].data, six, sizeof six);
}
END_TEST

typedef struct leaf_row {
  sf_op op;
  sf_dtype dtype;
  int32_t rank;
  int64_t dims[7];
  bool no_dims, no_data;
  sf_status status;
  const char *at, *message;
} leaf_row;

static const leaf_row bad_leaves[] = {
    {SF_OP_INPUT,
     SF_F32,
     1,
     {-2},
     .status = SF_STATUS_INVALID_GRAPH,
     .at = "v",
     .message = "input: extent 0 is neither a number >= 0 nor the symbolic dimension (shape [-2])"},
    {SF_OP_WEIGHT,
     SF_F32,
     2,
     {2, SF_DIM_SYMBOLIC},
     .status = SF_STATUS_INVALID_GRAPH,
     .at = "v",
     .message = "weight: extent 1 is not a number >= 0 (shape [2,batch])"},
    {SF_OP_CONSTANT,
     SF_F32,
     1,
     {-3},
     .status = SF_STATUS_INVALID_GRAPH,
     .at = "constant",
     .message = "constant: extent 0 is not a number >= 0 (shape [-3])"},
    {SF_OP_INPUT,
     SF_F32,
     7,
     {1, 1, 1, 1, 1, 1, 1},
     .status = SF_STATUS_INVALID_GRAPH,
     .at = "input",
     .message = "input: 7 dimensions, outside 0 to 6"},
    {SF_OP_INPUT,
     SF_F32,
     -1,
     {0},
     .status = SF_STATUS_INVALID_GRAPH,
     .at = "input",
     .message = "input: -1 dimensions, outside 0 to 6"},
    {SF_OP_INPUT,
     SF_F32,
     2,
     {2, 3},
     .no_dims = true,
     .status = SF_STATUS_INVALID_GRAPH,
     .at = "input",
     .message = "input: -1 dimensions, outside 0 to 6"},
    {SF_OP_INPUT, (sf_dtype)77, 1, {2}, .status = SF_STATUS_INVALID_ARGUMENT, .at = "input", .message = "input: unknown dtype 77"},
    {SF_OP_WEIGHT,
     (sf_dtype)-1,
     1,
     {2},
     .status = SF_STATUS_INVALID_ARGUMENT,
     .at = "weight",
     .message = "weight: unknown dtype -1"},
    {SF_OP_WEIGHT,
     SF_F32,
     1,
     {2},
     .no_data = true,
     .status = SF_STATUS_INVALID_GRAPH,
     .at = "v",
     .message = "weight: no data (shape [2])"},
    {SF_OP_CONSTANT,
     SF_F32,
     0,
     {0},
     .no_data = true,
     .status = SF_STATUS_INVALID_GRAPH,
     .at = "constant",
     .message = "constant: no data (shape [])"},
    {SF_OP_WEIGHT,
     SF_F32,
     2,
     {INT64_MAX, 2},
     .status = SF_STATUS_INVALID_GRAPH,
     .at = "v",
     .message = "weight: too many elements in the result (shape [9223372036854775807,2])"},
    {SF_OP_INPUT,
     SF_F32,
     3,
     {1 << 20, 1 << 20, 2},
     .status = SF_STATUS_INVALID_GRAPH,
     .at = "v",
     .message = "input: too many elements in the result (shape [1048576,1048576,2])"},
    {SF_OP_INPUT,
     SF_F32,
     3,
     {INT64_MAX, 0, 2},
     .status = SF_STATUS_INVALID_GRAPH,
     .at = "v",
     .message = "input: too many elements in the result (shape [9223372036854775807,0,2])"},
    {SF_OP_INPUT,
     SF_F32,
     3,
     {-1, -1, -1},
     .status = SF_STATUS_INVALID_GRAPH,
     .at = "v",
     .message = "input: too many elements in the result (shape [batch,batch,batch])"},
};

START_TEST(test_bad_leaves) {
  const leaf_row *row = &bad_leaves[_i];
  const int64_t *dims = row->no_dims ? NULL : row->dims;
  const void *data = row->no_data ? NULL : six;
  sf_value value = 0;
  if (row->op == SF_OP_INPUT) value = sf_graph_input(graph, "v", row->dtype, row->rank, dims);
  if (row->op == SF_OP_WEIGHT) value = sf_graph_weight(graph, "v", row->dtype, row->rank, dims, data, SF_BORROW);
  if (row->op == SF_OP_CONSTANT) value = sf_graph_constant(graph, row->dtype, row->rank, dims, data);
  ck_assert_int_eq(value, SF_NO_VALUE);
  expect_error(row->status, row->at, row->message);
}
END_TEST

START_TEST(test_input_names_are_unique) {
  input_2_3("x");
  input_2_3("x");
  expect_error(SF_STATUS_INVALID_GRAPH, "x", "input: a second one named \"x\"");
}
END_TEST

START_TEST(test_inputs_are_bounded) {
  for (int i = 0; i < 4096; i++) ck_assert_int_eq(input_2_3(NULL), i);
  input_2_3("last");
  expect_error(SF_STATUS_UNSUPPORTED, "last", "input: the graph has too many already");
}
END_TEST

/* ---- operations --------------------------------------------------------------------------------------------------- */

START_TEST(test_unknown_operation) {
  sf_graph_op(graph, (sf_op)99, 0, NULL, 0, NULL);
  expect_error(SF_STATUS_INVALID_ARGUMENT, "", "unknown operation 99");
}
END_TEST

START_TEST(test_leaf_is_no_operation) {
  sf_graph_op(graph, SF_OP_WEIGHT, 0, NULL, 0, NULL);
  expect_error(SF_STATUS_INVALID_ARGUMENT, "weight", "weight: a leaf has its own builder call");
}
END_TEST

START_TEST(test_null_lists) {
  sf_graph_op(graph, SF_OP_ADD, 2, NULL, 0, NULL);
  expect_error(SF_STATUS_INVALID_ARGUMENT, "add", "add: 2 operands, 0 attributes, or a list is NULL");
}
END_TEST

START_TEST(test_negative_counts) {
  sf_graph_op(graph, SF_OP_CONCAT, 0, NULL, -1, NULL);
  expect_error(SF_STATUS_INVALID_ARGUMENT, "concat", "concat: 0 operands, -1 attributes, or a list is NULL");
}
END_TEST

START_TEST(test_operand_of_no_graph) {
  sf_binary(graph, SF_OP_ADD, input_2_3("x"), 1);
  expect_error(SF_STATUS_INVALID_ARGUMENT, "add", "add: operand 2 is no earlier value of the graph");
}
END_TEST

START_TEST(test_no_value_is_no_operand) {
  sf_unary(graph, SF_OP_RELU, SF_NO_VALUE);
  expect_error(SF_STATUS_INVALID_ARGUMENT, "relu", "relu: operand 1 is no earlier value of the graph");
}
END_TEST

START_TEST(test_unknown_attribute) {
  sf_value x = input_2_3("x");
  sf_graph_op(graph, SF_OP_SOFTMAX, 1, &x, 1, &(sf_attr){.id = (sf_attr_id)31});
  expect_error(SF_STATUS_INVALID_ARGUMENT, "softmax", "softmax: unknown attribute 31");
}
END_TEST

static const struct {
  sf_op op;
  sf_attr attr;
  const char *message;
} mistyped[] = {
    {SF_OP_SOFTMAX, {.id = SF_ATTR_AXIS, .f = 1}, "softmax: attribute 'axis' takes one integer"},
    {SF_OP_LAYER_NORM, {.id = SF_ATTR_EPS, .i = 1}, "layer_norm: attribute 'eps' takes one real number"},
    {SF_OP_RESHAPE, {.id = SF_ATTR_SHAPE, .count = 1}, "reshape: attribute 'shape' takes a list of at most 6 integers"},
    {SF_OP_RESHAPE,
     {.id = SF_ATTR_SHAPE, .count = -1, .ints = two_three},
     "reshape: attribute 'shape' takes a list of at most 6 integers"},
    {SF_OP_RESHAPE,
     {.id = SF_ATTR_SHAPE, .count = INT32_MAX, .ints = two_three},
     "reshape: attribute 'shape' takes a list of at most 6 integers"},
};

START_TEST(test_mistyped_attributes) {
  sf_value x = input_2_3("x");
  sf_graph_op(graph, mistyped[_i].op, 1, &x, 1, &mistyped[_i].attr);
  expect_error(SF_STATUS_INVALID_GRAPH, sfi_op_of(mistyped[_i].op)->text, mistyped[_i].message);
}
END_TEST

START_TEST(test_dtypes_that_do_not_compute) {
  sf_value half = sf_graph_input(graph, "h", SF_F16, 2, two_three);
  ck_assert_int_eq(half, 0);
  sf_binary(graph, SF_OP_MUL, input_2_3("x"), half);
  expect_error(SF_STATUS_UNSUPPORTED, "mul", "mul: operand 2 is f16, with which nothing computes yet (operands [2,3], [2,3])");
}
END_TEST

START_TEST(test_defaults) {
  sf_value x = sf_graph_input(graph, "x", SF_F32, 4, (const int64_t[]){1, 2, 8, 8});
  sf_value w = sf_graph_weight(graph, "w", SF_F32, 4, (const int64_t[]){3, 2, 1, 1}, six, SF_COPY);
  sf_value y = sf_graph_op(graph, SF_OP_CONV2D, 2, (const sf_value[]){x, w}, 0, NULL);
  const sfi_node *node = &graph->nodes[y];
  ck_assert_int_eq(sfi_attr_of(node, SF_ATTR_STRIDE)->count, 2);
  ck_assert_int_eq(sfi_attr_of(node, SF_ATTR_STRIDE)->ints[1], 1);
  ck_assert_int_eq(sfi_attr_of(node, SF_ATTR_PAD)->count, 4);
  ck_assert_int_eq(sfi_attr_of(node, SF_ATTR_PAD)->ints[3], 0);
  ck_assert_int_eq(sfi_attr_int(node, SF_ATTR_GROUPS), 1);
  sf_value n = sf_unary(graph, SF_OP_LAYER_NORM, y);
  ck_assert(sfi_attr_of(&graph->nodes[n], SF_ATTR_EPS)->f == 1e-5);
  ck_assert_int_eq(sfi_attr_int(&graph->nodes[n], SF_ATTR_AXIS), -1);
  ck_assert_int_eq(sf_graph_status(graph), SF_OK);
}
END_TEST

START_TEST(test_shorthands) {
  sf_value x = sf_graph_input(graph, "x", SF_F32, 4, (const int64_t[]){SF_DIM_SYMBOLIC, 2, 5, 5});
  float filter[3 * 2 * 9] = {0};
  sf_value w = sf_graph_weight(graph, "w", SF_F32, 4, (const int64_t[]){3, 2, 3, 3}, filter, SF_COPY);
  sf_value b = sf_graph_weight(graph, "b", SF_F32, 1, (const int64_t[]){3}, six, SF_COPY);
  sf_conv2d_options options;
  SF_INIT(&options);
  options.pad[0] = options.pad[1] = options.pad[2] = options.pad[3] = 1;
  options.stride[0] = 2;
  sf_value conv = sf_conv2d(graph, x, w, b, &options);
  sf_value plain = sf_conv2d(graph, x, w, SF_NO_VALUE, NULL);
  sf_value flat = sf_reshape(graph, conv, 2, (const int64_t[]){0, -1});
  sf_value turned = sf_transpose(graph, flat, 2, (const int64_t[]){1, 0});
  sf_value product = sf_matmul(graph, turned, turned, true, false);
  sf_value soft = sf_softmax(graph, product, -2);
  ck_assert_int_eq(sf_graph_output(graph, "soft", soft), SF_OK);
  ck_assert_int_eq(sf_graph_output(graph, NULL, plain), SF_OK);
  ck_assert_int_eq(sf_graph_status(graph), SF_OK);
  sfi_text text = {.allocator = &sfi_default_allocator};
  for (sf_value v = conv; v <= soft; v++) sfi_shape_print(&text, &graph->nodes[v].shape, "n");
  ck_assert_str_eq(text.data, "[n,3,3,5][n,3,3,3][n,45][45,n][n,n][n,n]");
  sfi_text_deinit(&text);
  ck_assert_int_eq(sfi_attr_int(&graph->nodes[soft], SF_ATTR_AXIS), -2); /* as given */
  ck_assert_int_eq(sf_graph_input_count(graph), 1);
  ck_assert_int_eq(sf_graph_output_count(graph), 2);
  ck_assert_int_eq(sf_graph_input_value(graph, 0), x);
  ck_assert_int_eq(sf_graph_input_value(graph, 1), SF_NO_VALUE);
  ck_assert_int_eq(sf_graph_output_value(graph, 1), plain);
  ck_assert_int_eq(sf_graph_output_value(graph, -1), SF_NO_VALUE);
  ck_assert_str_eq(graph->outputs[1].name, "output1");
}
END_TEST

START_TEST(test_conv2d_options_of_another_version) {
  sf_conv2d_options options = {.struct_size = sizeof options + 8};
  sf_conv2d(graph, input_2_3("x"), input_2_3("w"), SF_NO_VALUE, &options);
  sf_error error;
  sf_graph_error(graph, &error);
  ck_assert_int_eq(error.status, SF_STATUS_INVALID_ARGUMENT);
  ck_assert_str_eq(error.op, "conv2d");
  ck_assert_ptr_nonnull(strstr(error.message, "struct_size"));
}
END_TEST

/* ---- outputs ------------------------------------------------------------------------------------------------------ */

START_TEST(test_output_of_no_value) {
  ck_assert_int_eq(sf_graph_output(graph, "y", 0), SF_STATUS_INVALID_ARGUMENT);
  expect_error(SF_STATUS_INVALID_ARGUMENT, "y", "output: \"y\" is no value of the graph");
}
END_TEST

START_TEST(test_output_twice_named) {
  sf_value x = input_2_3("x");
  sf_graph_output(graph, "y", x);
  sf_graph_output(graph, "y", x);
  expect_error(SF_STATUS_INVALID_GRAPH, "y", "output: a second one named \"y\"");
}
END_TEST

START_TEST(test_output_that_does_not_compute) {
  sf_graph_output(graph, "y", sf_graph_input(graph, "x", SF_I8, 2, two_three));
  expect_error(SF_STATUS_UNSUPPORTED, "y", "output: \"y\" is i8, with which nothing computes yet");
}
END_TEST

START_TEST(test_outputs_are_bounded) {
  sf_value x = input_2_3("x");
  for (int i = 0; i < 4096; i++) ck_assert_int_eq(sf_graph_output(graph, NULL, x), SF_OK);
  sf_graph_output(graph, "last", x);
  expect_error(SF_STATUS_UNSUPPORTED, "last", "output: the graph has too many already");
}
END_TEST

/* ---- errors ------------------------------------------------------------------------------------------------------- */

START_TEST(test_first_error_stays) {
  sf_value x = input_2_3("x");
  sf_value bad = sf_matmul(graph, x, x, false, false);
  ck_assert_int_eq(bad, SF_NO_VALUE);
  ck_assert_int_eq(sf_unary(graph, SF_OP_RELU, bad), SF_NO_VALUE);
  ck_assert_int_eq(sf_unary(graph, SF_OP_RELU, x), SF_NO_VALUE);
  ck_assert_int_eq(input_2_3("y"), SF_NO_VALUE);
  ck_assert_int_eq(sf_graph_op(graph, (sf_op)99, 0, NULL, 0, NULL), SF_NO_VALUE);
  ck_assert_int_eq(sf_graph_output(graph, "y", bad), SF_STATUS_INVALID_GRAPH);
  ck_assert_uint_eq(graph->n_nodes, 1);
  expect_error(SF_STATUS_INVALID_GRAPH, "matmul", "matmul: the inner extents differ (operands [2,3], [2,3])");
  sf_conv2d(graph, x, x, SF_NO_VALUE, &(sf_conv2d_options){.struct_size = 1});
  sf_unary(graph, SF_OP_RELU, bad);
  sf_error again;
  ck_assert_int_eq(sf_context_take_error(context, &again), SF_OK); /* told once */
  sf_graph_error(graph, &again);
  ck_assert_str_eq(again.file, "net");
}
END_TEST

START_TEST(test_no_graph) {
  sf_error error;
  sf_tensor_info info;
  ck_assert_int_eq(sf_graph_input(NULL, "x", SF_F32, 2, two_three), SF_NO_VALUE);
  ck_assert_int_eq(sf_graph_weight(NULL, "w", SF_F32, 2, two_three, six, SF_COPY), SF_NO_VALUE);
  ck_assert_int_eq(sf_graph_constant(NULL, SF_F32, 2, two_three, six), SF_NO_VALUE);
  ck_assert_int_eq(sf_unary(NULL, SF_OP_RELU, 0), SF_NO_VALUE);
  ck_assert_int_eq(sf_conv2d(NULL, 0, 0, 0, NULL), SF_NO_VALUE);
  ck_assert_int_eq(sf_graph_output(NULL, "y", 0), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_graph_status(NULL), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_graph_value_info(NULL, 0, &info), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_graph_input_count(NULL), 0);
  ck_assert_int_eq(sf_graph_output_value(NULL, 0), SF_NO_VALUE);
  sf_graph_error(NULL, &error);
  ck_assert_int_eq(error.status, SF_STATUS_INVALID_ARGUMENT);
  sf_graph_error(graph, NULL);
  sf_graph_release(NULL);
  sf_graph *none = graph;
  ck_assert_int_eq(sf_graph_create(NULL, "g", &none), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_ptr_null(none);
  ck_assert_int_eq(sf_graph_create(context, "g", NULL), SF_STATUS_INVALID_ARGUMENT);
}
END_TEST

START_TEST(test_places) {
  char file[] = "net.sft";
  sfi_shape shape = {1, {sfi_const(2)}};
  sfi_place place = {file, 3, 7};
  sf_value x = sfi_graph_add_leaf(graph, SF_OP_INPUT, "x", SF_F32, &shape, NULL, false, &place);
  place.line = 4;
  sf_value y = sfi_graph_add(graph, SF_OP_RELU, "y", 1, &x, 0, NULL, &place);
  file[0] = '!'; /* the graph has its own */
  ck_assert_str_eq(graph->nodes[x].place.file, "net.sft");
  ck_assert_ptr_eq(graph->nodes[x].place.file, graph->nodes[y].place.file);
  ck_assert_int_eq(graph->nodes[y].place.line, 4);
  ck_assert_str_eq(graph->nodes[y].name, "y");
  place = (sfi_place){"other.sft", 9, 1};
  sfi_graph_add(graph, SF_OP_MATMUL, NULL, 2, (const sf_value[]){x, y}, 0, NULL, &place);
  sf_error error;
  sf_graph_error(graph, &error);
  ck_assert_str_eq(error.file, "other.sft");
  ck_assert_int_eq(error.line, 9);
  ck_assert_int_eq(error.column, 1);
}
END_TEST

START_TEST(test_new_like) {
  graph->symbol = "tokens";
  sf_graph *fresh = sfi_graph_new_like(graph);
  ck_assert_str_eq(fresh->name, "net");
  ck_assert_str_eq(fresh->symbol, "tokens");
  ck_assert_ptr_eq(fresh->context, context);
  ck_assert_uint_eq(fresh->n_nodes, 0);
  sf_graph_release(fresh);
  memory.fail_from = memory.calls + 1;
  ck_assert_ptr_null(sfi_graph_new_like(graph));
}
END_TEST

/* ---- out of memory ------------------------------------------------------------------------------------------------ */

/* Every kind of node once, with names and lists of every kind. */
static void build_everything(sf_graph *g) {
  sf_value x = sf_graph_input(g, "x", SF_F32, 4, (const int64_t[]){SF_DIM_SYMBOLIC, 4, 6, 6});
  float data[256] = {0};
  sf_value w = sf_graph_weight(g, "w", SF_F32, 4, (const int64_t[]){4, 4, 3, 3}, data, SF_COPY);
  sf_value c = sf_graph_weight(g, NULL, SF_F32, 1, (const int64_t[]){4}, data, SF_COPY);
  sf_value two = sf_graph_constant(g, SF_F32, 0, NULL, data);
  sf_conv2d_options same;
  SF_INIT(&same);
  same.pad[0] = same.pad[1] = same.pad[2] = same.pad[3] = 1;
  x = sf_conv2d(g, x, w, c, &same);
  const sf_attr cut = {.id = SF_ATTR_PAD, .count = 4, .ints = (const int64_t[]){1, 1, 1, 1}};
  x = sf_graph_op(g, SF_OP_CONV_TRANSPOSE, 3, (const sf_value[]){x, w, c}, 1, &cut);
  x = sf_graph_op(g, SF_OP_BATCH_NORM, 5, (const sf_value[]){x, c, c, c, c}, 0, NULL);
  for (int32_t op = 0; op < sfi_op_count(); op++) {
    const sfi_op_info *info = sfi_op_of((sf_op)op);
    if (!info || !(info->flags & SF_OPF_ELEMENTWISE)) continue;
    x = sf_graph_op(g, (sf_op)op, info->min_inputs, (const sf_value[]){x, two, two}, 0, NULL);
  }
  const sf_attr kernel = {.id = SF_ATTR_KERNEL, .count = 2, .ints = two_three};
  sf_graph_output(g, NULL, sf_graph_op(g, SF_OP_MAX_POOL, 1, &x, 1, &kernel));
  sf_graph_output(g, NULL, sf_graph_op(g, SF_OP_AVG_POOL, 1, &x, 1, &kernel));
  sf_graph_output(g, "mean", sf_unary(g, SF_OP_GLOBAL_AVG_POOL, x));
  sf_value flat = sf_reshape(g, x, 2, (const int64_t[]){0, 144});
  flat = sf_graph_op(g, SF_OP_CONCAT, 2, (const sf_value[]){flat, flat}, 0, NULL);
  flat = sf_graph_op(g, SF_OP_SLICE, 1, &flat, 2,
                     (const sf_attr[]){{.id = SF_ATTR_STARTS, .count = 2, .ints = (const int64_t[]){0, 4}},
                                       {.id = SF_ATTR_ENDS, .count = 2, .ints = (const int64_t[]){INT64_MAX, 20}}});
  flat = sf_graph_op(g, SF_OP_PAD, 1, &flat, 2,
                     (const sf_attr[]){{.id = SF_ATTR_BEFORE, .count = 2, .ints = two_three},
                                       {.id = SF_ATTR_AFTER, .count = 2, .ints = two_three}});
  sf_value ids = sf_graph_input(g, "ids", SF_I64, 1, two_three);
  sf_value picked = sf_graph_op(g, SF_OP_GATHER, 2, (const sf_value[]){flat, ids}, 1, &(const sf_attr){.id = SF_ATTR_AXIS, .i = 1});
  sf_graph_output(g, NULL, sf_binary(g, SF_OP_ADD, picked, sf_unary(g, SF_OP_CAST, ids)));
  const sf_attr wide = {.id = SF_ATTR_SHAPE, .count = 1, .ints = (const int64_t[]){3}};
  sf_graph_output(g, NULL,
                  sf_graph_op(g, SF_OP_EXPAND, 1, (const sf_value[]){sf_reshape(g, two, 1, (const int64_t[]){1})}, 1, &wide));
  flat = sf_matmul(g, flat, sf_transpose(g, flat, 2, (const int64_t[]){1, 0}), false, false);
  flat = sf_unary(g, SF_OP_RMS_NORM, sf_unary(g, SF_OP_LAYER_NORM, sf_softmax(g, flat, -1)));
  sf_value heads = sf_graph_input(g, "heads", SF_F32, 4, (const int64_t[]){1, 2, SF_DIM_SYMBOLIC, 3});
  sf_graph_output(g, "attended", sf_graph_op(g, SF_OP_ATTENTION, 3, (const sf_value[]){heads, heads, heads}, 0, NULL));
  sf_value cache = sf_graph_input(g, "cache", SF_F32, 1, (const int64_t[]){9}), at = sf_graph_input(g, "at", SF_I64, 0, NULL);
  sf_value more = sf_reshape(g, two, 1, (const int64_t[]){1});
  sf_graph_output(g, "kept", sf_graph_op(g, SF_OP_APPEND, 3, (const sf_value[]){cache, more, at}, 0, NULL));
  const sf_attr axes = {.id = SF_ATTR_AXES, .count = 1, .ints = (const int64_t[]){1}};
  sf_graph_output(g, "sum", sf_graph_op(g, SF_OP_REDUCE_SUM, 1, &flat, 1, &axes));
  sf_graph_output(g, "average", sf_graph_op(g, SF_OP_REDUCE_MEAN, 1, &flat, 1, &axes));
  sf_graph_output(g, "top", sf_graph_op(g, SF_OP_REDUCE_MAX, 1, &flat, 1, &axes));
}

START_TEST(test_everything_builds) {
  build_everything(graph);
  sf_error error;
  sf_graph_error(graph, &error);
  ck_assert_str_eq(error.message, "");
  bool seen[64] = {false};
  for (size_t i = 0; i < graph->n_nodes; i++) seen[graph->nodes[i].op] = true;
  for (int32_t op = 0; op < sfi_op_count(); op++) ck_assert_msg(seen[op] || !sfi_op_of((sf_op)op), "operation %d", op);
  sfi_diag diag = {0};
  sfi_graph_verify(graph, &diag);
  ck_assert_str_eq(diag.error.message, "");
}
END_TEST

/* once: the k-th allocation alone fails; else it and all after it. The graph's name shifts where the arena needs a new block, so
 * that every place that takes from the arena meets a failure. */
static void out_of_memory(const char *name, bool once) {
  long live = memory.live, live_bytes = memory.live_bytes;
  for (long k = 1;; k++) {
    sf_graph *g = NULL;
    memory.calls = 0;
    memory.fail_at = k;
    memory.fail_from = once ? 0 : k;
    sf_status created = sf_graph_create(context, name, &g);
    if (created == SF_OK) build_everything(g);
    bool reached = memory.calls >= k;
    memory.fail_at = memory.fail_from = 0;
    sf_error error;
    if (reached) {
      ck_assert_int_eq(created == SF_OK ? sf_graph_status(g) : created, SF_STATUS_OUT_OF_MEMORY);
      ck_assert_int_eq(sf_context_take_error(context, &error), SF_STATUS_OUT_OF_MEMORY);
    } else {
      ck_assert_int_eq(sf_graph_status(g), SF_OK);
      ck_assert_int_eq(sf_context_take_error(context, &error), SF_OK);
    }
    sf_graph_release(g);
    ck_assert_int_eq(memory.live, live);
    ck_assert_int_eq(memory.live_bytes, live_bytes);
    if (!reached) {
      ck_assert_int_gt(k, 5);
      return;
    }
  }
}

START_TEST(test_out_of_memory) {
  char name[4096 + 1];
  for (size_t length = 0; length < sizeof name; length += 32) {
    memset(name, 'n', length);
    name[length] = 0;
    out_of_memory(name, true);
    out_of_memory(name, false);
  }
}
END_TEST

/* A message that needs memory and gets none says so. */
START_TEST(test_out_of_memory_in_a_message) {
  sf_value x = input_2_3("x");
  sf_unary(graph, SF_OP_RELU, x); /* the node array has room now */
  memory.fail_from = memory.calls + 1;
  sf_matmul(graph, x, x, false, false);
  expect_error(SF_STATUS_OUT_OF_MEMORY, "", "out of memory");
}
END_TEST

/* ---- verifier ----------------------------------------------------------------------------------------------------- */

/* x -> relu y -> softmax z, output; then each edit makes one rule false. */
static void build_chain(void) {
  sf_value y = sf_unary(graph, SF_OP_RELU, input_2_3("x"));
  sf_value z = sf_softmax(graph, y, -1);
  sf_graph_weight(graph, "w", SF_F32, 2, two_three, six, SF_COPY);
  sf_graph_output(graph, "z", z);
  ck_assert_int_eq(sf_graph_status(graph), SF_OK);
}

static void expect_rule(sf_status status, const char *message) {
  sfi_diag diag = {0};
  ck_assert_int_eq(sfi_graph_verify(graph, &diag), status);
  ck_assert_str_eq(diag.error.message, message);
  ck_assert_int_eq(sf_graph_status(graph), SF_OK); /* verifying is no building */
}

START_TEST(test_verify) {
  build_chain();
  sfi_node *nodes = graph->nodes, kept[4];
  memcpy(kept, nodes, sizeof kept);
#define EDIT(edit, status, message)                                                                                                \
  do {                                                                                                                             \
    edit;                                                                                                                          \
    expect_rule(status, message);                                                                                                  \
    memcpy(nodes, kept, sizeof kept);                                                                                              \
  } while (0)
  expect_rule(SF_OK, "");
  sf_value later = 2, itself = 1;
  EDIT(nodes[1].inputs = &later, SF_STATUS_INVALID_ARGUMENT, "relu: operand 1 is no earlier value of the graph");
  EDIT(nodes[1].inputs = &itself, SF_STATUS_INVALID_ARGUMENT, "relu: operand 1 is no earlier value of the graph");
  EDIT(nodes[1].op = (sf_op)99, SF_STATUS_INVALID_ARGUMENT, "unknown operation 99");
  EDIT(nodes[1].op = SF_OP_ADD, SF_STATUS_INVALID_GRAPH, "add: 1 operands, not 2");
  EDIT(nodes[1].dtype = SF_F64, SF_STATUS_INTERNAL,
       "relu: value 1 has not the shape that follows from its operands (operands [2,3])");
  EDIT(nodes[1].shape.dims[0].c[1] = 1, SF_STATUS_INTERNAL,
       "relu: value 1 has not the shape that follows from its operands (operands [2,3])");
  EDIT(nodes[1].shape.rank = 1, SF_STATUS_INTERNAL,
       "relu: value 1 has not the shape that follows from its operands (operands [2,3])");
  EDIT(nodes[0].dtype = SF_F64, SF_STATUS_UNSUPPORTED, "relu: operand 1 is f64, with which nothing computes yet (operands [2,3])");
  EDIT(nodes[0].dtype = (sf_dtype)50, SF_STATUS_INVALID_ARGUMENT, "input: unknown dtype 50");
  EDIT(nodes[0].shape.dims[1].c[2] = 1, SF_STATUS_INVALID_GRAPH,
       "input: extent 1 is neither a number >= 0 nor the symbolic dimension (shape [2,batch*batch+3])");
  EDIT(nodes[0].data = six, SF_STATUS_INVALID_GRAPH, "input: data is given, but is not known before a run (shape [2,3])");
  EDIT(nodes[1].bytes = 4, SF_STATUS_INVALID_GRAPH, "relu: data is given, but is not known before a run (operands [2,3])");
  EDIT(nodes[3].data = NULL, SF_STATUS_INVALID_GRAPH, "weight: no data (shape [2,3])");
  EDIT(nodes[3].bytes = 20, SF_STATUS_INVALID_GRAPH, "weight: the data is not as long as the shape (shape [2,3])");
  const sfi_attr_value far = {.i = 2}, missing = {.count = -1};
  EDIT(nodes[2].attrs = &far, SF_STATUS_INVALID_GRAPH, "softmax: axis 2 is outside rank 2 (operands [2,3])");
  EDIT(nodes[2].attrs = &missing, SF_STATUS_INVALID_GRAPH, "softmax: attribute 'axis' is missing (operands [2,3])");
  EDIT(nodes[0].name = NULL, SF_STATUS_INTERNAL, "input: value 0 is not registered or has no name");
  EDIT(nodes[3] = nodes[0], SF_STATUS_INTERNAL, "input: value 3 is not registered or has no name");
#undef EDIT
}
END_TEST

START_TEST(test_verify_ports) {
  build_chain();
  graph->outputs[0].value = 4;
  expect_rule(SF_STATUS_INVALID_GRAPH, "output: \"z\" is no value of the graph");
  graph->outputs[0].value = -1;
  expect_rule(SF_STATUS_INVALID_GRAPH, "output: \"z\" is no value of the graph");
  graph->outputs[0].value = 2;
  sf_value half = sf_graph_input(graph, "h", SF_F16, 0, NULL);
  graph->outputs[0].value = half;
  expect_rule(SF_STATUS_UNSUPPORTED, "output: \"z\" is f16, with which nothing computes yet");
  graph->outputs[0].value = 2;
  sf_graph_output(graph, "y", 1);
  graph->outputs[1].name = "z";
  expect_rule(SF_STATUS_INVALID_GRAPH, "output: a second one named \"z\"");
  graph->n_outputs = 0;
  expect_rule(SF_STATUS_INVALID_GRAPH, "the graph has no output");
  graph->nodes[half].name = "x";
  expect_rule(SF_STATUS_INVALID_GRAPH, "input: a second one named \"x\"");
  graph->inputs[1] = 0;
  expect_rule(SF_STATUS_INTERNAL, "input: value 4 is not registered or has no name");
  graph->n_nodes = 4;
  expect_rule(SF_STATUS_INTERNAL, "input: one is registered that is no node");
}
END_TEST

int main(void) {
  Suite *suite = suite_create("builder");
  TCase *all = tcase_create("builder");
  tcase_add_checked_fixture(all, setup, teardown);
  tcase_add_test(all, test_leaves);
  tcase_add_test(all, test_made_names_are_free);
  tcase_add_test(all, test_values_by_name);
  tcase_add_test(all, test_misaligned_data_is_copied);
  tcase_add_loop_test(all, test_bad_leaves, 0, SFI_COUNT(bad_leaves));
  tcase_add_test(all, test_input_names_are_unique);
  tcase_add_test(all, test_inputs_are_bounded);
  tcase_add_test(all, test_unknown_operation);
  tcase_add_test(all, test_leaf_is_no_operation);
  tcase_add_test(all, test_null_lists);
  tcase_add_test(all, test_negative_counts);
  tcase_add_test(all, test_operand_of_no_graph);
  tcase_add_test(all, test_no_value_is_no_operand);
  tcase_add_test(all, test_unknown_attribute);
  tcase_add_loop_test(all, test_mistyped_attributes, 0, SFI_COUNT(mistyped));
  tcase_add_test(all, test_dtypes_that_do_not_compute);
  tcase_add_test(all, test_defaults);
  tcase_add_test(all, test_shorthands);
  tcase_add_test(all, test_conv2d_options_of_another_version);
  tcase_add_test(all, test_output_of_no_value);
  tcase_add_test(all, test_output_twice_named);
  tcase_add_test(all, test_output_that_does_not_compute);
  tcase_add_test(all, test_outputs_are_bounded);
  tcase_add_test(all, test_first_error_stays);
  tcase_add_test(all, test_no_graph);
  tcase_add_test(all, test_places);
  tcase_add_test(all, test_new_like);
  tcase_add_test(all, test_everything_builds);
  tcase_add_test(all, test_out_of_memory);
  tcase_add_test(all, test_out_of_memory_in_a_message);
  tcase_add_test(all, test_verify);
  tcase_add_test(all, test_verify_ports);
  suite_add_tcase(suite, all);
  return run_suite(suite);
}
