/* The container's mount namespace, made by its own first process: into the overlay by pivot_root, then every mount by plain paths,
 * which by then cannot lead out of the container whatever symbolic links its image holds. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent.h"

#define OPEN_TREE_CLONED 1u
#define OPEN_TREE_CLOEXECED O_CLOEXEC
#define MOVE_FROM_FD 4u /* MOVE_MOUNT_F_EMPTY_PATH */

const struct etc_file etc_files[ETC_FILES] = {{"etc_hosts", DIR_FILES "/hosts", "/etc/hosts"}, {"etc_hostname", DIR_FILES "/hostname", "/etc/hostname"}, {"etc_resolv", DIR_FILES "/resolv.conf", "/etc/resolv.conf"}};

bool mount_options(const char *options, unsigned long *flags, char *data, size_t data_size) {
  static const struct {
    const char *word;
    unsigned long set, clear;
  } words[] = {{"ro", MS_RDONLY, 0},     {"rw", 0, MS_RDONLY},         {"nosuid", MS_NOSUID, 0},   {"suid", 0, MS_NOSUID},
               {"nodev", MS_NODEV, 0},   {"dev", 0, MS_NODEV},         {"noexec", MS_NOEXEC, 0},   {"exec", 0, MS_NOEXEC},
               {"sync", MS_SYNCHRONOUS, 0}, {"async", 0, MS_SYNCHRONOUS}, {"noatime", MS_NOATIME, 0}, {"atime", 0, MS_NOATIME},
               {"nodiratime", MS_NODIRATIME, 0}, {"diratime", 0, MS_NODIRATIME}, {"relatime", MS_RELATIME, 0},
               {"norelatime", 0, MS_RELATIME}, {"strictatime", MS_STRICTATIME, 0}, {"rprivate", 0, 0}, {"private", 0, 0},
               {"defaults", 0, 0}, {"tmpcopyup", 0, 0}};
  static const char *keys[] = {"size=", "mode=", "uid=", "gid=", "nr_inodes=", "nr_blocks="};
  size_t used = 0;
  data[0] = 0;
  while (*options != 0) {
    size_t length = strcspn(options, ",");
    bool known = length == 0;
    for (size_t i = 0; !known && i < sizeof words / sizeof *words; i++) {
      if (strlen(words[i].word) != length || memcmp(words[i].word, options, length) != 0) continue;
      *flags = (*flags | words[i].set) & ~words[i].clear;
      known = true;
    }
    for (size_t i = 0; !known && i < sizeof keys / sizeof *keys; i++) {
      if (strncmp(options, keys[i], strlen(keys[i])) != 0) continue;
      int n = snprintf(data + used, data_size - used, "%s%.*s", used > 0 ? "," : "", (int)length, options);
      if (n < 0 || (size_t)n >= data_size - used) return false;
      used += (size_t)n;
      known = true;
    }
    if (!known) return false;
    options += length + (options[length] == ',');
  }
  return true;
}

static bool mount_new(const char *type, const char *target, unsigned long flags, char *message) {
  int error = make_dirs(target);
  if (error < 0) return fail(message, "%s: %s", target, strerror(-error));
  return mount(type, target, type, flags, NULL) == 0 || fail(message, "mount %s: %s", target, strerror(errno));
}

/* "OPTIONS:PATH". Without mode= the directory that is there keeps its mode, as runc does it. */
static bool mount_tmpfs(const char *entry, char *message) {
  char options[512], data[512];
  unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
  struct stat st;
  size_t length = strcspn(entry, ":");
  const char *path = entry + length + 1;
  if (length >= sizeof options || entry[length] != ':' || *path != '/') return fail(message, "invalid tmpfs: %.200s", entry);
  memcpy(options, entry, length);
  options[length] = 0;
  if (!mount_options(options, &flags, data, sizeof data)) return fail(message, "invalid tmpfs option: %.200s", entry);
  bool existed = stat(path, &st) == 0;
  int error = make_dirs(path);
  if (error < 0) return fail(message, "tmpfs %.200s: %s", path, strerror(-error));
  if (mount("tmpfs", path, "tmpfs", flags, data) < 0) return fail(message, "tmpfs %.200s: %s", path, strerror(errno));
  if (existed && strstr(data, "mode=") == NULL && chmod(path, st.st_mode & 07777) < 0 && errno != EROFS)
    return fail(message, "tmpfs %.200s: %s", path, strerror(errno));
  return true;
}

/* Runtime-spec linux.maskedPaths: nothing to see at this path. A path that is not there needs no mask. */
static bool mask(const char *path, char *message) {
  struct stat st;
  if (stat(path, &st) < 0) return errno == ENOENT || errno == ENOTDIR || fail(message, "mask %.200s: %s", path, strerror(errno));
  int result = S_ISDIR(st.st_mode) ? mount("tmpfs", path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0k,nr_inodes=1")
                                   : mount("/dev/null", path, NULL, MS_BIND, NULL);
  return result == 0 || fail(message, "mask %.200s: %s", path, strerror(errno));
}

static bool make_readonly(const char *path, char *message) {
  if (mount(path, path, NULL, MS_BIND | MS_REC, NULL) < 0) return errno == ENOENT || fail(message, "%.200s: %s", path, strerror(errno));
  return mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0 ||
         fail(message, "read-only %.200s: %s", path, strerror(errno));
}

/* sysctl(8)'s names: dots and slashes change places when a dot comes first ("net.ipv4.conf.eth0/1.forwarding"). */
static bool set_sysctl(const char *entry, char *message) {
  char path[256] = "/proc/sys/";
  size_t used = strlen(path), length = strcspn(entry, "=");
  if (entry[length] != '=' || length == 0 || used + length >= sizeof path) return fail(message, "invalid sysctl: %.200s", entry);
  bool dots = entry[strcspn(entry, "./=")] == '.';
  for (size_t i = 0; i < length; i++) {
    char ch = entry[i];
    path[used++] = !dots ? ch : ch == '.' ? '/' : ch == '/' ? '.' : ch;
  }
  path[used] = 0;
  if (strstr(path, "..") != NULL) return fail(message, "invalid sysctl: %.200s", entry);
  int error = file_write(path, entry + length + 1);
  return error == 0 || fail(message, "sysctl %.200s: %s", entry, strerror(-error));
}

static const char *starts_with(const char *text, const char *prefix) {
  size_t length = strlen(prefix);
  return strncmp(text, prefix, length) == 0 ? text + length : NULL;
}

static bool pivot(char *message) {
  if (chdir(DIR_ROOT) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
    return fail(message, "pivot_root: %s", strerror(errno));
  return true;
}

void container_places(void) {
  static const char *const directories[] = {"/proc", "/dev", "/sys"};
  for (size_t i = 0; i < sizeof directories / sizeof *directories; i++) make_dirs(directories[i]);
  for (size_t i = 0; i < ETC_FILES; i++) make_file(etc_files[i].target);
}

static bool bind_files(const int *trees, char *message) {
  for (size_t i = 0; i < ETC_FILES; i++) {
    if (trees[i] < 0) continue; /* CONFIG did not name it: the image's own stays */
    int error = make_file(etc_files[i].target);
    if (error < 0) return fail(message, "%s: %s", etc_files[i].target, strerror(-error));
    if (syscall(SYS_move_mount, trees[i], "", AT_FDCWD, etc_files[i].target, MOVE_FROM_FD) < 0)
      return fail(message, "%s: %s", etc_files[i].target, strerror(errno));
    close(trees[i]);
  }
  return true;
}

bool container_enter(const struct config *c, char *message) {
  int trees[ETC_FILES];
  const unsigned long quiet = MS_NOSUID | MS_NOEXEC | MS_NODEV, fixed = c->privileged ? 0 : MS_RDONLY;
  for (size_t i = 0; i < ETC_FILES; i++)
    trees[i] = (int)syscall(SYS_open_tree, AT_FDCWD, etc_files[i].source, OPEN_TREE_CLONED | OPEN_TREE_CLOEXECED);
  return pivot(message) && mount_new("proc", "/proc", quiet, message) && container_dev(c, message) &&
         mount_new("sysfs", "/sys", quiet | fixed, message) && mount_new("cgroup2", "/sys/fs/cgroup", quiet | fixed, message) &&
         bind_files(trees, message);
}

bool container_furnish(const struct config *c, struct share *shares, const char *cwd, bool tty, char *message) {
  if (sethostname(c->hostname, strlen(c->hostname)) < 0) return fail(message, "hostname: %s", strerror(errno));
  if (*c->domainname != 0 && setdomainname(c->domainname, strlen(c->domainname)) < 0) return fail(message, "domain name: %s", strerror(errno));
  if (tty && make_file("/dev/console") < 0) return fail(message, "/dev/console: %s", strerror(errno));
  for (size_t i = 0; i < c->mounts.count; i++) {
    const char *tmpfs = starts_with(c->mounts.items[i], "tmpfs:");
    if (tmpfs != NULL ? !mount_tmpfs(tmpfs, message) : !share_place(shares + i, message)) return false;
  }
  for (size_t i = 0; i < c->sysctls.count; i++)
    if (!set_sysctl(c->sysctls.items[i], message)) return false;
  int error = make_dirs(cwd);
  /* A working directory that cannot be made is told by chdir, in Docker's words. */
  if (error < 0 && error != -ENOTDIR && error != -EROFS) say("%s: %s", cwd, strerror(-error));
  if (c->readonly && mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV, NULL) < 0)
    return fail(message, "read-only root: %s", strerror(errno));
  return true;
}

bool container_hide(const struct config *c, char *message) {
  for (size_t i = 0; i < c->ropaths.count; i++)
    if (!make_readonly(c->ropaths.items[i], message)) return false;
  for (size_t i = 0; i < c->masked.count; i++)
    if (!mask(c->masked.items[i], message)) return false;
  return true;
}
