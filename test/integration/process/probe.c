/* Makes system calls that a container should or should not be able to make, and prints what became of each. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *name(long result) {
  if (result >= 0) return "ok";
  switch (errno) {
    case EPERM: return "EPERM";
    case ENOSYS: return "ENOSYS";
    case EAFNOSUPPORT: return "EAFNOSUPPORT";
    default: return strerror(errno);
  }
}

#define TRY(what, ...) printf(what "=%s\n", name(syscall(__VA_ARGS__)))

/* A child that is made ends at once. */
static void try_clone(const char *what, unsigned long flags) {
  fflush(stdout);
  long pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
  if (pid == 0) _exit(0);
  int error = errno;
  if (pid > 0) waitpid(pid, NULL, 0);
  errno = error;
  printf("%s=%s\n", what, name(pid));
}

int main(void) {
  int pair[2];
  TRY("socket AF_INET", SYS_socket, AF_INET, SOCK_STREAM, 0);
  TRY("socket AF_UNIX", SYS_socket, AF_UNIX, SOCK_STREAM, 0);
  TRY("socket AF_ALG", SYS_socket, 38, SOCK_SEQPACKET, 0);
  TRY("socket AF_VSOCK", SYS_socket, 40, SOCK_STREAM, 0);
  TRY("socket AF_ALG high bits", SYS_socket, 0x100000026ul, SOCK_SEQPACKET, 0);
  TRY("socket AF_VSOCK high bits", SYS_socket, 0x100000028ul, SOCK_STREAM, 0);
  TRY("socketpair AF_UNIX", SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, pair);
  TRY("bpf", SYS_bpf, 0, 0, 0);
  TRY("keyctl", SYS_keyctl, 0, -3, 0);
  TRY("add_key", SYS_add_key, "user", "x", "y", 1, -3);
  TRY("request_key", SYS_request_key, "user", "x", 0, 0);
  TRY("userfaultfd", SYS_userfaultfd, 0);
  TRY("perf_event_open", SYS_perf_event_open, 0, 0, -1, -1, 0);
  TRY("io_uring_setup", SYS_io_uring_setup, 1, 0);
  TRY("mount", SYS_mount, "none", "/tmp", "tmpfs", 0, 0);
  TRY("umount2", SYS_umount2, "/proc", 0);
  TRY("pivot_root", SYS_pivot_root, ".", ".");
  TRY("setns", SYS_setns, 0, 0);
  TRY("unshare NEWUSER", SYS_unshare, CLONE_NEWUSER);
  TRY("unshare NEWNS", SYS_unshare, CLONE_NEWNS);
  try_clone("clone NEWUSER", CLONE_NEWUSER);
  try_clone("clone NEWNET", CLONE_NEWNET);
  try_clone("clone high bits", 0x100000000ul | CLONE_NEWUSER);
  TRY("clone3", SYS_clone3, 0, 0);
  try_clone("clone plain", 0);
  TRY("open_by_handle_at", SYS_open_by_handle_at, -1, 0, 0);
  TRY("kexec_load", SYS_kexec_load, 0, 0, 0, 0);
  TRY("init_module", SYS_init_module, 0, 0, "");
  TRY("reboot", SYS_reboot, 0, 0, 0, 0);
  TRY("swapon", SYS_swapon, "/", 0);
  TRY("personality no-aslr", SYS_personality, 0x0040000);
  TRY("personality query", SYS_personality, 0xfffffffful);
  TRY("unknown call", 9999);
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) _exit(syscall(SYS_ptrace, 0, 0, 0, 0) == 0 ? 0 : 1); /* PTRACE_TRACEME */
  int status = 1;
  waitpid(child, &status, 0);
  printf("ptrace=%s\n", status == 0 ? "ok" : "refused");
  char byte;
  TRY("getrandom", SYS_getrandom, &byte, 1, 0);
  TRY("chroot", SYS_chroot, "/");
  TRY("mbind", SYS_mbind, 0, 0, 0, 0, 0, 0);
  TRY("settimeofday", SYS_settimeofday, 0, 0);
  TRY("fsopen", 430, "tmpfs", 0);
  fflush(stdout);
  child = fork();
  if (child == 0) _exit(syscall(0x40000000 | SYS_getpid) < 0 && errno == ENOSYS ? 0 : 1);
  waitpid(child, &status, 0);
  printf("x32 getpid=%s\n", status == 0 || WIFSIGNALED(status) ? "killed or ENOSYS" : "allowed");
  return 0;
}
