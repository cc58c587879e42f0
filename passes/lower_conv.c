/* Convolution with static weights as a CONTRACT kernel. A 1x1 window of stride 1 reads the image as it is. Other windows read a padded
 * image laid out in phases, so that every tap is a unit-stride read at its own offset:
 *   [n][c][slot h][slot w][rows][pitch], where slot s of a dimension holds padded positions s * dilation + q * stride, q = 0, 1, ..
 * With g = gcd(dilation, stride) and period = stride / g, tap k stands in slot k % period, displaced by k / period * (dilation / g).
 * An image that needs neither padding nor phases and has room behind it is read in place.
 *
 * Where W has many zeros, rows begin on whole vectors, and rows much shorter than a vector stand side by side in one: see `fold` in
 * plan.h and emit_conv_sparse.c. Where it has few, rows are as short as they can be: dense kernels run over their gaps. */
#include "lower.h"

/* One dimension of the window. */
typedef struct side {
  int64_t in, out, taps, stride, dilation, before, after;
  int64_t period, slots, displacement; /* see above */
  int64_t extent;                      /* of one phase */
} side;

/* Of weights that are not zero, up to which rows and channels begin on whole vectors; and where rows would stand side by side, which leaves
 * more lanes idle and which dense kernels cannot read. */
enum { SPARSE_PERCENT = 60, SPARSE_PERCENT_FOLDED = 42 };

/* Nonzeros that read an input channel, on average, from which it pays to copy the channel to a vector's boundary. */
enum { NONZEROS_A_CHANNEL = 16 };

/* Across an image of one channel a group, padding included, which kernels count in 32 bits. */
enum { DEPTHWISE_PIXELS = 1 << 20 };

static int64_t gcd(int64_t a, int64_t b) {
  return b ? gcd(b, a % b) : a;
}

static side make_side(const sfi_lowering *l, sf_value v, int32_t d) {
  const sfi_node *node = &l->graph->nodes[v];
  const int64_t *pad = sfi_attr_of(node, SF_ATTR_PAD)->ints;
  side s = {.in = l->values[node->inputs[0]].shape.dims[2 + d].c[0],
            .out = l->values[v].shape.dims[2 + d].c[0],
            .taps = l->values[node->inputs[1]].shape.dims[2 + d].c[0],
            .stride = sfi_attr_of(node, SF_ATTR_STRIDE)->ints[d],
            .dilation = sfi_attr_of(node, SF_ATTR_DILATION)->ints[d],
            .before = pad[d],
            .after = pad[d + 2]};
  const int64_t g = gcd(s.dilation, s.stride);
  s.period = s.stride / g;
  s.slots = sfi_min(s.period, s.taps);
  s.displacement = s.dilation / g;
  s.extent = s.out + (s.taps - 1) / s.period * s.displacement;
  return s;
}

static sfi_window window_of(const side *s) {
  return (sfi_window){
      .taps = s->taps, .stride = s->stride, .dilation = s->dilation, .before = s->before, .in = s->in, .out = s->out};
}

static bool has_padding(const side *s) {
  return s->before || s->after;
}
static bool is_point(const side *s) {
  return s->taps == 1 && !has_padding(s);
}
/* Padding, or positions beyond the image in the last phase. */
static bool needs_copy(const side *s) {
  return has_padding(s) || s->stride != 1;
}

/* How the rows of a phase stand in memory. */
typedef struct layout {
  int64_t pitch, fold; /* as in sfi_contract */
  int64_t rows;        /* of `pitch` columns in a phase */
  int64_t phase;       /* elements of one */
} layout;

static bool is_sparse(const sfi_contract *contract) {
  return contract->facts && sfi_density(contract->facts) * 100 <= SPARSE_PERCENT;
}

/* Rows of an image with few pixels across that stand side by side. */
static int64_t fold_of(const sfi_lowering *l, const side *h, const side *w) {
  /* Columns past the image need not be there: what is read behind a row counts as 0. */
  const int64_t columns = sfi_max(w->out, sfi_min(w->extent, sfi_ceil_div(w->in + w->before, w->stride)));
  int64_t fold = 1;
  while (columns * fold * 2 <= l->plan->target->lanes && fold * 2 <= h->out) fold *= 2;
  return fold;
}

static layout make_layout(const sfi_lowering *l, const sfi_contract *contract, const side *h, const side *w) {
  const int64_t lanes = l->plan->target->lanes;
  layout out = {.pitch = w->extent, .fold = 1};
  if (is_sparse(contract)) {
    out.fold = fold_of(l, h, w);
    out.pitch = out.fold > 1 ? lanes : sfi_round_up(w->extent, lanes);
  }
  out.rows = sfi_ceil_div(h->out, out.fold) + h->extent - h->out;
  out.phase = out.rows * out.pitch;
  return out;
}

/* Appends a dimension of the copy's space unless it has one index. */
static void dimension(sfi_kernel *kernel, sfi_poly extent, sfi_poly from, sfi_poly to, int64_t row, int64_t column) {
  if (sfi_is(extent, 1)) return;
  const int32_t d = kernel->rank++;
  kernel->extent[d] = (sfi_extent){extent, 1};
  kernel->operand[1].stride[d] = from;
  kernel->operand[0].stride[d] = to;
  kernel->bound[0].mul[d] = row;
  kernel->bound[1].mul[d] = column;
}

/* The padded image of `x`, a view of [n, c, h, w]. */
static int32_t padded_image(sfi_lowering *l, const sfi_shape *shape, const sfi_view *x, const side *h, const side *w,
                            const layout *at) {
  const int64_t phases = h->slots * w->slots * at->phase, granule = at->pitch / at->fold;
  const sfi_poly n = shape->dims[0], c = shape->dims[1], one = sfi_const(1);
  sfi_buffer buffer = {.kind = SFI_BUFFER_TEMP, .value = SF_NO_VALUE, .dtype = SF_F32, .slack = at->pitch + SFI_IMAGE_SLACK};
  buffer.columns = sfi_low_mul(l, n, c);
  buffer.features = sfi_const(phases);
  sfi_kernel kernel = sfi_low_kernel(l, SFI_ANCHOR_MAP);
  kernel.node = SF_NO_VALUE;
  sfi_low_load(&kernel.epilogue, 1);
  const sfi_poly row = x->stride[2], column = x->stride[3];
  kernel.n_operands = 2;
  kernel.operand[0] = (sfi_access){.buffer = sfi_low_buffer(l, &buffer)};
  kernel.operand[1] = (sfi_access){.buffer = x->buffer, .offset = x->offset};
  kernel.operand[1].offset = sfi_low_add(l, kernel.operand[1].offset, sfi_low_mul(l, row, sfi_const(-h->before)));
  kernel.operand[1].offset = sfi_low_add(l, kernel.operand[1].offset, sfi_low_mul(l, column, sfi_const(-w->before)));
  kernel.n_bounds = 2;
  kernel.bound[0] = (sfi_bound){.operand = 1, .add = -h->before, .limit = h->in};
  kernel.bound[1] = (sfi_bound){.operand = 1, .add = -w->before, .limit = w->in};
  sfi_poly images;
  const sfi_poly to_image = sfi_low_mul(l, c, sfi_const(phases)), to_channel = sfi_const(phases);
  if (sfi_low_merge(l, shape, x->stride, 0, 2, &images)) {
    dimension(&kernel, sfi_low_mul(l, n, c), images, to_channel, 0, 0);
  } else {
    dimension(&kernel, n, x->stride[0], to_image, 0, 0);
    dimension(&kernel, c, x->stride[1], to_channel, 0, 0);
  }
  const int64_t fold = sfi_ceil_div(h->out, at->fold) * h->stride; /* image rows from one fold to the next */
  dimension(&kernel, sfi_const(h->slots), sfi_low_mul(l, row, sfi_const(h->dilation)), sfi_const(w->slots * at->phase), h->dilation,
            0);
  dimension(&kernel, sfi_const(w->slots), sfi_low_mul(l, column, sfi_const(w->dilation)), sfi_const(at->phase), 0, w->dilation);
  dimension(&kernel, sfi_const(at->rows), sfi_low_mul(l, row, sfi_const(h->stride)), sfi_const(at->pitch), h->stride, 0);
  dimension(&kernel, sfi_const(at->fold), sfi_low_mul(l, row, sfi_const(fold)), sfi_const(granule), fold, 0);
  /* The last dimension stays even with one index: it is the one that vectors run along. */
  const int32_t d = kernel.rank++;
  kernel.extent[d] = (sfi_extent){sfi_const(granule), 1};
  kernel.operand[1].stride[d] = sfi_low_mul(l, column, sfi_const(w->stride));
  kernel.operand[0].stride[d] = one;
  kernel.bound[1].mul[d] = w->stride;
  sfi_low_tile(l, &kernel, kernel.rank);
  sfi_low_push(l, &kernel);
  return kernel.operand[0].buffer;
}

/* Position of each k: input channel, tap row, tap column, in this order. */
static const int64_t *positions(sfi_lowering *l, int64_t channels, const side *h, const side *w, int64_t channel, int64_t phase,
                                int64_t pitch) {
  const int64_t count = channels * h->taps * w->taps;
  int64_t *position = sfi_arena_alloc(&l->plan->arena, (size_t)count * sizeof *position), *out = position;
  if (!position) {
    sfi_low_fail_memory(l);
    return NULL;
  }
  for (int64_t c = 0; c < channels; c++) {
    for (int64_t kh = 0; kh < h->taps; kh++) {
      for (int64_t kw = 0; kw < w->taps; kw++) {
        *out++ = c * channel + (kh % h->period * w->slots + kw % w->period) * phase + kh / h->period * h->displacement * pitch +
                 kw / w->period * w->displacement;
      }
    }
  }
  return position;
}

/* A 1x1 window without padding: pixels of a channel are one index, channels begin on whole vectors where many nonzeros read them. */
static void pixel_operand(sfi_lowering *l, sfi_kernel *kernel, const sfi_shape *shape, sfi_view view, const side *h,
                          const side *w) {
  const int64_t lanes = l->plan->target->lanes, pixels = h->out * w->out;
  const sfi_facts *facts = kernel->contract.facts;
  sfi_shape read = *shape;
  sfi_poly pixel;
  read.dims[2] = sfi_const(h->out), read.dims[3] = sfi_const(w->out);
  view.stride[2] = sfi_low_mul(l, view.stride[2], sfi_const(h->stride));
  view.stride[3] = sfi_low_mul(l, view.stride[3], sfi_const(w->stride));
  const bool together = sfi_low_merge(l, &read, view.stride, 2, 4, &pixel) && (sfi_is(pixel, 1) || pixels == 1);
  const double readers = facts ? (double)facts->nonzeros / (double)sfi_max(1, facts->columns) : 0;
  const bool wanted = pixels > 1 && is_sparse(&kernel->contract) && readers >= NONZEROS_A_CHANNEL;
  const bool aligned = sfi_is_const(view.stride[1]) && view.stride[1].c[0] % lanes == 0 && view.offset.c[0] % lanes == 0 &&
                       !sfi_low_is_aliased(view.stride[1].c[0], readers);
  if (!together || (wanted && !aligned)) {
    const int64_t channel = wanted ? sfi_low_pitch(l, pixels) : pixels;
    sfi_buffer buffer = {.kind = SFI_BUFFER_TEMP, .value = SF_NO_VALUE, .dtype = SF_F32};
    buffer.columns = sfi_low_mul(l, shape->dims[0], shape->dims[1]);
    buffer.features = sfi_const(channel);
    const sfi_view copy = {
        .buffer = sfi_low_buffer(l, &buffer),
        .stride = {sfi_low_mul(l, shape->dims[1], sfi_const(channel)), sfi_const(channel), sfi_const(w->out), sfi_const(1)}};
    sfi_low_copy(l, &read, &view, NULL, &copy);
    view = copy;
  }
  kernel->operand[1] =
      (sfi_access){.buffer = view.buffer, .offset = view.offset, .stride = {view.stride[0], view.stride[1], sfi_const(1)}};
}

/* Dense kernels read any image where it is, by single pixels, which costs nothing next to many output channels, and leave padding out; its
 * zeros are only missed by weights that are not finite. Not 1x1 windows over
 * pixels that are one index, which anybody reads, nor over short rows, which are worth a copy that makes one index of them. */
static bool may_stay(const sfi_lowering *l, const sfi_kernel *kernel, const sfi_view *view, const side *h, const side *w) {
  const sfi_contract *c = &kernel->contract;
  const int64_t lanes = l->plan->target->lanes;
  const bool full = sfi_round_up(c->rows, lanes) * 3 <= c->rows * 4, point = is_point(h) && is_point(w);
  if (c->facts && c->facts->nonfinite && (has_padding(h) || has_padding(w))) return false;
  if (point && ((h->stride == 1 && w->stride == 1) || w->out * 2 < lanes)) return false;
  const int64_t sparse = !point && fold_of(l, h, w) > 1 ? SPARSE_PERCENT_FOLDED : SPARSE_PERCENT;
  return c->facts && sfi_density(c->facts) * 100 > sparse && c->groups == 1 && full && h->out * w->out > 1 &&
         sfi_is_const(view->stride[1]) && sfi_is_const(view->stride[2]) && sfi_is_const(view->stride[3]);
}

/* One channel a group is read where it is too, along its rows. */
static bool channels_may_stay(const sfi_kernel *kernel, const sfi_view *view, const side *h, const side *w) {
  const sfi_contract *c = &kernel->contract;
  const int64_t taps = c->matrix.columns;
  if (c->groups < 2 || c->groups != c->rows || taps != h->taps * w->taps || taps > SFI_DEPTHWISE_TAPS || w->stride > 2)
    return false;
  if (h->out * w->out == 1 || !c->facts || (c->facts->nonfinite && (has_padding(h) || has_padding(w)))) return false;
  for (int i = 0; i < 2; i++) {
    const side *s = i ? w : h;
    if (s->in + s->before + s->after > DEPTHWISE_PIXELS || s->stride > DEPTHWISE_PIXELS) return false;
  }
  return sfi_is_const(view->stride[1]) && sfi_is_const(view->stride[2]) && sfi_is(view->stride[3], 1);
}

static void in_place(sfi_kernel *kernel, const sfi_view *view, const side *h, const side *w) {
  sfi_contract *c = &kernel->contract;
  c->in_place = true;
  c->window[0] = window_of(h);
  c->window[1] = window_of(w);
  c->window[0].step = view->stride[2].c[0];
  c->window[1].step = view->stride[3].c[0];
  kernel->operand[1] = (sfi_access){.buffer = view->buffer, .offset = view->offset, .stride = {view->stride[0], view->stride[1]}};
}

static void image_operand(sfi_lowering *l, sfi_kernel *kernel, sf_value v) {
  const sfi_node *node = &l->graph->nodes[v];
  const sf_value x = node->inputs[0];
  const sfi_shape *shape = &l->values[x].shape;
  const side h = make_side(l, v, 0), w = make_side(l, v, 1);
  const int64_t channels = shape->dims[1].c[0];
  sfi_view view = sfi_low_row(l, x);
  if (may_stay(l, kernel, &view, &h, &w) || channels_may_stay(kernel, &view, &h, &w)) {
    in_place(kernel, &view, &h, &w);
    return;
  }
  if (is_point(&h) && is_point(&w)) {
    pixel_operand(l, kernel, shape, view, &h, &w);
    return;
  }
  sfi_contract *contract = &kernel->contract;
  contract->valid = w.out;
  contract->window[0] = window_of(&h);
  contract->window[1] = window_of(&w);
  sfi_buffer *buffer = &l->plan->buffers[view.buffer];
  if (!needs_copy(&h) && !needs_copy(&w) && buffer->kind == SFI_BUFFER_TEMP && sfi_low_is_dense(l, shape, &view)) {
    buffer->slack = sfi_max(buffer->slack, w.in + SFI_IMAGE_SLACK);
    contract->pitch = w.in;
    contract->k_offset = positions(l, channels, &h, &w, h.in * w.in, 0, w.in);
    kernel->operand[1] = (sfi_access){.buffer = view.buffer, .stride = {view.stride[0], view.stride[1], sfi_const(1)}};
    return;
  }
  const layout at = make_layout(l, contract, &h, &w);
  const int64_t channel = h.slots * w.slots * at.phase;
  contract->pitch = at.pitch;
  contract->fold = at.fold;
  contract->k_offset = positions(l, channels, &h, &w, channel, at.phase, at.pitch);
  kernel->operand[1] = (sfi_access){.buffer = padded_image(l, shape, &view, &h, &w, &at),
                                    .stride = {sfi_const(channels * channel), sfi_const(channel), sfi_const(at.fold == 1)}};
}

/* Elements from channel to channel of the output where W has many zeros: sums that go to memory and come back, and the layers that read
 * them, want channels on whole vectors that are not aliased. 0: channels lie side by side, since they are, or the gaps would be more than a
 * third. */
static int64_t output_channel(const sfi_lowering *l, const sfi_shape *shape, const sfi_contract *contract) {
  const int64_t lanes = l->plan->target->lanes, pixels = shape->dims[2].c[0] * shape->dims[3].c[0];
  if (!is_sparse(contract) || pixels <= 2 * lanes) return 0;
  const double readers = 4; /* not known here: only where so few suffice */
  return pixels % lanes || sfi_low_is_aliased(pixels, readers) ? sfi_low_pitch(l, pixels) : 0;
}

void sfi_low_conv2d(sfi_lowering *l, sf_value v) {
  const sfi_node *node = &l->graph->nodes[v];
  static const sfi_grouping grouping = {.n = 3, .start = {0, 1, 2, 4}};
  int32_t operand;
  sfi_matrix matrix;
  if (sfi_is_static(l->graph, node->inputs[0]) || !sfi_weight_matrix(l->graph, v, &operand, &matrix)) {
    sfi_low_node(l, v);
    return;
  }
  sfi_kernel kernel = sfi_low_kernel(l, SFI_ANCHOR_CONTRACT);
  sfi_located *value = &l->values[v];
  const int64_t groups = sfi_attr_int(node, SF_ATTR_GROUPS);
  kernel.contract.rows = matrix.rows;
  kernel.contract.row_count = sfi_const(matrix.rows);
  kernel.contract.depth = sfi_const(matrix.columns * groups);
  kernel.contract.groups = groups;
  sfi_low_weight(l, &kernel, node->inputs[operand], &matrix);
  image_operand(l, &kernel, v);
  sfi_low_set_image(l, v, output_channel(l, &value->shape, &kernel.contract), &grouping);
  sfi_low_space(l, &kernel, &value->shape, &grouping);
  kernel.operand[0] = sfi_low_access(l, &kernel, &value->shape, &value->row, &grouping);
  if (node->n_inputs == 3) {
    const int32_t bias = sfi_low_epilogue_operand(l, &kernel, &kernel.epilogue, node->inputs[2], 1, &value->shape, &grouping);
    sfi_low_step(&kernel.epilogue, (sfi_step){.kind = SFI_STEP_OP, .op = SF_OP_ADD, .a = 0, .b = bias});
  }
  sfi_low_push(l, &kernel);
}

/* Those with static weights are convolutions by now, where algebra runs. */
void sfi_low_conv_transpose(sfi_lowering *l, sf_value v) {
  sfi_low_node(l, v);
}
