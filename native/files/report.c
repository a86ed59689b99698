#include "files.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define REPORT 2

static void put(const char *data, size_t length) {
  while (length > 0) {
    ssize_t n = write(REPORT, data, length);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) _exit(2);
    data += n;
    length -= (size_t)n;
  }
}

/* Names are hostile: control characters, quotes and backslashes are escaped. Other bytes go as they are; the reader decodes UTF-8. */
static size_t quote(char *out, size_t size, const char *text) {
  size_t used = 0;
  out[used++] = '"';
  for (const unsigned char *p = (const unsigned char *)text; *p != 0 && used + 8 < size; p++) {
    if (*p == '"' || *p == '\\') {
      out[used++] = '\\';
      out[used++] = (char)*p;
    } else if (*p < 0x20 || *p == 0x7f) {
      used += (size_t)snprintf(out + used, size - used, "\\u%04x", *p);
    } else {
      out[used++] = (char)*p;
    }
  }
  out[used++] = '"';
  out[used] = 0;
  return used;
}

void die(int errnum, const char *format, ...) {
  char text[2 * PATH_LIMIT], quoted[6 * sizeof text], line[sizeof quoted + 64];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  size_t used = strlen(text);
  if (errnum != 0) snprintf(text + used, sizeof text - used, ": %s", strerror(errnum));
  quote(quoted, sizeof quoted, text);
  int n = snprintf(line, sizeof line, "{\"error\":%s,\"errno\":%d}\n", quoted, errnum);
  put(line, (size_t)n);
  _exit(1);
}

void report_stat(const struct stat *st, const char *link) {
  char quoted[6 * PATH_LIMIT + 8], line[sizeof quoted + 200];
  quote(quoted, sizeof quoted, link);
  int n = snprintf(line, sizeof line, "{\"mode\":%u,\"size\":%lld,\"mtime\":%lld.%09ld,\"link\":%s}\n", st->st_mode, (long long)st->st_size,
                   (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec, quoted);
  put(line, (size_t)n);
}

void report_ready(void) { put("{\"ready\":true}\n", 15); }

void report_done(uint64_t size) {
  char line[64];
  put(line, (size_t)snprintf(line, sizeof line, "{\"ok\":true,\"size\":%llu}\n", (unsigned long long)size));
  _exit(0);
}
