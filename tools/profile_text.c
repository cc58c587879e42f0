/* A profile as a table or as JSON. */
#include "profile.h"

static double per_ns(double amount, double us) { /* 1e9 a second */
  return us > 0 ? amount / us * 1e-3 : 0;
}

static void print_table(FILE *out, const profile *p) {
  double sum = 0, bound = 0;
  fputs("| kernel | emitter | weight | zeros | us | share | GFLOP/s | GB/s | bound | us at the bound | reached |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|\n",
        out);
  for (int32_t k = 0; k < p->n_kernels; k++) {
    const profile_kernel *kernel = &p->kernels[k];
    const sf_kernel_info *info = &kernel->info;
    sum += kernel->us;
    bound += info->bound_us;
    fprintf(out, "| %s | %s | %s | ", info->name, info->emitter, info->weight ? info->weight : "");
    if (info->weight) fprintf(out, "%.1f %%", 100 - 100 * info->density);
    fprintf(out, " | %.2f | %.1f %% | %.1f | %.1f | %s | %.2f | %.0f %% |\n", kernel->us, 100 * kernel->us / p->run_us,
            per_ns(info->flops, kernel->us), per_ns(info->bytes, kernel->us), profile_bound_name(info->bound), info->bound_us,
            100 * profile_fraction(kernel));
  }
  fprintf(out, "\n%d kernels take %.1f us of a run of %.1f us (medians of %d runs, %s, %d thread%s); their bounds are %.1f us\n",
          (int)p->n_kernels, sum, p->run_us, (int)p->runs, p->machine.target, (int)p->machine.threads,
          p->machine.threads == 1 ? "" : "s", bound);
}

static void print_csv(FILE *out, const profile *p) {
  fputs("kernel,emitter,weight,density,chunks,us,busy_us,flops,dense_flops,bytes,bound,bound_us,predicted_us\n", out);
  for (int32_t k = 0; k < p->n_kernels; k++) {
    const profile_kernel *kernel = &p->kernels[k];
    const sf_kernel_info *info = &kernel->info;
    fprintf(out, "%s,%s,%s,%.6g,%d,%.3f,%.3f,%.0f,%.0f,%.0f,%s,%.4f,%.4g\n", info->name, info->emitter,
            info->weight ? info->weight : "", info->density, (int)info->chunks, kernel->us, kernel->busy_us, info->flops,
            info->dense_flops, info->bytes, profile_bound_name(info->bound), info->bound_us, info->predicted_us);
  }
}

static void print_json(FILE *out, const profile *p) {
  const sf_machine_info *m = &p->machine;
  fputs("{\"model\":", out);
  tool_json_string(out, p->model);
  fprintf(out, ",\"symbol\":%lld,\"runs\":%d,\"run_us\":%.3f,\"machine\":{\"target\":\"%s\",\"threads\":%d,\"peak_gflops\":%.6g,",
          (long long)p->symbol, (int)p->runs, p->run_us, m->target, (int)m->threads, m->peak_gflops);
  fprintf(out, "\"l1_gbps\":%.6g,\"l2_gbps\":%.6g,\"l3_gbps\":%.6g,\"memory_gbps\":%.6g},\"kernels\":[", m->l1_gbps, m->l2_gbps,
          m->l3_gbps, m->memory_gbps);
  for (int32_t k = 0; k < p->n_kernels; k++) {
    const profile_kernel *kernel = &p->kernels[k];
    const sf_kernel_info *info = &kernel->info;
    fputs(k ? ",\n{\"name\":" : "\n{\"name\":", out);
    tool_json_string(out, info->name);
    fputs(",\"emitter\":", out);
    tool_json_string(out, info->emitter);
    fputs(",\"weight\":", out);
    if (info->weight)
      tool_json_string(out, info->weight);
    else
      fputs("null", out);
    fprintf(out, ",\"density\":%.6g,\"chunks\":%d,\"us\":%.3f,\"busy_us\":%.3f,\"flops\":%.0f,\"dense_flops\":%.0f,\"bytes\":%.0f,",
            info->density, (int)info->chunks, kernel->us, kernel->busy_us, info->flops, info->dense_flops, info->bytes);
    fprintf(out, "\"bound\":\"%s\",\"bound_us\":%.4f,\"predicted_us\":%.4g}", profile_bound_name(info->bound), info->bound_us,
            info->predicted_us);
  }
  fputs("\n]}", out);
}

void profile_print(FILE *out, const profile *p, const char *format) {
  if (strcmp(format, "json") == 0) {
    print_json(out, p);
    fputs("\n", out);
  } else if (strcmp(format, "csv") == 0) {
    print_csv(out, p);
  } else {
    print_table(out, p);
  }
}
