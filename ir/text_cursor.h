/* Reads the text form by lines and words: names, strings, numbers, each with its place. Knows nothing of graphs. */
#ifndef SFI_TEXT_CURSOR_H
#define SFI_TEXT_CURSOR_H

#include "base.h"

/* A place in the text, never behind the end of its line: no word spans lines. */
typedef struct sfi_cursor {
  const char *at;         /* next character */
  const char *line_start; /* of the current line */
  const char *line_end;   /* its '\n' or the end of the text */
  const char *text_end;
  int32_t line;     /* 1-based; 0 before the first sfi_cursor_line */
  const char *file; /* for messages */
  sfi_diag *diag;
} sfi_cursor;

typedef struct sfi_token {
  const char *text;
  size_t length; /* 0: there was none */
} sfi_token;

/* `length` of at most INT32_MAX: lines and columns are 32 bits. */
sfi_cursor sfi_cursor_of(const char *text, size_t length, const char *file, sfi_diag *diag);
/* Goes to the next line; false after the last one. */
bool sfi_cursor_line(sfi_cursor *cursor);
/* Is nothing but blanks and a comment left in the line? Skips blanks. */
bool sfi_cursor_at_end(sfi_cursor *cursor);
sfi_place sfi_cursor_place(const sfi_cursor *cursor, const char *at);
/* Records a parse error at `at`. op may be NULL. */
sf_status sfi_cursor_fail(const sfi_cursor *cursor, const char *at, const char *op, const char *format, ...) SFI_PRINTF(4, 5);
/* "found 'x'", "found the end of the line": a parse error at the cursor that says what was wanted instead. */
sf_status sfi_cursor_wanted(sfi_cursor *cursor, const char *op, const char *wanted);

/* Each skips blanks first and takes what is there; where it is not there, the cursor stands before the next word. */
bool sfi_cursor_take(sfi_cursor *cursor, char character);
sfi_token sfi_cursor_name(sfi_cursor *cursor);   /* [A-Za-z0-9_.]+ */
sfi_token sfi_cursor_number(sfi_cursor *cursor); /* the longest run of what numbers are made of; not checked */
/* A quoted string into the arena. Escapes: \" \\ and \xHH, of which \x00 is refused. */
sf_status sfi_cursor_string(sfi_cursor *cursor, sfi_arena *arena, const char *op, const char *wanted, const char **out_text);
/* Writes a string as the above reads it. */
void sfi_text_quoted(sfi_text *text, const char *string);

/* False where the token is not an integer or does not fit. */
bool sfi_token_integer(sfi_token token, int64_t *out);
/* Decimal, "inf", "-inf" or "nan", correctly rounded to a double, or to a float where `single`, whatever the locale. False
 * where it is none of these, overflows, or has more than 400 characters. */
bool sfi_token_real(sfi_token token, bool single, double *out);
bool sfi_token_is(sfi_token token, const char *text);

/* The candidate that is a plausible reading of a mistyped word. */
typedef struct sfi_near {
  sfi_token word;
  const char *best; /* NULL: none offered was near */
  int distance;
} sfi_near;
void sfi_near_offer(sfi_near *near, const char *candidate);
/* For messages, "%s%s%s": "; did you mean '", best, "'?", or three empty strings. */
#define SFI_NEAR_ARGS(n) (n).best ? "; did you mean '" : "", (n).best ? (n).best : "", (n).best ? "'?" : ""

#endif
