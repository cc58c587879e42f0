/* Drops values that no output needs. Inputs stay, used or not, so that the signature does not change.
 * Needs a verified graph. Preserves everything else, bit for bit; the order of values too. */
#include "rewrite.h"

sf_status sfi_eliminate_dead(sfi_pass_env *env, const sf_graph *graph, sf_graph **out_graph) {
  sfi_rewrite rewrite;
  *out_graph = NULL;
  if (!sfi_rewrite_begin(&rewrite, env, graph)) return SF_STATUS_OUT_OF_MEMORY;
  for (size_t i = 0; i < graph->n_nodes && !sfi_rewrite_failed(&rewrite); i++) sfi_rewrite_copy(&rewrite, (sf_value)i);
  return sfi_rewrite_end(&rewrite, SF_OK, out_graph); /* which sweeps */
}
