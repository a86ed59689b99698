/* The processor's time stamp counter against the kernel's clock. See src/host/clock.ts. */
#include "common.h"

#include <stdint.h>
#include <time.h>

#define ATTEMPTS 20

static int64_t monotonic(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* [counter, nanoseconds] of one moment; undefined on a processor without such a counter. */
static napi_value js_time_stamp(napi_env env, napi_callback_info info) {
  (void)info;
#if defined(__x86_64__)
  uint64_t counter = 0;
  int64_t middle = 0, narrowest = INT64_MAX;
  for (int i = 0; i < ATTEMPTS; i++) { /* of several, the one that was interrupted least */
    int64_t before = monotonic();
    uint64_t ticks = __builtin_ia32_rdtsc();
    int64_t after = monotonic();
    if (after - before >= narrowest) continue;
    narrowest = after - before;
    middle = before + narrowest / 2;
    counter = ticks;
  }
  napi_value pair, element;
  if (napi_create_array_with_length(env, 2, &pair) != napi_ok) return NULL;
  if (napi_create_bigint_uint64(env, counter, &element) != napi_ok || napi_set_element(env, pair, 0, element) != napi_ok) return NULL;
  if (napi_create_bigint_int64(env, middle, &element) != napi_ok || napi_set_element(env, pair, 1, element) != napi_ok) return NULL;
  return pair;
#else
  return value_undefined(env);
#endif
}

bool clock_register(napi_env env, napi_value exports) {
  static const struct function functions[] = {{"timeStamp", js_time_stamp}};
  return functions_register(env, exports, functions, COUNT(functions));
}
