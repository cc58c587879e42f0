/* Every emitter of matrix products against plain fp64 loops, on each x86 target that the machine has, under sanitizers on one; see
 * contraction_cases.h. Operands stand right before and right behind pages that may not be touched. */
#include "contraction_cases.h"
#include "sanitized.h"
#include "suite.h"

#include <stdlib.h>

static const sf_isa targets[] = {SF_ISA_AVX512, SF_ISA_AVX2};
static int n_targets;
static kernel_store stores[SFI_COUNT(targets)];

static void run_here(void *user, const kernel_case *c) {
  const kernel_store *store = user;
  char message[512];
  if (!store->loader) return; /* compiled and checked all the same */
  ck_assert_msg(kernel_case_run(c, store->fns, message, sizeof message), "%s", message);
}

START_TEST(contraction) {
  kernel_store *store = &stores[_i % n_targets];
  ck_assert_int_gt(contraction_cases(store, _i / n_targets, run_here, store), 0);
}
END_TEST

static void setup(void) {
  for (int i = 0; i < n_targets; i++) kernel_store_init(&stores[i], sfi_target_of(targets[i]));
}
static void teardown(void) {
  for (int i = 0; i < n_targets; i++) kernel_store_deinit(&stores[i]);
}

int main(void) {
  n_targets = sf_sanitized() ? 1 : (int)SFI_COUNT(targets); /* emitters and packers are the same; conformance has both */
  Suite *s = suite_create("contractions");
  TCase *c = tcase_create("all");
  tcase_add_checked_fixture(c, setup, teardown);
  tcase_add_loop_test(c, contraction, 0, contraction_problems * n_targets);
  tcase_set_timeout(c, 300);
  suite_add_tcase(s, c);
  return run_suite(s);
}
