/*
 * crun-wrap RUNTIME ARG…: runs an OCI runtime where only cgroup v1 is seen.
 *
 * On a "hybrid" host (v1 controllers, and cgroup2 on /sys/fs/cgroup/unified that owns some controller) crun 1.8.1 refuses:
 * "cgroups in hybrid mode not supported". It decides by looking at /sys/fs/cgroup/unified, so it gets a mount
 * namespace of its own without that mount. One unshare, two mounts, one exec; static, because a dynamic linker would
 * cost more than all of that. Descriptors, environment and parent stay as they were; errors go to stderr, exit code 125.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#define UNIFIED "/sys/fs/cgroup/unified"

static int fail(const char *what) {
  fprintf(stderr, "crun-wrap: %s: %s\n", what, strerror(errno));
  return 125;
}

int main(int argc, char **argv) {
  if (argc < 2) {
    fputs("usage: crun-wrap RUNTIME ARG...\n", stderr);
    return 125;
  }
  if (unshare(CLONE_NEWNS) < 0) return fail("unshare");
  /* Slave: mounts of the host still arrive here, the umount below stays here. */
  if (mount("", "/", NULL, MS_REC | MS_SLAVE, NULL) < 0) return fail("make / a slave mount");
  /* EINVAL, ENOENT: there is none, and so nothing to hide. */
  if (umount2(UNIFIED, MNT_DETACH) < 0 && errno != EINVAL && errno != ENOENT) return fail("umount " UNIFIED);
  execv(argv[1], argv + 1);
  return fail(argv[1]);
}
