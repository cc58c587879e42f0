/* Places ELF objects for x86-64 that define SFI_KERNEL_SYMBOL, refer to nothing outside of themselves, and ask for the few relocations of
 * code that may stand anywhere. A linker costs as much for such an object as reading and running it, and without one LLVM is not needed
 * where all code comes from the cache. Whatever else an object holds is left to the linker; every number in it is checked. Sections lie
 * one behind the other in memory that is written first and executed then, never both. */
#include "cpu_place.h"

#include <elf.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __x86_64__

enum { SECTIONS_MAX = 32 };

typedef struct object {
  const uint8_t *bytes;
  size_t size, n_sections;
  Elf64_Shdr sections[SECTIONS_MAX];
  uint64_t at[SECTIONS_MAX]; /* of a placed section: its offset in memory */
  uint64_t total;
} object;

static bool has(const object *o, uint64_t offset, uint64_t bytes) {
  return offset <= o->size && bytes <= o->size - offset;
}

/* All that is there at run time but tables for unwinding: a kernel calls nothing that could throw. */
static bool is_placed(const object *o, uint64_t section) {
  return section < o->n_sections && o->sections[section].sh_flags & SHF_ALLOC && o->sections[section].sh_type != SHT_X86_64_UNWIND;
}

static bool read_sections(object *o) {
  Elf64_Ehdr head;
  if (o->size < sizeof head) return false;
  memcpy(&head, o->bytes, sizeof head);
  static const uint8_t wanted[] = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT};
  if (memcmp(head.e_ident, wanted, sizeof wanted) != 0 || head.e_type != ET_REL || head.e_machine != EM_X86_64) return false;
  if (head.e_shentsize != sizeof *o->sections || head.e_shnum == 0 || head.e_shnum > SECTIONS_MAX) return false;
  o->n_sections = head.e_shnum;
  if (!has(o, head.e_shoff, o->n_sections * sizeof *o->sections)) return false;
  memcpy(o->sections, o->bytes + head.e_shoff, o->n_sections * sizeof *o->sections);
  return true;
}

/* Offsets of what the code needs at run time. */
static bool lay_out(object *o) {
  for (size_t i = 0; i < o->n_sections; i++) {
    const Elf64_Shdr *s = &o->sections[i];
    if (!is_placed(o, i)) continue;
    const uint64_t align = s->sh_addralign ? s->sh_addralign : 1;
    if (s->sh_type != SHT_PROGBITS || s->sh_flags & (SHF_WRITE | SHF_TLS) || !has(o, s->sh_offset, s->sh_size)) return false;
    if (align > 4096 || (align & (align - 1)) != 0) return false;
    o->at[i] = (o->total + align - 1) & ~(align - 1);
    o->total = o->at[i] + s->sh_size;
  }
  return o->total > 0;
}

/* Symbol `index` of the table in section `table`, where a placed section defines it: its offset in memory. */
static bool find_symbol(const object *o, uint64_t table, uint64_t index, Elf64_Sym *out_symbol, uint64_t *out_at) {
  if (table >= o->n_sections || o->sections[table].sh_type != SHT_SYMTAB) return false;
  const Elf64_Shdr *s = &o->sections[table];
  if (!has(o, s->sh_offset, s->sh_size) || index >= s->sh_size / sizeof *out_symbol) return false;
  memcpy(out_symbol, o->bytes + s->sh_offset + index * sizeof *out_symbol, sizeof *out_symbol);
  if (!is_placed(o, out_symbol->st_shndx) || out_symbol->st_value > o->sections[out_symbol->st_shndx].sh_size) return false;
  *out_at = o->at[out_symbol->st_shndx] + out_symbol->st_value;
  return true;
}

static bool relocate(const object *o, const Elf64_Shdr *list, uint8_t *memory) {
  if (!is_placed(o, list->sh_info)) return true; /* of what is not needed */
  if (!has(o, list->sh_offset, list->sh_size)) return false;
  for (uint64_t i = 0; i < list->sh_size / sizeof(Elf64_Rela); i++) {
    Elf64_Rela r;
    Elf64_Sym symbol;
    uint64_t target;
    memcpy(&r, o->bytes + list->sh_offset + i * sizeof r, sizeof r);
    if (!find_symbol(o, list->sh_link, ELF64_R_SYM(r.r_info), &symbol, &target)) return false;
    const uint32_t type = ELF64_R_TYPE(r.r_info);
    const uint64_t room = o->sections[list->sh_info].sh_size;
    if (type != R_X86_64_PC32 && type != R_X86_64_PLT32) return false;
    if (room < sizeof(int32_t) || r.r_offset > room - sizeof(int32_t)) return false;
    const uint64_t place = o->at[list->sh_info] + r.r_offset;
    const int64_t distance = (int64_t)(target - place) + (int32_t)r.r_addend;
    if (r.r_addend != (int32_t)r.r_addend || distance != (int32_t)distance) return false;
    const int32_t value = (int32_t)distance;
    memcpy(memory + place, &value, sizeof value);
  }
  return true;
}

/* Where the kernel's symbol leads to. */
static bool find_kernel(const object *o, uint64_t *out_at) {
  for (size_t t = 0; t < o->n_sections; t++) {
    const Elf64_Shdr *table = &o->sections[t];
    if (table->sh_type != SHT_SYMTAB || table->sh_link >= o->n_sections) continue;
    const Elf64_Shdr *names = &o->sections[table->sh_link];
    if (!has(o, table->sh_offset, table->sh_size) || !has(o, names->sh_offset, names->sh_size)) return false;
    for (uint64_t i = 0; i < table->sh_size / sizeof(Elf64_Sym); i++) {
      Elf64_Sym symbol;
      if (!find_symbol(o, t, i, &symbol, out_at)) continue;
      if (symbol.st_name > names->sh_size || names->sh_size - symbol.st_name < sizeof SFI_KERNEL_SYMBOL) continue;
      if (!(o->sections[symbol.st_shndx].sh_flags & SHF_EXECINSTR)) continue;
      if (memcmp(o->bytes + names->sh_offset + symbol.st_name, SFI_KERNEL_SYMBOL, sizeof SFI_KERNEL_SYMBOL) == 0) return true;
    }
  }
  return false;
}

static bool fill(const object *o, uint8_t *memory) {
  for (size_t i = 0; i < o->n_sections; i++)
    if (is_placed(o, i)) memcpy(memory + o->at[i], o->bytes + o->sections[i].sh_offset, o->sections[i].sh_size);
  for (size_t i = 0; i < o->n_sections; i++) {
    if (o->sections[i].sh_type == SHT_REL) return false;
    if (o->sections[i].sh_type == SHT_RELA && !relocate(o, &o->sections[i], memory)) return false;
  }
  return true;
}

bool sfi_cpu_place(const void *bytes, size_t size, sfi_placed *out_placed) {
  object o = {.bytes = bytes, .size = size};
  uint64_t kernel;
  *out_placed = (sfi_placed){0};
  if (!read_sections(&o) || !lay_out(&o) || !find_kernel(&o, &kernel)) return false;
  uint8_t *memory = mmap(NULL, o.total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  if (!fill(&o, memory) || mprotect(memory, o.total, PROT_READ | PROT_EXEC) != 0) {
    munmap(memory, o.total);
    return false;
  }
  *out_placed = (sfi_placed){memory, o.total, (sf_kernel_fn)(uintptr_t)(memory + kernel)};
  return true;
}

#else

bool sfi_cpu_place(const void *bytes, size_t size, sfi_placed *out_placed) {
  (void)bytes, (void)size;
  *out_placed = (sfi_placed){0};
  return false;
}

#endif

void sfi_cpu_displace(sfi_placed *placed) {
  if (placed->memory) munmap(placed->memory, placed->bytes);
  *placed = (sfi_placed){0};
}
