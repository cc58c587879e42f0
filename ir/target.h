/* A target is plain data: passes and emitters decide by these numbers and never ask the machine. */
#ifndef SFI_TARGET_H
#define SFI_TARGET_H

#include "base.h"

typedef struct sfi_target {
  sf_isa isa;
  const char *name;     /* "avx512", as in targets.def and on command lines */
  const char *triple;   /* LLVM's */
  const char *cpu;      /* LLVM's name, for tuning only */
  const char *features; /* LLVM's feature string: exactly what code may use */
  int32_t lanes;        /* floats in a vector register; 1 for the reference */
  int32_t registers;    /* vector registers */
  bool masks;           /* predicate registers: masked load, store, expand and compress are single instructions */
#define SF_RATE(member, unit, what) double member;
#include "rates.def"
#undef SF_RATE
  int64_t l1_bytes, l2_bytes, l3_bytes; /* shape code and packed weights: never measured */
} sfi_target;

/* Microseconds of one cycle, by the peak: two units of fp32 multiply and add a core. */
static inline double sfi_target_cycle_us(const sfi_target *target) {
  return 4e-3 * target->lanes / target->peak_gflops;
}

/* The row of targets.def for `isa`; NULL for SF_ISA_NATIVE. */
const sfi_target *sfi_target_of(sf_isa isa);
const sfi_target *sfi_target_named(const char *name, size_t length);
/* Best target this machine can run, SF_ISA_REFERENCE at least. */
sf_isa sfi_target_native(void);
/* Can this machine run code for `isa`? */
bool sfi_target_runs(sf_isa isa);

#endif
