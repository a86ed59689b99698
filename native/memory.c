/* Memory that can be shared because nobody can change it. See src/host/native.ts. */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MFD_EXEC
#define MFD_EXEC 0x10U /* Linux 6.3 */
#endif

struct sealed_copy {
  struct task task;
  char *path;
  bool program; /* it is to be executed */
};

/* The data of a sparse file, hole for hole. */
static int copy_data(int from, int to, off_t size) {
  for (off_t at = 0; at < size;) {
    off_t data = lseek(from, at, SEEK_DATA);
    if (data < 0) return errno == ENXIO ? 0 : -1; /* only a hole is left */
    off_t end = lseek(from, data, SEEK_HOLE);
    if (end < 0 || lseek(to, data, SEEK_SET) < 0) return -1;
    for (off_t position = data; position < end;) {
      ssize_t sent = sendfile(to, from, &position, (size_t)(end - position));
      if (sent < 0 && errno != EINTR) return -1;
      if (sent == 0) { /* it has shrunk meanwhile */
        errno = EIO;
        return -1;
      }
    }
    at = end;
  }
  return 0;
}

static void sealed_copy_run(struct task *task) {
  struct sealed_copy *self = (struct sealed_copy *)task;
  AUTO_CLOSE from = open(self->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  struct stat st;
  if (from < 0 || fstat(from, &st) < 0) return task_fail(task, errno, "open", self->path);
  if (!S_ISREG(st.st_mode)) return task_fail(task, EINVAL, "open", self->path);
  AUTO_CLOSE memory = memfd_create(self->program ? "hull-runtime" : "hull-template", MFD_CLOEXEC | MFD_ALLOW_SEALING | (self->program ? MFD_EXEC : 0));
  /* Before Linux 6.3 every such file may be executed. */
  if (memory < 0 && errno == EINVAL && self->program) memory = memfd_create("hull-runtime", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (memory < 0) return task_fail(task, errno, "memfd_create", NULL);
  if (ftruncate(memory, st.st_size) < 0 || copy_data(from, memory, st.st_size) < 0) return task_fail(task, errno, "sendfile", self->path);
  if (fcntl(memory, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0) return task_fail(task, errno, "fcntl", "F_ADD_SEALS");
  task->fd = memory;
  memory = -1;
}

static void sealed_copy_drop(struct task *task) { free(((struct sealed_copy *)task)->path); }

static napi_value js_sealed_copy(napi_env env, napi_callback_info info) {
  napi_value argv[2];
  AUTO_FREE path = NULL;
  bool program;
  if (!arg_all(env, info, 2, argv) || !arg_string(env, argv[0], "path", &path) || !arg_bool(env, argv[1], "program", &program)) return NULL;
  struct sealed_copy *self = task_new(env, sizeof *self, sealed_copy_run, sealed_copy_drop);
  if (self == NULL) return NULL;
  self->path = path;
  path = NULL;
  self->program = program;
  return task_start(env, &self->task);
}

bool memory_register(napi_env env, napi_value exports) {
  static const struct function functions[] = {{"sealedCopy", js_sealed_copy}};
  return functions_register(env, exports, functions, COUNT(functions));
}
