/* The stock of a program: code and packed weights of all its classes. A run uses one class, so packed weights that are in the cache wait
 * there until a run wants their class; it loads them, and runs beside it that want them too wait for that. */
#include "jit.h"
#include "weights_file.h"

sf_status sfi_stock_create(sf_program *program, const sf_graph *graph, const sfi_plan *plans, sfi_units *units, sfi_diag *diag) {
  sfi_stock *stock = sfi_calloc(&program->context->allocator, 1, sizeof *stock);
  if (!stock) return sfi_fail_memory(diag);
  if (pthread_mutex_init(&stock->lock, NULL) != 0) {
    sfi_free(&program->context->allocator, stock, sizeof *stock);
    return sfi_fail_memory(diag);
  }
  stock->settings = *units->settings;
  stock->settings.only = NULL; /* the host's; the choice is made */
  stock->units = *units;
  stock->units.settings = &stock->settings;
  *units = (sfi_units){0};
  bool waiting = false;
  for (size_t i = 0; i < stock->units.n; i++) {
    sfi_unit *unit = &stock->units.units[i];
    unit->plan = &program->classes[unit->plan - plans].plan;
    waiting = waiting || !unit->shared;
  }
  if (waiting) sfi_mapping_retain(stock->weights = graph->mapping);
  program->stock = stock;
  return SF_OK;
}

void sfi_stock_destroy(sf_program *program) {
  sfi_stock *stock = program->stock;
  if (!stock) return;
  sfi_units_deinit(&stock->units);
  sfi_mapping_release(stock->weights);
  pthread_mutex_destroy(&stock->lock);
  sfi_free(&program->context->allocator, stock, sizeof *stock);
}

static sf_status load(sfi_stock *stock, sfi_class *class, const sfi_needs *needs, sfi_diag *diag) {
  const sfi_plan *plan = &class->plan;
  const sf_status status = sfi_units_load(&stock->units, needs, plan->n_kernels, diag);
  if (status != SF_OK) return status;
  for (size_t k = 0; k < plan->n_kernels; k++) {
    if (needs[k].packed < 0) continue;
    const sfi_unit *packed = &stock->units.units[needs[k].packed];
    class->loaded[k].packed = packed->shared;
    class->loaded[k].packed_origin = needs[k].first_packed ? packed->origin : SFI_FROM_MEMORY;
  }
  for (size_t b = 0; b < plan->n_buffers; b++) {
    const sfi_buffer *buffer = &plan->buffers[b];
    if (buffer->kind == SFI_BUFFER_PACKED) class->fixed[b] = class->loaded[buffer->index].packed->packed.data;
  }
  return SF_OK;
}

sf_status sfi_class_load(const sf_program *program, sfi_class *class, sfi_diag *diag) {
  if (atomic_load_explicit(&class->is_loaded, memory_order_acquire)) return SF_OK;
  sfi_stock *stock = program->stock;
  sf_status status = SF_OK;
  pthread_mutex_lock(&stock->lock);
  if (!atomic_load_explicit(&class->is_loaded, memory_order_relaxed)) {
    status = load(stock, class, stock->units.needs[class - program->classes], diag);
    if (status == SF_OK) atomic_store_explicit(&class->is_loaded, true, memory_order_release);
  }
  pthread_mutex_unlock(&stock->lock);
  return status;
}
