/* "conv-depthwise": convolutions with one channel a group. Each output is a sum over its window alone, so there is no product of matrices
 * to make: lanes run along a row of the image, and a few output rows of one channel are summed at once, so that a vector of the image, once
 * loaded, serves every row whose window holds it; the weights of the window stay in registers where there are enough. Images are
 * read where they are, every other column by two loads and a shuffle. Rows of padding are left out, columns of padding are lanes masked
 * away in the vectors at both ends of a row.
 *
 * A zero of a weight is absent, yet is multiplied by here: tiles with a NaN are computed once more without, as in emit_gemm.c.
 * Packed W: float [channel][tap]. */
#include "emitters.h"
#include "space.h"

enum { ROWS = 4, SETS = 2, STRIDE_MOST = 2 }; /* sets of sums in flight: four alone wait for each other */

typedef struct depthwise {
  sfi_emission *e;
  const sfi_window *rows, *columns;
  LLVMValueRef x, w; /* the channel's image and weights */
  LLVMValueRef weight[SFI_DEPTHWISE_TAPS];
  sfi_point at; /* t and the channel */
} depthwise;

/* Output rows row .. row + rows - 1, where row is no less than `least` and no more than `most`; a vector of columns from `column` on, which
 * meets padding unless it is inside. */
typedef struct tile {
  LLVMValueRef row, column;
  int32_t rows;
  int64_t least, most;
  bool inside;
} tile;

sfi_refusal sfi_conv_depthwise_accept(sfi_kernel *k, const sfi_plan *plan) {
  const sfi_contract *c = &k->contract;
  (void)plan;
  if (c->groups < 2 || c->groups != c->rows) return SFI_REFUSE_GROUPS;
  if (!c->in_place) return SFI_REFUSE_STRIDED_COLUMNS;
  k->tile.rows = k->tile.vectors = 1;
  k->tile.row_block = sfi_max(1, c->rows / 16);
  k->tile.column_block = sfi_max(1, k->extent[2].of.c[0]);
  return SFI_REFUSE_NONE;
}

double sfi_conv_depthwise_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  const sfi_contract *c = &k->contract;
  int64_t images = 0;
  sfi_extent_eval(k->extent[0], symbol, &images);
  const double vectors = (double)sfi_ceil_div(c->window[1].out, plan->target->lanes) * (double)c->window[0].out;
  const double cycles = (double)c->matrix.columns * 0.6 + 3 + 0.5 * k->epilogue.n;
  return sfi_cycles_us(plan->target, (double)(images * c->rows) * vectors * cycles);
}

sf_status sfi_conv_depthwise_pack(const sfi_kernel *k, const sfi_plan *plan, const sf_allocator *allocator, sfi_diag *diag,
                                  sfi_blob *out) {
  const sfi_matrix *w = &k->contract.matrix;
  (void)plan;
  if (!sfi_blob_init(out, allocator, (size_t)(w->rows * w->columns * 4 + 64))) return sfi_fail_memory(diag);
  float *to = (float *)(void *)out->data;
  for (int64_t r = 0; r < w->rows; r++)
    for (int64_t i = 0; i < w->columns; i++) to[r * w->columns + i] = w->data[r * w->row_stride + i * w->column_stride];
  return SF_OK;
}

/* ---- a vector of the image ----------------------------------------------------------------------------------------- */

/* Row or column of the image that an output meets at a tap, padding included. */
static LLVMValueRef meet(sfi_emission *e, const sfi_window *w, LLVMValueRef out, LLVMValueRef tap) {
  LLVMValueRef first = sfi_addi(e, sfi_muli(e, out, sfi_i64(e, w->stride)), sfi_i64(e, -w->before));
  return sfi_addi(e, first, sfi_muli(e, tap, sfi_i64(e, w->dilation)));
}

static LLVMValueRef exists(sfi_emission *e, const sfi_window *w, LLVMValueRef at) {
  return LLVMBuildICmp(e->builder, LLVMIntULT, at, sfi_i64(e, w->in), "");
}

static LLVMValueRef image_row(const depthwise *d, LLVMValueRef row) {
  return sfi_at(d->e, d->e->f32, d->x, sfi_muli(d->e, row, sfi_i64(d->e, d->rows->step)));
}

/* Which lanes of the vectors from column `first` on, as many as the stride, are in the image. */
static void find_lanes(const depthwise *d, LLVMValueRef first, LLVMValueRef *mask) {
  sfi_emission *e = d->e;
  LLVMTypeRef narrow = LLVMVectorType(e->i32, (unsigned)e->lanes);
  for (int64_t i = 0; i < d->columns->stride; i++) {
    LLVMValueRef begin = LLVMBuildTrunc(e->builder, sfi_addi(e, first, sfi_i64(e, i * e->lanes)), e->i32, "");
    LLVMValueRef lane = LLVMBuildAdd(e->builder, sfi_splat(e, begin), LLVMBuildTrunc(e->builder, sfi_iota(e), narrow, ""), "");
    LLVMValueRef end = LLVMConstInt(e->i32, (unsigned long long)d->columns->in, false);
    mask[i] = LLVMBuildICmp(e->builder, LLVMIntULT, lane, sfi_splat(e, end), "");
  }
}

/* Columns first, first + stride, .. of a row. mask: of find_lanes, or NULL where all are in the image. */
static LLVMValueRef load_columns(const depthwise *d, LLVMValueRef row, LLVMValueRef first, const LLVMValueRef *mask) {
  sfi_emission *e = d->e;
  LLVMValueRef part[STRIDE_MOST], lane[64];
  for (int64_t i = 0; i < d->columns->stride; i++)
    part[i] = sfi_load_vector(e, sfi_at(e, e->f32, row, sfi_addi(e, first, sfi_i64(e, i * e->lanes))), mask ? mask[i] : NULL);
  if (d->columns->stride == 1) return part[0];
  for (int32_t i = 0; i < e->lanes; i++) lane[i] = LLVMConstInt(e->i32, (unsigned long long)i * STRIDE_MOST, false);
  return LLVMBuildShuffleVector(e->builder, part[0], part[1], LLVMConstVector(lane, (unsigned)e->lanes), "");
}

/* ---- sums ---------------------------------------------------------------------------------------------------------- */

/* The image row that is `distance` behind the first one of the tile, added to the sums of all rows that meet it. */
static void add_row(const depthwise *d, const tile *t, int64_t distance, LLVMValueRef row, const LLVMValueRef *first,
                    LLVMValueRef (*mask)[STRIDE_MOST], LLVMValueRef *acc) {
  sfi_emission *e = d->e;
  LLVMValueRef address = image_row(d, row);
  for (int64_t kw = 0; kw < d->columns->taps; kw++) {
    LLVMValueRef value = load_columns(d, address, first[kw], t->inside ? NULL : mask[kw]);
    for (int32_t r = 0; r < t->rows; r++) {
      LLVMValueRef *sum = &acc[kw % SETS * t->rows + r];
      for (int64_t kh = 0; kh < d->rows->taps; kh++)
        if (r * d->rows->stride + kh * d->rows->dilation == distance)
          *sum = sfi_fma(e, d->weight[kh * d->columns->taps + kw], value, *sum);
    }
  }
  for (int32_t i = 0; i < SETS * t->rows; i++) acc[i] = sfi_pin(e, acc[i]);
}

static bool meets_any(const depthwise *d, const tile *t, int64_t distance) {
  for (int32_t r = 0; r < t->rows; r++) {
    const int64_t behind = distance - r * d->rows->stride;
    if (behind >= 0 && behind % d->rows->dilation == 0 && behind / d->rows->dilation < d->rows->taps) return true;
  }
  return false;
}

/* Sums of a tile; image rows in their order. */
static void windows(const depthwise *d, const tile *t, LLVMValueRef *out) {
  sfi_emission *e = d->e;
  const int32_t sums = SETS * t->rows;
  const sfi_window *h = d->rows;
  const int64_t last = (t->rows - 1) * h->stride + (h->taps - 1) * h->dilation;
  LLVMValueRef first[SFI_DEPTHWISE_TAPS], mask[SFI_DEPTHWISE_TAPS][STRIDE_MOST], acc[SETS * ROWS] = {0}, next[SETS * ROWS];
  for (int64_t kw = 0; kw < d->columns->taps; kw++) {
    first[kw] = meet(e, d->columns, t->column, sfi_i64(e, kw));
    if (!t->inside) find_lanes(d, first[kw], mask[kw]);
  }
  for (int32_t i = 0; i < sums; i++) acc[i] = LLVMConstNull(e->vec);
  for (int64_t distance = 0; distance <= last; distance++) {
    const int64_t least = t->least * h->stride - h->before + distance, most = t->most * h->stride - h->before + distance;
    if (most < 0 || least >= h->in || !meets_any(d, t, distance)) continue;
    LLVMValueRef row = sfi_addi(e, meet(e, h, t->row, sfi_i64(e, 0)), sfi_i64(e, distance));
    if (least >= 0 && most < h->in) {
      add_row(d, t, distance, row, first, mask, acc);
      continue;
    }
    sfi_if branch;
    memcpy(next, acc, sizeof next);
    sfi_if_begin(e, &branch, exists(e, h, row));
    add_row(d, t, distance, row, first, mask, next);
    sfi_if_end(e, &branch, next, acc, acc, (unsigned)sums);
  }
  for (int32_t r = 0; r < t->rows; r++) out[r] = LLVMBuildFAdd(e->builder, acc[r], acc[t->rows + r], "");
}

/* The same without the zeros of weights, a tap at a time: rare, so that its code is kept small. */
static void windows_exact(const depthwise *d, const tile *t, LLVMValueRef *acc) {
  sfi_emission *e = d->e;
  LLVMBuilderRef b = e->builder;
  LLVMValueRef zero = LLVMConstNull(e->vec), across = sfi_i64(e, d->columns->taps), next[ROWS], mask[STRIDE_MOST];
  for (int32_t r = 0; r < t->rows; r++) acc[r] = zero;
  sfi_loop taps;
  sfi_loop_begin(e, &taps, sfi_i64(e, 0), sfi_i64(e, d->rows->taps * d->columns->taps), sfi_i64(e, 1), acc, (unsigned)t->rows);
  LLVMValueRef weight = sfi_load_scalar(e, e->f32, d->w, taps.index);
  LLVMValueRef present = LLVMBuildFCmp(b, LLVMRealUNE, weight, sfi_f32(e, 0), "");
  LLVMValueRef first = meet(e, d->columns, t->column, LLVMBuildURem(b, taps.index, across, ""));
  find_lanes(d, first, mask);
  for (int32_t r = 0; r < t->rows; r++) {
    sfi_if branch;
    LLVMValueRef row = meet(e, d->rows, sfi_addi(e, t->row, sfi_i64(e, r)), LLVMBuildUDiv(b, taps.index, across, ""));
    sfi_if_begin(e, &branch, LLVMBuildAnd(b, present, exists(e, d->rows, row), ""));
    next[r] = sfi_fma(e, sfi_splat(e, weight), load_columns(d, image_row(d, row), first, mask), taps.carried[r]);
    sfi_if_end(e, &branch, &next[r], &taps.carried[r], &next[r], 1);
  }
  sfi_loop_end(e, &taps, next);
  memcpy(acc, taps.carried, (size_t)t->rows * sizeof *acc);
}

/* ---- tiles --------------------------------------------------------------------------------------------------------- */

static void emit_tile(const depthwise *d, const tile *t) {
  sfi_emission *e = d->e;
  const int64_t width = d->columns->out;
  LLVMValueRef acc[ROWS], again[ROWS];
  sfi_columns columns = {.vectors = 1, .point = {d->at}};
  if (!t->inside) columns.point[0].mask = sfi_mask_below(e, t->column, sfi_i64(e, width));
  windows(d, t, acc);
  sfi_if nan;
  sfi_if_begin(e, &nan, sfi_any_nan(e, &columns, acc, t->rows));
  windows_exact(d, t, again);
  sfi_if_end(e, &nan, again, acc, acc, (unsigned)t->rows);
  for (int32_t r = 0; r < t->rows; r++) {
    sfi_point p = columns.point[0];
    p.index[2] = sfi_addi(e, sfi_muli(e, sfi_addi(e, t->row, sfi_i64(e, r)), sfi_i64(e, width)), t->column);
    sfi_point_store(e, &p, sfi_expr_value(e, &e->kernel->epilogue, &p, acc[r]));
  }
}

static void emit_vectors(const depthwise *d, tile *t, int64_t begin, int64_t end, bool inside) {
  sfi_emission *e = d->e;
  sfi_loop loop;
  if (begin == end) return;
  t->inside = inside;
  t->column = sfi_i64(e, begin * e->lanes);
  if (begin + 1 == end) {
    emit_tile(d, t);
    return;
  }
  sfi_loop_begin(e, &loop, t->column, sfi_i64(e, end * e->lanes), sfi_i64(e, e->lanes), NULL, 0);
  t->column = loop.index;
  emit_tile(d, t);
  sfi_loop_end(e, &loop, NULL);
}

/* Rows of output: vectors that meet padding on the left, those inside, those that meet it on the right or are not full. */
static void emit_rows(const depthwise *d, tile *t) {
  const sfi_window *w = d->columns;
  const int64_t lanes = d->e->lanes, vectors = sfi_ceil_div(w->out, lanes), reach = lanes * w->stride;
  const int64_t behind = w->in + w->before - (w->taps - 1) * w->dilation; /* columns of the last tap that are not padding behind */
  const int64_t end = behind <= 0 ? 0 : sfi_min(sfi_min(behind / reach, w->out / lanes), vectors);
  const int64_t begin = sfi_min(sfi_ceil_div(w->before, reach), end);
  emit_vectors(d, t, 0, begin, false);
  emit_vectors(d, t, begin, end, true);
  emit_vectors(d, t, end, vectors, false);
}

static void channel(depthwise *d, LLVMValueRef t, LLVMValueRef m) {
  sfi_emission *e = d->e;
  const sfi_access *x = &e->kernel->operand[1];
  const int64_t taps = d->rows->taps * d->columns->taps, height = d->rows->out;
  LLVMValueRef at = sfi_addi(e, sfi_poly_value(e, x->offset), sfi_muli(e, t, sfi_poly_value(e, x->stride[0])));
  d->x = sfi_at(e, e->f32, e->base[1], sfi_addi(e, at, sfi_muli(e, m, sfi_poly_value(e, x->stride[1]))));
  d->w = sfi_at(e, e->f32, e->base[2], sfi_muli(e, m, sfi_i64(e, taps)));
  d->at = (sfi_point){.rank = 3, .vector_dim = 2, .vector = true, .index = {t, m, NULL}};
  for (int64_t i = 0; i < taps; i++) d->weight[i] = sfi_splat(e, sfi_load_scalar(e, e->f32, d->w, sfi_i64(e, i)));
  /* Groups of as many rows, and one of what is left. */
  const int64_t groups = sfi_ceil_div(height, ROWS), rows = sfi_ceil_div(height, groups), whole = height / rows * rows;
  tile group = {.rows = (int32_t)rows, .least = 0, .most = whole - rows};
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), sfi_i64(e, whole), sfi_i64(e, rows), NULL, 0);
  group.row = loop.index;
  emit_rows(d, &group);
  sfi_loop_end(e, &loop, NULL);
  group = (tile){.rows = (int32_t)(height - whole), .least = whole, .most = whole, .row = sfi_i64(e, whole)};
  if (group.rows) emit_rows(d, &group);
}

sf_status sfi_conv_depthwise_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  const sfi_contract *c = &k->contract;
  depthwise d = {.e = e, .rows = &c->window[0], .columns = &c->window[1]};
  (void)plan;
  LLVMValueRef blocks = sfi_i64(e, sfi_ceil_div(c->rows, k->tile.row_block)), block = sfi_i64(e, k->tile.row_block);
  sfi_loop tiles, channels;
  sfi_loop_begin(e, &tiles, e->tile_begin, e->tile_end, sfi_i64(e, 1), NULL, 0);
  LLVMValueRef t = LLVMBuildUDiv(e->builder, tiles.index, blocks, "");
  LLVMValueRef begin = sfi_muli(e, LLVMBuildURem(e->builder, tiles.index, blocks, ""), block);
  sfi_loop_begin(e, &channels, begin, sfi_mini(e, sfi_addi(e, begin, block), sfi_i64(e, c->rows)), sfi_i64(e, 1), NULL, 0);
  channel(&d, t, channels.index);
  sfi_loop_end(e, &channels, NULL);
  sfi_loop_end(e, &tiles, NULL);
  return SF_OK;
}
