/* The importer's own: what a name of the model stands for, and what the importers of operators share.
 *
 * A value of the model is one of three things. In the graph: an operation's result, whose extents may lag behind the model's by
 * broadcasting (an Expand is kept as a promise, since most consumers broadcast anyway). Static: elements known now, integers as
 * polynomials of the symbolic dimension, so that arithmetic on shapes folds away. Unknown: its node was refused; what needs it is
 * passed over. */
#ifndef SFI_ONNX_IMPORT_H
#define SFI_ONNX_IMPORT_H

#include "context.h"
#include "graph.h"
#include "infer.h"
#include "onnx.h"
#include "onnx_model.h"

typedef enum value_kind { VALUE_UNKNOWN, VALUE_GRAPH, VALUE_STATIC } value_kind;

typedef struct onnx_value {
  const char *name;
  value_kind kind;
  sfi_shape shape; /* as the model has it */
  /* In the graph; for a static one SF_NO_VALUE until an operation takes it. Its shape there has the same rank, and each extent is that of
   * `shape` or 1. */
  sf_value value;
  /* Static: exactly one of the three lists, of `count` elements, row-major in `dims`, each of which is the extent in `shape`, or 1, or where
   * that is the symbolic dimension itself, more than it ever is: the first so many count. */
  onnx_type type; /* in the graph: of the model's elements; booleans are fp32's 0 and 1 there */
  const float *floats;
  const int64_t *ints; /* integers and booleans */
  const sfi_poly *polys;
  int64_t dims[SF_MAX_RANK], count;
} onnx_value;

enum {
  ONNX_INPUTS_MAX = 512,
  ONNX_FOLD_MAX = 1 << 20, /* elements that an operation may make at import */
  ONNX_SYMBOL_MAX = 4096,  /* what the symbolic dimension is where a list as long as it has to be made at import */
  ONNX_SQUARE_MAX = 1024   /* and where a square of it has to */
};

typedef struct importer {
  sf_context *context;
  const sfi_onnx_options *options;
  sf_graph *graph;
  sfi_diag diag; /* of the node at work */
  sfi_arena arena;
  const char *file, *folder;
  onnx_model model;
  int64_t opset;
  onnx_value *values; /* open addressing by name, a power of two of them */
  size_t slots;
  onnx_list external_files;               /* names of those that elements were read from, const char * */
  uint64_t external_size, external_bytes; /* what they hold, and what was read of them so far */
  const char *symbol;                     /* the model's name of the symbolic dimension; NULL: none yet */
  sf_error first;                         /* of all that was refused */
  /* The node at work. */
  const onnx_node *node;
  const struct onnx_operator *operator;
  size_t number;                   /* from 1 */
  onnx_value *in[ONNX_INPUTS_MAX]; /* NULL: left out */
  int32_t n_in, n_out;
  int64_t arg; /* of its row in the table */
} importer;

/* Arguments of rows of onnx_operators.def beside operations of the graph. */
enum { FOLD_MOD = 1000, FOLD_FLOOR, FOLD_CEIL, FOLD_ROUND, FOLD_SIGN, FOLD_RECIPROCAL };
enum { COMPARE_LESS, COMPARE_LESS_EQUAL, COMPARE_GREATER, COMPARE_GREATER_EQUAL, COMPARE_EQUAL };
enum { REDUCE_SUM, REDUCE_MEAN, REDUCE_MAX, REDUCE_MIN, REDUCE_PROD, REDUCE_L1, REDUCE_L2, REDUCE_SUM_SQUARE, REDUCE_LOG_SUM_EXP };

/* One row of onnx_operators.def. */
typedef struct onnx_operator {
  const char *name;
  bool (*import)(importer *im);
  int64_t arg;
  int32_t min_in, max_in;
  const char *attributes; /* the names that are understood, each between blanks */
  const char *doc;
} onnx_operator;
#define ONNX_OP(name, import, arg, min, max, attributes, doc) bool sfi_import_##import(importer *im);
#include "onnx_operators.def"
#undef ONNX_OP
const onnx_operator *sfi_onnx_operator_named(const char *name);

/* ---- errors: all return false ------------------------------------------------------------------------------------- */

bool sfi_onnx_fail(importer *im, sf_status status, const char *format, ...) SFI_PRINTF(3, 4);
bool sfi_onnx_fail_memory(importer *im);
#define UNSUPPORTED(im, ...) sfi_onnx_fail(im, SF_STATUS_UNSUPPORTED, __VA_ARGS__)
#define INVALID(im, ...) sfi_onnx_fail(im, SF_STATUS_INVALID_GRAPH, __VA_ARGS__)

/* ---- names -------------------------------------------------------------------------------------------------------- */

onnx_value *sfi_onnx_find(importer *im, const char *name); /* NULL: no such value */
/* Names a new value; NULL and an error where there is one already. */
onnx_value *sfi_onnx_define(importer *im, const char *name);

/* ---- attributes --------------------------------------------------------------------------------------------------- */

/* The value of an attribute of the node, or `otherwise`. False: it has another type. */
bool sfi_onnx_int(importer *im, const char *name, int64_t otherwise, int64_t *out);
bool sfi_onnx_float(importer *im, const char *name, double otherwise, double *out);
bool sfi_onnx_text(importer *im, const char *name, const char *otherwise, const char **out);
/* *out_count -1: it is not there. At most `room`. */
bool sfi_onnx_ints(importer *im, const char *name, int32_t room, int64_t *out, int32_t *out_count);
const onnx_attribute *sfi_onnx_attribute(importer *im, const char *name);
/* `axis` in [-rank, rank), counted from 0. */
bool sfi_onnx_axis(importer *im, int64_t axis, int32_t rank, int32_t *out);

/* ---- operands ----------------------------------------------------------------------------------------------------- */

static inline bool sfi_onnx_given(const importer *im, int32_t i) {
  return i < im->n_in && im->in[i];
}
static inline bool sfi_onnx_is_static(const importer *im, int32_t i) {
  return sfi_onnx_given(im, i) && im->in[i]->kind == VALUE_STATIC;
}
bool sfi_onnx_all_static(const importer *im);
/* Operand i in the graph. `whole`: with the extents it has in the model; else as it is, for what broadcasts. */
bool sfi_onnx_operand(importer *im, int32_t i, bool whole, sf_value *out);
/* A static list of integers: a vector or a scalar. */
bool sfi_onnx_list(importer *im, int32_t i, int32_t room, sfi_poly *out, int32_t *out_count);
/* The same without the symbolic dimension. */
bool sfi_onnx_numbers(importer *im, int32_t i, int32_t room, int64_t *out, int32_t *out_count);
/* A static scalar of any type. */
bool sfi_onnx_number(importer *im, int32_t i, double *out);
/* List of integers that is attribute `name` or, in later opsets, operand i. */
bool sfi_onnx_axes(importer *im, int32_t i, const char *name, int32_t room, int64_t *out, int32_t *out_count);

/* ---- statics ------------------------------------------------------------------------------------------------------ */

static inline bool sfi_onnx_is_float(onnx_type type) {
  return type == ONNX_FLOAT || type == ONNX_DOUBLE || type == ONNX_FLOAT16 || type == ONNX_BFLOAT16;
}
double sfi_onnx_real(const onnx_value *v, int64_t i);      /* element i of a static that is no polynomial there */
sfi_poly sfi_onnx_integer(const onnx_value *v, int64_t i); /* element i of a static of integers */
bool sfi_onnx_whole(const onnx_value *v);                  /* are the elements there all those of its shape? */
/* The elements that `v` has there, seen with `rank` extents, from element `offset` on, with a step for each: a new list of them into *out,
 * whose shape and type become those of the view. */
bool sfi_onnx_view(importer *im, const onnx_value *v, int32_t rank, const int64_t *dims, int64_t offset, const int64_t *steps,
                   onnx_value *out);
int64_t sfi_onnx_strides(const onnx_value *v, int64_t *out); /* row-major; returns the number of elements */
/* Fills *out from lists of `count` elements, owned by the importer's arena. */
void sfi_onnx_set_floats(onnx_value *out, int32_t rank, const int64_t *dims, int64_t count, const float *floats);
void sfi_onnx_set_ints(onnx_value *out, onnx_type type, int32_t rank, const int64_t *dims, int64_t count, const int64_t *ints);
/* The same; those without the symbolic dimension become plain integers. */
bool sfi_onnx_set_polys(importer *im, onnx_value *out, onnx_type type, int32_t rank, const int64_t *dims, int64_t count,
                        const sfi_poly *polys);
bool sfi_onnx_count(importer *im, int32_t rank, const int64_t *dims, int64_t *out); /* refuses more than ONNX_FOLD_MAX */
/* An initialiser or an attribute's tensor. */
bool sfi_onnx_tensor(importer *im, const onnx_tensor *tensor, onnx_value *out);

/* Computes `kind` (an operation of the graph or a FOLD_) of the node's static operands as output 0, element by element with broadcasting.
 * *out_done false and no error: not done, operands are not all static, or floats that are too many to be worth it. */
bool sfi_onnx_fold(importer *im, int64_t kind, bool *out_done);

/* ---- results ------------------------------------------------------------------------------------------------------ */

/* Output i of the node; NULL where the model leaves it out or an error is kept. */
onnx_value *sfi_onnx_output(importer *im, int32_t i);
/* Output i is `source` under this node's name. */
bool sfi_onnx_same(importer *im, int32_t i, const onnx_value *source);
/* Output i is `value` of the graph; with SF_NO_VALUE the graph's error is taken over. */
bool sfi_onnx_result(importer *im, int32_t i, sf_value value);
/* The same, and in the model it has the extents of `shape`, to which those in the graph broadcast. */
bool sfi_onnx_result_as(importer *im, int32_t i, sf_value value, const sfi_shape *shape);
/* The shape that all operands broadcast to in the model. */
bool sfi_onnx_broadcast(importer *im, sfi_shape *out);

/* ---- building ----------------------------------------------------------------------------------------------------- */

sf_value sfi_onnx_build(importer *im, sf_op op, int32_t n, const sf_value *operands, int32_t n_attrs, const sf_attr *attrs);
sf_value sfi_onnx_unary(importer *im, sf_op op, sf_value x);
sf_value sfi_onnx_binary(importer *im, sf_op op, sf_value x, sf_value y);
sf_value sfi_onnx_scalar(importer *im, double value); /* a constant of rank 0 */
/* `x` under extents of which at most one is symbolic, or that it shares with x. */
sf_value sfi_onnx_reshaped(importer *im, sf_value x, const sfi_shape *shape);
sf_value sfi_onnx_transposed(importer *im, sf_value x, int32_t rank, const int64_t *perm);
/* Of a table's dimensions that are symbolic in `shape`, and have more than one element here, the first so many. */
sf_value sfi_onnx_first(importer *im, sf_value x, const sfi_shape *shape);
static inline const sfi_shape *sfi_onnx_shape_of(const importer *im, sf_value x) {
  return &im->graph->nodes[x].shape;
}

#endif
