/* File shares: one virtiofs with a directory or file for each mount at /INDEX. What is read-only is so on the host already; what is said here
 * is for the workload to see. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent.h"

#define TAG "hull"
#define DEVICE_WAIT_MS 3000
#define TREE_CLONED (1u | O_CLOEXEC) /* OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC */
#define TREE_WHOLE 0x8000u           /* AT_RECURSIVE */
#define MOVE_FROM_FD 4u              /* MOVE_MOUNT_F_EMPTY_PATH */
#define MOVE_FOLLOW 16u              /* MOVE_MOUNT_T_SYMLINKS: as mount(2) does; inside the container that leads nowhere else */

static bool mounted;

struct attributes { /* struct mount_attr, linux/mount.h */
  uint64_t set, clear, propagation, userns;
};
#define ATTRIBUTE_RDONLY 1u

static const char *share_entry(const char *entry) { return strncmp(entry, "share:", 6) == 0 ? entry + 6 : NULL; }

bool shares_any(const struct config *c) {
  for (size_t i = 0; i < c->mounts.count; i++)
    if (share_entry(c->mounts.items[i]) != NULL) return true;
  return false;
}

bool shares_mount(const struct config *c, char *message) {
  size_t count = 0;
  for (size_t i = 0; i < c->mounts.count; i++) count += share_entry(c->mounts.items[i]) != NULL;
  if (count == 0) return true;
  if (!load_modules("/modules/shares", message)) return false;
  if (mkdir(DIR_SHARES, 0700) < 0 && errno != EEXIST) return fail(message, "%s: %s", DIR_SHARES, strerror(errno));
  /* A device may be probed a moment after its module is there: EINVAL is "no such tag". In the clone of a template it is new: nobody has looked at its place on the bus yet. */
  int64_t limit = now_ms() + DEVICE_WAIT_MS;
  for (bool looked = false; mount(TAG, DIR_SHARES, "virtiofs", MS_NODEV, NULL) < 0; looked = true) {
    if (errno != EINVAL || now_ms() >= limit) return fail(message, "mount the file shares: %s", strerror(errno));
    int error = looked ? 0 : file_write("/sys/bus/pci/rescan", "1");
    if (error < 0) return fail(message, "look for the file shares: %s", strerror(-error));
    if (looked) usleep(1000);
  }
  mounted = true;
  return true;
}

void shares_unmount(void) {
  if (!mounted) return;
  mounted = false;
  /* Nobody is left in there: what a shared mapping wrote goes out now. */
  sync();
  umount2(DIR_SHARES, MNT_DETACH);
}

/* INDEX:OPTIONS:TARGET */
static bool take(const char *entry, struct share *share, char *message) {
  char path[64];
  size_t index = strspn(entry, "0123456789"), options = strcspn(entry + index, ":") == 0 ? strcspn(entry + index + 1, ":") : 0;
  const char *words = entry + index + 1;
  if (index == 0 || index > 8 || entry[index] != ':' || words[options] != ':' || words[options + 1] != '/')
    return fail(message, "invalid share: %.200s", entry);
  share->target = words + options + 1;
  snprintf(path, sizeof path, DIR_SHARES "/%.*s", (int)index, entry);
  share->tree = (int)syscall(SYS_open_tree, AT_FDCWD, path, TREE_CLONED | TREE_WHOLE);
  if (share->tree < 0) return fail(message, "share for %.200s: %s", share->target, strerror(errno));
  struct attributes attributes = {.set = ATTRIBUTE_RDONLY};
  bool readonly = options == 2 && memcmp(words, "ro", 2) == 0;
  if (!readonly && options > 0) return fail(message, "invalid share option: %.200s", entry);
  if (readonly && syscall(SYS_mount_setattr, share->tree, "", AT_EMPTY_PATH | TREE_WHOLE, &attributes, sizeof attributes) < 0)
    return fail(message, "read-only %.200s: %s", share->target, strerror(errno));
  return true;
}

static bool take_socket(const char *entry, struct share *share, char *message) {
  char path[64];
  snprintf(path, sizeof path, DIR_FILES "/socket-%.*s", (int)strspn(entry, "0123456789"), entry);
  const char *at = entry;
  for (int fields = 0; fields < 4 && at != NULL; fields++) at = (at = strchr(at, ':')) == NULL ? NULL : at + 1;
  if (at == NULL || *at != '/') return fail(message, "invalid socket: %.200s", entry);
  share->target = at;
  share->tree = (int)syscall(SYS_open_tree, AT_FDCWD, path, TREE_CLONED);
  return share->tree >= 0 || fail(message, "socket for %.200s: %s", at, strerror(errno));
}

const char *share_source(const char *entry, char *source, size_t size, bool *readonly) {
  const char *share = share_entry(entry), *words = share == NULL ? NULL : strchr(share, ':');
  const char *target = words == NULL ? NULL : strchr(words + 1, ':');
  if (target == NULL) return NULL;
  *readonly = target - words == 3 && memcmp(words + 1, "ro", 2) == 0;
  snprintf(source, size, DIR_SHARES "/%.*s", (int)(words - share), share);
  return target + 1;
}

bool shares_take(const struct config *c, struct share *shares, char *message) {
  for (size_t i = 0; i < c->mounts.count; i++) {
    const char *entry = share_entry(c->mounts.items[i]), *socket = socket_entry(c->mounts.items[i]);
    shares[i] = (struct share){.tree = -1};
    if (socket != NULL && !take_socket(socket, shares + i, message)) return false;
    if (entry != NULL && !take(entry, shares + i, message)) return false;
  }
  return true;
}

bool share_place(struct share *share, char *message) {
  struct stat st;
  if (share->tree < 0 || fstat(share->tree, &st) < 0) return fail(message, "invalid mount");
  int error = S_ISDIR(st.st_mode) ? make_dirs(share->target) : make_file(share->target);
  if (error < 0) return fail(message, "mount %.200s: %s", share->target, strerror(-error));
  if (syscall(SYS_move_mount, share->tree, "", AT_FDCWD, share->target, MOVE_FROM_FD | MOVE_FOLLOW) < 0)
    return fail(message, "mount %.200s: %s", share->target, strerror(errno));
  close(share->tree);
  share->tree = -1;
  return true;
}
