/* A queue of bytes with an upper bound: memory grows with what is queued, never with what a peer claims. */
#ifndef HULL_BYTES_H
#define HULL_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bytes {
  uint8_t *data;
  size_t start, length, capacity;
  size_t max; /* most bytes that may be queued */
  bool keep;  /* its memory, when it is empty */
};

/* Room for `size` more bytes in one piece, or NULL when that would pass the bound or there is no memory. */
uint8_t *bytes_space(struct bytes *b, size_t size);
/* `size` bytes were written to what bytes_space returned. */
void bytes_commit(struct bytes *b, size_t size);
bool bytes_put(struct bytes *b, const void *data, size_t size);
/* The first byte. */
const uint8_t *bytes_head(const struct bytes *b);
/* The first `size` bytes have been used. */
void bytes_drop(struct bytes *b, size_t size);
/* How many more bytes may be queued. */
size_t bytes_room(const struct bytes *b);
void bytes_free(struct bytes *b);
/* Writes to a non-blocking descriptor what it takes. False on an error other than EAGAIN; errno is set. */
bool bytes_write(struct bytes *b, int fd);

#endif
