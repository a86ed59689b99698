/*
 * crun-wrap FILE ARG…: runs an OCI runtime, FILE, with the arguments ARG (its name first), where only cgroup v1 is seen.
 *
 * FILE and name are two things, since FILE is /proc/PID/fd/N: a sealed copy in memory that nobody can write to. crun sees that it is one, and does without copying itself (CVE-2019-5736) and a second exec.
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
  if (argc < 3) {
    fputs("usage: crun-wrap FILE NAME ARG...\n", stderr);
    return 125;
  }
  if (access(UNIFIED, F_OK) == 0) {
    if (unshare(CLONE_NEWNS) < 0) return fail("unshare");
    /* Slave: mounts of the host still arrive here, the umount below stays here. */
    if (mount("", "/", NULL, MS_REC | MS_SLAVE, NULL) < 0) return fail("make / a slave mount");
    /* EINVAL: nothing is mounted there, and so there is nothing to hide. */
    if (umount2(UNIFIED, MNT_DETACH) < 0 && errno != EINVAL) return fail("umount " UNIFIED);
  }
  execv(argv[1], argv + 2);
  return fail(argv[1]);
}
