// The serial ports to the host.
#ifndef PYRO_PORTS_H
#define PYRO_PORTS_H

// Opens the ports pyro.0 to pyro.7 that are there; waits for pyro.0. Gives how many.
unsigned ports_open(int *ports);

#endif
