/* The machine's state for those who ask, and for those who come later. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vmm.h"

size_t status_text(char *out, size_t capacity) {
  size_t size = text_put(out, 0, capacity, "state", machine.state == RUNNING ? "running" : machine.state == WAITING ? "waiting" : machine.state >= HALTING ? "exited" : "booting");
  if (qemu_pid() > 0) size = text_put_number(out, size, capacity, "pid", (uint64_t)qemu_pid());
  size = text_put(out, size, capacity, "kernel", machine.kernel);
  size = text_put(out, size, capacity, "agent", machine.agent);
  size = text_put(out, size, capacity, "bootid", machine.bootid);
  size = text_put_number(out, size, capacity, "landlock", (uint64_t)landlock_version());
  if (machine.state < HALTING) return size;
  size = text_put_number(out, size, capacity, "code", (uint64_t)machine.code);
  size = text_put_number(out, size, capacity, "oom", machine.oom);
  if (machine.message[0] != 0) size = text_put(out, size, capacity, "message", machine.message);
  return size;
}

void status_write(void) {
  char text[MESSAGE_MAX + 64];
  int size = snprintf(text, sizeof text, "code=%d\noom=%d\n", machine.code, machine.oom);
  if (machine.message[0] != 0) size += snprintf(text + size, sizeof text - (size_t)size, "message=%s\n", machine.message);
  int fd = open("status.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return;
  bool ok = write(fd, text, (size_t)size) == size;
  close(fd);
  if (ok) rename("status.new", "status");
}
