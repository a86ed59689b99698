/* A guest that was cloned or booted from the same image as another must not share its random numbers, and its clock must be the
 * host's. Done before anything of the workload exists; a guest that cannot do it runs nothing. */
#include <fcntl.h>
#include <linux/random.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"

#define SEED_BYTES 64

/* Open before a clone's first frame, which is this. */
static int pool_fd = -1;

void seed_prepare(void) { pool_fd = open("/dev/urandom", O_RDWR | O_CLOEXEC); }

bool seed(const uint8_t *payload, uint32_t size) {
  if (size != 12 + SEED_BYTES) return false;
  struct {
    struct rand_pool_info info;
    uint8_t bytes[SEED_BYTES];
  } pool;
  uint64_t seconds = get_u64(payload);
  uint32_t nanoseconds = get_u32(payload + 8);
  if (seconds > INT64_MAX || nanoseconds >= 1000000000u) return false;
  struct timespec now = {.tv_sec = (time_t)seconds, .tv_nsec = (long)nanoseconds};
  pool.info.entropy_count = SEED_BYTES * 8;
  pool.info.buf_size = SEED_BYTES;
  memcpy(pool.info.buf, payload + 12, SEED_BYTES);
  bool ok = pool_fd >= 0 && ioctl(pool_fd, RNDADDENTROPY, &pool) == 0 && ioctl(pool_fd, RNDRESEEDCRNG) == 0 && clock_settime(CLOCK_REALTIME, &now) == 0;
  explicit_bzero(&pool, sizeof pool);
  return ok;
}
