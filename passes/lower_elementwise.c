/* Elementwise operations as MAP kernels. An operation walks over its output as its main operand's producer did, so that fusion can
 * make it that kernel's epilogue: in panels where an operand lives in panels only, else by the producer's grouping of dimensions and with
 * the producer's gaps between channels. */
#include "lower.h"

#include <math.h>

enum { OPERANDS_MAX = 5 };

/* An elementwise kernel under construction: operand i of the node stands on dimension first[i] of the output. */
typedef struct map {
  sfi_kernel kernel;
  bool panels;
  int64_t channel; /* of the output in rows, as in sfi_located */
  sfi_grouping grouping;
} map;

static bool is_scalar(const sfi_lowering *l, sf_value v) {
  const sfi_shape *shape = &l->values[v].shape;
  for (int32_t d = 0; d < shape->rank; d++) {
    if (!sfi_is(shape->dims[d], 1)) return false;
  }
  return sfi_is_static(l->graph, v) && l->graph->nodes[v].dtype == SF_F32;
}

/* Access of a panel space to an operand that stands on dimension `first` of `shape`. */
static sfi_access panel_operand(sfi_lowering *l, sf_value operand, int32_t first, const sfi_shape *shape) {
  const sfi_located *value = &l->values[operand];
  const int32_t last = shape->rank - 1;
  bool same_columns = value->panel != SFI_NO_BUFFER && first == 0 && value->shape.rank == shape->rank;
  for (int32_t d = 0; same_columns && d < last; d++) same_columns = sfi_poly_equal(value->shape.dims[d], shape->dims[d]);
  if (same_columns) {
    sfi_access access = sfi_low_panel(l, operand);
    if (sfi_is(value->shape.dims[last], 1)) access.stride[1] = sfi_const(0);
    return access;
  }
  const sfi_view row = sfi_low_row(l, operand);
  sfi_view view = sfi_low_stretch(&value->shape, &row, first);
  sfi_access access;
  if (!sfi_low_panel_row_access(l, shape, &view, &access)) {
    view = sfi_low_densify(l, shape, &view);
    bool merges = sfi_low_panel_row_access(l, shape, &view, &access);
    assert(merges);
    (void)merges;
  }
  return access;
}

int32_t sfi_low_epilogue_operand(sfi_lowering *l, sfi_kernel *kernel, sfi_expr *expr, sf_value operand, int32_t first,
                                 const sfi_shape *shape, const sfi_grouping *grouping) {
  sfi_access access;
  if (is_scalar(l, operand)) {
    float value;
    memcpy(&value, l->graph->nodes[operand].data, sizeof value);
    return sfi_low_step(expr, (sfi_step){.kind = SFI_STEP_CONST, .value = value});
  }
  if (!grouping)
    access = panel_operand(l, operand, first, shape);
  else {
    const sfi_view row = sfi_low_row(l, operand);
    sfi_view view = sfi_low_stretch(&l->values[operand].shape, &row, first);
    if (!sfi_low_suits(l, shape, &view, grouping)) view = sfi_low_densify(l, shape, &view);
    access = sfi_low_access(l, kernel, shape, &view, grouping);
  }
  return sfi_low_load(expr, sfi_low_operand(kernel, &access));
}

static void choose_space(sfi_lowering *l, map *m, sf_value v, const int32_t *first) {
  const sfi_node *node = &l->graph->nodes[v];
  const sfi_shape *shape = &l->values[v].shape;
  sfi_view view[OPERANDS_MAX + 1];
  const sfi_view *views[OPERANDS_MAX + 1];
  int32_t n = 0;
  for (int32_t i = 0; i < node->n_inputs; i++) {
    const sfi_located *value = &l->values[node->inputs[i]];
    if (!sfi_shape_equal(&value->shape, shape)) continue;
    m->panels = m->panels || sfi_low_in_panels_only(value);
    if (m->channel == 0) m->channel = value->channel;
  }
  if (m->panels) {
    sfi_low_panel_space(l, &m->kernel, shape);
    return;
  }
  for (int32_t i = 0; i < node->n_inputs; i++) {
    if (is_scalar(l, node->inputs[i])) continue;
    const sfi_view row = sfi_low_row(l, node->inputs[i]);
    view[n] = sfi_low_stretch(&l->values[node->inputs[i]].shape, &row, first[i]);
    views[n] = &view[n];
    n++;
  }
  sfi_low_image_strides(l, shape, m->channel, view[n].stride);
  views[n] = &view[n];
  n++;
  for (int32_t i = 0; i < node->n_inputs && m->grouping.n == 0; i++) {
    const sfi_located *value = &l->values[node->inputs[i]];
    if (value->uses != value->maps || value->walk.n == 0 || !sfi_shape_equal(&value->shape, shape)) continue;
    bool suits = true;
    for (int32_t j = 0; suits && j < n; j++) suits = sfi_low_suits(l, shape, views[j], &value->walk);
    if (suits) m->grouping = value->walk;
  }
  if (m->grouping.n == 0) sfi_low_group(l, shape, views, n, 0, shape->rank, &m->grouping);
  sfi_low_space(l, &m->kernel, shape, &m->grouping);
}

/* The output of a finished expression. */
static void finish(sfi_lowering *l, map *m, sf_value v) {
  sfi_located *value = &l->values[v];
  if (m->panels) {
    m->kernel.operand[0] = sfi_low_set_panel(l, v);
    sfi_low_tile(l, &m->kernel, 2);
  } else {
    sfi_low_set_image(l, v, m->channel, &m->grouping);
    m->kernel.operand[0] = sfi_low_access(l, &m->kernel, &value->shape, &value->row, &m->grouping);
    sfi_low_tile(l, &m->kernel, m->kernel.rank);
  }
  sfi_low_push(l, &m->kernel);
}

static int32_t load(sfi_lowering *l, map *m, sf_value v, sf_value operand, int32_t first) {
  return sfi_low_epilogue_operand(l, &m->kernel, &m->kernel.epilogue, operand, first, &l->values[v].shape,
                                  m->panels ? NULL : &m->grouping);
}

static int32_t apply(map *m, sf_op op, int32_t a, int32_t b) {
  return sfi_low_step(&m->kernel.epilogue, (sfi_step){.kind = SFI_STEP_OP, .op = op, .a = a, .b = b, .c = a});
}

/* A divisor that is a number becomes its reciprocal: one rounding more, and a tenth of a division's time. */
static bool reciprocal(sfi_step *divisor) {
  if (divisor->kind != SFI_STEP_CONST || !isnormal(divisor->value) || !isnormal(1 / divisor->value)) return false;
  divisor->value = 1 / divisor->value;
  return true;
}

void sfi_low_broadcast(sfi_lowering *l, sf_value v) {
  const sfi_node *node = &l->graph->nodes[v];
  map m = {.kernel = sfi_low_kernel(l, SFI_ANCHOR_MAP)};
  int32_t first[3] = {0}, step[3] = {0};
  for (int32_t i = 0; i < node->n_inputs; i++) first[i] = node->shape.rank - l->graph->nodes[node->inputs[i]].shape.rank;
  choose_space(l, &m, v, first);
  for (int32_t i = 0; i < node->n_inputs; i++) step[i] = load(l, &m, v, node->inputs[i], first[i]);
  for (int32_t i = node->n_inputs; i < 3; i++) step[i] = step[0];
  const sf_op op = node->op == SF_OP_DIV && reciprocal(&m.kernel.epilogue.steps[step[1]]) ? SF_OP_MUL : node->op;
  sfi_low_step(&m.kernel.epilogue, (sfi_step){.kind = SFI_STEP_OP, .op = op, .a = step[0], .b = step[1], .c = step[2]});
  finish(l, &m, v);
}

void sfi_low_same(sfi_lowering *l, sf_value v) {
  sfi_low_broadcast(l, v);
}

/* A LOAD of integers gives numbers. */
void sfi_low_cast(sfi_lowering *l, sf_value v) {
  static const int32_t first[] = {0};
  map m = {.kernel = sfi_low_kernel(l, SFI_ANCHOR_MAP)};
  choose_space(l, &m, v, first);
  load(l, &m, v, l->graph->nodes[v].inputs[0], 0);
  finish(l, &m, v);
}

/* With parameters known only at run time; static ones were folded before. */
void sfi_low_batch_norm(sfi_lowering *l, sf_value v) {
  const sfi_node *node = &l->graph->nodes[v];
  const sf_value *in = node->inputs; /* x, scale, bias, mean, variance */
  static const int32_t first[] = {0, 1, 1, 1, 1};
  map m = {.kernel = sfi_low_kernel(l, SFI_ANCHOR_MAP)};
  choose_space(l, &m, v, first);
  const int32_t x = load(l, &m, v, in[0], 0);
  const int32_t centred = apply(&m, SF_OP_SUB, x, load(l, &m, v, in[3], 1));
  const int32_t variance = load(l, &m, v, in[4], 1);
  const float eps = (float)sfi_attr_of(node, SF_ATTR_EPS)->f;
  const int32_t raised =
      apply(&m, SF_OP_ADD, variance, sfi_low_step(&m.kernel.epilogue, (sfi_step){.kind = SFI_STEP_CONST, .value = eps}));
  const int32_t deviation = apply(&m, SF_OP_SQRT, raised, raised);
  const int32_t normal = apply(&m, SF_OP_DIV, centred, deviation);
  const int32_t scaled = apply(&m, SF_OP_MUL, normal, load(l, &m, v, in[1], 1));
  apply(&m, SF_OP_ADD, scaled, load(l, &m, v, in[2], 1));
  finish(l, &m, v);
}
