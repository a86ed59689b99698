#include "frame.h"

#include <stdio.h>
#include <string.h>

uint32_t get_u32(const uint8_t *p) {
  return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint64_t get_u64(const uint8_t *p) {
  return (uint64_t)get_u32(p) | (uint64_t)get_u32(p + 4) << 32;
}

void put_u32(uint8_t *p, uint32_t value) {
  p[0] = (uint8_t)value;
  p[1] = (uint8_t)(value >> 8);
  p[2] = (uint8_t)(value >> 16);
  p[3] = (uint8_t)(value >> 24);
}

void put_u64(uint8_t *p, uint64_t value) {
  put_u32(p, (uint32_t)value);
  put_u32(p + 4, (uint32_t)(value >> 32));
}

int frame_parse(const uint8_t *data, size_t size, struct frame *out) {
  if (size >= 4 && get_u32(data) > FRAME_MAX) return -1;
  if (size < FRAME_HEADER) return 0;
  out->length = get_u32(data);
  out->type = data[4];
  out->flags = data[5];
  out->stream = get_u32(data + 8);
  out->payload = data + FRAME_HEADER;
  if (data[6] != 0 || data[7] != 0 || (out->flags & ~FLAG_MORE) != 0 || out->type == 0) return -1;
  if (size < FRAME_HEADER + out->length) return 0;
  return (int)(FRAME_HEADER + out->length);
}

void frame_header(uint8_t out[FRAME_HEADER], uint8_t type, uint8_t flags, uint32_t stream, uint32_t length) {
  put_u32(out, length);
  out[4] = type;
  out[5] = flags;
  out[6] = out[7] = 0;
  put_u32(out + 8, stream);
}

bool text_valid(const char *text, size_t size) {
  if (size == 0) return true;
  if (text[size - 1] != 0) return false;
  for (size_t at = 0; at < size;) {
    const char *entry = text + at;
    size_t length = strlen(entry); /* ends at text[size - 1] at the latest */
    const char *equals = memchr(entry, '=', length);
    if (equals == NULL || equals == entry) return false;
    at += length + 1;
  }
  return true;
}

const char *text_next(const char *text, size_t size, size_t *at) {
  if (*at >= size) return NULL;
  const char *entry = text + *at;
  *at += strlen(entry) + 1;
  return entry;
}

const char *text_value(const char *entry, const char *key) {
  size_t length = strlen(key);
  return strncmp(entry, key, length) == 0 && entry[length] == '=' ? entry + length + 1 : NULL;
}

const char *text_find(const char *text, size_t size, const char *key) {
  size_t at = 0;
  for (const char *entry; (entry = text_next(text, size, &at)) != NULL;) {
    const char *value = text_value(entry, key);
    if (value != NULL) return value;
  }
  return NULL;
}

size_t text_put(char *text, size_t size, size_t capacity, const char *key, const char *value) {
  size_t key_length = strlen(key), value_length = strlen(value);
  if (size > capacity || capacity - size < key_length + 2) return size;
  size_t room = capacity - size - key_length - 2;
  if (value_length > room) value_length = room;
  memcpy(text + size, key, key_length);
  size += key_length;
  text[size++] = '=';
  memcpy(text + size, value, value_length);
  size += value_length;
  text[size++] = 0;
  return size;
}

size_t text_put_number(char *text, size_t size, size_t capacity, const char *key, uint64_t value) {
  char digits[24];
  snprintf(digits, sizeof digits, "%llu", (unsigned long long)value);
  return text_put(text, size, capacity, key, digits);
}

bool parse_number(const char *s, uint64_t max, uint64_t *out) {
  uint64_t value = 0;
  if (*s == 0) return false;
  for (; *s != 0; s++) {
    if (*s < '0' || *s > '9') return false;
    uint64_t digit = (uint64_t)(*s - '0');
    if (value > (max - digit) / 10 || digit > max) return false;
    value = value * 10 + digit;
  }
  *out = value;
  return true;
}
