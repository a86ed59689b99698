/*
 * The host's side: a process with the token for a name, a line with it in the kernel's log, and a disk that has it as label and in a file's name. The disk is memory, read-only, behind a
 * loop device that goes with its last user: whatever becomes of hull compare, the end of its pipe ends this process, and with it all that was planted but the line in the log.
 */
#include "drills.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define DISK_SIZE (1 << 20)

static const char *log_token(const char *token) {
  char line[100];
  int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return strerror(errno);
  int n = snprintf(line, sizeof line, "<6>hull compare: marker of a drill: %s\n", token);
  const char *why = write(fd, line, (size_t)n) < 0 ? strerror(errno) : "";
  close(fd);
  return why;
}

/* An ext2 file system on fd. */
static bool format(int fd, const char *token) {
  char dir[] = "/tmp/hull-drill.XXXXXX", file[64], disk[32];
  if (mkdtemp(dir) == NULL) return false;
  snprintf(file, sizeof file, "%s/%s", dir, token);
  snprintf(disk, sizeof disk, "/proc/self/fd/%d", fd);
  bool made = mkdir(file, 0700) == 0;
  int status = -1;
  pid_t child = made ? fork() : -1;
  if (child == 0) {
    int null = open("/dev/null", O_RDWR);
    dup2(null, 0);
    dup2(null, 1);
    dup2(null, 2);
    fcntl(fd, F_SETFD, 0);
    execlp("mke2fs", "mke2fs", "-q", "-F", "-t", "ext2", "-L", token, "-d", dir, disk, "1024k", (char *)NULL);
    execl("/usr/sbin/mke2fs", "mke2fs", "-q", "-F", "-t", "ext2", "-L", token, "-d", dir, disk, "1024k", (char *)NULL);
    _exit(127);
  }
  if (child > 0) waitpid(child, &status, 0);
  rmdir(file);
  rmdir(dir);
  return child > 0 && status == 0;
}

/* A descriptor that keeps the disk, -1: none, and why. */
static int plant_disk(const char *token, dev_t *device, const char **why) {
  char name[40];
  snprintf(name, sizeof name, "hull-drill %s", token); /* what losetup shows */
  int memory = memfd_create(name, MFD_CLOEXEC), control = -1, loop = -1;
  *why = "no file system could be made: mke2fs (e2fsprogs) is missing or failed";
  if (memory >= 0 && ftruncate(memory, DISK_SIZE) == 0 && format(memory, token)) {
    control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    *why = control < 0 ? "no loop devices: /dev/loop-control cannot be opened" : "no loop device could be had";
  }
  for (int attempts = 0; control >= 0 && loop < 0 && attempts < 16; attempts++) {
    char path[32];
    struct stat st;
    int n = ioctl(control, LOOP_CTL_GET_FREE);
    if (n < 0) break;
    snprintf(path, sizeof path, "/dev/loop%d", n);
    loop = open(path, O_RDONLY | O_CLOEXEC);
    if (loop < 0) break;
    struct loop_config config = {.fd = (unsigned)memory, .info = {.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR}};
    snprintf((char *)config.info.lo_file_name, LO_NAME_SIZE, "%s", name);
    if (fstat(loop, &st) < 0 || !S_ISBLK(st.st_mode) || ioctl(loop, LOOP_CONFIGURE, &config) < 0) {
      close(loop); /* EBUSY: somebody else was faster */
      loop = -1;
    } else *device = st.st_rdev;
  }
  if (control >= 0) close(control);
  if (memory >= 0) close(memory);
  return loop;
}

int host_side(const char *token) {
  struct result check = {0};
  find_tokens(&check, token, strlen(token));
  if (strlen(token) != TOKEN_LENGTH || strcmp(check.tokens, token) != 0) {
    fprintf(stderr, "hull-drills: a token is " TOKEN_PREFIX " and 12 hexadecimal digits\n");
    return 2;
  }
  dev_t device = 0;
  const char *disk_why = "", *log_why = log_token(token);
  prctl(PR_SET_NAME, token);
  int loop = plant_disk(token, &device, &disk_why);
  if (loop >= 0) printf("{\"device\":\"%u:%u\",\"log\":\"%s\"}\n", major(device), minor(device), log_why);
  else printf("{\"device\":\"\",\"why\":\"%s\",\"log\":\"%s\"}\n", disk_why, log_why);
  fflush(stdout);
  char byte;
  while (read(0, &byte, 1) > 0 || errno == EINTR) errno = 0;
  return 0;
}
