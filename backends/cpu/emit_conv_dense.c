/* "conv-dense": dense products over columns that fill vectors badly, convolutions above all: every element of W is multiplied, with the
 * LANES ALONG ROWS OF W (output channels) and the pixels of X broadcast. A register tile is V vectors of rows by up to 14 pixels: for each k
 * V loads of packed W and a broadcast a pixel, 16 loads for 28 multiply-adds. Pixels are cut so that nothing is wasted whatever the
 * width of the image: into pieces of a row, or whole rows where those are narrow, of two sizes that differ by one. At the end the
 * tile is transposed in registers and goes through the epilogue with its lanes along pixels.
 *
 * Zeros of W are multiplied too: a tile that shows a NaN is computed once more without them, as in emit_gemm.c.
 *
 * Packed W: [positions of X rows] [panel of V vectors of rows][k][V lanes], rows past the last are zeros. */
#include "emitters.h"

enum { VECTORS_MOST = 3, PIXELS_MOST = 28, TILES_LEAST = 8 };

/* How output pixels are cut into units, one register tile each. A line is `down` rows of the image; where a row is longer than a tile, a
 * line is one row of `pieces` pieces. The first `large` lines or pieces have `down` rows or `across` pixels, the others one less. */
typedef struct cut {
  int64_t width, pitch; /* of a row of output pixels, and from row to row in X */
  int64_t down, across, lines, pieces, large;
} cut;

static int32_t pixels_most(const sfi_target *target, int32_t vectors) {
  const int32_t fit = (target->registers - vectors - 2) / vectors;
  return fit < PIXELS_MOST ? fit : PIXELS_MOST;
}

static cut cut_pixels(const sfi_kernel *k, const sfi_target *target) {
  const int64_t pixels = k->extent[2].of.c[0], most = pixels_most(target, k->tile.vectors);
  const bool gaps = k->contract.pitch != k->contract.valid;
  cut c = {.width = gaps ? k->contract.valid : pixels, .pitch = k->contract.pitch, .down = 1};
  const int64_t rows = pixels / c.width;
  c.pieces = sfi_ceil_div(c.width, most);
  c.across = sfi_ceil_div(c.width, c.pieces);
  c.lines = rows;
  c.large = c.width - c.pieces * (c.across - 1);
  if (c.pieces > 1) return c;
  c.lines = sfi_ceil_div(rows, most / c.width);
  c.down = sfi_ceil_div(rows, c.lines);
  c.large = rows - c.lines * (c.down - 1);
  return c;
}

/* Lines or pieces, whichever come in two sizes. */
static int64_t parts(const cut *c) {
  return c->pieces > 1 ? c->pieces : c->lines;
}
static int64_t panel_rows(const sfi_kernel *k, const sfi_target *target) {
  return (int64_t)k->tile.vectors * target->lanes;
}

/* Cycles of one unit of a panel: multiply-adds, held by their latency where they are few; the transposes, stores and the loop's end. */
static double unit_cycles(const sfi_kernel *k, const sfi_target *target, int64_t pixels) {
  const double tile = (double)(pixels * k->tile.vectors), rows = (double)panel_rows(k, target);
  return (double)k->contract.depth.c[0] * (tile < 8 ? 4 : tile / 2) * 1.01 + rows * (3 + 0.5 * k->epilogue.n) + 30;
}

static double cycles(const sfi_kernel *k, const sfi_target *target) {
  const cut c = cut_pixels(k, target);
  const int64_t whole = c.down * c.across, less = c.pieces > 1 ? whole - 1 : whole - c.across;
  const int64_t repeat = c.pieces > 1 ? c.lines : 1;
  const double panels = (double)sfi_ceil_div(k->contract.rows, panel_rows(k, target));
  double sum = (double)(c.large * repeat) * unit_cycles(k, target, whole);
  if (parts(&c) > c.large) sum += (double)((parts(&c) - c.large) * repeat) * unit_cycles(k, target, less);
  return sum * panels;
}

/* A block of columns reads a part of X that stays in L2 while W passes by. */
static int64_t column_blocks(const sfi_kernel *k, const sfi_target *target, int64_t row_blocks) {
  const int64_t depth = k->contract.depth.c[0];
  const double floats = (depth ? (double)sfi_position(k, depth - 1) : 0) + (double)k->extent[2].of.c[0];
  const int64_t fit = (int64_t)(floats * 4 / ((double)target->l2_bytes / 4)) + 1;
  return sfi_max(fit, sfi_ceil_div(TILES_LEAST, sfi_max(1, row_blocks)));
}

sfi_refusal sfi_conv_dense_accept(sfi_kernel *k, const sfi_plan *plan) {
  const sfi_target *target = plan->target;
  if (k->contract.groups > 1) return SFI_REFUSE_GROUPS;
  if (!sfi_is_const(k->extent[2].of) || k->extent[2].div != 1 || k->ragged.width || !sfi_is_const(k->operand[1].stride[1]))
    return SFI_REFUSE_SYMBOLIC;
  if (sfi_is(k->extent[2].of, 0) || sfi_is(k->extent[2].of, 1)) return SFI_REFUSE_ONE_COLUMN;
  if (!sfi_is(k->operand[1].stride[2], 1)) return SFI_REFUSE_STRIDED_COLUMNS;
  if (!sfi_positions_fit(k)) return SFI_REFUSE_OFFSETS_TOO_LARGE;
  double least = 0;
  int32_t best = 1;
  for (int32_t v = 1; v <= VECTORS_MOST; v++) {
    k->tile.vectors = v;
    const double now = cycles(k, target);
    if (v > 1 && now >= least) continue;
    least = now;
    best = v;
  }
  k->tile.vectors = best;
  sfi_choose_rows(k, target, best * target->lanes, (double)k->contract.depth.c[0] * 4);
  const int64_t blocks = column_blocks(k, target, sfi_ceil_div(k->contract.rows, k->tile.row_block));
  k->tile.column_block = sfi_ceil_div(k->extent[2].of.c[0], blocks);
  return SFI_REFUSE_NONE;
}

double sfi_conv_dense_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  int64_t t = 1;
  sfi_extent_eval(k->extent[0], symbol, &t);
  return sfi_cycles_us(plan->target, (double)t * cycles(k, plan->target));
}

sf_status sfi_conv_dense_pack(const sfi_kernel *k, const sfi_plan *plan, const sf_allocator *allocator, sfi_diag *diag,
                              sfi_blob *out) {
  const int64_t rows = panel_rows(k, plan->target), depth = k->contract.depth.c[0], prefix = sfi_position_bytes(k);
  const int64_t panels = sfi_ceil_div(k->contract.rows, rows);
  if (!sfi_blob_init(out, allocator, (size_t)(prefix + panels * rows * depth * 4 + 64))) return sfi_fail_memory(diag);
  sfi_write_positions(k, out->data);
  float *w = (float *)(void *)(out->data + prefix);
  for (int64_t r = 0; r < k->contract.rows; r++)
    for (int64_t i = 0; i < depth; i++) w[(r / rows * depth + i) * rows + r % rows] = sfi_weight_at(&k->contract, r, i);
  return SF_OK;
}

/* ---- code ---------------------------------------------------------------------------------------------------------- */

/* Some pixels of all rows of a panel. */
typedef struct unit {
  cut c;
  int32_t pixels;
  LLVMValueRef t, pixel, row; /* first output pixel, first row of W */
  LLVMValueRef x, w;          /* addresses: of X at position 0 of the first pixel, of the panel */
} unit;

/* acc += W[rows of the panel, k] * X[k, pixels] for all k; acc[pixel * V + v]. exact: zeros of W are skipped. */
static void accumulate(sfi_emission *e, const unit *u, bool exact, LLVMValueRef *acc) {
  const int32_t vectors = e->kernel->tile.vectors, count = u->pixels * vectors;
  LLVMValueRef w[VECTORS_MOST], present[VECTORS_MOST], next[SFI_CARRIED_MAX];
  for (int32_t i = 0; i < count; i++) acc[i] = LLVMConstNull(e->vec);
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), sfi_poly_value(e, e->kernel->contract.depth), sfi_i64(e, 1), acc, (unsigned)count);
  LLVMValueRef row = sfi_opaque(e, sfi_x_row(e, u->x, loop.index)); /* else each broadcast adds it up by itself */
  LLVMValueRef at = sfi_muli(e, loop.index, sfi_i64(e, (int64_t)vectors * e->lanes));
  for (int32_t v = 0; v < vectors; v++) {
    w[v] = sfi_load_vector(e, sfi_at(e, e->f32, u->w, sfi_addi(e, at, sfi_i64(e, (int64_t)v * e->lanes))), NULL);
    present[v] = exact ? LLVMBuildFCmp(e->builder, LLVMRealUNE, w[v], LLVMConstNull(e->vec), "") : NULL;
  }
  for (int32_t i = 0; i < u->pixels; i++) {
    const int64_t offset = i / u->c.across * u->c.pitch + i % u->c.across;
    LLVMValueRef x = sfi_splat(e, sfi_load_scalar(e, e->f32, row, sfi_i64(e, offset)));
    for (int32_t v = 0; v < vectors; v++) {
      LLVMValueRef before = loop.carried[i * vectors + v], sum = sfi_fma(e, w[v], x, before);
      next[i * vectors + v] = exact ? LLVMBuildSelect(e->builder, present[v], sum, before, "") : sum;
    }
  }
  sfi_loop_end(e, &loop, next);
  memcpy(acc, loop.carried, (size_t)count * sizeof *acc);
}

/* Is any of the sums NaN? Two a compare. */
static LLVMValueRef any_nan(sfi_emission *e, const LLVMValueRef *acc, int32_t count) {
  LLVMValueRef any = NULL;
  for (int32_t i = 0; i < count; i += 2) {
    LLVMValueRef nan = LLVMBuildFCmp(e->builder, LLVMRealUNO, acc[i], acc[i + 1 < count ? i + 1 : i], "");
    any = any ? LLVMBuildOr(e->builder, any, nan, "") : nan;
  }
  LLVMTypeRef type = LLVMTypeOf(any);
  return sfi_intrinsic(e, "llvm.vector.reduce.or", &type, 1, &any, 1);
}

/* Up to a vector of pixels from `first` on, of the rows of vector v: a row of the output each. */
static void store_rows(sfi_emission *e, const unit *u, int32_t first, int32_t v, const LLVMValueRef *acc) {
  const sfi_kernel *k = e->kernel;
  const int32_t vectors = k->tile.vectors, count = u->pixels - first < e->lanes ? u->pixels - first : e->lanes;
  const bool whole = k->contract.rows % panel_rows(k, e->target) == 0;
  LLVMValueRef row[64], lane[64];
  for (int32_t i = 0; i < e->lanes; i++) {
    row[i] = i < count ? acc[(first + i) * vectors + v] : LLVMGetPoison(e->vec);
    lane[i] = LLVMConstInt(e->i1, i < count, false);
  }
  sfi_transpose(e, row);
  sfi_point p = {.rank = 3, .vector_dim = 2, .vector = true, .index = {u->t, NULL, sfi_addi(e, u->pixel, sfi_i64(e, first))}};
  if (count < e->lanes) p.mask = LLVMConstVector(lane, (unsigned)e->lanes);
  for (int32_t r = 0; r < e->lanes; r++) {
    p.index[1] = sfi_addi(e, u->row, sfi_i64(e, (int64_t)v * e->lanes + r));
    sfi_if inside;
    if (!whole) sfi_if_begin(e, &inside, LLVMBuildICmp(e->builder, LLVMIntSLT, p.index[1], sfi_i64(e, k->contract.rows), ""));
    sfi_point_store(e, &p, sfi_expr_value(e, &k->epilogue, &p, row[r]));
    if (!whole) sfi_if_end(e, &inside, NULL, NULL, NULL, 0);
  }
}

static void unit_code(sfi_emission *e, const unit *u) {
  const int32_t vectors = e->kernel->tile.vectors, count = u->pixels * vectors;
  LLVMValueRef acc[SFI_CARRIED_MAX], exact[SFI_CARRIED_MAX];
  accumulate(e, u, false, acc);
  sfi_if again;
  sfi_if_begin(e, &again, any_nan(e, acc, count));
  accumulate(e, u, true, exact);
  sfi_if_end(e, &again, exact, acc, acc, (unsigned)count);
  for (int32_t first = 0; first < u->pixels; first += e->lanes)
    for (int32_t v = 0; v < vectors; v++) store_rows(e, u, first, v, acc);
}

/* Where part `index` begins, in rows or pixels: parts of `size` each, those from `large` on one less. */
static LLVMValueRef part_begin(sfi_emission *e, LLVMValueRef index, int64_t size, int64_t large) {
  LLVMValueRef less = LLVMBuildNSWSub(e->builder, index, sfi_mini(e, index, sfi_i64(e, large)), "");
  return LLVMBuildNSWSub(e->builder, sfi_muli(e, index, sfi_i64(e, size)), less, "");
}

/* Unit `number` of the panel that u names. x: address of X[t] at position 0. */
static void unit_at(sfi_emission *e, unit *u, LLVMValueRef x, LLVMValueRef number) {
  const cut *c = &u->c;
  const bool pieces = c->pieces > 1;
  LLVMValueRef line = number, piece = sfi_i64(e, 0);
  if (pieces) {
    line = LLVMBuildUDiv(e->builder, number, sfi_i64(e, c->pieces), "");
    piece = LLVMBuildURem(e->builder, number, sfi_i64(e, c->pieces), "");
  }
  LLVMValueRef row = pieces ? line : part_begin(e, line, c->down, c->large);
  LLVMValueRef column = pieces ? part_begin(e, piece, c->across, c->large) : piece;
  u->pixel = sfi_addi(e, sfi_muli(e, row, sfi_i64(e, c->width)), column);
  u->x = sfi_at(e, e->f32, x, sfi_addi(e, sfi_muli(e, row, sfi_i64(e, c->pitch)), column));
  LLVMValueRef large = LLVMBuildICmp(e->builder, LLVMIntSLT, pieces ? piece : line, sfi_i64(e, c->large), "");
  const int64_t whole = c->down * c->across;
  sfi_if branch;
  for (int less = 0; less <= (parts(c) > c->large); less++) {
    sfi_if_begin(e, &branch, less ? LLVMBuildNot(e->builder, large, "") : large);
    unit now = *u;
    now.pixels = (int32_t)(less ? whole - (pieces ? 1 : c->across) : whole);
    unit_code(e, &now);
    sfi_if_end(e, &branch, NULL, NULL, NULL, 0);
  }
}

sf_status sfi_conv_dense_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  LLVMBuilderRef b = e->builder;
  unit u = {.c = cut_pixels(k, plan->target)};
  const int64_t rows = panel_rows(k, plan->target), units = u.c.lines * u.c.pieces;
  const int64_t row_blocks = sfi_ceil_div(k->contract.rows, k->tile.row_block);
  const int64_t blocks = sfi_ceil_div(k->extent[2].of.c[0], k->tile.column_block);
  if (row_blocks == 0) return SF_OK;
  LLVMValueRef one = sfi_i64(e, 1);
  sfi_loop tile, panel, number;
  sfi_loop_begin(e, &tile, e->tile_begin, e->tile_end, one, NULL, 0);
  LLVMValueRef block = LLVMBuildUDiv(b, tile.index, sfi_i64(e, row_blocks), "");
  LLVMValueRef row = sfi_muli(e, LLVMBuildURem(b, tile.index, sfi_i64(e, row_blocks), ""), sfi_i64(e, k->tile.row_block));
  LLVMValueRef row_end = sfi_mini(e, sfi_addi(e, row, sfi_i64(e, k->tile.row_block)), sfi_i64(e, k->contract.rows));
  u.t = LLVMBuildUDiv(b, block, sfi_i64(e, blocks), "");
  LLVMValueRef part = sfi_muli(e, LLVMBuildURem(b, block, sfi_i64(e, blocks), ""), sfi_i64(e, units));
  LLVMValueRef first = LLVMBuildUDiv(b, part, sfi_i64(e, blocks), "");
  LLVMValueRef end = LLVMBuildUDiv(b, sfi_addi(e, part, sfi_i64(e, units)), sfi_i64(e, blocks), "");
  LLVMValueRef index =
      sfi_addi(e, sfi_poly_value(e, k->operand[1].offset), sfi_muli(e, u.t, sfi_poly_value(e, k->operand[1].stride[0])));
  LLVMValueRef x = sfi_at(e, e->f32, e->base[1], index);
  sfi_loop_begin(e, &panel, row, row_end, sfi_i64(e, rows), NULL, 0);
  u.row = panel.index;
  u.w = sfi_at(e, e->f32, e->base[2],
               sfi_addi(e, sfi_muli(e, panel.index, sfi_i64(e, k->contract.depth.c[0])), sfi_i64(e, sfi_position_bytes(k) / 4)));
  sfi_loop_begin(e, &number, first, end, one, NULL, 0);
  unit_at(e, &u, x, number.index);
  sfi_loop_end(e, &number, NULL);
  sfi_loop_end(e, &panel, NULL);
  sfi_loop_end(e, &tile, NULL);
  return SF_OK;
}
