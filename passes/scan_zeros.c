/* Facts about the zeros of one weight, all derived from a bitmap that one walk over the elements makes.
 * Requires: finite extents whose product fits memory. Reads the weight only. Ties and edges:
 *   - the median of an even number of rows is the lower one;
 *   - n:m with the lowest n / m wins, the smaller m among equals; m never exceeds the extent it groups, so that a short dense row does
 *     not pass for a sparse group; a last group that is cut short has at most n nonzeros too;
 *   - a block never exceeds the matrix, leaves at least one of its tiles empty (a dense matrix has no blocks), and the others filled
 *     to 95 % together, tiles at the edges counted as far as they reach; the wider one wins among equal areas. */
#include "passes.h"

enum { WORD = 64, LEVELS = 7, FULL_PERCENT = 95 }; /* levels: extents 1, 2, .. 64 */

/* Rows of 64-bit words, column c in bit c % 64 of word c / 64; bits past the last column are 0. */
typedef struct bitmap {
  int64_t rows, columns, pitch;
  uint64_t *words;
} bitmap;

static int popcount(uint64_t x) {
  return __builtin_popcountll(x);
}

/* ---- bitmaps ------------------------------------------------------------------------------------------------------ */

/* Looks at bits rather than values: one shift drops the sign, and NaN needs no thought. */
static uint64_t nonzero_word(const float *data, int64_t stride, int64_t count, int64_t *nonfinite) {
  uint64_t word = 0;
  for (int64_t i = 0; i < count; i++) {
    uint32_t bits;
    memcpy(&bits, data + i * stride, sizeof bits);
    word |= (uint64_t)(bits << 1 != 0) << i;
    *nonfinite += bits << 1 >= UINT32_C(0xff) << 24;
  }
  return word;
}

static void fill(const bitmap *map, const float *data, int64_t row_stride, int64_t column_stride, int64_t *nonfinite) {
  for (int64_t r = 0; r < map->rows; r++)
    for (int64_t w = 0; w < map->pitch; w++)
      map->words[r * map->pitch + w] = nonzero_word(data + r * row_stride + w * WORD * column_stride, column_stride,
                                                    sfi_min(WORD, map->columns - w * WORD), nonfinite);
}

/* Exchanges rows and columns of a square of 64 x 64 bits: quadrants, then quadrants of these, down to single bits. */
static void transpose_square(uint64_t square[WORD]) {
  uint64_t mask = UINT64_C(0x00000000ffffffff);
  for (int half = WORD / 2; half > 0; half /= 2, mask ^= mask << half)
    for (int i = 0; i < WORD; i = (i + half + 1) & ~half) {
      uint64_t swap = (square[i] >> half ^ square[i + half]) & mask;
      square[i] ^= swap << half;
      square[i + half] ^= swap;
    }
}

static void transpose(const bitmap *from, const bitmap *to) {
  uint64_t square[WORD];
  for (int64_t r = 0; r < from->rows; r += WORD)
    for (int64_t w = 0; w < from->pitch; w++) {
      int64_t rows = sfi_min(WORD, from->rows - r), columns = sfi_min(WORD, from->columns - w * WORD);
      memset(square, 0, sizeof square);
      for (int64_t i = 0; i < rows; i++) square[i] = from->words[(r + i) * from->pitch + w];
      transpose_square(square);
      for (int64_t i = 0; i < columns; i++) to->words[(w * WORD + i) * to->pitch + r / WORD] = square[i];
    }
}

/* ---- facts -------------------------------------------------------------------------------------------------------- */

static int64_t row_count(const bitmap *map, int64_t r) {
  int64_t count = 0;
  for (int64_t w = 0; w < map->pitch; w++) count += popcount(map->words[r * map->pitch + w]);
  return count;
}

/* histogram: columns + 1 zeroes. */
static void count_rows(const bitmap *map, int64_t *histogram, sfi_facts *out) {
  for (int64_t r = 0; r < map->rows; r++) {
    int64_t count = row_count(map, r);
    histogram[count]++;
    out->nonzeros += count;
  }
  out->dead_rows = histogram[0];
  int64_t seen = 0, middle = (map->rows - 1) / 2;
  for (int64_t count = 0; count <= map->columns && map->rows > 0; count++) {
    if (histogram[count] == 0) continue;
    if (seen == 0) out->row_min = count;
    if (seen <= middle) out->row_median = count;
    out->row_max = count;
    seen += histogram[count];
  }
}

static void count_columns(const bitmap *turned, sfi_facts *out) {
  for (int64_t c = 0; c < turned->rows; c++) {
    const int64_t count = row_count(turned, c);
    out->dead_columns += count == 0;
    if (count > 0 && (out->column_least == 0 || count < out->column_least)) out->column_least = count;
  }
}

enum { GROUPS = 5 }; /* m = 2, 4, 8, 16, 32 */

/* The larger of a and b in each lane of m bits; `top` has the top bit of every lane, which a and b leave clear. */
static uint64_t lane_max(uint64_t a, uint64_t b, uint64_t top, int m) {
  uint64_t a_wins = ((a | top) - b) & top;
  uint64_t lanes = a_wins | (a_wins - (a_wins >> (m - 1)));
  return (a & lanes) | (b & ~lanes);
}

/* Most nonzeros in any aligned group of m columns of one row. Counts all groups of a word at once, in lanes as wide as the group. */
static void most_in_groups(const bitmap *map, int most[GROUPS]) {
  static const uint64_t low[GROUPS] = {UINT64_C(0x5555555555555555), UINT64_C(0x3333333333333333), UINT64_C(0x0f0f0f0f0f0f0f0f),
                                       UINT64_C(0x00ff00ff00ff00ff), UINT64_C(0x0000ffff0000ffff)}; /* lower half of each lane */
  uint64_t largest[GROUPS] = {0};
  for (int64_t i = 0; i < map->rows * map->pitch; i++) {
    uint64_t counts = map->words[i];
    if (!counts) continue;
    for (int g = 0, m = 2; g < GROUPS; g++, m *= 2) {
      counts = (counts & low[g]) + (counts >> m / 2 & low[g]);
      /* A lane of 2 bits has none to spare, but or-ing 0, 1 and 2 keeps the largest readable. */
      uint64_t top = (low[g] & ~(low[g] << 1)) << (m - 1);
      largest[g] = g == 0 ? largest[g] | counts : lane_max(largest[g], counts, top, m);
    }
  }
  for (int g = 0, m = 2; g < GROUPS; g++, m *= 2) {
    most[g] = 0;
    for (; largest[g]; largest[g] >>= m) most[g] = (int)sfi_max(most[g], (int64_t)(largest[g] & (UINT64_MAX >> (WORD - m))));
  }
  most[0] = (int)sfi_min(most[0], 2);
}

static sfi_nm best_nm(const bitmap *map) {
  sfi_nm best = {1, 1};
  int most[GROUPS];
  most_in_groups(map, most);
  for (int g = 0, m = 2; g < GROUPS && m <= map->columns; g++, m *= 2)
    if (most[g] * best.m < best.n * m) best = (sfi_nm){most[g], m};
  return best;
}

/* Tiles of one block size that hold a nonzero, and how many elements of the matrix these cover. */
typedef struct cover {
  int64_t tiles, elements;
} cover;

/* Adds the tiles of 2^level rows and every width in one word of columns: `word` ors those rows, `rows` of them exist, `columns`
 * of the word do. */
static void add_tiles(uint64_t word, int64_t rows, int64_t columns, cover out[LEVELS]) {
  static const uint64_t first_of[LEVELS] = {UINT64_MAX,
                                            UINT64_C(0x5555555555555555),
                                            UINT64_C(0x1111111111111111),
                                            UINT64_C(0x0101010101010101),
                                            UINT64_C(0x0001000100010001),
                                            UINT64_C(0x0000000100000001),
                                            1};
  for (int level = 0; level < LEVELS && word; level++) {
    int64_t width = INT64_C(1) << level, last = (columns - 1) / width * width;
    if (level > 0) word = (word | word >> width / 2) & first_of[level];
    int64_t tiles = popcount(word);
    out[level].tiles += tiles;
    out[level].elements += rows * (tiles * width - (word >> last & 1 ? last + width - columns : 0));
  }
}

static void cover_by_blocks(const bitmap *map, cover out[LEVELS][LEVELS]) {
  uint64_t strip[WORD + 1];
  for (int64_t r = 0; r < map->rows; r += WORD)
    for (int64_t w = 0; w < map->pitch; w++) {
      int64_t rows = sfi_min(WORD, map->rows - r), columns = sfi_min(WORD, map->columns - w * WORD);
      memset(strip, 0, sizeof strip);
      for (int64_t i = 0; i < rows; i++) strip[i] = map->words[(r + i) * map->pitch + w];
      for (int level = 0; level < LEVELS; level++) {
        int64_t height = INT64_C(1) << level, count = sfi_ceil_div(rows, height);
        for (int64_t i = 0; i < count; i++) {
          if (level > 0) strip[i] = strip[2 * i] | strip[2 * i + 1];
          add_tiles(strip[i], sfi_min(height, rows - i * height), columns, out[level]);
        }
        strip[count] = 0; /* the other half of the next level's last pair */
      }
    }
}

static void best_block(const bitmap *map, sfi_facts *out) {
  cover covers[LEVELS][LEVELS] = {{{0}}};
  cover_by_blocks(map, covers);
  out->block_rows = out->block_columns = 1;
  for (int i = 0; i < LEVELS && INT64_C(1) << i <= map->rows; i++)
    for (int j = 0; j < LEVELS && INT64_C(1) << j <= map->columns; j++) {
      int64_t height = INT64_C(1) << i, width = INT64_C(1) << j;
      int64_t area = height * width, best = (int64_t)out->block_rows * out->block_columns;
      bool some_empty = covers[i][j].tiles < sfi_ceil_div(map->rows, height) * sfi_ceil_div(map->columns, width);
      bool others_full = (double)out->nonzeros >= FULL_PERCENT / 100.0 * (double)covers[i][j].elements;
      if (some_empty && others_full && (area > best || (area == best && width > out->block_columns))) {
        out->block_rows = (int32_t)height;
        out->block_columns = (int32_t)width;
      }
    }
}

/* ---- panels -------------------------------------------------------------------------------------------------------- */

static int64_t columns_of_panels(const bitmap *map, const uint32_t *order, int64_t height) {
  int64_t columns = 0;
  for (int64_t first = 0; first < map->rows; first += height)
    for (int64_t w = 0; w < map->pitch; w++) {
      uint64_t word = 0;
      for (int64_t i = first; i < first + height && i < map->rows; i++) word |= map->words[order[i] * map->pitch + w];
      columns += popcount(word);
    }
  return columns;
}

/* False: out of memory. */
static bool count_panels(const bitmap *map, const sf_allocator *allocator, sfi_facts *out) {
  size_t digest_bytes = (size_t)map->rows * sizeof(sfi_digest), order_bytes = (size_t)map->rows * sizeof(uint32_t);
  if (map->rows == 0) return true;
  sfi_digest *digest = sfi_alloc(allocator, digest_bytes);
  uint32_t *order = sfi_alloc(allocator, order_bytes);
  bool done = digest && order;
  for (int64_t r = 0; done && r < map->rows; r++)
    digest[r] = sfi_digest_of(map->words + r * map->pitch, (size_t)map->pitch * sizeof *map->words);
  done = done && sfi_order_rows(digest, map->rows, allocator, order);
  if (done) {
    out->panel_columns[SFI_PANEL4] = columns_of_panels(map, order, 4);
    out->panel_columns[SFI_PANEL8] = columns_of_panels(map, order, 8);
  }
  sfi_free(allocator, digest, digest_bytes);
  sfi_free(allocator, order, order_bytes);
  return done;
}

/* ---- scan --------------------------------------------------------------------------------------------------------- */

sf_status sfi_scan_zeros(const sfi_matrix *matrix, const sf_allocator *allocator, sfi_diag *diag, sfi_facts *out_facts) {
  enum { HEADER = 2 }; /* words before the bitmap: rows, columns; digested with it */
  int64_t rows = matrix->rows, columns = matrix->columns;
  bitmap map = {rows, columns, sfi_ceil_div(columns, WORD), NULL}, turned = {columns, rows, sfi_ceil_div(rows, WORD), NULL};
  size_t bytes = ((size_t)(rows * map.pitch) + HEADER) * sizeof(uint64_t);
  size_t turned_bytes = (size_t)(columns * turned.pitch) * sizeof(uint64_t),
         histogram_bytes = (size_t)(columns + 1) * sizeof(int64_t);
  uint64_t *words = sfi_alloc(allocator, bytes);
  turned.words = sfi_alloc(allocator, turned_bytes);
  int64_t *histogram = sfi_calloc(allocator, (size_t)columns + 1, sizeof *histogram);
  sf_status st = SF_OK;
  *out_facts = (sfi_facts){.rows = rows, .columns = columns};
  if (!words || !turned.words || !histogram) {
    st = sfi_fail_memory(diag);
    goto done;
  }
  words[0] = (uint64_t)rows;
  words[1] = (uint64_t)columns;
  map.words = words + HEADER;
  /* Walk memory in its own order, whichever way round the matrix lies. */
  if (matrix->row_stride < matrix->column_stride) {
    fill(&turned, matrix->data, matrix->column_stride, matrix->row_stride, &out_facts->nonfinite);
    transpose(&turned, &map);
  } else {
    fill(&map, matrix->data, matrix->row_stride, matrix->column_stride, &out_facts->nonfinite);
    transpose(&map, &turned);
  }
  count_rows(&map, histogram, out_facts);
  count_columns(&turned, out_facts);
  out_facts->along_columns = best_nm(&map);
  out_facts->along_rows = best_nm(&turned);
  best_block(&map, out_facts);
  if (!count_panels(&map, allocator, out_facts)) st = sfi_fail_memory(diag);
  out_facts->pattern = sfi_digest_of(words, bytes);
done:
  sfi_free(allocator, words, bytes);
  sfi_free(allocator, turned.words, turned_bytes);
  sfi_free(allocator, histogram, histogram_bytes);
  return st;
}

void sfi_scan_live(const sfi_matrix *matrix, uint8_t *out_live) {
  memset(out_live, 0, (size_t)(matrix->rows + matrix->columns));
  /* Walk memory in its own order here too. */
  const bool turned = matrix->row_stride < matrix->column_stride;
  const int64_t outer = turned ? matrix->columns : matrix->rows, inner = turned ? matrix->rows : matrix->columns;
  const int64_t outer_stride = turned ? matrix->column_stride : matrix->row_stride,
                inner_stride = turned ? matrix->row_stride : matrix->column_stride;
  uint8_t *of_outer = turned ? out_live + matrix->rows : out_live, *of_inner = turned ? out_live : out_live + matrix->rows;
  for (int64_t i = 0; i < outer; i++) {
    const float *line = matrix->data + i * outer_stride;
    uint8_t any = 0;
    for (int64_t j = 0; j < inner; j++) {
      uint8_t live = line[j * inner_stride] != 0;
      of_inner[j] |= live;
      any |= live;
    }
    of_outer[i] = any;
  }
}
