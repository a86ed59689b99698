/* From files to an archive: one path, the whole container, or the writable layer in OCI's form. */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static char name[NAME_LIMIT]; /* of the present entry, as the archive has it */
static bool layer;            /* whiteouts become .wh. files (OCI image-spec, layer.md) */
static int depth;

/* ---- hard links: the name that an inode had first -------------------------------------------------------------------- */

#define BUCKETS 65536
static struct seen {
  struct seen *next;
  uint64_t device, inode;
  char name[];
} *seen[BUCKETS];

/* The name under which this file is in the archive already, or NULL and it is remembered. */
static const char *seen_before(const struct stat *st) {
  struct seen **bucket = &seen[(st->st_ino * 0x9e3779b97f4a7c15ULL) >> 48];
  for (struct seen *s = *bucket; s != NULL; s = s->next)
    if (s->inode == st->st_ino && s->device == st->st_dev) return s->name;
  struct seen *s = malloc(sizeof *s + strlen(name) + 1);
  if (s == NULL) die(ENOMEM, "too many hard links");
  s->next = *bucket;
  s->device = st->st_dev;
  s->inode = st->st_ino;
  strcpy(s->name, name);
  *bucket = s;
  return NULL;
}

/* ---- entries ------------------------------------------------------------------------------------------------------ */

static void directory_below(int fd);

static struct tar_entry entry_of(const struct stat *st, char type) {
  return (struct tar_entry){.name = name, .type = type, .mode = st->st_mode, .uid = id_inside(&uid_map, st->st_uid), .gid = id_inside(&gid_map, st->st_gid), .mtime = st->st_mtim.tv_sec, .xattrs = -1};
}

/* A file that exists for its name alone. */
static void marker(size_t at, const char *prefix, const char *base, const struct stat *st) {
  if ((size_t)snprintf(name + at, sizeof name - at, "%s%s", prefix, base) >= sizeof name - at) die(ENAMETOOLONG, "%s", base);
  tar_header(&(struct tar_entry){.name = name, .type = '0', .mode = 0600, .mtime = st->st_mtim.tv_sec, .xattrs = -1});
}

static void directory(int fd, const struct stat *st) {
  size_t length = strlen(name);
  if (length > 0 && name[length - 1] != '/') strcpy(name + length, "/");
  struct tar_entry entry = entry_of(st, '5');
  entry.xattrs = fd;
  bool opaque = layer && is_opaque(fd);
  if (*name != 0) tar_header(&entry);
  if (opaque) marker(strlen(name), ".wh..wh.", ".opq", st);
  name[length] = 0;
  directory_below(fd);
}

static void regular(int parent, const char *base, const struct stat *st) {
  struct stat opened;
  if (st->st_nlink > 1) {
    const char *first = seen_before(st);
    if (first != NULL) {
      struct tar_entry entry = entry_of(st, '1');
      entry.link = first;
      tar_header(&entry);
      return;
    }
  }
  int fd = open_regular(parent, base, &opened);
  if (fd < 0 && (errno == ENOENT || errno == ELOOP || errno == EINVAL || errno == ENXIO)) return; /* replaced since we looked */
  if (fd < 0) die(errno, "%s", name);
  if (layer) is_opaque(fd); /* for its refusal */
  struct tar_entry entry = entry_of(&opened, '0');
  entry.size = (uint64_t)opened.st_size;
  entry.xattrs = fd;
  tar_header(&entry);
  tar_file(fd, entry.size);
  close(fd);
}

static void symbolic(int parent, const char *base, const struct stat *st) {
  char target[PATH_LIMIT];
  if (st->st_nlink > 1) {
    const char *first = seen_before(st);
    if (first != NULL) {
      struct tar_entry entry = entry_of(st, '1');
      entry.link = first;
      tar_header(&entry);
      return;
    }
  }
  ssize_t n = readlinkat(parent, base, target, sizeof target - 1);
  if (n < 0) return;
  target[n] = 0;
  struct tar_entry entry = entry_of(st, '2');
  entry.link = target;
  tar_header(&entry);
}

/* One object of the directory `parent`; its name in the archive is in `name`. */
static void object(int parent, const char *base, const struct stat *st) {
  switch (st->st_mode & S_IFMT) {
    case S_IFDIR: {
      int fd = openat(parent, base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
      if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP)) return;
      if (fd < 0) die(errno, "%s", name);
      directory(fd, st);
      close(fd);
      return;
    }
    case S_IFREG: regular(parent, base, st); return;
    case S_IFLNK: symbolic(parent, base, st); return;
    case S_IFSOCK: return; /* an archive cannot hold one */
    case S_IFIFO: {
      struct tar_entry entry = entry_of(st, '6');
      tar_header(&entry);
      return;
    }
    default: {
      struct tar_entry entry = entry_of(st, S_ISCHR(st->st_mode) ? '3' : '4');
      entry.dev_major = major(st->st_rdev);
      entry.dev_minor = minor(st->st_rdev);
      tar_header(&entry);
    }
  }
}

static void directory_below(int fd) {
  if (++depth > DEPTH_LIMIT) die(0, "the directories are nested too deeply");
  size_t length = strlen(name);
  int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* a position of its own */
  char **names = copy < 0 ? NULL : list_names(copy);
  if (names == NULL) die(errno, "%s", name);
  for (char **each = names; *each != NULL; each++) {
    struct stat st;
    if (fstatat(fd, *each, &st, AT_SYMLINK_NOFOLLOW) < 0) continue; /* gone */
    size_t at = length;
    if (at > 0 && name[at - 1] != '/') name[at++] = '/';
    if (at + strlen(*each) + 2 > sizeof name) die(ENAMETOOLONG, "%s", *each);
    strcpy(name + at, *each);
    if (layer && is_mountpoint_of_ours(name, &st)) continue;
    if (layer && is_whiteout(&st)) marker(at, ".wh.", *each, &st);
    else object(fd, *each, &st);
  }
  name[length] = 0;
  free_names(names);
  depth--;
}

/* ---- operations ------------------------------------------------------------------------------------------------------- */

/* Looks at `path` as lstat(2) does: the last part is not followed, unless a slash or a dot ends it. Returns a descriptor of the
 * directory that holds it, and its name there ("." when it is that directory). */
static int look(const char *path, char base[PATH_LIMIT], struct stat *st) {
  char parent[PATH_LIMIT];
  if (strlen(path) >= PATH_LIMIT || path[0] != '/') die(ENAMETOOLONG, "%.200s", path);
  strcpy(parent, path);
  char *slash = strrchr(parent, '/');
  strcpy(base, slash[1] == 0 ? "." : slash + 1);
  slash[1] = 0;
  int fd = open_in(AT_FDCWD, parent, O_PATH | O_DIRECTORY);
  if (fd < 0 || fstatat(fd, base, st, AT_SYMLINK_NOFOLLOW) < 0) die(errno, "%s", path);
  return fd;
}

static int look_and_tell(const char *path, char base[PATH_LIMIT], struct stat *st) {
  char link[PATH_LIMIT] = "";
  int fd = look(path, base, st);
  if (S_ISLNK(st->st_mode)) follow(path, link);
  report_stat(st, link);
  return fd;
}

void op_stat(const char *path) {
  char base[PATH_LIMIT];
  struct stat st;
  look_and_tell(path, base, &st);
  report_done(0);
}

void op_get(const char *path, const char *wanted) {
  char base[PATH_LIMIT];
  struct stat st;
  if (strlen(wanted) >= PATH_LIMIT) die(ENAMETOOLONG, "%.200s", wanted);
  int fd = look_and_tell(path, base, &st);
  strcpy(name, wanted);
  object(fd, base, &st);
  tar_end();
  report_done(0);
}

static _Noreturn void whole_root(void) {
  int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  struct stat st;
  if (fd < 0 || fstat(fd, &st) < 0) die(errno, "/");
  name[0] = 0;
  directory(fd, &st);
  tar_end();
  report_done(0);
}

void op_export(void) { whole_root(); }

void op_layer(void) {
  layer = true;
  whole_root();
}
