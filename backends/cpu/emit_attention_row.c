/* "attention-row": attention of a single query, as in a decoder's step. Features run along the lanes, so that rows of k and v are read as
 * they lie and once. Scores of as many keys as there are lanes are summed by one transpose of their partial sums; blocks of keys share one
 * rescaling (emit_attention.c says of what). A tile is one head. */
#include "emitters.h"
#include "space.h"

enum { BLOCK = 256, SETS = 2 }; /* keys between two rescalings; keys whose products do not wait for each other */

sfi_refusal sfi_attend_row_accept(sfi_kernel *k, const sfi_plan *plan) {
  if (!sfi_is(k->ragged.columns, 1)) return SFI_REFUSE_MANY_COLUMNS;
  for (int32_t i = 2; i <= 3; i++)
    if (!sfi_is(k->operand[i].stride[3], 1) || plan->buffers[k->operand[i].buffer].panel) return SFI_REFUSE_STRIDED_COLUMNS;
  k->tile.vectors = (int32_t)sfi_ceil_div(k->extent[3].of.c[0], plan->target->lanes);
  if (k->tile.vectors * SETS > SFI_CARRIED_MAX) return SFI_REFUSE_TOO_MANY_STEPS;
  return SFI_REFUSE_NONE;
}

double sfi_attend_row_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  int64_t batch = 0, heads = 0, keys = 0;
  sfi_extent_eval(k->extent[0], symbol, &batch);
  sfi_extent_eval(k->extent[1], symbol, &heads);
  sfi_poly_eval(k->attend.keys, symbol, &keys);
  const double vectors = (double)(k->attend.depth + k->extent[3].of.c[0]) / plan->target->lanes;
  return sfi_cycles_us(plan->target, (double)(batch * heads) * (double)keys * (vectors + 6));
}

typedef struct row {
  sfi_emission *e;
  sfi_point at;
  int64_t depth, width;    /* features of k, of v */
  LLVMValueRef q, scores;  /* on the stack: the query, padded with zeros; scores of a block */
  LLVMValueRef k, v, keys; /* of the block: addresses of its first key, keys */
  LLVMValueRef done;       /* keys before it */
} row;

static LLVMValueRef lanes_at(const row *r, LLVMValueRef base, LLVMValueRef index) {
  return sfi_at(r->e, r->e->f32, base, index);
}
/* Lanes of features from c on that exist; NULL: all. */
static LLVMValueRef features(const row *r, int64_t c, int64_t count) {
  return c + r->e->lanes <= count ? NULL : sfi_mask_below(r->e, sfi_i64(r->e, c), sfi_i64(r->e, count));
}

/* Sum of each of as many vectors as there are lanes, as one vector. */
static LLVMValueRef sums(sfi_emission *e, LLVMValueRef *vector) {
  sfi_transpose(e, vector);
  for (int32_t n = e->lanes / 2; n > 0; n /= 2)
    for (int32_t i = 0; i < n; i++) vector[i] = LLVMBuildFAdd(e->builder, vector[i], vector[i + n], "");
  return vector[0];
}

/* Scores of the block; gives the largest. Keys past the last are the last again: no new maximum, and nothing reads their scores. */
static LLVMValueRef score_block(row *r) {
  sfi_emission *e = r->e;
  const sfi_attend *attend = &e->kernel->attend;
  LLVMValueRef sum[64], key[64], last = LLVMBuildNSWSub(e->builder, r->keys, sfi_i64(e, 1), "");
  LLVMValueRef most = sfi_vconst(e, -__builtin_inf()), step = sfi_poly_value(e, e->kernel->operand[2].stride[6]);
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), r->keys, sfi_i64(e, e->lanes), &most, 1);
  for (int32_t i = 0; i < e->lanes; i++) {
    LLVMValueRef j = sfi_mini(e, sfi_addi(e, loop.index, sfi_i64(e, i)), last);
    key[i] = lanes_at(r, r->k, sfi_muli(e, j, step));
    sum[i] = LLVMConstNull(e->vec);
  }
  for (int64_t c = 0; c < r->depth; c += e->lanes) {
    LLVMValueRef at = sfi_i64(e, c), q = sfi_load_vector(e, lanes_at(r, r->q, at), NULL), mask = features(r, c, r->depth);
    for (int32_t i = 0; i < e->lanes; i++) sum[i] = sfi_fma(e, q, sfi_load_vector(e, lanes_at(r, key[i], at), mask), sum[i]);
  }
  LLVMValueRef s = LLVMBuildFMul(e->builder, sums(e, sum), sfi_vconst(e, (double)attend->scale), "");
  LLVMValueRef exists = sfi_mask_below(e, loop.index, r->keys);
  if (attend->mask) {
    sfi_point p = r->at;
    p.index[6] = sfi_addi(e, r->done, loop.index);
    p.vector = true;
    p.vector_dim = 6;
    p.mask = exists;
    s = LLVMBuildFAdd(e->builder, s, sfi_operand_load(e, attend->mask, &p), "");
  }
  sfi_store_vector(e, s, lanes_at(r, r->scores, loop.index), NULL);
  LLVMTypeRef type = e->vec;
  LLVMValueRef larger = sfi_intrinsic(e, "llvm.maximum", &type, 1, (LLVMValueRef[]){loop.carried[0], s}, 2);
  larger = LLVMBuildSelect(e->builder, exists, larger, loop.carried[0], "");
  sfi_loop_end(e, &loop, &larger);
  return sfi_intrinsic(e, "llvm.vector.reduce.fmaximum", &type, 1, &loop.carried[0], 1);
}

/* Scores to exponentials, in place; `sum` and their sums by lanes. */
static LLVMValueRef exponentials(row *r, LLVMValueRef safe, LLVMValueRef sum) {
  sfi_emission *e = r->e;
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), r->keys, sfi_i64(e, e->lanes), &sum, 1);
  LLVMValueRef place = lanes_at(r, r->scores, loop.index), exists = sfi_mask_below(e, loop.index, r->keys);
  LLVMValueRef p = sfi_exp(e, LLVMBuildFSub(e->builder, sfi_load_vector(e, place, NULL), safe, ""));
  sfi_store_vector(e, p, place, NULL);
  p = LLVMBuildSelect(e->builder, exists, p, LLVMConstNull(e->vec), "");
  LLVMValueRef next = LLVMBuildFAdd(e->builder, loop.carried[0], p, "");
  sfi_loop_end(e, &loop, &next);
  return loop.carried[0];
}

/* acc[set][c] += exponential of key j * v[j][c], SETS keys a round and then the rest. */
static void value_block(row *r, int32_t vectors, LLVMValueRef *acc) {
  sfi_emission *e = r->e;
  LLVMValueRef step = sfi_poly_value(e, e->kernel->operand[3].stride[6]), next[SFI_CARRIED_MAX], begin = sfi_i64(e, 0);
  for (int32_t round = SETS; round > 0; round = round == 1 ? 0 : 1) {
    const int32_t count = SETS * vectors;
    sfi_loop loop;
    sfi_loop_begin(e, &loop, begin, LLVMBuildNSWSub(e->builder, r->keys, sfi_i64(e, round - 1), ""), sfi_i64(e, round), acc,
                   (unsigned)count);
    memcpy(next, loop.carried, (size_t)count * sizeof *next);
    for (int32_t s = 0; s < round; s++) {
      LLVMValueRef j = sfi_addi(e, loop.index, sfi_i64(e, s)), from = lanes_at(r, r->v, sfi_muli(e, j, step));
      LLVMValueRef p = sfi_splat(e, sfi_load_scalar(e, e->f32, r->scores, j));
      for (int32_t c = 0; c < vectors; c++) {
        LLVMValueRef v =
            sfi_load_vector(e, lanes_at(r, from, sfi_i64(e, (int64_t)c * e->lanes)), features(r, (int64_t)c * e->lanes, r->width));
        next[s * vectors + c] = sfi_fma(e, p, v, next[s * vectors + c]);
      }
    }
    sfi_loop_end(e, &loop, next);
    memcpy(acc, loop.carried, (size_t)count * sizeof *acc);
    begin = loop.index;
  }
}

static LLVMValueRef address(row *r, int32_t operand) {
  sfi_emission *e = r->e;
  sfi_point p = r->at;
  p.index[1] = LLVMBuildUDiv(e->builder, p.index[1], sfi_i64(e, e->kernel->attend.group), "");
  LLVMValueRef first = sfi_access_index(e, &e->kernel->operand[operand], &p);
  first = sfi_addi(e, first, sfi_muli(e, r->done, sfi_poly_value(e, e->kernel->operand[operand].stride[6])));
  return lanes_at(r, e->base[operand], first);
}

/* The query, feature by feature, with zeros behind it. */
static void load_query(row *r) {
  sfi_emission *e = r->e;
  for (int64_t c = 0; c < r->depth; c += e->lanes) {
    sfi_point p = r->at;
    p.rank = 5;
    p.index[3] = sfi_i64(e, c);
    p.vector = true;
    p.vector_dim = 3;
    p.mask = sfi_mask_below(e, p.index[3], sfi_i64(e, r->depth));
    sfi_store_vector(e, sfi_operand_load(e, 1, &p), lanes_at(r, r->q, p.index[3]), NULL);
  }
}

static void head(row *r, LLVMValueRef all_keys) {
  sfi_emission *e = r->e;
  const int32_t vectors = e->kernel->tile.vectors, count = SETS * vectors;
  const double inf = __builtin_inf();
  LLVMValueRef carried[SFI_CARRIED_MAX], next[SFI_CARRIED_MAX], low = sfi_f32(e, -inf);
  load_query(r);
  carried[0] = low;                   /* the largest score so far */
  carried[1] = LLVMConstNull(e->vec); /* sums of exponentials, by lanes */
  for (int32_t i = 0; i < vectors; i++) carried[2 + i] = LLVMConstNull(e->vec);
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), all_keys, sfi_i64(e, BLOCK), carried, 2 + (unsigned)vectors);
  r->done = loop.index;
  r->keys = sfi_mini(e, LLVMBuildNSWSub(e->builder, all_keys, loop.index, ""), sfi_i64(e, BLOCK));
  r->k = address(r, 2);
  r->v = address(r, 3);
  LLVMTypeRef f32 = e->f32;
  next[0] = sfi_intrinsic(e, "llvm.maximum", &f32, 1, (LLVMValueRef[]){loop.carried[0], score_block(r)}, 2);
  LLVMValueRef none = LLVMBuildFCmp(e->builder, LLVMRealOEQ, next[0], low, "");
  LLVMValueRef safe = LLVMBuildSelect(e->builder, none, sfi_f32(e, 0), next[0], "");
  LLVMValueRef correction = sfi_splat(e, sfi_exp(e, LLVMBuildFSub(e->builder, loop.carried[0], safe, "")));
  next[1] = exponentials(r, sfi_splat(e, safe), LLVMBuildFMul(e->builder, loop.carried[1], correction, ""));
  LLVMValueRef acc[SFI_CARRIED_MAX];
  for (int32_t i = 0; i < count; i++)
    acc[i] = i < vectors ? LLVMBuildFMul(e->builder, loop.carried[2 + i], correction, "") : LLVMConstNull(e->vec);
  value_block(r, vectors, acc);
  for (int32_t i = 0; i < vectors; i++) {
    next[2 + i] = acc[i];
    for (int32_t s = 1; s < SETS; s++) next[2 + i] = LLVMBuildFAdd(e->builder, next[2 + i], acc[s * vectors + i], "");
  }
  sfi_loop_end(e, &loop, next);
  LLVMTypeRef type = e->vec;
  LLVMValueRef sum = sfi_intrinsic(e, "llvm.vector.reduce.fadd", &type, 1, (LLVMValueRef[]){sfi_f32(e, -0.0), loop.carried[1]}, 2);
  LLVMSetFastMathFlags(sum, LLVMFastMathAllowReassoc); /* a tree of a fixed shape */
  LLVMValueRef factor = sfi_splat(e, LLVMBuildFDiv(e->builder, sfi_f32(e, 1), sum, ""));
  for (int32_t i = 0; i < vectors; i++) {
    sfi_point p = r->at;
    p.rank = 5;
    p.index[3] = sfi_i64(e, (int64_t)i * e->lanes);
    p.vector = true;
    p.vector_dim = 3;
    p.mask = sfi_mask_below(e, p.index[3], sfi_i64(e, r->width));
    LLVMValueRef value = LLVMBuildFMul(e->builder, loop.carried[2 + i], factor, "");
    sfi_point_store(e, &p, sfi_expr_value(e, &e->kernel->epilogue, &p, value));
  }
}

sf_status sfi_attend_row_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)plan;
  row r = {.e = e, .depth = k->attend.depth, .width = k->extent[3].of.c[0]};
  r.q = sfi_stack(e, sfi_round_up(r.depth, e->lanes));
  r.scores = sfi_stack(e, BLOCK + e->lanes);
  LLVMValueRef before = sfi_attend_position(e), keys = sfi_poly_value(e, k->attend.keys), own = sfi_addi(e, before, sfi_i64(e, 1));
  if (k->attend.position || k->attend.causal) keys = sfi_mini(e, keys, own);
  r.at = (sfi_point){.rank = 7};
  for (int32_t d = 0; d < 7; d++) r.at.index[d] = sfi_i64(e, 0);
  sfi_loop tiles;
  sfi_loop_begin(e, &tiles, e->tile_begin, e->tile_end, sfi_i64(e, 1), NULL, 0);
  sfi_tile_indices(e, &r.at, tiles.index);
  head(&r, keys);
  sfi_loop_end(e, &tiles, NULL);
  return SF_OK;
}
