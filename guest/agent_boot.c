/* From the kernel's hand-over to an open port: mounts, modules, the virtio-serial port named "hull". */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent.h"

#define PORT_WAIT_MS 20000

static void log_line(const char *format, va_list args) {
  char line[512] = "<3>hull-agent: ";
  size_t used = strlen(line);
  vsnprintf(line + used, sizeof line - used, format, args);
  int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) return;
  if (write(fd, line, strlen(line)) < 0) { /* there is nobody else to tell */
  }
  close(fd);
}

void say(const char *format, ...) {
  va_list args;
  va_start(args, format);
  log_line(format, args);
  va_end(args);
}

void die(const char *format, ...) {
  va_list args;
  va_start(args, format);
  log_line(format, args);
  va_end(args);
  sync();
  /* PID 1's exit is a panic, and panic=-1 ends the machine at once. Not reboot(2): it asks each driver first, and that of a clone's persistent memory waits for an answer that never comes
   * (docs/decisions/0020-images-as-memory.md). */
  _exit(1);
}

static void must_mount(const char *type, const char *target, unsigned long flags, const char *data) {
  mkdir(target, 0755);
  if (mount(type, target, type, flags, data) < 0 && errno != EBUSY) die("mount %s: %s", target, strerror(errno));
}

/* The initial root file system cannot be pivoted away from because it is not mounted on anything
 * (pivot_root(2), EINVAL). Bound over itself it can. */
static void movable_root(void) {
  mkdir("/base", 0755);
  if (mount("/", "/base", NULL, MS_BIND, NULL) < 0 || chdir("/base") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
      chdir("/") < 0)
    die("root: %s", strerror(errno));
}

bool load_modules(const char *file, char *message) {
  char list[4096];
  ssize_t size = file_read(file, list, sizeof list, true);
  if (size < 0) return fail(message, "%s: %s", file, strerror((int)-size));
  char *rest = NULL;
  for (char *name = strtok_r(list, "\n", &rest); name != NULL; name = strtok_r(NULL, "\n", &rest)) {
    char path[256];
    snprintf(path, sizeof path, "/modules/%s", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) continue; /* loaded before */
    if (fd < 0) return fail(message, "%s: %s", path, strerror(errno));
    if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST) {
      fail(message, "%s: %s", path, strerror(errno));
      close(fd);
      return false;
    }
    close(fd);
    unlink(path); /* its memory is worth more than the file */
  }
  return true;
}

/* Opens the port named "hull" if the host has announced it yet; -1 otherwise. */
static int find_port(void) {
  DIR *dir = opendir("/sys/class/virtio-ports");
  if (dir == NULL) return -1;
  int fd = -1;
  for (struct dirent *entry; fd < 0 && (entry = readdir(dir)) != NULL;) {
    char path[320], name[32];
    if (entry->d_name[0] == '.') continue;
    snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
    if (file_read(path, name, sizeof name, false) <= 0) continue;
    name[strcspn(name, "\n")] = 0;
    if (strcmp(name, "hull") != 0) continue;
    snprintf(path, sizeof path, "/dev/%s", entry->d_name);
    fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
  }
  closedir(dir);
  return fd;
}

static int open_port(void) {
  int64_t limit = now_ms() + PORT_WAIT_MS;
  int fd = -1;
  while (now_ms() < limit) {
    if (fd < 0) fd = find_port();
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    /* POLLHUP until the host's end is announced as open */
    if (fd >= 0 && poll(&p, 1, 0) > 0 && (p.revents & POLLOUT) != 0 && (p.revents & POLLHUP) == 0) return fd;
    usleep(1000);
  }
  die("no virtio-serial port named \"hull\"");
}

int boot(void) {
  umask(022);
  movable_root();
  must_mount("devtmpfs", "/dev", MS_NOSUID | MS_NOEXEC, "mode=0755");
  int null = open("/dev/null", O_RDWR);
  for (int fd = 0; fd < 3; fd++)
    if (null >= 0 && null != fd) dup2(null, fd);
  if (null > 2) close(null);
  must_mount("proc", "/proc", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL);
  must_mount("sysfs", "/sys", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL);
  char message[MESSAGE_MAX];
  if (!load_modules("/modules/list", message)) die("%s", message);
  /* A word of the kernel's command line that it does not know itself. */
  if (getenv("hull_template") != NULL && !load_modules("/modules/shares", message)) die("%s", message);
  must_mount("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755,size=16m");
  must_mount("cgroup2", DIR_CGROUP, MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL);
  /* What is the same for every container, before HELLO: a clone of a template finds it done. */
  seed_prepare();
  cgroup_prepare();
  net_prepare();
  pressure_prepare();
  etc_prepare();
  if (disk_prepare()) waiting_prepare();
  /* Else kcompactd wakes up twice a second to look whether memory is in order: half of all that an idle machine does. It still comes when it is called. */
  file_write("/proc/sys/vm/compaction_proactiveness", "0");
  return open_port();
}
