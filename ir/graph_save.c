/* Writes a graph as files: the text form, and beside it a safetensors file with its weights, which the text names. Both are written under
 * another name first, so that a failure leaves what was there. */
#include "context.h"
#include "graph.h"
#include "text_names.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

enum { NAME_LONGEST = 4096, KEY_LONGEST = 1024 /* of a key that weights_header.c reads */ };

static sf_status fail_errno(sfi_diag *diag, const char *path) {
  int reason = errno;
  sfi_place place = {.file = path};
  errno = reason; /* for %m */
  return sfi_fail(diag, SF_STATUS_IO_ERROR, &place, NULL, "cannot be written: %m");
}

/* Is this the first value of its tensor? Weights that share one have one name. */
static bool is_first(const sfi_names *tensors, sf_value value) {
  const char *name = tensors->names[value];
  return name && sfi_names_find(tensors, name, strlen(name)) == value;
}

/* JSON's escapes; bytes above ASCII stand for themselves and must be UTF-8, which JSON is. */
static bool put_key(sfi_text *out, const char *name) {
  size_t length = strlen(name), more = 0;
  if (length > KEY_LONGEST) return false;
  sfi_text_add(out, "\"", 1);
  for (size_t i = 0; i < length; i++) {
    unsigned char c = (unsigned char)name[i];
    if (more ? (c & 0xc0) != 0x80 : (c >= 0x80 && c < 0xc2) || c > 0xf4) return false;
    if (more)
      more--;
    else
      more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0x80 ? 1 : 0;
    if (c == '"' || c == '\\')
      sfi_text_printf(out, "\\%c", c);
    else if (c < ' ' || c == 0x7f)
      sfi_text_printf(out, "\\u%04x", c);
    else
      sfi_text_add(out, (const char *)&c, 1);
  }
  sfi_text_add(out, "\"", 1);
  return more == 0;
}

/* Length field and header. The data follows in the order of the values, without gaps. */
static sf_status put_weights_header(const sf_graph *graph, const sfi_names *tensors, sfi_text *out, sfi_diag *diag) {
  uint64_t at = 0;
  sfi_text_add(out, "\0\0\0\0\0\0\0\0{", 9);
  for (size_t i = 0; i < graph->n_nodes; i++) {
    const sfi_node *node = &graph->nodes[i];
    if (!is_first(tensors, (sf_value)i)) continue;
    if (at) sfi_text_add(out, ",", 1);
    if (!put_key(out, tensors->names[i])) {
      return sfi_fail(diag, SF_STATUS_INVALID_GRAPH, &node->place, tensors->names[i], "a weight's name is too long, or no UTF-8");
    }
    sfi_text_printf(out, ":{\"dtype\":\"%s\",\"shape\":[", sfi_dtype_of(node->dtype)->safetensors);
    for (int32_t d = 0; d < node->shape.rank; d++)
      sfi_text_printf(out, "%s%lld", d ? "," : "", (long long)node->shape.dims[d].c[0]);
    sfi_text_printf(out, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at, (unsigned long long)(at + node->bytes));
    at += node->bytes;
  }
  sfi_text_add(out, "}", 1);
  while (out->length % 64 != 0 && !out->failed) sfi_text_add(out, " ", 1);
  if (out->failed) return sfi_fail_memory(diag);
  uint64_t length = out->length - 8;
  memcpy(out->data, &length, sizeof length);
  return SF_OK;
}

/* False where the file takes no more, with errno, and where a weight cannot be read, with an error in diag. */
static bool put_data(FILE *file, const sf_graph *graph, const sfi_names *tensors, sfi_diag *diag) {
  for (size_t i = 0; i < graph->n_nodes; i++) {
    const sfi_node *node = &graph->nodes[i];
    if (!is_first(tensors, (sf_value)i) || !node->bytes) continue;
    const void *data = sfi_node_open(node, diag);
    if (!data) return false;
    const bool written = fwrite(data, 1, node->bytes, file) == node->bytes;
    sfi_node_close(node);
    if (!written) return false;
  }
  return true;
}

/* `text`, and the weights of `graph` behind it where `tensors` are given. */
static sf_status write_file(const char *path, const sfi_text *text, const sf_graph *graph, const sfi_names *tensors,
                            sfi_diag *diag) {
  char part[NAME_LONGEST];
  if (snprintf(part, sizeof part, "%s.part", path) >= (int)sizeof part) {
    errno = ENAMETOOLONG;
    return fail_errno(diag, path);
  }
  FILE *file = fopen(part, "wb");
  if (!file) return fail_errno(diag, path);
  bool good = text->length == 0 || fwrite(text->data, 1, text->length, file) == text->length;
  good = good && (!tensors || put_data(file, graph, tensors, diag));
  if (fclose(file) != 0) good = false;
  if (good && rename(part, path) == 0) return SF_OK;
  sf_status st = diag->error.status != SF_OK ? diag->error.status : fail_errno(diag, path);
  unlink(part);
  return st;
}

/* "model.sft" and "model.safetensors"; the second is named in the first without its folder. */
static sf_status save(const sf_graph *graph, const char *path, sfi_diag *diag) {
  const sf_allocator *a = &graph->context->allocator;
  const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path, *dot = strrchr(base, '.');
  int stem = (int)(dot && dot != base ? (size_t)(dot - path) : strlen(path));
  char weights[NAME_LONGEST];
  if (snprintf(weights, sizeof weights, "%.*s.safetensors", stem, path) >= (int)sizeof weights || strcmp(weights, path) == 0) {
    return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, &(sfi_place){.file = path}, NULL,
                    "the graph's file needs a name that is not too long and does not end in .safetensors");
  }
  sfi_names tensors = {.arena.allocator = a};
  sfi_text text = {.allocator = a}, header = {.allocator = a};
  bool named = sfi_names_of_tensors(&tensors, graph), any = false;
  sf_graph shown = *graph; /* the same graph under the new file's name */
  for (size_t i = 0; i < graph->n_nodes; i++) any |= graph->nodes[i].op == SF_OP_WEIGHT;
  shown.weights_file = any ? weights + (base - path) : NULL;
  sfi_graph_print(&shown, &text);
  sf_status st = !named || text.failed ? sfi_fail_memory(diag) : SF_OK;
  if (st == SF_OK && any) st = put_weights_header(graph, &tensors, &header, diag);
  if (st == SF_OK && any) st = write_file(weights, &header, graph, &tensors, diag);
  if (st == SF_OK) st = write_file(path, &text, NULL, NULL, diag);
  sfi_text_deinit(&header);
  sfi_text_deinit(&text);
  sfi_names_deinit(&tensors);
  return st;
}

sf_status sf_graph_save(const sf_graph *graph, const char *path) {
  if (!graph || !path) return SF_STATUS_INVALID_ARGUMENT;
  sfi_diag diag = {0};
  sf_status st = save(graph, path, &diag);
  if (st != SF_OK) sfi_context_keep_error(graph->context, &diag.error);
  return st;
}
