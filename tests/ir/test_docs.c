/* The documentation names files; each of them exists. */

#include "suite.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const roots[] = {"backends/", "bench/", "cmake/",  "docs/",  "examples/", "include/",
                                    "ir/",       "jit/",   "passes/", "tests/", "tools/"};

/* Is this a path in the tree, spelled out? */
static bool is_path(const char *text) {
  if (strpbrk(text, " *<>{}()$|")) return false;
  for (size_t i = 0; i < sizeof roots / sizeof roots[0]; i++) {
    if (strncmp(text, roots[i], strlen(roots[i])) == 0) return true;
  }
  return false;
}

/* Checks the `quoted` words of one file; returns how many were paths. */
static int check_file(const char *path) {
  FILE *file = fopen(path, "r");
  ck_assert_msg(file != NULL, "%s", path);
  char *text = calloc(1, 1 << 20);
  ck_assert_ptr_nonnull(text);
  size_t length = fread(text, 1, (1 << 20) - 1, file);
  ck_assert_uint_lt(length, (1 << 20) - 1);
  fclose(file);
  int paths = 0;
  for (char *open = strchr(text, '`'), *close; open && (close = strchr(open + 1, '`')); open = strchr(close + 1, '`')) {
    *close = 0;
    if (!is_path(open + 1)) continue;
    char full[1024];
    snprintf(full, sizeof full, "%s/%s", SFI_SOURCE_DIR, open + 1);
    ck_assert_msg(access(full, F_OK) == 0, "%s names %s, which is not there", path, open + 1);
    paths++;
  }
  free(text);
  return paths;
}

START_TEST(test_named_files_exist) {
  int paths = 0;
  DIR *folder = opendir(SFI_SOURCE_DIR "/docs");
  ck_assert_ptr_nonnull(folder);
  for (struct dirent *entry; (entry = readdir(folder));) {
    char path[1024];
    size_t length = strlen(entry->d_name);
    if (length < 3 || strcmp(entry->d_name + length - 3, ".md") != 0) continue;
    snprintf(path, sizeof path, "%s/docs/%s", SFI_SOURCE_DIR, entry->d_name);
    paths += check_file(path);
  }
  closedir(folder);
  ck_assert_int_gt(paths, 20);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("docs");
  TCase *all = tcase_create("docs");
  tcase_add_test(all, test_named_files_exist);
  suite_add_tcase(suite, all);
  return run_suite(suite);
}
