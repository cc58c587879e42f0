/* A measured problem as a line of JSON, or as a row of a table. Engines whose results are wrong have times, but those count for
 * nothing: neither as a baseline nor as ours. */
#include "bench.h"

#include <math.h>

/* ---- figures ------------------------------------------------------------------------------------------------------ */

static bool counts(const bench_engine *e) {
  return e->peer && e->max_error <= BENCH_MAX_ERROR;
}

/* Fastest peer that is right; own: our emitters too count among the dense ones. */
static const bench_engine *best(const bench_row *row, bool dense, bool own) {
  const bench_engine *found = NULL;
  for (int32_t i = 1; i < row->n_engines; i++) {
    const bench_engine *e = &row->engines[i];
    if (!counts(e) || bench_is_emitter(e->name) != own) continue;
    const bool is_dense = own ? strstr(e->name, "-dense") != NULL : e->peer->dense;
    if (is_dense == dense && (!found || e->median_us < found->median_us)) found = e;
  }
  return found;
}

typedef struct figures {
  const bench_engine *ours, *dense, *sparse, *own_dense;
  double zeros, over_dense, over_sparse, over_own_dense, ideal; /* NAN: not known */
  bench_floor floor;
} figures;

static double ratio(const figures *f, const bench_engine *other) {
  return other && counts(f->ours) ? other->median_us / f->ours->median_us : NAN;
}

static figures figures_of(const bench_row *row) {
  figures f = {
      .ours = row->engines, .dense = best(row, true, false), .sparse = best(row, false, false), .own_dense = best(row, true, true)};
  const bench_problem *p = row->problem;
  f.zeros = 1 - (double)p->nnz / ((double)p->rows * (double)p->cols);
  f.over_dense = ratio(&f, f.dense);
  f.over_sparse = ratio(&f, f.sparse);
  f.over_own_dense = ratio(&f, f.own_dense);
  f.ideal = f.over_dense * (1 - f.zeros);
  f.floor = bench_floor_of(row->machine, p);
  return f;
}

/* ---- JSON --------------------------------------------------------------------------------------------------------- */

static void key(FILE *out, const char *name) {
  fprintf(out, ", \"%s\": ", name);
}

static void string(FILE *out, const char *name, const char *value) {
  key(out, name);
  if (value)
    tool_json_string(out, value);
  else
    fputs("null", out);
}

static void number(FILE *out, const char *name, double value) {
  key(out, name);
  if (isfinite(value))
    fprintf(out, "%.5g", value);
  else
    fputs("null", out);
}

static void integer(FILE *out, const char *name, int64_t value) {
  key(out, name);
  fprintf(out, "%lld", (long long)value);
}

typedef enum peer_field { TIME, SPREAD, ERROR, LAYOUT, REFUSAL } peer_field;

/* {"name": field} of every peer that has it. */
static void peers(FILE *out, const bench_row *row, const char *name, peer_field field) {
  const char *comma = "";
  key(out, name);
  fputc('{', out);
  for (int32_t i = 1; i < row->n_engines; i++) {
    const bench_engine *e = &row->engines[i];
    if ((field == REFUSAL) == (e->peer != NULL)) continue;
    fputs(comma, out);
    comma = ", ";
    tool_json_string(out, e->name);
    fputs(": ", out);
    const double value = field == TIME ? e->median_us : field == SPREAD ? e->spread : e->max_error;
    if (field == LAYOUT || field == REFUSAL)
      tool_json_string(out, field == LAYOUT ? e->layout : e->why);
    else if (isfinite(value))
      fprintf(out, "%.5g", value);
    else
      fputs("null", out); /* left unwritten */
  }
  fputc('}', out);
}

static const char *layout_name(bench_layout layout) {
  static const char *const names[] = {"row", "panel", "tokens"};
  return names[layout];
}

static void report_json(FILE *out, const bench_row *row, const figures *f) {
  const bench_problem *p = row->problem;
  const bench_conv *c = &p->conv;
  const bool ran = f->ours->peer;
  const bench_ours ours = ran ? bench_ours_of(f->ours) : (bench_ours){0};
  fprintf(out, "{\"kind\": \"%s\"", row->kind);
  string(out, "matrix", row->matrix->name);
  string(out, "pattern", row->matrix->pattern);
  integer(out, "rows", p->rows);
  integer(out, "cols", p->cols);
  integer(out, "nnz", p->nnz);
  number(out, "zeros", f->zeros);
  integer(out, "columns", p->columns);
  if (c->batch) {
    key(out, "conv");
    fprintf(out, "{\"batch\": %lld, \"channels\": %lld, \"height\": %lld, \"width\": %lld, \"kernel\": [%lld, %lld], ",
            (long long)c->batch, (long long)c->channels, (long long)c->height, (long long)c->width, (long long)c->kernel[0],
            (long long)c->kernel[1]);
    fprintf(out, "\"stride\": %lld, \"pad\": %lld}", (long long)c->stride, (long long)c->pad);
  }
  integer(out, "threads", p->threads);
  string(out, "layout", layout_name(p->layout));
  string(out, "kernel", ours.kernel);
  string(out, "engine_layout", ran ? f->ours->layout : NULL);
  number(out, "median_us", ran ? f->ours->median_us : NAN);
  number(out, "spread", ran ? f->ours->spread : NAN);
  if (!ran) string(out, "refused", f->ours->why);
  peers(out, row, "peers", TIME);
  peers(out, row, "peer_spread", SPREAD);
  peers(out, row, "peer_error", ERROR);
  peers(out, row, "peer_layout", LAYOUT);
  peers(out, row, "peer_refused", REFUSAL);
  string(out, "best_dense", f->dense ? f->dense->name : NULL);
  string(out, "best_sparse", f->sparse ? f->sparse->name : NULL);
  number(out, "speedup_over_dense", f->over_dense);
  number(out, "speedup_over_sparse", f->over_sparse);
  number(out, "speedup_over_own_dense", f->over_own_dense);
  number(out, "fraction_of_ideal", f->ideal);
  number(out, "max_rel_error", ran ? f->ours->max_error : NAN);
  string(out, "bound", f->floor.bound);
  number(out, "floor_us", f->floor.us);
  number(out, "floor_fma_us", f->floor.fma);
  number(out, "floor_load_us", f->floor.load);
  number(out, "floor_memory_us", f->floor.memory);
  number(out, "fraction_of_bound", ran ? f->floor.us / f->ours->median_us : NAN);
  number(out, "machine_gflops", row->machine->gflops);
  number(out, "machine_gbps", row->machine->gbps);
  if (row->machine->handover_ns > 0) number(out, "machine_handover_ns", row->machine->handover_ns);
  number(out, "predicted_us", ran ? ours.predicted_us : NAN);
  number(out, "compile_ms", ran ? ours.compile_ms : NAN);
  integer(out, "code_bytes", (int64_t)ours.code_bytes);
  integer(out, "packed_bytes", (int64_t)ours.packed_bytes);
  integer(out, "rounds", row->rounds);
  fputs("}\n", out);
}

/* ---- tables ------------------------------------------------------------------------------------------------------- */

static const char *const heads[] = {"kind",        "matrix", "pattern",     "zeros %",    "columns", "threads",    "layout",
                                    "kernel",      "us",     "spread %",    "best dense", "us",      "over dense", "of ideal",
                                    "best sparse", "us",     "over sparse", "of bound",   "bound",   "error"};

static void cell(FILE *out, bool csv, bool first, const char *text) {
  if (!csv) {
    fprintf(out, first ? "| %s |" : " %s |", text);
  } else {
    fputs(first ? "\"" : ",\"", out);
    for (; *text; text++) fputs(*text == '"' ? "\"\"" : (char[]){*text, 0}, out);
    fputc('"', out);
  }
}

static void number_cell(FILE *out, bool csv, double value, const char *format) {
  char text[32] = "";
  if (isfinite(value)) snprintf(text, sizeof text, format, value);
  cell(out, csv, false, text);
}

static void report_table(FILE *out, const bench_row *row, const figures *f, bool csv, bool head) {
  const bench_problem *p = row->problem;
  const size_t n = sizeof heads / sizeof *heads;
  const bool ran = f->ours->peer;
  if (head) {
    for (size_t i = 0; i < n; i++) cell(out, csv, i == 0, heads[i]);
    fputc('\n', out);
    for (size_t i = 0; i < n && !csv; i++) fputs(i ? "---|" : "|---|", out);
    if (!csv) fputc('\n', out);
  }
  cell(out, csv, true, row->kind);
  cell(out, csv, false, row->matrix->name);
  cell(out, csv, false, row->matrix->pattern);
  number_cell(out, csv, f->zeros * 100, "%.1f");
  number_cell(out, csv, (double)p->columns, "%.0f");
  number_cell(out, csv, p->threads, "%.0f");
  cell(out, csv, false, ran ? f->ours->layout : layout_name(p->layout));
  cell(out, csv, false, ran ? bench_ours_of(f->ours).kernel : f->ours->why);
  number_cell(out, csv, ran ? f->ours->median_us : NAN, "%.1f");
  number_cell(out, csv, ran ? f->ours->spread * 100 : NAN, "%.1f");
  cell(out, csv, false, f->dense ? f->dense->name : "");
  number_cell(out, csv, f->dense ? f->dense->median_us : NAN, "%.1f");
  number_cell(out, csv, f->over_dense, "%.2f");
  number_cell(out, csv, f->ideal, "%.2f");
  cell(out, csv, false, f->sparse ? f->sparse->name : "");
  number_cell(out, csv, f->sparse ? f->sparse->median_us : NAN, "%.1f");
  number_cell(out, csv, f->over_sparse, "%.2f");
  number_cell(out, csv, ran ? f->floor.us / f->ours->median_us : NAN, "%.2f");
  cell(out, csv, false, f->floor.bound);
  number_cell(out, csv, ran ? f->ours->max_error : NAN, "%.1e");
  fputc('\n', out);
}

void bench_report(FILE *out, const bench_row *row, bench_format format, bool first) {
  const figures f = figures_of(row);
  if (format == BENCH_JSON)
    report_json(out, row, &f);
  else
    report_table(out, row, &f, format == BENCH_CSV, first);
  fflush(out);
}

void bench_report_machine(FILE *out, const bench_machine *m) {
  fputs("{\"kind\": \"machine\"", out);
  string(out, "cpu", m->cpu);
  integer(out, "cores", m->cores);
  string(out, "features", m->features);
  integer(out, "l1_bytes", m->l1_bytes);
  integer(out, "l2_bytes", m->l2_bytes);
  integer(out, "l3_bytes", m->l3_bytes);
  string(out, "compiler", m->compiler);
  string(out, "sparseflow", sf_version());
  number(out, "gflops", m->gflops);
  number(out, "gbps", m->gbps);
  if (m->handover_ns > 0) number(out, "handover_ns", m->handover_ns);
  fputs("}\n", out);
}
