/* Replaces a small file. One thread for all of it: Node's open, write, close and rename go through libuv's threads one by one, which takes longer than what is done there. */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct replace_file {
  struct task task;
  char *path;
  char *temporary;
  char *text;
  int mode;
};

/* 0 or an errno. */
static int write_all(int fd, const char *text) {
  for (size_t left = strlen(text); left > 0;) {
    ssize_t written = write(fd, text, left);
    if (written < 0 && errno != EINTR) return errno;
    if (written < 0) continue;
    text += written;
    left -= (size_t)written;
  }
  return 0;
}

static void replace_file_run(struct task *task) {
  struct replace_file *self = (struct replace_file *)task;
  int fd = open(self->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, (mode_t)self->mode);
  if (fd < 0) return task_fail(task, errno, "open", self->temporary);
  int error = write_all(fd, self->text);
  if (close(fd) < 0 && error == 0) error = errno;
  if (error != 0) {
    task_fail(task, error, "write", self->temporary);
  } else if (rename(self->temporary, self->path) < 0) {
    task_fail(task, errno, "rename", self->path);
  } else {
    return;
  }
  unlink(self->temporary);
}

static void replace_file_drop(struct task *task) {
  struct replace_file *self = (struct replace_file *)task;
  free(self->path);
  free(self->temporary);
  free(self->text);
}

static napi_value js_replace_file(napi_env env, napi_callback_info info) {
  napi_value argv[4];
  AUTO_FREE path = NULL;
  AUTO_FREE temporary = NULL;
  AUTO_FREE text = NULL;
  int mode;
  if (!arg_all(env, info, 4, argv) || !arg_string(env, argv[0], "path", &path) || !arg_string(env, argv[1], "temporary", &temporary) || !arg_string(env, argv[2], "text", &text) ||
      !arg_int(env, argv[3], "mode", 0, 0777, &mode))
    return NULL;
  struct replace_file *self = task_new(env, sizeof *self, replace_file_run, replace_file_drop);
  if (self == NULL) return NULL;
  self->path = path;
  self->temporary = temporary;
  self->text = text;
  self->mode = mode;
  path = temporary = text = NULL;
  return task_start(env, &self->task);
}

bool replace_register(napi_env env, napi_value exports) {
  static const struct function functions[] = {{"replaceFile", js_replace_file}};
  return functions_register(env, exports, functions, COUNT(functions));
}
