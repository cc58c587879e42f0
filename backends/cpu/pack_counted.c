/* Packs W for "spmm-counted"; format and reasons: emit_counted.c. Rows of a block are sorted by count, paired with the neighbour that shares
 * most columns, and pairs grouped by their number of steps. */
#include "counted.h"
#include "emitters.h"

#include <float.h>
#include <stdlib.h>

enum { NEIGHBOURS = 32 };                                      /* that a row may choose its partner from */
static const float shared_cycles = 4.2f, single_cycles = 2.6f; /* of a pair's shared step and of one row's single step at V = 4 */

typedef struct row {
  uint32_t index, count;
  bool rigid; /* no weight of it can be split in two nonzero ones: the row is empty or all of it is subnormal */
  bool paired;
} row;

typedef struct pair {
  uint32_t row[2]; /* equal in a pair of one */
  uint32_t overlap, shared, single;
  bool rigid;
} pair;

typedef struct packer {
  const sfi_kernel *k;
  int64_t blocks, depth; /* of K */
  sfi_counted_unit unit; /* of positions */
  int64_t mask_words;
  row *rows;        /* of a row block, by falling count */
  uint64_t *mask;   /* [row of the row block][mask_words]: its nonzeros in the K block */
  pair *pairs;      /* of the block, grouped */
  uint32_t *column; /* one row's entries, shared ones first */
  float *value;
  int64_t records, positions, values; /* written so far: groups, words, fours */
} packer;

static int by_count(const void *a, const void *b) {
  const row *x = a, *y = b;
  return x->count != y->count ? (x->count < y->count ? 1 : -1) : (x->index > y->index) - (x->index < y->index);
}
static int by_steps(const void *a, const void *b) {
  const pair *x = a, *y = b;
  if (x->shared != y->shared) return x->shared < y->shared ? 1 : -1;
  if (x->single != y->single) return x->single < y->single ? 1 : -1;
  return (x->row[0] > y->row[0]) - (x->row[0] < y->row[0]);
}

/* Counts and masks of rows [first, first + n) in columns [begin, end); returns how many rows are listed: all, or those with nonzeros. */
static int64_t list_rows(packer *p, int64_t first, int64_t n, int64_t begin, int64_t end, bool every) {
  int64_t listed = 0;
  memset(p->mask, 0, (size_t)(n * p->mask_words) * sizeof *p->mask);
  for (int64_t r = 0; r < n; r++) {
    row x = {.index = (uint32_t)r};
    float largest = 0;
    for (int64_t c = begin; c < end; c++) {
      float w = sfi_weight_at(&p->k->contract, first + r, c), size = w < 0 ? -w : w;
      if (w == 0) continue;
      x.count++;
      p->mask[r * p->mask_words + (c - begin) / 64] |= UINT64_C(1) << ((c - begin) % 64);
      if (!(size <= largest)) largest = size; /* a NaN splits as well */
    }
    x.rigid = largest < FLT_MIN;
    if (x.count || every) p->rows[listed++] = x;
  }
  qsort(p->rows, (size_t)listed, sizeof *p->rows, by_count);
  return listed;
}

static uint32_t overlap(const packer *p, uint32_t a, uint32_t b) {
  return (uint32_t)sfi_common_bits(p->mask + a * p->mask_words, p->mask + b * p->mask_words, p->mask_words);
}

static int64_t pair_rows(packer *p, int64_t listed) {
  int64_t n = 0;
  for (int64_t i = 0; i < listed; i++) {
    row *a = &p->rows[i];
    if (a->paired) continue;
    row *best = NULL;
    uint32_t most = 0;
    int tried = 0;
    for (int64_t j = i + 1; j < listed && tried < NEIGHBOURS; j++) {
      row *b = &p->rows[j];
      if (b->paired || (a->count != b->count && (a->rigid || b->rigid))) continue;
      tried++;
      uint32_t common = overlap(p, a->index, b->index), extra = a->count - b->count; /* single steps that b has to split */
      uint32_t worth = common > extra ? common - extra : 0;
      if (best && worth <= most) continue;
      best = b;
      most = worth;
    }
    if (best) best->paired = true;
    row *b = best ? best : a;
    p->pairs[n++] = (pair){.row = {a->index, b->index},
                           .overlap = best ? overlap(p, a->index, b->index) : a->count,
                           .single = a->count > b->count ? a->count : b->count,
                           .rigid = a->rigid || b->rigid};
  }
  return n;
}

/* One number of shared steps, a multiple of four, for all pairs that have as many common columns: the one with the least time. */
static void share(packer *p, int64_t n) {
  uint32_t most = 0, best = 0;
  for (int64_t i = 0; i < n; i++) most = p->pairs[i].overlap > most ? p->pairs[i].overlap : most;
  float saved = 0;
  for (uint32_t s = 4; s <= most; s += 4) {
    float saving = 0;
    for (int64_t i = 0; i < n; i++)
      if (p->pairs[i].overlap >= s) saving += (float)s * (2 * single_cycles - shared_cycles);
    if (saving > saved) saved = saving, best = s;
  }
  for (int64_t i = 0; i < n; i++) {
    pair *x = &p->pairs[i];
    x->shared = x->overlap >= best ? best : 0;
    x->single -= x->shared;
  }
  qsort(p->pairs, (size_t)n, sizeof *p->pairs, by_steps);
}

/* Splits the largest weight of the row's `n` entries. */
static void split(packer *p, int64_t n) {
  int64_t at = 0;
  for (int64_t i = 1; i < n; i++) {
    float a = p->value[i], b = p->value[at];
    if (!((a < 0 ? -a : a) <= (b < 0 ? -b : b))) at = i;
  }
  float half = p->value[at] * 0.5f;
  p->column[n] = p->column[at];
  p->value[n] = p->value[at] - p->value[at] == 0 ? p->value[at] - half : p->value[at]; /* infinities and NaN stand twice */
  if (p->value[at] - p->value[at] == 0) p->value[at] = half;
}

/* The entries of row x->row[side]: shared ones, then singles, split up to `single`. */
static void list_entries(packer *p, const pair *x, int side, int64_t first, int64_t begin, uint32_t single) {
  const uint64_t *own = p->mask + x->row[side] * p->mask_words, *other = p->mask + x->row[!side] * p->mask_words;
  int64_t shared = 0, n = x->shared;
  for (int64_t i = 0; i < p->mask_words; i++)
    for (uint64_t bits = own[i]; bits; bits &= bits - 1) {
      uint64_t bit = bits & -bits;
      int64_t c = i * 64 + __builtin_ctzll(bits), at = (other[i] & bit) && shared < x->shared ? shared++ : n++;
      p->column[at] = (uint32_t)c;
      p->value[at] = sfi_weight_at(&p->k->contract, first + x->row[side], begin + c);
    }
  for (int64_t all = (int64_t)x->shared + single; n < all; n++) split(p, n);
}

/* Entry i of the row in fours: step `slot` of the four whose positions begin at `words` and whose values of this row at `values`. */
static void put(const packer *p, int64_t i, int64_t begin, int slot, uint64_t *words, float *values) {
  const sfi_kernel *k = p->k;
  int64_t c = begin + p->column[i], position = sfi_position(k, c) - (k->contract.k_offset ? 0 : sfi_position(k, begin));
  if (p->unit.words == 1)
    ((uint16_t *)(void *)words)[slot] = (uint16_t)(position * 4 >> p->unit.shift);
  else
    ((uint32_t *)(void *)words)[slot] = (uint32_t)position;
  values[slot] = p->value[i];
}

/* The group of pairs [at, at + n): n is less than R / 2 in the last group of a kind, which repeats its last pair. */
static void pack_group(packer *p, const pair *at, int64_t n, int64_t first, int64_t begin, uint8_t *out, const int64_t *offset) {
  int32_t R = p->k->tile.rows, P = R / 2;
  uint32_t shared = at->shared / 4, single = at->single, fours = (single + 3) / 4;
  if (out) {
    uint32_t *record = (uint32_t *)(void *)(out + offset[SFI_COUNTED_RECORDS]) + p->records * (R + 2);
    uint64_t *words = (uint64_t *)(void *)(out + offset[SFI_COUNTED_POSITIONS]) + p->positions;
    float *values = (float *)(void *)(out + offset[SFI_COUNTED_VALUES]) + p->values * 4;
    uint64_t *single_words = words + (int64_t)shared * P * p->unit.words;
    float *single_values = values + (int64_t)shared * R * 4;
    for (int32_t q = 0; q < R; q++) {
      const pair *x = &at[sfi_min(q / 2, n - 1)];
      record[q] = (uint32_t)first + x->row[q % 2];
      list_entries(p, x, q % 2, first, begin, single);
      for (uint32_t i = 0; i < x->shared; i++)
        put(p, i, begin, i % 4, words + (i / 4 * P + q / 2) * p->unit.words, values + (i / 4 * R + q) * 4);
      for (uint32_t i = 0; i < single; i++) {
        uint32_t step = i + fours * 4 - single;
        put(p, x->shared + i, begin, step % 4, single_words + (step / 4 * R + q) * p->unit.words,
            single_values + (step / 4 * R + q) * 4);
      }
    }
    record[R] = shared;
    record[R + 1] = single;
  }
  p->records++;
  p->positions += (int64_t)(shared * P + fours * R) * p->unit.words;
  p->values += (int64_t)(shared + fours) * R;
}

/* One pass over all blocks; out NULL only measures. */
static void pack_blocks(packer *p, uint8_t *out, const int64_t *offset) {
  const sfi_kernel *k = p->k;
  int64_t rows = k->contract.rows, all = k->contract.depth.c[0], row_blocks = sfi_ceil_div(rows, k->tile.row_block);
  p->records = p->positions = p->values = 0;
  for (int64_t rb = 0; rb < row_blocks; rb++)
    for (int64_t b = 0; b < p->blocks; b++) {
      int64_t first = rb * k->tile.row_block, begin = sfi_min(b * p->depth, all), end = sfi_min(begin + p->depth, all);
      int64_t listed = list_rows(p, first, sfi_min(k->tile.row_block, rows - first), begin, end, b == 0 || b == p->blocks - 1);
      int64_t n = pair_rows(p, listed), records = p->records, positions = p->positions, values = p->values;
      share(p, n);
      for (int64_t i = 0, size; i < n; i += size) {
        const pair *at = &p->pairs[i];
        for (size = 1; size < k->tile.rows / 2 && i + size < n; size++)
          if (at[size].shared != at->shared || (at[size].rigid && at[size].single != at->single)) break;
        pack_group(p, at, size, first, begin, out, offset);
      }
      if (!out) continue;
      uint32_t start[SFI_COUNTED_START_WORDS] = {(uint32_t)records, (uint32_t)(p->records - records), (uint32_t)positions,
                                                 (uint32_t)values};
      memcpy(out + offset[SFI_COUNTED_STARTS] + (rb * p->blocks + b) * (int64_t)sizeof start, start, sizeof start);
    }
}

sf_status sfi_counted_pack(const sfi_kernel *k, const sfi_plan *plan, const sf_allocator *allocator, sfi_diag *diag,
                           sfi_blob *out) {
  int64_t row_blocks = sfi_ceil_div(k->contract.rows, k->tile.row_block), n = k->tile.row_block;
  packer p = {.k = k,
              .blocks = sfi_counted_blocks(k, plan->target),
              .depth = sfi_counted_depth(k, plan->target),
              .unit = sfi_counted_positions(k)};
  p.mask_words = sfi_ceil_div(p.depth, 64);
  /* A row has at most `depth` entries, and as many more as another of its group has nonzeros. */
  size_t rows = (size_t)n * sizeof *p.rows, masks = (size_t)(n * p.mask_words) * sizeof *p.mask;
  size_t pairs = (size_t)n * sizeof *p.pairs, entries = (size_t)p.depth * 2 * 4, bytes = masks + pairs + rows + 2 * entries;
  uint8_t *memory = sfi_alloc(allocator, bytes);
  if (!memory) return sfi_fail_memory(diag);
  p.mask = (uint64_t *)(void *)memory;
  p.pairs = (pair *)(void *)(memory + masks);
  p.rows = (row *)(void *)(memory + masks + pairs);
  p.column = (uint32_t *)(void *)(memory + masks + pairs + rows);
  p.value = (float *)(void *)(memory + masks + pairs + rows + entries);
  pack_blocks(&p, NULL, NULL);
  int64_t offset[SFI_COUNTED_SECTIONS + 1] = {64};
  offset[SFI_COUNTED_RECORDS] = offset[SFI_COUNTED_STARTS] + sfi_round_up(row_blocks * p.blocks * SFI_COUNTED_START_WORDS * 4, 64);
  offset[SFI_COUNTED_POSITIONS] = offset[SFI_COUNTED_RECORDS] + sfi_round_up(p.records * (k->tile.rows + 2) * 4, 64);
  offset[SFI_COUNTED_VALUES] = offset[SFI_COUNTED_POSITIONS] + sfi_round_up((p.positions + SFI_COUNTED_AHEAD) * 8, 64);
  offset[SFI_COUNTED_SECTIONS] = offset[SFI_COUNTED_VALUES] + sfi_round_up(p.values * 16, 64);
  sf_status st = SF_OK;
  if (!sfi_blob_init(out, allocator, (size_t)offset[SFI_COUNTED_SECTIONS])) {
    st = sfi_fail_memory(diag);
  } else {
    int64_t *header = (int64_t *)(void *)out->data;
    memcpy(header, offset, SFI_COUNTED_SECTIONS * sizeof *offset);
    header[SFI_COUNTED_BLOCKS] = p.blocks;
    header[SFI_COUNTED_DEPTH] = p.depth;
    pack_blocks(&p, out->data, offset);
  }
  sfi_free(allocator, memory, bytes);
  return st;
}
