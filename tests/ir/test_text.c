/* The text form: random graphs reach a fixpoint under print and parse; broken texts are refused with a place inside the text; a failed
 * parse leaves nothing behind, also when memory runs out at any allocation. What each error says is in tests/golden. */
#include "context.h"
#include "failing_allocator.h"
#include "text_names.h"
#include "suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static failing_allocator memory;
static sf_context *context;
static char folder[] = "/tmp/sparseflow-text-XXXXXX";

static void set_up(void) {
  sf_context_options options;
  sf_allocator allocator = failing_allocator_of(&memory);
  SF_INIT(&options);
  options.allocator = &allocator;
  options.cache_dir = "";
  options.isa = SF_ISA_REFERENCE;
  ck_assert_int_eq(sf_context_create(&options, &context), SF_OK);
}

static void tear_down(void) {
  sf_context_release(context);
}

/* ---- helpers ------------------------------------------------------------------------------------------------------ */

static sf_graph *parse(const char *text, sf_error *out_error) {
  sf_graph *graph;
  sf_status st = sf_graph_parse(context, text, strlen(text), "text.sft", folder, &graph);
  ck_assert_int_eq(sf_context_take_error(context, out_error), st);
  ck_assert((st == SF_OK) == (graph != NULL));
  return graph;
}

static sf_graph *parse_good(const char *text) {
  sf_error error;
  sf_graph *graph = parse(text, &error);
  ck_assert_msg(graph, "%d:%d: %s\n%s", error.line, error.column, error.message, text);
  return graph;
}

static bool collect(void *user, const char *text, size_t length) {
  char **out = user;
  *out = strndup(text, length);
  return true;
}

static char *print(const sf_graph *graph) {
  char *text = NULL;
  ck_assert_int_eq(sf_graph_print(graph, collect, &text), SF_OK);
  return text ? text : strdup("");
}

static void check_fixpoint(const sf_graph *graph) {
  char *first = print(graph);
  sf_graph *again = parse_good(first);
  char *second = print(again);
  ck_assert_str_eq(first, second);
  sfi_diag diag = {0};
  sfi_diag first_diag = {0};
  ck_assert_int_eq(sfi_graph_verify(again, &diag), sfi_graph_verify(graph, &first_diag));
  ck_assert_str_eq(diag.error.message, first_diag.error.message);
  ck_assert_uint_eq(graph->n_nodes, again->n_nodes);
  for (size_t i = 0; i < graph->n_nodes; i++) {
    const sfi_node *a = &graph->nodes[i], *b = &again->nodes[i];
    ck_assert(a->op == b->op && a->dtype == b->dtype && sfi_shape_equal(&a->shape, &b->shape) && a->n_inputs == b->n_inputs);
    for (int32_t j = 0; j < a->n_inputs; j++) ck_assert_int_eq(a->inputs[j], b->inputs[j]);
    if (a->op == SF_OP_INPUT) ck_assert_str_eq(a->name, b->name);
  }
  for (size_t i = 0; i < graph->n_outputs; i++) ck_assert_str_eq(graph->outputs[i].name, again->outputs[i].name);
  sf_graph_release(again);
  free(first);
  free(second);
}

/* ---- random graphs ------------------------------------------------------------------------------------------------ */

static uint64_t random_state;
static uint64_t random_below(uint64_t n) {
  random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (random_state >> 33) % n;
}

/* Names that are none, that clash, that look like what the printer makes up, that need quotes. */
static const char *random_name(void) {
  static const char *const names[] = {NULL,        NULL, NULL,     "x",  "x", "0",        "1",   "2",   "a.b", "fc1.weight",
                                      "two words", "",   "\"\\\n", "%x", ";", "\xc3\xa9", "x.2", "x.3", "-1",  "weight"};
  return names[random_below(SFI_COUNT(names))];
}

static sfi_shape random_shape(bool symbolic) {
  sfi_shape shape = {.rank = (int32_t)random_below(5)};
  if (random_below(3) == 0) return (sfi_shape){1, {sfi_const(2)}}; /* often one that fits others */
  for (int32_t i = 0; i < shape.rank; i++) {
    shape.dims[i] = symbolic && random_below(4) == 0 ? (sfi_poly){{0, 1, 0}} : sfi_const((int64_t)random_below(4));
  }
  return shape;
}

static void random_data(float *data, size_t count) {
  for (size_t i = 0; i < count; i++) {
    uint32_t bits = (uint32_t)(random_below(1 << 16) << 16 | random_below(1 << 16));
    memcpy(&data[i], &bits, sizeof bits);
    if (random_below(2)) data[i] = (float)random_below(1000) / 8;
  }
}

static void random_attrs(const sfi_op_info *op, sf_attr *attrs, int64_t ints[][4], int32_t *out_count) {
  *out_count = 0;
  for (int32_t id = 0; id < sfi_attr_count(); id++) {
    const sfi_attr_info *info = sfi_attr_info_of((sf_attr_id)id);
    if (!(op->attrs & UINT32_C(1) << id) || (info->def[0] && random_below(3))) continue;
    sf_attr *attr = &attrs[*out_count];
    int64_t *list = ints[(*out_count)++];
    *attr = (sf_attr){.id = (sf_attr_id)id};
    if (info->type == SFI_ATTR_INT) attr->i = (int64_t)random_below(3) - 1;
    if (info->type == SFI_ATTR_FLOAT) attr->f = (double)random_below(100000) / 99999;
    if (info->type != SFI_ATTR_INTS) continue;
    attr->count = (int32_t)random_below(5);
    attr->ints = list;
    for (int32_t i = 0; i < attr->count; i++) list[i] = (int64_t)random_below(4) - (random_below(4) == 0);
  }
}

/* One more value; most tries of an operation break a rule, and are taken back. */
static bool try_value(sf_graph *graph) {
  float data[256];
  sf_value value = SF_NO_VALUE;
  sf_op op = (sf_op)random_below((uint64_t)sfi_op_count());
  const sfi_op_info *info = sfi_op_of(op);
  if (info->flags & SF_OPF_LEAF) {
    if (random_below(4)) return false;
    sfi_shape shape = random_shape(op == SF_OP_INPUT);
    const sf_dtype dtype = op == SF_OP_INPUT && random_below(2) ? SF_I64 : SF_F32;
    random_data(data, SFI_COUNT(data));
    value = sfi_graph_add_leaf(graph, op, random_name(), dtype, &shape, op == SF_OP_INPUT ? NULL : data, false, NULL);
  } else if (graph->n_nodes) {
    sf_value inputs[16];
    sf_attr attrs[8];
    int64_t ints[8][4];
    int32_t n_inputs = info->min_inputs + (int32_t)random_below((uint64_t)(info->max_inputs - info->min_inputs + 1)), n_attrs;
    for (int32_t i = 0; i < n_inputs; i++) inputs[i] = (sf_value)random_below(graph->n_nodes);
    for (int i = 0; i < 16 && info->flags & SF_OPF_INDEXED && graph->nodes[inputs[n_inputs - 1]].dtype == SF_F32; i++)
      inputs[n_inputs - 1] = (sf_value)random_below(graph->n_nodes);
    random_attrs(info, attrs, ints, &n_attrs);
    value = sfi_graph_add(graph, op, random_name(), n_inputs, inputs, n_attrs, attrs, NULL);
  }
  graph->diag = (sfi_diag){0};
  return value != SF_NO_VALUE;
}

static sf_graph *random_graph(void) {
  static const char *const names[] = {NULL, "digits", "two words"}, *const symbols[] = {"batch", "tokens"};
  sf_graph *graph;
  ck_assert_int_eq(sf_graph_create(context, names[random_below(3)], &graph), SF_OK);
  graph->symbol = symbols[random_below(2)];
  size_t wanted = 1 + random_below(40);
  for (int tries = 0; graph->n_nodes < wanted && tries < 5000; tries++) try_value(graph);
  for (uint64_t n = random_below(4); n-- > 0 && graph->n_nodes;) {
    sfi_graph_add_output(graph, random_name(), (sf_value)random_below(graph->n_nodes), NULL);
    graph->diag = (sfi_diag){0};
  }
  sf_context_take_error(context, NULL);
  return graph;
}

/* A name as a JSON string. */
static void put_json_string(sfi_text *out, const char *name) {
  sfi_text_add(out, "\"", 1);
  for (; *name; name++) {
    if ((unsigned char)*name < ' ' || *name == '"' || *name == '\\')
      sfi_text_printf(out, "\\u%04x", (unsigned char)*name);
    else
      sfi_text_add(out, name, 1);
  }
  sfi_text_add(out, "\"", 1);
}

/* The weights of the graph under the names that it prints for them, as the file that it names. */
static void write_weights(sf_graph *graph) {
  sfi_names names = {.arena.allocator = &sfi_default_allocator};
  sfi_text header = {.allocator = &sfi_default_allocator}, data = header;
  ck_assert(sfi_names_of_tensors(&names, graph));
  sfi_text_add(&header, "{", 1);
  for (size_t i = 0; i < graph->n_nodes; i++) {
    const sfi_node *node = &graph->nodes[i];
    if (!names.names[i] || sfi_names_find(&names, names.names[i], strlen(names.names[i])) != (sf_value)i) continue;
    if (header.length > 1) sfi_text_add(&header, ",", 1);
    put_json_string(&header, names.names[i]);
    sfi_text_printf(&header, ":{\"dtype\":\"F32\",\"shape\":[");
    for (int32_t d = 0; d < node->shape.rank; d++) sfi_text_printf(&header, "%s%d", d ? "," : "", (int)node->shape.dims[d].c[0]);
    sfi_text_printf(&header, "],\"data_offsets\":[%zu,%zu]}", data.length, data.length + node->bytes);
    sfi_text_add(&data, node->data, node->bytes);
  }
  sfi_text_add(&header, "}", 1);
  char path[64];
  snprintf(path, sizeof path, "%s/w.safetensors", folder);
  FILE *file = fopen(path, "wb");
  uint64_t length = header.length;
  ck_assert(file && fwrite(&length, 1, 8, file) == 8 && fwrite(header.data, 1, header.length, file) == header.length);
  if (data.length) ck_assert_uint_eq(fwrite(data.data, 1, data.length, file), data.length);
  ck_assert_int_eq(fclose(file), 0);
  graph->weights_file = "w.safetensors";
  sfi_text_deinit(&data);
  sfi_text_deinit(&header);
  sfi_names_deinit(&names);
}

START_TEST(random_graphs_reach_a_fixpoint) {
  size_t values = 0, operations = 0;
  for (random_state = 1; random_state <= 12000;) {
    uint64_t seed = random_state;
    sf_graph *graph = random_graph();
    write_weights(graph);
    check_fixpoint(graph);
    values += graph->n_nodes;
    for (size_t i = 0; i < graph->n_nodes; i++) operations |= (size_t)1 << graph->nodes[i].op;
    sf_graph_release(graph);
    random_state = seed + 1;
  }
  ck_assert_uint_gt(values, 10000);
  ck_assert_uint_eq(operations, ((size_t)1 << sfi_op_count()) - 1); /* each of them was printed */
}
END_TEST

/* ---- names -------------------------------------------------------------------------------------------------------- */

START_TEST(names_of_values_are_kept_and_never_clash) {
  sf_graph *graph;
  int64_t dims[] = {2};
  float one[] = {1, 1}, two[] = {2, 2};
  ck_assert_int_eq(sf_graph_create(context, NULL, &graph), SF_OK);
  sf_value x = sf_graph_input(graph, "0", SF_F32, 1, dims), y = sf_graph_input(graph, "my input", SF_F32, 1, dims);
  sf_value a = sf_graph_weight(graph, "w", SF_F32, 1, dims, one, SF_COPY);
  sf_value b = sf_graph_weight(graph, "w", SF_F32, 1, dims, two, SF_COPY);
  sf_value c = sf_graph_weight(graph, "w", SF_F32, 1, dims, one, SF_COPY);
  sf_value both = sf_binary(graph, SF_OP_ADD, x, y);
  sf_value left = sf_binary(graph, SF_OP_ADD, both, a);
  sf_value right = sf_binary(graph, SF_OP_ADD, b, c);
  sf_value sum = sf_binary(graph, SF_OP_ADD, left, right);
  ck_assert_int_eq(sf_graph_output(graph, NULL, sum), SF_OK);
  char *text = print(graph);
  ck_assert_str_eq(text, "%0 = input f32[2]\n"
                         "%1 = input \"my input\" f32[2]\n"
                         "%w = weight \"w\" f32[2]\n"
                         "%2 = weight \"w.2\" f32[2]\n"
                         "%3 = weight \"w\" f32[2]\n"
                         "%4 = add %0, %1\n"
                         "%5 = add %4, %w\n"
                         "%6 = add %2, %3\n"
                         "%7 = add %5, %6\n"
                         "output %7 \"output0\"\n");
  free(text);
  /* The names that are shown are those that lines may use. */
  const char *line = "%8 = relu %7\noutput %8";
  ck_assert_int_eq(sf_graph_parse_lines(graph, line, strlen(line), NULL), SF_OK);
  ck_assert_int_eq(sf_graph_output_count(graph), 2);
  sf_graph_release(graph);
}
END_TEST

START_TEST(many_equal_names_take_linear_time) {
  sf_graph *graph;
  int64_t dims[] = {1};
  float data[1];
  enum { MANY = 20000 };
  ck_assert_int_eq(sf_graph_create(context, NULL, &graph), SF_OK);
  for (int i = 0; i < MANY; i++) {
    data[0] = (float)i;
    sf_graph_weight(graph, "w", SF_F32, 1, dims, data, SF_COPY);
  }
  char *text = print(graph);
  ck_assert_ptr_nonnull(strstr(text, "weight \"w.20000\""));
  free(text);
  sf_graph_release(graph);
}
END_TEST

/* ---- lines -------------------------------------------------------------------------------------------------------- */

static sf_status add_lines(sf_graph *graph, const char *text) {
  return sf_graph_parse_lines(graph, text, strlen(text), folder);
}

START_TEST(a_failed_line_adds_nothing) {
  sf_graph *graph;
  sf_error error;
  ck_assert_int_eq(sf_graph_create(context, "session", &graph), SF_OK);
  ck_assert_int_eq(add_lines(graph, "symbol tokens"), SF_OK);
  ck_assert_int_eq(add_lines(graph, "%x = input f32[tokens, 4]\n"), SF_OK);
  ck_assert_int_eq(add_lines(graph, ""), SF_OK);
  ck_assert_int_eq(add_lines(graph, "; nothing\n\n"), SF_OK);
  char *before = print(graph);
  const char *const bad[] = {
      "%y = relu %x\n%z = relu %q",  "%y = matmul %x, %x",           "output %x\noutput %x",
      "%y = input f32[2]\n%y = ",    "weights \"none.safetensors\"", "graph other",
      "%y = relu %x\noutput %y\n% ", "%y = softmax %x axis=7",       "%c = constant f32[2] [1, 2]\nrubbish",
  };
  for (size_t i = 0; i < SFI_COUNT(bad); i++) {
    sf_status st = add_lines(graph, bad[i]);
    ck_assert_int_ne(st, SF_OK);
    ck_assert_int_eq(sf_context_take_error(context, &error), st);
    ck_assert_str_eq(error.file, "session");
    ck_assert_int_ge(error.line, 1);
    ck_assert_int_eq(sf_graph_status(graph), SF_OK);
    char *after = print(graph);
    ck_assert_str_eq(before, after);
    free(after);
  }
  /* None of those names is taken. */
  ck_assert_int_eq(add_lines(graph, "%y = relu %x\noutput %x\noutput %y"), SF_OK);
  ck_assert_int_eq(sf_graph_input_count(graph), 1);
  ck_assert_int_eq(sf_graph_output_count(graph), 2);
  free(before);
  sf_graph_release(graph);
}
END_TEST

START_TEST(a_graph_in_error_takes_no_lines) {
  sf_graph *graph;
  ck_assert_int_eq(sf_graph_create(context, NULL, &graph), SF_OK);
  ck_assert_int_eq(sf_unary(graph, SF_OP_RELU, 7), SF_NO_VALUE);
  sf_status st = sf_graph_status(graph);
  ck_assert_int_ne(st, SF_OK);
  ck_assert_int_eq(add_lines(graph, "%x = input f32[2]"), st);
  ck_assert_int_eq(sf_graph_status(graph), st);
  ck_assert_int_eq(sf_graph_input_count(graph), 0);
  sf_graph_release(graph);
}
END_TEST

START_TEST(weights_stay_after_a_failed_second_file) {
  sf_graph *graph = random_graph();
  write_weights(graph);
  sf_graph_release(graph);
  ck_assert_int_eq(sf_graph_create(context, NULL, &graph), SF_OK);
  ck_assert_int_eq(add_lines(graph, "weights \"w.safetensors\"\n%bad"), SF_STATUS_PARSE_ERROR);
  ck_assert_ptr_null(graph->mapping);
  ck_assert_ptr_null(graph->weights_file);
  ck_assert_int_eq(add_lines(graph, "weights \"w.safetensors\""), SF_OK);
  ck_assert_int_eq(add_lines(graph, "weights \"w.safetensors\""), SF_STATUS_PARSE_ERROR);
  ck_assert_ptr_nonnull(graph->mapping);
  sf_graph_release(graph);
}
END_TEST

/* ---- arguments and files ------------------------------------------------------------------------------------------ */

START_TEST(arguments_are_checked) {
  sf_graph *graph = (sf_graph *)&memory;
  ck_assert_int_eq(sf_graph_parse(NULL, "", 0, NULL, NULL, &graph), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_ptr_null(graph);
  ck_assert_int_eq(sf_graph_parse(context, "", 0, NULL, NULL, NULL), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_graph_parse(context, NULL, 1, NULL, NULL, &graph), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_graph_parse_file(context, NULL, &graph), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_graph_parse_file(context, "x", NULL), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_graph_parse_lines(NULL, "", 0, NULL), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_graph_print(NULL, collect, NULL), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_graph_parse(context, "x", (size_t)INT32_MAX + 1, NULL, NULL, &graph),
                   SF_STATUS_UNSUPPORTED); /* is not read */
  ck_assert_int_eq(sf_graph_parse(context, NULL, 0, NULL, NULL, &graph), SF_OK);
  ck_assert_int_eq(sf_graph_print(graph, NULL, NULL), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_graph_parse_lines(graph, NULL, 1, NULL), SF_STATUS_INVALID_ARGUMENT);
  ck_assert_int_eq(sf_graph_parse_lines(graph, "weights \"w\"", 11, NULL), SF_STATUS_NOT_FOUND);
  sf_graph_release(graph);
}
END_TEST

START_TEST(files_are_found_beside_the_graph) {
  sf_graph *graph = random_graph();
  sf_error error;
  write_weights(graph);
  sf_graph_release(graph);
  char path[64];
  snprintf(path, sizeof path, "%s/g.sft", folder);
  FILE *file = fopen(path, "w");
  ck_assert(file && fputs("graph g\nweights \"w.safetensors\"\n%x = input f32[2]\n%y = rleu %x\n", file) >= 0);
  fclose(file);
  ck_assert_int_eq(sf_graph_parse_file(context, path, &graph), SF_STATUS_PARSE_ERROR);
  ck_assert_int_eq(sf_context_take_error(context, &error), SF_STATUS_PARSE_ERROR);
  ck_assert_str_eq(error.file, path);
  ck_assert_int_eq(error.line, 4);
  ck_assert_int_eq(error.column, 6);
  ck_assert_str_eq(error.message, "unknown operation 'rleu'; did you mean 'relu'?");
  file = fopen(path, "w");
  ck_assert(file && fputs("graph g\nweights \"w.safetensors\"\n%x = input f32[2]", file) >= 0);
  fclose(file);
  ck_assert_int_eq(sf_graph_parse_file(context, path, &graph), SF_OK);
  ck_assert_str_eq(graph->name, "g");
  sf_graph_release(graph);
  unlink(path);
  ck_assert_int_eq(sf_graph_parse_file(context, path, &graph), SF_STATUS_NOT_FOUND);
  ck_assert_int_eq(sf_context_take_error(context, &error), SF_STATUS_NOT_FOUND);
  ck_assert_str_eq(error.file, path);
  ck_assert_int_eq(sf_graph_parse_file(context, folder, &graph), SF_STATUS_IO_ERROR);
  ck_assert_int_eq(sf_graph_parse_file(context, "/dev/null", &graph), SF_STATUS_IO_ERROR);
  sf_context_take_error(context, NULL);
}
END_TEST

/* ---- broken texts ------------------------------------------------------------------------------------------------- */

static const char sample[] = "graph \"a b\"\nsymbol t ; c\nweights \"w.safetensors\"\n%x = input \"q\" f32[t, 4]\n"
                             "%w = weight \"w\\x31\" f32[4, 4]\n%c = constant f32[2, 1] [1, -2.5e-3]\n%d = constant f32[] nan\n"
                             "%h = matmul %x, %w transpose_b=1\n%l = layer_norm %h axis=-1 eps=1e-05\n"
                             "%s = slice %c starts=[0,0] ends=[1,1]\noutput %l\noutput %s \"hidden\"\n";

static void write_sample_weights(void) {
  sf_graph *graph;
  int64_t dims[] = {4, 4};
  float data[16] = {1};
  ck_assert_int_eq(sf_graph_create(context, NULL, &graph), SF_OK);
  sf_graph_weight(graph, "w1", SF_F32, 2, dims, data, SF_COPY);
  write_weights(graph);
  sf_graph_release(graph);
}

/* The same with memory of exactly that length: a read past it is seen by the sanitizers. */
static void parse_any(const char *text, size_t length) {
  char *copy = malloc(length ? length : 1);
  memcpy(copy, text, length);
  sf_graph *graph;
  sf_error error;
  sf_status st = sf_graph_parse(context, copy, length, NULL, folder, &graph);
  sf_context_take_error(context, &error);
  ck_assert_int_eq(error.status, st);
  if (st == SF_OK) {
    check_fixpoint(graph);
  } else {
    int32_t lines = 1;
    for (size_t i = 0; i < length; i++) lines += copy[i] == '\n';
    ck_assert_int_ge(error.line, 1);
    ck_assert_int_le(error.line, lines);
    ck_assert_int_ge(error.column, 1);
    ck_assert_int_le(error.column, (int)length + 1);
    ck_assert_str_ne(error.message, "");
    ck_assert_str_ne(error.file, ""); /* the graph's name where no file is given */
  }
  sf_graph_release(graph);
  free(copy);
}

START_TEST(every_truncation_and_every_changed_byte) {
  write_sample_weights();
  char text[sizeof sample];
  size_t length = sizeof sample - 1;
  sf_graph_release(parse_good(sample));
  for (size_t i = 0; i <= length; i++) parse_any(sample, i);
  const char replacements[] = "\0\n%\"[],=;x9- ";
  for (size_t i = 0; i < length; i++) {
    for (size_t j = 0; j < sizeof replacements; j++) {
      memcpy(text, sample, sizeof text);
      text[i] = j + 1 < sizeof replacements ? replacements[j] : (char)0xff;
      parse_any(text, length);
    }
    /* and without the byte */
    memcpy(text, sample, i);
    memcpy(text + i, sample + i + 1, length - i);
    parse_any(text, length - 1);
  }
}
END_TEST

/* Memory stays within a small multiple of the text, whatever it claims. */
static void parse_hostile(const char *text, size_t length) {
  long before = memory.live_bytes;
  memory.peak_bytes = 0;
  sf_graph *graph;
  sf_error error;
  sf_status st = sf_graph_parse(context, text, length, "t", folder, &graph);
  ck_assert_int_eq(sf_context_take_error(context, &error), st);
  sf_graph_release(graph);
  ck_assert_int_eq(memory.live_bytes, before);
  ck_assert_int_lt(memory.peak_bytes - before, 64 * (long)length);
}

START_TEST(hostile_texts_are_bounded) {
  enum { LENGTH = 1 << 20 };
  char *text = malloc(LENGTH);
  static const struct {
    const char *start, *repeated;
  } texts[] = {
      {"%x = constant f32[99999] ", "["},
      {"%x = constant f32[999999] [", "1,"},
      {"%x = input f32[2]\n%y = concat ", "%x,"},
      {"%x = input f32[", "1,"},
      {"", "\n"},
      {"", ";"},
      {"graph \"", "\\\\"},
      {"graph \"", "\\"},
      {"%", "a"},
      {"%x = ", "matmul"},
      {"%x = constant f32[] ", "1"},
      {"%x = input f32[2]\n%y = reduce_sum %x axes=[", "0,"},
      {"%x = input f32[2]\n", "output %x\n"},
      {"%x = constant f32[1048576, 1048576, 1048576] [", "0,"},
  };
  for (size_t i = 0; i < SFI_COUNT(texts); i++) {
    size_t length = strlen(texts[i].start), step = strlen(texts[i].repeated);
    memcpy(text, texts[i].start, length);
    for (; length + step <= LENGTH; length += step) memcpy(text + length, texts[i].repeated, step);
    parse_hostile(text, length);
  }
  size_t length = (size_t)sprintf(text, "%%x=input f32[]\n");
  for (int i = 0; length < LENGTH - 32; i++) length += (size_t)sprintf(text + length, "%%%d=relu%%x\n", i);
  parse_hostile(text, length);
  free(text);
}
END_TEST

/* ---- out of memory ------------------------------------------------------------------------------------------------ */

START_TEST(every_allocation_may_fail) {
  write_sample_weights();
  char path[64];
  snprintf(path, sizeof path, "%s/g.sft", folder);
  FILE *file = fopen(path, "w");
  ck_assert(file && fputs(sample, file) >= 0);
  fclose(file);
  long k = 1;
  for (bool done = false; !done; k++) {
    sf_graph *graph;
    char *text = NULL;
    long live = memory.live;
    memory.calls = 0;
    memory.fail_at = k;
    sf_status st = sf_graph_parse_file(context, path, &graph);
    if (st == SF_OK) {
      st = sf_graph_print(graph, collect, &text);
      ck_assert((st == SF_OK) == (text != NULL));
    }
    done = memory.calls < k;
    memory.fail_at = 0;
    ck_assert_int_eq(st, done ? SF_OK : SF_STATUS_OUT_OF_MEMORY);
    ck_assert_int_eq(sf_context_take_error(context, NULL), st);
    sf_graph_release(graph);
    ck_assert_int_eq(memory.live, live);
    free(text);
  }
  ck_assert_int_gt(k, 20);
  unlink(path);
}
END_TEST

START_TEST(an_error_may_lack_memory) {
  write_sample_weights();
  static const char text[] = "weights \"w.safetensors\"\n%w = weight \"w1\" f32[4, 5]\n";
  long k = 1;
  for (bool done = false; !done; k++) {
    sf_graph *graph;
    long live = memory.live;
    memory.calls = 0;
    memory.fail_at = k;
    sf_status st = sf_graph_parse(context, text, strlen(text), "text.sft", folder, &graph);
    done = memory.calls < k;
    memory.fail_at = 0;
    ck_assert_int_eq(st, done ? SF_STATUS_INVALID_GRAPH : SF_STATUS_OUT_OF_MEMORY);
    ck_assert_int_eq(sf_context_take_error(context, NULL), st);
    ck_assert_int_eq(memory.live, live);
  }
}
END_TEST

START_TEST(lines_survive_every_failed_allocation) {
  write_sample_weights();
  sf_graph *graph = parse_good("%a = input f32[3]\n");
  char *before = print(graph), lines[] = "weights \"w.safetensors\"\n%b = relu %a\n%w = weight \"w1\" f32[4, 4]\noutput %b\n";
  long k = 1;
  for (bool done = false; !done; k++) {
    memory.calls = 0;
    memory.fail_at = k;
    sf_status st = sf_graph_parse_lines(graph, lines, strlen(lines), folder);
    done = memory.calls < k;
    memory.fail_at = 0;
    ck_assert_int_eq(sf_context_take_error(context, NULL), st);
    ck_assert_int_eq(st, done ? SF_OK : SF_STATUS_OUT_OF_MEMORY);
    ck_assert_int_eq(sf_graph_status(graph), SF_OK);
    char *after = print(graph);
    if (!done) ck_assert_str_eq(before, after);
    free(after);
  }
  ck_assert_int_eq(sf_graph_output_count(graph), 1);
  free(before);
  sf_graph_release(graph);
}
END_TEST

int main(void) {
  if (!mkdtemp(folder)) return 2;
  Suite *suite = suite_create("text");
  TCase *tests = tcase_create("text form");
  tcase_set_timeout(tests, 300);
  tcase_add_checked_fixture(tests, set_up, tear_down);
  tcase_add_test(tests, random_graphs_reach_a_fixpoint);
  tcase_add_test(tests, names_of_values_are_kept_and_never_clash);
  tcase_add_test(tests, many_equal_names_take_linear_time);
  tcase_add_test(tests, a_failed_line_adds_nothing);
  tcase_add_test(tests, a_graph_in_error_takes_no_lines);
  tcase_add_test(tests, weights_stay_after_a_failed_second_file);
  tcase_add_test(tests, arguments_are_checked);
  tcase_add_test(tests, files_are_found_beside_the_graph);
  tcase_add_test(tests, every_truncation_and_every_changed_byte);
  tcase_add_test(tests, hostile_texts_are_bounded);
  tcase_add_test(tests, every_allocation_may_fail);
  tcase_add_test(tests, an_error_may_lack_memory);
  tcase_add_test(tests, lines_survive_every_failed_allocation);
  suite_add_tcase(suite, tests);
  int failed = run_suite(suite);
  char path[64];
  snprintf(path, sizeof path, "%s/w.safetensors", folder);
  unlink(path);
  rmdir(folder);
  return failed;
}
