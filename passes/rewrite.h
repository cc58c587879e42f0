/* What graph passes share: building the new graph node by node under a map of values. */
#ifndef SFI_REWRITE_H
#define SFI_REWRITE_H

#include "passes.h"
#include "text_names.h"

enum { SFI_INPUTS_MAX = 16, SFI_ATTRS_MAX = 8 }; /* of any row of ops.def */

typedef struct sfi_rewrite {
  sfi_pass_env *env;
  const sf_graph *from;
  sf_graph *to;
  sf_value *map;     /* of each value of `from`: its value in `to`; SF_NO_VALUE until it has one */
  sfi_names weights; /* names of weights that are taken; empty until one is made */
  int number;        /* behind the next name that is taken */
} sfi_rewrite;

/* False: out of memory, in env->diag; nothing to end. */
bool sfi_rewrite_begin(sfi_rewrite *rewrite, sfi_pass_env *env, const sf_graph *graph);
/* Ends the pass: drops what no output needs, inputs excepted, and publishes the new graph; or, where `status` or the new graph holds
 * an error, releases everything. */
sf_status sfi_rewrite_end(sfi_rewrite *rewrite, sf_status status, sf_graph **out_graph);
/* Has building failed? Values may then be SF_NO_VALUE. */
static inline bool sfi_rewrite_failed(const sfi_rewrite *rewrite) {
  return rewrite->to->diag.error.status != SF_OK;
}

/* Copies a node of `from` with its operands mapped, and maps it. Data is shared. */
sf_value sfi_rewrite_copy(sfi_rewrite *rewrite, sf_value value);
/* Adds a node with the operation, attributes, name and place of `like` (of either graph) and operands of `to`. */
sf_value sfi_rewrite_add_like(sfi_rewrite *rewrite, const sfi_node *like, const sf_value *inputs);
/* Adds `op` under the name and place of `like`. */
sf_value sfi_rewrite_add(sfi_rewrite *rewrite, const sfi_node *like, sf_op op, int32_t n_inputs, const sf_value *inputs,
                         int32_t n_attrs, const sf_attr *attrs);

/* Zeroed memory of the new graph, for a static tensor. NULL: out of memory, and building has failed. */
float *sfi_rewrite_data(sfi_rewrite *rewrite, int64_t count);
/* Adds `data` (of sfi_rewrite_data) as an F32 tensor made from the static node `model` of either graph, under `label` in the text form
 * (NULL: a number): a WEIGHT named "<model>:<suffix>", numbered where that is taken, or a CONSTANT, as `model` is. */
sf_value sfi_rewrite_add_static(sfi_rewrite *rewrite, const sfi_node *model, const char *label, const char *suffix,
                                const sfi_shape *shape, const float *data);
/* The same for a WEIGHT whose elements `source` reads. */
sf_value sfi_rewrite_add_source(sfi_rewrite *rewrite, const sfi_node *model, const char *label, const char *suffix,
                                const sfi_shape *shape, sfi_source *source);
static inline const char *sfi_label(const sfi_node *node) {
  return node->label ? node->label : node->name;
}

/* Attributes of `node` as the builder takes them; returns their number. */
int32_t sfi_rewrite_attrs(const sfi_node *node, sf_attr out_attrs[SFI_ATTRS_MAX]);
/* The `shape` attribute that reshapes `from` to `to`, of to->rank entries; false where the text form has none, because more than one
 * symbolic extent is not the operand's own. */
bool sfi_reshape_attr(const sfi_shape *from, const sfi_shape *to, int64_t *out_ints);

/* Number of elements of a static value. */
static inline int64_t sfi_static_count(const sfi_node *node) {
  return (int64_t)(node->bytes / sizeof(float));
}

#endif
