/* The table of targets, and the one question that the machine is asked: which of them it runs. */
#include "target.h"

static const sfi_target targets[] = {
#define SF_TARGET(id, ...) {SF_ISA_##id, __VA_ARGS__},
#include "targets.def"
#undef SF_TARGET
};

const sfi_target *sfi_target_of(sf_isa isa) {
  for (size_t i = 0; i < SFI_COUNT(targets); i++) {
    if (targets[i].isa == isa) return &targets[i];
  }
  return NULL;
}

const sfi_target *sfi_target_named(const char *name, size_t length) {
  for (size_t i = 0; i < SFI_COUNT(targets); i++) {
    if (strlen(targets[i].name) == length && memcmp(targets[i].name, name, length) == 0) return &targets[i];
  }
  return NULL;
}

/* Each function asks for every feature that its row of targets.def names; the operating system's part is included. */
#if defined(__x86_64__)
static bool has_avx2(void) {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("lzcnt") &&
         __builtin_cpu_supports("movbe") && __builtin_cpu_supports("popcnt");
}

static bool has_avx512(void) {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

bool sfi_target_runs(sf_isa isa) {
  switch (isa) {
  case SF_ISA_NATIVE:
  case SF_ISA_REFERENCE:
    return true;
#if defined(__x86_64__)
  case SF_ISA_AVX2:
    return has_avx2();
  case SF_ISA_AVX512:
    return has_avx512();
#endif
#if defined(__aarch64__)
  case SF_ISA_NEON:
    return true; /* Advanced SIMD is part of the base architecture */
#endif
  default:
    return false;
  }
}

sf_isa sfi_target_native(void) {
  static const sf_isa best_first[] = {SF_ISA_AVX512, SF_ISA_AVX2, SF_ISA_NEON};
  for (size_t i = 0; i < SFI_COUNT(best_first); i++) {
    if (sfi_target_runs(best_first[i])) return best_first[i];
  }
  return SF_ISA_REFERENCE;
}
