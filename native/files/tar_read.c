/* Reads archives by strangers: every length is checked before it is used, and memory is bounded whatever comes. */
#include "files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK 512
#define PAX_LIMIT (1u << 20) /* bytes of one extended header, as Go's archive/tar has it */

static char buffer[256 * 1024];
static size_t start, end;
static uint64_t left, padding; /* of the present member */

/* At least one byte unless the input has ended. */
static size_t fill(void) {
  while (start == end) {
    ssize_t n = read(STDIN_FILENO, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) die(errno, "read the archive");
    start = 0;
    end = (size_t)n;
    if (n == 0) return 0;
  }
  return end - start;
}

/* All of `size` bytes. False: the input ended before the first one. */
static bool take(void *out, size_t size) {
  size_t done = 0;
  while (done < size) {
    size_t n = fill();
    if (n == 0 && done == 0) return false;
    if (n == 0) die(0, "unexpected EOF");
    if (n > size - done) n = size - done;
    if (out != NULL) memcpy((char *)out + done, buffer + start, n);
    start += n;
    done += n;
  }
  return true;
}

static void must_take(void *out, size_t size) {
  if (size > 0 && !take(out, size)) die(0, "unexpected EOF");
}

static void skip(uint64_t size) {
  while (size > 0) {
    size_t n = fill();
    if (n == 0) die(0, "unexpected EOF");
    if (n > size) n = (size_t)size;
    start += n;
    size -= n;
  }
}

/* Octal, or base-256 with the first bit set (GNU, star). Negative base-256 numbers are times before 1970. */
static int64_t number(const char *field, size_t size) {
  const unsigned char *p = (const unsigned char *)field;
  uint64_t value = 0;
  if ((p[0] & 0x80) != 0) {
    bool negative = (p[0] & 0x40) != 0;
    if (negative) value = ~0ULL;
    for (size_t i = 0; i < size; i++) {
      unsigned byte = i == 0 ? (negative ? p[0] | 0x80u : p[0] & 0x7fu) : p[i];
      if (size - i > 8 && byte != (negative ? 0xffu : 0u)) die(0, "invalid tar header");
      value = value << 8 | byte;
    }
    if (negative != ((int64_t)value < 0)) die(0, "invalid tar header");
    return (int64_t)value;
  }
  size_t i = 0;
  while (i < size && (p[i] == ' ' || p[i] == 0)) i++;
  for (; i < size && p[i] >= '0' && p[i] <= '7'; i++) {
    if (value >> 59 != 0) die(0, "invalid tar header");
    value = value << 3 | (uint64_t)(p[i] - '0');
  }
  if (i < size && p[i] != ' ' && p[i] != 0) die(0, "invalid tar header");
  return (int64_t)value;
}

static void copy_text(char *out, size_t out_size, const char *value, size_t size) {
  if (size >= out_size) die(0, "a name in the archive is too long");
  memcpy(out, value, size);
  out[size] = 0;
  if (strlen(out) != size) die(0, "a name in the archive holds a NUL byte");
}

/* Seconds with an optional fraction. */
static bool parse_time(const char *text, int64_t *seconds, long *nanoseconds) {
  char *rest;
  errno = 0;
  long long whole = strtoll(text, &rest, 10);
  if (rest == text || errno != 0) return false;
  *seconds = whole;
  *nanoseconds = 0;
  if (*rest != '.') return *rest == 0;
  long unit = 100000000;
  for (rest++; *rest >= '0' && *rest <= '9'; rest++, unit /= 10) *nanoseconds += (*rest - '0') * unit;
  if (text[0] == '-' && *nanoseconds != 0) {
    *seconds -= 1;
    *nanoseconds = 1000000000 - *nanoseconds;
  }
  return *rest == 0;
}

static void add_xattr(struct tar_member *m, const char *name, const char *value, size_t size) {
  bool wanted = (strncmp(name, "user.", 5) == 0 && strncmp(name, "user.overlay.", 13) != 0) || strcmp(name, "security.capability") == 0 ||
                strcmp(name, "system.posix_acl_access") == 0 || strcmp(name, "system.posix_acl_default") == 0;
  if (!wanted) return; /* trusted.*, security.selinux: the host's policy, not a guest's in an archive */
  if (m->xattr_count == XATTRS_MAX || size > XATTR_LIMIT) die(0, "too many attributes in the archive");
  char *kept = malloc(size + 1), *key = strdup(name);
  if (kept == NULL || key == NULL) die(ENOMEM, "read the archive");
  memcpy(kept, value, size);
  m->xattrs[m->xattr_count].name = key;
  m->xattrs[m->xattr_count].value = kept;
  m->xattrs[m->xattr_count++].size = size;
}

/* What an extended header overrides. */
struct overrides {
  bool name, link, size, uid, gid, mtime;
};

static void pax_value(struct tar_member *m, struct overrides *o, const char *key, const char *value, size_t size) {
  char *rest;
  if (strcmp(key, "path") == 0) {
    copy_text(m->name, sizeof m->name, value, size);
    o->name = size > 0;
  } else if (strcmp(key, "linkpath") == 0) {
    copy_text(m->link, sizeof m->link, value, size);
    o->link = size > 0;
  } else if (strcmp(key, "size") == 0 || strcmp(key, "uid") == 0 || strcmp(key, "gid") == 0) {
    errno = 0;
    unsigned long long parsed = strtoull(value, &rest, 10);
    if (rest == value || *rest != 0 || errno != 0 || *value == '-' || parsed > INT64_MAX) die(0, "invalid tar header");
    if (key[0] == 's') m->size = parsed, o->size = true;
    else if (key[0] == 'u') m->uid = (int64_t)parsed, o->uid = true;
    else m->gid = (int64_t)parsed, o->gid = true;
  } else if (strcmp(key, "mtime") == 0) {
    if (!parse_time(value, &m->mtime, &m->mtime_nsec)) die(0, "invalid tar header");
    o->mtime = true;
  } else if (strncmp(key, "SCHILY.xattr.", 13) == 0) {
    add_xattr(m, key + 13, value, size);
  } else if (strncmp(key, "GNU.sparse.", 11) == 0) {
    die(0, "sparse files in archives are not supported");
  }
}

static void pax_header(struct tar_member *m, struct overrides *o, uint64_t size) {
  if (size > PAX_LIMIT) die(0, "an extended header in the archive is too long");
  char *text = malloc((size_t)size + 1);
  if (text == NULL) die(ENOMEM, "read the archive");
  must_take(text, (size_t)size);
  for (size_t at = 0; at < size;) {
    size_t length = 0, digits = 0;
    while (at + digits < size && digits < 8 && text[at + digits] >= '0' && text[at + digits] <= '9') length = length * 10 + (size_t)(text[at + digits++] - '0');
    if (digits == 0 || at + digits >= size || text[at + digits] != ' ' || length < digits + 4 || length > size - at || text[at + length - 1] != '\n')
      die(0, "invalid tar header");
    char *key = text + at + digits + 1, *stop = text + at + length - 1;
    *stop = 0;
    char *equals = memchr(key, '=', (size_t)(stop - key));
    if (equals == NULL) die(0, "invalid tar header");
    *equals = 0;
    pax_value(m, o, key, equals + 1, (size_t)(stop - equals - 1));
    at += length;
  }
  free(text);
}

static void long_text(char *out, size_t out_size, uint64_t size) {
  if (size >= out_size) die(0, "a name in the archive is too long");
  must_take(out, (size_t)size);
  out[size] = 0; /* what follows the first NUL is padding */
}

static bool good_sum(const char *block) {
  unsigned sum = 0;
  int other = 0; /* old programs summed signed bytes */
  for (int i = 0; i < BLOCK; i++) {
    bool field = i >= 148 && i < 156;
    sum += field ? ' ' : (unsigned char)block[i];
    other += field ? ' ' : (signed char)block[i];
  }
  int64_t said = number(block + 148, 8);
  return said == (int64_t)sum || said == other;
}

static void free_xattrs(struct tar_member *m) {
  for (size_t i = 0; i < m->xattr_count; i++) {
    free(m->xattrs[i].name);
    free(m->xattrs[i].value);
  }
  m->xattr_count = 0;
}

bool tar_next(struct tar_member *m) {
  static const char zeros[BLOCK];
  char block[BLOCK];
  struct overrides o = {0};
  free_xattrs(m);
  skip(left);
  skip(padding);
  left = padding = 0;
  for (;;) {
    if (!take(block, BLOCK)) {
      if (o.name || o.link || o.size) die(0, "unexpected EOF");
      return false; /* without its two empty blocks; as tar(1) and Go take it */
    }
    if (memcmp(block, zeros, BLOCK) == 0) return false;
    if (!good_sum(block)) die(0, "invalid tar header");
    int64_t size = number(block + 124, 12);
    char type = block[156];
    if (size < 0) die(0, "invalid tar header");
    uint64_t pad = (BLOCK - (uint64_t)size % BLOCK) % BLOCK;
    if (type == 'x' || type == 'X') {
      pax_header(m, &o, (uint64_t)size);
      skip(pad);
      continue;
    }
    if (type == 'g') { /* applies to all that follow; docker ignores it too */
      skip((uint64_t)size);
      skip(pad);
      continue;
    }
    if (type == 'L' || type == 'K') {
      long_text(type == 'L' ? m->name : m->link, NAME_LIMIT, (uint64_t)size);
      skip(pad);
      if (type == 'L') o.name = true;
      else o.link = true;
      continue;
    }
    if (!o.name) {
      char prefix[156] = "", name[101] = "";
      memcpy(name, block, 100);
      if (memcmp(block + 257, "ustar\0", 6) == 0) memcpy(prefix, block + 345, 155);
      strcpy(m->name, prefix);
      if (*prefix != 0) strcat(m->name, "/");
      strcat(m->name, name);
    }
    if (!o.link) {
      memcpy(m->link, block + 157, 100);
      m->link[100] = 0;
    }
    m->type = type == 0 || type == '7' ? '0' : type;
    if (m->type == '0' && *m->name != 0 && m->name[strlen(m->name) - 1] == '/') m->type = '5'; /* before ustar */
    m->mode = (uint32_t)number(block + 100, 8) & 07777;
    if (!o.uid) m->uid = number(block + 108, 8);
    if (!o.gid) m->gid = number(block + 116, 8);
    if (!o.size) m->size = (uint64_t)size;
    if (!o.mtime) {
      m->mtime = number(block + 136, 12);
      m->mtime_nsec = 0;
    }
    m->dev_major = m->dev_minor = 0;
    if (m->type == '3' || m->type == '4') {
      m->dev_major = (uint32_t)number(block + 329, 8);
      m->dev_minor = (uint32_t)number(block + 337, 8);
    }
    if (m->uid < 0 || m->gid < 0 || m->uid > UINT32_MAX - 1 || m->gid > UINT32_MAX - 1) die(0, "invalid tar header");
    /* Links and devices have no content, whatever their header says (POSIX; some writers give a hard link its file's size). */
    left = m->type == '0' || (m->type != '5' && m->type != '6' && (m->type < '1' || m->type > '4')) ? m->size : 0;
    padding = (BLOCK - left % BLOCK) % BLOCK;
    return true;
  }
}

size_t tar_data(const void **data) {
  if (left == 0) return 0;
  size_t n = fill();
  if (n == 0) die(0, "unexpected EOF");
  if (n > left) n = (size_t)left;
  *data = buffer + start;
  start += n;
  left -= n;
  return n;
}

void tar_drain(void) {
  for (size_t n; (n = fill()) > 0; start += n) {
  }
}
