/* Zeros for the weights of a graph: which weights are layers, what pattern each gets, and what that does to the results.
 * A layer is a weight that a product or a convolution multiplies with, seen as a matrix of an output a row and an input (or input and tap)
 * a column. */
#ifndef TOOL_PRUNE_H
#define TOOL_PRUNE_H

#include "common.h"

typedef enum prune_kind { PRUNE_DENSE, PRUNE_MAGNITUDE, PRUNE_GLOBAL, PRUNE_NM, PRUNE_BLOCKS } prune_kind;

/* "dense"; "0.9": the smallest nine tenths of the layer; "global:0.9": of all such layers together; "2:4": of each 4 inputs of an output
 * the largest 2 stay, "2:4:out": of each 4 outputs of an input; "4x1:0.9": the smallest nine tenths of blocks of 4 outputs by 1 input. */
typedef struct prune_pattern {
  prune_kind kind;
  double zeros; /* 0 to 1 */
  int64_t n, m, rows, columns;
  bool along_outputs;
} prune_pattern;
bool prune_pattern_parse(const char *text, prune_pattern *out);

enum { PRUNE_RULES_MAX = 64 };
/* Patterns by the names of layers, the weight's or its user's; the last that fits counts. */
typedef struct prune_rules {
  int count;
  struct {
    const char *glob, *text; /* `*` and `?` as in a shell; the text of the pattern */
    prune_pattern pattern;
  } rules[PRUNE_RULES_MAX];
} prune_rules;
/* "GLOB=PATTERN", kept as it is; false where it is nothing like that. */
bool prune_rules_add(prune_rules *rules, const char *glob, const char *pattern);

typedef struct prune_layer {
  sf_value weight, user;             /* the product or convolution */
  const char *name, *used_by, *text; /* used_by: the user's name, or NULL */
  prune_pattern pattern;
  int64_t rows, columns, row_step, column_step; /* element (r, c) of the matrix is element r * row_step + c * column_step */
  const float *dense;
  float *pruned; /* NULL: it stays dense */
  int64_t zeros_before, zeros_after;
} prune_layer;

typedef struct prune_plan {
  prune_layer *layers;
  int32_t count;
} prune_plan;
/* Finds the layers, decides and prunes; the graph is not changed. Ends with prune_plan_end. */
sf_status prune_plan_make(const sf_graph *graph, const prune_rules *rules, prune_plan *out_plan, sf_error *error);
/* Gives the graph the pruned weights, which it borrows. */
sf_status prune_plan_apply(const prune_plan *plan, sf_graph *graph);
/* A row a layer, with its zeros before and after. */
void prune_plan_print(const prune_plan *plan, FILE *out);
void prune_plan_end(prune_plan *plan);

/* prune_audit.c: runs the graph on `inputs` (in the order of its inputs), dense, with each layer pruned alone, and with one more pruned at a
 * time, and prints what that changes: at the layer's own result, and at the graph's. */
sf_status prune_audit(sf_context *context, const sf_graph *graph, const prune_plan *plan, const sf_tensor *inputs, FILE *out,
                      sf_error *error);

#endif
