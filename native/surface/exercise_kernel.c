#include "exercises.h"

#include <grp.h>
#include <sys/random.h>
#include <sys/sysinfo.h>
#include <sys/syscall.h>
#include <sys/times.h>
#include <sys/utsname.h>
#include <unistd.h>

/* Who and where it is. */
void exercise_kernel(void) {
  struct utsname name;
  struct sysinfo info;
  struct tms used;
  gid_t groups[64];
  char bytes[256];
  TRY(syscall(SYS_getpid));
  TRY(getppid());
  TRY(getuid() + geteuid() + getgid() + getegid());
  TRY(getgroups(64, groups));
  TRY(getsid(0));
  TRY(uname(&name));
  TRY(sysinfo(&info));
  TRY(times(&used));
  TRY(getrandom(bytes, sizeof bytes, 0));
  TRY(getcwd(bytes, sizeof bytes));
}
