/* The manifest of sf-warm: a YAML file that names models, targets and batch classes.
 *
 *   targets: [avx512, avx2]     # optional; default: native
 *   batch: [1, 16]              # optional; upper bounds of the classes of the symbolic dimension
 *   models:
 *     - digits/dense.sft        # beside the manifest
 *     - path: digits/pruned.sft
 *       targets: [native]       # instead of those above
 *       batch: [1, 64]
 *
 * Unknown keys, repeated keys, aliases, tags and a second document are errors, each with its line and column. */
#ifndef TOOL_MANIFEST_H
#define TOOL_MANIFEST_H

#include "common.h"

enum { MANIFEST_TARGETS_MAX = 8, MANIFEST_MODELS_MAX = 4096 };

typedef struct manifest_targets {
  int32_t count;
  sf_isa isa[MANIFEST_TARGETS_MAX];
} manifest_targets;
/* Adds one by name. False: unknown, there already, or no room. */
bool manifest_add_target(manifest_targets *targets, const char *name);

typedef struct manifest_model {
  char *path;               /* as to be opened; never NULL after manifest_parse succeeded */
  manifest_targets targets; /* count 0: the manifest's */
  tool_classes classes;     /* count 0: the manifest's */
} manifest_model;

/* The zero value is empty. */
typedef struct manifest {
  manifest_targets targets;
  tool_classes classes;
  manifest_model *models;
  size_t n_models, capacity;
} manifest;

/* Adds a model named on the command line. SF_STATUS_OUT_OF_MEMORY is its only failure. */
sf_status manifest_add_model(manifest *m, const char *path);
/* Reads YAML `text`; `file` names it in messages and gives the folder of the models. Adds to `m`, which is ended with
 * manifest_deinit after an error too. */
sf_status manifest_parse(manifest *m, const char *text, size_t length, const char *file, sf_error *error);
void manifest_deinit(manifest *m);

#endif
