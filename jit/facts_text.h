/* What explain and emit print alike. */
#ifndef SFI_FACTS_TEXT_H
#define SFI_FACTS_TEXT_H

#include "jit.h"

/* "256 x 784, 10.1 % nonzero, 4:8 along columns, blocks 4 x 1, dead 2 rows 9 columns" */
void sfi_facts_print(sfi_text *out, const sfi_facts *facts);
/* "1", "2 to 16", "17 and above" */
void sfi_class_print(sfi_text *out, const sfi_plan *plan);

#endif
