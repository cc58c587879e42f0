/* See kernel_store.h. */
#include "kernel_store.h"
#include "cpu.h"

#include <check.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>

void kernel_store_init(kernel_store *store, const sfi_target *target) {
  sfi_diag diag = {0};
  *store = (kernel_store){.target = target};
  if (sfi_target_runs(target->isa))
    ck_assert_int_eq(sfi_cpu_backend.loader_create(&sfi_default_allocator, &diag, &store->loader), SF_OK);
}

void kernel_store_deinit(kernel_store *store) {
  for (int32_t i = 0; i < store->n; i++) {
    sfi_text_deinit(&store->kernels[i].key);
    sfi_blob_deinit(&store->kernels[i].object);
    if (store->loader) sfi_cpu_backend.unload(store->loader, store->kernels[i].code);
  }
  if (store->loader) sfi_cpu_backend.loader_destroy(store->loader);
  free(store->kernels);
  free(store->fns);
  *store = (kernel_store){0};
}

int32_t kernel_store_add(kernel_store *store, const sfi_plan *plan, const sfi_kernel *kernel) {
  stored_kernel made = {.key.allocator = &sfi_default_allocator};
  sfi_diag diag = {0};
  char message[256];
  sfi_kernel_key(plan, kernel, &made.key);
  ck_assert(!made.key.failed);
  for (int32_t i = 0; i < store->n; i++) {
    const sfi_text *key = &store->kernels[i].key;
    if (key->length != made.key.length || memcmp(key->data, made.key.data, key->length) != 0) continue;
    sfi_text_deinit(&made.key);
    return i;
  }
  ck_assert_msg(sfi_cpu_backend.compile(plan, kernel, SFI_FORMAT_OBJECT, &sfi_default_allocator, &diag, &made.object) == SF_OK,
                "%s on %s, by %s: %s", kernel->name, store->target->name, kernel->emitter->name, diag.error.message);
  ck_assert_msg(kernel_object_check(store->target, made.object.data, made.object.size, message, sizeof message),
                "%s on %s, by %s: %s", kernel->name, store->target->name, kernel->emitter->name, message);
  if (store->n == store->capacity) {
    store->capacity = store->capacity ? 2 * store->capacity : 64;
    store->kernels = realloc(store->kernels, (size_t)store->capacity * sizeof *store->kernels);
    store->fns = realloc(store->fns, (size_t)store->capacity * sizeof *store->fns);
    ck_assert(store->kernels && store->fns);
  }
  store->fns[store->n] = NULL;
  if (store->loader)
    ck_assert_msg(
        sfi_cpu_backend.load(store->loader, made.object.data, made.object.size, &diag, &store->fns[store->n], &made.code) == SF_OK,
        "%s on %s: %s", kernel->name, store->target->name, diag.error.message);
  store->kernels[store->n] = made;
  return store->n++;
}

/* ---- objects ------------------------------------------------------------------------------------------------------ */

typedef struct elf {
  const unsigned char *bytes;
  size_t size;
  Elf64_Ehdr header;
} elf;

static bool read_at(const elf *e, uint64_t offset, void *out, size_t bytes) {
  if (offset > e->size || bytes > e->size - offset) return false;
  memcpy(out, e->bytes + offset, bytes);
  return true;
}

static bool section_at(const elf *e, uint64_t index, Elf64_Shdr *out) {
  return index < e->header.e_shnum && read_at(e, e->header.e_shoff + index * sizeof *out, out, sizeof *out);
}

static bool string_at(const elf *e, const Elf64_Shdr *table, uint64_t at, const char **out) {
  if (at >= table->sh_size || table->sh_offset > e->size || table->sh_size > e->size - table->sh_offset) return false;
  *out = (const char *)e->bytes + table->sh_offset + at;
  return memchr(*out, 0, table->sh_size - at) != NULL;
}

static bool check_symbols(const elf *e, const Elf64_Shdr *symbols, bool *out_found, char *message, size_t size) {
  Elf64_Shdr names;
  if (!section_at(e, symbols->sh_link, &names)) return snprintf(message, size, "no names of symbols"), false;
  for (uint64_t i = 1; i < symbols->sh_size / sizeof(Elf64_Sym); i++) { /* 0 is none */
    Elf64_Sym symbol;
    const char *name;
    if (!read_at(e, symbols->sh_offset + i * sizeof symbol, &symbol, sizeof symbol) || !string_at(e, &names, symbol.st_name, &name))
      return snprintf(message, size, "the symbols are cut off"), false;
    if (symbol.st_shndx == SHN_UNDEF) return snprintf(message, size, "needs %s", name), false;
    if (ELF64_ST_BIND(symbol.st_info) == STB_LOCAL) continue;
    if (strcmp(name, SFI_KERNEL_SYMBOL) != 0) return snprintf(message, size, "defines %s as well", name), false;
    if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC) return snprintf(message, size, "%s is no function", name), false;
    *out_found = true;
  }
  return true;
}

bool kernel_object_check(const sfi_target *target, const void *object, size_t bytes, char *message, size_t size) {
  elf e = {.bytes = object, .size = bytes};
  uint16_t machine = target->isa == SF_ISA_NEON ? EM_AARCH64 : EM_X86_64;
  bool found = false;
  if (!read_at(&e, 0, &e.header, sizeof e.header) || memcmp(e.header.e_ident, ELFMAG, SELFMAG) != 0 ||
      e.header.e_ident[EI_CLASS] != ELFCLASS64 || e.header.e_type != ET_REL)
    return snprintf(message, size, "no ELF object"), false;
  if (e.header.e_machine != machine) return snprintf(message, size, "for machine %d, not %d", e.header.e_machine, machine), false;
  for (uint16_t i = 0; i < e.header.e_shnum; i++) {
    Elf64_Shdr section;
    if (!section_at(&e, i, &section)) return snprintf(message, size, "the sections are cut off"), false;
    if (section.sh_type == SHT_SYMTAB && !check_symbols(&e, &section, &found, message, size)) return false;
  }
  if (!found) snprintf(message, size, "does not define " SFI_KERNEL_SYMBOL);
  return found;
}

bool kernel_object_write(const sfi_blob *object, int32_t number, const char *path) {
  static const char old[] = SFI_KERNEL_SYMBOL;
  char name[16];
  _Static_assert(sizeof old == 10, "a name of nine characters in its place");
  snprintf(name, sizeof name, "k%08d", number);
  unsigned char *copy = malloc(object->size);
  FILE *file = copy ? fopen(path, "wb") : NULL;
  bool good = file != NULL;
  if (good) {
    memcpy(copy, object->data, object->size);
    for (size_t i = 0; i + sizeof old <= object->size; i++)
      if (memcmp(copy + i, old, sizeof old) == 0) memcpy(copy + i, name, sizeof old);
    good = fwrite(copy, 1, object->size, file) == object->size;
    good = fclose(file) == 0 && good;
  }
  free(copy);
  return good;
}
