#include "loop.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

#define MAX_ALWAYS 4

static int epoll_fd = -1;
static struct watch *always[MAX_ALWAYS];

int loop_open(void) {
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  return epoll_fd < 0 ? -1 : 0;
}

void watch_init(struct watch *watch, int fd, void (*ready)(struct watch *, uint32_t)) {
  watch->fd = fd;
  watch->events = 0;
  watch->always = false;
  watch->ready = ready;
}

static void set_always(struct watch *watch, bool on) {
  for (int i = 0; i < MAX_ALWAYS; i++)
    if (always[i] == watch) always[i] = NULL;
  for (int i = 0; on && i < MAX_ALWAYS; i++) {
    if (always[i] != NULL) continue;
    always[i] = watch;
    return;
  }
}

void watch_set(struct watch *watch, uint32_t events) {
  if (watch->fd < 0 || watch->events == events) return;
  struct epoll_event event = {.events = events, .data = {.ptr = watch}};
  int operation = events == 0 ? EPOLL_CTL_DEL : watch->events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
  if (watch->always) {
    set_always(watch, events != 0);
  } else if (epoll_ctl(epoll_fd, operation, watch->fd, &event) < 0 && errno == EPERM) {
    watch->always = true;
    set_always(watch, events != 0);
  }
  watch->events = events;
}

void watch_close(struct watch *watch) {
  if (watch->fd < 0) return;
  watch_set(watch, 0);
  close(watch->fd);
  watch->fd = -1;
}

void loop_once(int timeout_ms) {
  struct epoll_event events[32];
  for (int i = 0; i < MAX_ALWAYS; i++)
    if (always[i] != NULL) timeout_ms = 0;
  int count = epoll_wait(epoll_fd, events, 32, timeout_ms);
  for (int i = 0; i < count; i++) {
    struct watch *watch = events[i].data.ptr;
    if (watch->fd >= 0 && watch->events != 0) watch->ready(watch, events[i].events);
  }
  for (int i = 0; i < MAX_ALWAYS; i++)
    if (always[i] != NULL && always[i]->fd >= 0) always[i]->ready(always[i], always[i]->events);
}

int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
