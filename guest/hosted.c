// For tests on the host: the same program without init, serving connected sockets. `pyro-guest-hosted FD…`
#include <fcntl.h>
#include <stdlib.h>

#include "cgroup.h"
#include "identity.h"
#include "limits.h"
#include "log.h"
#include "serve.h"
#include "spawn.h"

int main(int count, char **arguments) {
  int ports[MAX_PORTS];
  unsigned ports_count = 0;
  identity_open();
  serve_open();
  // PYRO_CHANGES: a directory that stands in for the overlay's.
  if (getenv("PYRO_CHANGES") != NULL) changes_fd = open(getenv("PYRO_CHANGES"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  for (int i = 1; i < count && ports_count < MAX_PORTS; i++) {
    int fd = atoi(arguments[i]);
    if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) fatal("descriptor %d", fd);
    ports[ports_count++] = fd;
  }
  serve(ports, ports_count, 1);
  return 0;
}
