/* Elements to text and back. The two 16-bit formats go through double by arithmetic on their fields, so that no hardware or compiler
 * support is asked for. */
#include "element.h"

#include <inttypes.h>
#include <math.h>

/* sign, exponent, `mantissa` bits; the smallest normal exponent is `low`. */
typedef struct half_format {
  int mantissa, low;
} half_format;
static const half_format f16 = {10, -14}, bf16 = {7, -126};

static double half_to_double(uint16_t bits, half_format format) {
  int fraction = bits & ((1 << format.mantissa) - 1);
  int field = (bits & 0x7fff) >> format.mantissa, field_max = 0x7fff >> format.mantissa;
  double value;
  if (field == field_max)
    value = fraction ? (double)NAN : HUGE_VAL;
  else if (field == 0)
    value = ldexp(fraction, format.low - format.mantissa);
  else
    value = ldexp(fraction + (1 << format.mantissa), format.low - format.mantissa + field - 1);
  return bits & 0x8000 ? -value : value;
}

double sfi_half_value(sf_dtype dtype, uint16_t bits) {
  return half_to_double(bits, dtype == SF_F16 ? f16 : bf16);
}

/* Rounds to nearest even; false on overflow. */
static bool half_from_double(double value, half_format format, uint16_t *out) {
  int infinity = (0x7fff >> format.mantissa) << format.mantissa;
  int bits;
  if (isnan(value))
    bits = infinity | 1 << (format.mantissa - 1);
  else if (isinf(value))
    bits = infinity;
  else if (value == 0)
    bits = 0;
  else {
    int exponent = ilogb(value) < format.low ? format.low : ilogb(value);
    if (exponent > -format.low + 1) return false;
    /* A normal number's leading 1 carries into the exponent field, as does rounding up to the next power of two. */
    bits = ((exponent - format.low) << format.mantissa) + (int)nearbyint(ldexp(fabs(value), format.mantissa - exponent));
    if (bits >= infinity) return false;
  }
  *out = (uint16_t)(bits | (signbit(value) && !isnan(value) ? 0x8000 : 0));
  return true;
}

/* For the dtypes that are C integers. */
#define PUT_INTEGER(type)                                                                                                          \
  do {                                                                                                                             \
    type element;                                                                                                                  \
    memcpy(&element, data, sizeof element);                                                                                        \
    sfi_text_printf(text, "%" PRId64, (int64_t)element);                                                                           \
  } while (0)

void sfi_text_element(sfi_text *text, sf_dtype dtype, const void *data) {
  float single;
  double real;
  uint16_t half;
  switch (dtype) {
  case SF_F32:
    memcpy(&single, data, sizeof single);
    sfi_text_float(text, single);
    break;
  case SF_F64:
    memcpy(&real, data, sizeof real);
    sfi_text_number(text, real);
    break;
  case SF_F16:
  case SF_BF16:
    memcpy(&half, data, sizeof half);
    sfi_text_float(text, (float)sfi_half_value(dtype, half));
    break;
  case SF_I8:
    PUT_INTEGER(int8_t);
    break;
  case SF_U8:
    PUT_INTEGER(uint8_t);
    break;
  case SF_I32:
    PUT_INTEGER(int32_t);
    break;
  case SF_I64:
    PUT_INTEGER(int64_t);
    break;
  }
}

bool sfi_token_element(sfi_token token, sf_dtype dtype, void *out_data) {
  size_t bytes = sfi_dtype_of(dtype)->bytes;
  if (sfi_dtype_of(dtype)->flags & SF_DTYPEF_FLOAT) {
    double real;
    float single;
    uint16_t half;
    if (!sfi_token_real(token, dtype == SF_F32, &real)) return false;
    single = (float)real;
    if (bytes == 2 && !half_from_double(real, dtype == SF_F16 ? f16 : bf16, &half)) return false;
    memcpy(out_data, bytes == 8 ? (void *)&real : bytes == 4 ? (void *)&single : (void *)&half, bytes);
    return true;
  }
  int64_t integer;
  if (!sfi_token_integer(token, &integer)) return false;
  if (dtype == SF_U8 && (integer < 0 || integer > UINT8_MAX)) return false;
  if (dtype == SF_I8 && (integer < INT8_MIN || integer > INT8_MAX)) return false;
  if (dtype == SF_I32 && (integer < INT32_MIN || integer > INT32_MAX)) return false;
  memcpy(out_data, &integer, bytes); /* little-endian: the low bytes come first */
  return true;
}
