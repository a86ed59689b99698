/* What the fuzzers of agent and hull-vmm share. Header only: each is one program. */
#ifndef HULL_FUZZ_H
#define HULL_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../native/check.h"
#include "frame.h"

const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "abort_on_error=1:detect_leaks=0:quarantine_size_mb=4"; }
const char *__ubsan_default_options(void);
const char *__ubsan_default_options(void) { return "abort_on_error=1"; }

/* One frame, changed in header, length or bytes once in `odds`. Returns its size; `out` holds FRAME_HEADER + FRAME_MAX. */
static inline size_t fuzz_frame_make(uint8_t *out, uint8_t type, uint32_t stream, const void *payload, size_t size, uint32_t odds) {
  frame_header(out, type, below(15) == 0 ? FLAG_MORE : 0, stream, (uint32_t)size);
  if (size > 0) memcpy(out + FRAME_HEADER, payload, size);
  if (below(odds) != 0) return FRAME_HEADER + size;
  switch (below(6)) {
    case 0: out[below(FRAME_HEADER)] = (uint8_t)any(); break;                                    /* a header that lies */
    case 1: put_u32(out, below(2) == 0 ? FRAME_MAX + below(3) : any()); break;                  /* the length alone */
    case 2: put_u32(out + 8, below(3) == 0 ? any() : below(200)); break;                        /* the stream */
    case 3: out[4] = (uint8_t)(below(3) == 0 ? any() : 1 + below(32)); break;                   /* the type */
    case 4: return below((uint32_t)(FRAME_HEADER + size) + 1);                                   /* cut off */
    default:
      for (uint32_t n = 1 + below(8); n > 0 && size > 0; n--) out[FRAME_HEADER + below((uint32_t)size)] = (uint8_t)(below(2) == 0 ? 0 : any());
  }
  return FRAME_HEADER + size;
}

/* A number as text: small, at a limit, or none. */
static inline const char *fuzz_number(void) {
  static const char *numbers[] = {"0", "1", "9", "15", "24", "64", "65", "128", "255", "256", "65535", "65536", "2147483647", "2147483648", "4294967295", "4294967296",
                                  "9223372036854775807", "18446744073709551615", "18446744073709551616", "-1", "", "x", "00001", " 1"};
  return numbers[below(sizeof numbers / sizeof *numbers)];
}

/* A payload that fits the type: a text with its keys, bytes, or a number. */
static inline size_t fuzz_payload(char *out, size_t capacity, uint8_t type) {
  static const char *keys[] = {"arg", "arg", "env", "cwd", "user", "tty", "stdin", "signal", "what", "code", "oom", "message", "pid", "rows", "columns", "group", "cap", "rlimit",
                               "oom_score_adj", "socket", "memory", "pids", "swap", "mount", "interface", "route", "remove", "host", "forget", "builtin", "freeze", "proto"};
  static const char *words[] = {"top", "stats", "update", "network", "status", "/bin/sh", "-c", "/", "root", "1000:1000", "files", "CAP_CHOWN", "NOFILE:1024:1024", "A=b", "eth0 02:00:00:00:00:01 10.0.0.2/24 1500",
                                "eth0 10.0.0.1", "tmpfs:size=1m:/tmp", "socket:0:660:0:0:/run/x", "share:0:ro:/data", "%s%n", "a b\tc\n", "\377\376"};
  if (type == F_WINDOW) {
    put_u32((uint8_t *)out, below(4) == 0 ? any() : below(65536));
    return below(20) == 0 ? below(8) : 4;
  }
  if (type == F_STDOUT || type == F_STDERR || type == F_STDIN) {
    size_t size = below(6) == 0 ? below(FRAME_MAX + 1) : below(300);
    memset(out, (int)any(), size);
    return size;
  }
  size_t size = 0;
  if (type == F_QUERY) size = text_put(out, 0, capacity, "what", words[below(5)]);
  if (type == F_EXEC || type == F_RUN) size = text_put(out, 0, capacity, "arg", "/bin/x");
  for (uint32_t n = below(type == F_EXEC || type == F_RUN || below(9) == 0 ? 12 : 3); n > 0; n--)
    size = text_put(out, size, capacity, keys[below(sizeof keys / sizeof *keys)], below(2) == 0 ? fuzz_number() : words[below(sizeof words / sizeof *words)]);
  if (below(40) == 0)
    while (size + 100 < capacity) size = text_put(out, size, capacity, keys[below(4)], "0123456789012345678901234567890123456789012345678901234567890123456789012345678");
  return size;
}

/* COUNT [SEED]; prints the seed. */
static inline uint64_t fuzz_arguments(int argc, char **argv, const char *name, uint64_t *count) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  uint64_t seed = (uint64_t)now.tv_sec * 1000003u + (uint64_t)now.tv_nsec;
  if (argc < 2 || !parse_number(argv[1], UINT32_MAX, count) || (argc > 2 && !parse_number(argv[2], UINT64_MAX, &seed))) {
    fprintf(stderr, "usage: %s FRAMES [SEED]\n", name);
    exit(2);
  }
  printf("%s: seed %llu\n", name, (unsigned long long)seed);
  fflush(stdout);
  return seed;
}

#endif
