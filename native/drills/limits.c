/* Drills against the limits of the workload's own cgroup. However far a drill gets, it takes no more than the constants here beyond its limit. */
#include "drills.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (1L << 20)
#define RAISE_MEMORY (16 * MIB)
#define BEYOND_MEMORY (8 * MIB)
#define LARGEST_MEMORY (1024 * MIB)
#define RAISE_PIDS 32
#define BEYOND_PIDS 16
#define LARGEST_PIDS 512

struct limit {
  char path[400];
  const char *controller, *name;
  bool unified;
  long value; /* -1: not known, or none */
};

static long value_of(const char *path) {
  char text[64];
  if (slurp(path, text, sizeof text) <= 0 || text[0] < '0' || text[0] > '9') return -1;
  return strtol(text, NULL, 10);
}

/* The file of our own cgroup that holds this limit: of cgroup v1 where the controller is there, of v2 else. */
static bool find_limit(struct limit *l, const char *controller, const char *v1, const char *v2) {
  char text[8192];
  l->controller = controller;
  if (slurp("/proc/self/cgroup", text, sizeof text) <= 0) return false;
  for (int pass = 0; pass < 2; pass++) {
    l->unified = pass == 1;
    l->name = l->unified ? v2 : v1;
    for (char *line = text, *next; *line != 0; line = next) {
      char list[200] = "", of[200] = "";
      next = line + strcspn(line, "\n");
      if (*next != 0) next++;
      char *colon = strchr(line, ':');
      if (colon == NULL || colon >= next || (sscanf(colon, ":%199[^:]:%199[^\n]", list, of) != 2 && sscanf(colon, "::%199[^\n]", of) != 1)) continue;
      if (l->unified ? *list != 0 : strcmp(list, controller) != 0) continue;
      snprintf(l->path, sizeof l->path, "/sys/fs/cgroup%s%s%s/%s", l->unified ? "" : "/", l->unified ? "" : controller, strcmp(of, "/") == 0 ? "" : of, l->name);
      if (access(l->path, F_OK) != 0) snprintf(l->path, sizeof l->path, "/sys/fs/cgroup%s%s/%s", l->unified ? "" : "/", l->unified ? "" : controller, l->name);
      if (access(l->path, F_OK) != 0) continue;
      l->value = value_of(l->path);
      return true;
    }
  }
  return false;
}

/* Of cgroup v1: memory and swap together, which the limit of memory alone may not exceed. Where there is none, nothing is in the way. */
static int put_limit(const struct limit *l, const char *directory, const char *text) {
  char path[440];
  if (!l->unified && strcmp(l->controller, "memory") == 0) {
    snprintf(path, sizeof path, "%s/memory.memsw.limit_in_bytes", directory);
    put(path, text);
  }
  snprintf(path, sizeof path, "%s/%s", directory, l->name);
  return put(path, text);
}

/* Writes the limit where it is shown, and where that is read-only in a cgroup file system of our own. errno, 0: it is what we wanted. */
static int raise_limit(const struct limit *l, long value) {
  char text[32], dir[SCRATCH], shown[400];
  snprintf(text, sizeof text, "%ld", value);
  snprintf(shown, sizeof shown, "%s", l->path);
  *strrchr(shown, '/') = 0;
  int error = put_limit(l, shown, text);
  if (error == EROFS && scratch(dir)) {
    if (mount("cgroup", dir, l->unified ? "cgroup2" : "cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, l->unified ? NULL : l->controller) < 0) error = errno;
    else {
      error = put_limit(l, dir, text);
      umount2(dir, MNT_DETACH);
    }
    rmdir(dir);
  }
  return error;
}

void drill_cgroup(const struct request *q, struct result *r) {
  struct limit l;
  (void)q;
  if (!find_limit(&l, "memory", "memory.limit_in_bytes", "memory.max") || l.value < 0 || l.value > LARGEST_MEMORY) {
    say(r, "no limit of its memory to be seen");
    r->error = ENOENT;
    return;
  }
  r->error = raise_limit(&l, l.value + RAISE_MEMORY);
  long now = value_of(l.path);
  r->done = now > l.value;
  r->number = now;
  say(r, "raising its own %s by 16 MiB", l.name);
}

/* Forks more children than its limit allows. They do nothing, and go with us. */
void drill_pids(const struct request *q, struct result *r) {
  struct limit l;
  (void)q;
  long limit = find_limit(&l, "pids", "pids.max", "pids.max") ? l.value : -1;
  if (limit < 0 || limit > LARGEST_PIDS) {
    say(r, "no limit of its processes to be seen");
    r->error = ENOENT;
    return;
  }
  int raised = raise_limit(&l, limit + RAISE_PIDS);
  while (r->number < limit + BEYOND_PIDS) {
    pid_t child = fork();
    if (child < 0) {
      r->error = errno;
      break;
    }
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      close(0);
      close(1);
      close(2);
      for (int left = 120; left > 0; left--) sleep(1);
      _exit(0);
    }
    r->number++;
  }
  r->done = r->number >= limit;
  if (!r->done && r->error == EAGAIN && raised != 0) r->error = raised;
  say(r, "a limit of %ld processes, raised if it can be: %ld more started", limit, r->number);
}

static void swallow(long bytes, int fd) {
  put("/proc/self/oom_score_adj", "1000"); /* if somebody has to go, then this one */
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  char *memory = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) _exit(1);
  for (long at = 0; at < bytes; at += 4096) memory[at] = 1;
  if (write(fd, "+", 1) != 1) _exit(1);
  for (int left = 120; left > 0; left--) sleep(1);
  _exit(0);
}

void drill_memory(const struct request *q, struct result *r) {
  struct limit l;
  (void)q;
  long limit = find_limit(&l, "memory", "memory.limit_in_bytes", "memory.max") ? l.value : -1;
  if (limit < 0 || limit > LARGEST_MEMORY) {
    say(r, "no limit of its memory to be seen");
    r->error = ENOENT;
    return;
  }
  int raised = raise_limit(&l, limit + RAISE_MEMORY), ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return;
  pid_t child = fork();
  if (child == 0) swallow(limit + BEYOND_MEMORY, ends[1]);
  close(ends[1]);
  char byte;
  if (child < 0) r->error = errno;
  else if (read(ends[0], &byte, 1) == 1) {
    r->done = true;
    r->number = limit + BEYOND_MEMORY;
  } else {
    int status = 0;
    waitpid(child, &status, 0);
    r->error = raised != 0 ? raised : ENOMEM;
  }
  say(r, "a limit of %ld MiB, raised if it can be: using 8 MiB more %s", limit / MIB, r->done ? "worked" : "was its end");
}
