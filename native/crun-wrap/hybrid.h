/*
 * A place where only cgroup v1 is seen. On a "hybrid" host (v1 controllers, and cgroup2 on /sys/fs/cgroup/unified that owns some controller) crun 1.8.1 refuses: "cgroups in hybrid mode not supported". It decides by looking
 * at /sys/fs/cgroup/unified, so it gets a mount namespace of its own where something else is mounted there. One unshare, two mounts.
 *
 * What it sees there is empty, its own, and ends with it. Without a mount it would be the directory below, the host's: crun makes a cgroup of v2 there all the same, which is then a directory and a file, in memory, that
 * nobody ever sees or removes (8 KB for each container that was ever started). A file system that cannot be written to is an error to it (1.8.1, enter_cgroup_subsystem).
 */
#include <errno.h>
#include <sched.h>
#include <stddef.h>
#include <sys/mount.h>
#include <unistd.h>

#define UNIFIED "/sys/fs/cgroup/unified"

/* NULL, or what failed (errno says why). */
static inline const char *hide_unified(void) {
  if (access(UNIFIED, F_OK) < 0) return NULL;
  if (unshare(CLONE_NEWNS) < 0) return "unshare";
  /* Slave: mounts of the host still arrive here, the one below stays here. */
  if (mount("", "/", NULL, MS_REC | MS_SLAVE, NULL) < 0) return "make / a slave mount";
  return mount("tmpfs", UNIFIED, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=1m,mode=700") < 0 ? "mount over " UNIFIED : NULL;
}
