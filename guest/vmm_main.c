/* hull-vmm --dir DIR [--boot-timeout SECONDS] [--file-server FD] [--restore FD] [--ahead 1] -- qemu-system-x86_64 ARGUMENTS…
 *
 * One epoll loop, nothing blocks. Exits with the workload's code; 125 when the machine or the workload could not be started. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm.h"

#define HALT_MS 2000
#define CLIENT_FLUSH_MS 1000

struct machine machine;
static struct watch signals;
static struct watch file_server = {.fd = -1};
static uint64_t waiting_signals; /* that came before the workload runs */
static int64_t limit;            /* of the present state, now_ms; 0: none */

void finish(int code, bool oom, const char *message) {
  if (machine.state == EXITED) return;
  machine.state = EXITED;
  machine.code = code;
  machine.oom = oom;
  if (message != machine.message) snprintf(machine.message, sizeof machine.message, "%s", message);
  limit = now_ms() + CLIENT_FLUSH_MS;
  qemu_kill();
  clients_started();
}

void halt(int code, const char *message) {
  if (machine.state >= HALTING) return;
  machine.state = HALTING;
  machine.code = code;
  snprintf(machine.message, sizeof machine.message, "%s", message);
  limit = now_ms() + HALT_MS;
  link_send(F_HALT, 0, 0, NULL, 0);
  clients_started();
}

void guest_error(const char *what) {
  char message[200];
  snprintf(message, sizeof message, "protocol error of the guest: %s", what);
  finish(machine.started ? 137 : 125, false, message);
}

static void qemu_ended(void) {
  char how[500], message[MESSAGE_MAX];
  link_drain(); /* EXIT may be its last frame */
  if (machine.state == EXITED) return;
  if (machine.state == HALTING) {
    finish(machine.code, machine.oom, machine.message);
    return;
  }
  qemu_describe(how, sizeof how);
  snprintf(message, sizeof message, machine.started ? "the virtual machine ended: %s" : "the virtual machine ended before the workload started: %s", how);
  finish(machine.started ? 137 : 125, false, message);
}

static void signals_ready(struct watch *w, uint32_t events) {
  (void)events;
  struct signalfd_siginfo info;
  while (read(w->fd, &info, sizeof info) == sizeof info) {
    if (info.ssi_signo != SIGCHLD && info.ssi_signo <= 64) waiting_signals |= (uint64_t)1 << (info.ssi_signo - 1);
    if (info.ssi_signo != SIGCHLD) continue;
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
      if (qemu_reaped(pid, status)) qemu_ended();
  }
}

static void forward_signals(void) {
  if (machine.state != RUNNING || waiting_signals == 0 || !link_has_room()) return;
  for (int i = 0; i < 64; i++)
    if ((waiting_signals >> i & 1) != 0) link_signal(MAIN_STREAM, i + 1);
  waiting_signals = 0;
}

static void on_timeout(void) {
  if (machine.state == HALTING) finish(machine.code, machine.oom, machine.message);
  else if (machine.state <= WAITING) finish(125, false, "the guest did not answer in time");
  else if (machine.state < RUNNING) halt(125, "the guest did not get ready in time");
}

/* Runs until the machine has ended and everything is written. */
static void run(int boot_ms) {
  enum state seen = machine.state;
  limit = now_ms() + boot_ms;
  for (;;) {
    if (machine.state != seen && machine.state <= RUNNING) limit = machine.state == RUNNING || machine.state == WAITING ? 0 : now_ms() + boot_ms;
    seen = machine.state;
    forward_signals();
    stdio_update();
    clients_update();
    qmp_update();
    link_update();
    if (machine.state != seen) continue;
    if (seen == EXITED && stdio_flushed() && (clients_flushed() || now_ms() >= limit)) return;
    int64_t left = limit == 0 ? -1 : limit - now_ms();
    if (limit != 0 && left <= 0 && seen != EXITED) {
      on_timeout();
      continue;
    }
    loop_once(limit == 0 ? -1 : left < 20 ? 20 : (int)left);
  }
}

/* A guest whose file server is gone waits for its answers for ever: the machine ends. QEMU has the connection; we only look at it. */
static void file_server_ready(struct watch *w, uint32_t events) {
  if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) == 0) return;
  watch_close(w);
  finish(machine.started ? 137 : 125, false, "the file server of the mounts ended");
}

static int usage(void) {
  fputs("usage: hull-vmm --dir DIR [--boot-timeout SECONDS] [--file-server FD] [--restore FD] [--ahead 1] [--landlock 0] -- QEMU ARGUMENTS...\n", stderr);
  return 125;
}

int main(int argc, char **argv) {
  const char *dir = NULL;
  uint64_t seconds = 60, server = 0, state = 0, ahead = 0, landlock = 1;
  int at = 1;
  for (; at + 1 < argc && strcmp(argv[at], "--") != 0; at += 2) {
    if (strcmp(argv[at], "--dir") == 0) dir = argv[at + 1];
    else if (strcmp(argv[at], "--file-server") == 0 && parse_number(argv[at + 1], AGENT_FD - 1, &server)) continue;
    else if (strcmp(argv[at], "--restore") == 0 && parse_number(argv[at + 1], AGENT_FD - 2, &state)) continue;
    else if (strcmp(argv[at], "--ahead") == 0 && parse_number(argv[at + 1], 1, &ahead)) continue;
    else if (strcmp(argv[at], "--landlock") == 0 && parse_number(argv[at + 1], 1, &landlock)) continue;
    else if (strcmp(argv[at], "--boot-timeout") != 0 || !parse_number(argv[at + 1], 86400, &seconds)) return usage();
  }
  if (dir == NULL || at + 1 >= argc || strcmp(argv[at], "--") != 0) return usage();
  if (landlock == 0) landlock_leave_out();
  if (chdir(dir) < 0) {
    fprintf(stderr, "hull-vmm: %s: %s\n", dir, strerror(errno));
    return 125;
  }
  int inherited = 3; /* the first descriptor that is not QEMU's: they come in a row */
  while (inherited < AGENT_FD && fcntl(inherited, F_GETFD) >= 0) inherited++;
  /* QEMU, which may be taken over, has our uid and sees our /proc: it gets no way into us by it. */
  prctl(PR_SET_DUMPABLE, 0);
  unlink("status");
  sigset_t mask;
  sigfillset(&mask);
  int synchronous[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
  for (size_t i = 0; i < sizeof synchronous / sizeof *synchronous; i++) sigdelset(&mask, synchronous[i]);
  sigprocmask(SIG_BLOCK, &mask, NULL);
  signal(SIGPIPE, SIG_IGN);
  int pair[2], control[2] = {-1, -1};
  char message[MESSAGE_MAX] = "";
  bool ok = loop_open() == 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0;
  if (ok && state != 0) ok = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) == 0;
  if (!ok) snprintf(message, sizeof message, "%s", strerror(errno));
  if (ok) ok = (ahead ? link_load_rehearsal : link_load)(message) && clients_listen(message) && qemu_start(argv + at + 1, pair[1], control[1], message);
  if (!ok) {
    fprintf(stderr, "hull-vmm: %s\n", message);
    finish(125, false, message);
    status_write();
    clients_close();
    return 125;
  }
  close(pair[1]); /* QEMU's: its end must be the last, so that we see it go */
  fcntl(pair[0], F_SETFL, O_NONBLOCK);
  link_open(pair[0]);
  if (state != 0) {
    close(control[1]);
    machine.state = RESTORING;
    qmp_open(control[0], (int)state, server != 0);
  }
  watch_init(&signals, signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK), signals_ready);
  watch_set(&signals, EPOLLIN);
  if (server != 0) {
    /* QEMU's copy stays open across exec; ours need not, and shares its file description only. */
    watch_init(&file_server, fcntl((int)server, F_DUPFD_CLOEXEC, AGENT_FD + 1), file_server_ready);
    watch_set(&file_server, EPOLLRDHUP);
  }
  for (int fd = 3; fd < inherited; fd++) close(fd); /* tap, file server, a template's state and memory: QEMU's alone */
  stdio_open();
  if (!landlock_self()) {
    snprintf(message, sizeof message, "cannot set Landlock: %s", strerror(errno));
    finish(125, false, message);
  }
  run((int)seconds * 1000);
  stdio_restore();
  status_write();
  clients_close();
  return machine.code;
}
