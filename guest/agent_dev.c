/* /dev of the container: Docker's nodes on a tmpfs, a devpts of its own, shm, mqueue. Runs after pivot_root. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "agent.h"

static const struct {
  const char *name;
  unsigned int major, minor;
} nodes[] = {{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};

static const struct {
  const char *name, *target;
} links[] = {{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"},
             {"ptmx", "pts/ptmx"}, {"core", "/proc/kcore"}};

static bool mount_dir(const char *type, const char *target, unsigned long flags, const char *data, char *message) {
  int error = make_dirs(target);
  if (error < 0) return fail(message, "%s: %s", target, strerror(-error));
  return mount(type, target, type, flags, data) == 0 || fail(message, "mount %s: %s", target, strerror(errno));
}

/* --privileged: the machine's own devices too, as Docker shows the host's. */
static void machine_nodes(void) {
  if (make_dirs("/dev/.machine") < 0 || mount("devtmpfs", "/dev/.machine", "devtmpfs", MS_NOSUID | MS_NOEXEC, NULL) < 0) return;
  DIR *dir = opendir("/dev/.machine");
  for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
    char from[300], to[300];
    struct stat st;
    snprintf(from, sizeof from, "/dev/.machine/%s", entry->d_name);
    snprintf(to, sizeof to, "/dev/%s", entry->d_name);
    if (lstat(from, &st) == 0 && (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) && strncmp(entry->d_name, "vport", 5) != 0)
      mknod(to, st.st_mode, st.st_rdev); /* EEXIST: one of ours */
  }
  if (dir != NULL) closedir(dir);
  umount2("/dev/.machine", MNT_DETACH);
  rmdir("/dev/.machine");
}

bool container_dev(const struct config *c, char *message) {
  char path[64], data[64];
  if (!mount_dir("tmpfs", "/dev", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k", message)) return false;
  umask(0);
  for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++) {
    snprintf(path, sizeof path, "/dev/%s", nodes[i].name);
    if (mknod(path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)) < 0) return fail(message, "%s: %s", path, strerror(errno));
  }
  umask(022);
  for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
    snprintf(path, sizeof path, "/dev/%s", links[i].name);
    if (symlink(links[i].target, path) < 0) return fail(message, "%s: %s", path, strerror(errno));
  }
  snprintf(data, sizeof data, "mode=1777,size=%llu", (unsigned long long)(c->shm_size != 0 ? c->shm_size : 64u << 20));
  if (!mount_dir("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5", message) ||
      !mount_dir("tmpfs", "/dev/shm", MS_NOSUID | MS_NOEXEC | MS_NODEV, data, message) ||
      !mount_dir("mqueue", "/dev/mqueue", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL, message))
    return false;
  if (c->privileged) machine_nodes();
  return true;
}
