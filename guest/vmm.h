/* hull-vmm: the supervisor between hull-monitor, the daemon, QEMU and the guest's agent. See PROTOCOL.md. */
#ifndef HULL_VMM_H
#define HULL_VMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "bytes.h"
#include "frame.h"
#include "loop.h"

#define AGENT_FD 20
#define QMP_FD 21
#define FIELD_MAX 160
#define MESSAGE_MAX 1024
#define MAIN_STREAM 1u

/* RESTORING: QEMU loads a template; SEEDING: SEED was sent; SEEDED: so was CONFIG; STARTING: so was RUN. A machine made ahead: REHEARSING, then WAITING for its CLAIM, then SEEDING again. */
enum state { BOOTING, RESTORING, SEEDING, REHEARSING, WAITING, SEEDED, STARTING, RUNNING, HALTING, EXITED };

/* What `what=status` and the status file tell. */
struct machine {
  enum state state;
  bool started;
  int code; /* valid when EXITED or HALTING */
  bool oom;
  char message[MESSAGE_MAX];
  char kernel[FIELD_MAX], agent[FIELD_MAX], bootid[FIELD_MAX];
  uint64_t guest_pid;
};
extern struct machine machine;

/* ---- vmm_main.c ---- */
/* The end: QEMU is killed, output is written out, then the process exits. Only the first call counts. */
void finish(int code, bool oom, const char *message);
/* The workload cannot run: the guest gets 2 s to write its disk, then finish. */
void halt(int code, const char *message);
/* The guest broke the protocol. */
void guest_error(const char *what);

/* ---- vmm_link.c: the agent ---- */
/* Reads config.frames and run.frames of the working directory. False with a message. */
bool link_load(char *message);
/* Reads rehearse.frames: the machine is made ahead, its workload comes with link_claim. */
bool link_load_rehearsal(char *message);
/* The machine made ahead becomes somebody's: config.frames and run.frames are there now. False: it is none, or was claimed already. */
bool link_claim(void);
void link_open(int fd);
void link_close(void);
/* The machine runs, as a template left it: SEED without waiting for a HELLO, which the template has said. */
void link_restored(void);
/* Handles what still is in the socket. */
void link_drain(void);
/* Writes what it can and decides what to wait for. Called every round. */
void link_update(void);
/* True when requests of clients and stdin may be queued. */
bool link_has_room(void);
void link_send(uint8_t type, uint8_t flags, uint32_t stream, const void *payload, size_t size);
void link_signal(uint32_t stream, int signal);
/* The workload reads stdin (RUN said stdin=1). */
bool link_wants_stdin(void);

/* ---- vmm_stdio.c: the workload's stdin, stdout, stderr ---- */
void stdio_open(void);
void stdio_update(void);
void stdio_restore(void);
/* Queues output of the main stream; false: the guest sent more than its window. */
bool stdio_output(uint8_t type, const uint8_t *data, uint32_t size);
void stdio_window(uint32_t bytes);
/* True when everything has been written, or nobody takes it any more. */
bool stdio_flushed(void);

/* ---- vmm_client.c: ctl.sock ---- */
bool clients_listen(char *message);
/* A frame of the agent for stream 2 and up. */
void clients_frame(const struct frame *f);
/* STARTED or FAILED is known: tells those who wait. */
void clients_started(void);
void clients_update(void);
/* No client has anything left to be written, and those whose stream has ended have closed their end. */
bool clients_flushed(void);
void clients_close(void);

/* ---- vmm_qemu.c ---- */
/* Starts QEMU with `link` as descriptor 20 and, unless it is -1, `qmp` as 21. False with a message. */
bool qemu_start(char *const args[], int link, int qmp, char *message);
pid_t qemu_pid(void);
/* A child has ended: true when it was QEMU. */
bool qemu_reaped(pid_t pid, int status);
/* How it ended, and its last words. */
void qemu_describe(char *out, size_t size);
void qemu_kill(void);

/* ---- vmm_landlock.c ---- */
/* Landlock's ABI in this kernel; 0: none; -1 (errno): it cannot be told. */
int landlock_version(void);
/* `--landlock 0`: for a hull-vmm without a jail round it, whose QEMU has the host's files. Before anything else of this. */
void landlock_leave_out(void);
/* In QEMU's process, before it is QEMU: nothing but the files that this QEMU opens, no TCP, no signals or abstract sockets outside. True where there is no Landlock. */
bool landlock_qemu(char *const args[]);
/* In our own, once QEMU is started and ctl.sock listens: nothing but the files of the working directory. True where there is no Landlock. */
bool landlock_self(void);

/* ---- vmm_qmp.c: only for a restore ---- */
/* Has QEMU (-incoming defer) load the machine's state from its inherited descriptor `state`, over the socket `fd`; then link_restored. */
void qmp_open(int fd, int state, bool with_shares);
void qmp_update(void);
/* QEMU is to listen to nobody once the guest runs. */
void qmp_close(void);

/* ---- vmm_status.c ---- */
/* Text answer to `what=status`. Returns its size. */
size_t status_text(char *out, size_t capacity);
/* Writes the file `status` by rename. */
void status_write(void);

#endif
