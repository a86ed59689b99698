/* Unix sockets of the host (a bind mount of docker.sock and its like): no file system carries a connection out of the machine, so the guest
 * listens at the path itself and the host takes each connection as a stream (ACCEPT). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent.h"

#define SOCKETS_MAX 64
#define BACKLOG 128

static struct listener {
  struct watch watch; /* first member */
  uint32_t index;
} listeners[SOCKETS_MAX];
static size_t count;

const char *socket_entry(const char *entry) { return strncmp(entry, "socket:", 7) == 0 ? entry + 7 : NULL; }

static void ready(struct watch *w, uint32_t events) {
  (void)events;
  int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd >= 0) session_connected(((struct listener *)(void *)w)->index, fd);
}

/* INDEX:MODE:UID:GID:TARGET, numbers decimal but for the mode */
static bool listen_at(const char *entry, char *message) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  unsigned int index, mode, uid, gid;
  if (count == SOCKETS_MAX) return fail(message, "too many sockets");
  if (sscanf(entry, "%8u:%4o:%10u:%10u:", &index, &mode, &uid, &gid) != 4) return fail(message, "invalid socket: %.200s", entry);
  snprintf(name.sun_path, sizeof name.sun_path, DIR_FILES "/socket-%u", index);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&name, sizeof name) < 0 || chown(name.sun_path, uid, gid) < 0 || chmod(name.sun_path, mode & 0777) < 0 ||
      listen(fd, BACKLOG) < 0) {
    fail(message, "socket %.200s: %s", entry, strerror(errno));
    if (fd >= 0) close(fd);
    return false;
  }
  struct listener *l = &listeners[count++];
  l->index = index;
  watch_init(&l->watch, fd, ready);
  return true;
}

bool sockets_listen(const struct config *c, char *message) {
  for (size_t i = 0; i < c->mounts.count; i++) {
    const char *entry = socket_entry(c->mounts.items[i]);
    if (entry != NULL && !listen_at(entry, message)) return false;
  }
  return true;
}

bool socket_known(uint32_t index) {
  for (size_t i = 0; i < count; i++)
    if (listeners[i].index == index) return true;
  return false;
}

void sockets_update(void) {
  for (size_t i = 0; i < count; i++) watch_set(&listeners[i].watch, session_waits(listeners[i].index) ? EPOLLIN : 0);
}
