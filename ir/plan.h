/* The plan: fused kernels in order of execution, the buffers between them, and where each buffer lives. Lowering makes it from
 * a graph, the choice pass gives every kernel its emitter, emitters turn kernels into code. Plain data throughout.
 *
 * A kernel walks an ITERATION SPACE of up to SFI_SPACE_MAX dimensions, the index space of its output, in row-major order,
 * the last dimension innermost. Operands are reached through ACCESSES, affine in the space's indices. At each point the
 * kernel's ANCHOR gives a value, and the EPILOGUE turns it into what is stored through operand 0.
 *
 * Layouts. ROW is dense row-major. PANEL(P) holds a value seen as a matrix [n, f] (f its last dimension, n all before) as
 * [ceil(n/P)][f][P]: feature-major panels of P columns. In a panel space the three dimensions are (panel t, feature f, lane j)
 * and column n = t*P + j. Lanes past n in the last panel hold unspecified values and are never read into another lane; kernels that
 * write PANEL write whole panels. */
#ifndef SFI_PLAN_H
#define SFI_PLAN_H

#include "facts.h"
#include "graph.h"
#include "target.h"

/* 17 operands: the widest operation has 16, and one output. */
enum { SFI_SPACE_MAX = 8, SFI_OPERANDS_MAX = 17, SFI_STEPS_MAX = 32, SFI_NO_BUFFER = -1, SFI_IMAGE_SLACK = 512 };
enum { SFI_DEPTHWISE_TAPS = 49 };

/* ---- expressions -------------------------------------------------------------------------------------------------- */

/* A short straight program over one element; step i may use steps before it. The last step is the result. */
typedef enum sfi_step_kind {
  SFI_STEP_ARG,   /* the anchor's value (epilogue only) */
  SFI_STEP_LOAD,  /* operand[operand] at the current index; an integer as the number that it is */
  SFI_STEP_CONST, /* value */
  SFI_STEP_OP     /* elementwise `op` of steps a, b, c (as many as it has operands) */
} sfi_step_kind;
typedef struct sfi_step {
  sfi_step_kind kind;
  sf_op op;
  int32_t a, b, c;
  int32_t operand;
  float value;
} sfi_step;
typedef struct sfi_expr {
  int32_t n;
  sfi_step steps[SFI_STEPS_MAX];
} sfi_expr;

/* ---- spaces and accesses ------------------------------------------------------------------------------------------ */

/* Number of indices of one dimension: ceil(of / div). */
typedef struct sfi_extent {
  sfi_poly of;
  int64_t div; /* >= 1 */
} sfi_extent;

/* Element address = base + offset + sum of index[d] * stride[d], in elements. Dimensions of the space first, then those that the
 * anchor adds (reduction dimensions). Where `index` is not 0, operand `index`, of integers and before this one, adds its element i at the
 * same point: i * index_stride, or (i + index_extent) * index_stride where i < 0. LOADs only; or what a MAP writes, by an index
 * that is the same at all points and behind it. */
typedef struct sfi_access {
  int32_t buffer; /* index in the plan */
  int32_t index;
  int64_t index_extent;
  sfi_poly index_stride;
  sfi_poly offset;
  sfi_poly stride[SFI_SPACE_MAX];
} sfi_access;

/* A panel space: dimensions `panel` and `lane` are one column index n = panel * width + lane, valid while n < columns.
 * Invalid lanes are not loaded (they read as 0) and not stored, except in PANEL buffers, which hold them: a PANEL buffer is reached only
 * in a panel space of its width and columns (ATTEND: or those of one of the batch, if they fill panels), with stride 1 along `lane`.
 * width 0: not a panel space. */
typedef struct sfi_ragged {
  int64_t width;
  int32_t panel, lane; /* dimensions */
  sfi_poly columns;
} sfi_ragged;

/* Reads outside an image give 0: the LOADs of `operand` are made only at the points where, for every bound of that operand,
 *   0 <= add + sum of index[d] * mul[d] < limit
 * and give 0 elsewhere (the address may then lie outside the buffer). MAP only. */
typedef struct sfi_bound {
  int32_t operand;
  int64_t add, mul[SFI_SPACE_MAX], limit;
} sfi_bound;
enum { SFI_BOUNDS_MAX = 2 };

/* ---- anchors ------------------------------------------------------------------------------------------------------ */

typedef enum sfi_anchor {
  SFI_ANCHOR_MAP,       /* no value of its own: the epilogue starts from loads. Elementwise chains, copies, layout changes. */
  SFI_ANCHOR_REDUCE,    /* sum, mean or max of `pre` over the reduction dimensions */
  SFI_ANCHOR_SOFTMAX,   /* softmax of `pre` along space dimension `axis` */
  SFI_ANCHOR_NORMALIZE, /* (pre - mean) / sqrt(variance + eps) along space dimension `axis` */
  SFI_ANCHOR_POOL,      /* windows over operand 1 */
  SFI_ANCHOR_CONTRACT,  /* matrix product with a static W, or convolution: see sfi_contract */
  SFI_ANCHOR_PRODUCT,   /* matrix product of two run-time operands: see sfi_contract, `depth` */
  SFI_ANCHOR_ATTEND,    /* softmax(scale q k^T + mask) v: see sfi_attend */
  SFI_ANCHOR_NODE       /* one graph node, run by the reference back end on ROW buffers */
} sfi_anchor;

/* Space (n, c, oh, ow). Operand 1 strides are those of (n, c, ih, iw): input index ih = oh * stride + kh * dilation - pad. */
typedef struct sfi_pool {
  sf_op op; /* MAX_POOL, AVG_POOL */
  int64_t kernel[2], stride[2], pad[4], dilation[2];
  bool count_include_pad;
  int64_t in_height, in_width;
} sfi_pool;

/* out[t, m, j] = sum over k of W[m, k] * X[t, k, j]: space (t, m, j), operand 1 is X, operand 2 is W.
 *   X: address = offset + t * stride[0] + position(k) + j * stride[2]; position(k) = k * stride[1], or k_offset[k] where given
 *      (convolution: input channel and tap, channels in order and stride[1] apart; then X is a padded image with `pitch` columns a row).
 *      stride[2] is 1, or j has extent 1, or the image is folded.
 *   CONTRACT: W is a weight known at compile time, packed by the emitter; operand 2 is its PACKED buffer. A zero of W is absent:
 *      it contributes 0 whatever X holds there, Inf and NaN too.
 *   PRODUCT: operand 2 is addressed by t * stride[0] + m * stride[1] + k * stride[2]; ordinary IEEE arithmetic.
 * Convolution over a padded image: j enumerates the output pixels oh * valid + ow, and X column of j is oh * pitch + ow. Vectors may
 * be read over columns [0, rows of output * pitch + SFI_IMAGE_SLACK): the image's buffer has that slack, for vectors of a
 * register tile that begins at its last column. Else pitch == valid == 0.
 * Folded, for images narrower than a vector: `fold` granules of pitch / fold columns stand side by side in a row of X, of image rows
 * F apart, F = ceil(output rows / fold): X column of pixel (oh, ow) is oh % F * pitch + oh / F * granule + ow. A tap that is
 * displaced k_offset % pitch columns gives 0 where it falls behind its granule. No stride leads from pixel to pixel: stride[2] is 0,
 * which keeps such images from emitters that do not know them. Else fold == 1.
 * Window of a convolution, by rows and by columns: k counts input channels, tap rows and tap columns, and the elements of X that tap i and
 * output o meet are 0, as padding, unless 0 <= at < in, at = o * stride + i * dilation - before. No window: taps == 0.
 * In place, X is the image as it is: channels are stride[1] apart, rows and columns window[].step, and there is no padding to read. No
 * stride leads from pixel to pixel here either; pitch == valid == 0. There is more than one pixel, and one group; or a group for each
 * channel and row of W, at most SFI_DEPTHWISE_TAPS taps, and a step of 1 and a stride of 1 or 2 along a row. */
typedef struct sfi_window {
  int64_t taps, stride, dilation, before, in, out, step;
} sfi_window;
typedef struct sfi_contract {
  int64_t rows;             /* M */
  sfi_poly depth;           /* K; constant for CONTRACT */
  sfi_poly row_count;       /* extent of m: rows for CONTRACT, may be symbolic for PRODUCT */
  sf_value weight;          /* CONTRACT: the graph value */
  sfi_matrix matrix;        /* CONTRACT: how its data is read as W[m, k]; borrowed from the graph */
  sfi_digest weight_digest; /* of `matrix`: shape, strides and bytes */
  const sfi_facts *facts;
  const int64_t *k_offset; /* depth entries, elements; NULL: k * stride[1] */
  int64_t groups;          /* convolution: rows of group g use k of group g only; W then has columns = depth with zeros elsewhere,
                           except that `matrix` holds depth / groups columns */
  int64_t pitch, valid, fold;
  sfi_window window[2];
  bool in_place;
} sfi_contract;

/* out[b, h, i, f] = sum over j of softmax over j (scale * sum over e of q[b, h, i, e] k[b, g, j, e] + mask[b, h, i, j]) v[b, g, j, f],
 * g = h / group. Space (b, h, t, f, l): a ragged one, whose panel t and lane l are the query i. Keys are two more dimensions, a block
 * and a key within it, j = block * key_block + key (reduce_extent), and the last that accesses are affine in. Operand 1 is q, 2 k, 3 v;
 * dimension 3 of q and k is e, below `depth`; dimension 1 of k and v is g. Keys at or past `keys` do not exist; with `position`, an operand
 * of one integer p, neither do those at or past p + queries; where causal, query i has only those up to p + i (p 0 without it). */
typedef struct sfi_attend {
  int64_t group, depth, key_block;
  sfi_poly keys;
  float scale;
  bool causal;
  int32_t mask, position; /* operands; 0: none */
} sfi_attend;

/* Tiles, shared by the runtime and the emitters; tile numbers are row-major over the dimensions named here.
 *   CONTRACT, PRODUCT: (t, column block, row block): extent of t, or 1 where tile.all_t, x ceil(J / tile.column_block) x ceil(M / tile.row_block) where M is
 *     contract.row_count. In a panel space a tile spans the whole panel: one column block.
 *   NODE: one tile.
 *   Others: the first `tile_dims` dimensions of the space, one tile an index; 0: one tile. Neither the last dimension nor `axis` nor
 *     any dimension behind `axis` is among them. */
typedef struct sfi_kernel {
  const char *name; /* "k2.matmul+add+relu": position, anchor, epilogue; for people */
  sfi_anchor anchor;
  int32_t rank; /* of the space */
  sfi_extent extent[SFI_SPACE_MAX];
  sfi_ragged ragged;
  int32_t tile_dims;
  int32_t n_operands;
  sfi_access operand[SFI_OPERANDS_MAX]; /* 0: output; 1: main input (not MAP); 2: W of a contraction; then those of LOADs */
  int32_t n_bounds;
  sfi_bound bound[SFI_BOUNDS_MAX];
  sfi_expr pre;      /* REDUCE, SOFTMAX, NORMALIZE: over space + reduction dimensions; LOADs only, no ARG */
  sfi_expr epilogue; /* never empty; starts with ARG where the anchor has a value */
  /* REDUCE; ATTEND: keys */
  sf_op reduce; /* REDUCE_SUM, REDUCE_MEAN, REDUCE_MAX */
  int32_t reduce_rank;
  sfi_extent reduce_extent[SFI_SPACE_MAX]; /* accesses' strides [rank .. rank + reduce_rank) */
  int32_t axis;                            /* SOFTMAX, NORMALIZE */
  double eps;
  bool centred; /* NORMALIZE; false: about 0 in place of the mean */
  sfi_pool pool;
  sfi_contract contract;
  sfi_attend attend;
  /* ANCHOR_NODE: index in the plan's graph; operand 0 is its output, operand 1 + i its input i: whole ROW buffers of the node's
   * shapes, offsets and strides unused. SF_NO_VALUE: operand 1 is copied to operand 0.
   * Other anchors: the operation they come from, SF_NO_VALUE for what lowering added; for names only. */
  sf_value node;
  /* Set by the choice pass. */
  const struct sfi_emitter *emitter; /* NULL: ANCHOR_NODE */
  struct {
    int32_t rows;         /* Mr: rows of W in a panel */
    int32_t vectors;      /* V: vectors of columns in the tile */
    int64_t row_block;    /* rows of one tile of work, a multiple of Mr */
    int64_t column_block; /* columns of one tile of work; PANEL: the panel */
    bool all_t;           /* a tile of work is of all t */
    bool ahead;           /* W comes from memory in each run, and is prefetched */
    sfi_digest pattern;   /* facts->pattern where the code holds it; else 0 */
  } tile;
  double predicted_us; /* on one thread, at the class's bound or a typical extent (sfi_choice_symbol) */
  double measured_us;  /* the same, timed; 0: it was not */
  const char *choice;  /* why: "spmm-counted 3.1 us; gemm-dense 9.8 us; gemv-bitmap refused: more than one column" */
} sfi_kernel;

/* ---- buffers ------------------------------------------------------------------------------------------------------ */

typedef enum sfi_buffer_kind {
  SFI_BUFFER_INPUT,  /* the host's; `index` of the graph's inputs */
  SFI_BUFFER_OUTPUT, /* the host's */
  SFI_BUFFER_STATIC, /* dense data of a WEIGHT or CONSTANT, `value` */
  SFI_BUFFER_PACKED, /* made by the emitter of the kernel `index` */
  SFI_BUFFER_TEMP    /* in the arena */
} sfi_buffer_kind;

typedef struct sfi_buffer {
  sfi_buffer_kind kind;
  int32_t index;
  sf_value value; /* of the plan's graph; SF_NO_VALUE for what lowering added (padded images, panels) */
  sf_dtype dtype;
  /* Elements: PANEL: ceil(columns / panel) * panel * features; ROW (panel 0): columns * features. */
  int64_t panel;
  sfi_poly columns, features;
  int64_t slack;               /* elements behind the last one that may be read; their values are unspecified */
  int32_t first_use, last_use; /* kernels, by index; TEMP: written at first_use */
} sfi_buffer;

typedef struct sfi_plan {
  const sf_graph *graph; /* after the graph passes; borrowed */
  const sfi_target *target;
  sfi_arena arena;                /* owns everything below */
  int64_t symbol_min, symbol_max; /* the class: symbol in [min, max]; max INT64_MAX: no bound, and then the symbol may be 0 too */
  double weight_bytes; /* about what all weights take as they are packed: a run reads them once. Set by the choice pass */
  sfi_buffer *buffers;
  size_t n_buffers, buffers_capacity;
  sfi_kernel *kernels;
  size_t n_kernels, kernels_capacity;
} sfi_plan;

bool sfi_extent_eval(sfi_extent e, int64_t symbol, int64_t *out);
/* Bytes of a buffer with its slack; false on overflow. */
bool sfi_buffer_bytes(const sfi_buffer *buffer, int64_t symbol, size_t *out);
/* Every rule above. */
sf_status sfi_plan_verify(const sfi_plan *plan, sfi_diag *diag);
/* For people: kernels with spaces, accesses, epilogues, choices; buffers. */
void sfi_plan_print(const sfi_plan *plan, sfi_text *out);
/* Canonical text of one kernel: everything that its code may depend on and nothing else (no names, no buffer numbers, no weight
 * values, no facts beyond what `emitter` declares it bakes in). Key of the kernel cache. */
void sfi_kernel_key(const sfi_plan *plan, const sfi_kernel *kernel, sfi_text *out);
/* Number of tiles at `symbol`; the runtime spreads [0, tiles). */
int64_t sfi_kernel_tiles(const sfi_kernel *kernel, int64_t symbol);

#endif
