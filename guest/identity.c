#include "identity.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static int random_fd = -1;

void identity_open(void) { random_fd = open("/dev/urandom", O_RDWR | O_CLOEXEC); }

#ifdef PYRO_HOSTED
// The test build runs on the host and leaves its clock, name and randomness alone.
int set_clock(int64_t unix_ns) { return unix_ns < 0 ? EINVAL : 0; }
int set_hostname(const void *name, size_t length) { return name == NULL || length == 0 ? EINVAL : 0; }
int add_entropy(const void *bytes, size_t length) { return bytes == NULL || length == 0 ? EINVAL : 0; }
#else
int set_clock(int64_t unix_ns) {
  struct timespec time = {.tv_sec = unix_ns / 1000000000, .tv_nsec = unix_ns % 1000000000};
  if (time.tv_nsec < 0) time.tv_sec--, time.tv_nsec += 1000000000;
  return clock_settime(CLOCK_REALTIME, &time) == 0 ? 0 : errno;
}

int set_hostname(const void *name, size_t length) { return sethostname(name, length) == 0 ? 0 : errno; }

// random(4): RNDADDENTROPY credits the bytes, RNDRESEEDCRNG makes the generator use them at once, so that two forks of one
// template never give the same numbers.
int add_entropy(const void *bytes, size_t length) {
  uint32_t space[2 + 1024];
  if (length > 4096) return EINVAL;
  struct rand_pool_info *info = (struct rand_pool_info *)space;
  info->entropy_count = (int)length * 8;
  info->buf_size = (int)length;
  memcpy(space + 2, bytes, length);
  if (ioctl(random_fd, RNDADDENTROPY, info) != 0) return errno;
  return ioctl(random_fd, RNDRESEEDCRNG) == 0 ? 0 : errno;
}
#endif

int64_t clock_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_REALTIME, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}
