#include "identity.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MACHINE_ID "/etc/machine-id"

static int machine_id_fd = -1;

#ifdef PYRO_HOSTED
void identity_open(void) {}
#else
static int random_fd = -1;

// What the image has there may be anything: only a plain file is written to.
void identity_open(void) {
  random_fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
  struct stat info;
  if (lstat(MACHINE_ID, &info) == 0 && !S_ISREG(info.st_mode)) return;
  machine_id_fd = open(MACHINE_ID, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0444);
}
#endif

void identity_close(void) {
  if (machine_id_fd >= 0) close(machine_id_fd);
  machine_id_fd = -1;
}

int set_machine_id(const void *digits) {
  char text[33];
  memcpy(text, digits, 32);
  text[32] = '\n';
  return machine_id_fd < 0 || pwrite(machine_id_fd, text, sizeof text, 0) == (ssize_t)sizeof text ? 0 : errno;
}

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
