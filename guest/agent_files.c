/* Work on the container's files: hull-files (native/files) from the initramfs, with an exec session's streams. It confines itself, so that
 * what the container's processes do to their files meanwhile cannot lead it anywhere else. */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent.h"

#define PROGRAM "/files"
#define PLACE_ARGS 4 /* arguments before the operation: "--root", DIR, "--lower", DIR */
#define MOUNT_ARGS 4 /* "--mount", "rw", SOURCE, TARGET */

/* A machine without a workload, kept for work on its files: the main process only waits to be told to end. */
static bool holding;
static int frozen; /* sessions that want the container to stand still */

void files_freeze(bool on) {
  frozen += on ? 1 : -1;
  if (on ? frozen == 1 : frozen == 0) file_write(DIR_CONTAINER_CGROUP "/cgroup.freeze", on ? "1" : "0");
}

static int child(const struct spec *spec, int container, const int streams[3], int report, char *message) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  for (int s = 1; s < 65; s++) signal(s, SIG_DFL);
  if (container < 0) { /* the main process of a maintenance machine */
    report_tell(report, 'X', 0, "", -1);
    close(report);
    for (;;) pause();
  }
  size_t count = 0;
  while (spec->args[count] != NULL) count++;
  char *args[1 + PLACE_ARGS + MOUNT_ARGS * config.mounts.count + count + 1], sources[config.mounts.count + 1][64];
  const char *operation = spec->args[0];
  size_t n = 0;
  args[n++] = (char *)PROGRAM;
  bool changes = strcmp(operation, "changes") == 0;
  if (changes || strcmp(operation, "layer") == 0 || strcmp(operation, "size") == 0) {
    args[n++] = (char *)"--root";
    args[n++] = (char *)DIR_DISK "/upper";
    if (changes) {
      args[n++] = (char *)"--lower";
      args[n++] = (char *)DIR_LOWER;
    }
  } else if (holding || strcmp(operation, "export") == 0) {
    args[n++] = (char *)"--root";
    args[n++] = (char *)DIR_ROOT;
    /* What a running container has mounted over its root; an export does not show it. */
    for (size_t i = 0; i < config.mounts.count && strcmp(operation, "export") != 0; i++) {
      bool readonly;
      const char *target = share_source(config.mounts.items[i], sources[i], sizeof sources[i], &readonly);
      if (target == NULL) continue;
      args[n++] = (char *)"--mount";
      args[n++] = (char *)(readonly ? "ro" : "rw");
      args[n++] = sources[i];
      args[n++] = (char *)target;
    }
  } else {
    args[n++] = (char *)"--join";
    args[n++] = (char *)"3";
  }
  memcpy(args + n, spec->args, (count + 1) * sizeof *args);
  if (!take_stdio(streams[0], streams[1], streams[2], message)) return 126;
  /* Out of the way of descriptor 3, then the container's first process there: setns(2) takes it for its namespaces. */
  report = fcntl(report, F_DUPFD_CLOEXEC, 10);
  int first = fcntl(container, F_DUPFD_CLOEXEC, 10);
  if (report < 0 || first < 0 || dup2(first, 3) < 0) return fail(message, "files: %s", strerror(errno)), 126;
  report_tell(report, 'X', 0, "", -1);
  execve(PROGRAM, args, (char *[]){NULL});
  return fail(message, "files: %s", strerror(errno)), 126;
}

bool spawn_files(const struct spec *spec, int container, struct started *out, int *code, char *message) {
  int f[8] = {-1, -1, -1, -1, -1, -1, -1, -1};
  *code = 125;
  *out = (struct started){.pid = -1, .pidfd = -1, .report = -1, .in = -1, .out = -1, .err = -1};
  if (pipe2(f, O_CLOEXEC) < 0 || pipe2(f + 2, O_CLOEXEC) < 0 || pipe2(f + 4, O_CLOEXEC) < 0 ||
      socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, f + 6) < 0) {
    fail(message, "%s", strerror(errno));
    for (int i = 0; i < 8; i++)
      if (f[i] >= 0) close(f[i]);
    return false;
  }
  /* Not in the container's cgroup: neither its limits nor its freezer are for this. */
  struct clone_args args = {.flags = CLONE_PIDFD, .pidfd = (uint64_t)(uintptr_t)&out->pidfd, .exit_signal = SIGCHLD};
  out->pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
  if (out->pid == 0) {
    *code = child(spec, container, (int[]){f[0], f[3], f[5]}, f[7], message);
    report_tell(f[7], 'F', *code, message, -1);
    _exit(*code);
  }
  int error = errno, theirs[] = {f[0], f[3], f[5], f[7]}, ours[] = {f[1], f[2], f[4], f[6]};
  for (int i = 0; i < 4; i++) close(theirs[i]);
  for (int i = 0; i < 4; i++) {
    if (out->pid < 0) close(ours[i]);
    else fcntl(ours[i], F_SETFL, O_NONBLOCK);
  }
  if (out->pid < 0) return fail(message, "cannot start a process: %s", strerror(error));
  if (container < 0) holding = true;
  out->in = f[1];
  out->out = f[2];
  out->err = f[4];
  out->report = f[6];
  return true;
}
