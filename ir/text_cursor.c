/* The words of the text form. Every read is bounded by the line; nothing recurses. */
#include "text_cursor.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { LONGEST_NUMBER = 400, LONGEST_GUESS = 31 };

sfi_cursor sfi_cursor_of(const char *text, size_t length, const char *file, sfi_diag *diag) {
  return (sfi_cursor){text, text, NULL, text + length, 0, file, diag};
}

bool sfi_cursor_line(sfi_cursor *cursor) {
  if (cursor->line_end) {
    if (cursor->line_end == cursor->text_end) return false;
    cursor->line_start = cursor->line_end + 1;
  }
  if (cursor->line_start == cursor->text_end) return false;
  const char *end = memchr(cursor->line_start, '\n', (size_t)(cursor->text_end - cursor->line_start));
  cursor->line_end = end ? end : cursor->text_end;
  cursor->at = cursor->line_start;
  cursor->line++;
  return true;
}

static void skip_blanks(sfi_cursor *cursor) {
  while (cursor->at < cursor->line_end && (*cursor->at == ' ' || *cursor->at == '\t' || *cursor->at == '\r')) cursor->at++;
}

bool sfi_cursor_at_end(sfi_cursor *cursor) {
  skip_blanks(cursor);
  return cursor->at == cursor->line_end || *cursor->at == ';';
}

sfi_place sfi_cursor_place(const sfi_cursor *cursor, const char *at) {
  return (sfi_place){cursor->file, cursor->line, (int32_t)(at - cursor->line_start) + 1};
}

sf_status sfi_cursor_fail(const sfi_cursor *cursor, const char *at, const char *op, const char *format, ...) {
  char message[sizeof cursor->diag->error.message];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  sfi_place place = sfi_cursor_place(cursor, at);
  return sfi_fail(cursor->diag, SF_STATUS_PARSE_ERROR, &place, op, "%s", message);
}

sf_status sfi_cursor_wanted(sfi_cursor *cursor, const char *op, const char *wanted) {
  if (sfi_cursor_at_end(cursor)) return sfi_cursor_fail(cursor, cursor->at, op, "expected %s, found the end of the line", wanted);
  sfi_cursor word = *cursor;
  sfi_token token = sfi_cursor_number(&word);
  if (token.length)
    return sfi_cursor_fail(cursor, cursor->at, op, "expected %s, found '%.*s'", wanted, (int)token.length, token.text);
  unsigned char c = (unsigned char)*cursor->at;
  if (c > ' ' && c < 0x7f) return sfi_cursor_fail(cursor, cursor->at, op, "expected %s, found '%c'", wanted, c);
  return sfi_cursor_fail(cursor, cursor->at, op, "expected %s, found the byte 0x%02x", wanted, c);
}

bool sfi_cursor_take(sfi_cursor *cursor, char character) {
  if (sfi_cursor_at_end(cursor) || *cursor->at != character) return false;
  cursor->at++;
  return true;
}

static bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
static bool is_word(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '.';
}

static sfi_token take_run(sfi_cursor *cursor, bool signs) {
  skip_blanks(cursor);
  const char *start = cursor->at;
  while (cursor->at < cursor->line_end && (is_word(*cursor->at) || (signs && (*cursor->at == '-' || *cursor->at == '+'))))
    cursor->at++;
  return (sfi_token){start, (size_t)(cursor->at - start)};
}

sfi_token sfi_cursor_name(sfi_cursor *cursor) {
  return take_run(cursor, false);
}
sfi_token sfi_cursor_number(sfi_cursor *cursor) {
  return take_run(cursor, true);
}

static int hex_digit(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/* One character or escape of a string, whose end is known to be `end`. -1: not an escape that exists. */
static int take_character(const char **at, const char *end) {
  const char *p = *at;
  if (*p != '\\') {
    *at = p + 1;
    return (unsigned char)*p;
  }
  if (p[1] == '"' || p[1] == '\\') {
    *at = p + 2;
    return p[1];
  }
  if (end - p < 4 || p[1] != 'x' || hex_digit(p[2]) < 0 || hex_digit(p[3]) < 0) return -1;
  *at = p + 4;
  int code = hex_digit(p[2]) * 16 + hex_digit(p[3]);
  return code ? code : -1;
}

sf_status sfi_cursor_string(sfi_cursor *cursor, sfi_arena *arena, const char *op, const char *wanted, const char **out_text) {
  *out_text = NULL;
  skip_blanks(cursor);
  const char *start = cursor->at;
  if (!sfi_cursor_take(cursor, '"')) return sfi_cursor_wanted(cursor, op, wanted);
  const char *end = cursor->at;
  while (end < cursor->line_end && *end != '"') end += *end == '\\' && cursor->line_end - end > 1 ? 2 : 1;
  if (end == cursor->line_end) return sfi_cursor_fail(cursor, start, op, "the string is not closed in its line");
  char *text = sfi_arena_alloc(arena, (size_t)(end - cursor->at) + 1);
  if (!text) return sfi_fail_memory(cursor->diag);
  size_t length = 0;
  while (cursor->at < end) {
    const char *at = cursor->at;
    int character = take_character(&cursor->at, end);
    if (character < 0)
      return sfi_cursor_fail(cursor, at, op, "in a string, '\\' is followed by '\"', '\\' or xHH, and \\x00 is refused");
    if (character == 0) return sfi_cursor_fail(cursor, at, op, "a byte 0 in a string");
    text[length++] = (char)character;
  }
  cursor->at++;
  *out_text = text;
  return SF_OK;
}

void sfi_text_quoted(sfi_text *text, const char *string) {
  sfi_text_add(text, "\"", 1);
  for (; *string; string++) {
    unsigned char c = (unsigned char)*string;
    if (c < 0x20 || c == 0x7f)
      sfi_text_printf(text, "\\x%02x", c);
    else if (c == '"' || c == '\\')
      sfi_text_printf(text, "\\%c", c);
    else
      sfi_text_add(text, string, 1);
  }
  sfi_text_add(text, "\"", 1);
}

bool sfi_token_is(sfi_token token, const char *text) {
  return strlen(text) == token.length && memcmp(text, token.text, token.length) == 0;
}

bool sfi_token_integer(sfi_token token, int64_t *out) {
  size_t i = token.length && token.text[0] == '-';
  bool negative = i;
  int64_t value = 0;
  if (i == token.length) return false;
  for (; i < token.length; i++) {
    if (!is_digit(token.text[i])) return false;
    int64_t digit = token.text[i] - '0';
    if (!sfi_mul(value, 10, &value) || !sfi_add(value, negative ? -digit : digit, &value)) return false;
  }
  *out = value;
  return true;
}

bool sfi_token_real(sfi_token token, bool single, double *out) {
  const char *p = token.text, *end = p + token.length;
  bool negative = p < end && *p == '-';
  if (negative) p++;
  sfi_token magnitude = {p, (size_t)(end - p)};
  if (sfi_token_is(magnitude, "inf")) {
    *out = negative ? -HUGE_VAL : HUGE_VAL;
    return true;
  }
  if (sfi_token_is(token, "nan")) {
    *out = NAN;
    return true;
  }
  /* Rewritten without a decimal point, "1.25" as "125e-2": strtod then reads the same in every locale. */
  char plain[LONGEST_NUMBER + 32];
  if (token.length == 0 || token.length > LONGEST_NUMBER) return false;
  size_t length = 0;
  if (negative) plain[length++] = '-';
  size_t first = length;
  int exponent = 0;
  for (bool fraction = false; p < end && (is_digit(*p) || (*p == '.' && !fraction)); p++) {
    if (*p == '.') {
      fraction = true;
      continue;
    }
    plain[length++] = *p;
    exponent -= fraction;
  }
  if (length == first) return false;
  if (p < end && (*p == 'e' || *p == 'E')) {
    bool down = false;
    if (++p < end && (*p == '-' || *p == '+')) down = *p++ == '-';
    if (p == end) return false;
    int given = 0;
    for (; p < end && is_digit(*p); p++) given = given > 9999 ? given : given * 10 + (*p - '0');
    exponent += down ? -given : given;
  }
  if (p != end) return false;
  snprintf(plain + length, sizeof plain - length, "e%d", exponent);
  *out = single ? (double)strtof(plain, NULL) : strtod(plain, NULL);
  return isfinite(*out);
}

/* Edit distance where exchanging two neighbours counts once; both words of at most LONGEST_GUESS characters. */
static int edit_distance(const char *a, size_t a_length, const char *b, size_t b_length) {
  int rows[3][LONGEST_GUESS + 1];
  int *before = rows[0], *last = rows[1], *row = rows[2];
  for (size_t j = 0; j <= b_length; j++) last[j] = (int)j;
  for (size_t i = 1; i <= a_length; i++) {
    row[0] = (int)i;
    for (size_t j = 1; j <= b_length; j++) {
      int best = last[j - 1] + (a[i - 1] != b[j - 1]);
      if (last[j] + 1 < best) best = last[j] + 1;
      if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best) best = before[j - 2] + 1;
      row[j] = best;
    }
    int *free_row = before;
    before = last, last = row, row = free_row;
  }
  return last[b_length];
}

void sfi_near_offer(sfi_near *near, const char *candidate) {
  size_t length = strlen(candidate);
  if (near->word.length > LONGEST_GUESS || length > LONGEST_GUESS) return;
  int distance = edit_distance(near->word.text, near->word.length, candidate, length);
  int longest = near->word.length < 5 ? 1 : near->word.length < 9 ? 2 : 3;
  if (distance > longest || (near->best && distance >= near->distance)) return;
  near->best = candidate;
  near->distance = distance;
}
