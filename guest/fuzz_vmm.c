/* hull-vmm between a hostile guest and a broken client, with AddressSanitizer and UndefinedBehaviorSanitizer.
 *   fuzz_vmm FRAMES [SEED]
 * Each life is the whole program: its main, its loop, its sockets. In the place of QEMU (execvp is wrapped) a process of ours has the link, and says what an agent says
 * (HELLO, SEEDED, READY, STARTED, output, EXIT …), and what QEMU says by QMP, with fields, lengths, order and bytes that the seed changes; the parent does the same at ctl.sock. What must hold: no report of
 * a sanitizer, an end in time, and a status file. FRAMES counts what both have sent. Needs a directory in memory: TMPDIR or /dev/shm. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sanitizer/common_interface_defs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bytes.h"
#include "fuzz.h"
#include "loop.h"

#define CLIENTS 6
#define FASTER 50 /* its second is 20 ms of ours */

int hull_vmm_main(int argc, char **argv);
int64_t __real_now_ms(void);
int64_t __wrap_now_ms(void);
void __real_loop_once(int timeout_ms);
void __wrap_loop_once(int timeout_ms);
int __wrap_execvp(const char *file, char *const argv[]);
bool __wrap_landlock_qemu(char *const args[]);
bool __wrap_landlock_self(void);

static unsigned long long *frames; /* shared by all processes */

/* What plays QEMU goes on with our files, and so do the sanitizers. */
bool __wrap_landlock_qemu(char *const args[]) { return args != NULL; }
bool __wrap_landlock_self(void) { return true; }

int64_t __wrap_now_ms(void) { return __real_now_ms() * FASTER; }
void __wrap_loop_once(int timeout_ms) { __real_loop_once(timeout_ms < 0 ? -1 : timeout_ms / FASTER + 1); }

/* Streams that the supervisor has opened, as the guest hears it: what it says on others would end most lives at once. */
static uint32_t newest_stream;
static struct bytes heard = {.max = 4 * (FRAME_HEADER + FRAME_MAX)};

static void hear(const uint8_t *data, size_t size) {
  if (!bytes_put(&heard, data, size)) return;
  struct frame f;
  for (int taken; (taken = frame_parse(bytes_head(&heard), heard.length, &f)) > 0; bytes_drop(&heard, (size_t)taken))
    if (f.stream > newest_stream) newest_stream = f.stream;
}

/* Writes what is taken within a moment; reads away what comes. False: the other side is gone. */
static bool say_to(int fd, const uint8_t *data, size_t size) {
  static uint8_t scratch[65536];
  for (int idle = 0; size > 0 && idle < 20;) {
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
    if (poll(&p, 1, 5) <= 0) {
      idle++;
      continue;
    }
    if ((p.revents & POLLHUP) != 0 || ((p.revents & POLLIN) != 0 && (fd == 20 || below(6) == 0))) { /* a client reads slowly */
      ssize_t n = read(fd, scratch, sizeof scratch);
      if (n == 0 || (n < 0 && errno != EAGAIN)) return false;
      if (n > 0 && fd == 20) hear(scratch, (size_t)n);
    }
    if ((p.revents & POLLOUT) == 0) {
      if ((p.revents & POLLIN) == 0) idle++;
      continue;
    }
    size_t piece = below(6) == 0 ? 1 + below(40) : size;
    ssize_t n = write(fd, data, piece < size ? piece : size);
    if (n < 0 && errno != EAGAIN) return false;
    if (n <= 0) continue;
    data += n;
    size -= (size_t)n;
  }
  return true;
}

static bool say_frame(int fd, uint8_t type, uint32_t stream, const void *payload, size_t size, uint32_t odds) {
  static uint8_t frame[FRAME_HEADER + FRAME_MAX];
  size_t total = fuzz_frame_make(frame, type, stream, payload, size, odds);
  __atomic_add_fetch(frames, 1, __ATOMIC_RELAXED);
  return say_to(fd, frame, total);
}

/* What QEMU says to the supervisor that has it load a template: lines, some of them changed. */
static void play_qmp(int fd) {
  static const char *greeting = "{\"QMP\": {\"version\": {}}}\r\n", *events[] = {"{\"return\": {}}\r\n", "{\"timestamp\": {}, \"event\": \"STOP\"}\r\n", "{\"error\": {\"class\": \"x\", \"desc\": \"no\033 such\\\" file\"}}\r\n", "\n", "{\"error\":\n", "{\"return\":"};
  char text[400];
  fcntl(fd, F_SETFL, O_NONBLOCK);
  for (uint32_t n = 0; n < 5 + below(3); n++) {
    size_t size = (size_t)snprintf(text, sizeof text, "%s", n == 0 ? greeting : events[below(12) == 0 ? below(6) : 0]);
    for (uint32_t changes = below(25) == 0 ? 1 + below(4) : 0; changes > 0; changes--) text[below((uint32_t)size)] = (char)any();
    __atomic_add_fetch(frames, 1, __ATOMIC_RELAXED);
    if (!say_to(fd, (const uint8_t *)text, size)) return;
  }
  if (below(60) != 0) return;
  memset(text, 'x', sizeof text); /* a line without an end */
  for (uint32_t n = 0; n < 60; n++)
    if (!say_to(fd, (const uint8_t *)text, sizeof text)) return;
}

/* What an agent says, mostly in the right order. `odds`: one in so many frames is changed. */
static void play_guest(int fd, bool restored, bool ahead) {
  static char text[FRAME_MAX];
  uint32_t odds = below(3) == 0 ? 3 : 40;
  fcntl(fd, F_SETFL, O_NONBLOCK);
  size_t size = text_put(text, 0, sizeof text, "proto", "3");
  if (!restored && !say_frame(fd, F_HELLO, 0, text, size, odds)) return;
  struct pollfd seed = {.fd = fd, .events = POLLIN};
  if (below(20) != 0) poll(&seed, 1, 50);
  size = text_put(text, 0, sizeof text, "kernel", "6.1.0");
  size = text_put(text, size, sizeof text, "bootid", "x\033[2J");
  if (below(20) != 0 && !say_frame(fd, F_SEEDED, 0, text, size, odds)) return;
  if (ahead) {
    if (below(20) != 0 && !say_frame(fd, F_REHEARSED, 0, "", 0, odds)) return;
    poll(&seed, 1, (int)below(50)); /* the claim */
    if (below(20) != 0 && !say_frame(fd, F_SEEDED, 0, text, size, odds)) return;
  }
  if (below(20) != 0 && !say_frame(fd, F_READY, 0, "", 0, odds)) return;
  if (below(20) == 0) {
    size = text_put(text, 0, sizeof text, "code", "127");
    say_frame(fd, F_FAILED, below(2), text, text_put(text, size, sizeof text, "message", "exec: no such file"), odds);
    say_frame(fd, F_REPLY, 0, "", 0, odds);
    return;
  }
  if (below(20) != 0 && !say_frame(fd, F_STARTED, 1, text, text_put_number(text, 0, sizeof text, "pid", 5), odds)) return;
  static const uint8_t said[] = {F_STDOUT, F_STDERR, F_STDOUT, F_WINDOW, F_STARTED, F_REPLY, F_FAILED, F_EXIT};
  for (uint32_t n = below(120); n > 0; n--) {
    uint32_t stream = newest_stream < 2 || below(3) == 0 ? 1 : newest_stream - below(newest_stream - 1 < CLIENTS ? newest_stream - 1 : CLIENTS);
    if (below(300) == 0) stream = any();
    uint8_t type = below(300) == 0 ? (uint8_t)any() : said[below(stream == 1 ? 4 : sizeof said)];
    size = fuzz_payload(text, sizeof text, type);
    for (uint32_t burst = below(12) == 0 && (type == F_STDOUT || type == F_STDERR) ? below(60) : 1; burst > 0; burst--)
      if (!say_frame(fd, type, stream, text, size, odds)) return;
    if (below(3) == 0) usleep(200); /* the clients have their say */
  }
  size = text_put_number(text, 0, sizeof text, "code", below(300));
  if (below(4) != 0) say_frame(fd, F_EXIT, 1, text, text_put(text, size, sizeof text, "oom", "0"), odds);
}

int __wrap_execvp(const char *file, char *const argv[]) {
  (void)file;
  check_seed(strtoull(argv[1], NULL, 10) ^ 0x9e3779b97f4a7c15ull);
  bool restored = strcmp(argv[2], "restored") == 0;
  if (restored) play_qmp(21);
  play_guest(20, restored, strcmp(argv[3], "ahead") == 0);
  if (below(3) == 0) dprintf(1, "qemu: %.*s\n", (int)below(40), "a word of the emulator\n that goes on and on");
  _exit((int)below(3));
}

/* `session`: the client has asked for one. */
static void play_client(int fd, bool *session) {
  static char text[FRAME_MAX];
  static const uint8_t first[] = {F_EXEC, F_EXEC, F_EXEC, F_ACCEPT, F_QUERY, F_QUERY, F_WAIT_START, F_CLAIM, F_SIGNAL, F_RESIZE_MAIN};
  static const uint8_t then[] = {F_STDIN, F_STDIN, F_STDIN, F_STDIN_EOF, F_RESIZE, F_SIGNAL, F_WINDOW, F_WINDOW, F_EXEC};
  uint8_t type = *session ? then[below(sizeof then)] : first[below(sizeof first)];
  if (below(60) == 0) type = below(2) == 0 ? F_CLOSE : (uint8_t)any();
  if (type == F_EXEC || type == F_ACCEPT) *session = true;
  size_t size = fuzz_payload(text, sizeof text, type);
  if (type == F_STDIN) size %= 4000;
  say_frame(fd, type, 0, text, size, 60); /* an EXEC may say that more follows */
}

static void make_file(const char *name, uint8_t type, uint32_t stream, const char *key) {
  uint8_t frame[FRAME_HEADER + 100];
  char text[100];
  size_t size = text_put(text, 0, sizeof text, key, "1");
  frame_header(frame, type, 0, stream, (uint32_t)size);
  memcpy(frame + FRAME_HEADER, text, size);
  int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  CHECK(fd >= 0 && write(fd, frame, FRAME_HEADER + size) == (ssize_t)(FRAME_HEADER + size));
  close(fd);
}

static void one_life(uint64_t seed) {
  check_seed(seed);
  char number[32];
  snprintf(number, sizeof number, "%llu", (unsigned long long)seed);
  int standard[2];
  CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, standard) == 0);
  unlink("status");
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    /* Every third machine is a clone of a template: its state and its memory are two descriptors. Every fifth is made ahead. */
    bool restored = seed % 3 == 0, ahead = seed % 5 == 0;
    char *args[] = {"hull-vmm", "--dir", ".", "--boot-timeout", "5", "--ahead", ahead ? "1" : "0", "--restore", restored ? "10" : "0", "--", "qemu", number, restored ? "restored" : "", ahead ? "ahead" : "", NULL};
    dup2(standard[1], 10);
    dup2(standard[1], 11);
    dup2(standard[1], 0);
    dup2(standard[1], 1);
    __sanitizer_set_report_fd((void *)(intptr_t)fcntl(2, F_DUPFD_CLOEXEC, 100)); /* 2 is the workload's */
    dup2(standard[1], 2);
    exit(hull_vmm_main(14, args));
  }
  close(standard[1]);
  fcntl(standard[0], F_SETFL, O_NONBLOCK);
  int clients[CLIENTS], status = 0;
  bool sessions[CLIENTS];
  memset(clients, -1, sizeof clients);
  bool gone = false;
  int64_t end = __real_now_ms() + 10000;
  static uint8_t scratch[65536];
  for (uint32_t turn = 0; !gone; turn++) {
    gone = waitpid(pid, &status, WNOHANG) == pid;
    if (__real_now_ms() > end) {
      fprintf(stderr, "seed %llu: no end in time\n", (unsigned long long)seed);
      kill(pid, SIGKILL);
      abort();
    }
    if (turn % 8 == 0)
      while (read(standard[0], scratch, sizeof scratch) > 0) {
      }
    if (below(8) == 0 && write(standard[0], scratch, below(4000)) < 0) { /* the workload's stdin */
    }
    uint32_t which = below(CLIENTS);
    if (clients[which] < 0) {
      struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "ctl.sock"};
      int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
      if (connect(fd, (struct sockaddr *)&name, sizeof name) == 0) clients[which] = fd, sessions[which] = false;
      else close(fd), usleep(100);
    } else if (below(60) == 0) {
      close(clients[which]);
      clients[which] = -1;
    } else if (turn < 400) {
      play_client(clients[which], &sessions[which]);
    } else { /* only listens from now on */
      for (int i = 0; i < CLIENTS; i++) {
        if (clients[i] >= 0 && read(clients[i], scratch, sizeof scratch) == 0) close(clients[i]), clients[i] = -1;
      }
      usleep(200);
    }
  }
  for (int i = 0; i < CLIENTS; i++)
    if (clients[i] >= 0) close(clients[i]);
  close(standard[0]);
  if (!WIFEXITED(status) || access("status", F_OK) < 0) {
    fprintf(stderr, "seed %llu: wait status %#x%s\n", (unsigned long long)seed, status, access("status", F_OK) < 0 ? ", no status file" : "");
    exit(1);
  }
}

int main(int argc, char **argv) {
  uint64_t wanted, seed = fuzz_arguments(argc, argv, "fuzz_vmm", &wanted);
  frames = mmap(NULL, sizeof *frames, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(frames != MAP_FAILED);
  char dir[200];
  snprintf(dir, sizeof dir, "%s/fuzz-vmm-XXXXXX", getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/dev/shm");
  CHECK(mkdtemp(dir) != NULL && chdir(dir) == 0);
  signal(SIGPIPE, SIG_IGN);
  make_file("config.frames", F_CONFIG, 0, "net");
  make_file("run.frames", F_RUN, 1, "stdin");
  make_file("rehearse.frames", F_REHEARSE, 0, "net");
  unsigned long long lives = 0;
  for (; *frames < wanted; lives++) one_life(seed + lives);
  static const char *files[] = {"config.frames", "run.frames", "rehearse.frames", "status", "qemu.log", "ctl.sock"};
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) unlink(files[i]);
  CHECK(chdir("/") == 0 && rmdir(dir) == 0);
  printf("hull-vmm: %llu frames in %llu lives, nothing found\n", *frames, lives);
  return 0;
}
