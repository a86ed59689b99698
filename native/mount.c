/* mount(2), umount2(2), and a mount with a working directory of its own. */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The kernel copies one page of mount data and cuts off the rest without a word (copy_mount_options in fs/namespace.c):
 * an overlay would lose its last layers. */
static bool data_fits(const char *data) { return strlen(data) < (size_t)sysconf(_SC_PAGESIZE); }

/* MS_* bits; the sign bit is MS_NOUSER, the kernel's own. */
static bool arg_flags(napi_env env, napi_value value, unsigned long *out) {
  int64_t flags;
  if (!arg_integer(env, value, "flags", 0, INT32_MAX, &flags)) return false;
  *out = (unsigned long)flags;
  return true;
}

static int do_mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data) {
  if (!data_fits(data)) {
    errno = E2BIG;
    return -1;
  }
  return mount(source, target, *type ? type : NULL, flags, *data ? data : NULL);
}

static napi_value js_mount(napi_env env, napi_callback_info info) {
  napi_value argv[5];
  AUTO_FREE source = NULL;
  AUTO_FREE target = NULL;
  AUTO_FREE type = NULL;
  AUTO_FREE data = NULL;
  unsigned long flags;
  if (!arg_all(env, info, 5, argv) || !arg_string(env, argv[0], "source", &source) ||
      !arg_string(env, argv[1], "target", &target) || !arg_string(env, argv[2], "fstype", &type) ||
      !arg_flags(env, argv[3], &flags) || !arg_string(env, argv[4], "data", &data))
    return NULL;
  if (do_mount(source, target, type, flags, data) < 0) return error_throw(env, errno, "mount", target);
  return value_undefined(env);
}

struct mount_task {
  struct task task;
  char *cwd, *source, *target, *type, *data;
  unsigned long flags;
};

static void mount_drop(struct task *task) {
  struct mount_task *self = (struct mount_task *)task;
  free(self->cwd);
  free(self->source);
  free(self->target);
  free(self->type);
  free(self->data);
}

static void mount_run(struct task *task) {
  struct mount_task *self = (struct mount_task *)task;
  /* Threads of a process share the working directory; this one stops sharing before it moves. */
  if (unshare(CLONE_FS) < 0) return task_fail(task, errno, "unshare", NULL);
  if (chdir(self->cwd) < 0) return task_fail(task, errno, "chdir", self->cwd);
  if (do_mount(self->source, self->target, self->type, self->flags, self->data) < 0)
    task_fail(task, errno, "mount", self->target);
}

static napi_value js_mount_at(napi_env env, napi_callback_info info) {
  napi_value argv[6];
  if (!arg_all(env, info, 6, argv)) return NULL;
  struct mount_task *self = task_new(env, sizeof *self, mount_run, mount_drop);
  if (!self) return NULL;
  if (!arg_string(env, argv[0], "cwd", &self->cwd) || !arg_string(env, argv[1], "source", &self->source) ||
      !arg_string(env, argv[2], "target", &self->target) || !arg_string(env, argv[3], "fstype", &self->type) ||
      !arg_flags(env, argv[4], &self->flags) || !arg_string(env, argv[5], "data", &self->data)) {
    task_discard(&self->task);
    return NULL;
  }
  return task_start(env, &self->task);
}

static napi_value js_umount(napi_env env, napi_callback_info info) {
  napi_value argv[2];
  AUTO_FREE target = NULL;
  int flags;
  if (!arg_all(env, info, 2, argv) || !arg_string(env, argv[0], "target", &target) ||
      !arg_int(env, argv[1], "flags", 0, 15, &flags))
    return NULL;
  if (umount2(target, flags) < 0) return error_throw(env, errno, "umount", target);
  return value_undefined(env);
}

struct umount_task {
  struct task task;
  char *target;
  int flags;
};

static void umount_drop(struct task *task) { free(((struct umount_task *)task)->target); }

static void umount_run(struct task *task) {
  struct umount_task *self = (struct umount_task *)task;
  if (umount2(self->target, self->flags) < 0) task_fail(task, errno, "umount", self->target);
}

static napi_value js_umount_async(napi_env env, napi_callback_info info) {
  napi_value argv[2];
  if (!arg_all(env, info, 2, argv)) return NULL;
  struct umount_task *self = task_new(env, sizeof *self, umount_run, umount_drop);
  if (!self) return NULL;
  if (!arg_string(env, argv[0], "target", &self->target) || !arg_int(env, argv[1], "flags", 0, 15, &self->flags)) {
    task_discard(&self->task);
    return NULL;
  }
  return task_start(env, &self->task);
}

/* mount_setattr(2): changes the named attributes and no others, which a remount cannot. */
static napi_value js_mount_setattr(napi_env env, napi_callback_info info) {
  napi_value argv[4];
  AUTO_FREE target = NULL;
  int64_t set, clear;
  bool recursive;
  if (!arg_all(env, info, 4, argv) || !arg_string(env, argv[0], "target", &target) ||
      !arg_integer(env, argv[1], "set", 0, UINT32_MAX, &set) || !arg_integer(env, argv[2], "clear", 0, UINT32_MAX, &clear) ||
      !arg_bool(env, argv[3], "recursive", &recursive))
    return NULL;
  struct mount_attr attributes = {.attr_set = (uint64_t)set, .attr_clr = (uint64_t)clear};
  unsigned int flags = AT_SYMLINK_NOFOLLOW | (recursive ? AT_RECURSIVE : 0);
  if (syscall(SYS_mount_setattr, AT_FDCWD, target, flags, &attributes, sizeof attributes) < 0)
    return error_throw(env, errno, "mount_setattr", target);
  return value_undefined(env);
}

struct idmap_task {
  struct task task;
  char *source, *target, *userns;
  int64_t set;
};

static void idmap_drop(struct task *task) {
  struct idmap_task *self = (struct idmap_task *)task;
  free(self->source);
  free(self->target);
  free(self->userns);
}

/* A bind mount whose owners are seen through a user namespace (mount_setattr(2), MOUNT_ATTR_IDMAP): only a mount that nobody has seen may become one,
 * hence the detached clone. */
static void idmap_run(struct task *task) {
  struct idmap_task *self = (struct idmap_task *)task;
  AUTO_CLOSE userns = open(self->userns, O_RDONLY | O_CLOEXEC);
  if (userns < 0) return task_fail(task, errno, "open", self->userns);
  AUTO_CLOSE tree = (int)syscall(SYS_open_tree, AT_FDCWD, self->source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW);
  if (tree < 0) return task_fail(task, errno, "open_tree", self->source);
  struct mount_attr attributes = {.attr_set = (uint64_t)self->set | MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)userns};
  if (syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attributes, sizeof attributes) < 0)
    return task_fail(task, errno, "mount_setattr", self->source);
  if (syscall(SYS_move_mount, tree, "", AT_FDCWD, self->target, MOVE_MOUNT_F_EMPTY_PATH) < 0)
    task_fail(task, errno, "move_mount", self->target);
}

static napi_value js_idmap_mount(napi_env env, napi_callback_info info) {
  napi_value argv[4];
  if (!arg_all(env, info, 4, argv)) return NULL;
  struct idmap_task *self = task_new(env, sizeof *self, idmap_run, idmap_drop);
  if (!self) return NULL;
  if (!arg_string(env, argv[0], "source", &self->source) || !arg_string(env, argv[1], "target", &self->target) ||
      !arg_string(env, argv[2], "userns", &self->userns) || !arg_integer(env, argv[3], "set", 0, UINT32_MAX, &self->set)) {
    task_discard(&self->task);
    return NULL;
  }
  return task_start(env, &self->task);
}

bool mount_register(napi_env env, napi_value exports) {
  static const struct function functions[] = {{"mount", js_mount},
                                              {"mountAt", js_mount_at},
                                              {"umount", js_umount},
                                              {"umountAsync", js_umount_async},
                                              {"mountSetattr", js_mount_setattr},
                                              {"idmapMount", js_idmap_mount}};
  return functions_register(env, exports, functions, COUNT(functions));
}
