#ifndef HULL_PAGES_H
#define HULL_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where things are in a page of the kernel's ring buffer (per_cpu/cpuN/trace_pipe_raw) and in an event of the function tracer, as the kernel says (events/header_page, events/ftrace/function/format). */
struct layout {
  size_t commit, data;                /* in a page */
  size_t type, flags, ip, parent, size; /* in an event */
  uint16_t id;
};

/* One function that was called. `flags`: enum trace_flag_type of the kernel. */
struct call {
  uint8_t flags;
  uint64_t ip, parent;
};
#define IN_HARDIRQ 0x08
#define IN_SOFTIRQ 0x10
#define IN_NMI 0x40

/* false: these texts are of another kernel than those that are known. */
bool layout_read(struct layout *layout, const char *header_page, const char *format);

/* Tells `each` of the calls in a page, in their order. false: it is no such page, and what comes after the wrong place is not looked at. `lost` is set when the kernel says that it lost events before this page. */
bool page_calls(const struct layout *layout, const uint8_t *page, size_t size, void (*each)(void *context, const struct call *call), void *context, bool *lost);

#endif
