#include "surface.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* As the sixth argument: this call is a question, and is not to be made. */
#define ASKED 0x48756c6cu
/* What the answer to a question is: no kernel gives that for an error. */
#define PASSED 0x5ecc0de
/* Milliseconds between looks at a child that neither asks nor ends. */
#define PAUSE 5

/*
 * The kernel takes the strictest answer of all filters (seccomp(2)): an errno of those around us wins over our SECCOMP_RET_USER_NOTIF, which wins over their "allow". So a call that is asked
 * about either fails with their errno or comes to us, who answer it; it is made in no case. Our filter is on a child, which asks; we answer. A filter that kills for a call kills the child:
 * the call is refused, and another child asks for the rest. Children have our descriptors, not a copy of them: so we get the listener that they make.
 */
struct talk {
  _Atomic int listener; /* -1: none yet */
  _Atomic int number;   /* what is asked, or was when the child ended */
  _Atomic int passed;
};

bool is_call(int number) {
  static const int gone[] = {156, 174, 177, 178, 180, 181, 182, 183, 184, 185, 205, 211, 214, 215, 236};
  if (number < 0 || number >= CALLS || (number > 334 && number < 424)) return false;
  for (size_t i = 0; i < sizeof gone / sizeof *gone; i++)
    if (gone[i] == number) return false;
  return true;
}

static long ask(long number) {
  /* Filters look at arguments: of socket(2) and socketpair(2) they want a family, of others nothing is the harmless case. */
  long result, first = number == SYS_socket || number == SYS_socketpair ? 1 : 0;
  register long r10 __asm__("r10") = 0;
  register long r8 __asm__("r8") = 0;
  register long r9 __asm__("r9") = ASKED;
  /* The last one is taken away again: what libc calls next, with fewer arguments, would be a question as well. */
  __asm__ volatile("syscall\n\txorl %%r9d, %%r9d" : "=a"(result), "+r"(r9) : "0"(number), "D"(first), "S"(first), "d"(0L), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
  return result;
}

static void ask_all(struct talk *t) {
  struct sock_filter rules[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[5])),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ASKED, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {.len = sizeof rules / sizeof *rules, .filter = rules};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return;
  long fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
  if (fd < 0) return;
  t->listener = (int)fd;
  for (; t->number < CALLS; t->number++)
    if (is_call(t->number) && ask(t->number) == PASSED) t->passed++;
}

/* Answers one question of the child's, if there is one. False: questions cannot be answered. */
static bool answer(int listener) {
  struct pollfd one = {.fd = listener, .events = POLLIN};
  if (poll(&one, 1, PAUSE) <= 0 || !(one.revents & POLLIN)) {
    if (listener >= 0 && (one.revents & POLLHUP)) usleep(PAUSE * 1000); /* it is about to be gone: poll does not wait any more */
    return true;
  }
  struct seccomp_notif asked;
  struct seccomp_notif_resp said = {.val = PASSED};
  memset(&asked, 0, sizeof asked); /* the kernel wants zeros */
  if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked) != 0) return errno == EINTR || errno == EAGAIN || errno == ENOENT;
  said.id = asked.id;
  ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &said);
  return true;
}

/* One child, to its end. False: it could not ask. */
static bool converse(struct talk *t, const char **why) {
  t->listener = -1;
  pid_t child = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, 0L);
  if (child < 0) {
    *why = "no process can be made";
    return false;
  }
  if (child == 0) {
    ask_all(t);
    _exit(0);
  }
  bool answered = true;
  while (waitpid(child, NULL, WNOHANG) == 0) {
    if (answered && !answer(t->listener)) {
      answered = false;
      kill(child, SIGKILL);
    }
  }
  if (t->listener >= 0) close(t->listener);
  if (t->listener >= 0 && answered) return true;
  *why = "no seccomp filter can be set from in here (Linux 5.0 and the call itself are needed)";
  return false;
}

int reachable_calls(const char **why) {
  struct talk *t = mmap(NULL, sizeof *t, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (t == MAP_FAILED) {
    *why = "no memory can be shared";
    return -1;
  }
  for (; t->number < CALLS; t->number++) /* a child that ended before the last has ended of the call that it asked about */
    if (!converse(t, why)) break;
  int passed = t->number >= CALLS ? t->passed : -1;
  munmap(t, sizeof *t);
  return passed;
}
