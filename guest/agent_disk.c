/* The container's root: the image (EROFS, read-only) under the writable disk (ext4), joined by overlayfs; and the files that
 * Docker binds over /etc. All in the agent's own mount namespace; the container gets a copy of it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"

#define DEVICE_WAIT_MS 3000

static bool disk_mounted;

/* A device may be probed a moment after its module is there. */
static void wait_for(const char *device) {
  struct stat st;
  for (int64_t limit = now_ms() + DEVICE_WAIT_MS; stat(device, &st) < 0 && now_ms() < limit;) usleep(1000);
}

static bool mount_on(const char *source, const char *target, const char *type, unsigned long flags, const char *data, char *message) {
  if (mkdir(target, 0755) < 0 && errno != EEXIST) return fail(message, "%s: %s", target, strerror(errno));
  return mount(source, target, type, flags, data) == 0 || fail(message, "mount %s on %s: %s", source, target, strerror(errno));
}

static bool write_file(const char *key, const char *path, char *message) {
  const char *text = text_find(config.text, config.size, key);
  if (text == NULL) return true; /* the image's own file stays */
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  size_t size = strlen(text);
  if (fd < 0 || write(fd, text, size) != (ssize_t)size) {
    if (fd >= 0) close(fd);
    return fail(message, "%s: %s", path, strerror(errno));
  }
  close(fd);
  return true;
}

static bool etc_files(char *message) {
  return mount_on("tmpfs", DIR_FILES, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0755,size=4m", message) &&
         write_file("etc_hosts", DIR_FILES "/hosts", message) && write_file("etc_hostname", DIR_FILES "/hostname", message) &&
         write_file("etc_resolv", DIR_FILES "/resolv.conf", message);
}

/* The root directory of an overlay is the upper one: it takes owner and mode of the image's. */
static bool upper_dir(const char *path, char *message) {
  struct stat lower;
  if (mkdir(path, 0755) < 0) return errno == EEXIST || fail(message, "%s: %s", path, strerror(errno));
  if (stat(DIR_LOWER, &lower) < 0 || chown(path, lower.st_uid, lower.st_gid) < 0 || chmod(path, lower.st_mode & 07777) < 0)
    return fail(message, "%s: %s", path, strerror(errno));
  return true;
}

bool root_mount(const struct config *c, char *message) {
  if (*c->root == 0) return fail(message, "no root device");
  wait_for(c->root);
  if (!mount_on(c->root, DIR_LOWER, "erofs", MS_RDONLY | MS_NODEV, NULL, message)) return false;
  if (*c->disk != 0) {
    wait_for(c->disk);
    /* noinit_itable: no background thread that writes a fresh disk's inode tables */
    if (!mount_on(c->disk, DIR_DISK, "ext4", MS_NODEV | MS_NOATIME, "noinit_itable", message)) return false;
    disk_mounted = true;
  } else if (!mount_on("tmpfs", DIR_DISK, "tmpfs", MS_NODEV, "mode=0755", message)) {
    return false;
  }
  if (!upper_dir(DIR_DISK "/upper", message)) return false;
  if (mkdir(DIR_DISK "/work", 0700) < 0 && errno != EEXIST) return fail(message, "work: %s", strerror(errno));
  return mount_on("overlay", DIR_ROOT, "overlay", MS_NODEV, "lowerdir=" DIR_LOWER ",upperdir=" DIR_DISK "/upper,workdir=" DIR_DISK "/work",
                  message) &&
         etc_files(message);
}

void root_unmount(void) {
  shares_unmount();
  if (!disk_mounted) return;
  int fd = open(DIR_DISK, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0) {
    syncfs(fd); /* what follows is only about a clean journal */
    close(fd);
  }
  umount2(DIR_ROOT, MNT_DETACH);
  umount2(DIR_DISK, MNT_DETACH);
  disk_mounted = false;
  /* The last reference may be dropped by a kernel worker a moment later. O_EXCL opens when no mount holds the device. */
  for (int i = 0; i < 200; i++) {
    int device = open(config.disk, O_RDONLY | O_EXCL | O_CLOEXEC);
    if (device >= 0) {
      close(device);
      return;
    }
    usleep(1000 * (useconds_t)(i < 20 ? 1 : 10));
  }
  say("%s is still in use", config.disk);
}
