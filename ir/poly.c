/* Polynomials in the symbolic dimension, and shapes made of them. All arithmetic is checked: a false result leaves *out alone. */
#include "graph.h"

bool sfi_poly_add(sfi_poly a, sfi_poly b, sfi_poly *out) {
  sfi_poly sum;
  for (int i = 0; i < 3; i++) {
    if (!sfi_add(a.c[i], b.c[i], &sum.c[i])) return false;
  }
  *out = sum;
  return true;
}

bool sfi_poly_mul(sfi_poly a, sfi_poly b, sfi_poly *out) {
  sfi_poly product = {{0, 0, 0}};
  for (int i = 0; i < 3; i++) {
    for (int j = 0; j < 3; j++) {
      if (a.c[i] == 0 || b.c[j] == 0) continue;
      int64_t term;
      if (i + j > 2 || !sfi_mul(a.c[i], b.c[j], &term) || !sfi_add(product.c[i + j], term, &product.c[i + j])) return false;
    }
  }
  *out = product;
  return true;
}

static int degree(sfi_poly p) {
  return p.c[2] ? 2 : p.c[1] ? 1 : 0;
}

/* Long division; the quotient's coefficients must be whole and nothing may remain. */
bool sfi_poly_div(sfi_poly a, sfi_poly b, sfi_poly *out) {
  int n = degree(b);
  int64_t lead = b.c[n];
  if (lead == 0) return false;
  sfi_poly quotient = {{0, 0, 0}};
  for (int i = 2 - n; i >= 0; i--) {
    int64_t top = a.c[i + n];
    if ((lead == -1 && top == INT64_MIN) || top % lead != 0) return false;
    quotient.c[i] = top / lead;
    for (int j = 0; j <= n; j++) {
      int64_t term;
      if (!sfi_mul(quotient.c[i], b.c[j], &term) || __builtin_sub_overflow(a.c[i + j], term, &a.c[i + j])) return false;
    }
  }
  if (!sfi_is(a, 0)) return false;
  *out = quotient;
  return true;
}

bool sfi_poly_eval(sfi_poly p, int64_t s, int64_t *out) {
  int64_t value = p.c[2];
  for (int i = 1; i >= 0; i--) {
    if (!sfi_mul(value, s, &value) || !sfi_add(value, p.c[i], &value)) return false;
  }
  *out = value;
  return true;
}

void sfi_poly_print(sfi_text *text, sfi_poly p, const char *symbol) {
  if (!symbol) symbol = "s";
  if (sfi_is_const(p)) {
    sfi_text_printf(text, "%lld", (long long)p.c[0]);
    return;
  }
  const char *plus = "";
  for (int i = 2; i >= 0; i--) {
    if (p.c[i] == 0) continue;
    if (p.c[i] > 0) sfi_text_printf(text, "%s", plus);
    if (i == 0)
      sfi_text_printf(text, "%lld", (long long)p.c[0]);
    else if (p.c[i] == -1)
      sfi_text_printf(text, "-");
    else if (p.c[i] != 1)
      sfi_text_printf(text, "%lld*", (long long)p.c[i]);
    if (i == 1) sfi_text_printf(text, "%s", symbol);
    if (i == 2) sfi_text_printf(text, "%s*%s", symbol, symbol);
    plus = "+";
  }
}

bool sfi_shape_numel(const sfi_shape *shape, sfi_poly *out) {
  sfi_poly product = sfi_const(1);
  for (int32_t i = 0; i < shape->rank; i++) {
    if (!sfi_poly_mul(product, shape->dims[i], &product)) return false;
  }
  *out = product;
  return true;
}

bool sfi_shape_equal(const sfi_shape *a, const sfi_shape *b) {
  if (a->rank != b->rank) return false;
  for (int32_t i = 0; i < a->rank; i++) {
    if (!sfi_poly_equal(a->dims[i], b->dims[i])) return false;
  }
  return true;
}

void sfi_shape_print(sfi_text *text, const sfi_shape *shape, const char *symbol) {
  sfi_text_add(text, "[", 1);
  for (int32_t i = 0; i < shape->rank; i++) {
    if (i > 0) sfi_text_add(text, ",", 1);
    sfi_poly_print(text, shape->dims[i], symbol);
  }
  sfi_text_add(text, "]", 1);
}
