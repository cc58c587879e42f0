/* sf_program_explain: why each kernel is what it is. Lines of at most WIDTH columns. */
#include "facts_text.h"

#include <stdlib.h>

enum { WIDTH = 110, INDENT = 6 };

const char *const sfi_bound_names[SF_BOUND_MEMORY + 1] = {"FMA", "loads", "L2", "L3", "memory"};

/* "label: " and a text of phrases, with a line broken after a separator where the next phrase would not fit. */
static void print_wrapped(sfi_text *out, const char *label, const char *text, const char *separator) {
  size_t line = out->length;
  sfi_text_printf(out, "%*s%s:", INDENT, "", label);
  while (*text) {
    const char *end = strstr(text, separator);
    size_t length = end ? (size_t)(end - text) + 1 : strlen(text); /* with the separator's mark, without its space */
    if (out->length - line + 1 + length > WIDTH) {
      sfi_text_add(out, "\n", 1);
      line = out->length;
      sfi_text_printf(out, "%*s", INDENT + 1, "");
    }
    sfi_text_add(out, " ", 1);
    sfi_text_add(out, text, length);
    text += length + (end ? 1 : 0);
  }
  sfi_text_add(out, "\n", 1);
}

static void print_facts(sfi_text *out, const sfi_facts *facts) {
  sfi_text text = {.allocator = out->allocator};
  sfi_facts_print(&text, facts);
  print_wrapped(out, "weight", text.data ? text.data : "", ", ");
  out->failed = out->failed || text.failed;
  sfi_text_deinit(&text);
}

static void print_bytes(sfi_text *out, uint64_t bytes) {
  if (bytes < 1024) {
    sfi_text_printf(out, "%llu B", (unsigned long long)bytes);
  } else if (bytes < 1024 * 1024) {
    sfi_text_printf(out, "%.1f KB", (double)bytes / 1024);
  } else {
    sfi_text_printf(out, "%.1f MB", (double)bytes / 1048576);
  }
}

static void print_us(sfi_text *out, double us) {
  if (us < 1000) {
    sfi_text_printf(out, "%.3g us", us);
  } else {
    sfi_text_printf(out, "%.0f us", us);
  }
}

const char *sfi_origin_text(sfi_origin origin, bool code) {
  switch (origin) {
  case SFI_FROM_MEMORY:
    return "from memory";
  case SFI_FROM_DISK:
    return "from disk";
  case SFI_MADE:
    break;
  }
  return code ? "compiled" : "packed now";
}

static void print_space(sfi_text *out, const sfi_kernel *kernel, const char *symbol) {
  sfi_text_printf(out, "%*sspace: [", INDENT, "");
  for (int32_t d = 0; d < kernel->rank; d++) {
    if (d) sfi_text_printf(out, ", ");
    if (kernel->extent[d].div > 1) sfi_text_printf(out, "ceil(");
    sfi_poly_print(out, kernel->extent[d].of, symbol);
    if (kernel->extent[d].div > 1) sfi_text_printf(out, " / %lld)", (long long)kernel->extent[d].div);
  }
  sfi_text_printf(out, "]\n");
}

/* Floors by size, those that matter: "loads 9.1 us, 65 % reached; FMA 5.2 us; L2 1.1 us". */
static void print_bounds(sfi_text *out, const sfi_kernel_times *times) {
  sfi_text text = {.allocator = out->allocator};
  const double largest = times->floors_us[times->bound], spent = times->measured_us > 0 ? times->measured_us : times->predicted_us;
  sfi_text_printf(&text, "%s ", sfi_bound_names[times->bound]);
  print_us(&text, largest);
  sfi_text_printf(&text, ", %.0f %% reached%s", spent > 0 ? 100 * largest / spent : 0,
                  times->measured_us > 0 ? "" : " as predicted");
  for (int i = 0; i <= SF_BOUND_MEMORY; i++) {
    if (i == (int)times->bound || times->floors_us[i] < largest * 0.01) continue;
    sfi_text_printf(&text, "; %s ", sfi_bound_names[i]);
    print_us(&text, times->floors_us[i]);
  }
  print_wrapped(out, "bound", text.data ? text.data : "", "; ");
  out->failed = out->failed || text.failed;
  sfi_text_deinit(&text);
}

static void print_kernel(sfi_text *out, const sf_program *program, const sfi_kernel *kernel, const sfi_loaded *loaded,
                         const sfi_kernel_times *times) {
  sfi_text_printf(out, "  %-50.50s %s", kernel->name, kernel->emitter ? kernel->emitter->name : "reference back end");
  if (kernel->emitter) {
    sfi_text_printf(out, ", predicted ");
    print_us(out, times->predicted_us);
    if (times->measured_us > 0) {
      sfi_text_printf(out, ", measured ");
      print_us(out, times->measured_us);
    }
  }
  sfi_text_printf(out, "\n");
  if (!loaded->fn) return;
  print_space(out, kernel, program->graph->symbol);
  if (kernel->anchor == SFI_ANCHOR_CONTRACT && kernel->contract.facts) {
    print_facts(out, kernel->contract.facts);
  }
  sfi_text_printf(out, "%*scode: ", INDENT, "");
  print_bytes(out, loaded->code->code_bytes);
  sfi_text_printf(out, " %s", sfi_origin_text(loaded->code_origin, true));
  if (loaded->packed) {
    sfi_text_printf(out, ", weight ");
    print_bytes(out, loaded->packed->packed.size);
    sfi_text_printf(out, " %s", sfi_origin_text(loaded->packed_origin, false));
  }
  sfi_text_printf(out, "\n");
  if (loaded->reason[0]) print_wrapped(out, "missed", loaded->reason, ", ");
  if (kernel->choice) print_wrapped(out, "choice", kernel->choice, "; ");
  if (times->floors_us[times->bound] > 0) print_bounds(out, times);
}

sf_status sfi_kernel_times_of(const sf_program *program, const sfi_class *class, size_t k, bool measure, sfi_diag *diag,
                              sfi_kernel_times *out) {
  const sfi_kernel *kernel = &class->plan.kernels[k];
  const sfi_loaded *loaded = &class->loaded[k];
  double bytes;
  *out = (sfi_kernel_times){
      .symbol = sfi_choice_symbol(&class->plan), .predicted_us = kernel->predicted_us, .measured_us = kernel->measured_us};
  if (!loaded->fn) return SF_OK;
  sfi_kernel_floors(class, kernel, out->symbol, 1, out->floors_us, &bytes);
  out->bound = sfi_largest_floor(out->floors_us);
  if (!measure) return SF_OK;
  return sfi_stage_measure(program->context, &class->plan, kernel, loaded->fn, loaded->packed ? loaded->packed->packed.data : NULL,
                           out->symbol, diag, &out->measured_us);
}

static sf_status print_class(sfi_text *out, const sf_program *program, const sfi_class *class, bool measure, sfi_diag *diag) {
  const sf_allocator *allocator = &program->context->allocator;
  const sfi_plan *plan = &class->plan;
  size_t bytes = 0, size = plan->n_buffers * sizeof(size_t);
  int64_t symbol = plan->symbol_max == INT64_MAX ? plan->symbol_min : plan->symbol_max;
  size_t *offsets = sfi_alloc(allocator, size);
  if (!offsets) return sfi_fail_memory(diag);
  bool counted = sfi_plan_memory(plan, symbol, offsets, &bytes);
  sfi_free(allocator, offsets, size);
  if (program->symbolic) {
    sfi_text_printf(out, "%s ", program->graph->symbol);
    sfi_class_print(out, plan);
    sfi_text_printf(out, ": ");
  }
  sfi_text_printf(out, "%zu kernels, arena ", plan->n_kernels);
  if (counted) print_bytes(out, bytes);
  if (program->symbolic) sfi_text_printf(out, " at %s %lld", program->graph->symbol, (long long)symbol);
  sfi_text_printf(out, "\n");
  for (size_t k = 0; k < plan->n_kernels; k++) {
    sfi_kernel_times times;
    const sf_status status = sfi_kernel_times_of(program, class, k, measure, diag, &times);
    if (status != SF_OK) return status;
    print_kernel(out, program, &plan->kernels[k], &class->loaded[k], &times);
  }
  return SF_OK;
}

/* Totals count what classes share once: by address. */
static int by_address(const void *a, const void *b) {
  const uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
  return (x > y) - (x < y);
}

static bool print_totals(sfi_text *out, const sf_program *program) {
  size_t n = 0, capacity = 0;
  for (int32_t c = 0; c < program->n_classes; c++) capacity += 2 * program->classes[c].plan.n_kernels;
  uintptr_t *all = sfi_alloc(&program->context->allocator, capacity * sizeof *all);
  if (!all) return false;
  for (int32_t c = 0; c < program->n_classes; c++) {
    const sfi_class *class = &program->classes[c];
    for (size_t k = 0; k < class->plan.n_kernels; k++) {
      if (class->loaded[k].code) all[n++] = (uintptr_t)class->loaded[k].code;
      if (class->loaded[k].packed) all[n++] = (uintptr_t)class->loaded[k].packed;
    }
  }
  qsort(all, n, sizeof *all, by_address);
  uint64_t code = 0, packed = 0, statics = 0;
  for (size_t i = 0; i < n; i++) {
    const sfi_shared *shared = (const sfi_shared *)all[i];
    if (i && all[i] == all[i - 1]) continue;
    code += shared->code_bytes;
    packed += shared->packed.size;
  }
  sfi_free(&program->context->allocator, all, capacity * sizeof *all);
  for (size_t i = 0; i < program->n_statics; i++) statics += program->statics[i].size;
  sfi_text_printf(out, "total: code ");
  print_bytes(out, code);
  sfi_text_printf(out, ", packed weights ");
  print_bytes(out, packed);
  sfi_text_printf(out, ", other constants ");
  print_bytes(out, statics);
  sfi_text_printf(out, "\n");
  return true;
}

static sf_status explain_text(const sf_program *program, bool measure, sfi_diag *diag, sfi_text *out) {
  sfi_text_printf(out, "program %s for %s, %d thread%s\n", program->graph->name, program->classes[0].plan.target->name,
                  program->context->threads, program->context->threads == 1 ? "" : "s");
  for (int32_t c = 0; c < program->n_classes; c++) {
    const sf_status status = print_class(out, program, &program->classes[c], measure, diag);
    if (status != SF_OK) return status;
  }
  return print_totals(out, program) ? SF_OK : sfi_fail_memory(diag);
}

sf_status sf_program_explain(const sf_program *program, uint32_t flags, sf_write_fn write, void *user) {
  if (!program) return SF_STATUS_INVALID_ARGUMENT;
  const bool measure = flags & SF_EXPLAIN_MEASURE;
  sfi_diag diag = {0};
  sfi_text text = {.allocator = &program->context->allocator};
  sf_status status;
  if (!write) {
    status = sfi_fail(&diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "write is NULL");
  } else if (flags & ~(uint32_t)(SF_EXPLAIN_JSON | SF_EXPLAIN_MEASURE)) {
    status = sfi_fail(&diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "flags 0x%x: there are unknown ones", flags);
  } else {
    status = SF_OK;
    for (int32_t c = 0; c < program->n_classes && status == SF_OK; c++)
      status = sfi_class_load(program, &program->classes[c], &diag);
    if (status == SF_OK) status = (flags & SF_EXPLAIN_JSON ? sfi_explain_json : explain_text)(program, measure, &diag, &text);
  }
  if (status == SF_OK && text.failed) status = sfi_fail_memory(&diag);
  if (status == SF_OK) write(user, text.data, text.length);
  sfi_text_deinit(&text);
  return sfi_publish(program->context, NULL, &diag);
}
