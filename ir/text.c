/* Growing text. A failed allocation sets `failed` once and turns every later call into nothing; what was added before stays. */
#include "base.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static bool reserve(sfi_text *text, size_t more) {
  if (text->failed) return false;
  void *data = text->data;
  if (more > SIZE_MAX / 2 - text->length || !sfi_grow(text->allocator, &data, &text->capacity, 1, text->length + more + 1)) {
    text->failed = true;
    return false;
  }
  text->data = data;
  return true;
}

void sfi_text_add(sfi_text *text, const char *data, size_t length) {
  if (!reserve(text, length)) return;
  if (length) memcpy(text->data + text->length, data, length);
  text->length += length;
  text->data[text->length] = 0;
}

void sfi_text_vprintf(sfi_text *text, const char *format, va_list arguments) {
  va_list again;
  va_copy(again, arguments);
  int length = vsnprintf(NULL, 0, format, arguments);
  if (length < 0) text->failed = true;
  if (reserve(text, length < 0 ? 0 : (size_t)length)) {
    vsnprintf(text->data + text->length, (size_t)length + 1, format, again);
    text->length += (size_t)length;
  }
  va_end(again);
}

void sfi_text_printf(sfi_text *text, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  sfi_text_vprintf(text, format, arguments);
  va_end(arguments);
}

/* digits: what every value of the type survives. */
static void add_number(sfi_text *text, double value, bool single, int digits) {
  if (isnan(value)) {
    sfi_text_add(text, "nan", 3);
    return;
  }
  char number[64];
  int length = 0;
  /* From the digits before the point on, so that 100 does not become "1e+02". */
  double size = fabs(value);
  int precision = size < 1e6 && size >= 10 ? (int)log10(size) + 1 : 1;
  for (; precision <= digits; precision++) {
    length = snprintf(number, sizeof number, "%.*g", precision, value);
    if ((single ? (double)strtof(number, NULL) : strtod(number, NULL)) == value) break;
  }
  /* The host's locale chooses the decimal point, of any number of bytes; ours is always '.'. */
  for (int i = 0; i < length;) {
    int start = i;
    while (i < length && !strchr("0123456789+-einf", number[i])) i++;
    if (i > start)
      sfi_text_add(text, ".", 1);
    else
      sfi_text_add(text, number + i++, 1);
  }
}

void sfi_text_number(sfi_text *text, double value) {
  add_number(text, value, false, 17);
}

void sfi_text_float(sfi_text *text, float value) {
  add_number(text, value, true, 9);
}

void sfi_text_deinit(sfi_text *text) {
  if (text->data) sfi_free(text->allocator, text->data, text->capacity);
  *text = (sfi_text){.allocator = text->allocator};
}
