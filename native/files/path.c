#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

int open_in(int directory, const char *path, int how) {
  struct open_how wanted = {.flags = (uint64_t)(how | O_CLOEXEC), .resolve = RESOLVE_NO_MAGICLINKS};
  return (int)syscall(SYS_openat2, directory, *path == 0 ? "." : path, &wanted, sizeof wanted);
}

int open_regular(int directory, const char *name, struct stat *st) {
  int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (fd < 0) return -1;
  if (fstat(fd, st) == 0 && S_ISREG(st->st_mode)) return fd;
  close(fd);
  errno = EINVAL;
  return -1;
}

void follow(const char *path, char out[PATH_LIMIT]) {
  char rest[2 * PATH_LIMIT], link[PATH_LIMIT];
  size_t used = 0;
  int links = 0;
  snprintf(rest, sizeof rest, "%s", path);
  out[0] = 0;
  for (char *p = rest; *p != 0;) {
    size_t length = strcspn(p, "/");
    if (length == 0 || (length == 1 && *p == '.')) {
      p += length + (p[length] == '/');
      continue;
    }
    if (length == 2 && p[0] == '.' && p[1] == '.') {
      while (used > 0 && out[--used] != '/') {
      }
      out[used] = 0;
      p += length + (p[length] == '/');
      continue;
    }
    if (used + length + 2 > PATH_LIMIT) die(ENAMETOOLONG, "%s", path);
    size_t before = used;
    out[used++] = '/';
    memcpy(out + used, p, length);
    used += length;
    out[used] = 0;
    p += length;
    ssize_t n = readlinkat(AT_FDCWD, out, link, sizeof link - 1);
    if (n < 0) continue; /* no link, or not there */
    if (++links > 255) die(ELOOP, "%s", path);
    link[n] = 0;
    char joined[2 * PATH_LIMIT];
    if (snprintf(joined, sizeof joined, "%s%s", link, p) >= PATH_LIMIT) die(ENAMETOOLONG, "%s", path);
    memcpy(rest, joined, strlen(joined) + 1);
    used = link[0] == '/' ? 0 : before;
    out[used] = 0;
    p = rest;
  }
  if (used == 0) strcpy(out, "/");
}

bool clean_name(const char *name, char *out, size_t size) {
  size_t used = 0;
  out[0] = 0;
  for (const char *p = name; *p != 0;) {
    while (*p == '/') p++;
    size_t length = strcspn(p, "/");
    if (length == 2 && p[0] == '.' && p[1] == '.') {
      if (used == 0) return false;
      while (used > 0 && out[used - 1] != '/') used--;
      if (used > 0) used--;
    } else if (length > 0 && !(length == 1 && p[0] == '.')) {
      if (used + length + 2 > size) return false;
      if (used > 0) out[used++] = '/';
      memcpy(out + used, p, length);
      used += length;
    }
    out[used] = 0;
    p += length;
  }
  return true;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

char **list_names(int fd) {
  DIR *directory = fdopendir(fd);
  if (directory == NULL) {
    close(fd);
    return NULL;
  }
  size_t count = 0, room = 64;
  char **names = malloc(room * sizeof *names);
  errno = 0;
  for (struct dirent *entry; names != NULL && (entry = readdir(directory)) != NULL; errno = 0) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    if (count + 1 == room) {
      char **more = realloc(names, (room *= 2) * sizeof *names);
      if (more == NULL) die(ENOMEM, "a directory with too many names");
      names = more;
    }
    names[count] = strdup(entry->d_name);
    if (names[count++] == NULL) die(ENOMEM, "a directory with too many names");
  }
  int error = errno;
  closedir(directory);
  if (names == NULL || error != 0) {
    errno = names == NULL ? ENOMEM : error;
    return NULL;
  }
  names[count] = NULL;
  qsort(names, count, sizeof *names, by_name);
  return names;
}

void free_names(char **names) {
  for (char **name = names; *name != NULL; name++) free(*name);
  free(names);
}

int make_directories(int directory, const char *path) {
  char part[NAME_LIMIT];
  size_t length = strlen(path);
  if (length >= sizeof part) return errno = ENAMETOOLONG, -1;
  memcpy(part, path, length + 1);
  for (size_t i = 1; i <= length; i++) {
    if (part[i] != '/' && part[i] != 0) continue;
    char saved = part[i];
    part[i] = 0;
    if (mkdirat(directory, part, 0755) < 0 && errno != EEXIST) return -1;
    part[i] = saved;
  }
  return open_in(directory, path, O_PATH | O_DIRECTORY);
}

static int remove_below(int directory, const char *name, int depth) {
  if (unlinkat(directory, name, 0) == 0 || errno == ENOENT) return 0;
  if (errno != EISDIR && errno != EPERM) return -1;
  if (unlinkat(directory, name, AT_REMOVEDIR) == 0) return 0;
  if (errno != ENOTEMPTY && errno != EEXIST) return -1;
  if (depth > DEPTH_LIMIT) return errno = ELOOP, -1;
  int fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  char **names = fd < 0 ? NULL : list_names(fcntl(fd, F_DUPFD_CLOEXEC, 3));
  int result = names == NULL ? -1 : 0;
  for (char **each = names; result == 0 && *each != NULL; each++) result = remove_below(fd, *each, depth + 1);
  int error = errno;
  if (names != NULL) free_names(names);
  if (fd >= 0) close(fd);
  errno = error;
  return result < 0 ? -1 : unlinkat(directory, name, AT_REMOVEDIR);
}

int remove_all(int directory, const char *name) { return remove_below(directory, name, 0); }

bool is_whiteout(const struct stat *st) { return S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0); }

bool is_opaque(int fd) {
  char value[4];
  /* Our overlays are mounted without these; a layer with them would not mean what it says when it is read on its own. */
  if (fgetxattr(fd, "trusted.overlay.redirect", NULL, 0) >= 0 || fgetxattr(fd, "trusted.overlay.metacopy", NULL, 0) >= 0)
    die(0, "the writable layer has overlayfs redirects");
  return fgetxattr(fd, "trusted.overlay.opaque", value, sizeof value) == 1 && value[0] == 'y';
}
