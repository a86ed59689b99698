#include "surface.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PTRACE_SECCOMP_GET_FILTER
#define PTRACE_SECCOMP_GET_FILTER 0x420c
#endif
#define FILTERS 16

static bool lets_through(uint32_t answer) {
  uint32_t action = answer & SECCOMP_RET_ACTION_FULL;
  return action == SECCOMP_RET_ALLOW || action == SECCOMP_RET_LOG || action == SECCOMP_RET_TRACE || action == SECCOMP_RET_USER_NOTIF;
}

/*
 * Whether a filter lets a call through with any arguments: what it loads of them is unknown, and where it looks at the unknown both ways are gone. Jumps lead forward only, so it ends; each place is
 * entered once with the unknown. The kernel has checked the program (bpf_check_classic); a place outside it counts as a refusal all the same.
 */
static bool passes(const struct sock_filter *rules, size_t length, size_t at, uint32_t number, bool known, uint32_t a, uint8_t *seen) {
  for (; at < length; at++) {
    const struct sock_filter *rule = &rules[at];
    if (!known && seen[at]++) return false;
    switch (BPF_CLASS(rule->code)) {
      case BPF_LD:
        known = true;
        if (rule->code == (BPF_LD | BPF_W | BPF_ABS) && rule->k == offsetof(struct seccomp_data, nr)) a = number;
        else if (rule->code == (BPF_LD | BPF_W | BPF_ABS) && rule->k == offsetof(struct seccomp_data, arch)) a = AUDIT_ARCH_X86_64;
        else if (rule->code == (BPF_LD | BPF_IMM)) a = rule->k;
        else known = false;
        break;
      case BPF_ALU:
        if (rule->code == (BPF_ALU | BPF_AND | BPF_K)) a &= rule->k;
        else known = false;
        break;
      case BPF_MISC: known = false; break;
      case BPF_RET: return BPF_RVAL(rule->code) == BPF_K ? lets_through(rule->k) : true;
      case BPF_JMP: {
        if (BPF_OP(rule->code) == BPF_JA) {
          at += rule->k;
          break;
        }
        uint32_t k = rule->k;
        if (!known || BPF_SRC(rule->code) != BPF_K) return passes(rules, length, at + 1 + rule->jt, number, false, 0, seen) || passes(rules, length, at + 1 + rule->jf, number, false, 0, seen);
        bool yes = BPF_OP(rule->code) == BPF_JEQ ? a == k : BPF_OP(rule->code) == BPF_JGT ? a > k : BPF_OP(rule->code) == BPF_JGE ? a >= k : (a & k) != 0;
        at += yes ? rule->jt : rule->jf;
        break;
      }
      default: break; /* stores: the accumulator stays */
    }
  }
  return false;
}

bool filter_passes(const struct sock_filter *rules, size_t length, int number) {
  static uint8_t seen[LONGEST_FILTER];
  memset(seen, 0, sizeof seen);
  return passes(rules, length, 0, (uint32_t)number, true, 0, seen);
}

static const char *reason(int error) {
  return error == EPERM || error == EACCES ? "its filters may not be read (CAP_SYS_ADMIN and CAP_SYS_PTRACE are needed)" : error == ESRCH ? "it has ended"
         : error == EIO || error == EINVAL ? "this kernel does not give filters (CONFIG_CHECKPOINT_RESTORE)" : "its filters cannot be read";
}

int calls_of_process(pid_t pid, const char **why) {
  static struct sock_filter rules[LONGEST_FILTER];
  static uint8_t allowed[CALLS];
  if (pid <= 0 || ptrace(PTRACE_SEIZE, pid, NULL, NULL) != 0) {
    *why = reason(pid <= 0 ? ESRCH : errno);
    return -1;
  }
  int status;
  long length = -1;
  if (ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) == 0 && waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status)) {
    memset(allowed, 1, sizeof allowed);
    size_t filter = 0;
    for (; filter < FILTERS; filter++) {
      length = ptrace(PTRACE_SECCOMP_GET_FILTER, pid, filter, NULL);
      if (length < 0 || length > LONGEST_FILTER || ptrace(PTRACE_SECCOMP_GET_FILTER, pid, filter, rules) != length) break;
      for (int number = 0; number < CALLS; number++)
        if (!filter_passes(rules, (size_t)length, number)) allowed[number] = 0;
    }
    /* ENOENT: there is no further one; EINVAL at the first: there is none at all. */
    if (length < 0 && (errno == ENOENT || (errno == EINVAL && filter == 0))) length = 0;
    else if (length >= 0) errno = E2BIG, length = -1;
  }
  if (length < 0) *why = reason(errno);
  ptrace(PTRACE_DETACH, pid, NULL, NULL);
  if (length < 0) return -1;
  int calls = 0;
  for (int number = 0; number < CALLS; number++) calls += is_call(number) && allowed[number];
  return calls;
}
