/* Elementwise operations of one operand, and of several with broadcasting. The formulas are those of ops.def, in fp64. */
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
  case SF_OP_NEG:
    return -x;
  case SF_OP_ABS:
    return fabs(x);
  case SF_OP_LOG:
    return log(x);
  case SF_OP_ERF:
    return erf(x);
  case SF_OP_SIN:
    return sin(x);
  case SF_OP_COS:
    return cos(x);
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
  case SF_OP_POW:
    return pow(x, y);
  case SF_OP_MIN:
    return isnan(x) || x < y ? x : y;
  case SF_OP_MAX:
    return isnan(x) || x > y ? x : y;
  case SF_OP_LESS:
    return x < y ? 1 : 0;
  case SF_OP_EQUAL:
    return x == y ? 1 : 0;
  case SF_OP_PRELU:
    return x < 0 ? x * y : x;
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
  const int32_t operands = call->node->n_inputs;
  int64_t n = sfi_ref_numel(out), index[SF_MAX_RANK] = {0}, at[3] = {0}, strides[3][SF_MAX_RANK];
  for (int32_t k = 0; k < operands; k++) sfi_ref_broadcast_strides(&call->inputs[k], out->rank, strides[k]);
  for (int64_t i = 0; i < n; i++) {
    double x[3] = {0};
    for (int32_t k = 0; k < operands; k++) x[k] = sfi_ref_load(&call->inputs[k], at[k]);
    sfi_ref_store(out, i, operands == 2 ? binary(call->node->op, x[0], x[1]) : x[0] == 0 ? x[2] : x[1]);
    sfi_ref_next(out->rank, out->dims, index, operands, strides, at);
  }
}

void sfi_ref_cast(const sfi_ref_call *call) {
  int64_t n = sfi_ref_numel(call->output);
  for (int64_t i = 0; i < n; i++) sfi_ref_store(call->output, i, sfi_ref_load(&call->inputs[0], i));
}
