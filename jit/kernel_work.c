/* What a kernel has to do at one extent of the symbol, and the least time that its target allows for that: the public view of a
 * program's kernels. Counts are of the plan, not of the code: each operand's elements once, each operation of an expression once a
 * point, each nonzero of a weight as one multiplication and one addition. */
#include "jit.h"

#include <math.h>

/* 0 for what cannot be counted; sf_run refuses such extents. */
static double extent_of(sfi_extent e, int64_t symbol) {
  int64_t n;
  return sfi_extent_eval(e, symbol, &n) ? (double)n : 0;
}

static double poly_of(sfi_poly p, int64_t symbol) {
  int64_t n;
  return sfi_poly_eval(p, symbol, &n) ? (double)n : 0;
}

static double operations(const sfi_expr *e) {
  int32_t n = 0;
  for (int32_t i = 0; i < e->n; i++) n += e->steps[i].kind == SFI_STEP_OP;
  return n;
}

/* Points of the space; of a panel space those of its real columns. */
static double points_of(const sfi_kernel *kernel, int64_t symbol) {
  double n = 1;
  for (int32_t d = 0; d < kernel->rank; d++) {
    if (kernel->ragged.width && d == kernel->ragged.lane) continue;
    n *= kernel->ragged.width && d == kernel->ragged.panel ? poly_of(kernel->ragged.columns, symbol)
                                                           : extent_of(kernel->extent[d], symbol);
  }
  return n;
}

static double reduced_of(const sfi_kernel *kernel, int64_t symbol) {
  double n = 1;
  for (int32_t d = 0; d < kernel->reduce_rank; d++) n *= extent_of(kernel->reduce_extent[d], symbol);
  return n;
}

/* Of a contraction: products of one column, the zeros of W among them where `dense`. */
static double products_of(const sfi_kernel *kernel, int64_t symbol, bool dense) {
  const sfi_contract *c = &kernel->contract;
  if (!dense && c->facts) return (double)c->facts->nonzeros;
  return poly_of(c->row_count, symbol) * poly_of(c->depth, symbol) / (double)sfi_max(c->groups, 1);
}

static double flops_of(const sfi_kernel *kernel, int64_t symbol, bool dense) {
  const double points = points_of(kernel, symbol), epilogue = points * operations(&kernel->epilogue);
  const double pre = 1 + operations(&kernel->pre);
  switch (kernel->anchor) {
  case SFI_ANCHOR_MAP:
    return epilogue;
  case SFI_ANCHOR_REDUCE:
    return epilogue + points * reduced_of(kernel, symbol) * pre;
  case SFI_ANCHOR_SOFTMAX: /* maximum, difference, exponential, sum, quotient */
    return epilogue + points * (4 + pre);
  case SFI_ANCHOR_NORMALIZE: /* square, sum, product; and sum, difference */
    return epilogue + points * ((kernel->centred ? 4 : 2) + pre);
  case SFI_ANCHOR_POOL:
    return epilogue + points * (double)(kernel->pool.kernel[0] * kernel->pool.kernel[1]);
  case SFI_ANCHOR_CONTRACT:
  case SFI_ANCHOR_PRODUCT: {
    const double rows = poly_of(kernel->contract.row_count, symbol);
    return epilogue + (rows > 0 ? 2 * points / rows * products_of(kernel, symbol, dense) : 0);
  }
  case SFI_ANCHOR_ATTEND: /* both products, and maximum, difference, exponential, sum, rescaling of a score */
    return epilogue + points * reduced_of(kernel, symbol) *
                          (2 + (2 * (double)kernel->attend.depth + 5) / extent_of(kernel->extent[3], symbol));
  case SFI_ANCHOR_NODE:
    return 0; /* loops of the reference back end: nobody looks there for speed */
  }
  return 0;
}

/* Bytes of operand `o`, no more than its buffer has: what a kernel walks over with a stride of 0 it reads once. */
static double operand_bytes(const sfi_plan *plan, const sfi_loaded *loaded, const sfi_kernel *kernel, int32_t o, int64_t symbol) {
  const sfi_access *access = &kernel->operand[o];
  const sfi_buffer *buffer = &plan->buffers[access->buffer];
  size_t bytes = 0;
  if (buffer->kind == SFI_BUFFER_PACKED) return loaded->packed ? (double)loaded->packed->packed.size : 0;
  if (!sfi_buffer_bytes(buffer, symbol, &bytes)) return 0;
  const double whole = (double)bytes;
  if (kernel->anchor == SFI_ANCHOR_NODE ||
      (o > 0 && kernel->anchor >= SFI_ANCHOR_POOL && o <= (kernel->anchor == SFI_ANCHOR_ATTEND ? 3 : 2)))
    return whole;
  double walked = (double)sfi_dtype_of(buffer->dtype)->bytes;
  for (int32_t d = 0; d < kernel->rank + kernel->reduce_rank; d++) {
    const sfi_poly stride = access->stride[d];
    const bool moved = access->index && !sfi_is(kernel->operand[access->index].stride[d], 0);
    if (sfi_is(stride, 0) && !moved) continue;
    walked *= extent_of(d < kernel->rank ? kernel->extent[d] : kernel->reduce_extent[d - kernel->rank], symbol);
  }
  return walked < whole ? walked : whole;
}

/* Everything that one run reads or writes: what a weight has been driven out of since the last run. */
static double run_bytes(const sfi_class *class, int64_t symbol) {
  double sum = 0;
  for (size_t b = 0; b < class->plan.n_buffers; b++) {
    const sfi_buffer *buffer = &class->plan.buffers[b];
    size_t bytes = 0;
    if (buffer->kind == SFI_BUFFER_PACKED) {
      bytes = class->loaded[buffer->index].packed->packed.size;
    } else if (!sfi_buffer_bytes(buffer, symbol, &bytes)) {
      bytes = 0;
    }
    sum += (double)bytes;
  }
  return sum;
}

/* Where `bytes` lie that are touched again after as many. */
static sf_bound level_of(const sfi_target *target, double bytes, int32_t threads) {
  if (bytes <= (double)target->l1_bytes * threads) return SF_BOUND_L1;
  if (bytes <= (double)target->l2_bytes * threads) return SF_BOUND_L2;
  return bytes <= (double)target->l3_bytes ? SF_BOUND_L3 : SF_BOUND_MEMORY;
}

/* Columns of W that register tiles of as many rows as the kernel's touch, over all tiles, at least. */
static double touched_columns(const sfi_kernel *kernel) {
  const sfi_facts *f = kernel->contract.facts;
  const double tile = kernel->tile.rows > 1 ? kernel->tile.rows : 1, nonzeros = (double)f->nonzeros;
  if (kernel->emitter->dense) return ceil((double)kernel->contract.rows / tile) * (double)f->columns;
  const double four = (double)f->panel_columns[SFI_PANEL4], eight = (double)f->panel_columns[SFI_PANEL8];
  if (tile < 4) return fmax(four, nonzeros / tile);
  return tile < 8 ? fmax(eight, four * 4 / tile) : eight * 8 / tile;
}

/* What load slots move for a contraction, at least: rows of X once for each register tile that touches them, W once for each V vectors of
 * columns. 0: nothing is known. */
static double loaded_bytes(const sfi_plan *plan, const sfi_loaded *loaded, const sfi_kernel *kernel, int64_t symbol) {
  const double rows = (double)kernel->contract.rows, vector = plan->target->lanes * 4.0;
  if (kernel->anchor != SFI_ANCHOR_CONTRACT || !kernel->contract.facts || !loaded->packed || rows == 0) return 0;
  const double columns = points_of(kernel, symbol) / rows, packed = (double)loaded->packed->packed.size;
  if (columns <= 1) return packed;
  const double vectors = ceil(columns / plan->target->lanes);
  return touched_columns(kernel) * vectors * vector + packed * ceil(vectors / fmax(1, kernel->tile.vectors));
}

void sfi_kernel_floors(const sfi_class *class, const sfi_kernel *kernel, int64_t symbol, int32_t threads,
                       double out_us[SF_BOUND_MEMORY + 1], double *out_bytes) {
  const sfi_plan *plan = &class->plan;
  const sfi_target *target = plan->target;
  const sfi_loaded *loaded = &class->loaded[kernel - plan->kernels];
  double work[SF_BOUND_MEMORY + 1] = {flops_of(kernel, symbol, false)}, fixed = 0, all = 0;
  for (int32_t o = 0; o < kernel->n_operands; o++) {
    const sfi_buffer_kind kind = plan->buffers[kernel->operand[o].buffer].kind;
    const double n = operand_bytes(plan, loaded, kernel, o, symbol);
    all += n;
    if (kind == SFI_BUFFER_PACKED || kind == SFI_BUFFER_STATIC) fixed += n;
  }
  work[level_of(target, run_bytes(class, symbol), threads)] += fixed;
  work[level_of(target, all, threads)] += all - fixed;
  work[SF_BOUND_L1] = fmax(work[SF_BOUND_L1], loaded_bytes(plan, loaded, kernel, symbol));
  const double rates[] = {target->peak_gflops, target->l1_gbps, target->l2_gbps, target->l3_gbps, target->memory_gbps};
  for (size_t i = 0; i < SFI_COUNT(rates); i++) out_us[i] = work[i] / (rates[i] * threads) * 1e-3;
  *out_bytes = all;
}

sf_bound sfi_largest_floor(const double us[SF_BOUND_MEMORY + 1]) {
  sf_bound bound = SF_BOUND_COMPUTE;
  for (int i = 0; i <= SF_BOUND_MEMORY; i++)
    if (us[i] > us[bound]) bound = (sf_bound)i;
  return bound;
}

static sfi_class *class_at(const sf_program *program, int64_t symbol) {
  return program && symbol >= 0 ? sfi_class_of(program, program->symbolic ? symbol : 1) : NULL;
}

int32_t sf_program_kernel_count(const sf_program *program, int64_t symbol) {
  const sfi_class *class = class_at(program, symbol);
  return class ? (int32_t)class->plan.n_kernels : 0;
}

static sfi_launch launch_at(const sf_program *program, const sfi_class *class, size_t k, int64_t symbol) {
  return sfi_launch_of(program->context, &class->plan, &class->plan.kernels[k], class->loaded[k].fn, symbol);
}

int32_t sf_program_span_count(const sf_program *program, int64_t symbol) {
  const sfi_class *class = class_at(program, symbol);
  int32_t chunks = 0;
  for (size_t k = 0; class && k < class->plan.n_kernels; k++) chunks += launch_at(program, class, k, symbol).chunks;
  return chunks;
}

sf_status sf_program_kernel_info(const sf_program *program, int64_t symbol, int32_t k, sf_kernel_info *out_info) {
  if (!program) return SF_STATUS_INVALID_ARGUMENT;
  sfi_class *class = class_at(program, symbol);
  sfi_diag diag = {0};
  if (!out_info || out_info->struct_size < sizeof out_info->struct_size) {
    sfi_fail(&diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL,
             "the information is NULL or lacks its struct_size; set it with SF_INIT");
  } else if (!class || k < 0 || (size_t)k >= class->plan.n_kernels) {
    sfi_fail(&diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "kernel %d at %lld: '%s' has %d there", (int)k, (long long)symbol,
             program->graph->name, (int)sf_program_kernel_count(program, symbol));
  } else if (sfi_class_load(program, class, &diag) == SF_OK) {
    const sfi_kernel *kernel = &class->plan.kernels[k];
    const sfi_facts *facts = kernel->anchor == SFI_ANCHOR_CONTRACT ? kernel->contract.facts : NULL;
    const sfi_launch launch = launch_at(program, class, (size_t)k, symbol);
    sf_kernel_info info = {.name = kernel->name,
                           .emitter = kernel->emitter ? kernel->emitter->name : "reference",
                           .weight = facts ? program->graph->nodes[kernel->contract.weight].name : NULL,
                           .density = facts ? sfi_density(facts) : 1,
                           .chunks = launch.chunks,
                           .flops = flops_of(kernel, symbol, false),
                           .dense_flops = flops_of(kernel, symbol, true),
                           .predicted_us = kernel->emitter ? kernel->predicted_us : 0,
                           .measured_us = kernel->measured_us};
    sfi_kernel_floors(class, kernel, symbol, (int32_t)sfi_min(launch.chunks, program->context->threads), info.floors_us,
                      &info.bytes);
    info.bound = sfi_largest_floor(info.floors_us);
    info.bound_us = info.floors_us[info.bound];
    sfi_options_write(out_info, &info, sizeof info);
  }
  return sfi_publish(program->context, NULL, &diag);
}

sf_status sf_program_machine(const sf_program *program, sf_machine_info *out_info) {
  if (!program) return SF_STATUS_INVALID_ARGUMENT;
  sfi_diag diag = {0};
  if (!out_info || out_info->struct_size < sizeof out_info->struct_size) {
    sfi_fail(&diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL,
             "the information is NULL or lacks its struct_size; set it with SF_INIT");
  } else {
    const sfi_target *target = program->classes[0].plan.target;
    const int32_t threads = program->context->threads;
    const sf_machine_info info = {.target = target->name,
                                  .threads = threads,
                                  .peak_gflops = target->peak_gflops * threads,
                                  .l1_gbps = target->l1_gbps * threads,
                                  .l2_gbps = target->l2_gbps * threads,
                                  .l3_gbps = target->l3_gbps * threads,
                                  .memory_gbps = target->memory_gbps * threads};
    sfi_options_write(out_info, &info, sizeof info);
  }
  return sfi_publish(program->context, NULL, &diag);
}
