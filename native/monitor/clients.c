/*
 * Who is attached to the container. A client is a connection to BUNDLE/attach (monitor.h says what it may ask for); only root reaches that.
 *
 * A client that does not take its output holds up the container, as with Docker; but not its end: what is left then waits here, and the monitor with it, until the client has taken it or is gone.
 */
#include "monitor.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

enum {
  BACKLOG = 128,
  FRAME = 8,                  /* STREAM 0 0 0 SIZE, the size in network order (Engine API, "Attach to a container") */
  CLIENTS_MAX = 1024,
  IGNORED_READS = 64,         /* of one client, until the others have their turn */
  PENDING_MAX = 4 << 20       /* at the end: what was in two pipes, of the largest size that an unprivileged user may give them, and more */
};

struct client {
  struct client *next;
  int fd;
  bool attached; /* it has said what it wants */
  bool framed, input;
  bool said_all; /* it sends no more */
  bool told_all; /* we do not */
  bool gone;     /* it takes nothing any more: what it has said is still read */
  uint8_t hello[HELLO_SIZE];
  size_t hello_length;
  uint8_t *pending;
  size_t pending_at, pending_end;
};

static struct client *clients;
static size_t count;
static int listener = -1;
static bool refused; /* nobody can be taken just now: no descriptors, no memory */
static bool over; /* clients_end */
static bool input_ended;

static bool would_block(void) { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

bool clients_listen(void) {
  struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "attach"};
  listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (listener < 0) return false;
  /* The mode that bind gives the file. */
  return fchmod(listener, 0600) == 0 && bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, BACKLOG) == 0;
}

void clients_unlisten(void) {
  if (listener >= 0) close(listener);
  listener = -1;
}

static void drop_pending(struct client *client) {
  free(client->pending);
  client->pending = NULL;
  client->pending_at = client->pending_end = 0;
}

static void leave(struct client *client) {
  client->gone = true;
  drop_pending(client);
  shutdown(client->fd, SHUT_WR); /* to one that is still there this is the end: it closes, and we forget it */
}

/* Those of whom nothing is to be expected any more. */
static void forget(void) {
  for (struct client **at = &clients; *at != NULL;) {
    struct client *client = *at;
    bool done = client->said_all && (client->gone || client->told_all);
    if (!done) {
      at = &client->next;
      continue;
    }
    *at = client->next;
    close(client->fd);
    free(client->pending);
    free(client);
    count--;
  }
}

static size_t send_parts(struct client *client, struct iovec *parts, int part_count) {
  struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)part_count};
  ssize_t sent;
  do sent = sendmsg(client->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (sent < 0 && errno == EINTR);
  if (sent >= 0) return (size_t)sent;
  if (!would_block()) leave(client);
  return 0;
}

static void keep(struct client *client, const struct iovec *parts, int part_count, size_t skip) {
  size_t size = 0;
  for (int i = 0; i < part_count; i++) size += parts[i].iov_len;
  size -= skip;
  if (size == 0) return;
  size_t left = client->pending_end - client->pending_at;
  uint8_t *grown = left + size <= PENDING_MAX ? malloc(left + size) : NULL;
  if (grown == NULL) {
    report("a client that reads nothing is left without the rest of the output", 0);
    return leave(client);
  }
  if (left > 0) memcpy(grown, client->pending + client->pending_at, left);
  uint8_t *to = grown + left;
  for (int i = 0; i < part_count; i++) {
    size_t skipped = skip < parts[i].iov_len ? skip : parts[i].iov_len;
    memcpy(to, (uint8_t *)parts[i].iov_base + skipped, parts[i].iov_len - skipped);
    to += parts[i].iov_len - skipped;
    skip -= skipped;
  }
  free(client->pending);
  client->pending = grown;
  client->pending_at = 0;
  client->pending_end = left + size;
}

void clients_send(int stream, const uint8_t *data, size_t size) {
  uint8_t frame[FRAME] = {(uint8_t)stream, 0, 0, 0, (uint8_t)(size >> 24), (uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size};
  for (struct client *client = clients; client != NULL; client = client->next) {
    if (!client->attached || client->gone || client->told_all) continue;
    struct iovec parts[2] = {{.iov_base = frame, .iov_len = FRAME}, {.iov_base = (void *)data, .iov_len = size}};
    struct iovec *first = client->framed ? parts : parts + 1;
    int used = client->framed ? 2 : 1;
    size_t sent = client->pending_end > 0 ? 0 : send_parts(client, first, used);
    if (!client->gone) keep(client, first, used, sent);
  }
  forget();
}

/* What it has not taken yet; then, at the end, our end. */
static void flush(struct client *client) {
  if (client->pending_end > 0) {
    struct iovec part = {.iov_base = client->pending + client->pending_at, .iov_len = client->pending_end - client->pending_at};
    client->pending_at += send_parts(client, &part, 1);
    if (client->pending_at >= client->pending_end) drop_pending(client);
  }
  if (!over || client->gone || client->told_all || client->pending_end > 0) return;
  shutdown(client->fd, SHUT_WR);
  client->told_all = true;
}

bool clients_behind(void) {
  for (struct client *client = clients; client != NULL; client = client->next)
    if (client->pending_end > 0) return true;
  return false;
}

void clients_end(void) {
  over = true;
  for (struct client *client = clients; client != NULL; client = client->next) {
    flush(client);
    if (!client->attached) client->said_all = true; /* it came too late to get an answer */
  }
  forget();
}

bool clients_any(void) { return clients != NULL; }

static void begin(struct client *client, const struct container *container) {
  const uint8_t *hello = client->hello;
  if (hello[0] == 'A') {
    client->attached = true;
    client->framed = (hello[1] & HELLO_FRAMED) != 0;
    client->input = (hello[1] & HELLO_INPUT) != 0;
    return;
  }
  struct winsize size = {.ws_row = (unsigned short)(hello[2] << 8 | hello[3]), .ws_col = (unsigned short)(hello[4] << 8 | hello[5])};
  if (hello[0] == 'W' && container->terminal) ioctl(container->out, TIOCSWINSZ, &size);
  client->said_all = client->gone = true;
}

static void read_hello(struct client *client, const struct container *container) {
  while (!client->attached && !client->said_all) {
    ssize_t length = recv(client->fd, client->hello + client->hello_length, HELLO_SIZE - client->hello_length, MSG_DONTWAIT);
    if (length < 0 && would_block()) return;
    if (length <= 0) {
      client->said_all = client->gone = true;
      return;
    }
    client->hello_length += (size_t)length;
    if (client->hello_length == HELLO_SIZE) begin(client, container);
  }
}

void clients_accept(const struct container *container) {
  struct client **last = &clients; /* served in the order in which they came: of two sizes of a terminal the later one counts */
  while (*last != NULL) last = &(*last)->next;
  refused = false;
  while (listener >= 0 && count < CLIENTS_MAX) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) {
      refused = !would_block() && errno != ECONNABORTED;
      break;
    }
    struct client *client = calloc(1, sizeof *client);
    if (client == NULL) {
      close(fd);
      break;
    }
    client->fd = fd;
    *last = client;
    last = &client->next;
    count++;
  }
  for (struct client *client = clients; client != NULL; client = client->next) read_hello(client, container);
  forget();
}

/* What a client says that nobody wants to hear. */
static void ignore(struct client *client) {
  uint8_t rest[1024];
  ssize_t length = 1;
  for (int reads = 0; length > 0 && reads < IGNORED_READS; reads++) length = recv(client->fd, rest, sizeof rest, MSG_DONTWAIT);
  if (length == 0 || (length < 0 && !would_block())) client->said_all = true;
}

size_t clients_read(uint8_t *buffer, size_t size, bool *ended) {
  size_t got = 0;
  for (struct client *client = clients; client != NULL && got == 0; client = client->next) {
    if (!client->attached || !client->input || client->said_all) continue;
    ssize_t length = recv(client->fd, buffer, size, MSG_DONTWAIT);
    if (length > 0) got = (size_t)length;
    if (length > 0 || (length < 0 && would_block())) continue;
    client->said_all = true;
    input_ended = true;
  }
  forget();
  *ended = input_ended;
  return got;
}

bool clients_refused(void) { return refused; }

size_t clients_count(void) { return count + 1; }

size_t clients_poll(struct pollfd *polled, bool input_room) {
  size_t used = 0;
  /* Who could not be taken still waits there, and would keep us awake. */
  polled[used++] = (struct pollfd){.fd = count < CLIENTS_MAX && !refused ? listener : -1, .events = POLLIN};
  for (struct client *client = clients; client != NULL; client = client->next) {
    short events = 0;
    if (!client->said_all && (!client->attached || !client->input || input_room)) events |= POLLIN;
    if (client->pending_end > 0) events |= POLLOUT;
    /* poll reports POLLHUP unasked: one that has hung up, and whose input there is no room for, would keep us awake. */
    polled[used++] = (struct pollfd){.fd = client->gone && events == 0 ? -1 : client->fd, .events = events};
  }
  return used;
}

void clients_serve(const struct pollfd *polled, size_t polled_count, const struct container *container) {
  const struct pollfd *at = polled + 1;
  for (struct client *client = clients; client != NULL && at < polled + polled_count; client = client->next, at++) {
    if (at->revents & (POLLHUP | POLLERR)) leave(client);
    else if (at->revents & POLLOUT) flush(client);
    if (client->attached && !client->input && !client->said_all && (at->revents & (POLLIN | POLLHUP | POLLERR))) ignore(client);
  }
  forget();
  clients_accept(container);
}
