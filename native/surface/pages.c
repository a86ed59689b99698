#include "pages.h"

#include <stdio.h>
#include <string.h>

/* ring_buffer.h, ring_buffer.c of the kernel: a word of 5 bits of kind or length and 27 of time, then the event. They are the kernel's ABI as far as trace-cmd(1) and perf(1) read them. */
#define KIND(word) ((word) & 31u)
#define DELTA(word) ((word) >> 5)
#define LONG 0
#define PADDING 29
#define TIME_EXTEND 30
#define TIME_STAMP 31
#define COMMIT_SIZE 0xfffffu
#define COMMIT_MISSED (1u << 31)

#define FARTHEST 4096

/* Place and size of a field, of a line as "field:unsigned long ip;	offset:8;	size:8;	signed:0;". */
static bool field(const char *text, const char *name, size_t wanted_size, size_t *place) {
  char wanted[64];
  snprintf(wanted, sizeof wanted, " %s;", name);
  const char *at = strstr(text, wanted);
  size_t offset, size;
  if (at == NULL || sscanf(at + strlen(wanted), " offset:%zu; size:%zu;", &offset, &size) != 2 || offset > FARTHEST || (wanted_size != 0 && size != wanted_size)) return false;
  *place = offset;
  return true;
}

bool layout_read(struct layout *layout, const char *header_page, const char *format) {
  const char *id = strstr(format, "\nID:");
  unsigned number;
  if (id == NULL || sscanf(id, "\nID: %u", &number) != 1 || number == 0 || number > UINT16_MAX) return false;
  layout->id = (uint16_t)number;
  if (!field(header_page, "commit", 8, &layout->commit) || !field(header_page, "data", 0, &layout->data) || layout->data < layout->commit + 8) return false;
  if (!field(format, "common_type", 2, &layout->type) || !field(format, "common_flags", 1, &layout->flags) || !field(format, "ip", 8, &layout->ip) || !field(format, "parent_ip", 8, &layout->parent)) return false;
  const size_t ends[] = {layout->type + 2, layout->flags + 1, layout->ip + 8, layout->parent + 8};
  layout->size = 0;
  for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
    if (ends[i] > layout->size) layout->size = ends[i];
  return true;
}

static uint32_t word_at(const uint8_t *bytes) {
  uint32_t word;
  memcpy(&word, bytes, sizeof word);
  return word;
}

bool page_calls(const struct layout *layout, const uint8_t *page, size_t size, void (*each)(void *context, const struct call *call), void *context, bool *lost) {
  if (size < layout->data) return false;
  uint32_t commit = word_at(page + layout->commit);
  if (commit & COMMIT_MISSED) *lost = true;
  size_t left = commit & COMMIT_SIZE;
  if (left > size - layout->data) return false;
  const uint8_t *at = page + layout->data;
  while (left >= 4) {
    uint32_t word = word_at(at), kind = KIND(word);
    size_t head = 4, length;
    if (kind == PADDING && DELTA(word) == 0) return true; /* nothing more */
    if (kind == LONG || kind == PADDING) {
      if (left < 8) return false;
      length = word_at(at + 4); /* counts itself */
      if (length < 4) return false;
      head = 8, length -= 4;
    } else if (kind == TIME_EXTEND || kind == TIME_STAMP) length = 4;
    else length = kind * 4;
    if (length > left - head) return false;
    uint16_t type;
    if (kind < PADDING && length >= layout->size) {
      const uint8_t *event = at + head;
      memcpy(&type, event + layout->type, sizeof type);
      if (type == layout->id) {
        struct call call = {.flags = event[layout->flags]};
        memcpy(&call.ip, event + layout->ip, sizeof call.ip);
        memcpy(&call.parent, event + layout->parent, sizeof call.parent);
        each(context, &call);
      }
    }
    /* Events begin at words. */
    size_t whole = (head + length + 3) & ~(size_t)3;
    if (whole > left) return left == head + length;
    at += whole;
    left -= whole;
  }
  return left == 0;
}
