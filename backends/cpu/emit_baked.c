/* "spmm-baked": sparse matrix product by straight machine code that holds the pattern of a small W: no positions are loaded, no loop ends
 * are mispredicted, and the multiply-adds run near their peak as long as the code comes from the caches of instructions.
 *
 * Rows stand in groups of R whose sums, R x V vectors, stay in registers beside V vectors of X, a value and four values. A group's code
 * passes over its columns in order: a column with nonzeros in several rows loads its V vectors of X once, any other multiplies them from
 * memory, and each nonzero is one broadcast and V multiply-adds. Where few columns are shared, the loads bind: there one load brings
 * four values and shuffles spread them. Instructions take 6 or 7 bytes, since displacements count from pointers that move along: about
 * 40 bytes a nonzero at V = 4. At V = 1 a value is the operand in memory: 10 bytes and two loads a nonzero at most.
 *
 * The code runs from the cache of decoded instructions and L1 only if it is used again soon: a block of rows is as many as have 18 KB of
 * code, and passes over some blocks of columns, as many as keep their X in L1, before the next one comes. K is cut into blocks where X
 * does not fit L1; sums wait in the output between them.
 *
 * LLVM compiles the loops, the epilogue and the stores. The pieces of code are bytes to it, in front of a function that is never entered;
 * a table says where each begins. Values stay in the packed W, in the order of their use: weights of one pattern share the code. */
#include "baked.h"
#include "emitters.h"

#include <stdio.h>

enum { BLOCK_BYTES = 18 << 10, MOST_BYTES = 360 << 10, SUMS = 29 };

static double code_bytes(const sfi_kernel *k) {
  return (double)k->contract.facts->nonzeros * (k->tile.vectors == 1 ? 11 : 8 + 8 * k->tile.vectors);
}

/* Has L2 lost the code from one run of the program to the next? It has not where the program is little else than this kernel. */
static bool is_cold(const sfi_kernel *k, const sfi_plan *plan) {
  const double others = plan->weight_bytes - sfi_weight_bytes(k->contract.facts);
  return others + code_bytes(k) > (double)plan->target->l2_bytes / 2;
}

/* May X not be read behind the last column? */
static bool is_masked(const sfi_kernel *k, const sfi_target *target) {
  int64_t flat = sfi_flat_columns(k);
  return !k->ragged.width && !k->contract.pitch && (flat < 0 || flat % ((int64_t)k->tile.vectors * target->lanes));
}

sfi_refusal sfi_baked_accept(sfi_kernel *k, const sfi_plan *plan) {
  const int64_t depth = k->contract.depth.c[0], rows = sfi_max(1, k->contract.rows);
  if (plan->target->isa != SF_ISA_AVX512) return SFI_REFUSE_NOT_AVX512;
  if (sfi_is(k->extent[2].of, 1)) return SFI_REFUSE_ONE_COLUMN;
  if (k->contract.groups > 1) return SFI_REFUSE_GROUPS; /* rows share no column: nothing to gain */
  if (!sfi_is(k->operand[1].stride[2], 1)) return SFI_REFUSE_STRIDED_COLUMNS;
  if (!k->contract.k_offset && !sfi_is_const(k->operand[1].stride[1])) return SFI_REFUSE_SYMBOLIC;
  if (!sfi_positions_fit(k)) return SFI_REFUSE_OFFSETS_TOO_LARGE;
  for (int64_t i = 0; i < depth; i++)
    if (sfi_position(k, i) > INT32_MAX / 8) return SFI_REFUSE_OFFSETS_TOO_LARGE;
  sfi_choose_columns(k, plan->target, 4);
  if (k->ragged.width && sfi_is_const(k->ragged.columns)) /* of a panel that is not full */
    k->tile.vectors = (int32_t)sfi_max(1, sfi_min(k->tile.vectors, sfi_ceil_div(k->ragged.columns.c[0], plan->target->lanes)));
  if (code_bytes(k) > MOST_BYTES) return SFI_REFUSE_CODE_TOO_LARGE;
  k->tile.rows = (plan->target->registers - 2 - k->tile.vectors) / k->tile.vectors;
  double bytes = code_bytes(k) * k->tile.rows / (double)(rows * sfi_baked_blocks(k, plan->target)); /* of a piece */
  int64_t pieces = (int64_t)sfi_min(sfi_ceil_div(rows, k->tile.rows), (int64_t)(BLOCK_BYTES / (bytes + 1)));
  k->tile.row_block = k->tile.rows * sfi_max(1, pieces);
  k->tile.pattern = k->contract.facts->pattern;
  return SFI_REFUSE_NONE;
}

/* Blocks of columns that a block of rows passes over: as many as have their X in L1, but two, so that code is used twice. */
static int64_t columns_at_once(const sfi_kernel *k, const sfi_target *target) {
  int64_t bytes = sfi_baked_depth(k, target) * k->tile.column_block * 4;
  return sfi_max(2, target->l1_bytes * 2 / 3 / sfi_max(1, bytes));
}

/* Register tiles of columns: what is left of one is computed whole. */
static double column_tiles(const sfi_kernel *k, const sfi_target *target, int64_t symbol) {
  const int64_t width = (int64_t)k->tile.vectors * target->lanes;
  int64_t t = 0, j = 0, flat = sfi_flat_columns(k);
  if (k->ragged.width) return sfi_poly_eval(k->ragged.columns, symbol, &j) ? (double)sfi_ceil_div(j, width) : 0;
  sfi_extent_eval(k->extent[0], symbol, &t);
  sfi_extent_eval(k->extent[2], symbol, &j);
  return (double)t * (double)sfi_ceil_div(flat < 0 ? j : flat, width);
}

/* Measured on Zen 5. Code that is not in L1 comes at 64 bytes a cycle from L2; in a network other kernels have run since the last time, and
 * it comes from L3 at an eighth of what data does, for nothing foresees it. */
double sfi_baked_cost(const sfi_kernel *k, const sfi_plan *plan, int64_t symbol) {
  double v = k->tile.vectors, nonzeros = (double)k->contract.facts->nonzeros, rows = (double)k->contract.rows;
  const int64_t blocks = sfi_baked_blocks(k, plan->target);
  double tiles = column_tiles(k, plan->target, symbol), visits = rows * (double)(2 * blocks - 1);
  double again = sfi_min(sfi_max(1, (int64_t)tiles), columns_at_once(k, plan->target));
  double step = (0.1 + 0.415 * v) * sfi_slots_a_load(k) + sfi_baked_far(k, plan->target, blocks);
  double cycles = nonzeros * step + visits * SFI_BAKED_VISIT * v + code_bytes(k) / 64 / again;
  double fetch = is_cold(k, plan) ? code_bytes(k) / (plan->target->l3_gbps / 8 * 1e3) : 0;
  return sfi_cycles_us(plan->target, tiles * cycles) + fetch;
}

/* ---- code ---------------------------------------------------------------------------------------------------------- */

typedef struct baked {
  LLVMValueRef pieces, starts; /* the code, and where in it each piece begins, uint32 */
  LLVMValueRef block;          /* of K */
  int64_t blocks;
  bool masked;
} baked;

/* A function whose code is `code`: LLVM copies prologue data as it is. */
static LLVMValueRef function_of(sfi_emission *e, const sfi_baked_code *code) {
  LLVMTypeRef type = LLVMFunctionType(LLVMVoidTypeInContext(e->context), NULL, 0, false);
  LLVMValueRef function = LLVMAddFunction(e->module, "pieces", type);
  LLVMSetLinkage(function, LLVMInternalLinkage);
  LLVMSetAlignment(function, 64);
  LLVMSetPrologueData(function, LLVMConstStringInContext(e->context, (const char *)code->bytes, (unsigned)code->size, true));
  LLVMBasicBlockRef here = LLVMGetInsertBlock(e->builder);
  LLVMPositionBuilderAtEnd(e->builder, LLVMAppendBasicBlockInContext(e->context, function, ""));
  LLVMBuildUnreachable(e->builder);
  LLVMPositionBuilderAtEnd(e->builder, here);
  return function;
}

static LLVMValueRef table_of(sfi_emission *e, const uint32_t *data, int64_t n) {
  LLVMValueRef bytes = LLVMConstStringInContext(e->context, (const char *)data, (unsigned)(n * 4), true);
  LLVMValueRef table = LLVMAddGlobal(e->module, LLVMTypeOf(bytes), "starts");
  LLVMSetInitializer(table, bytes);
  LLVMSetGlobalConstant(table, true);
  LLVMSetLinkage(table, LLVMInternalLinkage);
  LLVMSetAlignment(table, 4);
  return table;
}

/* Calls the piece at `address` on n sums, in place. */
static void call_piece(sfi_emission *e, const sfi_columns *columns, LLVMValueRef address, int32_t n, LLVMValueRef *sums) {
  const baked *b = e->own;
  enum { OTHERS = 3 + SFI_VECTORS_MAX };
  LLVMTypeRef results[SUMS], types[OTHERS + SUMS];
  LLVMValueRef given[OTHERS + SUMS] = {address, columns->x, e->base[2]};
  char text[24], constraints[1024];
  size_t at = 0, room = sizeof constraints;
  unsigned n_given = 3;
  for (int32_t i = 0; i < n; i++) at += (size_t)snprintf(constraints + at, room - at, "={zmm%d},", i);
  at += (size_t)snprintf(constraints + at, room - at, "r,{rcx},{rdx}");
  for (int32_t v = 0; v < e->kernel->tile.vectors && b->masked; v++) {
    LLVMValueRef mask = v < columns->vectors ? columns->load_mask[v] : LLVMConstNull(e->i16);
    given[n_given++] = mask ? LLVMBuildBitCast(e->builder, mask, e->i16, "") : LLVMConstAllOnes(e->i16);
    at += (size_t)snprintf(constraints + at, room - at, ",{k%d}", v + 1);
  }
  for (int32_t i = 0; i < n; i++) {
    results[i] = e->vec;
    given[n_given++] = sums[i];
    at += (size_t)snprintf(constraints + at, room - at, ",%d", i);
  }
  for (int32_t i = n; i < e->target->registers; i++) at += (size_t)snprintf(constraints + at, room - at, ",~{zmm%d}", i);
  at += (size_t)snprintf(constraints + at, room - at, ",~{rax},~{rsi},~{memory}");
  assert(at < room);
  for (unsigned i = 0; i < n_given; i++) types[i] = LLVMTypeOf(given[i]);
  LLVMTypeRef type = LLVMFunctionType(LLVMStructTypeInContext(e->context, results, (unsigned)n, false), types, n_given, false);
  snprintf(text, sizeof text, "call *$%d", n);
  LLVMValueRef call = LLVMGetInlineAsm(type, text, strlen(text), constraints, at, true, false, LLVMInlineAsmDialectATT, false);
  LLVMValueRef all = LLVMBuildCall2(e->builder, type, call, given, n_given, "");
  for (int32_t i = 0; i < n; i++) sums[i] = LLVMBuildExtractValue(e->builder, all, (unsigned)i, "");
}

/* Rows [row, row + rows), a group, in the block of K at work. Pieces compute whole register tiles, of which the last columns may be fewer
 * vectors. */
static void group_rows(sfi_emission *e, const sfi_columns *columns, LLVMValueRef row, int32_t rows) {
  const baked *b = e->own;
  const sfi_kernel *k = e->kernel;
  const int32_t vectors = columns->vectors, n = rows * vectors;
  sfi_point point[SUMS];
  LLVMValueRef sums[SUMS], all[SUMS], done[SUMS];
  for (int32_t i = 0; i < n; i++) {
    point[i] = columns->point[i % vectors];
    point[i].index[1] = sfi_addi(e, row, sfi_i64(e, i / vectors));
    sums[i] = LLVMGetUndef(e->vec);
  }
  if (b->blocks > 1) {
    sfi_if resume;
    sfi_if_begin(e, &resume, LLVMBuildICmp(e->builder, LLVMIntNE, b->block, sfi_i64(e, 0), ""));
    for (int32_t i = 0; i < n; i++) done[i] = sfi_operand_load(e, 0, &point[i]);
    sfi_if_end(e, &resume, done, sums, sums, (unsigned)n);
  }
  for (int32_t i = 0; i < rows * k->tile.vectors; i++) all[i] = LLVMGetUndef(e->vec);
  for (int32_t i = 0; i < n; i++) all[i / vectors * k->tile.vectors + i % vectors] = sums[i];
  LLVMValueRef group = LLVMBuildUDiv(e->builder, row, sfi_i64(e, k->tile.rows), "");
  LLVMValueRef piece = sfi_addi(e, group, sfi_muli(e, b->block, sfi_i64(e, sfi_baked_groups(k))));
  call_piece(e, columns, sfi_at(e, e->i8, b->pieces, sfi_load_u32(e, b->starts, piece)), rows * k->tile.vectors, all);
  for (int32_t i = 0; i < n; i++) sums[i] = all[i / vectors * k->tile.vectors + i % vectors];
  sfi_if finish;
  if (b->blocks > 1) sfi_if_begin(e, &finish, LLVMBuildICmp(e->builder, LLVMIntEQ, b->block, sfi_i64(e, b->blocks - 1), ""));
  for (int32_t i = 0; i < n; i++) done[i] = sfi_expr_value(e, &k->epilogue, &point[i], sums[i]);
  if (b->blocks > 1) sfi_if_end(e, &finish, done, sums, done, (unsigned)n);
  for (int32_t i = 0; i < n; i++) sfi_point_store(e, &point[i], done[i]);
}

static void baked_rows(sfi_emission *e, const sfi_columns *columns, LLVMValueRef row_begin, LLVMValueRef row_end) {
  const sfi_kernel *k = e->kernel;
  int32_t rows = k->tile.rows, rest = (int32_t)(k->contract.rows % rows);
  LLVMValueRef end = LLVMBuildNSWSub(e->builder, row_end, sfi_i64(e, rows - 1), "");
  sfi_loop loop;
  sfi_loop_begin(e, &loop, row_begin, end, sfi_i64(e, rows), NULL, 0);
  group_rows(e, columns, loop.index, rows);
  sfi_loop_end(e, &loop, NULL);
  if (!rest) return;
  sfi_if last;
  sfi_if_begin(e, &last, LLVMBuildICmp(e->builder, LLVMIntSLT, loop.index, row_end, ""));
  group_rows(e, columns, loop.index, rest);
  sfi_if_end(e, &last, NULL, NULL, NULL, 0);
}

/* Block of K by block of K of the tiles at hand. */
static void walk(sfi_emission *e) {
  baked *b = e->own;
  sfi_loop loop;
  sfi_loop_begin(e, &loop, sfi_i64(e, 0), sfi_i64(e, b->blocks), sfi_i64(e, 1), NULL, 0);
  b->block = loop.index;
  sfi_contraction_row_blocks(e, baked_rows);
  sfi_loop_end(e, &loop, NULL);
}

sf_status sfi_baked_emit(sfi_emission *e, const sfi_kernel *k, const sfi_plan *plan) {
  sf_status st = SF_OK;
  sfi_kernel opened = *k; /* a weight of a file is read for this */
  if (!sfi_matrix_open(&opened.contract.matrix, e->diag)) return e->diag->error.status;
  k = &opened;
  const size_t count = (size_t)sfi_baked_pieces(k, plan->target) + 1;
  baked b = {.blocks = sfi_baked_blocks(k, plan->target), .masked = is_masked(k, plan->target)};
  sfi_baked_code code = {0};
  sfi_baked_assemble(k, plan->target, b.masked, &code);
  const size_t size = code.size + 1;
  code.bytes = sfi_alloc(e->allocator, size);
  code.start = sfi_alloc(e->allocator, count * sizeof *code.start);
  if (!code.bytes || !code.start) {
    st = sfi_fail_memory(e->diag);
    goto done;
  }
  sfi_baked_assemble(k, plan->target, b.masked, &code);
  b.pieces = function_of(e, &code);
  b.starts = table_of(e, code.start, (int64_t)count - 1);
  e->own = &b;
  /* Inline assembly calls the pieces: LLVM must not keep anything below the stack pointer. */
  unsigned no_red_zone = LLVMGetEnumAttributeKindForName("noredzone", strlen("noredzone"));
  LLVMAddAttributeAtIndex(e->function, (LLVMAttributeIndex)LLVMAttributeFunctionIndex,
                          LLVMCreateEnumAttribute(e->context, no_red_zone, 0));
  sfi_contraction_chunks(e, columns_at_once(k, plan->target), walk);
done:
  sfi_free(e->allocator, code.bytes, size);
  sfi_free(e->allocator, code.start, count * sizeof *code.start);
  sfi_matrix_close(&opened.contract.matrix);
  return st;
}
