/*
 * The container's log, in the format of the CRI (kubernetes, "CRI logging format"):
 *
 *   2026-11-29T18:15:14.123456789Z stdout F a line, whose newline is the record's
 *   2026-11-29T18:15:14.123456790Z stderr P the beginning of a line: it goes on in the stream's next record
 *
 * A record is written whole or not at all: what a full disk took half of is cut off again.
 *
 * Rotation: a file that has reached its size becomes PATH.1, PATH.1 becomes PATH.2, and so on; the oldest goes. By renames alone, so that whoever reads has each file for as long as he has it open. Nothing is written to a file that
 * has been renamed.
 */
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { PARTS = 128 }; /* of one writev: two for each record, and one for the newline behind a part of a line */
enum { STAMP = 64 };

static const char *path;
static int fd = -1;
static uint64_t written, limit;
static unsigned files;
static bool failing;

static struct iovec parts[PARTS];
static int part_count;
static uint64_t part_bytes;

static uint64_t size_of_file(void) {
  struct stat status;
  return fstat(fd, &status) == 0 ? (uint64_t)status.st_size : 0;
}

/* What an earlier life was cut off in is a line of its own: the first record behind it is whole. */
static void end_last_line(void) {
  char last = '\n';
  if (written > 0 && pread(fd, &last, 1, (off_t)written - 1) == 1 && last != '\n' && write(fd, "\n", 1) == 1) written++;
}

static bool open_file(void) {
  fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
  if (fd < 0) return false;
  written = size_of_file();
  end_last_line();
  return true;
}

bool log_open(const char *log_path, uint64_t size, unsigned log_files) {
  path = log_path;
  limit = size;
  files = log_files > 0 ? log_files : 1;
  return open_file();
}

void log_close(void) {
  if (fd >= 0) close(fd);
  fd = -1;
}

/* Once for each time that it stops working. */
static void failed(const char *what, int error) {
  if (!failing) report(what, error);
  failing = true;
}

static void flush(void) {
  uint64_t size = part_bytes;
  int count = part_count;
  part_count = 0;
  part_bytes = 0;
  if (count == 0 || fd < 0) return;
  ssize_t done;
  do done = writev(fd, parts, count);
  while (done < 0 && errno == EINTR);
  if (done == (ssize_t)size) {
    written += size;
    failing = false;
    return;
  }
  failed("the log cannot be written", done < 0 ? errno : ENOSPC);
  if (done <= 0) return;
  /* Nobody else writes to it; but somebody may have emptied it, and it is shorter than what we have written. */
  written = size_of_file();
  if (written >= (uint64_t)done && ftruncate(fd, (off_t)(written - (uint64_t)done)) == 0) written -= (uint64_t)done;
}

static void name_of(char *name, unsigned number) {
  if (number == 0)
    snprintf(name, PATH_MAX, "%s", path);
  else
    snprintf(name, PATH_MAX, "%s.%u", path, number);
}

/* Highest first: whenever this is cut off, the names stay in the order of age, with at most a hole between them. */
static void rotate(void) {
  char from[PATH_MAX], to[PATH_MAX];
  log_close();
  written = 0; /* also when there is no new file: what has been rotated is not rotated again */
  if (files == 1) unlink(path);
  for (unsigned number = files - 1; number >= 1; number--) {
    name_of(from, number - 1);
    name_of(to, number);
    if (rename(from, to) < 0 && errno != ENOENT) failed("the log cannot be rotated", errno);
  }
  if (!open_file()) failed("a new log cannot be opened", errno);
}

static void add(const void *data, size_t size) {
  parts[part_count++] = (struct iovec){.iov_base = (void *)data, .iov_len = size};
  part_bytes += size;
}

/* Days since 1970 as a date (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days). */
static void date_of(int64_t days, int *year, int *month, int *day) {
  days += 719468;
  int64_t era = days / 146097, of_era = days % 146097;
  int64_t year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
  int64_t of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100), shifted = (5 * of_year + 2) / 153;
  *day = (int)(of_year - (153 * shifted + 2) / 5 + 1);
  *month = (int)(shifted < 10 ? shifted + 3 : shifted - 9);
  *year = (int)(year_of_era + era * 400 + (*month <= 2));
}

/* The head of a record. */
static size_t stamp(char *out, int stream, char tag) {
  struct timespec now;
  int year, month, day;
  clock_gettime(CLOCK_REALTIME, &now);
  date_of(now.tv_sec / 86400, &year, &month, &day);
  int of_day = (int)(now.tv_sec % 86400);
  return (size_t)snprintf(out, STAMP, "%04d-%02d-%02dT%02d:%02d:%02d.%09ldZ %s %c ", year, month, day, of_day / 3600, of_day / 60 % 60, of_day % 60, now.tv_nsec, stream == 2 ? "stderr" : "stdout", tag);
}

void log_write(int stream, const uint8_t *data, size_t size) {
  static const char newline = '\n';
  if (path == NULL) return;
  if (fd < 0 && !open_file()) return failed("the log cannot be opened", errno);
  char full[STAMP], partial[STAMP];
  size_t head = stamp(full, stream, 'F');
  memcpy(partial, full, sizeof partial);
  partial[head - 2] = 'P';
  while (size > 0) {
    const uint8_t *end = memchr(data, '\n', size);
    size_t length = end != NULL ? (size_t)(end - data) + 1 : size;
    if (part_count + 3 > PARTS) flush();
    if (limit > 0 && written + part_bytes >= limit) {
      flush();
      if (written >= limit) rotate();
    }
    add(end != NULL ? full : partial, head);
    add(data, length);
    if (end == NULL) add(&newline, 1);
    data += length;
    size -= length;
  }
  flush();
}
