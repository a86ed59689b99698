/* Removes a directory tree. One thread for all of it: Node's rm goes through libuv's threads once or twice for each file. */
#include "common.h"

#include <errno.h>
#include <fts.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

struct remove_tree {
  struct task task;
  char *path;
};

/* 0 or an errno. */
static int remove_entry(const FTSENT *entry) {
  switch (entry->fts_info) {
    case FTS_D: return 0; /* on the way down */
    case FTS_DNR:
    case FTS_ERR: return entry->fts_errno;
    case FTS_NS: return entry->fts_errno == ENOENT ? 0 : entry->fts_errno;
    case FTS_DP: return rmdir(entry->fts_accpath) == 0 || errno == ENOENT ? 0 : errno;
    default: return unlink(entry->fts_accpath) == 0 || errno == ENOENT ? 0 : errno;
  }
}

static void remove_tree_run(struct task *task) {
  struct remove_tree *self = (struct remove_tree *)task;
  /* fts(3) changes its working directory, which is what makes trees deeper than a path name can be no matter; threads share it otherwise. */
  if (unshare(CLONE_FS) < 0) return task_fail(task, errno, "unshare", NULL);
  FTS *tree = fts_open((char *[]){self->path, NULL}, FTS_PHYSICAL | FTS_XDEV | FTS_NOSTAT, NULL);
  if (tree == NULL) return task_fail(task, errno, "fts_open", self->path);
  int error = 0;
  for (FTSENT *entry; error == 0;) {
    errno = 0;
    entry = fts_read(tree);
    if (entry == NULL) {
      error = errno;
      break;
    }
    error = remove_entry(entry);
  }
  fts_close(tree);
  if (error != 0) task_fail(task, error, "unlink", self->path);
}

static void remove_tree_drop(struct task *task) { free(((struct remove_tree *)task)->path); }

static napi_value js_remove_tree(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  AUTO_FREE path = NULL;
  if (!arg_all(env, info, 1, argv) || !arg_string(env, argv[0], "path", &path)) return NULL;
  struct remove_tree *self = task_new(env, sizeof *self, remove_tree_run, remove_tree_drop);
  if (self == NULL) return NULL;
  self->path = path;
  path = NULL;
  return task_start(env, &self->task);
}

bool tree_register(napi_env env, napi_value exports) {
  static const struct function functions[] = {{"removeTree", js_remove_tree}};
  return functions_register(env, exports, functions, COUNT(functions));
}
