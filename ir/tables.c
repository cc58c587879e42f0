/* The .def files as tables, and lookups by value and by name. */
#include "emitter.h"
#include "infer.h"

#define STRING2(x) #x
#define STRING(x) STRING2(x)

const char *sf_version(void) {
  return STRING(SF_VERSION_MAJOR) "." STRING(SF_VERSION_MINOR) "." STRING(SF_VERSION_PATCH);
}

static const struct {
  const char *text, *advice;
} statuses[] = {
#define SF_STATUS(id, value, text, advice) [value] = {text, advice},
#include <sparseflow/status.def>
#undef SF_STATUS
};

static const sfi_op_info ops[] = {
#define SF_OP(id, value, text, min, max, attrs, infer, flags, doc)                                                                 \
  [value] = {text, doc, min, max, attrs, SF_OPF_##flags, sfi_infer_##infer},
#include <sparseflow/ops.def>
#undef SF_OP
};

static const sfi_attr_info attrs[] = {
#define SF_ATTR(id, value, text, type, def, doc) [value] = {text, doc, def, SFI_ATTR_##type},
#include <sparseflow/attrs.def>
#undef SF_ATTR
};
_Static_assert(SFI_COUNT(attrs) <= 32, "sfi_op_info.attrs has a bit for each attribute");

static const sfi_dtype_info dtypes[] = {
#define SF_DTYPE(id, value, text, bytes, safetensors, flags) [value] = {text, safetensors, bytes, flags},
#include <sparseflow/dtypes.def>
#undef SF_DTYPE
};

static const char *const refusals[] = {
#define SFI_REFUSAL(id, text) [SFI_REFUSE_##id] = text,
#include "refusals.def"
#undef SFI_REFUSAL
};

/* Rows that a hole in the values leaves empty have no text. A value that a caller made up, negative ones included, is above. */
#define HAS(table, value) ((size_t)(value) < SFI_COUNT(table) && (table)[value].text)
#define ROW(table, value) (HAS(table, value) ? &(table)[value] : NULL)

const char *sf_status_text(sf_status status) {
  return HAS(statuses, status) ? statuses[status].text : "unknown status";
}

const char *sf_status_advice(sf_status status) {
  return HAS(statuses, status) ? statuses[status].advice
                               : "the library is newer than its caller: look up the number in its status.def";
}

const sfi_op_info *sfi_op_of(sf_op op) {
  return ROW(ops, op);
}
const sfi_attr_info *sfi_attr_info_of(sf_attr_id id) {
  return ROW(attrs, id);
}
const sfi_dtype_info *sfi_dtype_of(sf_dtype dtype) {
  return ROW(dtypes, dtype);
}
const char *sfi_refusal_text(sfi_refusal refusal) {
  return refusals[refusal];
}
int32_t sfi_op_count(void) {
  return SFI_COUNT(ops);
}
int32_t sfi_attr_count(void) {
  return SFI_COUNT(attrs);
}

static bool is_named(const char *row, const char *text, size_t length) {
  return row && strlen(row) == length && memcmp(row, text, length) == 0;
}

bool sfi_op_named(const char *text, size_t length, sf_op *out) {
  for (size_t i = 0; i < SFI_COUNT(ops); i++) {
    if (is_named(ops[i].text, text, length)) {
      *out = (sf_op)i;
      return true;
    }
  }
  return false;
}

bool sfi_attr_named(const char *text, size_t length, sf_attr_id *out) {
  for (size_t i = 0; i < SFI_COUNT(attrs); i++) {
    if (is_named(attrs[i].text, text, length)) {
      *out = (sf_attr_id)i;
      return true;
    }
  }
  return false;
}

bool sfi_dtype_named(const char *text, size_t length, sf_dtype *out) {
  for (size_t i = 0; i < SFI_COUNT(dtypes); i++) {
    if (is_named(dtypes[i].text, text, length)) {
      *out = (sf_dtype)i;
      return true;
    }
  }
  return false;
}

const sfi_attr_value *sfi_attr_of(const sfi_node *node, sf_attr_id id) {
  uint32_t mask = ops[node->op].attrs, bit = UINT32_C(1) << id;
  assert(mask & bit);
  return &node->attrs[__builtin_popcount(mask & (bit - 1))];
}
