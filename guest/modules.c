#include "modules.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "limits.h"
#include "log.h"

// What gives memory back goes in only when there is some to give: telling the host of all that is free dirties a page of the kernel's own for each block of it.
static const char late_name[] = "-virtio_balloon.ko";
static int late_fd = -1;

static int by_name(const void *a, const void *b);

// /modules/NN-name.ko, in the order of their names; the host chose it by their dependencies.
void modules_insert(void) {
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
    size_t length = strlen(names[i]), late = sizeof late_name - 1;
    if (fd >= 0 && length > late && strcmp(names[i] + length - late, late_name) == 0) {
      late_fd = fd;
      unlink(path);
      free(names[i]);
      continue;
    }
    if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST)) fatal("insert module %s", names[i]);
    close(fd);
    // In the initramfs a file is memory.
    unlink(path);
    free(names[i]);
  }
}

void modules_insert_late(void) {
  if (late_fd < 0) return;
  if (syscall(SYS_finit_module, late_fd, "", 0) != 0 && errno != EEXIST) say("free memory stays in the guest: errno %d", errno);
  close(late_fd);
  late_fd = -1;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }
