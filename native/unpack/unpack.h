/* hull-unpack: writes a hostile tar into one directory and can reach nothing else. See README.md. */
#ifndef HULL_UNPACK_H
#define HULL_UNPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHA256_BYTES 32

/* What the command line asks for. */
struct options {
  bool layer;           /* OCI layer (owners, devices, xattrs, whiteouts); else a plain scratch tree of files */
  bool blob_digest;     /* also hash the input as it came, before decompression */
  uint64_t max_entries; /* entries of the archive */
  uint64_t max_bytes;   /* bytes of the decompressed stream, and of all files' lengths together */
  const char *target;   /* directory to write into */
};

/* ---- report.c: one JSON line on stdout, then exit ---------------------------------------------------- */

/* Remembers the first error; later ones are consequences. `errnum` 0: none. */
void fail(int errnum, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool failed(void);
/* Prints {"error":…,"code":…} and exits 1. */
_Noreturn void report_failure(void);
_Noreturn void die(int errnum, const char *format, ...) __attribute__((format(printf, 2, 3)));
struct result {
  unsigned char diff[SHA256_BYTES], blob[SHA256_BYTES];
  uint64_t size, stream, entries;
};
_Noreturn void report_success(const struct options *options, const struct result *result);

/* ---- confine.c ------------------------------------------------------------------------------------ */

/* Enters new namespaces and forks: returns only in the child, which sees nothing but `options->target` as its root
 * and holds no capability that it does not need. The caller waits, and reports a child that died of a signal. */
void confine(const struct options *options);
/* The allow-list of system calls, on all threads. After this no file outside the root can be named and no program run. */
void confine_syscalls(void);

/* ---- source.c: decompression on a thread of its own --------------------------------------------------- */

/* Starts the thread; it reads nothing before source_go(). */
void source_start(const struct options *options);
void source_go(void);
/* The next piece of the decompressed stream; 0 at its end, -1 after fail(). Valid until the next call. */
int64_t source_next(const void **data);
/* Hands over the digest of the input (blob_digest). After source_next() returned 0. */
void source_blob_digest(unsigned char out[SHA256_BYTES]);

/* ---- names.c --------------------------------------------------------------------------------------- */

#define NAME_LIMIT 4096
/* Cleans a member's name lexically, as Go's filepath.Clean does after "/"+name, into `out` (NAME_LIMIT bytes): no leading
 * slash, no '.', no '..', no doubled slashes; "" is the root. False: climbs out of the root, or too long. */
bool clean_name(const char *name, char *out);
/* Splits a cleaned name; returns the last component and ends `name` before it ("" when there is no parent). */
char *split_name(char *name);

/* ---- tree.c: the directory being written ---------------------------------------------------------------- */

/* A descriptor of the directory `parent` (cleaned name), made with its parents when missing. Owned by tree.c. -1: errno. */
int tree_parent(const char *parent);
/* Removes whatever `name` is. 0, or -1 with errno. */
int tree_remove(int parent, const char *name);
/* Directory times are set last, when nothing is written below any more. */
void tree_remember_times(const char *path, int64_t sec, long nsec, uint64_t device, uint64_t inode);
void tree_apply_times(void);

/* ---- extract.c ---------------------------------------------------------------------------------------- */

void extract(const struct options *options, struct result *result);

#endif
