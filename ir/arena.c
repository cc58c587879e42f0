/* Allocation: the default allocator, checked wrappers of the host's, growing arrays, arenas, blobs.
 * Every failure is a NULL or false that the caller turns into SF_STATUS_OUT_OF_MEMORY; nothing is half done then. */
#include "base.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ALIGNMENT = 64, ARENA_ALIGNMENT = 16, ARENA_FIRST = 4096, ARENA_LARGEST = 1 << 20, HUGE_PAGE = 2 << 20 };

/* Large blocks begin on huge pages, where the system has them: they are filled at once, and a fault for every 4 KiB takes longer than
 * what is written there. The rest behind the last whole one stays on small pages. */
static void *default_allocate(void *user, size_t bytes, size_t alignment) {
  (void)user;
  void *memory;
  if (bytes > PTRDIFF_MAX) return NULL; /* sanitizers end the program over it */
  const size_t whole = bytes / HUGE_PAGE * HUGE_PAGE;
  if (posix_memalign(&memory, whole ? HUGE_PAGE : alignment, bytes) != 0) return NULL;
#ifdef MADV_HUGEPAGE
  if (whole) (void)madvise(memory, whole, MADV_HUGEPAGE);
#endif
  return memory;
}

static void default_release(void *user, void *memory, size_t bytes) {
  (void)user;
  (void)bytes;
  free(memory);
}

const sf_allocator sfi_default_allocator = {NULL, default_allocate, default_release};

/* A host's allocator may answer NULL to 0 bytes, which would look like a failure: it is never asked for none. */
static size_t asked(size_t bytes) {
  return bytes ? bytes : 1;
}

void *sfi_alloc(const sf_allocator *a, size_t bytes) {
  return a->allocate(a->user, asked(bytes), ALIGNMENT);
}

/* On small pages, even where the system gives everybody huge ones, or these pages were some before. */
void *sfi_alloc_room(const sf_allocator *a, size_t bytes) {
  void *memory;
  if (a->allocate != default_allocate) return sfi_alloc(a, bytes);
  if (bytes > PTRDIFF_MAX || posix_memalign(&memory, ALIGNMENT, asked(bytes)) != 0) return NULL;
#ifdef MADV_NOHUGEPAGE
  const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = ((uintptr_t)memory + page - 1) / page * page;
  const uintptr_t end = ((uintptr_t)memory + bytes) / page * page;
  if (begin < end) (void)madvise((void *)begin, end - begin, MADV_NOHUGEPAGE);
#endif
  return memory;
}

void *sfi_calloc(const sf_allocator *a, size_t count, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) return NULL;
  void *memory = sfi_alloc(a, bytes);
  if (memory) memset(memory, 0, bytes);
  return memory;
}

void sfi_free(const sf_allocator *a, void *memory, size_t bytes) {
  if (memory) a->release(a->user, memory, asked(bytes));
}

bool sfi_grow(const sf_allocator *a, void **items, size_t *capacity, size_t size, size_t need) {
  if (need <= *capacity) return true;
  size_t wanted = *capacity > SIZE_MAX / 2 ? need : *capacity * 2;
  if (wanted < need) wanted = need;
  if (wanted < 8) wanted = 8;
  size_t bytes;
  if (__builtin_mul_overflow(wanted, size, &bytes)) return false;
  void *memory = sfi_alloc(a, bytes);
  if (!memory) return false;
  if (*items) memcpy(memory, *items, *capacity * size);
  sfi_free(a, *items, *capacity * size);
  *items = memory;
  *capacity = wanted;
  return true;
}

/* ---- arena -------------------------------------------------------------------------------------------------------- */

/* The header fills one alignment unit, so that the first allocation of a block is 64-byte aligned: weights start there. */
struct sfi_arena_block {
  struct sfi_arena_block *next;
  size_t size, used; /* of the whole block, header included */
  char unused[ALIGNMENT - 3 * sizeof(size_t)];
};
_Static_assert(sizeof(struct sfi_arena_block) == ALIGNMENT, "the header keeps the alignment");

static void *arena_take(sfi_arena *arena, size_t bytes) {
  if (bytes > SIZE_MAX / 2) return NULL;
  size_t need = asked((bytes + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT) * ARENA_ALIGNMENT;
  struct sfi_arena_block *block = arena->blocks;
  if (!block || block->size - block->used < need) {
    size_t size = block ? block->size * 2 : ARENA_FIRST;
    if (size > ARENA_LARGEST) size = ARENA_LARGEST;
    if (size < need + sizeof *block) size = need + sizeof *block;
    struct sfi_arena_block *fresh = sfi_alloc(arena->allocator, size);
    if (!fresh) return NULL;
    fresh->size = size;
    fresh->used = sizeof *fresh;
    fresh->next = block;
    arena->blocks = fresh;
    block = fresh;
  }
  void *memory = (char *)block + block->used;
  block->used += need;
  return memory;
}

void *sfi_arena_alloc(sfi_arena *arena, size_t bytes) {
  void *memory = arena_take(arena, bytes);
  if (memory) memset(memory, 0, bytes);
  return memory;
}

void *sfi_arena_copy(sfi_arena *arena, const void *data, size_t bytes) {
  void *memory = arena_take(arena, bytes);
  if (memory && bytes) memcpy(memory, data, bytes);
  return memory;
}

char *sfi_arena_strndup(sfi_arena *arena, const char *text, size_t length) {
  char *copy = length < SIZE_MAX ? arena_take(arena, length + 1) : NULL;
  if (!copy) return NULL;
  if (length) memcpy(copy, text, length);
  copy[length] = 0;
  return copy;
}

char *sfi_arena_printf(sfi_arena *arena, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(NULL, 0, format, arguments);
  va_end(arguments);
  char *text = length < 0 ? NULL : arena_take(arena, (size_t)length + 1);
  if (!text) return NULL;
  va_start(arguments, format);
  vsnprintf(text, (size_t)length + 1, format, arguments);
  va_end(arguments);
  return text;
}

void sfi_arena_deinit(sfi_arena *arena) {
  for (struct sfi_arena_block *block = arena->blocks, *next; block; block = next) {
    next = block->next;
    sfi_free(arena->allocator, block, block->size);
  }
  arena->blocks = NULL;
}

/* ---- blob --------------------------------------------------------------------------------------------------------- */

bool sfi_blob_alloc(sfi_blob *blob, const sf_allocator *a, size_t size) {
  uint8_t *data = sfi_alloc(a, size);
  *blob = (sfi_blob){data ? a : NULL, data, data ? size : 0};
  return data != NULL;
}

bool sfi_blob_init(sfi_blob *blob, const sf_allocator *a, size_t size) {
  if (!sfi_blob_alloc(blob, a, size)) return false;
  memset(blob->data, 0, size);
  return true;
}

void sfi_blob_deinit(sfi_blob *blob) {
  if (blob->data) sfi_free(blob->allocator, blob->data, blob->size);
  *blob = (sfi_blob){0};
}
