/* The graph: values in order of definition, each made by one operation from earlier values (SSA; cycles cannot be written).
 * A value and its operation share one record, `sfi_node`, named by its index, an sf_value. Graphs are append-only: a pass
 * makes a new graph. Everything in a graph lives in its arena. */
#ifndef SFI_GRAPH_H
#define SFI_GRAPH_H

#include "source.h"

/* c[0] + c[1] s + c[2] s^2, where s >= 0 is the symbolic dimension. An extent, an offset or a stride, in elements. */
typedef struct sfi_poly {
  int64_t c[3];
} sfi_poly;

static inline sfi_poly sfi_const(int64_t v) {
  return (sfi_poly){{v, 0, 0}};
}
static inline bool sfi_is_const(sfi_poly p) {
  return p.c[1] == 0 && p.c[2] == 0;
}
static inline bool sfi_is(sfi_poly p, int64_t v) {
  return sfi_is_const(p) && p.c[0] == v;
}
static inline bool sfi_poly_equal(sfi_poly a, sfi_poly b) {
  return memcmp(&a, &b, sizeof a) == 0;
}
/* False on overflow or where the degree would exceed 2. */
bool sfi_poly_add(sfi_poly a, sfi_poly b, sfi_poly *out);
bool sfi_poly_mul(sfi_poly a, sfi_poly b, sfi_poly *out);
/* False unless `b` divides `a` exactly for every s. */
bool sfi_poly_div(sfi_poly a, sfi_poly b, sfi_poly *out);
bool sfi_poly_eval(sfi_poly p, int64_t s, int64_t *out); /* false on overflow */
/* "64", "batch", "12*batch+1", "batch*batch". symbol NULL: "s". */
void sfi_poly_print(sfi_text *text, sfi_poly p, const char *symbol);

typedef struct sfi_shape {
  int32_t rank;
  sfi_poly dims[SF_MAX_RANK];
} sfi_shape;
bool sfi_shape_numel(const sfi_shape *shape, sfi_poly *out);
bool sfi_shape_equal(const sfi_shape *a, const sfi_shape *b);
void sfi_shape_print(sfi_text *text, const sfi_shape *shape, const char *symbol); /* "[batch,3,4]" */

typedef struct sfi_attr_value {
  int64_t i;
  double f;
  int32_t count; /* of ints; -1: not given and without default */
  const int64_t *ints;
} sfi_attr_value;

typedef struct sfi_node {
  sf_op op;
  sf_dtype dtype;
  sfi_shape shape;
  int32_t n_inputs;
  const sf_value *inputs;
  /* All attributes of the operation, defaults filled in, in ascending order of their id; see sfi_attr_of. */
  const sfi_attr_value *attrs;
  const char *name; /* INPUT: unique; WEIGHT: the tensor's name; others: the text form's name, or NULL */
  const char
      *label; /* INPUT and WEIGHT: the value's name in the text form; NULL: `name`. Only the parser sets it, copies keep it */
  /* WEIGHT and CONSTANT: dense elements, 16-byte aligned or as the host gave them. NULL in other nodes, and in a large WEIGHT of a file,
   * which has a source instead: see sfi_node_open. */
  const void *data;
  size_t bytes;
  sfi_source *source; /* the graph's, its mapping's, or an earlier graph's */
  sfi_place place;
} sfi_node;

typedef struct sfi_output {
  const char *name;
  sf_value value;
} sfi_output;

struct sf_graph {
  sf_context *context; /* retained */
  sfi_arena arena;
  const char *name;
  const char *symbol;          /* name of the symbolic dimension; "batch" by default */
  const char *weights_file;    /* as written in the text; NULL: none */
  struct sfi_mapping *mapping; /* the weight file, kept while the graph lives; NULL: none */
  sfi_source *made;            /* sources made for this graph, linked by `next` */
  sfi_node *nodes;
  size_t n_nodes, nodes_capacity;
  sf_value *inputs; /* the INPUT nodes, in order */
  size_t n_inputs, inputs_capacity;
  sfi_output *outputs;
  size_t n_outputs, outputs_capacity;
  sfi_diag diag; /* first error of the builder */
  bool quiet;    /* errors stay in diag: whoever builds says them in its own words */
};

/* ---- tables ------------------------------------------------------------------------------------------------------- */

enum {
  SF_OPF_0 = 0,
  SF_OPF_LEAF = 1,
  SF_OPF_ELEMENTWISE = 2,
  SF_OPF_SHAPE = 4,
  SF_OPF_INDEXED = 8,
  SF_OPF_SHAPE_INDEXED = SF_OPF_SHAPE | SF_OPF_INDEXED,
  SF_OPF_SHAPE_ANY = SF_OPF_SHAPE | 16,
  SF_OPF_INDEXABLE = 32
};
enum { SF_DTYPEF_COMPUTE = 1, SF_DTYPEF_FLOAT = 2, SF_DTYPEF_INTEGER = 4 };
typedef enum sfi_attr_type { SFI_ATTR_INT, SFI_ATTR_FLOAT, SFI_ATTR_INTS } sfi_attr_type;

typedef struct sfi_op_info {
  const char *text, *doc;
  int32_t min_inputs, max_inputs;
  uint32_t attrs; /* bit of each sf_attr_id */
  uint32_t flags;
  sf_status (*infer)(const sf_graph *graph, sfi_node *node, sfi_diag *diag);
} sfi_op_info;
typedef struct sfi_attr_info {
  const char *text, *doc, *def;
  sfi_attr_type type;
} sfi_attr_info;
typedef struct sfi_dtype_info {
  const char *text, *safetensors;
  size_t bytes;
  uint32_t flags;
} sfi_dtype_info;

const sfi_op_info *sfi_op_of(sf_op op);               /* NULL where unknown */
const sfi_attr_info *sfi_attr_info_of(sf_attr_id id); /* NULL where unknown */
const sfi_dtype_info *sfi_dtype_of(sf_dtype dtype);   /* NULL where unknown */
bool sfi_op_named(const char *text, size_t length, sf_op *out);
bool sfi_attr_named(const char *text, size_t length, sf_attr_id *out);
bool sfi_dtype_named(const char *text, size_t length, sf_dtype *out);
int32_t sfi_op_count(void); /* values 0 .. count - 1; holes give NULL above */
int32_t sfi_attr_count(void);

/* The node's value of an attribute that its operation has. */
const sfi_attr_value *sfi_attr_of(const sfi_node *node, sf_attr_id id);
static inline int64_t sfi_attr_int(const sfi_node *node, sf_attr_id id) {
  return sfi_attr_of(node, id)->i;
}
static inline bool sfi_node_is_static(const sfi_node *node) {
  return node->op == SF_OP_WEIGHT || node->op == SF_OP_CONSTANT;
}
/* Is the value a WEIGHT or CONSTANT? */
static inline bool sfi_is_static(const sf_graph *graph, sf_value v) {
  return sfi_node_is_static(&graph->nodes[v]);
}
/* The elements of a static node, until it is closed. NULL: they cannot be read. Without it `data` may be NULL, except for as little as
 * numbers by channel. */
static inline const void *sfi_node_open(const sfi_node *node, sfi_diag *diag) {
  return node->source ? sfi_source_open(node->source, diag) : node->data;
}
static inline void sfi_node_close(const sfi_node *node) {
  if (node->source) sfi_source_close(node->source);
}

/* ---- building ----------------------------------------------------------------------------------------------------- */

/* As the public builder, with a name and a place. Everything is copied into the arena; `data` of leaves is copied too
 * unless `borrow`. Runs the checks of verify on the new node. SF_NO_VALUE on error (kept in graph->diag). */
sf_value sfi_graph_add_leaf(sf_graph *graph, sf_op op, const char *name, sf_dtype dtype, const sfi_shape *shape, const void *data,
                            bool borrow, const sfi_place *place);
/* Takes a source that was made, by sfi_source_join or sfi_source_select, as the graph's own, and returns it. NULL, which may be given:
 * out of memory, in the graph's diag. */
sfi_source *sfi_graph_own(sf_graph *graph, sfi_source *made);
/* All of them from another graph. */
void sfi_graph_take_made(sf_graph *graph, sf_graph *from);
/* A WEIGHT whose elements `source` reads; it is the graph's own or outlives it. */
sf_value sfi_graph_add_source(sf_graph *graph, const char *name, sf_dtype dtype, const sfi_shape *shape, sfi_source *source,
                              const sfi_place *place);
sf_value sfi_graph_add(sf_graph *graph, sf_op op, const char *name, int32_t n_inputs, const sf_value *inputs, int32_t n_attrs,
                       const sf_attr *attrs, const sfi_place *place);
/* name NULL makes one. */
sf_status sfi_graph_add_output(sf_graph *graph, const char *name, sf_value value, const sfi_place *place);
/* An empty graph with the name, symbol, places' file and inputs' context of `like`. For passes. NULL: out of memory. Weight
 * data of `like` may be borrowed as long as `like` lives. */
sf_graph *sfi_graph_new_like(const sf_graph *like);

/* ---- stages ------------------------------------------------------------------------------------------------------- */

/* Every rule of a well-formed graph; the first broken one goes to `diag`. */
sf_status sfi_graph_verify(const sf_graph *graph, sfi_diag *diag);
/* The text form; parse(print(g)) prints the same. */
void sfi_graph_print(const sf_graph *graph, sfi_text *out);
/* Reads the text form into `graph` (empty, or what earlier lines built: the REPL). Stops at the first error. On an error the graph
 * is what it was before the call but for the error in graph->diag: whoever clears that may go on with the graph. Values that
 * were built without a name answer to the name under which sfi_graph_print shows them. `file` is for messages; weight files
 * are looked for in `folder` (NULL: none may be named). */
sf_status sfi_graph_parse_into(sf_graph *graph, const char *text, size_t length, const char *file, const char *folder);

#endif
