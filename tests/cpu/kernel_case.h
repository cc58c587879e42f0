/* A few launches of kernels with the memory they work on and the results they must give, as plain data: run in this process, or written
 * to a file for kernel_runner.c, which runs it on another instruction set. Needs libc alone. */
#ifndef SF_TESTS_KERNEL_CASE_H
#define SF_TESTS_KERNEL_CASE_H

#include <sparseflow/kernel_abi.h>

#include <stdbool.h>
#include <stdio.h>

enum { CASE_OPERANDS = 17, CASE_COPY = -1 };

typedef enum case_role {
  CASE_GIVEN,   /* holds `given`, and must after the run */
  CASE_SCRATCH, /* poisoned */
  CASE_RESULT   /* poisoned; floats, to be within allowed[i] of want[i]; allowed INFINITY: any value */
} case_role;

typedef struct case_buffer {
  int32_t role;  /* case_role */
  int32_t exact; /* 1: the host's: aligned to its elements, and not one byte more than `bytes`. 0: ours: 64-byte aligned, with
                    memory to the next multiple of 64 */
  uint64_t bytes;
  const void *given;
  const double *want, *allowed;
} case_buffer;

typedef struct case_launch {
  int32_t kernel; /* index in the runner's table; CASE_COPY: operand 1 is copied to operand 0 */
  int32_t n_operands;
  int32_t operand[CASE_OPERANDS]; /* buffers */
  int64_t tiles;
} case_launch;

typedef struct kernel_case {
  char name[256];
  int64_t symbol;
  int32_t n_buffers, n_launches;
  case_buffer *buffers;
  case_launch *launches;
} kernel_case;

/* Runs the launches in order twice: with every buffer right before a page that may not be touched, tile by tile in reverse; then right
 * behind one, all tiles in one call. Both must give the same bits. False: *message says what went wrong. Not thread-safe. */
bool kernel_case_run(const kernel_case *c, const sf_kernel_fn *kernels, char *message, size_t size);

bool kernel_case_write(const kernel_case *c, FILE *file);
/* False at the end of the file. The case is freed by kernel_case_free. */
bool kernel_case_read(FILE *file, kernel_case *out_case);
void kernel_case_free(kernel_case *c);

#endif
