#include "init.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "cgroup.h"
#include "identity.h"
#include "limits.h"
#include "log.h"
#include "loop.h"

#define STRICT (MS_NOSUID | MS_NODEV | MS_NOEXEC)

static int scratch_fd = -1;

static void must_mount(const char *what, const char *where, const char *type, unsigned long flags, const char *options);
static bool probing(void);
static void insert_modules(void);
static int by_name(const void *a, const void *b);
static bool find_disk(const char *serial, char *path, size_t size);
static void pause_ms(int ms);
static void make_root(void);
static void switch_root(void);
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
  insert_modules();
  struct rlimit files = {.rlim_cur = 1048576, .rlim_max = 1048576};
  setrlimit(RLIMIT_NOFILE, &files);
  int oom = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (oom < 0 || write(oom, "-1000", 5) != 5) fatal("set oom_score_adj");
  close(oom);
  must_mount("cgroup2", "/sys/fs/cgroup", "cgroup2", STRICT, NULL);
  cgroups_open("/sys/fs/cgroup");
  if (probing()) return;
  make_root();
  switch_root();
  furnish();
  loopback_up();
}

static void must_mount(const char *what, const char *where, const char *type, unsigned long flags, const char *options) {
  mkdir(where, 0755);
  if (mount(what, where, type, flags, options) != 0 && errno != EBUSY) fatal("mount %s (%s) on %s", what, type, where);
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

// /modules/NN-name.ko, in the order of their names; the host chose it by their dependencies.
static void insert_modules(void) {
  char *names[MAX_MODULES];
  size_t count = 0;
  DIR *directory = opendir("/modules");
  if (directory == NULL) return;
  for (struct dirent *entry; (entry = readdir(directory)) != NULL && count < MAX_MODULES;)
    if (entry->d_name[0] != '.') names[count++] = strdup(entry->d_name);
  closedir(directory);
  qsort(names, count, sizeof names[0], by_name);
  for (size_t i = 0; i < count; i++) {
    char path[300];
    snprintf(path, sizeof path, "/modules/%.255s", names[i]);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST)) fatal("insert module %s", names[i]);
    close(fd);
    // In the initramfs a file is memory.
    unlink(path);
    free(names[i]);
  }
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

// /dev/vdX of the virtio disk with this serial number.
static bool find_disk(const char *serial, char *path, size_t size) {
  DIR *directory = opendir("/sys/block");
  bool found = false;
  if (directory == NULL) return false;
  for (struct dirent *entry; !found && (entry = readdir(directory)) != NULL;) {
    char file[300], text[32] = "";
    if (strncmp(entry->d_name, "vd", 2) != 0) continue;
    snprintf(file, sizeof file, "/sys/block/%.64s/serial", entry->d_name);
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    if (length > 0 && text[length - 1] == '\n') text[length - 1] = 0;
    snprintf(path, size, "/dev/%.64s", entry->d_name);
    found = strcmp(text, serial) == 0 && access(path, F_OK) == 0;
  }
  closedir(directory);
  return found;
}

static void pause_ms(int ms) {
  struct timespec time = {.tv_nsec = ms * 1000000L};
  nanosleep(&time, NULL);
}

static void make_root(void) {
  char disk[80];
  int64_t deadline = now_ns() + DEVICE_DEADLINE_MS * 1000000LL;
  while (!find_disk("root", disk, sizeof disk)) {
    errno = 0;
    if (now_ns() > deadline) fatal("no disk with the serial \"root\" after %d ms", DEVICE_DEADLINE_MS);
    pause_ms(2);
  }
  must_mount(disk, "/lower", "erofs", MS_RDONLY, NULL);
  // All disks of the machine are there before the first of them could be found, or at most a moment later.
  char scratch[80];
  bool has_scratch = find_disk("scratch", scratch, sizeof scratch);
  for (int tries = 0; !has_scratch && tries < 5; tries++) {
    pause_ms(2);
    has_scratch = find_disk("scratch", scratch, sizeof scratch);
  }
  if (has_scratch) must_mount(scratch, "/scratch", "ext4", MS_NOATIME, NULL);
  else must_mount("scratch", "/scratch", "tmpfs", MS_NOATIME, "mode=0755");
  struct stat root;
  if (stat("/lower", &root) != 0) fatal("stat the root disk");
  if (mkdir("/scratch/upper", 0755) == 0 && (chown("/scratch/upper", root.st_uid, root.st_gid) != 0 || chmod("/scratch/upper", root.st_mode & 07777) != 0))
    fatal("prepare /scratch/upper");
  if (mkdir("/scratch/work", 0700) != 0 && errno != EEXIST) fatal("mkdir /scratch/work");
  must_mount("overlay", "/root", "overlay", 0, "lowerdir=/lower,upperdir=/scratch/upper,workdir=/scratch/work");
  scratch_fd = open("/scratch", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void switch_root(void) {
  static const char *const moved[] = {"/dev", "/proc", "/sys"};
  for (size_t i = 0; i < 3; i++) {
    char to[32];
    snprintf(to, sizeof to, "/root%s", moved[i]);
    mkdir(to, 0755);
    if (mount(moved[i], to, NULL, MS_MOVE, NULL) != 0) fatal("move %s", moved[i]);
  }
  unlink("/init");
  if (chdir("/root") != 0 || mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0 || chdir("/") != 0) fatal("switch root");
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

unsigned open_ports(int *ports) {
  int64_t deadline = now_ns() + DEVICE_DEADLINE_MS * 1000000LL;
  unsigned count = 0;
  for (;;) {
    int found[MAX_PORTS];
    unsigned wanted = 0;
    bool all = true;
    for (unsigned i = 0; i < MAX_PORTS; i++) found[i] = -1;
    DIR *directory = opendir("/sys/class/virtio-ports");
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
      char path[300], name[32] = "";
      if (entry->d_name[0] == '.') continue;
      snprintf(path, sizeof path, "/sys/class/virtio-ports/%.64s/name", entry->d_name);
      int fd = open(path, O_RDONLY | O_CLOEXEC);
      if (fd < 0 || read(fd, name, sizeof name - 1) < 0) name[0] = 0;
      if (fd >= 0) close(fd);
      // A port whose name has not come yet may be one of ours.
      if (name[0] == 0 || name[0] == '\n') {
        all = false;
        continue;
      }
      if (strncmp(name, "pyro.", 5) != 0 || name[5] < '0' || name[5] >= '0' + (char)MAX_PORTS || (name[6] != '\n' && name[6] != 0)) continue;
      snprintf(path, sizeof path, "/dev/%.64s", entry->d_name);
      wanted++;
      // The node can be there and still answer ENXIO.
      found[name[5] - '0'] = open(path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
      if (found[name[5] - '0'] < 0) all = false;
    }
    if (directory != NULL) closedir(directory);
    if (all && wanted > 0 && found[0] >= 0) {
      for (unsigned i = 0; i < MAX_PORTS; i++)
        if (found[i] >= 0) ports[count++] = found[i];
      return count;
    }
    for (unsigned i = 0; i < MAX_PORTS; i++)
      if (found[i] >= 0) close(found[i]);
    if (now_ns() > deadline) {
      errno = 0;
      fatal("the serial port pyro.0 did not open within %d ms", DEVICE_DEADLINE_MS);
    }
    pause_ms(2);
  }
}

void power_off(void) {
  if (getpid() != 1) _exit(70);
  kill(-1, SIGKILL);
  sync();
  identity_close();
  // Nothing writes any more; a disk that can't become read-only is synced all the same.
  mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
  if (scratch_fd >= 0 && fchdir(scratch_fd) == 0) mount(NULL, ".", NULL, MS_REMOUNT | MS_RDONLY, NULL);
  reboot(RB_POWER_OFF);
  // Without ACPI there is no power to switch off: QEMU ends at a reset, too (-no-reboot).
  reboot(RB_AUTOBOOT);
  for (;;) pause();
}
