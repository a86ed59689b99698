/* What goes wrong while nobody asks. */
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { REPORTS = 20 }; /* a full disk would fill another one with what it says */

static const char *directory;
static int reports;

void report_into(const char *bundle) { directory = bundle; }

bool write_all(int fd, const void *data, size_t size) {
  for (const char *at = data; size > 0;) {
    ssize_t written = write(fd, at, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    at += written;
    size -= (size_t)written;
  }
  return true;
}

void report(const char *what, int error) {
  if (directory == NULL || reports++ >= REPORTS) return;
  char path[PATH_MAX], text[512];
  if (snprintf(path, sizeof path, "%s/monitor.err", directory) >= (int)sizeof path) return;
  int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) return;
  int length = snprintf(text, sizeof text, "hull-monitor: %s%s%s\n", what, error != 0 ? ": " : "", error != 0 ? strerror(error) : "");
  write_all(fd, text, length < (int)sizeof text ? (size_t)length : sizeof text - 1);
  close(fd);
}
