/* Names of a graph's values in the text form, both ways: the printer asks for the name of a value, the parser for the value of a name.
 * Both use this one assignment, so that whoever reads a printed graph may refer to what it shows. */
#ifndef SFI_TEXT_NAMES_H
#define SFI_TEXT_NAMES_H

#include "graph.h"

/* Name i belongs to value i. No name twice. Zero but for arena.allocator: ready and empty. */
typedef struct sfi_names {
  sfi_arena arena; /* names made here */
  const char **names;
  size_t count, capacity;
  sf_value *slots; /* open addressing over the names, a power of two of them, SF_NO_VALUE where free */
  size_t slots_capacity;
} sfi_names;

/* Letters, digits, '_' and '.', at least one. */
bool sfi_is_name(const char *text, size_t length);
/* Names for all values of the graph: the given one (label, else name) where it is a name and no earlier value has it, else the next free
 * number. False: out of memory. */
bool sfi_names_of_graph(sfi_names *names, const sf_graph *graph);
/* The name of each weight's tensor in the weight file, NULL for other values: the given one, made unique by a number where two weights
 * of different contents have it. sfi_names_find gives the first of those that share a tensor. False: out of memory. */
bool sfi_names_of_tensors(sfi_names *names, const sf_graph *graph);
/* The next value's name, borrowed. `name` must be free. False: out of memory. */
bool sfi_names_add(sfi_names *names, const char *name);
/* SF_NO_VALUE where no value has the name. */
sf_value sfi_names_find(const sfi_names *names, const char *text, size_t length);
void sfi_names_deinit(sfi_names *names);

#endif
