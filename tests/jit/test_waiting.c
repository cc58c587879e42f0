/* Packed weights that wait in the cache until a run wants them: which do, who loads them, what a run does when they are there no more, and
 * that runs which want them at once get them once. */
#include "run_fixture.h"

#include <dirent.h>

enum { ROWS = 150, COLUMNS = 130 }; /* 78 KB: read when they are needed */

static const int64_t extents[] = {1, 3, 12, 40}; /* one of each class */

/* A folder with a model in it, and its cache. */
typedef struct place {
  char folder[64], model[96], weights[96], cache[96];
  tensors want[SFI_COUNT(extents)]; /* what the model answers, by a program that was compiled cold */
} place;

static sf_context *context_on(const place *p, const sf_allocator *allocator, int32_t threads) {
  sf_context_options options;
  sf_context *context;
  SF_INIT(&options);
  options.cache_dir = p->cache;
  options.threads = threads;
  options.allocator = allocator;
  ck_assert_int_eq(sf_context_create(&options, &context), SF_OK);
  return context;
}

/* Compiles the model; the graph is gone then. */
static sf_program *open_model(const place *p, sf_context *context, uint32_t flags, sf_compile_stats *stats) {
  sf_graph *graph;
  sf_program *program;
  sf_compile_options options;
  SF_INIT(&options);
  SF_INIT(stats);
  options.flags = flags;
  ck_assert_int_eq(sf_graph_parse_file(context, p->model, &graph), SF_OK);
  ck_assert_int_eq(sf_compile(context, graph, &options, &program, stats), SF_OK);
  sf_graph_release(graph);
  return program;
}

static bool loaded(const sf_program *program, int64_t symbol) {
  return atomic_load(&sfi_class_of(program, symbol)->is_loaded);
}

/* Runs on the inputs of want[e]; are its bits the answer? */
static bool answers(sf_program *program, const place *p, size_t e) {
  tensors got = p->want[e];
  bool right = true;
  got.out[0].data = malloc(got.out_bytes[0]);
  right = got.out[0].data && run_tensors(program, &got) == SF_OK && tensors_equal(&got, &p->want[e]);
  free(got.out[0].data);
  return right;
}

/* A product with a weight of another shape, then two products that are joined, and one behind each that does not need all of its channels. */
static void place_make(place *p) {
  uint64_t state = 5;
  make_folder(p->folder);
  snprintf(p->model, sizeof p->model, "%s/net.sft", p->folder);
  snprintf(p->weights, sizeof p->weights, "%s/net.safetensors", p->folder);
  snprintf(p->cache, sizeof p->cache, "%s/cache", p->folder);
  sf_context *context = context_on(p, NULL, 2);
  sf_graph *graph;
  enum { WEIGHTS = 4 };
  float *w[WEIGHTS];
  sf_value v[WEIGHTS];
  ck_assert_int_eq(sf_graph_create(context, "net", &graph), SF_OK);
  sf_value x = sf_graph_input(graph, "x", SF_F32, 2, DIMS(SF_DIM_SYMBOLIC, ROWS));
  for (int i = 0; i < WEIGHTS; i++) {
    static const int64_t dims[WEIGHTS][3] = {{ROWS, COLUMNS}, {ROWS, COLUMNS}, {COLUMNS, ROWS}, {2, ROWS / 2, ROWS}};
    char name[8];
    snprintf(name, sizeof name, "w%d", i);
    w[i] = malloc(ROWS * ROWS * sizeof *w[i]);
    random_weights(&state, ROWS * ROWS, 70, w[i]);
    for (int64_t c = 0; i == 0 && c < ROWS; c++) w[i][c * COLUMNS + 33] = 0; /* and after relu */
    for (int64_t c = 0; i == 2 && c < ROWS; c++) w[i][c] = w[i][50 * ROWS + c] = w[i][51 * ROWS + c] = w[i][129 * ROWS + c] = 0;
    v[i] = sf_graph_weight(graph, name, SF_F32, i < 3 ? 2 : 3, dims[i], w[i], SF_BORROW);
  }
  const sf_attr all[] = {{.id = SF_ATTR_STARTS, .count = 3, .ints = DIMS(0, 0, 0)},
                         {.id = SF_ATTR_ENDS, .count = 3, .ints = DIMS(2, ROWS, ROWS)}};
  x = sf_matmul(graph, x, sf_reshape(graph, sf_graph_op(graph, SF_OP_SLICE, 1, &v[3], 2, all), 2, DIMS(ROWS, ROWS)), false, false);
  sf_value a = sf_unary(graph, SF_OP_RELU, sf_matmul(graph, x, v[0], false, false));
  sf_value b = sf_unary(graph, SF_OP_RELU, sf_matmul(graph, x, v[1], false, false));
  a = sf_matmul(graph, a, v[2], false, false);
  b = sf_matmul(graph, b, v[2], false, false);
  sf_graph_output(graph, "y", sf_binary(graph, SF_OP_ADD, a, b));
  ck_assert_int_eq(sf_graph_save(graph, p->model), SF_OK);
  for (int i = 0; i < WEIGHTS; i++) free(w[i]);
  sf_graph_release(graph);
  ck_assert_int_eq(sf_graph_parse_file(context, p->model, &graph), SF_OK);
  sf_program *program;
  ck_assert_int_eq(sf_compile(context, graph, NULL, &program, NULL), SF_OK);
  for (size_t e = 0; e < SFI_COUNT(extents); e++) {
    ck_assert(loaded(program, extents[e])); /* nothing was in the cache */
    tensors_make(graph, extents[e], e, &p->want[e]);
    ck_assert_int_eq(run_tensors(program, &p->want[e]), SF_OK);
    check_against_reference(graph, extents[e], &p->want[e]);
  }
  const sf_graph *canonical = program->graph; /* the joined weight has lost four channels of each, and the one of zeros */
  int64_t joined = 0;
  for (size_t i = 0; i < canonical->n_nodes; i++)
    if (canonical->nodes[i].op == SF_OP_WEIGHT && strstr(canonical->nodes[i].name, "joined"))
      joined += canonical->nodes[i].shape.dims[1].c[0];
  ck_assert_int_eq(joined, 2 * (COLUMNS - 4) - 1);
  sf_program_release(program);
  sf_graph_release(graph);
  sf_context_release(context);
}

static void place_end(place *p) {
  for (size_t e = 0; e < SFI_COUNT(extents); e++) tensors_free(&p->want[e]);
  remove_tree(p->folder);
}

static bool discard(void *user, const char *text, size_t length) {
  (void)user, (void)text, (void)length;
  return true;
}

START_TEST(loaded_by_the_run_that_wants_them) {
  place p;
  sf_compile_stats stats, all;
  sf_kernel_info info;
  place_make(&p);
  sf_context *context = context_on(&p, NULL, 2);
  const bool packs = sfi_backend_of(&context->target) != NULL; /* the reference back end needs nothing packed */
  sf_program *program = open_model(&p, context, 0, &stats), *ahead = open_model(&p, context, SF_COMPILE_PRELOAD, &all);
  for (size_t e = 0; e < SFI_COUNT(extents); e++) {
    ck_assert_int_eq(loaded(program, extents[e]), !packs);
    ck_assert(loaded(ahead, extents[e]));
  }
  ck_assert_int_eq(stats.compiled + stats.weights_packed + all.compiled + all.weights_packed, 0);
  ck_assert_uint_eq(stats.packed_bytes, all.packed_bytes);
  ck_assert_int_eq(stats.packed_bytes > 0, packs);
  sf_program_release(ahead);
  ck_assert(answers(program, &p, 1));
  for (size_t e = 0; e < SFI_COUNT(extents); e++) ck_assert_int_eq(loaded(program, extents[e]), e == 1 || !packs);
  SF_INIT(&info);
  ck_assert_int_eq(sf_program_kernel_info(program, extents[2], 0, &info), SF_OK);
  ck_assert(loaded(program, extents[2]));
  ck_assert_int_eq(sf_program_explain(program, SF_EXPLAIN_JSON, discard, NULL), SF_OK);
  for (size_t e = 0; e < SFI_COUNT(extents); e++) ck_assert(loaded(program, extents[e]) && answers(program, &p, e));
  sf_program_release(program);
  ck_assert_uint_eq(context->jit->table.n, 0);
  sf_context_release(context);
  place_end(&p);
}
END_TEST

/* Another program of the context may have what is wanted. */
START_TEST(shared_with_another_program) {
  place p;
  sf_compile_stats stats;
  place_make(&p);
  sf_context *context = context_on(&p, NULL, 1);
  sf_program *first = open_model(&p, context, 0, &stats), *second = open_model(&p, context, 0, &stats);
  ck_assert(answers(first, &p, 3));
  remove_tree(p.cache);
  ck_assert(answers(second, &p, 3));
  const sfi_class *a = sfi_class_of(first, extents[3]), *b = sfi_class_of(second, extents[3]);
  for (size_t k = 0; k < a->plan.n_kernels; k++) ck_assert_ptr_eq(a->loaded[k].packed, b->loaded[k].packed);
  sf_program_release(first);
  for (size_t e = SFI_COUNT(extents); e-- > 0;) ck_assert(answers(second, &p, e));
  sf_program_release(second);
  sf_context_release(context);
  place_end(&p);
}
END_TEST

static void damage(const char *folder) {
  DIR *stream = opendir(folder);
  ck_assert_ptr_nonnull(stream);
  for (struct dirent *e; (e = readdir(stream));) {
    char path[PATH_MAX];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
    if (stat(path, &st) == 0 && S_ISREG(st.st_mode)) ck_assert_int_eq(truncate(path, st.st_size - 1), 0);
  }
  closedir(stream);
}

/* They are packed anew, from the file as it was when it was opened, wherever its name has gone. */
START_TEST(no_more_in_the_cache) {
  place p;
  sf_compile_stats stats;
  place_make(&p);
  sf_context *context = context_on(&p, NULL, 2);
  sf_program *program = open_model(&p, context, 0, &stats);
  ck_assert_int_eq(unlink(p.weights), 0);
  if (_i)
    remove_tree(p.cache);
  else if (sfi_backend_of(&context->target))
    damage(p.cache);
  for (size_t e = 0; e < SFI_COUNT(extents); e++) ck_assert(answers(program, &p, e));
  sf_program_release(program);
  sf_context_release(context);
  place_end(&p);
}
END_TEST

/* Nor in the file: the run says so, and does nothing. Once the file is what it was, the same program runs. */
START_TEST(no_more_in_the_file) {
  enum { BYTES = 512 };
  place p;
  sf_compile_stats stats;
  sf_error error;
  char kept[BYTES];
  place_make(&p);
  sf_context *context = context_on(&p, NULL, 2);
  if (sfi_backend_of(&context->target)) {
    sf_program *program = open_model(&p, context, 0, &stats);
    FILE *file = fopen(p.weights, "r+b");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fseek(file, -BYTES, SEEK_END), 0);
    ck_assert_uint_eq(fread(kept, 1, BYTES, file), BYTES);
    for (int back = 0; back < 2; back++) {
      ck_assert_int_eq(fseek(file, -BYTES, SEEK_END), 0);
      ck_assert_uint_eq(fwrite(back ? kept : (char[BYTES]){1}, 1, BYTES, file), BYTES);
      fflush(file);
      if (back) break;
      remove_tree(p.cache);
      tensors got = p.want[0];
      got.out[0].data = malloc(got.out_bytes[0]);
      memset(got.out[0].data, 0xa5, got.out_bytes[0]);
      ck_assert_int_eq(run_tensors(program, &got), SF_STATUS_MALFORMED_FILE);
      ck_assert(tensors_untouched(&got));
      free(got.out[0].data);
      ck_assert_int_eq(sf_context_take_error(context, &error), SF_STATUS_MALFORMED_FILE);
      ck_assert_ptr_nonnull(strstr(error.message, "has changed"));
      ck_assert_ptr_nonnull(strstr(error.file, "net.safetensors"));
    }
    fclose(file);
    for (size_t e = 0; e < SFI_COUNT(extents); e++) ck_assert(answers(program, &p, e));
    sf_program_release(program);
  }
  sf_context_release(context);
  place_end(&p);
}
END_TEST

/* The k-th allocation of a first run fails: it says so, or does without; the next run is right, and nothing is lost. */
START_TEST(out_of_memory) {
  place p;
  sf_compile_stats stats;
  sf_status status = SF_STATUS_OUT_OF_MEMORY;
  place_make(&p);
  long failed = 0;
  for (long k = 1; status != SF_OK || failed == 0; k++) {
    failing_allocator f = {0};
    const sf_allocator allocator = failing_allocator_of(&f);
    sf_context *context = context_on(&p, &allocator, 1);
    sf_program *program = open_model(&p, context, 0, &stats);
    tensors got = p.want[3];
    got.out[0].data = malloc(got.out_bytes[0]);
    atomic_store(&f.fail_from, atomic_load(&f.calls) + k);
    status = run_tensors(program, &got);
    ck_assert(status == SF_OK || status == SF_STATUS_OUT_OF_MEMORY);
    failed += status != SF_OK;
    atomic_store(&f.fail_from, 0);
    ck_assert(answers(program, &p, 3) && answers(program, &p, 0));
    free(got.out[0].data);
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
  size_t first; /* extent */
  int wrong;
} worker;

static void *work(void *argument) {
  worker *w = argument;
  for (size_t i = 0; i < SFI_COUNT(extents); i++) w->wrong += !answers(w->program, w->place, (w->first + i) % SFI_COUNT(extents));
  return NULL;
}

START_TEST(wanted_at_once) {
  enum { THREADS = 8, PROGRAMS = 6 };
  place p;
  sf_compile_stats stats;
  place_make(&p);
  for (int i = 0; i < PROGRAMS; i++) {
    sf_context *context = context_on(&p, NULL, 2);
    sf_program *program = open_model(&p, context, 0, &stats);
    if (i == PROGRAMS - 1) remove_tree(p.cache);
    worker workers[THREADS];
    for (size_t t = 0; t < THREADS; t++) workers[t] = (worker){.program = program, .place = &p, .first = t / 2};
    work_at_once(work, workers, THREADS, sizeof *workers);
    for (size_t t = 0; t < THREADS; t++) ck_assert_int_eq(workers[t].wrong, 0);
    sf_program_release(program);
    sf_context_release(context);
  }
  place_end(&p);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("waiting");
  TCase *cases = tcase_create("waiting");
  tcase_set_timeout(cases, 300);
  tcase_add_test(cases, loaded_by_the_run_that_wants_them);
  tcase_add_test(cases, shared_with_another_program);
  tcase_add_loop_test(cases, no_more_in_the_cache, 0, 2);
  tcase_add_test(cases, no_more_in_the_file);
  tcase_add_test(cases, out_of_memory);
  tcase_add_test(cases, wanted_at_once);
  suite_add_tcase(suite, cases);
  return run_suite(suite);
}
