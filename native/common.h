/* What every part of the addon needs: arguments in, errors out, work on threads of its own. */
#ifndef HULL_COMMON_H
#define HULL_COMMON_H

#include <node_api.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Frees a malloc'ed string, and closes a descriptor, when the variable goes out of scope. */
void auto_free_string(char **string);
void auto_close(int *fd);
#define AUTO_FREE __attribute__((cleanup(auto_free_string))) char *
#define AUTO_CLOSE __attribute__((cleanup(auto_close))) int

/* close(2) if `fd` is a descriptor; errno stays as it was. */
void close_quietly(int fd);

/* Writes `text` to a file of the kernel's at once. 0 or an errno. */
int file_put(const char *path, const char *text);

/* Arguments. Each returns false with a JavaScript exception pending: TypeError ERR_INVALID_ARG_TYPE,
 * TypeError ERR_INVALID_ARG_VALUE or RangeError ERR_OUT_OF_RANGE, as Node's own functions throw. */
bool arg_all(napi_env env, napi_callback_info info, size_t count, napi_value *values);
/* A string without NUL bytes, malloc'ed. */
bool arg_string(napi_env env, napi_value value, const char *name, char **out);
bool arg_integer(napi_env env, napi_value value, const char *name, int64_t min, int64_t max, int64_t *out);
bool arg_int(napi_env env, napi_value value, const char *name, int min, int max, int *out);
bool arg_fd(napi_env env, napi_value value, const char *name, int *out);
bool arg_bool(napi_env env, napi_value value, const char *name, bool *out);
bool arg_undefined(napi_env env, napi_value value);
/* Throws TypeError ERR_INVALID_ARG_VALUE; returns false. */
bool arg_invalid(napi_env env, const char *name, const char *why);

/* An Error with code, errno (negative, as libuv's), syscall and, if there is one, path.
 * Message: "mount: ENOENT: no such file or directory, '/x'". */
napi_value error_new(napi_env env, int error, const char *syscall, const char *subject);
/* Throws it; returns NULL, what a native function returns with an exception pending. */
napi_value error_throw(napi_env env, int error, const char *syscall, const char *subject);

napi_value value_undefined(napi_env env);
napi_value value_bool(napi_env env, bool value);
napi_value value_int(napi_env env, int64_t value);

/*
 * Work that ends in a promise, each on a fresh thread that ends with it. Not on libuv's pool: a pool thread must not
 * change its namespaces or working directory, and four callers who wait must not stop everybody's file I/O.
 * A specific task has `struct task` as its first member and is calloc'ed.
 */
struct task {
  /* On the thread. Failure: task_fail. */
  void (*run)(struct task *);
  /* Frees the members of the specific task (not the struct). May be NULL. */
  void (*drop)(struct task *);
  /* The descriptor that the promise resolves with; -1: it resolves with undefined. */
  int fd;
  int error;
  const char *syscall;
  char *subject;
  /* The rest belongs to task.c. */
  napi_deferred deferred;
  napi_threadsafe_function callback;
  pthread_mutex_t lock;
  int references;
  bool abandoned;
};

/* Allocates a task of `size` bytes; NULL with an exception pending. */
void *task_new(napi_env env, size_t size, void (*run)(struct task *), void (*drop)(struct task *));
/* Drops a task that was never started. */
void task_discard(struct task *task);
/* Starts it; takes ownership; returns the promise. A task with `error` set already is rejected at once. */
napi_value task_start(napi_env env, struct task *task);
/* Remembers the failure (first one wins). `syscall` must be a literal; `subject` is copied, may be NULL. */
void task_fail(struct task *task, int error, const char *syscall, const char *subject);

/* A detached thread with all signals blocked (they are the main thread's) and a small stack. Returns 0 or an errno. */
int thread_spawn(void *(*body)(void *), void *argument);

/* Opens the directory of `path` and writes "/proc/self/fd/N/NAME" into `out`, so that a socket's path may be longer than
 * sun_path. Returns the descriptor to close afterwards, or -1 with errno. */
struct sockaddr_un;
int socket_address(const char *path, struct sockaddr_un *out);

/* Each part's functions. */
bool mount_register(napi_env env, napi_value exports);
bool paths_register(napi_env env, napi_value exports);
bool net_register(napi_env env, napi_value exports);
bool streams_register(napi_env env, napi_value exports);
bool process_register(napi_env env, napi_value exports);
bool spawn_register(napi_env env, napi_value exports);
bool tree_register(napi_env env, napi_value exports);
bool replace_register(napi_env env, napi_value exports);
bool userns_register(napi_env env, napi_value exports);
bool memory_register(napi_env env, napi_value exports);
bool clock_register(napi_env env, napi_value exports);

struct function {
  const char *name;
  napi_callback callback;
};
bool functions_register(napi_env env, napi_value exports, const struct function *functions, size_t count);
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#endif
