/* Attention as one ATTEND kernel. Tensors that live in panels, [batch, row, head * feature], are read and written there where no panel has
 * rows of two of the batch, because there is one or its rows fill panels: a panel's columns are the queries or the keys. Others are rows,
 * of any strides. */
#include "attention.h"
#include "lower.h"

enum {
  SCRATCH_MOST = 128 << 10, /* bytes: emitters keep queries, scores and results of a tile on the stack */
  KEYS = 64                 /* of a block; no panel has more */
};

/* May the operand be read in its panels? */
static bool in_panels(const sfi_lowering *l, const sfi_located *value) {
  const sfi_poly *dims = value->shape.dims;
  return sfi_low_in_panels_only(value) && value->shape.rank == 3 &&
         (sfi_is(dims[0], 1) || (sfi_is_const(dims[1]) && dims[1].c[0] % l->panel == 0));
}

/* Queries of a tile where no panel says: four vectors of the widest registers, so that each element of k and v loaded serves four. */
static int64_t query_block(const sfi_lowering *l, sfi_poly queries) {
  return l->plan->target->lanes == 16 && sfi_low_bound(l, queries) > 16 ? 64 : 16;
}

/* Access to q or the result (of_keys false), k or v, with `features` to a head; `first` and `second` are the dimensions of the two that
 * make one row. */
static sfi_access head_access(sfi_lowering *l, sf_value v, int64_t features, int64_t block, int32_t first, int32_t second) {
  const sfi_located *value = &l->values[v];
  const int32_t rank = value->shape.rank;
  sfi_access access = {0};
  if (in_panels(l, value)) {
    const sfi_poly panel = sfi_const(l->panel);
    const sfi_access whole = sfi_low_panel(l, v);
    access.buffer = whole.buffer;
    access.offset = whole.offset;
    if (!sfi_is(value->shape.dims[0], 1))
      access.stride[0] = sfi_low_mul(l, whole.stride[0], sfi_const(value->shape.dims[1].c[0] / l->panel));
    access.stride[1] = sfi_low_mul(l, panel, sfi_const(features));
    access.stride[3] = panel;
    access.stride[first] = whole.stride[0];
    access.stride[second] = sfi_const(1);
    return access;
  }
  const sfi_view row = sfi_low_row(l, v);
  const sfi_poly feature = row.stride[rank - 1], step = row.stride[rank - 2];
  access.buffer = row.buffer;
  access.offset = row.offset;
  access.stride[0] = row.stride[0];
  access.stride[1] = rank == 4 ? row.stride[1] : sfi_low_mul(l, feature, sfi_const(features));
  access.stride[3] = feature;
  access.stride[first] = sfi_low_mul(l, step, sfi_const(block));
  access.stride[second] = step;
  return access;
}

static sfi_access mask_access(sfi_lowering *l, sf_value v, int64_t queries, int64_t keys) {
  const sfi_shape *shape = &l->values[v].shape;
  const sfi_view row = sfi_low_row(l, v), view = sfi_low_stretch(shape, &row, 4 - shape->rank);
  sfi_access access = {.buffer = view.buffer, .offset = view.offset, .stride = {view.stride[0], view.stride[1]}};
  access.stride[2] = sfi_low_mul(l, view.stride[2], sfi_const(queries));
  access.stride[4] = view.stride[2];
  access.stride[5] = sfi_low_mul(l, view.stride[3], sfi_const(keys));
  access.stride[6] = view.stride[3];
  return access;
}

void sfi_low_attention(sfi_lowering *l, sf_value v) {
  const sfi_node *node = &l->graph->nodes[v];
  const sf_value *in = node->inputs;
  sfi_located *value = &l->values[v];
  sfi_attention a;
  const char *wrong = sfi_attention_read(l->graph, node, &a);
  assert(!wrong);
  (void)wrong;
  const sfi_shape *q = &l->values[in[0]].shape, *k = &l->values[in[1]].shape;
  const bool panels = in_panels(l, &l->values[in[0]]),
             keys_in_panels = in_panels(l, &l->values[in[1]]) || in_panels(l, &l->values[in[2]]);
  const int64_t block = panels ? l->panel : query_block(l, q->dims[q->rank - 2]), key_block = keys_in_panels ? l->panel : KEYS;
  if ((uint64_t)(a.depth + a.width + 2 * KEYS) * (uint64_t)block * sizeof(float) > SCRATCH_MOST) {
    sfi_low_node(l, v);
    return;
  }
  sfi_kernel kernel = sfi_low_kernel(l, SFI_ANCHOR_ATTEND);
  if (panels)
    sfi_low_set_panel(l, v);
  else
    sfi_low_set_row(l, v, sfi_low_temp(l, v, &value->shape, false), NULL);
  kernel.rank = 5;
  kernel.extent[0] = (sfi_extent){q->dims[0], 1};
  kernel.extent[1] = (sfi_extent){sfi_const(a.heads), 1};
  kernel.extent[2] = (sfi_extent){q->dims[q->rank - 2], block};
  kernel.extent[3] = (sfi_extent){sfi_const(a.width), 1};
  kernel.extent[4] = (sfi_extent){sfi_const(block), 1};
  kernel.ragged = (sfi_ragged){.width = block, .panel = 2, .lane = 4, .columns = q->dims[q->rank - 2]};
  kernel.tile_dims = 3;
  kernel.reduce_rank = 2;
  kernel.attend = (sfi_attend){.group = a.heads / a.kv_heads,
                               .depth = a.depth,
                               .key_block = key_block,
                               .keys = k->dims[k->rank - 2],
                               .scale = (float)a.scale,
                               .causal = a.causal};
  kernel.reduce_extent[0] = (sfi_extent){kernel.attend.keys, key_block};
  kernel.reduce_extent[1] = (sfi_extent){sfi_const(key_block), 1};
  kernel.operand[0] = head_access(l, v, a.width, block, 2, 4);
  kernel.operand[1] = head_access(l, in[0], a.depth, block, 2, 4);
  kernel.operand[2] = head_access(l, in[1], a.depth, key_block, 5, 6);
  kernel.operand[3] = head_access(l, in[2], a.width, key_block, 5, 6);
  kernel.n_operands = 4;
  if (a.mask) {
    kernel.attend.mask = kernel.n_operands;
    kernel.operand[kernel.n_operands++] = mask_access(l, in[a.mask], block, key_block);
  }
  if (a.position) {
    const sfi_view row = sfi_low_row(l, in[a.position]);
    kernel.attend.position = kernel.n_operands;
    kernel.operand[kernel.n_operands++] = (sfi_access){.buffer = row.buffer, .offset = row.offset};
  }
  sfi_low_push(l, &kernel);
}
