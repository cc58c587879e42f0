/* Tables of a weight file, of which runs load the rows that they look up: which tensors are tables, equal values by every way to them, files that are
 * cut, written to, renamed and unlinked behind a program's back, failing allocations, and many threads at once. */
#include "run_fixture.h"

#include <fcntl.h>

enum { WORDS = 20000, WIDTH = 40, CUBES = 30, LONGS = 5, LONG = 6000, TIED = 600, DEPTH = 64, BOTH = 500, FEW = 6, ONE = 4 };
enum { OUTPUTS = 8, IDS_MAX = 64 };

static const struct {
  const char *name;
  int32_t rank;
  int64_t dims[3];
  bool table; /* not `tied` on the reference back end, which multiplies by it as it is */
} weights[] = {
    {"words", 2, {WORDS, WIDTH}, true}, {"cube", 3, {CUBES, 40, 20}, true}, {"long", 2, {LONGS, LONG}, true},
    {"tied", 2, {TIED, DEPTH}, true},   {"wide", 2, {64, 700}, false},      {"both", 2, {BOTH, 50}, false},
};
enum { N_WEIGHTS = SFI_COUNT(weights) };

/* A folder with a model in it, and the elements of its weights. */
typedef struct place {
  char folder[64], model[96], file[96];
  float *w[N_WEIGHTS];
} place;

static sf_value gather(sf_graph *g, sf_value x, sf_value indices, int64_t axis) {
  const sf_attr attr = {.id = SF_ATTR_AXIS, .i = axis};
  return sf_graph_op(g, SF_OP_GATHER, 2, (const sf_value[]){x, indices}, 1, &attr);
}

static sf_graph *build(sf_context *context, float *const *w) {
  sf_graph *g;
  sf_value v[N_WEIGHTS];
  ck_assert_int_eq(sf_graph_create(context, "net", &g), SF_OK);
  const sf_value ids = sf_graph_input(g, "ids", SF_I64, 1, DIMS(SF_DIM_SYMBOLIC));
  const sf_value few = sf_graph_input(g, "few", SF_I32, 2, DIMS(2, FEW / 2)), one = sf_graph_input(g, "one", SF_I8, 1, DIMS(ONE));
  for (size_t i = 0; i < N_WEIGHTS; i++)
    v[i] = sf_graph_weight(g, weights[i].name, SF_F32, weights[i].rank, weights[i].dims, w[i], SF_BORROW);
  const sf_value turned = sf_reshape(g, sf_transpose(g, few, 2, DIMS(1, 0)), 1, DIMS(FEW));
  sf_graph_output(g, "words by ids", sf_unary(g, SF_OP_NEG, gather(g, v[0], ids, 0)));
  sf_graph_output(g, "words by few", gather(g, v[0], turned, 0));
  sf_graph_output(g, "cube", gather(g, v[1], few, -3));
  sf_graph_output(g, "long", gather(g, v[2], one, 0));
  sf_graph_output(g, "tied", sf_matmul(g, gather(g, v[3], turned, 0), v[3], false, true));
  sf_graph_output(g, "wide", gather(g, v[4], one, 1));
  sf_graph_output(g, "both", v[5]);
  sf_graph_output(g, "both by few", gather(g, v[5], few, 0));
  return g;
}

/* As if the file had been there for a while. */
static void make_old(const char *path) {
  struct timespec times[2];
  clock_gettime(CLOCK_REALTIME, &times[0]);
  times[0].tv_sec -= 100;
  times[1] = times[0];
  ck_assert_int_eq(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void place_make(place *p) {
  uint64_t state = 11;
  make_folder(p->folder);
  snprintf(p->model, sizeof p->model, "%s/net.sft", p->folder);
  snprintf(p->file, sizeof p->file, "%s/net.safetensors", p->folder);
  for (size_t i = 0; i < N_WEIGHTS; i++) {
    size_t n = 1;
    for (int32_t d = 0; d < weights[i].rank; d++) n *= (size_t)weights[i].dims[d];
    p->w[i] = malloc(n * sizeof(float));
    random_weights(&state, n, 20, p->w[i]);
  }
  sf_context *context = plain_context(1);
  sf_graph *graph = build(context, p->w);
  ck_assert_int_eq(sf_graph_save(graph, p->model), SF_OK);
  sf_graph_release(graph);
  sf_context_release(context);
  make_old(p->file);
}

static void place_end(place *p) {
  for (size_t i = 0; i < N_WEIGHTS; i++) free(p->w[i]);
  remove_tree(p->folder);
}

static sf_context *context_of(sf_isa isa, const sf_allocator *allocator) {
  sf_context_options options;
  sf_context *context;
  SF_INIT(&options);
  options.cache_dir = "";
  options.threads = 2;
  options.isa = isa;
  options.allocator = allocator;
  ck_assert_int_eq(sf_context_create(&options, &context), SF_OK);
  return context;
}

static sf_status open_model(const place *p, sf_context *context, uint32_t flags, sf_program **out_program) {
  sf_graph *graph;
  sf_compile_options options;
  SF_INIT(&options);
  options.flags = flags;
  sf_status status = sf_graph_parse_file(context, p->model, &graph);
  if (status != SF_OK) return status;
  status = sf_compile(context, graph, &options, out_program, NULL);
  sf_graph_release(graph);
  return status;
}

static sf_program *opened(const place *p, sf_context *context, uint32_t flags) {
  sf_program *program;
  ck_assert_int_eq(open_model(p, context, flags, &program), SF_OK);
  return program;
}

static bool is_table(const sf_program *program, const char *name) {
  for (size_t v = 0; v < program->graph->n_nodes; v++) {
    const sfi_node *node = &program->graph->nodes[v];
    if (node->op == SF_OP_WEIGHT && strcmp(node->name, name) == 0 && program->statics[v].data)
      return sfi_tables_have(program, (sf_value)v);
  }
  return false;
}

/* What a run looks up, and what it answered. */
typedef struct lookup {
  int64_t ids[IDS_MAX];
  int32_t few[FEW];
  int8_t one[ONE];
  int64_t n;
  float *out[OUTPUTS];
  size_t bytes[OUTPUTS];
} lookup;

static void lookup_make(lookup *l, uint64_t seed) {
  uint64_t state = seed;
  *l = (lookup){.n = seed % 7 ? random_u32(&state) % IDS_MAX : 0};
  for (int64_t i = 0; i < l->n; i++) l->ids[i] = (int64_t)(random_u32(&state) % (2 * WORDS)) - WORDS;
  if (l->n > 1) l->ids[0] = WORDS - 1, l->ids[1] = -WORDS;
  for (int i = 0; i < FEW; i++) l->few[i] = (int32_t)(random_u32(&state) % (2 * CUBES)) - CUBES;
  for (int i = 0; i < ONE; i++) l->one[i] = (int8_t)((int)(random_u32(&state) % (2 * LONGS)) - LONGS);
}

/* The caller frees what it answers. */
static sf_status look_up(sf_program *program, lookup *l) {
  sf_tensor in[] = {{l->ids, SF_I64, 1, {l->n}}, {l->few, SF_I32, 2, {2, FEW / 2}}, {l->one, SF_I8, 1, {ONE}}}, out[OUTPUTS];
  for (int32_t i = 0; i < OUTPUTS; i++) {
    sf_tensor_info info;
    size_t elements = 1;
    ck_assert_int_eq(sf_program_output_shape(program, i, l->n, &info), SF_OK);
    out[i] = (sf_tensor){.dtype = SF_F32, .rank = info.rank};
    for (int32_t d = 0; d < info.rank; d++) elements *= (size_t)(out[i].dims[d] = info.dims[d]);
    l->bytes[i] = elements * sizeof(float);
    free(l->out[i]);
    out[i].data = l->out[i] = malloc(l->bytes[i] + 1);
    memset(l->out[i], 0xa5, l->bytes[i]);
  }
  return sf_run(program, 3, in, OUTPUTS, out);
}

static void lookup_free(lookup *l) {
  for (int i = 0; i < OUTPUTS; i++) free(l->out[i]);
}

static bool untouched(const lookup *l) {
  for (int i = 0; i < OUTPUTS; i++)
    for (size_t b = 0; b < l->bytes[i]; b++)
      if (((const uint8_t *)l->out[i])[b] != 0xa5) return false;
  return true;
}

/* Rows of weight w one after the other, by indices that may be negative. */
static bool are_rows(const place *p, int w, const float *got, const int64_t *indices, int64_t n, float sign) {
  int64_t row = 1;
  for (int32_t d = 1; d < weights[w].rank; d++) row *= weights[w].dims[d];
  for (int64_t i = 0; i < n; i++) {
    const int64_t at = indices[i] < 0 ? indices[i] + weights[w].dims[0] : indices[i];
    for (int64_t e = 0; e < row; e++)
      if (got[i * row + e] != sign * p->w[w][at * row + e]) return false;
  }
  return true;
}

/* The product, and what is read whole, is compared with another program's; the rows with those that were saved. */
static bool right(const place *p, const lookup *l, const lookup *whole) {
  int64_t few[FEW], turned[FEW], one[ONE];
  for (int i = 0; i < FEW; i++) few[i] = l->few[i], turned[i] = l->few[i % 2 * (FEW / 2) + i / 2];
  for (int i = 0; i < ONE; i++) one[i] = l->one[i];
  bool same = true;
  for (int i = 0; whole && i < OUTPUTS; i++) same = same && memcmp(l->out[i], whole->out[i], l->bytes[i]) == 0;
  return same && are_rows(p, 0, l->out[0], l->ids, l->n, -1) && are_rows(p, 0, l->out[1], turned, FEW, 1) &&
         are_rows(p, 1, l->out[2], few, FEW, 1) && are_rows(p, 2, l->out[3], one, ONE, 1) && are_rows(p, 5, l->out[7], few, FEW, 1);
}

static bool answers(const place *p, sf_program *program, uint64_t seed) {
  lookup l;
  lookup_make(&l, seed);
  const bool good = look_up(program, &l) == SF_OK && right(p, &l, NULL);
  lookup_free(&l);
  return good;
}

static const sf_isa isas[] = {SF_ISA_NATIVE, SF_ISA_REFERENCE};

START_TEST(rows_are_those_of_the_file) {
  place p;
  place_make(&p);
  sf_context *context = context_of(isas[_i], NULL);
  const bool compiled = sfi_backend_of(&context->target) != NULL;
  sf_program *program = opened(&p, context, 0), *ahead = opened(&p, context, SF_COMPILE_PRELOAD);
  for (size_t i = 0; i < N_WEIGHTS; i++) {
    const bool multiplied = strcmp(weights[i].name, "tied") == 0;
    ck_assert_msg(is_table(program, weights[i].name) == (weights[i].table && (compiled || !multiplied)), "%s", weights[i].name);
    ck_assert(!is_table(ahead, weights[i].name));
  }
  for (uint64_t seed = 0; seed < 60; seed++) {
    lookup l, whole;
    lookup_make(&l, seed);
    lookup_make(&whole, seed);
    ck_assert_int_eq(look_up(program, &l), SF_OK);
    ck_assert_int_eq(look_up(ahead, &whole), SF_OK);
    ck_assert(right(&p, &l, &whole));
    lookup_free(&l);
    lookup_free(&whole);
  }
  sf_program_release(ahead);
  sf_program_release(program);
  sf_context_release(context);
  place_end(&p);
}
END_TEST

/* Weights from memory, and those of a file that was written to a moment ago, are the program's own when it is compiled. */
START_TEST(what_may_change_is_copied) {
  place p;
  sf_program *program;
  place_make(&p);
  sf_context *context = context_of(SF_ISA_NATIVE, NULL);
  sf_graph *graph = build(context, p.w);
  ck_assert_int_eq(sf_compile(context, graph, NULL, &program, NULL), SF_OK);
  sf_graph_release(graph);
  for (size_t i = 0; i < N_WEIGHTS; i++) ck_assert(!is_table(program, weights[i].name));
  ck_assert(answers(&p, program, 3));
  sf_program_release(program);
  ck_assert_int_eq(utimensat(AT_FDCWD, p.file, NULL, 0), 0);
  program = opened(&p, context, 0);
  for (size_t i = 0; i < N_WEIGHTS; i++) ck_assert(!is_table(program, weights[i].name));
  ck_assert_int_eq(truncate(p.file, 10), 0);
  for (uint64_t seed = 0; seed < 10; seed++) ck_assert(answers(&p, program, seed));
  sf_program_release(program);
  sf_context_release(context);
  place_end(&p);
}
END_TEST

/* Its name, its links and its mode are nothing of the file's content. */
START_TEST(the_file_may_be_renamed_and_unlinked) {
  place p;
  char moved[112];
  place_make(&p);
  sf_context *context = context_of(isas[_i], NULL);
  sf_program *program = opened(&p, context, 0);
  snprintf(moved, sizeof moved, "%s.old", p.file);
  ck_assert_int_eq(rename(p.file, moved), 0);
  ck_assert(answers(&p, program, 1));
  ck_assert_int_eq(chmod(moved, 0600), 0);
  ck_assert_int_eq(link(moved, p.file), 0);
  ck_assert(answers(&p, program, 2));
  ck_assert_int_eq(unlink(moved), 0);
  ck_assert_int_eq(unlink(p.file), 0);
  for (uint64_t seed = 3; seed < 20; seed++) ck_assert(answers(&p, program, seed));
  sf_program_release(program);
  sf_context_release(context);
  place_end(&p);
}
END_TEST

static void write_one_byte(const char *path, off_t at) {
  const int fd = open(path, O_RDWR);
  uint8_t byte;
  ck_assert_int_ge(fd, 0);
  ck_assert_int_eq(pread(fd, &byte, 1, at), 1);
  byte ^= 0x40;
  ck_assert_int_eq(pwrite(fd, &byte, 1, at), 1);
  close(fd);
}

enum { BEFORE_COMPILE = 1, CUT = 2, WAYS = 4 };

/* A run that wants more of a file which was cut or written to says so and does nothing; what was loaded before is as good as it was. */
START_TEST(a_file_that_is_no_more_what_it_was_is_refused) {
  static const int64_t all[] = {0, 1, 1700, 5000, WORDS - 1};
  place p;
  struct stat info;
  sf_error error;
  place_make(&p);
  const int way = _i % WAYS;
  sf_context *context = context_of(isas[_i / WAYS], NULL);
  sf_graph *graph;
  sf_program *program = NULL;
  ck_assert_int_eq(sf_graph_parse_file(context, p.model, &graph), SF_OK);
  if (!(way & BEFORE_COMPILE)) ck_assert_int_eq(sf_compile(context, graph, NULL, &program, NULL), SF_OK);
  if (program) ck_assert(answers(&p, program, 2));
  ck_assert_int_eq(stat(p.file, &info), 0);
  if (way & CUT)
    ck_assert_int_eq(truncate(p.file, info.st_size / 3), 0);
  else
    write_one_byte(p.file, info.st_size - 1000);
  sf_status status = SF_OK;
  if (way & BEFORE_COMPILE) {
    status = sf_compile(context, graph, NULL, &program, NULL); /* reads what is no table */
  } else {
    ck_assert(answers(&p, program, 2));
    lookup l;
    lookup_make(&l, 2);
    l.n = SFI_COUNT(all);
    memcpy(l.ids, all, sizeof all);
    status = look_up(program, &l);
    ck_assert(untouched(&l));
    lookup_free(&l);
    ck_assert(answers(&p, program, 2));
    sf_program_release(program);
  }
  ck_assert_int_eq(status, SF_STATUS_MALFORMED_FILE);
  ck_assert_int_eq(sf_context_take_error(context, &error), SF_STATUS_MALFORMED_FILE);
  ck_assert_str_eq(error.file, "net.safetensors");
  bool named = false;
  for (size_t i = 0; i < N_WEIGHTS; i++) named = named || strcmp(error.op, weights[i].name) == 0;
  ck_assert_msg(named, "'%s'", error.op);
  ck_assert_msg(strstr(error.message, "has changed") || strstr(error.message, "has become shorter"), "%s", error.message);
  sf_graph_release(graph);
  sf_context_release(context);
  place_end(&p);
}
END_TEST

/* Indices are checked before anything is loaded by them. */
START_TEST(an_index_outside_is_refused) {
  place p;
  lookup l;
  place_make(&p);
  sf_context *context = context_of(isas[_i], NULL);
  sf_program *program = opened(&p, context, 0);
  for (int64_t wrong = 0; wrong < 3; wrong++) {
    lookup_make(&l, 1);
    l.ids[l.n - 1] = (int64_t[]){WORDS, -WORDS - 1, INT64_MIN}[wrong];
    ck_assert_int_eq(look_up(program, &l), SF_STATUS_INVALID_ARGUMENT);
    ck_assert(untouched(&l));
    lookup_free(&l);
  }
  ck_assert(answers(&p, program, 1));
  sf_program_release(program);
  sf_context_release(context);
  place_end(&p);
}
END_TEST

START_TEST(out_of_memory) {
  place p;
  place_make(&p);
  sf_status status = SF_STATUS_OUT_OF_MEMORY;
  for (long k = 1; status != SF_OK; k++) {
    failing_allocator f = {0};
    const sf_allocator allocator = failing_allocator_of(&f);
    sf_context *context = context_of(SF_ISA_REFERENCE, &allocator);
    sf_program *program = NULL;
    atomic_store(&f.fail_at, atomic_load(&f.calls) + k);
    status = open_model(&p, context, 0, &program);
    if (status == SF_OK) ck_assert(answers(&p, program, 4));
    ck_assert(status == SF_OK || status == SF_STATUS_OUT_OF_MEMORY);
    sf_program_release(program);
    sf_context_release(context);
    ck_assert_int_eq(atomic_load(&f.live), 0);
  }
  place_end(&p);
}
END_TEST

typedef struct worker {
  sf_program *program;
  const place *place;
  uint64_t seed;
  int wrong;
} worker;

static void *work(void *argument) {
  worker *w = argument;
  for (uint64_t i = 0; i < 12; i++) w->wrong += !answers(w->place, w->program, w->seed + i);
  return NULL;
}

START_TEST(looked_up_at_once) {
  enum { THREADS = 8, PROGRAMS = 4 };
  place p;
  place_make(&p);
  sf_context *context = context_of(isas[_i], NULL);
  for (int i = 0; i < PROGRAMS; i++) {
    sf_program *program = opened(&p, context, 0);
    worker workers[THREADS];
    for (size_t t = 0; t < THREADS; t++) workers[t] = (worker){.program = program, .place = &p, .seed = t / 2 * 6};
    work_at_once(work, workers, THREADS, sizeof *workers);
    for (size_t t = 0; t < THREADS; t++) ck_assert_int_eq(workers[t].wrong, 0);
    sf_program_release(program);
  }
  sf_context_release(context);
  place_end(&p);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("tables");
  TCase *cases = tcase_create("tables");
  tcase_set_timeout(cases, 300);
  tcase_add_loop_test(cases, rows_are_those_of_the_file, 0, 2);
  tcase_add_test(cases, what_may_change_is_copied);
  tcase_add_loop_test(cases, the_file_may_be_renamed_and_unlinked, 0, 2);
  tcase_add_loop_test(cases, a_file_that_is_no_more_what_it_was_is_refused, 0, 2 * WAYS);
  tcase_add_loop_test(cases, an_index_outside_is_refused, 0, 2);
  tcase_add_test(cases, out_of_memory);
  tcase_add_loop_test(cases, looked_up_at_once, 0, 2);
  suite_add_tcase(suite, cases);
  return run_suite(suite);
}
