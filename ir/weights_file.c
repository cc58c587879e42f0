/* Opens safetensors files. Everything in a file is taken for hostile: every number is checked before it is used, and what is allocated
 * is bounded by the size of the file. The file is read, not mapped: one that is cut while mapped would kill the host. */
#include "weights_file.h"

#include "input_file.h"
#include "source.h"
#include "weights_header.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensors are used as they stand in the file, which is little-endian"
#endif

enum { LENGTH_BYTES = 8, HEADER_LONGEST = 100 << 20 };

struct sfi_mapping {
  atomic_int references;
  sfi_arena arena;           /* names, and bytes of small tensors */
  int fd;                    /* -1: the bytes are borrowed */
  sfi_stamp opened;          /* of its file */
  sfi_tensor_entry *entries; /* ascending by name */
  size_t count;
  sfi_source *sources; /* one a large tensor */
  size_t n_sources, sources_capacity;
};

#define MALFORMED(diag, in, tensor, ...) sfi_fail(diag, SF_STATUS_MALFORMED_FILE, &(sfi_place){.file = in}, tensor, __VA_ARGS__)

static int by_begin(const void *a, const void *b) {
  const sfi_tensor_record *x = a, *y = b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  return x->end < y->end ? -1 : x->end > y->end;
}

static int by_name(const void *a, const void *b) {
  return strcmp(((const sfi_tensor_record *)a)->entry.name, ((const sfi_tensor_record *)b)->entry.name);
}

/* Every range inside the data, none over another, every name once. Sorts by name. */
static sf_status check_records(sfi_tensor_record *records, size_t count, size_t data_bytes, const char *file, sfi_diag *diag) {
  if (count) qsort(records, count, sizeof *records, by_begin);
  const sfi_tensor_record *before = NULL; /* the last one with bytes */
  for (size_t i = 0; i < count; i++) {
    const sfi_tensor_record *record = &records[i];
    const char *name = record->entry.name;
    if ((uint64_t)record->end > data_bytes) {
      return MALFORMED(diag, file, name, "its bytes, up to %lld, leave the file's %zu of data", (long long)record->end, data_bytes);
    }
    if (record->begin == record->end) continue;
    if (before && record->begin < before->end)
      return MALFORMED(diag, file, name, "its bytes overlap those of \"%.64s\"", before->entry.name);
    before = record;
  }
  if (count) qsort(records, count, sizeof *records, by_name);
  for (size_t i = 1; i < count; i++) {
    if (by_name(&records[i - 1], &records[i]) == 0)
      return MALFORMED(diag, file, records[i].entry.name, "the name stands there twice");
  }
  return SF_OK;
}

/* The header into the mapping's table. *out_records: as many as entries, for the places of their bytes; freed by the caller. */
static sf_status read_table(sfi_mapping *m, const char *header, size_t header_bytes, size_t data_bytes, const char *file,
                            sfi_diag *diag, sfi_tensor_record **out_records, size_t *out_capacity) {
  sfi_tensor_record *records;
  size_t count;
  sf_status st = sfi_weights_header_read(&m->arena, header, header_bytes, file, diag, &records, &count, out_capacity);
  *out_records = records;
  if (st == SF_OK) st = check_records(records, count, data_bytes, file, diag);
  if (st == SF_OK && !(m->entries = sfi_calloc(m->arena.allocator, count, sizeof *m->entries))) st = sfi_fail_memory(diag);
  if (st != SF_OK) return st;
  m->count = count;
  for (size_t i = 0; i < count; i++) m->entries[i] = records[i].entry;
  return SF_OK;
}

static sf_status check_length(const uint8_t bytes[LENGTH_BYTES], size_t file_bytes, const char *file, sfi_diag *diag, size_t *out) {
  uint64_t length = 0;
  for (int i = LENGTH_BYTES; i-- > 0;) length = length << 8 | bytes[i];
  *out = (size_t)length;
  if (length > file_bytes - LENGTH_BYTES) {
    return MALFORMED(diag, file, NULL, "a header of %llu bytes leaves the file of %zu", (unsigned long long)length, file_bytes);
  }
  if (length > HEADER_LONGEST) return MALFORMED(diag, file, NULL, "a header of %zu bytes is longer than %d", *out, HEADER_LONGEST);
  return SF_OK;
}

static sfi_mapping *mapping_new(const sf_allocator *allocator) {
  sfi_mapping *m = sfi_calloc(allocator, 1, sizeof *m);
  if (!m) return NULL;
  atomic_init(&m->references, 1);
  m->arena.allocator = allocator;
  m->fd = -1;
  return m;
}

static sf_status publish(sfi_mapping *m, sf_status st, sfi_mapping **out_mapping) {
  if (st == SF_OK)
    *out_mapping = m;
  else
    sfi_mapping_release(m);
  return st;
}

sf_status sfi_mapping_from_memory(const sf_allocator *allocator, const void *data, size_t size, const char *name, sfi_diag *diag,
                                  sfi_mapping **out_mapping) {
  *out_mapping = NULL;
  const uint8_t *bytes = data;
  size_t header_bytes, capacity = 0;
  sfi_tensor_record *records = NULL;
  if (size < LENGTH_BYTES) return MALFORMED(diag, name, NULL, "%zu bytes are too few for a weight file", size);
  sf_status st = check_length(bytes, size, name, diag, &header_bytes);
  if (st != SF_OK) return st;
  sfi_mapping *m = mapping_new(allocator);
  if (!m) return sfi_fail_memory(diag);
  const size_t before = LENGTH_BYTES + header_bytes;
  st = read_table(m, (const char *)bytes + LENGTH_BYTES, header_bytes, size - before, name, diag, &records, &capacity);
  for (size_t i = 0; i < m->count; i++) m->entries[i].data = bytes + before + records[i].begin;
  sfi_free(allocator, records, capacity * sizeof *records);
  return publish(m, st, out_mapping);
}

/* The bytes of a small tensor, or a source for those of a large one. */
static sf_status place_entry(sfi_mapping *m, sfi_tensor_entry *entry, uint64_t offset, const char *file, sfi_diag *diag) {
  if (entry->bytes < SFI_SOURCE_LEAST) {
    void *data = sfi_arena_alloc(&m->arena, entry->bytes);
    entry->data = data;
    return data ? sfi_input_read_at(m->fd, offset, data, entry->bytes, file, diag) : sfi_fail_memory(diag);
  }
  sfi_source *source = &m->sources[m->n_sources];
  if (!sfi_source_init(source, m->arena.allocator, file, entry->name, m->fd, &m->opened, offset, entry->bytes))
    return sfi_fail_memory(diag);
  m->n_sources++;
  entry->source = source;
  return SF_OK;
}

static sf_status place_entries(sfi_mapping *m, const sfi_tensor_record *records, uint64_t begin, const char *file, sfi_diag *diag) {
  for (size_t i = 0; i < m->count; i++) m->sources_capacity += m->entries[i].bytes >= SFI_SOURCE_LEAST;
  const char *name = sfi_arena_strndup(&m->arena, file, strlen(file));
  m->sources = sfi_calloc(m->arena.allocator, m->sources_capacity, sizeof *m->sources);
  if (!name || !m->sources) return sfi_fail_memory(diag);
  for (size_t i = 0; i < m->count; i++) {
    const sf_status st = place_entry(m, &m->entries[i], begin + (uint64_t)records[i].begin, name, diag);
    if (st != SF_OK) return st;
  }
  return SF_OK;
}

static sf_status read_file(sfi_mapping *m, size_t file_bytes, const char *name, sfi_diag *diag) {
  const sf_allocator *a = m->arena.allocator;
  uint8_t length[LENGTH_BYTES];
  size_t header_bytes, capacity = 0;
  sfi_tensor_record *records = NULL;
  if (file_bytes < LENGTH_BYTES) return MALFORMED(diag, name, NULL, "%zu bytes are too few for a weight file", file_bytes);
  sf_status st = sfi_input_read_at(m->fd, 0, length, sizeof length, name, diag);
  if (st == SF_OK) st = check_length(length, file_bytes, name, diag, &header_bytes);
  if (st != SF_OK) return st;
  const size_t before = LENGTH_BYTES + header_bytes;
  char *header = sfi_alloc(a, header_bytes);
  if (!header) return sfi_fail_memory(diag);
  st = sfi_input_read_at(m->fd, LENGTH_BYTES, header, header_bytes, name, diag);
  if (st == SF_OK) st = read_table(m, header, header_bytes, file_bytes - before, name, diag, &records, &capacity);
  sfi_free(a, header, header_bytes);
  if (st == SF_OK) st = place_entries(m, records, before, name, diag);
  sfi_free(a, records, capacity * sizeof *records);
  return st;
}

sf_status sfi_mapping_open(const sf_allocator *allocator, const char *folder, const char *name, sfi_diag *diag,
                           sfi_mapping **out_mapping) {
  *out_mapping = NULL;
  int fd;
  size_t size;
  sf_status st = sfi_input_open(folder, name, SFI_LINKS_LAST, diag, &fd, &size);
  if (st != SF_OK) return st;
  sfi_mapping *m = mapping_new(allocator);
  if (!m) {
    close(fd);
    return sfi_fail_memory(diag);
  }
  m->fd = fd;
  st = sfi_input_stamp(fd, name, diag, &m->opened);
  st = publish(m, st == SF_OK ? read_file(m, size, name, diag) : st, out_mapping);
  /* Without large tensors all is read. */
  if (st == SF_OK && !m->n_sources) {
    close(fd);
    m->fd = -1;
  }
  return st;
}

void sfi_mapping_retain(sfi_mapping *mapping) {
  atomic_fetch_add(&mapping->references, 1);
}

void sfi_mapping_release(sfi_mapping *mapping) {
  if (!mapping || atomic_fetch_sub(&mapping->references, 1) != 1) return;
  const sf_allocator *a = mapping->arena.allocator;
  for (size_t i = 0; i < mapping->n_sources; i++) sfi_source_deinit(&mapping->sources[i]);
  sfi_free(a, mapping->sources, mapping->sources_capacity * sizeof *mapping->sources);
  if (mapping->fd >= 0) close(mapping->fd);
  sfi_free(a, mapping->entries, mapping->count * sizeof *mapping->entries);
  sfi_arena_deinit(&mapping->arena);
  sfi_free(a, mapping, sizeof *mapping);
}

size_t sfi_mapping_count(const sfi_mapping *mapping) {
  return mapping->count;
}

const sfi_tensor_entry *sfi_mapping_at(const sfi_mapping *mapping, size_t i) {
  return &mapping->entries[i];
}

static int compare_entry(const void *name, const void *entry) {
  return strcmp(name, ((const sfi_tensor_entry *)entry)->name);
}

const sfi_tensor_entry *sfi_mapping_find(const sfi_mapping *mapping, const char *name) {
  return mapping->count ? bsearch(name, mapping->entries, mapping->count, sizeof *mapping->entries, compare_entry) : NULL;
}
