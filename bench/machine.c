/* The machine: what it is, what it can do at best, and how the process and the libraries in it are set up before anything is timed. */
#include "bench.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#if defined(_OPENMP)
#include <omp.h>
#endif

/* ---- what it is --------------------------------------------------------------------------------------------------- */

/* Value of the first line of /proc/cpuinfo that starts with `key`. */
static bool cpuinfo(const char *key, char *out, size_t size) {
  FILE *file = fopen("/proc/cpuinfo", "r");
  char line[4096];
  bool found = false;
  while (file && !found && fgets(line, sizeof line, file)) {
    const char *colon = strchr(line, ':');
    if (strncmp(line, key, strlen(key)) != 0 || !colon) continue;
    snprintf(out, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
    found = true;
  }
  if (file) fclose(file);
  return found;
}

/* As the first core sees it: sysconf would add up the shares of all cores of a socket. */
static int64_t cache_bytes(int level) {
  for (int i = 0; i < 8; i++) {
    char path[96], type[32] = "";
    int at = 0;
    long long kilobytes = 0;
    static const char *const names[] = {"level", "type", "size"};
    for (int n = 0; n < 3; n++) {
      snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/%s", i, names[n]);
      FILE *file = fopen(path, "r");
      if (!file) return 0;
      const int read = n == 0 ? fscanf(file, "%d", &at) : n == 1 ? fscanf(file, "%31s", type) : fscanf(file, "%lldK", &kilobytes);
      fclose(file);
      if (read != 1) return 0;
    }
    if (at == level && strcmp(type, "Instruction") != 0) return kilobytes * 1024;
  }
  return 0;
}

void bench_machine_look(bench_machine *m) {
  static const char *const features[] = {"avx2",        "fma",         "avx512f",  "avx512bw", "avx512vl",
                                         "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd",    "sve"};
  char flags[4096] = "", family[16] = "", model[16] = "";
  *m = (bench_machine){.lanes = (int32_t)(sizeof(float) * 4)};
  if (cpuinfo("model name", m->cpu, sizeof m->cpu) && cpuinfo("cpu family", family, sizeof family) &&
      cpuinfo("model\t", model, sizeof model)) {
    const size_t used = strlen(m->cpu);
    snprintf(m->cpu + used, sizeof m->cpu - used, " (family %s model %s)", family, model);
  }
  if (!cpuinfo("flags", flags, sizeof flags)) cpuinfo("Features", flags, sizeof flags);
  const size_t flags_length = strlen(flags);
  flags[flags_length < sizeof flags - 1 ? flags_length : sizeof flags - 2] = ' ';
  for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
    char word[32];
    snprintf(word, sizeof word, "%s ", features[i]);
    const char *at = strstr(flags, word);
    if (!at || (at > flags && at[-1] != ' ')) continue;
    const size_t used = strlen(m->features);
    snprintf(m->features + used, sizeof m->features - used, "%s%s", used ? " " : "", features[i]);
  }
  m->cores = (int32_t)sysconf(_SC_NPROCESSORS_ONLN);
  m->lanes = strstr(m->features, "avx512f") ? 16 : strstr(m->features, "avx2") ? 8 : 4;
  m->l1_bytes = cache_bytes(1);
  m->l2_bytes = cache_bytes(2);
  m->l3_bytes = cache_bytes(3);
  snprintf(m->compiler, sizeof m->compiler, "%s %s; %s",
#if defined(__clang__)
           "clang",
#else
           "gcc",
#endif
           __VERSION__, bench_compiler());
}

/* ---- what it can do ----------------------------------------------------------------------------------------------- */

typedef float wide __attribute__((vector_size(64), aligned(4)));

static float sum_of(const wide *v) {
  float lanes[16], sum = 0;
  memcpy(lanes, v, sizeof lanes);
  for (int l = 0; l < 16; l++) sum += lanes[l];
  return sum;
}

#define TWELVE(EACH) EACH(0) EACH(1) EACH(2) EACH(3) EACH(4) EACH(5) EACH(6) EACH(7) EACH(8) EACH(9) EACH(10) EACH(11)

/* Twelve independent chains: more than two units of latency four need. Every chain is in the result. */
static float multiply_add(int64_t rounds) {
  wide x = {0}, y = {0}, sum = {0};
  x += 0.999f;
  y += 1e-3f;
#define START(i) wide a##i = x + (float)i;
#define STEP(i) a##i = a##i * x + y;
#define ADD(i) sum += a##i;
  TWELVE(START)
  for (int64_t r = 0; r < rounds; r++) {
    TWELVE(STEP)
  }
  TWELVE(ADD)
#undef START
#undef STEP
#undef ADD
  return sum_of(&sum);
}

static float add_up(const float *x, int64_t n) {
#define START(i) wide a##i = {0};
#define STEP(i) a##i += *(const wide *)(const void *)(x + at + 16 * i);
#define ADD(i) sum += a##i;
  wide sum = {0};
  TWELVE(START)
  for (int64_t at = 0; at + 12 * 16 <= n; at += 12 * 16) {
    TWELVE(STEP)
  }
  TWELVE(ADD)
#undef START
#undef STEP
#undef ADD
  return sum_of(&sum);
}

#if defined(_OPENMP)
/* Two threads take turns. Cores that share no cache pass on what they have written several times as slowly, and a virtual machine's move. */
static double handover_ns(void) {
  enum { TURNS = 4000 };
  _Alignas(64) atomic_int turn = 0;
  double begin = 0, end = 0;
#pragma omp parallel num_threads(2)
  {
    const int self = omp_get_thread_num(), n = omp_get_num_threads();
    if (self == 0) begin = bench_now_us();
    for (int i = self; i < TURNS && n == 2; i += 2) {
      while (atomic_load(&turn) < i) continue;
      atomic_store(&turn, i + 1);
    }
    if (self == n - 1) end = bench_now_us();
  }
  return end > begin && turn == TURNS ? (end - begin) * 1e3 / TURNS : 0;
}
#endif

void bench_machine_measure(bench_machine *m, int threads) {
  enum { ROUNDS = 2000000, TRIES = 3 };
  const int64_t elements = (m->l3_bytes > (16 << 20) ? m->l3_bytes : (16 << 20)) * 4 / (int64_t)sizeof(float) / 192 * 192;
  float *memory = aligned_alloc(64, (size_t)elements * sizeof *memory);
  volatile float sink = 0;
  if (memory) memset(memory, 0, (size_t)elements * sizeof *memory);
  for (int i = 0; i < TRIES; i++) { /* the best: others may disturb */
    double begin = bench_now_us();
#if defined(_OPENMP)
#pragma omp parallel for num_threads(threads) schedule(static)
#endif
    for (int t = 0; t < threads; t++) sink = multiply_add(ROUNDS);
    const double gflops = 2.0 * 12 * 16 * ROUNDS * threads / (bench_now_us() - begin) * 1e-3;
    if (gflops > m->gflops) m->gflops = gflops;
    if (!memory) continue;
    begin = bench_now_us();
#if defined(_OPENMP)
#pragma omp parallel for num_threads(threads) schedule(static)
#endif
    for (int t = 0; t < threads; t++) sink = add_up(memory + elements / threads / 16 * 16 * t, elements / threads);
    const double gbps = (double)elements * sizeof *memory / (bench_now_us() - begin) * 1e-3;
    if (gbps > m->gbps) m->gbps = gbps;
  }
  (void)sink;
  free(memory);
#if defined(_OPENMP)
  if (threads > 1) m->handover_ns = handover_ns();
#endif
}

/* ---- floors ------------------------------------------------------------------------------------------------------- */

bench_floor bench_floor_of(const bench_machine *m, const bench_problem *p) {
  bench_floor f = {.bound = "none"};
  if (m->gflops <= 0) return f;
  f.fma = 2.0 * (double)p->nnz * (double)p->columns / m->gflops * 1e-3;
  /* Two FMAs and two loads a cycle. With four vectors of columns, or all there are, a nonzero loads each of X once (no rows share it),
   * its value, and a quarter of a packed index. */
  const double vectors = (double)p->columns / m->lanes, v = vectors < 4 ? vectors : 4;
  if (v >= 1 && p->nnz < p->rows * p->cols) f.load = f.fma * (v + 1.25) / v;
  /* Every byte once: values, the cheaper of a bitmap and 16-bit indices, X, Y. Applies where they do not fit the last cache. */
  const double cells = (double)p->rows * (double)p->cols, nnz = (double)p->nnz;
  const double index = p->nnz == p->rows * p->cols ? 0 : cells / 8 < nnz * 2 ? cells / 8 : nnz * 2;
  const double bytes = 4 * nnz + index + 4.0 * (double)(p->rows + p->cols) * (double)p->columns;
  if (m->gbps > 0 && bytes > (double)m->l3_bytes) f.memory = bytes / m->gbps * 1e-3;
  f.us = f.fma;
  f.bound = "fma";
  if (f.load > f.us) {
    f.us = f.load;
    f.bound = "load";
  }
  if (f.memory > f.us) {
    f.us = f.memory;
    f.bound = "memory";
  }
  return f;
}

/* ---- the environment ---------------------------------------------------------------------------------------------- */

/* Libraries read these when they are loaded, some before main: hence a new start. What was set before is overruled, so that one machine's
 * figures are those of another user on it. */
void bench_environment(char **argv, int threads) {
  static const char mark[] = "SF_BENCH_STARTED";
  static const char *const settings[][2] = {
      {"OMP_DYNAMIC", "false"},  {"OMP_PROC_BIND", "true"}, {"OMP_PLACES", "cores"},
      {"MKL_DYNAMIC", "FALSE"},  {"LIBXSMM_VERBOSE", "0"}, /* below 0 it leaves its code in the working directory */
      {"ONEDNN_VERBOSE", "none"}};                         /* it would write between our lines */
  static const char *const numbers[] = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"};
  char number[16], flags[4096];
  if (getenv(mark)) return;
  setenv(mark, "1", 1);
  snprintf(number, sizeof number, "%d", threads);
  for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) setenv(settings[i][0], settings[i][1], 1);
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) setenv(numbers[i], number, 1);
  /* OpenBLAS 0.3.21 takes unknown AVX-512 machines for Haswells, at half the speed. */
  unsetenv("OPENBLAS_CORETYPE");
  unsetenv("OPENBLAS_L2_SIZE");
  if (cpuinfo("flags", flags, sizeof flags) && strstr(flags, " avx512f ") && strstr(flags, " avx512vl "))
    setenv("OPENBLAS_CORETYPE", "SkylakeX", 1);
  cpu_set_t all, pinned;
  CPU_ZERO(&pinned);
  if (sched_getaffinity(0, sizeof all, &all) == 0) {
    int left = threads;
    for (int c = 0; c < CPU_SETSIZE && left; c++) {
      if (!CPU_ISSET(c, &all)) continue;
      CPU_SET(c, &pinned);
      left--;
    }
    sched_setaffinity(0, sizeof pinned, &pinned);
  }
  execv("/proc/self/exe", argv); /* where it cannot, go on as we are */
}
