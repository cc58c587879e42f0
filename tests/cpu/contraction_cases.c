/* See contraction_cases.h. */
#include "contraction_cases.h"
#include "cpu.h"
#include "passes.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>

typedef enum layout { PANEL, MATRIX, SYMBOLIC, IMAGE, COLUMN, FEW } layout; /* FEW: columns are t; their number is the symbol's */
static const char *const layout_names[] = {"panels", "matrix", "symbolic", "image", "column", "few columns"};
typedef enum pattern { DENSE, HALF, NINETY, SPARSE, TWO_OF_FOUR, BLOCKS, DEAD, SUBNORMAL, EMPTY, PATTERNS } pattern;
static const char *const pattern_names[] = {
    "dense", "50 %", "90 %", "99.9 %", "2:4", "blocks 4x4", "dead rows and columns", "subnormal rows", "no nonzero"};

typedef struct problem {
  layout layout;
  int64_t m, k, t, j;                    /* of the contraction; PANEL: j columns over all panels */
  int64_t channels, height, width, taps; /* IMAGE: k = channels * taps^2, output (height - taps + 1) x (width - taps + 1) */
  int64_t groups;                        /* IMAGE; 0 means 1 */
  bool known;                            /* PANEL: the number of columns is */
  bool aligned; /* IMAGE: rows begin on whole vectors, and stand side by side where several outputs fit in one */
} problem;

static const problem problems[] = {
    {.layout = PANEL, .m = 37, .k = 50, .t = 1, .j = 100},
    {.layout = PANEL, .m = 4, .k = 1, .t = 1, .j = 1},
    {.layout = PANEL, .m = 1, .k = 33, .t = 1, .j = 64},
    {.layout = PANEL, .m = 21, .k = 300, .t = 1, .j = 131}, /* several blocks of K */
    {.layout = PANEL, .m = 150, .k = 41, .t = 1, .j = 20},  /* several blocks of rows */
    {.layout = PANEL, .m = 271, .k = 96, .t = 1, .j = 17},  /* several blocks of rows */
    {.layout = PANEL, .m = 12, .k = 600, .t = 1, .j = 78},
    {.layout = MATRIX, .m = 13, .k = 29, .t = 2, .j = 83},
    {.layout = MATRIX, .m = 24, .k = 64, .t = 1, .j = 64},
    {.layout = MATRIX, .m = 5, .k = 7, .t = 3, .j = 3},
    {.layout = MATRIX, .m = 9, .k = 40, .t = 2, .j = 1},
    {.layout = SYMBOLIC, .m = 11, .k = 17, .t = 2, .j = 77},
    {.layout = SYMBOLIC, .m = 6, .k = 5, .t = 1, .j = 1},
    {.layout = IMAGE, .m = 10, .t = 2, .channels = 3, .height = 10, .width = 10, .taps = 3},
    {.layout = IMAGE, .m = 6, .t = 1, .channels = 5, .height = 23, .width = 23, .taps = 5},
    {.layout = IMAGE, .m = 7, .t = 2, .channels = 4, .height = 9, .width = 9, .taps = 1},
    {.layout = IMAGE, .m = 5, .t = 1, .channels = 2, .height = 59, .width = 16, .taps = 3}, /* one row of pixels in the last tile */
    {.layout = IMAGE,
     .m = 4,
     .t = 1,
     .channels = 2,
     .height = 4,
     .width = 131,
     .taps = 2}, /* a tile for each row, and a short tail */
    {.layout = IMAGE, .m = 12, .t = 2, .channels = 6, .height = 8, .width = 9, .taps = 3, .groups = 3},
    {.layout = IMAGE, .m = 9, .t = 2, .channels = 5, .height = 16, .width = 16, .taps = 3, .aligned = true},
    {.layout = IMAGE, .m = 20, .t = 1, .channels = 3, .height = 32, .width = 31, .taps = 4, .aligned = true}, /* short last tile */
    {.layout = IMAGE, .m = 17, .t = 2, .channels = 4, .height = 9, .width = 9, .taps = 3, .aligned = true},
    {.layout = IMAGE, .m = 6, .t = 1, .channels = 3, .height = 7, .width = 5, .taps = 3, .aligned = true},
    {.layout = IMAGE, .m = 3, .t = 1, .channels = 40, .height = 58, .width = 58, .taps = 3, .aligned = true}, /* blocks of K */
    {.layout = IMAGE, .m = 12, .t = 2, .channels = 6, .height = 12, .width = 19, .taps = 3, .groups = 3, .aligned = true},
    {.layout = COLUMN, .m = 45, .k = 70, .t = 1, .j = 1},
    {.layout = COLUMN, .m = 16, .k = 3, .t = 1, .j = 1},
    {.layout = COLUMN, .m = 1, .k = 1000, .t = 1, .j = 1},
    {.layout = COLUMN, .m = 45, .k = 70, .t = 2, .j = 1},
    {.layout = COLUMN, .m = 70, .k = 67, .t = 3, .j = 1},
    {.layout = COLUMN, .m = 33, .k = 129, .t = 4, .j = 1},
    {.layout = COLUMN, .m = 90, .k = 50, .t = 8, .j = 1},
    {.layout = FEW, .m = 37, .k = 40, .t = 7, .j = 1},
    {.layout = FEW, .m = 20, .k = 64, .t = 1, .j = 1},
    {.layout = PANEL,
     .m = 53,
     .k = 20,
     .t = 1,
     .j = 100,
     .known = true}, /* pieces of one size in whole panels, of others in the last */
    {.layout = PANEL, .m = 16, .k = 9, .t = 1, .j = 43, .known = true},
    {.layout = PANEL, .m = 70, .k = 30, .t = 1, .j = 64, .known = true},
    {.layout = SYMBOLIC, .m = 40, .k = 12, .t = 2, .j = 129},
};
const int contraction_problems = (int)SFI_COUNT(problems);

/* ---- numbers ------------------------------------------------------------------------------------------------------ */

static double uniform(uint64_t *seed) {
  *seed = *seed * 6364136223846793005u + 1442695040888963407u;
  return (double)(*seed >> 11) / 9007199254740992.0;
}
static float normal(uint64_t *seed) {
  double r = sqrt(-2 * log(uniform(seed) + 1e-300));
  return (float)(r * cos(6.283185307179586 * uniform(seed)));
}

static float element(uint64_t *seed, pattern p, int64_t r, int64_t c) {
  float w = normal(seed);
  switch (p) {
  case DENSE:
    return w;
  case HALF:
    return uniform(seed) < 0.5 ? 0 : w;
  case NINETY:
    return uniform(seed) < 0.9 ? -0.0f : w;
  case SPARSE:
    return uniform(seed) < 0.999 ? 0 : w;
  case TWO_OF_FOUR:
    return "\3\5\6\11\12\14"[(r * 5 + c / 4) % 6] >> c % 4 & 1 ? w : 0;
  case BLOCKS:
    return (r / 4 + c / 4) % 3 ? 0 : w;
  case DEAD:
    return r % 3 == 1 || c % 5 == 2 ? 0 : w;
  case SUBNORMAL: /* times an infinity they are infinite: nothing may round them to 0 */
    if (uniform(seed) < 0.8) return 0;
    return r % 3 == 0 ? copysignf(0x1p-149f, w) : r % 7 == 0 ? w * 0x1p-147f : w;
  default:
    return 0;
  }
}

static void *zeroed(size_t n, size_t size) {
  void *data = calloc(n + 1, size);
  ck_assert_ptr_nonnull(data);
  return data;
}

/* ---- one problem -------------------------------------------------------------------------------------------------- */

/* The kernel without emitter, and its memory: operands 0 output, 1 X, 2 packed W, 3 bias[m]. */
typedef struct contraction {
  problem p;
  int64_t panel; /* PANEL: columns of one */
  int64_t symbol;
  sf_graph graph; /* only its address is used: the plan's statics are given by hand */
  sfi_plan plan;
  sfi_buffer buffers[4];
  sfi_kernel kernel;
  sfi_facts facts;
  int64_t *k_offset;
  float *w, *x, *bias;
  double *want, *allowed;
  size_t x_count, y_count;
  int64_t pitch, fold, x_rows; /* IMAGE: columns and rows of a channel */
} contraction;

static int64_t out_width(const problem *p) {
  return p->width - p->taps + 1;
}

static size_t x_index(const contraction *c, int64_t t, int64_t i, int64_t j) {
  const problem *p = &c->p;
  if (p->layout == PANEL) return (size_t)((j / c->panel * p->k + i) * c->panel + j % c->panel);
  if (p->layout != IMAGE) return (size_t)((t * p->k + i) * p->j + j);
  int64_t row = j / out_width(p), rows = sfi_ceil_div(p->height - p->taps + 1, c->fold);
  int64_t column = row % rows * c->pitch + row / rows * (c->pitch / c->fold) + j % out_width(p);
  return (size_t)(t * p->channels * c->x_rows * c->pitch + c->k_offset[i] + column);
}
/* Does tap i of pixel j fall behind its granule? */
static bool is_behind(const contraction *c, int64_t i, int64_t j) {
  return c->p.aligned && j % out_width(&c->p) + c->k_offset[i] % c->pitch >= c->pitch / c->fold;
}
static size_t y_index(const contraction *c, int64_t t, int64_t r, int64_t j) {
  if (c->p.layout == PANEL) return (size_t)((j / c->panel * c->p.m + r) * c->panel + j % c->panel);
  return (size_t)((t * c->p.m + r) * c->p.j + j);
}

static void describe_space(contraction *c) {
  const problem *p = &c->p;
  sfi_kernel *k = &c->kernel;
  const sfi_poly symbol = {{0, 1, 0}};
  k->extent[0] = (sfi_extent){sfi_const(p->t), 1};
  k->extent[1] = (sfi_extent){sfi_const(p->m), 1};
  k->extent[2] = (sfi_extent){sfi_const(p->j), 1};
  sfi_poly *y = k->operand[0].stride, *x = k->operand[1].stride;
  y[2] = x[2] = k->operand[3].stride[1] = sfi_const(1);
  switch (p->layout) {
  case PANEL:
    k->ragged = (sfi_ragged){.width = c->panel, .panel = 0, .lane = 2, .columns = p->known ? sfi_const(p->j) : symbol};
    k->extent[0] = (sfi_extent){k->ragged.columns, c->panel};
    k->extent[2] = (sfi_extent){sfi_const(c->panel), 1};
    y[0] = sfi_const(p->m * c->panel), x[0] = sfi_const(p->k * c->panel);
    y[1] = x[1] = sfi_const(c->panel);
    break;
  case FEW:
    k->extent[0] = (sfi_extent){symbol, 1};
    y[0] = sfi_const(p->m), y[1] = x[1] = sfi_const(1);
    x[0] = sfi_const(p->k);
    break;
  case SYMBOLIC:
    k->extent[2] = (sfi_extent){symbol, 1};
    y[0] = (sfi_poly){{0, p->m, 0}}, x[0] = (sfi_poly){{0, p->k, 0}};
    y[1] = x[1] = symbol;
    break;
  default:
    y[0] = sfi_const(p->m * p->j), y[1] = sfi_const(p->j);
    x[0] = sfi_const(p->layout == IMAGE ? p->channels * c->x_rows * c->pitch : p->k * p->j);
    x[1] = sfi_const(p->layout == IMAGE ? c->x_rows * c->pitch : p->j);
    x[2] = sfi_const(c->fold == 1);
  }
}

static void measure_image(contraction *c, int64_t lanes) {
  const problem *p = &c->p;
  c->pitch = p->aligned ? sfi_round_up(p->width, lanes) : p->width;
  while (p->aligned && out_width(p) * c->fold * 2 <= lanes) c->fold *= 2;
  if (c->fold > 1) c->pitch = lanes;
  c->x_rows = sfi_ceil_div(p->height - p->taps + 1, c->fold) + p->taps - 1;
}

static void describe_image(contraction *c) {
  const problem *p = &c->p;
  int64_t area = p->taps * p->taps;
  c->k_offset = zeroed((size_t)p->k, sizeof *c->k_offset);
  for (int64_t i = 0; i < p->k; i++)
    c->k_offset[i] = i / area * c->x_rows * c->pitch + i / p->taps % p->taps * c->pitch + i % p->taps;
  c->kernel.contract.k_offset = c->k_offset;
  c->kernel.contract.pitch = c->pitch;
  c->kernel.contract.valid = out_width(p);
}

static void make_data(contraction *c, pattern pat, bool special, uint64_t *seed) {
  const problem *p = &c->p;
  int64_t columns = p->k / p->groups;
  c->w = zeroed((size_t)(p->m * columns), sizeof *c->w);
  for (int64_t r = 0; r < p->m; r++)
    for (int64_t i = 0; i < columns; i++) c->w[r * columns + i] = element(seed, pat, r, i);
  c->bias = zeroed((size_t)p->m, sizeof *c->bias);
  for (int64_t r = 0; r < p->m; r++) c->bias[r] = normal(seed);
  int64_t all = p->layout == PANEL ? sfi_round_up(p->j, c->panel) : p->j;
  size_t slack = p->layout == IMAGE ? SFI_IMAGE_SLACK : 0, filled;
  filled = (size_t)(p->layout == IMAGE ? p->t * p->channels * c->x_rows * c->pitch : p->t * p->k * all);
  c->x_count = filled + slack;
  c->y_count = (size_t)(p->t * p->m * all);
  c->x = zeroed(c->x_count, sizeof *c->x);
  for (size_t i = 0; i < c->x_count; i++) c->x[i] = i < filled ? normal(seed) : NAN;
  for (size_t i = 0; special && i < filled; i += 1 + (size_t)(uniform(seed) * 97))
    c->x[i] = i % 3 == 0 ? NAN : i % 3 == 1 ? INFINITY : -INFINITY;
  for (int64_t j = p->j; j < all; j++) /* columns that do not exist */
    for (int64_t i = 0; i < p->k; i++) c->x[x_index(c, 0, i, j)] = NAN;
}

/* relu(W x + bias); lanes that no column has are free. */
static void expect(contraction *c) {
  const problem *p = &c->p;
  int64_t columns = p->k / p->groups;
  c->want = zeroed(c->y_count, sizeof *c->want);
  c->allowed = zeroed(c->y_count, sizeof *c->allowed);
  for (size_t i = 0; i < c->y_count; i++) c->allowed[i] = INFINITY;
  for (int64_t t = 0; t < p->t; t++)
    for (int64_t r = 0; r < p->m; r++)
      for (int64_t j = 0; j < p->j; j++) {
        double sum = 0, magnitude = 0;
        int64_t first = r / (p->m / p->groups) * columns;
        for (int64_t i = 0; i < columns; i++) {
          float w = c->w[r * columns + i];
          if (w == 0 || is_behind(c, first + i, j)) continue;
          double product = (double)w * (double)c->x[x_index(c, t, first + i, j)];
          sum += product, magnitude += fabs(product);
        }
        double want = sum + (double)c->bias[r];
        c->want[y_index(c, t, r, j)] = want < 0 ? 0 : want;
        c->allowed[y_index(c, t, r, j)] = isfinite(want) ? 1e-6 * (magnitude + 1) : 0;
      }
}

static void make_contraction(contraction *c, const sfi_target *target, const problem *p, pattern pat, bool special) {
  sfi_diag diag = {0};
  uint64_t seed = (uint64_t)(p - problems) * 1000 + (uint64_t)pat * 2 + special + 1;
  *c = (contraction){.p = *p, .panel = sfi_max(16, target->lanes * (target->lanes == 16 ? 4 : 2))};
  c->p.groups = sfi_max(1, p->groups);
  if (p->layout == IMAGE) {
    c->p.k = p->channels * p->taps * p->taps;
    c->p.j = (p->height - p->taps + 1) * (p->width - p->taps + 1);
  }
  c->symbol = (p->layout == PANEL && !p->known) || p->layout == SYMBOLIC ? p->j : p->layout == FEW ? p->t : 1;
  c->kernel = (sfi_kernel){.name = "case", .anchor = SFI_ANCHOR_CONTRACT, .rank = 3, .n_operands = 4};
  for (int i = 0; i < 4; i++) c->kernel.operand[i].buffer = i;
  c->fold = 1;
  if (p->layout == IMAGE) measure_image(c, target->lanes);
  describe_space(c);
  c->kernel.contract.fold = c->fold;
  c->kernel.contract.rows = p->m;
  c->kernel.contract.depth = sfi_const(c->p.k);
  c->kernel.contract.row_count = sfi_const(p->m);
  c->kernel.contract.groups = c->p.groups;
  if (p->layout == IMAGE) describe_image(c);
  make_data(c, pat, special, &seed);
  expect(c);
  int64_t columns = c->p.k / c->p.groups;
  c->kernel.contract.matrix =
      (sfi_matrix){.data = c->w, .rows = p->m, .columns = columns, .row_stride = columns, .column_stride = 1};
  ck_assert_int_eq(sfi_scan_zeros(&c->kernel.contract.matrix, &sfi_default_allocator, &diag, &c->facts), SF_OK);
  c->kernel.contract.facts = &c->facts;
  c->kernel.epilogue = (sfi_expr){4,
                                  {{.kind = SFI_STEP_ARG},
                                   {.kind = SFI_STEP_LOAD, .operand = 3},
                                   {.kind = SFI_STEP_OP, .op = SF_OP_ADD, .a = 0, .b = 1},
                                   {.kind = SFI_STEP_OP, .op = SF_OP_RELU, .a = 2, .b = 2}}};
  c->buffers[0].kind = SFI_BUFFER_OUTPUT;
  c->buffers[1].kind = SFI_BUFFER_INPUT;
  c->buffers[2].kind = SFI_BUFFER_PACKED;
  c->buffers[3].kind = SFI_BUFFER_STATIC;
  if (p->layout == PANEL) c->buffers[0].panel = c->buffers[1].panel = c->panel;
  c->plan = (sfi_plan){.graph = &c->graph,
                       .target = target,
                       .symbol_min = 0,
                       .symbol_max = p->layout == FEW ? p->t : INT64_MAX,
                       .buffers = c->buffers,
                       .n_buffers = SFI_COUNT(c->buffers),
                       .weight_bytes = special ? 1e12 : 0}; /* cases of half of the patterns prefetch */
}

static void free_contraction(contraction *c) {
  free(c->w), free(c->x), free(c->bias), free(c->k_offset), free(c->want), free(c->allowed);
}

/* The contraction by the emitter that `kernel` names. */
static void run_emitter(kernel_store *store, const contraction *c, const sfi_kernel *kernel, const char *name,
                        void (*use)(void *user, const kernel_case *c), void *user) {
  sfi_diag diag = {0};
  sfi_blob packed = {0};
  ck_assert(kernel->emitter->cost(kernel, &c->plan, c->symbol) >= 0);
  ck_assert_msg(kernel->emitter->pack(kernel, &c->plan, &sfi_default_allocator, &diag, &packed) == SF_OK, "%s: %s", name,
                diag.error.message);
  case_buffer buffers[] = {
      {.role = CASE_RESULT, .exact = 1, .bytes = c->y_count * sizeof(float), .want = c->want, .allowed = c->allowed},
      {.role = CASE_GIVEN, .exact = 1, .bytes = c->x_count * sizeof(float), .given = c->x},
      {.role = CASE_GIVEN, .bytes = packed.size, .given = packed.data},
      {.role = CASE_GIVEN, .exact = 1, .bytes = (uint64_t)c->p.m * sizeof(float), .given = c->bias}};
  case_launch launch = {.kernel = kernel_store_add(store, &c->plan, kernel),
                        .n_operands = 4,
                        .operand = {0, 1, 2, 3},
                        .tiles = sfi_kernel_tiles(kernel, c->symbol)};
  kernel_case data = {.symbol = c->symbol, .n_buffers = 4, .n_launches = 1, .buffers = buffers, .launches = &launch};
  snprintf(data.name, sizeof data.name, "%s", name);
  use(user, &data);
  sfi_blob_deinit(&packed);
}

int contraction_cases(kernel_store *store, int problem_index, void (*use)(void *user, const kernel_case *c), void *user) {
  const problem *p = &problems[problem_index];
  int calls = 0;
  for (int pat = 0; pat < PATTERNS; pat++)
    for (int special = 0; special < 2; special++) {
      contraction c;
      make_contraction(&c, store->target, p, (pattern)pat, special);
      for (size_t n = 0; n < sfi_cpu_backend.n_emitters; n++) {
        sfi_kernel kernel = c.kernel;
        char name[200];
        kernel.emitter = sfi_cpu_backend.emitters[n];
        if (kernel.emitter->anchor != SFI_ANCHOR_CONTRACT || kernel.emitter->accept(&kernel, &c.plan) != SFI_REFUSE_NONE) continue;
        snprintf(name, sizeof name, "%s on %s, %s%s, %s, m %lld k %lld t %lld j %lld", kernel.emitter->name, store->target->name,
                 pattern_names[pat], special ? " with Inf and NaN" : "", layout_names[p->layout], (long long)p->m, (long long)c.p.k,
                 (long long)p->t, (long long)c.p.j);
        run_emitter(store, &c, &kernel, name, use, user);
        calls++;
      }
      free_contraction(&c);
    }
  return calls;
}
