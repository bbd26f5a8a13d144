#include "root.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "limits.h"
#include "log.h"
#include "loop.h"
#include "mounts.h"
#include "spawn.h"

static int scratch_fd = -1;

static void find_root(char *path, size_t size);
static bool find_disk(const char *serial, char *path, size_t size);
static void mount_scratch(void);
static void mount_overlay(void);
static void switch_root(void);

void root_make(void) {
  char disk[80];
  find_root(disk, sizeof disk);
  must_mount(disk, "/lower", "erofs", MS_RDONLY, NULL);
  mount_scratch();
  mount_overlay();
  switch_root();
}

static void find_root(char *path, size_t size) {
  int64_t deadline = now_ns() + DISK_DEADLINE_MS * 1000000LL;
  while (!find_disk("root", path, size)) {
    errno = 0;
    if (now_ns() > deadline) fatal("no disk with the serial \"root\" after %d ms", DISK_DEADLINE_MS);
    pause_ms(2);
  }
}

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

static void mount_scratch(void) {
  // All disks of the machine are there before the first of them could be found, or at most a moment later.
  char disk[80];
  bool found = find_disk("scratch", disk, sizeof disk);
  for (int tries = 0; !found && tries < 5; tries++) {
    pause_ms(2);
    found = find_disk("scratch", disk, sizeof disk);
  }
  if (found) must_mount(disk, "/scratch", "ext4", MS_NOATIME, NULL);
  else must_mount("scratch", "/scratch", "tmpfs", MS_NOATIME, "mode=0755");
  scratch_fd = open("/scratch", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void mount_overlay(void) {
  struct stat root;
  if (stat("/lower", &root) != 0) fatal("stat the root disk");
  if (mkdir("/scratch/upper", 0755) == 0 && (chown("/scratch/upper", root.st_uid, root.st_gid) != 0 || chmod("/scratch/upper", root.st_mode & 07777) != 0))
    fatal("prepare /scratch/upper");
  if (mkdir("/scratch/work", 0700) != 0 && errno != EEXIST) fatal("mkdir /scratch/work");
  // Whatever the kernel was built with: all that was changed is in the upper directory, and nowhere else (LAYER).
  must_mount("overlay", "/root", "overlay", 0, "redirect_dir=off,metacopy=off,index=off,lowerdir=/lower,upperdir=/scratch/upper,workdir=/scratch/work");
  changes_fd = open("/scratch/upper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (changes_fd < 0) fatal("open /scratch/upper");
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

void root_seal(void) {
  mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
  if (scratch_fd >= 0 && fchdir(scratch_fd) == 0) mount(NULL, ".", NULL, MS_REMOUNT | MS_RDONLY, NULL);
}
