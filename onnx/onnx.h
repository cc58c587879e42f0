/* ONNX models to graphs and back. Built where nanopb is; jit/onnx.c is the public face. */
#ifndef SFI_ONNX_H
#define SFI_ONNX_H

#include "graph.h"

typedef struct sfi_onnx_options {
  int32_t n_dims;
  const sf_onnx_dim *dims;
  sf_onnx_report_fn report; /* NULL: none */
  void *report_user;
} sfi_onnx_options;

/* Builds the empty `graph` from the bytes of a model. `file` stands for it in messages and places (the line is the node's number); `folder`
 * holds its external data, NULL: it may have none. On an error the first of all is in *diag, and the graph is of no use. */
sf_status sfi_onnx_import(sf_graph *graph, const void *data, size_t size, const char *file, const char *folder,
                          const sfi_onnx_options *options, sfi_diag *diag);
/* Writes the graph as an ONNX model. */
sf_status sfi_onnx_export(const sf_graph *graph, sf_write_fn write, void *user, sfi_diag *diag);
/* Markdown rows of the operators that are imported, for the documentation. */
void sfi_onnx_list_operators(sfi_text *out);

#endif
