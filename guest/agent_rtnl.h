#ifndef HULL_AGENT_RTNL_H
#define HULL_AGENT_RTNL_H

#include <linux/netlink.h>
#include <stddef.h>
#include <stdint.h>

struct rtnl {
  union {
    struct nlmsghdr header;
    uint8_t bytes[512];
  };
};

void rtnl_begin(struct rtnl *m, uint16_t type, uint16_t flags, const void *fixed, size_t size);
/* Adds an attribute; what it returns is what rtnl_end needs when others follow inside of it. */
size_t rtnl_put(struct rtnl *m, uint16_t type, const void *data, size_t size);
void rtnl_end(struct rtnl *m, size_t nest);
/* 0 or an errno. */
int rtnl_send(struct rtnl *m);

#endif
