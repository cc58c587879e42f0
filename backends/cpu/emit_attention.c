/* "attention": softmax(scale q k^T + mask) v in one kernel, no matrix of scores in memory. A tile is one head of one block of queries,
 * which run along the lanes; keys come in blocks, and the largest score, the sum of exponentials and the result so far are kept for each
 * query and rescaled as the maximum grows (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al.,
 * "FlashAttention", 2022). With queries along the lanes, both products are the register tile of a matrix product whose broadcast side is k
 * or v, and nothing is ever summed or compared across lanes. Queries in panels are read where they are, others are transposed once a
 * tile; k and v are read by single elements, of any strides. */
#include "emitters.h"
#include "space.h"

/* Register tile of both products: as many rows, keys or features, as the accumulators leave room for. */
static int32_t tile_rows(const sfi_target *target, int32_t vectors) {
  const int32_t rows = (target->registers - vectors - 1) / vectors, most = vectors > 2 ? 6 : 12;
  return rows < most ? rows : most;
}

sfi_refusal sfi_attend_accept(sfi_kernel *k, const sfi_plan *plan) {
  const int64_t lanes = plan->target->lanes, vectors = k->ragged.width / lanes;
  if (k->ragged.width % lanes || vectors > SFI_VECTORS_MAX / 2) return SFI_REFUSE_STRIDED_COLUMNS;
  k->tile.vectors = (int32_t)vectors;
  k->tile.rows = tile_rows(plan->target, (int32_t)vectors);
  return SFI_REFUSE_NONE;
}

double sfi_attend_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  enum { EXP = 6 }; /* cycles a vector of scores, beside the products */
  double tiles = 1;
  int64_t n = 0, keys = 0;
  for (int32_t d = 0; d < 3; d++) tiles *= sfi_extent_eval(k->extent[d], symbol, &n) ? (double)n : 0;
  sfi_poly_eval(k->attend.keys, symbol, &keys);
  const double features = (double)(k->attend.depth + k->extent[3].of.c[0]);
  return sfi_cycles_us(plan->target, tiles * (double)k->tile.vectors * ((double)keys * (features / 2 * 1.05 + EXP) + features * 4));
}

typedef struct attention {
  sfi_emission *e;
  int32_t vectors, rows;
  int64_t width, features;                                  /* queries of a tile; of v */
  sfi_point at;                                             /* b, h, t, 0, 0, block of keys, 0 */
  LLVMValueRef q, q_step, packed;                           /* feature f of the queries at q + f * q_step; packed: room for them */
  LLVMValueRef scores, result;                              /* [key][query], [feature][query], on the stack */
  LLVMValueRef exists[SFI_VECTORS_MAX];                     /* queries that do */
  LLVMValueRef before, queries, first;                      /* keys before the first query; queries; the first one of the tile */
  LLVMValueRef k, v, keys;                                  /* of this block: addresses, number of keys */
  LLVMValueRef whole;                                       /* keys of this block that every query sees */
  LLVMValueRef seen[SFI_VECTORS_MAX];                       /* causal: keys of this block that each query sees, i32 */
  LLVMValueRef max[SFI_VECTORS_MAX], safe[SFI_VECTORS_MAX]; /* largest score so far; the same, 0 where there is none */
} attention;

/* Vector v of row `row` of a scratch matrix. */
static LLVMValueRef cell(const attention *a, LLVMValueRef matrix, LLVMValueRef row, LLVMValueRef lane) {
  sfi_emission *e = a->e;
  return sfi_at(e, e->f32, matrix, sfi_addi(e, sfi_muli(e, row, sfi_i64(e, a->width)), lane));
}
static LLVMValueRef lane_of(const attention *a, int32_t v) {
  return sfi_i64(a->e, (int64_t)v * a->e->lanes);
}

/* The larger of y and what may be NaN: a NaN among the scores comes back as its exponential. */
static LLVMValueRef largest(sfi_emission *e, LLVMValueRef y, LLVMValueRef x) {
  return LLVMBuildSelect(e->builder, LLVMBuildFCmp(e->builder, LLVMRealOGT, x, y, ""), x, y, "");
}

/* Are products kept as scores before they are scaled? Then the factor goes with that of the exponential's base. */
static bool unscaled(const sfi_attend *attend) {
  return !attend->mask && attend->scale > 0;
}

/* e^(scale * (score - most)), as a power of 2. */
static LLVMValueRef exponential(sfi_emission *e, LLVMValueRef score, LLVMValueRef most) {
  const sfi_attend *attend = &e->kernel->attend;
  const double log2_e = 1.44269504088896341, factor = unscaled(attend) ? (double)attend->scale * log2_e : log2_e;
  return sfi_exp2(e, LLVMBuildFMul(e->builder, LLVMBuildFSub(e->builder, score, most, ""), sfi_vconst(e, factor), ""));
}

/* `rows` rows of an operand that the tile broadcasts: address of each index from `first` on; those past `last` read the last one again. */
static void row_addresses(const attention *a, int32_t rows, LLVMValueRef base, LLVMValueRef first, LLVMValueRef last,
                          sfi_poly stride, LLVMValueRef *out) {
  sfi_emission *e = a->e;
  for (int32_t r = 0; r < rows; r++) {
    LLVMValueRef index = sfi_addi(e, first, sfi_i64(e, r));
    if (last) index = sfi_mini(e, index, last);
    out[r] = sfi_at(e, e->f32, base, sfi_muli(e, index, sfi_poly_value(e, stride)));
  }
}

/* acc[r][v] += row[r][i * stride] * x[i][v] for i in [begin, end): x at x + i * x_step. seen: terms of queries that do not see i are
 * left out. */
static void multiply(const attention *a, int32_t rows, const LLVMValueRef *row, sfi_poly stride, LLVMValueRef x,
                     LLVMValueRef x_step, LLVMValueRef begin, LLVMValueRef end, bool seen, LLVMValueRef *acc) {
  sfi_emission *e = a->e;
  const int32_t count = rows * a->vectors;
  LLVMValueRef next[SFI_ACCUMULATORS_MAX], vector[SFI_VECTORS_MAX], sees[SFI_VECTORS_MAX] = {NULL};
  sfi_loop loop;
  sfi_loop_begin(e, &loop, begin, end, sfi_i64(e, 1), acc, (unsigned)count);
  LLVMValueRef from = sfi_at(e, e->f32, x, sfi_muli(e, loop.index, x_step));
  LLVMValueRef offset = sfi_muli(e, loop.index, sfi_poly_value(e, stride));
  for (int32_t v = 0; v < a->vectors; v++) {
    vector[v] = sfi_load_vector(e, sfi_at(e, e->f32, from, lane_of(a, v)), NULL);
    if (!seen) continue;
    LLVMValueRef i = sfi_splat(e, LLVMBuildTrunc(e->builder, loop.index, e->i32, ""));
    sees[v] = LLVMBuildICmp(e->builder, LLVMIntSLT, i, a->seen[v], "");
  }
  for (int32_t r = 0; r < rows; r++) {
    LLVMValueRef value = sfi_splat(e, sfi_load_scalar(e, e->f32, row[r], offset));
    for (int32_t v = 0; v < a->vectors; v++) {
      const int32_t i = r * a->vectors + v;
      next[i] = sfi_fma(e, value, vector[v], loop.carried[i]);
      if (seen) next[i] = LLVMBuildSelect(e->builder, sees[v], next[i], loop.carried[i], "");
    }
  }
  sfi_loop_end(e, &loop, next);
  memcpy(acc, loop.carried, (size_t)count * sizeof *acc);
}

/* Scores of this block into a->scores, and the largest of each query into `most`. */
static void score_block(attention *a, LLVMValueRef *most) {
  sfi_emission *e = a->e;
  const sfi_attend *attend = &e->kernel->attend;
  const sfi_access *k = &e->kernel->operand[2];
  LLVMValueRef row[SFI_ROWS_MAX], acc[SFI_ACCUMULATORS_MAX], next[SFI_VECTORS_MAX];
  LLVMValueRef last = LLVMBuildNSWSub(e->builder, a->keys, sfi_i64(e, 1), "");
  for (int32_t v = 0; v < a->vectors; v++) most[v] = sfi_vconst(e, -__builtin_inf());
  sfi_loop keys;
  sfi_loop_begin(e, &keys, sfi_i64(e, 0), a->keys, sfi_i64(e, a->rows), most, (unsigned)a->vectors);
  row_addresses(a, a->rows, a->k, keys.index, last, k->stride[6], row);
  for (int32_t i = 0; i < a->rows * a->vectors; i++) acc[i] = LLVMConstNull(e->vec);
  multiply(a, a->rows, row, k->stride[3], a->q, a->q_step, sfi_i64(e, 0), sfi_i64(e, attend->depth), false, acc);
  for (int32_t v = 0; v < a->vectors; v++) next[v] = keys.carried[v];
  for (int32_t r = 0; r < a->rows; r++) {
    LLVMValueRef at = sfi_addi(e, keys.index, sfi_i64(e, r)),
                 key = sfi_mini(e, at, last); /* the last key again is no new maximum */
    for (int32_t v = 0; v < a->vectors; v++) {
      LLVMValueRef s = acc[r * a->vectors + v], scale = sfi_vconst(e, (double)attend->scale);
      if (!attend->mask && !unscaled(attend)) s = LLVMBuildFMul(e->builder, s, scale, "");
      if (attend->mask) {
        sfi_point p = a->at;
        p.index[4] = lane_of(a, v);
        p.index[6] = key;
        p.vector = true;
        p.vector_dim = 4;
        p.mask = a->exists[v];
        s = sfi_fma(e, s, scale, sfi_operand_load(e, attend->mask, &p));
      }
      if (attend->causal) {
        LLVMValueRef j = sfi_splat(e, LLVMBuildTrunc(e->builder, key, e->i32, ""));
        LLVMValueRef sees = LLVMBuildICmp(e->builder, LLVMIntSLT, j, a->seen[v], "");
        s = LLVMBuildSelect(e->builder, sees, s, sfi_vconst(e, -__builtin_inf()), "");
      }
      sfi_store_vector(e, s, cell(a, a->scores, at, lane_of(a, v)), NULL);
      next[v] = largest(e, next[v], s);
    }
  }
  sfi_loop_end(e, &keys, next);
  memcpy(most, keys.carried, (size_t)a->vectors * sizeof *most);
}

/* Scores to exponentials, in place; their sums into `sum`. */
static void exponentials(attention *a, LLVMValueRef *sum) {
  sfi_emission *e = a->e;
  LLVMValueRef next[SFI_VECTORS_MAX];
  for (int32_t v = 0; v < a->vectors; v++) sum[v] = LLVMConstNull(e->vec);
  sfi_loop keys;
  sfi_loop_begin(e, &keys, sfi_i64(e, 0), a->keys, sfi_i64(e, 1), sum, (unsigned)a->vectors);
  for (int32_t v = 0; v < a->vectors; v++) {
    LLVMValueRef place = cell(a, a->scores, keys.index, lane_of(a, v));
    LLVMValueRef p = exponential(e, sfi_load_vector(e, place, NULL), a->safe[v]);
    sfi_store_vector(e, p, place, NULL);
    next[v] = LLVMBuildFAdd(e->builder, keys.carried[v], p, "");
  }
  sfi_loop_end(e, &keys, next);
  memcpy(sum, keys.carried, (size_t)a->vectors * sizeof *sum);
}

/* result = result * correction + exponentials * v for `count` times `rows` features from `first` on. */
static void value_rows(attention *a, int64_t first, int64_t count, int32_t rows, const LLVMValueRef *correction) {
  sfi_emission *e = a->e;
  const sfi_access *v_access = &e->kernel->operand[3];
  LLVMValueRef row[SFI_ROWS_MAX], acc[SFI_ACCUMULATORS_MAX], zero = sfi_i64(e, 0), step = sfi_i64(e, a->width);
  sfi_loop features;
  sfi_loop_begin(e, &features, sfi_i64(e, first), sfi_i64(e, first + count * rows), sfi_i64(e, rows), NULL, 0);
  row_addresses(a, rows, a->v, features.index, NULL, v_access->stride[3], row);
  for (int32_t i = 0; i < rows * a->vectors; i++) {
    LLVMValueRef f = sfi_addi(e, features.index, sfi_i64(e, i / a->vectors));
    acc[i] = sfi_load_vector(e, cell(a, a->result, f, lane_of(a, i % a->vectors)), NULL);
    acc[i] = LLVMBuildFMul(e->builder, acc[i], correction[i % a->vectors], "");
  }
  multiply(a, rows, row, v_access->stride[6], a->scores, step, zero, a->whole, false, acc);
  if (e->kernel->attend.causal) multiply(a, rows, row, v_access->stride[6], a->scores, step, a->whole, a->keys, true, acc);
  for (int32_t i = 0; i < rows * a->vectors; i++) {
    LLVMValueRef f = sfi_addi(e, features.index, sfi_i64(e, i / a->vectors));
    sfi_store_vector(e, acc[i], cell(a, a->result, f, lane_of(a, i % a->vectors)), NULL);
  }
  sfi_loop_end(e, &features, NULL);
}

/* Tiles of all features, as even as they can be, so that none is computed in vain. */
static void value_block(attention *a, const LLVMValueRef *correction) {
  const int64_t tiles = sfi_ceil_div(a->features, a->rows), least = a->features / tiles, larger = a->features % tiles;
  if (larger) value_rows(a, 0, larger, (int32_t)least + 1, correction);
  value_rows(a, larger * (least + 1), tiles - larger, (int32_t)least, correction);
}

/* Address of the block's first key. */
static LLVMValueRef block_address(attention *a, int32_t operand) {
  sfi_emission *e = a->e;
  sfi_point p = a->at;
  p.index[1] = LLVMBuildUDiv(e->builder, p.index[1], sfi_i64(e, e->kernel->attend.group), "");
  return sfi_at(e, e->f32, e->base[operand], sfi_access_index(e, &e->kernel->operand[operand], &p));
}

/* One block of keys: carried are the maxima, then the sums. */
static void key_block(attention *a, LLVMValueRef block, LLVMValueRef keys, const LLVMValueRef *carried, LLVMValueRef *next) {
  sfi_emission *e = a->e;
  const sfi_attend *attend = &e->kernel->attend;
  const double inf = __builtin_inf();
  LLVMValueRef most[SFI_VECTORS_MAX], sum[SFI_VECTORS_MAX], correction[SFI_VECTORS_MAX];
  LLVMValueRef done = sfi_muli(e, block, sfi_i64(e, attend->key_block));
  a->at.index[5] = block;
  a->at.index[6] = sfi_i64(e, 0);
  a->keys = sfi_mini(e, LLVMBuildNSWSub(e->builder, keys, done, ""), sfi_i64(e, attend->key_block));
  a->k = block_address(a, 2);
  a->v = block_address(a, 3);
  a->whole = a->keys;
  if (attend->causal) { /* the first query sees before + first + 1 keys, the next ones one more each */
    LLVMValueRef sees = sfi_addi(e, sfi_addi(e, a->before, a->first), sfi_i64(e, 1));
    sees = sfi_mini(e, LLVMBuildNSWSub(e->builder, sees, done, ""), sfi_i64(e, attend->key_block));
    LLVMValueRef none = sfi_i64(e, -SFI_LANES_MOST), negative = LLVMBuildICmp(e->builder, LLVMIntSLT, sees, sfi_i64(e, 0), "");
    LLVMValueRef far = LLVMBuildICmp(e->builder, LLVMIntSLT, sees, none, "");
    a->whole = sfi_mini(e, LLVMBuildSelect(e->builder, negative, sfi_i64(e, 0), sees, ""), a->keys);
    LLVMValueRef narrow = LLVMBuildTrunc(e->builder, LLVMBuildSelect(e->builder, far, none, sees, ""), e->i32, "");
    for (int32_t v = 0; v < a->vectors; v++) {
      LLVMValueRef lane[64];
      for (int32_t i = 0; i < e->lanes; i++) lane[i] = LLVMConstInt(e->i32, (unsigned long long)(v * e->lanes + i), false);
      a->seen[v] = LLVMBuildAdd(e->builder, sfi_splat(e, narrow), LLVMConstVector(lane, (unsigned)e->lanes), "");
    }
  }
  score_block(a, most);
  for (int32_t v = 0; v < a->vectors; v++) {
    LLVMValueRef low = sfi_vconst(e, -inf);
    next[v] = largest(e, carried[v], most[v]);
    /* Where no key has a score yet, its exponential is 0 and not that of -Inf + Inf. */
    LLVMValueRef none = LLVMBuildFCmp(e->builder, LLVMRealOEQ, next[v], low, "");
    a->safe[v] = LLVMBuildSelect(e->builder, none, LLVMConstNull(e->vec), next[v], "");
    correction[v] = exponential(e, carried[v], a->safe[v]);
  }
  exponentials(a, sum);
  for (int32_t v = 0; v < a->vectors; v++) next[a->vectors + v] = sfi_fma(e, carried[a->vectors + v], correction[v], sum[v]);
  value_block(a, correction);
}

/* Queries of the tile to [feature][query]: blocks of rows are transposed in registers. Rows past the last are the last one again. */
static void pack_queries(attention *a) {
  sfi_emission *e = a->e;
  LLVMValueRef row[64], depth = sfi_i64(e, e->kernel->attend.depth);
  LLVMValueRef last = LLVMBuildNSWSub(e->builder, LLVMBuildNSWSub(e->builder, a->queries, a->first, ""), sfi_i64(e, 1), "");
  sfi_loop lanes, features;
  sfi_loop_begin(e, &lanes, sfi_i64(e, 0), sfi_i64(e, a->width), sfi_i64(e, e->lanes), NULL, 0);
  sfi_loop_begin(e, &features, sfi_i64(e, 0), depth, sfi_i64(e, e->lanes), NULL, 0);
  for (int32_t r = 0; r < e->lanes; r++) {
    sfi_point p = a->at;
    p.rank = 5;
    p.index[3] = features.index;
    p.index[4] = sfi_mini(e, sfi_addi(e, lanes.index, sfi_i64(e, r)), last);
    p.vector = true;
    p.vector_dim = 3;
    p.mask = sfi_mask_below(e, features.index, depth);
    row[r] = sfi_operand_load(e, 1, &p);
  }
  sfi_transpose(e, row);
  for (int32_t r = 0; r < e->lanes; r++)
    sfi_store_vector(e, row[r], cell(a, a->packed, sfi_addi(e, features.index, sfi_i64(e, r)), lanes.index), NULL);
  sfi_loop_end(e, &features, NULL);
  sfi_loop_end(e, &lanes, NULL);
}

/* The results over the sums, with queries along the lanes of memory too. */
static void store_along(attention *a, const LLVMValueRef *factor) {
  sfi_emission *e = a->e;
  sfi_loop features;
  sfi_loop_begin(e, &features, sfi_i64(e, 0), sfi_i64(e, a->features), sfi_i64(e, 1), NULL, 0);
  for (int32_t v = 0; v < a->vectors; v++) {
    sfi_point p = a->at;
    p.rank = 5;
    p.index[3] = features.index;
    p.index[4] = lane_of(a, v);
    p.vector = true;
    p.vector_dim = 4;
    p.mask = a->exists[v];
    LLVMValueRef value = sfi_load_vector(e, cell(a, a->result, features.index, p.index[4]), NULL);
    value = LLVMBuildFMul(e->builder, value, factor[v], "");
    sfi_point_store(e, &p, sfi_expr_value(e, &e->kernel->epilogue, &p, value));
  }
  sfi_loop_end(e, &features, NULL);
}

/* The same with features along memory: blocks are transposed back. */
static void store_across(attention *a, const LLVMValueRef *factor) {
  sfi_emission *e = a->e;
  LLVMValueRef row[64], count = sfi_i64(e, a->features);
  sfi_loop features;
  sfi_loop_begin(e, &features, sfi_i64(e, 0), count, sfi_i64(e, e->lanes), NULL, 0);
  for (int32_t v = 0; v < a->vectors; v++) {
    for (int32_t r = 0; r < e->lanes; r++) {
      LLVMValueRef f = sfi_addi(e, features.index, sfi_i64(e, r));
      row[r] = LLVMBuildFMul(e->builder, sfi_load_vector(e, cell(a, a->result, f, lane_of(a, v)), NULL), factor[v], "");
    }
    sfi_transpose(e, row);
    for (int32_t r = 0; r < e->lanes; r++) {
      sfi_point p = a->at;
      p.rank = 5;
      p.index[3] = features.index;
      p.index[4] = sfi_i64(e, (int64_t)v * e->lanes + r);
      p.vector = true;
      p.vector_dim = 3;
      p.mask = sfi_mask_below(e, features.index, count);
      sfi_if exists;
      LLVMValueRef query = sfi_addi(e, a->first, p.index[4]);
      sfi_if_begin(e, &exists, LLVMBuildICmp(e->builder, LLVMIntSLT, query, a->queries, ""));
      sfi_point_store(e, &p, sfi_expr_value(e, &e->kernel->epilogue, &p, row[r]));
      sfi_if_end(e, &exists, NULL, NULL, NULL, 0);
    }
  }
  sfi_loop_end(e, &features, NULL);
}

LLVMValueRef sfi_attend_position(sfi_emission *e) {
  const int32_t operand = e->kernel->attend.position;
  if (!operand) return sfi_i64(e, 0);
  const sfi_access *access = &e->kernel->operand[operand];
  const size_t bytes = sfi_dtype_of(e->plan->buffers[access->buffer].dtype)->bytes;
  LLVMTypeRef type = bytes == 8 ? e->i64 : bytes == 4 ? e->i32 : e->i8; /* never below 0, and of a byte never above 127 */
  LLVMValueRef p = sfi_load_scalar(e, type, e->base[operand], sfi_poly_value(e, access->offset));
  return bytes == 1 ? LLVMBuildZExt(e->builder, p, e->i64, "") : LLVMBuildSExt(e->builder, p, e->i64, "");
}

static void tile(attention *a) {
  sfi_emission *e = a->e;
  const sfi_kernel *k = e->kernel;
  const sfi_attend *attend = &k->attend;
  LLVMValueRef carried[2 * SFI_VECTORS_MAX], next[2 * SFI_VECTORS_MAX], factor[SFI_VECTORS_MAX];
  a->first = sfi_muli(e, a->at.index[2], sfi_i64(e, a->width));
  for (int32_t v = 0; v < a->vectors; v++) a->exists[v] = sfi_mask_below(e, sfi_addi(e, a->first, lane_of(a, v)), a->queries);
  if (a->packed) {
    pack_queries(a);
    a->q = a->packed;
    a->q_step = sfi_i64(e, a->width);
  } else {
    sfi_point p = a->at;
    p.rank = 5;
    a->q = sfi_at(e, e->f32, e->base[1], sfi_access_index(e, &k->operand[1], &p));
    a->q_step = sfi_poly_value(e, k->operand[1].stride[3]);
  }
  sfi_loop clear, blocks;
  sfi_loop_begin(e, &clear, sfi_i64(e, 0), sfi_i64(e, a->features), sfi_i64(e, 1), NULL, 0);
  for (int32_t v = 0; v < a->vectors; v++)
    sfi_store_vector(e, LLVMConstNull(e->vec), cell(a, a->result, clear.index, lane_of(a, v)), NULL);
  sfi_loop_end(e, &clear, NULL);
  LLVMValueRef keys = sfi_poly_value(e, attend->keys);
  if (attend->position) keys = sfi_mini(e, keys, sfi_addi(e, a->before, a->queries));
  if (attend->causal) { /* what the last query sees */
    LLVMValueRef end = sfi_mini(e, sfi_addi(e, a->first, sfi_i64(e, a->width)), a->queries);
    keys = sfi_mini(e, keys, sfi_addi(e, a->before, end));
  }
  LLVMValueRef count = sfi_addi(e, keys, sfi_i64(e, attend->key_block - 1));
  count = LLVMBuildUDiv(e->builder, count, sfi_i64(e, attend->key_block), "");
  for (int32_t v = 0; v < a->vectors; v++) {
    carried[v] = sfi_vconst(e, -__builtin_inf());
    carried[a->vectors + v] = LLVMConstNull(e->vec);
  }
  sfi_loop_begin(e, &blocks, sfi_i64(e, 0), count, sfi_i64(e, 1), carried, 2 * (unsigned)a->vectors);
  key_block(a, blocks.index, keys, blocks.carried, next);
  sfi_loop_end(e, &blocks, next);
  for (int32_t v = 0; v < a->vectors; v++)
    factor[v] = LLVMBuildFDiv(e->builder, sfi_vconst(e, 1), blocks.carried[a->vectors + v], "");
  if (sfi_is(k->operand[0].stride[4], 1))
    store_along(a, factor);
  else
    store_across(a, factor);
}

sf_status sfi_attend_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  const sfi_attend *attend = &k->attend;
  attention a = {
      .e = e, .vectors = k->tile.vectors, .rows = k->tile.rows, .width = k->ragged.width, .features = k->extent[3].of.c[0]};
  const int64_t slack = a.rows > e->lanes ? a.rows : e->lanes; /* rows written or read behind the last */
  a.scores = sfi_stack(e, (attend->key_block + slack) * a.width);
  a.result = sfi_stack(e, (a.features + slack) * a.width);
  if (plan->buffers[k->operand[1].buffer].panel == 0) a.packed = sfi_stack(e, (attend->depth + slack) * a.width);
  a.before = sfi_attend_position(e);
  a.queries = sfi_poly_value(e, k->ragged.columns);
  a.at = (sfi_point){.rank = 7};
  for (int32_t d = 0; d < 7; d++) a.at.index[d] = sfi_i64(e, 0);
  sfi_loop tiles;
  sfi_loop_begin(e, &tiles, e->tile_begin, e->tile_end, sfi_i64(e, 1), NULL, 0);
  sfi_tile_indices(e, &a.at, tiles.index);
  tile(&a);
  sfi_loop_end(e, &tiles, NULL);
  return SF_OK;
}
