/* Elementwise operations of one operand, and of two with broadcasting. The formulas are those of ops.def, in fp64. */
#include "ref_kernel.h"

static double unary(sf_op op, double x) {
  switch (op) {
  case SF_OP_RELU:
    return x < 0 ? 0 : x;
  case SF_OP_GELU:
    return x / 2 * erfc(-x * 0.70710678118654752440); /* 1 + erf(u) = erfc(-u), without its cancellation */
  case SF_OP_GELU_TANH:
    return x / 2 * (1 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
  case SF_OP_SILU:
    return x / (1 + exp(-x));
  case SF_OP_SIGMOID:
    return 1 / (1 + exp(-x));
  case SF_OP_TANH:
    return tanh(x);
  case SF_OP_EXP:
    return exp(x);
  case SF_OP_SQRT:
    return sqrt(x);
  default:
    assert(!"elementwise operation of one operand");
    return 0;
  }
}

static double binary(sf_op op, double x, double y) {
  switch (op) {
  case SF_OP_ADD:
    return x + y;
  case SF_OP_SUB:
    return x - y;
  case SF_OP_MUL:
    return x * y;
  case SF_OP_DIV:
    return x / y;
  default:
    assert(!"elementwise operation of two operands");
    return 0;
  }
}

void sfi_ref_same(const sfi_ref_call *call) {
  int64_t n = sfi_ref_numel(call->output);
  for (int64_t i = 0; i < n; i++) sfi_ref_store(call->output, i, unary(call->node->op, sfi_ref_load(&call->inputs[0], i)));
}

void sfi_ref_broadcast(const sfi_ref_call *call) {
  const sf_tensor *out = call->output;
  int64_t n = sfi_ref_numel(out), index[SF_MAX_RANK] = {0}, at[2] = {0}, strides[2][SF_MAX_RANK];
  for (int k = 0; k < 2; k++) sfi_ref_broadcast_strides(&call->inputs[k], out->rank, strides[k]);
  for (int64_t i = 0; i < n; i++) {
    sfi_ref_store(out, i, binary(call->node->op, sfi_ref_load(&call->inputs[0], at[0]), sfi_ref_load(&call->inputs[1], at[1])));
    sfi_ref_next(out->rank, out->dims, index, 2, strides, at);
  }
}
