/* Polynomials in the symbolic dimension: every operation against its values at points, and its refusals. */
#include "graph.h"
#include "suite.h"

#define P(...) ((sfi_poly){{__VA_ARGS__}})

START_TEST(test_add_mul) {
  sfi_poly out;
  ck_assert(sfi_poly_add(P(1, 2, 3), P(10, 20, 30), &out) && sfi_poly_equal(out, P(11, 22, 33)));
  ck_assert(sfi_poly_mul(P(1, 2, 0), P(3, 4, 0), &out) && sfi_poly_equal(out, P(3, 10, 8)));
  ck_assert(sfi_poly_mul(P(0, 0, 5), P(7, 0, 0), &out) && sfi_poly_equal(out, P(0, 0, 35)));
  ck_assert(sfi_poly_mul(P(0, 0, 0), P(0, 0, 5), &out) && sfi_is(out, 0));
  out = P(7, 7, 7);
  ck_assert(!sfi_poly_mul(P(0, 1, 0), P(0, 0, 1), &out));         /* degree 3 */
  ck_assert(!sfi_poly_mul(P(0, 0, 1), P(0, 0, 1), &out));         /* degree 4 */
  ck_assert(!sfi_poly_mul(P(INT64_MAX, 0, 0), P(0, 2, 0), &out)); /* a coefficient overflows */
  ck_assert(!sfi_poly_mul(P(INT64_MAX, 1, 0), P(1, INT64_MAX, 0), &out));
  ck_assert(!sfi_poly_add(P(0, INT64_MAX, 0), P(0, 1, 0), &out));
  ck_assert(!sfi_poly_add(P(0, 0, INT64_MIN), P(0, 0, -1), &out));
  ck_assert(sfi_poly_equal(out, P(7, 7, 7))); /* untouched */
}
END_TEST

/* Whatever divides gives back the dividend; all small polynomials. */
START_TEST(test_div) {
  sfi_poly out, product;
  int64_t exact = 0;
  for (int a = 0; a < 7 * 7 * 7; a++) {
    for (int b = 0; b < 7 * 7 * 7; b++) {
      sfi_poly x = P(a % 7 - 3, a / 7 % 7 - 3, a / 49 - 3), y = P(b % 7 - 3, b / 7 % 7 - 3, b / 49 - 3);
      if (sfi_poly_mul(x, y, &product) && !sfi_is(y, 0)) {
        ck_assert(sfi_poly_div(product, y, &out));
        ck_assert(sfi_poly_equal(out, x));
      }
      if (!sfi_poly_div(x, y, &out)) continue;
      ck_assert(sfi_poly_mul(out, y, &product));
      ck_assert(sfi_poly_equal(product, x));
      exact++;
    }
  }
  ck_assert_int_gt(exact, 343);
  out = P(7, 7, 7);
  ck_assert(!sfi_poly_div(P(4, 0, 0), P(0, 0, 0), &out));
  ck_assert(!sfi_poly_div(P(0, 0, 0), P(0, 0, 0), &out));
  ck_assert(!sfi_poly_div(P(0, 3, 0), P(2, 0, 0), &out));
  ck_assert(!sfi_poly_div(P(0, 1, 1), P(2, 0, 0), &out)); /* whole for every s, but not as a polynomial of ours */
  ck_assert(!sfi_poly_div(P(5, 0, 0), P(0, 1, 0), &out));
  ck_assert(!sfi_poly_div(P(INT64_MIN, 0, 0), P(-1, 0, 0), &out));
  ck_assert(sfi_poly_equal(out, P(7, 7, 7)));
}
END_TEST

START_TEST(test_eval) {
  int64_t out = -1;
  ck_assert(sfi_poly_eval(P(1, 2, 3), 10, &out) && out == 321);
  ck_assert(sfi_poly_eval(P(5, 9, 9), 0, &out) && out == 5);
  ck_assert(!sfi_poly_eval(P(0, 0, 1), INT64_C(1) << 32, &out));
  ck_assert(!sfi_poly_eval(P(INT64_MAX, 1, 0), 1, &out));
  ck_assert_int_eq(out, 5);
}
END_TEST

static void expect_printed(sfi_poly p, const char *symbol, const char *expected) {
  sfi_text text = {.allocator = &sfi_default_allocator};
  sfi_poly_print(&text, p, symbol);
  ck_assert_str_eq(text.data, expected);
  sfi_text_deinit(&text);
}

START_TEST(test_print) {
  expect_printed(P(0, 0, 0), "batch", "0");
  expect_printed(P(64, 0, 0), "batch", "64");
  expect_printed(P(0, 1, 0), "batch", "batch");
  expect_printed(P(1, 12, 0), "batch", "12*batch+1");
  expect_printed(P(0, 0, 1), "batch", "batch*batch");
  expect_printed(P(-2, -1, 3), "t", "3*t*t-t-2");
  expect_printed(P(0, 1, -1), NULL, "-s*s+s");
}
END_TEST

START_TEST(test_shape) {
  sfi_shape shape = {3, {sfi_const(2), P(0, 1, 0), P(1, 1, 0)}};
  sfi_poly count;
  ck_assert(sfi_shape_numel(&shape, &count) && sfi_poly_equal(count, P(0, 2, 2)));
  sfi_shape same = shape;
  same.dims[5] = sfi_const(9); /* beyond the rank */
  ck_assert(sfi_shape_equal(&shape, &same));
  same.dims[2] = P(1, 2, 0);
  ck_assert(!sfi_shape_equal(&shape, &same));
  sfi_shape scalar = {0};
  ck_assert(sfi_shape_numel(&scalar, &count) && sfi_is(count, 1));
  ck_assert(!sfi_shape_equal(&shape, &scalar));
  sfi_shape cube = {3, {P(0, 1, 0), P(0, 1, 0), P(0, 1, 0)}};
  ck_assert(!sfi_shape_numel(&cube, &count));
  sfi_text text = {.allocator = &sfi_default_allocator};
  sfi_shape_print(&text, &shape, "batch");
  sfi_shape_print(&text, &scalar, "batch");
  ck_assert_str_eq(text.data, "[2,batch,batch+1][]");
  sfi_text_deinit(&text);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("poly");
  TCase *all = tcase_create("poly");
  tcase_add_test(all, test_add_mul);
  tcase_add_test(all, test_div);
  tcase_add_test(all, test_eval);
  tcase_add_test(all, test_print);
  tcase_add_test(all, test_shape);
  suite_add_tcase(suite, all);
  return run_suite(suite);
}
