/* See rtnl.h. Message layouts: rtnetlink(7), linux/if_link.h, linux/veth.h. */
#include "rtnl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/veth.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int rtnl_open(void) { return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE); }

void rtnl_begin(struct rtnl_message *message, uint16_t type, uint16_t flags, const void *fixed, size_t size) {
  memset(message, 0, sizeof *message);
  message->header.nlmsg_type = type;
  message->header.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
  message->header.nlmsg_len = (uint32_t)NLMSG_LENGTH(size);
  memcpy(NLMSG_DATA(&message->header), fixed, size);
}

void rtnl_attribute(struct rtnl_message *message, uint16_t type, const void *data, size_t size) {
  size_t at = NLMSG_ALIGN(message->header.nlmsg_len);
  if (at + RTA_SPACE(size) > sizeof message->bytes) {
    message->overflow = true;
    return;
  }
  struct rtattr attribute = {.rta_type = type, .rta_len = (uint16_t)RTA_LENGTH(size)};
  memcpy(message->bytes + at, &attribute, sizeof attribute);
  if (size) memcpy(message->bytes + at + RTA_LENGTH(0), data, size);
  message->header.nlmsg_len = (uint32_t)(at + RTA_LENGTH(size));
}

void rtnl_string(struct rtnl_message *message, uint16_t type, const char *string) {
  rtnl_attribute(message, type, string, strlen(string) + 1);
}

void rtnl_u32(struct rtnl_message *message, uint16_t type, uint32_t value) {
  rtnl_attribute(message, type, &value, sizeof value);
}

size_t rtnl_nest(struct rtnl_message *message, uint16_t type, const void *fixed, size_t size) {
  size_t start = NLMSG_ALIGN(message->header.nlmsg_len);
  rtnl_attribute(message, type, fixed, size);
  return start;
}

void rtnl_nest_end(struct rtnl_message *message, size_t start) {
  uint16_t length = (uint16_t)(message->header.nlmsg_len - start);
  if (!message->overflow) memcpy(message->bytes + start + offsetof(struct rtattr, rta_len), &length, sizeof length);
}

static int send_message(int fd, struct rtnl_message *message) {
  if (message->overflow) return EMSGSIZE;
  struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
  ssize_t sent;
  do sent = sendto(fd, message, message->header.nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof kernel);
  while (sent < 0 && errno == EINTR);
  return sent < 0 ? errno : 0;
}

static ssize_t receive(int fd, void *buffer, size_t size) {
  struct sockaddr_nl from;
  for (;;) {
    struct iovec part = {buffer, size};
    struct msghdr header = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &part, .msg_iovlen = 1};
    ssize_t length = recvmsg(fd, &header, 0);
    if (length < 0 && errno == EINTR) continue;
    if (length < 0) return -1;
    if (from.nl_pid != 0) continue; /* another process of this host, not the kernel */
    if (header.msg_flags & MSG_TRUNC) {
      errno = EMSGSIZE;
      return -1;
    }
    return length;
  }
}

int rtnl_request(int fd, struct rtnl_message *message) {
  message->header.nlmsg_flags |= NLM_F_ACK;
  message->header.nlmsg_seq = 1;
  int error = send_message(fd, message);
  if (error) return error;
  union {
    struct nlmsghdr header;
    uint8_t bytes[8192];
  } reply;
  for (;;) {
    ssize_t length = receive(fd, &reply, sizeof reply);
    if (length < 0) return errno;
    size_t left = (size_t)length;
    for (struct nlmsghdr *at = &reply.header; NLMSG_OK(at, left); at = NLMSG_NEXT(at, left)) {
      if (at->nlmsg_type != NLMSG_ERROR) continue;
      struct nlmsgerr verdict;
      memcpy(&verdict, NLMSG_DATA(at), sizeof verdict);
      return -verdict.error;
    }
  }
}

int rtnl_link_set(int fd, const char *name, bool up, uint32_t mtu, const uint8_t mac[6]) {
  struct ifinfomsg link = {.ifi_family = AF_UNSPEC, .ifi_flags = up ? IFF_UP : 0, .ifi_change = IFF_UP};
  struct rtnl_message message;
  rtnl_begin(&message, RTM_NEWLINK, 0, &link, sizeof link);
  rtnl_string(&message, IFLA_IFNAME, name);
  if (mtu) rtnl_u32(&message, IFLA_MTU, mtu);
  if (mac) rtnl_attribute(&message, IFLA_ADDRESS, mac, 6);
  return rtnl_request(fd, &message);
}

int rtnl_link_delete(int fd, const char *name) {
  struct ifinfomsg link = {.ifi_family = AF_UNSPEC};
  struct rtnl_message message;
  rtnl_begin(&message, RTM_DELLINK, 0, &link, sizeof link);
  rtnl_string(&message, IFLA_IFNAME, name);
  return rtnl_request(fd, &message);
}

int rtnl_bridge_create(int fd, const char *name) {
  struct ifinfomsg link = {.ifi_family = AF_UNSPEC, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
  struct rtnl_message message;
  rtnl_begin(&message, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link, sizeof link);
  rtnl_string(&message, IFLA_IFNAME, name);
  size_t info = rtnl_nest(&message, IFLA_LINKINFO, NULL, 0);
  rtnl_string(&message, IFLA_INFO_KIND, "bridge");
  rtnl_nest_end(&message, info);
  return rtnl_request(fd, &message);
}

int rtnl_set_master(int fd, const char *name, int master) {
  struct ifinfomsg link = {.ifi_family = AF_UNSPEC};
  struct rtnl_message message;
  rtnl_begin(&message, RTM_NEWLINK, 0, &link, sizeof link);
  rtnl_string(&message, IFLA_IFNAME, name);
  rtnl_u32(&message, IFLA_MASTER, (uint32_t)master);
  return rtnl_request(fd, &message);
}

int rtnl_veth_create(int fd, const char *name, const char *peer, int netns, uint32_t mtu, int bridge) {
  struct ifinfomsg link = {.ifi_family = AF_UNSPEC};
  if (bridge) link.ifi_flags = link.ifi_change = IFF_UP;
  struct ifinfomsg other = {.ifi_family = AF_UNSPEC};
  struct rtnl_message message;
  rtnl_begin(&message, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link, sizeof link);
  rtnl_string(&message, IFLA_IFNAME, name);
  if (mtu) rtnl_u32(&message, IFLA_MTU, mtu);
  if (bridge) rtnl_u32(&message, IFLA_MASTER, (uint32_t)bridge);
  size_t info = rtnl_nest(&message, IFLA_LINKINFO, NULL, 0);
  rtnl_string(&message, IFLA_INFO_KIND, "veth");
  size_t data = rtnl_nest(&message, IFLA_INFO_DATA, NULL, 0);
  size_t pair = rtnl_nest(&message, VETH_INFO_PEER, &other, sizeof other);
  rtnl_string(&message, IFLA_IFNAME, peer);
  if (mtu) rtnl_u32(&message, IFLA_MTU, mtu);
  rtnl_u32(&message, IFLA_NET_NS_FD, (uint32_t)netns);
  rtnl_nest_end(&message, pair);
  rtnl_nest_end(&message, data);
  rtnl_nest_end(&message, info);
  return rtnl_request(fd, &message);
}

static int address_change(int fd, uint16_t type, uint16_t flags, int link, uint32_t address, uint8_t prefix) {
  struct ifaddrmsg fixed = {.ifa_family = AF_INET, .ifa_prefixlen = prefix, .ifa_index = (uint32_t)link};
  struct rtnl_message message;
  rtnl_begin(&message, type, flags, &fixed, sizeof fixed);
  rtnl_u32(&message, IFA_LOCAL, address);
  rtnl_u32(&message, IFA_ADDRESS, address);
  if (type == RTM_NEWADDR && prefix < 31) {
    uint32_t broadcast = address | htonl(0xffffffffu >> prefix);
    rtnl_u32(&message, IFA_BROADCAST, broadcast);
  }
  return rtnl_request(fd, &message);
}

struct ipv4 {
  uint32_t address;
  uint8_t prefix;
};

/* The IPv4 addresses of a link, at most `room`; further ones are left out (the caller asks again). */
static int addresses_of(int fd, int link, struct ipv4 *out, size_t room, size_t *count) {
  struct ifaddrmsg fixed = {.ifa_family = AF_INET, .ifa_index = (uint32_t)link};
  struct rtnl_message message;
  *count = 0;
  int on = 1;
  setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof on); /* kernel filters by index: not O(links) */
  rtnl_begin(&message, RTM_GETADDR, NLM_F_DUMP, &fixed, sizeof fixed);
  message.header.nlmsg_seq = 2;
  int error = send_message(fd, &message);
  if (error) return error;
  union {
    struct nlmsghdr header;
    uint8_t bytes[32768];
  } reply;
  for (;;) {
    ssize_t length = receive(fd, &reply, sizeof reply);
    if (length < 0) return errno;
    size_t left = (size_t)length;
    for (struct nlmsghdr *at = &reply.header; NLMSG_OK(at, left); at = NLMSG_NEXT(at, left)) {
      if (at->nlmsg_type == NLMSG_DONE) return 0;
      if (at->nlmsg_type == NLMSG_ERROR) {
        struct nlmsgerr verdict;
        memcpy(&verdict, NLMSG_DATA(at), sizeof verdict);
        return verdict.error ? -verdict.error : EIO;
      }
      if (at->nlmsg_type != RTM_NEWADDR) continue;
      struct ifaddrmsg *entry = NLMSG_DATA(at);
      if ((int)entry->ifa_index != link || entry->ifa_family != AF_INET) continue;
      size_t rest = IFA_PAYLOAD(at);
      for (struct rtattr *attribute = IFA_RTA(entry); RTA_OK(attribute, rest); attribute = RTA_NEXT(attribute, rest)) {
        if (attribute->rta_type != IFA_LOCAL || RTA_PAYLOAD(attribute) != 4 || *count == room) continue;
        memcpy(&out[*count].address, RTA_DATA(attribute), 4);
        out[(*count)++].prefix = entry->ifa_prefixlen;
      }
    }
  }
}

int rtnl_address_replace(int fd, const char *name, uint32_t address, uint8_t prefix) {
  int link = (int)if_nametoindex(name);
  if (!link) return errno;
  struct ipv4 present[16];
  size_t count;
  bool there = false;
  do {
    int error = addresses_of(fd, link, present, 16, &count);
    if (error) return error;
    bool removed = false;
    for (size_t i = 0; i < count; i++) {
      if (present[i].address == address && present[i].prefix == prefix) {
        there = true; /* left alone: removing it would cut connections and routes */
        continue;
      }
      error = address_change(fd, RTM_DELADDR, 0, link, present[i].address, present[i].prefix);
      if (error && error != EADDRNOTAVAIL) return error; /* removing a primary address takes its secondaries along */
      removed = true;
    }
    if (!removed) break;
    there = false; /* may have been a secondary of what was removed: look again */
  } while (count > 0);
  return there ? 0 : address_change(fd, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, link, address, prefix);
}

int rtnl_default_route(int fd, int link, uint32_t gateway) {
  struct rtmsg route = {.rtm_family = AF_INET,
                        .rtm_table = RT_TABLE_MAIN,
                        .rtm_protocol = RTPROT_BOOT,
                        .rtm_scope = RT_SCOPE_UNIVERSE,
                        .rtm_type = RTN_UNICAST};
  struct rtnl_message message;
  rtnl_begin(&message, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &route, sizeof route);
  rtnl_u32(&message, RTA_GATEWAY, gateway);
  rtnl_u32(&message, RTA_OIF, (uint32_t)link);
  return rtnl_request(fd, &message);
}

int rtnl_default_route_delete(int fd, int family, int link) {
  struct rtmsg route = {.rtm_family = (uint8_t)family, .rtm_table = RT_TABLE_MAIN, .rtm_scope = RT_SCOPE_NOWHERE, .rtm_type = RTN_UNICAST};
  for (int i = 0; i < 8; i++) {
    struct rtnl_message message;
    rtnl_begin(&message, RTM_DELROUTE, 0, &route, sizeof route);
    rtnl_u32(&message, RTA_OIF, (uint32_t)link);
    int error = rtnl_request(fd, &message);
    if (error) return error == ESRCH || error == ENOENT || error == EAFNOSUPPORT || error == EOPNOTSUPP ? 0 : error;
  }
  return EBUSY;
}

int rtnl_address6_add(int fd, int link, const uint8_t address[16], uint8_t prefix) {
  struct ifaddrmsg fixed = {.ifa_family = AF_INET6, .ifa_prefixlen = prefix, .ifa_flags = IFA_F_NODAD, .ifa_index = (uint32_t)link};
  struct rtnl_message message;
  rtnl_begin(&message, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &fixed, sizeof fixed);
  rtnl_attribute(&message, IFA_LOCAL, address, 16);
  rtnl_attribute(&message, IFA_ADDRESS, address, 16);
  int error = rtnl_request(fd, &message);
  return error == EEXIST ? 0 : error;
}

int rtnl_default_route6(int fd, int link, const uint8_t gateway[16]) {
  struct rtmsg route = {.rtm_family = AF_INET6,
                        .rtm_table = RT_TABLE_MAIN,
                        .rtm_protocol = RTPROT_BOOT,
                        .rtm_scope = RT_SCOPE_UNIVERSE,
                        .rtm_type = RTN_UNICAST};
  struct rtnl_message message;
  rtnl_begin(&message, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &route, sizeof route);
  rtnl_attribute(&message, RTA_GATEWAY, gateway, 16);
  rtnl_u32(&message, RTA_OIF, (uint32_t)link);
  return rtnl_request(fd, &message);
}

int rtnl_macvlan_source_create(int fd, const char *name, int lower, int bridge, const uint8_t mac[6]) {
  struct ifinfomsg link = {.ifi_family = AF_UNSPEC, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
  uint16_t nodst = MACVLAN_FLAG_NODST;
  struct rtnl_message message;
  rtnl_begin(&message, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link, sizeof link);
  rtnl_string(&message, IFLA_IFNAME, name);
  rtnl_u32(&message, IFLA_LINK, (uint32_t)lower);
  rtnl_u32(&message, IFLA_MASTER, (uint32_t)bridge);
  size_t info = rtnl_nest(&message, IFLA_LINKINFO, NULL, 0);
  rtnl_string(&message, IFLA_INFO_KIND, "macvlan");
  size_t data = rtnl_nest(&message, IFLA_INFO_DATA, NULL, 0);
  rtnl_u32(&message, IFLA_MACVLAN_MODE, MACVLAN_MODE_SOURCE);
  rtnl_attribute(&message, IFLA_MACVLAN_FLAGS, &nodst, sizeof nodst); /* what is one network's is not the host's too */
  rtnl_u32(&message, IFLA_MACVLAN_MACADDR_MODE, MACVLAN_MACADDR_SET);
  size_t addresses = rtnl_nest(&message, IFLA_MACVLAN_MACADDR_DATA, NULL, 0);
  rtnl_attribute(&message, IFLA_MACVLAN_MACADDR, mac, 6);
  rtnl_nest_end(&message, addresses);
  rtnl_nest_end(&message, data);
  rtnl_nest_end(&message, info);
  return rtnl_request(fd, &message);
}

int rtnl_port_flag(int fd, int link, uint16_t flag, bool on) {
  struct ifinfomsg fixed = {.ifi_family = PF_BRIDGE, .ifi_index = link};
  uint8_t value = on;
  struct rtnl_message message;
  rtnl_begin(&message, RTM_SETLINK, 0, &fixed, sizeof fixed);
  size_t port = rtnl_nest(&message, IFLA_PROTINFO | NLA_F_NESTED, NULL, 0);
  rtnl_attribute(&message, flag, &value, sizeof value);
  rtnl_nest_end(&message, port);
  return rtnl_request(fd, &message);
}

int rtnl_port_static(int fd, int link, const uint8_t mac[6]) {
  struct ndmsg fixed = {.ndm_family = PF_BRIDGE, .ndm_ifindex = link, .ndm_state = NUD_NOARP, .ndm_flags = NTF_MASTER};
  struct rtnl_message message;
  rtnl_begin(&message, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &fixed, sizeof fixed);
  rtnl_attribute(&message, NDA_LLADDR, mac, 6);
  return rtnl_request(fd, &message);
}
