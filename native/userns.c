/* User namespaces, and network namespaces that belong to one. Neither can be made by a thread of ours (setns(2): a process with several threads
 * may not change its user namespace), so a child that shares nothing with us makes them and is killed when they are held by a mount. */
#include "common.h"
#include "net.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct ns_task {
  struct task task;
  char *path, *userns, *uids, *gids;
};

static void ns_drop(struct task *task) {
  struct ns_task *self = (struct ns_task *)task;
  free(self->path);
  free(self->userns);
  free(self->uids);
  free(self->gids);
}

/* fork(2) without handlers and without a signal at its end: the child is ours alone, libuv never hears of it. */
static pid_t plain_fork(unsigned long flags) { return (pid_t)syscall(SYS_clone, flags, NULL, NULL, NULL, 0); }

static void end_child(pid_t pid) {
  kill(pid, SIGKILL);
  while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR) {
  }
}

/* The child after a fork in a process with threads: system calls only. Tells its errno, then waits to be killed. */
static void child_make_netns(int userns, int report) {
  int error = setns(userns, CLONE_NEWUSER) < 0 || unshare(CLONE_NEWNET) < 0 ? errno : 0;
  if (write(report, &error, sizeof error) != sizeof error) _exit(1);
  for (;;) pause();
}

static int write_map(pid_t pid, const char *name, const char *text) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
  return file_put(path, text);
}

static void hold(struct task *task, pid_t pid, const char *kind, const char *path) {
  char source[64];
  snprintf(source, sizeof source, "/proc/%d/ns/%s", (int)pid, kind);
  if (mount(source, path, NULL, MS_BIND, NULL) < 0) task_fail(task, errno, "mount", path);
}

static bool make_file(struct ns_task *self) {
  AUTO_CLOSE file = open(self->path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0);
  if (file < 0) task_fail(&self->task, errno, "open", self->path);
  return file >= 0;
}

static void userns_run(struct task *task) {
  struct ns_task *self = (struct ns_task *)task;
  if (!make_file(self)) return;
  pid_t pid = plain_fork(CLONE_NEWUSER);
  if (pid == 0)
    for (;;) pause();
  if (pid < 0) {
    task_fail(task, errno, "clone", NULL);
  } else {
    int error = write_map(pid, "uid_map", self->uids);
    if (error == 0) error = write_map(pid, "gid_map", self->gids);
    if (error != 0) task_fail(task, error, "uid_map", NULL);
    else hold(task, pid, "user", self->path);
    end_child(pid);
  }
  if (task->error) unlink(self->path);
}

/* In this thread, which ends with the task: prepares the namespace at `path`. */
static void prepare(struct task *task, const char *path) {
  AUTO_CLOSE netns = open(path, O_RDONLY | O_CLOEXEC);
  if (netns < 0 || setns(netns, CLONE_NEWNET) < 0) return task_fail(task, errno, "setns", path);
  netns_prepare(task);
}

static void owned_netns_run(struct task *task) {
  struct ns_task *self = (struct ns_task *)task;
  AUTO_CLOSE userns = open(self->userns, O_RDONLY | O_CLOEXEC);
  if (userns < 0) return task_fail(task, errno, "open", self->userns);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return task_fail(task, errno, "pipe", NULL);
  AUTO_CLOSE from = ends[0];
  AUTO_CLOSE to = ends[1];
  if (!make_file(self)) return;
  pid_t pid = plain_fork(0);
  if (pid == 0) child_make_netns(userns, to);
  if (pid < 0) {
    task_fail(task, errno, "clone", NULL);
  } else {
    int error = EIO;
    close_quietly(to);
    to = -1;
    if (read(from, &error, sizeof error) != sizeof error) error = EIO;
    if (error != 0) task_fail(task, error, "setns", self->userns);
    else hold(task, pid, "net", self->path);
    end_child(pid);
  }
  if (!task->error) {
    prepare(task, self->path);
    if (task->error) umount2(self->path, MNT_DETACH | UMOUNT_NOFOLLOW);
  }
  if (task->error) unlink(self->path);
}

static napi_value js_userns_create(napi_env env, napi_callback_info info) {
  napi_value argv[3];
  if (!arg_all(env, info, 3, argv)) return NULL;
  struct ns_task *self = task_new(env, sizeof *self, userns_run, ns_drop);
  if (!self) return NULL;
  if (!arg_string(env, argv[0], "path", &self->path) || !arg_string(env, argv[1], "uids", &self->uids) || !arg_string(env, argv[2], "gids", &self->gids)) {
    task_discard(&self->task);
    return NULL;
  }
  return task_start(env, &self->task);
}

static napi_value js_netns_create_owned(napi_env env, napi_callback_info info) {
  napi_value argv[2];
  if (!arg_all(env, info, 2, argv)) return NULL;
  struct ns_task *self = task_new(env, sizeof *self, owned_netns_run, ns_drop);
  if (!self) return NULL;
  if (!arg_string(env, argv[0], "path", &self->path) || !arg_string(env, argv[1], "userns", &self->userns)) {
    task_discard(&self->task);
    return NULL;
  }
  return task_start(env, &self->task);
}

bool userns_register(napi_env env, napi_value exports) {
  static const struct function functions[] = {{"usernsCreate", js_userns_create}, {"netnsCreateOwned", js_netns_create_owned}};
  return functions_register(env, exports, functions, COUNT(functions));
}
