/* Arguments, and the loop from the container's creation to its end. */
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OUTPUTS = 2, INPUT_SIZE = 8192, INPUT_READS = 64, LAST_MAX = 1 << 20 };

static volatile sig_atomic_t told_to_end;

static uint8_t chunk[CHUNK];
/* On its way to the container's stdin. */
static uint8_t input[INPUT_SIZE];
static size_t input_at, input_end;

static void on_child(int number) { (void)number; } /* ends a poll */

static void on_end(int number) {
  (void)number;
  told_to_end = 1;
}

static void handle(int number, void (*handler)(int)) {
  struct sigaction action = {.sa_handler = handler};
  sigaction(number, &action, NULL);
}

/* ppoll lets none in when something is ready at once, which may be always. */
static void let_signals_in(void) {
  sigset_t none, blocked;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, &blocked);
  sigprocmask(SIG_SETMASK, &blocked, NULL);
}

/* Signals come in ppoll alone, and right behind it. */
static void prepare_signals(void) {
  static const int ends[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGCHLD);
  handle(SIGCHLD, on_child);
  for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
    sigaddset(&blocked, ends[i]);
    handle(ends[i], on_end);
  }
  handle(SIGPIPE, SIG_IGN);
  sigprocmask(SIG_BLOCK, &blocked, NULL);
}

/* Its files are root's own, and what it may have to do to others is to end them. Without effect where that is refused. */
static void drop_capabilities(void) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct data[2] = {{.effective = 1u << CAP_KILL, .permitted = 1u << CAP_KILL}};
  syscall(SYS_capset, &header, data);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

/* One read of the container's output: how many bytes. 0: none just now. -1: never again. */
static ssize_t pass_on(int fd, int stream) {
  ssize_t length;
  do length = read(fd, chunk, sizeof chunk);
  while (length < 0 && errno == EINTR);
  if (length < 0 && errno == EAGAIN) return 0;
  if (length <= 0) return -1; /* of a terminal EIO: nobody has it open */
  log_write(stream, chunk, (size_t)length);
  clients_send(stream, chunk, (size_t)length);
  return length;
}

static void close_end(int *fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

/* A terminal has no end of input that could be written into it. */
static void close_input(struct container *container) {
  if (!container->terminal) close_end(&container->in);
  input_at = input_end = 0;
}

/* As far as it goes: from the clients to the container's stdin. True: only so far that the rest, the output and signals, has its turn when clients talk faster than we read. */
static bool carry_input(const struct options *options, struct container *container) {
  for (int reads = 0;;) {
    bool ended = false;
    if (input_at == input_end) {
      if (reads++ == INPUT_READS) return true;
      input_at = 0;
      input_end = clients_read(input, sizeof input, &ended);
      if (input_end == 0) {
        if (ended && options->input_once) close_input(container);
        return false;
      }
    }
    if (container->in < 0) {
      input_at = input_end = 0; /* nobody reads it: dropped */
      continue;
    }
    ssize_t written = write(container->in, input + input_at, input_end - input_at);
    if (written >= 0) input_at += (size_t)written;
    else if (errno == EAGAIN) return false;
    else if (errno != EINTR) close_input(container);
  }
}

/* What is still in the pipes of a container that has ended: no more than fits into them, since somebody else may hold the other end. */
static void last_output(const struct container *container) {
  const int outputs[OUTPUTS] = {container->out, container->err};
  for (int i = 0; i < OUTPUTS; i++) {
    if (outputs[i] < 0) continue;
    int capacity = fcntl(outputs[i], F_GETPIPE_SZ);
    ssize_t most = capacity > LAST_MAX ? capacity : LAST_MAX;
    for (ssize_t length; most > 0 && (length = pass_on(outputs[i], i + 1)) > 0;) most -= length;
  }
}

static void write_exit(const struct options *options, int code) {
  char temporary[PATH_MAX], path[PATH_MAX], text[16];
  if (snprintf(path, sizeof path, "%s/%s", options->exit_dir, options->id) >= (int)sizeof path || snprintf(temporary, sizeof temporary, "%s/.%s", options->exit_dir, options->id) >= (int)sizeof temporary)
    return report("the exit code's path is too long", 0);
  int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  bool done = fd >= 0 && write_all(fd, text, (size_t)snprintf(text, sizeof text, "%d", code));
  if (fd >= 0) close(fd);
  if (!done || rename(temporary, path) < 0) {
    report("the exit code cannot be written", errno);
    unlink(temporary);
  }
}

/* One round of waiting and serving. */
static void serve(const struct options *options, struct container *container) {
  static const struct timespec again = {.tv_nsec = 200000000}, now;
  static bool more_input;
  static bool hung_up; /* nobody has the terminal open. An init may close it and open it again later: nothing tells when. */
  sigset_t none;
  sigemptyset(&none);
  size_t clients = clients_count();
  struct pollfd polled[OUTPUTS + 1 + clients];
  bool behind = clients_behind();
  polled[0] = (struct pollfd){.fd = behind || hung_up ? -1 : container->out, .events = POLLIN};
  polled[1] = (struct pollfd){.fd = behind ? -1 : container->err, .events = POLLIN};
  polled[2] = (struct pollfd){.fd = input_at < input_end && !hung_up ? container->in : -1, .events = POLLOUT};
  clients = clients_poll(polled + OUTPUTS + 1, input_at == input_end);
  const struct timespec *patience = more_input ? &now : (hung_up && container->terminal) || clients_refused() ? &again : NULL;
  if (ppoll(polled, OUTPUTS + 1 + clients, patience, &none) < 0) return;
  let_signals_in();
  /* Clients first: who was there before the container wrote gets what it wrote. */
  clients_serve(polled + OUTPUTS + 1, clients, container);
  more_input = carry_input(options, container);
  int *outputs[OUTPUTS] = {&container->out, &container->err};
  for (int i = 0; i < OUTPUTS; i++) {
    if (*outputs[i] < 0 || clients_behind() || (polled[i].revents == 0 && !(i == 0 && hung_up && container->terminal))) continue;
    bool ended = pass_on(*outputs[i], i + 1) < 0;
    if (container->terminal) hung_up = ended;
    else if (ended) close_end(outputs[i]);
  }
}

static void watch(const struct options *options, struct container *container) {
  int code = 0;
  while (!runtime_reap(container, &code)) {
    if (told_to_end) kill(container->pid, SIGKILL); /* the host is shut down */
    serve(options, container);
  }
  clients_accept(container);
  last_output(container);
  log_close();
  clients_unlisten();
  close_input(container); /* what clients still say is dropped */
  close_end(&container->out);
  close_end(&container->err);
  container->in = -1;
  container->terminal = false;
  clients_end();
  write_exit(options, code);
  while (clients_any() && !told_to_end) serve(options, container);
}

static uint64_t number(const char *text, uint64_t most) {
  char *end;
  errno = 0;
  unsigned long long value = strtoull(text, &end, 10);
  if (errno == 0 && end != text && *end == 0 && *text != '-' && value <= most) return value;
  fprintf(stderr, "hull-monitor: not a number: %s\n", text);
  exit(125);
}

int main(int argc, char **argv) {
  enum { ID, BUNDLE, EXIT_DIR, LOG, LOG_SIZE, LOG_FILES, CONSOLE, INPUT, INPUT_ONCE, SYNC, PRESERVE, OOM_SCORE };
  static const struct option names[] = {
    {"id", required_argument, NULL, ID}, {"bundle", required_argument, NULL, BUNDLE}, {"exit-dir", required_argument, NULL, EXIT_DIR}, {"log", required_argument, NULL, LOG},
    {"log-size", required_argument, NULL, LOG_SIZE}, {"log-files", required_argument, NULL, LOG_FILES}, {"console", required_argument, NULL, CONSOLE}, {"stdin", no_argument, NULL, INPUT},
    {"stdin-once", no_argument, NULL, INPUT_ONCE}, {"sync", required_argument, NULL, SYNC}, {"preserve-fds", required_argument, NULL, PRESERVE}, {"oom-score-adj", required_argument, NULL, OOM_SCORE}, {0},
  };
  struct options options = {.sync = -1};
  const char *log_path = NULL;
  uint64_t log_size = 0;
  unsigned log_files = 1;
  for (int option; (option = getopt_long(argc, argv, "+", names, NULL)) != -1;) {
    switch (option) {
      case ID: options.id = optarg; break;
      case BUNDLE: options.bundle = optarg; break;
      case EXIT_DIR: options.exit_dir = optarg; break;
      case LOG: log_path = optarg; break;
      case LOG_SIZE: log_size = number(optarg, INT64_MAX); break;
      case LOG_FILES: log_files = (unsigned)number(optarg, 1000000); break;
      case CONSOLE: options.console = optarg; break;
      case INPUT: options.input = true; break;
      case INPUT_ONCE: options.input = options.input_once = true; break;
      case SYNC: options.sync = (int)number(optarg, 1023); break;
      case OOM_SCORE: options.oom_score = optarg; break;
      case PRESERVE: options.preserved = (int)number(optarg, 1023); break;
      default: return 125;
    }
  }
  options.runtime = argv + optind;
  options.runtime_count = (size_t)(argc - optind);
  if (options.id == NULL || options.bundle == NULL || options.exit_dir == NULL || options.sync < 3 || options.runtime_count == 0 || options.runtime_count > 64) {
    fputs("usage: hull-monitor --id ID --bundle DIR --exit-dir DIR --sync FD [--log FILE [--log-size BYTES --log-files N]] [--console SOCKET] [--stdin | --stdin-once] [--preserve-fds N] [--oom-score-adj N] -- RUNTIME [ARG...]\n", stderr);
    return 125;
  }
  /* The lowest that is free: the daemon passes them without a gap. */
  options.inherited = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
  if (options.inherited >= 0) close(options.inherited);
  fcntl(options.sync, F_SETFD, FD_CLOEXEC);
  umask(0);
  report_into(options.bundle);
  prepare_signals();
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);

  /* The answer: "+PID" or "-WHY". The daemon may be gone; the next one cleans up then. */
  char *answer = (char *)chunk;
  struct container container = {.pid = -1, .in = -1, .out = -1, .err = -1};
  bool created = false;
  if (chdir(options.bundle) < 0) snprintf(answer, sizeof chunk, "%s: %s", options.bundle, strerror(errno));
  else if (!clients_listen()) snprintf(answer, sizeof chunk, "attach socket: %s", strerror(errno));
  else if (log_path != NULL && !log_open(log_path, log_size, log_files)) snprintf(answer, sizeof chunk, "log %s: %s", log_path, strerror(errno));
  else created = runtime_create(&options, &container, answer, sizeof chunk);
  if (created) {
    if (chdir("/") < 0) report("chdir", errno); /* nothing of ours is held by being here */
    drop_capabilities();
    snprintf(answer, sizeof chunk, "%d", container.pid);
  }
  bool told = write_all(options.sync, created ? "+" : "-", 1) && write_all(options.sync, answer, strlen(answer));
  (void)told;
  close(options.sync);
  if (!created) return 1;
  watch(&options, &container);
  return 0;
}
