/* The public ways to read the text form: a file, a text, and lines for a graph that exists. */
#include "context.h"
#include "graph.h"
#include "input_file.h"

#include <unistd.h>

sf_status sf_graph_parse(sf_context *context, const char *text, size_t length, const char *name, const char *folder,
                         sf_graph **out_graph) {
  sf_graph *graph;
  sf_status st;
  if (!out_graph) return SF_STATUS_INVALID_ARGUMENT;
  *out_graph = NULL;
  if (!context || (!text && length)) return SF_STATUS_INVALID_ARGUMENT;
  if ((st = sf_graph_create(context, NULL, &graph)) != SF_OK) return st;
  st = sfi_graph_parse_into(graph, text ? text : "", length, name, folder);
  if (st == SF_OK)
    *out_graph = graph;
  else
    sf_graph_release(graph);
  return st;
}

sf_status sf_graph_parse_file(sf_context *context, const char *path, sf_graph **out_graph) {
  if (!out_graph) return SF_STATUS_INVALID_ARGUMENT;
  *out_graph = NULL;
  if (!context || !path) return SF_STATUS_INVALID_ARGUMENT;
  sfi_diag diag = {0};
  int fd;
  size_t length;
  sf_status st = sfi_input_open(NULL, path, SFI_LINKS_LAST, &diag, &fd, &length);
  if (st != SF_OK) goto failed;
  const sf_allocator *a = &context->allocator;
  const char *slash = strrchr(path, '/');
  size_t folder_length = slash ? (size_t)(slash - path) + 1 : 0; /* with the slash, so that "/" stays itself */
  char *text = sfi_alloc(a, length), *folder = sfi_calloc(a, folder_length + 1, 1);
  if (!text || !folder)
    st = sfi_fail_memory(&diag);
  else
    st = sfi_input_read(fd, text, length, path, &diag);
  close(fd);
  if (st == SF_OK) {
    memcpy(folder, path, folder_length);
    st = sf_graph_parse(context, text, length, path, folder, out_graph);
  }
  sfi_free(a, folder, folder_length + 1);
  sfi_free(a, text, length);
failed:
  if (diag.error.status != SF_OK) sfi_context_keep_error(context, &diag.error);
  return st;
}

sf_status sf_graph_parse_lines(sf_graph *graph, const char *text, size_t length, const char *folder) {
  if (!graph || (!text && length)) return SF_STATUS_INVALID_ARGUMENT;
  if (graph->diag.error.status != SF_OK) return graph->diag.error.status;
  sf_status st = sfi_graph_parse_into(graph, text ? text : "", length, graph->name, folder);
  graph->diag = (sfi_diag){0}; /* the context has the error; the graph holds nothing of these lines */
  return st;
}
