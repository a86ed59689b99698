/* Drills against the kernel as such. */
#include "drills.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LARGEST (16 << 20)

/* Of no namespace, so the whole machine's. It gets the value that it has: nothing changes, whoever's it is. */
void drill_sysctl(const struct request *q, struct result *r) {
  static const char path[] = "/proc/sys/kernel/printk_ratelimit";
  (void)q;
  char value[32];
  if (slurp(path, value, sizeof value) <= 0) {
    r->error = errno;
    say(r, "reading %s", path);
    return;
  }
  r->error = put(path, value);
  r->done = r->error == 0;
  r->number = strtol(value, NULL, 10);
  say(r, "writing kernel.printk_ratelimit, the value that it has");
}

/* Zeros are no ELF file: no kernel loads them. But the loader says so only to those whom it listens to. */
void drill_module(const struct request *q, struct result *r) {
  static char nothing[4096];
  (void)q;
  r->error = syscall(SYS_init_module, nothing, sizeof nothing, "") < 0 ? errno : 0;
  r->done = r->error == ENOEXEC || r->error == EKEYREJECTED || r->error == ENOKEY;
  say(r, "init_module with 4096 zeros");
}

static bool klog(struct result *r, char *text) {
  int n = klogctl(3 /* SYSLOG_ACTION_READ_ALL */, text, LARGEST);
  if (n < 0) {
    r->error = errno;
    return false;
  }
  find_tokens(r, text, (size_t)n);
  r->number = n;
  return true;
}

static bool kmsg(struct result *r, char *text) {
  int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return false; /* the error of syslog says more */
  for (int records = 0; records < 1000000; records++) {
    ssize_t n = read(fd, text, 8192); /* one record */
    if (n < 0 && errno == EPIPE) continue; /* overwritten meanwhile */
    if (n <= 0) break;
    find_tokens(r, text, (size_t)n);
    r->number += n;
  }
  close(fd);
  return r->number > 0;
}

void drill_dmesg(const struct request *q, struct result *r) {
  (void)q;
  char *text = malloc(LARGEST);
  if (text == NULL) return;
  r->done = klog(r, text) || kmsg(r, text);
  say(r, "reading the kernel's log by syslog and /dev/kmsg");
  free(text);
}

/* Names of processes that have a number here. */
static void processes_here(struct result *r) {
  DIR *dir = opendir("/proc");
  for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
    char path[300], name[64];
    if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
    snprintf(path, sizeof path, "/proc/%s/comm", entry->d_name);
    ssize_t n = slurp(path, name, sizeof name);
    if (n > 0) find_tokens(r, name, (size_t)n);
    r->number++;
  }
  if (dir != NULL) closedir(dir);
}

/* The scheduler's list knows no namespaces. */
void drill_processes(const struct request *q, struct result *r) {
  (void)q;
  processes_here(r);
  say(r, "looking through /proc (%ld processes) and, with debugfs, the scheduler's list", r->number);
  char dir[SCRATCH], path[64];
  char *text = malloc(LARGEST);
  if (text == NULL || !scratch(dir)) {
    r->error = errno;
    free(text);
    return;
  }
  if (mount("debugfs", dir, "debugfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0) r->error = errno;
  else {
    snprintf(path, sizeof path, "%s/sched/debug", dir);
    ssize_t n = slurp(path, text, LARGEST);
    if (n < 0) r->error = errno;
    else find_tokens(r, text, (size_t)n);
    r->done = n > 0;
    umount2(dir, MNT_DETACH);
  }
  rmdir(dir);
  free(text);
}

/* Twice guarded: hull compare starts it in VMs alone, and here another kernel than the host's must be seen. */
void drill_panic(const struct request *q, struct result *r) {
  say(r, "writing c to /proc/sysrq-trigger");
  if (!other_kernel(q)) {
    say(r, "not tried: this may be the host's kernel");
    r->error = ECANCELED;
    return;
  }
  r->error = put("/proc/sysrq-trigger", "c");
  r->done = r->error == 0;
}
