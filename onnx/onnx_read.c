/* Decodes an ONNX file through nanopb. The bytes are taken for hostile: nanopb bounds every length by what encloses it; here every string
 * is ended, no list is longer than the file can pay for, and nothing is read through a pointer that came from the file. */
#include "onnx_model.h"

#include <onnx_model.pb.h>
#include <pb_decode.h>

typedef struct reader {
  sfi_arena *arena;
  const uint8_t *at; /* next byte of the file */
  bool out_of_memory;
} reader;

/* What a field's callback gets: where its values go. */
typedef struct target {
  reader *reader;
  void *out;
} target;

static bool out_of_memory(reader *r) {
  r->out_of_memory = true;
  return false;
}

/* The stream over the whole file; its state is the reader, so that a field of bytes knows where it stands. */
static bool read_bytes(pb_istream_t *stream, pb_byte_t *to, size_t count) {
  reader *r = stream->state;
  memcpy(to, r->at, count);
  r->at += count;
  return true;
}

/* The bytes of a field of strings, bytes or a message, without copying. A field of that number that the file encodes as a plain number
 * comes in a stream of nanopb's own: refused. */
static bool take_bytes(pb_istream_t *stream, onnx_bytes *out) {
  if (stream->callback != read_bytes) PB_RETURN_ERROR(stream, "a number where bytes are wanted");
  reader *r = stream->state;
  *out = (onnx_bytes){r->at, stream->bytes_left};
  r->at += stream->bytes_left;
  stream->bytes_left = 0;
  return true;
}

static void *append(reader *r, onnx_list *list, size_t size) {
  if (list->count == list->capacity) {
    size_t capacity = list->capacity ? list->capacity * 2 : 4;
    void *items = sfi_arena_alloc(r->arena, capacity * size); /* capacity is bounded by the file's bytes */
    if (!items) {
      r->out_of_memory = true;
      return NULL;
    }
    if (list->count) memcpy(items, list->items, list->count * size);
    list->items = items;
    list->capacity = capacity;
  }
  void *item = (char *)list->items + list->count++ * size;
  memset(item, 0, size);
  return item;
}

/* ---- values of fields --------------------------------------------------------------------------------------------- */

static bool read_text(pb_istream_t *stream, reader *r, const char **out) {
  onnx_bytes bytes;
  if (!take_bytes(stream, &bytes)) return false;
  if (bytes.size && memchr(bytes.data, 0, bytes.size)) PB_RETURN_ERROR(stream, "a zero byte inside of a string");
  *out = sfi_arena_strndup(r->arena, (const char *)bytes.data, bytes.size);
  return *out || out_of_memory(r);
}

#define FIELD(name) static bool name(pb_istream_t *stream, const pb_field_iter_t *field, void **arg)
#define TARGET(type, variable)                                                                                                     \
  reader *r = ((target *)*arg)->reader;                                                                                            \
  type *variable = ((target *)*arg)->out;                                                                                          \
  (void)field

FIELD(text_field) {
  TARGET(const char *, out);
  return read_text(stream, r, out);
}

FIELD(texts_field) {
  TARGET(onnx_list, list);
  const char **item = append(r, list, sizeof *item);
  return item && read_text(stream, r, item);
}

FIELD(bytes_field) {
  TARGET(onnx_bytes, out);
  (void)r;
  return take_bytes(stream, out);
}

/* Numbers, packed or one at a time: the stream holds one or more. */
FIELD(ints_field) {
  TARGET(onnx_list, list);
  while (stream->bytes_left) {
    uint64_t value;
    if (!pb_decode_varint(stream, &value)) return false;
    int64_t *item = append(r, list, sizeof *item);
    if (!item) return false;
    *item = (int64_t)value;
  }
  return true;
}

FIELD(floats_field) {
  TARGET(onnx_list, list);
  while (stream->bytes_left) {
    float value;
    if (!pb_decode_fixed32(stream, &value)) return false;
    float *item = append(r, list, sizeof *item);
    if (!item) return false;
    *item = value;
  }
  return true;
}

FIELD(doubles_field) {
  TARGET(onnx_list, list);
  while (stream->bytes_left) {
    double value;
    if (!pb_decode_fixed64(stream, &value)) return false;
    double *item = append(r, list, sizeof *item);
    if (!item) return false;
    *item = value;
  }
  return true;
}

#define INTO(function, place)                                                                                                      \
  {                                                                                                                                \
    .funcs.decode = function, .arg = &(target) {                                                                                   \
      r, place                                                                                                                     \
    }                                                                                                                              \
  }
/* A message inside of a message: its callback refuses what is no message before it reads. */
#define ENTER(stream)                                                                                                              \
  if ((stream)->callback != read_bytes) PB_RETURN_ERROR(stream, "a number where a message is wanted")

/* ---- messages ----------------------------------------------------------------------------------------------------- */

FIELD(entry_field) {
  TARGET(onnx_list, list);
  ENTER(stream);
  onnx_entry entry = {"", ""}, *item;
  onnxpb_Entry message = {.key = INTO(text_field, &entry.key), .value = INTO(text_field, &entry.value)};
  if (!pb_decode(stream, onnxpb_Entry_fields, &message)) return false;
  if (!(item = append(r, list, sizeof *item))) return false;
  *item = entry;
  return true;
}

static bool read_tensor(pb_istream_t *stream, reader *r, onnx_tensor *out) {
  ENTER(stream);
  onnx_tensor tensor = {.name = ""};
  onnxpb_Tensor message = {.dims = INTO(ints_field, &tensor.dims),
                           .float_data = INTO(floats_field, &tensor.floats),
                           .int32_data = INTO(ints_field, &tensor.ints),
                           .int64_data = INTO(ints_field, &tensor.ints),
                           .uint64_data = INTO(ints_field, &tensor.ints),
                           .double_data = INTO(doubles_field, &tensor.doubles),
                           .name = INTO(text_field, &tensor.name),
                           .raw_data = INTO(bytes_field, &tensor.raw),
                           .external_data = INTO(entry_field, &tensor.entries)};
  if (!pb_decode(stream, onnxpb_Tensor_fields, &message)) return false;
  tensor.type = message.data_type;
  tensor.external = message.data_location == 1;
  *out = tensor;
  return true;
}

FIELD(tensors_field) {
  TARGET(onnx_list, list);
  onnx_tensor tensor, *item;
  if (!read_tensor(stream, r, &tensor) || !(item = append(r, list, sizeof *item))) return false;
  *item = tensor;
  return true;
}

FIELD(tensor_field) {
  TARGET(onnx_tensor *, out);
  onnx_tensor *tensor = sfi_arena_alloc(r->arena, sizeof *tensor);
  if (!tensor) return out_of_memory(r);
  *out = tensor;
  return read_tensor(stream, r, tensor);
}

FIELD(attributes_field) {
  TARGET(onnx_list, list);
  ENTER(stream);
  onnx_attribute attribute = {.name = "", .s = ""}, *item;
  onnxpb_Attribute message = {.name = INTO(text_field, &attribute.name),
                              .s = INTO(text_field, &attribute.s),
                              .t = INTO(tensor_field, &attribute.t),
                              .floats = INTO(floats_field, &attribute.floats),
                              .ints = INTO(ints_field, &attribute.ints),
                              .strings = INTO(texts_field, &attribute.strings)};
  if (!pb_decode(stream, onnxpb_Attribute_fields, &message) || !(item = append(r, list, sizeof *item))) return false;
  attribute.type = message.type;
  attribute.f = message.f;
  attribute.i = message.i;
  *item = attribute;
  return true;
}

FIELD(nodes_field) {
  TARGET(onnx_list, list);
  ENTER(stream);
  onnx_node node = {.name = "", .op_type = "", .domain = ""}, *item;
  onnxpb_Node message = {.input = INTO(texts_field, &node.inputs),
                         .output = INTO(texts_field, &node.outputs),
                         .name = INTO(text_field, &node.name),
                         .op_type = INTO(text_field, &node.op_type),
                         .domain = INTO(text_field, &node.domain),
                         .attribute = INTO(attributes_field, &node.attributes)};
  if (!pb_decode(stream, onnxpb_Node_fields, &message) || !(item = append(r, list, sizeof *item))) return false;
  *item = node;
  return true;
}

FIELD(dimensions_field) {
  TARGET(onnx_list, list);
  ENTER(stream);
  onnx_dimension dimension = {.param = ""}, *item;
  onnxpb_Dimension message = {.dim_param = INTO(text_field, &dimension.param)};
  if (!pb_decode(stream, onnxpb_Dimension_fields, &message) || !(item = append(r, list, sizeof *item))) return false;
  dimension.has_value = message.has_dim_value;
  dimension.value = message.dim_value;
  *item = dimension;
  return true;
}

FIELD(shape_field) {
  TARGET(onnx_value_info, info);
  ENTER(stream);
  info->has_shape = true;
  onnxpb_Shape message = {.dim = INTO(dimensions_field, &info->dims)};
  return pb_decode(stream, onnxpb_Shape_fields, &message);
}

FIELD(tensor_type_field) {
  TARGET(onnx_value_info, info);
  ENTER(stream);
  onnxpb_TensorType message = {.shape = INTO(shape_field, info)};
  if (!pb_decode(stream, onnxpb_TensorType_fields, &message)) return false;
  info->type = message.elem_type;
  return true;
}

FIELD(type_field) {
  TARGET(onnx_value_info, info);
  ENTER(stream);
  onnxpb_Type message = {.tensor_type = INTO(tensor_type_field, info)};
  return pb_decode(stream, onnxpb_Type_fields, &message);
}

FIELD(infos_field) {
  TARGET(onnx_list, list);
  ENTER(stream);
  onnx_value_info info = {.name = ""}, *item;
  onnxpb_ValueInfo message = {.name = INTO(text_field, &info.name), .type = INTO(type_field, &info)};
  if (!pb_decode(stream, onnxpb_ValueInfo_fields, &message) || !(item = append(r, list, sizeof *item))) return false;
  *item = info;
  return true;
}

FIELD(count_field) {
  TARGET(size_t, count);
  onnx_bytes bytes;
  (void)r;
  ++*count;
  return take_bytes(stream, &bytes);
}

FIELD(graph_field) {
  TARGET(onnx_model, model);
  ENTER(stream);
  model->has_graph = true;
  onnxpb_Graph message = {.node = INTO(nodes_field, &model->nodes),
                          .name = INTO(text_field, &model->graph_name),
                          .initializer = INTO(tensors_field, &model->initializers),
                          .input = INTO(infos_field, &model->inputs),
                          .output = INTO(infos_field, &model->outputs),
                          .sparse_initializer = INTO(count_field, &model->sparse_initializers)};
  return pb_decode(stream, onnxpb_Graph_fields, &message);
}

FIELD(operator_sets_field) {
  TARGET(onnx_list, list);
  ENTER(stream);
  onnx_operator_set set = {.domain = ""}, *item;
  onnxpb_OperatorSet message = {.domain = INTO(text_field, &set.domain)};
  if (!pb_decode(stream, onnxpb_OperatorSet_fields, &message) || !(item = append(r, list, sizeof *item))) return false;
  set.version = message.version;
  *item = set;
  return true;
}

sf_status sfi_onnx_read(sfi_arena *arena, const void *data, size_t size, const char *file, sfi_diag *diag, onnx_model *out_model) {
  reader state = {.arena = arena, .at = data}, *r = &state;
  sfi_place place = {.file = file};
  onnx_model model = {.producer = "", .graph_name = ""};
  onnxpb_Model message = {.producer_name = INTO(text_field, &model.producer),
                          .graph = INTO(graph_field, &model),
                          .opset_import = INTO(operator_sets_field, &model.operator_sets)};
  pb_istream_t stream = {.callback = read_bytes, .state = r, .bytes_left = size};
  bool read = pb_decode(&stream, onnxpb_Model_fields, &message);
  if (state.out_of_memory) return sfi_fail_memory(diag);
  if (!read) {
    return sfi_fail(diag, SF_STATUS_MALFORMED_FILE, &place, NULL, "is no ONNX model, or is cut: %s near byte %zu",
                    PB_GET_ERROR(&stream), (size_t)(state.at - (const uint8_t *)data));
  }
  if (!model.has_graph) return sfi_fail(diag, SF_STATUS_MALFORMED_FILE, &place, NULL, "is no ONNX model: it has no graph");
  model.ir_version = message.ir_version;
  *out_model = model;
  return SF_OK;
}
