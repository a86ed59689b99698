#include "unpack.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Members of one directory follow one another: keep the last parent open. Forgotten whenever something is removed, because
 * the name may then mean another directory. */
static int cached = -1;
static char cached_name[NAME_LIMIT];

static void forget_parent(void) {
  if (cached >= 0) close(cached);
  cached = -1;
}

static int open_directory(const char *path) {
  return open(path[0] == '\0' ? "/" : path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* mkdir -p; parents that the archive does not name are root's, 0755, as Docker makes them. */
static int make_parents(const char *name) {
  char path[NAME_LIMIT];
  size_t length = strlen(name);
  memcpy(path, name, length + 1);
  for (size_t i = 1; i <= length; i++) {
    if (path[i] != '/' && path[i] != '\0') continue;
    path[i] = '\0';
    if (mkdirat(AT_FDCWD, path, 0755) != 0 && errno != EEXIST) return -1;
    struct stat st;
    /* A file where a directory must be is replaced, as the later entry of an archive always wins. */
    if (fstatat(AT_FDCWD, path, &st, AT_SYMLINK_NOFOLLOW) != 0) return -1;
    if (!S_ISDIR(st.st_mode) && !S_ISLNK(st.st_mode)) {
      if (unlinkat(AT_FDCWD, path, 0) != 0 || mkdirat(AT_FDCWD, path, 0755) != 0) return -1;
    }
    if (i < length) path[i] = '/';
  }
  return 0;
}

int tree_parent(const char *parent) {
  if (cached >= 0 && strcmp(parent, cached_name) == 0) return cached;
  forget_parent();
  int fd = open_directory(parent);
  if (fd < 0 && (errno == ENOENT || errno == ENOTDIR) && make_parents(parent) == 0) fd = open_directory(parent);
  if (fd < 0) return -1;
  cached = fd;
  strcpy(cached_name, parent);
  return fd;
}

/* Depth first, one descriptor a level; a tree deeper than the descriptors allow is refused. */
static int remove_below(int parent, const char *name, int depth) {
  if (unlinkat(parent, name, 0) == 0) return 0;
  if (errno == ENOENT) return 0;
  if (errno != EISDIR && errno != EPERM) return -1;
  if (unlinkat(parent, name, AT_REMOVEDIR) == 0) return 0;
  if (errno != ENOTEMPTY && errno != EEXIST) return -1;
  if (depth > 40) {
    errno = ELOOP;
    return -1;
  }
  int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return -1;
  DIR *directory = fdopendir(fd);
  if (directory == NULL) {
    close(fd);
    return -1;
  }
  int result = 0;
  for (struct dirent *entry; result == 0 && (entry = readdir(directory)) != NULL;) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    result = remove_below(fd, entry->d_name, depth + 1);
  }
  int saved = errno;
  closedir(directory);
  errno = saved;
  return result != 0 ? -1 : unlinkat(parent, name, AT_REMOVEDIR);
}

int tree_remove(int parent, const char *name) {
  int result = remove_below(parent, name, 0);
  int saved = errno;
  cached_name[0] = '/'; /* matches no cleaned name: the descriptor stays open for our caller, the next look-up opens anew */
  cached_name[1] = '\0';
  errno = saved;
  return result;
}

struct times {
  char *path;
  int64_t sec;
  long nsec;
  uint64_t device, inode;
};
static struct times *directories;
static size_t count, capacity;

void tree_remember_times(const char *path, int64_t sec, long nsec, uint64_t device, uint64_t inode) {
  if (count == capacity) {
    size_t larger = capacity == 0 ? 256 : capacity * 2;
    struct times *grown = realloc(directories, larger * sizeof *grown);
    if (grown == NULL) {
      fail(ENOMEM, "too many directories");
      return;
    }
    directories = grown;
    capacity = larger;
  }
  char *copy = strdup(path);
  if (copy == NULL) {
    fail(ENOMEM, "too many directories");
    return;
  }
  directories[count++] = (struct times){copy, sec, nsec, device, inode};
}

void tree_apply_times(void) {
  forget_parent();
  for (size_t i = 0; i < count; i++) {
    const struct times *t = &directories[i];
    struct stat st;
    const char *path = t->path[0] == '\0' ? "/" : t->path;
    /* The name may have become something else since: only the directory that was made then is meant. */
    if (fstatat(AT_FDCWD, path, &st, AT_SYMLINK_NOFOLLOW) != 0 || st.st_dev != t->device || st.st_ino != t->inode) continue;
    struct timespec both[2] = {{t->sec, t->nsec}, {t->sec, t->nsec}};
    if (utimensat(AT_FDCWD, path, both, AT_SYMLINK_NOFOLLOW) != 0) fail(errno, "times of \"%s\"", path);
  }
}
