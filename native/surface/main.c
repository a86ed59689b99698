/*
 * hull-surface              one line of JSON: what of the kernel this process can reach; ends when stdin does, so that the host can look meanwhile
 *                           and does a workload for each line "go" (exercise.h)
 * hull-surface filter PID   one line of JSON: how many system calls that process may make, by its seccomp filters
 * hull-surface exercise     the workload alone, for each SIGUSR1
 * hull-surface functions    which functions of the kernel processes call (functions.h)
 */
#include "exercise.h"
#include "functions.h"
#include "surface.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int tell(int calls, const char *why) {
  printf("\"calls\":%d,\"why\":\"%s\"}\n", calls, why == NULL ? "" : why);
  return fflush(stdout) == 0 ? 0 : 1;
}

int main(int argc, char **argv) {
  const char *why = NULL;
  if (argc == 3 && strcmp(argv[1], "filter") == 0) {
    int calls = calls_of_process((pid_t)strtol(argv[2], NULL, 10), &why);
    putchar('{');
    return tell(calls, why);
  }
  if (argc > 1 && strcmp(argv[1], "functions") == 0) return functions(argc - 2, argv + 2);
  if (argc == 2 && strcmp(argv[1], CHILD_WORD) == 0) return 0;
  if (argc == 2 && strcmp(argv[1], "exercise") == 0) {
    exercise_when_signalled();
    return 1;
  }
  if (argc > 1) {
    fprintf(stderr, "usage: hull-surface [filter PID | exercise | functions PID...]\n");
    return 2;
  }
  int calls = reachable_calls(&why);
  putchar('{');
  look();
  int failed = tell(calls, why);
  exercise_when_told();
  return failed;
}
