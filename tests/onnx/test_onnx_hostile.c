/* ONNX files that are wrong: cut anywhere, any byte changed, out of memory at any allocation, and models that say impossible things. Each is a
 * status with a message, nothing is leaked, and memory stays bounded. */
#include "failing_allocator.h"
#include "weights_file.h"
#include "suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static failing_allocator memory;
static sf_allocator allocator;
static sf_context *context;
static sf_error error;

/* ---- a model, byte by byte ---------------------------------------------------------------------------------------- */

typedef struct bytes {
  uint8_t data[4096];
  size_t size;
} bytes;

static void varint(bytes *b, uint64_t value) {
  for (; value > 127; value >>= 7) b->data[b->size++] = (uint8_t)(value | 128);
  b->data[b->size++] = (uint8_t)value;
}
static void number(bytes *b, int field, int64_t value) {
  varint(b, (uint64_t)field << 3);
  varint(b, (uint64_t)value);
}
static void blob(bytes *b, int field, const void *data, size_t size) {
  varint(b, (uint64_t)field << 3 | 2);
  varint(b, size);
  memcpy(b->data + b->size, data, size);
  b->size += size;
}
static void text(bytes *b, int field, const char *string) {
  blob(b, field, string, strlen(string));
}
static void message(bytes *b, int field, const bytes *inner) {
  blob(b, field, inner->data, inner->size);
}

static bytes node(const char *op, const char *in0, const char *in1, const char *out) {
  bytes n = {0};
  text(&n, 1, in0);
  if (in1) text(&n, 1, in1);
  text(&n, 2, out);
  text(&n, 3, "the node");
  text(&n, 4, op);
  return n;
}

/* fp32 with the extents given, -1 for a dimension named "n". */
static bytes port(const char *name, int rank, const int64_t *dims) {
  bytes shape = {0}, tensor = {0}, type = {0}, info = {0};
  for (int i = 0; i < rank; i++) {
    bytes dim = {0};
    if (dims[i] == -1)
      text(&dim, 2, "n");
    else
      number(&dim, 1, dims[i]);
    message(&shape, 1, &dim);
  }
  number(&tensor, 1, 1);
  message(&tensor, 2, &shape);
  message(&type, 1, &tensor);
  text(&info, 1, name);
  message(&info, 2, &type);
  return info;
}

/* A tensor "w": `elements` of raw bytes follow. */
static bytes tensor(int64_t type, int rank, const int64_t *dims, size_t raw) {
  static const uint8_t zeros[64];
  bytes t = {0};
  for (int i = 0; i < rank; i++) number(&t, 1, dims[i]);
  number(&t, 2, type);
  text(&t, 8, "w");
  if (raw) blob(&t, 9, zeros, raw);
  return t;
}

static bytes external(const char *location, const char *offset, const char *length) {
  bytes t = tensor(1, 1, (int64_t[]){4}, 0);
  const char *const pairs[][2] = {{"location", location}, {"offset", offset}, {"length", length}};
  for (int i = 0; i < 3; i++) {
    bytes entry = {0};
    text(&entry, 1, pairs[i][0]);
    text(&entry, 2, pairs[i][1]);
    message(&t, 13, &entry);
  }
  number(&t, 14, 1);
  return t;
}

/* Graph of one or two nodes; NULL: none. */
static bytes model(const bytes *first, const bytes *second, const bytes *weight, const bytes *input, int64_t opset) {
  bytes graph = {0}, set = {0}, out = {0}, y = port("y", 1, (int64_t[]){4}), x = port("x", 1, (int64_t[]){4});
  message(&graph, 1, first);
  if (second) message(&graph, 1, second);
  if (weight) message(&graph, 5, weight);
  message(&graph, 11, input ? input : &x);
  message(&graph, 12, &y);
  number(&set, 2, opset);
  number(&out, 1, 8);
  message(&out, 7, &graph);
  message(&out, 8, &set);
  return out;
}

/* ---- opening ------------------------------------------------------------------------------------------------------ */

static sf_status open_bytes(const void *data, size_t size, const char *folder, const sf_onnx_options *options) {
  sf_graph *graph;
  void *exact = malloc(size ? size : 1); /* the sanitizers see a read past it */
  memcpy(exact, data, size);
  sf_status status = sf_graph_from_onnx(context, exact, size, "m.onnx", folder, options, &graph);
  ck_assert((status == SF_OK) == (graph != NULL));
  ck_assert_int_eq(sf_context_take_error(context, &error), status);
  if (status != SF_OK) ck_assert(error.message[0]);
  sf_graph_release(graph);
  free(exact);
  return status;
}

static void refused(const bytes *m, const char *folder, sf_status status, const char *why) {
  sf_status got = open_bytes(m->data, m->size, folder, NULL);
  ck_assert_msg(got == status && strstr(error.message, why), "%d \"%s\" in place of %d \"%s\"", got, error.message, status, why);
}

static void setup(void) {
  memory = (failing_allocator){0};
  allocator = failing_allocator_of(&memory);
  sf_context_options options;
  SF_INIT(&options);
  options.allocator = &allocator;
  options.isa = SF_ISA_REFERENCE;
  options.cache_dir = "";
  ck_assert_int_eq(sf_context_create(&options, &context), SF_OK);
}

static void teardown(void) {
  sf_context_release(context);
  ck_assert_int_eq(memory.live, 0);
}

/* Does a model make a square of two symbolic dimensions at import? That takes 40 ms, too long for thousands of variants of one file. */
static bool makes_squares(const char *name) {
  static const char *const some[] = {"Trilu_causal", "Range_causal", "IsNaN_guarded"};
  bool found = false;
  for (size_t i = 0; i < sizeof some / sizeof *some; i++) found |= strncmp(name, some[i], strlen(some[i])) == 0;
  return found;
}

/* Each of the kept models in turn, as bytes. */
static void each_model(void (*each)(const uint8_t *data, size_t size), size_t stride) {
  sfi_mapping *vectors;
  sfi_diag diag = {0};
  ck_assert_int_eq(sfi_mapping_open(&sfi_default_allocator, SFI_SOURCE_DIR "/tests/onnx/", "vectors.safetensors", &diag, &vectors),
                   SF_OK);
  size_t n = 0;
  for (size_t i = 0; i < sfi_mapping_count(vectors); i++) {
    const sfi_tensor_entry *entry = sfi_mapping_at(vectors, i);
    size_t length = strlen(entry->name);
    if (length < 6 || strcmp(entry->name + length - 6, "/model") != 0 || makes_squares(entry->name)) continue;
    if (n++ % stride == 0) each(entry->data, entry->bytes);
  }
  ck_assert_uint_gt(n, stride);
  sfi_mapping_release(vectors);
}

/* ---- files -------------------------------------------------------------------------------------------------------- */

static void cut_everywhere(const uint8_t *data, size_t size) {
  for (size_t i = 0; i < size; i++) open_bytes(data, i, NULL, NULL);
}

static void change_everywhere(const uint8_t *data, size_t size) {
  uint8_t *copy = malloc(size);
  memcpy(copy, data, size);
  for (size_t i = 0; i < size; i++) {
    const uint8_t others[] = {0, 0xff, data[i] ^ 1, data[i] ^ 0x80};
    for (size_t k = 0; k < sizeof others; k++) {
      copy[i] = others[k];
      memory.peak_bytes = 0;
      open_bytes(copy, size, NULL, NULL);
      ck_assert_int_lt(memory.peak_bytes, 256L << 20);
    }
    copy[i] = data[i];
  }
  free(copy);
}

static void fail_everywhere(const uint8_t *data, size_t size) {
  long before = memory.live;
  for (long at = 1;; at++) {
    memory.calls = 0;
    memory.fail_at = at;
    sf_status status = open_bytes(data, size, NULL, NULL);
    long calls = memory.calls;
    memory.fail_at = 0;
    ck_assert_int_eq(memory.live, before);
    if (calls < at) break;
    ck_assert(status == SF_STATUS_OUT_OF_MEMORY || status == SF_OK); /* a name that is left away is no failure */
  }
}

START_TEST(a_cut_file_is_no_crash) {
  each_model(cut_everywhere, 7);
}
END_TEST
START_TEST(a_changed_byte_is_no_crash) {
  each_model(change_everywhere, 11);
}
END_TEST
START_TEST(running_out_of_memory_is_said) {
  each_model(fail_everywhere, 9);
}
END_TEST

/* ---- models ------------------------------------------------------------------------------------------------------- */

START_TEST(impossible_models_are_refused) {
  bytes relu = node("Relu", "x", NULL, "y"), m;
  m = model(&relu, NULL, NULL, NULL, 17);
  ck_assert_int_eq(open_bytes(m.data, m.size, NULL, NULL), SF_OK);
  m = model(&relu, NULL, NULL, NULL, 12);
  refused(&m, NULL, SF_STATUS_UNSUPPORTED, "operator set 12: 13 to 21");
  m = model(&relu, NULL, NULL, NULL, 22);
  refused(&m, NULL, SF_STATUS_UNSUPPORTED, "operator set 22");
  m = model(&relu, NULL, NULL, NULL, INT64_MIN);
  refused(&m, NULL, SF_STATUS_UNSUPPORTED, "operator set -");
  bytes unknown = node("Frobnicate", "x", NULL, "y");
  m = model(&unknown, NULL, NULL, NULL, 17);
  refused(&m, NULL, SF_STATUS_UNSUPPORTED, "node 1 \"the node\" (Frobnicate): the operator is not known");
  ck_assert_int_eq(error.line, 1);
  bytes self = node("Add", "x", "y", "y");
  m = model(&self, NULL, NULL, NULL, 17);
  refused(&m, NULL, SF_STATUS_INVALID_GRAPH, "operand \"y\" is made by nothing before it: a cycle");
  bytes forth = node("Add", "x", "y", "a"), back = node("Relu", "a", NULL, "y");
  m = model(&forth, &back, NULL, NULL, 17);
  refused(&m, NULL, SF_STATUS_INVALID_GRAPH, "a cycle");
  m = model(&relu, &relu, NULL, NULL, 17);
  refused(&m, NULL, SF_STATUS_INVALID_GRAPH, "a second value named \"y\"");
  bytes few = node("Add", "x", NULL, "y");
  m = model(&few, NULL, NULL, NULL, 17);
  refused(&m, NULL, SF_STATUS_INVALID_GRAPH, "1 operands, not 2 to 2");
  bytes odd = port("x", 1, (int64_t[]){-5});
  m = model(&relu, NULL, NULL, &odd, 17);
  refused(&m, NULL, SF_STATUS_INVALID_GRAPH, "input \"x\": extent -5");
  bytes deep = port("x", 40, (int64_t[40]){1});
  m = model(&relu, NULL, NULL, &deep, 17);
  refused(&m, NULL, SF_STATUS_UNSUPPORTED, "40 dimensions are more than 6");
  bytes huge = port("x", 2, (int64_t[]){INT64_MAX / 2, 3});
  m = model(&relu, NULL, NULL, &huge, 17);
  refused(&m, NULL, SF_STATUS_INVALID_GRAPH, "input \"x\": input: too many elements in the result");
  bytes other = port("x", 1, (int64_t[]){5}), add = node("Add", "x", "w", "y"), w = tensor(1, 1, (int64_t[]){4}, 16);
  m = model(&add, NULL, &w, &other, 17);
  refused(&m, NULL, SF_STATUS_INVALID_GRAPH, "node 1 \"the node\" (Add): the shapes do not broadcast");
  bytes both = port("x", 2, (int64_t[]){4, 3}), product = node("MatMul", "x", "w", "y");
  m = model(&product, NULL, &w, &both, 17);
  refused(&m, NULL, SF_STATUS_INVALID_GRAPH, "node 1 \"the node\" (MatMul): ");
  ck_assert_int_eq(error.line, 1);
  bytes nothing = node("Relu", "x", NULL, "z");
  m = model(&nothing, NULL, NULL, NULL, 17);
  refused(&m, NULL, SF_STATUS_INVALID_GRAPH, "output \"y\" is made by no node");
  bytes foreign = node("Relu", "x", NULL, "y");
  text(&foreign, 7, "com.example");
  m = model(&foreign, NULL, NULL, NULL, 17);
  refused(&m, NULL, SF_STATUS_UNSUPPORTED, "node 1 \"the node\" (Relu): no operator of domain \"com.example\" is known");
}
END_TEST

START_TEST(impossible_tensors_are_refused) {
  bytes add = node("Add", "x", "w", "y"), w, m;
  w = tensor(1, 1, (int64_t[]){4}, 16);
  m = model(&add, NULL, &w, NULL, 17);
  ck_assert_int_eq(open_bytes(m.data, m.size, NULL, NULL), SF_OK);
  w = tensor(1, 1, (int64_t[]){5}, 16);
  m = model(&add, NULL, &w, NULL, 17);
  refused(&m, NULL, SF_STATUS_MALFORMED_FILE, "tensor \"w\": 16 bytes, but type and shape ask for 20");
  w = tensor(1, 3, (int64_t[]){INT64_MAX, INT64_MAX, 4}, 16);
  m = model(&add, NULL, &w, NULL, 17);
  refused(&m, NULL, SF_STATUS_MALFORMED_FILE, "its shape overflows");
  w = tensor(1, 1, (int64_t[]){INT64_C(1) << 60}, 16);
  m = model(&add, NULL, &w, NULL, 17);
  refused(&m, NULL, SF_STATUS_MALFORMED_FILE, "its shape overflows");
  w = tensor(1, 1, (int64_t[]){-4}, 16);
  m = model(&add, NULL, &w, NULL, 17);
  refused(&m, NULL, SF_STATUS_MALFORMED_FILE, "its shape overflows");
  w = tensor(8, 1, (int64_t[]){1}, 4);
  m = model(&add, NULL, &w, NULL, 17);
  refused(&m, NULL, SF_STATUS_UNSUPPORTED, "elements of ONNX type 8");
  w = tensor(7, 1, (int64_t[]){4}, 32);
  m = model(&add, NULL, &w, NULL, 17);
  refused(&m, NULL, SF_STATUS_UNSUPPORTED, "operand \"w\" is computed with as integers");
  w = tensor(1, 7, (int64_t[]){1, 1, 1, 1, 1, 1, 4}, 16);
  m = model(&add, NULL, &w, NULL, 17);
  refused(&m, NULL, SF_STATUS_UNSUPPORTED, "7 dimensions are more than 6");
}
END_TEST

START_TEST(external_data_stays_in_the_folder) {
  char folder[64], path[96];
  bytes add = node("Add", "x", "w", "y"), w, m;
  static const char *const links[][2] = {{"w.bin", "inside"}, {"/etc/passwd", "outside"}, {"/", "root"}, {"/dev/zero", "device"}};
  make_folder(folder);
  for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
    snprintf(path, sizeof path, "%s/%s", folder, links[i][1]);
    ck_assert_int_eq(symlink(links[i][0], path), 0);
  }
  snprintf(path, sizeof path, "%s/sub", folder);
  ck_assert_int_eq(mkdir(path, 0700), 0);
  snprintf(path, sizeof path, "%s/w.bin", folder);
  FILE *file = fopen(path, "wb");
  ck_assert_uint_eq(fwrite("0123456789abcdef0123", 1, 20, file), 20);
  fclose(file);
  static const struct {
    const char *location, *offset, *length;
    sf_status status;
    const char *why;
  } rows[] = {
      {"w.bin", "4", "16", SF_OK, ""},
      {"./w.bin", "0", "16", SF_OK, ""},
      {"w.bin", "5", "16", SF_STATUS_MALFORMED_FILE, "its bytes leave the 20 of \"w.bin\""},
      {"w.bin", "9223372036854775806", "16", SF_STATUS_MALFORMED_FILE, "its bytes leave"},
      {"w.bin", "-4", "16", SF_STATUS_MALFORMED_FILE, "its external offset is no number"},
      {"w.bin", "0", "12", SF_STATUS_MALFORMED_FILE, "12 external bytes, but type and shape ask for 16"},
      {"none.bin", "0", "16", SF_STATUS_NOT_FOUND, "tensor \"w\": external \"none.bin\": there is no such file"},
      {"../w.bin", "0", "16", SF_STATUS_INVALID_GRAPH, "tensor \"w\": external \"../w.bin\": a file beside the graph is wanted"},
      {"sub/../w.bin", "0", "16", SF_STATUS_INVALID_GRAPH, "inside its folder"},
      {"sub/../../w.bin", "0", "16", SF_STATUS_INVALID_GRAPH, "inside its folder"},
      {"sub//../w.bin", "0", "16", SF_STATUS_INVALID_GRAPH, "inside its folder"},
      {"sub", "0", "16", SF_STATUS_IO_ERROR, "is not a regular file"},
      /* Links are refused, as ONNX's own checker does, even those that stay inside. */
      {"inside", "0", "16", SF_STATUS_INVALID_GRAPH, "symbolic links are refused"},
      {"outside", "0", "16", SF_STATUS_INVALID_GRAPH, "symbolic links are refused"},
      {"root/etc/passwd", "0", "16", SF_STATUS_INVALID_GRAPH, "symbolic links are refused"},
      {"device", "0", "16", SF_STATUS_INVALID_GRAPH, "symbolic links are refused"},
      {"/etc/passwd", "0", "16", SF_STATUS_INVALID_GRAPH, "inside its folder"},
      {"", "0", "16", SF_STATUS_INVALID_GRAPH, "inside its folder"}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    w = external(rows[i].location, rows[i].offset, rows[i].length);
    m = model(&add, NULL, &w, NULL, 17);
    if (rows[i].status == SF_OK)
      ck_assert_int_eq(open_bytes(m.data, m.size, folder, NULL), SF_OK);
    else
      refused(&m, folder, rows[i].status, rows[i].why);
  }
  refused(&m, NULL, SF_STATUS_NOT_FOUND, "a model in memory has no external data");
  /* Six tensors of sixteen bytes each out of a file of twenty. */
  bytes graph = {0}, set = {0}, out = {0}, y = port("y", 1, (int64_t[]){4}), x = port("x", 1, (int64_t[]){4});
  message(&graph, 1, &add);
  for (int i = 0; i < 6; i++) {
    w = external("w.bin", "0", "16");
    *(char *)memchr(w.data, 'w', w.size) = (char)('w' - i); /* its name comes first */
    message(&graph, 5, &w);
  }
  message(&graph, 11, &x);
  message(&graph, 12, &y);
  number(&set, 2, 17);
  number(&out, 1, 8);
  message(&out, 7, &graph);
  message(&out, 8, &set);
  refused(&out, folder, SF_STATUS_MALFORMED_FILE, "more than 4 times what the external files hold");
  remove_tree(folder);
}
END_TEST

static void remember(void *user, const sf_error *said) {
  strcat(strcat(user, said->message), "\n");
}

START_TEST(everything_refused_is_reported) {
  bytes two = port("x", 2, (int64_t[]){-1, 4}), odd = node("Odd", "x", NULL, "a"), other = node("Other", "a", NULL, "y"), m;
  char said[2048] = "";
  sf_onnx_options options;
  SF_INIT(&options);
  options.report = remember;
  options.report_user = said;
  m = model(&odd, &other, NULL, &two, 17);
  ck_assert_int_eq(open_bytes(m.data, m.size, NULL, &options), SF_STATUS_UNSUPPORTED);
  ck_assert_str_eq(
      said, "node 1 \"the node\" (Odd): the operator is not known\nnode 2 \"the node\" (Other): the operator is not known\n");
  ck_assert(strstr(error.message, "Odd"));
  options.n_dims = 1;
  ck_assert_int_eq(open_bytes(m.data, m.size, NULL, &options), SF_STATUS_INVALID_ARGUMENT);
  options.dims = &(sf_onnx_dim){"n", -3};
  ck_assert_int_eq(open_bytes(m.data, m.size, NULL, &options), SF_STATUS_INVALID_ARGUMENT);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("onnx_hostile");
  TCase *tests = tcase_create("hostile");
  tcase_set_timeout(tests, 0);
  tcase_add_checked_fixture(tests, setup, teardown);
  tcase_add_test(tests, a_cut_file_is_no_crash);
  tcase_add_test(tests, a_changed_byte_is_no_crash);
  tcase_add_test(tests, running_out_of_memory_is_said);
  tcase_add_test(tests, impossible_models_are_refused);
  tcase_add_test(tests, impossible_tensors_are_refused);
  tcase_add_test(tests, external_data_stays_in_the_folder);
  tcase_add_test(tests, everything_refused_is_reported);
  suite_add_tcase(suite, tests);
  return run_suite(suite);
}
