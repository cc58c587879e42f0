/* "spmm-counted": sparse matrix product, row by row, for patterns in which rows share few columns.
 *
 * K is cut into blocks whose rows of X fit L1. In a block, the rows of W are sorted by their number of nonzeros, and a row with n
 * nonzeros enters a chain of straight-line steps n steps before its end: no loop, so no mispredicted exit, and as neighbours in the
 * order have equal counts the jump is predicted as well. One step is a broadcast of the value and one multiply-add with X in memory for each of
 * V vectors; positions come four (16 bits) or two (32 bits) to a load. Sums stay in the output between blocks.
 * Bound: V + 1.25 loads for V multiply-adds, two of each a cycle: 0.86 of the peak at V = 8.
 *
 * Packed W: header | starts | records | positions | values
 *   header: int64 byte offset of each section
 *   starts: uint32 [row block][K block][4]: first record, number of records, first group of positions, first value
 *   records: uint32 [2]: row, number of nonzeros. Blocks first and last of K hold every row, those between only rows with nonzeros.
 *   positions: groups of 64 bits, right-aligned for each row: relative to the block's first, in bytes (16 bits) or elements (32)
 *   values: float, row after row */
#include "emitters.h"

enum { STARTS, RECORDS, POSITIONS, VALUES, SECTIONS };
enum { CHAIN = 32, L1_SHARE = 40960, START_WORDS = 4 };

/* ---- geometry ------------------------------------------------------------------------------------------------------ */

/* Bytes of X that one more k adds to what a register tile touches. */
static int64_t bytes_per_k(const sfi_kernel *k, const sfi_target *target) {
  return (int64_t)k->tile.vectors * target->lanes * 4;
}

static int64_t block_count(const sfi_kernel *k, const sfi_target *target) {
  return sfi_max(1, sfi_ceil_div(k->contract.depth.c[0] * bytes_per_k(k, target), L1_SHARE));
}
static int64_t block_depth(const sfi_kernel *k, const sfi_target *target) {
  return sfi_max(1, sfi_ceil_div(k->contract.depth.c[0], block_count(k, target)));
}

/* May positions be 16-bit byte offsets inside a block? */
static bool narrow(const sfi_kernel *k, const sfi_target *target) {
  sfi_poly stride = k->operand[1].stride[1];
  return !k->contract.k_offset && sfi_is_const(stride) && stride.c[0] >= 0 &&
         (block_depth(k, target) - 1) * stride.c[0] * 4 <= UINT16_MAX;
}

sfi_refusal sfi_counted_accept(sfi_kernel *k, const sfi_plan *plan) {
  if (sfi_is(k->extent[2].of, 1) && sfi_is(k->extent[0].of, 1)) return SFI_REFUSE_ONE_COLUMN;
  if (!sfi_is(k->operand[1].stride[2], 1) && !sfi_is(k->extent[2].of, 1)) return SFI_REFUSE_STRIDED_COLUMNS;
  if (!sfi_positions_fit(k) || k->contract.facts->nonzeros > INT32_MAX) return SFI_REFUSE_OFFSETS_TOO_LARGE;
  sfi_choose_columns(k, plan->target, plan->target->registers > 16 ? 8 : 4);
  k->tile.rows = 1;
  k->tile.row_block = sfi_max(sfi_min(128, sfi_max(1, k->contract.rows)), sfi_ceil_div(k->contract.rows, 4));
  return SFI_REFUSE_NONE;
}

/* Measured on Zen 5, X in L1, sums in L2: a step takes 0.7 V + 0.9 cycles, and each visit of a row in a block 1.5 V + 8. */
double sfi_counted_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  double v = k->tile.vectors, nonzeros = (double)k->contract.facts->nonzeros, rows = (double)k->contract.rows;
  double blocks = (double)block_count(k, plan->target);
  double visits = rows * blocks < nonzeros + 2 * rows ? rows * blocks : nonzeros + 2 * rows;
  double cycles = nonzeros * (v * 0.7 + 0.9) + visits * (v * 1.5 + 8);
  return sfi_cycles_us(plan->target, sfi_total_columns(k, plan->target, symbol) / (plan->target->lanes * v) * cycles);
}

/* ---- packing ------------------------------------------------------------------------------------------------------- */

typedef struct packer {
  const sfi_kernel *k;
  int64_t blocks, depth;           /* of K; columns in a block */
  int group;                       /* positions in 64 bits */
  uint32_t *count, *order;         /* of the rows of a row block: nonzeros in the K block, rows by falling count */
  int64_t records, groups, values; /* written so far */
} packer;

static void count_rows(packer *p, int64_t first, int64_t rows, int64_t begin, int64_t end) {
  uint32_t most = 0;
  for (int64_t r = 0; r < rows; r++) {
    p->count[r] = 0;
    for (int64_t c = begin; c < end; c++) p->count[r] += sfi_weight_at(&p->k->contract, first + r, c) != 0;
    if (p->count[r] > most) most = p->count[r];
  }
  int64_t n = 0;
  for (int64_t value = most; value >= 0; value--) /* counts are small: at most a block's depth */
    for (int64_t r = 0; r < rows; r++)
      if (p->count[r] == value) p->order[n++] = (uint32_t)r;
}

/* One pass over all blocks; out NULL only measures. */
static void pack_blocks(packer *p, uint8_t *out, const int64_t *offset) {
  const sfi_kernel *k = p->k;
  int64_t rows = k->contract.rows, all = k->contract.depth.c[0], row_blocks = sfi_ceil_div(rows, k->tile.row_block);
  p->records = p->groups = p->values = 0;
  for (int64_t rb = 0; rb < row_blocks; rb++)
    for (int64_t b = 0; b < p->blocks; b++) {
      int64_t first = rb * k->tile.row_block, n = sfi_min(k->tile.row_block, rows - first), begin = sfi_min(b * p->depth, all);
      int64_t end = sfi_min(begin + p->depth, all), base = begin < all ? sfi_position(k, begin) : 0;
      bool every = b == 0 || b == p->blocks - 1;
      count_rows(p, first, n, begin, end);
      while (!every && n && p->count[p->order[n - 1]] == 0) n--;
      if (out) {
        uint32_t start[START_WORDS] = {(uint32_t)p->records, (uint32_t)n, (uint32_t)p->groups, (uint32_t)p->values};
        memcpy(out + offset[STARTS] + (rb * p->blocks + b) * (int64_t)sizeof start, start, sizeof start);
      }
      for (int64_t i = 0; i < n; i++) {
        int64_t row = first + p->order[i], count = p->count[p->order[i]], groups = sfi_ceil_div(count, p->group);
        if (out) {
          uint32_t record[2] = {(uint32_t)row, (uint32_t)count};
          memcpy(out + offset[RECORDS] + p->records * 8, record, 8);
          int64_t at = p->groups * p->group + groups * p->group - count;
          float *value = (float *)(void *)(out + offset[VALUES]) + p->values;
          for (int64_t c = begin; c < end; c++) {
            float w = sfi_weight_at(&k->contract, row, c);
            if (w == 0) continue;
            int64_t position = k->contract.k_offset ? sfi_position(k, c) : sfi_position(k, c) - base;
            if (p->group == 4)
              ((uint16_t *)(void *)(out + offset[POSITIONS]))[at++] = (uint16_t)(position * 4);
            else
              ((uint32_t *)(void *)(out + offset[POSITIONS]))[at++] = (uint32_t)position;
            *value++ = w;
          }
        }
        p->records++, p->groups += groups, p->values += count;
      }
    }
}

sf_status sfi_counted_pack(const sfi_kernel *k, const sfi_plan *plan, const sf_allocator *allocator, sfi_diag *diag,
                           sfi_blob *out) {
  int64_t row_blocks = sfi_ceil_div(k->contract.rows, k->tile.row_block);
  packer p = {.k = k,
              .blocks = block_count(k, plan->target),
              .depth = block_depth(k, plan->target),
              .group = narrow(k, plan->target) ? 4 : 2};
  size_t bytes = (size_t)(k->tile.row_block * 2 * 4);
  sf_status st = SF_OK;
  if (!(p.count = sfi_alloc(allocator, bytes))) return sfi_fail_memory(diag);
  p.order = p.count + k->tile.row_block;
  pack_blocks(&p, NULL, NULL);
  int64_t offset[SECTIONS + 1] = {64};
  offset[RECORDS] = offset[STARTS] + sfi_round_up(row_blocks * p.blocks * START_WORDS * 4, 64);
  offset[POSITIONS] = offset[RECORDS] + sfi_round_up(p.records * 8, 64);
  offset[VALUES] = offset[POSITIONS] + sfi_round_up(p.groups * 8, 64);
  offset[SECTIONS] = offset[VALUES] + sfi_round_up(p.values * 4, 64);
  if (!sfi_blob_init(out, allocator, (size_t)offset[SECTIONS])) {
    st = sfi_fail_memory(diag);
  } else {
    memcpy(out->data, offset, SECTIONS * sizeof *offset);
    pack_blocks(&p, out->data, offset);
  }
  sfi_free(allocator, p.count, bytes);
  return st;
}

/* ---- code ---------------------------------------------------------------------------------------------------------- */

static LLVMValueRef section(sfi_emission *e, int index) {
  return sfi_at(e, e->i8, e->base[2], sfi_load_scalar(e, e->i64, e->base[2], sfi_i64(e, index)));
}
static LLVMValueRef load_u32(sfi_emission *e, LLVMValueRef base, LLVMValueRef index) {
  return LLVMBuildZExt(e->builder, sfi_load_scalar(e, e->i32, base, index), e->i64, "");
}
static LLVMBasicBlockRef block(sfi_emission *e) {
  return LLVMAppendBasicBlockInContext(e->context, e->function, "");
}

/* Registers that flow down the chain. */
typedef struct flow {
  LLVMValueRef group, acc[SFI_VECTORS_MAX];
} flow;

/* One nonzero, the one `left` steps before the end of its row or chunk. */
static void step(sfi_emission *e, const sfi_columns *columns, LLVMValueRef x, LLVMValueRef value_end, int left, int group_size,
                 flow *f) {
  /* Each step shifts the group as it was loaded: steps do not wait for each other's shifts. */
  int64_t bits = 64 / group_size, shift = (group_size - 1 - (left - 1) % group_size) * bits;
  LLVMValueRef position = shift ? LLVMBuildLShr(e->builder, f->group, sfi_i64(e, shift), "") : f->group;
  position = LLVMBuildAnd(e->builder, position, LLVMConstInt(e->i64, ((unsigned long long)1 << bits) - 1, false), "");
  LLVMValueRef row = group_size == 4 ? sfi_at(e, e->i8, x, position) : sfi_x_row_at(e, x, position);
  row = sfi_opaque(e, row); /* else the addition goes into all V loads, whose indexed addresses cost an operation each */
  LLVMValueRef w = sfi_splat(e, sfi_load_scalar(e, e->f32, value_end, sfi_i64(e, -left)));
  for (int32_t v = 0; v < columns->vectors; v++) {
    LLVMValueRef xv = sfi_load_vector(e, sfi_at(e, e->f32, row, sfi_i64(e, (int64_t)v * e->lanes)), columns->load_mask[v]);
    xv = sfi_opaque(e, xv); /* loads of their own: 4.9 cycles a step against 5.7 for multiply-adds from memory (V = 8, Zen 5) */
    f->acc[v] = sfi_fma(e, w, xv, f->acc[v]);
  }
}

static LLVMValueRef load_group(sfi_emission *e, LLVMValueRef group_end, int left, int group_size) {
  return sfi_load_scalar(e, e->i64, group_end, sfi_i64(e, -((left - 1) / group_size + 1)));
}

/* acc += the `count` nonzeros at *group and *value, which move behind them. */
static void row_sum(sfi_emission *e, const sfi_columns *columns, LLVMValueRef x, LLVMValueRef count, LLVMValueRef *group,
                    LLVMValueRef *value, int group_size, LLVMValueRef *acc) {
  LLVMBuilderRef b = e->builder;
  int32_t vectors = columns->vectors;
  /* The first chunk takes what the others, of CHAIN each, leave. */
  LLVMValueRef chain = sfi_i64(e, CHAIN), one = sfi_i64(e, 1);
  LLVMValueRef whole =
      LLVMBuildUDiv(b, LLVMBuildSub(b, count, one, ""), chain, ""); /* of further chunks; count 0 is sorted out below */
  LLVMValueRef empty = LLVMBuildICmp(b, LLVMIntEQ, count, sfi_i64(e, 0), "");
  LLVMValueRef further = LLVMBuildSelect(b, empty, sfi_i64(e, 0), sfi_muli(e, whole, chain), "");
  LLVMValueRef first = LLVMBuildSub(b, count, further, "");
  LLVMValueRef groups = LLVMBuildUDiv(b, LLVMBuildAdd(b, first, sfi_i64(e, group_size - 1), ""), sfi_i64(e, group_size), "");
  LLVMValueRef group_end = sfi_at(e, e->i64, *group, groups), value_end = sfi_at(e, e->f32, *value, first);

  LLVMBasicBlockRef steps[CHAIN + 1], entry = LLVMGetInsertBlock(b), chunk = block(e), end = block(e), done = block(e);
  for (int i = CHAIN; i >= 0; i--) steps[i] = i ? block(e) : end;
  LLVMBuildBr(b, chunk);

  LLVMPositionBuilderAtEnd(b, chunk); /* head of the loop over chunks */
  LLVMValueRef n = LLVMBuildPhi(b, e->i64, ""), left = LLVMBuildPhi(b, e->i64, ""), gp = LLVMBuildPhi(b, e->ptr, ""),
               vp = LLVMBuildPhi(b, e->ptr, "");
  LLVMValueRef start[SFI_VECTORS_MAX];
  for (int32_t v = 0; v < vectors; v++) start[v] = LLVMBuildPhi(b, e->vec, "");
  LLVMValueRef jump = LLVMBuildSwitch(b, n, done, CHAIN);

  /* entries[i]: loads the group that step i stands in. */
  LLVMBasicBlockRef entries[CHAIN + 1];
  LLVMValueRef entered[CHAIN + 1];
  for (int i = 1; i <= CHAIN; i++) {
    entries[i] = block(e);
    LLVMPositionBuilderAtEnd(b, entries[i]);
    entered[i] = load_group(e, gp, i, group_size);
    LLVMBuildBr(b, steps[i]);
    LLVMAddCase(jump, sfi_i64(e, i), entries[i]);
  }
  flow f = {0};
  LLVMBasicBlockRef from = NULL;
  for (int i = CHAIN; i >= 1; i--) {
    LLVMPositionBuilderAtEnd(b, steps[i]);
    flow at = {.group = LLVMBuildPhi(b, e->i64, "")};
    for (int32_t v = 0; v < vectors; v++) at.acc[v] = LLVMBuildPhi(b, e->vec, "");
    LLVMAddIncoming(at.group, &entered[i], &entries[i], 1);
    for (int32_t v = 0; v < vectors; v++) LLVMAddIncoming(at.acc[v], &start[v], &entries[i], 1);
    if (from) {
      LLVMAddIncoming(at.group, &f.group, &from, 1);
      for (int32_t v = 0; v < vectors; v++) LLVMAddIncoming(at.acc[v], &f.acc[v], &from, 1);
    }
    f = at;
    step(e, columns, x, vp, i, group_size, &f);
    if (i > 1 && (i - 1) % group_size == 0) f.group = load_group(e, gp, i - 1, group_size);
    from = LLVMGetInsertBlock(b);
    LLVMBuildBr(b, steps[i - 1]);
  }
  LLVMPositionBuilderAtEnd(b, end);
  LLVMValueRef next_left = LLVMBuildSub(b, left, chain, "");
  LLVMValueRef next_gp = sfi_at(e, e->i64, gp, sfi_i64(e, CHAIN / group_size)), next_vp = sfi_at(e, e->f32, vp, chain);
  LLVMBuildCondBr(b, LLVMBuildICmp(b, LLVMIntEQ, left, sfi_i64(e, 0), ""), done, chunk);

  LLVMAddIncoming(n, (LLVMValueRef[]){first, chain}, (LLVMBasicBlockRef[]){entry, end}, 2);
  LLVMAddIncoming(left, (LLVMValueRef[]){further, next_left}, (LLVMBasicBlockRef[]){entry, end}, 2);
  LLVMAddIncoming(gp, (LLVMValueRef[]){group_end, next_gp}, (LLVMBasicBlockRef[]){entry, end}, 2);
  LLVMAddIncoming(vp, (LLVMValueRef[]){value_end, next_vp}, (LLVMBasicBlockRef[]){entry, end}, 2);
  for (int32_t v = 0; v < vectors; v++)
    LLVMAddIncoming(start[v], (LLVMValueRef[]){acc[v], f.acc[v]}, (LLVMBasicBlockRef[]){entry, end}, 2);

  LLVMPositionBuilderAtEnd(b, done);
  for (int32_t v = 0; v < vectors; v++) {
    acc[v] = LLVMBuildPhi(b, e->vec, "");
    LLVMAddIncoming(acc[v], (LLVMValueRef[]){start[v], f.acc[v]}, (LLVMBasicBlockRef[]){chunk, end}, 2);
  }
  *group = LLVMBuildPhi(b, e->ptr, "");
  LLVMAddIncoming(*group, (LLVMValueRef[]){gp, gp}, (LLVMBasicBlockRef[]){chunk, end}, 2);
  *value = LLVMBuildPhi(b, e->ptr, "");
  LLVMAddIncoming(*value, (LLVMValueRef[]){vp, vp}, (LLVMBasicBlockRef[]){chunk, end}, 2);
}

/* The records of one K block. first, last: i1, is it the first or the last block. */
static void block_rows(sfi_emission *e, const sfi_columns *columns, LLVMValueRef x, LLVMValueRef start, LLVMValueRef first,
                       LLVMValueRef last) {
  const sfi_kernel *k = e->kernel;
  int32_t vectors = columns->vectors;
  int group_size = narrow(k, e->target) ? 4 : 2;
  LLVMValueRef word[START_WORDS], zero = LLVMConstNull(e->vec);
  for (int i = 0; i < START_WORDS; i++) word[i] = load_u32(e, start, sfi_i64(e, i));
  LLVMValueRef records = sfi_at(e, e->i64, section(e, RECORDS), word[0]);
  LLVMValueRef cursor[] = {sfi_at(e, e->i64, section(e, POSITIONS), word[2]), sfi_at(e, e->f32, section(e, VALUES), word[3])};
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), word[1], sfi_i64(e, 1), cursor, 2);
  LLVMValueRef record = sfi_load_scalar(e, e->i64, records, loop.index);
  LLVMValueRef row = LLVMBuildAnd(e->builder, record, sfi_i64(e, 0xffffffff), ""),
               count = LLVMBuildLShr(e->builder, record, sfi_i64(e, 32), "");
  sfi_point point[SFI_VECTORS_MAX];
  LLVMValueRef acc[SFI_VECTORS_MAX], zeros[SFI_VECTORS_MAX];
  for (int32_t v = 0; v < vectors; v++) {
    point[v] = columns->point[v];
    point[v].index[1] = row;
    zeros[v] = zero;
  }
  sfi_if resume;
  sfi_if_begin(e, &resume, LLVMBuildNot(e->builder, first, ""));
  for (int32_t v = 0; v < vectors; v++) acc[v] = sfi_operand_load(e, 0, &point[v]);
  sfi_if_end(e, &resume, acc, zeros, acc, (unsigned)vectors);
  LLVMValueRef next[] = {loop.carried[0], loop.carried[1]};
  row_sum(e, columns, x, count, &next[0], &next[1], group_size, acc);
  sfi_if finish;
  LLVMValueRef raw[SFI_VECTORS_MAX], stored[SFI_VECTORS_MAX];
  memcpy(raw, acc, sizeof raw);
  sfi_if_begin(e, &finish, last);
  for (int32_t v = 0; v < vectors; v++) stored[v] = sfi_expr_value(e, &k->epilogue, &point[v], acc[v]);
  sfi_if_end(e, &finish, stored, raw, stored, (unsigned)vectors);
  for (int32_t v = 0; v < vectors; v++) sfi_point_store(e, &point[v], stored[v]);
  sfi_loop_end(e, &loop, next);
}

static void counted_rows(sfi_emission *e, const sfi_columns *columns, LLVMValueRef row_begin, LLVMValueRef row_end) {
  (void)row_end;
  const sfi_kernel *k = e->kernel;
  int64_t blocks = block_count(k, e->target), depth = block_depth(k, e->target);
  LLVMValueRef starts = section(e, STARTS), last = sfi_i64(e, blocks - 1);
  LLVMValueRef first_start =
      sfi_muli(e, LLVMBuildUDiv(e->builder, row_begin, sfi_i64(e, k->tile.row_block), ""), sfi_i64(e, blocks));
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), sfi_i64(e, blocks), sfi_i64(e, 1), NULL, 0);
  LLVMValueRef start = sfi_at(e, e->i32, starts, sfi_muli(e, sfi_addi(e, first_start, loop.index), sfi_i64(e, START_WORDS)));
  LLVMValueRef x = columns->x;
  if (!k->contract.k_offset)
    x = sfi_at(e, e->f32, x, sfi_muli(e, sfi_muli(e, loop.index, sfi_i64(e, depth)), sfi_poly_value(e, k->operand[1].stride[1])));
  block_rows(e, columns, x, start, LLVMBuildICmp(e->builder, LLVMIntEQ, loop.index, sfi_i64(e, 0), ""),
             LLVMBuildICmp(e->builder, LLVMIntEQ, loop.index, last, ""));
  sfi_loop_end(e, &loop, NULL);
}

sf_status sfi_counted_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)k, (void)plan;
  sfi_contraction_tiles(e, counted_rows);
  return SF_OK;
}
