#pragma once
/* hull-drills: what a workload would try that wants out, tried for real and without harm. See docs/drills.md. */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* What the host plants is called hd- and twelve hexadecimal digits. No drill is told them: who brings them back has been there. */
#define TOKEN_PREFIX "hd-"
#define TOKEN_LENGTH 15
#define TOKENS 8
#define SCRATCH 32

struct request {
  /* The first digits of the host's boot id: what may only be done to another kernel than the host's is guarded by them. Empty: nothing of that is done. */
  char boot[9];
  /* The block device that the host has planted, 0: none. */
  dev_t device;
};

struct result {
  bool done;      /* it had its effect on the kernel that it runs on, or on what that kernel has */
  int error;      /* errno of the last thing that was refused */
  long number;    /* how many, how much: what the drill counts */
  char said[200]; /* in words */
  char tokens[TOKENS * (TOKEN_LENGTH + 1)]; /* found, one blank between */
};

/* util.c */
void say(struct result *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
void boot_id(char id[37]);
bool other_kernel(const struct request *q);
ssize_t slurp(const char *path, char *text, size_t size);
int put(const char *path, const char *text);
void find_tokens(struct result *r, const char *text, size_t length);
bool scratch(char path[SCRATCH]);
bool scratch_dev(char path[SCRATCH]);

/* kernel.c, disk.c, limits.c: a drill fills in what came of it. */
void drill_sysctl(const struct request *q, struct result *r);
void drill_module(const struct request *q, struct result *r);
void drill_dmesg(const struct request *q, struct result *r);
void drill_processes(const struct request *q, struct result *r);
void drill_panic(const struct request *q, struct result *r);
void drill_mknod(const struct request *q, struct result *r);
void drill_mount(const struct request *q, struct result *r);
void drill_cgroup(const struct request *q, struct result *r);
void drill_pids(const struct request *q, struct result *r);
void drill_memory(const struct request *q, struct result *r);

/* host.c: what the host plants, until stdin ends. */
int host_side(const char *token);
