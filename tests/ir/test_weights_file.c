/* The safetensors reader: good files in every form that JSON allows, hostile headers, every truncation, every changed byte, names that
 * leave the folder, what is no regular file, and a failure of every allocation. */
#include "failing_allocator.h"
#include "source.h"
#include "weights_file.h"
#include "suite.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static failing_allocator memory;
static sf_allocator allocator;
static char folder[] = "/tmp/sparseflow-weights-XXXXXX";

/* ---- helpers ------------------------------------------------------------------------------------------------------ */

/* A file in memory of exactly its length, so that the sanitizers see a read past it. */
typedef struct image {
  uint8_t *bytes;
  size_t size;
} image;

static image make(const char *header, size_t data_bytes) {
  uint64_t length = strlen(header);
  image file = {malloc(8 + length + data_bytes), 8 + length + data_bytes};
  memcpy(file.bytes, &length, 8);
  memcpy(file.bytes + 8, header, length);
  for (size_t i = 0; i < data_bytes; i++) file.bytes[8 + length + i] = (uint8_t)i;
  return file;
}

static sf_status open_image(image file, sf_error *out_error, sfi_mapping **out_mapping) {
  sfi_diag diag = {0};
  sf_status st = sfi_mapping_from_memory(&allocator, file.bytes, file.size, "m.safetensors", &diag, out_mapping);
  ck_assert_int_eq(st, diag.error.status);
  ck_assert((st == SF_OK) == (*out_mapping != NULL));
  if (out_error) *out_error = diag.error;
  return st;
}

/* All that a reader may rely on: ascending names, data inside the file, bytes as dtype and shape say. */
static void check_mapping(const sfi_mapping *mapping, image file) {
  for (size_t i = 0; i < sfi_mapping_count(mapping); i++) {
    const sfi_tensor_entry *entry = sfi_mapping_at(mapping, i);
    ck_assert_ptr_eq(sfi_mapping_find(mapping, entry->name), entry);
    if (i) ck_assert_int_lt(strcmp(sfi_mapping_at(mapping, i - 1)->name, entry->name), 0);
    ck_assert((const uint8_t *)entry->data >= file.bytes + 8);
    ck_assert((const uint8_t *)entry->data + entry->bytes <= file.bytes + file.size);
    ck_assert(entry->rank >= 0 && entry->rank <= SF_MAX_RANK);
    int64_t elements = 1;
    for (int32_t d = 0; d < entry->rank; d++) elements *= entry->dims[d];
    static const size_t bytes[] = {
#define SF_DTYPE(id, value, text, size, st, flags) [value] = size,
#include <sparseflow/dtypes.def>
#undef SF_DTYPE
    };
    if (!entry->unusable) ck_assert_uint_eq(entry->bytes, (size_t)elements * bytes[entry->dtype]);
  }
}

static const char good[] =
    "{\"__metadata__\":{\"format\":\"pt\"},\"b.w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
    "\"a\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[24,32]},"
    "\"none\":{\"dtype\":\"F16\",\"shape\":[0,7],\"data_offsets\":[32,32]}}  ";
enum { GOOD_BYTES = 32 };

/* ---- what is read ------------------------------------------------------------------------------------------------- */

START_TEST(a_good_file_is_read) {
  image file = make(good, GOOD_BYTES);
  sfi_mapping *mapping;
  ck_assert_int_eq(open_image(file, NULL, &mapping), SF_OK);
  check_mapping(mapping, file);
  ck_assert_uint_eq(sfi_mapping_count(mapping), 3);
  const sfi_tensor_entry *entry = sfi_mapping_find(mapping, "b.w");
  ck_assert(entry && entry->dtype == SF_F32 && entry->rank == 2 && entry->dims[0] == 2 && entry->dims[1] == 3 &&
            entry->bytes == 24);
  ck_assert_ptr_eq(entry->data, file.bytes + file.size - GOOD_BYTES);
  entry = sfi_mapping_find(mapping, "a");
  ck_assert(entry && entry->dtype == SF_I64 && entry->rank == 0 && entry->bytes == 8);
  entry = sfi_mapping_find(mapping, "none");
  ck_assert(entry && entry->dtype == SF_F16 && entry->rank == 2 && entry->bytes == 0 && !entry->unusable);
  ck_assert_ptr_null(sfi_mapping_find(mapping, "b"));
  ck_assert_ptr_null(sfi_mapping_find(mapping, "__metadata__"));
  sfi_mapping_retain(mapping);
  sfi_mapping_release(mapping);
  ck_assert_ptr_nonnull(sfi_mapping_find(mapping, "a"));
  sfi_mapping_release(mapping);
  sfi_mapping_release(NULL);
  free(file.bytes);
}
END_TEST

/* Header, data bytes, the one tensor's name; "" for none. */
static const struct {
  const char *header;
  size_t data_bytes;
  const char *name;
} accepted[] = {
    {"{}", 0, ""},
    {" {\t}\r\n ", 0, ""},
    {"{\"__metadata__\":{}}", 0, ""},
    {"{\"__metadata__\":{\"a\":\"\\ud83d\\ude00 \\u00e9 \\/ \\b\"}}", 0, ""},
    {"{ \"w\" : { \"shape\" : [ 1 ] , \"data_offsets\" : [ 0 , 4 ] , \"dtype\" : \"F32\" } }", 4, "w"},
    {"{\n  \"w\": {\n    \"dtype\": \"U8\",\n    \"shape\": [\n      3\n    ],\n    \"data_offsets\": [0, 3]\n  }\n}\n", 3, "w"},
    {"{\"\\ud83d\\ude00\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "\xf0\x9f\x98\x80"},
    {"{\"\xf0\x9f\x98\x80\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "\xf0\x9f\x98\x80"},
    {"{\"a\\\"\\\\\\n\\u0041\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "a\"\\\nA"},
    {"{\"{[,:]}\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "{[,:]}"},
    {"{\"# ' & * ! | > %\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "# ' & * ! | > %"},
    {"{\"\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, ""},
    {"{\"gap\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[5,6]}}", 9, "gap"},
    {"{\"w\":{\"dtype\":\"F8_E4M3\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4, "w"},
    {"{\"w\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1, "w"},
};

START_TEST(json_is_read_in_all_its_forms) {
  image file = make(accepted[_i].header, accepted[_i].data_bytes);
  sfi_mapping *mapping;
  sf_error error;
  ck_assert_msg(open_image(file, &error, &mapping) == SF_OK, "%s: %s", accepted[_i].header, error.message);
  check_mapping(mapping, file);
  if (accepted[_i].data_bytes) ck_assert_ptr_nonnull(sfi_mapping_find(mapping, accepted[_i].name));
  sfi_mapping_release(mapping);
  free(file.bytes);
}
END_TEST

START_TEST(what_cannot_be_a_weight_is_only_marked) {
  sfi_mapping *mapping;
  image file = make("{\"w\":{\"dtype\":\"F8_E4M3\",\"shape\":[4],\"data_offsets\":[0,4]},"
                    "\"deep\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1],\"data_offsets\":[4,8]}}",
                    8);
  ck_assert_int_eq(open_image(file, NULL, &mapping), SF_OK);
  ck_assert_str_eq(sfi_mapping_find(mapping, "w")->unusable, "elements of type F8_E4M3 are not supported");
  ck_assert_str_eq(sfi_mapping_find(mapping, "deep")->unusable, "7 dimensions are more than 6");
  sfi_mapping_release(mapping);
  free(file.bytes);
}
END_TEST

/* ---- what is refused ---------------------------------------------------------------------------------------------- */

#define TENSOR(name, dtype, shape, offsets)                                                                                        \
  "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define ONE(dtype, shape, offsets) "{" TENSOR("w", dtype, shape, offsets) "}"

/* Header for 16 bytes of data, what the message contains, the tensor named. */
static const struct {
  const char *header, *message, *tensor;
} refused[] = {
    /* numbers */
    {ONE("F32", "[4294967296,4294967296]", "[0,16]"), "the shape overflows", "w"},
    {ONE("F32", "[9223372036854775807]", "[0,16]"), "the shape overflows", "w"},
    {ONE("F32", "[2305843009213693952,2,0]", "[0,0]"), "the shape overflows", "w"},
    {ONE("F32", "[18446744073709551616]", "[0,16]"), "shape has an entry", "w"},
    {ONE("F32", "[99999999999999999999999999999999999999]", "[0,16]"), "shape has an entry", "w"},
    {ONE("F32", "[5]", "[0,16]"), "16 bytes are stored, but dtype and shape ask for 20", "w"},
    {ONE("F32", "[3]", "[0,16]"), "16 bytes are stored, but dtype and shape ask for 12", "w"},
    {ONE("F32", "[4]", "[0,16,16]"), "data_offsets has 3 entries", "w"},
    {ONE("F32", "[4]", "[16]"), "data_offsets has 1 entries", "w"},
    {ONE("F32", "[4]", "[]"), "data_offsets has 0 entries", "w"},
    {ONE("F32", "[4]", "[16,0]"), "end before they begin", "w"},
    {ONE("F32", "[4]", "[4,20]"), "leave the file's 16", "w"},
    {ONE("F32", "[0]", "[17,17]"), "leave the file's 16", "w"},
    {ONE("F32", "[4]", "[9223372036854775791,9223372036854775807]"), "leave the file's 16", "w"},
    {ONE("F32", "[4]", "[0,18446744073709551615]"), "data_offsets has an entry", "w"},
    {ONE("F8", "[4]", "[0,17]"), "leave the file's 16", "w"},
    {ONE("F32", "[4]", "[-4,12]"), "not the JSON", ""},
    {ONE("F32", "[4.0]", "[0,16]"), "not the JSON", ""},
    {ONE("F32", "[4e0]", "[0,16]"), "not the JSON", ""},
    {ONE("F32", "[0x4]", "[0,16]"), "not the JSON", ""},
    {ONE("F32", "[04]", "[0,16]"), "shape has an entry", "w"},
    {ONE("F32", "[\"4\"]", "[0,16]"), "shape has an entry", "w"},
    {ONE("F32", "[4 4]", "[0,16]"), "shape has an entry", "w"},
    {ONE("F32", "4", "[0,16]"), "shape is missing", "w"},
    {ONE("F32", "{}", "[0,16]"), "shape is missing", "w"},
    {ONE("F32", "[4]", "\"0\""), "data_offsets is missing", "w"},
    /* tensors */
    {"{" TENSOR("a", "F32", "[2]", "[0,8]") "," TENSOR("b", "F32", "[2]", "[4,12]") "}", "overlap those of \"a\"", "b"},
    {"{" TENSOR("a", "U8", "[16]", "[0,16]") "," TENSOR("b", "U8", "[1]", "[15,16]") "}", "overlap those of \"a\"", "b"},
    {"{" TENSOR("a", "U8", "[4]", "[4,8]") "," TENSOR("n", "U8", "[0]", "[6,6]") "," TENSOR("b", "U8", "[4]", "[7,11]") "}",
     "overlap those of \"a\"", "b"},
    {"{" TENSOR("a", "U8", "[4]", "[0,4]") "," TENSOR("a", "U8", "[4]", "[4,8]") "}", "the name stands there twice", "a"},
    {"{" TENSOR("a", "U8", "[0]", "[0,0]") "," TENSOR("\\u0061", "U8", "[0]", "[0,0]") "}", "the name stands there twice", "a"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[4]}}", "data_offsets is missing", "w"},
    {"{\"w\":{\"dtype\":\"F32\",\"data_offsets\":[0,16]}}", "shape is missing", "w"},
    {"{\"w\":{\"shape\":[4],\"data_offsets\":[0,16]}}", "dtype is missing", "w"},
    {"{\"w\":{}}", "dtype is missing", "w"},
    {"{\"w\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", "the key \"dtype\" stands there twice",
     "w"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16],\"name\":\"x\"}}", "unknown key \"name\"", "w"},
    {"{\"w\":{\"dtype\":32,\"shape\":[4],\"data_offsets\":[0,16]}}", "dtype is not a string", "w"},
    {"{\"w\":[]}", "description is missing", "w"},
    {"{\"w\":\"F32\"}", "description is missing", "w"},
    {"{\"w\":1}", "description is missing", "w"},
    {"{\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", "not a plain string", ""},
    /* metadata */
    {"{\"__metadata__\":{},\"__metadata__\":{}}", "stands there twice", "__metadata__"},
    {"{\"__metadata__\":{\"a\":1}}", "a value is not a string", "__metadata__"},
    {"{\"__metadata__\":{\"a\":{}}}", "a value is not a string", "__metadata__"},
    {"{\"__metadata__\":[]}", "mapping of strings is missing", "__metadata__"},
    {"{\"__metadata__\":\"pt\"}", "mapping of strings is missing", "__metadata__"},
    /* nesting */
    {"{\"w\":{\"shape\":[[4]]}}", "nests too deep at byte 15", ""},
    {"{\"w\":{\"shape\":[{}]}}", "nests too deep", ""},
    {"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "nests too deep", ""},
    {"{\"a\":{\"b\":{\"c\":{\"d\":{}}}}}", "nests too deep", ""},
    /* what YAML has beyond JSON */
    {"w: {dtype: F32}", "not the JSON", ""},
    {"{w: {}}", "not the JSON", ""},
    {"{'w': {}}", "not the JSON", ""},
    {"{\"w\": &a {}}", "not the JSON", ""},
    {"{\"w\": *a}", "not the JSON", ""},
    {"{\"w\": !!map {}}", "not the JSON", ""},
    {"{? \"w\" : {}}", "not the JSON", ""},
    {"{} # comment", "not the JSON", ""},
    {"---\n{}", "not the JSON", ""},
    {"%YAML 1.1\n---\n{}", "not the JSON", ""},
    {"{}\n...\n{}", "not the JSON", ""},
    {"{\"w\": |\n text}", "not the JSON", ""},
    {"{\"w\": null}", "not the JSON", ""},
    {"{\"w\": ~}", "not the JSON", ""},
    {"{\"w\"}", "description is missing", "w"},
    {"{\"w\":}", "description is missing", "w"},
    /* no JSON */
    {"", "ends in the middle", ""},
    {"   ", "ends in the middle", ""},
    {"{", "ends in the middle", ""},
    {"{\"", "ends in the middle", ""},
    {"{\"w", "ends in the middle", ""},
    {"{\"w\\", "not the JSON", ""},
    {"{\"w\":", "ends in the middle", ""},
    {"{\"w\":{", "ends in the middle", ""},
    {"}", "not the JSON", ""},
    {"{]", "not the JSON", ""},
    {"{}{}", "not the JSON", ""},
    {"{}]", "not the JSON", ""},
    {"{}\"w\"", "not the JSON", ""},
    {"\"w\"", "not the JSON", ""},
    {"1", "mapping of names to tensors is missing", ""},
    {"[]", "mapping of names to tensors is missing", ""},
    {"{,}", "not the JSON", ""},
    {"{\"w\":{},}", "not the JSON", ""},
    {"{\"w\":{\"shape\":[4,]}}", "not the JSON", ""},
    {"{\"w\":{\"shape\":[,4]}}", "not JSON", ""},
    {"{\"w\" {}}", "description is missing", "w"},
    {"{\"w\":{} \"v\":{}}", "dtype is missing", "w"},
    {"{\"a\nb\":{}}", "not the JSON", ""},
    {"{\"a\\x41\":{}}", "not the JSON", ""},
    {"{\"\\u00g0\":{}}", "not the JSON", ""},
    {"{\"\\ud83d\":{}}", "not the JSON", ""},
    {"{\"\\ud83d\\u0041\":{}}", "not the JSON", ""},
    {"{\"\\ude00\\ud83d\":{}}", "not the JSON", ""},
    {"{\"a\\\nb\":{}}", "not the JSON", ""},
    {"{\"a\xe2\x80\xa8z\":{}}", "not a plain string", ""}, /* U+2028, which YAML takes for a line break */
    {"{\"\xff\":{}}", "not JSON", ""},
    {"{\"\xc3\":{}}", "not JSON", ""},
    {"\xef\xbb\xbf{}", "not the JSON", ""},
};

START_TEST(hostile_headers_are_refused) {
  image file = make(refused[_i].header, 16);
  sfi_mapping *mapping;
  sf_error error;
  ck_assert_msg(open_image(file, &error, &mapping) == SF_STATUS_MALFORMED_FILE, "accepted: %s", refused[_i].header);
  ck_assert_msg(strstr(error.message, refused[_i].message), "%s\n%s", refused[_i].header, error.message);
  ck_assert_msg(strcmp(error.op, refused[_i].tensor) == 0, "%s: '%s'", refused[_i].header, error.op);
  ck_assert_str_eq(error.file, "m.safetensors");
  free(file.bytes);
}
END_TEST

START_TEST(hostile_lengths_are_refused) {
  static const uint64_t lengths[] = {9, 100 << 20, UINT64_C(1) << 32, INT64_MAX, UINT64_MAX, UINT64_MAX - 7};
  uint8_t bytes[16] = {0};
  sfi_mapping *mapping;
  for (size_t i = 0; i < SFI_COUNT(lengths); i++) {
    memcpy(bytes, &lengths[i], 8);
    ck_assert_int_eq(open_image((image){bytes, sizeof bytes}, NULL, &mapping), SF_STATUS_MALFORMED_FILE);
  }
  for (size_t size = 0; size < 8; size++) {
    ck_assert_int_eq(open_image((image){bytes, size}, NULL, &mapping), SF_STATUS_MALFORMED_FILE);
  }
}
END_TEST

START_TEST(many_tensors_and_long_names_are_bounded) {
  enum { MANY = 20000 };
  sfi_text header = {.allocator = &sfi_default_allocator};
  for (int i = 0; i < MANY; i++) {
    sfi_text_printf(&header, "%s\"%d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}", i ? "," : "{", i, MANY - i - 1,
                    MANY - i);
  }
  sfi_text_add(&header, "}", 1);
  image file = make(header.data, MANY);
  sfi_mapping *mapping;
  memory.peak_bytes = 0;
  ck_assert_int_eq(open_image(file, NULL, &mapping), SF_OK);
  ck_assert_int_lt(memory.peak_bytes, 16 * (long)header.length);
  check_mapping(mapping, file);
  sfi_mapping_release(mapping);
  free(file.bytes);
  sfi_text_deinit(&header);
}
END_TEST

/* ---- damage ------------------------------------------------------------------------------------------------------- */

START_TEST(every_truncation_is_refused) {
  image file = make(good, GOOD_BYTES);
  sfi_mapping *mapping;
  for (size_t size = 0; size < file.size; size++) {
    image cut = {malloc(size ? size : 1), size};
    memcpy(cut.bytes, file.bytes, size);
    ck_assert_int_eq(open_image(cut, NULL, &mapping), SF_STATUS_MALFORMED_FILE);
    free(cut.bytes);
  }
  free(file.bytes);
}
END_TEST

START_TEST(every_changed_byte_is_survived) {
  image file = make(good, GOOD_BYTES);
  for (size_t i = 0; i < file.size - GOOD_BYTES; i++) {
    uint8_t before = file.bytes[i];
    for (int value = 0; value < 256; value++) {
      sfi_mapping *mapping;
      file.bytes[i] = (uint8_t)value;
      sf_status st = open_image(file, NULL, &mapping);
      ck_assert(st == SF_OK || st == SF_STATUS_MALFORMED_FILE);
      if (st == SF_OK) check_mapping(mapping, file);
      sfi_mapping_release(mapping);
    }
    file.bytes[i] = before;
  }
  free(file.bytes);
}
END_TEST

/* ---- files -------------------------------------------------------------------------------------------------------- */

static const char *in_folder(const char *name) {
  static char path[256];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

static void write_file(const char *name, image file) {
  FILE *out = fopen(in_folder(name), "wb");
  ck_assert(out && fwrite(file.bytes, 1, file.size, out) == file.size);
  ck_assert_int_eq(fclose(out), 0);
}

static sf_status open_file(const char *name, sf_error *out_error, sfi_mapping **out_mapping) {
  sfi_diag diag = {0};
  sf_status st = sfi_mapping_open(&allocator, folder, name, &diag, out_mapping);
  ck_assert_int_eq(st, diag.error.status);
  ck_assert((st == SF_OK) == (*out_mapping != NULL));
  *out_error = diag.error;
  return st;
}

START_TEST(only_files_of_the_folder_are_opened) {
  static const struct {
    const char *name;
    sf_status status;
    const char *message;
  } rows[] = {
      {"good", SF_OK, ""},
      {"sub/good", SF_OK, ""},
      {"none", SF_STATUS_NOT_FOUND, "no such file"},
      {"sub/none", SF_STATUS_NOT_FOUND, "no such file"},
      {"", SF_STATUS_INVALID_GRAPH, "empty"},
      {"/etc/passwd", SF_STATUS_INVALID_GRAPH, "absolute"},
      {"../good", SF_STATUS_INVALID_GRAPH, "\"..\""},
      {"sub/../good", SF_STATUS_INVALID_GRAPH, "\"..\""},
      {"sub/../../x", SF_STATUS_INVALID_GRAPH, "\"..\""},
      {"./good", SF_STATUS_INVALID_GRAPH, "\".\""},
      {"sub//good", SF_STATUS_INVALID_GRAPH, "empty part"},
      {"sub/", SF_STATUS_INVALID_GRAPH, "empty part"},
      {"link", SF_OK, ""},
      {"far", SF_OK, ""},
      {"to_link", SF_OK, ""},
      {"to_sub", SF_STATUS_INVALID_GRAPH, "symbolic links"},
      {"to_fifo", SF_STATUS_INVALID_GRAPH, "symbolic links"},
      {"to_device", SF_STATUS_INVALID_GRAPH, "symbolic links"},
      {"ring", SF_STATUS_INVALID_GRAPH, "symbolic links"},
      {"to_short", SF_STATUS_MALFORMED_FILE, "too few"},
      {"link/x", SF_STATUS_INVALID_GRAPH, "symbolic links"},
      {"dangling", SF_STATUS_INVALID_GRAPH, "symbolic links"},
      {"out/passwd", SF_STATUS_INVALID_GRAPH, "symbolic links"},
      {"in/good", SF_STATUS_INVALID_GRAPH, "symbolic links"},
      {"good/x", SF_STATUS_IO_ERROR, "cannot be read"},
      {"sub", SF_STATUS_IO_ERROR, "not a regular file"},
      {"fifo", SF_STATUS_IO_ERROR, "not a regular file"},
      {"short", SF_STATUS_MALFORMED_FILE, "too few"},
  };
  image file = make(good, GOOD_BYTES);
  sf_error error;
  sfi_mapping *mapping;
  ck_assert_int_eq(mkdir(in_folder("sub"), 0700), 0);
  ck_assert_int_eq(mkfifo(in_folder("fifo"), 0600), 0);
  ck_assert_int_eq(symlink("good", in_folder("link")), 0);
  ck_assert_int_eq(symlink("../../blobs/none", in_folder("dangling")), 0);
  ck_assert_int_eq(mkdir(in_folder("blobs"), 0700), 0);
  ck_assert_int_eq(mkdir(in_folder("blobs/revision"), 0700), 0);
  ck_assert_int_eq(symlink("blobs/revision/../../good", in_folder("far")), 0);
  ck_assert_int_eq(symlink("link", in_folder("to_link")), 0);
  ck_assert_int_eq(symlink("sub", in_folder("to_sub")), 0);
  ck_assert_int_eq(symlink("fifo", in_folder("to_fifo")), 0);
  ck_assert_int_eq(symlink("/dev/null", in_folder("to_device")), 0);
  ck_assert_int_eq(symlink("ring", in_folder("ring")), 0);
  ck_assert_int_eq(symlink("short", in_folder("to_short")), 0);
  ck_assert_int_eq(symlink("/etc", in_folder("out")), 0);
  ck_assert_int_eq(symlink("sub", in_folder("in")), 0);
  write_file("good", file);
  write_file("sub/good", file);
  write_file("short", (image){file.bytes, 7});
  for (size_t i = 0; i < SFI_COUNT(rows); i++) {
    sf_status st = open_file(rows[i].name, &error, &mapping);
    ck_assert_msg(st == rows[i].status && strstr(error.message, rows[i].message), "%s: %s: %s", rows[i].name, sf_status_text(st),
                  error.message);
    if (st != SF_OK) ck_assert_str_eq(error.file, rows[i].name);
    sfi_mapping_release(mapping);
  }
  char *name = calloc(1, 5001);
  memset(name, 'a', 5000);
  ck_assert_int_eq(open_file(name, &error, &mapping), SF_STATUS_INVALID_GRAPH);
  free(name);
  free(file.bytes);
}
END_TEST

START_TEST(data_of_a_file_is_aligned) {
  sf_error error;
  sfi_mapping *mapping;
  char header[256];
  for (int pad = 0; pad < 70; pad++) {
    snprintf(header, sizeof header, "%s%*s", ONE("F32", "[4]", "[0,16]"), pad, "");
    image file = make(header, 16);
    write_file("good", file);
    ck_assert_int_eq(open_file("good", &error, &mapping), SF_OK);
    const sfi_tensor_entry *entry = sfi_mapping_find(mapping, "w");
    ck_assert_uint_eq((uintptr_t)entry->data % 16, 0);
    ck_assert_mem_eq(entry->data, file.bytes + file.size - 16, 16);
    sfi_mapping_release(mapping);
    free(file.bytes);
  }
}
END_TEST

static void *allocate_little(void *user, size_t bytes, size_t alignment) {
  return bytes > 1 << 20 ? NULL : failing_allocate(user, bytes, alignment);
}

/* A sparse file that holds far more than there is memory for is opened without reading it. */
START_TEST(huge_files_cost_nothing_until_they_are_read) {
  sfi_diag diag = {0};
  sfi_mapping *mapping;
  image file = make(ONE("U8", "[1099511627776]", "[0,1099511627776]"), 0);
  write_file("huge", file);
  ck_assert_int_eq(truncate(in_folder("huge"), ((off_t)1 << 40) + (off_t)file.size), 0);
  const sf_allocator little = {&memory, allocate_little, failing_release};
  ck_assert_int_eq(sfi_mapping_open(&little, folder, "huge", &diag, &mapping), SF_OK);
  ck_assert_ptr_null(sfi_source_open(sfi_mapping_find(mapping, "w")->source, &diag));
  ck_assert_int_eq(diag.error.status, SF_STATUS_OUT_OF_MEMORY);
  sfi_mapping_release(mapping);
  free(file.bytes);
}
END_TEST

/* A file "good" with one tensor, w, of SFI_SOURCE_LEAST bytes and some, in more than one piece. */
static const char large[] = ONE("U8", "[600000]", "[0,600000]");
enum { LARGE_BYTES = 600000 };

static sfi_source *open_large(image *out_file, sfi_mapping **out_mapping) {
  sf_error error;
  *out_file = make(large, LARGE_BYTES);
  write_file("good", *out_file);
  ck_assert_int_eq(open_file("good", &error, out_mapping), SF_OK);
  const sfi_tensor_entry *entry = sfi_mapping_find(*out_mapping, "w");
  ck_assert(!entry->data && entry->source && entry->bytes == LARGE_BYTES);
  return entry->source;
}

START_TEST(large_tensors_are_read_when_they_are_needed) {
  image file;
  sfi_mapping *mapping;
  sfi_diag diag = {0};
  sfi_digest digest;
  sfi_source *source = open_large(&file, &mapping);
  const uint8_t *bytes = file.bytes + file.size - LARGE_BYTES;
  const long live = memory.live;
  memory.peak_bytes = 0;
  ck_assert(sfi_source_digest(source, &diag, &digest));
  const sfi_digest expected = sfi_digest_of(bytes, LARGE_BYTES);
  ck_assert_mem_eq(&digest, &expected, sizeof digest);
  ck_assert_int_lt(memory.peak_bytes, LARGE_BYTES); /* in pieces */
  ck_assert_int_eq(memory.live, live);
  const void *first = sfi_source_open(source, &diag), *second = sfi_source_open(source, &diag);
  ck_assert_ptr_nonnull(first);
  ck_assert_ptr_eq(first, second);
  ck_assert_uint_eq((uintptr_t)first % 64, 0);
  ck_assert_mem_eq(first, bytes, LARGE_BYTES);
  sfi_source_close(source);
  ck_assert_mem_eq(first, bytes, LARGE_BYTES);
  sfi_source_close(source);
  ck_assert_int_eq(memory.live, live);
  uint8_t *copy = malloc(LARGE_BYTES);
  ck_assert(sfi_source_copy(source, 1000, LARGE_BYTES - 1000, copy, &diag));
  ck_assert_mem_eq(copy, bytes + 1000, LARGE_BYTES - 1000);
  ck_assert_int_eq(memory.live, live);
  /* The file itself may go. */
  unlink(in_folder("good"));
  ck_assert_ptr_nonnull(sfi_source_open(source, &diag));
  sfi_mapping_release(mapping); /* frees what is open */
  free(copy);
  free(file.bytes);
}
END_TEST

/* What is made of a weight is kept under its digest: no other bytes may go by it. */
START_TEST(a_file_that_changes_after_it_was_digested_is_refused) {
  image file;
  sfi_mapping *mapping;
  sfi_diag diag = {0};
  sfi_digest digest;
  sfi_source *source = open_large(&file, &mapping);
  ck_assert(sfi_source_digest(source, &diag, &digest));
  file.bytes[file.size - 1] ^= 1;
  FILE *out = fopen(in_folder("good"), "r+b");
  ck_assert(out && fwrite(file.bytes, 1, file.size, out) == file.size && fclose(out) == 0);
  ck_assert_ptr_null(sfi_source_open(source, &diag));
  ck_assert_int_eq(diag.error.status, SF_STATUS_MALFORMED_FILE);
  ck_assert_str_eq(diag.error.message, "has changed since it was opened");
  ck_assert_str_eq(diag.error.op, "w");
  ck_assert_str_eq(diag.error.file, "good");
  diag = (sfi_diag){0};
  ck_assert_int_eq(truncate(in_folder("good"), (off_t)file.size - 1), 0);
  ck_assert_ptr_null(sfi_source_open(source, &diag));
  ck_assert_str_eq(diag.error.message, "has become shorter while it was read");
  sfi_mapping_release(mapping);
  free(file.bytes);
}
END_TEST

START_TEST(every_allocation_may_fail) {
  image file = make(good, GOOD_BYTES);
  write_file("good", file);
  long k = 1;
  for (bool done = false; !done; k++) {
    sf_error error;
    sfi_mapping *mapping;
    memory.calls = 0;
    memory.fail_at = k;
    sf_status st = open_file("good", &error, &mapping);
    done = memory.calls < k;
    memory.fail_at = 0;
    ck_assert_int_eq(st, done ? SF_OK : SF_STATUS_OUT_OF_MEMORY);
    sfi_mapping_release(mapping);
    ck_assert_int_eq(memory.live, 0);
  }
  ck_assert_int_gt(k, 5);
  free(file.bytes);
}
END_TEST

static void nothing_leaks(void) {
  ck_assert_int_eq(memory.live, 0);
}

int main(void) {
  if (!mkdtemp(folder)) return 2;
  allocator = failing_allocator_of(&memory);
  Suite *suite = suite_create("weights_file");
  TCase *tests = tcase_create("safetensors");
  tcase_set_timeout(tests, 300);
  tcase_add_checked_fixture(tests, NULL, nothing_leaks);
  tcase_add_test(tests, a_good_file_is_read);
  tcase_add_loop_test(tests, json_is_read_in_all_its_forms, 0, SFI_COUNT(accepted));
  tcase_add_test(tests, what_cannot_be_a_weight_is_only_marked);
  tcase_add_loop_test(tests, hostile_headers_are_refused, 0, SFI_COUNT(refused));
  tcase_add_test(tests, hostile_lengths_are_refused);
  tcase_add_test(tests, many_tensors_and_long_names_are_bounded);
  tcase_add_test(tests, every_truncation_is_refused);
  tcase_add_test(tests, every_changed_byte_is_survived);
  tcase_add_test(tests, only_files_of_the_folder_are_opened);
  tcase_add_test(tests, data_of_a_file_is_aligned);
  tcase_add_test(tests, huge_files_cost_nothing_until_they_are_read);
  tcase_add_test(tests, large_tensors_are_read_when_they_are_needed);
  tcase_add_test(tests, a_file_that_changes_after_it_was_digested_is_refused);
  tcase_add_test(tests, every_allocation_may_fail);
  suite_add_tcase(suite, tests);
  int failed = run_suite(suite);
  static const char *const files[] = {"good", "sub/good", "short",   "huge",   "fifo",    "link",      "dangling", "out",
                                      "in",   "far",      "to_link", "to_sub", "to_fifo", "to_device", "ring",     "to_short"};
  for (size_t i = 0; i < SFI_COUNT(files); i++) unlink(in_folder(files[i]));
  rmdir(in_folder("sub"));
  rmdir(in_folder("blobs/revision"));
  rmdir(in_folder("blobs"));
  rmdir(folder);
  return failed;
}
