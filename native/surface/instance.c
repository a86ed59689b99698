#include "instance.h"

#include <cpuid.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define TRACEFS "/sys/kernel/tracing"
#define PREFIX "hull-surface-"
/* The first PID namespace's inode: PROC_PID_INIT_INO of the kernel. */
#define FIRST_NAMESPACE "pid:[4026531836]"
/* Of buffers for all processors together, KiB; each has some MiB at least, since all that is traced may run on one. */
#define BUFFERS_KIB (64 << 10)
#define LEAST_KIB (2 << 10)

static const char *because(const char *format, ...) {
  static char text[300];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return text;
}

static bool slurp(int directory, const char *path, char *text, size_t size) {
  int fd = openat(directory, path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  size_t length = 0;
  for (ssize_t n; length < size - 1 && (n = read(fd, text + length, size - 1 - length)) > 0;) length += (size_t)n;
  close(fd);
  text[length] = 0;
  return true;
}

static bool put(int directory, const char *path, const char *text) {
  int fd = openat(directory, path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  ssize_t written = write(fd, text, strlen(text));
  int error = errno;
  close(fd);
  errno = error;
  return written == (ssize_t)strlen(text);
}

/* proc_pid_stat(5), field 22: with its pid it names a process for good. 0: there is none. */
static unsigned long long start_time(long pid) {
  char path[64], text[1024];
  unsigned long long time = 0;
  snprintf(path, sizeof path, "/proc/%ld/stat", pid);
  const char *end = slurp(AT_FDCWD, path, text, sizeof text) ? strrchr(text, ')') : NULL;
  if (end != NULL) sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &time);
  return time;
}

/* The kernel removes no instance that traces for somebody: EBUSY for a moment after the last has closed it. */
static bool take_away(int instances, const char *name) {
  int directory = openat(instances, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (directory < 0) return errno == ENOENT;
  put(directory, "tracing_on", "0");
  put(directory, "current_tracer", "nop");
  close(directory);
  for (int n = 0; n < 50; n++) {
    if (unlinkat(instances, name, AT_REMOVEDIR) == 0 || errno == ENOENT) return true;
    nanosleep(&(struct timespec){0, 100000000}, NULL);
  }
  return false;
}

static void take_stale_away(int instances) {
  int copy = openat(instances, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *list = copy < 0 ? NULL : fdopendir(copy);
  if (list == NULL) return;
  for (struct dirent *entry; (entry = readdir(list)) != NULL;) {
    long pid;
    unsigned long long started;
    int end = 0;
    if (sscanf(entry->d_name, PREFIX "%ld-%llu%n", &pid, &started, &end) == 2 && entry->d_name[end] == 0 && start_time(pid) != started) take_away(instances, entry->d_name);
  }
  closedir(list);
}

/*
 * Tracing changes the kernel's code while other processors run it. QEMU's emulation of several (TCG; seen with 7.2) now and then goes on with what was there before: the kernel then meets a breakpoint
 * that it has taken away long ago, again and again, and the machine stands still.
 */
static bool emulated_processors(void) {
  unsigned a, b, c, d;
  char name[13] = "", online[256];
  __cpuid(0x40000000, a, b, c, d);
  memcpy(name, &b, 4);
  memcpy(name + 4, &c, 4);
  memcpy(name + 8, &d, 4);
  return strcmp(name, "TCGTCGTCGTCG") == 0 && (!slurp(AT_FDCWD, "/sys/devices/system/cpu/online", online, sizeof online) || strpbrk(online, "-,") != NULL);
}

/* Why functions cannot be traced at all. */
static const char *hindrance(void) {
  char text[64] = "", where[64];
  if (geteuid() != 0) return "only root can trace the kernel's functions";
  ssize_t length = readlink("/proc/self/ns/pid", where, sizeof where - 1);
  where[length < 0 ? 0 : length] = 0;
  if (strcmp(where, FIRST_NAMESPACE) != 0) return "processes have other numbers in here than the kernel's tracer knows them by (a PID namespace)";
  if (!slurp(AT_FDCWD, "/proc/sys/kernel/ftrace_enabled", text, sizeof text)) return "this host's kernel has no function tracer (CONFIG_FUNCTION_TRACER)";
  if (text[0] == '0') return "the function tracer is switched off (sysctl kernel.ftrace_enabled)";
  if (emulated_processors()) return "this host's processors are emulated themselves (TCG): several of them do not survive the tracing of functions, one does";
  return NULL;
}

static const char *open_tracefs(struct instance *instance) {
  char tracers[1024];
  if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) return because("tracefs cannot be mounted here: %s", strerror(errno));
  if (mount("tracefs", TRACEFS, "tracefs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) != 0 && errno != EBUSY)
    return errno == ENOENT || errno == ENODEV ? "this host's kernel has no tracefs (CONFIG_FTRACE)" : because("tracefs cannot be mounted here: %s", strerror(errno));
  instance->root = open(TRACEFS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (instance->root < 0 || !slurp(instance->root, "available_tracers", tracers, sizeof tracers)) return because("tracefs cannot be read: %s", strerror(errno));
  for (char *rest = tracers, *word; (word = strsep(&rest, " \n")) != NULL;)
    if (strcmp(word, "function") == 0) return NULL;
  return "this host's kernel has no function tracer";
}

static const char *refused(const char *what) { return because("this host's kernel refuses to trace functions (%s: %s)", what, strerror(errno)); }

static const char *open_pipes(struct instance *instance) {
  for (size_t cpu = 0; cpu < MOST_PROCESSORS; cpu++) {
    char path[64];
    snprintf(path, sizeof path, "per_cpu/cpu%zu/trace_pipe_raw", cpu);
    int fd = openat(instance->directory, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT && cpu > 0) return NULL;
    if (fd < 0) return refused("trace_pipe_raw");
    instance->pipes[instance->processors++] = fd;
  }
  return "this host has too many processors to trace";
}

static size_t possible_processors(int root) {
  size_t count = 0;
  char path[64];
  for (struct stat info; count < MOST_PROCESSORS; count++) {
    snprintf(path, sizeof path, "per_cpu/cpu%zu", count);
    if (fstatat(root, path, &info, 0) != 0) break;
  }
  return count == 0 ? 1 : count;
}

const char *instance_make(struct instance *instance, size_t *kib) {
  *instance = (struct instance){.root = -1, .instances = -1, .directory = -1};
  char page[4096], format[8192], size[32];
  const char *why = hindrance();
  if (why == NULL) why = open_tracefs(instance);
  if (why != NULL) return why;
  if (!slurp(instance->root, "events/header_page", page, sizeof page) || !slurp(instance->root, "events/ftrace/function/format", format, sizeof format) || !layout_read(&instance->layout, page, format))
    return "the events of this host's tracer are of a form that is not known here";
  instance->instances = openat(instance->root, "instances", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (instance->instances < 0) return "this host's tracer has no instances";
  take_stale_away(instance->instances);
  snprintf(instance->name, sizeof instance->name, PREFIX "%ld-%llu", (long)getpid(), start_time(getpid()));
  if (mkdirat(instance->instances, instance->name, 0700) != 0) {
    instance->name[0] = 0;
    return refused("instances");
  }
  instance->directory = openat(instance->instances, instance->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (instance->directory < 0) return refused("instances");
  if (*kib == 0) {
    *kib = BUFFERS_KIB / possible_processors(instance->root);
    if (*kib < LEAST_KIB) *kib = LEAST_KIB;
  }
  snprintf(size, sizeof size, "%zu", *kib);
  if (!put(instance->directory, "tracing_on", "0")) return refused("tracing_on");
  if (!put(instance->directory, "buffer_size_kb", size)) return because("there is no memory for the tracer's buffers: %s", strerror(errno));
  if (!put(instance->directory, "options/function-fork", "1")) return refused("function-fork");
  return NULL;
}

const char *instance_start(struct instance *instance, const pid_t *roots, size_t count, struct threads *threads) {
  int fd = openat(instance->directory, "set_ftrace_pid", O_WRONLY | O_APPEND | O_CLOEXEC);
  if (fd < 0) return refused("set_ftrace_pid");
  /* What those that are known start is followed by the kernel; what others start before they are is found by the next look. */
  const char *why = NULL;
  for (int added = 1; added > 0 && why == NULL;) {
    size_t known = threads->count;
    added = threads_of(roots, count, threads);
    if (added < 0) why = "the host's processes cannot be listed";
    for (size_t i = known; i < threads->count && why == NULL; i++) {
      char text[16];
      int length = snprintf(text, sizeof text, "%d", (int)threads->all[i]);
      if (write(fd, text, (size_t)length) != length && errno != ESRCH) why = refused("set_ftrace_pid");
    }
  }
  close(fd);
  if (why != NULL) return why;
  if (threads->count == 0) return "the processes that are to be traced have ended";
  if (!put(instance->directory, "current_tracer", "function")) return refused("current_tracer");
  /* Not before: the tracer of an instance that is read cannot be changed. */
  why = open_pipes(instance);
  if (why != NULL) return why;
  return put(instance->directory, "tracing_on", "1") ? NULL : refused("tracing_on");
}

void instance_stop(struct instance *instance) { put(instance->directory, "tracing_on", "0"); }

long instance_read(struct instance *instance, size_t processor, uint8_t *page, size_t size) {
  ssize_t n = read(instance->pipes[processor], page, size);
  return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : n;
}

unsigned long instance_lost(const struct instance *instance) {
  static const char *const kinds[] = {"\noverrun: ", "\ncommit overrun: ", "\ndropped events: "};
  unsigned long lost = 0;
  for (size_t cpu = 0; cpu < instance->processors; cpu++) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "per_cpu/cpu%zu/stats", cpu);
    if (!slurp(instance->directory, path, text, sizeof text)) continue;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
      const char *at = strstr(text, kinds[i]);
      if (at != NULL) lost += strtoul(at + strlen(kinds[i]), NULL, 10);
    }
  }
  return lost;
}

bool instance_remove(struct instance *instance) {
  for (size_t cpu = 0; cpu < instance->processors; cpu++) close(instance->pipes[cpu]);
  instance->processors = 0;
  if (instance->directory >= 0) close(instance->directory);
  bool gone = instance->name[0] == 0 || take_away(instance->instances, instance->name);
  if (instance->instances >= 0) close(instance->instances);
  if (instance->root >= 0) close(instance->root);
  *instance = (struct instance){.root = -1, .instances = -1, .directory = -1};
  return gone;
}
