/* The machine: what it calls itself, and its rates (ir/rates.def), measured once and kept in the cache under that name. A fault is no error
 * of the host's: the rates of targets.def stay. */
#include "jit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Adds the value of the first line of /proc/cpuinfo that starts with `key`. */
static void add_cpuinfo(FILE *file, const char *key, char *out, size_t size) {
  char line[4096];
  rewind(file);
  while (fgets(line, sizeof line, file)) {
    const char *colon = strchr(line, ':');
    if (strncmp(line, key, strlen(key)) != 0 || !colon) continue;
    const size_t used = strlen(out);
    const char *value = colon + 1 + strspn(colon + 1, " \t");
    snprintf(out + used, size - used, "%s%.*s", used ? ", " : "", (int)strcspn(value, "\n"), value);
    return;
  }
}

void sfi_machine_name(char out[SFI_MACHINE_SIZE]) {
  /* Hosts of a cloud share a model's name between kinds of core: the numbers tell them apart. */
  static const char *const keys[] = {"model name",      "cpu family",  "model\t",  "stepping",
                                     "CPU implementer", "CPU variant", "CPU part", "cache size"};
  FILE *file = fopen("/proc/cpuinfo", "re");
  out[0] = 0;
  for (size_t i = 0; file && i < SFI_COUNT(keys); i++) add_cpuinfo(file, keys[i], out, SFI_MACHINE_SIZE);
  if (file) fclose(file);
  if (!out[0]) snprintf(out, SFI_MACHINE_SIZE, "unknown");
}

/* ---- spreading ----------------------------------------------------------------------------------------------------- */

enum { ROUND = 8, PIECES = 32, LINE = 16, VALUES = PIECES * LINE * 8 };

/* Every tile reads all of operand 1, as a product does, and writes its part of operand 0. */
static void exchange(const sf_kernel_args *args, int64_t begin, int64_t end) {
  const float *x = args->buffers[1];
  float *y = args->buffers[0];
  const int64_t part = VALUES / PIECES;
  for (int64_t t = begin; t < end; t++) {
    float sum = 0;
    for (int64_t i = 0; i < VALUES; i += LINE) sum += x[i];
    for (int64_t i = 0; i < part; i++) y[t * part + i] = sum * 0.5f;
  }
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* A median: what a run meets, now and then a thread that has gone to sleep. */
static double time_round(sf_context *context, const sfi_launch *launches) {
  enum { RUNS = 101 };
  double us[RUNS];
  for (int i = 0; i < RUNS; i++) {
    const int64_t begin = sfi_now_ns();
    sfi_execute(context, NULL, launches, ROUND, 1, NULL);
    us[i] = (double)(sfi_now_ns() - begin) * 1e-3;
  }
  qsort(us, RUNS, sizeof *us, by_value);
  return us[RUNS / 2];
}

/* What a kernel on the context's threads takes beyond its share of the work, in a chain in which each reads what all threads wrote just
 * before: most of it is lines that move from core to core. */
static double measure_spread(sf_context *context) {
  static const sfi_kernel none = {.name = "none", .node = SF_NO_VALUE};
  float *values = sfi_calloc(&context->allocator, 2 * VALUES, sizeof *values);
  if (!values) return NAN;
  void *operands[2][2] = {{values, values + VALUES}, {values + VALUES, values}};
  sfi_launch launches[ROUND];
  double us[2];
  for (int spread = 0; spread < 2; spread++) {
    for (int i = 0; i < ROUND; i++)
      launches[i] = (sfi_launch){.kernel = &none,
                                 .fn = exchange,
                                 .operands = operands[i % 2],
                                 .tiles = PIECES,
                                 .chunks = spread ? (int32_t)sfi_min(PIECES, context->threads * 4) : 1};
    us[spread] = time_round(context, launches) / ROUND;
  }
  sfi_free(&context->allocator, values, 2 * VALUES * sizeof *values);
  return us[1] - us[0] / context->threads;
}

/* ---- the record ---------------------------------------------------------------------------------------------------- */

/* In thousandths, whole numbers: decimal points depend on the host's locale. */
static void print_rates(sfi_text *out, const sfi_target *target) {
#define SF_RATE(member, unit, what) sfi_text_printf(out, #member " %lld\n", llround(target->member * 1e3));
#include "rates.def"
#undef SF_RATE
}

/* A rate this far from what its target was assumed to have is none: the machine was too busy. */
static bool plausible(double measured, double assumed) {
  return isfinite(measured) && measured > assumed / 100 && measured < assumed * 100;
}

/* Every rate of the table, in its order, or nothing. */
static bool parse_rates(const sfi_blob *blob, sfi_target *target) {
  char text[1024];
  sfi_target read = *target;
  if (blob->size >= sizeof text) return false;
  memcpy(text, blob->data, blob->size);
  text[blob->size] = 0;
  const char *at = text;
#define SF_RATE(member, unit, what)                                                                                                \
  {                                                                                                                                \
    static const char name[] = #member " ";                                                                                        \
    char *end;                                                                                                                     \
    if (strncmp(at, name, sizeof name - 1) != 0) return false;                                                                     \
    read.member = (double)strtoll(at + sizeof name - 1, &end, 10) * 1e-3;                                                          \
    if (*end != '\n' || !plausible(read.member, target->member)) return false;                                                     \
    at = end + 1;                                                                                                                  \
  }
#include "rates.def"
#undef SF_RATE
  if (*at) return false;
  *target = read;
  return true;
}

static bool measure(sf_context *context, const sfi_backend *backend) {
  sfi_diag diag = {0};
  sfi_target measured = context->target;
  const int64_t begin = sfi_now_ns();
  if (backend->measure(&measured, &context->allocator, &diag) != SF_OK) {
    sfi_log(context, SF_LOG_WARNING, "the machine cannot be measured: %s", diag.error.message);
    return false;
  }
  /* The host's own threads are not ours to start now. */
  if (context->threads > 1 && !context->parallel_for) measured.spread_us = measure_spread(context);
#define SF_RATE(member, unit, what)                                                                                                \
  measured.member =                                                                                                                \
      plausible(measured.member, context->target.member) ? (double)llround(measured.member * 1e3) * 1e-3 : context->target.member;
#include "rates.def"
#undef SF_RATE
  context->target = measured;
  sfi_log(context, SF_LOG_INFO, "machine measured in %.0f ms", (double)(sfi_now_ns() - begin) * 1e-6);
  return true;
}

void sfi_calibrate(sf_context *context) {
  const sfi_backend *backend = sfi_backend_of(&context->target);
  if (!backend) return;
  char machine[SFI_MACHINE_SIZE], key[SFI_MACHINE_SIZE + 128];
  sfi_machine_name(machine);
  const int length = snprintf(key, sizeof key, "rates of %s\n%s%d threads of %s", machine,
                              context->parallel_for ? "the host's " : "", context->threads, context->target.name);
  const sfi_cache_key cache_key = {SFI_ENTRY_RATES, key, (size_t)length, "", "", backend->compiler};
  sfi_cache *cache = context->jit->cache;
  sfi_blob blob;
  int level;
  const bool found = sfi_cache_get(cache, &cache_key, true, &blob, &level, NULL, 0) && parse_rates(&blob, &context->target);
  sfi_blob_deinit(&blob);
  if (!found && measure(context, backend)) {
    sfi_text text = {.allocator = &context->allocator};
    print_rates(&text, &context->target);
    if (!text.failed) sfi_cache_put(cache, &cache_key, true, text.data, text.length);
    sfi_text_deinit(&text);
  }
}
