/* What a context links or packs once: a table by full key, reference counted, so that programs and specialisations that need the same
 * kernel or packed weight share it. Nothing stays here that no program uses: the cache keeps the bytes. Thread-safe. */
#include "jit.h"

enum { BUCKETS_FIRST = 64 };

static sfi_shared **bucket_of(const sfi_shared_table *table, sfi_digest digest) {
  uint64_t hash;
  memcpy(&hash, digest.bytes, sizeof hash);
  return &table->buckets[hash & (table->n_buckets - 1)];
}

static sfi_shared *find_locked(const sfi_shared_table *table, sfi_entry_kind kind, sfi_digest digest, const char *key,
                               size_t key_size) {
  if (!table->n_buckets) return NULL;
  for (sfi_shared *s = *bucket_of(table, digest); s; s = s->next) {
    if (s->kind == kind && s->key_size == key_size && memcmp(s->key, key, key_size) == 0) return s;
  }
  return NULL;
}

static bool grow_locked(sf_context *context, sfi_shared_table *table) {
  if (table->n < table->n_buckets) return true;
  sfi_shared_table grown = {.n_buckets = table->n_buckets ? table->n_buckets * 2 : BUCKETS_FIRST, .n = table->n};
  grown.buckets = sfi_calloc(&context->allocator, grown.n_buckets, sizeof *grown.buckets);
  if (!grown.buckets) return table->n_buckets > 0; /* a crowded table still works */
  for (size_t i = 0; i < table->n_buckets; i++) {
    for (sfi_shared *s = table->buckets[i], *next; s; s = next) {
      next = s->next;
      sfi_shared **bucket = bucket_of(&grown, s->digest);
      s->next = *bucket;
      *bucket = s;
    }
  }
  sfi_free(&context->allocator, table->buckets, table->n_buckets * sizeof *table->buckets);
  *table = grown;
  return true;
}

static void destroy(sf_context *context, sfi_shared *shared) {
  if (!shared) return;
  if (shared->code) shared->backend->unload(context->jit->loader, shared->code);
  sfi_blob_deinit(&shared->packed);
  sfi_free(&context->allocator, shared->key, shared->key_size);
  sfi_free(&context->allocator, shared, sizeof *shared);
}

static sfi_shared *create(sf_context *context, sfi_entry_kind kind, sfi_digest digest, const char *key, size_t key_size) {
  sfi_shared *shared = sfi_calloc(&context->allocator, 1, sizeof *shared);
  if (!shared) return NULL;
  shared->references = 1;
  shared->kind = kind;
  shared->digest = digest;
  shared->key_size = key_size;
  shared->key = sfi_alloc(&context->allocator, key_size);
  if (!shared->key) {
    sfi_free(&context->allocator, shared, sizeof *shared);
    return NULL;
  }
  memcpy(shared->key, key, key_size);
  return shared;
}

/* Publishes `fresh`, or gives it up for what another thread published meanwhile. */
static sf_status publish(sf_context *context, sfi_shared *fresh, sfi_diag *diag, sfi_shared **out_shared) {
  sfi_shared_table *table = &context->jit->table;
  pthread_mutex_lock(&context->jit->lock);
  sfi_shared *there = find_locked(table, fresh->kind, fresh->digest, fresh->key, fresh->key_size);
  bool room = there || grow_locked(context, table);
  if (there) {
    there->references++;
  } else if (room) {
    sfi_shared **bucket = bucket_of(table, fresh->digest);
    fresh->next = *bucket;
    *bucket = fresh;
    table->n++;
  }
  pthread_mutex_unlock(&context->jit->lock);
  if (there || !room) destroy(context, fresh);
  if (!room) return sfi_fail_memory(diag);
  *out_shared = there ? there : fresh;
  return SF_OK;
}

sfi_shared *sfi_shared_find(sf_context *context, sfi_entry_kind kind, sfi_digest digest, const char *key, size_t key_size) {
  pthread_mutex_lock(&context->jit->lock);
  sfi_shared *shared = find_locked(&context->jit->table, kind, digest, key, key_size);
  if (shared) shared->references++;
  pthread_mutex_unlock(&context->jit->lock);
  return shared;
}

/* The loader is made by the first link. A machine has one back end that makes code for it, so one loader is enough. */
static sf_status loader_of(sf_context *context, const sfi_backend *backend, sfi_diag *diag, sfi_loader **out_loader) {
  sf_status status = SF_OK;
  pthread_mutex_lock(&context->jit->lock);
  if (!context->jit->loader) {
    status = backend->loader_create(&context->allocator, diag, &context->jit->loader);
    context->jit->backend = backend;
  }
  assert(context->jit->backend == backend);
  *out_loader = context->jit->loader;
  pthread_mutex_unlock(&context->jit->lock);
  return status;
}

sf_status sfi_shared_link(sf_context *context, const sfi_backend *backend, sfi_digest digest, const char *key, size_t key_size,
                          const sfi_blob *object, sfi_diag *diag, sfi_shared **out_shared) {
  *out_shared = NULL;
  sfi_loader *loader;
  sf_status status = loader_of(context, backend, diag, &loader);
  if (status != SF_OK) return status;
  sfi_shared *fresh = create(context, SFI_ENTRY_OBJECT, digest, key, key_size);
  if (!fresh) return sfi_fail_memory(diag);
  fresh->backend = backend;
  fresh->code_bytes = object->size;
  if ((status = backend->load(loader, object->data, object->size, diag, &fresh->fn, &fresh->code)) != SF_OK) {
    destroy(context, fresh);
    return status;
  }
  return publish(context, fresh, diag, out_shared);
}

sf_status sfi_shared_pack(sf_context *context, sfi_digest digest, const char *key, size_t key_size, sfi_blob *packed,
                          sfi_diag *diag, sfi_shared **out_shared) {
  *out_shared = NULL;
  sfi_shared *fresh = create(context, SFI_ENTRY_PACKED, digest, key, key_size);
  if (!fresh) return sfi_fail_memory(diag);
  fresh->packed = *packed;
  *packed = (sfi_blob){0};
  return publish(context, fresh, diag, out_shared);
}

void sfi_shared_release(sf_context *context, sfi_shared *shared) {
  if (!shared) return;
  pthread_mutex_lock(&context->jit->lock);
  bool last = --shared->references == 0;
  if (last) {
    sfi_shared **link = bucket_of(&context->jit->table, shared->digest);
    while (*link != shared) link = &(*link)->next;
    *link = shared->next;
    context->jit->table.n--;
  }
  pthread_mutex_unlock(&context->jit->lock);
  if (last) destroy(context, shared);
}

void sfi_shared_deinit(sf_context *context) {
  struct sfi_jit *jit = context->jit;
  assert(jit->table.n == 0);
  sfi_free(&context->allocator, jit->table.buckets, jit->table.n_buckets * sizeof *jit->table.buckets);
  if (jit->loader) jit->backend->loader_destroy(jit->loader);
}
