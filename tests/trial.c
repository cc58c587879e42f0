/* See trial.h. */
#include "trial.h"
#include "bound.h"
#include "compare.h"
#include "jit.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { GUARD = 64, POISON = 0xff, NAME = 256 };

static char running[NAME]; /* what a signal handler can tell */

/* ---- tensors ------------------------------------------------------------------------------------------------------- */

/* `bytes` of poison behind GUARD bytes of it, with the untouchable page next. */
static void *place(sf_room *room, size_t bytes) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE), need = (bytes + GUARD + page - 1) / page * page;
  if (need > room->bytes) {
    if (room->base) munmap(room->base, room->bytes + page);
    room->base = mmap(NULL, need + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room->base == MAP_FAILED || mprotect(room->base + need, page, PROT_NONE) != 0) abort(); /* of the test's own memory */
    room->bytes = need;
  }
  unsigned char *data = room->base + room->bytes - bytes;
  memset(data - GUARD, POISON, bytes + GUARD);
  return data;
}

static size_t bytes_of(const sf_tensor *t) {
  return (size_t)sf_tensor_count(t) * sfi_dtype_of(t->dtype)->bytes;
}

static sf_tensor doubles_like(const sf_tensor *like) {
  sf_tensor t = *like;
  t.dtype = SF_F64;
  t.data = malloc(bytes_of(&t) + 1);
  if (!t.data) abort();
  return t;
}

static void release_given(sf_trial *t) {
  for (int32_t i = 0; i < t->given.n_outputs; i++) {
    free(t->want[i].data);
    free(t->bound[i].data);
  }
  sf_random_tensors_free(&t->given);
  t->given = (sf_random_tensors){0};
}

bool sf_trial_begin(sf_trial *t, const sf_graph *graph, uint64_t seed, bool special, int64_t symbol) {
  release_given(t);
  t->symbol = symbol;
  sf_random_tensors_make(graph, seed, special, SF_F32, symbol, &t->given);
  assert(t->given.n_inputs <= SF_TRIAL_PORTS && t->given.n_outputs <= SF_TRIAL_PORTS);
  for (int32_t i = 0; i < t->given.n_inputs; i++) {
    t->inputs[i] = t->given.inputs[i];
    t->inputs[i].data = place(&t->rooms[0][i], bytes_of(&t->inputs[i]));
    memcpy(t->inputs[i].data, t->given.inputs[i].data, bytes_of(&t->inputs[i]));
  }
  for (int32_t i = 0; i < t->given.n_outputs; i++) {
    t->want[i] = doubles_like(&t->given.outputs[i]);
    t->bound[i] = doubles_like(&t->given.outputs[i]);
  }
  if (sf_bounded_run(graph, symbol, t->given.inputs, t->want, t->bound)) return true;
  snprintf(t->failure, sizeof t->failure, "the reference is out of memory");
  return false;
}

void sf_trial_end(sf_trial *t) {
  release_given(t);
  for (size_t k = 0; k < SFI_COUNT(t->rooms); k++)
    for (int32_t i = 0; i < SF_TRIAL_PORTS; i++)
      if (t->rooms[k][i].base) munmap(t->rooms[k][i].base, t->rooms[k][i].bytes + (size_t)sysconf(_SC_PAGESIZE));
}

/* ---- runs ---------------------------------------------------------------------------------------------------------- */

static bool failed(sf_trial *t, const char *how, const char *format, ...) SFI_PRINTF(3, 4);
static bool failed(sf_trial *t, const char *how, const char *format, ...) {
  va_list arguments;
  int n = snprintf(t->failure, sizeof t->failure, "%s at %lld: ", how, (long long)t->symbol);
  va_start(arguments, format);
  vsnprintf(t->failure + n, sizeof t->failure - (size_t)n, format, arguments);
  va_end(arguments);
  return false;
}

/* The runtime cuts a kernel where that pays: here none, or all. New slots, because old ones remember how they were cut. */
static void cut(sf_program *program, bool pieces) {
  sfi_diag diag = {0};
  program->context->worth_spreading_us = pieces ? -1 : INFINITY;
  sfi_slots_destroy(program);
  if (sfi_slots_create(program, &diag) != SF_OK) abort();
}

static bool guard_holds(const sf_tensor *output) {
  for (int i = 1; i <= GUARD; i++)
    if (((const unsigned char *)output->data)[-i] != POISON) return false;
  return true;
}

static int64_t first_unwritten(const sf_tensor *output) {
  static const unsigned char poison[] = {POISON, POISON, POISON, POISON};
  for (int64_t i = 0; i < sf_tensor_count(output); i++)
    if (memcmp((const float *)output->data + i, poison, sizeof poison) == 0) return i;
  return -1;
}

static bool run(sf_trial *t, sf_program *program, const char *how, sf_room *rooms, sf_tensor *outputs) {
  for (int32_t i = 0; i < t->given.n_outputs; i++) {
    outputs[i] = t->given.outputs[i];
    outputs[i].data = place(&rooms[i], bytes_of(&outputs[i]));
  }
  snprintf(running, sizeof running, "%s at %lld", how, (long long)t->symbol);
  sf_status st = sf_run(program, t->given.n_inputs, t->inputs, t->given.n_outputs, outputs);
  if (st != SF_OK) {
    sf_error error;
    sf_context_take_error(program->context, &error);
    return failed(t, how, "%s: %s: %s", sf_status_text(st), error.op, error.message);
  }
  for (int32_t i = 0; i < t->given.n_outputs; i++) {
    int64_t unwritten = first_unwritten(&outputs[i]);
    if (!guard_holds(&outputs[i])) return failed(t, how, "output %d: wrote before its begin", i);
    if (unwritten >= 0) return failed(t, how, "output %d: element %lld not written", i, (long long)unwritten);
  }
  for (int32_t i = 0; i < t->given.n_inputs; i++)
    if (memcmp(t->given.inputs[i].data, t->inputs[i].data, bytes_of(&t->inputs[i])) != 0)
      return failed(t, how, "input %d: changed", i);
  t->runs++;
  return true;
}

bool sf_trial_run(sf_trial *t, sf_program *program, const char *how) {
  cut(program, false);
  if (!run(t, program, how, t->rooms[1], t->got)) return false;
  for (int32_t i = 0; i < t->given.n_outputs; i++) {
    sf_comparison comparison;
    bool same = sf_compare_bounded(&t->got[i], &t->want[i], &t->bound[i], &comparison);
    t->compared += comparison.compared;
    t->skipped += comparison.skipped;
    if (comparison.compared > 0 && comparison.worst_ratio > t->worst) t->worst = comparison.worst_ratio;
    if (same) continue;
    char text[256];
    sf_comparison_print(&comparison, text, sizeof text);
    return failed(t, how, "output %d: %s", i, text);
  }
  return true;
}

bool sf_trial_run_in_pieces(sf_trial *t, sf_program *program, const char *how) {
  cut(program, true);
  if (!run(t, program, how, t->rooms[2], t->again)) return false;
  for (int32_t i = 0; i < t->given.n_outputs; i++)
    if (memcmp(t->got[i].data, t->again[i].data, bytes_of(&t->got[i])) != 0)
      return failed(t, how, "output %d: differs between one piece and several", i);
  return true;
}

/* ---- surroundings -------------------------------------------------------------------------------------------------- */

static void tell(int number) {
  static const char text[] = "touched what is behind a tensor: ";
  ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);
  written += write(STDERR_FILENO, running, strlen(running));
  written += write(STDERR_FILENO, "\n", 1);
  signal(number, SIG_DFL); /* the access is made again, and ends the program */
  (void)written;
}

void sf_trial_watch(void) {
  signal(SIGSEGV, tell);
  signal(SIGBUS, tell);
}

static void in_reverse(void *user, int64_t count, void (*body)(void *argument, int64_t i), void *argument) {
  (void)user;
  for (int64_t i = count - 1; i >= 0; i--) body(argument, i);
}

sf_status sf_trial_context(sf_isa isa, const char *cache_dir, sf_context **out_context) {
  sf_context_options options;
  SF_INIT(&options);
  options.isa = isa;
  options.cache_dir = cache_dir;
  options.threads = SF_TRIAL_PIECES;
  options.parallel_for = in_reverse;
  return sf_context_create(&options, out_context);
}
