/* Streams of the link: the container's main process, exec sessions, queries. Output is read from a pipe only when the receiver has
 * room for it, so nothing here grows and no stream holds up another. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "agent.h"

#define MAIN_STREAM 1u
#define CHUNK 65536u
#define HUNG_MS 100
#define FLUSH_MS 2000 /* exec sessions whose reader is slow get so long after the container's end */

enum state { STARTING, RUNNING, FAILED };

struct session {
  struct watch in, out, err, report;
  struct session *next;
  uint32_t stream;
  enum state state;
  bool tty, execing, reaped, closed, stdin_eof, done;
  bool socket, eof_told; /* a connection of the guest to a socket of the host; STARTING: it waits for one */
  uint32_t index;
  bool files, freeze; /* hull-files, and the container stands still for it */
  pid_t pid;
  int pidfd, code, fail_code;
  struct bytes input; /* STDIN that the workload has not taken yet */
  uint32_t handed;    /* … and what it took since the last WINDOW */
  uint64_t credit;    /* bytes of output that may be sent */
  int64_t hung_until; /* do not ask a terminal without slaves before */
  uint64_t signals;   /* that came before the start */
  struct bytes reply; /* of a query */
  bool query;
  char message[MESSAGE_MAX];
};

static struct session *sessions;
static size_t session_count;
static int main_pidfd = -1;
static pid_t main_pid = -1;
static bool main_started, main_over, main_told;
static int64_t flush_limit;

#define OWNER(watch, member) ((struct session *)(void *)((char *)(watch)-offsetof(struct session, member)))

int container_pidfd(void) { return main_pidfd; }
pid_t container_pid(void) { return main_pid; }
bool container_over(void) { return main_over; }

struct session *session_find(uint32_t stream) {
  for (struct session *s = sessions; s != NULL; s = s->next)
    if (s->stream == stream && !s->done) return s;
  return NULL;
}

static struct session *session_new(uint32_t stream) {
  if (session_count >= SESSIONS_MAX) return NULL;
  struct session *s = calloc(1, sizeof *s);
  if (s == NULL) return NULL;
  s->stream = stream;
  s->pid = s->pidfd = -1;
  s->in.fd = s->out.fd = s->err.fd = s->report.fd = -1;
  s->credit = WINDOW_START;
  s->input.max = WINDOW_START;
  s->reply.max = 262144;
  s->next = sessions;
  sessions = s;
  session_count++;
  return s;
}

static void session_end(struct session *s) {
  watch_close(&s->in);
  watch_close(&s->out);
  watch_close(&s->err);
  watch_close(&s->report);
  if (s->pidfd >= 0) close(s->pidfd);
  if (s->stream == MAIN_STREAM) main_pidfd = main_pid = -1;
  if (s->freeze) files_freeze(false);
  s->pidfd = -1;
  bytes_free(&s->input);
  bytes_free(&s->reply);
  s->done = true; /* freed by sessions_update, when no event of this round can name it */
}

static void deliver(struct session *s, int signal) {
  /* An exec session leads its process group (setsid), and its number is not free before it is reaped. */
  if (signal == SIGKILL && s->stream != MAIN_STREAM && s->pid > 1 && !s->reaped) kill(-s->pid, SIGKILL);
  if (s->pidfd >= 0 && !s->reaped) syscall(SYS_pidfd_send_signal, s->pidfd, signal, NULL, 0);
}

/* ---- output ---- */

/* Moves what it can of one pipe. At the end of the file, or when the process is gone and nothing is left in it, closes it. */
static void pump(struct session *s, struct watch *w, uint8_t type) {
  uint8_t scratch[4096];
  while (w->fd >= 0) {
    size_t room = link_room();
    if (room > CHUNK) room = CHUNK;
    if (room > s->credit) room = (size_t)s->credit;
    if (s->closed) room = sizeof scratch;
    if (room == 0) return;
    uint8_t *space = s->closed ? scratch : link_data_space(room);
    if (space == NULL) return;
    ssize_t n = read(w->fd, space, room);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN && !s->reaped) return;
    if (n <= 0) { /* EIO: the last slave of a terminal was closed. EAGAIN after the end: a daemon holds the pipe open */
      if (n < 0 && s->tty && !s->reaped) {
        s->hung_until = now_ms() + HUNG_MS; /* no slave open at this moment; there may be one again until the process ends */
        return;
      }
      watch_close(w);
      return;
    }
    if (s->closed) continue;
    s->credit -= (uint64_t)n;
    link_data_send(type, 0, s->stream, (size_t)n);
    if (!s->reaped) return; /* fair to the other streams: the loop comes back */
  }
}

static void out_ready(struct watch *w, uint32_t events) {
  (void)events;
  pump(OWNER(w, out), w, F_STDOUT);
}

static void err_ready(struct watch *w, uint32_t events) {
  (void)events;
  pump(OWNER(w, err), w, F_STDERR);
}

/* ---- input ---- */

static void send_window(struct session *s, size_t handed) {
  uint8_t payload[4];
  s->handed += (uint32_t)handed;
  if (s->handed < WINDOW_STEP) return;
  put_u32(payload, s->handed);
  link_send(F_WINDOW, s->stream, payload, sizeof payload);
  s->handed = 0;
}

static void push_input(struct session *s) {
  size_t before = s->input.length;
  if (s->in.fd >= 0 && before > 0 && !bytes_write(&s->input, s->in.fd)) watch_close(&s->in); /* EPIPE: it closed its stdin */
  if (s->in.fd < 0 && s->input.length > 0) bytes_drop(&s->input, s->input.length);
  send_window(s, before - s->input.length);
  if (s->socket && s->in.fd >= 0 && s->input.length == 0 && s->stdin_eof) shutdown(s->in.fd, SHUT_WR);
  if (s->input.length == 0 && s->stdin_eof && !s->tty) watch_close(&s->in);
  watch_set(&s->in, s->input.length > 0 ? EPOLLOUT : 0);
}

static void in_ready(struct watch *w, uint32_t events) {
  (void)events;
  push_input(OWNER(w, in));
}

void session_stdin(struct session *s, const uint8_t *data, uint32_t size) {
  if (s->query || s->handed + s->input.length + size > WINDOW_START) die("stdin beyond its window");
  if (s->state == RUNNING && s->in.fd < 0) { /* nobody reads: as if it had */
    send_window(s, size);
    return;
  }
  if (!bytes_put(&s->input, data, size)) die("out of memory");
  if (s->state == RUNNING) push_input(s);
}

void session_stdin_eof(struct session *s) {
  s->stdin_eof = true;
  if (s->state == RUNNING) push_input(s);
}

/* ---- control ---- */

void session_window(struct session *s, uint32_t bytes) {
  if (s->credit < (1u << 30)) s->credit += bytes;
}

void session_resize(struct session *s, uint16_t rows, uint16_t columns) {
  struct winsize size = {.ws_row = rows, .ws_col = columns};
  if (s->tty && s->out.fd >= 0) ioctl(s->out.fd, TIOCSWINSZ, &size);
}

void session_signal(struct session *s, int signal) {
  if (s->query || signal < 1 || signal > 64) return;
  if (s->stream == MAIN_STREAM) main_told = true;
  if (s->state == STARTING) s->signals |= (uint64_t)1 << (signal - 1);
  else deliver(s, signal);
}

void session_close(struct session *s) {
  s->closed = true;
  if (s->query || s->socket) session_end(s);
  else session_stdin_eof(s);
}

/* ---- start ---- */

static void got_terminal(struct session *s, int master) {
  watch_init(&s->out, master, out_ready);
  watch_init(&s->in, fcntl(master, F_DUPFD_CLOEXEC, 0), in_ready);
}

static void got_started(struct session *s) {
  char text[64];
  s->state = RUNNING;
  if (s->stream == MAIN_STREAM) {
    main_started = true;
    pressure_watch();
  }
  link_send(F_STARTED, s->stream, text, text_put_number(text, 0, sizeof text, "pid", (uint64_t)s->pid));
  for (int i = 0; i < 64; i++)
    if ((s->signals >> i & 1) != 0) deliver(s, i + 1);
  push_input(s);
}

/* Takes what the new process tells; at the end of it the process is the command, or it failed. */
static void report_ready(struct watch *w, uint32_t events) {
  (void)events;
  struct session *s = OWNER(w, report);
  struct report r;
  union {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } control;
  while (w->fd >= 0) {
    struct iovec part = {.iov_base = &r, .iov_len = sizeof r};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(w->fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n != sizeof r) { /* closed: by exec or by death */
      watch_close(w);
      break;
    }
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    int fd = -1;
    if (c != NULL && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) memcpy(&fd, CMSG_DATA(c), sizeof fd);
    r.message[MESSAGE_MAX - 1] = 0;
    if (r.what == 'T' && fd >= 0 && s->out.fd < 0) got_terminal(s, fd);
    else if (fd >= 0) close(fd);
    if (r.what == 'X') s->execing = true;
    if (r.what != 'F') continue;
    s->state = FAILED;
    s->fail_code = r.code;
    memcpy(s->message, r.message, sizeof s->message);
  }
  if (s->state != STARTING) return;
  if (s->execing) {
    got_started(s);
  } else {
    s->state = FAILED;
    s->fail_code = 125;
    fail(s->message, "the process ended while it was being set up");
  }
}

void session_run(uint32_t stream, uint8_t type, char *text, size_t size) {
  char message[MESSAGE_MAX] = "";
  struct spec spec;
  struct started started;
  int code = 125;
  bool first = type == F_RUN;
  if (!first && (!main_started || main_pidfd < 0)) {
    free(text);
    link_failed(stream, 125, "container is not running");
    return;
  }
  bool ok = spec_parse(&spec, text, size, message);
  struct session *s = ok ? session_new(stream) : NULL;
  if (ok && s == NULL) ok = fail(message, "too many exec sessions");
  if (ok && spec.freeze) files_freeze(s->freeze = true);
  if (ok) ok = (spec.files ? spawn_files : spawn)(&spec, first ? -1 : main_pidfd, &started, &code, message);
  if (ok) {
    s->files = spec.files;
    s->tty = spec.tty;
    s->pid = started.pid;
    s->pidfd = started.pidfd;
    watch_init(&s->in, started.in, in_ready);
    watch_init(&s->out, started.out, out_ready);
    watch_init(&s->err, started.err, err_ready);
    watch_init(&s->report, started.report, report_ready);
    watch_set(&s->report, EPOLLIN);
    if (first) {
      main_pidfd = s->pidfd;
      main_pid = s->pid;
    }
  } else {
    if (s != NULL) session_end(s);
    if (first) main_over = true;
    link_failed(stream, code, message);
  }
  spec_free(&spec);
}

void session_query(uint32_t stream, const char *text, size_t size) {
  const char *what = text_find(text, size, "what");
  if (what == NULL) what = "";
  struct session *s = session_new(stream);
  if (s == NULL) {
    link_failed(stream, 125, "too many sessions");
    return;
  }
  s->query = true;
  s->state = RUNNING;
  if (strcmp(what, "top") == 0) query_top(&s->reply);
  else if (strcmp(what, "stats") == 0) query_stats(&s->reply);
  else if (strcmp(what, "update") == 0) query_update(&s->reply, text, size);
  else if (strcmp(what, "network") == 0) query_network(&s->reply, text, size);
}

/* ---- connections to sockets of the host ---- */

void session_accept(uint32_t stream, uint32_t index) {
  struct session *s = socket_known(index) ? session_new(stream) : NULL;
  if (s == NULL) {
    link_failed(stream, 125, "no such socket, or too many sessions");
    return;
  }
  s->socket = true;
  s->index = index;
}

static struct session *waiting(uint32_t index) {
  struct session *found = NULL;
  for (struct session *s = sessions; s != NULL; s = s->next)
    if (s->socket && !s->done && s->state == STARTING && s->index == index) found = s; /* the oldest is the last */
  return found;
}

bool session_waits(uint32_t index) { return waiting(index) != NULL; }

void session_connected(uint32_t index, int fd) {
  struct session *s = waiting(index);
  int other = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (s == NULL || other < 0) {
    if (other >= 0) close(other);
    close(fd);
    return;
  }
  watch_init(&s->out, fd, out_ready);
  watch_init(&s->in, other, in_ready);
  got_started(s);
}

static void update_socket(struct session *s) {
  if (s->state != RUNNING) return;
  if (s->out.fd < 0 && !s->eof_told) {
    s->eof_told = true;
    link_send(F_STDERR, s->stream, "", 0);
  }
  if (s->out.fd < 0 && s->in.fd < 0) {
    link_exit(s->stream, 0, false);
    session_end(s);
    return;
  }
  watch_set(&s->out, s->credit > 0 && link_room() > 0 ? EPOLLIN : 0);
}

/* ---- end ---- */

void session_reaped(pid_t pid, int status) {
  for (struct session *s = sessions; s != NULL; s = s->next) {
    if (s->query || s->done || s->pid != pid) continue;
    if (s->report.fd >= 0) report_ready(&s->report, 0);
    s->reaped = true;
    s->code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    if (s->stream == MAIN_STREAM) {
      main_pidfd = -1;
      main_pid = -1;
      for (struct session *other = sessions; other != NULL; other = other->next)
        if (other->files && !other->done) deliver(other, SIGKILL); /* it holds the disk */
      cgroup_kill(); /* the pid namespace is gone with its first process; whoever was about to enter it goes too */
      flush_limit = now_ms() + FLUSH_MS;
    }
    return;
  }
}

static bool others_left(void) {
  for (struct session *s = sessions; s != NULL; s = s->next)
    if (!s->query && !s->socket && !s->done && s->stream != MAIN_STREAM) return true;
  return false;
}

static void update_query(struct session *s) {
  while (link_room() >= FRAME_MAX) {
    size_t size = s->reply.length < FRAME_MAX ? s->reply.length : FRAME_MAX;
    uint8_t *space = link_data_space(size);
    if (space == NULL) return;
    if (size > 0) memcpy(space, bytes_head(&s->reply), size);
    bool more = s->reply.length > size;
    link_data_send(F_REPLY, more ? FLAG_MORE : 0, s->stream, size);
    if (size > 0) bytes_drop(&s->reply, size);
    if (more) continue;
    session_end(s);
    return;
  }
}

static void update_process(struct session *s) {
  if (s->state == STARTING) return;
  if (s->state == FAILED) {
    if (!s->reaped) return;
    if (s->stream == MAIN_STREAM) main_over = true;
    link_failed(s->stream, s->fail_code, s->message);
    session_end(s);
    return;
  }
  if (s->reaped) {
    pump(s, &s->out, F_STDOUT);
    pump(s, &s->err, F_STDERR);
    bool late = s->stream != MAIN_STREAM && flush_limit != 0 && now_ms() >= flush_limit;
    if ((s->out.fd < 0 && s->err.fd < 0) || late) {
      if (s->stream == MAIN_STREAM && others_left()) return;
      bool oom = s->stream == MAIN_STREAM && cgroup_oom();
      if (s->stream == MAIN_STREAM) {
        main_over = true;
        /* Who was told to end may be started again, with its disk: `docker restart` of a container with --rm. */
        if (config.ephemeral && !main_told) shares_unmount();
        else root_unmount();
      }
      link_exit(s->stream, s->code, oom);
      session_end(s);
      return;
    }
  }
  bool hung = s->hung_until != 0 && now_ms() < s->hung_until;
  uint32_t events = !hung && (s->closed || (s->credit > 0 && link_room() > 0)) ? EPOLLIN : 0;
  watch_set(&s->out, events);
  watch_set(&s->err, events);
}

int sessions_update(void) {
  int timeout = -1;
  /* twice: the end of an exec session may be what the main one waits for */
  for (int round = 0; round < 2; round++)
    for (struct session *s = sessions; s != NULL; s = s->next) {
      if (s->done) continue;
      if (s->query) update_query(s);
      else if (s->socket) update_socket(s);
      else update_process(s);
    }
  for (struct session **at = &sessions; *at != NULL;) {
    struct session *s = *at;
    if (!s->done && ((s->reaped && flush_limit != 0) || s->hung_until > now_ms())) timeout = HUNG_MS;
    if (!s->done) {
      at = &s->next;
      continue;
    }
    *at = s->next;
    session_count--;
    free(s);
  }
  sockets_update();
  return timeout;
}
