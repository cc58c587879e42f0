/* AArch64 code at work: every contraction of contraction_cases.h, each operation's NumPy vectors, random graphs and the digits models are
 * compiled for NEON, linked with kernel_runner.c by the cross compiler, and run under qemu. The printed assembly is assembled too. Skipped
 * (77) where the cross compiler or qemu is missing, and under sanitizers, which see nothing of it. */
#include "contraction_cases.h"
#include "plan_cases.h"
#include "sanitized.h"
#include "suite.h"

#include <stdlib.h>
#include <unistd.h>

#define COMPILER "aarch64-linux-gnu-gcc"
#define EMULATOR "qemu-aarch64"
#define HERE SFI_SOURCE_DIR "/tests/cpu"
enum { RANDOM = 30, SKIPPED = 77, COMMAND = 1024 };

static char folder[] = "/tmp/sparseflow-neon-XXXXXX";

/* Prints what it printed where it fails. */
static bool run_command(const char *command) {
  char line[COMMAND + 128];
  snprintf(line, sizeof line, "(%s) >%s/log 2>&1 || { tail -n 30 %s/log >&2; false; }", command, folder, folder);
  return system(line) == 0;
}

static FILE *create(const char *name) {
  char path[COMMAND];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "wb");
  ck_assert_msg(file != NULL, "%s: cannot be written", path);
  return file;
}

typedef struct written {
  FILE *file;
  int n;
} written;

static void write_case(void *user, const kernel_case *c) {
  written *w = user;
  ck_assert_msg(kernel_case_write(c, w->file), "%s: cannot be written", c->name);
  w->n++;
}

/* Links the store's kernels with the runner. */
static void link_runner(const kernel_store *store) {
  FILE *table = create("table.c"), *objects = create("objects");
  char path[COMMAND];
  fprintf(table, "#include <sparseflow/kernel_abi.h>\nextern const sf_kernel_fn kernel_table[];\n");
  for (int32_t i = 0; i < store->n; i++) {
    snprintf(path, sizeof path, "%s/k%08d.o", folder, i);
    ck_assert(kernel_object_write(&store->kernels[i].object, i, path));
    fprintf(objects, "%s\n", path);
    fprintf(table, "void k%08d(const sf_kernel_args *, int64_t, int64_t);\n", i);
  }
  fprintf(table, "const sf_kernel_fn kernel_table[] = {\n");
  for (int32_t i = 0; i < store->n; i++) fprintf(table, "  k%08d,\n", i);
  fprintf(table, "};\n");
  ck_assert(fclose(table) == 0 && fclose(objects) == 0);
  snprintf(path, sizeof path,
           COMPILER " -std=c11 -O1 -D_GNU_SOURCE -I" SFI_SOURCE_DIR "/include -I" HERE " -static -o %s/runner " HERE
                    "/kernel_runner.c " HERE "/kernel_case.c %s/table.c @%s/objects -lm",
           folder, folder, folder);
  ck_assert_msg(run_command(path), "the kernels cannot be linked");
}

static void run_cases(kernel_store *store, written *w) {
  char command[COMMAND];
  ck_assert(fclose(w->file) == 0);
  ck_assert_int_gt(w->n, 0);
  link_runner(store);
  snprintf(command, sizeof command, EMULATOR " %s/runner %s/cases %d", folder, folder, w->n);
  ck_assert_msg(run_command(command), "wrong under " EMULATOR);
}

START_TEST(contractions) {
  kernel_store store;
  written w = {.file = create("cases")};
  kernel_store_init(&store, sfi_target_of(SF_ISA_NEON));
  for (int i = 0; i < contraction_problems; i++) ck_assert_int_gt(contraction_cases(&store, i, write_case, &w), 0);
  run_cases(&store, &w);
  kernel_store_deinit(&store);
}
END_TEST

START_TEST(graphs) {
  kernel_store store;
  written w = {.file = create("cases")};
  kernel_store_init(&store, sfi_target_of(SF_ISA_NEON));
  for (int op = 0; op < sfi_op_count(); op++) {
    const sfi_op_info *info = sfi_op_of((sf_op)op);
    if (info && !(info->flags & SF_OPF_LEAF)) ck_assert_int_gt(plan_cases_operation(&store, (sf_op)op, write_case, &w), 0);
  }
  for (uint64_t seed = 1; seed <= RANDOM; seed++) plan_cases_random(&store, seed, write_case, &w);
  ck_assert_int_gt(plan_cases_files(&store, write_case, &w), 10);
  run_cases(&store, &w);
  kernel_store_deinit(&store);
}
END_TEST

/* ---- assembly ----------------------------------------------------------------------------------------------------- */

/* The text of one kernel after the other, each with a first line "; name, emitter" that is no assembly, cut into files. */
typedef struct listing {
  FILE *file, *names;
  int n;
} listing;

static bool write_assembly(void *user, const char *text, size_t length) {
  listing *l = user;
  for (const char *line = text, *end = text + length; line < end;) {
    const char *newline = memchr(line, '\n', (size_t)(end - line)), *next = newline ? newline + 1 : end;
    if (*line == ';') {
      char name[32];
      if (l->file) fclose(l->file);
      l->file = NULL;
      if (memchr(line, ',', (size_t)(next - line))) {
        snprintf(name, sizeof name, "a%d.s", l->n++);
        l->file = create(name);
        fprintf(l->names, "%s/%s\n", folder, name);
      }
    } else if (l->file) {
      fwrite(line, 1, (size_t)(next - line), l->file);
    }
    line = next;
  }
  return true;
}

START_TEST(assembly) {
  sf_context_options options;
  SF_INIT(&options);
  options.cache_dir = "";
  sf_context *context;
  sf_graph *graph;
  sf_compile_options target;
  SF_INIT(&target);
  target.isa = SF_ISA_NEON;
  listing l = {.names = create("sources")};
  char command[COMMAND];
  ck_assert_int_eq(sf_context_create(&options, &context), SF_OK);
  ck_assert_int_eq(sf_graph_parse_file(context, SFI_SOURCE_DIR "/examples/digits/pruned.sft", &graph), SF_OK);
  ck_assert_int_eq(sf_emit(context, graph, &target, SF_STAGE_ASM, NULL, NULL, write_assembly, &l), SF_OK);
  if (l.file) fclose(l.file);
  fclose(l.names);
  ck_assert_int_gt(l.n, 5);
  snprintf(command, sizeof command, "cd %s && " COMPILER " -c @sources", folder);
  ck_assert_msg(run_command(command), "the assembly cannot be assembled");
  sf_graph_release(graph);
  sf_context_release(context);
}
END_TEST

/* ---- program ------------------------------------------------------------------------------------------------------ */

int main(void) {
  if (sf_sanitized() || system("command -v " COMPILER " >/dev/null && command -v " EMULATOR " >/dev/null") != 0) {
    puts(sf_sanitized() ? "skipped: built with a sanitizer" : "skipped: needs " COMPILER " and " EMULATOR " (tools/setup)");
    return SKIPPED;
  }
  if (!mkdtemp(folder)) {
    perror(folder);
    return 1;
  }
  Suite *s = suite_create("neon run");
  TCase *c = tcase_create("all");
  tcase_add_test(c, contractions);
  tcase_add_test(c, graphs);
  tcase_add_test(c, assembly);
  tcase_set_timeout(c, 300);
  suite_add_tcase(s, c);
  int failed = run_suite(s);
  remove_tree(folder);
  return failed;
}
