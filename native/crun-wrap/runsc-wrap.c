/*
 * runsc-wrap -n|-t SOCKET FILE NAME ARG…: runs gVisor's runsc, FILE, with the arguments NAME ARG…, where it finds what it needs. Descriptors, environment and parent stay as they were; errors go to stderr, exit code 125.
 *
 * -n: for `runsc start`. gVisor before August 2024 takes a network namespace for the host's if it finds /proc/sys/net/core/rmem_default in it, and
 * refuses. Since Linux 6.9 each namespace has that file (https://github.com/google/gvisor/issues/10704). An empty directory hides all of /proc/sys/net,
 * of which `start` reads nothing else: what lies below is another directory for each network namespace, and nothing could be mounted there ahead.
 * Only for `start`: in the mount namespace of `create` the sandbox could not mount a proc of its own (mount_too_revealing(), fs/namespace.c).
 *
 * -t: for `runsc exec` with a terminal. It makes one by itself only with --detach, and then nobody learns the exit code. So the terminal is made here; its master goes
 * to the listener at SOCKET as runtimes send theirs (--console-socket: one message with one descriptor), and the other end is stdin, stdout, stderr and controlling terminal.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SYSCTL_NET "/proc/sys/net"

static int fail(const char *what) {
  fprintf(stderr, "runsc-wrap: %s: %s\n", what, strerror(errno));
  return 125;
}

/* 0, or the exit code. */
static int hide_net(void) {
  if (unshare(CLONE_NEWNS) < 0) return fail("unshare");
  /* Slave: mounts of the host still arrive here, the one below stays here. */
  if (mount("", "/", NULL, MS_REC | MS_SLAVE, NULL) < 0) return fail("make / a slave mount");
  return mount("hull", SYSCTL_NET, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k") < 0 ? fail("hide " SYSCTL_NET) : 0;
}

/* unix(7): one byte and a descriptor. */
static int send_descriptor(const char *path, int fd) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  union {
    struct cmsghdr header;
    char room[CMSG_SPACE(sizeof(int))];
  } control;
  char byte = 0;
  struct iovec data = {&byte, 1};
  struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
  int to = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (to < 0) return -1;
  if (strlen(path) >= sizeof address.sun_path) return errno = ENAMETOOLONG, -1;
  strcpy(address.sun_path, path);
  if (connect(to, (struct sockaddr *)&address, sizeof address) < 0) return -1;
  memset(&control, 0, sizeof control);
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  *header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
  memcpy(CMSG_DATA(header), &fd, sizeof fd);
  return sendmsg(to, &message, MSG_NOSIGNAL) == 1 ? close(to) : -1;
}

/* The caller has made us the leader of a session without a terminal. */
static int own_terminal(const char *path) {
  int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0) return fail("make a terminal");
  int terminal = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (terminal < 0) return fail("open the terminal");
  if (ioctl(terminal, TIOCSCTTY, 0) < 0) return fail("take the terminal");
  if (send_descriptor(path, master) < 0) return fail("send the terminal");
  close(master);
  for (int fd = 0; fd < 3; fd++)
    if (dup2(terminal, fd) < 0) return fail("dup2");
  return 0;
}

int main(int argc, char **argv) {
  const char *option = argc > 1 ? argv[1] : "";
  int terminal = strcmp(option, "-t") == 0, first = terminal ? 3 : 2;
  if (argc < first + 2 || (!terminal && strcmp(option, "-n") != 0)) {
    fputs("usage: runsc-wrap -n|-t SOCKET FILE NAME ARG...\n", stderr);
    return 125;
  }
  int code = terminal ? own_terminal(argv[2]) : hide_net();
  if (code != 0) return code;
  execv(argv[first], argv + first + 1);
  return fail(argv[first]);
}
