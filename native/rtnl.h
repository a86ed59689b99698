/* A little rtnetlink(7): one request, one acknowledgement. Functions return 0 or an errno, never -1. */
#ifndef HULL_RTNL_H
#define HULL_RTNL_H

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rtnl_message {
  union {
    struct nlmsghdr header;
    uint8_t bytes[1024];
  };
  bool overflow;
};

/* A socket of the calling thread's network namespace; -1 with errno. */
int rtnl_open(void);
/* Starts a request with its fixed part (ifinfomsg, ifaddrmsg, rtmsg). */
void rtnl_begin(struct rtnl_message *message, uint16_t type, uint16_t flags, const void *fixed, size_t size);
void rtnl_attribute(struct rtnl_message *message, uint16_t type, const void *data, size_t size);
void rtnl_string(struct rtnl_message *message, uint16_t type, const char *string);
void rtnl_u32(struct rtnl_message *message, uint16_t type, uint32_t value);
/* Nested attributes: start returns an offset that end needs. `fixed` comes before the attributes inside, may be NULL. */
size_t rtnl_nest(struct rtnl_message *message, uint16_t type, const void *fixed, size_t size);
void rtnl_nest_end(struct rtnl_message *message, size_t start);
/* Sends and waits for the kernel's verdict. */
int rtnl_request(int fd, struct rtnl_message *message);

/* Links, by name. */
int rtnl_link_set(int fd, const char *name, bool up, uint32_t mtu, const uint8_t mac[6]); /* mtu 0, mac NULL: leave */
int rtnl_link_delete(int fd, const char *name);
int rtnl_bridge_create(int fd, const char *name);
int rtnl_set_master(int fd, const char *name, int master);
/* `bridge` 0: no port. The peer is made in the namespace `netns`. */
int rtnl_veth_create(int fd, const char *name, const char *peer, int netns, uint32_t mtu, int bridge);
/* The link's IPv4 addresses become this one. Addresses in network byte order. */
int rtnl_address_replace(int fd, const char *name, uint32_t address, uint8_t prefix);
int rtnl_default_route(int fd, int link, uint32_t gateway);
/* The default routes of a family through `link` go; no error when there is none. */
int rtnl_default_route_delete(int fd, int family, int link);
/* Adds an IPv6 address (no duplicate address detection: we know who has which); no error when it is there. */
int rtnl_address6_add(int fd, int link, const uint8_t address[16], uint8_t prefix);
int rtnl_default_route6(int fd, int link, const uint8_t gateway[16]);
/* A macvlan in source mode on `lower`, up and a port of `bridge`: what comes in by `lower` from the hardware address `mac` is its, and nothing else. */
int rtnl_macvlan_source_create(int fd, const char *name, int lower, int bridge, const uint8_t mac[6]);
/* Flags of a bridge port: IFLA_BRPORT_ISOLATED, IFLA_BRPORT_UNICAST_FLOOD. */
int rtnl_port_flag(int fd, int link, uint16_t flag, bool on);
/* The bridge of port `link` knows for ever that `mac` lives there. */
int rtnl_port_static(int fd, int link, const uint8_t mac[6]);

#endif
