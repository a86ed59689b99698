/* lo and eth0 by ioctl (netdevice(7)): no process, no netlink. */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent.h"

#define DEVICE "eth0"

static struct ifreq request(const char *name) {
  struct ifreq r;
  memset(&r, 0, sizeof r);
  snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
  return r;
}

static bool bring_up(int fd, const char *name) {
  struct ifreq r = request(name);
  if (ioctl(fd, SIOCGIFFLAGS, &r) < 0) return false;
  r.ifr_flags |= IFF_UP;
  return ioctl(fd, SIOCSIFFLAGS, &r) == 0;
}

static bool set_address(int fd, unsigned long what, const char *name, struct in_addr address) {
  struct ifreq r = request(name);
  struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = address};
  memcpy(&r.ifr_addr, &in, sizeof in);
  return ioctl(fd, (int)what, &r) == 0;
}

static bool set_mac(int fd, const char *name, const char *text) {
  struct ifreq r = request(name);
  unsigned int b[6];
  char end;
  if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%c", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &end) != 6) {
    errno = EINVAL;
    return false;
  }
  if (ioctl(fd, SIOCGIFHWADDR, &r) < 0) return false;
  unsigned char mac[6];
  for (int i = 0; i < 6; i++) mac[i] = (unsigned char)b[i];
  if (memcmp(r.ifr_hwaddr.sa_data, mac, 6) == 0) return true;
  memcpy(r.ifr_hwaddr.sa_data, mac, 6);
  r.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  return ioctl(fd, SIOCSIFHWADDR, &r) == 0;
}

static bool default_route(int fd, struct in_addr gateway) {
  struct rtentry route;
  memset(&route, 0, sizeof route);
  struct sockaddr_in any = {.sin_family = AF_INET}, via = {.sin_family = AF_INET, .sin_addr = gateway};
  memcpy(&route.rt_dst, &any, sizeof any);
  memcpy(&route.rt_genmask, &any, sizeof any);
  memcpy(&route.rt_gateway, &via, sizeof via);
  route.rt_flags = RTF_UP | RTF_GATEWAY;
  return ioctl(fd, SIOCADDRT, &route) == 0;
}

static bool set_mtu(int fd, const char *name, uint32_t mtu) {
  struct ifreq r = request(name);
  r.ifr_mtu = (int)mtu;
  return ioctl(fd, SIOCSIFMTU, &r) == 0;
}

static bool ethernet_up(int fd, const struct config *c, char *message) {
  struct in_addr address, gateway, mask = {.s_addr = c->prefix == 0 ? 0 : htonl(0xffffffffu << (32 - c->prefix))};
  if (inet_pton(AF_INET, c->address, &address) != 1) return fail(message, "invalid address: %.100s", c->address);
  if (*c->gateway != 0 && inet_pton(AF_INET, c->gateway, &gateway) != 1) return fail(message, "invalid gateway: %.100s", c->gateway);
  /* No IPv6 on the link, as Docker has it on a network without IPv6; tell the neighbours where this address lives now. */
  file_write("/proc/sys/net/ipv6/conf/" DEVICE "/disable_ipv6", "1");
  file_write("/proc/sys/net/ipv4/conf/" DEVICE "/arp_notify", "1");
  if (*c->mac != 0 && !set_mac(fd, DEVICE, c->mac)) return fail(message, "eth0: hardware address %.40s: %s", c->mac, strerror(errno));
  if (c->mtu != 0 && !set_mtu(fd, DEVICE, c->mtu)) return fail(message, "eth0: mtu %u: %s", c->mtu, strerror(errno));
  if (!set_address(fd, SIOCSIFADDR, DEVICE, address)) return fail(message, "eth0: address: %s", strerror(errno));
  if (!set_address(fd, SIOCSIFNETMASK, DEVICE, mask)) return fail(message, "eth0: netmask: %s", strerror(errno));
  if (!bring_up(fd, DEVICE)) return fail(message, "eth0: up: %s", strerror(errno));
  if (*c->gateway != 0 && !default_route(fd, gateway)) return fail(message, "default route: %s", strerror(errno));
  return true;
}

bool net_up(const struct config *c, char *message) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return fail(message, "socket: %s", strerror(errno));
  bool ok = bring_up(fd, "lo") || fail(message, "lo: %s", strerror(errno));
  if (ok && strcmp(c->net, "eth") == 0) ok = ethernet_up(fd, c, message);
  close(fd);
  return ok;
}
