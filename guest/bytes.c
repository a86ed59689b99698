#include "bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SMALLEST 4096u

uint8_t *bytes_space(struct bytes *b, size_t size) {
  if (size > b->max - b->length) return NULL;
  if (b->data != NULL && b->start + b->length + size <= b->capacity) return b->data + b->start + b->length;
  if (b->data != NULL && b->length + size <= b->capacity) {
    memmove(b->data, b->data + b->start, b->length);
    b->start = 0;
    return b->data + b->length;
  }
  size_t capacity = b->capacity < SMALLEST ? SMALLEST : b->capacity;
  while (capacity < b->length + size) capacity *= 2;
  uint8_t *data = malloc(capacity);
  if (data == NULL) return NULL;
  if (b->length > 0) memcpy(data, b->data + b->start, b->length);
  free(b->data);
  b->data = data;
  b->start = 0;
  b->capacity = capacity;
  return data + b->length;
}

void bytes_commit(struct bytes *b, size_t size) {
  b->length += size;
}

bool bytes_put(struct bytes *b, const void *data, size_t size) {
  uint8_t *space = bytes_space(b, size);
  if (space == NULL) return false;
  if (size > 0) memcpy(space, data, size);
  b->length += size;
  return true;
}

const uint8_t *bytes_head(const struct bytes *b) {
  return b->data + b->start;
}

void bytes_drop(struct bytes *b, size_t size) {
  b->start += size;
  b->length -= size;
  if (b->length > 0) return;
  b->start = 0;
  if (b->capacity > 65536 && !b->keep) bytes_free(b); /* an idle stream keeps no large buffer */
}

size_t bytes_room(const struct bytes *b) {
  return b->max - b->length;
}

void bytes_free(struct bytes *b) {
  free(b->data);
  b->data = NULL;
  b->start = b->length = b->capacity = 0;
}

bool bytes_write(struct bytes *b, int fd) {
  while (b->length > 0) {
    ssize_t n = write(fd, bytes_head(b), b->length);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno == EAGAIN;
    if (n == 0) return true;
    bytes_drop(b, (size_t)n);
  }
  return true;
}
