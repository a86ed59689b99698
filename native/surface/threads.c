#include "threads.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KERNEL_THREAD 0x00200000u /* PF_KTHREAD */

struct process {
  pid_t pid, parent;
  bool kernel, chosen;
  char name[64];
};

static bool number_of(const char *text, pid_t *number) {
  char *end;
  long value = strtol(text, &end, 10);
  *number = (pid_t)value;
  return *text >= '1' && *text <= '9' && *end == 0 && value > 0 && value == *number;
}

/* proc_pid_stat(5). The name, in parentheses, is what the process wants: what follows the last one is the kernel's. */
static bool read_process(pid_t pid, struct process *process) {
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
  if (fd >= 0) close(fd);
  if (n <= 0) return false;
  text[n] = 0;
  const char *begin = strchr(text, '('), *end = strrchr(text, ')');
  int parent;
  unsigned flags;
  if (begin == NULL || end == NULL || end < begin || sscanf(end + 1, " %*c %d %*d %*d %*d %*d %u", &parent, &flags) != 2) return false;
  size_t length = (size_t)(end - begin - 1);
  *process = (struct process){.pid = pid, .parent = parent, .kernel = (flags & KERNEL_THREAD) != 0};
  if (length < sizeof process->name) memcpy(process->name, begin + 1, length);
  return true;
}

static bool has(const struct threads *threads, pid_t thread) {
  for (size_t i = 0; i < threads->count; i++)
    if (threads->all[i] == thread) return true;
  return false;
}

/* How many were added; -1: no memory. */
static int add_threads(pid_t pid, struct threads *threads) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
  DIR *list = opendir(path);
  if (list == NULL) return 0; /* it has ended */
  int added = 0;
  for (struct dirent *entry; added >= 0 && (entry = readdir(list)) != NULL;) {
    pid_t thread;
    if (!number_of(entry->d_name, &thread) || has(threads, thread)) continue;
    if (threads->count == threads->room) {
      size_t room = threads->room * 2 + 64;
      pid_t *more = realloc(threads->all, room * sizeof *more);
      if (more == NULL) {
        added = -1;
        break;
      }
      threads->all = more;
      threads->room = room;
    }
    threads->all[threads->count++] = thread;
    added++;
  }
  closedir(list);
  return added;
}

static struct process *read_all(size_t *count) {
  DIR *list = opendir("/proc");
  if (list == NULL) return NULL;
  struct process *all = NULL;
  size_t room = 0;
  *count = 0;
  for (struct dirent *entry; (entry = readdir(list)) != NULL;) {
    pid_t pid;
    if (!number_of(entry->d_name, &pid)) continue;
    if (*count == room) {
      room = room * 2 + 256;
      struct process *more = realloc(all, room * sizeof *more);
      if (more == NULL) break;
      all = more;
    }
    if (read_process(pid, &all[*count])) ++*count;
  }
  closedir(list);
  return all;
}

static const struct process *find(const struct process *all, size_t count, pid_t pid) {
  for (size_t i = 0; i < count; i++)
    if (all[i].pid == pid) return &all[i];
  return NULL;
}

/* A thread of the kernel has whom it serves in its name. */
static pid_t served_by(const struct process *process) {
  const char *end = strrchr(process->name, '-'), *slash = strrchr(process->name, '/');
  pid_t pid;
  if (!process->kernel || (strncmp(process->name, "vhost-", 6) != 0 && strncmp(process->name, "kvm-", 4) != 0)) return 0;
  if (end == NULL || (slash != NULL && slash > end)) end = slash;
  return end != NULL && number_of(end + 1, &pid) ? pid : 0;
}

int threads_of(const pid_t *roots, size_t count, struct threads *threads) {
  size_t processes;
  struct process *all = read_all(&processes);
  if (all == NULL) return -1;
  for (size_t i = 0; i < processes; i++)
    for (size_t root = 0; root < count; root++)
      if (all[i].pid == roots[root]) all[i].chosen = true;
  for (bool more = true; more;) {
    more = false;
    for (size_t i = 0; i < processes; i++) {
      const struct process *above = all[i].chosen ? NULL : find(all, processes, all[i].kernel ? served_by(&all[i]) : all[i].parent);
      if (above != NULL && above->chosen) all[i].chosen = more = true;
    }
  }
  int added = 0;
  for (size_t i = 0; i < processes && added >= 0; i++) {
    int these = all[i].chosen && all[i].pid != getpid() ? add_threads(all[i].pid, threads) : 0;
    added = these < 0 ? -1 : added + these;
  }
  free(all);
  return added;
}
