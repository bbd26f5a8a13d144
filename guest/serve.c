#include "serve.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cgroup.h"
#include "connection.h"
#include "drain.h"
#include "jobs.h"
#include "limits.h"
#include "log.h"
#include "modules.h"

static struct source children;
static bool was_large;

static bool reap(struct connection **connections, unsigned count);

void serve_open(void) {
  loop_open();
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGCHLD);
  sigprocmask(SIG_BLOCK, &signals, NULL);
  signal(SIGPIPE, SIG_IGN);
  int fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
  if (fd < 0) fatal("signalfd");
  source_open(&children, fd);
}

void serve(const int *ports, unsigned count, int until_gone) {
  struct connection *connections[MAX_PORTS];
  for (unsigned i = 0; i < count; i++) connections[i] = connection_open(ports[i], until_gone);
  while (!power_off_wanted) {
    bool progress = reap(connections, count);
    unsigned gone = 0;
    int timeout_ms = -1;
    for (unsigned i = 0; i < count; i++) {
      progress = connection_step(connections[i]) || progress;
      gone += connections[i]->gone;
      int wanted_ms = connection_timeout(connections[i]);
      if (wanted_ms >= 0 && (timeout_ms < 0 || wanted_ms < timeout_ms)) timeout_ms = wanted_ms;
    }
    progress = jobs_step() || progress;
    progress = drains_step() || progress;
    if (until_gone && gone == count) break;
    // A turn that did nothing has cleared every flag it tried: only then wait.
    if (!progress) cgroups_prepare();
    if (!progress && was_large) modules_insert_late();
    loop_wait(progress ? 0 : timeout_ms);
  }
  for (unsigned i = 0; i < count; i++) {
    connection_flush(connections[i], power_off_wanted ? 1000 : 0);
    connection_close(connections[i]);
  }
  jobs_close();
}

// Everything that ended, commands and orphans alike.
static bool reap(struct connection **connections, unsigned count) {
  if (!children.readable) return false;
  struct signalfd_siginfo ignored;
  while (read(children.fd, &ignored, sizeof ignored) > 0) {
  }
  children.readable = false;
  int status;
  struct rusage usage;
  for (int i = 0; i < 256; i++) {
    pid_t pid = wait4(-1, &status, WNOHANG, &usage);
    if (pid <= 0) break;
    was_large |= usage.ru_maxrss >= LARGE_PROCESS_KIB;
    bool known = jobs_reaped(pid, status);
    for (unsigned at = 0; at < count && !known; at++) known = connection_reaped(connections[at], pid, status);
    if (i == 255) children.readable = true;
  }
  cgroups_sweep();
  return true;
}
