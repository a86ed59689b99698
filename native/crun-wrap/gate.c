/*
 * build/hull-gate.so, loaded into crun before its own code (LD_PRELOAD): holds it, with all its libraries loaded and linked, until the daemon has made what it needs (root file system, network, config.json), and then lets it
 * go on where only cgroup v1 is seen (hybrid.h). So hull-monitor and crun are started while the daemon still works, and what their start takes is nobody's wait.
 *
 * HULL_GATE: the number of the pipe that the daemon writes one byte into. Its end without one (the start was called off, the daemon has died) ends crun before it has done anything: exit code 125. The monitor's death does so too
 * (PR_SET_PDEATHSIG, which it sets and exec keeps).
 */
#define _GNU_SOURCE
#include "hybrid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((noreturn)) static void leave(const char *what, const char *why) {
  fprintf(stderr, "hull-gate: %s: %s\n", what, why);
  _exit(125);
}

__attribute__((constructor)) static void wait_at_the_gate(void) {
  const char *text = getenv("HULL_GATE");
  if (text == NULL) return;
  char *end;
  long gate = strtol(text, &end, 10);
  if (end == text || *end != 0 || gate < 3 || gate > 1023) leave("HULL_GATE", "not a descriptor");
  char byte;
  ssize_t got;
  do got = read((int)gate, &byte, 1);
  while (got < 0 && errno == EINTR);
  if (got < 0) leave("read", strerror(errno));
  if (got == 0) leave("the container is not started", "called off");
  close((int)gate);
  unsetenv("HULL_GATE");
  unsetenv("HULL_GATE_LIBRARY");
  unsetenv("LD_PRELOAD");
  const char *failed = hide_unified();
  if (failed != NULL) leave(failed, strerror(errno));
}
