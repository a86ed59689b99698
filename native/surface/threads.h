#ifndef HULL_THREADS_H
#define HULL_THREADS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct threads {
  pid_t *all;
  size_t count, room;
};

/*
 * All threads of these processes and of all below them, and the kernel's threads that serve them alone (vhost-PID, kvm-…-PID). Those that are in `threads` already are not added again, and
 * this process is none of them: it would trace its own reading of the trace, and never come to its end.
 * How many were added; -1: no memory, or no /proc.
 */
int threads_of(const pid_t *roots, size_t count, struct threads *threads);

#endif
