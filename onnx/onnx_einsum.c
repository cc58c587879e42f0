/* Einsum of two operands: a product of matrices between changes of order, or an outer product. */
#include "onnx_import.h"

/* One operand or the result: which letter each dimension has. */
typedef struct term {
  int32_t rank;
  char letters[SF_MAX_RANK];
} term;

static bool read_term(importer *im, const char **at, term *out) {
  *out = (term){0};
  for (; **at && **at != ',' && **at != '-'; ++*at) {
    char c = **at;
    if (c == ' ') continue;
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!letter || out->rank == SF_MAX_RANK || memchr(out->letters, c, (size_t)out->rank)) {
      return UNSUPPORTED(im, "attribute 'equation': '%c', a letter twice in an operand, or more than %d of them", c, SF_MAX_RANK);
    }
    out->letters[out->rank++] = c;
  }
  return true;
}

static int32_t place_of(const term *t, char letter) {
  const char *at = t->rank ? memchr(t->letters, letter, (size_t)t->rank) : NULL;
  return at ? (int32_t)(at - t->letters) : -1;
}

/* Letters of `t` that are, or are not, in each of two other terms. */
static term choose(const term *t, const term *a, bool in_a, const term *b, bool in_b) {
  term out = {0};
  for (int32_t i = 0; i < t->rank; i++) {
    if ((place_of(a, t->letters[i]) >= 0) == in_a && (place_of(b, t->letters[i]) >= 0) == in_b)
      out.letters[out.rank++] = t->letters[i];
  }
  return out;
}

static sfi_poly extent_of(const importer *im, const term *a, const term *b, char letter) {
  int32_t at = place_of(a, letter);
  return at >= 0 ? im->in[0]->shape.dims[at] : im->in[1]->shape.dims[place_of(b, letter)];
}

/* x[t] in the order first, second, third, the last two merged into one dimension each. */
static bool arrange(importer *im, sf_value *x, const term *t, const term *first, const term *second, const term *third) {
  const term *const parts[] = {first, second, third};
  int64_t perm[SF_MAX_RANK];
  int32_t n = 0;
  sfi_shape shape = {.rank = first->rank + 2};
  if (shape.rank > SF_MAX_RANK) return UNSUPPORTED(im, "more than %d dimensions", SF_MAX_RANK);
  shape.dims[first->rank] = shape.dims[first->rank + 1] = sfi_const(1);
  for (int32_t p = 0; p < 3; p++) {
    for (int32_t i = 0; i < parts[p]->rank; i++) {
      perm[n] = place_of(t, parts[p]->letters[i]);
      sfi_poly extent = sfi_onnx_shape_of(im, *x)->dims[perm[n++]], *to = &shape.dims[p ? first->rank + p - 1 : i];
      if (p == 0)
        *to = extent;
      else if (!sfi_poly_mul(*to, extent, to))
        return UNSUPPORTED(im, "too many elements");
    }
  }
  *x = sfi_onnx_reshaped(im, sfi_onnx_transposed(im, *x, n, perm), &shape);
  return true;
}

/* Nothing is summed, and the result has the dimensions of the first, then of the second: a broadcast product, of known values too. */
static bool outer(importer *im, int32_t more) {
  onnx_value first = *im->in[0];
  bool done;
  sf_value x, y;
  sfi_shape shape = first.shape;
  shape.rank += more;
  for (int32_t i = first.shape.rank; i < shape.rank; i++) {
    shape.dims[i] = sfi_const(1);
    first.dims[i] = 1;
  }
  if (!sfi_onnx_all_static(im)) {
    if (!sfi_onnx_operand(im, 0, true, &x) || !sfi_onnx_operand(im, 1, true, &y)) return false;
    return sfi_onnx_result(im, 0, sfi_onnx_binary(im, SF_OP_MUL, sfi_onnx_reshaped(im, x, &shape), y));
  }
  first.shape = shape;
  first.value = SF_NO_VALUE;
  im->in[0] = &first;
  if (!sfi_onnx_fold(im, SF_OP_MUL, &done)) return false;
  return done || UNSUPPORTED(im, "so many known values");
}

bool sfi_import_einsum(importer *im) {
  const char *equation;
  term a, b, out;
  sf_value x, y;
  if (!sfi_onnx_text(im, "equation", "", &equation) || !read_term(im, &equation, &a)) return false;
  if (*equation++ != ',') return UNSUPPORTED(im, "of one operand");
  if (!read_term(im, &equation, &b)) return false;
  if (strncmp(equation, "->", 2) != 0) return UNSUPPORTED(im, "without a result in the equation");
  equation += 2;
  if (!read_term(im, &equation, &out) || *equation)
    return im->diag.error.status == SF_OK ? UNSUPPORTED(im, "more than two operands") : false;
  if (a.rank != im->in[0]->shape.rank || b.rank != im->in[1]->shape.rank)
    return INVALID(im, "operands of other ranks than the equation's");
  term batch = choose(&a, &b, true, &out, true), sum = choose(&a, &b, true, &out, false);
  term left = choose(&a, &b, false, &out, true), right = choose(&b, &a, false, &out, true);
  if (batch.rank + left.rank + right.rank != out.rank || batch.rank + left.rank + sum.rank != a.rank ||
      batch.rank + right.rank + sum.rank != b.rank)
    return UNSUPPORTED(im, "a letter in one operand alone");
  if (batch.rank + sum.rank == 0 && memcmp(out.letters, left.letters, (size_t)left.rank) == 0 &&
      memcmp(out.letters + left.rank, right.letters, (size_t)right.rank) == 0)
    return outer(im, b.rank);
  if (!sfi_onnx_operand(im, 0, true, &x) || !sfi_onnx_operand(im, 1, true, &y)) return false;
  if (!arrange(im, &x, &a, &batch, &left, &sum) || !arrange(im, &y, &b, &batch, &sum, &right)) return false;
  /* [batch, left, right] with each letter its own dimension again, then in the order of the result. */
  const term *const parts[] = {&batch, &left, &right};
  sfi_shape shape = {0};
  term got = {0};
  for (int32_t p = 0; p < 3; p++) {
    for (int32_t i = 0; i < parts[p]->rank; i++) {
      shape.dims[shape.rank++] = extent_of(im, &a, &b, parts[p]->letters[i]);
      got.letters[got.rank++] = parts[p]->letters[i];
    }
  }
  int64_t perm[SF_MAX_RANK];
  for (int32_t i = 0; i < out.rank; i++) perm[i] = place_of(&got, out.letters[i]);
  sf_value z = sfi_onnx_reshaped(im, sfi_onnx_binary(im, SF_OP_MATMUL, x, y), &shape);
  return sfi_onnx_result(im, 0, sfi_onnx_transposed(im, z, out.rank, perm));
}
