/* An end for a container that stands still at its memory limit.
 *
 * The kernel kills for want of memory only when reclaim finds nothing at all. At a limit that is full of memory nobody can take away,
 * reclaim still finds the pages of the very programs that run; they are faulted in again at once, page by page from the disk, and so
 * the container crawls instead of being killed (measured with TCG: a 96 MiB container with 95 MiB of anonymous memory and 0.3 MiB of
 * file pages went on for minutes, 25,000 refaults a second). A container on a host hardly knows this: there the image's pages are
 * mostly charged to somebody else.
 *
 * So we look for exactly that: the workload does nothing but wait for memory (PSI "full"), the limit is reached, and next to nothing
 * of what is charged could be reclaimed; three times in a row. Waiting is not measured before the limit is met for the first time (memory.events, "max"): most containers never come to that. Then the limit is lowered for a moment below what cannot be reclaimed,
 * which makes the kernel do what it would have done in the end: its own OOM kill, with its own choice of victim, oom_score_adj and
 * counters. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "agent.h"

/* Microseconds of standstill in a window of one second. A busy disk does not count, only waiting for memory that was here before. */
#define TRIGGER "full 300000 1000000"
#define STRIKES 3
/* Strikes further apart than this are not one standstill. */
#define STRIKE_MS 3000
/* Less than this part of the limit can be reclaimed: nothing that would keep programs running. */
#define RECLAIMABLE_PART 32
#define NEAR_LIMIT (1u << 20)
/* Bytes that the whole machine can still give, page cache included. The limit plus the kernel's share fit into the machine; this is for when they do not. */
#define MACHINE_FULL (4u << 20)

static struct watch pressure = {.fd = -1}, limit = {.fd = -1};
static int strikes;
static int64_t last_strike;

static void set_limit(uint64_t bytes) {
  char text[32];
  snprintf(text, sizeof text, "%llu", (unsigned long long)bytes);
  int error = file_write(DIR_CONTAINER_CGROUP "/memory.max", text);
  if (error < 0) say("memory.max=%s: %s", text, strerror(-error));
}

static uint64_t reclaimable(void) {
  return cgroup_value("memory.stat", "inactive_file") + cgroup_value("memory.stat", "active_file") + cgroup_value("memory.stat", "slab_reclaimable");
}

static void pressure_ready(struct watch *w, uint32_t events) {
  if ((events & EPOLLERR) != 0) { /* the group is gone */
    watch_close(w);
    return;
  }
  uint64_t used = cgroup_value("memory.current", NULL), room = reclaimable();
  int64_t now = now_ms();
  if (room > config.memory / RECLAIMABLE_PART || (used + NEAR_LIMIT < config.memory && meminfo("MemAvailable:") >= MACHINE_FULL)) {
    strikes = 0;
    return;
  }
  strikes = now - last_strike <= STRIKE_MS ? strikes + 1 : 1;
  last_strike = now;
  if (strikes < STRIKES) return;
  strikes = 0;
  say("the container stands still at its memory limit: %llu of %llu bytes, %llu reclaimable", (unsigned long long)used,
      (unsigned long long)config.memory, (unsigned long long)room);
  /* The write returns when usage is below it: one kill, mostly. */
  set_limit(used > room + NEAR_LIMIT ? used - room - NEAR_LIMIT : 0);
  set_limit(config.memory);
}

/* Transparent huge pages, which the kernel switches on from 512 MiB of RAM, raise the memory that only the kernel may use to 5 % (28 of 600
 * MiB, measured): the container would never reach its limit. This is the kernel's own rule without them, 4 * sqrt(KiB). */
void pressure_prepare(void) {
  struct sysinfo info;
  char text[32];
  if (sysinfo(&info) < 0) return;
  uint64_t wanted = (uint64_t)info.totalram * info.mem_unit / 1024 * 16, root = 1024;
  while (root * root < wanted) root += 64;
  snprintf(text, sizeof text, "%llu", (unsigned long long)root);
  int error = file_write("/proc/sys/vm/min_free_kbytes", text);
  if (error < 0) say("min_free_kbytes=%s: %s", text, strerror(-error));
}

/* The kernel's own measure of waiting: a thread for each group that is measured, so only once it is needed. */
static void arm(void) {
  if (pressure.fd >= 0) return;
  int fd = open(DIR_CONTAINER_CGROUP "/memory.pressure", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (fd >= 0 && write(fd, TRIGGER, sizeof TRIGGER) < 0) {
    close(fd);
    fd = -1;
  }
  if (fd < 0) { /* a kernel without PSI */
    say("memory.pressure cannot be watched");
    return;
  }
  watch_init(&pressure, fd, pressure_ready);
  watch_set(&pressure, EPOLLPRI);
}

/* Whether the limit has been met. Reading takes note of what has happened so far: the next event is news. */
static bool limit_met(void) {
  char text[512];
  if (lseek(limit.fd, 0, SEEK_SET) < 0) return false;
  ssize_t n = read(limit.fd, text, sizeof text - 1);
  if (n <= 0) return false;
  text[n] = 0;
  const char *max = strstr(text, "\nmax ");
  return max != NULL && max[5] != '0';
}

static void limit_ready(struct watch *w, uint32_t what) {
  (void)what; /* EPOLLERR comes with every EPOLLPRI of such a file */
  if (!limit_met()) return;
  watch_close(w);
  arm();
}

void pressure_watch(void) {
  if (config.memory == 0) return;
  int fd = cgroup_events();
  if (fd < 0) {
    arm();
    return;
  }
  watch_init(&limit, fd, limit_ready);
  if (limit_met()) {
    watch_close(&limit);
    arm();
  } else {
    watch_set(&limit, EPOLLPRI);
  }
}
