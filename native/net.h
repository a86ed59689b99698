#ifndef HULL_NET_H
#define HULL_NET_H

#include "common.h"

/* The calling thread's network namespace, which is new: lo comes up, and interfaces that it gets have no IPv6 until they get an address (dockerd has it so): they would announce themselves to
 * all who are on the bridge, and each of these would wake up. */
void netns_prepare(struct task *task);

#endif
