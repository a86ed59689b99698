/* A thread that carries bytes between a descriptor that Node cannot read and a stream socket that it can. */
#ifndef HULL_BRIDGE_H
#define HULL_BRIDGE_H

#include <stdbool.h>

enum bridge_kind {
  BRIDGE_CONMON_RAW,    /* conmon's attach socket; output without its type byte */
  BRIDGE_CONMON_FRAMED, /* the same; output in Docker's multiplexed framing */
  BRIDGE_PTY            /* a pseudo-terminal's master */
};

/* `silent`: Node has nothing to say to the remote, and the remote must not take its leaving for an end of input: the socket stays open, deaf, until
 * the remote closes it. conmon closes a container's stdin when any client ends, also one that only listened.
 * Takes ownership of `remote` at once (also on failure). Returns our end of the socketpair, or -1 with errno. */
int bridge_start(int remote, enum bridge_kind kind, bool silent);

#endif
