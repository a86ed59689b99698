#include "exercises.h"

#include <poll.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

void exercise_time(void) {
  struct timespec now;
  /* Not libc's, which asks no kernel. */
  TRY(syscall(SYS_clock_gettime, CLOCK_REALTIME, &now));
  TRY(syscall(SYS_clock_gettime, CLOCK_PROCESS_CPUTIME_ID, &now));
  TRY(syscall(SYS_gettimeofday, &(struct timeval){0}, NULL));
  TRY(clock_getres(CLOCK_MONOTONIC, &now));
  for (int n = 0; n < 5; n++) nanosleep(&(struct timespec){0, 2000000}, NULL);
  clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){0, 1000000}, NULL);
  int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  if (timer < 0) return;
  uint64_t times;
  struct pollfd one = {.fd = timer, .events = POLLIN};
  if (timerfd_settime(timer, 0, &(struct itimerspec){.it_value = {0, 3000000}}, NULL) == 0 && poll(&one, 1, 1000) == 1) TRY(read(timer, &times, sizeof times));
  close(timer);
}
