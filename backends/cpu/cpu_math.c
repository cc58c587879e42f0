/* Elementwise functions as straight-line IR, on vectors and scalars alike. Errors are a few units in the last place of fp32;
 * tests hold them to ir/tolerances.def. NaN comes out where NaN goes in, infinities give the limits. */
#include "emission.h"

static LLVMValueRef constant(sfi_emission *e, LLVMValueRef like, double v) {
  return LLVMGetTypeKind(LLVMTypeOf(like)) == LLVMVectorTypeKind ? sfi_vconst(e, v) : sfi_f32(e, v);
}
static LLVMTypeRef int_type(sfi_emission *e, LLVMValueRef like) {
  return LLVMGetTypeKind(LLVMTypeOf(like)) == LLVMVectorTypeKind ? LLVMVectorType(e->i32, (unsigned)e->lanes) : e->i32;
}
static LLVMValueRef int_constant(sfi_emission *e, LLVMValueRef like, int32_t v) {
  LLVMValueRef c = LLVMConstInt(e->i32, (unsigned long long)(int64_t)v, true);
  if (LLVMGetTypeKind(LLVMTypeOf(like)) != LLVMVectorTypeKind) return c;
  LLVMValueRef lane[64];
  for (int32_t i = 0; i < e->lanes; i++) lane[i] = c;
  return LLVMConstVector(lane, (unsigned)e->lanes);
}
static LLVMValueRef add(sfi_emission *e, LLVMValueRef a, LLVMValueRef b) {
  return LLVMBuildFAdd(e->builder, a, b, "");
}
static LLVMValueRef sub(sfi_emission *e, LLVMValueRef a, LLVMValueRef b) {
  return LLVMBuildFSub(e->builder, a, b, "");
}
static LLVMValueRef mul(sfi_emission *e, LLVMValueRef a, LLVMValueRef b) {
  return LLVMBuildFMul(e->builder, a, b, "");
}
static LLVMValueRef quotient(sfi_emission *e, LLVMValueRef a, LLVMValueRef b) {
  return LLVMBuildFDiv(e->builder, a, b, "");
}

static LLVMValueRef unary(sfi_emission *e, const char *name, LLVMValueRef x) {
  LLVMTypeRef type = LLVMTypeOf(x);
  return sfi_intrinsic(e, name, &type, 1, &x, 1);
}

/* c[0] + c[1] x + ... by Horner's rule. */
static LLVMValueRef polynomial(sfi_emission *e, LLVMValueRef x, const double *c, int n) {
  LLVMValueRef y = constant(e, x, c[n - 1]);
  for (int i = n - 2; i >= 0; i--) y = sfi_fma(e, y, x, constant(e, x, c[i]));
  return y;
}

/* x < limit ? limit : x, or with > for the other side; NaN stays. */
static LLVMValueRef at_least(sfi_emission *e, LLVMValueRef x, double limit) {
  LLVMValueRef c = constant(e, x, limit);
  return LLVMBuildSelect(e->builder, LLVMBuildFCmp(e->builder, LLVMRealOLT, x, c, ""), c, x, "");
}
static LLVMValueRef at_most(sfi_emission *e, LLVMValueRef x, double limit) {
  LLVMValueRef c = constant(e, x, limit);
  return LLVMBuildSelect(e->builder, LLVMBuildFCmp(e->builder, LLVMRealOGT, x, c, ""), c, x, "");
}

/* 2^n for integer n in [-126, 127]. */
static LLVMValueRef power_of_two(sfi_emission *e, LLVMValueRef n, LLVMValueRef like) {
  LLVMValueRef biased = LLVMBuildAdd(e->builder, n, int_constant(e, like, 127), "");
  return LLVMBuildBitCast(e->builder, LLVMBuildShl(e->builder, biased, int_constant(e, like, 23), ""), LLVMTypeOf(like), "");
}

/* e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln 2 / 2, ln 2 in two parts (Cody and Waite); polynomial for e^r from Cephes' expf.
 * The rounding adds 1.5 * 2^23 so that n stands in the low bits of the sum: no conversion that NaN could upset. The scaling is
 * split in two factors, so that results reach the subnormals and infinity exactly. */
LLVMValueRef sfi_exp(sfi_emission *e, LLVMValueRef x) {
  static const double c[] = {5.0000001201e-1, 1.6666665459e-1, 4.1665795894e-2, 8.3334519073e-3, 1.3981999507e-3, 1.9875691500e-4};
  const double magic = 12582912;
  x = at_most(e, at_least(e, x, -104), 89);
  LLVMValueRef biased = sfi_fma(e, x, constant(e, x, 1.44269504088896341), constant(e, x, magic));
  LLVMValueRef n = sub(e, biased, constant(e, x, magic));
  LLVMValueRef r = sfi_fma(e, n, constant(e, x, -0.693359375), x);
  r = sfi_fma(e, n, constant(e, x, 2.12194440e-4), r);
  LLVMValueRef y = sfi_fma(e, polynomial(e, r, c, (int)SFI_COUNT(c)), mul(e, r, r), add(e, r, constant(e, x, 1)));
  LLVMValueRef whole =
      LLVMBuildSub(e->builder, LLVMBuildBitCast(e->builder, biased, int_type(e, x), ""), int_constant(e, x, 0x4b400000), "");
  LLVMValueRef half = LLVMBuildAShr(e->builder, whole, int_constant(e, x, 1), "");
  LLVMValueRef rest = LLVMBuildSub(e->builder, whole, half, "");
  return mul(e, mul(e, y, power_of_two(e, half, x)), power_of_two(e, rest, x));
}

/* Near zero Cephes' tanhf polynomial, beyond it 1 - 2 / (e^2|x| + 1). */
static LLVMValueRef tanh_of(sfi_emission *e, LLVMValueRef x) {
  static const double c[] = {-3.33332819422e-1, 1.33314422036e-1, -5.37397155531e-2, 2.06390887954e-2, -5.70498872745e-3};
  LLVMValueRef a = unary(e, "llvm.fabs", x), z = mul(e, x, x), one = constant(e, x, 1);
  LLVMValueRef small = sfi_fma(e, mul(e, polynomial(e, z, c, (int)SFI_COUNT(c)), z), x, x);
  LLVMValueRef large = sub(e, one, quotient(e, constant(e, x, 2), add(e, sfi_exp(e, add(e, a, a)), one)));
  LLVMTypeRef type = LLVMTypeOf(x);
  large = sfi_intrinsic(e, "llvm.copysign", &type, 1, (LLVMValueRef[]){large, x}, 2);
  return LLVMBuildSelect(e->builder, LLVMBuildFCmp(e->builder, LLVMRealOLT, a, constant(e, x, 0.625), ""), small, large, "");
}

/* |x| < 1: x P(x^2); beyond: 1 - e^-Q(|x|), as -log erfc is smooth. Both polynomials are weighted minimax fits made for this file;
 * relative error below 1.8e-7. */
static LLVMValueRef erf_of(sfi_emission *e, LLVMValueRef x) {
  static const double p[] = {1.1283791065216064,   -0.3761262595653534,    0.11283600330352783,  -0.026854444295167923,
                             0.005189535208046436, -0.0008020838140510023, 7.889109110692516e-05};
  static const double q[] = {-0.00015338679077103734, 1.1293970346450806,    0.6336272358894348,
                             0.1079057827591896,      -0.024812860414385796, 0.004013429395854473,
                             -0.00038479582872241735, 1.233178045367822e-05, 6.626798381148546e-07};
  LLVMValueRef a = at_most(e, unary(e, "llvm.fabs", x), 4);
  LLVMValueRef small = mul(e, x, polynomial(e, mul(e, x, x), p, (int)SFI_COUNT(p)));
  LLVMTypeRef type = LLVMTypeOf(x);
  LLVMValueRef large = sub(e, constant(e, x, 1), sfi_exp(e, LLVMBuildFNeg(e->builder, polynomial(e, a, q, (int)SFI_COUNT(q)), "")));
  large = sfi_intrinsic(e, "llvm.copysign", &type, 1, (LLVMValueRef[]){large, x}, 2);
  return LLVMBuildSelect(e->builder, LLVMBuildFCmp(e->builder, LLVMRealOLT, a, constant(e, x, 1), ""), small, large, "");
}

static LLVMValueRef sigmoid_of(sfi_emission *e, LLVMValueRef x, LLVMValueRef numerator) {
  return quotient(e, numerator, add(e, sfi_exp(e, LLVMBuildFNeg(e->builder, x, "")), constant(e, x, 1)));
}

/* x/2 (1 + f). */
static LLVMValueRef gelu_of(sfi_emission *e, LLVMValueRef x, LLVMValueRef f) {
  return mul(e, mul(e, x, constant(e, x, 0.5)), add(e, f, constant(e, x, 1)));
}

LLVMValueRef sfi_elementwise(sfi_emission *e, sf_op op, LLVMValueRef a, LLVMValueRef b) {
  switch (op) {
  case SF_OP_ADD:
    return add(e, a, b);
  case SF_OP_SUB:
    return sub(e, a, b);
  case SF_OP_MUL:
    return mul(e, a, b);
  case SF_OP_DIV:
    return quotient(e, a, b);
  case SF_OP_RELU:
    return at_least(e, a, 0);
  case SF_OP_GELU:
    return gelu_of(e, a, erf_of(e, mul(e, a, constant(e, a, 0.70710678118654752))));
  case SF_OP_GELU_TANH: {
    LLVMValueRef inner = sfi_fma(e, mul(e, mul(e, a, a), a), constant(e, a, 0.044715), a);
    return gelu_of(e, a, tanh_of(e, mul(e, inner, constant(e, a, 0.79788456080286536))));
  }
  case SF_OP_SILU:
    return sigmoid_of(e, a, a);
  case SF_OP_SIGMOID:
    return sigmoid_of(e, a, constant(e, a, 1));
  case SF_OP_TANH:
    return tanh_of(e, a);
  case SF_OP_EXP:
    return sfi_exp(e, a);
  case SF_OP_SQRT:
    return unary(e, "llvm.sqrt", a);
  default:
    assert(!"not elementwise");
    return a;
  }
}
