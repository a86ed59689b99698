#include "exercises.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#define PIECE 65536
#define PIECES 8

static char buffer[PIECE];

/* Of the image's root before the rest: that is what has the disk, or its hypervisor, below it. */
static int place(void) {
  static const char *const places[] = {"/", "/tmp", "/var/tmp", "/dev/shm"};
  char path[64];
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    snprintf(path, sizeof path, "%s/.hull-exercise", places[i]);
    TRY(mkdir(path, 0700)); /* of a run that was ended: goes on there */
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory >= 0 && faccessat(directory, ".", W_OK, 0) == 0) return directory;
    if (directory >= 0) close(directory);
  }
  return -1;
}

static void leave(int directory) {
  char path[64], link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
  ssize_t length = readlink(link, path, sizeof path - 1);
  close(directory);
  if (length <= 0) return;
  path[length] = 0;
  TRY(rmdir(path));
}

static void write_and_read(int directory) {
  int fd = openat(directory, "data", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return;
  memset(buffer, 'x', sizeof buffer);
  for (int n = 0; n < PIECES; n++) TRY(write(fd, buffer, sizeof buffer));
  struct iovec parts[] = {{buffer, 100}, {buffer + 100, 4000}};
  TRY(pwritev(fd, parts, 2, 1000));
  TRY(fsync(fd));
  TRY(lseek(fd, 0, SEEK_SET));
  while (read(fd, buffer, sizeof buffer) > 0) continue;
  TRY(pread(fd, buffer, 512, 70000));
  TRY(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
  TRY(pread(fd, buffer, sizeof buffer, 0)); /* from the disk, this time */
  struct stat info;
  TRY(fstat(fd, &info));
  char *mapped = mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mapped != MAP_FAILED) {
    mapped[5000]++;
    TRY(msync(mapped, PIECE, MS_SYNC));
    TRY(munmap(mapped, PIECE));
  }
  int copy = openat(directory, "copy", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (copy >= 0) {
    off_t from = 0;
    TRY(sendfile(copy, fd, &from, PIECE));
    TRY(posix_fallocate(copy, 0, 2 * PIECE));
    TRY(ftruncate(copy, 100));
    TRY(fdatasync(copy));
    close(copy);
  }
  TRY(flock(fd, LOCK_EX));
  TRY(flock(fd, LOCK_UN));
  struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 100};
  TRY(fcntl(fd, F_SETLK, &range));
  int other = fcntl(fd, F_DUPFD_CLOEXEC, 10);
  if (other >= 0) close(other);
  close(fd);
}

static void names(int directory) {
  struct stat info;
  char target[64];
  struct timespec times[2] = {{1, 0}, {2, 0}};
  TRY(fchmodat(directory, "data", 0640, 0));
  TRY(fchownat(directory, "data", getuid(), getgid(), 0));
  TRY(utimensat(directory, "data", times, 0));
  TRY(linkat(directory, "data", directory, "hard", 0));
  TRY(symlinkat("data", directory, "soft"));
  TRY(readlinkat(directory, "soft", target, sizeof target));
  TRY(fstatat(directory, "soft", &info, 0));
  TRY(fstatat(directory, "nothing", &info, 0));
  TRY(mkdirat(directory, "below", 0700));
  TRY(renameat(directory, "data", directory, "below/data"));
  TRY(mkfifoat(directory, "fifo", 0600));
  struct statvfs system;
  TRY(fstatvfs(directory, &system));
  int listed = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *list = listed < 0 ? NULL : fdopendir(listed);
  if (list != NULL) {
    while (readdir(list) != NULL) continue;
    closedir(list);
  }
  for (size_t i = 0; i < 5; i++) TRY(unlinkat(directory, (const char *const[]){"below/data", "copy", "hard", "soft", "fifo"}[i], 0));
  TRY(unlinkat(directory, "below", AT_REMOVEDIR));
}

static void read_all(const char *path, size_t most) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  for (ssize_t n; most > 0 && (n = read(fd, buffer, most < sizeof buffer ? most : sizeof buffer)) > 0;) most -= (size_t)n;
  close(fd);
}

void exercise_files(void) {
  int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK), directory = place();
  if (directory >= 0) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d/.", directory);
    if (watch >= 0) TRY(inotify_add_watch(watch, path, IN_CREATE | IN_MODIFY | IN_DELETE));
    write_and_read(directory);
    names(directory);
    leave(directory);
  }
  if (watch >= 0) {
    TRY(read(watch, buffer, sizeof buffer));
    close(watch);
  }
  /* What a libc, a shell and a language's run time read when they start. */
  static const char *const files[] = {"/proc/self/exe", "/proc/self/maps", "/proc/self/status", "/proc/meminfo", "/proc/stat", "/proc/self/mounts", "/etc/passwd", "/etc/resolv.conf", "/etc/hosts"};
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) read_all(files[i], 1 << 20);
  read_all("/dev/zero", PIECE);
  read_all("/dev/urandom", 256);
  int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (null >= 0) {
    TRY(write(null, buffer, 100));
    close(null);
  }
}
