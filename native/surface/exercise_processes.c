#include "exercise.h"
#include "exercises.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 4
#define TURNS 50

/* A child that is made of this program, told something through a pipe, and waited for. */
static void child(void) {
  int to[2], from[2];
  if (pipe2(to, O_CLOEXEC) != 0) return;
  if (pipe2(from, O_CLOEXEC) != 0) {
    close(to[0]);
    close(to[1]);
    return;
  }
  pid_t pid = fork();
  if (pid == 0) {
    char byte;
    TRY(read(to[0], &byte, 1));
    TRY(write(from[1], "x", 1));
    TRY(setpgid(0, 0));
    dup2(from[1], 1);
    static char word[] = CHILD_WORD, *arguments[] = {word, word, NULL}, *environment[] = {NULL};
    execve("/proc/self/exe", arguments, environment);
    _exit(1);
  }
  close(to[0]);
  close(from[1]);
  if (pid > 0) {
    char byte;
    TRY(write(to[1], "x", 1));
    struct pollfd one = {.fd = from[0], .events = POLLIN};
    TRY(poll(&one, 1, 2000));
    fd_set set;
    FD_ZERO(&set);
    FD_SET(from[0], &set);
    TRY(select(from[0] + 1, &set, NULL, NULL, &(struct timeval){2, 0}));
    TRY(read(from[0], &byte, 1));
    TRY(read(from[0], &byte, 1)); /* its end */
    struct rusage used;
    TRY(wait4(pid, NULL, 0, &used));
  }
  close(to[1]);
  close(from[0]);
}

static void killed_child(void) {
  pid_t pid = fork();
  if (pid == 0) {
    for (;;) pause();
  }
  if (pid < 0) return;
  TRY(kill(pid, SIGSTOP));
  TRY(waitpid(pid, NULL, WUNTRACED));
  TRY(kill(pid, SIGKILL));
  TRY(waitpid(pid, NULL, 0));
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turned = PTHREAD_COND_INITIALIZER;
static int turn;
static struct timespec until; /* a filter may have killed one, or a limit kept it from being made: the others go on then */

static void *in_turn(void *number) {
  for (int n = 0; n < TURNS; n++) {
    pthread_mutex_lock(&mutex);
    while (turn % THREADS != (int)(long)number)
      if (pthread_cond_timedwait(&turned, &mutex, &until) != 0) break;
    turn++;
    pthread_cond_broadcast(&turned);
    pthread_mutex_unlock(&mutex);
  }
  return NULL;
}

static void threads(void) {
  pthread_t made[THREADS];
  long count = 0;
  turn = 0;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += 1;
  while (count < THREADS && pthread_create(&made[count], NULL, in_turn, (void *)count) == 0) count++;
  for (long n = 0; n < count; n++) pthread_join(made[n], NULL);
  sched_yield();
  cpu_set_t on;
  TRY(sched_getaffinity(0, sizeof on, &on));
}

static void on_signal(int number) { (void)number; }

static void signals(void) {
  struct sigaction action = {.sa_handler = on_signal}, before;
  sigset_t set, old;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  sigaction(SIGHUP, &action, &before);
  raise(SIGHUP);
  sigprocmask(SIG_BLOCK, &set, &old);
  TRY(kill(getpid(), SIGUSR2));
  TRY(sigtimedwait(&set, NULL, &(struct timespec){1, 0}));
  int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (fd >= 0) {
    struct signalfd_siginfo info;
    TRY(kill(getpid(), SIGUSR2));
    TRY(read(fd, &info, sizeof info));
    close(fd);
  }
  TRY(sigtimedwait(&set, NULL, &(struct timespec){0, 0})); /* if it could not be read there */
  sigprocmask(SIG_SETMASK, &old, NULL);
  sigaction(SIGHUP, &before, NULL);
}

void exercise_processes(void) {
  child();
  killed_child();
  threads();
  signals();
  struct rlimit limit;
  TRY(getrlimit(RLIMIT_NOFILE, &limit));
  TRY(getpriority(PRIO_PROCESS, 0));
  int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (event < 0) return;
  TRY(eventfd_write(event, 1));
  TRY(eventfd_read(event, &(eventfd_t){0}));
  close(event);
}
