/* Algebra: each node of the new graph is matched against the rules of simplify_rules.def until none applies.
 * Needs a verified graph; better after fold_batch_norm, which sees a batch_norm whole.
 * Preserves every value bit for bit, -0 and the places of NaN and Inf included, but for two things that rules below say: the sign of a
 * sum or average that is 0 is not defined (it depends on where a sum starts), and static batch_norm is rounded differently.
 * A rule looks at operands only, which are simplified already, so one sweep reaches the fixed point. */
#include "channel_affine.h"
#include "rewrite.h"
#include "unfold_transposed.h"

#include <math.h>

static sf_value simplify(sfi_rewrite *rewrite, sf_value value);

static const sfi_node *operand_of(const sfi_rewrite *rewrite, const sfi_node *node, int32_t k) {
  return &rewrite->to->nodes[node->inputs[k]];
}

/* Is operand `k` static, not empty, and equal to `number` in every element? -0 and 0 differ. Large weights of files, whose data is NULL
 * until they are opened, are not read to find out. */
static bool all(const sfi_rewrite *rewrite, const sfi_node *node, int32_t k, float number) {
  const sfi_node *operand = operand_of(rewrite, node, k);
  if (!operand->data || operand->dtype != SF_F32 || operand->bytes == 0) return false;
  for (int64_t i = 0; i < sfi_static_count(operand); i++)
    if (memcmp((const float *)operand->data + i, &number, sizeof number) != 0) return false;
  return true;
}

/* Operand `k` where it has the shape of the result: nothing was broadcast. */
static sf_value whole_operand(const sfi_rewrite *rewrite, const sfi_node *node, int32_t k) {
  return sfi_shape_equal(&operand_of(rewrite, node, k)->shape, &node->shape) ? node->inputs[k] : SF_NO_VALUE;
}

static sf_value make(sfi_rewrite *rewrite, const sfi_node *like, sf_op op, int32_t n_inputs, const sf_value *inputs,
                     int32_t n_attrs, const sf_attr *attrs) {
  return simplify(rewrite, sfi_rewrite_add(rewrite, like, op, n_inputs, inputs, n_attrs, attrs));
}

/* ---- rules: the replacement of `node`, or SF_NO_VALUE ------------------------------------------------------------- */

/* c op x = x op c, so that other rules and passes look for static operands behind. */
static sf_value static_behind(sfi_rewrite *rewrite, const sfi_node *node) {
  if (!sfi_node_is_static(operand_of(rewrite, node, 0)) || sfi_node_is_static(operand_of(rewrite, node, 1))) return SF_NO_VALUE;
  return make(rewrite, node, node->op, 2, (sf_value[]){node->inputs[1], node->inputs[0]}, 0, NULL);
}

/* x + -0 = x, -0 and NaN included; x + 0 is not: it makes 0 of -0. */
static sf_value add_minus_zero(sfi_rewrite *rewrite, const sfi_node *node) {
  return all(rewrite, node, 1, -0.0f) ? whole_operand(rewrite, node, 0) : SF_NO_VALUE;
}

/* sum + 0 = sum: a sum that is 0 has no defined sign. */
static sf_value add_zero_to_sum(sfi_rewrite *rewrite, const sfi_node *node) {
  sf_op op = operand_of(rewrite, node, 0)->op;
  bool sum = op == SF_OP_MATMUL || op == SF_OP_CONV2D || op == SF_OP_REDUCE_SUM || op == SF_OP_REDUCE_MEAN;
  return sum && all(rewrite, node, 1, 0) ? whole_operand(rewrite, node, 0) : SF_NO_VALUE;
}

/* x - 0 = x, -0 included. */
static sf_value sub_zero(sfi_rewrite *rewrite, const sfi_node *node) {
  return all(rewrite, node, 1, 0) ? whole_operand(rewrite, node, 0) : SF_NO_VALUE;
}

/* x * 1 = x, x / 1 = x. */
static sf_value by_one(sfi_rewrite *rewrite, const sfi_node *node) {
  return all(rewrite, node, 1, 1) ? whole_operand(rewrite, node, 0) : SF_NO_VALUE;
}

/* x / 2^n = x * 2^-n: both are the rounding of one real number. */
static sf_value div_power_of_two(sfi_rewrite *rewrite, const sfi_node *node) {
  const sfi_node divisor = *operand_of(rewrite, node, 1);
  if (!divisor.data || divisor.dtype != SF_F32 || sfi_node_is_static(operand_of(rewrite, node, 0))) return SF_NO_VALUE;
  const float *values = divisor.data;
  int64_t count = sfi_static_count(&divisor);
  int exponent;
  for (int64_t i = 0; i < count; i++)
    if (!isnormal(values[i]) || !isnormal(1 / values[i]) || fabsf(frexpf(values[i], &exponent)) != 0.5f) return SF_NO_VALUE;
  float *data = sfi_rewrite_data(rewrite, count);
  if (!data) return SF_NO_VALUE;
  for (int64_t i = 0; i < count; i++) data[i] = 1 / values[i];
  sf_value reciprocal = sfi_rewrite_add_static(rewrite, &divisor, sfi_label(&divisor), "reciprocal", &divisor.shape, data);
  return make(rewrite, node, SF_OP_MUL, 2, (sf_value[]){node->inputs[0], reciprocal}, 0, NULL);
}

/* relu(relu(x)) = relu(x). */
static sf_value relu_of_relu(sfi_rewrite *rewrite, const sfi_node *node) {
  return operand_of(rewrite, node, 0)->op == SF_OP_RELU ? node->inputs[0] : SF_NO_VALUE;
}

/* A reshape, transpose or slice that changes nothing. The shape says it all, but for a transpose. */
static sf_value same_shape(sfi_rewrite *rewrite, const sfi_node *node) {
  return whole_operand(rewrite, node, 0);
}

static sf_value same_order(sfi_rewrite *rewrite, const sfi_node *node) {
  (void)rewrite;
  for (int32_t d = 0; d < node->shape.rank; d++)
    if (sfi_attr_of(node, SF_ATTR_PERM)->ints[d] != d) return SF_NO_VALUE;
  return node->inputs[0];
}

static sf_value reshape_of_reshape(sfi_rewrite *rewrite, const sfi_node *node) {
  const sfi_node *inner = operand_of(rewrite, node, 0);
  int64_t ints[SF_MAX_RANK];
  if (inner->op != SF_OP_RESHAPE || !sfi_reshape_attr(&operand_of(rewrite, inner, 0)->shape, &node->shape, ints))
    return SF_NO_VALUE;
  sf_attr shape = {.id = SF_ATTR_SHAPE, .count = node->shape.rank, .ints = ints};
  return make(rewrite, node, SF_OP_RESHAPE, 1, inner->inputs, 1, &shape);
}

static sf_value transpose_of_transpose(sfi_rewrite *rewrite, const sfi_node *node) {
  const sfi_node *inner = operand_of(rewrite, node, 0);
  int64_t ints[SF_MAX_RANK];
  if (inner->op != SF_OP_TRANSPOSE) return SF_NO_VALUE;
  for (int32_t d = 0; d < node->shape.rank; d++)
    ints[d] = sfi_attr_of(inner, SF_ATTR_PERM)->ints[sfi_attr_of(node, SF_ATTR_PERM)->ints[d]];
  sf_attr perm = {.id = SF_ATTR_PERM, .count = node->shape.rank, .ints = ints};
  return make(rewrite, node, SF_OP_TRANSPOSE, 1, inner->inputs, 1, &perm);
}

static sf_value concat_of_one(sfi_rewrite *rewrite, const sfi_node *node) {
  (void)rewrite;
  return node->n_inputs == 1 ? node->inputs[0] : SF_NO_VALUE;
}

static bool exchanges_last_two(const sfi_node *node) {
  int32_t rank = node->shape.rank;
  if (node->op != SF_OP_TRANSPOSE || rank < 2) return false;
  const int64_t *perm = sfi_attr_of(node, SF_ATTR_PERM)->ints;
  for (int32_t d = 0; d < rank - 2; d++)
    if (perm[d] != d) return false;
  return perm[rank - 1] == rank - 2;
}

/* An operand's transpose becomes a flag. */
static sf_value matmul_of_transpose(sfi_rewrite *rewrite, const sfi_node *node) {
  sf_attr flags[2] = {{.id = SF_ATTR_TRANSPOSE_A}, {.id = SF_ATTR_TRANSPOSE_B}};
  sf_value inputs[2];
  bool any = false;
  for (int32_t k = 0; k < 2; k++) {
    const sfi_node *operand = operand_of(rewrite, node, k);
    bool exchanged = exchanges_last_two(operand);
    inputs[k] = exchanged ? operand->inputs[0] : node->inputs[k];
    flags[k].i = sfi_attr_int(node, flags[k].id) != exchanged;
    any = any || exchanged;
  }
  return any ? make(rewrite, node, SF_OP_MATMUL, 2, inputs, 2, flags) : SF_NO_VALUE;
}

/* A bias of 0 added to a sum. */
static sf_value conv2d_without_bias(sfi_rewrite *rewrite, const sfi_node *node) {
  if (node->n_inputs != 3 || (!all(rewrite, node, 2, 0) && !all(rewrite, node, 2, -0.0f))) return SF_NO_VALUE;
  sf_attr attrs[SFI_ATTRS_MAX];
  int32_t n_attrs = sfi_rewrite_attrs(node, attrs);
  return make(rewrite, node, SF_OP_CONV2D, 2, node->inputs, n_attrs, attrs);
}

/* Windows of one element. An average of -0 is a zero of no defined sign. */
static sf_value pool_of_one(sfi_rewrite *rewrite, const sfi_node *node) {
  const int64_t *kernel = sfi_attr_of(node, SF_ATTR_KERNEL)->ints, *stride = sfi_attr_of(node, SF_ATTR_STRIDE)->ints;
  if (kernel[0] != 1 || kernel[1] != 1 || stride[0] != 1 || stride[1] != 1) return SF_NO_VALUE;
  return whole_operand(rewrite, node, 0); /* another shape: padding */
}

static sf_value mean_of_image(sfi_rewrite *rewrite, const sfi_node *node) {
  sf_attr attrs[2] = {{.id = SF_ATTR_AXES, .count = 2, .ints = (const int64_t[]){2, 3}}, {.id = SF_ATTR_KEEPDIMS, .i = 1}};
  return make(rewrite, node, SF_OP_REDUCE_MEAN, 1, node->inputs, 2, attrs);
}

/* Static batch_norm as x * scale + shift, composed in fp64 and rounded once. */
static sf_value affine_batch_norm(sfi_rewrite *rewrite, const sfi_node *node) {
  const sfi_node model = *operand_of(rewrite, node, 1);
  const sf_allocator *a = &rewrite->env->context->allocator;
  if (!model.data || !sfi_is_const(node->shape.dims[1])) return SF_NO_VALUE;
  int64_t channels = node->shape.dims[1].c[0];
  size_t bytes = 2 * (size_t)channels * sizeof(double);
  double *scale = sfi_alloc(a, bytes);
  if (!scale) {
    sfi_fail_memory(&rewrite->to->diag);
    return SF_NO_VALUE;
  }
  double *shift = scale + channels;
  sf_value result = SF_NO_VALUE;
  for (int64_t c = 0; c < channels; c++) {
    scale[c] = 1;
    shift[c] = 0;
  }
  if (!sfi_channel_affine(rewrite->to, node, node->inputs[0], 1, channels, scale, shift)) goto done;
  for (int64_t c = 0; c < channels; c++)
    if (!isfinite((float)scale[c]) || (float)scale[c] == 0 || !isfinite((float)shift[c])) goto done;
  float *factors = sfi_rewrite_data(rewrite, channels), *terms = sfi_rewrite_data(rewrite, channels);
  if (!factors || !terms) goto done;
  for (int64_t c = 0; c < channels; c++) {
    factors[c] = (float)scale[c];
    terms[c] = (float)shift[c];
  }
  sfi_shape shape = {.rank = node->shape.rank - 1, .dims = {sfi_const(channels)}};
  for (int32_t d = 1; d < shape.rank; d++) shape.dims[d] = sfi_const(1);
  sf_value factor = sfi_rewrite_add_static(rewrite, &model, NULL, "scale", &shape, factors);
  sf_value term = sfi_rewrite_add_static(rewrite, &model, NULL, "shift", &shape, terms);
  sfi_node unnamed = *node;
  unnamed.name = NULL;
  sf_value product = make(rewrite, &unnamed, SF_OP_MUL, 2, (sf_value[]){node->inputs[0], factor}, 0, NULL);
  result = make(rewrite, node, SF_OP_ADD, 2, (sf_value[]){product, term}, 0, NULL);
done:
  sfi_free(a, scale, bytes);
  return result;
}

static const struct rule {
  sf_op op;
  sf_value (*apply)(sfi_rewrite *rewrite, const sfi_node *node);
} rules[] = {
#define SFI_RULE(op, name, function) {SF_OP_##op, function},
#include "simplify_rules.def"
#undef SFI_RULE
};

static sf_value simplify(sfi_rewrite *rewrite, sf_value value) {
  for (size_t i = 0; value != SF_NO_VALUE && i < SFI_COUNT(rules); i++) {
    const sfi_node node = rewrite->to->nodes[value]; /* a copy: rules grow the graph */
    if (rules[i].op != node.op) continue;
    sf_value replacement = rules[i].apply(rewrite, &node);
    if (replacement != SF_NO_VALUE) return replacement;
  }
  return value;
}

sf_status sfi_simplify(sfi_pass_env *env, const sf_graph *graph, sf_graph **out_graph) {
  sfi_rewrite rewrite;
  *out_graph = NULL;
  if (!sfi_rewrite_begin(&rewrite, env, graph)) return SF_STATUS_OUT_OF_MEMORY;
  for (size_t i = 0; i < graph->n_nodes && !sfi_rewrite_failed(&rewrite); i++)
    rewrite.map[i] = simplify(&rewrite, sfi_rewrite_copy(&rewrite, (sf_value)i));
  return sfi_rewrite_end(&rewrite, SF_OK, out_graph);
}
