/* What the tests of plans share: the passes from a graph to a fused plan, with facts scanned on the spot. */
#ifndef PLAN_FIXTURE_H
#define PLAN_FIXTURE_H

#include "jit/run_fixture.h"
#include "passes.h"
#include "plan_interp.h"

typedef struct plan_case {
  sf_isa isa;
  int64_t symbol_min, symbol_max;
  bool fuse;
} plan_case;

/* Facts of one compilation, kept in the plan's arena. */
typedef struct plan_facts {
  sfi_arena *arena;
  sfi_diag *diag;
} plan_facts;

static inline const sfi_facts *scan(void *user, const sfi_matrix *matrix, sfi_digest digest) {
  plan_facts *facts = user;
  sfi_facts *out = sfi_arena_alloc(facts->arena, sizeof *out);
  (void)digest;
  if (!out) sfi_fail_memory(facts->diag);
  return out && sfi_scan_zeros(matrix, facts->arena->allocator, facts->diag, out) == SF_OK ? out : NULL;
}

static inline sfi_digest digest_now(void *user, const sfi_matrix *matrix) {
  (void)user;
  return sfi_matrix_digest(matrix);
}

/* Lowers, verifies, fuses, verifies. The plan's arena is the caller's to end, whatever the result. */
static inline sf_status make_plan(const sf_graph *graph, const sf_allocator *allocator, const plan_case *c, sfi_plan *plan,
                                  sfi_diag *diag) {
  *plan = (sfi_plan){.graph = graph, .target = sfi_target_of(c->isa), .symbol_min = c->symbol_min, .symbol_max = c->symbol_max};
  plan->arena.allocator = allocator;
  plan_facts facts = {&plan->arena, diag};
  sfi_pass_env env = {.context = graph->context, .diag = diag, .facts = scan, .digest = digest_now, .facts_user = &facts};
  sf_status st = sfi_lower_to_kernels(&env, plan);
  if (st == SF_OK) st = sfi_plan_verify(plan, diag);
  if (st == SF_OK && c->fuse) st = sfi_fuse(&env, plan);
  if (st == SF_OK && c->fuse) st = sfi_plan_verify(plan, diag);
  if (st == SF_OK) st = sfi_plan_lifetimes(&env, plan);
  if (st == SF_OK) st = sfi_plan_verify(plan, diag);
  return st;
}

static inline void print_plan(const sfi_plan *plan) {
  sfi_text text = {.allocator = &sfi_default_allocator};
  sfi_plan_print(plan, &text);
  if (text.data) fputs(text.data, stderr);
  sfi_text_deinit(&text);
}

/* Runs the graph's plan on the tensors. */
static inline void interpret_case(const sf_graph *graph, const plan_case *c, int64_t symbol, const tensors *t) {
  sfi_diag diag = {0};
  sfi_plan plan;
  char message[256] = "";
  sf_status st = make_plan(graph, &sfi_default_allocator, c, &plan, &diag);
  if (st != SF_OK) print_plan(&plan);
  ck_assert_msg(st == SF_OK, "%s: %s", graph->name, diag.error.message);
  if (!sf_interpret(&plan, symbol, t->in, t->out, message, sizeof message)) {
    print_plan(&plan);
    ck_abort_msg("%s at %lld: %s", graph->name, (long long)symbol, message);
  }
  sfi_arena_deinit(&plan.arena);
}

#endif
