/* Running kernels in order on the host's threads, on OpenMP's, or on the caller's alone. Tiles are independent, so no result depends
 * on how they are cut or who computes them. Never allocates. */
#include "jit.h"
#include "ref.h"

#include <sched.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#if defined(_OPENMP)
#include <omp.h>
#endif

/* Dense tensor of a node's shape at `symbol`; the run has checked that the extents fit. */
static sf_tensor tensor_of(const sf_graph *graph, sf_value value, int64_t symbol, void *data) {
  const sfi_node *node = &graph->nodes[value];
  sf_tensor tensor = {.data = data, .dtype = node->dtype, .rank = node->shape.rank};
  for (int32_t d = 0; d < tensor.rank; d++) sfi_poly_eval(node->shape.dims[d], symbol, &tensor.dims[d]);
  return tensor;
}

static void run_node(const sf_graph *graph, const sfi_launch *launch, int64_t symbol) {
  sf_value value = launch->kernel->node;
  sf_tensor inputs[SFI_OPERANDS_MAX];
  const sfi_node *node = &graph->nodes[value];
  for (int32_t i = 0; i < node->n_inputs; i++) inputs[i] = tensor_of(graph, node->inputs[i], symbol, launch->operands[1 + i]);
  sf_tensor output = tensor_of(graph, value, symbol, launch->operands[0]);
  sfi_ref_node(graph, value, inputs, &output);
}

/* A copy of a tensor to its own place: the host has given one memory for a cache and what is appended to it. */
static bool stays(const sfi_launch *launch) {
  const sfi_kernel *kernel = launch->kernel;
  if (!kernel) return false; /* a probe of the machine's rates */
  if (kernel->n_operands != 2 || launch->operands[0] != launch->operands[1]) return false;
  if (kernel->anchor == SFI_ANCHOR_NODE) return kernel->node == SF_NO_VALUE;
  sfi_access from = kernel->operand[1];
  from.buffer = kernel->operand[0].buffer;
  return kernel->anchor == SFI_ANCHOR_MAP && kernel->n_bounds == 0 && kernel->epilogue.n == 1 &&
         memcmp(&from, &kernel->operand[0], sizeof from) == 0;
}

static void run_tiles(const sf_graph *graph, const sfi_launch *launch, int64_t symbol, int64_t begin, int64_t end) {
  if (begin == end || stays(launch)) return;
  if (launch->fn) {
    const sf_kernel_args args = {launch->operands, symbol};
    launch->fn(&args, begin, end);
  } else if (launch->kernel->node != SF_NO_VALUE) {
    run_node(graph, launch, symbol);
  } else if (launch->copy_bytes) {
    memcpy(launch->operands[0], launch->operands[1], launch->copy_bytes);
  }
}

/* First tile of chunk i of n. */
static int64_t cut(int64_t tiles, int64_t i, int64_t n) {
  return tiles / n * i + sfi_min(tiles % n, i);
}

int64_t sfi_now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* What one call of sfi_execute works on. */
typedef struct work {
  const sf_graph *graph;
  const sfi_launch *launches;
  int64_t symbol;
  sf_span *spans; /* of all chunks in order, or NULL */
} work;

/* Chunk i of launch k; `number` counts the chunks of all launches. */
static void run_chunk(const work *w, size_t k, int64_t i, int64_t number) {
  const sfi_launch *launch = &w->launches[k];
  const int64_t begin = cut(launch->tiles, i, launch->chunks), end = cut(launch->tiles, i + 1, launch->chunks);
  if (!w->spans) {
    run_tiles(w->graph, launch, w->symbol, begin, end);
    return;
  }
  sf_span span = {.kernel = (int32_t)k, .thread = (uint64_t)(uintptr_t)pthread_self(), .begin_ns = sfi_now_ns()};
  run_tiles(w->graph, launch, w->symbol, begin, end);
  span.end_ns = sfi_now_ns();
  w->spans[number] = span;
}

/* For the host's parallel_for. */
typedef struct host_launch {
  const work *work;
  size_t k;
  int64_t before; /* chunks of the launches before k */
} host_launch;

static void run_host_chunk(void *argument, int64_t i) {
  const host_launch *h = argument;
  run_chunk(h->work, h->k, i, h->before + i);
}

static void run_alone(sf_context *context, const work *w, size_t n) {
  int64_t before = 0;
  for (size_t k = 0; k < n; before += w->launches[k++].chunks) {
    const int32_t chunks = w->launches[k].chunks;
    if (chunks > 1 && context->parallel_for) {
      host_launch h = {w, k, before};
      context->parallel_for(context->parallel_for_user, chunks, run_host_chunk, &h);
    } else {
      for (int32_t i = 0; i < chunks; i++) run_chunk(w, k, i, before + i);
    }
  }
}

#if defined(_OPENMP)
/* One region a run. The chunks of each kernel are cut into as many ranges as there are threads, and each thread first takes those of its
 * own range, in order, and then what is left in others': the parts of a tensor that a thread has written it mostly reads again, where they
 * lie in its own cache. Whoever comes first does the work, and a thread that the system keeps away holds up nothing but the chunk it has
 * begun. All chunks of a kernel are done before one of the next begins. A host's own region around this call makes ours a team of one or
 * more: whatever its size, it works the same. */
enum { RANGES_MAX = 16, LINE = 64 };

typedef struct range {
  _Alignas(LINE) atomic_llong taken; /* of its chunks of all kernels, in order */
} range;

typedef struct region {
  range ranges[RANGES_MAX];
  int32_t n_ranges;
  _Alignas(LINE) atomic_llong done; /* chunks of all kernels */
} region;

/* Takes the next chunk of a range below `end`; its number, -1 where none is left. */
static int64_t take(range *r, int64_t end) {
  long long number = atomic_load_explicit(&r->taken, memory_order_relaxed);
  while (number < end) {
    if (atomic_compare_exchange_weak_explicit(&r->taken, &number, number + 1, memory_order_relaxed, memory_order_relaxed))
      return number;
  }
  return -1;
}

/* Waits for others' chunks: briefly awake, then giving way. */
static void wait_for(const atomic_llong *done, int64_t count) {
  for (int turn = 0; atomic_load_explicit(done, memory_order_acquire) < count; turn++) {
    if (turn > 2000) sched_yield();
#if defined(__x86_64__)
    else
      __builtin_ia32_pause();
#endif
  }
}

static void run_region(sf_context *context, const work *w, size_t n) {
  region r = {.n_ranges = (int32_t)sfi_min(context->threads, RANGES_MAX)};
  atomic_init(&r.done, 0);
  for (int32_t i = 0; i < r.n_ranges; i++) atomic_init(&r.ranges[i].taken, 0);
#pragma omp parallel num_threads(context->threads)
  {
    int64_t before = 0, end[RANGES_MAX] = {0}; /* chunks of the kernels before this one; of each range, this one's included */
    for (size_t k = 0; k < n; k++) {
      const int64_t chunks = w->launches[k].chunks;
      int64_t own = 0;
      for (int32_t i = 0; i < r.n_ranges; i++) end[i] += cut(chunks, i + 1, r.n_ranges) - cut(chunks, i, r.n_ranges);
      for (int32_t i = 0; i < r.n_ranges; i++) {
        const int32_t at = (omp_get_thread_num() + i) % r.n_ranges;
        for (int64_t number; (number = take(&r.ranges[at], end[at])) >= 0;) {
          const int64_t chunk = cut(chunks, at + 1, r.n_ranges) - (end[at] - number);
          run_chunk(w, k, chunk, before + chunk);
          own++;
        }
      }
      if (own) atomic_fetch_add_explicit(&r.done, own, memory_order_release); /* once: cores pass its line on slowly */
      before += chunks;
      if (k + 1 < n) wait_for(&r.done, before); /* for the last one the region's own end does */
    }
  }
}
#endif

void sfi_execute(sf_context *context, const sf_graph *graph, const sfi_launch *launches, size_t n, int64_t symbol, sf_span *spans) {
  const work w = {graph, launches, symbol, spans};
#if defined(_OPENMP)
  bool spread = false;
  for (size_t k = 0; k < n; k++) spread = spread || launches[k].chunks > 1;
  /* A child of fork() has lost OpenMP's threads, and libgomp would wait for them for ever. */
  if (spread && !context->parallel_for && context->jit->process == getpid()) {
    run_region(context, &w, n);
    return;
  }
#endif
  run_alone(context, &w, n);
}
