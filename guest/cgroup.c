#include "cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "limits.h"
#include "log.h"

static int root_fd = -1;
static uint32_t last;
// Made ahead: making one takes as long as starting a small program.
static uint32_t ready;
static int ready_fd = -1;
static uint32_t lingering[MAX_LINGERING], lingering_count, sweep_at;

static void limit_processes(int mount);
static void write_text(int directory, const char *file, const char *text);

void cgroups_open(const char *path) {
  int mount = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (mount < 0) fatal("open %s", path);
  if (mkdirat(mount, "pyro", 0755) != 0 && errno != EEXIST) fatal("mkdir %s/pyro", path);
  root_fd = openat(mount, "pyro", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root_fd < 0) fatal("open %s/pyro", path);
  limit_processes(mount);
  close(mount);
}

static void limit_processes(int mount) {
  struct sysinfo info;
  char text[24];
  if (sysinfo(&info) != 0) fatal("sysinfo");
  uint64_t most = (uint64_t)info.totalram * info.mem_unit / 1048576 * PROCESSES_PER_MIB;
  snprintf(text, sizeof text, "%u", most < LEAST_PROCESSES ? LEAST_PROCESSES : most > MOST_PROCESSES ? MOST_PROCESSES : (unsigned)most);
  write_text(mount, "cgroup.subtree_control", "+pids");
  write_text(root_fd, "pids.max", text);
}

static void write_text(int directory, const char *file, const char *text) {
  int fd = openat(directory, file, O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write(fd, text, strlen(text)) < 0) fatal("write %s to %s", text, file);
  close(fd);
}

uint32_t cgroup_make(int *fd) {
  *fd = -1;
  if (root_fd < 0) return 0;
  // A command may have removed it: root in the guest can.
  if (ready_fd >= 0 && faccessat(ready_fd, "cgroup.kill", F_OK, 0) != 0) close(ready_fd), ready_fd = -1;
  cgroups_prepare();
  *fd = ready_fd >= 0 ? ready_fd : -errno;
  ready_fd = -1;
  return ready;
}

void cgroups_prepare(void) {
  if (root_fd < 0 || ready_fd >= 0) return;
  char name[16];
  ready = ++last;
  snprintf(name, sizeof name, "%u", ready);
  if (mkdirat(root_fd, name, 0755) == 0) ready_fd = openat(root_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

void cgroup_kill(int fd) {
  int kill_fd = openat(fd, "cgroup.kill", O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
  if (kill_fd < 0) return;
  ssize_t written = write(kill_fd, "1", 1);
  (void)written;
  close(kill_fd);
}

static int removed(uint32_t number) {
  char name[16];
  snprintf(name, sizeof name, "%u", number);
  return unlinkat(root_fd, name, AT_REMOVEDIR) == 0 || errno != EBUSY;
}

void cgroup_leave(uint32_t number) {
  if (number == 0 || root_fd < 0 || removed(number)) return;
  // Past the limit an empty directory stays behind: harmless, and only a guest with 4,096 abandoned groups gets there.
  if (lingering_count < MAX_LINGERING) lingering[lingering_count++] = number;
}

void cgroups_sweep(void) {
  for (int tries = 0; tries < 16 && lingering_count > 0; tries++) {
    if (sweep_at >= lingering_count) sweep_at = 0;
    if (removed(lingering[sweep_at])) lingering[sweep_at] = lingering[--lingering_count];
    else sweep_at++;
  }
}
