/* One element of a tensor as text, for every dtype. */
#ifndef SFI_ELEMENT_H
#define SFI_ELEMENT_H

#include "graph.h"
#include "text_cursor.h"

/* The element at `data`, which need not be aligned; reads back as the same element. A NaN loses its payload. */
void sfi_text_element(sfi_text *text, sf_dtype dtype, const void *data);
/* The number that F16 or BF16 bits stand for. */
double sfi_half_value(sf_dtype dtype, uint16_t bits);
/* False where the token is no number or does not fit the dtype. Fractions round to nearest even; integers must be exact. */
bool sfi_token_element(sfi_token token, sf_dtype dtype, void *out_data);

#endif
