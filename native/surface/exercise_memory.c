#include "exercises.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define AREA (4 << 20)
#define PAGE 4096

void exercise_memory(void) {
  char *area = mmap(NULL, AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (area != MAP_FAILED) {
    for (size_t at = 0; at < AREA; at += PAGE) area[at] = 1;
    TRY(mprotect(area + PAGE, PAGE, PROT_READ));
    TRY(madvise(area + AREA / 2, AREA / 4, MADV_DONTNEED));
    TRY(madvise(area, AREA / 2, MADV_WILLNEED));
    unsigned char resident[AREA / PAGE];
    TRY(mincore(area, AREA, resident));
    TRY(mlock(area, 4 * PAGE));
    TRY(munlock(area, 4 * PAGE));
    char *moved = mremap(area, AREA, 2 * AREA, MREMAP_MAYMOVE);
    if (moved != MAP_FAILED) {
      moved[AREA + PAGE] = 1;
      TRY(munmap(moved, 2 * AREA));
    } else TRY(munmap(area, AREA));
  }
  /* musl has no sbrk(3) that does something. */
  long end = syscall(SYS_brk, 0);
  if (syscall(SYS_brk, end + 16 * PAGE) == end + 16 * PAGE) {
    memset((char *)end, 1, 16 * PAGE); // NOLINT
    TRY(syscall(SYS_brk, end));
  }
  int shared = memfd_create("exercise", MFD_CLOEXEC);
  if (shared < 0) return;
  TRY(ftruncate(shared, AREA));
  char *both = mmap(NULL, AREA, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
  if (both != MAP_FAILED) {
    memset(both, 1, 64 * PAGE);
    TRY(munmap(both, AREA));
  }
  close(shared);
}
