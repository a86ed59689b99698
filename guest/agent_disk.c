/* The container's root: the image (EROFS, read-only) under the writable disk (ext4), joined by overlayfs; and the files that
 * Docker binds over /etc. All in the agent's own mount namespace; the container gets a copy of it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"

#define DEVICE_WAIT_MS 3000
#define DIR_UPPER DIR_DISK "/upper"
#define DIR_WORK DIR_DISK "/work"

static const char *disk_device; /* NULL: not mounted */
static bool disk_new; /* mounted before HELLO: nobody has used it */
static bool root_ready; /* so is the container's root: a template of one image */

/* A device may be probed a moment after its module is there. */
static void wait_for(const char *device) {
  struct stat st;
  for (int64_t limit = now_ms() + DEVICE_WAIT_MS; stat(device, &st) < 0 && now_ms() < limit;) usleep(1000);
}

static bool mount_on(const char *source, const char *target, const char *type, unsigned long flags, const char *data, char *message) {
  if (mkdir(target, 0755) < 0 && errno != EEXIST) return fail(message, "%s: %s", target, strerror(errno));
  return mount(source, target, type, flags, data) == 0 || fail(message, "mount %s on %s: %s", source, target, strerror(errno));
}

void etc_prepare(void) {
  char message[MESSAGE_MAX];
  if (!mount_on("tmpfs", DIR_FILES, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0755,size=4m", message)) die("%s", message);
  for (size_t i = 0; i < ETC_FILES; i++)
    if (make_file(etc_files[i].source) < 0) die("%s", etc_files[i].source);
}

static bool write_file(const char *key, const char *path, char *message) {
  const char *text = text_find(config.text, config.size, key);
  if (text == NULL) return unlink(path) == 0 || errno == ENOENT || fail(message, "%s: %s", path, strerror(errno)); /* the image's own file stays */
  int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
  size_t size = strlen(text);
  if (fd < 0 || write(fd, text, size) != (ssize_t)size) {
    if (fd >= 0) close(fd);
    return fail(message, "%s: %s", path, strerror(errno));
  }
  close(fd);
  return true;
}

static bool write_files(char *message) {
  for (size_t i = 0; i < ETC_FILES; i++)
    if (!write_file(etc_files[i].key, etc_files[i].source, message)) return false;
  return true;
}

/* The root directory of an overlay is the upper one: on a new disk it takes owner and mode of the image's. */
static bool upper_dir(char *message) {
  struct stat lower, upper;
  if (mkdir(DIR_UPPER, 0755) < 0 && (errno != EEXIST || !disk_new)) return errno == EEXIST || fail(message, "%s: %s", DIR_UPPER, strerror(errno));
  if (stat(DIR_LOWER, &lower) < 0 || stat(DIR_UPPER, &upper) < 0) return fail(message, "%s: %s", DIR_UPPER, strerror(errno));
  /* Most images' root is what a new directory is: then nothing is written. */
  if ((lower.st_uid != upper.st_uid || lower.st_gid != upper.st_gid) && chown(DIR_UPPER, lower.st_uid, lower.st_gid) < 0)
    return fail(message, "%s: %s", DIR_UPPER, strerror(errno));
  return ((lower.st_mode ^ upper.st_mode) & 07777) == 0 || chmod(DIR_UPPER, lower.st_mode & 07777) == 0 || fail(message, "%s: %s", DIR_UPPER, strerror(errno));
}

static bool work_dir(char *message) {
  return mkdir(DIR_WORK, 0700) == 0 || errno == EEXIST || fail(message, "%s: %s", DIR_WORK, strerror(errno));
}

static bool disk_mount(const char *device, char *message) {
  wait_for(device);
  /* No background thread that writes a fresh disk's inode tables and reads its bitmaps while the workload starts. */
  if (!mount_on(device, DIR_DISK, "ext4", MS_NODEV | MS_NOATIME, "noinit_itable,no_prefetch_block_bitmaps", message)) return false;
  disk_device = device;
  return true;
}

/* QEMU does not save the state of a virtio-pmem: in a clone nobody answers a flush, and whoever waits for one waits for ever. A device without a write cache is sent none. */
static void image_without_flush(void) {
  static bool done;
  if (!done) done = file_write("/sys/block/pmem0/queue/write_cache", "write through") == 0;
}

static bool image_mount(const char *device, char *message) {
  wait_for(device);
  /* Persistent memory is the host's page cache: the image's pages are mapped from there, not copied (DAX). */
  const char *options = strncmp(device, "/dev/pmem", 9) == 0 ? "dax=always" : NULL;
  if (options != NULL) image_without_flush();
  return mount_on(device, DIR_LOWER, "erofs", MS_RDONLY | MS_NODEV, options, message);
}

static bool overlay_mount(char *message) {
  return upper_dir(message) && work_dir(message) &&
         mount_on("overlay", DIR_ROOT, "overlay", MS_NODEV, "lowerdir=" DIR_LOWER ",upperdir=" DIR_UPPER ",workdir=" DIR_WORK, message);
}

/* What every container is mounted over. Made by a process that has the container's root for its own: the image's symbolic links lead nowhere else. Whatever fails here is told when a container's own start comes to it. */
static void places_prepare(void) {
  int status;
  pid_t pid = fork();
  if (pid == 0) {
    if (chroot(DIR_ROOT) < 0 || chdir("/") < 0) _exit(1);
    container_places();
    _exit(0);
  }
  while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
}

bool disk_prepare(void) {
  char message[MESSAGE_MAX];
  image_without_flush(); /* here for the clones' sake, if it is there by now */
  const char *disk = getenv("hull_disk"), *root = getenv("hull_root"); /* the kernel hands on what it does not know of its command line */
  if (disk == NULL) return false;
  if (!disk_mount(disk, message) || !work_dir(message)) die("%s", message);
  if (mkdir(DIR_UPPER, 0755) < 0) die("%s: %s", DIR_UPPER, strerror(errno));
  disk_new = true;
  if (root != NULL) {
    if (!image_mount(root, message) || !overlay_mount(message)) die("%s", message);
    places_prepare();
    root_ready = true;
  }
  sync(); /* the template's copy of the disk and its memory belong together; the less of it is in memory, the less each clone writes */
  return root_ready;
}

bool root_mount(const struct config *c, char *message) {
  if (root_ready) return write_files(message);
  if (*c->root == 0) return fail(message, "no root device");
  if (!image_mount(c->root, message)) return false;
  if (*c->disk != 0) {
    if (disk_device == NULL && !disk_mount(c->disk, message)) return false;
  } else if (!mount_on("tmpfs", DIR_DISK, "tmpfs", MS_NODEV, "mode=0755", message)) {
    return false;
  }
  return overlay_mount(message) && write_files(message);
}

void root_unmount(void) {
  waiting_drop();
  namespaces_release();
  shares_unmount();
  if (disk_device == NULL) return;
  int fd = open(DIR_DISK, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0) {
    syncfs(fd); /* what follows is only about a clean journal */
    close(fd);
  }
  umount2(DIR_ROOT, MNT_DETACH);
  umount2(DIR_DISK, MNT_DETACH);
  /* The last reference may be dropped by a kernel worker a moment later. O_EXCL opens when no mount holds the device. */
  for (int i = 0; i < 200; i++) {
    int device = open(disk_device, O_RDONLY | O_EXCL | O_CLOEXEC);
    if (device >= 0) {
      close(device);
      disk_device = NULL;
      return;
    }
    usleep(1000 * (useconds_t)(i < 20 ? 1 : 10));
  }
  say("%s is still in use", disk_device);
  disk_device = NULL;
}

void root_leave(void) {
  /* A disk that was there before the rehearsal stays mounted: of what is on it, its mount namespace's end takes the rest. */
  if (!disk_new) root_unmount();
}
