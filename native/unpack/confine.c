#include "unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- rlimits ---------------------------------------------------------------------------------------- */

static void limit(int resource, rlim_t value) {
  struct rlimit now;
  if (getrlimit(resource, &now) != 0) die(errno, "getrlimit");
  if (now.rlim_max < value) value = now.rlim_max; /* never raised: that takes CAP_SYS_RESOURCE */
  struct rlimit wanted = {value, value};
  if (setrlimit(resource, &wanted) != 0) die(errno, "setrlimit %d", resource);
}

/* ---- root ------------------------------------------------------------------------------------------- */

/* Makes the directory at `path` the root, with nothing else mounted anywhere (pivot_root(2), "pivot_root(".", ".")"). */
static void enter_root(const char *path) {
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) die(errno, "make mounts private");
  /* Opened only now: a descriptor from before belongs to the other mount namespace, and open_tree(2) refuses it. */
  int fd = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) die(errno, "open %s", path);
  int tree = open_tree(fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
  if (tree < 0) die(errno, "open_tree");
  /* Device nodes and set-user-ID programs are made here, but can be neither opened nor run through this mount. */
  struct mount_attr attr = {.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC};
  if (mount_setattr(tree, "", AT_EMPTY_PATH, &attr, sizeof attr) != 0) die(errno, "mount_setattr");
  if (move_mount(tree, "", fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) != 0) die(errno, "move_mount");
  if (fchdir(tree) != 0) die(errno, "fchdir");
  if (syscall(SYS_pivot_root, ".", ".") != 0) die(errno, "pivot_root");
  if (umount2(".", MNT_DETACH) != 0) die(errno, "umount the old root");
  if (chdir("/") != 0) die(errno, "chdir");
  close(tree);
  close(fd);
}

/* ---- capabilities -------------------------------------------------------------------------------------- */

static void keep_capabilities(uint64_t keep) {
  for (int cap = 0; cap <= 63; cap++) {
    if (keep & (1ULL << cap)) continue;
    if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0) {
      if (errno == EINVAL) break; /* past the kernel's last one */
      die(errno, "drop capability %d", cap);
    }
  }
  if (prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED |
                                   SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED,
            0, 0, 0) != 0) {
    die(errno, "securebits");
  }
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2] = {
      {(uint32_t)keep, (uint32_t)keep, 0},
      {(uint32_t)(keep >> 32), (uint32_t)(keep >> 32), 0},
  };
  if (syscall(SYS_capset, &header, data) != 0) die(errno, "capset");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) die(errno, "no_new_privs");
}

#define BIT(cap) (1ULL << (cap))
/* What writing a layer takes. SYS_ADMIN is for trusted.overlay.* alone: the system calls it would open are not on the list. */
#define LAYER_CAPABILITIES                                                                                          \
  (BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_FOWNER) | BIT(CAP_FSETID) | BIT(CAP_MKNOD) | BIT(CAP_SETFCAP) | \
   BIT(CAP_SYS_ADMIN))

void confine(const struct options *options) {
  if (close_range(3, ~0U, 0) != 0) die(errno, "close_range");
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* dies with the daemon, which collects what is left at its next start */

  if (unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP) != 0) die(errno, "unshare");
  pid_t pid = fork();
  if (pid < 0) die(errno, "fork");
  if (pid > 0) {
    int status;
    close(STDIN_FILENO);
    while (waitpid(pid, &status, 0) < 0) {
      if (errno != EINTR) die(errno, "waitpid");
    }
    if (WIFEXITED(status)) _exit(WEXITSTATUS(status));
    die(0, "unpacking was ended by signal %d (%s)", WTERMSIG(status), sigabbrev_np(WTERMSIG(status)));
  }

  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  umask(0);
  signal(SIGXFSZ, SIG_IGN); /* EFBIG instead */
  signal(SIGPIPE, SIG_IGN);
  enter_root(options->target);
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_NOFILE, 64);
  limit(RLIMIT_MEMLOCK, 0);
  limit(RLIMIT_AS, 1ULL << 30); /* a hostile xz or zstd header asks for gigabytes */
  limit(RLIMIT_FSIZE, options->max_bytes);
  keep_capabilities(options->layer ? LAYER_CAPABILITIES : 0);
}

/* ---- system calls ---------------------------------------------------------------------------------------- */

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#else
#error "hull-unpack: add this architecture's audit number"
#endif

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define KILL BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)
#define CALL(name) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_##name, 0, 1), ALLOW
/* Memory may be mapped and protected, never executable (the third argument is `prot` in both). Little-endian low word. */
#define CALL_NO_EXEC(name)                                                                              \
  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_##name, 0, 4), LOAD(args[2]),                                \
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1), KILL, ALLOW

static const struct sock_filter filter[] = {
    LOAD(arch),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0),
    KILL,
    LOAD(nr),
    /* the often used first */
    CALL(write), CALL(openat), CALL(close), CALL(fchown), CALL(utimensat), CALL(read), CALL(futex), CALL(pwrite64),
    CALL(newfstatat), CALL(fstat), CALL(fchmod), CALL(mkdirat), CALL(symlinkat), CALL(linkat), CALL(unlinkat), CALL(mknodat),
    CALL(fchownat), CALL(fchmodat), CALL(fsetxattr), CALL(setxattr), CALL(lsetxattr), CALL(ftruncate),
    CALL(getdents64), CALL(lseek), CALL(munmap), CALL(mremap), CALL(brk), CALL(madvise), CALL(exit),
    CALL(exit_group), CALL(rt_sigprocmask), CALL(rt_sigreturn), CALL(restart_syscall), CALL(clock_gettime), CALL(getrandom),
    CALL(rseq), CALL(fcntl), CALL(set_robust_list), CALL(sched_yield),
    CALL_NO_EXEC(mmap), CALL_NO_EXEC(mprotect),
    KILL,
};

void confine_syscalls(void) {
  struct sock_fprog program = {sizeof filter / sizeof filter[0], (struct sock_filter *)filter};
  long r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
  if (r != 0) die(r < 0 ? errno : 0, "seccomp");
}
