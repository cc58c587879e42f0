/* Runs a fuzz target over the files of the folders named on the command line: the kept corpus as a plain test, in builds
 * without libFuzzer. Fails where there is no file. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *folder, const char *name) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "rb");
  if (!file) return perror(path), -1;
  fseek(file, 0, SEEK_END);
  long size = ftell(file);
  rewind(file);
  /* No slack behind the bytes: a read past them is seen by the sanitizers. */
  uint8_t *data = size >= 0 ? malloc(size ? (size_t)size : 1) : NULL;
  int result = -1;
  if (data && fread(data, 1, (size_t)size, file) == (size_t)size) result = LLVMFuzzerTestOneInput(data, (size_t)size);
  free(data);
  fclose(file);
  return result;
}

int main(int argc, char **argv) {
  int count = 0;
  for (int i = 1; i < argc; i++) {
    DIR *folder = opendir(argv[i]);
    if (!folder) return perror(argv[i]), 1;
    for (struct dirent *entry; (entry = readdir(folder));) {
      if (entry->d_name[0] == '.') continue;
      if (replay(argv[i], entry->d_name) != 0) return fprintf(stderr, "failed on %s/%s\n", argv[i], entry->d_name), 1;
      count++;
    }
    closedir(folder);
  }
  printf("%d files\n", count);
  return count ? 0 : 1;
}
