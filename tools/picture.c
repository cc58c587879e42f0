/* The zeros of a weight as a small picture: one character a cell, darker where more is left. */
#include "session.h"

#include <langinfo.h>
#include <stdlib.h>

enum { WIDTH = 64, HEIGHT = 20 };

static const char *shade(float density, bool utf8) {
  static const char *const blocks[] = {" ", "░", "▒", "▓", "█"}, *const ascii[] = {" ", ".", "+", "x", "#"};
  int level = density <= 0 ? 0 : density < 0.125f ? 1 : density < 0.375f ? 2 : density < 0.75f ? 3 : 4;
  return utf8 ? blocks[level] : ascii[level];
}

bool picture_print(session *s, sf_value weight, const char *name) {
  sf_profile p;
  SF_INIT(&p);
  sf_status status = sf_graph_weight_profile(s->context, s->graph, weight, &p);
  if (status != SF_OK) return session_error(s, status);
  int32_t height = p.rows < HEIGHT ? (int32_t)p.rows : HEIGHT, width = p.columns < WIDTH ? (int32_t)p.columns : WIDTH;
  double total = (double)p.rows * (double)p.columns;
  printf("%s: %lld x %lld, %lld nonzeros, %.1f %% zeros, nonzeros a row %lld to %lld, median %lld\n", name, (long long)p.rows,
         (long long)p.columns, (long long)p.nonzeros, total > 0 ? 100 - 100 * (double)p.nonzeros / total : 0.0,
         (long long)p.row_min, (long long)p.row_max, (long long)p.row_median);
  printf("dead: %lld rows, %lld columns", (long long)p.dead_rows, (long long)p.dead_columns);
  if (p.nm_m) printf("; fits %d:%d", (int)p.nm_n, (int)p.nm_m);
  if (p.block_rows * p.block_columns > 1) printf("; blocks of %d x %d", (int)p.block_rows, (int)p.block_columns);
  printf("; pattern ");
  for (int i = 0; i < 16; i++) printf("%02x", p.digest[i]);
  printf("\n");
  if (height < 1 || width < 1) return true;
  float cells[WIDTH * HEIGHT];
  if ((status = sf_graph_weight_density(s->context, s->graph, weight, height, width, cells)) != SF_OK)
    return session_error(s, status);
  bool utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
  for (int32_t r = 0; r < height; r++) {
    fputs("  |", stdout);
    for (int32_t c = 0; c < width; c++) fputs(shade(cells[r * width + c], utf8), stdout);
    puts("|");
  }
  return true;
}
