/* "conv-sparse": direct sparse convolution over images whose rows stand on whole vectors (SkimCaffe, Park et al., ICLR 2017: the index of a
 * nonzero is an offset into the padded image). Two loads in three of a 3x3 window would cross a cache line and cost twice. So taps
 * are grouped by how far they are displaced along a row: the sums of a group are formed from aligned vectors, as if it were not
 * displaced, and then the sums are moved by lanes instead of X: y = s0 + left(s1 + left(s2)).
 *
 * A register tile is some whole rows of output pixels of one channel: many vectors, so that one broadcast and one position serve a dozen
 * multiply-adds with X in memory, and so that mispredicted ends of the loops hide behind them. K is cut at channels into blocks whose part
 * of the image fits L1; sums stay in the output between them.
 *
 * Nonzeros are taken by fours: one load brings four positions, one four values, and shuffles spread those, which leaves the load slots to X.
 *
 * Packed W: header | starts | records | positions | values
 *   header: int64 byte offset of each section, number of K blocks, elements of X from block to block
 *   starts: uint32 [row block][K block][3]: first record, number of records, first nonzero
 *   records: uint32 [1 + groups]: row * 4 + flags, nonzeros of each group, the most displaced first. A row has a record in each block
 *     where it has nonzeros; a row without any has one.
 *   positions: uint16 of each nonzero, rows of X counted from the block's first
 *   values: float */
#include "emitters.h"

enum { STARTS, RECORDS, POSITIONS, VALUES, SECTIONS, BLOCKS = SECTIONS, BLOCK_ELEMENTS };
enum {
  FOUR = 4,
  AHEAD = 2 * FOUR
}; /* nonzeros whose positions are read before their turn: behind the last one there are as many more */
enum { START_WORDS = 3, GROUPS_MAX = 16, LINE = 64 };
enum { BLOCK_BYTES = 40960, BLOCK_BYTES_MOST = 65536, VISIT_FMAS = 448 };
enum { FIRST = 1, LAST = 2 }; /* flags: nothing is in the output yet; the epilogue is due */

/* ---- geometry ------------------------------------------------------------------------------------------------------ */

typedef struct geometry {
  int64_t granule, rows; /* pixels of an image row; rows of one fold, each of `pitch` columns */
  int64_t across, down;  /* register tile: vectors of a row, rows */
  int64_t channel;       /* elements of X */
  int64_t lines;         /* of a channel that a register tile reads */
  int32_t groups;
  int64_t shift[GROUPS_MAX]; /* lanes; falling */
} geometry;

static int64_t shift_of(const sfi_kernel *k, int64_t i) {
  return k->contract.k_offset[i] % k->contract.pitch;
}

/* Rows of a channel that the taps of a tile of `down` rows meet: their union. */
static int64_t rows_met(const sfi_kernel *k, int64_t channel, int64_t down) {
  const int64_t *offset = k->contract.k_offset, pitch = k->contract.pitch, depth = k->contract.depth.c[0];
  int64_t met = 0;
  for (int64_t i = 0; i < depth && offset[i] < channel; i++) {
    int64_t row = offset[i] / pitch, next = INT64_MAX;
    bool seen = false;
    for (int64_t j = 0; j < depth && offset[j] < channel; j++) {
      int64_t other = offset[j] / pitch;
      seen = seen || (j < i && other == row);
      if (other > row) next = sfi_min(next, other);
    }
    if (!seen) met += sfi_min(down, next - row);
  }
  return met;
}

static bool add_group(geometry *g, int64_t shift) {
  int32_t at = 0;
  while (at < g->groups && g->shift[at] > shift) at++;
  if (at < g->groups && g->shift[at] == shift) return true;
  if (g->groups == GROUPS_MAX) return false;
  memmove(&g->shift[at + 1], &g->shift[at], (size_t)(g->groups - at) * sizeof g->shift[0]);
  g->shift[at] = shift;
  g->groups++;
  return true;
}

/* False where taps are displaced in too many ways. */
static bool measure(const sfi_kernel *k, const sfi_target *target, geometry *g) {
  const sfi_contract *c = &k->contract;
  const int64_t out_rows = k->extent[2].of.c[0] / c->valid;
  *g = (geometry){.granule = c->pitch / c->fold, .rows = sfi_ceil_div(out_rows, c->fold), .across = c->pitch / target->lanes};
  g->down = sfi_max(1, sfi_min(g->rows, target->registers / 2 / g->across));
  g->down = sfi_ceil_div(g->rows, sfi_ceil_div(g->rows, g->down)); /* tiles alike */
  g->channel = k->operand[1].stride[1].c[0];
  for (int64_t i = 0; i < c->depth.c[0] && c->k_offset[i] < g->channel; i++)
    if (!add_group(g, shift_of(k, i))) return false;
  g->lines = rows_met(k, g->channel, g->down) * g->across;
  return g->across <= target->registers / 2;
}

/* Channels in a block of K: as many as fit L1; where a row would have few nonzeros in them, somewhat more. Depends on the zeros, so the
 * packed weight carries the number of blocks and code does not. */
static int64_t block_channels(const sfi_kernel *k, const geometry *g) {
  int64_t channels = sfi_max(1, k->contract.depth.c[0] ? k->contract.k_offset[k->contract.depth.c[0] - 1] / g->channel + 1 : 1);
  int64_t bytes = sfi_max(1, g->lines * LINE), nonzeros = sfi_max(1, k->contract.facts->nonzeros);
  int64_t wanted = sfi_ceil_div(VISIT_FMAS, g->across * g->down);
  int64_t enough = sfi_ceil_div(wanted * channels * k->contract.rows, nonzeros);
  int64_t fit = sfi_max(1, sfi_max(BLOCK_BYTES / bytes, sfi_min(enough, BLOCK_BYTES_MOST / bytes)));
  return sfi_ceil_div(channels, sfi_ceil_div(channels, fit));
}
static int64_t block_count(const sfi_kernel *k, const geometry *g) {
  int64_t depth = k->contract.depth.c[0];
  return depth ? k->contract.k_offset[depth - 1] / g->channel / block_channels(k, g) + 1 : 1;
}

sfi_refusal sfi_conv_sparse_accept(sfi_kernel *k, const sfi_plan *plan) {
  const sfi_contract *c = &k->contract;
  geometry g;
  if (!c->pitch || c->pitch % plan->target->lanes) return SFI_REFUSE_NOT_ALIGNED;
  if (!sfi_is_const(k->extent[2].of) || !sfi_is_const(k->operand[1].stride[1])) return SFI_REFUSE_SYMBOLIC;
  if (!sfi_positions_fit(k) || c->facts->nonzeros > INT32_MAX) return SFI_REFUSE_OFFSETS_TOO_LARGE;
  if (k->extent[2].of.c[0] == 0 || k->operand[1].stride[1].c[0] % c->pitch || !measure(k, plan->target, &g))
    return SFI_REFUSE_NOT_ALIGNED;
  if (block_channels(k, &g) * (g.channel / c->pitch) > UINT16_MAX) return SFI_REFUSE_OFFSETS_TOO_LARGE;
  k->tile.rows = 1;
  k->tile.vectors = (int32_t)(g.across * g.down);
  k->tile.column_block = g.down * c->fold * c->valid;
  k->tile.row_block = sfi_max(16, sfi_ceil_div(c->rows, sfi_ceil_div(8, sfi_ceil_div(g.rows, g.down))));
  return SFI_REFUSE_NONE;
}

/* Measured on Zen 5: a nonzero takes 0.5 V + 0.8 cycles, each visit of a row in a block 3 V + 16. */
double sfi_conv_sparse_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  geometry g;
  int64_t t = 1;
  measure(k, plan->target, &g);
  sfi_extent_eval(k->extent[0], symbol, &t);
  double v = k->tile.vectors, nonzeros = (double)k->contract.facts->nonzeros, rows = (double)k->contract.rows;
  double visits = rows * (double)block_count(k, &g) < nonzeros + rows ? rows * (double)block_count(k, &g) : nonzeros + rows;
  double cycles = nonzeros * (v * 0.5 + 0.8) + visits * (v * 3 + 16);
  return sfi_cycles_us(plan->target, (double)t * (double)sfi_ceil_div(g.rows, g.down) * cycles);
}

/* ---- packing ------------------------------------------------------------------------------------------------------- */

typedef struct packer {
  const sfi_kernel *k;
  geometry g;
  int64_t channels, blocks;  /* in a block of K; blocks */
  int64_t records, nonzeros; /* written so far */
  uint8_t *out;              /* NULL: only measure */
  int64_t offset[SECTIONS + 1];
} packer;

/* First k of a block. Those of one channel are together. */
static int64_t block_begin(const packer *p, int64_t block) {
  const int64_t *offset = p->k->contract.k_offset, depth = p->k->contract.depth.c[0];
  int64_t low = 0, high = depth, limit = block * p->channels * p->g.channel;
  while (low < high) {
    int64_t middle = (low + high) / 2;
    if (offset[middle] / p->g.channel * p->g.channel < limit)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

/* The nonzeros of `row` with k in [begin, end); a record where there are any or `forced`. */
static bool pack_row(packer *p, int64_t row, int64_t begin, int64_t end, uint32_t flags, bool forced) {
  uint32_t record[1 + GROUPS_MAX] = {(uint32_t)row * 4 + flags};
  int64_t first = p->nonzeros;
  for (int32_t i = 0; i < p->g.groups; i++) {
    for (int64_t c = begin; c < end; c++) {
      if (shift_of(p->k, c) != p->g.shift[i]) continue;
      float w = sfi_weight_at(&p->k->contract, row, c);
      if (w == 0) continue;
      if (p->out) {
        const int64_t elements = p->channels * p->g.channel, block = p->k->contract.k_offset[begin] / elements * elements;
        const uint16_t position = (uint16_t)((p->k->contract.k_offset[c] - p->g.shift[i] - block) / p->k->contract.pitch);
        memcpy(p->out + p->offset[POSITIONS] + p->nonzeros * 2, &position, 2);
        memcpy(p->out + p->offset[VALUES] + p->nonzeros * 4, &w, 4);
      }
      record[1 + i]++;
      p->nonzeros++;
    }
  }
  if (p->nonzeros == first && !forced) return false;
  const size_t bytes = (size_t)(1 + p->g.groups) * 4;
  if (p->out) memcpy(p->out + p->offset[RECORDS] + (size_t)p->records * bytes, record, bytes);
  p->records++;
  return true;
}

/* First and last block in which a row has nonzeros; 0 and 0 where it has none. */
static void find_span(const packer *p, int64_t row, uint32_t *span) {
  bool any = false;
  span[0] = span[1] = 0;
  for (int64_t b = 0; b < p->blocks; b++) {
    int64_t begin = block_begin(p, b), end = block_begin(p, b + 1);
    while (begin < end && sfi_weight_at(&p->k->contract, row, begin) == 0) begin++;
    if (begin == end) continue;
    if (!any) span[0] = (uint32_t)b;
    span[1] = (uint32_t)b;
    any = true;
  }
}

/* spans: first and last block of each row. */
static void pack_blocks(packer *p, const uint32_t *spans) {
  const sfi_kernel *k = p->k;
  p->records = p->nonzeros = 0;
  for (int64_t first = 0, rb = 0; first < k->contract.rows; first += k->tile.row_block, rb++)
    for (int64_t b = 0; b < p->blocks; b++) {
      uint32_t start[START_WORDS] = {(uint32_t)p->records, 0, (uint32_t)p->nonzeros};
      int64_t begin = block_begin(p, b), end = block_begin(p, b + 1);
      for (int64_t row = first; row < sfi_min(first + k->tile.row_block, k->contract.rows); row++) {
        const bool is_first = spans[2 * row] == b, is_last = spans[2 * row + 1] == b;
        start[1] += pack_row(p, row, begin, end, (is_first ? FIRST : 0) | (is_last ? LAST : 0), is_first);
      }
      if (p->out) memcpy(p->out + p->offset[STARTS] + (rb * p->blocks + b) * (int64_t)sizeof start, start, sizeof start);
    }
}

sf_status sfi_conv_sparse_pack(const sfi_kernel *k, const sfi_plan *plan, const sf_allocator *allocator, sfi_diag *diag,
                               sfi_blob *out) {
  packer p = {.k = k};
  const int64_t rows = k->contract.rows;
  const size_t bytes = (size_t)sfi_max(1, rows) * 2 * sizeof(uint32_t);
  uint32_t *spans = sfi_alloc(allocator, bytes);
  sf_status st = SF_OK;
  if (!spans) return sfi_fail_memory(diag);
  measure(k, plan->target, &p.g);
  p.channels = block_channels(k, &p.g);
  p.blocks = block_count(k, &p.g);
  for (int64_t r = 0; r < rows; r++) find_span(&p, r, spans + 2 * r);
  pack_blocks(&p, spans);
  p.offset[STARTS] = 64;
  p.offset[RECORDS] = p.offset[STARTS] + sfi_round_up(sfi_ceil_div(rows, k->tile.row_block) * p.blocks * START_WORDS * 4, 64);
  p.offset[POSITIONS] = p.offset[RECORDS] + sfi_round_up(p.records * (1 + p.g.groups) * 4, 64);
  p.offset[VALUES] = p.offset[POSITIONS] + sfi_round_up((p.nonzeros + AHEAD) * 2, 64);
  p.offset[SECTIONS] = p.offset[VALUES] + sfi_round_up(p.nonzeros * 4, 64);
  if (!sfi_blob_init(out, allocator, (size_t)p.offset[SECTIONS])) {
    st = sfi_fail_memory(diag);
  } else {
    p.out = out->data;
    memcpy(out->data, p.offset, SECTIONS * sizeof p.offset[0]);
    const int64_t numbers[] = {p.blocks, p.channels * p.g.channel};
    memcpy(out->data + BLOCKS * sizeof numbers[0], numbers, sizeof numbers);
    pack_blocks(&p, spans);
  }
  sfi_free(allocator, spans, bytes);
  return st;
}

/* ---- code ---------------------------------------------------------------------------------------------------------- */

/* Some rows of output pixels, of all output channels: what all records share. */
typedef struct strip {
  geometry g;
  int32_t vectors;
  LLVMValueRef x;            /* address of X[t, first channel of the K block, first row of the tile] */
  LLVMValueRef t, first_row; /* of the tile's rows in each fold */
} strip;

/* Where the nonzeros of a block have got to: address of the next position and value, and the next four positions. Those are read before
 * their turn: loads of X that wait for a position that was only just asked for leave gaps, as it has its turn after all loads before it. */
enum { POSITION, VALUE, WORD, STREAM };
typedef struct stream {
  LLVMValueRef v[STREAM];
} stream;

static LLVMValueRef next_word(sfi_emission *e, const stream *s, int64_t after) {
  LLVMValueRef word = LLVMBuildLoad2(e->builder, e->i64, sfi_at(e, e->i16, s->v[POSITION], sfi_i64(e, after)), "");
  LLVMSetAlignment(word, 2);
  return sfi_opaque(e, word);
}

/* acc += w times the row of X at position `slot` of the word. */
static void step(sfi_emission *e, const strip *tile, LLVMValueRef word, int slot, LLVMValueRef w, LLVMValueRef *acc) {
  LLVMValueRef position =
      LLVMBuildAnd(e->builder, LLVMBuildLShr(e->builder, word, sfi_i64(e, slot * 16), ""), sfi_i64(e, UINT16_MAX), "");
  /* Hidden: else the addition goes into all loads, whose indexed addresses cost an operation each. */
  LLVMValueRef row = sfi_opaque(e, sfi_at(e, e->f32, tile->x, sfi_muli(e, position, sfi_i64(e, e->kernel->contract.pitch))));
  for (int32_t v = 0; v < tile->vectors; v++)
    acc[v] = sfi_fma(e, w, sfi_load_vector(e, sfi_at(e, e->f32, row, sfi_i64(e, (int64_t)v * e->lanes)), NULL), acc[v]);
}

/* sums += the next `count` nonzeros: fours, then what is left. Few accumulators would wait for each other: then every other nonzero of a
 * four goes to a second set. */
static void group_sum(sfi_emission *e, const strip *tile, LLVMValueRef count, stream *s, LLVMValueRef *sums) {
  const int32_t v = tile->vectors, sets = v < 8 ? 2 : 1;
  LLVMValueRef flow[SFI_CARRIED_MAX], *acc = flow + STREAM, one = sfi_i64(e, 1);
  sfi_loop loop;
  memcpy(flow, s->v, sizeof s->v);
  for (int32_t i = 0; i < v * sets; i++) acc[i] = i < v ? sums[i] : LLVMConstNull(e->vec);
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), LLVMBuildLShr(e->builder, count, sfi_i64(e, 2), ""), one, flow,
                 (unsigned)(STREAM + v * sets));
  memcpy(flow, loop.carried, (size_t)(STREAM + v * sets) * sizeof *flow);
  memcpy(s->v, flow, sizeof s->v);
  LLVMValueRef ahead = next_word(e, s, FOUR), values = sfi_load_quarters(e, s->v[VALUE]);
  for (int i = 0; i < FOUR; i++) step(e, tile, s->v[WORD], i, sfi_pick_quarters(e, values, i), acc + i % sets * v);
  flow[POSITION] = sfi_at(e, e->i16, s->v[POSITION], sfi_i64(e, FOUR));
  flow[VALUE] = sfi_at(e, e->f32, s->v[VALUE], sfi_i64(e, FOUR));
  flow[WORD] = ahead;
  sfi_loop_end(e, &loop, flow);
  memcpy(flow, loop.carried, (size_t)(STREAM + v * sets) * sizeof *flow);
  for (int32_t i = 0; i < v && sets == 2; i++) acc[i] = LLVMBuildFAdd(e->builder, acc[i], acc[v + i], "");

  sfi_loop_begin(e, &loop, sfi_i64(e, 0), LLVMBuildAnd(e->builder, count, sfi_i64(e, FOUR - 1), ""), one, flow,
                 (unsigned)(STREAM + v));
  memcpy(flow, loop.carried, (size_t)(STREAM + v) * sizeof *flow);
  step(e, tile, flow[WORD], 0, sfi_splat(e, sfi_load_scalar(e, e->f32, flow[VALUE], sfi_i64(e, 0))), acc);
  flow[POSITION] = sfi_at(e, e->i16, flow[POSITION], one);
  flow[VALUE] = sfi_at(e, e->f32, flow[VALUE], one);
  flow[WORD] = LLVMBuildLShr(e->builder, flow[WORD], sfi_i64(e, 16), "");
  sfi_loop_end(e, &loop, flow);
  memcpy(s->v, loop.carried, sizeof s->v);
  s->v[WORD] = next_word(e, s, 0);
  memcpy(sums, loop.carried + STREAM, (size_t)v * sizeof *sums);
}

/* Every sum `by` lanes to the left in its row; zeros come in, as they are what stands behind a row. */
static void shift_left(sfi_emission *e, const strip *tile, int64_t by, LLVMValueRef *acc) {
  const int64_t granule = tile->g.granule < e->lanes ? tile->g.granule : e->lanes;
  LLVMValueRef lane[64];
  for (int32_t i = 0; i < e->lanes; i++) {
    /* Lanes from `lanes` on are those of the next vector, or zeros. */
    const bool inside = i % granule + by < granule || granule == e->lanes;
    lane[i] = LLVMConstInt(e->i32, (unsigned long long)(inside ? i + by : e->lanes), false);
  }
  LLVMValueRef mask = LLVMConstVector(lane, (unsigned)e->lanes);
  for (int32_t v = 0; v < tile->vectors; v++) {
    LLVMValueRef next = (v + 1) % tile->g.across ? acc[v + 1] : LLVMConstNull(e->vec);
    acc[v] = LLVMBuildShuffleVector(e->builder, acc[v], next, mask, "");
  }
}

/* The output pixels of fold `fold` in vector v. */
static sfi_point point_of(sfi_emission *e, const strip *tile, LLVMValueRef row, int32_t v, int64_t fold) {
  const sfi_contract *c = &e->kernel->contract;
  const int64_t down = v / tile->g.across, from = v % tile->g.across * e->lanes, out_rows = e->kernel->extent[2].of.c[0] / c->valid;
  LLVMValueRef lane[64];
  for (int32_t i = 0; i < e->lanes; i++) {
    const int64_t column = from + i - fold * tile->g.granule;
    lane[i] = LLVMConstInt(e->i1, column >= 0 && column < c->valid, false);
  }
  LLVMValueRef mask = LLVMConstVector(lane, (unsigned)e->lanes);
  LLVMValueRef image_row = sfi_addi(e, tile->first_row, sfi_i64(e, fold * tile->g.rows + down));
  if (tile->g.rows % tile->g.down || tile->g.rows * (fold + 1) > out_rows) {
    const int64_t end = sfi_min((fold + 1) * tile->g.rows, out_rows);
    LLVMValueRef exists = LLVMBuildICmp(e->builder, LLVMIntSLT, image_row, sfi_i64(e, end), "");
    mask = LLVMBuildAnd(e->builder, mask, sfi_splat(e, exists), "");
  }
  LLVMValueRef first = sfi_addi(e, sfi_muli(e, image_row, sfi_i64(e, c->valid)), sfi_i64(e, from - fold * tile->g.granule));
  return (sfi_point){.rank = 3, .vector_dim = 2, .vector = true, .index = {tile->t, row, first}, .mask = mask};
}

/* Does any output pixel stand in this part of a vector? */
static bool has_pixels(const sfi_emission *e, const strip *tile, int32_t v, int64_t fold) {
  return v % tile->g.across * e->lanes - fold * tile->g.granule < e->kernel->contract.valid;
}

static void finish(sfi_emission *e, const strip *tile, LLVMValueRef row, LLVMValueRef flags, LLVMValueRef *acc) {
  const sfi_kernel *k = e->kernel;
  const int64_t folds = k->contract.fold;
  sfi_if resume, last;
  LLVMValueRef sum[SFI_CARRIED_MAX];
  LLVMValueRef first = LLVMBuildAnd(e->builder, flags, sfi_i64(e, FIRST), "");
  sfi_if_begin(e, &resume, LLVMBuildICmp(e->builder, LLVMIntEQ, first, sfi_i64(e, 0), ""));
  for (int32_t v = 0; v < tile->vectors; v++) {
    sum[v] = acc[v];
    for (int64_t f = 0; f < folds; f++) {
      if (!has_pixels(e, tile, v, f)) continue;
      sfi_point p = point_of(e, tile, row, v, f);
      sum[v] = LLVMBuildFAdd(e->builder, sum[v], sfi_operand_load(e, 0, &p), "");
    }
  }
  sfi_if_end(e, &resume, sum, acc, acc, (unsigned)tile->vectors);
  LLVMValueRef is_last =
      LLVMBuildICmp(e->builder, LLVMIntNE, LLVMBuildAnd(e->builder, flags, sfi_i64(e, LAST), ""), sfi_i64(e, 0), "");
  for (int64_t f = 0; f < folds; f++) {
    LLVMValueRef stored[SFI_CARRIED_MAX], raw[SFI_CARRIED_MAX];
    memcpy(stored, acc, (size_t)tile->vectors * sizeof *acc);
    memcpy(raw, acc, (size_t)tile->vectors * sizeof *acc);
    sfi_if_begin(e, &last, is_last);
    for (int32_t v = 0; v < tile->vectors; v++) {
      if (!has_pixels(e, tile, v, f)) continue;
      sfi_point p = point_of(e, tile, row, v, f);
      stored[v] = sfi_expr_value(e, &k->epilogue, &p, acc[v]);
    }
    sfi_if_end(e, &last, stored, raw, stored, (unsigned)tile->vectors);
    for (int32_t v = 0; v < tile->vectors; v++) {
      if (!has_pixels(e, tile, v, f)) continue;
      sfi_point p = point_of(e, tile, row, v, f);
      sfi_point_store(e, &p, stored[v]);
    }
  }
}

/* The records of one K block of one row block. */
static void block_rows(sfi_emission *e, const strip *tile, LLVMValueRef start) {
  const int64_t words = 1 + tile->g.groups;
  LLVMValueRef nonzero = sfi_load_u32(e, start, sfi_i64(e, 2));
  LLVMValueRef cursor[1 + STREAM] = {
      sfi_at(e, e->i32, sfi_packed_section(e, RECORDS), sfi_muli(e, sfi_load_u32(e, start, sfi_i64(e, 0)), sfi_i64(e, words)))};
  stream s = {
      {sfi_at(e, e->i16, sfi_packed_section(e, POSITIONS), nonzero), sfi_at(e, e->f32, sfi_packed_section(e, VALUES), nonzero)}};
  s.v[WORD] = next_word(e, &s, 0);
  memcpy(cursor + 1, s.v, sizeof s.v);
  LLVMValueRef acc[SFI_CARRIED_MAX], zero = LLVMConstNull(e->vec);
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), sfi_load_u32(e, start, sfi_i64(e, 1)), sfi_i64(e, 1), cursor, 1 + STREAM);
  LLVMValueRef record = loop.carried[0], head = sfi_load_u32(e, record, sfi_i64(e, 0));
  memcpy(s.v, loop.carried + 1, sizeof s.v);
  for (int32_t v = 0; v < tile->vectors; v++) acc[v] = zero;
  for (int32_t i = 0; i < tile->g.groups; i++) {
    if (i) shift_left(e, tile, tile->g.shift[i - 1] - tile->g.shift[i], acc);
    group_sum(e, tile, sfi_load_u32(e, record, sfi_i64(e, 1 + i)), &s, acc);
  }
  if (tile->g.groups && tile->g.shift[tile->g.groups - 1]) shift_left(e, tile, tile->g.shift[tile->g.groups - 1], acc);
  finish(e, tile, LLVMBuildLShr(e->builder, head, sfi_i64(e, 2), ""), head, acc);
  cursor[0] = sfi_at(e, e->i32, record, sfi_i64(e, words));
  memcpy(cursor + 1, s.v, sizeof s.v);
  sfi_loop_end(e, &loop, cursor);
}

/* Tiles of the same columns one after the other: a block of K stays in L1 for all of their rows. */
sf_status sfi_conv_sparse_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  LLVMBuilderRef b = e->builder;
  strip tile = {.vectors = k->tile.vectors};
  measure(k, plan->target, &tile.g);
  const int64_t row_blocks = sfi_ceil_div(k->contract.rows, k->tile.row_block);
  const int64_t pieces = sfi_ceil_div(tile.g.rows, tile.g.down);
  LLVMValueRef one = sfi_i64(e, 1), per_piece = sfi_i64(e, row_blocks), zero = sfi_i64(e, 0);
  if (row_blocks == 0) return SF_OK;
  sfi_loop piece, block, rows;
  LLVMValueRef blocks = sfi_packed_header(e, BLOCKS);
  LLVMValueRef first_piece = LLVMBuildUDiv(b, e->tile_begin, per_piece, "");
  LLVMValueRef end_piece = LLVMBuildUDiv(b, sfi_addi(e, e->tile_end, sfi_i64(e, row_blocks - 1)), per_piece, "");
  sfi_loop_begin(e, &piece, first_piece, end_piece, one, NULL, 0);
  LLVMValueRef at = sfi_muli(e, piece.index, per_piece), begin = LLVMBuildSub(b, e->tile_begin, at, "");
  begin = LLVMBuildSelect(b, LLVMBuildICmp(b, LLVMIntSGT, begin, zero, ""), begin, zero, "");
  LLVMValueRef end = sfi_mini(e, LLVMBuildSub(b, e->tile_end, at, ""), per_piece);
  tile.t = LLVMBuildUDiv(b, piece.index, sfi_i64(e, pieces), "");
  tile.first_row = sfi_muli(e, LLVMBuildURem(b, piece.index, sfi_i64(e, pieces), ""), sfi_i64(e, tile.g.down));
  LLVMValueRef index =
      sfi_addi(e, sfi_poly_value(e, k->operand[1].offset), sfi_muli(e, tile.t, sfi_poly_value(e, k->operand[1].stride[0])));
  tile.x = sfi_at(e, e->f32, e->base[1], sfi_addi(e, index, sfi_muli(e, tile.first_row, sfi_i64(e, k->contract.pitch))));
  sfi_loop_begin(e, &block, zero, blocks, one, NULL, 0);
  sfi_loop_begin(e, &rows, begin, end, one, NULL, 0);
  LLVMValueRef start = sfi_addi(e, sfi_muli(e, rows.index, blocks), block.index);
  strip here = tile;
  here.x = sfi_at(e, e->f32, tile.x, sfi_muli(e, block.index, sfi_packed_header(e, BLOCK_ELEMENTS)));
  block_rows(e, &here, sfi_at(e, e->i32, sfi_packed_section(e, STARTS), sfi_muli(e, start, sfi_i64(e, START_WORDS))));
  sfi_loop_end(e, &rows, NULL);
  sfi_loop_end(e, &block, NULL);
  sfi_loop_end(e, &piece, NULL);
  return SF_OK;
}
