/* Every operation and every emitter against the reference, in whole graphs through sf_compile and sf_run:
 *   conformance [--part I/N] [--quick] [--only TEXT]     conformance --table
 * Cases are rows of conformance.def. Each is built with heads and tails (conformance_graph.c) and, where it has a weight, with patterns of
 * zeros; compiled for every instruction set of the machine, once as the choice pass likes it and once for each emitter of the back end's
 * table that then wins wherever it accepts; and run at extents about the bounds of classes and tiles, in one piece a kernel and in
 * several, with ordinary inputs and with NaN, infinities and huge numbers among them (trial.h).
 * --part: every Nth row; the graphs of one share most of their code. --quick: a sample of everything. --only: graphs whose name has TEXT
 * in it.
 * --table: instead, that each operation, each attribute and each emitter is met by some case.
 * Exit: 0 all agree, 1 not. A failure prints what to give to --only. */
#include "conformance_graph.h"
#include "jit.h"
#include "trial.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { FAILURES = 20, EMITTERS = 64, TARGETS = 8, NAME = 256, PROGRAM_NAME = 320 };

static const sf_isa isas[] = {
#define SF_TARGET(isa, ...) SF_ISA_##isa,
#include "targets.def"
#undef SF_TARGET
};

static const struct {
  const char *name;
  sf_zeros zeros;
} patterns[] = {
    {"dense", {.pattern = SF_PATTERN_DENSE}},
    {"50 %", {SF_PATTERN_UNSTRUCTURED, .share = 0.5}},
    {"90 %", {SF_PATTERN_UNSTRUCTURED, .share = 0.9}},
    {"dead", {.pattern = SF_PATTERN_DEAD}},
    {"2:4", {SF_PATTERN_NM_COLUMNS, .n = 2, .m = 4}},
    {"blocks of 4 x 4", {SF_PATTERN_BLOCKS, .height = 4, .width = 4}},
    {"10 %", {SF_PATTERN_UNSTRUCTURED, .share = 0.1}},
    {"30 %", {SF_PATTERN_UNSTRUCTURED, .share = 0.3}},
    {"70 %", {SF_PATTERN_UNSTRUCTURED, .share = 0.7}},
    {"95 %", {SF_PATTERN_UNSTRUCTURED, .share = 0.95}},
    {"99 %", {SF_PATTERN_UNSTRUCTURED, .share = 0.99}},
    {"99.9 %", {SF_PATTERN_UNSTRUCTURED, .share = 0.999}},
    {"1:8", {SF_PATTERN_NM_COLUMNS, .n = 1, .m = 8}},
    {"2:4 along rows", {SF_PATTERN_NM_ROWS, .n = 2, .m = 4}},
    {"1:32 along rows", {SF_PATTERN_NM_ROWS, .n = 1, .m = 32}},
    {"blocks of 16 x 1", {SF_PATTERN_BLOCKS, .height = 16, .width = 1}},
    {"blocks of 1 x 16", {SF_PATTERN_BLOCKS, .height = 1, .width = 16}},
    {"blocks of 32 x 32", {SF_PATTERN_BLOCKS, .height = 32, .width = 32}},
    {"nearly full blocks", {SF_PATTERN_NEARLY_FULL_BLOCKS, .height = 8, .width = 8}},
    {"all zero", {.pattern = SF_PATTERN_ALL_ZERO}},
    {"one element", {.pattern = SF_PATTERN_ONE_ELEMENT}},
};
enum { PATTERNS_OF_MANY = 3 }; /* of a graph with another head or tail than the plain one */

static const int64_t extents[] = {1, 17, 65, 0, 2, 4, 15, 16, 63, 64, 130};
enum { EXTENTS_OF_MANY = 4 }; /* of all patterns but the first */

/* ---- emitters in favour -------------------------------------------------------------------------------------------- */

/* The back end with one emitter first in its table and free of charge. The linker gives it to the library in place of its own. */
static struct {
  sfi_backend backend;
  sfi_emitter favoured[EMITTERS];
  const sfi_emitter *table[EMITTERS];
} arranged;

const sfi_backend *__real_sfi_backend_of(const sfi_target *target);
const sfi_backend *__wrap_sfi_backend_of(const sfi_target *target);
const sfi_backend *__wrap_sfi_backend_of(const sfi_target *target) {
  return __real_sfi_backend_of(target) ? &arranged.backend : NULL;
}

static double no_cost(const sfi_kernel *kernel, const sfi_plan *plan, int64_t symbol) {
  (void)kernel, (void)plan, (void)symbol;
  return 0;
}

/* emitter: its row, or -1 for the table as it is. */
static void favour(const sfi_backend *backend, int emitter) {
  size_t n = 0;
  assert(backend->n_emitters <= EMITTERS);
  if (emitter >= 0) {
    arranged.favoured[emitter] = *backend->emitters[emitter];
    arranged.favoured[emitter].cost = no_cost;
    arranged.table[n++] = &arranged.favoured[emitter];
  }
  for (int i = 0; i < (int)backend->n_emitters; i++)
    if (i != emitter) arranged.table[n++] = backend->emitters[i];
  arranged.backend = *backend;
  arranged.backend.emitters = arranged.table;
}

static bool uses(const sf_program *program, const sfi_emitter *emitter) {
  for (int32_t c = 0; c < program->n_classes; c++)
    for (size_t k = 0; k < program->classes[c].plan.n_kernels; k++)
      if (program->classes[c].plan.kernels[k].emitter == emitter) return true;
  return false;
}

/* ---- programs of one graph ----------------------------------------------------------------------------------------- */

typedef struct set {
  struct {
    sf_program *program;
    char name[PROGRAM_NAME];
  } all[TARGETS * EMITTERS];
  size_t n;
} set;

typedef struct conformance {
  sf_context *context[TARGETS];
  const sfi_backend *backend[TARGETS]; /* NULL: the reference */
  size_t n_contexts;
  sf_trial trial;
  set sets[2]; /* of this graph and of the one before, so that code they share stays linked */
  bool quick;
  const char *only;
  int64_t graphs, programs, kernels, compiled, failures;
} conformance;

static void fail(conformance *c, const char *graph, const char *message) {
  fprintf(stderr, "conformance: %s: %s\n", graph, message);
  c->failures++;
}

static void release(set *s) {
  while (s->n > 0) sf_program_release(s->all[--s->n].program);
}

static bool compile(conformance *c, size_t context, const sf_graph *graph, int emitter, const char *name, set *out) {
  const sfi_backend *backend = c->backend[context];
  sf_compile_stats stats;
  sf_program *program;
  SF_INIT(&stats);
  if (backend) favour(backend, emitter);
  if (sf_compile(c->context[context], graph, NULL, &program, &stats) != SF_OK) {
    sf_error error;
    sf_context_take_error(c->context[context], &error);
    fail(c, name, error.message);
    return false;
  }
  c->kernels += stats.kernels;
  c->compiled += stats.compiled;
  if (emitter >= 0 && !uses(program, &arranged.favoured[emitter])) {
    sf_program_release(program);
    return true;
  }
  c->programs++;
  snprintf(out->all[out->n].name, PROGRAM_NAME, "%s, %s, %s", name, c->context[context]->target.name,
           emitter >= 0 ? backend->emitters[emitter]->name : "by choice");
  out->all[out->n++].program = program;
  return true;
}

static bool compile_all(conformance *c, const sf_graph *graph, const char *name, set *out) {
  bool good = true;
  for (size_t i = 0; i < c->n_contexts; i++) {
    int n = c->backend[i] ? (int)c->backend[i]->n_emitters : 0;
    for (int e = -1; e < n && good; e++) good = compile(c, i, graph, e, name, out);
  }
  return good;
}

static bool is_symbolic(const sf_graph *graph) {
  for (size_t i = 0; i < graph->n_inputs; i++)
    for (int32_t d = 0; d < graph->nodes[graph->inputs[i]].shape.rank; d++)
      if (!sfi_is_const(graph->nodes[graph->inputs[i]].shape.dims[d])) return true;
  return false;
}

static void run_at(conformance *c, const sf_graph *graph, const char *name, const set *s, size_t seed, bool special,
                   int64_t symbol) {
  sf_trial *t = &c->trial;
  const sfi_symbol_limits limits = sfi_symbol_limits_of(graph);
  if (symbol < limits.least || symbol > limits.most) return;
  if (!sf_trial_begin(t, graph, seed * 1000 + (size_t)symbol, special, symbol)) {
    fail(c, name, t->failure);
    return;
  }
  for (size_t i = 0; i < s->n && c->failures < FAILURES; i++) {
    sf_program *program = s->all[i].program;
    if (!sf_trial_run(t, program, s->all[i].name) || !sf_trial_run_in_pieces(t, program, s->all[i].name))
      fail(c, "failed", t->failure);
  }
}

/* The nth pattern of a graph: all extents for the first, some in turn for the others; every second one with special inputs too. What is
 * in turn depends on the graph's number, so that a graph alone (--only) runs as it does among the others. */
static void check_graph(conformance *c, const sf_graph *graph, const char *name, size_t number, size_t nth) {
  set *s = &c->sets[c->graphs % 2];
  c->graphs++;
  bool good = compile_all(c, graph, name, s), symbolic = is_symbolic(graph);
  release(&c->sets[c->graphs % 2]);
  size_t n = !symbolic ? 1 : nth == 0 && !c->quick ? SFI_COUNT(extents) : EXTENTS_OF_MANY;
  for (size_t i = 0; i < n && good; i++) {
    size_t turn = nth == 0 ? 0 : (nth + number) * EXTENTS_OF_MANY, seed = number * SFI_COUNT(patterns) + nth + 1;
    int64_t symbol = symbolic ? extents[(i + turn) % SFI_COUNT(extents)] : 1;
    run_at(c, graph, name, s, seed, false, symbol);
    if (!symbolic || (i + nth + number) % 2 == 1) run_at(c, graph, name, s, seed, true, symbol);
  }
}

/* ---- cases --------------------------------------------------------------------------------------------------------- */

static void check_case(conformance *c, const sf_case *row, sf_op op, int head, int tail, size_t number) {
  bool plain = head == 0 && tail == 0, weighted = sf_case_has_weight(row);
  size_t many = c->quick ? PATTERNS_OF_MANY : SFI_COUNT(patterns), n = !weighted ? 1 : plain ? many : PATTERNS_OF_MANY;
  for (size_t i = 0; i < n && c->failures < FAILURES; i++) {
    char name[NAME];
    /* A graph that is not plain meets a few patterns, other ones than its neighbours. */
    size_t pattern = plain || !weighted ? i : (i * 7 + number) % SFI_COUNT(patterns);
    bool fits;
    snprintf(name, sizeof name, "%s %s %s [%s] [%s] %s", sfi_op_of(op)->text, row->operands, row->attributes, sf_head_name(head),
             sf_tail_name(tail), weighted ? patterns[pattern].name : "");
    if (c->only && !strstr(name, c->only)) continue;
    sf_graph *graph = sf_case_graph(c->context[0], row, op, head, tail, &patterns[pattern].zeros, &fits);
    if (graph) check_graph(c, graph, name, number, i);
    if (!graph && fits) fail(c, name, "the builder refused");
    sf_graph_release(graph);
    if (!fits) return;
  }
}

static void check_part(conformance *c, int part, int parts) {
  int step = c->quick ? 4 : 1, tails = 0, next = 0;
  while (sf_tail_name(tails)) tails++;
  for (size_t i = 0; i < sf_case_count; i++) {
    const sf_case *row = &sf_cases[i];
    int turn = 1 + (int)i % (tails - 1);
    for (int32_t op = 0; op < sfi_op_count(); op++) {
      if (!sfi_op_of((sf_op)op) || !sf_case_is_of(row, (sf_op)op)) continue;
      for (int head = 0; sf_head_name(head); head++)
        for (int tail = 0; sf_tail_name(tail); tail++) {
          bool wanted = head == 0 && (tail == 0 || tail == turn);
          wanted = wanted || (tail == 0 && row->also & HEADS) || (head == 0 && row->also & TAILS);
          if (!wanted) continue;
          int number = next++;
          if (number % step == 0 && (int)i % parts == part) check_case(c, row, (sf_op)op, head, tail, (size_t)number);
        }
    }
  }
}

/* ---- the table of cases -------------------------------------------------------------------------------------------- */

static bool append(void *user, const char *text, size_t length) {
  sfi_text_add(user, text, length);
  return true;
}

/* Does the choice for some case at `isa` say that the favoured emitter won? */
static bool is_met(conformance *c, const sfi_backend *backend, int emitter, sf_isa isa) {
  char won[NAME];
  bool met = false;
  sf_compile_options options;
  SF_INIT(&options);
  options.isa = isa;
  snprintf(won, sizeof won, "by %s 0 us", backend->emitters[emitter]->name);
  favour(backend, emitter);
  for (size_t i = 0; i < sf_case_count && !met; i++)
    for (int32_t op = 0; op < sfi_op_count() && !met; op++) {
      bool fits;
      if (!sfi_op_of((sf_op)op) || !sf_case_is_of(&sf_cases[i], (sf_op)op)) continue;
      sf_graph *graph = sf_case_graph(c->context[0], &sf_cases[i], (sf_op)op, 0, 0, &patterns[1].zeros, &fits);
      sfi_text plan = {.allocator = &sfi_default_allocator};
      if (graph) sf_emit(c->context[0], graph, &options, SF_STAGE_KERNELS, NULL, NULL, append, &plan);
      met = plan.data && strstr(plan.data, won);
      sfi_text_deinit(&plan);
      sf_graph_release(graph);
    }
  return met;
}

static void check_table(conformance *c) {
  for (int32_t op = 0; op < sfi_op_count(); op++) {
    if (!sfi_op_of((sf_op)op)) continue;
    uint32_t missing = sfi_op_of((sf_op)op)->attrs;
    bool met = false;
    for (size_t i = 0; i < sf_case_count; i++) {
      if (!sf_case_is_of(&sf_cases[i], (sf_op)op)) continue;
      met = true;
      for (int32_t a = 0; a < sfi_attr_count(); a++) {
        char given[64];
        snprintf(given, sizeof given, "%s=", sfi_attr_info_of((sf_attr_id)a)->text);
        if (strstr(sf_cases[i].attributes, given)) missing &= ~(UINT32_C(1) << a);
      }
    }
    if (!met) fail(c, sfi_op_of((sf_op)op)->text, "no case has this operation");
    for (int32_t a = 0; met && a < sfi_attr_count(); a++)
      if (missing >> a & 1) fail(c, sfi_op_of((sf_op)op)->text, sfi_attr_info_of((sf_attr_id)a)->text);
  }
  for (size_t i = 0; i < c->n_contexts; i++) {
    const sfi_backend *backend = c->backend[i];
    if (!backend || i > 0) continue; /* one back end */
    for (int e = 0; e < (int)backend->n_emitters; e++) {
      bool met = false;
      for (size_t t = 0; t < SFI_COUNT(isas) && !met; t++) met = isas[t] != SF_ISA_REFERENCE && is_met(c, backend, e, isas[t]);
      if (!met) fail(c, backend->emitters[e]->name, "no case and target has a kernel that this emitter accepts");
    }
  }
}

/* ---- program ------------------------------------------------------------------------------------------------------- */

static bool create_contexts(conformance *c) {
  for (size_t i = SFI_COUNT(isas); i-- > 0;) { /* the reference last */
    const sfi_backend *backend = __real_sfi_backend_of(sfi_target_of(isas[i]));
    if (!backend && isas[i] != SF_ISA_REFERENCE) continue;
    sf_status st = sf_trial_context(isas[i], "", &c->context[c->n_contexts]);
    if (st == SF_STATUS_UNSUPPORTED) continue; /* by this machine */
    if (st != SF_OK) return false;
    c->backend[c->n_contexts++] = backend;
  }
  return true;
}

int main(int argc, char **argv) {
  static conformance c;
  int part = 0, parts = 1;
  bool table = false;
  for (int i = 1; i < argc; i++) {
    const bool more = i + 1 < argc;
    if (strcmp(argv[i], "--table") == 0) {
      table = true;
    } else if (strcmp(argv[i], "--quick") == 0) {
      c.quick = true;
    } else if (strcmp(argv[i], "--only") == 0 && more) {
      c.only = argv[++i];
    } else if (strcmp(argv[i], "--part") != 0 || !more || sscanf(argv[++i], "%d/%d", &part, &parts) != 2 || parts < 1) {
      fprintf(stderr, "usage: conformance [--table] [--quick] [--only NAME] [--part I/N]\n");
      return 2;
    }
  }
  if (!create_contexts(&c)) {
    fprintf(stderr, "conformance: no context\n");
    return 1;
  }
  sf_trial_watch();
  if (table)
    check_table(&c);
  else
    check_part(&c, part, parts);
  for (size_t i = 0; i < SFI_COUNT(c.sets); i++) release(&c.sets[i]);
  for (size_t i = 0; i < c.n_contexts; i++) sf_context_release(c.context[i]);
  printf("conformance: graphs=%" PRId64 " programs=%" PRId64 " kernels=%" PRId64 " compiled=%" PRId64 " runs=%" PRId64
         " elements=%" PRId64 " unknown=%" PRId64 " worst=%.3f failures=%" PRId64 "\n",
         c.graphs, c.programs, c.kernels, c.compiled, c.trial.runs, c.trial.compared, c.trial.skipped, c.trial.worst, c.failures);
  sf_trial_end(&c.trial);
  return c.failures != 0;
}
