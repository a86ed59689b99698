/* What the writable layer changes, as docker diff tells it; and what it weighs. */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int lower[512];
static size_t lower_count;
static char path[NAME_LIMIT]; /* "/a/b" */
static int depth;

/* ---- the image below ---------------------------------------------------------------------------------------------------- */

/* One layer's word on `path`: 1 there (st), 0 says nothing, -1 hides what is below. */
static int layer_says(int layer, const char *name, struct stat *st) {
  char part[NAME_LIMIT];
  int fd = fcntl(layer, F_DUPFD_CLOEXEC, 3), verdict = 0;
  strcpy(part, name + 1);
  char *rest = part;
  for (;;) {
    char *slash = strchr(rest, '/');
    if (slash != NULL) *slash = 0;
    if (fd < 0 || fstatat(fd, rest, st, AT_SYMLINK_NOFOLLOW) < 0) break;
    if (is_whiteout(st)) {
      verdict = -1;
      break;
    }
    if (slash == NULL) {
      verdict = 1;
      break;
    }
    int next = S_ISDIR(st->st_mode) ? openat(fd, rest, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
    if (next < 0) {
      verdict = -1; /* a file where a lower layer may have a directory */
      break;
    }
    close(fd);
    fd = next;
    if (is_opaque(fd)) verdict = -1; /* unless it is found further on */
    rest = slash + 1;
  }
  if (fd >= 0) close(fd);
  return verdict;
}

/* What the image has at `name`. Its owners are the container's own ids already. */
static bool in_image(const char *name, struct stat *st) {
  for (size_t i = lower_count; i-- > 0;) {
    int verdict = layer_says(lower[i], name, st);
    if (verdict != 0) return verdict > 0;
  }
  return false;
}

/* ---- the changes ------------------------------------------------------------------------------------------------------------ */

static char **lines;
static size_t count, room;

static void change(char kind, const char *name) {
  if (count == room) {
    lines = realloc(lines, (room = room == 0 ? 1024 : room * 2) * sizeof *lines);
    if (lines == NULL) die(ENOMEM, "too many changes");
  }
  char *line = malloc(strlen(name) + 2);
  if (line == NULL) die(ENOMEM, "too many changes");
  line[0] = kind;
  strcpy(line + 1, name);
  lines[count++] = line;
}

/* Compares the names alone, as docker sorts. */
static int by_path(const void *a, const void *b) { return strcmp(*(char *const *)a + 1, *(char *const *)b + 1); }

/* True: something in it is the user's. */
static bool below(int fd) {
  bool any = false;
  size_t length = strlen(path);
  if (++depth > DEPTH_LIMIT) die(0, "the directories are nested too deeply");
  int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  char **names = copy < 0 ? NULL : list_names(copy);
  if (names == NULL) die(errno, "%s", path);
  if (*names == NULL) any = true; /* an empty copy of a directory: it was changed itself */
  for (char **each = names; *each != NULL; each++) {
    struct stat st, old;
    if (fstatat(fd, *each, &st, AT_SYMLINK_NOFOLLOW) < 0) continue;
    if (length + strlen(*each) + 2 > sizeof path) die(ENAMETOOLONG, "%s", *each);
    sprintf(path + length, "/%s", *each);
    if (is_mountpoint_of_ours(path + 1, &st)) continue;
    bool existed = in_image(path, &old);
    if (is_whiteout(&st)) {
      change('D', path);
      any = true;
      continue;
    }
    if (!S_ISDIR(st.st_mode)) {
      change(existed ? 'C' : 'A', path);
      any = true;
      continue;
    }
    int child = openat(fd, *each, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (child < 0) continue;
    bool users = below(child);
    close(child);
    bool same = existed && S_ISDIR(old.st_mode) && st.st_mode == old.st_mode && id_inside(&uid_map, st.st_uid) == old.st_uid && id_inside(&gid_map, st.st_gid) == old.st_gid;
    bool touched = !same || st.st_mtim.tv_sec != old.st_mtim.tv_sec || st.st_mtim.tv_nsec != old.st_mtim.tv_nsec;
    if (!existed) change('A', path);
    else if (!same || (touched && users)) change('C', path);
    if (!existed || !same || users) any = true;
  }
  path[length] = 0;
  free_names(names);
  depth--;
  return any;
}

void op_changes(size_t lowers) {
  if (lowers > sizeof lower / sizeof *lower) die(0, "too many layers");
  for (size_t i = 0; i < lowers; i++) {
    char name[32];
    snprintf(name, sizeof name, "/lower/%zu", i);
    lower[i] = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lower[i] < 0) die(errno, "open a layer");
  }
  lower_count = lowers;
  int fd = open("/upper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) die(errno, "open the writable layer");
  below(fd);
  qsort(lines, count, sizeof *lines, by_path);
  for (size_t i = 0; i < count; i++) {
    size_t size = strlen(lines[i]) + 1;
    for (size_t at = 0; at < size;) {
      ssize_t n = write(STDOUT_FILENO, lines[i] + at, size - at);
      if (n < 0 && errno != EINTR) _exit(3);
      if (n > 0) at += (size_t)n;
    }
  }
  report_done(0);
}

/* ---- size ------------------------------------------------------------------------------------------------------------------------- */

#define BUCKETS 65536
static struct inode {
  struct inode *next;
  uint64_t number;
} *inodes[BUCKETS];

static bool counted(uint64_t number) {
  struct inode **bucket = &inodes[(number * 0x9e3779b97f4a7c15ULL) >> 48];
  for (struct inode *i = *bucket; i != NULL; i = i->next)
    if (i->number == number) return true;
  struct inode *i = malloc(sizeof *i);
  if (i == NULL) die(ENOMEM, "too many hard links");
  *i = (struct inode){*bucket, number};
  *bucket = i;
  return false;
}

static uint64_t weigh(int fd) {
  uint64_t sum = 0;
  if (++depth > DEPTH_LIMIT) die(0, "the directories are nested too deeply");
  int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  char **names = copy < 0 ? NULL : list_names(copy);
  if (names == NULL) die(errno, "weigh");
  for (char **each = names; *each != NULL; each++) {
    struct stat st;
    if (fstatat(fd, *each, &st, AT_SYMLINK_NOFOLLOW) < 0) continue;
    if (S_ISDIR(st.st_mode)) {
      int child = openat(fd, *each, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
      if (child < 0) continue;
      sum += weigh(child);
      close(child);
    } else if (st.st_nlink == 1 || !counted(st.st_ino)) {
      sum += (uint64_t)st.st_size;
    }
  }
  free_names(names);
  depth--;
  return sum;
}

void op_size(void) {
  int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) die(errno, "/");
  report_done(weigh(fd));
}
