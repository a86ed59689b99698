/* The machine's interfaces. There is one network card, eth0, whatever the number of networks: the others are macvlans on it, each with a hardware
 * address of its own, and the host tells networks apart by these (docs/decisions/0006). */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"
#include "agent_rtnl.h"

#define CARD "eth0"
#define INTERFACES_MAX 64

struct address {
  int family;
  uint8_t prefix;
  uint8_t bytes[16];
};

/* One network's interface. name[0] == 0: a free place. */
struct interface {
  char name[IFNAMSIZ];
  uint8_t mac[6];
  uint32_t mtu;
  struct address four, six; /* family 0: none */
};
static struct interface interfaces[INTERFACES_MAX];

static size_t address_size(const struct address *a) { return a->family == AF_INET ? 4 : 16; }

/* "10.0.0.2/16", "fd00::2/64", or without a prefix. */
static bool parse_address(const char *text, int family, struct address *out) {
  char host[64];
  uint64_t prefix = family == AF_INET ? 32 : 128;
  size_t length = strcspn(text, "/");
  if (length >= sizeof host || (text[length] == '/' && !parse_number(text + length + 1, prefix, &prefix))) return false;
  memcpy(host, text, length);
  host[length] = 0;
  *out = (struct address){.family = family, .prefix = (uint8_t)prefix};
  return inet_pton(family, host, out->bytes) == 1;
}

static bool parse_name(const char *text, char *out) {
  size_t length = strlen(text);
  if (length == 0 || length >= IFNAMSIZ || strcmp(text, ".") == 0 || strcmp(text, "..") == 0 || strpbrk(text, "/:% \t") != NULL) return false;
  memcpy(out, text, length + 1);
  return true;
}

/* "02:42:ac:11:00:02" */
static bool parse_mac(const char *text, uint8_t out[6]) {
  static const char digits[] = "0123456789abcdef";
  if (strlen(text) != 17) return false;
  for (int i = 0; i < 6; i++) {
    const char *high = strchr(digits, text[3 * i]), *low = strchr(digits, text[3 * i + 1]);
    if (high == NULL || low == NULL || (i < 5 && text[3 * i + 2] != ':')) return false;
    out[i] = (uint8_t)((high - digits) << 4 | (low - digits));
  }
  return true;
}

/* NAME MAC ADDRESS/PREFIX MTU [ADDRESS6/PREFIX6] */
static bool parse_interface(const char *text, struct interface *out, char *message) {
  char copy[256], *rest = NULL, *word[5] = {0};
  uint64_t mtu;
  *out = (struct interface){0};
  snprintf(copy, sizeof copy, "%s", text);
  word[0] = strtok_r(copy, " ", &rest);
  for (int i = 1; i < 5 && word[i - 1] != NULL; i++) word[i] = strtok_r(NULL, " ", &rest);
  if (word[3] == NULL || !parse_name(word[0], out->name) || !parse_address(word[2], AF_INET, &out->four) || !parse_number(word[3], 65535, &mtu) ||
      !parse_mac(word[1], out->mac) ||
      (word[4] != NULL && !parse_address(word[4], AF_INET6, &out->six)))
    return fail(message, "invalid interface: %.200s", text);
  out->mtu = (uint32_t)mtu;
  return true;
}

/* ---- requests ---- */

static uint32_t card_index; /* it never changes; 0: not known yet */

static uint32_t index_of(const char *name) { return card_index != 0 && strcmp(name, CARD) == 0 ? card_index : if_nametoindex(name); }

static int link_set(const char *name, bool up, const uint8_t *mac, uint32_t mtu) {
  struct ifinfomsg fixed = {.ifi_family = AF_UNSPEC, .ifi_flags = up ? IFF_UP : 0, .ifi_change = IFF_UP};
  struct rtnl m;
  rtnl_begin(&m, RTM_NEWLINK, 0, &fixed, sizeof fixed);
  rtnl_put(&m, IFLA_IFNAME, name, strlen(name) + 1);
  if (mac != NULL) rtnl_put(&m, IFLA_ADDRESS, mac, 6);
  if (mtu != 0) rtnl_put(&m, IFLA_MTU, &mtu, sizeof mtu);
  return rtnl_send(&m);
}

static int macvlan_add(const char *name, const uint8_t mac[6]) {
  struct ifinfomsg fixed = {.ifi_family = AF_UNSPEC};
  uint32_t card = index_of(CARD), mode = MACVLAN_MODE_PRIVATE;
  struct rtnl m;
  if (card == 0) return ENODEV;
  rtnl_begin(&m, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &fixed, sizeof fixed);
  rtnl_put(&m, IFLA_IFNAME, name, strlen(name) + 1);
  rtnl_put(&m, IFLA_LINK, &card, sizeof card);
  rtnl_put(&m, IFLA_ADDRESS, mac, 6);
  size_t info = rtnl_put(&m, IFLA_LINKINFO, NULL, 0);
  rtnl_put(&m, IFLA_INFO_KIND, "macvlan", sizeof "macvlan");
  size_t data = rtnl_put(&m, IFLA_INFO_DATA, NULL, 0);
  rtnl_put(&m, IFLA_MACVLAN_MODE, &mode, sizeof mode);
  rtnl_end(&m, data);
  rtnl_end(&m, info);
  return rtnl_send(&m);
}

static int link_delete(const char *name) {
  struct ifinfomsg fixed = {.ifi_family = AF_UNSPEC};
  struct rtnl m;
  rtnl_begin(&m, RTM_DELLINK, 0, &fixed, sizeof fixed);
  rtnl_put(&m, IFLA_IFNAME, name, strlen(name) + 1);
  return rtnl_send(&m);
}

static int address_change(const char *name, const struct address *a, bool add) {
  struct ifaddrmsg fixed = {.ifa_family = (uint8_t)a->family, .ifa_prefixlen = a->prefix, .ifa_index = index_of(name)};
  struct rtnl m;
  if (a->family == 0) return 0;
  if (a->family == AF_INET6) fixed.ifa_flags = IFA_F_NODAD;
  rtnl_begin(&m, add ? RTM_NEWADDR : RTM_DELADDR, add ? NLM_F_CREATE | NLM_F_REPLACE : 0, &fixed, sizeof fixed);
  rtnl_put(&m, IFA_LOCAL, a->bytes, address_size(a));
  rtnl_put(&m, IFA_ADDRESS, a->bytes, address_size(a));
  if (a->family == AF_INET && a->prefix < 31) {
    uint32_t broadcast;
    memcpy(&broadcast, a->bytes, 4);
    broadcast |= htonl(a->prefix == 0 ? 0xffffffffu : 0xffffffffu >> a->prefix);
    rtnl_put(&m, IFA_BROADCAST, &broadcast, 4);
  }
  return rtnl_send(&m);
}

/* The default route of one family: by `gateway` and `name`, or (gateway NULL) none any more. */
static int default_route(int family, const char *name, const struct address *gateway) {
  struct rtmsg fixed = {.rtm_family = (uint8_t)family, .rtm_table = RT_TABLE_MAIN, .rtm_type = RTN_UNICAST};
  struct rtnl m;
  if (gateway != NULL) {
    uint32_t link = index_of(name);
    fixed.rtm_protocol = RTPROT_BOOT;
    rtnl_begin(&m, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &fixed, sizeof fixed);
    rtnl_put(&m, RTA_GATEWAY, gateway->bytes, address_size(gateway));
    rtnl_put(&m, RTA_OIF, &link, sizeof link);
    return rtnl_send(&m);
  }
  fixed.rtm_scope = RT_SCOPE_NOWHERE;
  rtnl_begin(&m, RTM_DELROUTE, 0, &fixed, sizeof fixed);
  int error = rtnl_send(&m);
  return error == ESRCH || error == ENOENT || error == EAFNOSUPPORT ? 0 : error; /* there is none, or no IPv6 at all */
}

static void knob(const char *family, const char *name, const char *what, const char *value) {
  char path[128];
  snprintf(path, sizeof path, "/proc/sys/net/%s/conf/%s/%s", family, name, what);
  file_write(path, value); /* a kernel without it has nothing to be told */
}

/* ---- interfaces ---- */

static struct interface *find_interface(const char *name) {
  for (int i = 0; i < INTERFACES_MAX; i++)
    if (strcmp(interfaces[i].name, name) == 0) return &interfaces[i];
  return NULL;
}

/* No IPv6 on the link of a network without it, as Docker has it. */
static void set_knobs(const char *name, bool six) {
  knob("ipv6", name, "accept_ra", "0");
  knob("ipv6", name, "disable_ipv6", six ? "0" : "1");
}

/* The hardware address that the engine makes of an address: whoever had this one before had the same. */
static bool is_derived(const struct interface *i) {
  return i->mac[0] == 0x02 && i->mac[1] == 0x42 && memcmp(i->mac + 2, i->four.bytes, 4) == 0;
}

static bool card_prepared; /* and nobody has changed it since */

void net_prepare(void) {
  int error = link_set("lo", true, NULL, 0);
  if (error != 0) die("lo: %s", strerror(error));
  /* Docker's own defaults for each container; the machine has one. What the user asks for comes later. */
  file_write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
  file_write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
  card_index = if_nametoindex(CARD);
  card_prepared = card_index != 0;
  if (card_prepared) set_knobs(CARD, false);
}

static bool configure_interface(const struct interface *i, char *message) {
  int error;
  if (strcmp(i->name, CARD) != 0 || !card_prepared || i->six.family != 0) set_knobs(i->name, i->six.family != 0);
  if (strcmp(i->name, CARD) == 0) card_prepared = false; /* from here on a workload may change it */
  /* Only then: neighbours may remember another one. All of a network wake up for it, and they may be hundreds of machines. */
  if (!is_derived(i)) knob("ipv4", i->name, "arp_notify", "1");
  if ((error = link_set(i->name, true, i->mac, i->mtu)) != 0) return fail(message, "%s: %s", i->name, strerror(error));
  if ((error = address_change(i->name, &i->four, true)) != 0 || (error = address_change(i->name, &i->six, true)) != 0)
    return fail(message, "%s: address: %s", i->name, strerror(error));
  return true;
}

static bool remove_interface(const char *name, char *message) {
  struct interface *i = find_interface(name);
  if (i == NULL) return true; /* gone already */
  int error;
  if (strcmp(name, CARD) == 0) { /* the card stays, since it carries the others */
    error = address_change(CARD, &i->four, false);
    int six = address_change(CARD, &i->six, false);
    if (error == 0) error = six;
    if (error == EADDRNOTAVAIL) error = 0; /* the workload took it away itself */
  } else {
    error = link_delete(name);
    if (error == ENODEV) error = 0;
  }
  i->name[0] = 0;
  return error == 0 || fail(message, "%s: %s", name, strerror(error));
}

static bool add_interface(const char *text, char *message) {
  struct interface wanted, *place = find_interface("");
  if (!parse_interface(text, &wanted, message)) return false;
  if (find_interface(wanted.name) != NULL) return fail(message, "%s: there is one already", wanted.name);
  if (place == NULL) return fail(message, "%s: too many interfaces", wanted.name);
  if (strcmp(wanted.name, CARD) != 0) {
    static bool loaded;
    if (!loaded && !load_modules("/modules/networks", message)) return false;
    loaded = true;
    /* All interfaces hear what the card hears: each answers for its own address alone. */
    knob("ipv4", "all", "arp_ignore", "1");
    link_set(CARD, true, NULL, 0);
    int error = macvlan_add(wanted.name, wanted.mac);
    if (error != 0) return fail(message, "%s: %s", wanted.name, strerror(error));
  }
  *place = wanted;
  char ignored[MESSAGE_MAX];
  return configure_interface(place, message) || (remove_interface(wanted.name, ignored), false);
}

/* NAME GATEWAY [GATEWAY6] */
static bool set_route(const char *text, char *message) {
  char copy[160], *rest = NULL;
  struct address four, six;
  snprintf(copy, sizeof copy, "%s", text);
  const char *name = strtok_r(copy, " ", &rest), *gateway = strtok_r(NULL, " ", &rest), *gateway6 = strtok_r(NULL, " ", &rest);
  if (gateway == NULL || !parse_address(gateway, AF_INET, &four) || (gateway6 != NULL && !parse_address(gateway6, AF_INET6, &six)))
    return fail(message, "invalid route: %.100s", text);
  static bool again; /* before the first one nobody can have set any */
  int error = default_route(AF_INET, name, &four);
  if (error == 0 && (gateway6 != NULL || again)) error = default_route(AF_INET6, name, gateway6 == NULL ? NULL : &six);
  again = true;
  return error == 0 || fail(message, "default route: %s", strerror(error));
}

bool net_up(const struct config *c, char *message) {
  if (strcmp(c->net, "eth") != 0) return true;
  struct list list;
  if (!list_collect(&list, c->text, c->size, "interface")) return fail(message, "too many interfaces");
  bool ok = true;
  for (size_t i = 0; ok && i < list.count; i++) ok = add_interface(list.items[i], message);
  free(list.items);
  const char *route = text_find(c->text, c->size, "route");
  return ok && (route == NULL || set_route(route, message));
}

void net_down(void) {
  char ignored[MESSAGE_MAX];
  for (int i = 0; i < INTERFACES_MAX; i++)
    if (interfaces[i].name[0] != 0) remove_interface(interfaces[i].name, ignored);
  if (index_of(CARD) != 0) link_set(CARD, false, NULL, 0);
}

/* ---- files ---- */

/* The container sees the same file: written in place. */
static bool write_over(const char *path, const char *text, size_t size, char *message) {
  int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOFOLLOW);
  bool ok = fd >= 0 && write(fd, text, size) == (ssize_t)size;
  if (!ok) fail(message, "%s: %s", path, strerror(errno));
  if (fd >= 0) close(fd);
  return ok;
}

static bool forgotten(const char *line, const struct list *addresses) {
  size_t length = strcspn(line, " \t\n");
  for (size_t i = 0; i < addresses->count; i++)
    if (strlen(addresses->items[i]) == length && memcmp(addresses->items[i], line, length) == 0) return true;
  return false;
}

/* /etc/hosts loses the lines of some addresses and gains others; what the workload wrote itself stays. */
static bool edit_hosts(const char *text, size_t size, char *message) {
  static char before[262144], after[262144 + 8192];
  struct list forget, lines;
  size_t used = 0;
  bool collected = list_collect(&forget, text, size, "forget");
  if (!collected || !list_collect(&lines, text, size, "host")) {
    if (collected) free(forget.items);
    return fail(message, "too many lines");
  }
  bool ok = true;
  if (forget.count + lines.count > 0) {
    ssize_t n = file_read(DIR_FILES "/hosts", before, sizeof before, true);
    for (char *line = before; n > 0 && *line != 0;) {
      size_t length = strcspn(line, "\n");
      if (line[length] == '\n') length++;
      if (!forgotten(line, &forget)) {
        memcpy(after + used, line, length);
        used += length;
      }
      line += length;
    }
    if (used > 0 && after[used - 1] != '\n') after[used++] = '\n';
    for (size_t i = 0; i < lines.count; i++) {
      int added = snprintf(after + used, sizeof after - used, "%s\n", lines.items[i]);
      if (added > 0 && (size_t)added < sizeof after - used) used += (size_t)added;
    }
    ok = write_over(DIR_FILES "/hosts", after, used, message);
  }
  free(forget.items);
  free(lines.items);
  return ok;
}

static bool net_change(const char *text, size_t size, char *message) {
  const char *removed = text_find(text, size, "remove"), *added = text_find(text, size, "interface"), *route = text_find(text, size, "route"),
             *resolv = text_find(text, size, "etc_resolv");
  char ignored[MESSAGE_MAX];
  if (strcmp(config.net, "eth") != 0) return fail(message, "the machine has no network card");
  if (removed != NULL && !remove_interface(removed, message)) return false;
  if (added != NULL && !add_interface(added, message)) return false;
  if ((route != NULL && !set_route(route, message)) || !edit_hosts(text, size, message) ||
      (resolv != NULL && !write_over(DIR_FILES "/resolv.conf", resolv, strlen(resolv), message))) {
    struct interface undone;
    if (added != NULL && parse_interface(added, &undone, ignored)) remove_interface(undone.name, ignored);
    return false;
  }
  return true;
}

void query_network(struct bytes *out, const char *text, size_t size) {
  char message[MESSAGE_MAX] = "", answer[MESSAGE_MAX + 16];
  bool ok = net_change(text, size, message);
  bytes_put(out, answer, ok ? text_put(answer, 0, sizeof answer, "ok", "1") : text_put(answer, 0, sizeof answer, "error", message));
}
