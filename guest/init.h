// From the first instruction of PID 1 to a system that commands can run in, and its end.
#ifndef PYRO_INIT_H
#define PYRO_INIT_H

// Mounts, modules, root. With `pyro.probe` on the kernel's command line only what the ports need.
void init_system(void);
// Kills, syncs, makes the disks read-only, ends the VM.
_Noreturn void power_off(void);

#endif
