/* Private to lower*.c: the lowering under construction, where its values live, and the parts that kernels are made of.
 * Errors are sticky: after the first one every function goes on harmlessly and `status` is read once an operation. */
#ifndef SFI_LOWER_H
#define SFI_LOWER_H

#include "passes.h"

/* Element [i0, i1, ..] of some shape stands at buffer[offset + sum of i * stride]. */
typedef struct sfi_view {
  int32_t buffer; /* SFI_NO_BUFFER: none */
  sfi_poly offset, stride[SF_MAX_RANK];
} sfi_view;

/* Dimension i of an iteration space runs over the dimensions [start[i], start[i + 1]) of a shape as one index. */
typedef struct sfi_grouping {
  int32_t n; /* 0: none */
  int32_t start[SFI_SPACE_MAX + 1];
} sfi_grouping;

/* Where a value lives. It may be both in rows and in panels, once a consumer has asked for the other. */
typedef struct sfi_located {
  sfi_shape shape; /* the symbol replaced where the class holds one value */
  int32_t uses;    /* by live nodes and outputs */
  int32_t maps;    /* of them, by elementwise operations, which may end in one kernel */
  bool live;
  bool result; /* an output of the graph, in whatever shape */
  sfi_view row;
  int64_t channel;   /* elements from channel to channel of an image [n, c, h, w] in `row` that leaves gaps between them; 0: none */
  sfi_grouping walk; /* how the kernel that wrote `row` walks over it; a consumer that walks alike can be fused */
  int32_t panel;     /* buffer in PANEL, SFI_NO_BUFFER: none */
  sfi_poly feature;  /* of that buffer, which may have more: the value's first one */
} sfi_located;

static inline bool sfi_low_in_panels_only(const sfi_located *value) {
  return value->row.buffer == SFI_NO_BUFFER && value->panel != SFI_NO_BUFFER;
}

typedef struct sfi_lowering {
  sfi_pass_env *env;
  sfi_plan *plan;
  const sf_graph *graph;
  sfi_located *values;
  int64_t panel; /* P of every PANEL buffer of this plan */
  sf_status status;
  sf_value node; /* being lowered; for messages and kernels */
} sfi_lowering;

/* ---- lower_parts.c: polynomials, buffers, kernels, spaces --------------------------------------------------------- */

sf_status sfi_low_fail_memory(sfi_lowering *l);
sfi_poly sfi_low_mul(sfi_lowering *l, sfi_poly a, sfi_poly b);
sfi_poly sfi_low_add(sfi_lowering *l, sfi_poly a, sfi_poly b);
sfi_poly sfi_low_product(sfi_lowering *l, const sfi_poly *dims, int32_t n); /* 1 for none */
/* Largest value in the class; INT64_MAX where there is no bound. */
int64_t sfi_low_bound(const sfi_lowering *l, sfi_poly p);

/* Index of a new buffer; 0 after an error. */
int32_t sfi_low_buffer(sfi_lowering *l, const sfi_buffer *buffer);
/* A TEMP for a value of `shape`, or without one (SF_NO_VALUE): dense rows, or panels of l->panel. */
int32_t sfi_low_temp(sfi_lowering *l, sf_value value, const sfi_shape *shape, bool panels);
sfi_kernel sfi_low_kernel(const sfi_lowering *l, sfi_anchor anchor);
/* Index of the new operand. */
int32_t sfi_low_operand(sfi_kernel *kernel, const sfi_access *access);
/* Index of the new step. */
int32_t sfi_low_load(sfi_expr *expr, int32_t operand);
int32_t sfi_low_step(sfi_expr *expr, sfi_step step);
/* Adds the kernel to the plan. */
void sfi_low_push(sfi_lowering *l, sfi_kernel *kernel);

/* Stride of the dimensions [from, to) of `shape` taken as one index; false where they are not one. */
bool sfi_low_merge(sfi_lowering *l, const sfi_shape *shape, const sfi_poly *stride, int32_t from, int32_t to, sfi_poly *out);
/* The coarsest grouping of [from, to) that suits all views. Appends to *out. */
void sfi_low_group(sfi_lowering *l, const sfi_shape *shape, const sfi_view *const *views, int32_t n_views, int32_t from, int32_t to,
                   sfi_grouping *out);
bool sfi_low_suits(sfi_lowering *l, const sfi_shape *shape, const sfi_view *view, const sfi_grouping *grouping);
/* Extents of the kernel's space by a grouping; a single group is cut into rows of a ragged space. Not `tile_dims`. */
void sfi_low_space(sfi_lowering *l, sfi_kernel *kernel, const sfi_shape *shape, const sfi_grouping *grouping);
/* The access in that space; the grouping suits the view. */
sfi_access sfi_low_access(sfi_lowering *l, const sfi_kernel *kernel, const sfi_shape *shape, const sfi_view *view,
                          const sfi_grouping *grouping);
/* Space (panel, feature, lane) of a value of `shape`, and the access to features of a buffer from `first` on. */
void sfi_low_panel_space(sfi_lowering *l, sfi_kernel *kernel, const sfi_shape *shape);
sfi_access sfi_low_panel_access(sfi_lowering *l, int32_t buffer, sfi_poly first);
/* False where the columns are not one index. */
bool sfi_low_panel_row_access(sfi_lowering *l, const sfi_shape *shape, const sfi_view *view, sfi_access *out);
/* As many leading dimensions, at most `limit`, as leave a tile some work. */
void sfi_low_tile(const sfi_lowering *l, sfi_kernel *kernel, int32_t limit);

/* ---- lower_views.c: where values are and how they move ------------------------------------------------------------ */

void sfi_low_dense_strides(sfi_lowering *l, const sfi_shape *shape, sfi_poly *stride);
/* Those of an image with gaps between channels; dense ones where `channel` is 0. */
void sfi_low_image_strides(sfi_lowering *l, const sfi_shape *shape, int64_t channel, sfi_poly *stride);
/* Rows that begin so many elements apart may fall into a few sets of L1 and L2, where a block of them does not stay: is it worth a copy to
 * another pitch, when so many nonzeros read a row on average? */
bool sfi_low_is_aliased(int64_t elements, double readers);
/* From row to row, for rows of `n` elements that begin on whole vectors and are not aliased. */
int64_t sfi_low_pitch(const sfi_lowering *l, int64_t n);
bool sfi_low_is_dense(sfi_lowering *l, const sfi_shape *shape, const sfi_view *view);
/* A new dense TEMP holding the elements of the view. */
sfi_view sfi_low_densify(sfi_lowering *l, const sfi_shape *shape, const sfi_view *view);
/* The value in rows: any strides, or dense from offset 0. Copied where it is not so yet. */
sfi_view sfi_low_row(sfi_lowering *l, sf_value v);
sfi_view sfi_low_dense(sfi_lowering *l, sf_value v);
/* The value in panels. Copied where it is not so yet. */
sfi_access sfi_low_panel(sfi_lowering *l, sf_value v);
/* New panels holding a view. */
int32_t sfi_low_panel_of(sfi_lowering *l, const sfi_shape *shape, const sfi_view *view);
/* The view seen from a larger shape: dimension i of `from` stands on first + i there; others, and those of extent 1 in `from`, get
 * stride 0. */
sfi_view sfi_low_stretch(const sfi_shape *from, const sfi_view *view, int32_t first);
/* Copies elements of `shape` between views; walk NULL or as in sfi_located. */
void sfi_low_copy(sfi_lowering *l, const sfi_shape *shape, const sfi_view *from, const sfi_grouping *walk, const sfi_view *to);
/* Copies a value wherever it lives into a view of its shape. */
void sfi_low_store(sfi_lowering *l, sf_value v, const sfi_view *to);
void sfi_low_set_row(sfi_lowering *l, sf_value v, int32_t buffer, const sfi_grouping *walk);
/* New rows for an image of which `channel` elements apart channels begin; dense where it is 0. */
void sfi_low_set_image(sfi_lowering *l, sf_value v, int64_t channel, const sfi_grouping *walk);
/* New panels for the value, to be written; their access. */
sfi_access sfi_low_set_panel(sfi_lowering *l, sf_value v);

/* ---- operations --------------------------------------------------------------------------------------------------- */

/* One function for each rule of shape inference: operations that share a rule walk alike. */
#define SF_OP(id, value, text, min, max, attrs, infer, flags, doc) void sfi_low_##infer(sfi_lowering *l, sf_value v);
#include <sparseflow/ops.def>
#undef SF_OP
void sfi_low_node(sfi_lowering *l, sf_value v); /* ANCHOR_NODE */
/* Adds an operand of an epilogue: a CONST step for a static scalar, else a LOAD. The operand stands on dimension `first` of the
 * kernel's output, `shape`, which is walked by `grouping` or, where NULL, in panels. Index of the step. */
int32_t sfi_low_epilogue_operand(sfi_lowering *l, sfi_kernel *kernel, sfi_expr *expr, sf_value operand, int32_t first,
                                 const sfi_shape *shape, const sfi_grouping *grouping);
/* W of a CONTRACT kernel: matrix, digest, facts, and its PACKED buffer as operand 2. */
void sfi_low_weight(sfi_lowering *l, sfi_kernel *kernel, sf_value weight, const sfi_matrix *matrix);

#endif
