/* Foundations: allocation, arenas, text, diagnostics, digests, tables, targets. */
#include "context.h"
#include "emitter.h"
#include "failing_allocator.h"
#include "graph.h"
#include "suite.h"

#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>

/* ---- allocation --------------------------------------------------------------------------------------------------- */

START_TEST(test_alloc) {
  const sf_allocator *a = &sfi_default_allocator;
  static const size_t sizes[] = {0, 1, 63, 64, 65, 4096};
  for (size_t i = 0; i < SFI_COUNT(sizes); i++) {
    uint8_t *memory = sfi_calloc(a, 1, sizes[i]);
    ck_assert_ptr_nonnull(memory);
    ck_assert_uint_eq((uintptr_t)memory % 64, 0);
    for (size_t j = 0; j < sizes[i]; j++) ck_assert_uint_eq(memory[j], 0);
    sfi_free(a, memory, sizes[i]);
  }
  ck_assert_ptr_null(sfi_calloc(a, SIZE_MAX / 2, 3));
  ck_assert_ptr_null(sfi_alloc(a, SIZE_MAX));
  sfi_free(a, NULL, 7);
}
END_TEST

START_TEST(test_grow) {
  failing_allocator f = {0};
  sf_allocator a = failing_allocator_of(&f);
  void *items = NULL;
  size_t capacity = 0;
  for (size_t n = 0; n < 1000; n++) {
    ck_assert(sfi_grow(&a, &items, &capacity, sizeof(size_t), n + 1));
    ((size_t *)items)[n] = n;
  }
  ck_assert_int_lt(atomic_load(&f.calls), 12);
  for (size_t n = 0; n < 1000; n++) ck_assert_uint_eq(((size_t *)items)[n], n);
  void *before = items;
  size_t capacity_before = capacity;
  ck_assert(!sfi_grow(&a, &items, &capacity, sizeof(size_t), SIZE_MAX / 4));
  f.fail_at = f.calls + 1;
  ck_assert(!sfi_grow(&a, &items, &capacity, sizeof(size_t), capacity + 1));
  ck_assert_ptr_eq(items, before);
  ck_assert_uint_eq(capacity, capacity_before);
  sfi_free(&a, items, capacity * sizeof(size_t));
  ck_assert_int_eq(f.live, 0);
  ck_assert_int_eq(f.live_bytes, 0);
}
END_TEST

START_TEST(test_arena) {
  failing_allocator f = {0};
  sf_allocator a = failing_allocator_of(&f);
  sfi_arena arena = {.allocator = &a};
  uint8_t *kept[300];
  for (size_t i = 0; i < 300; i++) {
    kept[i] = sfi_arena_alloc(&arena, i * 7);
    ck_assert_ptr_nonnull(kept[i]);
    ck_assert_uint_eq((uintptr_t)kept[i] % 16, 0);
    for (size_t j = 0; j < i * 7; j++) ck_assert_uint_eq(kept[i][j], 0);
    memset(kept[i], (int)(i % 251), i * 7);
  }
  uint8_t *large = sfi_arena_alloc(&arena, 3 << 20);
  ck_assert_uint_eq((uintptr_t)large % 64, 0);
  for (size_t i = 0; i < 300; i++) {
    for (size_t j = 0; j < i * 7; j++) ck_assert_uint_eq(kept[i][j], i % 251);
  }
  ck_assert_str_eq(sfi_arena_strndup(&arena, "weights", 4), "weig");
  ck_assert_str_eq(sfi_arena_strndup(&arena, NULL, 0), "");
  ck_assert_str_eq(sfi_arena_printf(&arena, "%s.%d", "k2", 7), "k2.7");
  ck_assert_mem_eq(sfi_arena_copy(&arena, "abc", 3), "abc", 3);
  ck_assert_ptr_nonnull(sfi_arena_copy(&arena, NULL, 0));
  ck_assert_ptr_null(sfi_arena_alloc(&arena, SIZE_MAX));
  f.fail_from = f.calls + 1;
  ck_assert_ptr_null(sfi_arena_alloc(&arena, 8 << 20));
  ck_assert_ptr_null(sfi_arena_copy(&arena, large, 3 << 20));
  sfi_arena_deinit(&arena);
  ck_assert_int_eq(f.live, 0);
  ck_assert_int_eq(f.live_bytes, 0);
}
END_TEST

START_TEST(test_blob) {
  failing_allocator f = {0};
  sf_allocator a = failing_allocator_of(&f);
  sfi_blob blob = {0};
  ck_assert(sfi_blob_init(&blob, &a, 100));
  ck_assert_uint_eq(blob.size, 100);
  for (size_t i = 0; i < 100; i++) ck_assert_uint_eq(blob.data[i], 0);
  sfi_blob_deinit(&blob);
  ck_assert_ptr_null(blob.data);
  sfi_blob_deinit(&blob);
  f.fail_from = 2;
  ck_assert(!sfi_blob_init(&blob, &a, 100));
  sfi_blob_deinit(&blob);
  ck_assert_int_eq(f.live, 0);
}
END_TEST

/* ---- text --------------------------------------------------------------------------------------------------------- */

START_TEST(test_text) {
  failing_allocator f = {0};
  sf_allocator a = failing_allocator_of(&f);
  sfi_text text = {.allocator = &a};
  for (int i = 0; i < 100; i++) sfi_text_printf(&text, "%d,", i);
  sfi_text_add(&text, "end", 3);
  ck_assert_uint_eq(text.length, strlen(text.data));
  ck_assert_str_eq(text.data + text.length - 6, "99,end");
  size_t length = text.length;
  f.fail_from = f.calls + 1;
  for (int i = 0; i < 1000; i++) sfi_text_printf(&text, "%d,", i);
  ck_assert(text.failed);
  ck_assert_uint_ge(text.length, length);
  ck_assert_uint_eq(text.length, strlen(text.data));
  sfi_text_deinit(&text);
  ck_assert_int_eq(f.live, 0);
}
END_TEST

static void expect_number(double value, const char *expected) {
  sfi_text text = {.allocator = &sfi_default_allocator};
  sfi_text_number(&text, value);
  ck_assert_str_eq(text.data, expected);
  sfi_text_deinit(&text);
}

START_TEST(test_text_number) {
  expect_number(0.1, "0.1");
  expect_number(1e-5, "1e-05");
  expect_number(0, "0");
  expect_number(-0.0, "-0");
  expect_number(1, "1");
  expect_number(1.0 / 3, "0.3333333333333333");
  expect_number(NAN, "nan");
  expect_number(-NAN, "nan");
  expect_number(INFINITY, "inf");
  expect_number(-INFINITY, "-inf");
  expect_number(DBL_MAX, "1.7976931348623157e+308");
  expect_number(5e-324, "5e-324");
  /* A host's locale with a decimal comma, where the machine has one. */
  if (setlocale(LC_NUMERIC, "de_DE.UTF-8")) expect_number(-12.5, "-12.5");
  setlocale(LC_NUMERIC, "C");
  uint64_t bits = 88172645463325252u;
  for (int i = 0; i < 2000; i++) {
    bits ^= bits << 13, bits ^= bits >> 7, bits ^= bits << 17;
    double value;
    memcpy(&value, &bits, sizeof value);
    if (!isfinite(value)) continue;
    sfi_text text = {.allocator = &sfi_default_allocator};
    sfi_text_number(&text, value);
    double back = strtod(text.data, NULL);
    ck_assert_mem_eq(&back, &value, sizeof value);
    sfi_text_deinit(&text);
  }
}
END_TEST

/* ---- diagnostics -------------------------------------------------------------------------------------------------- */

START_TEST(test_diag) {
  sfi_diag diag = {0};
  sfi_place place = {"net.sft", 12, 3};
  ck_assert_int_eq(sfi_fail(&diag, SF_STATUS_NOT_FOUND, &place, "w1", "no tensor %s", "w1"), SF_STATUS_NOT_FOUND);
  ck_assert_int_eq(sfi_fail_memory(&diag), SF_STATUS_OUT_OF_MEMORY);
  ck_assert_int_eq(diag.error.status, SF_STATUS_NOT_FOUND);
  ck_assert_str_eq(diag.error.file, "net.sft");
  ck_assert_int_eq(diag.error.line, 12);
  ck_assert_int_eq(diag.error.column, 3);
  ck_assert_str_eq(diag.error.op, "w1");
  ck_assert_str_eq(diag.error.message, "no tensor w1");
}
END_TEST

START_TEST(test_diag_cuts) {
  char longer[2000];
  for (size_t i = 0; i < sizeof longer - 1; i++) longer[i] = "\xe2\x82\xac"[i % 3]; /* euro signs */
  longer[sizeof longer - 1] = 0;
  sfi_diag diag = {0};
  sfi_place place = {longer, 1, 1};
  sfi_fail(&diag, SF_STATUS_IO_ERROR, &place, longer, "%s", longer);
  ck_assert_uint_eq(strlen(diag.error.file), 255); /* whole characters */
  ck_assert_uint_eq(strlen(diag.error.op), 63);
  ck_assert_uint_eq(strlen(diag.error.message), 510);
  diag = (sfi_diag){0};
  sfi_fail(&diag, SF_STATUS_IO_ERROR, NULL, NULL, "x%s", longer);
  ck_assert_uint_eq(strlen(diag.error.message), 511);
  ck_assert_str_eq(diag.error.file, "");
  ck_assert_str_eq(diag.error.op, "");
}
END_TEST

static void keep_line(void *user, sf_log_level level, const char *line) {
  snprintf(user, 2048, "%d:%s", (int)level, line);
}

START_TEST(test_log) {
  char line[2048] = "";
  sf_context context = {.log = keep_line, .log_user = line, .log_level = SF_LOG_WARNING};
  sfi_log(&context, SF_LOG_INFO, "quiet");
  ck_assert_str_eq(line, "");
  sfi_log(&context, SF_LOG_WARNING, "two\nlines %d", 2);
  ck_assert_str_eq(line, "1:two lines 2");
  sfi_log(&context, SF_LOG_ERROR, "%01500d", 1);
  ck_assert_uint_eq(strlen(line), 2 + 1023);
  context.log = NULL;
  sfi_log(&context, SF_LOG_ERROR, "nobody");
  ck_assert_uint_eq(strlen(line), 2 + 1023);
}
END_TEST

START_TEST(test_keep_error) {
  sf_context context = {.error_lock = PTHREAD_MUTEX_INITIALIZER};
  sfi_context_keep_error(&context, &(sf_error){.status = SF_STATUS_IO_ERROR, .message = "first"});
  sfi_context_keep_error(&context, &(sf_error){.status = SF_STATUS_NOT_FOUND, .message = "second"});
  ck_assert_int_eq(context.error.status, SF_STATUS_IO_ERROR);
  ck_assert_str_eq(context.error.message, "first");
}
END_TEST

/* ---- digests ------------------------------------------------------------------------------------------------------ */

START_TEST(test_digest) {
  char hex[33];
  sfi_digest_hex(sfi_digest_of("", 0), hex);
  ck_assert_str_eq(hex, "99aa06d3014798d86001c324468d497f"); /* XXH3-128 of nothing, from its specification */
  sfi_digest a = sfi_digest_of("a", 1), b = sfi_digest_of("b", 1);
  ck_assert_mem_ne(a.bytes, b.bytes, 16);
  ck_assert_mem_ne(sfi_digest_join(a, b).bytes, sfi_digest_join(b, a).bytes, 16);
  sfi_digest again = sfi_digest_join(a, b);
  ck_assert_mem_eq(again.bytes, sfi_digest_join(a, b).bytes, 16);
}
END_TEST

/* ---- tables ------------------------------------------------------------------------------------------------------- */

START_TEST(test_statuses) {
  ck_assert_str_eq(sf_status_text(SF_STATUS_OUT_OF_MEMORY), "out of memory");
  ck_assert_str_eq(sf_status_text((sf_status)12345), "unknown status");
  ck_assert_str_eq(sf_status_text((sf_status)-1), "unknown status");
  ck_assert_uint_gt(strlen(sf_status_advice((sf_status)-1)), 0);
  for (int i = 0; i <= SF_STATUS_INTERNAL; i++) ck_assert_uint_gt(strlen(sf_status_advice((sf_status)i)), 0);
}
END_TEST

/* Every row is found by its own name, and by no part of it. */
START_TEST(test_names) {
  for (int32_t i = 0; i < sfi_op_count(); i++) {
    const sfi_op_info *op = sfi_op_of((sf_op)i);
    sf_op found;
    if (!op) continue;
    ck_assert(sfi_op_named(op->text, strlen(op->text), &found));
    ck_assert_int_eq((int)found, i);
    ck_assert(!sfi_op_named(op->text, 1, &found));
    ck_assert_uint_gt(strlen(op->doc), 0);
    ck_assert_int_le(op->min_inputs, op->max_inputs);
  }
  for (int32_t i = 0; i < sfi_attr_count(); i++) {
    const sfi_attr_info *attr = sfi_attr_info_of((sf_attr_id)i);
    sf_attr_id found;
    if (!attr) continue;
    ck_assert(sfi_attr_named(attr->text, strlen(attr->text), &found));
    ck_assert_int_eq((int)found, i);
  }
  sf_dtype dtype;
  ck_assert(sfi_dtype_named("bf16", 4, &dtype) && dtype == SF_BF16);
  ck_assert(!sfi_dtype_named("bf16x", 5, &dtype));
  ck_assert_ptr_null(sfi_op_of((sf_op)sfi_op_count()));
  ck_assert_ptr_null(sfi_op_of((sf_op)-1));
  ck_assert_ptr_null(sfi_attr_info_of((sf_attr_id)sfi_attr_count()));
  ck_assert_ptr_null(sfi_dtype_of((sf_dtype)99));
  ck_assert_uint_eq(sfi_dtype_of(SF_F64)->bytes, 8);
  ck_assert_str_eq(sfi_refusal_text(SFI_REFUSE_NONE), "accepted");
  ck_assert_str_eq(sf_version(), "0.1.0");
}
END_TEST

START_TEST(test_targets) {
  ck_assert_ptr_null(sfi_target_of(SF_ISA_NATIVE));
  ck_assert_ptr_null(sfi_target_named("avx", 3));
  const sfi_target *avx512 = sfi_target_named("avx512", 6);
  ck_assert_ptr_eq(avx512, sfi_target_of(SF_ISA_AVX512));
  ck_assert_int_eq(avx512->lanes, 16);
  ck_assert(avx512->masks);
  ck_assert(sfi_target_runs(SF_ISA_REFERENCE));
  ck_assert(sfi_target_runs(SF_ISA_NATIVE));
  ck_assert(!sfi_target_runs((sf_isa)77));
  sf_isa native = sfi_target_native();
  ck_assert_ptr_nonnull(sfi_target_of(native));
  ck_assert(sfi_target_runs(native));
  if (sfi_target_runs(SF_ISA_AVX512)) ck_assert(sfi_target_runs(SF_ISA_AVX2));
  ck_assert(!(sfi_target_runs(SF_ISA_AVX2) && sfi_target_runs(SF_ISA_NEON)));
}
END_TEST

int main(void) {
  Suite *suite = suite_create("base");
  TCase *all = tcase_create("base");
  tcase_add_test(all, test_alloc);
  tcase_add_test(all, test_grow);
  tcase_add_test(all, test_arena);
  tcase_add_test(all, test_blob);
  tcase_add_test(all, test_text);
  tcase_add_test(all, test_text_number);
  tcase_add_test(all, test_diag);
  tcase_add_test(all, test_diag_cuts);
  tcase_add_test(all, test_log);
  tcase_add_test(all, test_keep_error);
  tcase_add_test(all, test_digest);
  tcase_add_test(all, test_statuses);
  tcase_add_test(all, test_names);
  tcase_add_test(all, test_targets);
  suite_add_tcase(suite, all);
  return run_suite(suite);
}
