/* Promises that a fresh thread settles. See common.h. */
#include "common.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

int thread_spawn(void *(*body)(void *), void *argument) {
  pthread_attr_t attributes;
  int error = pthread_attr_init(&attributes);
  if (error) return error;
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, 128 * 1024);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  error = pthread_create(&thread, &attributes, body, argument);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  return error;
}

void task_fail(struct task *task, int error, const char *syscall, const char *subject) {
  if (task->error) return;
  task->error = error ? error : EIO;
  task->syscall = syscall;
  task->subject = subject ? strdup(subject) : NULL;
}

void task_discard(struct task *task) {
  if (task->drop) task->drop(task);
  close_quietly(task->fd); /* a descriptor that nobody took */
  free(task->subject);
  pthread_mutex_destroy(&task->lock);
  free(task);
}

/* Two hold a task: its thread, and the callback into JavaScript. Whoever lets go last frees it. */
static void unreference(struct task *task, bool abandon) {
  pthread_mutex_lock(&task->lock);
  if (abandon) task->abandoned = true;
  int left = --task->references;
  pthread_mutex_unlock(&task->lock);
  if (left == 0) task_discard(task);
}

void *task_new(napi_env env, size_t size, void (*run)(struct task *), void (*drop)(struct task *)) {
  struct task *task = calloc(1, size);
  if (!task) return error_throw(env, ENOMEM, "calloc", NULL);
  task->run = run;
  task->drop = drop;
  task->fd = -1;
  pthread_mutex_init(&task->lock, NULL);
  return task;
}

static void *thread_body(void *argument) {
  struct task *task = argument;
  task->run(task);
  pthread_mutex_lock(&task->lock);
  /* Under the lock, because the environment may be ending: finalize() waits until the callback is no longer used. */
  if (!task->abandoned) {
    napi_call_threadsafe_function(task->callback, task, napi_tsfn_nonblocking);
    napi_release_threadsafe_function(task->callback, napi_tsfn_release);
  }
  pthread_mutex_unlock(&task->lock);
  unreference(task, false);
  return NULL;
}

static void settle(napi_env env, struct task *task) {
  if (task->error) {
    napi_reject_deferred(env, task->deferred, error_new(env, task->error, task->syscall, task->subject));
  } else if (task->fd >= 0) {
    napi_value value = value_int(env, task->fd);
    task->fd = -1; /* JavaScript's now */
    napi_resolve_deferred(env, task->deferred, value);
  } else {
    napi_resolve_deferred(env, task->deferred, value_undefined(env));
  }
}

static void call_js(napi_env env, napi_value function, void *context, void *data) {
  (void)function;
  (void)context;
  if (env) settle(env, data); /* no env: it is being torn down, and finalize() cleans up */
}

static void finalize(napi_env env, void *data, void *hint) {
  (void)env;
  (void)hint;
  unreference(data, true);
}

napi_value task_start(napi_env env, struct task *task) {
  napi_value promise = NULL, name;
  if (napi_create_promise(env, &task->deferred, &promise) != napi_ok) {
    task_discard(task);
    return NULL;
  }
  if (task->error) {
    settle(env, task);
    task_discard(task);
    return promise;
  }
  napi_create_string_utf8(env, "hull.native", NAPI_AUTO_LENGTH, &name);
  if (napi_create_threadsafe_function(env, NULL, NULL, name, 0, 1, task, finalize, NULL, call_js, &task->callback) != napi_ok) {
    task_fail(task, ENOMEM, "napi_create_threadsafe_function", NULL);
    settle(env, task);
    task_discard(task);
    return promise;
  }
  task->references = 2;
  int error = thread_spawn(thread_body, task);
  if (error) {
    task_fail(task, error, "pthread_create", NULL);
    settle(env, task);
    napi_threadsafe_function callback = task->callback;
    unreference(task, false);
    napi_release_threadsafe_function(callback, napi_tsfn_abort);
  }
  return promise;
}
