/* The OCI runtime: `create`, the terminal that it sends, and the ends of children. */
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SCORE = 16 };

static const char pid_file[] = "container.pid"; /* in the bundle, where the runtime works */

static void close_fd(int *fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

/* ---- the terminal ---- */

static int console_listen(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return -1;
  }
  strcpy(address.sun_path, path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  unlink(path);
  if (fchmod(fd, 0600) == 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, 1) == 0) return fd;
  int error = errno;
  close(fd);
  errno = error;
  return -1;
}

/* The one descriptor of a message; -1: none came (errno EAGAIN: not yet). */
static int receive_master(int socket) {
  char name[PATH_MAX]; /* runtimes send the terminal's name along */
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
  } control;
  struct iovec part = {name, sizeof name};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  ssize_t length;
  do length = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  while (length < 0 && errno == EINTR);
  if (length < 0) return -1;
  struct cmsghdr *head = CMSG_FIRSTHDR(&message);
  int fd = -1;
  if (head != NULL && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS && head->cmsg_len >= CMSG_LEN(sizeof fd)) memcpy(&fd, CMSG_DATA(head), sizeof fd);
  if (fd < 0) errno = EPROTO;
  return fd;
}

struct console {
  int listener, peer, master;
};

static void console_step(struct console *console) {
  if (console->listener >= 0 && console->peer < 0) {
    console->peer = accept4(console->listener, NULL, NULL, SOCK_CLOEXEC);
    if (console->peer >= 0) close_fd(&console->listener);
  }
  if (console->peer < 0 || console->master >= 0) return;
  console->master = receive_master(console->peer);
  if (console->master >= 0 || errno != EAGAIN) close_fd(&console->peer);
}

/* ---- the runtime ---- */

/* The ends of the runtime's stdio, ours and its own. */
struct stdio {
  int in[2], out[2], err[2]; /* read, write */
};

static void close_pair(int pair[2]) {
  close_fd(&pair[0]);
  close_fd(&pair[1]);
}

static bool stdio_open(struct stdio *stdio, const struct options *options) {
  *stdio = (struct stdio){{-1, -1}, {-1, -1}, {-1, -1}};
  bool terminal = options->console != NULL;
  /* With a terminal stderr is the runtime's alone. */
  if (pipe2(stdio->err, O_CLOEXEC) < 0) return false;
  if (!terminal && options->input && pipe2(stdio->in, O_CLOEXEC) < 0) return false;
  return terminal || pipe2(stdio->out, O_CLOEXEC) == 0;
}

static void stdio_close(struct stdio *stdio) {
  close_pair(stdio->in);
  close_pair(stdio->out);
  close_pair(stdio->err);
}

static void get_oom_score_adj(char text[SCORE]) {
  memset(text, 0, SCORE);
  int fd = open("/proc/self/oom_score_adj", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  if (read(fd, text, SCORE - 1) < 0) text[0] = 0;
  close(fd);
}

/* Without effect where the host does not allow it. */
static void set_oom_score_adj(const char *value) {
  int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  write_all(fd, value, strlen(value));
  close(fd);
}

__attribute__((noreturn)) static void child(const struct options *options, const struct stdio *stdio, const char *oom_score, pid_t monitor) {
  static char preserve[32];
  const char *arguments[options->runtime_count + 16];
  size_t count = 0;
  for (; count < options->runtime_count; count++) arguments[count] = options->runtime[count];
  const char *more[] = {"create", "--bundle", options->bundle, "--pid-file", pid_file};
  for (size_t i = 0; i < sizeof more / sizeof *more; i++) arguments[count++] = more[i];
  if (options->console != NULL) {
    arguments[count++] = "--console-socket";
    arguments[count++] = options->console;
  }
  if (options->preserved > 0) {
    snprintf(preserve, sizeof preserve, "--preserve-fds=%d", options->preserved);
    arguments[count++] = preserve;
  }
  arguments[count++] = options->id;
  arguments[count] = NULL;

  /* With us it ends: nobody else would know of it. */
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != monitor) _exit(125); /* we have ended already */
  set_oom_score_adj(oom_score);
  sigset_t none;
  sigemptyset(&none);
  signal(SIGPIPE, SIG_DFL);
  signal(SIGCHLD, SIG_DFL);
  signal(SIGTERM, SIG_DFL);
  signal(SIGINT, SIG_DFL);
  signal(SIGHUP, SIG_DFL);
  signal(SIGQUIT, SIG_DFL);
  sigprocmask(SIG_SETMASK, &none, NULL);
  if (stdio->in[0] >= 0) dup2(stdio->in[0], STDIN_FILENO); /* else /dev/null, which ours are */
  if (stdio->out[1] >= 0) dup2(stdio->out[1], STDOUT_FILENO);
  dup2(stdio->err[1], STDERR_FILENO);
  execv(arguments[0], (char *const *)arguments);
  dprintf(STDERR_FILENO, "%s: %s\n", arguments[0], strerror(errno));
  _exit(127);
}

/* Its exit code; 128 + signal. */
static int wait_for_runtime(pid_t runtime, struct console *console) {
  sigset_t all;
  sigemptyset(&all);
  for (;;) {
    int status;
    pid_t ended = waitpid(runtime, &status, WNOHANG);
    console_step(console); /* after its end once more */
    if (ended == runtime) return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    struct pollfd polled = {.fd = console->peer >= 0 ? console->peer : console->listener, .events = POLLIN};
    ppoll(&polled, 1, NULL, &all);
  }
}

static pid_t read_pid(void) {
  char text[32] = "";
  int fd = open(pid_file, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  ssize_t length = read(fd, text, sizeof text - 1);
  close(fd);
  unlink(pid_file);
  return length > 0 ? (pid_t)atol(text) : -1;
}

/* What the runtime has said; `otherwise` if it said nothing. */
static void explain(int fd, char *answer, size_t size, const char *otherwise, int code) {
  fcntl(fd, F_SETFL, O_NONBLOCK);
  size_t length = 0;
  while (length + 1 < size) {
    ssize_t got = read(fd, answer + length, size - 1 - length);
    if (got <= 0) break;
    length += (size_t)got;
  }
  answer[length] = 0;
  if (length == 0) snprintf(answer, size, otherwise, code);
}

static bool create(const struct options *options, struct container *container, struct stdio *stdio, struct console *console, char *answer, size_t size) {
  char oom_score[SCORE];
  get_oom_score_adj(oom_score);
  set_oom_score_adj("-1000"); /* what would be lost with this process is the container */
  pid_t monitor = getpid(), runtime = fork();
  if (runtime < 0) {
    snprintf(answer, size, "fork: %s", strerror(errno));
    return false;
  }
  if (runtime == 0) child(options, stdio, options->oom_score != NULL ? options->oom_score : oom_score, monitor);
  close_fd(&stdio->in[0]);
  close_fd(&stdio->out[1]);
  close_fd(&stdio->err[1]);
  for (int fd = 3; fd < options->inherited; fd++)
    if (fd != options->sync) close(fd);
  int code = wait_for_runtime(runtime, console);
  if (code != 0) {
    explain(stdio->err[0], answer, size, "the runtime ended with code %d and no message", code);
    return false;
  }
  pid_t pid = read_pid();
  if (pid <= 1) {
    explain(stdio->err[0], answer, size, "the runtime left no process id", 0);
    return false;
  }
  if (options->console != NULL && console->master < 0) {
    snprintf(answer, size, "the runtime sent no terminal");
    kill(pid, SIGKILL);
    return false;
  }
  *container = (struct container){.pid = pid, .in = stdio->in[1], .out = stdio->out[0], .err = stdio->err[0]};
  stdio->in[1] = stdio->out[0] = stdio->err[0] = -1;
  if (options->console != NULL) {
    container->terminal = true;
    container->in = container->out = console->master;
    console->master = -1;
    close_fd(&container->err);
  }
  int ours[] = {container->in, container->out, container->err};
  for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
    if (ours[i] >= 0) fcntl(ours[i], F_SETFL, fcntl(ours[i], F_GETFL) | O_NONBLOCK); /* a pipe's other end is another file, with flags of its own */
  return true;
}

bool runtime_create(const struct options *options, struct container *container, char *answer, size_t size) {
  struct stdio stdio = {{-1, -1}, {-1, -1}, {-1, -1}};
  struct console console = {-1, -1, -1};
  bool created = false;
  if (options->console != NULL && (console.listener = console_listen(options->console)) < 0) snprintf(answer, size, "console socket %s: %s", options->console, strerror(errno));
  else if (!stdio_open(&stdio, options)) snprintf(answer, size, "pipe: %s", strerror(errno));
  else created = create(options, container, &stdio, &console, answer, size);
  stdio_close(&stdio);
  close_fd(&console.listener);
  close_fd(&console.peer);
  close_fd(&console.master);
  if (options->console != NULL) unlink(options->console);
  return created;
}

bool runtime_reap(const struct container *container, int *code) {
  int status;
  bool found = false;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
    if (pid != container->pid) continue; /* an orphan of one that shares the host's process ids */
    *code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    found = true;
  }
  return found;
}
