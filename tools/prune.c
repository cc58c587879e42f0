/* Pruning by magnitude. See prune.h. */
#include "prune.h"

#include <fnmatch.h>
#include <math.h>
#include <stdlib.h>

/* ---- patterns ----------------------------------------------------------------------------------------------------- */

static bool read_share(const char *text, double *out) {
  char *end;
  if (!(*text >= '0' && *text <= '9')) return false;
  *out = strtod(text, &end);
  return !*end && *out >= 0 && *out <= 1;
}

/* A whole number of 1 and more, then `end`; moves *text behind it. */
static bool read_count(const char **text, char end, int64_t *out) {
  char word[16];
  const char *stop = strchr(*text, end);
  if (!stop || (size_t)(stop - *text) >= sizeof word) return false;
  memcpy(word, *text, (size_t)(stop - *text));
  word[stop - *text] = 0;
  *text = stop + (end != 0);
  return tool_parse_integer(word, 1, 1 << 20, out);
}

bool prune_pattern_parse(const char *text, prune_pattern *out) {
  static const char global[] = "global:";
  *out = (prune_pattern){.kind = PRUNE_DENSE};
  if (strcmp(text, "dense") == 0) return true;
  if (strncmp(text, global, strlen(global)) == 0) {
    out->kind = PRUNE_GLOBAL;
    return read_share(text + strlen(global), &out->zeros);
  }
  if (strchr(text, 'x')) {
    out->kind = PRUNE_BLOCKS;
    return read_count(&text, 'x', &out->rows) && read_count(&text, ':', &out->columns) && read_share(text, &out->zeros);
  }
  if (strchr(text, ':')) {
    out->kind = PRUNE_NM;
    if (!read_count(&text, ':', &out->n)) return false;
    const char *axis = strchr(text, ':');
    if (!read_count(&text, axis ? ':' : 0, &out->m) || out->n > out->m) return false;
    out->along_outputs = axis && strcmp(text, "out") == 0;
    return !axis || out->along_outputs || strcmp(text, "in") == 0;
  }
  out->kind = PRUNE_MAGNITUDE;
  return read_share(text, &out->zeros);
}

bool prune_rules_add(prune_rules *rules, const char *glob, const char *pattern) {
  if (rules->count == PRUNE_RULES_MAX || !prune_pattern_parse(pattern, &rules->rules[rules->count].pattern)) return false;
  rules->rules[rules->count].glob = glob;
  rules->rules[rules->count++].text = pattern;
  return true;
}

/* ---- layers ------------------------------------------------------------------------------------------------------- */

static bool flag(const sf_graph *graph, sf_value value, sf_attr_id id) {
  sf_attr attr;
  return sf_graph_value_attr(graph, value, id, &attr) == SF_OK && attr.i != 0;
}

/* Operand i of `user` as a layer. A product's weight has its outputs in the dimension that is not summed over. */
static bool layer_of(const sf_graph *graph, sf_value user, int32_t i, prune_layer *out) {
  sf_value weight = sf_graph_operand(graph, user, i);
  sf_tensor_info info;
  sf_op op = sf_graph_value_op(graph, user);
  if (weight == SF_NO_VALUE || sf_graph_value_op(graph, weight) != SF_OP_WEIGHT) return false;
  if (sf_graph_value_info(graph, weight, &info) != SF_OK || info.dtype != SF_F32) return false;
  *out = (prune_layer){.weight = weight, .user = user, .name = info.name};
  sf_tensor_info result;
  if (sf_graph_value_info(graph, user, &result) == SF_OK) out->used_by = result.name;
  out->dense = sf_graph_value_data(graph, weight, NULL);
  if (op == SF_OP_MATMUL && info.rank == 2) {
    bool outputs_first = i == 0 ? !flag(graph, user, SF_ATTR_TRANSPOSE_A) : flag(graph, user, SF_ATTR_TRANSPOSE_B);
    out->rows = info.dims[outputs_first ? 0 : 1];
    out->columns = info.dims[outputs_first ? 1 : 0];
    out->row_step = outputs_first ? info.dims[1] : 1;
    out->column_step = outputs_first ? 1 : info.dims[1];
    return true;
  }
  if (op != SF_OP_CONV2D || i != 1) return false;
  out->rows = info.dims[0];
  out->columns = info.dims[1] * info.dims[2] * info.dims[3];
  out->row_step = out->columns;
  out->column_step = 1;
  return true;
}

static int64_t count_zeros(const prune_layer *layer, const float *data) {
  int64_t zeros = 0;
  for (int64_t i = 0; i < layer->rows * layer->columns; i++) zeros += data[i] == 0;
  return zeros;
}

/* ---- choosing what goes ------------------------------------------------------------------------------------------- */

/* Which of `count` sizes go so that a share of them does: those below *out_limit, and of those equal to it the first *out_equal. */
static bool find_limit(const float *sizes, int64_t count, double share, float *out_limit, int64_t *out_equal) {
  int64_t gone = (int64_t)floor(share * (double)count + 0.5), below = 0;
  *out_limit = 0;
  *out_equal = 0;
  if (gone == 0) return true;
  if (gone >= count) {
    *out_limit = INFINITY;
    *out_equal = count;
    return true;
  }
  float *copy = malloc((size_t)count * sizeof *copy);
  if (!copy) return false;
  memcpy(copy, sizes, (size_t)count * sizeof *copy);
  *out_limit = tool_select_kth(copy, count, gone - 1);
  free(copy);
  for (int64_t i = 0; i < count; i++) below += sizes[i] < *out_limit;
  *out_equal = gone - below;
  return true;
}

/* A NaN is larger than everything: it stays, and is seen. */
static float size_of(float x) {
  return isnan(x) ? INFINITY : fabsf(x);
}

static bool goes(float size, float limit, int64_t *equal) {
  return size < limit || (size == limit && (*equal)-- > 0);
}

static bool prune_magnitude(prune_layer *const *layers, int32_t n, double share) {
  int64_t total = 0, at = 0, equal;
  float limit;
  for (int32_t k = 0; k < n; k++) total += layers[k]->rows * layers[k]->columns;
  float *sizes = calloc((size_t)total + 1, sizeof *sizes);
  if (!sizes) return false;
  for (int32_t k = 0; k < n; k++) {
    for (int64_t i = 0; i < layers[k]->rows * layers[k]->columns; i++) sizes[at++] = size_of(layers[k]->dense[i]);
  }
  bool good = find_limit(sizes, total, share, &limit, &equal);
  at = 0;
  for (int32_t k = 0; k < n && good; k++) {
    for (int64_t i = 0; i < layers[k]->rows * layers[k]->columns; i++) {
      if (goes(sizes[at++], limit, &equal)) layers[k]->pruned[i] = 0;
    }
  }
  free(sizes);
  return good;
}

/* Of each m neighbours the n largest stay, of a shorter rest too. */
static void prune_nm(prune_layer *layer, const prune_pattern *p) {
  int64_t lines = p->along_outputs ? layer->columns : layer->rows, length = p->along_outputs ? layer->rows : layer->columns;
  int64_t line_step = p->along_outputs ? layer->column_step : layer->row_step;
  int64_t step = p->along_outputs ? layer->row_step : layer->column_step;
  for (int64_t line = 0; line < lines; line++) {
    for (int64_t first = 0; first < length; first += p->m) {
      int64_t group = first + p->m < length ? p->m : length - first;
      const float *dense = layer->dense + line * line_step + first * step;
      for (int64_t i = 0; i < group; i++) {
        int64_t larger = 0; /* those that come before it */
        float size = size_of(dense[i * step]);
        for (int64_t j = 0; j < group; j++) {
          float other = size_of(dense[j * step]);
          larger += other > size || (other == size && j < i);
        }
        if (larger >= p->n) layer->pruned[line * line_step + (first + i) * step] = 0;
      }
    }
  }
}

/* The blocks whose elements are smallest on average go; at the edges they are smaller. */
static bool prune_blocks(prune_layer *layer, const prune_pattern *p) {
  int64_t down = (layer->rows + p->rows - 1) / p->rows, across = (layer->columns + p->columns - 1) / p->columns, equal;
  float *sizes = malloc((size_t)(down * across) * sizeof *sizes + 1), limit;
  if (!sizes) return false;
  for (int pass = 0; pass < 2; pass++) {
    for (int64_t b = 0; b < down * across; b++) {
      int64_t r0 = b / across * p->rows, c0 = b % across * p->columns, count = 0;
      bool gone = pass && goes(sizes[b], limit, &equal);
      double sum = 0;
      for (int64_t r = r0; r < r0 + p->rows && r < layer->rows; r++) {
        for (int64_t c = c0; c < c0 + p->columns && c < layer->columns; c++, count++) {
          int64_t at = r * layer->row_step + c * layer->column_step;
          sum += (double)size_of(layer->dense[at]);
          if (gone) layer->pruned[at] = 0;
        }
      }
      if (!pass) sizes[b] = (float)(sum / (double)count);
    }
    if (!pass && !find_limit(sizes, down * across, p->zeros, &limit, &equal)) break;
    if (pass) {
      free(sizes);
      return true;
    }
  }
  free(sizes);
  return false;
}

/* ---- plans -------------------------------------------------------------------------------------------------------- */

static bool add_layer(prune_plan *plan, const prune_layer *layer) {
  for (int32_t i = 0; i < plan->count; i++) {
    if (plan->layers[i].weight == layer->weight) return true;
  }
  prune_layer *layers = realloc(plan->layers, ((size_t)plan->count + 1) * sizeof *layers);
  if (!layers) return false;
  plan->layers = layers;
  layers[plan->count++] = *layer;
  return true;
}

static bool fits(const prune_layer *layer, const char *glob) {
  return fnmatch(glob, layer->name, 0) == 0 || (layer->used_by && fnmatch(glob, layer->used_by, 0) == 0);
}

/* The first rule that fits no layer, a misspelt one; NULL: there is none. */
static const char *unused_rule(const prune_plan *plan, const prune_rules *rules) {
  for (int i = 0; i < rules->count; i++) {
    bool used = false;
    for (int32_t k = 0; k < plan->count; k++) used |= fits(&plan->layers[k], rules->rules[i].glob);
    if (!used) return rules->rules[i].glob;
  }
  return NULL;
}

static bool decide(prune_layer *layer, const prune_rules *rules) {
  for (int i = 0; i < rules->count; i++) {
    if (!fits(layer, rules->rules[i].glob)) continue;
    layer->pattern = rules->rules[i].pattern;
    layer->text = rules->rules[i].text;
  }
  layer->zeros_before = layer->zeros_after = count_zeros(layer, layer->dense);
  if (layer->pattern.kind == PRUNE_DENSE) return true;
  size_t bytes = (size_t)(layer->rows * layer->columns) * sizeof *layer->pruned;
  layer->pruned = malloc(bytes + 1);
  if (layer->pruned) memcpy(layer->pruned, layer->dense, bytes);
  return layer->pruned != NULL;
}

static bool prune(prune_plan *plan) {
  prune_layer **global = calloc((size_t)plan->count + 1, sizeof *global);
  int32_t n_global = 0;
  bool good = global != NULL;
  double share = 0;
  for (int32_t i = 0; i < plan->count && good; i++) {
    prune_layer *layer = &plan->layers[i];
    switch (layer->pattern.kind) {
    case PRUNE_DENSE:
      break;
    case PRUNE_MAGNITUDE:
      good = prune_magnitude(&layer, 1, layer->pattern.zeros);
      break;
    case PRUNE_GLOBAL: /* the last such rule says how many */
      global[n_global++] = layer;
      share = layer->pattern.zeros;
      break;
    case PRUNE_NM:
      prune_nm(layer, &layer->pattern);
      break;
    case PRUNE_BLOCKS:
      good = prune_blocks(layer, &layer->pattern);
      break;
    }
  }
  good = good && prune_magnitude(global, n_global, share);
  free(global);
  for (int32_t i = 0; i < plan->count && good; i++) {
    if (plan->layers[i].pruned) plan->layers[i].zeros_after = count_zeros(&plan->layers[i], plan->layers[i].pruned);
  }
  return good;
}

sf_status prune_plan_make(const sf_graph *graph, const prune_rules *rules, prune_plan *out_plan, sf_error *error) {
  prune_layer layer;
  bool good = true, any = false;
  *out_plan = (prune_plan){0};
  for (sf_value v = 0; v < sf_graph_value_count(graph); v++) {
    for (int32_t i = 0; i < 2; i++) {
      if (good && layer_of(graph, v, i, &layer)) good = add_layer(out_plan, &layer);
    }
  }
  const char *unused = unused_rule(out_plan, rules);
  for (int32_t i = 0; i < out_plan->count && good; i++) {
    good = decide(&out_plan->layers[i], rules);
    any |= out_plan->layers[i].pruned != NULL;
  }
  if (good && any && !unused) good = prune(out_plan);
  if (good && any && !unused) return SF_OK;
  prune_plan_end(out_plan);
  if (!good) return tool_fail(error, SF_STATUS_OUT_OF_MEMORY, NULL, 0, 0, "out of memory");
  if (unused) return tool_fail(error, SF_STATUS_NOT_FOUND, NULL, 0, 0, "no layer is called \"%s\"", unused);
  return tool_fail(error, SF_STATUS_NOT_FOUND, NULL, 0, 0, "no layer has a name that is to be pruned");
}

sf_status prune_plan_apply(const prune_plan *plan, sf_graph *graph) {
  for (int32_t i = 0; i < plan->count; i++) {
    const prune_layer *layer = &plan->layers[i];
    if (!layer->pruned) continue;
    size_t bytes = (size_t)(layer->rows * layer->columns) * sizeof *layer->pruned;
    sf_status status = sf_graph_set_weight(graph, layer->weight, layer->pruned, bytes, SF_BORROW);
    if (status != SF_OK) return status;
  }
  return SF_OK;
}

static double percent(int64_t part, int64_t whole) {
  return whole ? 100 * (double)part / (double)whole : 0;
}

void prune_plan_print(const prune_plan *plan, FILE *out) {
  int64_t before = 0, after = 0, total = 0;
  fprintf(out, "| layer | used by | outputs x inputs | pattern | zeros before | zeros after |\n|---|---|---|---|---|---|\n");
  for (int32_t i = 0; i < plan->count; i++) {
    const prune_layer *l = &plan->layers[i];
    int64_t count = l->rows * l->columns;
    fprintf(out, "| %s | %s | %lld x %lld | %s | %.2f %% | %.2f %% |\n", l->name, l->used_by ? l->used_by : "", (long long)l->rows,
            (long long)l->columns, l->text ? l->text : "dense", percent(l->zeros_before, count), percent(l->zeros_after, count));
    before += l->zeros_before;
    after += l->zeros_after;
    total += count;
  }
  fprintf(out, "| all layers | | %lld | | %.2f %% | %.2f %% |\n", (long long)total, percent(before, total), percent(after, total));
}

void prune_plan_end(prune_plan *plan) {
  for (int32_t i = 0; i < plan->count; i++) free(plan->layers[i].pruned);
  free(plan->layers);
  *plan = (prune_plan){0};
}
