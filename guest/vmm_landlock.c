/* Landlock (Documentation/userspace-api/landlock.rst) where the host's kernel has it: what QEMU and we ourselves may still open, whatever the jail's root shows. The kernel's header may be
 * older than the kernel: numbers are ours. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm.h"

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif
#define RULESET_VERSION 1u
#define RULE_PATH_BENEATH 1

enum {
  EXECUTE = 1 << 0, WRITE_FILE = 1 << 1, READ_FILE = 1 << 2, READ_DIR = 1 << 3, REMOVE_FILE = 1 << 5, MAKE_REG = 1 << 8,
  FS_ABI_1 = (1 << 13) - 1, REFER = 1 << 13, /* ABI 2 */ TRUNCATE = 1 << 14, /* ABI 3 */ IOCTL_DEV = 1 << 15, /* ABI 5 */
  NET_TCP = 3, /* ABI 4: bind, connect */ SCOPE_ABSTRACT = 1, SCOPE_SIGNAL = 2 /* ABI 6 */
};

struct ruleset {
  uint64_t fs, net, scoped;
};

struct path_beneath {
  uint64_t allowed;
  int32_t parent;
} __attribute__((packed));

static int version = -1;

void landlock_leave_out(void) { version = 0; }

int landlock_version(void) {
  if (version >= 0) return version;
  long answer = syscall(SYS_landlock_create_ruleset, NULL, 0, RULESET_VERSION);
  /* ENOSYS: not in the kernel; EOPNOTSUPP: not switched on. Anything else is a fault, and not to be taken for "none". */
  if (answer < 0 && errno != ENOSYS && errno != EOPNOTSUPP) return -1;
  return version = answer < 0 ? 0 : (int)answer;
}

/* Everything that this kernel can deny. */
static struct ruleset everything(uint64_t scoped) {
  landlock_version();
  struct ruleset all = {.fs = FS_ABI_1};
  if (version >= 2) all.fs |= REFER;
  if (version >= 3) all.fs |= TRUNCATE;
  if (version >= 4) all.net = NET_TCP;
  if (version >= 5) all.fs |= IOCTL_DEV;
  if (version >= 6) all.scoped = scoped;
  return all;
}

/* A path that is not there needs no rule. */
static bool permit(int ruleset, const struct ruleset *all, const char *path, uint64_t rights) {
  int fd = open(path, O_PATH | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT;
  struct path_beneath rule = {.allowed = rights & all->fs, .parent = fd};
  bool ok = syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &rule, 0) == 0;
  int error = errno;
  close(fd);
  errno = error;
  return ok;
}

static int begin(const struct ruleset *all) {
  return (int)syscall(SYS_landlock_create_ruleset, all, sizeof *all, 0);
}

static bool enforce(int ruleset, bool permitted) {
  bool ok = permitted && syscall(SYS_landlock_restrict_self, ruleset, 0) == 0;
  int error = errno;
  if (ruleset >= 0) close(ruleset);
  errno = error;
  return ok;
}

/* The file of QEMU's `-serial file:PATH`, which is there for finding faults only. */
static bool permit_console(int ruleset, const struct ruleset *all, char *const args[]) {
  for (; args[0] != NULL && args[1] != NULL; args++) {
    if (strcmp(args[0], "-serial") != 0 || strncmp(args[1], "file:", 5) != 0) continue;
    int fd = open(args[1] + 5, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0) close(fd);
    return fd >= 0 && permit(ruleset, all, args[1] + 5, WRITE_FILE | TRUNCATE);
  }
  return true;
}

bool landlock_qemu(char *const args[]) {
  /* What is in the jail's root (src/sandbox/vm/jailroot.ts), less our own directory: QEMU has no business with the workload's frames, ctl.sock or the status. Nothing of /proc: it
   * opens a template's memory by /proc/self/fd, and a memory file is not Landlock's. */
  static const struct {
    const char *path;
    uint64_t rights;
  } files[] = {
    {"/lib64", EXECUTE | READ_FILE}, /* the loader */
    {"/lib", READ_FILE},
    {"/modules", READ_FILE},
    {"/firmware", READ_FILE},
    {"/vmlinux", READ_FILE},
    {"/initrd", READ_FILE},
    {"/image.erofs", READ_FILE},
    {"/disk.img", READ_FILE | WRITE_FILE},
    {"/dev/null", READ_FILE | WRITE_FILE},
    {"/dev/urandom", READ_FILE},
    {"/dev/kvm", READ_FILE | WRITE_FILE | IOCTL_DEV},
  };
  if (landlock_version() <= 0) return version == 0;
  struct ruleset all = everything(SCOPE_ABSTRACT | SCOPE_SIGNAL);
  int ruleset = begin(&all);
  bool ok = ruleset >= 0 && permit(ruleset, &all, args[0], EXECUTE | READ_FILE) && permit_console(ruleset, &all, args);
  for (size_t i = 0; ok && i < sizeof files / sizeof *files; i++) ok = permit(ruleset, &all, files[i].path, files[i].rights);
  return enforce(ruleset, ok);
}

bool landlock_self(void) {
  if (landlock_version() <= 0) return version == 0;
  /* Signals are not scoped: QEMU is in another domain, and we are to kill it. */
  struct ruleset all = everything(SCOPE_ABSTRACT);
  int ruleset = begin(&all);
  return enforce(ruleset, ruleset >= 0 && permit(ruleset, &all, ".", READ_FILE | WRITE_FILE | TRUNCATE | MAKE_REG | REMOVE_FILE));
}
