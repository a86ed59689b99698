/* As much of QMP as it takes to have QEMU load a template: greeting, capabilities, migrate-incoming, and device_add for the one device that no template has (docs/interop/qmp-spec in QEMU). Closed before the guest
 * gets anything of a workload's, so a VMM that is taken over finds no use in it; nevertheless nothing that comes is believed or kept beyond its bound. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vmm.h"

#define LINE_MAX_BYTES 16384u

static struct watch qmp = {.fd = -1};
static struct bytes in = {.max = LINE_MAX_BYTES}, out = {.max = 1024};
static int step, state_fd;
static bool shares; /* a file server is connected: its device comes when the template has been loaded */

/* What is said after the greeting and after each answer. */
static void say_next(void) {
  char text[256] = "";
  switch (step++) {
    case 0: snprintf(text, sizeof text, "{\"execute\":\"qmp_capabilities\"}\n"); break;
    case 1:
      /* The memory is a file that QEMU has mapped: only devices are in the state. */
      snprintf(text, sizeof text, "{\"execute\":\"migrate-set-capabilities\",\"arguments\":{\"capabilities\":[{\"capability\":\"x-ignore-shared\",\"state\":true}]}}\n");
      break;
    case 2:
      /* A machine that has moved tells its new network where it is, eight times by broadcast: this one is new, nobody knows it, and hundreds of others would wake up each time. */
      snprintf(text, sizeof text, "{\"execute\":\"migrate-set-parameters\",\"arguments\":{\"announce-rounds\":0}}\n");
      break;
    case 3: snprintf(text, sizeof text, "{\"execute\":\"migrate-incoming\",\"arguments\":{\"uri\":\"fd:%d\"}}\n", state_fd); break;
    case 4:
      /* It loads, and the guest goes on by itself (the event RESUME); if it cannot, QEMU ends. */
      if (!shares) link_restored();
      return;
    case 5:
      /* A device whose state cannot be saved (docs/decisions/0013-templates.md) must not be there while another one's is loaded. */
      snprintf(text, sizeof text, "{\"execute\":\"device_add\",\"arguments\":{\"driver\":\"vhost-user-fs-pci\",\"bus\":\"later\",\"addr\":\"1\",\"chardev\":\"shares\",\"tag\":\"hull\",\"queue-size\":512}}\n");
      break;
    default: link_restored(); return;
  }
  bytes_put(&out, text, strlen(text));
}

/* The text of "desc" in an error, without what would need unquoting. */
static void failed(const char *line) {
  char message[300];
  const char *text = strstr(line, "\"desc\": \"");
  size_t size = text == NULL ? 0 : strcspn(text += 9, "\"\\");
  /* The first blames the template (src/sandbox/vm/errors.ts), which is not used again. */
  const char *what = step <= 5 ? "load the template" : "use the file server of the mounts";
  snprintf(message, sizeof message, "QEMU cannot %s%s%.*s", what, text == NULL ? "" : ": ", (int)(size > 200 ? 200 : size), text == NULL ? "" : text);
  for (char *c = message; *c != 0; c++)
    if ((unsigned char)*c < ' ' || *c == 127) *c = '?';
  finish(125, false, message);
}

static void on_line(const char *line) {
  if (strncmp(line, step == 0 ? "{\"QMP\":" : "{\"return\":", step == 0 ? 7 : 10) == 0) say_next();
  else if (strncmp(line, "{\"error\":", 9) == 0) failed(line);
  else if (step == 5 && strstr(line, "\"event\": \"RESUME\"") != NULL) say_next();
  /* else an event */
}

static void ready(struct watch *w, uint32_t events) {
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) return;
  uint8_t *space = bytes_space(&in, bytes_room(&in));
  if (space == NULL || bytes_room(&in) < 2) {
    finish(125, false, "QEMU cannot load the template: no end of its answer");
    return;
  }
  ssize_t n = read(w->fd, space, bytes_room(&in) - 1);
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (n <= 0) {
    qmp_close(); /* it ends: SIGCHLD tells how */
    return;
  }
  bytes_commit(&in, (size_t)n);
  while (qmp.fd >= 0 && machine.state == RESTORING) {
    const uint8_t *head = bytes_head(&in), *end = in.length == 0 ? NULL : memchr(head, '\n', in.length);
    if (end == NULL) return;
    char line[LINE_MAX_BYTES];
    size_t size = (size_t)(end - head);
    memcpy(line, head, size);
    line[size] = 0;
    bytes_drop(&in, size + 1);
    on_line(line);
  }
}

void qmp_open(int fd, int state, bool with_shares) {
  state_fd = state;
  shares = with_shares;
  fcntl(fd, F_SETFL, O_NONBLOCK);
  watch_init(&qmp, fd, ready);
  watch_set(&qmp, EPOLLIN);
}

void qmp_update(void) {
  if (qmp.fd < 0) return;
  if (!bytes_write(&out, qmp.fd)) {
    qmp_close();
    return;
  }
  watch_set(&qmp, EPOLLIN | (out.length > 0 ? EPOLLOUT : 0u));
}

void qmp_close(void) {
  if (qmp.fd < 0) return;
  watch_close(&qmp);
  bytes_free(&in);
  bytes_free(&out);
}
