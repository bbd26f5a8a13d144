#include "drain.h"

#include <errno.h>
#include <unistd.h>

#include "limits.h"

static struct source drains[MAX_DRAINS];
static unsigned count, next;
static bool ready;

void drain(struct source *source) {
  int fd = source_release(source);
  if (fd < 0) return;
  if (!ready)
    for (unsigned i = 0; i < MAX_DRAINS; i++) drains[i].fd = -1;
  ready = true;
  for (unsigned tries = 0; count < MAX_DRAINS && drains[next].fd >= 0; tries++) next = (next + 1) % MAX_DRAINS;
  if (drains[next].fd >= 0) source_close(&drains[next]);
  else count++;
  source_open(&drains[next], fd);
  next = (next + 1) % MAX_DRAINS;
}

bool drains_step(void) {
  static char nowhere[65536];
  bool any = false;
  for (unsigned i = 0; count > 0 && i < MAX_DRAINS; i++) {
    struct source *source = &drains[i];
    if (source->fd < 0 || !source->readable) continue;
    ssize_t length = read(source->fd, nowhere, sizeof nowhere);
    if (length > 0) any = true;
    else if (length < 0 && errno == EAGAIN) source->readable = false;
    else source_close(source), count--;
  }
  return any;
}
