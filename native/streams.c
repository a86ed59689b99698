/* Connections to sockets of ours, and pseudo-terminals. */
#include "bridge.h"
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

struct stream_task {
  struct task task;
  char *path;
  int listener, timeout;
};

/* Before the promise is settled: whoever awaits it may remove the directory. */
static void console_unlisten(struct stream_task *self) {
  if (self->listener < 0) return;
  close(self->listener);
  self->listener = -1;
  unlink(self->path);
}

static void stream_drop(struct task *task) {
  struct stream_task *self = (struct stream_task *)task;
  console_unlisten(self);
  free(self->path);
}

/* ---- a connection ---- */

enum { FIRST_MAX = 64 };

static bool arg_bytes(napi_env env, napi_value value, const char *name, void **data, size_t *size) {
  napi_typedarray_type type;
  bool is_array = false;
  if (napi_is_typedarray(env, value, &is_array) != napi_ok || !is_array) return arg_invalid(env, name, "must be a Uint8Array");
  if (napi_get_typedarray_info(env, value, &type, size, data, NULL, NULL) != napi_ok) return false;
  return (type == napi_uint8_array && *size > 0 && *size <= FIRST_MAX) || arg_invalid(env, name, "must be 1 to 64 bytes");
}

/* At once: to a socket of this host either there is room in the backlog, or connect says EAGAIN. */
static napi_value js_connect_saying(napi_env env, napi_callback_info info) {
  napi_value argv[2];
  AUTO_FREE path = NULL;
  void *first;
  size_t size;
  struct sockaddr_un address;
  if (!arg_all(env, info, 2, argv) || !arg_string(env, argv[0], "path", &path) || !arg_bytes(env, argv[1], "first", &first, &size)) return NULL;
  AUTO_CLOSE directory = socket_address(path, &address);
  if (directory < 0) return error_throw(env, errno, "open", path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return error_throw(env, errno, "socket", NULL);
  const char *call = "connect";
  if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) {
    call = "send";
    if (send(fd, first, size, MSG_NOSIGNAL) == (ssize_t)size) return value_int(env, fd); /* it fits into an empty buffer */
  }
  int error = errno;
  close(fd);
  return error_throw(env, error, call, path);
}

/* ---- pseudo-terminals ---- */

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* 0: readable; else an errno. */
static int wait_readable(int fd, int64_t deadline) {
  for (;;) {
    int64_t left = deadline - now_ms();
    if (left < 0) left = 0;
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    int ready = poll(&polled, 1, (int)left);
    if (ready > 0) return 0;
    if (ready == 0) return ETIMEDOUT;
    if (errno != EINTR) return errno;
  }
}

/* The one descriptor of an SCM_RIGHTS message, or -1 with errno; surplus descriptors are closed. */
static int receive_fd(int socket) {
  char name[4096]; /* runtimes send the terminal's name along; nobody needs it */
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(16 * sizeof(int))];
  } control;
  struct iovec part = {name, sizeof name};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  ssize_t length;
  do length = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  while (length < 0 && errno == EINTR);
  if (length < 0) return -1;
  int found = -1, count = 0;
  for (struct cmsghdr *at = CMSG_FIRSTHDR(&message); at; at = CMSG_NXTHDR(&message, at)) {
    if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_RIGHTS) continue;
    size_t fds = (at->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < fds; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(at) + i * sizeof fd, sizeof fd);
      if (count++ == 0)
        found = fd;
      else
        close(fd);
    }
  }
  if (count == 1) return found;
  close_quietly(found);
  errno = EPROTO;
  return -1;
}

/* The master that the first client sends, or -1 with the task failed. */
static int console_wait(struct stream_task *self) {
  struct task *task = &self->task;
  int64_t deadline = now_ms() + self->timeout;
  int error = wait_readable(self->listener, deadline);
  if (error) {
    task_fail(task, error, "accept", self->path);
    return -1;
  }
  AUTO_CLOSE peer = accept4(self->listener, NULL, NULL, SOCK_CLOEXEC);
  if (peer < 0) {
    task_fail(task, errno, "accept", self->path);
    return -1;
  }
  error = wait_readable(peer, deadline);
  int fd = error ? -1 : receive_fd(peer);
  if (fd < 0) {
    task_fail(task, error ? error : errno, "recvmsg", self->path);
    return -1;
  }
  unsigned int number;
  if (ioctl(fd, TIOCGPTN, &number) == 0) return fd; /* only the master of a pseudo-terminal has one */
  task_fail(task, errno, "ioctl", self->path);
  close(fd);
  return -1;
}

static void console_run(struct task *task) {
  struct stream_task *self = (struct stream_task *)task;
  task->fd = console_wait(self);
  console_unlisten(self);
}

/* Binds before it returns, so that the caller may start the runtime as soon as it holds the promise. */
static void console_listen(struct stream_task *self) {
  struct sockaddr_un address;
  AUTO_CLOSE directory = socket_address(self->path, &address);
  if (directory < 0) return task_fail(&self->task, errno, "open", self->path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return task_fail(&self->task, errno, "socket", NULL);
  /* The mode that bind gives the file. */
  if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0) {
    task_fail(&self->task, errno, "bind", self->path);
    close(fd);
    return;
  }
  self->listener = fd;
  if (listen(fd, 1) == 0) return;
  task_fail(&self->task, errno, "listen", self->path);
  console_unlisten(self);
}

static napi_value js_receive_console(napi_env env, napi_callback_info info) {
  napi_value argv[2];
  if (!arg_all(env, info, 2, argv)) return NULL;
  struct stream_task *self = task_new(env, sizeof *self, console_run, stream_drop);
  if (!self) return NULL;
  self->listener = -1;
  if (!arg_string(env, argv[0], "socketPath", &self->path) ||
      !arg_int(env, argv[1], "timeoutMs", 0, INT32_MAX, &self->timeout)) {
    task_discard(&self->task);
    return NULL;
  }
  console_listen(self);
  return task_start(env, &self->task);
}

static napi_value js_bridge_pty(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  int master;
  if (!arg_all(env, info, 1, argv) || !arg_fd(env, argv[0], "master", &master)) return NULL;
  /* A duplicate: the caller may close its own while the thread still reads, and the number may come to mean something else. */
  int copy = fcntl(master, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) return error_throw(env, errno, "fcntl", NULL);
  int flags = fcntl(copy, F_GETFL);
  if (flags < 0 || fcntl(copy, F_SETFL, flags | O_NONBLOCK) < 0) {
    close_quietly(copy);
    return error_throw(env, errno, "fcntl", NULL);
  }
  int fd = bridge_start(copy);
  if (fd < 0) return error_throw(env, errno, "socketpair", NULL);
  return value_int(env, fd);
}

static napi_value js_tty_resize(napi_env env, napi_callback_info info) {
  napi_value argv[3];
  int fd, rows, columns;
  if (!arg_all(env, info, 3, argv) || !arg_fd(env, argv[0], "fd", &fd) || !arg_int(env, argv[1], "rows", 0, 65535, &rows) ||
      !arg_int(env, argv[2], "columns", 0, 65535, &columns))
    return NULL;
  struct winsize size = {.ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns};
  if (ioctl(fd, TIOCSWINSZ, &size) < 0) return error_throw(env, errno, "ioctl", NULL);
  return value_undefined(env);
}

/* ---- a server for one client ---- */

static napi_value pair_value(napi_env env, int first, int second) {
  napi_value array;
  if (napi_create_array_with_length(env, 2, &array) == napi_ok && napi_set_element(env, array, 0, value_int(env, first)) == napi_ok &&
      napi_set_element(env, array, 1, value_int(env, second)) == napi_ok)
    return array;
  close(first);
  close(second);
  return NULL;
}

static napi_value js_listen_connected(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  AUTO_FREE path = NULL;
  struct sockaddr_un address;
  if (!arg_all(env, info, 1, argv) || !arg_string(env, argv[0], "path", &path)) return NULL;
  AUTO_CLOSE directory = socket_address(path, &address);
  if (directory < 0) return error_throw(env, errno, "open", path);
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), error = 0;
  const char *call = "socket";
  if (listener < 0 || client < 0) {
    error = errno;
  } else if (call = "bind", fchmod(listener, 0600) < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0) {
    error = errno;
  } else {
    /* A backlog of 0 holds one connection: ours. */
    if (call = "listen", listen(listener, 0) < 0) error = errno;
    else if (call = "connect", connect(client, (struct sockaddr *)&address, sizeof address) < 0) error = errno;
    unlink(path);
  }
  if (error == 0) return pair_value(env, listener, client);
  close_quietly(listener);
  close_quietly(client);
  return error_throw(env, error, call, path);
}

bool streams_register(napi_env env, napi_value exports) {
  static const struct function functions[] = {{"connectSaying", js_connect_saying},
                                              {"receiveConsole", js_receive_console},
                                              {"bridgePty", js_bridge_pty},
                                              {"ttyResize", js_tty_resize},
                                              {"listenConnected", js_listen_connected}};
  return functions_register(env, exports, functions, COUNT(functions));
}
