/* See compare.h. */
#include "compare.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

sf_tolerance sf_tolerance_of(sf_op op) {
  static const sf_tolerance rows[] = {
#define SFI_TOLERANCE(op, absolute, relative, growth) [SF_OP_##op] = {absolute, relative, growth},
#include "tolerances.def"
#undef SFI_TOLERANCE
  };
  return rows[op];
}

double sf_precision_of(sf_dtype dtype) {
  return dtype == SF_F64 ? DBL_EPSILON / FLT_EPSILON : 1;
}

static int64_t numel(const sf_tensor *t) {
  int64_t n = 1;
  for (int32_t d = 0; d < t->rank; d++) n *= t->dims[d];
  return n;
}

int64_t sf_depth_of(const sfi_node *node, const sf_tensor *inputs, const sf_tensor *output) {
  const sf_tensor *x = inputs;
  switch (node->op) {
  case SF_OP_MATMUL:
    return x->dims[x->rank - (sfi_attr_int(node, SF_ATTR_TRANSPOSE_A) ? 2 : 1)];
  case SF_OP_CONV2D:
    return inputs[1].dims[1] * inputs[1].dims[2] * inputs[1].dims[3];
  case SF_OP_CONV_TRANSPOSE:
    return inputs[1].dims[0] * inputs[1].dims[2] * inputs[1].dims[3] / sfi_attr_int(node, SF_ATTR_GROUPS);
  case SF_OP_ATTENTION:
    return inputs[1].dims[inputs[1].rank - 2]; /* keys */
  case SF_OP_AVG_POOL:
    return sfi_attr_of(node, SF_ATTR_KERNEL)->ints[0] * sfi_attr_of(node, SF_ATTR_KERNEL)->ints[1];
  case SF_OP_SOFTMAX:
  case SF_OP_LAYER_NORM:
  case SF_OP_RMS_NORM: {
    int64_t axis = sfi_attr_int(node, SF_ATTR_AXIS), depth = 1;
    if (axis < 0) axis += x->rank;
    for (int64_t d = axis; d < (node->op == SF_OP_SOFTMAX ? axis + 1 : x->rank); d++) depth *= x->dims[d];
    return depth;
  }
  case SF_OP_GLOBAL_AVG_POOL:
  case SF_OP_REDUCE_SUM:
  case SF_OP_REDUCE_MEAN:
  case SF_OP_REDUCE_MAX:
    return numel(x) / sfi_max(numel(output), 1);
  default:
    return 1;
  }
}

static double element(const sf_tensor *t, int64_t i) {
  return t->dtype == SF_F64 ? ((const double *)t->data)[i] : (double)((const float *)t->data)[i];
}

static void compare_element(double got, double want, double allowed, int64_t i, sf_comparison *c) {
  double ratio;
  if (allowed == INFINITY) {
    c->skipped++;
    return;
  }
  if (isfinite(got) && isfinite(want)) {
    double error = fabs(got - want);
    ratio = error == 0 ? 0 : allowed > 0 ? error / allowed : INFINITY;
  } else {
    ratio = isnan(want) ? (isnan(got) ? 0 : INFINITY) : got == want ? 0 : INFINITY;
  }
  if (ratio > 1) c->wrong++;
  if (c->compared == 0 || ratio > c->worst_ratio) {
    c->worst_index = i;
    c->worst_ratio = ratio;
    c->worst_got = got;
    c->worst_want = want;
    c->worst_allowed = allowed;
  }
  c->compared++;
}

bool sf_compare(const sf_tensor *got, const sf_tensor *want, sf_op op, int64_t depth, sf_comparison *out_comparison) {
  sf_tolerance t = sf_tolerance_of(op);
  double scale = sf_precision_of(got->dtype), squares = 0;
  int64_t n = numel(want), finite = 0;
  *out_comparison = (sf_comparison){0};
  for (int64_t i = 0; i < n; i++) {
    double w = element(want, i);
    if (fabs(w) <= FLT_MAX) squares += w * w, finite++; /* no overflow here, and none in fp32 */
  }
  double rms = finite ? sqrt(squares / (double)finite) : 0;
  for (int64_t i = 0; i < n; i++) {
    double w = element(want, i);
    double allowed = scale * (t.absolute + (t.relative + t.growth * sqrt((double)depth)) * fmax(isfinite(w) ? fabs(w) : 0, rms));
    bool overflows = got->dtype == SF_F32 && isfinite(w) && fabs(w) > FLT_MAX;
    compare_element(element(got, i), w, overflows ? INFINITY : allowed, i, out_comparison);
  }
  return out_comparison->wrong == 0;
}

bool sf_compare_bounded(const sf_tensor *got, const sf_tensor *want, const sf_tensor *bound, sf_comparison *out_comparison) {
  int64_t n = numel(want);
  *out_comparison = (sf_comparison){0};
  for (int64_t i = 0; i < n; i++) compare_element(element(got, i), element(want, i), element(bound, i), i, out_comparison);
  return out_comparison->wrong == 0;
}

void sf_comparison_print(const sf_comparison *c, char *out_text, size_t size) {
  snprintf(out_text, size, "element %lld is %.9g, not %.9g (allowed %.3g, off by %.3g of it); %lld of %lld wrong, %lld skipped",
           (long long)c->worst_index, c->worst_got, c->worst_want, c->worst_allowed, c->worst_ratio, (long long)c->wrong,
           (long long)c->compared, (long long)c->skipped);
}
