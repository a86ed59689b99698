/* Copies of files in memory: such as can be shared because nobody can change them, and such as are one's own. See src/host/native.ts. */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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

#define PAGE 4096u
#define CHUNK (64u * PAGE) /* stays in the processor's cache on its way */

static bool is_zero(const char *page) { return page[0] == 0 && memcmp(page, page + 1, PAGE - 1) == 0; }

static int write_whole(int to, const char *data, size_t size, off_t at) {
  while (size > 0) {
    ssize_t n = pwrite(to, data, size, at);
    if (n < 0 && errno != EINTR) return -1;
    if (n > 0) data += n, size -= (size_t)n, at += n;
  }
  return 0;
}

/* The data of a sparse file: holes stay holes, and whole pages of zeros become such (a guest's memory has many). */
static int copy_data(int from, int to, off_t size) {
  AUTO_FREE buffer = malloc(CHUNK);
  if (buffer == NULL) return -1;
  for (off_t at = 0; at < size;) {
    off_t data = lseek(from, at, SEEK_DATA);
    if (data < 0) return errno == ENXIO ? 0 : -1; /* only a hole is left */
    off_t end = lseek(from, data, SEEK_HOLE);
    if (end < 0) return -1;
    for (off_t position = data; position < end;) {
      size_t want = end - position < (off_t)CHUNK ? (size_t)(end - position) : CHUNK;
      ssize_t got = pread(from, buffer, want, position);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) {
        if (got == 0) errno = EIO; /* it has shrunk meanwhile */
        return -1;
      }
      size_t written = 0, seen = 0;
      for (; seen + PAGE <= (size_t)got; seen += PAGE) {
        if (!is_zero(buffer + seen)) continue;
        if (write_whole(to, buffer + written, seen - written, position + (off_t)written) < 0) return -1;
        written = seen + PAGE;
      }
      if (write_whole(to, buffer + written, (size_t)got - written, position + (off_t)written) < 0) return -1;
      position += got;
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
  if (ftruncate(memory, st.st_size) < 0 || copy_data(from, memory, st.st_size) < 0) return task_fail(task, errno, "pwrite", self->path);
  if (fcntl(memory, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0) return task_fail(task, errno, "fcntl", "F_ADD_SEALS");
  task->fd = memory;
  memory = -1;
}

static void sealed_copy_drop(struct task *task) { free(((struct sealed_copy *)task)->path); }

/* Of memory: another one that is written to and keeps its size. */
struct own_copy {
  struct task task;
  int from;
};

static void own_copy_run(struct task *task) {
  struct own_copy *self = (struct own_copy *)task;
  struct stat st;
  if (fstat(self->from, &st) < 0) return task_fail(task, errno, "fstat", NULL);
  AUTO_CLOSE memory = memfd_create("hull-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (memory < 0) return task_fail(task, errno, "memfd_create", NULL);
  if (ftruncate(memory, st.st_size) < 0 || copy_data(self->from, memory, st.st_size) < 0) return task_fail(task, errno, "pwrite", NULL);
  if (fcntl(memory, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW) < 0) return task_fail(task, errno, "fcntl", "F_ADD_SEALS");
  task->fd = memory;
  memory = -1;
}

static void own_copy_drop(struct task *task) {
  struct own_copy *self = (struct own_copy *)task;
  if (self->from >= 0) close(self->from);
}

static napi_value js_own_copy(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  int fd;
  if (!arg_all(env, info, 1, argv) || !arg_fd(env, argv[0], "fd", &fd)) return NULL;
  struct own_copy *self = task_new(env, sizeof *self, own_copy_run, own_copy_drop);
  if (self == NULL) return NULL;
  /* The caller may close his while this runs. */
  self->from = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (self->from < 0) task_fail(&self->task, errno, "fcntl", "F_DUPFD_CLOEXEC");
  return task_start(env, &self->task);
}

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

static napi_value js_trim_heap(napi_env env, napi_callback_info info) {
  (void)info;
  malloc_trim(0);
  return value_undefined(env);
}

bool memory_register(napi_env env, napi_value exports) {
  static const struct function functions[] = {{"sealedCopy", js_sealed_copy}, {"ownCopy", js_own_copy}, {"trimHeap", js_trim_heap}};
  return functions_register(env, exports, functions, COUNT(functions));
}
