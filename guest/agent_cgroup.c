/* The container's cgroup in the guest (cgroup v2): limits inside the machine, counters, and the hand that kills what is left.
 * The machine's own size is the outer limit; the kernel, the agent and the page cache of the image live outside this group. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"

/* Files that every start needs, open: a clone of a template need not look for them. */
static struct {
  const char *name;
  int flags, fd;
} kept[] = {{"memory.max", O_WRONLY, -1}, {"pids.max", O_WRONLY, -1}, {"memory.events", O_RDONLY, -1}};
#define KEPT (sizeof kept / sizeof *kept)
/* Another one of memory.events: what is read from one is news to the other. */
static int events = -1;

static void keep(void) {
  char path[128];
  for (size_t i = 0; i < KEPT; i++) {
    if (kept[i].fd >= 0) close(kept[i].fd);
    snprintf(path, sizeof path, DIR_CONTAINER_CGROUP "/%s", kept[i].name);
    kept[i].fd = open(path, kept[i].flags | O_CLOEXEC);
  }
  if (events >= 0) close(events);
  events = open(DIR_CONTAINER_CGROUP "/memory.events", O_RDONLY | O_CLOEXEC);
}

static int kept_file(const char *name) {
  for (size_t i = 0; i < KEPT; i++)
    if (strcmp(kept[i].name, name) == 0) return kept[i].fd;
  return -1;
}

int cgroup_events(void) { return fcntl(events, F_DUPFD_CLOEXEC, 0); }

static bool knob(const char *file, const char *value, char *message) {
  char path[128];
  int fd = kept_file(file);
  if (fd >= 0) return pwrite(fd, value, strlen(value), 0) >= 0 || fail(message, "cgroup %s=%s: %s", file, value, strerror(errno));
  snprintf(path, sizeof path, DIR_CONTAINER_CGROUP "/%s", file);
  int error = file_write(path, value);
  return error == 0 || fail(message, "cgroup %s=%s: %s", file, value, strerror(-error));
}

static bool knob_number(const char *file, uint64_t value, char *message) {
  char text[32];
  snprintf(text, sizeof text, "%llu", (unsigned long long)value);
  return knob(file, text, message);
}

void cgroup_prepare(void) {
  /* One by one: a kernel without one of them still has the others. */
  const char *controllers[] = {"+memory", "+pids", "+cpu", "+io", "+cpuset"};
  for (size_t i = 0; i < sizeof controllers / sizeof *controllers; i++) file_write(DIR_CGROUP "/cgroup.subtree_control", controllers[i]);
  if (mkdir(DIR_CONTAINER_CGROUP, 0755) < 0) die("cgroup: %s", strerror(errno));
  keep();
}

bool cgroup_renew(char *message) {
  /* Whoever was in it is gone; the kernel may need a moment to see that. */
  for (int i = 0; rmdir(DIR_CONTAINER_CGROUP) < 0; i++) {
    if (errno != EBUSY || i == 100) return fail(message, "cgroup: %s", strerror(errno));
    usleep(1000);
  }
  if (mkdir(DIR_CONTAINER_CGROUP, 0755) < 0) return fail(message, "cgroup: %s", strerror(errno));
  keep();
  return true;
}

bool cgroup_setup(const struct config *c, char *message) {
  if (c->memory != 0 && !knob_number("memory.max", c->memory, message)) return false;
  /* Docker's memory+swap; the guest has no swap unless the workload makes some. -1 never comes here. */
  if (c->memory != 0 && c->swap >= c->memory) knob_number("memory.swap.max", c->swap - c->memory, message);
  if (c->reservation != 0 && !knob_number("memory.low", c->reservation, message)) return false;
  if (c->pids != 0 && !knob_number("pids.max", c->pids, message)) return false;
  /* runc's mapping of [2, 262144] shares to [1, 10000] weight */
  if (c->cpu_shares >= 2 && !knob_number("cpu.weight", 1 + (c->cpu_shares - 2) * 9999 / 262142, message)) return false;
  return true;
}

/* cgroup v2 has no processes in a group that hands controllers to its children. A privileged workload that runs systemd or an
 * engine of its own makes children: then a new process goes where the first one is now. */
int cgroup_open(void) {
  char path[512], text[512];
  int fd = open(DIR_CONTAINER_CGROUP, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 || container_pid() <= 0) return fd;
  if (file_read(DIR_CONTAINER_CGROUP "/cgroup.subtree_control", text, sizeof text, false) <= 1) return fd;
  snprintf(path, sizeof path, "/proc/%d/cgroup", (int)container_pid());
  if (file_read(path, text, sizeof text, false) <= 0) return fd;
  text[strcspn(text, "\n")] = 0;
  if (strncmp(text, "0::/", 4) != 0) return fd;
  snprintf(path, sizeof path, DIR_CGROUP "%.400s", text + 3);
  int nested = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (nested < 0) return fd;
  close(fd);
  return nested;
}

void cgroup_kill(void) {
  file_write(DIR_CONTAINER_CGROUP "/cgroup.kill", "1");
}

uint64_t cgroup_value(const char *file, const char *name) {
  char path[128], text[8192];
  snprintf(path, sizeof path, DIR_CONTAINER_CGROUP "/%s", file);
  int fd = kept_file(file);
  ssize_t n = fd < 0 ? file_read(path, text, sizeof text, false) : pread(fd, text, sizeof text - 1, 0);
  if (n <= 0) return 0;
  text[n] = 0;
  if (name == NULL) return strtoull(text, NULL, 10); /* a single value; "max" is 0 */
  char *rest = NULL;
  size_t length = strlen(name);
  for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest))
    if (strncmp(line, name, length) == 0 && line[length] == ' ') return strtoull(line + length + 1, NULL, 10);
  return 0;
}

bool cgroup_oom(void) {
  return cgroup_value("memory.events", "oom_kill") > 0;
}
