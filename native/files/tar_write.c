#include "files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#define BLOCK 512
static char buffer[256 * 1024];
static size_t filled;
static char pax[4 * NAME_LIMIT + XATTR_LIMIT * 4];
static size_t pax_used;

static void flush(void) {
  for (size_t at = 0; at < filled;) {
    ssize_t n = write(STDOUT_FILENO, buffer + at, filled - at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) _exit(3); /* nobody reads any more */
    at += (size_t)n;
  }
  filled = 0;
}

static void put(const void *data, size_t size) {
  const char *p = data;
  while (size > 0) {
    if (filled == sizeof buffer) flush();
    size_t n = size < sizeof buffer - filled ? size : sizeof buffer - filled;
    memcpy(buffer + filled, p, n);
    filled += n;
    p += n;
    size -= n;
  }
}

static void pad(uint64_t size) {
  static const char zeros[BLOCK];
  if (size % BLOCK != 0) put(zeros, BLOCK - size % BLOCK);
}

/* "LENGTH KEY=VALUE\n", where LENGTH counts itself. */
static void pax_record(const char *key, const void *value, size_t size) {
  size_t body = strlen(key) + size + 3, digits = 1;
  for (size_t power = 10; body + digits >= power; power *= 10) digits++;
  if (pax_used + body + digits > sizeof pax) die(0, "the attributes of a file are too long for an archive");
  pax_used += (size_t)sprintf(pax + pax_used, "%zu %s=", body + digits, key);
  memcpy(pax + pax_used, value, size);
  pax_used += size;
  pax[pax_used++] = '\n';
}

/* Octal with a final NUL. False: does not fit. */
static bool octal(char *field, size_t size, uint64_t value) {
  bool fits = size >= 22 || value < 1ULL << 3 * (size - 1);
  snprintf(field, size, "%0*llo", (int)size - 1, (unsigned long long)(fits ? value : 0));
  return fits;
}

static void number(char *field, size_t size, uint64_t value, const char *key) {
  char text[24];
  if (!octal(field, size, value)) pax_record(key, text, (size_t)snprintf(text, sizeof text, "%llu", (unsigned long long)value));
}

static void put_raw(char header[BLOCK]) {
  unsigned sum = 0;
  memcpy(header + 257, "ustar\00000", 8);
  memset(header + 148, ' ', 8);
  for (int i = 0; i < BLOCK; i++) sum += (unsigned char)header[i];
  snprintf(header + 148, 8, "%06o", sum);
  put(header, BLOCK);
}

/* Attributes that belong to the file and not to this host: those that docker carries, and the user's own. */
static void xattrs(int fd) {
  static char names[XATTR_LIMIT], value[XATTR_LIMIT];
  ssize_t size = flistxattr(fd, names, sizeof names);
  for (ssize_t at = 0; at < size; at += (ssize_t)strlen(names + at) + 1) {
    const char *name = names + at;
    if (strncmp(name, "user.overlay.", 13) == 0) continue;
    if (strncmp(name, "user.", 5) != 0 && strcmp(name, "security.capability") != 0) continue;
    ssize_t length = fgetxattr(fd, name, value, sizeof value);
    char key[300];
    if (length >= 0 && snprintf(key, sizeof key, "SCHILY.xattr.%s", name) < (int)sizeof key) pax_record(key, value, (size_t)length);
  }
}

static void text(char *field, size_t size, const char *value, const char *key) {
  size_t length = strlen(value);
  if (length > size) pax_record(key, value, length);
  memcpy(field, value, length < size ? length : size);
}

void tar_header(const struct tar_entry *entry) {
  char header[BLOCK] = {0};
  pax_used = 0;
  text(header, 100, entry->name, "path");
  text(header + 157, 100, entry->link == NULL ? "" : entry->link, "linkpath");
  octal(header + 100, 8, entry->mode & 07777);
  number(header + 108, 8, entry->uid, "uid");
  number(header + 116, 8, entry->gid, "gid");
  number(header + 124, 12, entry->size, "size");
  if (entry->mtime >= 0) {
    number(header + 136, 12, (uint64_t)entry->mtime, "mtime");
  } else { /* before 1970 */
    char time[24];
    octal(header + 136, 12, 0);
    pax_record("mtime", time, (size_t)snprintf(time, sizeof time, "%lld", (long long)entry->mtime));
  }
  header[156] = entry->type;
  octal(header + 329, 8, entry->dev_major);
  octal(header + 337, 8, entry->dev_minor);
  if (entry->xattrs >= 0) xattrs(entry->xattrs);
  if (pax_used > 0) {
    char extended[BLOCK] = {0};
    snprintf(extended, 100, "PaxHeaders.0/%.80s", entry->name);
    octal(extended + 100, 8, 0644);
    octal(extended + 108, 8, 0);
    octal(extended + 116, 8, 0);
    octal(extended + 124, 12, pax_used);
    octal(extended + 136, 12, 0);
    extended[156] = 'x';
    put_raw(extended);
    put(pax, pax_used);
    pad(pax_used);
  }
  put_raw(header);
}

void tar_file(int fd, uint64_t size) {
  for (uint64_t left = size; left > 0;) {
    if (filled == sizeof buffer) flush();
    size_t room = sizeof buffer - filled;
    if (room > left) room = (size_t)left;
    ssize_t n = read(fd, buffer + filled, room);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) { /* it has become shorter, or cannot be read: the archive must stay in step */
      memset(buffer + filled, 0, room);
      n = (ssize_t)room;
    }
    filled += (size_t)n;
    left -= (uint64_t)n;
  }
  pad(size);
}

void tar_end(void) {
  static const char zeros[2 * BLOCK];
  put(zeros, sizeof zeros);
  flush();
}
