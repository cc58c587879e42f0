/* An emitter for every kernel: all of a back end's emitters of the kernel's anchor are asked, those that accept are priced, and the
 * cheapest wins. The verdict on each is kept as text. Changes kernels' emitter, tile, predicted_us and choice only. */
#include "passes.h"

/* Prices are compared where the class's work is: at its bound, or at this extent where it has none. */
enum { TYPICAL = 64 };

static bool allowed(const sfi_kernel *kernel, const sfi_emitter *emitter, const char *only) {
  return emitter->anchor == kernel->anchor && (!only || kernel->anchor != SFI_ANCHOR_CONTRACT || strcmp(only, emitter->name) == 0);
}

/* Trials of all emitters on copies: `best` gets the winner's. */
static void try_all(const sfi_plan *plan, const sfi_kernel *kernel, const sfi_emitter *const *emitters, size_t n_emitters,
                    const char *only, sfi_kernel *best, sfi_text *losers) {
  const int64_t symbol = plan->symbol_max == INT64_MAX ? sfi_max(plan->symbol_min, TYPICAL) : plan->symbol_max;
  best->emitter = NULL;
  for (size_t i = 0; i < n_emitters; i++) {
    if (!allowed(kernel, emitters[i], only)) continue;
    sfi_kernel trial = *kernel;
    trial.emitter = emitters[i];
    const sfi_refusal refusal = emitters[i]->accept(&trial, plan);
    if (refusal != SFI_REFUSE_NONE) {
      sfi_text_printf(losers, "; %s refused: %s", emitters[i]->name, sfi_refusal_text(refusal));
      continue;
    }
    trial.predicted_us = emitters[i]->cost(&trial, plan, symbol);
    const sfi_kernel *loser = &trial;
    sfi_kernel before;
    if (!best->emitter || trial.predicted_us < best->predicted_us) {
      before = *best;
      *best = trial;
      loser = &before;
    }
    if (loser->emitter) sfi_text_printf(losers, "; %s %.3g us", loser->emitter->name, loser->predicted_us);
  }
}

static sf_status choose(sfi_pass_env *env, sfi_plan *plan, sfi_kernel *kernel, const sfi_emitter *const *emitters,
                        size_t n_emitters, const char *only) {
  sfi_text losers = {.allocator = plan->arena.allocator}, verdict = losers;
  sfi_kernel best = *kernel;
  sf_status st = SF_OK;
  try_all(plan, kernel, emitters, n_emitters, only, &best, &losers);
  if (best.emitter) sfi_text_printf(&verdict, "%s %.3g us", best.emitter->name, best.predicted_us);
  if (best.emitter && best.anchor == SFI_ANCHOR_CONTRACT) {
    sfi_text_printf(&verdict, " (density %.3g)", sfi_density(best.contract.facts));
  }
  if (losers.data) sfi_text_add(&verdict, losers.data, losers.length);
  if (losers.failed || verdict.failed)
    st = sfi_fail_memory(env->diag);
  else if (!best.emitter) {
    st = sfi_fail(env->diag, SF_STATUS_UNSUPPORTED, NULL, kernel->name, "%s: no emitter%s%s takes this kernel%s", kernel->name,
                  only ? " named " : "", only ? only : "", losers.data ? losers.data : "");
  } else {
    best.choice = sfi_arena_strndup(&plan->arena, verdict.data, verdict.length);
    if (!best.choice)
      st = sfi_fail_memory(env->diag);
    else
      *kernel = best;
  }
  sfi_text_deinit(&losers);
  sfi_text_deinit(&verdict);
  return st;
}

sf_status sfi_choose(sfi_pass_env *env, sfi_plan *plan, const sfi_emitter *const *emitters, size_t n_emitters, const char *only) {
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
