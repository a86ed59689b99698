/* Answers about the container: its processes and its counters. */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"

#define PASSWD_MAX 65536
#define ARGS_MAX 4096

/* The container's /etc/passwd, opened so that its symbolic links stay in the container. */
static void read_passwd(char *text, size_t size) {
  char path[64];
  struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
  struct stat st;
  text[0] = 0;
  snprintf(path, sizeof path, "/proc/%d/root", (int)container_pid());
  int root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) return;
  int fd = (int)syscall(SYS_openat2, root, "etc/passwd", &how, sizeof how);
  close(root);
  if (fd < 0) return;
  ssize_t n = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? read(fd, text, size - 1) : 0;
  text[n > 0 ? n : 0] = 0;
  close(fd);
}

static void user_name(const char *passwd, unsigned int uid, char *out, size_t size) {
  for (const char *line = passwd; *line != 0;) {
    const char *end = line + strcspn(line, "\n");
    const char *colon = memchr(line, ':', (size_t)(end - line));
    const char *second = colon == NULL ? NULL : memchr(colon + 1, ':', (size_t)(end - colon - 1));
    if (second != NULL && second[1] >= '0' && second[1] <= '9' && strtoul(second + 1, NULL, 10) == uid) {
      snprintf(out, size, "%.*s", (int)(colon - line), line);
      for (char *c = out; *c != 0; c++)
        if (*c == '\t' || *c == '\r') *c = '?';
      return;
    }
    line = *end == 0 ? end : end + 1;
  }
  snprintf(out, size, "%u", uid);
}

static bool status_line(const char *status, const char *key, char *out, size_t size) {
  const char *at = strstr(status, key);
  if (at == NULL) return false;
  at += strlen(key);
  snprintf(out, size, "%.*s", (int)strcspn(at, "\n"), at);
  return true;
}

/* Pid in the container's namespace: the second of NSpid's numbers. 0: not of the container. */
static int inner_pid(int pid) {
  char path[64], status[4096], ns[128], *end;
  snprintf(path, sizeof path, "/proc/%d/status", pid);
  if (file_read(path, status, sizeof status, false) <= 0 || !status_line(status, "\nNSpid:", ns, sizeof ns)) return 0;
  strtol(ns, &end, 10);
  return (int)strtol(end, NULL, 10);
}

/* argv joined by spaces; "[comm]" when there is none. Bytes that would break a row become '?'. */
static void arguments(const char *dir, const char *comm, char *out, size_t size) {
  char path[64];
  snprintf(path, sizeof path, "%s/cmdline", dir);
  ssize_t n = file_read(path, out, size, false);
  if (n <= 0) snprintf(out, size, "[%s]", comm);
  while (n > 0 && out[n - 1] == 0) n--;
  for (ssize_t i = 0; i < n; i++)
    if (out[i] == 0) out[i] = ' ';
  for (char *c = out; *c != 0; c++)
    if ((unsigned char)*c < ' ') *c = '?';
}

static void top_row(struct bytes *out, int pid, const char *passwd, time_t boot) {
  char dir[32], path[64], stat[1024], status[4096], uid_text[64] = "0", user[64], tty[16] = "?", args[ARGS_MAX], row[ARGS_MAX + 512];
  int inner = inner_pid(pid);
  if (inner <= 0) return;
  snprintf(dir, sizeof dir, "/proc/%d", pid);
  snprintf(path, sizeof path, "%s/stat", dir);
  if (file_read(path, stat, sizeof stat, false) <= 0) return;
  snprintf(path, sizeof path, "%s/status", dir);
  if (file_read(path, status, sizeof status, false) <= 0 || !status_line(status, "\nUid:\t", uid_text, sizeof uid_text)) return;
  char *name = strchr(stat, '('), *rest = strrchr(stat, ')');
  if (name == NULL || rest == NULL) return;
  *rest = 0;
  char state;
  int ppid, tty_nr;
  unsigned long utime, stime, vsize;
  unsigned long long start;
  long rss;
  /* proc(5): fields 3, 4, 7, 14, 15, 22, 23, 24 */
  if (sscanf(rest + 1, " %c %d %*d %*d %d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %*d %*d %llu %lu %ld", &state, &ppid, &tty_nr,
             &utime, &stime, &start, &vsize, &rss) != 8)
    return;
  unsigned int uid = (unsigned int)strtoul(uid_text, NULL, 10);
  long ticks = sysconf(_SC_CLK_TCK), page = sysconf(_SC_PAGESIZE) / 1024;
  user_name(passwd, uid, user, sizeof user);
  if ((tty_nr >> 8 & 0xff) == 136) snprintf(tty, sizeof tty, "pts/%d", tty_nr & 0xff);
  arguments(dir, name + 1, args, sizeof args);
  int parent = ppid > 1 ? inner_pid(ppid) : 0;
  int n = snprintf(row, sizeof row, "%d\t%d\t%u\t%s\t%s\t%lld\t%lu\t%ld\t%lu\t%c\t%s\n", inner, parent > 0 ? parent : 0, uid, user, tty,
                   (long long)boot + (long long)(start / (unsigned long long)ticks), (utime + stime) / (unsigned long)ticks, rss * page,
                   vsize / 1024, state, args);
  if (n > 0) bytes_put(out, row, (size_t)n < sizeof row ? (size_t)n : sizeof row - 1); /* a full answer ends here */
}

void query_top(struct bytes *out) {
  struct timespec now, up;
  clock_gettime(CLOCK_REALTIME, &now);
  clock_gettime(CLOCK_BOOTTIME, &up);
  char *passwd = malloc(PASSWD_MAX);
  DIR *dir = opendir("/proc");
  if (passwd != NULL && dir != NULL) {
    read_passwd(passwd, PASSWD_MAX);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
      int pid = atoi(entry->d_name);
      if (pid > 1) top_row(out, pid, passwd, now.tv_sec - up.tv_sec);
    }
  }
  if (dir != NULL) closedir(dir);
  free(passwd);
}

uint64_t meminfo(const char *key) {
  char text[4096], value[64];
  if (file_read("/proc/meminfo", text, sizeof text, false) <= 0 || !status_line(text, key, value, sizeof value)) return 0;
  return strtoull(value, NULL, 10) * 1024;
}

/* Bytes read and written by the root's two disks: sectors of 512, fields 3 and 7 of Documentation/block/stat.rst. */
static void disk_bytes(const char *device, uint64_t *reads, uint64_t *writes) {
  char path[64], text[256];
  unsigned long long in, out;
  const char *name = strrchr(device, '/');
  if (name == NULL) return;
  snprintf(path, sizeof path, "/sys/block/%.20s/stat", name + 1);
  if (file_read(path, text, sizeof text, false) <= 0 || sscanf(text, "%*u %*u %llu %*u %*u %*u %llu", &in, &out) != 2) return;
  *reads += in * 512;
  *writes += out * 512;
}

static void interface_bytes(uint64_t counters[4]) {
  char text[4096];
  unsigned long long v[4];
  if (file_read("/proc/net/dev", text, sizeof text, false) <= 0) return;
  const char *line = strstr(text, "eth0:");
  if (line == NULL || sscanf(line + 5, "%llu %llu %*u %*u %*u %*u %*u %*u %llu %llu", &v[0], &v[1], &v[2], &v[3]) != 4) return;
  for (int i = 0; i < 4; i++) counters[i] = v[i];
}

void query_stats(struct bytes *out) {
  uint64_t reads = 0, writes = 0, net[4] = {0}, total = meminfo("MemTotal:"), limit = config.memory;
  disk_bytes(config.root, &reads, &writes);
  disk_bytes(config.disk, &reads, &writes);
  interface_bytes(net);
  const struct {
    const char *key;
    uint64_t value;
  } figures[] = {{"memory_usage", cgroup_value("memory.current", NULL)},
                 {"memory_limit", limit == 0 || limit > total ? total : limit},
                 {"memory_inactive_file", cgroup_value("memory.stat", "inactive_file")},
                 {"memory_anon", cgroup_value("memory.stat", "anon")},
                 {"memory_file", cgroup_value("memory.stat", "file")},
                 {"cpu_total_ns", cgroup_value("cpu.stat", "usage_usec") * 1000},
                 {"cpu_user_ns", cgroup_value("cpu.stat", "user_usec") * 1000},
                 {"cpu_system_ns", cgroup_value("cpu.stat", "system_usec") * 1000},
                 {"pids", cgroup_value("pids.current", NULL)},
                 {"pids_limit", config.pids},
                 {"rx_bytes", net[0]},
                 {"rx_packets", net[1]},
                 {"tx_bytes", net[2]},
                 {"tx_packets", net[3]},
                 {"blk_read", reads},
                 {"blk_write", writes},
                 {"mem_total", total},
                 {"mem_available", meminfo("MemAvailable:")}};
  char text[1024];
  size_t size = 0;
  for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) size = text_put_number(text, size, sizeof text, figures[i].key, figures[i].value);
  bytes_put(out, text, size);
}
