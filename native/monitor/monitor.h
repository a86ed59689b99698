/*
 * hull-monitor: the parent of one container on this host (a workload, or the jail of a VMM), and the keeper of its stdio, log and exit code. It calls the OCI runtime and outlives the daemon.
 *
 *   daemon --spawn--> hull-monitor --fork, exec--> RUNTIME create --> container's init, whose parent the monitor becomes (PR_SET_CHILD_SUBREAPER)
 *
 * There is one for each container, so what one of them takes counts: static, no memory from the heap until a client needs it, poll(2) and no descriptor that could be done without (docs/decisions/0024-monitor.md).
 *
 * Files: BUNDLE/attach, a stream socket for clients (clients.c); EXITDIR/ID, the exit code in decimal, by rename, when the log is complete; BUNDLE/monitor.err, only if there is something to say. The daemon removes them.
 */
#ifndef HULL_MONITOR_H
#define HULL_MONITOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Bytes of one read of the container's output; also the most that one record of the log holds. */
#define CHUNK 32768

struct options {
  const char *id, *bundle, *exit_dir;
  const char *console;   /* where the runtime sends the terminal's master; NULL: no terminal */
  bool input;            /* the container has a stdin, else /dev/null */
  bool input_once;       /* and it ends with the first client that had it */
  int inherited;         /* descriptors from 3 up to this one are the runtime's, the answer's (--sync) excepted */
  int sync;
  char *const *runtime;  /* its command line up to the subcommand, NULL-terminated */
  size_t runtime_count;
  int preserved;         /* --preserve-fds of the runtime */
  const char *oom_score; /* /proc/self/oom_score_adj of the runtime and all that it starts; NULL: what this process began with */
};

/* ---- report.c ---- */

/* Adds "hull-monitor: WHAT: strerror(ERROR)" to BUNDLE/monitor.err, the first few times. `error` 0: WHAT alone. */
void report(const char *what, int error);
void report_into(const char *bundle);
/* All of it to a descriptor that blocks. False: errno. */
bool write_all(int fd, const void *data, size_t size);

/* ---- runtime.c ---- */

struct container {
  pid_t pid;
  int in, out, err; /* our ends, which do not block; -1: none */
  bool terminal;    /* `in` and `out` are one descriptor, its master */
};

/* `RUNTIME create`, to its end. True: the container waits to be started. False: `answer` (of `size` bytes) says why, in the runtime's words, and no process is left. */
bool runtime_create(const struct options *options, struct container *container, char *answer, size_t size);
/* Reads how children ended, all that have. True: `container` is among them, and its exit code (128 + signal) in `*code`. */
bool runtime_reap(const struct container *container, int *code);

/* ---- clients.c ---- */

/*
 * A client connects to BUNDLE/attach and says what it wants, in HELLO_SIZE bytes:
 *
 *   'A' FLAGS 0 0 0 0      the container's stdio. Output from now on, all of it for who came before the container's start: as it is, or (HELLO_FRAMED) in the Engine API's framing of 8 bytes and the data. With HELLO_INPUT what follows is
 *                          the container's stdin, and the end of that its end (--stdin-once); without, it is dropped, and so is what nobody reads any more.
 *                          The monitor ends its half when there is no more output, and closes when the client has closed.
 *   'W' 0 ROWS COLUMNS     the size of the terminal, two bytes each, the higher one first. The monitor closes.
 */
enum { HELLO_SIZE = 6, HELLO_FRAMED = 1, HELLO_INPUT = 2 };

/* In the working directory, the bundle: a socket's path has 107 bytes, and a bundle's may have more. False: errno. */
bool clients_listen(void);
/* No more clients. */
void clients_unlisten(void);
/* Takes who waits, and reads what the new ones want. */
void clients_accept(const struct container *container);
/* True when somebody could not be taken: to be tried again in a while, of which poll does not tell. */
bool clients_refused(void);
/* To all that want output. `stream` 1 or 2. */
void clients_send(int stream, const uint8_t *data, size_t size);
/* True while one of them has not taken what it was sent: nothing more is read for it, which holds up the container. */
bool clients_behind(void);
/* The output is complete. */
void clients_end(void);
bool clients_any(void);

struct pollfd;
/* How many entries clients_poll needs at most. */
size_t clients_count(void);
/* Fills in the listening socket and the clients; returns how many. `input_room`: bytes for the container's stdin can be taken. */
size_t clients_poll(struct pollfd *polled, bool input_room);
/* What poll found: the same entries. */
void clients_serve(const struct pollfd *polled, size_t count, const struct container *container);
/* Reads from the clients with HELLO_INPUT into `buffer`; 0: nothing there. `*ended`: one of them has ended its input. */
size_t clients_read(uint8_t *buffer, size_t size, bool *ended);

/* ---- log.c ---- */

/* PATH and the files that a rotation makes of it (PATH.1, …), `files` in all, each of `size` bytes and at most one record more. `size` 0: no rotation. False: errno. */
bool log_open(const char *path, uint64_t size, unsigned files);
/* One read of the container's output, as records of the CRI's format (log.c). Without effect when no log is open. */
void log_write(int stream, const uint8_t *data, size_t size);
void log_close(void);

#endif
