/* The public face of ONNX: options, files, errors. What it means is in onnx/, which a build without nanopb has not. */
#include "input_file.h"
#include "jit.h"
#ifdef SFI_HAVE_ONNX
#include "onnx.h"
#endif

#include <unistd.h>

static sf_status import(sf_graph *graph, const void *data, size_t size, const char *name, const char *folder,
                        const sf_onnx_options *options, sfi_diag *diag) {
#ifdef SFI_HAVE_ONNX
  sf_onnx_options read;
  if (!sfi_options_read(&read, sizeof read, options) || read.n_dims < 0 || (read.n_dims > 0 && !read.dims)) {
    return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL,
                    "the ONNX options: struct_size is wrong (set it with SF_INIT), or n_dims without a list");
  }
  for (int32_t i = 0; i < read.n_dims; i++) {
    if (!read.dims[i].name || read.dims[i].extent < 0) {
      return sfi_fail(diag, SF_STATUS_INVALID_ARGUMENT, NULL, NULL, "the ONNX options: dims[%d] has no name, or an extent below 0",
                      i);
    }
  }
  return sfi_onnx_import(graph, data, size, name, folder,
                         &(sfi_onnx_options){read.n_dims, read.dims, read.report, read.report_user}, diag);
#else
  (void)graph, (void)data, (void)size, (void)folder, (void)options;
  return sfi_fail(diag, SF_STATUS_UNSUPPORTED, &(sfi_place){.file = name}, NULL,
                  "this build reads no ONNX: it was built without nanopb");
#endif
}

sf_status sf_graph_from_onnx(sf_context *context, const void *data, size_t size, const char *name, const char *folder,
                             const sf_onnx_options *options, sf_graph **out_graph) {
  if (!out_graph) return SF_STATUS_INVALID_ARGUMENT;
  *out_graph = NULL;
  if (!context || (!data && size)) return SF_STATUS_INVALID_ARGUMENT;
  sf_graph *graph;
  sfi_diag diag = {0};
  sf_status st = sf_graph_create(context, NULL, &graph);
  if (st != SF_OK) return st;
  st = import(graph, data, size, name ? name : "model", folder, options, &diag);
  if (st == SF_OK) {
    *out_graph = graph;
  } else {
    sfi_context_keep_error(context, &diag.error);
    sf_graph_release(graph);
  }
  return st;
}

sf_status sf_graph_from_onnx_file(sf_context *context, const char *path, const sf_onnx_options *options, sf_graph **out_graph) {
  if (!out_graph) return SF_STATUS_INVALID_ARGUMENT;
  *out_graph = NULL;
  if (!context || !path) return SF_STATUS_INVALID_ARGUMENT;
  const sf_allocator *a = &context->allocator;
  sfi_diag diag = {0};
  int fd;
  size_t size;
  sf_status st = sfi_input_open(NULL, path, SFI_LINKS_LAST, &diag, &fd, &size);
  if (st == SF_OK) {
    const char *slash = strrchr(path, '/');
    size_t folder_length = slash ? (size_t)(slash - path) + 1 : 0;
    void *data = sfi_alloc(a, size);
    char *folder = sfi_calloc(a, folder_length + 1, 1);
    if (!data || !folder)
      st = sfi_fail_memory(&diag);
    else
      st = sfi_input_read(fd, data, size, path, &diag);
    close(fd);
    if (st == SF_OK) {
      memcpy(folder, path, folder_length);
      st = sf_graph_from_onnx(context, data, size, path, folder, options, out_graph);
    }
    sfi_free(a, folder, folder_length + 1);
    sfi_free(a, data, size);
  }
  if (diag.error.status != SF_OK) sfi_context_keep_error(context, &diag.error);
  return st;
}

sf_status sf_onnx_operators(sf_write_fn write, void *user) {
  if (!write) return SF_STATUS_INVALID_ARGUMENT;
#ifdef SFI_HAVE_ONNX
  sfi_text text = {.allocator = &sfi_default_allocator};
  sfi_onnx_list_operators(&text);
  bool failed = text.failed;
  if (!failed) write(user, text.data, text.length);
  sfi_text_deinit(&text);
  return failed ? SF_STATUS_OUT_OF_MEMORY : SF_OK;
#else
  (void)user;
  return SF_STATUS_UNSUPPORTED;
#endif
}

sf_status sf_graph_to_onnx(const sf_graph *graph, sf_write_fn write, void *user) {
  if (!graph || !write) return SF_STATUS_INVALID_ARGUMENT;
  sfi_diag diag = {0};
#ifdef SFI_HAVE_ONNX
  sf_status st = sfi_onnx_export(graph, write, user, &diag);
#else
  (void)user;
  sf_status st =
      sfi_fail(&diag, SF_STATUS_UNSUPPORTED, NULL, graph->name, "this build writes no ONNX: it was built without nanopb");
#endif
  if (st != SF_OK) sfi_context_keep_error(graph->context, &diag.error);
  return st;
}
