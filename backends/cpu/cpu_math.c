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

static bool has_scalef(const sfi_emission *e, LLVMValueRef v) {
  return LLVMGetTypeKind(LLVMTypeOf(v)) == LLVMVectorTypeKind && e->target->masks && e->lanes == 16;
}

/* y 2^n for whole n in [-252, 254], or NaN where y is. Without an instruction for it, 1.5 * 2^23 is added so that n stands in the low bits
 * of the sum (no conversion that NaN could upset), and the scaling is split in two factors, so that results reach the subnormals and
 * infinity exactly. */
static LLVMValueRef scaled(sfi_emission *e, LLVMValueRef y, LLVMValueRef n) {
  if (has_scalef(e, y)) {
    LLVMValueRef all = LLVMConstInt(e->i16, 0xffff, false), rounding = LLVMConstInt(e->i32, 4, false);
    return sfi_intrinsic(e, "llvm.x86.avx512.mask.scalef.ps.512", NULL, 0, (LLVMValueRef[]){y, n, y, all, rounding}, 5);
  }
  LLVMValueRef biased = LLVMBuildBitCast(e->builder, add(e, n, constant(e, y, 12582912)), int_type(e, y), "");
  LLVMValueRef whole = LLVMBuildSub(e->builder, biased, int_constant(e, y, 0x4b400000), "");
  LLVMValueRef half = LLVMBuildAShr(e->builder, whole, int_constant(e, y, 1), "");
  LLVMValueRef rest = LLVMBuildSub(e->builder, whole, half, "");
  return mul(e, mul(e, y, power_of_two(e, half, y)), power_of_two(e, rest, y));
}

/* 2^n e^r for |r| <= ln 2 / 2 and whole n as above, by the polynomial of Cephes' expf. */
static LLVMValueRef scaled_exp(sfi_emission *e, LLVMValueRef r, LLVMValueRef n) {
  static const double c[] = {5.0000001201e-1, 1.6666665459e-1, 4.1665795894e-2, 8.3334519073e-3, 1.3981999507e-3, 1.9875691500e-4};
  return scaled(e, sfi_fma(e, polynomial(e, r, c, (int)SFI_COUNT(c)), mul(e, r, r), add(e, r, constant(e, r, 1))), n);
}

/* e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln 2 / 2, ln 2 in two parts (Cody and Waite). Adding 1.5 * 2^23 rounds. */
LLVMValueRef sfi_exp(sfi_emission *e, LLVMValueRef x) {
  LLVMValueRef magic = constant(e, x, 12582912);
  x = at_most(e, at_least(e, x, -104), 89);
  LLVMValueRef n = sub(e, sfi_fma(e, x, constant(e, x, 1.44269504088896341), magic), magic);
  LLVMValueRef r = sfi_fma(e, n, constant(e, x, -0.693359375), x);
  return scaled_exp(e, sfi_fma(e, n, constant(e, x, 2.12194440e-4), r), n);
}

/* 2^x = 2^floor(x) 2^f, 0 <= f < 1, by a minimax polynomial made for this file; relative error below 3 u. */
LLVMValueRef sfi_exp2(sfi_emission *e, LLVMValueRef x) {
  static const double c[] = {0.99999994,          0.6931530833244324,  0.24015361070632935,
                             0.05582631751894951, 0.00898933969438076, 0.0018775766948238015};
  if (has_scalef(e, x)) { /* which takes the floor itself; and of an infinity nothing remains */
    LLVMValueRef all = LLVMConstInt(e->i16, 0xffff, false), down = LLVMConstInt(e->i32, 9, false),
                 mode = LLVMConstInt(e->i32, 4, false);
    LLVMValueRef f = sfi_intrinsic(e, "llvm.x86.avx512.mask.reduce.ps.512", NULL, 0, (LLVMValueRef[]){x, down, x, all, mode}, 5);
    return scaled(e, polynomial(e, f, c, (int)SFI_COUNT(c)), x);
  }
  x = at_most(e, at_least(e, x, -151), 129);
  LLVMValueRef n = unary(e, "llvm.floor", x);
  return scaled(e, polynomial(e, sub(e, x, n), c, (int)SFI_COUNT(c)), n);
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

/* a P(a^2) / Q(a^2) for a = min(|x|, 4), a minimax fit of the relative error made for this file; from 4 on 1. All coefficients are
 * positive, so nothing cancels: relative error below 6 u. */
static LLVMValueRef erf_of(sfi_emission *e, LLVMValueRef x) {
  static const double p[] = {1.12837914, 0.193545538, 0.0531017929, 0.00388335929, 0.000284565492, 1.98676986e-06};
  static const double q[] = {1, 0.504857823, 0.115350183, 0.0152072832, 0.00118557337, 3.74200214e-05};
  LLVMValueRef a = at_most(e, unary(e, "llvm.fabs", x), 4), z = mul(e, a, a);
  LLVMValueRef top = mul(e, a, polynomial(e, z, p, (int)SFI_COUNT(p)));
  LLVMValueRef y = at_most(e, quotient(e, top, polynomial(e, z, q, (int)SFI_COUNT(q))), 1);
  LLVMTypeRef type = LLVMTypeOf(x);
  return sfi_intrinsic(e, "llvm.copysign", &type, 1, (LLVMValueRef[]){y, x}, 2);
}

static LLVMValueRef sigmoid_of(sfi_emission *e, LLVMValueRef x, LLVMValueRef numerator) {
  return quotient(e, numerator, add(e, sfi_exp(e, LLVMBuildFNeg(e->builder, x, "")), constant(e, x, 1)));
}

/* x/2 + x/2 f. */
static LLVMValueRef gelu_of(sfi_emission *e, LLVMValueRef x, LLVMValueRef f) {
  LLVMValueRef half = mul(e, x, constant(e, x, 0.5));
  return sfi_fma(e, half, f, half);
}

/* ---- logarithms, powers and sines, by way of fp64 ------------------------------------------------------------------------- */

static LLVMTypeRef shaped(sfi_emission *e, LLVMTypeRef scalar, LLVMValueRef like) {
  return LLVMGetTypeKind(LLVMTypeOf(like)) == LLVMVectorTypeKind ? LLVMVectorType(scalar, (unsigned)e->lanes) : scalar;
}
static LLVMValueRef filled(sfi_emission *e, LLVMValueRef scalar, LLVMValueRef like) {
  LLVMValueRef lane[64];
  if (LLVMGetTypeKind(LLVMTypeOf(like)) != LLVMVectorTypeKind) return scalar;
  for (int32_t i = 0; i < e->lanes; i++) lane[i] = scalar;
  return LLVMConstVector(lane, (unsigned)e->lanes);
}
static LLVMValueRef wide_constant(sfi_emission *e, LLVMValueRef like, double v) {
  return filled(e, LLVMConstReal(LLVMDoubleTypeInContext(e->context), v), like);
}
static LLVMValueRef wide_bits(sfi_emission *e, LLVMValueRef like, uint64_t v) {
  return filled(e, LLVMConstInt(e->i64, v, false), like);
}
static LLVMValueRef select_where(sfi_emission *e, LLVMRealPredicate how, LLVMValueRef a, LLVMValueRef b, LLVMValueRef then,
                                 LLVMValueRef otherwise) {
  return LLVMBuildSelect(e->builder, LLVMBuildFCmp(e->builder, how, a, b, ""), then, otherwise, "");
}

/* log2 of fp32 numbers in fp64, where none of them is subnormal: x = 2^n m with m in [sqrt 1/2, sqrt 2), and
 * log2 m = 2 / ln 2 * (t + t^3 / 3 + ..), t = (m - 1) / (m + 1). Relative error below 1e-13. -Inf at 0, NaN below. */
static LLVMValueRef log2_wide(sfi_emission *e, LLVMValueRef x) {
  enum { TERMS = 8 };
  const double inf = __builtin_inf();
  LLVMTypeRef wide = shaped(e, LLVMDoubleTypeInContext(e->context), x), integer = shaped(e, e->i64, x);
  LLVMValueRef d = LLVMBuildFPExt(e->builder, x, wide, ""), bits = LLVMBuildBitCast(e->builder, d, integer, "");
  LLVMValueRef one = wide_constant(e, x, 1), root = wide_constant(e, x, 1.41421356237309505);
  LLVMValueRef n = LLVMBuildSub(e->builder, LLVMBuildLShr(e->builder, bits, wide_bits(e, x, 52), ""), wide_bits(e, x, 1023), "");
  LLVMValueRef fraction = LLVMBuildAnd(e->builder, bits, wide_bits(e, x, (UINT64_C(1) << 52) - 1), "");
  LLVMValueRef m =
      LLVMBuildBitCast(e->builder, LLVMBuildOr(e->builder, fraction, wide_bits(e, x, UINT64_C(1023) << 52), ""), wide, "");
  LLVMValueRef power = LLVMBuildSIToFP(e->builder, n, wide, "");
  LLVMValueRef above = LLVMBuildFCmp(e->builder, LLVMRealOGT, m, root, "");
  m = LLVMBuildSelect(e->builder, above, mul(e, m, wide_constant(e, x, 0.5)), m, "");
  power = LLVMBuildSelect(e->builder, above, add(e, power, one), power, "");
  LLVMValueRef t = quotient(e, sub(e, m, one), add(e, m, one)), z = mul(e, t, t);
  LLVMValueRef sum = wide_constant(e, x, 2.88539008177792681 / (2 * TERMS - 1));
  for (int k = TERMS - 2; k >= 0; k--) sum = sfi_fma(e, sum, z, wide_constant(e, x, 2.88539008177792681 / (2 * k + 1)));
  LLVMValueRef y = sfi_fma(e, t, sum, power), zero = wide_constant(e, x, 0);
  y = select_where(e, LLVMRealOEQ, d, wide_constant(e, x, inf), d, y);
  y = select_where(e, LLVMRealOEQ, d, zero, wide_constant(e, x, -inf), y);
  return select_where(e, LLVMRealULT, d, zero, wide_constant(e, x, __builtin_nan("")), y);
}

static LLVMValueRef log_of(sfi_emission *e, LLVMValueRef x) {
  return LLVMBuildFPTrunc(e->builder, mul(e, log2_wide(e, x), wide_constant(e, x, 0.693147180559945309)), LLVMTypeOf(x), "");
}

/* |x|^y = 2^(y log2 |x|), then the sign and what C's pow says of zeros, ones, infinities and NaN. */
static LLVMValueRef pow_of(sfi_emission *e, LLVMValueRef x, LLVMValueRef y) {
  const double inf = __builtin_inf();
  LLVMTypeRef type = LLVMTypeOf(x), wide = shaped(e, LLVMDoubleTypeInContext(e->context), x);
  LLVMValueRef a = unary(e, "llvm.fabs", x), one = constant(e, x, 1), zero = constant(e, x, 0);
  LLVMValueRef nan = constant(e, x, __builtin_nan("")), exponent = mul(e, log2_wide(e, a), LLVMBuildFPExt(e->builder, y, wide, ""));
  LLVMValueRef known = LLVMBuildFCmp(e->builder, LLVMRealORD, exponent, exponent, "");
  LLVMValueRef high = wide_constant(e, x, 200), low = wide_constant(e, x, -200);
  LLVMValueRef p = LLVMBuildSelect(e->builder, known, exponent, low, ""); /* NaN does not convert */
  p = select_where(e, LLVMRealOGT, p, high, high, select_where(e, LLVMRealOLT, p, low, low, p));
  LLVMValueRef whole = unary(e, "llvm.rint", p);
  LLVMValueRef rest = mul(e, sub(e, p, whole), wide_constant(e, x, 0.693147180559945309));
  LLVMValueRef n = LLVMBuildFPTrunc(e->builder, whole, type, "");
  LLVMValueRef v = scaled_exp(e, LLVMBuildFPTrunc(e->builder, rest, type, ""), n);
  v = LLVMBuildSelect(e->builder, known, v, nan, "");
  LLVMValueRef integer = LLVMBuildFCmp(e->builder, LLVMRealOEQ, unary(e, "llvm.floor", y), y, "");
  LLVMValueRef half = mul(e, y, constant(e, x, 0.5));
  LLVMValueRef odd =
      LLVMBuildAnd(e->builder, integer, LLVMBuildFCmp(e->builder, LLVMRealUNE, unary(e, "llvm.floor", half), half, ""), "");
  LLVMValueRef negated = sfi_intrinsic(e, "llvm.copysign", &type, 1, (LLVMValueRef[]){v, x}, 2);
  LLVMValueRef below = LLVMBuildAnd(e->builder, LLVMBuildFCmp(e->builder, LLVMRealOLT, x, zero, ""),
                                    LLVMBuildFCmp(e->builder, LLVMRealONE, a, constant(e, x, inf), ""), "");
  LLVMValueRef fails = LLVMBuildAnd(e->builder, below, LLVMBuildNot(e->builder, integer, ""), "");
  v = LLVMBuildSelect(e->builder, odd, negated, LLVMBuildSelect(e->builder, fails, nan, v, ""), "");
  LLVMValueRef boundless = LLVMBuildFCmp(e->builder, LLVMRealOEQ, unary(e, "llvm.fabs", y), constant(e, x, inf), "");
  LLVMValueRef unit = LLVMBuildAnd(e->builder, boundless, LLVMBuildFCmp(e->builder, LLVMRealOEQ, a, one, ""), "");
  v = LLVMBuildSelect(e->builder, unit, one, v, "");
  return select_where(e, LLVMRealOEQ, x, one, one, select_where(e, LLVMRealOEQ, y, zero, one, v));
}

/* d - n pi / 2, with pi / 2 in two parts: exact but for the last digits of fp64. */
static LLVMValueRef less_quarters(sfi_emission *e, LLVMValueRef x, LLVMValueRef d, LLVMValueRef n) {
  LLVMValueRef r = sfi_fma(e, n, wide_constant(e, x, -1.57079632679489656), d);
  return sfi_fma(e, n, wide_constant(e, x, -6.12323399573676604e-17), r);
}

/* sin(x + quarter pi / 2): x less the nearest multiple n of pi / 2, then Taylor's sum of the sine or cosine, with the sign of its quadrant. Of
 * large x, up to 2^50, the first n may be a neighbour of the nearest: what is left says so. */
static LLVMValueRef sine_of(sfi_emission *e, LLVMValueRef x, int quarter) {
  static const double sine[] = {-1. / 39916800, 1. / 362880, -1. / 5040, 1. / 120, -1. / 6},
                      cosine[] = {-1. / 3628800, 1. / 40320, -1. / 720, 1. / 24, -1. / 2};
  LLVMValueRef d = LLVMBuildFPExt(e->builder, x, shaped(e, LLVMDoubleTypeInContext(e->context), x), "");
  LLVMValueRef half = wide_constant(e, x, 0.5), two = wide_constant(e, x, 2), most = wide_constant(e, x, 0.8),
               least = wide_constant(e, x, -0.8);
  LLVMValueRef quarters = wide_constant(e, x, 0.636619772367581343), n = unary(e, "llvm.rint", mul(e, d, quarters));
  n = add(e, n, unary(e, "llvm.rint", mul(e, less_quarters(e, x, d, n), quarters)));
  LLVMValueRef r = less_quarters(e, x, d, n);
  r = select_where(e, LLVMRealOGT, r, most, most, select_where(e, LLVMRealOLT, r, least, least, r));
  LLVMValueRef z = mul(e, r, r), s = wide_constant(e, x, sine[0]), c = wide_constant(e, x, cosine[0]);
  for (size_t i = 1; i < SFI_COUNT(sine); i++) {
    s = sfi_fma(e, s, z, wide_constant(e, x, sine[i]));
    c = sfi_fma(e, c, z, wide_constant(e, x, cosine[i]));
  }
  s = sfi_fma(e, mul(e, s, z), r, r);
  c = sfi_fma(e, c, z, wide_constant(e, x, 1));
  LLVMValueRef quadrant = add(e, n, wide_constant(e, x, quarter)), pair = unary(e, "llvm.floor", mul(e, quadrant, half));
  LLVMValueRef turn = unary(e, "llvm.floor", mul(e, pair, half));
  LLVMValueRef y = select_where(e, LLVMRealOEQ, quadrant, mul(e, pair, two), s, c);
  y = select_where(e, LLVMRealOEQ, pair, mul(e, turn, two), y, LLVMBuildFNeg(e->builder, y, ""));
  y = LLVMBuildFPTrunc(e->builder, y, LLVMTypeOf(x), "");
  return quarter ? y : select_where(e, LLVMRealOEQ, x, constant(e, x, 0), x, y); /* of -0 it is -0 */
}

LLVMValueRef sfi_where(sfi_emission *e, LLVMValueRef c, LLVMValueRef x, LLVMValueRef y) {
  return LLVMBuildSelect(e->builder, LLVMBuildFCmp(e->builder, LLVMRealUNE, c, constant(e, c, 0), ""), x, y, "");
}

/* 1 where the comparison holds, else 0. */
static LLVMValueRef compared(sfi_emission *e, LLVMRealPredicate how, LLVMValueRef a, LLVMValueRef b) {
  return LLVMBuildSelect(e->builder, LLVMBuildFCmp(e->builder, how, a, b, ""), constant(e, a, 1), constant(e, a, 0), "");
}

static LLVMValueRef extreme(sfi_emission *e, const char *name, LLVMValueRef a, LLVMValueRef b) {
  LLVMTypeRef type = LLVMTypeOf(a);
  return sfi_intrinsic(e, name, &type, 1, (LLVMValueRef[]){a, b}, 2);
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
  case SF_OP_NEG:
    return LLVMBuildFNeg(e->builder, a, "");
  case SF_OP_ABS:
    return unary(e, "llvm.fabs", a);
  case SF_OP_LOG:
    return log_of(e, a);
  case SF_OP_ERF:
    return erf_of(e, a);
  case SF_OP_SIN:
    return sine_of(e, a, 0);
  case SF_OP_COS:
    return sine_of(e, a, 1);
  case SF_OP_POW:
    return pow_of(e, a, b);
  case SF_OP_MIN:
    return extreme(e, "llvm.minimum", a, b);
  case SF_OP_MAX:
    return extreme(e, "llvm.maximum", a, b);
  case SF_OP_LESS:
    return compared(e, LLVMRealOLT, a, b);
  case SF_OP_EQUAL:
    return compared(e, LLVMRealOEQ, a, b);
  case SF_OP_PRELU:
    return LLVMBuildSelect(e->builder, LLVMBuildFCmp(e->builder, LLVMRealOLT, a, constant(e, a, 0), ""), mul(e, a, b), a, "");
  default:
    assert(!"not elementwise");
    return a;
  }
}
