/* A rule of simplify that has a file of its own. */
#ifndef SFI_UNFOLD_TRANSPOSED_H
#define SFI_UNFOLD_TRANSPOSED_H

#include "rewrite.h"

/* A conv_transpose of the new graph as a convolution; SF_NO_VALUE where its weight is not static. */
sf_value sfi_unfold_transposed(sfi_rewrite *rewrite, const sfi_node *node);

#endif
