/* The judge of the choice pass: among the emitters that accept a kernel it takes the one that was fastest on this machine, on the real
 * weight, with activations of the class's extents. The verdict is kept in the cache; where it is there, nothing is timed.
 *
 * Robust against other work on the machine: candidates take turns, a time is the least of many, a race that is close goes on, the favourite
 * by price is only left for one that is clearly faster, and no sparse kernel wins over a dense one that was faster. */
#include "jit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { SYMBOLS_MAX = 3, FINALISTS_MAX = 16 };

typedef struct rules {
  double factor; /* finalists: priced within this factor of the cheapest */
  int32_t finalists, symbols, rounds;
} rules;
static const rules fast = {2, 4, 1, 8}, full = {8, FINALISTS_MAX, SYMBOLS_MAX, 25};
static const double dense_factor = 8; /* the same of the cheapest dense one, which none may be slower than */
static const double clear = 0.98;     /* a challenger must need less than this share of the favourite's time */
static const double close = 1.04;     /* two this near to each other run on, up to three times the rounds */
static const double hopeless = 1.6;   /* this far behind after a few rounds: out */
enum { ROUNDS_BEFORE_OUT = 3, ROUNDS_MORE = 3 };

/* ---- the verdict --------------------------------------------------------------------------------------------------- */

/* What a verdict depends on: the key of a kernel whose emitter is still open, the weight and the machine. */
static bool print_key(const sfi_tuning *t, const sfi_plan *plan, sfi_kernel kernel, sfi_text *out) {
  char hex[33];
  sfi_digest_hex(kernel.contract.weight_digest, hex);
  kernel.emitter = NULL;
  memset(&kernel.tile, 0, sizeof kernel.tile);
  sfi_text_printf(out, "verdict of %s for %s on %s\n%s, %lld to %lld, weight %s\n", t->settings->backend->name,
                  t->settings->target->name, t->machine, t->settings->tune == SF_TUNE_FULL ? "full" : "fast",
                  (long long)plan->symbol_min, (long long)plan->symbol_max, hex);
  sfi_kernel_key(plan, &kernel, out);
  return !out->failed;
}

/* Lines "emitter picoseconds", the winner's first. Whole numbers: decimal points depend on the host's locale. */
static bool parse_verdict(const sfi_blob *blob, sfi_kernel *candidates, int32_t n, int32_t *out_winner) {
  char text[2048];
  if (blob->size >= sizeof text) return false;
  memcpy(text, blob->data, blob->size);
  text[blob->size] = 0;
  *out_winner = -1;
  for (const char *at = text; *at;) {
    char name[64], *end;
    const size_t length = strcspn(at, " ");
    if (length >= sizeof name || at[length] != ' ') return false;
    memcpy(name, at, length);
    name[length] = 0;
    const double us = (double)strtoll(at + length + 1, &end, 10) * 1e-6;
    if (*end != '\n' || us <= 0) return false;
    at = end + 1;
    for (int32_t i = 0; i < n; i++) {
      if (strcmp(candidates[i].emitter->name, name) != 0) continue;
      candidates[i].measured_us = us;
      if (*out_winner < 0) *out_winner = i;
    }
    if (*out_winner < 0) return false;
  }
  return *out_winner >= 0;
}

static void keep_verdict(const sfi_tuning *t, const sfi_cache_key *key, const sfi_kernel *candidates, int32_t n, int32_t winner) {
  sfi_text text = {.allocator = &t->context->allocator};
  for (int32_t i = -1; i < n; i++) {
    const sfi_kernel *c = &candidates[i < 0 ? winner : i];
    if (i == winner || c->measured_us <= 0) continue;
    sfi_text_printf(&text, "%s %lld\n", c->emitter->name, (long long)sfi_max(1, llround(c->measured_us * 1e6)));
  }
  const bool disk = !(t->settings->flags & SF_COMPILE_NO_CACHE);
  if (!text.failed) sfi_cache_put(t->context->jit->cache, key, disk, text.data, text.length);
  sfi_text_deinit(&text);
}

/* ---- the race ------------------------------------------------------------------------------------------------------ */

typedef struct entrant {
  sfi_kernel *kernel;
  sf_kernel_fn fn;
  void *packed; /* NULL: no operand of it is */
  double us[SYMBOLS_MAX];
  double score; /* sum over the symbols of the logarithm of its time over the best */
} entrant;

typedef struct race {
  const sfi_plan *plan;
  rules rules;
  entrant entrants[FINALISTS_MAX];
  int32_t n;
  int64_t symbol[SYMBOLS_MAX];
  int32_t n_symbols;
  sfi_stage stage;
} race;

static double run_once(const race *r, const entrant *e, int32_t s) {
  return sfi_stage_run(&r->stage, e->kernel, e->fn, e->packed, r->symbol[s]);
}

static double best_of(const race *r, int32_t s, const entrant *but) {
  double best = INFINITY;
  for (int32_t i = 0; i < r->n; i++)
    if (&r->entrants[i] != but && r->entrants[i].us[s] < best) best = r->entrants[i].us[s];
  return best;
}

/* Are the two fastest too near to each other to tell? */
static bool is_close(const race *r, int32_t s) {
  for (int32_t i = 0; i < r->n; i++)
    if (r->entrants[i].us[s] <= best_of(r, s, NULL)) return best_of(r, s, &r->entrants[i]) < r->entrants[i].us[s] * close;
  return false;
}

static void run_at(race *r, int32_t s) {
  for (int32_t i = 0; i < r->n; i++) {
    r->entrants[i].us[s] = INFINITY;
    run_once(r, &r->entrants[i], s); /* pages and branches */
  }
  for (int32_t round = 0; round < r->rules.rounds || (round < r->rules.rounds * ROUNDS_MORE && is_close(r, s)); round++)
    for (int32_t k = 0; k < r->n; k++) {
      entrant *e = &r->entrants[(round + k) % r->n];
      if (round >= ROUNDS_BEFORE_OUT && e->us[s] > best_of(r, s, NULL) * hopeless) continue;
      const double us = run_once(r, e, s);
      if (us < e->us[s]) e->us[s] = us;
    }
  const double best = best_of(r, s, NULL);
  for (int32_t i = 0; i < r->n; i++) r->entrants[i].score += log(r->entrants[i].us[s] / best);
}

/* The entrants stand in the order of their prices. */
static const entrant *winner_of(const race *r) {
  const entrant *best = &r->entrants[0], *dense = NULL;
  for (int32_t i = 1; i < r->n; i++)
    if (r->entrants[i].score < best->score + (best == r->entrants ? log(clear) * r->n_symbols : 0)) best = &r->entrants[i];
  for (int32_t i = 0; i < r->n; i++)
    if (r->entrants[i].kernel->emitter->dense && (!dense || r->entrants[i].score < dense->score)) dense = &r->entrants[i];
  return dense && dense->score < best->score ? dense : best;
}

/* ---- finalists ----------------------------------------------------------------------------------------------------- */

/* The price's symbol first; for `full` also those at the ends of the class, or well above where it has none. */
static void choose_symbols(race *r) {
  const sfi_plan *plan = r->plan;
  const int64_t priced = sfi_choice_symbol(plan);
  const bool open = plan->symbol_max == INT64_MAX;
  const int64_t wanted[SYMBOLS_MAX] = {priced, plan->symbol_min, open ? priced * 4 : (plan->symbol_min + plan->symbol_max) / 2};
  for (int32_t i = 0; i < r->rules.symbols; i++) {
    bool known = false;
    for (int32_t s = 0; s < r->n_symbols; s++) known = known || r->symbol[s] == wanted[i];
    if (!known) r->symbol[r->n_symbols++] = wanted[i];
  }
}

static void choose_finalists(race *r, sfi_kernel *candidates, int32_t n) {
  bool dense = false; /* the cheapest dense one was met */
  for (int32_t i = 0; i < n && r->n < FINALISTS_MAX; i++) {
    const bool first_dense = candidates[i].emitter->dense && !dense;
    dense = dense || first_dense;
    const double times = candidates[i].predicted_us / candidates[0].predicted_us;
    if ((times <= r->rules.factor && r->n < r->rules.finalists) || (first_dense && times <= dense_factor))
      r->entrants[r->n++].kernel = &candidates[i];
  }
}

/* Code and packed weights of the finalists, linked. `units` keeps them. */
static sf_status obtain(sfi_tuning *t, race *r, sfi_units *units) {
  sfi_needs needs[FINALISTS_MAX];
  for (int32_t i = 0; i < r->n; i++) {
    const sf_status status = sfi_units_add(units, r->plan, r->entrants[i].kernel, t->diag, &needs[i]);
    if (status != SF_OK) return status;
  }
  const sf_status status = sfi_units_obtain(units, false, t->diag);
  if (status != SF_OK) return status;
  for (size_t i = 0; i < units->n; i++) {
    const bool made = units->units[i].origin == SFI_MADE;
    t->compiled += made && units->units[i].kind == SFI_ENTRY_OBJECT;
    t->packed += made && units->units[i].kind == SFI_ENTRY_PACKED;
  }
  for (int32_t i = 0; i < r->n; i++) {
    r->entrants[i].fn = units->units[needs[i].code].shared->fn;
    if (needs[i].packed >= 0) r->entrants[i].packed = units->units[needs[i].packed].shared->packed.data;
  }
  return SF_OK;
}

/* Fills in measured_us of the entrants. */
static sf_status run_race(sfi_tuning *t, race *r, const sfi_kernel **out_winner) {
  sfi_settings settings = *t->settings;
  settings.flags &= ~(uint32_t)SF_COMPILE_CACHE_ONLY; /* what is timed must be linked */
  sfi_units units;
  sfi_units_init(&units, t->context, &settings);
  choose_symbols(r);
  sf_status status = obtain(t, r, &units);
  if (status == SF_OK) {
    status = sfi_stage_init(&r->stage, t->context, r->plan, r->entrants[0].kernel, r->symbol, r->n_symbols, t->diag);
  }
  if (status == SF_OK) {
    for (int32_t s = 0; s < r->n_symbols; s++) run_at(r, s);
    for (int32_t i = 0; i < r->n; i++) r->entrants[i].kernel->measured_us = r->entrants[i].us[0];
    *out_winner = winner_of(r)->kernel;
    t->timed++;
    sfi_log(t->context, SF_LOG_INFO, "%s: %s by timing, %.3g us", (*out_winner)->name, (*out_winner)->emitter->name,
            (*out_winner)->measured_us);
  }
  sfi_stage_deinit(&r->stage);
  sfi_units_deinit(&units);
  return status;
}

/* ---- the judge ----------------------------------------------------------------------------------------------------- */

void sfi_tuning_init(sfi_tuning *tuning, sf_context *context, const sfi_settings *settings, sfi_diag *diag) {
  *tuning = (sfi_tuning){.context = context, .settings = settings, .diag = diag};
  if (settings->tune != SF_TUNE_OFF) sfi_machine_name(tuning->machine);
}

sf_status sfi_tuning_judge(void *user, const sfi_plan *plan, sfi_kernel *candidates, int32_t n, int32_t *out_winner) {
  sfi_tuning *t = user;
  char reason[160] = "";
  sfi_text text = {.allocator = &t->context->allocator};
  race contest = {.plan = plan, .rules = t->settings->tune == SF_TUNE_FULL ? full : fast};
  const sfi_kernel *winner = candidates;
  sf_status status = SF_OK;
  choose_finalists(&contest, candidates, n);
  if (contest.n == 1) return SF_OK; /* the others are far dearer */
  if (!print_key(t, plan, candidates[0], &text)) {
    status = sfi_fail_memory(t->diag);
    goto done;
  }
  const sfi_cache_key key = {SFI_ENTRY_VERDICT, text.data, text.length, "", "", t->settings->backend->compiler};
  const bool disk = !(t->settings->flags & SF_COMPILE_NO_CACHE);
  sfi_blob blob;
  int level;
  bool known = sfi_cache_get(t->context->jit->cache, &key, disk, &blob, &level, reason, sizeof reason);
  int32_t found;
  if (known && (known = parse_verdict(&blob, candidates, n, &found)))
    *out_winner = found;
  else
    for (int32_t i = 0; i < n; i++) candidates[i].measured_us = 0;
  sfi_blob_deinit(&blob);
  if (t->report) {
    char entry[160];
    snprintf(entry, sizeof entry, "verdict %s", candidates[0].name);
    const sf_probe_state state = sfi_cache_probe(t->context->jit->cache, &key, reason, sizeof reason);
    t->report(t->report_user, entry, state, state == SF_PROBE_HIT ? "" : reason);
  }
  if (known || t->look_only) goto done;
  if (t->settings->flags & SF_COMPILE_FREEZE) {
    status = sfi_fail(t->diag, SF_STATUS_WOULD_COMPILE, NULL, candidates[0].name, "kernel %s of '%s' would be timed: %s",
                      candidates[0].name, plan->graph->name, reason[0] ? reason : "no verdict is in the cache");
    goto done;
  }
  if ((status = run_race(t, &contest, &winner)) != SF_OK) goto done;
  *out_winner = (int32_t)(winner - candidates);
  keep_verdict(t, &key, candidates, n, *out_winner);
done:
  sfi_text_deinit(&text);
  return status;
}
