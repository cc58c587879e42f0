/* Operations that exporters write out in smaller ones, made one again: gelu, gelu_tanh, silu, layer_norm and rms_norm. One kernel or one
 * tail of a kernel instead of a chain, and for norms no passes over memory in between. And rotary places, without what is put together only
 * to be multiplied.
 * Better after simplify, which puts static operands behind. Preserves values but for rounding. Numbers are compared to the precision of
 * fp32. A match needs x in the shape of the result, so nothing is broadcast but the numbers. What else reads the smaller operations keeps
 * them. */
#include "rewrite.h"

#include <math.h>

static const sfi_node *at(const sfi_rewrite *rewrite, sf_value value) {
  return &rewrite->to->nodes[value];
}

/* Does operand `k` hold `number` in every element, as near as fp32 comes? */
static bool holds(const sfi_rewrite *rewrite, const sfi_node *node, int32_t k, double number) {
  const sfi_node *operand = at(rewrite, node->inputs[k]);
  if (!operand->data || operand->dtype != SF_F32 || operand->bytes == 0) return false;
  for (int64_t i = 0; i < sfi_static_count(operand); i++)
    if (!(fabs(((const float *)operand->data)[i] - number) <= 1e-7 * fabs(number))) return false;
  return true;
}

/* The other factor of a product with `number`; SF_NO_VALUE where `value` is no such product. Static operands stand behind. */
static sf_value other_factor(const sfi_rewrite *rewrite, sf_value value, double number) {
  const sfi_node *product = at(rewrite, value);
  if (product->op == SF_OP_MUL && holds(rewrite, product, 1, number)) return product->inputs[0];
  return product->op == SF_OP_DIV && holds(rewrite, product, 1, 1 / number) ? product->inputs[0] : SF_NO_VALUE;
}

/* Is `value` x^3, a product of two products? */
static bool is_cube(const sfi_rewrite *rewrite, sf_value value, sf_value x) {
  const sfi_node *product = at(rewrite, value);
  if (product->op != SF_OP_MUL) return false;
  for (int32_t k = 0; k < 2; k++) {
    const sfi_node *square = at(rewrite, product->inputs[k]);
    if (product->inputs[1 - k] == x && square->op == SF_OP_MUL && square->inputs[0] == x && square->inputs[1] == x) return true;
  }
  return false;
}

/* Is `value` x + 0.044715 x^3? */
static bool is_gelu_cubic(const sfi_rewrite *rewrite, sf_value value, sf_value x) {
  const sfi_node *sum = at(rewrite, value);
  if (sum->op != SF_OP_ADD) return false;
  for (int32_t k = 0; k < 2; k++) {
    sf_value cube = other_factor(rewrite, sum->inputs[1 - k], 0.044715);
    if (sum->inputs[k] == x && cube != SF_NO_VALUE && is_cube(rewrite, cube, x)) return true;
  }
  return false;
}

/* GELU where `value` is 1 + erf(x / sqrt 2), GELU_TANH where it is 1 + tanh(..), else MUL: nothing. */
static sf_op gelu_by(const sfi_rewrite *rewrite, sf_value value, sf_value x) {
  const sfi_node *sum = at(rewrite, value);
  if (sum->op != SF_OP_ADD || !holds(rewrite, sum, 1, 1)) return SF_OP_MUL;
  const sfi_node *function = at(rewrite, sum->inputs[0]);
  if (function->op == SF_OP_ERF)
    return other_factor(rewrite, function->inputs[0], 0.70710678118654752) == x ? SF_OP_GELU : SF_OP_MUL;
  if (function->op != SF_OP_TANH) return SF_OP_MUL;
  sf_value cubic = other_factor(rewrite, function->inputs[0], 0.79788456080286536);
  return cubic != SF_NO_VALUE && is_gelu_cubic(rewrite, cubic, x) ? SF_OP_GELU_TANH : SF_OP_MUL;
}

/* `op` of x in place of `like`, where the shapes agree. */
static sf_value one(sfi_rewrite *rewrite, const sfi_node *like, sf_op op, sf_value x, int32_t n_attrs, const sf_attr *attrs) {
  if (!sfi_shape_equal(&at(rewrite, x)->shape, &like->shape)) return SF_NO_VALUE;
  return sfi_rewrite_add(rewrite, like, op, 1, &x, n_attrs, attrs);
}

/* The product, in any order, of x, 1/2 and 1 + erf(x / sqrt 2) or 1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)). */
static sf_value gelu(sfi_rewrite *rewrite, const sfi_node *product) {
  for (int32_t k = 0; k < 2; k++) {
    sf_value factor = product->inputs[k], half = other_factor(rewrite, factor, 0.5), other = product->inputs[1 - k];
    if (half == SF_NO_VALUE) continue;
    sf_op op = gelu_by(rewrite, other, half); /* (x/2) (1 + f) */
    if (op != SF_OP_MUL) return one(rewrite, product, op, half, 0, NULL);
    op = gelu_by(rewrite, half, other); /* x ((1 + f)/2) */
    if (op != SF_OP_MUL) return one(rewrite, product, op, other, 0, NULL);
  }
  const sfi_node *whole = at(rewrite, product->inputs[0]);
  if (!holds(rewrite, product, 1, 0.5) || whole->op != SF_OP_MUL) return SF_NO_VALUE;
  for (int32_t k = 0; k < 2; k++) { /* (x (1 + f))/2 */
    sf_op op = gelu_by(rewrite, whole->inputs[1 - k], whole->inputs[k]);
    if (op != SF_OP_MUL) return one(rewrite, product, op, whole->inputs[k], 0, NULL);
  }
  return SF_NO_VALUE;
}

/* x sigmoid(x). */
static sf_value silu(sfi_rewrite *rewrite, const sfi_node *product) {
  for (int32_t k = 0; k < 2; k++) {
    const sfi_node *sigmoid = at(rewrite, product->inputs[1 - k]);
    if (sigmoid->op == SF_OP_SIGMOID && sigmoid->inputs[0] == product->inputs[k])
      return one(rewrite, product, SF_OP_SILU, product->inputs[k], 0, NULL);
  }
  return SF_NO_VALUE;
}

/* The first of the dimensions that reduce_mean `mean` of `x` is over, if those are the last ones and stay as 1; else -1. */
static int32_t mean_from(const sfi_rewrite *rewrite, const sfi_node *mean, sf_value x) {
  if (mean->op != SF_OP_REDUCE_MEAN || mean->inputs[0] != x || !sfi_attr_int(mean, SF_ATTR_KEEPDIMS)) return -1;
  const sfi_attr_value *axes = sfi_attr_of(mean, SF_ATTR_AXES);
  int32_t rank = at(rewrite, x)->shape.rank, first = rank - axes->count;
  uint32_t seen = 0;
  for (int32_t i = 0; i < axes->count; i++) seen |= UINT32_C(1) << (axes->ints[i] < 0 ? axes->ints[i] + rank : axes->ints[i]);
  return seen == (UINT32_C(1) << rank) - (UINT32_C(1) << first) ? first : -1;
}

/* The first of the dimensions that `root`, sqrt(mean(d^2) + eps), has its mean over, if those are the last ones; -1: it is no such root. */
static int32_t deviation_from(const sfi_rewrite *rewrite, const sfi_node *root, sf_value d, float *out_eps) {
  if (root->op != SF_OP_SQRT) return -1;
  const sfi_node *sum = at(rewrite, root->inputs[0]);
  if (sum->op != SF_OP_ADD) return -1;
  const sfi_node *eps = at(rewrite, sum->inputs[1]), *mean = at(rewrite, sum->inputs[0]);
  if (!eps->data || eps->dtype != SF_F32 || eps->bytes != sizeof(float) || mean->op != SF_OP_REDUCE_MEAN) return -1;
  *out_eps = *(const float *)eps->data;
  const sfi_node *square = at(rewrite, mean->inputs[0]);
  if (square->op != SF_OP_MUL || square->inputs[0] != d || square->inputs[1] != d) return -1;
  return *out_eps >= 0 && !isinf(*out_eps) ? mean_from(rewrite, mean, mean->inputs[0]) : -1;
}

/* Layer norm or RMS norm in place of `like`, x / sqrt(mean(x^2) + eps), means over the last dimensions: layer norm where x is what is left
 * of something without its mean over the same. */
static sf_value norm(sfi_rewrite *rewrite, const sfi_node *like, sf_value x, const sfi_node *root) {
  float eps = 0;
  const int32_t axis = deviation_from(rewrite, root, x, &eps);
  if (axis < 0) return SF_NO_VALUE;
  const sfi_node *difference = at(rewrite, x);
  const bool centred =
      difference->op == SF_OP_SUB && mean_from(rewrite, at(rewrite, difference->inputs[1]), difference->inputs[0]) == axis;
  const sf_attr attrs[2] = {{.id = SF_ATTR_AXIS, .i = axis}, {.id = SF_ATTR_EPS, .f = (double)eps}};
  if (centred) x = difference->inputs[0];
  return one(rewrite, like, centred ? SF_OP_LAYER_NORM : SF_OP_RMS_NORM, x, 2, attrs);
}

static sf_value norm_by_quotient(sfi_rewrite *rewrite, const sfi_node *quotient) {
  return norm(rewrite, quotient, quotient->inputs[0], at(rewrite, quotient->inputs[1]));
}

static sf_value norm_by_product(sfi_rewrite *rewrite, const sfi_node *product) {
  sf_value made = SF_NO_VALUE;
  for (int32_t k = 0; k < 2 && made == SF_NO_VALUE; k++) {
    const sfi_node *reciprocal = at(rewrite, product->inputs[1 - k]);
    if (reciprocal->op == SF_OP_DIV && holds(rewrite, reciprocal, 0, 1))
      made = norm(rewrite, product, product->inputs[k], at(rewrite, reciprocal->inputs[1]));
  }
  return made;
}

/* Half of the last dimension of x. */
static sf_value half_of(sfi_rewrite *rewrite, const sfi_node *like, sf_value x, bool upper) {
  const int32_t rank = at(rewrite, x)->shape.rank;
  int64_t starts[SF_MAX_RANK] = {0}, ends[SF_MAX_RANK], middle = at(rewrite, x)->shape.dims[rank - 1].c[0] / 2;
  for (int32_t d = 0; d < rank; d++) ends[d] = INT64_MAX;
  *(upper ? &starts[rank - 1] : &ends[rank - 1]) = middle;
  const sf_attr attrs[] = {{.id = SF_ATTR_STARTS, .count = rank, .ints = starts},
                           {.id = SF_ATTR_ENDS, .count = rank, .ints = ends}};
  return sfi_rewrite_add(rewrite, like, SF_OP_SLICE, 1, &x, 2, attrs);
}

/* Is `value` that half? */
static bool is_half_of(const sfi_rewrite *rewrite, sf_value value, sf_value x, bool upper) {
  const sfi_node *slice = at(rewrite, value);
  const sfi_shape *from = &at(rewrite, x)->shape;
  if (slice->op != SF_OP_SLICE || slice->inputs[0] != x) return false;
  const int32_t last = from->rank - 1;
  const int64_t middle = from->dims[last].c[0] / 2;
  const sfi_attr_value *steps = sfi_attr_of(slice, SF_ATTR_STEPS);
  bool same = sfi_is(slice->shape.dims[last], middle) && sfi_attr_of(slice, SF_ATTR_STARTS)->ints[last] == (upper ? middle : 0) &&
              (steps->count == 0 || steps->ints[last] == 1);
  for (int32_t d = 0; d < last; d++) same = same && sfi_poly_equal(slice->shape.dims[d], from->dims[d]);
  return same;
}

/* What `value`, x with its halves exchanged and the upper one negated, is made of, or SF_NO_VALUE. */
static sf_value turned_of(const sfi_rewrite *rewrite, sf_value value) {
  const sfi_node *concat = at(rewrite, value);
  if (concat->op != SF_OP_CONCAT || concat->n_inputs != 2 || concat->shape.rank == 0) return SF_NO_VALUE;
  const int32_t last = concat->shape.rank - 1;
  const int64_t axis = sfi_attr_int(concat, SF_ATTR_AXIS);
  const sfi_node *neg = at(rewrite, concat->inputs[0]), *slice = at(rewrite, concat->inputs[1]);
  if ((axis != -1 && axis != last) || neg->op != SF_OP_NEG || slice->op != SF_OP_SLICE) return SF_NO_VALUE;
  const sf_value x = slice->inputs[0];
  const sfi_poly extent = at(rewrite, x)->shape.dims[last];
  const bool even = sfi_is_const(extent) && extent.c[0] > 0 && extent.c[0] % 2 == 0;
  return even && is_half_of(rewrite, concat->inputs[1], x, false) && is_half_of(rewrite, neg->inputs[0], x, true) ? x : SF_NO_VALUE;
}

/* x cos + concat(-upper x, lower x) sin, as concat(lower x lower cos - upper x lower sin, upper x upper cos + lower x upper sin): the same
 * operations, two kernels that store both halves. */
static sf_value rotary(sfi_rewrite *rewrite, const sfi_node *sum) {
  sf_value x = SF_NO_VALUE, cos = SF_NO_VALUE, sin = SF_NO_VALUE;
  for (int32_t k = 0; k < 8 && cos == SF_NO_VALUE; k++) { /* every order of the operands */
    const sfi_node *plain = at(rewrite, sum->inputs[k & 1]), *turned = at(rewrite, sum->inputs[~k & 1]);
    if (plain->op != SF_OP_MUL || turned->op != SF_OP_MUL) return SF_NO_VALUE;
    x = turned_of(rewrite, turned->inputs[k >> 1 & 1]);
    if (x == SF_NO_VALUE || plain->inputs[k >> 2 & 1] != x) continue;
    cos = plain->inputs[~k >> 2 & 1];
    sin = turned->inputs[~k >> 1 & 1];
  }
  if (cos == SF_NO_VALUE || !sfi_shape_equal(&at(rewrite, x)->shape, &sum->shape)) return SF_NO_VALUE;
  const sfi_poly extent = sum->shape.dims[sum->shape.rank - 1];
  const sf_value factors[] = {cos, sin};
  for (int32_t i = 0; i < 2; i++) {
    const sfi_shape *shape = &at(rewrite, factors[i])->shape;
    if (shape->rank == 0 || !sfi_poly_equal(shape->dims[shape->rank - 1], extent)) return SF_NO_VALUE;
  }
  sfi_node unnamed = *sum;
  unnamed.name = NULL;
  const sf_value lower = half_of(rewrite, &unnamed, x, false), upper = half_of(rewrite, &unnamed, x, true);
  sf_value halves[2];
  for (int32_t h = 0; h < 2; h++) {
    if (sfi_rewrite_failed(rewrite)) return SF_NO_VALUE;
    const sf_value own[] = {h ? upper : lower, half_of(rewrite, &unnamed, cos, h)};
    const sf_value other[] = {h ? lower : upper, half_of(rewrite, &unnamed, sin, h)};
    if (sfi_rewrite_failed(rewrite)) return SF_NO_VALUE;
    const sf_value terms[] = {sfi_rewrite_add(rewrite, &unnamed, SF_OP_MUL, 2, own, 0, NULL),
                              sfi_rewrite_add(rewrite, &unnamed, SF_OP_MUL, 2, other, 0, NULL)};
    if (sfi_rewrite_failed(rewrite)) return SF_NO_VALUE;
    halves[h] = sfi_rewrite_add(rewrite, &unnamed, h ? SF_OP_ADD : SF_OP_SUB, 2, terms, 0, NULL);
  }
  if (sfi_rewrite_failed(rewrite)) return SF_NO_VALUE;
  const sf_attr axis = {.id = SF_ATTR_AXIS, .i = sum->shape.rank - 1};
  return sfi_rewrite_add(rewrite, sum, SF_OP_CONCAT, 2, halves, 1, &axis);
}

static const struct rule {
  sf_op op; /* of the last of the smaller operations */
  sf_value (*apply)(sfi_rewrite *rewrite, const sfi_node *node);
} rules[] = {
    {SF_OP_MUL, gelu}, {SF_OP_MUL, silu}, {SF_OP_MUL, norm_by_product}, {SF_OP_DIV, norm_by_quotient}, {SF_OP_ADD, rotary}};

sf_status sfi_compose(sfi_pass_env *env, const sf_graph *graph, sf_graph **out_graph) {
  sfi_rewrite rewrite;
  *out_graph = NULL;
  if (!sfi_rewrite_begin(&rewrite, env, graph)) return SF_STATUS_OUT_OF_MEMORY;
  for (size_t i = 0; i < graph->n_nodes && !sfi_rewrite_failed(&rewrite); i++) {
    sf_value value = sfi_rewrite_copy(&rewrite, (sf_value)i), made = SF_NO_VALUE;
    for (size_t r = 0; value != SF_NO_VALUE && made == SF_NO_VALUE && r < SFI_COUNT(rules); r++) {
      const sfi_node node = rewrite.to->nodes[value]; /* a copy: rules grow the graph */
      if (rules[r].op == node.op) made = rules[r].apply(&rewrite, &node);
    }
    if (made != SF_NO_VALUE) rewrite.map[i] = made;
  }
  return sfi_rewrite_end(&rewrite, SF_OK, out_graph);
}
