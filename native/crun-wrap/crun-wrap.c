/*
 * crun-wrap FILE ARG…: runs an OCI runtime, FILE, with the arguments ARG (its name first), where only cgroup v1 is seen (hybrid.h).
 *
 * FILE and name are two things, since FILE is /proc/PID/fd/N: a sealed copy in memory that nobody can write to. crun sees that it is one, and does without copying itself (CVE-2019-5736) and a second exec.
 *
 * With HULL_GATE in the environment the runtime is loaded at once and goes on when it is told to: gate.c, whose path HULL_GATE_LIBRARY is, does then what is done here otherwise.
 *
 * Static, because a dynamic linker would cost more than all of that. Descriptors and parent stay as they were; errors go to stderr, exit code 125.
 */
#define _GNU_SOURCE
#include "hybrid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char *what) {
  fprintf(stderr, "crun-wrap: %s: %s\n", what, strerror(errno));
  return 125;
}

int main(int argc, char **argv) {
  if (argc < 3) {
    fputs("usage: crun-wrap FILE NAME ARG...\n", stderr);
    return 125;
  }
  const char *library = getenv("HULL_GATE_LIBRARY");
  if (library != NULL && getenv("HULL_GATE") != NULL) {
    /* The loader would go on without a library that is not there, and the runtime with it. */
    if (access(library, R_OK) < 0) return fail(library);
    if (setenv("LD_PRELOAD", library, 1) < 0) return fail("setenv");
  } else {
    const char *failed = hide_unified();
    if (failed != NULL) return fail(failed);
  }
  execv(argv[1], argv + 2);
  return fail(argv[1]);
}
