/* Objects placed without a linker: one that reads a constant of another section runs; whatever byte of it changes and wherever it is cut, it is
 * refused or placed, and nothing beside its memory is touched. */
#include "cpu_place.h"
#include "suite.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

#ifdef __x86_64__

enum { NUMBER = 4242, TEXT = 1, RODATA, RELA, SYMTAB, STRTAB, SECTIONS };

/* mov eax, [rip + number]; mov rcx, [rdi]; mov rcx, [rcx]; mov [rcx], eax; ret: the number goes to operand 0. */
static const uint8_t code[] = {0x8b, 0x05, 0, 0, 0, 0, 0x48, 0x8b, 0x0f, 0x48, 0x8b, 0x09, 0x89, 0x01, 0xc3};

typedef struct file {
  Elf64_Ehdr head;
  Elf64_Shdr sections[SECTIONS];
  uint8_t text[sizeof code + 1];
  uint32_t rodata[2];
  Elf64_Rela rela[1];
  Elf64_Sym symbols[3];
  char strings[16];
} file;

#define SECTION(kind, attributes, member, alignment)                                                                               \
  (Elf64_Shdr) {                                                                                                                   \
    .sh_type = kind, .sh_flags = attributes, .sh_offset = offsetof(file, member), .sh_size = sizeof(((file *)0)->member),          \
    .sh_addralign = alignment                                                                                                      \
  }

static file make(void) {
  file f = {.head = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                     .e_type = ET_REL,
                     .e_machine = EM_X86_64,
                     .e_shoff = offsetof(file, sections),
                     .e_shentsize = sizeof(Elf64_Shdr),
                     .e_shnum = SECTIONS},
            .rodata = {0, NUMBER}};
  f.sections[TEXT] = SECTION(SHT_PROGBITS, SHF_ALLOC | SHF_EXECINSTR, text, 16);
  f.sections[RODATA] = SECTION(SHT_PROGBITS, SHF_ALLOC, rodata, 64);
  f.sections[RELA] = SECTION(SHT_RELA, 0, rela, 8);
  f.sections[RELA].sh_info = TEXT;
  f.sections[RELA].sh_link = SYMTAB;
  f.sections[SYMTAB] = SECTION(SHT_SYMTAB, 0, symbols, 8);
  f.sections[SYMTAB].sh_link = STRTAB;
  f.sections[STRTAB] = SECTION(SHT_STRTAB, 0, strings, 1);
  memcpy(f.text, code, sizeof code);
  f.rela[0] = (Elf64_Rela){.r_offset = 2, .r_info = ELF64_R_INFO(1, R_X86_64_PC32), .r_addend = 4 - 4}; /* the second number */
  f.symbols[1] = (Elf64_Sym){.st_shndx = RODATA};
  f.symbols[2] = (Elf64_Sym){.st_name = 1, .st_shndx = TEXT};
  memcpy(f.strings + 1, SFI_KERNEL_SYMBOL, sizeof SFI_KERNEL_SYMBOL);
  return f;
}

START_TEST(an_object_is_placed_and_runs) {
  const file f = make();
  sfi_placed placed;
  ck_assert(sfi_cpu_place(&f, sizeof f, &placed));
  int32_t out = 0;
  void *operands[] = {&out};
  placed.fn(&(const sf_kernel_args){operands, 1}, 0, 1);
  ck_assert_int_eq(out, NUMBER);
  sfi_cpu_displace(&placed);
  ck_assert_ptr_null(placed.memory);
}
END_TEST

/* In memory of exactly its length, so that the sanitizers see a read past it. */
static void try(const file *f, size_t size) {
  uint8_t *bytes = malloc(size ? size : 1);
  sfi_placed placed;
  memcpy(bytes, f, size);
  if (sfi_cpu_place(bytes, size, &placed)) {
    ck_assert((uintptr_t)placed.fn >= (uintptr_t)placed.memory && (uintptr_t)placed.fn <= (uintptr_t)placed.memory + placed.bytes);
    sfi_cpu_displace(&placed);
  }
  free(bytes);
}

START_TEST(whatever_changes_is_survived) {
  const file good = make();
  for (size_t i = 0; i < sizeof good; i++) {
    for (int value = 0; value < 256; value += 17) {
      file f = good;
      ((uint8_t *)&f)[i] = (uint8_t)value;
      try(&f, sizeof f);
    }
    try(&good, i);
  }
}
END_TEST

START_TEST(what_needs_a_linker_is_left_to_it) {
  sfi_placed placed;
  file f = make();
  f.rela[0].r_info = ELF64_R_INFO(1, R_X86_64_GOTPCREL);
  ck_assert(!sfi_cpu_place(&f, sizeof f, &placed));
  f = make();
  f.symbols[1].st_shndx = SHN_UNDEF;
  ck_assert(!sfi_cpu_place(&f, sizeof f, &placed));
  f = make();
  f.sections[RODATA].sh_flags |= SHF_WRITE;
  ck_assert(!sfi_cpu_place(&f, sizeof f, &placed));
  f = make();
  f.head.e_machine = EM_AARCH64;
  ck_assert(!sfi_cpu_place(&f, sizeof f, &placed));
  f = make();
  f.strings[1] = 'x';
  ck_assert(!sfi_cpu_place(&f, sizeof f, &placed));
}
END_TEST

#endif

int main(void) {
  Suite *suite = suite_create("place");
  TCase *tests = tcase_create("objects");
  tcase_set_timeout(tests, 60);
#ifdef __x86_64__
  tcase_add_test(tests, an_object_is_placed_and_runs);
  tcase_add_test(tests, whatever_changes_is_survived);
  tcase_add_test(tests, what_needs_a_linker_is_left_to_it);
#endif
  suite_add_tcase(suite, tests);
  return run_suite(suite);
}
