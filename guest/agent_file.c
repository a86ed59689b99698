/* Small files: cgroup knobs, sysctls, /etc/passwd. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"

int file_write(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) return -errno;
  size_t size = strlen(text);
  ssize_t n = write(fd, text, size);
  int error = n < 0 ? -errno : (size_t)n < size ? -EIO : 0;
  close(fd);
  return error;
}

ssize_t file_read(const char *path, char *buffer, size_t size, bool regular) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* a FIFO must not stop us */
  if (fd < 0) return -errno;
  struct stat st;
  ssize_t total = 0;
  if (regular && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))) total = -EINVAL;
  while (total >= 0 && (size_t)total < size - 1) {
    ssize_t n = read(fd, buffer + total, size - 1 - (size_t)total);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) total = -errno;
    if (n <= 0) break;
    total += n;
  }
  close(fd);
  buffer[total > 0 ? total : 0] = 0;
  return total;
}

int make_dirs(const char *path) {
  char part[PATH_MAX];
  size_t length = strlen(path);
  if (length == 0 || length >= sizeof part) return -ENAMETOOLONG;
  memcpy(part, path, length + 1);
  for (size_t i = 1; i <= length; i++) {
    if (part[i] != '/' && part[i] != 0) continue;
    char saved = part[i];
    part[i] = 0;
    struct stat st;
    if (mkdir(part, 0755) < 0) {
      if (errno != EEXIST) return -errno;
      if (stat(part, &st) < 0) return -errno;
      if (!S_ISDIR(st.st_mode)) return -ENOTDIR;
    }
    part[i] = saved;
  }
  return 0;
}

int make_file(const char *path) {
  char parent[PATH_MAX];
  struct stat st;
  if (stat(path, &st) == 0) return 0;
  size_t length = strlen(path);
  if (length >= sizeof parent) return -ENAMETOOLONG;
  memcpy(parent, path, length + 1);
  char *slash = strrchr(parent, '/');
  if (slash != NULL && slash != parent) {
    *slash = 0;
    int error = make_dirs(parent);
    if (error < 0) return error;
  }
  int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0644);
  if (fd < 0) return -errno;
  close(fd);
  return 0;
}
