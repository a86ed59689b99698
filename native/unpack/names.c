#include "unpack.h"

#include <string.h>

bool clean_name(const char *name, char *out) {
  size_t used = 0;
  out[0] = '\0';
  for (const char *p = name; *p != '\0';) {
    while (*p == '/') p++;
    size_t length = strcspn(p, "/");
    if (length == 0) break;
    if (length == 1 && p[0] == '.') {
      /* nothing */
    } else if (length == 2 && p[0] == '.' && p[1] == '.') {
      if (used == 0) return false;
      while (used > 0 && out[used - 1] != '/') used--;
      if (used > 0) used--;
    } else {
      if (used + length + 2 > NAME_LIMIT) return false;
      if (used > 0) out[used++] = '/';
      memcpy(out + used, p, length);
      used += length;
    }
    out[used] = '\0';
    p += length;
  }
  return true;
}

char *split_name(char *name) {
  char *slash = strrchr(name, '/');
  if (slash == NULL) return name;
  *slash = '\0';
  return slash + 1;
}
