/* Capabilities, ids and limits of a process that is about to become the workload. */
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent.h"

/* In the order of their numbers, linux/capability.h. */
static const char *const cap_names[] = {
  "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
  "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT",
  "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE",
  "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
  "PERFMON", "BPF", "CHECKPOINT_RESTORE"};
#define CAPS (sizeof cap_names / sizeof *cap_names)

static bool caps_parse(const struct list *list, uint64_t *out, char *message) {
  *out = 0;
  for (size_t i = 0; i < list->count; i++) {
    const char *name = list->items[i];
    if (strncmp(name, "CAP_", 4) == 0) name += 4;
    size_t number = 0;
    while (number < CAPS && strcmp(name, cap_names[number]) != 0) number++;
    if (number == CAPS) return fail(message, "unknown capability: %.60s", list->items[i]);
    *out |= (uint64_t)1 << number;
  }
  return true;
}

bool privilege_apply(const struct spec *spec, const struct identity *who, char *message) {
  uint64_t caps;
  if (!caps_parse(&spec->caps, &caps, message)) return false;
  for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
    if ((caps >> cap & 1) == 0 && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) return fail(message, "capabilities: %s", strerror(errno));
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (syscall(SYS_setgroups, who->group_count, who->groups) < 0 || syscall(SYS_setresgid, who->gid, who->gid, who->gid) < 0 ||
      syscall(SYS_setresuid, who->uid, who->uid, who->uid) < 0)
    return fail(message, "user %u:%u: %s", who->uid, who->gid, strerror(errno));
  /* Docker gives a user other than root none of them but as the bounding set (moby: SetCapabilities for non-root). */
  uint64_t own = who->uid == 0 ? caps : 0;
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct data[2] = {{.effective = (uint32_t)own, .permitted = (uint32_t)own},
                                           {.effective = (uint32_t)(own >> 32), .permitted = (uint32_t)(own >> 32)}};
  if (syscall(SYS_capset, &header, data) < 0) return fail(message, "capabilities: %s", strerror(errno));
  if (spec->nnp && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return fail(message, "no_new_privs: %s", strerror(errno));
  return true;
}

static const struct {
  const char *name;
  int number;
} limits[] = {{"cpu", RLIMIT_CPU}, {"fsize", RLIMIT_FSIZE}, {"data", RLIMIT_DATA}, {"stack", RLIMIT_STACK}, {"core", RLIMIT_CORE},
              {"rss", RLIMIT_RSS}, {"nproc", RLIMIT_NPROC}, {"nofile", RLIMIT_NOFILE}, {"memlock", RLIMIT_MEMLOCK}, {"as", RLIMIT_AS},
              {"locks", RLIMIT_LOCKS}, {"sigpending", RLIMIT_SIGPENDING}, {"msgqueue", RLIMIT_MSGQUEUE}, {"nice", RLIMIT_NICE},
              {"rtprio", RLIMIT_RTPRIO}, {"rttime", RLIMIT_RTTIME}};

/* A number, or -1 or "unlimited". Ends at ':' or the string's end. */
static bool limit_value(const char *text, size_t length, rlim_t *out) {
  char digits[32];
  uint64_t value;
  if (length == 0 || length >= sizeof digits) return false;
  memcpy(digits, text, length);
  digits[length] = 0;
  if (strcmp(digits, "-1") == 0 || strcmp(digits, "unlimited") == 0) {
    *out = RLIM_INFINITY;
    return true;
  }
  if (!parse_number(digits, UINT64_MAX, &value)) return false;
  *out = value;
  return true;
}

static bool limit_apply(const char *entry, char *message) {
  size_t name = strcspn(entry, ":");
  const char *soft = entry + name + (entry[name] == ':');
  size_t soft_length = strcspn(soft, ":");
  const char *hard = soft + soft_length + (soft[soft_length] == ':');
  const char *start = strncasecmp(entry, "RLIMIT_", 7) == 0 ? entry + 7 : entry;
  size_t length = (size_t)(entry + name - start);
  struct rlimit limit;
  if (!limit_value(soft, soft_length, &limit.rlim_cur) || !limit_value(hard, strlen(hard), &limit.rlim_max))
    return fail(message, "invalid ulimit: %.100s", entry);
  for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
    if (strlen(limits[i].name) != length || strncasecmp(limits[i].name, start, length) != 0) continue;
    return setrlimit(limits[i].number, &limit) == 0 || fail(message, "ulimit %.100s: %s", entry, strerror(errno));
  }
  return fail(message, "invalid ulimit: %.100s", entry);
}

bool rlimits_apply(const struct spec *spec, char *message) {
  /* The kernel's defaults follow the machine's memory; a container's do not. */
  const struct rlimit files = {.rlim_cur = 1048576, .rlim_max = 1048576}, none = {.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY};
  setrlimit(RLIMIT_NOFILE, &files);
  setrlimit(RLIMIT_NPROC, &none);
  setrlimit(RLIMIT_CORE, &none);
  for (size_t i = 0; i < spec->rlimits.count; i++)
    if (!limit_apply(spec->rlimits.items[i], message)) return false;
  return true;
}
