#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* linux/mount.h, which cannot be included beside sys/mount.h. */
#define TREE_CLONE 1u
#define TREE_RECURSIVE 0x8000u
#define MOVE_FROM_EMPTY 4u
#define MOVE_TO_EMPTY 0x40u
#define ATTR_RDONLY 1u
#define ATTR_SAFE (2u | 4u | 8u) /* nosuid, nodev, noexec */
#define ATTR_IDMAP 0x100000u
struct attributes {
  uint64_t set, clear, propagation, userns;
};

static int tree_of(int fd, const char *path, unsigned flags) {
  return (int)syscall(SYS_open_tree, fd, path, TREE_CLONE | O_CLOEXEC | flags);
}

struct id_map uid_map, gid_map;

int64_t id_outside(const struct id_map *map, uint32_t inside) {
  if (map->count == 0) return inside;
  for (size_t i = 0; i < map->count; i++) {
    const struct id_range *r = &map->ranges[i];
    if (inside >= r->inside && inside - r->inside < r->count) return (int64_t)r->outside + (inside - r->inside);
  }
  return -1;
}

uint32_t id_inside(const struct id_map *map, uint32_t outside) {
  if (map->count == 0) return outside;
  for (size_t i = 0; i < map->count; i++) {
    const struct id_range *r = &map->ranges[i];
    if (outside >= r->outside && outside - r->outside < r->count) return r->inside + (outside - r->outside);
  }
  return 65534;
}

/* Device nodes and set-user-ID programs can be listed and copied, but through these mounts they can be neither opened nor run. */
static void restrict_mount(int fd, const char *path, unsigned flags, uint64_t set) {
  struct attributes attributes = {.set = set};
  if (syscall(SYS_mount_setattr, fd, path, flags, &attributes, sizeof attributes) < 0) die(errno, "mount_setattr %s", path);
}

static void move_to(int tree, const char *target) {
  if (syscall(SYS_move_mount, tree, "", AT_FDCWD, target, MOVE_FROM_EMPTY) < 0) die(errno, "mount on %s", target);
  close(tree);
}

/* pivot_root(2), "pivot_root(".", ".")": what was the root is gone. */
static void pivot(int directory) {
  if (fchdir(directory) < 0 || syscall(SYS_pivot_root, ".", ".") < 0) die(errno, "pivot_root");
  if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0) die(errno, "leave the old root");
}

static void enter_root(const struct wall *wall) {
  size_t count = wall->mount_count;
  int *trees = calloc(count + 1, sizeof *trees), *lowers = calloc(wall->lowers + 1, sizeof *lowers);
  if (trees == NULL || lowers == NULL) die(ENOMEM, "start");
  int place = open(wall->root, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  int tree = place < 0 ? -1 : tree_of(place, "", AT_EMPTY_PATH);
  if (tree < 0) die(errno, "open %s", wall->root);
  restrict_mount(tree, "", AT_EMPTY_PATH, ATTR_SAFE);
  /* All that is needed of the outside is taken along before the root changes. */
  for (size_t i = 0; i < count; i++) {
    const struct mount_wish *wish = &wall->mounts[i];
    trees[i] = tree_of(AT_FDCWD, wish->source, TREE_RECURSIVE);
    if (trees[i] < 0) die(errno, "mount %s", wish->source);
    restrict_mount(trees[i], "", AT_EMPTY_PATH | TREE_RECURSIVE, ATTR_SAFE | (wish->read_only ? ATTR_RDONLY : 0));
    if (wish->mapped) {
      int userns = open(wall->userns, O_RDONLY | O_CLOEXEC);
      struct attributes attributes = {.set = ATTR_IDMAP, .userns = (uint64_t)userns};
      if (userns < 0 || syscall(SYS_mount_setattr, trees[i], "", AT_EMPTY_PATH, &attributes, sizeof attributes) < 0) die(errno, "map the owners of %s", wish->source);
      close(userns);
    }
  }
  for (size_t i = 0; i < wall->lowers; i++) {
    lowers[i] = tree_of(AT_FDCWD, wall->lower[i], 0);
    if (lowers[i] < 0) die(errno, "open %s", wall->lower[i]);
    restrict_mount(lowers[i], "", AT_EMPTY_PATH, ATTR_SAFE | ATTR_RDONLY);
  }
  if (wall->lowers > 0) {
    if (mount("tmpfs", wall->root, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700,size=1m") < 0) die(errno, "tmpfs");
    int base = open(wall->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (base < 0) die(errno, "tmpfs");
    pivot(base);
    if (mkdir("/upper", 0700) < 0 || mkdir("/lower", 0700) < 0) die(errno, "mkdir");
    move_to(tree, "/upper");
    for (size_t i = 0; i < wall->lowers; i++) {
      char target[32];
      snprintf(target, sizeof target, "/lower/%zu", i);
      if (mkdir(target, 0700) < 0) die(errno, "mkdir");
      move_to(lowers[i], target);
    }
    free(trees);
    free(lowers);
    return;
  }
  if (syscall(SYS_move_mount, tree, "", place, "", MOVE_FROM_EMPTY | MOVE_TO_EMPTY) < 0) die(errno, "move_mount");
  pivot(tree);
  close(place);
  /* From here a path, whatever links its parts are, leads nowhere but into the container. */
  for (size_t i = 0; i < count; i++) {
    const char *target = wall->mounts[i].target;
    struct stat source, there;
    if (fstat(trees[i], &source) < 0) die(errno, "mount on %s", target);
    if (stat(target, &there) < 0) {
      char parent[PATH_LIMIT];
      snprintf(parent, sizeof parent, "%s", target);
      char *slash = strrchr(parent, '/');
      if (!S_ISDIR(source.st_mode) && slash != NULL) *slash = 0;
      int made = make_directories(AT_FDCWD, parent);
      if (made < 0) die(errno, "mount on %s", target);
      close(made);
      int file = S_ISDIR(source.st_mode) ? -1 : open(target, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
      if (file >= 0) close(file);
    }
    move_to(trees[i], target);
  }
  if (wall->read_only) restrict_mount(AT_FDCWD, "/", 0, ATTR_RDONLY);
  free(trees);
  free(lowers);
}

static void drop_capabilities(uint64_t keep) {
  for (int cap = 0; cap <= 63; cap++) {
    if ((keep >> cap & 1) != 0) continue;
    if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0) continue;
    if (errno == EINVAL) break; /* past the kernel's last one */
    die(errno, "drop capability %d", cap);
  }
  if (prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                                   SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED, 0, 0, 0) < 0)
    die(errno, "securebits");
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2] = {{(uint32_t)keep, (uint32_t)keep, 0}, {(uint32_t)(keep >> 32), (uint32_t)(keep >> 32), 0}};
  if (syscall(SYS_capset, &header, data) < 0) die(errno, "capset");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) die(errno, "no_new_privs");
}

#define BIT(cap) (1ULL << (cap))
#define FILE_CAPABILITIES \
  (BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_DAC_READ_SEARCH) | BIT(CAP_FOWNER) | BIT(CAP_FSETID) | BIT(CAP_MKNOD) | BIT(CAP_SETFCAP))

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#else
#error "hull-files: add this architecture's audit number"
#endif

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define KILL BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)
#define CALL(name) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_##name, 0, 1), ALLOW
/* Never executable memory: the third argument is `prot` in both. */
#define CALL_NO_EXEC(name) \
  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_##name, 0, 4), LOAD(args[2]), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1), KILL, ALLOW

static const struct sock_filter filter[] = {
    LOAD(arch), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0), KILL, LOAD(nr),
    CALL(read), CALL(write), CALL(readv), CALL(writev), CALL(openat), CALL(openat2), CALL(close), CALL(fstat), CALL(newfstatat), CALL(statx),
    CALL(getdents64), CALL(lseek), CALL(readlinkat), CALL(fchown), CALL(fchownat), CALL(fchmod), CALL(fchmodat), CALL(utimensat), CALL(mkdirat),
    CALL(symlinkat), CALL(linkat), CALL(unlinkat), CALL(mknodat), CALL(ftruncate), CALL(syncfs), CALL(fstatfs), CALL(fsetxattr), CALL(lsetxattr),
    CALL(fgetxattr), CALL(flistxattr), CALL(lgetxattr), CALL(llistxattr), CALL(munmap), CALL(mremap), CALL(brk), CALL(madvise), CALL(fcntl), CALL(exit),
    CALL(exit_group), CALL(rt_sigprocmask), CALL(rt_sigreturn), CALL(restart_syscall), CALL(clock_gettime), CALL(futex),
#if defined(__x86_64__)
    CALL(open), CALL(stat), CALL(lstat), CALL(unlink), CALL(mkdir), CALL(chown), CALL(lchown), CALL(chmod), CALL(readlink), CALL(getdents),
#endif
    CALL_NO_EXEC(mmap), CALL_NO_EXEC(mprotect), KILL,
};

static void limit(int resource, rlim_t value) {
  struct rlimit now;
  if (getrlimit(resource, &now) < 0) die(errno, "getrlimit");
  if (now.rlim_max < value) value = now.rlim_max; /* never raised: that takes CAP_SYS_RESOURCE */
  if (setrlimit(resource, &(struct rlimit){value, value}) < 0) die(errno, "setrlimit");
}

void wall_enter(const struct wall *wall) {
  /* Dies with whoever started it. */
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  umask(0);
  signal(SIGPIPE, SIG_IGN);
  if (wall->join >= 0 && setns(wall->join, CLONE_NEWNS) < 0) die(errno, "enter the container");
  for (int fd = 3; fd < 64; fd++) close(fd);
  syscall(SYS_close_range, 64, ~0U, 0);
  /* A copy: what is changed about mounts here is not changed there, and the other way round. */
  if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) die(errno, "mount namespace");
  if (wall->join >= 0) {
    if (chdir("/") < 0) die(errno, "chdir");
    restrict_mount(AT_FDCWD, "/", TREE_RECURSIVE, ATTR_SAFE);
  } else {
    enter_root(wall);
  }
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_NOFILE, 2 * DEPTH_LIMIT + 64);
  limit(RLIMIT_AS, 1ULL << 30); /* a directory with a hundred million names */
  /* A mapped mount takes new files only from whom it has an id for: the container's root. What that takes of the effective capabilities comes
   * back with the next call, while the permitted ones are still all. */
  if (uid_map.count > 0) setfsuid((uid_t)id_outside(&uid_map, 0));
  if (gid_map.count > 0) setfsgid((gid_t)id_outside(&gid_map, 0));
  drop_capabilities(FILE_CAPABILITIES | (wall->trusted ? BIT(CAP_SYS_ADMIN) : 0));
  struct sock_fprog program = {sizeof filter / sizeof *filter, (struct sock_filter *)filter};
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0) die(errno, "seccomp");
}
