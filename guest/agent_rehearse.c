/* REHEARSE: everything that the start of a workload goes through, with nobody's data, before anybody waits for it. A machine that has done it once does it again
 * in a third of the time: in emulation its code is translated, with KVM its memory is in place, and the kernel knows the file systems.
 * It is done by a child with a mount namespace of its own, so what is left of it is warm caches, an empty cgroup and nobody's lines in the files over /etc, which the container's own take the place of; no program of the image's runs.
 * A process that waits for a container (agent_waiting.c) ends before: it would be older than its container by as long as the machine has waited, and what it saves a warm machine does not need. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"

int unshare(int flags);

/* Until the process has ended and said all it had to say. */
static bool watch_process(struct started *s, char *message) {
  struct report r;
  bool execed = false;
  int status;
  struct pollfd p = {.fd = s->report, .events = POLLIN};
  while (poll(&p, 1, -1) > 0 || errno == EINTR) {
    ssize_t n = read(s->report, &r, sizeof r);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (n != sizeof r) break;
    r.message[MESSAGE_MAX - 1] = 0;
    if (r.what == 'F') return fail(message, "%s", r.message);
    if (r.what == 'X') execed = true;
  }
  if (waitpid(s->pid, &status, 0) < 0) return fail(message, "wait: %s", strerror(errno));
  return (execed && WIFEXITED(status) && WEXITSTATUS(status) == 0) || fail(message, "the rehearsed program ended with status %d", status);
}

static bool play(char *text, size_t size, char *message) {
  struct spec spec;
  struct started started;
  int code;
  char *copy = malloc(size + 1);
  if (copy == NULL) return fail(message, "out of memory");
  memcpy(copy, text, size);
  if (unshare(CLONE_NEWNS) < 0) return fail(message, "mount namespace: %s", strerror(errno));
  if (!configure(text, size, message) || !spec_parse(&spec, copy, size, message)) return false;
  spec.rehearsal = true;
  bool ok = spawn(&spec, -1, &started, &code, message) && watch_process(&started, message);
  cgroup_kill();
  net_down();
  root_leave();
  return ok;
}

bool rehearse(char *text, size_t size, char *message) {
  char *told = mmap(NULL, MESSAGE_MAX, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (told == MAP_FAILED) return fail(message, "out of memory");
  int status = -1;
  waiting_drop();
  pid_t pid = fork();
  if (pid == 0) _exit(play(text, size, told) ? 0 : 1);
  if (pid < 0) fail(told, "fork: %s", strerror(errno));
  else
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
  free(text);
  bool ok = pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  if (!ok) fail(message, "rehearsal: %.900s", told[0] == 0 ? "its process died" : told);
  munmap(told, MESSAGE_MAX);
  /* Counters and limits of the rehearsal are nobody's. */
  return ok && cgroup_renew(message);
}
