/* The agent's link: SEED, CONFIG, RUN, then frames to and fro. Everything that comes from here was written by the guest: hostile. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "vmm.h"

#define REQUEST_LIMIT 262144u /* clients and stdin wait when so much is queued */
#define FILE_MAX (JOIN_MAX + 65536u)

static struct watch link_watch = {.fd = -1};
static struct bytes in = {.max = 2 * (FRAME_HEADER + FRAME_MAX)}, out = {.max = 4u << 20};
static struct bytes config_frames = {.max = FILE_MAX}, run_frames = {.max = FILE_MAX};
static bool wants_stdin;
static bool ahead, claimed; /* made ahead; and its workload is known */

/* Reads a file of whole frames of one type and stream; the joined text goes to `text`. */
static bool load(const char *path, uint8_t type, uint32_t stream, struct bytes *frames, struct bytes *text, char *message) {
  struct stat st;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  uint8_t *space = NULL;
  if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= FILE_MAX) space = bytes_space(frames, (size_t)st.st_size + 1);
  ssize_t n = space == NULL ? -1 : read(fd, space, (size_t)st.st_size);
  int error = errno;
  if (fd >= 0) close(fd);
  if (n < 0 || n != st.st_size) return snprintf(message, MESSAGE_MAX, "%s: %s", path, fd < 0 ? strerror(error) : "cannot be read"), false;
  bytes_commit(frames, (size_t)n);
  bool last = false;
  for (size_t at = 0; at < frames->length;) {
    struct frame f;
    int taken = frame_parse(bytes_head(frames) + at, frames->length - at, &f);
    if (taken <= 0 || last || f.type != type || f.stream != stream || !bytes_put(text, f.payload, f.length)) {
      last = false;
      break;
    }
    last = (f.flags & FLAG_MORE) == 0;
    at += (size_t)taken;
  }
  if (last && text_valid((const char *)bytes_head(text), text->length)) return true;
  return snprintf(message, MESSAGE_MAX, "%s: malformed frames", path), false;
}

bool link_load(char *message) {
  struct bytes config = {.max = JOIN_MAX}, run = {.max = JOIN_MAX};
  bool ok = load("config.frames", F_CONFIG, 0, &config_frames, &config, message) && load("run.frames", F_RUN, MAIN_STREAM, &run_frames, &run, message);
  if (ok) {
    const char *value = run.length == 0 ? NULL : text_find((const char *)bytes_head(&run), run.length, "stdin");
    wants_stdin = value != NULL && strcmp(value, "1") == 0;
  }
  bytes_free(&config);
  bytes_free(&run);
  return ok;
}

bool link_load_rehearsal(char *message) {
  struct bytes text = {.max = JOIN_MAX};
  ahead = load("rehearse.frames", F_REHEARSE, 0, &config_frames, &text, message);
  bytes_free(&text);
  return ahead;
}

bool link_wants_stdin(void) { return wants_stdin; }
bool link_has_room(void) { return link_watch.fd >= 0 && out.length < REQUEST_LIMIT; }

void link_send(uint8_t type, uint8_t flags, uint32_t stream, const void *payload, size_t size) {
  if (link_watch.fd < 0) return;
  uint8_t *space = bytes_space(&out, FRAME_HEADER + size);
  if (space == NULL) {
    guest_error("it does not read");
    return;
  }
  frame_header(space, type, flags, stream, (uint32_t)size);
  if (size > 0) memcpy(space + FRAME_HEADER, payload, size);
  bytes_commit(&out, FRAME_HEADER + size);
}

void link_signal(uint32_t stream, int signal) {
  char text[32];
  link_send(F_SIGNAL, 0, stream, text, text_put_number(text, 0, sizeof text, "signal", (uint64_t)signal));
}

static bool send_seed(void) {
  uint8_t payload[12 + 64];
  struct timespec now;
  for (size_t have = 0; have < 64;) {
    ssize_t n = getrandom(payload + 12 + have, 64 - have, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    have += (size_t)n;
  }
  clock_gettime(CLOCK_REALTIME, &now); /* last: it ages */
  put_u64(payload, (uint64_t)now.tv_sec);
  put_u32(payload + 8, (uint32_t)now.tv_nsec);
  link_send(F_SEED, 0, 0, payload, sizeof payload);
  explicit_bzero(payload, sizeof payload);
  return true;
}

static void seed(void) {
  if (send_seed()) machine.state = SEEDING;
  else finish(125, false, "no random numbers for the guest");
}

/* It has waited, perhaps for hours: its clock is set and its random numbers are stirred once more, and again it has to confirm. */
static void begin(void) {
  char message[MESSAGE_MAX];
  ahead = false;
  if (link_load(message)) seed();
  else finish(125, false, message);
}

bool link_claim(void) {
  if (!ahead || claimed || machine.state >= SEEDED) return false;
  claimed = true;
  if (machine.state == WAITING) begin();
  return true;
}

/* A value of the guest's text, printable, cut to its place. */
static void take(const struct frame *f, const char *key, char *dest, size_t size) {
  const char *value = text_find((const char *)f->payload, f->length, key);
  snprintf(dest, size, "%s", value == NULL ? "" : value);
  for (char *c = dest; *c != 0; c++)
    if ((unsigned char)*c < ' ' || *c == 127) *c = ' ';
}

static uint64_t number(const struct frame *f, const char *key, uint64_t max, uint64_t otherwise) {
  uint64_t value;
  const char *text = text_find((const char *)f->payload, f->length, key);
  return text != NULL && parse_number(text, max, &value) ? value : otherwise;
}

static void on_failed(const struct frame *f) {
  char message[MESSAGE_MAX];
  take(f, "message", message, sizeof message);
  halt((int)number(f, "code", 255, 125), message[0] == 0 ? "the guest failed" : message);
}

static bool is_text(uint8_t type) {
  return type == F_HELLO || type == F_SEEDED || type == F_READY || type == F_STARTED || type == F_FAILED || type == F_EXIT;
}

static void on_machine(const struct frame *f) {
  if (f->type == F_HELLO && machine.state == BOOTING) {
    if (number(f, "proto", 3, 0) != 3) {
      guest_error("another protocol version");
      return;
    }
    seed();
  } else if (f->type == F_SEEDED && machine.state == SEEDING) {
    /* Not before: what is not a machine of its own gets no workload. */
    take(f, "kernel", machine.kernel, sizeof machine.kernel);
    take(f, "agent", machine.agent, sizeof machine.agent);
    take(f, "bootid", machine.bootid, sizeof machine.bootid);
    qmp_close();
    bytes_put(&out, bytes_head(&config_frames), config_frames.length);
    bytes_free(&config_frames);
    machine.state = ahead ? REHEARSING : SEEDED;
  } else if (f->type == F_REHEARSED && machine.state == REHEARSING) {
    machine.state = WAITING;
    if (claimed) begin();
  } else if (f->type == F_READY && machine.state == SEEDED) {
    bytes_put(&out, bytes_head(&run_frames), run_frames.length);
    bytes_free(&run_frames);
    machine.state = STARTING;
  } else if (f->type == F_FAILED && machine.state < HALTING) {
    on_failed(f);
  } else if (f->type == F_REPLY && machine.state == HALTING) {
    finish(machine.code, machine.oom, machine.message);
  } else {
    guest_error("a frame out of order");
  }
}

static void on_main(const struct frame *f) {
  bool running = machine.state == RUNNING;
  if (f->type == F_STARTED && machine.state == STARTING) {
    machine.state = RUNNING;
    machine.started = true;
    machine.guest_pid = number(f, "pid", INT32_MAX, 0);
    clients_started();
  } else if (f->type == F_FAILED && machine.state == STARTING) {
    on_failed(f);
  } else if (f->type == F_WINDOW && running && f->length == 4) {
    stdio_window(get_u32(f->payload));
  } else if ((f->type == F_STDOUT || f->type == F_STDERR) && running) {
    if (!stdio_output(f->type, f->payload, f->length)) guest_error("output beyond its window");
  } else if (f->type == F_EXIT && running) {
    finish((int)number(f, "code", 255, 255), number(f, "oom", 1, 0) == 1, "");
  } else {
    guest_error("a frame out of order");
  }
}

static void handle_input(void) {
  size_t at = 0;
  while (machine.state != EXITED) {
    struct frame f;
    int taken = frame_parse(bytes_head(&in) + at, in.length - at, &f);
    if (in.length == at || taken == 0) break;
    if (taken < 0 || (is_text(f.type) && !text_valid((const char *)f.payload, f.length))) {
      guest_error("a malformed frame");
      break;
    }
    at += (size_t)taken;
    if (f.stream == 0) on_machine(&f);
    else if (machine.state == HALTING) continue;
    else if (f.stream == MAIN_STREAM) on_main(&f);
    else clients_frame(&f);
  }
  bytes_drop(&in, at);
}

/* One read. False when there is nothing more. */
static bool read_some(void) {
  size_t size = FRAME_HEADER + FRAME_MAX;
  uint8_t *space = link_watch.fd < 0 ? NULL : bytes_space(&in, size);
  if (space == NULL) return false;
  ssize_t n = read(link_watch.fd, space, size);
  if (n < 0 && errno == EINTR) return true;
  if (n < 0 && errno == EAGAIN) return false;
  if (n <= 0) {
    link_close(); /* QEMU is about to end: SIGCHLD tells */
    return false;
  }
  bytes_commit(&in, (size_t)n);
  handle_input();
  return machine.state != EXITED;
}

static void ready(struct watch *w, uint32_t events) {
  (void)w;
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) read_some();
}

void link_open(int fd) {
  watch_init(&link_watch, fd, ready);
  watch_set(&link_watch, EPOLLIN);
}

void link_restored(void) {
  if (machine.state != RESTORING) return;
  seed();
}

void link_close(void) { watch_close(&link_watch); }

void link_drain(void) {
  while (read_some()) {
  }
}

void link_update(void) {
  if (link_watch.fd < 0) return;
  if (!bytes_write(&out, link_watch.fd)) {
    link_close();
    return;
  }
  watch_set(&link_watch, EPOLLIN | (out.length > 0 ? EPOLLOUT : 0u));
}
