/* hull-files: reads and writes files of one container and can reach nothing else. See README.md. */
#ifndef HULL_FILES_H
#define HULL_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#define PATH_LIMIT 4096   /* of a path that somebody gives us (PATH_MAX) */
#define NAME_LIMIT 32768  /* of a name in an archive: deeper than any PATH_MAX, because we walk by descriptors */
#define DEPTH_LIMIT 1000  /* directories open at once */
#define XATTR_LIMIT 65536 /* bytes of one attribute (xattr(7)) */

/* ---- report.c: lines of JSON on stderr ------------------------------------------------------------------------ */

/* {"error":…,"errno":N} and exit 1. `errnum` 0: none, the request itself is wrong. */
_Noreturn void die(int errnum, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* {"mode":…,"size":…,"mtime":…,"link":…}: st_mode of stat(2), seconds. */
void report_stat(const struct stat *st, const char *link);
/* {"ready":true}: the destination is good, the archive may come. */
void report_ready(void);
/* {"ok":true,"size":N} and exit 0. */
_Noreturn void report_done(uint64_t size);

/* ---- wall.c: what of the world is left ------------------------------------------------------------------------- */

struct mount_wish {
  const char *source, *target; /* absolute; source on the caller's side, target in the container */
  bool read_only;
  bool mapped; /* seen through `userns` */
};
/* Ids of the container from `inside` on are ids of this side from `outside` on: a line of uid_map (user_namespaces(7)). */
struct id_map {
  struct id_range {
    uint32_t inside, outside, count;
  } ranges[64];
  size_t count; /* 0: they are the same */
};
extern struct id_map uid_map, gid_map;
/* -1: no such id on the other side. */
int64_t id_outside(const struct id_map *map, uint32_t inside);
/* The overflow id, 65534, for what the container has no id for (as the kernel shows it there). */
uint32_t id_inside(const struct id_map *map, uint32_t outside);

struct wall {
  int join;             /* descriptor of a mount namespace or a pidfd; -1: make a root of `root` */
  const char *userns;   /* path of a user namespace; NULL: none */
  const char *root;     /* directory that becomes the root */
  const char **lower;   /* image layers, lowest first: then the root holds /upper (`root`) and /lower/0, /lower/1, … */
  struct mount_wish *mounts;
  size_t lowers, mount_count;
  bool read_only; /* the root itself, not what is mounted over it */
  bool trusted;   /* trusted.overlay.* must be readable */
};
/* Enters a mount namespace that holds the container's files alone, without device nodes or set-user-ID programs that would work, and
 * gives up every privilege and system call that is not needed for files. */
void wall_enter(const struct wall *wall);

/* ---- path.c ------------------------------------------------------------------------------------------------- */

/* openat2(2) without magic links (proc(5)); `how` are open flags, O_CLOEXEC is added. Symbolic links lead where they lead in the container. */
int open_in(int directory, const char *path, int how);
/* As open_in, for a file to be read: -1 with EINVAL unless it is a regular one. Never waits for a FIFO. */
int open_regular(int directory, const char *name, struct stat *st);
/* Where the symbolic link `path` leads, in the end, by names (what is not there stays as it is written). */
void follow(const char *path, char out[PATH_LIMIT]);
/* Cleans a member's name (filepath.Clean of "/"+name without the slash; "" is the root). False: climbs out, or is too long. */
bool clean_name(const char *name, char *out, size_t size);
/* The sorted names of a directory, NULL-ended, in one allocation each; `fd` is used up. NULL: errno. */
char **list_names(int fd);
void free_names(char **names);
/* mkdir -p of `path` below `directory`, 0755; symbolic links are followed. The last one, O_PATH; -1: errno. */
int make_directories(int directory, const char *path);
/* Removes whatever `name` is. 0, or -1 with errno. */
int remove_all(int directory, const char *name);
/* A whiteout of overlayfs: a 0/0 character device. */
bool is_whiteout(const struct stat *st);
/* trusted.overlay.opaque is "y". Dies of what would make the directory show another one's files. */
bool is_opaque(int fd);

/* ---- tar_write.c ---------------------------------------------------------------------------------------------- */

struct tar_entry {
  const char *name, *link;
  char type;
  uint32_t mode, uid, gid, dev_major, dev_minor;
  uint64_t size;
  int64_t mtime;
  int xattrs; /* descriptor whose attributes go along; -1: none */
};
/* POSIX pax format (IEEE 1003.1-2001) on stdout. */
void tar_header(const struct tar_entry *entry);
/* Copies exactly `size` bytes of `fd`, zeros for what it has no more, and pads to a block. */
void tar_file(int fd, uint64_t size);
void tar_end(void);

/* ---- tar_read.c ------------------------------------------------------------------------------------------------ */

#define XATTRS_MAX 32
struct tar_member {
  char name[NAME_LIMIT], link[NAME_LIMIT];
  char type;
  uint32_t mode, dev_major, dev_minor;
  int64_t uid, gid;
  uint64_t size;
  int64_t mtime;
  long mtime_nsec;
  struct {
    char *name, *value;
    size_t size;
  } xattrs[XATTRS_MAX];
  size_t xattr_count;
};
/* The next member of the archive on stdin (ustar, pax, GNU). False: its end. Dies of malformed ones. */
bool tar_next(struct tar_member *member);
/* Up to `size` bytes of the member's content; 0: no more. */
size_t tar_data(const void **data);
/* Reads stdin to its end, so that the sender is not cut off. */
void tar_drain(void);

/* ---- the work ------------------------------------------------------------------------------------------------------ */

/* Paths of ours that a start makes in the writable layer, as docker keeps them in a layer of their own: not the user's changes. */
bool is_mountpoint_of_ours(const char *path, const struct stat *st);

void op_stat(const char *path);
void op_get(const char *path, const char *name);
void op_export(void);
void op_layer(void);
void op_put(const char *path, bool no_overwrite, const char *owner, bool flush);
void op_changes(size_t lowers);
void op_size(void);

#endif
