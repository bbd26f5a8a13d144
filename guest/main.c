// PID 1 of a pyro VM: makes a root file system, opens the ports, serves protocol/PROTOCOL.md.
#include <signal.h>

#include "identity.h"
#include "init.h"
#include "limits.h"
#include "log.h"
#include "ports.h"
#include "serve.h"

int main(void) {
  end_of_program = power_off;
  init_system();
  identity_open();
  serve_open();
  int ports[MAX_PORTS];
  unsigned count = ports_open(ports);
  serve(ports, count, 0);
  power_off();
}
