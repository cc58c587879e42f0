/* tools/manifest.c and the words of tools/common.c: what is read, and every refusal with its line and column. */
#include <stdlib.h>

#include "manifest.h"
#include "suite.h"

static sf_status parse(manifest *m, const char *text, sf_error *error) {
  *m = (manifest){0};
  *error = (sf_error){0};
  return manifest_parse(m, text, strlen(text), "dir/m.yaml", error);
}

START_TEST(reads_all_forms) {
  manifest m;
  sf_error error;
  ck_assert_msg(parse(&m,
                      "# comment\n"
                      "targets: [avx512, avx2]\n"
                      "batch: [1, 16]\n"
                      "models:\n"
                      "  - digits/dense.sft\n"
                      "  - path: /abs/pruned.sft\n"
                      "    targets:\n"
                      "      - native\n"
                      "    batch: [\"64\"]\n"
                      "  - {targets: [neon], path: c.sft}\n",
                      &error) == SF_OK,
                "%d:%d: %s", error.line, error.column, error.message);
  ck_assert_int_eq(m.targets.count, 2);
  ck_assert_int_eq(m.targets.isa[0], SF_ISA_AVX512);
  ck_assert_int_eq(m.targets.isa[1], SF_ISA_AVX2);
  ck_assert_int_eq(m.classes.count, 2);
  ck_assert_int_eq(m.classes.bounds[1], 16);
  ck_assert_uint_eq(m.n_models, 3);
  ck_assert_str_eq(m.models[0].path, "dir/digits/dense.sft");
  ck_assert_int_eq(m.models[0].targets.count + m.models[0].classes.count, 0);
  ck_assert_str_eq(m.models[1].path, "/abs/pruned.sft");
  ck_assert_int_eq(m.models[1].targets.isa[0], SF_ISA_NATIVE);
  ck_assert_int_eq(m.models[1].classes.bounds[0], 64);
  ck_assert_str_eq(m.models[2].path, "dir/c.sft");
  ck_assert_int_eq(m.models[2].targets.isa[0], SF_ISA_NEON);
  manifest_deinit(&m);
}
END_TEST

static const struct bad {
  const char *text;
  int line, column;
  const char *message;
} bad[] = {
    {"", 1, 1, "empty manifest"},
    {"# nothing\n", 1, 1, "empty manifest"},
    {"models", 1, 1, "is a mapping"},
    {"- a.sft\n", 1, 1, "sequence cannot stand here, in the document"},
    {"targets: [avx2]\n", 2, 1, "no models"},
    {"models:\n", 1, 8, "a list is wanted"},
    {"models: a.sft\n", 1, 9, "a list is wanted"},
    {"models: {path: a.sft}\n", 1, 9, "mapping cannot stand here, in the manifest"},
    {"models: [[a.sft]]\n", 1, 10, "sequence cannot stand here, in models"},
    {"models: [a.sft]\nmodels: [b.sft]\n", 2, 1, "\"models\" a second time"},
    {"models: [a.sft]\ntarget: avx2\n", 2, 1, "unknown key \"target\" in the manifest"},
    {"models: [a.sft]\npath: b.sft\n", 2, 1, "unknown key \"path\" in the manifest"},
    {"models:\n  - path: a.sft\n    models: [b]\n", 3, 5, "unknown key \"models\" in a model"},
    {"models:\n  - targets: [avx2]\n", 3, 1, "a model without a path"},
    {"models:\n  - path: [a.sft]\n", 2, 11, "sequence cannot stand here, in a model"},
    {"models:\n  - path: \"\"\n", 2, 11, "empty path"},
    {"models:\n  - \"\"\n", 2, 5, "empty path"},
    {"models:\n  - \"a\\0b\"\n", 2, 5, "zero byte"},
    {"models: [a.sft]\ntargets: [avx9]\n", 2, 11, "target \"avx9\""},
    {"models: [a.sft]\ntargets: [avx2, avx2]\n", 2, 17, "named twice"},
    {"models: [a.sft]\ntargets: []\n", 2, 11, "empty targets"},
    {"models: [a.sft]\ntargets: avx2\n", 2, 10, "a list is wanted"},
    {"models: [a.sft]\nbatch: [16, 1]\n", 2, 13, "batch \"1\""},
    {"models: [a.sft]\nbatch: [0]\n", 2, 9, "batch \"0\""},
    {"models: [a.sft]\nbatch: [1.5]\n", 2, 9, "batch \"1.5\""},
    {"models: [a.sft]\nbatch: []\n", 2, 9, "empty batch"},
    {"models: [a.sft]\nbatch: [[1]]\n", 2, 9, "sequence cannot stand here, in batch"},
    {"models: &x [a.sft]\n", 1, 9, "anchors"},
    {"models: [&x a.sft]\n", 1, 10, "anchors"},
    {"models: [*x]\n", 1, 10, "aliases"},
    {"models: [!!str a.sft]\n", 1, 10, "tags"},
    {"&x models: [a.sft]\n", 1, 1, "anchors"},
    {"models: [a.sft]\n---\nmodels: [b.sft]\n", 2, 1, "a second document"},
    {"models: [a.sft\n", 2, 1, "did not find expected ',' or ']'"},
    {"models:\n\t- a\n", 2, 1, "cannot start any token"},
    {"models: [a\xff]\n", 1, 1, "invalid"},
};

START_TEST(refuses_with_the_place) {
  manifest m;
  sf_error error;
  const struct bad *b = &bad[_i];
  ck_assert_msg(parse(&m, b->text, &error) == SF_STATUS_PARSE_ERROR, "accepted: %s", b->text);
  ck_assert_msg(strstr(error.message, b->message), "%s: %s", b->text, error.message);
  ck_assert_msg(error.line == b->line && error.column == b->column, "%s: at %d:%d: %s", b->text, error.line, error.column,
                error.message);
  ck_assert_str_eq(error.file, "dir/m.yaml");
  manifest_deinit(&m);
}
END_TEST

/* Documents that make careless readers grow or recurse. */
START_TEST(stays_small) {
  manifest m;
  sf_error error;
  size_t size = 1 << 20;
  char *text = malloc(size + 1);
  ck_assert_ptr_nonnull(text);
  memset(text, '[', size);
  text[size] = 0;
  ck_assert_int_eq(parse(&m, text, &error), SF_STATUS_PARSE_ERROR);
  manifest_deinit(&m);
  size_t used = (size_t)snprintf(text, size, "models:\n");
  for (int i = 0; i <= MANIFEST_MODELS_MAX; i++) used += (size_t)snprintf(text + used, size - used, "- m%d\n", i);
  ck_assert_int_eq(parse(&m, text, &error), SF_STATUS_PARSE_ERROR);
  ck_assert_int_eq(error.line, MANIFEST_MODELS_MAX + 2);
  manifest_deinit(&m);
  free(text);
}
END_TEST

START_TEST(words) {
  uint64_t size;
  int64_t number;
  tool_classes classes;
  ck_assert(tool_parse_size("0", &size) && size == 0);
  ck_assert(tool_parse_size("123", &size) && size == 123);
  ck_assert(tool_parse_size("256M", &size) && size == UINT64_C(256) << 20);
  ck_assert(tool_parse_size("8T", &size) && size == UINT64_C(8) << 40);
  static const char *const bad_sizes[] = {"",  "M", "-1", "+1", " 1", "1 ", "1.5M", "1MB", "9999999999T", "99999999999999999999",
                                          "1m"};
  for (size_t i = 0; i < sizeof bad_sizes / sizeof *bad_sizes; i++)
    ck_assert_msg(!tool_parse_size(bad_sizes[i], &size), "accepted size \"%s\"", bad_sizes[i]);
  ck_assert(tool_parse_integer("-5", -5, 5, &number) && number == -5);
  ck_assert(!tool_parse_integer("6", -5, 5, &number) && !tool_parse_integer("1x", -5, 5, &number) &&
            !tool_parse_integer("-", -5, 5, &number));
  ck_assert(tool_classes_parse("1,16,64", &classes) && classes.count == 3 && classes.bounds[2] == 64);
  static const char *const bad_classes[] = {"", ",", "1,", ",1", "1,,2", "2,1", "1,1", "0", "x", "99999999999"};
  for (size_t i = 0; i < sizeof bad_classes / sizeof *bad_classes; i++)
    ck_assert_msg(!tool_classes_parse(bad_classes[i], &classes), "accepted classes \"%s\"", bad_classes[i]);
  ck_assert(tool_classes_parse("1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16", &classes));
  ck_assert(!tool_classes_parse("1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17", &classes));
  sf_isa isa;
  ck_assert(tool_isa_named("avx512", &isa) && isa == SF_ISA_AVX512);
  ck_assert(!tool_isa_named("", &isa) && !tool_isa_named("avx", &isa));
  for (int i = SF_ISA_NATIVE; i <= SF_ISA_NEON; i++) ck_assert(tool_isa_named(tool_isa_name((sf_isa)i), &isa) && isa == (sf_isa)i);
}
END_TEST

START_TEST(json_strings) {
  char *text;
  size_t size;
  FILE *out = open_memstream(&text, &size);
  tool_json_string(out, "a\"b\\c\n\x01 \xc3\xa9");
  fclose(out);
  ck_assert_str_eq(text, "\"a\\\"b\\\\c\\u000a\\u0001 \xc3\xa9\"");
  free(text);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("manifest");
  TCase *t = tcase_create("manifest");
  tcase_set_timeout(t, 60);
  tcase_add_test(t, reads_all_forms);
  tcase_add_loop_test(t, refuses_with_the_place, 0, sizeof bad / sizeof *bad);
  tcase_add_test(t, stays_small);
  tcase_add_test(t, words);
  tcase_add_test(t, json_strings);
  suite_add_tcase(suite, t);
  return run_suite(suite);
}
