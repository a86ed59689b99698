/* From a name to a running program, with Docker's words for what goes wrong (Go's os/exec LookPath, as runc uses it). */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"

/* 0: can be executed by this user; else errno. */
static int executable(const char *path) {
  struct stat st;
  if (stat(path, &st) < 0) return errno;
  if (S_ISDIR(st.st_mode)) return EISDIR;
  return access(path, X_OK) == 0 ? 0 : errno;
}

static const char *environment(char **env, const char *key) {
  for (size_t i = 0; env[i] != NULL; i++) {
    const char *value = text_value(env[i], key);
    if (value != NULL) return value;
  }
  return NULL;
}

static bool search(const char *name, const char *path, char *out, size_t size) {
  while (path != NULL) {
    size_t length = strcspn(path, ":");
    int n = length == 0 ? snprintf(out, size, "./%s", name) : snprintf(out, size, "%.*s/%s", (int)length, path, name);
    if (n > 0 && (size_t)n < size && executable(out) == 0) return true;
    path = path[length] == ':' ? path + length + 1 : NULL;
  }
  return false;
}

int command_exec(const struct spec *spec, char **env, char *message) {
  const char *name = spec->args[0];
  char path[PATH_MAX];
  if (strchr(name, '/') == NULL) {
    if (*name == 0 || !search(name, environment(env, "PATH"), path, sizeof path)) {
      fail(message, "exec: \"%.300s\": executable file not found in $PATH", name);
      return 127;
    }
  } else {
    int error = executable(name);
    if (error == EISDIR) return fail(message, "exec: \"%.300s\": is a directory", name), 126;
    if (error == EACCES) return fail(message, "exec: \"%.300s\": permission denied", name), 126;
    if (error != 0) return fail(message, "exec: \"%.300s\": stat %.300s: %s", name, name, error == ENOENT ? "no such file or directory" : strerror(error)), 127;
    if (snprintf(path, sizeof path, "%s", name) >= (int)sizeof path) return fail(message, "exec: \"%.300s\": file name too long", name), 126;
  }
  execve(path, spec->args, env);
  switch (errno) {
    case ENOEXEC: return fail(message, "exec %.300s: exec format error", path), 126;
    case EACCES: return fail(message, "exec: \"%.300s\": permission denied", name), 126;
    case ENOENT: return fail(message, "exec %.300s: no such file or directory", path), 127; /* its interpreter */
    case E2BIG: return fail(message, "exec %.300s: argument list too long", path), 126;
    default: return fail(message, "exec %.300s: %s", path, strerror(errno)), 126;
  }
}
