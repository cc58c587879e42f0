/* sf_program_explain as JSON: an object of the program with its classes, each with its kernels; docs/tuning.md lists the members. */
#include "jit.h"

/* `text` in quotes, cut nowhere; bytes that are not ASCII pass as they are. */
static void put_string(sfi_text *out, const char *text) {
  sfi_text_add(out, "\"", 1);
  for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
    if (*c == '"' || *c == '\\')
      sfi_text_printf(out, "\\%c", *c);
    else if (*c < 0x20)
      sfi_text_printf(out, "\\u%04x", *c);
    else
      sfi_text_add(out, (const char *)c, 1);
  }
  sfi_text_add(out, "\"", 1);
}

static void put_member(sfi_text *out, const char *name, const char *text) {
  sfi_text_printf(out, ",\"%s\":", name);
  put_string(out, text);
}

/* Shortest decimal; null for what is not known. */
static void put_us(sfi_text *out, const char *name, double us) {
  sfi_text_printf(out, ",\"%s\":", name);
  if (us > 0)
    sfi_text_number(out, us);
  else
    sfi_text_printf(out, "null");
}

static void put_times(sfi_text *out, const sfi_kernel_times *times) {
  const double bound = times->floors_us[times->bound], spent = times->measured_us > 0 ? times->measured_us : times->predicted_us;
  put_us(out, "predicted_us", times->predicted_us);
  put_us(out, "measured_us", times->measured_us);
  put_member(out, "bound", sfi_bound_names[times->bound]);
  put_us(out, "bound_us", bound);
  put_us(out, "reached", spent > 0 ? bound / spent : 0);
  sfi_text_printf(out, ",\"floors_us\":{");
  for (int i = 0; i <= SF_BOUND_MEMORY; i++) {
    sfi_text_printf(out, "%s\"%s\":", i ? "," : "", sfi_bound_names[i]);
    sfi_text_number(out, times->floors_us[i]);
  }
  sfi_text_printf(out, "}");
}

static void put_kernel(sfi_text *out, const sf_program *program, const sfi_kernel *kernel, const sfi_loaded *loaded,
                       const sfi_kernel_times *times) {
  sfi_text_printf(out, "{\"name\":");
  put_string(out, kernel->name);
  put_member(out, "emitter", kernel->emitter ? kernel->emitter->name : "reference");
  if (loaded->fn) {
    put_times(out, times);
    sfi_text_printf(out, ",\"code_bytes\":%zu", loaded->code->code_bytes);
    put_member(out, "code", sfi_origin_text(loaded->code_origin, true));
    if (loaded->reason[0]) put_member(out, "missed", loaded->reason);
  }
  if (loaded->packed) {
    const sfi_facts *facts = kernel->contract.facts;
    put_member(out, "weight", program->graph->nodes[kernel->contract.weight].name);
    sfi_text_printf(out, ",\"rows\":%lld,\"columns\":%lld,\"nonzeros\":%lld,\"packed_bytes\":%zu", (long long)facts->rows,
                    (long long)facts->columns, (long long)facts->nonzeros, loaded->packed->packed.size);
    put_member(out, "packed", sfi_origin_text(loaded->packed_origin, false));
  }
  if (kernel->choice) put_member(out, "choice", kernel->choice);
  sfi_text_printf(out, "}");
}

static sf_status put_class(const sf_program *program, const sfi_class *class, bool measure, sfi_diag *diag, sfi_text *out) {
  const sfi_plan *plan = &class->plan;
  sfi_text_printf(out, "{\"symbol_min\":%lld,\"symbol_max\":", (long long)plan->symbol_min);
  if (plan->symbol_max == INT64_MAX)
    sfi_text_printf(out, "null");
  else
    sfi_text_printf(out, "%lld", (long long)plan->symbol_max);
  sfi_text_printf(out, ",\"priced_at\":%lld,\"kernels\":[", (long long)sfi_choice_symbol(plan));
  for (size_t k = 0; k < plan->n_kernels; k++) {
    sfi_kernel_times times;
    const sf_status status = sfi_kernel_times_of(program, class, k, measure, diag, &times);
    if (status != SF_OK) return status;
    sfi_text_printf(out, "%s\n", k ? "," : "");
    put_kernel(out, program, &plan->kernels[k], &class->loaded[k], &times);
  }
  sfi_text_printf(out, "]}");
  return SF_OK;
}

sf_status sfi_explain_json(const sf_program *program, bool measure, sfi_diag *diag, sfi_text *out) {
  const sfi_target *target = program->classes[0].plan.target;
  sfi_text_printf(out, "{\"program\":");
  put_string(out, program->graph->name);
  put_member(out, "target", target->name);
  sfi_text_printf(out, ",\"threads\":%d,\"rates\":{", program->context->threads);
  const char *comma = "";
#define SF_RATE(member, unit, what)                                                                                                \
  sfi_text_printf(out, "%s\"" #member "\":", comma);                                                                               \
  sfi_text_number(out, target->member);                                                                                            \
  comma = ",";
#include "rates.def"
#undef SF_RATE
  sfi_text_printf(out, "},\"classes\":[");
  for (int32_t c = 0; c < program->n_classes; c++) {
    if (c) sfi_text_printf(out, ",\n");
    const sf_status status = put_class(program, &program->classes[c], measure, diag, out);
    if (status != SF_OK) return status;
  }
  sfi_text_printf(out, "]}\n");
  return SF_OK;
}
