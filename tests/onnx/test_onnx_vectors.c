/* Models that make_models.py wrote, imported and run by the reference back end and as compiled programs, against what ONNX Runtime computed.
 * Without an argument the kept file, in which every operator of the importer's table and every operator set must be; else the file named:
 * fresh random ones. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "onnx_model.h"
#include "suite.h"
#include "weights_file.h"

enum { PORTS = 32 };
static const char *given; /* NULL: the kept file */

static const sfi_tensor_entry *find(const sfi_mapping *vectors, const char *name, int length, const char *kind, const char *port) {
  char text[256];
  snprintf(text, sizeof text, "%.*s/%s%s", length, name, kind, port);
  const sfi_tensor_entry *entry = sfi_mapping_find(vectors, text);
  ck_assert_msg(entry != NULL, "no tensor %s", text);
  return entry;
}

static sf_tensor tensor_of(const sfi_tensor_entry *entry) {
  sf_tensor tensor = {.data = (void *)entry->data, .dtype = entry->dtype, .rank = entry->rank};
  memcpy(tensor.dims, entry->dims, sizeof tensor.dims);
  return tensor;
}

static int64_t count_of(const sf_tensor *tensor) {
  int64_t count = 1;
  for (int32_t i = 0; i < tensor->rank; i++) count *= tensor->dims[i];
  return count;
}

/* Sums in another order differ by some roundings of what they sum; nothing here sums more than a few dozen numbers. */
static bool check_close(const char *name, const char *how, const sf_tensor *got, const sf_tensor *want) {
  const float *a = got->data, *b = want->data;
  double most = 1;
  for (int64_t i = 0; i < count_of(want); i++) most = isfinite(b[i]) && fabsf(b[i]) > most ? fabsf(b[i]) : most;
  for (int64_t i = 0; i < count_of(want); i++) {
    bool same = isnan(b[i]) ? isnan(a[i]) : isinf(b[i]) ? a[i] == b[i] : fabs((double)a[i] - (double)b[i]) <= 1e-5 * most;
    if (same) continue;
    printf("%s, %s: element %lld is %.9g, not %.9g\n", name, how, (long long)i, (double)a[i], (double)b[i]);
    return false;
  }
  return true;
}

static bool report(sf_context *context, const char *name, const char *how) {
  sf_error error;
  sf_context_take_error(context, &error);
  printf("%s, %s: %s\n", name, how, error.message);
  return false;
}

static bool run(sf_context *context, const sf_graph *graph, const sfi_mapping *vectors, const char *name, int length,
                const char *how) {
  sf_program *program;
  sf_tensor in[PORTS], out[PORTS], want[PORTS];
  sf_tensor_info info;
  if (sf_compile(context, graph, NULL, &program, NULL) != SF_OK) return report(context, name, how);
  int32_t n_in = sf_program_input_count(program), n_out = sf_program_output_count(program);
  ck_assert(n_in <= PORTS && n_out <= PORTS);
  for (int32_t i = 0; i < n_in; i++) {
    ck_assert_int_eq(sf_program_input_info(program, i, &info), SF_OK);
    in[i] = tensor_of(find(vectors, name, length, "in:", info.name));
  }
  for (int32_t i = 0; i < n_out; i++) {
    ck_assert_int_eq(sf_program_output_info(program, i, &info), SF_OK);
    out[i] = want[i] = tensor_of(find(vectors, name, length, "out:", info.name));
    size_t bytes = (size_t)count_of(&want[i]) * sizeof(float);
    out[i].data = malloc(bytes + 1);
    memset(out[i].data, 0xa5, bytes);
  }
  bool good = sf_run(program, n_in, in, n_out, out) == SF_OK || report(context, name, how);
  for (int32_t i = 0; i < n_out; i++) {
    good = good && check_close(name, how, &out[i], &want[i]);
    free(out[i].data);
  }
  sf_program_release(program);
  return good;
}

static sf_context *context_for(sf_isa isa) {
  sf_context_options options;
  sf_context *context;
  SF_INIT(&options);
  options.isa = isa;
  options.cache_dir = "";
  ck_assert_int_eq(sf_context_create(&options, &context), SF_OK);
  return context;
}

/* What sf_graph_to_onnx writes, in memory. */
typedef struct bytes {
  char *data;
  size_t size;
} bytes;

static bool keep(void *user, const char *data, size_t size) {
  bytes *b = user;
  b->data = realloc(b->data, b->size + size + 1);
  ck_assert_ptr_nonnull(b->data);
  memcpy(b->data + b->size, data, size);
  b->size += size;
  return true;
}

/* The model that export makes of the graph computes the same. */
static bool run_exported(sf_context *context, const sf_graph *graph, const sfi_mapping *vectors, const char *name, int length) {
  bytes written = {0};
  sf_graph *again = NULL;
  bool good = sf_graph_to_onnx(graph, keep, &written) == SF_OK &&
              sf_graph_from_onnx(context, written.data, written.size, "exported", NULL, NULL, &again) == SF_OK;
  good = good ? run(context, again, vectors, name, length, "exported") : report(context, name, "export");
  sf_graph_release(again);
  free(written.data);
  return good;
}

/* A model is called after the operator that it is for, OPERATOR_..., which it must have. */
typedef struct coverage {
  const char *operator;
  int models;
} coverage;
static coverage operators[] = {
#define ONNX_OP(name, import, arg, min, max, attributes, doc) {#name, 0},
#include "onnx_operators.def"
#undef ONNX_OP
};
enum { OPSET_FIRST = 13, OPSET_LAST = 21 };
static int opsets[OPSET_LAST + 1];

static void note_coverage(const sfi_tensor_entry *entry) {
  sfi_arena arena = {.allocator = &sfi_default_allocator};
  sfi_diag diag = {0};
  onnx_model model;
  ck_assert_int_eq(sfi_onnx_read(&arena, entry->data, entry->bytes, entry->name, &diag, &model), SF_OK);
  int64_t opset = ONNX_AT(model.operator_sets, onnx_operator_set, 0).version;
  ck_assert(opset >= OPSET_FIRST && opset <= OPSET_LAST);
  opsets[opset]++;
  for (size_t k = 0; k < SFI_COUNT(operators); k++) {
    size_t length = strlen(operators[k].operator);
    bool there = false;
    if (strncmp(entry->name, operators[k].operator, length) != 0 || entry->name[length] != '_') continue;
    for (size_t i = 0; i < model.nodes.count; i++)
      there |= strcmp(ONNX_AT(model.nodes, onnx_node, i).op_type, operators[k].operator) == 0;
    operators[k].models += there;
  }
  sfi_arena_deinit(&arena);
}

START_TEST(models_compute_what_onnx_runtime_computes) {
  static const char suffix[] = "/model";
  sfi_mapping *vectors;
  sfi_diag diag = {0};
  int count = 0, failures = 0;
  sf_status opened = sfi_mapping_open(&sfi_default_allocator, NULL,
                                      given ? given : SFI_SOURCE_DIR "/tests/onnx/vectors.safetensors", &diag, &vectors);
  ck_assert_msg(opened == SF_OK, "%s", diag.error.message);
  sf_context *contexts[] = {context_for(SF_ISA_REFERENCE), context_for(SF_ISA_NATIVE)};
  for (size_t i = 0; i < sfi_mapping_count(vectors); i++) {
    const sfi_tensor_entry *entry = sfi_mapping_at(vectors, i);
    int length = (int)strlen(entry->name) - (int)strlen(suffix);
    if (length <= 0 || strcmp(entry->name + length, suffix) != 0) continue;
    count++;
    note_coverage(entry);
    for (int k = 0; k < 2; k++) {
      sf_graph *graph;
      if (sf_graph_from_onnx(contexts[k], entry->data, entry->bytes, "model", NULL, NULL, &graph) != SF_OK)
        failures += !report(contexts[k], entry->name, "import");
      else
        failures += !run(contexts[k], graph, vectors, entry->name, length, k ? "compiled" : "reference") ||
                    !run_exported(contexts[0], graph, vectors, entry->name, length);
      sf_graph_release(graph);
    }
  }
  printf("%d models\n", count);
  ck_assert_int_gt(count, 0);
  ck_assert_int_eq(failures, 0);
  for (int k = 0; k < 2; k++) sf_context_release(contexts[k]);
  sfi_mapping_release(vectors);
  for (size_t k = 0; k < SFI_COUNT(operators) && !given; k++)
    ck_assert_msg(operators[k].models >= 2, "%d models of %s", operators[k].models, operators[k].operator);
  for (int i = OPSET_FIRST; i <= OPSET_LAST && !given; i++) ck_assert_msg(opsets[i] > 0, "no model of operator set %d", i);
}
END_TEST

int main(int argc, char **argv) {
  if (argc > 1) given = argv[1];
  Suite *suite = suite_create("onnx_vectors");
  TCase *tests = tcase_create("vectors");
  tcase_set_timeout(tests, 0);
  tcase_add_test(tests, models_compute_what_onnx_runtime_computes);
  suite_add_tcase(suite, tests);
  return run_suite(suite);
}
