/* "conv-dense": dense products over columns that fill vectors badly, convolutions above all: every element of W is multiplied, with the
 * LANES ALONG ROWS OF W (output channels) and the pixels of X broadcast. A register tile is V vectors of rows by a piece of a row of pixels,
 * 2 by 14 at best: for each k V loads of packed W and a broadcast a pixel, 16 loads for 28 multiply-adds. Rows of pixels are cut into
 * pieces of two sizes that differ by one, so that nothing is wasted whatever their width; taps that fall on padding are left
 * out. At the end the tile is transposed in registers and goes through the epilogue with its lanes along pixels.
 *
 * W passes once for each block of pixels, from memory in a large network: while a panel of it meets the pixels, the next one is prefetched.
 *
 * Zeros of W are multiplied too: a tile that shows a NaN is computed once more without them, as in emit_gemm.c.
 *
 * Packed W: [positions of X rows] [panel of V vectors of rows][k][V lanes], rows past the last are zeros. */
#include "emitters.h"

/* Pixels of an image: the price looks at every piece of a row. */
enum { VECTORS_MOST = 8, PIXELS_MOST = 28, TILES_LEAST = 8, IMAGE_MOST = 1 << 20 };

/* How the output's pixels are cut. Every row into the same pieces, of which the first `large` have `across` pixels, the others one less. A
 * piece of a row is a unit: a register tile for each panel of W. */
typedef struct cut {
  int64_t rows, width; /* of the output; the width in pixels */
  int64_t row, pixel;  /* elements of X from one to the next */
  int64_t pieces, across, large;
} cut;

static cut cut_pixels(const sfi_kernel *k, const sfi_target *target) {
  const int32_t vectors = k->tile.vectors, fit = (target->registers - vectors - 2) / vectors;
  const int64_t pixels = k->extent[2].of.c[0], most = fit < 1 ? 1 : fit < PIXELS_MOST ? fit : PIXELS_MOST;
  const sfi_window *window = k->contract.window;
  cut c = {.rows = 1, .width = pixels, .row = k->contract.pitch, .pixel = 1};
  if (window[0].taps || k->contract.valid) {
    c.width = window[0].taps ? window[1].out : k->contract.valid;
    c.rows = pixels / c.width;
  }
  if (k->contract.in_place) {
    c.row = window[0].stride * window[0].step;
    c.pixel = window[1].stride * window[1].step;
  }
  c.pieces = sfi_ceil_div(c.width, most);
  c.across = sfi_ceil_div(c.width, c.pieces);
  c.large = c.width - c.pieces * (c.across - 1);
  return c;
}

static int64_t piece_begin(const cut *c, int64_t piece) {
  return piece * c->across - (piece > c->large ? piece - c->large : 0);
}
static int64_t piece_pixels(const cut *c, int64_t piece) {
  return c->across - (piece >= c->large);
}

/* Taps of the window by rows (0) or columns (1). */
static int64_t taps(const sfi_kernel *k, int d) {
  return k->contract.window[0].taps ? k->contract.window[d].taps : 1;
}
static int64_t channels(const sfi_kernel *k) {
  return k->contract.depth.c[0] / (taps(k, 0) * taps(k, 1));
}

/* Do this tap and output meet the image, and not its padding? */
static bool meets(const sfi_kernel *k, int d, int64_t tap, int64_t out) {
  const sfi_window *w = &k->contract.window[d];
  const int64_t at = out * w->stride + tap * w->dilation - w->before;
  return k->contract.window[0].taps == 0 || (at >= 0 && at < w->in);
}

/* Of `count` outputs from `first` on, those for which this tap meets the image. */
static int64_t meeting(const sfi_kernel *k, int d, int64_t tap, int64_t first, int64_t count) {
  const sfi_window *w = &k->contract.window[d];
  if (k->contract.window[0].taps == 0) return count;
  const int64_t missing = w->before - tap * w->dilation, behind = w->in + missing;
  const int64_t begin = sfi_max(first, missing <= 0 ? 0 : sfi_ceil_div(missing, w->stride));
  const int64_t end = sfi_min(first + count, behind <= 0 ? 0 : sfi_ceil_div(behind, w->stride));
  return sfi_max(0, end - begin);
}

/* Does one tap row do for all rows of the output? */
static bool one_tap_row(const sfi_kernel *k) {
  return taps(k, 0) == 1 && meets(k, 0, 0, 0) && meets(k, 0, 0, k->contract.window[0].out - 1);
}

/* Is there a tap on padding? */
static bool is_padded(const sfi_kernel *k) {
  for (int d = 0; d < 2 && k->contract.window[0].taps; d++)
    if (!meets(k, d, 0, 0) || !meets(k, d, taps(k, d) - 1, k->contract.window[d].out - 1)) return true;
  return false;
}

static int64_t panel_rows(const sfi_kernel *k, const sfi_target *target) {
  return (int64_t)k->tile.vectors * target->lanes;
}

/* Of one k: multiply-adds, or their latency where they are few, or loads. */
static double step_cycles(int64_t pixels, int64_t vectors) {
  const double fma = (double)(pixels * vectors) / 2, load = (double)(pixels + vectors + 2) / 2;
  return fma < 4 ? 4 : fma < load ? load : fma;
}

static double cycles(const sfi_kernel *k, const sfi_target *target) {
  const cut c = cut_pixels(k, target);
  const double stored = (double)panel_rows(k, target) * 0.5 * k->epilogue.n + 20; /* transposes, epilogue, the loop's end */
  double row = 0;                                                                 /* of each tap row and channel */
  int64_t tap_rows = 0;
  for (int64_t p = 0; p < c.pieces; p++)
    for (int64_t tap = 0; tap < taps(k, 1); tap++) {
      const int64_t pixels = meeting(k, 1, tap, piece_begin(&c, p), piece_pixels(&c, p));
      row += pixels ? step_cycles(pixels, k->tile.vectors) : 0;
    }
  for (int64_t tap = 0; tap < taps(k, 0); tap++) tap_rows += meeting(k, 0, tap, 0, c.rows);
  const double sum = row * 1.01 * (double)(channels(k) * tap_rows) + stored * (double)(c.rows * c.pieces);
  return sum * (double)sfi_ceil_div(k->contract.rows, panel_rows(k, target));
}

/* A block of columns reads a part of X that stays in L2 while W passes by. */
static int64_t column_blocks(const sfi_kernel *k, const sfi_target *target, int64_t row_blocks) {
  const int64_t channel = k->operand[1].stride[1].c[0];
  const double floats = (double)channels(k) * (double)sfi_max(channel, -channel);
  const int64_t fit = (int64_t)(floats * 4 / ((double)target->l2_bytes / 2)) + 1;
  return sfi_max(fit, sfi_ceil_div(TILES_LEAST, sfi_max(1, row_blocks)));
}

sfi_refusal sfi_conv_dense_accept(sfi_kernel *k, const sfi_plan *plan) {
  const sfi_target *target = plan->target;
  if (k->contract.groups > 1) return SFI_REFUSE_GROUPS;
  if (!sfi_is_const(k->extent[2].of) || k->extent[2].div != 1 || k->ragged.width || !sfi_is_const(k->operand[1].stride[1]))
    return SFI_REFUSE_SYMBOLIC;
  if (sfi_is(k->extent[2].of, 0) || sfi_is(k->extent[2].of, 1)) return SFI_REFUSE_ONE_COLUMN;
  if (!k->contract.in_place && !sfi_is(k->operand[1].stride[2], 1)) return SFI_REFUSE_STRIDED_COLUMNS;
  if (!k->contract.in_place && !sfi_positions_fit(k)) return SFI_REFUSE_OFFSETS_TOO_LARGE;
  if (k->contract.facts->nonfinite && is_padded(k)) return SFI_REFUSE_NOT_FINITE;
  if (k->extent[2].of.c[0] > IMAGE_MOST) return SFI_REFUSE_MANY_PIXELS;
  double least = 0;
  int32_t best = 0;
  for (int32_t v = 1; v <= VECTORS_MOST; v++) {
    k->tile.vectors = v;
    const double now = cycles(k, target);
    if (best && now >= least) continue;
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
  return sfi_pack_panels(k, panel_rows(k, plan->target), allocator, diag, out);
}

/* ---- code ---------------------------------------------------------------------------------------------------------- */

/* A piece of a row of pixels, for all rows of a panel. */
typedef struct unit {
  cut c;
  int64_t column; /* one that meets padding as the unit does */
  int32_t pixels;
  LLVMValueRef t, pixel, row;            /* first output pixel, first row of W */
  LLVMValueRef x, w;                     /* addresses: of X at the first pixel, tap and channel, and of the panel */
  LLVMValueRef tap_begin, tap_end;       /* tap rows that meet the image */
  LLVMValueRef prefetch, prefetch_bytes; /* address of what to prefetch at k 0; bytes from k to k */
  LLVMValueRef x_ahead;                  /* elements of X from the unit to the last pixel of the next one */
} unit;

/* Address of X at the first pixel of the unit, for a channel, a tap row and the first tap of it, which is k = first. */
static LLVMValueRef x_at(sfi_emission *e, const unit *u, LLVMValueRef channel, LLVMValueRef tap, LLVMValueRef first) {
  const sfi_kernel *k = e->kernel;
  if (!k->contract.in_place) return sfi_x_row(e, u->x, first);
  const int64_t row = k->contract.window[0].dilation * k->contract.window[0].step;
  LLVMValueRef from = sfi_muli(e, channel, sfi_i64(e, k->operand[1].stride[1].c[0]));
  return sfi_at(e, e->f32, u->x, sfi_addi(e, from, sfi_muli(e, tap, sfi_i64(e, row))));
}

/* Elements of X from the first tap of a row of the window to another. */
static int64_t shift_of(const sfi_kernel *k, int64_t tap) {
  if (k->contract.in_place) return tap * k->contract.window[1].dilation * k->contract.window[1].step;
  return tap ? k->contract.k_offset[tap] - k->contract.k_offset[0] : 0;
}

/* sums += W[rows of the panel, k] * X[k, pixels] for each tap of a row of the window. exact: zeros of W are skipped. */
static void tap_row(sfi_emission *e, const unit *u, LLVMValueRef channel, LLVMValueRef row, bool exact, LLVMValueRef *sums) {
  const sfi_kernel *k = e->kernel;
  const int32_t vectors = k->tile.vectors;
  LLVMValueRef first = sfi_addi(e, sfi_muli(e, channel, sfi_i64(e, taps(k, 0))), row);
  first = sfi_muli(e, first, sfi_i64(e, taps(k, 1)));
  LLVMValueRef x_row = x_at(e, u, channel, row, first);
  LLVMValueRef w_row = sfi_at(e, e->f32, u->w, sfi_muli(e, first, sfi_i64(e, (int64_t)vectors * e->lanes)));
  LLVMValueRef ahead = sfi_at(e, e->i8, u->prefetch, sfi_muli(e, first, u->prefetch_bytes));
  for (int64_t tap = 0; tap < taps(k, 1); tap++) {
    const int64_t shift = shift_of(k, tap);
    LLVMValueRef w[VECTORS_MOST], present[VECTORS_MOST];
    x_row = sfi_opaque(e, x_row); /* else pixels that taps share are kept in registers that are not there */
    for (int32_t v = 0; v < vectors; v++) {
      w[v] = sfi_load_vector(e, sfi_at(e, e->f32, w_row, sfi_i64(e, (tap * vectors + v) * e->lanes)), NULL);
      present[v] = exact ? LLVMBuildFCmp(e->builder, LLVMRealUNE, w[v], LLVMConstNull(e->vec), "") : NULL;
    }
    if (!exact) {
      sfi_prefetch(e, sfi_at(e, e->i8, ahead, sfi_muli(e, u->prefetch_bytes, sfi_i64(e, tap))), 0);
      sfi_prefetch(e, sfi_at(e, e->f32, x_row, sfi_addi(e, u->x_ahead, sfi_i64(e, shift))), 0);
    }
    for (int32_t i = 0; i < u->pixels; i++) {
      if (!meets(k, 1, tap, u->column + i)) continue;
      LLVMValueRef x = sfi_splat(e, sfi_load_scalar(e, e->f32, x_row, sfi_i64(e, shift + i * u->c.pixel)));
      for (int32_t v = 0; v < vectors; v++) {
        LLVMValueRef *sum = &sums[i * vectors + v], next = sfi_fma(e, w[v], x, *sum);
        *sum = exact ? LLVMBuildSelect(e->builder, present[v], next, *sum, "") : next;
      }
    }
  }
}

/* acc[pixel * V + v] = the sums over all k. */
static void accumulate(sfi_emission *e, const unit *u, bool exact, LLVMValueRef *acc) {
  const sfi_kernel *k = e->kernel;
  const int32_t count = u->pixels * k->tile.vectors;
  LLVMValueRef sums[SFI_CARRIED_MAX], one = sfi_i64(e, 1);
  for (int32_t i = 0; i < count; i++) acc[i] = LLVMConstNull(e->vec);
  sfi_loop channel, tap;
  sfi_loop_begin(e, &channel, sfi_i64(e, 0), sfi_i64(e, channels(k)), one, acc, (unsigned)count);
  memcpy(sums, channel.carried, (size_t)count * sizeof *sums);
  if (one_tap_row(k)) {
    tap_row(e, u, channel.index, sfi_i64(e, 0), exact, sums);
  } else {
    sfi_loop_begin(e, &tap, u->tap_begin, u->tap_end, one, sums, (unsigned)count);
    memcpy(sums, tap.carried, (size_t)count * sizeof *sums);
    tap_row(e, u, channel.index, tap.index, exact, sums);
    sfi_loop_end(e, &tap, sums);
    memcpy(sums, tap.carried, (size_t)count * sizeof *sums);
  }
  sfi_loop_end(e, &channel, sums);
  memcpy(acc, channel.carried, (size_t)count * sizeof *acc);
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
  const sfi_columns whole = {.vectors = vectors}; /* no lane is masked */
  LLVMValueRef acc[SFI_CARRIED_MAX], exact[SFI_CARRIED_MAX];
  accumulate(e, u, false, acc);
  sfi_if again;
  sfi_if_begin(e, &again, sfi_any_nan(e, &whole, acc, u->pixels));
  accumulate(e, u, true, exact);
  sfi_if_end(e, &again, exact, acc, acc, (unsigned)count);
  for (int32_t first = 0; first < u->pixels; first += e->lanes)
    for (int32_t v = 0; v < vectors; v++) store_rows(e, u, first, v, acc);
}

/* Are two pieces alike, in size and in where they meet padding? */
static bool alike(const sfi_kernel *k, const cut *c, int64_t a, int64_t b) {
  bool same = piece_pixels(c, a) == piece_pixels(c, b);
  for (int64_t tap = 0; same && tap < taps(k, 1); tap++)
    for (int64_t i = 0; i < piece_pixels(c, a); i++)
      same = same && meets(k, 1, tap, piece_begin(c, a) + i) == meets(k, 1, tap, piece_begin(c, b) + i);
  return same;
}

/* First tap row, of those in [0, taps], whose position in the image is `limit` or more. */
static LLVMValueRef first_tap(sfi_emission *e, LLVMValueRef out_row, int64_t limit) {
  const sfi_window *w = &e->kernel->contract.window[0];
  LLVMValueRef missing =
      LLVMBuildNSWSub(e->builder, sfi_i64(e, limit + w->before), sfi_muli(e, out_row, sfi_i64(e, w->stride)), "");
  LLVMValueRef none = LLVMBuildICmp(e->builder, LLVMIntSLE, missing, sfi_i64(e, 0), "");
  LLVMValueRef tap = LLVMBuildUDiv(e->builder, sfi_addi(e, missing, sfi_i64(e, w->dilation - 1)), sfi_i64(e, w->dilation), "");
  return sfi_mini(e, LLVMBuildSelect(e->builder, none, sfi_i64(e, 0), tap, ""), sfi_i64(e, w->taps));
}

/* Unit `number` of the panel that u names. x: address of X[t] at position 0. */
static void unit_at(sfi_emission *e, unit *u, LLVMValueRef x, LLVMValueRef number) {
  const sfi_kernel *k = e->kernel;
  const cut *c = &u->c;
  LLVMValueRef row = LLVMBuildUDiv(e->builder, number, sfi_i64(e, c->pieces), "");
  LLVMValueRef piece = LLVMBuildURem(e->builder, number, sfi_i64(e, c->pieces), "");
  LLVMValueRef less = LLVMBuildNSWSub(e->builder, piece, sfi_mini(e, piece, sfi_i64(e, c->large)), "");
  LLVMValueRef column = LLVMBuildNSWSub(e->builder, sfi_muli(e, piece, sfi_i64(e, c->across)), less, "");
  u->pixel = sfi_addi(e, sfi_muli(e, row, sfi_i64(e, c->width)), column);
  u->x_ahead = sfi_i64(e, c->pieces > 1 ? (2 * c->across - 1) * c->pixel : c->row + (c->across - 1) * c->pixel);
  LLVMValueRef from = sfi_addi(e, sfi_muli(e, row, sfi_i64(e, c->row)), sfi_muli(e, column, sfi_i64(e, c->pixel)));
  u->x = sfi_at(e, e->f32, x, from);
  if (!one_tap_row(k)) {
    u->tap_begin = first_tap(e, row, 0);
    u->tap_end = first_tap(e, row, k->contract.window[0].in);
  }
  for (int64_t begin = 0, end; begin < c->pieces; begin = end) {
    end = begin + 1;
    while (end < c->pieces && alike(k, c, begin, end)) end++;
    u->column = piece_begin(c, begin);
    u->pixels = (int32_t)piece_pixels(c, begin);
    sfi_if branch;
    LLVMValueRef after = LLVMBuildNSWSub(e->builder, piece, sfi_i64(e, begin), "");
    const bool all = begin == 0 && end == c->pieces;
    if (!all) sfi_if_begin(e, &branch, LLVMBuildICmp(e->builder, LLVMIntULT, after, sfi_i64(e, end - begin), ""));
    unit_code(e, u);
    if (!all) sfi_if_end(e, &branch, NULL, NULL, NULL, 0);
  }
}

/* All units in [first, end) with the panels of rows [row, row_end). */
static void block_code(sfi_emission *e, unit *u, LLVMValueRef x, LLVMValueRef row, LLVMValueRef row_end, LLVMValueRef first,
                       LLVMValueRef end) {
  const sfi_kernel *k = e->kernel;
  const int64_t rows = panel_rows(k, e->target), depth = k->contract.depth.c[0];
  LLVMValueRef one = sfi_i64(e, 1), units = LLVMBuildNSWSub(e->builder, end, first, "");
  LLVMValueRef rounded = sfi_addi(e, sfi_i64(e, rows * 4 - 1), units);
  u->prefetch_bytes = LLVMBuildUDiv(
      e->builder, rounded, LLVMBuildSelect(e->builder, LLVMBuildICmp(e->builder, LLVMIntSGT, units, one, ""), units, one, ""), "");
  sfi_loop panel, number;
  sfi_loop_begin(e, &panel, row, row_end, sfi_i64(e, rows), NULL, 0);
  u->row = panel.index;
  u->w = sfi_at(e, e->f32, e->base[2],
                sfi_addi(e, sfi_muli(e, panel.index, sfi_i64(e, depth)), sfi_i64(e, sfi_position_bytes(k) / 4)));
  LLVMValueRef next = sfi_at(e, e->f32, u->w, sfi_i64(e, rows * depth));
  sfi_loop_begin(e, &number, first, end, one, NULL, 0);
  LLVMValueRef done = sfi_muli(e, LLVMBuildNSWSub(e->builder, number.index, first, ""), sfi_i64(e, depth));
  u->prefetch = sfi_at(e, e->i8, next, sfi_muli(e, done, u->prefetch_bytes));
  unit_at(e, u, x, number.index);
  sfi_loop_end(e, &number, NULL);
  sfi_loop_end(e, &panel, NULL);
}

sf_status sfi_conv_dense_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  LLVMBuilderRef b = e->builder;
  unit u = {.c = cut_pixels(k, plan->target)};
  const int64_t row_blocks = sfi_ceil_div(k->contract.rows, k->tile.row_block);
  const int64_t blocks = sfi_ceil_div(k->extent[2].of.c[0], k->tile.column_block);
  if (row_blocks == 0) return SF_OK;
  LLVMValueRef units = sfi_i64(e, u.c.rows * u.c.pieces), row_block = sfi_i64(e, k->tile.row_block);
  sfi_loop tile;
  sfi_loop_begin(e, &tile, e->tile_begin, e->tile_end, sfi_i64(e, 1), NULL, 0);
  LLVMValueRef block = LLVMBuildUDiv(b, tile.index, sfi_i64(e, row_blocks), "");
  LLVMValueRef row = sfi_muli(e, LLVMBuildURem(b, tile.index, sfi_i64(e, row_blocks), ""), row_block);
  LLVMValueRef row_end = sfi_mini(e, sfi_addi(e, row, row_block), sfi_i64(e, k->contract.rows));
  u.t = LLVMBuildUDiv(b, block, sfi_i64(e, blocks), "");
  LLVMValueRef part = sfi_muli(e, LLVMBuildURem(b, block, sfi_i64(e, blocks), ""), units);
  LLVMValueRef first = LLVMBuildUDiv(b, part, sfi_i64(e, blocks), "");
  LLVMValueRef end = LLVMBuildUDiv(b, sfi_addi(e, part, units), sfi_i64(e, blocks), "");
  const sfi_window *window = k->contract.window;
  const int64_t origin = k->contract.in_place ? -window[0].before * window[0].step - window[1].before * window[1].step : 0;
  LLVMValueRef index = sfi_addi(e, sfi_addi(e, sfi_poly_value(e, k->operand[1].offset), sfi_i64(e, origin)),
                                sfi_muli(e, u.t, sfi_poly_value(e, k->operand[1].stride[0])));
  block_code(e, &u, sfi_at(e, e->f32, e->base[1], index), row, row_end, first, end);
  sfi_loop_end(e, &tile, NULL);
  return SF_OK;
}
