/* Drills against a disk: the one that the host has planted (its number is known, its content is not), or, on another kernel, the first of that kernel's own. Read, never written. */
#include "drills.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* The first disk of this kernel; 0: none. Not asked for on the host's kernel, whose disks are nobody's business. */
static dev_t own_disk(const struct request *q) {
  char best[256] = "";
  if (!other_kernel(q)) return 0;
  DIR *dir = opendir("/sys/block");
  for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
    const char *name = entry->d_name;
    if (*name == '.' || strncmp(name, "loop", 4) == 0 || strncmp(name, "ram", 3) == 0 || strncmp(name, "zram", 4) == 0) continue;
    if (*best == 0 || strcmp(name, best) < 0) snprintf(best, sizeof best, "%s", name);
  }
  if (dir != NULL) closedir(dir);
  char path[300], text[32];
  unsigned major, minor;
  snprintf(path, sizeof path, "/sys/block/%s/dev", best);
  return *best != 0 && slurp(path, text, sizeof text) > 0 && sscanf(text, "%u:%u", &major, &minor) == 2 ? makedev(major, minor) : 0;
}

typedef bool (*reacher)(const char *node, const char *dir, struct result *r);

/* With a node below one of the container's own file systems: its root, or its /dev, where nodes may work when those of the root do not. */
static bool try_disk(dev_t device, reacher reach, struct result *r) {
  char dir[SCRATCH], node[SCRATCH + 8];
  bool done = false;
  for (int place = 0; place < 2 && !done; place++) {
    if (!(place == 0 ? scratch(dir) : scratch_dev(dir))) {
      r->error = errno;
      continue;
    }
    snprintf(node, sizeof node, "%s/disk", dir);
    if (mknod(node, S_IFBLK | 0600, device) < 0) r->error = errno;
    else done = reach(node, dir, r);
    unlink(node);
    rmdir(dir);
  }
  return done;
}

/* The planted disk, and where that is none of this kernel's, its own. */
static void try_disks(const struct request *q, struct result *r, reacher reach) {
  for (int own = 0; own < 2 && !r->done; own++) {
    dev_t device = own ? own_disk(q) : q->device;
    if (device == 0) continue;
    r->done = try_disk(device, reach, r);
    say(r, "%s, %u:%u", own ? "a disk of its own kernel" : "the disk that the host has planted", major(device), minor(device));
  }
}

static bool read_node(const char *node, const char *dir, struct result *r) {
  (void)dir;
  char text[4096];
  ssize_t n = slurp(node, text, sizeof text);
  if (n <= 0) {
    r->error = errno;
    return false;
  }
  find_tokens(r, text, (size_t)n);
  r->number = n;
  return true;
}

static bool mount_node(const char *node, const char *dir, struct result *r) {
  static const char *const types[] = {"ext4", "ext2", "erofs"};
  char target[SCRATCH + 8];
  bool mounted = false;
  snprintf(target, sizeof target, "%s/mount", dir);
  if (mkdir(target, 0700) < 0) {
    r->error = errno;
    return false;
  }
  for (size_t i = 0; i < sizeof types / sizeof *types && !mounted; i++) {
    mounted = mount(node, target, types[i], MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0;
    if (!mounted) r->error = errno;
  }
  if (mounted) {
    DIR *list = opendir(target);
    for (struct dirent *entry; list != NULL && (entry = readdir(list)) != NULL; r->number++) find_tokens(r, entry->d_name, strlen(entry->d_name));
    if (list != NULL) closedir(list);
    umount2(target, MNT_DETACH);
  }
  rmdir(target);
  return mounted;
}

void drill_mknod(const struct request *q, struct result *r) {
  try_disks(q, r, read_node);
}

void drill_mount(const struct request *q, struct result *r) {
  try_disks(q, r, mount_node);
}
