/*
 * See bridge.h.
 *
 *   master --read--> out --send--> local (the thread's end of the socketpair) --> Node
 *   master <-write-- in  <--recv-- local                                      <-- Node
 *
 * Each direction holds one buffer and reads again only when it is empty: that is the back-pressure.
 *
 * Ends. Master at its end (EIO: nobody has the terminal open any more): what it said is delivered, then Node sees end of file; what Node still writes is
 * read and dropped (never EPIPE: that would make Node throw away output that it has not read yet) until Node closes.
 * Node shuts its writing half: output goes on; a terminal has no half, its end of input is a character that the user types. Node closes: the thread ends at once.
 */
#include "bridge.h"
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define OUT_SIZE 131072
#define IN_SIZE 16384

struct bridge {
  int master, local;
  bool master_eof;    /* nothing more will come from the master, and it takes no more input */
  bool local_eof;     /* Node sends no more */
  bool eof_delivered; /* to Node */
  size_t out_at, out_end, in_at, in_end;
  uint8_t out[OUT_SIZE];
  uint8_t in[IN_SIZE];
};

static bool would_block(void) { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

static void fill_out(struct bridge *self) {
  if (self->master_eof || self->out_end) return;
  ssize_t length = read(self->master, self->out, sizeof self->out);
  if (length > 0)
    self->out_end = (size_t)length;
  else if (length == 0 || !would_block())
    self->master_eof = true;
}

/* False: Node has closed. */
static bool flush_out(struct bridge *self) {
  while (self->out_at < self->out_end) {
    ssize_t sent = send(self->local, self->out + self->out_at, self->out_end - self->out_at, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) return would_block();
    self->out_at += (size_t)sent;
  }
  self->out_at = self->out_end = 0;
  return true;
}

static void fill_in(struct bridge *self) {
  if (self->local_eof || self->in_end) return;
  ssize_t length = recv(self->local, self->in, sizeof self->in, MSG_DONTWAIT);
  if (length > 0)
    self->in_end = (size_t)length;
  else if (length == 0 || !would_block())
    self->local_eof = true;
}

static void flush_in(struct bridge *self) {
  while (!self->master_eof && self->in_at < self->in_end) {
    ssize_t sent = write(self->master, self->in + self->in_at, self->in_end - self->in_at);
    if (sent < 0 && would_block()) return;
    if (sent < 0) break; /* dropped */
    self->in_at += (size_t)sent;
  }
  self->in_at = self->in_end = 0;
}

/* Node is gone: what it had written goes as far as it goes without waiting. */
static void last_words(struct bridge *self) {
  for (;;) {
    flush_in(self);
    if (self->in_end) return;
    fill_in(self);
    if (!self->in_end) return;
  }
}

static void carry(struct bridge *self) {
  for (;;) {
    fill_out(self);
    if (!flush_out(self)) return last_words(self);
    if (self->master_eof && !self->out_end && !self->eof_delivered) {
      shutdown(self->local, SHUT_WR);
      self->eof_delivered = true;
    }
    fill_in(self);
    flush_in(self);
    if (self->eof_delivered && self->local_eof) return;

    struct pollfd polled[2] = {{.fd = -1}, {.fd = self->local}};
    /* A master that we have no use for now is left out, because poll reports its POLLHUP whether asked or not. */
    if (!self->master_eof && !self->out_end) polled[0].events |= POLLIN;
    if (self->in_end) polled[0].events |= POLLOUT;
    if (polled[0].events) polled[0].fd = self->master;
    if (self->out_end) polled[1].events |= POLLOUT;
    if (!self->local_eof && !self->in_end) polled[1].events |= POLLIN;
    if (poll(polled, 2, -1) < 0 && errno != EINTR) return;
    if (polled[1].revents & (POLLHUP | POLLERR)) return last_words(self);
    /* Gone while it takes nothing: it never will. */
    if ((polled[0].revents & (POLLHUP | POLLERR)) && !(polled[0].revents & (POLLIN | POLLOUT))) self->master_eof = true;
  }
}

static void bridge_free(struct bridge *self) {
  close_quietly(self->master);
  close_quietly(self->local);
  free(self);
}

static void *bridge_body(void *argument) {
  struct bridge *self = argument;
  carry(self);
  bridge_free(self);
  return NULL;
}

int bridge_start(int master) {
  int pair[2];
  struct bridge *self = malloc(sizeof *self);
  if (!self) {
    close_quietly(master);
    return -1;
  }
  memset(self, 0, offsetof(struct bridge, out)); /* not the buffers: untouched pages cost nothing */
  self->master = master;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
    self->local = -1;
    bridge_free(self);
    return -1;
  }
  self->local = pair[1];
  int error = thread_spawn(bridge_body, self);
  if (error) {
    bridge_free(self);
    close(pair[0]);
    errno = error;
    return -1;
  }
  return pair[0];
}
