/* Elements as text: what is written reads back as the same bits, for every dtype; halves round to nearest even; names near a typo. */
#include "element.h"
#include "suite.h"

#include <stdlib.h>

static sfi_token token_of(const char *text) {
  return (sfi_token){text, strlen(text)};
}

/* NaNs may differ. */
static void check_element(sf_dtype dtype, const void *bits, bool is_nan) {
  char space[8] = {0};
  size_t bytes = sfi_dtype_of(dtype)->bytes;
  sfi_text text = {.allocator = &sfi_default_allocator};
  sfi_text_element(&text, dtype, bits);
  ck_assert(!text.failed && text.length > 0);
  ck_assert_msg(sfi_token_element(token_of(text.data), dtype, space), "%s", text.data);
  if (is_nan)
    ck_assert_str_eq(text.data, "nan");
  else
    ck_assert_msg(memcmp(space, bits, bytes) == 0, "%s", text.data);
  sfi_text_deinit(&text);
}

START_TEST(every_half_survives) {
  for (uint32_t i = 0; i < 0x10000; i++) {
    uint16_t bits = (uint16_t)i;
    check_element(SF_F16, &bits, (bits & 0x7fff) > 0x7c00);
    check_element(SF_BF16, &bits, (bits & 0x7fff) > 0x7f80);
  }
}
END_TEST

START_TEST(random_elements_survive) {
  uint64_t state = 1;
  for (int i = 0; i < 20000; i++) {
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    uint64_t bits = state ^ state >> 29;
    float single;
    double real;
    memcpy(&single, &bits, sizeof single);
    memcpy(&real, &bits, sizeof real);
    check_element(SF_F32, &bits, single != single);
    check_element(SF_F64, &bits, real != real);
    check_element(SF_I8, &bits, false);
    check_element(SF_U8, &bits, false);
    check_element(SF_I32, &bits, false);
    check_element(SF_I64, &bits, false);
  }
}
END_TEST

static const struct {
  const char *text;
  uint16_t f16, bf16; /* 0xffff: refused */
} halves[] = {
    {"1", 0x3c00, 0x3f80},         {"-0", 0x8000, 0x8000},       {"-inf", 0xfc00, 0xff80},
    {"2049", 0x6800, 0x4500},                                    /* a tie in f16, to even; below the tie in bf16 */
    {"2051", 0x6802, 0x4500},                                    /* the tie above */
    {"65504", 0x7bff, 0x4780},                                   /* the largest f16 */
    {"65519.9", 0x7bff, 0x4780},   {"65520", 0xffff, 0x4780},    /* rounds beyond it */
    {"6e-8", 0x0001, 0x3381},                                    /* the smallest f16 is 2^-24 */
    {"2.9e-8", 0x0000, 0x32f9},    {"6.102e-5", 0x0400, 0x3880}, /* just below the normal f16, rounded up to it */
    {"3.3895e38", 0xffff, 0x7f7f}, {"3.4e38", 0xffff, 0xffff},   {"1e-50", 0x0000, 0x0000},
};

START_TEST(halves_round_to_nearest_even) {
  for (size_t i = 0; i < SFI_COUNT(halves); i++) {
    uint16_t bits;
    bool fits = sfi_token_element(token_of(halves[i].text), SF_F16, &bits);
    ck_assert_msg(fits ? bits == halves[i].f16 : halves[i].f16 == 0xffff, "f16 %s: %04x", halves[i].text, bits);
    fits = sfi_token_element(token_of(halves[i].text), SF_BF16, &bits);
    ck_assert_msg(fits ? bits == halves[i].bf16 : halves[i].bf16 == 0xffff, "bf16 %s: %04x", halves[i].text, bits);
  }
}
END_TEST

START_TEST(what_is_no_number_is_refused) {
  static const char *const texts[] = {"",    "-",   ".",        "e5",   "1e",  "1e+",   "--1",    "+1", "1.2.3", "0x10",
                                      "1_0", "1,5", "infinity", "-nan", "NaN", "1e400", "-1e400", "1f", " 1",    "1e5.0"};
  double real;
  int64_t integer;
  for (size_t i = 0; i < SFI_COUNT(texts); i++) {
    ck_assert_msg(!sfi_token_real(token_of(texts[i]), false, &real), "%s", texts[i]);
    ck_assert_msg(!sfi_token_integer(token_of(texts[i]), &integer), "%s", texts[i]);
  }
  char *digits = malloc(402);
  memset(digits, '1', 401);
  digits[401] = 0;
  ck_assert(!sfi_token_real((sfi_token){digits, 401}, false, &real));
  memset(digits, '0', 399);
  ck_assert(sfi_token_real((sfi_token){digits, 400}, false, &real) && real == 1);
  free(digits);
  /* Exponents of any length: nothing overflows on the way to the answer. */
  ck_assert(sfi_token_real(token_of("1e-99999999999999999999"), false, &real) && real == 0);
  ck_assert(!sfi_token_real(token_of("1e99999999999999999999"), false, &real));
}
END_TEST

static const char *nearest(const char *word, const char *first, const char *second) {
  sfi_near near = {token_of(word)};
  sfi_near_offer(&near, first);
  sfi_near_offer(&near, second);
  return near.best ? near.best : "";
}

START_TEST(typos_find_their_word) {
  ck_assert_str_eq(nearest("matmull", "matmul", "max_pool"), "matmul");
  ck_assert_str_eq(nearest("matmlu", "relu", "matmul"), "matmul");
  ck_assert_str_eq(nearest("ad", "sub", "add"), "add");
  ck_assert_str_eq(nearest("xyz", "add", "sub"), "");
  ck_assert_str_eq(nearest("", "add", "sub"), "");
  ck_assert_str_eq(nearest("kernels", "kernel", "kernels2"), "kernel");
  ck_assert_str_eq(nearest("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "b"),
                   ""); /* longer than is guessed */
}
END_TEST

int main(void) {
  Suite *suite = suite_create("element");
  TCase *tests = tcase_create("elements");
  tcase_set_timeout(tests, 120);
  tcase_add_test(tests, every_half_survives);
  tcase_add_test(tests, random_elements_survive);
  tcase_add_test(tests, halves_round_to_nearest_even);
  tcase_add_test(tests, what_is_no_number_is_refused);
  tcase_add_test(tests, typos_find_their_word);
  suite_add_tcase(suite, tests);
  return run_suite(suite);
}
