#include "functions.h"
#include "instance.h"
#include "symbols.h"
#include "tally.h"
#include "threads.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST_ROOTS 64
#define MOST_KIB (1 << 20)
/* The greatest that a reader's page can be (buffer_subbuf_size_kb). */
#define LARGEST_PAGE (256 << 10)
#define LOOK_EVERY_MS 5
/* Of one processor at one look: who can be traced may be faster than we read, and there are others to listen to. */
#define PAGES_A_LOOK 4096

static int give_up(const char *why) {
  fprintf(stderr, "%s\n", why);
  return 1;
}

static char *read_whole(const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return NULL;
  size_t length = 0, room = 1 << 20;
  char *text = malloc(room);
  for (ssize_t n; text != NULL && (n = read(fd, text + length, room - length - 1)) > 0;) {
    length += (size_t)n;
    if (length < room - 1) continue;
    char *more = realloc(text, room *= 2);
    if (more == NULL) free(text);
    text = more;
  }
  close(fd);
  if (text != NULL) text[length] = 0;
  return text;
}

struct tracing {
  struct instance instance;
  struct tally tally;
  struct lane lanes[MOST_PROCESSORS];
  uint8_t page[LARGEST_PAGE];
  bool lost, malformed;
};

/* Reads what is there, of each processor so many pages at most. */
static void drain(struct tracing *tracing, size_t most) {
  for (size_t cpu = 0; cpu < tracing->instance.processors; cpu++) {
    for (size_t pages = 0; pages < most && !tracing->malformed; pages++) {
      long n = instance_read(&tracing->instance, cpu, tracing->page, sizeof tracing->page);
      if (n <= 0) break;
      if (!page_calls(&tracing->instance.layout, tracing->page, (size_t)n, tally_call, &tracing->lanes[cpu], &tracing->lost)) tracing->malformed = true;
    }
  }
}

static pid_t spawn(char **command, const sigset_t *signals) {
  pid_t child = fork();
  if (child != 0) return child;
  sigprocmask(SIG_SETMASK, signals, NULL);
  signal(SIGPIPE, SIG_DFL);
  dup2(2, 1); /* the names are alone there */
  execvp(command[0], command);
  fprintf(stderr, "%s: %s\n", command[0], strerror(errno));
  _exit(127);
}

/* Until the end of what is waited for. 0, 130: a signal came first; 1: the command failed. */
static int watch(struct tracing *tracing, int signals, pid_t child) {
  struct pollfd sources[] = {{.fd = signals, .events = POLLIN}, {.fd = child > 0 ? -1 : 0, .events = POLLIN}};
  for (;;) {
    drain(tracing, PAGES_A_LOOK);
    if (poll(sources, 2, LOOK_EVERY_MS) <= 0) continue;
    struct signalfd_siginfo info;
    if (sources[0].revents && read(signals, &info, sizeof info) == sizeof info && info.ssi_signo != SIGCHLD) return 130;
    int status;
    if (child > 0 && waitpid(child, &status, WNOHANG) == child) return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : 1;
    char bytes[256];
    if (sources[1].revents && read(0, bytes, sizeof bytes) <= 0) return 0;
  }
}

static int by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static int tell(const struct tally *tally) {
  const char **names = calloc(tally->count + 1, sizeof *names);
  if (names == NULL) return give_up("there is no memory");
  size_t count = 0;
  for (size_t at = 0; at < 2 * MOST_FUNCTIONS; at++)
    if (tally->addresses[at] != 0) names[count++] = symbol_name(tally->symbols, tally->addresses[at]);
  qsort(names, count, sizeof *names, by_name);
  for (size_t i = 0; i < count; i++) puts(names[i]);
  free(names);
  return fflush(stdout) == 0 ? 0 : 1;
}

static bool roots_of(char *text, pid_t *roots, size_t *count) {
  *count = 0;
  for (char *word; (word = strsep(&text, ",")) != NULL;) {
    char *end;
    long pid = strtol(word, &end, 10);
    if (*word < '1' || *word > '9' || *end != 0 || pid > 1 << 22 || *count == MOST_ROOTS) return false;
    roots[(*count)++] = (pid_t)pid;
  }
  return *count > 0;
}

int functions(int argc, char **argv) {
  static struct tracing tracing;
  pid_t roots[MOST_ROOTS];
  size_t root_count, kib = 0;
  if (argc >= 2 && strcmp(argv[0], "-b") == 0) {
    kib = strtoul(argv[1], NULL, 10);
    argv += 2, argc -= 2;
    if (kib < 1 || kib > MOST_KIB) argc = 0;
  }
  if (argc < 1 || !roots_of(argv[0], roots, &root_count)) {
    fprintf(stderr, "usage: hull-surface functions [-b KIB] PID[,PID...] [COMMAND...]\n");
    return 2;
  }
  sigset_t set, before;
  sigemptyset(&set);
  for (size_t i = 0; i < 4; i++) sigaddset(&set, (const int[]){SIGINT, SIGTERM, SIGHUP, SIGCHLD}[i]);
  sigprocmask(SIG_BLOCK, &set, &before);
  signal(SIGPIPE, SIG_IGN);
  int signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);

  struct symbols symbols;
  char *text = read_whole("/proc/kallsyms");
  if (text == NULL || !symbols_read(&symbols, text) || !tally_make(&tracing.tally, &symbols)) return give_up("/proc/kallsyms cannot be read");
  for (size_t cpu = 0; cpu < MOST_PROCESSORS; cpu++) tracing.lanes[cpu].tally = &tracing.tally;

  struct threads threads = {0};
  const char *why = instance_make(&tracing.instance, &kib);
  if (why == NULL && symbols.count == 0) why = "this host's kernel hides the names of its functions (sysctl kernel.kptr_restrict)";
  if (why == NULL) why = instance_start(&tracing.instance, roots, root_count, &threads);
  int code = 1;
  bool lost = false;
  if (why == NULL) {
    fprintf(stderr, "tracing %zu threads\n", threads.count);
    pid_t child = argc > 1 ? spawn(argv + 1, &before) : 0;
    if (child < 0) why = "the command cannot be started";
    else code = watch(&tracing, signals, child);
    instance_stop(&tracing.instance);
    if (child > 0 && code == 130) kill(child, SIGTERM);
    drain(&tracing, SIZE_MAX);
    lost = tracing.lost || instance_lost(&tracing.instance) > 0;
  }
  bool gone = instance_remove(&tracing.instance);
  if (!gone) fprintf(stderr, "an instance of the kernel's tracer could not be removed; the next call tries again\n");
  if (why != NULL) return give_up(why);
  if (code == 130) return code;
  if (code != 0) return give_up("the command failed");
  if (tracing.malformed) return give_up("the tracer's buffer is of a form that is not known here");
  if (tracing.tally.full) return give_up("there are more functions than are counted here");
  code = tell(&tracing.tally);
  if (code == 0 && lost) {
    fprintf(stderr, "events were lost: buffers of %zu KiB are too small\n", kib);
    return 3;
  }
  return code;
}
