/* Random and mutated frames through the parser and the texts, with AddressSanitizer and UndefinedBehaviorSanitizer.
 *   fuzz_frame SECONDS [SEED]
 * Every input lies in a buffer of exactly its size, so that one byte too far is seen. What must hold is checked besides: a parsed
 * frame lies in its input, text_put's result is a valid text, a number printed is the number parsed, a queue gives back what it took. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../native/check.h"
#include "bytes.h"
#include "frame.h"

static uint8_t any_byte(void) {
  static const uint8_t likely[] = {0, 0, '=', '=', 'a', '1', '9', 255, '/', '.', ',', ':', '\n'};
  return below(3) == 0 ? (uint8_t)any() : likely[below(sizeof likely)];
}

/* Keys that the programs ask for, and text that is none. */
static size_t make_text(char *out, size_t capacity) {
  static const char *keys[] = {"arg", "env", "cwd", "user", "tty", "signal", "what", "code", "message", "root", ""};
  size_t size = 0;
  uint32_t kind = below(4);
  if (kind == 0) {
    size = below((uint32_t)capacity);
    for (size_t i = 0; i < size; i++) out[i] = (char)any_byte();
    return size;
  }
  for (uint32_t n = below(20); n > 0; n--) {
    char value[300];
    size_t length = below(sizeof value);
    for (size_t i = 0; i < length; i++) value[i] = (char)(any_byte() | 1);
    value[length == 0 ? 0 : length - 1] = 0;
    const char *key = keys[below(10)];
    size_t before = size;
    size = below(4) == 0 ? text_put_number(out, size, capacity, key, any()) : text_put(out, size, capacity, key, value);
    CHECK(size <= capacity && size >= before);
    CHECK(text_valid(out, size));
  }
  for (uint32_t n = kind == 1 ? below(4) : 0; n > 0 && size > 0; n--) out[below((uint32_t)size)] = (char)any_byte();
  return size;
}

static void use_text(const uint8_t *data, size_t size) {
  const char *text = (const char *)data;
  if (!text_valid(text, size)) return;
  size_t at = 0, entries = 0, total = 0;
  for (const char *entry; (entry = text_next(text, size, &at)) != NULL; entries++) {
    total += strlen(entry) + 1;
    const char *value = text_value(entry, "arg");
    CHECK(value == NULL || (value > entry && value <= entry + strlen(entry)));
    uint64_t number, limit = below(2) == 0 ? UINT64_MAX : any();
    const char *equals = strchr(entry, '=');
    CHECK(equals != NULL);
    if (parse_number(equals + 1, limit, &number)) {
      char digits[32];
      CHECK(number <= limit);
      snprintf(digits, sizeof digits, "%llu", (unsigned long long)number);
      CHECK(strcmp(digits, equals + 1 + (strspn(equals + 1, "0") == strlen(equals + 1) ? strlen(equals + 1) - 1 : strspn(equals + 1, "0"))) == 0);
    }
  }
  CHECK(total == size);
  text_find(text, size, "user");
  text_find(text, size, "nothing");
}

/* Feeds the bytes in pieces, as a socket would, through a bounded queue. */
static void feed(const uint8_t *data, size_t size) {
  struct bytes queue = {.max = 2 * (FRAME_HEADER + FRAME_MAX)};
  for (size_t at = 0; at < size;) {
    size_t piece = 1 + below(below(8) == 0 ? 65536 : 64);
    if (piece > size - at) piece = size - at;
    if (!bytes_put(&queue, data + at, piece)) break;
    at += piece;
    for (;;) {
      /* exactly as long as what is there, so that the sanitizer sees any step beyond */
      uint8_t *head = exact(bytes_head(&queue), queue.length);
      struct frame f;
      int taken = frame_parse(head, queue.length, &f);
      if (taken > 0) {
        CHECK((size_t)taken <= queue.length && f.length <= FRAME_MAX && (size_t)taken == FRAME_HEADER + f.length);
        CHECK(f.payload == head + FRAME_HEADER);
        uint8_t *payload = exact(f.payload, f.length);
        use_text(payload, f.length);
        free(payload);
        bytes_drop(&queue, (size_t)taken);
      }
      free(head);
      if (taken < 0) {
        bytes_free(&queue);
        return;
      }
      if (taken == 0) break;
    }
  }
  bytes_free(&queue);
}

static void one_stream(void) {
  static uint8_t stream[400000];
  size_t size = 0;
  for (uint32_t n = 1 + below(6); n > 0; n--) {
    static char payload[FRAME_MAX];
    size_t length = below(10) == 0 ? below(FRAME_MAX + 1) : make_text(payload, below(3) == 0 ? 3000 : 200);
    if (size + FRAME_HEADER + length > sizeof stream) break;
    frame_header(stream + size, (uint8_t)(1 + below(30)), (uint8_t)below(2), any(), (uint32_t)length);
    memcpy(stream + size + FRAME_HEADER, payload, length);
    size += FRAME_HEADER + length;
  }
  for (uint32_t n = below(3) == 0 ? 1 + below(5) : 0; n > 0; n--) stream[below((uint32_t)size)] = any_byte();
  if (below(5) == 0) size = below((uint32_t)size + 1);
  feed(stream, size);
}

/* The queue against a plain copy of what it should hold. */
static void one_queue(void) {
  static uint8_t model[5000];
  size_t held = 0;
  struct bytes queue = {.max = below(sizeof model)};
  for (int n = 0; n < 100; n++) {
    if (below(2) == 0) {
      uint8_t data[700];
      size_t size = below(sizeof data);
      for (size_t i = 0; i < size; i++) data[i] = (uint8_t)any();
      bool fits = size <= queue.max - held;
      CHECK(bytes_put(&queue, data, size) == fits);
      if (fits) memcpy(model + held, data, size);
      if (fits) held += size;
    } else {
      size_t size = below((uint32_t)held + 1);
      bytes_drop(&queue, size);
      memmove(model, model + size, held - size);
      held -= size;
    }
    CHECK(queue.length == held && bytes_room(&queue) == queue.max - held);
    CHECK(held == 0 || memcmp(bytes_head(&queue), model, held) == 0);
  }
  bytes_free(&queue);
}

int main(int argc, char **argv) {
  uint64_t seconds = 10;
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  uint64_t seed = (uint64_t)now.tv_nsec * 2654435761u + (uint64_t)now.tv_sec;
  if ((argc > 1 && !parse_number(argv[1], 86400, &seconds)) || (argc > 2 && !parse_number(argv[2], UINT64_MAX, &seed))) {
    fputs("usage: fuzz_frame SECONDS [SEED]\n", stderr);
    return 2;
  }
  printf("seed %llu\n", (unsigned long long)seed);
  check_seed(seed);
  fflush(stdout);
  time_t end = time(NULL) + (time_t)seconds;
  unsigned long long count = 0;
  do {
    for (int i = 0; i < 500; i++, count++) one_stream();
    for (int i = 0; i < 20; i++) one_queue();
  } while (time(NULL) < end);
  printf("%llu streams, nothing found\n", count);
  return 0;
}
