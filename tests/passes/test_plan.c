/* Plans as records: every rule of the verifier broken once, keys that change with what code depends on and with nothing else, tiles,
 * sizes, and the choice among made-up emitters. */
#include "plan_fixture.h"

static sfi_plan plan;
static sf_context *context;
static sf_graph *graph;

static void start(int network, sf_isa isa, int64_t symbol_min, int64_t symbol_max) {
  const plan_case c = {isa, symbol_min, symbol_max, true};
  sfi_diag diag = {0};
  context = plain_context(1);
  graph = build_network(context, network, 5);
  ck_assert_msg(make_plan(graph, &sfi_default_allocator, &c, &plan, &diag) == SF_OK, "%s", diag.error.message);
}

static void end(void) {
  sfi_arena_deinit(&plan.arena);
  sf_graph_release(graph);
  sf_context_release(context);
}

enum { DENSE, IMAGE, MIXED };

static sfi_kernel *kernel_of(sfi_anchor anchor) {
  for (size_t k = 0; k < plan.n_kernels; k++) {
    if (plan.kernels[k].anchor == anchor) return &plan.kernels[k];
  }
  ck_abort_msg("no kernel of anchor %d", (int)anchor);
}

static sfi_buffer *buffer_of(const sfi_kernel *kernel, int32_t operand) {
  return &plan.buffers[kernel->operand[operand].buffer];
}

/* ---- verifier ----------------------------------------------------------------------------------------------------- */

typedef struct fault {
  int network;
  sfi_anchor anchor;
  void (*breaks)(sfi_kernel *k);
  const char *message;
} fault;

static void no_buffer(sfi_kernel *k) {
  k->operand[1].buffer = (int32_t)plan.n_buffers;
}
static void writes_input(sfi_kernel *k) {
  k->operand[0].buffer = k->operand[1].buffer, plan.buffers[k->operand[1].buffer].kind = SFI_BUFFER_INPUT;
}
static void no_epilogue(sfi_kernel *k) {
  k->epilogue.n = 0;
}
static void value_in_map(sfi_kernel *k) {
  k->epilogue.steps[0].kind = SFI_STEP_ARG;
}
static void load_of_none(sfi_kernel *k) {
  k->epilogue.steps[0] = (sfi_step){.kind = SFI_STEP_LOAD, .operand = k->n_operands};
}
static void load_of_packed(sfi_kernel *k) {
  k->epilogue.steps[0] = (sfi_step){.kind = SFI_STEP_LOAD, .operand = 2};
}
static void later_step(sfi_kernel *k) {
  k->epilogue.steps[k->epilogue.n - 1].a = k->epilogue.n - 1;
}
static void not_elementwise(sfi_kernel *k) {
  k->epilogue.steps[k->epilogue.n - 1].op = SF_OP_SOFTMAX;
}
static void no_rank(sfi_kernel *k) {
  k->rank = 0;
}
static void no_division(sfi_kernel *k) {
  k->extent[0].div = 0;
}
static void last_tiled(sfi_kernel *k) {
  k->tile_dims = k->rank;
}
static void axis_tiled(sfi_kernel *k) {
  k->axis = 0;
  k->tile_dims = 1;
}
static void other_columns(sfi_kernel *k) {
  k->ragged.columns = sfi_const(3);
}
static void other_width(sfi_kernel *k) {
  k->ragged.width = 32, k->extent[0].div = 32, k->extent[2].of = sfi_const(32);
}
static void lane_stride(sfi_kernel *k) {
  k->operand[0].stride[k->ragged.lane] = sfi_const(2);
}
static void other_rows(sfi_kernel *k) {
  k->contract.rows++;
}
static void other_depth(sfi_kernel *k) {
  k->contract.depth.c[0]++;
}
static void no_facts(sfi_kernel *k) {
  k->contract.facts = NULL;
}
static void strided_columns(sfi_kernel *k) {
  k->operand[1].stride[2] = sfi_const(2);
}
static void narrow_pitch(sfi_kernel *k) {
  k->contract.pitch = k->contract.valid - 1;
}
static void no_positions(sfi_kernel *k) {
  k->contract.k_offset = NULL;
}
static void too_few_operands(sfi_kernel *k) {
  k->n_operands = 2, k->epilogue.n = 1;
}
static void bound_of_none(sfi_kernel *k) {
  k->bound[0].operand = 7;
}
static void no_pre(sfi_kernel *k) {
  k->pre.n = 0;
}
static void no_reduction(sfi_kernel *k) {
  k->reduce_rank = 0;
}
static void pool_rank(sfi_kernel *k) {
  k->rank = 3;
}
static void far_offset(sfi_kernel *k) {
  k->operand[1].offset = sfi_const(100000);
}
static void negative_offset(sfi_kernel *k) {
  k->operand[0].offset = sfi_const(-1);
}
static void far_stride(sfi_kernel *k) {
  k->operand[0].stride[0].c[0] *= 2, k->operand[0].stride[0].c[1] *= 2;
}
static void no_slack(sfi_kernel *k) {
  buffer_of(k, 1)->slack = 0;
}
static void no_name(sfi_kernel *k) {
  k->name = NULL;
}
static void unwritten(sfi_kernel *k) {
  buffer_of(k, 1)->kind = SFI_BUFFER_TEMP;
}
static void output_lost(sfi_kernel *k) {
  (void)k, buffer_of(&plan.kernels[plan.n_kernels - 1], 0)->kind = SFI_BUFFER_TEMP;
}
static void empty_class(sfi_kernel *k) {
  (void)k, plan.symbol_max = plan.symbol_min - 1;
}
static void no_type(sfi_kernel *k) {
  buffer_of(k, 0)->dtype = (sf_dtype)99;
}
static void no_port(sfi_kernel *k) {
  buffer_of(k, 1)->index = 9;
}
static void host_panels(sfi_kernel *k) {
  buffer_of(k, 1)->panel = 16;
}

static const fault faults[] = {
    {DENSE, SFI_ANCHOR_MAP, no_buffer, "no such buffer"},
    {DENSE, SFI_ANCHOR_MAP, writes_input, "not its to write"},
    {DENSE, SFI_ANCHOR_MAP, no_epilogue, "an expression of no step"},
    {DENSE, SFI_ANCHOR_MAP, value_in_map, "where the anchor has none"},
    {DENSE, SFI_ANCHOR_CONTRACT, load_of_none, "a load of no operand"},
    {DENSE, SFI_ANCHOR_CONTRACT, load_of_packed, "a load of packed weights"},
    {DENSE, SFI_ANCHOR_CONTRACT, later_step, "a step of a later one"},
    {DENSE, SFI_ANCHOR_CONTRACT, not_elementwise, "not elementwise"},
    {DENSE, SFI_ANCHOR_MAP, no_rank, "rank"},
    {DENSE, SFI_ANCHOR_MAP, no_division, "divided by nothing"},
    {DENSE, SFI_ANCHOR_MAP, last_tiled, "tiles over the last dimension"},
    {DENSE, SFI_ANCHOR_SOFTMAX, axis_tiled, "axis"},
    {DENSE, SFI_ANCHOR_MAP, other_columns, "panels"},
    {DENSE, SFI_ANCHOR_MAP, other_width, "panels in another space"},
    {DENSE, SFI_ANCHOR_MAP, lane_stride, "lanes of a panel"},
    {DENSE, SFI_ANCHOR_CONTRACT, other_rows, "rows"},
    {DENSE, SFI_ANCHOR_CONTRACT, other_depth, "depth"},
    {DENSE, SFI_ANCHOR_CONTRACT, no_facts, "a weight that is not static"},
    {IMAGE, SFI_ANCHOR_CONTRACT, strided_columns, "not contiguous"},
    {IMAGE, SFI_ANCHOR_CONTRACT, narrow_pitch, "image rows"},
    {IMAGE, SFI_ANCHOR_CONTRACT, no_positions, "image rows"},
    {IMAGE, SFI_ANCHOR_CONTRACT, too_few_operands, "three dimensions and operands"},
    {IMAGE, SFI_ANCHOR_MAP, bound_of_none, "a bound of no operand"},
    {IMAGE, SFI_ANCHOR_REDUCE, no_pre, "an expression before an anchor"},
    {IMAGE, SFI_ANCHOR_REDUCE, no_reduction, "reduction dimensions"},
    {IMAGE, SFI_ANCHOR_POOL, pool_rank, "not over images"},
    {IMAGE, SFI_ANCHOR_POOL, far_offset, "operand 1 reaches"},
    {IMAGE, SFI_ANCHOR_POOL, negative_offset, "operand 0 reaches from -1"},
    {IMAGE, SFI_ANCHOR_CONTRACT, far_offset, "operand 1 reaches"},
    {IMAGE, SFI_ANCHOR_CONTRACT, far_stride, "operand 0 reaches"},
    {IMAGE, SFI_ANCHOR_CONTRACT, no_slack, "operand 1 reaches"},
    {IMAGE, SFI_ANCHOR_REDUCE, far_offset, "operand 1 reaches"},
    {MIXED, SFI_ANCHOR_PRODUCT, far_offset, "operand 1 reaches"},
    {MIXED, SFI_ANCHOR_MAP, no_name, "without a name"},
    {MIXED, SFI_ANCHOR_MAP, unwritten, "nothing has written"},
    {DENSE, SFI_ANCHOR_MAP, output_lost, "nothing writes output y"},
    {DENSE, SFI_ANCHOR_MAP, empty_class, "an empty class"},
    {DENSE, SFI_ANCHOR_MAP, no_type, "has no type"},
    {DENSE, SFI_ANCHOR_MAP, no_port, "no port of the graph"},
    {DENSE, SFI_ANCHOR_MAP, host_panels, "the host's, but not dense"},
};

START_TEST(faults_are_found) {
  const fault *f = &faults[_i];
  sfi_diag diag = {0};
  start(f->network, SF_ISA_AVX512, 2, INT64_MAX);
  f->breaks(kernel_of(f->anchor));
  ck_assert_int_eq(sfi_plan_verify(&plan, &diag), SF_STATUS_INTERNAL);
  ck_assert_msg(strstr(diag.error.message, f->message) != NULL, "'%s' without '%s'", diag.error.message, f->message);
  end();
}
END_TEST

/* ---- keys --------------------------------------------------------------------------------------------------------- */

static char *key_of(const sfi_kernel *kernel) {
  sfi_text text = {.allocator = &sfi_default_allocator};
  sfi_kernel_key(&plan, kernel, &text);
  ck_assert(!text.failed && text.length > 0);
  return text.data; /* the default allocator's memory is free()'s */
}

/* Positions, names and numbers of buffers are not part of a key; the same layer elsewhere has the same. */
START_TEST(keys_ignore_positions) {
  start(DENSE, SF_ISA_AVX512, 2, INT64_MAX);
  sfi_kernel *k = kernel_of(SFI_ANCHOR_CONTRACT);
  char *before = key_of(k);
  plan.buffers = sfi_arena_copy(&plan.arena, plan.buffers, 2 * plan.n_buffers * sizeof *plan.buffers);
  memcpy(plan.buffers + plan.n_buffers, plan.buffers, plan.n_buffers * sizeof *plan.buffers);
  for (int32_t i = 0; i < k->n_operands; i++) k->operand[i].buffer += (int32_t)plan.n_buffers;
  k->name = "another";
  k->choice = "for another reason";
  k->predicted_us = 77;
  k->contract.weight_digest.bytes[0] ^= 1;
  char *after = key_of(k);
  ck_assert_str_eq(before, after);
  free(before);
  free(after);
  end();
}
END_TEST

static void change_extent(sfi_kernel *k) {
  k->extent[1].of.c[0]++;
}
static void change_ragged(sfi_kernel *k) {
  k->ragged.columns.c[1]++;
}
static void change_stride(sfi_kernel *k) {
  k->operand[1].stride[0].c[0]++;
}
static void change_offset(sfi_kernel *k) {
  k->operand[0].offset.c[1]++;
}
static void change_step(sfi_kernel *k) {
  k->epilogue.steps[k->epilogue.n - 1].op = SF_OP_TANH;
}
static void change_constant(sfi_kernel *k) {
  k->epilogue.steps[0] = (sfi_step){.kind = SFI_STEP_CONST, .value = -0.0f};
}
static void change_rows(sfi_kernel *k) {
  k->tile.rows++;
}
static void change_vectors(sfi_kernel *k) {
  k->tile.vectors++;
}
static void change_row_block(sfi_kernel *k) {
  k->tile.row_block++;
}
static void change_column_block(sfi_kernel *k) {
  k->tile.column_block++;
}
static void change_all_t(sfi_kernel *k) {
  k->tile.all_t = true;
}
static void change_pattern(sfi_kernel *k) {
  k->tile.pattern = k->contract.facts->pattern;
}
static void change_owner(sfi_kernel *k) {
  buffer_of(k, 1)->kind = SFI_BUFFER_INPUT;
}
static void change_sharing(sfi_kernel *k) {
  k->operand[3].buffer = k->operand[1].buffer;
}
static void change_depth(sfi_kernel *k) {
  k->contract.depth.c[0]++;
}
static void change_groups(sfi_kernel *k) {
  k->contract.groups = 2;
}
static void change_pitch(sfi_kernel *k) {
  k->contract.pitch++;
}
static void change_emitter(sfi_kernel *k) {
  static const sfi_emitter other = {.name = "other"};
  k->emitter = &other;
}
static void change_anchor(sfi_kernel *k) {
  k->anchor = SFI_ANCHOR_PRODUCT;
}

static void (*const changes[])(sfi_kernel *) = {
    change_extent,  change_ragged,    change_stride,       change_offset,  change_step,    change_constant, change_rows,
    change_vectors, change_row_block, change_column_block, change_all_t,   change_pattern, change_owner,    change_sharing,
    change_depth,   change_groups,    change_pitch,        change_emitter, change_anchor};

START_TEST(keys_change) {
  start(DENSE, SF_ISA_AVX512, 2, INT64_MAX);
  sfi_kernel *k = kernel_of(SFI_ANCHOR_CONTRACT);
  char *before = key_of(k);
  changes[_i](k);
  char *after = key_of(k);
  ck_assert_str_ne(before, after);
  free(before);
  free(after);
  end();
}
END_TEST

/* ---- tiles and sizes ---------------------------------------------------------------------------------------------- */

START_TEST(tiles_are_counted) {
  sfi_kernel k = {.anchor = SFI_ANCHOR_CONTRACT, .rank = 3, .extent = {{{{0, 1}}, 1}, {sfi_const(50), 1}, {sfi_const(100), 1}}};
  k.contract.row_count = sfi_const(50);
  k.tile.row_block = 16;
  k.tile.column_block = 30;
  ck_assert_int_eq(sfi_kernel_tiles(&k, 3), 3 * 4 * 4);
  ck_assert_int_eq(sfi_kernel_tiles(&k, 0), 0);
  k.ragged = (sfi_ragged){.width = 100, .panel = 0, .lane = 2, .columns = {{0, 1}}};
  k.extent[0].div = 100;
  ck_assert_int_eq(sfi_kernel_tiles(&k, 201), 3 * 4);
  k = (sfi_kernel){.anchor = SFI_ANCHOR_MAP, .rank = 3, .extent = {{{{0, 2}}, 1}, {sfi_const(5), 1}, {sfi_const(7), 1}}};
  ck_assert_int_eq(sfi_kernel_tiles(&k, 4), 1);
  k.tile_dims = 2;
  ck_assert_int_eq(sfi_kernel_tiles(&k, 4), 40);
  k.extent[2].of = sfi_const(0);
  ck_assert_int_eq(sfi_kernel_tiles(&k, 4), 0);
  k.anchor = SFI_ANCHOR_NODE;
  ck_assert_int_eq(sfi_kernel_tiles(&k, 4), 1);
}
END_TEST

START_TEST(sizes_are_checked) {
  sfi_buffer b = {.dtype = SF_F32, .columns = {{1, 1}}, .features = sfi_const(3)};
  size_t bytes = 7;
  ck_assert(sfi_buffer_bytes(&b, 4, &bytes) && bytes == 60);
  b.panel = 16;
  b.slack = 2;
  ck_assert(sfi_buffer_bytes(&b, 4, &bytes) && bytes == (48 + 2) * 4);
  ck_assert(sfi_buffer_bytes(&b, 16, &bytes) && bytes == (96 + 2) * 4);
  ck_assert(!sfi_buffer_bytes(&b, INT64_MAX, &bytes));
  ck_assert(!sfi_buffer_bytes(&b, INT64_MAX / 4, &bytes));
  b.columns = sfi_const(-1);
  ck_assert(!sfi_buffer_bytes(&b, 1, &bytes));
  ck_assert_uint_eq(bytes, (96 + 2) * 4);
  int64_t n = 5;
  ck_assert(sfi_extent_eval((sfi_extent){{{1, 1}}, 4}, 8, &n) && n == 3);
  ck_assert(!sfi_extent_eval((sfi_extent){{{-9, 1}}, 4}, 8, &n));
  ck_assert_int_eq(n, 3);
}
END_TEST

/* ---- choice ------------------------------------------------------------------------------------------------------- */

static sfi_refusal accept_any(sfi_kernel *k, const sfi_plan *p) {
  (void)p;
  k->tile.rows = 4;
  return SFI_REFUSE_NONE;
}
static sfi_refusal accept_none(sfi_kernel *k, const sfi_plan *p) {
  (void)p;
  k->tile.rows = 99; /* must not stay */
  return SFI_REFUSE_GROUPS;
}
static double cost_three(const sfi_kernel *k, const sfi_plan *p, int64_t symbol) {
  return (void)k, (void)p, (void)symbol, 3;
}
static double cost_two(const sfi_kernel *k, const sfi_plan *p, int64_t symbol) {
  return (void)k, (void)p, (void)symbol, 2;
}
static double cost_near_two(const sfi_kernel *k, const sfi_plan *p, int64_t symbol) {
  return (void)k, (void)p, (void)symbol, 2.05;
}
static double cost_symbol(const sfi_kernel *k, const sfi_plan *p, int64_t symbol) {
  return (void)k, (void)p, (double)symbol;
}

static const sfi_emitter maps = {.name = "maps", .anchor = SFI_ANCHOR_MAP, .accept = accept_any, .cost = cost_symbol};
static const sfi_emitter softmaxes = {.name = "softmaxes", .anchor = SFI_ANCHOR_SOFTMAX, .accept = accept_any, .cost = cost_two};
static const sfi_emitter slow = {.name = "slow", .anchor = SFI_ANCHOR_CONTRACT, .accept = accept_any, .cost = cost_three};
static const sfi_emitter fast = {.name = "fast", .anchor = SFI_ANCHOR_CONTRACT, .accept = accept_any, .cost = cost_two};
static const sfi_emitter slow_dense = {
    .name = "slow-dense", .dense = true, .anchor = SFI_ANCHOR_CONTRACT, .accept = accept_any, .cost = cost_three};
static const sfi_emitter fussy = {.name = "fussy", .anchor = SFI_ANCHOR_CONTRACT, .accept = accept_none, .cost = cost_two};
static const sfi_emitter *const all[] = {&maps, &softmaxes, &slow, &fussy, &fast};

static sf_status choose(const char *only, const sfi_emitter *const *emitters, size_t n, sfi_diag *diag) {
  sfi_pass_env env = {.context = context, .diag = diag};
  return sfi_choose(&env, &plan, emitters, n, only);
}

START_TEST(cheapest_wins) {
  sfi_diag diag = {0};
  start(DENSE, SF_ISA_AVX512, 2, 16);
  ck_assert_int_eq(choose(NULL, all, SFI_COUNT(all), &diag), SF_OK);
  const sfi_kernel *k = kernel_of(SFI_ANCHOR_CONTRACT);
  ck_assert_ptr_eq(k->emitter, &fast);
  ck_assert_int_eq(k->tile.rows, 4);
  ck_assert(strstr(k->choice, "fast 2 us (density ") == k->choice);
  ck_assert_ptr_nonnull(strstr(k->choice, "; slow 3 us"));
  ck_assert_ptr_nonnull(strstr(k->choice, "; fussy refused: grouped convolution"));
  ck_assert_str_eq(kernel_of(SFI_ANCHOR_MAP)->choice, "maps 16 us");
  end();
}
END_TEST

START_TEST(the_one_named_is_taken_where_it_accepts) {
  sfi_diag diag = {0};
  start(DENSE, SF_ISA_AVX512, 2, 16);
  ck_assert_int_eq(choose("slow", all, SFI_COUNT(all), &diag), SF_OK);
  ck_assert_ptr_eq(kernel_of(SFI_ANCHOR_CONTRACT)->emitter, &slow);
  ck_assert_int_eq(choose("fussy", all, SFI_COUNT(all), &diag), SF_OK); /* then the others, and why */
  ck_assert_ptr_eq(kernel_of(SFI_ANCHOR_CONTRACT)->emitter, &fast);
  ck_assert_ptr_nonnull(strstr(kernel_of(SFI_ANCHOR_CONTRACT)->choice, "; fussy refused: grouped convolution"));
  end();
}
END_TEST

/* A dense emitter is only left for one that is clearly cheaper. */
START_TEST(dense_wins_what_is_close) {
  static const sfi_emitter dense = {
      .name = "dense", .dense = true, .anchor = SFI_ANCHOR_CONTRACT, .accept = accept_any, .cost = cost_near_two};
  static const sfi_emitter *const with_dense[] = {&maps, &softmaxes, &fast, &dense};
  static const sfi_emitter *const with_slow[] = {&maps, &softmaxes, &fast, &slow_dense};
  sfi_diag diag = {0};
  start(DENSE, SF_ISA_AVX512, 2, 16);
  ck_assert_int_eq(choose(NULL, with_dense, SFI_COUNT(with_dense), &diag), SF_OK);
  ck_assert_ptr_eq(kernel_of(SFI_ANCHOR_CONTRACT)->emitter, &dense);
  ck_assert_int_eq(choose(NULL, with_slow, SFI_COUNT(with_slow), &diag), SF_OK);
  ck_assert_ptr_eq(kernel_of(SFI_ANCHOR_CONTRACT)->emitter, &fast);
  end();
}
END_TEST

/* Prefers the dearest, and says what it took. */
static sf_status contrary(void *user, const sfi_plan *p, sfi_kernel *candidates, int32_t n, int32_t *out_winner) {
  ck_assert_ptr_eq(p, &plan);
  for (int32_t i = 1; i < n; i++) ck_assert_double_le(candidates[i - 1].predicted_us, candidates[i].predicted_us);
  candidates[n - 1].measured_us = 1;
  *out_winner = n - 1;
  return *(sf_status *)user;
}

START_TEST(the_judge_decides_among_several) {
  sfi_diag diag = {0};
  sf_status answer = SF_OK;
  sfi_pass_env env = {.context = context, .diag = &diag, .judge = contrary, .judge_user = &answer};
  start(DENSE, SF_ISA_AVX512, 2, 16);
  ck_assert_int_eq(sfi_choose(&env, &plan, all, SFI_COUNT(all), NULL), SF_OK);
  const sfi_kernel *k = kernel_of(SFI_ANCHOR_CONTRACT);
  ck_assert_ptr_eq(k->emitter, &slow);
  ck_assert(strstr(k->choice, "slow 3 us, measured 1 us (density ") == k->choice);
  ck_assert_ptr_nonnull(strstr(k->choice, "; fast 2 us;"));
  ck_assert_ptr_eq(kernel_of(SFI_ANCHOR_MAP)->emitter, &maps); /* alone: nothing to judge */
  answer = SF_STATUS_OUT_OF_MEMORY;
  ck_assert_int_eq(sfi_choose(&env, &plan, all, SFI_COUNT(all), NULL), SF_STATUS_OUT_OF_MEMORY);
  end();
}
END_TEST

START_TEST(none_is_refused) {
  sfi_diag diag = {0};
  start(DENSE, SF_ISA_AVX512, 2, 16);
  ck_assert_int_eq(choose(NULL, all, 1, &diag), SF_STATUS_UNSUPPORTED);
  ck_assert_ptr_null(kernel_of(SFI_ANCHOR_CONTRACT)->emitter);
  end();
}
END_TEST

int main(void) {
  Suite *suite = suite_create("plans");
  TCase *tests = tcase_create("plans");
  tcase_add_loop_test(tests, faults_are_found, 0, (int)SFI_COUNT(faults));
  tcase_add_test(tests, keys_ignore_positions);
  tcase_add_loop_test(tests, keys_change, 0, (int)SFI_COUNT(changes));
  tcase_add_test(tests, tiles_are_counted);
  tcase_add_test(tests, sizes_are_checked);
  tcase_add_test(tests, cheapest_wins);
  tcase_add_test(tests, the_one_named_is_taken_where_it_accepts);
  tcase_add_test(tests, dense_wins_what_is_close);
  tcase_add_test(tests, the_judge_decides_among_several);
  tcase_add_test(tests, none_is_refused);
  suite_add_tcase(suite, tests);
  return run_suite(suite);
}
