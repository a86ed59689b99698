/* The frames and texts of PROTOCOL.md, shared by agent, hull-vmm and the fuzzer. No I/O, no allocation. */
#ifndef HULL_FRAME_H
#define HULL_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_HEADER 12u
#define FRAME_MAX 65536u        /* payload bytes */
#define JOIN_MAX (1u << 20)     /* bytes of a text sent as several frames */
#define WINDOW_START 262144u    /* bytes outstanding without any WINDOW frame */
#define WINDOW_STEP 32768u
#define FLAG_MORE 1u

enum frame_type {
  F_HELLO = 1, F_READY, F_STARTED, F_FAILED, F_STDOUT, F_STDERR, F_EXIT, F_REPLY, F_WINDOW, F_REHEARSED,
  F_SEED = 16, F_CONFIG, F_RUN, F_EXEC, F_STDIN, F_STDIN_EOF, F_RESIZE, F_SIGNAL, F_QUERY, F_CLOSE, F_WAIT_START, F_RESIZE_MAIN, F_HALT, F_ACCEPT,
  F_SEEDED = 30, F_REHEARSE, F_CLAIM,
};

struct frame {
  uint32_t length;
  uint32_t stream;
  uint8_t type;
  uint8_t flags;
  const uint8_t *payload;
};

/* First frame in data: bytes it takes (header included), 0 when more are needed, -1 when this can never become a frame. */
int frame_parse(const uint8_t *data, size_t size, struct frame *out);

/* Writes the 12 bytes before a payload of `length` bytes. */
void frame_header(uint8_t out[FRAME_HEADER], uint8_t type, uint8_t flags, uint32_t stream, uint32_t length);

uint32_t get_u32(const uint8_t *p);
uint64_t get_u64(const uint8_t *p);
void put_u32(uint8_t *p, uint32_t value);
void put_u64(uint8_t *p, uint64_t value);

/* True when a text payload is a row of NUL-ended strings, each with '=' after a key that is not empty. */
bool text_valid(const char *text, size_t size);

/* Steps through a valid text: the next entry or NULL. Start with *at = 0. */
const char *text_next(const char *text, size_t size, size_t *at);

/* The value of an entry if its key is `key`, else NULL. */
const char *text_value(const char *entry, const char *key);

/* Value of the first entry with that key in a valid text, or NULL. */
const char *text_find(const char *text, size_t size, const char *key);

/* Appends "key=value\0" to a text of `capacity` bytes; values that do not fit are cut, never overrun. Returns the new size. */
size_t text_put(char *text, size_t size, size_t capacity, const char *key, const char *value);
size_t text_put_number(char *text, size_t size, size_t capacity, const char *key, uint64_t value);

/* Strict decimal, no sign, no spaces, at most `max`. */
bool parse_number(const char *s, uint64_t max, uint64_t *out);

#endif
