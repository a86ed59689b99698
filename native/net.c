/* Network namespaces, links and addresses, without a process. */
#include "common.h"
#include "net.h"
#include "rtnl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

/* What the kernel takes as a name (dev_valid_name), and nothing that it would expand (%d) or read as an alias (:). */
static bool arg_link(napi_env env, napi_value value, const char *argument, char **out) {
  if (!arg_string(env, value, argument, out)) return false;
  size_t length = strlen(*out);
  if (length > 0 && length < IFNAMSIZ && strcmp(*out, ".") != 0 && strcmp(*out, "..") != 0 &&
      strpbrk(*out, "/:% \t\n\v\f\r") == NULL)
    return true;
  free(*out);
  *out = NULL;
  return arg_invalid(env, argument, "must be a network interface name of 1 to 15 characters");
}

/* '' gives false in *given. */
static bool arg_mac(napi_env env, napi_value value, bool *given, uint8_t mac[6]) {
  AUTO_FREE text = NULL;
  if (!arg_string(env, value, "mac", &text)) return false;
  *given = *text != '\0';
  if (!*given) return true;
  int end = 0;
  if (strlen(text) == 17 && strspn(text, "0123456789abcdefABCDEF:") == 17 &&
      sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4], &mac[5], &end) == 6 &&
      end == 17)
    return true;
  return arg_invalid(env, "mac", "must be a hardware address such as 02:42:ac:11:00:02");
}

static bool arg_ipv4(napi_env env, napi_value value, const char *name, bool optional, uint32_t *out) {
  AUTO_FREE text = NULL;
  *out = 0;
  if (!arg_string(env, value, name, &text)) return false;
  if (optional && !*text) return true;
  struct in_addr address;
  if (inet_pton(AF_INET, text, &address) != 1) return arg_invalid(env, name, "must be a dotted IPv4 address");
  *out = address.s_addr;
  return true;
}

static bool arg_ipv6(napi_env env, napi_value value, const char *name, bool optional, bool *given, uint8_t out[16]) {
  AUTO_FREE text = NULL;
  if (!arg_string(env, value, name, &text)) return false;
  *given = *text != '\0';
  if (!*given && optional) return true;
  return inet_pton(AF_INET6, text, out) == 1 || arg_invalid(env, name, "must be an IPv6 address");
}

static bool arg_mtu(napi_env env, napi_value value, int *out) { return arg_int(env, value, "mtu", 0, 65535, out); }

/* ---- namespaces ---- */

struct netns_task {
  struct task task;
  char *netns, *name, *peer, *bridge;
  bool has_mac, has_address6, has_gateway6;
  uint8_t mac[6], address6[16], gateway6[16];
  uint32_t address, gateway;
  int prefix, mtu;
};

static void netns_drop(struct task *task) {
  struct netns_task *self = (struct netns_task *)task;
  free(self->netns);
  free(self->name);
  free(self->peer);
  free(self->bridge);
}

/* Whether the interface `link` ("default": those to come) of the calling thread's network namespace has IPv6. */
static void ipv6_set(struct task *task, const char *link, bool on) {
  char path[128];
  snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/disable_ipv6", link);
  int error = file_put(path, on ? "0" : "1");
  if (error && error != ENOENT) task_fail(task, error, "write", path); /* ENOENT: a kernel without IPv6 */
}

void netns_prepare(struct task *task) {
  AUTO_CLOSE socket = rtnl_open();
  if (socket < 0) return task_fail(task, errno, "socket", NULL);
  int error = rtnl_link_set(socket, "lo", true, 0, NULL);
  if (error) return task_fail(task, error, "netlink", "lo");
  ipv6_set(task, "default", false);
}

/* In the calling thread: a new namespace, mounted on `path`, an existing file. */
static void netns_mount_new(struct task *task, const char *path) {
  if (unshare(CLONE_NEWNET) < 0) return task_fail(task, errno, "unshare", NULL);
  netns_prepare(task);
  if (task->error) return;
  if (mount("/proc/thread-self/ns/net", path, NULL, MS_BIND, NULL) < 0) task_fail(task, errno, "mount", path);
}

static void netns_create_run(struct task *task) {
  struct netns_task *self = (struct netns_task *)task;
  AUTO_CLOSE file = open(self->netns, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0);
  if (file < 0) return task_fail(task, errno, "open", self->netns);
  netns_mount_new(task, self->netns);
  if (task->error) unlink(self->netns);
}

static napi_value js_netns_create(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  if (!arg_all(env, info, 1, argv)) return NULL;
  struct netns_task *self = task_new(env, sizeof *self, netns_create_run, netns_drop);
  if (!self) return NULL;
  if (!arg_string(env, argv[0], "path", &self->netns)) {
    task_discard(&self->task);
    return NULL;
  }
  return task_start(env, &self->task);
}

static napi_value js_netns_delete(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  AUTO_FREE path = NULL;
  if (!arg_all(env, info, 1, argv) || !arg_string(env, argv[0], "path", &path)) return NULL;
  /* EINVAL: not a mount point (any more). The loop: somebody may have mounted twice. */
  while (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0) {
  }
  if (errno != EINVAL && errno != ENOENT && errno != ENOTDIR) return error_throw(env, errno, "umount", path);
  if (unlink(path) < 0 && errno != ENOENT && errno != ENOTDIR) return error_throw(env, errno, "unlink", path);
  return value_undefined(env);
}

static void veth_create_run(struct task *task) {
  struct netns_task *self = (struct netns_task *)task;
  int bridge = 0;
  if (self->bridge && !(bridge = (int)if_nametoindex(self->bridge)))
    return task_fail(task, errno, "if_nametoindex", self->bridge);
  AUTO_CLOSE netns = open(self->netns, O_RDONLY | O_CLOEXEC);
  if (netns < 0) return task_fail(task, errno, "open", self->netns);
  AUTO_CLOSE socket = rtnl_open();
  if (socket < 0) return task_fail(task, errno, "socket", NULL);
  int error = rtnl_veth_create(socket, self->name, self->peer, netns, (uint32_t)self->mtu, bridge);
  if (error) task_fail(task, error, "netlink", self->name);
}

static napi_value js_veth_create(napi_env env, napi_callback_info info) {
  napi_value argv[5];
  if (!arg_all(env, info, 5, argv)) return NULL;
  struct netns_task *self = task_new(env, sizeof *self, veth_create_run, netns_drop);
  if (!self) return NULL;
  if (!arg_link(env, argv[0], "name", &self->name) || !arg_link(env, argv[1], "peer", &self->peer) ||
      !arg_string(env, argv[2], "netns", &self->netns) || !arg_mtu(env, argv[3], &self->mtu) ||
      (!arg_undefined(env, argv[4]) && !arg_link(env, argv[4], "bridge", &self->bridge))) {
    task_discard(&self->task);
    return NULL;
  }
  return task_start(env, &self->task);
}

static void netns_configure_run(struct task *task) {
  struct netns_task *self = (struct netns_task *)task;
  AUTO_CLOSE netns = open(self->netns, O_RDONLY | O_CLOEXEC);
  if (netns < 0) return task_fail(task, errno, "open", self->netns);
  if (setns(netns, CLONE_NEWNET) < 0) return task_fail(task, errno, "setns", self->netns);
  AUTO_CLOSE socket = rtnl_open();
  if (socket < 0) return task_fail(task, errno, "socket", NULL);
  int link = (int)if_nametoindex(self->name);
  if (!link) return task_fail(task, errno, "if_nametoindex", self->name);
  int error = rtnl_link_set(socket, self->name, true, 0, self->has_mac ? self->mac : NULL);
  if (!error) error = rtnl_address_replace(socket, self->name, self->address, (uint8_t)self->prefix);
  if (!error && self->gateway) error = rtnl_default_route(socket, link, self->gateway);
  if (error) task_fail(task, error, "netlink", self->name);
}

static napi_value js_netns_configure(napi_env env, napi_callback_info info) {
  napi_value argv[6];
  if (!arg_all(env, info, 6, argv)) return NULL;
  struct netns_task *self = task_new(env, sizeof *self, netns_configure_run, netns_drop);
  if (!self) return NULL;
  if (!arg_string(env, argv[0], "netns", &self->netns) || !arg_link(env, argv[1], "name", &self->name) ||
      !arg_mac(env, argv[2], &self->has_mac, self->mac) || !arg_ipv4(env, argv[3], "address", false, &self->address) ||
      !arg_int(env, argv[4], "prefixLength", 0, 32, &self->prefix) ||
      !arg_ipv4(env, argv[5], "gateway", true, &self->gateway)) {
    task_discard(&self->task);
    return NULL;
  }
  return task_start(env, &self->task);
}

/* In the calling thread, which ends with the task: into the namespace; a socket of it, or -1 and the task has failed. */
static int netns_enter(struct netns_task *self) {
  AUTO_CLOSE netns = open(self->netns, O_RDONLY | O_CLOEXEC);
  int socket = -1;
  if (netns < 0) task_fail(&self->task, errno, "open", self->netns);
  else if (setns(netns, CLONE_NEWNET) < 0) task_fail(&self->task, errno, "setns", self->netns);
  else if ((socket = rtnl_open()) < 0) task_fail(&self->task, errno, "socket", NULL);
  return socket;
}

static void netns_address6_run(struct task *task) {
  struct netns_task *self = (struct netns_task *)task;
  AUTO_CLOSE socket = netns_enter(self);
  if (socket < 0) return;
  int link = (int)if_nametoindex(self->name);
  if (!link) return task_fail(task, errno, "if_nametoindex", self->name);
  ipv6_set(task, self->name, true);
  if (task->error) return;
  int error = rtnl_address6_add(socket, link, self->address6, (uint8_t)self->prefix);
  if (error) task_fail(task, error, "netlink", self->name);
}

static napi_value js_netns_address6(napi_env env, napi_callback_info info) {
  napi_value argv[4];
  if (!arg_all(env, info, 4, argv)) return NULL;
  struct netns_task *self = task_new(env, sizeof *self, netns_address6_run, netns_drop);
  if (!self) return NULL;
  if (!arg_string(env, argv[0], "netns", &self->netns) || !arg_link(env, argv[1], "name", &self->name) ||
      !arg_ipv6(env, argv[2], "address", false, &self->has_address6, self->address6) ||
      !arg_int(env, argv[3], "prefixLength", 0, 128, &self->prefix)) {
    task_discard(&self->task);
    return NULL;
  }
  return task_start(env, &self->task);
}

static void netns_route_run(struct task *task) {
  struct netns_task *self = (struct netns_task *)task;
  AUTO_CLOSE socket = netns_enter(self);
  if (socket < 0) return;
  int link = (int)if_nametoindex(self->name);
  if (!link) return task_fail(task, errno, "if_nametoindex", self->name);
  int error = self->gateway ? rtnl_default_route(socket, link, self->gateway) : rtnl_default_route_delete(socket, AF_INET, link);
  if (!error) error = self->has_gateway6 ? rtnl_default_route6(socket, link, self->gateway6) : rtnl_default_route_delete(socket, AF_INET6, link);
  if (error) task_fail(task, error, "netlink", self->name);
}

static napi_value js_netns_route(napi_env env, napi_callback_info info) {
  napi_value argv[4];
  if (!arg_all(env, info, 4, argv)) return NULL;
  struct netns_task *self = task_new(env, sizeof *self, netns_route_run, netns_drop);
  if (!self) return NULL;
  if (!arg_string(env, argv[0], "netns", &self->netns) || !arg_link(env, argv[1], "name", &self->name) ||
      !arg_ipv4(env, argv[2], "gateway", true, &self->gateway) || !arg_ipv6(env, argv[3], "gateway6", true, &self->has_gateway6, self->gateway6)) {
    task_discard(&self->task);
    return NULL;
  }
  return task_start(env, &self->task);
}

static void netns_link_delete_run(struct task *task) {
  struct netns_task *self = (struct netns_task *)task;
  AUTO_CLOSE socket = netns_enter(self);
  if (socket < 0) return;
  int error = rtnl_link_delete(socket, self->name);
  if (error && error != ENODEV) task_fail(task, error, "netlink", self->name);
}

static napi_value js_netns_link_delete(napi_env env, napi_callback_info info) {
  napi_value argv[2];
  if (!arg_all(env, info, 2, argv)) return NULL;
  struct netns_task *self = task_new(env, sizeof *self, netns_link_delete_run, netns_drop);
  if (!self) return NULL;
  if (!arg_string(env, argv[0], "netns", &self->netns) || !arg_link(env, argv[1], "name", &self->name)) {
    task_discard(&self->task);
    return NULL;
  }
  return task_start(env, &self->task);
}

/* ---- links of this namespace ---- */

static napi_value finish(napi_env env, int error, const char *name) {
  return error ? error_throw(env, error, "netlink", name) : value_undefined(env);
}

static napi_value js_bridge_create(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  AUTO_FREE name = NULL;
  if (!arg_all(env, info, 1, argv) || !arg_link(env, argv[0], "name", &name)) return NULL;
  AUTO_CLOSE socket = rtnl_open();
  if (socket < 0) return error_throw(env, errno, "socket", NULL);
  return finish(env, rtnl_bridge_create(socket, name), name);
}

static napi_value js_link_delete(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  AUTO_FREE name = NULL;
  if (!arg_all(env, info, 1, argv) || !arg_link(env, argv[0], "name", &name)) return NULL;
  AUTO_CLOSE socket = rtnl_open();
  if (socket < 0) return error_throw(env, errno, "socket", NULL);
  int error = rtnl_link_delete(socket, name);
  return finish(env, error == ENODEV ? 0 : error, name);
}

static void link_delete_run(struct task *task) {
  struct netns_task *self = (struct netns_task *)task;
  AUTO_CLOSE socket = rtnl_open();
  if (socket < 0) return task_fail(task, errno, "socket", NULL);
  int error = rtnl_link_delete(socket, self->name);
  if (error && error != ENODEV) task_fail(task, error, "netlink", self->name);
}

static napi_value js_link_delete_async(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  if (!arg_all(env, info, 1, argv)) return NULL;
  struct netns_task *self = task_new(env, sizeof *self, link_delete_run, netns_drop);
  if (!self) return NULL;
  if (!arg_link(env, argv[0], "name", &self->name)) {
    task_discard(&self->task);
    return NULL;
  }
  return task_start(env, &self->task);
}

static napi_value js_link_set(napi_env env, napi_callback_info info) {
  napi_value argv[4];
  AUTO_FREE name = NULL;
  bool up, has_mac;
  int mtu;
  uint8_t mac[6];
  if (!arg_all(env, info, 4, argv) || !arg_link(env, argv[0], "name", &name) || !arg_bool(env, argv[1], "up", &up) ||
      !arg_mtu(env, argv[2], &mtu) || !arg_mac(env, argv[3], &has_mac, mac))
    return NULL;
  AUTO_CLOSE socket = rtnl_open();
  if (socket < 0) return error_throw(env, errno, "socket", NULL);
  return finish(env, rtnl_link_set(socket, name, up, (uint32_t)mtu, has_mac ? mac : NULL), name);
}

static napi_value js_address_set(napi_env env, napi_callback_info info) {
  napi_value argv[3];
  AUTO_FREE name = NULL;
  uint32_t address;
  int prefix;
  if (!arg_all(env, info, 3, argv) || !arg_link(env, argv[0], "name", &name) ||
      !arg_ipv4(env, argv[1], "address", false, &address) || !arg_int(env, argv[2], "prefixLength", 0, 32, &prefix))
    return NULL;
  AUTO_CLOSE socket = rtnl_open();
  if (socket < 0) return error_throw(env, errno, "socket", NULL);
  return finish(env, rtnl_address_replace(socket, name, address, (uint8_t)prefix), name);
}

static napi_value js_bridge_add_port(napi_env env, napi_callback_info info) {
  napi_value argv[2];
  AUTO_FREE bridge = NULL;
  AUTO_FREE name = NULL;
  if (!arg_all(env, info, 2, argv) || !arg_link(env, argv[0], "bridge", &bridge) || !arg_link(env, argv[1], "name", &name))
    return NULL;
  int master = (int)if_nametoindex(bridge);
  if (!master) return error_throw(env, errno, "if_nametoindex", bridge);
  AUTO_CLOSE socket = rtnl_open();
  if (socket < 0) return error_throw(env, errno, "socket", NULL);
  return finish(env, rtnl_set_master(socket, name, master), name);
}

static napi_value js_bridge_remove_port(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  AUTO_FREE name = NULL;
  if (!arg_all(env, info, 1, argv) || !arg_link(env, argv[0], "name", &name)) return NULL;
  AUTO_CLOSE socket = rtnl_open();
  if (socket < 0) return error_throw(env, errno, "socket", NULL);
  return finish(env, rtnl_set_master(socket, name, 0), name);
}

static napi_value js_macvlan_source_create(napi_env env, napi_callback_info info) {
  napi_value argv[4];
  AUTO_FREE name = NULL;
  AUTO_FREE lower = NULL;
  AUTO_FREE bridge = NULL;
  bool given;
  uint8_t mac[6];
  if (!arg_all(env, info, 4, argv) || !arg_link(env, argv[0], "name", &name) || !arg_link(env, argv[1], "lower", &lower) ||
      !arg_link(env, argv[2], "bridge", &bridge) || !arg_mac(env, argv[3], &given, mac))
    return NULL;
  if (!given) {
    arg_invalid(env, "mac", "must not be empty");
    return NULL;
  }
  int under = (int)if_nametoindex(lower), master = (int)if_nametoindex(bridge);
  if (!under || !master) return error_throw(env, ENODEV, "if_nametoindex", under ? bridge : lower);
  AUTO_CLOSE socket = rtnl_open();
  if (socket < 0) return error_throw(env, errno, "socket", NULL);
  int error = rtnl_macvlan_source_create(socket, name, under, master, mac);
  if (error) return finish(env, error, name);
  /* Only what is meant for this address goes that way: a neighbour cannot reach another network's interface of the same machine by its MAC. */
  int link = (int)if_nametoindex(name);
  error = link ? rtnl_port_static(socket, link, mac) : ENODEV;
  if (!error) error = rtnl_port_flag(socket, link, IFLA_BRPORT_UNICAST_FLOOD, false);
  if (error) rtnl_link_delete(socket, name);
  return finish(env, error, name);
}

static napi_value js_bridge_isolate_port(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  AUTO_FREE name = NULL;
  if (!arg_all(env, info, 1, argv) || !arg_link(env, argv[0], "name", &name)) return NULL;
  int link = (int)if_nametoindex(name);
  if (!link) return error_throw(env, errno, "if_nametoindex", name);
  AUTO_CLOSE socket = rtnl_open();
  if (socket < 0) return error_throw(env, errno, "socket", NULL);
  return finish(env, rtnl_port_flag(socket, link, IFLA_BRPORT_ISOLATED, true), name);
}

static napi_value js_address6_add(napi_env env, napi_callback_info info) {
  napi_value argv[3];
  AUTO_FREE name = NULL;
  bool given;
  uint8_t address[16];
  int prefix;
  if (!arg_all(env, info, 3, argv) || !arg_link(env, argv[0], "name", &name) || !arg_ipv6(env, argv[1], "address", false, &given, address) ||
      !arg_int(env, argv[2], "prefixLength", 0, 128, &prefix))
    return NULL;
  int link = (int)if_nametoindex(name);
  if (!link) return error_throw(env, errno, "if_nametoindex", name);
  AUTO_CLOSE socket = rtnl_open();
  if (socket < 0) return error_throw(env, errno, "socket", NULL);
  return finish(env, rtnl_address6_add(socket, link, address, (uint8_t)prefix), name);
}

/* The descriptor, or -1 with errno and the call that failed. */
static int tap_open(const char *name, const char **call) {
  *call = "open";
  int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (fd < 0) return -1;
  struct ifreq request;
  memset(&request, 0, sizeof request);
  snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  *call = "ioctl";
  if (ioctl(fd, TUNSETIFF, &request) == 0) return fd;
  close_quietly(fd);
  return -1;
}

static napi_value js_tap_open(napi_env env, napi_callback_info info) {
  napi_value argv[1];
  AUTO_FREE name = NULL;
  const char *call;
  if (!arg_all(env, info, 1, argv) || !arg_link(env, argv[0], "name", &name)) return NULL;
  int fd = tap_open(name, &call);
  return fd < 0 ? error_throw(env, errno, call, strcmp(call, "open") == 0 ? "/dev/net/tun" : name) : value_int(env, fd);
}

static void tap_alone_run(struct task *task) {
  const char *call = "unshare";
  int fd = unshare(CLONE_NEWNET) < 0 ? -1 : tap_open("tap0", &call);
  if (fd < 0) return task_fail(task, errno, call, NULL);
  task->fd = fd; /* and with it, its namespace */
}

static napi_value js_tap_open_alone(napi_env env, napi_callback_info info) {
  (void)info;
  struct task *task = task_new(env, sizeof *task, tap_alone_run, NULL);
  return task == NULL ? NULL : task_start(env, task);
}

bool net_register(napi_env env, napi_value exports) {
  static const struct function functions[] = {
      {"netnsCreate", js_netns_create},       {"netnsDelete", js_netns_delete}, {"bridgeCreate", js_bridge_create},
      {"linkDelete", js_link_delete},         {"linkSet", js_link_set},         {"addressSet", js_address_set},
      {"bridgeAddPort", js_bridge_add_port},  {"vethCreate", js_veth_create},   {"netnsConfigure", js_netns_configure},
      {"tapOpen", js_tap_open},               {"tapOpenAlone", js_tap_open_alone}, {"linkDeleteAsync", js_link_delete_async},
      {"netnsAddress6", js_netns_address6},   {"netnsRoute", js_netns_route},
      {"netnsLinkDelete", js_netns_link_delete},
      {"bridgeRemovePort", js_bridge_remove_port},
      {"bridgeIsolatePort", js_bridge_isolate_port},
      {"macvlanSourceCreate", js_macvlan_source_create},
      {"address6Add", js_address6_add},
  };
  return functions_register(env, exports, functions, COUNT(functions));
}
