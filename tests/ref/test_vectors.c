/* The reference back end against tests/ref/vectors: every operation's graph, run in fp64 and in fp32, each output compared with what
 * NumPy computed. The vectors' files are read by the library's own reader; make_vectors.py writes them. */
#include "compare.h"
#include "context.h"
#include "ref.h"
#include "weights_file.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#define VECTORS SFI_SOURCE_DIR "/tests/ref/vectors"

typedef struct vectors {
  sf_context *context;
  sf_graph *graph;
  sfi_mapping *file;
  int64_t symbol;
  sf_tensor *inputs, *outputs; /* the outputs' buffers are the test's, F64 wide */
} vectors;

static const sfi_tensor_entry *find(const vectors *v, const char *name) {
  const sfi_tensor_entry *entry = sfi_mapping_find(v->file, name);
  ck_assert_msg(entry != NULL, "%s has no tensor %s", v->graph->name, name);
  return entry;
}

static sf_tensor tensor_of(const sfi_tensor_entry *entry) {
  sf_tensor t = {.dtype = entry->dtype, .rank = entry->rank};
  memcpy(t.dims, entry->dims, sizeof t.dims);
  t.data = malloc(entry->bytes + 1);
  ck_assert_ptr_nonnull(t.data);
  memcpy(t.data, entry->data, entry->bytes); /* the file aligns nothing */
  return t;
}

static vectors open_vectors(const char *op) {
  char name[64], path[512];
  vectors v = {.symbol = 1};
  sfi_diag diag = {0};
  sf_error error;
  ck_assert_int_eq(sf_context_create(NULL, &v.context), SF_OK);
  snprintf(path, sizeof path, VECTORS "/%s.sft", op);
  sf_status st = sf_graph_parse_file(v.context, path, &v.graph);
  sf_context_take_error(v.context, &error);
  ck_assert_msg(st == SF_OK, "%s:%d: %s", error.file, error.line, error.message);
  snprintf(name, sizeof name, "%s.safetensors", op);
  ck_assert_msg(sfi_mapping_open(&v.context->allocator, VECTORS, name, &diag, &v.file) == SF_OK, "%s: %s", name,
                diag.error.message);
  v.inputs = calloc(v.graph->n_inputs + 1, sizeof *v.inputs);
  v.outputs = calloc(v.graph->n_outputs + 1, sizeof *v.outputs);
  ck_assert(v.inputs && v.outputs);
  for (size_t i = 0; i < v.graph->n_inputs; i++) {
    const sfi_node *node = &v.graph->nodes[v.graph->inputs[i]];
    v.inputs[i] = tensor_of(find(&v, node->name));
    for (int32_t d = 0; d < node->shape.rank; d++)
      if (!sfi_is_const(node->shape.dims[d])) v.symbol = v.inputs[i].dims[d];
  }
  for (size_t i = 0; i < v.graph->n_outputs; i++) v.outputs[i] = tensor_of(find(&v, v.graph->outputs[i].name));
  return v;
}

static void close_vectors(vectors *v) {
  for (size_t i = 0; i < v->graph->n_inputs; i++) free(v->inputs[i].data);
  for (size_t i = 0; i < v->graph->n_outputs; i++) free(v->outputs[i].data);
  free(v->inputs);
  free(v->outputs);
  sfi_mapping_release(v->file);
  sf_graph_release(v->graph);
  sf_context_release(v->context);
}

/* Every extent that shape inference gives must be the one NumPy found. */
static void check_shape(const vectors *v, size_t output) {
  const sfi_node *node = &v->graph->nodes[v->graph->outputs[output].value];
  const sf_tensor *want = &v->outputs[output];
  ck_assert_int_eq(node->shape.rank, want->rank);
  for (int32_t d = 0; d < want->rank; d++) {
    int64_t extent;
    ck_assert(sfi_poly_eval(node->shape.dims[d], v->symbol, &extent));
    ck_assert_msg(extent == want->dims[d], "%s: extent %d is %lld, not %lld", v->graph->outputs[output].name, d, (long long)extent,
                  (long long)want->dims[d]);
  }
}

static int64_t depth_of(const vectors *v, const sfi_node *node, const sf_tensor *output) {
  sf_tensor operands[16];
  for (int32_t i = 0; i < node->n_inputs; i++) {
    const sfi_shape *shape = &v->graph->nodes[node->inputs[i]].shape;
    operands[i].rank = shape->rank;
    for (int32_t d = 0; d < shape->rank; d++) ck_assert(sfi_poly_eval(shape->dims[d], v->symbol, &operands[i].dims[d]));
  }
  return sf_depth_of(node, operands, output);
}

static void check_operation(int id, sf_dtype precision) {
  const sfi_op_info *info = sfi_op_of((sf_op)id);
  if (!info || info->flags & SF_OPF_LEAF) return; /* a leaf computes nothing */
  const char *op = info->text;
  vectors v = open_vectors(op);
  sfi_diag diag = {0};
  sf_tensor *got = calloc(v.graph->n_outputs, sizeof *got);
  ck_assert_ptr_nonnull(got);
  ck_assert_uint_gt(v.graph->n_outputs, 0);
  for (size_t i = 0; i < v.graph->n_outputs; i++) {
    check_shape(&v, i);
    got[i] = v.outputs[i];
    got[i].dtype = precision;
    int64_t count = 1;
    for (int32_t d = 0; d < got[i].rank; d++) count *= got[i].dims[d];
    got[i].data = malloc((size_t)count * sizeof(double) + 1);
    ck_assert_ptr_nonnull(got[i].data);
    memset(got[i].data, 0xa5, (size_t)count * sizeof(double));
  }
  ck_assert_int_eq(sfi_ref_run(v.graph, &v.context->allocator, precision, v.symbol, v.inputs, got, &diag), SF_OK);
  for (size_t i = 0; i < v.graph->n_outputs; i++) {
    const sfi_node *node = &v.graph->nodes[v.graph->outputs[i].value];
    sf_comparison comparison;
    char text[256];
    bool same = sf_compare(&got[i], &v.outputs[i], node->op, depth_of(&v, node, &got[i]), &comparison);
    sf_comparison_print(&comparison, text, sizeof text);
    ck_assert_msg(same, "%s %s in %s: %s", op, v.graph->outputs[i].name, sfi_dtype_of(precision)->text, text);
    free(got[i].data);
  }
  free(got);
  close_vectors(&v);
}

START_TEST(agrees_in_f64) {
  check_operation(_i, SF_F64);
}
END_TEST

START_TEST(agrees_in_f32) {
  check_operation(_i, SF_F32);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("ref vectors");
  TCase *tests = tcase_create("operations");
  tcase_set_timeout(tests, 60);
  tcase_add_loop_test(tests, agrees_in_f64, 0, sfi_op_count());
  tcase_add_loop_test(tests, agrees_in_f32, 0, sfi_op_count());
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
