/* docker update: new limits for the container's cgroup while it runs. What is refused leaves everything as it was. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent.h"

#define KNOBS 4

struct change {
  const char *file;
  char before[64], after[64];
};

static int knob_read(const char *file, char *text, size_t size) {
  char path[128];
  snprintf(path, sizeof path, DIR_CONTAINER_CGROUP "/%s", file);
  ssize_t n = file_read(path, text, size, false);
  if (n < 0) return (int)n;
  text[strcspn(text, "\n")] = 0;
  return 0;
}

static int knob_write(const char *file, const char *text) {
  char path[128];
  snprintf(path, sizeof path, DIR_CONTAINER_CGROUP "/%s", file);
  return file_write(path, text);
}

/* Adds a change; `none` is what the kernel calls no limit. False with a message. */
static bool plan(struct change *changes, size_t *count, const char *file, uint64_t value, const char *none, char *message) {
  struct change *c = &changes[(*count)++];
  c->file = file;
  int error = knob_read(file, c->before, sizeof c->before);
  if (error < 0) return fail(message, "%s: %s", file, strerror(-error));
  if (value == 0) snprintf(c->after, sizeof c->after, "%s", none);
  else snprintf(c->after, sizeof c->after, "%llu", (unsigned long long)value);
  return true;
}

/* True when the key is there and is a number; `bad` when it is there and is none. */
static bool number(const char *text, size_t size, const char *key, uint64_t max, uint64_t *out, bool *bad) {
  const char *value = text_find(text, size, key);
  if (value == NULL) return false;
  if (parse_number(value, max, out)) return true;
  *bad = true;
  return false;
}

/* A lower limit than what cannot be given back would end the workload instead of being refused, as cgroup v1 refuses it (EBUSY). */
static bool fits(uint64_t memory, char *message) {
  uint64_t used = cgroup_value("memory.current", NULL), cache = cgroup_value("memory.stat", "file");
  uint64_t kept = used > cache ? used - cache : 0;
  return memory == 0 || kept < memory || fail(message, "%llu bytes are in use", (unsigned long long)kept);
}

static bool apply(struct change *changes, size_t count, char *message) {
  for (size_t i = 0; i < count; i++) {
    int error = knob_write(changes[i].file, changes[i].after);
    if (error == 0) continue;
    for (size_t done = i; done > 0; done--) knob_write(changes[done - 1].file, changes[done - 1].before);
    return fail(message, "%s: %s", changes[i].file, strerror(-error));
  }
  return true;
}

static bool update(const char *text, size_t size, char *message) {
  struct change changes[KNOBS];
  size_t count = 0;
  bool bad = false;
  uint64_t memory = config.memory, swap = config.swap, reservation = config.reservation, pids = config.pids;
  bool has_memory = number(text, size, "memory", INT64_MAX, &memory, &bad), has_swap = number(text, size, "swap", INT64_MAX, &swap, &bad);
  bool has_reservation = number(text, size, "reservation", INT64_MAX, &reservation, &bad), has_pids = number(text, size, "pids", INT32_MAX, &pids, &bad);
  if (bad) return fail(message, "invalid number");
  if (has_memory && (!fits(memory, message) || !plan(changes, &count, "memory.max", memory, "max", message))) return false;
  if (has_memory || has_swap) {
    bool limited = memory != 0 && swap >= memory;
    if (!plan(changes, &count, "memory.swap.max", limited ? swap - memory : 0, limited ? "0" : "max", message)) return false;
  }
  if (has_reservation && !plan(changes, &count, "memory.low", reservation, "0", message)) return false;
  if (has_pids && !plan(changes, &count, "pids.max", pids, "max", message)) return false;
  if (!apply(changes, count, message)) return false;
  config.memory = memory;
  config.swap = swap;
  config.reservation = reservation;
  config.pids = pids;
  return true;
}

void query_update(struct bytes *out, const char *text, size_t size) {
  char message[MESSAGE_MAX] = "", reply[MESSAGE_MAX + 16];
  bool ok = update(text, size, message);
  bytes_put(out, reply, text_put(reply, 0, sizeof reply, ok ? "ok" : "error", ok ? "1" : message));
}
