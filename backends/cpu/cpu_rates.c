/* The rates of the machine it runs on (ir/rates.def), by small kernels of its own that go the way of every other: emitted, compiled,
 * linked. Each rate is the best of several tries, for others on the machine can only slow one down. A few tenths of a second. */
#include "cpu_backend.h"
#include "emission.h"

#include <time.h>

enum { FLOW = 12, UNROLL = 2, TRIES = 9, EXITS = 1 << 16, EXIT_MOST = 8, SLACK = 64 };
/* A try takes about this long: shorter ones would measure the clock, longer ones meet more interruptions. */
static const double try_us = 1500;

/* ---- probes -------------------------------------------------------------------------------------------------------- */

static void keep(sfi_emission *e, const LLVMValueRef *flow) {
  LLVMValueRef sum = flow[0];
  for (int i = 1; i < FLOW; i++) sum = LLVMBuildFAdd(e->builder, sum, flow[i], "");
  sfi_store_vector(e, sum, e->base[0], NULL);
}

static void start(sfi_emission *e, LLVMValueRef *flow) {
  for (int i = 0; i < FLOW; i++) flow[i] = sfi_opaque(e, sfi_vconst(e, i));
}

/* A tile is UNROLL rounds of FLOW independent multiply-adds: more than two units of a latency of four need. */
static sf_status emit_multiply_add(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)k, (void)plan;
  LLVMValueRef flow[FLOW], next[FLOW], half = sfi_opaque(e, sfi_vconst(e, 0.5));
  sfi_loop loop;
  start(e, flow);
  sfi_loop_begin(e, &loop, e->tile_begin, e->tile_end, sfi_i64(e, 1), flow, FLOW);
  for (int i = 0; i < FLOW; i++) next[i] = loop.carried[i];
  for (int u = 0; u < UNROLL; u++)
    for (int i = 0; i < FLOW; i++) next[i] = sfi_fma(e, next[i], half, half);
  sfi_loop_end(e, &loop, next);
  keep(e, loop.carried);
  return SF_OK;
}

/* A tile is FLOW vectors behind operand 0's first SLACK elements; all tiles are read and added up, as often as the symbol says, in one
 * loop: a short one would be left in surprise each time. */
static sf_status emit_read(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)k, (void)plan;
  LLVMValueRef flow[FLOW + 1], next[FLOW + 1], one = sfi_i64(e, 1);
  sfi_loop loop;
  start(e, flow);
  flow[FLOW] = e->tile_begin;
  LLVMValueRef half = sfi_opaque(e, sfi_vconst(e, 0.5));
  LLVMValueRef all = sfi_muli(e, e->symbol, LLVMBuildSub(e->builder, e->tile_end, e->tile_begin, ""));
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), all, one, flow, FLOW + 1);
  LLVMValueRef number = loop.carried[FLOW], behind = sfi_addi(e, number, one);
  LLVMValueRef first = sfi_addi(e, sfi_muli(e, number, sfi_i64(e, (int64_t)FLOW * e->lanes)), sfi_i64(e, SLACK));
  LLVMValueRef tile = sfi_opaque(e, sfi_at(e, e->f32, e->base[0], first)); /* no indexed addresses: each costs an operation */
  for (int i = 0; i < FLOW; i++) {
    LLVMValueRef at = sfi_at(e, e->f32, tile, sfi_i64(e, (int64_t)i * e->lanes));
    next[i] = sfi_fma(e, sfi_load_vector(e, at, NULL), half, loop.carried[i]);
  }
  LLVMValueRef last = LLVMBuildICmp(e->builder, LLVMIntEQ, behind, e->tile_end, "");
  next[FLOW] = LLVMBuildSelect(e->builder, last, e->tile_begin, behind, "");
  sfi_loop_end(e, &loop, next);
  keep(e, loop.carried);
  return SF_OK;
}

/* Tile t is a loop of as many rounds as operand 1, i32, says at t: of next to nothing, which would hide what an exit costs. */
static sf_status emit_exits(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)k, (void)plan;
  LLVMValueRef one = sfi_i64(e, 1), sum = sfi_opaque(e, e->base[0]);
  sfi_loop tile, rounds;
  sfi_loop_begin(e, &tile, e->tile_begin, e->tile_end, one, &sum, 1);
  LLVMValueRef count = LLVMBuildZExt(e->builder, sfi_load_scalar(e, e->i32, e->base[1], tile.index), e->i64, "");
  sfi_loop_begin(e, &rounds, sfi_i64(e, 0), count, one, tile.carried, 1);
  LLVMValueRef next = sfi_opaque(e, rounds.carried[0]);
  sfi_loop_end(e, &rounds, &next);
  sfi_loop_end(e, &tile, rounds.carried);
  LLVMBuildStore(e->builder, tile.carried[0], e->base[0]);
  return SF_OK;
}

typedef struct probe {
  sf_kernel_fn fn;
  sfi_code *code;
} probe;

static sf_status make(sfi_loader *loader, const sfi_target *target, const sf_allocator *allocator, const sfi_emitter *emitter,
                      sfi_diag *diag, probe *out) {
  const sfi_plan plan = {.target = target};
  const sfi_kernel kernel = {.name = emitter->name, .emitter = emitter, .n_operands = 2};
  sfi_blob object = {0};
  sf_status status = sfi_cpu_compile(&plan, &kernel, SFI_FORMAT_OBJECT, allocator, diag, &object);
  if (status == SF_OK) status = sfi_cpu_load(loader, object.data, object.size, diag, &out->fn, &out->code);
  sfi_blob_deinit(&object);
  return status;
}

/* ---- timing -------------------------------------------------------------------------------------------------------- */

static double now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

/* Microseconds of one call over `tiles`, the best of TRIES. */
static double best_us(sf_kernel_fn fn, void *const *buffers, int64_t tiles, int64_t symbol) {
  const sf_kernel_args args = {buffers, symbol};
  double best = 0;
  fn(&args, 0, tiles); /* caches, and the clock of a core that slept */
  for (int i = 0; i < TRIES; i++) {
    int64_t calls = 0;
    const double begin = now_us();
    double now = begin;
    for (; now - begin < try_us; now = now_us(), calls++) fn(&args, 0, tiles);
    const double us = (now - begin) / (double)calls;
    if (i == 0 || us < best) best = us;
  }
  return best;
}

static double gbps(sf_kernel_fn read, const sfi_target *target, float *memory, int64_t bytes) {
  const int64_t tile = (int64_t)FLOW * target->lanes * 4, again = sfi_ceil_div(1 << 18, bytes); /* a call costs next to nothing */
  return (double)(bytes / tile * tile * again) / best_us(read, (void *[]){memory, memory}, bytes / tile, again) * 1e-3;
}

/* Rounds of 1 to EXIT_MOST, in an order that is drawn, or sorted, whose few changes cost nothing. */
static double mispredict_us(sf_kernel_fn exits, uint32_t *rounds, float *memory) {
  uint32_t state = 1;
  double us[2];
  for (int sorted = 0; sorted < 2; sorted++) {
    for (int i = 0; i < EXITS; i++) {
      state = state * 1664525 + 1013904223;
      rounds[i] = 1 + (sorted ? (uint32_t)i / (EXITS / EXIT_MOST) : state >> 29);
    }
    us[sorted] = best_us(exits, (void *[]){memory, rounds}, EXITS, 1);
  }
  /* Of EXIT_MOST lengths that are as likely, a guess is right once in EXIT_MOST times. */
  return (us[0] - us[1]) / EXITS * EXIT_MOST / (EXIT_MOST - 1);
}

sf_status sfi_cpu_measure(sfi_target *target, const sf_allocator *allocator, sfi_diag *diag) {
  static const sfi_emitter emitters[] = {{.name = "multiply-add", .emit = emit_multiply_add},
                                         {.name = "read", .emit = emit_read},
                                         {.name = "exits", .emit = emit_exits}};
  _Static_assert(EXIT_MOST == 1 << 3, "three bits of the generator");
  probe probes[SFI_COUNT(emitters)] = {0};
  sfi_loader *loader = NULL;
  const int64_t most = target->l3_bytes * 3; /* two thirds of it miss, however the cache is shared */
  const size_t bytes = (size_t)most + SLACK * 8;
  float *memory = sfi_alloc(allocator, bytes);
  uint32_t *rounds = sfi_alloc(allocator, EXITS * sizeof *rounds);
  sf_status status = memory && rounds ? sfi_cpu_loader_create(allocator, diag, &loader) : sfi_fail_memory(diag);
  for (size_t i = 0; i < SFI_COUNT(emitters) && status == SF_OK; i++)
    status = make(loader, target, allocator, &emitters[i], diag, &probes[i]);
  if (status != SF_OK) goto done;
  memset(memory, 0, bytes); /* a page that was never written is the one page of zeros */
  enum { FMA_TILES = 20000 };
  target->peak_gflops =
      2.0 * FMA_TILES * UNROLL * FLOW * target->lanes / best_us(probes[0].fn, (void *[]){memory, memory}, FMA_TILES, 1) * 1e-3;
  target->l1_gbps = gbps(probes[1].fn, target, memory, target->l1_bytes / 3);
  target->l2_gbps = gbps(probes[1].fn, target, memory, target->l2_bytes / 2);
  target->l3_gbps = gbps(probes[1].fn, target, memory, target->l2_bytes + target->l3_bytes / 4);
  target->memory_gbps = gbps(probes[1].fn, target, memory, most);
  target->mispredict_cycles = mispredict_us(probes[2].fn, rounds, memory) / sfi_target_cycle_us(target);
done:
  for (size_t i = 0; i < SFI_COUNT(probes); i++)
    if (probes[i].code) sfi_cpu_unload(loader, probes[i].code);
  if (loader) sfi_cpu_loader_destroy(loader);
  sfi_free(allocator, rounds, EXITS * sizeof *rounds);
  sfi_free(allocator, memory, bytes);
  return status;
}
