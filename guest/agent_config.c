/* CONFIG: everything of the machine that the container's processes do not make themselves. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent.h"

struct config config;

bool fail(char *message, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(message, MESSAGE_MAX, format, args);
  va_end(args);
  return false;
}

bool list_collect(struct list *list, const char *text, size_t size, const char *key) {
  size_t at = 0, count = 0;
  for (const char *entry; (entry = text_next(text, size, &at)) != NULL;)
    if (text_value(entry, key) != NULL) count++;
  *list = (struct list){0};
  if (count == 0) return true;
  if (count > LIST_MAX || (list->items = calloc(count, sizeof *list->items)) == NULL) return false;
  at = 0;
  for (const char *entry; (entry = text_next(text, size, &at)) != NULL;) {
    const char *value = text_value(entry, key);
    if (value != NULL) list->items[list->count++] = value;
  }
  return true;
}

static const char *string_of(const struct config *c, const char *key) {
  const char *value = text_find(c->text, c->size, key);
  return value == NULL ? "" : value;
}

/* False when the value is there and is no number up to `max`. An absent or empty value is 0. */
static bool number_of(const struct config *c, const char *key, uint64_t max, uint64_t *out, char *message) {
  const char *value = string_of(c, key);
  *out = 0;
  return *value == 0 || parse_number(value, max, out) || fail(message, "invalid %s: %.100s", key, value);
}

static bool parse(struct config *c, char *message) {
  uint64_t readonly, init, privileged, ephemeral;
  c->hostname = string_of(c, "hostname");
  c->domainname = string_of(c, "domainname");
  c->net = string_of(c, "net");
  c->root = string_of(c, "root");
  c->disk = string_of(c, "disk");
  if (!number_of(c, "readonly", 1, &readonly, message) || !number_of(c, "init", 1, &init, message) ||
      !number_of(c, "privileged", 1, &privileged, message) || !number_of(c, "ephemeral", 1, &ephemeral, message) || !number_of(c, "shm_size", INT64_MAX, &c->shm_size, message) ||
      !number_of(c, "memory", INT64_MAX, &c->memory, message) || !number_of(c, "swap", INT64_MAX, &c->swap, message) ||
      !number_of(c, "reservation", INT64_MAX, &c->reservation, message) ||
      !number_of(c, "pids", INT32_MAX, &c->pids, message) || !number_of(c, "cpu_shares", 262144, &c->cpu_shares, message))
    return false;
  c->readonly = readonly != 0;
  c->init = init != 0;
  c->privileged = privileged != 0;
  c->ephemeral = ephemeral != 0;
  return (list_collect(&c->mounts, c->text, c->size, "mount") && list_collect(&c->sysctls, c->text, c->size, "sysctl") &&
          list_collect(&c->masked, c->text, c->size, "masked") && list_collect(&c->ropaths, c->text, c->size, "ropath")) ||
         fail(message, "too many entries of one kind");
}

bool config_parse(char *text, size_t size, char *message) {
  config.text = text;
  config.size = size;
  return parse(&config, message);
}

bool configure(char *text, size_t size, char *message) {
  return config_parse(text, size, message) && cgroup_setup(&config, message) && net_up(&config, message) && root_mount(&config, message) &&
         shares_mount(&config, message) && sockets_listen(&config, message);
}
