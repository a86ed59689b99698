/* escape-puppet exec PID | attach PID
 * Makes another process do system calls: what an attacker's code in it could do, with the very credentials, filters, descriptors and namespaces that it has. x86-64, ptrace(2), needs root.
 *   exec: PID is about to start a program that will fork; its first child that executes something is taken at that moment, before its first instruction.
 *   attach: PID's main thread is taken as it runs.
 * Then one line of standard input is one order, and one line of output its answer:
 *   w OFFSET HEX    bytes into the scratch memory
 *   r OFFSET SIZE   bytes from there, hex
 *   c NUMBER [ARGUMENT...]   a system call: its result; "@OFFSET" is an address in the scratch memory. "killed SIGNAL" when the process is no more
 *   i NUMBER [ARGUMENT...]   the same by int 0x80, as a 32-bit program
 *   end             registers as they were, and it goes on */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define SCRATCH 65536
#define OPTIONS (PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC)

static pid_t pid;
static uint64_t base; /* of the page with our instructions, and the scratch memory behind it */
static struct user_regs_struct saved;

static void die(const char *what) {
  printf("failed %s: %s\n", what, strerror(errno));
  exit(1);
}

static void transfer(uint64_t at, void *data, size_t size, int to) {
  struct iovec here = {data, size}, there = {(void *)at, size};
  if ((to ? process_vm_writev(pid, &here, 1, &there, 1, 0) : process_vm_readv(pid, &here, 1, &there, 1, 0)) != (ssize_t)size) die("memory");
}

static int event_of(int status) { return status >> 16; }

/* Runs the instruction at `at`, which a breakpoint follows. False: the process has ended. */
static int run(uint64_t at, uint64_t number, const uint64_t *a, int compat, int64_t *result, int *signal) {
  struct user_regs_struct r = saved;
  r.rip = at;
  r.rax = number;
  r.orig_rax = (uint64_t)-1;
  if (base != 0) r.rsp = base + 4096 + SCRATCH + 16384; /* a stack of its own: there may be none yet, or somebody's */
  if (compat) {
    r.rbx = a[0], r.rcx = a[1], r.rdx = a[2], r.rsi = a[3], r.rdi = a[4], r.rbp = a[5];
  } else {
    r.rdi = a[0], r.rsi = a[1], r.rdx = a[2], r.r10 = a[3], r.r8 = a[4], r.r9 = a[5];
  }
  if (ptrace(PTRACE_SETREGS, pid, 0, &r) < 0) die("setregs");
  if (ptrace(PTRACE_CONT, pid, 0, 0) < 0) die("cont");
  for (;;) {
    int status;
    pid_t who = waitpid(-1, &status, __WALL);
    if (who < 0) die("wait");
    if (who != pid) continue; /* what it has forked: stays where it is, stopped */
    if (WIFSIGNALED(status)) return *signal = WTERMSIG(status), 0;
    if (WIFEXITED(status)) return *signal = 0, 0;
    if (event_of(status) != 0 || WSTOPSIG(status) != SIGTRAP) {
      ptrace(PTRACE_CONT, pid, 0, 0);
      continue;
    }
    if (ptrace(PTRACE_GETREGS, pid, 0, &r) < 0) die("getregs");
    *result = (int64_t)r.rax;
    return 1;
  }
}

static void take(int at_exec) {
  int status;
  if (ptrace(PTRACE_SEIZE, pid, 0, OPTIONS) < 0) die("seize");
  if (!at_exec) {
    if (ptrace(PTRACE_INTERRUPT, pid, 0, 0) < 0) die("interrupt");
    if (waitpid(pid, &status, __WALL) != pid) die("wait");
    return;
  }
  puts("waiting");
  fflush(stdout);
  for (;;) {
    pid_t who = waitpid(-1, &status, __WALL);
    if (who < 0) die("wait");
    if (!WIFSTOPPED(status)) continue;
    if (who != pid && event_of(status) == PTRACE_EVENT_EXEC) {
      pid_t parent = pid;
      pid = who;
      ptrace(PTRACE_INTERRUPT, parent, 0, 0);
      while (waitpid(parent, &status, __WALL) == parent && event_of(status) != PTRACE_EVENT_STOP) ptrace(PTRACE_CONT, parent, 0, 0);
      ptrace(PTRACE_DETACH, parent, 0, 0);
      /* Still in execve: on to where its result is set already. */
      ptrace(PTRACE_INTERRUPT, pid, 0, 0);
      ptrace(PTRACE_CONT, pid, 0, 0);
      if (waitpid(pid, &status, __WALL) != pid) die("wait");
      return;
    }
    int signal = event_of(status) != 0 || WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
    ptrace(PTRACE_CONT, who, 0, signal);
  }
}

/* The first call needs a place in a program that we do not know: the one where it stands, for a moment. */
static void settle(void) {
  uint64_t arguments[6] = {0, 4096 + SCRATCH + 65536, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, (uint64_t)-1, 0};
  int64_t result;
  int signal;
  if (ptrace(PTRACE_GETREGS, pid, 0, &saved) < 0) die("getregs");
  errno = 0;
  long before = ptrace(PTRACE_PEEKTEXT, pid, saved.rip, 0);
  if (errno != 0) die("peek");
  if (ptrace(PTRACE_POKETEXT, pid, saved.rip, (before & ~0xffffffl) | 0xcc050f) < 0) die("poke"); /* syscall; int3 */
  if (!run(saved.rip, 9 /* mmap */, arguments, 0, &result, &signal) || result < 0) die("mmap");
  ptrace(PTRACE_POKETEXT, pid, saved.rip, before);
  base = (uint64_t)result;
  uint8_t code[6] = {0x0f, 0x05, 0xcc, 0xcd, 0x80, 0xcc};
  transfer(base, code, sizeof code, 1);
}

static void call(char *text, int compat) {
  uint64_t a[7] = {0};
  int n = 0, signal;
  int64_t result;
  for (char *word = strtok(text, " \n"); word != NULL && n < 7; word = strtok(NULL, " \n")) a[n++] = word[0] == '@' ? base + 4096 + strtoull(word + 1, NULL, 0) : strtoull(word, NULL, 0);
  if (run(base + (compat ? 3 : 0), a[0], a + 1, compat, &result, &signal)) printf("%lld\n", (long long)(compat ? (int32_t)result : result));
  else printf("killed %d\n", signal);
}

int main(int argc, char **argv) {
  static char line[2 * SCRATCH + 64];
  static uint8_t bytes[SCRATCH];
  if (argc != 3) return 2;
  pid = atoi(argv[2]);
  take(strcmp(argv[1], "exec") == 0);
  settle();
  printf("ready %d\n", pid);
  for (fflush(stdout); fgets(line, sizeof line, stdin) != NULL; fflush(stdout)) {
    char *rest = line + 2;
    if (strcmp(line, "end\n") == 0) break;
    uint64_t at = strtoull(rest, &rest, 0);
    if (line[0] == 'w') {
      size_t n = 0;
      for (rest++; n < SCRATCH && sscanf(rest, "%2hhx", &bytes[n]) == 1; rest += 2) n++;
      transfer(base + 4096 + at, bytes, n, 1);
      puts("ok");
    } else if (line[0] == 'r') {
      size_t size = strtoull(rest, NULL, 0);
      transfer(base + 4096 + at, bytes, size, 0);
      for (size_t i = 0; i < size; i++) printf("%02x", bytes[i]);
      puts("");
    } else {
      call(line + 2, line[0] == 'i');
    }
  }
  if (ptrace(PTRACE_SETREGS, pid, 0, &saved) < 0) die("restore");
  if (ptrace(PTRACE_DETACH, pid, 0, 0) < 0) die("detach");
  puts("done");
  return 0;
}
