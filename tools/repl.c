/* The read-eval-print loop of sf-jit. A line is either a line of the text form, which grows the graph, or a command that begins with
 * a colon. A line that ends in a backslash, or inside brackets of the text form, goes on on the next one; an empty line ends what goes
 * on. On a terminal libedit gives editing,
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
  return session_explain(s, "md");
}
static bool emit(session *s, int n, char *const *words) {
  return session_emit(s, words[0], n > 1 ? words[1] : NULL);
}
static bool assembly(session *s, int n, char *const *words) {
  return session_emit(s, "asm", n ? words[0] : NULL);
}
static bool profile(session *s, int n, char *const *words) {
  return session_profile(s, n, words, s->script ? s->script : "graph", "md");
}
static bool zeros(session *s, int n, char *const *words) {
  return session_zeros(s, n ? words[0] : NULL);
}

typedef struct command {
  const char *name, *arguments, *doc;
  int min_words, most_words; /* behind the name */
  bool (*run)(session *s, int n, char *const *words);
} command;
static const command commands[] = {
    {":load", "FILE.sft", "read a model in place of the graph", 1, 1, load},
    {":save", "[FILE.sft]", "write the graph", 0, 1, save},
    {":show", "", "print the graph", 0, 0, show},
    {":reset", "", "begin an empty graph", 0, 0, reset},
    {":run", "[NAME=FILE.npy]... [symbol=N]", "run; other inputs are random, named outputs are written", 0, MOST_WORDS,
     session_run},
    {":time", "[NAME=FILE.npy]... [symbol=N] [runs=N]", "time runs", 0, MOST_WORDS, session_time},
    {":profile", "[NAME=FILE.npy]... [symbol=N] [runs=N] [trace=FILE] [page=FILE]", "time of each kernel; a Chrome trace, a page",
     0, MOST_WORDS, profile},
    {":zeros", "[WEIGHT]", "zeros of the weights, or a picture of one", 0, 1, zeros},
    {":explain", "", "why the program is what it is", 0, 0, explain},
    {":emit", "STAGE|PASS [KERNEL]", "print graph, canonical, facts, kernels, llvm, asm, or a pass's before and after", 1, 2, emit},
    {":asm", "[KERNEL]", "assembly of the kernels", 0, 1, assembly},
    {":help", "", "this", 0, 0, help},
    {":quit", "", "end (or end of input)", 0, 0, NULL},
};

static bool help(session *s, int n, char *const *words) {
  (void)s, (void)n, (void)words;
  puts("A line of the text form grows the graph, for instance:\n  %x = input f32[batch, 64]\n  %y = relu %x\n  output "
       "%y\nCommands:");
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
    char call[96];
    snprintf(call, sizeof call, "%s %s", commands[i].name, commands[i].arguments);
    printf("  %-48s %s\n", call, commands[i].doc);
  }
  return true;
}

/* Runs one whole line. *quit is set by :quit. */
static bool evaluate(session *s, char *line, bool *quit) {
  char *at = line + strspn(line, " \t\n");
  if (*at != ':') return session_lines(s, line, strlen(line));
  char *words[MOST_WORDS], *rest = NULL;
  int n = 0;
  for (char *word = strtok_r(at, " \t\n", &rest); word; word = strtok_r(NULL, " \t\n", &rest)) {
    if (n == MOST_WORDS) return session_fail(s, "%s: too many words", words[0]);
    words[n++] = word;
  }
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
    const command *c = &commands[i];
    if (strcmp(words[0], c->name) != 0) continue;
    if (n - 1 < c->min_words || n - 1 > c->most_words)
      return session_fail(s, "usage: %s%s%s", c->name, *c->arguments ? " " : "", c->arguments);
    if (!c->run) {
      *quit = true;
      return true;
    }
    bool ok = c->run(s, n - 1, words + 1);
    fflush(stdout);
    return ok;
  }
  return session_fail(s, "%s: no such command; :help lists them", words[0]);
}

/* ---- lines ---------------------------------------------------------------------------------------------------------- */

/* A statement under way; its lines are joined to one, as the text form has one statement a line. */
typedef struct statement {
  char *text;
  size_t length;
  int32_t lines;
  int depth; /* of brackets */
} statement;

/* Length of the line without its comment; follows brackets. Strings count as neither. */
static size_t scan(const char *line, size_t n, int *depth) {
  bool quoted = false;
  for (size_t i = 0; i < n; i++) {
    char c = line[i];
    if (quoted && c == '\\')
      i++;
    else if (c == '"')
      quoted = !quoted;
    else if (quoted)
      continue;
    else if (c == ';')
      return i;
    else if (c == '[')
      ++*depth;
    else if (c == ']' && *depth)
      --*depth;
  }
  return n;
}

static void begin(statement *t) {
  t->length = 0;
  t->lines = t->depth = 0;
  if (t->text) t->text[0] = 0;
}

/* Appends a line of input. *more: the statement goes on. False: out of memory. */
static bool append(statement *t, const char *line, bool *more) {
  size_t n = strcspn(line, "\r\n"), blank = strspn(line, " \t");
  const char *first = t->length ? t->text + strspn(t->text, " \t") : line + blank;
  if (*first != ':') n = scan(line, n, &t->depth);
  bool backslash = n && line[n - 1] == '\\';
  *more = backslash || (t->depth > 0 && blank < strcspn(line, "\r\n"));
  n -= backslash;
  char *text = realloc(t->text, t->length + n + 2);
  if (!text) return false;
  memcpy(text + t->length, line, n);
  t->text = text;
  t->length += n;
  t->lines++;
  if (*more) t->text[t->length++] = ' ';
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

/* What completion offers: candidates with the prefix at the cursor narrow `common` to what they share, or are shown. */
typedef struct completion {
  const char *prefix;
  size_t length;
  char common[NAME_MAX_BYTES];
  int found;
  bool show;
} completion;

static void offer(completion *c, const char *candidate) {
  if (strncmp(candidate, c->prefix, c->length) != 0 || strlen(candidate) >= sizeof c->common) return;
  if (c->show) printf("%s%s", c->found ? "  " : "\n", candidate);
  if (c->found++ == 0) {
    strcpy(c->common, candidate);
    return;
  }
  size_t n = 0;
  while (c->common[n] && c->common[n] == candidate[n]) n++;
  c->common[n] = 0;
}

static void offer_all(completion *c, const sf_graph *graph) {
  c->found = 0;
  if (c->prefix[0] == ':') {
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) offer(c, commands[i].name);
  } else if (c->prefix[0] == '%') {
    for (sf_value v = 0; v < sf_graph_value_count(graph); v++) {
      sf_tensor_info info;
      char name[NAME_MAX_BYTES];
      if (sf_graph_value_info(graph, v, &info) != SF_OK || !info.name) continue;
      if (snprintf(name, sizeof name, "%%%s", info.name) < (int)sizeof name) offer(c, name);
    }
  } else {
    for (size_t i = 0; i < sizeof words_of_language / sizeof *words_of_language; i++) offer(c, words_of_language[i]);
  }
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
  offer_all(&c, t->s->graph);
  if (!c.found) return CC_ERROR;
  if (strlen(c.common) > length) return el_insertstr(el, c.common + length) == 0 ? CC_REFRESH : CC_ERROR;
  if (c.found == 1) return CC_NORM;
  c.show = true;
  offer_all(&c, t->s->graph);
  printf("\n");
  fflush(stdout);
  return CC_REDISPLAY;
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
    return session_fail(s, "the terminal cannot be set up");
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
    if (!append(&line, text, &t.more)) break;
    if (t.more) continue;
    if (line.length) history(keeper, &event, H_ENTER, line.text);
    if (kept) history(keeper, &event, H_SAVE, path); /* now: an interrupt ends the program */
    evaluate(s, line.text, &quit);
    begin(&line);
  }
  if (!quit) puts("");
  free(line.text);
  el_end(el);
  history_end(keeper);
  return true;
}

/* ---- scripts and pipes ------------------------------------------------------------------------------------------------ */

static bool run_file(session *s, FILE *file, const char *name) {
  char *text = NULL;
  size_t capacity = 0;
  statement line = {0};
  bool quit = false, ok = true, more = false;
  s->script = name;
  for (int32_t number = 1; !quit && getline(&text, &capacity, file) >= 0; number++) {
    if (!more) s->line = number;
    if (!append(&line, text, &more)) {
      more = false;
      ok = session_fail(s, "out of memory");
      break;
    }
    if (more) continue;
    s->joined = line.lines > 1;
    if (!evaluate(s, line.text, &quit)) ok = false;
    begin(&line);
  }
  if (more) ok = session_fail(s, "the input ends inside a statement");
  s->script = NULL;
  s->joined = false;
  free(text);
  free(line.text);
  return ok;
}

bool repl_run(session *s, const char *path) {
  if (!path || strcmp(path, "-") == 0) return isatty(STDIN_FILENO) ? run_terminal(s) : run_file(s, stdin, "stdin");
  FILE *file = fopen(path, "r");
  if (!file) return session_fail(s, "%s: %s", path, strerror(errno));
  bool ok = run_file(s, file, path);
  fclose(file);
  return ok;
}
