/* Users and groups of the container, by Docker's rules: moby/sys/user, GetExecUser and GetAdditionalGroups. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent.h"

#define TABLE_MAX (1 << 20)
#define ID_MAX 2147483647u

/* The whole file, or an empty string: an image without /etc/passwd is nothing special. */
static char *table(const char *path) {
  char *text = malloc(TABLE_MAX);
  if (text != NULL && file_read(path, text, TABLE_MAX, true) < 0) text[0] = 0;
  return text;
}

/* Cuts a line at its colons. Fields that are missing are "". */
static void fields(char *line, char **out, size_t count) {
  for (size_t i = 0; i < count; i++) {
    out[i] = line;
    char *colon = strchr(line, ':');
    if (colon == NULL) {
      line += strlen(line);
      continue;
    }
    *colon = 0;
    line = colon + 1;
  }
}

static bool number(const char *text, uint32_t *out) {
  uint64_t value;
  if (!parse_number(text, UINT64_MAX, &value)) return false;
  *out = value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
  return true;
}

static void add_group(struct identity *who, gid_t gid) {
  for (size_t i = 0; i < who->group_count; i++)
    if (who->groups[i] == gid) return;
  if (who->group_count < GROUPS_MAX) who->groups[who->group_count++] = gid;
}

static bool member(char *list, const char *name) {
  char *rest = NULL;
  for (char *one = strtok_r(list, ",", &rest); one != NULL; one = strtok_r(NULL, ",", &rest))
    if (strcmp(one, name) == 0) return true;
  return false;
}

/* Finds the user by number or name; sets uid, gid, home and `name`. */
static bool find_user(const char *wanted, struct identity *out, char *name, size_t name_size, char *message) {
  char *text = table("/etc/passwd"), *rest = NULL, *f[7];
  uint32_t id = 0, uid, gid;
  bool numeric = *wanted == 0 || number(wanted, &id), found = false;
  if (text == NULL) return fail(message, "out of memory");
  for (char *line = strtok_r(text, "\n", &rest); line != NULL && !found; line = strtok_r(NULL, "\n", &rest)) {
    fields(line, f, 7);
    if (!number(f[2], &uid) || !number(f[3], &gid)) continue;
    if (numeric ? uid != id : strcmp(f[0], wanted) != 0) continue;
    found = true;
    out->uid = uid;
    out->gid = gid;
    snprintf(out->home, sizeof out->home, "%s", *f[5] == 0 ? "/" : f[5]);
    snprintf(name, name_size, "%s", f[0]);
  }
  free(text);
  if (found) return true;
  if (!numeric) return fail(message, "unable to find user %.200s: no matching entries in passwd file", wanted);
  if (id > ID_MAX) return fail(message, "uids and gids must be in range 0-2147483647");
  out->uid = id;
  return true;
}

/* One group by number or name. */
static bool find_group(const char *wanted, gid_t *out, char *message) {
  char *text = table("/etc/group"), *rest = NULL, *f[4];
  uint32_t id = 0, gid;
  bool numeric = number(wanted, &id), found = false;
  if (text == NULL) return fail(message, "out of memory");
  for (char *line = strtok_r(text, "\n", &rest); line != NULL && !found; line = strtok_r(NULL, "\n", &rest)) {
    fields(line, f, 4);
    if (!number(f[2], &gid) || (numeric ? gid != id : strcmp(f[0], wanted) != 0)) continue;
    found = true;
    *out = gid;
  }
  free(text);
  if (found) return true;
  if (!numeric) return fail(message, "unable to find group %.200s: no matching entries in group file", wanted);
  if (id > ID_MAX) return fail(message, "uids and gids must be in range 0-2147483647");
  *out = id;
  return true;
}

static void memberships(const char *name, struct identity *out) {
  char *text = table("/etc/group"), *rest = NULL, *f[4];
  uint32_t gid;
  for (char *line = text == NULL ? NULL : strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
    fields(line, f, 4);
    if (number(f[2], &gid) && member(f[3], name)) add_group(out, gid);
  }
  free(text);
}

bool user_resolve(const char *user, const struct list *extra, struct identity *out, char *message) {
  char wanted[256], name[256] = "";
  *out = (struct identity){.home = "/"};
  size_t length = strcspn(user, ":");
  const char *group = user[length] == ':' ? user + length + 1 : "";
  if (length >= sizeof wanted) return fail(message, "unable to find user %.200s: no matching entries in passwd file", user);
  memcpy(wanted, user, length);
  wanted[length] = 0;
  if (!find_user(wanted, out, name, sizeof name, message)) return false;
  if (*group != 0 && !find_group(group, &out->gid, message)) return false;
  add_group(out, out->gid); /* moby GHSA-rc4r-wh2q-q6c4: the primary group is one of the supplementary ones */
  if (*group == 0 && *name != 0) memberships(name, out);
  for (size_t i = 0; i < extra->count; i++) {
    gid_t gid;
    if (!find_group(extra->items[i], &gid, message)) {
      message[0] = message[0] == 'u' && strncmp(message, "unable to find group", 20) == 0 ? 'U' : message[0];
      return false;
    }
    add_group(out, gid);
  }
  return true;
}
