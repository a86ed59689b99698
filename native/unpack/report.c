#include "unpack.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static atomic_int state; /* 0 no error, 1 being written, 2 written */
static char message[1024];
static int code;

void fail(int errnum, const char *format, ...) {
  int expected = 0;
  if (!atomic_compare_exchange_strong(&state, &expected, 1)) return;
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  if (errnum != 0) {
    size_t used = strlen(message);
    snprintf(message + used, sizeof message - used, ": %s", strerrordesc_np(errnum) ? strerrordesc_np(errnum) : "unknown error");
  }
  code = errnum;
  atomic_store(&state, 2);
}

bool failed(void) {
  return atomic_load(&state) != 0;
}

static void put(const char *data, size_t length) {
  while (length > 0) {
    ssize_t n = write(STDOUT_FILENO, data, length);
    if (n < 0) {
      if (errno == EINTR) continue;
      _exit(2);
    }
    data += n;
    length -= (size_t)n;
  }
}

void report_failure(void) {
  /* Names in messages are hostile: whatever is not printable ASCII becomes \u00XX, one byte at a time. */
  char out[8 * 1024];
  size_t n = (size_t)snprintf(out, sizeof out, "{\"error\":\"");
  for (const char *p = message; *p != '\0'; p++) {
    unsigned char c = (unsigned char)*p;
    if (c == '"' || c == '\\') {
      out[n++] = '\\';
      out[n++] = (char)c;
    } else if (c < 0x20 || c >= 0x7f) {
      n += (size_t)snprintf(out + n, sizeof out - n, "\\u%04x", c);
    } else {
      out[n++] = (char)c;
    }
  }
  const char *name = code != 0 ? strerrorname_np(code) : NULL;
  n += (size_t)snprintf(out + n, sizeof out - n, "\",\"code\":\"%s\"}\n", name ? name : "");
  put(out, n);
  _exit(1);
}

void die(int errnum, const char *format, ...) {
  char text[512];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  fail(errnum, "%s", text);
  report_failure();
}

static void hex(const unsigned char *digest, char *out) {
  for (int i = 0; i < SHA256_BYTES; i++) sprintf(out + 2 * i, "%02x", digest[i]);
}

void report_success(const struct options *options, const struct result *result) {
  char diff[2 * SHA256_BYTES + 1], blob[2 * SHA256_BYTES + 1], out[512];
  hex(result->diff, diff);
  hex(result->blob, blob);
  int n = snprintf(out, sizeof out, "{\"diffId\":\"sha256:%s\",%s%s%s\"size\":%llu,\"entries\":%llu,\"stream\":%llu}\n", diff,
                   options->blob_digest ? "\"blobDigest\":\"sha256:" : "", options->blob_digest ? blob : "",
                   options->blob_digest ? "\"," : "", (unsigned long long)result->size, (unsigned long long)result->entries,
                   (unsigned long long)result->stream);
  put(out, (size_t)n);
  _exit(0);
}
