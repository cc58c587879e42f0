/* Out of memory: in several scenarios the k-th allocation fails, once and for good, where the calls that lead to it are others than before.
 * The call says so, nothing leaks, and the same context does the whole scenario right afterwards. */
#include "run_fixture.h"

#include <execinfo.h>

typedef struct scenario {
  const char *name;
  int network;
  bool cold; /* every try finds an empty cache: slow, since every try compiles */
  sf_isa isa;
  uint32_t flags;
  sf_tune tune;
} scenario;

static const scenario scenarios[] = {
    {"dense", 0, false, SF_ISA_NATIVE, 0},
    {"image", 1, false, SF_ISA_NATIVE, 0},
    {"mixed", 2, false, SF_ISA_NATIVE, 0},
    {"wide", 4, false, SF_ISA_NATIVE, 0},
    {"fixed, cold", 3, true, SF_ISA_NATIVE, 0},
    {"fixed, cold, cache only, tuned", 3, true, SF_ISA_NATIVE, SF_COMPILE_CACHE_ONLY, SF_TUNE_FAST},
    {"dense, reference", 0, false, SF_ISA_REFERENCE, 0},
};

/* ---- places that allocate ------------------------------------------------------------------------------------------ */

/* The calls that led to each allocation, as a number. */
enum { PLACES_MAX = 1 << 14, DEPTH = 12 };
typedef struct recorder {
  uint64_t places[PLACES_MAX];
  int32_t count;
} recorder;
static recorder recorded;

static void *record_allocation(void *user, size_t bytes, size_t alignment) {
  recorder *r = user;
  void *calls[DEPTH];
  int depth = backtrace(calls, DEPTH);
  ck_assert_int_lt(r->count, PLACES_MAX);
  uint64_t place = UINT64_C(14695981039346656037);
  for (int i = 0; i < depth; i++) place = (place ^ (uint64_t)(uintptr_t)calls[i]) * UINT64_C(1099511628211);
  r->places[r->count++] = place;
  return sfi_default_allocator.allocate(sfi_default_allocator.user, bytes, alignment);
}

static void release(void *user, void *memory, size_t bytes) {
  (void)user;
  sfi_default_allocator.release(sfi_default_allocator.user, memory, bytes);
}

/* Has this place been tried, in this scenario or one before? Now it has. */
static bool tried(uint64_t place) {
  static uint64_t places[PLACES_MAX];
  static int32_t count;
  for (int32_t i = 0; i < count; i++)
    if (places[i] == place) return true;
  ck_assert_int_lt(count, PLACES_MAX);
  places[count++] = place;
  return false;
}

/* ---- scenarios ----------------------------------------------------------------------------------------------------- */

static bool discard(void *user, const char *text, size_t length) {
  (void)user, (void)text, (void)length;
  return true;
}

static void discard_probe(void *user, const char *entry, sf_probe_state state, const char *reason) {
  (void)user, (void)entry, (void)state, (void)reason;
}

/* Everything that a host does with a graph. The first failure, which only lack of memory may be. */
static sf_status use(sf_context *context, const scenario *s, const tensors *t) {
  sf_graph *graph = build_network(context, s->network, 1);
  if (!graph) return SF_STATUS_OUT_OF_MEMORY;
  sf_program *program = NULL;
  sf_compile_options options;
  SF_INIT(&options);
  options.flags = s->flags;
  options.tune = s->tune;
  sf_status status = sf_graph_status(graph);
  if (status == SF_OK) status = sf_compile(context, graph, &options, &program, NULL);
  if (status != SF_OK) ck_assert_ptr_null(program);
  if (status == SF_OK && program) status = run_tensors(program, t);
  if (status == SF_OK && program) status = sf_program_explain(program, 0, discard, NULL);
  if (status == SF_OK && program) status = sf_program_explain(program, SF_EXPLAIN_JSON | SF_EXPLAIN_MEASURE, discard, NULL);
  if (status == SF_OK) status = sf_emit(context, graph, NULL, SF_STAGE_FACTS, NULL, NULL, discard, NULL);
  if (status == SF_OK) status = sf_probe(context, graph, NULL, discard_probe, NULL);
  sf_program_release(program);
  sf_graph_release(graph);
  return status;
}

static sf_context *context_of(const scenario *s, const sf_allocator *allocator, const char *folder) {
  sf_context_options options;
  sf_context *context;
  SF_INIT(&options);
  options.allocator = allocator;
  options.cache_dir = folder;
  options.isa = s->isa;
  options.threads = 1; /* the k-th allocation is the same one every time */
  sf_status status = sf_context_create(&options, &context);
  ck_assert(status == SF_OK || status == SF_STATUS_OUT_OF_MEMORY);
  ck_assert_int_eq(status == SF_OK, context != NULL);
  return context;
}

static void empty_folder(const char *folder) {
  remove_tree(folder);
  ck_assert_int_eq(mkdir(folder, 0700), 0);
}

/* One try with the k-th allocation failing. */
static void try(const scenario *s, long k, bool for_good, const tensors *t, const tensors *want, const char *folder) {
  failing_allocator f = {0};
  sf_allocator allocator = failing_allocator_of(&f);
  if (s->cold) empty_folder(folder);
  atomic_store(for_good ? &f.fail_from : &f.fail_at, k);
  sf_context *context = context_of(s, &allocator, folder);
  if (context) {
    sf_status status = use(context, s, t);
    const bool reached = atomic_load(&f.calls) >= k; /* what depends on times may need less than it did */
    /* A lack in the cache is a miss, in the log a silence: a scenario may well succeed without that piece of memory. */
    ck_assert_msg(status == SF_OK || (reached && status == SF_STATUS_OUT_OF_MEMORY), "%s, k %ld: status %d", s->name, k, status);
    if (status != SF_OK) {
      sf_error error;
      ck_assert_int_eq(sf_context_take_error(context, &error), SF_STATUS_OUT_OF_MEMORY);
    }
    atomic_store(&f.fail_at, 0);
    atomic_store(&f.fail_from, 0);
    ck_assert_msg(use(context, s, t) == SF_OK, "%s, k %ld: the context does not recover", s->name, k);
    if (!(s->flags & SF_COMPILE_CACHE_ONLY)) ck_assert(tensors_equal(t, want));
    sf_context_release(context);
  }
  ck_assert_msg(atomic_load(&f.live) == 0 && atomic_load(&f.live_bytes) == 0, "%s, k %ld: %ld blocks leaked", s->name, k,
                atomic_load(&f.live));
}

START_TEST(every_allocation) {
  const scenario *s = &scenarios[_i];
  char folder[64];
  make_folder(folder);
  sf_context *context = plain_context(1);
  sf_graph *graph = build_network(context, s->network, 1);
  tensors t, want;
  tensors_make(graph, s->network == 3 ? 1 : 5, 1, &t);
  tensors_make(graph, s->network == 3 ? 1 : 5, 1, &want);
  scenario serial = *s;
  serial.flags = 0;
  sf_context *like = context_of(&serial, NULL, folder);
  ck_assert_int_eq(use(like, &serial, &want), SF_OK);
  sf_context_release(like);
  /* A try compiles or at least links: one for each place is enough. */
  const sf_allocator recording = {&recorded, record_allocation, release};
  if (s->cold) empty_folder(folder);
  recorded.count = 0;
  like = context_of(s, &recording, folder);
  ck_assert_int_eq(use(like, s, &t), SF_OK);
  const int32_t count = recorded.count;
  sf_context_release(like);
  for (int32_t k = 1; k <= count; k++) {
    if (tried(recorded.places[k - 1])) continue;
    for (int for_good = 0; for_good < 2; for_good++) try(s, k, for_good, &t, &want, folder);
  }
  tensors_free(&t);
  tensors_free(&want);
  sf_graph_release(graph);
  sf_context_release(context);
  remove_tree(folder);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("memory");
  TCase *cases = tcase_create("memory");
  tcase_set_timeout(cases, 600);
  tcase_add_loop_test(cases, every_allocation, 0, (int)SFI_COUNT(scenarios));
  suite_add_tcase(suite, cases);
  return run_suite(suite);
}
