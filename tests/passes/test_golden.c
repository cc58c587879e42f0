/* Runs the golden files, tests/golden/<folder>/<name>.sft, described in tests/golden/README.md: a graph in text form with the name
 * of a pass and the text expected after it, or with the error expected in the guilty line. SF_GOLDEN_UPDATE=1 rewrites the
 * expectations. SF_GOLDEN_ONLY=text runs the files whose path contains the text. */
#include "context.h"
#include "passes.h"
#include "ref.h"
#include "suite.h"
#ifdef SFI_HAVE_LLVM
#include "cpu.h"
#endif

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const struct {
  const char *name;
  sfi_graph_pass run; /* NULL: the graph as parsed */
} graph_passes[] = {
    {"none", NULL},
    {"fold-constants", sfi_fold_constants},
    {"fold-batch-norm", sfi_fold_batch_norm},
    {"fuse-attention", sfi_fuse_attention},
    {"simplify", sfi_simplify},
    {"compose", sfi_compose},
    {"eliminate-common", sfi_eliminate_common},
    {"eliminate-dead", sfi_eliminate_dead},
    {"propagate-dead-channels", sfi_propagate_dead_channels},
    {"join-products", sfi_join_products},
};

static sf_status choose(sfi_pass_env *env, sfi_plan *plan) {
#ifdef SFI_HAVE_LLVM
  return sfi_choose(env, plan, sfi_cpu_backend.emitters, sfi_cpu_backend.n_emitters, NULL);
#else
  (void)plan;
  return sfi_fail(env->diag, SF_STATUS_UNSUPPORTED, NULL, NULL, "no emitters in this build");
#endif
}

/* Each runs behind those above it that have no `alone`. */
static const struct {
  const char *name;
  sf_status (*run)(sfi_pass_env *env, sfi_plan *plan);
  bool alone, emitters;
} plan_passes[] = {
    {"lower-to-nodes", sfi_lower_to_nodes, .alone = true},
    {"lower-to-kernels", sfi_lower_to_kernels},
    {"fuse", sfi_fuse},
    {"lifetimes", sfi_plan_lifetimes},
    {"choose", choose, .emitters = true},
};

static sf_context *context;
static int failures, updated;

/* ---- what a pass may ask for -------------------------------------------------------------------------------------- */

typedef struct found_facts {
  sfi_facts facts;
  struct found_facts *next;
} found_facts;

static const sfi_facts *find_facts(void *user, const sfi_matrix *matrix, sfi_digest digest) {
  (void)digest;
  found_facts **list = user, *found = calloc(1, sizeof *found);
  ck_assert_ptr_nonnull(found);
  sfi_diag diag = {0};
  ck_assert_int_eq(sfi_scan_zeros(matrix, &sfi_default_allocator, &diag, &found->facts), SF_OK);
  found->next = *list;
  *list = found;
  return &found->facts;
}

static void free_facts(found_facts *facts) {
  for (found_facts *next; facts; facts = next) {
    next = facts->next;
    free(facts);
  }
}

static sfi_digest find_digest(void *user, const sfi_matrix *matrix) {
  (void)user;
  return sfi_matrix_digest(matrix);
}

/* ---- files -------------------------------------------------------------------------------------------------------- */

typedef struct golden {
  char path[2048], folder[1024];
  sfi_text file;                  /* as it is */
  sfi_text graph;                 /* to parse: without the error comments */
  char *pass;                     /* NULL: none named */
  int64_t symbol_min, symbol_max; /* class of plans */
  size_t expect;                  /* where the expectation begins in `file`; 0: there is none */
  int32_t error_line;             /* -1: no error expected; 0: one without a place */
  size_t error_at;                /* where "; error:" begins in `file` */
  char *error;
} golden;

static void complain(const golden *g, const char *what, const char *expected, const char *found) {
  fprintf(stderr, "%s: %s\n--- expected\n%s\n--- found\n%s\n", g->path, what, expected, found);
  failures++;
}

static char *line_tail(const char *text, const char *end) {
  while (text < end && *text == ' ') text++;
  while (end > text && (end[-1] == ' ' || end[-1] == '\r')) end--;
  return strndup(text, (size_t)(end - text));
}

/* Splits the file. The graph keeps its lines at their numbers. */
static void split(golden *g) {
  const char *text = g->file.data, *file_end = text + g->file.length;
  g->error_line = -1;
  g->symbol_min = 1;
  g->symbol_max = INT64_MAX;
  int32_t number = 0;
  for (const char *line = text, *end; line < file_end; line = end + 1) {
    end = memchr(line, '\n', (size_t)(file_end - line));
    ck_assert_msg(end, "%s: no newline at the end", g->path);
    number++;
    size_t length = (size_t)(end - line);
    if (length >= 9 && memcmp(line, "; expect:", 9) == 0) {
      g->expect = (size_t)(end + 1 - text);
      return;
    }
    if (length >= 6 && memcmp(line, "; run:", 6) == 0) g->pass = line_tail(line + 6, end);
    if (length >= 8 && memcmp(line, "; class:", 8) == 0) {
      long long min, max;
      ck_assert_msg(sscanf(line, "; class: %lld %lld", &min, &max) == 2, "%s: a class is two numbers", g->path);
      g->symbol_min = min;
      g->symbol_max = max;
    }
    const char *error = memmem(line, length, "; error:", 8);
    if (error) {
      ck_assert_msg(!g->error, "%s: two errors are expected", g->path);
      g->error = line_tail(error + 8, end);
      g->error_line = error == line ? 0 : number;
      g->error_at = (size_t)(error - text);
      length = (size_t)(error - line);
    }
    sfi_text_add(&g->graph, line, length);
    sfi_text_add(&g->graph, "\n", 1);
  }
}

static void read_file(golden *g) {
  FILE *file = fopen(g->path, "rb");
  ck_assert_msg(file, "%s: cannot be read", g->path);
  char part[4096];
  size_t got;
  while ((got = fread(part, 1, sizeof part, file)) > 0) sfi_text_add(&g->file, part, got);
  fclose(file);
  g->file.allocator = g->graph.allocator = &sfi_default_allocator;
}

/* Replaces file bytes [from, to) by text. */
static void rewrite(const golden *g, size_t from, size_t to, const char *text) {
  FILE *file = fopen(g->path, "wb");
  ck_assert_msg(file, "%s: cannot be written", g->path);
  fwrite(g->file.data, 1, from, file);
  fputs(text, file);
  fwrite(g->file.data + to, 1, g->file.length - to, file);
  ck_assert_int_eq(fclose(file), 0);
  updated++;
}

/* ---- checks ------------------------------------------------------------------------------------------------------- */

static sf_graph *parse(const golden *g, const char *text, size_t length, sf_error *out_error) {
  sf_graph *graph;
  sf_status st = sf_graph_parse(context, text, length, "golden", g->folder, &graph);
  ck_assert_int_eq(sf_context_take_error(context, out_error), st);
  ck_assert(st == SF_OK ? graph != NULL : graph == NULL);
  return graph;
}

static char *print(const sf_graph *graph) {
  sfi_text text = {.allocator = &sfi_default_allocator};
  sfi_graph_print(graph, &text);
  ck_assert(!text.failed);
  char *copy = strndup(text.data ? text.data : "", text.length);
  sfi_text_deinit(&text);
  return copy;
}

/* The printed text reads back and prints the same. */
static void check_fixpoint(const golden *g, const char *text) {
  sf_error error;
  sf_graph *graph = parse(g, text, strlen(text), &error);
  if (!graph) {
    complain(g, "the printed graph does not parse", text, error.message);
    return;
  }
  char *again = print(graph);
  if (strcmp(text, again) != 0) complain(g, "print, parse and print again differ", text, again);
  free(again);
  sf_graph_release(graph);
}

static void check_error(golden *g, const sf_error *error) {
  char found[1024];
  if (error->status == SF_OK) {
    complain(g, "no error", g->error, "nothing");
    return;
  }
  snprintf(found, sizeof found, "%d: %s: %s", error->column, sf_status_text(error->status), error->message);
  if (error->line == g->error_line && strstr(found, g->error) && g->error[0]) return;
  if (error->line == g->error_line && getenv("SF_GOLDEN_UPDATE")) {
    size_t end = g->error_at + strcspn(g->file.data + g->error_at, "\n");
    char text[1100];
    snprintf(text, sizeof text, "; error: %s", found);
    rewrite(g, g->error_at, end, text);
    return;
  }
  char place[1100];
  snprintf(place, sizeof place, "line %d: %s", error->line, found);
  complain(g, "another error", g->error, place);
}

static sfi_pass_env env_of(sfi_diag *diag, found_facts **facts) {
  return (sfi_pass_env){
      .context = context, .diag = diag, .facts = find_facts, .digest = find_digest, .facts_user = facts, .evaluate = sfi_ref_node};
}

/* Text of the graph that the pass makes; NULL: it failed. */
static char *run_graph_pass(const golden *g, sfi_graph_pass pass, const sf_graph *graph) {
  found_facts *facts = NULL;
  sfi_diag diag = {0};
  sfi_pass_env env = env_of(&diag, &facts);
  sf_graph *result = NULL;
  sf_status st = pass(&env, graph, &result);
  if (st != SF_OK || sfi_graph_verify(result, &diag) != SF_OK) complain(g, "the pass fails", "ok", diag.error.message);
  char *text = st == SF_OK ? print(result) : NULL;
  sf_graph_release(result);
  free_facts(facts);
  return text;
}

/* Who won, kernel by kernel. Prices and losers are left out: they change with every calibration. */
static void print_winners(const sfi_plan *plan, sfi_text *out) {
  for (size_t k = 0; k < plan->n_kernels; k++) {
    const sfi_kernel *kernel = &plan->kernels[k];
    sfi_text_printf(out, "%s: %s\n", kernel->name, kernel->emitter ? kernel->emitter->name : kernel->choice);
  }
}

static char *run_plan_passes(const golden *g, size_t last, const sf_graph *graph) {
  found_facts *facts = NULL;
  sfi_diag diag = {0};
  sfi_pass_env env = env_of(&diag, &facts);
  sfi_plan plan = {.graph = graph,
                   .target = sfi_target_of(SF_ISA_AVX512),
                   .symbol_min = g->symbol_min,
                   .symbol_max = g->symbol_max,
                   .arena.allocator = &sfi_default_allocator};
  sfi_text text = {.allocator = &sfi_default_allocator};
  sf_status st = SF_OK;
  for (size_t i = 0; st == SF_OK && i <= last; i++) {
    if (i < last && plan_passes[i].alone) continue;
    st = plan_passes[i].run(&env, &plan);
    if (st == SF_OK) st = sfi_plan_verify(&plan, &diag);
    if (st != SF_OK) complain(g, plan_passes[i].name, "ok", diag.error.message);
  }
  if (st == SF_OK && plan_passes[last].emitters)
    print_winners(&plan, &text);
  else if (st == SF_OK)
    sfi_plan_print(&plan, &text);
  ck_assert(!text.failed);
  char *copy = st == SF_OK ? strndup(text.data ? text.data : "", text.length) : NULL;
  sfi_text_deinit(&text);
  sfi_arena_deinit(&plan.arena);
  free_facts(facts);
  return copy;
}

/* Text of what the file's pass makes of the graph; NULL: it failed, or this build has no emitters for it. */
static char *run_pass(const golden *g, const sf_graph *graph, bool *out_plan) {
  *out_plan = false;
  for (size_t i = 0; i < SFI_COUNT(graph_passes); i++)
    if (strcmp(graph_passes[i].name, g->pass) == 0)
      return graph_passes[i].run ? run_graph_pass(g, graph_passes[i].run, graph) : print(graph);
  *out_plan = true;
  for (size_t i = 0; i < SFI_COUNT(plan_passes); i++) {
    if (strcmp(plan_passes[i].name, g->pass) != 0) continue;
#ifndef SFI_HAVE_LLVM
    if (plan_passes[i].emitters) return NULL;
#endif
    return run_plan_passes(g, i, graph);
  }
  ck_abort_msg("%s: no pass '%s'", g->path, g->pass);
}

static void check_expectation(const golden *g, const sf_graph *graph) {
  bool plan;
  char *found = run_pass(g, graph, &plan);
  if (!found) return;
  const char *expected = g->file.data + g->expect;
  if (strcmp(found, expected) != 0) {
    if (getenv("SF_GOLDEN_UPDATE"))
      rewrite(g, g->expect, g->file.length, found);
    else
      complain(g, plan ? "another plan" : "another graph", expected, found);
  }
  /* A pass makes weights that no file has; without any, its graph is a text like others. */
  if (!plan && !strstr(found, " = weight ")) check_fixpoint(g, found);
  free(found);
}

static void check_file(const char *folder, const char *name) {
  golden g = {.file.allocator = &sfi_default_allocator, .graph.allocator = &sfi_default_allocator};
  sf_error error;
  snprintf(g.folder, sizeof g.folder, "%s", folder);
  snprintf(g.path, sizeof g.path, "%s/%s", folder, name);
  read_file(&g);
  split(&g);
  sf_graph *graph = parse(&g, g.graph.data, g.graph.length, &error);
  if (graph && g.error) {
    sfi_diag diag = {0};
    sfi_graph_verify(graph, &diag);
    error = diag.error;
  }
  if (g.error) {
    check_error(&g, &error);
  } else if (!graph) {
    complain(&g, "does not parse", "a graph", error.message);
  } else {
    char *text = print(graph);
    check_fixpoint(&g, text);
    free(text);
    ck_assert_msg(g.pass && g.expect, "%s: neither an error nor a pass with its expectation", g.path);
    check_expectation(&g, graph);
  }
  sf_graph_release(graph);
  free(g.pass);
  free(g.error);
  sfi_text_deinit(&g.file);
  sfi_text_deinit(&g.graph);
}

static int is_golden(const struct dirent *entry) {
  size_t length = strlen(entry->d_name);
  return length > 4 && strcmp(entry->d_name + length - 4, ".sft") == 0;
}

static int is_folder(const struct dirent *entry) {
  return entry->d_name[0] != '.' && !strchr(entry->d_name, '.');
}

START_TEST(test_golden_files) {
  const char *only = getenv("SF_GOLDEN_ONLY");
  struct dirent **folders;
  int n_folders = scandir(SFI_SOURCE_DIR "/tests/golden", &folders, is_folder, alphasort), seen = 0;
  ck_assert_int_gt(n_folders, 0);
  for (int i = 0; i < n_folders; i++) {
    char folder[1024], path[1024];
    snprintf(folder, sizeof folder, SFI_SOURCE_DIR "/tests/golden/%s", folders[i]->d_name);
    struct dirent **files;
    int n_files = scandir(folder, &files, is_golden, alphasort);
    ck_assert_int_ge(n_files, 0);
    for (int j = 0; j < n_files; j++) {
      snprintf(path, sizeof path, "%s/%s", folders[i]->d_name, files[j]->d_name);
      if (!only || strstr(path, only)) {
        check_file(folder, files[j]->d_name);
        seen++;
      }
      free(files[j]);
    }
    free(files);
    free(folders[i]);
  }
  free(folders);
  ck_assert_msg(seen > 0, "no golden file");
  if (updated) fprintf(stderr, "%d expectations rewritten\n", updated);
  ck_assert_msg(failures == 0, "%d of %d golden files differ", failures, seen);
}
END_TEST

int main(void) {
  sf_context_options options;
  SF_INIT(&options);
  options.cache_dir = "";
  options.isa = SF_ISA_REFERENCE;
  if (sf_context_create(&options, &context) != SF_OK) return 2;
  Suite *suite = suite_create("golden");
  TCase *tests = tcase_create("files");
  tcase_set_timeout(tests, 120);
  tcase_add_test(tests, test_golden_files);
  suite_add_tcase(suite, tests);
  int failed = run_suite(suite);
  sf_context_release(context);
  return failed;
}
