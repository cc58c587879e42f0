/* Reads a safetensors header with libyaml's event parser: YAML's flow style contains JSON. What YAML has beyond JSON, and
 * all that this format never writes, is refused before libyaml sees a byte: the text outside of strings consists of brackets, colons,
 * commas, digits and blanks, nested as deep as the format asks for; strings have JSON's escapes only. */
#include "weights_header.h"

#include "graph.h"
#include "text_cursor.h"

#include <stdio.h>
#include <yaml.h>

enum { DEEPEST = 3 }; /* file, tensor, list */

typedef struct header {
  sfi_arena *arena;
  sfi_diag *diag;
  const char *file;
  yaml_parser_t parser;
  yaml_event_t event; /* the last one taken */
} header;

#define FAIL(h, tensor, ...) sfi_fail((h)->diag, SF_STATUS_MALFORMED_FILE, &(sfi_place){.file = (h)->file}, tensor, __VA_ARGS__)

/* ---- JSON --------------------------------------------------------------------------------------------------------- */

static bool read_hex4(const char *text, size_t length, unsigned *out) {
  *out = 0;
  if (length < 4) return false;
  for (int i = 0; i < 4; i++) {
    const char *digits = "0123456789abcdef",
               *digit = text[i] ? strchr(digits, text[i] | (text[i] >= 'A' && text[i] <= 'F' ? 0x20 : 0)) : NULL;
    if (!digit) return false;
    *out = *out * 16 + (unsigned)(digit - digits);
  }
  return true;
}

/* The escape at text[0] == '\\'. A pair of surrogates is rewritten in place as YAML's \U, which is shorter; `*out_length` is
 * what stands there then, `return` what stood there before; 0: no escape of JSON. */
static size_t take_escape(char *text, size_t length, size_t *out_length) {
  *out_length = 2;
  if (length < 2) return 0;
  if (text[1] && strchr("\"\\/bfnrt", text[1])) return 2;
  unsigned high, low;
  if (text[1] != 'u' || !read_hex4(text + 2, length - 2, &high)) return 0;
  *out_length = 6;
  if (high < 0xd800 || high > 0xdfff) return 6;
  if (high > 0xdbff || length < 12 || text[6] != '\\' || text[7] != 'u' || !read_hex4(text + 8, length - 8, &low)) return 0;
  if (low < 0xdc00 || low > 0xdfff) return 0;
  char wide[11];
  snprintf(wide, sizeof wide, "\\U%08x", 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00));
  memcpy(text, wide, 10);
  *out_length = 10;
  return 12;
}

/* Refuses what is not JSON of this format. Changes the text in place where libyaml reads an escape otherwise than JSON. */
static sf_status check_json(header *h, char *json, size_t *length) {
  char stack[DEEPEST], last = 0; /* last: the last character that is not blank, outside of strings */
  size_t depth = 0, out = 0;
  bool in_string = false;
  for (size_t i = 0; i < *length;) {
    unsigned char c = (unsigned char)json[i];
    size_t taken = 1, kept = 1;
    bool bad = false;
    if (in_string) {
      if (c == '\\')
        bad = !(taken = take_escape(json + i, *length - i, &kept));
      else if (c == '"')
        in_string = false;
      else
        bad = c < ' ';
    } else if (c == '"') {
      in_string = true;
      bad = depth == 0;
      last = (char)c;
    } else if (c != ' ' && c != '\t' && c != '\n' && c != '\r') {
      bool opens = c == '{' || c == '[', closes = c == '}' || c == ']';
      bad = !opens && !closes && c != ':' && c != ',' && !(c >= '0' && c <= '9');
      bad |= opens && depth == DEEPEST;
      bad |= closes && (depth == 0 || stack[depth - 1] != (c == '}' ? '{' : '[') || last == ',');
      bad |= depth == 0 && last; /* after the end */
      if (bad && opens && depth == DEEPEST) return FAIL(h, NULL, "the header nests too deep at byte %zu", i);
      if (!bad && opens) stack[depth++] = (char)c;
      if (!bad && closes) depth--;
      last = (char)c;
    }
    if (bad) return FAIL(h, NULL, "the header is not the JSON of a weight file at byte %zu", i);
    memmove(json + out, json + i, kept);
    i += taken;
    out += kept;
  }
  *length = out;
  if (last && depth == 0 && !in_string) return SF_OK;
  return FAIL(h, NULL, "the header ends in the middle");
}

/* ---- events ------------------------------------------------------------------------------------------------------- */

/* Takes the next event. */
static sf_status next(header *h) {
  yaml_event_delete(&h->event);
  if (yaml_parser_parse(&h->parser, &h->event)) return SF_OK;
  memset(&h->event, 0, sizeof h->event);
  if (h->parser.error == YAML_MEMORY_ERROR) return sfi_fail_memory(h->diag);
  return FAIL(h, NULL, "the header is not JSON: %s, near byte %zu", h->parser.problem ? h->parser.problem : "unreadable",
              h->parser.problem_mark.index);
}

static sf_status next_is(header *h, yaml_event_type_t type, const char *tensor, const char *wanted) {
  sf_status st = next(h);
  if (st != SF_OK || h->event.type == type) return st;
  return FAIL(h, tensor, "%s is missing", wanted);
}

/* Does the last event hold a string? It must stand in one line: YAML folds line breaks, of which it knows more than JSON. */
static bool is_string(const header *h) {
  return h->event.type == YAML_SCALAR_EVENT && h->event.data.scalar.style == YAML_DOUBLE_QUOTED_SCALAR_STYLE &&
         h->event.start_mark.line == h->event.end_mark.line && !memchr(h->event.data.scalar.value, 0, h->event.data.scalar.length);
}
static bool is_number(const header *h, int64_t *out) {
  if (h->event.type != YAML_SCALAR_EVENT || h->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE) return false;
  sfi_token token = {(const char *)h->event.data.scalar.value, h->event.data.scalar.length};
  return (token.length < 2 || token.text[0] != '0') && sfi_token_integer(token, out);
}
static const char *text_of(const header *h) {
  return (const char *)h->event.data.scalar.value;
}

/* A string as the next event, or the end of the mapping that it would be a key of. */
static sf_status next_key(header *h, const char *tensor, bool *out_end) {
  sf_status st = next(h);
  *out_end = h->event.type == YAML_MAPPING_END_EVENT;
  if (st != SF_OK || *out_end || is_string(h)) return st;
  return FAIL(h, tensor, "a key of the header is not a plain string");
}

/* ---- the format --------------------------------------------------------------------------------------------------- */

static sf_status read_metadata(header *h) {
  sf_status st = next_is(h, YAML_MAPPING_START_EVENT, "__metadata__", "the mapping of strings");
  for (bool end = false; st == SF_OK;) {
    if ((st = next_key(h, "__metadata__", &end)) != SF_OK || end) break;
    if ((st = next(h)) == SF_OK && !is_string(h)) st = FAIL(h, "__metadata__", "a value is not a string");
  }
  return st;
}

/* A list of numbers >= 0: the first `room` into `out`, all of them counted. */
static sf_status read_list(header *h, const char *tensor, const char *key, int64_t *out, int32_t room, int32_t *out_count) {
  sf_status st = next_is(h, YAML_SEQUENCE_START_EVENT, tensor, key);
  for (*out_count = 0; st == SF_OK && (st = next(h)) == SF_OK && h->event.type != YAML_SEQUENCE_END_EVENT;) {
    int64_t number;
    if (!is_number(h, &number)) return FAIL(h, tensor, "%s has an entry that is no number, or too large", key);
    if (*out_count < room) out[*out_count] = number;
    if (++*out_count > 1024) return FAIL(h, tensor, "%s has more than 1024 entries", key);
  }
  return st;
}

enum { HAS_DTYPE = 1, HAS_SHAPE = 2, HAS_OFFSETS = 4, HAS_ALL = 7 };

static bool dtype_stored_as(const char *text, sf_dtype *out) {
#define SF_DTYPE(id, value, name, bytes, stored, flags)                                                                            \
  if (strcmp(text, stored) == 0) return *out = SF_##id, true;
#include <sparseflow/dtypes.def>
#undef SF_DTYPE
  return false;
}

static sf_status read_field(header *h, sfi_tensor_record *record, int *seen) {
  sfi_tensor_entry *entry = &record->entry;
  const char *tensor = entry->name, *key = text_of(h);
  int field = strcmp(key, "dtype") == 0          ? HAS_DTYPE
              : strcmp(key, "shape") == 0        ? HAS_SHAPE
              : strcmp(key, "data_offsets") == 0 ? HAS_OFFSETS
                                                 : 0;
  if (!field) return FAIL(h, tensor, "unknown key \"%.64s\"", key);
  if (*seen & field) return FAIL(h, tensor, "the key \"%s\" stands there twice", key);
  *seen |= field;
  sf_status st;
  if (field == HAS_DTYPE) {
    if ((st = next(h)) != SF_OK) return st;
    if (!is_string(h)) return FAIL(h, tensor, "dtype is not a string");
    if (dtype_stored_as(text_of(h), &entry->dtype)) return SF_OK;
    entry->unusable = sfi_arena_printf(h->arena, "elements of type %.32s are not supported", text_of(h));
    return entry->unusable ? SF_OK : sfi_fail_memory(h->diag);
  }
  if (field == HAS_SHAPE) return read_list(h, tensor, "shape", entry->dims, SF_MAX_RANK, &entry->rank);
  int64_t offsets[2];
  int32_t count;
  if ((st = read_list(h, tensor, "data_offsets", offsets, 2, &count)) != SF_OK) return st;
  if (count != 2) return FAIL(h, tensor, "data_offsets has %d entries, not 2", count);
  if (offsets[0] > offsets[1]) return FAIL(h, tensor, "data_offsets end before they begin");
  record->begin = offsets[0];
  record->end = offsets[1];
  return SF_OK;
}

/* The bytes between the offsets are those that dtype and shape ask for. */
static sf_status check_size(header *h, sfi_tensor_record *record) {
  sfi_tensor_entry *entry = &record->entry;
  entry->bytes = (size_t)(record->end - record->begin);
  if (!entry->unusable && entry->rank > SF_MAX_RANK) {
    entry->unusable = sfi_arena_printf(h->arena, "%d dimensions are more than %d", entry->rank, SF_MAX_RANK);
    if (!entry->unusable) return sfi_fail_memory(h->diag);
  }
  if (entry->unusable) {
    entry->rank = 0;
    return SF_OK;
  }
  int64_t bytes = (int64_t)sfi_dtype_of(entry->dtype)->bytes;
  for (int32_t i = 0; i < entry->rank; i++) {
    if (!sfi_mul(bytes, entry->dims[i], &bytes)) return FAIL(h, entry->name, "the shape overflows");
  }
  if (bytes == record->end - record->begin) return SF_OK;
  return FAIL(h, entry->name, "%lld bytes are stored, but dtype and shape ask for %lld", (long long)(record->end - record->begin),
              (long long)bytes);
}

static sf_status read_tensor(header *h, sfi_tensor_record *record) {
  sfi_tensor_entry *entry = &record->entry;
  *record = (sfi_tensor_record){.entry.name = sfi_arena_strndup(h->arena, text_of(h), h->event.data.scalar.length)};
  if (!entry->name) return sfi_fail_memory(h->diag);
  int seen = 0;
  sf_status st = next_is(h, YAML_MAPPING_START_EVENT, entry->name, "the tensor's description");
  for (bool end = false; st == SF_OK;) {
    if ((st = next_key(h, entry->name, &end)) != SF_OK || end) break;
    st = read_field(h, record, &seen);
  }
  if (st != SF_OK) return st;
  if (seen != HAS_ALL) {
    return FAIL(h, entry->name, "%s is missing", seen & HAS_DTYPE ? seen & HAS_SHAPE ? "data_offsets" : "shape" : "dtype");
  }
  return check_size(h, record);
}

static sf_status read_file(header *h, sfi_tensor_record **records, size_t *count, size_t *capacity) {
  sf_status st;
  bool end = false, has_metadata = false;
  if ((st = next_is(h, YAML_STREAM_START_EVENT, NULL, "the header")) != SF_OK) return st;
  if ((st = next_is(h, YAML_DOCUMENT_START_EVENT, NULL, "the header")) != SF_OK) return st;
  if ((st = next_is(h, YAML_MAPPING_START_EVENT, NULL, "the mapping of names to tensors")) != SF_OK) return st;
  while ((st = next_key(h, NULL, &end)) == SF_OK && !end) {
    if (strcmp(text_of(h), "__metadata__") == 0) {
      if (has_metadata) return FAIL(h, "__metadata__", "stands there twice");
      has_metadata = true;
      st = read_metadata(h);
    } else {
      void *items = *records;
      if (!sfi_grow(h->arena->allocator, &items, capacity, sizeof **records, *count + 1)) return sfi_fail_memory(h->diag);
      *records = items;
      st = read_tensor(h, &(*records)[(*count)++]);
    }
    if (st != SF_OK) return st;
  }
  return st;
}

sf_status sfi_weights_header_read(sfi_arena *arena, const char *json, size_t length, const char *file, sfi_diag *diag,
                                  sfi_tensor_record **out_records, size_t *out_count, size_t *out_capacity) {
  header h = {.arena = arena, .diag = diag, .file = file};
  *out_records = NULL;
  *out_count = *out_capacity = 0;
  char *checked = sfi_alloc(arena->allocator, length);
  if (!checked) return sfi_fail_memory(diag);
  memcpy(checked, json, length);
  size_t kept = length;
  sf_status st = check_json(&h, checked, &kept);
  if (st == SF_OK && !yaml_parser_initialize(&h.parser)) {
    st = sfi_fail_memory(diag);
  } else if (st == SF_OK) {
    yaml_parser_set_encoding(&h.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&h.parser, (const unsigned char *)checked, kept);
    st = read_file(&h, out_records, out_count, out_capacity);
    yaml_event_delete(&h.event);
    yaml_parser_delete(&h.parser);
  }
  sfi_free(arena->allocator, checked, length);
  return st;
}
