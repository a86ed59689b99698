#include "symbols.h"

#include <stdlib.h>
#include <string.h>

#define NAME "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.$"
#define LONGEST 255

static int by_address(const void *a, const void *b) {
  const struct symbol *one = a, *other = b;
  /* Of aliases always the same. */
  return one->address < other->address ? -1 : one->address > other->address ? 1 : strcmp(one->name, other->name);
}

/* "ffffffff81000000 T _text", behind the name of a function of a module a tab and "[module]". */
static bool symbol_of(char *line, struct symbol *symbol) {
  char *end;
  uint64_t address = strtoull(line, &end, 16);
  if (end != line + 16 || address == 0 || end[0] != ' ' || strchr("tTwW", end[1]) == NULL || end[1] == 0 || end[2] != ' ') return false;
  char *name = end + 3;
  size_t length = strspn(name, NAME);
  if (length == 0 || length > LONGEST || (name[length] != 0 && name[length] != '\t')) return false;
  name[length] = 0;
  *symbol = (struct symbol){address, name};
  return true;
}

bool symbols_read(struct symbols *symbols, char *text) {
  size_t lines = 1;
  for (const char *at = text; (at = strchr(at, '\n')) != NULL; at++) lines++;
  *symbols = (struct symbols){.text = text, .all = calloc(lines, sizeof *symbols->all)};
  if (symbols->all == NULL) return false;
  for (char *line = text, *next; line != NULL; line = next) {
    next = strchr(line, '\n');
    if (next != NULL) *next++ = 0;
    if (symbol_of(line, &symbols->all[symbols->count])) symbols->count++;
  }
  qsort(symbols->all, symbols->count, sizeof *symbols->all, by_address);
  return true;
}

const char *symbol_name(const struct symbols *symbols, uint64_t address) {
  size_t low = 0, high = symbols->count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (symbols->all[middle].address <= address) low = middle + 1;
    else high = middle;
  }
  if (low == 0) return "?";
  /* Aliases have one address: the first of them. */
  const struct symbol *found = &symbols->all[low - 1];
  while (found > symbols->all && found[-1].address == found->address) found--;
  return found->name;
}
