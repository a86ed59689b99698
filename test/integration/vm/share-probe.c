/* What a file system must do for programs to be content with it; run inside a VM on a shared directory. One line a check: "name ok" or "name WHY". */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static void say(const char *name, int good) { printf("%s %s\n", name, good ? "ok" : strerrorname_np(errno ? errno : EPROTO)); errno = 0; }

static int owner(void) {
  struct stat st;
  int fd = open("owned", O_CREAT | O_EXCL | O_WRONLY, 0600);
  return fd >= 0 && fchown(fd, 1234, 5678) == 0 && fchmod(fd, 04751) == 0 && fstat(fd, &st) == 0 && st.st_uid == 1234 && st.st_gid == 5678 &&
         (st.st_mode & 07777) == 04751 && close(fd) == 0;
}

static int large(void) {
  char got[6] = "";
  struct stat st;
  int fd = open("large", O_CREAT | O_RDWR, 0644);
  return fd >= 0 && pwrite(fd, "far", 3, 5LL << 30) == 3 && fsync(fd) == 0 && pread(fd, got, 5, 5LL << 30) == 3 && strcmp(got, "far") == 0 && fstat(fd, &st) == 0 &&
         st.st_size == (5LL << 30) + 3 && ftruncate(fd, 10) == 0 && fstat(fd, &st) == 0 && st.st_size == 10 && posix_fallocate(fd, 0, 100000) == 0 && close(fd) == 0;
}

static int attributes(void) {
  char value[16] = "";
  return setxattr("owned", "user.hull", "value", 5, 0) == 0 && getxattr("owned", "user.hull", value, sizeof value) == 5 && memcmp(value, "value", 5) == 0 &&
         removexattr("owned", "user.hull") == 0 && getxattr("owned", "user.hull", value, sizeof value) < 0 && errno == ENODATA;
}

static int links(void) {
  struct stat a, b;
  char to[32] = "";
  return link("owned", "second") == 0 && stat("owned", &a) == 0 && stat("second", &b) == 0 && a.st_ino == b.st_ino && b.st_nlink == 2 && symlink("../x/y", "soft") == 0 &&
         readlink("soft", to, sizeof to) == 6 && unlink("owned") == 0 && stat("second", &b) == 0 && b.st_nlink == 1;
}

static int renames(void) {
  close(open("from", O_CREAT | O_WRONLY, 0644));
  close(open("to", O_CREAT | O_WRONLY, 0644));
  return renameat2(AT_FDCWD, "from", AT_FDCWD, "to", RENAME_NOREPLACE) < 0 && errno == EEXIST && rename("from", "to") == 0 && access("from", F_OK) < 0 && mkdir("d1", 0755) == 0 &&
         mkdir("d1/in", 0755) == 0 && rename("d1", "d2") == 0 && access("d2/in", F_OK) == 0 && rmdir("d2") < 0 && errno == ENOTEMPTY;
}

static int mapped(void) {
  char got[4] = "";
  int fd = open("mapped", O_CREAT | O_RDWR, 0644);
  if (fd < 0 || ftruncate(fd, 8192) < 0) return 0;
  char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (p == MAP_FAILED) return 0;
  memcpy(p + 5000, "map", 3);
  int good = msync(p, 8192, MS_SYNC) == 0 && pread(fd, got, 3, 5000) == 3 && strcmp(got, "map") == 0 && pwrite(fd, "put", 3, 100) == 3 && memcmp(p + 100, "put", 3) == 0;
  munmap(p, 8192);
  return good;
}

static int locks(void) {
  int a = open("mapped", O_RDWR), b = open("mapped", O_RDWR);
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  return flock(a, LOCK_EX) == 0 && flock(b, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK && flock(a, LOCK_UN) == 0 && fcntl(a, F_SETLKW, &lock) == 0 && fcntl(a, F_OFD_SETLK, &lock) < 0;
}

static int unlinked(void) {
  char got[4] = "";
  int fd = open("gone", O_CREAT | O_RDWR, 0644);
  return fd >= 0 && unlink("gone") == 0 && pwrite(fd, "yes", 3, 0) == 3 && pread(fd, got, 3, 0) == 3 && strcmp(got, "yes") == 0 && fsync(fd) == 0;
}

static int many(void) {
  char name[32];
  int count = 0;
  if (mkdir("many", 0755) < 0) return 0;
  for (int i = 0; i < 500; i++) {
    snprintf(name, sizeof name, "many/entry-%d", i);
    int fd = open(name, O_CREAT | O_WRONLY, 0644);
    if (fd < 0) return 0;
    close(fd);
  }
  DIR *dir = opendir("many");
  for (struct dirent *e; dir && (e = readdir(dir));) count += e->d_name[0] == 'e';
  return count == 500;
}

static int sockets(void) {
  struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "sock"};
  int listener = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
  return bind(listener, (void *)&name, sizeof name) == 0 && listen(listener, 1) == 0 && connect(client, (void *)&name, sizeof name) == 0 && mkfifo("fifo", 0600) == 0;
}

static int as_user(int (*body)(void)) {
  int status = 1;
  pid_t pid = fork();
  if (pid == 0) {
    gid_t groups[] = {1000, 4000};
    if (setgroups(2, groups) < 0 || setgid(1000) < 0 || setuid(1000) < 0) _exit(2);
    _exit(body() ? 0 : errno ? errno : 255);
  }
  waitpid(pid, &status, 0);
  errno = WEXITSTATUS(status);
  return errno == 0;
}

static int user_creates(void) {
  struct stat st;
  int fd = open("open/mine", O_CREAT | O_WRONLY, 0640);
  return fd >= 0 && fstat(fd, &st) == 0 && st.st_uid == 1000 && st.st_gid == 1000;
}
static int user_refused(void) { return open("secret", O_RDONLY) < 0 && errno == EACCES && chmod("secret", 0777) < 0 && chown("open/mine", 0, 0) < 0; }
static int group_creates(void) { return open("group/mine", O_CREAT | O_WRONLY, 0640) >= 0; }

int main(int argc, char **argv) {
  struct statfs fs;
  if (argc != 2 || chdir(argv[1]) < 0) return 1;
  setvbuf(stdout, NULL, _IOLBF, 0);
  umask(0);
  say("owner", owner());
  say("attributes", attributes());
  say("links", links());
  say("renames", renames());
  say("large", large());
  say("mapped", mapped());
  say("locks", locks());
  say("unlinked", unlinked());
  say("many", many());
  say("sockets", sockets());
  say("statfs", statfs(".", &fs) == 0 && fs.f_blocks > 0);
  int tmpfile = open(".", O_TMPFILE | O_RDWR, 0600);
  say("tmpfile", tmpfile >= 0 || errno == EOPNOTSUPP);
  mkdir("open", 0777);
  mkdir("group", 0770);
  if (chown("group", 0, 4000) < 0) return 1;
  close(open("secret", O_CREAT | O_WRONLY, 0600));
  say("user-creates", as_user(user_creates));
  say("user-refused", as_user(user_refused));
  say("group-creates", as_user(group_creates));
  say("device", mknod("device", S_IFCHR | 0666, 0x103) < 0 && errno == EPERM);
  return 0;
}
