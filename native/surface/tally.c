#include "tally.h"

#include <stdlib.h>
#include <string.h>

#define PLACES (2 * MOST_FUNCTIONS)

/* From the beginning of a function to the place in it that the tracer hooks, which comes after an ENDBR at most. */
#define HOOK_WITHIN 16

static bool is_one_of(const char *name, const char *const *names) {
  for (; *names != NULL; names++)
    if (strcmp(name, *names) == 0) return true;
  return false;
}

/* Runs all soft interrupts that wait: __do_softirq() does it itself, or since Linux 6.10 handle_softirqs(). */
static bool is_entry(const char *name) { return is_one_of(name, (const char *const[]){"__do_softirq", "handle_softirqs", NULL}); }

/* From the end of a section without soft interrupts, not from that of an interrupt; with what compilers make of the name when they take a function apart. */
static bool is_by_hand(const char *name) { return is_one_of(name, (const char *const[]){"do_softirq", "do_softirq.part.0", "__local_bh_enable_ip", NULL}); }

static bool is_network(const char *name) { return is_one_of(name, (const char *const[]){"net_rx_action", "net_tx_action", NULL}); }

bool tally_make(struct tally *tally, const struct symbols *symbols) {
  *tally = (struct tally){.symbols = symbols, .addresses = calloc(PLACES, sizeof *tally->addresses)};
  for (size_t i = 0; i < symbols->count && tally->entry_count < MOST_ENTRIES; i++)
    if (is_entry(symbols->all[i].name)) tally->entries[tally->entry_count++] = symbols->all[i].address;
  return tally->addresses != NULL;
}

/* The same as is_entry() of its name, but that is asked for every call. */
static bool begins_entry(const struct tally *tally, uint64_t ip) {
  for (size_t i = 0; i < tally->entry_count; i++)
    if (ip - tally->entries[i] < HOOK_WITHIN) return true;
  return false;
}

static void add(struct tally *tally, uint64_t address) {
  if (address == 0) return;
  size_t at = (address * 0x9e3779b97f4a7c15u) >> 40 & (PLACES - 1);
  while (tally->addresses[at] != 0 && tally->addresses[at] != address) at = (at + 1) & (PLACES - 1);
  if (tally->addresses[at] == address) return;
  if (tally->count == MOST_FUNCTIONS) {
    tally->full = true;
    return;
  }
  tally->addresses[at] = address;
  tally->count++;
}

void tally_call(void *context, const struct call *call) {
  struct lane *lane = context;
  const struct symbols *symbols = lane->tally->symbols;
  if (call->flags & (IN_HARDIRQ | IN_NMI)) return;
  if (call->flags & IN_SOFTIRQ) {
    if (!lane->by_hand) return;
    if (is_entry(symbol_name(symbols, call->parent))) lane->network = is_network(symbol_name(symbols, call->ip));
    if (!lane->network) return;
  } else {
    lane->network = false;
    bool begins = begins_entry(lane->tally, call->ip);
    /* What one of them calls before it says that it is a soft interrupt (the other one, say) changes nothing. */
    if ((begins || lane->by_hand) && !is_entry(symbol_name(symbols, call->parent))) lane->by_hand = begins && is_by_hand(symbol_name(symbols, call->parent));
  }
  add(lane->tally, call->ip);
}
