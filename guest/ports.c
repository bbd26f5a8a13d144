#include "ports.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "limits.h"
#include "log.h"
#include "loop.h"

static bool open_all(int found[MAX_PORTS]);
static void name_of(const char *entry, char *name, size_t size);

unsigned ports_open(int *ports) {
  int64_t deadline = now_ns() + DEVICE_DEADLINE_MS * 1000000LL;
  int found[MAX_PORTS];
  for (unsigned i = 0; i < MAX_PORTS; i++) found[i] = -1;
  // Those that are open stay so: the host sends to an open port, and the kernel throws away what is unread when one is closed.
  while (!open_all(found)) {
    errno = 0;
    if (now_ns() > deadline) fatal("the serial port pyro.0 did not open within %d ms", DEVICE_DEADLINE_MS);
    pause_ms(2);
  }
  unsigned count = 0;
  for (unsigned i = 0; i < MAX_PORTS; i++)
    if (found[i] >= 0) ports[count++] = found[i];
  return count;
}

// Opens those that are not open yet, -1 in `found`. False while one of them is still on its way.
static bool open_all(int found[MAX_PORTS]) {
  bool all = true;
  DIR *directory = opendir("/sys/class/virtio-ports");
  if (directory == NULL) return false;
  for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
    if (entry->d_name[0] == '.') continue;
    char name[32], path[80];
    name_of(entry->d_name, name, sizeof name);
    // A port whose name has not come yet may be one of ours.
    if (name[0] == 0) all = false;
    if (strncmp(name, "pyro.", 5) != 0 || name[5] < '0' || name[5] >= '0' + (char)MAX_PORTS || name[6] != 0) continue;
    int *port = &found[name[5] - '0'];
    if (*port >= 0) continue;
    snprintf(path, sizeof path, "/dev/%.64s", entry->d_name);
    // The node can be there and still answer ENXIO.
    *port = open(path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (*port < 0) all = false;
  }
  closedir(directory);
  return all && found[0] >= 0;
}

static void name_of(const char *entry, char *name, size_t size) {
  char path[300];
  snprintf(path, sizeof path, "/sys/class/virtio-ports/%.64s/name", entry);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t length = fd < 0 ? 0 : read(fd, name, size - 1);
  if (fd >= 0) close(fd);
  name[length > 0 ? length : 0] = 0;
  name[strcspn(name, "\n")] = 0;
}
