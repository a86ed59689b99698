/* ctl.sock: every connection is one stream. Connections come from the daemon alone (mode 0600), but a slow or broken one must not
 * touch the machine, its main stream or another connection. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm.h"

#define CLIENTS_MAX 160 /* more than the agent has sessions (128): a signal or query finds a place */
/* A window of output in the smallest frames (12 bytes of header for one byte) and one whole REPLY. Only what is queued takes memory. */
#define QUEUE_MAX (13u * WINDOW_START + 524288u)

struct client {
  struct watch watch;
  struct client *next;
  struct bytes in, out;
  uint32_t stream;     /* at the agent; 0: none now */
  bool exec;           /* the stream is an exec session (else a query) */
  bool spec_open;      /* the last EXEC frame said that more follows */
  bool waits;          /* for STARTED or FAILED */
  bool ending;         /* its stream is over: nothing more is read from it but its end, our end is closed when `out` is written */
  bool shut;           /* our end is closed */
  uint8_t tail_type;   /* of the last frame in `out` */
  uint32_t tail_size;
  uint64_t allowed;    /* output that the guest may still send */
  uint64_t stdin_left; /* stdin that the client may still send */
};

static struct watch listener = {.fd = -1};
static struct client *clients;
static size_t count;
static uint32_t next_stream = 2;

static void drop(struct client *c) {
  if (c->stream != 0) link_send(F_CLOSE, 0, c->stream, NULL, 0);
  c->stream = 0;
  watch_close(&c->watch);
}

static void send_to(struct client *c, uint8_t type, uint8_t flags, const void *payload, size_t size) {
  uint8_t *space = c->watch.fd < 0 ? NULL : bytes_space(&c->out, FRAME_HEADER + size);
  if (space == NULL) {
    drop(c); /* it asked for more than it reads */
    return;
  }
  /* Output that waits is put together: a process that writes single bytes does not make a queue of headers. */
  bool output = type == F_STDOUT || type == F_STDERR;
  if (output && c->tail_type == type && c->out.length >= FRAME_HEADER + c->tail_size && c->tail_size + size <= FRAME_MAX) {
    memcpy(space, payload, size);
    bytes_commit(&c->out, size);
    c->tail_size += (uint32_t)size;
    frame_header(space + size - c->tail_size - FRAME_HEADER, type, flags, 0, c->tail_size);
    return;
  }
  c->tail_type = type;
  c->tail_size = (uint32_t)size;
  frame_header(space, type, flags, 0, (uint32_t)size);
  if (size > 0) memcpy(space + FRAME_HEADER, payload, size);
  bytes_commit(&c->out, FRAME_HEADER + size);
}

static void send_failed(struct client *c, int code, const char *message) {
  char text[MESSAGE_MAX + 64];
  size_t size = text_put_number(text, 0, sizeof text, "code", (uint64_t)code);
  send_to(c, F_FAILED, 0, text, text_put(text, size, sizeof text, "message", message));
}

static void send_ok(struct client *c, bool ok) {
  char text[8];
  send_to(c, F_REPLY, 0, text, text_put(text, 0, sizeof text, "ok", ok ? "1" : "0"));
}

static void answer_start(struct client *c) {
  char text[64];
  c->waits = false;
  if (machine.started) send_to(c, F_STARTED, 0, text, text_put_number(text, 0, sizeof text, "pid", machine.guest_pid));
  else if (machine.state >= HALTING) send_failed(c, machine.code, machine.message);
  else c->waits = true;
}

void clients_started(void) {
  for (struct client *c = clients; c != NULL; c = c->next)
    if (c->waits) answer_start(c);
}

/* Gives the connection a stream at the agent and passes the frame on. */
static void open_stream(struct client *c, const struct frame *f, bool exec) {
  c->stream = next_stream++;
  if (next_stream == 0) next_stream = 2;
  c->exec = exec;
  c->spec_open = exec && (f->flags & FLAG_MORE) != 0;
  c->allowed = c->stdin_left = WINDOW_START;
  link_send(f->type, f->flags, c->stream, f->payload, f->length);
}

static uint64_t number(const struct frame *f, const char *key, uint64_t max) {
  uint64_t value;
  const char *text = text_find((const char *)f->payload, f->length, key);
  return text != NULL && parse_number(text, max, &value) ? value : 0;
}

static void on_query(struct client *c, const struct frame *f) {
  char text[MESSAGE_MAX + 4 * FIELD_MAX];
  const char *what = text_find((const char *)f->payload, f->length, "what");
  if (what != NULL && strcmp(what, "status") == 0) send_to(c, F_REPLY, 0, text, status_text(text, sizeof text));
  else if (machine.state != RUNNING) send_failed(c, 125, "container is not running");
  else open_stream(c, f, false);
}

/* Passes a frame of an exec session on. False: the client broke the protocol. */
static bool on_stream(struct client *c, const struct frame *f) {
  switch (f->type) {
    case F_STDIN:
      if (f->length > c->stdin_left) return false;
      c->stdin_left -= f->length;
      break;
    case F_WINDOW:
      if (f->length != 4) return false;
      if (c->allowed < (1u << 30)) c->allowed += get_u32(f->payload);
      break;
    case F_EXEC: /* the rest of a spec that comes in several frames */
      if (!c->spec_open) return false;
      c->spec_open = (f->flags & FLAG_MORE) != 0;
      break;
    case F_STDIN_EOF:
    case F_RESIZE:
    case F_SIGNAL:
      break;
    case F_CLOSE:
      drop(c);
      return true;
    default:
      return false;
  }
  link_send(f->type, f->flags, c->stream, f->payload, f->length);
  return true;
}

/* One frame of a client. False: the client broke the protocol. */
static bool on_frame(struct client *c, const struct frame *f) {
  bool running = machine.state == RUNNING;
  bool text = f->type == F_SIGNAL || f->type == F_QUERY || f->type == F_RESIZE || f->type == F_RESIZE_MAIN || f->type == F_ACCEPT;
  if (text && !text_valid((const char *)f->payload, f->length)) return false;
  if (c->stream != 0) return c->exec ? on_stream(c, f) : f->type == F_CLOSE && (drop(c), true);
  switch (f->type) {
    case F_CLAIM:
      if (!link_claim()) {
        send_failed(c, 125, "not a machine that waits for a workload");
        return true;
      }
      answer_start(c);
      return true;
    case F_WAIT_START: answer_start(c); return true;
    case F_QUERY: on_query(c, f); return true;
    case F_EXEC:
    case F_ACCEPT:
      if (running) {
        open_stream(c, f, true);
      } else {
        send_failed(c, 125, "container is not running");
        c->ending = true;
      }
      return true;
    case F_SIGNAL:
      if (running) link_signal(MAIN_STREAM, (int)number(f, "signal", 64));
      send_ok(c, running);
      return true;
    case F_RESIZE_MAIN:
      if (running) link_send(F_RESIZE, 0, MAIN_STREAM, f->payload, f->length);
      send_ok(c, running);
      return true;
    case F_CLOSE: drop(c); return true;
    case F_WINDOW:
    case F_STDIN:
    case F_STDIN_EOF:
    case F_RESIZE: return true; /* for a stream that has just ended */
    default: return false;
  }
}

static void handle_input(struct client *c) {
  size_t at = 0;
  while (c->watch.fd >= 0 && !c->ending && link_has_room() && c->in.length > at) {
    struct frame f;
    int taken = frame_parse(bytes_head(&c->in) + at, c->in.length - at, &f);
    if (taken == 0) break;
    if (taken < 0 || !on_frame(c, &f)) {
      drop(c);
      break;
    }
    at += (size_t)taken;
  }
  bytes_drop(&c->in, at);
}

static void client_ready(struct watch *w, uint32_t events) {
  struct client *c = (struct client *)(void *)w; /* its first member */
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) return;
  uint8_t *space = bytes_space(&c->in, FRAME_HEADER + FRAME_MAX);
  ssize_t n = space == NULL ? 0 : read(w->fd, space, FRAME_HEADER + FRAME_MAX);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) drop(c); /* closed, also for writing alone: the client is gone */
  else if (!c->ending) bytes_commit(&c->in, (size_t)n);
}

static void accept_ready(struct watch *w, uint32_t events) {
  (void)events;
  int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  struct client *c = fd < 0 ? NULL : calloc(1, sizeof *c);
  if (c == NULL) {
    if (fd >= 0) close(fd);
    return;
  }
  watch_init(&c->watch, fd, client_ready);
  c->in.max = 2 * (FRAME_HEADER + FRAME_MAX);
  c->out.max = QUEUE_MAX;
  c->next = clients;
  clients = c;
  count++;
}

bool clients_listen(char *message) {
  struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "ctl.sock"};
  unlink(name.sun_path);
  mode_t mask = umask(0177);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  bool ok = fd >= 0 && bind(fd, (struct sockaddr *)&name, sizeof name) == 0 && listen(fd, 64) == 0;
  umask(mask);
  if (!ok) return snprintf(message, MESSAGE_MAX, "ctl.sock: %s", strerror(errno)), false;
  watch_init(&listener, fd, accept_ready);
  return true;
}

static struct client *find(uint32_t stream) {
  for (struct client *c = clients; c != NULL; c = c->next)
    if (c->stream == stream && c->watch.fd >= 0) return c;
  return NULL;
}

void clients_frame(const struct frame *f) {
  struct client *c = find(f->stream);
  if (f->stream >= next_stream) {
    guest_error("a frame for a stream that was never opened");
    return;
  }
  if (c == NULL) return; /* its client is gone */
  bool ends = f->type == F_EXIT || f->type == F_FAILED || (f->type == F_REPLY && (f->flags & FLAG_MORE) == 0);
  switch (f->type) {
    case F_STDOUT:
    case F_STDERR:
      if (f->length > c->allowed) {
        guest_error("output beyond its window");
        return;
      }
      c->allowed -= f->length;
      break;
    case F_WINDOW:
      if (f->length == 4 && c->stdin_left < (1u << 30)) c->stdin_left += get_u32(f->payload);
      break;
    case F_STARTED:
    case F_EXIT:
    case F_FAILED:
    case F_REPLY: break;
    default: guest_error("a frame out of order"); return;
  }
  if (ends) {
    c->stream = 0;
    c->ending = c->exec;
    if (c->ending) bytes_free(&c->in);
  }
  send_to(c, f->type, f->flags, f->payload, f->length);
}

bool clients_flushed(void) {
  for (struct client *c = clients; c != NULL; c = c->next)
    if (c->watch.fd >= 0 && (c->out.length > 0 || c->ending)) return false;
  return true;
}

void clients_update(void) {
  for (struct client **at = &clients; *at != NULL;) {
    struct client *c = *at;
    handle_input(c);
    if (c->watch.fd >= 0 && !bytes_write(&c->out, c->watch.fd)) drop(c);
    /* Not closed yet: a client that still sends WINDOW would get EPIPE and might throw away what it has not read. */
    if (c->watch.fd >= 0 && c->ending && !c->shut && c->out.length == 0) c->shut = shutdown(c->watch.fd, SHUT_WR) == 0;
    if (c->watch.fd < 0) {
      *at = c->next;
      bytes_free(&c->in);
      bytes_free(&c->out);
      free(c);
      count--;
      continue;
    }
    bool full = c->in.length >= FRAME_HEADER + FRAME_MAX;
    watch_set(&c->watch, (full ? 0u : EPOLLIN) | (c->out.length > 0 ? EPOLLOUT : 0u));
    at = &c->next;
  }
  watch_set(&listener, count < CLIENTS_MAX ? EPOLLIN : 0);
}

void clients_close(void) {
  for (struct client *c = clients; c != NULL; c = c->next) watch_close(&c->watch);
  watch_close(&listener);
  unlink("ctl.sock");
}
