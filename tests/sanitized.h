/* Is the test built with a sanitizer? Generated code is not, so what only that code can get wrong need not run again. */
#ifndef SF_TESTS_SANITIZED_H
#define SF_TESTS_SANITIZED_H

#include <stdbool.h>

static inline bool sf_sanitized(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return true;
#elif defined(__has_feature)
  return __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
  return false;
#endif
}

#endif
