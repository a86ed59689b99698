/* unix-cat PATH: stdin to a unix socket, end of input as a half-close, and what comes back to stdout. Exit code 1: cannot connect. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void copy(int from, int to) {
  char buffer[65536];
  for (ssize_t n; (n = read(from, buffer, sizeof buffer)) > 0;)
    for (ssize_t done = 0, w; done < n; done += w)
      if ((w = write(to, buffer + done, (size_t)(n - done))) < 0) return;
}

int main(int argc, char **argv) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (argc != 2 || strlen(argv[1]) >= sizeof name.sun_path) return 2;
  strcpy(name.sun_path, argv[1]);
  if (connect(fd, (struct sockaddr *)&name, sizeof name) < 0) return perror("connect"), 1;
  copy(0, fd);
  shutdown(fd, SHUT_WR);
  copy(fd, 1);
  return 0;
}
