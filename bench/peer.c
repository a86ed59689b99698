/* The other end of the network measurements, in the benchmark's image: static, so that what is measured is the network and not a tool.
 *   peer serve PORT          a connection that begins with 'd' gets zeros for ever; with 'p', each further byte comes back at once
 *   peer dns NAME COUNT      microseconds that each of COUNT questions for NAME's A record takes, one a line; asks the first server of /etc/resolv.conf */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void answer(int fd) {
  static char zeros[65536];
  char byte;
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (read(fd, &byte, 1) != 1) return;
  if (byte == 'd')
    while (write(fd, zeros, sizeof zeros) > 0) {
    }
  else
    while (read(fd, &byte, 1) == 1 && write(fd, &byte, 1) == 1) {
    }
}

static int serve(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  int on = 1, server = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(server, (struct sockaddr *)&address, sizeof address) < 0 || listen(server, 16) < 0) return perror("listen"), 1;
  signal(SIGCHLD, SIG_IGN);
  for (;;) {
    int fd = accept(server, NULL, NULL);
    if (fd < 0) continue;
    if (fork() == 0) {
      answer(fd);
      _exit(0);
    }
    close(fd);
  }
}

/* RFC 1035, section 4: header, one question. */
static size_t question(unsigned char *out, unsigned id, const char *name) {
  unsigned char *at = out + 12;
  memset(out, 0, 12);
  out[0] = (unsigned char)(id >> 8), out[1] = (unsigned char)id, out[2] = 1, out[5] = 1;
  while (*name != 0) {
    size_t length = strcspn(name, ".");
    *at++ = (unsigned char)length;
    memcpy(at, name, length);
    at += length;
    name += length + (name[length] == '.');
  }
  memcpy(at, "\0\0\1\0\1", 5);
  return (size_t)(at + 5 - out);
}

static int dns(const char *name, int count) {
  char line[256], server[64] = "";
  FILE *file = fopen("/etc/resolv.conf", "r");
  while (file != NULL && *server == 0 && fgets(line, sizeof line, file) != NULL) sscanf(line, "nameserver %63s", server);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(53)};
  struct timeval limit = {.tv_sec = 5};
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  if (strlen(name) > 200 || inet_pton(AF_INET, server, &address.sin_addr) != 1 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) return perror(server), 1;
  for (int i = 0; i < count; i++) {
    unsigned char out[512], in[512];
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    size_t size = question(out, (unsigned)i, name);
    if (send(fd, out, size, 0) < 0 || recv(fd, in, sizeof in, 0) < 12) return perror("answer"), 1;
    clock_gettime(CLOCK_MONOTONIC, &b);
    if ((in[3] & 15) != 0 || (in[6] == 0 && in[7] == 0)) return fprintf(stderr, "%s: no such name (code %d)\n", name, in[3] & 15), 1;
    printf("%ld\n", (long)(b.tv_sec - a.tv_sec) * 1000000 + (b.tv_nsec - a.tv_nsec) / 1000);
  }
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "serve") == 0) return serve(atoi(argv[2]));
  if (argc == 4 && strcmp(argv[1], "dns") == 0) return dns(argv[2], atoi(argv[3]));
  return fputs("usage: peer serve PORT | peer dns NAME COUNT\n", stderr), 2;
}
