/*
 * hull-drills DRILL [boot=DIGITS] [device=MAJOR:MINOR]   one line of JSON: what was tried and what came of it; ends when stdin does, so that the host can look meanwhile
 * hull-drills wait                                       until stdin ends: where drills are executed
 * hull-drills host TOKEN                                 what the host plants (as root, on the host), until stdin ends
 */
#include "drills.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

/* s: nothing that hangs holds a comparison for longer. */
#define LONGEST 120
#define HELD 30

static const struct {
  const char *name;
  void (*run)(const struct request *q, struct result *r);
} drills[] = {{"sysctl", drill_sysctl}, {"module", drill_module}, {"dmesg", drill_dmesg}, {"mount-disk", drill_mount}, {"mknod", drill_mknod}, {"cgroup", drill_cgroup},
              {"processes", drill_processes}, {"pids", drill_pids}, {"memory", drill_memory}, {"panic", drill_panic}};

/* The errors that come; numbers are the machine's own affair. */
static const char *error_name(int error, char number[16]) {
  static const struct {
    int error;
    const char *name;
  } names[] = {{0, ""}, {EPERM, "EPERM"}, {ENOENT, "ENOENT"}, {ENXIO, "ENXIO"}, {ENOEXEC, "ENOEXEC"}, {EAGAIN, "EAGAIN"}, {ENOMEM, "ENOMEM"}, {EACCES, "EACCES"}, {ENOTBLK, "ENOTBLK"},
               {EBUSY, "EBUSY"}, {ENODEV, "ENODEV"}, {EINVAL, "EINVAL"}, {EROFS, "EROFS"}, {ENOSYS, "ENOSYS"}, {EKEYREJECTED, "EKEYREJECTED"}, {ENOKEY, "ENOKEY"}, {ECANCELED, "ECANCELED"}};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (names[i].error == error) return names[i].name;
  snprintf(number, 16, "E%d", error);
  return number;
}

/* Nothing that we say has a character that JSON would want escaped. */
static void report(const char *drill, const struct result *r) {
  char id[37], number[16];
  boot_id(id);
  printf("{\"drill\":\"%s\",\"done\":%s,\"error\":\"%s\",\"number\":%ld,\"said\":\"%s\",\"tokens\":\"%s\",\"boot\":\"%s\"}\n", drill, r->done ? "true" : "false", error_name(r->error, number), r->number,
         r->said, r->tokens, id);
  fflush(stdout);
}

/* Until stdin ends, at most so many seconds; < 0: for ever. */
static void hold(int seconds) {
  char bytes[64];
  struct pollfd in = {.fd = 0, .events = POLLIN};
  while (poll(&in, 1, seconds < 0 ? -1 : seconds * 1000) > 0 || (seconds < 0 && errno == EINTR))
    if (in.revents != 0 && read(0, bytes, sizeof bytes) <= 0) return;
}

static void ended(int signal) {
  (void)signal;
  _exit(0);
}

static int wait_here(void) {
  struct sigaction stop = {.sa_handler = ended}, ignore = {.sa_handler = SIG_IGN, .sa_flags = SA_NOCLDWAIT};
  sigaction(SIGTERM, &stop, NULL);
  sigaction(SIGCHLD, &ignore, NULL); /* the first process inherits orphans */
  hold(-1);
  return 0;
}

int main(int argc, char **argv) {
  struct request q = {0};
  const char *name = argc > 1 ? argv[1] : "";
  if (strcmp(name, "wait") == 0) return wait_here();
  if (strcmp(name, "host") == 0 && argc == 3) return host_side(argv[2]);
  for (int i = 2; i < argc; i++) {
    unsigned major, minor;
    if (strncmp(argv[i], "boot=", 5) == 0) snprintf(q.boot, sizeof q.boot, "%s", argv[i] + 5);
    else if (sscanf(argv[i], "device=%u:%u", &major, &minor) == 2) q.device = makedev(major, minor);
  }
  for (size_t i = 0; i < sizeof drills / sizeof *drills; i++) {
    if (strcmp(drills[i].name, name) != 0) continue;
    struct result r = {0};
    alarm(LONGEST);
    drills[i].run(&q, &r);
    report(name, &r);
    hold(HELD);
    return 0;
  }
  fprintf(stderr, "usage: hull-drills DRILL [boot=DIGITS] [device=MAJOR:MINOR] | wait | host TOKEN\n");
  return 2;
}
