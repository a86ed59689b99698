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

#endif
