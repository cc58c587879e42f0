/* Operations as rows of text: "x" shapes and attributes to a node, so that a test's table reads like its subject.
 * Operands: "[batch,784] i[10]", each becomes an input, of integers (i64) behind an i.
 * Attributes: "stride=[2,2] groups=1 eps=0.1". */
#ifndef GRAPH_ROWS_H
#define GRAPH_ROWS_H

#include "graph.h"

#include <ctype.h>
#include <stdlib.h>

/* Reads "[1,batch,3]" at *at, and moves *at behind it. "batch" is SF_DIM_SYMBOLIC. */
static inline int32_t row_list(const char **at, int64_t *out, int32_t most) {
  int32_t count = 0;
  const char *c = *at + 1;
  while (*c != ']' && count < most) {
    char *end = (char *)c;
    if (isalpha((unsigned char)*c)) {
      out[count++] = SF_DIM_SYMBOLIC;
      while (isalpha((unsigned char)*end)) end++;
    } else {
      out[count++] = strtoll(c, &end, 10);
    }
    c = *end == ',' ? end + 1 : end;
  }
  *at = c + 1;
  return count;
}

static inline int32_t row_operands(sf_graph *graph, const char *text, sf_value *out, int32_t most) {
  int32_t count = 0;
  for (const char *c = text; *c && count < most;) {
    if (*c == '[') {
      int64_t dims[SF_MAX_RANK + 2];
      const bool integers = c != text && c[-1] == 'i';
      int32_t rank = row_list(&c, dims, SF_MAX_RANK + 2);
      out[count++] = sf_graph_input(graph, NULL, integers ? SF_I64 : SF_F32, rank, dims);
    } else {
      c++;
    }
  }
  return count;
}

enum { ROW_ATTRS = 8, ROW_INTS = 10 };

static inline int32_t row_attrs(const char *text, sf_attr *out, int64_t ints[ROW_ATTRS][ROW_INTS]) {
  int32_t count = 0;
  for (const char *c = text; *c && count < ROW_ATTRS;) {
    size_t length = strcspn(c, "=");
    sf_attr *attr = &out[count];
    *attr = (sf_attr){0};
    if (!sfi_attr_named(c, length, &attr->id)) return -1;
    c += length + 1;
    if (*c == '[') {
      attr->count = row_list(&c, ints[count], ROW_INTS);
      attr->ints = ints[count];
    } else {
      char *end;
      if (sfi_attr_info_of(attr->id)->type == SFI_ATTR_FLOAT)
        attr->f = strtod(c, &end);
      else
        attr->i = strtoll(c, &end, 10);
      c = end;
    }
    while (*c == ' ') c++;
    count++;
  }
  return count;
}

/* The operation with its operands as new inputs. */
static inline sf_value row_node(sf_graph *graph, sf_op op, const char *operands, const char *attributes) {
  sf_value values[32];
  sf_attr attrs[ROW_ATTRS];
  int64_t ints[ROW_ATTRS][ROW_INTS];
  int32_t n_inputs = row_operands(graph, operands, values, 32), n_attrs = row_attrs(attributes, attrs, ints);
  return sf_graph_op(graph, op, n_inputs, values, n_attrs, attrs);
}

#endif
