#include "exercises.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define KIND(type) ((type) | SOCK_CLOEXEC)
#define PIECE 16384

static char buffer[PIECE];

/* Nothing here waits longer: a firewall may drop what is sent to ourselves. */
static void bounded(int fd) {
  struct timeval second = {1, 0};
  TRY(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second));
  TRY(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &second, sizeof second));
}

/* `from` and `to` are connected. */
static void talk(int from, int to) {
  for (int n = 0; n < 8; n++) {
    TRY(send(from, buffer, sizeof buffer, MSG_NOSIGNAL));
    for (size_t had = 0; had < sizeof buffer;) {
      ssize_t got = recv(to, buffer, sizeof buffer - had, 0);
      if (got <= 0) return;
      had += (size_t)got;
    }
  }
}

static void stream(int family, const struct sockaddr *address, socklen_t size) {
  struct sockaddr_storage bound;
  socklen_t length = sizeof bound;
  int one = 1, listener = socket(family, KIND(SOCK_STREAM), 0), client = socket(family, KIND(SOCK_STREAM), 0), server = -1;
  if (listener >= 0 && client >= 0) {
    bounded(listener);
    bounded(client);
    TRY(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one));
    if (bind(listener, address, size) == 0 && listen(listener, 4) == 0 && getsockname(listener, (struct sockaddr *)&bound, &length) == 0 &&
        connect(client, (struct sockaddr *)&bound, length) == 0)
      server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  }
  int poller = server < 0 ? -1 : epoll_create1(EPOLL_CLOEXEC);
  if (server >= 0) {
    bounded(server);
    if (family != AF_UNIX) TRY(setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one));
    length = sizeof bound;
    TRY(getpeername(server, (struct sockaddr *)&bound, &length));
    if (poller >= 0) {
      struct epoll_event event = {.events = EPOLLIN};
      TRY(epoll_ctl(poller, EPOLL_CTL_ADD, server, &event));
      TRY(send(client, "x", 1, MSG_NOSIGNAL));
      TRY(epoll_wait(poller, &event, 1, 1000));
      TRY(recv(server, buffer, 1, 0));
    }
    talk(client, server);
    talk(server, client);
    TRY(shutdown(client, SHUT_WR));
    TRY(recv(server, buffer, sizeof buffer, 0));
    close(server);
  }
  if (poller >= 0) close(poller);
  if (client >= 0) close(client);
  if (listener >= 0) close(listener);
}

static void datagrams(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  int fd = socket(AF_INET, KIND(SOCK_DGRAM), 0);
  if (fd < 0) return;
  bounded(fd);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && getsockname(fd, (struct sockaddr *)&address, &length) == 0) {
    for (int n = 0; n < 4; n++) {
      TRY(sendto(fd, buffer, 1000, 0, (struct sockaddr *)&address, sizeof address));
      TRY(recvfrom(fd, buffer, sizeof buffer, 0, NULL, NULL));
    }
  }
  close(fd);
}

/* With a descriptor on its way. */
static void pairs(void) {
  int ends[2];
  if (socketpair(AF_UNIX, KIND(SOCK_STREAM), 0, ends) != 0) return;
  bounded(ends[0]);
  bounded(ends[1]);
  union { struct cmsghdr head; char bytes[CMSG_SPACE(sizeof(int))]; } control = {0};
  struct iovec part = {buffer, 100};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &ends[0], sizeof(int));
  if (sendmsg(ends[0], &message, MSG_NOSIGNAL) > 0 && recvmsg(ends[1], &message, MSG_CMSG_CLOEXEC) > 0 && (header = CMSG_FIRSTHDR(&message)) != NULL && header->cmsg_type == SCM_RIGHTS) {
    int got;
    memcpy(&got, CMSG_DATA(header), sizeof got);
    close(got);
  }
  talk(ends[0], ends[1]);
  close(ends[0]);
  close(ends[1]);
}

void exercise_sockets(void) {
  struct sockaddr_in four = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  /* An abstract name: it needs no directory, and the kernel chooses it. */
  struct sockaddr_un local = {.sun_family = AF_UNIX};
  stream(AF_INET, (struct sockaddr *)&four, sizeof four);
  stream(AF_INET6, (struct sockaddr *)&six, sizeof six);
  stream(AF_UNIX, (struct sockaddr *)&local, sizeof local.sun_family);
  datagrams();
  pairs();
}

/* The default route's, of /proc/net/route. */
static in_addr_t gateway(void) {
  char line[256], name[32];
  unsigned to, by = 0;
  FILE *table = fopen("/proc/net/route", "re");
  if (table == NULL) return 0;
  while (fgets(line, sizeof line, table) != NULL)
    if (sscanf(line, "%31s %8x %8x", name, &to, &by) == 3 && to == 0 && by != 0) break;
    else by = 0;
  fclose(table);
  return by;
}

/* To the port "discard": nobody answers, unless with the news that nobody is there. */
void exercise_network(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = gateway()};
  int fd = address.sin_addr.s_addr == 0 ? -1 : socket(AF_INET, KIND(SOCK_DGRAM), 0);
  if (fd < 0) return;
  bounded(fd);
  if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) {
    for (int n = 0; n < 4; n++) TRY(send(fd, buffer, 500, MSG_NOSIGNAL));
    struct pollfd one = {.fd = fd, .events = POLLIN};
    if (poll(&one, 1, 50) > 0) TRY(recv(fd, buffer, sizeof buffer, MSG_DONTWAIT));
  }
  close(fd);
}
