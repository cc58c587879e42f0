/* An ONNX file as it stands: strings and lists in an arena, tensors' raw bytes where the file has them. Nothing is checked but the
 * encoding; what names, types and numbers mean is the importer's. */
#ifndef SFI_ONNX_MODEL_H
#define SFI_ONNX_MODEL_H

#include "base.h"

/* TensorProto.DataType */
typedef enum onnx_type {
  ONNX_UNDEFINED = 0,
  ONNX_FLOAT = 1,
  ONNX_UINT8 = 2,
  ONNX_INT8 = 3,
  ONNX_UINT16 = 4,
  ONNX_INT16 = 5,
  ONNX_INT32 = 6,
  ONNX_INT64 = 7,
  ONNX_STRING = 8,
  ONNX_BOOL = 9,
  ONNX_FLOAT16 = 10,
  ONNX_DOUBLE = 11,
  ONNX_UINT32 = 12,
  ONNX_UINT64 = 13,
  ONNX_BFLOAT16 = 16
} onnx_type;

/* AttributeProto.AttributeType, the part with a meaning here. */
typedef enum onnx_attribute_type {
  ONNX_ATTRIBUTE_FLOAT = 1,
  ONNX_ATTRIBUTE_INT = 2,
  ONNX_ATTRIBUTE_STRING = 3,
  ONNX_ATTRIBUTE_TENSOR = 4,
  ONNX_ATTRIBUTE_FLOATS = 6,
  ONNX_ATTRIBUTE_INTS = 7,
  ONNX_ATTRIBUTE_STRINGS = 8
} onnx_attribute_type;

/* Growing list in an arena; `items` of the type said beside it. */
typedef struct onnx_list {
  void *items;
  size_t count, capacity;
} onnx_list;

/* Bytes in the file, or NULL. */
typedef struct onnx_bytes {
  const uint8_t *data;
  size_t size;
} onnx_bytes;

/* Strings end with a zero byte and are never NULL. */
typedef struct onnx_entry {
  const char *key, *value;
} onnx_entry;

typedef struct onnx_tensor {
  const char *name;
  int32_t type;
  onnx_list dims;                  /* int64_t */
  bool external;                   /* the elements are in another file, which `entries` names */
  onnx_bytes raw;                  /* little-endian elements; data NULL: in the lists */
  onnx_list floats, ints, doubles; /* float; int64_t, of int32_data, int64_data and uint64_data; double */
  onnx_list entries;               /* onnx_entry */
} onnx_tensor;

typedef struct onnx_attribute {
  const char *name;
  int32_t type;
  float f;
  int64_t i;
  const char *s;
  onnx_tensor *t;                  /* NULL: none */
  onnx_list floats, ints, strings; /* float, int64_t, const char * */
} onnx_attribute;

typedef struct onnx_node {
  const char *name, *op_type, *domain;
  onnx_list inputs, outputs; /* const char *; "": left out */
  onnx_list attributes;      /* onnx_attribute */
} onnx_node;

typedef struct onnx_dimension {
  bool has_value;
  int64_t value;
  const char *param; /* "": unnamed */
} onnx_dimension;

typedef struct onnx_value_info {
  const char *name;
  int32_t type;   /* ONNX_UNDEFINED: not a tensor */
  bool has_shape; /* else of any rank */
  onnx_list dims; /* onnx_dimension */
} onnx_value_info;

typedef struct onnx_operator_set {
  const char *domain;
  int64_t version;
} onnx_operator_set;

typedef struct onnx_model {
  int64_t ir_version;
  const char *producer;
  onnx_list operator_sets; /* onnx_operator_set */
  bool has_graph;
  const char *graph_name;
  onnx_list nodes;           /* onnx_node */
  onnx_list initializers;    /* onnx_tensor */
  onnx_list inputs, outputs; /* onnx_value_info */
  size_t sparse_initializers;
} onnx_model;

#define ONNX_AT(list, type, i) (((type *)(list).items)[i])

/* Reads the `size` bytes of a file. Everything but tensors' raw bytes goes into the arena, whose size is bounded by a multiple of the
 * file's. `file` is for messages. */
sf_status sfi_onnx_read(sfi_arena *arena, const void *data, size_t size, const char *file, sfi_diag *diag, onnx_model *out_model);
/* Writes a model: strings, ints and raw bytes only of tensors and attributes, and what else has a field there. */
void sfi_onnx_write(const onnx_model *model, sf_write_fn write, void *user);

#endif
