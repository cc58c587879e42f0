/* sf_emit: any stage of compiling a graph as text. Caches nothing and links nothing. */
#include "facts_text.h"

typedef struct emission {
  sf_context *context;
  sfi_settings settings;
  sfi_pipeline pipeline;
  sfi_diag *diag;
  sfi_text text;
  const char *kernel; /* only this one, or NULL */
  sf_write_fn write;
  void *user;
} emission;

/* Hands the text over. *out_stop: the host wants no more. */
static sf_status flush(emission *e, bool *out_stop) {
  *out_stop = false;
  if (e->text.failed) return sfi_fail_memory(e->diag);
  if (e->text.length > 0) *out_stop = !e->write(e->user, e->text.data, e->text.length);
  e->text.length = 0;
  return SF_OK;
}

static sf_status emit_facts(emission *e) {
  const sf_graph *graph = sfi_pipeline_graph(&e->pipeline);
  for (size_t i = 0; i < graph->n_nodes; i++) {
    const sfi_node *node = &graph->nodes[i];
    sfi_matrix matrix;
    if (node->op != SF_OP_WEIGHT || node->dtype != SF_F32 || !sfi_weight_as_matrix(graph, (sf_value)i, &matrix)) continue;
    sfi_weight_facts *known = &e->pipeline.facts;
    const sfi_facts *facts = sfi_weight_facts_get(known, &matrix, sfi_weight_facts_digest(known, &matrix));
    if (!facts) return e->diag->error.status;
    char hex[33];
    sfi_digest_hex(facts->pattern, hex);
    sfi_text_printf(&e->text, "%s: ", node->name);
    sfi_facts_print(&e->text, facts);
    sfi_text_printf(&e->text, ", pattern %s\n", hex);
  }
  return SF_OK;
}

static void print_class_line(emission *e, const sfi_plan *plan) {
  if (e->pipeline.n_plans == 1) return;
  sfi_text_printf(&e->text, "; %s ", plan->graph->symbol);
  sfi_class_print(&e->text, plan);
  sfi_text_printf(&e->text, "\n");
}

static sf_status emit_code(emission *e, const sfi_plan *plan, const sfi_kernel *kernel, sfi_format format) {
  sfi_text_printf(&e->text, "; %s, ", kernel->name);
  if (!kernel->emitter) {
    sfi_text_printf(&e->text, "run by the reference back end\n");
    return SF_OK;
  }
  sfi_text_printf(&e->text, "%s\n", kernel->emitter->name);
  sfi_blob code = {0};
  sf_status status = e->settings.backend->compile(plan, kernel, format, &e->context->allocator, e->diag, &code);
  if (status == SF_OK) sfi_text_add(&e->text, (const char *)code.data, code.size);
  sfi_blob_deinit(&code);
  return status;
}

/* Kernels as plans, or as code in `format`. */
static sf_status emit_kernels(emission *e, bool code, sfi_format format) {
  bool found = !e->kernel, stop = false;
  sf_status status = SF_OK;
  for (int32_t p = 0; p < e->pipeline.n_plans && !stop; p++) {
    const sfi_plan *plan = &e->pipeline.plans[p];
    if (!e->kernel) print_class_line(e, plan);
    if (!code && !e->kernel) {
      sfi_plan_print(plan, &e->text);
      continue;
    }
    for (size_t k = 0; k < plan->n_kernels && !stop; k++) {
      const sfi_kernel *kernel = &plan->kernels[k];
      if (e->kernel && strcmp(e->kernel, kernel->name) != 0) continue;
      if (e->kernel) print_class_line(e, plan);
      found = true;
      if (code) {
        status = emit_code(e, plan, kernel, format);
      } else {
        sfi_plan one = *plan; /* the buffers, and this kernel alone */
        one.kernels = &plan->kernels[k];
        one.n_kernels = 1;
        sfi_plan_print(&one, &e->text);
      }
      if (status != SF_OK || (status = flush(e, &stop)) != SF_OK) return status;
    }
  }
  if (found) return SF_OK;
  return sfi_fail(e->diag, SF_STATUS_NOT_FOUND, NULL, e->kernel, "'%s' has no kernel '%.200s'",
                  sfi_pipeline_graph(&e->pipeline)->name, e->kernel);
}

static sf_status emit_stage(emission *e, const sf_graph *graph, sf_stage stage) {
  sf_status status = SF_OK;
  if (stage == SF_STAGE_GRAPH) {
    sfi_graph_print(graph, &e->text);
    return SF_OK;
  }
  if ((status = sfi_pipeline_run(&e->pipeline, graph, stage < SF_STAGE_KERNELS)) != SF_OK) return status;
  switch (stage) {
  case SF_STAGE_CANONICAL:
    sfi_graph_print(sfi_pipeline_graph(&e->pipeline), &e->text);
    return SF_OK;
  case SF_STAGE_FACTS:
    return emit_facts(e);
  case SF_STAGE_KERNELS:
    return emit_kernels(e, false, SFI_FORMAT_IR);
  default:
    return emit_kernels(e, true, stage == SF_STAGE_LLVM ? SFI_FORMAT_IR : SFI_FORMAT_ASM);
  }
}

static sf_status emit(emission *e, const sf_graph *graph, const sf_compile_options *options, sf_stage stage, const char *pass) {
  sf_status status = sfi_settings_read(e->context, graph, options, true, e->diag, &e->settings);
  if (status != SF_OK) return status;
  if ((int)stage < SF_STAGE_GRAPH || stage > SF_STAGE_ASM) {
    return sfi_fail(e->diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "stage %d is unknown", (int)stage);
  }
  if (e->kernel && (pass || stage < SF_STAGE_KERNELS)) {
    return sfi_fail(e->diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "kernel '%.200s' asked for where there are no kernels yet",
                    e->kernel);
  }
  if (!pass && stage >= SF_STAGE_LLVM && !e->settings.backend) {
    return sfi_fail(e->diag, SF_STATUS_UNSUPPORTED, NULL, NULL, "the reference target has no generated code");
  }
  if (pass && (status = sfi_pass_check(pass, e->diag)) != SF_OK) return status;
  e->settings.flags |= SF_COMPILE_NO_CACHE;
  sfi_pipeline_init(&e->pipeline, e->context, &e->settings, e->diag);
  e->pipeline.tuning.look_only = true;
  if (pass) {
    e->pipeline.traced = pass;
    e->pipeline.trace = &e->text;
    status = sfi_pipeline_run(&e->pipeline, graph, false);
  } else {
    status = emit_stage(e, graph, stage);
  }
  bool stop;
  sf_status flushed = flush(e, &stop); /* on an error too: what stands before it helps to find it */
  if (status == SF_OK) status = flushed;
  sfi_pipeline_deinit(&e->pipeline);
  return status;
}

sf_status sf_emit(sf_context *context, const sf_graph *graph, const sf_compile_options *options, sf_stage stage, const char *kernel,
                  const char *pass, sf_write_fn write, void *user) {
  if (!context) return SF_STATUS_INVALID_ARGUMENT;
  sfi_diag diag = {0};
  emission e = {
      .context = context, .diag = &diag, .text.allocator = &context->allocator, .kernel = kernel, .write = write, .user = user};
  if (!graph || !write) {
    sfi_fail(&diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "%s is NULL", graph ? "write" : "the graph");
  } else {
    emit(&e, graph, options, stage, pass);
  }
  sfi_text_deinit(&e.text);
  return sfi_publish(context, options, &diag);
}
