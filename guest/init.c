#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cgroup.h"
#include "identity.h"
#include "log.h"
#include "modules.h"
#include "mounts.h"
#include "network.h"
#include "root.h"

static bool probing(void);
static void furnish(void);
static void link_if_missing(const char *target, const char *path);
static void write_if_missing(const char *path, const char *text);
static void loopback_up(void);

void init_system(void) {
  umask(0);
  must_mount("dev", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755");
  // An initramfs has no /dev/console of its own, so the kernel gave no standard descriptors.
  int console = open("/dev/console", O_RDWR | O_NOCTTY);
  if (console < 0) console = open("/dev/null", O_RDWR);
  for (int fd = 0; fd < 3; fd++)
    if (fd != console) dup2(console, fd);
  if (console > 2) close(console);
  must_mount("proc", "/proc", "proc", STRICT, NULL);
  must_mount("sys", "/sys", "sysfs", STRICT, NULL);
  modules_insert();
  struct rlimit files = {.rlim_cur = 1048576, .rlim_max = 1048576};
  setrlimit(RLIMIT_NOFILE, &files);
  int oom = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (oom < 0 || write(oom, "-1000", 5) != 5) fatal("set oom_score_adj");
  close(oom);
  // A list of all processes with each that is killed for its memory: long, and nobody's.
  int dump = open("/proc/sys/vm/oom_dump_tasks", O_WRONLY | O_CLOEXEC);
  if (dump >= 0 && write(dump, "0", 1) != 1) say("oom_dump_tasks stays: errno %d", errno);
  if (dump >= 0) close(dump);
  must_mount("cgroup2", "/sys/fs/cgroup", "cgroup2", STRICT, NULL);
  cgroups_open("/sys/fs/cgroup");
  if (probing()) return;
  root_make();
  furnish();
  loopback_up();
  network_open();
}

static bool probing(void) {
  char line[4096];
  int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
  ssize_t length = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
  if (length < 0) fatal("read /proc/cmdline");
  close(fd);
  line[length] = 0;
  for (char *state, *word = strtok_r(line, " \n", &state); word != NULL; word = strtok_r(NULL, " \n", &state))
    if (strcmp(word, "pyro.probe") == 0) return true;
  return false;
}

static void furnish(void) {
  must_mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666");
  must_mount("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
  must_mount("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755");
  mkdir("/run/lock", 01777);
  // On the overlay, not in memory: what commands put there is often larger than the memory.
  mkdir("/tmp", 01777);
  chmod("/tmp", 01777);
  link_if_missing("/proc/self/fd", "/dev/fd");
  link_if_missing("/proc/self/fd/0", "/dev/stdin");
  link_if_missing("/proc/self/fd/1", "/dev/stdout");
  link_if_missing("/proc/self/fd/2", "/dev/stderr");
  mkdir("/etc", 0755);
  write_if_missing("/etc/hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
  write_if_missing("/etc/resolv.conf", "# This VM was started without a name server.\n");
  if (sethostname("pyro", 4) != 0) fatal("sethostname");
}

static void link_if_missing(const char *target, const char *path) {
  if (symlink(target, path) != 0 && errno != EEXIST) say("no link %s: errno %d", path, errno);
}

static void write_if_missing(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) return;  // there already, or a link to nowhere that the image has its reasons for
  ssize_t written = write(fd, text, strlen(text));
  (void)written;
  close(fd);
}

static void loopback_up(void) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
  if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) != 0) say("lo stays down: errno %d", errno);
  if (fd >= 0) close(fd);
}

void power_off(void) {
  if (getpid() != 1) _exit(70);
  kill(-1, SIGKILL);
  sync();
  identity_close();
  network_close();
  // Nothing writes any more; a disk that can't become read-only is synced all the same.
  root_seal();
  reboot(RB_POWER_OFF);
  // Without ACPI there is no power to switch off: QEMU ends at a reset, too (-no-reboot).
  reboot(RB_AUTOBOOT);
  for (;;) pause();
}
