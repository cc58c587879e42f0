/* tools/npy.c: what NumPy writes is read, what is cut, wrong or hostile is refused with a message. */
#include <stdlib.h>
#include <unistd.h>

#include "npy.h"
#include "suite.h"

/* A file of `version` around `literal`, followed by `bytes` zero bytes of elements. Returns its size. */
static size_t make(char *out, int version, const char *literal, size_t bytes) {
  size_t start = version == 1 ? 10 : 12, length = strlen(literal);
  memcpy(out, "\x93NUMPY", 6);
  out[6] = (char)version;
  out[7] = 0;
  out[8] = (char)(length & 0xff);
  out[9] = (char)(length >> 8 & 0xff);
  if (version > 1) out[10] = out[11] = 0;
  memcpy(out + start, literal, length);
  memset(out + start + length, 0, bytes);
  return start + length + bytes;
}

/* Parses a copy that ends where its allocation ends, so that the address sanitizer sees any read behind it. */
static sf_status parse(const char *bytes, size_t size, sf_tensor *tensor, sf_error *error) {
  char *copy = malloc(size ? size : 1);
  ck_assert_ptr_nonnull(copy);
  memcpy(copy, bytes, size);
  size_t offset;
  *error = (sf_error){0};
  sf_status status = npy_parse(copy, size, "f.npy", tensor, &offset, error);
  free(copy);
  ck_assert_int_eq(status, error->status);
  ck_assert(status == SF_OK ? offset <= size : error->message[0] && strcmp(error->file, "f.npy") == 0);
  return status;
}

static const struct good {
  int version;
  const char *literal;
  size_t bytes;
  sf_dtype dtype;
  int32_t rank;
  int64_t dims[SF_MAX_RANK];
} good[] = {
    {1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }          \n", 24, SF_F32, 2, {2, 3}},
    {2, "{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }\n", 24, SF_F64, 1, {3}},
    {3, "{'descr': '<i8', 'fortran_order': False, 'shape': (), }\n", 8, SF_I64, 0, {0}},
    {1, "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1, 1, 1, 1, 5), }\n", 5, SF_U8, 6, {1, 1, 1, 1, 1, 5}},
    {1, "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 7), }\n", 0, SF_F32, 2, {0, 7}},
    {1, "{\"shape\":(2L,3L),\"fortran_order\":False,\"descr\":\"<f4\"}", 24, SF_F32, 2, {2, 3}},
    {1, "  { 'shape' : ( 2 , 3 , ) , 'descr' : '=f4' ,\t'fortran_order' : False }\n", 24, SF_F32, 2, {2, 3}},
    {1, "{'descr': '>u1', 'fortran_order': False, 'shape': (4,), }\n", 4, SF_U8, 1, {4}},
};

START_TEST(reads_what_numpy_writes) {
  char file[512];
  sf_tensor t;
  sf_error error;
  const struct good *g = &good[_i];
  size_t size = make(file, g->version, g->literal, g->bytes);
  ck_assert_msg(parse(file, size, &t, &error) == SF_OK, "%s: %s", g->literal, error.message);
  ck_assert_int_eq(t.dtype, g->dtype);
  ck_assert_int_eq(t.rank, g->rank);
  for (int32_t i = 0; i < g->rank; i++) ck_assert_int_eq(t.dims[i], g->dims[i]);
}
END_TEST

START_TEST(refuses_every_truncation) {
  char file[512];
  sf_tensor t;
  sf_error error;
  size_t size = make(file, good[_i].version, good[_i].literal, good[_i].bytes);
  for (size_t cut = 0; cut < size; cut++) {
    ck_assert_msg(parse(file, cut, &t, &error) != SF_OK, "accepted when cut to %zu of %zu bytes", cut, size);
    ck_assert_int_eq(t.rank, 0);
  }
  file[size] = 0;
  ck_assert_int_eq(parse(file, size + 1, &t, &error), SF_STATUS_MALFORMED_FILE);
}
END_TEST

/* No flip of one bit may read out of bounds or accept another number of elements than the file holds. */
START_TEST(survives_every_bit_flip) {
  char file[512];
  sf_error error;
  size_t size = make(file, good[_i].version, good[_i].literal, good[_i].bytes);
  for (size_t bit = 0; bit < 8 * (size - good[_i].bytes); bit++) {
    sf_tensor t;
    size_t bytes;
    file[bit / 8] ^= (char)(1 << bit % 8);
    if (parse(file, size, &t, &error) == SF_OK) {
      ck_assert(npy_bytes(&t, &bytes));
      ck_assert_uint_le(bytes, size);
    }
    file[bit / 8] ^= (char)(1 << bit % 8);
  }
}
END_TEST

static const struct bad {
  const char *literal;
  size_t bytes;
  sf_status status;
  const char *message;
} bad[] = {
    {"", 0, SF_STATUS_MALFORMED_FILE, "malformed"},
    {"{}", 0, SF_STATUS_MALFORMED_FILE, "malformed"},
    {"{'descr': '<f4', 'shape': (1,)}", 4, SF_STATUS_MALFORMED_FILE, "malformed"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), } x", 4, SF_STATUS_MALFORMED_FILE, "malformed"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1), }", 4, SF_STATUS_MALFORMED_FILE, "malformed"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1 1), }", 4, SF_STATUS_MALFORMED_FILE, "malformed"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (,), }", 4, SF_STATUS_MALFORMED_FILE, "malformed"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", 4, SF_STATUS_MALFORMED_FILE, "malformed"},
    {"{'descr': '<f4', 'fortran_order': 0, 'shape': (1,), }", 4, SF_STATUS_MALFORMED_FILE, "malformed"},
    {"{'descr': '<f4' 'fortran_order': False, 'shape': (1,), }", 4, SF_STATUS_MALFORMED_FILE, "malformed"},
    {"{'descr': 'a\\'b', 'fortran_order': False, 'shape': (1,), }", 4, SF_STATUS_MALFORMED_FILE, "malformed"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}", 4, SF_STATUS_MALFORMED_FILE, "unknown key \"x\""},
    {"{'descr': '<f4', 'descr': '<f8', 'shape': (1,), }", 4, SF_STATUS_MALFORMED_FILE, "\"descr\" twice"},
    {"{'descr': '<f4', 'fortran_order': True, 'shape': (1, 1), }", 4, SF_STATUS_UNSUPPORTED, "Fortran order"},
    {"{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }", 4, SF_STATUS_UNSUPPORTED, "big-endian"},
    {"{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", 8, SF_STATUS_UNSUPPORTED, "element type \"<c8\""},
    {"{'descr': '', 'fortran_order': False, 'shape': (1,), }", 8, SF_STATUS_UNSUPPORTED, "element type"},
    {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", 4, SF_STATUS_UNSUPPORTED, "structured"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1), }", 4, SF_STATUS_UNSUPPORTED, "6 dimensions"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", 4, SF_STATUS_MALFORMED_FILE, "malformed"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904,), }", 0, SF_STATUS_MALFORMED_FILE, "overflows"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 0), }", 0, SF_STATUS_MALFORMED_FILE, "overflows"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", 4, SF_STATUS_MALFORMED_FILE, "asks for 8 bytes"},
};

START_TEST(refuses_bad_headers) {
  char file[512];
  sf_tensor t;
  sf_error error;
  size_t size = make(file, 1, bad[_i].literal, bad[_i].bytes);
  ck_assert_msg(parse(file, size, &t, &error) == bad[_i].status, "%s: %d %s", bad[_i].literal, error.status, error.message);
  ck_assert_msg(strstr(error.message, bad[_i].message), "%s: %s", bad[_i].literal, error.message);
}
END_TEST

START_TEST(refuses_other_files) {
  char file[512];
  sf_tensor t;
  sf_error error;
  size_t size = make(file, 1, good[0].literal, good[0].bytes);
  file[6] = 4;
  ck_assert_int_eq(parse(file, size, &t, &error), SF_STATUS_UNSUPPORTED);
  ck_assert_ptr_nonnull(strstr(error.message, "version 4.0"));
  file[6] = 0;
  ck_assert_int_eq(parse(file, size, &t, &error), SF_STATUS_UNSUPPORTED);
  file[0] = 'P';
  ck_assert_int_eq(parse(file, size, &t, &error), SF_STATUS_MALFORMED_FILE);
  /* A header length of 4 GiB in a small file. */
  size = make(file, 2, good[1].literal, good[1].bytes);
  memset(file + 8, 0xff, 4);
  ck_assert_int_eq(parse(file, size, &t, &error), SF_STATUS_MALFORMED_FILE);
}
END_TEST

START_TEST(writes_what_it_reads) {
  float f[6] = {1, -2.5f, 0, 1e-30f, 4, 5};
  uint8_t u[3] = {1, 2, 255};
  int64_t i = INT64_MIN;
  double d[2] = {0.1, -1e300};
  const sf_tensor tensors[] = {{f, SF_F32, 3, {1, 2, 3}}, {u, SF_U8, 1, {3}},     {&i, SF_I64, 0, {0}},
                               {d, SF_F64, 2, {2, 1}},    {f, SF_F32, 2, {0, 4}}, {f, SF_F32, 6, {1, 1, 1, 1, 1, 6}}};
  char path[] = "/tmp/test_npy.XXXXXX";
  int fd = mkstemp(path);
  ck_assert_int_ge(fd, 0);
  close(fd);
  for (size_t k = 0; k < sizeof tensors / sizeof *tensors; k++) {
    sf_error error = {0};
    sf_tensor back;
    size_t bytes;
    ck_assert_int_eq(npy_write(path, &tensors[k], &error), SF_OK);
    ck_assert_msg(npy_read(path, 4096, &back, &error) == SF_OK, "%s", error.message);
    ck_assert_int_eq(back.dtype, tensors[k].dtype);
    ck_assert_int_eq(back.rank, tensors[k].rank);
    for (int32_t j = 0; j < back.rank; j++) ck_assert_int_eq(back.dims[j], tensors[k].dims[j]);
    ck_assert(npy_bytes(&back, &bytes));
    ck_assert_mem_eq(back.data, tensors[k].data, bytes);
    free(back.data);
  }
  /* Above the cap, missing, not writable, not a dtype of .npy files. */
  sf_error error = {0};
  sf_tensor back, half = {u, SF_F16, 1, {1}};
  ck_assert_int_eq(npy_read(path, 64, &back, &error), SF_STATUS_MALFORMED_FILE);
  ck_assert_ptr_null(back.data);
  unlink(path);
  ck_assert_int_eq(npy_read(path, 4096, &back, &error), SF_STATUS_NOT_FOUND);
  ck_assert_int_eq(npy_write("/nonexistent/a.npy", &tensors[0], &error), SF_STATUS_IO_ERROR);
  ck_assert_int_eq(npy_write(path, &half, &error), SF_STATUS_UNSUPPORTED);
}
END_TEST

/* The digits themselves, written by NumPy. */
START_TEST(reads_the_digits) {
  sf_tensor images, labels;
  sf_error error = {0};
  ck_assert_int_eq(npy_read(SFI_SOURCE_DIR "/examples/digits/images.npy", 1 << 20, &images, &error), SF_OK);
  ck_assert_int_eq(npy_read(SFI_SOURCE_DIR "/examples/digits/labels.npy", 1 << 20, &labels, &error), SF_OK);
  ck_assert(images.dtype == SF_F32 && images.rank == 4 && images.dims[0] == 500 && images.dims[3] == 8);
  ck_assert(labels.dtype == SF_I64 && labels.rank == 1 && labels.dims[0] == 500);
  int count[10] = {0};
  for (int64_t i = 0; i < 500; i++) {
    int64_t label = ((const int64_t *)labels.data)[i];
    ck_assert(label >= 0 && label < 10);
    count[label]++;
  }
  for (int i = 0; i < 10; i++) ck_assert(count[i] >= 45 && count[i] <= 55); /* stratified */
  free(images.data);
  free(labels.data);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("npy");
  TCase *t = tcase_create("npy");
  tcase_add_loop_test(t, reads_what_numpy_writes, 0, sizeof good / sizeof *good);
  tcase_add_loop_test(t, refuses_every_truncation, 0, sizeof good / sizeof *good);
  tcase_add_loop_test(t, survives_every_bit_flip, 0, sizeof good / sizeof *good);
  tcase_add_loop_test(t, refuses_bad_headers, 0, sizeof bad / sizeof *bad);
  tcase_add_test(t, refuses_other_files);
  tcase_add_test(t, writes_what_it_reads);
  tcase_add_test(t, reads_the_digits);
  suite_add_tcase(suite, t);
  return run_suite(suite);
}
