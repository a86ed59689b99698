#include "drills.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void say(struct result *r, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(r->said, sizeof r->said, format, arguments);
  va_end(arguments);
}

ssize_t slurp(const char *path, char *text, size_t size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  size_t have = 0;
  ssize_t n = 0;
  while (have < size - 1 && (n = read(fd, text + have, size - 1 - have)) > 0) have += (size_t)n;
  int error = errno;
  close(fd);
  errno = error;
  text[have] = 0;
  return n < 0 && have == 0 ? -1 : (ssize_t)have;
}

int put(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  int error = write(fd, text, strlen(text)) < 0 ? errno : 0;
  close(fd);
  return error;
}

void boot_id(char id[37]) {
  char text[64];
  if (slurp("/proc/sys/kernel/random/boot_id", text, sizeof text) < 36) text[0] = 0;
  snprintf(id, 37, "%.36s", text);
}

/* A kernel that cannot be told from the host's is taken for it. */
bool other_kernel(const struct request *q) {
  char id[37];
  boot_id(id);
  return strlen(q->boot) == 8 && strlen(id) == 36 && strncmp(id, q->boot, 8) != 0;
}

static bool is_token(const char *text) {
  for (size_t i = strlen(TOKEN_PREFIX); i < TOKEN_LENGTH; i++)
    if (!((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f'))) return false;
  return true;
}

/* The last ones: a kernel's log has those of earlier days too. */
void find_tokens(struct result *r, const char *text, size_t length) {
  for (size_t i = 0; i + TOKEN_LENGTH <= length; i++) {
    if (memcmp(text + i, TOKEN_PREFIX, strlen(TOKEN_PREFIX)) != 0 || !is_token(text + i)) continue;
    char token[TOKEN_LENGTH + 1];
    snprintf(token, sizeof token, "%.*s", TOKEN_LENGTH, text + i);
    if (strstr(r->tokens, token) != NULL) continue;
    size_t have = strlen(r->tokens);
    if (have + TOKEN_LENGTH + 2 > sizeof r->tokens) {
      memmove(r->tokens, r->tokens + TOKEN_LENGTH + 1, have - TOKEN_LENGTH);
      have -= TOKEN_LENGTH + 1;
    }
    snprintf(r->tokens + have, sizeof r->tokens - have, "%s%s", have > 0 ? " " : "", token);
  }
}

/* A directory of our own in the container's root. */
bool scratch(char path[SCRATCH]) {
  snprintf(path, SCRATCH, "/.hull-drill-XXXXXX");
  return mkdtemp(path) != NULL;
}

/* The same in /dev, where that is a container's: its first process is one of us. On a host /dev is nobody's to play with. */
bool scratch_dev(char path[SCRATCH]) {
  char first[32], ours[32];
  if (slurp("/proc/1/comm", first, sizeof first) <= 0 || slurp("/proc/self/comm", ours, sizeof ours) <= 0 || strcmp(first, ours) != 0) {
    errno = EACCES;
    return false;
  }
  snprintf(path, SCRATCH, "/dev/.hull-drill-XXXXXX");
  return mkdtemp(path) != NULL;
}
