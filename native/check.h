/* What fuzzers and checks share, here and in guest/: each is one program, built with sanitizers. */
#ifndef HULL_CHECK_H
#define HULL_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition) \
  do { \
    if (!(condition)) { \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      abort(); \
    } \
  } while (0)

static uint64_t check_state;

static inline void check_seed(uint64_t seed) { check_state = seed * 0x9e3779b97f4a7c15ull + 0x1234567ull; }

static inline uint32_t any(void) { /* xorshift64* */
  check_state ^= check_state >> 12;
  check_state ^= check_state << 25;
  check_state ^= check_state >> 27;
  return (uint32_t)(check_state * 0x2545F4914F6CDD1Dull >> 32);
}

static inline uint32_t below(uint32_t limit) { return limit == 0 ? 0 : any() % limit; }

/* ROUNDS SEED; how many rounds. */
static inline unsigned long check_arguments(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: %s ROUNDS SEED\n", argv[0]);
    exit(2);
  }
  check_seed(strtoull(argv[2], NULL, 10));
  return strtoul(argv[1], NULL, 10);
}

/* A copy of exactly its size, so that a sanitizer sees one byte too far. */
static inline void *exact(const void *bytes, size_t size) {
  void *copy = malloc(size == 0 ? 1 : size);
  CHECK(copy != NULL);
  if (size > 0) memcpy(copy, bytes, size);
  return copy;
}

#endif
