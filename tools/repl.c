/* The read-eval-print loop of sf-jit. A line is either a line of the text form, which grows the graph, or a command that begins with
 * a colon. A line that ends in a backslash, or inside brackets, goes on on the next one. On a terminal libedit gives editing,
 * history (kept in $XDG_STATE_HOME/sparseflow/history or ~/.local/state/sparseflow/history) and completion. */
#include "session.h"

#include <errno.h>
#include <histedit.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_WORDS = 64, NAME_MAX_BYTES = 64 };

/* ---- commands ------------------------------------------------------------------------------------------------------ */

static bool help(session *s, int n, char *const *words);
static bool load(session *s, int n, char *const *words) {
  (void)n;
  return session_load(s, words[0]);
}
static bool save(session *s, int n, char *const *words) {
  return session_save(s, n ? words[0] : NULL);
}
static bool show(session *s, int n, char *const *words) {
  (void)n, (void)words;
  return session_save(s, NULL);
}
static bool reset(session *s, int n, char *const *words) {
  (void)n, (void)words;
  return session_reset(s);
}
static bool explain(session *s, int n, char *const *words) {
  (void)n, (void)words;
  return session_explain(s);
}
static bool emit(session *s, int n, char *const *words) {
  return session_emit(s, words[0], n > 1 ? words[1] : NULL);
}
static bool assembly(session *s, int n, char *const *words) {
  return session_emit(s, "asm", n ? words[0] : NULL);
}
static bool profile(session *s, int n, char *const *words) {
  return session_profile(s, n ? words[0] : NULL);
}

typedef struct command {
  const char *name, *arguments, *doc;
  int min_words;
  bool (*run)(session *s, int n, char *const *words);
} command;
static const command commands[] = {
    {":load", "FILE.sft", "read a model in place of the graph", 1, load},
    {":save", "[FILE.sft]", "write the graph", 0, save},
    {":show", "", "print the graph", 0, show},
    {":reset", "", "begin an empty graph", 0, reset},
    {":run", "[NAME=FILE.npy]... [symbol=N]", "run; other inputs are random, named outputs are written", 0, session_run},
    {":time", "[NAME=FILE.npy]... [symbol=N] [runs=N]", "time runs", 0, session_time},
    {":profile", "[WEIGHT]", "zeros of the weights, or a picture of one", 0, profile},
    {":explain", "", "why the program is what it is", 0, explain},
    {":emit", "STAGE|PASS [KERNEL]", "print graph, canonical, facts, kernels, llvm, asm, or a pass's before and after", 1, emit},
    {":asm", "[KERNEL]", "assembly of the kernels", 0, assembly},
    {":help", "", "this", 0, help},
    {":quit", "", "end (or end of input)", 0, NULL},
};

static bool help(session *s, int n, char *const *words) {
  (void)s, (void)n, (void)words;
  puts("A line of the text form grows the graph, for instance:\n  %x = input f32[batch, 64]\n  %y = relu %x\n  output "
       "%y\nCommands:");
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
    char call[64];
    snprintf(call, sizeof call, "%s %s", commands[i].name, commands[i].arguments);
    printf("  %-48s %s\n", call, commands[i].doc);
  }
  return true;
}

static bool refuse(session *s, const char *what, const char *why) {
  fprintf(stderr, "%s: %s%s%s: %s\n", s->options->program, s->where ? s->where : "", s->where ? ": " : "", what, why);
  return false;
}

/* Runs one whole line. *quit is set by :quit. */
static bool evaluate(session *s, char *line, bool *quit) {
  char *at = line + strspn(line, " \t\n");
  if (*at != ':') return session_lines(s, line, strlen(line));
  char *words[MOST_WORDS], *rest = NULL;
  int n = 0;
  for (char *word = strtok_r(at, " \t\n", &rest); word; word = strtok_r(NULL, " \t\n", &rest)) {
    if (n == MOST_WORDS) return refuse(s, words[0], "too many words");
    words[n++] = word;
  }
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
    const command *c = &commands[i];
    if (strcmp(words[0], c->name) != 0) continue;
    if (!c->run) {
      *quit = true;
      return true;
    }
    if (n - 1 < c->min_words) return refuse(s, words[0], c->arguments);
    bool ok = c->run(s, n - 1, words + 1);
    fflush(stdout);
    return ok;
  }
  return refuse(s, words[0], "no such command; :help lists them");
}

/* ---- lines ---------------------------------------------------------------------------------------------------------- */

/* A growing statement. */
typedef struct statement {
  char *text;
  size_t length;
} statement;

/* Does it end in a backslash, or inside brackets? Strings and comments do not count. */
static bool goes_on(const statement *t) {
  int depth = 0;
  bool quoted = false, comment = false;
  for (size_t i = 0; i < t->length; i++) {
    char c = t->text[i];
    if (c == '\n')
      quoted = comment = false;
    else if (comment)
      continue;
    else if (c == '"')
      quoted = !quoted;
    else if (quoted)
      continue;
    else if (c == ';')
      comment = true;
    else if (c == '[')
      depth++;
    else if (c == ']' && depth)
      depth--;
  }
  return depth > 0;
}

/* Appends a line of input; true while more is wanted. The joined lines stand in one, as the text form has one statement a line. */
static bool append(statement *t, const char *line) {
  size_t n = strcspn(line, "\r\n");
  bool backslash = n && line[n - 1] == '\\';
  char *text = realloc(t->text, t->length + n + 2);
  if (!text) return false;
  memcpy(text + t->length, line, n - backslash);
  t->text = text;
  t->length += n - backslash;
  t->text[t->length] = 0;
  if (!backslash && !goes_on(t)) return false;
  t->text[t->length++] = ' ';
  t->text[t->length] = 0;
  return true;
}

/* ---- terminal -------------------------------------------------------------------------------------------------------- */

typedef struct terminal {
  session *s;
  bool more; /* the prompt of a statement that goes on */
} terminal;

static char *prompt(EditLine *el) {
  static char first[] = "sf> ", next[] = "..> ";
  terminal *t;
  el_get(el, EL_CLIENTDATA, &t);
  return t->more ? next : first;
}

static const char *const words_of_language[] = {
#define SF_OP(id, value, text, min, max, attrs, infer, flags, doc) text,
#include <sparseflow/ops.def>
#undef SF_OP
#define SF_ATTR(id, value, text, type, def, doc) text "=",
#include <sparseflow/attrs.def>
#undef SF_ATTR
    "output ", "weights \"", "graph ", "symbol ", "f32["};

/* What completion offers: candidates with the prefix at the cursor narrow `common` to what they share. */
typedef struct completion {
  const char *prefix;
  size_t length;
  char common[NAME_MAX_BYTES];
  int found;
} completion;

static void offer(completion *c, const char *candidate) {
  if (strncmp(candidate, c->prefix, c->length) != 0 || strlen(candidate) >= sizeof c->common) return;
  if (c->found++ == 0) {
    strcpy(c->common, candidate);
    return;
  }
  size_t n = 0;
  while (c->common[n] && c->common[n] == candidate[n]) n++;
  c->common[n] = 0;
}

static unsigned char complete(EditLine *el, int key) {
  (void)key;
  terminal *t;
  el_get(el, EL_CLIENTDATA, &t);
  const LineInfo *line = el_line(el);
  const char *start = line->cursor;
  while (start > line->buffer && !strchr(" \t,=", start[-1])) start--;
  char prefix[NAME_MAX_BYTES];
  size_t length = (size_t)(line->cursor - start);
  if (length >= sizeof prefix) return CC_ERROR;
  memcpy(prefix, start, length);
  prefix[length] = 0;
  completion c = {.prefix = prefix, .length = length};
  if (prefix[0] == ':') {
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) offer(&c, commands[i].name);
  } else if (prefix[0] == '%') {
    for (sf_value v = 0; v < sf_graph_value_count(t->s->graph); v++) {
      sf_tensor_info info;
      char name[NAME_MAX_BYTES];
      if (sf_graph_value_info(t->s->graph, v, &info) != SF_OK || !info.name) continue;
      if (snprintf(name, sizeof name, "%%%s", info.name) < (int)sizeof name) offer(&c, name);
    }
  } else {
    for (size_t i = 0; i < sizeof words_of_language / sizeof *words_of_language; i++) offer(&c, words_of_language[i]);
  }
  if (!c.found || strlen(c.common) == length) return CC_ERROR;
  return el_insertstr(el, c.common + length) == 0 ? CC_REFRESH : CC_ERROR;
}

/* The file of the history, its folders made; false where there is no home. */
static bool history_path(char *path, size_t size) {
  const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
  int n = state && *state ? snprintf(path, size, "%s/sparseflow", state)
          : home && *home ? snprintf(path, size, "%s/.local/state/sparseflow", home)
                          : -1;
  if (n < 0 || (size_t)n + sizeof "/history" > size) return false;
  for (char *slash = path + 1; (slash = strchr(slash, '/')); slash++) {
    *slash = 0;
    mkdir(path, 0700);
    *slash = '/';
  }
  if (mkdir(path, 0700) != 0 && errno != EEXIST) return false;
  strcat(path, "/history");
  return true;
}

static bool run_terminal(session *s) {
  terminal t = {.s = s};
  char path[4096];
  HistEvent event;
  History *keeper = history_init();
  EditLine *el = el_init(s->options->program, stdin, stdout, stderr);
  if (!keeper || !el) {
    if (keeper) history_end(keeper);
    if (el) el_end(el);
    return refuse(s, "terminal", "cannot be set up");
  }
  bool kept = history_path(path, sizeof path);
  history(keeper, &event, H_SETSIZE, 1000);
  history(keeper, &event, H_SETUNIQUE, 1);
  if (kept) history(keeper, &event, H_LOAD, path);
  el_set(el, EL_CLIENTDATA, &t);
  el_set(el, EL_PROMPT, prompt);
  el_set(el, EL_EDITOR, "emacs");
  el_set(el, EL_HIST, history, keeper);
  el_set(el, EL_ADDFN, "complete", "Completes commands, operations and values", complete);
  el_set(el, EL_BIND, "^I", "complete", NULL);
  el_source(el, NULL);
  printf("sf-jit %s; :help lists the commands\n", sf_version());
  bool quit = false;
  statement line = {0};
  int n;
  const char *text;
  while (!quit && (text = el_gets(el, &n)) && n > 0) {
    t.more = append(&line, text);
    if (t.more) continue;
    if (line.length) history(keeper, &event, H_ENTER, line.text);
    if (line.text) evaluate(s, line.text, &quit);
    line.length = 0;
  }
  if (kept) history(keeper, &event, H_SAVE, path);
  free(line.text);
  el_end(el);
  history_end(keeper);
  return true;
}

/* ---- scripts and pipes ------------------------------------------------------------------------------------------------ */

static bool run_file(session *s, FILE *file, const char *name) {
  char *text = NULL, where[4200];
  size_t capacity = 0;
  statement line = {0};
  bool quit = false, ok = true, more = false;
  long number = 0, first = 1;
  s->where = where;
  while (!quit && getline(&text, &capacity, file) >= 0) {
    number++;
    if (!more) first = number;
    if ((more = append(&line, text))) continue;
    snprintf(where, sizeof where, "%s:%ld", name, first);
    if (line.text && !evaluate(s, line.text, &quit)) ok = false;
    line.length = 0;
  }
  if (more && !quit) {
    snprintf(where, sizeof where, "%s:%ld", name, first);
    ok = refuse(s, "end of input", "inside a statement");
  }
  s->where = NULL;
  free(text);
  free(line.text);
  return ok;
}

bool repl_run(session *s, const char *path) {
  if (!path || strcmp(path, "-") == 0) return isatty(STDIN_FILENO) ? run_terminal(s) : run_file(s, stdin, "stdin");
  FILE *file = fopen(path, "r");
  if (!file) return refuse(s, path, strerror(errno));
  bool ok = run_file(s, file, path);
  fclose(file);
  return ok;
}
