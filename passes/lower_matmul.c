/* Matrix products. With a static matrix they are CONTRACT kernels: on the right of activations in panels, or on rows
 * where there are few columns; on the left on rows. Two run-time operands make a PRODUCT. */
#include "lower.h"

void sfi_low_weight(sfi_lowering *l, sfi_kernel *kernel, sf_value weight, const sfi_matrix *matrix) {
  sfi_contract *contract = &kernel->contract;
  contract->weight = weight;
  contract->matrix = *matrix;
  contract->weight_digest = l->env->digest(l->env->facts_user, matrix);
  contract->facts = l->env->facts(l->env->facts_user, matrix, contract->weight_digest);
  if (!contract->facts && l->status == SF_OK) l->status = l->env->diag->error.status;
  /* The index is the kernel's, which fusion may move: sfi_plan_lifetimes sets it. The size is the emitter's. */
  const sfi_buffer packed = {
      .kind = SFI_BUFFER_PACKED, .value = weight, .dtype = SF_F32, .columns = sfi_const(0), .features = sfi_const(0)};
  kernel->operand[2] = (sfi_access){.buffer = sfi_low_buffer(l, &packed)};
  kernel->n_operands = 3;
}

/* An operand of the product with its last two dimensions exchanged where asked. */
static void exchanged(sfi_lowering *l, sf_value v, bool exchange, sfi_shape *shape, sfi_view *view) {
  *shape = l->values[v].shape;
  *view = sfi_low_row(l, v);
  if (!exchange) return;
  const int32_t r = shape->rank;
  const sfi_poly extent = shape->dims[r - 1], stride = view->stride[r - 1];
  shape->dims[r - 1] = shape->dims[r - 2];
  shape->dims[r - 2] = extent;
  view->stride[r - 1] = view->stride[r - 2];
  view->stride[r - 2] = stride;
}

static bool is_one(sfi_poly p) {
  return sfi_is(p, 1);
}

/* Space (t, m, j) over an output in rows, whose dimensions are cut into `grouping`. */
static void row_output(sfi_lowering *l, sfi_kernel *kernel, sf_value v, const sfi_grouping *grouping) {
  const sfi_located *value = &l->values[v];
  sfi_low_set_row(l, v, sfi_low_temp(l, v, &value->shape, false), grouping);
  sfi_low_space(l, kernel, &value->shape, grouping);
  kernel->operand[0] = sfi_low_access(l, kernel, &value->shape, &value->row, grouping);
  kernel->contract.row_count = kernel->extent[1].of;
}

/* Is the product better done with features along lanes, in rows, than with columns along lanes, in panels? A panel's vector holds 16
 * columns, used or not, so it takes as long for one as for 16. Kernels on rows take longer with each column, and the more so the
 * sparser W: with eight columns they win above 12 % of nonzeros, with four above 3 % (measured on Zen 5). */
static bool few_columns(sfi_lowering *l, const sfi_kernel *kernel, sfi_poly columns) {
  const double n = (double)sfi_low_bound(l, columns);
  const sfi_facts *facts = kernel->contract.facts; /* NULL: out of memory */
  if (n == 1 || !facts) return true;
  return l->plan->target->lanes == 16 && n <= 8 && sfi_density(facts) > 0.12 * (n / 8) * (n / 8);
}

/* x[.., n, k] W^T, few rows of x, each a t: a matrix-vector product or several. */
static void rows(sfi_lowering *l, sf_value v, const sfi_shape *shape, sfi_view x, sfi_kernel *kernel) {
  const int32_t r = l->values[v].shape.rank, last = shape->rank - 1;
  const sfi_grouping grouping = {.n = 3, .start = {0, r - 1, r, r}};
  sfi_poly t;
  if ((!is_one(x.stride[last]) && !is_one(shape->dims[last])) || !sfi_low_merge(l, shape, x.stride, 0, last, &t)) {
    x = sfi_low_densify(l, shape, &x);
    sfi_low_merge(l, shape, x.stride, 0, last, &t);
  }
  kernel->operand[1] = (sfi_access){.buffer = x.buffer, .offset = x.offset, .stride = {t, sfi_const(1), sfi_const(1)}};
  row_output(l, kernel, v, &grouping);
}

/* x[.., n, k] W^T, columns in panels. */
static void panels(sfi_lowering *l, sf_value v, sf_value x, bool exchange, sfi_kernel *kernel) {
  sfi_shape shape;
  sfi_view view;
  if (exchange) {
    exchanged(l, x, true, &shape, &view);
    kernel->operand[1] = sfi_low_panel_access(l, sfi_low_panel_of(l, &shape, &view), sfi_const(0));
  } else {
    kernel->operand[1] = sfi_low_panel(l, x);
  }
  sfi_low_panel_space(l, kernel, &l->values[v].shape);
  kernel->operand[0] = sfi_low_set_panel(l, v);
  kernel->contract.row_count = kernel->extent[1].of;
}

/* X, or a copy of which the rows are not aliased. */
static sfi_view unalias(sfi_lowering *l, const sfi_shape *shape, const sfi_view *x, const sfi_kernel *kernel) {
  const int32_t last = shape->rank - 1;
  const sfi_facts *facts = kernel->contract.facts; /* NULL: out of memory */
  const sfi_poly row = x->stride[last - 1];
  if (!facts || !sfi_is_const(row) || !sfi_is_const(shape->dims[last])) return *x;
  if (!sfi_low_is_aliased(row.c[0], (double)facts->nonzeros / (double)sfi_max(1, facts->columns))) return *x;
  sfi_shape longer = *shape;
  longer.dims[last] = sfi_const(sfi_low_pitch(l, shape->dims[last].c[0]));
  sfi_view out = {.buffer = sfi_low_temp(l, SF_NO_VALUE, &longer, false)};
  sfi_low_dense_strides(l, &longer, out.stride);
  sfi_low_copy(l, shape, x, NULL, &out);
  return out;
}

/* W x[.., k, n]: columns are contiguous in rows already. */
static void weight_on_the_left(sfi_lowering *l, sf_value v, const sfi_shape *shape, sfi_view x, sfi_kernel *kernel) {
  const int32_t r = shape->rank;
  const sfi_grouping grouping = {.n = 3, .start = {0, r - 2, r - 1, r}};
  sfi_poly t;
  x = unalias(l, shape, &x, kernel);
  if ((!is_one(x.stride[r - 1]) && !is_one(shape->dims[r - 1])) || !sfi_low_merge(l, shape, x.stride, 0, r - 2, &t)) {
    x = sfi_low_densify(l, shape, &x);
    sfi_low_merge(l, shape, x.stride, 0, r - 2, &t);
  }
  kernel->operand[1] = (sfi_access){.buffer = x.buffer, .offset = x.offset, .stride = {t, x.stride[r - 2], sfi_const(1)}};
  row_output(l, kernel, v, &grouping);
}

static void contract(sfi_lowering *l, sf_value v, int32_t operand, const sfi_matrix *matrix) {
  const sfi_node *node = &l->graph->nodes[v];
  const sf_value x = node->inputs[1 - operand];
  const bool exchange = sfi_attr_int(node, operand == 1 ? SF_ATTR_TRANSPOSE_A : SF_ATTR_TRANSPOSE_B);
  const sfi_shape *out = &l->values[v].shape;
  sfi_kernel kernel = sfi_low_kernel(l, SFI_ANCHOR_CONTRACT);
  sfi_shape shape;
  sfi_view view;
  kernel.contract.rows = matrix->rows;
  kernel.contract.depth = sfi_const(matrix->columns);
  kernel.contract.groups = 1;
  sfi_low_weight(l, &kernel, node->inputs[operand], matrix);
  if (operand == 1 && !few_columns(l, &kernel, sfi_low_product(l, out->dims, out->rank - 1))) {
    panels(l, v, x, exchange, &kernel);
  } else {
    exchanged(l, x, exchange, &shape, &view);
    if (operand == 1)
      rows(l, v, &shape, view, &kernel);
    else
      weight_on_the_left(l, v, &shape, view, &kernel);
  }
  sfi_low_push(l, &kernel);
}

/* One operand of a PRODUCT as [t, row, column]: strides of the three. Copied where the batch is not one index, or where the columns must
 * be contiguous and are not. */
static sfi_access batched(sfi_lowering *l, sf_value v, bool exchange, const sfi_shape *out, bool contiguous) {
  sfi_shape shape, whole = *out;
  sfi_view view;
  sfi_poly t;
  exchanged(l, v, exchange, &shape, &view);
  const int32_t r = shape.rank, batch = out->rank - 2, first = out->rank - r;
  if (contiguous && !is_one(view.stride[r - 1]) && !is_one(shape.dims[r - 1])) view = sfi_low_densify(l, &shape, &view);
  whole.dims[batch] = shape.dims[r - 2];
  whole.dims[batch + 1] = shape.dims[r - 1];
  /* Stretched over the batch only: a row or column of extent 1 keeps its stride. */
  sfi_view seen = sfi_low_stretch(&shape, &view, first);
  seen.stride[batch] = view.stride[r - 2];
  seen.stride[batch + 1] = view.stride[r - 1];
  if (!sfi_low_merge(l, &whole, seen.stride, 0, batch, &t)) {
    seen = sfi_low_densify(l, &whole, &seen);
    sfi_low_merge(l, &whole, seen.stride, 0, batch, &t);
  }
  return (sfi_access){.buffer = seen.buffer, .offset = seen.offset, .stride = {t, seen.stride[batch], seen.stride[batch + 1]}};
}

static void product(sfi_lowering *l, sf_value v) {
  const sfi_node *node = &l->graph->nodes[v];
  const sfi_shape *out = &l->values[v].shape;
  const int32_t r = out->rank;
  const sfi_grouping grouping = {.n = 3, .start = {0, r - 2, r - 1, r}};
  sfi_kernel kernel = sfi_low_kernel(l, SFI_ANCHOR_PRODUCT);
  const bool exchange_a = sfi_attr_int(node, SF_ATTR_TRANSPOSE_A), exchange_b = sfi_attr_int(node, SF_ATTR_TRANSPOSE_B);
  const sfi_shape *a = &l->values[node->inputs[0]].shape;
  kernel.operand[1] = batched(l, node->inputs[1], exchange_b, out, true);
  kernel.operand[1].stride[2] = sfi_const(1); /* or one column */
  kernel.operand[2] = batched(l, node->inputs[0], exchange_a, out, false);
  kernel.n_operands = 3;
  kernel.contract.depth = a->dims[a->rank - (exchange_a ? 2 : 1)];
  kernel.contract.groups = 1;
  row_output(l, &kernel, v, &grouping);
  if (sfi_is_const(kernel.contract.row_count)) kernel.contract.rows = kernel.contract.row_count.c[0];
  sfi_low_push(l, &kernel);
}

static bool has_zeros(sfi_lowering *l, sf_value v) {
  const sfi_node *node = &l->graph->nodes[v];
  bool found = false;
  if (!sfi_node_is_static(node)) return false;
  const float *data = sfi_node_open(node, l->env->diag);
  if (!data) {
    if (l->status == SF_OK) l->status = l->env->diag->error.status;
    return false;
  }
  for (size_t i = 0; !found && i < node->bytes / sizeof *data; i++) found = data[i] == 0;
  sfi_node_close(node);
  return found;
}

void sfi_low_matmul(sfi_lowering *l, sf_value v) {
  const sfi_node *node = &l->graph->nodes[v];
  const sf_value a = node->inputs[0], b = node->inputs[1];
  int32_t operand;
  sfi_matrix matrix;
  const bool folded = sfi_is_static(l->graph, a) && sfi_is_static(l->graph, b);
  if (!folded && sfi_weight_matrix(l->graph, v, &operand, &matrix)) contract(l, v, operand, &matrix);
  /* A zero of a static operand is absent, whatever the other holds; PRODUCT would multiply by it. */
  else if (has_zeros(l, a) || has_zeros(l, b))
    sfi_low_node(l, v);
  else
    product(l, v);
}
