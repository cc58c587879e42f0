/* The walk over tiles and columns shared by the emitters of matrix products. See contraction.h; tile numbering: plan.h. */
#include "contraction.h"

_Static_assert(SFI_VECTORS_MAX * 16 <= SFI_IMAGE_SLACK, "a register tile of the widest vectors may be read behind an image");

static bool is_panel(const sfi_kernel *k) {
  return k->ragged.width != 0;
}
static bool is_compressed(const sfi_kernel *k) {
  return k->contract.pitch != k->contract.valid;
}
static bool is_image(const sfi_kernel *k) {
  return k->contract.pitch != 0;
}

int64_t sfi_flat_columns(const sfi_kernel *k) {
  if (!sfi_is_const(k->extent[2].of)) return -1;
  int64_t j = sfi_ceil_div(k->extent[2].of.c[0], k->extent[2].div);
  return is_image(k) ? j / k->contract.valid * k->contract.pitch : j;
}

void sfi_choose_columns(sfi_kernel *k, const sfi_target *target, int32_t most) {
  int64_t lanes = target->lanes, flat = is_panel(k) ? k->ragged.width : sfi_flat_columns(k);
  int64_t vectors = most;
  if (flat >= 0) {
    int64_t all = sfi_max(1, sfi_ceil_div(flat, lanes));
    vectors = sfi_ceil_div(all, sfi_ceil_div(all, most));
  }
  k->tile.vectors = (int32_t)vectors;
  if (is_panel(k))
    k->tile.column_block = k->ragged.width;
  else if (is_image(k))
    k->tile.column_block = sfi_max(1, vectors * lanes / k->contract.pitch) * k->contract.valid;
  else
    k->tile.column_block = vectors * lanes;
}

void sfi_choose_rows(sfi_kernel *k, const sfi_target *target, int32_t rows, double bytes_per_row) {
  int64_t count = k->anchor == SFI_ANCHOR_PRODUCT ? 8 * rows : sfi_max(1, k->contract.rows);
  int64_t fit = bytes_per_row > 0 ? (int64_t)((double)target->l2_bytes / 2 / bytes_per_row) / rows * rows : count;
  int64_t block = sfi_round_up(sfi_ceil_div(count, 8), rows);
  k->tile.rows = rows;
  k->tile.row_block = sfi_max(rows, sfi_min(block, fit));
}

int64_t sfi_position_bytes(const sfi_kernel *k) {
  return k->contract.k_offset ? sfi_round_up(k->contract.depth.c[0] * 4, 64) : 0;
}

/* A constant stride is multiplied in; with a symbolic one the kernel multiplies. */
uint32_t sfi_position(const sfi_kernel *k, int64_t i) {
  if (k->contract.k_offset) return (uint32_t)k->contract.k_offset[i];
  sfi_poly stride = k->operand[1].stride[1];
  return (uint32_t)(sfi_is_const(stride) ? i * stride.c[0] : i);
}

bool sfi_positions_fit(const sfi_kernel *k) {
  int64_t depth = k->contract.depth.c[0];
  if (k->contract.k_offset) {
    for (int64_t i = 0; i < depth; i++)
      if (k->contract.k_offset[i] < 0 || k->contract.k_offset[i] > INT32_MAX) return false;
    return true;
  }
  sfi_poly stride = k->operand[1].stride[1];
  int64_t last = sfi_is_const(stride) ? stride.c[0] : 1, end;
  return last >= 0 && sfi_mul(depth, last, &end) && end <= INT32_MAX;
}

void sfi_write_positions(const sfi_kernel *k, uint8_t *blob) {
  if (!k->contract.k_offset) return;
  for (int64_t i = 0; i < k->contract.depth.c[0]; i++) {
    uint32_t p = sfi_position(k, i);
    memcpy(blob + i * 4, &p, 4);
  }
}

LLVMValueRef sfi_x_row_at(sfi_emission *e, LLVMValueRef x, LLVMValueRef stored) {
  sfi_poly stride = e->kernel->operand[1].stride[1];
  if (!e->kernel->contract.k_offset && !sfi_is_const(stride)) stored = sfi_muli(e, stored, sfi_poly_value(e, stride));
  return sfi_at(e, e->f32, x, stored);
}

LLVMValueRef sfi_x_row(sfi_emission *e, LLVMValueRef x, LLVMValueRef k) {
  if (!e->kernel->contract.k_offset)
    return sfi_at(e, e->f32, x, sfi_muli(e, k, sfi_poly_value(e, e->kernel->operand[1].stride[1])));
  LLVMValueRef stored = LLVMBuildZExt(e->builder, sfi_load_scalar(e, e->i32, e->base[2], k), e->i64, "");
  return sfi_at(e, e->f32, x, stored);
}

LLVMValueRef sfi_packed_header(sfi_emission *e, int index) {
  return sfi_load_scalar(e, e->i64, e->base[2], sfi_i64(e, index));
}

LLVMValueRef sfi_packed_section(sfi_emission *e, int index) {
  return sfi_at(e, e->i8, e->base[2], sfi_packed_header(e, index));
}

LLVMValueRef sfi_load_quarters(sfi_emission *e, LLVMValueRef address) {
  LLVMTypeRef quarter = LLVMVectorType(e->f32, 4);
  LLVMValueRef lane[64], four = LLVMBuildLoad2(e->builder, quarter, address, "");
  LLVMSetAlignment(four, 4);
  for (int32_t i = 0; i < e->lanes; i++) lane[i] = LLVMConstInt(e->i32, (unsigned)(i % 4), false);
  four = LLVMBuildShuffleVector(e->builder, four, LLVMGetUndef(quarter), LLVMConstVector(lane, (unsigned)e->lanes), "");
  return sfi_opaque(e, four); /* else each value becomes a load of its own, which takes a slot */
}

LLVMValueRef sfi_pick_quarters(sfi_emission *e, LLVMValueRef quarters, int slot) {
  LLVMValueRef lane[64];
  for (int32_t i = 0; i < e->lanes; i++) lane[i] = LLVMConstInt(e->i32, (unsigned)(i / 4 * 4 + slot), false);
  return LLVMBuildShuffleVector(e->builder, quarters, LLVMGetUndef(e->vec), LLVMConstVector(lane, (unsigned)e->lanes), "");
}

LLVMValueRef sfi_load_u32(sfi_emission *e, LLVMValueRef base, LLVMValueRef index) {
  return LLVMBuildZExt(e->builder, sfi_load_scalar(e, e->i32, base, index), e->i64, "");
}

float sfi_weight_at(const sfi_contract *c, int64_t r, int64_t k) {
  const sfi_matrix *w = &c->matrix;
  if (c->groups > 1) {
    int64_t rows = c->rows / c->groups, group = r / rows;
    k -= group * w->columns;
    if (k < 0 || k >= w->columns) return 0;
  }
  return w->data[r * w->row_stride + k * w->column_stride];
}

/* Columns [flat, flat + vectors * lanes) of t. end: NULL where all of them exist, else the first that does not, in the last vector. */
static void columns_at(sfi_emission *e, LLVMValueRef t, LLVMValueRef flat, int32_t vectors, LLVMValueRef end, sfi_columns *out) {
  const sfi_kernel *k = e->kernel;
  out->vectors = vectors;
  LLVMValueRef index =
      sfi_addi(e, sfi_poly_value(e, k->operand[1].offset), sfi_muli(e, t, sfi_poly_value(e, k->operand[1].stride[0])));
  out->x = sfi_at(e, e->f32, e->base[1], sfi_addi(e, index, flat));
  for (int32_t v = 0; v < out->vectors; v++) {
    LLVMValueRef first = sfi_addi(e, flat, sfi_i64(e, (int64_t)v * e->lanes));
    sfi_point *p = &out->point[v];
    *p = (sfi_point){.rank = 3, .vector_dim = 2, .vector = true, .index = {t, NULL, first}};
    out->load_mask[v] = NULL;
    if (is_panel(k)) {
      /* Valid lanes of the panel matter to ROW operands of the epilogue only; PANEL ones ignore the mask. */
      LLVMValueRef column = sfi_addi(e, sfi_muli(e, t, sfi_i64(e, k->ragged.width)), first);
      p->mask = sfi_mask_below(e, column, sfi_poly_value(e, k->ragged.columns));
    } else if (is_image(k) && is_compressed(k)) {
      LLVMValueRef pitch = sfi_i64(e, k->contract.pitch), valid = sfi_i64(e, k->contract.valid);
      LLVMValueRef row = LLVMBuildUDiv(e->builder, first, pitch, ""), column = LLVMBuildURem(e->builder, first, pitch, "");
      p->index[2] = sfi_addi(e, sfi_muli(e, row, valid), sfi_mini(e, column, valid));
      p->compressed = true;
      LLVMTypeRef narrow = LLVMVectorType(e->i32, (unsigned)e->lanes);
      LLVMValueRef lane = LLVMBuildAdd(e->builder, LLVMBuildTrunc(e->builder, sfi_iota(e), narrow, ""),
                                       sfi_splat(e, LLVMBuildTrunc(e->builder, column, e->i32, "")), "");
      LLVMValueRef pitches = LLVMBuildTrunc(e->builder, sfi_splat(e, pitch), narrow, "");
      LLVMValueRef valids = LLVMBuildTrunc(e->builder, sfi_splat(e, valid), narrow, "");
      LLVMValueRef in_row = LLVMBuildURem(e->builder, lane, pitches, ""), rows = LLVMBuildUDiv(e->builder, lane, pitches, "");
      p->mask = LLVMBuildICmp(e->builder, LLVMIntULT, in_row, valids, "");
      LLVMValueRef point = LLVMBuildAdd(e->builder, LLVMBuildMul(e->builder, rows, valids, ""), in_row, "");
      LLVMTypeRef wide = LLVMVectorType(e->i64, (unsigned)e->lanes);
      p->lane_index =
          LLVMBuildSub(e->builder, LLVMBuildZExt(e->builder, point, wide, ""), sfi_splat(e, sfi_mini(e, column, valid)), "");
      if (end && v == vectors - 1) p->mask = LLVMBuildAnd(e->builder, p->mask, sfi_mask_below(e, first, end), "");
    } else if (end && v == vectors - 1) {
      p->mask = sfi_mask_below(e, first, end);
      if (!is_image(k)) out->load_mask[v] = p->mask;
    }
  }
}

/* Vectors of what is left behind the register tiles of one t or panel, one bit each: where the number of columns is known, the one
 * width that is left, or none. exact: it ends with a whole vector. */
static uint32_t tail_vectors(const sfi_kernel *k, int64_t lanes, bool *exact) {
  int64_t width = k->tile.vectors * lanes, flat = sfi_flat_columns(k), block = flat;
  uint32_t any = ((UINT32_C(1) << (k->tile.vectors + 1)) - 1) & ~UINT32_C(1);
  if (is_panel(k)) {
    any &= ~(UINT32_C(1) << k->tile.vectors); /* a vector in part is computed whole */
    flat = sfi_is_const(k->ragged.columns) ? k->ragged.columns.c[0] : -1;
    block = k->ragged.width;
  } else if (is_image(k)) {
    block = k->tile.column_block / k->contract.valid * k->contract.pitch;
  }
  *exact = flat > 0 && flat % lanes == 0 && block % lanes == 0;
  if (flat <= 0) return flat < 0 ? any : 0;
  uint32_t tails = 0;
  for (int part = 0; part < 2; part++) { /* of whole blocks, and of the last one */
    int64_t left = (part ? flat % block : sfi_min(flat, block)) % width;
    tails |= UINT32_C(1) << sfi_ceil_div(left, lanes);
  }
  return tails & any;
}

static LLVMValueRef row_block_count(sfi_emission *e) {
  const sfi_kernel *k = e->kernel;
  LLVMValueRef m = sfi_poly_value(e, k->contract.row_count);
  return LLVMBuildUDiv(e->builder, sfi_addi(e, m, sfi_i64(e, k->tile.row_block - 1)), sfi_i64(e, k->tile.row_block), "");
}

/* Tiles from `first` on, as many `apart` as said. */
static void tiles(sfi_emission *e, LLVMValueRef first, LLVMValueRef apart, sfi_rows_fn rows) {
  const sfi_kernel *k = e->kernel;
  LLVMValueRef one = sfi_i64(e, 1), m = sfi_poly_value(e, k->contract.row_count);
  LLVMValueRef row_block = sfi_i64(e, k->tile.row_block), column_block = sfi_i64(e, k->tile.column_block);
  LLVMValueRef j = sfi_extent_value(e, k->extent[2]);
  LLVMValueRef row_blocks = row_block_count(e);
  LLVMValueRef column_blocks =
      is_panel(k) ? one : LLVMBuildUDiv(e->builder, sfi_addi(e, j, sfi_i64(e, k->tile.column_block - 1)), column_block, "");
  LLVMValueRef step = sfi_i64(e, (int64_t)k->tile.vectors * e->lanes);

  sfi_loop tile;
  sfi_loop_begin(e, &tile, first, e->tile_end, apart, NULL, 0);
  LLVMValueRef block = LLVMBuildUDiv(e->builder, tile.index, row_blocks, "");
  LLVMValueRef row_begin = sfi_muli(e, LLVMBuildURem(e->builder, tile.index, row_blocks, ""), row_block);
  LLVMValueRef row_end = sfi_mini(e, sfi_addi(e, row_begin, row_block), m);
  LLVMValueRef t = LLVMBuildUDiv(e->builder, block, column_blocks, "");
  LLVMValueRef begin = sfi_muli(e, LLVMBuildURem(e->builder, block, column_blocks, ""), column_block);
  LLVMValueRef end = sfi_mini(e, sfi_addi(e, begin, column_block), j);
  if (is_image(k)) { /* whole output rows: from outputs to flattened columns of X */
    begin = sfi_muli(e, LLVMBuildUDiv(e->builder, begin, sfi_i64(e, k->contract.valid), ""), sfi_i64(e, k->contract.pitch));
    end = sfi_muli(e, LLVMBuildUDiv(e->builder, end, sfi_i64(e, k->contract.valid), ""), sfi_i64(e, k->contract.pitch));
  }
  if (is_panel(k)) { /* the vectors of the last panel that hold columns */
    LLVMValueRef before = sfi_muli(e, t, sfi_i64(e, k->ragged.width));
    LLVMValueRef left = LLVMBuildNSWSub(e->builder, sfi_poly_value(e, k->ragged.columns), before, "");
    end = sfi_mini(e, end, left);
  }
  sfi_columns columns;
  int32_t widest = k->tile.vectors;
  bool exact;
  uint32_t tails = tail_vectors(k, e->lanes, &exact);
  /* In a panel and between images all lanes of the last vector may be computed. */
  int64_t slack = is_panel(k) ? e->lanes - 1 : 0;
  sfi_loop full;
  sfi_loop_begin(e, &full, begin, LLVMBuildNSWSub(e->builder, end, sfi_i64(e, (int64_t)widest * e->lanes - 1 - slack), ""), step,
                 NULL, 0);
  columns_at(e, t, full.index, widest, NULL, &columns);
  rows(e, &columns, row_begin, row_end);
  sfi_loop_end(e, &full, NULL);
  for (int32_t v = 1; v <= widest; v++) {
    if (!(tails >> v & 1)) continue;
    LLVMValueRef left = LLVMBuildNSWSub(e->builder, end, full.index, "");
    LLVMValueRef more = LLVMBuildICmp(e->builder, LLVMIntSGT, left, sfi_i64(e, (int64_t)(v - 1) * e->lanes), "");
    LLVMValueRef fits = LLVMBuildICmp(e->builder, LLVMIntSLE, left, sfi_i64(e, (int64_t)v * e->lanes), "");
    sfi_if tail;
    sfi_if_begin(e, &tail, LLVMBuildAnd(e->builder, more, fits, ""));
    columns_at(e, t, full.index, v, exact ? NULL : end, &columns);
    rows(e, &columns, row_begin, row_end);
    sfi_if_end(e, &tail, NULL, NULL, NULL, 0);
  }
  sfi_loop_end(e, &tile, NULL);
}

void sfi_contraction_tiles(sfi_emission *e, sfi_rows_fn rows) {
  tiles(e, e->tile_begin, sfi_i64(e, 1), rows);
}

void sfi_contraction_row_blocks(sfi_emission *e, sfi_rows_fn rows) {
  LLVMValueRef count = row_block_count(e), end = sfi_mini(e, sfi_addi(e, e->tile_begin, count), e->tile_end);
  sfi_loop first;
  sfi_loop_begin(e, &first, e->tile_begin, end, sfi_i64(e, 1), NULL, 0);
  tiles(e, first.index, count, rows);
  sfi_loop_end(e, &first, NULL);
}

void sfi_contraction_chunks(sfi_emission *e, int64_t columns, void (*walk)(sfi_emission *e)) {
  LLVMValueRef begin = e->tile_begin, end = e->tile_end, chunk = sfi_muli(e, row_block_count(e), sfi_i64(e, columns));
  sfi_loop loop;
  sfi_loop_begin(e, &loop, begin, end, chunk, NULL, 0);
  e->tile_begin = loop.index;
  e->tile_end = sfi_mini(e, sfi_addi(e, loop.index, chunk), end);
  walk(e);
  sfi_loop_end(e, &loop, NULL);
  e->tile_begin = begin;
  e->tile_end = end;
}

static void store_rows(sfi_emission *e, const sfi_columns *columns, const LLVMValueRef *row, int32_t count, const LLVMValueRef *acc,
                       bool finished) {
  const sfi_kernel *k = e->kernel;
  bool whole = sfi_is_const(k->contract.row_count) && k->contract.row_count.c[0] % count == 0;
  LLVMValueRef m = sfi_poly_value(e, k->contract.row_count);
  for (int32_t r = 0; r < count; r++) {
    sfi_if inside;
    if (!whole) sfi_if_begin(e, &inside, LLVMBuildICmp(e->builder, LLVMIntSLT, row[r], m, ""));
    for (int32_t v = 0; v < columns->vectors; v++) {
      sfi_point p = columns->point[v];
      p.index[1] = row[r];
      LLVMValueRef sum = acc[r * columns->vectors + v];
      sfi_point_store(e, &p, finished ? sfi_expr_value(e, &k->epilogue, &p, sum) : sum);
    }
    if (!whole) sfi_if_end(e, &inside, NULL, NULL, NULL, 0);
  }
}

void sfi_store_rows_at(sfi_emission *e, const sfi_columns *columns, const LLVMValueRef *row, int32_t count,
                       const LLVMValueRef *acc) {
  store_rows(e, columns, row, count, acc, true);
}

void sfi_keep_rows_at(sfi_emission *e, const sfi_columns *columns, const LLVMValueRef *row, int32_t count,
                      const LLVMValueRef *acc) {
  store_rows(e, columns, row, count, acc, false);
}

void sfi_dense_step(sfi_emission *e, const sfi_columns *columns, LLVMValueRef x_row, LLVMValueRef weights,
                    const LLVMValueRef *offset, int32_t rows, bool exact, const LLVMValueRef *sums, LLVMValueRef *next) {
  int32_t vectors = columns->vectors;
  LLVMValueRef x[SFI_VECTORS_MAX];
  for (int32_t v = 0; v < vectors; v++)
    x[v] = sfi_load_vector(e, sfi_at(e, e->f32, x_row, sfi_i64(e, (int64_t)v * e->lanes)), columns->load_mask[v]);
  for (int32_t r = 0; r < rows; r++) {
    LLVMValueRef scalar = sfi_load_scalar(e, e->f32, weights, offset[r]), value = sfi_splat(e, scalar);
    LLVMValueRef present = exact ? LLVMBuildFCmp(e->builder, LLVMRealUNE, scalar, sfi_f32(e, 0), "") : NULL;
    for (int32_t v = 0; v < vectors; v++) {
      LLVMValueRef before = sums[r * vectors + v], sum = sfi_fma(e, value, x[v], before);
      next[r * vectors + v] = exact ? LLVMBuildSelect(e->builder, present, sum, before, "") : sum;
    }
  }
}

void sfi_store_rows(sfi_emission *e, const sfi_columns *columns, LLVMValueRef row, int32_t count, const LLVMValueRef *acc) {
  LLVMValueRef rows[SFI_ROWS_MAX];
  for (int32_t r = 0; r < count; r++) rows[r] = sfi_addi(e, row, sfi_i64(e, r));
  sfi_store_rows_at(e, columns, rows, count, acc);
}

LLVMValueRef sfi_any_nan(sfi_emission *e, const sfi_columns *columns, const LLVMValueRef *acc, int32_t rows) {
  LLVMValueRef any = NULL;
  for (int32_t v = 0; v < columns->vectors; v++) {
    LLVMValueRef nan = NULL;
    for (int32_t r = 0; r < rows; r += 2) { /* two rows a compare */
      LLVMValueRef a = acc[r * columns->vectors + v], b = r + 1 < rows ? acc[(r + 1) * columns->vectors + v] : a;
      LLVMValueRef is = LLVMBuildFCmp(e->builder, LLVMRealUNO, a, b, "");
      nan = nan ? LLVMBuildOr(e->builder, nan, is, "") : is;
    }
    if (columns->point[v].mask) nan = LLVMBuildAnd(e->builder, nan, columns->point[v].mask, "");
    any = any ? LLVMBuildOr(e->builder, any, nan, "") : nan;
  }
  LLVMTypeRef type = LLVMTypeOf(any);
  return sfi_intrinsic(e, "llvm.vector.reduce.or", &type, 1, &any, 1);
}

double sfi_slots_a_load(const sfi_kernel *k) {
  return is_image(k) && is_compressed(k) ? 1.6 : 1;
}

double sfi_far(const sfi_target *target, double bytes, double near) {
  return bytes > near ? (1 - near / bytes) * (1 + 4 * bytes / (double)target->l2_bytes) : 0;
}

double sfi_cycles_us(const sfi_target *target, double cycles) {
  return cycles * sfi_target_cycle_us(target);
}

/* L3 holds what others use as well: of 32 MB, 9 MB of weights were found there in the next run, 19 MB only in part. */
static bool from_memory(const sfi_target *target, double bytes) {
  return bytes > (double)target->l3_bytes / 2;
}

bool sfi_weights_from_memory(const sfi_plan *plan) {
  return from_memory(plan->target, plan->weight_bytes);
}

double sfi_read_us(const sfi_plan *plan, double bytes) {
  const sfi_target *target = plan->target;
  double all = bytes > plan->weight_bytes ? bytes : plan->weight_bytes;
  /* Cores share memory, and a program is mostly run on several: two of them read 1.3 times what one does alone. */
  double gbps = all < (double)target->l2_bytes * 0.75 ? target->l2_gbps
                : from_memory(target, all)            ? target->memory_gbps * 1.3 / 2
                                                      : target->l3_gbps;
  return bytes / (gbps * 1e3);
}

double sfi_total_columns(const sfi_kernel *k, const sfi_target *target, int64_t symbol) {
  int64_t t = 0, j = 0;
  if (is_panel(k) && sfi_poly_eval(k->ragged.columns, symbol, &j)) return (double)sfi_round_up(j, target->lanes);
  sfi_extent_eval(k->extent[0], symbol, &t);
  sfi_extent_eval(k->extent[2], symbol, &j);
  if (is_image(k)) j = j / k->contract.valid * k->contract.pitch;
  return (double)t * (double)sfi_round_up(j, target->lanes);
}
