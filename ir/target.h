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
  /* Measured or assumed; prices candidates. Per core where it is a rate. */
  double peak_gflops;                   /* fp32 multiply and add */
  double l2_gbps, l3_gbps, memory_gbps; /* reading, by where the data lies */
  int64_t l1_bytes, l2_bytes, l3_bytes;
} sfi_target;

/* The row of targets.def for `isa`; NULL for SF_ISA_NATIVE. */
const sfi_target *sfi_target_of(sf_isa isa);
const sfi_target *sfi_target_named(const char *name, size_t length);
/* Best target this machine can run, SF_ISA_REFERENCE at least. */
sf_isa sfi_target_native(void);
/* Can this machine run code for `isa`? */
bool sfi_target_runs(sf_isa isa);

#endif
