/* The reference back end: every operation in plain loops, accumulated in fp64. The oracle of every test, and what runs where no
 * emitter applies. Needs a verified graph. */
#ifndef SFI_REF_H
#define SFI_REF_H

#include "graph.h"

/* Runs one operation. `inputs` and `output` are dense row-major tensors of concrete shape, which may stand for a symbolic one of the
 * node; F32 or F64 each, converted on load and store. A zero of a static (WEIGHT or CONSTANT) operand of matmul or conv2d is
 * absent: 0 x Inf is 0 there. Never allocates, never fails on a verified graph. */
void sfi_ref_node(const sf_graph *graph, sf_value node, const sf_tensor *inputs, const sf_tensor *output);

/* Runs the whole graph with every intermediate kept in `precision` (F32 or F64). inputs and outputs: as for sf_run, of F32 or F64
 * each. An operand counts as static when it depends on no input: folding constants then changes no result. Fails only out of
 * memory, or (INVALID_ARGUMENT) where `symbol` makes a tensor too large to count. */
sf_status sfi_ref_run(const sf_graph *graph, const sf_allocator *allocator, sf_dtype precision, int64_t symbol,
                      const sf_tensor *inputs, const sf_tensor *outputs, sfi_diag *diag);

#endif
