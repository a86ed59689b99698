/* From an archive to files below one directory of the container. */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

static int target;
static const char *target_path;
static bool keep_kinds; /* a directory is not replaced by what is none, nor the other way round */
static bool owned;      /* everything belongs to these instead of to whom the archive says */
static uid_t owner;
static gid_t group;

/* ---- parents ------------------------------------------------------------------------------------------------------------ */

/* Members of one directory follow one another. */
static int parent_fd = -1;
static char parent_name[NAME_LIMIT];

static int parent_of(const char *path) {
  if (parent_fd >= 0 && strcmp(path, parent_name) == 0) return parent_fd;
  if (parent_fd >= 0) close(parent_fd);
  parent_fd = open_in(target, path, O_PATH | O_DIRECTORY);
  if (parent_fd < 0 && errno == ENOENT) parent_fd = make_directories(target, path);
  if (parent_fd < 0) die(errno, "%s", path);
  strcpy(parent_name, path);
  return parent_fd;
}

/* Something was removed: names may mean other directories now. The descriptor stays good for who holds it. */
static void forget_parent(void) { strcpy(parent_name, "/"); }

/* ---- directories' times, set last ------------------------------------------------------------------------------------------ */

static struct late {
  struct late *next;
  struct timespec time;
  char path[];
} *late;

static void remember_time(const char *path, struct timespec time) {
  struct late *l = malloc(sizeof *l + strlen(path) + 1);
  if (l == NULL) die(ENOMEM, "too many directories");
  l->next = late;
  l->time = time;
  strcpy(l->path, path);
  late = l;
}

static void set_late_times(void) {
  for (struct late *l = late; l != NULL; l = l->next) {
    int fd = open_in(target, l->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (fd < 0) continue; /* something else by now */
    futimens(fd, (struct timespec[2]){l->time, l->time});
    close(fd);
  }
}

/* ---- one member -------------------------------------------------------------------------------------------------------------- */

static uint32_t mapped(const struct id_map *map, uint32_t id, const struct tar_member *m) {
  int64_t outside = id_outside(map, id);
  if (outside < 0) die(0, "lchown %s: the container has no id %u", m->name, id);
  return (uint32_t)outside;
}
static uid_t uid_of(const struct tar_member *m) { return mapped(&uid_map, owned ? owner : (uint32_t)m->uid, m); }
static gid_t gid_of(const struct tar_member *m) { return mapped(&gid_map, owned ? group : (uint32_t)m->gid, m); }

static void set_xattrs(const struct tar_member *m, int fd) {
  for (size_t i = 0; i < m->xattr_count; i++) {
    if (fsetxattr(fd, m->xattrs[i].name, m->xattrs[i].value, m->xattrs[i].size, 0) == 0) continue;
    if (errno != ENOTSUP && errno != EPERM) die(errno, "%s: %s", m->name, m->xattrs[i].name);
  }
}

/* Owner first: a change of owner takes set-user-ID bits away. */
static void dress(const struct tar_member *m, int fd) {
  if (fchown(fd, uid_of(m), gid_of(m)) < 0) die(errno, "lchown %s", m->name);
  if (fchmod(fd, m->mode) < 0) die(errno, "chmod %s", m->name);
  set_xattrs(m, fd);
}

static void write_file(const struct tar_member *m, int parent, const char *base, struct timespec time) {
  int fd = openat(parent, base, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) die(errno, "open %s", m->name);
  const void *data;
  for (size_t size; (size = tar_data(&data)) > 0;) {
    const char *p = data;
    while (size > 0) {
      ssize_t n = write(fd, p, size);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) die(errno, "write %s", m->name);
      p += n;
      size -= (size_t)n;
    }
  }
  dress(m, fd);
  futimens(fd, (struct timespec[2]){time, time});
  if (close(fd) < 0) die(errno, "write %s", m->name);
}

static void make_directory(const struct tar_member *m, int parent, const char *base, const char *path, struct timespec time) {
  if (mkdirat(parent, base, 0700) < 0 && errno != EEXIST) die(errno, "mkdir %s", m->name);
  int fd = openat(parent, base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) die(errno, "mkdir %s", m->name);
  dress(m, fd);
  close(fd);
  remember_time(path, time);
}

static void make_other(const struct tar_member *m, int parent, const char *base, struct timespec time) {
  int result;
  if (m->type == '2') result = symlinkat(m->link, parent, base);
  else if (m->type == '6') result = mknodat(parent, base, S_IFIFO | m->mode, 0);
  else if (m->type == '3' || m->type == '4')
    result = mknodat(parent, base, (m->type == '3' ? S_IFCHR : S_IFBLK) | m->mode, makedev(m->dev_major, m->dev_minor));
  else die(0, "unhandled tar header type %d", m->type);
  if (result < 0) die(errno, "%s", m->name);
  if (fchownat(parent, base, uid_of(m), gid_of(m), AT_SYMLINK_NOFOLLOW) < 0) die(errno, "lchown %s", m->name);
  utimensat(parent, base, (struct timespec[2]){time, time}, AT_SYMLINK_NOFOLLOW);
}

static void make_link(const struct tar_member *m, int parent, const char *base) {
  static char path[NAME_LIMIT];
  if (!clean_name(m->link, path, sizeof path) || *path == 0) die(0, "invalid hardlink \"%.300s\" -> \"%.300s\"", m->name, m->link);
  char *slash = strrchr(path, '/');
  int from;
  if (slash != NULL) *slash = 0;
  from = slash == NULL ? fcntl(target, F_DUPFD_CLOEXEC, 3) : open_in(target, path, O_PATH | O_DIRECTORY);
  if (from < 0 || linkat(from, slash == NULL ? path : slash + 1, parent, base, 0) < 0) die(errno, "link %s", m->name);
  close(from);
}

static void clear_way(const struct tar_member *m, int parent, const char *base) {
  struct stat st;
  if (fstatat(parent, base, &st, AT_SYMLINK_NOFOLLOW) < 0) {
    if (errno == ENOENT) return;
    die(errno, "%s", m->name);
  }
  if (keep_kinds && S_ISDIR(st.st_mode) && m->type != '5') die(0, "cannot overwrite directory \"%s/%s\" with non-directory \"%s\"", target_path, m->name, target_path);
  if (keep_kinds && !S_ISDIR(st.st_mode) && m->type == '5') die(0, "cannot overwrite non-directory \"%s/%s\" with directory \"%s\"", target_path, m->name, target_path);
  if (S_ISDIR(st.st_mode) && m->type == '5') return;
  if (remove_all(parent, base) < 0) die(errno, "unlinkat %s", m->name);
  forget_parent();
}

static void member(const struct tar_member *m) {
  static char path[NAME_LIMIT], parent_path[NAME_LIMIT];
  if (!clean_name(m->name, path, sizeof path)) die(0, "\"%.300s\" is outside of \"%.300s\"", m->name, target_path);
  if (*path == 0) return; /* the destination itself */
  strcpy(parent_path, path);
  char *slash = strrchr(parent_path, '/');
  const char *base = slash == NULL ? path : path + (slash - parent_path) + 1;
  if (slash != NULL) *slash = 0;
  else parent_path[0] = 0;
  int parent = parent_of(parent_path);
  struct timespec time = {m->mtime, m->mtime_nsec};
  clear_way(m, parent, base);
  if (m->type == '0') write_file(m, parent, base, time);
  else if (m->type == '5') make_directory(m, parent, base, path, time);
  else if (m->type == '1') make_link(m, parent, base);
  else make_other(m, parent, base, time);
}

/* ---- owner ------------------------------------------------------------------------------------------------------------------- */

/* Field `index` of the line whose field 0, or else field 2, is `key`, in a file like passwd(5). False: no such line. */
static bool look_up(const char *text, const char *key, int index, unsigned long *value) {
  for (const char *line = text; *line != 0;) {
    const char *next = strchr(line, '\n'), *stop = next == NULL ? line + strlen(line) : next;
    const char *fields[8];
    int count = 0;
    for (const char *p = line; count < 8 && p <= stop; p++) {
      fields[count++] = p;
      while (p < stop && *p != ':') p++;
    }
    size_t length = strlen(key);
    bool found = count > index && (size_t)(fields[1] - fields[0]) == length + 1 && memcmp(line, key, length) == 0;
    if (found) {
      char *rest;
      *value = strtoul(fields[index], &rest, 10);
      return rest != fields[index];
    }
    line = next == NULL ? stop : next + 1;
  }
  return false;
}

static char *read_text(const char *path) {
  static char text[1 << 20];
  struct stat st;
  size_t used = 0;
  int directory = open_in(AT_FDCWD, "/etc", O_PATH | O_DIRECTORY);
  int fd = directory < 0 ? -1 : open_regular(directory, path, &st);
  for (ssize_t n = 1; fd >= 0 && n > 0 && used < sizeof text - 1; used += n > 0 ? (size_t)n : 0) n = read(fd, text + used, sizeof text - 1 - used);
  text[used] = 0;
  if (fd >= 0) close(fd);
  if (directory >= 0) close(directory);
  return text;
}

static bool number_or(const char *text, const char *file, int index, unsigned long *value) {
  char *rest;
  *value = strtoul(text, &rest, 10);
  if (*text != 0 && *rest == 0) return true;
  return look_up(read_text(file), text, index, value);
}

/* The container's user, "name", "uid", "name:group": by the container's own files. */
static void find_owner(const char *user) {
  char name[256];
  unsigned long uid = 0, gid = 0;
  if (*user == 0) return;
  snprintf(name, sizeof name, "%s", user);
  char *colon = strchr(name, ':');
  if (colon != NULL) *colon++ = 0;
  if (!number_or(name, "passwd", 2, &uid)) die(0, "unable to find user %s: no matching entries in passwd file", name);
  if (colon != NULL && *colon != 0) {
    if (!number_or(colon, "group", 2, &gid)) die(0, "unable to find group %s: no matching entries in group file", colon);
  } else if (!look_up(read_text("passwd"), name, 3, &gid)) {
    gid = 0;
  }
  owned = true;
  owner = (uid_t)uid;
  group = (gid_t)gid;
}

/* ---- operation ------------------------------------------------------------------------------------------------------------------ */

static void flush_to_disk(void) {
  int fd = open_in(target, ".", O_RDONLY | O_DIRECTORY);
  if (fd < 0 || syncfs(fd) < 0) die(errno, "%s", target_path);
  close(fd);
}

void op_put(const char *path, bool no_overwrite, const char *user, bool flush) {
  static struct tar_member m;
  struct statvfs fs;
  struct stat here, root;
  keep_kinds = no_overwrite;
  target_path = path;
  target = open_in(AT_FDCWD, path, O_PATH | O_DIRECTORY);
  if (target < 0) die(errno, "%s", path);
  if (fstatvfs(target, &fs) < 0 || fstat(target, &here) < 0 || stat("/", &root) < 0) die(errno, "%s", path);
  if ((fs.f_flag & ST_RDONLY) != 0) die(EROFS, here.st_dev == root.st_dev ? "container rootfs is marked read-only" : "mounted volume is marked read-only");
  find_owner(user);
  report_ready();
  while (tar_next(&m)) member(&m);
  set_late_times();
  tar_drain();
  if (flush) flush_to_disk();
  report_done(0);
}
