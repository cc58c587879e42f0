/* "spmm-quads": sparse matrix product on four rows at a time that have about as many nonzeros, as in N:M. The format is in spmm_quads.h.
 *
 * A quad's nonzeros are spent in steps of one for each row, in loops whose bodies are straight-line code: four values come in one load
 * and are spread by shuffles, which leaves the load slots to X. A pairing's step loads V vectors of two rows of X, a single step those of
 * four, for 4 V multiply-adds. Sums stay in the output between K blocks.
 * Bound: multiply-adds where most steps are of pairings (2 V + 1.25 loads for 4 V of them), loads in single steps (4 V + 1.5). */
#include "emitters.h"
#include "spmm_quads.h"

sfi_refusal sfi_quads_accept(sfi_kernel *k, const sfi_plan *plan) {
  if (sfi_is(k->extent[2].of, 1) && sfi_is(k->extent[0].of, 1)) return SFI_REFUSE_ONE_COLUMN;
  if (sfi_density(k->contract.facts) >= 1) return SFI_REFUSE_NO_ZEROS;
  if (!sfi_is(k->operand[1].stride[2], 1) && !sfi_is(k->extent[2].of, 1)) return SFI_REFUSE_STRIDED_COLUMNS;
  /* Offsets of positions and values count four times each nonzero where rows differ most. */
  if (!sfi_positions_fit(k) || k->contract.facts->nonzeros > INT32_MAX / 8) return SFI_REFUSE_OFFSETS_TOO_LARGE;
  sfi_choose_columns(k, plan->target, plan->target->registers > 16 ? 4 : 2);
  if (sfi_quads_depth(k, plan->target) > UINT16_MAX) return SFI_REFUSE_OFFSETS_TOO_LARGE;
  int64_t rows = sfi_max(1, k->contract.rows);
  k->tile.rows = SFI_QUAD;
  k->tile.row_block = sfi_round_up(sfi_ceil_div(rows, sfi_ceil_div(rows, 256)), SFI_QUAD);
  return SFI_REFUSE_NONE;
}

/* Measured on Zen 5, see bench/NOTES.md. Sharing is estimated as if nonzeros were independent: columns that two or three of four rows have
 * give one pair, those of all four give two. Rows that differ leave a ragged step or so to each visit. */
double sfi_quads_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  const sfi_facts *f = k->contract.facts;
  double d = sfi_density(f), e = 1 - d, v = k->tile.vectors;
  double pairs = 6 * d * d * e * e + 4 * d * d * d * e + 2 * d * d * d * d, share = d > 0 ? pairs / (2 * d) : 0;
  double steps = (double)f->nonzeros / SFI_QUAD,
         visits = (double)sfi_quads_blocks(k, plan->target) * (double)k->contract.rows / SFI_QUAD;
  double step =
      v > 1 ? v * sfi_slots_a_load(k) * (share * 1.95 + (1 - share) * 2.5) : 3.5; /* of one vector, positions and values bind */
  double cycles = steps * step + visits * (v * (f->row_max > f->row_min ? 8 : 5) + 28);
  return sfi_cycles_us(plan->target, sfi_total_columns(k, plan->target, symbol) / (plan->target->lanes * v) * cycles);
}

/* ---- code ---------------------------------------------------------------------------------------------------------- */

/* Rows of X at `count` positions, from as few loads as there are. */
static void x_rows(sfi_emission *e, LLVMValueRef x, LLVMValueRef positions, int count, bool narrow, LLVMValueRef *row) {
  int bits = narrow ? 16 : 32, at_once = narrow ? 4 : 2;
  LLVMValueRef mask = sfi_i64(e, (INT64_C(1) << bits) - 1), group = NULL;
  for (int i = 0; i < count; i++) {
    if (i % at_once == 0) {
      LLVMTypeRef type = count - i < at_once ? e->i32 : e->i64;
      group = LLVMBuildLoad2(e->builder, type, sfi_at(e, e->i64, positions, sfi_i64(e, i / at_once)), "");
      LLVMSetAlignment(group, 4);
      group = LLVMBuildZExt(e->builder, group, e->i64, "");
    }
    LLVMValueRef at = LLVMBuildLShr(e->builder, group, sfi_i64(e, i % at_once * bits), "");
    at = LLVMBuildAnd(e->builder, at, mask, "");
    row[i] = sfi_opaque(e, narrow ? sfi_at(e, e->i8, x, at) : sfi_x_row_at(e, x, at));
  }
}

/* The four values at `values`, each in all lanes: by loads, or by one load and shuffles, which leave the load slots to X but take turns with
 * multiply-adds. */
static void spread_values(sfi_emission *e, LLVMValueRef values, bool shuffle, LLVMValueRef *w) {
  if (!shuffle) {
    for (int i = 0; i < SFI_QUAD; i++) w[i] = sfi_splat(e, sfi_load_scalar(e, e->f32, values, sfi_i64(e, i)));
    return;
  }
  LLVMValueRef all = sfi_load_quarters(e, values);
  for (int i = 0; i < SFI_QUAD; i++) w[i] = sfi_pick_quarters(e, all, i);
}

/* acc += one step: of two columns where `share` is 2, of four where it is 1. ragged: values of 0 are skipped. */
static void step(sfi_emission *e, const sfi_columns *columns, const int *rows, int share, bool ragged, const LLVMValueRef *x,
                 LLVMValueRef values, LLVMValueRef *acc) {
  LLVMValueRef w[SFI_QUAD];
  spread_values(e, values, share == 1, w);
  for (int i = 0; i < SFI_QUAD / share; i++)
    for (int32_t v = 0; v < columns->vectors; v++) {
      LLVMValueRef xv = sfi_load_vector(e, sfi_at(e, e->f32, x[i], sfi_i64(e, (int64_t)v * e->lanes)), columns->load_mask[v]);
      for (int j = i * share; j < (i + 1) * share; j++) {
        LLVMValueRef *sum = &acc[rows[j] * columns->vectors + v], next = sfi_fma(e, w[j], xv, *sum);
        if (ragged) {
          LLVMValueRef present = LLVMBuildFCmp(e->builder, LLVMRealUNE, w[j], LLVMConstNull(e->vec), "");
          next = LLVMBuildSelect(e->builder, present, next, *sum, "");
        }
        *sum = next;
      }
    }
}

/* Where the next steps are, and what those before have summed: positions, values, sums. */
typedef struct flow {
  LLVMValueRef value[2 + SFI_ACCUMULATORS_MAX];
} flow;

typedef enum loop_kind { ROUNDS, SINGLES, RAGGED, LOOPS } loop_kind;

/* `count` times the body of a loop: a round, some single steps, or a ragged one. */
static void step_loop(sfi_emission *e, const sfi_columns *columns, LLVMValueRef x, loop_kind kind, LLVMValueRef count, flow *f) {
  bool narrow = sfi_quads_narrow(e->kernel, e->target);
  int steps = kind == ROUNDS ? SFI_ROUND : kind == SINGLES ? SFI_QUAD_UNROLL : 1;
  int positions = kind == ROUNDS ? SFI_PAIRINGS * 2 + SFI_QUAD : steps * SFI_QUAD, at = 0;
  unsigned n = (unsigned)(2 + SFI_QUAD * columns->vectors);
  LLVMValueRef row[SFI_ROUND * SFI_QUAD];
  sfi_loop loop;
  flow next;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), count, sfi_i64(e, 1), f->value, n);
  memcpy(next.value, loop.carried, n * sizeof *next.value);
  for (int i = 0; i < 2; i++) sfi_prefetch(e, next.value[i], SFI_AHEAD);
  x_rows(e, x, next.value[0], positions, narrow, row);
  for (int i = 0; i < steps; i++) {
    int share = kind == ROUNDS && i < SFI_PAIRINGS ? 2 : 1;
    step(e, columns, sfi_quad_rows[kind == ROUNDS ? i : 0], share, kind == RAGGED, row + at,
         sfi_at(e, e->f32, loop.carried[1], sfi_i64(e, i * SFI_QUAD)), next.value + 2);
    at += SFI_QUAD / share;
  }
  next.value[0] = sfi_at(e, e->i8, loop.carried[0], sfi_i64(e, positions * (narrow ? 2 : 4)));
  next.value[1] = sfi_at(e, e->f32, loop.carried[1], sfi_i64(e, steps * SFI_QUAD));
  sfi_loop_end(e, &loop, next.value);
  memcpy(f->value, loop.carried, n * sizeof *f->value);
}

/* acc += what the output holds of the quad's rows. Rows that do not exist read the last one's. At the end of a visit, not at its begin:
 * the loads, from L2, then wait for nothing and nothing waits for them. */
static void add_sums(sfi_emission *e, const sfi_columns *columns, const LLVMValueRef *row, LLVMValueRef *acc) {
  LLVMValueRef last = sfi_i64(e, sfi_max(0, e->kernel->contract.rows - 1));
  for (int r = 0; r < SFI_QUAD; r++)
    for (int32_t v = 0; v < columns->vectors; v++) {
      LLVMValueRef *sum = &acc[r * columns->vectors + v];
      sfi_point p = columns->point[v];
      p.index[1] = sfi_mini(e, row[r], last);
      *sum = LLVMBuildFAdd(e->builder, sfi_operand_load(e, 0, &p), *sum, "");
    }
}

/* The quads of one row block and K block. first, last: i1, is it the first or the last K block. */
static void block_quads(sfi_emission *e, const sfi_columns *columns, LLVMValueRef x, LLVMValueRef start, LLVMValueRef quads,
                        LLVMValueRef count, LLVMValueRef first, LLVMValueRef last) {
  int32_t sums = SFI_QUAD * columns->vectors;
  LLVMValueRef carried[] = {sfi_at(e, e->i32, sfi_packed_section(e, SFI_QUADS_POSITIONS), sfi_load_u32(e, start, sfi_i64(e, 0))),
                            sfi_at(e, e->f32, sfi_packed_section(e, SFI_QUADS_VALUES),
                                   sfi_muli(e, sfi_load_u32(e, start, sfi_i64(e, 1)), sfi_i64(e, SFI_QUAD)))};
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), count, sfi_i64(e, 1), carried, SFI_COUNT(carried));
  LLVMValueRef quad = sfi_at(e, e->i8, quads, sfi_muli(e, loop.index, sfi_i64(e, sizeof(sfi_quad))));
  LLVMValueRef row[SFI_QUAD], sum[SFI_ACCUMULATORS_MAX];
  for (int r = 0; r < SFI_QUAD; r++) row[r] = sfi_load_u32(e, quad, sfi_i64(e, r));
  flow f = {{loop.carried[0], loop.carried[1]}};
  for (int32_t i = 0; i < sums; i++) f.value[2 + i] = LLVMConstNull(e->vec);
  static const int64_t count_at[LOOPS] = {offsetof(sfi_quad, rounds) / 4, offsetof(sfi_quad, singles) / 4,
                                          offsetof(sfi_quad, ragged) / 4};
  for (int kind = 0; kind < LOOPS; kind++) {
    LLVMValueRef steps = sfi_load_u32(e, quad, sfi_i64(e, count_at[kind]));
    if (kind == SINGLES) steps = LLVMBuildUDiv(e->builder, steps, sfi_i64(e, SFI_QUAD_UNROLL), "");
    step_loop(e, columns, x, (loop_kind)kind, steps, &f);
  }
  sfi_if resume, finish;
  memcpy(sum, f.value + 2, (size_t)sums * sizeof *sum);
  sfi_if_begin(e, &resume, LLVMBuildNot(e->builder, first, ""));
  add_sums(e, columns, row, sum);
  sfi_if_end(e, &resume, sum, f.value + 2, sum, (unsigned)sums);
  sfi_if_begin(e, &finish, last);
  sfi_store_rows_at(e, columns, row, SFI_QUAD, sum);
  sfi_if_end(e, &finish, NULL, NULL, NULL, 0);
  sfi_if_begin(e, &finish, LLVMBuildNot(e->builder, last, ""));
  sfi_keep_rows_at(e, columns, row, SFI_QUAD, sum);
  sfi_if_end(e, &finish, NULL, NULL, NULL, 0);
  sfi_loop_end(e, &loop, f.value);
}

static void quads_rows(sfi_emission *e, const sfi_columns *columns, LLVMValueRef row_begin, LLVMValueRef row_end) {
  const sfi_kernel *k = e->kernel;
  int64_t blocks = sfi_quads_blocks(k, e->target), depth = sfi_quads_depth(k, e->target);
  LLVMBuilderRef b = e->builder;
  LLVMValueRef starts = sfi_packed_section(e, SFI_QUADS_STARTS), quads = sfi_packed_section(e, SFI_QUADS_RECORDS),
               four = sfi_i64(e, SFI_QUAD);
  LLVMValueRef first_start = sfi_muli(e, LLVMBuildUDiv(b, row_begin, sfi_i64(e, k->tile.row_block), ""), sfi_i64(e, blocks));
  LLVMValueRef first_quad = LLVMBuildUDiv(b, row_begin, four, "");
  LLVMValueRef count =
      LLVMBuildUDiv(b, sfi_addi(e, LLVMBuildNSWSub(b, row_end, row_begin, ""), sfi_i64(e, SFI_QUAD - 1)), four, "");
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), sfi_i64(e, blocks), sfi_i64(e, 1), NULL, 0);
  LLVMValueRef start = sfi_at(e, e->i64, starts, sfi_addi(e, first_start, loop.index)), x = columns->x;
  LLVMValueRef quad = sfi_addi(e, first_quad, sfi_muli(e, loop.index, sfi_i64(e, sfi_ceil_div(k->contract.rows, SFI_QUAD))));
  if (!k->contract.k_offset)
    x = sfi_at(e, e->f32, x, sfi_muli(e, sfi_muli(e, loop.index, sfi_i64(e, depth)), sfi_poly_value(e, k->operand[1].stride[1])));
  block_quads(e, columns, x, start, sfi_at(e, e->i8, quads, sfi_muli(e, quad, sfi_i64(e, sizeof(sfi_quad)))), count,
              LLVMBuildICmp(b, LLVMIntEQ, loop.index, sfi_i64(e, 0), ""),
              LLVMBuildICmp(b, LLVMIntEQ, loop.index, sfi_i64(e, blocks - 1), ""));
  sfi_loop_end(e, &loop, NULL);
}

sf_status sfi_quads_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  (void)k, (void)plan;
  sfi_contraction_tiles(e, quads_rows);
  return SF_OK;
}
