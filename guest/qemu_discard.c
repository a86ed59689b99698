/* Loaded into QEMU with LD_PRELOAD (src/sandbox/vm/jailspec.ts). A guest reports memory that it does not use (virtio-balloon, free page reporting), and QEMU, 7.2 as well as 10, gives it back in two steps: a hole in
 * the memory's file, then madvise(MADV_DONTNEED), the second only when the first has succeeded. A clone has private pages over a template's file, which is sealed: there is nothing to punch, and the kernel says EPERM. The
 * second step is all that is wanted. */
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/syscall.h>
#include <unistd.h>

/* With large offsets and without they are the same on 64 bits. */
int fallocate(int fd, int mode, off_t offset, off_t length) {
  if ((mode & FALLOC_FL_PUNCH_HOLE) != 0) {
    int seals = fcntl(fd, F_GET_SEALS); /* EINVAL: no memory file, so the disk */
    if (seals > 0 && (seals & F_SEAL_WRITE) != 0) return 0;
  }
  return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

int fallocate64(int fd, int mode, off_t offset, off_t length) __attribute__((alias("fallocate")));
