/* One epoll loop, shared by agent and hull-vmm. */
#ifndef HULL_LOOP_H
#define HULL_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct watch {
  int fd;          /* -1: none */
  uint32_t events; /* what is registered now; 0: nothing */
  bool always;     /* a regular file: epoll refuses it, it is always ready */
  void (*ready)(struct watch *watch, uint32_t events);
};

/* Makes the epoll descriptor. 0, or -1 with errno. */
int loop_open(void);
void watch_init(struct watch *watch, int fd, void (*ready)(struct watch *, uint32_t));
/* Registers for EPOLLIN/EPOLLOUT; 0 removes it, so that a hang-up of a paused descriptor wakes nobody. Cheap when nothing changes. */
void watch_set(struct watch *watch, uint32_t events);
/* Closes the descriptor and forgets it. Events of the same round that are still to come for it are dropped. */
void watch_close(struct watch *watch);
/* Waits at most `timeout_ms` (-1: for ever) and calls what is ready. The memory of a closed watch may be freed only after this returns. */
void loop_once(int timeout_ms);
/* CLOCK_MONOTONIC in milliseconds. */
int64_t now_ms(void);

#endif
