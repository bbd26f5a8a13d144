// From the first instruction of PID 1 to a root file system.
#ifndef PYRO_INIT_H
#define PYRO_INIT_H

#include <stdbool.h>

// Mounts, modules, disks, root. With `pyro.probe` on the kernel's command line only what the ports need.
void init_system(void);
// Opens the ports pyro.0 to pyro.7 that are there; waits for pyro.0. Gives how many.
unsigned open_ports(int *ports);
// Kills, syncs, makes the disks read-only, ends the VM.
_Noreturn void power_off(void);

#endif
