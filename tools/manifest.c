/* Reader of sf-warm's manifest by libyaml's events: one pass, no tree, so that no document can make it large. A stack of at most
 * DEPTH_MAX frames says where in the grammar an event stands. */
#include "manifest.h"

#include <stdlib.h>
#include <yaml.h>

bool manifest_add_target(manifest_targets *targets, const char *name) {
  sf_isa isa;
  if (targets->count == MANIFEST_TARGETS_MAX || !tool_isa_named(name, &isa)) return false;
  for (int32_t i = 0; i < targets->count; i++)
    if (targets->isa[i] == isa) return false;
  targets->isa[targets->count++] = isa;
  return true;
}

/* Takes `path`, which may be NULL until it is known. */
static sf_status append(manifest *m, char *path) {
  if (m->n_models == m->capacity) {
    size_t capacity = m->capacity ? 2 * m->capacity : 16;
    manifest_model *grown = realloc(m->models, capacity * sizeof *grown);
    if (!grown) {
      free(path);
      return SF_STATUS_OUT_OF_MEMORY;
    }
    m->models = grown;
    m->capacity = capacity;
  }
  m->models[m->n_models++] = (manifest_model){.path = path};
  return SF_OK;
}

/* `path` as seen from the folder of the file `beside`. NULL: out of memory. */
static char *resolve(const char *beside, const char *path) {
  const char *slash = path[0] == '/' ? NULL : strrchr(beside, '/');
  size_t folder = slash ? (size_t)(slash - beside) + 1 : 0, length = strlen(path);
  char *copy = malloc(folder + length + 1);
  if (!copy) return NULL;
  memcpy(copy, beside, folder);
  memcpy(copy + folder, path, length + 1);
  return copy;
}

sf_status manifest_add_model(manifest *m, const char *path) {
  char *copy = resolve("", path);
  return copy ? append(m, copy) : SF_STATUS_OUT_OF_MEMORY;
}

void manifest_deinit(manifest *m) {
  for (size_t i = 0; i < m->n_models; i++) free(m->models[i].path);
  free(m->models);
  *m = (manifest){0};
}

/* ---- grammar ------------------------------------------------------------------------------------------------------ */

typedef enum place { TOP, MODELS, MODEL, TARGETS, BATCH } place;
static const char *const place_names[] = {"the manifest", "models", "a model", "targets", "batch"};
enum { DEPTH_MAX = 4, KEY_PATH = 1, KEY_TARGETS = 2, KEY_BATCH = 4, KEY_MODELS = 8 };

typedef struct frame {
  place place;
  unsigned seen; /* keys of a mapping so far */
  unsigned key;  /* whose value comes next; 0: a key comes next */
} frame;

typedef struct reader {
  manifest *m;
  const char *file;
  sf_error *error;
  frame stack[DEPTH_MAX];
  int depth; /* 0: before the document's mapping */
  bool done;
} reader;

#define FAIL(r, event, ...)                                                                                                        \
  tool_fail((r)->error, SF_STATUS_PARSE_ERROR, (r)->file, (int)(event)->start_mark.line + 1, (int)(event)->start_mark.column + 1,  \
            __VA_ARGS__)

#define FAIL_MEMORY(r) tool_fail((r)->error, SF_STATUS_OUT_OF_MEMORY, (r)->file, 0, 0, "out of memory")

/* The model that a frame MODEL or below it fills; NULL: the top. */
static manifest_model *model_of(reader *r) {
  for (int i = 0; i < r->depth; i++)
    if (r->stack[i].place == MODEL) return &r->m->models[r->m->n_models - 1];
  return NULL;
}

/* A mapping or sequence begins where `wanted` says one may. */
static sf_status open_collection(reader *r, const yaml_event_t *event, bool mapping) {
  frame *top = r->depth ? &r->stack[r->depth - 1] : NULL;
  place next;
  if (!top && mapping)
    next = TOP;
  else if (top && top->place == MODELS && mapping)
    next = MODEL;
  else if (top && !mapping && (top->key == KEY_MODELS || top->key == KEY_TARGETS || top->key == KEY_BATCH))
    next = top->key == KEY_MODELS ? MODELS : top->key == KEY_TARGETS ? TARGETS : BATCH;
  else
    return FAIL(r, event, "a %s cannot stand here, in %s", mapping ? "mapping" : "sequence",
                top ? place_names[top->place] : "the document");
  if (next == MODEL) {
    if (r->m->n_models == MANIFEST_MODELS_MAX) return FAIL(r, event, "more than %d models", MANIFEST_MODELS_MAX);
    if (append(r->m, NULL) != SF_OK) return FAIL_MEMORY(r);
  }
  r->stack[r->depth++] = (frame){.place = next};
  return SF_OK;
}

static sf_status close_collection(reader *r, const yaml_event_t *event) {
  frame *top = &r->stack[r->depth - 1];
  if (top->place == MODEL && !(top->seen & KEY_PATH)) return FAIL(r, event, "a model without a path");
  if (top->place == TOP && !(top->seen & KEY_MODELS)) return FAIL(r, event, "no models");
  manifest_model *model = model_of(r);
  if (top->place == TARGETS && (model ? &model->targets : &r->m->targets)->count == 0) return FAIL(r, event, "empty targets");
  if (top->place == BATCH && (model ? &model->classes : &r->m->classes)->count == 0) return FAIL(r, event, "empty batch");
  r->depth--;
  if (r->depth)
    r->stack[r->depth - 1].key = 0;
  else
    r->done = true;
  return SF_OK;
}

static sf_status read_key(reader *r, const yaml_event_t *event, frame *top, const char *text) {
  unsigned key = strcmp(text, "targets") == 0                       ? KEY_TARGETS
                 : strcmp(text, "batch") == 0                       ? KEY_BATCH
                 : top->place == TOP && strcmp(text, "models") == 0 ? KEY_MODELS
                 : top->place == MODEL && strcmp(text, "path") == 0 ? KEY_PATH
                                                                    : 0;
  if (!key) return FAIL(r, event, "unknown key \"%.64s\" in %s", text, place_names[top->place]);
  if (top->seen & key) return FAIL(r, event, "key \"%s\" a second time", text);
  top->seen |= key;
  top->key = key;
  return SF_OK;
}

/* A model given as a bare path, or the path of the model that its mapping began. */
static sf_status read_path(reader *r, const yaml_event_t *event, manifest_model *model, const char *text) {
  if (!*text) return FAIL(r, event, "an empty path");
  if (!model && r->m->n_models == MANIFEST_MODELS_MAX) return FAIL(r, event, "more than %d models", MANIFEST_MODELS_MAX);
  char *path = resolve(r->file, text);
  if (!path) return FAIL_MEMORY(r);
  if (!model) return append(r->m, path) == SF_OK ? SF_OK : FAIL_MEMORY(r);
  model->path = path;
  return SF_OK;
}

static sf_status read_scalar(reader *r, const yaml_event_t *event) {
  const char *text = (const char *)event->data.scalar.value;
  if (strlen(text) != event->data.scalar.length) return FAIL(r, event, "a zero byte in a string");
  if (!r->depth) return FAIL(r, event, "the manifest is a mapping with the key \"models\"");
  frame *top = &r->stack[r->depth - 1];
  manifest_model *model = model_of(r);
  switch (top->place) {
  case MODELS:
    return read_path(r, event, NULL, text);
  case TARGETS:
    if (manifest_add_target(model ? &model->targets : &r->m->targets, text)) return SF_OK;
    return FAIL(r, event, "target \"%.64s\" is named twice or is none of %s", text, tool_isa_names);
  case BATCH:
    if (tool_classes_add(model ? &model->classes : &r->m->classes, text)) return SF_OK;
    return FAIL(r, event, "batch \"%.64s\": at most %d whole numbers above 0, ascending", text, TOOL_CLASSES_MAX);
  default:
    break;
  }
  if (!top->key) return read_key(r, event, top, text);
  if (top->key != KEY_PATH) return FAIL(r, event, "a list is wanted here, as in [1, 16]");
  top->key = 0;
  return read_path(r, event, model, text);
}

static sf_status read_event(reader *r, const yaml_event_t *event) {
  switch (event->type) {
  case YAML_DOCUMENT_START_EVENT:
    return r->done ? FAIL(r, event, "a second document") : SF_OK;
  case YAML_ALIAS_EVENT:
    return FAIL(r, event, "aliases are not allowed");
  case YAML_SCALAR_EVENT:
    if (event->data.scalar.anchor || event->data.scalar.tag) return FAIL(r, event, "anchors and tags are not allowed");
    return read_scalar(r, event);
  case YAML_SEQUENCE_START_EVENT:
    if (event->data.sequence_start.anchor || event->data.sequence_start.tag)
      return FAIL(r, event, "anchors and tags are not allowed");
    return open_collection(r, event, false);
  case YAML_MAPPING_START_EVENT:
    if (event->data.mapping_start.anchor || event->data.mapping_start.tag)
      return FAIL(r, event, "anchors and tags are not allowed");
    return open_collection(r, event, true);
  case YAML_SEQUENCE_END_EVENT:
  case YAML_MAPPING_END_EVENT:
    return close_collection(r, event);
  default:
    return SF_OK;
  }
}

sf_status manifest_parse(manifest *m, const char *text, size_t length, const char *file, sf_error *error) {
  yaml_parser_t parser;
  if (!yaml_parser_initialize(&parser)) return tool_fail(error, SF_STATUS_OUT_OF_MEMORY, file, 0, 0, "out of memory");
  yaml_parser_set_input_string(&parser, (const unsigned char *)text, length);
  reader r = {.m = m, .file = file, .error = error};
  sf_status status = SF_OK;
  bool end = false;
  while (status == SF_OK && !end) {
    yaml_event_t event;
    if (!yaml_parser_parse(&parser, &event)) {
      status = tool_fail(error, parser.error == YAML_MEMORY_ERROR ? SF_STATUS_OUT_OF_MEMORY : SF_STATUS_PARSE_ERROR, file,
                         (int)parser.problem_mark.line + 1, (int)parser.problem_mark.column + 1, "%s",
                         parser.problem ? parser.problem : "not YAML");
      break;
    }
    end = event.type == YAML_STREAM_END_EVENT;
    status = read_event(&r, &event);
    yaml_event_delete(&event);
  }
  yaml_parser_delete(&parser);
  if (status == SF_OK && !r.done) status = tool_fail(error, SF_STATUS_PARSE_ERROR, file, 1, 1, "an empty manifest");
  return status;
}
