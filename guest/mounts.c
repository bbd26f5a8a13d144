#include "mounts.h"

#include <errno.h>
#include <sys/stat.h>

#include "log.h"

void must_mount(const char *what, const char *where, const char *type, unsigned long flags, const char *options) {
  mkdir(where, 0755);
  if (mount(what, where, type, flags, options) != 0 && errno != EBUSY) fatal("mount %s (%s) on %s", what, type, where);
}
