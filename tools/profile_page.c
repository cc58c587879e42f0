/* A profile as one HTML page: profile_page.html with the data in it, the times of the typical run for the timeline and each weight's
 * zeros as a grid of densities. */
#include "profile.h"

#include <errno.h>

enum { GRID = 96 };

static const char page[] = {
#include "profile_page.inc"
    , 0};
static const char marker[] = "@DATA@";

static void write_timeline(FILE *file, const profile *p) {
  const sf_run_profile *run = &p->run[p->typical];
  for (int32_t i = 0; i < run->count; i++) {
    const sf_span *span = &run->spans[i];
    fprintf(file, "%s[%d,%d,%.3f,%.3f]", i ? "," : "", (int)span->kernel, (int)profile_thread(p, span->thread),
            (double)(span->begin_ns - run->begin_ns) * 1e-3, (double)(span->end_ns - run->begin_ns) * 1e-3);
  }
}

/* A weight's figures and its grid, each cell two hexadecimal digits. */
static bool write_weight(session *s, FILE *file, sf_value weight, const char *name) {
  sf_profile zeros;
  float cells[GRID * GRID];
  SF_INIT(&zeros);
  sf_status status = sf_graph_weight_profile(s->context, s->graph, weight, &zeros);
  if (status != SF_OK) return session_error(s, status);
  const int32_t height = zeros.rows < GRID ? (int32_t)zeros.rows : GRID,
                width = zeros.columns < GRID ? (int32_t)zeros.columns : GRID;
  fputs("{\"name\":", file);
  tool_json_string(file, name);
  fprintf(file,
          ",\"rows\":%lld,\"columns\":%lld,\"nonzeros\":%lld,\"dead_rows\":%lld,\"dead_columns\":%lld,\"height\":%d,\"width\":%d",
          (long long)zeros.rows, (long long)zeros.columns, (long long)zeros.nonzeros, (long long)zeros.dead_rows,
          (long long)zeros.dead_columns, (int)height, (int)width);
  if (height > 0 && width > 0) {
    status = sf_graph_weight_density(s->context, s->graph, weight, height, width, cells);
    if (status != SF_OK) return session_error(s, status);
  }
  fputs(",\"cells\":\"", file);
  for (int32_t i = 0; i < height * width; i++) fprintf(file, "%02x", (unsigned)(cells[i] * 255 + 0.5f));
  fputs("\"}", file);
  return true;
}

static bool write_weights(session *s, FILE *file) {
  bool first = true;
  for (sf_value v = 0; v < sf_graph_value_count(s->graph); v++) {
    sf_tensor_info info;
    if (sf_graph_value_op(s->graph, v) != SF_OP_WEIGHT || sf_graph_value_info(s->graph, v, &info) != SF_OK) continue;
    if (info.rank < 2 || info.dtype != SF_F32) continue; /* biases and the like are no layer */
    fputs(first ? "\n" : ",\n", file);
    first = false;
    if (!write_weight(s, file, v, info.name)) return false;
  }
  return true;
}

bool profile_page_write(session *s, const char *path, const profile *p) {
  FILE *file = fopen(path, "w");
  if (!file) return session_fail(s, "%s: %s", path, strerror(errno));
  const char *data = strstr(page, marker);
  fwrite(page, 1, (size_t)(data - page), file);
  fputs("{\"profile\":", file);
  profile_print(file, p, "json");
  fputs(",\"timeline\":[", file);
  write_timeline(file, p);
  fputs("],\n\"weights\":[", file);
  bool ok = write_weights(s, file);
  fputs("]}", file);
  fputs(data + sizeof marker - 1, file);
  const bool bad = ferror(file);
  return (fclose(file) == 0 && !bad) || !ok ? ok : session_fail(s, "%s: %s", path, strerror(errno));
}
