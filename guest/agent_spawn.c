/* Makes a process: the container's first one with its namespaces, or one more inside them. */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"

int setns(int fd, int nstype);
int unshare(int flags);

#define MAPPED_MAX (256 * 1024)
#define TINI_NAME "/sbin/docker-init"

void report_tell(int report, char what, int code, const char *message, int terminal) {
  struct report r = {.what = what, .code = code};
  snprintf(r.message, sizeof r.message, "%s", message);
  struct iovec part = {.iov_base = &r, .iov_len = sizeof r};
  union {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } control = {0};
  struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
  if (terminal >= 0) {
    m.msg_control = control.bytes;
    m.msg_controllen = sizeof control.bytes;
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &terminal, sizeof terminal);
  }
  sendmsg(report, &m, MSG_NOSIGNAL);
}

/* A terminal of the container's own devpts; the master goes to the agent. Returns the slave or -1 with a message. */
static int open_terminal(const struct spec *spec, int report, bool first, char *message) {
  int unlock = 0, number = 0;
  int master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
  if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock) < 0 || ioctl(master, TIOCGPTN, &number) < 0)
    return fail(message, "open terminal: %s", strerror(errno)), -1;
  struct winsize size = {.ws_row = spec->rows, .ws_col = spec->columns};
  if (spec->rows != 0 && spec->columns != 0) ioctl(master, TIOCSWINSZ, &size);
  int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (slave < 0) return fail(message, "open terminal: %s", strerror(errno)), -1;
  char name[32];
  snprintf(name, sizeof name, "/dev/pts/%d", number);
  if (first && mount(name, "/dev/console", NULL, MS_BIND, NULL) < 0) return fail(message, "/dev/console: %s", strerror(errno)), -1;
  report_tell(report, 'T', 0, "", master);
  close(master);
  return slave;
}

bool take_stdio(int in, int out, int err, char *message) {
  /* dup2 of a descriptor onto itself would keep its close-on-exec bit */
  int from[3] = {in, out, err};
  for (int i = 0; i < 3; i++) {
    from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, 10);
    if (from[i] < 0) return fail(message, "stdio: %s", strerror(errno));
  }
  for (int i = 0; i < 3; i++)
    if (dup2(from[i], i) < 0) return fail(message, "stdio: %s", strerror(errno));
  return true;
}

/* HOME is the user's when the environment does not name it (runc). */
static void add_home(char **env, char *space, size_t size, const char *home) {
  size_t count = 0;
  for (; env[count] != NULL; count++)
    if (text_value(env[count], "HOME") != NULL) return;
  snprintf(space, size, "HOME=%s", home);
  env[count] = space; /* spec_parse left a place */
}

static int chdir_error(const char *cwd, char *message) {
  int error = errno;
  fail(message, "chdir to cwd (\"%.300s\") set in config.json failed: %s", cwd, error == ENOENT ? "no such file or directory" : error == EACCES ? "permission denied" : error == ENOTDIR ? "not a directory" : strerror(error));
  return error == EACCES ? 126 : 127;
}

/*
 * A rehearsal's: reads and maps a file of the image, as the program loader and its page faults will. None is run. The first that is there will do: it is the kernel's ways through
 * overlay, EROFS and persistent memory that are to be warm, not the file.
 */
static void map_a_file(void) {
  static const char *const names[] = {"/bin/sh", "/bin/busybox", "/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1", "/etc/passwd"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    struct stat st;
    char head[256];
    int fd = open(names[i], O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) continue;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && pread(fd, head, sizeof head, 0) > 0) {
      size_t size = st.st_size < MAPPED_MAX ? (size_t)st.st_size : MAPPED_MAX;
      volatile const char *bytes = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
      for (size_t at = 0; bytes != MAP_FAILED && at < size; at += 4096) (void)bytes[at];
      close(fd);
      return; /* its end unmaps it */
    }
    close(fd);
  }
}

void signals_reset(void) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  for (int s = 1; s < 65; s++) signal(s, SIG_DFL);
}

bool oom_score_apply(const struct spec *spec, char *message) {
  char text[16];
  if (!spec->has_oom_score_adj) return true;
  snprintf(text, sizeof text, "%d", spec->oom_score_adj);
  int error = file_write("/proc/self/oom_score_adj", text);
  return error == 0 || fail(message, "oom_score_adj %s: %s", text, strerror(-error));
}

/* Into the container's namespaces and its root. */
static bool enter(const struct spec *spec, int container, char *message) {
  if (container >= 0) return setns(container, CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP) == 0 || fail(message, "enter container: %s", strerror(errno));
  struct share shares[config.mounts.count + 1];
  if (unshare(CLONE_NEWCGROUP) < 0) return fail(message, "cgroup namespace: %s", strerror(errno));
  return shares_take(&config, shares, message) && container_enter(&config, message) && container_furnish(&config, shares, spec->cwd, spec->tty, message) &&
         container_hide(&config, message);
}

/* Everything up to the command. Returns as `become`. */
static int child(const struct spec *spec, int container, const struct stdio *pipes, int report, char *message) {
  bool first = container < 0;
  signals_reset();
  if (!oom_score_apply(spec, message)) return 126;
  const char *name = !first ? NULL : spec->rehearsal ? "/proc/self/exe" : config.init ? TINI : NULL;
  int program = name == NULL ? -1 : open(name, O_RDONLY | O_CLOEXEC);
  if (name != NULL && program < 0) return fail(message, "init: %s", strerror(errno)), 126;
  if (!enter(spec, container, message)) return 126;
  return become(spec, first, program, pipes, report, message);
}

int become(const struct spec *spec, bool first, int program, const struct stdio *pipes, int report, char *message) {
  struct identity who;
  if (!user_resolve(spec->user, &spec->groups, &who, message)) return 126;
  setsid();
  if (spec->tty) {
    int slave = open_terminal(spec, report, first, message);
    if (slave < 0) return 126;
    if (fchown(slave, who.uid, (gid_t)-1) < 0 || ioctl(slave, TIOCSCTTY, 0) < 0) return fail(message, "terminal: %s", strerror(errno)), 126;
    if (!take_stdio(slave, slave, slave, message)) return 126;
  } else {
    int in = spec->in ? pipes->in : open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (in < 0) return fail(message, "/dev/null: %s", strerror(errno)), 126;
    /* so that a user other than root may open /dev/stdout and /dev/stderr again (runc's fixStdioPermissions) */
    if (fchown(pipes->out, who.uid, (gid_t)-1) < 0 || fchown(pipes->err, who.uid, (gid_t)-1) < 0 ||
        (spec->in && fchown(in, who.uid, (gid_t)-1) < 0))
      return fail(message, "stdio: %s", strerror(errno)), 126;
    if (!take_stdio(in, pipes->out, pipes->err, message)) return 126;
  }
  umask(022);
  if (!rlimits_apply(spec, message)) return 126;
  /* As root first, for directories that only root may enter; then as the user (runc's finalizeNamespace). */
  int changed = chdir(spec->cwd);
  if (changed < 0 && errno != EACCES) return chdir_error(spec->cwd, message);
  if (!privilege_apply(spec, &who, message)) return 126;
  if (changed < 0 && chdir(spec->cwd) < 0) return chdir_error(spec->cwd, message);
  char home[300];
  add_home(spec->env, home, sizeof home, who.home);
  if (spec->rehearsal) map_a_file();
  report_tell(report, 'X', 0, "", -1);
  if (spec->rehearsal) {
    syscall(SYS_execveat, program, "", spec->args, spec->env, AT_EMPTY_PATH);
    return fail(message, "exec: %s", strerror(errno)), 126;
  }
  if (program < 0) return command_exec(spec, spec->env, message);
  size_t count = 0;
  while (spec->args[count] != NULL) count++;
  char *args[count + 3];
  args[0] = (char[]){TINI_NAME};
  args[1] = (char[]){"--"};
  memcpy(args + 2, spec->args, (count + 1) * sizeof *args);
  syscall(SYS_execveat, program, "", args, spec->env, AT_EMPTY_PATH);
  return fail(message, "init: %s", strerror(errno)), 126;
}

void close_all(const int *fds, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (fds[i] >= 0) close(fds[i]);
}

/* A container that is thrown away with its machine need not be taken apart first: what its last process would undo on its way out, mount by mount, is held until the machine's end. */
static int held[2] = {-1, -1};

void namespaces_hold(pid_t pid) {
  static const char *const names[] = {"mnt", "ipc"};
  for (int i = 0; i < 2; i++) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/%s", (int)pid, names[i]);
    held[i] = open(path, O_RDONLY | O_CLOEXEC);
  }
}

void namespaces_release(void) { close_all(held, 2), held[0] = held[1] = -1; }

pid_t clone_into(int cgroup, uint64_t flags, int *pidfd) {
  struct clone_args args = {.flags = flags | CLONE_PIDFD | CLONE_INTO_CGROUP,
                            .pidfd = (uint64_t)(uintptr_t)pidfd,
                            .exit_signal = SIGCHLD,
                            .cgroup = (uint64_t)cgroup};
  return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

bool spawn(const struct spec *spec, int container, struct started *out, int *code, char *message) {
  /* in 0-1, out 2-3, err 4-5, report 6-7; ours and theirs in turn where it matters below */
  int f[9] = {-1, -1, -1, -1, -1, -1, -1, -1, -1};
  *code = 125;
  *out = (struct started){.pid = -1, .pidfd = -1, .report = -1, .in = -1, .out = -1, .err = -1};
  if (container < 0 && waiting_take(spec, out)) return true;
  bool ok = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, f + 6) == 0;
  if (ok && !spec->tty) ok = (!spec->in || pipe2(f, O_CLOEXEC) == 0) && pipe2(f + 2, O_CLOEXEC) == 0 && pipe2(f + 4, O_CLOEXEC) == 0;
  f[8] = ok ? cgroup_open() : -1;
  if (!ok || f[8] < 0) {
    fail(message, "%s", strerror(errno));
    close_all(f, 9);
    return false;
  }
  struct stdio pipes = {.in = f[0], .out = f[3], .err = f[5]};
  int own = -1;
  uint64_t flags = CONTAINER_NAMESPACES;
  if (container >= 0) {
    /* The next child is born in the container's pid namespace and still is ours; then back. */
    flags = 0;
    own = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
    if (own < 0 || setns(container, CLONE_NEWPID) < 0) {
      if (own >= 0) close(own);
      close_all(f, 9);
      return fail(message, "container is not running");
    }
  }
  out->pid = clone_into(f[8], flags, &out->pidfd);
  if (out->pid == 0) {
    *code = child(spec, container, &pipes, f[7], message);
    report_tell(f[7], 'F', *code, message, -1);
    _exit(*code);
  }
  int error = errno;
  if (own >= 0) {
    if (setns(own, CLONE_NEWPID) < 0) die("back to the own pid namespace: %s", strerror(errno));
    close(own);
  }
  if (container < 0 && out->pid > 0 && !spec->rehearsal && config.ephemeral && !shares_any(&config)) namespaces_hold(out->pid);
  int theirs[] = {f[0], f[3], f[5], f[7], f[8]}, ours[] = {f[1], f[2], f[4], f[6]};
  close_all(theirs, 5);
  if (out->pid < 0) {
    close_all(ours, 4);
    return fail(message, "cannot start a process: %s", strerror(error));
  }
  for (int i = 0; i < 4; i++)
    if (ours[i] >= 0) fcntl(ours[i], F_SETFL, O_NONBLOCK);
  out->in = f[1];
  out->out = f[2];
  out->err = f[4];
  out->report = f[6];
  return true;
}
