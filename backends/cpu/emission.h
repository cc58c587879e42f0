/* What the CPU emitters share: one kernel's LLVM function under construction, and the few shapes of code that kernels are made
 * of. Scalars are i64 or float; a vector is <lanes x float>. All helpers append at the builder's position. */
#ifndef SFI_EMISSION_H
#define SFI_EMISSION_H

#include "backend.h"

#include <llvm-c/Core.h>

enum { SFI_CARRIED_MAX = 64 };

typedef struct sfi_emission {
  const sfi_target *target;
  const sfi_plan *plan;
  const sfi_kernel *kernel;
  const sf_allocator *allocator;
  sfi_diag *diag;
  void *own; /* the emitter's, for its callbacks */
  LLVMContextRef context;
  LLVMModuleRef module;
  LLVMBuilderRef builder;
  LLVMValueRef function;
  LLVMTypeRef f32, i1, i8, i16, i32, i64, ptr, vec; /* vec: <target->lanes x float> */
  int32_t lanes;
  LLVMValueRef symbol, tile_begin, tile_end;
  LLVMValueRef base[SFI_OPERANDS_MAX]; /* operand's buffer plus nothing; offsets are added at use */
} sfi_emission;

/* ---- constants and arithmetic (cpu_build.c) ------------------------------------------------------------------------ */

LLVMValueRef sfi_i64(sfi_emission *e, int64_t v);
LLVMValueRef sfi_f32(sfi_emission *e, double v);
LLVMValueRef sfi_splat(sfi_emission *e, LLVMValueRef scalar); /* any scalar to a vector of target lanes */
LLVMValueRef sfi_vconst(sfi_emission *e, double v);
LLVMValueRef sfi_addi(sfi_emission *e, LLVMValueRef a, LLVMValueRef b);
LLVMValueRef sfi_muli(sfi_emission *e, LLVMValueRef a, LLVMValueRef b);
LLVMValueRef sfi_mini(sfi_emission *e, LLVMValueRef a, LLVMValueRef b);
LLVMValueRef sfi_poly_value(sfi_emission *e, sfi_poly p);
LLVMValueRef sfi_extent_value(sfi_emission *e, sfi_extent x);
/* Intrinsic `name` overloaded on `types`, called. */
LLVMValueRef sfi_intrinsic(sfi_emission *e, const char *name, LLVMTypeRef *types, unsigned n_types, LLVMValueRef *args,
                           unsigned n_args);
LLVMValueRef sfi_fma(sfi_emission *e, LLVMValueRef a, LLVMValueRef b, LLVMValueRef c); /* a b + c, fused */
/* <0, 1, ... lanes - 1> as i64. */
LLVMValueRef sfi_iota(sfi_emission *e);
/* Mask of lanes with first + lane < limit. */
LLVMValueRef sfi_mask_below(sfi_emission *e, LLVMValueRef first, LLVMValueRef limit);

/* The same value, with its making hidden from the optimiser: it is not folded into the addresses or operands of its uses. A pointer or a
 * vector. */
LLVMValueRef sfi_opaque(sfi_emission *e, LLVMValueRef value);
/* The same value, made here and not where it is used, and no load or store moves across: else sums that a branch ahead does not touch are
 * put off behind it, and all that they are made of is spilled. */
LLVMValueRef sfi_pin(sfi_emission *e, LLVMValueRef value);

/* ---- memory: element index from a float base ----------------------------------------------------------------------- */

LLVMValueRef sfi_at(sfi_emission *e, LLVMTypeRef type, LLVMValueRef base, LLVMValueRef index);
LLVMValueRef sfi_load_scalar(sfi_emission *e, LLVMTypeRef type, LLVMValueRef base, LLVMValueRef index);
LLVMValueRef sfi_load_vector(sfi_emission *e, LLVMValueRef pointer, LLVMValueRef mask); /* mask NULL: whole; else 0 outside */
void sfi_store_vector(sfi_emission *e, LLVMValueRef value, LLVMValueRef pointer, LLVMValueRef mask);

/* A hint that the line `bytes` behind an address is read soon: it comes to L2. Any address is allowed. */
void sfi_prefetch(sfi_emission *e, LLVMValueRef address, int64_t bytes);
/* So many bytes ahead a stream of weights is asked for: what a core gets through while memory answers. The machine's own prefetch follows
 * a stream that is read slowly only within a page, and stops at each. */
enum { SFI_AHEAD = 4096 };

/* Row r of the result is lane r of every row, of as many rows as there are lanes. */
void sfi_transpose(sfi_emission *e, LLVMValueRef *row);

/* Memory of the kernel's own for so many floats; only at the begin of the function. */
LLVMValueRef sfi_stack(sfi_emission *e, int64_t floats);

/* ---- control ------------------------------------------------------------------------------------------------------- */

/* for (index = begin; index < end; index += step), with values carried from one round to the next. After sfi_loop_end,
 * carried[] holds the final values. */
typedef struct sfi_loop {
  LLVMValueRef index;
  LLVMValueRef carried[SFI_CARRIED_MAX];
  unsigned n_carried;
  LLVMBasicBlockRef head, exit;
  LLVMValueRef step;
} sfi_loop;
void sfi_loop_begin(sfi_emission *e, sfi_loop *loop, LLVMValueRef begin, LLVMValueRef end, LLVMValueRef step,
                    const LLVMValueRef *carried, unsigned n_carried);
void sfi_loop_end(sfi_emission *e, sfi_loop *loop, const LLVMValueRef *next);

/* if (condition) { ... } [values merge]: between begin and end the builder stands inside. */
typedef struct sfi_if {
  LLVMBasicBlockRef from, then, join;
} sfi_if;
void sfi_if_begin(sfi_emission *e, sfi_if *branch, LLVMValueRef condition);
/* in_then[i] where the branch was taken, otherwise[i] where not; out may be NULL with n 0. */
void sfi_if_end(sfi_emission *e, sfi_if *branch, const LLVMValueRef *in_then, const LLVMValueRef *otherwise, LLVMValueRef *out,
                unsigned n);

/* ---- points, expressions (cpu_expr.c) ------------------------------------------------------------------------------ */

/* A vector of consecutive points of the iteration space along `vector_dim`, or one point where `vector` is false. */
typedef struct sfi_point {
  LLVMValueRef index[SFI_SPACE_MAX]; /* of each dimension (reduction dimensions after those of the space); lane 0's */
  int32_t rank;                      /* dimensions in use */
  int32_t vector_dim;
  bool vector;
  bool compressed; /* the mask's lanes, packed together, are consecutive points from index[] on (convolution rows); lane_index
                              says where each is */
  LLVMValueRef lane_index; /* NULL: lanes are consecutive from index[vector_dim] on; else i64 index of each lane, added to it */
  LLVMValueRef mask;       /* lanes that exist; NULL: all */
  int32_t given_operand;   /* 0: none; else loads of this operand are `given` */
  LLVMValueRef given;
} sfi_point;

LLVMValueRef sfi_operand_load(sfi_emission *e, int32_t operand, const sfi_point *point);
/* Value of `expr` at `point`: vector or scalar as the point is. arg: the anchor's value, NULL for none. */
LLVMValueRef sfi_expr_value(sfi_emission *e, const sfi_expr *expr, const sfi_point *point, LLVMValueRef arg);
/* Stores through operand 0. */
void sfi_point_store(sfi_emission *e, const sfi_point *point, LLVMValueRef value);
/* Element index of an access at a point, lane 0. */
LLVMValueRef sfi_access_index(sfi_emission *e, const sfi_access *access, const sfi_point *point);

/* ---- elementwise functions (cpu_math.c) ---------------------------------------------------------------------------- */

/* `op` of ops.def on vectors or scalars. b NULL for one operand. */
LLVMValueRef sfi_elementwise(sfi_emission *e, sf_op op, LLVMValueRef a, LLVMValueRef b);
LLVMValueRef sfi_where(sfi_emission *e, LLVMValueRef c, LLVMValueRef x, LLVMValueRef y); /* c = 0 ? y : x */
LLVMValueRef sfi_exp(sfi_emission *e, LLVMValueRef x);
LLVMValueRef sfi_exp2(sfi_emission *e, LLVMValueRef x); /* 2^x */

#endif
