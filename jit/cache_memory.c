/* The memory level of the kernel cache: copies of payloads by key, least recently used first out.
 *
 * One lock, held over lookups and copies and never over input or output. A failed allocation leaves an entry out. */
#include "cache_levels.h"

/* Owns its key's strings and its payload: they follow it in one allocation. */
struct sfi_memory_node {
  struct sfi_memory_node *newer, *older; /* by last use */
  struct sfi_memory_node *next;          /* in the bucket */
  sfi_digest id;
  sfi_cache_key key;
  const uint8_t *payload;
  size_t size;  /* of the payload */
  size_t bytes; /* of the allocation */
};
typedef struct sfi_memory_node node;

bool sfi_memory_init(sfi_memory *memory, const sf_allocator *allocator, uint64_t max_bytes) {
  memset(memory, 0, sizeof *memory);
  memory->allocator = allocator;
  memory->max_bytes = max_bytes;
  return pthread_mutex_init(&memory->lock, NULL) == 0;
}

static node **bucket_of(sfi_memory *memory, sfi_digest id) {
  return &memory->buckets[(id.bytes[0] | id.bytes[1] << 8) % SFI_MEMORY_BUCKETS];
}

/* The link that holds the node of `id`, or the NULL at the end of its bucket. */
static node **find(sfi_memory *memory, sfi_digest id) {
  node **link = bucket_of(memory, id);
  while (*link && memcmp((*link)->id.bytes, id.bytes, sizeof id.bytes) != 0) link = &(*link)->next;
  return link;
}

static void unlink_use(sfi_memory *memory, node *n) {
  *(n->newer ? &n->newer->older : &memory->newest) = n->older;
  *(n->older ? &n->older->newer : &memory->oldest) = n->newer;
}

static void link_newest(sfi_memory *memory, node *n) {
  n->newer = NULL;
  n->older = memory->newest;
  *(memory->newest ? &memory->newest->newer : &memory->oldest) = n;
  memory->newest = n;
}

static void drop(sfi_memory *memory, node **link) {
  node *n = *link;
  *link = n->next;
  unlink_use(memory, n);
  memory->bytes -= n->bytes;
  sfi_free(memory->allocator, n, n->bytes);
}

void sfi_memory_deinit(sfi_memory *memory) {
  while (memory->oldest) drop(memory, find(memory, memory->oldest->id));
  pthread_mutex_destroy(&memory->lock);
}

static bool same_key(const sfi_cache_key *a, const sfi_cache_key *b) {
  return a->kind == b->kind && a->size == b->size && (a->size == 0 || memcmp(a->bytes, b->bytes, a->size) == 0) &&
         strcmp(a->target, b->target) == 0 && strcmp(a->features, b->features) == 0 && strcmp(a->compiler, b->compiler) == 0;
}

bool sfi_memory_get(sfi_memory *memory, sfi_digest id, const sfi_cache_key *key, sfi_blob *out_blob) {
  pthread_mutex_lock(&memory->lock);
  node *n = *find(memory, id);
  bool hit = n && same_key(&n->key, key) && sfi_blob_init(out_blob, memory->allocator, n->size);
  if (hit) {
    if (n->size) memcpy(out_blob->data, n->payload, n->size);
    unlink_use(memory, n);
    link_newest(memory, n);
  }
  pthread_mutex_unlock(&memory->lock);
  return hit;
}

static const void *append(uint8_t **cursor, const void *data, size_t size) {
  void *copy = *cursor;
  if (size) memcpy(copy, data, size);
  *cursor += size;
  return copy;
}

static node *node_create(const sf_allocator *allocator, sfi_digest id, const sfi_cache_key *key, const void *payload, size_t size) {
  const size_t target = strlen(key->target) + 1, features = strlen(key->features) + 1, compiler = strlen(key->compiler) + 1;
  size_t bytes = sizeof(node) + target + features + compiler;
  if (__builtin_add_overflow(bytes, key->size, &bytes) || __builtin_add_overflow(bytes, size, &bytes)) return NULL;
  node *n = sfi_alloc(allocator, bytes);
  if (!n) return NULL;
  uint8_t *cursor = (uint8_t *)(n + 1);
  *n = (node){.id = id, .key = *key, .size = size, .bytes = bytes};
  n->key.target = append(&cursor, key->target, target);
  n->key.features = append(&cursor, key->features, features);
  n->key.compiler = append(&cursor, key->compiler, compiler);
  n->key.bytes = append(&cursor, key->bytes, key->size);
  n->payload = append(&cursor, payload, size);
  return n;
}

void sfi_memory_put(sfi_memory *memory, sfi_digest id, const sfi_cache_key *key, const void *payload, size_t size) {
  if (size > memory->max_bytes) return;
  node *n = node_create(memory->allocator, id, key, payload, size);
  if (!n) return;
  if (n->bytes > memory->max_bytes) { /* would push out all others */
    sfi_free(memory->allocator, n, n->bytes);
    return;
  }
  pthread_mutex_lock(&memory->lock);
  node **same = find(memory, id);
  if (*same) drop(memory, same);
  node **bucket = bucket_of(memory, id);
  n->next = *bucket;
  *bucket = n;
  link_newest(memory, n);
  memory->bytes += n->bytes;
  while (memory->bytes > memory->max_bytes) drop(memory, find(memory, memory->oldest->id));
  pthread_mutex_unlock(&memory->lock);
}
