/* Facts about zeros, and classes of the symbolic dimension, as one phrase each. */
#include "facts_text.h"

void sfi_facts_print(sfi_text *out, const sfi_facts *f) {
  sfi_text_printf(out, "%lld x %lld, %.1f %% nonzero", (long long)f->rows, (long long)f->columns, 100 * sfi_density(f));
  if (f->nonzeros == f->rows * f->columns || f->nonzeros == 0) return; /* the rest says nothing more */
  sfi_text_printf(out, ", %lld to %lld a row", (long long)f->row_min, (long long)f->row_max);
  if (f->along_columns.n < f->along_columns.m) {
    sfi_text_printf(out, ", %d:%d along columns", f->along_columns.n, f->along_columns.m);
  }
  if (f->along_rows.n < f->along_rows.m) sfi_text_printf(out, ", %d:%d along rows", f->along_rows.n, f->along_rows.m);
  if (f->block_rows * f->block_columns > 1) sfi_text_printf(out, ", blocks %d x %d", f->block_rows, f->block_columns);
  if (f->dead_rows || f->dead_columns) {
    sfi_text_printf(out, ", dead %lld rows %lld columns", (long long)f->dead_rows, (long long)f->dead_columns);
  }
}

void sfi_class_print(sfi_text *out, const sfi_plan *plan) {
  if (plan->symbol_max == INT64_MAX) {
    sfi_text_printf(out, "%lld and above", (long long)plan->symbol_min);
  } else if (plan->symbol_min == plan->symbol_max) {
    sfi_text_printf(out, "%lld", (long long)plan->symbol_min);
  } else {
    sfi_text_printf(out, "%lld to %lld", (long long)plan->symbol_min, (long long)plan->symbol_max);
  }
}
