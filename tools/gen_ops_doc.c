/* Prints docs/operations.md, the reference of operations, attributes and element types, from the tables of the public headers.
 * With a file named, compares instead: exit status 1 where the file is not what would be printed. */
#include <sparseflow/sparseflow.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Sections; an operation's element types are in its text. */
enum {
  FLAG_0,
  FLAG_INDEXED = 0,
  FLAG_INDEXABLE = 0,
  FLAG_LEAF,
  FLAG_ELEMENTWISE,
  FLAG_SHAPE,
  FLAG_SHAPE_INDEXED = FLAG_SHAPE,
  FLAG_SHAPE_ANY = FLAG_SHAPE
};
enum { SF_DTYPEF_COMPUTE = 1, SF_DTYPEF_FLOAT = 2, SF_DTYPEF_INTEGER = 4 };

typedef struct op_row {
  const char *text, *doc;
  int min, max;
  uint32_t attrs;
  int flags;
} op_row;
static const op_row ops[] = {
#define SF_OP(id, value, text, min, max, attrs, infer, flags, doc) {text, doc, min, max, attrs, FLAG_##flags},
#include <sparseflow/ops.def>
#undef SF_OP
};

static const struct {
  const char *text, *type, *def, *doc;
  int value;
} attrs[] = {
#define SF_ATTR(id, value, text, type, def, doc) {text, #type, def, doc, value},
#include <sparseflow/attrs.def>
#undef SF_ATTR
};

static const struct {
  const char *text, *stored;
  int bytes, flags;
} dtypes[] = {
#define SF_DTYPE(id, value, text, bytes, stored, flags) {text, stored, bytes, flags},
#include <sparseflow/dtypes.def>
#undef SF_DTYPE
};

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

/* A cell of a table: bars would end it. */
static void put_cell(FILE *out, const char *text) {
  for (; *text; text++) fprintf(out, *text == '|' ? "\\%c" : "%c", *text);
}

static void put_op(FILE *out, const op_row *op) {
  fprintf(out, "| `%s` | ", op->text);
  if (op->min == op->max)
    fprintf(out, "%d", op->min);
  else
    fprintf(out, "%d to %d", op->min, op->max);
  fprintf(out, " | ");
  const char *comma = "";
  for (size_t i = 0; i < COUNT(attrs); i++) {
    if (!(op->attrs & UINT32_C(1) << attrs[i].value)) continue;
    fprintf(out, "%s`%s`", comma, attrs[i].text);
    comma = ", ";
  }
  fprintf(out, " | ");
  put_cell(out, op->doc);
  fprintf(out, " |\n");
}

static void put_ops(FILE *out, const char *title, int flags) {
  fprintf(out, "\n## %s\n\n| operation | operands | attributes | result |\n|---|---|---|---|\n", title);
  for (size_t i = 0; i < COUNT(ops); i++) {
    if (ops[i].flags == flags) put_op(out, &ops[i]);
  }
}

static void put_attrs(FILE *out) {
  fprintf(out, "\n## Attributes\n\nWritten `name=value` behind the operands. Without a default, the attribute must be given.\n\n"
               "| attribute | value | default | meaning |\n|---|---|---|---|\n");
  for (size_t i = 0; i < COUNT(attrs); i++) {
    const char *type = strcmp(attrs[i].type, "INT") == 0 ? "integer" : strcmp(attrs[i].type, "FLOAT") == 0 ? "number" : "integers";
    fprintf(out, attrs[i].def[0] ? "| `%s` | %s | `%s` | " : "| `%s` | %s | %s | ", attrs[i].text, type, attrs[i].def);
    put_cell(out, attrs[i].doc);
    fprintf(out, " |\n");
  }
}

static void put_dtypes(FILE *out) {
  fprintf(out, "\n## Element types\n\nThose with which nothing computes yet may be stored and named. Integers are indices of "
               "`gather`, numbers by "
               "`cast`, and\nmoved by `reshape` and `transpose`; no output is of their types.\n\n"
               "| type | bytes | in safetensors | computed with |\n|---|---|---|---|\n");
  for (size_t i = 0; i < COUNT(dtypes); i++) {
    fprintf(out, "| `%s` | %d | `%s` | %s |\n", dtypes[i].text, dtypes[i].bytes, dtypes[i].stored,
            dtypes[i].flags & SF_DTYPEF_COMPUTE   ? "yes"
            : dtypes[i].flags & SF_DTYPEF_INTEGER ? "as indices"
                                                  : "not yet");
  }
}

static void put_all(FILE *out) {
  fprintf(out, "# Operations\n\n"
               "Made by `gen_ops_doc` (tools/gen_ops_doc.c) from `ops.def`, `attrs.def` and `dtypes.def` in include/sparseflow: "
               "edit those,\n"
               "then write its output here; a test compares. How lines are written is in [text-form.md](text-form.md).\n");
  put_ops(out, "Leaves", FLAG_LEAF);
  put_ops(out, "Products, normalisations, windows, reductions, conversions", FLAG_0);
  put_ops(out, "Elementwise", FLAG_ELEMENTWISE);
  put_ops(out, "Moving elements", FLAG_SHAPE);
  put_attrs(out);
  put_dtypes(out);
}

/* Is the file's text the same? */
static int compare(const char *path, const char *text, size_t length) {
  FILE *file = fopen(path, "rb");
  if (!file) return perror(path), 1;
  char *found = malloc(length + 2);
  size_t got = found ? fread(found, 1, length + 1, file) : 0;
  int differ = !found || got != length || memcmp(found, text, length) != 0;
  if (differ) fprintf(stderr, "%s is not what gen_ops_doc prints: write its output there\n", path);
  free(found);
  fclose(file);
  return differ;
}

int main(int argc, char **argv) {
  char *text = NULL;
  size_t length = 0;
  FILE *out = open_memstream(&text, &length);
  if (!out) return perror("gen_ops_doc"), 2;
  put_all(out);
  if (fclose(out) != 0) return perror("gen_ops_doc"), 2;
  int status = argc > 1 ? compare(argv[1], text, length) : fwrite(text, 1, length, stdout) != length;
  free(text);
  return status;
}
