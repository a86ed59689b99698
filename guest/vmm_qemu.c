/* The QEMU process: started with one end of the agent's socket pair, killed with us, its own words kept apart from the workload's. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm.h"

#define LOG_MAX 262144u
#define DESCRIPTORS 256 /* more than QEMU opens */

static pid_t pid = -1;
static int wait_status;
static struct watch words;
static int log_fd = -1;
static size_t logged;
static char last_line[400], line[400];
static size_t line_length;

/* Keeps the last line that is not a mere warning: it says why QEMU gave up. */
static void remember(const char *text, size_t size) {
  for (size_t i = 0; i < size; i++) {
    if (text[i] != '\n') {
      if (line_length < sizeof line - 1) line[line_length++] = (unsigned char)text[i] < ' ' ? '?' : text[i];
      continue;
    }
    line[line_length] = 0;
    if (line_length > 0 && strstr(line, "warning:") == NULL) memcpy(last_line, line, sizeof last_line);
    line_length = 0;
  }
}

/* One read of what QEMU said. False when there is nothing more now. */
static bool take_words(void) {
  char text[4096];
  ssize_t n = read(words.fd, text, sizeof text);
  if (n < 0 && errno == EINTR) return true;
  if (n < 0 && errno == EAGAIN) return false;
  if (n <= 0) {
    watch_close(&words);
    return false;
  }
  remember(text, (size_t)n);
  size_t room = LOG_MAX - logged, size = (size_t)n < room ? (size_t)n : room;
  if (log_fd >= 0 && size > 0 && write(log_fd, text, size) < 0) { /* a full disk must not stop the workload */
  }
  logged += size;
  return true;
}

static void words_ready(struct watch *w, uint32_t events) {
  (void)w;
  (void)events;
  take_words();
}

static void hand_down(int fd, int as) {
  if (fd == as) fcntl(fd, F_SETFD, 0);
  else dup2(fd, as);
}

static void become_qemu(char *const args[], int link, int qmp, int output) {
  sigset_t none;
  sigemptyset(&none);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  sigprocmask(SIG_SETMASK, &none, NULL);
  signal(SIGPIPE, SIG_DFL);
  int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (null < 0) _exit(125);
  hand_down(link, AGENT_FD);
  if (qmp >= 0) {
    hand_down(qmp, QMP_FD);
    /* A clone's RAM is a file's, which has small pages anyhow: what large ones are left for (translated code, heap) they only make larger. */
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
  }
  /*
   * QEMU has some 90 descriptors. A table of more than 64 has to be allocated, and for a process with threads the kernel puts it in place only after a grace period (expand_fdtable in fs/file.c; 8 to 18 ms
   * with HZ=250). Here there is one thread, and the table keeps its size across exec.
   */
  if (dup2(null, DESCRIPTORS - 1) >= 0) close(DESCRIPTORS - 1);
  dup2(null, 0);
  dup2(output, 1);
  dup2(output, 2);
  if (!landlock_qemu(args)) {
    dprintf(2, "cannot set Landlock: %s\n", strerror(errno));
    _exit(125);
  }
  execvp(args[0], args);
  dprintf(2, "%s: %s\n", args[0], strerror(errno));
  _exit(125);
}

bool qemu_start(char *const args[], int link, int qmp, char *message) {
  int output[2];
  log_fd = open("qemu.log", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  /* Pipe ends away from 20 and 21: the child puts the sockets there. */
  if (pipe2(output, O_CLOEXEC) < 0) return snprintf(message, MESSAGE_MAX, "pipe: %s", strerror(errno)), false;
  int high = fcntl(output[1], F_DUPFD_CLOEXEC, QMP_FD + 1);
  close(output[1]);
  pid = high < 0 ? -1 : fork();
  if (pid == 0) become_qemu(args, link, qmp, high);
  int error = errno;
  if (high >= 0) close(high);
  fcntl(output[0], F_SETFL, O_NONBLOCK);
  watch_init(&words, output[0], words_ready);
  watch_set(&words, EPOLLIN);
  return pid > 0 || (snprintf(message, MESSAGE_MAX, "cannot start %s: %s", args[0], strerror(error)), false);
}

pid_t qemu_pid(void) { return pid; }

bool qemu_reaped(pid_t child, int status) {
  if (child != pid) return false;
  pid = -1;
  wait_status = status;
  while (words.fd >= 0 && take_words()) { /* what is still in the pipe */
  }
  return true;
}

void qemu_describe(char *out, size_t size) {
  bool filtered = WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGSYS;
  int n = WIFSIGNALED(wait_status) ? snprintf(out, size, "QEMU was killed by signal %d%s", WTERMSIG(wait_status), filtered ? " (SIGSYS: a system call that a seccomp filter forbids)" : "")
                                   : snprintf(out, size, "QEMU ended with code %d", WEXITSTATUS(wait_status));
  if (last_line[0] == 0 || n < 0 || (size_t)n >= size) return;
  /* ENOSYS is the jail's answer to what its filter does not know (src/sandbox/vm/jailseccomp.ts). */
  snprintf(out + n, size - (size_t)n, ": %s%s", last_line, strstr(last_line, strerror(ENOSYS)) != NULL ? " (a system call that the jail's seccomp filter lacks?)" : "");
}

void qemu_kill(void) {
  if (pid > 0) kill(pid, SIGKILL);
}
