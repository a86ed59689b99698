#ifndef HULL_INSTANCE_H
#define HULL_INSTANCE_H

#include "pages.h"
#include "threads.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MOST_PROCESSORS 1024

/* An instance of the kernel's tracer (Documentation/trace/ftrace.rst) of our own, with buffers of its own: who else traces here notices nothing of it. */
struct instance {
  int root, instances, directory; /* of tracefs, of all instances, of ours; -1: none */
  char name[64];
  int pipes[MOST_PROCESSORS];
  size_t processors;
  struct layout layout;
};

/*
 * Takes the instances away that were left by processes like this that were killed, and makes one. The mount is in a namespace of our own, so that the host's has no other one.
 * `kib`: of buffers for each processor; 0: as many as seem right, and how many that is. NULL, or why it cannot be made: a sentence without its end. What was made until then is for
 * instance_remove() in either case.
 */
const char *instance_make(struct instance *instance, size_t *kib);

/* Functions that these processes call, and what they start; from now on. As instance_make(). */
const char *instance_start(struct instance *instance, const pid_t *roots, size_t count, struct threads *threads);

void instance_stop(struct instance *instance);

/* Reads what is there of a processor: page after page into `page`, of `size` bytes. As read(2); 0: there is nothing more for now. */
long instance_read(struct instance *instance, size_t processor, uint8_t *page, size_t size);

/* Events that the kernel threw away because nobody had read what was there. */
unsigned long instance_lost(const struct instance *instance);

/* false: it is still there. */
bool instance_remove(struct instance *instance);

#endif
