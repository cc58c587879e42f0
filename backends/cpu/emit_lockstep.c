/* "spmm-lockstep": sparse matrix product for one vector of columns, where each nonzero is one multiply-add and what surrounds it counts.
 *
 * Eight rows of W advance together, one nonzero each a step, which gives eight independent sums. Rows of equal count are grouped, so
 * that few steps are padded. A step's eight values are two broadcast loads of four, split by in-lane shuffles (four a cycle on Zen 5, where
 * a broadcast from memory takes one of two loads); its eight positions are one vector load (scalar loads, four positions each, make a step
 * a sixth longer on Zen 5), and X is the multiply-add's memory operand: 11 loads for eight nonzeros. Columns that both rows of a pair
 * touch come first, in SHARED steps, two at a time: X is loaded once for the two, and sixteen multiply-adds need thirteen loads. The rows
 * of a group are paired such that the smallest of the four overlaps, which is the number of shared steps, is largest.
 *
 * K is cut in blocks by the size of X and the density; sums stay in the output between blocks. Padding multiplies 0 by an X that the row touches
 * anyway; as that is NaN where X is Inf, a group whose sums hold a NaN is computed again without it (emit_gemm.c explains).
 *
 * Packed W: header | starts | records | positions | values
 *   header: int64 byte offset of each section, number of K blocks, columns of W in each
 *   starts: uint32 [row block][K block][4]: first record, number of records, first round, first step
 *   records: uint32 [10]: the group's rows, rounds of two shared steps, rounds of one further step. Rows of a pair are neighbours; a
 *     group with fewer than eight rows repeats its last one. Blocks first and last of K hold every row, those between only groups with
 *     nonzeros
 *   positions: uint16, floats from the block's first row of X; eight a round
 *   values: float, eight a step */
#include "emitters.h"

enum { STARTS, RECORDS, POSITIONS, VALUES, SECTIONS, BLOCKS = SECTIONS, DEPTH };
enum { GROUP = 8, PAIRS = GROUP / 2, QUAD = 4, START_WORDS = 4, RECORD_WORDS = GROUP + 2, SHARED = GROUP, FURTHER = GROUP + 1 };
enum { FEWEST_SHARED = 6, WORD = 64, DEPTH_MAX = 4096, L1_FLOATS = 12288, HEADER_BYTES = 64 };

/* ---- geometry ------------------------------------------------------------------------------------------------------ */

/* Floats from a row of X to the next. */
static int64_t x_stride(const sfi_kernel *k) {
  return sfi_max(1, k->operand[1].stride[1].c[0]);
}

/* Columns of W in a K block: whole words of a bit set, 0 where positions of 16 bits reach none. The sparser W, the less rows of X that come
 * from L2 cost against sums that come and go once more a block: X fills two thirds of an L1 of 48 KB above 9 % of nonzeros, all of it
 * above 3 %, and is not cut below. Rows of X that are further apart than a register tile is wide fall into few sets of the cache: their
 * distance counts. */
static int64_t block_depth(const sfi_kernel *k) {
  double density = sfi_density(k->contract.facts);
  int64_t all = sfi_max(1, k->contract.depth.c[0]), reach = UINT16_MAX / x_stride(k) / WORD * WORD, most = DEPTH_MAX;
  if (reach == 0) return 0;
  if (density > 0.03) most = (density > 0.09 ? 8192 : L1_FLOATS) / x_stride(k) / WORD * WORD;
  most = sfi_min(sfi_max(most, WORD), reach);
  return sfi_round_up(sfi_ceil_div(all, sfi_ceil_div(all, most)), WORD);
}
static int64_t block_count(const sfi_kernel *k) {
  return sfi_max(1, sfi_ceil_div(k->contract.depth.c[0], block_depth(k)));
}
static int64_t tile_count(const sfi_kernel *k) {
  return sfi_ceil_div(k->contract.rows, k->tile.row_block);
}

sfi_refusal sfi_lockstep_accept(sfi_kernel *k, const sfi_plan *plan) {
  if (sfi_is(k->extent[2].of, 1)) return SFI_REFUSE_ONE_COLUMN;
  if (!sfi_is(k->operand[1].stride[2], 1)) return SFI_REFUSE_STRIDED_COLUMNS;
  if (!sfi_is_const(k->operand[1].stride[1])) return SFI_REFUSE_SYMBOLIC;
  if (k->contract.k_offset || block_depth(k) == 0) return SFI_REFUSE_OFFSETS_TOO_LARGE;
  if (k->contract.facts->nonzeros > INT32_MAX / GROUP) return SFI_REFUSE_OFFSETS_TOO_LARGE;
  sfi_choose_columns(k, plan->target, 1);
  k->tile.rows = GROUP;
  k->tile.ahead = sfi_weights_from_memory(plan);
  k->tile.row_block = sfi_round_up(sfi_max(96, sfi_ceil_div(k->contract.rows, 8)), GROUP);
  return SFI_REFUSE_NONE;
}

/* Measured on Zen 5. What rows share grows with the density; sums that come back between blocks of K cost more than the visit. */
double sfi_lockstep_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  const double nonzeros = (double)k->contract.facts->nonzeros, density = sfi_density(k->contract.facts);
  const int64_t blocks = block_count(k);
  const double visits = (double)(sfi_ceil_div(k->contract.rows, GROUP) * blocks);
  const double step = block_depth(k) * x_stride(k) > L1_FLOATS ? 1 : blocks > 1 ? 0.85 : 0.8;
  const double cycles = nonzeros * (step - 0.16 * density) + visits * (blocks > 1 ? 60 : 20);
  return sfi_cycles_us(plan->target, sfi_total_columns(k, plan->target, symbol) / plan->target->lanes * cycles);
}

/* ---- packing ------------------------------------------------------------------------------------------------------- */

typedef struct packer {
  const sfi_kernel *k;
  int64_t words;                  /* of a row's bit set */
  uint64_t *bits;                 /* [rows][words]: columns with nonzeros */
  int64_t *key;                   /* [rows] scratch of sorts */
  int32_t *row;                   /* [rows]: dealt to tiles, tile after tile */
  int64_t *filled;                /* [tiles]: rows dealt to each */
  int64_t records, rounds, steps; /* written so far */
} packer;

static int64_t count_bits(const uint64_t *bits, int64_t words) {
  return sfi_common_bits(bits, bits, words);
}

/* Sorts rows by falling number of nonzeros in words [first, first + words), equal ones in order. */
static void sort_rows(const packer *p, int32_t *row, int64_t n, int64_t first, int64_t words) {
  for (int64_t i = 0; i < n; i++) p->key[i] = (count_bits(p->bits + row[i] * p->words + first, words) << 32) + INT32_MAX - row[i];
  sfi_sort_falling(p->key, n);
  for (int64_t i = 0; i < n; i++) row[i] = (int32_t)(INT32_MAX - (p->key[i] & 0xffffffff));
}

/* Whole groups of the sorted rows go to the tiles in turn, there and back, so that every tile is a fair share. scratch: [rows]. */
static void deal_rows(packer *p, int32_t *scratch) {
  int64_t rows = p->k->contract.rows, tiles = tile_count(p->k), block = p->k->tile.row_block;
  for (int64_t r = 0; r < rows; r++) scratch[r] = (int32_t)r;
  sort_rows(p, scratch, rows, 0, p->words);
  for (int64_t turn = 0, next = 0; next < rows; turn++)
    for (int64_t i = 0; i < tiles; i++) {
      int64_t tile = turn % 2 ? tiles - 1 - i : i, room = sfi_min(block, rows - tile * block) - p->filled[tile];
      for (int64_t n = sfi_min(sfi_min(GROUP, room), rows - next); n > 0; n--)
        p->row[tile * block + p->filled[tile]++] = scratch[next++];
    }
}

/* Rows in pairs such that the least overlap of a pair is largest, by trying all of them; returns that overlap. Row 0 of those left is
 * paired with each other one in turn. */
static int64_t pair_rows(int64_t overlap[GROUP][GROUP], const int *left, int n, int *paired) {
  if (n == 0) return INT64_MAX;
  int64_t best = -1;
  for (int i = 1; i < n; i++) {
    int rest[GROUP], order[GROUP], m = 0;
    for (int j = 1; j < n; j++)
      if (j != i) rest[m++] = left[j];
    int64_t here = overlap[left[0]][left[i]];
    if (here <= best) continue;
    here = sfi_min(here, pair_rows(overlap, rest, m, order));
    if (here <= best) continue;
    best = here;
    paired[0] = left[0], paired[1] = left[i];
    memcpy(paired + 2, order, (size_t)m * sizeof *order);
  }
  return best;
}

/* A cursor over the set bits of a row in a block. */
static int64_t next_bit(uint64_t *bits, int64_t words) {
  for (int64_t i = 0; i < words; i++)
    if (bits[i]) {
      int64_t bit = i * WORD + __builtin_ctzll(bits[i]);
      bits[i] &= bits[i] - 1;
      return bit;
    }
  return -1;
}

/* One group in one block of K, columns from `begin` on; out NULL only counts. */
static void pack_group(packer *p, const int32_t row[GROUP], int64_t begin, int64_t words, uint8_t *out, const int64_t *offset) {
  const sfi_kernel *k = p->k;
  int64_t overlap[GROUP][GROUP], most = 0, stride = x_stride(k);
  int all[GROUP] = {0, 1, 2, 3, 4, 5, 6, 7}, paired[GROUP];
  uint64_t left[GROUP][DEPTH_MAX / WORD], common[PAIRS][DEPTH_MAX / WORD];
  for (int a = 0; a < GROUP; a++)
    for (int b = 0; b < GROUP; b++) {
      const uint64_t *x = p->bits + row[a] * p->words + begin / WORD, *y = p->bits + row[b] * p->words + begin / WORD;
      overlap[a][b] = sfi_common_bits(x, y, words);
    }
  int64_t shared = pair_rows(overlap, all, GROUP, paired);
  shared = shared < FEWEST_SHARED ? 0 : shared / 2 * 2;
  for (int i = 0; i < GROUP; i++) most = sfi_max(most, overlap[i][i]);
  int64_t further = most - shared;
  if (out) {
    uint32_t record[RECORD_WORDS] = {[SHARED] = (uint32_t)(shared / 2), [FURTHER] = (uint32_t)further};
    uint16_t *position = (uint16_t *)(void *)(out + offset[POSITIONS]) + p->rounds * GROUP;
    float *value = (float *)(void *)(out + offset[VALUES]) + p->steps * GROUP;
    for (int i = 0; i < GROUP; i++) {
      record[i] = (uint32_t)row[paired[i]];
      memcpy(left[i], p->bits + row[paired[i]] * p->words + begin / WORD, (size_t)words * sizeof **left);
    }
    memcpy(out + offset[RECORDS] + p->records * (int64_t)sizeof record, record, sizeof record);
    for (int i = 0; i < PAIRS; i++)
      for (int64_t w = 0; w < words; w++) common[i][w] = left[2 * i][w] & left[2 * i + 1][w];
    for (int64_t s = 0; s < shared; s++)
      for (int i = 0; i < PAIRS; i++) {
        int64_t at = next_bit(common[i], words);
        *position++ = (uint16_t)(at * stride);
        for (int r = 2 * i; r < 2 * i + 2; r++) {
          left[r][at / WORD] &= ~((uint64_t)1 << at % WORD);
          *value++ = sfi_weight_at(&k->contract, record[r], begin + at);
        }
      }
    uint16_t last[GROUP] = {0};
    for (int64_t s = 0; s < further; s++)
      for (int i = 0; i < GROUP; i++) {
        int64_t at = next_bit(left[i], words);
        if (at >= 0) last[i] = (uint16_t)(at * stride);
        *position++ = last[i];
        *value++ = at >= 0 ? sfi_weight_at(&k->contract, record[i], begin + at) : 0;
      }
  }
  p->records++, p->rounds += shared / 2 + further, p->steps += shared + further;
}

/* One pass over all blocks; out NULL only measures. */
static void pack_blocks(packer *p, uint8_t *out, const int64_t *offset) {
  const sfi_kernel *k = p->k;
  int64_t blocks = block_count(k), depth = block_depth(k);
  p->records = p->rounds = p->steps = 0;
  for (int64_t tile = 0; tile < tile_count(k); tile++)
    for (int64_t b = 0; b < blocks; b++) {
      int64_t begin = b * depth, words = sfi_min(depth / WORD, p->words - begin / WORD);
      int32_t *row = p->row + tile * k->tile.row_block;
      uint32_t start[START_WORDS] = {(uint32_t)p->records, 0, (uint32_t)p->rounds, (uint32_t)p->steps};
      sort_rows(p, row, p->filled[tile], begin / WORD, words);
      for (int64_t first = 0; first < p->filled[tile]; first += GROUP) {
        int32_t group[GROUP];
        for (int64_t i = 0; i < GROUP; i++) group[i] = row[sfi_min(first + i, p->filled[tile] - 1)];
        bool empty = count_bits(p->bits + group[0] * p->words + begin / WORD, words) == 0;
        if (!empty || b == 0 || b == blocks - 1) pack_group(p, group, begin, words, out, offset);
      }
      start[1] = (uint32_t)(p->records - start[0]);
      if (out) memcpy(out + offset[STARTS] + (tile * blocks + b) * (int64_t)sizeof start, start, sizeof start);
    }
}

sf_status sfi_lockstep_pack(const sfi_kernel *k, const sfi_plan *plan, const sf_allocator *allocator, sfi_diag *diag,
                            sfi_blob *out) {
  (void)plan;
  int64_t rows = k->contract.rows, depth = k->contract.depth.c[0], tiles = tile_count(k), words = sfi_ceil_div(depth, WORD);
  /* One allocation: bit sets, keys, rows dealt to tiles, and rows to deal, which are not needed when the tiles count theirs. */
  size_t bits = (size_t)(rows * words + 1) * sizeof(uint64_t), keys = (size_t)(rows + tiles + 1) * sizeof(int64_t);
  size_t bytes = bits + keys + (size_t)rows * 2 * sizeof(int32_t);
  uint8_t *scratch = sfi_alloc(allocator, bytes);
  sf_status st = SF_OK;
  if (!scratch) return sfi_fail_memory(diag);
  memset(scratch, 0, bytes);
  packer p = {
      .k = k, .words = words, .bits = (void *)scratch, .key = (void *)(scratch + bits), .row = (void *)(scratch + bits + keys)};
  p.filled = p.key + rows;
  for (int64_t r = 0; r < rows; r++) sfi_row_bits(&k->contract, r, 0, depth, p.bits + r * words);
  deal_rows(&p, p.row + rows);
  pack_blocks(&p, NULL, NULL);
  int64_t offset[SECTIONS + 1] = {HEADER_BYTES};
  offset[RECORDS] = offset[STARTS] + sfi_round_up(tiles * block_count(k) * START_WORDS * 4, 64);
  offset[POSITIONS] = offset[RECORDS] + sfi_round_up(p.records * RECORD_WORDS * 4, 64);
  offset[VALUES] = offset[POSITIONS] + sfi_round_up(p.rounds * GROUP * 2, 64);
  offset[SECTIONS] = offset[VALUES] + sfi_round_up(p.steps * GROUP * 4, 64);
  if (!sfi_blob_init(out, allocator, (size_t)offset[SECTIONS])) {
    st = sfi_fail_memory(diag);
  } else {
    const int64_t blocks[] = {block_count(k), block_depth(k)};
    memcpy(out->data, offset, SECTIONS * sizeof *offset);
    memcpy(out->data + BLOCKS * sizeof *offset, blocks, sizeof blocks);
    pack_blocks(&p, out->data, offset);
  }
  sfi_free(allocator, scratch, bytes);
  return st;
}

/* ---- code ---------------------------------------------------------------------------------------------------------- */

/* Four values, each in all lanes of a vector of its own. */
static void load_values(sfi_emission *e, LLVMValueRef pointer, LLVMValueRef value[QUAD]) {
  LLVMValueRef each[64], one[64], four = LLVMBuildLoad2(e->builder, LLVMVectorType(e->f32, QUAD), pointer, "");
  LLVMSetAlignment(four, 16);
  for (int32_t i = 0; i < e->lanes; i++) each[i] = LLVMConstInt(e->i32, (unsigned)i % QUAD, false);
  four = LLVMBuildShuffleVector(e->builder, four, LLVMGetUndef(LLVMTypeOf(four)), LLVMConstVector(each, (unsigned)e->lanes), "");
  four = sfi_opaque(e, four); /* else each value is broadcast from memory, a load of its own */
  for (int j = 0; j < QUAD; j++) {
    for (int32_t i = 0; i < e->lanes; i++) one[i] = LLVMConstInt(e->i32, (unsigned)(i / QUAD * QUAD + j), false);
    value[j] =
        LLVMBuildShuffleVector(e->builder, four, LLVMGetUndef(LLVMTypeOf(four)), LLVMConstVector(one, (unsigned)e->lanes), "");
  }
}

typedef struct cursor {
  LLVMValueRef round, value; /* next positions and values */
} cursor;

/* The X of eight positions. */
static void load_columns(sfi_emission *e, const sfi_columns *columns, LLVMValueRef x, LLVMValueRef positions,
                         LLVMValueRef xv[GROUP]) {
  LLVMBuilderRef b = e->builder;
  LLVMValueRef all = LLVMBuildLoad2(b, LLVMVectorType(e->i64, GROUP / QUAD), positions, "");
  LLVMSetAlignment(all, 16);
  all = sfi_opaque(e, all); /* else each half is a scalar load */
  for (int i = 0; i < GROUP; i++) {
    LLVMValueRef quad = LLVMBuildExtractElement(b, all, sfi_i64(e, i / QUAD), "");
    LLVMValueRef position = LLVMBuildAnd(b, LLVMBuildLShr(b, quad, sfi_i64(e, 16 * (i % QUAD)), ""), sfi_i64(e, 0xffff), "");
    xv[i] = sfi_load_vector(e, sfi_at(e, e->f32, x, position), columns->load_mask[0]);
  }
}

/* sum += the next `count` rounds. exact: zeros among the values are skipped. */
static void rounds(sfi_emission *e, const sfi_columns *columns, LLVMValueRef x, LLVMValueRef count, bool shared, bool exact,
                   cursor *at, LLVMValueRef sum[GROUP]) {
  LLVMBuilderRef b = e->builder;
  LLVMValueRef carried[GROUP + 2] = {at->round, at->value}, next[GROUP + 2], value[GROUP], xv[GROUP];
  memcpy(carried + 2, sum, GROUP * sizeof *sum);
  sfi_loop loop;
  /* Counts up to zero: a limit would be a register more than there are, and a load a step. */
  sfi_loop_begin(e, &loop, LLVMBuildNSWSub(b, sfi_i64(e, 0), count, ""), sfi_i64(e, 0), sfi_i64(e, 1), carried, GROUP + 2);
  for (int i = 0; i < 2 && e->kernel->tile.ahead; i++) sfi_prefetch(e, loop.carried[i], SFI_AHEAD);
  load_columns(e, columns, x, loop.carried[0], xv);
  memcpy(next + 2, loop.carried + 2, GROUP * sizeof *next);
  const int steps = shared ? 2 : 1;
  for (int s = 0; s < steps; s++) {
    for (int i = 0; i < GROUP; i += QUAD) load_values(e, sfi_at(e, e->f32, loop.carried[1], sfi_i64(e, s * GROUP + i)), value + i);
    for (int i = 0; i < GROUP; i++) {
      LLVMValueRef before = next[2 + i], after = sfi_fma(e, value[i], xv[shared ? s * PAIRS + i / 2 : i], before);
      if (exact) after = LLVMBuildSelect(b, LLVMBuildFCmp(b, LLVMRealUNE, value[i], LLVMConstNull(e->vec), ""), after, before, "");
      next[2 + i] = after;
    }
  }
  next[0] = sfi_at(e, e->i16, loop.carried[0], sfi_i64(e, GROUP));
  next[1] = sfi_at(e, e->f32, loop.carried[1], sfi_i64(e, steps * GROUP));
  sfi_loop_end(e, &loop, next);
  *at = (cursor){loop.carried[0], loop.carried[1]};
  memcpy(sum, loop.carried + 2, GROUP * sizeof *sum);
}

/* The groups of one K block. first, last: i1, is it the first or the last block. */
static void block_groups(sfi_emission *e, const sfi_columns *columns, LLVMValueRef x, LLVMValueRef start, LLVMValueRef first,
                         LLVMValueRef last) {
  const sfi_kernel *k = e->kernel;
  LLVMBuilderRef b = e->builder;
  LLVMValueRef records = sfi_at(e, e->i32, sfi_packed_section(e, RECORDS),
                                sfi_muli(e, sfi_load_u32(e, start, sfi_i64(e, 0)), sfi_i64(e, RECORD_WORDS)));
  LLVMValueRef begin[] = {
      sfi_at(e, e->i16, sfi_packed_section(e, POSITIONS), sfi_muli(e, sfi_load_u32(e, start, sfi_i64(e, 2)), sfi_i64(e, GROUP))),
      sfi_at(e, e->f32, sfi_packed_section(e, VALUES), sfi_muli(e, sfi_load_u32(e, start, sfi_i64(e, 3)), sfi_i64(e, GROUP)))};
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), sfi_load_u32(e, start, sfi_i64(e, 1)), sfi_i64(e, 1), begin, 2);
  LLVMValueRef record = sfi_at(e, e->i32, records, sfi_muli(e, loop.index, sfi_i64(e, RECORD_WORDS)));
  LLVMValueRef before[GROUP], sum[GROUP], exact[GROUP], raw[GROUP], zero[GROUP];
  sfi_point point[GROUP];
  for (int i = 0; i < GROUP; i++) {
    point[i] = columns->point[0];
    point[i].index[1] = sfi_load_u32(e, record, sfi_i64(e, i));
    zero[i] = LLVMConstNull(e->vec);
  }
  sfi_if resume;
  sfi_if_begin(e, &resume, LLVMBuildNot(b, first, ""));
  for (int i = 0; i < GROUP; i++) before[i] = sfi_operand_load(e, 0, &point[i]);
  sfi_if_end(e, &resume, before, zero, before, GROUP);

  LLVMValueRef shared = sfi_load_u32(e, record, sfi_i64(e, SHARED)), further = sfi_load_u32(e, record, sfi_i64(e, FURTHER));
  cursor from = {loop.carried[0], loop.carried[1]}, at = from, again = from;
  memcpy(sum, before, sizeof sum);
  rounds(e, columns, x, shared, true, false, &at, sum);
  rounds(e, columns, x, further, false, false, &at, sum);
  /* A NaN never leaves a sum; Inf - Inf among rows only costs a computation that gives the same. */
  LLVMValueRef any = sum[0];
  for (int i = 1; i < GROUP; i++) any = LLVMBuildFAdd(b, any, sum[i], "");
  LLVMValueRef nan = LLVMBuildFCmp(b, LLVMRealUNO, any, any, "");
  LLVMTypeRef type = LLVMTypeOf(nan);
  sfi_if redo;
  sfi_if_begin(e, &redo, sfi_intrinsic(e, "llvm.vector.reduce.or", &type, 1, &nan, 1));
  memcpy(exact, before, sizeof exact);
  rounds(e, columns, x, shared, true, true, &again, exact);
  rounds(e, columns, x, further, false, true, &again, exact);
  sfi_if_end(e, &redo, exact, sum, sum, GROUP);

  memcpy(raw, sum, sizeof raw);
  sfi_if finish;
  sfi_if_begin(e, &finish, last);
  for (int i = 0; i < GROUP; i++) sum[i] = sfi_expr_value(e, &k->epilogue, &point[i], sum[i]);
  sfi_if_end(e, &finish, sum, raw, sum, GROUP);
  for (int i = 0; i < GROUP; i++) sfi_point_store(e, &point[i], sum[i]);
  sfi_loop_end(e, &loop, (LLVMValueRef[]){at.round, at.value});
}

static void lockstep_rows(sfi_emission *e, const sfi_columns *columns, LLVMValueRef row_begin, LLVMValueRef row_end) {
  (void)row_end;
  LLVMBuilderRef b = e->builder;
  LLVMValueRef blocks = sfi_packed_header(e, BLOCKS), depth = sfi_packed_header(e, DEPTH), one = sfi_i64(e, 1);
  LLVMValueRef tile = LLVMBuildUDiv(b, row_begin, sfi_i64(e, e->kernel->tile.row_block), "");
  LLVMValueRef words = sfi_i64(e, START_WORDS);
  LLVMValueRef starts = sfi_at(e, e->i32, sfi_packed_section(e, STARTS), sfi_muli(e, sfi_muli(e, tile, blocks), words));
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), blocks, one, NULL, 0);
  LLVMValueRef start = sfi_at(e, e->i32, starts, sfi_muli(e, loop.index, words));
  LLVMValueRef x = sfi_x_row(e, columns->x, sfi_muli(e, loop.index, depth));
  LLVMValueRef last = LLVMBuildSub(b, blocks, one, "");
  block_groups(e, columns, x, start, LLVMBuildICmp(b, LLVMIntEQ, loop.index, sfi_i64(e, 0), ""),
               LLVMBuildICmp(b, LLVMIntEQ, loop.index, last, ""));
  sfi_loop_end(e, &loop, NULL);
}

sf_status sfi_lockstep_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)k, (void)plan;
  sfi_contraction_tiles(e, lockstep_rows);
  return SF_OK;
}
