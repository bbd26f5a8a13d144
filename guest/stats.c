// STATS, in the child: how the guest is. All of it is read where commands can mount something else: a guest may lie about itself.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "loop.h"
#include "request.h"
#include "spawn.h"

static uint64_t number_in(const char *path, const char *name);

void report_stats(const struct message *message) {
  (void)message;
  struct statvfs root;
  uint8_t bytes[128];
  struct builder builder = {.bytes = bytes, .capacity = sizeof bytes};
  if (statvfs("/", &root) != 0) report_error("statvfs", errno, "");
  add_u64(&builder, TAG_DURATION, (uint64_t)now_ns());
  add_u64(&builder, TAG_MEMORY_TOTAL, number_in("/proc/meminfo", "MemTotal:") * 1024);
  add_u64(&builder, TAG_MEMORY_AVAILABLE, number_in("/proc/meminfo", "MemAvailable:") * 1024);
  add_u64(&builder, TAG_DISK_TOTAL, (uint64_t)root.f_blocks * root.f_frsize);
  add_u64(&builder, TAG_DISK_FREE, (uint64_t)root.f_bfree * root.f_frsize);
  add_u64(&builder, TAG_CPU_TIME, number_in("/sys/fs/cgroup/pyro/cpu.stat", "usage_usec ") * 1000);
  add_u32(&builder, TAG_PROCESSES, (uint32_t)number_in("/sys/fs/cgroup/pyro/pids.current", ""));
  report_done(&builder);
}

// The number behind `name`, 0 where there is none.
static uint64_t number_in(const char *path, const char *name) {
  char text[4096];
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t length = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
  if (fd >= 0) close(fd);
  text[length > 0 ? length : 0] = 0;
  const char *at = strstr(text, name);
  return at == NULL ? 0 : strtoull(at + strlen(name), NULL, 10);
}
