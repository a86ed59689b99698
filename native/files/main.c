#include "files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What runtimes make in every container for their mounts (runc and crun: mount points; docker's own "init" layer). */
static const char *const ours[] = {".dockerenv", "dev", "dev/console", "dev/pts", "dev/shm", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf", "proc", "sys"};

bool is_mountpoint_of_ours(const char *path, const struct stat *st) {
  if (S_ISREG(st->st_mode) ? st->st_size != 0 : !S_ISDIR(st->st_mode)) return false;
  for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
    if (strcmp(path, ours[i]) == 0) return true;
  return false;
}

static _Noreturn void usage(void) { die(0, "usage: hull-files (--join FD | --root DIR [--lower DIR]… [--mount ro|rw SOURCE TARGET]… [--read-only]) OPERATION …"); }

/* INSIDE:OUTSIDE:COUNT */
static bool add_range(struct id_map *map, const char *text) {
  struct id_range r;
  int end = 0;
  if (map->count == sizeof map->ranges / sizeof *map->ranges || sscanf(text, "%u:%u:%u%n", &r.inside, &r.outside, &r.count, &end) != 3 || text[end] != 0) return false;
  map->ranges[map->count++] = r;
  return true;
}

int main(int argc, char **argv) {
  struct wall wall = {.join = -1};
  wall.lower = calloc((size_t)argc, sizeof *wall.lower);
  wall.mounts = calloc((size_t)argc, sizeof *wall.mounts);
  if (wall.lower == NULL || wall.mounts == NULL) die(ENOMEM, "start");
  int at = 1;
  for (; at < argc && strncmp(argv[at], "--", 2) == 0; at++) {
    int left = argc - at - 1;
    if (strcmp(argv[at], "--join") == 0 && left > 0) wall.join = atoi(argv[++at]);
    else if (strcmp(argv[at], "--root") == 0 && left > 0) wall.root = argv[++at];
    else if (strcmp(argv[at], "--lower") == 0 && left > 0) wall.lower[wall.lowers++] = argv[++at];
    else if (strcmp(argv[at], "--read-only") == 0) wall.read_only = true;
    else if (strcmp(argv[at], "--userns") == 0 && left > 0) wall.userns = argv[++at];
    else if (strcmp(argv[at], "--uid-map") == 0 && left > 0 && add_range(&uid_map, argv[at + 1])) at++;
    else if (strcmp(argv[at], "--gid-map") == 0 && left > 0 && add_range(&gid_map, argv[at + 1])) at++;
    else if (strcmp(argv[at], "--mount") == 0 && left > 2) {
      const char *how = argv[at + 1];
      bool mapped = wall.userns != NULL && how[0] == 'r' && how[1] != 0 && how[2] == 'm';
      wall.mounts[wall.mount_count++] = (struct mount_wish){argv[at + 2], argv[at + 3], strncmp(how, "ro", 2) == 0, mapped};
      at += 3;
    } else usage();
  }
  if (at >= argc || (wall.join < 0) == (wall.root == NULL)) usage();
  const char *operation = argv[at];
  char **args = argv + at + 1;
  int count = argc - at - 1;
  bool changes = strcmp(operation, "changes") == 0;
  wall.trusted = changes || strcmp(operation, "layer") == 0;
  if (changes != (wall.lowers > 0)) usage();
  wall_enter(&wall);
  if (strcmp(operation, "stat") == 0 && count == 1) op_stat(args[0]);
  if (strcmp(operation, "get") == 0 && count == 2) op_get(args[0], args[1]);
  if (strcmp(operation, "put") == 0 && (count == 3 || (count == 4 && strcmp(args[3], "flush") == 0))) op_put(args[0], strcmp(args[1], "1") == 0, args[2], count == 4);
  if (strcmp(operation, "export") == 0 && count == 0) op_export();
  if (strcmp(operation, "layer") == 0 && count == 0) op_layer();
  if (changes && count == 0) op_changes(wall.lowers);
  if (strcmp(operation, "size") == 0 && count == 0) op_size();
  usage();
}
