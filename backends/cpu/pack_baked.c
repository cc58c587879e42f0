/* Blocks of K of "spmm-baked", the walk over the nonzeros that its code and values are made of, and the packed values. See emit_baked.c. */
#include "baked.h"
#include "emitters.h"

double sfi_baked_far(const sfi_kernel *k, const sfi_target *target, int64_t blocks) {
  const double vectors = k->tile.vectors;
  const double bytes =
      (double)k->contract.depth.c[0] * vectors * target->lanes * 4 * 2 / (double)blocks; /* two panels take turns */
  return 0.28 * vectors * sfi_far(target, bytes, (double)target->l1_bytes * 5 / 6);
}

/* One more block of K, which loads and stores the sums of all rows, against rows of X that are not in L1. */
int64_t sfi_baked_blocks(const sfi_kernel *k, const sfi_target *target) {
  const double nonzeros = (double)k->contract.facts->nonzeros / (double)sfi_max(1, k->contract.rows);
  double least = 0;
  int64_t best = 1;
  for (int64_t n = 1; n == 1 || sfi_baked_far(k, target, n - 1) > 0; n++) {
    const double cycles = (double)n * 2 * SFI_BAKED_VISIT * k->tile.vectors + nonzeros * sfi_baked_far(k, target, n);
    if (n == 1 || cycles < least) least = cycles, best = n;
  }
  return best;
}

int64_t sfi_baked_depth(const sfi_kernel *k, const sfi_target *target) {
  return sfi_max(1, sfi_ceil_div(k->contract.depth.c[0], sfi_baked_blocks(k, target)));
}

int64_t sfi_baked_groups(const sfi_kernel *k) {
  return sfi_ceil_div(k->contract.rows, k->tile.rows);
}

int32_t sfi_baked_group_rows(const sfi_kernel *k, int64_t group) {
  return (int32_t)sfi_min(k->tile.rows, k->contract.rows - group * k->tile.rows);
}

int64_t sfi_baked_pieces(const sfi_kernel *k, const sfi_target *target) {
  return sfi_baked_groups(k) * sfi_baked_blocks(k, target);
}

void sfi_baked_walk(const sfi_kernel *k, const sfi_target *target, sfi_baked_fn visit, void *user) {
  int64_t groups = sfi_baked_groups(k), depth = sfi_baked_depth(k, target), all = k->contract.depth.c[0];
  for (int64_t piece = 0; piece < sfi_baked_pieces(k, target); piece++) {
    int64_t group = piece % groups, begin = piece / groups * depth;
    for (int64_t i = begin; i < sfi_min(begin + depth, all); i++) {
      sfi_baked_column column = {.piece = piece, .k = i};
      for (int32_t r = 0; r < sfi_baked_group_rows(k, group); r++)
        if (sfi_weight_at(&k->contract, group * k->tile.rows + r, i) != 0) column.row[column.n++] = r;
      if (column.n) visit(user, &column);
    }
  }
}

typedef struct packer {
  const sfi_kernel *k;
  float *next;
} packer;

static void put_values(void *user, const sfi_baked_column *column) {
  packer *p = user;
  int64_t first = column->piece % sfi_baked_groups(p->k) * p->k->tile.rows;
  for (int32_t i = 0; i < column->n; i++) *p->next++ = sfi_weight_at(&p->k->contract, first + column->row[i], column->k);
}

sf_status sfi_baked_pack(const sfi_kernel *k, const sfi_plan *plan, const sf_allocator *allocator, sfi_diag *diag, sfi_blob *out) {
  size_t bytes = (size_t)sfi_max(64, sfi_round_up(k->contract.facts->nonzeros * 4, 64));
  if (!sfi_blob_init(out, allocator, bytes)) return sfi_fail_memory(diag);
  memset(out->data, 0, bytes);
  packer p = {k, (float *)(void *)out->data};
  sfi_baked_walk(k, plan->target, put_values, &p);
  return SF_OK;
}
