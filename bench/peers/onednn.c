/* oneDNN, of any version from 2 on; CMake compiles this once for each that it finds, with the peer's name in BENCH_ONEDNN.
 *
 *   NAME       products: dnnl_sgemm, and from version 3 on also matmul with W reordered for it, the fastest of them; in PANEL
 *              also with X and Y as tokens. Convolutions (version 3): on NCHW, and in the layout that oneDNN chooses with
 *              reorders on both sides, the faster; in PANEL the latter without the reorders.
 *   NAME-csr   matmul with W in CSR (version 3, where the library has it) */
#include "fastest.h"
#include "peer.h"

#include <math.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) ((call) == dnnl_success)
enum { WAYS = 6 };

/* A primitive with its three memories, and what brings X and Y into its layouts. */
typedef struct prepared {
#if DNNL_VERSION_MAJOR >= 3
  dnnl_primitive_t primitive, to_x, from_y;
  dnnl_memory_t w, x, y;              /* x, y: in its own layout */
  dnnl_memory_t natural_x, natural_y; /* NULL: x and y are natural */
#endif
  int arg_w, arg_x;
} prepared;

typedef struct state {
  bench_problem p;
  dnnl_engine_t engine;
  dnnl_stream_t stream;
  prepared rows, tokens, natural, blocked; /* products on ROW and TOKENS; convolutions */
  float *x, *y;                            /* PANEL: own */
  bool own_tokens;
  bench_way way;
  int32_t *begin, *column; /* CSR */
  float *value;
} state;

static void describe(char *text, size_t size) {
  const dnnl_version_t *v = dnnl_version();
  snprintf(text, size, "dense; oneDNN %d.%d.%d; %s", v->major, v->minor, v->patch,
           v->major >= 3 ? "sgemm or matmul with packed W, the faster; convolution on NCHW or blocked" : "sgemm");
}

/* ---- sgemm -------------------------------------------------------------------------------------------------------- */

static void sgemm_rows(void *opaque, const float *x, float *y) {
  const bench_problem *p = &((const state *)opaque)->p;
  dnnl_sgemm('N', 'N', p->rows, p->columns, p->cols, 1, p->w, p->cols, x, p->columns, 0, y, p->columns);
}

static void sgemm_tokens(void *opaque, const float *x, float *y) {
  const bench_problem *p = &((const state *)opaque)->p;
  dnnl_sgemm('N', 'T', p->columns, p->rows, p->cols, 1, x, p->cols, p->w, p->cols, 0, y, p->rows);
}

/* ---- primitives --------------------------------------------------------------------------------------------------- */

#if DNNL_VERSION_MAJOR >= 3

static dnnl_memory_desc_t describe_memory(int rank, const dnnl_dim_t *dims, dnnl_format_tag_t tag) {
  dnnl_memory_desc_t md = NULL;
  return OK(dnnl_memory_desc_create_with_tag(&md, rank, dims, dnnl_f32, tag)) ? md : NULL;
}

static dnnl_memory_t make_memory(const state *s, const_dnnl_memory_desc_t md, void *data) {
  dnnl_memory_t memory = NULL;
  return OK(dnnl_memory_create(&memory, md, s->engine, data)) ? memory : NULL;
}

static void execute(const state *s, dnnl_primitive_t primitive, int n, const dnnl_exec_arg_t *args) {
  dnnl_primitive_execute(primitive, s->stream, n, args);
}

static dnnl_primitive_t make_reorder(const state *s, const_dnnl_memory_desc_t from, const_dnnl_memory_desc_t to) {
  dnnl_primitive_desc_t pd = NULL;
  dnnl_primitive_t primitive = NULL;
  if (OK(dnnl_reorder_primitive_desc_create(&pd, from, s->engine, to, s->engine, NULL))) dnnl_primitive_create(&primitive, pd);
  dnnl_primitive_desc_destroy(pd);
  return primitive;
}

static void move(const state *s, dnnl_primitive_t reorder, dnnl_memory_t from, dnnl_memory_t to) {
  const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
  execute(s, reorder, 2, args);
}

/* W from its natural layout into the primitive's. */
static dnnl_memory_t pack(const state *s, const_dnnl_memory_desc_t natural, const_dnnl_memory_desc_t wanted) {
  dnnl_memory_t from = make_memory(s, natural, (void *)(uintptr_t)s->p.w), to = make_memory(s, wanted, DNNL_MEMORY_ALLOCATE);
  dnnl_primitive_t reorder = make_reorder(s, natural, wanted);
  if (from && to && reorder) {
    move(s, reorder, from, to);
    dnnl_stream_wait(s->stream);
  } else {
    dnnl_memory_destroy(to);
    to = NULL;
  }
  dnnl_primitive_destroy(reorder);
  dnnl_memory_destroy(from);
  return to;
}

/* Y = W X; rows: W is the left operand, else the right one, exchanged. */
static bool prepare_product(const state *s, bool rows, prepared *out) {
  const bench_problem *p = &s->p;
  const dnnl_dims_t w = {rows ? p->rows : p->cols, rows ? p->cols : p->rows},
                    x = {rows ? p->cols : p->columns, rows ? p->columns : p->cols};
  const dnnl_dims_t y = {rows ? p->rows : p->columns, rows ? p->columns : p->rows};
  dnnl_memory_desc_t w_any = describe_memory(2, w, dnnl_format_tag_any),
                     w_natural = describe_memory(2, w, rows ? dnnl_ab : dnnl_ba);
  dnnl_memory_desc_t x_md = describe_memory(2, x, dnnl_ab), y_md = describe_memory(2, y, dnnl_ab);
  dnnl_primitive_desc_t pd = NULL;
  if (OK(dnnl_matmul_primitive_desc_create(&pd, s->engine, rows ? w_any : x_md, rows ? x_md : w_any, NULL, y_md, NULL)) &&
      OK(dnnl_primitive_create(&out->primitive, pd))) {
    out->arg_w = rows ? DNNL_ARG_SRC : DNNL_ARG_WEIGHTS;
    out->arg_x = rows ? DNNL_ARG_WEIGHTS : DNNL_ARG_SRC;
    out->w = pack(s, w_natural, dnnl_primitive_desc_query_md(pd, rows ? dnnl_query_src_md : dnnl_query_weights_md, 0));
    out->x = make_memory(s, x_md, DNNL_MEMORY_NONE);
    out->y = make_memory(s, y_md, DNNL_MEMORY_NONE);
  }
  dnnl_primitive_desc_destroy(pd);
  dnnl_memory_desc_destroy(w_any);
  dnnl_memory_desc_destroy(w_natural);
  dnnl_memory_desc_destroy(x_md);
  dnnl_memory_desc_destroy(y_md);
  return out->w && out->x && out->y;
}

static bool prepare_conv(const state *s, bool blocked, prepared *out) {
  const bench_conv *c = &s->p.conv;
  const dnnl_dims_t x = {c->batch, c->channels, c->height, c->width}, w = {s->p.rows, c->channels, c->kernel[0], c->kernel[1]};
  const dnnl_dims_t y = {c->batch, s->p.rows, c->out_height, c->out_width}, strides = {c->stride, c->stride}, dilates = {0, 0};
  /* The right and bottom padding as the output's extent asks for. */
  const dnnl_dims_t left = {c->pad, c->pad}, right = {(c->out_height - 1) * c->stride + c->kernel[0] - c->height - c->pad,
                                                      (c->out_width - 1) * c->stride + c->kernel[1] - c->width - c->pad};
  const dnnl_format_tag_t tag = blocked ? dnnl_format_tag_any : dnnl_nchw;
  dnnl_memory_desc_t x_md = describe_memory(4, x, tag), y_md = describe_memory(4, y, tag);
  dnnl_memory_desc_t x_natural = describe_memory(4, x, dnnl_nchw), y_natural = describe_memory(4, y, dnnl_nchw);
  dnnl_memory_desc_t w_any = describe_memory(4, w, dnnl_format_tag_any), w_natural = describe_memory(4, w, dnnl_oihw);
  dnnl_primitive_desc_t pd = NULL;
  if (OK(dnnl_convolution_forward_primitive_desc_create(&pd, s->engine, dnnl_forward_inference, dnnl_convolution_auto, x_md, w_any,
                                                        NULL, y_md, strides, dilates, left, right, NULL)) &&
      OK(dnnl_primitive_create(&out->primitive, pd))) {
    const_dnnl_memory_desc_t own_x = dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0);
    const_dnnl_memory_desc_t own_y = dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0);
    out->arg_w = DNNL_ARG_WEIGHTS;
    out->arg_x = DNNL_ARG_SRC;
    out->w = pack(s, w_natural, dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0));
    out->x = make_memory(s, own_x, blocked ? DNNL_MEMORY_ALLOCATE : DNNL_MEMORY_NONE);
    out->y = make_memory(s, own_y, blocked ? DNNL_MEMORY_ALLOCATE : DNNL_MEMORY_NONE);
    if (blocked) {
      out->natural_x = make_memory(s, x_natural, DNNL_MEMORY_NONE);
      out->natural_y = make_memory(s, y_natural, DNNL_MEMORY_NONE);
      out->to_x = make_reorder(s, x_natural, own_x);
      out->from_y = make_reorder(s, own_y, y_natural);
    }
  }
  dnnl_primitive_desc_destroy(pd);
  dnnl_memory_desc_destroy(x_md);
  dnnl_memory_desc_destroy(y_md);
  dnnl_memory_desc_destroy(x_natural);
  dnnl_memory_desc_destroy(y_natural);
  dnnl_memory_desc_destroy(w_any);
  dnnl_memory_desc_destroy(w_natural);
  return out->w && out->x && out->y && (!blocked || (out->natural_x && out->natural_y && out->to_x && out->from_y));
}

static void compute(const state *s, const prepared *r) {
  const dnnl_exec_arg_t args[] = {{r->arg_w, r->w}, {r->arg_x, r->x}, {DNNL_ARG_DST, r->y}};
  execute(s, r->primitive, 3, args);
}

static void run_prepared(const state *s, const prepared *r, const float *x, float *y) {
  dnnl_memory_set_data_handle(r->natural_x ? r->natural_x : r->x, (void *)(uintptr_t)x);
  dnnl_memory_set_data_handle(r->natural_y ? r->natural_y : r->y, y);
  if (r->to_x) move(s, r->to_x, r->natural_x, r->x);
  compute(s, r);
  if (r->from_y) move(s, r->from_y, r->y, r->natural_y);
  dnnl_stream_wait(s->stream);
}

static void matmul_rows(void *opaque, const float *x, float *y) {
  run_prepared(opaque, &((const state *)opaque)->rows, x, y);
}
static void matmul_tokens(void *opaque, const float *x, float *y) {
  run_prepared(opaque, &((const state *)opaque)->tokens, x, y);
}
static void conv_natural(void *opaque, const float *x, float *y) {
  run_prepared(opaque, &((const state *)opaque)->natural, x, y);
}
static void conv_blocked(void *opaque, const float *x, float *y) {
  run_prepared(opaque, &((const state *)opaque)->blocked, x, y);
}
/* PANEL: X and Y are where they are. */
static void conv_inner(void *opaque, const float *x, float *y) {
  const state *s = opaque;
  (void)x, (void)y;
  compute(s, &s->blocked);
  dnnl_stream_wait(s->stream);
}

static void unprepare(prepared *r) {
  dnnl_primitive_destroy(r->primitive);
  dnnl_primitive_destroy(r->to_x);
  dnnl_primitive_destroy(r->from_y);
  dnnl_memory_destroy(r->w);
  dnnl_memory_destroy(r->x);
  dnnl_memory_destroy(r->y);
  dnnl_memory_destroy(r->natural_x);
  dnnl_memory_destroy(r->natural_y);
}

#else /* version 2: sgemm alone */

static bool prepare_product(const state *s, bool rows, prepared *out) {
  (void)s, (void)rows, (void)out;
  return false;
}
static bool prepare_conv(const state *s, bool blocked, prepared *out) {
  (void)s, (void)blocked, (void)out;
  return false;
}
static void unprepare(prepared *r) {
  (void)r;
}
#define matmul_rows NULL
#define matmul_tokens NULL
#define conv_natural NULL
#define conv_blocked NULL
#define conv_inner NULL

#endif

/* ---- the peer ----------------------------------------------------------------------------------------------------- */

static void destroy(void *opaque) {
  state *s = opaque;
  unprepare(&s->rows);
  unprepare(&s->tokens);
  unprepare(&s->natural);
  unprepare(&s->blocked);
  if (s->stream) dnnl_stream_destroy(s->stream);
  if (s->engine) dnnl_engine_destroy(s->engine);
  free(s->x);
  free(s->y);
  free(s->begin);
  free(s->column);
  free(s->value);
  free(s);
}

static int64_t x_elements(const bench_problem *p) {
  const bench_conv *c = &p->conv;
  return c->batch ? c->batch * c->channels * c->height * c->width : p->cols * p->columns;
}

/* Without an engine there still is sgemm. */
static state *make_state(const bench_problem *p) {
  state *s = calloc(1, sizeof *s);
  if (!s) return NULL;
  s->p = *p;
  if (!OK(dnnl_engine_create(&s->engine, dnnl_cpu, 0)))
    s->engine = NULL;
  else if (!OK(dnnl_stream_create(&s->stream, s->engine, dnnl_stream_default_flags)))
    s->stream = NULL;
  if (p->layout == BENCH_PANEL && !p->conv.batch) {
    s->x = aligned_alloc(64, ((size_t)x_elements(p) * 4 + 127) / 64 * 64);
    s->y = aligned_alloc(64, ((size_t)(p->rows * p->columns) * 4 + 127) / 64 * 64);
    if (!s->x || !s->y) {
      destroy(s);
      return NULL;
    }
  }
  return s;
}

static void *create(const bench_problem *p, const char **out_layout, char why[BENCH_WHY]) {
  static const char *const layouts[WAYS] = {"row", "row", "tokens", "tokens", "NCHW", "NCHW, blocked inside"};
  state *s = make_state(p);
  if (!s) return NULL;
  bench_way ways[WAYS] = {NULL};
  const bool rows = p->layout != BENCH_TOKENS, tokens = p->layout != BENCH_ROW, inner = p->layout == BENCH_PANEL;
  if (!p->conv.batch) {
    if (rows) ways[0] = sgemm_rows;
    if (rows && s->stream && prepare_product(s, true, &s->rows)) ways[1] = matmul_rows;
    if (tokens) ways[2] = sgemm_tokens;
    if (tokens && s->stream && prepare_product(s, false, &s->tokens)) ways[3] = matmul_tokens;
  } else if (s->stream) {
    if (!inner && prepare_conv(s, false, &s->natural)) ways[4] = conv_natural;
    if (prepare_conv(s, true, &s->blocked)) ways[5] = inner ? conv_inner : conv_blocked;
  }
  const int fastest = bench_fastest(s, ways, WAYS, x_elements(p), p->rows * p->columns);
  if (fastest < 0) {
    snprintf(why, BENCH_WHY, p->conv.batch ? "no convolution here: version 3 and a CPU engine are needed" : "out of memory");
    destroy(s);
    return NULL;
  }
  s->way = ways[fastest];
  s->own_tokens = fastest == 2 || fastest == 3;
  *out_layout = p->conv.batch && inner ? "blocked" : layouts[fastest];
  return s;
}

static void run(void *opaque, const float *x, float *y) {
  const state *s = opaque;
  s->way(opaque, s->x ? s->x : x, s->y ? s->y : y);
}

static void load(void *opaque, const float *x) {
  state *s = opaque;
  const bench_problem *p = &s->p;
#if DNNL_VERSION_MAJOR >= 3
  if (p->conv.batch) {
    void *y;
    dnnl_memory_set_data_handle(s->blocked.natural_x, (void *)(uintptr_t)x);
    move(s, s->blocked.to_x, s->blocked.natural_x, s->blocked.x);
    dnnl_stream_wait(s->stream);
    dnnl_memory_get_data_handle(s->blocked.y, &y);
    for (int64_t i = 0; i < p->rows * p->columns; i++) ((float *)y)[i] = NAN;
    return;
  }
#endif
  for (int64_t k = 0; k < p->cols; k++)
    for (int64_t j = 0; j < p->columns; j++) s->x[s->own_tokens ? j * p->cols + k : k * p->columns + j] = x[k * p->columns + j];
  for (int64_t i = 0; i < p->rows * p->columns; i++) s->y[i] = NAN;
}

static void store(void *opaque, float *y) {
  const state *s = opaque;
  const bench_problem *p = &s->p;
#if DNNL_VERSION_MAJOR >= 3
  if (p->conv.batch) {
    dnnl_memory_set_data_handle(s->blocked.natural_y, y);
    move(s, s->blocked.from_y, s->blocked.y, s->blocked.natural_y);
    dnnl_stream_wait(s->stream);
    return;
  }
#endif
  for (int64_t r = 0; r < p->rows; r++)
    for (int64_t j = 0; j < p->columns; j++) y[r * p->columns + j] = s->y[s->own_tokens ? j * p->rows + r : r * p->columns + j];
}

static const bench_peer onednn = {BENCH_ONEDNN, true, describe, create, run, load, store, destroy};

/* ---- CSR ---------------------------------------------------------------------------------------------------------- */

#if DNNL_VERSION_MAJOR >= 3

static void describe_csr(char *text, size_t size) {
  const dnnl_version_t *v = dnnl_version();
  snprintf(text, size, "sparse; oneDNN %d.%d.%d; matmul with W in CSR", v->major, v->minor, v->patch);
}

static bool fill_csr(state *s) {
  const bench_problem *p = &s->p;
  s->begin = malloc((size_t)(p->rows + 1) * sizeof *s->begin);
  s->column = malloc((size_t)(p->nnz + 1) * sizeof *s->column);
  s->value = malloc((size_t)(p->nnz + 1) * sizeof *s->value);
  if (!s->begin || !s->column || !s->value) return false;
  int32_t n = 0;
  for (int64_t r = 0; r < p->rows; r++) {
    s->begin[r] = n;
    for (int64_t k = 0; k < p->cols; k++) {
      if (p->w[r * p->cols + k] == 0) continue;
      s->column[n] = (int32_t)k;
      s->value[n++] = p->w[r * p->cols + k];
    }
  }
  s->begin[p->rows] = n;
  return true;
}

static bool prepare_csr(state *s, prepared *out) {
  const bench_problem *p = &s->p;
  const dnnl_dims_t w = {p->rows, p->cols}, x = {p->cols, p->columns}, y = {p->rows, p->columns};
  dnnl_memory_desc_t w_md = NULL, x_md = describe_memory(2, x, dnnl_ab), y_md = describe_memory(2, y, dnnl_ab);
  dnnl_primitive_desc_t pd = NULL;
  void *handles[] = {s->value, s->column, s->begin};
  if (OK(dnnl_memory_desc_create_with_csr_encoding(&w_md, 2, w, dnnl_f32, p->nnz, dnnl_s32, dnnl_s32)) &&
      OK(dnnl_matmul_primitive_desc_create(&pd, s->engine, w_md, x_md, NULL, y_md, NULL)) &&
      OK(dnnl_primitive_create(&out->primitive, pd)) && OK(dnnl_memory_create_v2(&out->w, w_md, s->engine, 3, handles))) {
    out->arg_w = DNNL_ARG_SRC;
    out->arg_x = DNNL_ARG_WEIGHTS;
    out->x = make_memory(s, x_md, DNNL_MEMORY_NONE);
    out->y = make_memory(s, y_md, DNNL_MEMORY_NONE);
  }
  dnnl_primitive_desc_destroy(pd);
  dnnl_memory_desc_destroy(w_md);
  dnnl_memory_desc_destroy(x_md);
  dnnl_memory_desc_destroy(y_md);
  return out->w && out->x && out->y;
}

static void *create_csr(const bench_problem *p, const char **out_layout, char why[BENCH_WHY]) {
  if (p->conv.batch || p->layout == BENCH_TOKENS || p->nnz == 0 || p->nnz > INT32_MAX) {
    snprintf(why, BENCH_WHY, "products on rows only");
    return NULL;
  }
  bench_problem on_rows = *p;
  on_rows.layout = BENCH_ROW; /* no buffers of its own */
  state *s = make_state(&on_rows);
  if (s && s->stream && fill_csr(s) && prepare_csr(s, &s->rows)) {
    *out_layout = "row";
    s->way = matmul_rows;
    return s;
  }
  snprintf(why, BENCH_WHY, "this oneDNN has no product with CSR");
  if (s) destroy(s);
  return NULL;
}

static const bench_peer csr = {BENCH_ONEDNN "-csr", false, describe_csr, create_csr, run, NULL, NULL, destroy};
static const bench_peer *const peers[] = {&onednn, &csr, NULL};
#else
static const bench_peer *const peers[] = {&onednn, NULL};
#endif
const bench_peers sf_bench_peers = {BENCH_PEER_ABI, peers};
