/* A profile as Chrome's trace events, for chrome://tracing and ui.perfetto.dev. Written run by run, so that a process that dies leaves
 * all runs before. Times are microseconds since the first run began. */
#include "profile.h"

#include <errno.h>

bool profile_trace_begin(session *s, const char *path, FILE **out) {
  *out = fopen(path, "w");
  if (!*out) return session_fail(s, "%s: %s", path, strerror(errno));
  fputs("[\n{\"ph\":\"M\",\"pid\":1,\"tid\":0,\"name\":\"process_name\",\"args\":{\"name\":\"sparseflow\"}}", *out);
  return fflush(*out) == 0 || session_fail(s, "%s: %s", path, strerror(errno));
}

/* A complete event without its closing brace. */
static void begin_event(FILE *file, const char *name, int32_t thread, int64_t zero_ns, int64_t begin_ns, int64_t end_ns) {
  fputs(",\n{\"ph\":\"X\",\"name\":", file);
  tool_json_string(file, name);
  fprintf(file, ",\"pid\":1,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f", (int)thread, (double)(begin_ns - zero_ns) * 1e-3,
          (double)(end_ns - begin_ns) * 1e-3);
}

bool profile_trace_run(session *s, FILE *file, const profile *p, int32_t run) {
  const sf_run_profile *r = &p->run[run];
  const int64_t zero = p->run[0].begin_ns;
  char name[32];
  snprintf(name, sizeof name, "run %d", (int)run);
  begin_event(file, name, 0, zero, r->begin_ns, r->end_ns);
  fprintf(file, ",\"cat\":\"run\",\"args\":{\"run\":%d}}", (int)run);
  for (int32_t i = 0; i < r->count; i++) {
    const sf_span *span = &r->spans[i];
    const sf_kernel_info *info = &p->kernels[span->kernel].info;
    begin_event(file, info->name, profile_thread(p, span->thread), zero, span->begin_ns, span->end_ns);
    fprintf(file, ",\"cat\":\"kernel\",\"args\":{\"run\":%d,\"kernel\":%d,\"emitter\":", (int)run, (int)span->kernel);
    tool_json_string(file, info->emitter);
    fprintf(file, ",\"flops\":%.0f,\"bytes\":%.0f,\"bound_us\":%.4f}}", info->flops, info->bytes, info->bound_us);
  }
  return fflush(file) == 0 || session_fail(s, "the trace cannot be written: %s", strerror(errno));
}

bool profile_trace_end(session *s, FILE *file) {
  fputs("\n]\n", file);
  return fclose(file) == 0 || session_fail(s, "the trace cannot be written: %s", strerror(errno));
}
