/* Code for AArch64 made on another machine, through the public interface: sf_compile fills the cache for NEON with the digits models and
 * a graph of each operation; every entry that holds code holds an object for AArch64 that needs no symbol, a second time compiles
 * nothing, and sf_emit shows its assembly. test_neon_run.c runs such code. */
#include "context.h"
#include "kernel_store.h"
#include "ref_vectors.h"
#include "suite.h"

#include <elf.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

static char folder[] = "/tmp/sparseflow-neon-XXXXXX";
static int objects;

static sf_context *context;
static sf_compile_options options;

static void check_status(sf_status st, const sf_graph *graph) {
  sf_error error;
  sf_context_take_error(context, &error);
  ck_assert_msg(st == SF_OK, "%s: %s: %s", graph->name, error.op, error.message);
}

static void on_entry(void *user, const char *entry, sf_probe_state state, const char *reason) {
  (void)user;
  ck_assert_msg(state == SF_PROBE_HIT, "%s: %s", entry, reason);
}

/* Returns the number of kernels that were compiled. */
static int compile_twice(const sf_graph *graph) {
  sf_compile_stats stats;
  SF_INIT(&stats);
  check_status(sf_compile(context, graph, &options, NULL, &stats), graph);
  int compiled = stats.compiled;
  check_status(sf_probe(context, graph, &options, on_entry, NULL), graph);
  SF_INIT(&stats);
  options.flags |= SF_COMPILE_FREEZE;
  check_status(sf_compile(context, graph, &options, NULL, &stats), graph);
  options.flags &= ~(uint32_t)SF_COMPILE_FREEZE;
  ck_assert_int_eq(stats.compiled, 0);
  ck_assert_int_eq(stats.weights_packed, 0);
  return compiled;
}

/* The object in a cache entry, which stands behind a header and the key. */
static int check_entry(const char *path, const struct stat *st, int kind, struct FTW *position) {
  (void)position;
  if (kind != FTW_F || st->st_size == 0) return 0;
  size_t size = (size_t)st->st_size;
  char message[256], *bytes = malloc(size);
  FILE *file = fopen(path, "rb");
  ck_assert(bytes && file && fread(bytes, 1, size, file) == size);
  fclose(file);
  const char *object = memmem(bytes, size, ELFMAG, SELFMAG);
  if (object) {
    size_t rest = size - (size_t)(object - bytes);
    ck_assert_msg(kernel_object_check(sfi_target_of(SF_ISA_NEON), object, rest, message, sizeof message), "%s: %s", path, message);
    objects++;
  }
  free(bytes);
  return 0;
}

START_TEST(objects_for_aarch64) {
  static const char *const models[] = {"dense", "pruned"};
  int compiled = 0;
  objects = 0;
  for (size_t i = 0; i < SFI_COUNT(models); i++) {
    char path[512];
    sf_graph *graph;
    snprintf(path, sizeof path, SFI_SOURCE_DIR "/examples/digits/%s.sft", models[i]);
    ck_assert_int_eq(sf_graph_parse_file(context, path, &graph), SF_OK);
    compiled += compile_twice(graph);
    sf_graph_release(graph);
  }
  ck_assert_int_gt(compiled, 10);
  for (int op = 0; op < sfi_op_count(); op++) {
    const sfi_op_info *info = sfi_op_of((sf_op)op);
    sf_vectors v;
    if (!info || info->flags & SF_OPF_LEAF) continue;
    ck_assert(sf_vectors_open(info->text, SF_ISA_NATIVE, &v));
    options.n_classes = 1;
    options.classes = (const int64_t[]){16};
    compiled += compile_twice(v.graph);
    options.n_classes = 0;
    sf_vectors_close(&v);
  }
  ck_assert_int_eq(nftw(folder, check_entry, 16, FTW_PHYS), 0);
  ck_assert_int_eq(objects, compiled);
}
END_TEST

static bool find_instruction(void *user, const char *text, size_t length) {
  if (memmem(text, length, "fmla\t", 5)) *(bool *)user = true;
  return true;
}

START_TEST(assembly_for_aarch64) {
  sf_graph *graph;
  bool found = false;
  ck_assert_int_eq(sf_graph_parse_file(context, SFI_SOURCE_DIR "/examples/digits/pruned.sft", &graph), SF_OK);
  check_status(sf_emit(context, graph, &options, SF_STAGE_ASM, NULL, NULL, find_instruction, &found), graph);
  ck_assert(found);
  sf_graph_release(graph);
}
END_TEST

/* The checker itself: what is no object, or one for another machine. */
START_TEST(objects_that_are_wrong) {
  const sfi_target *neon = sfi_target_of(SF_ISA_NEON);
  char message[256];
  Elf64_Ehdr header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64}, .e_type = ET_REL, .e_machine = EM_X86_64};
  ck_assert(!kernel_object_check(neon, "", 0, message, sizeof message));
  ck_assert_str_eq(message, "no ELF object");
  ck_assert(!kernel_object_check(neon, &header, sizeof header, message, sizeof message));
  ck_assert_str_eq(message, "for machine 62, not 183");
  header.e_machine = EM_AARCH64;
  ck_assert(!kernel_object_check(neon, &header, sizeof header, message, sizeof message));
  ck_assert_str_eq(message, "does not define sf_kernel");
  header.e_shnum = 1, header.e_shoff = sizeof header - 8;
  ck_assert(!kernel_object_check(neon, &header, sizeof header, message, sizeof message));
  ck_assert_str_eq(message, "the sections are cut off");
}
END_TEST

/* An object of two symbols. */
START_TEST(objects_that_need_others) {
  static const char names[] = "\0sf_kernel\0memcpy";
  struct {
    Elf64_Ehdr header;
    Elf64_Shdr section[3];
    Elf64_Sym symbol[3];
    char names[sizeof names];
  } file = {.header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64}, .e_type = ET_REL, .e_machine = EM_AARCH64}};
  const sfi_target *neon = sfi_target_of(SF_ISA_NEON);
  char message[256];
  memcpy(file.names, names, sizeof names);
  file.header.e_shnum = 3, file.header.e_shoff = (uint64_t)((char *)file.section - (char *)&file);
  file.section[1] = (Elf64_Shdr){.sh_type = SHT_SYMTAB, .sh_link = 2, .sh_size = sizeof file.symbol};
  file.section[1].sh_offset = (uint64_t)((char *)file.symbol - (char *)&file);
  file.section[2] = (Elf64_Shdr){.sh_type = SHT_STRTAB, .sh_size = sizeof names};
  file.section[2].sh_offset = (uint64_t)(file.names - (char *)&file);
  file.symbol[1] = (Elf64_Sym){.st_name = 1, .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC), .st_shndx = 1};
  file.symbol[2] = (Elf64_Sym){.st_name = 11, .st_info = ELF64_ST_INFO(STB_LOCAL, STT_FUNC), .st_shndx = 1};
  ck_assert(kernel_object_check(neon, &file, sizeof file, message, sizeof message));
  file.symbol[2].st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC);
  ck_assert(!kernel_object_check(neon, &file, sizeof file, message, sizeof message));
  ck_assert_str_eq(message, "defines memcpy as well");
  file.symbol[2].st_shndx = SHN_UNDEF;
  ck_assert(!kernel_object_check(neon, &file, sizeof file, message, sizeof message));
  ck_assert_str_eq(message, "needs memcpy");
  file.section[2].sh_size = 12; /* the name is not terminated */
  ck_assert(!kernel_object_check(neon, &file, sizeof file, message, sizeof message));
  ck_assert_str_eq(message, "the symbols are cut off");
}
END_TEST

static void setup(void) {
  sf_context_options made;
  SF_INIT(&made);
  made.cache_dir = folder;
  ck_assert_int_eq(sf_context_create(&made, &context), SF_OK);
  SF_INIT(&options);
  options.isa = SF_ISA_NEON;
  options.flags = SF_COMPILE_CACHE_ONLY;
}
static void teardown(void) {
  sf_context_release(context);
}

int main(void) {
  if (!mkdtemp(folder)) {
    perror(folder);
    return 1;
  }
  Suite *s = suite_create("neon");
  TCase *c = tcase_create("all");
  tcase_add_checked_fixture(c, setup, teardown);
  tcase_add_test(c, objects_for_aarch64);
  tcase_add_test(c, assembly_for_aarch64);
  tcase_add_test(c, objects_that_are_wrong);
  tcase_add_test(c, objects_that_need_others);
  tcase_set_timeout(c, 300);
  suite_add_tcase(s, c);
  int failed = run_suite(s);
  remove_tree(folder);
  return failed;
}
