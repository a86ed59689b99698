/* rtnetlink(7): one request, one acknowledgement. */
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>

#include "agent_rtnl.h"

void rtnl_begin(struct rtnl *m, uint16_t type, uint16_t flags, const void *fixed, size_t size) {
  memset(m, 0, sizeof *m);
  m->header.nlmsg_type = type;
  m->header.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags);
  m->header.nlmsg_len = (uint32_t)NLMSG_LENGTH(size);
  memcpy(NLMSG_DATA(&m->header), fixed, size);
}

size_t rtnl_put(struct rtnl *m, uint16_t type, const void *data, size_t size) {
  size_t at = NLMSG_ALIGN(m->header.nlmsg_len);
  struct rtattr attribute = {.rta_type = type, .rta_len = (uint16_t)RTA_LENGTH(size)};
  if (at + RTA_SPACE(size) > sizeof m->bytes) return at; /* no message of ours is so long */
  memcpy(m->bytes + at, &attribute, sizeof attribute);
  if (size > 0) memcpy(m->bytes + at + RTA_LENGTH(0), data, size);
  m->header.nlmsg_len = (uint32_t)(at + RTA_LENGTH(size));
  return at;
}

void rtnl_end(struct rtnl *m, size_t nest) {
  uint16_t length = (uint16_t)(m->header.nlmsg_len - nest);
  memcpy(m->bytes + nest, &length, sizeof length); /* rta_len comes first */
}

int rtnl_send(struct rtnl *m) {
  /* One for all: it is made with the machine, and a clone finds it. */
  static int fd = -1;
  static uint32_t sequence;
  if (fd < 0) fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (fd < 0) return errno;
  struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
  union {
    struct nlmsghdr header;
    uint8_t bytes[4096];
  } reply;
  m->header.nlmsg_seq = ++sequence;
  if (sendto(fd, m, m->header.nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof kernel) < 0) return errno;
  for (;;) {
    ssize_t length = recv(fd, &reply, sizeof reply, 0);
    if (length < 0 && errno == EINTR) continue;
    if (length < (ssize_t)NLMSG_LENGTH(sizeof(int))) return length < 0 ? errno : EIO;
    if (reply.header.nlmsg_seq != sequence) continue; /* the answer to one that was given up */
    int verdict = 0;
    if (reply.header.nlmsg_type == NLMSG_ERROR) memcpy(&verdict, NLMSG_DATA(&reply.header), sizeof verdict);
    return -verdict;
  }
}
