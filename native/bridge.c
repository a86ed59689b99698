/*
 * See bridge.h. One loop for both kinds of remote:
 *
 *   remote --recv--> out --send--> local (the thread's end of the socketpair) --> Node
 *   remote <--send-- in  <--recv-- local                                      <-- Node
 *
 * Each direction holds one buffer and reads again only when it is empty: that is the back-pressure.
 *
 * Ends. Remote at end of file: what it said is delivered, then Node sees end of file; what Node still writes is
 * read and dropped (never EPIPE: that would make Node throw away output that it has not read yet) until Node closes.
 * Node shuts its writing half: the remote sees end of input, output goes on. Node closes: the thread ends at once.
 */
#include "bridge.h"
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* conmon sends packets of at most 8192 bytes and the type byte (STDIO_BUF_SIZE), and reads at most 32768 (CONN_SOCK_BUF_SIZE). */
#define PACKET_MAX 65536
#define OUT_SIZE (2 * PACKET_MAX)
#define IN_SIZE 16384
#define HEADER 8
enum { CONMON_STDERR = 3 }; /* first byte of a packet; stdout is 2 (stdpipe_t in conmon's src/utils.h) */

struct bridge {
  int remote, local;
  enum bridge_kind kind;
  bool silent;        /* nothing goes to the remote, not even an end */
  bool remote_eof;    /* nothing more will come from the remote */
  bool remote_deaf;   /* the remote takes no more input: drop it */
  bool local_eof;     /* Node sends no more */
  bool eof_passed_on; /* to the remote */
  bool eof_delivered; /* to Node */
  size_t out_at, out_end, in_at, in_end;
  uint8_t out[OUT_SIZE];
  uint8_t in[IN_SIZE];
};

static bool would_block(void) { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

/* Appends one packet of conmon's to `out`. False: nothing more just now. */
static bool read_packet(struct bridge *self) {
  /* Received so that its type byte is the last one of the header's place, and the payload is where it must be. */
  uint8_t *place = self->out + self->out_end;
  ssize_t length = recv(self->remote, place + HEADER - 1, PACKET_MAX - HEADER, MSG_DONTWAIT);
  if (length < 0) {
    /* The kernel reports once that conmon closed without having read all, and only then gives what conmon had sent. */
    if (errno == ECONNRESET) return true;
    if (!would_block()) self->remote_eof = true;
    return false;
  }
  if (length == 0) {
    self->remote_eof = true;
    return false;
  }
  size_t payload = (size_t)length - 1;
  if (payload == 0) return true;
  if (self->kind == BRIDGE_CONMON_RAW) {
    memmove(place, place + HEADER, payload);
    self->out_end += payload;
    return true;
  }
  uint8_t stream = place[HEADER - 1] == CONMON_STDERR ? 2 : 1;
  uint8_t header[HEADER] = {stream, 0, 0, 0, (uint8_t)(payload >> 24), (uint8_t)(payload >> 16), (uint8_t)(payload >> 8), (uint8_t)payload};
  memcpy(place, header, HEADER);
  self->out_end += HEADER + payload;
  return true;
}

static void fill_out(struct bridge *self) {
  if (self->remote_eof || self->out_end) return;
  if (self->kind != BRIDGE_PTY) {
    while (OUT_SIZE - self->out_end >= PACKET_MAX && read_packet(self)) {
    }
    return;
  }
  ssize_t length = read(self->remote, self->out, sizeof self->out);
  if (length > 0)
    self->out_end = (size_t)length;
  else if (length == 0 || !would_block()) /* EIO: nobody has the terminal open any more */
    self->remote_eof = self->remote_deaf = true;
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
  while (!self->remote_deaf && self->in_at < self->in_end) {
    const uint8_t *data = self->in + self->in_at;
    size_t size = self->in_end - self->in_at;
    ssize_t sent = self->kind == BRIDGE_PTY ? write(self->remote, data, size)
                                            : send(self->remote, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && would_block()) return;
    if (sent < 0 && errno == ECONNRESET) continue; /* reported once; EPIPE follows if it is true */
    if (sent < 0)
      self->remote_deaf = true;
    else
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
    if (self->remote_eof) self->remote_deaf = true;
    if (self->remote_eof && !self->out_end && !self->eof_delivered) {
      shutdown(self->local, SHUT_WR);
      self->eof_delivered = true;
    }
    fill_in(self);
    flush_in(self);
    if (self->local_eof && !self->in_end && !self->eof_passed_on) {
      /* A terminal has no half: its end of input is a character that the user types. */
      if (self->kind != BRIDGE_PTY && !self->silent) shutdown(self->remote, SHUT_WR);
      self->eof_passed_on = true;
    }
    if (self->eof_delivered && self->local_eof) return;

    struct pollfd polled[2] = {{.fd = -1}, {.fd = self->local}};
    /* A remote that we have no use for now is left out, because poll reports its POLLHUP whether asked or not. */
    if (!self->remote_eof && !self->out_end) polled[0].events |= POLLIN;
    if (self->in_end) polled[0].events |= POLLOUT;
    if (polled[0].events) polled[0].fd = self->remote;
    if (self->out_end) polled[1].events |= POLLOUT;
    if (!self->local_eof && !self->in_end) polled[1].events |= POLLIN;
    if (poll(polled, 2, -1) < 0 && errno != EINTR) return;
    if (polled[1].revents & (POLLHUP | POLLERR)) return last_words(self);
    /* Gone while it takes nothing: it never will. */
    if ((polled[0].revents & (POLLHUP | POLLERR)) && !(polled[0].revents & (POLLIN | POLLOUT))) self->remote_deaf = true;
  }
}

/* Keeps the socket, as a client that neither speaks nor listens, until conmon is gone. Its next write to us fails, and it writes no more. */
static void linger(struct bridge *self) {
  close_quietly(self->local);
  self->local = -1;
  shutdown(self->remote, SHUT_RD);
  struct pollfd polled = {.fd = self->remote}; /* POLLHUP comes unasked */
  while (poll(&polled, 1, -1) < 0 && errno == EINTR) {
  }
}

/*
 * Leaves without ever having conmon's write to us fail before it has read our end: conmon (2.1 up to its newest at the time of writing, remote_sock_shutdown) then frees the connection in the middle of
 * handling that end, looks at what it has freed, and does not close the container's stdin. So the end is passed on, what still comes is dropped, and the socket is closed when conmon
 * has taken everything and a moment more.
 */
static void farewell(struct bridge *self) {
  enum { STEP_MS = 10, SETTLED_MS = 200, LIMIT_MS = 5000, STEP_PACKETS = 256 };
  close_quietly(self->local);
  self->local = -1;
  shutdown(self->remote, SHUT_WR);
  for (int waited = 0, settled = 0; waited < LIMIT_MS && settled < SETTLED_MS; waited += STEP_MS) {
    int unread = 0;
    struct pollfd polled = {.fd = self->remote, .events = POLLIN};
    struct timespec step = {.tv_nsec = STEP_MS * 1000000L};
    for (int packets = 0; packets < STEP_PACKETS && poll(&polled, 1, 0) > 0 && (polled.revents & POLLIN); packets++) {
      ssize_t length = recv(self->remote, self->out, sizeof self->out, MSG_DONTWAIT);
      if (length == 0 || (length < 0 && !would_block() && errno != ECONNRESET)) return;
      if (length < 0) break;
    }
    if (polled.revents & (POLLHUP | POLLERR)) return; /* conmon is gone */
    settled = ioctl(self->remote, SIOCOUTQ, &unread) == 0 && unread > 0 ? 0 : settled + STEP_MS;
    nanosleep(&step, NULL);
  }
}

static void bridge_free(struct bridge *self) {
  close_quietly(self->remote);
  close_quietly(self->local);
  free(self);
}

static void *bridge_body(void *argument) {
  struct bridge *self = argument;
  carry(self);
  if (self->silent && !self->remote_eof) linger(self);
  else if (self->kind != BRIDGE_PTY && !self->remote_eof) farewell(self);
  bridge_free(self);
  return NULL;
}

int bridge_start(int remote, enum bridge_kind kind, bool silent) {
  int pair[2];
  struct bridge *self = malloc(sizeof *self);
  if (!self) {
    close_quietly(remote);
    return -1;
  }
  memset(self, 0, offsetof(struct bridge, out)); /* not the buffers: untouched pages cost nothing */
  self->remote = remote;
  self->kind = kind;
  self->silent = silent;
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
