/* Runs the kernel cases of a file on the machine it is built for: kernel_runner CASES COUNT. Linked by test_neon_run.c with the kernels
 * and their table. */
#include "kernel_case.h"

#include <stdlib.h>

extern const sf_kernel_fn kernel_table[];

int main(int argc, char **argv) {
  FILE *file = argc == 3 ? fopen(argv[1], "rb") : NULL;
  long count = argc == 3 ? strtol(argv[2], NULL, 10) : 0, n = 0, wrong = 0;
  kernel_case c;
  char message[512];
  while (file && kernel_case_read(file, &c)) {
    if (!kernel_case_run(&c, kernel_table, message, sizeof message) && wrong++ < 10) puts(message);
    kernel_case_free(&c);
    n++;
  }
  if (file) fclose(file);
  printf("%ld of %ld cases run, %ld wrong\n", n, count, wrong);
  return n != count || n == 0 || wrong != 0;
}
