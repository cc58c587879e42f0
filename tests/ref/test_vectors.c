/* The reference back end, in fp64 and in fp32, and compiled programs against tests/ref/vectors: every operation's graph, each output
 * compared with what NumPy computed. The vectors' files are read by the library's own reader; make_vectors.py writes them. */
#include "bound.h"
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

/* False: this machine lacks the instruction set. */
static bool open_vectors(const char *op, sf_isa isa, vectors *out) {
  char name[64], path[512];
  vectors v = {.symbol = 1};
  sfi_diag diag = {0};
  sf_error error;
  sf_context_options options;
  SF_INIT(&options);
  options.isa = isa;
  options.cache_dir = "";
  sf_status created = sf_context_create(&options, &v.context);
  if (created == SF_STATUS_UNSUPPORTED) return false;
  ck_assert_int_eq(created, SF_OK);
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
  *out = v;
  return true;
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

/* The text of an operation that computes; NULL for a leaf. */
static const char *operation(int id) {
  const sfi_op_info *info = sfi_op_of((sf_op)id);
  return info && !(info->flags & SF_OPF_LEAF) ? info->text : NULL;
}

/* Poisoned tensors of the outputs' shapes. */
static sf_tensor *make_results(const vectors *v, sf_dtype dtype) {
  sf_tensor *results = calloc(v->graph->n_outputs, sizeof *results);
  ck_assert_ptr_nonnull(results);
  ck_assert_uint_gt(v->graph->n_outputs, 0);
  for (size_t i = 0; i < v->graph->n_outputs; i++) {
    int64_t count = 1;
    results[i] = v->outputs[i];
    results[i].dtype = dtype;
    for (int32_t d = 0; d < results[i].rank; d++) count *= results[i].dims[d];
    size_t bytes = (size_t)count * sfi_dtype_of(dtype)->bytes + 1;
    results[i].data = malloc(bytes);
    ck_assert_ptr_nonnull(results[i].data);
    memset(results[i].data, 0xa5, bytes);
  }
  return results;
}

static void free_results(const vectors *v, sf_tensor *results) {
  for (size_t i = 0; i < v->graph->n_outputs; i++) free(results[i].data);
  free(results);
}

static void check_same(bool same, const vectors *v, size_t output, const sf_comparison *comparison, const char *how) {
  char text[256];
  sf_comparison_print(comparison, text, sizeof text);
  ck_assert_msg(same, "%s %s, %s: %s", v->graph->name, v->graph->outputs[output].name, how, text);
}

static void check_reference(int id, sf_dtype precision) {
  vectors v;
  sfi_diag diag = {0};
  if (!operation(id)) return;
  ck_assert(open_vectors(operation(id), SF_ISA_REFERENCE, &v));
  sf_tensor *got = make_results(&v, precision);
  for (size_t i = 0; i < v.graph->n_outputs; i++) check_shape(&v, i);
  ck_assert_int_eq(sfi_ref_run(v.graph, &v.context->allocator, precision, v.symbol, v.inputs, got, &diag), SF_OK);
  for (size_t i = 0; i < v.graph->n_outputs; i++) {
    const sfi_node *node = &v.graph->nodes[v.graph->outputs[i].value];
    sf_comparison comparison;
    bool same = sf_compare(&got[i], &v.outputs[i], node->op, depth_of(&v, node, &got[i]), &comparison);
    check_same(same, &v, i, &comparison, sfi_dtype_of(precision)->text);
  }
  free_results(&v, got);
  close_vectors(&v);
}

/* Each element within its own error bound of NumPy's. */
static void check_compiled(int id, sf_isa isa, int32_t level) {
  static const int64_t one_class[] = {4};
  vectors v;
  sf_program *program;
  sf_error error = {0};
  sf_compile_options options;
  if (!operation(id) || !open_vectors(operation(id), isa, &v)) return;
  SF_INIT(&options);
  options.error = &error;
  options.opt_level = level + 1;
  options.classes = one_class;
  options.n_classes = (int32_t)SFI_COUNT(one_class);
  sf_tensor *got = make_results(&v, SF_F32), *want = make_results(&v, SF_F64), *bound = make_results(&v, SF_F64);
  ck_assert(sf_bounded_run(v.graph, v.symbol, v.inputs, want, bound));
  ck_assert_msg(sf_compile(v.context, v.graph, &options, &program, NULL) == SF_OK, "%s: %s", error.op, error.message);
  ck_assert_int_eq(sf_run(program, (int32_t)v.graph->n_inputs, v.inputs, (int32_t)v.graph->n_outputs, got), SF_OK);
  for (size_t i = 0; i < v.graph->n_outputs; i++) {
    sf_comparison comparison;
    bool same = sf_compare_bounded(&got[i], &v.outputs[i], &bound[i], &comparison);
    check_same(same, &v, i, &comparison, "compiled");
  }
  free_results(&v, got);
  free_results(&v, want);
  free_results(&v, bound);
  sf_program_release(program);
  close_vectors(&v);
}

START_TEST(agrees_in_f64) {
  check_reference(_i, SF_F64);
}
END_TEST

START_TEST(agrees_in_f32) {
  check_reference(_i, SF_F32);
}
END_TEST

START_TEST(agrees_compiled) {
  static const sf_isa isas[] = {SF_ISA_REFERENCE, SF_ISA_AVX2, SF_ISA_AVX512, SF_ISA_NEON};
  for (size_t k = 0; k < SFI_COUNT(isas); k++) check_compiled(_i, isas[k], 2);
}
END_TEST

START_TEST(agrees_compiled_without_fusion) {
  check_compiled(_i, SF_ISA_NATIVE, 0);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("vectors");
  TCase *tests = tcase_create("operations");
  tcase_set_timeout(tests, 300);
  tcase_add_loop_test(tests, agrees_in_f64, 0, sfi_op_count());
  tcase_add_loop_test(tests, agrees_in_f32, 0, sfi_op_count());
  tcase_add_loop_test(tests, agrees_compiled, 0, sfi_op_count());
  tcase_add_loop_test(tests, agrees_compiled_without_fusion, 0, sfi_op_count());
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
