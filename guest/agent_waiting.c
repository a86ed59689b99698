/* The container's first process, made in the template of one image: it is in its namespaces and its root, with all that every container has mounted, and waits to be told what it is.
 *
 * A clone then makes no process and mounts nothing, which was a fifth of all that a start from a template did (docs/decisions/0013-templates.md). It knows nobody's secrets: it is older than
 * the first random number (SEED) and than any byte of a user's. What a container may ask for that it cannot do any more (another view of the machine's own file systems, mounts that come
 * from outside its root) makes the agent end it and make a process as ever. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"

int unshare(int flags);

/* Bytes of CONFIG and RUN together; they go over in one message. Longer ones are rare, and have the old way. */
#define TOLD_MAX 65536u
#define DEFAULT_SHM (64u << 20)
/* Paths of either kind that are hidden; Docker has a dozen. */
#define HIDDEN_MAX 32

/* The first message; the texts follow it in the same one. */
struct lengths {
  uint32_t config, spec;
};

static struct started waiting = {.pid = -1};
static int control = -1;
/* What it has done already: the paths that the engine hides from every container unless it is told otherwise. */
static const char *masked[HIDDEN_MAX], *ropaths[HIDDEN_MAX];
static struct config done = {.shm_size = DEFAULT_SHM, .masked = {.items = masked}, .ropaths = {.items = ropaths}};

/* From the kernel's command line: paths with commas between them. */
static void hidden(struct list *list, const char *word) {
  char *rest = NULL, *text = getenv(word);
  list->count = 0;
  for (char *path = text == NULL ? NULL : strtok_r(text, ",", &rest); path != NULL && list->count < HIDDEN_MAX; path = strtok_r(NULL, ",", &rest)) list->items[list->count++] = path;
}

/* The process: what it is told it does. Returns as `become`. */
static int await(int orders, int tini, struct stdio pipes, int report, char *message) {
  static char told[sizeof(struct lengths) + TOLD_MAX];
  struct lengths lengths;
  struct spec spec;
  ssize_t n;
  while ((n = recv(orders, told, sizeof told, 0)) < 0 && errno == EINTR) {
  }
  if (n < (ssize_t)sizeof lengths) _exit(0); /* not wanted any more */
  memcpy(&lengths, told, sizeof lengths);
  char *text = told + sizeof lengths; /* never given back: it becomes another program, or ends */
  if (!config_parse(text, lengths.config, message) || !spec_parse(&spec, text + lengths.config, lengths.spec, message)) return 126;
  if (!oom_score_apply(&spec, message)) return 126;
  if (config.init && tini < 0) return fail(message, "init: there is none"), 126;
  if (!container_furnish(&config, NULL, spec.cwd, spec.tty, message)) return 126;
  return become(&spec, true, config.init ? tini : -1, &pipes, report, message);
}

static int first_process(int orders, struct stdio pipes, int report, char *message) {
  signals_reset();
  int tini = open(TINI, O_RDONLY | O_CLOEXEC);
  if (unshare(CLONE_NEWCGROUP) < 0 || !container_enter(&done, message) || !container_hide(&done, message)) return 126;
  report_tell(report, 'W', 0, "", -1);
  return await(orders, tini, pipes, report, message);
}

/* True when it says that it waits. */
static bool has_entered(int report) {
  struct report r;
  ssize_t n;
  while ((n = read(report, &r, sizeof r)) < 0 && errno == EINTR) {
  }
  return n == sizeof r && r.what == 'W';
}

void waiting_prepare(void) {
  /* in 0-1, out 2-3, err 4-5, report 6-7, orders 8-9, cgroup 10 */
  hidden(&done.masked, "hull_masked");
  hidden(&done.ropaths, "hull_ropaths");
  int f[11] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1}, code;
  char message[MESSAGE_MAX] = "";
  bool ok = pipe2(f, O_CLOEXEC) == 0 && pipe2(f + 2, O_CLOEXEC) == 0 && pipe2(f + 4, O_CLOEXEC) == 0 && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, f + 6) == 0 &&
            socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, f + 8) == 0 && (f[10] = cgroup_open()) >= 0;
  waiting = (struct started){.pid = -1, .pidfd = -1, .report = f[6], .in = f[1], .out = f[2], .err = f[4]};
  control = f[8];
  if (ok) waiting.pid = clone_into(f[10], CONTAINER_NAMESPACES, &waiting.pidfd);
  if (waiting.pid == 0) {
    close(control); /* else it would wait for ever for an agent that has let go of it */
    code = first_process(f[9], (struct stdio){.in = f[0], .out = f[3], .err = f[5]}, f[7], message);
    report_tell(f[7], 'F', code, message, -1);
    _exit(code);
  }
  close_all((int[]){f[0], f[3], f[5], f[7], f[9], f[10]}, 6);
  if (waiting.pid < 0 || !has_entered(waiting.report)) {
    waiting_drop();
    return;
  }
  const int ours[] = {waiting.in, waiting.out, waiting.err, waiting.report};
  for (int i = 0; i < 4; i++) fcntl(ours[i], F_SETFL, O_NONBLOCK);
  namespaces_hold(waiting.pid);
}

void waiting_drop(void) {
  if (control < 0) return;
  close_all((int[]){control, waiting.report, waiting.in, waiting.out, waiting.err, waiting.pidfd}, 6);
  if (waiting.pid > 0) {
    namespaces_release();
    kill(waiting.pid, SIGKILL);
    while (waitpid(waiting.pid, NULL, 0) < 0 && errno == EINTR) {
    }
  }
  waiting.pid = control = -1;
}

bool waiting_reaped(pid_t pid) {
  if (control < 0 || pid != waiting.pid) return false;
  waiting.pid = -1;
  namespaces_release();
  waiting_drop();
  return true;
}

static bool same(const struct list *a, const struct list *b) {
  if (a->count != b->count) return false;
  for (size_t i = 0; i < a->count; i++)
    if (strcmp(a->items[i], b->items[i]) != 0) return false;
  return true;
}

static bool below(const char *path, const char *directory) {
  size_t length = strlen(directory);
  return strncmp(path, directory, length) == 0 && (path[length] == '/' || path[length] == 0);
}

/* A tmpfs that does not come to lie under or over what is hidden already. */
static bool mount_suits(const char *entry) {
  const char *path = strncmp(entry, "tmpfs:", 6) == 0 ? strchr(entry + 6, ':') : NULL;
  return path != NULL && strstr(path, "..") == NULL && strcmp(path + 1, "/") != 0 && !below(path + 1, "/proc") && !below(path + 1, "/sys");
}

/* Nothing asks for more than what it can still do. */
static bool suits(const struct spec *spec) {
  if (control < 0 || spec->rehearsal || config.privileged || (config.shm_size != 0 && config.shm_size != DEFAULT_SHM) || config.sysctls.count > 0 || config.size + spec->size > TOLD_MAX) return false;
  for (size_t i = 0; i < ETC_FILES; i++)
    if (text_find(config.text, config.size, etc_files[i].key) == NULL) return false; /* its own is in the way of the image's */
  for (size_t i = 0; i < config.mounts.count; i++)
    if (!mount_suits(config.mounts.items[i])) return false;
  return same(&config.masked, &done.masked) && same(&config.ropaths, &done.ropaths);
}

/* False: it is gone. */
static bool tell(const struct spec *spec) {
  struct lengths lengths = {.config = (uint32_t)config.size, .spec = (uint32_t)spec->size};
  struct iovec parts[] = {{.iov_base = &lengths, .iov_len = sizeof lengths}, {.iov_base = config.text, .iov_len = config.size}, {.iov_base = spec->text, .iov_len = spec->size}};
  struct msghdr m = {.msg_iov = parts, .msg_iovlen = 3};
  ssize_t n;
  while ((n = sendmsg(control, &m, MSG_NOSIGNAL)) < 0 && errno == EINTR) {
  }
  return n == (ssize_t)(sizeof lengths + config.size + spec->size);
}

bool waiting_take(const struct spec *spec, struct started *out) {
  if (!suits(spec) || !tell(spec)) {
    waiting_drop();
    return false;
  }
  *out = waiting;
  close(control);
  waiting.pid = control = -1;
  /* What spawn would not have made. */
  int *unused[] = {spec->in && !spec->tty ? NULL : &out->in, spec->tty ? &out->out : NULL, spec->tty ? &out->err : NULL};
  for (int i = 0; i < 3; i++)
    if (unused[i] != NULL) close(*unused[i]), *unused[i] = -1;
  if (!config.ephemeral) namespaces_release();
  return true;
}
