/* The reference back end, in fp64 and in fp32, and compiled programs against tests/ref/vectors: every operation's graph, each output
 * compared with what NumPy computed. The vectors' files are read by the library's own reader; make_vectors.py writes them. */
#include "bound.h"
#include "compare.h"
#include "context.h"
#include "ref.h"
#include "ref_vectors.h"
#include "suite.h"

#include <stdio.h>
#include <stdlib.h>

/* Every extent that shape inference gives must be the one NumPy found. */
static void check_shape(const sf_vectors *v, size_t output) {
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

static int64_t depth_of(const sf_vectors *v, const sfi_node *node, const sf_tensor *output) {
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
static sf_tensor *make_results(const sf_vectors *v, sf_dtype dtype) {
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

static void free_results(const sf_vectors *v, sf_tensor *results) {
  for (size_t i = 0; i < v->graph->n_outputs; i++) free(results[i].data);
  free(results);
}

static void check_same(bool same, const sf_vectors *v, size_t output, const sf_comparison *comparison, const char *how) {
  char text[256];
  sf_comparison_print(comparison, text, sizeof text);
  ck_assert_msg(same, "%s %s, %s: %s", v->graph->name, v->graph->outputs[output].name, how, text);
}

static void check_reference(int id, sf_dtype precision) {
  sf_vectors v;
  sfi_diag diag = {0};
  if (!operation(id)) return;
  ck_assert(sf_vectors_open(operation(id), SF_ISA_REFERENCE, &v));
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
  sf_vectors_close(&v);
}

/* Each element within its own error bound of NumPy's. */
static void check_compiled(int id, sf_isa isa, int32_t level) {
  static const int64_t one_class[] = {4};
  sf_vectors v;
  sf_program *program;
  sf_error error = {0};
  sf_compile_options options;
  if (!operation(id) || !sf_vectors_open(operation(id), isa, &v)) return;
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
  sf_vectors_close(&v);
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
  return run_suite(suite);
}
