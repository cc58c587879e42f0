/* Every emitter of matrix products against plain fp64 loops: layouts x patterns x odd shapes x targets. Outputs are poisoned, guarded on
 * both sides, and X holds Inf and NaN where W has zeros. */
#include "cpu.h"
#include "passes.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t seed = 1;
static double uniform(void) {
  seed = seed * 6364136223846793005u + 1442695040888963407u;
  return (double)(seed >> 11) / 9007199254740992.0;
}
static float normal(void) {
  return (float)(sqrt(-2 * log(uniform() + 1e-300)) * cos(6.283185307179586 * uniform()));
}

typedef enum layout { PANEL, MATRIX, SYMBOLIC, IMAGE, COLUMN, LAYOUTS } layout;
typedef enum pattern { DENSE, HALF, NINETY, SPARSE, TWO_OF_FOUR, BLOCKS, DEAD, EMPTY, PATTERNS } pattern;
static const char *const pattern_names[] = {"dense",     "50 %", "90 %", "99.9 %", "2:4", "blocks 4x4", "dead rows and columns",
                                            "no nonzero"};

static float element(pattern p, int64_t r, int64_t c) {
  float w = normal();
  switch (p) {
  case DENSE:
    return w;
  case HALF:
    return uniform() < 0.5 ? 0 : w;
  case NINETY:
    return uniform() < 0.9 ? -0.0f : w;
  case SPARSE:
    return uniform() < 0.999 ? 0 : w;
  case TWO_OF_FOUR:
    return c % 4 < 2 ? w : 0;
  case BLOCKS:
    return (r / 4 + c / 4) % 3 ? 0 : w;
  case DEAD:
    return r % 3 == 1 || c % 5 == 2 ? 0 : w;
  default:
    return 0;
  }
}

typedef struct problem {
  layout layout;
  int64_t m, k, t, j;           /* of the contraction; PANEL: columns = j over all panels */
  int64_t channels, size, taps; /* IMAGE: k = channels * taps^2, output (size - taps + 1)^2 */
  float *w, *x, *y, *bias;
  double *want, *magnitude;
  size_t x_count, y_count;
  int64_t *k_offset;
} problem;
enum { GUARD = 64 };

static sfi_loader *loader;
static sf_graph graph; /* only its address is used: the plan's statics are given by hand */

/* x index of (t, k, j) in the layout. */
static size_t x_index(const problem *p, const sfi_kernel *k, int64_t t, int64_t i, int64_t j) {
  if (p->layout == IMAGE) {
    int64_t out = p->size - p->taps + 1;
    return (size_t)(t * p->channels * p->size * p->size + p->k_offset[i] + j / out * p->size + j % out);
  }
  if (p->layout == PANEL) {
    int64_t width = k->ragged.width;
    return (size_t)((j / width * p->k + i) * width + j % width);
  }
  return (size_t)((t * p->k + i) * p->j + j);
}
static size_t y_index(const problem *p, const sfi_kernel *k, int64_t t, int64_t r, int64_t j) {
  if (p->layout == PANEL) return (size_t)((j / k->ragged.width * p->m + r) * k->ragged.width + j % k->ragged.width);
  return (size_t)((t * p->m + r) * p->j + j);
}

static void run_case(const sfi_target *target, problem p, pattern pat, bool special) {
  sfi_diag diag = {0};
  sfi_plan plan = {.graph = &graph, .target = target, .symbol_min = 0, .symbol_max = INT64_MAX};
  sfi_kernel k = {.name = "case", .anchor = SFI_ANCHOR_CONTRACT, .rank = 3, .n_operands = 4};
  int64_t width = target->lanes * 4 <= 16 ? 16 : target->lanes * 2 * (target->lanes == 16 ? 2 : 1), out = 0;
  if (p.layout == IMAGE) {
    out = p.size - p.taps + 1;
    p.k = p.channels * p.taps * p.taps;
    p.j = out * out;
  }
  int64_t panels = p.layout == PANEL ? sfi_ceil_div(p.j, width) : 1;
  sfi_extent one = {sfi_const(1), 1}, rows = {sfi_const(p.m), 1};
  k.extent[1] = rows;
  for (int i = 0; i < 4; i++) k.operand[i].buffer = i;
  switch (p.layout) {
  case PANEL:
    k.extent[0] = (sfi_extent){{{0, 1, 0}}, width};
    k.extent[2] = (sfi_extent){sfi_const(width), 1};
    k.ragged = (sfi_ragged){.width = width, .panel = 0, .lane = 2, .columns = {{0, 1, 0}}};
    k.operand[0].stride[0] = sfi_const(p.m * width), k.operand[0].stride[1] = sfi_const(width);
    k.operand[1].stride[0] = sfi_const(p.k * width), k.operand[1].stride[1] = sfi_const(width);
    break;
  case SYMBOLIC:
    k.extent[0] = (sfi_extent){sfi_const(p.t), 1};
    k.extent[2] = (sfi_extent){{{0, 1, 0}}, 1};
    k.operand[0].stride[0] = (sfi_poly){{0, p.m, 0}}, k.operand[0].stride[1] = (sfi_poly){{0, 1, 0}};
    k.operand[1].stride[0] = (sfi_poly){{0, p.k, 0}}, k.operand[1].stride[1] = (sfi_poly){{0, 1, 0}};
    break;
  default:
    k.extent[0] = (sfi_extent){sfi_const(p.t), 1};
    k.extent[2] = (sfi_extent){sfi_const(p.j), 1};
    k.operand[0].stride[0] = sfi_const(p.m * p.j), k.operand[0].stride[1] = sfi_const(p.j);
    k.operand[1].stride[0] = sfi_const(p.layout == IMAGE ? p.channels * p.size * p.size : p.k * p.j);
    k.operand[1].stride[1] = sfi_const(p.j);
  }
  if (p.layout == COLUMN) k.extent[0] = one;
  k.operand[0].stride[2] = k.operand[1].stride[2] = sfi_const(1);
  k.operand[3].stride[1] = sfi_const(1); /* bias[m] */
  sfi_buffer buffers[4] = {
      {.kind = SFI_BUFFER_OUTPUT}, {.kind = SFI_BUFFER_INPUT}, {.kind = SFI_BUFFER_PACKED}, {.kind = SFI_BUFFER_STATIC}};
  if (p.layout == PANEL) buffers[0].panel = buffers[1].panel = width;
  plan.buffers = buffers, plan.n_buffers = 4;

  p.w = calloc((size_t)(p.m * p.k) + 1, sizeof *p.w);
  for (int64_t r = 0; r < p.m; r++)
    for (int64_t c = 0; c < p.k; c++) p.w[r * p.k + c] = element(pat, r, c);
  p.bias = calloc((size_t)p.m + 1, sizeof *p.bias);
  for (int64_t r = 0; r < p.m; r++) p.bias[r] = normal();
  p.k_offset = calloc((size_t)p.k + 1, sizeof *p.k_offset);
  for (int64_t i = 0; p.layout == IMAGE && i < p.k; i++)
    p.k_offset[i] = i / (p.taps * p.taps) * p.size * p.size + i / p.taps % p.taps * p.size + i % p.taps;
  p.x_count = p.layout == IMAGE ? (size_t)(p.t * p.channels * p.size * p.size) + 256
                                : (size_t)(p.layout == PANEL ? panels * width * p.k : p.t * p.k * p.j);
  p.y_count = (size_t)(p.layout == PANEL ? panels * width * p.m : p.t * p.m * p.j);
  p.x = calloc(p.x_count + 1, sizeof *p.x);
  for (size_t i = 0; i < p.x_count; i++) p.x[i] = normal();
  if (special)
    for (size_t i = 0; i < p.x_count; i += 1 + (size_t)(uniform() * 97))
      p.x[i] = i % 3 == 0 ? NAN : i % 3 == 1 ? INFINITY : -INFINITY;
  p.y = malloc((p.y_count + 2 * GUARD) * sizeof *p.y);

  sfi_facts facts;
  k.contract = (sfi_contract){.rows = p.m,
                              .depth = sfi_const(p.k),
                              .row_count = sfi_const(p.m),
                              .groups = 1,
                              .matrix = {.data = p.w, .rows = p.m, .columns = p.k, .row_stride = p.k, .column_stride = 1}};
  ck_assert_int_eq(sfi_scan_zeros(&k.contract.matrix, &sfi_default_allocator, &diag, &facts), SF_OK);
  k.contract.facts = &facts;
  if (p.layout == IMAGE) k.contract.k_offset = p.k_offset, k.contract.pitch = p.size, k.contract.valid = out;
  k.epilogue = (sfi_expr){4,
                          {{.kind = SFI_STEP_ARG},
                           {.kind = SFI_STEP_LOAD, .operand = 3},
                           {.kind = SFI_STEP_OP, .op = SF_OP_ADD, .a = 0, .b = 1},
                           {.kind = SFI_STEP_OP, .op = SF_OP_RELU, .a = 2, .b = -1}}};

  int64_t symbol = p.layout == PANEL || p.layout == SYMBOLIC ? p.j : 1;
  int accepted = 0;
  for (size_t n = 0; n < sfi_cpu_backend.n_emitters; n++) {
    sfi_kernel c = k;
    c.emitter = sfi_cpu_backend.emitters[n];
    if (c.emitter->anchor != SFI_ANCHOR_CONTRACT || c.emitter->accept(&c, &plan) != SFI_REFUSE_NONE) continue;
    accepted++;
    ck_assert(c.emitter->cost(&c, &plan, symbol) >= 0);
    char what[256];
    snprintf(what, sizeof what, "%s on %s: %s, layout %d, m %lld k %lld t %lld j %lld", c.emitter->name, target->name,
             pattern_names[pat], p.layout, (long long)p.m, (long long)p.k, (long long)p.t, (long long)p.j);
    sfi_blob packed = {0}, object = {0};
    ck_assert_msg(c.emitter->pack(&c, &plan, &sfi_default_allocator, &diag, &packed) == SF_OK, "%s", what);
    ck_assert_msg(sfi_cpu_backend.compile(&plan, &c, SFI_FORMAT_OBJECT, &sfi_default_allocator, &diag, &object) == SF_OK, "%s: %s",
                  what, diag.error.message);
    if (sfi_target_runs(target->isa)) {
      sf_kernel_fn fn;
      sfi_code *code;
      ck_assert_msg(sfi_cpu_backend.load(loader, object.data, object.size, &diag, &fn, &code) == SF_OK, "%s: %s", what,
                    diag.error.message);
      for (size_t i = 0; i < p.y_count + 2 * GUARD; i++) p.y[i] = 1e30f;
      float *y = p.y + GUARD;
      void *base[] = {y, p.x, packed.data, p.bias};
      sf_kernel_args args = {base, symbol};
      int64_t tiles = sfi_kernel_tiles(&c, symbol);
      for (int64_t t = tiles - 1; t >= 0; t--) fn(&args, t, t + 1); /* in any order */
      for (size_t i = 0; i < GUARD; i++) ck_assert_msg(p.y[i] == 1e30f && y[p.y_count + i] == 1e30f, "%s writes outside", what);
      for (int64_t t = 0; t < p.t; t++)
        for (int64_t r = 0; r < p.m; r++)
          for (int64_t j = 0; j < p.j; j++) {
            double sum = 0, magnitude = 0;
            for (int64_t i = 0; i < p.k; i++) {
              float w = p.w[r * p.k + i];
              if (w == 0) continue;
              double product = (double)w * (double)p.x[x_index(&p, &c, t, i, j)];
              sum += product, magnitude += fabs(product);
            }
            double want = sum + (double)p.bias[r];
            if (want < 0) want = 0;
            float got = y[y_index(&p, &c, t, r, j)];
            bool same = isnan(want)   ? isnan(got)
                        : isinf(want) ? isinf(got) && got > 0
                                      : fabs((double)got - want) <= 1e-6 * (magnitude + 1);
            ck_assert_msg(same, "%s: y[%lld, %lld, %lld] is %g, not %g", what, (long long)t, (long long)r, (long long)j,
                          (double)got, want);
          }
      sfi_cpu_backend.unload(loader, code);
    }
    sfi_blob_deinit(&packed);
    sfi_blob_deinit(&object);
  }
  ck_assert_int_gt(accepted, 0);
  free(p.w), free(p.bias), free(p.k_offset), free(p.x), free(p.y);
}

static const problem problems[] = {
    {.layout = PANEL, .m = 37, .k = 50, .t = 1, .j = 100},
    {.layout = PANEL, .m = 4, .k = 1, .t = 1, .j = 1},
    {.layout = PANEL, .m = 1, .k = 33, .t = 1, .j = 64},
    {.layout = MATRIX, .m = 13, .k = 29, .t = 2, .j = 83},
    {.layout = MATRIX, .m = 24, .k = 64, .t = 1, .j = 64},
    {.layout = MATRIX, .m = 5, .k = 7, .t = 3, .j = 3},
    {.layout = MATRIX, .m = 9, .k = 40, .t = 2, .j = 1},
    {.layout = SYMBOLIC, .m = 11, .k = 17, .t = 2, .j = 77},
    {.layout = IMAGE, .m = 10, .t = 2, .channels = 3, .size = 10, .taps = 3},
    {.layout = IMAGE, .m = 6, .t = 1, .channels = 5, .size = 23, .taps = 5},
    {.layout = IMAGE, .m = 7, .t = 2, .channels = 4, .size = 9, .taps = 1},
    {.layout = COLUMN, .m = 45, .k = 70, .t = 1, .j = 1},
    {.layout = COLUMN, .m = 16, .k = 3, .t = 1, .j = 1},
    {.layout = COLUMN, .m = 1, .k = 1000, .t = 1, .j = 1},
};
static const sf_isa targets[] = {SF_ISA_AVX512, SF_ISA_AVX2};

START_TEST(contraction) {
  size_t n = (size_t)_i;
  const sfi_target *target = sfi_target_of(targets[n % SFI_COUNT(targets)]);
  const problem *p = &problems[n / SFI_COUNT(targets)];
  for (int pat = 0; pat < PATTERNS; pat++)
    for (int special = 0; special < 2; special++) run_case(target, *p, (pattern)pat, special);
}
END_TEST

static void setup(void) {
  sfi_diag diag = {0};
  ck_assert_int_eq(sfi_cpu_backend.loader_create(&sfi_default_allocator, &diag, &loader), SF_OK);
}
static void teardown(void) {
  sfi_cpu_backend.loader_destroy(loader);
}

int main(void) {
  Suite *s = suite_create("contractions");
  TCase *c = tcase_create("all");
  tcase_add_checked_fixture(c, setup, teardown);
  tcase_add_loop_test(c, contraction, 0, (int)(SFI_COUNT(problems) * SFI_COUNT(targets)));
  tcase_set_timeout(c, 300);
  suite_add_tcase(s, c);
  SRunner *r = srunner_create(s);
  srunner_run_all(r, CK_NORMAL);
  int failed = srunner_ntests_failed(r);
  srunner_free(r);
  return failed != 0;
}
