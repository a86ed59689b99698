/* Descriptors 0, 1 and 2: the workload's own, as hull-monitor gave them. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "vmm.h"

static struct watch in, out, err;
static struct bytes out_queue = {.max = WINDOW_START}, err_queue = {.max = WINDOW_START};
static uint64_t allowed = WINDOW_START; /* output that the guest may still send */
static uint32_t handed;                 /* written since the last WINDOW */
static uint64_t credit = WINDOW_START;  /* stdin that the guest takes */
static bool ended;
static int flags[3] = {-1, -1, -1};

static void in_ready(struct watch *w, uint32_t events) {
  uint8_t data[32768];
  (void)events;
  size_t size = credit < sizeof data ? (size_t)credit : sizeof data;
  if (size == 0) return;
  ssize_t n = read(w->fd, data, size);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n > 0) {
    credit -= (uint64_t)n;
    link_send(F_STDIN, 0, MAIN_STREAM, data, (size_t)n);
    return;
  }
  ended = true;
  watch_set(w, 0);
  link_send(F_STDIN_EOF, 0, MAIN_STREAM, NULL, 0);
}

static void write_out(struct watch *w, struct bytes *queue) {
  size_t before = queue->length;
  if (before == 0) return;
  if (w->fd < 0 || !bytes_write(queue, w->fd)) { /* the reader is gone: as if it had taken everything */
    watch_set(w, 0);
    w->fd = -1;
    bytes_drop(queue, queue->length);
  }
  handed += (uint32_t)(before - queue->length);
}

static void out_ready(struct watch *w, uint32_t events) {
  (void)events;
  write_out(w, &out_queue);
}

static void err_ready(struct watch *w, uint32_t events) {
  (void)events;
  write_out(w, &err_queue);
}

void stdio_open(void) {
  for (int fd = 0; fd < 3; fd++) {
    flags[fd] = fcntl(fd, F_GETFL);
    if (flags[fd] >= 0) fcntl(fd, F_SETFL, flags[fd] | O_NONBLOCK);
  }
  watch_init(&in, flags[0] < 0 ? -1 : 0, in_ready);
  watch_init(&out, flags[1] < 0 ? -1 : 1, out_ready);
  watch_init(&err, flags[2] < 0 ? -1 : 2, err_ready);
  ended = in.fd < 0;
}

/* A terminal or file that others share gets its flags back. */
void stdio_restore(void) {
  for (int fd = 0; fd < 3; fd++)
    if (flags[fd] >= 0) fcntl(fd, F_SETFL, flags[fd]);
}

bool stdio_output(uint8_t type, const uint8_t *data, uint32_t size) {
  struct bytes *queue = type == F_STDOUT ? &out_queue : &err_queue;
  if (size > allowed || !bytes_put(queue, data, size)) return false;
  allowed -= size;
  write_out(type == F_STDOUT ? &out : &err, queue);
  return true;
}

void stdio_window(uint32_t bytes) {
  if (credit < (1u << 30)) credit += bytes;
}

bool stdio_flushed(void) {
  return out_queue.length == 0 && err_queue.length == 0;
}

void stdio_update(void) {
  watch_set(&out, out_queue.length > 0 ? EPOLLOUT : 0);
  watch_set(&err, err_queue.length > 0 ? EPOLLOUT : 0);
  watch_set(&in, machine.state == RUNNING && link_wants_stdin() && !ended && credit > 0 && link_has_room() ? EPOLLIN : 0);
  if (handed < WINDOW_STEP || machine.state != RUNNING || !link_has_room()) return;
  uint8_t payload[4];
  put_u32(payload, handed);
  allowed += handed;
  handed = 0;
  link_send(F_WINDOW, 0, MAIN_STREAM, payload, sizeof payload);
}
