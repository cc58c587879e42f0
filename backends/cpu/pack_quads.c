/* Packing for "spmm-quads": which four rows go together, and which of their nonzeros share a load of X. See spmm_quads.h.
 *
 * Quads are formed greedily of rows with many columns in common and about as many nonzeros. A round takes one column from each of the six
 * pairs of rows, so a column that three or four rows have goes to the pair with fewest. What is left over when the poorest pair has no
 * more is single. */
#include "spmm_quads.h"

enum { L1_SHARE = 40960, ALIGNED = 32, CANDIDATES = 128, PAIRS = 6 };

const int sfi_quad_rows[SFI_ROUND][SFI_QUAD] = {{0, 1, 2, 3}, {0, 2, 1, 3}, {0, 3, 1, 2}, {0, 1, 2, 3}};

/* Blocks are multiples of every m of N:M, so that rows have the same number of nonzeros in each. */
int64_t sfi_quads_depth(const sfi_kernel *k, const sfi_target *target) {
  int64_t depth = k->contract.depth.c[0], per_k = (int64_t)k->tile.vectors * target->lanes * 4;
  int64_t blocks = sfi_max(1, sfi_ceil_div(depth * per_k, L1_SHARE));
  return sfi_round_up(sfi_max(1, sfi_ceil_div(depth, blocks)), ALIGNED);
}
int64_t sfi_quads_blocks(const sfi_kernel *k, const sfi_target *target) {
  return sfi_max(1, sfi_ceil_div(k->contract.depth.c[0], sfi_quads_depth(k, target)));
}
bool sfi_quads_narrow(const sfi_kernel *k, const sfi_target *target) {
  sfi_poly stride = k->operand[1].stride[1];
  return !k->contract.k_offset && sfi_is_const(stride) && stride.c[0] >= 0 &&
         (sfi_quads_depth(k, target) - 1) * stride.c[0] * 4 <= UINT16_MAX;
}

/* ---- forming quads ------------------------------------------------------------------------------------------------- */

typedef struct packer {
  const sfi_kernel *k;
  int64_t depth, blocks, row_block; /* columns of a K block, K blocks, rows of a row block */
  int64_t begin, end;               /* columns of the block at hand */
  int64_t words;                    /* of a row's bitmap */
  bool narrow;
  uint64_t *bitmap; /* [row_block][words] */
  uint32_t *count;  /* [row_block] nonzeros */
  uint32_t *order;  /* [row_block] rows by falling count */
  uint16_t *lists;  /* see split */
  uint8_t *positions;
  float *values; /* next to be written */
} packer;

static void scan_block(packer *p, int64_t first, int64_t rows) {
  memset(p->bitmap, 0, (size_t)(p->row_block * p->words) * sizeof *p->bitmap);
  uint32_t most = 0;
  for (int64_t r = 0; r < rows; r++) {
    p->count[r] = (uint32_t)sfi_row_bits(&p->k->contract, first + r, p->begin, p->end, p->bitmap + r * p->words);
    if (p->count[r] > most) most = p->count[r];
  }
  int64_t n = 0;
  for (int64_t value = most; value >= 0; value--) /* counts are small: at most a block's depth */
    for (int64_t r = 0; r < rows; r++)
      if (p->count[r] == value) p->order[n++] = (uint32_t)r;
}

static int64_t common(const packer *p, uint32_t a, uint32_t b) {
  return sfi_common_bits(p->bitmap + a * p->words, p->bitmap + b * p->words, p->words);
}

/* Quads of one block of rows and columns, rows counted from the row block's first; those past `rows` are UINT32_MAX. */
static void form_quads(packer *p, int64_t rows, sfi_quad *quads) {
  for (int64_t left = rows; left > 0; quads++) {
    memset(quads, 0, sizeof *quads);
    for (int member = 0; member < SFI_QUAD; member++) {
      quads->row[member] = UINT32_MAX;
      if (member >= left) continue;
      int64_t best = 0, best_score = INT64_MIN;
      uint32_t lead = member ? quads->row[0] : p->order[0];
      for (int64_t i = 0; i < (member ? sfi_min(left - member, CANDIDATES) : 1); i++) {
        int64_t score = -2 * ((int64_t)p->count[lead] - p->count[p->order[i]]);
        for (int other = 0; other < member; other++) score += common(p, quads->row[other], p->order[i]);
        if (score > best_score) best = i, best_score = score;
      }
      quads->row[member] = p->order[best];
      memmove(p->order + best, p->order + best + 1, (size_t)(left - member - 1 - best) * sizeof *p->order);
    }
    left -= sfi_min(left, SFI_QUAD);
  }
}

/* ---- spending nonzeros --------------------------------------------------------------------------------------------- */

/* Columns of one quad by who takes them, counted from the block's first; pair 2 i + half is half of pairing i. */
typedef struct columns_of {
  uint16_t *pair[PAIRS], *single[SFI_QUAD];
  int64_t pairs[PAIRS], singles[SFI_QUAD], rounds;
} columns_of;

static bool has(const packer *p, uint32_t row, int64_t column) {
  return row != UINT32_MAX && (p->bitmap[row * p->words + column / 64] >> column % 64 & 1);
}

static int64_t row_count(const packer *p, uint32_t row) {
  return row != UINT32_MAX ? p->count[row] : 0;
}

/* Bits of the rows in pair q. */
static unsigned pair_mask(int q) {
  const int *rows = sfi_quad_rows[q / 2];
  return 1u << rows[q % 2 * 2] | 1u << rows[q % 2 * 2 + 1];
}

static void take_single(columns_of *c, unsigned mask, int64_t column) {
  for (int r = 0; r < SFI_QUAD; r++)
    if (mask >> r & 1) c->single[r][c->singles[r]++] = (uint16_t)column;
}

static void take_pair(columns_of *c, int q, unsigned mask, int64_t column) {
  c->pair[q][c->pairs[q]++] = (uint16_t)column;
  take_single(c, mask & ~pair_mask(q), column);
}

/* The pair in `mask` with fewest columns. */
static int least_pair(const columns_of *c, unsigned mask) {
  int best = -1;
  for (int q = 0; q < PAIRS; q++)
    if ((pair_mask(q) & mask) == pair_mask(q) && (best < 0 || c->pairs[q] < c->pairs[best])) best = q;
  return best;
}

/* Shares out the columns of a quad: those of two rows, then those of three to the pair that has least, then those of four to both halves of
 * that pair's pairing. What is more than all pairs have becomes single. */
static void split(const packer *p, const sfi_quad *quad, columns_of *c) {
  uint16_t *at = p->lists;
  for (int q = 0; q < PAIRS; q++, at += p->depth) c->pair[q] = at, c->pairs[q] = 0;
  for (int r = 0; r < SFI_QUAD; r++, at += p->depth) c->single[r] = at, c->singles[r] = 0;
  for (int rows = 1; rows <= SFI_QUAD; rows++)
    for (int64_t column = 0; column < p->end - p->begin; column++) {
      unsigned mask = 0;
      for (int r = 0; r < SFI_QUAD; r++) mask |= (unsigned)has(p, quad->row[r], column) << r;
      if (__builtin_popcount(mask) != rows) continue;
      int q = rows > 1 ? least_pair(c, mask) : -1;
      if (rows == 1) take_single(c, mask, column);
      if (rows > 1) take_pair(c, q, rows == SFI_QUAD ? pair_mask(q) : mask, column);
      if (rows == SFI_QUAD) take_pair(c, q ^ 1, pair_mask(q ^ 1), column);
    }
  c->rounds = c->pairs[least_pair(c, (1u << SFI_QUAD) - 1)];
  for (int r = 0; r < SFI_QUAD; r++) c->rounds = sfi_min(c->rounds, row_count(p, quad->row[r]) / SFI_ROUND);
  for (int q = 0; q < PAIRS; q++)
    while (c->pairs[q] > c->rounds) take_single(c, pair_mask(q), c->pair[q][--c->pairs[q]]);
}

static void count_steps(const columns_of *c, sfi_quad *quad) {
  int64_t least = INT64_MAX, most = 0;
  for (int r = 0; r < SFI_QUAD; r++) least = sfi_min(least, c->singles[r]), most = sfi_max(most, c->singles[r]);
  quad->rounds = (uint32_t)c->rounds;
  quad->singles = (uint32_t)((least - c->rounds) / SFI_QUAD_UNROLL * SFI_QUAD_UNROLL);
  quad->ragged = (uint32_t)(most - c->rounds) - quad->singles;
}

/* Equal counts next to each other, so that the ends of loops are foreseen. */
static void sort_quads(sfi_quad *quads, int64_t n) {
  for (int64_t i = 1; i < n; i++) {
    sfi_quad quad = quads[i];
    int64_t at = i;
    for (; at > 0 && quads[at - 1].rounds < quad.rounds; at--) quads[at] = quads[at - 1];
    quads[at] = quad;
  }
}

/* ---- writing ------------------------------------------------------------------------------------------------------- */

static void put(packer *p, int64_t column) {
  int64_t at = sfi_position(p->k, p->begin + column) - (p->k->contract.k_offset ? 0 : sfi_position(p->k, p->begin));
  uint16_t small = (uint16_t)(at * 4);
  uint32_t large = (uint32_t)at;
  memcpy(p->positions, p->narrow ? (const void *)&small : &large, p->narrow ? 2 : 4);
  p->positions += p->narrow ? 2 : 4;
}

static void put_value(packer *p, int64_t row, int64_t column) {
  *p->values++ = sfi_weight_at(&p->k->contract, row, p->begin + column);
}

static void write_single(packer *p, int64_t first, const sfi_quad *quad, const columns_of *c, int64_t s) {
  for (int r = 0; r < SFI_QUAD; r++) {
    put(p, s < c->singles[r] ? c->single[r][s] : 0);
    if (s < c->singles[r])
      put_value(p, first + quad->row[r], c->single[r][s]);
    else
      *p->values++ = 0;
  }
}

static void write_quad(packer *p, int64_t first, const sfi_quad *quad, const columns_of *c) {
  for (int64_t s = 0; s < quad->rounds; s++) {
    for (int i = 0; i < SFI_PAIRINGS; i++)
      for (int j = 0; j < SFI_QUAD; j++) {
        int64_t column = c->pair[2 * i + j / 2][s];
        if (j % 2 == 0) put(p, column);
        put_value(p, first + quad->row[sfi_quad_rows[i][j]], column);
      }
    write_single(p, first, quad, c, s);
  }
  for (int64_t s = 0; s < quad->singles + quad->ragged; s++) write_single(p, first, quad, c, quad->rounds + s);
}

typedef struct extent {
  int64_t positions, values; /* bytes */
} extent;

static void add_extent(const packer *p, const sfi_quad *quad, extent *out) {
  int64_t rounds = quad->rounds, singles = rounds + quad->singles + quad->ragged;
  out->positions += (rounds * SFI_PAIRINGS * 2 + singles * SFI_QUAD) * (p->narrow ? 2 : 4);
  out->values += (rounds * SFI_PAIRINGS + singles) * SFI_QUAD * (int64_t)sizeof(float);
}

/* Goes over all blocks: forms the quads at `quads` where out is NULL, else writes them. Returns what they take. */
static extent pack_blocks(packer *p, sfi_quad *quads, uint8_t *out, const int64_t *offset) {
  int64_t rows = p->k->contract.rows, all = p->k->contract.depth.c[0], row_blocks = sfi_ceil_div(rows, p->row_block);
  int64_t quads_a_block = sfi_ceil_div(rows, SFI_QUAD);
  extent at = {0};
  for (int64_t rb = 0; rb < row_blocks; rb++)
    for (int64_t b = 0; b < p->blocks; b++) {
      int64_t first = rb * p->row_block, n = sfi_min(p->row_block, rows - first), count = sfi_ceil_div(n, SFI_QUAD);
      sfi_quad *block = quads + b * quads_a_block + first / SFI_QUAD;
      columns_of c;
      p->begin = sfi_min(b * p->depth, all), p->end = sfi_min(p->begin + p->depth, all);
      scan_block(p, first, n);
      if (!out) {
        form_quads(p, n, block);
        for (int64_t q = 0; q < count; q++) {
          split(p, &block[q], &c);
          count_steps(&c, &block[q]);
          add_extent(p, &block[q], &at);
        }
        sort_quads(block, count);
        continue;
      }
      uint32_t start[2] = {(uint32_t)(at.positions / 4), (uint32_t)(at.values / 16)};
      memcpy(out + offset[SFI_QUADS_STARTS] + (rb * p->blocks + b) * (int64_t)sizeof start, start, sizeof start);
      p->positions = out + offset[SFI_QUADS_POSITIONS] + at.positions;
      p->values = (float *)(void *)(out + offset[SFI_QUADS_VALUES] + at.values);
      for (int64_t q = 0; q < count; q++) {
        split(p, &block[q], &c);
        write_quad(p, first, &block[q], &c);
        add_extent(p, &block[q], &at);
        sfi_quad record = block[q];
        for (int r = 0; r < SFI_QUAD; r++) record.row[r] = (uint32_t)(record.row[r] == UINT32_MAX ? rows : first + record.row[r]);
        memcpy(out + offset[SFI_QUADS_RECORDS] + (&block[q] - quads) * (int64_t)sizeof record, &record, sizeof record);
      }
    }
  return at;
}

sf_status sfi_quads_pack(const sfi_kernel *k, const sfi_plan *plan, const sf_allocator *allocator, sfi_diag *diag, sfi_blob *out) {
  packer p = {.k = k,
              .depth = sfi_quads_depth(k, plan->target),
              .blocks = sfi_quads_blocks(k, plan->target),
              .row_block = k->tile.row_block,
              .narrow = sfi_quads_narrow(k, plan->target)};
  p.words = sfi_ceil_div(p.depth, 64);
  int64_t row_blocks = sfi_ceil_div(k->contract.rows, p.row_block);
  size_t quads_bytes = (size_t)(p.blocks * sfi_ceil_div(k->contract.rows, SFI_QUAD)) * sizeof(sfi_quad);
  size_t bitmap_bytes = (size_t)(p.row_block * p.words) * 8, rows_bytes = (size_t)p.row_block * 2 * 4;
  size_t lists_bytes = (size_t)p.depth * (PAIRS + SFI_QUAD) * 2;
  sf_status st = SF_OK;
  sfi_quad *quads = sfi_alloc(allocator, quads_bytes);
  p.bitmap = sfi_alloc(allocator, bitmap_bytes);
  p.count = sfi_alloc(allocator, rows_bytes);
  p.lists = sfi_alloc(allocator, lists_bytes);
  if (!quads || !p.bitmap || !p.count || !p.lists) {
    st = sfi_fail_memory(diag);
    goto done;
  }
  p.order = p.count + p.row_block;
  extent all = pack_blocks(&p, quads, NULL, NULL);
  int64_t offset[SFI_QUADS_SECTIONS + 1] = {64};
  offset[SFI_QUADS_RECORDS] = offset[SFI_QUADS_STARTS] + sfi_round_up(row_blocks * p.blocks * 8, 64);
  offset[SFI_QUADS_POSITIONS] = offset[SFI_QUADS_RECORDS] + sfi_round_up((int64_t)quads_bytes, 64);
  offset[SFI_QUADS_VALUES] = offset[SFI_QUADS_POSITIONS] + sfi_round_up(all.positions, 64);
  offset[SFI_QUADS_SECTIONS] = offset[SFI_QUADS_VALUES] + sfi_round_up(all.values, 64);
  if (!sfi_blob_init(out, allocator, (size_t)offset[SFI_QUADS_SECTIONS])) {
    st = sfi_fail_memory(diag);
    goto done;
  }
  memcpy(out->data, offset, SFI_QUADS_SECTIONS * sizeof *offset);
  pack_blocks(&p, quads, out->data, offset);
done:
  sfi_free(allocator, quads, quads_bytes);
  sfi_free(allocator, p.bitmap, bitmap_bytes);
  sfi_free(allocator, p.count, rows_bytes);
  sfi_free(allocator, p.lists, lists_bytes);
  return st;
}
