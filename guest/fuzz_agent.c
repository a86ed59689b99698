/* The agent between a broken supervisor and a workload that writes at random, with AddressSanitizer and UndefinedBehaviorSanitizer.
 *   fuzz_agent FRAMES [SEED]
 * Each life is the whole agent with its own loop; what needs a guest (boot, the network, disks, cgroups, namespaces) is taken from it by --wrap, so that everything that
 * parses, queues and keeps books is the real thing. The link is a socket pair; the parent says SEED, CONFIG, RUN and then EXEC, QUERY, STDIN, WINDOW, RESIZE, SIGNAL, CLOSE …
 * with fields, lengths, order and bytes that the seed changes. A process that "runs" is a fork that writes, reads and ends at random. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"
#include "fuzz.h"

#define REFUSED 7 /* die(): how the agent ends for a link that is no good */

int hull_agent_main(int argc, char **argv);

static int port_fd;
static unsigned long long *frames;

/* ---- what a guest would have ---- */
int __wrap_boot(void);
int __wrap_boot(void) { return port_fd; }
void __wrap_die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void __wrap_die(const char *format, ...) {
  char text[600];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  _exit(REFUSED);
}
void __wrap_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void __wrap_say(const char *format, ...) { (void)format; }
bool __wrap_seed(const uint8_t *payload, uint32_t size);
bool __wrap_seed(const uint8_t *payload, uint32_t size) {
  uint8_t copy[76];
  if (size != sizeof copy) return false;
  memcpy(copy, payload, size);
  return true;
}
bool __wrap_net_up(const struct config *c, char *message);
bool __wrap_net_up(const struct config *c, char *message) { return strcmp(c->net, "x") != 0 || fail(message, "no network"); }
bool __wrap_cgroup_setup(const struct config *c, char *message);
bool __wrap_cgroup_setup(const struct config *c, char *message) { (void)c, (void)message; return true; }
bool __wrap_root_mount(const struct config *c, char *message);
bool __wrap_root_mount(const struct config *c, char *message) { (void)c, (void)message; return true; }
bool __wrap_shares_mount(const struct config *c, char *message);
bool __wrap_shares_mount(const struct config *c, char *message) { (void)c, (void)message; return true; }
bool __wrap_socket_known(uint32_t index);
bool __wrap_socket_known(uint32_t index) { return index < 3; }
bool __wrap_sockets_listen(const struct config *c, char *message);
bool __wrap_sockets_listen(const struct config *c, char *message) { (void)c, (void)message; return true; }
/* The guest connects wherever the host waits. */
void __wrap_sockets_update(void);
void __wrap_sockets_update(void) {
  for (uint32_t index = 0; index < 3; index++) {
    int pair[2];
    if (!session_waits(index) || below(4) != 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) continue;
    char bytes[3000] = "from the guest";
    if (write(pair[1], bytes, below(sizeof bytes)) < 0) { /* full */
    }
    if (below(2) == 0) close(pair[1]);
    session_connected(index, pair[0]);
  }
}
void __wrap_net_down(void);
void __wrap_net_down(void) {}
bool __wrap_cgroup_renew(char *message);
bool __wrap_cgroup_renew(char *message) { return below(20) != 0 || fail(message, "no cgroup"); }
int __wrap_unshare(int flags);
int __wrap_unshare(int flags) { (void)flags; return 0; }
void __wrap_root_unmount(void);
void __wrap_root_unmount(void) {}
void __wrap_root_leave(void);
void __wrap_root_leave(void) {}
void __wrap_cgroup_kill(void);
void __wrap_cgroup_kill(void) {}
bool __wrap_cgroup_oom(void);
bool __wrap_cgroup_oom(void) { return below(2) == 0; }
void __wrap_pressure_watch(void);
void __wrap_pressure_watch(void) {}
void __wrap_files_freeze(bool on);
void __wrap_files_freeze(bool on) { (void)on; }
void __wrap_sync(void);
void __wrap_sync(void) {}
void __wrap_query_network(struct bytes *out, const char *text, size_t size);
void __wrap_query_network(struct bytes *out, const char *text, size_t size) { bytes_put(out, text, size); }

static void workload(int in, int out, int err, int report) {
  static char bytes[70000];
  struct report r = {.what = below(12) == 0 ? 'F' : 'X', .code = 126};
  if (below(30) != 0) send(report, &r, below(40) == 0 ? 3 : sizeof r, MSG_NOSIGNAL);
  close(report);
  for (uint32_t n = below(12); n > 0 && r.what == 'X'; n--) {
    fcntl(out, F_SETFL, O_NONBLOCK);
    if (write(below(3) == 0 ? err : out, bytes, below(5) == 0 ? sizeof bytes : below(500)) < 0) { /* full */
    }
    if (below(3) == 0 && in >= 0 && read(in, bytes, sizeof bytes) < 0) { /* none yet */
    }
    usleep(below(300));
  }
  _exit((int)below(256));
}

bool __wrap_spawn(const struct spec *spec, int container, struct started *out, int *code, char *message);
bool __wrap_spawn(const struct spec *spec, int container, struct started *out, int *code, char *message) {
  (void)container;
  int in[2], output[2], error[2], report[2];
  if (below(25) == 0) return *code = 126, fail(message, "exec: \"%.300s\": no", spec->args[0]);
  CHECK(pipe2(in, O_CLOEXEC | O_NONBLOCK) == 0 && pipe2(output, O_CLOEXEC | O_NONBLOCK) == 0 && pipe2(error, O_CLOEXEC | O_NONBLOCK) == 0);
  CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, report) == 0);
  uint64_t seed = any();
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    setsid();
    check_seed(seed);
    close(report[0]);
    close(in[1]), close(output[0]), close(error[0]);
    workload(in[0], output[1], error[1], report[1]);
  }
  close(in[0]), close(output[1]), close(error[1]), close(report[1]);
  *out = (struct started){.pid = pid, .pidfd = (int)syscall(SYS_pidfd_open, pid, 0), .report = report[0], .in = in[1], .out = output[0], .err = error[0]};
  if (!spec->in) close(out->in), out->in = -1;
  return true;
}
bool __wrap_spawn_files(const struct spec *spec, int container, struct started *out, int *code, char *message);
bool __wrap_spawn_files(const struct spec *spec, int container, struct started *out, int *code, char *message) {
  return __wrap_spawn(spec, container, out, code, message);
}

/* ---- the supervisor ---- */
static bool say_frame(int fd, uint8_t type, uint32_t stream, const void *payload, size_t size, uint32_t odds) {
  static uint8_t frame[FRAME_HEADER + FRAME_MAX], scratch[65536];
  size_t total = fuzz_frame_make(frame, type, stream, payload, size, odds);
  __atomic_add_fetch(frames, 1, __ATOMIC_RELAXED);
  const uint8_t *data = frame;
  for (int idle = 0; total > 0 && idle < 20;) {
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
    if (poll(&p, 1, 5) <= 0 || (p.revents & (POLLIN | POLLOUT)) == 0) idle++;
    if ((p.revents & POLLIN) != 0 && below(8) != 0) { /* what it says is not looked at, but taken: a link that nobody reads stands still, as it should */
      ssize_t n = read(fd, scratch, sizeof scratch);
      if (n == 0) return false;
    }
    if ((p.revents & (POLLERR | POLLHUP)) != 0) return false;
    if ((p.revents & POLLOUT) == 0) continue;
    ssize_t n = write(fd, data, below(6) == 0 ? 1 + below((uint32_t)total) : total);
    if (n < 0 && errno != EAGAIN) return false;
    if (n <= 0) continue;
    data += n;
    total -= (size_t)n;
  }
  return true;
}

static void play_supervisor(int fd) {
  static char text[FRAME_MAX];
  uint32_t odds = below(3) == 0 ? 20 : 200;
  if (below(40) != 0 && !say_frame(fd, F_SEED, 0, text, 76, odds)) return;
  size_t size = text_put(text, 0, sizeof text, "net", below(30) == 0 ? "x" : "none");
  size = text_put(text, size, sizeof text, "memory", below(20) == 0 ? fuzz_number() : "0");
  for (uint32_t n = below(5); n > 0; n--) size = text_put(text, size, sizeof text, below(2) == 0 ? "mount" : "sysctl", "tmpfs:size=1m:/tmp");
  if (below(4) == 0) { /* a machine that is made ahead; sometimes it is told so twice */
    size_t both = text_put(text, size, sizeof text, "arg", "--rehearsal");
    for (uint32_t n = below(30) == 0 ? 2 : 1; n > 0; n--)
      if (!say_frame(fd, F_REHEARSE, 0, text, both, odds)) return;
    static char again[76];
    if (below(10) != 0 && !say_frame(fd, F_SEED, 0, again, sizeof again, odds)) return;
  }
  if (!say_frame(fd, F_CONFIG, 0, text, size, odds)) return;
  size = text_put(text, 0, sizeof text, "arg", "/bin/sh");
  if (!say_frame(fd, F_RUN, 1, text, text_put(text, size, sizeof text, "stdin", "1"), odds)) return;
  static const uint8_t said[] = {F_EXEC, F_EXEC, F_QUERY, F_STDIN, F_STDIN, F_STDIN_EOF, F_RESIZE, F_SIGNAL, F_WINDOW, F_WINDOW, F_CLOSE, F_ACCEPT};
  uint32_t next = 2;
  for (uint32_t n = below(400); n > 0; n--) {
    uint8_t type = below(400) == 0 ? (uint8_t)any() : said[below(sizeof said)];
    bool opens = type == F_EXEC || type == F_QUERY || type == F_ACCEPT;
    uint32_t stream = opens && below(300) != 0 ? next++ : 1 + below(next);
    size = fuzz_payload(text, sizeof text, type);
    if (type == F_STDIN && size > 3000) size %= 3000; /* else most lives end here: more than the window is refused */
    if (type == F_SIGNAL) size = text_put(text, 0, sizeof text, "signal", below(8) == 0 ? fuzz_number() : "28");
    if (type == F_WINDOW) size = 4;
    if (!say_frame(fd, type, stream, text, size, odds)) return;
    if (below(12) == 0) usleep(300);
  }
  if (below(3) == 0) say_frame(fd, F_HALT, 0, "", 0, odds);
}

static void one_life(uint64_t seed) {
  check_seed(seed);
  int pair[2], status;
  CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    close(pair[0]);
    port_fd = pair[1];
    check_seed(seed ^ 0x9e3779b97f4a7c15ull);
    alarm(20);
    char *args[] = {"agent", NULL};
    exit(hull_agent_main(1, args));
  }
  close(pair[1]);
  play_supervisor(pair[0]);
  close(pair[0]); /* the agent sees its host go, and ends */
  CHECK(waitpid(pid, &status, 0) == pid);
  if (WIFEXITED(status) && WEXITSTATUS(status) == REFUSED) return;
  fprintf(stderr, "seed %llu: wait status %#x\n", (unsigned long long)seed, (unsigned)status);
  exit(1);
}

int main(int argc, char **argv) {
  uint64_t wanted, seed = fuzz_arguments(argc, argv, "fuzz_agent", &wanted);
  frames = mmap(NULL, sizeof *frames, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(frames != MAP_FAILED);
  /* What is not wrapped must not be able to do anything to this machine. */
  if (geteuid() == 0) CHECK(setgid(65534) == 0 && setuid(65534) == 0);
  signal(SIGPIPE, SIG_IGN);
  unsigned long long lives = 0;
  for (; *frames < wanted; lives++) one_life(seed + lives);
  printf("agent: %llu frames in %llu lives, nothing found\n", *frames, lives);
  return 0;
}
