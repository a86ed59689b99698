/*
 * posix_spawn(3) for programs that outlive us. libuv's spawn forks: the kernel copies the page tables of the whole daemon first, 3 ms in which nothing else of it runs. This one shares the memory until the exec
 * (CLONE_VM | CLONE_VFORK).
 */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_STRINGS 4096
#define MAX_FDS 64
/* Copies of the descriptors lie here, where none of them is another's target. */
#define ABOVE 128

static void free_strings(char ***strings) {
  if (*strings == NULL) return;
  for (char **one = *strings; *one != NULL; one++) free(*one);
  free(*strings);
}

static bool array_length(napi_env env, napi_value value, const char *name, uint32_t max, uint32_t *length) {
  bool is_array = false;
  if (napi_is_array(env, value, &is_array) != napi_ok || !is_array) return arg_invalid(env, name, "must be an array");
  return napi_get_array_length(env, value, length) == napi_ok && (*length <= max || arg_invalid(env, name, "is too long"));
}

static bool arg_strings(napi_env env, napi_value value, const char *name, char ***out) {
  uint32_t length;
  if (!array_length(env, value, name, MAX_STRINGS, &length)) return false;
  *out = calloc(length + 1, sizeof **out);
  if (*out == NULL) {
    error_throw(env, ENOMEM, "calloc", NULL);
    return false;
  }
  for (uint32_t i = 0; i < length; i++) {
    napi_value element;
    if (napi_get_element(env, value, i, &element) != napi_ok || !arg_string(env, element, name, &(*out)[i])) return false;
  }
  return true;
}

static bool arg_fds(napi_env env, napi_value value, int *out, uint32_t *length) {
  if (!array_length(env, value, "fds", MAX_FDS, length)) return false;
  for (uint32_t i = 0; i < *length; i++) {
    napi_value element;
    if (napi_get_element(env, value, i, &element) != napi_ok || !arg_fd(env, element, "fds", &out[i])) return false;
  }
  return true;
}

static int set_attributes(posix_spawnattr_t *attributes) {
  sigset_t all, none;
  sigfillset(&all);
  sigemptyset(&none);
  int error = posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  if (error == 0) error = posix_spawnattr_setsigdefault(attributes, &all);
  return error != 0 ? error : posix_spawnattr_setsigmask(attributes, &none);
}

/* spawn(file, args, env, cwd, fds): the pid. fds[N] is the child's descriptor N; it has no other. */
static napi_value js_spawn(napi_env env, napi_callback_info info) {
  napi_value argv[5];
  AUTO_FREE file = NULL;
  AUTO_FREE cwd = NULL;
  __attribute__((cleanup(free_strings))) char **args = NULL;
  __attribute__((cleanup(free_strings))) char **variables = NULL;
  int fds[MAX_FDS], copies[MAX_FDS];
  uint32_t count = 0, copied = 0;
  if (!arg_all(env, info, 5, argv) || !arg_string(env, argv[0], "file", &file) || !arg_strings(env, argv[1], "args", &args) ||
      !arg_strings(env, argv[2], "env", &variables) || !arg_string(env, argv[3], "cwd", &cwd) || !arg_fds(env, argv[4], fds, &count))
    return NULL;
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  int error = posix_spawn_file_actions_init(&actions);
  if (error != 0) return error_throw(env, error, "posix_spawn", file);
  error = posix_spawnattr_init(&attributes);
  if (error != 0) {
    posix_spawn_file_actions_destroy(&actions);
    return error_throw(env, error, "posix_spawn", file);
  }
  const char *call = "posix_spawn";
  for (; error == 0 && copied < count; copied++) {
    copies[copied] = fcntl(fds[copied], F_DUPFD_CLOEXEC, ABOVE);
    if (copies[copied] < 0) {
      error = errno;
      call = "fcntl";
      break;
    }
    error = posix_spawn_file_actions_adddup2(&actions, copies[copied], (int)copied);
  }
  if (error == 0) error = posix_spawn_file_actions_addclosefrom_np(&actions, (int)count);
  if (error == 0) error = posix_spawn_file_actions_addchdir_np(&actions, cwd);
  if (error == 0) error = set_attributes(&attributes);
  pid_t pid = 0;
  if (error == 0) error = posix_spawn(&pid, file, &actions, &attributes, args, variables);
  for (uint32_t i = 0; i < copied; i++) close(copies[i]);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  return error != 0 ? error_throw(env, error, call, file) : value_int(env, pid);
}

/* waitpid(pid): undefined while it runs; the exit code, or the signal that ended it as a negative number. */
static napi_value js_waitpid(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  int pid, status;
  if (!arg_all(env, info, 1, argv) || !arg_int(env, argv[0], "pid", 1, INT32_MAX, &pid)) return NULL;
  pid_t ended = waitpid(pid, &status, WNOHANG);
  if (ended < 0) return error_throw(env, errno, "waitpid", NULL);
  if (ended == 0) return value_undefined(env);
  return value_int(env, WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
}

bool spawn_register(napi_env env, napi_value exports) {
  static const struct function functions[] = {{"spawn", js_spawn}, {"waitpid", js_waitpid}};
  return functions_register(env, exports, functions, COUNT(functions));
}
