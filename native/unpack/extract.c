#include "unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define OPAQUE "trusted.overlay.opaque"

static const struct options *options;
static struct result *result;
static EVP_MD_CTX *diff_hash;

/* ---- the stream -------------------------------------------------------------------------------------- */

static la_ssize_t next_piece(struct archive *archive, void *unused, const void **data) {
  (void)unused;
  int64_t n = source_next(data);
  if (n < 0) {
    archive_set_error(archive, EIO, "the stream ended early");
    return -1;
  }
  if (n > 0) {
    EVP_DigestUpdate(diff_hash, *data, (size_t)n);
    result->stream += (uint64_t)n;
    if (result->stream > options->max_bytes) {
      fail(0, "the archive is larger than %llu bytes", (unsigned long long)options->max_bytes);
      archive_set_error(archive, EFBIG, "too large");
      return -1;
    }
  }
  return n;
}

/* ---- one entry ----------------------------------------------------------------------------------------- */

/* "entry "x": why". The name is as the archive has it. */
#define FAIL_ENTRY(entry, errnum, why) fail(errnum, "archive entry \"%.300s\": %s", archive_entry_pathname(entry), why)

/* Extended attributes that a layer may set. The trusted.overlay ones would steer the host's overlayfs to other layers'
 * files (redirect, metacopy); security.selinux and the like belong to the host's policy. */
static bool wanted_xattr(const char *name) {
  if (strncmp(name, "user.overlay.", 13) == 0) return false;
  return strncmp(name, "user.", 5) == 0 || strcmp(name, "security.capability") == 0 ||
         strcmp(name, "system.posix_acl_access") == 0 || strcmp(name, "system.posix_acl_default") == 0;
}

/* `path`: relative to `parent`'s directory through the descriptor of the file itself, or for what cannot be opened by name. */
static void set_xattrs(struct archive_entry *entry, int fd, const char *path) {
  if (archive_entry_xattr_reset(entry) == 0) return;
  const char *name;
  const void *value;
  size_t size;
  while (archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK) {
    if (!wanted_xattr(name)) continue;
    int r = fd >= 0 ? fsetxattr(fd, name, value, size, 0) : lsetxattr(path, name, value, size, 0);
    /* As Docker: a file system without them, or a kind of file that cannot carry them, is no error. */
    if (r != 0 && errno != ENOTSUP && errno != EPERM) FAIL_ENTRY(entry, errno, name);
  }
}

static struct timespec mtime_of(struct archive_entry *entry) {
  return (struct timespec){archive_entry_mtime(entry), archive_entry_mtime_nsec(entry)};
}

static void set_times(struct archive_entry *entry, int fd, const char *name, int flags) {
  struct timespec times[2] = {mtime_of(entry), mtime_of(entry)};
  int r = name == NULL ? futimens(fd, times) : utimensat(fd, name, times, flags);
  if (r != 0) FAIL_ENTRY(entry, errno, "cannot set its time");
}

static bool write_all(int fd, const unsigned char *data, size_t length, int64_t offset, int64_t *position) {
  while (length > 0) {
    ssize_t n = *position == offset ? write(fd, data, length) : pwrite(fd, data, length, offset);
    if (n < 0) {
      if (errno == EINTR) continue;
      return false;
    }
    if (*position == offset) *position += n;
    offset += n;
    data += n;
    length -= (size_t)n;
  }
  return true;
}

static void write_file(struct archive *archive, struct archive_entry *entry, int parent, const char *name) {
  int64_t size = archive_entry_size_is_set(entry) ? archive_entry_size(entry) : 0;
  if (size < 0 || (uint64_t)size > options->max_bytes || result->size + (uint64_t)size > options->max_bytes) {
    FAIL_ENTRY(entry, 0, "the files are larger than the limit");
    return;
  }
  mode_t mode = options->layer ? archive_entry_perm(entry) & 07777 : 0600;
  int fd = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
  if (fd < 0 && errno == EEXIST && tree_remove(parent, name) == 0) {
    fd = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
  }
  if (fd < 0) {
    FAIL_ENTRY(entry, errno, "cannot create the file");
    return;
  }
  int64_t position = 0, end = 0;
  for (;;) {
    const void *data;
    size_t length;
    la_int64_t offset;
    int r = archive_read_data_block(archive, &data, &length, &offset);
    if (r == ARCHIVE_EOF) break;
    if (r < ARCHIVE_WARN) {
      FAIL_ENTRY(entry, 0, archive_error_string(archive));
      break;
    }
    if (offset < 0 || (uint64_t)offset + length > options->max_bytes) {
      FAIL_ENTRY(entry, 0, "the files are larger than the limit");
      break;
    }
    if (!write_all(fd, data, length, offset, &position)) {
      FAIL_ENTRY(entry, errno, "cannot write");
      break;
    }
    end = offset + (int64_t)length;
  }
  if (end < size && ftruncate(fd, size) != 0) FAIL_ENTRY(entry, errno, "cannot set its length"); /* ends in a hole */
  result->size += (uint64_t)(end > size ? end : size);
  if (options->layer) {
    if (fchown(fd, (uid_t)archive_entry_uid(entry), (gid_t)archive_entry_gid(entry)) != 0) FAIL_ENTRY(entry, errno, "cannot set its owner");
    /* chown and write clear these bits; the others were given to open, with umask 0. */
    if ((mode & 07000) != 0 && fchmod(fd, mode) != 0) FAIL_ENTRY(entry, errno, "cannot set its mode");
    set_xattrs(entry, fd, NULL);
    set_times(entry, fd, NULL, 0);
  }
  if (close(fd) != 0) FAIL_ENTRY(entry, errno, "cannot write");
}

/* True when `name` is a whiteout that an earlier entry of this layer made (overlayfs: a 0/0 character device). */
static bool is_whiteout(const struct stat *st) {
  return S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0);
}

static void make_directory(struct archive_entry *entry, int parent, const char *name, const char *path) {
  mode_t mode = options->layer ? archive_entry_perm(entry) & 07777 : 0700;
  bool opaque = false;
  int fd = -1;
  if (name[0] == '\0') {
    fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  } else {
    if (mkdirat(parent, name, mode) != 0) {
      struct stat st;
      if (errno != EEXIST || fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        FAIL_ENTRY(entry, errno, "cannot make the directory");
        return;
      }
      if (!S_ISDIR(st.st_mode)) {
        opaque = options->layer && is_whiteout(&st); /* the lower one was hidden first: nothing of it may shine through */
        if (tree_remove(parent, name) != 0 || mkdirat(parent, name, mode) != 0) {
          FAIL_ENTRY(entry, errno, "cannot make the directory");
          return;
        }
      }
    }
    if (!options->layer) return;
    fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  }
  if (fd < 0) {
    FAIL_ENTRY(entry, errno, "cannot open the directory");
    return;
  }
  struct stat st;
  if (options->layer) {
    if (fchown(fd, (uid_t)archive_entry_uid(entry), (gid_t)archive_entry_gid(entry)) != 0) FAIL_ENTRY(entry, errno, "cannot set its owner");
    if (fchmod(fd, mode) != 0) FAIL_ENTRY(entry, errno, "cannot set its mode");
    set_xattrs(entry, fd, NULL);
    if (opaque && fsetxattr(fd, OPAQUE, "y", 1, 0) != 0) FAIL_ENTRY(entry, errno, OPAQUE);
    if (fstat(fd, &st) != 0) FAIL_ENTRY(entry, errno, "cannot stat");
    else tree_remember_times(path, mtime_of(entry).tv_sec, mtime_of(entry).tv_nsec, st.st_dev, st.st_ino);
  }
  close(fd);
}

/* Everything that is made by one call and has no content. */
static int make_special(struct archive_entry *entry, int parent, const char *name, mode_t type) {
  mode_t mode = archive_entry_perm(entry) & 07777;
  if (type == AE_IFLNK) return symlinkat(archive_entry_symlink(entry), parent, name);
  if (type == AE_IFIFO) return mknodat(parent, name, S_IFIFO | mode, 0);
  return mknodat(parent, name, (type == AE_IFCHR ? S_IFCHR : S_IFBLK) | mode,
                 makedev((unsigned)archive_entry_rdevmajor(entry), (unsigned)archive_entry_rdevminor(entry)));
}

static void write_special(struct archive_entry *entry, int parent, const char *name, const char *path, mode_t type) {
  if (type == AE_IFLNK && (archive_entry_symlink(entry) == NULL || archive_entry_symlink(entry)[0] == '\0')) {
    FAIL_ENTRY(entry, 0, "symbolic link without a target");
    return;
  }
  if (make_special(entry, parent, name, type) != 0 &&
      (errno != EEXIST || tree_remove(parent, name) != 0 || make_special(entry, parent, name, type) != 0)) {
    FAIL_ENTRY(entry, errno, "cannot create it");
    return;
  }
  if (!options->layer) return;
  if (fchownat(parent, name, (uid_t)archive_entry_uid(entry), (gid_t)archive_entry_gid(entry), AT_SYMLINK_NOFOLLOW) != 0) {
    FAIL_ENTRY(entry, errno, "cannot set its owner");
  }
  if (type != AE_IFLNK && (archive_entry_perm(entry) & 07000) != 0 && fchmodat(parent, name, archive_entry_perm(entry) & 07777, 0) != 0) {
    FAIL_ENTRY(entry, errno, "cannot set its mode");
  }
  char absolute[NAME_LIMIT + 2] = "/";
  strncat(absolute, path, NAME_LIMIT);
  set_xattrs(entry, -1, absolute);
  set_times(entry, parent, name, AT_SYMLINK_NOFOLLOW);
}

static void make_hard_link(struct archive_entry *entry, const char *parent_name, const char *name) {
  char source[NAME_LIMIT];
  const char *link = archive_entry_hardlink(entry);
  if (!clean_name(link, source) || source[0] == '\0') {
    FAIL_ENTRY(entry, 0, "hard link to a name outside of the archive");
    return;
  }
  /* By path: in here the root is the archive's own, so whatever symbolic links stand in the way end inside. */
  char from[NAME_LIMIT + 2] = "/";
  strncat(from, source, NAME_LIMIT);
  int parent = tree_parent(parent_name);
  if (parent < 0) {
    FAIL_ENTRY(entry, errno, "cannot make its directory");
    return;
  }
  if (linkat(AT_FDCWD, from, parent, name, 0) == 0) return;
  if (errno == EEXIST) {
    struct stat a, b;
    if (fstatat(AT_FDCWD, from, &a, AT_SYMLINK_NOFOLLOW) == 0 && fstatat(parent, name, &b, AT_SYMLINK_NOFOLLOW) == 0 &&
        a.st_dev == b.st_dev && a.st_ino == b.st_ino) {
      return; /* to itself, or again */
    }
    if (tree_remove(parent, name) == 0 && linkat(AT_FDCWD, from, parent, name, 0) == 0) return;
  }
  FAIL_ENTRY(entry, errno, "cannot make the hard link");
}

/* ---- whiteouts (OCI image-spec, layer.md, "Whiteouts") ---------------------------------------------------- */

static void make_whiteout(struct archive_entry *entry, int parent, const char *name) {
  const char *hidden = name + 4;
  if (strcmp(name, ".wh..wh..opq") == 0) {
    if (fsetxattr(parent, OPAQUE, "y", 1, 0) != 0) FAIL_ENTRY(entry, errno, "cannot make the directory opaque");
    return;
  }
  if (strncmp(hidden, ".wh.", 4) == 0) return; /* aufs' own bookkeeping: ignored, as Docker does */
  if (hidden[0] == '\0' || strcmp(hidden, ".") == 0 || strcmp(hidden, "..") == 0) {
    FAIL_ENTRY(entry, 0, "whiteout of no name");
    return;
  }
  if (mknodat(parent, hidden, S_IFCHR, makedev(0, 0)) == 0) return;
  if (errno != EEXIST) {
    FAIL_ENTRY(entry, errno, "cannot make the whiteout");
    return;
  }
  /* A whiteout means lower layers only. What this layer has itself hides them already, but a directory would merge. */
  int fd = openat(parent, hidden, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return;
  if (fsetxattr(fd, OPAQUE, "y", 1, 0) != 0) FAIL_ENTRY(entry, errno, "cannot make the directory opaque");
  close(fd);
}

/* ---- the archive ---------------------------------------------------------------------------------------- */

static void extract_entry(struct archive *archive, struct archive_entry *entry) {
  const char *raw = archive_entry_pathname(entry);
  char path[NAME_LIMIT], parent_name[NAME_LIMIT];
  if (raw == NULL) {
    fail(0, "archive entry %llu has no name", (unsigned long long)result->entries);
    return;
  }
  if (!clean_name(raw, path)) {
    FAIL_ENTRY(entry, 0, "the name is outside of the archive, or too long");
    return;
  }
  mode_t type = archive_entry_filetype(entry);
  bool hard_link = archive_entry_hardlink(entry) != NULL;
  if (options->layer && (archive_entry_uid(entry) < 0 || archive_entry_uid(entry) >= UINT32_MAX || archive_entry_gid(entry) < 0 ||
                         archive_entry_gid(entry) >= UINT32_MAX)) {
    FAIL_ENTRY(entry, 0, "the owner is out of range");
    return;
  }
  if (path[0] == '\0') {
    if (type == AE_IFDIR && !hard_link && options->layer) make_directory(entry, -1, "", path);
    else if (type != AE_IFDIR || hard_link) FAIL_ENTRY(entry, 0, "the root must be a directory");
    return;
  }
  strcpy(parent_name, path);
  char *name = split_name(parent_name);
  char own[NAME_LIMIT];
  strcpy(own, name);
  if (name == parent_name) parent_name[0] = '\0';
  if (hard_link && !(options->layer && strncmp(own, ".wh.", 4) == 0)) {
    make_hard_link(entry, parent_name, own);
    return;
  }
  int parent = tree_parent(parent_name);
  if (parent < 0) {
    FAIL_ENTRY(entry, errno, "cannot make its directory");
    return;
  }
  if (options->layer && strncmp(own, ".wh.", 4) == 0) {
    make_whiteout(entry, parent, own);
    return;
  }
  switch (type) {
    case AE_IFREG: write_file(archive, entry, parent, own); break;
    case AE_IFDIR: make_directory(entry, parent, own, path); break;
    case AE_IFLNK: write_special(entry, parent, own, path, type); break;
    case AE_IFIFO:
    case AE_IFCHR:
    case AE_IFBLK:
      if (!options->layer) FAIL_ENTRY(entry, 0, "not a file, directory or link");
      else write_special(entry, parent, own, path, type);
      break;
    default: FAIL_ENTRY(entry, 0, "unknown type"); break;
  }
}

void extract(const struct options *wanted, struct result *out) {
  options = wanted;
  result = out;
  diff_hash = EVP_MD_CTX_new();
  struct archive *archive = archive_read_new();
  if (diff_hash == NULL || EVP_DigestInit_ex(diff_hash, EVP_sha256(), NULL) != 1 || archive == NULL) {
    fail(0, "SHA-256 is not available");
    return;
  }
  archive_read_support_format_tar(archive);
  archive_read_support_format_empty(archive);
  source_go();
  if (archive_read_open(archive, NULL, NULL, next_piece, NULL) != ARCHIVE_OK) {
    fail(0, "not a tar archive: %s", archive_error_string(archive));
    return;
  }
  while (!failed()) {
    struct archive_entry *entry;
    int r = archive_read_next_header(archive, &entry);
    if (r == ARCHIVE_EOF) break;
    /* WARN: a name that is not UTF-8, which is taken as its bytes. */
    if (r < ARCHIVE_WARN) {
      fail(0, "not a whole tar archive: %s", archive_error_string(archive));
      return;
    }
    if (++result->entries > options->max_entries) {
      fail(0, "the archive has more than %llu entries", (unsigned long long)options->max_entries);
      return;
    }
    extract_entry(archive, entry);
  }
  if (failed()) return;
  tree_apply_times();
  /* What follows the end-of-archive blocks is part of the stream and of its digest. */
  const void *rest;
  la_ssize_t n;
  while ((n = next_piece(archive, NULL, &rest)) > 0) {
  }
  if (failed() || n < 0) return;
  EVP_DigestFinal_ex(diff_hash, out->diff, NULL);
  source_blob_digest(out->blob);
}
