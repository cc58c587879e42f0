/* What every test program does at its end: runs its suite; a temporary folder, made and removed. */
#ifndef SFI_SUITE_H
#define SFI_SUITE_H

#include <check.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The program's exit code. */
static inline int run_suite(Suite *suite) {
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_ENV);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}

static inline void make_folder(char out[64]) {
  strcpy(out, "/tmp/sparseflow-XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(out));
}

static inline int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *position) {
  (void)st, (void)kind, (void)position;
  return remove(path);
}

static inline void remove_tree(const char *path) {
  nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
