/* Options structs of the host's: read by their size, checked once, and where errors go. */
#include "jit.h"

static bool all_zero(const unsigned char *bytes, size_t n) {
  for (size_t i = 0; i < n; i++) {
    if (bytes[i]) return false;
  }
  return true;
}

bool sfi_options_read(void *out, size_t size, const void *options) {
  memset(out, 0, size);
  if (!options) return true;
  size_t given;
  memcpy(&given, options, sizeof given);
  if (given < sizeof given) return false;
  if (given > size && !all_zero((const unsigned char *)options + size, given - size)) return false;
  memcpy(out, options, given < size ? given : size);
  return true;
}

void sfi_options_write(void *options, const void *filled, size_t size) {
  size_t given;
  memcpy(&given, options, sizeof given);
  size_t end = given < size ? given : size;
  if (end > sizeof given) memcpy((char *)options + sizeof given, (const char *)filled + sizeof given, end - sizeof given);
}

sf_status sfi_publish(sf_context *context, const sf_compile_options *options, const sfi_diag *diag) {
  sf_compile_options read;
  if (sfi_options_read(&read, sizeof read, options) && read.error) *read.error = diag->error;
  if (diag->error.status != SF_OK) sfi_context_keep_error(context, &diag->error);
  return diag->error.status;
}

bool sfi_tune_is_known(sf_tune tune) {
  return tune >= SF_TUNE_DEFAULT && tune <= SF_TUNE_FULL;
}

/* ---- settings ----------------------------------------------------------------------------------------------------- */

static bool is_symbolic(const sf_graph *graph) {
  for (size_t i = 0; i < graph->n_nodes; i++) {
    for (int32_t d = 0; d < graph->nodes[i].shape.rank; d++) {
      if (!sfi_is_const(graph->nodes[i].shape.dims[d])) return true;
    }
  }
  return false;
}

static sf_status read_classes(const sf_graph *graph, const sf_compile_options *options, sfi_diag *diag, sfi_settings *settings) {
  static const int64_t defaults[] = {1, 4, 16};
  const int64_t *classes = options->classes;
  int32_t n = options->n_classes;
  if (!classes && n == 0) {
    classes = defaults;
    n = (int32_t)SFI_COUNT(defaults);
  }
  if (n < 0 || n > SFI_CLASSES_MAX || (n > 0 && !classes)) {
    return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "n_classes %d: must be 0 to %d, with a list", n, SFI_CLASSES_MAX);
  }
  for (int32_t i = 0; i < n; i++) {
    if (classes[i] < 1 || classes[i] == INT64_MAX || (i > 0 && classes[i] <= classes[i - 1])) {
      return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL,
                      "classes[%d] is %lld: upper bounds must be at least 1 and ascend", i, (long long)classes[i]);
    }
  }
  if (!is_symbolic(graph)) {
    settings->n_classes = 1;
    settings->bounds[0] = 1;
    return SF_OK;
  }
  if (n > 0) memcpy(settings->bounds, classes, (size_t)n * sizeof *classes);
  settings->bounds[n] = INT64_MAX;
  settings->n_classes = n + 1;
  return SF_OK;
}

static sf_status read_target(sf_context *context, sf_isa isa, bool any_target, sfi_diag *diag, sfi_settings *settings) {
  /* The context's own has the rates that were measured. */
  settings->target = isa == SF_ISA_NATIVE || isa == context->target.isa ? &context->target : sfi_target_of(isa);
  if (!settings->target) return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "isa %d is unknown", (int)isa);
  if (!any_target && !sfi_target_runs(settings->target->isa)) {
    return sfi_fail(diag, SF_STATUS_UNSUPPORTED, NULL, NULL,
                    "this machine lacks %s: a program for it can only be put into the cache (SF_COMPILE_CACHE_ONLY)",
                    settings->target->name);
  }
  settings->backend = sfi_backend_of(settings->target);
  if (!settings->backend && settings->target->isa != SF_ISA_REFERENCE) {
    return sfi_fail(diag, SF_STATUS_UNSUPPORTED, NULL, NULL, "this build makes no code for %s: it was built without LLVM",
                    settings->target->name);
  }
  return SF_OK;
}

static bool is_contraction(const sfi_emitter *emitter) {
  return emitter->anchor == SFI_ANCHOR_CONTRACT;
}

static sf_status check_emitter(const sfi_settings *settings, sfi_diag *diag) {
  if (!settings->only) return SF_OK;
  size_t n = settings->backend ? settings->backend->n_emitters : 0;
  char names[384];
  size_t length = 0;
  names[0] = 0;
  for (size_t i = 0; i < n; i++) {
    const sfi_emitter *emitter = settings->backend->emitters[i];
    if (!is_contraction(emitter)) continue;
    if (strcmp(emitter->name, settings->only) == 0) return SF_OK;
    size_t more = strlen(emitter->name);
    if (length + more + 3 > sizeof names) continue;
    if (length) {
      memcpy(names + length, ", ", 2);
      length += 2;
    }
    memcpy(names + length, emitter->name, more + 1);
    length += more;
  }
  return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "no emitter '%.100s' for contractions on %s; there are: %s",
                  settings->only, settings->target->name, length ? names : "none");
}

sf_status sfi_settings_read(sf_context *context, const sf_graph *graph, const sf_compile_options *options, bool any_target,
                            sfi_diag *diag, sfi_settings *out_settings) {
  sfi_settings settings = {0};
  sf_compile_options read;
  if (!sfi_options_read(&read, sizeof read, options)) {
    return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL,
                    "struct_size of the compile options: too small, or larger than this library knows; set it with SF_INIT");
  }
  if (graph->diag.error.status != SF_OK) {
    diag->error = graph->diag.error;
    return diag->error.status;
  }
  const uint32_t known = SF_COMPILE_FREEZE | SF_COMPILE_NO_CACHE | SF_COMPILE_CACHE_ONLY | SF_COMPILE_PRELOAD;
  if (read.flags & ~known) {
    return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "flags 0x%x: bits 0x%x are unknown", read.flags,
                    read.flags & ~known);
  }
  if ((read.flags & SF_COMPILE_NO_CACHE) && (read.flags & SF_COMPILE_CACHE_ONLY)) {
    return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "SF_COMPILE_NO_CACHE excludes SF_COMPILE_CACHE_ONLY");
  }
  if (read.opt_level < 0 || read.opt_level > 3) {
    return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "opt_level %d: give level + 1, 1 to 3, or 0 for the default",
                    read.opt_level);
  }
  if (!sfi_tune_is_known(read.tune)) {
    return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "tune %d is unknown", (int)read.tune);
  }
  settings.flags = read.flags;
  settings.level = read.opt_level ? read.opt_level - 1 : 2;
  settings.only = read.emitter;
  settings.tune = read.tune ? read.tune : context->tune ? context->tune : SF_TUNE_OFF;
  any_target = any_target || (read.flags & SF_COMPILE_CACHE_ONLY);
  sf_status status;
  if ((status = read_target(context, read.isa, any_target, diag, &settings)) != SF_OK) return status;
  if ((status = check_emitter(&settings, diag)) != SF_OK) return status;
  if ((status = read_classes(graph, &read, diag, &settings)) != SF_OK) return status;
  /* What does not run here cannot be timed, and what is run by the reference has no rivals. */
  if (!sfi_target_runs(settings.target->isa) || !settings.backend) settings.tune = SF_TUNE_OFF;
  *out_settings = settings;
  return SF_OK;
}
