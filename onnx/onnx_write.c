/* Encodes a model through nanopb. Every list is a callback, which nanopb calls once to learn the length of what encloses it and once to
 * write, so that nothing is held in memory twice. */
#include "onnx_model.h"

#include <onnx_model.pb.h>
#include <pb_encode.h>

#define FIELD(name) static bool name(pb_ostream_t *stream, const pb_field_iter_t *field, void *const *arg)
#define FROM(function, place) {.funcs.encode = function, .arg = (void *)(place)}

static bool put_bytes(pb_ostream_t *stream, const pb_field_iter_t *field, const void *data, size_t size) {
  return pb_encode_tag_for_field(stream, field) && pb_encode_string(stream, data, size);
}

/* An empty string is one that is left out. */
FIELD(text_field) {
  const char *text = *arg;
  return !text || !text[0] || put_bytes(stream, field, text, strlen(text));
}

FIELD(texts_field) {
  const onnx_list *list = *arg;
  for (size_t i = 0; i < list->count; i++) {
    const char *text = ONNX_AT(*list, const char *, i);
    if (!put_bytes(stream, field, text, strlen(text))) return false;
  }
  return true;
}

FIELD(bytes_field) {
  const onnx_bytes *bytes = *arg;
  return !bytes->data || put_bytes(stream, field, bytes->data, bytes->size);
}

FIELD(ints_field) {
  const onnx_list *list = *arg;
  for (size_t i = 0; i < list->count; i++) {
    if (!pb_encode_tag(stream, PB_WT_VARINT, field->tag) || !pb_encode_varint(stream, (uint64_t)ONNX_AT(*list, int64_t, i)))
      return false;
  }
  return true;
}

#define PUT(stream, field, type, message)                                                                                          \
  (pb_encode_tag_for_field(stream, field) && pb_encode_submessage(stream, type##_fields, message))

FIELD(tensors_field) {
  const onnx_list *list = *arg;
  for (size_t i = 0; i < list->count; i++) {
    const onnx_tensor *tensor = &ONNX_AT(*list, onnx_tensor, i);
    onnxpb_Tensor message = {.dims = FROM(ints_field, &tensor->dims),
                             .has_data_type = true,
                             .data_type = tensor->type,
                             .name = FROM(text_field, tensor->name),
                             .raw_data = FROM(bytes_field, &tensor->raw)};
    if (!PUT(stream, field, onnxpb_Tensor, &message)) return false;
  }
  return true;
}

FIELD(attributes_field) {
  const onnx_list *list = *arg;
  for (size_t i = 0; i < list->count; i++) {
    const onnx_attribute *a = &ONNX_AT(*list, onnx_attribute, i);
    onnxpb_Attribute message = {.name = FROM(text_field, a->name),
                                .has_f = a->type == ONNX_ATTRIBUTE_FLOAT,
                                .f = a->f,
                                .has_i = a->type == ONNX_ATTRIBUTE_INT,
                                .i = a->i,
                                .s = FROM(text_field, a->s),
                                .ints = FROM(ints_field, &a->ints),
                                .has_type = true,
                                .type = a->type};
    if (!PUT(stream, field, onnxpb_Attribute, &message)) return false;
  }
  return true;
}

FIELD(nodes_field) {
  const onnx_list *list = *arg;
  for (size_t i = 0; i < list->count; i++) {
    const onnx_node *node = &ONNX_AT(*list, onnx_node, i);
    onnxpb_Node message = {.input = FROM(texts_field, &node->inputs),
                           .output = FROM(texts_field, &node->outputs),
                           .name = FROM(text_field, node->name),
                           .op_type = FROM(text_field, node->op_type),
                           .attribute = FROM(attributes_field, &node->attributes)};
    if (!PUT(stream, field, onnxpb_Node, &message)) return false;
  }
  return true;
}

FIELD(dimensions_field) {
  const onnx_list *list = *arg;
  for (size_t i = 0; i < list->count; i++) {
    const onnx_dimension *dimension = &ONNX_AT(*list, onnx_dimension, i);
    onnxpb_Dimension message = {
        .has_dim_value = dimension->has_value, .dim_value = dimension->value, .dim_param = FROM(text_field, dimension->param)};
    if (!PUT(stream, field, onnxpb_Dimension, &message)) return false;
  }
  return true;
}

FIELD(shape_field) {
  const onnx_value_info *info = *arg;
  onnxpb_Shape message = {.dim = FROM(dimensions_field, &info->dims)};
  return PUT(stream, field, onnxpb_Shape, &message);
}

FIELD(tensor_type_field) {
  const onnx_value_info *info = *arg;
  onnxpb_TensorType message = {.has_elem_type = true, .elem_type = info->type, .shape = FROM(shape_field, info)};
  return PUT(stream, field, onnxpb_TensorType, &message);
}

FIELD(type_field) {
  onnxpb_Type message = {.tensor_type = FROM(tensor_type_field, *arg)};
  return PUT(stream, field, onnxpb_Type, &message);
}

FIELD(infos_field) {
  const onnx_list *list = *arg;
  for (size_t i = 0; i < list->count; i++) {
    const onnx_value_info *info = &ONNX_AT(*list, onnx_value_info, i);
    onnxpb_ValueInfo message = {.name = FROM(text_field, info->name), .type = FROM(type_field, info)};
    if (!PUT(stream, field, onnxpb_ValueInfo, &message)) return false;
  }
  return true;
}

FIELD(graph_field) {
  const onnx_model *model = *arg;
  onnxpb_Graph message = {.node = FROM(nodes_field, &model->nodes),
                          .name = FROM(text_field, model->graph_name),
                          .initializer = FROM(tensors_field, &model->initializers),
                          .input = FROM(infos_field, &model->inputs),
                          .output = FROM(infos_field, &model->outputs)};
  return PUT(stream, field, onnxpb_Graph, &message);
}

FIELD(operator_sets_field) {
  const onnx_list *list = *arg;
  for (size_t i = 0; i < list->count; i++) {
    onnxpb_OperatorSet message = {.has_version = true, .version = ONNX_AT(*list, onnx_operator_set, i).version};
    if (!PUT(stream, field, onnxpb_OperatorSet, &message)) return false;
  }
  return true;
}

typedef struct sink {
  sf_write_fn write;
  void *user;
} sink;

static bool write_out(pb_ostream_t *stream, const pb_byte_t *data, size_t count) {
  const sink *to = stream->state;
  return to->write(to->user, (const char *)data, count);
}

void sfi_onnx_write(const onnx_model *model, sf_write_fn write, void *user) {
  sink to = {write, user};
  onnxpb_Model message = {.has_ir_version = true,
                          .ir_version = model->ir_version,
                          .producer_name = FROM(text_field, model->producer),
                          .graph = FROM(graph_field, model),
                          .opset_import = FROM(operator_sets_field, &model->operator_sets)};
  pb_ostream_t stream = {.callback = write_out, .state = &to, .max_size = SIZE_MAX};
  pb_encode(&stream, onnxpb_Model_fields, &message); /* fails only where `write` ends it */
}
