/* The passes: one analysis or transformation a file. The pipeline that orders them, prints between them and verifies after them
 * is jit/pipeline.c. */
#ifndef SFI_PASSES_H
#define SFI_PASSES_H

#include "context.h"
#include "emitter.h"
#include "plan.h"

typedef struct sfi_pass_env {
  sf_context *context;
  sfi_diag *diag;
  /* Facts of a matrix, from the cache or by sfi_scan_zeros; owned by the compilation. NULL: it or its digest failed (in diag). */
  const sfi_facts *(*facts)(void *user, const sfi_matrix *matrix, sfi_digest digest);
  /* sfi_matrix_digest, computed once a compilation for each matrix. */
  sfi_digest (*digest)(void *user, const sfi_matrix *matrix);
  void *facts_user; /* of both */
  /* The reference back end on one node whose operands are static; data of node's shape and dtype. */
  void (*evaluate)(const sf_graph *graph, sf_value node, const sf_tensor *inputs, const sf_tensor *output);
  /* NULL: the lowest price decides. Else it chooses among n >= 2 copies of one kernel that differ in emitter, tile and price, cheapest
   * first, and may fill in their measured_us. *winner is the favourite by price. */
  sf_status (*judge)(void *user, const sfi_plan *plan, sfi_kernel *candidates, int32_t n, int32_t *winner);
  void *judge_user;
} sfi_pass_env;

/* Graph passes: read `graph`, make a new one. Weight data may be shared with `graph`, which must outlive the result. All
 * keep the inputs and outputs with their names, order and shapes, and values up to the order of sums. */
typedef sf_status (*sfi_graph_pass)(sfi_pass_env *env, const sf_graph *graph, sf_graph **out_graph);
sf_status sfi_fold_constants(sfi_pass_env *env, const sf_graph *graph, sf_graph **out_graph);
sf_status sfi_fold_batch_norm(sfi_pass_env *env, const sf_graph *graph, sf_graph **out_graph);
sf_status sfi_fuse_attention(sfi_pass_env *env, const sf_graph *graph, sf_graph **out_graph);
sf_status sfi_compose(sfi_pass_env *env, const sf_graph *graph, sf_graph **out_graph);
sf_status sfi_simplify(sfi_pass_env *env, const sf_graph *graph, sf_graph **out_graph);
sf_status sfi_eliminate_common(sfi_pass_env *env, const sf_graph *graph, sf_graph **out_graph);
sf_status sfi_eliminate_dead(sfi_pass_env *env, const sf_graph *graph, sf_graph **out_graph);
/* Shrinks weights by channels that are provably zero; see its file. */
sf_status sfi_propagate_dead_channels(sfi_pass_env *env, const sf_graph *graph, sf_graph **out_graph);
sf_status sfi_join_products(sfi_pass_env *env, const sf_graph *graph, sf_graph **out_graph);

/* Scans W once. SF_STATUS_OUT_OF_MEMORY is its only failure: it needs two bitmaps of W as scratch. */
sf_status sfi_scan_zeros(const sfi_matrix *matrix, const sf_allocator *allocator, sfi_diag *diag, sfi_facts *out_facts);
/* What facts list as `live`, of rows + columns entries. */
void sfi_scan_live(const sfi_matrix *matrix, uint8_t *out_live);
/* Digest of a matrix: shape, strides and elements. Never allocates. */
sfi_digest sfi_matrix_digest(const sfi_matrix *matrix);
/* The same of one with a source. False: it cannot be read. */
bool sfi_matrix_source_digest(const sfi_matrix *matrix, sfi_diag *diag, sfi_digest *out_digest);
/* How the static operand of a matmul or conv2d is read as W; false where the node has none that is a matrix. `operand` is its index
 * among the node's inputs. */
bool sfi_weight_matrix(const sf_graph *graph, sf_value node, int32_t *out_operand, sfi_matrix *out_matrix);
/* The same for a weight on its own, by its first consumer, else rows = first extent: for pictures and statistics. */
bool sfi_weight_as_matrix(const sf_graph *graph, sf_value weight, sfi_matrix *out_matrix);

/* Plan passes: change `plan` in place. */
/* Graph to kernels, one an operation, with layouts chosen and conversions inserted. plan: zero but for graph, target,
 * symbol_min, symbol_max and arena.allocator. */
sf_status sfi_lower_to_kernels(sfi_pass_env *env, sfi_plan *plan);
/* The same without a back end: every operation an ANCHOR_NODE. */
sf_status sfi_lower_to_nodes(sfi_pass_env *env, sfi_plan *plan);
/* Elementwise kernels merged into the epilogue of their producer or the expression of their consumer. */
sf_status sfi_fuse(sfi_pass_env *env, sfi_plan *plan);
/* An emitter for every kernel but ANCHOR_NODE. SF_STATUS_UNSUPPORTED where none accepts.
 * only: NULL, or the one emitter to take for contractions that it accepts; the choice of the others says why not. */
sf_status sfi_choose(sfi_pass_env *env, sfi_plan *plan, const sfi_emitter *const *emitters, size_t n_emitters, const char *only);
/* The extent of the symbol at which the kernels of a plan are priced: the class's bound, or a typical one. */
int64_t sfi_choice_symbol(const sfi_plan *plan);
/* Names every kernel anew by its position and what it computes. False: out of memory. */
bool sfi_name_kernels(sfi_plan *plan);
/* Lifetimes (first_use, last_use), and drops buffers that nothing uses. */
sf_status sfi_plan_lifetimes(sfi_pass_env *env, sfi_plan *plan);
/* Offsets of TEMP buffers in one arena for one value of the symbol: buffers alive at the same time do not overlap; 64-byte
 * aligned, with 64 bytes of slack behind each. offsets: n_buffers entries, SIZE_MAX for those not in the arena. Never allocates.
 * False on overflow. */
bool sfi_plan_memory(const sfi_plan *plan, int64_t symbol, size_t *offsets, size_t *out_bytes);

#endif
