#ifndef HULL_SYMBOLS_H
#define HULL_SYMBOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct symbol {
  uint64_t address;
  const char *name;
};

/* The kernel's functions by their addresses. */
struct symbols {
  char *text;
  struct symbol *all;
  size_t count;
};

/* From the text of /proc/kallsyms, which becomes theirs (allocated, ended by a zero) and is changed. Addresses that are hidden (kernel.kptr_restrict) are none. false: no memory. */
bool symbols_read(struct symbols *symbols, char *text);

/* Of the function that an address lies in; "?": none. Of letters, digits, '_', '.' and '$'. */
const char *symbol_name(const struct symbols *symbols, uint64_t address);

#endif
