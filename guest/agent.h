/* The agent: PID 1 of the guest. See PROTOCOL.md. */
#ifndef HULL_AGENT_H
#define HULL_AGENT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "bytes.h"
#include "frame.h"
#include "loop.h"

#define AGENT_VERSION "0.1.0"
#define MESSAGE_MAX 1024
#define SESSIONS_MAX 128
#define LIST_MAX 1024 /* entries of one repeated key (mounts, sysctls, groups, …) */

/* Where things are in the agent's own mount namespace. */
#define DIR_LOWER "/run/lower"
#define DIR_DISK "/run/disk"
#define DIR_ROOT "/run/root"
#define DIR_FILES "/run/files"
#define DIR_SHARES "/run/shares"
#define DIR_CGROUP "/sys/fs/cgroup"
#define DIR_CONTAINER_CGROUP DIR_CGROUP "/container"

/* ---- agent_boot.c: what a guest needs before it can talk ---- */
/* Mounts, modules, the port named "hull". Returns the port's descriptor or dies. */
int boot(void);
/* Loads the modules that `file` names in the order of their dependencies (guest/prepare-kernel made it). */
bool load_modules(const char *file, char *message);
/* Writes a line to the kernel log (seen with console= on the kernel's command line). */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Says why and powers the machine off. */
void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* ---- agent_file.c ---- */
/* Writes a string to an existing file in one write(2). 0 or -errno. */
int file_write(const char *path, const char *text);
/* Reads at most size-1 bytes, NUL-ends them. Bytes read or -errno. Refuses what is not a regular file when `regular`. */
ssize_t file_read(const char *path, char *buffer, size_t size, bool regular);
/* mkdir -p with mode 0755. 0 or -errno. */
int make_dirs(const char *path);
/* Makes the parent directories and an empty file if nothing is there. 0 or -errno. */
int make_file(const char *path);

/* ---- agent_seed.c ---- */
/* Before HELLO: nothing is read. */
void seed_prepare(void);
/* SEED: random pool and clock. False when any part failed: nothing may run then. */
bool seed(const uint8_t *payload, uint32_t size);

/* ---- agent_config.c ---- */
struct list {
  const char **items;
  size_t count;
};

struct config {
  char *text; /* owns every string below */
  size_t size;
  const char *hostname, *domainname, *net, *root, *disk;
  bool readonly, init, privileged, ephemeral;
  uint64_t shm_size, memory, swap, reservation, pids, cpu_shares;
  struct list mounts, sysctls, masked, ropaths;
};
extern struct config config;

/* Takes `text` (malloc'd, valid text) and does what it says, up to READY. False with a message. */
bool configure(char *text, size_t size, char *message);
/* Only reads it into `config`, whose strings are in `text` from then on. */
bool config_parse(char *text, size_t size, char *message);
bool fail(char *message, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Collects a repeated key. False: too many or no memory. */
bool list_collect(struct list *list, const char *text, size_t size, const char *key);

/* ---- agent_net.c ---- */
/* Before HELLO: what does not depend on CONFIG. */
void net_prepare(void);
bool net_up(const struct config *c, char *message);
/* After a rehearsal: as net_prepare left it. */
void net_down(void);
/* QUERY what=network: interfaces, default route, /etc/hosts and /etc/resolv.conf of the running container. Answers ok=1, or error= and nothing was added. */
void query_network(struct bytes *out, const char *text, size_t size);

/* ---- agent_cgroup.c ---- */
/* Before HELLO: the container's cgroup, without limits. */
void cgroup_prepare(void);
/* Makes it anew, as cgroup_prepare did. Nothing may run in it. */
bool cgroup_renew(char *message);
bool cgroup_setup(const struct config *c, char *message);
/* Descriptor of the container's cgroup directory; -1 with errno. */
int cgroup_open(void);
/* Kills everything in the container's cgroup and below. */
void cgroup_kill(void);
/* True when the kernel killed a process of the container for want of memory. */
bool cgroup_oom(void);
/* A descriptor of its memory.events for poll(2), the caller's; -1 with errno. */
int cgroup_events(void);
/* Value of `name` in a flat keyed cgroup file, 0 when it is not there. */
uint64_t cgroup_value(const char *file, const char *name);

/* ---- agent_pressure.c ---- */
/* Before HELLO: the memory that only the kernel may use. */
void pressure_prepare(void);
/* From now on a container that stands still at its memory limit is OOM-killed. */
void pressure_watch(void);

/* ---- agent_disk.c: the root file system as seen by the agent ---- */
/* Before HELLO: what can be done for every container's disks. A memory template has the disk that its clones get: mounts it, if the command line names one. In the template of one image the container's root is ready after it: true. */
bool disk_prepare(void);
/* Before HELLO, and before disk_prepare: the files over /etc, empty. */
void etc_prepare(void);
bool root_mount(const struct config *c, char *message);
/* Writes everything to the disk and unmounts it. */
void root_unmount(void);
/* After a rehearsal: as it was before. */
void root_leave(void);

/* ---- agent_share.c: host directories and files through virtiofs ---- */
/* An entry "share:INDEX:OPTIONS:TARGET" of CONFIG's mounts. */
struct share {
  const char *target;
  int tree; /* the share itself, not mounted anywhere: mount it with share_place after pivot_root */
};
bool shares_mount(const struct config *c, char *message);
bool shares_any(const struct config *c);
/* Writes everything back to the host. */
void shares_unmount(void);
/* Before pivot_root: takes the shares of all entries (`shares` has one for each of c->mounts; tree -1 for those that are none). */
/* Where the share of a mount entry is in the agent's own namespace, and its target; NULL: no share. */
const char *share_source(const char *entry, char *source, size_t size, bool *readonly);
bool shares_take(const struct config *c, struct share *shares, char *message);
bool share_place(struct share *share, char *message);

/* ---- agent_socket.c: sockets of the host ---- */
/* What follows "socket:" in an entry of CONFIG's mounts, or NULL. */
const char *socket_entry(const char *entry);
bool sockets_listen(const struct config *c, char *message);
bool socket_known(uint32_t index);
/* Listens where the host waits for a connection, and nowhere else. Called every round. */
void sockets_update(void);

/* ---- agent_root.c, agent_dev.c: run in the container's first process ---- */
/* pivot_root, and what every container has mounted. Of the configuration it looks at `privileged` and `shm_size` only: it may be done before there is one. */
bool container_enter(const struct config *c, char *message);
/* After it: names, mounts and sysctls that the configuration asks for. `shares`: from shares_take. */
bool container_furnish(const struct config *c, struct share *shares, const char *cwd, bool tty, char *message);
/* After it, or right after container_enter for what asks for no sysctls and mounts nothing there: what is not to be seen or not to be written. */
bool container_hide(const struct config *c, char *message);
/* The files of CONFIG that are bound over the image's: their key, where the agent has them, where the container sees them. */
#define ETC_FILES 3
extern const struct etc_file {
  const char *key, *source, *target;
} etc_files[ETC_FILES];
/* In the container's root: the directories and files that container_enter mounts something over. */
void container_places(void);
bool container_dev(const struct config *c, char *message);
/* mount(2) options as --tmpfs takes them. False on a word nobody knows. */
bool mount_options(const char *options, unsigned long *flags, char *data, size_t data_size);

/* ---- agent_spec.c: RUN and EXEC ---- */
struct spec {
  char *text;
  size_t size;
  char **args, **env;
  const char *cwd, *user;
  struct list groups, caps, rlimits;
  bool tty, in, nnp, has_oom_score_adj;
  bool files, freeze; /* no program of the container's: hull-files */
  bool rehearsal;     /* no program of the container's: this one, which ends at once */
  int oom_score_adj;
  uint16_t rows, columns;
};
/* Takes `text`. False with a message; spec_free in both cases. */
bool spec_parse(struct spec *spec, char *text, size_t size, char *message);
void spec_free(struct spec *spec);

/* ---- agent_user.c: the container's /etc/passwd and /etc/group ---- */
#define GROUPS_MAX 256
struct identity {
  uid_t uid;
  gid_t gid;
  gid_t groups[GROUPS_MAX];
  size_t group_count;
  char home[256];
};
/* Docker's rules (moby/sys/user GetExecUser). False with a message in Docker's words. */
bool user_resolve(const char *user, const struct list *extra_groups, struct identity *out, char *message);

/* ---- agent_privilege.c ---- */
bool privilege_apply(const struct spec *spec, const struct identity *who, char *message);
bool rlimits_apply(const struct spec *spec, char *message);

/* ---- agent_exec.c ---- */
/* Replaces the process. Only returns on failure: Docker's exit code, and the message. */
int command_exec(const struct spec *spec, char **env, char *message);

/* ---- agent_spawn.c ---- */
struct started {
  pid_t pid;
  int pidfd;
  int report; /* SOCK_SEQPACKET: see struct report */
  int in, out, err; /* our ends of the pipes, -1 when there is a tty */
};
/* What the new process tells before it becomes the command. A SCM_RIGHTS descriptor comes with 'T': the terminal's master. */
struct report {
  char what; /* 'T' terminal, 'X' about to exec, 'F' failed */
  int32_t code;
  char message[MESSAGE_MAX];
};
/* Starts the container's first process (container = NULL) or one in the container whose first process is `container` (its pidfd).
 * False with a message and Docker's exit code. */
bool spawn(const struct spec *spec, int container, struct started *out, int *code, char *message);
/* So that the container's file systems can be unmounted: its namespaces end with its last process. */
void namespaces_hold(pid_t pid);
void namespaces_release(void);
/* clone3(2) of a process that is in `cgroup` (a directory's descriptor) from its first moment. */
pid_t clone_into(int cgroup, uint64_t flags, int *pidfd);
/* The kinds of namespace that a container has of its own, but for the cgroup one, which its first process makes. */
#define CONTAINER_NAMESPACES (CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC)
struct stdio {
  int in, out, err; /* the child's ends */
};
/* Signals as a new program expects them. */
void signals_reset(void);
bool oom_score_apply(const struct spec *spec, char *message);
/* The rest of the way of a process that is inside: user, terminal or pipes, limits, privileges, the command. `program`: descriptor of the init, or in a rehearsal of the agent, that is executed in place of the command; -1: none. Returns Docker's exit code with a message; does not return when it went well. */
int become(const struct spec *spec, bool first, int program, const struct stdio *pipes, int report, char *message);
#define TINI "/tini"

/* ---- agent_waiting.c: the container's first process, made in the template ---- */
/* Before HELLO, with the container's root ready. Whatever fails here is told when a container's own start comes to it. */
void waiting_prepare(void);
/* Makes the waiting process the container's first one, as spawn would have: only when it is there and nothing of configuration and specification asks for another. */
bool waiting_take(const struct spec *spec, struct started *out);
/* Ends it, if it is still there. */
void waiting_drop(void);
/* A child has ended: true when it was this one. */
bool waiting_reaped(pid_t pid);

/* Sends a report; `terminal` goes along when it is one. */
void report_tell(int report, char what, int code, const char *message, int terminal);
/* Those that are none (-1) are left out. */
void close_all(const int *fds, size_t count);
/* Makes these descriptors 0, 1 and 2. */
bool take_stdio(int in, int out, int err, char *message);

/* ---- agent_files.c ---- */
/* As spawn, for a spec with `files`; the first process of a machine is one that only waits. */
bool spawn_files(const struct spec *spec, int container, struct started *out, int *code, char *message);
/* The container's processes stand still while at least one session wants it. */
void files_freeze(bool on);

/* ---- agent_session.c ---- */
struct session;
void session_run(uint32_t stream, uint8_t type, char *text, size_t size);
/* `text` is valid text. */
void session_query(uint32_t stream, const char *text, size_t size);
struct session *session_find(uint32_t stream);
/* ACCEPT: the stream becomes the next connection to socket `index`. */
void session_accept(uint32_t stream, uint32_t index);
/* A stream waits for a connection to it. */
bool session_waits(uint32_t index);
void session_connected(uint32_t index, int fd);
void session_stdin(struct session *s, const uint8_t *data, uint32_t size);
void session_stdin_eof(struct session *s);
void session_window(struct session *s, uint32_t bytes);
void session_resize(struct session *s, uint16_t rows, uint16_t columns);
void session_signal(struct session *s, int signal);
void session_close(struct session *s);
/* A child process has ended (wait status). */
void session_reaped(pid_t pid, int status);
/* After every round: moves what can move, ends what has ended. Milliseconds until it wants to be called again, -1: no matter. */
int sessions_update(void);
/* Pidfd of the container's first process, -1 when none runs; its pid. */
int container_pidfd(void);
pid_t container_pid(void);
/* The main workload has ended or failed: nothing more will run. */
bool container_over(void);

/* ---- agent_rehearse.c ---- */
#define REHEARSAL "--rehearsal"
/* Takes `text` (malloc'd, valid text): CONFIG and RUN of a workload that does nothing. False with a message: this machine is of no use. */
bool rehearse(char *text, size_t size, char *message);

/* ---- agent_query.c ---- */
/* Fills `out` with the answer. */
void query_top(struct bytes *out);
void query_stats(struct bytes *out);
/* Bytes behind a name of /proc/meminfo ("MemTotal:"), 0 when it is not there. */
uint64_t meminfo(const char *key);

/* ---- agent_update.c ---- */
/* New limits for the container's cgroup, all or none; `out` gets ok=1 or error=REASON. */
void query_update(struct bytes *out, const char *text, size_t size);

/* ---- agent_main.c: the link ---- */
/* Bytes of data payload that may be put on the link now. */
size_t link_room(void);
/* Space for one data frame of at most `size` bytes of payload; link_data_send sends `size` bytes of it. */
uint8_t *link_data_space(size_t size);
void link_data_send(uint8_t type, uint8_t flags, uint32_t stream, size_t size);
/* Control frames are small and always fit: link input pauses long before the reserve for them is used up. */
void link_send(uint8_t type, uint32_t stream, const void *payload, size_t size);
void link_failed(uint32_t stream, int code, const char *message);
void link_exit(uint32_t stream, int code, bool oom);

#endif
