/* A thread that carries bytes between a pseudo-terminal's master, which Node cannot read (it gives EIO for its end), and a stream socket that it can. */
#ifndef HULL_BRIDGE_H
#define HULL_BRIDGE_H

/* Takes ownership of `master` at once (also on failure). Returns our end of the socketpair, or -1 with errno. */
int bridge_start(int master);

#endif
