/* Masks that are made of known numbers alone, as a causal one is: one number where a key stands at its query or before it, one where it
 * stands behind it. */
#ifndef SFI_TRIANGLE_H
#define SFI_TRIANGLE_H

#include "passes.h"

typedef struct sfi_triangle {
  bool known[2]; /* of element [.., row, column]: [0] where column <= row, [1] where column > row */
  float value[2];
} sfi_triangle;

/* Of a value of at least two dimensions; what is not known may be anything. Reads static operands; one that cannot be read is an error in
 * diag. */
sfi_triangle sfi_triangle_of(const sfi_pass_env *env, const sf_graph *graph, sf_value value, sfi_diag *diag);

#endif
