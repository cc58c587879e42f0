/* "spmm-counted": sparse matrix product by groups of rows with equal counts of nonzeros.
 *
 * K is cut into blocks, so that rows of X stay in L1 where rows of W have enough nonzeros to pay for more visits. Inside a block rows
 * stand in pairs, and R rows, R / 2 pairs, form a group whose sums, R x V vectors, stay in registers. A group takes `shared` steps in which
 * each pair reads one row of X for both of its rows, then `single` steps in which every row reads its own. All rows of a group take the same number of steps; groups stand in falling order of it, so that
 * the branches of one group repeat those of the last and are predicted. A row that is short of nonzeros has one split in two, w x =
 * w/2 x + w/2 x, instead of a zero: 0 x Inf would not be 0. Nonzeros come in fours: one 64-bit load brings four positions, one
 * broadcast of 128 bits four values, and shuffles inside 128 bits spread them, which leaves the load ports to X.
 * Bound: 16 X loads and 8 others for 64 multiply-adds in a single step of four rows at V = 4 (0.89 of the peak by load slots),
 * and 4 loads for 8 multiply-adds in a shared one.
 *
 * Packed W: header | starts | records | positions | values
 *   header: int64 byte offset of each section, number of K blocks, k of a block: code is the same for all densities
 *   starts: uint32 [row block][K block][4]: first record, number of records, first word of positions, first value / 4
 *   records: uint32 [R + 2]: rows (the last group repeats some), shared steps / 4, single steps. Blocks first and last of K hold every
 *     row, those between only rows with nonzeros.
 *   positions: 64-bit words, four (16 bits) or two (32 bits) positions each, relative to the block's first, in units of up to a line
 *     (16 bits) or in elements (32); by fours of steps: of each pair, then by fours of single steps of each row
 *   values: float [R][4] by fours of steps
 * Where the number of single steps is no multiple of four, their first four is filled from its end. */
#include "counted.h"
#include "emitters.h"

#include <math.h>

enum { FOUR = 4 };

/* ---- geometry ------------------------------------------------------------------------------------------------------ */

/* Bytes of X that one more k adds to what a register tile touches. */
static int64_t bytes_per_k(const sfi_kernel *k, const sfi_target *target) {
  return (int64_t)k->tile.vectors * target->lanes * 4;
}

/* Cycles of a row in a block, which loads and stores its sums, beside those of its steps; and of a step whose row of X comes from L2
 * beyond one from L1. Measured on Zen 5, sums in L2. */
static double visit_cycles(double vectors) {
  return 3 * vectors;
}
static double far_cycles(double vectors) {
  return 0.3 * vectors;
}
/* Of a block's rows of X, `bytes` of them. */
static double far(const sfi_target *target, double bytes) {
  return sfi_far(target, bytes, (double)target->l1_bytes * 2 / 3);
}

/* The fewer nonzeros a row has, the deeper the blocks: visits of its sums against rows of X from L2. */
int64_t sfi_counted_blocks(const sfi_kernel *k, const sfi_target *target) {
  double bytes = (double)(k->contract.depth.c[0] * bytes_per_k(k, target)), vectors = k->tile.vectors, least = 0;
  double nonzeros = (double)k->contract.facts->nonzeros / (double)sfi_max(1, k->contract.rows);
  int64_t fewest = sfi_max(1, (int64_t)(bytes / ((double)target->l2_bytes / 4)));
  int64_t most = sfi_max(fewest, (int64_t)ceil(bytes / ((double)target->l1_bytes * 2 / 3))), best = fewest;
  for (int64_t n = fewest; n <= most; n++) {
    double cycles = (double)n * visit_cycles(vectors) + nonzeros * far_cycles(vectors) * far(target, bytes / (double)n);
    if (n == fewest || cycles < least) least = cycles, best = n;
  }
  return best;
}
int64_t sfi_counted_depth(const sfi_kernel *k, const sfi_target *target) {
  return sfi_max(1, sfi_ceil_div(k->contract.depth.c[0], sfi_counted_blocks(k, target)));
}

sfi_counted_unit sfi_counted_positions(const sfi_kernel *k) {
  sfi_poly stride = k->operand[1].stride[1];
  if (k->contract.k_offset || !sfi_is_const(stride) || stride.c[0] < 0) return (sfi_counted_unit){.words = 2};
  int32_t shift = 2;
  while (shift < 6 && stride.c[0] * 4 % (INT64_C(2) << shift) == 0) shift++;
  bool narrow = (k->contract.depth.c[0] - 1) * stride.c[0] * 4 >> shift <= UINT16_MAX;
  return narrow ? (sfi_counted_unit){.words = 1, .shift = shift} : (sfi_counted_unit){.words = 2};
}

sfi_refusal sfi_counted_accept(sfi_kernel *k, const sfi_plan *plan) {
  if (sfi_is(k->extent[2].of, 1) && sfi_is(k->extent[0].of, 1)) return SFI_REFUSE_ONE_COLUMN;
  if (!sfi_is(k->operand[1].stride[2], 1) && !sfi_is(k->extent[2].of, 1)) return SFI_REFUSE_STRIDED_COLUMNS;
  if (!sfi_positions_fit(k) || k->contract.facts->nonzeros > INT32_MAX) return SFI_REFUSE_OFFSETS_TOO_LARGE;
  sfi_choose_columns(k, plan->target, 4);
  int32_t sums = plan->target->registers > 16 ? 16 : 8;
  k->tile.rows = k->tile.vectors > 2 ? sums / 4 : sums / 2;
  /* Many rows, so that a block of X is loaded for many and rows of equal counts are found; and tiles for some threads. */
  int64_t rows = sfi_max(1, k->contract.rows);
  k->tile.row_block = sfi_max(sfi_min(192, rows), sfi_max(sfi_min(384, rows / 2), sfi_ceil_div(rows, 4)));
  k->tile.row_block = sfi_round_up(sfi_ceil_div(rows, sfi_ceil_div(rows, k->tile.row_block)), k->tile.rows); /* alike */
  return SFI_REFUSE_NONE;
}

/* Measured on Zen 5. Pairs of rows share about `density` of their steps, at a density-th of the gain. */
double sfi_counted_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  double v = k->tile.vectors, nonzeros = (double)k->contract.facts->nonzeros, rows = (double)k->contract.rows;
  double all = rows * (double)k->contract.depth.c[0], density = all > 0 ? nonzeros / all : 0;
  double blocks = (double)sfi_counted_blocks(k, plan->target), depth = (double)sfi_counted_depth(k, plan->target);
  double step = 0.27 + 0.53 * v * sfi_slots_a_load(k) - 0.03 * v * density * density;
  step += far_cycles(v) * far(plan->target, depth * (double)bytes_per_k(k, plan->target));
  double visits = rows * blocks < nonzeros + 2 * rows ? rows * blocks : nonzeros + 2 * rows;
  double cycles = nonzeros * step + (visits - rows / 2) * visit_cycles(v); /* the first visit loads no sums */
  if (v == 1) cycles += nonzeros * 0.15 + visits * 3; /* of one vector, the arithmetic of positions and values binds */
  return sfi_cycles_us(plan->target, sfi_total_columns(k, plan->target, symbol) / (plan->target->lanes * v) * cycles);
}

/* ---- code ---------------------------------------------------------------------------------------------------------- */

/* The kernel's code under construction: how a group is made, and where it reads. */
typedef struct group {
  sfi_emission *e;
  const sfi_columns *columns;
  LLVMValueRef x; /* row of X that positions of the K block count from */
  int32_t rows;
  sfi_counted_unit unit;
} group;

/* What flows from step to step. The arrays together are carried through loops. */
enum { WORDS, VALUES, AHEAD, SUMS = AHEAD + SFI_COUNTED_AHEAD, FLOW = SUMS + 16 };
typedef struct flow {
  LLVMValueRef v[FLOW]; /* address of the next positions, of the next values, the next words of positions, sums [row][V] */
} flow;

static LLVMValueRef word_at(const group *g, const flow *f, int32_t i) {
  return sfi_load_scalar(g->e, g->e->i64, f->v[WORDS], sfi_i64(g->e, i));
}

/* Takes the next `count` words of positions and moves on. They were loaded a four before: loads of X that wait for one that was only just
 * begun leave gaps of a cycle a step, as it has its turn after all those before it. */
static void take_words(const group *g, flow *f, int32_t count, LLVMValueRef *out) {
  LLVMValueRef ahead[SFI_COUNTED_AHEAD];
  for (int32_t i = 0; i < count; i++) out[i] = i < SFI_COUNTED_AHEAD ? f->v[AHEAD + i] : word_at(g, f, i);
  for (int32_t i = 0; i < SFI_COUNTED_AHEAD; i++)
    ahead[i] = count + i < SFI_COUNTED_AHEAD ? f->v[AHEAD + count + i] : sfi_opaque(g->e, word_at(g, f, count + i));
  memcpy(f->v + AHEAD, ahead, sizeof ahead);
  f->v[WORDS] = sfi_at(g->e, g->e->i64, f->v[WORDS], sfi_i64(g->e, count));
}

/* Four steps of values and positions in registers. */
typedef struct four {
  LLVMValueRef word[16], value[8];
} four;

/* Loads the next four steps of `sources` readers of X and moves on. */
static void load_four(const group *g, flow *f, int32_t sources, four *out) {
  sfi_emission *e = g->e;
  sfi_prefetch(e, f->v[WORDS], SFI_AHEAD);
  sfi_prefetch(e, f->v[VALUES], SFI_AHEAD);
  take_words(g, f, sources * g->unit.words, out->word);
  for (int32_t r = 0; r < g->rows; r++)
    out->value[r] = sfi_load_quarters(e, sfi_at(e, e->f32, f->v[VALUES], sfi_i64(e, (int64_t)r * FOUR)));
  f->v[VALUES] = sfi_at(e, e->f32, f->v[VALUES], sfi_i64(e, (int64_t)g->rows * FOUR));
}

/* One step: source i of X feeds rows [i * share, (i + 1) * share). */
static void step(const group *g, flow *f, const four *in, int32_t slot, int32_t share) {
  sfi_emission *e = g->e;
  LLVMBuilderRef b = e->builder;
  int32_t vectors = g->columns->vectors;
  for (int32_t i = 0; i < g->rows / share; i++) {
    int32_t in_word = FOUR / g->unit.words, bits = 64 / in_word;
    LLVMValueRef position = in->word[i * g->unit.words + slot / in_word];
    int32_t down = slot % in_word * bits - g->unit.shift;
    if (down > 0) position = LLVMBuildLShr(b, position, sfi_i64(e, down), "");
    if (down < 0) position = LLVMBuildShl(b, position, sfi_i64(e, -down), "");
    position = LLVMBuildAnd(b, position, LLVMConstInt(e->i64, (((unsigned long long)1 << bits) - 1) << g->unit.shift, false), "");
    LLVMValueRef row = g->unit.words == 1 ? sfi_at(e, e->i8, g->x, position) : sfi_x_row_at(e, g->x, position);
    row = sfi_opaque(e, row); /* else the addition goes into all V loads, whose indexed addresses cost an operation each */
    LLVMValueRef w[2];
    for (int32_t h = 0; h < share; h++) w[h] = sfi_pick_quarters(e, in->value[i * share + h], slot);
    for (int32_t v = 0; v < vectors; v++) {
      LLVMValueRef x = sfi_load_vector(e, sfi_at(e, e->f32, row, sfi_i64(e, (int64_t)v * e->lanes)), g->columns->load_mask[v]);
      if (share > 1) x = sfi_opaque(e, x); /* one load for both rows */
      for (int32_t h = 0; h < share; h++) {
        LLVMValueRef *sum = &f->v[SUMS + (i * share + h) * vectors + v];
        *sum = sfi_fma(e, w[h], x, *sum);
      }
    }
  }
}

/* `count` times four steps. */
static void fours(const group *g, flow *f, LLVMValueRef count, int32_t share) {
  sfi_emission *e = g->e;
  unsigned flowing = (unsigned)(SUMS + g->rows * g->columns->vectors);
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), count, sfi_i64(e, 1), f->v, flowing);
  flow at;
  memcpy(at.v, loop.carried, flowing * sizeof *at.v);
  four in;
  load_four(g, &at, g->rows / share, &in);
  for (int32_t slot = 0; slot < FOUR; slot++) step(g, &at, &in, slot, share);
  sfi_loop_end(e, &loop, at.v);
  memcpy(f->v, loop.carried, flowing * sizeof *f->v);
}

/* `count` single steps, 1 to 3: the last slots of a four. */
static void part(const group *g, flow *f, LLVMValueRef count) {
  sfi_emission *e = g->e;
  LLVMBuilderRef b = e->builder;
  unsigned sums = (unsigned)(g->rows * g->columns->vectors);
  four in;
  load_four(g, f, g->rows, &in);
  LLVMBasicBlockRef slot_block[FOUR + 1], from = LLVMGetInsertBlock(b);
  for (int i = 1; i <= FOUR; i++) slot_block[i] = LLVMAppendBasicBlockInContext(e->context, e->function, "");
  LLVMValueRef jump = LLVMBuildSwitch(b, count, slot_block[1], 2);
  for (int i = 2; i < FOUR; i++) LLVMAddCase(jump, sfi_i64(e, FOUR - i), slot_block[i]);
  flow entered = *f;
  for (int slot = 1; slot < FOUR; slot++) {
    LLVMBasicBlockRef before = LLVMGetInsertBlock(b);
    if (slot > 1) LLVMBuildBr(b, slot_block[slot]);
    LLVMPositionBuilderAtEnd(b, slot_block[slot]);
    for (unsigned i = SUMS; slot > 1 && i < SUMS + sums; i++) {
      LLVMValueRef phi = LLVMBuildPhi(b, e->vec, "");
      LLVMAddIncoming(phi, (LLVMValueRef[]){entered.v[i], f->v[i]}, (LLVMBasicBlockRef[]){from, before}, 2);
      f->v[i] = phi;
    }
    step(g, f, &in, slot, 1);
  }
  LLVMBuildBr(b, slot_block[FOUR]);
  LLVMPositionBuilderAtEnd(b, slot_block[FOUR]);
}

/* The groups of one K block. first, last: i1, is it the first or the last block. */
static void block_rows(group *g, LLVMValueRef start, LLVMValueRef first, LLVMValueRef last) {
  sfi_emission *e = g->e;
  const sfi_kernel *k = e->kernel;
  int32_t vectors = g->columns->vectors, sums = g->rows * vectors;
  LLVMValueRef record_words = sfi_i64(e, g->rows + 2), zero[16], raw[16], stored[16];
  for (int32_t i = 0; i < sums; i++) zero[i] = LLVMConstNull(e->vec);
  LLVMValueRef records = sfi_at(e, e->i32, sfi_packed_section(e, SFI_COUNTED_RECORDS),
                                sfi_muli(e, sfi_load_u32(e, start, sfi_i64(e, 0)), record_words));
  flow f = {{sfi_at(e, e->i64, sfi_packed_section(e, SFI_COUNTED_POSITIONS), sfi_load_u32(e, start, sfi_i64(e, 2))),
             sfi_at(e, e->f32, sfi_packed_section(e, SFI_COUNTED_VALUES),
                    sfi_muli(e, sfi_load_u32(e, start, sfi_i64(e, 3)), sfi_i64(e, FOUR)))}};
  for (int32_t i = 0; i < SFI_COUNTED_AHEAD; i++) f.v[AHEAD + i] = word_at(g, &f, i);
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), sfi_load_u32(e, start, sfi_i64(e, 1)), sfi_i64(e, 1), f.v, SUMS);
  LLVMValueRef record = sfi_at(e, e->i32, records, sfi_muli(e, loop.index, record_words));
  sfi_point point[16];
  for (int32_t i = 0; i < sums; i++) {
    if (i % vectors == 0) raw[i] = sfi_load_u32(e, record, sfi_i64(e, i / vectors));
    point[i] = g->columns->point[i % vectors];
    point[i].index[1] = raw[i - i % vectors];
  }
  memcpy(f.v, loop.carried, SUMS * sizeof *f.v);
  sfi_if resume;
  sfi_if_begin(e, &resume, LLVMBuildNot(e->builder, first, ""));
  for (int32_t i = 0; i < sums; i++) raw[i] = sfi_operand_load(e, 0, &point[i]);
  sfi_if_end(e, &resume, raw, zero, &f.v[SUMS], (unsigned)sums);

  fours(g, &f, sfi_load_u32(e, record, sfi_i64(e, g->rows)), 2);
  LLVMValueRef single = sfi_load_u32(e, record, sfi_i64(e, g->rows + 1)),
               rest = LLVMBuildAnd(e->builder, single, sfi_i64(e, FOUR - 1), "");
  flow before = f;
  sfi_if partial;
  sfi_if_begin(e, &partial, LLVMBuildICmp(e->builder, LLVMIntNE, rest, sfi_i64(e, 0), ""));
  part(g, &f, rest);
  sfi_if_end(e, &partial, f.v, before.v, f.v, (unsigned)(SUMS + sums));
  fours(g, &f, LLVMBuildLShr(e->builder, single, sfi_i64(e, 2), ""), 1);

  sfi_if finish;
  sfi_if_begin(e, &finish, last);
  for (int32_t i = 0; i < sums; i++) stored[i] = sfi_expr_value(e, &k->epilogue, &point[i], f.v[SUMS + i]);
  sfi_if_end(e, &finish, stored, &f.v[SUMS], stored, (unsigned)sums);
  for (int32_t i = 0; i < sums; i++) sfi_point_store(e, &point[i], stored[i]);
  sfi_loop_end(e, &loop, f.v);
}

static void counted_rows(sfi_emission *e, const sfi_columns *columns, LLVMValueRef row_begin, LLVMValueRef row_end) {
  (void)row_end;
  const sfi_kernel *k = e->kernel;
  LLVMValueRef blocks = sfi_packed_header(e, SFI_COUNTED_BLOCKS), depth = sfi_packed_header(e, SFI_COUNTED_DEPTH);
  LLVMValueRef starts = sfi_packed_section(e, SFI_COUNTED_STARTS), last = sfi_addi(e, blocks, sfi_i64(e, -1));
  LLVMValueRef first_start = sfi_muli(e, LLVMBuildUDiv(e->builder, row_begin, sfi_i64(e, k->tile.row_block), ""), blocks);
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), blocks, sfi_i64(e, 1), NULL, 0);
  LLVMValueRef words = sfi_i64(e, SFI_COUNTED_START_WORDS);
  LLVMValueRef start = sfi_at(e, e->i32, starts, sfi_muli(e, sfi_addi(e, first_start, loop.index), words));
  group g = {e, columns, columns->x, k->tile.rows, sfi_counted_positions(k)};
  if (!k->contract.k_offset)
    g.x = sfi_at(e, e->f32, g.x, sfi_muli(e, sfi_muli(e, loop.index, depth), sfi_poly_value(e, k->operand[1].stride[1])));
  block_rows(&g, start, LLVMBuildICmp(e->builder, LLVMIntEQ, loop.index, sfi_i64(e, 0), ""),
             LLVMBuildICmp(e->builder, LLVMIntEQ, loop.index, last, ""));
  sfi_loop_end(e, &loop, NULL);
}

sf_status sfi_counted_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)k, (void)plan;
  sfi_contraction_tiles(e, counted_rows);
  return SF_OK;
}
