/* hull-extents FILE: where a sparse file has data, as one JSON line [[offset,length],…] (lseek(2), SEEK_DATA).
 * Run once per template; Node.js has no lseek. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int fail(const char *what) {
  fprintf(stderr, "hull-extents: %s: %s\n", what, strerror(errno));
  return 1;
}

int main(int argc, char **argv) {
  if (argc != 2) return fputs("usage: hull-extents FILE\n", stderr), 2;
  int fd = open(argv[1], O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fail(argv[1]);
  putchar('[');
  off_t start = 0, end = 0;
  for (int first = 1; (start = lseek(fd, end, SEEK_DATA)) >= 0; first = 0) {
    end = lseek(fd, start, SEEK_HOLE);
    if (end < 0) return fail("SEEK_HOLE");
    printf("%s[%lld,%lld]", first ? "" : ",", (long long)start, (long long)(end - start));
  }
  if (errno != ENXIO) return fail("SEEK_DATA");
  puts("]");
  return fflush(stdout) == 0 ? 0 : fail("write");
}
