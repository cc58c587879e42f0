/* Diagnostics: the first error of an activity, and its way to the context and the host's log. Never allocates. */
#include "context.h"

#include <stdio.h>

/* Ends cut text before the first byte of a UTF-8 sequence that the cut has split. */
static void trim_cut(char *text, size_t length) {
  size_t end = length;
  while (end > 0 && ((unsigned char)text[end - 1] & 0xc0) == 0x80) end--;
  if (end == 0 || ((unsigned char)text[end - 1] & 0x80) == 0) return;
  unsigned char lead = (unsigned char)text[end - 1];
  size_t want = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (length - (end - 1) < want) text[end - 1] = 0;
}

static void copy_text(char *out, size_t size, const char *text) {
  int length = snprintf(out, size, "%s", text ? text : "");
  if (length >= (int)size) trim_cut(out, size - 1);
}

sf_status sfi_fail(sfi_diag *diag, sf_status status, const sfi_place *place, const char *op, const char *format, ...) {
  sf_error *error = &diag->error;
  if (error->status != SF_OK) return status;
  *error = (sf_error){.status = status};
  if (place) {
    error->line = place->line;
    error->column = place->column;
    copy_text(error->file, sizeof error->file, place->file);
  }
  copy_text(error->op, sizeof error->op, op);
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(error->message, sizeof error->message, format, arguments);
  va_end(arguments);
  if (length >= (int)sizeof error->message) trim_cut(error->message, sizeof error->message - 1);
  return status;
}

sf_status sfi_fail_memory(sfi_diag *diag) {
  return sfi_fail(diag, SF_STATUS_OUT_OF_MEMORY, NULL, NULL, "out of memory");
}

void sfi_log(sf_context *context, sf_log_level level, const char *format, ...) {
  if (!context->log || level > context->log_level) return;
  char line[1024];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  if (length >= (int)sizeof line) trim_cut(line, sizeof line - 1);
  for (char *c = line; *c; c++) {
    if (*c == '\n' || *c == '\r') *c = ' '; /* the host was promised one line */
  }
  context->log(context->log_user, level, line);
}

void sfi_context_keep_error(sf_context *context, const sf_error *error) {
  pthread_mutex_lock(&context->error_lock);
  if (context->error.status == SF_OK) context->error = *error;
  pthread_mutex_unlock(&context->error_lock);
}
