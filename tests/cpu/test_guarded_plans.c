/* Plans of whole graphs on each x86 target that the machine has, every buffer between pages that may not be touched: each operation's
 * NumPy vectors, random graphs, the digits models and others. See plan_cases.h. */
#include "plan_cases.h"
#include "sanitized.h"

#include <check.h>
#include <stdlib.h>

enum { RANDOM = 30 };
static const sf_isa targets[] = {SF_ISA_AVX2, SF_ISA_AVX512};
static int n_targets;
static kernel_store stores[SFI_COUNT(targets)];

static void run_here(void *user, const kernel_case *c) {
  const kernel_store *store = user;
  char message[512];
  if (!store->loader) return; /* compiled and checked all the same */
  ck_assert_msg(kernel_case_run(c, store->fns, message, sizeof message), "%s", message);
}

START_TEST(operation) {
  kernel_store *store = &stores[_i % n_targets];
  const sfi_op_info *info = sfi_op_of((sf_op)(_i / n_targets));
  if (!info || info->flags & SF_OPF_LEAF) return;
  ck_assert_int_gt(plan_cases_operation(store, (sf_op)(_i / n_targets), run_here, store), 0);
}
END_TEST

START_TEST(random_graph) {
  kernel_store *store = &stores[_i % n_targets];
  plan_cases_random(store, (uint64_t)(_i / n_targets) + 1, run_here, store);
}
END_TEST

START_TEST(files) {
  kernel_store *store = &stores[_i];
  ck_assert_int_gt(plan_cases_files(store, run_here, store), 10);
}
END_TEST

static void setup(void) {
  for (int i = 0; i < n_targets; i++) kernel_store_init(&stores[i], sfi_target_of(targets[i]));
}
static void teardown(void) {
  for (int i = 0; i < n_targets; i++) kernel_store_deinit(&stores[i]);
}

int main(void) {
  n_targets = sf_sanitized() ? 1 : (int)SFI_COUNT(targets); /* the passes and packers are the same */
  Suite *s = suite_create("guarded plans");
  TCase *c = tcase_create("all");
  tcase_add_unchecked_fixture(c, setup, teardown);
  tcase_add_loop_test(c, operation, 0, sfi_op_count() * n_targets);
  tcase_add_loop_test(c, random_graph, 0, RANDOM * n_targets);
  tcase_add_loop_test(c, files, 0, n_targets);
  tcase_set_timeout(c, 300);
  suite_add_tcase(s, c);
  SRunner *r = srunner_create(s);
  srunner_set_fork_status(r, CK_NOFORK); /* the stores are shared by all */
  srunner_run_all(r, CK_NORMAL);
  int failed = srunner_ntests_failed(r);
  srunner_free(r);
  return failed != 0;
}
