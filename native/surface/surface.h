#ifndef HULL_SURFACE_H
#define HULL_SURFACE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct sock_filter;

/* x86_64's numbers of system calls end before this; what a newer kernel has beyond is not counted. */
#define CALLS 463

/* A call that kernels of today have: not one of the holes between the old numbers and those that all architectures share, nor one whose code is long gone. */
bool is_call(int number);

/* How many of the system calls the seccomp filters around us let through, by trying each without its effect; -1: it cannot be told, and why. */
int reachable_calls(const char **why);

/* The same for another process, read from the filters themselves; needs CAP_SYS_ADMIN and CAP_SYS_PTRACE. Stops it for a moment. */
int calls_of_process(pid_t pid, const char **why);

#define LONGEST_FILTER 4096 /* BPF_MAXINSNS */

/* Whether a filter lets a call through with some arguments. `length` of at most LONGEST_FILTER. What is no program that the kernel would take lets nothing through where it ends. */
bool filter_passes(const struct sock_filter *rules, size_t length, int number);

/* Prints what else can be seen from in here, as members of a JSON object. */
void look(void);

#endif
