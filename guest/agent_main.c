/* The link to hull-vmm, and the loop. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"

#define DATA_LIMIT 131072u  /* data waits in its pipe when so much is queued already */
#define PAUSE_LIMIT 262144u /* no more requests are read when so much is queued */
#define OUT_MAX 1048576u
#define JOINS 192 /* more than hull-vmm has clients */

static struct watch port, children;
static struct bytes in = {.max = 2 * (FRAME_HEADER + FRAME_MAX), .keep = true}, out = {.max = OUT_MAX};
static enum { WAIT_SEED, WAIT_CONFIG, READY, CONFIG_FAILED, HALTED } stage;
static bool ran, rehearsed;

/* Texts that come in several frames. Streams may interleave. */
static struct join {
  struct bytes text;
  uint32_t stream;
  uint8_t type; /* 0: free */
  bool broken;  /* too long: what comes is dropped up to its last frame */
} joins[JOINS];

size_t link_room(void) {
  return out.length < DATA_LIMIT ? DATA_LIMIT - out.length : 0;
}

uint8_t *link_data_space(size_t size) {
  uint8_t *space = bytes_space(&out, FRAME_HEADER + size);
  return space == NULL ? NULL : space + FRAME_HEADER;
}

void link_data_send(uint8_t type, uint8_t flags, uint32_t stream, size_t size) {
  frame_header(out.data + out.start + out.length, type, flags, stream, (uint32_t)size);
  bytes_commit(&out, FRAME_HEADER + size);
}

void link_send(uint8_t type, uint32_t stream, const void *payload, size_t size) {
  uint8_t *space = link_data_space(size);
  if (space == NULL) die("link queue is full");
  if (size > 0) memcpy(space, payload, size);
  link_data_send(type, 0, stream, size);
}

void link_failed(uint32_t stream, int code, const char *message) {
  char text[MESSAGE_MAX + 64];
  size_t size = text_put_number(text, 0, sizeof text, "code", (uint64_t)code);
  link_send(F_FAILED, stream, text, text_put(text, size, sizeof text, "message", message));
}

void link_exit(uint32_t stream, int code, bool oom) {
  char text[64];
  size_t size = text_put_number(text, 0, sizeof text, "code", (uint64_t)code);
  link_send(F_EXIT, stream, text, text_put_number(text, size, sizeof text, "oom", oom));
}

static size_t self(char *text, size_t size, size_t capacity) {
  struct utsname name;
  uname(&name);
  size = text_put(text, size, capacity, "agent", AGENT_VERSION);
  return text_put(text, size, capacity, "kernel", name.release);
}

static int boot_id; /* open, and not read before it may be */

/* A memory template is made of a machine that has said this much and no more: nothing random may have been read yet. */
static void hello(void) {
  char text[512];
  size_t size = text_put(text, 0, sizeof text, "proto", "3");
  link_send(F_HELLO, 0, text, self(text, size, sizeof text));
}

/* The answer to SEED: from here on this machine is not like any other. The kernel makes its boot id when it is first read. */
static void seeded(void) {
  char text[512], bootid[64] = "";
  if (pread(boot_id, bootid, sizeof bootid - 1, 0) < 0) bootid[0] = 0;
  bootid[strcspn(bootid, "\n")] = 0;
  size_t size = text_put(text, 0, sizeof text, "bootid", bootid);
  link_send(F_SEEDED, 0, text, self(text, size, sizeof text));
}

/* Adds a frame to its text. True when this was its last frame: then *text is the whole text (malloc'd), or NULL with a message. */
static bool join(const struct frame *f, char **text, size_t *size, char *message) {
  struct join *j = NULL;
  for (int i = 0; i < JOINS && j == NULL; i++)
    if (joins[i].type == f->type && joins[i].stream == f->stream) j = &joins[i];
  for (int i = 0; i < JOINS && j == NULL; i++)
    if (joins[i].type == 0) j = &joins[i];
  if (j == NULL) die("too many unfinished texts");
  if (j->type == 0) j->broken = false;
  j->type = f->type;
  j->stream = f->stream;
  j->text.max = JOIN_MAX;
  if (!j->broken && !bytes_put(&j->text, f->payload, f->length)) j->broken = true;
  if ((f->flags & FLAG_MORE) != 0) return false;
  *text = j->broken ? NULL : malloc(j->text.length + 1);
  *size = j->text.length;
  if (*text != NULL) memcpy(*text, bytes_head(&j->text), *size);
  if (j->broken) fail(message, "the specification is too long");
  bytes_free(&j->text);
  j->type = 0;
  if (*text != NULL && !text_valid(*text, *size)) {
    fail(message, "the specification is malformed");
    free(*text);
    *text = NULL;
  }
  return true;
}

static void forget_joins(uint32_t stream) {
  for (int i = 0; i < JOINS; i++) {
    if (joins[i].type == 0 || joins[i].stream != stream) continue;
    bytes_free(&joins[i].text);
    joins[i].type = 0;
  }
}

static void on_config(const struct frame *f) {
  size_t size;
  char message[MESSAGE_MAX] = "", *text;
  if (!join(f, &text, &size, message)) return;
  bool ok = text != NULL && configure(text, size, message);
  stage = ok ? READY : CONFIG_FAILED;
  if (ok) link_send(F_READY, 0, "", 0);
  else link_failed(0, 125, message);
}

static void on_rehearse(const struct frame *f) {
  size_t size;
  char message[MESSAGE_MAX] = "", *text;
  if (!join(f, &text, &size, message)) return;
  rehearsed = true;
  if (text != NULL && rehearse(text, size, message)) {
    link_send(F_REHEARSED, 0, "", 0);
    return;
  }
  stage = CONFIG_FAILED;
  link_failed(0, 125, message);
}

static void on_seed(const struct frame *f) {
  if (!seed(f->payload, f->length)) {
    link_failed(0, 125, "the guest's random numbers and clock could not be set");
    stage = CONFIG_FAILED;
    return;
  }
  seeded();
  stage = WAIT_CONFIG;
}

static uint64_t number_in(const struct frame *f, const char *key, uint64_t max) {
  uint64_t number = 0;
  if (!text_valid((const char *)f->payload, f->length)) die("text of frame type %u is malformed", f->type);
  const char *value = text_find((const char *)f->payload, f->length, key);
  return value != NULL && parse_number(value, max, &number) ? number : 0;
}

/* A frame of a running machine. */
static void on_frame(const struct frame *f) {
  struct session *s = session_find(f->stream);
  size_t size;
  char *text, message[MESSAGE_MAX] = "";
  if (f->type == F_RUN || f->type == F_EXEC) {
    if (!join(f, &text, &size, message)) return;
    if (s != NULL || (f->type == F_RUN) != (f->stream == 1) || f->stream == 0 || (f->type == F_RUN && ran)) die("stream %u is in use", f->stream);
    if (f->type == F_RUN) ran = true;
    if (text == NULL) link_failed(f->stream, 125, message);
    else session_run(f->stream, f->type, text, size);
  } else if (f->type == F_QUERY) {
    if (s != NULL || f->stream < 2) die("stream %u is in use", f->stream);
    number_in(f, "what", 0); /* only checks the text */
    session_query(f->stream, (const char *)f->payload, f->length);
  } else if (f->type == F_ACCEPT) {
    if (s != NULL || f->stream < 2) die("stream %u is in use", f->stream);
    session_accept(f->stream, (uint32_t)number_in(f, "socket", UINT32_MAX));
  } else if (f->type == F_HALT) {
    root_unmount();
    sync();
    stage = HALTED;
    link_send(F_REPLY, 0, "", 0);
  } else if (f->type == F_CLOSE) {
    forget_joins(f->stream);
    if (s != NULL) session_close(s);
  } else if (s == NULL) {
    return; /* it has just ended */
  } else if (f->type == F_STDIN) {
    session_stdin(s, f->payload, f->length);
  } else if (f->type == F_STDIN_EOF) {
    session_stdin_eof(s);
  } else if (f->type == F_RESIZE) {
    session_resize(s, (uint16_t)number_in(f, "rows", UINT16_MAX), (uint16_t)number_in(f, "columns", UINT16_MAX));
  } else if (f->type == F_SIGNAL) {
    session_signal(s, (int)number_in(f, "signal", 64));
  } else if (f->type == F_WINDOW && f->length == 4) {
    session_window(s, get_u32(f->payload));
  }
}

static void dispatch(const struct frame *f) {
  switch (stage) {
    case WAIT_SEED:
      if (f->type != F_SEED || f->stream != 0) die("frame type %u before SEED", f->type);
      on_seed(f);
      return;
    case WAIT_CONFIG:
      if (f->type == F_HALT) on_frame(f);
      else if (f->type == F_SEED && f->stream == 0) on_seed(f); /* a machine that has waited */
      else if (f->type == F_REHEARSE && f->stream == 0 && !rehearsed) on_rehearse(f);
      else if (f->type != F_CONFIG || f->stream != 0) die("frame type %u before CONFIG", f->type);
      else on_config(f);
      return;
    case CONFIG_FAILED:
      if (f->type == F_HALT) on_frame(f);
      return; /* nothing else will happen in this machine */
    case HALTED: return;
    case READY: on_frame(f);
  }
}

static void read_frames(void) {
  while (in.length > 0 && out.length < PAUSE_LIMIT) {
    struct frame f;
    int taken = frame_parse(bytes_head(&in), in.length, &f);
    if (taken < 0) die("malformed frame");
    if (taken == 0) return;
    dispatch(&f);
    bytes_drop(&in, (size_t)taken);
  }
}

static void port_ready(struct watch *w, uint32_t events) {
  if ((events & (EPOLLHUP | EPOLLERR)) != 0 && (events & EPOLLIN) == 0) die("the host has closed the port");
  if ((events & EPOLLIN) == 0) return;
  uint8_t *space = bytes_space(&in, FRAME_HEADER + FRAME_MAX - (in.length < FRAME_MAX ? in.length : FRAME_MAX));
  size_t size = FRAME_HEADER + FRAME_MAX - (in.length < FRAME_MAX ? in.length : FRAME_MAX);
  if (space == NULL) die("out of memory");
  ssize_t n = read(w->fd, space, size);
  if (n == 0) die("the host has closed the port");
  if (n < 0 && errno != EAGAIN && errno != EINTR) die("port: %s", strerror(errno));
  if (n > 0) bytes_commit(&in, (size_t)n);
}

static void children_ready(struct watch *w, uint32_t events) {
  (void)events;
  struct signalfd_siginfo info;
  while (read(w->fd, &info, sizeof info) == sizeof info) {
  }
  int status;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
    if (!waiting_reaped(pid)) session_reaped(pid, status);
}

int main(int argc, char **argv) {
  if (argc == 2 && strcmp(argv[1], REHEARSAL) == 0) return 0; /* the program of a rehearsal */
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGCHLD);
  sigprocmask(SIG_BLOCK, &mask, NULL);
  signal(SIGPIPE, SIG_IGN);
  if (loop_open() < 0) die("epoll: %s", strerror(errno));
  watch_init(&port, boot(), port_ready);
  watch_init(&children, signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK), children_ready);
  watch_set(&children, EPOLLIN);
  boot_id = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  if (bytes_space(&in, FRAME_HEADER + FRAME_MAX) == NULL) die("out of memory"); /* a clone finds it */
  hello();
  for (;;) {
    int timeout;
    size_t before;
    do { /* until the port takes no more: room in the queue may let a stream or a request go on */
      read_frames();
      timeout = sessions_update();
      before = out.length;
      if (!bytes_write(&out, port.fd)) die("port: %s", strerror(errno));
    } while (out.length < before);
    watch_set(&port, (out.length < PAUSE_LIMIT ? EPOLLIN : 0u) | (out.length > 0 ? EPOLLOUT : 0u));
    loop_once(timeout);
  }
}
