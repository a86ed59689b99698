#ifndef HULL_TALLY_H
#define HULL_TALLY_H

#include "pages.h"
#include "symbols.h"

#define MOST_FUNCTIONS (1u << 17)
#define MOST_ENTRIES 4

/* Distinct functions that were called on the account of those who are traced. */
struct tally {
  const struct symbols *symbols;
  uint64_t *addresses; /* a hash table of twice MOST_FUNCTIONS places; 0: nothing there */
  size_t count;
  bool full;
  /* Where the functions begin that run soft interrupts. */
  uint64_t entries[MOST_ENTRIES];
  size_t entry_count;
};

/* What one processor is in the middle of. Starts as zeros. */
struct lane {
  struct tally *tally;
  bool by_hand, network;
};

/* false: no memory. */
bool tally_make(struct tally *tally, const struct symbols *symbols);

/*
 * Counts a call, unless it is an interrupt's, which came by chance. Of soft interrupts those are counted that a call of the traced itself ran at once (sending to a socket, what the host does
 * with the packet is done there and then), and of these the network's: others (timers, RCU) happen to wait there.
 * `lane` is a struct lane; calls of one processor come in order.
 */
void tally_call(void *lane, const struct call *call);

#endif
