/* Units: the code and the packed weights that plans need. Each is listed once whatever number of kernels and classes asks for it, then
 * taken from the context's memory, from the cache, or made; what is missing is made in parallel. A unit that is in the cache but
 * does not link counts as missing. Packed weights that are in the cache may wait there until they are loaded. */
#include "jit.h"

#include <stdio.h>

/* ---- keys --------------------------------------------------------------------------------------------------------- */

static void code_key(const sfi_unit *unit, const sfi_settings *settings, sfi_text *out) {
  sfi_text_printf(out, "code %s %s emitter %s\n", settings->backend->name, settings->target->name, unit->kernel->emitter->name);
  sfi_kernel_key(unit->plan, unit->kernel, out);
}

static void print_poly(sfi_text *out, const char *what, sfi_poly p) {
  sfi_text_printf(out, " %s ", what);
  sfi_poly_print(out, p, "s");
}

/* What packing depends on: the weight itself, how a tile is cut, and where X has its rows, since packed indices are offsets into X. */
static void packed_key(const sfi_unit *unit, const sfi_settings *settings, sfi_text *out) {
  const sfi_kernel *k = unit->kernel;
  const sfi_contract *c = &k->contract;
  char hex[33];
  sfi_digest_hex(c->weight_digest, hex);
  sfi_text_printf(out, "packed %s for %s emitter %s\nweight %s rows %lld groups %lld pitch %lld valid %lld fold %lld",
                  settings->backend->name, settings->target->name, k->emitter->name, hex, (long long)c->rows, (long long)c->groups,
                  (long long)c->pitch, (long long)c->valid, (long long)c->fold);
  print_poly(out, "depth", c->depth);
  sfi_text_printf(out, "\ntile %d %d %lld %lld\nx", k->tile.rows, k->tile.vectors, (long long)k->tile.row_block,
                  (long long)k->tile.column_block);
  print_poly(out, "k", k->operand[1].stride[1]);
  print_poly(out, "j", k->operand[1].stride[2]);
  if (c->k_offset) {
    sfi_digest_hex(sfi_digest_of(c->k_offset, (size_t)c->depth.c[0] * sizeof *c->k_offset), hex);
    sfi_text_printf(out, " offsets %s", hex);
  }
  sfi_text_printf(out, "\n");
}

static sfi_cache_key cache_key(const sfi_units *units, const sfi_unit *unit) {
  bool code = unit->kind == SFI_ENTRY_OBJECT;
  return (sfi_cache_key){unit->kind,
                         unit->key,
                         unit->key_size,
                         code ? units->settings->target->name : "",
                         code ? units->settings->target->features : "",
                         code ? units->settings->backend->compiler : ""};
}

/* ---- listing ------------------------------------------------------------------------------------------------------ */

/* Finds or adds the unit; *out_first says which. */
static sf_status list_unit(sfi_units *units, sfi_entry_kind kind, const sfi_plan *plan, const sfi_kernel *kernel, sfi_diag *diag,
                           int32_t *out_unit, bool *out_first) {
  const sf_allocator *allocator = &units->context->allocator;
  sfi_unit unit = {.kind = kind, .plan = plan, .kernel = kernel};
  sfi_text key = {.allocator = allocator};
  if (kind == SFI_ENTRY_OBJECT) {
    code_key(&unit, units->settings, &key);
  } else {
    packed_key(&unit, units->settings, &key);
  }
  *out_first = false;
  sf_status status = SF_OK;
  if (key.failed) {
    status = sfi_fail_memory(diag);
    goto done;
  }
  unit.digest = sfi_digest_of(key.data, key.length);
  for (size_t i = 0; i < units->n; i++) {
    const sfi_unit *u = &units->units[i];
    if (memcmp(&u->digest, &unit.digest, sizeof u->digest) == 0 && u->kind == kind && u->key_size == key.length &&
        memcmp(u->key, key.data, key.length) == 0) {
      *out_unit = (int32_t)i;
      goto done;
    }
  }
  unit.key = sfi_arena_copy(&units->arena, key.data, key.length);
  unit.key_size = key.length;
  if (!unit.key || !sfi_grow(allocator, (void **)&units->units, &units->capacity, sizeof *units->units, units->n + 1)) {
    status = sfi_fail_memory(diag);
    goto done;
  }
  *out_first = true;
  *out_unit = (int32_t)units->n;
  units->units[units->n++] = unit;
done:
  sfi_text_deinit(&key);
  return status;
}

void sfi_units_init(sfi_units *units, sf_context *context, const sfi_settings *settings) {
  *units = (sfi_units){.context = context, .settings = settings, .arena.allocator = &context->allocator};
}

sf_status sfi_units_add(sfi_units *units, const sfi_plan *plan, const sfi_kernel *kernel, sfi_diag *diag, sfi_needs *needs) {
  *needs = (sfi_needs){.code = -1, .packed = -1};
  if (!kernel->emitter) return SF_OK;
  sf_status status = list_unit(units, SFI_ENTRY_OBJECT, plan, kernel, diag, &needs->code, &needs->first_code);
  if (status != SF_OK || kernel->anchor != SFI_ANCHOR_CONTRACT || !kernel->emitter->pack) return status;
  return list_unit(units, SFI_ENTRY_PACKED, plan, kernel, diag, &needs->packed, &needs->first_packed);
}

sf_status sfi_units_list(sfi_units *units, sf_context *context, const sfi_settings *settings, const sfi_plan *plans,
                         int32_t n_plans, sfi_diag *diag) {
  sfi_units_init(units, context, settings);
  units->needs = sfi_arena_alloc(&units->arena, (size_t)n_plans * sizeof *units->needs);
  if (!units->needs) return sfi_fail_memory(diag);
  for (int32_t c = 0; c < n_plans; c++) {
    const sfi_plan *plan = &plans[c];
    units->needs[c] = sfi_arena_alloc(&units->arena, plan->n_kernels * sizeof **units->needs);
    if (!units->needs[c]) return sfi_fail_memory(diag);
    for (size_t k = 0; k < plan->n_kernels; k++) {
      sf_status status = sfi_units_add(units, plan, &plan->kernels[k], diag, &units->needs[c][k]);
      if (status != SF_OK) return status;
    }
  }
  return SF_OK;
}

void sfi_units_deinit(sfi_units *units) {
  if (!units->context) return;
  for (size_t i = 0; i < units->n; i++) sfi_shared_release(units->context, units->units[i].shared);
  sfi_free(&units->context->allocator, units->units, units->capacity * sizeof *units->units);
  sfi_arena_deinit(&units->arena);
}

/* ---- obtaining ---------------------------------------------------------------------------------------------------- */

/* Links or keeps what was read or made; `payload` is emptied where it is kept. */
static sf_status adopt(const sfi_units *units, sfi_unit *unit, sfi_blob *payload, sfi_diag *diag) {
  unit->bytes = payload->size;
  if (unit->kind == SFI_ENTRY_PACKED) {
    return sfi_shared_pack(units->context, unit->digest, unit->key, unit->key_size, payload, diag, &unit->shared);
  }
  return sfi_shared_link(units->context, units->settings->backend, unit->digest, unit->key, unit->key_size, payload, diag,
                         &unit->shared);
}

static bool from_cache(const sfi_units *units, sfi_unit *unit) {
  const sfi_cache_key key = cache_key(units, unit);
  if (units->settings->flags & SF_COMPILE_CACHE_ONLY) {
    unit->origin = SFI_FROM_DISK;
    return sfi_cache_probe(units->context->jit->cache, &key, unit->reason, sizeof unit->reason) == SF_PROBE_HIT;
  }
  sfi_blob payload = {0};
  int level;
  bool disk = !(units->settings->flags & SF_COMPILE_NO_CACHE);
  if (!sfi_cache_get(units->context->jit->cache, &key, disk, &payload, &level, unit->reason, sizeof unit->reason)) return false;
  unit->origin = level == 1 ? SFI_FROM_MEMORY : SFI_FROM_DISK;
  sfi_diag diag = {0};
  bool adopted = adopt(units, unit, &payload, &diag) == SF_OK;
  if (!adopted) {
    sfi_log(units->context, SF_LOG_WARNING, "%s: cached entry not usable: %s", unit->kernel->name, diag.error.message);
    snprintf(unit->reason, sizeof unit->reason, "%.*s", (int)sizeof unit->reason - 1, diag.error.message);
  }
  sfi_blob_deinit(&payload);
  return adopted;
}

/* Weights of files are read for it, and let go again. */
static sf_status pack(const sfi_unit *unit, const sf_allocator *allocator, sfi_diag *diag, sfi_blob *out_packed) {
  sfi_kernel kernel = *unit->kernel;
  if (!sfi_matrix_open(&kernel.contract.matrix, diag)) return diag->error.status;
  const sf_status status = kernel.emitter->pack(&kernel, unit->plan, allocator, diag, out_packed);
  sfi_matrix_close(&kernel.contract.matrix);
  return status;
}

static sf_status make(const sfi_units *units, sfi_unit *unit) {
  const sf_allocator *allocator = &units->context->allocator;
  const sfi_settings *settings = units->settings;
  sfi_blob payload = {0};
  unit->origin = SFI_MADE;
  sf_status status = unit->kind == SFI_ENTRY_PACKED ? pack(unit, allocator, &unit->diag, &payload)
                                                    : settings->backend->compile(unit->plan, unit->kernel, SFI_FORMAT_OBJECT,
                                                                                 allocator, &unit->diag, &payload);
  if (status == SF_OK) {
    const sfi_cache_key key = cache_key(units, unit);
    sfi_cache_put(units->context->jit->cache, &key, !(settings->flags & SF_COMPILE_NO_CACHE), payload.data, payload.size);
    unit->bytes = payload.size;
    if (!(settings->flags & SF_COMPILE_CACHE_ONLY)) status = adopt(units, unit, &payload, &unit->diag);
  }
  sfi_blob_deinit(&payload);
  return status;
}

typedef struct obtaining {
  sfi_units *units;
  int32_t *missing; /* units that are not in the context's memory */
  int64_t n;
  bool may_wait;
} obtaining;

/* Is it a packed weight that is in the cache, and can be made anew when it is there no more? */
static bool waits(const sfi_units *units, sfi_unit *unit) {
  uint64_t bytes;
  if (unit->kind != SFI_ENTRY_PACKED || !unit->kernel->contract.matrix.source) return false;
  const sfi_cache_key key = cache_key(units, unit);
  if (!sfi_cache_has(units->context->jit->cache, &key, &bytes)) return false;
  unit->origin = SFI_FROM_DISK;
  unit->bytes = bytes;
  return true;
}

/* The unit's failure stays in its own diag, so that units need nothing from each other. */
static void obtain(void *argument, int64_t i) {
  const obtaining *o = argument;
  sfi_unit *unit = &o->units->units[o->missing[i]];
  if ((o->may_wait && waits(o->units, unit)) || from_cache(o->units, unit)) return;
  if ((o->units->settings->flags & SF_COMPILE_FREEZE) && unit->kind == SFI_ENTRY_OBJECT) {
    sfi_fail(&unit->diag, SF_STATUS_WOULD_COMPILE, NULL, unit->kernel->name, "kernel %s of '%s' would be compiled: %s",
             unit->kernel->name, unit->plan->graph->name, unit->reason[0] ? unit->reason : "not in the cache");
    return;
  }
  make(o->units, unit);
}

/* From the context's memory, or else it is among the missing. Nothing where it is there already, or listed. */
static void find(obtaining *o, int32_t i) {
  sfi_unit *unit = &o->units->units[i];
  bool done = unit->shared;
  for (int64_t m = 0; m < o->n; m++) done = done || o->missing[m] == i;
  if (done) return;
  if (!(o->units->settings->flags & SF_COMPILE_CACHE_ONLY)) {
    unit->shared = sfi_shared_find(o->units->context, unit->kind, unit->digest, unit->key, unit->key_size);
  }
  if (unit->shared) {
    unit->origin = SFI_FROM_MEMORY;
    unit->bytes = unit->kind == SFI_ENTRY_PACKED ? unit->shared->packed.size : unit->shared->code_bytes;
  } else {
    o->missing[o->n++] = i;
  }
}

/* The first failure is the diag's, and no unit's any more. */
static sf_status obtain_missing(obtaining *o, sfi_diag *diag) {
  sfi_spread(o->units->context, o->n, obtain, o);
  for (int64_t i = 0; i < o->n; i++) {
    sfi_diag *failed = &o->units->units[o->missing[i]].diag;
    if (diag->error.status == SF_OK) *diag = *failed;
    *failed = (sfi_diag){0};
  }
  return diag->error.status;
}

sf_status sfi_units_obtain(sfi_units *units, bool may_wait, sfi_diag *diag) {
  const size_t bytes = units->n * sizeof(int32_t);
  obtaining o = {.units = units, .missing = sfi_alloc(&units->context->allocator, bytes), .may_wait = may_wait};
  if (!o.missing) return sfi_fail_memory(diag);
  for (size_t i = 0; i < units->n; i++) find(&o, (int32_t)i);
  const sf_status status = obtain_missing(&o, diag);
  sfi_free(&units->context->allocator, o.missing, bytes);
  return status;
}

sf_status sfi_units_load(sfi_units *units, const sfi_needs *needs, size_t n, sfi_diag *diag) {
  const size_t bytes = n * sizeof(int32_t);
  obtaining o = {.units = units, .missing = sfi_alloc(&units->context->allocator, bytes)};
  if (!o.missing) return sfi_fail_memory(diag);
  for (size_t k = 0; k < n; k++)
    if (needs[k].packed >= 0) find(&o, needs[k].packed);
  const sf_status status = obtain_missing(&o, diag);
  sfi_free(&units->context->allocator, o.missing, bytes);
  return status;
}

sf_probe_state sfi_unit_probe(const sfi_units *units, const sfi_unit *unit, char *reason, size_t reason_size) {
  const sfi_cache_key key = cache_key(units, unit);
  return sfi_cache_probe(units->context->jit->cache, &key, reason, reason_size);
}
