/* Signals, and two bits of descriptors. */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Pids are positive: 0, -1 and groups mean others than the caller had in mind. */
static bool arg_pid(napi_env env, napi_value value, int *pid) { return arg_int(env, value, "pid", 1, INT32_MAX, pid); }
static bool arg_signal(napi_env env, napi_value value, int *signal) { return arg_int(env, value, "signal", 0, 64, signal); }

static napi_value js_kill(napi_env env, napi_callback_info info) {
  napi_value argv[2];
  int pid, signal;
  if (!arg_all(env, info, 2, argv) || !arg_pid(env, argv[0], &pid) || !arg_signal(env, argv[1], &signal)) return NULL;
  if (kill(pid, signal) == 0) return value_bool(env, true);
  if (errno == ESRCH) return value_bool(env, false);
  return error_throw(env, errno, "kill", NULL);
}

/* Field 22 of /proc/PID/stat, clock ticks after boot (proc(5)). 0: there is no such process. */
static unsigned long long start_time(int pid) {
  char path[32], text[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  AUTO_CLOSE fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  ssize_t length = read(fd, text, sizeof text - 1);
  if (length <= 0) return 0;
  text[length] = '\0';
  /* The second field is the name in parentheses, and may itself hold parentheses and spaces. */
  const char *at = strrchr(text, ')');
  for (int field = 2; at && field < 22; field++) {
    at = strchr(at, ' ');
    if (at) at++;
  }
  return at ? strtoull(at, NULL, 10) : 0;
}

static napi_value js_kill_if(napi_env env, napi_callback_info info) {
  napi_value argv[3];
  int pid, signal;
  int64_t started;
  if (!arg_all(env, info, 3, argv) || !arg_pid(env, argv[0], &pid) ||
      !arg_integer(env, argv[1], "startTime", 1, 9007199254740991, &started) || !arg_signal(env, argv[2], &signal))
    return NULL;
  /* The pidfd first: from here on it names one process, and the check holds for the signal. */
  AUTO_CLOSE pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
  if (pidfd < 0) {
    /* EINVAL, or ENOENT on newer kernels: a thread that leads no process has that number now. */
    if (errno == ESRCH || errno == EINVAL || errno == ENOENT) return value_bool(env, false);
    return error_throw(env, errno, "pidfd_open", NULL);
  }
  if (start_time(pid) != (unsigned long long)started) return value_bool(env, false);
  if (syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0) == 0) return value_bool(env, true);
  if (errno == ESRCH) return value_bool(env, false);
  return error_throw(env, errno, "pidfd_send_signal", NULL);
}

static napi_value js_set_cloexec(napi_env env, napi_callback_info info) {
  napi_value argv[2];
  int fd;
  bool on;
  if (!arg_all(env, info, 2, argv) || !arg_fd(env, argv[0], "fd", &fd) || !arg_bool(env, argv[1], "on", &on)) return NULL;
  int flags = fcntl(fd, F_GETFD);
  if (flags < 0 || fcntl(fd, F_SETFD, on ? flags | FD_CLOEXEC : flags & ~FD_CLOEXEC) < 0)
    return error_throw(env, errno, "fcntl", NULL);
  return value_undefined(env);
}

static napi_value js_try_lock(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  int fd;
  if (!arg_all(env, info, 1, argv) || !arg_fd(env, argv[0], "fd", &fd)) return NULL;
  int result;
  do result = flock(fd, LOCK_EX | LOCK_NB);
  while (result < 0 && errno == EINTR);
  if (result == 0) return value_bool(env, true);
  if (errno == EWOULDBLOCK) return value_bool(env, false);
  return error_throw(env, errno, "flock", NULL);
}

/* landlock(7): the ABI version; 0 when the kernel has it not, or not switched on. */
static napi_value js_landlock_version(napi_env env, napi_callback_info info) {
  (void)info;
  long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
  return value_int(env, version < 0 ? 0 : version);
}

/* Both ends close on exec: the one that a child gets, Node's spawn dup2s, and a dup is inherited. */
static napi_value js_pipe(napi_env env, napi_callback_info info) {
  (void)info;
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) < 0) return error_throw(env, errno, "pipe2", NULL);
  napi_value array;
  if (napi_create_array_with_length(env, 2, &array) != napi_ok || napi_set_element(env, array, 0, value_int(env, fds[0])) != napi_ok ||
      napi_set_element(env, array, 1, value_int(env, fds[1])) != napi_ok) {
    close(fds[0]);
    close(fds[1]);
    return NULL;
  }
  return array;
}

bool process_register(napi_env env, napi_value exports) {
  static const struct function functions[] = {
      {"kill", js_kill}, {"killIf", js_kill_if}, {"setCloexec", js_set_cloexec}, {"tryLock", js_try_lock},
      {"landlockVersion", js_landlock_version}, {"pipe", js_pipe}};
  return functions_register(env, exports, functions, COUNT(functions));
}
