/* An emitter for every kernel: all of a back end's emitters of the kernel's anchor are asked, those that accept are priced, and the
 * cheapest wins, or the one that the judge prefers after timing them. The verdict on each is kept as text. Changes kernels' emitter,
 * tile, predicted_us, measured_us and choice, and the plan's weight_bytes only. */
#include "passes.h"

/* Prices are compared where the class's work is: at its bound, or at this extent where it has none: one that fills no vector, as most. */
enum { TYPICAL = 60 };

/* Prices are not exact: a sparse emitter must promise more than this over a dense one. */
static const double over_dense = 1.05;

int64_t sfi_choice_symbol(const sfi_plan *plan) {
  return plan->symbol_max == INT64_MAX ? sfi_max(plan->symbol_min, TYPICAL) : plan->symbol_max;
}

/* What is known of one kernel's choice. */
typedef struct trial {
  sfi_kernel
      *candidates; /* copies of the kernel with emitter, tile and price; cheapest first, those of equal price as in the table */
  int32_t n;
  sfi_text refusals; /* "; gemv-csr refused: ..." */
} trial;

static void try_emitter(trial *t, const sfi_plan *plan, const sfi_kernel *kernel, const sfi_emitter *emitter) {
  sfi_kernel *fresh = &t->candidates[t->n];
  *fresh = *kernel;
  fresh->emitter = emitter;
  const sfi_refusal refusal = emitter->accept(fresh, plan);
  if (refusal != SFI_REFUSE_NONE) {
    sfi_text_printf(&t->refusals, "; %s refused: %s", emitter->name, sfi_refusal_text(refusal));
    return;
  }
  fresh->predicted_us = emitter->cost(fresh, plan, sfi_choice_symbol(plan));
  int32_t at = t->n++;
  while (at > 0 && t->candidates[at - 1].predicted_us > t->candidates[at].predicted_us) {
    const sfi_kernel later = t->candidates[at - 1];
    t->candidates[at - 1] = t->candidates[at];
    t->candidates[at--] = later;
  }
}

/* only: as for sfi_choose. Where it refuses, the others are asked: a plan needs every kernel. */
static void try_all(trial *t, const sfi_plan *plan, const sfi_kernel *kernel, const sfi_emitter *const *emitters, size_t n_emitters,
                    const char *only) {
  if (kernel->anchor != SFI_ANCHOR_CONTRACT) only = NULL;
  for (int round = only ? 0 : 1; round < 2 && t->n == 0; round++)
    for (size_t i = 0; i < n_emitters; i++) {
      const bool named = only && strcmp(only, emitters[i]->name) == 0;
      if (emitters[i]->anchor == kernel->anchor && named == (round == 0)) try_emitter(t, plan, kernel, emitters[i]);
    }
}

/* The cheapest, or the cheapest dense one where that costs hardly more. */
static int32_t favourite(const trial *t) {
  for (int32_t i = 0; i < t->n && t->candidates[i].predicted_us <= t->candidates[0].predicted_us * over_dense; i++)
    if (t->candidates[i].emitter->dense) return i;
  return 0;
}

static void print_price(sfi_text *out, const sfi_kernel *candidate) {
  sfi_text_printf(out, "%s %.3g us", candidate->emitter->name, candidate->predicted_us);
  if (candidate->measured_us > 0) sfi_text_printf(out, ", measured %.3g us", candidate->measured_us);
}

static char *verdict(sfi_plan *plan, const trial *t, int32_t winner) {
  sfi_text text = {.allocator = plan->arena.allocator};
  const sfi_kernel *best = &t->candidates[winner];
  print_price(&text, best);
  if (best->anchor == SFI_ANCHOR_CONTRACT) sfi_text_printf(&text, " (density %.3g)", sfi_density(best->contract.facts));
  for (int32_t i = 0; i < t->n; i++) {
    if (i == winner) continue;
    sfi_text_printf(&text, "; ");
    print_price(&text, &t->candidates[i]);
  }
  if (t->refusals.data) sfi_text_add(&text, t->refusals.data, t->refusals.length);
  char *kept = text.failed || t->refusals.failed ? NULL : sfi_arena_strndup(&plan->arena, text.data, text.length);
  sfi_text_deinit(&text);
  return kept;
}

static sf_status choose(sfi_pass_env *env, sfi_plan *plan, sfi_kernel *kernel, const sfi_emitter *const *emitters,
                        size_t n_emitters, const char *only) {
  const sf_allocator *allocator = plan->arena.allocator;
  trial t = {.refusals.allocator = allocator};
  int32_t winner = 0;
  sf_status st = SF_OK;
  if (!(t.candidates = sfi_alloc(allocator, n_emitters * sizeof *t.candidates))) return sfi_fail_memory(env->diag);
  try_all(&t, plan, kernel, emitters, n_emitters, only);
  if (t.n == 0) {
    st = sfi_fail(env->diag, SF_STATUS_UNSUPPORTED, NULL, kernel->name, "%s: no emitter takes this kernel%s", kernel->name,
                  t.refusals.data ? t.refusals.data : "");
    goto done;
  }
  winner = favourite(&t);
  if (env->judge && t.n > 1 && (st = env->judge(env->judge_user, plan, t.candidates, t.n, &winner)) != SF_OK) goto done;
  const char *choice = verdict(plan, &t, winner);
  if (!choice) {
    st = sfi_fail_memory(env->diag);
    goto done;
  }
  *kernel = t.candidates[winner];
  kernel->choice = choice;
done:
  sfi_text_deinit(&t.refusals);
  sfi_free(allocator, t.candidates, n_emitters * sizeof *t.candidates);
  return st;
}

static double weight_bytes(const sfi_plan *plan) {
  double bytes = 0;
  for (size_t k = 0; k < plan->n_kernels; k++) {
    if (plan->kernels[k].anchor == SFI_ANCHOR_CONTRACT) bytes += sfi_weight_bytes(plan->kernels[k].contract.facts);
  }
  return bytes;
}

sf_status sfi_choose(sfi_pass_env *env, sfi_plan *plan, const sfi_emitter *const *emitters, size_t n_emitters, const char *only) {
  plan->weight_bytes = weight_bytes(plan);
  for (size_t k = 0; k < plan->n_kernels; k++) {
    sfi_kernel *kernel = &plan->kernels[k];
    if (kernel->anchor == SFI_ANCHOR_NODE) {
      kernel->choice = "the reference back end";
      continue;
    }
    const sf_status st = choose(env, plan, kernel, emitters, n_emitters, only);
    if (st != SF_OK) return st;
  }
  return SF_OK;
}
